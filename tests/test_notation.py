"""Every name in the notation table of the book exists in the library."""

import importlib.util
import re
from functools import reduce
from pathlib import Path

import pytest

import scoremachines

PAGE = Path(__file__).parents[1] / "book" / "notation.md"


def code_names() -> list[str]:
    """The names between backticks in the third column of the table."""
    rows = [line.strip().strip("|").split("|") for line in PAGE.read_text().splitlines() if line.startswith("|")]
    return [name for row in rows if len(row) >= 3 for name in re.findall(r"`([^`]+)`", row[2])]


def named(name: str) -> object:
    """What a dotted name stands for; raises AttributeError or ModuleNotFoundError if there is nothing.

    `teleport` is the function of the root, `teleport.draw` a member of the module of that name.
    """
    first, *rest = name.split(".")
    inside = first not in scoremachines.__all__ or (rest and importlib.util.find_spec(f"scoremachines.{first}"))
    start = importlib.import_module(f"scoremachines.{first}") if inside else getattr(scoremachines, first)
    return reduce(member, rest, start)


def member(thing: object, name: str) -> object:
    """An attribute, or a field of a record; raises AttributeError if there is none."""
    fields = {**getattr(thing, "__annotations__", {}), **getattr(thing, "__dataclass_fields__", {})}
    return fields[name] if name in fields else getattr(thing, name)


def test_the_table_is_read():
    assert {"Noise", "Noise.alpha", "Machine.denoise", "Gaussian.lam"} <= set(code_names())


@pytest.mark.parametrize("name", code_names())
def test_the_name_exists(name):
    assert named(name) is not None


@pytest.mark.parametrize("name", ["Noise.beta", "Gaussian.eigenvalues", "metrics.rmse", "nothing"])
def test_names_that_do_not_exist_are_noticed(name):
    with pytest.raises((AttributeError, ModuleNotFoundError)):
        named(name)
