"""Coordinates: round trips, volumes, the laws of the components, priors, and what a user's own basis must be."""

import math

import pytest
import torch
from torch.testing import assert_close

from scoremachines import Gaussian, Ideal, Mixture, Moments, Noise
from scoremachines.bases import DCT, PCA, Fourier, Opponent, Pixel, Wavelet
from scoremachines.coordinates import Coordinates, Matrix, Prior, gaussian_law
from scoremachines.orders import by_variance
from scoremachines.paths import at_gamma, soft
from tests.conftest import by_thirds, pictures, refused, seeded

SHAPE = (1, 4, 4)
CLOSE = {"rtol": 1e-10, "atol": 1e-10}
FLOOR = 1e-3


def correlated(n, *shape, seed=0):
    """Images with neighbouring values alike, and a mean of their own."""
    walk = pictures(n, math.prod(shape), seed=seed) ** 3
    return walk.cumsum(1).reshape(n, *shape) / 4 + 0.3


@pytest.fixture
def images():
    return correlated(60, *SHAPE)


def rotation(D, seed=5):
    return torch.linalg.qr(torch.randn(D, D, generator=seeded(seed), dtype=torch.float64)).Q


BASES = {
    "pixel": lambda images: Pixel(),
    "fourier": lambda images: Fourier(),
    "dct": lambda images: DCT(),
    "haar": lambda images: Wavelet("haar", 2),
    "pca": PCA.fit,
    "matrix": lambda images: Matrix(rotation(images[0].numel()), images.shape[1:]),
}
every_basis = pytest.mark.parametrize("name", BASES)


def component_variance(basis, images):
    return basis.analysis(images - images.mean(0)).var(0, correction=0)


def matched(name, images):
    """Coordinates of the images in a basis, whitened component by component."""
    basis = BASES[name](images)
    return Coordinates(basis, images.mean(0), Prior.matched(component_variance(basis, images)))


def linear(coordinates):
    """The matrix S^-1 W, column by column."""
    shape = coordinates.mean.shape
    eye = torch.eye(shape.numel(), dtype=torch.float64).reshape(-1, *shape)
    return coordinates.analysis(eye + coordinates.mean).flatten(1).T


# chi and x -----------------------------------------------------------------------------------------------------------


@every_basis
def test_analysis_and_synthesis_are_inverse(name, images, randn):
    coordinates = matched(name, images)
    assert_close(coordinates.synthesis(coordinates.analysis(images)), images, **CLOSE)
    chi = randn(5, *SHAPE)
    assert_close(coordinates.analysis(coordinates.synthesis(chi)), chi, **CLOSE)


@every_basis
def test_the_map_is_the_basis_over_the_scale(name, images):
    coordinates = matched(name, images)
    found = linear(coordinates) * coordinates.prior.scale.flatten()[:, None]
    assert_close(found @ found.T, torch.eye(16).double(), **CLOSE)
    assert_close(
        found @ (images[0] - images.mean(0)).flatten(),
        coordinates.basis.analysis(images[:1] - images.mean(0)).flatten(),
    )
    assert_close(coordinates.analysis(images.mean(0, keepdim=True)), torch.zeros(1, *SHAPE).double(), **CLOSE)


@every_basis
def test_log_volume_is_that_of_the_map(name, images):
    coordinates = matched(name, images)
    sign, logdet = torch.linalg.slogdet(linear(coordinates))
    assert sign.abs() == 1
    assert coordinates.log_volume == pytest.approx(-logdet.item(), rel=1e-10)
    assert Coordinates(Pixel(), images[0], Prior.isotropic(SHAPE)).log_volume == 0


def test_colours_and_flat_samples_have_coordinates(randn):
    for data, basis in ((correlated(9, 3, 4, 4), Opponent(DCT())), (correlated(9, 6), Pixel())):
        scale = component_variance(basis, data)
        coordinates = Coordinates(basis, data.mean(0), Prior.matched(scale))
        assert_close(coordinates.synthesis(coordinates.analysis(data)), data, **CLOSE)
        assert_close(coordinates.analysis(data).var(0, correction=0), torch.ones_like(scale), **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_coordinates_follow_the_dtype_of_the_samples(dtype, images):
    for name in BASES:
        coordinates = matched(name, images)
        chi = coordinates.analysis(images.to(dtype))
        assert chi.dtype == dtype
        assert coordinates.synthesis(chi).dtype == dtype
        assert_close(coordinates.synthesis(chi), images.to(dtype), rtol=1e-4, atol=1e-5)


# White noise ---------------------------------------------------------------------------------------------------------


@every_basis
def test_white_noise_in_chi_has_the_covariance_of_the_prior(name, images):
    """W^T S^2 W in x: white for an isotropic prior in every basis."""
    coordinates = matched(name, images)
    eye = torch.eye(16).double().reshape(-1, *SHAPE)
    map_back = (coordinates.synthesis(eye) - coordinates.mean).flatten(1).T  # W^T S
    W = coordinates.basis.analysis(eye).flatten(1).T
    assert_close(map_back @ map_back.T, (W.T * coordinates.prior.scale.flatten() ** 2) @ W, **CLOSE)
    plain = Coordinates(coordinates.basis, coordinates.mean, Prior.isotropic(SHAPE))
    map_back = (plain.synthesis(eye) - plain.mean).flatten(1).T
    assert_close(map_back @ map_back.T, torch.eye(16).double(), **CLOSE)


@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 5, 6), (2, 3, 4)], ids=str)
def test_real_waves_drop_nothing_under_any_schedule(shape, randn):
    """Of a pair of frequencies each has its own place, so a schedule without their symmetry is served as it stands."""
    data = correlated(30, *shape)
    coordinates = matched("fourier", data)
    for seed in range(3):
        level = at_gamma(torch.randn(1, *shape, generator=seeded(seed), dtype=torch.float64) * 5)
        chi = level.add(coordinates.analysis(data), randn(*data.shape))
        x = coordinates.synthesis(chi)
        assert not x.is_complex()
        assert_close(coordinates.analysis(x), chi, rtol=1e-9, atol=1e-9)


@every_basis
def test_one_level_for_all_components_is_ordinary_noise_in_an_isotropic_prior(name, images, randn):
    coordinates = Coordinates(BASES[name](images), torch.zeros(SHAPE), Prior.isotropic(SHAPE))
    level, eps = at_gamma(torch.full((1, *SHAPE), 0.7, dtype=torch.float64)), randn(*images.shape)
    machine = Gaussian.fit(images)
    x = level.add(images, eps)
    inside = coordinates.law(machine).denoise(coordinates.analysis(x), level)
    assert_close(coordinates.synthesis(inside), machine.denoise(x, level), rtol=1e-8, atol=1e-9)
    ideal = Ideal.fit(coordinates.analysis(images))
    assert_close(
        coordinates.synthesis(ideal.denoise(coordinates.analysis(x), level)), Ideal.fit(images).denoise(x, level)
    )


# Laws ----------------------------------------------------------------------------------------------------------------


@every_basis
def test_the_law_of_a_gaussian_is_that_of_the_transformed_samples(name, images):
    coordinates = matched(name, images)
    found, expected = coordinates.law(Gaussian.fit(images)), Gaussian.fit(coordinates.analysis(images))
    assert_close(found.mean, expected.mean, **CLOSE)
    assert_close(found.cov, expected.cov, **CLOSE)
    assert found.shape == SHAPE
    assert (found.lam[1:] <= found.lam[:-1]).all()


@every_basis
def test_the_law_of_a_mixture_is_that_of_the_transformed_samples(name, images):
    coordinates = matched(name, images)
    found, expected = coordinates.law(by_thirds(images)), by_thirds(coordinates.analysis(images))
    assert_close(found.weights, expected.weights)
    for one, other in zip(found.components, expected.components, strict=True):
        assert_close(one.mean, other.mean, **CLOSE)
        assert_close(one.cov, other.cov, **CLOSE)


@every_basis
@pytest.mark.parametrize(
    "kind", [Gaussian.fit, by_thirds, lambda data: Gaussian.fit(data, 3)], ids=["one", "three", "rank"]
)
def test_log_densities_differ_by_the_volume(name, kind, images, randn):
    """log p(x) = log p(chi) - sum log S, with noise of deviation s in x: s / S_i in the components."""
    machine, coordinates, s = kind(images), matched(name, images), 0.3
    x = images[:7] + s * randn(7, *SHAPE)
    inside = Noise(1.0, s / coordinates.prior.scale[None])
    found = coordinates.law(machine).log_density(coordinates.analysis(x), inside) - coordinates.log_volume
    assert_close(found, machine.log_density(x, Noise(1.0, s)), **CLOSE)


def test_component_wise_noise_keeps_its_density_under_a_change_of_scale(images, randn):
    machine, sigma = Gaussian.fit(images), 0.1 + torch.rand(1, *SHAPE, generator=seeded(), dtype=torch.float64)
    coordinates = matched("pixel", images)
    x = images[:5] + sigma * randn(5, *SHAPE)
    inside = Noise(1.0, sigma / coordinates.prior.scale)
    found = coordinates.law(machine).log_density(coordinates.analysis(x), inside) - coordinates.log_volume
    assert_close(found, machine.log_density(x, Noise(1.0, sigma)), **CLOSE)


def test_gaussian_law_takes_a_mean_and_a_covariance(randn):
    root = randn(6, 6)
    law = gaussian_law(torch.arange(6.0), (root @ root.T).float(), (1, 2, 3))
    assert law.shape == (1, 2, 3)
    assert law.mean.dtype == law.cov.dtype == torch.float64
    assert_close(law.cov, (root @ root.T).float().double(), rtol=1e-5, atol=1e-5)
    assert_close(law.mean, torch.arange(6.0).double())


# Priors --------------------------------------------------------------------------------------------------------------


@every_basis
def test_a_matched_prior_gives_every_component_unit_variance(name, images):
    coordinates = matched(name, images)
    law = coordinates.law(Gaussian.fit(images))
    assert_close(law.cov.diagonal(), torch.ones(16).double(), **CLOSE)
    assert_close(law.mean, torch.zeros(16).double(), **CLOSE)


def test_a_matched_prior_whitens_the_principal_components(images):
    law = matched("pca", images).law(Gaussian.fit(images))
    assert_close(law.cov, torch.eye(16).double(), **CLOSE)


def test_the_two_priors():
    assert torch.equal(Prior.isotropic((2, 3)).scale, torch.ones(2, 3, dtype=torch.float64))
    variance = torch.tensor([4.0, 0.25, 0.0, -1e-18])
    assert Prior.matched(variance, 0.01).scale.tolist() == pytest.approx([2, 0.5, 0.1, 0.1], rel=1e-12)


def test_data_without_variance_in_some_components_are_served_with_a_floor():
    """Pixels that never vary: fewer samples than dimensions, and eigenvalues of 0 up to rounding."""
    data = correlated(7, *SHAPE)
    data[:, :, 0] = -1.0
    basis = PCA.fit(data)
    variance = component_variance(basis, data)
    assert (variance < 1e-14).sum() >= 10
    for of in (variance, basis.lam.reshape(SHAPE), basis.lam.reshape(SHAPE) - 1e-17):
        coordinates = Coordinates(basis, data.mean(0), Prior.matched(of, FLOOR))
        chi = coordinates.analysis(data)
        assert chi.abs().max() < 10
        assert_close(coordinates.synthesis(chi), data, **CLOSE)
        level = soft(by_variance(of, FLOOR), 1.0)(0.5)
        machine = coordinates.law(Gaussian.fit(data))
        assert machine.denoise(chi, level).isfinite().all()
        assert machine.log_density(chi, level).isfinite().all()


def test_a_variance_of_zero_needs_a_floor():
    variance = torch.tensor([1.0, 0.0])
    refused("a scale is 0, expected finite ones above 0; repair it, or give a floor", Prior.matched, variance)
    for bad in (-1.0, math.nan, math.inf):
        refused(f"a scale is {bad:.3g}", Prior, torch.tensor([1.0, bad]).double())


# A basis of one's own ------------------------------------------------------------------------------------------------


def test_a_matrix_has_the_basis_vectors_in_its_rows(images):
    W = rotation(16)
    basis = Matrix(W, torch.Size(SHAPE))
    assert_close(basis.analysis(images).flatten(1), images.flatten(1) @ W.T)
    assert_close(basis.synthesis(torch.eye(16).double().reshape(-1, *SHAPE)).flatten(1), W)
    assert_close(basis.synthesis(basis.analysis(images)), images)
    assert basis.bands(SHAPE)[0].name == "all"


def test_a_matrix_of_eigenvectors_is_pca(images, randn):
    pca = PCA.fit(images)
    basis, z = Matrix(pca.U.T, pca.shape), randn(3, *SHAPE)
    assert_close(basis.analysis(images), pca.analysis(images))
    assert_close(basis.synthesis(z), pca.synthesis(z))


@pytest.mark.parametrize("other", [Pixel(), DCT(), Fourier(), Wavelet("haar", 1)], ids=repr)
def test_a_matrix_can_be_any_basis(other, images):
    W = other.analysis(torch.eye(16).double().reshape(-1, *SHAPE)).flatten(1).T.contiguous()
    assert_close(Matrix(W, torch.Size(SHAPE)).analysis(images), other.analysis(images))


def test_a_matrix_mixes_channels_and_serves_single_samples(randn):
    data = correlated(4, 3, 2, 2)
    basis = Matrix(rotation(12), data.shape[1:])
    assert_close(basis.analysis(data)[2], basis.analysis(data[2]))


def test_bad_matrices_get_one_sentence(images):
    W, shape = rotation(16), torch.Size(SHAPE)
    refused(r"W W\^T differs from I by 3, expected an orthonormal matrix", Matrix, 2 * W, shape)
    bent = W.clone()
    bent[3, 4] += 1e-6
    refused(r"W W\^T differs from I", Matrix, bent, shape)
    refused(r"W W\^T differs from I by nan", Matrix, W * math.nan, shape)
    for wrong in (W[:, :15], W[:15], rotation(4), W.reshape(4, 4, 4, 4)):
        refused(r"expected \(16, 16\) for \(1, 4, 4\) samples", Matrix, wrong, shape)
    basis = Matrix(W, shape)
    for f in (basis.analysis, basis.synthesis):
        refused(r"shape \(60, 4, 2, 2\) and dtype", f, images.reshape(-1, 4, 2, 2))
        refused(r"dtype torch\.uint8", f, torch.ones(2, *SHAPE, dtype=torch.uint8))


# Errors --------------------------------------------------------------------------------------------------------------


def test_bad_coordinates_get_one_sentence(images):
    refused("expected the shape of one sample for both", Coordinates, DCT(), images[0], Prior.isotropic((1, 4, 5)))
    coordinates = matched("dct", images)
    for f in (coordinates.analysis, coordinates.synthesis):  # shapes that would broadcast
        for wrong in (torch.ones(2, 3, 4, 4), torch.ones(1, 4, 4), torch.ones(2, 1, 1, 4), torch.ones(4)):
            refused(r"expected \(1, 4, 4\) after the batch", f, wrong)
    with pytest.raises(ValueError, match="floating"):
        coordinates.analysis(torch.ones(2, *SHAPE, dtype=torch.int64))


def test_laws_without_a_form_in_components_get_one_sentence(images):
    coordinates = matched("dct", images)
    refused("the law is Ideal on .*, expected a Gaussian or Mixture", coordinates.law, Ideal.fit(images))
    other = Gaussian.fit(correlated(9, 2, 3))
    refused(r"the law is Gaussian on \(2, 3\)", coordinates.law, other)
    refused(r"the law is Gaussian on \(2, 3\)", coordinates.law, Mixture(torch.ones(1), (other,)))
    refused("the law is Moments", coordinates.law, Moments.of(images))
