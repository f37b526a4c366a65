"""Monomials and the scaled Hermite polynomials that belong to them, against numpy and quadrature over the noise."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from scoremachines.monomials import Monomials, degree, divisors, monomial, quotient

laws = settings(max_examples=40, deadline=None)
exponents = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=5)
EMPTY = Monomials.closure([])
ONE = Monomials.closure([monomial((0, 5))])
THREE = Monomials.closure([monomial((0, 2), (1, 1)), monomial((1, 3)), monomial((0, 1), (2, 2)), monomial((2, 1))])
every = pytest.mark.parametrize("monomials", [ONE, THREE], ids=["one", "three"])


def variables(monomials):
    return 1 + max((v for n in monomials.members for v, _ in n), default=0)


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_definition(n, x):
    """prod_v x_v^n_v for x (variables, ...)."""
    return math.prod((x[v] ** power for v, power in n), start=torch.ones_like(x[0]))


def gauss(m, nodes=6):
    """Nodes (m, K) and weights (K,) that integrate polynomials of degree < 2 nodes over m normal variables exactly."""
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    grid = torch.tensor(list(itertools.product(z, repeat=m)), dtype=torch.float64).T
    weights = torch.tensor([math.prod(c) for c in itertools.product(w / math.sqrt(2 * math.pi), repeat=m)])
    return grid, weights.double()


# Exponents ------------------------------------------------------------------------------------------------------


@laws
@given(exponents, st.randoms())
def test_a_monomial_is_its_sorted_powers(factors, random):
    x = normal(3, 5).abs()
    n = monomial(*factors)
    assert list(n) == sorted(n)
    assert all(power > 0 for _, power in n)
    assert len({v for v, _ in n}) == len(n)
    assert monomial(*random.sample(factors, len(factors))) == n
    assert_close(by_definition(n, x), by_definition(factors, x))
    assert degree(n) == sum(power for _, power in factors)


@laws
@given(exponents, st.data())
def test_quotients_undo_products(factors, data):
    n = monomial(*factors)
    k = data.draw(st.sampled_from(sorted(divisors(n))))
    assert monomial(*k, *quotient(n, k)) == n


@laws
@given(exponents)
def test_divisors_are_counted_by_their_powers(factors):
    n = monomial(*factors)
    found = list(divisors(n))
    assert len(set(found)) == len(found) == math.prod(power + 1 for _, power in n)
    assert {(), n} <= set(found)


@laws
@given(st.lists(exponents, max_size=4))
def test_a_closure_holds_every_divisor_and_nothing_else(generators):
    made = [monomial(*factors) for factors in generators]
    closed = Monomials.closure(made)
    assert set(closed.members) == {k for n in made for k in divisors(n)} | {()}
    assert closed.members[0] == ()
    assert [degree(n) for n in closed.members] == sorted(map(degree, closed.members))
    assert all(closed.members[closed.position[n]] == n for n in closed.members)
    assert Monomials.closure(closed.members) == closed
    assert closed.highest == max([power for n in closed.members for _, power in n], default=1)


def test_the_order_of_generators_does_not_matter():
    assert Monomials.closure(reversed(THREE.members)) == THREE
    assert len(THREE) == len(THREE.members) == 12


# Values ---------------------------------------------------------------------------------------------------------


@every
def test_powers_by_definition(monomials, randn):
    x = randn(4, variables(monomials), 7)
    expected = torch.stack([by_definition(n, x.movedim(1, 0)) for n in monomials.members], 1)
    assert_close(monomials.powers(x), expected, rtol=1e-14, atol=1e-14)
    assert_close(monomials.scales(x[..., 0]), expected[..., 0], rtol=1e-14, atol=1e-14)


def test_the_constant_alone(randn):
    assert EMPTY.members == ((),)
    assert_close(EMPTY.powers(randn(2, 1, 3)), torch.ones(2, 1, 3).double())
    assert_close(EMPTY.hermite(randn(2, 1, 3), torch.ones(2, 1).double()), torch.ones(2, 1, 3).double())


@every
def test_root_factorials(monomials):
    expected = [math.prod(math.factorial(power) for _, power in n) ** 0.5 for n in monomials.members]
    assert_close(monomials.root_factorial, torch.tensor(expected).double())


@every
def test_hermite_polynomials_are_those_of_numpy(monomials, randn, rand):
    """h_n = prod_v q_v^n_v He_{n_v}(w_v / q_v) / sqrt(n_v!)."""
    w, q = randn(2, variables(monomials), 7), 0.2 + rand(2, variables(monomials))
    found = monomials.hermite(w, q)
    for i, n in enumerate(monomials.members):
        expected = torch.ones(2, 7).double()
        for v, power in n:
            he = np.polynomial.hermite_e.hermeval((w[:, v] / q[:, v, None]).numpy(), np.eye(power + 1)[power])
            expected *= q[:, v, None] ** power * torch.from_numpy(he) / math.sqrt(math.factorial(power))
        assert_close(found[:, i], expected, rtol=1e-12, atol=1e-12)


@every
def test_without_noise_hermite_polynomials_are_powers(monomials, randn):
    w = randn(2, variables(monomials), 7)
    still = monomials.hermite(w, torch.zeros_like(w[..., 0]))
    assert_close(still, monomials.powers(w) / monomials.root_factorial[:, None])


def test_hermite_features_are_orthonormal_in_white_noise():
    """At q = 1, E[h_m h_n] over w ~ N(0, I) is the identity."""
    w, weights = gauss(3)
    h = THREE.hermite(w[None], torch.ones(1, 3).double())[0]
    assert_close(h * weights @ h.T, torch.eye(len(THREE)).double(), rtol=0, atol=1e-12)


# Noise ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[ONE, THREE], ids=["one", "three"])
def noisy(request, randn, rand):
    """Monomials, clean points x (5, m), noise deviations q, h at x + q z over the nodes (5, p, K), and weights."""
    m = variables(request.param)
    x, q = randn(5, m), 0.1 + rand(5, m)
    z, weights = gauss(m)
    return request.param, x, q, request.param.hermite(x[..., None] + q[..., None] * z, q), weights


def test_noise_averages_hermite_polynomials_to_monomials(noisy):
    monomials, x, _, h, weights = noisy
    expected = monomials.scales(x) / monomials.root_factorial
    assert_close(h @ weights, expected, rtol=1e-12, atol=1e-12)


def test_products_average_to_the_positive_sum(noisy):
    """E_z[h_m h_n] = sum_k q^2k sqrt(C(m,k) C(n,k)) x^(m-k) x^(n-k) / sqrt((m-k)! (n-k)!), by `lowerings`."""
    monomials, x, q, h, weights = noisy
    clean = monomials.scales(x) / monomials.root_factorial
    heat = monomials.scales(q**2)
    total = torch.zeros(len(x), len(monomials), len(monomials), dtype=torch.float64)
    for k, rows, lower, weight in monomials.lowerings:
        term = heat[:, monomials.position[k], None] * clean[:, lower] * weight
        assert (weight > 0).all()
        total[:, rows[:, None], rows] += term[:, :, None] * weight * clean[:, None, lower]
    assert_close(total, torch.einsum("nak,k,nbk->nab", h, weights, h), rtol=1e-11, atol=1e-11)


@every
def test_lowerings_name_the_quotients_and_their_binomials(monomials):
    first = monomials.lowerings[0]
    assert first.k == ()
    assert_close(first.weight, torch.ones(len(monomials)).double())
    for k, rows, lower, weight in monomials.lowerings:
        for i, j, c in zip(rows.tolist(), lower.tolist(), weight.tolist(), strict=True):
            n, taken = monomials.members[i], dict(k)
            assert monomials.members[j] == quotient(n, k)
            assert c**2 == pytest.approx(math.prod(math.comb(power, taken.get(v, 0)) for v, power in n))
    assert sum(len(rows) for _, rows, _, _ in monomials.lowerings) == sum(
        len(list(divisors(n))) for n in monomials.members
    )


# Shifts ---------------------------------------------------------------------------------------------------------


@every
def test_shifts_are_the_binomial_theorem(monomials, randn):
    w, d = randn(3, variables(monomials), 6), randn(3, variables(monomials))
    assert_close(monomials.shift(d) @ monomials.powers(w), monomials.powers(w + d[..., None]), rtol=1e-12, atol=1e-12)


@every
def test_shifts_form_a_group(monomials, randn):
    a, b = randn(3, variables(monomials)), randn(3, variables(monomials))
    assert_close(monomials.shift(a) @ monomials.shift(b), monomials.shift(a + b), rtol=1e-11, atol=1e-11)
    assert_close(monomials.shift(0 * a), torch.eye(len(monomials)).double().expand(3, -1, -1))
