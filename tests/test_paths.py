"""Component-wise schedules: end points, slopes, orders and shares; strict order; the neighbouring methods."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from torch.testing import assert_close

from scoremachines import Gaussian, Noise, cosine, flow, vp
from scoremachines.bases import DCT, Pixel
from scoremachines.orders import by_column, by_frequency
from scoremachines.paths import (
    active_share,
    at_gamma,
    blurring,
    gamma_of,
    heat,
    inverse_softness,
    regulator,
    soft,
    stairs,
    walk,
)
from tests.conftest import pictures, refused, seeded

VARIANCE = torch.tensor([100.0, 10.0, 1.0, 0.1], dtype=torch.float64)
LABELS = -VARIANCE.log()
TIMES = (0.0, 0.1, 0.37, 0.5, 0.9, 1.0)
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def gammas(schedule, times=TIMES):
    """gamma at these times: (n, *shape)."""
    return torch.cat([gamma_of(schedule(t)) for t in times])


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def grid(n):
    """n + 1 times from 0 to 1."""
    return [k / n for k in range(n + 1)]


# gamma ---------------------------------------------------------------------------------------------------------------


def test_gamma_and_level_are_inverse():
    gamma = torch.linspace(-60, 60, 2401, dtype=torch.float64)[None]
    assert_close(gamma_of(at_gamma(gamma)), gamma, **EXACT)


def test_a_level_at_gamma_preserves_the_variance_and_has_that_signal_to_noise_ratio():
    gamma = torch.linspace(-60, 60, 241, dtype=torch.float64)[None]
    noise = at_gamma(gamma)
    assert_close(noise.alpha**2 + noise.sigma**2, torch.ones_like(gamma), **EXACT)
    assert_close(noise.snr, (-gamma).exp(), rtol=1e-12, atol=0)
    assert_close(noise.alpha**2, 1 / (1 + gamma.exp()), rtol=1e-12, atol=0)


def test_infinite_gamma_is_exact():
    gamma = numbers(-math.inf, math.inf, 0)[None]
    noise = at_gamma(gamma)
    assert noise.alpha.tolist() == [[1.0, 0.0, pytest.approx(0.5**0.5, rel=1e-15)]]
    assert noise.sigma.tolist() == [[0.0, 1.0, pytest.approx(0.5**0.5, rel=1e-15)]]
    assert torch.equal(gamma_of(noise)[0, :2], gamma[0, :2])


@pytest.mark.parametrize("gamma", [-800.0, -100.0, 100.0, 800.0, 3000.0])
def test_a_level_is_finite_where_the_ratio_overflows(gamma):
    noise = at_gamma(numbers(gamma)[None])
    assert 0 <= noise.alpha.item() <= 1
    assert 0 <= noise.sigma.item() <= 1
    assert max(noise.alpha.item(), noise.sigma.item()) == 1


def test_gamma_of_any_level():
    assert gamma_of(Noise(1.0, 80.0)).item() == pytest.approx(2 * math.log(80), rel=1e-15)
    assert_close(gamma_of(Noise(0.5, numbers(1, 2)[None])), 2 * numbers(2, 4).log()[None], **EXACT)
    assert gamma_of(Noise(torch.tensor(0.6), 0.8)).dtype == torch.float64


@pytest.mark.parametrize("schedule", [cosine, vp, flow])
def test_ends_of_the_common_schedules_have_no_nan(schedule):
    """At t = 0 there is no noise at all, and gamma is -inf, not NaN."""
    start, end = gamma_of(schedule(0.0)), gamma_of(schedule(1.0))
    assert start == -math.inf
    assert not end.isnan()
    assert end == math.inf or schedule is vp
    inside = torch.stack([gamma_of(schedule(t)) for t in torch.linspace(1e-6, 1 - 1e-6, 50).tolist()])
    assert inside.isfinite().all()
    assert (inside.diff() > 0).all()


# Soft conditioning ---------------------------------------------------------------------------------------------------


def test_ends_are_those_of_the_last_and_the_first_component():
    """Minus the log signal-to-noise ratio, data variance included, for variances 100, 10, 1 and 0.1."""
    found = gammas(soft(LABELS, 1.0, log_variance=VARIANCE.log()), (0.0, 1.0)) - VARIANCE.log()
    assert_close(found[0], numbers(-13.9, -11.6, -9.3, -7.0), atol=0.05, rtol=0)
    assert_close(found[1], numbers(3.0, 5.3, 7.6, 9.9), atol=0.05, rtol=0)
    steps = torch.arange(4.0, dtype=torch.float64) * math.log(10)
    assert_close(found, torch.stack([-7 + steps - steps[-1], 3 + steps]), **EXACT)


@pytest.mark.parametrize("a", [0.0, 0.4, 1.0, 1.6, 10.0])
@pytest.mark.parametrize(("clean", "noisy"), [(-7.0, 3.0), (-13.3, 5.0), (-7, 4)])
def test_end_points_hold_for_every_softness(a, clean, noisy):
    found = gammas(soft(LABELS, a, clean, noisy), (0.0, 1.0))
    assert found[0, -1].item() == pytest.approx(clean, abs=1e-12)  # the last component ends the run
    assert found[1, 0].item() == pytest.approx(noisy, abs=1e-12)  # the first component begins it
    assert (found[0] <= clean + 1e-12).all()
    assert (found[1] >= noisy - 1e-12).all()
    reach = a * math.log(1000)
    assert_close(found[1] - found[0], torch.full((4,), noisy - clean + reach, dtype=torch.float64), **EXACT)


def test_a_of_one_is_ordinary_diffusion():
    """With labels -log Sigma and unscaled components, all have one gamma; scaled ones, its ratio."""
    unscaled = gammas(soft(LABELS, 1.0, log_variance=-LABELS))
    assert_close(unscaled, unscaled[:, :1].expand(-1, 4), **EXACT)
    assert_close(gammas(soft(LABELS, 1.0)) + VARIANCE.log(), unscaled, **EXACT)


def test_a_of_zero_gives_all_components_one_signal_to_noise_ratio():
    found = gammas(soft(LABELS, 0.0, log_variance=VARIANCE.log())) - VARIANCE.log()
    assert_close(found, found[:, :1].expand(-1, 4), **EXACT)
    assert_close(gammas(soft(LABELS, 0.0)), found, **EXACT)


@pytest.mark.parametrize("a", [0.0, 0.7, 3.0])
def test_all_components_have_one_slope(a):
    found = gammas(soft(pictures(1, 3, 4)[0], a, log_variance=pictures(1, 3, 4, seed=1)[0])).flatten(1)
    rates = found.diff(dim=0) / numbers(*TIMES).diff()[:, None]
    assert_close(rates, rates[:1, :1].expand_as(rates), rtol=1e-10, atol=0)


def test_a_cap_keeps_every_component_between_its_ends():
    for variance in (torch.zeros(4, dtype=torch.float64), VARIANCE.log()):
        free, capped = (gammas(soft(LABELS, 2.0, -5.0, 2.0, variance, capped)) for capped in (False, True))
        assert_close(capped, free.clamp(variance - 5, variance + 2), **EXACT)
        assert (free != capped).any()
        assert_close(capped[0], variance - 5, **EXACT)
        assert_close(capped[-1], variance + 2, **EXACT)


def test_labels_count_by_their_differences():
    assert_close(gammas(soft(LABELS + 12.5, 1.3)), gammas(soft(LABELS, 1.3)), **EXACT)
    assert_close(gammas(soft(3 * LABELS, 1.3)), gammas(soft(LABELS, 3.9)), **EXACT)
    assert_close(gammas(soft(torch.full((4,), 2.0), 5.0)), gammas(soft(LABELS, 0.0)), **EXACT)


def test_larger_labels_have_more_noise_and_come_later():
    labels = pictures(1, 5, 5, seed=3)[0].flatten()
    found = gammas(soft(labels, 2.0, capped=True))[:, labels.argsort()]
    assert (found.diff(dim=1) >= 0).all()
    assert (found[3].diff() > 0).any()


@pytest.mark.parametrize(("direction", "first"), [("left to right", 0), ("right to left", 7)])
def test_columns_are_generated_in_the_direction_of_their_order(direction, first):
    """The first column of the direction is the first to reach its clean end, and the others follow one by one."""
    labels = by_column(Pixel(), (1, 8, 8), direction)
    for schedule in (soft(labels, 1.0, capped=True), soft(labels, 20.0, capped=True), stairs(labels, -7.0, 3.0)):
        path = torch.cat([gamma_of(level) for level in walk(schedule, 400)])
        done = (path <= -7 + 1e-9).double().argmax(0)  # the step at which each component is finished
        assert (done == done[:, :1]).all()  # whole columns
        order = done[0, 0].argsort()
        assert order.tolist() == (list(range(8)) if first == 0 else list(range(7, -1, -1)))
        assert len(done.unique()) == 8


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.99, 1.0])
def test_shifted_windows_are_capped_soft_conditioning(share):
    """Column c of n starts (1 - share) (n - 1 - c) / (n - 1) into the run, and moves for this share of it."""
    n, clean, noisy = 9, -8.0, 5.0
    labels = torch.arange(n, dtype=torch.float64)
    schedule = soft(labels, inverse_softness(labels, share, clean, noisy), clean, noisy, capped=True)
    offsets = (1 - share) * (n - 1 - labels) / (n - 1)
    for t in grid(40):
        window = (clean + (t - offsets) * (noisy - clean) / share).clamp(clean, noisy)
        assert_close(gamma_of(schedule(t))[0], window, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("a", [0.0, 0.3, 1.0, 4.0])
def test_active_share_is_the_time_a_component_moves(a):
    share, n = active_share(LABELS, a, -5.0, 2.0), 4000
    assert share == pytest.approx(7 / (7 + a * math.log(1000)), rel=1e-12)
    moving = gammas(soft(LABELS, a, -5.0, 2.0, capped=True), grid(n)).diff(dim=0) > 0
    assert_close(moving.double().mean(0), torch.full((4,), share, dtype=torch.float64), atol=2 / n, rtol=0)


@pytest.mark.parametrize("share", [0.01, 0.25, 1.0])
def test_active_share_and_inverse_softness_are_inverse(share):
    assert active_share(LABELS, inverse_softness(LABELS, share)) == pytest.approx(share, rel=1e-12)
    assert inverse_softness(LABELS, 1) == 0


@pytest.mark.parametrize(("a", "spacing", "count"), [(1.0, 0.5, 20), (0.5, 1.0, 20), (2.0, 1.0, 5), (10.0, 1.0, 1)])
def test_number_of_components_that_move_together(a, spacing, count):
    """G / (a spacing) for evenly spaced labels, away from the ends: 10 / (a spacing)."""
    labels = spacing * torch.arange(64, dtype=torch.float64)
    moving = gammas(soft(labels, a, capped=True), (0.4999, 0.50011)).diff(dim=0) > 0
    assert abs(int(moving.sum()) - count) <= 1


@pytest.mark.parametrize(("a", "most"), [(10.01, 1), (9.0, 2)])
def test_neighbours_do_not_overlap_once_a_times_their_gap_is_the_range(a, most):
    path = gammas(soft(torch.arange(5.0), a, capped=True), grid(2000))
    inside = (path > -7 + 1e-9) & (path < 3 - 1e-9)
    assert inside.sum(1).max() == most


# Strict order --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 101, 150, 200])
@pytest.mark.parametrize("ends", [(-math.inf, math.inf), (-7.0, 3.0)])
def test_stairs_finish_one_component_before_the_next_for_any_number(n, ends):
    """At the boundaries of the turns every component is exactly at one of its ends."""
    labels = torch.randperm(n, generator=seeded()).double()
    ends = at_gamma(numbers(*ends)[None])
    levels = walk(stairs(labels, *gamma_of(ends)[0].tolist()), n)
    for k, level in enumerate(levels):
        finished = (labels < k)[None]
        assert torch.equal(level.alpha, torch.where(finished, ends.alpha[0, 0], ends.alpha[0, 1]))
        assert torch.equal(level.sigma, torch.where(finished, ends.sigma[0, 0], ends.sigma[0, 1]))


@pytest.mark.parametrize("n", [3, 101, 130])
def test_stairs_move_one_component_at_a_time(n):
    labels = torch.arange(n).double()
    path = torch.cat([level.sigma for level in walk(stairs(labels), 3 * n)])
    moving = path.diff(dim=0) < 0
    assert (moving.sum(1) == 1).all()
    assert torch.equal(moving.double().argmax(1), torch.arange(n).repeat_interleave(3))
    assert path[0].eq(1).all()
    assert path[-1].eq(0).all()


def test_stairs_end_without_noise_and_begin_without_signal():
    schedule = stairs(numbers(0, 1, 2))
    assert schedule(0.0).clean
    assert schedule(1.0).alpha.tolist() == [[0.0, 0.0, 0.0]]
    finite = stairs(numbers(0, 1, 2), -6.0, 2.0)
    assert_close(gammas(finite, (0.0, 1.0)), numbers(-6, 2)[:, None].expand(2, 3), **EXACT)


def test_stairs_take_equal_labels_together():
    labels = numbers(2, -1, 2, 0.5)
    path = gammas(stairs(labels, -6.0, 2.0), grid(30))
    assert torch.equal(path[:, 0], path[:, 2])
    together = (path.diff(dim=0) > 0).sum(1)
    assert together.tolist() == [2] * 10 + [1] * 20  # the largest label gains noise first
    same = stairs(torch.zeros(3).double())
    assert_close(same(0.3).sigma ** 2, torch.full((1, 3), 0.3, dtype=torch.float64), **EXACT)


def test_stairs_go_straight_in_their_turn():
    labels = numbers(0, 1)
    times = (0.55, 0.7, 0.95)  # in the second half of a run, the component of the smaller label moves
    finite = gammas(stairs(labels, -6.0, 2.0), times)
    assert_close(finite[:, 0], -6 + 8 * (2 * numbers(*times) - 1), **EXACT)
    assert_close(finite[:, 1], torch.full((3,), 2.0, dtype=torch.float64), **EXACT)
    infinite = torch.cat([stairs(labels)(t).sigma for t in times])
    assert_close(infinite[:, 0] ** 2, 2 * numbers(*times) - 1, **EXACT)
    assert infinite[:, 1].eq(1).all()


def test_the_hard_limit_of_soft_conditioning_is_stairs():
    """Where a times the gap of neighbours is G = 10, the turns meet without a rest."""
    labels = numbers(2, 0, 1)
    found, expected = gammas(soft(labels, 10.0, capped=True), grid(60)), gammas(stairs(labels, -7.0, 3.0), grid(60))
    assert_close(found, expected, rtol=0, atol=1e-9)


# Shapes --------------------------------------------------------------------------------------------------------------

SCHEDULES = {
    "soft": lambda labels: soft(labels, 1.0),
    "stairs": stairs,
    "blurring": blurring,
    "heat": heat,
    "regulator": lambda labels: regulator(labels, (5.0, 0.1)),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("shape", [(6,), (1, 8, 8), (3, 4, 2)], ids=str)
def test_levels_have_the_axes_of_a_batch(name, shape):
    level = SCHEDULES[name](pictures(1, *shape)[0].abs())(0.4)
    assert level.alpha.shape == level.sigma.shape == (1, *shape)
    assert level.alpha.dtype == level.sigma.dtype == torch.float64


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_batch_as_long_as_a_sample_is_not_confused_with_it(name, randn):
    """Six samples of six components: noise goes by component, and one number per image has to say so."""
    level, x0, eps = SCHEDULES[name](torch.arange(6) / 20)(0.3), randn(6, 6), randn(6, 6)
    found = level.add(x0, eps)
    for i in range(6):
        assert_close(found[:, i], level.alpha[0, i] * x0[:, i] + level.sigma[0, i] * eps[:, i], **EXACT)
    per_image = Noise(level.alpha.T, level.sigma.T).add(x0, eps)
    assert (per_image - found).abs().max() > 0.01
    with pytest.raises(ValueError, match="axes"):
        Noise(level.alpha[0], level.sigma[0]).add(x0, eps)


def test_sixty_four_images_of_sixty_four_pixels(randn):
    data = randn(64, 1, 8, 8)
    machine, level = Gaussian.fit(data), soft(by_column(Pixel(), (1, 8, 8), "left to right"), 1.0)(0.5)
    batch = machine.denoise(data, level)
    single = torch.cat([machine.denoise(data[b : b + 1], level) for b in range(64)])
    assert_close(batch, single, rtol=1e-9, atol=1e-9)


# Neighbouring methods ------------------------------------------------------------------------------------------------

SHAPE = (1, 6, 4)
FREQUENCY = by_frequency(DCT(), SHAPE)


def dct_decay(blur, rows=6, columns=4):
    """exp(-blur^2 / 2 (pi k / n)^2), summed over both axes."""
    k, j = torch.arange(rows).double()[:, None] / rows, torch.arange(columns).double() / columns
    return torch.exp(-(blur**2) / 2 * math.pi**2 * (k**2 + j**2))


@pytest.mark.parametrize("t", TIMES)
def test_blurring_is_heat_on_top_of_a_common_schedule(t):
    for base, largest, least in ((cosine, 20.0, 0.001), (flow, 3.0, 0.1), (vp, 1.0, 0.0)):
        level = blurring(FREQUENCY, base, largest, least)(t)
        kept = (1 - least) * dct_decay(largest * math.sin(math.pi * t / 2) ** 2) + least
        assert_close(level.alpha[0, 0], base(t).alpha * kept, **EXACT)
        assert_close(level.sigma, torch.full((1, *SHAPE), base(t).sigma, dtype=torch.float64), **EXACT)


def test_blurring_ends():
    """It starts from the image itself, and never loses more of a frequency than the share it keeps."""
    assert torch.equal(blurring(FREQUENCY)(0.0).alpha, torch.ones(1, *SHAPE).double())
    level = blurring(FREQUENCY, vp, 20.0, 0.01)(1.0)
    assert level.alpha[0, 0, -1, -1].item() == pytest.approx(0.01 * vp(1.0).alpha, rel=1e-9)
    assert level.alpha[0, 0, 0, 0].item() == pytest.approx(vp(1.0).alpha, rel=1e-12)


@pytest.mark.parametrize("t", TIMES)
def test_heat_follows_its_formula(t):
    level = heat(FREQUENCY, 0.02, 0.25, 8.0)(t)
    assert_close(level.alpha[0, 0], dct_decay(0.25 * 32.0**t), **EXACT)
    assert_close(level.sigma, torch.full((1, *SHAPE), 0.02, dtype=torch.float64), **EXACT)


@pytest.mark.parametrize(("t", "blur"), [(0.0, 2.5), (0.5, 5.0), (1.0, 10.0)])
def test_heat_blurs_the_image_with_mirrored_borders(t, blur):
    """The same as a sampled Gaussian kernel, whose spectrum repeats only where it has vanished."""
    image = pictures(1, 1, 12, 10)
    level = heat(by_frequency(DCT(), (1, 12, 10)), smallest=2.5, largest=10.0)(t)
    blurred = DCT().synthesis(level.alpha * DCT().analysis(image))[0, 0]
    expected = gaussian_filter(image[0, 0].numpy(), blur, mode="reflect", truncate=9.0)
    assert_close(blurred, torch.from_numpy(expected), rtol=0, atol=1e-10)


def test_log_signal_to_noise_falls_by_the_frequency_squared_under_heat():
    """gamma_k = gamma_0 + (2 pi f_k)^2 b^2: slopes differ between components."""
    found = gammas(heat(FREQUENCY, 0.01, 0.5, 5.0))
    blur = 0.5 * 10 ** numbers(*TIMES)
    expected = 2 * math.log(0.01) + (2 * math.pi * FREQUENCY) ** 2 * (blur**2)[:, None, None, None]
    assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("p", [0.5, 1.0, 3.0])
def test_rational_regulator_is_soft_conditioning_by_the_log_of_the_frequency(p):
    frequency = by_frequency(DCT(), (1, 8, 8)) + 0.01
    labels, (highest, lowest) = frequency.log(), (6.0, 0.002)
    clean, noisy = 2 * p * (labels.max() - math.log(highest)), 2 * p * (labels.min() - math.log(lowest))
    same = soft(labels, 2 * p, clean.item(), noisy.item())
    assert_close(gammas(regulator(frequency, (highest, lowest), "rational", p)), gammas(same), **EXACT)


@pytest.mark.parametrize("p", [0.5, 1.0, 2.0])
def test_regulators_keep_the_cutoff_function_of_the_power(p):
    for t in TIMES:
        q = FREQUENCY / (0.8 ** (1 - t) * 0.01**t)
        exponential, rational = (regulator(FREQUENCY, (0.8, 0.01), form, p)(t) for form in ("exponential", "rational"))
        assert_close(exponential.alpha[0] ** 2, (-(q ** (2 * p))).exp(), **EXACT)
        assert_close(rational.alpha[0] ** 2, 1 / (1 + q ** (2 * p)), **EXACT)
        for level in (exponential, rational):
            assert_close(level.alpha**2 + level.sigma**2, torch.ones(1, *SHAPE).double(), **EXACT)
            assert (level.alpha[0, 0, 0, 0], level.sigma[0, 0, 0, 0]) == (1, 0)  # the mean is never noised


def test_the_exponential_regulator_is_the_power_kept_by_the_heat_equation():
    """exp(-(f / c)^2) = exp(-(2 pi f)^2 b^2): a cutoff c is a blur of b = 1 / (2 pi c)."""
    cutoff, blur = regulator(FREQUENCY, (0.5, 0.02)), heat(FREQUENCY, 0.01, 1 / math.pi, 25 / math.pi)
    for t in TIMES:
        assert_close(cutoff(t).alpha, blur(t).alpha, **EXACT)


@pytest.mark.parametrize("form", ["exponential", "rational"])
def test_a_steep_regulator_is_a_sharp_cutoff(form):
    """Frequencies beyond the cutoff are noise, those below are untouched: one shell after another."""
    frequency = torch.linspace(0.05, 0.5, 10).double()
    for t in (0.0, 0.3, 0.61, 1.0):
        level = regulator(frequency, (0.7, 0.03), form, p=400.0)(t)
        below = (frequency < 0.7 ** (1 - t) * 0.03**t).double()
        assert_close(level.alpha[0], below, atol=1e-3, rtol=0)
        assert_close(level.sigma[0], 1 - below, atol=1e-3, rtol=0)


# Walk ----------------------------------------------------------------------------------------------------------------


def test_walk_takes_a_number_of_steps_or_the_times():
    schedule = soft(LABELS, 1.0)
    levels = walk(schedule, 4)
    assert len(levels) == 5
    times = [1, 0.75, 0.5, 0.25, 0]
    for same in (times, tuple(times), iter(times), torch.tensor(times)):
        for level, other in zip(walk(schedule, same), levels, strict=True):
            assert torch.equal(level.alpha, other.alpha)
            assert torch.equal(level.sigma, other.sigma)
    assert_close(torch.cat([gamma_of(level) for level in walk(schedule, 1)]), gammas(schedule, (1.0, 0.0)))


def test_walk_ends_where_the_schedule_ends():
    assert not walk(soft(LABELS, 1.0), 3)[-1].singular
    assert walk(stairs(LABELS), 3)[-1].clean


def test_components_may_rest_on_a_walk():
    capped = soft(LABELS, 30.0, capped=True)
    for schedule, n in ((capped, 57), (stairs(LABELS), 12), (stairs(LABELS, -7.0, 3.0), 12), (heat(FREQUENCY), 9)):
        levels = walk(schedule, n)
        assert len(levels) == n + 1
    rests = walk(capped, [0.5, 0.5])
    assert torch.equal(rests[0].sigma, rests[1].sigma)


def test_a_walk_uses_any_schedule():
    assert [level.sigma for level in walk(flow, 2)] == [1.0, 0.5, 0.0]
    assert walk(cosine, 3)[0].alpha == 0


def test_a_walk_that_gains_noise_is_refused():
    schedule = soft(LABELS, 1.0)
    refused("gains noise between times 1 and 2", walk, schedule, [0.9, 0.2, 0.3])
    refused("gains noise between times 0 and 1", walk, flow, [0.0, 1.0])
    one_rises = {1.0: at_gamma(numbers(2, 2)[None]), 0.5: at_gamma(numbers(1, 2.5)[None])}
    refused("gains noise", walk, one_rises.__getitem__, [1.0, 0.5])


# Every schedule ------------------------------------------------------------------------------------------------------

labels_of = st.lists(st.floats(-5, 5), min_size=1, max_size=8)


@settings(max_examples=80, deadline=None)
@given(
    values=labels_of,
    a=st.floats(0, 50),
    clean=st.floats(-20, -1),
    noisy=st.floats(-0.5, 20),
    capped=st.booleans(),
    count=st.integers(1, 30),
)
def test_soft_conditioning_is_a_path_of_variance_preserving_levels(values, a, clean, noisy, capped, count):
    labels = numbers(*values)
    levels = walk(soft(labels, a, clean, noisy, capped=capped), count)
    path = torch.cat([gamma_of(level) for level in levels])
    assert (path.diff(dim=0) <= 0).all()
    assert path[0].min().item() == pytest.approx(noisy, abs=1e-9)
    assert path[-1].max().item() == pytest.approx(clean, abs=1e-9)
    for level in levels:
        assert_close(level.alpha**2 + level.sigma**2, torch.ones(1, len(values)).double(), **EXACT)


@settings(max_examples=80, deadline=None)
@given(values=labels_of, count=st.integers(1, 40), finite=st.booleans())
def test_stairs_never_move_two_turns_at_once(values, count, finite):
    labels = numbers(*values)
    ends = (-7.0, 3.0) if finite else (-math.inf, math.inf)
    for level in walk(stairs(labels, *ends), count):
        gamma = gamma_of(level)[0]
        rests = torch.isclose(gamma[:, None], numbers(*ends), rtol=0, atol=1e-9).any(1)
        assert len(labels[~rests].unique()) <= 1
        assert (gamma[labels.argsort()].nan_to_num(posinf=1e9, neginf=-1e9).diff() >= -1e-9).all()
        assert_close(level.alpha**2 + level.sigma**2, torch.ones(1, len(values)).double(), **EXACT)


@settings(max_examples=60, deadline=None)
@given(values=labels_of, name=st.sampled_from(sorted(SCHEDULES)), count=st.integers(1, 20))
def test_noise_never_falls_with_time(values, name, count):
    levels = walk(SCHEDULES[name](numbers(*values).abs()), count)
    assert all((level.alpha.isfinite() & level.sigma.isfinite()).all() for level in levels)


# Errors --------------------------------------------------------------------------------------------------------------


def test_bad_labels_get_one_sentence():
    for bad in ([0.0, 1.0], torch.tensor(1.0), torch.ones(0), numbers(0, math.inf), numbers(0, math.nan)):
        for schedule in (lambda labels: soft(labels, 1.0), stairs, lambda labels: active_share(labels, 1.0)):
            refused("the labels have .*expected finite numbers", schedule, bad)
        for schedule in (blurring, heat, lambda frequency: regulator(frequency, (1.0, 0.1))):
            refused("the frequencies have .*expected finite numbers", schedule, bad)
    for schedule in (blurring, heat, lambda frequency: regulator(frequency, (1.0, 0.1))):
        refused("the least frequency is -0.5", schedule, numbers(0.5, -0.5))


@pytest.mark.parametrize(
    ("a", "clean", "noisy"),
    [
        *((a, -7.0, 3.0) for a in (-0.1, math.inf, math.nan)),
        *((1.0, clean, 3.0) for clean in (3.0, -math.inf, math.nan)),
        (1.0, -7.0, math.inf),
    ],
)
def test_bad_ends_and_softness_get_one_sentence(a, clean, noisy):
    for f in (soft, active_share):
        refused("expected 0 <= a and clean < noisy", f, LABELS, a, clean, noisy)


def test_bad_arguments_get_one_sentence():
    refused(r"log variances of shape \(3,\)", soft, LABELS, 1.0, log_variance=torch.zeros(3))
    refused("the log variances have", soft, LABELS, 1.0, log_variance=numbers(0, 1, 2, -math.inf))
    for share in (0.0, 1.1, -0.5, math.nan):
        refused("expected 0 < share <= 1", inverse_softness, LABELS, share)
    refused("different labels", inverse_softness, torch.ones(3), 0.5)
    for ends in ((-7.0, math.inf), (-math.inf, 3.0), (3.0, -7.0), (math.nan, 3.0), (math.inf, math.inf)):
        refused("both finite or both infinite", stairs, LABELS, *ends)
    for options in ({"largest": 0.0}, {"largest": math.inf}, {"least": -0.1}, {"least": 1.1}, {"least": math.nan}):
        refused("expected a positive blur and a share", blurring, FREQUENCY, **options)
    for options in ({"sigma": 0.0}, {"smallest": 0.0}, {"smallest": 20.0}, {"largest": math.inf}, {"sigma": math.nan}):
        refused("expected 0 < both, rising", heat, FREQUENCY, **options)
    for options in ({"form": "sharp"}, {"p": 0.0}, {"p": math.inf}, {"cutoffs": (0.1, 1.0)}, {"cutoffs": (1.0, 0.0)}):
        refused("a cutoff that falls", regulator, FREQUENCY, **{"cutoffs": (1.0, 0.1), **options})


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("t", [-0.1, 1.1, math.nan])
def test_times_outside_the_run_get_one_sentence(name, t):
    refused("expected (a time|times) between 0 .clean. and 1 .noise.", SCHEDULES[name](LABELS.abs()), t)


def test_bad_gamma_and_walks_get_one_sentence():
    refused("gamma holds NaN", at_gamma, torch.full((1, 8, 8), math.nan).double())
    for steps in (0, -3):
        refused(f"times is {steps}, expected at least one step", walk, flow, steps)
    for times in ([], [1.0]):
        refused(f"times holds {len(times)} times", walk, flow, times)
