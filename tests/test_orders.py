"""Ordering labels against the basis functions they describe."""

import math

import pytest
import torch
from torch.testing import assert_close

from scoremachines.bases import DCT, PCA, Fourier, Opponent, Pixel, Wavelet
from scoremachines.orders import by_column, by_frequency, by_level, by_row, by_variance
from tests.conftest import pictures, refused

SIZES = [(8, 8), (4, 8), (5, 6), (1, 7)]


def elements(basis, rows, columns):
    """The basis functions, one for every coefficient: (rows, columns, rows, columns)."""
    unit = torch.eye(rows * columns, dtype=torch.float64).reshape(-1, 1, rows, columns)
    return basis.synthesis(unit).reshape(rows, columns, rows, columns)


# Variance ------------------------------------------------------------------------------------------------------------


def test_by_variance_is_minus_the_log():
    variance = torch.tensor([[0.5, 2.0], [1.0, 8.0]])
    assert_close(by_variance(variance), -variance.double().log(), rtol=1e-15, atol=0)
    assert by_variance(variance).flatten().argsort().tolist() == [3, 1, 2, 0]  # large variances first


def test_a_floor_raises_small_variances():
    variance = torch.tensor([1.0, 1e-12, 0.0, -1e-17], dtype=torch.float64)
    assert_close(by_variance(variance, 1e-3), -torch.tensor([1.0, 1e-3, 1e-3, 1e-3]).double().log())


# Frequency -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "columns"), SIZES, ids=str)
def test_fourier_coefficients_are_labelled_by_the_frequency_of_their_wave(rows, columns):
    """A plane wave of k rows and l columns cycles, of any phase, fills only places with the label |(k / H, l / W)|."""
    labels = by_frequency(Fourier(), (1, rows, columns))[0]
    i, j = torch.arange(rows).double()[:, None], torch.arange(columns).double()
    for k in range(-(rows // 2), rows // 2 + 1):
        for m in range(-(columns // 2), columns // 2 + 1):
            wave = torch.cos(2 * math.pi * (k * i / rows + m * j / columns) + 0.4)
            filled = Fourier().analysis(wave[None, None])[0, 0].abs() > 1e-9
            expected = torch.full((int(filled.sum()),), math.hypot(k / rows, m / columns), dtype=torch.float64)
            assert filled.any()
            assert_close(labels[filled], expected)


@pytest.mark.parametrize(("rows", "columns"), SIZES, ids=str)
def test_cosine_coefficients_are_labelled_by_the_frequency_of_their_wave(rows, columns):
    """Half a cycle over the image is the frequency 1 / 2n."""
    labels = by_frequency(DCT(), (1, rows, columns))[0]
    i, j = torch.arange(rows).double()[:, None] + 0.5, torch.arange(columns).double() + 0.5
    for k in range(rows):
        for m in range(columns):
            f, g = k / (2 * rows), m / (2 * columns)
            wave = torch.cos(2 * math.pi * f * i) * torch.cos(2 * math.pi * g * j)
            filled = DCT().analysis(wave[None, None])[0, 0].abs() > 1e-9
            assert filled.nonzero().tolist() == [[k, m]]
            assert labels[k, m].item() == pytest.approx(math.hypot(f, g), rel=1e-14)


@pytest.mark.parametrize("basis", [Fourier(), DCT()], ids=repr)
def test_the_frequency_is_the_bending_of_the_element(basis):
    """On the torus, and on the mirrored image, the second difference of a wave is 2 cos(2 pi f) - 2 times the wave."""
    rows, columns = 6, 4
    waves, labels = elements(basis, rows, columns), by_frequency(basis, (1, rows, columns))[0]
    middle = slice(1, -1)
    for k in range(rows):  # waves along the columns only
        wave, expected = waves[k, 0, :, 0], 2 * math.cos(2 * math.pi * labels[k, 0]) - 2
        assert_close((wave[2:] - 2 * wave[middle] + wave[:-2]), expected * wave[middle], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("basis", [Fourier(), DCT()], ids=repr)
def test_frequencies_span_the_known_range(basis):
    labels = by_frequency(basis, (1, 8, 8))
    assert labels[0, 0, 0] == 0
    assert (labels.flatten()[1:] > 0).all()
    highest = 0.5 if isinstance(basis, Fourier) else 7 / 16
    assert labels.max().item() == pytest.approx(math.sqrt(2) * highest, rel=1e-14)


# Wavelet levels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "basis", [Wavelet("haar"), Wavelet("haar", 2), Wavelet("db2", 1), Wavelet("haar", 0)], ids=repr
)
def test_levels_count_from_coarse_to_fine(basis):
    """In steps of one from 0; with haar, label l > 0 belongs to functions that fill a square of side 2^(L + 1 - l)."""
    labels, depth = by_level(basis, (1, 8, 8))[0], basis.depth((1, 8, 8))
    assert labels.unique().tolist() == list(range(depth + 1))
    assert (labels == 0).sum() == (64 >> 2 * depth)
    if basis.name == "haar":
        sizes = (elements(basis, 8, 8) != 0).sum((2, 3))
        assert torch.equal(
            sizes.double(), 4 ** (depth + 1 - labels.clamp(min=1)) if depth else torch.ones(8, 8).double()
        )


# Places --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["left to right", "right to left"])
@pytest.mark.parametrize(("rows", "columns"), SIZES, ids=str)
def test_pixels_are_labelled_by_their_column(direction, rows, columns):
    labels = by_column(Pixel(), (1, rows, columns), direction)
    expected = list(range(columns)) if direction == "left to right" else list(range(columns))[::-1]
    assert labels[0].tolist() == [expected] * rows


@pytest.mark.parametrize("direction", ["top to bottom", "bottom to top"])
def test_pixels_are_labelled_by_their_row(direction):
    labels = by_row(Pixel(), (1, 3, 2), direction)
    assert labels[0].T.tolist() == [[0, 1, 2] if direction == "top to bottom" else [2, 1, 0]] * 2


@pytest.mark.parametrize("levels", [None, 1, 2])
@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (8, 16), (16, 8)], ids=str)
def test_haar_wavelets_are_labelled_by_the_middle_of_their_support(levels, rows, columns):
    """The centre of mass of the square of each basis function, in pixels."""
    basis = Wavelet("haar", levels)
    power = elements(basis, rows, columns) ** 2
    row = (power.sum(3) * torch.arange(rows)).sum(2)
    column = (power.sum(2) * torch.arange(columns)).sum(2)
    shape = (1, rows, columns)
    assert_close(by_row(basis, shape, "top to bottom")[0], row)
    assert_close(by_row(basis, shape, "bottom to top")[0], rows - 1 - row)
    assert_close(by_column(basis, shape, "left to right")[0], column)
    assert_close(by_column(basis, shape, "right to left")[0], columns - 1 - column)


@pytest.mark.parametrize("name", ["db2", "sym4", "coif1"])
def test_other_wavelets_are_labelled_within_their_spacing(name):
    """The mass of a longer filter lies within one step of its level of the label, on the circle of the image."""
    basis, n = Wavelet(name, 1), 16
    power = (elements(basis, n, n) ** 2).sum(2)
    angle = 2 * math.pi * torch.arange(n).double() / n
    middle = torch.atan2((power * angle.sin()).sum(2), (power * angle.cos()).sum(2)) * n / (2 * math.pi)
    gap = (middle - by_column(basis, (1, n, n), "left to right")[0] + n / 2) % n - n / 2
    assert gap.abs().max() < 2


def test_labels_add_up():
    """A level and a column: the labels of a wavelet transform that goes from coarse to fine and from left to right."""
    basis, shape = Wavelet("haar", 2), (1, 4, 4)
    labels = by_level(basis, shape) + 0.1 * by_column(basis, shape, "left to right")
    assert labels.flatten().argmin() == 0
    assert labels[0, -1, -1] == labels.max()
    assert (labels[0, 2:, 2:].diff(dim=1) > 0).all()


# Channels ------------------------------------------------------------------------------------------------------------

ORDERS = {
    "frequency": lambda shape: by_frequency(DCT(), shape),
    "waves": lambda shape: by_frequency(Fourier(), shape),
    "level": lambda shape: by_level(Wavelet("haar", 1), shape),
    "column": lambda shape: by_column(Wavelet("haar", 1), shape, "left to right"),
    "row": lambda shape: by_row(Pixel(), shape, "bottom to top"),
}


@pytest.mark.parametrize("name", ORDERS)
def test_every_channel_has_the_same_labels(name):
    """Labels have the shape of one sample, of which each channel can be changed by itself."""
    one, three = ORDERS[name]((1, 4, 6)), ORDERS[name]((3, 4, 6))
    assert three.shape == (3, 4, 6)
    assert three.dtype == torch.float64
    assert torch.equal(three, one.expand(3, 4, 6))
    three[0] += 1
    assert torch.equal(three[1], one[0])


@pytest.mark.parametrize("name", ORDERS)
def test_an_image_without_channels_is_an_image(name):
    assert torch.equal(ORDERS[name]((4, 6)), ORDERS[name]((1, 4, 6))[0])


# Errors --------------------------------------------------------------------------------------------------------------


def test_bad_variances_get_one_sentence():
    refused("a variance is 0, expected finite ones above 0", by_variance, torch.tensor([1.0, 0.0]))
    refused("a variance is nan", by_variance, torch.tensor([1.0, math.nan]), 0.1)
    refused("a variance is inf", by_variance, torch.tensor([math.inf, 1.0]))


def test_bad_bases_get_one_sentence():
    pca = PCA.fit(pictures(9, 1, 2, 2))
    for basis in (Pixel(), Wavelet("haar"), pca, Opponent(DCT())):
        refused("no frequency; use Fourier or DCT", by_frequency, basis, (1, 4, 4))
    for basis in (Pixel(), DCT(), pca):
        refused("no levels; use Wavelet", by_level, basis, (1, 4, 4))
    for basis in (DCT(), Fourier(), pca):
        refused("fill the image; use Pixel or Wavelet", by_column, basis, (1, 4, 4), "left to right")
        refused("fill the image; use Pixel or Wavelet", by_row, basis, (1, 4, 4), "top to bottom")


def test_bad_directions_and_shapes_get_one_sentence():
    refused('"left to right" or "right to left"', by_column, Pixel(), (1, 4, 4), "top to bottom")
    refused('"top to bottom" or "bottom to top"', by_row, Pixel(), (1, 4, 4), "left to right")
    for order in (*(ORDERS[name] for name in ("frequency", "waves", "row")), lambda s: by_level(Wavelet("haar"), s)):
        refused(r"the shape is \(4,\), expected images", order, (4,))
    refused("multiples of 2 for", ORDERS["level"], (1, 5, 4))
