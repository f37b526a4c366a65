"""Exact moments against a regression on sampled noise at every level; run as `python benchmarks/polynomial.py`.

60,000 images of 32 x 32: MNIST where $SCOREMACHINES_DATA holds it, noise of that size otherwise. Degree 3, db2, one
regression per coefficient, 16 levels. The sampled baseline transforms the images once, then draws one noise per image
and level, and accumulates the normal equations of the raw monomials by batched products in float64, chunk by chunk. It
is timed at 2 levels and multiplied by 8. Both get one thread and are measured in processor time, which a busy machine
hardly changes. They are then compared on the same noisy held-out images.
"""

import os
from collections.abc import Callable
from time import process_time

import torch
from torch import Tensor

from scoremachines import edm
from scoremachines.bases import Wavelet
from scoremachines.data import load
from scoremachines.design import ENTRIES, Design, PolynomialMoments
from scoremachines.polynomial import WaveletPolynomial

TARGETS = {"independent": 20, "band-tied": 20, "local": 8}  # times faster
SIGMAS = torch.logspace(-1.3, 0.7, 16, dtype=torch.float64).tolist()
TIMED = (SIGMAS[5], SIGMAS[10])
BASIS = Wavelet("db2")
RIDGE = 1e-9  # relative to the mean square of each feature


def images() -> tuple[str, Tensor, Tensor]:
    if os.environ.get("SCOREMACHINES_DATA"):
        return "MNIST", *(load("mnist", split, size=32).x0 for split in ("train", "test"))
    rng = torch.Generator().manual_seed(0)
    return "noise", *(torch.randn(n, 1, 32, 32, generator=rng).pow(3).clamp(-1, 1) for n in (60_000, 10_000))


def seconds(f: Callable[[], object]) -> tuple[float, object]:
    start = process_time()
    result = f()
    return process_time() - start, result


def raw(u: Tensor, family: str, target: int) -> Tensor:
    """The raw monomials (n, f, B) of one target of variables u (n, m, B)."""
    y = u[:, target : target + 1]
    others = torch.cat([u[:, :target], u[:, target + 1 :]], 1)
    y2, features = y * y, [torch.ones_like(y), y]
    features += [y2, y2 * y]
    if others.shape[1]:
        mixed = y * others
        features += [mixed, y2 * others, mixed * others]
    if family == "band-tied" and others.shape[1]:
        features.append(mixed[:, :1] * others[:, 1:])
    return torch.cat(features, 1)


def sampled(z0: Tensor, design: Design, family: str, sigma: float, rng: torch.Generator) -> list[list[Tensor]]:
    """The weights (n, f, 1) of every target of every stencil, from one noise draw per column of z0 (D, N)."""
    totals: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    widest = max(len(s.index) * len(features) for s in design.stencils for features in s.features)
    for clean in z0.split(max(1, ENTRIES // widest), 1):
        noisy = clean + sigma * torch.randn(clean.shape, generator=rng, dtype=clean.dtype)
        for k, stencil in enumerate(design.stencils):
            u = noisy[stencil.index]
            for t in range(stencil.targets):
                phi = raw(u, family, t)
                gram, rhs = phi @ phi.mT, phi @ clean[stencil.index[:, t]][:, :, None]
                old = totals.get((k, t))
                totals[k, t] = (gram, rhs) if old is None else (old[0] + gram, old[1] + rhs)
    return [[ridge(*totals[k, t]) for t in range(s.targets)] for k, s in enumerate(design.stencils)]


def ridge(gram: Tensor, rhs: Tensor) -> Tensor:
    scale = gram.diagonal(dim1=1, dim2=2).rsqrt()[..., None]
    unit = gram * scale * scale.mT + RIDGE * torch.eye(gram.shape[1], dtype=gram.dtype)
    return scale * torch.cholesky_solve(rhs * scale, torch.linalg.cholesky(unit))


def predict(z: Tensor, design: Design, family: str, weights: list[list[Tensor]]) -> Tensor:
    D = torch.empty_like(z)
    for stencil, found in zip(design.stencils, weights, strict=True):
        for t, w in enumerate(found):
            D[stencil.index[:, t]] = (w.mT @ raw(z[stencil.index], family, t))[:, 0]
    return D


def exact(train: Tensor, family: str) -> WaveletPolynomial:
    machine = WaveletPolynomial.fit(train, BASIS, family)
    for sigma in SIGMAS:
        machine.denoise(train[:1], edm(sigma))
    return machine


def compare(train: Tensor, test: Tensor, family: str) -> None:
    rng = torch.Generator().manual_seed(1)
    design = Design.of(BASIS, train.shape[1:], family)
    exact(train[:100], family)  # warm-up
    ours, machine = seconds(lambda: exact(train, family))
    transform, z0 = seconds(lambda: BASIS.analysis(train.double()).flatten(1).T.contiguous())
    refits = [seconds(lambda s=sigma: sampled(z0, design, family, s, rng)) for sigma in TIMED]
    theirs = transform + sum(time for time, _ in refits) * len(SIGMAS) / len(TIMED)
    print(
        f"{family}: exact {ours:.1f} s, sampled {theirs:.1f} s (transform {transform:.1f} s, "
        f"{sum(time for time, _ in refits) / len(TIMED):.1f} s a level), ratio {theirs / ours:.1f} "
        f"(target {TARGETS[family]})"
    )
    clean = BASIS.analysis(test.double()).flatten(1).T
    for sigma, (_, weights) in zip(TIMED, refits, strict=True):
        noisy = clean + sigma * torch.randn(clean.shape, generator=rng, dtype=clean.dtype)
        x = BASIS.synthesis(noisy.T.reshape(test.shape))
        errors = (
            (machine.denoise(x, edm(sigma)) - test).square().mean(),
            (predict(noisy, design, family, weights) - clean).square().mean(),
        )
        print(f"  sigma {sigma:.3f}: held-out mean square error {errors[0]:.6f} exact, {errors[1]:.6f} sampled")
    thousand, _ = seconds(lambda: machine.denoise(test[:1000], edm(TIMED[0])))
    print(f"  denoising 1000 images: {thousand:.2f} s (target 1.00)")


def memory() -> None:
    print("memory of the statistic of the family local, three levels, tied and with one regression per coefficient")
    for side in (32, 64, 128, 256):
        tied, free = (Design.of(Wavelet("db2", 3), (1, side, side), "local", tied=tied) for tied in (True, False))
        moments = PolynomialMoments.of(torch.zeros(2, 1, side, side), tied)
        kept = 8 * sum(t.numel() for part in moments.sums for t in (part.gram, part.center, part.low, part.high))
        other = 8 * sum(len(s.index) * len(m) ** 2 for s, m in zip(free.stencils, free.monomials, strict=True))
        print(f"  {side} x {side}: {kept / 2**20:.2f} MiB tied, {other / 2**20:.0f} MiB untied")


def main() -> None:
    torch.set_num_threads(1)
    name, train, test = images()
    print(f"{name}, {tuple(train.shape)}, one thread, {len(SIGMAS)} levels, degree 3")
    for family in TARGETS:
        compare(train, test, family)
    memory()


if __name__ == "__main__":
    main()
