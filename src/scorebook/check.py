"""Checks of the built site: nothing from another host, no dead link, figures described, pages alive in a browser."""

import re
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADING = {"stylesheet", "icon", "preload", "prefetch", "modulepreload", "preconnect", "dns-prefetch", "manifest"}
SOURCES = {("link", "href"), ("object", "data"), ("video", "poster"), ("use", "href")}
VERBATIM = {"script", "style", "pre", "code"}
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
UNLISTED = {"404.html", "genindex.html", "index.html", "prf-prf.html", "search.html"}
OURS = re.compile(r"(fig|eq|equation|ex|thm|def|lem|prop|cor|term|tab)-")
FILE_NAME = re.compile(r"\.(png|svg|jpe?g|gif|webp|pdf)$|^data:", re.IGNORECASE)
UNRESOLVED = re.compile(r"\?\?|No key .* found in glue|\{(?:ref|numref|eq|term|cite:\w|glue:\w+|prf:ref)\}")
RAW_TABLE = re.compile(r"\|(?:\s*:?(?:-{3,}|—):?\s*\|)+")  # smart quotes may have turned the hyphens into a dash
PLACEHOLDER = re.compile(r"\b(TODO|FIXME|XXX|TBD)\b|lorem ipsum", re.IGNORECASE)
LOCAL_PATH = re.compile(r"(?<![\w./:-])/(?:home|root|tmp|Users|var/folders)/[\w.-]+|file:///")
REMOTE_STYLE = re.compile(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')\s]+)")


@dataclass
class Document:
    """What a page holds: its ids, links, resources, images, and the text that a reader sees."""

    path: Path
    raw: str
    ids: Counter = field(default_factory=Counter)
    links: list[str] = field(default_factory=list)
    resources: list[str] = field(default_factory=list)
    images: list[dict] = field(default_factory=list)
    text: list[str] = field(default_factory=list)


class Reader(HTMLParser):
    """Fills a Document from its HTML."""

    def __init__(self, document: Document):
        super().__init__()
        self.document, self.open = document, []
        self.feed(document.raw)

    def handle_starttag(self, tag, attrs):
        """Note the id, link, image or resource of a tag."""
        attrs = {name: value or "" for name, value in attrs}
        if tag not in VOID:
            self.open.append(tag)
        if name := attrs.get("id") or attrs.get("name" if tag == "a" else "id"):
            self.document.ids[name] += 1
        if tag == "a" and "href" in attrs:
            self.document.links.append(attrs["href"])
        if tag == "meta" and attrs.get("http-equiv", "").lower() == "refresh":
            self.document.links.append(attrs["content"].split("url=")[-1])
        if tag == "img":
            self.document.images.append({"alt": None, **dict(attrs)})
        self.document.resources += resources(tag, attrs)

    def handle_endtag(self, tag):
        """Close the tag and whatever was left open in it."""
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        """Keep the text of the article."""
        if "article" in self.open and not VERBATIM & set(self.open):
            self.document.text.append(data)


def resources(tag, attrs):
    """The addresses that a browser fetches because of this tag."""
    if tag == "link" and not LOADING & set(attrs.get("rel", "").lower().split()):
        return []
    found = [value for name, value in attrs.items() if name == "src" or (tag, name) in SOURCES]
    sets = [part.split()[0] for part in attrs.get("srcset", "").split(",") if part.strip()]
    return found + sets


def read_document(path: Path) -> Document:
    """The page in a file."""
    document = Document(path, path.read_text("utf-8"))
    Reader(document)
    return document


def check(html_dir: Path, browser: bool = True) -> int:
    """Print every problem of the site in ``html_dir``, one per line with its page; returns how many there are.

    Raises FileNotFoundError when there is no site.
    """
    found = problems(Path(html_dir), browser)
    print("\n".join(found) if found else f"check-site: no problems in {html_dir}", flush=True)
    return len(found)


def problems(html_dir: Path, browser: bool = True) -> list[str]:
    """Every problem of the site, as lines ``page: problem``."""
    html_dir = html_dir.resolve()
    if not (html_dir / "index.html").is_file():
        raise FileNotFoundError(f"No site in {html_dir}: it has no index.html; build the book first (make book).")
    paths = [path for path in sorted(html_dir.rglob("*.html")) if "_static" not in path.relative_to(html_dir).parts]
    pages = {path: read_document(path) for path in paths}
    found = [*style_problems(html_dir), *toc_problems(html_dir, pages)]
    for path, document in pages.items():
        found += [f"{path.relative_to(html_dir)}: {problem}" for problem in page_problems(html_dir, document, pages)]
    if browser:
        from scorebook.browser import browser_problems

        visited = [path for path, page in pages.items() if path.name != "404.html" and not is_redirect(page)]
        found += browser_problems(html_dir, visited)
    return found


def page_problems(root, document, pages):
    """Everything wrong with one page on its own."""
    yield from resource_problems(root, document)
    yield from link_problems(root, document, pages)
    yield from image_problems(document)
    yield from text_problems(root, document)
    for name, count in document.ids.items():
        if count > 1 and OURS.match(name):
            yield f"the id {name!r} is used {count} times"


def is_redirect(document):
    """Whether the page only leads to another."""
    return 'http-equiv="refresh"' in document.raw.lower()


def is_remote(address):
    """Whether an address names another host."""
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme in {"http", "https", "ftp", "ws", "wss"}


def resource_problems(root, document):
    """What the page loads that is remote or missing."""
    for address in dict.fromkeys([*document.resources, *REMOTE_STYLE.findall(document.raw)]):
        if is_remote(address):
            yield f"loads {address} from another host"
        elif not urlsplit(address).scheme and not target(root, document, address).is_file():
            yield f"loads {address}, which does not exist"


def target(root, document, address):
    """The file that an address means; the page for files not found has absolute addresses."""
    path = unquote(urlsplit(address).path)
    if document.path.name == "404.html":
        return max((root / path.lstrip("/"), root / "/".join(path.split("/")[2:])), key=Path.is_file)
    return (document.path.parent / path).resolve() if path else document.path


def link_problems(root, document, pages):
    """Links to files or anchors that are not there."""
    for address in document.links:
        parts = urlsplit(address)
        if is_remote(address) or parts.scheme or document.path.name == "404.html":
            continue
        file = target(root, document, address)
        if not file.is_file():
            yield f"links to {address}, which does not exist"
        elif parts.fragment and file in pages and unquote(parts.fragment) not in pages[file].ids:
            yield f"links to {address}, but there is no such anchor"


def image_problems(document):
    """Images without a description, or with a file name for one."""
    for image in document.images:
        name = image.get("src", "")[:60]
        if image["alt"] is None or not image["alt"].strip():
            yield f"the image {name} has no alternative text"
        elif FILE_NAME.search(image["alt"].strip()):
            yield f"the image {name} has a file name for alternative text: {image['alt']!r}"


def text_problems(root, document):
    """Words that a reader must not see: unresolved references, placeholders, local paths."""
    text = " ".join(" ".join(document.text).split())
    for pattern, what in (
        (UNRESOLVED, "unresolved reference"),
        (PLACEHOLDER, "placeholder text"),
        (RAW_TABLE, "table left as text"),
    ):
        for match in pattern.finditer(text):
            yield f"{what}: {text[max(0, match.start() - 30) : match.end() + 30]!r}"
    book = str(root.parent.parent)
    here = re.finditer(re.escape(book) + r"(?![\w.-])", document.raw) if book != root.anchor else ()
    paths = {match[0] for match in [*LOCAL_PATH.finditer(document.raw), *here]}
    yield from (f"shows a path of this machine: {path}" for path in sorted(paths))


def style_problems(root):
    """What style sheets load from other hosts."""
    for path in sorted(root.rglob("*.css")):
        for address in REMOTE_STYLE.findall(path.read_text("utf-8", errors="replace")):
            yield f"{path.relative_to(root)}: loads {address} from another host"


def toc_problems(root, pages):
    """Pages that the home page, where every page's navigation starts, does not lead to."""
    home = root / "index.html"
    while is_redirect(pages[home]):
        home = target(root, pages[home], pages[home].links[0])
    listed = {target(root, pages[home], address) for address in pages[home].links} | {home}
    for path in pages:
        if path not in listed and path.relative_to(root).as_posix() not in UNLISTED:
            yield f"{path.relative_to(root)}: is not in the table of contents"
