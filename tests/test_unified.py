"""Statements about component-wise noise that belong to no single module."""

import math
from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from scoremachines import Gaussian, Mixture, ddpm
from scoremachines.coordinates import gaussian_law
from scoremachines.geometry import gap
from scoremachines.likelihood import exact_law, noised_law
from scoremachines.paths import at_gamma, soft, walk
from scoremachines.teleport import gaussian_kl


def spread(randn, D=4):
    """A covariance with correlations of order one."""
    root = randn(D, D)
    return root @ root.T / D + 0.2 * torch.eye(D).double()


def test_few_kept_directions_are_woodburys_formula(randn):
    """C = W W^T + rest I: the D x D system becomes an r x r one with the diagonal matrix alpha^2 rest + sigma^2."""
    U, lam, rest = torch.linalg.qr(randn(7, 2)).Q, torch.tensor([3.0, 1.0]).double(), torch.tensor(0.2).double()
    machine = Gaussian(randn(7), lam, U, rest, torch.Size([7]))
    level, x = at_gamma(2 * randn(1, 7)), randn(5, 7)
    alpha, sigma = level.alpha[0], level.sigma[0]
    thin, bulk = alpha[:, None] * U * (lam - rest).sqrt(), alpha**2 * rest + sigma**2
    u = x - alpha * machine.mean
    inner = torch.eye(2).double() + thin.T @ (thin / bulk[:, None])
    solved = u / bulk - (u / bulk) @ thin @ torch.linalg.solve(inner, thin.T / bulk)
    cov = (U * (lam - rest)) @ U.T + rest * torch.eye(7)
    assert_close(machine.denoise(x, level), machine.mean + (solved * alpha) @ cov, atol=1e-10, rtol=1e-10)


# The renormalisation group: -log of the noisy density over the prior's, S = 1 ----------------------------------------


@pytest.fixture
def mixture():
    parts = (
        gaussian_law(torch.tensor([m]).double(), torch.tensor([[v]]).double(), (1,))
        for m, v in ((-1.0, 0.3), (1.4, 0.1))
    )
    return Mixture(torch.tensor([0.4, 0.6], dtype=torch.float64), tuple(parts))


def interaction(mixture, z, gamma):
    """V(z) = -log p_gamma(z) + log N(z; 0, 1), z of shape (n,)."""
    log_p = mixture.log_density(z[:, None], at_gamma(gamma.reshape(1, 1)))
    return -log_p - z**2 / 2 - math.log(2 * math.pi) / 2


def test_the_interaction_is_an_average_of_the_bare_one(mixture):
    """exp -V_t(z) = E exp -V_0(alpha z + zeta), zeta ~ N(0, 1 - alpha^2), by the symmetry of the stationary process."""
    means = torch.stack([one.mean for one in mixture.components])[:, 0]
    deviations = torch.stack([one.cov for one in mixture.components])[:, 0, 0].sqrt()
    clean = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(mixture.weights), torch.distributions.Normal(means, deviations)
    )
    z, gamma = torch.linspace(-2.5, 2.5, 11).double(), torch.tensor(-0.7).double()
    level = at_gamma(gamma.reshape(1, 1))
    nodes = torch.linspace(-12, 12, 6001, dtype=torch.float64)
    weights = (-(nodes**2) / 2).log_softmax(0)
    points = level.alpha * z[:, None] + level.sigma * nodes
    bare = -clean.log_prob(points) - points**2 / 2 - math.log(2 * math.pi) / 2
    assert_close(interaction(mixture, z, gamma), -(weights - bare).logsumexp(1), atol=1e-8, rtol=0)


def test_the_interaction_obeys_polchinskis_equation(mixture):
    """dU/dgamma = (1/2) dC/dgamma [(dU/dphi)^2 - d^2U/dphi^2], U(phi) = V(phi / alpha), C = alpha^2."""
    phi = torch.linspace(-1.2, 1.2, 9).double().requires_grad_()
    gamma = torch.tensor(0.4).double().requires_grad_()
    alpha2 = torch.sigmoid(-gamma)
    U = interaction(mixture, phi / alpha2.sqrt(), gamma)
    slope = torch.autograd.grad(U.sum(), phi, create_graph=True)[0]
    bend = torch.autograd.grad(slope.sum(), phi, retain_graph=True)[0]
    rate = torch.stack([torch.autograd.grad(value, gamma, retain_graph=True)[0] for value in U])
    change = torch.autograd.grad(alpha2, gamma)[0]
    assert_close(rate, change * (slope.detach() ** 2 - bend) / 2, atol=1e-8, rtol=1e-8)


# A wrong denoiser ----------------------------------------------------------------------------------------------------


def excess(truth, wrong, path):
    """sum_steps (1/2) sum_i (snr' - snr)_i E (D - D')_i^2 of two centred Gaussian machines on data of the first."""
    eye, total = torch.eye(len(truth.mean)).double(), 0.0
    for now, nxt in pairwise(path):
        alpha, sigma = now.alpha[0], now.sigma[0]
        off = (truth.denoise(eye, now) - wrong.denoise(eye, now)).T
        noisy = alpha[:, None] * truth.cov * alpha + torch.diag(sigma**2)
        total += ((nxt.snr - now.snr)[0] * (off @ noisy @ off.T).diagonal()).sum().item() / 2
    return total


@pytest.mark.parametrize("a", [0.0, 2.0])
@pytest.mark.parametrize("n", [20, 300])
def test_excess_loss_bounds_the_divergence_of_the_samples(randn, a, n):
    """KL(data || samples) <= KL of the start + gap of the exact denoiser + excess of the wrong one (Girsanov)."""
    truth, wrong = (gaussian_law(torch.zeros(4), spread(randn), (4,)) for _ in range(2))
    path = walk(soft(torch.arange(4), a, -4, 5, capped=True), n)
    start, end = noised_law(truth, path[0]), noised_law(truth, path[-1])
    white = gaussian_law(torch.zeros(4), torch.eye(4), (4,))
    bound = gaussian_kl(start, white) + gap(truth, path) + excess(truth, wrong, path)
    found = gaussian_kl(end, exact_law(wrong, path, ddpm))
    assert found < bound < 3 * found
    assert excess(truth, truth, path) == 0
