"""Padded wavelet frames: redundant, and therefore no basis.

Without periodic wrap-around one level of the transform of n values has more than n coefficients: its matrix
F_n = [low; high], which PyWavelets' padding defines, is tall. With zero padding it is still an isometry, F_n^T F_n = I:
a Parseval tight frame. Then |z| = |x| for z = F x, and F^T F = I, but F F^T is only a projection: white noise in the
image becomes correlated noise, of covariance sigma^2 F F^T, in the coefficients. Code that needs white noise asks for
a `Basis`, which a frame is not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pywt
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from .bases import TOLERANCE, Wavelet, tensor_like


@dataclass(frozen=True, eq=False)
class FrameBand:
    """One kind of coefficient of a frame: z[:, grid] is the band as an image.

    name, level, orientation: as for `scoremachines.bases.Band`; grid: (h, w), positions in the flat vector.
    """

    name: str
    level: int
    orientation: str
    grid: Int64[Tensor, "h w"]


@dataclass(frozen=True)
class Frame:
    """The wavelet transform of grey images with padding, z = F x, flattened as `pywt.wavedec2` orders it.

    name: an orthonormal wavelet; levels: how often the scaling coefficients are split; mode: PyWavelets' padding.
    scaling_level: the level whose scaling coefficients are kept beside the details. The default, None, keeps those of
    the last level, which makes the frame tight; 0 keeps none. At 32 x 32, Frame() has 1311 coefficients,
    Frame(scaling_level=1) 1564, and Frame(scaling_level=0) 1275.

    Raises ValueError if an argument is out of range, and on images for which F^T F differs from I before the choice of
    scaling coefficients: most paddings are not isometric.
    """

    name: str = "db2"
    levels: int = 3
    mode: str = "zero"
    scaling_level: int | None = None

    def __post_init__(self) -> None:
        Wavelet(self.name)  # refuses unknown wavelets and those that are not orthonormal
        if type(self.levels) is not int or self.levels < 1:
            raise ValueError(f"levels is {self.levels!r}, expected a whole number, at least one.")
        if self.mode not in pywt.Modes.modes:
            raise ValueError(f"mode is {self.mode!r}, expected a padding of PyWavelets: {', '.join(pywt.Modes.modes)}.")
        if self.scaling_level is not None and (
            type(self.scaling_level) is not int or self.scaling_level not in range(self.levels + 1)
        ):
            raise ValueError(f"scaling_level is {self.scaling_level!r}, expected 0 to {self.levels}, or None.")

    @property
    def kept(self) -> int:
        """The level whose scaling coefficients are kept; 0 when none are."""
        return self.levels if self.scaling_level is None else self.scaling_level

    def analysis(self, x: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B n"]:
        """Return the coefficients F x; raises ValueError unless the images (B, 1, H, W) have one channel."""
        _check_grey(x.shape)
        scaling, details = [x[:, 0]], []
        for left, right in self._matrices(x, x.shape):
            low, *finer = _quarters(left @ (scaling[-1] @ right.mT))
            scaling.append(low)
            details = finer + details
        chosen = [scaling[self.kept]] if self.kept else []
        return torch.cat([band.flatten(1) for band in chosen + details], 1)

    def synthesis(self, z: Float[Tensor, "B n"], shape: Sequence[int]) -> Float[Tensor, "B 1 H W"]:
        """Return F^T z, the adjoint and a left inverse of `analysis`: images of this sample shape (1, H, W).

        The shape has to be said, because images of side 31 and 32 have equally many coefficients. Raises ValueError if
        z does not fit it, or if the frame is not tight because it keeps other scaling coefficients than the last.
        """
        if self.kept != self.levels:
            raise ValueError(
                f"the frame keeps the scaling coefficients of level {self.kept} of {self.levels}, so it is not tight "
                "and its adjoint is no inverse; use scaling_level=None."
            )
        bands = self.bands(shape)
        count = sum(band.grid.numel() for band in bands)
        if z.ndim != 2 or z.shape[1] != count:
            raise ValueError(f"z has shape {tuple(z.shape)}, expected (B, {count}) for images {tuple(shape)}.")
        low, *details = (z[:, band.grid] for band in bands)
        for left, right in reversed(self._matrices(z, shape)):
            horizontal, vertical, diagonal, *details = details
            block = torch.cat([torch.cat([low, vertical], -1), torch.cat([horizontal, diagonal], -1)], -2)
            low = left.mT @ (block @ right)
        return low[:, None]

    def bands(self, shape: Sequence[int]) -> list[FrameBand]:
        """Return the bands of images of this sample shape (1, H, W), in the order of the flat vector."""
        _check_grey((None, *shape))
        sizes = [(len(left) // 2, len(right) // 2) for left, right in self._arrays(shape)]
        kinds = [(self.kept, "A")] if self.kept else []
        kinds += [(level, orientation) for level in range(self.levels, 0, -1) for orientation in "HVD"]
        bands, start = [], 0
        for level, orientation in kinds:
            h, w = sizes[level - 1]
            grid = torch.arange(start, start + h * w).reshape(h, w)
            bands.append(FrameBand(f"{orientation}{level}", level, orientation, grid))
            start += h * w
        return bands

    def _arrays(self, shape: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The matrices of rows and columns of each level, fine to coarse."""
        (rows, columns), found = shape[-2:], []
        for _ in range(self.levels):
            found.append(tuple(isometry(self.name, self.mode, n) for n in (rows, columns)))
            rows, columns = (len(matrix) // 2 for matrix in found[-1])
        return found

    def _matrices(self, x: Tensor, shape: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        return [(tensor_like(x, left), tensor_like(x, right)) for left, right in self._arrays(shape)]


@cache
def isometry(name: str, mode: str, n: int) -> Float64[np.ndarray, "m n"]:
    """Return the matrix F = [low; high] of one padded level on n values; raises ValueError unless F^T F = I."""
    matrix = np.concatenate(pywt.dwt(np.eye(n), name, mode, axis=0))
    defect = np.abs(matrix.T @ matrix - np.eye(n)).max()
    if defect >= TOLERANCE:
        raise ValueError(
            f'padding "{mode}" with {name} on {n} values is no tight frame: F^T F differs from I by {defect:.1g}; '
            'use mode="zero".'
        )
    return matrix


def _quarters(z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scaling coefficients and horizontal, vertical and diagonal details."""
    h, w = (n // 2 for n in z.shape[-2:])
    return z[..., :h, :w], z[..., h:, :w], z[..., :h, w:], z[..., h:, w:]


def _check_grey(shape: Sequence[int | None]) -> None:
    if len(shape) != 4 or shape[1] != 1:
        raise ValueError(
            f"the images have the sample shape {tuple(shape[1:])}, expected (1, H, W); put each channel into the batch."
        )
