"""Patches of photographs, with test regions that share no pixel with training regions or with each other.

Each photograph is divided into blocks of 64 x 64 pixels (what is left at the right and lower edges is unused).
A block is one *region*; every fifth one, in a knight's-move pattern, is kept for testing. A patch lies inside
one block. Training patches overlap, at a stride of 8 pixels; test patches do not. Patches of one region are
not independent, nor are neighbouring regions entirely: intervals should resample regions, not patches.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .files import extra

BLOCK, STRIDE = 64, 8
SIZES = (16, 32)
GREY = ("aero", "ascent", "camera")  # PyWavelets
COLOUR = ("china", "flower")  # scikit-learn
PHOTOGRAPHS = GREY + COLOUR


class Region(NamedTuple):
    """A block of a photograph: the photograph's index, the block's own index, its corner, and its split."""

    photograph: int
    index: int
    top: int
    left: int
    split: str


def photographs() -> list[np.ndarray]:
    """The five photographs, uint8: (H, W) when grey, (H, W, 3) when in colour, in the order of PHOTOGRAPHS."""
    bundled, datasets = extra("pywt.data"), extra("sklearn.datasets")
    extra("PIL")  # scikit-learn reads its photographs with it
    grey = [getattr(bundled, name)() for name in GREY]
    return grey + [datasets.load_sample_image(f"{name}.jpg") for name in COLOUR]


def regions(shapes: list[tuple[int, int]]) -> list[Region]:
    """All blocks of photographs of the given heights and widths, numbered through."""
    corners = [
        (photograph, row, column)
        for photograph, (height, width) in enumerate(shapes)
        for row in range(height // BLOCK)
        for column in range(width // BLOCK)
    ]
    return [
        Region(photograph, index, row * BLOCK, column * BLOCK, _split(row, column))
        for index, (photograph, row, column) in enumerate(corners)
    ]


def corners(region: Region, size: int) -> list[tuple[int, int]]:
    """The upper left pixels of the patches of a region: overlapping for training, disjoint for testing."""
    step = size if region.split == "test" else STRIDE
    offsets = range(0, BLOCK - size + 1, step)
    return [(region.top + y, region.left + x) for y in offsets for x in offsets]


def patches(size: int, split: str, colour: bool) -> Iterator[tuple[Region, np.ndarray]]:
    """Each region of a split with its patches, uint8 (n, C, size, size), where C is the photograph's own."""
    images = photographs()
    for region in regions([image.shape[:2] for image in images]):
        image = np.atleast_3d(images[region.photograph])
        if split == region.split and (image.shape[2] == 3 or not colour):
            cut = [image[y : y + size, x : x + size] for y, x in corners(region, size)]
            yield region, np.stack(cut).transpose(0, 3, 1, 2)


def _split(row: int, column: int) -> str:
    return "test" if (row + 2 * column) % 5 == 0 else "train"
