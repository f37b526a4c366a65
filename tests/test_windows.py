"""Window tables: the nearest entry, one table for all schedules, and the two readings of the published ones."""

import math
from itertools import pairwise

import pytest
import torch

from scoremachines import Noise, cosine, cosine_legacy, edm, flow
from scoremachines.windows import PUBLISHED, WindowTable, check_window, log_snr, published
from tests.conftest import refused

TABLE = WindowTable((-4.0, 4.0, 0.0), (15, 3, 7))  # in no order
GRID = [(i, cosine_legacy(i / 20)) for i in range(1, 21)]


# The nearest entry ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "window"),
    [(-9.0, 15), (-4.0, 15), (-2.1, 15), (-1.9, 7), (0.0, 7), (1.9, 7), (2.1, 3), (4, 3), (1e9, 3)],
)
def test_the_nearest_entry_counts(value, window):
    assert TABLE.at(value) == window


def test_of_two_equally_near_entries_the_noisier_counts():
    assert TABLE.at(-2.0) == 15
    assert TABLE.at(2.0) == 7


def test_the_ends_reach_to_infinity():
    assert TABLE.at(-math.inf) == 15
    assert TABLE.at(math.inf) == 3


def test_a_window_need_not_fall_with_the_noise():
    assert [WindowTable((0.0, 1.0, 2.0), (3, 9, 5)).at(v) for v in (0.2, 1.1, 5.0)] == [3, 9, 5]


def test_tables_are_values():
    assert WindowTable((0.0,), (3,)) == WindowTable((0.0,), (3,)) != WindowTable((0.0,), (5,))
    assert len({TABLE, WindowTable(TABLE.log_snr, TABLE.windows)}) == 1


def test_numbers_of_torch_serve():
    assert TABLE.at(torch.tensor(-3.0)) == 15


# Levels and their signal-to-noise ratio -------------------------------------------------------------------------


def test_log_snr_is_the_log_of_snr():
    for level in (cosine(0.3), edm(2.0), flow(0.9), Noise(3, 1), Noise(torch.tensor(0.6), torch.full((1, 1, 1), 0.8))):
        assert log_snr(level) == pytest.approx(math.log(float(level.snr)))


def test_log_snr_at_the_ends():
    assert log_snr(cosine(1.0)) == -math.inf
    assert log_snr(cosine(0.0)) == math.inf
    assert log_snr(Noise(1e-200, 1e200)) == pytest.approx(-1842.068, rel=1e-6)


def test_a_table_of_levels_answers_at_those_levels():
    levels = [edm(80.0), edm(5.0), edm(0.1)]
    table = WindowTable.of(levels, iter([17, 9, 3]))
    assert [table.at(log_snr(level)) for level in levels] == [17, 9, 3]


def test_one_table_serves_every_schedule():
    """Levels of another schedule with the same signal-to-noise ratio have the same windows."""
    table = WindowTable.of([level for _, level in GRID], [2 * i + 1 for i, _ in GRID])
    for i, level in GRID:
        assert table.at(log_snr(edm(level.sigma / level.alpha))) == 2 * i + 1
        assert table.at(log_snr(flow(level.sigma / (level.alpha + level.sigma)))) == 2 * i + 1


def test_bad_tables_get_one_sentence():
    refused("2 entries and windows has 1", WindowTable, (0.0, 1.0), (3,))
    refused("at least one", WindowTable, (), ())
    refused("expected two tuples", WindowTable, [0.0], [3])
    refused("twice", WindowTable, (0.0, 0.0), (3, 5))
    for number in (math.inf, -math.inf, math.nan, "0", None, True):
        refused("finite numbers", WindowTable, (number,), (3,))
    refused("NaN", TABLE.at, math.nan)


@pytest.mark.parametrize("window", [0, 2, -1, 3.0, True, "3", None])
def test_windows_are_odd_whole_numbers(window):
    refused("odd whole number", check_window, window)
    refused("odd whole number", WindowTable, (0.0,), (window,))


@pytest.mark.parametrize("window", [1, 3, 31])
def test_odd_windows_pass(window):
    assert check_window(window) is None


def test_bad_levels_get_one_sentence():
    refused("alpha is 0", WindowTable.of, [Noise(0.0, 1.0)], [3])
    refused("sigma is 0", WindowTable.of, [Noise(1.0, 0.0)], [3])
    refused("sigma of a level has shape", WindowTable.of, [Noise(1.0, torch.ones(2, 1, 1, 1))], [3])
    refused("1 entries and windows has 2", WindowTable.of, [edm(1.0)], [3, 5])
    refused("of type float", log_snr, 0.5)


# Published tables -----------------------------------------------------------------------------------------------


def test_published_tables_are_whole():
    assert len(PUBLISHED) == 10
    for windows in PUBLISHED.values():
        assert len(windows) == 20
        assert all(w % 2 and 3 <= w <= 27 for w in windows)
        assert windows[0] == 3


def test_windows_rise_with_the_noise_except_on_the_torus_of_mnist():
    falling = [name for name, windows in PUBLISHED.items() if list(windows) != sorted(windows)]
    assert falling == ["mnist-resnet-circular"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_calibration_stores_the_window_of_a_time_one_entry_earlier(name):
    table = published(name, "calibrated")
    assert len(table.windows) == 20
    assert [table.at(log_snr(level)) for _, level in GRID] == [PUBLISHED[name][i - 1] for i, _ in GRID]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_sampler_reads_the_entry_of_its_time(name):
    table = published(name)
    assert len(table.windows) == 19
    assert [table.at(log_snr(level)) for _, level in GRID[:-1]] == [PUBLISHED[name][i] for i, _ in GRID[:-1]]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_sampler_is_one_step_noisier(name):
    sampled, calibrated = published(name, "sampled"), published(name, "calibrated")
    for (_, now), (_, noisier) in pairwise(GRID):
        assert sampled.at(log_snr(now)) == calibrated.at(log_snr(noisier))


def test_the_two_readings_by_hand():
    """The fifth window of this network is the first 5: at t = 0.25 as calibrated, at t = 0.2 as sampled."""
    at = {index: published("cifar10-resnet-zeros", index).at for index in ("calibrated", "sampled")}
    snr = {t: log_snr(cosine_legacy(t)) for t in (0.2, 0.25, 0.3, 0.95, 1.0)}
    assert [at["calibrated"](snr[t]) for t in (0.2, 0.25)] == [3, 5]
    assert [at["sampled"](snr[t]) for t in (0.2, 0.25)] == [5, 5]
    unet = {index: published("cifar10-unet-zeros", index).at for index in ("calibrated", "sampled")}
    assert [unet["calibrated"](snr[t]) for t in (0.95, 1.0)] == [17, 25]
    assert [unet["sampled"](snr[t]) for t in (0.95, 1.0)] == [25, 25]  # w_19 beyond the last entry, t = 0.95, too


def test_the_grid_is_that_of_the_legacy_schedule():
    """1 - alpha^2 = sin^2(pi t / 2.016) at t = 1/20 ... 19/20."""
    expected = [-2 * math.log(math.tan(math.pi * i / 20 / 2.016)) for i in range(1, 20)]
    assert published("celeba-resnet-zeros").log_snr == pytest.approx(expected)


def test_another_schedule_is_another_grid():
    table = published("mnist-unet-zeros", schedule=flow)
    assert table.log_snr == pytest.approx([2 * math.log((20 - i) / i) for i in range(1, 20)])
    assert table.windows == published("mnist-unet-zeros").windows


def test_unknown_names_get_one_sentence():
    refused("cifar10-resnet-zeros", published, "cifar10")
    refused("calibrated", published, "mnist-unet-zeros", "both")
    refused("alpha is 0", published, "mnist-unet-zeros", "calibrated", cosine)  # at t = 1
