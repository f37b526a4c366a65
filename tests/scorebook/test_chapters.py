import pytest

from scorebook.chapters import chapters, select


def test_header_is_read(book):
    book.chapter("02_second", "", needs="[first]", paper="[mnist, fashion]")
    book.chapter("01_first", "# %%\nx = 1\n")
    first, second = chapters(book.root)
    assert (first.stem, first.label, first.title) == ("01_first", "first", "Chapter first")
    assert (first.goals, first.minutes, first.needs, first.paper) == (("see it run",), 5, (), ())
    assert (second.needs, second.paper) == (("first",), ("mnist", "fashion"))
    assert first.notebook == book.root / "notebooks" / "01_first.ipynb"


def test_unexecuted_notebook_keeps_the_metadata(book):
    book.chapter("01_first", '# %% mystnb={"figure": {"name": "fig-a"}}\nx = 1\n')
    notebook = chapters(book.root)[0].read()
    assert notebook.metadata.scorebook.goals == ["see it run"]
    assert notebook.cells[-1].metadata.mystnb.figure.name == "fig-a"
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code")


def test_other_python_files_are_no_chapters(book):
    book.write("notebooks/helper.py", "x = 1\n")
    assert chapters(book.root) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("minutes: 5", "minutes: soon", "minutes is 'soon'"),
        ("minutes: 5", "minutes: true", "minutes is True"),
        ("goals: [see it run]", "goals: []", "goals is empty"),
        ("goals: [see it run]", "goals: [1]", "expected a list of strings"),
        ("minutes: 5, ", "", "must hold"),
        ("scorebook:", "scorebooks:", "holds None"),
        ("goals: [", "goals: [[", "mend its header"),
        ("kernelspec:", "kernel:", "no kernelspec"),
        ("# (first)=\n", "", "opens with"),
        ('tags=["parameters"]', "", "0 cells have the tag"),
        ("needs: []", "needs: [later]", "needs names 'later'"),
    ],
)
def test_malformed_chapter_is_named(book, old, new, message):
    path = book.chapter("01_first", "")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=r"01_first\.py") as error:
        chapters(book.root)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_label_is_unique(book):
    book.chapter("01_same", "")
    book.chapter("02_same", "")
    with pytest.raises(ValueError, match=r"02_same.*is taken"):
        chapters(book.root)


def test_select(book):
    for stem in ("01_a", "02_b", "03_c"):
        book.chapter(stem, "")
    found = chapters(book.root)
    assert [c.stem for c in select(found, ["03", "01_a"])] == ["01_a", "03_c"]
    assert select(found, None) == found
    with pytest.raises(ValueError, match="No chapter is called '04'"):
        select(found, ["04"])
