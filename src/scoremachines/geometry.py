"""The geometry of component-wise schedules: what the steps of a sampler cost, and which curve costs least.

A level is the point gamma_i = log(sigma_i^2 / alpha_i^2) of R^D and a schedule a curve in it. What is not known of the
noise in x, and its average,

    K(x) = Cov[eps | x] = diag(alpha / sigma) Cov[x0 | x] diag(alpha / sigma),        m_i = E K_ii,

determine the information I that x holds about x0, dI / dgamma_i = -m_i / 2, in nats. The information gained between
two levels is therefore the same on every path, sum_i I_i with I_i = -(1/2) int m_i dgamma_i, while the shares I_i are
not. N steps of `ddpm`, whose noise is independent in every component, miss the reversed process by the divergence

    gap = sum_steps (1/2) sum_i (e^(gamma_i - gamma_i') - 1) m_i - sum_i I_i
        = (1 / 4N) int_0^1 (dgamma/dt)^T G (dgamma/dt) dt + O(1 / N^2),
    G_ij = E[K_ij^2] = delta_ij m_i + dm_i / dgamma_j.

G is a metric: on a curve of length L, N gap tends to L^2 / 4 at constant speed and to more at any other, and the best
curves are geodesics. As G_ii >= m_i^2, the limit is at least sum_i I_i^2 on a curve where every gamma falls, hence at
least (sum_i I_i)^2 / D, and at least (sum_i I_i)^2 where one component moves at a time: the price of autoregression.
Source: Payaro and Palomar (2009) for the second derivatives of information; Gerdes, Welling and Cheng (2024) for the
schedules; and chapter "Soft conditioning".
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from .ancestral import covariance_root, posterior_cov
from .gaussian import Gaussian
from .machine import Machine, flatten
from .noise import Noise
from .paths import Schedule, at_gamma, gamma_of, walk

FINE = 64  # the least number of pieces of the polygon that is relaxed to a geodesic: a coarse one jumps over costs


def error_matrix(machine: Machine, x: Float[Tensor, "B *shape"], noise: Noise) -> Float[Tensor, "B D D"]:
    """Return K = Cov[eps | x] = diag(alpha / sigma) Cov[x0 | x] diag(alpha / sigma) for each image.

    Raises ValueError where sigma is 0.
    """
    _, alpha, sigma = flatten(x, _noisy(noise), x.shape[1:])
    scale = alpha / sigma
    return scale[:, :, None] * posterior_cov(machine, x, noise) * scale[:, None, :]


def metric(machine: Machine, noise: Noise, x: Float[Tensor, "B *shape"] | None = None) -> Float[Tensor, "D D"]:
    """Return G_ij = E[K_ij^2], the mean over noisy samples x of this level; a `Gaussian` has one K and needs none.

    Errors: those of `error_matrix`.
    """
    if x is None and not isinstance(machine, Gaussian):
        raise ValueError(
            f"K of a {type(machine).__name__} differs from sample to sample; give noisy samples x to average over."
        )
    x = machine.mean.reshape(1, *machine.shape) if x is None else x
    return error_matrix(machine, x, noise).square().mean(0)


# Information and its cost, for Gaussian data --------------------------------------------------------------------------


def information(gaussian: Gaussian, noise: Noise) -> float:
    """Return I(x0; x) = (1/2) log det(1 + A Sigma A / S^2) in nats; raises ValueError where sigma is 0."""
    weighted = (-_gamma(gaussian, noise) / 2).exp()[:, None] * covariance_root(gaussian)
    return torch.linalg.svdvals(weighted).square().log1p().sum().item() / 2


def component_information(gaussian: Gaussian, levels: Sequence[Noise]) -> Float64[Tensor, " D"]:
    """Return I_i = -(1/2) int m_i dgamma_i in nats, with gamma on a straight line from each level to the next.

    Whatever lies between, the sum is the information at the last level minus that at the first. The sum of squares
    bounds the limit of N gap from below; (sum I_i)^2 / sum I_i^2 is the number of components that share the work.
    Errors: those of `length`.
    """
    return _integrals(gaussian, levels, lambda K, change: -change / 2 * K.diagonal(dim1=1, dim2=2)).sum(0)


def gap(gaussian: Gaussian, levels: Sequence[Noise]) -> float:
    """Return the divergence of `ddpm` on these levels from the reversed process in nats, exact for Gaussian data.

    sum_steps (1/2) (tr M - log det(1 + M)), M = H Cov[x0 | x] H with H^2 = diag(snr' - snr). A component that rests
    adds nothing, and one without signal may gain some. Raises ValueError where a component gains noise, and where sigma
    is 0: the last step to it costs an infinite divergence.
    """
    gammas, root = _gammas(gaussian, levels), covariance_root(gaussian)
    now, nxt = gammas[:-1], gammas[1:]
    _check_falling(now, nxt)
    rise = torch.where(now > nxt, -torch.expm1(nxt - now) * (-nxt).exp(), 0)
    parts = (h.sqrt()[:, None] * _posterior_root(root, gamma) for gamma, h in zip(now, rise, strict=True))
    excess = torch.stack([torch.linalg.svdvals(part).square() for part in parts])
    return (excess - excess.log1p()).sum().item() / 2


# Curves ---------------------------------------------------------------------------------------------------------------


def length(gaussian: Gaussian, levels: Sequence[Noise]) -> float:
    """Return int sqrt(dgamma^T G dgamma), with gamma on a straight line from each level to the next.

    length^2 / 4 is the limit of N gap for the best speed. Raises ValueError where sigma is 0, where a component
    without signal gains some, and for fewer than two levels.
    """
    return _integrals(gaussian, levels, lambda K, change: _square(K, change).sqrt()).sum().item()


def energy(gaussian: Gaussian, levels: Sequence[Noise]) -> float:
    """Return int_0^1 (dgamma/dt)^T G (dgamma/dt) dt along levels walked at equal times: at least length^2.

    energy / 4 is the limit of N gap when each step between two levels is divided into equally many. Errors: those of
    `length`.
    """
    return (len(levels) - 1) * _integrals(gaussian, levels, _square).sum().item()


def constant_speed(gaussian: Gaussian, schedule: Schedule, n: int, fine: int = 400) -> list[Noise]:
    """Return n + 1 levels of a schedule, from t = 1 to t = 0, with the same length of curve from each to the next.

    The curve is taken as `fine` pieces with equal steps in t, straight in gamma and of constant speed each. Errors:
    those of `length` and `walk`.
    """
    _check_count(n)
    times = np.linspace(1, 0, fine + 1)
    pieces = _integrals(gaussian, walk(schedule, times), lambda K, change: _square(K, change).sqrt())
    travelled = np.concatenate([[0.0], pieces.cumsum(0).numpy(force=True)])
    found = np.interp(np.linspace(0, travelled[-1], n + 1), travelled, times)
    found[[0, -1]] = times[[0, -1]]  # pieces that cost nothing at either end are kept
    return walk(schedule, found)


def geodesic(gaussian: Gaussian, start: Noise, end: Noise, n: int = FINE) -> list[Noise]:
    """Return n + 1 variance-preserving levels at equal distances on a shortest curve from level `start` to `end`.

    Shortest among the curves on which no component gains noise: a polygon of at least 64 pieces is relaxed by L-BFGS
    from the straight line in y_i = log(1 + snr_i Sigma_ii), so the curve is a local optimum. In y, where G has the unit
    diagonal of independent components, a start without signal is at a finite distance. For small D. Raises ValueError
    where sigma is 0, where a component gains noise from start to end, and when none moves.
    """
    _check_count(n)
    first, last = _gammas(gaussian, [start, end])
    _check_falling(first, last)
    if (first == last).all():
        raise ValueError("start and end are the same level, expected one with less noise at the end.")
    root = covariance_root(gaussian)
    power = root.square().sum(1)
    power = power.where(power > 0, 1)
    stride = math.ceil(FINE / n)
    y = _relaxed(root, power, *((power * (-gamma).exp()).log1p() for gamma in (first, last)), stride * n)
    inner = (power / torch.expm1(y[stride:-stride:stride])).log()  # gamma, which falls but for rounding
    gammas = torch.cat([first[None], inner.minimum(first).cummin(0).values.maximum(last), last[None]])
    return [at_gamma(gamma.reshape(1, *gaussian.shape)) for gamma in gammas]


@torch.enable_grad()
def _relaxed(root: Tensor, power: Tensor, first: Tensor, last: Tensor, pieces: int) -> Float64[Tensor, "points D"]:
    """Return the polygon in y of least energy; shares of the way that are a softmax keep it monotone."""
    moving = first != last
    logits = torch.zeros(pieces, int(moving.sum())).to(root).requires_grad_()
    optimiser = torch.optim.LBFGS(
        [logits], max_iter=500, tolerance_grad=1e-9, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def polygon() -> Tensor:
        share = torch.cat([torch.zeros_like(logits[:1]), logits.softmax(0).cumsum(0)])
        y = first.repeat(pieces + 1, 1)
        y[:, moving] = first[moving] + (last - first)[moving] * share
        return y

    def loss() -> Tensor:
        optimiser.zero_grad()
        y = polygon()
        found = pieces * _square(_relative_errors(root, power, (y[1:] + y[:-1]) / 2), y.diff(dim=0)).sum()
        found.backward()
        return found

    optimiser.step(loss)
    return polygon().detach()


def _relative_errors(root: Tensor, power: Tensor, y: Tensor) -> Float64[Tensor, "points D D"]:
    """Return Cov[x0 | x] over the deviations that each component would have alone, Sigma_ii e^(-y_i)."""
    spread = (y.exp() / power).sqrt()[..., None] * _posterior_root(root, (power / torch.expm1(y)).log())
    return spread @ spread.mT


# Points, pieces and checks --------------------------------------------------------------------------------------------


def _integrals(gaussian: Gaussian, levels: Sequence[Noise], f: Callable[..., Tensor]) -> Float64[Tensor, "pieces ..."]:
    """Return int_0^1 f(K(gamma + u change), change) du for the straight line from each level to the next."""
    gammas, root = _gammas(gaussian, levels), covariance_root(gaussian)
    change = torch.where(gammas[1:] == gammas[:-1], 0, gammas[1:] - gammas[:-1])
    if not change.isfinite().all():
        raise ValueError("gamma falls from infinity in a component without signal; start at a level with alpha > 0.")
    return torch.stack([_integral(root, *piece, f) for piece in zip(gammas[:-1], change, strict=True)])


def _integral(root: Tensor, gamma: Tensor, change: Tensor, f: Callable[..., Tensor]) -> Tensor:
    """Return int_0^1 f(K, change) du by Gauss and Legendre, with nodes enough for 1e-10 where f is as smooth as K."""
    count = 4 + math.ceil(2 * change.abs().max().item())
    nodes, weights = (torch.from_numpy(part).to(root) / 2 for part in np.polynomial.legendre.leggauss(count))
    line = gamma + (nodes[:, None] + 0.5) * change
    spread = (-line / 2).exp()[..., None] * _posterior_root(root, line)
    return torch.tensordot(weights, f(spread @ spread.mT, change), 1)


def _square(K: Tensor, change: Tensor) -> Tensor:
    """Return change^T (K * K) change."""
    return (change[..., None, :] @ K.square() @ change[..., None])[..., 0, 0]


def _posterior_root(root: Tensor, gamma: Float64[Tensor, "*n D"]) -> Float64[Tensor, "*n D D"]:
    """Return W = L R^-1, W W^T = Cov[x0 | x]; R^-1 is the lower half of Q in [diag(e^(-gamma/2)) L; I] = Q R.

    Nothing is subtracted, so that little noise costs no digits.
    """
    weighted = (-gamma / 2).exp()[..., None] * root
    eye = torch.eye(len(root)).to(root).expand_as(weighted)
    return root @ torch.linalg.qr(torch.cat([weighted, eye], -2)).Q[..., len(root) :, :]


def _gammas(gaussian: Gaussian, levels: Sequence[Noise]) -> Float64[Tensor, "N D"]:
    if len(levels) < 2:
        raise ValueError(f"there are {len(levels)} levels, expected at least two, from noisy to clean.")
    return torch.stack([_gamma(gaussian, level) for level in levels])


def _gamma(gaussian: Gaussian, noise: Noise) -> Float64[Tensor, " D"]:
    if not isinstance(gaussian, Gaussian):
        raise ValueError(f"the data are a {type(gaussian).__name__}, expected a Gaussian, whose K has a closed form.")
    row = gaussian.mean.reshape(1, *gaussian.shape)
    flatten(row, noise, gaussian.shape)
    return gamma_of(_noisy(noise)).to(row.device).expand(row.shape).flatten()


def _noisy(noise: Noise) -> Noise:
    if isinstance(noise, Noise) and noise.singular:
        raise ValueError("sigma is 0 in some component, where Cov[eps | x] is not defined; use sigma > 0.")
    return noise


def _check_falling(now: Tensor, nxt: Tensor) -> None:
    if (nxt > now + 1e-9 * now.abs().clamp(1, 1e9)).any():
        raise ValueError("a component gains noise on the way, expected gamma to fall or rest at every step.")


def _check_count(n: int) -> None:
    if type(n) is not int or n < 1:
        raise ValueError(f"n is {n}, expected a whole number of steps, at least one.")
