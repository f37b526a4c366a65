"""Which files a chapter's code depends on: modules of the library, by its import statements, and checkpoints."""

import ast
from pathlib import Path

from scorebook.files import visible

PACKAGE = "scoremachines"


def library_files(root: Path, code: str) -> list[Path]:
    """The files of the library that ``code`` imports, directly or through others, sorted.

    A name that the root of the package hands on counts as the module that defines it: a new one there changes nothing.
    """
    folder = root / "src" / PACKAGE
    root_file = folder / "__init__.py"
    home = _exports(root_file) if root_file.is_file() else {}
    found: set[str] = set()
    todo = _named(code)
    while todo:
        name = todo.pop()
        module = home.get(name, name)
        path = folder / f"{module}.py"
        if module not in found and path.is_file():
            found.add(module)
            todo |= _named(path.read_text(encoding="utf-8")) - found
    return sorted(folder / f"{module}.py" for module in found)


def checkpoints(root: Path, code: str) -> list[Path]:
    """The committed classifiers, sorted, if ``code`` reads any of them."""
    return visible(root / "results" / "classifiers") if "classifiers" in code else []


def _exports(path: Path) -> dict[str, str]:
    """The module that each name of the package's root comes from."""
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    found = ((node.module, alias) for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names)
    return {alias.asname or alias.name: module for module, alias in found}


def _named(code: str) -> set[str]:
    """Names that may be modules of the package, or of its root: those imported from it, absolutely or relatively."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            path = (node.module or "").split(".")
            if node.level or path[0] == PACKAGE:
                inside = path if node.level else path[1:]
                names |= {inside[0]} if inside and inside[0] else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            dotted = (alias.name.split(".") for alias in node.names)
            names |= {path[1] if path[1:] else "__init__" for path in dotted if path[0] == PACKAGE}
    return names
