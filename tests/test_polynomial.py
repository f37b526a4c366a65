"""The polynomial machine: exact errors by quadrature over images of four pixels, laws, symmetries, guards, refusals."""

import copy
import dataclasses
import itertools
import math
import pickle
import random
import re
from functools import reduce

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from scoremachines import Noise, edm_levels, sample
from scoremachines.bases import DCT, PCA, Opponent, Pixel, Wavelet
from scoremachines.design import Design, PolynomialMoments
from scoremachines.frames import Frame
from scoremachines.polynomial import Ledger, Polynomial, WaveletPolynomial
from scoremachines.stencils import FAMILIES

DB2, HAAR = Wavelet("db2", 2), Wavelet("haar", 1)
LEVEL = Noise(0.8, 0.6)
SQUARE, RING = (1, 2, 2), (1, 1, 3)
EXACT = {"rtol": 1e-8, "atol": 1e-10}
cuts = st.lists(st.integers(0, 40), max_size=5).map(lambda c: np.diff([0, *sorted(c), 40]).tolist())
laws = settings(max_examples=15, deadline=None)

# Every kind of machine whose images have so few pixels that the noise can be integrated exactly.
SMALL = {
    "independent": (SQUARE, {"basis": DCT()}),
    "band-tied": (SQUARE, {"basis": HAAR, "family": "band-tied"}),
    "local": (SQUARE, {"basis": Pixel(), "family": "local"}),
    "local tied": (RING, {"basis": Pixel(), "family": "local", "tied": True}),
    "linear-neighbours": (SQUARE, {"basis": Pixel(), "family": "linear-neighbours", "degree": 2}),
    "energy": (RING, {"basis": Pixel(), "family": (("self", "powers"), ("neighbours", "energy"))}),
    "low-pass": (SQUARE, {"basis": HAAR, "family": "low-pass"}),
    "full": (SQUARE, {"basis": HAAR, "family": "full"}),
    "conservative independent": (SQUARE, {"basis": Pixel(), "tied": True, "conservative": True}),
    "conservative band-tied": (SQUARE, {"basis": HAAR, "family": "band-tied", "tied": True, "conservative": True}),
    "conservative local": (RING, {"basis": Pixel(), "family": "local", "tied": True, "conservative": True}),
}
CONSERVATIVE = [name for name in SMALL if name.startswith("conservative")]
UNEQUAL = ["independent", "band-tied", "local", "linear-neighbours", "energy", "full"]  # serve noise by component


def skewed(seed, count, *shape):
    """Images whose pixels are skewed, correlated and not centred."""
    normal = torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return 0.3 * (normal.exp() + normal.roll(1, -1) * normal.roll(1, 2)) - 0.4


def small(name, seed=1):
    shape, options = SMALL[name]
    x0 = skewed(seed, 35, *shape)
    return x0, WaveletPolynomial.fit(x0, **options)


def everywhere(x0, noise):
    """Clean and noisy images for all samples and Gauss-Hermite nodes, with weights: exact up to degree 7 per pixel."""
    pixels = x0[0].numel()
    z, w = np.polynomial.hermite_e.hermegauss(4)
    nodes = torch.tensor(list(itertools.product(z, repeat=pixels)), dtype=torch.float64)
    weights = torch.tensor([math.prod(c) for c in itertools.product(w / math.sqrt(2 * math.pi), repeat=pixels)])
    clean = x0.repeat_interleave(len(nodes), 0)
    return clean, noise.add(clean, nodes.repeat(len(x0), 1).reshape(clean.shape)), weights.repeat(len(x0)) / len(x0)


def average(values, weights):
    return torch.einsum("b...,b->...", values, weights.to(values))


@pytest.fixture
def images():
    return skewed(5, 40, 1, 8, 8)


@pytest.fixture
def x(images, randn):
    return LEVEL.add(images[:6], randn(6, 1, 8, 8))


def machines(images, **options):
    """One machine of every family, on images of 8 x 8."""
    return {family: WaveletPolynomial.fit(images, DB2, family, **options) for family in FAMILIES}


# Exact errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [LEVEL, Noise(1.0, 0.05), Noise(1.0, 3.0), Noise(0.0, 1.0)], ids=str)
@pytest.mark.parametrize("name", SMALL)
def test_the_error_is_that_of_the_fitted_function(name, noise):
    x0, machine = small(name)
    clean, noisy, weights = everywhere(x0, noise)
    square = (machine.denoise(noisy, noise) - clean).square().sum((1, 2, 3))
    assert_close(machine.denoising_error(noise), square @ weights, **EXACT)


@pytest.mark.parametrize("name", SMALL)
def test_the_error_on_other_images_is_that_of_the_fitted_function(name):
    x0, machine = small(name)
    other = skewed(8, 25, *x0.shape[1:])
    clean, noisy, weights = everywhere(other, LEVEL)
    square = (machine.denoise(noisy, LEVEL) - clean).square().sum((1, 2, 3))
    held_out = machine.moments_of(other)
    assert_close(machine.denoising_error(LEVEL, held_out), square @ weights, **EXACT)
    mean = x0.mean((0, 2, 3), keepdim=True) if name == "local tied" else x0.mean(0)
    if not name.startswith("conservative"):
        variance = machine.ledger(LEVEL, held_out).variance.sum()
        assert_close(variance, (other - mean).square().mean(0).sum(), **EXACT)


@pytest.mark.parametrize("family", ["independent", "local", "combined"])
@pytest.mark.parametrize("sigma", [1e-5, 1e-9])
def test_the_error_keeps_its_digits_at_little_noise(images, family, sigma):
    """It tends to sigma^2 per pixel, which is far below the rounding of the variance."""
    error = WaveletPolynomial.fit(images, DB2, family).denoising_error(Noise(1.0, sigma))
    assert_close((error / sigma**2).item(), 64.0, rtol=1e-6, atol=0)


def raw_features(name, z):
    """The features of one coefficient of coefficients z (B, 4), from their definition; the first factor is it."""
    y, u, v = z[:, -1], z[:, -2], z[:, -3]
    ladder = [torch.ones_like(y), y, y**2, y**3]
    if name == "independent":
        return torch.stack(ladder, 1)
    mixed = [y * u, y * v, y**2 * u, y**2 * v, y * u**2, y * v**2, y * u * v]
    return torch.stack(ladder + mixed, 1)


@pytest.mark.parametrize("noise", [LEVEL, Noise(1.0, 0.3), Noise(0.5, 2.0)], ids=str)
@pytest.mark.parametrize("name", ["independent", "band-tied"])
def test_steins_form_of_the_error(name, noise):
    """var - c' S^-1 c = (sigma^2 - sigma^4 b' S^-1 b) / alpha^2 with b = -E[d phi / d y], by differentiation."""
    x0, machine = small(name)
    basis = machine.basis
    _, noisy, weights = everywhere(basis.analysis(x0), noise)
    z = noisy.flatten(1)
    direction = torch.zeros_like(z)
    direction[:, -1] = 1
    phi, slope = torch.func.jvp(lambda z: raw_features(name, z), (z,), (direction,))
    S, b = (phi.T * weights) @ phi, -average(slope, weights)
    error = (noise.sigma**2 - noise.sigma**4 * b @ torch.linalg.solve(S, b)) / noise.alpha**2
    _, at, again = everywhere(x0, noise)
    D = machine.coefficient_machine.denoise(basis.analysis(at), noise)[:, 0, 1, 1]
    clean = basis.analysis(x0)[:, 0, 1, 1].repeat_interleave(256)
    assert_close((D - clean).square() @ again, error, rtol=1e-7, atol=1e-10)
    if name == "band-tied":
        assert_close(machine.ledger(noise).error[-1], error, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("name", [name for name in SMALL if name not in CONSERVATIVE])
def test_the_error_is_orthogonal_to_the_features(name):
    """E[(z0 - D) g(z)] = 0 for g = 1, z and, but for degree 1, z^2: the sum over positions where weights are tied."""
    x0, machine = small(name)
    z0 = machine.basis.analysis(x0)
    clean, noisy, weights = everywhere(z0, LEVEL)
    error = clean - machine.coefficient_machine.denoise(noisy, LEVEL)
    for g in (torch.ones_like(noisy), noisy, noisy**2)[: 2 if name == "full" else 3]:
        product = average(error * g, weights)
        product = product.sum() if "tied" in name.split() else product
        assert_close(product, torch.zeros_like(product), rtol=0, atol=1e-10)


def test_the_error_is_not_orthogonal_to_what_is_left_out():
    """The family local lacks the linear neighbours."""
    x0, machine = small("local")
    clean, noisy, weights = everywhere(x0, LEVEL)
    product = average((clean - machine.denoise(noisy, LEVEL)) * noisy.roll(1, -1), weights)
    assert product.abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_errors_by_monte_carlo(family, images, randn, rng):
    """Total and band errors, of the data and of held-out images, within five standard errors of 4000 draws."""
    machine = WaveletPolynomial.fit(images, DB2, family)
    other = skewed(6, 40, 1, 8, 8)
    for clean, moments in ((images, None), (other, machine.moments_of(other))):
        x0 = clean[torch.randint(40, (4000,), generator=rng)]
        gap = machine.denoise(LEVEL.add(x0, randn(*x0.shape)), LEVEL) - x0
        square = machine.basis.analysis(gap)[:, 0].square()
        ledger = machine.ledger(LEVEL, moments)
        for band, error in zip(DB2.bands((1, 8, 8)), ledger.error, strict=True):
            found = square[:, band.rows, band.columns].sum((1, 2))
            assert (found.mean() - error).abs() < 5 * found.std() / math.sqrt(4000)
        total = gap.square().sum((1, 2, 3))
        assert (total.mean() - machine.denoising_error(LEVEL, moments)).abs() < 5 * total.std() / math.sqrt(4000)


@pytest.mark.parametrize("noise", [Noise(1.0, 0.2), Noise(0.5, 1.0)], ids=str)
def test_more_features_do_not_raise_the_error(images, noise):
    def error(family, **options):
        return WaveletPolynomial.fit(images, DB2, family, **options).denoising_error(noise).item()

    diagonal = [error("independent", degree=d) for d in (1, 2, 3, 4)]
    assert diagonal == sorted(diagonal, reverse=True)
    for family in FAMILIES.keys() - {"independent", "full"}:
        by_degree = [error(family, degree=d) for d in (1, 2, 3)]
        assert by_degree == sorted(by_degree, reverse=True)
        assert by_degree[-1] < diagonal[2]
        assert error(family, tied=True) > by_degree[-1]
    assert error("combined") < min(error("linear-neighbours"), error("energy"))
    linear = error("linear-neighbours", degree=1)
    assert error("full") < linear < diagonal[0]
    assert error("linear-neighbours", degree=1, radius=2) < linear


# The ledger -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_gains_add_up(images, family, tied):
    if (family, tied) == ("full", True):
        return
    machine = WaveletPolynomial.fit(images, DB2, family, tied=tied)
    ledger = machine.ledger(LEVEL)
    assert isinstance(ledger, Ledger)
    assert ledger.bands == ("A2", "H2", "V2", "D2", "H1", "V1", "D1")
    assert ledger.size.tolist() == [4, 4, 4, 4, 16, 16, 16]
    assert (ledger.gain >= 0).all()
    assert_close(ledger.gain[:, ledger.groups.index("constant")], torch.zeros(7).double(), rtol=0, atol=1e-12)
    assert_close(ledger.variance - ledger.gain.sum(1), ledger.error, **EXACT)
    assert_close(ledger.error.sum(), machine.denoising_error(LEVEL))
    if not tied:
        assert_close(ledger.variance.sum(), images.var(0, correction=0).sum())


@pytest.mark.parametrize("name", CONSERVATIVE)
def test_gains_of_a_potential_add_up(name):
    _, machine = small(name)
    ledger = machine.ledger(LEVEL)
    assert_close(ledger.variance - ledger.gain.sum(1), ledger.error, **EXACT)


def test_gains_are_differences_of_nested_fits(images):
    ledger = WaveletPolynomial.fit(images, DB2, "local").ledger(LEVEL)
    assert ledger.groups == ("constant", "degree 1", "degree 2", "degree 3", "neighbours pairs")
    nested = [WaveletPolynomial.fit(images, DB2, degree=d).ledger(LEVEL).error for d in (1, 2, 3)]
    assert_close(ledger.variance - nested[0], ledger.gain[:, 1], **EXACT)
    for d in (1, 2):
        assert_close(nested[d - 1] - nested[d], ledger.gain[:, d + 1], **EXACT)


def test_groups_that_a_band_lacks_gain_nothing(images):
    ledger = WaveletPolynomial.fit(images, DB2, "parent-child").ledger(LEVEL)
    parent = ledger.gain[:, ledger.groups.index("parent linear")]
    assert (parent[:4] == 0).all()
    assert (parent[4:] > 0).all()


def test_bands_of_colour_images_count_all_channels(randn):
    x0 = skewed(3, 30, 3, 4, 4)
    machine = WaveletPolynomial.fit(x0, Opponent(HAAR))
    ledger = machine.ledger(LEVEL)
    assert ledger.size.tolist() == [12] * 4
    luminance = WaveletPolynomial.fit(x0.sum(1, keepdim=True) / math.sqrt(3), HAAR)
    assert (ledger.error > luminance.ledger(LEVEL).error).all()


def test_hermite_moments_are_attenuated(images):
    machine = WaveletPolynomial.fit(images, DB2, "local").coefficient_machine
    z = DB2.analysis(images)
    w = (z - z.mean(0)) / z.std(0, correction=0)
    var = z.var(0, correction=0)
    for noise in (LEVEL, Noise(1.0, 1e-6)):
        rho = noise.alpha * (var / (noise.alpha**2 * var + noise.sigma**2)).sqrt()
        skewness, kurtosis = machine.hermite_moments(noise)
        assert_close(skewness, rho**3 * w.pow(3).mean(0))
        assert_close(kurtosis, rho**4 * (w.pow(4).mean(0) - 3))


def test_condition_numbers_by_quadrature():
    """Of the Gram matrix of whitened Hermite features, scaled to unit diagonal."""
    x0, machine = small("independent")
    z0, noise = machine.basis.analysis(x0), Noise(1.0, 0.4)
    _, noisy, weights = everywhere(z0, noise)
    tau = (z0.var(0, correction=0) + noise.sigma**2).sqrt()
    u = ((noisy - z0.mean(0)) / tau).flatten(1).numpy()
    q = (noise.sigma / tau).flatten().numpy()
    worst = 0.0
    for k in range(4):
        he = [np.polynomial.hermite_e.hermeval(u[:, k] / q[k], np.eye(n + 1)[n]) for n in range(4)]
        phi = torch.from_numpy(np.stack(he, 1))
        gram = (phi.T * weights) @ phi
        scale = gram.diagonal().rsqrt()
        worst = max(worst, torch.linalg.cond(gram * scale * scale[:, None]).item())
    assert machine.coefficient_machine.condition_numbers(noise)["all"] == pytest.approx(worst, rel=1e-8)


def test_condition_numbers_of_common_weights_are_those_of_the_summed_system():
    x0, machine = small("conservative independent")
    free = WaveletPolynomial.fit(x0, Pixel(), tied=True)
    found, expected = (m.coefficient_machine.condition_numbers(LEVEL)["all"] for m in (machine, free))
    assert found == pytest.approx(expected)
    _, machine = small("conservative band-tied")
    numbers = machine.coefficient_machine.condition_numbers(LEVEL)
    assert 1 < numbers["H1"] == numbers["V1"] == numbers["D1"] < math.inf


# Tied weights ---------------------------------------------------------------------------------------------------

TIED = [family for family in FAMILIES if family != "full"]


@pytest.mark.parametrize("conservative", [False, True])
@pytest.mark.parametrize("family", TIED)
def test_tied_machines_commute_with_shifts_of_the_coarsest_step(images, x, family, conservative):
    if conservative and family not in ("independent", "band-tied", "local"):
        return
    machine = WaveletPolynomial.fit(images, DB2, family, tied=True, conservative=conservative)
    D = machine.denoise(x, LEVEL)
    for shift in ((4, 0), (0, 4), (4, 4)):
        assert_close(machine.denoise(x.roll(shift, (2, 3)), LEVEL), D.roll(shift, (2, 3)), **EXACT)
    for shift in ((1, 0), (0, 2)):
        assert (machine.denoise(x.roll(shift, (2, 3)), LEVEL) - D.roll(shift, (2, 3))).abs().max() > 1e-3


def test_untied_machines_do_not_commute_with_shifts(images, x):
    machine = WaveletPolynomial.fit(images, DB2)
    gap = machine.denoise(x.roll(4, 2), LEVEL) - machine.denoise(x, LEVEL).roll(4, 2)
    assert gap.abs().max() > 1e-3


def test_tying_pixels_commutes_with_every_shift(images, x):
    machine = WaveletPolynomial.fit(images, Pixel(), "local", tied=True)
    D = machine.denoise(x, LEVEL)
    assert_close(machine.denoise(x.roll((1, 3), (2, 3)), LEVEL), D.roll((1, 3), (2, 3)), **EXACT)


@pytest.mark.parametrize("family", ["independent", "band-tied", "low-pass"])
def test_one_position_has_nothing_to_tie(family):
    """2 x 2 images have bands of one coefficient."""
    x0 = skewed(2, 40, 2, 2, 2)
    free, tied = (WaveletPolynomial.fit(x0, HAAR, family, tied=tied) for tied in (False, True))
    assert_close(tied.denoise(x0, LEVEL), free.denoise(x0, LEVEL), **EXACT)
    assert_close(tied.denoising_error(LEVEL), free.denoising_error(LEVEL), **EXACT)


def test_tied_weights_see_positions_as_samples():
    """Tied pixels of N images of 3 pixels are 3 N images of one pixel."""
    x0 = skewed(2, 40, *RING)
    tied = WaveletPolynomial.fit(x0, Pixel(), tied=True)
    single = WaveletPolynomial.fit(x0.reshape(-1, 1, 1, 1), Pixel())
    assert_close(tied.denoise(x0, LEVEL).reshape(-1), single.denoise(x0.reshape(-1, 1, 1, 1), LEVEL).reshape(-1))


def test_memory_of_tied_weights_does_not_grow_with_the_image():
    def numbers(side):
        design = Design.of(Wavelet("db2", 2), (1, side, side), "local", tied=True)
        return sum(part.gram.numel() for part in PolynomialMoments.of(torch.zeros(1, 1, side, side), design).sums)

    assert numbers(16) == numbers(32)


# Conservative machines ------------------------------------------------------------------------------------------


def jacobian(machine, z, noise=LEVEL):
    return torch.func.jacrev(lambda z: machine.denoise(z[None], noise)[0].flatten())(z).flatten(1)


def asymmetry(machine, z):
    J = jacobian(machine, z)
    return ((J - J.T).norm() / J.norm()).item()


@pytest.mark.parametrize("family", ["independent", "band-tied", "local"])
def test_conservative_scores_are_gradients(images, x, family):
    free, bound = (
        WaveletPolynomial.fit(images, DB2, family, tied=True, conservative=conservative)
        for conservative in (False, True)
    )
    assert asymmetry(bound, x[0]) < 1e-10
    if family == "independent":
        assert_close(bound.denoise(x, LEVEL), free.denoise(x, LEVEL), **EXACT)
    else:
        assert asymmetry(free, x[0]) > 1e-3
        v = x[1:2]
        u = x[2:3]
        products = [machine.posterior_cov_product(x[:1], LEVEL, v).mul(u).sum() for machine in (bound, free)]
        swapped = [machine.posterior_cov_product(x[:1], LEVEL, u).mul(v).sum() for machine in (bound, free)]
        assert_close(products[0], swapped[0])
        assert abs(products[1] - swapped[1]) > 1e-4


def potential(name, a, e, z, step=1):
    """A polynomial of the coefficients z (B, 1, h, w), summed over positions, that the family can have in log p."""
    if name == "conservative independent":
        return (z ** (a + e)).sum()
    if name == "conservative local":
        return (z**a * z.roll(step, -1) ** e).sum()
    H, V, D = z[:, 0, 1, 0], z[:, 0, 0, 1], z[:, 0, 1, 1]
    return (H**a * V**e * (D if a + e < 4 else 1)).sum()


@pytest.mark.parametrize(("a", "e"), [(1, 1), (2, 1), (1, 2), (2, 2), (3, 1)])
@pytest.mark.parametrize("name", CONSERVATIVE)
def test_conservative_machines_are_the_best_of_their_class(name, a, e):
    """Any gradient field of the class is orthogonal to the error; adding it raises the error by its own square."""
    x0, machine = small(name)
    machine = machine.coefficient_machine
    clean, noisy, weights = everywhere(machine.moments.design.basis.analysis(x0), LEVEL)
    z = noisy.clone().requires_grad_()
    (field,) = torch.autograd.grad(potential(name, a, e, z), z)
    D = machine.denoise(noisy, LEVEL)
    inner, square = (average((v * field).sum((1, 2, 3)), weights) for v in (clean - D, field))
    assert_close(inner, torch.zeros_like(inner), rtol=0, atol=1e-9)
    error = machine.denoising_error(LEVEL)
    for t in (-0.1, 0.1):
        moved = average((D + t * field - clean).square().sum((1, 2, 3)), weights)
        assert_close(moved, error + t**2 * square, **EXACT)
        assert moved > error


def test_the_price_of_a_gradient(images):
    """The free family that contains the gradient fields of local coupling has at most their error."""
    free = (("self", "powers"), ("neighbours", "powers"), ("neighbours", "pairs"))
    for noise in (LEVEL, Noise(1.0, 0.2)):
        bound = WaveletPolynomial.fit(images, DB2, "local", tied=True, conservative=True).denoising_error(noise)
        assert WaveletPolynomial.fit(images, DB2, free, tied=True).denoising_error(noise) < bound
        pooled = WaveletPolynomial.fit(images, DB2, "band-tied", tied=True, conservative=True).denoising_error(noise)
        assert bound < WaveletPolynomial.fit(images, DB2, tied=True).denoising_error(noise)
        assert pooled < WaveletPolynomial.fit(images, DB2, tied=True).denoising_error(noise)


# Noise by component ---------------------------------------------------------------------------------------------


def ramp(shape):
    n = math.prod(shape)
    alpha, sigma = torch.linspace(1, 0.4, n).double(), torch.linspace(0.2, 1.5, n).double()
    return Noise(alpha.reshape(1, *shape), sigma.reshape(1, *shape))


@pytest.mark.parametrize("name", UNEQUAL)
def test_noise_by_component_is_served_optimally(name):
    """By quadrature: the error is orthogonal to 1, z and z^2 for unequal levels too."""
    x0, machine = small(name)
    machine, noise = machine.coefficient_machine, ramp(x0.shape[1:])
    clean, noisy, weights = everywhere(machine.moments.design.basis.analysis(x0), noise)
    error = clean - machine.denoise(noisy, noise)
    for g in (torch.ones_like(noisy), noisy, noisy**2)[: 2 if name == "full" else 3]:
        assert_close(average(error * g, weights), torch.zeros(x0.shape[1:]).double(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"low-pass"}))
def test_equal_components_are_one_level(images, x, family):
    machine = WaveletPolynomial.fit(images, DB2, family, tied=family != "full").coefficient_machine
    equal = Noise(torch.full((1, 1, 8, 8), 0.8), torch.full((1, 1, 8, 8), 0.6))
    assert_close(machine.denoise(x, equal), machine.denoise(x, Noise(0.8, 0.6)), rtol=1e-6, atol=1e-6)


def test_one_level_per_band_is_served_by_tied_weights(images, x):
    """Bands do not see each other in the family independent: each keeps its own level."""
    machine = WaveletPolynomial.fit(images, DB2, tied=True).coefficient_machine
    sigma = torch.full((1, 1, 8, 8), 0.3).double()
    sigma[..., 4:, 4:] = 2.0
    D = machine.denoise(x, Noise(1.0, sigma))
    assert_close(D[..., 4:, 4:], machine.denoise(x, Noise(1.0, 2.0))[..., 4:, 4:])
    assert_close(D[..., :4, :4], machine.denoise(x, Noise(1.0, 0.3))[..., :4, :4])


def test_levels_within_a_tied_band_and_low_pass_images_are_refused(images, x):
    noise = ramp((1, 8, 8))
    tied = WaveletPolynomial.fit(images, DB2, tied=True).coefficient_machine
    with pytest.raises(ValueError, match="within a band whose weights are tied, expected one level per band"):
        tied.denoise(x, noise)
    blurred = WaveletPolynomial.fit(images, DB2, "low-pass").coefficient_machine
    with pytest.raises(ValueError, match=r"low-pass image mixes coefficients .*expected one level per image"):
        blurred.denoise(x, noise)
    with pytest.raises(ValueError, match="differs between the pixels of an image, expected one level per image"):
        WaveletPolynomial.fit(images, DB2).denoise(x, noise)


# Levels, chunks, types, caches ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_levels_may_differ_between_images(images, x, family):
    machine = WaveletPolynomial.fit(images, DB2, family)
    alpha, sigma = torch.tensor([1, 0.5, 1, 0.5, 0, 1.0]).double(), torch.tensor([0.1, 2, 0.1, 1, 1, 3.0]).double()
    mixed = machine.denoise(x, Noise(alpha.reshape(6, 1, 1, 1), sigma.reshape(6, 1, 1, 1)))
    for b in range(6):
        assert_close(mixed[b : b + 1], machine.denoise(x[b : b + 1], Noise(alpha[b].item(), sigma[b].item())))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["independent", "local", "low-pass"])
def test_chunks_change_nothing(images, x, family, tied, monkeypatch):
    whole = WaveletPolynomial.fit(images, DB2, family, tied=tied)
    D, error = whole.denoise(x, LEVEL), whole.denoising_error(LEVEL, whole.moments_of(images + 0.1))
    monkeypatch.setattr("scoremachines.design.ENTRIES", 300)
    parts = WaveletPolynomial.fit(images, DB2, family, tied=tied)
    assert parts.coefficient_machine.moments.design.images_at_once() < 6
    assert_close(parts.denoise(x, LEVEL), D, **EXACT)
    assert_close(parts.denoising_error(LEVEL, parts.moments_of(images + 0.1)), error, **EXACT)
    monkeypatch.setattr("scoremachines.design.ENTRIES", 1)
    assert_close(parts.denoise(x, LEVEL), D, **EXACT)


def test_remembered_levels_change_nothing(images, x):
    machine = WaveletPolynomial.fit(images, DB2, "parent-child")
    first = machine.denoise(x, LEVEL)
    for sigma in torch.linspace(0.1, 3, 70).tolist():  # more than are remembered
        machine.denoise(x[:1], Noise(1.0, sigma))
    assert torch.equal(machine.denoise(x, LEVEL), first)
    fresh = WaveletPolynomial.fit(images, DB2, "parent-child")
    assert torch.equal(fresh.denoise(x, Noise(1.0, 3.0)), machine.denoise(x, Noise(1.0, 3.0)))


def test_answers_follow_the_points(images, x):
    machine = WaveletPolynomial.fit(images.float(), DB2, "local")
    exact = WaveletPolynomial.fit(images, DB2, "local").denoise(x, LEVEL)
    found = machine.denoise(x.float(), LEVEL)
    assert found.dtype == torch.float32
    assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)
    assert machine.denoising_error(LEVEL).dtype == torch.float64


def test_machines_move(images, x):
    machine = WaveletPolynomial.fit(images, DB2, "local")
    for target in (torch.float32, "cpu", torch.device("cpu"), x):
        assert torch.equal(machine.to(target).denoise(x, LEVEL), machine.denoise(x, LEVEL))
    assert {part.gram.device.type for part in machine.to("meta").coefficient_machine.moments.sums} == {"meta"}
    assert machine.guarded(0.1).to("cpu").coefficient_machine.guard == 0.1


def test_copies_remember_nothing_and_agree(images, x):
    machine = WaveletPolynomial.fit(images, DB2, "local").guarded()
    D = machine.denoise(x, LEVEL)
    for twin in (copy.deepcopy(machine), pickle.loads(pickle.dumps(machine))):
        assert "_remembered" not in vars(twin.coefficient_machine)
        assert torch.equal(twin.denoise(x, LEVEL), D)


def test_what_inference_remembers_can_be_differentiated(images, x):
    machine = WaveletPolynomial.fit(images, DB2, "local").guarded()
    with torch.inference_mode():
        D = machine.denoise(x, LEVEL)
    x = x.clone().requires_grad_()
    found = machine.denoise(x, LEVEL)
    found.sum().backward()
    assert torch.equal(found.detach(), D)
    assert x.grad.abs().sum() > 0


def test_a_remembered_level_is_small_beside_the_moments(images):
    """The Gram matrix of a level is as large as the moments, and 64 levels are remembered."""
    machine = WaveletPolynomial.fit(images, DB2, "local").coefficient_machine
    kept = [t for s in machine._remembered(1.0, 0.5) for t in (s.weights, *vars(s.white).values(), *s.gains.values())]
    level = sum(t.numel() for t in kept if isinstance(t, torch.Tensor))
    assert level < sum(part.gram.numel() for part in machine.moments.sums) / 5


@pytest.mark.parametrize("basis", [Pixel(), DCT(), Wavelet("sym4", 1), PCA.fit(skewed(4, 80, 1, 8, 8))], ids=str)
def test_the_pixel_machine_wraps_the_coefficient_machine(images, x, basis):
    machine = WaveletPolynomial.fit(images, basis)
    assert machine.basis is basis
    assert isinstance(machine.coefficient_machine, Polynomial)
    inside = machine.coefficient_machine
    for quantity in ("denoise", "score", "eps"):
        through = basis.synthesis(getattr(inside, quantity)(basis.analysis(x), LEVEL))
        assert_close(getattr(machine, quantity)(x, LEVEL), through)
    moments = PolynomialMoments.of(images, inside.moments.design)
    assert_close(WaveletPolynomial.fit(moments).denoise(x, LEVEL), machine.denoise(x, LEVEL))


# Precision ------------------------------------------------------------------------------------------------------


def test_coefficients_without_variance_are_returned(images, x):
    images[:, :, :4] = 0.25
    for family in ("independent", "local", "linear-neighbours"):
        for tied in (False, True):
            machine = WaveletPolynomial.fit(images, Pixel(), family, tied=tied)
            for sigma in (1e-6, 0.6, 50.0):
                assert machine.denoise(x, Noise(1.0, sigma)).isfinite().all()
        machine = WaveletPolynomial.fit(images, Pixel(), family)
        found = machine.denoise(x, LEVEL)[:, :, 1:3]
        assert_close(found, torch.full_like(found, 0.25), rtol=0, atol=1e-10)
        assert not machine.coefficient_machine.hermite_moments(LEVEL)[0][:, :4].any()


def test_a_single_image_is_returned():
    x0 = skewed(1, 1, 1, 8, 8)
    machine = WaveletPolynomial.fit(x0, DB2, tied=True)
    assert machine.denoise(x0, LEVEL).isfinite().all()
    assert_close(WaveletPolynomial.fit(x0, DB2, "full").denoise(-x0, LEVEL), x0)


def in_many_digits(x0, sigma, z, features):
    """The regression on raw monomials y^a w^b, from noisy moments by the binomial formula, in 80 digits."""
    mp = mpmath.mp.clone()
    mp.dps = 80
    s, values = mp.mpf(sigma), [[mp.mpf(v) for v in row] for row in x0.tolist()]

    def noisy(v, k):
        return mp.fsum(math.comb(k, j) * v ** (k - j) * s**j * mp.fac2(j - 1) for j in range(0, k + 1, 2))

    ladders = [[[noisy(v, k) for k in range(7)] for v in row] for row in values]

    def mean(a, b, weight=None):
        terms = (y[a] * w[b] * (weight[i] if weight else 1) for i, (y, w) in enumerate(ladders))
        return mp.fsum(terms) / len(ladders)

    S = mp.matrix([[mean(a + c, b + d) for c, d in features] for a, b in features])
    c = mp.matrix([mean(a, b, [row[0] for row in values]) for a, b in features])
    weights = mp.lu_solve(S, c)
    points = [[mp.mpf(v) for v in row] for row in z.tolist()]
    found = [float(mp.fsum(weights[k] * y**a * w**b for k, (a, b) in enumerate(features))) for y, w in points]
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("spread", [1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("sigma", [1e-3, 1.0])
@pytest.mark.parametrize("family", ["independent", "local"])
def test_precision_far_from_zero(family, sigma, spread, randn):
    """Two pixels with means 7 and -5: raw features such as y^2 w are almost collinear, and yet no digit is lost."""
    x0 = torch.tensor([7.0, -5.0]).double() + spread * skewed(3, 30, 1, 1, 2)
    features = [(d, 0) for d in range(4)] + ([(1, 1), (2, 1), (1, 2)] if family == "local" else [])
    z = x0[:8] + sigma * randn(8, 1, 1, 2)
    expected = in_many_digits(x0.reshape(-1, 2), sigma, z.reshape(-1, 2), features)
    found = WaveletPolynomial.fit(x0, Pixel(), family).denoise(z, Noise(1.0, sigma))[:, 0, 0, 0]
    scale = min(sigma, spread)
    assert_close(found, expected, rtol=0, atol=1e-6 * scale)


# The monoid -----------------------------------------------------------------------------------------------------


def assert_same(a, b):
    assert a.count == b.count
    for mine, other in zip(a.sums, b.sums, strict=True):
        assert mine.count == other.count
        assert_close(mine.about(other.center).gram, other.gram, rtol=1e-8, atol=1e-8)
        assert torch.equal(mine.low, other.low)
        assert torch.equal(mine.high, other.high)


@laws
@given(sizes=cuts, seed=st.integers(0, 2**31), options=st.sampled_from(list(SMALL.values())))
def test_moments_of_any_partition_in_any_order(sizes, seed, options):
    shape, chosen = options
    x0 = skewed(seed, 40, *shape)
    design = Design.of(shape=shape, **chosen)
    whole = PolynomialMoments.of(x0, design)
    parts = [PolynomialMoments.of(part, design) for part in x0.split(sizes)]
    merged = reduce(PolynomialMoments.merge, random.Random(seed).sample(parts, len(parts)))
    assert_same(merged, whole)
    assert_close(WaveletPolynomial.fit(merged).denoise(x0, LEVEL), WaveletPolynomial.fit(whole).denoise(x0, LEVEL))


def test_moments_of_nothing_are_the_identity(images):
    design = Design.of(DB2, (1, 8, 8), "local", tied=True)
    some, nothing = PolynomialMoments.of(images, design), PolynomialMoments.of(images[:0], design)
    assert_same(some.merge(nothing), some)
    assert_same(nothing.merge(some), some)
    assert_same(PolynomialMoments.of(images, design, nothing), some)


def test_lent_centres_change_nothing(images):
    design = Design.of(DB2, (1, 8, 8), "band-tied")
    lent = PolynomialMoments.of(images[20:], design, PolynomialMoments.of(images[:20] + 0.3, design))
    assert_same(lent, PolynomialMoments.of(images[20:], design))


def test_batches_are_one_pass(images, x):
    whole = WaveletPolynomial.fit(images, DB2, "combined")
    parts = WaveletPolynomial.fit((part for part in images.split([7, 1, 32])), DB2, "combined")
    assert_close(parts.denoise(x, LEVEL), whole.denoise(x, LEVEL), **EXACT)


# The guard ------------------------------------------------------------------------------------------------------


def test_guarded_answers_stay_in_the_range_of_the_data(images, x):
    for basis, family, tied in ((DB2, "local", False), (DB2, "band-tied", True), (Pixel(), "local", True)):
        machine = WaveletPolynomial.fit(images, basis, family, tied=tied)
        z = 20 * basis.analysis(x)
        D, data = machine.guarded().coefficient_machine.denoise(z, LEVEL), basis.analysis(images)
        for band in basis.bands((1, 8, 8)):
            found, seen = (t[..., band.rows, band.columns] for t in (D, data))
            axes = (0, 2, 3) if tied else 0
            assert (found >= seen.amin(axes, keepdim=True) - 1e-12).all()
            assert (found <= seen.amax(axes, keepdim=True) + 1e-12).all()
        assert (machine.coefficient_machine.denoise(z, LEVEL).abs() > data.abs().max()).any()


def test_a_guard_without_ridge_only_clips(images, x):
    x, machine = 2 * x, WaveletPolynomial.fit(images, DB2, "local").coefficient_machine
    exact, clipped = machine.denoise(x, LEVEL), machine.guarded(0).denoise(x, LEVEL)
    data = DB2.analysis(images)
    assert_close(clipped, exact.clamp(data.amin(0), data.amax(0)))
    outside = ((exact < data.amin(0)) | (exact > data.amax(0))).double().mean((1, 2, 3))
    assert 0 < outside.mean() < 1
    assert_close(machine.outside(x, LEVEL), outside)
    assert_close(machine.guarded(0.1).outside(x, LEVEL), outside)
    assert (machine.outside(1e200 * x, LEVEL) == 1).all()


def test_a_large_ridge_leaves_the_linear_machine(images, x):
    for family in ("independent", "local"):
        guarded = WaveletPolynomial.fit(images, Pixel(), family, tied=True).guarded(1e12)
        linear = WaveletPolynomial.fit(images, Pixel(), degree=1, tied=True).denoise(x, LEVEL)
        expected = linear.clamp(images.min(), images.max())
        assert_close(guarded.denoise(x, LEVEL), expected, rtol=1e-6, atol=1e-6)


def test_a_small_ridge_changes_little(images, x):
    machine = WaveletPolynomial.fit(images, DB2).coefficient_machine
    assert_close(machine.guarded(1e-9).denoise(x, LEVEL), machine.guarded(0).denoise(x, LEVEL), rtol=1e-5, atol=1e-5)


def test_the_ledger_and_the_error_are_those_of_the_exact_machine(images):
    machine = WaveletPolynomial.fit(images, DB2, "local")
    assert torch.equal(machine.guarded(0.5).denoising_error(LEVEL), machine.denoising_error(LEVEL))


def test_guarded_samples_stay_finite_where_the_exact_machine_runs_away(randn):
    """A parabola fitted to two values has slope above 1 far away, where the flow then escapes to infinity."""
    x0 = torch.cat([-torch.ones(70), torch.ones(30)]).double().reshape(-1, 1, 1, 1)
    machine = WaveletPolynomial.fit(x0, Pixel(), degree=2)
    walk, start = edm_levels(30, sigma_min=0.02, sigma_max=20), 20 * randn(200, 1, 1, 1)
    exact, guarded = sample(machine, start, walk), sample(machine.guarded(), start, walk)
    escaped = ~(exact.abs() < 1e6).flatten()
    assert 0 < escaped.double().mean() < 1
    assert guarded.abs().max() <= 1
    assert (machine.coefficient_machine.outside(exact[escaped], walk[-2]) == 1).all()


# Refusals -------------------------------------------------------------------------------------------------------

REFUSED = {
    "family is 'locl', expected one of": {"family": "locl"},
    "family is None, expected one of": {"family": None},
    "('self', 'cubes') is no feature group": {"family": (("self", "cubes"),)},
    "3 is no feature group": {"family": (3,)},
    "('self', ['a']) is no feature group": {"family": (("self", ["a"]),)},
    "family is {}, expected one of": {"family": {}},
    "degree is 0, expected a whole number": {"degree": 0},
    "radius is 0, expected a whole number": {"family": "local", "radius": 0},
    "expected an orthonormal Basis: elsewhere the noise is correlated": {"basis": Frame()},
    "basis is 'db2', expected an orthonormal Basis": {"basis": "db2"},
    "has a relative called 'siblings'": {"family": "band-tied", "basis": Pixel()},
    "has a relative called 'parent'": {"family": "parent-child", "basis": Wavelet("db2", 1)},
    "27 samples cannot determine 28 nonlinear features; use more data": {"family": "local", "count": 27},
    "conservative is only defined for shared weights": {"conservative": True},
    "only the families independent, band-tied and local": {"family": "energy", "conservative": True, "tied": True},
    "the family full has no positions to tie": {"family": "full", "tied": True},
    'relation "all" holds every other one': {"family": (("all", "linear"), ("self", "powers"))},
    "a parent is part of the low-pass image": {"family": (("parent", "linear"), ("low-pass", "linear"))},
    "expected multiples of 16 for 4 levels": {"basis": Wavelet("haar", 4)},
    "expected three colour channels": {"basis": Opponent(DB2)},
}


@pytest.mark.parametrize(("sentence", "options"), REFUSED.items(), ids=REFUSED)
def test_what_makes_no_sense_is_refused_in_one_sentence(images, sentence, options):
    options = {"basis": DB2, **options}
    x0 = images[: options.pop("count", 40)]
    with pytest.raises(ValueError, match=re.escape(sentence)) as refusal:
        WaveletPolynomial.fit(x0, **options)
    assert str(refusal.value).endswith(".")


def test_a_biorthogonal_wavelet_is_refused():
    with pytest.raises(ValueError, match=r"bior2.2 is not orthonormal"):
        WaveletPolynomial.fit(torch.zeros(9, 1, 8, 8), Wavelet("bior2.2"))


def test_flat_samples_are_refused(cloud):
    with pytest.raises(ValueError, match=r"samples have shape \(6,\), expected images of shape \(C, H, W\)"):
        WaveletPolynomial.fit(cloud)


@pytest.mark.parametrize(
    "spoil", [lambda g: g * math.nan, lambda g: -g, lambda g: g + math.inf], ids="NaN neg inf".split()
)
@pytest.mark.parametrize("tied", [False, True])
def test_bad_moments_are_refused(images, x, spoil, tied):
    moments = PolynomialMoments.of(images, Design.of(DB2, (1, 8, 8), tied=tied)).centred()
    sums = [dataclasses.replace(part, gram=spoil(part.gram)) for part in moments.sums]
    machine = Polynomial(dataclasses.replace(moments, sums=tuple(sums)))
    with pytest.raises(ValueError, match="not finite and positive definite; use more data"):
        machine.denoise(x, LEVEL)


def test_levels_that_are_not_served_are_refused(images, x):
    machine = WaveletPolynomial.fit(images, DB2)
    still = Noise(1.0, torch.tensor([1, 1, 0, 1, 1, 1.0]).reshape(6, 1, 1, 1))
    for inside in (machine, machine.coefficient_machine):
        for noise in (Noise(1.0, 0.0), still):
            with pytest.raises(ValueError, match="sigma is 0 in some component"):
                inside.denoise(x, noise)
        with pytest.raises(ValueError, match="sigma is 0 in some component"):
            inside.ledger(Noise(1.0, 0.0))
        with pytest.raises(ValueError, match=r"noise has shape \(6, 1, 1, 1\), expected one level for everything"):
            inside.ledger(Noise(1.0, torch.ones(6, 1, 1, 1)))


ORDER = (("neighbours", "linear"), ("siblings", "linear"))  # either way round: equally many variables, other positions


def test_moments_of_other_designs_are_refused(images):
    parts = [
        PolynomialMoments.of(images, Design.of(DB2, (1, 8, 8))),
        PolynomialMoments.of(images, Design.of(DCT(), (1, 8, 8))),
        PolynomialMoments.of(images, Design.of(DB2, (1, 8, 8), tied=True)),
        PolynomialMoments.of(images, Design.of(DB2, (1, 8, 8), degree=2)),
        *(PolynomialMoments.of(images, Design.of(DB2, (1, 8, 8), family)) for family in (ORDER, ORDER[::-1])),
    ]
    for a, b in itertools.permutations(parts, 2):
        with pytest.raises(ValueError, match="are not of one design; fit both with the same"):
            a.merge(b)


def test_moments_for_held_out_errors_are_checked(images):
    machine = WaveletPolynomial.fit(images, DB2)
    for other in (WaveletPolynomial.fit(images, Wavelet("haar", 2)), WaveletPolynomial.fit(images, DB2, degree=2)):
        with pytest.raises(ValueError, match="are not of one design; fit both with the same"):
            machine.denoising_error(LEVEL, other.moments_of(images))
    with pytest.raises(ValueError, match=r"noise is a float, expected a Noise\(alpha, sigma\)"):
        machine.ledger(0.5)
    for refused in (lambda: machine.ledger(LEVEL, images), lambda: Polynomial.fit(images)):
        with pytest.raises(ValueError, match="moments are a Tensor, expected PolynomialMoments"):
            refused()
    with pytest.raises(ValueError, match=r"images are torch\.int64, expected a floating tensor"):
        PolynomialMoments.of(images.long(), machine.coefficient_machine.moments.design)
    with pytest.raises(ValueError, match=r"images have shape \(40, 1, 8, 4\), expected \(N, 1, 8, 8\)"):
        machine.moments_of(images[..., :4])
    for bad, sentence in ((images[:0], "no sample"), (images * math.nan, "NaN"), (images.long(), "floating type")):
        with pytest.raises(ValueError, match=sentence):
            machine.moments_of(bad)
    assert_same(machine.moments_of(images.split(7)), machine.moments_of(images))


@pytest.mark.parametrize("ridge", [-1e-9, math.nan, math.inf, "a"])
def test_a_negative_ridge_is_refused(images, ridge):
    with pytest.raises(ValueError, match="expected a number that is not negative"):
        WaveletPolynomial.fit(images, DB2).guarded(ridge)


def test_degree_one_does_not_know_the_shape_of_a_law(images):
    with pytest.raises(ValueError, match="stop at degree 1, expected the squares too"):
        WaveletPolynomial.fit(images, DB2, degree=1).coefficient_machine.hermite_moments(LEVEL)


def test_low_pass_images_are_those_of_the_rotated_colours(rand):
    """Luminance alone, in a grey set, sees what the grey machine sees."""
    grey = rand(60, 1, 8, 8)
    basis = Wavelet("haar", 2)
    settings = {"family": "low-pass", "degree": 2}
    colour = WaveletPolynomial.fit(grey.expand(-1, 3, -1, -1), Opponent(basis), **settings)
    alone = WaveletPolynomial.fit(grey, basis, **settings)
    x = rand(4, 1, 8, 8)
    # in R x the luminance of equal channels is sqrt(3) times the grey value; the levels are scaled along
    found = colour.denoise(x.expand(-1, 3, -1, -1), Noise(1.0, 0.5))
    expected = alone.denoise(x, Noise(1.0, 0.5 / 3**0.5))
    assert_close(found, expected.expand_as(found), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("basis", [Pixel(), Opponent(Pixel())])
def test_low_pass_needs_levels(rand, basis):
    with pytest.raises(ValueError, match="low-pass"):
        WaveletPolynomial.fit(rand(60, 3, 8, 8), basis, family="low-pass")
