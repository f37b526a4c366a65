"""Metrics against numpy and scipy, neighbours against brute force, intervals against known spread."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch.testing import assert_close

from scoremachines import metrics

SHAPE = (1, 4, 5)
PAIRS = [metrics.mse, metrics.pearson, metrics.r2, metrics.R2, metrics.cosine, metrics.explained]


@pytest.fixture
def a(randn):
    return randn(6, *SHAPE)


@pytest.fixture
def b(a, randn):
    return 0.7 * a + 0.5 * randn(6, *SHAPE) + 0.2


def by_row(f, a, b):
    return torch.tensor([f(x.numpy().ravel(), y.numpy().ravel()) for x, y in zip(a, b, strict=True)]).double()


def test_mse(a, b):
    assert_close(metrics.mse(a, b), by_row(lambda x, y: np.mean((x - y) ** 2), a, b))


def test_correlation_is_that_of_scipy(a, b):
    expected = by_row(lambda x, y: scipy.stats.pearsonr(x, y).statistic, a, b)
    assert_close(metrics.pearson(a, b), expected)
    assert_close(metrics.r2(a, b), expected**2)


def test_determination_is_one_minus_sse_over_sst(a, b):
    expected = by_row(lambda x, y: 1 - ((x - y) ** 2).sum() / ((x - x.mean()) ** 2).sum(), a, b)
    assert_close(metrics.R2(a, b), expected)
    assert not torch.allclose(metrics.R2(b, a), expected)


def test_cosine_is_the_angle(a, b):
    assert_close(metrics.cosine(a, b), by_row(lambda x, y: x @ y / np.linalg.norm(x) / np.linalg.norm(y), a, b))


def test_explained_share(a, b, randn):
    assert_close(metrics.explained(a, b), by_row(lambda x, y: 1 - ((x - y) ** 2).sum() / (x**2).sum(), a, b))
    center = randn(*SHAPE)
    c = center.numpy().ravel()
    centred = by_row(lambda x, y: 1 - ((x - y) ** 2).sum() / ((x - c) ** 2).sum(), a, b)
    assert_close(metrics.explained(a, b, center), centred)
    assert_close(metrics.explained(a, center.expand_as(a), center), torch.zeros(6).double())


def test_the_centre_follows_the_precision_of_the_target(a, b, randn):
    assert metrics.explained(a.float(), b.float(), randn(*SHAPE)).dtype == torch.float32


def test_perfect_models(a):
    assert_close(metrics.mse(a, a), torch.zeros(6).double())
    for metric in PAIRS[1:]:
        assert_close(metric(a, a), torch.ones(6).double())


def test_what_scale_and_offset_change(a, b):
    for metric in (metrics.pearson, metrics.r2):
        assert_close(metric(3 * a + 2, b), metric(a, b))
    assert_close(metrics.pearson(-a, b), -metrics.pearson(a, b))
    assert_close(metrics.cosine(3 * a, b), metrics.cosine(a, b))
    assert (metrics.R2(a, 3 * a) < 0).all()
    for metric in (metrics.R2, metrics.explained):
        assert_close(metric(3 * a, 3 * b), metric(a, b))


@pytest.mark.parametrize("level", [0.0, 0.1, -0.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_images_have_no_correlation(a, level, dtype):
    """Also when the mean is rounded, so that subtracting it leaves a residue."""
    constant = torch.full_like(a, level, dtype=dtype)
    for other in (a.to(dtype), 1.7 * constant):
        assert_close(metrics.pearson(constant, other), torch.zeros(6, dtype=dtype))
        assert_close(metrics.pearson(other, constant), torch.zeros(6, dtype=dtype))


def test_a_zero_vector_has_no_direction(a):
    assert_close(metrics.cosine(torch.zeros_like(a), a), torch.zeros(6).double())


@pytest.mark.parametrize("metric", PAIRS, ids=lambda f: f.__name__)
def test_unequal_shapes_are_refused(metric, a):
    for wrong in (a[:1], a[:5], a.flatten(1), a.movedim(2, 3)):
        with pytest.raises(ValueError, match="shape"):
            metric(a, wrong)


def test_a_centre_of_another_shape_is_refused(a, b):
    for wrong in (a, a[0, 0], a[0, :, :1]):
        with pytest.raises(ValueError, match="shape"):
            metrics.explained(a, b, wrong)


# Neighbours -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 3, 7, 50, 4096])
@pytest.mark.parametrize("k", [1, 4, 50])
def test_nearest_is_the_sorted_distance(randn, k, chunk):
    x, data = randn(9, *SHAPE), randn(50, *SHAPE)
    distances, index = metrics.nearest(x, data, k, chunk)
    full = torch.cdist(x.flatten(1), data.flatten(1), compute_mode="donot_use_mm_for_euclid_dist").sort(1)
    assert distances.shape == index.shape == (9, k)
    assert_close(distances, full.values[:, :k])
    assert torch.equal(index, full.indices[:, :k])


def test_nearest_finds_the_image_itself(randn):
    data = randn(30, *SHAPE).float()
    distances, index = metrics.nearest(data, data, k=2)
    assert torch.equal(index[:, 0], torch.arange(30))
    assert (distances[:, 0] == 0).all()
    assert (distances[:, 1] > 0).all()


def test_small_distances_are_not_lost_to_rounding(randn):
    data = randn(30, *SHAPE).float() + 3
    x = data[:5] + 1e-4
    distances, index = metrics.nearest(x, data)
    assert torch.equal(index[:, 0], torch.arange(5))
    assert_close(distances[:, 0], (x - data[:5]).flatten(1).norm(dim=1))


@pytest.mark.parametrize("k", [0, -1, 8])
def test_nearest_refuses_impossible_numbers(randn, k):
    with pytest.raises(ValueError, match=f"k is {k}"):
        metrics.nearest(randn(2, 3), randn(7, 3), k)


def test_nearest_refuses_other_shapes(randn):
    with pytest.raises(ValueError, match="shape"):
        metrics.nearest(randn(2, 3), randn(7, 4))


# Intervals ------------------------------------------------------------------------------------------------------


def test_bootstrap_has_the_width_of_the_normal_interval(randn, rng):
    values = randn(400)
    low, high = metrics.bootstrap(values, rng, draws=4000)
    half = 1.96 * values.std(correction=0).item() / math.sqrt(400)
    assert (low + high) / 2 == pytest.approx(values.mean().item(), abs=0.15 * half)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


def test_bootstrap_covers_as_often_as_it_says(randn, rng):
    """300 intervals at 80 % hold the true mean 240 times, give or take four standard deviations."""
    hits = sum(low < 0 < high for low, high in (metrics.bootstrap(randn(60), rng, None, 0.8, 300) for _ in range(300)))
    assert abs(hits - 240) < 4 * math.sqrt(300 * 0.8 * 0.2)


def test_groups_widen_the_interval(randn, rng):
    """Ten copies of each value carry no more evidence than one."""
    values = randn(40)
    groups = torch.arange(40).repeat_interleave(10)
    width = lambda interval: interval[1] - interval[0]  # noqa: E731
    single = width(metrics.bootstrap(values, rng))
    naive = width(metrics.bootstrap(values.repeat_interleave(10), rng))
    grouped = width(metrics.bootstrap(values.repeat_interleave(10), rng, groups))
    assert grouped == pytest.approx(single, rel=0.15)
    assert naive == pytest.approx(single / math.sqrt(10), rel=0.15)


def test_groups_may_have_any_names_and_sizes(rng):
    values = torch.tensor([1.0, 1.0, 1.0, 5.0])
    low, high = metrics.bootstrap(values, rng, torch.tensor([70, 70, 70, -3]), draws=200)
    assert (low, high) == (1.0, 5.0)


def test_bootstrap_repeats_with_its_seed(randn):
    values = randn(30)
    draws = [metrics.bootstrap(values, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_bootstrap_refuses_what_it_cannot_resample(rng):
    with pytest.raises(ValueError, match="groups"):
        metrics.bootstrap(torch.ones(4), rng, torch.arange(3))
    with pytest.raises(ValueError, match="values"):
        metrics.bootstrap(torch.empty(0), rng)
