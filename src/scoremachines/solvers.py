"""Solvers in the log-SNR: multistep rules that integrate the probability flow with few evaluations.

With lam = log(alpha / sigma), half the log of the signal-to-noise ratio, the flow from lam to lam' = lam + h is

    x' = (sigma' / sigma) x + alpha' int_0^h e^(s - h) x0(lam + s) ds.

A rule is a choice of x0(lam + s): the polynomial through x0 here and at earlier levels. Its constant part is the ddim
step. The rest, in Newton's form with gaps g_1, g_2, g_3 from each level to the one before it, is

    f_01 s + f_012 s (s + g_1) + ...,     f_01 = (x0 - x0_1) / g_1,     f_012 = (f_01 - f_12) / (g_1 + g_2), ...

so each rule is the ddim step plus alpha' times integrals of such terms against e^(s - h).

A parabola carried further than its levels lie apart can be worse than a constant: the third-order rules lose to ddim
where levels are few and far apart in lam. On a Gaussian machine that is so on the edm grid up to twelve evaluations,
where `dpmpp_2m` is better than ddim.

A step out of alpha = 0 or into sigma = 0, where lam is not finite, is the ddim step. Earlier levels count, component
by component, as long as lam rose all the way from them: the order is one on the first step and grows with the history.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate, pairwise
from operator import and_

import torch
from torch import Tensor

from .machine import Machine
from .noise import Noise
from .sample import Step, ddim, sample

TERMS = 20  # of the series of the moments: 1 / 20! is below float64's rounding


def dpmpp_2m(machine, x, x0, now, nxt, past=(), rng=None) -> Tensor:
    """DPM-Solver++(2M): ddim + alpha' (1 - e^-h) (h / 2) f_01, of second order.

    The exact weight of the slope is e^-h - 1 + h. Half of h (1 - e^-h) agrees with it to second order in h, and is the
    published rule. Source: Lu et al. (2022), algorithm 2.
    """
    _, _, (_, (f_01,)) = _newton(x, x0, now, past, 1)
    return _move(x, x0, now, nxt, _half_bh2(_width(now, nxt, x)) * f_01)


def dpmpp_3m(machine, x, x0, now, nxt, past=(), rng=None) -> Tensor:
    """DPM-Solver++(3M): ddim + alpha' int_0^h e^(s - h) (f_01 s + f_012 s (s + g_1)) ds, of third order.

    The integral over the parabola is exact. Widely used code takes f_012 for the second derivative, which is twice as
    large; that halves the term s^2 f_012 and leaves the rule at second order. With less history the polynomial has a
    lower degree. Source: Lu et al. (2022).
    """
    (g_1, _), _, (_, (f_01, _), (f_012,)) = _newton(x, x0, now, past, 2)
    h = _width(now, nxt, x)
    return _move(x, x0, now, nxt, _moment(1, h) * f_01 + _quadratic(h, g_1) * f_012)


def unipc_bh1(machine, x, x0, now, nxt, past=(), rng=None) -> Tensor:
    """UniPC of order three with B(h) = h: the slope known from two levels only has the weight h^2 / 2.

    The step first corrects x, which the step before predicted, with x0 found there, then predicts by the parabola of
    `dpmpp_3m`. The correction is the integral of the next Newton term, f_0123, over the step before. Neither needs a
    further evaluation, and the last point of a walk is a prediction. Source: Zhao et al. (2023).
    """
    return _unipc(_half_bh1, x, x0, now, nxt, past)


def unipc_bh2(machine, x, x0, now, nxt, past=(), rng=None) -> Tensor:
    """UniPC of order three with B(h) = 1 - e^-h: as `unipc_bh1` with weight (1 - e^-h) h / 2, that of `dpmpp_2m`.

    Both differ only while there is little history, in the predictor of order two and the corrector of order one; later
    their linear systems have one solution, the exact integral, whatever B is. Source: Zhao et al. (2023).
    """
    return _unipc(_half_bh2, x, x0, now, nxt, past)


def evaluations(step: Step, levels: Sequence[Noise]) -> int:
    """Return how often `trajectory` evaluates a machine on these levels with this step rule, by counting."""
    counter = _Counter([])
    parts = [part for level in levels if isinstance(level, Noise) for part in (level.alpha, level.sigma)]
    shapes = [torch.as_tensor(part).shape for part in parts]
    x = torch.zeros(torch.broadcast_shapes((1,) * max([1, *map(len, shapes)]), *shapes))
    sample(counter, x, levels, step, torch.Generator().manual_seed(0))
    return len(counter.seen)


@dataclass(frozen=True)
class _Counter(Machine):
    seen: list

    def denoise(self, x: Tensor, noise: Noise) -> Tensor:
        self.seen.append(noise)
        return x


def _unipc(half: Callable[[Tensor], Tensor], x, x0, now, nxt, past) -> Tensor:
    (g_1, g_2, g_3), known, (_, (f_01, f_12, _), (f_012, _), (f_0123,)) = _newton(x, x0, now, past, 3)
    # corrector less predictor, of the step that led here, when it knew one, two or three levels
    one = half(g_1) * f_01
    two = (_moment(1, g_1) - half(g_1)) * f_12 + _quadratic(g_1, g_2) * f_012
    three = _cubic(g_1, g_2, g_2 + g_3) * f_0123
    x = (x + now.on(x)[0] * torch.where(known[2], three, torch.where(known[1], two, one))).to(x)
    h = _width(now, nxt, x)
    parabola = _moment(1, h) * f_01 + _quadratic(h, g_1) * f_012
    return _move(x, x0, now, nxt, torch.where(known[1], parabola, half(h) * f_01))


def _move(x: Tensor, x0: Tensor, now: Noise, nxt: Noise, integral: Tensor) -> Tensor:
    return (ddim(None, x, x0, now, nxt) + nxt.on(x)[0] * integral).to(x)


def _newton(x: Tensor, x0: Tensor, now: Noise, past, depth: int) -> tuple[list, list, list]:
    """Return gaps g_1 .. g_depth, masks of the usable ones, and the divided differences f[k][i] over levels i .. i + k.

    A difference that reaches back beyond the usable levels is zero. A gap within the square root of the rounding is
    none: what x0 differs by across it is rounding, and would be divided by it.
    """
    pairs = [(now, x0), *reversed(past)][: depth + 1]
    pairs += pairs[-1:] * (depth + 1 - len(pairs))  # repeated levels leave no gap, so they are not used
    gaps = [lam - earlier for lam, earlier in pairwise(_lam(noise, x) for noise, _ in pairs)]
    known = list(accumulate((gap.isfinite() & (gap > torch.finfo(gap.dtype).eps ** 0.5) for gap in gaps), and_))
    gaps = [gap.where(ok, 1) for gap, ok in zip(gaps, known, strict=True)]
    f = [[x0 for _, x0 in pairs]]
    for k in range(1, depth + 1):
        slopes = [(a - b) / reduce(torch.add, gaps[i : i + k]) for i, (a, b) in enumerate(pairwise(f[-1]))]
        f.append([torch.where(known[i + k - 1], slope, 0) for i, slope in enumerate(slopes)])
    return gaps, known, f


def _lam(noise: Noise, x: Tensor) -> Tensor:
    """log(alpha / sigma), in float32 at least, infinite where one of them is 0."""
    alpha, sigma = noise.on(x.to(torch.promote_types(x.dtype, torch.float32)))
    return alpha.log() - sigma.log()


def _width(now: Noise, nxt: Noise, x: Tensor) -> Tensor:
    """h, and 0 where it is not finite: all weights vanish there, which leaves the ddim step."""
    h = _lam(nxt, x) - _lam(now, x)
    return h.where(h.isfinite(), 0)


def _half_bh1(h: Tensor) -> Tensor:
    return h**2 / 2


def _half_bh2(h: Tensor) -> Tensor:
    return -h * torch.expm1(-h) / 2


def _quadratic(h: Tensor, a: Tensor) -> Tensor:
    """int_0^h e^(s - h) s (s + a) ds."""
    return _moment(2, h) + a * _moment(1, h)


def _cubic(h: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """int_0^h e^(s - h) s (s + a) (s + b) ds."""
    return _moment(3, h) + (a + b) * _moment(2, h) + a * b * _moment(1, h)


def _moment(n: int, h: Tensor) -> Tensor:
    """I_n = int_0^h e^(s - h) s^n ds = h^n - n I_(n - 1), and by its series in h where that would cancel."""
    near = h.abs() < 1
    series, small = torch.ones_like(h), h.where(near, 0)
    for k in range(TERMS, n + 1, -1):
        series = 1 - small / k * series
    moment = -torch.expm1(-h)
    for k in range(1, n + 1):
        moment = h**k - k * moment
    return torch.where(near, small ** (n + 1) / (n + 1) * series, moment)
