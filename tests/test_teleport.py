"""Teleportation: its group laws, the law of its end point against dense formulas, and the simpler starts."""

import math

import pytest
import torch
from torch.testing import assert_close

from scoremachines import Gaussian, Ideal, Moments, Noise, cosine, edm, edm_levels, flow, heun, sample, vp
from scoremachines.bases import PCA, Fourier, Pixel, Wavelet
from scoremachines.mixture import Mixture
from scoremachines.teleport import (
    baselines,
    diagonal,
    draw,
    gaussian_kl,
    gaussian_w2,
    noisy_law,
    spherical,
    teleport,
    teleported_law,
)

LEVELS = [(edm(80.0), edm(5.0)), (cosine(1.0), cosine(0.4)), (vp(0.9), vp(0.3)), (Noise(0.5, 3.0), Noise(0.9, 0.4))]


@pytest.fixture
def gaussian(cloud):
    return Gaussian.fit(cloud)


def root(matrix):
    """The symmetric square root."""
    lam, U = torch.linalg.eigh(matrix)
    return (U * lam.clamp(min=0).sqrt()) @ U.T


def noisy(gaussian, noise):
    return float(noise.alpha) ** 2 * gaussian.cov + float(noise.sigma) ** 2 * torch.eye(6, dtype=torch.float64)


# Teleport -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "end"), LEVELS)
def test_teleport_is_the_dense_affine_map(gaussian, x, start, end):
    matrix = root(noisy(gaussian, end)) @ torch.linalg.inv(root(noisy(gaussian, start)))
    expected = float(end.alpha) * gaussian.mean + (x - float(start.alpha) * gaussian.mean) @ matrix.T
    assert_close(teleport(gaussian, x, start, end), expected)


@pytest.mark.parametrize(("start", "end"), LEVELS)
def test_no_skip_is_the_identity(gaussian, x, start, end):
    assert_close(teleport(gaussian, x, start, start), x)
    assert_close(teleport(Gaussian.fit(x, 2), x, end, end), x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_change_of_scale_is_a_skip(gaussian, x, dtype):
    """Levels of one signal-to-noise ratio, equal up to rounding, in both directions."""
    machine, x = gaussian.to(dtype), x.to(dtype)
    for t in (k / 100 for k in range(1, 100)):
        scaled, plain = flow(t), edm(flow(t).sigma / flow(t).alpha)
        there = teleport(machine, x, scaled, plain)
        assert_close(there, x / scaled.alpha)
        assert_close(teleport(machine, there, plain, scaled), x)


def test_two_skips_are_one(gaussian, x):
    once = teleport(gaussian, x, edm(80.0), edm(3.0))
    assert_close(teleport(gaussian, teleport(gaussian, x, edm(80.0), edm(20.0)), edm(20.0), edm(3.0)), once)


def test_teleport_replaces_the_first_steps_of_a_sampler(gaussian, x):
    path = edm_levels(400)
    x = 80 * x
    skipped = sample(gaussian, teleport(gaussian, x, path[0], path[100]), path[100:], heun)
    assert_close(skipped, sample(gaussian, x, path, heun), atol=1e-5, rtol=1e-4)


def test_one_level_per_image(gaussian, x):
    start, end = torch.linspace(20, 80, 5).double()[:, None], torch.linspace(1, 5, 5).double()[:, None]
    each = [
        teleport(gaussian, x[b : b + 1], edm(start[b].item()), edm(end[b].item())) for b in range(5)
    ]  # fmt: skip
    assert_close(teleport(gaussian, x, edm(start), edm(end)), torch.cat(each))


def test_a_mixture_teleports_each_image_with_its_component(cloud, x):
    two = Mixture(torch.tensor([0.3, 0.7]).double(), (Gaussian.fit(cloud[:20] + 4), Gaussian.fit(cloud[20:] - 4)))
    x, start, end = x + torch.tensor([4.0, -4.0, 4.0, 4.0, -4.0])[:, None], edm(1.0), edm(0.2)
    expected = [teleport(two.components[k], x[b : b + 1], start, end) for b, k in enumerate([0, 1, 0, 0, 1])]
    assert_close(teleport(two, x, start, end), torch.cat(expected))


@pytest.mark.parametrize("n", [5, 18, 40])
def test_skipping_points_is_a_shorter_grid(n):
    grid = edm_levels(n)
    for k in range(n - 1):
        shorter = edm_levels(n - k, sigma_max=grid[k].sigma)
        sigmas = [torch.tensor([level.sigma for level in part], dtype=torch.float64) for part in (grid[k:], shorter)]
        assert_close(sigmas[0], sigmas[1], rtol=1e-12, atol=0)


# The law of the start -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "end"), LEVELS)
@pytest.mark.parametrize("rank", [None, 2])
def test_law_of_a_teleported_start_is_the_affine_image(cloud, start, end, rank):
    gaussian = Gaussian.fit(cloud, rank)
    law = teleported_law(gaussian, start, end)
    matrix = root(noisy(gaussian, end)) @ torch.linalg.inv(root(noisy(gaussian, start)))
    assert_close(law.cov, float(start.sigma) ** 2 * matrix @ matrix.T)
    assert_close(law.mean, teleport(gaussian, torch.zeros(1, 6).double(), start, end)[0])
    assert (law.lam[1:] <= law.lam[:-1]).all()


@pytest.mark.parametrize("noise", [edm(3.0), Noise(0.6, 0.8), cosine(0.5)])
def test_noisy_law_is_that_of_noisy_gaussian_data(gaussian, noise):
    law = noisy_law(gaussian, noise)
    assert_close(law.cov, noisy(gaussian, noise))
    assert_close(law.mean, float(noise.alpha) * gaussian.mean)


def test_draws_follow_the_noisy_law(gaussian, rng):
    noise, n = Noise(0.6, 0.3), 40000
    found, law = Moments.of(draw(gaussian, noise, n, rng)), noisy_law(gaussian, noise)
    white = torch.linalg.inv(root(law.cov))
    assert_close(white @ (found.mean - law.mean), torch.zeros(6).double(), atol=5 / n**0.5, rtol=0)
    assert_close(white @ found.cov @ white, torch.eye(6).double(), atol=8 / n**0.5, rtol=0)


def test_draws_are_images_in_the_machines_dtype(data, rng):
    machine = Gaussian.fit(data).to(torch.float32)
    x = draw(machine, edm(2.0), 3, rng)
    assert x.shape == (3, 1, 2, 3)
    assert x.dtype == torch.float32
    assert draw(machine, edm(2.0), 0, rng).shape == (0, 1, 2, 3)


def test_error_of_the_start_vanishes_as_its_noise_grows(gaussian):
    """The mean is off by a share 1 / sigma_T: W2 falls as 1 / sigma_T and KL as its square."""
    end = edm(5.0)
    target = noisy_law(gaussian, end)
    starts = [teleported_law(gaussian, edm(s), end) for s in (80.0, 800.0, 8000.0)]
    w2, kl = ([f(start, target) for start in starts] for f in (gaussian_w2, gaussian_kl))
    assert w2[0] < 0.1
    assert kl[0] < 1e-3
    for k in range(2):
        assert w2[k] / w2[k + 1] == pytest.approx(10, rel=0.1)
        assert kl[k] / kl[k + 1] == pytest.approx(100, rel=0.2)


# Distances of two laws ----------------------------------------------------------------------------------------------


def laws(cloud, randn):
    a = noisy_law(Gaussian.fit(cloud), edm(0.7))
    return a, [noisy_law(Gaussian.fit(cloud), edm(0.9)), noisy_law(Gaussian.fit(randn(20, 6), 2), edm(0.5))]


def test_kl_is_that_of_multivariate_normals(cloud, randn):
    a, others = laws(cloud, randn)
    for b in others:
        for one, two in ((a, b), (b, a)):
            p, q = (torch.distributions.MultivariateNormal(law.mean, law.cov) for law in (one, two))
            assert_close(gaussian_kl(one, two), torch.distributions.kl_divergence(p, q).item(), rtol=1e-10, atol=0)


def test_w2_is_the_bures_distance(cloud, randn):
    a, others = laws(cloud, randn)
    for b in others:
        half = root(a.cov)
        square = (a.cov + b.cov - 2 * root(half @ b.cov @ half)).trace() + (a.mean - b.mean).square().sum()
        assert_close(gaussian_w2(a, b), square.sqrt().item(), rtol=1e-10, atol=0)
        assert_close(gaussian_w2(b, a), gaussian_w2(a, b), rtol=1e-10, atol=0)


def test_the_common_basis_is_only_a_shortcut(cloud):
    a, b = (noisy_law(Gaussian.fit(cloud), edm(s)) for s in (0.7, 0.7001))
    gaussian = Gaussian.fit(cloud)
    c, d = (noisy_law(gaussian, edm(s)) for s in (0.7, 0.7001))
    assert a.U is not b.U
    assert c.U is d.U
    for distance in (gaussian_kl, gaussian_w2):
        assert_close(distance(a, b), distance(c, d), rtol=1e-6, atol=0)
        assert distance(a, noisy_law(gaussian, edm(0.7))) < 1e-13
        assert distance(c, c) == 0


def test_w2_of_flat_laws(cloud):
    shape = torch.Size([6])
    a, b = spherical(cloud[0], 0.0, shape), spherical(cloud[1], 0.0, shape)
    assert_close(gaussian_w2(a, b), (cloud[0] - cloud[1]).norm().item())
    full = Gaussian.fit(cloud)
    assert_close(gaussian_w2(full, spherical(full.mean, 0.0, shape)), full.cov.trace().sqrt().item())


# Simpler starts -----------------------------------------------------------------------------------------------------


@pytest.fixture
def images(rand):
    """Sixty correlated 1 x 4 x 4 images."""
    return (2 * rand(60, 16) ** 2 - 1).cumsum(1).reshape(60, 1, 4, 4) / 4


@pytest.fixture
def moments(images):
    return Moments.of(images)


BASES = {"pixels": Pixel(), "Fourier": Fourier(), "wavelets": Wavelet("haar", 2)}


def test_the_names_of_the_starts(moments):
    diagonals = [f"diagonal in {name}" for name in BASES]
    found = baselines(moments, BASES, ranks=(3,))
    assert list(found) == ["zero", "mean", "isotropic", *diagonals, "rank 3", "full"]
    assert all(start.shape == (1, 4, 4) for start in found.values())


def test_what_each_start_knows(moments):
    found, cov = baselines(moments, BASES, ranks=(3,)), moments.cov
    assert_close(found["full"].cov, cov)
    assert_close(found["diagonal in pixels"].cov, torch.diag(cov.diagonal()))
    assert_close(found["isotropic"].cov, cov.trace() / 16 * torch.eye(16).double())
    assert_close(found["rank 3"].cov, Gaussian.fit(moments, 3).cov)
    for name, basis in BASES.items():
        start = found[f"diagonal in {name}"]
        W = basis.analysis(torch.eye(16).double().reshape(16, 1, 4, 4)).flatten(1).T
        assert_close(W @ start.cov @ W.T, torch.diag((W @ cov @ W.T).diagonal()))
        assert (start.lam[1:] <= start.lam[:-1]).all()
    for name, start in found.items():
        kept = 0.0 if name in ("zero", "mean") else cov.trace().item()
        assert_close(start.cov.trace().item(), kept)
        assert_close(start.mean, torch.zeros_like(moments.mean) if name == "zero" else moments.mean)


def test_teleport_of_the_simplest_starts(moments, randn):
    found, x = baselines(moments, {}), 80 * randn(2, 1, 4, 4)
    mean = moments.mean.reshape(1, 4, 4)
    assert_close(teleport(found["zero"], x, edm(80.0), edm(5.0)), x / 16)
    assert_close(teleport(found["mean"], x, edm(80.0), edm(5.0)), mean + (x - mean) / 16)
    variance = moments.cov.trace().item() / 16
    scale = math.sqrt((variance + 25) / (variance + 6400))
    assert_close(teleport(found["isotropic"], x, edm(80.0), edm(5.0)), mean + (x - mean) * scale)


def test_diagonal_in_the_principal_components_is_everything(moments):
    assert_close(diagonal(moments, PCA.fit(moments)).cov, moments.cov)


def test_every_start_is_full_for_white_data():
    white = Moments.of(torch.cat([torch.eye(16), -torch.eye(16)]).double().reshape(32, 1, 4, 4))
    for name, start in baselines(white, BASES, ranks=(3,)).items():
        if name not in ("zero", "mean"):
            assert_close(start.cov, white.cov)


def test_knowing_more_brings_the_start_closer(moments):
    """Among Gaussians diagonal in a basis, the variances of the data minimise KL(data || start)."""
    found = {name: noisy_law(start, edm(0.2)) for name, start in baselines(moments, BASES).items()}
    error = {name: gaussian_kl(found["full"], law) for name, law in found.items()}
    for name in BASES:
        assert error["full"] < error[f"diagonal in {name}"] < error["isotropic"] < error["mean"] < error["zero"]


# Errors --------------------------------------------------------------------------------------------------------------


def test_bad_skips_get_one_sentence(gaussian, cloud, x, mixed):
    cases = [
        (edm(5.0), edm(80.0), "is 80 at the end; expected at most 5,"),
        (edm(torch.linspace(1, 5, 5)[:, None]), edm(2.5), "is 2.5 at the end; expected at most 1,"),
        (edm(80.0), edm(0.0), "sigma > 0"),
        (edm(0.0), edm(0.0), "sigma > 0"),
        (edm(80.0), 5.0, "expected a Noise"),
        (edm(80.0), Noise(1.0, mixed.sigma), "differs between components"),
    ]
    for start, end, words in cases:
        with pytest.raises(ValueError, match=words):
            teleport(gaussian, x, start, end)
    with pytest.raises(ValueError, match="no probability flow"):
        teleport(Ideal.fit(cloud), x, edm(80.0), edm(5.0))
    with pytest.raises(ValueError, match="fitted on samples of shape"):
        teleport(gaussian, x[:, :4], edm(80.0), edm(5.0))


def test_bad_laws_get_one_sentence(gaussian, moments, rng):
    with pytest.raises(ValueError, match="n is -1"):
        draw(gaussian, edm(5.0), -1, rng)
    with pytest.raises(ValueError, match="rng is a NoneType"):
        draw(gaussian, edm(5.0), 3, None)
    with pytest.raises(ValueError, match="sigma > 0"):
        draw(gaussian, edm(0.0), 3, rng)
    with pytest.raises(ValueError, match="without variance"):
        gaussian_kl(noisy_law(gaussian, edm(1.0)), Gaussian.fit(torch.ones(3, 6).double()))
    for distance in (gaussian_kl, gaussian_w2):
        with pytest.raises(ValueError, match="expected one shape"):
            distance(gaussian, Gaussian.fit(moments))


def test_bad_starts_get_one_sentence(moments):
    with pytest.raises(ValueError, match="expected Moments"):
        baselines(torch.ones(3, 6), {})
    with pytest.raises(ValueError, match="synthesis"):
        diagonal(moments, "haar")
    with pytest.raises(ValueError, match="rank is 17"):
        baselines(moments, {}, ranks=(17,))
