"""The ideal machine against brute force."""

import math

import pytest
import torch
from torch.testing import assert_close

from scoremachines import Ideal, Noise

# The ideal machine ----------------------------------------------------------------------------------------------


def brute_force(cloud, x, noise):
    """Weights by the definition, with the full distances in one (B, N, D) tensor."""
    alpha, sigma = (a.expand_as(x)[:, None] for a in noise.on(x))
    logits = -(((x[:, None] - alpha * cloud) / sigma) ** 2).sum(2) / 2
    norm = -(sigma * math.sqrt(2 * math.pi)).log().sum((1, 2)) - math.log(len(cloud))
    return logits.log_softmax(1), logits.logsumexp(1) + norm


@pytest.mark.parametrize("chunk", [1, 7, 40, 1000])
def test_ideal_is_the_softmax_by_brute_force(cloud, x, mixed, chunk):
    machine = Ideal.fit(cloud, chunk=chunk)
    for noise in (mixed, Noise(1.0, 0.3), Noise(0.1, 1.0), Noise(torch.linspace(0.1, 1, 5)[:, None], 0.8)):
        log_weights, log_density = brute_force(cloud, x, noise)
        weights = log_weights.exp()
        mean = weights @ cloud
        cov = torch.einsum("bn,ni,nj->bij", weights, cloud, cloud) - mean[:, :, None] * mean[:, None]
        assert_close(machine.log_weights(x, noise), log_weights)
        assert_close(machine.denoise(x, noise), mean)
        assert_close(machine.log_density(x, noise), log_density)
        assert_close(machine.posterior_cov_product(x, noise, x), torch.einsum("bij,bj->bi", cov, x))


def test_ideal_returns_the_image_itself_when_noise_vanishes(cloud):
    assert_close(Ideal.fit(cloud).denoise(cloud, Noise(1.0, 1e-4)), cloud)


def test_ideal_density_integrates_to_one():
    grid = torch.linspace(-12, 12, 4001, dtype=torch.float64)[:, None]
    machine = Ideal.fit(torch.tensor([[-1.0], [0.2], [0.9]], dtype=torch.float64))
    mass = torch.trapezoid(machine.log_density(grid, Noise(0.7, 0.5)).exp(), grid[:, 0])
    assert_close(mass.item(), 1.0)
