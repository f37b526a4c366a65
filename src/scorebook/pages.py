"""Generated fragments of the book's own pages, written to ``book/generated`` and included by the pages in ``book``.

Everything comes from the chapters' headers and text, the executed notebooks, the committed results and the library's
list of data sets, so a new chapter appears on every page without an edit here.
"""

import math
import re
import runpy
import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml

from scorebook import results
from scorebook.chapters import Chapter, chapters
from scorebook.files import read_json, replace

DIRECTIVE = re.compile(
    r"^(?P<fence>[:`]{3,})\{(?P<kind>[\w:-]+)\} *(?P<title>.*)\n(?P<options>(?: *:[\w-]+:.*\n)*)", re.MULTILINE
)
COURSES = (2, 6)  # weeks


@dataclass(frozen=True)
class Figure:
    """A numbered figure of a chapter: its name, and the profile, data sets and seed that made it."""

    name: str
    profile: str
    data: str
    seed: str


@dataclass(frozen=True)
class Page:
    """A chapter together with its executed notebook (as JSON) and its committed paper results by data set."""

    chapter: Chapter
    notebook: dict
    paper: dict

    @property
    def link(self):
        """A reference to the chapter."""
        return f"{{ref}}`{self.chapter.label}`"

    def cells(self, kind):
        """The cells of one type: markdown or code."""
        return [cell for cell in self.notebook["cells"] if cell["cell_type"] == kind]

    def directives(self, *kinds):
        """(title, options) of every directive of these kinds in the text."""
        text = "\n".join(source(cell) + "\n" for cell in self.cells("markdown"))
        found = [match for match in DIRECTIVE.finditer(text) if match["kind"] in kinds]
        return [(match["title"].strip(), options(match["options"])) for match in found]


def source(cell):
    """A cell's text; notebooks store it as one string or as a list of lines."""
    return "".join(cell["source"])


def options(text):
    """The options of a directive by name."""
    return dict(re.findall(r"^ *:([\w-]+): *(.*)$", text, re.MULTILINE))


def write(root: Path) -> None:
    """Write every generated fragment, each as a whole; raises FileNotFoundError when a chapter was not executed."""
    root = Path(root)
    parts = book_parts(root)
    pages = [page for _, members in parts for page in members]
    fragments = {
        "map": chapter_map(parts),
        "plan": course_plan(pages),
        "exercises": exercise_index(pages),
        "figures": figure_index(pages),
        "reproducing": reproduction(pages, last_seconds(root)),
        "data": data_tables(root),
    }
    target = root / "book" / "generated"
    shutil.rmtree(target, ignore_errors=True)
    for name, text in fragments.items():
        replace(target / f"{name}.md", (text + "\n").encode())


def book_parts(root: Path) -> list[tuple[str, list[Page]]]:
    """The parts of the table of contents that hold chapters, each with its pages in order."""
    known = {f"notebooks/{chapter.stem}": chapter for chapter in chapters(root)}
    toc = yaml.safe_load((root / "_toc.yml").read_text("utf-8"))
    parts = []
    for part in toc["parts"]:
        listed = [entry["file"] for entry in part["chapters"]]
        parts.append((part["caption"], [read_page(root, known.pop(file)) for file in listed if file in known]))
    if known:
        raise ValueError(f"_toc.yml lacks {', '.join(known)}; add every chapter to the part it belongs to.")
    return [(caption, members) for caption, members in parts if members]


def read_page(root, chapter):
    """A chapter with its notebook and its paper results; raises FileNotFoundError when it was not executed."""
    if not chapter.notebook.is_file():
        raise FileNotFoundError(f"{chapter.notebook} is missing: run the chapters first (make book does).")
    paper = sorted((root / "results" / "paper" / chapter.stem).glob("[!.]*.json"))
    return Page(chapter, read_json(chapter.notebook), {path.stem: read_json(path) for path in paper})


def last_seconds(root):
    """How long each chapter took when it last ran here."""
    path = root / ".scorebook" / "seconds.json"
    return read_json(path) if path.is_file() else {}


# Tables


def table(head, rows):
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def chapter_map(parts):
    """Per part: each chapter with its minutes and what its reader can do afterwards."""
    return "\n\n".join(f"**{caption}**\n\n" + part_table(members) for caption, members in parts)


def part_table(members):
    """The chapters of one part."""
    rows = [(page.link, f"{page.chapter.minutes} min", "; ".join(page.chapter.goals)) for page in members]
    return table(["chapter", "time", "afterwards you can"], rows)


def course_plan(pages):
    """What each chapter needs, and the weeks it takes in a short and in a long course."""
    weeks = [spread([page.chapter.minutes for page in pages], count) for count in COURSES]
    rows = [
        (page.link, f"{page.chapter.minutes} min", needs(page), *spans)
        for page, *spans in zip(pages, *weeks, strict=True)
    ]
    head = ["chapter", "reading", "needs", *(f"{count}-week course" for count in COURSES)]
    total = sum(page.chapter.minutes for page in pages)
    pace = " and ".join(f"{math.ceil(total / count)} minutes a week over {count} weeks" for count in COURSES)
    return f"{table(head, rows)}\n\nReading all of it takes {total} minutes: {pace}, exercises not counted."


def needs(page):
    """Links to the chapters that this one builds on."""
    return ", ".join(f"{{ref}}`{label}`" for label in page.chapter.needs) or "nothing"


def spread(minutes, weeks):
    """The weeks over which each chapter extends when the total is divided evenly."""
    spans, before, total = [], 0, sum(minutes)
    for length in minutes:
        first = before * weeks // total + 1
        before += length
        last = math.ceil(before * weeks / total)
        spans.append(f"week {first}" if first == last else f"weeks {first} to {last}")
    return spans


def exercise_index(pages):
    """Every exercise with its link, chapter by chapter."""
    return "\n\n".join(f"**{page.link}**\n\n{listed(exercises(page))}" for page in pages)


def exercises(page):
    """The labelled exercises of a chapter, as links with their titles."""
    found = page.directives("exercise", "exercise-start")
    return [f"{{ref}}`{option['label']}` {title}".rstrip() for title, option in found if "label" in option]


def listed(items):
    """A Markdown list."""
    return "\n".join(f"- {item}" for item in items) or "No exercises yet."


def figure_index(pages):
    """Every numbered figure with what made it, chapter by chapter."""
    return "\n\n".join(
        f"**{page.link}** (`notebooks/{page.chapter.source.name}`)\n\n{figure_table(page)}" for page in pages
    )


def figure_table(page):
    """The figures of one chapter."""
    rows = [(f"{{numref}}`{f.name}`", f"`{f.name}`", f.profile, f.data, f.seed) for f in figures(page)]
    return table(["figure", "cell", "profile", "data", "seed"], rows) if rows else "No numbered figures."


def figures(page):
    """The figures of the live run, then those of the paper profile that the text includes."""
    return [*live_figures(page), *paper_figures(page)]


def live_figures(page):
    """The figures that the live run drew; a cell whose results are not there yet draws none.

    A caption that opens with "Paper profile" is of stored results alone; one that names the profile shows both.
    """
    run = parameters(page)
    profile, live, stored = run.get("profile", "quick"), sorted(used_data(page)), sorted(page.paper)
    text = captions(page)
    found = []
    for name in results.figures(page.notebook):
        caption = text.get(name, "").lower()
        if caption.startswith("paper profile"):
            kind, sets = "paper", stored
        elif "paper profile" in caption:
            kind, sets = f"{profile}, paper", [*live, *stored]
        else:
            kind, sets = profile, live
        found.append(Figure(name, kind, ", ".join(sets) or "none", run.get("seed", "0")))
    return found


def captions(page):
    """The caption of each figure cell, by the figure's name."""
    figures = [cell["metadata"].get("mystnb", {}).get("figure", {}) for cell in page.cells("code")]
    return {figure["name"]: figure.get("caption", "") for figure in figures if "name" in figure}


def parameters(page):
    """The values the run was given, or the chapter's defaults."""
    tags = ("parameters", "injected-parameters")
    cells = [cell for cell in page.cells("code") if set(tags) & set(cell["metadata"].get("tags", []))]
    return {
        key: value.strip("\"'") for cell in cells for key, value in re.findall(r"^(\w+) = (.+)$", source(cell), re.M)
    }


def used_data(page):
    """The names of the data sets that the run recorded."""
    outputs = [output for cell in page.cells("code") for output in cell["outputs"]]
    entries = [output.get("metadata", {}).get("scorebook", {}).get("data") for output in outputs]
    return {entry["name"] for entry in entries if entry}


def paper_figures(page):
    """The figures of the paper profile that the text includes."""
    found = []
    for path, option in page.directives("figure"):
        match = re.search(rf"results/paper/{page.chapter.stem}/(\w+)/", path)
        if match and "name" in option:
            seed = page.paper.get(match[1], {}).get("manifest", {}).get("seed", 0)
            found.append(Figure(option["name"], "paper", match[1], str(seed)))
    return found


# Reproduction


def reproduction(pages, seconds):
    """Per chapter: the commands, the data, the time of the quick run and the facts of the committed paper run."""
    return "\n\n".join(chapter_reproduction(page, seconds.get(page.chapter.stem)) for page in pages)


def chapter_reproduction(page, seconds):
    """One chapter: its commands, and what its paper run was."""
    chapter = page.chapter
    number = chapter.stem.split("_")[0]
    took = f" The run behind this page took {seconds:.0f} seconds." if seconds is not None else ""
    commands = [f".venv/bin/python -m scorebook run --only {number}"] + [f"make paper ONLY={number}"] * bool(
        chapter.paper
    )
    return "\n\n".join(
        [
            f"## {chapter.title}",
            f"{page.link}, from `notebooks/{chapter.source.name}`.{took}",
            "\n".join(["```sh", *commands, "```"]),
            paper_table(page),
        ]
    )


def paper_table(page):
    """The facts of the committed paper runs of a chapter, and which are missing."""
    if not page.chapter.paper:
        return "This chapter has no paper profile."
    missing = [name for name in page.chapter.paper if name not in page.paper]
    note = f"No paper results are committed yet for {', '.join(missing)}." if missing else ""
    rows = [paper_row(name, result["manifest"]) for name, result in page.paper.items()]
    head = ["paper run", "images", "seed", "time", "hardware", "versions", "source hash"]
    return "\n\n".join(filter(None, [table(head, rows) if rows else "", note]))


def paper_row(name, manifest):
    """One paper run as a row of the table."""
    data = "; ".join(f"{d['count']} ({d['split']})" for d in manifest.get("data", []))
    versions = ", ".join(f"{package} {version}" for package, version in manifest.get("versions", {}).items())
    time = f"{manifest['seconds'] / 60:.1f} min" if "seconds" in manifest else ""
    digest = f"`{manifest.get('hash', '')[:12]}`"
    return name, data, manifest.get("seed", ""), time, hardware(manifest.get("hardware", "")), versions, digest


def hardware(entry):
    """The hardware of a manifest in words."""
    return ", ".join(map(str, entry.values())) if isinstance(entry, dict) else entry


def data_tables(root):
    """The data sets that the library can load, and the checksums of their original files."""
    sources = runpy.run_path(str(root / "src" / "scoremachines" / "sources.py"))["SOURCES"]
    files = [(f"`{name}`", *row) for name, s in sources.items() for row in checksums((*s.train, *s.test))]
    entries = "\n\n".join(data_entry(name, source) for name, source in sources.items())
    return f"{entries}\n\n## Checksums\n\n{table(['set', 'file', 'bytes', 'SHA-256 of the content'], files)}"


def data_entry(name, source):
    """One data set as an entry of a definition list."""
    head = f"{source.title}, {shape(source)} (channels × height × width). Source: {linked(source.origin)}."
    return f"`{name}`\n: {head} Terms: {source.terms}. Cite as: {source.cite}."


def checksums(files):
    """A row for each file, partial files after their whole ones."""
    for file in files:
        yield f"`{file.name}`", file.size, f"`{file.sha256}`"
        yield from checksums([file.partial] if file.partial else [])


def shape(source):
    """The shape of the images in words."""
    return " × ".join("any" if side is None else str(side) for side in source.shape)


def linked(text):
    """The text with its addresses as links."""
    return re.sub(r"https?://\S+", r"<\g<0>>", text)
