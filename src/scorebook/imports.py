"""Which modules of the library a chapter's code depends on, read from the import statements."""

import ast
from pathlib import Path

PACKAGE = "scoremachines"


def library_files(root: Path, code: str) -> list[Path]:
    """The files of the library that ``code`` imports, directly or through others, sorted; the root is always one."""
    folder = root / "src" / PACKAGE
    found: set[str] = set()
    todo = {"__init__"} | _named(code)
    while todo:
        module = todo.pop()
        path = folder / f"{module}.py"
        if module not in found and path.is_file():
            found.add(module)
            todo |= _named(path.read_text(encoding="utf-8")) - found
    return sorted(folder / f"{module}.py" for module in found)


def _named(code: str) -> set[str]:
    """Names that may be modules of the package: those imported from it, absolutely or relatively."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            path = (node.module or "").split(".")
            if node.level or path[0] == PACKAGE:
                inside = path if node.level else path[1:]
                names |= {inside[0]} if inside and inside[0] else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            dotted = (alias.name.split(".") for alias in node.names)
            names |= {path[1] for path in dotted if path[0] == PACKAGE and len(path) > 1}
    return names
