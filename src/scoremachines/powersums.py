"""Power sums: the clean moments of a few variables, and the moments at any noise level that follow from them.

`PowerSums` holds, for each of n groups of m variables, the sum over samples of u u^T with u the centred monomials
(x - c)^n of a closed set. It is a commutative monoid: the binomial theorem carries sums about one centre to another.
`whitened` turns it into the Gram matrix of Hermite features at a noise level; no noise is ever drawn.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from .monomials import Monomials, monomial


@dataclass(frozen=True, eq=False)
class PowerSums:
    """Sums of products of centred monomials, in float64, for n groups of m variables.

    count: number of samples; center: (n, m), the point c they are centred at; gram: (n, p, p), the sum over samples of
    (x - c)^a (x - c)^b for all members a, b; low, high: (n, m), the smallest and largest value seen.
    """

    monomials: Monomials
    count: int
    center: Float64[Tensor, "n m"]
    gram: Float64[Tensor, "n p p"]
    low: Float64[Tensor, "n m"]
    high: Float64[Tensor, "n m"]

    @classmethod
    def of(cls, x: Float[Tensor, "n m B"], monomials: Monomials, center: Float64[Tensor, "n m"] | None = None) -> Self:
        """Return the sums over B samples; B = 0 gives the identity. The centre is their mean unless it is given."""
        x = x.double()
        if not x.shape[2]:
            empty = x.new_full(x.shape[:2], torch.inf)
            gram = x.new_zeros(len(x), len(monomials), len(monomials))
            return cls(monomials, 0, torch.zeros_like(empty), gram, empty, -empty)
        center = x.mean(2) if center is None else center
        u = monomials.powers(x - center[..., None])
        return cls(monomials, x.shape[2], center, u @ u.mT, x.amin(2), x.amax(2))

    def merge(self, other: Self) -> Self:
        """Return the sums over both sets of samples, about this centre; raises ValueError if the variables differ."""
        if self.monomials != other.monomials or self.center.shape != other.center.shape:
            raise ValueError(
                f"power sums of {len(self.monomials)} monomials of {tuple(self.center.shape)} variables cannot be "
                f"merged with {len(other.monomials)} of {tuple(other.center.shape)}; expected the same."
            )
        if not self.count or not other.count:
            return self if self.count else other
        gram = self.gram + other.about(self.center).gram
        low, high = torch.minimum(self.low, other.low), torch.maximum(self.high, other.high)
        return type(self)(self.monomials, self.count + other.count, self.center, gram, low, high)

    def about(self, center: Float64[Tensor, "n m"]) -> Self:
        """Return the same sums about another centre, by the binomial theorem."""
        if torch.equal(center, self.center):
            return self
        T = self.monomials.shift(self.center - center)
        return type(self)(self.monomials, self.count, center, T @ self.gram @ T.mT, self.low, self.high)

    def centred(self) -> Self:
        """Return the sums about the mean."""
        return self.about(self.mean)

    @property
    def mean(self) -> Float64[Tensor, "n m"]:
        """The mean of every variable."""
        return self.center + self.gram[:, 0, self.linear] / self.count

    @property
    def var(self) -> Float64[Tensor, "n m"]:
        """The variance of every variable, divided by the count; the sums must be centred."""
        return self.gram[:, self.linear, self.linear] / self.count

    @cached_property
    def linear(self) -> list[int]:
        """Where each variable itself stands among the monomials."""
        return [self.monomials.position[monomial((v, 1))] for v in range(self.center.shape[1])]

    def cross(self, targets: int) -> Float64[Tensor, "n p t"]:
        """Return E[(x - c)^a (x_v - c_v)] for every member a and the first variables v."""
        return self.gram[:, :, self.linear[:targets]] / self.count

    def shape_moments(self, targets: int) -> tuple[Float64[Tensor, "n t"], Float64[Tensor, "n t"]]:
        """Return skewness and excess kurtosis of the first variables; 0 where the variance is 0.

        They are the Hermite moments E[He_3] and E[He_4] of the standardised variable. The sums must be centred and hold
        the squares of these variables.
        """
        squares = [self.monomials.position.get(((v, 2),)) for v in range(targets)]
        if None in squares:
            raise ValueError("the moments stop at degree 1, expected the squares too; fit with degree 2 or more.")
        var, lines = self.var[:, :targets], self.linear[:targets]
        safe = var.where(var > 0, 1)
        third, fourth = (self.gram[:, squares, columns] / self.count for columns in (lines, squares))
        return third / safe**1.5, torch.where(var > 0, fourth / safe**2 - 3, 0)

    def to(self, device: torch.device) -> Self:
        """Return the sums on another device; they stay in float64."""
        tensors = (t.to(device) for t in (self.center, self.gram, self.low, self.high))
        return type(self)(self.monomials, self.count, *tensors)

    def whitened(self, alpha: Float64[Tensor, "n m"], sigma: Float64[Tensor, "n m"]) -> "Whitened":
        """Return the moments of the Hermite features at a noise level; the sums must be centred, sigma > 0."""
        tau = (alpha**2 * self.var + sigma**2).sqrt()
        scale = self.monomials.scales(alpha / tau) / self.monomials.root_factorial.to(tau)
        return Whitened(self, alpha, tau, sigma / tau, scale)


@dataclass(frozen=True, eq=False)
class Whitened:
    """Hermite features h_a of w = (x - alpha mean) / tau, tau^2 = alpha^2 var + sigma^2, and their moments.

    alpha, tau, q = sigma / tau: (n, m); scale: (n, p), (alpha / tau)^a / sqrt(a!).
    """

    sums: PowerSums
    alpha: Float64[Tensor, "n m"]
    tau: Float64[Tensor, "n m"]
    q: Float64[Tensor, "n m"]
    scale: Float64[Tensor, "n p"]

    def gram(self) -> Float64[Tensor, "n p p"]:
        """Return E[h_a h_b], the positive sum of `scoremachines.monomials`; as large as the sums, so it is not kept."""
        return self._clean(self.sums) + self.spread_of(self.sums)

    def _clean(self, sums: PowerSums) -> Float64[Tensor, "n p p"]:
        return sums.gram / sums.count * self.scale[:, :, None] * self.scale[:, None]

    def spread_of(self, sums: PowerSums) -> Float64[Tensor, "n p p"]:
        """Return E[Cov[h_a, h_b | x0]] over data with sums about this centre: the terms k != 0."""
        clean, heat = self._clean(sums), sums.monomials.scales(self.q**2)
        gram = torch.zeros_like(clean)
        for i, (_, rows, lower, weight) in enumerate(sums.monomials.lowerings[1:], 1):
            factor = heat[:, i, None, None] * torch.outer(weight, weight).to(clean)
            gram[:, rows[:, None], rows] += factor * clean[:, lower[:, None], lower]
        return gram

    def cross(self, targets: int) -> Float64[Tensor, "n p t"]:
        """Return E[h_a (x0_v - mean_v)] for the first variables v: the right-hand sides of the regressions."""
        return self.sums.cross(targets) * self.scale[:, :, None]

    @cached_property
    def units(self) -> Float64[Tensor, "n p"]:
        """tau^a sqrt(a!), the factor from h_a to the monic Hermite polynomial in the units of the data."""
        return self.sums.monomials.scales(self.tau) * self.sums.monomials.root_factorial.to(self.tau)

    def features(self, x: Float[Tensor, "n m B"]) -> Float[Tensor, "n p B"]:
        """Return the features h_a at noisy points."""
        u = (x - (self.alpha * self.sums.center)[..., None]) / self.tau[..., None]
        return self.sums.monomials.hermite(u, self.q)
