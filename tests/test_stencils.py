"""Families and stencils: who sees whom, by brute force on PyWavelets' coefficients; counts, gradients, refusals."""

import math
import re

import numpy as np
import pytest
import pywt
import torch
from torch.testing import assert_close

from scoremachines.bases import DCT, Fourier, Opponent, Pixel, Wavelet
from scoremachines.monomials import monomial
from scoremachines.stencils import DETAILS, FAMILIES, extend, gradients, grids, offsets, potentials, stencils

DB2 = Wavelet("db2", 2)
SHAPE = torch.Size((1, 16, 16))  # level 1: 8 x 8, level 2: 4 x 4
COLOUR = torch.Size((2, 8, 8))


def made(family, degree=3, radius=1, basis=DB2, shape=SHAPE, conservative=False):
    return stencils(basis, shape, family, degree, radius, conservative)


def stencil_of(position, **settings):
    """The stencil that predicts one packed coefficient, its row there, and the number of the target."""
    for stencil in made(**settings):
        rows, targets = (stencil.index[:, : stencil.targets] == position).nonzero(as_tuple=True)
        if len(rows):
            return stencil, rows[0].item(), targets[0].item()
    raise AssertionError(f"no target at {position}")


def subbands(x, levels=2):
    """(cA, {level: {H, V, D}}) of one channel, by PyWavelets."""
    cA, *details = pywt.wavedec2(x, "db2", mode="periodization", level=levels)
    return cA, {levels - k: dict(zip("HVD", found, strict=True)) for k, found in enumerate(details)}


@pytest.fixture
def image(randn):
    return randn(1, *SHAPE)


@pytest.fixture
def columns(image):
    return extend(DB2, DB2.analysis(image))[:, 0]


# Counts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "radius", "counts"),
    [
        ("independent", 1, (2, 3, 4)),
        ("band-tied", 1, (2, 5, 11)),
        ("local", 1, (2, 11, 28)),
        ("linear-neighbours", 1, (10, 11, 12)),
        ("linear-neighbours", 2, (26, 27, 28)),
        ("parent-child", 1, (3, 4, 6)),
        ("energy", 1, (2, 3, 7)),
        ("low-pass", 1, (11, 21, 40)),
        ("combined", 1, (13, 14, 18)),
    ],
)
def test_features_of_a_finest_detail(family, radius, counts):
    """The paper's counts are 2, 3, 4; 2, 5, 11; 2, 11, 28 at degrees 1, 2, 3."""
    finest = SHAPE.numel() - 1
    for degree, count in enumerate(counts, 1):
        stencil, _, target = stencil_of(finest, family=family, degree=degree, radius=radius)
        assert len(stencil.features[target]) == count


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("radius", [1, 2])
def test_counts_by_formula(degree, radius):
    """1 + C(D + 2, 3) band-tied; D + 1 + ((2 r + 1)^2 - 1) D (D - 1) / 2 local, where the grid is large enough."""
    around = (2 * radius + 1) ** 2 - 1
    expected = {"band-tied": 1 + math.comb(degree + 2, 3), "local": degree + 1 + around * degree * (degree - 1) // 2}
    for family, count in expected.items():
        stencil, _, target = stencil_of(SHAPE.numel() - 1, family=family, degree=degree, radius=radius)
        assert len(stencil.features[target]) == count


def test_scaling_coefficients_of_band_tied_stay_independent():
    stencil, _, _ = stencil_of(0, family="band-tied")
    assert (stencil.targets, stencil.index.shape[1], len(stencil.features[0])) == (1, 1, 4)


@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_distinct_and_begin_with_the_constant(family):
    for stencil in made(family):
        for features in stencil.features:
            assert features[0].terms == ((1.0, ()),)
            keys = [(f.anchored, f.terms) for f in features]
            assert len(set(keys)) == len(keys)


# Who is a target, and who is seen --------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("basis", "shape"),
    [(DB2, SHAPE), (DB2, COLOUR), (Opponent(Wavelet("haar", 2)), torch.Size((3, 4, 8)))],
    ids=["grey", "two channels", "colour"],
)
def test_every_coefficient_is_a_target_once(family, basis, shape):
    targets = [s.index[:, : s.targets].flatten() for s in made(family, basis=basis, shape=shape)]
    assert torch.equal(torch.cat(targets).sort().values, torch.arange(shape.numel()))


@pytest.mark.parametrize("basis", [Pixel(), DCT(), Fourier(), Wavelet("db2", 0)])
def test_a_basis_without_details_has_selves_and_neighbours(basis):
    for family in ("independent", "local", "linear-neighbours", "full"):
        targets = [s.index[:, : s.targets].flatten() for s in made(family, basis=basis, shape=COLOUR)]
        assert torch.equal(torch.cat(targets).sort().values, torch.arange(COLOUR.numel()))


def place(level, orientation, i, j):
    """The packed position of coefficient (i, j) of a band of SHAPE."""
    n = 16 >> level
    top, left = {"A": (0, 0), "H": (n, 0), "V": (0, n), "D": (n, n)}[orientation]
    return (top + i) * 16 + left + j


def seen(family, level, orientation, i, j, columns):
    stencil, row, _ = stencil_of(place(level, orientation, i, j), family=family)
    return columns[stencil.index[row]]


def around(band, i, j, radius=1):
    """The neighbours of band[i, j] on the torus, row by row, without itself."""
    steps = [(a, b) for a in range(-radius, radius + 1) for b in range(-radius, radius + 1) if (a, b) != (0, 0)]
    h, w = band.shape
    return torch.tensor([band[(i + a) % h, (j + b) % w] for a, b in steps]).double()


@pytest.mark.parametrize(
    ("level", "orientation", "i", "j"), [(1, "H", 0, 7), (1, "D", 3, 2), (2, "V", 3, 0), (2, "A", 1, 1)]
)
def test_neighbours_siblings_and_parents_by_pywavelets(image, columns, level, orientation, i, j):
    cA, details = subbands(image[0, 0].numpy())
    own = cA if orientation == "A" else details[level][orientation]
    for family in ("local", "linear-neighbours"):
        found = seen(family, level, orientation, i, j, columns)
        assert_close(found[0].item(), own[i, j])
        assert_close(found[1:].sort().values, around(own, i, j).sort().values)
    if orientation == "A":
        assert_close(seen("combined", level, orientation, i, j, columns)[1:].sort().values, around(cA, i, j).sort()[0])
        return
    triple = torch.tensor([details[level][o][i, j] for o in DETAILS]).double()
    assert_close(seen("band-tied", level, orientation, i, j, columns), triple)
    found = seen("parent-child", level, orientation, i, j, columns)
    parent = [] if level == 2 else [details[2][orientation][i // 2, j // 2]]
    assert_close(found, torch.tensor([own[i, j], *parent]).double())


@pytest.mark.parametrize(("level", "i", "j"), [(1, 0, 7), (1, 5, 5), (2, 3, 1)])
def test_the_low_pass_image_is_the_scaling_band_of_the_level(image, columns, level, i, j):
    lowpass, _ = subbands(image[0, 0].numpy(), level)
    for orientation in DETAILS:
        found = seen("low-pass", level, orientation, i, j, columns)[1:]
        assert_close(found[0].item(), lowpass[i, j])
        assert_close(found[1:].sort().values, around(lowpass, i, j).sort().values)


def test_channels_do_not_see_each_other():
    for family in FAMILIES.keys() - {"full"}:
        for stencil in made(family, shape=COLOUR):
            channel = grid_channel(stencil.index)
            assert (channel == channel[:, :1]).all()


def grid_channel(index):
    """The channel of every position in the extended vector of COLOUR, found from images that are constant in it."""
    levels = torch.zeros(1, *COLOUR, dtype=torch.float64)
    levels[:, 1] = 1
    extended = extend(DB2, levels)[:, 0]  # packed coefficients taken as they are; low-pass images of constants
    return (extended != 0)[index]


def test_the_full_family_sees_everything():
    (stencil,) = made("full", shape=COLOUR)
    assert torch.equal(stencil.index, torch.arange(128)[None])
    assert (stencil.targets, len(stencil.features), len(stencil.features[0])) == (128, 1, 129)


@pytest.mark.parametrize(("size", "radius", "count"), [((8, 8), 1, 8), ((8, 8), 2, 24), ((2, 2), 1, 3), ((1, 1), 1, 0)])
def test_neighbours_on_small_grids_are_counted_once(size, radius, count):
    found = offsets(torch.Size(size), radius)
    assert len(set(found)) == len(found) == count
    assert (0, 0) not in found


def test_low_pass_positions_follow_the_packed_coefficients(image, columns):
    """Level L is the scaling band itself; finer low-pass images are appended."""
    found = grids(DB2, SHAPE)
    assert torch.equal(found.lowpass[2, 0], found.bands["A", 2, 0])
    finer, _ = subbands(image[0, 0].numpy(), 1)
    assert_close(columns[found.lowpass[1, 0]], torch.from_numpy(finer))
    assert len(columns) == 256 + 64


# A family is a tuple of groups -----------------------------------------------------------------------------------


def test_a_new_family_is_one_line():
    groups = (("self", "powers"), ("neighbours", "linear"), ("siblings", "energy"))
    stencil, _, _ = stencil_of(255, family=groups)
    names = [feature.group for feature in stencil.features[0]]
    expected = ["constant", "degree 1", "degree 2", "degree 3", *["neighbours linear"] * 8, "siblings energy"]
    assert names == expected


def test_pairs_and_products_are_anchored_at_the_target():
    """y^d w^e is stored as y^(d - 1) w^e and one factor y."""
    stencil, _, _ = stencil_of(255, family="local", degree=2)
    assert [f.terms for f in stencil.features[0] if f.anchored] == [((1.0, monomial((v, 1))),) for v in range(1, 9)]
    stencil, _, target = stencil_of(place(1, "V", 0, 0), family="band-tied", degree=2)
    assert target == 1
    assert [f.terms for f in stencil.features[1] if f.anchored] == [((1.0, monomial((v, 1))),) for v in (2, 0)]


# Conservative fields ---------------------------------------------------------------------------------------------


def value(terms, w):
    return sum((weight * math.prod(w[v] ** p for v, p in n) for weight, n in terms), torch.zeros(()).double())


def test_potential_fields_are_gradients(randn):
    """Field k of target t is d/dy_t of monomial k of the triple, for every monomial of degree 1 to 4."""
    w = randn(3).requires_grad_()
    fields = potentials(3, 3)
    powers = [n for n in np.ndindex(5, 5, 5) if 1 <= sum(n) <= 4]
    expected = {torch.autograd.grad(w[0] ** a * w[1] ** b * w[2] ** c, w)[0] for a, b, c in powers}
    found = torch.stack([torch.stack([value(terms, w) for terms in field]) for field in fields], 1).detach()
    assert len(found) == len(powers) == math.comb(7, 3) - 1
    gap = (found[:, None] - torch.stack(list(expected))).abs().amax(2)
    assert (gap.amin(0) < 1e-12).all()
    assert (gap.amin(1) < 1e-12).all()


def test_neighbour_fields_are_gradients_on_the_torus(randn):
    """sum_i y_i^a y_{i + delta}^e, differentiated at one place, is a field of the family: all of them, once."""
    degree, y = 3, randn(5, 5).requires_grad_()
    steps = offsets(torch.Size((5, 5)), 1)
    mirror = [1 + steps.index((-a % 5, -b % 5)) for a, b in steps]
    fields = gradients(0, list(range(1, 9)), mirror, degree)
    w = torch.cat([y[2, 2][None], torch.stack([y[(2 + a) % 5, (2 + b) % 5] for a, b in steps])])
    found = torch.stack([value(terms, w) for terms in fields]).detach()
    expected = []
    for step in steps:
        other = y.roll([-step[0], -step[1]], (0, 1))
        for a in range(1, degree + 1):
            for e in range(1, degree + 2 - a):
                expected.append(torch.autograd.grad((y**a * other**e).sum(), y)[0][2, 2])
    gap = (found[:, None] - torch.stack(expected)).abs()
    assert (gap.amin(0) < 1e-12).all()
    assert (gap.amin(1) < 1e-12).all()
    assert len(fields) == 8 * degree * (degree + 1) // 2 // 2  # delta with (a, e) is -delta with (e, a)


# Refusals --------------------------------------------------------------------------------------------------------

REFUSED = {
    "family is 'locl', expected one of independent": {"family": "locl"},
    "('self', 'cubes') is no feature group": {"family": (("self", "cubes"),)},
    "('cousins', 'linear') is no feature group": {"family": (("cousins", "linear"),)},
    "('self',) is no feature group": {"family": (("self",),)},
    "degree is 0, expected a whole number": {"family": "local", "degree": 0},
    "degree is 2.0, expected a whole number": {"family": "local", "degree": 2.0},
    "degree is True, expected a whole number": {"family": "local", "degree": True},
    "radius is 0, expected a whole number": {"family": "local", "radius": 0},
    'relation "all" holds every other one': {"family": (("self", "powers"), ("all", "linear"))},
    "parent is part of the low-pass image": {
        "family": (("self", "powers"), ("parent", "linear"), ("low-pass", "linear"))
    },
    "only the families independent, band-tied and local have a conservative": {
        "family": "energy",
        "conservative": True,
    },
    "has a relative called 'siblings'; choose": {"family": "band-tied", "basis": Pixel()},
    "has a relative called 'parent'; choose": {"family": "parent-child", "basis": Wavelet("db2", 1)},
    "has a relative called 'low-pass'; choose": {"family": "low-pass", "basis": DCT()},
    "has a relative called 'neighbours'; choose": {"family": "local", "shape": torch.Size((4, 1, 1)), "basis": DCT()},
}


@pytest.mark.parametrize(("sentence", "settings"), REFUSED.items(), ids=REFUSED)
def test_what_makes_no_sense_is_refused_in_one_sentence(sentence, settings):
    with pytest.raises(ValueError, match=re.escape(sentence)) as refusal:
        made(**settings)
    assert str(refusal.value).endswith(".")
