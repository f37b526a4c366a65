"""Kernel: the sum over offsets, compiled for the vector units of a processor, in float32.

LANES training images are interleaved, so that a row of a plane is one contiguous run over (column, image), and every
loop that matters is a plain loop over such a row. Each pixel and lane keeps its own streaming softmax to base 2,

    base = the smallest distance so far,  mass = sum 2^(base - dist),  total_c = sum 2^(base - dist) y_c,

with distances in units of 2 sigma^2 ln 2. The base is renewed only when a weight would exceed 2^60. Box sums only ever
add: a running sum that subtracts would lose the small distances that matter.
"""

from pathlib import Path
from typing import NamedTuple, Self
from zlib import crc32

import numpy as np
from numba import njit

from . import vectors
from .plans import Plan
from .vectors import (
    FAR,
    OPTIONS,
    add,
    add2,
    add4,
    add_excess,
    add_product,
    add_square,
    add_up,
    beyond,
    clear,
    copy,
    keep_nearest,
    multiply,
    renew,
    shift_excess,
    square,
    square3,
    sum3,
    weigh,
)

LANES = 32
PIECE = 8 * LANES  # pairs that are skipped together or not at all


# Planes -------------------------------------------------------------------------------------------------------------


@njit(**OPTIONS)
def _differences(plane, m, x, y, alpha, query, data, runs, period):
    """Fill the rows of a plane, m numbers each, with D_d(v); 0 where either image has no pixel.

    Rows repeat after a period, where windows wrap around.
    """
    whole = runs[:, 3].sum() * LANES == m
    for row in range(query.size):
        out = plane[row * m : (row + 1) * m]
        if row >= period:
            copy(out, plane[(row - period) * m : (row - period + 1) * m])
            continue
        if query[row] < 0 or not whole:
            clear(out)
        for k in range(len(runs) if query[row] >= 0 else 0):
            start, n = runs[k, 0] * LANES, runs[k, 3] * LANES
            if n:
                q, d = runs[k, 1] * LANES, runs[k, 2] * LANES
                _difference(out[start : start + n], x, query[row], q, y, data[row], d, alpha)


@njit(**OPTIONS)
def _difference(out, x, i, q, y, j, d, alpha):
    """out = sum_c (x_c - alpha y_c)^2 from column q of row i and column d of row j on."""
    q_end, d_end = q + out.size, d + out.size
    if len(x) == 3:
        x0, x1, x2 = x[0, i, q:q_end], x[1, i, q:q_end], x[2, i, q:q_end]
        square3(out, x0, x1, x2, y[0, j, d:d_end], y[1, j, d:d_end], y[2, j, d:d_end], alpha)
    else:
        square(out, x[0, i, q:q_end], y[0, j, d:d_end], alpha)
        for c in range(1, len(x)):
            add_square(out, x[c, i, q:q_end], y[c, j, d:d_end], alpha)


@njit(**OPTIONS)
def _widen(wide, plane, m, first, last, done, p, period):
    """Sum each row over windows: add to columns first ... last - 1 the neighbours at distances done + 1 ... p.

    done is -1 where wide does not hold even the columns themselves.
    """
    for start in range(0, plane.size, m):
        here, out = plane[start : start + m], wide[start + first : start + last]
        if start >= period * m:
            copy(out, wide[start + first - period * m : start + last - period * m])
            continue
        if done < 0 and p == 0:
            copy(out, here[first:last])
        elif done < 0:
            sum3(out, here[first:last], here[first - LANES : last - LANES], here[first + LANES : last + LANES])
        j = max(done, 1 if done < 0 else 0) + 1
        while j < p:
            k, l = j * LANES, (j + 1) * LANES
            a, b, c, d = (
                here[first - k : last - k],
                here[first + k : last + k],
                here[first - l : last - l],
                here[first + l : last + l],
            )
            add4(out, a, b, c, d)
            j += 2
        if j == p:
            k = p * LANES
            add2(out, here[first - k : last - k], here[first + k : last + k])


@njit(**OPTIONS)
def _double(powers, wide, m, top, count, first, n, window):
    """powers[l] = sums over 2^l rows of wide, from row top and column first on, for 1 <= l and 2^l <= window."""
    if window > 3:
        for row in range(count - 1):
            a, b = (top + row) * m + first, (top + row + 1) * m + first
            add_up(powers[1, row * n : (row + 1) * n], wide[a : a + n], wide[b : b + n])
    step, level = 2, 2
    while 2 * step <= window:
        size = (count - 2 * step + 1) * n
        below = powers[level - 1]
        add_up(powers[level, :size], below[:size], below[step * n : step * n + size])
        step, level = 2 * step, level + 1


@njit(**OPTIONS)
def _tall(out, here, powers, row, window):
    """out = the sum of rows row ... row + window - 1, the first of which is here, from the sums over powers of two."""
    n, step, level, begun = out.size, 2, 1, False
    row += 1
    while step <= window:
        if window & step:
            part = powers[level, row * n : (row + 1) * n]
            if begun:
                add(out, part)
            else:
                add_up(out, here, part)
            begun = True
            row += step
        step, level = 2 * step, level + 1
    if not begun:
        copy(out, here)


# The pass over the images -------------------------------------------------------------------------------------------


@njit(**OPTIONS)
def _take(state, least, code, u, start, w, dist, scale, y, j, d, now, cut, track):
    """Take distances into the softmax of row u, columns from start on; the values are row j of y, from d on.

    Returns how many pairs were skipped.
    """
    end, channels = start + dist.size, len(y)
    if track:
        keep_nearest(least[u, start:end], code[u, start:end], dist, now)
    base, mass = state[0, u, start:end], state[1, u, start:end]
    if cut < FAR and beyond(base, dist, scale, cut):
        return dist.size
    if weigh(w, base, dist, scale) < 0:
        if track:
            shift_excess(state[channels + 2, u, start:end], mass, base, dist)
        renew(w, base, dist, scale)
        for s in range(1, len(state)):
            multiply(state[s, u, start:end], w)
        weigh(w, base, dist, scale)
    add(mass, w)
    for c in range(channels):
        add_product(state[c + 2, u, start:end], w, y[c, j, d : d + dist.size])
    if track:
        add_excess(state[channels + 2, u, start:end], w, base, dist)
    return 0


@njit(**OPTIONS)
def _spread(out, x):
    """out (C, H, W * LANES) holds every pixel of x (C, H, W) LANES times."""
    for c in range(x.shape[0]):
        for i in range(x.shape[1]):
            for j in range(x.shape[2]):
                out[c, i, j * LANES : (j + 1) * LANES] = x[c, i, j]


@njit(**OPTIONS)
def _interleave(out, images):
    """out (C, H, W * LANES) holds the images (n, C, H, W), n <= LANES, side by side; missing ones repeat the first."""
    for n in range(LANES):
        image = images[n if n < len(images) else 0]
        for c in range(image.shape[0]):
            for i in range(image.shape[1]):
                for j in range(image.shape[2]):
                    out[c, i, j * LANES + n] = image[c, i, j]


@njit(**OPTIONS)
def _forget(state, least, code, valid):
    """Let the lanes from valid on start afresh."""
    for lane in range(valid, LANES):
        state[:, :, 0, :, lane::LANES] = FAR
        state[:, :, 1:, :, lane::LANES] = np.float32(0)
        least[..., lane::LANES] = FAR
        code[..., lane::LANES] = -1


class Scratch(NamedTuple):
    """Working memory of one thread: an image x and LANES training images, planes, a row of distances and of weights."""

    query: np.ndarray
    images: np.ndarray
    plane: np.ndarray
    wide: np.ndarray
    powers: np.ndarray
    dist: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, shape: tuple[int, int, int], rows: Plan, columns: Plan, window: int) -> Self:
        """Return memory for images of this shape, these offsets and windows up to this one."""
        C, H, W = shape
        size = rows.count.max() * columns.count.max() * LANES
        sizes = (C, H, W * LANES), (C, H, W * LANES), size, size, (window.bit_length(), size), W * LANES, W * LANES
        return cls(*(np.empty(one, np.float32) for one in sizes))


@njit(**OPTIONS)
def _compare(x, alpha, scale, images, windows, rows, columns, scratch, state, least, code, cut, track):
    """Take the images (N, C, H, W) into the softmax of every query and every window; returns how many pairs it skipped.

    x (B, C, H, W) with alpha and scale = log2(e) / (2 sigma^2), both (B,); windows (K,) rise; rows and columns are the
    `Plan`s. state (K, B, 2 + C, H, W * LANES) holds base, mass and totals. With track it holds one more sum, of
    w (dist - base), and least and code (K, B, H, W * LANES) hold the smallest distance and its pair,
    (tile * F_rows + row) * F_columns + column. With cut < FAR, runs of pairs are skipped that all weigh less than
    2^-cut against one that is kept.
    """
    query, y = scratch.query, scratch.images
    F, G, skipped = rows.count.size, columns.count.size, 0
    for tile in range((len(images) - 1) // LANES, -1, -1):  # the last tile may be ragged, and goes first
        part = images[tile * LANES : (tile + 1) * LANES]
        _interleave(y, part)
        for b in range(len(x)):
            _spread(query, x[b])
            for pair in range(F * G):
                f, g, now = pair // G, pair % G, tile * F * G + pair
                m, count = columns.count[g] * LANES, rows.count[f]
                plane, done = scratch.plane[: count * m], -1
                _differences(
                    plane, m, query, y, alpha[b], rows.query[f, :count], rows.data[f], columns.runs[g], rows.period
                )
                for k in range(len(windows)):
                    if rows.start[k, f] < rows.stop[k, f] and columns.start[k, g] < columns.stop[k, g]:
                        _sum_windows(scratch, plane.size, m, windows[k], done, k, f, g, rows, columns)
                        done = windows[k] // 2
                        held = state[k, b], least[k, b], code[k, b]
                        at = windows[k], k, f, g
                        lanes = _take_windows(scratch, m, at, rows, columns, held, scale[b], y, now, cut, track)
                        skipped += lanes // LANES * len(part)
        if len(part) < LANES:
            _forget(state, least, code, len(part))
    return skipped


@njit(**OPTIONS)
def _sum_windows(scratch, size, m, window, done, k, f, g, rows, columns):
    """Sum the plane along rows, and down columns over powers of two, for one window and one offset."""
    p, left = window // 2, (columns.start[k, g] - columns.first[g]) * LANES
    n = (columns.stop[k, g] - columns.start[k, g]) * LANES
    _widen(scratch.wide[:size], scratch.plane[:size], m, left, left + n, done, p, rows.period)
    top, count = rows.start[k, f] - p - rows.first[f], rows.stop[k, f] - rows.start[k, f] + 2 * p
    _double(scratch.powers, scratch.wide, m, top, count, left, n, window)


@njit(**OPTIONS)
def _take_windows(scratch, m, at, rows, columns, held, scale, y, now, cut, track):
    """Take the distances of one window and one offset into the softmax, row by row; returns how many were skipped."""
    window, k, f, g = at
    start, stop, skipped = columns.start[k, g], columns.stop[k, g], 0
    dist, left = scratch.dist[: (stop - start) * LANES], (start - columns.first[g]) * LANES
    piece = PIECE if cut < FAR else dist.size
    for u in range(rows.start[k, f], rows.stop[k, f]):
        top, n = (u - window // 2 - rows.first[f]) * m + left, dist.size
        here = scratch.wide[top : top + n]
        if window == 3:
            sum3(dist, here, scratch.wide[top + m : top + m + n], scratch.wide[top + 2 * m : top + 2 * m + n])
        else:
            _tall(dist, here, scratch.powers, u - rows.start[k, f], window)
        j = rows.data[f, u - rows.first[f]]
        for r in range(len(columns.runs[g])):
            run = columns.first[g] + columns.runs[g, r, 0]
            here, end = max(run, start), min(run + columns.runs[g, r, 3], stop)
            for a in range((here - start) * LANES, (end - start) * LANES, piece):
                some = dist[a : min(a + piece, (end - start) * LANES)]
                d = (columns.runs[g, r, 2] + start - run) * LANES + a
                w = scratch.weights[: some.size]
                skipped += _take(*held, u, start * LANES + a, w, some, scale, y, j, d, now, cut, track)
    return skipped


def _kept_on_disk(digest):
    """numba compiles anew when this file changes, or a number in a closure; so the digest of `vectors` is in one."""

    @njit(nogil=True, cache=True, **OPTIONS)
    def kept(*arguments):
        digest  # noqa: B018
        return _compare(*arguments)

    return kept


compare = _kept_on_disk(crc32(Path(vectors.__file__).read_bytes()))
