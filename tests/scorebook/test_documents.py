"""The documents at the root say what is so."""

import ast
import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def output_of_example(number: int, capsys) -> str:
    exec(re.findall(r"```python\n(.*?)```", README, re.DOTALL)[number], {})
    return capsys.readouterr().out


def test_first_example_of_the_readme_runs_and_keeps_its_promise(capsys):
    ideal, gaussian = re.findall(r"(\d+\.\d+) from the nearest", output_of_example(0, capsys))
    assert float(ideal) < 0.05
    assert float(gaussian) > 1


def test_second_example_of_the_readme_runs_and_keeps_its_promise(capsys):
    left = {band: int(share) for band, share in re.findall(r"(\w\d): (\d+)%", output_of_example(1, capsys))}
    assert left["A2"] < left["H2"] < left["D1"] < 100


def test_third_example_of_the_readme_runs_and_keeps_its_promise(capsys):
    """It goes on with the digits and the samples of the first."""
    examples, names = re.findall(r"```python\n(.*?)```", README, re.DOTALL), {}
    for number in (0, 2):
        exec(examples[number], names)
    shared, sources = re.findall(r"(\d+) patches share a pixel; the first sample has (\d+)", capsys.readouterr().out)[0]
    assert int(shared) >= 1
    assert 1 <= int(sources) <= 64


def test_every_command_of_the_documents_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    pages = [README, *(path.read_text() for path in (ROOT / "book").glob("*.md"))]
    named = {name for page in pages for name in re.findall(r"(?:^|`)make ([a-z-]+)", page, re.MULTILINE)}
    assert {"book", "test", "paper"} <= named <= targets


def test_every_file_that_the_readme_links_to_exists():
    for name in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / name).is_file()


def test_everything_public_of_the_publishing_side_has_a_docstring():
    kinds = ast.FunctionDef | ast.ClassDef
    missing = [
        f"{path.name}: {thing.name}"
        for path in sorted((ROOT / "src" / "scorebook").glob("*.py"))
        for node in ast.parse(path.read_text()).body
        for thing in [node, *(node.body if isinstance(node, ast.ClassDef) else [])]
        if isinstance(thing, kinds) and not thing.name.startswith("_") and not ast.get_docstring(thing)
    ]
    assert missing == []


def test_citation_names_an_entity_and_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["authors"] == [{"name": "The scoremachines contributors"}]
    assert str(citation["version"]) == project["version"]
    assert citation["cff-version"] == "1.2.0"
