"""The regression of one stencil at one noise level, from the moments of its Hermite features.

For features phi = C h with E[h h^T] = S and right-hand side c = E[h (z0 - mean)], the weights on h are
C^T (C S C^T)^-1 C c. With the Cholesky factor C S C^T = L L^T, feature j lowers the error by (L^-1 C c)_j^2 when it is
added to the features before it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from .monomials import degree, monomial
from .powersums import PowerSums, Whitened
from .stencils import Feature, Stencil

JITTER = 1e-12  # relative; tried once where rounding has made a Gram matrix indefinite


class Solution(NamedTuple):
    """A stencil's regression at one level: features h, their weights (n, p, targets), gains (n, targets) by group."""

    white: Whitened
    weights: Tensor
    gains: dict[str, Tensor]


def solve(sums: PowerSums, stencil: Stencil, alpha: Tensor, sigma: Tensor, guard: float | None) -> Solution:
    """Return the regression of every target of a stencil at the levels alpha, sigma, (n, m), of its variables.

    guard: relative ridge on the nonlinear features. Raises ValueError where the moments are not positive definite.
    """
    white = sums.whitened(alpha, sigma)
    gram, cross = white.gram(), white.cross(stencil.targets)
    if stencil.joint:
        return _joint(white, gram, cross, stencil, guard)
    weights, gains = [], []
    for t, features in enumerate(stencil.features):
        (C,) = _rows(white, [features], t)
        rhs = C @ (cross if len(stencil.features) == 1 else cross[:, :, t : t + 1])
        w, gain = _regress(C @ gram @ C.mT, rhs, features, guard)
        weights.append(C.mT @ w)
        gains.append(_by_group(features, gain))
    merged = {g: torch.cat([part[g] for part in gains], 1) for g in gains[0]}
    return Solution(white, torch.cat(weights, 2), merged)


def _joint(white: Whitened, gram: Tensor, cross: Tensor, stencil: Stencil, guard: float | None) -> Solution:
    """Feature k of every target carries the same weight: the normal equations of all targets are added."""
    C = _rows(white, stencil.features)
    system = sum(c @ gram @ c.mT for c in C)
    rhs = sum(c @ cross[:, :, t : t + 1] for t, c in enumerate(C))
    w, _ = _regress(system, rhs, stencil.features[0], guard)
    weights = torch.cat([c.mT @ w for c in C], 2)
    explained = 2 * (weights * cross).sum(1) - (weights * (gram @ weights)).sum(1)
    return Solution(white, weights, {"potential": explained})


def _regress(gram: Tensor, rhs: Tensor, features: tuple[Feature, ...], guard: float | None) -> tuple[Tensor, Tensor]:
    """Return S^-1 c (n, f, T) and the gain of every feature after those before it, (L^-1 c)^2 with S = L L^T."""
    gram, scale = _unit(gram)
    rhs = rhs * scale[..., None]
    if guard:
        nonlinear = torch.tensor([_degree(feature) > 1 for feature in features])
        gram = gram + guard * torch.diag(nonlinear.to(gram))
    L = _cholesky(gram)
    gain = torch.linalg.solve_triangular(L, rhs, upper=False)
    return torch.linalg.solve_triangular(L.mT, gain, upper=True) * scale[..., None], gain**2


def _unit(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Scale a Gram matrix to unit diagonal; a feature that vanishes (norm 0) keeps a row of its own."""
    norm = gram.diagonal(dim1=1, dim2=2)
    scale = norm.where(norm > 0, 1).rsqrt()
    unit = gram * scale[:, :, None] * scale[:, None]
    return unit + torch.diag_embed((norm <= 0).to(unit)), scale


def _cholesky(gram: Tensor) -> Tensor:
    for jitter in (0.0, JITTER):
        L, failed = torch.linalg.cholesky_ex(gram + jitter * torch.eye(gram.shape[1]).to(gram))
        bad = (failed > 0) | ~L.isfinite().all(2).all(1)
        if not bad.any():
            return L
    raise ValueError(
        f"the moments of {int(bad.sum())} of {len(bad)} regressions are not finite and positive definite; use more "
        "data, a lower degree or more noise."
    )


def _rows(
    white: Whitened, features_of: Sequence[tuple[Feature, ...]], first: int = 0
) -> list[Float64[Tensor, "n f p"]]:
    """Return the features of the targets first, first + 1, ... as combinations of the h_a.

    Feature k is scaled to at most 1, by one factor for all these targets.
    """
    found = [_combine(white, features, target) for target, features in enumerate(features_of, first)]
    largest = torch.stack([rows.abs().amax(2, keepdim=True) for rows in found]).amax(0)
    return [rows / largest for rows in found]


def _combine(white: Whitened, features: tuple[Feature, ...], target: int) -> Float64[Tensor, "n f p"]:
    position, units = white.sums.monomials.position, white.units
    rows = units.new_zeros(len(units), len(features), units.shape[1])
    for i, feature in enumerate(features):
        for weight, n in feature.terms:
            for factor, m in _anchor(white, n, target) if feature.anchored else [(1.0, n)]:
                rows[:, i, position[m]] += weight * factor * units[:, position[m]]
    return rows


def _anchor(white: Whitened, n, target: int):
    """Multiply a monic Hermite polynomial by the target: y H_n = H_{n+e} + alpha mean H_n + n_y sigma^2 H_{n-e}."""
    power = dict(n).get(target, 0)
    yield 1.0, monomial(*n, (target, 1))
    yield (white.alpha * white.sums.center)[:, target], n
    if power:
        yield power * (white.q * white.tau)[:, target] ** 2, monomial(*n, (target, -1))


def _degree(feature: Feature) -> int:
    return max((degree(n) for _, n in feature.terms), default=0) + feature.anchored


def _by_group(features: tuple[Feature, ...], gain: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for i, feature in enumerate(features):
        found[feature.group] = found.get(feature.group, 0) + gain[:, i]
    return found


def errors(solution: Solution, sums: PowerSums) -> tuple[Tensor, Tensor]:
    """Return E|z0 - mean|^2 and E|z0 - D|^2 of every target, exactly, over the data of `sums`.

    The second is squared bias plus variance, E|E[D | z0] - z0|^2 + E[Var[D | z0]], two sums without cancellation.
    """
    white, w = solution.white, solution.weights
    targets = w.shape[2]
    bias = w * white.scale[:, :, None]
    bias[:, sums.linear[:targets], range(targets)] -= 1
    error = (bias * (sums.gram @ bias)).sum(1) / sums.count + (w * (white.spread_of(sums) @ w)).sum(1)
    return sums.var[:, :targets], error


def condition(solution: Solution, stencil: Stencil) -> Tensor:
    """Return the condition number of the feature Gram matrix, scaled to unit diagonal, by target, (n, targets)."""
    spectra = [torch.linalg.eigvalsh(_unit(gram)[0]) for gram in _grams(solution.white, stencil)]
    return torch.stack([lam[:, -1] / lam[:, 0].clamp(min=0) for lam in spectra], 1).expand(-1, stencil.targets)


def _grams(white: Whitened, stencil: Stencil) -> list[Tensor]:
    """The Gram matrix of each target's features; one for all where they carry common weights."""
    gram = white.gram()
    if stencil.joint:
        return [sum(C @ gram @ C.mT for C in _rows(white, stencil.features))]
    found = (_rows(white, [features], target) for target, features in enumerate(stencil.features))
    return [C @ gram @ C.mT for (C,) in found]
