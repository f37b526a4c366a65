"""Checkpoint files: what comes back, and what is refused."""

import json
import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.testing import assert_close

from scoremachines import checkpoints
from tests.conftest import one_sentence, refused, seeded

ORIGIN = {"name": "stripes", "sha256": "0" * 64}
REMAKE = "make it again"


def weights():
    return {"b": torch.randn(3, generator=seeded()), "a": torch.randn(3, 2, generator=seeded(1)).double()}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "one.safetensors"
    checkpoints.write(path, weights(), {"sizes": [3, 2]}, ORIGIN)
    return path


def rewrite(path, tensors=None, **manifest):
    """Replace parts of a checkpoint; None removes an entry of the manifest."""
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["manifest"]) | manifest
        held = {name: file.get_tensor(name) for name in file.keys()} | (tensors or {})
    facts = {key: value for key, value in facts.items() if value is not None}
    save_file(held, path, metadata={"manifest": json.dumps(facts)})


def test_weights_come_back_rounded(saved):
    found, manifest = checkpoints.read(saved, ORIGIN, REMAKE)
    kept = checkpoints.rounded(weights())
    assert found.keys() == kept.keys()
    for name, weight in weights().items():
        assert found[name].dtype == torch.float16
        assert kept[name].dtype == weight.dtype
        assert torch.equal(found[name].to(weight), kept[name])
        assert_close(kept[name], weight, rtol=1e-3, atol=1e-6)
    assert (ORIGIN | {"sizes": [3, 2], "dtype": "float16"}).items() <= manifest.items()
    assert manifest["versions"]["torch"] == torch.__version__


def test_writing_again_gives_the_same_bytes(saved):
    before = saved.read_bytes()
    checkpoints.write(saved, checkpoints.read(saved, {}, REMAKE)[0], {"sizes": [3, 2]}, ORIGIN)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_what_cannot_be_written(tmp_path):
    path = tmp_path / "one"
    refused(r"lacks \['sha256'\]", checkpoints.write, path, weights(), {}, {"name": "stripes"})
    refused(r"holds \['sizes'\]", checkpoints.write, path, weights(), {"sizes": 1}, ORIGIN | {"sizes": 2})
    refused(r"holds \['dtype'\]", checkpoints.write, path, weights(), {}, ORIGIN | {"dtype": "float32"})
    for wrong in (1e6, math.nan):
        refused("range of float16 or is NaN", checkpoints.write, path, {"a": torch.tensor([wrong])}, {}, ORIGIN)
    assert not list(tmp_path.iterdir())


def test_other_data_are_refused(saved):
    refused(r"made with sha256 = 0.*expected 1; make it again", checkpoints.read, saved, {"sha256": "1"}, REMAKE)
    refused("made with colour = None", checkpoints.read, saved, {"colour": "red"}, REMAKE)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a checkpoint; make it again") as error:
        checkpoints.read(tmp_path / "none", {}, REMAKE)
    assert one_sentence(str(error.value))


def test_broken_files_are_refused(saved):
    whole = saved.read_bytes()
    for broken in (b"", b"no tensors", whole[:-7], whole[:40]):
        saved.write_bytes(broken)
        with pytest.raises(ValueError, match="not a complete safetensors file"):
            checkpoints.read(saved, {}, REMAKE)


@pytest.mark.parametrize("text", ["", "[1]", "7", "{", "null", None])
def test_a_manifest_must_be_an_object(saved, text):
    save_file({"a": torch.zeros(2).half()}, saved, metadata=None if text is None else {"manifest": text})
    with pytest.raises(ValueError, match="with a manifest"):
        checkpoints.read(saved, {}, REMAKE)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"fingerprint": None}, "fingerprint"),
        ({"tensors": {"b": torch.zeros(3).half()}}, "fingerprint"),
        ({"tensors": {"c": torch.zeros(3).half()}}, "fingerprint"),
        ({"tensors": {"b": torch.zeros(3)}}, "another dtype"),
        ({"tensors": {"b": torch.tensor([math.nan, 1, 1]).half()}}, "NaN or infinite"),
    ],
)
def test_changed_files_are_refused(saved, change, match):
    rewrite(saved, **change)
    refused(match, checkpoints.read, saved, {}, REMAKE)


def test_a_write_that_fails_leaves_the_file_as_it_was(saved, monkeypatch):
    before = saved.read_bytes()

    def broken(weights, path, metadata):
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(checkpoints, "save_file", broken)
    with pytest.raises(OSError, match="no space left"):
        checkpoints.write(saved, weights(), {}, ORIGIN)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
