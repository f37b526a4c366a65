"""Statistics: what one pass over data leaves, as commutative monoids.

Every statistic has `of(batch)` and `a.merge(b)`. Merging is associative and commutative up to rounding, and the
statistic of an empty batch is its identity, so any partition of the data, in any order, gives the same result.

    Moments    n, mean m and scatter S = sum_i (x_i - m)(x_i - m)^T of the samples, in float64
    SoftMean   sum_i exp(l_i) v_i / sum_i exp(l_i), held as (peak, mass, total) with peak = max_i l_i
"""

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from functools import reduce
from importlib.metadata import version
from pathlib import Path
from typing import Self

import torch
from jaxtyping import Float, Float64
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and second moments of samples of one shape, accumulated in float64.

    count: number of samples N; shape: the shape of one sample, D its number of entries;
    mean: (D,); scatter: (D, D), the sum of outer products of the centred samples.
    """

    count: int
    shape: torch.Size
    mean: Float64[Tensor, " D"]
    scatter: Float64[Tensor, "D D"]

    @classmethod
    def of(cls, batch: Float[Tensor, "n *shape"], chunk: int = 8192) -> Self:
        """Return the moments of a batch (n, *shape), read `chunk` samples at a time; n = 0 gives the identity."""
        if not isinstance(batch, Tensor) or not batch.is_floating_point():
            kind = batch.dtype if isinstance(batch, Tensor) else type(batch).__name__
            raise ValueError(f"the data are {kind}, expected a floating tensor; see scoremachines.data.to_unit.")
        if batch.ndim < 2:
            raise ValueError(f"the data have shape {tuple(batch.shape)}, expected (n, *shape) with at least two axes.")
        if chunk < 1:
            raise ValueError(f"chunk is {chunk}, expected at least one sample at a time.")
        return reduce(cls.merge, (cls._of(part) for part in batch.split(chunk)))

    @classmethod
    def _of(cls, batch: Tensor) -> Self:
        if not batch.isfinite().all():
            raise ValueError("the data hold NaN or infinite values; remove or repair those samples first.")
        x = batch.flatten(1).double()
        mean = x.mean(0) if len(x) else x.new_zeros(x.shape[1])
        x = x - mean
        return cls(len(x), batch.shape[1:], mean, x.T @ x)

    def merge(self, other: Self) -> Self:
        """Return the moments of both sets of samples together; raises ValueError if the sample shapes differ.

        With d = m_b - m_a and n = n_a + n_b: m = m_a + d n_b / n and S = S_a + S_b + d d^T n_a n_b / n
        (Chan, Golub and LeVeque 1983).
        """
        if self.shape != other.shape:
            raise ValueError(
                f"moments of samples of shape {tuple(self.shape)} cannot be merged with {tuple(other.shape)}; "
                "expected one sample shape."
            )
        count = self.count + other.count
        share = other.count / max(count, 1)
        shift = other.mean - self.mean
        scatter = self.scatter + other.scatter + torch.outer(shift, shift) * (self.count * share)
        return type(self)(count, self.shape, self.mean + shift * share, scatter)

    @property
    def cov(self) -> Float64[Tensor, "D D"]:
        """Covariance S / N, divided by N; raises ValueError when there is no sample."""
        if self.count == 0:
            raise ValueError("the covariance of no sample is not defined; merge some data first.")
        return self.scatter / self.count

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the count, the shape and the numbers."""
        digest = hashlib.sha256(f"{self.count} {tuple(self.shape)}".encode())
        for tensor in (self.mean, self.scatter):
            digest.update(tensor.contiguous().cpu().numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: str | os.PathLike, **provenance: str) -> None:
        """Write the moments to a safetensors file with their fingerprint, dtype, package versions and provenance.

        Provenance says which data they are the moments of: `**images.provenance` of `scoremachines.data`, or at least
        name and sha256 of your own. The file appears whole or not at all.
        """
        path = Path(path)
        facts = {
            "count": str(self.count),
            "shape": json.dumps(list(self.shape)),
            "dtype": "float64",
            "fingerprint": self.fingerprint,
        }
        facts |= {f"{package} version": version(package) for package in ("torch", "numpy", "scoremachines")}
        missing = {"name", "sha256"} - provenance.keys()
        if missing:
            raise ValueError(f"provenance lacks {sorted(missing)}, expected to say which data these are; give both.")
        clash = [key for key in facts.keys() & provenance.keys() if provenance[key] != facts[key]]
        if clash:
            raise ValueError(f"provenance contradicts the moments of {self.count} samples in {clash}; correct it.")
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            temporary = Path(folder) / path.name
            tensors = {"mean": self.mean.contiguous(), "scatter": self.scatter.contiguous()}
            save_file(tensors, temporary, metadata={**provenance, **facts})
            os.replace(temporary, path)

    @classmethod
    def load(cls, path: str | os.PathLike, **provenance: str) -> Self:
        """Read moments back; every provenance item given must equal the one saved.

        Raises FileNotFoundError if there is no such file, ValueError if it is corrupt or comes from other data.
        """
        facts, tensors = _read(Path(path), ("mean", "scatter"), ("count", "shape", "fingerprint"))
        for key, expected in provenance.items():
            if facts.get(key) != expected:
                raise ValueError(f"{path} was made with {key} = {facts.get(key)}, expected {expected}; remake it.")
        try:
            found = cls(int(facts["count"]), torch.Size(json.loads(facts["shape"])), **tensors)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} has count {facts['count']} and shape {facts['shape']}; remake it.") from error
        D = found.shape.numel()
        sound = found.count >= 0 and found.mean.shape == (D,) and found.scatter.shape == (D, D)
        if not sound or not found.mean.dtype == found.scatter.dtype == torch.float64:
            raise ValueError(f"{path} holds no float64 moments of {found.count} samples of {D} values; remake it.")
        if found.fingerprint != facts["fingerprint"]:
            raise ValueError(f"{path} does not match its own fingerprint {facts['fingerprint'][:12]}; remake it.")
        return found


def _read(path: Path, names: tuple[str, ...], keys: tuple[str, ...]) -> tuple[dict, dict]:
    """Return (metadata, tensors) of a safetensors file that must hold exactly these tensors and at least these keys."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there, expected a file of statistics; save one first.")
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            found = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file ({error}); remake it.") from error
    if set(found) != set(names) or not set(keys) <= set(facts):
        raise ValueError(f"{path} holds {sorted(found)} and {sorted(facts)}, expected {names} and {keys}; remake it.")
    return facts, found


@dataclass(frozen=True, eq=False)
class SoftMean:
    """A weighted mean with weights exp(l_i), held without overflow for each row of a batch.

    peak: (B,) the largest log weight so far; mass: (B,) sum_i exp(l_i - peak);
    total: (B, D) sum_i exp(l_i - peak) v_i.
    """

    peak: Float[Tensor, " B"]
    mass: Float[Tensor, " B"]
    total: Float[Tensor, "B D"]

    @classmethod
    def of(cls, logits: Float[Tensor, "B n"], values: Float[Tensor, "n D"]) -> Self:
        """Return the statistic of n values shared by B rows of log weights; n = 0 gives the identity."""
        floor = logits.new_full((len(logits), 1), -torch.inf)
        peak = torch.cat([floor, logits], 1).amax(1)
        weights = (logits - _finite(peak)[:, None]).exp()
        return cls(peak, weights.sum(1), weights @ values)

    def merge(self, other: Self) -> Self:
        """Return the statistic of both sets of values together."""
        peak = torch.maximum(self.peak, other.peak)
        a, b = ((part.peak - _finite(peak)).exp() for part in (self, other))
        total = a[:, None] * self.total + b[:, None] * other.total
        return type(self)(peak, a * self.mass + b * other.mass, total)

    @property
    def mean(self) -> Float[Tensor, "B D"]:
        """The weighted mean, total / mass."""
        return self.total / self.mass[:, None]

    @property
    def logsumexp(self) -> Float[Tensor, " B"]:
        """log sum_i exp(l_i) = peak + log mass."""
        return self.peak + self.mass.log()


def _finite(peak: Tensor) -> Tensor:
    """Replace the peak of an empty statistic, -inf, by 0, so that exp(l - peak) is 0 and not NaN."""
    return peak.where(peak > -torch.inf, 0)
