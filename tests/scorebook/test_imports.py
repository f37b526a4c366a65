"""Which library modules and packages a chapter depends on."""

import sys
from pathlib import Path

import pytest

from scorebook.imports import library_files, packages, pins, syntax

ROOT = Path(__file__).parents[2]
OURS = {"scorebook", "scoremachines"}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("", set()),
        ("import torch\nfrom elsewhere import bases", set()),
        ("import scoremachines as sm", {"__init__", "noise", "other"}),
        ("from scoremachines import data as datasets", {"data", "files"}),
        ("from scoremachines import Noise, plot", {"noise", "plot"}),
        ("from scoremachines.bases import Wavelet", {"noise", "bases"}),
        ("import scoremachines.bases as b", {"noise", "bases"}),
        ("from scoremachines import Renamed", {"other"}),
        ("def f():\n    from scoremachines.loop import g", {"loop", "back"}),
    ],
)
def test_imports_are_followed(book, code, expected):
    library = {
        "__init__": "from .noise import Noise\nfrom .other import Other, Another as Renamed\n",
        "other": "",
        "noise": "import math\n",
        "data": "from .files import contents\n",
        "files": "",
        "plot": "",
        "bases": "from . import noise\n",
        "loop": "from .back import h\n",
        "back": "from .loop import g\n",
    }
    for module, text in library.items():
        book.write(f"src/scoremachines/{module}.py", text)
    found = library_files(book.root, code)
    assert {path.stem for path in found} == expected
    assert found == sorted(found)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("", set()),
        ("import torch, numpy.linalg as la", {"torch", "numpy"}),
        ("from safetensors.torch import save_file", {"safetensors"}),
        ("from . import torch\nfrom .numpy import x", set()),
        ("def f():\n    return extra('PIL.Image').open, importlib.import_module('pywt')", {"PIL", "pywt"}),
        ("extra(name), load('PIL')", set()),
    ],
)
def test_packages_are_found(code, expected):
    assert packages(code) == expected


def test_pins_are_found_by_import_name(book):
    lock = book.write("requirements.lock", "ipython==9.1\njupyter_core==5.9\npillow==13.0\ntorch==2.13\n")
    assert pins(lock, {"PIL", "IPython", "math"}) == ["ipython==9.1", "pillow==13.0"]
    assert pins(lock, {"jupyter_core"}) == ["jupyter_core==5.9"]


def test_every_imported_package_has_a_pin():
    """One whose distribution has another name needs an entry, or no paper job would depend on its version."""
    sources = [*(ROOT / "src" / "scoremachines").glob("*.py"), *(ROOT / "notebooks").glob("*.py")]
    imported = frozenset().union(*(packages(path.read_text()) for path in sources)) - OURS - sys.stdlib_module_names
    assert {"torch", "sklearn", "PIL", "pywt"} <= imported
    assert [name for name in imported if len(pins(ROOT / "requirements.lock", {name})) != 1] == []


def test_syntax_tells_values_apart():
    values = ("1", "1.0", "'1'", "True", "None", "", "b'1'", "f'1'")
    assert len({syntax(f"def f(): return {value}") for value in values}) == len(values)
    assert len({syntax(code) for code in ("f(a, *b)", "f(*b, a)", "{**a, b: c}", "{b: c, **a}", "x[:a]", "x[a:]")}) == 6
