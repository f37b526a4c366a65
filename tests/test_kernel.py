"""The two passes over patches from inside: the precision of weights, the memory they hold, what is kept on disk."""

import math
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import torch

from scoremachines import edm, kernel, lanes, offsets, vectors
from tests.conftest import noisy, patch_machine, pictures


def test_powers_of_two_keep_their_precision():
    exponents = np.linspace(-125, 126, 100_001, dtype=np.float32)
    found = np.empty_like(exponents)
    vectors.weigh(found, exponents, np.zeros_like(exponents), np.float32(1))
    assert np.abs(found / np.exp2(exponents.astype(np.float64)) - 1).max() < 2e-7


@pytest.mark.parametrize("windows", [(3,), (1, 3, 5)], ids=str)
@pytest.mark.parametrize("chunk", [1, 100, 200, 10_000])
def test_a_chunk_bounds_what_the_kernel_holds(monkeypatch, windows, chunk):
    """For all windows together; one image x with one vector of training images is the least."""
    held, compare = [], lanes.compare

    def watched(*arguments):
        held.append(math.prod(arguments[8].shape[:2]) * lanes.LANES)  # state (K, B, ...), for so many lanes
        return compare(*arguments)

    monkeypatch.setattr(lanes, "compare", watched)
    data = pictures(40, 1, 6, 5, dtype=torch.float32)
    patch_machine(data, 1, chunk=chunk).posterior_windows(noisy(data, edm(1.0), 9), edm(1.0), windows)
    assert max(held) <= max(chunk, lanes.LANES * len(windows))
    assert max(held) > min(chunk, 9 * lanes.LANES * len(windows)) / 2


@pytest.mark.parametrize("border", ["same", "zeros", "interior", "circular"])
@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_a_chunk_bounds_what_torch_holds(monkeypatch, border, chunk):
    """Pairs at several offsets together, never more of these than a chunk."""
    held, met = [], offsets._met

    def watched(x, alpha, scale, y, first, window, row, columns):
        held.append(len(x) * len(y) * len(columns.shift))
        return met(x, alpha, scale, y, first, window, row, columns)

    monkeypatch.setattr(offsets, "_met", watched)
    data = pictures(7, 1, 6, 5)
    patch_machine(data, 1, border, chunk=chunk).posterior_windows(noisy(data, edm(1.0), 4), edm(1.0), (1, 3, 5))
    assert 1 <= max(held) <= chunk


def test_the_kernel_on_disk_is_that_of_these_vectors():
    """numba finds what it compiled by a key, and another text of `vectors` is another key."""
    digest = crc32(Path(vectors.__file__).read_bytes())
    now, same, other = (
        compiled._cache._index_key((), compiled.targetctx.codegen())
        for compiled in (kernel.compare, kernel._kept_on_disk(digest), kernel._kept_on_disk(digest + 1))
    )
    assert now == same != other
