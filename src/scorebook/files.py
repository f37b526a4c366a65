"""The book's folder on disk: where it is, how its files are hashed, read and replaced."""

import hashlib
import json
import os
from pathlib import Path


def book_root(start: Path | None = None) -> Path:
    """The nearest folder at or above ``start`` (default: the working directory) that holds ``_config.yml``.

    Raises FileNotFoundError when there is none.
    """
    start = Path(start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "_config.yml").is_file():
            return folder
    raise FileNotFoundError(f"No _config.yml in {start} or above it; run the command inside the book's folder.")


def replace(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` as a whole or not at all, through a hidden file beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial{path.suffix}")
    partial.write_bytes(data)
    os.replace(partial, path)


def read_json(path: Path) -> dict:
    """The JSON object in ``path``; raises ValueError that names the file when it holds anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); restore or delete it.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a JSON {type(content).__name__}, expected an object; restore or delete it.")
    return content


def visible(folder: Path, pattern: str = "*") -> list[Path]:
    """The files below ``folder`` whose name matches ``pattern``, sorted, without hidden ones."""
    files = (path for path in folder.rglob(pattern) if path.is_file())
    return sorted(p for p in files if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def fingerprint(root: Path, files: list[Path], parameters: dict) -> str:
    """SHA-256 (hexadecimal) over the parameters and every file's path below ``root`` and content."""
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode())
    for path in files:
        digest.update(f"\n{path.relative_to(root).as_posix()} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
