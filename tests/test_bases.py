"""Bases: orthogonality, PyWavelets as the oracle, bands, differentiation, and what each basis is for."""

import dataclasses
import warnings

import numpy as np
import pytest
import pywt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dctn
from torch.testing import assert_close

from scoremachines import Moments
from scoremachines.bases import DCT, PCA, Band, Basis, Fourier, Opponent, Pixel, Wavelet
from scoremachines.matrices import level_matrix

ORTHONORMAL = [n for n in pywt.wavelist(kind="discrete") if not n.startswith(("bior", "rbio", "dmey"))]
SHAPE = (3, 8, 4)


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


BASES = {
    "pixel": Pixel(),
    "fourier": Fourier(),
    "dct": DCT(),
    "pca": PCA.fit(normal(0, 200, *SHAPE)),
    "haar": Wavelet("haar"),
    "db2": Wavelet("db2", 2),
    "coif3": Wavelet("coif3", 1),
    "identity": Wavelet("db2", 0),
    "opponent-wavelet": Opponent(Wavelet("db3", 1)),
    "opponent-fourier": Opponent(Fourier()),
}
every = pytest.mark.parametrize("basis", BASES.values(), ids=BASES)
directions = pytest.mark.parametrize("direction", ["analysis", "synthesis"])
laws = settings(max_examples=60, deadline=None)


def matrix(basis, shape=SHAPE):
    """W, whose columns are the coefficients of unit samples."""
    units = torch.eye(int(np.prod(shape)), dtype=torch.float64).unflatten(1, shape)
    return basis.analysis(units).flatten(1).T


def packed(x, name, levels):
    """PyWavelets' packed coefficients; it warns when a filter is longer than the signal, which is legal here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        coeffs = pywt.wavedec2(x.numpy(), name, mode="periodization", level=levels, axes=(-2, -1))
    array, slices = pywt.coeffs_to_array(coeffs, axes=(-2, -1))
    return torch.from_numpy(array), slices


# Every basis ----------------------------------------------------------------------------------------------------


@every
def test_a_basis_is_an_orthogonal_matrix(basis):
    W = matrix(basis)
    identity = torch.eye(len(W), dtype=torch.float64)
    assert_close(W @ W.T, identity, rtol=0, atol=1e-13)
    assert_close(W.T @ W, identity, rtol=0, atol=1e-13)


@every
def test_synthesis_is_the_transpose(basis):
    units = torch.eye(96, dtype=torch.float64).unflatten(1, SHAPE)
    assert_close(basis.synthesis(units).flatten(1), matrix(basis), rtol=0, atol=1e-13)


bases = st.sampled_from(list(BASES.values()))
samples = st.builds(
    lambda seed, n, scale: scale * normal(seed, n, *SHAPE),
    st.integers(0, 2**31),
    st.integers(0, 3),
    st.sampled_from([1e-6, 1.0, 1e6]),
)


@laws
@given(basis=bases, x=samples)
def test_synthesis_undoes_analysis_and_energy_is_kept(basis, x):
    z = basis.analysis(x)
    scale = x.abs().max() if len(x) else 1
    assert z.shape == x.shape
    assert_close(basis.synthesis(z), x, rtol=0, atol=1e-13 * float(scale))
    assert_close(basis.analysis(basis.synthesis(x)), x, rtol=0, atol=1e-13 * float(scale))
    assert_close(z.square().sum(), x.square().sum())


@laws
@given(basis=bases, x=samples, y=samples, a=st.floats(-3, 3))
def test_analysis_is_linear_and_keeps_inner_products(basis, x, y, a):
    n = min(len(x), len(y))
    x, y = x[:n], y[:n]
    both = basis.analysis(a * x + y)
    scale = 1 + float(x.abs().sum() + y.abs().sum())
    assert_close(both, a * basis.analysis(x) + basis.analysis(y), rtol=0, atol=1e-12 * scale)
    assert_close((basis.analysis(x) * basis.analysis(y)).sum(), (x * y).sum(), rtol=1e-9, atol=1e-12 * scale**2)


@every
@directions
def test_a_batch_is_its_samples(basis, direction, randn):
    transform, x = getattr(basis, direction), randn(5, *SHAPE)
    before = x.clone()
    assert_close(transform(x), torch.cat([transform(one) for one in x.split(1)]))
    assert_close(torch.vmap(transform)(x), transform(x))
    assert_close(transform(x.flip(-1).expand(5, *SHAPE)), transform(x.flip(-1).contiguous()))
    assert_close(transform(x[:1].expand(5, *SHAPE))[4], transform(x[:1])[0])  # an expanded batch shares its memory
    assert_close(x, before, rtol=0, atol=0)


@every
@directions
def test_float32_stays_float32(basis, direction, randn):
    transform, x = getattr(basis, direction), randn(2, *SHAPE)
    assert transform(x.float()).dtype == torch.float32
    assert transform(x).dtype == torch.float64
    assert_close(transform(x.float()).double(), transform(x), rtol=0, atol=1e-5)


@every
@directions
def test_the_device_follows_the_samples(basis, direction):
    """The meta device refuses to mix with any other, as an accelerator would."""
    z = getattr(basis, direction)(torch.ones(2, *SHAPE, device="meta"))
    assert z.device.type == "meta"
    assert z.shape == (2, *SHAPE)


@every
def test_white_noise_stays_white(basis):
    """The covariance of the coefficients of 200,000 draws is sigma^2 I within five standard errors."""
    n, sigma = 200_000, 0.7
    x = sigma * torch.randn(n, 3, 4, 2, generator=torch.Generator().manual_seed(1))
    basis = PCA.fit(normal(0, 50, 3, 4, 2)) if isinstance(basis, PCA) else basis
    basis = Wavelet("haar", 1) if basis == BASES["db2"] else basis  # two columns allow one level
    cov = Moments.of(basis.analysis(x)).cov / sigma**2
    assert_close(cov, torch.eye(24, dtype=torch.float64), rtol=0, atol=5 * (2 / n) ** 0.5)


@every
@directions
def test_derivatives(basis, direction):
    """The derivative of a linear map is the map; reverse, forward, batched and second order."""
    transform, x, v = getattr(basis, direction), normal(1, 1, *SHAPE), normal(2, 1, *SHAPE)
    torch.autograd.gradcheck(transform, x.clone().requires_grad_(), check_forward_ad=True, check_batched_grad=True)
    assert_close(torch.func.jvp(transform, (x,), (v,))[1], transform(v))
    hessian = torch.func.hessian(lambda x: transform(x)[0, 0].pow(3).sum() / 6)(x[:, :, :, :])
    rows = torch.func.jacrev(transform)(x)[0, 0].flatten(0, -5).flatten(1)
    assert_close(hessian.reshape(96, 96), rows.T @ (transform(x)[0, 0].reshape(-1, 1) * rows))


@every
@directions
def test_use_in_inference_mode_leaves_nothing_behind(basis, direction):
    """A matrix first made in inference mode must not reach a later gradient."""
    level_matrix.cache_clear()
    transform, x = getattr(basis, direction), normal(3, 1, *SHAPE)
    with torch.inference_mode():
        transform(x)
    x.requires_grad_()
    transform(x).sum().backward()
    assert x.grad.isfinite().all()


@every
@pytest.mark.parametrize(("bad", "found"), [(torch.ones(1, *SHAPE).int(), "int32"), (np.ones((1, *SHAPE)), "ndarray")])
@directions
def test_only_floating_tensors_are_transformed(basis, bad, found, direction):
    with pytest.raises(ValueError, match=rf"samples have type (torch\.)?{found}, expected a floating tensor"):
        getattr(basis, direction)(bad)


@every
def test_bands_tile_every_channel_once(basis):
    seen = torch.zeros(8, 4)
    for band in basis.bands(SHAPE):
        seen[band.rows, band.columns] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("basis", [Pixel(), Fourier(), DCT(), BASES["pca"], Opponent(DCT())])
def test_other_bases_have_one_band(basis):
    assert basis.bands(SHAPE) == [Band("all", 0, "all", slice(0, 8), slice(0, 4))]


@pytest.mark.parametrize("basis", [Fourier(), DCT(), Wavelet()])
@pytest.mark.parametrize("shape", [(5,), (2, 0, 4)])
def test_images_have_two_axes(basis, shape):
    with pytest.raises(ValueError, match="last two axes"):
        basis.analysis(torch.ones(shape))
    with pytest.raises(ValueError, match="last two axes"):
        basis.bands(shape)


def test_bases_are_values():
    assert Wavelet("db2", 2) == Wavelet("db2", 2) != Wavelet("db2", 1)
    assert len({Pixel(), Pixel(), Fourier(), DCT(), Wavelet(), Wavelet(), Opponent(DCT()), Opponent(DCT())}) == 5
    for basis in BASES.values():
        assert isinstance(basis, Basis)
        with pytest.raises(dataclasses.FrozenInstanceError):
            basis.levels = 3


# Wavelet --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ORTHONORMAL)
@pytest.mark.parametrize(("size", "levels"), [((8, 8), 3), ((2, 4), 1), ((16, 24), 3), ((32, 32), 5), ((12, 20), 2)])
def test_wavelet_is_pywt(name, size, levels, randn):
    x = randn(2, 2, *size)
    expected, _ = packed(x, name, levels)
    basis = Wavelet(name, levels)
    assert_close(basis.analysis(x), expected, rtol=0, atol=1e-12)
    # the symlet filters themselves are orthonormal to about 5e-12; errors add up over taps and levels
    assert_close(basis.synthesis(expected), x, rtol=0, atol=1e-9 if name.startswith("sym") else 1e-12)


@laws
@given(
    name=st.sampled_from(ORTHONORMAL),
    levels=st.integers(0, 4),
    odd=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    seed=st.integers(0, 2**31),
)
def test_wavelet_is_pywt_whenever_the_sides_divide(name, levels, odd, seed):
    x = normal(seed, 1, 1, odd[0] << levels, odd[1] << levels)
    z = Wavelet(name, levels).analysis(x)
    assert_close(z, packed(x, name, levels)[0], rtol=0, atol=1e-12)
    assert_close(Wavelet(name, levels).synthesis(z), x, rtol=0, atol=1e-9 if name.startswith("sym") else 1e-12)


@pytest.mark.parametrize("name", ORTHONORMAL)
@pytest.mark.parametrize("n", [2, 6, 32])
def test_one_level_is_an_orthogonal_matrix(name, n):
    W = level_matrix(name, n)
    np.testing.assert_allclose(W @ W.T, np.eye(n), atol=1e-9 if name.startswith("sym") else 1e-12)


def test_haar_by_hand():
    x = torch.tensor([[1.0, 2.0], [4.0, 8.0]])
    z = Wavelet("haar", 1).analysis(x)
    assert_close(z, torch.tensor([[15.0, -5.0], [-9.0, 3.0]]) / 2)


def test_a_constant_image_has_no_details(randn):
    """Vanishing moments: db3 kills constants, and a periodic basis has no boundary where they would come back."""
    z = Wavelet("db3", 2).analysis(torch.full((1, 1, 16, 16), 3.0, dtype=torch.float64))
    assert_close(z[..., :4, :4], torch.full((1, 1, 4, 4), 12.0, dtype=torch.float64))
    z[..., :4, :4] = 0
    assert z.abs().max() < 1e-10


@pytest.mark.parametrize(
    ("name", "size", "levels"),
    [
        ("db2", (32, 32), 3),
        ("db2", (64, 64), 4),
        ("db2", (8, 8), 1),
        ("haar", (28, 28), 2),
        ("haar", (16, 64), 4),
        ("haar", (12, 32), 2),
        ("db4", (32, 32), 2),
        ("db2", (5, 8), 0),
        ("db8", (8, 8), 0),
        ("db2", (1, 1), 0),
    ],
)
def test_default_levels(name, size, levels, randn):
    """The largest L with 2^L dividing both sides and L <= dwt_max_level."""
    limit = pywt.dwt_max_level(min(size), name)
    assert levels == max(L for L in range(limit + 1) if all(n % 2**L == 0 for n in size))
    assert Wavelet(name).depth((1, *size)) == levels
    x = randn(1, 1, *size)
    assert_close(Wavelet(name).analysis(x), Wavelet(name, levels).analysis(x))


@pytest.mark.parametrize(("name", "size", "levels"), [("db2", (32, 32), 3), ("haar", (8, 16), 2), ("coif1", (4, 8), 1)])
def test_bands_hold_what_pywt_says(name, size, levels, randn):
    x = randn(2, 3, *size)
    z = Wavelet(name, levels).analysis(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        scaling, *details = pywt.wavedec2(x, name, mode="periodization", level=levels, axes=(-2, -1))
    expected = {f"A{levels}": scaling}
    for level, triple in zip(range(levels, 0, -1), details, strict=True):
        expected |= {f"{orientation}{level}": c for orientation, c in zip("HVD", triple, strict=True)}
    bands = Wavelet(name, levels).bands(x.shape[1:])
    assert [band.name for band in bands] == list(expected)
    for band in bands:
        assert band.name == f"{band.orientation}{band.level}"
        assert_close(z[..., band.rows, band.columns].numpy(), expected[band.name], rtol=0, atol=1e-12)


def test_bands_of_the_identity():
    assert Wavelet("db2", 0).bands((1, 5, 7)) == [Band("A0", 0, "A", slice(0, 5), slice(0, 7))]


def test_horizontal_details_are_of_horizontal_edges():
    """A step from the upper to the lower half is seen by H, which differs down the rows, and by nothing else."""
    step = torch.ones(1, 8, 8, dtype=torch.float64)
    step[:, 3:] = -1
    z = Wavelet("haar", 1).analysis(step[None])
    energy = {b.name: z[..., b.rows, b.columns].square().sum() for b in Wavelet("haar", 1).bands((1, 8, 8))}
    assert energy["H1"] > 1
    assert_close(energy["V1"] + energy["D1"], torch.zeros((), dtype=torch.float64))


@pytest.mark.parametrize("levels", [0, 1, 3])
def test_scaling_coefficients_of_every_level(levels, randn):
    x = randn(2, 3, 16, 24)
    basis = Wavelet("db2", levels)
    found = basis.scaling(basis.analysis(x))
    assert len(found) == levels
    for j, low in enumerate(found, 1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            expected = pywt.wavedec2(x, "db2", mode="periodization", level=j, axes=(-2, -1))[0]
        assert_close(low.numpy(), expected, rtol=0, atol=1e-12)


def test_channels_are_separate(randn):
    x = randn(2, 3, 8, 8)
    z = Wavelet().analysis(x)
    for channel in range(3):
        assert_close(z[:, channel], Wavelet().analysis(x[:, channel]))


@pytest.mark.parametrize("name", [n for n in pywt.wavelist(kind="discrete") if n not in ORTHONORMAL])
def test_wavelets_that_are_not_orthonormal_are_refused(name):
    """By their filters, not by PyWavelets' flags: dmey is flagged orthogonal; bior1.1 and rbio1.1 are Haar's."""
    if name.endswith("1.1"):
        assert_close(level_matrix(name, 8), level_matrix("haar", 8))
        assert Wavelet(name).name == name
        return
    with pytest.raises(ValueError, match=rf"{name} is not orthonormal: .* differs from I by .*; expected a haar, db"):
        Wavelet(name)


@pytest.mark.parametrize(
    ("name", "close"),
    [("db99", "db9"), ("DB2", "db2"), ("coif33", "coif3"), ("morl", "haar"), ("?", "haar"), (3, "haar")],
)
def test_unknown_wavelets_are_refused_with_close_names(name, close):
    with pytest.raises(
        ValueError, match=rf"is no discrete wavelet of PyWavelets; expected, say, .*\b{close}\b"
    ) as error:
        Wavelet(name)
    assert repr(name) in str(error.value)


@pytest.mark.parametrize("levels", [-1, 1.0, "2", True])
def test_levels_are_whole_numbers(levels):
    with pytest.raises(ValueError, match="expected a whole number that is not negative, or None") as error:
        Wavelet("db2", levels)
    assert repr(levels) in str(error.value)


@pytest.mark.parametrize("method", ["analysis", "synthesis", "scaling"])
def test_sides_must_be_divisible(method):
    sentence = "the images are 28 x 32, expected multiples of 8 for 3 levels; resize the images or ask for fewer levels"
    with pytest.raises(ValueError, match=sentence):
        getattr(Wavelet("db2", 3), method)(torch.ones(1, 1, 28, 32))
    with pytest.raises(ValueError, match=sentence):
        Wavelet("db2", 3).bands((1, 28, 32))


# Fourier and DCT ------------------------------------------------------------------------------------------------


def stationary(*size):
    """The covariance of a stationary field on the torus that is neither separable nor symmetric under reflection."""
    filtered = torch.fft.fft2(normal(5, *size))
    correlation = torch.fft.ifft2(filtered.abs() ** 2).real
    rows, columns = (torch.arange(n)[:, None] - torch.arange(n) for n in size)
    wrapped = correlation[rows[:, None, :, None] % size[0], columns[None, :, None, :] % size[1]]
    return wrapped.reshape(size[0] * size[1], -1), filtered.abs() ** 2


@pytest.mark.parametrize("size", [(4, 4), (5, 4), (5, 3), (1, 6), (1, 1), (8, 6)])
def test_fourier_diagonalises_stationary_covariances(size):
    cov, power = stationary(*size)
    W = matrix(Fourier(), (1, *size))
    assert_close(W @ W.T, torch.eye(len(W), dtype=torch.float64), rtol=0, atol=1e-13)
    assert_close(W @ cov @ W.T, power.flatten().diag(), rtol=1e-9, atol=1e-9)
    if min(size) > 2:
        other = matrix(DCT(), (1, *size))
        assert (other @ cov @ other.T).triu(1).abs().max() > 0.1  # periodic waves, and no others


def test_fourier_of_a_cosine_and_a_sine():
    k = torch.arange(8, dtype=torch.float64)
    angle = 2 * torch.pi * (k[:, None] * 1 + k * 2) / 8
    for wave, place, sign in ((angle.cos(), (1, 2), 1), (angle.sin(), (7, 6), 1)):
        z = Fourier().analysis(wave)
        expected = torch.zeros(8, 8, dtype=torch.float64)
        expected[place] = sign * 8 / 2**0.5
        assert_close(z, expected, rtol=0, atol=1e-12)


def test_dct_is_scipys(randn):
    x = randn(2, 3, 6, 5)
    assert_close(DCT().analysis(x).numpy(), dctn(x.numpy(), axes=(-2, -1), norm="ortho"))


# PCA ------------------------------------------------------------------------------------------------------------


def test_pca_diagonalises_the_covariance(data):
    basis = PCA.fit(data)
    moments = Moments.of(basis.analysis(data))
    assert_close(moments.cov, basis.lam.diag(), rtol=0, atol=1e-12)
    assert (basis.lam.diff() <= 0).all()
    assert_close(basis.analysis(torch.zeros_like(data)), torch.zeros_like(data))  # nothing is centred


def test_pca_of_moments_is_pca_of_data(data):
    a, b = PCA.fit(data), PCA.fit(Moments.of(data[:4]).merge(Moments.of(data[4:])))
    assert a.shape == b.shape == data.shape[1:]
    assert_close(a.lam, b.lam)
    assert_close((a.U * a.lam) @ a.U.T, (b.U * b.lam) @ b.U.T)


def test_pca_mixes_channels():
    x = normal(0, 50, 1, 2, 2).expand(50, 3, 2, 2)
    z = PCA.fit(x).analysis(x)
    assert z.flatten(1)[:, 4:].abs().max() < 1e-6  # three equal channels have four degrees of freedom


def test_pca_refuses_other_samples(data):
    with pytest.raises(ValueError, match=r"shape \(4, 1, 3, 2\), expected \(B, 1, 2, 3\), which the basis was fitted"):
        PCA.fit(data).analysis(torch.ones(4, 1, 3, 2))


@pytest.mark.parametrize(
    "bad", [torch.empty(0, 3), torch.ones(3), torch.full((2, 3), torch.nan), torch.ones(2, 3).int(), [1.0], np.ones(3)]
)
def test_pca_refuses_bad_data(bad):
    with pytest.raises(ValueError, match=r"expected \(N, \*shape\) without NaN|expected a floating tensor"):
        PCA.fit(bad)


# Opponent -------------------------------------------------------------------------------------------------------


def test_opponent_colours():
    grey = torch.full((1, 3, 4, 4), 0.5, dtype=torch.float64)
    z = Opponent(Pixel()).analysis(grey)
    assert_close(z[:, 0], 3**0.5 * grey[:, 0])
    assert_close(z[:, 1:], torch.zeros_like(z[:, 1:]))
    rows = torch.tensor([[1, 1, 1], [1, 0, -1], [1, -2, 1]]).double() / torch.tensor([[3], [2], [6]]).double().sqrt()
    assert_close(matrix(Opponent(Pixel()), (3, 1, 1)), rows)


def test_opponent_composes_with_its_basis(randn):
    x = randn(2, *SHAPE)
    basis = Wavelet("db2", 2)
    assert_close(Opponent(basis).analysis(x), basis.analysis(Opponent(Pixel()).analysis(x)))
    assert Opponent(basis).bands(SHAPE) == basis.bands(SHAPE)


@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (4, 4)])
@directions
def test_opponent_needs_three_channels(shape, direction):
    with pytest.raises(ValueError, match=r"expected three colour channels: \(B, 3, H, W\)"):
        getattr(Opponent(Pixel()), direction)(torch.ones(shape))
