import shutil
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from scorebook import check, student

ROOT = Path(__file__).parents[2]
CELLS = """
# %% [markdown]
# :::{exercise} By hand
# :label: ex-hand
# Show it.
# :::
#
# :::{solution} ex-hand
# :class: dropdown
# A SECRET in prose.
# :::
#
# Text that stays.

# %% [markdown]
# :::{exercise} By code
# :label: ex-code
# Compute it.
# :::

# %% [markdown]
# ````{solution-start} ex-code
# :class: dropdown
# ````
# A SECRET before code.

# %%
print("SECRET code")

# %% [markdown]
# ````{solution-end}
# ````

# %%
print("stays")
"""


@pytest.fixture
def tiny(book):
    """A book of a home page and one executed chapter with both kinds of solution."""
    shutil.copy(ROOT / "_config.yml", book.root)
    for name in ("_ext", "_static"):
        shutil.copytree(ROOT / "book" / name, book.root / "book" / name)
    for name in ("macros.yml", "references.bib"):
        shutil.copy(ROOT / "book" / name, book.root / "book")
    book.write("src/scoremachines/sources.py", (ROOT / "src" / "scoremachines" / "sources.py").read_text())
    book.write(
        "_toc.yml", "format: jb-book\nroot: book/index\nparts: [{chapters: [{file: notebooks/01_tiny}], caption: P}]"
    )
    book.write("book/index.md", "# Home\n\n```{include} generated/exercises.md\n```\n")
    notebook = jupytext.read(book.chapter("01_tiny", CELLS))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [new_output("stream", name="stdout", text=f"SECRET output of {cell.source}")]
    notebook.cells[-1].outputs = [new_output("stream", name="stdout", text="stays")]
    notebook.cells[1].outputs = []
    nbformat.write(notebook, book.root / "notebooks" / "01_tiny.ipynb")
    return book


def test_no_solution_is_left_and_the_rest_is(tiny):
    output = student.build(tiny.root)
    assert output == tiny.root / "_build" / "student"
    files = [path for path in output.rglob("*") if path.is_file()]
    assert not [path for path in files if b"SECRET" in path.read_bytes()]
    page = (output / "notebooks" / "01_tiny.html").read_text()
    assert "Text that stays." in page
    assert "Compute it." in page
    assert check.problems(output, browser=False) == []
    handout = nbformat.read(output / "notebooks" / "01_tiny.ipynb", as_version=4)
    assert [cell.source for cell in handout.cells if cell.cell_type == "code"][1:] == ['print("stays")']
    assert not any(cell.get("outputs") for cell in handout.cells)
    assert "SECRET" in (tiny.root / "notebooks" / "01_tiny.ipynb").read_text()
    assert [path.name for path in (tiny.root / "_build").iterdir()] == ["student"]


def test_an_earlier_build_survives_a_failure(tiny):
    kept = tiny.write("_build/student/index.html", "earlier")
    (tiny.root / "book" / "index.md").write_text("# Home\n\n{ref}`nowhere`\n")
    with pytest.raises(RuntimeError, match="strict build failed"):
        student.build(tiny.root)
    assert kept.read_text() == "earlier"
    assert [path.name for path in (tiny.root / "_build").iterdir()] == ["student"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a\n\n:::{solution} x\nb\n:::\n\nc", "a\n\n\nc"),
        ("a\n\n::::{solution} x\n:::{note}\nb\n:::\n::::\n\nc", "a\n\n\nc"),
        ("a\n\n:::{exercise}\nb\n:::", "a\n\n:::{exercise}\nb\n:::"),
        ("a\n:::{solution-start} x\n:::\nb\n:::{solution-end}\n:::\nc", "a\nc"),
        ("```{solution} x\nb\n```\n```python\nc\n```", "```python\nc\n```"),
    ],
)
def test_strip_within_one_cell(before, after):
    assert student.strip(before, hidden=False) == (after, False)


def test_gate_spans_cells():
    start, end = ":::{solution-start} x\n:::\nb", "c\n:::{solution-end}\n:::\nd"
    cells = [new_markdown_cell("a\n" + start), new_code_cell("1"), new_markdown_cell(end), new_code_cell("2")]
    kept = student.without_solutions(new_notebook(cells=cells), "01").cells
    assert [cell.source for cell in kept] == ["a", "d", "2"]


def test_open_gate_is_named():
    notebook = new_notebook(cells=[new_markdown_cell(":::{solution-start} x\n:::")])
    with pytest.raises(ValueError, match="01_tiny: a solution-start has no solution-end"):
        student.without_solutions(notebook, "01_tiny")
