"""The wavelet score machine: each coefficient regressed on polynomials of a few coefficients, from exact moments.

In an orthonormal basis the noisy coefficients are z = alpha z0 + sigma eps. For a coefficient i and the features phi of
its stencil, the machine is the regression

    D_i(z) = mean_i + c^T S^-1 phi(z),      S = E[phi phi^T],      c = E[phi (z0_i - mean_i)].

When phi holds z_i, its score (alpha D - z) / sigma^2 is the least-squares fit S^-1 b, b = -E[d phi / d z_i], by Stein's
identity. S and c follow at every noise level from clean moments (`scoremachines.powersums`): one pass over the data,
and no noise is drawn. Source: Finn, Wang, Keller and Ba (2026), equations 5 to 22; chapter "The wavelet score machine".
"""

import dataclasses
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from numbers import Real
from typing import Self

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from .bases import Basis, Wavelet
from .design import Design, PolynomialMoments, one_pass
from .machine import Machine, flatten
from .noise import Noise
from .powersums import PowerSums
from .regression import Solution, condition, errors, solve
from .stencils import Group, Stencil

DB2 = Wavelet("db2")
LEVELS = 64  # solved noise levels that a machine remembers


@dataclass(frozen=True, eq=False)
class Ledger:
    """Where the denoising error lies, summed over the coefficients of each band, in the units of the data squared.

    bands, groups: names; size: (bands,) coefficients in each; variance: (bands,) E|z0 - mean|^2; error: (bands,)
    E|z0 - D|^2; gain: (bands, groups), what each feature group takes off when added after the groups before it.
    On the moments that the machine was fitted with, error = variance - sum of gains.
    """

    bands: tuple[str, ...]
    groups: tuple[str, ...]
    size: Tensor
    variance: Tensor
    error: Tensor
    gain: Tensor


@dataclass(frozen=True, eq=False)
class Polynomial(Machine):
    """The machine in coefficient space: x and D are packed coefficients (B, C, H, W), and noise may be component-wise.

    moments: what one pass over the data left, centred; guard: None for the exact regression, else the relative ridge on
    everything beyond the linear features, with D clipped to the range of the data.
    """

    moments: PolynomialMoments
    guard: float | None = None

    @classmethod
    def fit(cls, data: PolynomialMoments) -> Self:
        """Build the machine from the moments of its data."""
        _check_moments(data)
        return cls(data.centred())

    def guarded(self, ridge: float = 1e-6) -> Self:
        """Return the machine for sampling: nonlinear weights shrunk by a relative ridge, D clipped to the data's range.

        Clipping never adds to the error of a coefficient that lies in that range. The ridge falls back on the linear
        machine, which is stable at every level; the identity would need a division by alpha.
        """
        if not isinstance(ridge, Real) or not 0 <= ridge < math.inf:
            raise ValueError(f"ridge is {ridge!r}, expected a number that is not negative and finite.")
        return dataclasses.replace(self, guard=float(ridge))

    def to(self, *target) -> Self:
        """Return the machine on another device; its moments stay in float64, and D follows the dtype of x."""
        device = torch.zeros(()).to(*target).device
        sums = tuple(part.to(device) for part in self.moments.sums)
        return dataclasses.replace(self, moments=dataclasses.replace(self.moments, sums=sums))

    def denoise(self, x: Float[Tensor, "B C H W"], noise: Noise) -> Float[Tensor, "B C H W"]:
        """Return mean + c^T S^-1 phi(x) for every coefficient; raises ValueError where sigma is 0."""
        _, alpha, sigma = flatten(x, noise, self.moments.design.shape)
        _check_sigma(noise)
        if not len(x):
            return x
        levels, which = torch.unique(torch.cat([alpha, sigma], 1).double(), dim=0, return_inverse=True)
        if len(levels) == 1:
            return self._denoise(x, self._solve(*levels[0].chunk(2)))
        order, counts = which.argsort(), which.bincount().tolist()
        parts = zip(x[order].split(counts), levels, strict=True)
        return torch.cat([self._denoise(part, self._solve(*level.chunk(2))) for part, level in parts])[order.argsort()]

    def outside(self, x: Float[Tensor, "B C H W"], noise: Noise) -> Float[Tensor, " B"]:
        """Return the share of coefficients whose exact regression leaves the range of the data, for each image.

        A posterior mean cannot do that: where the share is large, the polynomial extrapolates and is not to be trusted.
        """
        low, high = self._range
        D = self._exact.denoise(x, noise)
        inside = (D >= low.to(D)) & (D <= high.to(D))
        return (~inside).flatten(1).double().mean(1)  # NaN, where the polynomial overflows, is outside too

    def ledger(self, noise: Noise, held_out: PolynomialMoments | None = None) -> Ledger:
        """Return variance, error and gains of the exact regression, without guard, at one noise level.

        They are exact expectations over images and noise; no noise is drawn. With the moments of held-out images,
        variance and error are those of these images about the fitted mean; the gains stay those of the fit.
        """
        design, solved = self.moments.design, self._exact._solve(*_level(noise))
        held_out = self.moments if held_out is None else held_out
        _check_moments(held_out)
        seen = held_out.about(self.moments)
        groups = tuple(dict.fromkeys(g for solution in solved for g in solution.gains))
        parts = [errors(*pair) for pair in zip(solved, seen.sums, strict=True)]
        variance, error = map(design.scatter, zip(*parts, strict=True))
        blank = [torch.zeros_like(part[0]) for part in parts]
        gains = [design.scatter([s.gains.get(g, zero) for s, zero in zip(solved, blank, strict=True)]) for g in groups]
        by_band = [torch.stack([t[index].sum() for index in design.bands.values()]) for t in (variance, error, *gains)]
        size = torch.tensor([len(index) for index in design.bands.values()])
        return Ledger(tuple(design.bands), groups, size, *by_band[:2], torch.stack(by_band[2:], 1))

    def denoising_error(self, noise: Noise, held_out: PolynomialMoments | None = None) -> Float64[Tensor, ""]:
        """Return E |D(x) - x0|^2 exactly, summed over coefficients, for the data of the fit or for held-out moments."""
        return self.ledger(noise, held_out).error.sum()

    def hermite_moments(self, noise: Noise) -> tuple[Float64[Tensor, "C H W"], Float64[Tensor, "C H W"]]:
        """Return rho^3 skewness and rho^4 excess kurtosis of every coefficient, rho^2 = alpha^2 var / tau^2.

        They are the Hermite moments of the noisy coefficient: noise attenuates the n-th one by rho^n. Raises ValueError
        for degree 1, which does not know them.
        """
        (alpha, sigma), design = _level(noise), self.moments.design
        third, fourth = [], []
        for part, stencil in zip(self.moments.sums, design.stencils, strict=True):
            var = part.var[:, : stencil.targets]
            rho = alpha * (var / (alpha**2 * var + sigma**2)).sqrt()
            skewness, kurtosis = part.shape_moments(stencil.targets)
            third.append(rho**3 * skewness)
            fourth.append(rho**4 * kurtosis)
        return tuple(design.scatter(parts).reshape(design.shape) for parts in (third, fourth))

    def condition_numbers(self, noise: Noise) -> dict[str, float]:
        """Return the largest condition number of a feature Gram matrix with unit diagonal, band by band."""
        solved = zip(self._exact._solve(*_level(noise)), self.moments.design.stencils, strict=True)
        flat = self.moments.design.scatter([condition(*pair) for pair in solved])
        return {name: flat[index].max().item() for name, index in self.moments.design.bands.items()}

    def _denoise(self, x: Tensor, solved: tuple[Solution, ...]) -> Tensor:
        """Compute where the moments are and in their precision, and answer where x is and in its own."""
        design, moments = self.moments.design, self.moments.sums[0].center
        parts = [self._columns(design.columns(part.to(moments)), solved) for part in x.split(design.images_at_once())]
        D = torch.cat(parts, 1).T.reshape(x.shape)
        return (D if self.guard is None else D.clamp(*self._range)).to(x)

    def _columns(self, columns: Tensor, solved: tuple[Solution, ...]) -> Tensor:
        """Return D for extended columns (D + ..., B), as columns (D, B)."""
        found = []
        for stencil, solution, part in zip(self.moments.design.stencils, solved, self.moments.sums, strict=True):
            center = part.center[:, : stencil.targets, None]
            D = center + solution.weights.mT @ solution.white.features(columns[stencil.index])
            found.append(D.flatten(0, 1))
        return torch.cat(found)[self._order]

    def __getstate__(self) -> dict:
        """A copy in another process starts without what is remembered here."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @cached_property
    @torch.inference_mode(False)  # or autograd could not use what inference has left in the cache
    def _order(self) -> Tensor:
        """Where each packed coefficient stands in the targets of all stencils, one after the other."""
        targets = [stencil.index[:, : stencil.targets].flatten() for stencil in self.moments.design.stencils]
        return torch.cat(targets).argsort().to(self.moments.sums[0].center.device)

    @cached_property
    @torch.inference_mode(False)
    def _range(self) -> tuple[Tensor, Tensor]:
        """The smallest and largest value of every coefficient over the data, (C, H, W) each."""
        design, sums = self.moments.design, self.moments.sums
        ends = [
            (part.low[:, : s.targets], part.high[:, : s.targets]) for part, s in zip(sums, design.stencils, strict=True)
        ]
        return tuple(design.scatter(end).reshape(design.shape) for end in zip(*ends, strict=True))

    @cached_property
    def _exact(self) -> Self:
        return self if self.guard is None else dataclasses.replace(self, guard=None)

    def _solve(self, alpha: Tensor, sigma: Tensor) -> tuple[Solution, ...]:
        """Solve every stencil at one level: remembered for one number each, not for levels by component."""
        if alpha.numel() == 1:
            return self._remembered(alpha.item(), sigma.item())
        return self._solve_all(alpha, sigma)

    @cached_property
    def _remembered(self) -> Callable[[float, float], tuple[Solution, ...]]:
        return lru_cache(LEVELS)(lambda *level: self._solve_all(*torch.tensor(level, dtype=torch.float64)))

    @torch.inference_mode(False)
    def _solve_all(self, alpha: Tensor, sigma: Tensor) -> tuple[Solution, ...]:
        design = self.moments.design
        found = []
        for stencil, part in zip(design.stencils, self.moments.sums, strict=True):
            levels = (_variables(level, stencil, part, design) for level in (alpha, sigma))
            found.append(solve(part, stencil, *levels, self.guard))
        return tuple(found)


@dataclass(frozen=True, eq=False)
class WaveletPolynomial(Machine):
    """The machine in pixel space: analysis, regression of each coefficient, synthesis; one noise level per image."""

    coefficient_machine: Polynomial

    @classmethod
    def fit(
        cls,
        data: Tensor | Iterable[Tensor] | PolynomialMoments,
        basis: Basis = DB2,
        family: str | tuple[Group, ...] = "independent",
        degree: int = 3,
        radius: int = 1,
        tied: bool = False,
        conservative: bool = False,
    ) -> Self:
        """Fit to images (N, C, H, W), to batches of them, or to their `PolynomialMoments`, in one pass.

        basis: any orthonormal `Basis`; family: a name in `scoremachines.stencils.FAMILIES`, or pairs (relation, form);
        degree: of the polynomials; radius: of neighbourhoods; tied: one regression per band instead of one per
        coefficient; conservative, for tied weights: the score is the gradient of a polynomial log density. Moments
        carry their own settings, and those given here are then not used.
        Raises ValueError, in one sentence, for settings that the basis or the amount of data cannot serve.
        """
        if not isinstance(data, PolynomialMoments):
            data = one_pass(data, lambda shape: Design.of(basis, shape, family, degree, radius, tied, conservative))
        return cls(Polynomial.fit(data))

    @property
    def basis(self) -> Basis:
        """The basis whose coefficients are regressed."""
        return self.coefficient_machine.moments.design.basis

    def moments_of(self, data: Tensor | Iterable[Tensor]) -> PolynomialMoments:
        """Return the moments of other images, for example held-out ones, for `ledger` and `denoising_error`."""
        return one_pass(data, lambda _: self.coefficient_machine.moments.design)

    def guarded(self, ridge: float = 1e-6) -> Self:
        """Return the machine for sampling; see `Polynomial.guarded`."""
        return type(self)(self.coefficient_machine.guarded(ridge))

    def to(self, *target) -> Self:
        """Return the machine on another device; see `Polynomial.to`."""
        return type(self)(self.coefficient_machine.to(*target))

    def denoise(self, x: Float[Tensor, "B C H W"], noise: Noise) -> Float[Tensor, "B C H W"]:
        """Return W^T D(W x); raises ValueError where sigma is 0 or differs between the pixels of an image."""
        _, alpha, _ = flatten(x, noise, self.coefficient_machine.moments.design.shape)
        if alpha.shape[1] > 1:
            raise ValueError(
                "the noise differs between the pixels of an image, expected one level per image; noise by component is "
                "served in the basis, by coefficient_machine."
            )
        return self.basis.synthesis(self.coefficient_machine.denoise(self.basis.analysis(x.double()), noise)).to(x)

    def ledger(self, noise: Noise, held_out: PolynomialMoments | None = None) -> Ledger:
        """Return where the denoising error lies; see `Polynomial.ledger`."""
        return self.coefficient_machine.ledger(noise, held_out)

    def denoising_error(self, noise: Noise, held_out: PolynomialMoments | None = None) -> Float64[Tensor, ""]:
        """Return E |D(x) - x0|^2, exact and summed over pixels; see `Polynomial.denoising_error`."""
        return self.coefficient_machine.denoising_error(noise, held_out)


# Levels and positions ------------------------------------------------------------------------------------------------


def _variables(level: Tensor, stencil: Stencil, sums: PowerSums, design: Design) -> Tensor:
    """Return alpha or sigma for every variable of a stencil, (n, m), from one number or one value per coefficient."""
    level = level.to(sums.center)
    if level.numel() == 1:
        return level.expand_as(sums.center)
    if design.extended:
        raise ValueError("a low-pass image mixes coefficients of different noise, expected one level per image here.")
    values = level[stencil.index]
    if not design.tied:
        return values
    if (values != values[:1]).any():
        raise ValueError("the noise differs within a band whose weights are tied, expected one level per band.")
    return values[:1]


def _level(noise: Noise) -> tuple[Tensor, Tensor]:
    _check_sigma(noise)
    alpha, sigma = (torch.as_tensor(level, dtype=torch.float64) for level in (noise.alpha, noise.sigma))
    if alpha.numel() != 1 or sigma.numel() != 1:
        raise ValueError(f"the noise has shape {tuple((alpha + sigma).shape)}, expected one level for everything.")
    return alpha.flatten(), sigma.flatten()


def _check_moments(data: PolynomialMoments) -> None:
    if not isinstance(data, PolynomialMoments):
        raise ValueError(f"the moments are a {type(data).__name__}, expected PolynomialMoments; see moments_of.")


def _check_sigma(noise: Noise) -> None:
    if not isinstance(noise, Noise):
        raise ValueError(f"noise is a {type(noise).__name__}, expected a Noise(alpha, sigma), for example edm(sigma).")
    if noise.singular:
        raise ValueError("sigma is 0 in some component, where the regression is not determined; use sigma > 0.")
