"""Laws of samples, transport maps, bounds and densities: closed forms, Monte Carlo, and the numbers of the digits."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from scoremachines import (
    Gaussian,
    Ideal,
    Mixture,
    Moments,
    Noise,
    ddim,
    ddpm,
    dpmpp_2m,
    edm,
    edm_levels,
    flow,
    heun,
    sample,
    vp,
)
from scoremachines.ancestral import euler_maruyama, full, small
from scoremachines.bases import DCT, Pixel
from scoremachines.coordinates import Coordinates, Matrix, Prior, gaussian_law
from scoremachines.data import load
from scoremachines.geometry import gap, information
from scoremachines.likelihood import bits_per_dim, elbo, exact_law, flow_log_density, noised_law
from scoremachines.orders import by_variance
from scoremachines.paths import at_gamma, gamma_of, soft, stairs, walk
from scoremachines.smoothed import KernelDensity
from scoremachines.teleport import gaussian_kl, noisy_law, spherical
from tests.conftest import refused, seeded

EXACT = {"rtol": 0, "atol": 1e-12}
COV = torch.tensor(
    [[1.0, 0.6, -0.3, 0.1], [0.6, 1.0, 0.2, 0.4], [-0.3, 0.2, 1.0, 0.3], [0.1, 0.4, 0.3, 1.0]], dtype=torch.float64
)
MEAN = torch.tensor([0.5, -1.0, 0.2, 2.0], dtype=torch.float64)
ZERO = torch.zeros(4, dtype=torch.float64)
LABELS = torch.arange(4, dtype=torch.float64)
CLEAN = Noise(1.0, 1e-9)  # a Gaussian refuses its density without noise


def row(*values):
    return torch.tensor([values], dtype=torch.float64)


def eye(D=4):
    return torch.eye(D, dtype=torch.float64)


def mixed():
    """Two components whose common mean is 0, so that little signal is left at the start of a sampler."""
    return Mixture(
        torch.tensor([0.3, 0.7], dtype=torch.float64),
        (gaussian_law(0.7 * MEAN, COV, (4,)), gaussian_law(-0.3 * MEAN, 0.5 * COV.flip(0, 1), (4,))),
    )


@pytest.fixture
def gaussian():
    return gaussian_law(MEAN, COV, (4,))


@pytest.fixture
def white():
    """Zero mean and unit variances, as in whitened coordinates."""
    return gaussian_law(ZERO, COV, (4,))


# Laws ----------------------------------------------------------------------------------------------------------------


def dense(mean, cov, noise):
    alpha, sigma = (part.flatten().expand(len(mean)) for part in (noise.alpha, noise.sigma))
    return alpha * mean, alpha[:, None] * cov * alpha + torch.diag(sigma**2)


@pytest.mark.parametrize(
    "noise",
    [
        Noise(row(0.2, 0.9, 0.0, 1.0), row(0.9, 0.1, 1.0, 0.0)),
        Noise(row(0.6), row(0.8)),
        Noise(row(0.5), row(1.0, 2.0, 3.0, 4.0)),
    ],
)
def test_noised_law_is_that_of_noisy_data(gaussian, noise):
    law = noised_law(gaussian, noise)
    mean, cov = dense(MEAN, COV, noise)
    assert_close(law.mean, mean, **EXACT)
    assert_close(law.cov, cov, **EXACT)


@pytest.mark.parametrize("noise", [edm(3.0), Noise(0.6, 0.8), Noise(0.0, 1.0), Noise(row(0.6), 0.8)])
def test_noised_law_at_one_level(gaussian, noise):
    law, same = noised_law(gaussian, noise), noisy_law(gaussian, Noise(float(noise.alpha), float(noise.sigma)))
    assert_close(law.mean, same.mean, **EXACT)
    assert_close(law.cov, same.cov, **EXACT)


def test_laws_of_images_have_their_shape(cloud):
    machine, level = Gaussian.fit(cloud.reshape(40, 1, 2, 3)), at_gamma(LABELS.repeat(2)[:6].reshape(1, 1, 2, 3))
    flat = noised_law(Gaussian.fit(cloud), at_gamma(LABELS.repeat(2)[:6][None]))
    law = noised_law(machine, level)
    assert law.shape == (1, 2, 3)
    assert_close(law.cov, flat.cov, **EXACT)


def by_hand(cov, path, stochastic):
    """The covariance of the output of ddim or ddpm, with explicit matrices: V <- F V F^T + Q."""
    V = eye(len(cov))
    for now, nxt in pairwise(path):
        (a, s), (a_next, s_next) = ((p.flatten() for p in (level.alpha, level.sigma)) for level in (now, nxt))
        D = cov * a @ torch.linalg.inv(a[:, None] * cov * a + torch.diag(s**2))
        eps = (eye(len(cov)) - a[:, None] * D) / s[:, None]
        rho = a * s_next / (a_next * s) if stochastic else torch.ones_like(a)
        F = a_next[:, None] * D + (s_next * rho)[:, None] * eps
        V = F @ V @ F.T + torch.diag(s_next**2 * (1 - rho**2))
    return V


@pytest.mark.parametrize("a", [0.0, 1.0, 3.0])
def test_exact_law_is_the_recursion_of_the_covariance(white, a):
    path = walk(soft(LABELS, a, -6, 4), 12)
    assert_close(exact_law(white, path, ddim).cov, by_hand(COV, path, False), **EXACT)
    assert_close(exact_law(white, path, ddpm).cov, by_hand(COV, path, True), **EXACT)
    assert_close(exact_law(white, path).cov, exact_law(white, path, ddim).cov, **EXACT)
    assert_close(exact_law(white, path, small).cov, exact_law(white, path, ddpm).cov, **EXACT)
    assert_close(exact_law(white, path, ddim).mean, ZERO, **EXACT)


@pytest.mark.parametrize("step", [ddim, heun, ddpm, dpmpp_2m, full, euler_maruyama])
def test_exact_law_is_that_of_the_samples(gaussian, rng, step):
    """Within five standard errors of mean and covariance, from a start that is not white."""
    n, path = 20000, walk(vp if step is dpmpp_2m else soft(LABELS, 1.0, -5, 4), [1.0, 0.7, 0.45, 0.2, 0.1])
    start = gaussian_law(0.3 * MEAN, 0.8 * eye() + 0.2, (4,))
    x = start.mean + torch.randn(n, 4, generator=rng, dtype=torch.float64) @ torch.linalg.cholesky(start.cov).T
    drawn, law = sample(gaussian, x, path, step, rng), exact_law(gaussian, path, step, start)
    var, found = law.cov.diagonal(), Moments.of(drawn)
    assert (((found.mean - law.mean) * (n / var).sqrt()).abs() < 5).all()
    error = ((var[:, None] * var + law.cov**2) / n).sqrt()
    assert (((found.cov - law.cov) / error).abs() < 5).all()


@pytest.mark.parametrize("step", [ddim, heun, dpmpp_2m])
def test_fine_deterministic_steps_reach_the_noised_law(gaussian, step):
    path = edm_levels(200, 0.05, 20.0)[:-1]
    law, target = exact_law(gaussian, path, step, noised_law(gaussian, path[0])), noised_law(gaussian, path[-1])
    assert_close(law.cov, target.cov, rtol=0, atol=0.05 if step is ddim else 1e-3)
    assert_close(law.mean, target.mean, rtol=0, atol=0.02 if step is ddim else 1e-3)


def test_the_law_is_in_float64(gaussian):
    path = walk(soft(LABELS, 1.0), 8)
    for step in (ddim, ddpm, full):
        law = exact_law(gaussian.to(torch.float32), path, step)
        assert law.cov.dtype == torch.float64
        assert_close(law.cov, exact_law(gaussian, path, step).cov, rtol=0, atol=1e-5)


def test_other_machines_may_be_affine(white):
    """A mixture of one, and the density around a single sample."""
    path, one = walk(soft(LABELS, 1.0, -5, 4), 6), Mixture(torch.ones(1, dtype=torch.float64), (white,))
    for step in (ddim, ddpm, full):
        assert_close(exact_law(one, path, step).cov, exact_law(white, path, step).cov, **EXACT)
    single = KernelDensity.fit(MEAN[None], 0.3), gaussian_law(MEAN, 0.09 * eye(), (4,))
    for step in (ddim, ddpm, full):
        laws = [exact_law(machine, path, step) for machine in single]
        assert_close(laws[0].cov, laws[1].cov, **EXACT)
        assert_close(laws[0].mean, laws[1].mean, **EXACT)


def test_a_law_that_is_not_gaussian_is_refused(cloud):
    """An odd denoiser too, which doubles and negates as an affine one does not: two equal, opposite Gaussians."""
    path, mean = walk(soft(LABELS, 1.0), 5), torch.full((1,), 2.0, dtype=torch.float64)
    half, wide = torch.tensor([0.5, 0.5], dtype=torch.float64), [gaussian_law(m, eye(1), (1,)) for m in (mean, -mean)]
    for step in (ddim, ddpm, full):
        refused("misses an affine map by", exact_law, mixed(), path, step)
        refused("misses an affine map by", exact_law, Mixture(half, tuple(wide)), walk(vp, 5)[:-1], step)
        refused("misses an affine map by", exact_law, KernelDensity.fit(cloud[:5, :4], 0.3), path, step)
    refused("misses an affine map by", exact_law, Ideal.fit(cloud[:5, :4]), path, ddim, gaussian_law(ZERO, eye(), (4,)))


def test_bad_laws_get_one_sentence(gaussian, cloud):
    path = walk(soft(LABELS, 1.0), 5)
    refused("fitted on samples of shape", exact_law, gaussian, path, ddim, Gaussian.fit(cloud))
    for step in (ddim, ddpm, small):
        refused("levels is empty or", exact_law, gaussian, [], step)
        refused("sigma = 0 before its end", exact_law, gaussian, [Noise(1.0, 0.0), Noise(1.0, 0.0)], step)
    refused("expected a number or", noised_law, gaussian, at_gamma(row(1.0, 2.0, 3.0)))


def test_bad_start_variances_get_one_sentence(gaussian, randn):
    x, path = randn(4, 4), walk(soft(LABELS, 1.0), 3)
    for bad, match in ((0.0, "positive"), (-1.0, "positive"), (torch.ones(4).double(), "expected a number or 2 axes")):
        refused(match, elbo, gaussian, x, path, seeded(), bad)
        refused(match, flow_log_density, gaussian, x, path, bad)
    refused("levels is empty", elbo, gaussian, x, [], seeded())
    refused("levels is empty", flow_log_density, gaussian, x, [])


# The digits ----------------------------------------------------------------------------------------------------------


def haar(n):
    """The orthonormal Haar matrix; its Kronecker square is the tensor-product basis, which is not `Wavelet`'s."""
    if n == 1:
        return np.ones((1, 1))
    return np.vstack([np.kron(haar(n // 2), [1, 1]), np.kron(np.eye(n // 2), [1, -1])]) / 2**0.5


@pytest.fixture(scope="module")
def digits():
    """The variances of the coefficients, and the law of whitened and of plain ones, in four bases."""
    moments = Moments.of(load("digits", "all").x0.double())
    shape, zero = moments.shape, torch.zeros(moments.shape, dtype=torch.float64)
    law = gaussian_law(zero.flatten(), moments.cov + 1e-3 * eye(64), shape)
    H = torch.tensor(haar(8))
    bases = {
        "pixel": Pixel(),
        "PCA": Matrix(law.U.T.contiguous(), shape),
        "DCT": DCT(),
        "Haar": Matrix(torch.kron(H, H), shape),
    }
    found = {}
    for name, basis in bases.items():
        plain = Coordinates(basis, zero, Prior.isotropic(shape)).law(law)
        variance = plain.cov.diagonal().reshape(shape)
        found[name] = variance, Coordinates(basis, zero, Prior.matched(variance)).law(law), plain
    return found


def unit(shape):
    """Mean, covariance and shape of N(0, I)."""
    D = math.prod(shape)
    return torch.zeros(D, dtype=torch.float64), eye(D), shape


def divergences(law, schedule, n, *steps):
    """KL from the noisy data at the end of the path, of the output of each step."""
    path = walk(schedule, n)
    target = noised_law(law, path[-1])
    return [gaussian_kl(target, exact_law(law, path, step)) for step in steps]


def printed(found, expected):
    """The numbers agree to the digits that are written, such as ".119 / 12.1"."""
    for value, text in zip(found, expected.split(" / "), strict=True):
        last = 10.0 ** -len(text.split(".")[1])
        assert abs(value - float(text)) <= 0.5001 * last, (value, text)


TABLE = {
    "pixel": (".119 / .299 / 1.32 / 12.1", ".0371 / .0807 / .341 / 3.62"),
    "PCA": (".118 / .349 / 1.77 / 17.4", ".0288 / .0862 / .452 / 5.29"),
    "DCT": (".112 / .193 / .580 / 4.13", ".0365 / .0560 / .151 / 1.15"),
    "Haar": (".114 / .227 / .805 / 6.38", ".0401 / .0668 / .212 / 1.85"),
}


@pytest.mark.parametrize("basis", TABLE)
def test_softness_and_basis_of_the_digits(digits, basis):
    """KL of ddpm and of ddim in 64 steps, a = 0, 1, 4 and 16, gamma between -7 and 4, whitened coefficients."""
    variance, law, _ = digits[basis]
    rows = [divergences(law, soft(by_variance(variance), a, -7, 4, capped=True), 64, ddpm, ddim) for a in (0, 1, 4, 16)]
    for values, expected in zip(zip(*rows, strict=True), TABLE[basis], strict=True):
        printed(values, expected)


@pytest.mark.parametrize(
    ("basis", "a", "expected"),
    [
        ("DCT", (0, 0.5, 1, 1.5, 4), ".0111 / .0053 / .0044 / .0046 / .0097"),
        ("Haar", (0, 1, 4), ".0148 / .0049 / .0131"),
        ("pixel", (0.5, 1), ".0077 / .0077"),
        ("PCA", (0, 4), ".0018 / .0282"),
    ],
)
def test_the_start_makes_an_interior_softness_the_best(digits, basis, a, expected):
    """Without caps: ddim in 256 steps from N(0, I), although some signal is left at t = 1; in PCA none is."""
    variance, law, _ = digits[basis]
    printed([divergences(law, soft(by_variance(variance), one, -7, 4), 256, ddim)[0] for one in a], expected)


@pytest.mark.parametrize(("basis", "expected"), [("PCA", ".0071 / .022 / .119"), ("DCT", ".0055 / .0078 / .032")])
def test_euler_maruyama_on_the_digits(digits, basis, expected):
    variance, law, _ = digits[basis]
    labels = by_variance(variance)
    printed([divergences(law, soft(labels, a, -7, 4), 64, euler_maruyama)[0] for a in (0, 1, 4)], expected)


def test_the_error_of_the_steps_falls_as_one_over_n_squared(digits):
    """Apart from that of the start, which ddpm forgets and ddim, nearly a bijection, carries to the end."""
    variance, law, _ = digits["DCT"]
    schedule, white = soft(by_variance(variance), 1, -7, 4, capped=True), gaussian_law(*unit(law.shape))
    paths = [walk(schedule, n) for n in (64, 128)]
    first, last = (noised_law(law, paths[0][k]) for k in (0, -1))
    found = torch.tensor(
        [[gaussian_kl(last, exact_law(law, path, step, first)) for step in (ddpm, ddim)] for path in paths]
    )
    assert_close((found[0] / found[1]).log2(), torch.full((2,), 2.0), rtol=0, atol=0.03)
    whole = torch.tensor(divergences(law, schedule, 128, ddpm, ddim))
    missing = gaussian_kl(first, white)
    assert whole[1].item() == pytest.approx(found[1, 1].item() + missing, rel=0.02)
    assert whole[0].item() < found[1, 0].item() + 0.2 * missing


# The prior -----------------------------------------------------------------------------------------------------------


def test_the_prior_is_a_choice_of_start_and_solver(digits):
    """The DCT of digits at a = 0 in 128 steps: (S, gamma) and (1, gamma + log S^2) are one process, rescaled.

    ddim does not notice; Euler-Maruyama, and a start from N(0, I) without whitening, do.
    """
    variance, whitened, plain = digits["DCT"]
    labels = by_variance(variance)
    paths = [walk(soft(labels, 0, -7, 4, log_variance=shift), 128) for shift in (0 * labels, variance.log())]
    alpha, sigma = paths[1][0].on(variance[None])
    starts = (
        gaussian_law(torch.zeros(64), eye(64), labels.shape),
        gaussian_law(torch.zeros(64), (alpha**2 * variance + sigma**2).flatten().diag(), labels.shape),
    )
    targets = [noised_law(law, path[-1]) for law, path in zip((whitened, plain), paths, strict=True)]
    found = [
        [gaussian_kl(target, exact_law(law, path, step, start)) for step in (ddim, euler_maruyama)]
        for law, path, start, target in zip((whitened, plain), paths, starts, targets, strict=True)
    ]
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-10)
    printed([found[0][0], gaussian_kl(targets[1], exact_law(plain, paths[1]))], ".0161598 / .277")
    printed([found[0][1], found[1][1]], ".00132 / .00080")


@pytest.mark.parametrize("step", [ddim, ddpm, full])
@pytest.mark.parametrize("a", [0.0, 1.3])
def test_rescaled_coordinates_give_rescaled_samples(gaussian, randn, step, a):
    """With chi' / alpha' = S chi / alpha at the start, it is so at the end, draw for draw."""
    S, x = row(0.3, 1.0, 2.0, 5.0), randn(3, 4)
    other = gaussian_law(S[0] * MEAN, S.T * COV * S, (4,))
    path, moved = (walk(soft(LABELS, a, -6, 3, log_variance=shift[0]), 16) for shift in (0 * S, 2 * S.log()))
    scales = [S * two.alpha / one.alpha for one, two in zip(path, moved, strict=True)]
    one, two = sample(gaussian, x, path, step, seeded()), sample(other, x * scales[0], moved, step, seeded())
    assert_close(two / scales[-1], one, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("step", [heun, euler_maruyama])
def test_steps_that_average_over_levels_notice_the_prior(gaussian, randn, step):
    """The average of heun is over alpha and sigma, and the step of Euler-Maruyama goes by sigma^2."""
    S, x = row(0.3, 1.0, 2.0, 5.0), randn(3, 4)
    other = gaussian_law(S[0] * MEAN, S.T * COV * S, (4,))
    path, moved = (walk(soft(LABELS, 1.0, -6, 3, log_variance=shift[0]), 16) for shift in (0 * S, 2 * S.log()))
    scales = [S * two.alpha / one.alpha for one, two in zip(path, moved, strict=True)]
    one, two = (
        sample(machine, start, levels, step, seeded())
        for machine, start, levels in ((gaussian, x, path), (other, x * scales[0], moved))
    )
    assert (two / scales[-1] - one).abs().max() > 0.005


# Transport -----------------------------------------------------------------------------------------------------------


def flow_matrix(machine, schedule, n):
    """The matrix of the flow from t = 1 to t = 0, by n steps of heun."""
    D = len(machine.mean)
    return sample(machine, eye(D), walk(schedule, n), heun).T


SPECTRUM = torch.tensor([3.0, 1.0, 0.5, 0.1], dtype=torch.float64)


@pytest.fixture
def rotated(randn):
    """A random rotation of four variances, its symmetric root, and its Cholesky factor."""
    Q = torch.linalg.qr(randn(4, 4)).Q
    cov = (Q * SPECTRUM) @ Q.T
    return gaussian_law(ZERO, cov, (4,)), (Q * SPECTRUM.sqrt()) @ Q.T, torch.linalg.cholesky(cov)


def test_softness_leads_from_one_transport_map_to_the_other(rotated):
    """From the symmetric root, the map of least cost, to the triangular one; all of them carry N(0, I) to N(0, C)."""
    law, root, L = rotated
    maps = [flow_matrix(law, soft(LABELS, a, -13, 13, capped=True), 200) for a in (0, 0.5, 1, 2, 5, 10)]
    for F in maps:
        assert_close(F @ F.T, law.cov, rtol=0, atol=6e-3)
    to_root, to_L, cost = (
        torch.stack([(F - M).square().sum() for F in maps]) for M in (root, L, eye())
    )  # fmt: skip
    assert (to_root.diff() > 0).all()
    assert (to_L.diff() < 0).all()
    assert (cost.diff() > 0).all()
    assert cost[0].item() == pytest.approx((SPECTRUM.sqrt() - 1).square().sum().item(), abs=1e-3)  # 1.089
    assert to_root[0] < 1e-6
    assert to_L[-1] < 1e-3 < to_L[0]


def test_without_order_the_flow_is_the_symmetric_root(rotated):
    """In the limit of small steps and wide ends: the errors fall with the square of the step."""
    law, root, _ = rotated
    errors = [(flow_matrix(law, soft(LABELS, 0, -30, 30), n) - root).abs().max() for n in (125, 250, 500)]
    assert errors[-1] < 1e-3
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1)])
def test_in_strict_order_the_flow_is_the_cholesky_factor(rotated, order):
    """In the order of generation, whatever the variances."""
    law, _, _ = rotated
    order = torch.tensor(order)
    labels = torch.empty(4, dtype=torch.float64).index_copy(0, order, LABELS)
    F = flow_matrix(law, stairs(labels, -20, 20), 600)[order][:, order]
    L = torch.linalg.cholesky(law.cov[order][:, order])
    assert_close(F, L, rtol=0, atol=2e-3)
    assert F.triu(1).abs().max() < 1e-4


# Scores --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gaussian", "mixture", "ideal", "kernel density"])
def test_score_is_the_gradient_of_the_log_density(kind, gaussian, cloud, randn, rand):
    """Under noise that differs between components, and between images."""
    machine = {
        "gaussian": gaussian,
        "mixture": mixed(),
        "ideal": Ideal.fit(cloud[:, :4]),
        "kernel density": KernelDensity.fit(cloud[:, :4], rand(4) + 0.1),
    }[kind]
    for noise in (at_gamma(4 * rand(1, 4) - 2), at_gamma(4 * rand(3, 4) - 2), Noise(rand(1, 4), 0.3 + rand(1, 4))):
        x = randn(3, 4).requires_grad_()
        (gradient,) = torch.autograd.grad(machine.log_density(x, noise).sum(), x)
        assert_close(machine.score(x.detach(), noise), gradient, rtol=1e-8, atol=1e-8)


# Densities by the flow -----------------------------------------------------------------------------------------------


def bent(t):
    """A curve on which the components run ahead of one another in turn."""
    return at_gamma(-5 + 21 * t + 4 * math.sin(math.pi * t) * torch.cos(3 * t + LABELS)[None])


PATHS = {
    "line": (soft(torch.zeros(4), 0, -5, 16), 150),
    "bent": (bent, 150),
    "strict order": (stairs(LABELS, -5, 16), 280),
    "strict order, reversed": (stairs(-LABELS, -5, 16), 280),
}


@pytest.mark.parametrize("name", PATHS)
def test_the_likelihood_of_a_gaussian_is_that_of_every_path(white, randn, name):
    schedule, n = PATHS[name]
    path, x = walk(schedule, n), randn(2, 4)
    assert_close(gamma_of(path[-1]), torch.full((1, 4), -5.0, dtype=torch.float64), **EXACT)
    assert_close(flow_log_density(white, x, path), noised_law(white, path[-1]).log_density(x, CLEAN), rtol=0, atol=1e-6)


@pytest.fixture
def two():
    """A mixture in the plane, whose mean is 0, so that little is left of it at the start of a sampler."""
    return Mixture(
        torch.tensor([0.3, 0.7], dtype=torch.float64),
        (
            gaussian_law(row(0.7, -1.4)[0], 0.4 * eye(2) + 0.6, (2,)),
            gaussian_law(row(-0.3, 0.6)[0], 0.8 * eye(2) - 0.3, (2,)),
        ),
    )


@pytest.mark.parametrize(
    ("schedule", "n"),
    [
        (soft(LABELS[:2], 0, -5, 16), 40),
        (lambda t: at_gamma(-5 + 21 * t + 4 * math.sin(math.pi * t) * row(1.0, -1.0)), 40),
        (stairs(LABELS[:2], -5, 16), 60),
    ],
    ids=["line", "bent", "strict order"],
)
def test_the_likelihood_of_a_mixture_is_that_of_every_path(two, randn, schedule, n):
    path, x = walk(schedule, n), randn(2, 2)
    assert_close(gamma_of(path[-1]), torch.full((1, 2), -5.0, dtype=torch.float64), **EXACT)
    assert_close(flow_log_density(two, x, path), two.log_density(x, path[-1]), rtol=0, atol=1e-5)


def test_the_flow_is_of_fourth_order(white, randn):
    x = randn(30, 4)
    target = white.log_density(x, at_gamma(-3 + LABELS[None] / 2))
    paths = [walk(lambda t: at_gamma(-3 + 33 * t + LABELS[None] / 2), n) for n in (80, 160)]
    coarse, fine = ((flow_log_density(white, x, path) - target).abs().max() for path in paths)
    assert 9 < coarse / fine < 22
    assert fine < 1e-5


def test_start_variance_of_the_flow(randn):
    """Independent components at a low gamma: with the variance of the noisy data at t = 1 nothing is missing."""
    variance = row(3.0, 1.0, 0.5, 0.1)
    machine, path, x = gaussian_law(ZERO, variance[0].diag(), (4,)), walk(soft(LABELS, 0.5, -4, 0), 80), randn(3, 4)
    alpha, sigma = path[0].on(x)
    expected = machine.log_density(x, path[-1])
    found = flow_log_density(machine, x, path, alpha**2 * variance + sigma**2)
    assert_close(found, expected, rtol=0, atol=1e-6)
    assert (flow_log_density(machine, x, path) - expected).abs().min() > 1e-3


def test_the_flow_keeps_its_digits_at_little_noise(white, two):
    """Down to gamma = -60, where the density is that of the data without noise."""
    for machine, n in ((white, 160), (two, 40)):
        path, x = walk(soft(torch.zeros(machine.shape), 0, -60, 16), n), row(0.3, -1.0, 0.5, 2.0)[:, : machine.shape[0]]
        assert_close(flow_log_density(machine, x, path), machine.log_density(x, CLEAN), rtol=0, atol=1e-3)


# Bounds --------------------------------------------------------------------------------------------------------------


def test_the_parts_of_the_bound(gaussian, randn):
    """By hand, from the same noise; one component rests for a while, and the steps differ."""
    gamma = torch.tensor([[4.0, 3, 2, 5], [1, 3, 1.5, 0], [-2, -1, 1, -3], [-6, -5, -4, -7]], dtype=torch.float64)
    path, x0 = [at_gamma(one[None]) for one in gamma], randn(5, 4)
    bound, rng, diffusion = elbo(gaussian, x0, path, seeded(3)), seeded(3), 0
    for now, rise in zip(path, (-gamma).exp().diff(dim=0), strict=False):
        x = now.add(x0, torch.randn(5, 4, generator=rng, dtype=torch.float64))
        diffusion = diffusion + (rise * (x0 - gaussian.denoise(x, now)) ** 2).sum(1) / 2
    assert_close(bound.diffusion, diffusion, rtol=1e-10, atol=0)
    assert_close(bound.prior, start_divergence(path[0], x0, torch.ones(1, 4)), **EXACT)
    decoder = torch.distributions.Normal(0.0, path[-1].sigma / path[-1].alpha)
    assert_close(bound.reconstruction, decoder.entropy().sum(1).expand(5), **EXACT)
    assert_close(bound.nats, bound.prior + bound.diffusion + bound.reconstruction, **EXACT)


def start_divergence(noise, x0, variance):
    """KL of x at this level, given x0, from N(0, variance)."""
    pair = (torch.distributions.Normal(noise.alpha * x0, noise.sigma), torch.distributions.Normal(0.0, variance.sqrt()))
    return torch.distributions.kl_divergence(*pair).sum(1)


@pytest.mark.parametrize("variance", [0.5, row(0.5, 1.0, 2.0, 4.0)])
def test_start_variance_of_the_bound(gaussian, randn, variance):
    path, x0 = walk(soft(LABELS, 1.0, -5, 0), 3), randn(5, 4)
    bound, plain = (elbo(gaussian, x0, path, seeded(), **options) for options in ({"start_variance": variance}, {}))
    full = torch.as_tensor(variance, dtype=torch.float64).expand(1, 4)
    assert_close(bound.prior, start_divergence(path[0], x0, full), **EXACT)
    assert torch.equal(bound.diffusion, plain.diffusion)
    assert torch.equal(bound.reconstruction, plain.reconstruction)


def excess(law, path, n=3000):
    """Mean and standard error of the bound minus -log p(x0), in nats."""
    rng = seeded(11)
    x0 = law.mean + torch.randn(n, 4, generator=rng, dtype=torch.float64) @ torch.linalg.cholesky(law.cov).T
    found = elbo(law, x0, path, rng).nats + law.log_density(x0, CLEAN)
    return found.mean().item(), found.std().item() / n**0.5


BOUNDS = {
    "line": soft(torch.zeros(4), 0, -6, 4),
    "soft": soft(LABELS, 1.0, -6, 4),
    "capped": soft(LABELS, 3.0, -6, 4, capped=True),
    "bent": bent,
    "strict order": stairs(LABELS, -6, 4),
    "at rest": lambda t: at_gamma(row(1.0, 6 * t - 3, -4.0, 8 * t - 4)),
}


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("n", [4, 40])
def test_the_bound_misses_by_the_gap_of_ddpm(gaussian, name, n):
    """The start, the steps, and the decoder, which is wide where the last level is noisy; within five errors."""
    path = walk(BOUNDS[name], n)
    start = gaussian_kl(noised_law(gaussian, path[0]), spherical(ZERO, 1.0, torch.Size([4])))
    entropy = (4 * math.log(2 * math.pi * math.e) + torch.linalg.slogdet(COV)[1].item()) / 2
    decoder = (4 * math.log(2 * math.pi * math.e) + gamma_of(path[-1]).sum().item()) / 2
    expected = start + gap(gaussian, path) + information(gaussian, path[-1]) + decoder - entropy
    found, error = excess(gaussian, path)
    assert 0 < expected
    assert abs(found - expected) < 5 * error


def test_the_bound_is_tight_in_the_limit(white):
    """More steps between wider ends: what remains falls as one over n, and to nothing."""
    (coarse, error), (fine, also) = (excess(white, walk(soft(LABELS, 1.0, -9, 9), n), 600) for n in (80, 160))
    assert 10 * error < coarse
    assert coarse == pytest.approx(2 * fine, abs=4 * (error + 2 * also) + 0.05 * coarse)


def test_the_bound_of_a_wrong_machine_is_larger(white, gaussian):
    """The excess grows by the machine's extra error, since the weights are those of the likelihood."""
    path, x0 = walk(soft(LABELS, 1.0, -6, 4), 20), torch.randn(2000, 4, generator=seeded(), dtype=torch.float64)
    x0 = x0 @ torch.linalg.cholesky(COV).T
    wrong = gaussian_law(ZERO, eye(), (4,))
    gain = elbo(wrong, x0, path, seeded(1)).nats - elbo(white, x0, path, seeded(1)).nats
    assert gain.mean() > 5 * gain.std() / 2000**0.5


def test_the_bound_of_images_and_types(cloud):
    machine, x0 = Gaussian.fit(cloud.reshape(40, 1, 2, 3)), cloud[:6].reshape(6, 1, 2, 3)
    labels = torch.arange(6.0)
    found = elbo(machine, x0, walk(soft(labels.reshape(1, 2, 3), 1.0), 9), seeded())
    flat = elbo(Gaussian.fit(cloud), cloud[:6], walk(soft(labels, 1.0), 9), seeded())
    assert_close(found.nats, flat.nats, rtol=1e-10, atol=0)
    single = elbo(machine, x0.float(), walk(soft(labels.reshape(1, 2, 3), 1.0), 9), seeded())
    assert single.nats.dtype == torch.float32
    assert single.nats.shape == (6,)
    assert elbo(machine, x0, walk(vp, 9)[:-1], seeded()).nats.shape == (6,)  # one level for all components


def test_the_flow_of_images_and_types(cloud):
    machine, x = Gaussian.fit(cloud.reshape(40, 1, 2, 3)), cloud[:6].reshape(6, 1, 2, 3)
    labels = torch.arange(6.0)
    path = walk(soft(labels.reshape(1, 2, 3), 1.0), 9)
    flat = flow_log_density(Gaussian.fit(cloud), cloud[:6], walk(soft(labels, 1.0), 9))
    assert_close(flow_log_density(machine, x, path), flat, rtol=1e-10, atol=0)
    assert_close(flow_log_density(machine, x[:1], path), flat[:1], rtol=1e-10, atol=0)
    single = flow_log_density(machine, x.float(), path)
    assert single.dtype == torch.float32
    assert_close(single.double(), flat, rtol=1e-3, atol=1e-2)


def test_the_flow_with_one_level_for_all_components(cloud):
    machine, path = Gaussian.fit(cloud), walk(soft(torch.zeros(1), 0), 9)
    plain = [Noise(level.alpha.item(), level.sigma.item()) for level in path]
    assert_close(flow_log_density(machine, cloud[:3], plain), flow_log_density(machine, cloud[:3], path))


def test_the_bound_is_finite_from_e60_to_e_minus_60(white):
    """At gamma = -60 a clean sample and a noisy one agree to thirteen digits, and the bound still holds to a share."""
    x0 = torch.randn(500, 4, generator=seeded(), dtype=torch.float64) @ torch.linalg.cholesky(COV).T
    found = elbo(white, x0, walk(soft(LABELS / 4, 1.0, -59, 59), 600), seeded(1))
    excess = found.nats + white.log_density(x0, CLEAN)
    assert excess.isfinite().all()
    assert 0 < excess.mean() < 20  # nats, of about 240 on the way down


# Bits ----------------------------------------------------------------------------------------------------------------


def test_bits_per_dimension():
    nats = torch.tensor([0.0, 3 * math.log(2)])
    assert_close(bits_per_dim(nats, 3, 1.0), torch.tensor([0.0, 1.0]))
    assert_close(bits_per_dim(nats, 3, 1 / 128), torch.tensor([7.0, 8.0]))
    assert bits_per_dim(nats, 3, 2 / 255)[0].item() == pytest.approx(6.994, abs=5e-4)


def test_bits_do_not_depend_on_the_scale():
    """Data in units of a bin: the density and the width change together. A uniform density costs log2 of its bins."""
    scale, D, nats = 37.0, 5, torch.tensor([4.0])
    assert_close(bits_per_dim(nats + D * math.log(scale), D, scale / 128), bits_per_dim(nats, D, 1 / 128))
    assert bits_per_dim(torch.tensor([D * math.log(2.0)]), D, 2 / 256).item() == pytest.approx(8, rel=1e-6)


# Errors --------------------------------------------------------------------------------------------------------------


def test_bad_bounds_get_one_sentence(gaussian, randn):
    x0, path = randn(2, 4), walk(soft(LABELS, 1.0), 3)
    refused("sigma is 0 in some component", elbo, gaussian, x0, [*path, Noise(1.0, 0.0)], seeded())
    refused("sigma is 0 in some component", elbo, gaussian, x0, walk(stairs(LABELS), 4), seeded())
    refused("gains noise", elbo, gaussian, x0, path[::-1], seeded())
    refused("rng is a NoneType", elbo, gaussian, x0, path, None)


def test_bad_flows_get_one_sentence(gaussian, randn):
    x, path = randn(2, 4), walk(soft(LABELS, 1.0), 3)
    for levels in ([*path, Noise(1.0, 0.0)], walk(stairs(LABELS), 4), [edm(2.0), edm(1.0)], walk(flow, [0.9, 0.5])):
        refused("variance preserving with finite gamma", flow_log_density, gaussian, x, levels)


def test_bad_widths_get_one_sentence():
    for D, width in ((0, 1.0), (3, 0.0), (3, -1.0), (3, math.inf)):
        refused("at least one value and a positive width", bits_per_dim, torch.zeros(2), D, width)
