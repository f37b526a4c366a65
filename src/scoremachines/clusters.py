"""k-means: a partition of the data into K clusters, each sample with the nearest of K centres.

Lloyd's algorithm repeats two steps, neither of which can raise the inertia sum_i min_k |y_i - c_k|^2:

    1. give each sample to its nearest centre,        2. move each centre to the mean of its samples.

One pass over the data leaves a mergeable statistic, `Clusters`. The start is k-means++: the first centre is a sample
drawn uniformly, each further one a sample drawn with probability proportional to its squared distance from the nearest
centre so far. Sources: Lloyd (1982); Arthur and Vassilvitskii (2007).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Self

import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor

from .machine import batches

CHUNK = 4096  # samples taken to float64 at a time


@dataclass(frozen=True, eq=False)
class Clusters:
    """The samples nearest to each of K centres: a commutative monoid.

    count: (K,), how many they are; total: (K, D), their sum; inertia: 0-d, the sum of squared distances to the centres.
    """

    count: Int64[Tensor, " K"]
    total: Float64[Tensor, "K D"]
    inertia: Float64[Tensor, ""]

    @classmethod
    def of(cls, samples: Float[Tensor, "n D"], centres: Float64[Tensor, "K D"]) -> Self:
        """Return the statistic of n samples; n = 0 gives the identity."""
        y = samples.double()
        index = nearest(y, centres)
        total = torch.zeros_like(centres).index_add(0, index, y)
        return cls(index.bincount(minlength=len(centres)), total, (y - centres[index]).square().sum())

    def merge(self, other: Self) -> Self:
        """Return the statistic of both sets of samples together; both must belong to the same centres."""
        return type(self)(self.count + other.count, self.total + other.total, self.inertia + other.inertia)

    def means(self, centres: Float64[Tensor, "K D"]) -> Float64[Tensor, "K D"]:
        """Return the mean of each cluster; an empty one keeps its centre, and may gain samples later."""
        count = self.count[:, None]
        return torch.where(count > 0, self.total / count.clamp(min=1), centres)


def nearest(y: Float64[Tensor, "n D"], centres: Float64[Tensor, "K D"]) -> Int64[Tensor, " n"]:
    """Return for each sample the index of the centre c with the least |y - c|^2 = |y|^2 - 2 (y . c - |c|^2 / 2)."""
    return (y @ centres.T - centres.square().sum(1) / 2).argmax(1)


def kmeans(
    data: Tensor | Iterable[Tensor], k: int, rng: torch.Generator, passes: int = 100, tolerance: float = 1e-4
) -> Int64[Tensor, " N"]:
    """Return the cluster, 0 to k - 1, of each sample: k-means++ and at most `passes` of Lloyd's passes.

    data: (N, *shape) or batches that can be read many times, each time in the same order. The passes end when one
    lowers the inertia by no more than the fraction `tolerance`. How the data are cut into batches changes rounding
    only. Raises ValueError for settings that `check_kmeans` refuses, and when the data hold fewer than k different
    samples.
    """
    check_kmeans(data, k, rng, passes, tolerance)
    centres, inertia = kmeans_plusplus(data, k, rng).double(), torch.inf
    for _ in range(passes):
        found = reduce(Clusters.merge, (Clusters.of(part, centres) for part in _parts(data)))
        if found.inertia >= (1 - tolerance) * inertia:
            break
        centres, inertia = found.means(centres), found.inertia
    return torch.cat([nearest(part.double(), centres) for part in _parts(data)])


def kmeans_plusplus(data: Tensor | Iterable[Tensor], k: int, rng: torch.Generator) -> Float[Tensor, "k D"]:
    """Return k different samples, far from each other: the start of k-means++."""
    first, *draws = torch.rand(k, generator=rng, dtype=torch.float64, device=rng.device).tolist()
    centres = [_sample(data, int(first * sum(map(len, _parts(data)))))]
    distance = _distances(data, centres[0])
    for u in draws:
        centres.append(_sample(data, _drawn(distance, u, len(centres))))
        distance = torch.minimum(distance, _distances(data, centres[-1]))
    return torch.stack(centres)


def check_kmeans(data, k: int, rng: torch.Generator, passes: int, tolerance: float) -> None:
    """Raise ValueError unless k-means can begin: re-readable data, whole numbers k and passes, rng, a fraction."""
    check_rereadable(data)
    if type(k) is not int or k < 1:
        raise ValueError(f"k is {k}, expected a whole number of clusters, at least 1.")
    if not isinstance(rng, torch.Generator):
        raise ValueError(
            f"rng is a {type(rng).__name__}, but the start is drawn; pass torch.Generator().manual_seed(...)."
        )
    if type(passes) is not int or passes < 1:
        raise ValueError(f"passes is {passes}, expected a whole number, at least 1.")
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance is {tolerance}, expected a fraction from 0 to 1.")


def check_rereadable(data: Tensor | Iterable[Tensor]) -> None:
    """Raise ValueError for an iterator, which is spent after the first pass."""
    if isinstance(data, Iterator):
        raise ValueError("the data are an iterator, which can be read only once; pass a tensor or a list of batches.")


def by_label(labels: Int[Tensor, " N"], count: int, k: int | None = None) -> Int64[Tensor, " N"]:
    """Return the cluster of each of `count` labelled samples: 0 for the smallest label, 1 for the next one.

    Raises ValueError unless the labels are `count` whole numbers, of k distinct values if k is given.
    """
    check_labels(labels)
    if len(labels) != count:
        raise ValueError(f"there are {len(labels)} labels and {count} samples; expected one label for each sample.")
    distinct, assigned = labels.unique(return_inverse=True)
    if k not in (None, len(distinct)):
        raise ValueError(f"k is {k} and the labels have {len(distinct)} distinct values; leave k out or correct it.")
    return assigned


def check_labels(labels: Tensor) -> None:
    """Raise ValueError unless labels are whole numbers, in a tensor of one axis."""
    if not isinstance(labels, Tensor):
        raise ValueError(f"the labels are a {type(labels).__name__}, expected a tensor (N,) of whole numbers.")
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        found = f"shape {tuple(labels.shape)} and dtype {labels.dtype}"
        raise ValueError(f"the labels have {found}, expected one axis of whole numbers.")


def occupied(assigned: Int64[Tensor, " N"], k: int) -> Int64[Tensor, " k"]:
    """Return how many samples each of k clusters holds; raises ValueError when one holds none."""
    counts = assigned.bincount(minlength=k)
    if (counts == 0).any():
        empty = int((counts == 0).nonzero()[0])
        raise ValueError(f"cluster {empty} is empty, all samples are nearer to others; use a smaller k or another rng.")
    return counts


def members(
    data: Tensor | Iterable[Tensor], assigned: Int64[Tensor, " N"], cluster: int
) -> Iterator[Float[Tensor, "n *shape"]]:
    """Yield the samples of one cluster, batch by batch."""
    start = 0
    for batch in batches(data):
        inside = assigned[start : start + len(batch)] == cluster
        yield batch[inside.to(batch.device)]
        start += len(batch)


def _drawn(distance: Tensor, u: float, chosen: int) -> int:
    """Turn u, uniform in [0, 1), into the index of a sample drawn in proportion to its squared distance."""
    cumulative = distance.cumsum(0)
    if cumulative[-1] == 0:
        raise ValueError(
            f"cluster {chosen} is empty, since the data hold only {chosen} different samples; use k = {chosen} or less."
        )
    return int(torch.searchsorted(cumulative, u * cumulative[-1], right=True))


def _distances(data: Tensor | Iterable[Tensor], centre: Tensor) -> Float64[Tensor, " N"]:
    """Return the squared distance of each sample from one of them, exactly 0 for its copies."""
    return torch.cat([(part - centre).double().square().sum(1) for part in _parts(data)])


def _sample(data: Tensor | Iterable[Tensor], index: int) -> Float[Tensor, " D"]:
    for part in _parts(data):
        if index < len(part):
            return part[index]
        index -= len(part)
    raise ValueError("the data shrank between two passes; give batches that can be read many times.")


def _parts(data: Tensor | Iterable[Tensor]) -> Iterator[Float[Tensor, "n D"]]:
    """Yield the samples as rows, at most CHUNK at a time."""
    for batch in batches(data):
        yield from batch.flatten(1).split(CHUNK)
