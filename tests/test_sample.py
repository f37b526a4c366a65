"""Steps and trajectories: order, law, bridge, bookkeeping."""

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from scoremachines import (
    Gaussian,
    Ideal,
    Machine,
    Noise,
    State,
    cosine,
    cosine_legacy,
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

STEPS = (ddim, heun, ddpm)
CLEAN = Noise(1.0, 0.0)
SCHEDULES = [cosine, cosine_legacy, vp, flow]


@dataclass(frozen=True)
class Spy(Machine):
    """Records the levels at which another machine is evaluated."""

    machine: Machine
    seen: list

    def denoise(self, x, noise):
        self.seen.append(noise)
        return self.machine.denoise(x, noise)


def grid(schedule, n):
    """n steps at even times to sigma = 0; for edm its own grid."""
    if schedule is edm:
        return edm_levels(n)
    return levels(schedule, torch.linspace(1, 0, n + 1, dtype=torch.float64).tolist())


def error(machine, step, walk, randn):
    """Root mean square distance of the end points to the exact flow."""
    x = walk[0].sigma * randn(32, 5) + walk[0].alpha * machine.mean
    exact = machine.flow(x, walk[0], walk[-1])
    return (sample(machine, x, walk, step) - exact).square().mean().sqrt().item()


# Order ----------------------------------------------------------------------------------------------------------


def smooth(schedule, n):
    """n steps inside the range of levels, at even times; for edm even in log sigma."""
    times = torch.linspace(0, 1, n + 1, dtype=torch.float64)
    if schedule is edm:
        return [edm(20.0 * 0.005 ** t.item()) for t in times]
    return [schedule(0.9 - 0.8 * t.item()) for t in times]


@pytest.mark.parametrize("schedule", [*SCHEDULES, edm])
@pytest.mark.parametrize(("step", "order"), [(ddim, 1), (heun, 2)])
def test_order_of_the_solvers(machine, randn, schedule, step, order):
    """Doubling the steps divides the distance to the exact flow by 2^order."""
    coarse, fine = (error(machine, step, smooth(schedule, n), randn) for n in (128, 256))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("schedule", [*SCHEDULES, edm])
@pytest.mark.parametrize("n", [8, 16, 32])
def test_heun_is_better_than_ddim_with_few_steps(machine, randn, schedule, n):
    assert error(machine, heun, grid(schedule, n), randn) < error(machine, ddim, grid(schedule, n), randn)


@pytest.mark.parametrize("schedule", [*SCHEDULES, edm])
@pytest.mark.parametrize("n", [16, 32])
def test_heun_is_better_than_ddim_at_equal_cost(machine, randn, schedule, n):
    """Both with 2 n - 1 evaluations. With 21 evaluations or fewer on the edm grid ddim is the better one."""
    assert error(machine, heun, grid(schedule, n), randn) < error(machine, ddim, grid(schedule, 2 * n - 1), randn)


@pytest.mark.parametrize("step", [ddim, heun])
def test_a_point_mass_is_reached_in_any_number_of_steps(step, randn):
    """With one image D never moves and every solver is exact."""
    target = torch.tensor([[0.2, -0.7, 0.5]], dtype=torch.float64)
    for schedule in [*SCHEDULES, edm]:
        for n in (1, 2, 7):
            x = sample(Ideal.fit(target), grid(schedule, n)[0].sigma * randn(4, 3), grid(schedule, n), step)
            assert_close(x, target.expand(4, 3), rtol=1e-9, atol=1e-9)


def test_ddim_is_the_mixture_of_prediction_and_noise(machine, randn):
    x, now, nxt = randn(4, 5), Noise(0.6, 0.8), Noise(0.9, 0.3)
    x0 = machine.denoise(x, now)
    assert_close(ddim(machine, x, x0, now, nxt), 0.9 * x0 + 0.3 * machine.eps(x, now))
    assert_close(ddim(machine, x, x0, now, CLEAN), x0)


def test_heun_is_the_trapezoid(machine, randn):
    x, now, nxt = randn(4, 5), Noise(0.6, 0.8), Noise(0.9, 0.3)
    x0 = machine.denoise(x, now)
    end = ddim(machine, x, x0, now, nxt)
    slopes = [0.3 * machine.denoise(z, n) - 0.5 * machine.eps(z, n) for z, n in [(x, now), (end, nxt)]]
    assert_close(heun(machine, x, x0, now, nxt), x + (slopes[0] + slopes[1]) / 2)


# The ancestral step ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "nxt"),
    [(Noise(0.6, 0.8), Noise(0.9, 0.4)), (Noise(1.0, 5.0), Noise(1.0, 3.0)), (Noise(0.0, 1.0), Noise(0.2, 0.8))],
)
def test_ddpm_draws_from_the_bridge(randn, now, nxt):
    """q(x'|x, x0) by Bayes: prior N(alpha' x0, sigma'^2), likelihood of x from x' by the forward process."""
    x, x0 = randn(4, 5), randn(4, 5)
    ratio = now.alpha / nxt.alpha
    forward = now.sigma**2 - ratio**2 * nxt.sigma**2
    precision = 1 / nxt.sigma**2 + ratio**2 / forward
    mean = (nxt.alpha * x0 / nxt.sigma**2 + ratio * x / forward) / precision
    z = torch.randn(4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    draw = ddpm(None, x, x0, now, nxt, rng=torch.Generator().manual_seed(1))
    assert_close(draw, mean + z / math.sqrt(precision))


@pytest.mark.parametrize("schedule", [cosine, vp, flow, edm])
def test_ddpm_samples_the_law(schedule, randn, rng):
    """Means and covariances of many chains, at the middle and at the end, within five standard errors."""
    data = torch.tensor([[1.0, 0.5], [-0.5, 0.6], [0.2, -0.9], [0.4, 0.1]], dtype=torch.float64)
    machine, draws = Gaussian.fit(data), 4000
    walk = grid(schedule, 300) if schedule is not edm else edm_levels(300, sigma_min=0.01, sigma_max=20)
    first = walk[0]
    x = machine.flow(randn(draws, 2), Noise(0.0, 1.0), first)
    for k, state in enumerate(trajectory(machine, x, walk, ddpm, rng)):
        if k in (150, 225, 300):
            alpha, sigma = state.noise.alpha, state.noise.sigma
            cov = alpha**2 * machine.cov + sigma**2 * torch.eye(2)
            centred = state.x - alpha * machine.mean
            assert (centred.mean(0).abs() < 5 * (cov.diagonal() / draws).sqrt()).all()
            spread = ((cov.diagonal()[:, None] * cov.diagonal() + cov**2) / draws).sqrt()
            assert ((centred.T @ centred / draws - cov).abs() < 5 * spread + 0.01 * cov.diagonal().max()).all()


def law(step, walk, lam, missing=0.0):
    """Variances at the end, some missing at the start: a step is x -> a x + b z on a Gaussian of variances lam."""
    D = len(lam)
    machine = Gaussian(torch.zeros_like(lam), lam, torch.eye(D, dtype=lam.dtype), lam.new_zeros(()), torch.Size([D]))
    z = torch.randn(2, D, generator=torch.Generator().manual_seed(4), dtype=lam.dtype)
    v = walk[0].alpha ** 2 * lam + walk[0].sigma ** 2 - missing
    for now, nxt in pairwise(walk):
        x = torch.stack([torch.zeros_like(lam), torch.ones_like(lam)])
        y = step(machine, x, machine.denoise(x, now), now, nxt, (), torch.Generator().manual_seed(4))
        b = y[0] / z[0]
        v = (y[1] - b * z[1]) ** 2 * v + b**2
    return v


@pytest.mark.parametrize("schedule", [*SCHEDULES, edm])
@pytest.mark.parametrize("step", [ddim, ddpm])
def test_the_law_of_first_order_rules(machine, schedule, step):
    """They lose variance, never add any, and half as much of it with twice the steps."""
    lam, errors = machine.lam, []
    for n in (128, 256):
        walk = smooth(schedule, n)
        missing = walk[-1].alpha ** 2 * lam + walk[-1].sigma ** 2 - law(step, walk, lam)
        assert (missing > 0).all()
        errors.append(missing.square().mean().sqrt().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("end", [0.7, 0.1, 0.0])
def test_what_a_step_loses_and_forgives(end):
    """The deficit of variance, q' - v', after a step from sigma = 0.8 where delta is missing already."""
    lam, sigma, delta = torch.tensor([2.0, 0.5, 0.01], dtype=torch.float64), 0.8, 0.1
    q, q_next, loss = lam + sigma**2, lam + end**2, lam * (sigma - end) ** 2 / (lam + sigma**2)
    rules = {ddim: (1, (lam + sigma * end) ** 2 / q**2), ddpm: ((1 + end / sigma) ** 2, (q_next / q) ** 2)}
    for step, (lost, kept) in rules.items():
        found = law(step, [Noise(1.0, sigma), Noise(1.0, end)], lam, missing=delta)
        assert_close(q_next - found, lost * loss + kept * delta)


def test_ddpm_loses_twice_the_share_of_ddim():
    """With levels equally spaced by h in log sigma it tends to h, and to h / 2, for every variance."""
    h, lam = 0.01, torch.tensor([4.0, 1.0, 0.1], dtype=torch.float64)
    walk = [edm(1e4 * math.exp(-h * k)) for k in range(1900)]
    shares = [(1 - law(step, walk, lam) / (lam + walk[-1].sigma ** 2)) / h for step in (ddim, ddpm)]
    assert_close(shares[0], torch.full_like(lam, 0.5), rtol=0.01, atol=0)
    assert_close(shares[1], torch.full_like(lam, 1.0), rtol=0.01, atol=0)


def test_ddpm_needs_a_generator(machine, randn):
    with pytest.raises(ValueError, match="no generator"):
        sample(machine, randn(2, 5), [Noise(0.5, 0.8), CLEAN], ddpm)


def test_the_generator_decides_the_chain(machine, randn):
    x, walk = randn(3, 5), grid(cosine, 10)
    draws = [sample(machine, x, walk, ddpm, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    state = torch.get_rng_state()
    sample(machine, x, walk, ddpm, torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), state)


# Component-wise levels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("still", [(0.7, 0.5), (1.0, 0.0)], ids=["noisy", "clean"])
def test_a_component_with_equal_levels_is_left_alone(machine, randn, rng, step, still):
    def level(alpha, sigma):
        return Noise(
            *(
                torch.tensor([[first] + [value] * 4]).double()
                for first, value in zip(still, (alpha, sigma), strict=True)
            )
        )

    now, nxt = level(0.6, 0.8), level(0.9, 0.2)
    x = randn(3, 5)
    moved = step(machine, x, machine.denoise(x, now), now, nxt, (), rng)
    assert torch.equal(moved[:, 0], x[:, 0])
    assert (moved[:, 1:] != x[:, 1:]).all()


@pytest.mark.parametrize("step", STEPS)
def test_equal_component_levels_step_like_one_level(machine, randn, step):
    x, ones = randn(3, 5), torch.ones(1, 5).double()
    one = [Noise(0.6, 0.8), Noise(0.9, 0.3)]
    many = [Noise(n.alpha * ones, n.sigma * ones) for n in one]
    walks = [sample(machine, x, walk, step, torch.Generator().manual_seed(1)) for walk in (one, many)]
    assert_close(*walks)


@pytest.mark.parametrize("step", [ddim, heun])
def test_images_with_their_own_levels_walk_alone(machine, randn, step):
    x = randn(3, 5)
    column = lambda *values: torch.tensor(values).double()[:, None]  # noqa: E731
    walk = [Noise(column(0.1, 0.3, 0.6), column(1.0, 0.9, 0.8)), Noise(column(0.5, 0.8, 1.0), column(0.5, 0.6, 0.7))]
    together = sample(machine, x, walk, step)
    for b in range(3):
        alone = [Noise(n.alpha[b].item(), n.sigma[b].item()) for n in walk]
        assert_close(together[b : b + 1], sample(machine, x[b : b + 1], alone, step))


# Trajectories ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("schedule", [*SCHEDULES, edm])
def test_one_state_per_level(machine, randn, rng, step, schedule):
    walk = grid(schedule, 5)
    x = randn(3, 5)
    states = list(trajectory(machine, x, walk, step, rng))
    assert [state.noise for state in states] == walk
    assert all(isinstance(state, State) for state in states)
    assert torch.equal(states[0].x, x)
    for state in states[:-1]:
        assert_close(state.x0, machine.denoise(state.x, state.noise))
    assert states[-1].noise.clean
    assert torch.equal(states[-1].x0, states[-1].x)


@pytest.mark.parametrize("step", STEPS)
def test_a_walk_may_end_at_any_noise(machine, randn, rng, step):
    walk = [Noise(0.3, 0.9), Noise(0.5, 0.8), Noise(0.7, 0.6)]
    *_, last = trajectory(machine, randn(3, 5), walk, step, rng)
    assert last.noise is walk[-1]
    assert_close(last.x0, machine.denoise(last.x, walk[-1]))


def test_one_level_is_a_walk(machine, randn):
    x = randn(2, 5)
    (state,) = trajectory(machine, x, [Noise(1.0, 2.0)])
    assert torch.equal(state.x, x)
    assert_close(state.x0, machine.denoise(x, Noise(1.0, 2.0)))
    (state,) = trajectory(machine, x, [CLEAN])
    assert torch.equal(state.x0, x)


@pytest.mark.parametrize(("step", "count"), [(ddim, 18), (ddpm, 18), (heun, 35)])
@pytest.mark.parametrize("schedule", [*SCHEDULES, edm])
def test_evaluations_are_few_and_never_without_noise(machine, randn, rng, schedule, step, count):
    """One per level for ddim and ddpm, 2 n - 1 for heun."""
    spy = Spy(machine, [])
    sample(spy, randn(2, 5), grid(schedule, 18), step, rng)
    assert all(noise.sigma > 0 for noise in spy.seen)
    assert len(spy.seen) == count


@pytest.mark.parametrize("step", STEPS)
def test_a_clean_level_inside_the_walk_is_never_evaluated(machine, randn, rng, step):
    spy = Spy(machine, [])
    with pytest.raises(ValueError, match="sigma"):
        sample(spy, randn(2, 5), [Noise(0.6, 0.8), CLEAN, Noise(0.8, 0.6)], step, rng)
    assert all(noise.sigma > 0 for noise in spy.seen)


def test_the_walk_is_lazy(machine, randn):
    spy = Spy(machine, [])
    walk = trajectory(spy, randn(2, 5), grid(cosine, 50))
    assert spy.seen == []
    next(walk)
    next(walk)
    assert len(spy.seen) == 2


def test_steps_are_given_the_earlier_pairs(machine, randn):
    heard = []

    def listen(machine, x, x0, now, nxt, past, rng):
        heard.append((now, x0, past))
        return ddim(machine, x, x0, now, nxt)

    sample(machine, randn(2, 5), grid(cosine, 5), listen)
    assert heard[0][2] == ()
    for k, (_, _, past) in enumerate(heard[1:], start=1):
        assert len(past) == min(k, 3)
        for (noise, x0), (now, expected, _) in zip(past, heard[k - len(past) : k], strict=True):
            assert noise is now
            assert x0 is expected


@pytest.mark.parametrize("step", STEPS)
def test_the_start_is_left_alone_and_sets_the_dtype(machine, randn, rng, step):
    x = randn(2, 5).float()
    before = x.clone()
    for state in trajectory(machine, x, grid(cosine, 4), step, rng):
        assert state.x.dtype == state.x0.dtype == torch.float32
    assert torch.equal(x, before)


def test_sample_is_the_last_state(machine, randn):
    x, walk = randn(2, 5), grid(vp, 6)
    *_, last = trajectory(machine, x, walk, heun)
    assert torch.equal(sample(machine, x, walk, heun), last.x)


def test_no_level_is_no_walk(machine, randn):
    for f in (sample, lambda *args: list(trajectory(*args))):
        with pytest.raises(ValueError, match="levels is empty"):
            f(machine, randn(2, 5), [])


def test_the_ideal_machine_ends_on_its_data(randn):
    images = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    x = sample(Ideal.fit(images), 80 * randn(6, 1, 4, 4), edm_levels(25), heun)
    distance = torch.cdist(x.flatten(1), images.flatten(1)).amin(1)
    assert (distance < 1e-3).all()
