"""Features of images: principal coordinates, and the marginals of wavelet bands against their definition."""

import math

import pytest
import pywt
import torch
from torch.testing import assert_close

from scoremachines import Moments
from scoremachines.bases import DCT, Fourier, Opponent, Wavelet
from scoremachines.features import PrincipalFeatures, wavelet_features

SHAPE = (2, 8, 8)


@pytest.fixture
def x(randn):
    return 0.3 * randn(6, *SHAPE)


# Principal coordinates ------------------------------------------------------------------------------------------


def test_principal_features_are_uncorrelated_with_the_largest_variances(randn):
    data = randn(60, 1, 2, 3) * torch.tensor([3.0, 1, 2, 0.5, 0.1, 0]).double().reshape(1, 2, 3)
    found = PrincipalFeatures.fit(data, 4)(data)
    lam = torch.linalg.eigvalsh(data.flatten(1).T.cov(correction=0)).flip(0)
    assert_close(found.mean(0), torch.zeros(4).double())
    assert_close(found.T.cov(correction=0), lam[:4].diag())


def test_all_principal_features_keep_every_distance(x):
    found = PrincipalFeatures.fit(x.flatten(2)[:, :1, :5], 5)
    y = x.flatten(2)[:, :1, 3:8]
    assert_close(torch.cdist(found(y), found(y)), torch.cdist(y.flatten(1), y.flatten(1)))


def test_principal_features_come_from_data_batches_or_moments(x):
    tensor, batched, moments = (PrincipalFeatures.fit(data, 3) for data in (x, x.split(4), Moments.of(x)))
    for other in (batched, moments):
        assert other.shape == tensor.shape == torch.Size(SHAPE)
        assert_close((other.U.T @ tensor.U).abs(), torch.eye(3).double())
        assert_close(other.mean, tensor.mean)


def test_principal_features_follow_the_images(x):
    fitted = PrincipalFeatures.fit(x, 3)
    assert fitted(x.float()).dtype == torch.float32
    assert fitted(x[:0]).shape == (0, 3)
    assert_close(fitted(x[2:3]), fitted(x)[2:3])


@pytest.mark.parametrize("count", [0, 129, 2.0])
def test_impossible_numbers_of_features_are_refused(x, count):
    with pytest.raises(ValueError, match=f"count is {count}.*dimension 128"):
        PrincipalFeatures.fit(x, count)


def test_images_of_another_shape_are_refused(x):
    found = PrincipalFeatures.fit(x, 3)
    with pytest.raises(ValueError, match=r"\(6, 128\), expected floating \(B, 2, 8, 8\)"):
        found(x.flatten(1))
    with pytest.raises(ValueError, match=r"torch.int64 of shape \(6, 2, 8, 8\)"):
        found(x.long())


# Wavelet marginals ----------------------------------------------------------------------------------------------


def by_hand(image, name, levels):
    """The features of one channel (H, W), from PyWavelets' own bands."""
    scaling, *details = pywt.wavedec2(image.numpy(), name, "periodization", levels)
    mean = scaling.mean() / 2**levels
    bands = [torch.tensor(scaling / 2**levels - mean)]
    bands += [torch.tensor(band / 2 ** (levels - i)) for i, triple in enumerate(details) for band in triple]
    found, q = [torch.tensor(mean)], 1 / 255
    for z in bands:
        fourth, second = (z**4).mean() + q**4, (z**2).mean() ** 2 + q**4
        found += [z.abs().mean(), (z**2).mean().sqrt(), (fourth / second).log()]
    return torch.stack(found)


@pytest.mark.parametrize(("name", "levels"), [("haar", 3), ("haar", 2), ("db2", 1), ("haar", 0)])
def test_marginals_are_those_of_the_bands(x, name, levels):
    expected = torch.stack([torch.cat([by_hand(channel, name, levels) for channel in image]) for image in x])
    assert_close(wavelet_features(x, Wavelet(name, levels)), expected)
    assert expected.shape == (6, 2 * (9 * levels + 4))


@pytest.mark.parametrize(("shape", "count"), [((1, 8, 8), 13), ((1, 28, 28), 22), ((3, 32, 32), 93)])
def test_number_of_features(rand, shape, count):
    assert wavelet_features(rand(3, *shape)).shape == (3, count)


def test_a_shift_by_the_coarsest_step_changes_nothing(x):
    for wavelet in (Wavelet("haar", 2), Wavelet("db2", 2)):
        assert_close(wavelet_features(x.roll((4, -4), (2, 3)), wavelet), wavelet_features(x, wavelet))


def test_what_negation_scale_and_offset_change(x):
    """Of the 4 + 9 features of a channel the first is the mean; then three for each of four bands."""
    wavelet = Wavelet("haar", 1)
    plain, negative, bright = (wavelet_features(y, wavelet).unflatten(1, (2, 13)) for y in (x, -x, x + 0.25))
    assert_close(negative[..., 0], -plain[..., 0])
    assert_close(negative[..., 1:], plain[..., 1:])
    assert_close(bright[..., 0], plain[..., 0] + 0.25)  # units of pixels
    assert_close(bright[..., 1:], plain[..., 1:])
    large = wavelet_features(1000 * x, wavelet).unflatten(1, (2, 13))
    assert_close(large[..., 1::3], 1000 * plain[..., 1::3])
    assert_close(large[..., 2::3], 1000 * plain[..., 2::3])
    assert_close(large[..., 3::3], wavelet_features(1e6 * x, wavelet).unflatten(1, (2, 13))[..., 3::3])


def test_transposition_exchanges_horizontal_and_vertical(x):
    plain, turned = (wavelet_features(y, Wavelet("haar", 1)).unflatten(1, (2, 13)) for y in (x, x.mT))
    order = [*range(4), 7, 8, 9, 4, 5, 6, 10, 11, 12]
    assert_close(turned, plain[..., order])


def test_the_shape_of_known_laws(randn):
    """log 3 for Gaussian coefficients, log of the band's size for one spike, 0 for a constant magnitude."""
    noise = wavelet_features(randn(40, 1, 64, 64), Wavelet("haar", 1))[:, [6, 9, 12]]
    assert noise.mean().item() == pytest.approx(math.log(3), abs=0.02)
    spike, checks = torch.zeros(2, 1, 1, 8, 8).double()
    spike[..., 0, 0] = 10
    checks[..., ::2, ::2] = checks[..., 1::2, 1::2] = 10
    assert wavelet_features(spike, Wavelet("haar", 1))[0, 6].item() == pytest.approx(math.log(16), rel=1e-3)
    assert wavelet_features(checks, Wavelet("haar", 1))[0, 12].item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("level", [0.0, 0.7, -1.0])
def test_constant_images_have_no_shape(level):
    """Rounding leaves residues in the bands; their tails must not count."""
    found = wavelet_features(torch.full((2, 1, 8, 8), level), Wavelet("db2", 1))
    assert_close(found[:, 0], torch.full((2,), level))
    assert found[:, 1:].abs().max() < 1e-6


def test_half_precision_has_shapes_too(x):
    """The fourth power of a pixel's rounding is zero in float16."""
    half = wavelet_features(x.half())
    assert half.dtype == torch.float16
    assert_close(half.float(), wavelet_features(x.half().float()), rtol=0.01, atol=0.01)
    assert wavelet_features(torch.zeros(2, 1, 8, 8).half()).eq(0).all()


def test_features_stay_finite_and_follow_the_images(x):
    for scale in (0, 1e-30, 1e4):
        assert wavelet_features(scale * x.float()).isfinite().all()
    assert wavelet_features(x.float()).dtype == torch.float32
    assert wavelet_features(x[:0]).shape == (0, 26)
    assert_close(wavelet_features(x[2:3]), wavelet_features(x)[2:3])


def test_another_basis_serves_too(rand):
    colour = rand(2, 3, 8, 8)
    luminance = wavelet_features(colour, Opponent(Wavelet("haar", 1)))[:, :13]
    assert_close(luminance, wavelet_features(colour.sum(1, keepdim=True) / math.sqrt(3), Wavelet("haar", 1)))
    for basis in (Fourier(), DCT()):
        assert wavelet_features(colour, basis).shape == (2, 9)


def test_images_without_four_axes_are_refused(x):
    with pytest.raises(ValueError, match=r"\(6, 128\), expected \(B, C, H, W\)"):
        wavelet_features(x.flatten(1))
    with pytest.raises(ValueError, match="multiples of 16"):
        wavelet_features(x, Wavelet("haar", 4))
