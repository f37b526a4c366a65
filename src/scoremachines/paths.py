"""Component-wise schedules: paths in the space of log noise-to-signal ratios.

In coordinates that are noised one by one, x_i = alpha_i x0_i + sigma_i eps_i, a noise level is the vector

    gamma_i = log(sigma_i^2 / alpha_i^2),

minus the log signal-to-noise ratio, and a schedule t -> Noise is a curve gamma(t) whose components rise with t. Its
alpha and sigma have the shape (1, *shape) of one sample in a batch. Larger labels are noised earlier, and so generated
later. Variance preserving means alpha^2 = 1 / (1 + e^gamma) and sigma^2 = 1 / (1 + e^-gamma).
Source: Gerdes, Welling and Cheng (2024), and chapters "Component-wise noise and priors" and "Soft conditioning".
"""

import math
from collections.abc import Callable, Iterable
from itertools import pairwise
from numbers import Integral, Real
from typing import Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import logsigmoid

from .noise import Noise, cosine

Schedule = Callable[[float], Noise]


def gamma_of(noise: Noise) -> Float64[Tensor, "..."]:
    """Return gamma = 2 log(sigma / alpha): -inf where there is no noise, inf where there is no signal."""
    alpha, sigma = (torch.as_tensor(part, dtype=torch.float64) for part in (noise.alpha, noise.sigma))
    return 2 * (sigma.log() - alpha.log())


def at_gamma(gamma: Float[Tensor, "..."]) -> Noise:
    """Return the variance-preserving level with these gamma; -inf and inf give sigma = 0 and alpha = 0 exactly.

    gamma has the axes of a batch, (1, *shape) or (B, *shape). Raises ValueError for NaN and for whole numbers.

    >>> at_gamma(torch.tensor([[-math.inf, math.inf]]))
    Noise(alpha=tensor([[1., 0.]]), sigma=tensor([[0., 1.]]))
    """
    if not isinstance(gamma, Tensor) or not gamma.is_floating_point() or gamma.isnan().any():
        raise ValueError("gamma holds NaN or is no floating tensor, expected a number or infinity for every component.")
    return Noise((logsigmoid(-gamma) / 2).exp(), (logsigmoid(gamma) / 2).exp())


def walk(schedule: Schedule, times: int | Iterable[float]) -> list[Noise]:
    """Return the levels of a schedule at decreasing times, or at n equal steps from t = 1 to t = 0.

    Unlike `levels` it lets components rest, and ends where the schedule ends. Raises ValueError if a component gains
    noise on the way.
    """
    if isinstance(times, Integral):
        if times < 1:
            raise ValueError(f"times is {times}, expected at least one step, or the times themselves.")
        times = [1 - k / times for k in range(times + 1)]
    found = [schedule(float(t)) for t in times]
    if len(found) < 2:
        raise ValueError(f"times holds {len(found)} times, expected at least a start and an end.")
    for k, (now, nxt) in enumerate(pairwise(found)):
        if not torch.as_tensor(now.sigma * nxt.alpha >= nxt.sigma * now.alpha).all():
            raise ValueError(f"a component gains noise between times {k} and {k + 1}; expected gamma to fall.")
    return found


# Soft conditioning --------------------------------------------------------------------------------------------------


def soft(
    labels: Float[Tensor, "*shape"],
    a: Real,
    clean: Real = -7.0,
    noisy: Real = 3.0,
    log_variance: Float[Tensor, "*shape"] | None = None,
    capped: bool = False,
) -> Schedule:
    """Return the linear soft-conditioning schedule, gamma = (1 - t) gamma(0) + t gamma(1), with one slope for all.

    gamma_i(0) = log_variance_i + clean + a (l_i - max l),  gamma_i(1) = log_variance_i + noisy + a (l_i - min l).

    labels: l; a: the inverse softness, 0 for one signal-to-noise ratio for all, large for one component after another;
    clean, noisy: minus the log signal-to-noise ratio at which the last component ends and the first begins;
    log_variance: the log of the components' variance, 0 for unit variance; capped: whether each component stays within
    its [clean, noisy]. Raises ValueError for settings that are not finite. Source: the public code of Gerdes, Welling
    and Cheng (2024), with its end points mended.
    """
    labels, _ = _check_soft(labels, a, clean, noisy)
    base = torch.zeros_like(labels) if log_variance is None else _check_beside(log_variance, labels)
    lowest, highest = base + clean, base + noisy
    start, end = lowest + a * (labels - labels.max()), highest + a * (labels - labels.min())

    def schedule(t: float) -> Noise:
        _check_time(t)
        gamma = (1 - t) * start + t * end
        return at_gamma((gamma.clamp(lowest, highest) if capped else gamma)[None])

    return schedule


def active_share(labels: Float[Tensor, "*shape"], a: Real, clean: Real = -7.0, noisy: Real = 3.0) -> float:
    """Return the share of the run in which one component moves from `noisy` to `clean`: G / (G + a (max l - min l)).

    G = noisy - clean. Two components are never active together once a times the gap of their labels reaches G.
    """
    _, reach = _check_soft(labels, a, clean, noisy)
    return (noisy - clean) / (noisy - clean + a * reach)


def inverse_softness(labels: Float[Tensor, "*shape"], share: Real, clean: Real = -7.0, noisy: Real = 3.0) -> float:
    """Return the a with this `active_share`: G (1 - share) / (share (max l - min l))."""
    _, reach = _check_soft(labels, 0, clean, noisy)
    if not 0 < share <= 1 or reach == 0:
        raise ValueError(f"share is {share} and the labels span {reach}; expected 0 < share <= 1 and different labels.")
    return (noisy - clean) * (1 - share) / (share * reach)


def stairs(labels: Float[Tensor, "*shape"], clean: Real = -math.inf, noisy: Real = math.inf) -> Schedule:
    """Return the strictly autoregressive schedule: one component after another, equal labels together.

    In its turn, an equal share of the time, a component goes from `clean` to `noisy`, and it rests before and after: on
    a straight line in gamma if these are finite, and with sigma^2 growing evenly if they are infinite. Raises
    ValueError for labels that are not finite and for one infinite end.
    """
    labels = check_labels(labels)
    if not clean < noisy or math.isinf(clean) != math.isinf(noisy):
        raise ValueError(f"clean is {clean} and noisy {noisy}; expected clean < noisy, both finite or both infinite.")
    ranks = labels.unique(return_inverse=True)[1].double()
    turns = int(ranks.max()) + 1

    def schedule(t: float) -> Noise:
        _check_time(t)
        now = t * turns
        now = round(now) if abs(now - round(now)) < 1e-9 else now  # k / n * n may miss k by a rounding
        u = (now - (turns - 1 - ranks)).clamp(0, 1)
        gamma = torch.logit(u) if math.isinf(clean) else clean + (noisy - clean) * u
        return at_gamma(gamma[None])

    return schedule


# Neighbouring methods -----------------------------------------------------------------------------------------------


def blurring(
    frequency: Float[Tensor, "*shape"], base: Schedule = cosine, largest: Real = 20.0, least: Real = 0.001
) -> Schedule:
    """Return the schedule of blurring diffusion: alpha_k = alpha(t) d_k(t), with one sigma(t) for all.

    d_k = (1 - least) exp(-(2 pi f_k)^2 b(t)^2 / 2) + least, with a blur of b(t) = largest sin^2(pi t / 2) pixels and
    the frequencies f_k in cycles per pixel. Source: Hoogeboom and Salimans (2023).
    """
    decay = _decay(frequency)
    if not (0 < largest < math.inf and 0 <= least <= 1):
        raise ValueError(f"largest is {largest} and least is {least}; expected a positive blur and a share of 1.")

    def schedule(t: float) -> Noise:
        blur = largest * math.sin(math.pi * t / 2) ** 2
        kept, level = (1 - least) * (-decay * blur**2).exp() + least, base(t)
        return Noise(level.alpha * kept, torch.full_like(kept, level.sigma))

    return schedule


def heat(
    frequency: Float[Tensor, "*shape"], sigma: Real = 0.01, smallest: Real = 0.5, largest: Real = 20.0
) -> Schedule:
    """Return the schedule of inverse heat dissipation: alpha_k = exp(-(2 pi f_k)^2 b(t)^2 / 2), with constant sigma.

    The blur b(t) grows geometrically from `smallest` to `largest` pixels; f_k is in cycles per pixel. The mean is never
    lost: it is part of what a sampler starts from. Source: Rissanen, Heinonen and Solin (2023).
    """
    decay = _decay(frequency)
    if not (0 < sigma < math.inf and 0 < smallest < largest < math.inf):
        raise ValueError(f"sigma is {sigma} and the blur goes from {smallest} to {largest}; expected 0 < both, rising.")

    def schedule(t: float) -> Noise:
        _check_time(t)
        kept = (-decay * (smallest ** (1 - t) * largest**t) ** 2).exp()
        return Noise(kept, torch.full_like(kept, float(sigma)))

    return schedule


def regulator(
    frequency: Float[Tensor, "*shape"],
    cutoffs: tuple[Real, Real],
    form: Literal["exponential", "rational"] = "exponential",
    p: Real = 1.0,
) -> Schedule:
    """Return the schedule of a renormalisation-group regulator: alpha_k^2 = K(f_k / c), variance preserving.

    K(q) = exp(-q^2p) or 1 / (1 + q^2p), with a cutoff c that falls geometrically from cutoffs[0] at t = 0 to cutoffs[1]
    at t = 1. The rational form has gamma = 2p (log f_k - log c): it is soft conditioning with labels log f and a = 2p.
    A component of frequency 0 is never noised.
    """
    frequency = _frequencies(frequency)
    highest, lowest = cutoffs
    if form not in ("exponential", "rational") or not (0 < lowest < highest < math.inf and 0 < p < math.inf):
        raise ValueError(
            f'form is {form!r}, p is {p} and the cutoffs are {cutoffs}; expected "exponential" or "rational", a '
            "positive p, and a cutoff that falls."
        )

    def schedule(t: float) -> Noise:
        _check_time(t)
        log_q = 2 * p * (frequency.log() - (1 - t) * math.log(highest) - t * math.log(lowest))
        if form == "rational":
            return at_gamma(log_q)
        return Noise((-log_q.exp() / 2).exp(), (-torch.expm1(-log_q.exp())).sqrt())

    return schedule


def _decay(frequency: Tensor) -> Tensor:
    return (2 * math.pi * _frequencies(frequency)) ** 2 / 2


def _frequencies(frequency: Tensor) -> Tensor:
    found = check_labels(frequency, "the frequencies")[None]
    if (found < 0).any():
        raise ValueError(f"the least frequency is {found.min():.3g}, expected none below 0.")
    return found


def _check_time(t: float) -> None:
    if not 0 <= t <= 1:
        raise ValueError(f"t is {t}, expected a time between 0 (clean) and 1 (noise).")


def check_labels(labels: Tensor, what: str = "the labels") -> Tensor:
    """Return finite labels of at least one axis in float64; raises ValueError for others."""
    if not isinstance(labels, Tensor) or labels.ndim == 0 or labels.numel() == 0 or not labels.isfinite().all():
        found = f"shape {tuple(labels.shape)}" if isinstance(labels, Tensor) else f"type {type(labels).__name__}"
        raise ValueError(f"{what} have {found}, expected finite numbers in a tensor with the shape of one sample.")
    return labels.double()


def _check_soft(labels: Tensor, a: Real, clean: Real, noisy: Real) -> tuple[Tensor, float]:
    """Return the labels in float64 and the distance between the largest and the smallest."""
    labels = check_labels(labels)
    if not (0 <= a < math.inf and -math.inf < clean < noisy < math.inf):
        raise ValueError(f"a is {a}, clean {clean} and noisy {noisy}; expected 0 <= a and clean < noisy, all finite.")
    return labels, (labels.max() - labels.min()).item()


def _check_beside(log_variance: Tensor, labels: Tensor) -> Tensor:
    if check_labels(log_variance, "the log variances").shape != labels.shape:
        raise ValueError(
            f"there are labels of shape {tuple(labels.shape)} and log variances of shape {tuple(log_variance.shape)}; "
            "expected one of each for every component."
        )
    return log_variance.double()
