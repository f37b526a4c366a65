"""Distances between sets: Gaussians of known distance, points on a line, kernels by brute force, clouds by hand."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st

from scoremachines.quality import frechet, mmd, precision, recall, sliced_wasserstein

DISTANCES = {
    "frechet": frechet,
    "mmd": mmd,
    "sliced": lambda a, b: sliced_wasserstein(a, b, torch.Generator().manual_seed(1)),
    "recall": recall,
    "precision": precision,
}


@pytest.fixture(params=DISTANCES)
def distance(request):
    return DISTANCES[request.param]


@pytest.fixture
def exactly(randn):
    """Draw samples whose mean and covariance (divided by N) are exactly those asked for."""

    def draw(n, mean, root):
        x = randn(n, len(mean))
        x = x - x.mean(0)
        white = torch.linalg.solve_triangular(torch.linalg.cholesky(x.T @ x / n), x.T, upper=False).T
        return mean + white @ root

    return draw


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def sets(least=1):
    value = st.floats(-3, 3, allow_subnormal=False)
    return st.lists(st.tuples(value, value), min_size=least, max_size=7).map(
        lambda rows: torch.tensor(rows, dtype=torch.float64)
    )


# The Frechet distance -------------------------------------------------------------------------------------------


def test_frechet_of_commuting_gaussians(exactly):
    """|m_a - m_b|^2 + sum_k (s_k - t_k)^2 when s and t are deviations along the same axes."""
    m, n, s, t = torch.tensor([[1, 2, -1], [0, 2, 1], [3, 1, 0.2], [1, 1, 0.5]], dtype=torch.float64)
    a, b = exactly(40, m, s.diag()), exactly(25, n, t.diag())
    assert frechet(a, b) == pytest.approx(5 + 4 + 0.09, rel=1e-12)


def test_frechet_of_any_gaussians_has_the_matrix_root(exactly, randn):
    m, P, Q = randn(5), randn(5, 5), randn(5, 5)
    a, b = exactly(30, m, P), exactly(50, torch.zeros(5).double(), Q)
    A, B = (P.T @ P).numpy(), (Q.T @ Q).numpy()
    root = scipy.linalg.sqrtm(A)
    expected = (m @ m).item() + np.trace(A + B - 2 * scipy.linalg.sqrtm(root @ B @ root).real)
    assert frechet(a, b) == pytest.approx(expected, rel=1e-7)  # the accuracy of the oracle


@pytest.mark.parametrize("count", [1, 2, 4, 40])
def test_frechet_is_zero_between_equal_sets_of_any_rank(randn, count):
    a = 100 + randn(count, 10)
    assert frechet(a, a) < 1e-12
    assert frechet(a, a.flip(0)) < 1e-12
    assert frechet(a, torch.cat([a, a, a])) < 1e-12


def test_frechet_where_covariances_are_singular(exactly):
    """Laws on two lines at a right angle share no transport: the traces add up."""
    zero = torch.zeros(2).double()
    line = exactly(20, zero[:1], 2 * torch.eye(1).double())
    along, across = torch.cat([line, 0 * line], 1), torch.cat([0 * line, 1.5 * line], 1)
    assert frechet(along, across) == pytest.approx(4 + 9, rel=1e-12)
    assert frechet(along, zero[None]) == pytest.approx(4, rel=1e-12)
    assert frechet(zero[None], zero[None] + 3) == pytest.approx(18, rel=1e-12)


def test_small_frechet_distances_are_not_lost_to_rounding(exactly):
    """Without variance in one direction, a root of a covariance would be off by 1e-8 there."""
    scale = torch.tensor([1.0, 0]).double()
    a = exactly(30, torch.zeros(2).double(), torch.eye(2).double())
    b = a * (1 + 1e-5)
    assert frechet(a * scale, b * scale) == pytest.approx(1e-10, rel=1e-4)


@given(sets(), sets())
def test_frechet_is_symmetric_and_bounded_by_the_transport_of_the_sets(a, b):
    """Gelbrich's bound, by the exact transport between projections on one axis."""
    a, b = a[:, :1], b[:, :1]
    transport = sliced_wasserstein(a, b, torch.Generator(), 1) ** 2
    assert frechet(a, b) == pytest.approx(frechet(b, a), abs=1e-10)
    assert frechet(a, b) <= transport + 1e-10


def test_frechet_has_the_bias_that_its_docstring_states(randn):
    F, N, M = 10, 2000, 1500
    mean = np.mean([frechet(randn(N, F), randn(M, F)) for _ in range(100)])
    assert mean == pytest.approx((F + F * (F + 1) / 4) * (1 / N + 1 / M), rel=0.05)


# The maximum mean discrepancy -----------------------------------------------------------------------------------


def kernel(x, y):
    return (sum(p * q for p, q in zip(x.tolist(), y.tolist(), strict=True)) / len(x) + 1) ** 3


def test_mmd_is_the_sum_over_pairs(randn):
    a, b = randn(7, 3), 0.5 + randn(5, 3)
    own = [np.mean([kernel(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j]) for x in (a, b)]
    other = np.mean([kernel(x, y) for x in a for y in b])
    assert mmd(a, b) == pytest.approx(sum(own) - 2 * other, rel=1e-12)


@pytest.mark.parametrize("chunk", [1, 3, 7, 10_000])
def test_chunks_change_nothing(randn, chunk):
    a, b = randn(20, 3), randn(15, 3)
    assert mmd(a, b, chunk) == pytest.approx(mmd(a, b), rel=1e-10)
    assert recall(a, b, 2, chunk) == recall(a, b, 2)
    assert precision(a, b, 2, chunk) == precision(a, b, 2)


def test_mmd_of_two_points(randn):
    p, q = randn(4), randn(4)
    expected = kernel(p, p) + kernel(q, q) - 2 * kernel(p, q)
    assert mmd(p.expand(6, 4), q.expand(3, 4)) == pytest.approx(expected, rel=1e-12)


def test_mmd_is_unbiased(randn):
    """The mean over many small pairs of sets of one law is zero within its error, and much below a single spread."""
    draws = np.array([mmd(randn(5, 2), randn(8, 2)) for _ in range(2000)])
    assert abs(draws.mean()) < 4 * draws.std() / math.sqrt(len(draws))


def test_mmd_estimates_the_discrepancy_of_the_laws(randn):
    """On a line, N(0, 1) against N(1, 1): k = 1 + 3 xy + 3 (xy)^2 + (xy)^3 gives 3 + 3 + 16 for moments 1, 2, 4."""
    draws = np.array([mmd(randn(20, 1), 1 + randn(20, 1)) for _ in range(2000)])
    assert draws.mean() == pytest.approx(22, abs=4 * draws.std() / math.sqrt(len(draws)))


# Sliced transport -----------------------------------------------------------------------------------------------


def test_transport_on_a_line_matches_sorted_values(randn, rng):
    a, b = randn(30, 1), 2 + 0.3 * randn(30, 1)
    expected = (a.sort(0).values - b.sort(0).values).square().mean().sqrt().item()
    assert sliced_wasserstein(a, b, rng, 1) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("N", "M"), [(1, 4), (3, 5), (6, 4), (8, 8), (12, 7)])
def test_transport_of_unequal_sets_is_that_of_their_repetitions(randn, rng, N, M):
    a, b = randn(N, 1), randn(M, 1)
    many = a.repeat_interleave(M, 0), b.repeat_interleave(N, 0)
    expected = (many[0].sort(0).values - many[1].sort(0).values).square().mean().sqrt().item()
    assert sliced_wasserstein(a, b, rng, 1) == pytest.approx(expected, rel=1e-12)


def test_transport_by_hand(rng):
    """Half of the mass at 0 goes to -1, half to 3."""
    assert sliced_wasserstein(column(0), column(3, -1), rng, 4) == pytest.approx(math.sqrt((1 + 9) / 2), rel=1e-12)


def test_a_shift_counts_by_its_projections(randn, rng):
    """The mean of (v.shift)^2 over unit vectors v is |shift|^2 / F."""
    a, shift = randn(20, 4), 3 * torch.ones(4).double()
    assert sliced_wasserstein(a, a + shift, rng, 20_000) == pytest.approx(3, rel=0.02)


def test_directions_come_from_the_generator(randn):
    a, b = randn(20, 4), 1 + randn(30, 4)
    draws = [sliced_wasserstein(a, b, torch.Generator().manual_seed(seed), 40) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    first, second = (torch.Generator().manual_seed(1) for _ in range(2))
    assert sliced_wasserstein(a, b, first, 5) != sliced_wasserstein(a, b, second, 100)


def test_many_directions_are_an_average_over_few(randn):
    """70 directions are read 32 at a time; alone they give the same mean."""
    a, b = randn(6, 3), randn(9, 3)
    rng, same = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    v = torch.nn.functional.normalize(torch.randn(70, 3, generator=same, dtype=torch.float64))
    single = [sliced_wasserstein((a @ w)[:, None], (b @ w)[:, None], same, 1) ** 2 for w in v]
    assert sliced_wasserstein(a, b, rng, 70) == pytest.approx(math.sqrt(np.mean(single)), rel=1e-12)


# Precision and recall -------------------------------------------------------------------------------------------


def test_neighbourhoods_by_hand():
    """Fake 0, 1, 4 reach 1, 1, 3 to their nearest; real -1, 2, 7, 7.1 are in reach but for the last."""
    real, fake = column(-1, 2, 7, 7.1), column(0, 1, 4)
    assert recall(real, fake, 1) == 3 / 4
    assert recall(real, fake, 2) == 1  # reach 4, 3, 4: fake 4 now holds 7.1
    # real reach 3, 3, 0.1, 0.1 to their nearest
    assert precision(real, fake, 1) == 1
    assert precision(real, fake + 6, 1) == 1 / 3  # 6, 7, 10: only the second
    assert precision(real, fake, 1) == recall(fake, real, 1)


def test_a_missing_kind_costs_recall_and_a_wrong_kind_precision(randn):
    one, other, wrong = randn(40, 3), 50 + randn(40, 3), -50 + randn(20, 3)
    near = one + 1e-3 * randn(40, 3)
    assert recall(torch.cat([one, other]), near) == 0.5
    assert precision(torch.cat([one, other]), near) == 1
    assert precision(torch.cat([one, other]), torch.cat([near, wrong])) == 40 / 60
    assert recall(wrong, one) == precision(wrong, one) == 0


def test_a_set_reaches_itself(randn):
    """Also where points coincide, so that their reach is exactly zero."""
    a = (1000 + randn(30, 5)).float()
    for x in (a, torch.cat([a, a, a]), a[:1].expand(5, 5)):
        assert recall(x, x, 1) == precision(x, x, 1) == 1


@given(sets(), sets(4), st.integers(1, 2))
def test_more_neighbours_reach_further(real, fake, k):
    assert recall(real, fake, k) <= recall(real, fake, k + 1)


# What all have in common ----------------------------------------------------------------------------------------


def test_a_rotation_changes_nothing(randn):
    """Projections are rotated too, so their mean agrees only as far as directions are many."""
    a, b = randn(60, 4), 0.5 + 1.3 * randn(50, 4)
    turn = torch.linalg.qr(randn(4, 4)).Q
    for f in (frechet, mmd):
        assert f(a @ turn, b @ turn) == pytest.approx(f(a, b), rel=1e-9)
    assert recall(a @ turn, b @ turn) == recall(a, b)
    rngs = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    values = [sliced_wasserstein(x, y, rng, 20_000) for (x, y), rng in zip([(a, b), (a @ turn, b @ turn)], rngs)]  # noqa: B905
    assert values[0] == pytest.approx(values[1], rel=0.02)


def test_single_precision_is_read_in_double(distance, randn):
    a, b = randn(20, 3).float(), randn(15, 3).float()
    assert distance(a, b) == distance(a.double(), b.double())
    assert distance(a, b.double()) == distance(a, b)


def test_inputs_are_left_alone(distance, randn):
    a, b = randn(20, 3), randn(15, 3)
    copies = a.clone(), b.clone()
    distance(a, b)
    assert torch.equal(a, copies[0])
    assert torch.equal(b, copies[1])


def test_what_is_no_set_of_features_is_refused(distance, randn):
    a = randn(9, 3)
    for wrong in (randn(9, 1, 3), randn(9), a.long(), a.numpy(), randn(0, 3), randn(9, 0)):
        for pair in ((a, wrong), (wrong, a)):
            with pytest.raises(ValueError, match="a set of features"):
                distance(*pair)
    with pytest.raises(ValueError, match=r"\d and \d features"):
        distance(a, randn(9, 4))
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="NaN or infinite"):
            distance(a, torch.cat([a, a.new_full((1, 3), value)]))


def test_impossible_numbers_are_refused(randn, rng):
    a = randn(5, 2)
    for k in (0, -1, 1.0, 5):
        with pytest.raises(ValueError, match=f"k is {k}"):
            recall(randn(9, 2), a, k)
        with pytest.raises(ValueError, match=f"k is {k}"):
            precision(a, randn(9, 2), k)
    for f in (mmd, lambda *x, chunk: recall(*x, 1, chunk), lambda *x, chunk: precision(*x, 1, chunk)):
        with pytest.raises(ValueError, match="chunk is 0"):
            f(a, a, chunk=0)
    with pytest.raises(ValueError, match="directions is 0"):
        sliced_wasserstein(a, a, rng, 0)
    with pytest.raises(ValueError, match="rng is a NoneType"):
        sliced_wasserstein(a, a, None)
    with pytest.raises(ValueError, match="N >= 2"):
        mmd(a, a[:1])
