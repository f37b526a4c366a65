"""The built pages in a real browser: Debian's Chromium, headless, offline, at the width of a phone.

Each page is loaded once, from a copy with a small script that waits for the page, tries it and leaves a report in it.
"""

import html
import json
import os
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--window-size=390,844",
    "--virtual-time-budget=20000",
    "--dump-dom",
]
SECONDS = 60  # after which a page counts as hung
LISTEN = """
window.siteErrors = [];
const note = (text) => window.siteErrors.push(String(text));
addEventListener("error", (e) => note(e.message || "could not load " + (e.target.src || e.target.href)), true);
addEventListener("unhandledrejection", (e) => note(e.reason));
console.error = (...parts) => note(parts.join(" "));
"""
TRY = """
addEventListener("load", async () => {
  const all = (query) => [...document.querySelectorAll(query)];
  const found = window.siteErrors;
  const report = (problems) => {
    const element = document.createElement("pre");
    element.id = "site-report";
    element.textContent = JSON.stringify(problems);
    document.body.append(element);
  };
  try {
    const formulas = all("span.math, div.math").length;
    if (formulas && !window.MathJax?.startup) found.push("MathJax did not start");
    else if (formulas) await window.MathJax.startup.promise;
    const typeset = all("mjx-container").length;
    if (typeset < formulas) found.push(`only ${typeset} of ${formulas} formulas are typeset`);
    for (const error of all("mjx-merror, [data-mjx-error]")) found.push("TeX error in " + error.textContent);
    for (const slider of all("frame-slider")) {
      const [image, input, output] = ["img", "input", "output"].map((name) => slider.querySelector(name));
      const state = () => [image.src, image.alt, output.textContent];
      const before = state();
      const name = input.labels[0]?.textContent.trim();
      if (!name || !input.checkVisibility()) found.push("a slider has no visible label or is hidden");
      input.focus();
      input.stepUp();
      input.dispatchEvent(new Event("input", { bubbles: true }));
      const changed = state().every((value, index) => value && value !== before[index]);
      if (!changed) found.push(`the slider '${name}' does not change its image, alternative text and label`);
    }
    document.documentElement.dataset.theme = "dark";
    for (const image of all("article img"))
      if (getComputedStyle(image).filter !== "none") found.push("dark mode alters the pixels of '" + image.alt + "'");
    const excess = document.documentElement.scrollWidth - innerWidth;
    if (excess > 1) found.push(`the page is ${excess} pixels wider than a phone`);
  } catch (error) {
    found.push(error);
  }
  report(found.map(String));
});
"""


def find_browser() -> str:
    """The browser's command; raises FileNotFoundError when none is installed."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    raise FileNotFoundError(
        "No browser found: install Debian's chromium package, or pass --no-browser to check the files alone."
    )


def browser_problems(root: Path, pages: list[Path]) -> list[str]:
    """What goes wrong on each page in the browser, as lines ``page: problem``."""
    browser = find_browser()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reports = pool.map(lambda page: visit(browser, page), pages)
        return [
            f"{page.relative_to(root)}: {line}" for page, lines in zip(pages, reports, strict=True) for line in lines
        ]


def visit(browser: str, page: Path) -> list[str]:
    """The problems of one page."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "page.html"
        copy.write_text(instrumented(page), "utf-8")
        command = [browser, *FLAGS, f"--user-data-dir={folder}/profile", copy.as_uri()]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return [f"the browser did not finish within {SECONDS} s"]
    report = re.search(r'<pre id="site-report"[^>]*>(.*?)</pre>', done.stdout, re.DOTALL)
    if not report:
        reason = done.stderr.strip().splitlines()[-1:] or ["no message"]
        return [f"the browser left no report ({reason[0]})"]
    return json.loads(html.unescape(report[1]))


def instrumented(page: Path) -> str:
    """The page with its own address as base, listening for errors from the start and trying itself at the end."""
    head = f'<head><base href="{page.as_uri()}"><script>{LISTEN}{TRY}</script>'
    return page.read_text("utf-8").replace("<head>", head, 1)
