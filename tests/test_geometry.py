"""The geometry of schedules: information along paths, the metric, the gap of a sampler, and the best curves."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from scoremachines import Gaussian, Ideal, Mixture, Noise, cosine, ddim, ddpm, vp
from scoremachines.ancestral import diagonal, large
from scoremachines.coordinates import gaussian_law
from scoremachines.data import load
from scoremachines.geometry import (
    component_information,
    constant_speed,
    energy,
    error_matrix,
    gap,
    geodesic,
    information,
    length,
    metric,
)
from scoremachines.likelihood import exact_law, noised_law
from scoremachines.paths import at_gamma, gamma_of, inverse_softness, soft, stairs, walk
from scoremachines.teleport import gaussian_kl
from tests.conftest import refused

PURE = math.inf


def law(cov, mean=None):
    cov = torch.as_tensor(cov, dtype=torch.float64)
    return gaussian_law(torch.zeros(len(cov)) if mean is None else mean, cov, (len(cov),))


def pair(rho):
    return law([[1.0, rho], [rho, 1.0]])


def level(*gamma):
    return at_gamma(torch.tensor([gamma], dtype=torch.float64))


def flat(gamma, D):
    return level(*[float(gamma)] * D)


def gammas(levels):
    return torch.cat([gamma_of(noise) for noise in levels])


def errors(cov, gamma):
    """K = 1 - S (A C A + S^2)^-1 S for any number of rows of gamma."""
    alpha, sigma = torch.sigmoid(-gamma).sqrt(), torch.sigmoid(gamma).sqrt()
    noisy = alpha[..., :, None] * cov * alpha[..., None, :] + torch.diag_embed(sigma**2)
    return torch.eye(len(cov)).double() - sigma[..., :, None] * torch.linalg.inv(noisy) * sigma[..., None, :]


def wander(rand, D, steps):
    """A random path on which gamma falls from 4 to -6, with some components resting in each step."""
    share = rand(steps, D) * (rand(steps, D) > 0.4)
    share[0] += 1e-3
    fall = torch.cat([torch.zeros(1, D), (share / share.sum(0)).cumsum(0)])
    fall[-1] = 1
    return [at_gamma(row[None]) for row in 4 - 10 * fall.double()]


@pytest.fixture
def five(randn):
    """A Gaussian in five dimensions with variances from 0.01 to 10."""
    basis = torch.linalg.qr(randn(5, 5)).Q
    return law((basis * torch.tensor([10.0, 2.0, 1.0, 0.1, 0.01])) @ basis.T, randn(5))


@pytest.fixture(scope="module")
def digits():
    """The covariance of the 8 x 8 digits plus 1e-3, and its eigenvalues, decreasing."""
    x = load("digits", "all").x0.double().flatten(1)
    assert x.shape == (1797, 64)
    cov = torch.cov(x.T, correction=0) + 1e-3 * torch.eye(64)
    return cov, torch.linalg.eigvalsh(cov).flip(0)


# Mixtures by quadrature -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixture():
    first = law([[0.3, 0.2], [0.2, 0.4]], torch.tensor([1.25, -0.75]))
    second = law([[0.2, -0.1], [-0.1, 0.25]], torch.tensor([-1.0, 0.5]))
    return Mixture(torch.tensor([0.35, 0.65], dtype=torch.float64), (first, second))


def plane(mixture, noise, width=6.5, count=60):
    """A grid of samples (n, 2) and their probabilities: the trapezoid rule is spectral here."""
    line = torch.linspace(-width, width, count, dtype=torch.float64)
    x = torch.cartesian_prod(line, line)
    weight = mixture.log_density(x, noise).exp() * (line[1] - line[0]) ** 2
    assert_close(weight.sum().item(), 1.0, rtol=0, atol=1e-9)
    return x, weight


def mean_errors(mixture, *gamma):
    """E K_ii and E K_ij^2 of the mixture."""
    noise = level(*gamma)
    x, weight = plane(mixture, noise)
    K = error_matrix(mixture, x, noise)
    return torch.einsum("n,nii->i", weight, K), torch.einsum("n,nij->ij", weight, K**2)


# The error matrix and the metric --------------------------------------------------------------------------------------


def test_the_error_matrix_of_a_gaussian(five, randn):
    gamma = 3 * randn(1, 5)
    found = error_matrix(five, randn(3, 5), at_gamma(gamma))
    assert_close(found, errors(five.cov, gamma).expand(3, 5, 5), rtol=1e-8, atol=1e-10)


def test_the_error_matrix_is_the_covariance_of_the_noise(cloud, randn):
    """E[eps eps^T | x] - E[eps | x] E[eps | x]^T by the posterior weights of the samples."""
    noise, x = at_gamma(randn(1, 6)), randn(3, 6)
    alpha, sigma = noise.alpha, noise.sigma
    eps = (x[:, None] - alpha * cloud) / sigma
    weight = (-eps.square().sum(2) / 2).softmax(1)
    mean = torch.einsum("bn,bni->bi", weight, eps)
    second = torch.einsum("bn,bni,bnj->bij", weight, eps, eps)
    assert_close(error_matrix(Ideal.fit(cloud), x, noise), second - mean[:, :, None] * mean[:, None, :])


def test_the_error_matrix_takes_images_and_levels_of_each_image(data, randn):
    machine, x = Gaussian.fit(data), randn(4, 1, 2, 3)
    gamma = randn(4, 1, 2, 3)
    together = error_matrix(machine, x, at_gamma(gamma))
    one_by_one = [error_matrix(machine, x[b : b + 1], at_gamma(gamma[b : b + 1])) for b in range(4)]
    assert_close(together, torch.cat(one_by_one))
    assert_close(error_matrix(machine, x, Noise(0.6, 0.8)), error_matrix(machine, x, flat_images(0.6, 0.8)))


def flat_images(alpha, sigma):
    return Noise(torch.full((1, 1, 2, 3), alpha).double(), torch.full((1, 1, 2, 3), sigma).double())


def test_nothing_is_known_of_the_error_without_signal(five):
    K = error_matrix(five, five.mean[None], level(PURE, 0, 0, PURE, -2))
    assert (K[0, [0, 3]] == 0).all()
    assert (K[0].diagonal()[[1, 2, 4]] > 0).all()


def test_the_metric_of_a_gaussian_is_the_derivative_of_its_mean_error(five, randn):
    """G_ij = delta_ij m_i + dm_i / dgamma_j, by central differences."""
    gamma, h = 2 * randn(5), 1e-3
    step = h * torch.eye(5).double()

    def m(rows):
        return errors(five.cov, rows).diagonal(dim1=-2, dim2=-1)

    slope = (8 * (m(gamma + step) - m(gamma - step)) - (m(gamma + 2 * step) - m(gamma - 2 * step))).T / (12 * h)
    assert_close(metric(five, at_gamma(gamma[None])), m(gamma).diag() + slope, rtol=0, atol=1e-8)


def test_the_metric_of_a_mixture_is_the_derivative_of_its_mean_error(mixture):
    gamma, h = (0.3, -0.8), 2e-3
    m, G = mean_errors(mixture, *gamma)
    columns = []
    for j in range(2):
        up, down = ([g + s * h * (i == j) for i, g in enumerate(gamma)] for s in (1, -1))
        columns.append((mean_errors(mixture, *up)[0] - mean_errors(mixture, *down)[0]) / (2 * h))
    assert_close(G, m.diag() + torch.stack(columns, 1), rtol=0, atol=1e-6)
    assert (G.diagonal() > m**2 + 1e-3).all()  # Jensen's inequality is strict where K depends on x


def test_the_metric_averages_over_the_samples(mixture, randn):
    x, noise = randn(7, 2), level(0.3, -0.8)
    assert_close(metric(mixture, noise, x), error_matrix(mixture, x, noise).square().mean(0))
    gaussian = mixture.components[0]
    assert_close(metric(gaussian, noise, x), metric(gaussian, noise))


# Information ----------------------------------------------------------------------------------------------------------


def test_information_is_the_fall_of_the_entropy(five, randn):
    """I(x0; x) = h(x) - h(x | x0), of multivariate normals."""
    noise = at_gamma(3 * randn(1, 5))
    entropy = [
        torch.distributions.MultivariateNormal(torch.zeros(5).double(), cov).entropy().item()
        for cov in (noised_law(five, noise).cov, (noise.sigma[0] ** 2).diag())
    ]
    assert_close(information(five, noise), entropy[0] - entropy[1], rtol=1e-9, atol=1e-9)
    assert information(five, flat(PURE, 5)) == 0


def test_information_survives_little_noise():
    """A component of variance 1 and noise e^-60 holds log(1 + e^60) / 2 nats, another of e^-20 next to nothing."""
    found = information(law(torch.diag(torch.tensor([1.0, math.exp(-20)]))), level(-60, 20))
    assert_close(found, (60 + math.exp(-40)) / 2, rtol=1e-14, atol=0)


def test_the_information_gained_is_the_same_on_every_path(five, rand):
    start, end = flat(4, 5), flat(-6, 5)
    paths = [[start, end], walk(stairs(torch.arange(5), -6.0, 4.0), 5), *(wander(rand, 5, n) for n in (3, 8, 40))]
    shares = [component_information(five, path) for path in paths]
    gained = information(five, end) - information(five, start)
    for share in shares:
        assert_close(share.sum().item(), gained, rtol=1e-10, atol=0)
        assert (share > 0).all()
    assert (shares[0] - shares[1]).abs().max() > 0.1  # the shares do depend on the path


def test_the_information_of_a_mixture_is_the_same_on_every_path(mixture):
    start, end = torch.tensor([2.0, 1.5]).double(), torch.tensor([-0.5, -1.0]).double()
    corner = torch.stack([start[0], end[1]])
    nodes, weights = (torch.from_numpy(part) / 2 for part in np.polynomial.legendre.leggauss(8))

    def gained(*corners):
        return -sum(
            w * (mean_errors(mixture, *(now + (u + 0.5) * (nxt - now)).tolist())[0] @ (nxt - now)) / 2
            for now, nxt in pairwise(corners)
            for u, w in zip(nodes, weights, strict=True)
        )

    straight = gained(start, end)
    assert_close(gained(start, corner, end), straight, rtol=1e-8, atol=0)
    assert_close(mixed_information(mixture, end) - mixed_information(mixture, start), straight, rtol=1e-8, atol=0)


def mixed_information(mixture, gamma):
    """h(x) - h(x | x0) by quadrature."""
    noise = at_gamma(gamma[None])
    x, weight = plane(mixture, noise)
    return -(weight * mixture.log_density(x, noise)).sum() - noise.sigma.log().sum() - 1 - math.log(2 * math.pi)


def test_shares_of_independent_components_are_their_own_information():
    variance, path = torch.tensor([4.0, 1.0, 0.25]).double(), [level(3, 1, 2), level(1, -9, 2), level(-5, -9, -4)]
    start, end = ((variance * (-gamma).exp()).log1p() for gamma in gammas(path)[[0, -1]])
    assert_close(component_information(law(variance.diag()), path), (end - start) / 2, rtol=1e-10, atol=0)


# The gap --------------------------------------------------------------------------------------------------------------


def test_the_gap_is_the_loss_of_the_bound(five, rand):
    """(1/2) sum (e^(gamma - gamma') - 1) m - the information gained."""
    for path in (wander(rand, 5, 7), walk(stairs(torch.arange(5), -6.0, 4.0), 5), [flat(4, 5), flat(-6, 5)]):
        gamma = gammas(path)
        m = errors(five.cov, gamma[:-1]).diagonal(dim1=1, dim2=2)
        bound = (torch.expm1(gamma[:-1] - gamma[1:]) * m).sum().item() / 2
        gained = information(five, path[-1]) - information(five, path[0])
        assert_close(gap(five, path), bound - gained, rtol=1e-8, atol=1e-8)


def test_the_gap_is_the_divergence_of_two_chains(rand):
    """The joint law of x at all levels, of the reversed process and of `ddpm` from the same start, dense."""
    gaussian, path = law([[1.0, 0.8, 0.1], [0.8, 2.0, 0.0], [0.1, 0.0, 0.3]]), falling(rand, 3, 4)
    size = 3 * len(path)
    true, model = (torch.zeros(size, size).double() for _ in range(2))
    blocks = [slice(3 * k, 3 * k + 3) for k in range(len(path))]
    model[blocks[0], blocks[0]] = noised_law(gaussian, path[0]).cov
    for k, noise in enumerate(path):
        for before in range(k + 1):
            true[blocks[before], blocks[k]] = (path[before].alpha / noise.alpha)[0].diag() @ noised_law(
                gaussian, noise
            ).cov
            true[blocks[k], blocks[before]] = true[blocks[before], blocks[k]].T
    for k, (now, nxt) in enumerate(pairwise(path)):
        c = -torch.expm1(gamma_of(nxt) - gamma_of(now))
        x = torch.eye(3).double()
        F = (nxt.alpha / now.alpha * (1 - c) * x + nxt.alpha * c * gaussian.denoise(x, now)).T
        known = slice(0, 3 * k + 3)
        model[blocks[k + 1], known] = F @ model[blocks[k], known]
        model[known, blocks[k + 1]] = model[blocks[k + 1], known].T
        model[blocks[k + 1], blocks[k + 1]] = F @ model[blocks[k], blocks[k]] @ F.T + (c * nxt.sigma**2)[0].diag()
    chains = [torch.distributions.MultivariateNormal(torch.zeros(size).double(), cov) for cov in (true, model)]
    assert_close(gap(gaussian, path), torch.distributions.kl_divergence(*chains).item(), rtol=1e-9, atol=0)


def falling(rand, D, steps):
    """A random path on which every gamma falls in every step, from 3 at most to -3 at least."""
    return [at_gamma(row[None]) for row in (6 * rand(steps + 1, D) - 3).sort(0, descending=True).values]


def test_a_component_that_rests_adds_nothing(five):
    """Without signal it is as if it were not there; and the scale of a level is no part of it."""
    rest = law(five.cov[1:, 1:])
    walked = [level(PURE, 3, 2, 4, 3), level(PURE, 3, 0, -1, 0), level(PURE, -5, 0, -3, -2)]
    shorter = [level(*gamma[1:].tolist()) for gamma in gammas(walked)]
    assert_close(gap(five, walked), gap(rest, shorter), rtol=1e-10, atol=0)
    assert_close(length(five, walked), length(rest, shorter), rtol=1e-9, atol=0)
    assert_close(component_information(five, walked)[1:], component_information(rest, shorter), rtol=1e-10, atol=0)
    exploding = [Noise(torch.ones(1, 4).double(), (gamma[None] / 2).exp()) for gamma in gammas(shorter)]
    assert_close(gap(rest, exploding), gap(rest, shorter), rtol=1e-10, atol=0)
    assert gap(five, [walked[1]] * 3) == 0
    assert length(five, [walked[1]] * 3) == 0


def test_a_start_without_signal_has_a_finite_gap(five):
    end = [flat(g, 5) for g in (1.0, -2.0)]
    assert_close(gap(five, [flat(PURE, 5), *end]), gap(five, [flat(45, 5), *end]), rtol=1e-12, atol=0)
    one = law([[2.0]])
    m = 2 * math.exp(1.0)  # snr' times the variance
    assert_close(gap(one, [level(PURE), level(-1)]), (m - math.log1p(m)) / 2, rtol=1e-14, atol=0)


def test_the_gap_keeps_its_digits_in_many_steps():
    """N steps between close levels: the sum of small terms, each a difference of nearly equal ones."""
    gaussian, N = pair(0.5), 500
    path = [flat(1e-3 * (1 - k / N), 2) for k in range(N + 1)]
    assert_close(N * gap(gaussian, path), length(gaussian, path) ** 2 / 4, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["straight", "curved", "one after another"])
def test_the_gap_falls_as_one_over_n_with_the_energy_of_the_curve(five, name):
    labels = torch.tensor([0.0, 2.0, 1.0, 1.0, 3.0])
    schedule = {
        "straight": soft(labels, 0.5, -5.0, 3.0),
        "curved": soft(labels, 2.0, -5.0, 3.0, capped=True),
        "one after another": stairs(labels, -5.0, 3.0),
    }[name]
    limit = energy(five, walk(schedule, 140)) / 4  # a corner of each of these curves lies at a multiple of 1 / 35
    errors = [N * gap(five, walk(schedule, N)) - limit for N in (70, 350)]
    assert 0 < errors[1] < 0.03 * limit
    assert errors[0] / errors[1] == pytest.approx(5, rel=0.1)


# Length and speed -----------------------------------------------------------------------------------------------------


def test_length_and_energy_are_integrals_of_the_metric(five, rand):
    path = wander(rand, 5, 3)
    speeds = []
    for now, nxt in pairwise(gammas(path)):
        change = nxt - now
        points = [now + (k + 0.5) / 200 * change for k in range(200)]
        speeds.append([(change @ metric(five, at_gamma(point[None])) @ change).item() for point in points])
    speeds = torch.tensor(speeds).double()
    assert_close(length(five, path), speeds.sqrt().mean(1).sum().item(), rtol=2e-4, atol=0)
    assert_close(energy(five, path), 3 * speeds.mean(1).sum().item(), rtol=2e-4, atol=0)
    assert energy(five, path) > length(five, path) ** 2


def test_lengths_add_up_and_know_no_direction(five, rand):
    path = wander(rand, 5, 6)
    whole = length(five, path)
    assert_close(length(five, path[:4]) + length(five, path[3:]), whole, rtol=1e-12, atol=0)
    assert_close(length(five, path[::-1]), whole, rtol=1e-12, atol=0)
    middle = [at_gamma((a + b)[None] / 2) for a, b in pairwise(gammas(path))]
    finer = [noise for two in zip(path, middle, strict=False) for noise in two] + path[-1:]
    assert_close(length(five, finer), whole, rtol=1e-6, atol=0)


def test_one_component_at_a_time_the_length_is_twice_the_information(five):
    """For Gaussian data in any basis and any order; so the price of autoregression is I^2."""
    for order in (torch.arange(5), torch.tensor([3, 0, 4, 1, 2])):
        path = walk(stairs(order, -6.0, 4.0), 5)
        assert_close(length(five, path) / 2, component_information(five, path).sum().item(), rtol=1e-9, atol=0)


def test_no_path_beats_the_bounds(five, rand):
    for path in (wander(rand, 5, 5), walk(soft(torch.arange(5), 1.0), 20), [flat(4, 5), flat(-6, 5)]):
        share = component_information(five, path)
        assert length(five, path) ** 2 / 4 > share.square().sum() > share.sum() ** 2 / 5


def bent(t):
    """A smooth curve from gamma = -5 to 3 whose components move at different times."""
    return at_gamma(-5 + 8 * t ** torch.tensor([[1.0, 1.2, 1.5, 2.0, 3.0]]).double())


def test_constant_speed_has_equal_lengths_and_the_least_gap(five):
    levels = constant_speed(five, bent, 40)
    assert_close(gammas([levels[0], levels[-1]]), gammas([bent(1.0), bent(0.0)]))
    pieces = torch.tensor([length(five, list(two)) for two in pairwise(levels)])
    assert_close(pieces, pieces.mean().expand(40), rtol=0.01, atol=0)
    limit = length(five, levels) ** 2 / 4
    assert_close(energy(five, levels) / 4, limit, rtol=2e-3, atol=0)
    assert 1 < 300 * gap(five, constant_speed(five, bent, 300)) / limit < 1.02
    assert 300 * gap(five, walk(bent, 300)) > 1.05 * limit


def test_the_clock_of_a_schedule_does_not_matter(five):
    schedule = soft(torch.arange(5), 1.0)
    slow = constant_speed(five, lambda t: schedule(t**2), 12)
    assert_close(gammas(slow), gammas(constant_speed(five, schedule, 12)), rtol=0, atol=2e-3)


# Geodesics ------------------------------------------------------------------------------------------------------------


def shortest(cov, start, end, n=60, reach=5):
    """The least length between two points of the plane by dynamic programming on a grid, by moves of up to `reach`."""
    axes = [torch.linspace(a, b, n + 1).double() for a, b in zip(start, end, strict=True)]
    moves = [(i, j) for i in range(reach + 1) for j in range(reach + 1) if math.gcd(i, j) == 1]
    costs = {}
    for i, j in moves:
        ends = [(axis[: n + 1 - k], axis[k:]) for axis, k in zip(axes, (i, j), strict=True)]
        change = torch.stack([axis[k] - axis[0] for axis, k in zip(axes, (i, j), strict=True)])
        speed = 0
        for node, weight in zip(*np.polynomial.legendre.leggauss(3), strict=True):
            here = [low + (node + 1) / 2 * (high - low) for low, high in ends]
            K = errors(cov, torch.stack(torch.meshgrid(*here, indexing="ij"), -1))
            speed = speed + weight / 2 * (K**2 @ change @ change).sqrt()
        costs[i, j] = speed.numpy()
    best = np.full((n + 1, n + 1), np.inf)
    best[0, 0] = 0
    for p, q in sorted(np.ndindex(n + 1, n + 1), key=sum):
        steps = (best[p - i, q - j] + costs[i, j][p - i, q - j] for i, j in moves if i <= p and j <= q)
        best[p, q] = min([best[p, q], *steps])
    return best[n, n]


@pytest.mark.parametrize(
    ("rho", "together", "one_by_one"), [(0.0, 17.9, 35.8), (0.5, 17.5, 34.1), (0.9, 15.3, 26.7), (0.99, 12.4, 17.1)]
)
def test_two_equal_components_are_best_denoised_together(rho, together, one_by_one):
    """Limits of N gap between gamma = 4 and -6; windows that overlap in part lie in between."""
    gaussian, labels, start, end = pair(rho), torch.tensor([0.0, 1.0]), flat(4, 2), flat(-6, 2)
    best = length(gaussian, geodesic(gaussian, start, end))
    assert best**2 / 4 == pytest.approx(together, abs=0.06)
    assert_close(best, length(gaussian, [start, end]), rtol=1e-4, atol=0)
    found = []
    for share in (0.9, 0.75, 0.6):
        schedule = soft(labels, inverse_softness(labels, share, -6, 4), -6, 4, capped=True)
        found.append(length(gaussian, walk(schedule, 120)) ** 2 / 4)
    found.append(length(gaussian, walk(stairs(labels, -6.0, 4.0), 2)) ** 2 / 4)
    assert found[-1] == pytest.approx(one_by_one, abs=0.06)
    assert best**2 / 4 < found[0] < found[1] < found[2] < found[3]


@pytest.mark.parametrize(
    ("variance", "rho", "start", "end"),
    [((1.0, 1.0), 0.9, (4, 4), (-6, -6)), ((3.0, 0.1), 0.95, (4, 3), (-3, -6)), ((1.0, 0.02), 0.5, (2, 4), (-6, -4))],
)
def test_the_geodesic_is_the_shortest_path_on_a_grid(variance, rho, start, end):
    cross = rho * math.sqrt(variance[0] * variance[1])
    cov = torch.tensor([[variance[0], cross], [cross, variance[1]]]).double()
    found = length(law(cov), geodesic(law(cov), level(*start), level(*end)))
    assert_close(found, float(shortest(cov, start, end)), rtol=3e-3, atol=0)


def test_the_geodesic_of_independent_components_is_a_line():
    """y = log(1 + snr variance) is flat: all move in proportion, and N gap tends to the bound."""
    variance = torch.tensor([5.0, 1.0, 0.2, 0.01]).double()
    gaussian, start, end = law(variance.diag()), level(3, 4, 2, 1), level(-6, -4, -7, -8)
    path = geodesic(gaussian, start, end, 200)
    y = (variance * (-gammas(path)).exp()).log1p()
    assert_close(y, y[0] + torch.linspace(0, 1, 201).double()[:, None] * (y[-1] - y[0]), rtol=0, atol=1e-5)
    share = component_information(gaussian, path)
    assert_close(length(gaussian, path) ** 2 / 4, share.square().sum().item(), rtol=3e-4, atol=0)


@pytest.mark.parametrize("n", [1, 3, 50, 200])
def test_a_geodesic_keeps_its_promises(five, n):
    start, end = level(4, -2.25, 2.25, 4, 5.25), level(-6, -2.25, 2.25, -5, 5.25)
    path = geodesic(five, start, end, n)
    assert len(path) == n + 1
    assert_close(gammas([path[0], path[-1]]), gammas([start, end]), rtol=0, atol=1e-12)
    moved = gammas(path).diff(dim=0)
    assert (moved <= 0).all()
    assert (moved[:, [1, 2, 4]] == 0).all()
    if n >= 50:
        assert length(five, path) < length(five, [start, end])
        pieces = torch.tensor([length(five, list(two)) for two in pairwise(path)])
        assert_close(pieces, pieces.mean().expand(n), rtol=0.1, atol=0)


def test_few_levels_lie_on_the_curve_of_many(five):
    """The polygon is fine whatever n is, and its error falls with the square of its pieces."""
    few, some, many = (gammas(geodesic(five, flat(4, 5), flat(-6, 5), n)) for n in (4, 64, 512))
    assert_close(few, some[::16], rtol=0, atol=1e-9)
    assert_close(some, many[::8], rtol=0, atol=2e-2)


def test_a_geodesic_from_pure_noise(five):
    with torch.no_grad():
        path = geodesic(five, level(PURE, PURE, 4, PURE, 3), level(-4, PURE, -3, 0, 3), 64)
    found = gammas(path)
    assert (found[:, 1] == PURE).all()
    assert found[1:, [0, 2, 3, 4]].isfinite().all()
    assert_close(64 * gap(five, path), length(five, path[1:]) ** 2 / 4, rtol=0.1, atol=0)


def test_a_fine_polygon_does_not_jump_over_the_costs(five):
    """The gap of its levels is that of its length, and less than on the best walk along one gamma for all."""
    path = geodesic(five, flat(4, 5), flat(-6, 5), 256)
    found = 256 * gap(five, path)
    assert_close(found, length(five, path) ** 2 / 4, rtol=0.03, atol=0)
    assert found < 0.97 * 256 * gap(five, constant_speed(five, soft(torch.zeros(5), 0, -6, 4), 256, fine=100))


def test_levels_of_images_have_their_shape(data):
    """And a component that never varies is legal: it carries nothing."""
    machine, start, end = Gaussian.fit(data), at_gamma(torch.full((1, 1, 2, 3), 2.0).double()), Noise(1.0, 0.1)
    path = geodesic(machine, start, end, 4)
    assert all(noise.alpha.shape == noise.sigma.shape == (1, 1, 2, 3) for noise in path)
    share = component_information(machine, path)
    assert share.shape == (6,)
    assert_close(share.sum().item(), information(machine, end) - information(machine, path[0]))
    assert abs(share[0].item()) < 1e-12


# Digits ---------------------------------------------------------------------------------------------------------------


def test_the_price_of_autoregression_on_whitened_digits():
    """Whitened by principal components any data of 64 dimensions are alike: gamma from 4 to -7 gains 223.4 nats."""
    gaussian, path = law(torch.eye(64)), [flat(4, 64), flat(-7, 64)]
    share = component_information(gaussian, path)
    assert share.sum().item() == pytest.approx(223.4, abs=0.05)
    assert energy(gaussian, path) / 4 == pytest.approx(1056, abs=0.5)
    best = length(gaussian, path) ** 2 / 4
    assert best == pytest.approx(780.1, abs=0.05)
    assert_close(best, share.sum().item() ** 2 / 64, rtol=1e-10, atol=0)
    assert length(gaussian, walk(stairs(torch.arange(64), -7, 4), 64)) ** 2 / 4 == pytest.approx(49929, abs=0.5)
    common = soft(torch.zeros(64), 0, -7, 4)
    assert 128 * gap(gaussian, constant_speed(gaussian, common, 128, fine=100)) == pytest.approx(best, rel=0.02)
    assert 128 * gap(gaussian, walk(common, 128)) == pytest.approx(1056, rel=0.03)


def test_the_price_of_autoregression_on_digits(digits):
    cov, lam = digits
    gaussian, path = law(lam.diag()), [flat(4, 64), flat(-7, 64)]
    share = component_information(gaussian, path)
    price = share.sum().item() ** 2
    assert share.sum().item() == pytest.approx(131.8, abs=0.05)
    assert energy(gaussian, path) / 4 == pytest.approx(567, abs=0.5)
    assert length(gaussian, path) ** 2 / 4 == pytest.approx(375, abs=0.5)
    assert share.square().sum().item() == pytest.approx(341, abs=0.5)
    assert price == pytest.approx(17370, abs=0.5)
    assert price / share.square().sum().item() == pytest.approx(50.9, abs=0.05)  # components that share the work
    pixels = law(cov)
    assert_close(energy(pixels, path), energy(gaussian, path), rtol=1e-8, atol=0)  # one gamma for all has no basis
    assert_close(length(pixels, walk(stairs(torch.arange(64), -7, 4), 64)) ** 2 / 4, price, rtol=1e-8, atol=0)


@pytest.mark.parametrize("a", [0, 1, 4])
def test_ddim_in_principal_components_is_a_product_of_cosines(a):
    """S_0 / T_0 = prod cos^2(theta_n - theta_n+1), theta = arctan(snr^(-1/2)), for any softness."""
    gaussian = law(torch.eye(4))
    path = walk(soft(torch.tensor([0.0, 1.0, 2.0, 4.0]), a, -7, 4), 30)
    theta = (gammas(path) / 2).exp().arctan()
    expected = theta.diff(dim=0).cos().square().prod(0)
    assert_close(exact_law(gaussian, path, ddim).cov, expected.diag(), rtol=1e-12, atol=1e-12)


def miss(path, step):
    """KL of whitened data at the last level from the sampler's output."""
    gaussian = law(torch.eye(64))
    return gaussian_kl(noised_law(gaussian, path[-1]), exact_law(gaussian, path, step))


def test_the_law_of_the_output_error_in_principal_components():
    """Linear gamma, h = 11 / N: D h^2 / 16 for `ddpm` and D h^2 / 64 for `ddim`; equal angles better the latter."""
    N, span = 256, 11
    path = walk(soft(torch.zeros(64), 0, -7, 4), N)
    found, along = miss(path, ddpm), miss(path, ddim)
    assert found == pytest.approx(64 * span**2 / (16 * N**2), rel=0.05)
    assert found == pytest.approx(0.0074, abs=5e-5)
    assert along == pytest.approx(64 * span**2 / (64 * N**2), rel=0.05)
    assert along == pytest.approx(0.00178, abs=5e-6)
    theta = torch.linspace(math.atan(math.exp(2)), math.atan(math.exp(-3.5)), N + 1).double()
    equal = [flat(2 * math.log(math.tan(angle)), 64) for angle in theta]
    found = miss(equal, ddim)
    assert found == pytest.approx(64 * (theta[0] - theta[-1]).item() ** 4 / (4 * N**2), rel=0.05)
    assert found == pytest.approx(0.000957, abs=5e-7)


def test_samplers_with_the_right_variance_are_exact_in_principal_components(digits):
    for a in (0, 4):
        path = walk(soft(-digits[1].log(), a, -7, 4), 8)
        assert miss(path, large) < 1e-14
        assert miss(path, diagonal) < 1e-14


def test_hierarchy_only_costs_steps(digits):
    """Delta gamma becomes G + a R with the range R of the labels: KL = D (G + a R)^2 / (16 N^2)."""
    labels, N = -digits[1].log(), 256
    R = (labels.max() - labels.min()).item()
    assert R == pytest.approx(7.936, abs=5e-4)
    found = {a: miss(walk(soft(labels, a, -7, 4), N), ddpm) for a in (1, 4)}
    for a in found:
        assert found[a] == pytest.approx(64 * (11 + a * R) ** 2 / (16 * N**2), rel=0.05)
    assert found[1] == pytest.approx(0.0219, abs=5e-5)


# Errors ---------------------------------------------------------------------------------------------------------------


def test_bad_levels_are_refused(five, cloud, randn):
    machine, up, clean = Ideal.fit(cloud), flat(2, 5), flat(-math.inf, 5)
    refused("sigma is 0 in some component", error_matrix, five, randn(2, 5), level(0, 0, -math.inf, 0, 0))
    refused("sigma is 0 in some component", metric, five, Noise(1.0, 0.0))
    refused("K of a Ideal differs from sample to sample", metric, machine, flat(0, 6))
    refused("expected a Noise", error_matrix, five, randn(2, 5), 0.5)
    refused("expected a number or 2 axes", information, five, flat(0, 4))
    refused("the data are a Ideal, expected a Gaussian", information, machine, flat(0, 6))
    refused("sigma is 0 in some component", information, five, clean)
    for f in (gap, length, energy, component_information):
        refused("sigma is 0 in some component", f, five, [up, clean])
        refused("there are 1 levels, expected at least two", f, five, [up])
        refused("expected a Gaussian", f, machine, [flat(2, 6), flat(0, 6)])
    for f in (length, energy, component_information):
        refused("a component without signal", f, five, [flat(PURE, 5), up])
    refused("a component gains noise", gap, five, [up, level(2, 2, 2.1, 0, 0)])


def test_bad_curves_are_refused(five):
    up, down = flat(2, 5), flat(-2, 5)
    for n in (0, 2.0, True):
        refused("expected a whole number of steps", geodesic, five, up, down, n)
        refused("expected a whole number of steps", constant_speed, five, cosine, n)
    refused("start and end are the same level", geodesic, five, up, up)
    refused("a component gains noise", geodesic, five, down, up)
    refused("sigma is 0", geodesic, five, up, flat(-math.inf, 5))
    refused("sigma is 0", constant_speed, five, cosine, 4)
    refused("a component without signal", constant_speed, five, lambda t: cosine(0.1 + 0.9 * t), 4)
    refused("gains noise between times 0 and 1", constant_speed, five, lambda t: vp(1 - 0.9 * t), 4)


def test_constant_speed_keeps_both_ends():
    """A component without variance moves first, at no cost."""
    flat = gaussian_law(torch.zeros(2), torch.diag(torch.tensor([1.0, 0.0])), (2,))

    def path(t):
        return at_gamma(torch.tensor([[-4 + 8 * min(2 * t, 1), -4 + 8 * max(2 * t - 1, 0)]], dtype=torch.float64))

    found = constant_speed(flat, path, 4)
    for level, t in ((found[0], 1.0), (found[-1], 0.0)):
        assert_close(gamma_of(level), gamma_of(path(t)))
