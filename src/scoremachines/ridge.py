"""The shared ridge: every pixel regressed on the monomials of all coefficients, at one noise level.

A coefficient-wise machine predicts each coefficient from a few features of its own. This one has a single feature
vector phi(x), the features of all coefficients together, and one dense readout W to all pixels, fitted to noisy images:

    D(x) = o(x) + W^T phi(x),    W = argmin mean |W^T phi(x) - t|^2 + gamma |W|^2 = (S + gamma I)^-1 mean[phi t^T],

where S = mean[phi phi^T], and phi is scaled to mean 0 and variance 1, but for the constant feature 1. Two penalties:

    "readout"  o = 0,         t = x0              gamma -> infinity gives the image 0
    "score"    o = x / alpha, t = x0 - x / alpha  gamma -> infinity gives x / alpha, whose score is 0

In the second, alpha t / sigma^2 = (alpha x0 - x) / sigma^2 is the target of denoising score matching, and the weights
of the score are alpha W / sigma^2. At gamma = 0 both are one machine, if x is in the span of phi. Source: Finn et al.
(2026), section 3, app. C.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from numbers import Real
from typing import Self

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torch.nn.functional import pad

from .bases import Basis
from .frames import Frame
from .machine import Machine, batches, flatten
from .noise import Noise
from .stencils import ANCHORED, FAMILIES, FORMS, Grids, check_relatives, check_sizes, grids, related

SHARED = ("independent", "band-tied", "local")  # the families whose features are monomials
PENALTIES = ("readout", "score")
BLOCK = 2048  # rows of a Gram matrix computed at once
ENTRIES = 2**26  # numbers held at once while streaming: 256 MiB in float32


@dataclass(frozen=True, eq=False)
class SharedFeatures:
    """The distinct monomials of all coefficients z of an image: feature k is the product of [1, z] at index[k].

    dictionary: a Basis or a Frame; shape: the shape (C, H, W) of a sample; index: (p, degree), rows sorted and
    distinct, each ascending. Position 0 is the number 1, so that row 0, all zeros, is the constant.
    """

    dictionary: Basis | Frame
    shape: torch.Size
    index: Int64[Tensor, "p degree"]

    @classmethod
    def of(
        cls,
        dictionary: Basis | Frame,
        shape: Iterable[int],
        family: str = "independent",
        degree: int = 3,
        radius: int = 1,
        scaling: bool = True,
    ) -> Self:
        """Return the features of a family; scaling: whether the scaling coefficients are among the coefficients.

        Neighbours wrap around in a basis and end at the border in a frame. Raises ValueError for a bad argument.
        """
        shape = torch.Size(shape)
        _check_design(dictionary, shape, family, degree, radius)
        found = _grids(dictionary, shape, radius)
        check_relatives(FAMILIES[family], found, radius, f"{dictionary} on samples of shape {tuple(shape)}")
        rows = [torch.zeros(1, degree, dtype=torch.long)]
        for key in found.bands:
            if scaling or key[0] != "A":
                rows += _monomials(found, key, family, degree, radius)
        return cls(dictionary, shape, torch.cat(rows).unique(dim=0))

    def __len__(self) -> int:
        return len(self.index)

    def values(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "p B"]:
        """Return the features of a batch of images, one row each."""
        z = self.dictionary.analysis(x).flatten(1).T
        known = torch.cat([z.new_ones(1, len(x)), z])
        product = known[self.index[:, -1]]
        for column in self.index.T[:-1]:
            start = int((column == 0).sum())  # rows are sorted: those with a factor 1 in this place come first
            product[start:] *= known[column[start:]]
        return product

    def union(self, *others: Self) -> tuple[Self, list[Int64[Tensor, " q"]]]:
        """Return the features of all together, and where in them those of each one are.

        Raises ValueError if their dictionaries or shapes differ.
        """
        parts = (self, *others)
        if any((part.dictionary, part.shape) != (self.dictionary, self.shape) for part in others):
            raise ValueError(
                "the features belong to different dictionaries or shapes, expected those of one; fit each."
            )
        degree = max(part.index.shape[1] for part in parts)
        rows = torch.cat([pad(part.index, (degree - part.index.shape[1], 0)) for part in parts])
        index, places = rows.unique(dim=0, return_inverse=True)
        return type(self)(self.dictionary, self.shape, index), list(places.split([len(part) for part in parts]))


def _grids(dictionary: Basis | Frame, shape: torch.Size, radius: int) -> Grids:
    """The positions of all coefficients, from 1 on; a frame's bands get a margin of -1, so that no neighbour wraps."""
    if isinstance(dictionary, Basis):
        bands = grids(dictionary, shape).bands
    else:
        bands = {(b.orientation, b.level, 0): pad(b.grid, (radius,) * 4, value=-1) for b in dictionary.bands(shape)}
    return Grids({key: grid + 1 for key, grid in bands.items()}, {})


def _monomials(found: Grids, key: tuple[str, int, int], family: str, degree: int, radius: int) -> list[Tensor]:
    """The index rows of one band, a tensor for each monomial of its family."""
    rows = []
    for relation, form in FAMILIES[family]:
        others = [] if relation == "self" else related(relation, key, found, radius)
        seen = torch.stack([found.bands[key], *others]).flatten(1)
        variables = [0] if relation == "self" else list(range(1, len(seen)))
        for ((_, factors),) in FORMS[form](0, variables, degree) if variables else ():
            chosen = [0] * (form in ANCHORED) + [v for v, power in factors for _ in range(power)]
            index = seen[chosen].T
            rows.append(pad(index[(index > 0).all(1)].sort(1).values, (degree - len(chosen), 0)))
    return rows


@dataclass(frozen=True, eq=False)
class RidgeSums:
    """What a shared ridge needs of noisy images: sums of products of features, as a commutative monoid.

    center: (p,), subtracted from the features (0 for the constant); gram: (p, p), sum of phi phi^T, of which only the
    upper triangle is computed; cross: (p, D), sum of phi t^T; energy: sum of |t|^2. All in float64.
    """

    features: SharedFeatures
    center: Float64[Tensor, " p"]
    gram: Float64[Tensor, "p p"]
    cross: Float64[Tensor, "p D"]
    energy: Float64[Tensor, ""]

    @classmethod
    def of(cls, x: Float[Tensor, "B *shape"], target: Float[Tensor, "B *shape"], features: SharedFeatures) -> Self:
        """Return the sums over a batch; products are taken in x's precision, and added up in float64.

        Raises ValueError for images of another shape than that of the features.
        """
        if x.shape[1:] != features.shape:
            expected = f"(B, {', '.join(map(str, features.shape))}), as the features do"
            raise ValueError(f"the images have shape {tuple(x.shape)}, expected {expected}.")
        chunk, p = max(1, ENTRIES // len(features)), len(features)
        center = features.values(x[:chunk]).mean(1) if len(x) else x.new_zeros(p)
        center[0] = 0
        gram, cross = (torch.zeros(p, n, dtype=torch.float64, device=x.device) for n in (p, features.shape.numel()))
        for part, t in zip(x.split(chunk), target.flatten(1).split(chunk), strict=True):
            phi = features.values(part).sub_(center[:, None])
            cross += phi @ t
            for start in range(0, p, BLOCK):
                rows = slice(start, start + BLOCK)
                gram[rows, start:] += phi[rows] @ phi[start:].T
        return cls(features, center.double(), gram, cross, target.double().square().sum())

    @property
    def count(self) -> int:
        """How many images the sums run over."""
        return round(self.gram[0, 0].item())

    def merge(self, other: Self) -> Self:
        """Return the sums over both sets of images; raises ValueError if they are not of the same features."""
        if not torch.equal(self.features.index, other.features.index):
            raise ValueError(f"sums of {len(self.features)} and {len(other.features)} different features cannot merge.")
        other = other.about(self.center)
        sums = (a + b for a, b in ((self.gram, other.gram), (self.cross, other.cross), (self.energy, other.energy)))
        return type(self)(self.features, self.center, *sums)

    def about(self, center: Float64[Tensor, " p"]) -> Self:
        """Return the sums of the same features about another centre, whose entry for the constant is 0."""
        d, total = center - self.center, self.gram[0]
        gram = self.gram.addr(total, d, alpha=-1).addr_(d, total - self.count * d, alpha=-1)
        return type(self)(self.features, center, gram, self.cross.addr(d, self.cross[0], alpha=-1), self.energy)

    def only(self, features: SharedFeatures, place: Int64[Tensor, " q"]) -> Self:
        """Return the sums of those features that are at these places, in ascending order."""
        gram = self.gram[place[:, None], place]
        return type(self)(features, self.center[place], gram, self.cross[place], self.energy)

    def centred(self) -> Self:
        """Return the sums about the mean of the features."""
        mean = self.gram[0] / self.gram[0, 0]
        mean[0] = 0
        return self.about(self.center + mean)


@dataclass(frozen=True, eq=False)
class SharedRidge(Machine):
    """A polynomial denoiser with one readout from all features to all pixels, for one noise level.

    features: phi; center: (p,) and weights: (p, D), so that D(x) = o(x) + weights^T (phi(x) - center); noise: the
    level; penalty: what the ridge shrinks, and with it o; training_error: mean squared error per pixel on the noisy
    images that it was fitted to, which is optimistic by a share of about p / N.
    """

    features: SharedFeatures
    center: Float[Tensor, " p"]
    weights: Float[Tensor, "p D"]
    noise: Noise
    penalty: str
    training_error: float

    @classmethod
    def fit(
        cls,
        data: Tensor | Iterable[Tensor],
        dictionary: Basis | Frame,
        noise: Noise,
        family: str = "independent",
        degree: int = 3,
        radius: int = 1,
        ridge: float = 1e-5,
        penalty: str = "readout",
        draws: int = 1,
        rng: torch.Generator | None = None,
    ) -> Self:
        """Fit a family to data (N, C, H, W), each image with `draws` noises of one level; see `nested`."""
        stream = batches(data)
        first = next(stream)
        features = SharedFeatures.of(dictionary, first.shape[1:], family, degree, radius)
        return cls.nested(chain([first], stream), {family: features}, noise, ridge, penalty, draws, rng)[family]

    @classmethod
    def nested(
        cls,
        data: Tensor | Iterable[Tensor],
        features: Mapping[str, SharedFeatures],
        noise: Noise,
        ridge: float = 1e-5,
        penalty: str = "readout",
        draws: int = 1,
        rng: torch.Generator | None = None,
    ) -> dict[str, Self]:
        """Fit a machine for each set of features of one dictionary, from one Gram matrix of all of them together.

        The noisy images of a batch x0 are noise.add(x0, torch.randn(x0.shape, generator=rng)), so the same state of
        rng makes them again. Raises ValueError for a bad argument, or when a Gram matrix is singular and ridge is 0.
        """
        _check_fit(features, noise, ridge, penalty, draws)
        together, places = next(iter(features.values())).union(*list(features.values())[1:])
        sums = None
        for x0 in batches(data):
            for _ in range(draws):
                part = _one_draw(x0, together, noise, penalty, rng)
                sums = part if sums is None else sums.merge(part)
        fits = zip(features.items(), places, strict=True)
        return {name: cls._solve(sums.only(f, at).centred(), noise, ridge, penalty, x0.dtype) for (name, f), at in fits}

    @classmethod
    def _solve(cls, sums: RidgeSums, noise: Noise, ridge: float, penalty: str, dtype: torch.dtype) -> Self:
        count = sums.count
        variance = sums.gram.diagonal() / count
        scale = variance.where(variance > 0, 1).rsqrt()
        gram = sums.gram.div_(count).mul_(scale).mul_(scale[:, None])
        gram.diagonal().add_(ridge + (variance <= 0).to(gram))
        cross = sums.cross * (scale / count)[:, None]
        factor, failed = torch.linalg.cholesky_ex(gram, upper=True)
        if failed:
            raise ValueError(
                f"the Gram matrix of {len(cross)} features over {count} noisy images is singular; use a larger ridge, "
                "fewer features or more images."
            )
        w = torch.cholesky_solve(cross, factor, upper=True)
        error = sums.energy / count - (w * cross).sum() - ridge * w.square().sum()  # |t|^2 - 2 w c + w S w
        weights = (w * scale[:, None]).to(dtype)
        return cls(sums.features, sums.center.to(dtype), weights, noise, penalty, error.item() / cross.shape[1])

    def denoise(self, x: Float[Tensor, "B *shape"], noise: Noise) -> Float[Tensor, "B *shape"]:
        """Return o(x) + W^T phi(x); raises ValueError at every level but the one the machine was fitted at."""
        _, *level = flatten(x, noise, self.features.shape)
        fitted = (torch.as_tensor(v).to(x) for v in (self.noise.alpha, self.noise.sigma))
        if not all(torch.allclose(a, b) for a, b in zip(level, fitted, strict=True)):
            raise ValueError(f"the machine was fitted at {self.noise} and no other level; fit another at this level.")
        center, weights = self.center.to(x)[:, None], self.weights.to(x)
        parts = x.split(max(1, ENTRIES // len(self.features)))
        found = [self.features.values(part).sub_(center).T @ weights for part in parts]
        return torch.cat(found).reshape(x.shape) + _offset(x, self.noise, self.penalty)


def _one_draw(x0: Tensor, features: SharedFeatures, noise: Noise, penalty: str, rng) -> RidgeSums:
    device = rng.device if rng else x0.device
    x = noise.add(x0, torch.randn(x0.shape, dtype=x0.dtype, device=device, generator=rng).to(x0.device))
    return RidgeSums.of(x, x0 - x / noise.alpha if penalty == "score" else x0, features)


def _offset(x: Tensor, noise: Noise, penalty: str) -> Tensor | float:
    return x / noise.alpha if penalty == "score" else 0.0


def _check_design(dictionary, shape, family, degree, radius) -> None:
    if not isinstance(dictionary, Basis | Frame):
        raise ValueError(f"dictionary is {dictionary!r}, expected a Basis or a Frame.")
    if family not in SHARED:
        raise ValueError(f"family is {family!r}, expected one of {', '.join(SHARED)}.")
    check_sizes(degree, radius)
    if len(shape) != 3:
        raise ValueError(f"samples have shape {tuple(shape)}, expected images of shape (C, H, W).")


def _check_fit(features, noise, ridge, penalty, draws) -> None:
    if not features:
        raise ValueError("features is empty, expected at least one named set of features.")
    if not isinstance(noise, Noise) or not all(isinstance(v, Real) for v in (noise.alpha, noise.sigma)):
        raise ValueError("noise is not a single level, expected a Noise of two numbers, for example edm(0.5).")
    if penalty not in PENALTIES:
        raise ValueError(f"penalty is {penalty!r}, expected one of {', '.join(PENALTIES)}.")
    if penalty == "score" and noise.alpha == 0:
        raise ValueError('alpha is 0, where x / alpha is not defined; use penalty="readout" or a level with signal.')
    if not isinstance(ridge, Real) or not 0 <= ridge < float("inf"):
        raise ValueError(f"ridge is {ridge!r}, expected a finite number that is not negative.")
    if type(draws) is not int or draws < 1:
        raise ValueError(f"draws is {draws!r}, expected a whole number, at least 1.")
