"""Padded frames: PyWavelets as the oracle, tightness, the paper's dictionaries, and what is refused."""

import warnings

import pytest
import pywt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from scoremachines.bases import Basis, Wavelet
from scoremachines.frames import Frame, isometry

SIZES = [(32, 32), (8, 12), (9, 7), (1, 5)]
TIGHT = [Frame(), Frame("haar", 2), Frame("db4", 1), Frame("coif1", 4), Frame("db2", 2, scaling_level=2)]
KEPT = [None, 0, 1, 2, 3]


def frame_matrix(frame, *size):
    """F, whose columns are the coefficients of unit images."""
    units = torch.eye(size[0] * size[1], dtype=torch.float64).reshape(-1, 1, *size)
    return frame.analysis(units).T


def decomposed(x, frame, level):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # small images: every coefficient sees the padding
        return pywt.wavedec2(x[:, 0].numpy(), frame.name, mode=frame.mode, level=level)


def expected_bands(x, frame, kept):
    """The bands by name, in order, from PyWavelets."""
    bands = {f"A{kept}": decomposed(x, frame, kept)[0]} if kept else {}
    _, *details = decomposed(x, frame, frame.levels)
    for level, triple in zip(range(frame.levels, 0, -1), details, strict=True):
        bands |= {f"{orientation}{level}": c for orientation, c in zip("HVD", triple, strict=True)}
    return bands


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["db2", "haar", "sym5"])
def test_frame_is_pywt(name, size, kept, randn):
    x, frame = randn(2, 1, *size), Frame(name, 3, scaling_level=kept)
    z, bands = frame.analysis(x), frame.bands((1, *size))
    expected = expected_bands(x, frame, 3 if kept is None else kept)
    assert [band.name for band in bands] == list(expected)
    for band in bands:
        assert band.name == f"{band.orientation}{band.level}"
        assert_close(z[:, band.grid].numpy(), expected[band.name], rtol=0, atol=1e-12)
    assert torch.cat([band.grid.flatten() for band in bands]).tolist() == list(range(z.shape[1]))


@pytest.mark.parametrize(
    ("side", "kept", "count"),
    [(32, None, 1311), (32, 1, 1564), (32, 0, 1275), (64, 1, 5628), (64, 0, 4539)],
)
def test_number_of_atoms(side, kept, count):
    """The dictionaries that are consistent with the paper's figures: 17 x 17, 10 x 10 and 6 x 6 cells at side 32."""
    frame = Frame(scaling_level=kept)
    assert frame.analysis(torch.ones(1, 1, side, side)).shape == (1, count)
    assert sum(band.grid.numel() for band in frame.bands((1, side, side))) == count
    if side == 32:
        assert {band.grid.shape for band in frame.bands((1, 32, 32)) if band.level} >= {(17, 17), (10, 10), (6, 6)}


@pytest.mark.parametrize("frame", TIGHT, ids=str)
@pytest.mark.parametrize("size", [(8, 12), (9, 7)])
def test_a_tight_frame_is_an_isometry_but_no_basis(frame, size):
    F = frame_matrix(frame, *size)
    n, d = F.shape
    assert n > d or frame.name == "haar"
    assert_close(F.T @ F, torch.eye(d, dtype=torch.float64), rtol=0, atol=1e-12)
    P = F @ F.T
    assert_close(P @ P, P, rtol=0, atol=1e-12)
    assert_close(P.trace(), torch.tensor(float(d), dtype=torch.float64))
    assert not isinstance(frame, Basis)


@pytest.mark.parametrize("frame", TIGHT, ids=str)
def test_synthesis_is_the_adjoint(frame):
    F = frame_matrix(frame, 8, 5)
    atoms = frame.synthesis(torch.eye(len(F), dtype=torch.float64), (1, 8, 5))
    assert_close(atoms.flatten(1), F, rtol=0, atol=1e-13)


@settings(max_examples=40, deadline=None)
@given(
    frame=st.sampled_from(TIGHT),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    seed=st.integers(0, 2**31),
)
def test_synthesis_is_a_left_inverse_and_energy_is_kept(frame, size, seed):
    x = torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    z = frame.analysis(x)
    assert_close(frame.synthesis(z, (1, *size)), x, rtol=0, atol=1e-12)
    assert_close(z.square().sum(1), x.square().sum((1, 2, 3)))


@pytest.mark.parametrize(("kept", "tight"), [(1, False), (0, False), (3, True), (None, True)])
def test_only_the_last_scaling_coefficients_make_it_tight(kept, tight):
    frame = Frame(scaling_level=kept)
    F = frame_matrix(frame, 16, 16)
    assert (bool((F.T @ F - torch.eye(256)).abs().max() < 1e-12)) == tight
    if tight:
        frame.synthesis(F.T, (1, 16, 16))
    else:
        with pytest.raises(ValueError, match=f"scaling coefficients of level {kept} of 3, so it is not tight"):
            frame.synthesis(F.T, (1, 16, 16))


def test_periodization_on_even_sides_is_the_basis(randn):
    """Then the frame is not redundant, and it is the packed basis in another order."""
    x = randn(2, 1, 16, 16)
    frame, basis = Frame("db2", 2, mode="periodization"), Wavelet("db2", 2)
    z, packed = frame.analysis(x), basis.analysis(x)[:, 0]
    for place, band in zip(frame.bands((1, 16, 16)), basis.bands((1, 16, 16)), strict=True):
        assert place.name == band.name
        assert_close(z[:, place.grid], packed[:, band.rows, band.columns])


def test_noise_in_the_coefficients_is_correlated():
    """Its covariance is the projection F F^T, which is why a frame is no basis."""
    P = frame_matrix(Frame(), 16, 16)
    P = P @ P.T
    assert (P - P.diag().diag()).abs().max() > 0.1


def test_dtype_derivatives_and_batches(randn):
    frame, x, v = Frame("db2", 2), randn(3, 1, 8, 6), randn(3, 1, 8, 6)
    z = frame.analysis(x)
    assert frame.analysis(x.float()).dtype == frame.synthesis(z.float(), (1, 8, 6)).dtype == torch.float32
    assert_close(frame.analysis(x.float()).double(), z, rtol=0, atol=1e-5)
    assert_close(torch.cat([frame.analysis(one) for one in x.split(1)]), z)
    assert_close(torch.func.jvp(frame.analysis, (x,), (v,))[1], frame.analysis(v))
    torch.autograd.gradcheck(frame.analysis, x[:1].clone().requires_grad_(), check_forward_ad=True)
    torch.autograd.gradcheck(lambda z: frame.synthesis(z, (1, 8, 6)), z[:1].clone().requires_grad_())


# Refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [mode for mode in pywt.Modes.modes if mode not in ("zero", "periodization")])
def test_paddings_that_are_not_isometric_are_refused(mode):
    sentence = rf'padding "{mode}" with db2 on 8 values is no tight frame: .* differs from I by .*; use mode="zero"'
    frame = Frame(mode=mode)
    with pytest.raises(ValueError, match=sentence):
        frame.analysis(torch.ones(1, 1, 8, 8))
    with pytest.raises(ValueError, match=sentence):
        frame.bands((1, 8, 8))


def test_periodization_of_an_odd_side_is_refused():
    with pytest.raises(ValueError, match='padding "periodization" with haar on 5 values is no tight frame'):
        isometry("haar", "periodization", 5)


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"name": "bior2.2"}, "bior2.2 is not orthonormal"),
        ({"name": "dmey"}, "dmey is not orthonormal"),
        ({"name": "db99"}, "'db99' is no discrete wavelet of PyWavelets"),
        ({"levels": 0}, "levels is 0, expected a whole number, at least one"),
        ({"levels": 1.5}, "levels is 1.5, expected a whole number, at least one"),
        ({"mode": "mirror"}, "mode is 'mirror', expected a padding of PyWavelets: zero"),
        ({"scaling_level": 4}, "scaling_level is 4, expected 0 to 3, or None"),
        ({"scaling_level": -1}, "scaling_level is -1, expected 0 to 3, or None"),
        ({"scaling_level": 0.5}, "scaling_level is 0.5, expected 0 to 3, or None"),
    ],
)
def test_bad_frames_are_refused(bad, sentence):
    with pytest.raises(ValueError, match=sentence):
        Frame(**bad)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 8, 8), (8, 8)])
def test_frames_take_grey_images(shape):
    sentence = r"the images have the sample shape \(.*\), expected \(1, H, W\)"
    with pytest.raises(ValueError, match=sentence):
        Frame().analysis(torch.ones(shape))
    with pytest.raises(ValueError, match=sentence):
        Frame().bands(shape[1:])


def test_frames_take_floating_tensors():
    with pytest.raises(ValueError, match=r"type torch.int32, expected a floating tensor"):
        Frame().analysis(torch.ones(1, 1, 8, 8).int())


@pytest.mark.parametrize("shape", [(2, 1310), (1311,)])
def test_synthesis_refuses_another_number_of_coefficients(shape):
    sentence = r"z has shape \(.*\), expected \(B, 1311\) for images \(1, 32, 32\)"
    with pytest.raises(ValueError, match=sentence):
        Frame().synthesis(torch.ones(shape), (1, 32, 32))
