"""Stochastic steps under component-wise noise: Gaussian kernels for the reverse process.

From a level (alpha, sigma) to one with less noise (alpha', sigma'), with rho = alpha sigma' / (alpha' sigma) and

    c = 1 - rho^2 = 1 - e^(gamma' - gamma),

the true reverse kernel has the mean alpha' D + sigma' rho eps and the covariance

    c sigma'^2  +  (c alpha') Cov[x0 | x] (c alpha'),

each letter a diagonal matrix. The first part is the noise of a step to a known x0, the second what is not known of x0.
It need not be Gaussian. The steps of this module draw from Gaussians with that mean and

    small            c sigma'^2                                  the least; `ddpm`
    large            c sigma^2 (alpha'^2 + sigma'^2) / (alpha^2 + sigma^2)     exact for components of unit variance
    diagonal         the diagonal of the true covariance          exact for independent Gaussian components
    full             the true covariance                          exact for Gaussian data, at any number of steps

`euler_maruyama` is the Euler step of the reverse stochastic equation, with beta dt = sigma^2 (gamma - gamma') taken
from the levels, so that a component that rests gets no noise. Components whose level does not change pass unchanged.
Source: Gerdes, Welling and Cheng (2024) for the equation; Ho, Jain and Abbeel (2020) for small and large.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from .gaussian import Gaussian
from .machine import Machine, flatten
from .mixture import Mixture
from .noise import Noise


def posterior_cov(machine: Machine, x: Float[Tensor, "B *shape"], noise: Noise) -> Float[Tensor, "B D D"]:
    """Return Cov[x0 | x] for every image.

    Those of Gaussians and mixtures are sums of squares, so that even the variances left at gamma = -60 keep their
    digits; those of other machines, and of Gaussians where sigma is 0 in some component, are D products each.
    """
    if isinstance(machine, Mixture):
        return _mixture_cov(machine, x, noise)
    if isinstance(machine, Gaussian):
        some = x[:1] if _shared(x, noise) else x
        cov = _products(machine, some, noise) if noise.singular else _gaussian_cov(machine, some, noise)
        return cov.expand(len(x), -1, -1)
    return _products(machine, x, noise)


def covariance_root(gaussian: Gaussian) -> Float64[Tensor, "D D"]:
    """Return L = Sigma^(1/2), symmetric, so that Sigma = L L."""
    U, lam, rest = gaussian.U.double(), gaussian.lam.double(), gaussian.rest.double()
    return (U * (lam.sqrt() - rest.sqrt())) @ U.T + rest.sqrt() * torch.eye(len(U)).to(U)


def _gaussian_cov(machine: Gaussian, x: Tensor, noise: Noise) -> Tensor:
    """Return W W^T, W = L R^-1, with Sigma = L L^T and [A L / S; I] = Q R: nothing is subtracted."""
    _, alpha, sigma = flatten(x, noise, machine.shape)
    root = covariance_root(machine)
    eye = torch.eye(len(root)).to(root)
    scaled = (alpha.double() / sigma.double())[:, :, None] * root
    R = torch.linalg.qr(torch.cat([scaled, eye.expand_as(scaled)], 1)).R
    W = torch.linalg.solve_triangular(R, root.expand_as(R), upper=True, left=False)
    return (W @ W.mT).to(x)


def _mixture_cov(machine: Mixture, x: Tensor, noise: Noise) -> Tensor:
    """Return sum_k w_k (C_k + (D_k - D) (D_k - D)^T)."""
    weights, mean = machine.log_responsibilities(x, noise).exp(), machine.denoise(x, noise)
    total = 0
    for one, weight in zip(machine.components, weights.unbind(1), strict=True):
        gap = (one.denoise(x, noise) - mean).flatten(1)
        total = total + weight[:, None, None] * (posterior_cov(one, x, noise) + gap[:, :, None] * gap[:, None, :])
    return total


def _products(machine: Machine, x: Tensor, noise: Noise) -> Tensor:
    B, D = len(x), x.shape[1:].numel()
    eye = torch.eye(D).to(x).repeat(B, 1).reshape(-1, *x.shape[1:])
    alpha, sigma = (part.repeat_interleave(D, 0) if len(part) > 1 else part for part in noise.on(x))
    return machine.posterior_cov_product(x.repeat_interleave(D, 0), Noise(alpha, sigma), eye).reshape(B, D, D)


def _shared(x: Tensor, *levels: Noise) -> bool:
    """Whether all images have one level."""
    return all(len(part) == 1 for level in levels for part in level.on(x))


@dataclass(frozen=True)
class Kernel:
    """A step that draws x' ~ N(mean, cov), for `sample`; it needs a generator.

    mean(x, x0, now, nxt) -> (B, *shape), affine in x and x0; spread(machine, x, now, nxt) -> variances (B or 1, *shape)
    or, if dense, covariances (B or 1, D, D).
    """

    mean: Callable[..., Tensor]
    spread: Callable[..., Tensor]
    dense: bool = False

    def __call__(self, machine, x, x0, now, nxt, past=(), rng: torch.Generator | None = None) -> Tensor:
        """Draw the next x; raises ValueError without a generator."""
        if rng is None:
            raise ValueError("the step draws noise and was given no generator; pass rng=torch.Generator().")
        z = torch.randn(x.shape, generator=rng, dtype=x.dtype, device=rng.device).to(x.device)
        spread = self.spread(machine, x, now, nxt)
        draw = self.mean(x, x0, now, nxt) + (_times_root(spread, z) if self.dense else spread.sqrt() * z)
        return torch.where(_rests(x, now, nxt), x, draw)

    def law(self, machine, x, x0, now, nxt) -> tuple[Tensor, Tensor]:
        """Return the means (B, *shape) and the covariance (D, D) at the first x, where a machine's depends on x."""
        spread = self.spread(machine, x[:1], now, nxt)
        cov = spread[0] if self.dense else spread.expand_as(x[:1]).flatten().diag()
        return torch.where(_rests(x, now, nxt), x, self.mean(x, x0, now, nxt)), cov


def bridge(x: Tensor, x0: Tensor, now: Noise, nxt: Noise) -> Tensor:
    """Return alpha' x0 + sigma' rho (x - alpha x0) / sigma, the mean of x' given x and x0."""
    alpha, sigma, alpha_next, sigma_next, rho = _levels(x, now, nxt)
    eps = torch.where(sigma > 0, (x - alpha * x0) / sigma.where(sigma > 0, 1), 0)
    return alpha_next * x0 + sigma_next * rho * eps


def reverse_drift(x: Tensor, x0: Tensor, now: Noise, nxt: Noise) -> Tensor:
    """Return x + beta dt (x / 2 + score), beta dt = sigma^2 (gamma - gamma')."""
    alpha, sigma, *_ = _levels(x, now, nxt)
    sigma = sigma.where(sigma > 0, 1)
    beta = _beta(x, now, nxt)
    return x + beta * x / 2 + beta / sigma * (alpha * x0 - x) / sigma


def _small(machine, x, now, nxt) -> Tensor:
    *_, sigma_next, rho = _levels(x, now, nxt)
    return sigma_next**2 * (1 - rho**2)


def _large(machine, x, now, nxt) -> Tensor:
    alpha, sigma, alpha_next, sigma_next, rho = _levels(x, now, nxt)
    return sigma**2 * (1 - rho**2) * (alpha_next**2 + sigma_next**2) / (alpha**2 + sigma**2)


def _full(machine, x, now, nxt) -> Tensor:
    if isinstance(machine, Gaussian) and _shared(x, now, nxt):
        x = x[:1]  # one covariance, and one root, for all images
    *_, alpha_next, sigma_next, rho = _levels(x, now, nxt)
    gain = (alpha_next * (1 - rho**2)).expand_as(x).flatten(1)
    known = (sigma_next**2 * (1 - rho**2)).expand_as(x).flatten(1)
    return torch.diag_embed(known) + gain[:, :, None] * posterior_cov(machine, x, now) * gain[:, None, :]


def _diagonal(machine, x, now, nxt) -> Tensor:
    variance = _full(machine, x, now, nxt).diagonal(dim1=1, dim2=2).reshape(-1, *x.shape[1:])
    return variance.clamp(min=0)  # a machine that is no posterior mean, or rounding, may leave less


small = Kernel(bridge, _small)
large = Kernel(bridge, _large)
diagonal = Kernel(bridge, _diagonal)
full = Kernel(bridge, _full, dense=True)
euler_maruyama = Kernel(reverse_drift, lambda machine, x, now, nxt: _beta(x, now, nxt))


def _levels(x: Tensor, now: Noise, nxt: Noise) -> tuple[Tensor, ...]:
    """Return alpha, sigma, alpha', sigma' and rho; rho is 1 where the bridge has no freedom left."""
    (alpha, sigma), (alpha_next, sigma_next) = now.on(x), nxt.on(x)
    bottom = alpha_next * sigma
    rho = torch.where(bottom > 0, alpha * sigma_next / bottom.where(bottom > 0, 1), 1).clamp(max=1)
    return alpha, sigma, alpha_next, sigma_next, rho


def _beta(x: Tensor, now: Noise, nxt: Noise) -> Tensor:
    """Return sigma^2 (gamma - gamma'), and 0 where a component rests; raises ValueError where it is no variance."""
    alpha, sigma, alpha_next, sigma_next, _ = _levels(x, now, nxt)
    rests = _rests(x, now, nxt)
    preserving = ((alpha**2 + sigma**2 - 1).abs() < 1e-4) & ((alpha_next**2 + sigma_next**2 - 1).abs() < 1e-4)
    fall = torch.where(rests, 0, 2 * ((sigma / alpha).log() - (sigma_next / alpha_next).log()))
    if not (preserving & fall.isfinite() & (fall > -1e-6)).all():
        raise ValueError(
            "a component gains noise, goes to or from a level without signal or without noise, or one that is not "
            "variance preserving; for euler_maruyama alpha^2 + sigma^2 = 1 and gamma is finite and falls."
        )
    return sigma**2 * fall.clamp(min=0)  # a difference of logarithms, whose last digits are not exact


def _rests(x: Tensor, now: Noise, nxt: Noise) -> Tensor:
    """Where a component's level does not change."""
    alpha, sigma, alpha_next, sigma_next, _ = _levels(x, now, nxt)
    return (alpha == alpha_next) & (sigma == sigma_next)


def _times_root(cov: Float[Tensor, "B D D"], z: Tensor) -> Tensor:
    """Return L z with L L^T = cov: the Cholesky factor where there is one, else the symmetric root."""
    scale = cov.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
    safe = scale.where(scale > 0, 1)
    unit = cov / safe[:, :, None] / safe[:, None, :] + torch.diag_embed((scale == 0).to(cov))
    root, failed = torch.linalg.cholesky_ex(unit)
    if failed.any():
        values, vectors = torch.linalg.eigh(unit)
        root = vectors * values.clamp(min=0).sqrt()[:, None, :]
    return (scale * (root @ z.flatten(1)[:, :, None])[:, :, 0]).reshape(z.shape)
