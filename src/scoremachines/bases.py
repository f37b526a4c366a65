"""Orthonormal bases: changes of coordinates that keep the shape of the data and the law of white noise.

A basis is an orthogonal matrix W that acts on one sample: z = W x and x = W^T z. Hence energy is kept, and if eps is
white then so is W eps. `Pixel`, `Fourier`, `DCT` and `Wavelet` act on the last two axes and treat each channel
separately; `Opponent` rotates the colours first; `PCA` mixes all values of a sample.

One level of the wavelet transform of n values is the orthogonal matrix W_n = [low; high],

    (W_n x)[k] = sum_j low[j] x[2k + F/2 - j mod n],    (W_n x)[n/2 + k] = sum_j high[j] x[2k + F/2 - j mod n],

and an image becomes W_H x W_W^T. The next level repeats this on the top-left quarter, the scaling coefficients.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Self

import numpy as np
import pywt
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from .matrices import cosines, defect, level_matrix, wave_weights

TOLERANCE = 1e-8  # the symlet filters of PyWavelets are orthonormal to 5e-12 only; dmey misses by 2e-3


@dataclass(frozen=True)
class Band:
    """Where one kind of coefficient lies in each channel of the packed array: z[..., rows, columns].

    name: "A3", "H1", "V1", "D1", or "all"; level: 1 is the finest detail; orientation: "A" scaling coefficients, "H"
    horizontal, "V" vertical and "D" diagonal details (PyWavelets' cA, cH, cV, cD), or "all".
    """

    name: str
    level: int
    orientation: str
    rows: slice
    columns: slice


class Basis(ABC):
    """An orthonormal change of coordinates of samples (B, *shape) that keeps shape, dtype and device."""

    @abstractmethod
    def analysis(self, x: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Return the coefficients z = W x of samples x (B, *shape)."""

    @abstractmethod
    def synthesis(self, z: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Return the samples x = W^T z with coefficients z (B, *shape): inverse and transpose of `analysis`."""

    def bands(self, shape: Sequence[int]) -> list[Band]:
        """Return the bands of samples of this shape (C, H, W), coarse to fine; they tile each channel exactly once."""
        rows, columns = _sides(shape)
        return [Band("all", 0, "all", slice(0, rows), slice(0, columns))]

    def scaling(self, z: Float[Tensor, "*batch H W"]) -> list[Float[Tensor, "*batch h w"]]:
        """Return the low-pass images of levels 1, ..., L, (B, C, H/2^j, W/2^j); none where the basis has no levels."""
        return []


@dataclass(frozen=True)
class Pixel(Basis):
    """The identity, W = I."""

    def analysis(self, x: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Return x."""
        return _floating(x)

    def synthesis(self, z: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Return z."""
        return _floating(z)


@dataclass(frozen=True)
class Fourier(Basis):
    """Real plane waves on the torus: of each pair of frequencies +-k one place holds the cosine, the other the sine.

    With the unitary transform F of an H x W channel: z[k] = sqrt(2) Re F[k] where k comes before -k in reading order,
    z[k] = sqrt(2) Im F[k] where it comes after, and z[k] = F[k], which is real, where k = -k.
    """

    def analysis(self, x: Float[Tensor, "*batch H W"]) -> Float[Tensor, "*batch H W"]:
        """Return the coefficients, Re(conj(w) F) with w = sqrt(2), i sqrt(2) or 1."""
        weights = _waves(x)
        return (weights.conj() * torch.fft.fft2(x, norm="ortho")).real if x.numel() else x

    def synthesis(self, z: Float[Tensor, "*batch H W"]) -> Float[Tensor, "*batch H W"]:
        """Return the image, the real part of the inverse transform of w z."""
        weights = _waves(z)
        return torch.fft.ifft2(weights * z, norm="ortho").real if z.numel() else z  # an FFT of nothing is an error


@dataclass(frozen=True)
class DCT(Basis):
    """The orthonormal cosine transform (DCT-II): z = C_H x C_W^T, C_n[k, i] = sqrt(2/n) cos(pi k (i + 1/2) / n).

    The row k = 0 of C_n is divided by sqrt(2).
    """

    def analysis(self, x: Float[Tensor, "*batch H W"]) -> Float[Tensor, "*batch H W"]:
        """Return C_H x C_W^T."""
        left, right = (tensor_like(x, cosines(n)) for n in _sides(_floating(x).shape))
        return left @ x @ right.mT

    def synthesis(self, z: Float[Tensor, "*batch H W"]) -> Float[Tensor, "*batch H W"]:
        """Return C_H^T z C_W."""
        left, right = (tensor_like(z, cosines(n)) for n in _sides(_floating(z).shape))
        return left.mT @ z @ right


@dataclass(frozen=True, eq=False)
class PCA(Basis):
    """The eigenvectors of a covariance, by decreasing variance: z = U^T x, without centring.

    It mixes channels. The coefficients are written in reading order into the shape of a sample.
    U: (D, D), orthonormal columns; lam: (D,), the variances; shape: the shape of one sample.
    """

    U: Float64[Tensor, "D D"]
    lam: Float64[Tensor, " D"]
    shape: torch.Size

    @classmethod
    def fit(cls, data: Float[Tensor, "N *shape"] | Any) -> Self:
        """Diagonalise the covariance of data (N, *shape), or of statistics with `cov` and `shape`: their `Moments`."""
        if isinstance(data, Tensor) or not hasattr(data, "cov"):
            cov, shape = _samples(data).flatten(1).double().T.cov(correction=0), data.shape[1:]
        else:
            cov, shape = data.cov, data.shape
        lam, U = torch.linalg.eigh(torch.atleast_2d(cov))
        return cls(U.flip(1), lam.clamp(min=0).flip(0), shape)

    def analysis(self, x: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Return U^T x; raises ValueError for samples of another shape."""
        return self._times(x, self.U)

    def synthesis(self, z: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Return U z; raises ValueError for coefficients of another shape."""
        return self._times(z, self.U.T)

    def _times(self, x: Tensor, matrix: Tensor) -> Tensor:
        axes = len(self.shape)
        if _floating(x).shape[-axes:] != self.shape:
            expected = f"expected (B, {', '.join(map(str, self.shape))}), which the basis was fitted on"
            raise ValueError(f"the samples have shape {tuple(x.shape)}, {expected}.")
        return (x.flatten(-axes) @ matrix.to(x.device, x.dtype)).unflatten(-1, self.shape)


@dataclass(frozen=True)
class Opponent(Basis):
    """A rotation of the colours followed by another basis: z = W R x, R the cosine transform of the three channels.

    The rows of R are luminance (1, 1, 1) / sqrt(3), red against blue (1, 0, -1) / sqrt(2), and green against magenta
    (1, -2, 1) / sqrt(6). Raises ValueError unless there are three channels.
    """

    basis: Basis

    def __post_init__(self) -> None:
        if not isinstance(self.basis, Basis):
            raise ValueError(f"basis is {self.basis!r}, expected the Basis that follows the rotation, say Wavelet().")

    def analysis(self, x: Float[Tensor, "*batch 3 H W"]) -> Float[Tensor, "*batch 3 H W"]:
        """Return the coefficients of luminance and the two opponent colours."""
        return self.basis.analysis(self._rotate(x, cosines(3)))

    def synthesis(self, z: Float[Tensor, "*batch 3 H W"]) -> Float[Tensor, "*batch 3 H W"]:
        """Return the image in the original colours."""
        return self._rotate(self.basis.synthesis(z), cosines(3).T)

    def bands(self, shape: Sequence[int]) -> list[Band]:
        """Return the bands of the basis."""
        return self.basis.bands(shape)

    def scaling(self, z: Float[Tensor, "*batch 3 H W"]) -> list[Float[Tensor, "*batch 3 h w"]]:
        """Return the low-pass images of the rotated colours."""
        return self.basis.scaling(z)

    @staticmethod
    def _rotate(x: Tensor, matrix: np.ndarray) -> Tensor:
        if _floating(x).ndim < 3 or x.shape[-3] != 3:
            raise ValueError(f"the samples have shape {tuple(x.shape)}, expected three colour channels: (B, 3, H, W).")
        return torch.einsum("oc,...chw->...ohw", tensor_like(x, matrix), x)


@dataclass(frozen=True)
class Wavelet(Basis):
    """The periodic orthonormal wavelet transform, packed as `pywt.coeffs_to_array` packs `pywt.wavedec2`.

    name: any orthonormal discrete wavelet of PyWavelets; levels: how often the scaling coefficients are split again.
    None is the largest L with 2^L dividing both sides and L <= pywt.dwt_max_level; 0 is the identity. Filters longer
    than the signal wrap and add. Raises ValueError if the wavelet is unknown or not orthonormal, and on images whose
    sides are not multiples of 2^levels.
    """

    name: str = "db2"
    levels: int | None = None

    def __post_init__(self) -> None:
        if self.name not in pywt.wavelist(kind="discrete"):
            names = [n for n in pywt.wavelist(kind="discrete") if defect(n) < TOLERANCE]
            close = " or ".join(get_close_matches(str(self.name).lower(), names)) or "haar, db2, sym4 or coif1"
            raise ValueError(f"{self.name!r} is no discrete wavelet of PyWavelets; expected, say, {close}.")
        if defect(self.name) >= TOLERANCE:
            raise ValueError(
                f"{self.name} is not orthonormal: W W^T differs from I by {defect(self.name):.1g}; "
                "expected a haar, db, sym or coif wavelet."
            )
        if self.levels is not None and (type(self.levels) is not int or self.levels < 0):
            raise ValueError(f"levels is {self.levels!r}, expected a whole number that is not negative, or None.")

    def depth(self, shape: Sequence[int]) -> int:
        """Return the number of levels for samples of this shape; raises ValueError if the sides do not allow it."""
        sides = _sides(shape)
        if self.levels is None:
            divisible = min(n & -n for n in sides).bit_length() - 1
            return min(divisible, pywt.dwt_max_level(min(sides), pywt.Wavelet(self.name).dec_len))
        if any(n % 2**self.levels for n in sides):
            raise ValueError(
                f"the images are {sides[0]} x {sides[1]}, expected multiples of {2**self.levels} for "
                f"{self.levels} levels; resize the images or ask for fewer levels."
            )
        return self.levels

    def analysis(self, x: Float[Tensor, "*batch H W"]) -> Float[Tensor, "*batch H W"]:
        """Return the packed coefficients, for each channel separately."""
        z = _floating(x).clone()
        for level in range(self.depth(x.shape)):
            corner = _corner(z, level)
            left, right = self._matrices(corner)
            corner.copy_(left @ (corner @ right.mT))
        return z

    def synthesis(self, z: Float[Tensor, "*batch H W"]) -> Float[Tensor, "*batch H W"]:
        """Return the images with the packed coefficients z."""
        x = _floating(z).clone()
        for level in reversed(range(self.depth(z.shape))):
            corner = _corner(x, level)
            left, right = self._matrices(corner)
            corner.copy_(left.mT @ (corner @ right))
        return x

    def scaling(self, z: Float[Tensor, "*batch H W"]) -> list[Float[Tensor, "*batch h w"]]:
        """Return the scaling coefficients of levels 1, ..., L, (B, C, H/2^j, W/2^j), from the packed coefficients."""
        depth = self.depth(_floating(z).shape)
        return [Wavelet(self.name, depth - j).synthesis(_corner(z, j)) for j in range(1, depth + 1)]

    def _matrices(self, x: Tensor) -> list[Tensor]:
        return [tensor_like(x, level_matrix(self.name, n)) for n in _sides(x.shape)]

    def bands(self, shape: Sequence[int]) -> list[Band]:
        """Return the bands A_L, H_L, V_L, D_L, ..., H_1, V_1, D_1 of samples of this shape (C, H, W)."""
        (rows, columns), depth = _sides(shape), self.depth(shape)
        bands = [Band(f"A{depth}", depth, "A", slice(0, rows >> depth), slice(0, columns >> depth))]
        for j in range(depth, 0, -1):
            (top, bottom), (left, right) = ((slice(0, n >> j), slice(n >> j, n >> j - 1)) for n in (rows, columns))
            places = {"H": (bottom, left), "V": (top, right), "D": (bottom, right)}
            bands += [Band(f"{name}{j}", j, name, *place) for name, place in places.items()]
        return bands


def _waves(x: Tensor) -> Tensor:
    return torch.as_tensor(wave_weights(*_sides(_floating(x).shape)), dtype=x.dtype.to_complex(), device=x.device)


def tensor_like(x: Tensor, matrix: np.ndarray) -> Tensor:
    """Return the matrix in x's dtype and on its device; raises ValueError unless x is a floating tensor."""
    # arrays, unlike tensors, may be made and cached inside any torch transform and used outside of it
    return torch.as_tensor(matrix, dtype=_floating(x).dtype, device=x.device)


def _floating(x: Tensor) -> Tensor:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"the samples have type {kind}, expected a floating tensor (B, *shape).")
    return x


def _samples(data: Tensor) -> Tensor:
    if _floating(data).ndim < 2 or len(data) == 0 or not data.isfinite().all():
        raise ValueError(f"the data, {tuple(data.shape)}, are no finite samples; expected (N, *shape) without NaN.")
    return data


def _sides(shape: Sequence[int]) -> tuple[int, int]:
    if len(shape) < 2 or min(shape[-2:]) < 1:
        raise ValueError(f"the shape is {tuple(shape)}, expected images whose last two axes are height and width.")
    return shape[-2], shape[-1]


def _corner(z: Tensor, level: int) -> Tensor:
    return z[..., : z.shape[-2] >> level, : z.shape[-1] >> level]
