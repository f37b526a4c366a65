"""Cumulants by pairs against explicit tensors, and the law of the teleportation error against exact flows."""

import math
from dataclasses import replace

import pytest
import torch
from sklearn.datasets import load_digits
from torch.testing import assert_close

from scoremachines import Gaussian, Ideal, edm, edm_levels, heun, trajectory
from scoremachines.cumulants import Cumulants, cumulants, displacement, sigma_skip, third_cumulant
from scoremachines.teleport import teleport

FIELDS = ("second", "third", "fourth", "third_population")


def explicit(cloud):
    """The tensors K3 and K4 in full."""
    v = cloud.flatten(1) - cloud.flatten(1).mean(0)
    pairing = torch.einsum("ab,cd->abcd", *[v.T @ v / len(v)] * 2)
    pairings = pairing + pairing.permute(0, 2, 1, 3) + pairing.permute(0, 3, 2, 1)
    third = torch.einsum("na,nb,nc->abc", v, v, v) / len(v)
    return third, torch.einsum("na,nb,nc,nd->abcd", v, v, v, v) / len(v) - pairings


def assert_same(a, b, rtol=1e-12):
    for name in FIELDS:
        assert_close(getattr(a, name), getattr(b, name), rtol=rtol, atol=1e-14)


@pytest.fixture(scope="module")
def digits():
    return torch.from_numpy(load_digits().data / 8 - 1)


@pytest.fixture(scope="module")
def of_digits(digits):
    return cumulants(digits)


# The sums over pairs -----------------------------------------------------------------------------------------------


def test_pairs_give_the_norms_of_the_explicit_tensors(cloud):
    found = cumulants(cloud)
    third, fourth = explicit(cloud)
    assert (found.count, found.D) == (40, 6)
    assert_close(found.second, cloud.T.cov(correction=0).square().sum().item())
    assert_close(found.third, third.square().sum().item(), rtol=1e-12, atol=0)
    assert_close(found.fourth, fourth.square().sum().item(), rtol=1e-12, atol=0)
    assert_close(found.onset, math.sqrt(found.fourth / 3 / found.third))


def test_population_estimate_leaves_out_the_diagonal(cloud):
    v = cloud - cloud.mean(0)
    cubes = (v @ v.T) ** 3
    different = cubes[~torch.eye(40, dtype=torch.bool)]
    assert_close(third_cumulant(cloud, population=True), different.mean().item(), rtol=1e-12, atol=0)
    assert_close(third_cumulant(cloud), cubes.mean().item(), rtol=1e-12, atol=0)


def test_population_estimate_has_less_bias_than_the_cloud(rand):
    """D independent exponential variables: K3 holds their third cumulant, 2, D times."""
    D, N, runs = 12, 200, 200
    found = [cumulants(-rand(N, D).clamp(min=1e-15).log()) for _ in range(runs)]
    bias, bias_cloud = (
        torch.tensor([getattr(c, name) for c in found]).mean().item() - 4 * D for name in ("third_population", "third")
    )
    assert abs(bias) < 0.25 * 4 * D
    assert bias_cloud > 3 * abs(bias)


def test_chunks_and_batches_change_nothing(cloud):
    whole = cumulants(cloud)
    for chunk in (1, 7, 39, 40, 1000):
        assert_same(cumulants(cloud, chunk), whole)
    batches = [cloud[:3], cloud[3:3], cloud[3:20], cloud[20:]]
    for chunk in (4, 2048):
        assert_same(cumulants(batches, chunk), whole)
    assert_same(cumulants(cloud.reshape(40, 1, 2, 3)), whole)


def test_rotation_translation_and_scale(cloud, randn):
    rotation = torch.linalg.qr(randn(6, 6))[0]
    assert_same(cumulants(cloud @ rotation + randn(6)), cumulants(cloud), rtol=1e-10)
    double, single = cumulants(2 * cloud), cumulants(cloud)
    assert_close(double.third, 2**6 * single.third)
    assert_close(double.fourth, 2**8 * single.fourth)


def test_a_mirrored_cloud_has_no_third_cumulant(cloud):
    v = cloud - cloud.mean(0)
    mirrored = cumulants(torch.cat([v, -v]))
    assert 0 <= mirrored.third < 1e-15 * mirrored.fourth
    assert_close(cumulants(torch.tensor([[-1.0], [1.0]])).fourth, 4.0)  # two points: E v^4 - 3 = -2
    assert cumulants(torch.tensor([[-1.0], [1.0]])).onset == math.inf


def test_single_precision_is_summed_in_double(digits, of_digits):
    assert_same(cumulants(digits.float()), of_digits, rtol=1e-6)
    half = cumulants(digits.half())  # the digits are multiples of 1/8: exact in half precision
    assert_same(half, of_digits, rtol=1e-6)


# The law of the teleportation error ---------------------------------------------------------------------------------


def gap(cloud, sigma_end, rng, seeds, steps):
    """E |x_ideal - x_gauss|^2 / D at each level, both flows started together at sigma = 2000 and stepped alike."""
    x = 2000 * torch.randn(seeds, cloud.shape[1], generator=rng, dtype=torch.float64)
    path = edm_levels(steps, sigma_min=sigma_end, sigma_max=2000.0)[:-1]
    both = zip(*(trajectory(machine.fit(cloud), x, path, heun) for machine in (Ideal, Gaussian)), strict=True)
    return {i.noise.sigma: (i.x - g.x).square().mean().item() for i, g in both}


def test_the_law_holds_at_high_noise(cloud, rng):
    """The third cumulant alone, far above the onset."""
    found = cumulants(cloud)
    measured = gap(cloud, 12.0, rng, 4000, 60)
    sigma = min(measured)
    assert sigma > 10 * found.onset
    assert measured[sigma] == pytest.approx(displacement(found, sigma), rel=0.1)


def test_the_fourth_cumulant_alone(cloud, rng):
    """On a mirrored cloud the law's second term is the first that counts."""
    v = cloud - cloud.mean(0)
    mirrored = torch.cat([v, -v])
    found = cumulants(mirrored)
    measured = gap(mirrored, 8.0, rng, 4000, 60)
    sigma = min(measured)
    assert measured[sigma] == pytest.approx(found.fourth / (96 * 6 * sigma**6), rel=0.1)
    assert displacement(found, sigma) == pytest.approx(found.fourth / (96 * 6 * sigma**6), rel=1e-6)


def test_sigma_skip_keeps_its_promise_on_digits(digits, of_digits, rng):
    """The ideal flow in small steps against the exact Gaussian flow: within the tolerance, and not far below."""
    x = 2000 * torch.randn(256, 64, generator=rng, dtype=torch.float64)
    first, second = (sigma_skip(of_digits, tolerance) for tolerance in (1e-4, 1e-3))
    path = [level.sigma for level in edm_levels(80, sigma_min=first, sigma_max=2000.0)[:-2]]
    path += [first, *torch.linspace(first, second, 12)[1:-1].tolist(), second]
    states = {s.noise.sigma: s.x for s in trajectory(Ideal.fit(digits), x, list(map(edm, path)), heun)}
    for sigma, tolerance in ((first, 1e-4), (second, 1e-3)):
        teleported = teleport(Gaussian.fit(digits), x, edm(path[0]), edm(sigma))
        error = (states[sigma] - teleported).square().mean().item()
        assert 0.6 * tolerance < error < 1.1 * tolerance


def test_sigma_skip_solves_the_law(of_digits, digits):
    for tolerance in (1e-12, 1e-6, 1e-3, 1.0, 1e6):
        sigma = sigma_skip(of_digits, tolerance)
        assert_close(displacement(of_digits, sigma), tolerance, rtol=1e-9, atol=0)
    assert sigma_skip(digits, 1e-3) == sigma_skip(of_digits, 1e-3)


def test_sigma_skip_with_one_order_only():
    only_third = Cumulants(10, 2, 1.0, 36.0, 0.0, 36.0)
    assert_close(sigma_skip(only_third, 1e-4), 10.0)  # 36 / (18 * 2 * 10^4) = 1e-4
    only_fourth = replace(only_third, third=0.0, fourth=192.0)
    assert_close(sigma_skip(only_fourth, 1e-6), 10.0)
    assert sigma_skip(replace(only_third, third=0.0), 1e-3) == 0.0


def test_the_law_takes_tensors(of_digits):
    sigma = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    each = torch.tensor([displacement(of_digits, s) for s in sigma.tolist()], dtype=torch.float64)
    assert_close(displacement(of_digits, sigma), each)
    assert (each[1:] < each[:-1]).all()


# Errors ------------------------------------------------------------------------------------------------------------


def shuffling(data):
    """Batches whose order changes with every pass."""

    class Loader:
        passes = 0

        def __iter__(self):
            self.passes += 1
            return iter(data.roll(self.passes, 0).split(10))

    return Loader()


def test_bad_data_get_one_sentence(cloud):
    cases = [
        (cloud[:1], "hold 1 sample"),
        (cloud[:0], "no sample"),
        (iter([cloud]), "only once"),
        (shuffling(cloud), "another order"),
        (cloud.long(), "dtype"),
    ]
    for data, words in cases:
        with pytest.raises(ValueError, match=words):
            cumulants(data)
    with pytest.raises(ValueError, match="chunk is 0"):
        cumulants(cloud, chunk=0)


def test_bad_levels_get_one_sentence(of_digits):
    for tolerance in (0, -1e-3, math.inf, math.nan):
        with pytest.raises(ValueError, match="tolerance is"):
            sigma_skip(of_digits, tolerance)
    for sigma in (0.0, -1.0, torch.tensor([1.0, 0.0])):
        with pytest.raises(ValueError, match="sigma is"):
            displacement(of_digits, sigma)
