"""The patch machines against explicit lists of patches, their exact limits, their by-products and their refusals."""

import math
from dataclasses import fields
from functools import cache
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from scoremachines import Equivariant, EquivariantLocal, Ideal, Local, Noise, edm
from scoremachines.windows import WindowTable
from tests.conftest import noisy, patch_machine, pictures, refused, seeded, shifts

BORDERS = ("same", "zeros", "interior", "circular")
WRAPPED = ("interior", "circular")
DTYPES = (torch.float32, torch.float64)
CLOSE = {torch.float32: {"rtol": 1e-5, "atol": 1e-5}, torch.float64: {"rtol": 1e-10, "atol": 1e-10}}
ROOT = {torch.float32: {"rtol": 1e-5, "atol": 1e-3}, torch.float64: {"rtol": 1e-10, "atol": 1e-7}}  # of a small square
LEVELS = (Noise(0.8, 0.6), Noise(1.0, 0.25), Noise(1.0, 3.0), Noise(0.1, 1.0))

every_border = pytest.mark.parametrize("border", BORDERS)
both_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


# The oracle: every patch by name ----------------------------------------------------------------------------------


def windows_of(images, p, wrap):
    """The windows (N, H, W, D) around every pixel of images that are periodic, or zero outside."""
    N, C, H, W = images.shape
    large = images.new_zeros(N, C, H + 2 * p, W + 2 * p)
    for i, j in product(range(-p, H + p), range(-p, W + p)):
        if wrap or (0 <= i < H and 0 <= j < W):
            large[:, :, i + p, j + p] = images[:, :, i % H, j % W]
    return large.unfold(2, 2 * p + 1, 1).unfold(3, 2 * p + 1, 1).permute(0, 2, 3, 1, 4, 5).flatten(3)


def places(i, length, p, border):
    """Where, along one axis, the dictionary patches of pixel i have their centres."""
    inside = list(range(p, length - p))  # windows that do not reach beyond the border
    found = {"same": [i], "interior": inside, "circular": list(range(length))}
    return torch.tensor(found.get(border, inside if i in inside else [i]))


def pairs(x, alpha, data, window, border, members=None):
    """For every pixel (b, i, j), the places (n, row, column) of its dictionary and the squared distances to them."""
    x, data, p = x.double(), data.double(), window // 2
    queries, patches = windows_of(x, p, border in WRAPPED), windows_of(data, p, border == "circular")
    B, H, W, _ = queries.shape
    for b, i, j in product(range(B), range(H), range(W)):
        images = torch.arange(len(data)) if members is None else members[b]
        at = torch.cartesian_prod(images, places(i, H, p, border), places(j, W, p, border))
        yield (b, i, j), at, (queries[b, i, j] - alpha[b] * patches[tuple(at.T)]).square().sum(1)


def brute(x, noise, data, window, border, labels=None, given=None):
    """x0, entropy, distance, nearest source (image, row, column) and dictionary size, from the definitions only."""
    members = None if given is None else [(labels == label).nonzero()[:, 0] for label in given]
    alpha, sigma = (level.expand(len(x), 1, 1, 1).flatten() for level in noise.on(x.double()))
    planes = {name: torch.empty(len(x), *x.shape[2:]).double() for name in ("entropy", "distance", "dictionary")}
    x0, source = torch.empty_like(x).double(), torch.empty(len(x), *x.shape[2:], 3).long()
    for (b, i, j), at, square in pairs(x, alpha, data, window, border, members):
        weights = (-square / (2 * sigma[b] ** 2)).softmax(0)
        x0[b, :, i, j] = weights @ data[at[:, 0], :, at[:, 1], at[:, 2]].double()
        source[b, i, j] = at[square.argmin()]
        facts = torch.special.entr(weights).sum(), square.min().sqrt(), len(at)
        for plane, fact in zip(planes.values(), facts, strict=True):
            plane[b, i, j] = fact
    return SimpleNamespace(x0=x0, source=source, **planes)


def sources(found):
    return torch.stack([found.image, found.row, found.column], -1)


def agrees(found, oracle, dtype, x, noise, data, window, border):
    """Whether a posterior is that of the oracle; the nearest patch may be another one that is as near."""
    assert found.x0.dtype == dtype
    assert_close(found.x0.double(), oracle.x0, **CLOSE[dtype])
    scale = math.log(max(2, oracle.dictionary.max()))
    assert_close(found.entropy.double() / scale, oracle.entropy / scale, **CLOSE[dtype])
    assert_close(found.effective.double().log(), oracle.entropy, rtol=0, atol=10 * CLOSE[dtype]["atol"])
    assert_close(found.distance.double(), oracle.distance, **ROOT[dtype])
    if dtype == torch.float64:
        assert torch.equal(sources(found), oracle.source)
    assert_close(named_distance(found, x, noise, data, window, border), oracle.distance, **ROOT[dtype])


def named_distance(found, x, noise, data, window, border):
    """The distance to the patch that the posterior names as the nearest."""
    p = window // 2
    alpha = noise.on(x.double())[0]
    patches = windows_of(data.double(), p, border == "circular")[found.image, found.row, found.column]
    return (windows_of(x.double(), p, border in WRAPPED) - alpha * patches).norm(dim=-1)


# Against the oracle -----------------------------------------------------------------------------------------------


def fits(window, border, H, W):
    return border not in WRAPPED or window <= min(H, W)


@every_border
@pytest.mark.parametrize(
    ("count", "dtype"), [*product([1, 31, 32, 33, 64, 70], DTYPES[:1]), *product([1, 33], DTYPES[1:])], ids=str
)
def test_every_number_of_images_is_served(border, count, dtype):
    """Thirty-two images share a vector of the kernel: the last one is ragged, or there is one image only."""
    data, noise = pictures(count, 2, 5, 4, dtype=dtype), Noise(0.8, 0.6)
    x = noisy(data, noise, 2)
    for window in (1, 3):
        found = patch_machine(data, window, border).posterior(x, noise)
        agrees(found, brute(x, noise, data, window, border), dtype, x, noise, data, window, border)


@both_dtypes
@every_border
@pytest.mark.parametrize("shape", [(1, 7, 7), (3, 9, 5), (2, 3, 8), (1, 4, 4), (4, 3, 3)], ids=str)
def test_every_window_is_served(border, shape, dtype):
    """Windows may be larger than the image wherever its outside is zero."""
    data = pictures(5, *shape, dtype=dtype)
    for window, noise in zip((1, 3, 5, 7, 9, 11, 19), LEVELS * 2, strict=False):
        if fits(window, border, *shape[1:]):
            x = noisy(data, noise, 1)
            machine, oracle = patch_machine(data, window, border), brute(x, noise, data, window, border)
            agrees(machine.posterior(x, noise), oracle, dtype, x, noise, data, window, border)
            assert_close(machine.denoise(x, noise).double(), oracle.x0, **CLOSE[dtype])
            assert torch.equal(5 * machine.patches_per_image(window), oracle.dictionary[0].long())


@both_dtypes
@every_border
@pytest.mark.parametrize("tolerance", [0.0, 1e-6])
def test_the_nearest_patches_may_come_first_or_last(border, dtype, tolerance):
    """A streaming softmax must start afresh whenever a patch turns up that is far nearer than all before."""
    pattern, scale = pictures(1, 2, 6, 5), torch.linspace(-1, 1, 96, dtype=torch.float64)[:, None, None, None]
    fading, noise = (pattern * scale).to(dtype), Noise(1.0, 0.05)
    mixed = fading[torch.randperm(96, generator=seeded())]
    x = noisy(fading.flip(0)[:40:20], noise, 2)
    for data in (fading, fading.flip(0), mixed):
        found = patch_machine(data, 3, border, tolerance=tolerance).posterior(x, noise)
        agrees(found, brute(x, noise, data, 3, border), dtype, x, noise, data, 3, border)


@settings(max_examples=40, deadline=None)
@given(
    border=st.sampled_from(BORDERS),
    count=st.integers(1, 70),
    batch=st.integers(1, 4),
    shape=st.tuples(st.integers(1, 3), st.integers(3, 9), st.integers(3, 9)),
    window=st.sampled_from([1, 3, 5, 7, 9, 13]),
    chunk=st.sampled_from([7, 64, 512]),
    level=st.tuples(st.floats(0, 1.5), st.floats(0.2, 3)),
    per_image=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_the_machine_is_its_definition(border, count, batch, shape, window, chunk, level, per_image, seed):
    assume(fits(window, border, *shape[1:]))
    assume(batch * count * math.prod(shape) * math.prod(shape[1:]) * window**2 < 5e6)  # what the oracle can bear
    assume(batch * count * math.prod(shape[1:]) < 600 * chunk)  # and torch, a few pairs at a time
    noise = Noise(*level)
    if per_image:
        share = torch.rand(2, batch, 1, 1, 1, generator=seeded(seed))
        noise = Noise(level[0] * share[0], 0.2 + share[1])
    for dtype in DTYPES:
        data = pictures(count, *shape, seed=seed, dtype=dtype)
        x = noisy(data, noise, batch, seed + 1)
        oracle, machine = brute(x, noise, data, window, border), patch_machine(data, window, border, chunk=chunk)
        assert_close(machine.denoise(x, noise).double(), oracle.x0, **CLOSE[dtype])
        if level[0] > 0.01:  # otherwise all patches are about equally near
            agrees(machine.posterior(x, noise), oracle, dtype, x, noise, data, window, border)


@pytest.mark.parametrize(
    ("dtype", "count", "chunks"),
    [(DTYPES[0], 70, (1, 64, 512)), (DTYPES[1], 7, (1, 3, 9, 99))],
    ids=("float32", "float64"),
)
@every_border
def test_memory_changes_nothing(border, dtype, count, chunks):
    """Any chunk, any division of the images and of the batch, gives the same result.

    The kernel takes 1, 2 or 16 vectors of thirty-two images at a time; torch takes single images of the batch, some of
    them, all with one or two training images, or all pairs at several offsets.
    """
    data, noise = pictures(count, 1, 4, 3, dtype=dtype), Noise(torch.linspace(0.2, 1, 4).reshape(4, 1, 1, 1), 0.5)
    x = noisy(data, noise, 4)
    whole = patch_machine(data, 3, border).posterior(x, noise)
    for chunk in chunks:
        machine = patch_machine(iter(data.split((1, 4, count - 5))), 3, border, chunk=chunk)
        one_by_one = [machine.denoise(x[b : b + 1], Noise(noise.alpha[b : b + 1], 0.5)) for b in range(4)]
        found = machine.posterior(x, noise)
        for other in (machine.denoise(x, noise), torch.cat(one_by_one), found.x0):
            assert_close(other, whole.x0, **CLOSE[dtype])
        assert_close(found.entropy, whole.entropy, **CLOSE[dtype])
        assert_close(found.distance, whole.distance, **ROOT[dtype])


@every_border
def test_threads_change_rounding_only(border):
    data, noise = pictures(133, 3, 6, 5, dtype=torch.float32), Noise(0.8, 0.6)
    x, threads = noisy(data, noise, 5), torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(patch_machine(data, 3, border, chunk=96).posterior(x, noise))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        for name in ("x0", "entropy", "distance"):
            assert_close(getattr(other, name), getattr(found[0], name), **CLOSE[torch.float32])
        assert torch.equal(sources(other), sources(found[0]))


@both_dtypes
@every_border
def test_several_windows_in_one_pass_are_separate_machines(border, dtype):
    """In the order asked for, whatever the window of the machine itself."""
    count = 40 if dtype == torch.float32 else 8
    data, noise = pictures(count, 2, 7, 6, dtype=dtype), Noise(torch.linspace(0.3, 1, 3).reshape(3, 1, 1, 1), 0.7)
    x, machine = noisy(data, noise), patch_machine(data, 1, border, chunk=50)
    alone = cache(lambda window: patch_machine(data, window, border).posterior(x, noise))
    for windows in ((1, 3, 5), (5, 1), (3,), (3, 5, 3), (1, 9, 3) if border not in WRAPPED else (5, 3, 1)):
        separate = [alone(window) for window in windows]
        together = machine.posterior_windows(x, noise, windows)
        x0 = machine.denoise_windows(x, noise, windows)
        assert x0.shape == (len(windows), *x.shape)
        assert len(together) == len(windows)
        for one, other, mean in zip(together, separate, x0, strict=True):
            assert_close(mean, other.x0, **CLOSE[dtype])
            for name in ("x0", "entropy"):
                assert_close(getattr(one, name), getattr(other, name), **CLOSE[dtype])
            assert_close(one.distance, other.distance, **ROOT[dtype])
            assert torch.equal(sources(one), sources(other))


@both_dtypes
@every_border
def test_labels_restrict_the_dictionary(border, dtype):
    """A batch of mixed classes; one class has one image only, one has none of the batch."""
    data, labels = pictures(40, 1, 5, 4, dtype=dtype), torch.arange(40) % 3 + 4
    labels[7] = 9
    given, level = torch.tensor([5, 9, 4, 5]), Noise(torch.linspace(0.2, 1, 4).reshape(4, 1, 1, 1), 0.5)
    x = noisy(data, level, 4)
    machine = patch_machine(data, 3, border, labels=labels, chunk=200)
    found, oracle = machine.given(given).posterior(x, level), brute(x, level, data, 3, border, labels, given)
    agrees(found, oracle, dtype, x, level, data, 3, border)
    assert torch.equal(labels[found.image], given[:, None, None].expand(4, 5, 4))
    for b, label in enumerate(given.tolist()):
        noise = Noise(level.alpha[b : b + 1], 0.5)
        restricted = patch_machine(data[labels == label], 3, border)
        expected = restricted.denoise_windows(x[b : b + 1], noise, (1, 3))[:, 0]
        together = machine.given(given).denoise_windows(x, level, (1, 3))[:, b]
        assert_close(together, expected, **CLOSE[dtype])
        assert_close(machine.given(given).denoise(x, level)[b], expected[1], **CLOSE[dtype])
    assert_close(machine.denoise(x, level), patch_machine(data, 3, border).denoise(x, level), **CLOSE[dtype])


@both_dtypes
def test_a_table_chooses_the_window_of_every_image(dtype):
    """An image whose level lies between two entries takes the nearer one; without signal, the noisiest."""
    table = WindowTable(log_snr=(-4.0, 0.0, 4.0), windows=(5, 3, 1))
    levels = [(0.0, 1.0, 5), (math.exp(-1.1), 1.0, 5), (math.exp(-0.9), 1.0, 3), (1.0, 1.0, 3), (1.0, math.exp(-4), 1)]
    alpha, sigma = (
        torch.tensor([level[k] for level in levels], dtype=torch.float64).reshape(-1, 1, 1, 1) for k in (0, 1)
    )
    data, noise = pictures(9, 1, 6, 5, dtype=dtype), Noise(alpha, sigma)
    x = noisy(data, noise, len(levels))
    for border in BORDERS:
        machine = patch_machine(data, table, border)
        together, found = machine.denoise(x, noise), machine.posterior(x, noise)
        for b, (a, s, window) in enumerate(levels):
            one = patch_machine(data, window, border).posterior(x[b : b + 1], Noise(a, s))
            assert_close(together[b], one.x0[0], **CLOSE[dtype])
            assert_close(found.x0[b], one.x0[0], **CLOSE[dtype])
            assert_close(found.entropy[b], one.entropy[0], **CLOSE[dtype])
            assert_close(found.distance[b], one.distance[0], **ROOT[dtype])
            assert_close(machine.denoise(x[b : b + 1], Noise(a, s))[0], one.x0[0], **CLOSE[dtype])


# Ends -------------------------------------------------------------------------------------------------------------


@both_dtypes
@every_border
def test_without_signal_all_patches_weigh_the_same(border, dtype):
    data, noise = pictures(35, 2, 6, 5, dtype=dtype), Noise(0.0, 0.5)
    x = noisy(data, noise)
    found, oracle = patch_machine(data, 3, border).posterior(x, noise), brute(x, noise, data, 3, border)
    mean = data.double().mean(0)
    inside = mean[:, 1:-1, 1:-1].mean((1, 2), keepdim=True)
    expected = {"same": mean, "circular": mean.mean((1, 2), keepdim=True), "interior": inside}
    assert_close(found.x0.double(), oracle.x0, **CLOSE[dtype])
    if border in expected:
        assert_close(found.x0.double(), expected[border].expand(3, 2, 6, 5), **CLOSE[dtype])
    assert_close(
        found.effective, oracle.dictionary.to(dtype), rtol={torch.float32: 1e-4, torch.float64: 1e-12}[dtype], atol=0
    )
    assert_close(found.distance.double(), windows_of(x.double(), 1, border in WRAPPED).norm(dim=-1), **CLOSE[dtype])
    assert (sources(found) >= 0).all()


@both_dtypes
@every_border
def test_with_little_noise_the_nearest_patch_is_returned(border, dtype):
    """The rows and columns that are named hold the value that is returned, whether the point is a training image."""
    data = pictures(40, 3, 6, 5, dtype=dtype)
    for x in (data[:3], noisy(data, edm(0.3))):
        nearest, gap = brute(x, edm(1e-9), data, 3, border), second_gap(x, data, border)
        for sigma, least in ((1e-2, 0.05), (1e-4, 1e-5), (1e-8, 1e-5)):
            found, apart = patch_machine(data, 3, border).posterior(x, edm(sigma)), gap > least
            value = data[found.image, :, found.row, found.column].movedim(-1, 1)
            assert_close(found.x0.where(apart[:, None], 0), value.where(apart[:, None], 0), rtol=1e-5, atol=1e-5)
            assert_close(found.distance.double(), nearest.distance, **ROOT[dtype])
            assert_close(found.entropy.where(apart, 0), torch.zeros(3, 6, 5, dtype=dtype), rtol=0, atol=1e-4)
            assert torch.equal(sources(found)[apart], nearest.source[apart])


SMALL = {torch.float32: (1e-15, 1e-17), torch.float64: (1e-20, 1e-60, 1e-150)}  # |x - y|^2 / sigma^2 is still finite
TOO_SMALL = {torch.float32: (1e-19, 1e-38, 1e-60), torch.float64: (1e-154, 1e-200, 1e-320)}


@every_border
@both_dtypes
def test_with_hardly_any_noise_the_nearest_patch_is_returned(border, dtype):
    data = pictures(40, 1, 6, 5, dtype=dtype)
    x, machine = data[:3] + 0.1, patch_machine(data, 3, border)
    nearest = brute(x, edm(1e-9), data, 3, border)
    for sigma in SMALL[dtype]:
        assert torch.equal(sources(machine.posterior(x, edm(sigma))), nearest.source)
        assert_close(machine.denoise(x, edm(sigma)).double(), nearest.x0, **CLOSE[dtype])


@every_border
@both_dtypes
def test_where_the_exponent_overflows_sigma_is_refused(border, dtype):
    data = pictures(40, 1, 6, 5, dtype=dtype)
    machine = patch_machine(data, 3, border)
    for sigma in TOO_SMALL[dtype]:
        for call in (machine.denoise, machine.posterior):
            refused("sigma is .* overflows", call, data[:3] + 0.1, edm(sigma))


def second_gap(x, data, border, window=3):
    """How much farther, in squared distance, the second nearest patch is than the nearest, at alpha = 1."""
    gaps = torch.empty(len(x), *x.shape[2:]).double()
    for pixel, _, square in pairs(x, torch.ones(len(x)), data, window, border):
        gaps[pixel] = square.topk(2, largest=False).values.diff().abs()
    return gaps


@both_dtypes
@every_border
def test_far_from_all_patches_everything_stays_finite(border, dtype):
    data = pictures(40, 1, 5, 4, dtype=dtype)
    for distance, sigma in product((1.0, 1e3, 1e6), (1e-6, 1e-2, 1.0, 1e6)):
        found = patch_machine(data, 3, border).posterior(distance * data[:2] + distance, edm(sigma))
        for name in ("x0", "entropy", "distance", "effective"):
            assert getattr(found, name).isfinite().all()
        assert (found.entropy >= 0).all()
        assert (found.effective <= 1.001 * 40 * patch_machine(data, 3, border).patches_per_image(3)).all()
        assert (found.x0.abs() <= 1.001).all()
        assert (sources(found) >= 0).all()


@pytest.mark.parametrize(
    ("dtype", "atol"),
    [(torch.float16, 1e-3), (torch.bfloat16, 1e-2), (torch.float32, 1e-6), (torch.float64, 1e-8)],
    ids=str,
)
@every_border
def test_the_entropy_is_right_far_from_all_patches(border, dtype, atol):
    """Three of six patches are nearest, at log weights of -523264.5, of which float32 would round the sums."""
    data = torch.tensor([1.0, -1.0, 1.0, 0.0, 1.0, 0.5], dtype=dtype).reshape(6, 1, 1, 1)
    x, machine = torch.full((1, 1, 1, 1), 1024.0, dtype=dtype), patch_machine(data, 1, border)
    for point in (x, x.clone().requires_grad_()):  # the kernel, where it serves this dtype, and torch
        entropy = machine.posterior(point, edm(1.0)).entropy
        assert entropy.item() == pytest.approx(math.log(3), abs=atol)


@both_dtypes
@every_border
def test_neither_order_nor_copies_of_the_images_matter(border, dtype):
    """Only the entropy tells that every image is there three times."""
    data, noise = pictures(33, 1, 5, 6, dtype=dtype), Noise(0.8, 0.4)
    x = noisy(data, noise)
    whole = patch_machine(data, 3, border).posterior(x, noise)
    order = torch.randperm(33, generator=seeded())
    for others, more in ((data[order], 0), (data.repeat(3, 1, 1, 1), math.log(3))):
        found = patch_machine(others, 3, border).posterior(x, noise)
        assert_close(found.x0, whole.x0, **CLOSE[dtype])
        assert_close(found.entropy, whole.entropy + more, **CLOSE[dtype])
        assert_close(found.distance, whole.distance, **ROOT[dtype])
        value = others[found.image, :, found.row, found.column]
        assert_close(value, data[whole.image, :, whole.row, whole.column])


# Tolerance --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tolerance", [1e-6, 1e-3, 0.05])
@every_border
def test_skipped_work_changes_no_pixel_by_more_than_the_tolerance(border, tolerance):
    data = pictures(200, 3, 7, 7, dtype=torch.float32)
    for noise in (Noise(1.0, 0.05), Noise(0.8, 0.3), Noise(0.8, 0.6), Noise(0.1, 1.0)):
        x = noisy(data, noise)
        exact, found = (patch_machine(data, 3, border, tolerance=t).posterior(x, noise) for t in (0.0, tolerance))
        assert exact.skipped == 0
        assert 0 <= found.skipped <= 1
        assert (found.x0 - exact.x0).abs().max() <= tolerance + 1e-5
        assert_close(found.distance, exact.distance, **ROOT[torch.float32])
        assert torch.equal(sources(found), sources(exact))
        plain = patch_machine(data, 3, border, tolerance=tolerance)
        assert (plain.denoise(x, noise) - exact.x0).abs().max() <= tolerance + 1e-5


@every_border
@pytest.mark.parametrize("count", [1, 31, 33, 64])
def test_the_share_of_skipped_pairs_is_one_at_most(border, count):
    """Those of lanes without an image do not count."""
    data, labels = pictures(count, 1, 6, 5, dtype=torch.float32), torch.arange(count) % 2
    for noise in (edm(0.02), edm(1e-3)):
        x = noisy(data, noise, 5)
        machine = patch_machine(data, 3, border, labels=labels, tolerance=1e-3)
        for known in (machine, machine.given(torch.zeros(5, dtype=torch.int64))):
            for found in known.posterior_windows(x, noise, (1, 3)):
                assert 0 <= found.skipped <= 1


@pytest.mark.parametrize("border", BORDERS[1:])
def test_work_is_skipped_where_few_patches_matter(border):
    """A flat image near many flat images; the others are far from it, and lie together in the list."""
    flat, rough = torch.full((64, 1, 8, 8), -1.0), pictures(512, 1, 8, 8, dtype=torch.float32)
    x, noise = flat[:2] + 0.01 * torch.randn(2, 1, 8, 8, generator=seeded()), Noise(1.0, 0.05)
    found = patch_machine(torch.cat([rough, flat]), 5, border, tolerance=1e-3).posterior(x, noise)
    assert 0.1 < found.skipped <= 1
    assert_close(found.x0, torch.full_like(x, -1), rtol=0, atol=1e-3)
    assert patch_machine(torch.cat([rough, flat]), 5, border).posterior(x, noise).skipped == 0


# Exact limits -----------------------------------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize("shape", [(1, 5, 5), (3, 4, 6), (2, 7, 3)], ids=str)
def test_a_local_machine_with_a_large_window_is_the_ideal_machine(shape, dtype):
    data, window = pictures(40, *shape, dtype=dtype), 2 * max(shape) - 1
    for noise in LEVELS:
        x = noisy(data, noise)
        expected = Ideal.fit(data.double()).denoise(x.double(), noise)
        for machine in (Local.fit(data, window), EquivariantLocal.fit(data, window, "zeros")):
            assert_close(machine.denoise(x, noise).double(), expected, **CLOSE[dtype])


@both_dtypes
@pytest.mark.parametrize("shape", [(1, 5, 5), (3, 4, 6), (2, 7, 3)], ids=str)
def test_with_zeros_around_no_two_places_are_alike_under_a_large_window(shape, dtype):
    """2p + 1 >= H leaves one interior row at most, and that one belongs to itself; so for columns."""
    data = pictures(40, *shape, dtype=dtype)
    for noise, window in product(LEVELS, range(max(shape) // 2 * 2 + 1, 13, 2)):
        x = noisy(data, noise)
        local, broken = Local.fit(data, window), EquivariantLocal.fit(data, window, "zeros")
        assert_close(broken.denoise(x, noise), local.denoise(x, noise), **CLOSE[dtype])
        one, other = broken.posterior(x, noise), local.posterior(x, noise)
        assert torch.equal(sources(one), sources(other))
        assert_close(one.entropy, other.entropy, **CLOSE[dtype])


@both_dtypes
@pytest.mark.parametrize("shape", [(1, 5, 5), (3, 3, 3), (2, 7, 7)], ids=str)
def test_a_window_of_the_whole_torus_is_the_equivariant_machine(shape, dtype):
    data = pictures(11, *shape, dtype=dtype)
    local, whole = EquivariantLocal.fit(data, shape[1], "circular"), Equivariant.fit(data)
    for noise in LEVELS:
        x = noisy(data, noise)
        expected = Ideal.fit(shifts(data.double())).denoise(x.double(), noise)
        assert_close(local.denoise(x, noise).double(), expected, **CLOSE[dtype])
        assert_close(whole.denoise(x, noise).double(), expected, **CLOSE[dtype])


@both_dtypes
@pytest.mark.parametrize("border", WRAPPED)
def test_periodic_machines_commute_with_shifts(border, dtype):
    data, noise = pictures(20, 2, 7, 6, dtype=dtype), Noise(0.8, 0.5)
    x, machine = noisy(data, noise), patch_machine(data, 3, border)
    for step in ((1, 0), (0, -1), (3, 4)):
        shifted = machine.denoise(x.roll(step, (2, 3)), noise)
        assert_close(shifted, machine.denoise(x, noise).roll(step, (2, 3)), **CLOSE[dtype])


def test_periodic_windows_see_shifts_of_the_training_images_as_the_images():
    data, noise = pictures(20, 2, 7, 6), Noise(0.8, 0.5)
    x = noisy(data, noise)
    moved = torch.stack([image.roll((k, 2 * k), (1, 2)) for k, image in enumerate(data)])
    expected = patch_machine(data, 3, "circular").denoise(x, noise)
    assert_close(patch_machine(moved, 3, "circular").denoise(x, noise), expected)


def test_a_window_of_one_pixel_is_the_ideal_machine_of_pixels():
    data, noise = pictures(9, 3, 5, 4), Noise(0.8, 0.5)
    x = noisy(data, noise)
    pixels = Ideal.fit(data.movedim(1, -1).flatten(0, 2))
    expected = pixels.denoise(x.movedim(1, -1).flatten(0, 2), noise).reshape(3, 5, 4, 3).movedim(-1, 1)
    for border in BORDERS[1:]:
        assert_close(patch_machine(data, 1, border).denoise(x, noise), expected)


@both_dtypes
@pytest.mark.parametrize("window", [1, 3, 5])
def test_a_black_and_a_white_image(window, dtype):
    """x0(u) = tanh((alpha / sigma^2) times the sum of the window), since both dictionaries hold one patch."""
    data = torch.ones(2, 1, 6, 5, dtype=dtype) * torch.tensor([1, -1]).reshape(2, 1, 1, 1)
    x = torch.randn(4, 1, 6, 5, generator=seeded(), dtype=torch.float64).to(dtype)
    total = windows_of(x.double(), window // 2, True).sum(-1)[:, None]
    for noise in LEVELS:
        for border in WRAPPED:
            found = patch_machine(data, window, border).denoise(x, noise)
            assert_close(found.double(), (noise.alpha / noise.sigma**2 * total).tanh(), **CLOSE[dtype])


@every_border
def test_only_the_noise_to_signal_ratio_matters(border):
    data = pictures(20, 1, 5, 5)
    x, machine = noisy(data, edm(0.7)), patch_machine(data, 3, border)
    for scale in (0.1, 3.0):
        scaled = machine.denoise(scale * x, Noise(scale, 0.7 * scale))
        assert_close(scaled, machine.denoise(x, edm(0.7)))


@every_border
def test_a_training_image_comes_from_itself(border):
    data = pictures(40, 1, 6, 6, dtype=torch.float32)
    found = patch_machine(data, 3, border).posterior(data[:5], edm(0.01))
    rows, columns = torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij")
    place = torch.stack([rows, columns], -1)
    inside = slice(1, -1) if border == "interior" else slice(None)  # at the border the wrapped windows are no patches
    here = sources(found)[:, inside, inside]
    assert torch.equal(here[..., 0], torch.arange(5)[:, None, None].expand(here.shape[:3]))
    assert torch.equal(here[..., 1:], place[inside, inside].expand(5, -1, -1, -1))
    assert (found.distance[:, inside, inside] < 1e-3).all()


# Derivatives ------------------------------------------------------------------------------------------------------


@every_border
def test_derivatives_are_those_of_the_definition(border):
    """Reverse mode, forward mode and the product that the machine offers, against finite differences of the oracle."""
    data, noise = pictures(9, 2, 4, 3), Noise(torch.tensor([0.8, 0.3]).reshape(2, 1, 1, 1), 0.6)
    x, machine = noisy(data, noise, 2), patch_machine(data, 3, border, chunk=8)
    v = torch.randn(x.shape, generator=seeded(5), dtype=x.dtype)
    ends = [brute(x + step * v, noise, data, 3, border).x0 for step in (1e-5, -1e-5)]
    forward = torch.func.jvp(lambda x: machine.denoise(x, noise), (x,), (v,))[1]
    assert_close(forward, (ends[0] - ends[1]) / 2e-5, rtol=1e-6, atol=1e-8)
    alpha, sigma = noise.on(x)
    scaled = sigma**2 / alpha * v
    product = torch.func.jvp(lambda x: machine.denoise(x, noise), (x,), (scaled,))[1]
    assert_close(machine.posterior_cov_product(x, noise, v), product, rtol=1e-10, atol=1e-12)
    point = x.clone().requires_grad_()
    (backward,) = torch.autograd.grad(machine.denoise(point, noise), point, v)
    assert_close((backward * v).sum(), (forward * v).sum())


@every_border
@both_dtypes
def test_derivatives_with_respect_to_the_noise(border, dtype):
    data = pictures(9, 1, 5, 5, dtype=dtype)
    x, machine = noisy(data, edm(0.6), 2), patch_machine(data, 3, border)
    sigma = torch.tensor(0.6, dtype=dtype, requires_grad=True)
    (found,) = torch.autograd.grad(machine.denoise(x, Noise(0.8, sigma)).square().sum(), sigma)
    wide = machine.to(torch.float64)
    ends = [wide.denoise(x.double(), Noise(0.8, 0.6 + step)).square().sum() for step in (1e-5, -1e-5)]
    assert_close(found.double(), (ends[0] - ends[1]) / 2e-5, rtol=1e-3, atol=1e-4)


@every_border
def test_forward_derivatives_with_respect_to_the_noise(border):
    data = pictures(9, 1, 5, 5, dtype=torch.float32)
    x, machine = noisy(data, edm(0.6), 2), patch_machine(data, 3, border)
    with torch.autograd.forward_ad.dual_level():
        sigma = torch.autograd.forward_ad.make_dual(torch.tensor(0.6), torch.tensor(1.0))
        found = torch.autograd.forward_ad.unpack_dual(machine.denoise(x, Noise(0.8, sigma))).tangent
    assert found is not None
    assert found.isfinite().all()
    assert found.abs().max() > 0


@every_border
def test_derivatives_in_single_precision(border):
    """The compiled kernel cannot be differentiated: what is returned still can."""
    data, noise = pictures(9, 1, 4, 3, dtype=torch.float32), Noise(0.8, 0.6)
    x, machine = noisy(data, noise, 2), patch_machine(data, 3, border)
    v = torch.randn(x.shape, generator=seeded(5))
    exact = machine.posterior_cov_product(x.double(), noise, v.double())
    assert_close(machine.posterior_cov_product(x, noise, v).double(), exact, rtol=1e-4, atol=1e-5)
    point = x.clone().requires_grad_()
    (backward,) = torch.autograd.grad(machine.denoise(point, noise), point, v)
    double = x.double().requires_grad_()
    (expected,) = torch.autograd.grad(machine.denoise(double, noise), double, v.double())
    assert_close(backward.double(), expected, rtol=1e-4, atol=1e-5)


# Purity -----------------------------------------------------------------------------------------------------------


@both_dtypes
@every_border
def test_inputs_and_machines_are_left_alone(border, dtype):
    data, labels, given = pictures(40, 1, 5, 5, dtype=dtype), torch.arange(40) % 2, torch.tensor([1, 0, 1])
    noise = Noise(torch.full((3, 1, 1, 1), 0.8), torch.full((3, 1, 1, 1), 0.6))
    x = noisy(data, noise)
    inputs = (data, labels, given, x, noise.alpha, noise.sigma)
    before = [each.clone() for each in inputs]
    machine = patch_machine(data, 3, border, labels=labels, tolerance=1e-3)
    state = torch.get_rng_state()
    first = machine.given(given).denoise(x, noise)
    machine.given(given).posterior_windows(10 * x, noise, (1, 3))
    assert torch.equal(machine.given(given).denoise(x, noise), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(now, then) for now, then in zip(inputs, before, strict=True))


def test_a_strided_view_is_served():
    data, noise = pictures(40, 1, 5, 4, dtype=torch.float32), Noise(0.8, 0.6)
    x, machine = noisy(data, noise), EquivariantLocal.fit(data, 3, "zeros")
    turned = EquivariantLocal.fit(data.mT.contiguous().mT, 3, "zeros")
    assert_close(turned.denoise(x.mT.contiguous().mT, noise), machine.denoise(x, noise))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype):
    data, noise = pictures(20, 1, 5, 4, dtype=dtype), Noise(0.8, 0.6)
    x = noisy(data, noise)
    found = EquivariantLocal.fit(data, 3, "zeros").posterior(x, noise)
    exact = EquivariantLocal.fit(data.float(), 3, "zeros").posterior(x.float(), noise)
    assert found.x0.dtype == dtype
    assert_close(found.x0, exact.x0.to(dtype), rtol=1e-2, atol=1e-2)


def test_an_empty_batch_stays_empty():
    data = pictures(20, 1, 5, 4, dtype=torch.float32)
    for border, dtype in product(BORDERS, DTYPES):
        x, machine = data[:0].to(dtype), patch_machine(data, 3, border, labels=torch.arange(20))
        for known in (machine, machine.given(torch.arange(0))):
            assert known.denoise(x, edm(1.0)).shape == x.shape
            assert known.denoise_windows(x, edm(1.0), (1, 3)).shape == (2, *x.shape)
            found = known.posterior(x, edm(1.0))
            assert found.x0.shape == x.shape
            assert found.image.shape == (0, 5, 4)


# Refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [2, 4, 0, -1, -3, True, 3.0, 3.5, "3", None, torch.tensor(3), (3,)], ids=repr)
def test_a_window_is_an_odd_number(window):
    data = pictures(5, 1, 5, 5, dtype=torch.float32)
    for border in BORDERS:
        refused("window", patch_machine, data, window, border)
        for name in ("denoise_windows", "posterior_windows"):
            refused("window", getattr(patch_machine(data, 3, border), name), data, edm(1.0), (3, window))


@pytest.mark.parametrize("border", WRAPPED)
def test_a_periodic_window_fits_into_the_image(border):
    data = pictures(5, 1, 4, 7)
    patch_machine(data, 3, border)
    for window in (5, 7, 9, WindowTable(log_snr=(-1.0, 1.0), windows=(5, 3))):
        refused("window", patch_machine, data, window, border)
    for name in ("denoise_windows", "posterior_windows"):
        refused("window", getattr(patch_machine(data, 3, border), name), data, edm(1.0), (3, 5))


@every_border
def test_labels_are_checked(border):
    data, labels = pictures(6, 1, 5, 5), torch.arange(6) % 2
    machine, x = patch_machine(data, 3, border, labels=labels), data[:3]
    refused("without labels", patch_machine(data, 3, border).given, labels[:3])
    refused("labels", patch_machine, data, 3, border, labels=labels[:5])
    refused("labels", patch_machine, data, 3, border, labels=labels[:, None])
    refused("labels", patch_machine, data, 3, border, labels=labels.double())
    refused("labels", patch_machine, data, 3, border, labels=labels.tolist())
    refused("2", machine.given, torch.tensor([0, 1, 2]))
    refused("labels", machine.given, torch.tensor([0.0, 1.0, 1.0]))
    refused("labels", machine.given, [0, 1, 1])
    for known in (machine.given(labels[:2]), machine.given(labels[:4])):
        refused("labels", known.denoise, x, edm(1.0))
        refused("labels", known.posterior, x, edm(1.0))
        refused("labels", known.denoise_windows, x, edm(1.0), (1, 3))


@every_border
def test_noise_is_one_level_for_each_image(border):
    data = pictures(6, 1, 5, 5)
    machine, x = patch_machine(data, 3, border), data[:3]
    for call in (machine.denoise, machine.posterior, machine.score, machine.eps):
        refused("one level", call, x, Noise(1.0, torch.ones(1, 1, 5, 5)))
        refused("one level", call, x, Noise(torch.ones(3, 1, 1, 5), 1.0))
        refused("sigma is 0", call, x, Noise(1.0, 0.0))
        refused("sigma is 0", call, x, Noise(1.0, torch.tensor([1.0, 0.0, 1.0]).reshape(3, 1, 1, 1)))
        refused("shape", call, x, Noise(1.0, torch.ones(3)))
        refused("expected a Noise", call, x, 1.0)
    refused("one level", machine.denoise_windows, x, Noise(1.0, torch.ones(1, 1, 5, 5)), (1, 3))
    refused("sigma is 0", machine.denoise_windows, x, Noise(1.0, 0.0), (1, 3))
    refused("alpha is 0", machine.posterior_cov_product, x, Noise(0.0, 1.0), x)
    refused("shape", machine.posterior_cov_product, x, edm(1.0), x[:2])


@every_border
def test_points_have_the_shape_of_the_images(border):
    data = pictures(6, 1, 5, 5)
    machine = patch_machine(data, 3, border)
    for x in (data[:, :, :4], data[..., :4], data.repeat(1, 3, 1, 1), data[0], data.flatten(1)):
        for call in (machine.denoise, machine.posterior):
            refused("shape", call, x, edm(1.0))
    refused("dtype", machine.denoise, data.long(), edm(1.0))


@every_border
def test_data_are_images_of_one_size(border):
    data = pictures(6, 1, 5, 5)
    refused("shape", patch_machine, [data, data[:, :, :4]], 3, border)
    for other in (data.flatten(1), data[:, 0], data[None]):
        refused("shape", patch_machine, other, 3, border)
    refused("no sample", patch_machine, data[:0], 3, border)
    refused("dtype", patch_machine, data.long(), 3, border)
    refused("sample 2", patch_machine, data.index_fill(0, torch.tensor([2]), torch.nan), 3, border)
    refused("torch tensors", patch_machine, data.numpy(), 3, border)


@every_border
@pytest.mark.parametrize("wrong", [-1e-9, -1.0, math.nan, math.inf, "0", None, torch.tensor([0.1, 0.2])], ids=repr)
def test_the_tolerance_is_a_number_that_is_not_negative(border, wrong):
    refused("tolerance", patch_machine, pictures(6, 1, 5, 5), 3, border, tolerance=wrong)


@every_border
@pytest.mark.parametrize("wrong", [0, -1, 1.5, "7", None, True], ids=repr)
def test_a_chunk_is_a_positive_number(border, wrong):
    refused("chunk", patch_machine, pictures(6, 1, 5, 5), 3, border, chunk=wrong)


@pytest.mark.parametrize("wrong", ["same", "reflect", "Circular", "", None, 0, ["zeros"]], ids=repr)
def test_a_border_is_one_of_three(wrong):
    refused("border", EquivariantLocal.fit, pictures(6, 1, 5, 5), 3, wrong)


@every_border
@pytest.mark.parametrize("windows", [(), [], 3, None], ids=repr)
def test_several_windows_are_at_least_one(border, windows):
    data = pictures(6, 1, 5, 5)
    for name in ("denoise_windows", "posterior_windows"):
        refused("window", getattr(patch_machine(data, 3, border), name), data, edm(1.0), windows)


@every_border
def test_a_machine_is_frozen(border):
    machine = patch_machine(pictures(6, 1, 5, 5), 3, border)
    for field in fields(machine):
        with pytest.raises(AttributeError):
            setattr(machine, field.name, None)


def test_what_is_not_a_number_stays_so():
    x = torch.zeros(2, 1, 5, 5)
    x[0, 0, 2, 2] = torch.nan
    found = Local.fit(pictures(3, 1, 5, 5, dtype=torch.float32), 3).denoise(x, edm(1.0))
    assert found[0, 0, 1:4, 1:4].isnan().all()
    assert found[1].isfinite().all()


def test_forward_derivatives_are_kept():
    data = pictures(5, 1, 5, 5, dtype=torch.float32)
    machine, x = Local.fit(data[2:], 3), data[:2]
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        tangent = torch.autograd.forward_ad.unpack_dual(machine.denoise(dual, edm(1.0))).tangent
    expected = torch.func.jvp(lambda x: machine.denoise(x, edm(1.0)), (x,), (torch.ones_like(x),))[1]
    assert_close(tangent, expected)


def test_the_share_of_skipped_pairs_counts_a_window_once():
    data = pictures(300, 1, 8, 8, dtype=torch.float32)
    machine = patch_machine(data, 3, tolerance=1e-2)
    (once,), twice = (machine.posterior_windows(data[:2], edm(0.05), windows) for windows in ((3,), (3, 3)))
    assert once.skipped > 0
    assert [found.skipped for found in twice] == [once.skipped] * 2
