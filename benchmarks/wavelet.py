"""The wavelet transform against PyWavelets'; run as `python benchmarks/wavelet.py`.

512 colour images of 32 x 32, db4, 3 levels, periodic, packed into one array, in float32 and in float64.
Both get one thread, all that PyWavelets uses, and are timed alternately, so that a busy machine slows them alike; the
target is a median ratio of at most 1.
"""

import warnings
from collections.abc import Callable
from statistics import median
from time import perf_counter

import pywt
import torch

from scoremachines.bases import Wavelet

SHAPE, NAME, LEVELS = (512, 3, 32, 32), "db4", 3
REPEATS = 31


def seconds(f: Callable[[], object]) -> float:
    start = perf_counter()
    f()
    return perf_counter() - start


def compare(dtype: torch.dtype) -> str:
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)).to(dtype)
    array, basis = x.numpy(), Wavelet(NAME, LEVELS)

    def theirs() -> torch.Tensor:
        coeffs = pywt.wavedec2(array, NAME, mode="periodization", level=LEVELS, axes=(-2, -1))
        return torch.from_numpy(pywt.coeffs_to_array(coeffs, axes=(-2, -1))[0])

    def ours() -> torch.Tensor:
        return basis.analysis(x)

    torch.testing.assert_close(ours(), theirs(), rtol=1e-4, atol=1e-4)
    pairs = [(seconds(theirs), seconds(ours)) for _ in range(REPEATS)]
    pywavelets, wavelet = (1e3 * median(times) for times in zip(*pairs, strict=True))
    ratio = median(ours / theirs for theirs, ours in pairs)
    return f"{dtype}: PyWavelets {pywavelets:.1f} ms, Wavelet {wavelet:.1f} ms, ratio {ratio:.2f} (target 1.00)"


def main() -> None:
    warnings.filterwarnings("ignore", "Level value", UserWarning)  # db4 reaches around a 32 x 32 image at level 3
    torch.set_num_threads(1)
    print(f"{SHAPE}, {NAME}, {LEVELS} levels, one thread, median of {REPEATS}")
    for dtype in (torch.float32, torch.float64):
        print(compare(dtype))


if __name__ == "__main__":
    main()
