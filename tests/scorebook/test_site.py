import re
import shutil
from pathlib import Path

import jupytext
import nbformat
import pytest
import yaml

from scorebook import check, site

ROOT = Path(__file__).parents[2]
TOC = """\
format: jb-book
root: book/index
parts:
  - {caption: Only part, numbered: true, chapters: [{file: notebooks/01_tiny}]}
"""
ADDRESS = "https://github.com/Someone/score-book"
TEXT = r"""
# %% [markdown]
# $$ \E[x] = \norm{x}, \qquad \argmin_x f $$ (eq-tiny)
#
# :::{prf:theorem} Tiny
# :label: thm-tiny
# True, by {eq}`eq-tiny` and {cite:t}`efron2011`.
# :::
#
# See {prf:ref}`thm-tiny`.
"""


@pytest.fixture
def tiny(book):
    """A book of a home page and one chapter, with the real configuration, extension and style."""
    for name in ("_config.yml", "requirements.lock"):
        shutil.copy(ROOT / name, book.root)
    for name in ("_ext", "_static"):
        shutil.copytree(ROOT / "book" / name, book.root / "book" / name)
    for name in ("macros.yml", "references.bib"):
        shutil.copy(ROOT / "book" / name, book.root / "book")
    sources = ROOT / "src" / "scoremachines" / "sources.py"
    book.write("src/scoremachines/sources.py", sources.read_text())
    book.write("_toc.yml", TOC)
    book.write(
        "book/index.md", "# Home\n\n{ref}`tiny`\n\n```{bibliography}\n```\n\n```{include} generated/map.md\n```\n"
    )
    source = book.chapter("01_tiny", TEXT)
    nbformat.write(jupytext.read(source), source.with_suffix(".ipynb"))
    return book


def set_address(book):
    path = book.root / "_config.yml"
    path.write_text(path.read_text().replace('url: ""', f"url: {ADDRESS}"))


def links(path):
    return re.findall(r'href="(https?://[^"]+)"', path.read_text())


def test_without_an_address_the_site_is_clean_and_links_to_no_host(tiny, capsys):
    output = site.build(tiny.root)
    page = output / "notebooks" / "01_tiny.html"
    assert check.problems(output, browser=False) == []
    assert links(page) == []
    assert "thebe" not in page.read_text().split("<body", 1)[0].replace("sphinx-thebe.css", "")
    assert '"softmax": "\\\\operatorname{softmax}"' in page.read_text()
    assert (output / "_static" / "mathjax" / "tex-chtml.js").is_file()
    assert sum(file.stat().st_size for file in (output / "_static" / "mathjax").rglob("*")) < 3_000_000
    assert (output / "_sources" / "notebooks" / "01_tiny.ipynb").is_file()
    written = page.stat().st_mtime_ns
    capsys.readouterr()
    site.build(tiny.root)
    assert capsys.readouterr().out == "site: up to date\n"
    assert page.stat().st_mtime_ns == written


def test_every_link_derives_from_the_address(tiny):
    set_address(tiny)
    output = site.build(tiny.root)
    found = links(output / "notebooks" / "01_tiny.html")
    assert f"{ADDRESS}/edit/main/notebooks/01_tiny.py" in found
    assert ADDRESS in found
    assert any(link.startswith(f"{ADDRESS}/issues/new") for link in found)
    assert "https://mybinder.org/v2/gh/Someone/score-book/notebooks?urlpath=lab/tree/notebooks/01_tiny.ipynb" in found
    assert 'content="https://someone.github.io/score-book/' in (output / "notebooks" / "01_tiny.html").read_text()
    assert f"{ADDRESS}/edit/main/book/index.md" in links(output / "book" / "index.html")
    assert 'href="/score-book/_static/' in (output / "404.html").read_text()
    assert check.problems(output, browser=False) == []


def test_a_warning_fails_every_time_and_leaves_no_stamp(tiny, capsys):
    """The warning comes from a page that no generated fragment makes anew, so a warm cache would hide it."""
    notebook = tiny.root / "notebooks" / "01_tiny.ipynb"
    notebook.write_text(notebook.read_text().replace("See {prf:ref}", "```{no-such-directive}\\n```\\nSee {prf:ref}"))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="strict build failed"):
            site.build(tiny.root)
        assert "no-such-directive" in capsys.readouterr().out
    assert not (tiny.root / "_build" / "html" / site.STAMP).exists()


@pytest.mark.parametrize(
    ("name", "matters"),
    [
        ("_config.yml", True),
        ("_toc.yml", True),
        ("book/index.md", True),
        ("book/_static/css/book.css", True),
        ("book/generated/map.md", True),
        ("notebooks/01_tiny.ipynb", True),
        ("requirements.lock", True),
        ("results/paper/01_tiny/mnist/fig-a.png", True),
        ("results/quick/01_tiny.json", False),
        ("book/_ext/__pycache__/local_site.pyc", False),
        ("README.md", False),
    ],
)
def test_what_the_site_depends_on(tiny, name, matters):
    def inputs():
        return site.fingerprint(tiny.root, site.input_files(tiny.root), {})

    before = inputs()
    tiny.write(name, "edited")
    assert (inputs() != before) == matters


def test_a_stamp_without_its_site_is_not_trusted(tmp_path):
    assert not site.is_current(tmp_path, "abc")
    (tmp_path / site.STAMP).write_text("abc")
    assert site.is_current(tmp_path, "abc")
    assert not site.is_current(tmp_path, "abd")


def test_the_address_stands_in_one_place():
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert set(config["repository"]) == {"url", "branch"}
    assert "ogp_site_url" not in config["sphinx"]["config"]
    assert "baseurl" not in config["html"]
