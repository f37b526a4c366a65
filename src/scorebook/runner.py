"""Running chapters: which are out of date, in parallel processes, longest first, each written when it finishes.

A job is current when its target carries the job's fingerprint: SHA-256 over the chapter, the library, the lock, the
parameters, the committed paper results that the chapter shows, and the classifiers and networks, if it reads any.
Nothing else decides, so an edited library function re-runs the chapters, and a run that was killed goes on where it
stopped.
"""

import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from scorebook.chapters import Chapter, chapters, select
from scorebook.files import fingerprint, read_json, replace, visible
from scorebook.imports import checkpoints

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass(frozen=True)
class Job:
    """A chapter to execute with some parameters into a target; ``hash`` identifies everything the result depends on."""

    name: str
    chapter: Chapter
    parameters: dict
    target: Path
    hash: str


def quick_job(root: Path, chapter: Chapter, profile: str = "quick", seed: int = 0) -> Job:
    """The job that executes a chapter for its page."""
    parameters = {"profile": profile, "seed": seed}
    code = chapter.source.read_text(encoding="utf-8")
    stems = sorted({chapter.stem, *re.findall(r'\bpaper\("(\w+)"\)', code)})
    shown = [path for stem in stems for path in visible(root / "results" / "paper" / stem)]
    files = [chapter.source, *visible(root / "src", "*.py"), root / "requirements.lock", *shown]
    files += checkpoints(root, code)
    return Job(chapter.stem, chapter, parameters, chapter.notebook, fingerprint(root, files, parameters))


def is_current(job: Job) -> bool:
    """Whether the job's target exists and was made from exactly what the job would use now."""
    if not job.target.is_file():
        return False
    return read_json(job.target).get("metadata", {}).get("scorebook", {}).get("hash") == job.hash


def run(root: Path, only=None, profile="quick", jobs=2, seed=0) -> int:
    """Execute the chapters that are out of date, ``jobs`` at a time; returns how many failed.

    Every finished chapter replaces its notebook as a whole; a failed one leaves its earlier notebook as it was.
    """
    todo = []
    for job in (quick_job(root, chapter, profile, seed) for chapter in select(chapters(root), only)):
        if is_current(job):
            print(f"{job.name}: up to date", flush=True)
        else:
            todo.append(job)
    seconds = _seconds(root)
    todo.sort(key=lambda job: -seconds.get(job.name, float("inf")))
    jobs = max(1, min(jobs, len(todo)))
    results = _run_parallel(root, todo, jobs)
    _remember(root, {name: taken for name, taken in results.items() if taken is not None})
    return sum(taken is None for taken in results.values())


def _run_parallel(root, todo, jobs):
    threads = max(1, (os.cpu_count() or 1) // jobs)
    pool = ThreadPoolExecutor(jobs)
    try:
        return dict(pool.map(lambda job: (job.name, launch(root, job, threads)), todo))
    finally:
        pool.shutdown(cancel_futures=True)


def launch(root: Path, job: Job, threads: int) -> float | None:
    """Execute a job in a process of its own, print how it went; returns the seconds taken, None for a failure."""
    print(f"{job.name}: started", flush=True)
    start = time.monotonic()
    arguments = [str(job.chapter.source), str(job.target), json.dumps(job.parameters), job.hash]
    command = [sys.executable, "-m", "scorebook.execute", *arguments]
    process = subprocess.run(command, cwd=root, env=_environment(root, threads), stderr=subprocess.PIPE, text=True)
    taken = time.monotonic() - start
    if process.returncode:
        print(f"{job.name}: failed after {taken:.1f} s\n{process.stderr.rstrip()}", flush=True)
        return None
    print(f"{job.name}: done in {taken:.1f} s", flush=True)
    return taken


def _environment(root, threads):
    """A kernel's environment: its share of the cores, no settings of the user, hashes and paths that do not vary."""
    fixed = {"PYTHONHASHSEED": "0", "IPYTHONDIR": str(root / ".scorebook" / "ipython")}
    if "SCOREMACHINES_DATA" in os.environ:  # the kernel starts in another folder
        fixed["SCOREMACHINES_DATA"] = os.path.abspath(os.environ["SCOREMACHINES_DATA"])
    return os.environ | fixed | dict.fromkeys(THREADS, str(threads))


def _seconds(root):
    path = root / ".scorebook" / "seconds.json"
    return read_json(path) if path.is_file() else {}


def _remember(root, taken):
    if taken:
        known = _seconds(root) | {name: round(value, 1) for name, value in taken.items()}
        replace(root / ".scorebook" / "seconds.json", json.dumps(known, indent=1, sort_keys=True).encode())
