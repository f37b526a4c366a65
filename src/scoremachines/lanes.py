"""Lanes: the compiled sum over offsets, on all threads.

It prepares what `kernel.compare` reads, divides the training images among threads, and joins what the lanes hold.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from functools import reduce

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .kernel import FAR, LANES, Scratch, compare
from .offsets import Matches, Nearest
from .plans import Plan
from .stats import SoftMean


def matches(
    x: Float[Tensor, "B C H W"],
    alpha: Float[Tensor, " B"],
    sigma: Float[Tensor, " B"],
    images: Float[Tensor, "n C H W"],
    windows: tuple[int, ...],
    border: str,
    queries: int,
    cut: float,
    track: bool,
) -> tuple[list[Matches], int]:
    """Return the matches for each of the rising windows, and how many pairs were skipped.

    So many queries at a time share one reading of the images, which are divided among torch's threads. cut is in bits,
    infinite for an exact result. Without track the matches hold neither log weights nor nearest patches.
    """
    query = x.contiguous(), alpha.contiguous(), (math.log2(math.e) / 2 / sigma.double() ** 2)
    plans = [Plan.of(length, windows, border) for length in x.shape[2:]]
    workers = torch.get_num_threads()
    share = -(-len(images) // (LANES * workers)) * LANES
    starts = range(0, len(images), share)

    def work(b: int, n: int) -> tuple[list[Matches], int]:
        some, part = slice(b, b + queries), images[n : n + share].float().contiguous()
        return _match(*(one[some] for one in query), part, n, windows, plans, cut, track)

    with ThreadPoolExecutor(workers) as pool:
        jobs = [[pool.submit(work, b, n) for n in starts] for b in range(0, len(x), queries)]
        done = [[job.result() for job in block] for block in jobs]
    found = [[reduce(Matches.merge, each) for each in zip(*(part for part, _ in block), strict=True)] for block in done]
    return [Matches.cat(each) for each in zip(*found, strict=True)], sum(n for block in done for _, n in block)


def _match(x, alpha, scale, images, first, windows, plans, cut, track) -> tuple[list[Matches], int]:
    """The matches of some queries among some images, numbered from first."""
    B, C, H, W = x.shape
    shape = (len(windows), B, 2 + C + track, H, W * LANES)
    state = np.zeros(shape, np.float32)
    state[:, :, 0] = FAR
    held = shape[:2] + shape[3:] if track else (len(windows), B, 1, 1)
    least, code = np.full(held, FAR), np.full(held, -1, np.int32)
    arrays = x.numpy(), alpha.numpy(), scale.float().numpy(), images.numpy(), np.array(windows)
    scratch = Scratch.of((C, H, W), *plans, max(windows))
    skipped = compare(*arrays, *plans, scratch, state, least, code, np.float32(cut), track)
    soft = [_soft_mean(_split(one), scale, C) for one in state]
    if not track:
        return [Matches(one, None) for one in soft], skipped
    found = (_nearest_of(*pair, first, plans) for pair in zip(map(_split, least), map(_split, code), strict=True))
    return [Matches(*pair) for pair in zip(soft, found, strict=True)], skipped


def _soft_mean(state: np.ndarray, scale: Tensor, channels: int) -> SoftMean:
    """Join the lanes of one window: state (B, S, H, W, LANES); a sum beyond the totals turns into log weights."""
    base, mass, *sums = np.moveaxis(state, 1, 0)
    bits = scale.double().numpy()[:, None, None, None]
    least = base.min(-1, keepdims=True)
    factor = np.exp2(bits * (least - base))
    totals = [(factor * one).sum(-1) for one in sums[:channels]]
    for excess in sums[channels:]:
        totals.append(-math.log(2) * (bits * factor * (excess + mass * np.where(mass > 0, base, 0))).sum(-1))
    peak = -math.log(2) * (bits * least)
    rows = [torch.from_numpy(one.reshape(-1)) for one in (peak, (factor * mass).sum(-1), *totals)]
    return SoftMean(rows[0], rows[1], torch.stack(rows[2:], 1))


def _nearest_of(least: np.ndarray, code: np.ndarray, first: int, plans: list[Plan]) -> Nearest:
    """Join the lanes of one window: least and code (B, H, W, LANES), squared distances and which pairs have them."""
    least, code = (one.reshape(-1, LANES) for one in (least, code))
    lane = least.argmin(1)
    pixel = np.arange(len(lane))
    tile, pair = np.divmod(code[pixel, lane].astype(np.int64), plans[0].shift.size * plans[1].shift.size)
    row, column = np.divmod(pair, plans[1].shift.size)
    shift = np.stack([plans[0].shift[row], plans[1].shift[column]], 1)
    return Nearest(*map(torch.from_numpy, (least[pixel, lane], first + tile * LANES + lane, shift)))


def _split(array: np.ndarray) -> np.ndarray:
    """Give the lanes an axis of their own, in float64 unless they hold whole numbers."""
    array = array.reshape(*array.shape[:-1], -1, LANES)
    return array if array.dtype == np.int32 else array.astype(np.float64)
