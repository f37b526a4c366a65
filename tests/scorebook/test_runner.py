import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import psutil
import pytest
from nbformat.v4 import new_output

from scorebook import execute, runner
from scorebook.chapters import chapters
from scorebook.files import read_json

LIBRARY = """\
# %%
import sys
sys.path.insert(0, "../src")
from machine import value
from scorebook import record
record("value", value + seed)
print(profile, data, end="")
sys.stdout.flush()
print(" once")

# %% tags=["allow-stderr"]
print("progress", file=sys.stderr)

# %%
{"a": 1}.keys()
"""


def job(book):
    return runner.quick_job(book.root, chapters(book.root)[-1])


def test_run_skip_and_rerun(book, capfd):
    """A chapter runs, is clean, is skipped, runs again to the same bytes, and follows an edit of the library."""
    library = book.write("src/machine.py", "value = 1\n")
    target = book.chapter("01_a", LIBRARY).with_suffix(".ipynb")
    assert runner.run(book.root) == 0
    first = target.read_bytes()
    assert "01_a: done in" in capfd.readouterr().out
    assert_clean(book, read_json(target))
    assert runner.run(book.root) == 0
    assert capfd.readouterr().out == "01_a: up to date\n"

    target.unlink()
    assert runner.run(book.root) == 0
    assert target.read_bytes() == first

    library.write_text("value = 2\n")
    assert runner.run(book.root, seed=5) == 0
    assert '"value": 7' in target.read_text()


def assert_clean(book, notebook):
    text = json.dumps(notebook)
    injected = [c for c in notebook["cells"] if "injected-parameters" in c["metadata"].get("tags", [])]
    assert [c["metadata"]["tags"][-1] for c in injected] == ["remove-cell"]
    assert [c["id"] for c in notebook["cells"]] == [f"cell-{i}" for i in range(len(notebook["cells"]))]
    assert "quick ['digits'] once\\n" in json.dumps("".join(notebook["cells"][3]["outputs"][-1]["text"]))
    assert notebook["cells"][4]["outputs"] == []
    for trace in (str(book.root), "start_time", "iopub", '"papermill"', "progress\\n"):
        assert trace not in text
    assert notebook["metadata"]["scorebook"]["goals"] == ["see it run"]


@pytest.mark.parametrize(
    ("name", "reruns"),
    [
        ("notebooks/01_a.py", True),
        ("src/library/deep/new.py", True),
        ("requirements.lock", True),
        ("results/paper/01_a/mnist.json", True),
        ("results/paper/01_b/mnist.json", False),
        ("results/paper/00_named/mnist.json", True),
        ("results/paper/01_a/.mnist.json.partial.json", False),
        ("results/quick/01_a.json", False),
        ("src/library/notes.txt", False),
        ("README.md", False),
        ("results/classifiers/mnist.safetensors", True),
        ("results/networks/digits-cube.safetensors", True),
        ("results/networks.md", False),
    ],
)
def test_what_a_chapter_depends_on(book, name, reruns):
    reads = "folder = 'results/classifiers'\nother = root / \"networks\"\n"
    book.chapter("01_a", f'# %%\n{reads}earlier = lambda: paper("00_named")\n')
    book.write("src/library/old.py", "x = 1\n")
    before = job(book).hash
    path = book.root / name
    book.write(name, (path.read_text() if path.is_file() else "") + "\n# edited\n")
    assert (job(book).hash != before) == reruns


def test_parameters_and_file_names_enter_the_hash(book):
    book.chapter("01_a", "")
    path = book.write("src/one.py", "x = 1\n")
    (chapter,) = chapters(book.root)
    hashes = {runner.quick_job(book.root, chapter, p, s).hash for p in ("quick", "paper") for s in (0, 1)}
    assert len(hashes) == 4
    path.rename(path.with_name("two.py"))
    assert runner.quick_job(book.root, chapter).hash not in hashes


def test_a_failure_names_the_cell_keeps_the_old_page_and_the_other_chapters(book, capfd):
    book.chapter("01_good", "# %%\n1 + 1\n")
    book.chapter("02_bad", "# %%\nx = 1\n\n# %%\n\n# a comment\n1 / 0\n")
    old = book.write("notebooks/02_bad.ipynb", '{"metadata": {}}')
    assert runner.run(book.root) == 1
    output = capfd.readouterr().out
    assert "02_bad: failed after" in output
    assert "02_bad: cell 4 (# a comment) failed with ZeroDivisionError: division by zero" in output
    assert old.read_text() == '{"metadata": {}}'
    assert sorted(p.name for p in old.parent.iterdir()) == ["01_good.ipynb", "01_good.py", "02_bad.ipynb", "02_bad.py"]

    book.chapter("02_bad", "# %%\nx = 1\n")
    assert runner.run(book.root) == 0
    output = capfd.readouterr().out
    assert "01_good: up to date" in output
    assert "02_bad: done" in output


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("import os\nos._exit(1)", "cell 3 (import os) stopped its kernel"),
        ("import warnings\nwarnings.warn('careless')", "cell 3 (import warnings) wrote to stderr"),
    ],
)
def test_a_dead_kernel_and_a_warning_are_failures(book, capfd, cell, message):
    source = book.chapter("01_a", f"# %%\n{cell}\n")
    assert runner.run(book.root) == 1
    assert message in capfd.readouterr().out
    assert not source.with_suffix(".ipynb").exists()


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        ("<object at 0x7f1234567890>", "memory address"),
        ("found in {home}/data", "a folder of this machine"),
        ("('{home}/data',)", "a folder of this machine"),
        ("value at 0x1", None),
        ("iVBORw0{home}/data", None),  # inside base64
        ("a ratio, 1/2", None),
    ],
)
def test_what_cannot_be_reproduced_is_refused(monkeypatch, tmp_path, text, flaw):
    monkeypatch.setenv("HOME", str(tmp_path))
    text = text.format(home=tmp_path)
    stream = new_output("stream", name="stdout", text=text)
    shown = new_output("display_data", {"text/html": "line\n" + text, "image/png": "at 0x7f1234567890"})
    for output in (stream, shown):
        found = execute._flaw(output)
        assert (found is None) == (flaw is None)
        assert flaw is None or flaw in found


def test_longest_first_and_no_more_jobs_than_chapters(book, monkeypatch):
    for stem in ("01_short", "02_long", "03_new"):
        book.chapter(stem, "")
    book.write(".scorebook/seconds.json", '{"01_short": 1, "02_long": 50}')
    started = []
    monkeypatch.setattr(runner, "launch", lambda root, job, threads: started.append((job.name, threads)) or 2.0)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert runner.run(book.root, jobs=1) == 0
    assert started == [("03_new", 8), ("02_long", 8), ("01_short", 8)]
    assert read_json(book.root / ".scorebook" / "seconds.json") == dict.fromkeys(["01_short", "02_long", "03_new"], 2)
    runner.run(book.root, only=["02", "03"], jobs=5)
    assert {threads for _, threads in started[3:]} == {4}


def test_kernels_share_the_cores_and_find_the_data(book, monkeypatch):
    monkeypatch.chdir(book.root)
    monkeypatch.setenv("SCOREMACHINES_DATA", "data")
    environment = runner._environment(book.root, 3)
    assert environment["OMP_NUM_THREADS"] == environment["OPENBLAS_NUM_THREADS"] == "3"
    assert environment["SCOREMACHINES_DATA"] == str(book.root / "data")


def test_a_damaged_notebook_is_named(book):
    book.chapter("01_a", "")
    damaged = replace(job(book), target=book.write("notebooks/01_a.ipynb", "{"))
    with pytest.raises(ValueError, match=r"01_a\.ipynb is not valid JSON"):
        runner.is_current(damaged)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_leaves_nothing_half_written_and_nothing_running(book, stop):
    slow = "import os, time\nwith open('kernel', 'w') as file:\n    file.write(f'{os.getpid()} ')\ntime.sleep(60)"
    source = book.chapter("01_slow", f"# %%\n{slow}\n")
    command = [sys.executable, "-m", "scorebook", "run"]
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # tests that run in the background ignore it
    options = {"start_new_session": True, "preexec_fn": heed, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=book.root, **options)
    kernel = source.parent / "kernel"
    wait_until(lambda: kernel.exists() and kernel.read_text().endswith(" "))
    if stop == signal.SIGINT:
        os.killpg(process.pid, stop)  # as a terminal does
        assert process.communicate(timeout=10)[1] == "interrupted; finished chapters are kept\n"
        assert process.returncode == 130
    else:
        process.kill()
    wait_until(lambda: not is_running(int(kernel.read_text())))
    assert sorted(p.name for p in source.parent.iterdir()) == ["01_slow.py", "kernel"]
    process.communicate(timeout=10)


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
