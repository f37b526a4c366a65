"""The coordinates of a unified diffusion model: a basis, a mean, and the prior's scale for each component.

    chi = S^-1 W (x - m),        x = m + W^T S chi.

Noise is added to chi component by component, so white noise in chi is the prior N(m, W^T S^2 W) in x. Matched to the
data, S whitens the components. Volumes change by |det S|: log p(x) = log p(chi) - sum_i log S_i.
Source: Gerdes, Welling and Cheng (2024), and chapter "Component-wise noise and priors".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from .bases import TOLERANCE, Basis
from .gaussian import Gaussian
from .mixture import Mixture
from .stats import Moments


@dataclass(frozen=True, eq=False)
class Matrix(Basis):
    """A basis of your own, z = W x, with one basis vector in each row of W.

    The coefficients are written in reading order into the shape of a sample. W: (D, D); shape: of one sample. Raises
    ValueError unless W W^T = I to 1e-8.
    """

    W: Float64[Tensor, "D D"]
    shape: torch.Size

    def __post_init__(self) -> None:
        D = math.prod(self.shape)
        if self.W.shape != (D, D):
            raise ValueError(f"W has shape {tuple(self.W.shape)}, expected {(D, D)} for {tuple(self.shape)} samples.")
        defect = (self.W @ self.W.T - torch.eye(D).to(self.W)).abs().max().item()
        if not defect <= TOLERANCE:
            raise ValueError(f"W W^T differs from I by {defect:.2g}, expected an orthonormal matrix; see linalg.qr.")

    def analysis(self, x: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Return W x; raises ValueError for samples of another shape."""
        return self._times(x, self.W.T)

    def synthesis(self, z: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Return W^T z; raises ValueError for coefficients of another shape."""
        return self._times(z, self.W)

    def _times(self, x: Tensor, matrix: Tensor) -> Tensor:
        axes = len(self.shape)
        if not x.is_floating_point() or x.shape[-axes:] != tuple(self.shape):
            raise ValueError(
                f"the samples have shape {tuple(x.shape)} and dtype {x.dtype}, expected {tuple(self.shape)} after the "
                "batch, and a floating type."
            )
        return (x.flatten(-axes) @ matrix.to(x)).unflatten(-1, self.shape)


@dataclass(frozen=True, eq=False)
class Prior:
    """The scale S of every component, (*shape): the deviation of the noise that the data are driven to.

    Raises ValueError unless every scale is positive and finite.
    """

    scale: Float64[Tensor, "*shape"]

    def __post_init__(self) -> None:
        bad = self.scale[~((self.scale > 0) & self.scale.isfinite())]
        if len(bad):
            raise ValueError(f"a scale is {bad[0]:.3g}, expected finite ones above 0; repair it, or give a floor.")

    @classmethod
    def matched(cls, variance: Float[Tensor, "*shape"], floor: float = 0.0) -> Self:
        """Return S = sqrt(max(variance, floor)), which whitens components with these variances."""
        return cls(variance.double().clamp(min=floor).sqrt())

    @classmethod
    def isotropic(cls, shape: Sequence[int]) -> Self:
        """Return S = 1 for samples of this shape, the prior of ordinary diffusion."""
        return cls(torch.ones(*shape, dtype=torch.float64))


@dataclass(frozen=True, eq=False)
class Coordinates:
    """chi = S^-1 W (x - mean).

    basis: W; mean: (*shape), of the data, since what is left of it would count as signal; prior: S. The prior and the
    mean have the shape of one sample.
    """

    basis: Basis
    mean: Float[Tensor, "*shape"]
    prior: Prior

    def __post_init__(self) -> None:
        if self.mean.shape != self.prior.scale.shape:
            raise ValueError(
                f"the mean has shape {tuple(self.mean.shape)} and the prior {tuple(self.prior.scale.shape)}; expected "
                "the shape of one sample for both."
            )

    def analysis(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """Return chi = S^-1 W (x - mean); raises ValueError for samples of another shape."""
        self._check(x)
        return self.basis.analysis(x - self.mean.to(x)) / self.prior.scale.to(x)

    def synthesis(self, chi: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """Return x = mean + W^T S chi; raises ValueError for components of another shape."""
        self._check(chi)
        return self.mean.to(chi) + self.basis.synthesis(chi * self.prior.scale.to(chi))

    @property
    def log_volume(self) -> float:
        """Return sum_i log S_i in nats: log p(x) = log p(chi) - log_volume."""
        return self.prior.scale.log().sum().item()

    def law(self, machine: Gaussian | Mixture) -> Gaussian | Mixture:
        """Return the law of chi where x has the law of this Gaussian or mixture."""
        if isinstance(machine, Mixture):
            return replace(machine, components=tuple(map(self.law, machine.components)))
        if not isinstance(machine, Gaussian) or machine.shape != self.mean.shape:
            kind = f"{type(machine).__name__} on {tuple(getattr(machine, 'shape', ()))}"
            raise ValueError(f"the law is {kind}, expected a Gaussian or Mixture on {tuple(self.mean.shape)} samples.")
        half = self._linear(self._linear(machine.cov).T)
        mean = self.analysis(machine.mean.reshape(1, *self.mean.shape)).flatten()
        return gaussian_law(mean, half, machine.shape)

    def _check(self, x: Tensor) -> None:
        if x.shape[1:] != self.mean.shape:
            raise ValueError(f"x has shape {tuple(x.shape)}, expected {tuple(self.mean.shape)} after the batch.")

    def _linear(self, rows: Float64[Tensor, "n D"]) -> Float64[Tensor, "n D"]:
        found = self.basis.analysis(rows.reshape(-1, *self.mean.shape)) / self.prior.scale.to(rows)
        return found.flatten(1)


def gaussian_law(mean: Float[Tensor, " D"], cov: Float[Tensor, "D D"], shape: Sequence[int]) -> Gaussian:
    """Return N(mean, cov) over samples of this shape; the covariance is made symmetric first."""
    return Gaussian.fit(Moments(1, torch.Size(shape), mean.double(), ((cov + cov.T) / 2).double()))
