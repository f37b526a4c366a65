"""Networks: torch modules that predict the velocity of a noised sample, and the machine that wraps one.

At a variance-preserving level, chi = alpha x0 + sigma eps with alpha^2 + sigma^2 = 1, the velocity and what follows
from a prediction v of it are

    alpha eps - sigma x0,        E[x0 | chi] ~ alpha chi - sigma v,        E[eps | chi] ~ sigma chi + alpha v,

component by component. For independent components of unit variance the best v is 0. A module is a function
(chi, gamma) -> v of a batch (B, *shape) and of gamma = log(sigma^2 / alpha^2) of every component: the state of the
noising. With gamma_i of its own for each component, one module serves every path that it was trained on.
Source: Gerdes, Welling and Cheng (2024), and chapter "Soft conditioning"; Salimans and Ho (2022) for the velocity.
"""

import copy
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import layer_norm, silu

from . import checkpoints
from .machine import Machine, flatten
from .noise import Noise

REMAKE = "make it again with scripts/train_networks.py"


class MLP(nn.Module):
    """A residual network of fully connected layers for samples of any shape, D numbers each.

    h = A [chi, s],    h <- h + B_k silu(C_k norm(h)) for each of the blocks,    v = E h,

    each matrix with an offset. condition: "state" gives it the whole state of the noising, s = (gamma / 10, alpha,
    sigma), 3 D numbers; "mean" only one number, the mean of gamma / 10. width: of h. As made here its parameters have
    sizes but no numbers: see `Network.start`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 256,
        blocks: int = 3,
        condition: Literal["state", "mean"] = "state",
    ) -> None:
        super().__init__()
        sizes = (*shape, width, blocks)
        if not all(type(n) is int and n > 0 for n in sizes) or condition not in ("state", "mean"):
            raise ValueError(
                f"shape, width and blocks are {(*shape,)}, {width} and {blocks}, and condition is {condition!r}; "
                'expected whole numbers above 0, and "state" or "mean".'
            )
        self.shape, self.width, self.condition = torch.Size(shape), width, condition
        D = math.prod(shape)
        # on the device "meta" nothing is stored, and nothing is drawn from the global generator
        self.input = nn.Linear(4 * D if condition == "state" else D + 1, width, device="meta")
        self.inner = nn.ModuleList(nn.Linear(width, width, device="meta") for _ in range(blocks))
        self.outer = nn.ModuleList(nn.Linear(width, width, device="meta") for _ in range(blocks))
        self.output = nn.Linear(width, D, device="meta")

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments that make a network of these sizes."""
        sizes = {"shape": list(self.shape), "width": self.width, "blocks": len(self.inner)}
        return sizes | {"condition": self.condition}

    def forward(self, chi: Float[Tensor, "B *shape"], gamma: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """Return v for samples at variance-preserving levels with these finite gamma."""
        h = self.input(torch.cat([chi.flatten(1), self._seen(gamma.flatten(1))], 1))
        for inner, outer in zip(self.inner, self.outer, strict=True):
            h = h + outer(silu(inner(layer_norm(h, (self.width,)))))
        return self.output(h).reshape(chi.shape)

    def _seen(self, gamma: Tensor) -> Tensor:
        if self.condition == "mean":
            return gamma.mean(1, keepdim=True) / 10
        return torch.cat([gamma / 10, torch.sigmoid(-gamma).sqrt(), torch.sigmoid(gamma).sqrt()], 1)


@dataclass(frozen=True, eq=False)
class Network(Machine):
    """A trained module as a machine, E[x0 | x] ~ alpha chi - sigma v(chi, gamma).

    module: (chi, gamma) -> v with a `shape`, such as `MLP`; reach: the least and the largest gamma that it was trained
    on; manifest: what its checkpoint says of it, empty before it is loaded from one. Component-wise and per-image noise
    are served. A level that is not variance preserving is brought to one, x / sqrt(alpha^2 + sigma^2), component by
    component. The module is shown every gamma beyond its reach as the nearest end of it: a component without noise is
    returned as x / alpha, and conditions the others as one with the least noise that the module knows.
    """

    module: nn.Module
    reach: tuple[Real, Real]
    manifest: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if any(parameter.is_meta for parameter in self.module.parameters()):
            raise ValueError("the module has sizes but no numbers; give it some with Network.start or Network.load.")
        _check_reach(self.reach)

    @classmethod
    def start(cls, module: nn.Module, reach: tuple[Real, Real], rng: torch.Generator) -> Self:
        """Return an untrained network: a copy of the module with offsets 0 and weights of variance 1 / fan-in."""
        if not isinstance(rng, torch.Generator):
            raise ValueError(f"rng is a {type(rng).__name__}, expected a torch.Generator, which draws the weights.")
        return cls(_filled(module, {name: _first(size, rng) for name, size in _sizes(module).items()}), reach)

    @property
    def shape(self) -> torch.Size:
        """The shape of one sample."""
        return self.module.shape

    def denoise(self, x: Float[Tensor, "B *shape"], noise: Noise) -> Float[Tensor, "B *shape"]:
        """Return alpha chi - sigma v, computed in the dtype of x."""
        flat, alpha, sigma = flatten(x, noise, self.shape)
        alpha, sigma = (part.expand(-1, flat.shape[1]).reshape(-1, *self.shape) for part in (alpha, sigma))
        size = torch.hypot(alpha, sigma)
        chi, alpha, sigma = x / size, alpha / size, sigma / size
        gamma = (2 * (sigma.log() - alpha.log())).clamp(*self.reach)
        weights = {name: weight.to(x) for name, weight in self.module.state_dict().items()}
        return alpha * chi - sigma * functional_call(self.module, weights, (chi, gamma.expand_as(chi)))

    def to(self, *target: torch.dtype | torch.device | str | Tensor) -> Self:
        """Return the network with its numbers on another dtype or device, as `Tensor.to` does."""
        return replace(self, module=copy.deepcopy(self.module).to(*target))

    def rounded(self) -> Self:
        """Return the network as a checkpoint keeps it; raises ValueError when a weight is too large for float16."""
        return replace(self, module=_filled(self.module, checkpoints.rounded(self.module.state_dict())))

    def save(self, path: str | os.PathLike, **provenance: Any) -> None:
        """Write the weights, rounded to float16, with a manifest: provenance, settings, reach, versions, fingerprint.

        Provenance says, in what JSON can hold, which data it was trained on: at least their name and sha256, as in
        `**images.provenance`. The file appears whole or not at all. Raises ValueError for a module other than `MLP`.
        """
        if not isinstance(self.module, MLP):
            raise ValueError(f"the module is a {type(self.module).__name__}, expected an MLP, which a file describes.")
        facts = {"module": "MLP", "settings": self.module.settings, "reach": list(self.reach)}
        checkpoints.write(path, self.module.state_dict(), facts, provenance)

    @classmethod
    def load(cls, path: str | os.PathLike, **provenance: Any) -> Self:
        """Read a checkpoint, in float32; every provenance item given must equal the one in its manifest.

        Raises FileNotFoundError if there is no such file, ValueError if it is damaged or comes from other data.
        """
        weights, manifest = checkpoints.read(path, provenance, REMAKE)
        try:
            module, reach = _described(manifest)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} does not say which network it holds; {REMAKE}.") from error
        if _sizes(module) != {name: weight.shape for name, weight in weights.items()}:
            raise ValueError(f"{path} holds weights of other sizes than {manifest['settings']}; {REMAKE}.")
        return cls(_filled(module, {name: weight.float() for name, weight in weights.items()}), reach, manifest)


def _described(manifest: dict[str, Any]) -> tuple[MLP, tuple[Real, Real]]:
    """Return the module, without numbers, and the reach of which a manifest speaks."""
    if manifest["module"] != "MLP":
        raise ValueError(f"the module is {manifest['module']}, expected MLP.")
    lowest, highest = manifest["reach"]
    _check_reach((lowest, highest))
    return MLP(**manifest["settings"]), (lowest, highest)


def _check_reach(reach: tuple[Real, Real]) -> None:
    if len(reach) != 2 or not -math.inf < reach[0] < reach[1] < math.inf:
        raise ValueError(f"reach is {reach}, expected the least and the largest gamma, both finite.")


def _sizes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in module.state_dict().items()}


def _filled(module: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """Return a copy of the module that holds these numbers."""
    found = copy.deepcopy(module)
    found.load_state_dict(weights, assign=True)
    return found


def _first(size: torch.Size, rng: torch.Generator) -> Tensor:
    """The first numbers of a parameter: an offset, with one axis, is 0."""
    if len(size) < 2:
        return torch.zeros(size, device=rng.device)
    return torch.randn(size, generator=rng, device=rng.device) / math.sqrt(math.prod(size[1:]))
