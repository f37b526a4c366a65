"""Likelihood and laws of sampled images under component-wise noise, without sampling where that is possible.

For a Gaussian machine every step of a sampler is affine in x, x' = F x + b + Q^(1/2) z, so that the output is Gaussian
and `exact_law` gives it. For any machine D and levels gamma(1) > ... > gamma(0) the evidence lower bound is

    -log p(x0) <= KL(q(x_1 | x0) || N(0, v)) + sum_steps (1/2) sum_i (snr'_i - snr_i) (x0 - D(x))_i^2 + reconstruction,

and along the probability flow, dx_i = -(sigma_i^2 / 2) (x_i + s_i) dgamma_i, the density changes by

    d log p = (1/2) sum_i ( K_ii - alpha_i^2 ) dgamma_i,        K_ii = (alpha_i / sigma_i)^2 Var[x0_i | x].

Source: Gerdes, Welling and Cheng (2024), Kingma and others (2021), and chapter "Soft conditioning".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from .ancestral import Kernel, posterior_cov, small
from .coordinates import gaussian_law
from .gaussian import Gaussian
from .machine import Machine
from .noise import Noise
from .paths import at_gamma, gamma_of
from .sample import Step, ddim, ddpm, sample


def noised_law(gaussian: Gaussian, noise: Noise) -> Gaussian:
    """Return N(A mu, A Sigma A + S^2), the law of x at a level that may differ between components."""
    alpha, sigma = (part.flatten(1)[0] for part in _on(gaussian, noise))
    return gaussian_law(
        alpha * gaussian.mean, alpha[:, None] * gaussian.cov * alpha + sigma.diag() ** 2, gaussian.shape
    )


def exact_law(machine: Machine, levels: Sequence[Noise], step: Step = ddim, start: Gaussian | None = None) -> Gaussian:
    """Return the law of sample(machine, x, levels, step) for x ~ start, N(0, I) by default, in float64.

    machine: `Gaussian`, or another whose denoiser is affine in x, with a `shape` if there is no start. step: one that
    draws nothing, such as `ddim`, `heun` or a multistep rule; `ddpm`; or one of `scoremachines.ancestral`. Raises
    ValueError where the map is not affine.
    """
    start = _white(machine.shape) if start is None else start
    D, shape = len(start.mean), start.shape
    mean, cov = start.mean.double(), start.cov.double()
    step = small if step is ddpm else step
    if not levels or any(level.clean for level in levels[:-1]):
        raise ValueError("levels is empty or reaches sigma = 0 before its end; expected noise at all but the last.")
    if not isinstance(step, Kernel):
        F, b = _affine(sample(machine, _probes(D, shape), levels, step))
        return gaussian_law(F @ mean + b, F @ cov @ F.T, shape)
    for now, nxt in pairwise(levels):
        x = _probes(D, shape)
        moved, spread = step.law(machine, x, machine.denoise(x, now), now, nxt)
        F, b = _affine(moved)
        mean, cov = F @ mean + b, F @ cov @ F.T + spread
    return gaussian_law(mean, cov, shape)


def _probes(D: int, shape: torch.Size) -> Tensor:
    """Return 0, the unit vectors, and a point that tells whether a map is affine: odd functions show there too."""
    eye = torch.eye(D, dtype=torch.float64)
    return torch.cat([torch.zeros_like(eye[:1]), eye, torch.full_like(eye[:1], -2)]).reshape(-1, *shape)


def _affine(moved: Tensor) -> tuple[Float64[Tensor, "D D"], Float64[Tensor, " D"]]:
    """Return F and b of x -> F x + b from the images of the probes."""
    rows = moved.flatten(1)
    b, columns, check = rows[0], rows[1:-1] - rows[0], rows[-1] - rows[0]
    error = (check + 2 * columns.sum(0)).abs().max()
    if not error <= 1e-6 * (1 + columns.abs().sum(0).max()):
        raise ValueError(
            f"the step misses an affine map by {error:.2g}, and only affine ones keep a law Gaussian; use a Gaussian "
            "machine and a step of its kind."
        )
    return columns.T, b


# Bounds and densities -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bound:
    """The parts of the evidence lower bound for every image, in nats; all (B,).

    prior: KL of the noisiest level from the start of the sampler; diffusion: of the steps; reconstruction: -log of the
    decoder, which returns x0 from the last level as if every x0 were equally likely.
    """

    prior: Float[Tensor, " B"]
    diffusion: Float[Tensor, " B"]
    reconstruction: Float[Tensor, " B"]

    @property
    def nats(self) -> Float[Tensor, " B"]:
        """Return the upper bound on -log p(x0)."""
        return self.prior + self.diffusion + self.reconstruction


def elbo(
    machine: Machine,
    x0: Float[Tensor, "B *shape"],
    levels: Sequence[Noise],
    rng: torch.Generator,
    start_variance: float | Tensor = 1.0,
) -> Bound:
    """Return the parts of the evidence lower bound of `ddpm` on these levels, with one noisy x for every step.

    start_variance: v, of the start N(0, v), a number or (1, *shape). Raises ValueError where a component is without
    noise, for then the bound is infinite, and where one gains noise.
    """
    if not isinstance(rng, torch.Generator):
        raise ValueError(f"rng is a {type(rng).__name__}, expected a torch.Generator, which draws the noise.")
    v = _start_variance(start_variance, x0, levels)
    if any(level.singular for level in levels):
        raise ValueError("sigma is 0 in some component, where the bound is infinite; end at a level with noise.")
    diffusion = x0.new_zeros(len(x0))
    for now, nxt in pairwise(levels):
        if not torch.as_tensor(nxt.snr >= (1 - 1e-9) * now.snr).all():
            raise ValueError("a component gains noise on the way, where there is no bound; expected gamma to fall.")
        x = now.add(x0, torch.randn(x0.shape, generator=rng, dtype=x0.dtype, device=rng.device).to(x0.device))
        rise = torch.as_tensor(nxt.snr - now.snr).to(x0)
        diffusion = diffusion + (rise * (x0 - machine.denoise(x, now)) ** 2).flatten(1).sum(1) / 2
    alpha, sigma = levels[0].on(x0)
    prior = ((sigma**2 + alpha**2 * x0**2) / v - 1 - (sigma**2 / v).log()).flatten(1).sum(1) / 2
    spread = (gamma_of(levels[-1]).to(x0) + math.log(2 * math.pi * math.e)).expand_as(x0).flatten(1).sum(1) / 2
    return Bound(prior, diffusion, spread)


def flow_log_density(
    machine: Machine, x: Float[Tensor, "B *shape"], levels: Sequence[Noise], start_variance: float | Tensor = 1.0
) -> Float[Tensor, " B"]:
    """Return log p(x) at the last of variance-preserving levels, in nats, for the flow that starts from N(0, v).

    The flow runs from x to the first level by classical fourth-order Runge-Kutta steps, gamma on a straight line
    between levels, and takes the density along. Four posterior covariances a step and image: for small dimensions.
    """
    v = _start_variance(start_variance, x, levels)
    gammas = [gamma_of(level).to(x) for level in levels]
    if not all(gamma.isfinite().all() for gamma in gammas) or not all(map(_preserving, levels)):
        raise ValueError("the levels are not variance preserving with finite gamma; make them with paths.at_gamma.")
    gained = x.new_zeros(len(x))
    for gamma, nxt in pairwise(reversed(gammas)):
        x, change = _runge_kutta(machine, x, gamma, nxt)
        gained = gained + change
    start = -(x**2 / v + (2 * math.pi * v).log()).flatten(1).sum(1) / 2
    return start - gained


def _runge_kutta(machine: Machine, x: Tensor, gamma: Tensor, nxt: Tensor) -> tuple[Tensor, Tensor]:
    """Return x and the change of log p after one step from gamma to nxt."""

    def slope(x: Tensor, u: float) -> tuple[Tensor, Tensor]:
        return _flow_slope(machine, x, gamma + u * (nxt - gamma), nxt - gamma)

    v1, g1 = slope(x, 0.0)
    v2, g2 = slope(x + v1 / 2, 0.5)
    v3, g3 = slope(x + v2 / 2, 0.5)
    v4, g4 = slope(x + v3, 1.0)
    return x + (v1 + 2 * v2 + 2 * v3 + v4) / 6, (g1 + 2 * g2 + 2 * g3 + g4) / 6


def _flow_slope(machine: Machine, x: Tensor, gamma: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
    noise = at_gamma(gamma)
    alpha, sigma = noise.on(x)
    variance = posterior_cov(machine, x, noise).diagonal(dim1=1, dim2=2).reshape(x.shape)
    K = (alpha / sigma) ** 2 * variance
    drift = -change / 2 * (sigma**2 * x + alpha * machine.denoise(x, noise) - x)
    return drift, (change * (K - alpha**2)).expand_as(x).flatten(1).sum(1) / 2


def bits_per_dim(nats: Float[Tensor, " B"], D: int, width: float) -> Float[Tensor, " B"]:
    """Return -log p in bits for each of D values that are known to a bin of this width: nats / (D ln 2) - log2 width.

    nats: -log p of a density. Eight-bit values (v + u) / 128 - 1, u uniform in [0, 1], have bins of width 1 / 128.
    """
    if not (D >= 1 and 0 < width < math.inf):
        raise ValueError(f"D is {D} and width {width}; expected at least one value and a positive width.")
    return nats / (D * math.log(2)) - math.log2(width)


def _start_variance(v: float | Tensor, x: Tensor, levels: Sequence[Noise]) -> Tensor:
    """Return v with the axes of x; raises ValueError unless it is positive and fits, and without levels."""
    if not levels:
        raise ValueError("levels is empty, expected at least one noise level.")
    v = torch.as_tensor(v, dtype=torch.float64)
    if not (v > 0).all():
        raise ValueError(f"start_variance is {v.min():.3g}, expected positive numbers.")
    return Noise(0.0, v.sqrt()).on(x)[1] ** 2


def _white(shape: torch.Size) -> Gaussian:
    D = math.prod(shape)
    return gaussian_law(torch.zeros(D), torch.eye(D), shape)


def _on(gaussian: Gaussian, noise: Noise) -> tuple[Tensor, Tensor]:
    x = gaussian.mean.double().reshape(1, *gaussian.shape)
    return tuple(part.expand_as(x) for part in noise.on(x))


def _preserving(noise: Noise) -> bool:
    alpha, sigma = (torch.as_tensor(part) for part in (noise.alpha, noise.sigma))
    return bool(((alpha**2 + sigma**2 - 1).abs() < 1e-6).all())
