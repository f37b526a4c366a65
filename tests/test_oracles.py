"""Identities between machines: changes of coordinates, limits, optimality, schedules, brute-force regression."""

import math
import warnings

import numpy as np
import pytest
import pywt
import torch
from torch.testing import assert_close

from scoremachines import Gaussian, Ideal, Noise, edm_levels, sample
from scoremachines.bases import DCT, Fourier, Pixel, Wavelet
from scoremachines.polynomial import WaveletPolynomial
from scoremachines.stencils import FAMILIES

D = 6


# Changes of coordinates -----------------------------------------------------------------------------------------


@pytest.mark.quantities("log_density", shape=(D,))
def test_isotropic_machines_commute_with_every_orthonormal_basis(fit, cloud, x, randn):
    Q = torch.linalg.qr(randn(D, D)).Q
    for noise in (Noise(0.8, 0.6), Noise(1.0, 0.2), Noise(torch.linspace(0.1, 1, 5)[:, None], 0.9)):
        here, there = fit(cloud), fit(cloud @ Q)
        assert_close(there.denoise(x @ Q, noise), here.denoise(x, noise) @ Q)
        assert_close(there.log_density(x @ Q, noise), here.log_density(x, noise))


@pytest.mark.quantities("log_density", shape=(D,))
def test_a_shift_of_the_data_shifts_the_answer(fit, cloud, x):
    shift, noise = torch.linspace(-1, 1, D).double(), Noise(0.8, 0.6)
    moved = fit(cloud + shift).denoise(x + 0.8 * shift, noise)
    assert_close(moved, fit(cloud).denoise(x, noise) + shift)


@pytest.mark.quantities("log_density", shape=(D,))
def test_only_the_noise_to_signal_ratio_matters(fit, cloud, x):
    machine = fit(cloud)
    for scale in (0.1, 3.0):
        assert_close(machine.denoise(scale * x, Noise(scale, 0.7 * scale)), machine.denoise(x, Noise(1.0, 0.7)))


# From ideal to Gaussian: the third cumulant ---------------------------------------------------------------------


@pytest.fixture
def triangle():
    """Four points in the plane, asymmetric, with weights by repetition."""
    return torch.tensor([[1.0, 0.0], [-0.4, 0.9], [-0.4, 0.9], [0.1, -1.0]], dtype=torch.float64)


def gap(cloud, sigma, nodes=40):
    """E |D_ideal - D_gauss|^2 over x = y + sigma z, by Gauss-Hermite quadrature in the plane."""
    z, w = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(nodes))
    grid, weights = torch.cartesian_prod(z, z), torch.outer(w, w).flatten() / (2 * math.pi)
    noise = Noise(1.0, sigma)
    ideal, gauss = Ideal.fit(cloud), Gaussian.fit(cloud)
    x = cloud.repeat_interleave(len(grid), 0) + sigma * grid.repeat(len(cloud), 1)
    square = (ideal.denoise(x, noise) - gauss.denoise(x, noise)).square().sum(1)
    return (square * weights.repeat(len(cloud))).sum() / len(cloud)


def third_cumulant(cloud):
    v = cloud - cloud.mean(0)
    return torch.einsum("ni,nj,nk->ijk", v, v, v) / len(cloud)


def test_third_cumulant_norm_by_pairs(cloud):
    """|K3|^2 = mean over all pairs (v . v')^3, the diagonal included."""
    v = cloud - cloud.mean(0)
    assert_close((v @ v.T).pow(3).mean(), third_cumulant(cloud).square().sum())


def test_ideal_tends_to_gaussian_with_the_third_cumulant_law(triangle):
    """E |D_ideal - D_gauss|^2 = |K3|^2 / (2 sigma^4) (1 + O(sigma^-2))."""
    norm = third_cumulant(triangle).square().sum()
    error = [abs(gap(triangle, sigma) * 2 * sigma**4 / norm - 1).item() for sigma in (8.0, 16.0, 32.0)]
    assert error[0] < 0.1
    assert error[1] / error[0] == pytest.approx(1 / 4, rel=0.15)
    assert error[2] / error[1] == pytest.approx(1 / 4, rel=0.15)


def test_a_symmetric_cloud_is_closer_to_gaussian(triangle):
    symmetric = torch.cat([triangle, -triangle])
    assert_close(third_cumulant(symmetric - symmetric.mean(0)).norm(), torch.zeros(()).double())
    assert gap(symmetric, 16.0) < gap(triangle, 16.0) / 30


# Optimality -----------------------------------------------------------------------------------------------------


def test_ideal_error_is_orthogonal_to_everything(cloud, randn, rng):
    """E[(x0 - D(x)) g(x)] = 0 for any g, within five standard errors."""
    noise, draws = Noise(0.8, 0.6), 40000
    x0 = cloud[torch.randint(len(cloud), (draws,), generator=rng)]
    x = noise.add(x0, randn(draws, D))
    error = x0 - Ideal.fit(cloud).denoise(x, noise)
    for g in (torch.ones_like(x), x, x.tanh(), x.roll(1, 1) * x, (x.norm(dim=1, keepdim=True) > 1.5).double()):
        product = error * g
        assert (product.mean(0).abs() < 5 * product.std(0) / math.sqrt(draws)).all()


def test_no_denoiser_beats_the_ideal_one_on_its_data(cloud):
    """The Gaussian error exceeds the ideal one by E |D_gauss - D_ideal|^2, by quadrature in the plane."""
    noise = Noise(1.0, 0.5)
    plane = cloud[:6, :2].contiguous()
    z, w = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(60))
    grid, weights = torch.cartesian_prod(z, z), (torch.outer(w, w).flatten() / (2 * math.pi)).repeat(6) / 6
    x0 = plane.repeat_interleave(len(grid), 0)
    x = noise.add(x0, grid.repeat(6, 1))
    ideal, gauss = (machine.fit(plane).denoise(x, noise) for machine in (Ideal, Gaussian))
    errors = [((d - x0).square().sum(1) * weights).sum() for d in (ideal, gauss)]
    assert_close(errors[1] - errors[0], ((ideal - gauss).square().sum(1) * weights).sum(), rtol=1e-4, atol=0)


# Schedules at matched signal-to-noise ratio ---------------------------------------------------------------------


@pytest.mark.quantities("log_density", shape=(D,))
@pytest.mark.parametrize("alpha", [lambda s: (1 + s**2) ** -0.5, lambda s: 1 / (1 + s), lambda s: 2 + s])
def test_schedules_at_matched_snr_give_the_same_end_points(fit, cloud, x, alpha):
    """ddim and the exact flow see only sigma / alpha, once x is divided by alpha."""
    exploding = edm_levels(12, sigma_min=0.05, sigma_max=20)
    other = [Noise(alpha(n.sigma), alpha(n.sigma) * n.sigma) for n in exploding]
    first, last = other[0], other[-1]
    machine = fit(cloud)
    expected = sample(machine, 20 * x, exploding)
    assert_close(sample(machine, 20 * first.alpha * x, other), last.alpha * expected)
    if isinstance(machine, Gaussian):
        exact = machine.flow(20 * x, exploding[0], exploding[-1])
        assert_close(machine.flow(20 * first.alpha * x, first, last), last.alpha * exact)


@pytest.mark.parametrize("k", [1, 5, 16])
def test_a_cut_grid_is_the_shorter_grid(k):
    """Dropping the first k points of the n-point grid gives the (n - k)-point grid started there."""
    grid = edm_levels(18)
    short = edm_levels(18 - k, sigma_max=grid[k].sigma)
    assert_close([n.sigma for n in grid[k:]], [n.sigma for n in short], rtol=1e-12, atol=1e-15)


# Polynomials of noisy coefficients: raw monomials and their noisy moments, from the definition of each family ------

IMAGE = (1, 8, 8)
DB2 = Wavelet("db2", 2)
LEVELS = (Noise(0.8, 0.6), Noise(1.0, 0.1), Noise(1.0, 2.0), Noise(0.3, 0.9))
TIGHT = {"rtol": 1e-8, "atol": 1e-8}


@pytest.fixture
def images(randn):
    """Eighty skewed images of 8 x 8 with structure across pixels."""
    z = randn(80, *IMAGE)
    return 0.4 * (z.exp() + z.roll(1, -1) * z.roll(1, -2)) - 0.5


def power(*factors):
    """One monomial with weight 1, as a polynomial {exponents: weight}; the variables are numbered, 0 is the target."""
    exponents = {}
    for variable, k in factors:
        exponents[variable] = exponents.get(variable, 0) + k
    return {tuple(sorted((v, k) for v, k in exponents.items() if k)): 1.0}


def energy(others):
    """The target times the mean square of others: of centred variables, unlike the products of the paper."""
    return {((0, 1), (v, 2)): 1 / len(others) for v in others}


def brute_features(family, seen, degree=3):
    """The features of a family; seen: how its relations number the variables that a target looks at."""
    near, twins, parent, coarse = (seen.get(r, []) for r in ("neighbours", "siblings", "parent", "low-pass"))
    own = [power((0, d)) for d in range(degree + 1)]
    pairs = [
        [power((0, d), (v, e)) for v in others for d in range(1, degree) for e in range(1, degree - d + 1)]
        for others in (near, coarse)
    ]
    triples = [
        power((0, a), (twins[0], b), (twins[1], c))
        for a in range(1, degree + 1)
        for b in range(degree - a + 1)
        for c in range(degree - a - b + 1)
        if twins and b + c
    ]
    energies = {name: [energy(others)] if others and degree >= 3 else [] for name, others in seen.items()}
    return (
        own
        + {
            "independent": [],
            "band-tied": triples,
            "local": pairs[0],
            "linear-neighbours": [power((v, 1)) for v in near],
            "parent-child": [power((v, 1)) for v in parent] + energies.get("parent", []),
            "energy": [f for name in ("neighbours", "siblings", "parent") for f in energies.get(name, [])],
            "low-pass": [power((v, 1)) for v in coarse] + pairs[1],
            "combined": [power((v, 1)) for v in near + twins + parent]
            + [f for name in ("neighbours", "siblings", "parent") for f in energies.get(name, [])],
        }[family]
    )


def shifted(band):
    """A band and its eight neighbours on the torus; on 2 x 2 only three of them differ."""
    h, w = band.shape[-2:]
    steps = sorted({(a % h, b % w) for a in (-1, 0, 1) for b in (-1, 0, 1)} - {(0, 0)})
    return [band, *(band.roll((-a, -b), (-2, -1)) for a, b in steps)]


def brute_variables(z, orientation, level):
    """The variables of one band, (m, N, h, w), and their numbers by relation, from PyWavelets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # db2 reaches around an 8 x 8 image at level 2, which is legal
        arrays = pywt.wavedec2(z[:, 0].numpy(), "db2", mode="periodization", level=2)
    bands = {("A", 2): arrays[0]}
    for j, details in zip((2, 1), arrays[1:], strict=True):
        bands |= {(o, j): band for o, band in zip("HVD", details, strict=True)}
    lowpass = {2: arrays[0], 1: pywt.dwt2(z[:, 0].numpy(), "db2", mode="periodization")[0]}
    bands, lowpass = ({k: torch.from_numpy(v) for k, v in found.items()} for found in (bands, lowpass))
    relations = {"neighbours": shifted(bands[orientation, level])[1:]}
    if orientation != "A":
        relations["siblings"] = [bands[o, level] for o in "HVD" if o != orientation]
        relations["low-pass"] = shifted(lowpass[level])
        if level == 1:
            relations["parent"] = [bands[orientation, 2].repeat_interleave(2, 1).repeat_interleave(2, 2)]
    variables, seen = [bands[orientation, level]], {}
    for name, found in relations.items():
        seen[name] = list(range(len(variables), len(variables) + len(found)))
        variables += found
    return torch.stack(variables), seen


def noisy_powers(x, noise, top):
    """E over the noise of (alpha x + sigma eps)^k, k = 0..top, by the binomial formula (equation 20 of the paper)."""
    normal = [math.prod(range(1, k, 2)) if k % 2 == 0 else 0 for k in range(top + 1)]
    a, s = noise.alpha, noise.sigma
    return [sum(math.comb(k, j) * (a * x) ** (k - j) * s**j * normal[j] for j in range(k + 1)) for k in range(top + 1)]


def times(f, g):
    return [(power(*m, *n), v * w) for m, v in f.items() for n, w in g.items()]


def brute_regression(x, features, noise):
    """Weights (p, n) on raw monomials of variables x (m, N, n): one regression for each of the n targets x[0]."""
    ladder = noisy_powers(x, noise, 2 * max(k for f in features for n in f for _, k in n))

    def mean(terms, factor=1.0):
        return sum(weight * math.prod((ladder[k][v] for v, k in n), start=factor) for n, weight in terms).mean(0)

    one = torch.ones_like(x[0])
    flat = [[(n, w * v) for found, w in times(f, g) for n, v in found.items()] for f in features for g in features]
    S = torch.stack([mean(terms, one) for terms in flat], -1).unflatten(-1, (len(features),) * 2)
    c = torch.stack([mean(f.items(), x[0]) for f in features], -1)
    scale = S.diagonal(dim1=-2, dim2=-1).rsqrt()  # the units of the features; the solution does not depend on them
    weights = torch.linalg.solve(S * scale[..., None] * scale[..., None, :], (c * scale)[..., None])[..., 0] * scale
    return weights.movedim(-1, 0)


def evaluate(features, z):
    """The features (p, N, n) at variables z (m, N, n)."""
    one = torch.ones_like(z[0])
    return torch.stack(
        [sum(w * math.prod((z[v] ** k for v, k in n), start=one) for n, w in f.items()) for f in features]
    )


PAPER = ("independent", "band-tied", "local")
PLACES = {("A", 2): (0, 0, 2), ("H", 2): (2, 0, 2), ("V", 1): (0, 4, 4), ("D", 1): (4, 4, 4)}


def band_of(x, place):
    top, left, size = PLACES[place]
    return x[:, 0, top : top + size, left : left + size]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "full"])
def test_each_family_is_the_regression_on_its_raw_monomials(images, randn, family, tied):
    machine = WaveletPolynomial.fit(images, DB2, family, tied=tied)
    for noise in LEVELS[:: 3 if family in ("local", "low-pass") else 1]:
        x = noise.add(images[:7], randn(7, *IMAGE))
        D = DB2.analysis(machine.denoise(x, noise))
        for place in PLACES:
            clean, seen = brute_variables(images, *place)
            clean = clean.flatten(1)[..., None] if tied else clean.flatten(2)
            features = brute_features(family, seen)
            mean = clean.mean(1, keepdim=True) * (family not in (*PAPER, "low-pass"))
            weights = brute_regression(clean - mean, features, noise)
            noisy = brute_variables(x, *place)[0].flatten(2) - noise.alpha * mean
            expected = (weights[:, None] * evaluate(features, noisy)).sum(0) + mean[0]
            assert_close(band_of(D, place).flatten(1), expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("family", ["band-tied", "local"])
def test_degree_four_is_the_regression_on_its_raw_monomials(images, randn, family):
    """Here the target's own square is multiplied by the target once more."""
    machine, noise, place = WaveletPolynomial.fit(images, DB2, family, degree=4, tied=True), Noise(0.8, 0.6), ("V", 1)
    x = noise.add(images[:7], randn(7, *IMAGE))
    clean, seen = brute_variables(images, *place)
    features = brute_features(family, seen, degree=4)
    weights = brute_regression(clean.flatten(1)[..., None], features, noise)
    expected = (weights[:, None] * evaluate(features, brute_variables(x, *place)[0].flatten(2))).sum(0)
    assert_close(band_of(DB2.analysis(machine.denoise(x, noise)), place).flatten(1), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("family", ["band-tied", "local"])
def test_least_squares_on_sampled_noise_converges_to_the_machine(images, rng, randn, family):
    """The distance is that of a regression with p weights on n draws, p / n of the residual variance, and no less."""
    noise, place = Noise(0.8, 0.6), ("D", 1)
    machine = WaveletPolynomial.fit(images, DB2, family)
    x = noise.add(images, randn(80, *IMAGE))
    D = band_of(DB2.analysis(machine.denoise(x, noise)), place)[:, 1, 1]
    gaps = []
    for draws in (2000, 16000):
        x0 = images[torch.randint(80, (draws,), generator=rng)]
        seen = brute_variables(x0, *place)[1]
        features = brute_features(family, seen)
        noisy = brute_variables(noise.add(x0, randn(draws, *IMAGE)), *place)[0][:, :, 1, 1]
        clean = brute_variables(x0, *place)[0][0, :, 1, 1]
        weights = torch.linalg.lstsq(evaluate(features, noisy).T, clean).solution
        fitted = weights @ evaluate(features, brute_variables(x, *place)[0][:, :, 1, 1])
        gaps.append((fitted - D).square().mean() / (clean - clean.mean()).square().mean() * draws / len(features))
    assert 0.02 < gaps[0] < 3
    assert 0.02 < gaps[1] < 3


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_the_hankel_system_gives_the_same_score(images, randn, degree):
    """sum_m a_m mu_{m + r} = -r mu_{r - 1}, r = 0..D, with noisy raw moments (equations 18 to 21 of the paper)."""
    machine = WaveletPolynomial.fit(images, DB2, degree=degree).coefficient_machine
    z0 = DB2.analysis(images).flatten(1)
    for noise in LEVELS:
        mu = torch.stack([found.mean(0) for found in noisy_powers(z0, noise, 2 * degree)], 1)
        hankel = torch.stack([mu[:, r : r + degree + 1] for r in range(degree + 1)], 1)
        rhs = torch.stack([-r * mu[:, r - 1] if r else 0 * mu[:, 0] for r in range(degree + 1)], 1)
        a = torch.linalg.solve(hankel, rhs)
        z = noise.add(z0[:7], randn(7, 64))
        expected = sum(a[:, m] * z**m for m in range(degree + 1))
        assert_close(machine.score(z.unflatten(1, IMAGE), noise).flatten(1), expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("basis", [DB2, Wavelet("sym4", 1), DCT(), Fourier(), Pixel()], ids=str)
def test_degree_one_is_the_wiener_filter_of_each_coefficient(images, x, randn, basis):
    z0 = basis.analysis(images)
    mean, var = z0.mean(0), z0.var(0, correction=0)
    linear = [WaveletPolynomial.fit(images, basis, degree=1)]
    if isinstance(basis, Wavelet) and basis.levels:
        linear.append(WaveletPolynomial.fit(images, basis, "band-tied", degree=1))
    linear.append(WaveletPolynomial.fit(images, basis, "local", degree=1))
    for machine in linear:
        for noise in LEVELS:
            z = noise.add(z0[:7], randn(7, *IMAGE))
            gain = noise.alpha * var / (noise.alpha**2 * var + noise.sigma**2)
            expected = mean + gain * (z - noise.alpha * mean)
            assert_close(machine.coefficient_machine.denoise(z, noise), expected, **TIGHT)
            error = (var * noise.sigma**2 / (noise.alpha**2 * var + noise.sigma**2)).sum()
            assert_close(machine.denoising_error(noise), error, **TIGHT)


@pytest.mark.parametrize("count", [80, 5])
@pytest.mark.parametrize("basis", [DB2, DCT(), Pixel()], ids=str)
def test_the_full_family_is_the_gaussian_machine(images, randn, basis, count):
    images = images[:count]
    full, gauss = WaveletPolynomial.fit(images, basis, "full"), Gaussian.fit(images)
    for noise in (*LEVELS, Noise(torch.linspace(0.1, 1, 4).reshape(4, 1, 1, 1), 0.7)):
        x, v = noise.add(images[:4], randn(4, *IMAGE)), randn(4, *IMAGE)
        for quantity in ("denoise", "score", "eps"):
            assert_close(getattr(full, quantity)(x, noise), getattr(gauss, quantity)(x, noise), **TIGHT)
        assert_close(full.posterior_cov_product(x, noise, v), gauss.posterior_cov_product(x, noise, v), **TIGHT)
    for noise in LEVELS:
        assert_close(full.denoising_error(noise), gauss.denoising_error(noise), **TIGHT)


def test_linear_neighbours_over_the_whole_grid_are_the_gaussian_machine(images, randn):
    """Radius 4 covers 8 x 8 pixels."""
    machine, noise = WaveletPolynomial.fit(images, Pixel(), "linear-neighbours", degree=1, radius=4), Noise(0.8, 0.6)
    x = noise.add(images[:7], randn(7, *IMAGE))
    assert_close(machine.denoise(x, noise), Gaussian.fit(images).denoise(x, noise), **TIGHT)


@pytest.mark.parametrize("family", FAMILIES)
def test_variance_preserving_noise_is_variance_exploding_noise_rescaled(images, randn, family):
    machine = WaveletPolynomial.fit(images, DB2, family)
    for a in (0.05, 0.6, 4.0):
        noise, exploding = Noise(a, 0.7 * a), Noise(1.0, 0.7)
        x = noise.add(images[:7], randn(7, *IMAGE))
        assert_close(machine.denoise(x, noise), machine.denoise(x / a, exploding), **TIGHT)
        assert_close(machine.score(x, noise), machine.score(x / a, exploding) / a, **TIGHT)
        assert_close(machine.denoising_error(noise), machine.denoising_error(exploding), **TIGHT)


def test_a_rotation_of_independent_coordinates_is_a_change_of_basis(images, randn):
    """The pixel family on coefficients is the wavelet family on images."""
    x = randn(7, *IMAGE)
    here = WaveletPolynomial.fit(images, DCT()).denoise(x, Noise(0.8, 0.6))
    there = WaveletPolynomial.fit(DCT().analysis(images), Pixel()).denoise(DCT().analysis(x), Noise(0.8, 0.6))
    assert_close(DCT().analysis(here), there, **TIGHT)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_the_infinite_degree_is_the_posterior_mean_given_one_coefficient(rand, sigma):
    """The error falls with the degree towards that of the ideal machine in one dimension."""
    x0, noise = (2 * rand(60) ** 3 - 1).reshape(-1, 1, 1, 1), Noise(1.0, sigma)
    ideal = Ideal.fit(x0.reshape(-1, 1))
    z, w = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(60))
    noisy = (x0.reshape(-1, 1) + sigma * z).reshape(-1, 1)
    weights = (w / math.sqrt(2 * math.pi)).repeat(60) / 60
    best = ideal.denoise(noisy, noise)
    least = (best[:, 0] - x0.reshape(-1).repeat_interleave(60)).square() @ weights
    gaps = []
    for degree in range(1, 9):
        machine = WaveletPolynomial.fit(x0, Pixel(), degree=degree)
        D = machine.denoise(noisy.reshape(-1, 1, 1, 1), noise).reshape(-1, 1)
        gaps.append(((D - best)[:, 0].square() @ weights).item())
        assert_close(machine.denoising_error(noise) - least, torch.tensor(gaps[-1]).double(), rtol=1e-5, atol=1e-9)
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < gaps[0] / 20
