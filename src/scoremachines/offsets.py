"""Offsets: which patches a pixel is compared with, and the sum over offsets in plain torch.

A patch machine compares the window around pixel u of a noisy image x with the window around pixel u + d of a training
image y. For one image and one offset d all these squared distances are box sums of one plane,

    D_d(v) = sum_c (x_c(v) - alpha y_c(v + d))^2,      dist_d(u) = sum_{|v - u| <= p} D_d(v),     window = 2p + 1,

so that a pair of patches costs O(C) operations whatever the window, and no patch is ever formed: the value that belongs
to the pair is y(u + d), a shifted copy of the image. A border says which offsets meet at a pixel, axis by axis:

    "same"       d = 0 only; windows reach beyond the border, where both images are zero
    "zeros"      d = 0 everywhere; d != 0 where both windows lie inside the image
    "interior"   the windows of x wrap around, those of y lie inside the image
    "circular"   the windows of both wrap around, and every shift meets every pixel

For "zeros" two windows meet exactly when they overlap the border alike. Source: Kamb and Ganguli (2025), appendix B.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache, reduce
from typing import Self

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import pad

from .stats import SoftMean


@dataclass(frozen=True)
class Offset:
    """One offset along one axis, for one half-width p.

    shift: d; start, stop: the range of pixels u that it serves; query, data: for v = start - p ... stop + p - 1 the
    indices of x(v) and y(v + d) in the image, -1 where either lies outside, so that D_d(v) is 0.
    """

    shift: int
    start: int
    stop: int
    query: tuple[int, ...]
    data: tuple[int, ...]


@cache
def offsets(length: int, p: int, border: str) -> tuple[Offset, ...]:
    """Return the offsets along an axis of this length for windows 2p + 1, those without a pixel left out."""
    shifts = {"same": range(1), "circular": range(length)}.get(border, range(1 - length, length))
    spans = [(d, *_span(length, p, border, d)) for d in shifts]
    return tuple(Offset(d, a, b, *indices(a - p, b + p, d, length, border)) for d, a, b in spans if a < b)


def _span(length: int, p: int, border: str, d: int) -> tuple[int, int]:
    """The pixels u that have a partner at u + d."""
    inside = max(0, p - d), min(length, length - p - d)  # the window of y lies inside the image
    if border == "interior":
        return inside
    return (max(p, inside[0]), min(length - p, inside[1])) if border == "zeros" and d else (0, length)


def indices(start: int, stop: int, d: int, length: int, border: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return where x(v) and y(v + d) lie in the image, for v = start ... stop - 1; -1 in both if one is outside."""
    wrapped = {"circular": (True, True), "interior": (True, False)}.get(border, (False, False))
    pairs = [
        tuple(w % length if wrap else w for w, wrap in zip((v, v + d), wrapped, strict=True))
        for v in range(start, stop)
    ]
    pairs = [pair if all(0 <= w < length for w in pair) else (-1, -1) for pair in pairs]
    return tuple(i for i, _ in pairs), tuple(j for _, j in pairs)


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest patch of each of R pixels: squared distance (R,), image (R,), offset (R, 2); -1 for none (torch)."""

    distance: Float[Tensor, " R"]
    image: Int64[Tensor, " R"]
    shift: Int64[Tensor, "R 2"]

    def merge(self, other: Self) -> Self:
        """Return the nearer of two; of two equal distances the first."""
        nearer = other.distance < self.distance
        image, shift = other.image.where(nearer, self.image), other.shift.where(nearer[:, None], self.shift)
        return type(self)(other.distance.where(nearer, self.distance), image, shift)


@dataclass(frozen=True, eq=False)
class Matches:
    """What one pass over training images leaves for R pixels of noisy images; a commutative monoid.

    soft: the softmax over all patches that were met. With nearest, its values are y and, in a last column, the log
    weight itself; without, they are y.
    """

    soft: SoftMean
    nearest: Nearest | None

    def merge(self, other: Self) -> Self:
        """Return what both sets of patches together leave."""
        nearest = self.nearest.merge(other.nearest) if self.nearest else None
        return type(self)(self.soft.merge(other.soft), nearest)

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """Return the matches of several sets of pixels one after another."""
        soft = _cat([part.soft for part in parts])
        return cls(soft, _cat([part.nearest for part in parts]) if parts[0].nearest else None)


def _cat(records: list) -> SoftMean | Nearest:
    names = [field.name for field in fields(records[0])]
    return type(records[0])(*(torch.cat([getattr(one, name) for one in records]) for name in names))


def matches(
    x: Float[Tensor, "B C H W"],
    alpha: Float[Tensor, " B"],
    sigma: Float[Tensor, " B"],
    images: Float[Tensor, "n C H W"],
    window: int,
    border: str,
    planes: int,
) -> Matches:
    """Return the matches of all pixels of x among the patches of the images, so many planes at a time.

    Differentiable with respect to x, on any device, in the precision of x.
    """
    rows = max(1, min(len(x), planes))
    step = min(len(images), planes // rows)
    together = max(1, planes // (rows * step))
    blocks = []
    for some in torch.arange(len(x), device=x.device).split(rows):
        query = x[some], alpha[some], sigma[some]
        parts = ((n, images[n : n + step].to(x)) for n in range(0, len(images), step))
        found = (_match(*query, y, n, window, border, together) for n, y in parts)
        blocks.append(reduce(Matches.merge, found))
    return Matches.cat(blocks)


def _match(
    x: Tensor, alpha: Tensor, sigma: Tensor, y: Tensor, first: int, window: int, border: str, together: int
) -> Matches:
    """The matches among a few images, numbered from first; some offsets along rows are taken together."""
    alpha, scale = (level.reshape(-1, *[1] * 5) for level in (alpha, 1 / (2 * sigma**2)))
    rows, columns = (offsets(length, window // 2, border) for length in x.shape[2:])
    found = []
    for k in range(0, len(columns), together):
        some = _Columns.of(columns[k : k + together], x, window, border)
        found += [_met(x, alpha, scale[:, 0], y, first, window, row, some) for row in rows]
    return reduce(Matches.merge, found)


@dataclass(frozen=True)
class _Columns:
    """Some offsets along rows: shift (K,), served (K, W), and where x(v) and y(v + d) lie, (K, W + 2p)."""

    shift: Tensor
    served: Tensor
    query: Tensor
    data: Tensor

    @classmethod
    def of(cls, columns: Sequence[Offset], x: Tensor, window: int, border: str) -> Self:
        W, p = x.shape[3], window // 2
        served = [[one.start <= u < one.stop for u in range(W)] for one in columns]
        index = [indices(-p, W + p, one.shift, W, border) for one in columns]
        shift, query, data = [one.shift for one in columns], *zip(*index, strict=True)
        return cls(*(torch.tensor(part, device=x.device) for part in (shift, served, query, data)))


def _met(
    x: Tensor, alpha: Tensor, scale: Tensor, y: Tensor, first: int, window: int, row: Offset, columns: _Columns
) -> Matches:
    """The matches at some offsets: softmax and minimum over them and the images; nothing at pixels not served."""
    plane = _at(x, row.query, columns.query)[:, None] - alpha * _at(y, row.data, columns.data)
    distance = _box(_box(plane.square().sum(2), window, 2), window, 4)
    logits = (-scale * distance).masked_fill(~columns.served, -torch.inf)  # in this order sigma has a derivative, too
    distance = distance.masked_fill(~columns.served, torch.inf)
    peak = logits.amax((1, 3))
    lower = logits - peak.where(peak > -torch.inf, 0)[:, None, :, None]
    weights = lower.exp()
    p, W = window // 2, x.shape[3]
    values = _at(y, row.data[p : len(row.data) - p], columns.data[:, p : p + W])
    mass, total = weights.sum((1, 3)), torch.einsum("bnhkw,nchkw->bchw", weights, values)
    energy = (weights * lower.where(columns.served, 0)).sum((1, 3)).double()
    energy = energy + mass * peak.where(mass > 0, 0).double()  # far away, all log weights are one large number, nearly
    around = (0, 0, row.start, x.shape[2] - row.stop)

    def pixels(plane: Tensor, empty: float) -> Tensor:
        return pad(plane, around, value=empty).flatten()

    total = pad(torch.cat([total, energy[:, None]], 1), around).movedim(1, -1).flatten(0, -2)
    soft = SoftMean(pixels(peak.double(), -torch.inf), pixels(mass.double(), 0.0), total)
    nearest = distance.movedim((1, 3), (3, 4)).flatten(3).min(3)
    image = pixels(nearest.indices // len(columns.shift) + first, -1.0)
    column = columns.shift[pixels(nearest.indices % len(columns.shift), 0.0)]
    shift = torch.stack([torch.full_like(column, row.shift), column], 1)
    return Matches(soft, Nearest(pixels(nearest.values, torch.inf), image, shift))


def _at(x: Tensor, rows: tuple[int, ...], columns: Tensor) -> Tensor:
    """Return x (N, C, H, W) at these rows (h,) and columns (K, V), as (N, C, h, K, V); 0 at index -1."""
    i = torch.tensor(rows, device=x.device)[:, None, None]
    return x[:, :, i.clamp(min=0), columns.clamp(min=0)] * ((i >= 0) & (columns >= 0))


def _box(plane: Tensor, window: int, axis: int) -> Tensor:
    """Return the sums over windows along an axis, without subtractions, which would lose small distances."""
    n = plane.shape[axis] - window + 1
    return reduce(torch.add, (plane.narrow(axis, k, n) for k in range(window)))
