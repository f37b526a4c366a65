"""Power sums: monoid laws, moments against scipy, and moments at a noise level against quadrature and Monte Carlo."""

import itertools
import math
import random
from functools import reduce

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kurtosis, skew
from torch.testing import assert_close

from scoremachines.monomials import Monomials, monomial
from scoremachines.powersums import PowerSums

PAIR = Monomials.closure([monomial((0, 3)), monomial((0, 2), (1, 1)), monomial((0, 1), (1, 2))])
LINE = Monomials.closure([monomial((0, 1)), monomial((1, 1))])
cuts = st.lists(st.integers(0, 24), max_size=6).map(lambda c: np.diff([0, *sorted(c), 24]).tolist())
seeds = st.integers(0, 2**31)
laws = settings(max_examples=40, deadline=None)
close = {"rtol": 1e-9, "atol": 1e-9}


def skewed(seed, n, m, count):
    """Values (n, m, count) of correlated, skewed variables, far from 0."""
    normal = torch.randn(n, m, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return normal.exp() + 0.5 * normal.flip(1) + 2


@pytest.fixture
def x():
    return skewed(1, 3, 2, 50)


@pytest.fixture
def sums(x):
    return PowerSums.of(x, PAIR).centred()


def tree(parts):
    """Merge neighbours pairwise, as several processes would."""
    while len(parts) > 1:
        parts = [reduce(PowerSums.merge, parts[k : k + 2]) for k in range(0, len(parts), 2)]
    return parts[0]


def assert_same(a, b):
    """Equal sums: the same count, range, centre and Gram matrix once both are about one point."""
    assert (a.count, a.monomials) == (b.count, b.monomials)
    assert torch.equal(a.low, b.low)
    assert torch.equal(a.high, b.high)
    if a.count:
        assert_close(a.centred().center, b.centred().center, **close)
        assert_close(a.about(b.center).gram, b.gram, **close)


# The monoid -----------------------------------------------------------------------------------------------------


@laws
@given(sizes=cuts, seed=seeds)
def test_sums_of_any_partition_in_any_order(sizes, seed):
    x = skewed(seed, 2, 2, 24)
    whole = PowerSums.of(x, PAIR)
    parts = [PowerSums.of(part, PAIR) for part in x.split(sizes, 2)]
    parts = random.Random(seed).sample(parts, len(parts))
    for merged in (reduce(PowerSums.merge, parts), tree(parts)):
        assert_same(merged, whole)


@laws
@given(seed=seeds, shift=st.floats(-2, 2))
def test_sums_with_different_centres_merge(seed, shift):
    x = skewed(seed, 2, 2, 12)
    mean = x.mean(2)
    parts = [PowerSums.of(part, PAIR, mean + d) for part, d in zip(x.split(4, 2), (0.0, shift, -1.0), strict=True)]
    assert_same(reduce(PowerSums.merge, parts), PowerSums.of(x, PAIR))


@given(seed=seeds)
@laws
def test_sums_of_nothing_are_the_identity(seed):
    some, nothing = PowerSums.of(skewed(seed, 2, 2, 5), PAIR), PowerSums.of(torch.empty(2, 2, 0), PAIR)
    for merged in (some.merge(nothing), nothing.merge(some)):
        assert torch.equal(merged.gram, some.gram)
        assert torch.equal(merged.center, some.center)
        assert_same(merged, some)
    assert nothing.merge(nothing).count == 0


def test_sums_of_other_variables_are_refused(x):
    with pytest.raises(ValueError, match=r"9 monomials .* merged with 3 .*expected the same"):
        PowerSums.of(x, PAIR).merge(PowerSums.of(x, LINE))
    with pytest.raises(ValueError, match=r"\(3, 2\) variables cannot be merged .*\(2, 2\)"):
        PowerSums.of(x, PAIR).merge(PowerSums.of(x[:2], PAIR))


# Clean moments --------------------------------------------------------------------------------------------------


def test_sums_by_definition(x, randn):
    center = randn(3, 2)
    for sums, c in ((PowerSums.of(x, PAIR), x.mean(2)), (PowerSums.of(x, PAIR, center), center)):
        w = (x - c[..., None]).movedim(1, 0)
        u = [math.prod((w[v] ** p for v, p in n), start=torch.ones_like(w[0])) for n in PAIR.members]
        assert sums.count == 50
        assert_close(sums.gram, torch.stack([torch.stack([(a * b).sum(1) for b in u], 1) for a in u], 1))
        assert_close(sums.center, c)
        assert torch.equal(sums.low, x.amin(2))
        assert torch.equal(sums.high, x.amax(2))


def test_mean_and_variance(x):
    for sums in (PowerSums.of(x, PAIR), PowerSums.of(x, PAIR, torch.ones(3, 2).double())):
        assert_close(sums.mean, x.mean(2))
        assert_close(sums.centred().center, x.mean(2))
        assert_close(sums.centred().var, x.var(2, correction=0))


def test_skewness_and_kurtosis_are_those_of_scipy(x):
    sums = PowerSums.of(x, Monomials.closure([monomial((0, 2)), monomial((1, 2))])).centred()
    found = sums.shape_moments(2)
    assert_close(found[0].numpy(), skew(x.numpy(), axis=2))
    assert_close(found[1].numpy(), kurtosis(x.numpy(), axis=2))
    assert_close(sums.shape_moments(1)[0], found[0][:, :1])


def test_shape_moments_need_the_squares(x):
    with pytest.raises(ValueError, match="degree 1, expected the squares too; fit with degree 2"):
        PowerSums.of(x, LINE).centred().shape_moments(1)


def test_a_constant_variable_has_no_shape():
    sums = PowerSums.of(torch.full((1, 2, 9), 0.25, dtype=torch.float64), PAIR).centred()
    assert_close(sums.var, torch.zeros(1, 2).double())
    for found in sums.shape_moments(1):
        assert_close(found, torch.zeros(1, 1).double())


def test_sums_about_another_centre(x, randn):
    center = randn(3, 2)
    moved = PowerSums.of(x, PAIR).about(center)
    assert_close(moved.gram, PowerSums.of(x, PAIR, center).gram, **close)
    assert moved.about(center) is moved


@pytest.mark.parametrize("offset", [1e2, 1e4])
def test_float32_data_far_from_zero_keep_their_moments(offset):
    """The first chunk lends its centre: sums about 0 would lose the third moment."""
    x = (skewed(4, 1, 2, 999) + offset).float()
    first = PowerSums.of(x[..., :100], PAIR)
    rest = (PowerSums.of(part, PAIR, first.center) for part in x[..., 100:].split(100, 2))
    sums = reduce(PowerSums.merge, rest, first).centred()
    assert sums.gram.dtype == torch.float64
    assert_close(sums.shape_moments(1)[0].item(), skew(x[0, 0].double().numpy()), rtol=1e-6, atol=0)


def test_cross_moments_by_definition(x, sums):
    w = x - x.mean(2, keepdim=True)
    expected = PAIR.powers(w) @ w.mT / 50
    assert_close(sums.cross(2), expected)
    assert_close(sums.cross(1), expected[:, :, :1])


def test_sums_move_to_a_device(sums):
    moved = sums.to(torch.device("meta"))
    assert {t.device.type for t in (moved.center, moved.gram, moved.low, moved.high)} == {"meta"}
    assert torch.equal(sums.to(torch.device("cpu")).gram, sums.gram)


# Moments at a noise level ---------------------------------------------------------------------------------------

LEVELS = {
    "equal": (torch.tensor([[0.8, 0.8]]), torch.tensor([[0.6, 0.6]])),
    "unequal": (torch.tensor([[1.0, 0.3]]), torch.tensor([[0.1, 1.5]])),
    "no signal": (torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 2.0]])),
    "little noise": (torch.tensor([[1.0, 1.0]]), torch.tensor([[1e-3, 1e-4]])),
}


@pytest.fixture(params=LEVELS.values(), ids=LEVELS)
def level(request, x):
    return tuple(a.double().expand(3, 2) for a in request.param)


def noisy(x, alpha, sigma):
    """Every sample with its noise on 5 x 5 Gauss-Hermite nodes, (n, 2, N * 25), and the weight of each."""
    z, w = np.polynomial.hermite_e.hermegauss(5)
    nodes = torch.tensor(list(itertools.product(z, repeat=2)), dtype=torch.float64).T
    weights = torch.outer(*2 * [torch.from_numpy(w / math.sqrt(2 * math.pi))]).flatten()
    points = (alpha[..., None] * x)[..., None] + sigma[..., None, None] * nodes[:, None]
    return points.flatten(2), weights.repeat(x.shape[2]) / x.shape[2]


def test_noisy_moments_by_quadrature(x, sums, level):
    points, weights = noisy(x, *level)
    white = sums.whitened(*level)
    h = white.features(points)
    clean = (x - x.mean(2, keepdim=True)).repeat_interleave(25, 2)
    assert_close(white.gram(), (h * weights) @ h.mT, rtol=1e-10, atol=1e-10)
    assert_close(white.cross(2), (h * weights) @ clean.mT, rtol=1e-10, atol=1e-10)


def test_noisy_moments_by_monte_carlo(x, sums, level, rng, randn):
    """Within five standard errors of 40,000 draws."""
    alpha, sigma = level
    draws = x[..., torch.randint(50, (40000,), generator=rng)]
    white = sums.whitened(alpha, sigma)
    h = white.features(alpha[..., None] * draws + sigma[..., None] * randn(*draws.shape))
    for i, j in itertools.combinations_with_replacement(range(len(PAIR)), 2):
        product = h[:, i] * h[:, j]
        error = 5 * product.std(1) / math.sqrt(40000) + 1e-9
        assert ((product.mean(1) - white.gram()[:, i, j]).abs() < error).all()


def test_features_are_white(x, sums, level):
    """The linear features have mean 0 and variance 1 at every level."""
    gram = sums.whitened(*level).gram()
    linear = [PAIR.position[monomial((v, 1))] for v in range(2)]
    assert_close(gram[:, 0, linear], torch.zeros(3, 2).double())
    assert_close(gram[:, linear, linear], torch.ones(3, 2).double())


def test_noise_attenuates_hermite_moments(x):
    """E[h_n] = rho^n kappa_n / sqrt(n!), rho^2 = alpha^2 var / tau^2, in the whitened basis with He_n(w)."""
    line = Monomials.closure([monomial((0, 4))])
    sums = PowerSums.of(x[:, :1], line).centred()
    alpha, sigma = torch.full((3, 1), 0.8).double(), torch.full((3, 1), 0.6).double()
    white = sums.whitened(alpha, sigma)
    z, w = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(5))
    points = (0.8 * x[:, 0, :, None] + 0.6 * z).flatten(1)
    u = (points - 0.8 * sums.center) / white.tau
    weights = (w / math.sqrt(2 * math.pi)).repeat(50) / 50
    rho = 0.8 * x[:, 0].std(1, correction=0) / white.tau[:, 0]
    for n, kappa in zip((3, 4), sums.shape_moments(1), strict=True):
        he = torch.from_numpy(np.polynomial.hermite_e.hermeval(u.numpy(), np.eye(n + 1)[n]))
        assert_close(he @ weights, rho**n * kappa[:, 0])


def alpha_power(white, clean):
    """E[h_a | x0] = scale (x0 - mean)^a."""
    return white.scale[..., None] * PAIR.powers(clean)


def test_spread_of_other_data_in_the_same_features(x, sums, level):
    other = skewed(9, 3, 2, 30)
    white = sums.whitened(*level)
    seen = PowerSums.of(other, PAIR).about(sums.center)
    points, weights = noisy(other, *level)
    h = white.features(points)
    clean = (other - sums.center[..., None]).repeat_interleave(25, 2)
    mean = alpha_power(white, clean)
    spread = (h * weights) @ h.mT - (mean * weights) @ mean.mT
    assert_close(white.spread_of(seen), spread, rtol=1e-10, atol=1e-10)


def test_units_give_back_monic_polynomials(x, sums, level):
    """units * h_n is the monic Hermite polynomial in the units of the data: its leading term is x^n."""
    white = sums.whitened(*level)
    far = 1e7 * torch.ones(3, 2, 1).double()
    found = (white.units * white.features(far)[..., 0])[:, 1:]
    assert_close(found, PAIR.scales(far[..., 0])[:, 1:], rtol=1e-4, atol=0)


def test_noisy_moments_are_positive_definite(sums, level):
    assert (torch.linalg.eigvalsh(sums.whitened(*level).gram()) > 0).all()
