import shutil
from pathlib import Path

import pytest

from scorebook import browser, check

needs_browser = pytest.mark.skipif(not any(map(shutil.which, browser.NAMES)), reason="no Chromium here")

ROOT = Path(__file__).parents[2]
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><link rel="stylesheet" href="style.css"></head>
<body><nav><a href="index.html">home</a> <a href="one.html">one</a> <a href="two.html#fig-a">two</a></nav>
<article>{body}</article></body></html>
"""
FIGURE = '<figure id="fig-a"><img src="dot.svg" alt="A dot"></figure>'
PIXEL = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='{}' height='9'/%3E"
SLIDER = f"""<frame-slider><img src="{PIXEL.format(8)}" alt="first"><div class="controls" hidden><label>Level
<input type="range" min="0" max="1" value="0"></label> <output>a</output></div><script type="application/json">
[{{"src": "{PIXEL.format(8)}", "alt": "first", "label": "a"}},
 {{"src": "{PIXEL.format(9)}", "alt": "second", "label": "b"}}]</script></frame-slider>
<script src="frame-slider.js"></script>"""


@pytest.fixture
def site(tmp_path):
    """A clean site of three pages, one of them with a slider."""
    folder = tmp_path / "_build" / "html"
    folder.mkdir(parents=True)
    (folder / "style.css").write_text("frame-slider { display: block } img { max-width: 100% }")
    (folder / "dot.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    shutil.copy(ROOT / "book" / "_static" / "js" / "frame-slider.js", folder)
    write(folder, "index.html", "<p>Welcome.</p>")
    write(folder, "one.html", SLIDER)
    write(folder, "two.html", FIGURE)
    return folder


def write(folder, name, body):
    (folder / name).write_text(PAGE.format(title=name, body=body))


FAULTS = {
    '<script src="https://example.org/a.js"></script>': "loads https://example.org/a.js from another host",
    '<link rel="preconnect" href="//example.org">': "loads //example.org from another host",
    '<img src="https://example.org/a.png" alt="A dot">': "from another host",
    '<p style="background: url(https://example.org/a.png)">x</p>': "from another host",
    '<img src="missing.png" alt="A dot">': "loads missing.png, which does not exist",
    '<a href="three.html">x</a>': "links to three.html, which does not exist",
    '<a href="two.html#fig-b">x</a>': "links to two.html#fig-b, but there is no such anchor",
    '<img src="dot.svg">': "has no alternative text",
    '<img src="dot.svg" alt="">': "has no alternative text",
    '<img src="dot.svg" alt="_images/dot.svg">': "a file name for alternative text",
    '<p id="fig-c"></p><p id="fig-c"></p>': "the id 'fig-c' is used 2 times",
    "<p>See Fig. ??</p>": "unresolved reference",
    "<p>No key 'r2' found in glue data</p>": "unresolved reference",
    "<p>{numref}`fig-a`</p>": "unresolved reference",
    "<p>TODO: write this</p>": "placeholder text",
    "<p>Lorem ipsum dolor</p>": "placeholder text",
    "<p>| data | images |\n|---|---|\n| mnist | 7 |</p>": "table left as text",
    "<p>| data | images |\n|—|—|\n| mnist | 7 |</p>": "table left as text",
    "<p>Read /home/someone/data.bin</p>": "shows a path of this machine: /home/someone",
}


def test_clean_site_has_no_problems(site, capsys):
    assert check.check(site, browser=False) == 0
    assert "no problems" in capsys.readouterr().out


@pytest.mark.parametrize(("fault", "message"), FAULTS.items())
def test_each_fault_is_found_and_named_with_its_page(site, fault, message, capsys):
    write(site, "index.html", fault)
    assert check.check(site, browser=False) == 1
    line = capsys.readouterr().out
    assert line.startswith("index.html: ")
    assert message in line


def test_code_may_show_what_prose_may_not(site):
    write(site, "index.html", "<pre>TODO ?? {ref}`a`</pre>")
    assert check.problems(site, browser=False) == []


def test_page_outside_the_contents_is_found(site):
    write(site, "stray.html", "")
    assert check.problems(site, browser=False) == ["stray.html: is not in the table of contents"]


def test_remote_style_sheet_is_found(site):
    (site / "style.css").write_text('@import "https://example.org/font.css";')
    assert check.problems(site, browser=False) == ["style.css: loads https://example.org/font.css from another host"]


def test_path_of_the_checkout_is_found(site):
    write(site, "index.html", f"<p>{site.parent.parent}/notebooks</p>")
    assert any("path of this machine" in line for line in check.problems(site, browser=False))


def test_missing_site_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="build the book first"):
        check.check(tmp_path)


def test_missing_browser_says_what_to_do(site, monkeypatch):
    monkeypatch.setattr(browser, "NAMES", ("no-such-browser",))
    with pytest.raises(FileNotFoundError, match="--no-browser"):
        check.check(site)


@needs_browser
def test_browser_finds_nothing_on_a_clean_site(site):
    assert check.problems(site) == []


@needs_browser
def test_browser_finds_what_only_a_browser_can(site):
    write(site, "index.html", "<script>throw new Error('broken')</script><div style='width: 900px'>wide</div>")
    write(site, "one.html", SLIDER.replace('"alt": "second"', '"alt": "first"'))
    write(site, "two.html", FIGURE + r'<span class="math">\(x\)</span>')
    (site / "style.css").write_text('[data-theme="dark"] img { filter: brightness(0.8) }')
    found = "\n".join(check.problems(site))
    assert "index.html: Uncaught Error: broken" in found
    assert "index.html: the page is" in found
    assert "one.html: the slider 'Level' does not change its image, alternative text and label" in found
    assert "two.html: MathJax did not start" in found
    assert "two.html: dark mode alters the pixels of 'A dot'" in found


@needs_browser
def test_browser_needs_every_formula_typeset(site):
    fake = "<script>window.MathJax = {startup: {promise: Promise.resolve()}}</script>"
    write(
        site,
        "two.html",
        FIGURE + fake + '<span class="math">x</span><mjx-container><mjx-merror>y</mjx-merror></mjx-container>',
    )
    assert check.problems(site) == ["two.html: TeX error in y"]
    write(site, "two.html", FIGURE + fake + '<span class="math">x</span>')
    assert check.problems(site) == ["two.html: only 0 of 1 formulas are typeset"]
