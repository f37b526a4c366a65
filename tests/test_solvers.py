"""Solvers in the log-SNR: exact integrals, published rules, order, schedules, component-wise levels, ends."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from scoremachines import (
    Gaussian,
    Ideal,
    Machine,
    Noise,
    cosine,
    ddim,
    ddpm,
    edm,
    edm_levels,
    flow,
    heun,
    levels,
    sample,
    trajectory,
    vp,
)
from scoremachines.solvers import _cubic, _moment, _quadratic, dpmpp_2m, dpmpp_3m, evaluations, unipc_bh1, unipc_bh2

RULES = (dpmpp_2m, dpmpp_3m, unipc_bh1, unipc_bh2)
UNIPC = (unipc_bh1, unipc_bh2)
SCHEDULES = [vp, cosine, edm, flow]
CLEAN = Noise(1.0, 0.0)


@dataclass(frozen=True)
class Clock(Machine):
    """x0 is a given function of lam = log(alpha / sigma) alone, so that the flow is one integral."""

    x0: Callable[[float], float]

    def denoise(self, x, noise):
        return torch.full_like(x, self.x0(lam(noise)))

    def flow(self, x, start, end):
        return through(self.x0, x, start, end)


def lam(noise: Noise) -> float:
    return math.log(noise.alpha / noise.sigma)


def integral(f: Callable, h: float) -> float:
    """int_0^h e^(s - h) f(s) ds by Gauss and Legendre."""
    node, weight = np.polynomial.legendre.leggauss(60)
    s = h * (node + 1) / 2
    return float(h / 2 * np.sum(weight * np.exp(s - h) * np.vectorize(f)(s)))


def through(x0: Callable[[float], float], x: Tensor, start: Noise, end: Noise) -> Tensor:
    """The flow between two levels when x0 is a function of lam."""
    h = lam(end) - lam(start)
    return end.sigma / start.sigma * x + end.alpha * integral(lambda s: x0(lam(start) + s), h)


def grid(schedule, n):
    """n steps at even times to sigma = 0; for edm its own grid."""
    if schedule is edm:
        return edm_levels(n)
    return levels(schedule, torch.linspace(1, 0, n + 1, dtype=torch.float64).tolist())


def smooth(schedule, n):
    """n steps inside the range of levels, at even times; for edm even in log sigma."""
    times = torch.linspace(0, 1, n + 1, dtype=torch.float64).tolist()
    return [edm(20.0 * 0.005**t) if schedule is edm else schedule(0.9 - 0.8 * t) for t in times]


def start(machine, level, randn):
    return level.sigma * randn(32, 5) + level.alpha * machine.mean


def error(machine, step, walk, randn):
    """Root mean square distance of the end points to the exact flow."""
    x = start(machine, walk[0], randn)
    return distance(sample(machine, x, walk, step), machine.flow(x, walk[0], walk[-1]))


def distance(a, b):
    return (a - b).square().mean().sqrt().item()


def continued(machine, step, walk, x):
    """Walk from walk[3] with exact values before: what a solver does once it has its full history."""
    past = [(level, machine.denoise(machine.flow(x, walk[0], level), level)) for level in walk[:3]]
    x = machine.flow(x, walk[0], walk[3])
    for now, nxt in pairwise(walk[3:]):
        x0 = machine.denoise(x, now)
        x, past = step(machine, x, x0, now, nxt, tuple(past[-3:]), None), [*past, (now, x0)]
    return x


# Integrals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("h", [-3.0, -0.3, 1e-9, 1e-3, 0.1, 0.999, 1.001, 3.0, 12.0])
def test_moments_are_the_integrals(h):
    width, a, b = (torch.tensor(v, dtype=torch.float64) for v in (h, 0.4, 1.7))
    for n in range(4):
        assert _moment(n, width).item() == pytest.approx(integral(lambda s, n=n: s**n, h), rel=1e-12)
    assert _quadratic(width, a).item() == pytest.approx(integral(lambda s: s * (s + 0.4), h), rel=1e-11)
    assert _cubic(width, a, b).item() == pytest.approx(integral(lambda s: s * (s + 0.4) * (s + 1.7), h), rel=1e-11)


WALK = [Noise(0.1, 1.3), Noise(0.2, 1.0), Noise(0.35, 0.9), Noise(0.5, 0.6), Noise(0.9, 0.5), Noise(1.0, 0.2)]


@pytest.mark.parametrize("step", RULES)
def test_a_constant_takes_any_number_of_steps(step, randn):
    target = torch.tensor([[0.2, -0.7, 0.5]], dtype=torch.float64)
    for schedule in SCHEDULES:
        for n in (1, 5):
            x = sample(Ideal.fit(target), grid(schedule, n)[0].sigma * randn(4, 3), grid(schedule, n), step)
            assert_close(x, target.expand(4, 3), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("step", [dpmpp_3m, unipc_bh1, unipc_bh2])
def test_a_parabola_is_integrated_exactly(step, randn):
    machine = Clock(np.polynomial.Polynomial([0.3, -0.5, 0.2]))
    x = randn(2, 3)
    assert_close(continued(machine, step, WALK, x), machine.flow(x, WALK[0], WALK[-1]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("known", [0, 1, 2])
def test_3m_integrates_the_degree_its_history_allows(known, randn):
    """After one earlier level a line, after none a constant; further back nothing is made up."""
    machine, x = Clock(np.polynomial.Polynomial([0.3, -0.5, 0.2][: known + 1])), randn(2, 3)
    past = tuple((level, machine.denoise(x, level)) for level in WALK[3 - known : 3])
    moved = dpmpp_3m(machine, x, machine.denoise(x, WALK[3]), *WALK[3:5], past)
    assert_close(moved, machine.flow(x, *WALK[3:5]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("step", UNIPC)
def test_unipc_corrects_by_the_cubic_and_predicts_by_the_parabola(step, randn):
    """For a cubic the prediction it is given is put right exactly, and only the next one is wrong."""
    cubic = np.polynomial.Polynomial([0.3, -0.5, 0.2, 0.4])
    machine, x = Clock(cubic), randn(2, 3)

    def predicted(k):
        """From the exact value at WALK[k - 1] to WALK[k], along the parabola through the three levels before it."""
        nodes = [lam(level) for level in WALK[k - 3 : k]]
        parabola = np.polynomial.Polynomial.fit(nodes, cubic(np.array(nodes)), 2)
        return through(parabola, machine.flow(x, WALK[0], WALK[k - 1]), *WALK[k - 1 : k + 1])

    past = tuple((level, machine.denoise(x, level)) for level in WALK[1:4])
    moved = step(machine, predicted(4), machine.denoise(x, WALK[4]), *WALK[4:6], past)
    assert distance(moved, machine.flow(x, WALK[0], WALK[5])) > 1e-3
    assert_close(moved, predicted(5), rtol=1e-12, atol=1e-12)


# Published rules ------------------------------------------------------------------------------------------------


def test_2m_is_ddim_from_an_extrapolated_point(machine, randn):
    """D = (1 + 1 / (2 r)) x0 - 1 / (2 r) x0_1 with r = g_1 / h, in the place of x0."""
    earlier, now, nxt = WALK[1:4]
    x, x0, before = randn(4, 5), randn(4, 5), randn(4, 5)
    r = (lam(now) - lam(earlier)) / (lam(nxt) - lam(now))
    point = (1 + 1 / (2 * r)) * x0 - before / (2 * r)
    assert_close(dpmpp_2m(machine, x, x0, now, nxt, ((earlier, before),)), ddim(machine, x, point, now, nxt))


def unified(machine, x, walk, B):
    """UniPC as published: weights rho solve R rho = b, R = r^(k - 1), b_k = k! phi_(k + 1) h^k / B, with state."""
    seen = [(lam(walk[0]), machine.denoise(x, walk[0]))]
    for k, (now, nxt) in enumerate(pairwise(walk)):
        order, h = min(k + 1, 3), lam(nxt) - lam(now)
        b = [integral(lambda s, i=i: s**i, h) / h**i / B(h) for i in range(1, order + 1)]
        r = [(l - seen[-1][0]) / h for l, _ in seen[-2 : -order - 1 : -1]] + [1.0]
        D = [(x0 - seen[-1][1]) / s for (_, x0), s in zip(seen[-2 : -order - 1 : -1], r[:-1], strict=True)]

        def solved(r, b):
            return [0.5] if len(r) == 1 else np.linalg.solve(np.vander(r, increasing=True).T, b)

        base = ddim(machine, x, seen[-1][1], now, nxt)

        def moved(rho, D, base=base, nxt=nxt, h=h):
            return base + nxt.alpha * B(h) * sum(float(p) * d for p, d in zip(rho, D, strict=True))

        end = moved(solved(r[:-1], b[:-1]), D) if D else moved([], [])
        x0 = machine.denoise(end, nxt)
        x = moved(solved(r, b), [*D, x0 - seen[-1][1]])
        seen.append((lam(nxt), x0))
    return end


@pytest.mark.parametrize(("step", "B"), [(unipc_bh1, lambda h: h), (unipc_bh2, lambda h: -math.expm1(-h))])
@pytest.mark.parametrize("count", [2, 3, 4, 6])
def test_unipc_without_state_is_the_published_predictor_corrector(machine, randn, step, B, count):
    x = randn(4, 5)
    assert_close(sample(machine, x, WALK[:count], step), unified(machine, x, WALK[:count], B), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_two_b_differ_only_at_the_start(machine, randn, schedule):
    x, walk = randn(4, 5), smooth(schedule, 5)
    ends = [sample(machine, x, walk, step) for step in UNIPC]
    assert distance(*ends) > 1e-4
    ends = [continued(machine, step, walk, x) for step in UNIPC]
    assert_close(*ends, rtol=1e-14, atol=1e-14)


# Order ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("step", "order", "n"), [(dpmpp_2m, 2, 256), (dpmpp_3m, 3, 160), (unipc_bh1, 4, 100)])
def test_order_of_the_solvers(machine, randn, schedule, step, order, n):
    """Doubling the steps divides the error by 2^order; UniPC's corrector adds one to the order of its predictor.

    After the start unipc_bh2 is unipc_bh1.
    """
    x = start(machine, smooth(schedule, 1)[0], randn)
    errors = []
    for steps in (n, 2 * n):
        walk = smooth(schedule, steps)
        errors.append(distance(continued(machine, step, walk, x), machine.flow(x, walk[0], walk[-1])))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


def half_curved(machine, x, x0, now, nxt, past, rng):
    """dpmpp_3m with half of the second derivative of x0."""
    (l_2, x0_2), (l_1, x0_1) = ((lam(noise), x0) for noise, x0 in past[-2:])
    f_01, f_12 = (x0 - x0_1) / (lam(now) - l_1), (x0_1 - x0_2) / (l_1 - l_2)
    curve = (f_01 - f_12) / (lam(now) - l_2)
    h = lam(nxt) - lam(now)
    missing = integral(lambda s: s**2 / 2, h) * curve
    return dpmpp_3m(machine, x, x0, now, nxt, past) - nxt.alpha * missing


@pytest.mark.parametrize(("step", "order"), [(dpmpp_3m, 3), (half_curved, 2)])
def test_half_of_the_curvature_costs_an_order(machine, randn, step, order):
    """The error of one step falls as h^(order + 1) when all that came before is exact."""
    x = start(machine, edm(0.3), randn)
    walks = [[edm(0.3 * math.exp(-h * k)) for k in range(5)] for h in (0.01, 0.005)]
    coarse, fine = (distance(continued(machine, step, w, x), machine.flow(x, w[0], w[-1])) for w in walks)
    assert math.log2(coarse / fine) == pytest.approx(order + 1, abs=0.15)


# Few evaluations ------------------------------------------------------------------------------------------------


# the number of evaluations up to which a rule is worse than ddim; no other is
WORSE = {(vp, heun): 8, (edm, heun): 20} | {(edm, step): 12 for step in RULES[1:]}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("n", [5, 8, 12, 20])
@pytest.mark.parametrize("step", [heun, *RULES])
def test_where_ddim_is_better(machine, randn, schedule, n, step):
    """Heun gets the steps that n evaluations pay for."""
    x = start(machine, grid(schedule, 1)[0], randn)
    walks = {ddim: grid(schedule, n), step: grid(schedule, (n + 1) // 2 if step is heun else n)}
    assert all(evaluations(rule, walk) in (n - 1, n) for rule, walk in walks.items())
    base, found = (distance(sample(machine, x, w, r), machine.flow(x, w[0], w[-1])) for r, w in walks.items())
    assert found > base if n <= WORSE.get((schedule, step), 0) else found < 0.95 * base


@pytest.mark.parametrize("step", RULES[1:])
def test_third_order_needs_short_steps_in_the_log_snr(machine, randn, step):
    """Five levels of the edm grid lie up to 4.4 apart, and a parabola that far out is worse than a constant."""
    assert error(machine, step, edm_levels(20), randn) < error(machine, dpmpp_2m, edm_levels(20), randn) / 2
    even = [edm(80.0 * 2.5e-5 ** (k / 19)) for k in range(20)] + [CLEAN]
    assert error(machine, step, even, randn) < error(machine, step, edm_levels(20), randn) / 2


# Schedules and components ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", RULES)
@pytest.mark.parametrize("schedule", [vp, cosine, flow])
def test_equal_snr_gives_equal_end_points(machine, randn, step, schedule):
    """The rules see a schedule only through lam: x / alpha does not know which one it is."""
    walk = smooth(schedule, 7)
    scaled = [edm(level.sigma / level.alpha) for level in walk]
    x = randn(4, 5)
    end = sample(machine, x, walk, step) / walk[-1].alpha
    assert_close(sample(machine, x / walk[0].alpha, scaled, step), end, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("step", RULES)
def test_equal_component_levels_step_like_one_level(machine, randn, step):
    x, ones = randn(3, 5), torch.ones(1, 5).double()
    many = [Noise(n.alpha * ones, n.sigma * ones) for n in WALK]
    assert_close(sample(machine, x, many, step), sample(machine, x, WALK, step), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("step", RULES)
def test_components_with_their_own_levels_walk_alone(randn, step):
    """With independent components, one of which starts without signal and one of which waits, then moves on."""
    spread = torch.tensor([1.5, 0.5, 0.1]).double()
    joint = Gaussian(torch.full((3,), 0.2).double(), spread**2, torch.eye(3).double(), spread[0] * 0, torch.Size([3]))
    walks = [
        [(0.0, 1.0), (0.1, 0.9), (0.2, 0.8), (0.4, 0.6), (0.6, 0.4), (1.0, 0.0)],
        [(0.3, 0.9), (0.4, 0.8), (0.4, 0.8), (0.4, 0.8), (0.6, 0.7), (0.8, 0.2)],
        [(1.0, 9.0), (1.0, 5.0), (1.0, 2.0), (1.0, 1.0), (1.0, 0.6), (1.0, 0.1)],
    ]
    x = randn(4, 3)
    together = sample(
        joint, x, [Noise(*torch.tensor(at, dtype=torch.float64).T[:, None]) for at in zip(*walks, strict=True)], step
    )
    for i, walk in enumerate(walks):
        own = Gaussian(joint.mean[:1], joint.lam[i : i + 1], torch.ones(1, 1).double(), spread[0] * 0, torch.Size([1]))
        alone = sample(own, x[:, i : i + 1], [Noise(*at) for at in walk], step)
        assert_close(together[:, i : i + 1], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("step", RULES)
@pytest.mark.parametrize("still", [(0.7, 0.5), (1.0, 0.0), (0.0, 1.0)], ids=["noisy", "clean", "pure"])
def test_a_component_with_equal_levels_is_left_alone(machine, randn, step, still):
    def level(noise):
        rest = [[first] + [value] * 4 for first, value in zip(still, (noise.alpha, noise.sigma), strict=True)]
        return Noise(*(torch.tensor([row], dtype=torch.float64) for row in rest))

    x = randn(3, 5)
    states = list(trajectory(machine, x, [level(noise) for noise in WALK], step))
    for state in states:
        assert torch.equal(state.x[:, 0], x[:, 0])
    assert (states[-1].x[:, 1:] != x[:, 1:]).all()


@pytest.mark.parametrize("step", RULES)
def test_images_with_their_own_levels_walk_alone(machine, randn, step):
    x = randn(2, 5)
    walks = [smooth(flow, 5), smooth(vp, 5)]
    column = lambda *values: torch.tensor(values, dtype=torch.float64)[:, None]  # noqa: E731
    walk = [Noise(column(a.alpha, b.alpha), column(a.sigma, b.sigma)) for a, b in zip(*walks, strict=True)]
    together = sample(machine, x, walk, step)
    for b in range(2):
        assert_close(together[b : b + 1], sample(machine, x[b : b + 1], walks[b], step), rtol=1e-9, atol=1e-9)


# Ends and history -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", RULES)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ends_without_signal_and_without_noise_are_ddim_steps(machine, randn, step, schedule):
    x, walk = randn(3, 5), grid(schedule, 6)
    states = list(trajectory(machine, x, walk, step))
    assert all(state.x.isfinite().all() for state in states)
    assert torch.equal(states[1].x, ddim(machine, x, states[0].x0, *walk[:2]))
    assert walk[-1].clean
    if step not in UNIPC:  # which correct x before they end in x0
        assert torch.equal(states[-1].x, ddim(machine, states[-2].x, states[-2].x0, *walk[-2:]))
    assert_close(states[-1].x, states[-2].x0)


@pytest.mark.parametrize("step", RULES)
def test_a_level_without_signal_is_no_history(machine, randn, step):
    x, x0 = randn(3, 5), randn(3, 5)
    pure = (Noise(0.0, 1.0), randn(3, 5))
    moved = step(machine, x, x0, *WALK[2:4], (pure,))
    assert torch.equal(moved, ddim(machine, x, x0, *WALK[2:4]))
    one = (WALK[1], randn(3, 5))
    assert torch.equal(step(machine, x, x0, *WALK[2:4], (pure, one)), step(machine, x, x0, *WALK[2:4], (one,)))


@pytest.mark.parametrize("step", RULES)
def test_a_change_of_scale_is_no_history(machine, randn, step):
    """Between levels of one signal-to-noise ratio, equal within rounding, x0 has no slope to learn."""
    x, now = randn(3, 5), Noise(0.3, 0.7)
    walk = [now, Noise(0.3 * 0.37, 0.7 * 0.37), Noise(0.9, 0.5)]
    expected = sample(machine, x, [now, walk[-1]], ddim)
    assert_close(sample(machine, x, walk, step), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("step", RULES)
def test_a_walk_back_into_noise_is_ddim(machine, randn, step):
    x, walk = randn(3, 5), WALK[::-1]
    assert torch.equal(sample(machine, x, walk, step), sample(machine, x, walk, ddim))


@pytest.mark.parametrize("step", RULES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_dtype_follows_x_and_the_start_is_left_alone(machine, randn, step, dtype, tolerance):
    x = randn(3, 5)
    cast, walk = x.to(dtype), grid(cosine, 6)
    states = list(trajectory(machine, cast, walk, step))
    assert all(state.x.dtype == state.x0.dtype == dtype for state in states)
    assert torch.equal(cast, x.to(dtype))
    assert_close(states[-1].x.double(), sample(machine, x, walk, step), rtol=tolerance, atol=tolerance)


# Cost -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_evaluations_to_the_end(schedule):
    """One per level, and 2 n - 1 for heun."""
    assert [evaluations(step, grid(schedule, 9)) for step in (*RULES, ddim, ddpm, heun)] == [9] * 6 + [17]


def test_evaluations_between_noisy_levels_of_any_form():
    """The state at the last level has its x0 too."""
    column = [Noise(1.0, torch.full((4, 1, 1), s)) for s in (3.0, 2.0, 1.0)]
    image = [Noise(torch.ones(1, 2, 3), torch.full((1, 2, 3), s)) for s in (3.0, 2.0, 1.0)]
    for walk in (WALK[:3], column, image, [edm(2.0), *column[2:]]):
        assert evaluations(dpmpp_2m, walk) == len(walk)
        assert evaluations(heun, walk) == 2 * len(walk) - 1


def test_evaluations_of_what_is_no_walk():
    with pytest.raises(ValueError, match="levels is empty"):
        evaluations(ddim, [])
    with pytest.raises(ValueError, match="something else than Noise"):
        evaluations(ddim, [3.0, CLEAN])
