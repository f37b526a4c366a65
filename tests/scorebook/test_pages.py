import base64
import json
from itertools import pairwise
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbformat.v4 import new_output

from scorebook import pages

ROOT = Path(__file__).parents[2]
PNG = b"\x89PNG frame"
CELLS = """
# %% [markdown]
# :::{exercise} By hand
# :label: ex-one
#
# Show it.
# :::
#
# ```{exercise-start} By code
# :class: dropdown
# :label: ex-two
# ```

# %% mystnb={"figure": {"name": "fig-one", "caption": "One"}}
1

# %% mystnb={"figure": {"name": "fig-later", "caption": "Nothing to draw yet"}}
None

# %% [markdown]
# :::{figure} ../results/paper/01_first/mnist/fig-one.png
# :name: fig-one-mnist
# :alt: A curve
# :::
"""
PAPER = {
    "numbers": {},
    "manifest": {
        "data": [{"name": "mnist", "split": "train", "count": 60000, "sha256": "ab"}],
        "seed": 7,
        "versions": {"python": "3.11.2", "torch": "2.13.0"},
        "hardware": {"cpu": "Some CPU", "cores": 2},
        "seconds": 90.0,
        "hash": "0123456789abcdef",
    },
}


def execute(source):
    """A notebook as the runner leaves it: a figure, and the record of a data set."""
    notebook = jupytext.read(source)
    for cell in notebook.cells:
        if cell.source == "1":
            record = {"scorebook": {"name": "data", "data": {"name": "digits"}}}
            image = {"image/png": base64.b64encode(PNG).decode()}
            cell.outputs = [
                new_output("display_data", {"text/plain": "x"}, metadata=record),
                new_output("display_data", image),
            ]
    nbformat.write(notebook, source.with_suffix(".ipynb"))


@pytest.fixture
def written(book):
    """A book of two chapters in two parts, with its pages written."""
    sources = ROOT / "src" / "scoremachines" / "sources.py"
    book.write("src/scoremachines/sources.py", sources.read_text())
    execute(book.chapter("01_first", CELLS, paper="[mnist, fashion]"))
    execute(book.chapter("02_second", "", needs="[first]"))
    parts = [{"caption": f"Part {n}", "chapters": [{"file": f"notebooks/{n}"}]} for n in ("01_first", "02_second")]
    book.write("_toc.yml", json.dumps({"parts": [*parts, {"caption": "Rest", "chapters": [{"file": "book/a"}]}]}))
    book.write("results/paper/01_first/mnist.json", json.dumps(PAPER))
    pages.write(book.root)
    return book


def fragment(book, name):
    return (book.root / "book" / "generated" / f"{name}.md").read_text()


def test_map_has_every_part_chapter_and_goal(written):
    text = fragment(written, "map")
    assert text.index("Part 01_first") < text.index("{ref}`first`") < text.index("Part 02_second")
    assert "| {ref}`second` | 5 min | see it run |" in text
    assert "Rest" not in text


def test_plan_names_needs_and_weeks(written):
    text = fragment(written, "plan")
    assert "| {ref}`first` | 5 min | nothing | week 1 | weeks 1 to 3 |" in text
    assert "| {ref}`second` | 5 min | {ref}`first` | week 2 | weeks 4 to 6 |" in text
    assert "10 minutes: 5 minutes a week over 2 weeks and 2 minutes a week over 6 weeks" in text


@pytest.mark.parametrize(("minutes", "weeks"), [([45], 6), ([10, 20, 30], 2), ([7] * 15, 6), ([1, 100], 2)])
def test_weeks_cover_the_course_without_gaps(minutes, weeks):
    spans = [[int(word) for word in span.split() if word.isdigit()] for span in pages.spread(minutes, weeks)]
    assert spans[0][0] == 1
    assert spans[-1][-1] == weeks
    for before, after in pairwise(spans):
        assert before[-1] <= after[0] <= before[-1] + 1


def test_exercises_are_listed_with_their_titles(written):
    text = fragment(written, "exercises")
    assert "- {ref}`ex-one` By hand\n- {ref}`ex-two` By code\n" in text
    assert text.endswith("**{ref}`second`**\n\nNo exercises yet.\n")


def test_figures_name_cell_profile_data_and_seed(written):
    text = fragment(written, "figures")
    assert "| {numref}`fig-one` | `fig-one` | quick | digits | 0 |" in text
    assert "fig-later" not in text
    assert "| {numref}`fig-one-mnist` | `fig-one-mnist` | paper | mnist | 7 |" in text


@pytest.mark.parametrize(
    ("caption", "profile", "data"),
    [
        ("Paper profile, complete sets.", "paper", "mnist"),
        ("This run, and the paper profile dotted.", "quick, paper", "digits, mnist"),
        ("This run.", "quick", "digits"),
    ],
)
def test_a_figure_of_stored_results_is_not_called_quick(written, caption, profile, data):
    notebook = written.root / "notebooks" / "01_first.ipynb"
    notebook.write_text(notebook.read_text().replace('"caption": "One"', f'"caption": "{caption}"'))
    pages.write(written.root)
    assert f"| {{numref}}`fig-one` | `fig-one` | {profile} | {data} | 0 |" in fragment(written, "figures")


def test_reproduction_states_the_manifest_and_what_is_missing(written):
    text = fragment(written, "reproducing")
    facts = "| mnist | 60000 (train) | 7 | 1.5 min | Some CPU, 2 | python 3.11.2, torch 2.13.0 | `0123456789ab` |"
    assert facts in text
    assert "No paper results are committed yet for fashion." in text
    assert "make paper ONLY=01" in text
    assert "make paper ONLY=02" not in text
    assert "This chapter has no paper profile." in text


def test_pages_work_without_committed_results(written):
    (written.root / "results" / "paper" / "01_first" / "mnist.json").unlink()
    pages.write(written.root)
    assert "No paper results are committed yet for mnist, fashion." in fragment(written, "reproducing")


def test_seconds_of_the_last_run_are_shown(written):
    written.write(".scorebook/seconds.json", '{"01_first": 12.3}')
    pages.write(written.root)
    assert "took 12 seconds" in fragment(written, "reproducing")


def test_data_come_from_the_library(written):
    text = fragment(written, "data")
    for name in ("digits", "photos", "mnist", "fashion", "cifar10", "celeba"):
        assert f"`{name}`\n: " in text
    assert "| `cifar10` | `test_batch_first1000.bin` | 3073000 |" in text


def test_chapter_outside_the_contents_is_refused(written):
    execute(written.chapter("03_third", ""))
    with pytest.raises(ValueError, match=r"_toc.yml lacks notebooks/03_third"):
        pages.write(written.root)


def test_chapter_that_was_not_run_is_named_and_nothing_is_lost(written):
    before = fragment(written, "map")
    (written.root / "notebooks" / "02_second.ipynb").unlink()
    with pytest.raises(FileNotFoundError, match=r"02_second.ipynb is missing: run the chapters"):
        pages.write(written.root)
    assert fragment(written, "map") == before
