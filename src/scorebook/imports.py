"""What a chapter's code depends on: modules of the library and pinned packages, by its imports, and checkpoints."""

import ast
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from scorebook.files import visible

PACKAGE = "scoremachines"
IMPORTERS = {"extra", "import_module"}  # functions that import the module they are given the name of
DISTRIBUTIONS = {"PIL": "pillow", "pywt": "PyWavelets", "sklearn": "scikit-learn"}  # where the names differ


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
    """The committed classifiers and networks, sorted, of the kinds that ``code`` reads."""
    kinds = [kind for kind in ("classifiers", "networks") if re.search(rf"""['"/]{kind}['"/]""", code)]
    return [path for kind in kinds for path in visible(root / "results" / kind)]


@cache
def packages(code: str) -> frozenset[str]:
    """The top-level names of all that ``code`` imports absolutely, by a statement or by a function given a literal."""
    return frozenset(name.split(".")[0] for node in ast.walk(ast.parse(code)) for name in _absolute(node))


def pins(lock: Path, names: Iterable[str]) -> list[str]:
    """The sorted lines of the lock that pin the packages of these import names; a name without a pin has none."""
    wanted = {_canonical(DISTRIBUTIONS.get(name, name)) for name in names}
    lines = lock.read_text(encoding="utf-8").splitlines()
    return sorted(line for line in lines if _canonical(line.split("==")[0]) in wanted)


@cache
def syntax(code: str) -> str:
    """The syntax tree of ``code`` as text: what it does, without comments, docstrings and formatting.

    Empty fields are left out. Newer versions of Python add some to old nodes, and `ast.dump` treats them differently
    from one version to the next, so its text would depend on the Python that reads the code.
    """
    return ascii(_nested(ast.parse(code)))


def _nested(node):
    if isinstance(node, ast.AST):
        fields = {name: _nested(value) for name, value in ast.iter_fields(node) if value not in (None, [])}
        return type(node).__name__, fields
    return [_nested(item) for item in node if not _is_docstring(item)] if isinstance(node, list) else node


def _is_docstring(node):
    """Whether a statement is a bare string, which does nothing wherever it stands."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _absolute(node):
    """The dotted names that one node of a syntax tree imports, without relative ones."""
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=str(name), level=0):
            return [name]
        case ast.Call(ast.Name(called) | ast.Attribute(attr=called), [ast.Constant(str(name)), *_]):
            return [name] if called in IMPORTERS else []
    return []


def _canonical(name):
    return name.lower().replace("_", "-")


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
