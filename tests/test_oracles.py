"""Identities between machines: changes of coordinates, limits, optimality, matched schedules."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from scoremachines import Gaussian, Ideal, Noise, edm_levels, sample

D = 6


# Changes of coordinates -----------------------------------------------------------------------------------------


@pytest.mark.quantities("log_density")
def test_isotropic_machines_commute_with_every_orthonormal_basis(fit, cloud, x, randn):
    Q = torch.linalg.qr(randn(D, D)).Q
    for noise in (Noise(0.8, 0.6), Noise(1.0, 0.2), Noise(torch.linspace(0.1, 1, 5)[:, None], 0.9)):
        here, there = fit(cloud), fit(cloud @ Q)
        assert_close(there.denoise(x @ Q, noise), here.denoise(x, noise) @ Q)
        assert_close(there.log_density(x @ Q, noise), here.log_density(x, noise))


@pytest.mark.quantities("log_density")
def test_a_shift_of_the_data_shifts_the_answer(fit, cloud, x):
    shift, noise = torch.linspace(-1, 1, D).double(), Noise(0.8, 0.6)
    moved = fit(cloud + shift).denoise(x + 0.8 * shift, noise)
    assert_close(moved, fit(cloud).denoise(x, noise) + shift)


@pytest.mark.quantities("log_density")
def test_only_the_noise_to_signal_ratio_matters(fit, cloud, x):
    machine = fit(cloud)
    for scale in (0.1, 3.0):
        assert_close(machine.denoise(scale * x, Noise(scale, 0.7 * scale)), machine.denoise(x, Noise(1.0, 0.7)))


# From ideal to Gaussian: the third cumulant ---------------------------------------------------------------------


@pytest.fixture
def triangle():
    """Four points in the plane, asymmetric, with weights by repetition."""
    return torch.tensor([[1.0, 0.0], [-0.4, 0.9], [-0.4, 0.9], [0.1, -1.0]], dtype=torch.float64)


def gap(cloud, sigma, nodes=40):
    """E |D_ideal - D_gauss|^2 over x = y + sigma z, by Gauss-Hermite quadrature in the plane."""
    z, w = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(nodes))
    grid, weights = torch.cartesian_prod(z, z), torch.outer(w, w).flatten() / (2 * math.pi)
    noise = Noise(1.0, sigma)
    ideal, gauss = Ideal.fit(cloud), Gaussian.fit(cloud)
    x = cloud.repeat_interleave(len(grid), 0) + sigma * grid.repeat(len(cloud), 1)
    square = (ideal.denoise(x, noise) - gauss.denoise(x, noise)).square().sum(1)
    return (square * weights.repeat(len(cloud))).sum() / len(cloud)


def third_cumulant(cloud):
    v = cloud - cloud.mean(0)
    return torch.einsum("ni,nj,nk->ijk", v, v, v) / len(cloud)


def test_third_cumulant_norm_by_pairs(cloud):
    """|K3|^2 = mean over all pairs (v . v')^3, the diagonal included."""
    v = cloud - cloud.mean(0)
    assert_close((v @ v.T).pow(3).mean(), third_cumulant(cloud).square().sum())


def test_ideal_tends_to_gaussian_with_the_third_cumulant_law(triangle):
    """E |D_ideal - D_gauss|^2 = |K3|^2 / (2 sigma^4) (1 + O(sigma^-2))."""
    norm = third_cumulant(triangle).square().sum()
    error = [abs(gap(triangle, sigma) * 2 * sigma**4 / norm - 1).item() for sigma in (8.0, 16.0, 32.0)]
    assert error[0] < 0.1
    assert error[1] / error[0] == pytest.approx(1 / 4, rel=0.15)
    assert error[2] / error[1] == pytest.approx(1 / 4, rel=0.15)


def test_a_symmetric_cloud_is_closer_to_gaussian(triangle):
    symmetric = torch.cat([triangle, -triangle])
    assert_close(third_cumulant(symmetric - symmetric.mean(0)).norm(), torch.zeros(()).double())
    assert gap(symmetric, 16.0) < gap(triangle, 16.0) / 30


# Optimality -----------------------------------------------------------------------------------------------------


def test_ideal_error_is_orthogonal_to_everything(cloud, randn, rng):
    """E[(x0 - D(x)) g(x)] = 0 for any g, within five standard errors."""
    noise, draws = Noise(0.8, 0.6), 40000
    x0 = cloud[torch.randint(len(cloud), (draws,), generator=rng)]
    x = noise.add(x0, randn(draws, D))
    error = x0 - Ideal.fit(cloud).denoise(x, noise)
    for g in (torch.ones_like(x), x, x.tanh(), x.roll(1, 1) * x, (x.norm(dim=1, keepdim=True) > 1.5).double()):
        product = error * g
        assert (product.mean(0).abs() < 5 * product.std(0) / math.sqrt(draws)).all()


def test_no_denoiser_beats_the_ideal_one_on_its_data(cloud):
    """The Gaussian error exceeds the ideal one by E |D_gauss - D_ideal|^2, by quadrature in the plane."""
    noise = Noise(1.0, 0.5)
    plane = cloud[:6, :2].contiguous()
    z, w = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(60))
    grid, weights = torch.cartesian_prod(z, z), (torch.outer(w, w).flatten() / (2 * math.pi)).repeat(6) / 6
    x0 = plane.repeat_interleave(len(grid), 0)
    x = noise.add(x0, grid.repeat(6, 1))
    ideal, gauss = (machine.fit(plane).denoise(x, noise) for machine in (Ideal, Gaussian))
    errors = [((d - x0).square().sum(1) * weights).sum() for d in (ideal, gauss)]
    assert_close(errors[1] - errors[0], ((ideal - gauss).square().sum(1) * weights).sum(), rtol=1e-4, atol=0)


# Schedules at matched signal-to-noise ratio ---------------------------------------------------------------------


@pytest.mark.quantities("log_density")
@pytest.mark.parametrize("alpha", [lambda s: (1 + s**2) ** -0.5, lambda s: 1 / (1 + s), lambda s: 2 + s])
def test_schedules_at_matched_snr_give_the_same_end_points(fit, cloud, x, alpha):
    """ddim and the exact flow see only sigma / alpha, once x is divided by alpha."""
    exploding = edm_levels(12, sigma_min=0.05, sigma_max=20)
    other = [Noise(alpha(n.sigma), alpha(n.sigma) * n.sigma) for n in exploding]
    first, last = other[0], other[-1]
    machine = fit(cloud)
    expected = sample(machine, 20 * x, exploding)
    assert_close(sample(machine, 20 * first.alpha * x, other), last.alpha * expected)
    if isinstance(machine, Gaussian):
        exact = machine.flow(20 * x, exploding[0], exploding[-1])
        assert_close(machine.flow(20 * first.alpha * x, first, last), last.alpha * exact)


@pytest.mark.parametrize("k", [1, 5, 16])
def test_a_cut_grid_is_the_shorter_grid(k):
    """Dropping the first k points of the n-point grid gives the (n - k)-point grid started there."""
    grid = edm_levels(18)
    short = edm_levels(18 - k, sigma_max=grid[k].sigma)
    assert_close([n.sigma for n in grid[k:]], [n.sigma for n in short], rtol=1e-12, atol=1e-15)
