"""Sphinx extension of the book: local MathJax, one file of TeX macros, links derived from one repository address."""

import html
import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from markupsafe import Markup

EXECUTED = "notebooks"  # the branch that holds the executed chapters
MATHJAX = ["tex-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions"]
BUTTONS = ["use_repository_button", "use_edit_page_button", "use_issues_button"]


def mathjax_root():
    """The folder of the pinned MathJax; raises FileNotFoundError when it is not installed."""
    spec = find_spec("sphinx-mathjax-offline")
    if spec is None:
        raise FileNotFoundError("MathJax is missing: install the pinned package sphinx-mathjax-offline.")
    return Path(spec.origin).parent / "static" / "mathjax"


def copy_mathjax(app, error):
    """Put the parts of MathJax that the pages use beside them."""
    if error or app.builder.format != "html":
        return
    for part in MATHJAX:
        source, target = mathjax_root() / part, Path(app.outdir) / "_static" / "mathjax" / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, target)


def latex_macro(name, value):
    """The LaTeX definition of a macro: a body, or [body, number of arguments]."""
    body, count = value if isinstance(value, list) else (value, 0)
    arguments = f"[{count}]" if count else ""
    return f"\\providecommand{{\\{name}}}{{}}\\renewcommand{{\\{name}}}{arguments}{{{body}}}"


def set_macros(app, config):
    """Give the macros of book/macros.yml to MathJax and to LaTeX."""
    macros = yaml.safe_load((Path(app.confdir) / "book" / "macros.yml").read_text("utf-8"))
    config.mathjax_path = "mathjax/tex-chtml.js"
    config.mathjax3_config = {"tex": {"macros": macros}, "options": {"enableMenu": False}}
    preamble = "\n".join(latex_macro(name, value) for name, value in macros.items())
    config.latex_elements = {**config.latex_elements, "preamble": preamble}


def pages_address(repository):
    """The address of the published site: https://owner.github.io/name/ for a repository on GitHub."""
    owner, name = urlsplit(repository).path.strip("/").split("/")[-2:]
    return f"https://{owner.lower()}.github.io/{name}/"


def set_addresses(app, config):
    """Derive every address from that of the repository, or show no link when it is unset."""
    options = config.html_theme_options
    repository = options.get("repository_url", "")
    if not repository:
        options["launch_buttons"] = {}
        config.notfound_urls_prefix = "/"
        return
    site = pages_address(repository)
    options.update(dict.fromkeys(BUTTONS, True))
    config.html_baseurl = config.ogp_site_url = site
    config.notfound_urls_prefix = urlsplit(site).path


def point_launches_at_executed(app):
    """Launch buttons open the executed notebooks, which have a branch of their own."""
    # The theme took the branch of its edit links already (default priority); what it reads later is for launching.
    app.config.html_theme_options["repository_branch"] = EXECUTED


def buttons(group):
    """Every button of a group and of the groups in it."""
    for button in group:
        yield from buttons(button["buttons"]) if "buttons" in button else [button]


def edit_the_source(app, pagename, templatename, context, doctree):
    """The text that one edits is the percent source, not the executed notebook."""
    for button in buttons(context.get("header_buttons", [])):
        if button.get("label") == "source-edit-button":
            button["url"] = button["url"].replace(".ipynb", ".py")


def drop_thebe(app, pagename, templatename, context, doctree):
    """Leave out the scripts of live code."""
    # Live code is off, but the extension emits its scripts (one of them twice) on every page.
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if "thebe" not in str(getattr(script, "filename", script) or "")
        and "THEBE" not in str(getattr(script, "attributes", {}).get("body", ""))
    ]


def drop_font_preloads(app, error):
    """Leave out font preloads."""
    # Opened from a disk, a page may not preload fonts; the style sheets load them in any case.
    if error or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text("utf-8")
        page.write_text(re.sub(r'<link rel="preload" as="font"[^>]*>\n?', "", text), "utf-8")


def describe(app, pagename, templatename, context, doctree):
    """One plain description per page; the automatic one would hold raw TeX."""
    if doctree is None:
        return
    text = html.escape(f"{Markup(context['title']).striptags()}. {app.config.html_title}")
    tags = f'<meta name="description" content="{text}" />\n<meta property="og:description" content="{text}" />\n'
    context["metatags"] = context.get("metatags", "") + tags


def setup(app):
    """Connect everything to its event."""
    app.connect("config-inited", set_macros)
    app.connect("config-inited", set_addresses)
    app.connect("builder-inited", point_launches_at_executed, priority=900)
    app.connect("html-page-context", describe)
    app.connect("html-page-context", edit_the_source, priority=900)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", drop_font_preloads)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
