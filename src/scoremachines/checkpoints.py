"""Checkpoints: the weights of a network in float16 and a manifest, in one safetensors file.

The manifest is a JSON object: what the network is, which data and settings made it, the versions of the packages, and
a fingerprint, the SHA-256 of the weights. A file appears whole or not at all, and nothing in it is ever unpickled.
"""

import hashlib
import json
import os
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

PACKAGES = ("torch", "safetensors", "scoremachines")


def rounded(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights as a checkpoint keeps them: each rounded to float16, in its own dtype.

    Raises ValueError when a weight is too large for that, or NaN.
    """
    kept = {name: weight.detach().half().to(weight) for name, weight in weights.items()}
    if not all(weight.isfinite().all() for weight in kept.values()):
        raise ValueError("a weight exceeds the range of float16 or is NaN; train again, at a lower rate.")
    return kept


def write(path: str | os.PathLike, weights: dict[str, Tensor], facts: dict[str, Any], provenance: dict[str, Any]):
    """Write the weights, rounded, with a manifest of provenance, facts, versions and fingerprint.

    provenance: which data the weights were trained on, in what JSON can hold, at least their name and sha256; facts:
    what the network says of itself. Raises ValueError when provenance lacks one of those or repeats a fact.
    """
    if missing := sorted({"name", "sha256"} - provenance.keys()):
        raise ValueError(f"provenance lacks {missing}, expected to say which data it was trained on; give both.")
    half = {name: weight.cpu().half().contiguous() for name, weight in rounded(weights).items()}
    versions = {package: version(package) for package in PACKAGES}
    facts = facts | {"dtype": "float16", "fingerprint": _digest(half), "versions": versions}
    if clash := sorted(facts.keys() & provenance.keys()):
        raise ValueError(f"provenance holds {clash}, which the checkpoint itself knows; leave them out.")
    path, manifest = Path(path), json.dumps(provenance | facts)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        save_file(half, Path(folder) / path.name, metadata={"manifest": manifest})
        os.replace(Path(folder) / path.name, path)


def read(path: str | os.PathLike, provenance: dict[str, Any], remake: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return (weights, manifest) of a checkpoint; every item of provenance must equal the one in the manifest.

    remake: the last words of every error, such as "train it again". Raises FileNotFoundError if there is no such file,
    ValueError if it is damaged or comes from other data.
    """
    path = Path(path)
    weights, manifest = _opened(path, remake)
    for key, expected in provenance.items():
        if manifest.get(key) != expected:
            raise ValueError(f"{path} was made with {key} = {manifest.get(key)}, expected {expected}; {remake}.")
    if {weight.dtype for weight in weights.values()} != {torch.float16}:
        raise ValueError(f"{path} holds weights of another dtype than float16; {remake}.")
    if not all(weight.isfinite().all() for weight in weights.values()):
        raise ValueError(f"{path} holds weights that are NaN or infinite; {remake}.")
    if _digest(weights) != manifest.get("fingerprint"):
        raise ValueError(f"{path} does not match its own fingerprint; {remake}.")
    return weights, manifest


def _opened(path: Path, remake: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there, expected a checkpoint; {remake}.")
    try:
        with safe_open(path, "pt") as file:
            manifest = json.loads((file.metadata() or {})["manifest"])
            return {name: file.get_tensor(name) for name in file.keys()}, dict(manifest)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a complete safetensors file with a manifest ({error}); {remake}.") from error


def _digest(weights: dict[str, Tensor]) -> str:
    """SHA-256 of the names, sizes and numbers."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(f"{name} {tuple(weights[name].shape)}".encode())
        digest.update(weights[name].contiguous().numpy())
    return digest.hexdigest()
