"""Features of images that need no trained network: numbers in which two sets of images can be compared.

A feature map takes images (B, C, H, W) to features (B, F). `PrincipalFeatures` are the coordinates along the directions
of largest variance of a training set. `wavelet_features` are the marginals of the wavelet coefficients: how large they
are in each band, and how heavy their tails. `scoremachines.quality` compares sets of features; the results cannot be
compared with published ones, which use features of large trained networks.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from .bases import PCA, Band, Basis, Wavelet
from .machine import batches
from .stats import Moments

WAVELET = Wavelet()
GREY = 1 / 255  # half a level of 8-bit pixels on [-1, 1]: weaker bands are rounding, and their shape means nothing


@dataclass(frozen=True, eq=False)
class PrincipalFeatures:
    """The coordinates U^T (x - mean) of images along the directions of largest variance of a set.

    mean: (D,); U: (D, F), orthonormal columns by decreasing variance; shape: the shape of one image.
    """

    mean: Float[Tensor, " D"]
    U: Float[Tensor, "D F"]
    shape: torch.Size

    @classmethod
    def fit(cls, data: Tensor | Iterable[Tensor] | Moments, count: int = 50) -> Self:
        """Take the first `count` directions from data (N, *shape), from batches, or from their `Moments`.

        Raises ValueError unless 1 <= count <= D.
        """
        moments = data if isinstance(data, Moments) else reduce(Moments.merge, map(Moments.of, batches(data)))
        D = len(moments.mean)
        if type(count) is not int or not 1 <= count <= D:
            raise ValueError(f"count is {count!r}, expected a whole number from 1 to the dimension {D}.")
        return cls(moments.mean, PCA.fit(moments).U[:, :count].contiguous(), moments.shape)

    def __call__(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B F"]:
        """Return U^T (x - mean) for each image; raises ValueError for images of another kind."""
        if not x.is_floating_point() or x.shape[1:] != self.shape:
            expected = f"expected floating (B, {', '.join(map(str, self.shape))}), which the features were fitted on"
            raise ValueError(f"x is {x.dtype} of shape {tuple(x.shape)}, {expected}.")
        return (x.flatten(1) - self.mean.to(x)) @ self.U.to(x)


def wavelet_features(x: Float[Tensor, "B C H W"], wavelet: Basis = WAVELET) -> Float[Tensor, "B F"]:
    """Return the marginals of the coefficients z = W x / 2^level in each band and channel of each image.

    For every band of details: the mean of |z|, the root of m_2 and the shape log((m_4 + q^4) / (m_2^2 + q^4)), where
    m_n = mean z^n. The shape lies between 0 and the log of the band's size, log 3 for Gaussian coefficients of a large
    band, and more for heavier tails; q = 1/255 keeps it at 0 in bands that hold only rounding. For the scaling
    coefficients: their mean, and the same three of what deviates from it. The factor 1 / 2^level brings all levels to
    units of pixels. F = C (9 L + 4) for L levels. Raises ValueError unless x is (B, C, H, W) with sides that the
    wavelet can halve L times.
    """
    if x.ndim != 4:
        raise ValueError(f"the images have shape {tuple(x.shape)}, expected (B, C, H, W).")
    z = wavelet.analysis(x).to(torch.promote_types(x.dtype, torch.float32))  # fourth powers leave the range of float16
    marginals = [part for band in wavelet.bands(x.shape[1:]) for part in _marginals(z, band)]
    return torch.stack(marginals, -1).flatten(1).to(x.dtype)


def _marginals(z: Tensor, band: Band) -> list[Float[Tensor, "B C"]]:
    z = z[..., band.rows, band.columns].flatten(2) / 2**band.level
    if band.orientation != "A":
        return _sizes(z)
    mean = z.mean(2, keepdim=True)
    return [mean.squeeze(2), *_sizes(z - mean)]


def _sizes(z: Float[Tensor, "B C n"]) -> list[Float[Tensor, "B C"]]:
    second, fourth = z.square().mean(2), z.pow(4).mean(2)
    return [z.abs().mean(2), second.sqrt(), ((fourth + GREY**4) / (second.square() + GREY**4)).log()]
