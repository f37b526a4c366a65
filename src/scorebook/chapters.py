"""Chapters: the percent-format sources ``notebooks/NN_name.py`` and what their headers say."""

import re
from dataclasses import dataclass
from pathlib import Path

HEADING = re.compile(r"\A\(([\w-]+)\)=\n+# (.+)")
KEYS = {"goals", "minutes", "needs", "paper"}


@dataclass(frozen=True)
class Chapter:
    """One chapter: its source, and the label, title, goals, minutes, needs and paper data sets it declares."""

    source: Path
    stem: str
    label: str
    title: str
    goals: tuple[str, ...]
    minutes: int
    needs: tuple[str, ...]
    paper: tuple[str, ...]

    @property
    def notebook(self) -> Path:
        """Where the executed notebook is written."""
        return self.source.with_suffix(".ipynb")

    def read(self):
        """The unexecuted notebook (an nbformat NotebookNode)."""
        return _read(self.source)


def chapters(root: Path) -> list[Chapter]:
    """Every chapter of the book in ``root``, sorted by file name.

    Raises ValueError, naming the file, for a malformed header, a label used twice, or a need that is no
    earlier chapter.
    """
    found = [_chapter(path) for path in sorted((Path(root) / "notebooks").glob("[0-9][0-9]_*.py"))]
    labels: list[str] = []
    for chapter in found:
        if chapter.label in labels:
            raise ValueError(f"{chapter.source}: the label ({chapter.label})= is taken; give the chapter its own.")
        for need in chapter.needs:
            if need not in labels:
                raise ValueError(f"{chapter.source}: needs names {need!r}; earlier chapters are {labels}.")
        labels.append(chapter.label)
    return found


def select(found: list[Chapter], only: list[str] | None) -> list[Chapter]:
    """The chapters that ``only`` names by number (``03``) or by stem (``03_name``); all of them for None."""
    for name in only or []:
        if not any(_named(chapter, name) for chapter in found):
            raise ValueError(f"No chapter is called {name!r}; there are {[c.stem for c in found]}.")
    return [chapter for chapter in found if not only or any(_named(chapter, name) for name in only)]


def _named(chapter, name):
    return name in (chapter.stem, chapter.stem.split("_")[0])


def _read(source):
    import jupytext

    try:
        return jupytext.read(source)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{source} is not a readable percent notebook ({reason}); mend its header.") from None


def _chapter(source):
    notebook = _read(source)
    if "kernelspec" not in notebook.metadata:
        raise ValueError(f"{source}: the header has no kernelspec; name the kernel python3 there.")
    first = notebook.cells[0] if notebook.cells else None
    heading = HEADING.match(first.source) if first and first.cell_type == "markdown" else None
    if not heading:
        raise ValueError(f"{source}: the first cell must be markdown that opens with (label)= and '# Title' lines.")
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise ValueError(f"{source}: {len(tagged)} cells have the tag 'parameters'; exactly one must have it.")
    label, title = heading.groups()
    return Chapter(source, source.stem, label, title.strip(), **_meta(source, notebook.metadata.get("scorebook")))


def _meta(source, header):
    if not isinstance(header, dict) or set(header) != KEYS:
        found = sorted(header) if isinstance(header, dict) else header
        raise ValueError(f"{source}: the header's scorebook entry holds {found}; it must hold {sorted(KEYS)}.")
    for key in ("goals", "needs", "paper"):
        if not isinstance(header[key], list) or not all(isinstance(item, str) for item in header[key]):
            raise ValueError(f"{source}: {key} is {header[key]!r}; expected a list of strings.")
    if not header["goals"]:
        raise ValueError(f"{source}: goals is empty; say what the reader will be able to do.")
    if type(header["minutes"]) is not int or header["minutes"] <= 0:
        raise ValueError(f"{source}: minutes is {header['minutes']!r}; expected a positive whole number.")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in header.items()}
