"""Original files: found, downloaded, checked and read, without unpickling or extracting anything.

A file is looked for in `$SCOREMACHINES_DATA`, then in the user's cache, then downloaded into the cache. Its
content is used only when length and SHA-256 are the known ones; at most one byte more than that is decompressed.
"""

import gzip
import hashlib
import lzma
import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import numpy as np

from .sources import Download, File, Source

UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError)
CIFAR_RECORD = 1 + 3 * 32 * 32


def extra(module: str):
    """The optional module of that name; ModuleNotFoundError says how to install it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.split(".")[0]
        message = f'{package} is needed for this data set; pip install "scoremachines[data]" provides it.'
        raise ModuleNotFoundError(message) from error


def directories() -> Iterator[Path]:
    """The data directories: `$SCOREMACHINES_DATA` where it is set, then the user's cache.

    Errors: FileNotFoundError when the variable names no folder.
    """
    named = os.environ.get("SCOREMACHINES_DATA")
    if named and not Path(named).is_dir():
        raise FileNotFoundError(f"SCOREMACHINES_DATA is {named}, which is no folder; set it to one or unset it.")
    if named:
        yield Path(named)
    yield Path(extra("pooch").os_cache("scoremachines"))


def contents(source: Source, files: tuple[File, ...]) -> list[tuple[File, bytes]]:
    """The files of an image set, or their accepted partial forms, each with its checked content.

    Errors: FileNotFoundError (absent and not downloadable), ValueError (damaged), PermissionError (cache).
    """
    found = [_locate(source, file) or _download(source, file) for file in files]
    for path in {path for _, path in found if _is_archive(path)}:
        _check_archive(path, files[0].download)
    with ThreadPoolExecutor(2) as pool:  # decompression and hashing release the interpreter lock
        return list(pool.map(lambda pair: (pair[0], content(*pair)), found))


def content(file: File, path: Path) -> bytes:
    """The content of `file`, read from `path` (plain, .gz, .xz or .tar.gz), of known length and SHA-256.

    Errors: ValueError naming the path, what was found and what was expected.
    """
    try:
        raw = _read(file, path)
    except UNREADABLE as error:
        raise ValueError(f"{path} cannot be read ({error}); {_wanted(file)}.") from error
    if len(raw) != file.size:
        found = f"{len(raw)} bytes" if len(raw) < file.size else f"more than {file.size} bytes"
        raise ValueError(f"{path} holds {found} of content; {_wanted(file)}.")
    if (found := hashlib.sha256(raw).hexdigest()) != file.sha256:
        raise ValueError(f"{path} has content with SHA-256 {found}; {_wanted(file)}.")
    return raw


def parse_idx(raw: bytes, name: str) -> np.ndarray:
    """The uint8 array of an idx file: two zero bytes, type 8, number of axes, big-endian axes, then the values."""
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise ValueError(f"{name} starts with bytes {raw[:4].hex()!r}; an idx file of bytes starts with '000008'.")
    start = 4 + 4 * raw[3]
    if len(raw) < start:
        raise ValueError(f"{name} ends inside its header, after {len(raw)} bytes; expected at least {start}.")
    shape = tuple(int.from_bytes(raw[i : i + 4], "big") for i in range(4, start, 4))
    if len(raw) != start + int(np.prod(shape, dtype=object)):
        raise ValueError(f"{name} has {len(raw) - start} values; its header announces an array of shape {shape}.")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def parse_cifar(raw: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3, 32, 32) and labels (N,), uint8, of a CIFAR-10 binary batch: one label, then three planes."""
    if not raw or len(raw) % CIFAR_RECORD:
        raise ValueError(f"{name} has {len(raw)} bytes; expected a positive multiple of {CIFAR_RECORD}.")
    records = np.frombuffer(raw, np.uint8).reshape(-1, CIFAR_RECORD)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


def _wanted(file: File) -> str:
    return f"expected {file.size} bytes with SHA-256 {file.sha256}, so replace the file by the original {file.name}"


def _is_archive(path: Path) -> bool:
    return path.name.endswith(".tar.gz")


def _locate(source: Source, file: File) -> tuple[File, Path] | None:
    """The first copy of `file` in the data directories, the whole file before a partial one in each."""
    for directory in directories():
        for candidate in filter(None, (file, file.partial)):
            for path in _copies(directory, source.folders, candidate):
                if path.is_file():
                    return candidate, path
    return None


def _copies(directory: Path, folders: tuple[str, ...], file: File) -> list[Path]:
    names = [file.name, f"{file.name}.gz", f"{file.name}.xz"]
    if file.download and file.download.name not in names:
        names.append(file.download.name)
    return [directory / folder / name for folder in folders for name in names]


def _download(source: Source, file: File) -> tuple[File, Path]:
    """Download `file` into the cache; pooch checks it and moves it into place only when it is whole."""
    pooch, served = extra("pooch"), file.download
    *_, cache = looked = list(directories())
    folder = cache / source.folders[0]
    advice = f"set SCOREMACHINES_DATA to a folder that holds {source.folders[0]}/{served.name}"
    _require_writable(folder, f"cannot keep {served.name}; {advice}")
    try:
        path = pooch.retrieve(served.url, f"sha256:{served.sha256}", served.name, folder)
    except ValueError as error:
        raise ValueError(f"{served.url} does not serve SHA-256 {served.sha256} any more; {advice}.") from error
    except OSError as error:
        absent = f"{file.name} of {source.title} is not in {' or '.join(map(str, looked))}"
        network = f"{served.url} cannot be downloaded; connect to the network, or {advice}."
        raise FileNotFoundError(f"{absent}, and {network}") from error
    return file, Path(path)


def _require_writable(folder: Path, problem: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise PermissionError(f"The cache {folder} cannot be written ({error.strerror}) and {problem}.") from error


def _check_archive(path: Path, download: Download) -> None:
    """Archives are opened only as the original bytes: reading the members of a forged one is not bounded."""
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != download.sha256:
        expected = f"{download.size} bytes with SHA-256 {download.sha256}"
        raise ValueError(
            f"{path} has {path.stat().st_size} bytes with SHA-256 {found}; expected {expected}, "
            f"so replace it by the original {download.name}."
        )


def _read(file: File, path: Path) -> bytes:
    if _is_archive(path):
        return _read_member(file, path)
    with {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)(path, "rb") as stream:
        return stream.read(file.size + 1)


def _read_member(file: File, path: Path) -> bytes:
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            if member.isfile() and Path(member.name).name == file.name:
                return archive.extractfile(member).read(file.size + 1)
    raise tarfile.TarError(f"no member {file.name}")
