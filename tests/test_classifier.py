"""The classifier against torch's own layers, its training under a seed, and its checkpoints."""

import importlib.util
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from scoremachines.classifier import Classifier, train
from scoremachines.data import load
from tests.conftest import seeded

ROOT = Path(__file__).parents[1]
CHECKPOINTS = {path.stem: path for path in (ROOT / "results" / "classifiers").glob("*.safetensors")}
ORIGIN = {"name": "stripes", "sha256": "0" * 64}


def stripes(count, rng):
    """Images with horizontal (0) or vertical (1) stripes in noise: a class that no single pixel betrays."""
    labels = torch.randint(2, (count,), generator=rng)
    lines = torch.tensor([1.0, -1.0]).repeat(3).expand(6, 6)
    sign = torch.randint(2, (count, 1, 1), generator=rng) * 2 - 1
    plain = torch.where(labels[:, None, None] == 1, lines, lines.T) * sign
    return (plain + 0.5 * torch.randn(count, 6, 6, generator=rng))[:, None], labels


@pytest.fixture(scope="module")
def trained():
    return train(*stripes(300, seeded(1)), seeded(), 6)


@pytest.fixture
def saved(trained, tmp_path):
    path = tmp_path / "stripes.safetensors"
    trained.save(path, **ORIGIN, accuracy=0.5)
    return path


def untrained(*shape, classes=3):
    data = torch.rand(classes, *shape, generator=seeded())
    return train(data, torch.arange(classes), seeded(), 1, rate=1e-12)


# The function ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 10), (1, 1, 3)])
def test_it_is_the_stack_of_layers_that_it_says(shape):
    classifier = untrained(*shape)
    layers = []
    for into, out in [(shape[0], 32), (32, 64), (64, 64)]:
        layers += [nn.Conv2d(into, out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]
    area = 64 * math.prod(math.ceil(n / 8) for n in shape[1:])
    oracle = nn.Sequential(*layers, nn.Flatten(), nn.Linear(area, 128), nn.ReLU(), nn.Linear(128, 3))
    names = ["convolution0", "convolution1", "convolution2", "hidden", "output"]
    slots = [layer for layer in oracle if hasattr(layer, "weight")]
    for name, layer in zip(names, slots, strict=True):
        layer.load_state_dict({part: classifier.weights[f"{name}.{part}"] for part in ("weight", "bias")})
    x = torch.randn(5, *shape, generator=seeded(3))
    with torch.no_grad():
        assert_close(classifier.logits(x), oracle(x))
        assert_close(classifier.features(x), oracle[:-1](x))


@pytest.mark.parametrize(("shape", "limit"), [((1, 8, 8), 2e5), ((1, 28, 28), 1e6), ((3, 32, 32), 1e6)])
def test_sizes_of_images_and_of_checkpoints(tmp_path, shape, limit):
    classifier = untrained(*shape, classes=10)
    assert classifier.features(torch.zeros(2, *shape)).shape == (2, 128)
    assert classifier.logits(torch.zeros(2, *shape)).shape == (2, 10)
    classifier.save(tmp_path / "one", **ORIGIN)
    assert (tmp_path / "one").stat().st_size < limit


def test_features_are_finite_and_follow_the_images(trained):
    x, _ = stripes(5, seeded(4))
    assert (trained.features(x) >= 0).all()
    assert trained.features(x.double()).dtype == torch.float64
    assert_close(trained.features(x.double()).float(), trained.features(x))
    assert_close(trained.features(x[3:4]), trained.features(x)[3:4])
    assert trained.features(x[:0]).shape == (0, 128)
    assert trained.features(1e6 * x).isfinite().all()


def test_chunks_change_nothing(trained, monkeypatch):
    x, labels = stripes(20, seeded(4))
    whole = trained.features(x), trained.accuracy(x, labels)
    monkeypatch.setattr("scoremachines.classifier.CHUNK", 3)
    assert_close(trained.features(x), whole[0])
    assert trained.accuracy(x, labels) == whole[1]


def test_accuracy_is_the_share_of_hits(trained):
    x, labels = stripes(40, seeded(5))
    hits = trained.logits(x).argmax(1) == labels
    assert trained.accuracy(x, labels) == hits.double().mean().item()
    assert trained.accuracy(x, 1 - labels) == pytest.approx(1 - hits.double().mean().item())


# Training -------------------------------------------------------------------------------------------------------


def test_it_learns(trained):
    x, labels = stripes(200, seeded(9))
    before = train(*stripes(300, seeded(1)), seeded(), 1, rate=1e-12)
    assert trained.accuracy(x, labels) > 0.97
    assert before.accuracy(x, labels) < 0.8


def test_the_seed_fixes_it(trained):
    """And the global generator plays no part."""
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again, other = (train(*stripes(300, seeded(1)), seeded(seed), 6) for seed in (0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    for name, weight in trained.weights.items():
        assert torch.equal(again.weights[name], weight)
        assert not torch.equal(other.weights[name], weight)
        assert not weight.requires_grad


def test_training_that_cannot_work_is_refused():
    x, labels = stripes(10, seeded())
    with pytest.raises(ValueError, match=r"data are torch.float32 of shape \(10, 36\)"):
        train(x.flatten(1), labels, seeded(), 1)
    with pytest.raises(ValueError, match="finite"):
        train(x * math.nan, labels, seeded(), 1)
    for wrong in (labels[:9], labels.float(), labels[:, None], labels.bool(), labels.cfloat()):
        with pytest.raises(ValueError, match=r"labels are .* for 10 images"):
            train(x, wrong, seeded(), 1)
    with pytest.raises(ValueError, match="labels are a list"):
        train(x, labels.tolist(), seeded(), 1)
    for wrong in (labels - 1, 0 * labels):
        with pytest.raises(ValueError, match="labels run from"):
            train(x, wrong, seeded(), 1)
    wrong = [{"epochs": 0}, {"epochs": 2.5}, {"epochs": 1, "batch": 0}, {"epochs": 1, "batch": 2.5}]
    for settings in (*wrong, {"epochs": 1, "rate": 0.0}, {"epochs": 1, "rate": math.nan}):
        with pytest.raises(ValueError, match="positive"):
            train(x, labels, seeded(), **settings)
    with pytest.raises(ValueError, match="rng is a NoneType"):
        train(x, labels, None, 1)


def test_images_of_another_kind_are_refused(trained):
    for wrong in (torch.zeros(2, 1, 8, 8), torch.zeros(2, 36), torch.zeros(2, 1, 6, 6).long()):
        for call in (trained.features, trained.logits):
            with pytest.raises(ValueError, match=r"expected floating \(B, 1, 6, 6\)"):
                call(wrong)
    with pytest.raises(ValueError, match="labels are"):
        trained.accuracy(torch.zeros(2, 1, 6, 6), torch.zeros(3).long())


# Checkpoints ----------------------------------------------------------------------------------------------------


def test_a_checkpoint_comes_back_rounded(trained, saved):
    found, rounded = Classifier.load(saved), trained.rounded()
    assert found.shape == trained.shape
    assert found.classes == 2
    assert found.weights.keys() == trained.weights.keys()
    for name, weight in found.weights.items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, rounded.weights[name])
        assert_close(weight, trained.weights[name], rtol=1e-3, atol=1e-6)
    expected = ORIGIN | {"accuracy": 0.5, "shape": [1, 6, 6], "classes": 2, "dtype": "float16"}
    assert expected.items() <= found.manifest.items()
    assert found.manifest["versions"]["torch"] == torch.__version__


def test_saving_again_gives_the_same_bytes(saved):
    before = saved.read_bytes()
    found = Classifier.load(saved)
    found.save(saved, **ORIGIN, accuracy=0.5)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_checkpoint_of_other_data_is_refused(saved):
    assert Classifier.load(saved, **ORIGIN).shape == (1, 6, 6)
    with pytest.raises(ValueError, match=r"made with sha256 = 0.*expected 1"):
        Classifier.load(saved, sha256="1")
    with pytest.raises(ValueError, match="made with colour = None"):
        Classifier.load(saved, colour="red")


def test_what_cannot_be_saved(trained, tmp_path):
    with pytest.raises(ValueError, match=r"lacks \['sha256'\]"):
        trained.save(tmp_path / "one", name="stripes")
    with pytest.raises(ValueError, match=r"holds \['classes', 'shape'\]"):
        trained.save(tmp_path / "one", **ORIGIN, shape="mine", classes=77)
    large = Classifier({name: 1e6 * (1 + weight.abs()) for name, weight in trained.weights.items()}, trained.shape)
    with pytest.raises(ValueError, match="float16"):
        large.save(tmp_path / "one", **ORIGIN)
    assert not list(tmp_path.iterdir())


def test_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a checkpoint"):
        Classifier.load(tmp_path / "none.safetensors")


def test_broken_files_are_refused(saved):
    whole = saved.read_bytes()
    for broken in (b"", b"no tensors", whole[:-7], whole[:40]):
        saved.write_bytes(broken)
        with pytest.raises(ValueError, match="not a complete safetensors file"):
            Classifier.load(saved)


def rewrite(path, weights=None, **manifest):
    """Replace parts of a checkpoint; None removes an entry of the manifest."""
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["manifest"]) | manifest
        tensors = {name: file.get_tensor(name) for name in file.keys()} | (weights or {})
    facts = {key: value for key, value in facts.items() if value is not None}
    save_file(tensors, path, metadata={"manifest": json.dumps(facts)})


@pytest.mark.parametrize("text", ["", "[1]", "7", "{", "null"])
def test_a_manifest_must_be_an_object(saved, text):
    with safe_open(saved, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    for metadata in ({"manifest": text}, None):
        save_file(tensors, saved, metadata=metadata)
        with pytest.raises(ValueError, match="with a manifest"):
            Classifier.load(saved)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"shape": None}, "has shape None"),
        ({"shape": [1, 6]}, "has shape"),
        ({"shape": [1, 6, -6]}, "has shape"),
        ({"shape": [1, 6, "6"]}, "has shape"),
        ({"classes": None}, "None classes"),
        ({"shape": [1, 60, 60]}, "holds no float16 weights"),
        ({"shape": [1, 10**9, 10**9]}, "holds no float16 weights"),
        ({"classes": 3}, "holds no float16 weights"),
        ({"fingerprint": None}, "fingerprint"),
        ({"weights": {"output.bias": torch.zeros(2).half()}}, "fingerprint"),
        ({"weights": {"output.bias": torch.zeros(2)}}, "holds no float16 weights"),
        ({"weights": {"output.bias": torch.zeros(3).half()}}, "holds no float16 weights"),
        ({"weights": {"extra": torch.zeros(2).half()}}, "holds no float16 weights"),
        ({"weights": {"output.bias": torch.tensor([1, math.nan]).half()}}, "NaN or infinite"),
    ],
)
def test_changed_checkpoints_are_refused(saved, change, match):
    rewrite(saved, **change)
    with pytest.raises(ValueError, match=match):
        Classifier.load(saved)


def test_the_committed_checkpoint_is_as_accurate_as_it_says():
    seen, test = load("digits"), load("digits", "test")
    found = Classifier.load(ROOT / "results" / "classifiers" / "digits.safetensors", **seen.provenance)
    assert found.manifest["held_out"]["sha256"] == test.sha256
    assert found.manifest["accuracy"] == pytest.approx(found.accuracy(test.x0, test.labels), abs=1 / test.count)
    assert found.manifest["accuracy"] > 0.9


@pytest.mark.parametrize("name", ["digits", "mnist", "fashion", "cifar10"])
def test_committed_checkpoints_are_sound_and_small(name):
    path = CHECKPOINTS[name]
    found = Classifier.load(path, name=name, split="train")
    assert path.stat().st_size < 1e6
    assert abs(found.manifest["accuracy"] - found.manifest["accuracy_before_rounding"]) < 0.01
    assert found.manifest["relative_change_of_features_by_rounding"] < 0.01


def test_the_script_writes_a_checkpoint(tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("train_classifier", ROOT / "scripts" / "train_classifier.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setitem(script.EPOCHS, "digits", 1)
    out = tmp_path / "folder" / "digits.safetensors"
    script.main(["--data", "digits", "--out", str(out)])
    test = load("digits", "test")
    found = Classifier.load(out, **load("digits").provenance)
    assert found.manifest["settings"] == {"epochs": 1, "batch": 128, "rate": 1e-3, "seed": 0}
    assert found.manifest["accuracy"] == found.accuracy(test.x0, test.labels)
    assert f"held-out accuracy {found.manifest['accuracy']:.4f} (360 images)" in capsys.readouterr().out
