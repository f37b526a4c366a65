"""Samplers: walk a list of noise levels with a step rule.

The probability flow of a machine D, along any path of levels (alpha, sigma), is

    dx = D(x) d alpha + eps(x) d sigma,        eps(x) = (x - alpha D(x)) / sigma.

A step is a function `step(machine, x, x0, now, nxt, past, rng) -> x` without state: x0 = D(x) at level `now`, and
`past` holds the earlier (Noise, x0) pairs, newest last. `trajectory` is a generator: wrap it in tqdm to see progress.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .machine import Machine
from .noise import Noise

Step = Callable[..., Tensor]
MEMORY = 3  # earlier pairs kept for multistep rules; third order needs no more


class State(NamedTuple):
    """One point of a trajectory: the level, the noisy batch x, and x0 = D(x) there."""

    noise: Noise
    x: Tensor
    x0: Tensor


def ddim(machine, x, x0, now, nxt, past=(), rng=None) -> Tensor:
    """Euler step of the probability flow in (alpha, sigma): x + (alpha' - alpha) x0 + (sigma' - sigma) eps.

    It equals alpha' x0 + sigma' eps, the deterministic DDIM rule. Source: Song, Meng and Ermon (2021), equation 12.
    """
    (alpha, _), (alpha_next, _) = now.on(x), nxt.on(x)
    return x + (alpha_next - alpha) * x0 + _change(now, nxt, x) * _eps(x, x0, now)


def heun(machine, x, x0, now, nxt, past=(), rng=None) -> Tensor:
    """Trapezoid step of the probability flow in (alpha, sigma): ddim with x0 and eps averaged over both ends.

    It costs one more evaluation. Into a level with sigma = 0 in any component, where not every machine can be
    evaluated, the whole step is a ddim step.
    Source: Karras et al. (2022), algorithm 1, written for any schedule.
    """
    guess = ddim(machine, x, x0, now, nxt)
    if nxt.singular:
        return guess
    x0_next = machine.denoise(guess, nxt)
    (alpha, _), (alpha_next, _) = now.on(x), nxt.on(x)
    slope_eps = (_eps(x, x0, now) + _eps(guess, x0_next, nxt)) / 2
    return x + (alpha_next - alpha) * (x0 + x0_next) / 2 + _change(now, nxt, x) * slope_eps


def ddpm(machine, x, x0, now, nxt, past=(), rng: torch.Generator | None = None) -> Tensor:
    """Ancestral step: a draw from q(x' | x, x0), the Gaussian bridge of the forward process; needs rng.

    x' = alpha' x0 + sigma' (rho eps + sqrt(1 - rho^2) z), z ~ N(0, I), rho = alpha sigma' / (alpha' sigma).
    Source: Ho, Jain and Abbeel (2020), equation 7, written for any pair of levels.
    """
    if rng is None:
        raise ValueError("ddpm draws noise and was given no generator; pass rng=torch.Generator().manual_seed(...).")
    (alpha, sigma), (alpha_next, sigma_next) = now.on(x), nxt.on(x)
    bottom = alpha_next * sigma
    # without signal at the next level, or without noise at this one, the bridge has no freedom left
    rho = torch.where(bottom > 0, alpha * sigma_next / bottom.where(bottom > 0, 1), 1).clamp(max=1)
    z = torch.randn(x.shape, generator=rng, dtype=x.dtype, device=rng.device).to(x.device)
    draw = alpha_next * x0 + sigma_next * (rho * _eps(x, x0, now) + (1 - rho**2).sqrt() * z)
    frozen = (alpha == alpha_next) & (sigma == sigma_next)
    return torch.where(frozen, x, draw)


def trajectory(
    machine: Machine,
    x: Float[Tensor, "B *shape"],
    levels: Sequence[Noise],
    step: Step = ddim,
    rng: torch.Generator | None = None,
) -> Iterator[State]:
    """Yield the state at every level, from x at levels[0]; len(levels) states in all.

    The machine is evaluated once per level by the loop, besides what the step asks for, and never at sigma = 0, where
    the state's x0 is x itself. Raises ValueError when levels is empty or reaches sigma = 0 before its end.
    """
    if not levels:
        raise ValueError("levels is empty, expected at least one noise level.")
    if not all(isinstance(level, Noise) for level in levels):
        raise ValueError(
            "levels holds something else than Noise; build the list with levels(schedule, times) or edm_levels(n)."
        )
    if any(level.clean for level in levels[:-1]):
        raise ValueError("sigma is 0 at a level before the last, where no machine is evaluated; end the list there.")
    past: tuple[tuple[Noise, Tensor], ...] = ()
    for now, nxt in pairwise(levels):
        x0 = machine.denoise(x, now)
        yield State(now, x, x0)
        x = step(machine, x, x0, now, nxt, past, rng)
        past = (*past, (now, x0))[-MEMORY:]
    last = levels[-1]
    yield State(last, x, x if last.clean else machine.denoise(x, last))


def sample(
    machine: Machine,
    x: Float[Tensor, "B *shape"],
    levels: Sequence[Noise],
    step: Step = ddim,
    rng: torch.Generator | None = None,
) -> Float[Tensor, "B *shape"]:
    """Return the last x of the trajectory from x at levels[0] to levels[-1]."""
    return deque(trajectory(machine, x, levels, step, rng), maxlen=1).pop().x


def _eps(x: Tensor, x0: Tensor, noise: Noise) -> Tensor:
    """The predicted noise, and 0 where sigma is 0: a component without noise has none to change."""
    alpha, sigma = noise.on(x)
    return torch.where(sigma > 0, (x - alpha * x0) / sigma.where(sigma > 0, 1), 0)


def _change(now: Noise, nxt: Noise, x: Tensor) -> Tensor:
    return nxt.on(x)[1] - now.on(x)[1]
