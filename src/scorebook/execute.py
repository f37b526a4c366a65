"""One chapter, executed: ``python -m scorebook.execute`` runs a source in a fresh kernel and writes the clean result.

The result depends on the source, the library, the parameters and the seed alone: times, random ids and this machine's
paths are removed, and a chapter that prints what cannot be reproduced is refused.
"""

import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from threading import Thread

from scorebook import results
from scorebook.files import replace

KERNEL = ["--log-level=ERROR", "--HistoryManager.enabled=False"]  # no transport notice, no history file
ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}")
COLOUR = re.compile(r"\x1b\[[\d;]*m")


class CellError(RuntimeError):
    """A cell failed; the message names the chapter, the cell's number and first line, and the reason."""


def execute(source: Path, parameters: dict, fingerprint: str):
    """The executed notebook of ``source``, clean, with ``fingerprint`` in its metadata; raises CellError."""
    import jupytext
    from papermill import execute_notebook
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    notebook = parameterize_notebook(load_notebook_node(jupytext.read(source)), parameters)
    if parameters.get("profile") == "paper":
        _empty_cells_with_results(notebook)
    started = []
    try:
        executed = execute_notebook(
            notebook,
            None,
            progress_bar=False,
            cwd=source.parent,
            coalesce_streams=True,
            extra_arguments=KERNEL,
            shutdown_kernel="immediate",  # everything has been received; a polite stop can take seconds
            on_cell_start=lambda cell, cell_index: started.append((cell_index, cell)),
        )
    except Exception as error:
        raise CellError(f"{_place(source, notebook, *started[-1])} {_reason(error)}") if started else error from None
    return _clean(source, executed, fingerprint)


def _empty_cells_with_results(notebook):
    """A job does not depend on other jobs: what shows their results stays out of it. The numbering stays."""
    for cell in filter(results.shows_results, notebook.cells):
        cell.source = ""


def _place(source, notebook, index, cell):
    """The chapter and the cell, numbered from 1 as in the source: the injected parameters cell does not count."""
    number = 1 + index - sum(_is_injected(other) for other in notebook.cells[: index + 1])
    first = next((line.strip() for line in cell.source.splitlines() if line.strip()), "")
    return f"{source.stem}: cell {number} ({first})"


def _is_injected(cell):
    return "injected-parameters" in cell.metadata.get("tags", [])


def _reason(error):
    if not hasattr(error, "ename"):
        return f"stopped its kernel: {' '.join(str(error).split())}"
    traceback = COLOUR.sub("", "\n".join(error.traceback))
    return f"failed with {error.ename}: {error.evalue}\n{traceback}"


def _clean(source, notebook, fingerprint):
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index}"
        _clean_metadata(cell)
        if cell.cell_type == "code":
            _clean_outputs(cell)
            _refuse(source, notebook, index, cell)
    results.numbers(notebook), results.data(notebook)  # refuses a name recorded twice
    del notebook.metadata["papermill"]
    notebook.metadata.setdefault("scorebook", {})["hash"] = fingerprint
    return notebook


def _clean_metadata(cell):
    for key in ("papermill", "execution"):
        cell.metadata.pop(key, None)
    if _is_injected(cell):
        cell.metadata["tags"].append("remove-cell")
    elif not cell.metadata.get("tags"):
        cell.metadata.pop("tags", None)


def _clean_outputs(cell):
    """Progress bars and expected warnings go to stderr; their cell says so, and the page does not show them."""
    if "allow-stderr" in cell.metadata.get("tags", []):
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]


def _refuse(source, notebook, index, cell):
    for flaw in filter(None, map(_flaw, cell.outputs)):
        raise CellError(f"{_place(source, notebook, index, cell)} {flaw}")


def _flaw(output):
    """What makes an output unfit to publish, or None."""
    if output.get("name") == "stderr":
        line = output.text.strip().splitlines()[0]
        return f"wrote to stderr: {line!r}; mend the cause, or tag the cell allow-stderr to drop the message."
    text = output.get("text") or "\n".join(str(v) for k, v in output.data.items() if k != "image/png")
    if ADDRESS.search(text):
        return "shows a memory address, which changes in every run; end the line with ';' or print something else."
    for folder in _folders():
        if re.search(rf"(?<![\w+/=]){re.escape(folder)}/", text):
            return f"shows {folder}, a folder of this machine; print a path relative to the book."
    return None


def _folders():
    data = os.environ.get("SCOREMACHINES_DATA")
    known = {Path.home(), Path.cwd(), Path(tempfile.gettempdir()), Path(sys.prefix), *([Path(data)] if data else [])}
    return sorted(str(folder) for folder in known if folder != Path("/"))


def _end_with(parent):
    """End this process, and with it its kernel, when the command that started it is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def main(source, target, parameters, fingerprint):
    """Execute ``source`` and replace ``target`` with the result; the exit status says whether it worked."""
    import nbformat

    Thread(target=_end_with, args=[os.getppid()], daemon=True).start()
    try:
        notebook = execute(Path(source), json.loads(parameters), fingerprint)
    except (CellError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    replace(Path(target), (nbformat.writes(notebook) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
