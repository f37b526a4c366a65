"""Figures are returned, closed and refuse what they cannot draw; nothing is compared by pixel."""

import io

import matplotlib
import pytest
import torch

matplotlib.use("agg")

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from scoremachines import Gaussian, Noise, plot, sample


def planar_field():
    axis = torch.linspace(-2, 2, 9)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    return points, -points, -points.square().sum(-1)


sigma = torch.logspace(-2, 1, 5)
PLACES = [(rows, columns) for rows in (slice(0, 2), slice(2, 4)) for columns in (slice(0, 2), slice(2, 4))]
FIGURES = {
    "image_grid grey": lambda: plot.image_grid(torch.rand(5, 1, 4, 4), columns=3),
    "image_grid colour": lambda: plot.image_grid(torch.rand(4, 3, 4, 6), 2, ["a", "b"], rows=["above", "below"]),
    "image_grid one image": lambda: plot.image_grid(torch.rand(1, 1, 4, 4), titles=["one"]),
    "image_grid all titles": lambda: plot.image_grid(torch.rand(6, 1, 4, 4), 3, list("abcdef"), limits=(0, 1)),
    "pyramid": lambda: plot.pyramid(torch.rand(1, 4, 4), PLACES, list("AHVD")),
    "pyramid colour": lambda: plot.pyramid(torch.rand(3, 4, 4), PLACES),
    "trajectory": lambda: plot.trajectory(torch.rand(4, 1, 5, 5), torch.rand(4, 1, 5, 5), [3.0, 1.0, 0.1, 0.0]),
    "trajectory vp": lambda: plot.trajectory(torch.rand(2, 3, 5, 5), torch.rand(2, 3, 5, 5), [1.0, 0.6], [0.0, 0.8]),
    "curves": lambda: plot.curves(
        sigma, {"one": sigma, "two": sigma**2}, "sigma", "error", {"one": (sigma, 2 * sigma)}
    ),
    "curves linear": lambda: plot.curves(sigma, {"one": sigma}, "sigma", "error", xscale="linear", yscale="log"),
    "spectrum": lambda: plot.spectrum({"digits": torch.tensor([2.0, 1.0, 0.1, 0.0]), "photos": sigma.flip(0)}),
    "score_field": lambda: plot.score_field(*planar_field(), every=2),
    "score_field bare": lambda: plot.score_field(*planar_field()[:2]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_closed_figure_comes_back(name):
    before = plt.get_fignums()
    fig = FIGURES[name]()
    assert isinstance(fig, Figure)
    assert plt.get_fignums() == before == []
    page = io.BytesIO()
    fig.savefig(page, format="png", dpi=40)
    assert page.getvalue().startswith(b"\x89PNG")


def test_every_public_function_is_drawn():
    drawing = {name for name in vars(plot) if name.islower() and getattr(plot, name).__class__.__name__ == "function"}
    ours = {name for name in drawing if getattr(plot, name).__module__ == plot.__name__}
    assert ours - {"figure", "show"} == {name.split()[0] for name in FIGURES}


def test_style_stays_inside_the_figure():
    before = dict(matplotlib.rcParams)
    for draw in FIGURES.values():
        draw()
    assert dict(matplotlib.rcParams) == before


def test_inputs_are_left_alone():
    images = torch.rand(3, 1, 4, 4) * 4 - 2
    before = images.clone()
    plot.image_grid(images)
    assert torch.equal(images, before)


def test_images_are_drawn_as_they_are():
    """Values at the limits are black and white, and no pixel is smoothed."""
    image = torch.tensor([[[[-1.0, 1.0], [0.0, 5.0]]]])
    (drawn,) = plot.image_grid(image).axes[0].get_images()
    assert drawn.get_array().tolist() == [[0.0, 1.0], [0.5, 1.0]]
    assert drawn.get_interpolation() == "nearest"
    assert drawn.get_clim() == (0, 1)


def test_a_grid_has_a_place_for_each_image():
    axes = plot.image_grid(torch.rand(7, 1, 4, 4), columns=3).axes
    assert [len(axis.get_images()) for axis in axes] == [1] * 7 + [0] * 2


def test_each_band_of_a_pyramid_has_its_own_contrast_and_frame():
    z = torch.zeros(1, 4, 4)
    z[0, 0, 0], z[0, 0, 1], z[0, 3, 3] = 8.0, -4.0, -0.01
    before = z.clone()
    (axis,) = plot.pyramid(z, PLACES, list("AHVD")).axes
    drawn = axis.get_images()[0].get_array()
    assert drawn[0].tolist() == [1.0, 0.25, 0.5, 0.5]
    assert drawn[3].tolist() == [0.5, 0.5, 0.5, 0.0]
    assert [frame.get_bbox().bounds for frame in axis.patches] == [
        (x - 0.5, y - 0.5, 2.0, 2.0) for y in (0, 2) for x in (0, 2)
    ]
    assert [text.get_text() for text in axis.texts] == list("AHVD")
    assert torch.equal(z, before)


@pytest.mark.parametrize(("shape", "labels"), [((4, 4), None), ((2, 4, 4), None), ((1, 4, 4), ["A"])])
def test_what_is_no_pyramid_is_refused(shape, labels):
    with pytest.raises(ValueError, match="expected"):
        plot.pyramid(torch.zeros(shape), PLACES, labels)
    assert plt.get_fignums() == []


def test_zero_eigenvalues_are_left_out():
    (line,) = plot.spectrum({"digits": torch.tensor([2.0, 1.0, 0.0])}).axes[0].get_lines()
    assert line.get_xdata().tolist() == [1, 2]
    assert line.get_ydata().tolist() == [2.0, 1.0]


def test_curves_stay_apart_without_colour():
    lines = plot.curves(sigma, {str(k): sigma + k for k in range(7)}, "x", "y").axes[0].get_lines()
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 7
    assert len({line.get_linestyle() for line in lines}) == 4


def test_curves_and_fields_can_share_a_figure():
    fig, axes = plot.figure(1, 2)
    assert plot.curves(sigma, {"one": sigma}, "x", "y", axis=axes[0]) is fig
    assert plot.score_field(*planar_field(), axis=axes[1]) is fig


def test_samples_of_a_machine_can_be_drawn(rand, randn):
    x = sample(Gaussian.fit(rand(20, 1, 3, 3)), 5 * randn(4, 1, 3, 3), [Noise(1.0, 5.0), Noise(1.0, 0.0)])
    assert len(plot.image_grid(x).axes) == 4


@pytest.mark.parametrize("shape", [(4, 4), (3, 4, 4), (3, 2, 4, 4), (3, 4, 4, 1), (0, 1, 4, 4)])
def test_what_is_no_image_is_refused(shape):
    with pytest.raises(ValueError, match="shape"):
        plot.image_grid(torch.zeros(shape))
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("x", "x0", "sigma"),
    [((3, 1, 4, 4), (3, 1, 4, 4), 2), ((2, 1, 4, 4), (3, 1, 4, 4), 3), ((3, 1, 4, 4), (3, 1, 5, 4), 3)],
)
def test_trajectories_of_unequal_length_are_refused(x, x0, sigma):
    with pytest.raises(ValueError, match="shape"):
        plot.trajectory(torch.zeros(x), torch.zeros(x0), [1.0] * sigma)
    assert plt.get_fignums() == []


def test_curves_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="shape"):
        plot.curves(sigma, {"one": sigma[:3]}, "x", "y")


def test_fields_of_wrong_shape_are_refused():
    points, vectors, density = planar_field()
    for wrong in [
        (points[..., :1], vectors[..., :1], None),
        (points, vectors[:4], None),
        (points, vectors, density[:4]),
    ]:
        with pytest.raises(ValueError, match="shape"):
            plot.score_field(*wrong)
    assert plt.get_fignums() == []
