import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from scorebook import paper, record, record_data
from scorebook.files import book_root


@pytest.fixture
def shown(monkeypatch):
    """The outputs that a chapter would have, as (data, metadata)."""
    found = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw, metadata: found.append((data, metadata)))
    return found


@pytest.mark.parametrize(
    ("value", "plain", "rtol"),
    [
        (3, 3, 0),
        (True, True, 0),
        ("digits", "digits", 0),
        (0.1, 0.1, 1e-3),
        (np.float32(0.5), 0.5, 1e-3),
        (np.int64(7), 7, 0),
        (torch.tensor(1 / 3, dtype=torch.float64, requires_grad=True), 1 / 3, 1e-3),
        (torch.eye(2), [[1.0, 0.0], [0.0, 1.0]], 1e-3),
        ((1, np.float64(0.1)), [1, 0.1], 1e-3),
        (np.arange(3), [0, 1, 2], 0),
    ],
)
def test_value_is_kept_in_full(shown, value, plain, rtol):
    record("name", value)
    (_, metadata) = shown[0]
    number = json.loads(json.dumps(metadata))["scorebook"]["number"]
    assert number == {"value": plain, "rtol": rtol}
    assert type(number["value"]) is type(plain)


def test_stated_tolerance_wins(shown):
    record("count", 1000, rtol=0.01)
    assert shown[0][1]["scorebook"]["number"]["rtol"] == 0.01


@pytest.mark.parametrize(("value", "spec", "text"), [(1 / 3, ".2f", "0.33"), (12, "d", "12"), ("grey", "s", "grey")])
def test_glue_finds_and_formats_it(shown, value, spec, text):
    from myst_nb.core.variables import format_plain_text
    from myst_nb.ext.glue import extract_glue_data_cell
    from nbformat.v4 import new_code_cell, new_output

    record("name", value)
    data, metadata = shown[0]
    cell = new_code_cell(outputs=[new_output("display_data", data, metadata=metadata)])
    [(name, output)] = extract_glue_data_cell(cell)
    assert name == "name"
    assert format_plain_text(output["data"]["text/plain"], spec) == text
    assert cell.outputs == []  # nothing is shown on the page


@pytest.mark.parametrize("value", [float("nan"), [1.0, float("inf")], [[1], [1, 2]], [], [[[1]]], ["a"], None, {}, 1j])
def test_other_values_are_refused(shown, value):
    with pytest.raises(ValueError, match=r"Record 'name' is .* expected finite numbers"):
        record("name", value)
    assert not shown


@pytest.mark.parametrize("name", ["", "a b", "a:b"])
def test_name_must_suit_the_glue_role(shown, name):
    with pytest.raises(ValueError, match="cannot name a record"):
        record(name, 1)


def test_data_provenance(shown):
    about = {"name": "digits", "split": "train", "sha256": "ab", "count": "12", "preprocessing": "none"}
    record_data(SimpleNamespace(provenance=about, **(about | {"count": 12})))
    assert shown[0][1]["scorebook"]["data"] == about | {"count": 12}
    assert shown[0][1]["scrapbook"]["name"] == "data-digits-train"


def test_paper_results(book, monkeypatch):
    numbers = {"r2": {"value": 0.5, "rtol": 1e-3}, "curve": {"value": [1.0, 2.0], "rtol": 1e-3}}
    book.write("results/paper/01_a/mnist.json", json.dumps({"numbers": numbers, "manifest": {}}))
    (book.root / "notebooks").mkdir()
    monkeypatch.chdir(book.root / "notebooks")
    assert paper("01_a") == {"mnist": {"r2": 0.5, "curve": [1.0, 2.0]}}
    assert paper("02_b") == {}
    assert paper("01_a", root=book.root) == paper("01_a")


def test_damaged_paper_result_is_named(book):
    book.write("results/paper/01_a/mnist.json", '{"numbers": ')
    with pytest.raises(ValueError, match=r"mnist\.json is not valid JSON"):
        paper("01_a", root=book.root)


def test_root_is_the_folder_with_the_configuration(book, tmp_path_factory):
    folder = book.root / "a" / "b"
    folder.mkdir(parents=True)
    assert book_root(folder) == book.root
    with pytest.raises(FileNotFoundError, match=r"No _config\.yml"):
        book_root(tmp_path_factory.mktemp("elsewhere"))
