"""Which library modules a chapter depends on."""

import pytest

from scorebook.imports import library_files


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
