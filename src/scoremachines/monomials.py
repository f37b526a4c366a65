"""Monomials of a few variables, and how Gaussian noise acts on the Hermite polynomials that belong to them.

A monomial w^n = prod_v w_v^n_v is written as sorted pairs (v, n_v) with n_v >= 1; () is the constant. For noisy
variables w' = a w + q z, z ~ N(0, I), the scaled Hermite polynomials

    h_n(w') = prod_v q_v^n_v He_{n_v}(w'_v / q_v) / sqrt(n_v!)

average over the noise to plain monomials, E_z[h_n] = (a w)^n / sqrt(n!). Their products average to a positive sum,

    E_z[h_m h_n] = sum_k q^(2 k) sqrt(C(m, k) C(n, k)) (a w)^(m - k) (a w)^(n - k) / sqrt((m - k)! (n - k)!),

so the Gram matrix at any noise level follows, without cancellation, from the clean Gram matrix of a set of monomials
that holds every divisor of its members. Source: chapter "The wavelet score machine", which proves it.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import NamedTuple, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

Monomial = tuple[tuple[int, int], ...]


class Lowering(NamedTuple):
    """One term k of the positive sum: rows n with n >= k, where n - k stands, and sqrt(C(n, k))."""

    k: Monomial
    rows: Int[Tensor, " r"]
    lower: Int[Tensor, " r"]
    weight: Float[Tensor, " r"]


@dataclass(frozen=True)
class Monomials:
    """A set of monomials closed under division, sorted by degree: `members[0]` is the constant."""

    members: tuple[Monomial, ...]

    @classmethod
    def closure(cls, generators: Iterable[Monomial]) -> Self:
        """Return the smallest closed set that holds the generators and every variable that occurs in them."""
        found = {divisor for monomial in generators for divisor in divisors(monomial)}
        return cls(tuple(sorted(found | {()}, key=lambda n: (degree(n), n))))

    def __len__(self) -> int:
        return len(self.members)

    @cached_property
    def position(self) -> dict[Monomial, int]:
        """Where each monomial stands."""
        return {monomial: i for i, monomial in enumerate(self.members)}

    @cached_property
    def root_factorial(self) -> Float[Tensor, " p"]:
        """sqrt(n!) of every member."""
        roots = [math.sqrt(math.prod(math.factorial(power) for _, power in n)) for n in self.members]
        return torch.tensor(roots, dtype=torch.float64)

    @cached_property
    def lowerings(self) -> tuple[Lowering, ...]:
        """The terms of the positive sum, k = 0 first."""
        rows: dict[Monomial, list[tuple[int, int, float]]] = {k: [] for k in self.members}
        for i, n in enumerate(self.members):
            for k in divisors(n):
                rows[k].append((i, self.position[quotient(n, k)], math.sqrt(_choose(n, k))))
        return tuple(Lowering(k, *_columns(found)) for k, found in rows.items())

    def powers(self, w: Float[Tensor, "n m B"]) -> Float[Tensor, "n p B"]:
        """Return the value of every monomial at the variables w."""
        ladder = [torch.ones_like(w), w]
        while len(ladder) <= self.highest:
            ladder.append(ladder[-1] * w)
        return self._products(w, ladder)

    def hermite(self, w: Float[Tensor, "n m B"], q: Float[Tensor, "#n m"]) -> Float[Tensor, "n p B"]:
        """Return every h_n at the variables w with noise deviations q, by (k + 1) g_{k+1} = w g_k - q^2 g_{k-1}.

        The recursion is that of g_k = q^k He_k(w / q) / k!; the product is scaled to 1 / sqrt(n!).
        """
        square = q[..., None] ** 2
        ladder = [torch.ones_like(w), w]
        while len(ladder) <= self.highest:
            ladder.append((w * ladder[-1] - square * ladder[-2]) / len(ladder))
        return self._products(w, ladder) * self.root_factorial.to(w)[:, None]

    def scales(self, r: Float[Tensor, "n m"]) -> Float[Tensor, "n p"]:
        """Return r^n of every member n, for one scale factor per variable."""
        return self.powers(r[..., None])[..., 0]

    def shift(self, d: Float[Tensor, "n m"]) -> Float[Tensor, "n p p"]:
        """Return the matrices T with (w + d)^n = sum_k T[n, k] w^k, the binomial theorem."""
        T = d.new_zeros(len(d), len(self), len(self))
        powers = self.scales(d)
        for k, rows, lower, weight in self.lowerings:
            T[:, rows, self.position[k]] = weight.to(d) ** 2 * powers[:, lower]
        return T

    @cached_property
    def highest(self) -> int:
        """The highest power of a single variable."""
        return max((power for n in self.members for _, power in n), default=1)

    def _products(self, w: Tensor, ladder: list[Tensor]) -> Tensor:
        """Multiply the one-variable factors of every member, each from a smaller member and one factor more."""
        values = [ladder[0][:, 0]]
        for n in self.members[1:]:
            variable, power = n[-1]
            factor = ladder[power][:, variable]
            values.append(values[self.position[n[:-1]]] * factor if len(n) > 1 else factor)
        return torch.stack(values, 1)


def monomial(*factors: tuple[int, int]) -> Monomial:
    """Return prod_v w_v^n_v from pairs (v, n_v), in any order, zero powers allowed.

    >>> monomial((2, 1), (0, 3), (1, 0))
    ((0, 3), (2, 1))
    """
    powers: dict[int, int] = {}
    for variable, power in factors:
        powers[variable] = powers.get(variable, 0) + power
    return tuple(sorted((variable, power) for variable, power in powers.items() if power))


def degree(n: Monomial) -> int:
    """Return the total degree of a monomial."""
    return sum(power for _, power in n)


def quotient(n: Monomial, k: Monomial) -> Monomial:
    """Return n / k for a divisor k of n."""
    return monomial(*n, *((variable, -power) for variable, power in k))


def divisors(n: Monomial) -> Iterator[Monomial]:
    """Yield every divisor of a monomial, itself and the constant included."""
    ranges = [[(variable, power) for power in range(top + 1)] for variable, top in n]
    return (monomial(*choice) for choice in product(*ranges))


def _choose(n: Monomial, k: Monomial) -> int:
    taken = dict(k)
    return math.prod(math.comb(power, taken.get(variable, 0)) for variable, power in n)


def _columns(found: list[tuple[int, int, float]]) -> tuple[Tensor, Tensor, Tensor]:
    rows, lower, weight = zip(*found, strict=True)
    return torch.tensor(rows), torch.tensor(lower), torch.tensor(weight, dtype=torch.float64)
