"""The paper profile: restartable jobs, a chapter on a data set each, whose results are committed."""

import os
import platform
import shutil
import subprocess
from dataclasses import replace as with_changes
from datetime import UTC, datetime
from pathlib import Path

from scorebook import results
from scorebook.chapters import chapters, select
from scorebook.files import fingerprint, read_json, replace
from scorebook.imports import checkpoints, library_files, packages, pins, syntax
from scorebook.runner import Job, launch


def paper_job(root: Path, chapter, dataset: str, seed: int = 0) -> Job:
    """The job that runs a chapter on one data set of the paper profile.

    Its hash covers what can change a result: the statements of the chapter and of the library modules that it imports,
    directly or not, the pins of the packages that either imports and of those in the manifest, the classifier of the
    data set if it reads one (networks, which no paper job reads, are left out), and the parameters. A correction of
    prose, comments or docstrings, a new machine or package, or another way to draw committed results (a cell with the
    tag `paper-results`, which no job runs) leaves hours of computing valid.
    """
    parameters = {"profile": "paper", "seed": seed, "data": [dataset]}
    cells = [
        cell.source for cell in chapter.read().cells if cell.cell_type == "code" and not results.shows_results(cell)
    ]
    code = "\n".join(cells)
    library = {path.stem: path.read_text(encoding="utf-8") for path in library_files(root, code)}
    imported = frozenset(results.VERSIONS).union(*map(packages, [code, *library.values()]))
    content = {
        "chapter": chapter.stem,
        "code": [syntax(cell) for cell in cells],
        "library": {name: syntax(text) for name, text in library.items()},
        "pins": pins(root / "requirements.lock", imported),
    }
    read = [path for path in checkpoints(root, code) if path.stem == dataset]
    target = root / "results" / "paper" / chapter.stem / f"{dataset}.json"
    return Job(f"{chapter.stem}/{dataset}", chapter, parameters, target, fingerprint(root, read, parameters | content))


def run(root: Path, only=None, names=None, force=False, seed=0) -> int:
    """Run the paper jobs whose result is missing or out of date, one at a time; returns how many failed."""
    todo = _todo(root, only, names, force, seed)
    print(f"paper: {len(todo)} to run: {', '.join(job.name for job in todo) or 'everything is up to date'}", flush=True)
    return sum(not _run(root, job) for job in todo)


def _todo(root, only, names, force, seed):
    chosen = select(chapters(root), only)
    unknown = set(names or []) - {name for chapter in chosen for name in chapter.paper}
    if unknown:
        raise ValueError(f"No chosen chapter has the paper data {sorted(unknown)}; look at 'paper' in their headers.")
    listed = [paper_job(root, chapter, name, seed) for chapter in chosen for name in chapter.paper]
    return [job for job in listed if _is_wanted(job, names) and (force or not is_current(job))]


def _is_wanted(job, names):
    return not names or job.target.stem in names


def is_current(job: Job) -> bool:
    """Whether the committed result was made from exactly what the job would use now."""
    return job.target.is_file() and read_json(job.target).get("manifest", {}).get("hash") == job.hash


def _run(root, job):
    executed = root / ".scorebook" / "paper" / f"{job.chapter.stem}.{job.target.stem}.ipynb"
    job = with_changes(job, hash=_hash(root, job))  # earlier jobs may have taken hours
    seconds = launch(root, with_changes(job, target=executed), os.cpu_count() or 1)
    if seconds is None:
        return False
    if _hash(root, job) != job.hash:
        print(f"{job.name}: dropped, because what it depends on changed while it ran; run it again.", flush=True)
        return False
    _write(job, read_json(executed), seconds)
    return True


def _hash(root, job):
    """The job's hash by the files as they are now; empty, so never up to date, while one of them cannot be parsed."""
    try:
        return paper_job(root, job.chapter, job.target.stem, job.parameters["seed"]).hash
    except (SyntaxError, ValueError):
        return ""


def _write(job, notebook, seconds):
    """Exchange the result.

    The old numbers go first and the new ones come last, so an interrupted job is out of date, never mixed.
    """
    about = results.manifest(notebook, job.parameters["seed"]) | {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(),
        "hash": job.hash,
        "profile": "paper",
        "seconds": round(seconds, 1),
    }
    job.target.unlink(missing_ok=True)
    _write_figures(job.target.with_suffix(""), results.figures(notebook))
    replace(job.target, results.dump({"numbers": results.numbers(notebook), "manifest": about}))


def _write_figures(folder, images):
    """Exchange the whole folder."""
    partial, old = folder.with_name(f".{folder.name}.partial"), folder.with_name(f".{folder.name}.old")
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, image in images.items():
        (partial / f"{name}.png").write_bytes(image)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def hardware() -> dict:
    """Processor, its cores and the GPU, if there is one; nothing that names the machine."""
    gpu = _gpu()
    return {"cpu": _cpu(), "cores": os.cpu_count()} | ({"gpu": gpu} if gpu else {})


def _cpu():
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _gpu():
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    if not shutil.which(query[0]):
        return ""
    done = subprocess.run(query, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""  # without a driver it prints its complaint there
