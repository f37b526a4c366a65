"""Dictionaries of images: the part that every machine made of the training images themselves shares.

A conditional machine is the same machine with fewer images: an image x of class c is compared with the training images
of class c only. Source: Kamb and Ganguli (2025), appendix C.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .clusters import check_labels
from .machine import Machine, batches, flatten
from .noise import Noise


@dataclass(frozen=True, eq=False)
class Dictionary(Machine):
    """A machine made of training images, all of them or, for each image x, those of its class.

    data: (N, C, H, W); labels: (N,) or None; classes: (B,), the classes of the images x, or None for all images.
    """

    data: Float[Tensor, "N C H W"]
    labels: Int[Tensor, " N"] | None
    classes: Int[Tensor, " B"] | None

    def given(self, labels: Int[Tensor, " B"]) -> Self:
        """Return the machine for images x of these classes, one for each image of the batch.

        Raises ValueError if the machine was fitted without labels or has no image of some class.
        """
        if self.labels is None:
            raise ValueError(f"this {type(self).__name__} was fitted without labels; fit it with labels first.")
        check_labels(labels)
        labels = labels.cpu()
        missing = labels[~torch.isin(labels, self.labels)].unique().tolist()
        if missing:
            raise ValueError(f"the classes {missing} have no training image; expected classes that the labels name.")
        return replace(self, classes=labels)

    def to(self, *target: torch.dtype | torch.device | str | Tensor) -> Self:
        """Return the machine with its images on another dtype or device, as `Tensor.to` does; labels stay."""
        return replace(self, data=self.data.to(*target))

    def _groups(self, count: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield (rows, members): images of the batch and the indices of the training images they are compared with."""
        if self.classes is not None and len(self.classes) != count:
            raise ValueError(
                f"the machine holds classes for {len(self.classes)} images and x has {count}; give it labels for x."
            )
        if self.classes is None or count == 0:
            yield torch.arange(count), None
            return
        for label in self.classes.unique():
            yield (self.classes == label).nonzero()[:, 0], (self.labels == label).nonzero()[:, 0]

    def _members(self, members: Tensor | None) -> Tensor:
        return self.data if members is None else self.data[members.to(self.data.device)]


def images(data: Tensor | Iterable[Tensor], labels: Tensor | None) -> dict[str, Tensor | None]:
    """Return data and labels, checked: images (N, C, H, W) of one size and, if given, one whole number for each.

    Raises ValueError for anything else.
    """
    parts = list(batches(data))
    data = torch.cat(parts) if len(parts) > 1 else parts[0]
    if data.ndim != 4:
        raise ValueError(f"the data have shape {tuple(data.shape)}, expected images (N, C, H, W).")
    if labels is not None:
        check_labels(labels)
        if len(labels) != len(data):
            raise ValueError(
                f"there are {len(labels)} labels and {len(data)} images; expected one label for each image."
            )
        labels = labels.cpu()
    return {"data": data, "labels": labels, "classes": None}


def check_chunk(chunk: int) -> None:
    """Raise ValueError unless chunk is a whole number of pairs, at least 1."""
    if type(chunk) is not int or chunk < 1:
        raise ValueError(f"chunk is {chunk}, expected at least one pair of images at a time.")


def one_level(
    x: Tensor, noise: Noise, shape: torch.Size, name: str, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Return alpha and sigma as (B,), after checking x and that every image has one level with noise in it.

    dtype: the least precision of the exponents |x - alpha y|^2 / sigma^2. Raises ValueError where they overflow, where
    sigma is 0, and for noise that differs between components.
    """
    flat, alpha, sigma = flatten(x, noise, shape)
    if noise.singular:
        raise ValueError(f"sigma is 0 in some component, where {name} has no weights; use a level with sigma > 0.")
    if alpha.shape[1] > 1:
        raise ValueError(
            f"the noise differs between components, and {name} needs one level for each image; use Ideal or Gaussian."
        )
    dtype = torch.promote_types(x.dtype, dtype)
    if not (4 * shape.numel() / sigma.to(dtype) ** 2).isfinite().all():  # the largest |x - y|^2 for pixels in [-1, 1]
        raise ValueError(f"sigma is {sigma.min().item():.3g}, where the exponent overflows {dtype}; use a larger one.")
    return alpha[:, 0].expand(len(flat)), sigma[:, 0].expand(len(flat))
