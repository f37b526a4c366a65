"""Comparisons of machines and images: the window that matches another machine, and how nearly images are mosaics.

Calibration asks with which window a patch machine predicts the noise as a reference does, a trained network perhaps,
along the reference's own trajectories. Local consistency asks whether every pixel of an image is the centre of the
training patch nearest to the window around it: an image of which this holds is a mosaic of training patches.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real

import torch
from jaxtyping import Bool, Float, Float64, Int, Int64
from torch import Tensor

from . import metrics
from .machine import Machine
from .noise import Noise
from .patches import BORDERS, EquivariantLocal, Local, PatchMachine
from .sample import State, trajectory
from .windows import WindowTable, check_window, log_snr

# How two batches of predicted noise are compared, image by image, and which window is best.
CRITERIA = {
    "cosine": (metrics.cosine, torch.argmax),
    "distance": (lambda a, b: (a - b).flatten(1).norm(dim=1), torch.argmin),
}


# The window that matches a reference --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Calibration:
    """How well a patch machine with each of K windows predicts the noise as a reference does.

    levels: the T levels compared, in the order of the trajectories; windows: K rising odd numbers of pixels; scores:
    (T, K, S) for S starts; criterion: "cosine", the larger the better, or "distance", the smaller the better.
    """

    levels: tuple[Noise, ...]
    windows: tuple[int, ...]
    scores: Float64[Tensor, "T K S"]
    criterion: str

    @property
    def best(self) -> Int64[Tensor, "T S"]:
        """The best window at each level, for each start; of equally good windows the smallest."""
        pick = CRITERIA[self.criterion][1](self.scores, dim=1)
        return torch.tensor(self.windows, device=pick.device)[pick]

    @property
    def median(self) -> Int64[Tensor, " T"]:
        """The median over starts of the best windows; for an even number of starts the lower one."""
        return self.best.median(1).values

    @property
    def table(self) -> WindowTable:
        """The median window at each level, ready to be the window of a patch machine."""
        return WindowTable.of(self.levels, self.median.tolist())


def calibrate_windows(
    machine: PatchMachine,
    reference: Machine,
    levels: Sequence[Noise],
    windows: Iterable[int],
    x: Float[Tensor, "S C H W"],
    criterion: str = "cosine",
) -> Calibration:
    """Compare a patch machine with each of the windows to a reference, along the reference's ddim trajectories from x.

    At each level the noise that either predicts, eps = (x - alpha D(x)) / sigma, is compared over all pixels of an
    image: "cosine" is the cosine of the angle between the two, "distance" the Euclidean norm of their difference.
    Levels with alpha = 0 or sigma = 0 are walked through but not compared: at alpha = 0 every window predicts
    x / sigma, and at sigma = 0 there is no noise.

    machine: a fitted patch machine, whose own window plays no part; reference: any machine on the same images. If
    either is conditional, hand it over as `given` the classes of x. levels: one number each for alpha and sigma;
    windows: rising odd numbers; x: the starts, at levels[0]. Each level costs an evaluation of the reference and one
    pass of the machine for all windows (in torch one for each).

    Raises ValueError for arguments other than these. Source: Kamb and Ganguli (2025), appendix C.2.
    """
    windows = tuple(windows)
    _check_calibration(machine, windows, x, criterion)
    compared = [math.isfinite(log_snr(level)) for level in levels]
    if not any(compared):
        raise ValueError("no level has both alpha and sigma above 0, expected at least one that can be compared.")
    states = (state for state, both in zip(trajectory(reference, x, levels), compared, strict=True) if both)
    pairs = [(state.noise, _scores(machine, state, windows, criterion)) for state in states]
    return Calibration(tuple(noise for noise, _ in pairs), windows, torch.stack([s for _, s in pairs]), criterion)


def _check_calibration(machine: PatchMachine, windows: tuple[int, ...], x: Tensor, criterion: str) -> None:
    if not isinstance(machine, PatchMachine):
        raise ValueError(f"{type(machine).__name__} has no windows; calibrate a Local or an EquivariantLocal.")
    if criterion not in CRITERIA:
        raise ValueError(f"criterion is {criterion!r}, expected one of {', '.join(CRITERIA)}.")
    for window in windows:
        check_window(window)
    if not windows or any(a >= b for a, b in pairwise(windows)):
        raise ValueError(f"windows is {windows}, expected at least one odd number, rising.")
    _check_images(x)


def _scores(machine: PatchMachine, state: State, windows: tuple[int, ...], criterion: str) -> Float64[Tensor, "K S"]:
    """The criterion for each window and start; in float64, since at high noise all angles are small."""
    alpha, sigma = float(state.noise.alpha), float(state.noise.sigma)
    x0 = torch.cat([state.x0[None], machine.denoise_windows(state.x, state.noise, windows)])
    target, *found = (state.x.double() - alpha * x0.double()) / sigma
    return torch.stack([CRITERIA[criterion][0](target, eps) for eps in found])


# Mosaics of training patches ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Consistency:
    """How far every pixel of images x is from the centre of its nearest training patch.

    deviation: (B, C, H, W), |x - centre| in pixel units, where data lie in [-1, 1]; atol: the largest deviation of a
    consistent pixel, in the same units.
    """

    deviation: Float[Tensor, "B C H W"]
    atol: float

    @property
    def pixels(self) -> Bool[Tensor, "B H W"]:
        """Whether a pixel is consistent: no channel deviates by more than atol."""
        return self.deviation.amax(1) <= self.atol

    @property
    def share(self) -> Float64[Tensor, " B"]:
        """The share of consistent pixels of each image, 1 for a mosaic."""
        return self.pixels.double().mean((1, 2))

    @property
    def mean_deviation(self) -> Float64[Tensor, " B"]:
        """The mean of |x - centre| over pixels and channels of each image."""
        return self.deviation.double().mean((1, 2, 3))


def local_consistency(
    x: Float[Tensor, "B C H W"],
    data: Float[Tensor, "N C H W"] | Iterable[Tensor],
    window: int,
    border: str = "zeros",
    *,
    atol: float,
    labels: Int[Tensor, " N"] | None = None,
    classes: Int[Tensor, " B"] | None = None,
) -> Consistency:
    """Compare every pixel u of x with y(0), the centre of the patch y of the data with |Omega_u(x) - y| smallest.

    As the noise goes to 0, wherever the flow of a patch machine and its speed converge, the image has x(u) = y(0) at
    every pixel: it is locally consistent. A sampler that stops early, or takes long steps, leaves deviations.

    window: an odd number of pixels; border: one of those of `EquivariantLocal`, or "same" for the patches at the same
    place, those of `Local`; atol: at least 0, in pixel units; labels and classes: those of data and of x, to compare
    with patches of the same class only. Of equally near patches one counts. Images x in float32 on a processor are
    compared in compiled code.

    Raises ValueError for arguments other than these. Source: Kamb and Ganguli (2025), theorem 4.1.
    """
    _check_images(x)
    _check_consistency(window, border, atol, (labels is None) == (classes is None))
    if border == "same":
        machine = Local.fit(data, window, labels)
    else:
        machine = EquivariantLocal.fit(data, window, border, labels)
    machine = machine if classes is None else machine.given(classes)
    return Consistency((x - _centres(machine, x)).abs(), float(atol))


def _centres(machine: PatchMachine, x: Tensor) -> Float[Tensor, "B C H W"]:
    """The centres of the nearest patches; which those are depends on alpha = 1, and on no sigma."""
    nearest = machine.posterior(x, Noise(1.0, 1.0))
    image, row, column = (one.to(machine.data.device) for one in (nearest.image, nearest.row, nearest.column))
    return machine.data[image, :, row, column].movedim(-1, 1).to(x)


def _check_consistency(window: int, border: str, atol: float, labels_fit: bool) -> None:
    check_window(window)
    if border not in ("same", *BORDERS):
        raise ValueError(f"border is {border!r}, expected one of same, {', '.join(BORDERS)}.")
    if isinstance(atol, bool) or not isinstance(atol, Real) or not 0 <= atol < math.inf:
        raise ValueError(f"atol is {atol!r}, expected a finite number that is not negative, in units of the pixels.")
    if not labels_fit:
        raise ValueError("only one of labels and classes is given, expected the labels of data and the classes of x.")


def _check_images(x: Tensor) -> None:
    if not isinstance(x, Tensor) or x.ndim != 4 or len(x) == 0 or not x.is_floating_point():
        found = f"shape {tuple(x.shape)} and dtype {x.dtype}" if isinstance(x, Tensor) else f"type {type(x).__name__}"
        raise ValueError(f"x has {found}, expected floating images (B, C, H, W), at least one.")
    if not x.isfinite().all():
        raise ValueError("x holds NaN or infinite values; remove or repair those images first.")
