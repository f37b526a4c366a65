"""The equivariant machine: the ideal machine of the training set with all circular shifts of all its images.

With (T_d y)(v) = y(v + d), indices modulo H and W, the law puts equal mass on every T_d y_i, and

    E[x0 | x] = sum_{i,d} w_i(d) T_d y_i,
    w = softmax( (alpha / sigma^2) x . T_d y_i - (alpha^2 / (2 sigma^2)) |y_i|^2 ).

All H W inner products of an image are one circular correlation, and so is the weighted mean: O(H W log H W) operations
for each image by fast Fourier transforms, in place of (H W)^2. They are done in float64, because the correlation of
far shifts would round the near ones. Source: Kamb and Ganguli (2025), equations 5 and 6 and theorem B.2.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.fft import irfft2, rfft2

from .conditional import Dictionary, check_chunk, images, one_level
from .noise import Noise
from .stats import SoftMean


@dataclass(frozen=True, eq=False)
class Equivariant(Dictionary):
    """The ideal machine of all circular shifts: the best on the training set of all that commute with shifts.

    chunk: how many pairs of an image x and a training image are compared at a time, which changes memory and not the
    result. One noise level for each image. The transforms round inner products by about 1e-16 |x| |y|, so log weights
    by this over sigma^2: images on [-1, 1] need a sigma of at least about 1e-5 for exact weights.
    """

    chunk: int

    @classmethod
    def fit(cls, data: Tensor | Iterable[Tensor], labels: Int[Tensor, " N"] | None = None, chunk: int = 2048) -> Self:
        """Keep the images (N, C, H, W), or the batches of an iterable; labels (N,) allow `given`.

        Raises ValueError for labels that do not fit, and a chunk below 1.
        """
        check_chunk(chunk)
        return cls(**images(data, labels), chunk=chunk)

    def denoise(self, x: Float[Tensor, "B C H W"], noise: Noise) -> Float[Tensor, "B C H W"]:
        """Return sum_{i,d} w_i(d) T_d y_i. Source: chapter "Locality and equivariance"."""
        return self._soft_mean(x, *self._levels(x, noise)).mean.reshape(x.shape).to(x)

    def log_density(self, x: Float[Tensor, "B C H W"], noise: Noise) -> Float[Tensor, " B"]:
        """Return log p(x) = log (1 / (N H W)) sum_{i,d} N(x; alpha T_d y_i, sigma^2 I), in nats."""
        alpha, sigma = self._levels(x, noise)
        flat = x.flatten(1).double()
        D = flat.shape[1]
        rest = -(flat**2).sum(1) / (2 * sigma**2) - D * sigma.log() - D / 2 * math.log(2 * math.pi)
        counts = torch.empty(len(x), dtype=torch.float64, device=x.device)
        for rows, members in self._groups(len(x)):
            counts[rows] = len(self._members(members)) * x.shape[2] * x.shape[3]
        return (self._soft_mean(x, alpha, sigma).logsumexp - counts.log() + rest).to(x)

    def _levels(self, x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        alpha, sigma = one_level(x, noise, self.data.shape[1:], type(self).__name__, torch.float64)
        return alpha.double(), sigma.double()

    def _soft_mean(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> SoftMean:
        """The softmax over all images and shifts, one row for each x, values of dimension C H W."""
        order, found = [], []
        for batch_rows, members in self._groups(len(x)):
            data = self._members(members)
            for rows in batch_rows.split(self.chunk):
                query = x[rows].double(), alpha[rows], sigma[rows]
                parts = (
                    _compared(*query, y.to(x.device, torch.float64))
                    for y in data.split(max(1, self.chunk // max(1, len(rows))))
                )
                order.append(rows)
                found.append(reduce(SoftMean.merge, parts))
        back = torch.cat(order).argsort()
        return SoftMean(
            *(torch.cat(field)[back] for field in zip(*((s.peak, s.mass, s.total) for s in found), strict=True))
        )


def _compared(x: Tensor, alpha: Tensor, sigma: Tensor, y: Tensor) -> SoftMean:
    """The softmax over all shifts of a few images y (n, C, H, W) for images x (B, C, H, W)."""
    if len(x) == 0:  # which fast Fourier transforms refuse
        return SoftMean(*x.new_zeros(2, 0), x.flatten(1))
    size = x.shape[2:]
    waves = rfft2(y)
    inner = irfft2((rfft2(x).conj()[:, None] * waves).sum(2), s=size)
    energy = y.square().flatten(1).sum(1)[:, None, None]
    logits = (alpha / sigma**2)[:, None, None, None] * inner - (alpha**2 / (2 * sigma**2))[:, None, None, None] * energy
    peak = logits.flatten(1).amax(1)
    weights = (logits - peak[:, None, None, None]).exp()
    total = irfft2((rfft2(weights).conj()[:, :, None] * waves).sum(1), s=size)
    return SoftMean(peak, weights.flatten(1).sum(1), total.flatten(1))
