"""The site: Sphinx, strictly, over the executed chapters; skipped when no input changed."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from scorebook.files import fingerprint, visible

WORK = ("html", ".doctrees")  # a warm cache would keep a strict build from repeating its warnings
STAMP = ".inputs"


def build(root: Path) -> Path:
    """Build the site of the book in ``root`` and return its folder; does nothing when it is up to date.

    The stamp lies inside the output and is written last, so an output without a matching stamp is never trusted.
    Raises RuntimeError when the strict build fails, after printing everything that Sphinx said.
    """
    from scorebook import pages

    root = Path(root).resolve()
    pages.write(root)
    output, inputs = root / "_build" / "html", fingerprint(root, input_files(root), {})
    if is_current(output, inputs):
        print("site: up to date", flush=True)
        return output
    run_sphinx(root)
    (output / STAMP).write_text(inputs)
    return output


def input_files(root: Path) -> list[Path]:
    """Every file that the pages are made of: configuration, prose, executed chapters, paper figures, versions."""
    book = [path for path in visible(root / "book") if "__pycache__" not in path.parts]
    figures = visible(root / "results" / "paper", "*.png")
    single = [root / name for name in ("_config.yml", "_toc.yml", "requirements.lock")]
    return [*single, *book, *visible(root / "notebooks", "*.ipynb"), *figures]


def is_current(output: Path, inputs: str) -> bool:
    """Whether the site was built from inputs with this fingerprint."""
    stamp = output / STAMP
    return stamp.is_file() and stamp.read_text() == inputs


def run_sphinx(root: Path) -> None:
    """Build from a cold cache; raises RuntimeError, after printing the warnings, when there is one."""
    for name in WORK:
        shutil.rmtree(root / "_build" / name, ignore_errors=True)
    start = time.monotonic()
    main = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", main, "build", str(root), "-q", "-W", "-n", "--keep-going"]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}
    process = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    if process.returncode:
        print(process.stdout, flush=True)
        raise RuntimeError("The strict build failed: every warning above is an error; mend them and build again.")
    count = len(list((root / "_build" / "html").rglob("*.html")))
    print(f"site: {count} pages in {time.monotonic() - start:.1f} s", flush=True)
