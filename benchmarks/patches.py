"""What patch machines cost, against the direct method and matrix products; run as `python benchmarks/patches.py`.

128 images of 32 x 32 x 3, uniform in [-1, 1], and one query at the middle of the cosine schedule, in float32. With zero
borders the compiled sum over offsets is compared with two methods in plain torch, both with a streaming softmax:

    direct      every patch of the query minus every patch of its dictionary, squared and added, one query at a time
    products    patches copied side by side, distances by matrix products of them

The targets: at least 20 times as fast as direct at windows 3 and 7 and 10 times at 17, faster than products at every
window, equal to 1e-5 of the largest value. Then the costs that no rival shares: pairs of patches a second for periodic
windows, sixteen queries, eight windows in one pass (target 0.7 of eight passes), `Local` and `Equivariant`. Every
target is printed with its value and whether it is met.
Whatever is compared is timed alternately, so that a busy machine slows all alike; the ratios are medians.
"""

import math
from collections.abc import Callable, Iterator
from itertools import product
from statistics import median
from time import perf_counter

import torch
from torch import Tensor
from torch.nn.functional import pad

from scoremachines import Equivariant, EquivariantLocal, Local, cosine_legacy

N, SHAPE = 128, (3, 32, 32)
NOISE = cosine_legacy(0.5)
DIRECT = {3: 20, 7: 20, 17: 10}  # times as fast as the direct method, at least, by window
PRODUCTS = 1  # times as fast as matrix products, at least
DIFFERENCE = 1e-5  # from either, over the largest value, at most
TOGETHER = 0.7  # of the time of separate passes, at most
WINDOWS = tuple(range(3, 18, 2))
REPEATS, SLOW_REPEATS = 7, 3
IMAGES = 16  # training images whose patches are held at a time
ENTRIES = 2**26  # numbers in one tensor of differences, 256 MiB


def seconds(f: Callable[[], object]) -> float:
    start = perf_counter()
    f()
    return perf_counter() - start


def alternate(*functions: Callable[[], object], repeats: int = REPEATS) -> tuple[list[float], list[float]]:
    """Return the median seconds of each, and the median ratios of the others to the first."""
    functions[0]()  # compiles
    rounds = [[seconds(f) for f in functions] for _ in range(repeats)]
    ratios = [[time / first for time in rest] for first, *rest in rounds]
    return [median(times) for times in zip(*rounds, strict=True)], [median(of) for of in zip(*ratios, strict=True)]


def at_least(value: float, target: float) -> str:
    return f"{value:.3g} (target at least {target:g}: {'met' if value >= target else 'missed'})"


def at_most(value: float, target: float) -> str:
    return f"{value:.3g} (target at most {target:g}: {'met' if value <= target else 'missed'})"


# Baselines for zero borders -------------------------------------------------------------------------------------------


def patches(images: Tensor, p: int) -> Tensor:
    """The windows (N, H, W, D) around every pixel of images that are zero outside."""
    found = pad(images, (p, p, p, p)).unfold(2, 2 * p + 1, 1).unfold(3, 2 * p + 1, 1)
    return found.permute(0, 2, 3, 1, 4, 5).flatten(3)


def groups(p: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield rows and columns (g, q) of g groups of pixels.

    Pixels of one group share their dictionary: the interior, an edge row or column, or one place in a corner.
    """
    axes = []
    for length in SHAPE[1:]:
        inside = torch.arange(p, length - p)
        outside = torch.tensor([i for i in range(length) if not p <= i < length - p], dtype=torch.int64)
        axes.append([one for one in (inside[None], outside[:, None]) if one.numel()])
    for rows, columns in product(*axes):
        grid = (len(rows), len(columns), rows.shape[1], columns.shape[1])
        i = rows[:, None, :, None].expand(grid).flatten(2).flatten(0, 1)
        j = columns[None, :, None, :].expand(grid).flatten(2).flatten(0, 1)
        yield i, j


class Softmax:
    """A streaming softmax over keys, for groups of queries: log weights (g, q, k) and values (g, k, C)."""

    def __init__(self) -> None:
        self.peak, self.mass, self.total = -torch.inf, 0.0, 0.0

    def take(self, logits: Tensor, values: Tensor) -> None:
        peak = logits.amax(2, keepdim=True).clamp(min=self.peak)
        weights, old = logits.sub_(peak).exp_(), (self.peak - peak).exp()
        self.peak, self.mass = peak, old * self.mass + weights.sum(2, keepdim=True)
        self.total = old * self.total + weights @ values

    @property
    def mean(self) -> Tensor:
        return self.total / self.mass


def streamed(x: Tensor, data: Tensor, window: int, take: Callable) -> Tensor:
    """Return D(x) for one query x (1, C, H, W), with take(softmax, queries, keys, values) for all groups and chunks."""
    p = window // 2
    queries, out = patches(x, p)[0], torch.empty_like(x)
    pixels = list(groups(p))
    found = [Softmax() for _ in pixels]
    for images in data.split(IMAGES):
        windows, values = patches(images, p), images.movedim(1, -1)
        for softmax, (i, j) in zip(found, pixels, strict=True):
            keys, centres = (of[:, i, j].transpose(0, 1).flatten(1, 2) for of in (windows, values))
            take(softmax, queries[i, j], keys, centres)
    for softmax, (i, j) in zip(found, pixels, strict=True):
        out[0, :, i, j] = softmax.mean.movedim(-1, 0)
    return out


def direct(softmax: Softmax, queries: Tensor, keys: Tensor, values: Tensor) -> None:
    """Take squared distances from differences (g, q, k, D), a few keys at a time."""
    few = max(1, ENTRIES // queries.numel())
    for some, centres in zip(keys.split(few, 1), values.split(few, 1), strict=True):
        differences = queries[:, :, None] - NOISE.alpha * some[:, None]
        softmax.take(differences.square_().sum(3).mul_(-1 / (2 * NOISE.sigma**2)), centres)


def products(softmax: Softmax, queries: Tensor, keys: Tensor, values: Tensor) -> None:
    """Take what of the squared distances depends on the keys, from one matrix product for each group."""
    ratio = NOISE.alpha / NOISE.sigma**2
    energy = keys.square().sum(2)[:, None] * (-ratio * NOISE.alpha / 2)
    softmax.take(torch.baddbmm(energy, queries, keys.mT, alpha=ratio), values)


# Comparisons ----------------------------------------------------------------------------------------------------------


def against_baselines(data: Tensor, x: Tensor) -> None:
    for window, target in DIRECT.items():
        machine = EquivariantLocal.fit(data, window, "zeros")
        calls = [
            lambda machine=machine: machine.denoise(x, NOISE),
            lambda window=window: streamed(x, data, window, direct),
            lambda window=window: streamed(x, data, window, products),
        ]
        (ours, slow), (times,) = alternate(*calls[:2], repeats=SLOW_REPEATS)
        (_, fast), (other,) = alternate(calls[0], calls[2])
        print(
            f"zeros, window {window}: ours {1e3 * ours:.0f} ms, direct {1e3 * slow:.0f} ms, "
            f"ratio {at_least(times, target)}; products {1e3 * fast:.0f} ms, ratio {at_least(other, PRODUCTS)}"
        )
        results = [call() for call in calls]
        gaps = [((one - results[0]).abs().max() / results[0].abs().max()).item() for one in results[1:]]
        direct_gap, products_gap = (at_most(gap, DIFFERENCE) for gap in gaps)
        print(f"    largest difference over largest value: direct {direct_gap}, products {products_gap}")


def pairs(machine: Local | EquivariantLocal) -> int:
    return N * int(machine.patches_per_image(machine.window).sum())


def across_windows(name: str, machines: list[Local | EquivariantLocal], x: Tensor) -> None:
    """All are timed alternately; a pair costs about the same whatever the window."""
    times, ratios = alternate(*(lambda machine=machine: machine.denoise(x, NOISE) for machine in machines))
    costs = " ".join(f"{1e9 * time / pairs(m):.2f}" for m, time in zip(machines, times, strict=True))
    print(f"{name}, windows {' '.join(str(m.window) for m in machines)}: {costs} ns a pair of patches")
    print(f"    time at window {machines[-1].window} over that at {machines[0].window}: {ratios[-1]:.2f}")


def more_at_once(data: Tensor, x: Tensor) -> None:
    """Sixteen queries share one reading of the images; eight windows share differences and sums."""
    many = x + 0.1 * torch.randn(16, *SHAPE, generator=torch.Generator().manual_seed(2))
    for border in ("zeros", "circular"):
        machine = EquivariantLocal.fit(data, 7, border)
        times, _ = alternate(
            lambda machine=machine: machine.denoise(x, NOISE),
            lambda machine=machine: machine.denoise(many, NOISE),
            repeats=SLOW_REPEATS,
        )
        print(f"{border}, window 7: each of 16 queries takes {times[1] / 16 / times[0]:.2f} of the time of one")
        machines = [EquivariantLocal.fit(data, window, border) for window in WINDOWS]
        (separate, _), (ratio,) = alternate(
            lambda machines=machines: [machine.denoise(x, NOISE) for machine in machines],
            lambda machine=machine: machine.denoise_windows(x, NOISE, WINDOWS),
        )
        share = at_most(ratio, TOGETHER)
        print(f"{border}: {len(WINDOWS)} windows in one pass, ratio {share} of {separate:.2f} s")


def whole_images(data: Tensor, x: Tensor) -> None:
    equivariant, local = Equivariant.fit(data), EquivariantLocal.fit(data, WINDOWS[-1])
    (time, _), (ratio,) = alternate(lambda: equivariant.denoise(x, NOISE), lambda: local.denoise(x, NOISE))
    shifts = N * math.prod(SHAPE[1:])
    print(f"Equivariant: {1e3 * time:.0f} ms, {1e9 * time / shifts:.0f} ns for each image and shift")
    print(f"    the periodic machine with window {WINDOWS[-1]} takes {ratio:.1f} times as long")


def main() -> None:
    rng = torch.Generator().manual_seed(0)
    data = 2 * torch.rand(N, *SHAPE, generator=rng) - 1
    x = NOISE.add(data[:1], torch.randn(1, *SHAPE, generator=rng))
    size, threads = " x ".join(map(str, SHAPE)), torch.get_num_threads()
    print(
        f"{N} images of {size}, float32, {threads} threads, medians of {REPEATS} rounds, of {SLOW_REPEATS} with the "
        "direct method or 16 queries"
    )
    against_baselines(data, x)
    across_windows("circular", [EquivariantLocal.fit(data, window) for window in WINDOWS], x)
    across_windows("Local", [Local.fit(data, window) for window in WINDOWS], x)
    more_at_once(data, x)
    whole_images(data, x)


if __name__ == "__main__":
    main()
