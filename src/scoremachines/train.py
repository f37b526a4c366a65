"""Training: a loop that fits a network to the bound on the likelihood, and the levels that it may be trained on.

For a path gamma(t) of levels, t from 0 to 1, the diffusion part of the evidence lower bound is in nats

    L = E int (1/2) sum_i gamma_i'(t) (eps_i - eps_hat_i)^2 dt,        eps - eps_hat = alpha (v - v_hat),

and L of a network less L of the exact denoiser bounds how far the models along that path are apart. A family of levels
draws a state gamma for every sample of a batch, and the slope gamma' there; over random paths the loss is the mean of
L. Where all gamma_i are independent and uniform in [lo, hi], with slope hi - lo, the loss covers the cube of all states
and with it every path inside.
Source: Gerdes, Welling and Cheng (2024), and chapter "Soft conditioning"; Chen and others (2024) for the cube.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from numbers import Real
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .ancestral import covariance_root
from .gaussian import Gaussian
from .mixture import Mixture
from .networks import Network
from .paths import at_gamma, check_labels

Draw = Callable[[int, torch.Generator], Tensor]  # (n, rng) -> x0, (n, *shape)
Family = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]  # (n, rng) -> gamma and its slope, (n, *shape) each


class Progress(NamedTuple):
    """Where training stands: the step, from 1; the loss of its batch in nats; the network of averaged weights.

    The weights of that network go on changing until the loop ends.
    """

    step: int
    loss: float
    network: Network


def train(
    network: Network,
    draw: Draw,
    family: Family,
    rng: torch.Generator,
    steps: int = 20_000,
    batch: int = 256,
    rates: tuple[Real, Real] = (1e-3, 1e-5),
    memory: Real = 0.999,
) -> Iterator[Progress]:
    """Train a copy of the network on samples from `draw` at levels from `family`; the seed of rng fixes all.

    Adam takes `steps` batches, at a rate that falls from rates[0] to rates[1] along a cosine. The weights are averaged
    over the steps, w <- m w + (1 - m) now, with m = memory, and (1 + k) / (10 + k) after k steps while that is less.
    Raises ValueError for settings out of range, for samples or levels of another shape, and for a loss that overflows.
    """
    _check(network, rng, steps, batch, rates, memory)
    return _training(network, draw, family, rng, steps, batch, rates, memory)


def _training(network, draw, family, rng, steps, batch, rates, memory) -> Iterator[Progress]:
    module, average = copy.deepcopy(network.module).requires_grad_(), copy.deepcopy(network.module)
    optimiser = torch.optim.Adam(module.parameters(), rates[0])
    decline = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps, rates[1])
    averaged = replace(network, module=average, manifest={})
    for k in range(steps):
        x0 = draw(batch, rng)
        gamma, slope = family(batch, rng)
        loss = path_loss(module, network.reach, x0, gamma, slope, rng)
        if not loss.isfinite():
            raise ValueError(f"the loss is {loss.item()} at step {k + 1}; train at a lower rate.")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decline.step()
        follow(average, module, min(memory, (1 + k) / (10 + k)))
        yield Progress(k + 1, loss.item(), averaged)


def path_loss(
    module: nn.Module,
    reach: tuple[Real, Real],
    x0: Float[Tensor, "B *shape"],
    gamma: Float[Tensor, "B *shape"],
    slope: Float[Tensor, "B *shape"],
    rng: torch.Generator,
) -> Float[Tensor, ""]:
    """Return the mean over a batch of (1/2) sum_i gamma_i' alpha_i^2 (v_i - v_hat_i)^2, with one draw of noise each.

    module: (chi, gamma) -> v_hat, which is shown gamma clamped to `reach`; it is computed in the dtype of the module.
    """
    if not x0.shape == gamma.shape == slope.shape or x0.shape[1:] != module.shape:
        found = ", ".join(str(tuple(part.shape)) for part in (x0, gamma, slope))
        raise ValueError(f"samples, gamma and slope have shapes {found}; expected (B, *{tuple(module.shape)}) for all.")
    x0, gamma, slope = (part.to(next(module.parameters())) for part in (x0, gamma, slope))
    eps = torch.randn(x0.shape, generator=rng, dtype=x0.dtype, device=rng.device).to(x0.device)
    noise = at_gamma(gamma)
    v = noise.alpha * eps - noise.sigma * x0
    error = v - module(noise.add(x0, eps), gamma.clamp(*reach))
    return (slope * (noise.alpha * error) ** 2).flatten(1).sum(1).mean() / 2


@torch.no_grad()
def follow(average: nn.Module, module: nn.Module, memory: float) -> None:
    """Move the weights of `average` towards those of `module`, in place: w <- memory w + (1 - memory) now."""
    for old, now in zip(average.parameters(), module.parameters(), strict=True):
        old.lerp_(now, 1 - memory)


# Samples and levels -------------------------------------------------------------------------------------------------


def draws(law: Gaussian | Mixture) -> Draw:
    """Return (n, rng) -> n independent samples of the law, in its dtype; each takes D x D numbers, so for small D."""
    parts = law.components if isinstance(law, Mixture) else (law,)
    weights = law.weights if isinstance(law, Mixture) else law.mean.new_ones(1)
    if weights.ndim != 1:
        raise ValueError(f"the law has weights {tuple(weights.shape)}, expected (K,): one law for all samples.")
    means = torch.stack([part.mean for part in parts])
    roots = torch.stack([covariance_root(part) for part in parts]).to(means)

    def draw(n: int, rng: torch.Generator) -> Tensor:
        k = torch.multinomial(weights, n, replacement=True, generator=rng)
        z = torch.randn((n, means.shape[1], 1), generator=rng, dtype=means.dtype, device=rng.device).to(means.device)
        return (means[k] + (roots[k] @ z)[..., 0]).reshape(n, *law.shape)

    return draw


def soft_paths(labels: Float[Tensor, "*shape"], a: tuple[Real, Real], clean: Real = -7.0, noisy: Real = 3.0) -> Family:
    """Return the family of soft-conditioning paths, `paths.soft` with unit variances, with a uniform in [a[0], a[1]].

    The times of a batch are stratified, one in each of n equal parts of [0, 1]; the slope is that of all components,
    noisy - clean + a (max l - min l). Equal a[0] and a[1] are one path.
    """
    if not 0 <= a[0] <= a[1] < math.inf or not -math.inf < clean < noisy < math.inf:
        raise ValueError(
            f"a is {a}, clean {clean} and noisy {noisy}; expected 0 <= a[0] <= a[1] and clean < noisy, all finite."
        )
    labels = check_labels(labels)
    rank = (labels - labels.max())[None]

    def family(n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        one = (n, *(1,) * labels.ndim)
        u, v = torch.rand((2, *one), generator=rng, dtype=torch.float64, device=rng.device).to(labels.device)
        t = (torch.arange(n).to(v).reshape(one) + v) / n
        inverse = a[0] + (a[1] - a[0]) * u
        slope = noisy - clean - inverse * rank.min()
        return clean + inverse * rank + t * slope, slope.expand(n, *labels.shape)

    return family


def cube(shape: Sequence[int], lowest: Real, highest: Real) -> Family:
    """Return the family of all states: gamma_i independent and uniform in [lowest, highest]."""
    if not -math.inf < lowest < highest < math.inf:
        raise ValueError(f"the cube goes from {lowest} to {highest}, expected two finite numbers, rising.")

    def family(n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        u = torch.rand((n, *shape), generator=rng, dtype=torch.float64, device=rng.device)
        return lowest + (highest - lowest) * u, torch.full_like(u, highest - lowest)

    return family


def _check(network, rng, steps, batch, rates, memory) -> None:
    if not isinstance(network, Network):
        raise ValueError(f"network is a {type(network).__name__}, expected a Network; see Network.start.")
    if not isinstance(rng, torch.Generator):
        raise ValueError(f"rng is a {type(rng).__name__}, expected a torch.Generator, which draws samples and noise.")
    if not type(steps) is type(batch) is int or min(steps, batch) < 1:
        raise ValueError(f"steps and batch are {steps} and {batch}, expected positive whole numbers.")
    if not 0 <= rates[1] <= rates[0] < math.inf or rates[0] == 0 or not 0 <= memory < 1:
        raise ValueError(
            f"the rates are {rates} and memory is {memory}; expected rates that fall from one above 0, and memory from "
            "0 to below 1."
        )
