"""Which coefficients a polynomial score machine looks at, and through which features.

A *family* is a tuple of feature groups, each a pair (relation, form). The relation says which coefficients a target y
looks at: itself, its neighbours, its siblings (the other orientations), its parent (the next coarser level), the
low-pass image of its level, or all. The form says through which polynomials. The families of Finn et al. (2026) are
`independent`, `band-tied` and `local`; a new one is one line in FAMILIES.

A *stencil* is what a family makes of one band: the variables that a coefficient sees, and the features of each target.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, product
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from .bases import Basis
from .monomials import Monomial, monomial

Group = tuple[str, str]
Terms = tuple[tuple[float, Monomial], ...]

SELF = ("self", "powers")
FAMILIES: dict[str, tuple[Group, ...]] = {
    "independent": (SELF,),
    "band-tied": (SELF, ("siblings", "products")),
    "local": (SELF, ("neighbours", "pairs")),
    "linear-neighbours": (SELF, ("neighbours", "linear")),
    "parent-child": (SELF, ("parent", "linear"), ("parent", "energy")),
    "energy": (SELF, ("neighbours", "energy"), ("siblings", "energy"), ("parent", "energy")),
    "low-pass": (SELF, ("low-pass", "linear"), ("low-pass", "pairs")),
    "combined": (
        SELF,
        *((relation, "linear") for relation in ("neighbours", "siblings", "parent")),
        *((relation, "energy") for relation in ("neighbours", "siblings", "parent")),
    ),
    "full": (("all", "linear"),),
}
DETAILS = ("H", "V", "D")


class Feature(NamedTuple):
    """A polynomial: the sum of weight * (monic Hermite polynomial of the centred variables) over its terms.

    group: the feature group it belongs to; anchored: whether it is multiplied by the target itself, not centred, as the
    products of Finn et al. (2026) are.
    """

    group: str
    terms: Terms
    anchored: bool = False


@dataclass(frozen=True, eq=False)
class Stencil:
    """The variables of the coefficients of a band and the features of their targets.

    index: (n, m) positions of the variables of each of n coefficients; the first `targets` of the m are predicted.
    features: for each target its features; one entry serves all targets when there is only one.
    joint: whether feature k of every target carries one common weight.
    """

    index: Int[Tensor, "n m"]
    targets: int
    features: tuple[tuple[Feature, ...], ...]
    joint: bool = False


# Forms: the polynomials of a group, from the target y, the other variables and the degree -----------------------------


def powers(y: int, others: list[int], degree: int) -> Iterator[Terms]:
    """Yield w^n, n = 1..degree, of every variable w of the relation; for the relation self that is the target."""
    return (((1.0, monomial((v, n))),) for v in others for n in range(1, degree + 1))


def linear(y: int, others: list[int], degree: int) -> Iterator[Terms]:
    """Yield every other variable itself."""
    return (((1.0, monomial((v, 1))),) for v in others)


def pairs(y: int, others: list[int], degree: int) -> Iterator[Terms]:
    """Yield y^d w^e, d, e >= 1, d + e <= degree, for one other variable w at a time; one factor y is the anchor."""
    for v in others:
        for e in range(1, degree):
            yield from (((1.0, monomial((y, d), (v, e))),) for d in range(degree - e))


def products(y: int, others: list[int], degree: int) -> Iterator[Terms]:
    """Yield y^d times any monomial of the others, d >= 1, of total degree <= `degree`; one factor y is the anchor."""
    for exponents in product(range(degree), repeat=len(others)):
        free = degree - sum(exponents) if any(exponents) else 0
        factors = tuple(zip(others, exponents, strict=True))
        yield from (((1.0, monomial((y, d), *factors)),) for d in range(free))


def energy(y: int, others: list[int], degree: int) -> Iterator[Terms]:
    """Yield y times the mean of the squares of the others, from degree 3 on."""
    if others and degree >= 3:
        yield tuple((1 / len(others), monomial((y, 1), (v, 2))) for v in others)


FORMS: dict[str, Callable[..., Iterator[Terms]]] = {f.__name__: f for f in (powers, linear, pairs, products, energy)}
ANCHORED = {"pairs", "products"}


def gradients(y: int, others: list[int], mirror: list[int], degree: int) -> list[Terms]:
    """Return the fields d/dy of the potentials sum_i y_i^a y_{i + delta}^e, a + e <= degree + 1, each once.

    A coefficient enters such a potential as the first factor and, at the neighbour -delta, as the second.
    """
    found: dict[Terms, None] = {}
    for v, back in zip(others, mirror, strict=True):
        for a in range(1, degree + 1):
            for e in range(1, degree + 2 - a):
                sides = {monomial((y, a - 1), (v, e)): float(a)}
                other = monomial((y, e - 1), (back, a))
                sides[other] = sides.get(other, 0.0) + e
                found[tuple(sorted((weight, n) for n, weight in sides.items()))] = None
    return list(found)


def potentials(targets: int, degree: int) -> list[list[Terms]]:
    """Return, for each target t, d/dy_t of every monomial of the targets up to degree + 1; no term where it is 0."""
    ladder = [n for n in product(range(degree + 2), repeat=targets) if 1 <= sum(n) <= degree + 1]
    return [[_derivative(n, t) for n in sorted(ladder, key=lambda n: (sum(n), n))] for t in range(targets)]


def _derivative(n: tuple[int, ...], t: int) -> Terms:
    lowered = [power - (v == t) for v, power in enumerate(n)]
    return ((float(n[t]), monomial(*enumerate(lowered))),) if n[t] else ()


# Relations: which coefficients a target sees --------------------------------------------------------------------------


class Grids(NamedTuple):
    """Positions of the coefficients in the extended vector (packed coefficients, then the finer low-pass images)."""

    bands: dict[tuple[str, int, int], Tensor]  # (orientation, level, channel) -> (h, w)
    lowpass: dict[tuple[int, int], Tensor]  # (level, channel) -> (h, w)


def grids(basis: Basis, shape: torch.Size) -> Grids:
    """Return the positions of every band and low-pass image of samples (C, H, W)."""
    channels = range(shape[0])
    packed = torch.arange(shape.numel()).reshape(shape)
    bands = {(b.orientation, b.level, c): packed[c, b.rows, b.columns] for b in basis.bands(shape) for c in channels}
    details = {key[1:]: grid for key, grid in bands.items() if key[0] == "H"}
    start, lowpass = shape.numel(), {}
    for level, channel in sorted(details):
        coarsest = bands.get(("A", level, channel))
        size = details[level, channel].shape
        if coarsest is None:
            coarsest = torch.arange(start, start + size.numel()).reshape(size)
            start += size.numel()
        lowpass[level, channel] = coarsest
    return Grids(bands, lowpass)


def extend(basis: Basis, z: Tensor) -> Tensor:
    """Return packed coefficients (B, C, H, W) with their finer low-pass images as columns, (D + ..., B)."""
    return torch.cat([part.flatten(1) for part in (z, *basis.scaling(z)[:-1])], 1).T.contiguous()


def offsets(size: torch.Size, radius: int) -> list[tuple[int, int]]:
    """Return the distinct neighbours on a periodic grid, max-norm <= radius, the target itself left out."""
    steps = product(range(-radius, radius + 1), repeat=2)
    return [d for d in dict.fromkeys((dy % size[0], dx % size[1]) for dy, dx in steps) if d != (0, 0)]


def related(relation: str, key: tuple[str, int, int], found: Grids, radius: int) -> list[Tensor]:
    """Return the grids of what a relation shows to a band; none where the band has no such relatives."""
    orientation, level, channel = key
    if relation == "neighbours":
        return [_moved(found.bands[key], d) for d in offsets(found.bands[key].shape, radius)]
    if orientation not in DETAILS:
        return []
    if relation == "siblings":
        return [found.bands[o, level, channel] for o in DETAILS if o != orientation]
    if relation == "parent":
        parent = found.bands.get((orientation, level + 1, channel))
        return [] if parent is None else [parent.repeat_interleave(2, 0).repeat_interleave(2, 1)]
    lowpass = found.lowpass[level, channel]
    return [lowpass, *(_moved(lowpass, d) for d in offsets(lowpass.shape, radius))]


RELATIONS = ("self", "neighbours", "siblings", "parent", "low-pass", "all")


def _moved(grid: Tensor, offset: tuple[int, int]) -> Tensor:
    return grid.roll((-offset[0], -offset[1]), (0, 1))


# Stencils: a family on the bands of a basis --------------------------------------------------------------------------


def stencils(
    basis: Basis, shape: torch.Size, family: str | tuple[Group, ...], degree: int, radius: int, conservative: bool
) -> tuple[Stencil, ...]:
    """Return the stencils of a family on samples of shape (C, H, W), so that every coefficient is a target once.

    Raises ValueError for a family, a degree or a radius that makes no sense, or that the basis cannot serve.
    """
    groups = _checked(family, degree, radius, conservative)
    if ("all", "linear") in groups:
        everything = tuple(Feature("all linear", (((1.0, ((v, 1),))),)) for v in range(shape.numel()))
        index = torch.arange(shape.numel())[None]
        return (Stencil(index, shape.numel(), ((_constant(), *everything),)),)
    found = grids(basis, shape)
    check_relatives(groups, found, radius, f"{basis} on samples of shape {tuple(shape)}")
    if {relation for relation, _ in groups} == {"self", "siblings"}:
        return tuple(_by_level(groups, found, degree, conservative))
    return tuple(_by_band(groups, key, found, degree, radius, conservative) for key in found.bands)


def _by_band(groups, key, found: Grids, degree: int, radius: int, conservative: bool) -> Stencil:
    """The stencil of one band: every coefficient is the only target of its own group of variables."""
    columns, features = [found.bands[key].flatten()], [_constant()]
    seen: dict[str, list[int]] = {"self": [0]}
    for relation, form in groups:
        if relation not in seen:
            others = [grid.flatten() for grid in related(relation, key, found, radius)]
            seen[relation] = list(range(len(columns), len(columns) + len(others)))
            columns += others
        if conservative and form == "pairs":
            fields = gradients(0, seen[relation], _mirror(found, key, radius), degree)
            features += [Feature(f"{relation} {form}", t) for t in fields]
        else:
            features += _features((relation, form), 0, seen[relation], degree)
    return Stencil(torch.stack(columns, 1), 1, (tuple(features),))


def _by_level(groups, found: Grids, degree: int, conservative: bool) -> Iterator[Stencil]:
    """The stencils of orientation triples, three targets each, and of the scaling bands."""
    for (orientation, level, channel), grid in found.bands.items():
        if orientation == "H":
            index = torch.stack([found.bands[o, level, channel].flatten() for o in DETAILS], 1)
            if conservative:
                fields = potentials(3, degree)
                yield Stencil(index, 3, tuple(tuple(Feature("potential", t) for t in field) for field in fields), True)
            else:
                yield Stencil(index, 3, tuple(_triple(groups, t, degree) for t in range(3)))
        elif orientation not in DETAILS:
            yield Stencil(grid.flatten()[:, None], 1, ((_constant(), *_features(SELF, 0, [0], degree)),))


def _triple(groups, target: int, degree: int) -> tuple[Feature, ...]:
    others = [v for v in range(3) if v != target]
    found = (_features(group, target, others if group[0] == "siblings" else [target], degree) for group in groups)
    return (_constant(), *chain.from_iterable(found))


def _constant() -> Feature:
    return Feature("constant", ((1.0, ()),))


def _features(group: Group, target: int, others: list[int], degree: int) -> list[Feature]:
    """The features of one group, under the name that the ledger files them by: the target's own powers go by degree."""
    relation, form = group
    made = list(FORMS[form](target, others, degree))
    names = [f"degree {n}" for n in range(1, degree + 1)] if group == SELF else [f"{relation} {form}"] * len(made)
    return [Feature(name, terms, form in ANCHORED) for name, terms in zip(names, made, strict=True)]


def _mirror(found: Grids, key, radius: int) -> list[int]:
    size = found.bands[key].shape
    around = offsets(size, radius)
    return [1 + around.index((-dy % size[0], -dx % size[1])) for dy, dx in around]


def check_sizes(degree: int, radius: int) -> None:
    """Raise ValueError unless degree and radius are whole numbers, at least 1."""
    for name, value in (("degree", degree), ("radius", radius)):
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} is {value!r}, expected a whole number, at least 1.")


def check_relatives(groups: tuple[Group, ...], found: Grids, radius: int, where: str) -> None:
    """Raise ValueError for a relation that no band has relatives by."""
    for relation in {relation for relation, _ in groups} - {"self"}:
        if not any(related(relation, key, found, radius) for key in found.bands):
            raise ValueError(
                f"no band of {where} has a relative called {relation!r}; choose another family, or a Wavelet basis "
                "with more levels."
            )


def _checked(family, degree, radius, conservative) -> tuple[Group, ...]:
    named = not isinstance(family, tuple | list)
    if named and family not in list(FAMILIES):
        raise ValueError(f"family is {family!r}, expected one of {', '.join(FAMILIES)} or pairs (relation, form).")
    groups = FAMILIES[family] if named else tuple(tuple(g) if isinstance(g, list) else g for g in family)
    for group in groups:
        if group not in list(product(RELATIONS, FORMS)):
            raise ValueError(
                f"{group!r} is no feature group, expected a pair of one of {', '.join(RELATIONS)} and one of "
                f"{', '.join(FORMS)}."
            )
    check_sizes(degree, radius)
    if "all" in dict(groups) and groups != FAMILIES["full"]:
        raise ValueError('the relation "all" holds every other one; use the family full, alone.')
    if {"parent", "low-pass"} <= {relation for relation, _ in groups}:
        raise ValueError("a parent is part of the low-pass image, so their noise is not independent; drop one.")
    if conservative and groups not in [FAMILIES[name] for name in ("independent", "band-tied", "local")]:
        raise ValueError("only the families independent, band-tied and local have a conservative variant; use one.")
    return groups
