"""The student build: the book and its notebooks without the solutions."""

import os
import re
import shutil
import tempfile
from pathlib import Path

from scorebook import site
from scorebook.chapters import Chapter, chapters

FENCED = r"^(?P<fence>[:`]{{3,}})\{{{kind}\}}.*?^(?P=fence)[:`]*[ \t]*$\n?"
SOLUTION, START, END = (
    re.compile(FENCED.format(kind=kind), re.MULTILINE | re.DOTALL)
    for kind in ("solution", "solution-start", "solution-end")
)
COPIED = ("_config.yml", "_toc.yml", "requirements.lock", "book", "notebooks", "results", "src")


def build(root: Path) -> Path:
    """Build the site and the hand-out notebooks without solutions in ``_build/student``; returns that folder.

    The work is done on a copy of the book, which replaces the earlier student build when all of it succeeded.
    """
    import nbformat

    root = Path(root).resolve()
    (root / "_build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root / "_build", prefix="student-") as folder:
        copy = Path(folder)
        copy_book(root, copy)
        for chapter in chapters(copy):
            executed = nbformat.read(chapter.notebook, as_version=4)
            nbformat.write(without_solutions(executed, chapter.stem), chapter.notebook)
        output = site.build(copy)
        for chapter in chapters(root):
            nbformat.write(handout(chapter), output / "notebooks" / f"{chapter.stem}.ipynb")
        target = root / "_build" / "student"
        shutil.rmtree(target, ignore_errors=True)
        os.replace(output, target)
    return target


def copy_book(root: Path, copy: Path) -> None:
    """Copy what a build reads, without generated pages."""
    for name in COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", "generated"))
        elif source.is_file():
            shutil.copyfile(source, copy / name)


def handout(chapter: Chapter):
    """The unexecuted notebook of a chapter without solutions."""
    return without_solutions(chapter.read(), chapter.stem)


def without_solutions(notebook, name: str):
    """The notebook without solution directives, and without everything from a ``solution-start`` to its end."""
    kept, hidden = [], False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source, hidden = strip(cell.source, hidden)
            if not cell.source:
                continue
        elif hidden:
            continue
        kept.append(cell)
    if hidden:
        raise ValueError(f"{name}: a solution-start has no solution-end; add one after the solution.")
    notebook.cells = kept
    return notebook


def strip(text: str, hidden: bool) -> tuple[str, bool]:
    """The text outside solutions, and whether it ends inside one."""
    kept, text = "", SOLUTION.sub("", text)
    while gate := (END if hidden else START).search(text):
        kept += "" if hidden else text[: gate.start()]
        text, hidden = text[gate.end() :], not hidden
    return (kept + ("" if hidden else text)).strip(), hidden
