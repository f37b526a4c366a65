"""Train the small networks of component-wise noise and keep them, with their distance from the exact denoiser.

    python scripts/train_networks.py --net digits-range

Each is written, whole or not at all, to results/networks/NAME.safetensors. Their data are samples of a mixture of ten
Gaussians, one for each digit, so that the exact denoiser is known and there are as many samples as wanted.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from scoremachines import Gaussian, Machine, Mixture
from scoremachines.bases import DCT
from scoremachines.coordinates import Coordinates, Prior
from scoremachines.data import Images, load
from scoremachines.networks import MLP, Network
from scoremachines.orders import by_variance
from scoremachines.paths import at_gamma, gamma_of, soft
from scoremachines.train import cube, draws, soft_paths, train

ROOT = Path(__file__).parents[1]
SEED = 0
STEPS = 20_000
CLEAN, NOISY = -7.0, 3.0
RANGE = (0.4, 1.6)  # of the inverse softness a
NETS = {  # name: what the network is shown of the state, and the levels it is trained on
    "digits-fixed": ("state", (1.0, 1.0)),
    "digits-range": ("state", RANGE),
    "digits-cube": ("state", "cube"),
    "digits-scalar": ("mean", RANGE),
}
LAW = "one Gaussian for each digit, with its share, mean and 0.9 covariance + (0.1 mean variance + 0.001) I"
COORDINATES = "chi = S^-1 W (x - mean), W the DCT, mean and S^2 those of the law; labels -log S^2"
SAMPLES, POINTS = 1024, 32  # of the law, and levels on a path, to measure with


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", choices=NETS, required=True)
    parser.add_argument("--out", type=Path, help="the checkpoint (default: results/networks/NAME.safetensors)")
    found = parser.parse_args(argv)
    found.out = found.out or ROOT / "results" / "networks" / f"{found.net}.safetensors"
    return found


# The law and its coordinates ----------------------------------------------------------------------------------------


def law_of(images: Images) -> Mixture:
    """Return the mixture of images, LAW."""
    found = Mixture.fit(images.x0.double(), by="labels", labels=images.labels)
    return replace(found, components=tuple(map(_widened, found.components)))


def _widened(one: Gaussian) -> Gaussian:
    return replace(one, lam=0.9 * one.lam + 0.1 * one.lam.mean() + 1e-3)


def coordinates_of(law: Mixture) -> Coordinates:
    """Return COORDINATES, in which every component of the law has mean 0 and variance 1."""
    means = torch.stack([one.mean for one in law.components])
    mean = law.weights @ means
    apart = (means - mean).T @ torch.diag(law.weights) @ (means - mean)
    cov = sum(weight * one.cov for weight, one in zip(law.weights, law.components, strict=True)) + apart
    rows = DCT().analysis(torch.eye(len(cov)).to(cov).reshape(-1, *law.shape)).flatten(1)
    variance = (rows * (cov @ rows)).sum(0).reshape(law.shape)
    return Coordinates(DCT(), mean.reshape(law.shape), Prior.matched(variance))


# Distance from the exact denoiser -----------------------------------------------------------------------------------


def error(network: Machine, law: Mixture, x0: Tensor, gamma: Tensor, rng: torch.Generator) -> Tensor:
    """Return E (eps_hat - eps_hat_exact)_i^2 of every component at the level gamma."""
    noise = at_gamma(gamma)
    x = noise.add(x0, torch.randn(x0.shape, generator=rng, dtype=x0.dtype))
    return (network.eps(x, noise) - law.eps(x, noise)).square().mean(0)


def along(path: Callable[[float], Tensor], network, law, x0, rng) -> float:
    """Return (1/2) int sum_i error_i dgamma_i in nats along a path of gamma, t from 0 to 1, by the midpoint rule."""
    ends = [path(k / POINTS) for k in range(POINTS + 1)]
    steps = [(error(network, law, x0, (a + b) / 2, rng) * (b - a)[0]).sum() for a, b in pairwise(ends)]
    return sum(steps).item() / 2


def around(labels: Tensor, network, law, x0, rng, lowest: float = -4.0, highest: float = 1.0) -> float:
    """Return the same around a rectangle: the coarse half of the components rises, then the fine half, then they fall.

    With the exact denoiser it is 0.
    """
    coarse = labels < labels.median()
    corners = [torch.where(coarse, a, b).double()[None] for a, b in ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0))]
    corners = [lowest + (highest - lowest) * corner for corner in corners]
    sides = [lambda t, a=a, b=b: a + t * (b - a) for a, b in pairwise(corners)]
    return sum(along(side, network, law, x0, rng) for side in sides)


def measured(network: Network, law: Mixture, labels: Tensor) -> dict:
    """Return the excess of the loss over that of the exact denoiser on three paths, and the loop, in nats."""
    rng = torch.Generator().manual_seed(SEED + 1)
    x0 = draws(law)(SAMPLES, rng)
    paths = {a: soft(labels, a, CLEAN, NOISY) for a in (0.4, 1.0, 1.6)}
    excess = {str(a): along(lambda t, path=path: gamma_of(path(t)), network, law, x0, rng) for a, path in paths.items()}
    return {"excess_nats": excess, "loop_nats": around(labels, network, law, x0, rng)}


# Training -------------------------------------------------------------------------------------------------------------


def trained(name: str, law: Mixture, labels: Tensor) -> Network:
    """Return the network of this name, rounded as its checkpoint keeps it."""
    condition, a = NETS[name]
    widest = RANGE[1] if a == "cube" else a[1]
    spread = widest * (labels.max() - labels.min()).item()
    reach = (CLEAN - spread, NOISY + spread)  # the ends of the path of largest a
    family = cube(law.shape, *reach) if a == "cube" else soft_paths(labels, a, CLEAN, NOISY)
    rng = torch.Generator().manual_seed(SEED)
    start = Network.start(MLP(law.shape, condition=condition), reach, rng)
    for progress in train(start, draws(law.to(torch.float32)), family, rng, STEPS):
        if progress.step % 1000 == 0:
            print(f"step {progress.step}: {progress.loss:.1f} nats", flush=True)
    return progress.network.rounded()


def main(argv: Sequence[str] | None = None) -> None:
    chosen = arguments(argv)
    images = load("digits")
    law = law_of(images)
    coordinates = coordinates_of(law)
    law, labels = coordinates.law(law), by_variance(coordinates.prior.scale**2)
    began = time.perf_counter()
    network = trained(chosen.net, law, labels)
    seconds = round(time.perf_counter() - began)
    facts = {"law": LAW, "coordinates": COORDINATES, "a": NETS[chosen.net][1], "clean": CLEAN, "noisy": NOISY}
    facts |= {"steps": STEPS, "seed": SEED, "seconds": seconds, **measured(network, law, labels)}
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    network.save(chosen.out, **images.provenance, **facts)
    print(f"{chosen.net}: excess {facts['excess_nats']}, loop {facts['loop_nats']:.2f} nats, {seconds} s, {chosen.out}")


if __name__ == "__main__":
    torch.set_num_threads(1)  # more of them only wait for each other, and sum in another order
    main()
