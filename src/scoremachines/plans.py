"""Plans: the offsets along one axis as arrays, for several windows at once, as the kernel reads them."""

from typing import NamedTuple, Self

import numpy as np

from .offsets import indices, offsets


class Plan(NamedTuple):
    """The offsets along one axis, for K windows at once; F of them, with planes of at most V rows (or columns).

    shift (F,): d; start, stop (K, F): the pixels served; first, count (F,): the range of v; query, data (F, V): indices
    of x(v) and y(v + d), -1 outside; runs (F, R, 4): the same as runs (start, query, data, length), a length of 0 for
    none; period: the planes repeat after so many rows.
    """

    shift: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    first: np.ndarray
    count: np.ndarray
    query: np.ndarray
    data: np.ndarray
    runs: np.ndarray
    period: int

    @classmethod
    def of(cls, length: int, windows: tuple[int, ...], border: str) -> Self:
        """Return the plan for an axis of this length and windows that rise."""
        served = [{offset.shift: offset for offset in offsets(length, window // 2, border)} for window in windows]
        shifts = sorted(set().union(*served))
        spans = [[(one[d].start, one[d].stop) if d in one else (0, 0) for d in shifts] for one in served]
        start, stop = np.ascontiguousarray(np.moveaxis(np.array(spans), -1, 0))
        half = np.array(windows)[:, None] // 2
        first = np.where(start < stop, start - half, length).min(0)
        last = np.where(start < stop, stop + half, -length).max(0)
        ranges = zip(first.tolist(), last.tolist(), shifts, strict=True)
        index = [indices(a, b, d, length, border) for a, b, d in ranges]
        width = max(last - first)
        both = zip(*index, strict=True)
        query, data = (np.array([[*one, *[-1] * (width - len(one))] for one in axis]) for axis in both)
        runs = [_runs(*pair) for pair in index]
        most = max(map(len, runs))
        padded = np.array([[*one, *[(0, 0, 0, 0)] * (most - len(one))] for one in runs])
        period = length if border == "circular" else int(width)
        return cls(np.array(shifts), start, stop, first, last - first, query, data, padded, period)


def _runs(query: tuple[int, ...], data: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
    """The stretches along which both indices rise one by one, as (start, query, data, length)."""
    found = []
    for k, (i, j) in enumerate(zip(query, data, strict=True)):
        if i >= 0 and found and k == found[-1][0] + found[-1][3] and _follows(found[-1], i, j):
            found[-1] = (*found[-1][:3], found[-1][3] + 1)
        elif i >= 0:
            found.append((k, i, j, 1))
    return found


def _follows(run: tuple[int, int, int, int], i: int, j: int) -> bool:
    return i == run[1] + run[3] and j == run[2] + run[3]
