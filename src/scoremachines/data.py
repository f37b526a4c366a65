"""Image sets as tensors in [-1, 1], with a record of where they come from and of everything done to them.

`to_unit` and `from_unit` are the only functions that know the range; `load` is the only way in.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .files import contents, directories, extra, parse_cifar, parse_idx
from .photos import SIZES, STRIDE, patches
from .sources import SOURCES

SPLITS = ("train", "test", "all")
RESIZES = ("bilinear-float", "bilinear-uint8")
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
DIGITS_TRAIN = 1437  # the first 80 % of 1797, in the order of the file
SUFFIXES = {".jpg", ".jpeg", ".png"}


@dataclass(frozen=True, eq=False)
class Images:
    """A set of images with its provenance: x0 float32 (N, C, H, W) in [-1, 1], labels and regions int64 (N,).

    `sha256` is the hash of shape, pixels and labels as they are here; after "bilinear-float" it can depend on the
    processor, whose arithmetic rounds the last bit. `regions` numbers the part of a photograph that an image was
    cut from; it and `labels` are None where a set has none.
    """

    x0: Tensor = field(repr=False)
    labels: Tensor | None = field(repr=False)
    name: str
    split: str
    sha256: str
    count: int
    preprocessing: str
    regions: Tensor | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return self.count

    @property
    def provenance(self) -> dict[str, str]:
        """What to save beside anything computed from these images, as text."""
        names = ("name", "split", "sha256", "count", "preprocessing")
        return {name: str(getattr(self, name)) for name in names}


class Raw(NamedTuple):
    """What a reader hands over: uint8 batches (n, C, H, W), some or all in colour, and what it did to them."""

    batches: Iterable[Tensor]
    labels: Tensor | None
    side: int | None  # of the images; None where they differ
    colour: bool
    regions: Tensor | None = None
    white: int = 255
    notes: tuple[str, ...] = ()


def to_unit(pixels: Tensor, white: int = 255) -> Tensor:
    """Integer pixels as numbers in [-1, 1]: 2 pixels / white - 1, float32.

    Errors: ValueError when `pixels` is not uint8 or exceeds `white`.
    """
    if pixels.dtype != torch.uint8:
        raise ValueError(f"Pixels have dtype {pixels.dtype}; to_unit takes torch.uint8, from 0 to {white}.")
    if white < 255 and pixels.numel() and pixels.max() > white:
        raise ValueError(f"Pixels reach {pixels.max().item()}; to_unit was told that white is {white}.")
    return pixels.float().div_(white / 2).sub_(1)


def from_unit(x0: Tensor) -> Tensor:
    """Numbers in [-1, 1] as uint8 pixels: round(127.5 (x0 + 1)), clamped to 0..255; undoes `to_unit`.

    Errors: ValueError when `x0` is not of a floating dtype or holds NaN.
    """
    if not x0.is_floating_point():
        raise ValueError(f"Images have dtype {x0.dtype}; from_unit takes floating numbers in [-1, 1].")
    if x0.isnan().any():
        raise ValueError("Images hold NaN; from_unit takes numbers in [-1, 1], so remove the NaN first.")
    return ((x0 + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def load(
    name: str,
    split: str = "train",
    size: int | None = None,
    channels: int | None = None,
    resize: str = "bilinear-float",
) -> Images:
    """Load a set of SOURCES: digits, photos, mnist, fashion, cifar10 or celeba.

    `split` is train, test or all. `size` is the side of the images in pixels: for photos that of the patches
    (16 or 32), otherwise that to which `resize` brings them, with antialiasing where they shrink:
    "bilinear-float" interpolates the numbers in [-1, 1], "bilinear-uint8" the integers, with rounding.
    `channels` is 1 (ITU-R BT.601 luma of colour), 3 (grey repeated; for photos only those in colour), or None for
    the set's own. Files are looked for in $SCOREMACHINES_DATA, then the user's cache, then downloaded.
    Errors: ValueError (bad argument, damaged file), FileNotFoundError (no file), PermissionError (cache).
    """
    _check(name, split, size, channels, resize)
    channels = channels or SOURCES[name].shape[0]
    raw = READERS[name](split, size, channels)
    steps = _steps(raw, size, channels, resize)
    x0 = torch.cat([_apply(steps, batch) for batch in raw.batches]).clamp_(-1, 1)  # rounding can pass the ends
    _check_labels(name, raw.labels, len(x0))
    words = "; ".join([*raw.notes, *(word for word, _ in steps)])
    return Images(x0, raw.labels, name, split, _sha256(x0, raw.labels), len(x0), words, raw.regions)


def _check(name, split, size, channels, resize) -> None:
    _one_of("name", name, tuple(SOURCES))
    _one_of("split", split, SPLITS)
    _one_of("channels", channels, (None, 1, 3))
    _one_of("resize", resize, RESIZES)
    if size is not None and (type(size) is not int or size < 1):
        raise ValueError(f"size is {size!r}; expected a number of pixels, 1 or more.")
    if name == "photos":
        _one_of("size", size, (None, *SIZES))
    if name == "celeba" and size is None:
        raise ValueError("size is None; celeba has images of any size, so say the side to bring them to.")


def _one_of(argument: str, value, choices: tuple) -> None:
    if value not in choices:
        raise ValueError(f"{argument} is {value!r}; expected one of {', '.join(map(repr, choices))}.")


def _check_labels(name: str, labels: Tensor | None, count: int) -> None:
    if labels is None:
        return
    if len(labels) != count:
        raise ValueError(f"{name} has {len(labels)} labels for {count} images; expected one for each.")
    if not 0 <= labels.min() <= labels.max() <= 9:
        raise ValueError(f"{name} has labels from {labels.min()} to {labels.max()}; expected 0 to 9.")


def _sha256(x0: Tensor, labels: Tensor | None) -> str:
    digest = hashlib.sha256(str(tuple(x0.shape)).encode())
    for tensor in (x0, labels):
        if tensor is not None:
            digest.update(tensor.contiguous().numpy())
    return digest.hexdigest()


def _apply(steps, batch: Tensor) -> Tensor:
    for _, step in steps:
        batch = step(batch)
    return batch


def _steps(raw, size, channels, resize) -> list[tuple[str, Callable[[Tensor], Tensor]]]:
    """What is done to a batch of integer pixels, in order, each step with the words that say so."""
    steps = [(f"uint8 0..{raw.white} to [-1, 1]", lambda pixels: to_unit(pixels, raw.white))]
    if size not in (None, raw.side):
        change = [(f"{resize} to {size}x{size}, antialiased", lambda x: _resize(x, size))]
        steps = change + steps if resize == "bilinear-uint8" else steps + change
    if channels == 3 and not raw.colour:
        steps.append(("grey repeated in 3 channels", lambda x: x.expand(-1, 3, -1, -1)))
    if channels == 1 and raw.colour:
        steps.append(("ITU-R BT.601 luma of colour", _luma))
    return steps


def _resize(x: Tensor, size: int) -> Tensor:
    return interpolate(x, size=(size, size), mode="bilinear", antialias=True)


def _luma(x: Tensor) -> Tensor:
    if x.shape[1] == 1:
        return x
    return sum(weight * x[:, i : i + 1] for i, weight in enumerate(LUMA))


def _digits(split: str, size, channels) -> Raw:
    bunch = extra("sklearn.datasets").load_digits()
    part = _part(split, DIGITS_TRAIN)
    pixels = torch.tensor(bunch.images[part, None].astype(np.uint8))
    notes = (f"first {DIGITS_TRAIN} of {len(bunch.images)} for training, the others for testing",)
    return Raw([pixels], torch.tensor(bunch.target[part]).long(), 8, False, white=16, notes=notes)


def _photos(split: str, size, channels) -> Raw:
    size = size or SIZES[0]
    pairs = [pair for part in _parts(split) for pair in patches(size, part, colour=channels == 3)]
    batches = [torch.tensor(cut) for _, cut in pairs]
    labels, regions = (
        torch.cat([torch.full((len(cut),), getattr(region, key)) for region, cut in pairs])
        for key in ("photograph", "index")
    )
    notes = (f"{size}x{size} patches, stride {STRIDE} in training regions and {size} in test regions",)
    return Raw(batches, labels, size, True, regions, notes=notes)


def _idx(name: str, split: str, size, channels) -> Raw:
    arrays = [torch.tensor(parse_idx(raw, file.name)) for file, raw in _contents(name, split)]
    return Raw([images[:, None] for images in arrays[::2]], torch.cat(arrays[1::2]).long(), 28, False)


def _cifar10(split: str, size, channels) -> Raw:
    read = [(file, *parse_cifar(raw, file.name)) for file, raw in _contents("cifar10", split)]
    whole = SOURCES["cifar10"].train + SOURCES["cifar10"].test
    notes = [f"first {len(labels)} test images only" for file, _, labels in read if file not in whole]
    labels = torch.cat([torch.tensor(labels) for _, _, labels in read]).long()
    return Raw([torch.tensor(images) for _, images, _ in read], labels, 32, True, notes=tuple(notes))


def _celeba(split: str, size, channels) -> Raw:
    folder = _celeba_folder()
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    chosen = paths[_part(split, len(paths) * 9 // 10)]
    if not chosen:
        found = f"{folder} holds {len(paths)} images ({', '.join(sorted(SUFFIXES))})"
        raise FileNotFoundError(f"{found}, none for the split {split!r}; put the images of CelebA there.")
    notes = ("sorted by name, first 90 % for training, the others for testing", "central square")
    return Raw((_central_square(path) for path in chosen), None, None, True, notes=notes)


def _celeba_folder() -> Path:
    folders = [directory / "celeba" for directory in directories()]
    for folder in folders:
        if folder.is_dir():
            return folder
    looked = " or ".join(map(str, folders))
    advice = "put the images into a folder celeba and set SCOREMACHINES_DATA to the folder that holds it"
    raise FileNotFoundError(f"CelebA is not at {looked} and is not downloaded, because of its terms; {advice}.")


def _central_square(path: Path) -> Tensor:
    """The largest central square of an image file, uint8 (1, 3, S, S)."""
    image = extra("PIL.Image")
    try:
        with image.open(path) as opened:
            pixels = torch.tensor(np.array(opened.convert("RGB"))).permute(2, 0, 1)
    except (OSError, SyntaxError, image.DecompressionBombError) as error:
        raise ValueError(f"{path} is no readable image ({error}); replace it or remove it.") from error
    height, width = pixels.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[None, :, top : top + side, left : left + side]


def _contents(name: str, split: str):
    source = SOURCES[name]
    return contents(source, tuple(file for part in _parts(split) for file in getattr(source, part)))


def _parts(split: str) -> tuple[str, ...]:
    return SPLITS[:2] if split == "all" else (split,)


def _part(split: str, train: int) -> slice:
    return {"train": slice(None, train), "test": slice(train, None), "all": slice(None)}[split]


READERS = {
    "digits": _digits,
    "photos": _photos,
    "mnist": partial(_idx, "mnist"),
    "fashion": partial(_idx, "fashion"),
    "cifar10": _cifar10,
    "celeba": _celeba,
}
