"""The kernel density: a mixture of one Gaussian per sample, and its limits."""

import math
from itertools import product

import pytest
import torch
from torch.testing import assert_close

from scoremachines import Ideal, Machine, Mixture, Noise, ddim, sample
from scoremachines.bases import DCT
from scoremachines.coordinates import Coordinates, Prior, gaussian_law
from scoremachines.metrics import nearest
from scoremachines.orders import by_variance
from scoremachines.paths import at_gamma, soft, stairs, walk
from scoremachines.smoothed import KernelDensity
from tests.conftest import noisy, pictures, refused, seeded

SHAPE = (1, 2, 3)
CLOSE = {"rtol": 1e-10, "atol": 1e-10}
WIDTHS = torch.tensor([0.5, 0.1, 0.3, 0.2, 0.05, 1.0], dtype=torch.float64).reshape(SHAPE)
BANDWIDTHS = [0.3, WIDTHS]


def component_wise(seed=0, low=-6.0, high=4.0):
    gamma = low + (high - low) * torch.rand(1, *SHAPE, generator=seeded(seed), dtype=torch.float64)
    return at_gamma(gamma)


LEVELS = [
    Noise(1.0, 0.4),
    Noise(0.6, 0.8),
    Noise(0.0, 1.0),
    component_wise(),
    component_wise(1),
    Noise(torch.linspace(0.1, 1, 4).reshape(4, 1, 1, 1).double(), 0.3),
    Noise(1.0, torch.cat([component_wise(k).sigma for k in range(4)])),
]


@pytest.fixture
def data():
    return pictures(12, *SHAPE)


@pytest.fixture
def x(data):
    return noisy(data, Noise(0.8, 0.4), 4)


def mixture(data, h):
    """One Gaussian of covariance h^2 around every sample."""
    cov = torch.diag(torch.as_tensor(h, dtype=torch.float64).expand(data.shape[1:]).flatten() ** 2)
    weights = torch.full((len(data),), 1 / len(data), dtype=torch.float64)
    return Mixture(weights, tuple(gaussian_law(y.flatten(), cov, data.shape[1:]) for y in data))


def some_without(*indices, sigma=0.7):
    """A level without noise in some components."""
    level = torch.full((6,), sigma, dtype=torch.float64)
    level[list(indices)] = 0
    return Noise(1.0, level.reshape(1, *SHAPE))


# Against the mixture -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("h", BANDWIDTHS, ids=["one", "each"])
@pytest.mark.parametrize("k", range(len(LEVELS)))
def test_it_is_a_mixture_of_one_gaussian_per_sample(data, x, h, k):
    machine, dense, noise = KernelDensity.fit(data, h), mixture(data, h), LEVELS[k]
    for quantity in ("denoise", "score", "eps", "log_density"):
        assert_close(getattr(machine, quantity)(x, noise), getattr(dense, quantity)(x, noise), **CLOSE)
    v = pictures(4, *SHAPE, seed=9)
    assert_close(machine.posterior_cov_product(x, noise, v), dense.posterior_cov_product(x, noise, v), **CLOSE)


@pytest.mark.parametrize("h", BANDWIDTHS, ids=["one", "each"])
@pytest.mark.parametrize("indices", [(0,), (1, 4, 5), (0, 1, 2, 3, 5), tuple(range(6))], ids=str)
def test_components_without_noise_are_conditioned_on(data, h, indices):
    """The posterior mean is x there, and the conditional mean of the mixture elsewhere."""
    machine, dense, noise = KernelDensity.fit(data, h), mixture(data, h), some_without(*indices)
    x, v = noisy(data, Noise(1.0, 0.2), 4), pictures(4, *SHAPE, seed=9)
    found = machine.denoise(x, noise)
    assert_close(found, dense.denoise(x, noise), rtol=1e-8, atol=1e-9)
    assert_close(found.flatten(1)[:, indices], x.flatten(1)[:, indices], rtol=1e-13, atol=1e-14)
    product = machine.posterior_cov_product(x, noise, v)
    assert_close(product, dense.posterior_cov_product(x, noise, v), rtol=1e-8, atol=1e-9)
    assert (product.flatten(1)[:, indices] == 0).all()


def test_conditioning_weighs_the_samples_by_the_known_components():
    """Two samples; the known first component tells them apart, and the unknown second one follows it."""
    data = torch.tensor([[-1.0, -0.5], [1.0, 0.75]]).double()
    machine = KernelDensity.fit(data, torch.tensor([0.5, 0.1]))
    x, noise = torch.tensor([[0.25, 0.0]]).double(), Noise(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    share = 1 / (1 + math.exp((-(1.25**2) + 0.75**2) / (2 * 0.25)))
    expected = torch.tensor([[0.25, share * 0.75 - (1 - share) * 0.5]], dtype=torch.float64)
    assert_close(machine.denoise(x, noise), expected, **CLOSE)


def test_little_noise_tends_to_none(data, x):
    machine, exact = KernelDensity.fit(data, WIDTHS), some_without(1, 4)
    nearly = Noise(1.0, exact.sigma.clamp(min=1e-7))
    assert_close(machine.denoise(x, nearly), machine.denoise(x, exact), rtol=1e-9, atol=1e-9)
    v = torch.zeros_like(x)
    v[..., 1] = 1.0  # components 1 and 4
    exact, nearly = (machine.posterior_cov_product(x, level, v) for level in (exact, nearly))
    assert exact.abs().max() == 0
    assert_close(nearly[:, 0, :, 1], torch.full((4, 2), 1e-14, dtype=torch.float64), rtol=1e-6, atol=0)


# Its own derivatives -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("h", BANDWIDTHS, ids=["one", "each"])
@pytest.mark.parametrize("k", range(len(LEVELS)))
def test_the_score_is_the_gradient_of_the_log_density(data, x, h, k):
    machine, point = KernelDensity.fit(data, h), x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(machine.log_density(point, LEVELS[k]).sum(), point)
    assert_close(machine.score(x, LEVELS[k]), gradient, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("k", [0, 1, 3, 4, 5, 6])
def test_the_posterior_covariance_is_the_jacobian_product(data, x, k):
    machine, v = KernelDensity.fit(data, WIDTHS), pictures(4, *SHAPE, seed=9)
    expected = Machine.posterior_cov_product(machine, x, LEVELS[k], v)
    assert_close(machine.posterior_cov_product(x, LEVELS[k], v), expected, rtol=1e-8, atol=1e-10)


def test_the_density_has_mass_one_without_noise():
    """By a sum over a fine grid in two dimensions."""
    machine = KernelDensity.fit(pictures(5, 2), torch.tensor([0.3, 0.15]))
    axis, step = torch.linspace(-3, 3, 301, dtype=torch.float64), 6 / 300
    points = torch.cartesian_prod(axis, axis)
    for noise in (Noise(1.0, 0.0), Noise(1.0, torch.tensor([[0.0, 0.2]])), Noise(0.7, 0.3)):
        mass = machine.log_density(points, noise).exp()
        assert mass.sum().item() * step**2 == pytest.approx(1, abs=1e-9)
        mean = (mass[:, None] * points).sum(0) * step**2
        assert_close(mean, noise.alpha * machine.ideal.data.mean(0), rtol=0, atol=1e-9)


# Limits --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", range(len(LEVELS)))
def test_a_bandwidth_of_zero_is_the_ideal_machine(data, x, k):
    machine, ideal = KernelDensity.fit(data, 1e-9), Ideal.fit(data)
    for quantity in ("denoise", "score", "log_density"):
        found, expected = (getattr(one, quantity)(x, LEVELS[k]) for one in (machine, ideal))
        assert_close(found, expected, rtol=1e-9, atol=1e-9)
    v = pictures(4, *SHAPE, seed=9)
    found, expected = (one.posterior_cov_product(x, LEVELS[k], v) for one in (machine, ideal))
    assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_its_density_is_that_of_the_ideal_machine_at_more_noise(data, x):
    machine, ideal = KernelDensity.fit(data, 0.3), Ideal.fit(data)
    assert_close(machine.log_density(x, Noise(1.0, 0.4)), ideal.log_density(x, Noise(1.0, 0.5)), **CLOSE)
    assert_close(machine.log_density(x, Noise(1.0, 0.0)), ideal.log_density(x, Noise(1.0, 0.3)), **CLOSE)


def test_one_sample_is_one_gaussian(data, x):
    machine, noise = KernelDensity.fit(data[:1], WIDTHS), LEVELS[3]
    v = noise.alpha**2 * WIDTHS**2 + noise.sigma**2
    expected = data[:1] + noise.alpha * WIDTHS**2 / v * (x - noise.alpha * data[:1])
    assert_close(machine.denoise(x, noise), expected, **CLOSE)


def test_neither_chunks_nor_batches_of_the_data_matter(data, x):
    one = KernelDensity.fit(data, WIDTHS)
    for other in (KernelDensity.fit(data, WIDTHS, chunk=5), KernelDensity.fit(data.split(5), WIDTHS)):
        for noise in LEVELS:
            assert_close(other.denoise(x, noise), one.denoise(x, noise), **CLOSE)
    assert one.shape == SHAPE


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_to_moves_samples_and_bandwidth(data, x, dtype):
    moved = KernelDensity.fit(data, WIDTHS).to(dtype)
    assert moved.bandwidth.dtype == moved.ideal.data.dtype == dtype
    assert_close(
        moved.denoise(x, LEVELS[3]), KernelDensity.fit(data, WIDTHS).denoise(x, LEVELS[3]), rtol=1e-5, atol=1e-5
    )


# Samples -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("a", [0.0, 1.0, 4.0])
def test_a_small_bandwidth_memorises_at_every_softness(a):
    """Each sample is a training image up to the bandwidth and the noise of the last level, e^-4.5."""
    data = pictures(20, 1, 4, 4) ** 3
    basis = DCT()
    z = basis.analysis(data - data.mean(0))
    variance = z.var(0, correction=0)
    coordinates = Coordinates(basis, data.mean(0), Prior.matched(variance))
    chi = coordinates.analysis(data)
    levels = walk(soft(by_variance(variance), a, -9.0, 5.0, capped=True), 60)
    start = torch.randn(30, 1, 4, 4, generator=seeded(), dtype=torch.float64)
    for h in (1e-3, 0.01, 0.1):
        drawn = sample(KernelDensity.fit(chi, h), start, levels, ddim)
        apart = nearest(drawn, chi, 1)[0].mean().item() / 4  # a deviation per component
        assert apart == pytest.approx(math.sqrt(h**2 + math.exp(-9)), rel=0.1)


def test_one_component_at_a_time_draws_from_the_kernel_density():
    """Strict order ends at sigma = 0, where each finished component is conditioned on; every sample has its share."""
    data, h = torch.tensor([[-1.0, -1.0], [1.0, 0.5], [0.2, 1.0]]).double(), 0.2
    start = torch.randn(4000, 2, generator=seeded(3), dtype=torch.float64)
    levels = walk(stairs(torch.tensor([0.0, 1.0]).double()), 120)
    drawn = sample(KernelDensity.fit(data, h), start, levels, ddim)
    counts = nearest(drawn, data, 1)[1].flatten().bincount(minlength=3)
    assert_close(counts / 4000, torch.full((3,), 1 / 3), rtol=0, atol=0.03)
    expected = data.T.cov(correction=0) + h**2 * torch.eye(2)
    assert_close(drawn.mean(0), data.mean(0), rtol=0, atol=0.05)
    assert_close(drawn.T.cov(correction=0), expected, rtol=0, atol=0.06)


# Errors --------------------------------------------------------------------------------------------------------------


def test_bad_bandwidths_get_one_sentence(data):
    for bad in (0.0, -0.1, math.nan, math.inf, torch.zeros(SHAPE), WIDTHS * math.nan):
        refused("expected positive numbers", KernelDensity.fit, data, bad)
    for shape in ((6,), (2, 3), (1, 1, 1), (12, 1, 2, 3)):
        refused(r"one for each component \(1, 2, 3\)", KernelDensity.fit, data, torch.ones(shape))


def test_bad_points_and_levels_get_one_sentence(data, x):
    machine = KernelDensity.fit(data, 0.3)
    refused("at least one sample at a time", KernelDensity.fit, data, 0.3, chunk=0)
    for f, level in product((machine.denoise, machine.log_density), (Noise(1.0, 0.5), LEVELS[3])):
        refused("fitted on samples of shape", f, x[..., :2], level)
    refused("expected a Noise", machine.denoise, x, 0.5)
    refused("expected equal shapes", machine.posterior_cov_product, x, Noise(1.0, 0.5), x[..., :2])
    for level in (Noise(1.0, 0.0), some_without(2)):
        refused("sigma is 0 in some component, where the score", machine.score, x, level)
        refused("sigma is 0 in some component, where the predicted noise", machine.eps, x, level)
