"""Windows: how far a patch machine looks around a pixel, as a function of the noise.

A window is an odd number of pixels, 2p + 1: a pixel sees the square that reaches p pixels in each direction. Much noise
asks for a large window and little noise for a small one. A table says which, in terms of the log signal-to-noise ratio

    log snr = 2 log(alpha / sigma),

the same number on every schedule, so that one table serves them all.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Self

from .noise import Noise, cosine_legacy


@dataclass(frozen=True)
class WindowTable:
    """A window for each of some noise levels; between them the nearest entry counts.

    log_snr: log signal-to-noise ratios, finite and all different, in any order; windows: as many odd numbers of pixels.
    Raises ValueError for anything else.
    """

    log_snr: tuple[float, ...]
    windows: tuple[int, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.log_snr, tuple) or not isinstance(self.windows, tuple):
            kinds = f"{type(self.log_snr).__name__} and {type(self.windows).__name__}"
            raise ValueError(f"log_snr and windows are of type {kinds}, expected two tuples.")
        if len(self.log_snr) != len(self.windows) or not self.windows:
            raise ValueError(
                f"log_snr has {len(self.log_snr)} entries and windows has {len(self.windows)}, expected equally many, "
                "at least one."
            )
        for entry in self.log_snr:
            if isinstance(entry, bool) or not isinstance(entry, Real) or not math.isfinite(entry):
                raise ValueError(f"log_snr holds {entry!r}, expected finite numbers.")
        if len(set(self.log_snr)) < len(self.log_snr):
            raise ValueError("log_snr holds a number twice, so two windows claim one level; expected each once.")
        for window in self.windows:
            check_window(window)

    @classmethod
    def of(cls, levels: Sequence[Noise], windows: Iterable[int]) -> Self:
        """Return the table that has windows[k] at levels[k], each one number for alpha and sigma, both above 0."""
        return cls(tuple(map(_finite_log_snr, levels)), tuple(windows))

    def at(self, log_snr: float) -> int:
        """Return the window of the nearest entry; of two equally near ones, that of the noisier.

        Beyond the table its last entry counts, also at -inf, where alpha is 0, and at inf, where sigma is 0. Raises
        ValueError for NaN.

        >>> table = WindowTable((4.0, 0.0, -4.0), (3, 7, 15))
        >>> table.at(3.0), table.at(2.0), table.at(-math.inf)
        (3, 7, 15)
        """
        if math.isnan(log_snr):
            raise ValueError("log_snr is NaN, expected a number.")
        within = min(max(log_snr, min(self.log_snr)), max(self.log_snr))  # an infinite distance would tie with all
        nearest = min(self.log_snr, key=lambda entry: (abs(entry - within), entry))
        return self.windows[self.log_snr.index(nearest)]


def check_window(window: int) -> None:
    """Raise ValueError unless window is an odd int, at least 1."""
    if type(window) is not int or window < 1 or window % 2 == 0:
        raise ValueError(f"window is {window!r}, expected an odd whole number of pixels, at least 1.")


def log_snr(noise: Noise) -> float:
    """Return 2 log(alpha / sigma): -inf where alpha is 0, inf where sigma is 0.

    Raises ValueError unless noise is a Noise whose alpha and sigma are one number each.
    """
    if not isinstance(noise, Noise):
        raise ValueError(f"a level is of type {type(noise).__name__}, expected a Noise(alpha, sigma).")
    for name, value in (("alpha", noise.alpha), ("sigma", noise.sigma)):
        if not isinstance(value, Real) and value.numel() != 1:
            raise ValueError(f"{name} of a level has shape {tuple(value.shape)}, expected one number.")
    alpha, sigma = float(noise.alpha), float(noise.sigma)
    if alpha == 0 or sigma == 0:
        return math.inf if alpha else -math.inf
    return 2 * (math.log(alpha) - math.log(sigma))  # the quotient itself can overflow


def _finite_log_snr(noise: Noise) -> float:
    found = log_snr(noise)
    if math.isinf(found):
        name = "sigma" if found > 0 else "alpha"
        raise ValueError(f"{name} is 0 at a level, where log snr is infinite; expected alpha and sigma above 0.")
    return found


# Published tables ---------------------------------------------------------------------------------------------------

STEPS = 20

# Windows with which local equivariant machines match trained networks, released with Kamb and Ganguli (2025): a file of
# 20 numbers for each network, the least noisy first. Names: images, network, padding of its convolutions. The networks
# of CIFAR-10 and FashionMNIST are class-conditional; all images have 32 x 32 pixels. The file for the UNet on CelebA,
# which the local machine without equivariance matches best, does not say which machine it is for.
PUBLISHED: dict[str, tuple[int, ...]] = {
    "cifar10-resnet-zeros": (3, 3, 3, 3, 5, 5, 5, 7, 7, 7, 7, 9, 9, 11, 11, 13, 15, 17, 17, 17),
    "cifar10-resnet-circular": (3, 3, 3, 3, 5, 5, 5, 5, 7, 7, 7, 9, 9, 11, 11, 13, 13, 15, 15, 15),
    "cifar10-unet-zeros": (3, 3, 3, 3, 5, 5, 5, 5, 7, 7, 7, 7, 9, 9, 11, 13, 13, 15, 17, 25),
    "fashion-resnet-zeros": (3, 3, 5, 5, 7, 7, 9, 9, 9, 11, 11, 11, 13, 13, 13, 15, 15, 15, 17, 17),
    "fashion-unet-zeros": (3, 3, 5, 5, 7, 7, 7, 9, 11, 11, 11, 13, 15, 15, 21, 23, 25, 25, 25, 25),
    "mnist-resnet-zeros": (3, 3, 5, 5, 5, 7, 7, 7, 9, 9, 11, 11, 11, 11, 13, 15, 15, 15, 15, 15),
    "mnist-resnet-circular": (3, 3, 5, 5, 5, 7, 7, 9, 9, 9, 11, 11, 11, 11, 9, 9, 7, 7, 3, 3),
    "mnist-unet-zeros": (3, 3, 3, 5, 5, 7, 7, 7, 9, 9, 9, 11, 13, 15, 17, 21, 23, 23, 25, 27),
    "celeba-resnet-zeros": (3, 3, 3, 5, 5, 5, 5, 5, 7, 7, 9, 9, 9, 11, 11, 11, 13, 15, 19, 19),
    "celeba-unet-zeros": (3, 3, 3, 3, 3, 3, 3, 5, 5, 5, 5, 5, 7, 7, 9, 9, 9, 13, 19, 27),
}


def published(name: str, index: str = "sampled", schedule: Callable[[float], Noise] = cosine_legacy) -> WindowTable:
    """Return a table of `PUBLISHED`, windows w_0 ... w_19 on the grid t = i / 20 of a schedule.

    There are two readings of which window belongs to which time.

        "calibrated"    w_(i - 1) at t = i / 20, i = 1 ... 20      as the public calibration stores them
        "sampled"       w_i       at t = i / 20, i = 1 ... 19      as the public sampler looks them up

    As "sampled", every level has the window that was calibrated one step noisier, and w_0 is not used. Take it to do as
    the public sampler does, and "calibrated" for the windows that matched the network best. The windows were found on
    `cosine_legacy`; on another schedule the same t is another signal-to-noise ratio.

    Raises ValueError for an unknown name or index, and where alpha or sigma is 0 at one of the times.
    Source: Kamb and Ganguli (2025), appendix C.2 and the released files.
    """
    if name not in PUBLISHED:
        raise ValueError(f"name is {name!r}, expected one of {', '.join(PUBLISHED)}.")
    if index not in ("calibrated", "sampled"):
        raise ValueError(f'index is {index!r}, expected "calibrated" or "sampled".')
    windows = PUBLISHED[name][1:] if index == "sampled" else PUBLISHED[name]
    return WindowTable.of([schedule(i / STEPS) for i in range(1, len(windows) + 1)], windows)
