"""A throw-away book: the fewest files that the publishing side works on."""

from pathlib import Path

import pytest

HEADER = """\
# ---
# jupyter:
#   jupytext: {{text_representation: {{extension: .py, format_name: percent}}}}
#   kernelspec: {{display_name: Python 3, language: python, name: python3}}
#   scorebook: {{goals: [see it run], minutes: 5, needs: {needs}, paper: {paper}}}
# ---

# %% [markdown]
# ({label})=
# # Chapter {label}

# %% tags=["parameters"]
profile = "quick"
seed = 0
data = ["digits"]

"""


class Book:
    """A book's folder with ways to add to it."""

    def __init__(self, root: Path):
        self.root = root
        self.write("_config.yml", "title: throw-away\n")
        self.write("requirements.lock", "numpy==2.0\n")

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def chapter(self, stem: str, cells: str, needs: str = "[]", paper: str = "[]") -> Path:
        label = stem.split("_", 1)[1]
        return self.write(f"notebooks/{stem}.py", HEADER.format(label=label, needs=needs, paper=paper) + cells)


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path)
