"""Noise levels and schedules: values, end points, grids, refusals."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from torch.testing import assert_close

from scoremachines import Noise, cosine, cosine_legacy, edm, edm_levels, flow, levels, vp

PRESERVING = [cosine, cosine_legacy, vp]
TIMED = [*PRESERVING, flow]
times = st.floats(0, 1)


# One level ------------------------------------------------------------------------------------------------------


def test_add_is_the_forward_process(randn):
    x0, eps = randn(4, 1, 2, 3), randn(4, 1, 2, 3)
    assert_close(Noise(0.6, 0.8).add(x0, eps), 0.6 * x0 + 0.8 * eps)
    sigma = torch.linspace(0, 1, 4).double().reshape(4, 1, 1, 1)
    assert_close(Noise(1 - sigma, sigma).add(x0, eps), (1 - sigma) * x0 + sigma * eps)
    assert Noise(torch.tensor(0.6), 0.8).add(x0.float(), eps.float()).dtype == torch.float32


def test_add_refuses_ambiguous_levels(randn):
    with pytest.raises(ValueError, match=r"\(4,\).*\(4, 4\)"):
        Noise(1.0, torch.ones(4)).add(randn(4, 4), randn(4, 4))


def test_snr():
    assert Noise(0.6, 0.8).snr == pytest.approx(0.5625)
    assert Noise(1.0, 0.0).snr == math.inf
    assert Noise(0.0, 1.0).snr == 0
    assert_close(Noise(torch.tensor([3.0, 1.0]), torch.tensor([1.0, 0.0])).snr, torch.tensor([9.0, math.inf]))


def test_clean_and_singular():
    some = torch.tensor([[0.0, 1.0]])
    for noise, clean, singular in [
        (Noise(1.0, 0.0), True, True),
        (Noise(1.0, torch.zeros(1, 2)), True, True),
        (Noise(1.0, some), False, True),
        (Noise(1.0, 1e-300), False, False),
        (Noise(0.0, torch.tensor(1.0)), False, False),
    ]:
        assert noise.clean is clean
        assert noise.singular is singular


@pytest.mark.parametrize("name", ["alpha", "sigma"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, torch.tensor([1.0, -1.0]), torch.tensor([math.nan])])
def test_impossible_values_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} is .*expected finite values that are not negative"):
        Noise(**{"alpha": 1.0, "sigma": 1.0, name: value})


@pytest.mark.parametrize("value", ["1", None, [1.0], np.ones(2), 1j])
def test_what_is_no_number_is_refused(value):
    for level in ({"alpha": value, "sigma": 1.0}, {"alpha": 1.0, "sigma": value}):
        with pytest.raises(ValueError, match="expected a number or a torch tensor"):
            Noise(**level)


def test_neither_signal_nor_noise_is_refused():
    for alpha, sigma in [(0, 0), (0.0, torch.tensor(0.0)), (torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 1.0]]))]:
        with pytest.raises(ValueError, match="both 0"):
            Noise(alpha, sigma)
    Noise(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]]))


def test_shapes_that_cannot_fit_one_x_are_a_value_error(randn):
    with pytest.raises(ValueError, match="shape"):
        Noise(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0, 1.0])).add(randn(2, 3), randn(2, 3))


def test_numpy_numbers_are_numbers():
    assert Noise(np.float64(0.6), np.float32(0.5)).snr == pytest.approx(1.44)


def test_levels_are_frozen():
    with pytest.raises(AttributeError):
        Noise(1.0, 1.0).sigma = 2.0


# Schedules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", TIMED)
def test_time_0_is_clean(schedule):
    assert schedule(0.0) == Noise(1.0, 0.0)
    assert schedule(0) == Noise(1.0, 0.0)


def test_time_1_is_noise():
    assert cosine(1.0).alpha == 0
    assert cosine(1.0).sigma == pytest.approx(1, abs=1e-15)
    assert flow(1.0) == Noise(0.0, 1.0)
    assert cosine_legacy(1.0).alpha == pytest.approx(math.cos(math.pi / 2 / 1.008))
    assert vp(1.0).alpha == pytest.approx(math.exp(-20.1 / 4))


@pytest.mark.parametrize("schedule", PRESERVING)
@given(t=times)
def test_variance_is_preserved(schedule, t):
    noise = schedule(t)
    assert noise.alpha**2 + noise.sigma**2 == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("schedule", TIMED)
@given(pair=st.lists(times, min_size=2, max_size=2).map(sorted))
def test_noise_grows_with_time(schedule, pair):
    early, late = (schedule(t) for t in pair)
    assert early.sigma <= late.sigma
    assert early.alpha >= late.alpha


@given(t=times, offset=st.floats(0, 0.1))
def test_cosine_is_the_textbook_formula(t, offset):
    """abar(t) = f(t) / f(0), f(t) = cos^2((t + s) / (1 + s) pi / 2)."""
    f = lambda t: math.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2  # noqa: E731
    noise = cosine(t, offset)
    assert noise.alpha**2 == pytest.approx(f(t) / f(0), abs=1e-14)
    assert noise.sigma**2 == pytest.approx(1 - f(t) / f(0), abs=1e-14)


@pytest.mark.parametrize("t", [1e-12, 1e-8, 1e-4])
def test_cosine_is_accurate_near_clean(t):
    """sigma^2 = 2 a'(0) tan(a(0)) t to first order, where 1 - abar loses every digit."""
    a = math.pi / 2 * 0.008 / 1.008
    rate, tan = math.pi / 2 / 1.008, math.tan(a)
    assert cosine(t).sigma ** 2 == pytest.approx(2 * rate * tan * t + rate**2 * (1 - tan**2) * t**2, rel=1e-3)
    assert vp(t).sigma ** 2 == pytest.approx(0.1 * t + 19.9 * t**2 / 2, rel=1e-3)


@given(t=times)
def test_the_legacy_cosine(t):
    """1 - abar = sin^2(pi t / 2.016)."""
    assert cosine_legacy(t).sigma ** 2 == pytest.approx(math.sin(math.pi * t / 2.016) ** 2, abs=1e-14)


def test_legacy_values():
    assert cosine_legacy(0.5).alpha == pytest.approx(0.711501, abs=1e-6)
    assert cosine_legacy(1.0).alpha == pytest.approx(0.012466, abs=1e-6)


@pytest.mark.parametrize(("beta_min", "beta_max"), [(0.1, 20.0), (0.5, 5.0)])
@settings(max_examples=25)
@given(t=times)
def test_vp_is_the_integral_of_beta(beta_min, beta_max, t):
    """alpha = exp(-1/2 int_0^t beta), beta linear in t."""
    integral = quad(lambda s: beta_min + s * (beta_max - beta_min), 0, t)[0]
    assert vp(t, beta_min, beta_max).alpha == pytest.approx(math.exp(-integral / 2), rel=1e-12)


@given(t=times)
def test_flow_is_the_straight_line(t):
    assert flow(t) == Noise(1 - t, t)


@given(sigma=st.floats(0, 1e6))
def test_edm_is_its_own_time(sigma):
    assert edm(sigma) == Noise(1.0, sigma)


@pytest.mark.parametrize("schedule", TIMED)
def test_times_may_be_a_tensor(schedule):
    """One level per image, in the shape of the times, equal to the levels one by one."""
    t = torch.linspace(0, 1, 7, dtype=torch.float64).reshape(7, 1, 1, 1)
    noise = schedule(t)
    assert noise.alpha.shape == noise.sigma.shape == t.shape
    for k, time in enumerate(t.flatten().tolist()):
        assert noise.alpha[k].item() == schedule(time).alpha
        assert noise.sigma[k].item() == schedule(time).sigma


def test_a_schedule_leaves_its_times_alone():
    t = torch.tensor([[0.5]], dtype=torch.float64)
    noise = flow(t)
    noise.sigma.add_(1)
    assert t.item() == 0.5


@pytest.mark.parametrize("schedule", TIMED)
@pytest.mark.parametrize("t", [-0.01, 1.01, math.nan, torch.tensor([0.5, 2.0])])
def test_times_outside_the_unit_interval_are_refused(schedule, t):
    with pytest.raises(ValueError, match="expected times between 0"):
        schedule(t)


# Lists of levels ------------------------------------------------------------------------------------------------

EDM_18 = (
    """80 57.59 40.79 28.37 19.35 12.91 8.401 5.315 3.257 1.923 1.088 .5853 .2964 .1395 .05995 .02293 .00753 .002"""
)
EDM_40 = """80 69.45 60.12 51.88 44.63 38.27 32.70 27.84 23.61 19.95 16.78 14.05 11.72 9.723 8.026 6.590 5.380 4.366
3.520 2.818 2.240 1.767 1.382 1.072 .8229 .6254 .4700 .3489 .2556 .1846 .1312 .0916 .0628 .0421 .0275 .0175 .0108
.0064 .0037 .002"""


@pytest.mark.parametrize(("n", "listed"), [(18, EDM_18), (40, EDM_40)])
def test_edm_grid_values(n, listed):
    """Values known to four digits, or to four decimals at the small end."""
    grid = edm_levels(n)
    assert [noise.alpha for noise in grid] == [1.0] * (n + 1)
    assert grid[-1] == Noise(1.0, 0.0)
    for noise, text in zip(grid, listed.split(), strict=False):
        decimals = len(text.partition(".")[2])
        assert noise.sigma == pytest.approx(float(text), abs=0.51 * 10**-decimals)


@settings(max_examples=30)
@given(n=st.integers(2, 200), low=st.floats(1e-4, 0.5), high=st.floats(1, 1e3), rho=st.floats(1, 12))
def test_edm_grid_is_even_in_the_root(n, low, high, rho):
    grid = edm_levels(n, low, high, rho)
    root = np.array([noise.sigma for noise in grid[:-1]]) ** (1 / rho)
    assert len(grid) == n + 1
    assert grid[0].sigma == pytest.approx(high)
    assert grid[-2].sigma == pytest.approx(low)
    assert np.diff(root) == pytest.approx(np.full(n - 1, (root[-1] - root[0]) / (n - 1)), abs=1e-9 * root[0])


def test_edm_grid_of_one_level():
    only, clean = edm_levels(1)
    assert only.sigma == pytest.approx(80.0)
    assert clean == Noise(1.0, 0.0)


@pytest.mark.parametrize("n", [0, -1])
def test_edm_grid_needs_a_level(n):
    with pytest.raises(ValueError, match=f"n is {n}"):
        edm_levels(n)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (1.0, 1.0), (math.nan, 1.0)])
def test_edm_grid_needs_ordered_ends(low, high):
    with pytest.raises(ValueError, match="expected 0 < sigma_min < sigma_max"):
        edm_levels(5, low, high)


@pytest.mark.parametrize("schedule", TIMED)
@settings(max_examples=25)
@given(n=st.integers(1, 60))
def test_levels_decrease_and_end_clean(schedule, n):
    walk = levels(schedule, np.linspace(1, 0, n + 1))
    assert len(walk) == n + 1
    assert walk[0] == schedule(1.0)
    assert walk[-1] == Noise(1.0, 0.0)
    assert all(now.snr < nxt.snr for now, nxt in pairwise(walk))


def test_a_clean_level_is_appended_when_it_is_missing():
    assert levels(cosine, [0.9, 0.4]) == [cosine(0.9), cosine(0.4), Noise(1.0, 0.0)]
    assert levels(edm, [10.0, 1.0]) == [edm(10.0), edm(1.0), edm(0.0)]
    assert levels(cosine, [0.9, 0.0]) == [cosine(0.9), Noise(1.0, 0.0)]
    assert levels(flow, iter([0.0])) == [Noise(1.0, 0.0)]


def test_times_may_be_a_tensor_of_numbers():
    assert levels(flow, torch.tensor([1.0, 0.5])) == levels(flow, [1.0, 0.5])


@pytest.mark.parametrize("wrong", [[0.1, 0.9], [0.5, 0.5], [0.5, 0.0, 0.0], [0.9, 0.2, 0.4]])
def test_times_that_do_not_decrease_are_refused(wrong):
    for schedule in (cosine, edm, flow):
        with pytest.raises(ValueError, match="expected sigma / alpha to decrease"):
            levels(schedule, wrong)


def test_no_time_is_refused():
    with pytest.raises(ValueError, match="times is empty"):
        levels(cosine, [])


def test_a_schedule_may_differ_between_components():
    powers = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    walk = levels(lambda t: flow(t**powers), [1.0, 0.5, 0.2])
    assert_close(walk[1].sigma, 0.5**powers)
    assert len(walk) == 4
    assert walk[-1].clean
    with pytest.raises(ValueError, match="expected sigma / alpha to decrease"):
        levels(lambda t: flow(t**powers), [0.5, 0.7])
