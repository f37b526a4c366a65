"""Stochastic steps: posterior covariances, kernels against dense formulas, exact reversal, components that rest."""

import math
from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from scoremachines import Gaussian, Ideal, Machine, Mixture, Noise, ddpm, edm, edm_levels, sample, vp
from scoremachines.ancestral import bridge, diagonal, euler_maruyama, full, large, posterior_cov, reverse_drift, small
from scoremachines.coordinates import gaussian_law
from scoremachines.likelihood import exact_law, noised_law
from scoremachines.paths import at_gamma, soft, stairs, walk
from scoremachines.smoothed import KernelDensity
from scoremachines.teleport import gaussian_kl
from tests.conftest import refused, seeded

KERNELS = {"small": small, "large": large, "diagonal": diagonal, "full": full, "euler_maruyama": euler_maruyama}
BRIDGES = {name: KERNELS[name] for name in ("small", "large", "diagonal", "full")}
EXACT = {"rtol": 0, "atol": 1e-12}
COV = torch.tensor(
    [[2.0, 0.9, -0.3, 0.1], [0.9, 1.0, 0.1, 0.2], [-0.3, 0.1, 0.5, 0.2], [0.1, 0.2, 0.2, 0.3]], dtype=torch.float64
)
MEAN = torch.tensor([0.5, -1.0, 0.2, 2.0], dtype=torch.float64)
LABELS = torch.arange(4, dtype=torch.float64)

parametrize_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)


def row(*values):
    return torch.tensor([values], dtype=torch.float64)


def eye(D=4):
    return torch.eye(D, dtype=torch.float64)


def parts(noise):
    """alpha and sigma of the components, for a level of shape (1, D)."""
    return noise.alpha.flatten(), noise.sigma.flatten()


def wander(rand, steps, first, last, D=4):
    """A path on which every gamma falls from first to last at its own pace, some resting in some of the steps."""
    share = rand(steps, D) * (rand(steps, D) > 0.3) + 1e-3
    rest = rand(steps, D) < 0.3
    rest[0] = False
    share = share.masked_fill(rest, 0)
    u = torch.cat([torch.zeros(1, D, dtype=torch.float64), share.cumsum(0) / share.sum(0)])
    u[u > 1 - 1e-12] = 1
    gamma = torch.logit(1 - u) if math.isinf(first) else first + (last - first) * u
    return [at_gamma(gamma[k][None]) for k in range(steps + 1)]


@pytest.fixture
def gaussian():
    return gaussian_law(MEAN, COV, (4,))


@pytest.fixture
def mixture():
    return Mixture(
        torch.tensor([0.3, 0.7], dtype=torch.float64),
        (gaussian_law(MEAN, COV, (4,)), gaussian_law(-MEAN, 0.3 * COV.flip(0, 1), (4,))),
    )


# Posterior covariance ------------------------------------------------------------------------------------------------


def gaussian_posterior(mean, cov, x, noise):
    """Mean and covariance of x0 given one x, by the inverse of the noisy covariance."""
    alpha, sigma = (part.expand(len(mean)) for part in parts(noise))
    gain = cov * alpha @ torch.linalg.inv(alpha[:, None] * cov * alpha + torch.diag(sigma**2))
    return mean + gain @ (x - alpha * mean), cov - gain * alpha @ cov


def mixed_posterior(weights, means, covs, x, noise):
    """Covariance of x0 given one x under a mixture."""
    alpha, sigma = parts(noise)
    laws = [
        torch.distributions.MultivariateNormal(alpha * m, alpha[:, None] * C * alpha + torch.diag(sigma**2))
        for m, C in zip(means, covs, strict=True)
    ]
    logits = torch.stack([w.log() + law.log_prob(x) for w, law in zip(weights, laws, strict=True)])
    found = [gaussian_posterior(m, C, x, noise) for m, C in zip(means, covs, strict=True)]
    share, centre = logits.softmax(0), torch.stack([m for m, _ in found])
    inner = torch.stack([C for _, C in found])
    mean = share @ centre
    return (share[:, None, None] * (inner + centre[:, :, None] * centre[:, None, :])).sum(0) - torch.outer(mean, mean)


@pytest.fixture(params=[(0.7, 0.4, 1.3, 0.9), (0.0, 0.5, 2.0, 0.0)], ids=["signal", "some without signal"])
def level(request):
    return Noise(row(*request.param), row(0.8, 0.3, 1.5, 1.0))


def test_posterior_covariance_of_a_gaussian(gaussian, level, randn):
    expected = gaussian_posterior(MEAN, COV, MEAN, level)[1]
    assert_close(posterior_cov(gaussian, randn(3, 4), level), expected.expand(3, 4, 4), rtol=0, atol=1e-13)
    isotropic = gaussian_posterior(MEAN, COV, MEAN, Noise(row(0.6), row(0.8)))[1]
    assert_close(posterior_cov(gaussian, randn(1, 4), Noise(0.6, 0.8))[0], isotropic, rtol=0, atol=1e-13)


def test_posterior_covariance_of_a_gaussian_of_low_rank(cloud, level, randn):
    for remainder in ("isotropic", "drop"):
        machine = Gaussian.fit(cloud[:, :4], rank=2, remainder=remainder)
        expected = gaussian_posterior(machine.mean, machine.cov, machine.mean, level)[1]
        assert_close(posterior_cov(machine, randn(2, 4), level)[1], expected, rtol=0, atol=1e-13)


def test_posterior_covariance_of_a_mixture(mixture, level, randn):
    x = randn(3, 4)
    expected = [mixed_posterior(mixture.weights, (MEAN, -MEAN), (COV, 0.3 * COV.flip(0, 1)), one, level) for one in x]
    assert_close(posterior_cov(mixture, x, level), torch.stack(expected), rtol=0, atol=1e-12)


def test_posterior_covariance_of_the_data(cloud, level, randn):
    y, x = cloud[:, :4], cloud[:3, :4] + 0.3 * randn(3, 4)
    alpha, sigma = parts(level)
    for b in range(3):
        w = (-((x[b] - alpha * y) ** 2 / sigma**2).sum(1) / 2).softmax(0)
        expected = (w[:, None] * y).T @ y - torch.outer(w @ y, w @ y)
        assert_close(posterior_cov(Ideal.fit(y), x[b : b + 1], level)[0], expected, rtol=0, atol=1e-13)


def test_posterior_covariance_of_a_kernel_density(cloud, level, randn):
    y, x, h = cloud[:8, :4], cloud[:3, :4] + 0.3 * randn(3, 4), row(0.1, 0.2, 0.3, 0.4)[0]
    expected = [mixed_posterior(torch.ones(8) / 8, y, [torch.diag(h**2)] * 8, one, level) for one in x]
    assert_close(posterior_cov(KernelDensity.fit(y, h), x, level), torch.stack(expected), rtol=0, atol=1e-12)


class Tanh(Machine):
    """A denoiser that is the posterior mean of no data."""

    def denoise(self, x, noise):
        return torch.tanh(x @ COV)


def test_posterior_covariance_of_another_machine(randn):
    """By Tweedie's second identity: (sigma^2 / alpha) dD/dx, and every column is a product."""
    x, noise = randn(2, 4), Noise(row(0.3, 0.6, 0.9, 1.2), row(0.5, 0.6, 0.7, 0.8))
    alpha, sigma = parts(noise)
    J = (1 - torch.tanh(x @ COV) ** 2)[:, :, None] * COV
    assert_close(posterior_cov(Tanh(), x, noise), (J * (sigma**2 / alpha)).mT, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["gaussian", "mixture", "ideal", "kernel density"])
def test_a_batch_is_its_images(name, gaussian, mixture, cloud, randn, rand):
    data = cloud[:, :4]
    machine = {
        "gaussian": gaussian,
        "mixture": mixture,
        "ideal": Ideal.fit(data),
        "kernel density": KernelDensity.fit(data, 0.2),
    }[name]
    x, each = randn(4, 4), Noise(rand(4, 4), 0.3 + rand(4, 4))
    for noise in (Noise(0.7, 0.6), Noise(each.alpha[:1], each.sigma[:1]), Noise(each.alpha, each.sigma[:1]), each):
        single = [
            posterior_cov(machine, x[b : b + 1], Noise(*(p[b : b + 1] if len(p) > 1 else p for p in noise.on(x))))
            for b in range(4)
        ]
        assert_close(posterior_cov(machine, x, noise), torch.cat(single), rtol=0, atol=1e-13)
    assert posterior_cov(machine, x[:0], Noise(0.7, 0.6)).shape == (0, 4, 4)


def test_mixture_that_knows_its_components(mixture, randn):
    x, noise = randn(2, 4), Noise(row(0.3, 0.6, 0.9, 1.2), row(0.5, 0.6, 0.7, 0.8))
    found = posterior_cov(mixture.given(torch.tensor([1, 0])), x, noise)
    assert_close(found[0], posterior_cov(mixture.components[1], x, noise)[0], rtol=0, atol=1e-14)
    assert_close(found[1], posterior_cov(mixture.components[0], x, noise)[1], rtol=0, atol=1e-14)


@pytest.mark.parametrize("gamma", [-60.0, -30.0, -7.0, 4.0, 30.0, 60.0])
def test_posterior_covariance_keeps_its_digits(gaussian, mixture, gamma):
    """Cov[x0 | x] = S (1 + S C^-1 S)^-1 S with S^2 = e^gamma: at gamma = -60 the variances are 1e-26."""
    gamma = gamma + LABELS / 4
    noise, S = at_gamma(gamma[None]), (gamma / 2).exp()
    cov = S[:, None] * torch.linalg.inv(eye() + S[:, None] * torch.linalg.inv(COV) * S) * S
    found = posterior_cov(gaussian, noise.alpha * MEAN, noise)[0]
    scale = cov.diagonal().sqrt()
    assert_close(found / scale[:, None] / scale, cov / scale[:, None] / scale, rtol=0, atol=1e-13)
    both = posterior_cov(mixture, noise.alpha * MEAN + noise.sigma, noise)[0]
    assert both.diagonal().min() > 0
    if gamma[0] <= -30:  # what is known is known of every component of the mixture
        assert_close(both / scale[:, None] / scale, cov / scale[:, None] / scale, rtol=0, atol=1e-5)


def test_components_without_noise_are_known(gaussian, mixture, randn):
    """Conditioning on components 1 and 3, by the Schur complement."""
    noise, rest = Noise(row(0.0, 1.0, 0.0, 1.0), row(1.0, 0.0, 1.0, 0.0)), [0, 2]
    known = [1, 3]
    gain = COV[rest][:, known] @ torch.linalg.inv(COV[known][:, known])
    for machine in (gaussian, mixture.given(torch.zeros(2).long())):
        found = posterior_cov(machine, randn(2, 4), noise)
        assert_close(found[1][rest][:, rest], COV[rest][:, rest] - gain @ COV[known][:, rest], **EXACT)
        assert found[:, known].abs().max() < 1e-14


# Kernels against dense formulas -------------------------------------------------------------------------------------

NOW = Noise(row(0.3, 0.9, 0.0, 0.5), row(0.9, 0.5, 1.0, 2.0))
NEXT = Noise(row(0.7, 0.95, 0.6, 0.5), row(0.5, 0.2, 0.8, 1.0))


def reversed_law(now, nxt, mean=MEAN, cov=COV):
    """The true law of x' given x: gain, offset and covariance, by conditioning in the joint Gaussian of x' and x."""
    (alpha, sigma), (alpha_next, sigma_next) = parts(now), parts(nxt)
    step = alpha / alpha_next  # x = step x' + more noise
    after = alpha_next[:, None] * cov * alpha_next + torch.diag(sigma_next**2)
    before = alpha[:, None] * cov * alpha + torch.diag(sigma**2)
    gain = after * step @ torch.linalg.inv(before)
    return gain, alpha_next * mean - gain @ (alpha * mean), after - gain * step @ after


@pytest.mark.parametrize("next_level", [NEXT, Noise(row(1.0, 1.0, 1.0, 1.0), row(0.0, 0.0, 0.0, 0.0))])
def test_full_is_the_reversed_process(gaussian, randn, next_level):
    gain, offset, cov = reversed_law(NOW, next_level)
    x = randn(5, 4)
    for name, kernel in BRIDGES.items():
        mean, spread = kernel.law(gaussian, x, gaussian.denoise(x, NOW), NOW, next_level)
        assert_close(mean, x @ gain.T + offset, **EXACT)
        expected = {"full": cov, "diagonal": cov.diagonal().diag()}.get(name)
        if expected is not None:
            assert_close(spread, expected, **EXACT)


def test_variances_of_small_and_large(gaussian, randn):
    x = randn(2, 4)
    (alpha, sigma), (alpha_next, sigma_next) = parts(NOW), parts(NEXT)
    c = 1 - (alpha * sigma_next / (alpha_next * sigma)) ** 2
    for kernel, expected in (
        (small, c * sigma_next**2),
        (large, c * sigma**2 * (alpha_next**2 + sigma_next**2) / (alpha**2 + sigma**2)),
    ):
        _, spread = kernel.law(gaussian, x, x, NOW, NEXT)
        assert_close(spread, expected.diag(), **EXACT)


def test_small_is_the_variance_of_a_step_to_a_known_image(randn):
    """The reversed process of data without variance."""
    one = gaussian_law(MEAN, 0 * COV, (4,))
    gain, offset, cov = reversed_law(NOW, NEXT, cov=0 * COV)
    x = randn(2, 4)
    mean, spread = small.law(one, x, one.denoise(x, NOW), NOW, NEXT)
    assert_close(spread, cov, **EXACT)
    assert_close(mean, x @ gain.T + offset, **EXACT)
    assert_close(bridge(x, MEAN.expand(2, 4), NOW, NEXT), mean, **EXACT)


def test_large_is_the_reversed_process_of_unit_variance(randn):
    """Also where the levels do not preserve the variance."""
    unit = gaussian_law(MEAN, eye(), (4,))
    for kernel in (large, diagonal, full):
        _, spread = kernel.law(unit, randn(2, 4), randn(2, 4), NOW, NEXT)
        assert_close(spread, reversed_law(NOW, NEXT, cov=eye())[2], **EXACT)


def test_euler_maruyama_is_the_euler_step(gaussian, randn):
    """x + beta dt (x / 2 + score), with variance beta dt = sigma^2 (gamma - gamma')."""
    gamma, falls, x = row(1.0, -2.0, 0.5, 3.0), row(0.3, 0.1, 0.2, 0.5), randn(3, 4)
    now, nxt = at_gamma(gamma), at_gamma(gamma - falls)
    beta = torch.sigmoid(gamma) * falls
    mean, cov = euler_maruyama.law(gaussian, x, gaussian.denoise(x, now), now, nxt)
    assert_close(mean, x + beta * (x / 2 + gaussian.score(x, now)), **EXACT)
    assert_close(cov, beta[0].diag(), **EXACT)


@parametrize_kernel
def test_draws_follow_the_law(kernel, gaussian, rng, randn):
    n, now, nxt = 40000, at_gamma(row(1.0, -1.0, 0.5, 2.0)), at_gamma(row(0.2, -1.0, 0.0, 0.5))
    x = randn(1, 4)
    x0 = gaussian.denoise(x, now)
    mean, cov = kernel.law(gaussian, x, x0, now, nxt)
    draws = kernel(gaussian, x.expand(n, 4), x0.expand(n, 4), now, nxt, (), rng)
    assert torch.equal(draws[:, 1], x[:, 1].expand(n))  # it rests
    some = [0, 2, 3]
    white = torch.linalg.inv(torch.linalg.cholesky(cov[some][:, some])) @ (draws - mean)[:, some].T
    assert_close(white.mean(1), torch.zeros(3).double(), rtol=0, atol=5 / n**0.5)
    assert_close(white @ white.T / n, eye(3), rtol=0, atol=8 / n**0.5)


def test_small_is_ddpm_draw_for_draw(gaussian, randn, rand):
    x = randn(5, 4)
    for path in (edm_levels(8), walk(vp, 9), wander(rand, 6, 4.0, -7.0), wander(rand, 6, math.inf, -math.inf)):
        found, expected = (sample(gaussian, x, path, step, seeded(3)) for step in (small, ddpm))
        assert_close(found, expected, rtol=1e-12, atol=1e-12)


@parametrize_kernel
def test_one_level_per_image(kernel, gaussian, mixture, randn):
    x = randn(3, 4)
    gamma = torch.tensor([[2.0, 1.0, 0.0, 0.5], [1.0, 1.0, 1.0, 1.0], [-3.0, 2.0, 0.0, 1.0]], dtype=torch.float64)
    now, nxt = at_gamma(gamma), at_gamma(gamma - 0.3)
    for machine in (gaussian, mixture):
        x0, spread = machine.denoise(x, now), kernel.spread(machine, x, now, nxt)
        for b in range(3):
            one, levels = slice(b, b + 1), [at_gamma(gamma[b : b + 1] - fall) for fall in (0, 0.3)]
            assert_close(kernel.mean(x, x0, now, nxt)[one], kernel.mean(x[one], x0[one], *levels), **EXACT)
            assert_close(spread[one], kernel.spread(machine, x[one], *levels), **EXACT)
        assert kernel(machine, x, x0, now, nxt, (), seeded()).shape == (3, 4)


def test_the_root_of_a_covariance_is_shared_by_the_images(gaussian, mixture, randn):
    """One covariance serves the whole batch of a Gaussian, and gives the draws that one for each image gives."""
    x, (now, nxt) = randn(3, 4), (at_gamma(row(1.0, 0.0, 2.0, 1.0)), at_gamma(row(0.0, -1.0, 2.0, -1.0)))
    assert full.spread(gaussian, x, now, nxt).shape == (1, 4, 4)
    assert full.spread(mixture, x, now, nxt).shape == (3, 4, 4)
    same = Mixture(torch.ones(1, dtype=torch.float64), (gaussian,))
    draws = [full(one, x, gaussian.denoise(x, now), now, nxt, (), seeded(2)) for one in (gaussian, same)]
    assert_close(draws[0], draws[1], **EXACT)


# Exact at any number of steps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("N", range(1, 11))
def test_full_is_exact_for_gaussian_data(gaussian, rand, N):
    """On random paths between finite ends, and from pure noise to clean data."""
    path = wander(rand, N, 4.0, -7.0)
    law, target = exact_law(gaussian, path, full, noised_law(gaussian, path[0])), noised_law(gaussian, path[-1])
    assert_close(law.cov, target.cov, **EXACT)
    assert_close(law.mean, target.mean, **EXACT)
    law = exact_law(gaussian, wander(rand, N, math.inf, -math.inf), full)
    assert_close(law.cov, COV, **EXACT)
    assert_close(law.mean, MEAN, **EXACT)


def test_the_other_kernels_are_not(gaussian, rand):
    path = wander(rand, 5, 4.0, -7.0)
    for kernel in (small, large, diagonal, euler_maruyama):
        law = exact_law(gaussian, path, kernel, noised_law(gaussian, path[0]))
        assert gaussian_kl(noised_law(gaussian, path[-1]), law) > 0.01


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1)])
def test_strict_order_in_one_step_each_is_the_cholesky_factor(gaussian, order):
    """The noise that generates a component enters in its own turn; L is triangular in the order of generation."""
    order = torch.tensor(order)
    labels = torch.empty(4, dtype=torch.float64).index_copy(0, order, LABELS)
    path = walk(stairs(labels), 4)
    assert_close(exact_law(gaussian, path, full).cov, COV, **EXACT)
    rng, same = seeded(5), seeded(5)
    start, found = torch.randn(3, 4, generator=seeded(1), dtype=torch.float64), []
    for component in order:  # one draw of (B, D) a step, of which one column is used
        found.append(torch.randn(3, 4, generator=same, dtype=torch.float64)[:, component])
    L = torch.linalg.cholesky(COV[order][:, order])
    expected = MEAN[order] + torch.stack(found, 1) @ L.T
    assert_close(sample(gaussian, start, path, full, rng)[:, order], expected, **EXACT)


@pytest.mark.parametrize("kernel", [diagonal, full])
def test_strict_order_needs_no_correlations(gaussian, kernel):
    """One component moves at a time, so that its variance is all there is."""
    path = walk(stairs(LABELS), 4)
    assert_close(exact_law(gaussian, path, kernel).cov, COV, **EXACT)
    assert (exact_law(gaussian, path, small).cov - COV).abs().max() > 0.1


@pytest.mark.parametrize("a", [0.0, 1.0, 7.0])
@pytest.mark.parametrize("N", [1, 3, 20])
def test_large_and_diagonal_are_exact_for_whitened_independent_components(a, N):
    white = gaussian_law(torch.zeros(4, dtype=torch.float64), eye(), (4,))
    for capped in (False, True):
        path = walk(soft(LABELS, a, capped=capped), N)
        for kernel in (large, diagonal, full):
            assert abs(gaussian_kl(noised_law(white, path[-1]), exact_law(white, path, kernel))) < 1e-14
        assert gaussian_kl(noised_law(white, path[-1]), exact_law(white, path, small)) > 1e-4


@pytest.mark.parametrize("a", [0.0, 1.0, 7.0])
def test_diagonal_is_exact_for_independent_components(a):
    diag = gaussian_law(MEAN, COV.diagonal().diag(), (4,))
    for N in (1, 3, 20):
        path = walk(soft(LABELS, a), N)
        law = exact_law(diag, path, diagonal, noised_law(diag, path[0]))
        assert abs(gaussian_kl(noised_law(diag, path[-1]), law)) < 1e-14


def test_euler_maruyama_converges_as_one_over_n(gaussian):
    """The mean and the covariance of what it draws are off by a share of the step."""
    errors = []
    for N in (50, 100, 200):
        path = walk(soft(LABELS, 1.0, -3.0, 4.0), N)
        law = exact_law(gaussian, path, euler_maruyama, noised_law(gaussian, path[0]))
        target = noised_law(gaussian, path[-1])
        errors.append(torch.stack([(law.cov - target.cov).norm(), (law.mean - target.mean).norm()]))
    for coarse, fine in pairwise(errors):
        assert_close(coarse / fine, torch.full((2,), 2.0, dtype=torch.float64), rtol=0.05, atol=0)
    assert errors[-1].max() < 0.02


@pytest.mark.parametrize("kernel", [small, large])
def test_small_and_large_converge(gaussian, kernel):
    errors = []
    for N in (50, 100, 200):
        path = walk(soft(LABELS, 1.0, -3.0, 4.0), N)
        law = exact_law(gaussian, path, kernel, noised_law(gaussian, path[0]))
        errors.append(gaussian_kl(noised_law(gaussian, path[-1]), law))
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(4, rel=0.05)


# Components that rest -----------------------------------------------------------------------------------------------


@parametrize_kernel
def test_resting_components_pass_unchanged(kernel, gaussian, mixture, cloud, randn):
    """Bitwise: with noise, without, and without signal."""
    density = KernelDensity.fit(cloud[:, :4], 0.3)
    inf = math.inf
    for rests in (0.7, -inf, inf):
        now, nxt = at_gamma(row(1.0, rests, 0.5, rests)), at_gamma(row(0.2, rests, 0.4, rests))
        x = randn(5, 4)
        for machine in (gaussian, mixture, density):
            moved = kernel(machine, x, machine.denoise(x, now), now, nxt, (), seeded())
            assert torch.equal(moved[:, [1, 3]], x[:, [1, 3]])
            assert (moved[:, [0, 2]] != x[:, [0, 2]]).all()
            assert moved.isfinite().all()


@parametrize_kernel
def test_resting_components_do_not_blur_a_law(kernel, gaussian, randn):
    now, nxt = at_gamma(row(1.0, -math.inf, 0.5, math.inf)), at_gamma(row(0.2, -math.inf, 0.4, math.inf))
    x = randn(5, 4)
    mean, cov = kernel.law(gaussian, x, gaussian.denoise(x, now), now, nxt)
    assert torch.equal(mean[:, [1, 3]], x[:, [1, 3]])
    assert cov[[1, 3]].abs().max() == cov[:, [1, 3]].abs().max() == 0
    assert cov[[0, 2], [0, 2]].min() > 0


@parametrize_kernel
def test_a_level_that_rests_altogether_changes_nothing(kernel, gaussian, randn):
    x, noise = randn(3, 4), Noise(0.6, 0.8)
    assert torch.equal(kernel(gaussian, x, gaussian.denoise(x, noise), noise, noise, (), seeded()), x)


@pytest.mark.parametrize("kernel", [small, diagonal, full])
def test_components_without_variance_are_returned(kernel, randn):
    """They end at their mean, which is known in advance; `large` is for unit variance, and its last step adds some."""
    cov = COV.clone()
    cov[2], cov[:, 2] = 0, 0
    machine = gaussian_law(MEAN, cov, (4,))
    for path in (walk(stairs(LABELS), 4), [at_gamma(row(*[math.inf] * 4)), Noise(0.6, 0.8), Noise(1.0, 0.0)]):
        x = sample(machine, randn(4, 4), path, kernel, seeded())
        assert_close(x[:, 2], MEAN[2].expand(4), **EXACT)
        law = exact_law(machine, path, kernel)
        assert law.cov[2].abs().max() < 1e-14
        if kernel is full:
            assert_close(law.cov, cov, **EXACT)


def test_a_covariance_of_lower_rank_has_a_root(randn):
    """Two components that are one: where there is no Cholesky factor, the symmetric root draws."""
    twin = torch.tensor([[1.0, 1.0, 0.2], [1.0, 1.0, 0.2], [0.2, 0.2, 0.5]], dtype=torch.float64)
    machine, path = gaussian_law(torch.zeros(3).double(), twin, (3,)), [Noise(0.0, 1.0), Noise(1.0, 0.0)]
    x = sample(machine, randn(20000, 3), path, full, seeded())
    assert_close(x[:, 0], x[:, 1], rtol=0, atol=1e-6)
    assert_close(x.T @ x / len(x), twin, rtol=0, atol=0.05)


@pytest.mark.parametrize("kernel", [diagonal, full])
def test_a_variance_below_zero_is_none(kernel, randn):
    """Of a machine that takes more noise for less signal, and by rounding: one component is the sum of the others."""

    class Opposite(Machine):
        def denoise(self, x, noise):
            return -5 * torch.tanh(x)

    x, levels = randn(3, 4), walk(soft(LABELS, 1.0, -3, 3), 4)
    assert posterior_cov(Opposite(), x, levels[0]).diagonal(dim1=1, dim2=2).max() < 0
    assert sample(Opposite(), x, levels, kernel, seeded()).isfinite().all()
    for seed in range(8):
        root = torch.randn(4, 3, generator=seeded(seed), dtype=torch.float64)
        drawn = sample(gaussian_law(MEAN, root @ root.T, (4,)), x, walk(stairs(LABELS), 4), kernel, seeded())
        assert drawn.isfinite().all()


# Shapes, types, numbers ---------------------------------------------------------------------------------------------


@parametrize_kernel
def test_images_of_any_shape(kernel, cloud, randn):
    """A batch of as many images as components, so that no axis can be guessed."""
    machine, flat = Gaussian.fit(cloud.reshape(40, 1, 2, 3)), Gaussian.fit(cloud)
    labels, x = LABELS.repeat(2)[:6], randn(6, 6)
    paths = [walk(soft(one, 1.0), 5) for one in (labels.reshape(1, 2, 3), labels)]
    drawn = [
        sample(m, x.reshape(6, *m.shape), path, kernel, seeded())
        for m, path in zip((machine, flat), paths, strict=True)
    ]
    assert drawn[0].shape == (6, 1, 2, 3)
    assert_close(drawn[0].flatten(1), drawn[1], **EXACT)
    assert_close(exact_law(machine, paths[0], kernel).cov, exact_law(flat, paths[1], kernel).cov, **EXACT)
    assert exact_law(machine, paths[0], kernel).shape == (1, 2, 3)
    assert sample(machine, x[:0].reshape(0, 1, 2, 3), paths[0], kernel, seeded()).shape == (0, 1, 2, 3)


@parametrize_kernel
def test_single_precision(kernel, gaussian, mixture, cloud, randn):
    path = walk(soft(LABELS, 1.0), 12)
    for machine in (gaussian, mixture, KernelDensity.fit(cloud[:, :4], 0.3)):
        x = randn(3, 4)
        wide = sample(machine, x.float(), path, kernel, seeded())
        assert wide.dtype == torch.float32
        assert wide.isfinite().all()
    now, nxt = path[3], path[4]
    laws = [kernel.law(gaussian, y, gaussian.denoise(y, now), now, nxt) for y in (x, x.float())]
    for double, single in zip(*laws, strict=True):
        assert_close(single.double(), double, rtol=1e-4, atol=1e-5)


@parametrize_kernel
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_finite_from_e60_to_e_minus_60(kernel, gaussian, mixture, dtype, randn):
    """Also for a step of 120 in gamma at once, except by Euler's rule, whose steps must be small."""
    x, counts = randn(4, 4).to(dtype), (160,) if kernel is euler_maruyama else (1, 20)
    for machine in (gaussian, mixture):
        for N in counts:
            path = walk(lambda t: at_gamma((120 * t - 60 + LABELS[None] / 4).clamp(-60, 60)), N)
            drawn = sample(machine, x, path, kernel, seeded())
            assert drawn.isfinite().all()
            assert drawn.abs().max() < 30
    if kernel is full and dtype == torch.float64:
        assert_close(exact_law(gaussian, path, full).cov, COV, **EXACT)


def test_a_seed_decides(gaussian, randn):
    x, path = randn(2, 4), walk(vp, 5)[:-1]
    for kernel in KERNELS.values():
        one, two, other = (sample(gaussian, x, path, kernel, seeded(s)) for s in (1, 1, 2))
        assert torch.equal(one, two)
        assert not torch.equal(one, other)


# Errors -------------------------------------------------------------------------------------------------------------


@parametrize_kernel
def test_a_generator_is_needed(kernel, gaussian, randn):
    refused("given no generator", sample, gaussian, randn(2, 4), walk(soft(LABELS, 1.0), 3), kernel)


def test_euler_maruyama_refuses_levels_it_is_not_for(gaussian, randn):
    x, inside = randn(2, 4), Noise(0.8, 0.6)
    for now, nxt in [
        (edm(3.0), edm(1.0)),
        (Noise(0.0, 1.0), inside),
        (inside, Noise(1.0, 0.0)),
        (inside, Noise(0.6, 0.8)),
        (Noise(0.6, 0.8), Noise(0.8, 0.3)),
    ]:
        refused("euler_maruyama", euler_maruyama, gaussian, x, x, now, nxt, (), seeded())
        refused("euler_maruyama", euler_maruyama.law, gaussian, x, x, now, nxt)
    assert_close(reverse_drift(x, x, inside, inside), x, rtol=0, atol=0)


def test_posterior_covariance_names_what_is_wrong(gaussian, cloud, randn):
    refused("fitted on samples of shape", posterior_cov, gaussian, randn(2, 3), Noise(0.6, 0.8))
    refused("expected a number or", posterior_cov, gaussian, randn(2, 4), Noise(row(0.6, 0.6, 0.6), 0.8))
    refused("sigma is 0", posterior_cov, Ideal.fit(cloud[:, :4]), randn(2, 4), Noise(1.0, 0.0))


@parametrize_kernel
def test_a_level_that_rises_by_a_rounding_is_one_that_rests(kernel, gaussian, randn):
    """The same gamma from other digits: no variance below 0."""
    now, x = at_gamma(row(1.0, -3.0, 0.5, 2.0)), randn(3, 4)
    nxt = Noise(now.alpha, now.sigma * (1 + 1e-15))
    found = kernel(gaussian, x, gaussian.denoise(x, now), now, nxt, (), seeded())
    assert_close(found, x, rtol=0, atol=1e-6)
