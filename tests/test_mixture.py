"""The mixture machine between the Gaussian and the ideal one, its fits against scikit-learn, and its refusals."""

import itertools
import math
import warnings
from functools import reduce

import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch.testing import assert_close

from scoremachines import Gaussian, Ideal, Machine, Moments, Noise, edm_levels, heun, sample
from scoremachines.clusters import Clusters, kmeans, kmeans_plusplus, nearest, occupied
from scoremachines.mixture import Mixture
from scoremachines.softmoments import SoftMoments, raised
from tests.conftest import seeded

D = 6
CLEAN = Noise(1.0, 0.0)
LEVELS = (Noise(0.8, 0.6), Noise(1.0, 0.05), Noise(1.0, 20.0), Noise(0.0, 1.0))
EXACT = {"rtol": 1e-12, "atol": 1e-12}
QUANTITIES = ("denoise", "score", "eps", "log_density")


@pytest.fixture
def blobs(randn):
    """Sixty points of each of three Gaussians in six dimensions, with correlations, that overlap."""
    centres = 1.5 * randn(3, D)
    return torch.cat([c + 0.7 * randn(60, D) @ (torch.eye(D) + 0.4 * randn(D, D)).double() for c in centres])


@pytest.fixture
def machine(cloud):
    """Three overlapping components, of which the smallest has seven samples."""
    return Mixture.fit(cloud, k=3, rng=seeded())


def dense(machine, noise, x):
    """The law of x by torch.distributions, with a covariance for each image and component."""
    alpha, sigma = (a.expand_as(x) for a in noise.on(x))
    mean = torch.stack([alpha * c.mean for c in machine.components], 1)
    cov = torch.stack([alpha[:, :, None] * c.cov * alpha[:, None] for c in machine.components], 1)
    normal = torch.distributions.MultivariateNormal(mean, cov + torch.diag_embed(sigma**2)[:, None])
    prior = torch.distributions.Categorical(machine.weights.expand(len(x), -1))
    return torch.distributions.MixtureSameFamily(prior, normal)


# Exact limits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"rank": 2}, {"rank": 2, "remainder": "drop"}], ids=str)
def test_one_component_is_the_gaussian_machine(cloud, x, mixed, randn, options):
    one, gauss, v = Mixture.fit(cloud, k=1, rng=seeded(), **options), Gaussian.fit(cloud, **options), randn(5, D)
    for noise in (*LEVELS, mixed, Noise(torch.linspace(0, 1, 5)[:, None], 0.5)):
        for quantity in QUANTITIES:
            assert_close(getattr(one, quantity)(x, noise), getattr(gauss, quantity)(x, noise), **EXACT)
        product = one.posterior_cov_product(x, noise, v)
        assert_close(product, gauss.posterior_cov_product(x, noise, v), **EXACT)
        assert_close(one.log_responsibilities(x, noise), torch.zeros(5, 1).double())
    for start, end in itertools.permutations(LEVELS, 2):
        assert_close(one.flow(x, start, end), gauss.flow(x, start, end), **EXACT)
    some = Noise(1.0, torch.tensor([[0.0, 0.0, 0.5, 0.5, 1.0, 2.0]]))
    for noise in (some, CLEAN):  # one component needs no density, so that it may be singular
        assert_close(one.denoise(x, noise), gauss.denoise(x, noise), **EXACT)


def test_one_component_per_sample_is_the_ideal_machine(cloud, x, mixed, randn):
    ideal, v = Ideal.fit(cloud), randn(5, D)
    by_label = Mixture.fit(cloud, by="labels", labels=torch.arange(40))
    drawn = Mixture.fit(cloud, k=40, rng=seeded())
    assert {len(c.lam) for c in drawn.components} == {0}
    for noise in (Noise(0.8, 0.6), Noise(1.0, 0.3), Noise(0.0, 1.0), mixed):
        for machine, quantity in itertools.product((by_label, drawn), QUANTITIES):
            assert_close(getattr(machine, quantity)(x, noise), getattr(ideal, quantity)(x, noise), **EXACT)
        assert_close(drawn.posterior_cov_product(x, noise, v), ideal.posterior_cov_product(x, noise, v), **EXACT)
        assert_close(by_label.log_responsibilities(x, noise), ideal.log_weights(x, noise), **EXACT)


def test_equal_components_are_one(cloud, x, mixed):
    gauss = Gaussian.fit(cloud, rank=3)
    machine = Mixture(torch.tensor([0.2, 0.5, 0.3]).double(), (gauss,) * 3)
    for noise in (*LEVELS, mixed):
        assert_close(machine.denoise(x, noise), gauss.denoise(x, noise))
        assert_close(machine.log_responsibilities(x, noise).exp(), machine.weights.expand(5, 3))


# The mixture against dense formulas -----------------------------------------------------------------------------


def test_density_and_responsibilities_are_those_of_the_dense_law(machine, x, mixed):
    for noise in (*LEVELS, mixed):
        law = dense(machine, noise, x)
        assert_close(machine.log_density(x, noise), law.log_prob(x))
        joint = law.component_distribution.log_prob(x[:, None]) + machine.weights.log()
        assert_close(machine.log_responsibilities(x, noise), joint.log_softmax(1))


def test_score_is_the_gradient_and_its_jacobian_is_symmetric(machine, x, mixed):
    for noise in (*LEVELS, mixed):
        point = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(machine.log_density(point, noise).sum(), point)
        assert_close(machine.score(x, noise), gradient, rtol=1e-9, atol=1e-10)
    for noise in (Noise(0.8, 0.6), Noise(1.0, torch.linspace(0.2, 2, D)[None])):
        jacobian = torch.func.jacrev(machine.score)(x[:1], noise)[0, :, 0]
        assert_close(jacobian, jacobian.T, rtol=1e-9, atol=1e-10)


def test_posterior_covariance_is_the_jacobian_product(machine, x, mixed, randn):
    v = randn(5, D)
    for noise in (*LEVELS[:3], mixed):
        expected = Machine.posterior_cov_product(machine, x, noise, v)
        assert_close(machine.posterior_cov_product(x, noise, v), expected, rtol=1e-9, atol=1e-10)


def test_without_signal_the_prior_is_left(machine, cloud, x, randn):
    v, moments = randn(5, D), Moments.of(cloud)
    for noise in (Noise(0.0, 2.0), Noise(torch.zeros(1, D), 2.0)):
        assert_close(machine.denoise(x, noise), moments.mean.expand(5, D))
        assert_close(machine.posterior_cov_product(x, noise, v), v @ moments.cov)
        assert_close(machine.log_responsibilities(x, noise).exp(), machine.weights.expand(5, 3))


def test_the_error_is_orthogonal_to_every_function(machine, randn, rng):
    """E[(x0 - D(x)) g(x)] = 0 for draws from the mixture itself, within five standard errors."""
    draws, noise = 40000, Noise(0.8, 0.6)
    which = torch.multinomial(machine.weights, draws, replacement=True, generator=rng)
    mean = torch.stack([c.mean for c in machine.components])[which]
    root = torch.stack([c.U * c.lam.sqrt() for c in machine.components])[which]
    x0 = mean + torch.einsum("nij,nj->ni", root, randn(draws, D))
    x = noise.add(x0, randn(draws, D))
    error = x0 - machine.denoise(x, noise)
    for g in (torch.ones_like(x), x, x.tanh(), x.roll(1, 1) * x, machine.denoise(x, noise)):
        product = error * g
        assert (product.mean(0).abs() < 5 * product.std(0) / math.sqrt(draws)).all()


@pytest.mark.parametrize("seen", [(0,), (1, 4), (0, 1, 2, 3, 4, 5)])
def test_no_noise_on_some_components_is_exact_conditioning(blobs, rand, seen):
    """First weigh the components by the density of what is seen, then by that of the rest given what is seen."""
    machine = Mixture.fit(blobs, k=3, rng=seeded())
    alpha, sigma = 0.5 + rand(D) / 2, 0.3 + rand(D)
    sigma[list(seen)] = 0
    x = alpha * blobs[7] + 0.3 * sigma
    known, other, logits, means = sigma == 0, sigma > 0, [], []
    for weight, c in zip(machine.weights, machine.components, strict=True):
        first = torch.distributions.MultivariateNormal(c.mean[known], c.cov[known][:, known])
        logit = weight.log() + first.log_prob(x[known] / alpha[known])
        gain = c.cov[:, known] @ torch.linalg.inv(c.cov[known][:, known])
        mean, cov = c.mean + gain @ (x[known] / alpha[known] - c.mean[known]), c.cov - gain @ c.cov[known]
        if other.any():
            noisy = alpha[other, None] * cov[other][:, other] * alpha[other] + torch.diag(sigma[other] ** 2)
            logit += torch.distributions.MultivariateNormal(alpha[other] * mean[other], noisy).log_prob(x[other])
            shift = x[other] - alpha[other] * mean[other]
            mean = mean + cov[:, other] * alpha[other] @ torch.linalg.solve(noisy, shift)
        logits.append(logit)
        means.append(mean)
    log_w = torch.stack(logits).log_softmax(0)
    noise, tight = Noise(alpha[None], sigma[None]), {"rtol": 1e-8, "atol": 1e-9}
    assert_close(machine.log_responsibilities(x[None], noise)[0], log_w, **tight)
    assert_close(machine.denoise(x[None], noise)[0], log_w.exp() @ torch.stack(means), **tight)
    batch = Noise(alpha.expand(2, D), torch.stack([sigma, sigma + 1]))  # sigma 0 in one image only
    assert_close(machine.denoise(x.expand(2, D), batch)[:1], machine.denoise(x[None], noise), **tight)


def test_conditioning_is_the_limit_of_small_noise(blobs, x):
    machine = Mixture.fit(blobs, k=3, rng=seeded())
    sigma = torch.tensor([[0.0, 0.0, 0.5, 0.5, 1.0, 2.0]]).double()
    small = Noise(1.0, sigma.clamp(min=1e-7))
    assert_close(machine.denoise(x, Noise(1.0, sigma)), machine.denoise(x, small), rtol=1e-5, atol=1e-5)
    assert_close(machine.denoise(x, Noise(0.5, 0.0)), 2 * x)


@pytest.mark.parametrize("options", [{"rank": 2, "remainder": "drop"}, {"k": 40}], ids=str)
def test_conditioning_where_the_covariance_is_singular_is_refused(cloud, x, options):
    machine = Mixture.fit(cloud, **{"k": 3, "rng": seeded(), **options})
    for noise in (CLEAN, Noise(1.0, torch.tensor([[0.0, 0.0, 0.0, 0.0, 1.0, 1.0]]))):
        with pytest.raises(ValueError, match="is singular"):
            machine.denoise(x, noise)


def test_everything_is_finite_far_away_and_at_little_noise(cloud, x, randn):
    for options in ({}, {"rank": 2}, {"rank": 2, "remainder": "drop"}):
        machine = Mixture.fit(cloud, k=3, rng=seeded(), **options)
        for distance, sigma, dtype in itertools.product((1.0, 1e6), (1e-9, 1e-3, 1e6), (torch.float32, torch.float64)):
            far = (distance * x).to(dtype)
            for noise in (Noise(1.0, sigma), Noise(1.0, torch.full((1, D), sigma, dtype=dtype))):
                assert machine.denoise(far, noise).isfinite().all()
                assert machine.posterior_cov_product(far, noise, far).isfinite().all()
                assert_close(machine.log_responsibilities(far, noise).exp().sum(1), torch.ones(5, dtype=dtype))


def test_where_every_density_underflows_the_prior_weighs(machine, x):
    far, noise = 1e200 * x, Noise(1.0, 1.0)
    assert_close(machine.log_responsibilities(far, noise).exp(), machine.weights.expand(5, 3))
    assert machine.denoise(far, noise).isfinite().all()


def test_a_batch_is_its_images_one_by_one(machine, x, mixed):
    prior = torch.rand(5, 3, generator=seeded()).double().softmax(1)
    own = Mixture(prior, machine.components)
    for quantity in (*QUANTITIES, "log_responsibilities"):
        whole = getattr(own, quantity)(x, mixed)
        for b in range(5):
            noise = Noise(mixed.alpha[b : b + 1], mixed.sigma[b : b + 1])
            alone = Mixture(prior[b], machine.components)
            assert_close(getattr(alone, quantity)(x[b : b + 1], noise)[0], whole[b], rtol=1e-10, atol=1e-12)


def test_to_moves_the_components(machine, x):
    low = machine.to(torch.float32)
    assert {t.dtype for c in low.components for t in (c.mean, c.lam, c.U, c.rest)} == {torch.float32}
    assert low.weights.dtype == torch.float32
    assert_close(low.denoise(x, LEVELS[0]), machine.denoise(x, LEVELS[0]), rtol=1e-5, atol=1e-5)


# Flow and classes -----------------------------------------------------------------------------------------------


def test_each_image_flows_with_its_most_probable_component(machine, cloud, randn):
    start, end = Noise(torch.linspace(0.2, 1, 40)[:, None].double(), 0.4), Noise(1.0, 0.1)
    x = start.add(cloud, randn(40, D))
    best = machine.log_responsibilities(x, start).argmax(1)
    assert len(best.unique()) == 3
    moved = machine.flow(x, start, end)
    for b, k in enumerate(best.tolist()):
        alone = machine.components[k].flow(x[b : b + 1], Noise(start.alpha[b].item(), 0.4), end)
        assert_close(moved[b : b + 1], alone, **EXACT)


def test_the_flow_solves_the_probability_flow_between_far_components(randn):
    """Two clusters forty deviations apart: from sigma = 1 on, one component has all the responsibility."""
    data = torch.cat([0.5 * randn(30, D) - 20, randn(30, D) + 20])
    machine = Mixture.fit(data, k=2, rng=seeded())
    levels = edm_levels(400, sigma_min=0.05, sigma_max=1.0)[:-1]
    x = data[::10] + randn(6, D)
    solved = sample(machine, x, levels, heun)
    assert_close(machine.flow(x, levels[0], levels[-1]), solved, rtol=1e-4, atol=1e-4)


def test_the_flow_refuses_what_it_cannot_do(machine, x):
    with pytest.raises(ValueError, match="sigma of the start is 0"):
        machine.flow(x, CLEAN, Noise(1.0, 1.0))
    with pytest.raises(ValueError, match="differs between components"):
        machine.flow(x, Noise(1.0, torch.ones(1, D)), CLEAN)
    with pytest.raises(ValueError, match=r"sigma has shape \(3, 1\)"):
        machine.flow(x, Noise(1.0, 2.0), Noise(1.0, torch.ones(3, 1)))
    with pytest.raises(ValueError, match="expected a Noise"):
        machine.flow(x, Noise(1.0, 2.0), 1.0)


def test_given_labels_each_image_has_its_own_component(machine, x, mixed, randn):
    labels, v = torch.tensor([2, 0, 1, 2, 0]), randn(5, D)
    known = machine.given(labels)
    for noise in (*LEVELS, mixed):
        for b, k in enumerate(labels.tolist()):
            one = machine.components[k]
            level = Noise(*(a[b : b + 1] if a.shape[0] > 1 else a for a in noise.on(x)))
            for quantity in QUANTITIES:
                assert_close(getattr(known, quantity)(x, noise)[b], getattr(one, quantity)(x[b : b + 1], level)[0])
            product = known.posterior_cov_product(x, noise, v)[b]
            assert_close(product, one.posterior_cov_product(x[b : b + 1], level, v[b : b + 1])[0])
    assert_close(known.denoise(x, CLEAN), x)


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (torch.tensor([0, 3]), "from 0 to 3, expected components 0 to 2"),
        (torch.tensor([-1, 0]), "from -1 to 0"),
        (torch.tensor([0.0, 1.0]), "float32"),
        (torch.zeros(2, 1, dtype=torch.long), r"shape \(2, 1\)"),
        ([0, 1], "the labels are a list"),
    ],
)
def test_labels_that_are_no_components_are_refused(machine, labels, match):
    with pytest.raises(ValueError, match=match):
        machine.given(labels)


def test_weights_for_another_batch_are_refused(machine, x):
    for quantity in ("denoise", "log_density", "log_responsibilities"):
        with pytest.raises(ValueError, match="weights for 2 images and x has 5"):
            getattr(machine.given(torch.tensor([0, 1])), quantity)(x, LEVELS[0])


# Fitting by clusters and labels ---------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["kmeans", "labels"])
def test_components_have_the_moments_of_their_members(blobs, by):
    assigned = kmeans(blobs, 4, seeded()) if by == "kmeans" else torch.arange(180) % 4
    chosen = {"k": 4, "rng": seeded()} if by == "kmeans" else {"by": by, "labels": 10 - assigned}
    machine = Mixture.fit(blobs, **chosen)
    order = range(4) if by == "kmeans" else range(3, -1, -1)  # component 0 belongs to the smallest label
    for component, weight, i in zip(machine.components, machine.weights, order, strict=True):
        moments = Moments.of(blobs[assigned == i])
        assert_close(weight.item(), moments.count / 180)
        assert_close(component.mean, moments.mean)
        assert_close(component.cov, moments.cov)


@pytest.mark.parametrize("rank", [None, 1, 3, 9, 40])
@pytest.mark.parametrize("remainder", ["isotropic", "drop"])
def test_few_samples_in_many_dimensions_give_the_same_gaussian(randn, rank, remainder):
    """Clusters of 1, 10, 25 and 50 samples in 40 dimensions: the first two never see a D x D matrix."""
    data, labels = randn(86, 1, 5, 8), torch.tensor([0] + [1] * 10 + [2] * 25 + [3] * 50)
    machine = Mixture.fit(data, rank=rank, by="labels", labels=labels, remainder=remainder)
    for i, component in enumerate(machine.components):
        assert_close(component.cov, Gaussian.fit(data[labels == i], rank, remainder).cov, rtol=1e-9, atol=1e-12)
        assert component.shape == (1, 5, 8)
    assert [len(c.lam) for c in machine.components[:2]] == [0, min(rank or 9, 9)]


def test_isotropic_keeps_the_variance_that_drop_loses(blobs):
    total = Moments.of(blobs).cov.trace()

    def variance(remainder, rank):
        machine = Mixture.fit(blobs, k=3, rank=rank, rng=seeded(), remainder=remainder)
        mean = torch.stack([c.mean for c in machine.components]) - blobs.mean(0)
        spread = torch.stack([c.cov.trace() for c in machine.components]) + mean.square().sum(1)
        return machine.weights @ spread

    lost = [total - variance("drop", rank) for rank in range(1, D + 1)]
    for rank in range(1, D + 1):
        assert_close(variance("isotropic", rank), total)
    assert all(now > 1.1 * nxt for now, nxt in itertools.pairwise(lost[:-1]))
    assert lost[-2] > 1e-3
    assert abs(lost[-1]) < 1e-12


def test_kmeans_is_deterministic_and_lowers_the_inertia(blobs):
    assert torch.equal(kmeans(blobs, 5, seeded()), kmeans(blobs, 5, seeded()))
    assert not torch.equal(kmeans(blobs, 5, seeded(1)), kmeans(blobs, 5, seeded(2)))

    def inertia(passes):
        assigned = kmeans(blobs, 5, seeded(3), passes, tolerance=0.0)
        return sum(Moments.of(blobs[assigned == i]).scatter.trace().item() for i in range(5))

    course = [inertia(passes) for passes in range(1, 12)]
    assert course == sorted(course, reverse=True)
    assert course[0] > course[-1]
    assert inertia(50) == inertia(100)


@pytest.mark.parametrize("seed", range(3))
def test_kmeans_is_that_of_scikit_learn_from_the_same_start(blobs, seed):
    start = kmeans_plusplus(blobs, 5, seeded(seed))
    theirs = KMeans(5, init=start.numpy(), n_init=1, tol=0, algorithm="lloyd").fit(blobs.numpy())
    ours = kmeans(blobs, 5, seeded(seed), tolerance=0.0)
    assert torch.equal(ours, torch.from_numpy(theirs.labels_).long())


def test_the_start_prefers_far_samples(randn):
    """k-means++ over four distant clusters draws one sample of each; uniform draws would succeed one time in ten."""
    data = 50.0 * torch.arange(4).repeat_interleave(20)[:, None] + 0.1 * randn(80, 2)
    for seed in range(20):
        chosen = kmeans_plusplus(data, 4, seeded(seed))
        assert sorted((chosen[:, 0] / 50).round().int().tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize(("scale", "dtype"), [(1e-4, torch.float16), (1e25, torch.float32)])
def test_the_scale_of_the_data_is_no_matter(blobs, scale, dtype):
    """Squared distances leave the range of these types."""
    low = (blobs[::4] * scale).to(dtype)
    exact = low.double() / scale
    assert torch.equal(kmeans(low, 5, seeded()), kmeans(exact, 5, seeded()))


def test_clusters_merge(blobs, rng):
    centres = blobs[::40]
    whole = Clusters.of(blobs, centres)
    order = torch.randperm(180, generator=rng)
    parts = [Clusters.of(part, centres) for part in blobs[order].split((0, 1, 79, 0, 100))]
    for merged in (reduce(Clusters.merge, parts), reduce(Clusters.merge, parts[::-1])):
        assert torch.equal(merged.count, whole.count)
        assert_close(merged.total, whole.total)
        assert_close(merged.inertia, whole.inertia)
    index = nearest(blobs, centres)
    assert_close(whole.inertia, torch.cdist(blobs, centres).amin(1).square().sum())
    assert_close(whole.means(centres), torch.stack([blobs[index == i].mean(0) for i in range(5)]))


@pytest.mark.parametrize("by", ["kmeans", "labels", "em"])
def test_batches_fit_like_one_tensor(blobs, x, by):
    chosen = {"labels": torch.arange(180) % 3} if by == "labels" else {"k": 3, "rng": None}
    fits = []
    for data in (blobs, list(blobs.split((1, 0, 100, 79))), list(blobs.split(7))):
        rng = {"rng": seeded()} if "rng" in chosen else {}
        fits.append(Mixture.fit(data, rank=2, by=by, **{**chosen, **rng}))
    for machine in fits[1:]:
        assert_close(machine.log_density(x, LEVELS[0]), fits[0].log_density(x, LEVELS[0]))
        assert_close(machine.denoise(x, LEVELS[0]), fits[0].denoise(x, LEVELS[0]))


# Expectation and maximisation -----------------------------------------------------------------------------------


def joint(machine, data):
    """log p(y_i, component k), by torch.distributions."""
    law = dense(machine, CLEAN, data)
    return law.component_distribution.log_prob(data[:, None]) + machine.weights.log()


def log_likelihood(machine, data):
    return joint(machine, data).logsumexp(1).sum().item()


def passes_of_em(data, rank, floor, options):
    """Yield (mixture, log-likelihood) pass by pass, from the same start as the fit, with densities from elsewhere."""
    start = Mixture.fit(data, rank=rank, rng=seeded(1), **options)
    machine = Mixture(start.weights, tuple(raised(c, floor) for c in start.components))
    for _ in range(options["passes"] + 1):
        soft = SoftMoments.of(data, joint(machine, data))
        yield machine, soft.log_likelihood.item()
        machine = Mixture(soft.weights, soft.gaussians(rank, floor))


@pytest.mark.parametrize("rank", [None, 1, 3])
def test_em_raises_the_likelihood_in_every_pass(blobs, rank):
    data = torch.cat([blobs, blobs[:3].repeat(5, 1)])  # repeated samples lead a component to the floor
    data[:, 2] = 0.3  # a value that never varies is at the floor from the start
    options = {"k": 4, "passes": 30, "tolerance": 0.0}
    machines, course = zip(*passes_of_em(data, rank, 1e-4, options), strict=True)
    assert all(later >= sooner - 1e-10 * abs(sooner) for sooner, later in itertools.pairwise(course))
    assert course[-1] > course[0] + 1
    assert all(min(c.lam.min(), c.rest) >= 1e-4 for machine in machines for c in machine.components)
    fitted = Mixture.fit(data, rank=rank, rng=seeded(1), by="em", floor=1e-4, **options)
    assert log_likelihood(fitted, data) == pytest.approx(course[-1], rel=1e-8)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-3, 1e-5])
def test_em_stops_when_a_pass_gains_little(blobs, tolerance):
    options = {"k": 4, "passes": 100, "tolerance": tolerance}
    _, course = zip(*passes_of_em(blobs, 1, 1e-4, options), strict=True)
    last = next(i for i in range(1, 101) if course[i] - course[i - 1] <= tolerance * abs(course[i]))
    fitted = Mixture.fit(blobs, rank=1, rng=seeded(1), by="em", floor=1e-4, **options)
    assert log_likelihood(fitted, blobs) == pytest.approx(course[last], rel=1e-10)


@pytest.mark.parametrize(("k", "size"), [(3, 6), (2, 16)])
def test_em_is_that_of_scikit_learn_from_the_same_start(randn, k, size):
    """scikit-learn adds reg_covar to every variance in each pass, so it is 0; our floor binds nowhere on these data."""
    data = torch.cat(
        [randn(90, size) @ (torch.eye(size) + 0.3 * randn(size, size)) + 1.2 * randn(size) for _ in range(k)]
    )
    options = {"k": k, "rng": None, "passes": 15, "tolerance": 0.0, "floor": 1e-9}
    start = Mixture.fit(data, **{**options, "rng": seeded()})
    ours = Mixture.fit(data, by="em", **{**options, "rng": seeded()})
    theirs = GaussianMixture(
        k,
        tol=0.0,
        reg_covar=0.0,
        max_iter=15,
        weights_init=start.weights.numpy(),
        means_init=torch.stack([c.mean for c in start.components]).numpy(),
        precisions_init=torch.stack([torch.linalg.inv(c.cov) for c in start.components]).numpy(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fifteen passes are what both are given
        theirs.fit(data.numpy())
    tight = {"rtol": 1e-8, "atol": 1e-8}
    assert theirs.n_iter_ == 15
    assert (ours.components[0].mean - start.components[0].mean).abs().max() > 1e-3
    assert_close(ours.weights, torch.from_numpy(theirs.weights_), **tight)
    assert_close(torch.stack([c.mean for c in ours.components]), torch.from_numpy(theirs.means_), **tight)
    assert_close(torch.stack([c.cov for c in ours.components]), torch.from_numpy(theirs.covariances_), **tight)
    assert log_likelihood(ours, data) == pytest.approx(theirs.score(data.numpy()) * len(data), rel=1e-10)
    regular = theirs.set_params(reg_covar=1e-2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        assert regular.fit(data.numpy()).score(data.numpy()) * len(data) < log_likelihood(ours, data) - 0.1


@pytest.mark.parametrize("rank", [None, 2])
def test_em_with_one_component_is_the_gaussian(cloud, rank):
    machine = Mixture.fit(cloud, k=1, rank=rank, by="em", rng=seeded())
    assert_close(machine.components[0].cov, Gaussian.fit(cloud, rank).cov)


@pytest.mark.parametrize(("rank", "floor"), [(1, 1e-9), (3, 1e-9), (2, 0.2), (D, 0.1)])
def test_no_gaussian_of_this_rank_has_greater_likelihood(cloud, randn, rank, floor):
    """The maximisation against random neighbours U diag(lam) U^T + rest (I - U U^T), lam >= rest >= floor."""
    soft = SoftMoments.of(cloud, torch.zeros(40, 1).double())
    (best,) = soft.gaussians(rank, floor)
    cov = Moments.of(cloud).cov

    def expected(sigma):
        return -(torch.logdet(sigma) + torch.linalg.solve(sigma, cov).trace()) / 2

    top = expected(best.cov)
    for step in torch.logspace(-3, 0, 200).tolist():
        U = torch.linalg.qr(best.U + step * randn(D, rank)).Q
        rest = (best.rest * (step * randn(1)).exp()).clamp(min=floor)
        lam = (best.lam * (step * randn(rank)).exp()).clamp(min=rest)
        other = (U * (lam - rest)) @ U.T + rest * torch.eye(D).double()
        assert expected(other) < top + 1e-12


def test_em_finds_the_law_that_made_the_data(randn, rng):
    """Two overlapping planes in four dimensions, 20000 draws: the parameters come back within sampling error."""
    U = [torch.linalg.qr(randn(4, 1)).Q for _ in range(2)]
    mean, lam, rest, share = torch.tensor([[1.0], [-1.0]]).double().expand(2, 4), (2.0, 0.7), (0.1, 0.3), 0.3
    which = (torch.rand(20000, generator=rng) > share).long()
    line, noise = randn(20000, 1), randn(20000, 4)
    parts = [
        mean[i] + (lam[i] - rest[i]) ** 0.5 * line * U[i].T + rest[i] ** 0.5 * noise  # variances lam and rest
        for i in range(2)
    ]
    data = torch.where(which[:, None] == 0, parts[0], parts[1])
    machine = Mixture.fit(data, k=2, rank=1, by="em", rng=rng, tolerance=1e-8, passes=200)
    order = sorted(range(2), key=lambda i: -machine.components[i].mean[0])
    for i, k in enumerate(order):
        c = machine.components[k]
        assert_close(c.mean, mean[i], rtol=0, atol=0.05)
        assert c.lam.item() == pytest.approx(lam[i], rel=0.06)
        assert c.rest.item() == pytest.approx(rest[i], rel=0.06)
        assert (c.U * U[i]).sum().abs() > 0.995
    assert machine.weights[order[0]].item() == pytest.approx(share, abs=0.02)


def test_soft_moments_merge(blobs, rng, randn):
    logits = randn(180, 3)
    whole = SoftMoments.of(blobs, logits)
    weights = logits.softmax(1).T
    for k, w in enumerate(weights):
        mean = w @ blobs / w.sum()
        assert_close(whole.mean[k], mean)
        assert_close(whole.scatter[k], torch.einsum("n,ni,nj->ij", w, blobs - mean, blobs - mean))
    assert_close(whole.weights, weights.mean(1))
    assert_close(whole.log_likelihood, logits.logsumexp(1).sum())
    order = torch.randperm(180, generator=rng)
    pieces = zip(*(t[order].split((0, 1, 79, 0, 100)) for t in (blobs, logits)), strict=True)
    parts = [SoftMoments.of(*piece) for piece in pieces]
    left, right = reduce(SoftMoments.merge, parts), parts[1].merge(parts[4].merge(parts[2].merge(parts[0])))
    for merged in (left, right):
        for name in ("mass", "mean", "scatter", "log_likelihood"):
            assert_close(getattr(merged, name), getattr(whole, name))


def test_a_component_without_mass_is_refused(cloud):
    logits = torch.zeros(40, 2).double()
    logits[:, 1] = -torch.inf
    with pytest.raises(ValueError, match="component 1 is empty"):
        SoftMoments.of(cloud, logits).gaussians(None, 1e-6)


# Refusals -------------------------------------------------------------------------------------------------------

LABELS = torch.arange(40) % 3


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"k": 41}, "k is 41, expected a whole number from 1 to the 40 samples"),
        ({"k": 0}, "k is 0"),
        ({"k": None}, "k is None"),
        ({"k": 2.0}, r"k is 2\.0"),
        ({"k": True}, "k is True"),
        ({"rank": 7}, "rank is 7, expected a whole number from 1 to the dimension 6"),
        ({"rank": 0}, "rank is 0"),
        ({"by": "classes"}, "by is 'classes'"),
        ({"remainder": "keep"}, "remainder is 'keep'"),
        ({"by": "em", "remainder": "drop"}, "leaves no density"),
        ({"rng": None}, "rng is a NoneType, but the start is drawn"),
        ({"by": "em", "rng": 0}, "rng is a int"),
        ({"passes": 0}, "passes is 0"),
        ({"by": "em", "passes": 2.5}, r"passes is 2\.5"),
        ({"tolerance": -1e-3}, r"tolerance is -0\.001"),
        ({"by": "em", "tolerance": math.nan}, "tolerance is nan"),
        ({"by": "em", "floor": 0.0}, r"floor is 0\.0"),
        ({"labels": LABELS}, "give labels with"),
        ({"by": "labels"}, "give labels with"),
        ({"by": "labels", "labels": LABELS, "k": 4}, "k is 4 and the labels have 3"),
        ({"by": "labels", "labels": LABELS[:39], "k": None}, "39 labels and 40 samples"),
        ({"by": "labels", "labels": LABELS.float(), "k": None}, "float32"),
        ({"by": "labels", "labels": LABELS > 0, "k": None}, "bool"),
        ({"by": "labels", "labels": LABELS[:, None], "k": None}, r"shape \(40, 1\)"),
        ({"by": "labels", "labels": LABELS.tolist(), "k": None}, "the labels are a list"),
    ],
)
def test_impossible_fits_are_refused(cloud, options, match):
    with pytest.raises(ValueError, match=match) as error:
        Mixture.fit(cloud, **{"k": 3, "rng": seeded(), **options})
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)


def test_an_iterator_is_refused_before_it_is_read(cloud):
    batches = iter(cloud.split(7))
    for options in ({"k": 3, "rng": seeded()}, {"by": "labels", "labels": LABELS}):
        with pytest.raises(ValueError, match="read only once"):
            Mixture.fit(batches, **options)
    assert len(list(batches)) == 6


def test_clusters_that_cannot_be_sought_are_refused(cloud):
    with pytest.raises(ValueError, match="read only once"):
        kmeans(iter([cloud]), 3, seeded())
    with pytest.raises(ValueError, match="k is 0"):
        kmeans(cloud, 0, seeded())
    with pytest.raises(ValueError, match="rng is a NoneType"):
        kmeans(cloud, 3, None)


def test_too_few_different_samples_are_refused(cloud):
    with pytest.raises(ValueError, match="cluster 2 is empty, since the data hold only 2 different samples"):
        Mixture.fit(cloud[:2].repeat(5, 1), k=3, rng=seeded())


def test_a_cluster_that_stays_empty_is_refused(cloud):
    with pytest.raises(ValueError, match="cluster 1 is empty"):
        occupied(torch.tensor([0, 2, 0]), 3)
    statistic = Clusters.of(cloud, torch.cat([cloud[:2], torch.full((1, D), 99.0)]).double())
    assert statistic.count[2] == 0
    assert_close(statistic.means(torch.ones(3, D).double())[2], torch.ones(D).double())
