"""Patch machines: every pixel is the posterior mean of the centre of the patch that explains the window around it.

With Omega_u(x) the window of a noisy image x around pixel u, and y running over a dictionary P_u of clean patches with
centre y(0),

    D(x)_u = sum_y w_u(y) y(0),      w_u = softmax_y( -|Omega_u(x) - alpha y|^2 / (2 sigma^2) ).

    Local              P_u: the patches of the training images at the same place u
    EquivariantLocal   P_u: the patches at every place ("circular", "interior"), or at every place that overlaps the
                       border as u does ("zeros")

The window may depend on the noise, through a table from log signal-to-noise ratio to window.
Source: Kamb and Ganguli (2025), equations 7 to 10 and 39 to 41.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Self

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from . import offsets
from .conditional import Dictionary, check_chunk, images, one_level
from .noise import Noise
from .offsets import Matches
from .windows import WindowTable, check_window, log_snr

BORDERS = ("circular", "interior", "zeros")


@dataclass(frozen=True, eq=False)
class Posterior:
    """What the weights of all patches say at every pixel of images x.

    x0: the posterior mean; entropy: of the weights, in nats, at most log of the number of patches; distance:
    |Omega_u(x) - alpha y| for the nearest patch y, which has the largest weight; image, row, column: the training image
    that it comes from and the place of its centre there; skipped: the share of all pairs (pixel, patch) that the
    machine's tolerance skipped, over the whole batch and all windows, each named once; 0 outside of the kernel.

    Entropies are right to about 1e-16 distance^2 / sigma^2 nats. Where x is not a number, or its squares overflow, x0
    is NaN and image, row and column mean nothing.
    """

    x0: Float[Tensor, "B C H W"]
    entropy: Float[Tensor, "B H W"]
    distance: Float[Tensor, "B H W"]
    image: Int64[Tensor, "B H W"]
    row: Int64[Tensor, "B H W"]
    column: Int64[Tensor, "B H W"]
    skipped: float

    @property
    def effective(self) -> Float[Tensor, "B H W"]:
        """The effective number of patches, exp(entropy); infinite in float16 beyond 65504."""
        return self.entropy.exp()


@dataclass(frozen=True, eq=False)
class PatchMachine(Dictionary):
    """What local machines share: windows, the pass over all pairs of patches, and its by-products.

    window: an odd number of pixels or a `WindowTable`; border: see `offsets`; chunk: how many pairs of an image x and a
    training image are compared at a time, at one offset, which bounds memory and changes nothing else (in the kernel
    for each thread, all windows together and at least 32 for each; not while gradients are recorded); tolerance: the
    kernel leaves out runs of patches that together change no pixel of D(x) by more than this, 0 for none. That saves
    exponentials, a quarter of the work, where the weights are concentrated, and nothing where they are not. Images in
    float32 on a processor go through a compiled kernel, all others through torch, half precision in float32.
    """

    window: int | WindowTable
    border: str
    chunk: int
    tolerance: float

    def denoise(self, x: Float[Tensor, "B C H W"], noise: Noise) -> Float[Tensor, "B C H W"]:
        """Return sum_y w_u(y) y(0) at every pixel u; one noise level for each image. Source: the module's equation.

        Raises ValueError where sigma is 0, differs between components, or is so small that the exponents overflow.
        """
        return self._denoise(x, noise, None)[0]

    def denoise_windows(
        self, x: Float[Tensor, "B C H W"], noise: Noise, windows: Iterable[int]
    ) -> Float[Tensor, "K B C H W"]:
        """Return D(x) for each of these windows in place of the machine's own: one pass, but one for each in torch."""
        return self._denoise(x, noise, self._asked(windows))

    def posterior(self, x: Float[Tensor, "B C H W"], noise: Noise) -> Posterior:
        """Return D(x) with entropy, nearest patch and distance, all from one pass."""
        return self._posteriors(x, noise, None)[0]

    def posterior_windows(self, x: Float[Tensor, "B C H W"], noise: Noise, windows: Iterable[int]) -> list[Posterior]:
        """Return `posterior` for each of these windows in place of the machine's own, in one pass."""
        return self._posteriors(x, noise, self._asked(windows))

    def _asked(self, windows: Iterable[int]) -> tuple[int, ...]:
        windows = tuple(windows) if isinstance(windows, Iterable) else ()
        if not windows:
            raise ValueError("windows names no window, expected a sequence of odd numbers of pixels.")
        for window in windows:
            check_window(window)
        self._check_sizes(windows)
        return windows

    def _check_sizes(self, windows: tuple[int, ...]) -> None:
        H, W = self.data.shape[2:]
        if self.border in ("circular", "interior") and max(windows) > min(H, W):
            raise ValueError(
                f'the window is {max(windows)} and the images measure {H} x {W}; with border="{self.border}" expected '
                f"a window of at most {min(H, W)}."
            )

    def _denoise(self, x: Tensor, noise: Noise, windows: tuple[int, ...] | None) -> Tensor:
        parts = [
            (rows, torch.stack([_planes(one.soft.mean[:, : x.shape[1]], len(rows), x) for one in found]))
            for rows, _, _, found, _ in self._passes(x, noise, windows, track=False)
        ]
        return torch.cat([planes for _, planes in parts], 1)[:, _order(parts)].to(x)

    def _posteriors(self, x: Tensor, noise: Noise, windows: tuple[int, ...] | None) -> list[Posterior]:
        parts, skipped, pairs = [], 0, 0
        for rows, members, own, found, count in self._passes(x, noise, windows, track=True):
            names = torch.arange(len(self.data)) if members is None else members
            sizes = [len(names) * self.patches_per_image(window) for window in own]
            parts.append((rows, [_facts(*one, names, len(rows), x) for one in zip(found, sizes, strict=True)]))
            once = dict(zip(own, sizes, strict=True)).values()
            skipped, pairs = skipped + count, pairs + len(rows) * int(sum(size.sum() for size in once))
        order, share = _order(parts), skipped / max(1, pairs)
        by_window = zip(*(facts for _, facts in parts), strict=True)
        return [Posterior(*(torch.cat(one)[order] for one in zip(*facts, strict=True)), share) for facts in by_window]

    def _passes(
        self, x: Tensor, noise: Noise, windows: tuple[int, ...] | None, track: bool
    ) -> Iterator[tuple[Tensor, Tensor | None, tuple[int, ...], list[Matches], int]]:
        """Yield (rows, members, windows, matches, pairs skipped) for rows that share images and windows."""
        alpha, sigma = one_level(x, noise, self.data.shape[1:], type(self).__name__)
        for rows, members in self._groups(len(x)):
            for some, own in self._windowed(rows, alpha, sigma, windows):
                query = x[some], alpha[some], sigma[some]
                yield some, members, own, *self._matches(query, self._members(members), own, track)

    def patches_per_image(self, window: int) -> Int64[Tensor, "H W"]:
        """Return how many patches of one training image each pixel is compared with."""
        counts = []
        for length in self.data.shape[2:]:
            count = torch.zeros(length, dtype=torch.int64)
            for offset in offsets.offsets(length, window // 2, self.border):
                count[offset.start : offset.stop] += 1
            counts.append(count)
        return torch.outer(*counts)

    def _windowed(
        self, rows: Tensor, alpha: Tensor, sigma: Tensor, windows: tuple[int, ...] | None
    ) -> Iterator[tuple[Tensor, tuple[int, ...]]]:
        """Yield (rows, windows): the windows asked for with all rows, or else each of the machine's with its rows."""
        if windows is not None:
            yield rows, windows
        elif isinstance(self.window, int) or len(rows) == 0:
            yield rows, (self.window if isinstance(self.window, int) else self.window.windows[0],)
        else:
            at = zip(alpha[rows].tolist(), sigma[rows].tolist(), strict=True)
            own = torch.tensor([self.window.at(log_snr(Noise(*level))) for level in at])
            yield from ((rows[own == window], (int(window),)) for window in own.unique())

    def _matches(
        self, query: tuple[Tensor, Tensor, Tensor], data: Tensor, windows: tuple[int, ...], track: bool
    ) -> tuple[list[Matches], int]:
        rising = tuple(sorted(set(windows)))
        if _compilable(*query, data):
            from . import lanes  # numba takes a moment to load, and only the kernel needs it

            count = max(1, self.chunk // (lanes.LANES * len(rising)))
            found, skipped = lanes.matches(*query, data, rising, self.border, count, self._cut(data), track)
        else:
            wide = [one.to(torch.promote_types(one.dtype, torch.float32)) for one in query]
            found, skipped = [offsets.matches(*wide, data, one, self.border, self.chunk) for one in rising], 0
        return [found[rising.index(window)] for window in windows], skipped

    def _cut(self, data: Tensor) -> float:
        """How many bits below a kept weight all n skipped ones may lie: n 2^-cut (max y - min y) = tolerance."""
        if self.tolerance == 0:
            return math.inf
        spread = float(data.max() - data.min())
        if spread == 0:
            return math.inf
        return max(0.0, math.log2(len(data) * data.shape[2:].numel() * spread / self.tolerance))


@dataclass(frozen=True, eq=False)
class Local(PatchMachine):
    """The local machine: every pixel is compared with the patches of the training images at its own place.

    Windows reach beyond the border, where x and y are both zero. With window 1 every pixel stands alone; with windows
    of at least 2 max(H, W) - 1 it is `Ideal`. Source: Kamb and Ganguli (2025), equations 7 and 8.
    """

    @classmethod
    def fit(
        cls,
        data: Tensor | Iterable[Tensor],
        window: int | WindowTable,
        labels: Int[Tensor, " N"] | None = None,
        chunk: int = 512,
        tolerance: float = 0.0,
    ) -> Self:
        """Keep the images (N, C, H, W), or the batches of an iterable; labels (N,) allow `given`.

        Raises ValueError for an even window, labels that do not fit, and a chunk or tolerance out of range.
        """
        _check(window, chunk, tolerance)
        return cls(**images(data, labels), window=window, border="same", chunk=chunk, tolerance=tolerance)


@dataclass(frozen=True, eq=False)
class EquivariantLocal(PatchMachine):
    """The equivariant local machine: every pixel is compared with the patches at other places, too.

    border: "circular", windows of x and of the training images wrap around; "interior", those of the training images
    must lie inside, as in the public code; "zeros", windows reach beyond the border, and a pixel is compared with the
    places that overlap the border as it does. Source: Kamb and Ganguli (2025), equations 9 and 10 and appendix B.
    """

    @classmethod
    def fit(
        cls,
        data: Tensor | Iterable[Tensor],
        window: int | WindowTable,
        border: str = "circular",
        labels: Int[Tensor, " N"] | None = None,
        chunk: int = 512,
        tolerance: float = 0.0,
    ) -> Self:
        """Keep the images (N, C, H, W), or the batches of an iterable; labels (N,) allow `given`.

        Raises ValueError for an even window, one larger than the images with border "circular" or "interior", an
        unknown border, labels that do not fit, and a chunk or tolerance out of range.
        """
        _check(window, chunk, tolerance)
        if border not in BORDERS:
            raise ValueError(f'border is {border!r}, expected "circular", "interior" or "zeros".')
        kept = images(data, labels)
        machine = cls(**kept, window=window, border=border, chunk=chunk, tolerance=tolerance)
        machine._check_sizes(window.windows if isinstance(window, WindowTable) else (window,))
        return machine


# Reading the matches ------------------------------------------------------------------------------------------------


def _planes(rows: Tensor, count: int, x: Tensor) -> Tensor:
    """Rows (B H W, channels) as images (B, channels, H, W)."""
    return rows.reshape(count, *x.shape[2:], rows.shape[1]).movedim(-1, 1)


def _facts(matches: Matches, size: Tensor, members: Tensor, count: int, x: Tensor) -> tuple[Tensor, ...]:
    """The fields of a `Posterior`, but the last, for some images of the batch; size (H, W): patches at each pixel."""
    mean = _planes(matches.soft.mean, count, x)
    shape = (count, *x.shape[2:])
    most = size.to(mean).log()  # the clamp concerns rounding, far from all patches
    entropy = (matches.soft.logsumexp.reshape(shape) - mean[:, -1]).clamp(min=0).minimum(most)
    nearest = matches.nearest
    image = members.to(nearest.image.device)[nearest.image]
    shift = nearest.shift.reshape(*shape, 2)
    row = (torch.arange(shape[1], device=shift.device)[:, None] + shift[..., 0]) % shape[1]
    column = (torch.arange(shape[2], device=shift.device) + shift[..., 1]) % shape[2]
    distance = nearest.distance.sqrt().reshape(shape)
    return mean[:, :-1].to(x), entropy.to(x), distance.to(x), image.reshape(shape), row, column


def _order(parts: list[tuple[Tensor, object]]) -> Tensor:
    """Where the images of the batch are, after the parts have been put one after another."""
    return torch.cat([rows for rows, _ in parts]).argsort()


def _compilable(x: Tensor, alpha: Tensor, sigma: Tensor, data: Tensor) -> bool:
    """Whether the kernel may serve x: float32 on a processor, outside of any differentiation, and not beyond 10^15.

    Where the squares of the differences overflow, or x is not a number, torch says so in its result.
    """
    inputs = (x, alpha, sigma, data)
    tangent = any(torch.autograd.forward_ad.unpack_dual(one).tangent is not None for one in inputs)
    if any(one.requires_grad for one in inputs) or tangent or torch._C._are_functorch_transforms_active():
        return False
    plain = x.device.type == data.device.type == "cpu" and x.dtype == torch.float32
    return plain and len(x) > 0 and bool(x.abs().max() < 1e15)


def _check(window: int | WindowTable, chunk: int, tolerance: float) -> None:
    if not isinstance(window, WindowTable):
        check_window(window)
    check_chunk(chunk)
    if isinstance(tolerance, bool) or not isinstance(tolerance, Real) or not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance is {tolerance}, expected a change of pixels that is not negative, 0 for none.")
