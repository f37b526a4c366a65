"""Figures: grids of images, wavelet pyramids, trajectories, curves, spectra, score fields.

Each function returns a matplotlib Figure. Only tensors come in. Lines use the Okabe-Ito colours with a line style each,
so that they stay apart without colour; fields use viridis. Sizes are chosen to stay legible at the width of a phone.
"""

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":")
RC = {
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
}


def figure(rows: int = 1, columns: int = 1, size: tuple[float, float] = (6.4, 4.0), **options) -> tuple[Figure, Any]:
    """Return (figure, axes) in the style of the book; the figure is shown only where it is returned from a cell."""
    with plt.rc_context(RC):
        fig, axes = plt.subplots(rows, columns, figsize=size, dpi=150, layout="constrained", **options)
    plt.close(fig)
    return fig, axes


def image_grid(
    images: Float[Tensor, "N C H W"],
    columns: int = 8,
    titles: Sequence[str] | None = None,
    rows: Sequence[str] | None = None,
    limits: tuple[float, float] = (-1.0, 1.0),
) -> Figure:
    """Show images row by row, without smoothing; values at `limits` are black and white, values outside are clipped.

    titles: a line above each of the first `columns` images or above every image; rows: a label left of each row.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(f"images has shape {tuple(images.shape)}, expected (N, 1 or 3, H, W) with N > 0.")
    columns = min(columns, len(images))
    count = -(-len(images) // columns)
    title = 0.25 if titles else 0.0
    aspect = images.shape[2] / images.shape[3]
    width = 6.4
    size = (
        width,
        count * (width / columns * aspect + (title if titles and len(titles) > columns else 0)) + title,
    )
    fig, axes = figure(count, columns, size, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for k, (axis, image) in enumerate(zip(axes.flat, images, strict=False)):
        show(axis, image, limits)
        if titles and k < len(titles):
            axis.set_title(titles[k], fontsize=10)
    for axis, label in zip(axes[:, 0], rows or (), strict=False):
        axis.text(-0.08, 0.5, label, transform=axis.transAxes, ha="right", va="center", fontsize=10)
    return fig


def show(axis: Axes, image: Float[Tensor, "C H W"], limits: tuple[float, float] = (-1.0, 1.0)) -> None:
    """Draw one image (1 or 3 channels) on an axis, pixel by pixel."""
    low, high = limits
    unit = ((image.detach().double().cpu() - low) / (high - low)).clamp(0, 1).movedim(0, -1).squeeze(-1)
    axis.imshow(unit.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.grid(False)


def pyramid(
    z: Float[Tensor, "C H W"],
    places: Sequence[tuple[slice, slice]],
    labels: Sequence[str] | None = None,
    axis: Axes | None = None,
) -> Figure:
    """Show the packed coefficients of one image with a frame around each band, and a label in it if given.

    places: rows and columns of each band. Each band has its own contrast: zero is mid-grey, the largest magnitude of
    the band is black or white. Raises ValueError for what is no image, and unless there is one label for each band.
    """
    if z.ndim != 3 or z.shape[0] not in (1, 3) or (labels is not None and len(labels) != len(places)):
        found = f"z has shape {tuple(z.shape)}, with {len(places)} places and {len(labels or places)} labels"
        raise ValueError(f"{found}; expected (1 or 3, H, W) and one label for each place.")
    fig, axis = figure(size=(3.2, 3.2)) if axis is None else (axis.figure, axis)
    scaled = z.detach().clone()
    for rows, columns in places:
        band = scaled[:, rows, columns]
        band /= band.abs().max().clamp(min=1e-12)
    show(axis, scaled)
    for (rows, columns), label in zip(places, labels or cycle([""]), strict=False):
        corner, size = (columns.start - 0.5, rows.start - 0.5), (columns.stop - columns.start, rows.stop - rows.start)
        axis.add_patch(Rectangle(corner, *size, fill=False, edgecolor=COLORS[4], linewidth=1.2))
        if label:
            plate = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1}
            axis.annotate(label, corner, (3, -3), textcoords="offset points", va="top", fontsize=8, bbox=plate)
    axis.axis("off")
    return fig


def trajectory(
    x: Float[Tensor, "T C H W"],
    x0: Float[Tensor, "T C H W"],
    sigma: Sequence[float],
    alpha: Sequence[float] | None = None,
) -> Figure:
    """Show one image along a trajectory: the noisy state above, the predicted clean image below.

    The state is divided by sqrt(alpha^2 + sigma^2), so that pure noise stays visible; alpha is 1 when not given.
    """
    alpha = [1.0] * len(sigma) if alpha is None else alpha
    if x.shape != x0.shape or not len(x) == len(sigma) == len(alpha):
        raise ValueError(
            f"x has shape {tuple(x.shape)} and x0 has shape {tuple(x0.shape)}, with {len(sigma)} sigma and "
            f"{len(alpha)} alpha; expected equal shapes and one level per image."
        )
    norm = torch.tensor([(a**2 + s**2) ** 0.5 for a, s in zip(alpha, sigma, strict=True)]).to(x)
    images = torch.cat([x / norm.reshape(-1, 1, 1, 1).clamp(min=1e-12), x0])
    titles = [f"{s:.2g}" for s in sigma]
    return image_grid(images, columns=len(sigma), titles=titles, rows=["x", "D(x)"])


def curves(
    x: Float[Tensor, " n"],
    series: dict[str, Float[Tensor, " n"]],
    xlabel: str,
    ylabel: str,
    bands: dict[str, tuple[Tensor, Tensor]] | None = None,
    xscale: str = "log",
    yscale: str = "linear",
    axis: Axes | None = None,
) -> Figure:
    """Draw named curves over one abscissa; bands, by the same names, are shaded intervals (low, high)."""
    fig, axis = figure() if axis is None else (axis.figure, axis)
    looks = zip(cycle(COLORS), cycle(STYLES), strict=False)
    for (name, y), (color, style) in zip(series.items(), looks, strict=False):
        axis.plot(x, y, style, color=color, label=name, lw=1.8)
        if bands and name in bands:
            axis.fill_between(x, *bands[name], color=color, alpha=0.2, lw=0)
    axis.set(xlabel=xlabel, ylabel=ylabel, xscale=xscale, yscale=yscale)
    if len(series) > 1:
        axis.legend(frameon=False, fontsize=10)
    return fig


def spectrum(spectra: dict[str, Float[Tensor, " r"]], ylabel: str = "variance") -> Figure:
    """Draw eigenvalue spectra against their index, both logarithmic; zero eigenvalues are left out."""
    fig, axis = figure()
    for (name, lam), color, style in zip(spectra.items(), cycle(COLORS), cycle(STYLES), strict=False):
        lam = lam[lam > 0]
        axis.plot(torch.arange(1, len(lam) + 1), lam, style, color=color, label=name, lw=1.8)
    axis.set(xlabel="principal component", ylabel=ylabel, xscale="log", yscale="log")
    axis.legend(frameon=False, fontsize=10)
    return fig


def score_field(
    points: Float[Tensor, "n m 2"],
    vectors: Float[Tensor, "n m 2"],
    log_density: Float[Tensor, "n m"] | None = None,
    every: int = 1,
    axis: Axes | None = None,
) -> Figure:
    """Draw a planar field of arrows over the log density that it climbs.

    points: a regular grid, rows of constant second coordinate; every: draw each every-th arrow both ways. Arrow lengths
    are compressed, |v| -> log(1 + |v|), so that near and far arrows can both be read.
    """
    grid = points.shape[:2]
    matching = points.shape == vectors.shape == (*grid, 2)
    if not matching or (log_density is not None and log_density.shape != grid):
        raise ValueError(
            f"points has shape {tuple(points.shape)} and vectors has shape {tuple(vectors.shape)}; "
            f"expected equal shapes (n, m, 2), and {tuple(grid)} for log_density."
        )
    fig, axis = figure(size=(4.8, 4.6)) if axis is None else (axis.figure, axis)
    if log_density is not None:
        axis.contourf(points[..., 0], points[..., 1], log_density, levels=20, cmap="viridis", alpha=0.85)
    p, v = points[::every, ::every], vectors[::every, ::every]
    length = v.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    v = v / length * torch.log1p(length)
    axis.quiver(p[..., 0], p[..., 1], v[..., 0], v[..., 1], color="white" if log_density is not None else "black")
    axis.set(xlabel="first coordinate", ylabel="second coordinate", aspect="equal")
    axis.grid(False)
    return fig
