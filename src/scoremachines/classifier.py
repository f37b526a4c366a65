"""A small convolutional classifier, whose hidden layer gives features in which sets of images can be compared.

    x (C, H, W) -> [3 x 3 convolution, ReLU, maximum over 2 x 2] three times -> h = ReLU(A x + a), the features
                -> logits B h + b, one for each class

A side n is ceil(n / 8) long after the three halvings, so that any image size is served. A checkpoint is a safetensors
file with the weights in float16 and a manifest, in JSON, that says which data, which settings and which accuracy.
"""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import conv2d, cross_entropy, linear, max_pool2d, relu

CHANNELS = (32, 64, 64)  # of the three convolutions
WIDTH = 128  # number of features
CHUNK = 1024  # images at a time: what the first convolution holds is many times the images
DECAY = 0.01
REMAKE = "make it again with scripts/train_classifier.py"


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained classifier of images of one shape: it is its numbers.

    weights: the kernels and offsets by name; shape: (C, H, W) of one image;
    manifest: what its checkpoint says of it, empty before it is loaded from one. dtype and device follow the images.
    """

    weights: dict[str, Tensor] = field(repr=False)
    shape: torch.Size
    manifest: dict[str, Any] = field(default_factory=dict)

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.weights["output.bias"])

    def features(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B F"]:
        """Return the hidden layer, 128 numbers that are not negative, for each image."""
        self._check(x)
        return torch.cat([self._hidden(part) for part in x.split(CHUNK)])

    def logits(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Return the logarithms of the classes' probabilities, up to a constant for each image."""
        return linear(self.features(x), *self._layer("output", x))

    def accuracy(self, x: Float[Tensor, "B C H W"], labels: Int[Tensor, " B"]) -> float:
        """Return the share of images whose largest logit is that of their label."""
        _check_labels(x, labels)
        with torch.no_grad():
            return (self.logits(x).argmax(1) == labels.to(x.device)).double().mean().item()

    def rounded(self) -> Self:
        """Return the classifier as a checkpoint keeps it: every weight rounded to float16.

        Raises ValueError when a weight is too large for that, or NaN.
        """
        weights = {name: weight.half().float() for name, weight in self.weights.items()}
        if not all(weight.isfinite().all() for weight in weights.values()):
            raise ValueError("a weight exceeds the range of float16 or is NaN; train again, at a lower rate.")
        return replace(self, weights=weights)

    def save(self, path: str | os.PathLike, **provenance: Any) -> None:
        """Write the weights, rounded to float16, with a manifest: provenance, shape, classes, versions, fingerprint.

        Provenance says, in what JSON can hold, which data it was trained on: at least their name and sha256, as in
        `**images.provenance`. The file appears whole or not at all.
        """
        if missing := sorted({"name", "sha256"} - provenance.keys()):
            raise ValueError(f"provenance lacks {missing}, expected to say which data it was trained on; give both.")
        weights = {name: weight.cpu().half().contiguous() for name, weight in self.rounded().weights.items()}
        facts = {
            "shape": list(self.shape),
            "classes": self.classes,
            "dtype": "float16",
            "fingerprint": _digest(weights),
        }
        facts["versions"] = {package: version(package) for package in ("torch", "safetensors", "scoremachines")}
        if clash := sorted(facts.keys() & provenance.keys()):
            raise ValueError(f"provenance holds {clash}, which the checkpoint itself knows; leave them out.")
        path, manifest = Path(path), json.dumps(provenance | facts)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            save_file(weights, Path(folder) / path.name, metadata={"manifest": manifest})
            os.replace(Path(folder) / path.name, path)

    @classmethod
    def load(cls, path: str | os.PathLike, **provenance: Any) -> Self:
        """Read a checkpoint; every provenance item given must equal the one in its manifest.

        Raises FileNotFoundError if there is no such file, ValueError if it is corrupt or comes from other data.
        """
        path = Path(path)
        weights, manifest = _read(path)
        for key, expected in provenance.items():
            if manifest.get(key) != expected:
                found = manifest.get(key)
                raise ValueError(f"{path} was made with {key} = {found}, expected {expected}; {REMAKE}.")
        _check_checkpoint(path, weights, manifest)
        return cls({name: weights[name].float() for name in sorted(weights)}, torch.Size(manifest["shape"]), manifest)

    def _hidden(self, x: Tensor) -> Tensor:
        for i in range(len(CHANNELS)):
            x = max_pool2d(relu(conv2d(x, *self._layer(f"convolution{i}", x), padding=1)), 2, ceil_mode=True)
        return relu(linear(x.flatten(1), *self._layer("hidden", x)))

    def _layer(self, name: str, x: Tensor) -> list[Tensor]:
        return [self.weights[f"{name}.{part}"].to(x) for part in ("weight", "bias")]

    def _check(self, x: Tensor) -> None:
        if not x.is_floating_point() or x.shape[1:] != self.shape:
            found = f"the images are {x.dtype} of shape {tuple(x.shape)}"
            raise ValueError(f"{found}, expected floating (B, {', '.join(map(str, self.shape))}).")


def train(
    data: Float[Tensor, "N C H W"],
    labels: Int[Tensor, " N"],
    rng: torch.Generator,
    epochs: int,
    batch: int = 128,
    rate: float = 1e-3,
) -> Classifier:
    """Train a classifier of images in [-1, 1] with labels 0, ..., K - 1 by cross-entropy; the seed of rng fixes all.

    AdamW with a decay of 0.01 takes random batches; its rate falls to 0 along a cosine. Another number of threads sums
    in another order, and changes the weights by as much as training amplifies that rounding. Raises ValueError for
    data that are not (N, C, H, W), for labels that do not fit them, and for settings that are not positive.
    """
    _check_training(data, labels, rng, epochs, batch, rate)
    weights = _start(data.shape[1:], int(labels.max()) + 1, rng)
    weights = {name: weight.to(data).requires_grad_() for name, weight in weights.items()}
    classifier = Classifier(weights, data.shape[1:])
    optimiser = torch.optim.AdamW(weights.values(), lr=rate, weight_decay=DECAY)
    decline = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * math.ceil(len(data) / batch))
    for _ in range(epochs):
        for pick in torch.randperm(len(data), generator=rng, device=rng.device).to(data.device).split(batch):
            optimiser.zero_grad()
            cross_entropy(classifier.logits(data[pick]), labels[pick].long()).backward()
            optimiser.step()
            decline.step()
    return replace(classifier, weights={name: weight.detach() for name, weight in weights.items()})


def _sizes(shape: Sequence[int], classes: int) -> dict[str, tuple[int, ...]]:
    """The size of every tensor of weights."""
    channels, area = (shape[0], *CHANNELS), math.prod(-(-n // 2 ** len(CHANNELS)) for n in shape[1:])
    kernels = {f"convolution{i}": (channels[i + 1], channels[i], 3, 3) for i in range(len(CHANNELS))}
    matrices = {"hidden": (WIDTH, channels[-1] * area), "output": (classes, WIDTH)}
    layers = kernels | matrices
    return {f"{name}.weight": size for name, size in layers.items()} | {
        f"{name}.bias": size[:1] for name, size in layers.items()
    }


def _start(shape: Sequence[int], classes: int, rng: torch.Generator) -> dict[str, Tensor]:
    """Offsets 0 and weights of variance 2 / fan-in, which a ReLU passes on unchanged in size (He et al. 2015)."""
    draw = partial(torch.randn, generator=rng, device=rng.device)
    return {
        name: draw(size) * math.sqrt(2 / math.prod(size[1:])) if size[1:] else torch.zeros(size)
        for name, size in _sizes(shape, classes).items()
    }


def _check_labels(data: Tensor, labels: Tensor) -> None:
    if not isinstance(labels, Tensor):
        raise ValueError(f"the labels are a {type(labels).__name__}, expected a tensor (N,) of whole numbers.")
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if not whole or labels.shape != (len(data),) or len(labels) == 0:
        found = f"the labels are {labels.dtype} of shape {tuple(labels.shape)}"
        raise ValueError(f"{found} for {len(data)} images, expected one whole number for each of at least one image.")


def _check_training(data, labels, rng, epochs, batch, rate) -> None:
    if data.ndim != 4 or not data.is_floating_point() or not data.isfinite().all():
        raise ValueError(f"the data are {data.dtype} of shape {tuple(data.shape)}, expected finite (N, C, H, W).")
    _check_labels(data, labels)
    if labels.min() < 0 or labels.max() == 0:
        raise ValueError(f"the labels run from {labels.min()} to {labels.max()}, expected 0 to K - 1 with K >= 2.")
    if not isinstance(rng, torch.Generator):
        raise ValueError(f"rng is a {type(rng).__name__}, expected a torch.Generator, which draws weights and batches.")
    if not type(epochs) is type(batch) is int or min(epochs, batch) < 1 or not 0 < rate < math.inf:
        found = f"epochs, batch and rate are {epochs}, {batch} and {rate}"
        raise ValueError(f"{found}; expected positive numbers, the first two of them whole.")


def _digest(weights: dict[str, Tensor]) -> str:
    """SHA-256 of the names, sizes and numbers."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(f"{name} {tuple(weights[name].shape)}".encode())
        digest.update(weights[name].contiguous().numpy())
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return (weights, manifest) of a safetensors file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there, expected a checkpoint; {REMAKE}.")
    try:
        with safe_open(path, "pt") as file:
            manifest = json.loads((file.metadata() or {})["manifest"])
            return {name: file.get_tensor(name) for name in file.keys()}, dict(manifest)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a complete safetensors file with a manifest ({error}); {REMAKE}.") from error


def _check_checkpoint(path: Path, weights: dict[str, Tensor], manifest: dict[str, Any]) -> None:
    shape, classes = manifest.get("shape"), manifest.get("classes")
    whole = isinstance(shape, list) and all(type(n) is int and n > 0 for n in [*shape, classes])
    if not whole or len(shape) != 3:
        raise ValueError(f"{path} has shape {shape} and {classes} classes, expected (C, H, W) and a number; {REMAKE}.")
    sizes = {name: tuple(weight.shape) for name, weight in weights.items()}
    if sizes != _sizes(shape, classes) or {weight.dtype for weight in weights.values()} != {torch.float16}:
        raise ValueError(f"{path} holds no float16 weights for images {shape} and {classes} classes; {REMAKE}.")
    if not all(weight.isfinite().all() for weight in weights.values()):
        raise ValueError(f"{path} holds weights that are NaN or infinite; {REMAKE}.")
    if _digest(weights) != manifest.get("fingerprint"):
        raise ValueError(f"{path} does not match its own fingerprint; {REMAKE}.")
