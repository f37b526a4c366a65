"""Training: the loss against mutual information in closed form, the families against their paths, and the loop."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus
from torch.testing import assert_close

from scoremachines import Gaussian, Mixture, Moments
from scoremachines.networks import MLP, Network
from scoremachines.paths import at_gamma, gamma_of, soft
from scoremachines.train import cube, draws, follow, path_loss, soft_paths, train
from tests.conftest import refused, seeded

LABELS = torch.tensor([[0.0, 1.5, 0.5], [3.0, 2.0, 1.0]]).double()
REACH = (-13.0, 9.0)


class Exact(nn.Module):
    """The velocity of a Gaussian's own denoiser, or 0 without one; its only parameter has no effect."""

    def __init__(self, shape, gaussian=None):
        super().__init__()
        self.shape, self.gaussian = torch.Size(shape), gaussian
        self.idle = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, chi, gamma):
        if self.gaussian is None:
            return 0 * chi + self.idle
        noise = at_gamma(gamma)
        return (noise.alpha * chi - self.gaussian.denoise(chi, noise)) / noise.sigma + self.idle


def small(shape=(2, 3), **settings):
    return Network.start(MLP(shape, **({"width": 16, "blocks": 1} | settings)), REACH, seeded())


def white(n, rng):
    return torch.randn(n, 2, 3, generator=rng, dtype=torch.float64)


# Families -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("a", [0.0, 1.0, 1.6])
def test_one_path_is_soft_conditioning(a):
    """Every state lies on the path, at times one in each of n parts, with the slope of the path."""
    gamma, slope = soft_paths(LABELS, (a, a), -6.0, 2.0)(7, seeded())
    path = soft(LABELS, a, -6.0, 2.0)
    start, end = gamma_of(path(0.0)), gamma_of(path(1.0))
    t = ((gamma - start) / (end - start)).flatten(1)
    assert_close(t, t[:, :1].expand(7, 6))
    assert ((7 * t[:, 0]).floor() == torch.arange(7)).all()
    for k in range(7):
        assert_close(gamma[k : k + 1], gamma_of(path(t[k, 0].item())))
    assert_close(slope, (end - start).expand(7, 2, 3))


def test_a_range_of_paths():
    gamma, slope = soft_paths(LABELS, (0.4, 1.6))(4000, seeded())
    a = (gamma[:, 1, 0] - gamma[:, 0, 0]) / 3  # labels 3 and 0
    assert 0.4 <= a.min() < 0.41
    assert 1.59 < a.max() <= 1.6
    assert a.mean().item() == pytest.approx(1, abs=0.03)
    assert_close(slope, (10 + 3 * a)[:, None, None].expand(4000, 2, 3))
    t = (gamma[:, 1, 0] + 7) / slope[:, 0, 0]
    assert ((4000 * t).floor() == torch.arange(4000)).all()
    assert abs(torch.corrcoef(torch.stack([a, t]))[0, 1]) < 0.05


def test_the_cube_is_uniform():
    gamma, slope = cube((2, 3), -5.0, 3.0)(5000, seeded())
    assert gamma.shape == slope.shape == (5000, 2, 3)
    assert (slope == 8).all()
    assert -5 <= gamma.min() < -4.99
    assert 2.99 < gamma.max() <= 3
    found = Moments.of((gamma + 1) / (8 / math.sqrt(12)))
    assert_close(found.mean, torch.zeros(6).double(), atol=0.06, rtol=0)
    assert_close(found.cov, torch.eye(6).double(), atol=0.06, rtol=0)


# The loss -----------------------------------------------------------------------------------------------------------


def mean_loss(module, draw, family, rng, batches, batch):
    losses = [path_loss(module, (-40.0, 40.0), draw(batch, rng), *family(batch, rng), rng) for _ in range(batches)]
    losses = torch.stack(losses).detach()
    return losses.mean().item(), losses.std().item() / batches**0.5


def test_without_velocity_white_data_lose_their_capacity():
    """Unit variance: E (eps - eps_hat)^2 = alpha^2, whose integral over gamma is softplus(-gamma)."""
    start, end = (gamma_of(soft(LABELS, 1.0)(t)) for t in (0.0, 1.0))
    expected = (softplus(-start) - softplus(-end)).sum().item() / 2
    found, error = mean_loss(Exact((2, 3)), white, soft_paths(LABELS, (1.0, 1.0)), seeded(), 100, 500)
    assert error < 0.01 * expected
    assert found == pytest.approx(expected, abs=4 * error)


def test_the_exact_loss_is_the_information_between_the_ends(cloud):
    """For every path: I(x0; x) at its clean end less that at its noisy end, (1/2) log det (I + A C A / S^2)."""
    gaussian = Gaussian.fit(cloud)
    labels = LABELS.flatten()

    def information(noise):
        root = (noise.alpha / noise.sigma)[0]
        return torch.logdet(torch.eye(6) + root[:, None] * gaussian.cov * root).item() / 2

    for a in (0.0, 1.5):
        path = soft(labels, a, -4.0, 1.0)
        expected = information(path(0.0)) - information(path(1.0))
        module, family = Exact((6,), gaussian), soft_paths(labels, (a, a), -4.0, 1.0)
        found, error = mean_loss(module, draws(gaussian), family, seeded(), 10, 200)
        assert error < 0.03 * expected
        assert found == pytest.approx(expected, abs=4 * error)


def test_the_loss_by_hand():
    """Half the slope times (eps - eps_hat)^2, in the dtype of the module, which is shown gamma within its reach."""
    module, rng = small().module, seeded(3)
    x0, (gamma, slope) = white(5, rng), cube((2, 3), -20.0, 20.0)(5, rng)
    found = path_loss(module, (-2.0, 3.0), x0, gamma, slope, seeded(4))
    assert found.dtype == torch.float32
    noise, eps = at_gamma(gamma.float()), torch.randn(5, 2, 3, generator=seeded(4))
    x = noise.add(x0.float(), eps)
    with torch.no_grad():
        v = module(x, gamma.float().clamp(-2, 3))
    error = eps - (noise.sigma * x + noise.alpha * v)
    assert_close(found.detach(), (slope.float() * error**2).sum() / 10, rtol=1e-4, atol=0)


# Samples ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [None, 2])
def test_draws_have_the_moments_of_the_law(cloud, rank):
    gaussian = Gaussian.fit(cloud, rank)
    parts = (gaussian, Gaussian.fit(cloud + 3, 1))
    for law in (gaussian, Mixture(torch.tensor([0.3, 0.7]).double(), parts)):
        drawn = draws(law)(40_000, seeded())
        weights = law.weights if isinstance(law, Mixture) else torch.ones(1).double()
        ones = law.components if isinstance(law, Mixture) else (law,)
        mean = sum(w * one.mean for w, one in zip(weights, ones, strict=True))
        second = sum(w * (one.cov + one.mean.outer(one.mean)) for w, one in zip(weights, ones, strict=True))
        assert_close(drawn.mean(0), mean, atol=0.05, rtol=0)
        assert_close(drawn.T @ drawn / len(drawn), second, atol=0.15, rtol=0.02)


def test_draws_are_samples_in_the_dtype_of_the_law(data):
    law = Mixture.fit(data, by="labels", labels=torch.arange(10) % 2)
    drawn = draws(law.to(torch.float32))(4, seeded())
    assert drawn.shape == (4, 1, 2, 3)
    assert drawn.dtype == torch.float32
    assert torch.equal(drawn, draws(law.to(torch.float32))(4, seeded()))
    assert_close(drawn[:, 0, 0, 0], torch.full((4,), 0.25))  # a component that never varies
    refused("one law for all samples", draws, law.given(torch.tensor([0, 1])))


# The loop -----------------------------------------------------------------------------------------------------------


def run(steps=5, seed=0, network=None, **settings):
    family = soft_paths(LABELS, (0.4, 1.6))
    return list(train(network or small(), white, family, seeded(seed), steps, **({"batch": 8} | settings)))


def weights(progress):
    return progress.network.module.state_dict()


def test_the_seed_fixes_everything():
    state = torch.get_rng_state()
    one, two, other = run(), run(), run(seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert [p.step for p in one] == [1, 2, 3, 4, 5]
    assert [p.loss for p in one] == [p.loss for p in two] != [p.loss for p in other]
    for name, weight in weights(one[-1]).items():
        assert torch.equal(weight, weights(two[-1])[name])
        assert not torch.equal(weight, weights(other[-1])[name])


def test_the_network_given_is_left_alone():
    network = small()
    before = {name: weight.clone() for name, weight in network.module.state_dict().items()}
    found = run(network=network)[-1].network
    assert found.reach == REACH
    for name, weight in network.module.state_dict().items():
        assert torch.equal(weight, before[name])
        assert not torch.equal(weight, found.module.state_dict()[name])


def test_the_average_follows_the_steps():
    """Without memory the average is the network of the last step; early on, memory is (1 + k) / (10 + k)."""
    families = white, soft_paths(LABELS, (0.4, 1.6))
    now = [
        {name: weight.clone() for name, weight in weights(p).items()}
        for p in train(small(), *families, seeded(), 4, 8, memory=0.0)
    ]
    expected = dict(small().module.state_dict())
    for k, progress in enumerate(train(small(), *families, seeded(), 4, 8)):
        m = (1 + k) / (10 + k)
        expected = {name: m * weight + (1 - m) * now[k][name] for name, weight in expected.items()}
        for name, weight in weights(progress).items():
            assert_close(weight, expected[name])


def test_follow():
    old, now = small().module, Network.start(small().module, REACH, seeded(1)).module
    expected = [0.9 * a + 0.1 * b for a, b in zip(old.parameters(), now.parameters(), strict=True)]
    follow(old, now, 0.9)
    for weight, value in zip(old.parameters(), expected, strict=True):
        assert_close(weight, value)


def test_the_first_step_is_that_of_adam():
    """Every weight moves by the rate, against the sign of its gradient."""
    network, rng = small(), seeded()
    x0, levels = white(8, rng), soft_paths(LABELS, (0.4, 1.6))(8, rng)
    path_loss(network.module, REACH, x0, *levels, rng).backward()
    moved = weights(run(steps=1, memory=0.0, rates=(1e-3, 0.0))[0])
    for name, weight in network.module.named_parameters():
        change, some = moved[name] - weight.detach(), weight.grad.abs() > 1e-3
        assert some.any()
        assert_close(change[some], -1e-3 * weight.grad.sign()[some], rtol=1e-2, atol=0)


def test_it_learns_the_denoiser(cloud):
    gaussian = Gaussian.fit(cloud)
    labels, rng = LABELS.flatten(), seeded(2)
    family, draw = soft_paths(labels, (0.4, 1.6), -3.0, 2.0), draws(gaussian)
    reach = (-8.0, 7.0)
    start = Network.start(MLP((6,), 48, 2), reach, rng)
    progress = list(train(start, draw, family, rng, 500, 64, (1e-2, 1e-4), 0.98))[-1]
    x0, noise = draw(1000, rng), soft(labels, 1.0, -3.0, 2.0)(0.5)
    x = noise.add(x0, torch.randn(x0.shape, generator=rng, dtype=x0.dtype))
    error = [
        (m.denoise(x, noise) - gaussian.denoise(x, noise)).square().mean().item() for m in (start, progress.network)
    ]
    none = (noise.alpha * x - gaussian.denoise(x, noise)).square().mean().item()
    assert error[1] < 0.1 * none < error[0]


def test_bad_settings_get_one_sentence():
    family = soft_paths(LABELS, (1.0, 1.0))
    refused("network is a MLP", train, small().module, white, family, seeded())
    refused("rng is a int", train, small(), white, family, 0)
    for wrong in ({"steps": 0}, {"steps": 1.5}, {"batch": 0}):
        refused("positive whole numbers", train, small(), white, family, seeded(), **wrong)
    for wrong in ({"rates": (0.0, 0.0)}, {"rates": (1e-3, 1e-2)}, {"rates": (math.inf, 0)}, {"memory": 1.0}):
        refused("rates that fall", train, small(), white, family, seeded(), **wrong)
    for wrong in (lambda n, rng: torch.zeros(n, 3, 2), lambda n, rng: torch.zeros(n + 1, 2, 3)):
        refused("expected \\(B, \\*\\(2, 3\\)\\)", next, train(small(), wrong, family, seeded()))
    refused("expected \\(B", next, train(small((6,)), lambda n, rng: torch.zeros(n, 2, 3), family, seeded()))
    refused("loss is (inf|nan) at step 1", next, train(small(), lambda n, rng: 1e30 * white(n, rng), family, seeded()))


def test_bad_families_get_one_sentence():
    for a, clean, noisy in (((1.6, 0.4), -7, 3), ((-1, 1), -7, 3), ((0, math.inf), -7, 3), ((1, 1), 3, -7)):
        refused("expected 0 <=", soft_paths, LABELS, a, clean, noisy)
    for bad in (LABELS * math.inf, LABELS[:0], torch.tensor(1.0), [1.0, 2.0]):
        refused("expected finite numbers in a tensor", soft_paths, bad, (1, 1))
    for lowest, highest in ((3.0, 3.0), (-math.inf, 3.0), (math.nan, 1.0)):
        refused("two finite numbers", cube, (2, 3), lowest, highest)
