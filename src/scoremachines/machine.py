"""The machine: an estimate of the clean sample given the noisy one.

For x = alpha x0 + sigma eps a machine returns D(x) ~ E[x0 | x]. Three other quantities follow from it,

    eps(x)   = (x - alpha D(x)) / sigma                     the predicted noise,
    score(x) = (alpha D(x) - x) / sigma^2 = grad log p(x)   (Tweedie's formula),
    Cov[x0 | x] v = (sigma^2 / alpha) dD/dx v               (Tweedie's second identity).

A machine owns no schedule and has no state besides the tensors it was fitted with.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from .noise import Noise


class Machine(ABC):
    """An estimator of E[x0 | x] at any noise level; a subclass is a frozen dataclass that defines `denoise`."""

    @classmethod
    def fit(cls, data: Tensor | Iterable[Tensor]) -> Self:
        """Build the machine from data (N, *shape) in [-1, 1], an iterable of such batches, or their statistics."""
        raise TypeError(f"{cls.__name__} is not fitted in closed form; construct it from its parts.")

    @abstractmethod
    def denoise(self, x: Float[Tensor, "B *shape"], noise: Noise) -> Float[Tensor, "B *shape"]:
        """Return D(x) ~ E[x0 | x], finite for every x, with x's shape, dtype and device."""

    def score(self, x: Float[Tensor, "B *shape"], noise: Noise) -> Float[Tensor, "B *shape"]:
        """Return grad log p(x) = (alpha D(x) - x) / sigma^2; raises ValueError where sigma is 0."""
        alpha, sigma = _noisy(noise, "the score").on(x)
        return (alpha * self.denoise(x, noise) - x) / sigma**2

    def eps(self, x: Float[Tensor, "B *shape"], noise: Noise) -> Float[Tensor, "B *shape"]:
        """Return the predicted noise (x - alpha D(x)) / sigma; raises ValueError where sigma is 0."""
        alpha, sigma = _noisy(noise, "the predicted noise").on(x)
        return (x - alpha * self.denoise(x, noise)) / sigma

    def posterior_cov_product(
        self, x: Float[Tensor, "B *shape"], noise: Noise, v: Float[Tensor, "B *shape"]
    ) -> Float[Tensor, "B *shape"]:
        """Return Cov[x0 | x] v = J (sigma^2 / alpha * v), J = dD/dx, by one Jacobian-vector product.

        It is the posterior covariance of the law whose denoiser this machine is. Raises ValueError at alpha = 0,
        where x says nothing about x0 and the identity is 0 / 0.
        """
        alpha, sigma = noise.on(x)
        v = like(v, x)
        if (alpha == 0).any():
            raise ValueError("alpha is 0, where Tweedie's second identity divides by it; use a level with signal.")
        return torch.func.jvp(lambda x: self.denoise(x, noise), (x,), (sigma**2 / alpha * v,))[1]

    def to(self, *target: torch.dtype | torch.device | str | Tensor) -> Self:
        """Return the machine with its floating tensors on another dtype or device, as `Tensor.to` does."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        moved = {k: v.to(*target) for k, v in fields.items() if isinstance(v, Tensor)}
        return dataclasses.replace(self, **moved)


def _noisy(noise: Noise, what: str) -> Noise:
    _check_level(noise)
    if noise.singular:
        raise ValueError(f"sigma is 0 in some component, where {what} is not defined; use a level with sigma > 0.")
    return noise


def _check_level(noise: Noise) -> None:
    if not isinstance(noise, Noise):
        raise ValueError(f"noise is a {type(noise).__name__}, expected a Noise(alpha, sigma), for example edm(sigma).")


def like(v: Tensor, x: Tensor) -> Tensor:
    """Return v in x's dtype and on its device; raises ValueError when their shapes differ."""
    if v.shape != x.shape:
        raise ValueError(f"v has shape {tuple(v.shape)} and x has shape {tuple(x.shape)}; expected equal shapes.")
    return v.to(x)


def batches(data: Tensor | Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield the batches of data, checked: floating tensors (n, *shape), finite, of one shape, at least one sample.

    Raises ValueError, in one sentence, for anything else.
    """
    if not isinstance(data, Iterable):
        raise ValueError(
            f"the data are {type(data).__name__}, expected a tensor (N, *shape) or an iterable of batches."
        )
    shape, count = None, 0
    for batch in [data] if isinstance(data, Tensor) else data:
        _check_floating(batch)
        shape = batch.shape[1:] if shape is None else shape
        if batch.ndim < 2 or batch.shape[1:] != shape:
            expected = f"(n, {', '.join(map(str, shape))})" if shape else "(n, *shape) with at least two axes"
            raise ValueError(f"a batch of data has shape {tuple(batch.shape)}, expected {expected}.")
        _check_finite(batch, count)
        count += len(batch)
        yield batch
    if count == 0:
        raise ValueError("the data hold no sample, expected at least one.")


def _check_finite(batch: Tensor, count: int) -> None:
    if batch.sum().isfinite():  # one fast sum settles it; finite values can overflow it, so look closer otherwise
        return
    bad = ~batch.isfinite().flatten(1).all(1)
    if bad.any():
        first = count + int(bad.nonzero()[0])
        raise ValueError(f"sample {first} of the data holds NaN or infinite values; remove or repair it first.")


def _check_floating(batch: Tensor) -> None:
    if not isinstance(batch, Tensor):
        raise ValueError(f"the data hold a {type(batch).__name__}, expected torch tensors of shape (N, *shape).")
    if not batch.is_floating_point():
        raise ValueError(
            f"the data have dtype {batch.dtype}, expected a floating type; see scoremachines.data.to_unit."
        )


def flatten(x: Tensor, noise: Noise, shape: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
    """Return x as (B, D) and alpha, sigma as (1 or B, 1 or D), after checking x against the fitted sample shape.

    The last axis of alpha and sigma is 1 exactly when there is one noise level per image.
    """
    _check_level(noise)
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = f"dtype {x.dtype}" if isinstance(x, Tensor) else f"type {type(x).__name__}"
        raise ValueError(f"x has {kind}, expected a floating tensor.")
    if x.shape[1:] != shape:
        raise ValueError(
            f"x has shape {tuple(x.shape)}, but the machine was fitted on samples of shape {tuple(shape)}; "
            f"expected (B, {', '.join(map(str, shape))})."
        )
    alpha, sigma = torch.broadcast_tensors(*noise.on(x))
    if alpha.shape[1:].numel() > 1:
        alpha, sigma = (a.expand(a.shape[0], *shape) for a in (alpha, sigma))
    return x.flatten(1), alpha.flatten(1), sigma.flatten(1)
