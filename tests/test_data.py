"""Data sets: the range, the splits, provenance, the readers of original files, and every refusal."""

import dataclasses
import gc
import gzip
import hashlib
import http.server
import io
import lzma
import os
import socket
import sys
import tarfile
import threading
import tracemalloc

import numpy as np
import pooch
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from sklearn.datasets import load_digits

from scoremachines import data
from scoremachines.files import CIFAR_RECORD, content, parse_cifar, parse_idx
from scoremachines.photos import BLOCK, COLOUR, PHOTOGRAPHS, corners, photographs, regions
from scoremachines.sources import SOURCES, Download, File

REAL = os.environ.get("SCOREMACHINES_DATA")


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    """An empty data directory and an empty cache, without a network."""
    monkeypatch.setenv("SCOREMACHINES_DATA", str(tmp_path / "home"))
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    monkeypatch.setattr(socket, "getaddrinfo", _unreachable)
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def _unreachable(*args, **kwargs):
    raise socket.gaierror("no network")


def _file(name, raw, **more) -> File:
    return File(name, len(raw), hashlib.sha256(raw).hexdigest(), **more)


def _idx(array) -> bytes:
    axes = b"".join(length.to_bytes(4, "big") for length in array.shape)
    return bytes([0, 0, 8, array.ndim]) + axes + array.tobytes()


def _records(count, seed=0) -> np.ndarray:
    records = np.random.default_rng(seed).integers(0, 256, (count, CIFAR_RECORD), dtype=np.uint8)
    records[:, 0] %= 10
    return records


def _tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, raw in members.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    return buffer.getvalue()


PACKERS = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}
TRAIN, TEST = _records(7).tobytes(), _records(4, seed=1).tobytes()
ARCHIVE = _tar({"readme.html": b"words", "data_batch_1.bin": TRAIN, "test_batch.bin": TEST})


@pytest.fixture
def cifar(monkeypatch):
    """A CIFAR-10 of eleven images, whose test set may hold its first two only."""
    download = Download("http://localhost/cifar-10-binary.tar.gz", len(ARCHIVE), hashlib.sha256(ARCHIVE).hexdigest())
    partial = _file("test_batch_first2.bin", TEST[: 2 * CIFAR_RECORD])
    small = dataclasses.replace(
        SOURCES["cifar10"],
        train=(_file("data_batch_1.bin", TRAIN, download=download),),
        test=(_file("test_batch.bin", TEST, download=download, partial=partial),),
    )
    monkeypatch.setitem(SOURCES, "cifar10", small)
    return small


@pytest.fixture
def mnist(monkeypatch, home):
    """A function that installs an MNIST with the given labels and one random image for each of `count`."""

    def install(labels, count):
        images = np.random.default_rng(0).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        files = [("images-idx3", _idx(images)), ("labels-idx1", _idx(np.array(labels, np.uint8)))]
        for name, raw in files:
            (home / f"{name}.gz").write_bytes(gzip.compress(raw))
        train = tuple(_file(name, raw) for name, raw in files)
        monkeypatch.setitem(SOURCES, "mnist", dataclasses.replace(SOURCES["mnist"], train=train))
        return images

    return install


def _refusal(kind, call, *words) -> None:
    """The call raises `kind` with one sentence that holds all the words."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert message.endswith(".")
    assert ". " not in message
    assert "\n" not in message
    for word in words:
        assert str(word) in message


# The range


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_pixel_value_survives_the_round_trip(dtype):
    pixels = torch.arange(256, dtype=torch.uint8)
    unit = data.to_unit(pixels)
    assert unit.dtype == torch.float32
    assert (unit[0], unit[-1]) == (-1, 1)
    assert torch.equal(data.from_unit(unit.to(dtype)), pixels)


def test_from_unit_clamps_and_rounds():
    x0 = torch.tensor([-3.0, -1.0, 0.001, 1.0, 9.0, float("inf")])
    assert data.from_unit(x0).tolist() == [0, 0, 128, 255, 255, 255]


def test_range_functions_refuse_other_numbers():
    _refusal(ValueError, lambda: data.to_unit(torch.zeros(2)), "torch.float32", "torch.uint8")
    _refusal(ValueError, lambda: data.to_unit(torch.full((2,), 17, dtype=torch.uint8), white=16), 17, 16)
    _refusal(ValueError, lambda: data.from_unit(torch.zeros(2, dtype=torch.int64)), "torch.int64")
    _refusal(ValueError, lambda: data.from_unit(torch.tensor([0.0, float("nan")])), "NaN")


# Bundled sets


@pytest.mark.parametrize(
    "kwargs", [{"name": "digits"}, {"name": "photos"}, {"name": "photos", "channels": 3, "size": 32}]
)
def test_bundled_sets_keep_the_contract(kwargs):
    train, test, everything = (data.load(split=split, **kwargs) for split in data.SPLITS)
    for images in (train, test, everything):
        assert images.x0.dtype == torch.float32
        assert images.x0.isfinite().all()
        assert images.x0.min() >= -1
        assert images.x0.max() <= 1
        assert images.labels.dtype == torch.int64
        assert len(images) == images.count == len(images.x0) == len(images.labels)
    assert torch.equal(torch.cat([train.x0, test.x0]), everything.x0)
    assert torch.equal(torch.cat([train.labels, test.labels]), everything.labels)
    assert len({train.sha256, test.sha256, everything.sha256}) == 3
    assert data.load(split="train", **kwargs).sha256 == train.sha256


def test_digits_are_the_bundled_ones():
    bunch, images = load_digits(), data.load("digits", split="all")
    assert torch.equal((images.x0[:, 0] + 1) * 8, torch.tensor(bunch.images, dtype=torch.float32))
    assert images.labels.tolist() == bunch.target.tolist()
    assert (len(data.load("digits")), len(data.load("digits", split="test"))) == (1437, 360)


def test_the_hash_is_of_what_is_there():
    images = data.load("digits", split="test")
    raw = b"(360, 1, 8, 8)" + images.x0.numpy().tobytes() + images.labels.numpy().tobytes()
    assert images.sha256 == hashlib.sha256(raw).hexdigest()


def test_the_record_is_frozen_and_tells_its_provenance():
    images = data.load("digits", size=16)
    with pytest.raises(dataclasses.FrozenInstanceError):
        images.count = 3
    assert images.provenance["count"] == "1437"
    assert set(map(type, images.provenance.values())) == {str}
    assert "bilinear-float to 16x16" in images.provenance["preprocessing"]
    assert "tensor" not in repr(images)


# Photographs


def _coverage(split: str, size: int) -> list[np.ndarray]:
    """How many patches of a split cover each pixel, photograph by photograph."""
    shapes = [image.shape[:2] for image in photographs()]
    covered = [np.zeros(shape, int) for shape in shapes]
    for region in regions(shapes):
        if region.split == split:
            for y, x in corners(region, size):
                covered[region.photograph][y : y + size, x : x + size] += 1
    return covered


@pytest.mark.parametrize("size", [16, 32])
def test_no_pixel_is_tested_twice_or_trained_and_tested(size):
    for train, test in zip(_coverage("train", size), _coverage("test", size), strict=True):
        assert test.max() == 1
        assert train.max() > 1
        assert not np.logical_and(train, test).any()


@given(st.lists(st.tuples(st.integers(1, 700), st.integers(1, 700)), min_size=1, max_size=4))
def test_regions_are_disjoint_blocks_inside_their_photograph(shapes):
    found = regions(shapes)
    assert [region.index for region in found] == list(range(len(found)))
    assert len({region[:1] + region[2:4] for region in found}) == len(found)
    for region in found:
        height, width = shapes[region.photograph]
        assert region.top % BLOCK == region.left % BLOCK == 0
        assert region.top + BLOCK <= height
        assert region.left + BLOCK <= width


@pytest.mark.parametrize("channels", [1, 3])
def test_test_patches_put_their_region_together_again(channels):
    images, pictures = data.load("photos", split="test", channels=channels), photographs()
    for region in regions([picture.shape[:2] for picture in pictures])[-60:]:  # those of the last, in colour
        patches = images.x0[images.regions == region.index]
        if region.split == "train":
            assert len(patches) == 0
            continue
        block = pictures[region.photograph][region.top : region.top + BLOCK, region.left : region.left + BLOCK]
        mosaic = patches.reshape(4, 4, channels, 16, 16).permute(2, 0, 3, 1, 4).reshape(channels, BLOCK, BLOCK)
        weights = np.array([[0.299, 0.587, 0.114]]) if channels == 1 else np.eye(3)
        expected = np.einsum("cd,yxd->cyx", weights, block / 127.5 - 1)
        torch.testing.assert_close(mosaic, torch.tensor(expected, dtype=torch.float32))


def test_photos_know_their_photograph_and_their_region():
    train, test = data.load("photos"), data.load("photos", split="test")
    assert (len(train), len(test)) == (249 * 49, 63 * 16)
    assert set(train.labels.tolist()) == set(range(len(PHOTOGRAPHS)))
    assert not set(train.regions.tolist()) & set(test.regions.tolist())
    assert train.regions.unique().numel() == 249
    colour = data.load("photos", size=32, channels=3)
    assert colour.x0.shape[1:] == (3, 32, 32)
    assert {PHOTOGRAPHS[label] for label in colour.labels.tolist()} == set(COLOUR)
    assert set(colour.regions.tolist()) <= set(train.regions.tolist())


# Size and channels


@pytest.mark.parametrize("size", [16, 32, 64])
def test_integer_resizing_is_that_of_pillow(mnist, size):
    pixels = mnist([1, 2, 3], 3)
    images = data.load("mnist", size=size, resize="bilinear-uint8")
    reference = [np.array(Image.fromarray(image).resize((size, size), Image.BILINEAR)) for image in pixels]
    difference = data.from_unit(images.x0[:, 0]).int() - torch.tensor(np.stack(reference)).int()
    assert difference.abs().max() <= 1


def test_the_two_resizings_differ_by_rounding_only(mnist):
    mnist([1, 2], 2)
    smooth, rounded = (data.load("mnist", size=32, resize=resize) for resize in data.RESIZES)
    difference = (smooth.x0 - rounded.x0).abs().max() * 127.5
    assert 0.1 < difference <= 1
    assert smooth.preprocessing != rounded.preprocessing
    assert smooth.x0.abs().max() <= 1


def test_own_size_leaves_the_pixels_alone():
    assert data.load("digits", size=8).sha256 == data.load("digits").sha256


def test_grey_repeated_has_itself_as_luma(cifar, home):
    grey, colour = data.load("digits"), data.load("digits", channels=3)
    assert torch.equal(colour.x0, grey.x0.repeat(1, 3, 1, 1))
    (home / "data_batch_1.bin").write_bytes(TRAIN)
    native, luma = data.load("cifar10"), data.load("cifar10", channels=1)
    red, green, blue = native.x0.double().unbind(1)
    torch.testing.assert_close(luma.x0[:, 0], (0.299 * red + 0.587 * green + 0.114 * blue).float())
    assert "601" in luma.preprocessing


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"name": "imagenet"}, ["imagenet", "digits"]),
        ({"name": "digits", "split": "val"}, ["val", "train"]),
        ({"name": "digits", "size": 0}, ["size is 0"]),
        ({"name": "digits", "size": 8.0}, ["size is 8.0"]),
        ({"name": "digits", "channels": 2}, ["channels is 2"]),
        ({"name": "digits", "resize": "nearest"}, ["nearest", "bilinear-float"]),
        ({"name": "photos", "size": 24}, ["size is 24", "16", "32"]),
        ({"name": "celeba"}, ["size is None", "celeba"]),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(kwargs, words):
    _refusal(ValueError, lambda: data.load(**kwargs), *words)


# Parsers


@given(arrays(np.uint8, array_shapes(max_dims=3, max_side=6)))
def test_idx_is_read_as_it_was_written(array):
    assert np.array_equal(parse_idx(_idx(array), "some-file"), array)


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b"", "starts with"),
        (b"\x1f\x8b\x08\x00", "1f8b0800"),
        (b"\0\0\x0d\x01\0\0\0\x01aaaa", "00000d01"),
        (b"\0\0\x08\x03\0\0\0\x05", "header"),
        (_idx(np.zeros((3, 4), np.uint8))[:-1], "(3, 4)"),
        (_idx(np.zeros((3, 4), np.uint8)) + b"x", "(3, 4)"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "4294967295"),
    ],
)
def test_damaged_idx_is_refused(raw, word):
    _refusal(ValueError, lambda: parse_idx(raw, "some-file"), "some-file", word)


def test_cifar_records_are_read_as_they_were_written():
    records = _records(5)
    images, labels = parse_cifar(records.tobytes(), "batch")
    assert np.array_equal(labels, records[:, 0])
    assert np.array_equal(images[:, 1, 2, 3], records[:, 1 + 1024 + 2 * 32 + 3])
    for raw in (b"", records.tobytes()[:-1]):
        _refusal(ValueError, lambda raw=raw: parse_cifar(raw, "batch"), "batch", CIFAR_RECORD)


# Files


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("folder", ["cifar-10", "cifar-10-batches-bin", "."])
def test_batches_are_read_in_every_form_and_place(cifar, home, folder, suffix):
    (home / folder).mkdir(exist_ok=True)
    for file, raw in ((cifar.train[0], TRAIN), (cifar.test[0], TEST)):
        (home / folder / (file.name + suffix)).write_bytes(PACKERS[suffix](raw))
    images = data.load("cifar10", split="all")
    assert torch.equal(
        data.from_unit(images.x0).flatten(1), torch.tensor(np.concatenate([_records(7), _records(4, 1)]))[:, 1:]
    )
    assert images.labels.tolist() == [*_records(7)[:, 0], *_records(4, 1)[:, 0]]


def test_the_archive_is_read_and_nothing_is_extracted(cifar, home):
    (home / "cifar-10-binary.tar.gz").write_bytes(ARCHIVE)
    assert len(data.load("cifar10", split="all")) == 11
    assert [path.name for path in home.rglob("*")] == ["cifar-10-binary.tar.gz"]


def test_a_forged_archive_is_refused(cifar, home):
    (home / "cifar-10-binary.tar.gz").write_bytes(_tar({"data_batch_1.bin": TRAIN}))
    _refusal(ValueError, lambda: data.load("cifar10"), "cifar-10-binary.tar.gz", len(ARCHIVE), "SHA-256")


def test_an_archive_without_the_file_is_refused(tmp_path):
    path = tmp_path / "some.tar.gz"
    path.write_bytes(ARCHIVE)
    _refusal(ValueError, lambda: content(_file("other.bin", TRAIN), path), path, "no member other.bin")


def test_the_partial_test_set_is_accepted_and_says_so(cifar, home):
    (home / "test_batch_first2.bin.xz").write_bytes(lzma.compress(TEST[: 2 * CIFAR_RECORD]))
    images = data.load("cifar10", split="test")
    assert images.count == 2
    assert "first 2 test images only" in images.preprocessing
    (home / "test_batch.bin").write_bytes(TEST)
    assert data.load("cifar10", split="test").count == 4


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda raw: raw[:-5], f"{len(TRAIN) - 5} bytes"),
        (lambda raw: raw + b"x", "more than"),
        (lambda raw: raw[::-1], "SHA-256"),
    ],
)
def test_wrong_content_is_refused(cifar, home, suffix, spoil, word):
    path = home / f"data_batch_1.bin{suffix}"
    path.write_bytes(PACKERS[suffix](spoil(TRAIN)))
    _refusal(ValueError, lambda: data.load("cifar10"), path, word, "expected", cifar.train[0].sha256)


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
@pytest.mark.parametrize(
    "spoil", [lambda raw: raw[: len(raw) // 2], lambda raw: b"no archive", lambda raw: raw[:40] + b"!" * 9 + raw[49:]]
)
def test_damaged_compression_is_refused(cifar, home, suffix, spoil):
    path = home / f"data_batch_1.bin{suffix}"
    path.write_bytes(spoil(PACKERS[suffix](TRAIN)))
    _refusal(ValueError, lambda: data.load("cifar10"), path, "expected", cifar.train[0].sha256)


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_decompression_is_bounded(tmp_path, suffix):
    path = tmp_path / f"bomb{suffix}"
    path.write_bytes(PACKERS[suffix](bytes(40_000_000)))
    tracemalloc.start()
    _refusal(ValueError, lambda: content(_file("bomb", b"few"), path), path, "more than 3 bytes")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16_000_000  # xz keeps a dictionary of 8 MB


def test_labels_are_checked(mnist):
    mnist([1, 2], 3)
    _refusal(ValueError, lambda: data.load("mnist"), "2 labels", "3 images")
    mnist([1, 2, 10], 3)
    _refusal(ValueError, lambda: data.load("mnist"), "labels from 1 to 10")
    mnist([1, 2, 9], 3)
    assert data.load("mnist").labels.tolist() == [1, 2, 9]


@pytest.mark.parametrize("name", ["mnist", "fashion", "cifar10"])
def test_missing_files_without_a_network_are_explained(name, home, tmp_path):
    wanted = SOURCES[name].train[0]
    words = [wanted.name, home, tmp_path / "cache", wanted.download.url, "SCOREMACHINES_DATA"]
    _refusal(FileNotFoundError, lambda: data.load(name), *words)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_an_unwritable_cache_is_explained(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    _refusal(PermissionError, lambda: data.load("mnist"), tmp_path / "cache", "SCOREMACHINES_DATA")
    assert (tmp_path / "cache").read_text() == "a file where the folder should be"


def test_a_data_directory_that_is_none_is_explained(monkeypatch, tmp_path):
    monkeypatch.setenv("SCOREMACHINES_DATA", str(tmp_path / "absent"))
    _refusal(FileNotFoundError, lambda: data.load("mnist"), tmp_path / "absent")


@pytest.mark.parametrize(("module", "name"), [("pooch", "mnist"), ("sklearn.datasets", "digits"), ("PIL", "photos")])
def test_a_missing_extra_is_named(monkeypatch, module, name):
    monkeypatch.setitem(sys.modules, module, None)
    _refusal(ModuleNotFoundError, lambda: data.load(name), module.split(".")[0], "scoremachines[data]")


def test_files_at_hand_need_no_extra(monkeypatch, cifar, home):
    (home / "data_batch_1.bin").write_bytes(TRAIN)
    monkeypatch.setitem(sys.modules, "pooch", None)
    assert data.load("cifar10").count == 7


@pytest.fixture
def served(monkeypatch, cifar, tmp_path):
    """A function that serves bytes as the archive of CIFAR-10 from this machine."""
    monkeypatch.undo()  # a network, but only to a server of our own, and a private cache
    monkeypatch.setenv("SCOREMACHINES_DATA", "")
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    (tmp_path / "www").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=tmp_path / "www")

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/cifar-10-binary.tar.gz"
    moved = dataclasses.replace(cifar.train[0].download, url=url)
    train = (dataclasses.replace(cifar.train[0], download=moved),)
    monkeypatch.setitem(SOURCES, "cifar10", dataclasses.replace(cifar, train=train))
    yield tmp_path / "www" / "cifar-10-binary.tar.gz"
    server.shutdown()
    server.server_close()


def test_downloads_are_kept_in_the_cache(served, tmp_path):
    served.write_bytes(ARCHIVE)
    first = data.load("cifar10")
    served.unlink()  # the second time nothing is downloaded
    assert data.load("cifar10").sha256 == first.sha256
    kept = tmp_path / "cache" / "scoremachines" / "cifar-10" / "cifar-10-binary.tar.gz"
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == [kept]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # pooch leaves the connection of a refused request open
def test_a_wrong_download_leaves_nothing_behind(served, tmp_path):
    served.write_bytes(ARCHIVE[:-9])
    _refusal(ValueError, lambda: data.load("cifar10"), "127.0.0.1", "SHA-256")
    served.unlink()
    _refusal(FileNotFoundError, lambda: data.load("cifar10"), "cannot be downloaded")
    gc.collect()
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


# A folder of images


@pytest.fixture
def faces(home):
    """Twenty made-up images of different shapes whose central square alone is not black."""
    (home / "celeba").mkdir()
    for i in range(20):
        height, width = (40 + i, 30) if i % 2 else (30, 40 + i)
        pixels = np.zeros((height, width, 3), np.uint8)
        top, left = (height - 30) // 2, (width - 30) // 2
        pixels[top : top + 30, left : left + 30] = (10 * i + 20, 100, 200)
        Image.fromarray(pixels).save(home / "celeba" / f"{i:06}.{'png' if i % 3 else 'PNG'}")
    (home / "celeba" / "readme.txt").write_text("not an image")
    return home / "celeba"


@pytest.mark.parametrize("resize", data.RESIZES)
def test_a_folder_is_cropped_sorted_and_split(faces, resize):
    train, test = (data.load("celeba", split=split, size=16, resize=resize) for split in ("train", "test"))
    assert (len(train), len(test), train.labels) == (18, 2, None)
    pixels = data.from_unit(torch.cat([train.x0, test.x0]))
    expected = torch.tensor([[10 * i + 20, 100, 200] for i in range(20)], dtype=torch.uint8)
    assert torch.equal(pixels, expected[:, :, None, None].expand(-1, -1, 16, 16))
    assert "central square" in train.preprocessing
    assert data.load("celeba", size=16, channels=1).x0.shape == (18, 1, 16, 16)


def test_a_broken_image_is_named(faces):
    path = faces / "000004.png"
    path.write_bytes(path.read_bytes()[:60])
    _refusal(ValueError, lambda: data.load("celeba", size=16), path)


def test_missing_faces_are_explained(home, tmp_path):
    _refusal(FileNotFoundError, lambda: data.load("celeba", size=16), home / "celeba", tmp_path / "cache")
    (home / "celeba").mkdir()
    _refusal(FileNotFoundError, lambda: data.load("celeba", size=16), home / "celeba", "0 images")
    Image.new("RGB", (9, 9)).save(home / "celeba" / "only.png")
    _refusal(FileNotFoundError, lambda: data.load("celeba", size=16), "1 images", "train")
    assert len(data.load("celeba", size=16, split="test")) == 1


# The table, and the real files where there are any


def test_the_table_is_complete():
    for source in SOURCES.values():
        assert all((source.title, source.origin, source.terms, source.cite))
        for file in source.train + source.test:
            assert source.folders
            for known in filter(None, (file, file.download, file.partial)):
                assert int(known.sha256, 16).bit_length() <= 256
                assert len(known.sha256) == 64
                assert known.size > 0
            assert file.download.url.startswith("http")
    hashes = [file.sha256 for source in SOURCES.values() for file in source.train + source.test]
    assert len(set(hashes)) == len(hashes)


@pytest.mark.skipif(not REAL, reason="SCOREMACHINES_DATA is not set")
@pytest.mark.parametrize(
    ("name", "split", "mean", "std"),
    [
        ("mnist", "train", [0.1307], [0.3081]),
        ("fashion", "train", [0.2860], [0.3530]),
        ("cifar10", "train", [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
        ("cifar10", "test", None, None),
    ],
)
def test_real_files_have_the_published_moments(monkeypatch, name, split, mean, std):
    monkeypatch.setenv("SCOREMACHINES_DATA", REAL)
    images = data.load(name, split=split)
    assert images.count in {"train": [60000, 50000], "test": [10000, 1000]}[split]
    assert images.labels.bincount().numel() == 10
    if mean:
        unit = (images.x0 + 1) / 2
        torch.testing.assert_close(unit.mean((0, 2, 3)), torch.tensor(mean), atol=1e-4, rtol=0)
        torch.testing.assert_close(unit.std((0, 2, 3)), torch.tensor(std), atol=1e-4, rtol=0)
