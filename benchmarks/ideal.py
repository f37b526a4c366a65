"""What the ideal machine costs beyond its two matrix products; run as `python benchmarks/ideal.py`.

20,000 images of 3072 values, batch 64, float32. The bare products are x Y^T and W Y over the whole set.
Both are timed alternately, so that a busy machine slows them alike; the target is a median ratio of at most 1.3.
"""

from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch

from scoremachines import Ideal, Noise

N, D, B = 20_000, 3072, 64
REPEATS = 15


def seconds(f: Callable[[], object]) -> float:
    start = perf_counter()
    f()
    return perf_counter() - start


def main() -> None:
    rng = torch.Generator().manual_seed(0)
    data = torch.rand(N, D, generator=rng) * 2 - 1
    x = data[:B] + torch.randn(B, D, generator=rng)
    machine, noise = Ideal.fit(data), Noise(1.0, 1.0)
    weights = machine.log_weights(x, noise).exp()

    def products() -> None:
        x @ data.T
        weights @ data

    def denoise() -> None:
        machine.denoise(x, noise)

    for warm_up in (products, denoise):
        warm_up()
    pairs = [(seconds(products), seconds(denoise)) for _ in range(REPEATS)]
    bare, full = (median(times) for times in zip(*pairs, strict=True))
    ratio = median(denoised / product for product, denoised in pairs)
    print(f"{N} x {D}, batch {B}, float32, {torch.get_num_threads()} threads, median of {REPEATS}")
    print(
        f"two matrix products {bare * 1e3:.1f} ms, Ideal.denoise {full * 1e3:.1f} ms, ratio {ratio:.2f} (target 1.30)"
    )


if __name__ == "__main__":
    main()
