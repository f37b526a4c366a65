"""What fitting a mixture costs, against scikit-learn; run as `python benchmarks/mixture.py`.

On bundled digits (8 x 8, D = 64), timed alternately, so that a busy machine slows both alike: k-means against KMeans
and MiniBatchKMeans (median ratio of the pairs), and one EM pass against GaussianMixture (ratio of the medians, after
the time of our k-means is taken off). The target is a ratio of at most 3.
With MNIST and CIFAR-10 in SCOREMACHINES_DATA, also the seconds of two large fits, k-means included: K = 100 on MNIST
(target 120) and K = 10 of rank 256 on CIFAR-10 (target 300).
"""

import os
import warnings
from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from scoremachines.clusters import kmeans
from scoremachines.data import load
from scoremachines.mixture import Mixture

REPEATS = 15
K, PASSES = 10, 20
LARGE = (("mnist", 100, None, 120), ("cifar10", 10, 256, 300))  # data, components, rank, seconds


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def seconds(f: Callable[[], object]) -> float:
    start = perf_counter()
    f()
    return perf_counter() - start


def alternate(ours: Callable[[], object], theirs: Callable[[], object]) -> tuple[float, float, float]:
    """Return the median milliseconds of both and the median ratio."""
    ours(), theirs()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(REPEATS)]
    here, there = (1e3 * median(times) for times in zip(*pairs, strict=True))
    return here, there, median(a / b for a, b in pairs)


def clusters(data: torch.Tensor) -> None:
    """Each draws its own k-means++ start, which is timed too; the inertia says how well each of them ends."""

    def ours() -> torch.Tensor:
        return kmeans(data, K, seeded(), PASSES, tolerance=0.0)

    rivals = {
        "KMeans": KMeans(K, n_init=1, tol=0, max_iter=PASSES, algorithm="lloyd", random_state=0),
        "MiniBatchKMeans": MiniBatchKMeans(K, n_init=1, batch_size=2048, random_state=0),
    }
    for name, rival in rivals.items():
        here, there, ratio = alternate(ours, lambda rival=rival: rival.fit(data.numpy()))
        print(f"k-means, K = {K}: {here:.1f} ms, its {name} {there:.1f} ms, ratio {ratio:.2f} (target 3.00)")
        found = ours()
        inertia = sum((data[found == k] - data[found == k].mean(0)).square().sum().item() for k in range(K))
        print(f"    inertia {inertia:.1f} against {rival.inertia_:.1f}")


def expectation(data: torch.Tensor) -> None:
    """Both get the same number of passes after one k-means; the time of our k-means and clusters is taken off."""
    array, options = data.numpy(), {"k": K, "passes": PASSES, "tolerance": 0.0, "floor": 1e-3}
    hard = Mixture.fit(data, rng=seeded(), **options)
    theirs = GaussianMixture(
        K,
        tol=0.0,
        reg_covar=1e-3,
        max_iter=PASSES,
        weights_init=hard.weights.numpy(),
        means_init=torch.stack([c.mean for c in hard.components]).numpy(),
        precisions_init=torch.stack([torch.linalg.inv(c.cov + 1e-3 * torch.eye(64)) for c in hard.components]).numpy(),
    )
    first = median(seconds(lambda: Mixture.fit(data, rng=seeded(), **options)) for _ in range(REPEATS))
    full, there, _ = alternate(lambda: Mixture.fit(data, rng=seeded(), by="em", **options), lambda: theirs.fit(array))
    here, there = (full - 1e3 * first) / PASSES, there / theirs.n_iter_
    print(f"EM pass, K = {K}: {here:.1f} ms, GaussianMixture {there:.1f} ms, ratio {here / there:.2f} (target 3.00)")


def large(name: str, k: int, rank: int | None, target: int) -> None:
    data = load(name).x0
    spent = seconds(lambda: Mixture.fit(data, k=k, rank=rank, rng=seeded()))
    print(f"{name}, {len(data)} images, K = {k}, rank {rank}: {spent:.0f} s (target {target})")


def main() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of passes is the point
    data = load("digits").x0.flatten(1).double()
    print(f"{len(data)} x {data.shape[1]}, float64, {torch.get_num_threads()} threads, median of {REPEATS}")
    clusters(data)
    expectation(data)
    if os.environ.get("SCOREMACHINES_DATA"):
        for fit in LARGE:
            large(*fit)


if __name__ == "__main__":
    main()
