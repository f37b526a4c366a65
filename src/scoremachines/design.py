"""What a polynomial score machine regresses on what, and the clean moments that this takes.

`Design` joins a basis, a family and the shape of a sample. `PolynomialMoments` is what one pass over the data leaves:
the power sums of the variables of every stencil. It is a commutative monoid, so data may come in batches of any size.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Self

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from .bases import Basis
from .machine import batches
from .monomials import Monomials, monomial
from .powersums import PowerSums
from .stencils import FAMILIES, Group, Stencil, extend, stencils

ENTRIES = 2**20  # numbers held at once while streaming: 8 MiB in float64, which a cache holds


@dataclass(frozen=True, eq=False)
class Design:
    """What is regressed on what: the basis, the shape of a sample, the stencils, and their closed monomials.

    tied: whether all positions of a band share one regression, which makes the machine translation-equivariant there.
    """

    basis: Basis
    shape: torch.Size
    stencils: tuple[Stencil, ...]
    monomials: tuple[Monomials, ...]
    tied: bool

    @classmethod
    def of(
        cls,
        basis: Basis,
        shape: torch.Size,
        family: str | tuple[Group, ...] = "independent",
        degree: int = 3,
        radius: int = 1,
        tied: bool = False,
        conservative: bool = False,
    ) -> Self:
        """Return the design of a family; raises ValueError, in one sentence, where it makes no sense."""
        if not isinstance(basis, Basis):
            raise ValueError(f"basis is {basis!r}, expected an orthonormal Basis: elsewhere the noise is correlated.")
        if len(shape) != 3:
            raise ValueError(f"samples have shape {tuple(shape)}, expected images of shape (C, H, W).")
        if conservative and not tied:
            raise ValueError("conservative is only defined for shared weights, expected tied=True with it; set both.")
        if tied and family in ("full", FAMILIES["full"]):
            raise ValueError("the family full has no positions to tie, expected tied=False with it.")
        found = stencils(basis, torch.Size(shape), family, degree, radius, conservative)
        return cls(basis, torch.Size(shape), found, tuple(map(_closure, found)), tied)

    @cached_property
    def bands(self) -> dict[str, Tensor]:
        """The positions of every band in the flattened coefficients, over all channels, by name."""
        packed = torch.arange(self.shape.numel()).reshape(self.shape)
        return {b.name: packed[:, b.rows, b.columns].flatten() for b in self.basis.bands(self.shape)}

    @cached_property
    def extended(self) -> bool:
        """Whether some stencil sees the low-pass images."""
        return any(int(stencil.index.max()) >= self.shape.numel() for stencil in self.stencils)

    def columns(self, z: Tensor) -> Float64[Tensor, "D B"]:
        """Return coefficients (B, C, H, W) as columns, with the low-pass images below where they are needed."""
        return extend(self.basis, z) if self.extended else z.flatten(1).T.contiguous()

    def scatter(self, parts: Sequence[Tensor]) -> Tensor:
        """Arrange numbers of the targets of every stencil, (n or 1, targets), over the flattened coefficients (D,)."""
        flat = parts[0].new_zeros(self.shape.numel())
        for stencil, part in zip(self.stencils, parts, strict=True):
            index = stencil.index[:, : stencil.targets]
            flat[index] = part.expand(index.shape)
        return flat

    def measures_as(self, other: Self) -> bool:
        """Whether both designs take the same moments: of the same monomials at the same positions."""
        mine, others = ((d.basis, d.shape, d.tied, d.monomials) for d in (self, other))
        pairs = zip(self.stencils, other.stencils, strict=False)
        return self is other or (mine == others and all(torch.equal(a.index, b.index) for a, b in pairs))

    def images_at_once(self) -> int:
        """How many samples fit into the streaming buffer."""
        widest = max(len(s.index) * len(m) for s, m in zip(self.stencils, self.monomials, strict=True))
        return max(1, ENTRIES // widest)


def _closure(stencil: Stencil) -> Monomials:
    terms = [
        monomial(*n, (target, 1)) if feature.anchored else n
        for target, features in enumerate(stencil.features)
        for feature in features
        for _, n in feature.terms
    ]
    return Monomials.closure([*terms, *(((v, 1),) for v in range(stencil.index.shape[1]))])


@dataclass(frozen=True, eq=False)
class PolynomialMoments:
    """The clean moments that a design needs, a commutative monoid over sets of samples of one shape."""

    design: Design
    count: int
    sums: tuple[PowerSums, ...]

    @classmethod
    def of(cls, data: Float[Tensor, "N C H W"], design: Design, like: Self | None = None) -> Self:
        """Return the moments of images; N = 0 gives the identity. `like` lends its centres, which saves shifts.

        Raises ValueError for images of another shape, or that are no floating tensor.
        """
        if not isinstance(data, Tensor) or not data.is_floating_point():
            kind = data.dtype if isinstance(data, Tensor) else type(data).__name__
            raise ValueError(f"the images are {kind}, expected a floating tensor; see scoremachines.data.to_unit.")
        if data.shape[1:] != design.shape:
            raise ValueError(
                f"images have shape {tuple(data.shape)}, expected (N, {', '.join(map(str, design.shape))})."
            )
        parts = data.split(design.images_at_once())
        first = cls._of(parts[0], design, like)
        return reduce(lambda a, part: a.merge(cls._of(part, design, a)), parts[1:], first)

    @classmethod
    def _of(cls, x0: Tensor, design: Design, like: Self | None) -> Self:
        columns, sums = design.columns(design.basis.analysis(x0.double())), []
        centers = [part.center for part in like.sums] if like and like.count else [None] * len(design.stencils)
        for stencil, monomials, center in zip(design.stencils, design.monomials, centers, strict=True):
            values = columns[stencil.index]
            if design.tied:
                values = values.permute(1, 0, 2).flatten(1)[None]
            sums.append(PowerSums.of(values, monomials, center))
        return cls(design, len(x0), tuple(sums))

    def merge(self, other: Self) -> Self:
        """Return the moments of both sets of samples together; raises ValueError if the designs differ."""
        self._check_design(other)
        sums = tuple(a.merge(b) for a, b in zip(self.sums, other.sums, strict=True))
        return type(self)(self.design, self.count + other.count, sums)

    def about(self, other: Self) -> Self:
        """Return the same moments about the centres of others; raises ValueError if the designs differ."""
        self._check_design(other)
        sums = tuple(a.about(b.center) for a, b in zip(self.sums, other.sums, strict=True))
        return type(self)(self.design, self.count, sums)

    def _check_design(self, other: Self) -> None:
        if not self.design.measures_as(other.design):
            raise ValueError(
                f"moments in {self.design.basis} and in {other.design.basis} are not of one design; fit both with the "
                "same settings."
            )

    def centred(self) -> Self:
        """Return the same moments about the mean; raises ValueError for fewer samples than nonlinear features."""
        for part, stencil in zip(self.sums, self.design.stencils, strict=True):
            features = max(map(len, stencil.features))
            if part.count < features and part.monomials.highest > 1:
                raise ValueError(
                    f"{part.count} samples cannot determine {features} nonlinear features; use more data, a lower "
                    "degree or tied weights."
                )
        return type(self)(self.design, self.count, tuple(part.centred() for part in self.sums))


def one_pass(data: Tensor | Iterable[Tensor], design: Callable[[torch.Size], Design]) -> PolynomialMoments:
    """Return the moments of data (N, C, H, W), or of an iterable of such batches, for the design of their shape."""
    moments = None
    for batch in batches(data):
        plan = design(batch.shape[1:]) if moments is None else moments.design
        part = PolynomialMoments.of(batch, plan, moments)
        moments = part if moments is None else moments.merge(part)
    return moments
