"""The Gaussian machine against dense linear algebra, adaptive integration and quadrature."""

import itertools
import math

import pytest
import torch
from scipy.integrate import solve_ivp
from torch.testing import assert_close

from scoremachines import Gaussian, Moments, Noise

D = 6


def dense(machine):
    return machine.mean, machine.cov


def sigma_points(cloud, noise):
    """Every (x0, x) with eps on the 2 D points +- sqrt(D) e_j, whose mean and covariance are 0 and I exactly."""
    eps = math.sqrt(D) * torch.cat([torch.eye(D), -torch.eye(D)]).double()
    x0 = cloud.repeat_interleave(2 * D, 0)
    return x0, noise.add(x0, eps.repeat(len(cloud), 1))


# The Gaussian machine against dense formulas --------------------------------------------------------------------


def test_gaussian_is_the_conditional_mean(cloud, x, mixed):
    """E[x0 | x] and its covariance from the joint Gaussian of (x0, x), one image at a time."""
    for rank, remainder in [(None, "isotropic"), (2, "isotropic"), (2, "drop")]:
        machine = Gaussian.fit(cloud, rank, remainder)
        mean, cov = dense(machine)
        for b in range(len(x)):
            alpha, sigma = mixed.alpha[b], mixed.sigma[b]
            gain = cov * alpha @ torch.linalg.inv(alpha[:, None] * cov * alpha + torch.diag(sigma**2))
            noise = Noise(alpha[None], sigma[None])
            assert_close(machine.denoise(x[b : b + 1], noise)[0], mean + gain @ (x[b] - alpha * mean))
            posterior = cov - gain * alpha @ cov
            assert_close(machine.posterior_cov_product(x[:1], noise, x[b : b + 1])[0], posterior @ x[b])


def test_gaussian_density_is_the_multivariate_normal(cloud, x, mixed):
    for rank in (None, 2):
        machine = Gaussian.fit(cloud, rank)
        mean, cov = dense(machine)
        for noise in (mixed, Noise(0.8, 0.6)):
            alpha, sigma = (a.expand_as(x) for a in noise.on(x))
            noisy = alpha[:, :, None] * cov * alpha[:, None] + torch.diag_embed(sigma**2)
            normal = torch.distributions.MultivariateNormal(alpha * mean, noisy)
            assert_close(machine.log_density(x, noise), normal.log_prob(x))


def test_gaussian_is_linear_regression(cloud, x, rand):
    """Least squares of x0 on x over data and noise gives the same affine map, component-wise noise included."""
    for noise in (Noise(0.8, 0.6), Noise(rand(1, D), 0.3 + rand(1, D))):
        x0, noisy = sigma_points(cloud, noise)
        slope = torch.linalg.lstsq(torch.cat([noisy, torch.ones(len(noisy), 1)], 1), x0).solution
        assert_close(Gaussian.fit(cloud).denoise(x, noise), x @ slope[:-1] + slope[-1])


def test_gaussian_error_is_orthogonal_to_affine_functions(cloud, rand):
    machine = Gaussian.fit(cloud)
    for noise in (Noise(0.8, 0.6), Noise(rand(1, D), 0.3 + rand(1, D))):
        x0, noisy = sigma_points(cloud, noise)
        error = x0 - machine.denoise(noisy, noise)
        assert_close(error.mean(0), torch.zeros(D).double())
        assert_close(error.T @ noisy / len(noisy), torch.zeros(D, D).double(), rtol=0, atol=1e-12)


def two_steps(mean, cov, x, alpha, sigma):
    """Condition exactly on the components without noise, then filter the others: returns mean and covariance."""
    seen = sigma == 0
    gain = cov[:, seen] @ torch.linalg.pinv(cov[seen][:, seen], hermitian=True)
    mean = mean + gain @ (x[seen] / alpha[seen] - mean[seen])
    cov = cov - gain @ cov[seen]
    other = ~seen
    noisy = alpha[other, None] * cov[other][:, other] * alpha[other] + torch.diag(sigma[other] ** 2)
    gain = cov[:, other] * alpha[other] @ torch.linalg.inv(noisy)
    return mean + gain @ (x[other] - alpha[other] * mean[other]), cov - gain * alpha[other] @ cov[other]


@pytest.mark.parametrize("kind", ["regular", "fewer points than dimensions", "constant component"])
@pytest.mark.parametrize("seen", [(0,), (1, 4), (0, 1, 2, 3), (5, 0, 2)])
def test_no_noise_on_some_components_is_exact_conditioning(cloud, rand, kind, seen):
    """Schur complement; x lies where the data live, as a component without noise must."""
    if kind == "fewer points than dimensions":
        cloud = cloud[:4]
    if kind == "constant component":
        cloud[:, 0] = 0.3
    machine = Gaussian.fit(cloud)
    alpha, sigma = 0.5 + rand(D) / 2, 0.3 + rand(D)
    sigma[list(seen)] = 0
    x = alpha * cloud[1] + sigma * rand(D)
    mean, cov = two_steps(*dense(machine), x, alpha, sigma)
    noise = Noise(alpha[None], sigma[None])
    assert_close(machine.denoise(x[None], noise)[0], mean, rtol=1e-7, atol=1e-9)
    assert_close(machine.denoise(x[None], noise)[0, list(seen)], cloud[1, list(seen)], rtol=1e-7, atol=1e-9)
    v = rand(1, D)
    assert_close(machine.posterior_cov_product(x[None], noise, v)[0], cov @ v[0], rtol=1e-7, atol=1e-9)


def test_conditioning_is_the_limit_of_small_noise(cloud, x):
    machine = Gaussian.fit(cloud)
    sigma = torch.tensor([[0.0, 0.0, 0.5, 0.5, 1.0, 2.0]]).double()
    exact = machine.denoise(x, Noise(1.0, sigma))
    assert_close(machine.denoise(x, Noise(1.0, sigma.clamp(min=1e-6))), exact, rtol=1e-6, atol=1e-6)
    clean = machine.denoise(x, Noise(0.5, 0.0))
    assert_close(clean, 2 * x)
    assert_close(machine.denoise(x, Noise(torch.full((1, D), 0.5), torch.zeros(1, D))), clean)


@pytest.mark.parametrize("sigma", [1.0, 1e-3, 1e-6, 1e-9])
def test_little_noise_and_few_points_keep_their_precision(cloud, x, sigma):
    """Four points in six dimensions: the noisy covariance is singular to rounding, the spectral form is the oracle."""
    machine = Gaussian.fit(cloud[:4])
    many = Noise(torch.ones(1, D), torch.full((1, D), sigma).double())
    on = cloud[:4] + sigma * x[:4]
    assert_close(machine.denoise(on, many), machine.denoise(on, Noise(1.0, sigma)), rtol=1e-6, atol=1e-8)
    assert_close(machine.log_density(on, many), machine.log_density(on, Noise(1.0, sigma)), rtol=1e-5, atol=1e-5)


def test_gaussian_is_linear_attention(cloud, x):
    """D = mean + sum_i w_i y_i with signed weights w_i = (1/N) u^T (Sigma + sigma^2)^-1 (y_i - mean)."""
    machine = Gaussian.fit(cloud)
    mean, cov = dense(machine)
    key = torch.linalg.solve(cov + 0.4**2 * torch.eye(D), (cloud - mean).T)
    weights = (x - mean) @ key / len(cloud)
    assert_close(weights.sum(1), torch.zeros(5).double())
    assert_close(machine.denoise(x, Noise(1.0, 0.4)), mean + weights @ cloud)


# Rank -----------------------------------------------------------------------------------------------------------


def test_rank_keeps_the_total_variance_or_drops_the_rest(cloud):
    cov = Moments.of(cloud).cov
    full = torch.linalg.eigvalsh(cov).flip(0)
    for rank in range(1, D + 1):
        kept, dropped = Gaussian.fit(cloud, rank), Gaussian.fit(cloud, rank, remainder="drop")
        assert_close(kept.cov.trace(), cov.trace())
        assert_close(dropped.cov.trace(), full[:rank].sum())
        assert_close(torch.linalg.matrix_rank(dropped.cov).item(), rank)
        for machine in (kept, dropped):
            assert_close(machine.lam, full[:rank])
            assert_close(machine.U.T @ machine.U, torch.eye(rank).double())
            assert_close(machine.cov @ machine.U, machine.U * machine.lam)
    assert_close(kept.cov, cov)


def test_full_rank_is_no_truncation(cloud, x, mixed):
    for remainder in ("isotropic", "drop"):
        full = Gaussian.fit(cloud, rank=D, remainder=remainder)
        assert_close(full.denoise(x, mixed), Gaussian.fit(cloud).denoise(x, mixed))


@pytest.mark.parametrize("rank", [0, -1, D + 1])
def test_impossible_ranks_are_refused(cloud, rank):
    with pytest.raises(ValueError, match=f"rank is {rank}"):
        Gaussian.fit(cloud, rank=rank)


def test_unknown_remainder_is_refused(cloud):
    with pytest.raises(ValueError, match="remainder is 'keep'"):
        Gaussian.fit(cloud, rank=2, remainder="keep")


# Optimal error -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [None, 2])
def test_denoising_error_of_gaussian_data(cloud, randn, rank):
    machine = Gaussian.fit(cloud, rank)
    x0 = machine.mean + randn(20000, D) @ torch.linalg.cholesky(machine.cov).T
    for noise in (Noise(0.8, 0.6), Noise(1.0, 2.0)):
        noisy = noise.add(x0, randn(20000, D))
        error = (machine.denoise(noisy, noise) - x0).square().sum(1)
        assert abs(error.mean() - machine.denoising_error(noise)) < 4 * error.std() / math.sqrt(len(error))


def test_denoising_error_of_any_data_with_these_moments(cloud):
    machine = Gaussian.fit(cloud)
    for noise in (Noise(0.8, 0.6), Noise(1.0, 1e-3), Noise(0.0, 1.0)):
        x0, noisy = sigma_points(cloud, noise)
        assert_close((machine.denoise(noisy, noise) - x0).square().sum(1).mean(), machine.denoising_error(noise))
    assert_close(machine.denoising_error(Noise(1.0, 0.0)).item(), 0.0)
    assert_close(machine.denoising_error(Noise(0.0, 1.0)), machine.cov.trace())


def test_denoising_error_in_one_dimension_by_quadrature():
    """The integral of the posterior variance over the density of x."""
    machine = Gaussian.fit(torch.tensor([[-1.0], [0.5], [1.0]], dtype=torch.float64))
    noise = Noise(0.7, 0.4)
    x = torch.linspace(-15, 15, 20001, dtype=torch.float64)[:, None]
    variance = machine.posterior_cov_product(x, noise, torch.ones_like(x))
    error = torch.trapezoid((machine.log_density(x, noise).exp()[:, None] * variance)[:, 0], x[:, 0])
    assert_close(error, machine.denoising_error(noise))


# The exact flow -------------------------------------------------------------------------------------------------


LEVELS = [Noise(0.0, 1.0), Noise(1.0, 80.0), Noise(0.5, 0.8), Noise(0.99, 0.05), Noise(3.0, 0.1)]


@pytest.fixture(params=[(None, "isotropic"), (2, "isotropic"), (2, "drop")], ids=["full", "rank", "drop"])
def gauss(request, cloud):
    return Gaussian.fit(cloud, *request.param)


def test_flow_is_a_semigroup_with_inverse(gauss, x):
    tolerance = {"rtol": 1e-8, "atol": 1e-10}
    for a, b, c in itertools.permutations(LEVELS, 3):
        assert_close(gauss.flow(gauss.flow(x, a, b), b, c), gauss.flow(x, a, c), **tolerance)
        assert_close(gauss.flow(gauss.flow(x, a, b), b, a), x, **tolerance)
        assert_close(gauss.flow(x, a, a), x)


def square_root(matrix):
    lam, U = torch.linalg.eigh(matrix)
    return U * lam.clamp(min=0).sqrt() @ U.T


def test_flow_is_the_dense_matrix_square_root(gauss, x):
    for start, end in itertools.permutations(LEVELS, 2):
        noisy = [n.alpha**2 * gauss.cov + n.sigma**2 * torch.eye(D).double() for n in (start, end)]
        M = square_root(noisy[1]) @ torch.linalg.inv(square_root(noisy[0]))
        assert_close(gauss.flow(x, start, end), end.alpha * gauss.mean + (x - start.alpha * gauss.mean) @ M.T)


def test_flow_pushes_one_marginal_on_the_next(gauss):
    """The covariance of the image is that of the end level; the map is read off on the unit vectors."""
    for start, end in itertools.permutations([*LEVELS, Noise(1.0, 0.0)], 2):
        if start.clean:
            continue
        origin = start.alpha * gauss.mean
        M = (gauss.flow(origin + torch.eye(D), start, end) - end.alpha * gauss.mean).T
        covs = [n.alpha**2 * gauss.cov + n.sigma**2 * torch.eye(D).double() for n in (start, end)]
        assert_close(M @ covs[0] @ M.T, covs[1])
        assert_close(gauss.flow(origin[None], start, end)[0], end.alpha * gauss.mean)


def variance_exploding(t):
    return Noise(1.0, t), (0.0, 1.0)


def variance_preserving(t):
    return Noise(math.cos(t), math.sin(t)), (-math.sin(t), math.cos(t))


def linear(t):
    return Noise(1 - t, t), (-1.0, 1.0)


@pytest.mark.parametrize(
    ("path", "start", "end"),
    [(variance_exploding, 20.0, 0.02), (variance_preserving, 1.57, 0.05), (linear, 1.0, 0.02), (linear, 0.1, 0.9)],
)
def test_flow_solves_the_probability_flow(gauss, x, path, start, end):
    """dx/dt = D alpha' + eps sigma', integrated by an adaptive solver of high order."""

    def slope(t, y):
        noise, (alpha_dot, sigma_dot) = path(t)
        state = torch.from_numpy(y).reshape(x.shape)
        return (alpha_dot * gauss.denoise(state, noise) + sigma_dot * gauss.eps(state, noise)).flatten().numpy()

    found = solve_ivp(slope, (start, end), x.flatten().numpy(), method="DOP853", rtol=1e-9, atol=1e-10)
    exact = gauss.flow(x, path(start)[0], path(end)[0])
    assert_close(torch.from_numpy(found.y[:, -1]).reshape(x.shape), exact, rtol=1e-6, atol=1e-7)


def test_flow_serves_one_level_per_image(gauss, x):
    start = Noise(torch.linspace(0, 1, 5)[:, None].double(), torch.linspace(0.5, 3, 5)[:, None].double())
    end = Noise(torch.linspace(1, 0.2, 5)[:, None].double(), torch.linspace(0, 1, 5)[:, None].double())
    for f in (gauss.flow, gauss.denoised_path):
        single = [
            f(x[b : b + 1], *(Noise(n.alpha[b].item(), n.sigma[b].item()) for n in (start, end))) for b in range(5)
        ]
        assert_close(f(x, start, end), torch.cat(single))


def test_flow_refuses_what_it_cannot_do(gauss, x):
    for f in (gauss.flow, gauss.denoised_path):
        with pytest.raises(ValueError, match="sigma of the start is 0"):
            f(x, Noise(1.0, 0.0), Noise(1.0, 1.0))
        for levels in [
            (Noise(1.0, torch.ones(1, D)), Noise(1.0, 1.0)),
            (Noise(1.0, 1.0), Noise(torch.ones(1, D), 1.0)),
        ]:
            with pytest.raises(ValueError, match="differs between components"):
                f(x, *levels)
        with pytest.raises(ValueError, match="shape"):
            f(x[:, :3], Noise(1.0, 1.0), Noise(1.0, 0.5))


@pytest.mark.parametrize("start", LEVELS[:3])
@pytest.mark.parametrize("end", [*LEVELS, Noise(1.0, 0.0)])
def test_denoised_path_is_the_denoiser_on_the_flow(gauss, x, start, end):
    path = gauss.denoised_path(x, start, end)
    if end.clean:  # dropped directions are lost at the end, so the point itself is its clean image
        assert_close(path, gauss.flow(x, start, end))
    else:
        assert_close(path, gauss.denoise(gauss.flow(x, start, end), end))


def test_denoised_path_ends_at_the_sample(gauss, x):
    start = Noise(0.3, 0.9)
    assert_close(gauss.denoised_path(x, start, Noise(1.0, 0.0)), gauss.flow(x, start, Noise(1.0, 0.0)))


def test_emergence_is_the_share_of_the_final_feature(gauss, x):
    """Coordinates of D - mean along the flow, divided by those of the finished image."""
    start = Noise(1.0, 50.0)
    final = (gauss.flow(x, start, Noise(1.0, 0.0)) - gauss.mean) @ gauss.U
    for noise in (Noise(1.0, 2.0), Noise(1.0, 0.3), Noise(0.5, 0.8), Noise(0.0, 1.0)):
        now = (gauss.denoised_path(x, start, noise) - gauss.mean) @ gauss.U
        assert_close(now / final, gauss.emergence(noise).expand_as(now))
    assert_close(gauss.emergence(Noise(1.0, 0.0)), torch.ones_like(gauss.lam))


def test_landmarks_of_emergence(cloud):
    """Half the power at sigma = sqrt(lam), half the amplitude at sqrt(3 lam), steepest in log sigma at sqrt(2 lam)."""
    machine = Gaussian.fit(cloud)
    for k, lam in enumerate(machine.lam):
        sigma = lam.sqrt() * torch.tensor([1.0, 3.0]).double().sqrt()
        half_power, half_amplitude = (machine.emergence(Noise(1.0, s))[k].item() for s in sigma)
        assert half_power**2 == pytest.approx(0.5)
        assert half_amplitude == pytest.approx(0.5)
        grid = lam.sqrt() * torch.logspace(-0.5, 0.5, 501).double()
        share = torch.stack([machine.emergence(Noise(1.0, s))[k] for s in grid])
        steepest = grid[share.diff().argmin()]
        assert steepest.item() ** 2 == pytest.approx(2 * lam.item(), rel=0.01)


def test_sensitivity_is_the_derivative_of_the_outcome(gauss, x):
    h = 1e-3
    for start, end in itertools.product(LEVELS[:4], [Noise(1.0, 0.0), Noise(0.9, 0.3), Noise(1.0, 5.0)]):
        for k, u in enumerate(gauss.U.T):
            kick = gauss.denoised_path(x + h * u, start, end) - gauss.denoised_path(x - h * u, start, end)
            expected = (gauss.sensitivity(start, end)[k] * u).expand_as(kick)
            assert_close(kick / (2 * h), expected, rtol=1e-6, atol=1e-8)
        if end.clean:
            assert_close(gauss.sensitivity(start), gauss.sensitivity(start, end))


def test_sensitivity_changes_sign_of_trend_at_unit_variance():
    """Variance preserving, a kick of fixed size: early kicks act more where lam > 1 and less where lam < 1."""
    data = torch.tensor([[2.0, 0.5], [-2.0, -0.5], [2.0, -0.5], [-2.0, 0.5]], dtype=torch.float64)
    machine = Gaussian.fit(data)
    early, late = (machine.sensitivity(Noise(math.cos(t), math.sin(t))) for t in (1.5, 0.1))
    assert early[0] > 1.5 * late[0]
    assert early[1] < late[1] / 1.5


@pytest.mark.parametrize("name", ["emergence", "denoising_error", "sensitivity"])
def test_spectral_laws_need_one_level(gauss, name):
    with pytest.raises(ValueError, match="level"):
        getattr(gauss, name)(Noise(torch.ones(5, 1), 1.0))
