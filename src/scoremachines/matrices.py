"""The one-dimensional orthogonal matrices from which the bases are built, as cached float64 arrays."""

from functools import cache

import numpy as np
import pywt
from jaxtyping import Float64


@cache
def level_matrix(name: str, n: int) -> Float64[np.ndarray, "n n"]:
    """Return the orthogonal matrix [low; high] of one level of the periodic transform of n values, n even."""
    wavelet = pywt.Wavelet(name)
    matrix, length = np.zeros((2, n // 2, n)), wavelet.dec_len
    k, j = np.ogrid[: n // 2, :length]
    for half, taps in zip(matrix, (wavelet.dec_lo, wavelet.dec_hi), strict=True):
        np.add.at(half, (k, (2 * k + length // 2 - j) % n), np.array(taps))
    return matrix.reshape(n, n)


@cache
def defect(name: str) -> float:
    """Return the largest entry of W W^T - I, at a size where the filters do not meet themselves."""
    matrix = level_matrix(name, 2 * pywt.Wavelet(name).dec_len)
    return float(np.abs(matrix @ matrix.T - np.eye(len(matrix))).max())


@cache
def cosines(n: int) -> Float64[np.ndarray, "n n"]:
    """Return the orthogonal matrix of the cosine transform: sqrt(2/n) cos(pi k (i + 1/2) / n), row 0 over sqrt(2)."""
    k, i = np.ogrid[:n, :n]
    matrix = np.sqrt(2 / n) * np.cos(np.pi * k * (i + 0.5) / n)
    matrix[0] /= np.sqrt(2)
    return matrix


@cache
def wave_weights(rows: int, columns: int) -> np.ndarray:
    """Return the weights of plane waves: sqrt(2) where k comes before -k, i sqrt(2) after it, 1 where k = -k."""
    place = np.arange(rows * columns).reshape(rows, columns)
    mirror = np.roll(place[::-1, ::-1], 1, (0, 1))
    return np.select([place < mirror, place > mirror], [np.sqrt(2), 1j * np.sqrt(2)], 1)
