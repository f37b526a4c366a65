"""The files that say what is installed agree with one another."""

import re
import shutil
import subprocess
import tomllib
from importlib.metadata import distribution
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from scorebook.__main__ import main

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text().splitlines()
PINS = {canonicalize_name(name): pin for name, pin in (line.split("==") for line in LOCK)}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
STATED = [*PROJECT["build-system"]["requires"], *PROJECT["project"]["dependencies"], *chain(*EXTRAS.values())]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
PIP = next(entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict))


def test_every_line_of_the_lock_is_one_public_version():
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line) for line in LOCK)
    assert len(PINS) == len(LOCK)
    assert sorted(LOCK, key=lambda line: line.split("==")[0].lower()) == LOCK


@pytest.mark.parametrize("requirement", [Requirement(line) for line in STATED], ids=str)
def test_every_dependency_is_pinned_as_allowed(requirement):
    name = canonicalize_name(requirement.name)
    assert name == PROJECT["project"]["name"] or PINS[name] in requirement.specifier


def test_lock_is_complete():
    """Whatever the pinned packages need on Linux is pinned, too, except the GPU libraries that come with torch."""
    needed = (Requirement(line) for name in PINS for line in distribution(name).requires or [])
    linux = {"extra": "", "sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    wanted = {canonicalize_name(r.name) for r in needed if not r.marker or r.marker.evaluate(linux)}
    assert {name for name in wanted - set(PINS) if not name.startswith(("nvidia-", "cuda-", "triton"))} == set()


def test_conda_environment_is_thin_and_agrees_with_the_project():
    assert CONDA["name"] == PROJECT["project"]["name"]
    assert CONDA["channels"] == ["conda-forge"]
    named = dict(entry.partition("=")[::2] for entry in CONDA["dependencies"] if isinstance(entry, str))
    assert set(named) == {"python", "pip"}
    assert named["python"] in SpecifierSet(PROJECT["project"]["requires-python"])
    for line in PIP:
        flag, name = line.split()
        assert flag in {"-r", "-e"}
        assert (ROOT / name).exists()
    assert "-r requirements.lock" in PIP


def test_hooks_use_the_pinned_ruff():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["rev"] == f"v{PINS['ruff']}"


def test_workflow_runs_the_script_and_publishes_what_it_built():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "book.yml").read_text())
    steps = workflow["jobs"]["build"]["steps"]
    assert ".ci/run" in [step.get("run") for step in steps]
    assert [step["with"]["path"] for step in steps if "upload" in step.get("uses", "")] == [
        "_build/html",
        "notebooks/*.ipynb",
    ]
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]) for step in steps if "uses" in step)
    assert workflow["permissions"] == {"contents": "read"}


def test_ci_script_is_executable_and_uses_the_commands_of_the_makefile():
    script = ROOT / ".ci" / "run"
    subprocess.run(["bash", "-n", script], check=True)
    assert script.stat().st_mode & 0o111
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    called = re.findall(r"\bmake ([a-z-]+)", script.read_text())
    assert {"test", "book", "figures", "check-site"} <= set(called) <= set(targets)


def test_makefile_calls_commands_that_exist(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = set(re.findall(r"^    ([a-z]+) ", capsys.readouterr().out, re.MULTILINE))
    assert set(re.findall(r"\$\(BOOK\) ([a-z]+)", (ROOT / "Makefile").read_text())) == listed


def test_a_wrong_argument_is_one_sentence(book, monkeypatch, capsys):
    monkeypatch.chdir(book.root)
    assert main(["run", "--only", "07"]) == 1
    assert capsys.readouterr().err == "error: No chapter is called '07'; there are [].\n"


def test_old_python_is_refused_in_one_sentence(tmp_path):
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    make = ["make", f"PYTHON={old}", "setup"]
    process = subprocess.run(make, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode != 0
    assert f"error: {old} is not Python 3.11 or newer" in process.stderr
    assert not (tmp_path / ".venv").exists()
