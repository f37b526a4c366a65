"""Analytical teleportation: one exact map takes the place of the first steps of a sampler.

At high noise every machine agrees with the Gaussian, whose probability flow is known in closed form. So carry x along
that flow from the sampler's first level to the level `sigma_skip`, at no evaluation, and let the sampler go on there.
It starts on the same grid's later part: on the grid of `edm_levels`, whose sigma^(1/rho) are equally spaced,

    edm_levels(n)[k:] = edm_levels(n - k, sigma_max=sigma_k),

so skipping k points is the same as starting a shorter grid at sigma_k.

For x ~ N(0, s^2 I) at the start, the state at the end is Gaussian again. From pure noise, alpha = 0 and s = sigma, its
law is exactly that of noisy Gaussian data, N(alpha' mu, alpha'^2 Sigma + sigma'^2 I). A start therefore is a
Gaussian, and a simpler start a Gaussian that knows less: see `baselines`.
Source: Wang and Vastola (2024); Karras et al. (2022), equation 5, for the grid.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from .gaussian import Gaussian
from .machine import Machine, flatten
from .noise import Noise
from .stats import Moments

PURE = Noise(0.0, 1.0)


def teleport(machine: Machine, x: Float[Tensor, "B *shape"], start: Noise, end: Noise) -> Float[Tensor, "B *shape"]:
    """Return x carried from level `start` to level `end` by the machine's own probability flow, without a step.

    alpha' mu + sqrt((alpha'^2 Sigma + sigma'^2) / (alpha^2 Sigma + sigma^2)) (x - alpha mu) for a Gaussian; a Mixture
    takes for each image the component most probable at the start. In pure noise that is the heaviest one for every
    image: teleport with a Gaussian first. Raises ValueError for a machine without `flow`, where sigma is 0, and when
    sigma / alpha is higher at the end than at the start, by more than rounding.
    """
    if not hasattr(machine, "flow"):
        kind = type(machine).__name__
        raise ValueError(f"{kind} has no probability flow in closed form; teleport with a Gaussian or a Mixture.")
    (_, alpha, sigma), (_, alpha_end, sigma_end) = (flatten(x, level, x.shape[1:]) for level in (start, end))
    if start.singular or end.singular:
        raise ValueError("sigma is 0 at the start or the end; expected sigma > 0 in both, where a sampler can go on.")
    noisier = alpha_end * sigma * (1 + 8 * torch.finfo(sigma.dtype).eps) < alpha * sigma_end
    if noisier.any():
        found, limit = ((s / a).expand_as(noisier)[noisier][0] for a, s in ((alpha_end, sigma_end), (alpha, sigma)))
        raise ValueError(
            f"sigma / alpha is {found:.4g} at the end; expected at most {limit:.4g}, its value at the start."
        )
    return machine.flow(x, start, end)


def draw(gaussian: Gaussian, noise: Noise, n: int, rng: torch.Generator) -> Float[Tensor, "n *shape"]:
    """Return n draws from N(alpha mu, alpha^2 Sigma + sigma^2 I): white noise teleported from alpha = 0.

    It is the start of a sampler at this level that equals teleportation in law, not seed by seed. Raises ValueError
    where sigma is 0 and without a generator.
    """
    if not isinstance(rng, torch.Generator):
        raise ValueError(f"rng is a {type(rng).__name__}, expected a torch.Generator, which draws the start.")
    if type(n) is not int or n < 0:
        raise ValueError(f"n is {n}, expected a whole number of draws.")
    white = torch.randn((n, *gaussian.shape), generator=rng, dtype=gaussian.mean.dtype, device=rng.device)
    return teleport(gaussian, white.to(gaussian.mean.device), PURE, noise)


# The law of a teleported start --------------------------------------------------------------------------------------


def noisy_law(gaussian: Gaussian, noise: Noise) -> Gaussian:
    """Return N(alpha mu, alpha^2 Sigma + sigma^2 I), the law of x = alpha x0 + sigma eps, as a Gaussian over x."""
    return teleported_law(gaussian, PURE, noise)


def teleported_law(gaussian: Gaussian, start: Noise, end: Noise) -> Gaussian:
    """Return the law of teleport(x) for pure noise x ~ N(0, sigma^2 I) at the start, as a Gaussian over x.

    With G^2 = (alpha'^2 Sigma + sigma'^2) / (alpha^2 Sigma + sigma^2) the mean is alpha' mu - G alpha mu and the
    covariance sigma^2 G^2. It is not quite `noisy_law` at the end, as x is pure noise and no noisy data: `gaussian_kl`
    and `gaussian_w2` say by how much. Errors: those of `teleport`.
    """
    mean = teleport(gaussian, torch.zeros_like(gaussian.mean).reshape(1, *gaussian.shape), start, end).flatten()
    alpha, sigma, alpha_end, sigma_end = map(float, (start.alpha, start.sigma, end.alpha, end.sigma))
    spread = _spectral(gaussian, lambda v: sigma**2 * (alpha_end**2 * v + sigma_end**2) / (alpha**2 * v + sigma**2))
    return replace(spread, mean=mean)


def gaussian_kl(a: Gaussian, b: Gaussian) -> float:
    """Return KL(a || b) in nats, of the two laws N(mean, cov).

    (1/2) [ sum_k (r_k - log(1 + r_k)) + d^T cov_b^-1 d ], d = mean_a - mean_b and r_k the eigenvalues of
    cov_b^(-1/2) (cov_a - cov_b) cov_b^(-1/2). Raises ValueError when one of the laws is flat in a direction.
    """
    _check_pair(a, b)
    if min(_variances(a).min(), _variances(b).min()) <= 0:
        raise ValueError("a law has a direction without variance, where the divergence is infinite; use noisy laws.")
    white = _spectral(b, torch.rsqrt).cov.double()
    if a.U is b.U:
        excess = (_variances(a) - _variances(b)) / _variances(b)
    else:
        excess = torch.linalg.eigvalsh(white @ (a.cov - b.cov).double() @ white)
    shift = white @ (a.mean - b.mean).double()
    return ((excess - excess.log1p()).sum() + shift.square().sum()).item() / 2


def gaussian_w2(a: Gaussian, b: Gaussian) -> float:
    """Return the Wasserstein-2 distance of the two laws N(mean, cov), in the data's units.

    Its square is |mean_a - mean_b|^2 + min_Q |A - B Q|^2 over orthogonal Q, with A and B the roots of the covariances:
    tr A^2 + tr B^2 - 2 tr (A B^2 A)^(1/2) without its cancellation. Directions without variance are legal.
    """
    _check_pair(a, b)
    if a.U is b.U:
        gap = _variances(a).sqrt() - _variances(b).sqrt()
    else:
        A, B = (_spectral(law, torch.sqrt).cov.double() for law in (a, b))
        left, _, right = torch.linalg.svd(B @ A)
        gap = A - B @ (left @ right)
    return (gap.square().sum() + (a.mean - b.mean).double().square().sum()).sqrt().item()


# Simpler starts ------------------------------------------------------------------------------------------------------


def spherical(mean: Float[Tensor, " D"], variance: float | Tensor, shape: torch.Size) -> Gaussian:
    """Return N(mean, variance I) over samples of this shape."""
    return Gaussian(mean, mean.new_zeros(0), mean.new_zeros(len(mean), 0), torch.as_tensor(variance).to(mean), shape)


def diagonal(moments: Moments, basis: Any) -> Gaussian:
    """Return the Gaussian whose covariance keeps only the variances in an orthonormal basis, W^T diag(W Sigma W^T) W.

    basis: one of `scoremachines.bases`, or anything whose `synthesis` maps coefficients (B, *shape) to samples. It
    forms W, D x D.
    """
    if not hasattr(basis, "synthesis"):
        raise ValueError(f"the basis is a {type(basis).__name__}, expected one with `synthesis`, such as Wavelet().")
    cov = moments.cov
    U = basis.synthesis(torch.eye(len(cov)).to(cov).reshape(-1, *moments.shape)).flatten(1).T
    lam, order = (U * (cov @ U)).sum(0).clamp(min=0).sort(descending=True)
    return Gaussian(moments.mean, lam, U[:, order].contiguous(), lam.new_zeros(()), moments.shape)


def baselines(moments: Moments, bases: Mapping[str, Any], ranks: Sequence[int] = ()) -> dict[str, Gaussian]:
    """Return starts by how much they know of the data, from nothing to mean and covariance, each as a Gaussian.

    "zero" is N(0, 0), so that its start is N(0, sigma^2 I); "mean" knows the mean only; "isotropic" the mean and the
    average variance; "diagonal in NAME" the mean and the variances in that basis; "rank R" the R leading principal
    components, the other variance spread evenly; "full" everything. Use them with `teleport` and `draw`.
    """
    if not isinstance(moments, Moments):
        raise ValueError(f"moments is a {type(moments).__name__}, expected Moments; build them with Moments.of(data).")
    mean, shape = moments.mean, moments.shape
    return {
        "zero": spherical(torch.zeros_like(mean), 0.0, shape),
        "mean": spherical(mean, 0.0, shape),
        "isotropic": spherical(mean, moments.cov.trace() / len(mean), shape),
        **{f"diagonal in {name}": diagonal(moments, basis) for name, basis in bases.items()},
        **{f"rank {rank}": Gaussian.fit(moments, rank) for rank in ranks},
        "full": Gaussian.fit(moments),
    }


def _spectral(gaussian: Gaussian, f: Callable[[Tensor], Tensor]) -> Gaussian:
    """Return the Gaussian with covariance f(Sigma)."""
    whole = len(gaussian.lam) == len(gaussian.mean)  # then no direction has the variance `rest`
    return replace(gaussian, lam=f(gaussian.lam), rest=gaussian.rest if whole else f(gaussian.rest))


def _variances(gaussian: Gaussian) -> Float64[Tensor, " D"]:
    outside = gaussian.rest.expand(len(gaussian.mean) - len(gaussian.lam))
    return torch.cat([gaussian.lam, outside]).double()


def _check_pair(a: Gaussian, b: Gaussian) -> None:
    if a.shape != b.shape:
        raise ValueError(f"the laws have samples of shape {tuple(a.shape)} and {tuple(b.shape)}; expected one shape.")
