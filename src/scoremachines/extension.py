"""Generating some components given others: conditioning, blocks, and strips of images of any width.

A component at the level (alpha, sigma) = (1, 0) is known. With the components A held there, and the others B led from
noise to clean, a machine that serves component-wise noise samples p(x_B | x_A), by the same steps as ever.

Extension. A machine of windows of w columns makes a strip of any width: freeze the last k columns, generate w - k new
ones, move on. It remembers k columns: KL(data || strip) = sum_steps I(new columns; dropped columns | kept columns).

The conveyor does this softly. A window S is held in mid-run, clean at its left end and noise at its right; each move
takes every column to the level of its left neighbour, emits the first one, and adds noise at the right. With E the
columns emitted before, and with the true law of the initial window and of each move, the divergence on paths is

    sum_moves [ I(E; S after the move) - I(E; S before it) + KL(new column || noise) ].

It bounds that of the strip. The first two terms cancel if the columns are Markov of order k and the window holds k of
them at sigma = 0; the third is 0 if noise is alpha = 0. One column at a time is the extension with k = w - 1.

Columns are the last axis of a sample, and divergences are in nats. Source: Gerdes, Welling and Cheng (2024) for the
extension of images; Ruhe and others (2024) for rolling windows.
"""

from collections.abc import Sequence
from numbers import Real

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from .coordinates import gaussian_law
from .gaussian import Gaussian
from .machine import Machine
from .noise import Noise
from .paths import active_share, soft, walk
from .sample import Step, ddim, sample

# Conditional sampling -----------------------------------------------------------------------------------------------


def frozen(levels: Sequence[Noise], mask: Bool[Tensor, "*shape"]) -> list[Noise]:
    """Return the same levels with the components of the mask at (alpha, sigma) = (1, 0), that is known, throughout.

    mask: of the shape of one sample. x has to hold the known values there, and a sampler leaves them alone; `heun` does
    ddim steps then. Raises ValueError if the mask holds every component, or does not fit the levels.
    """
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.all():
        found = f"a tensor of {mask.dtype} with nothing free" if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"the mask is {found}, expected a bool tensor of the shape of a sample, False in some places.")
    held = mask[None].double()
    parts = (level.on(held) for level in levels)
    return [Noise(torch.where(mask, 1, alpha), torch.where(mask, 0, sigma)) for alpha, sigma in parts]


def complete(
    machine: Machine,
    known: Float[Tensor, "B *shape"],
    mask: Bool[Tensor, "*shape"],
    levels: Sequence[Noise],
    step: Step = ddim,
    rng: torch.Generator | None = None,
) -> Float[Tensor, "B *shape"]:
    """Return samples that are `known` where the mask is True, drawn given that where it is False; needs rng.

    The others start from N(0, alpha^2 + sigma^2) at levels[0], which is exact at alpha = 0. What `known` holds there
    does not matter. The machine has to serve sigma = 0 in some components, as Gaussian, Mixture and KernelDensity do.
    """
    levels = frozen(levels, mask)
    return sample(machine, torch.where(mask.to(known.device), known, _start(known, levels[0], rng)), levels, step, rng)


def _start(x: Tensor, noise: Noise, rng: torch.Generator | None) -> Tensor:
    """Return a draw from N(0, alpha^2 + sigma^2), of the shape of x."""
    if not isinstance(rng, torch.Generator):
        raise ValueError(f"rng is a {type(rng).__name__}, expected a torch.Generator, which draws the start.")
    alpha, sigma = noise.on(x)
    white = torch.randn(x.shape, generator=rng, dtype=x.dtype, device=rng.device).to(x.device)
    return (alpha**2 + sigma**2).sqrt() * white


# Blocks -------------------------------------------------------------------------------------------------------------


def equal_blocks(labels: Float[Tensor, "*shape"] | Int[Tensor, "*shape"], n: int) -> Int[Tensor, "*shape"]:
    """Return 0 to n - 1 for n blocks of equal size in the order of the labels; equal labels go in reading order."""
    if type(n) is not int or n < 1 or labels.numel() % n:
        raise ValueError(f"n is {n}, expected a number of blocks that divides the {labels.numel()} components.")
    ranks = labels.flatten().argsort(stable=True).argsort()
    return (ranks // (labels.numel() // n)).reshape(labels.shape)


def block_kl(gaussian: Gaussian, blocks: Float[Tensor, "*shape"] | Int[Tensor, "*shape"]) -> float:
    """Return KL(Gaussian || samples drawn block by block), each component of a block independently of the others.

    sum_blocks (1/2) [ sum_i log Var(x_i | earlier blocks) - log det Cov(x_block | earlier blocks) ]: the total
    correlations of the blocks, each given the earlier ones. blocks: a label for every component, equal within a block
    and larger for later ones. Scaling components changes nothing; with one component to a block the result is 0.
    Raises ValueError for a singular covariance.
    """
    if blocks.shape != gaussian.shape or blocks.isnan().any():
        raise ValueError(
            f"the blocks have shape {tuple(blocks.shape)}, expected a label, not NaN, for each of {(*gaussian.shape,)}."
        )
    labels, order = blocks.flatten().sort(stable=True)
    root = _cholesky(gaussian.cov.double()[order][:, order])
    inside = root * (labels[:, None] == labels)  # the factor of each block's covariance given the earlier blocks
    return (inside.square().sum(1).log() / 2 - root.diagonal().log()).sum().item()


def _cholesky(cov: Tensor) -> Tensor:
    """Return the Cholesky factor, with the deviation of each component given the earlier ones on its diagonal."""
    root, failed = torch.linalg.cholesky_ex(cov)
    if failed:
        raise ValueError(
            f"the covariance of {len(cov)} components is singular, where the divergence may be infinite; take the law "
            "at a level with noise."
        )
    return root


# Extension ----------------------------------------------------------------------------------------------------------


def extend(
    machine: Machine,
    x: Float[Tensor, "B *rows w"],
    width: int,
    keep: int,
    levels: Sequence[Noise],
    step: Step = ddim,
    rng: torch.Generator | None = None,
) -> Float[Tensor, "B *rows width"]:
    """Return strips of `width` columns that begin with x, drawn by a machine of windows as wide as x; needs rng.

    Again and again the last `keep` columns are taken for clean, and the rest of the window is generated on the levels;
    the last window is cut.
    """
    window = x.shape[-1]
    _check_columns(width, window, keep)
    mask = (torch.arange(window, device=x.device) < keep).expand(x.shape[1:])
    while x.shape[-1] < width:
        known = torch.cat([x[..., x.shape[-1] - keep :], torch.zeros_like(x[..., : window - keep])], -1)
        new = complete(machine, known, mask, levels, step, rng)[..., keep:]
        x = torch.cat([x, new[..., : width - x.shape[-1]]], -1)
    return x


def extended_law(window: Gaussian, width: int, keep: int) -> Gaussian:
    """Return the law of the strips of `extend` for this Gaussian machine, a first window of its law, and exact steps.

    New columns are B (kept - mean) + noise, with B and the noise from the covariance of the window. If that is
    stationary, and keep is one less than its columns, the strip is an autoregressive process of order `keep`.
    """
    _check_columns(width, window.shape[-1], keep)
    cov, mean = _by_column(window)
    rows = len(cov) // window.shape[-1]
    k = keep * rows
    B = cov[k:, :k] @ torch.linalg.pinv(cov[:k, :k], hermitian=True)
    left = cov[k:, k:] - B @ cov[:k, k:]
    strip, means = cov, mean
    while len(strip) < width * rows:
        last = len(strip) - k
        across = B @ strip[last:]
        strip = torch.cat([torch.cat([strip, across.T], 1), torch.cat([across, across[:, last:] @ B.T + left], 1)])
        means = torch.cat([means, mean[k:] + B @ (means[last:] - mean[:k])])
    shape = torch.Size((*window.shape[:-1], width))
    places = _column_order(torch.arange(width * rows).reshape(shape)).argsort()
    return gaussian_law(means[places], strip[places][:, places], shape)


def extension_kl(strip: Gaussian, window: int, keep: int) -> float:
    """Return sum_steps I(new; dropped | kept), the divergence of `extend` from strips of stationary data.

    strip: the law of the data, as wide as the strip; window: the columns that the machine knows; keep: those of them
    that it is given. It is 0 if the columns are Markov of order keep. Raises ValueError for a singular covariance.
    """
    width = strip.shape[-1]
    _check_columns(width, window, keep)
    cov, _ = _by_column(strip)
    rows, given_all, total = len(cov) // width, _log_deviations(cov), 0.0
    for first in range(window, width, window - keep):
        near = slice((first - keep) * rows, (first + window - keep) * rows)
        given_kept = _log_deviations(cov[near, near])[keep * rows :]
        total += (given_kept - given_all[first * rows :][: len(given_kept)]).sum().item()
    return total


def _by_column(gaussian: Gaussian) -> tuple[Float64[Tensor, "D D"], Float64[Tensor, " D"]]:
    """Return covariance and mean with the components in the order of their columns."""
    order = _column_order(torch.arange(len(gaussian.mean)).reshape(gaussian.shape))
    return gaussian.cov.double()[order][:, order], gaussian.mean.double()[order]


def _column_order(part: Float[Tensor, "*rows w"] | Int[Tensor, "*rows w"]) -> Tensor:
    return part.movedim(-1, 0).flatten()


def _log_deviations(cov: Tensor) -> Tensor:
    """Return log sd(x_i | x_j, j < i)."""
    return _cholesky(cov).diagonal().log()


# The conveyor -------------------------------------------------------------------------------------------------------


def conveyor_levels(
    shape: Sequence[int], a: Real, steps: int, clean: Real = -7.0, noisy: Real = 3.0
) -> tuple[list[Noise], list[Noise]]:
    """Return the levels that fill a window with noise turning into columns, and those of one move of the conveyor.

    Both are parts of the capped soft schedule with the column as label: filling goes from noise everywhere to
    gamma_c = max(noisy - a (w - 1 - c), clean), c = 0 to w - 1, and a move, of `steps` steps, takes away another a.
    shape: of a window with w columns; a: the inverse softness, with (noisy - clean) / a columns under way at a time.
    """
    window, reach = shape[-1], noisy - clean
    if type(steps) is not int or steps < 1 or window < 2 or not reach / window <= a <= reach:
        raise ValueError(
            f"steps is {steps}, the window has {window} columns and a is {a}; expected at least one step, two columns, "
            f"and a between {reach / window:.4g}, so that a column is clean when it leaves, and {reach:.4g}."
        )
    labels = torch.arange(window, dtype=torch.float64).expand(*shape)
    start = active_share(labels, a, clean, noisy)  # the time at which the last column begins
    rate, filling = (1 - start) / (window - 1) / steps, (window - 1) * steps
    times = [max(1 - rate * k, 0.0) for k in range(filling + steps + 1)]
    path = walk(soft(labels, a, clean, noisy, capped=True), times)
    return path[: filling + 1], path[filling:]


def conveyor(
    machine: Machine,
    x: Float[Tensor, "B *rows w"],
    levels: Sequence[Noise],
    width: int,
    step: Step = ddim,
    rng: torch.Generator | None = None,
) -> Float[Tensor, "B *rows width"]:
    """Return strips of `width` columns, emitted one by one from the left of a window that moves on; needs rng.

    x: the window at levels[0]; levels: those of one move, as from `conveyor_levels`. A move ends where it began, one
    column on: a new column has the level of the last one, and is drawn from N(0, alpha^2 + sigma^2) there. Columns are
    emitted as they are at levels[-1].
    """
    _check_joint(x[:1], levels)
    entering = Noise(*(part[..., -1:] for part in _on(x[:1], levels[0])))
    emitted = [x[..., :0]]
    for _ in range(width):
        x = sample(machine, x, levels, step, rng)
        emitted.append(x[..., :1])
        x = torch.cat([x[..., 1:], _start(x[..., :1], entering, rng)], -1)
    return torch.cat(emitted, -1)


def conveyor_kl(strip: Gaussian, levels: Sequence[Noise]) -> float:
    """Return the divergence on paths of a conveyor whose window runs along the strip, a bound on that of its columns.

    sum_moves [ I(E; S after) - I(E; S before) + KL(new column || N(0, alpha^2 + sigma^2)) ], for a machine that knows
    the law of a window and steps that are exact for it. strip: the law of the stationary data; levels: those of one
    move. An emitted column counts at the level that it has in levels[-1]. Raises ValueError for a singular covariance.
    """
    window, width = _window(levels), strip.shape[-1]
    probe = torch.zeros(1, *strip.shape[:-1], window, dtype=torch.float64)
    _check_columns(width, window, 0)
    _check_joint(probe, levels)
    cov, mean = _by_column(strip)
    rows, total = len(mean) // width, 0.0
    start, end = ([_column_order(part[0]) for part in _on(probe, level)] for level in (levels[0], levels[-1]))
    for first in range(rows, len(mean) - window * rows + 1, rows):
        before, after = (_beside(cov, level, [part[:rows] for part in end], first) for level in (start, end))
        entering = _entering_kl(before, mean, [part[-rows:] for part in start])
        total += (_information(after, first) - _information(before, first) + entering).item()
    return total


def _beside(cov: Tensor, level: Sequence[Tensor], rest: Sequence[Tensor], first: int) -> Tensor:
    """Return the covariance of the `first` components that were emitted, at their level, and the window at its own."""
    alpha, sigma = (torch.cat([out.repeat(first // len(out)), part]) for out, part in zip(rest, level, strict=True))
    return alpha[:, None] * cov[: len(alpha), : len(alpha)] * alpha + sigma.square().diag()


def _information(cov: Tensor, first: int) -> Tensor:
    """Return the mutual information of the `first` components and the others."""
    return (_log_deviations(cov[first:, first:]) - _log_deviations(cov)[first:]).sum()


def _entering_kl(cov: Tensor, mean: Tensor, level: Sequence[Tensor]) -> Tensor:
    """Return the expected divergence of the last column, given all others, from N(0, alpha^2 + sigma^2)."""
    alpha, sigma = level
    v, moment = alpha**2 + sigma**2, cov.diagonal()[-len(alpha) :] + (alpha * mean[: len(cov)][-len(alpha) :]) ** 2
    return ((moment / v - 1 + v.log()) / 2 - _log_deviations(cov)[-len(alpha) :]).sum()


def _on(x: Tensor, noise: Noise) -> list[Tensor]:
    return [part.expand_as(x) for part in noise.on(x)]


# Checks -------------------------------------------------------------------------------------------------------------


def _check_columns(width: int, window: int, keep: int) -> None:
    if not type(keep) is type(width) is int or not 0 <= keep < window <= width:
        raise ValueError(
            f"there are keep {keep}, window {window}, width {width}; expected 0 <= keep < window <= width."
        )


def _window(levels: Sequence[Noise]) -> int:
    """Return the number of columns of the levels of one move."""
    parts = [torch.as_tensor(part).shape for level in levels[:1] for part in (level.alpha, level.sigma)]
    if len(levels) < 2 or not torch.broadcast_shapes(*parts):
        raise ValueError("the levels are no move, expected two at least, with one noise for each column of a window.")
    return torch.broadcast_shapes(*parts)[-1]


def _check_joint(x: Tensor, levels: Sequence[Noise]) -> None:
    """Raise ValueError unless the last level, one column on, is the first."""
    _window(levels)
    ends = zip(_on(x, levels[0]), _on(x, levels[-1]), strict=True)
    if not all(torch.allclose(first[..., :-1], last[..., 1:], rtol=1e-5, atol=1e-6) for first, last in ends):
        raise ValueError(
            "the levels do not move on by one column; expected the last level of each column to be the first of its "
            "left neighbour, as from conveyor_levels."
        )
