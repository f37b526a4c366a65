"""The smoothed ideal machine: the exact denoiser of a kernel density estimate.

With a Gaussian of deviation h_i around every training sample, x0_i = y_i + h_i xi_i, a noisy sample is

    x_i = alpha_i y_i + v_i^(1/2) z_i,        v_i = alpha_i^2 h_i^2 + sigma_i^2,

so y has the posterior of the ideal machine at the level (alpha, v^(1/2)), and given y the rest is Gaussian:

    E[x0 | x] = E[y | x] + (alpha h^2 / v) (x - alpha E[y | x]).

With h = 0 it is `Ideal`. With h > 0 it has a density, and sigma = 0 on some components conditions on them exactly.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from .ideal import Ideal
from .machine import Machine, flatten, like
from .noise import Noise


@dataclass(frozen=True, eq=False)
class KernelDensity(Machine):
    """The posterior mean under (1/N) sum_i N(y_i, diag(h^2)).

    ideal: the machine of the samples y_i; bandwidth: h, (*shape), in the data's units. Component-wise and per-image
    noise are served. sigma = 0 in some or all components conditions on them exactly.
    """

    ideal: Ideal
    bandwidth: Float[Tensor, "*shape"]

    @classmethod
    def fit(
        cls, data: Tensor | Iterable[Tensor], bandwidth: float | Float[Tensor, "*shape"], chunk: int = 4096
    ) -> Self:
        """Keep the data (N, *shape), with one bandwidth for all components or one for each, above 0."""
        ideal = Ideal.fit(data, chunk)
        shape = ideal.data.shape[1:]
        h = torch.as_tensor(bandwidth, dtype=torch.float64)
        if (h.ndim and h.shape != shape) or not ((h > 0) & h.isfinite()).all():
            raise ValueError(
                f"bandwidth of shape {(*h.shape,)} begins with {h.flatten()[:3].tolist()}, expected positive numbers, "
                f"one or one for each component {tuple(shape)}."
            )
        return cls(ideal, h.expand(shape).clone().to(ideal.data.device))

    @property
    def shape(self) -> torch.Size:
        """The shape of one sample."""
        return self.bandwidth.shape

    def denoise(self, x: Float[Tensor, "B *shape"], noise: Noise) -> Float[Tensor, "B *shape"]:
        """Return E[y | x] + (alpha h^2 / v) (x - alpha E[y | x])."""
        gain, _, alpha, wider = self._widened(x, noise)
        y = self.ideal.denoise(x, wider)
        return y + gain * (x - alpha * y)

    def log_density(self, x: Float[Tensor, "B *shape"], noise: Noise) -> Float[Tensor, " B"]:
        """Return log (1/N) sum_i N(x; alpha y_i, diag(v)) in nats."""
        return self.ideal.log_density(x, self._widened(x, noise)[-1])

    def posterior_cov_product(
        self, x: Float[Tensor, "B *shape"], noise: Noise, v: Float[Tensor, "B *shape"]
    ) -> Float[Tensor, "B *shape"]:
        """Return Cov[x0 | x] v, with Cov[x0 | x] = diag(h^2 sigma^2 / v) + R Cov[y | x] R, R = diag(sigma^2 / v)."""
        _, left, _, wider = self._widened(x, noise)
        v, h2 = like(v, x), self.bandwidth.to(x) ** 2
        return h2 * left * v + left * self.ideal.posterior_cov_product(x, wider, left * v)

    def to(self, *target: torch.dtype | torch.device | str | Tensor) -> Self:
        """Return the machine on another dtype or device, as `Tensor.to` does."""
        return type(self)(self.ideal.to(*target), self.bandwidth.to(*target))

    def _widened(self, x: Tensor, noise: Noise) -> tuple[Tensor, Tensor, Tensor, Noise]:
        """Return alpha h^2 / v, sigma^2 / v, alpha, and the level (alpha, v^(1/2)) of y."""
        flatten(x, noise, self.shape)
        alpha, sigma = noise.on(x)
        h2 = self.bandwidth.to(x) ** 2
        v = alpha**2 * h2 + sigma**2
        return alpha * h2 / v, sigma**2 / v, alpha, Noise(alpha.expand_as(v), v.sqrt())
