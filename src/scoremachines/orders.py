"""Ordering labels: which component is generated first.

A label for every component of a sample, larger for those that are noised earlier and generated later. Labels may be
added and scaled: a level and a column together order the coefficients of a wavelet transform.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from .bases import DCT, Basis, Fourier, Pixel, Wavelet


def by_variance(variance: Float[Tensor, "*shape"], floor: float = 0.0) -> Float64[Tensor, "*shape"]:
    """Return -log max(variance, floor): large variances first. Raises ValueError where that is not finite."""
    raised = variance.double().clamp(min=floor)
    bad = raised[~((raised > 0) & raised.isfinite())]
    if len(bad):
        raise ValueError(f"a variance is {bad[0]:.3g}, expected finite ones above 0; repair it, or give a floor.")
    return -raised.log()


def by_frequency(basis: Basis, shape: Sequence[int]) -> Float64[Tensor, "*shape"]:
    """Return the frequency of every coefficient in cycles per pixel: low frequencies first.

    The length of (f_row, f_column): k / n, counted to the nearer end, in `Fourier`, and k / 2n in `DCT`.
    """
    if not isinstance(basis, Fourier | DCT):
        raise ValueError(f"the basis is {type(basis).__name__}, whose elements have no frequency; use Fourier or DCT.")
    wave = torch.fft.fftfreq if isinstance(basis, Fourier) else _half_cycles
    (band,) = basis.bands(shape)
    rows, columns = (wave(side.stop, dtype=torch.float64) for side in (band.rows, band.columns))
    return torch.hypot(rows[:, None], columns).expand(*shape).clone()


def _half_cycles(n: int, dtype: torch.dtype) -> Tensor:
    return torch.arange(n, dtype=dtype) / (2 * n)


def by_level(basis: Wavelet, shape: Sequence[int]) -> Float64[Tensor, "*shape"]:
    """Return 0 for the scaling coefficients, 1 for the coarsest details, and so on: coarse coefficients first."""
    _check_wavelet(basis)
    labels = torch.zeros(*shape, dtype=torch.float64)
    for band in basis.bands(shape):
        labels[..., band.rows, band.columns] = 0 if band.orientation == "A" else basis.depth(shape) + 1 - band.level
    return labels


def by_column(
    basis: Pixel | Wavelet, shape: Sequence[int], direction: Literal["left to right", "right to left"]
) -> Float64[Tensor, "*shape"]:
    """Return the column of every pixel, or of the middle of every wavelet, in pixels; counted in this direction."""
    return _places(basis, shape, direction, ("left to right", "right to left"), "columns")


def by_row(
    basis: Pixel | Wavelet, shape: Sequence[int], direction: Literal["top to bottom", "bottom to top"]
) -> Float64[Tensor, "*shape"]:
    """Return the row of every pixel, or of the middle of every wavelet, in pixels; counted in this direction."""
    return _places(basis, shape, direction, ("top to bottom", "bottom to top"), "rows")


def _places(basis: Basis, shape: Sequence[int], direction: str, known: tuple[str, str], axis: str) -> Tensor:
    if direction not in known:
        raise ValueError(f'direction is {direction!r}, expected "{known[0]}" or "{known[1]}".')
    if not isinstance(basis, Pixel | Wavelet):
        raise ValueError(f"the basis is {type(basis).__name__}, whose elements fill the image; use Pixel or Wavelet.")
    labels = torch.zeros(*shape, dtype=torch.float64)
    for band in basis.bands(shape):
        part = labels[..., band.rows, band.columns]
        along = part if axis == "columns" else part.mT
        along.copy_((torch.arange(along.shape[-1]) + 0.5) * 2**band.level - 0.5)
    last = shape[-1 if axis == "columns" else -2] - 1
    return labels if direction == known[0] else last - labels


def _check_wavelet(basis: Basis) -> None:
    if not isinstance(basis, Wavelet):
        raise ValueError(f"the basis is {type(basis).__name__}, which has no levels; use Wavelet.")
