"""What executed chapters recorded, and its comparison with what is committed under ``results/quick/``."""

import base64
import json
from importlib.metadata import version
from pathlib import Path
from platform import python_version

from scorebook.chapters import chapters
from scorebook.files import read_json, replace

VERSIONS = ("torch", "numpy", "PyWavelets")  # the packages whose versions matter to every number
FLOOR = 1e-13  # numbers below it are rounding residues of float64 and are compared absolutely


def shows_results(cell: dict) -> bool:
    """Whether a cell only shows results, committed or published; its tag `paper-results` says so."""
    return "paper-results" in cell.get("metadata", {}).get("tags", [])


def numbers(notebook: dict) -> dict:
    """The recorded numbers ``{name: {"value", "rtol"}}``; raises ValueError for a name that is recorded twice."""
    return _records(notebook, "number")


def data(notebook: dict) -> list[dict]:
    """The data sets a chapter recorded: name, split, SHA-256, count and preprocessing."""
    return list(_records(notebook, "data").values())


def _records(notebook, kind):
    found = {}
    for output in (output for cell in notebook["cells"] for output in cell.get("outputs", [])):
        entry = output.get("metadata", {}).get("scorebook", {})
        if kind in entry and entry["name"] in found:
            raise ValueError(f"{entry['name']!r} is recorded twice; every record needs its own name.")
        if kind in entry:
            found[entry["name"]] = entry[kind]
    return dict(sorted(found.items()))


def figures(notebook: dict) -> dict[str, bytes]:
    """The PNG of every named figure that was drawn, in order; of a slider its first frame."""
    found = {}
    for cell in notebook["cells"]:
        name = cell["metadata"].get("mystnb", {}).get("figure", {}).get("name")
        shown = [output.get("data", {}).get("image/png") for output in cell.get("outputs", [])]
        if name and any(shown):
            found[name] = base64.b64decode("".join(next(filter(None, shown))))
    return found


def manifest(notebook: dict, seed: int) -> dict:
    """Where numbers come from: data sets, seed and the versions that matter to them."""
    packages = {name: version(name).split("+")[0] for name in VERSIONS}
    return {"data": data(notebook), "seed": seed, "versions": {"python": python_version(), **packages}}


def dump(result: dict) -> bytes:
    """A result as sorted JSON with one number per line, which keeps differences readable."""
    lines = (f"  {json.dumps(k)}: {json.dumps(v, sort_keys=True)}" for k, v in sorted(result["numbers"].items()))
    about = json.dumps(result["manifest"], indent=1, sort_keys=True).replace("\n", "\n ")
    return ('{\n "manifest": ' + about + ',\n "numbers": {\n' + ",\n".join(lines) + "\n }\n}\n").encode()


def compare(root: Path) -> list[str]:
    """Every way in which the executed chapters differ from ``results/quick/``, one line each."""
    committed = {path.stem: read_json(path) for path in sorted((root / "results" / "quick").glob("[!.]*.json"))}
    executed = _executed(root)
    orphans = sorted(set(committed) - set(executed))
    lines = [f"{stem}: results/quick/{stem}.json has no chapter; delete it." for stem in orphans]
    for stem, here in executed.items():
        if stem in committed:
            lines += [f"{stem}: {line}" for line in _differences(_values(here), _values(committed[stem]))]
        else:
            lines.append(f"{stem}: results/quick/{stem}.json is missing; make figures UPDATE=1 writes it.")
    return lines


def update(root: Path) -> None:
    """Rewrite ``results/quick/`` from the executed chapters."""
    for stem, result in _executed(root).items():
        replace(root / "results" / "quick" / f"{stem}.json", dump(result))


def write_figures(root: Path) -> int:
    """Write every chapter's figures to ``_build/figures/<stem>/<name>.png``; returns how many there are."""
    count = 0
    for chapter in chapters(root):
        for name, image in figures(read_json(chapter.notebook)).items():
            replace(root / "_build" / "figures" / chapter.stem / f"{name}.png", image)
            count += 1
    return count


def _executed(root):
    """The numbers of every chapter as the pages show them, which is with seed 0."""
    notebooks = {chapter.stem: read_json(chapter.notebook) for chapter in chapters(root)}
    return {stem: {"numbers": numbers(nb), "manifest": manifest(nb, seed=0)} for stem, nb in notebooks.items()}


def _values(result):
    """A result's numbers, and its data sets as if they were numbers, so that one comparison serves both."""
    sets = {f"data {entry['name']}/{entry['split']}": entry for entry in result["manifest"]["data"]}
    texts = {name: f"{entry['count']} images, {entry['sha256'][:12]}..." for name, entry in sets.items()}
    return result["numbers"] | {name: {"value": text, "rtol": 0.0} for name, text in texts.items()}


def _differences(new, old):
    for name in sorted(new.keys() | old.keys()):
        if name not in new:
            yield f"{name} is committed as {_short(old[name]['value'])} and missing here."
        elif name not in old:
            yield f"{name} is new here, {_short(new[name]['value'])}, and not committed."
        elif not agree(new[name]["value"], old[name]["value"], rtol := new[name]["rtol"]):
            values = f"{_short(new[name]['value'])} here and {_short(old[name]['value'])} committed"
            yield f"{name} is {values}, which differ by more than {rtol:g} (relative)."


def agree(a, b, rtol: float) -> bool:
    """Whether two recorded values agree: text, truth values and rtol = 0 exactly, others as max|a - b| <= rtol scale.

    The scale is max|b|, and at least 1e-13.
    """
    if rtol == 0 or isinstance(a, str | bool) or isinstance(b, str | bool):
        return a == b
    if _shape(a) != _shape(b):
        return False
    a, b = _flat(a), _flat(b)
    scale = max(FLOOR, *map(abs, b))
    return max(abs(x - y) for x, y in zip(a, b, strict=True)) <= rtol * scale


def _shape(value):
    return (len(value), *_shape(value[0])) if isinstance(value, list) else ()


def _flat(value):
    return [entry for part in value for entry in _flat(part)] if isinstance(value, list) else [value]


def _short(value):
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:40]}... ({'x'.join(map(str, _shape(value)))})"
