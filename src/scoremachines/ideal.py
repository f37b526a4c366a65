"""The ideal machine: the exact denoiser of the training set.

For data y_1 .. y_N the noised density is a mixture of N Gaussians, p(x) = (1/N) sum_i N(x; alpha y_i, sigma^2 I), and

    E[x0 | x] = sum_i w_i(x) y_i,     w(x) = softmax_i( -|x - alpha y_i|^2 / (2 sigma^2) ).

The part of the exponent that depends on i is  (alpha / sigma^2) x . y_i - (alpha^2 / (2 sigma^2)) |y_i|^2 : attention
with query x and keys and values y_i. With one sigma per component the quotients go inside the inner products.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from .machine import Machine, batches, flatten, like
from .noise import Noise
from .stats import SoftMean


@dataclass(frozen=True, eq=False)
class Ideal(Machine):
    """The empirical machine: posterior mean under the law that puts mass 1/N on each training sample.

    data: (N, *shape); energy: (N,), |y_i|^2; chunk: how many samples are read at a time, which changes memory and not
    the result. Component-wise and per-image noise are served; sigma = 0 is refused, since the law has no density.
    Half precision is computed in float32. Rounding in the exponent is of order eps(dtype) |x| |y| alpha / sigma^2: use
    float64 where that matters.
    """

    data: Float[Tensor, "N *shape"]
    energy: Float[Tensor, " N"]
    chunk: int

    @classmethod
    def fit(cls, data: Tensor | Iterable[Tensor], chunk: int = 4096) -> Self:
        """Keep the data (N, *shape), or the batches of an iterable, with their squared norms."""
        if not isinstance(chunk, int) or chunk < 1:
            raise ValueError(f"chunk is {chunk}, expected at least one sample at a time.")
        parts = list(batches(data))
        data = torch.cat(parts) if len(parts) > 1 else parts[0]
        energy = torch.linalg.vector_norm(data.flatten(1), dim=1, dtype=torch.float64) ** 2
        return cls(data, energy, chunk)

    def denoise(self, x: Float[Tensor, "B *shape"], noise: Noise) -> Float[Tensor, "B *shape"]:
        """Return sum_i w_i(x) y_i. Source: chapter "The ideal machine memorises"."""
        return self._soft_mean(x, noise).mean.reshape(x.shape).to(x)

    def log_density(self, x: Float[Tensor, "B *shape"], noise: Noise) -> Float[Tensor, " B"]:
        """Return log p(x) = log (1/N) sum_i N(x; alpha y_i, sigma^2 I), in nats."""
        flat, _, sigma = map(_wide, flatten(x, noise, self.data.shape[1:]))
        sigma = sigma.expand_as(flat)
        rest = -(flat**2 / sigma**2).sum(1) / 2 - sigma.log().sum(1) - flat.shape[1] / 2 * math.log(2 * math.pi)
        return (self._soft_mean(x, noise).logsumexp - math.log(len(self.data)) + rest).to(x)

    def log_weights(self, x: Float[Tensor, "B *shape"], noise: Noise) -> Float[Tensor, "B N"]:
        """Return log w_i(x), the log posterior probability of each training sample."""
        return torch.cat([logits for logits, _ in self._parts(x, noise)], 1).log_softmax(1).to(x)

    def posterior_cov_product(
        self, x: Float[Tensor, "B *shape"], noise: Noise, v: Float[Tensor, "B *shape"]
    ) -> Float[Tensor, "B *shape"]:
        """Return Cov[x0 | x] v = sum_i w_i (y_i - D)(y_i - D) . v, valid at alpha = 0 too."""
        soft = self._soft_mean(x, noise)
        product = torch.zeros_like(soft.mean)
        along = like(v, x).flatten(1).to(product)
        for logits, y in self._parts(x, noise):
            weights = (logits - soft.logsumexp[:, None]).exp()
            weights = weights * (along @ y.T - (along * soft.mean).sum(1, keepdim=True))
            product += weights @ y - weights.sum(1, keepdim=True) * soft.mean
        return product.reshape(x.shape).to(x)

    def _soft_mean(self, x: Tensor, noise: Noise) -> SoftMean:
        return reduce(SoftMean.merge, (SoftMean.of(*part) for part in self._parts(x, noise)))

    def _parts(self, x: Tensor, noise: Noise) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (logits (B, n), values (n, D)) for each chunk of the data."""
        x, alpha, sigma = map(_wide, flatten(x, noise, self.data.shape[1:]))
        if noise.singular:
            raise ValueError("sigma is 0 in some component, where Ideal has no density; use a level with sigma > 0.")
        query, scale = x * alpha / sigma**2, (alpha / sigma) ** 2 / 2
        if not scale.isfinite().all():
            raise ValueError(
                f"sigma is {sigma.min().item():.3g}, where the exponent overflows {x.dtype}; use a larger one."
            )
        for y, energy in zip(self.data.split(self.chunk), self.energy.split(self.chunk), strict=True):
            y, energy = y.flatten(1).to(x), energy.to(x)
            norms = scale * energy if scale.shape[1] == 1 else scale @ (y**2).T
            yield query @ y.T - norms, y


def _wide(x: Tensor) -> Tensor:
    """x in float32 at least: |x| / sigma^2 overflows half precision at the usual levels."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
