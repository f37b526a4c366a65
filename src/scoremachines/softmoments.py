"""Soft moments: the statistic of the EM algorithm for a mixture of Gaussians.

With responsibilities w_ik = p(component k | y_i) of a mixture p, one pass over the data leaves, for each component,

    mass_k = sum_i w_ik,   mean_k = sum_i w_ik y_i / mass_k,   scatter_k = sum_i w_ik (y_i - mean_k)(y_i - mean_k)^T,

and the log-likelihood sum_i log p(y_i) of the mixture that weighed the samples. The next mixture maximises the expected
log-likelihood of samples and components together: weight_k = mass_k / N, mean_k, and of all covariances
U diag(lam) U^T + rest (I - U U^T) of one rank with lam >= rest >= floor, the one with the r leading eigenpairs of
scatter_k / mass_k and the mean of its other eigenvalues, both raised to the floor where they lie below it. So the
log-likelihood can only rise from pass to pass.
Sources: Dempster, Laird and Rubin (1977); Tipping and Bishop (1999), mixtures of probabilistic principal components.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from .gaussian import Gaussian
from .stats import Moments


@dataclass(frozen=True, eq=False)
class SoftMoments:
    """The moments of weighted samples for each of K components, in float64: a commutative monoid.

    mass: (K,); mean: (K, D); scatter: (K, D, D); log_likelihood: 0-d; shape: the shape of one sample.
    """

    mass: Float64[Tensor, " K"]
    mean: Float64[Tensor, "K D"]
    scatter: Float64[Tensor, "K D D"]
    log_likelihood: Float64[Tensor, ""]
    shape: torch.Size

    @classmethod
    def of(cls, batch: Float[Tensor, "n *shape"], log_joint: Float64[Tensor, "n K"]) -> Self:
        """Return the statistic of n samples with log p(y_i, component k); n = 0 gives the identity."""
        y, weights = batch.flatten(1).double(), log_joint.softmax(1).T
        mass = weights.sum(1)
        mean = (weights @ y) / mass.where(mass > 0, 1)[:, None]
        scatter = torch.stack([_scatter(y - m, w) for m, w in zip(mean, weights, strict=True)])
        return cls(mass, mean, scatter, log_joint.logsumexp(1).sum(), batch.shape[1:])

    def merge(self, other: Self) -> Self:
        """Return the statistic of both sets of samples together, component by component as `Moments.merge` does."""
        mass = self.mass + other.mass
        share = (other.mass / mass.where(mass > 0, 1))[:, None]
        shift = other.mean - self.mean
        between = shift[:, :, None] * (shift * self.mass[:, None] * share)[:, None]
        scatter = self.scatter + other.scatter + between
        log_likelihood = self.log_likelihood + other.log_likelihood
        return type(self)(mass, self.mean + shift * share, scatter, log_likelihood, self.shape)

    @property
    def weights(self) -> Float64[Tensor, " K"]:
        """The share of the mass that each component has."""
        return self.mass / self.mass.sum()

    def gaussians(self, rank: int | None, floor: float) -> tuple[Gaussian, ...]:
        """Return the Gaussians of greatest expected log-likelihood, of this rank and with no variance below floor.

        Raises ValueError when a component is left without mass.
        """
        if (self.mass == 0).any():
            empty = int((self.mass == 0).nonzero()[0])
            raise ValueError(f"component {empty} is empty, no sample is left to it; use fewer components.")
        cov = self.scatter / self.mass[:, None, None]
        moments = (Moments(1, self.shape, m, c) for m, c in zip(self.mean, cov, strict=True))
        return tuple(raised(Gaussian.fit(one, rank), floor) for one in moments)


def raised(gaussian: Gaussian, floor: float) -> Gaussian:
    """Return the Gaussian with every variance below `floor` raised to it."""
    return replace(gaussian, lam=gaussian.lam.clamp(min=floor), rest=gaussian.rest.clamp(min=floor))


def _scatter(u: Tensor, weights: Tensor) -> Tensor:
    root = u * weights.sqrt()[:, None]  # one factor and its transpose: the product is symmetric to the last bit
    return root.T @ root
