"""Noise levels and schedules.

A noise level is a pair of non-negative numbers that says how a clean sample was corrupted,

    x = alpha * x0 + sigma * eps,        eps ~ N(0, I).

A schedule is any function t -> Noise with t = 0 clean and t = 1 pure (or nearly pure) noise. The signal-to-noise
ratio is snr = alpha^2 / sigma^2. A machine never sees t: it is given the pair, so one fit serves every schedule.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Noise:
    """One noise level, x = alpha * x0 + sigma * eps.

    alpha, sigma: numbers or 0-d tensors (one level for everything), or tensors with exactly as many axes as the
    sample batch x, each of length 1 or equal to that of x: (B, 1, 1, 1) is one level per image, (1, C, H, W) one per
    component. No axis is ever guessed from its length.

    Raises ValueError if an entry is no number, negative, not finite, or zero in both at once.
    """

    alpha: Real | Tensor
    sigma: Real | Tensor

    def __post_init__(self) -> None:
        for name in ("alpha", "sigma"):
            value = getattr(self, name)
            if not isinstance(value, Real | Tensor):
                raise ValueError(f"{name} is a {type(value).__name__}, expected a number or a torch tensor.")
            if isinstance(value, Tensor) and value.is_complex():
                raise ValueError(f"{name} has dtype {value.dtype}, expected real numbers.")
            if not _everywhere(value, lambda v: (v >= 0) & (v < math.inf)):
                raise ValueError(f"{name} is {value}, expected finite values that are not negative.")
        self._check_together(torch.as_tensor(self.alpha), torch.as_tensor(self.sigma))

    @staticmethod
    def _check_together(alpha: Tensor, sigma: Tensor) -> None:
        fits = alpha.ndim in (0, sigma.ndim) or sigma.ndim == 0
        if not fits or any(a != s and 1 not in (a, s) for a, s in zip(alpha.shape, sigma.shape, strict=False)):
            raise ValueError(
                f"alpha has shape {tuple(alpha.shape)} and sigma has shape {tuple(sigma.shape)}; expected equally many "
                "axes of equal length or length 1, or a number."
            )
        if (alpha + sigma == 0).any():
            raise ValueError("alpha and sigma are both 0, so x would carry neither signal nor noise; raise one.")

    @property
    def snr(self) -> float | Tensor:
        """Signal-to-noise ratio alpha^2 / sigma^2; infinite at sigma = 0."""
        if isinstance(self.alpha, Tensor) or isinstance(self.sigma, Tensor):
            return torch.as_tensor(self.alpha) ** 2 / torch.as_tensor(self.sigma) ** 2
        return self.alpha**2 / self.sigma**2 if self.sigma else math.inf

    @property
    def clean(self) -> bool:
        """Whether sigma is 0 everywhere: x is alpha * x0."""
        return _everywhere(self.sigma, lambda v: v == 0)

    @property
    def singular(self) -> bool:
        """Whether sigma is 0 in some component: score, eps and most densities are not defined there."""
        return not _everywhere(self.sigma, lambda v: v > 0)

    def add(self, x0: Float[Tensor, "B *shape"], eps: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """Corrupt a clean batch: alpha * x0 + sigma * eps.

        >>> Noise(0.6, 0.8).add(torch.ones(1, 2), torch.ones(1, 2))
        tensor([[1.4000, 1.4000]])
        """
        alpha, sigma = self.on(x0)
        return alpha * x0 + sigma * eps

    def on(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (alpha, sigma) with x's dtype and device and exactly x.ndim axes, ready to broadcast against x.

        Raises ValueError, naming both shapes, unless alpha and sigma are scalars or fit x axis by axis.
        """
        return _broadcastable("alpha", self.alpha, x), _broadcastable("sigma", self.sigma, x)


def _everywhere(value: Real | Tensor, holds: Callable) -> bool:
    return bool(holds(value).all()) if isinstance(value, Tensor) else bool(holds(value))


def _broadcastable(name: str, value: Real | Tensor, x: Tensor) -> Tensor:
    value = torch.as_tensor(value, dtype=x.dtype, device=x.device)
    if value.ndim == 0:
        return value.reshape((1,) * x.ndim)
    if value.ndim != x.ndim or any(n not in (1, m) for n, m in zip(value.shape, x.shape, strict=True)):
        raise ValueError(
            f"{name} has shape {tuple(value.shape)} and x has shape {tuple(x.shape)}; expected a number or "
            f"{x.ndim} axes, each of length 1 or equal to that of x (one level per image: {_per_image(x)})."
        )
    return value


def _per_image(x: Tensor) -> tuple[int, ...]:
    return (len(x), *(1,) * (x.ndim - 1))


# Schedules ----------------------------------------------------------------------------------------------------------


def _schedule(t: Real | Tensor, rule: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Noise:
    """Evaluate rule in float64 at times in [0, 1]; numbers in give numbers out, tensors give tensors."""
    time = torch.as_tensor(t, dtype=torch.float64)
    if not ((time >= 0) & (time <= 1)).all():
        raise ValueError(f"t is {t}, expected times between 0 (clean) and 1 (noise).")
    alpha, sigma = rule(time)
    return Noise(alpha, sigma) if isinstance(t, Tensor) else Noise(alpha.item(), sigma.item())


def cosine(t: Real | Tensor, offset: float = 0.008) -> Noise:
    """Cosine schedule: alpha = cos(a(t)) / cos(a(0)), a(t) = (pi / 2) (t + offset) / (1 + offset).

    Variance preserving, alpha^2 + sigma^2 = 1, with alpha(0) = 1 and alpha(1) = 0 exactly.
    Source: Nichol and Dhariwal (2021), equation 17.
    """
    if not 0 <= offset < math.inf:
        raise ValueError(f"offset is {offset}, expected a finite number that is not negative.")
    start = math.pi / 2 * offset / (1 + offset)

    def rule(t: Tensor) -> tuple[Tensor, Tensor]:
        rest = math.pi / 2 * (1 - t) / (1 + offset)  # pi/2 - a(t); its sine is exactly 0 at t = 1
        a = math.pi / 2 - rest
        # cos^2(a0) - cos^2(a) = sin(a + a0) sin(a - a0), without cancellation near t = 0
        gap = (torch.sin(a + start) * torch.sin(math.pi / 2 * t / (1 + offset))).clamp(min=0)
        return torch.sin(rest) / math.cos(start), gap.sqrt() / math.cos(start)

    return _schedule(t, rule)


def cosine_legacy(t: Real | Tensor) -> Noise:
    """Cosine schedule without offset: alpha = cos(a), sigma = sin(a), a = (pi / 2) t / 1.008.

    It ends at alpha(1) = 0.0125, not at 0. This is the form found in the public code of Kamb and Ganguli (2025).
    """
    return _schedule(t, lambda t: (torch.cos(math.pi / 2.016 * t), torch.sin(math.pi / 2.016 * t)))


def vp(t: Real | Tensor, beta_min: float = 0.1, beta_max: float = 20.0) -> Noise:
    """Variance-preserving schedule with linear beta: log alpha = -(beta_min t + (beta_max - beta_min) t^2 / 2) / 2.

    sigma^2 = 1 - alpha^2. Source: Song et al. (2021), equation 33.
    """

    def rule(t: Tensor) -> tuple[Tensor, Tensor]:
        log_alpha = -(beta_min * t + (beta_max - beta_min) * t**2 / 2) / 2
        return log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt()

    return _schedule(t, rule)


def edm(sigma: Real | Tensor) -> Noise:
    """Variance-exploding level: alpha = 1, and sigma is its own time. Source: Karras et al. (2022)."""
    return Noise(1.0, sigma)


def flow(t: Real | Tensor) -> Noise:
    """Linear (flow-matching, rectified-flow) schedule: alpha = 1 - t, sigma = t. Source: Lipman et al. (2023)."""
    return _schedule(t, lambda t: (1 - t, t.clone()))


def levels(schedule: Callable[[float], Noise], times: Iterable[float]) -> list[Noise]:
    """Evaluate a schedule at decreasing times; the list ends at sigma = 0.

    When the last time still has noise, the clean level Noise(1, 0) is appended.
    Raises ValueError if there is no time or if the noise-to-signal ratio does not decrease along the list.

    >>> levels(flow, [1.0, 0.5])
    [Noise(alpha=0.0, sigma=1.0), Noise(alpha=0.5, sigma=0.5), Noise(alpha=1.0, sigma=0.0)]
    """
    found = [schedule(float(t)) for t in times]
    if not found:
        raise ValueError("times is empty, expected at least one time.")
    if not found[-1].clean:
        found.append(Noise(1.0, 0.0))
    for k, (now, nxt) in enumerate(pairwise(found)):
        if not _everywhere(now.sigma * nxt.alpha > nxt.sigma * now.alpha, lambda less_noise: less_noise):
            raise ValueError(f"times {k} and {k + 1} give {now} and {nxt}; expected sigma / alpha to decrease.")
    return found


def edm_levels(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> list[Noise]:
    """Return the n-point grid sigma_i^(1/rho) linear in i, from sigma_max to sigma_min, then sigma = 0 (alpha = 1).

    The list has n + 1 levels. Source: Karras et al. (2022), equation 5.
    """
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"n is {n}, expected a whole number of levels, at least one.")
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(f"sigma_min is {sigma_min} and sigma_max is {sigma_max}; expected 0 < sigma_min < sigma_max.")
    if not 0 < rho < math.inf:
        raise ValueError(f"rho is {rho}, expected a positive number.")
    ramp = torch.linspace(0, 1, n, dtype=torch.float64)
    grid = (sigma_max ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
    return levels(edm, grid.tolist())
