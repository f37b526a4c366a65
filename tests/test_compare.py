"""Calibration against references of known windows, and local consistency against mosaics made by hand."""

from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from math import inf, nan

import pytest
import torch
from torch.testing import assert_close

from scoremachines import (
    Gaussian,
    Machine,
    Noise,
    cosine,
    cosine_legacy,
    edm_levels,
    levels,
    metrics,
    sample,
    trajectory,
)
from scoremachines.compare import Calibration, Consistency, calibrate_windows, local_consistency
from scoremachines.windows import WindowTable, log_snr
from tests.conftest import patch_machine, refused

GRID = levels(cosine_legacy, [0.9, 0.6, 0.3])  # and the clean level
NOISY = tuple(GRID[:-1])
WINDOWS = (1, 3, 5)
BORDERS = ("same", "zeros", "interior", "circular")


@pytest.fixture
def images(rand):
    """Twelve images of two channels, 5 x 6, in [-1, 1]."""
    return 2 * rand(12, 2, 5, 6) - 1


@pytest.fixture
def starts(randn):
    return randn(5, 2, 5, 6)


@dataclass(frozen=True, eq=False)
class Louder(Machine):
    """Another machine whose predicted noise is so many times as large."""

    machine: Machine
    factor: float

    def denoise(self, x, noise):
        return (x - noise.sigma * self.factor * self.machine.eps(x, noise)) / noise.alpha


# Which window matches -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", ["cosine", "distance"])
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("window", WINDOWS)
def test_the_window_of_a_patch_machine_is_found(images, starts, window, border, criterion):
    reference = patch_machine(images, window, border)
    found = calibrate_windows(patch_machine(images, 1, border), reference, GRID, WINDOWS, starts, criterion)
    assert (found.best == window).all()
    assert found.best.shape == (3, 5)
    assert found.median.tolist() == [window] * 3
    assert_close(found.scores[:, WINDOWS.index(window)], torch.full((3, 5), float(criterion == "cosine")).double())


@pytest.mark.parametrize("criterion", ["cosine", "distance"])
def test_the_table_of_a_patch_machine_is_found(images, starts, criterion):
    table = WindowTable.of(NOISY, [5, 3, 1])
    reference = patch_machine(images, table)
    found = calibrate_windows(patch_machine(images, 3), reference, GRID, WINDOWS, starts, criterion)
    assert found.table == table
    repeated = sample(patch_machine(images, found.table), starts, GRID)
    assert_close(repeated, sample(reference, starts, GRID))


def test_compiled_machines_are_calibrated_too(images, starts):
    data, x = images.float(), starts.float()
    table = WindowTable.of(NOISY, [5, 3, 1])
    found = calibrate_windows(patch_machine(data, 1), patch_machine(data, table), GRID, WINDOWS, x)
    assert found.table == table
    assert found.scores.dtype == torch.float64


@pytest.mark.parametrize("criterion", ["cosine", "distance"])
def test_scores_compare_the_predicted_noise_along_the_trajectories_of_the_reference(images, starts, criterion):
    reference = Gaussian.fit(images)
    found = calibrate_windows(patch_machine(images, 1), reference, GRID, WINDOWS, starts, criterion)
    assert found.levels == NOISY
    assert found.windows == WINDOWS
    assert found.criterion == criterion
    assert found.scores.shape == (3, 3, 5)
    for state, by_window in zip(trajectory(reference, starts, GRID), found.scores, strict=False):
        for window, score in zip(WINDOWS, by_window, strict=True):
            a = reference.eps(state.x, state.noise)
            b = patch_machine(images, window).eps(state.x, state.noise)
            expected = metrics.cosine(a, b) if criterion == "cosine" else (metrics.mse(a, b) * 60).sqrt()
            assert_close(score, expected)


def test_the_cosine_is_blind_to_the_size_of_the_predicted_noise(images, starts):
    """Twice the noise is the same direction, at another distance."""
    machine, reference = patch_machine(images, 1), patch_machine(images, 3)
    scores = {
        (criterion, factor): calibrate_windows(
            machine, Louder(reference, factor), GRID[:1], WINDOWS, starts, criterion
        ).scores
        for criterion in ("cosine", "distance")
        for factor in (1.0, 2.0)
    }
    assert_close(scores["cosine", 1.0], scores["cosine", 2.0])
    norm = reference.eps(starts, GRID[0]).flatten(1).norm(dim=1)
    assert_close(scores["distance", 2.0][0, 1], norm)


def test_the_own_window_of_the_machine_plays_no_part(images, starts):
    reference = Gaussian.fit(images)
    own = (1, 5, WindowTable((0.0,), (3,)))
    found = [calibrate_windows(patch_machine(images, w), reference, GRID, WINDOWS, starts).scores for w in own]
    for scores in found[1:]:
        assert_close(scores, found[0], rtol=0, atol=0)


def test_starts_do_not_mix(images, starts):
    machine, reference = patch_machine(images, 1), Gaussian.fit(images)
    together = calibrate_windows(machine, reference, GRID, WINDOWS, starts).scores
    alone = [calibrate_windows(machine, reference, GRID, WINDOWS, x[None]).scores for x in starts]
    assert_close(together, torch.cat(alone, 2))


def test_levels_without_signal_are_walked_through(images, starts):
    """From alpha = 0 the reference takes its step, and the first comparison is at the next level."""
    machine, reference = patch_machine(images, 1), patch_machine(images, 3)
    whole = levels(cosine, [1.0, 0.7, 0.4])
    found = calibrate_windows(machine, reference, whole, WINDOWS, starts)
    assert found.levels == tuple(whole[1:3])
    second = list(trajectory(reference, starts, whole))[1].x
    later = calibrate_windows(machine, reference, whole[1:], WINDOWS, second)
    assert_close(found.scores, later.scores)
    assert found.table.windows == (3, 3)


def test_the_last_level_may_hold_noise(images, starts):
    found = calibrate_windows(patch_machine(images, 1), patch_machine(images, 3), GRID[:2], WINDOWS, starts)
    assert found.levels == NOISY[:2]


def test_conditional_machines_are_calibrated_for_the_classes_of_the_starts(images, starts):
    labels, classes = torch.arange(12) % 2, torch.tensor([0, 1, 1, 0, 1])
    machine, reference = patch_machine(images, 1, labels=labels), patch_machine(images, 3, labels=labels)
    found = calibrate_windows(machine.given(classes), reference.given(classes), GRID, WINDOWS, starts)
    assert_close(found.scores[:, 1], torch.ones(3, 5).double())
    unconditional = calibrate_windows(machine, reference.given(classes), GRID, WINDOWS, starts)
    assert (unconditional.scores[-1, 1] < 0.999).all()


def calibration(best, criterion="cosine"):
    """A record of windows 3, 5, 7 in which these windows, (T, S), have the best scores."""
    hit = torch.tensor(best)[:, None] == torch.tensor([3, 5, 7])[:, None]
    scores = hit.double() if criterion == "cosine" else 1 - hit.double()
    return Calibration(NOISY[: len(best)], (3, 5, 7), scores, criterion)


@pytest.mark.parametrize("criterion", ["cosine", "distance"])
def test_the_median_of_an_even_number_is_the_lower_one(criterion):
    best = [[7, 7, 3, 5], [3, 7, 7, 3], [5, 3, 3, 3]]
    found = calibration(best, criterion)
    assert found.best.tolist() == best
    assert found.median.tolist() == [5, 3, 3]
    assert found.table == WindowTable.of(NOISY, [5, 3, 3])
    assert [found.table.at(log_snr(level)) for level in NOISY] == [5, 3, 3]


@pytest.mark.parametrize("criterion", ["cosine", "distance"])
def test_of_equally_good_windows_the_smallest_is_best(criterion):
    for scores in (torch.zeros(3, 3, 2), torch.ones(3, 3, 2)):
        found = replace(calibration([[3, 3]] * 3), scores=scores.double(), criterion=criterion)
        assert (found.best == 3).all()


def test_what_cannot_be_calibrated_gets_one_sentence(images, starts):
    machine, reference = patch_machine(images, 3), Gaussian.fit(images)
    refused("Gaussian has no windows", calibrate_windows, reference, machine, GRID, WINDOWS, starts)
    refused("criterion is 'angle'", calibrate_windows, machine, reference, GRID, WINDOWS, starts, "angle")
    for windows in ((), (5, 3), (3, 3)):
        refused("rising", calibrate_windows, machine, reference, GRID, windows, starts)
    for windows in ((3, 4), (3.0,)):
        refused("odd whole number", calibrate_windows, machine, reference, GRID, windows, starts)
    for pure in ([Noise(0.0, 1.0)], [Noise(1.0, 0.0)], []):
        refused("no level has both", calibrate_windows, machine, reference, pure, WINDOWS, starts)
    by_image = Noise(1.0, torch.ones(5, 1, 1, 1))
    refused("expected one number", calibrate_windows, machine, reference, [by_image], WINDOWS, starts)
    refused("expected a Noise", calibrate_windows, machine, reference, [0.5], WINDOWS, starts)
    for x in (starts[0], starts[:0], starts.long(), None):
        refused("expected floating images", calibrate_windows, machine, reference, GRID, WINDOWS, x)
    refused("shape", calibrate_windows, machine, reference, GRID, WINDOWS, starts[:, :1])
    refused("window", calibrate_windows, patch_machine(images, 3, "circular"), reference, GRID, (3, 7), starts)


# Mosaics --------------------------------------------------------------------------------------------------------


@pytest.fixture
def toy():
    """An image of ones and one of minus ones: the nearest 3 x 3 patch is that of the majority."""
    return torch.stack([torch.ones(1, 8, 8), -torch.ones(1, 8, 8)]).double()


def drawn(*black, size=8):
    """A white image with these (rows, columns) black."""
    x = torch.ones(1, 1, size, size, dtype=torch.float64)
    for rows, columns in black:
        x[:, :, rows, columns] = -1
    return x


def centres_by_loops(x, data, window, border):
    """The centre of the nearest patch for every pixel of one image, by going through all patches."""
    p, (H, W) = window // 2, x.shape[1:]
    everywhere = list(product(range(H), range(W)))

    def patches(y, i, j):
        cells = [(i + a, j + b) for a in range(-p, p + 1) for b in range(-p, p + 1)]
        inside = [border == "circular" or (0 <= r < H and 0 <= c < W) for r, c in cells]
        return torch.stack([y[:, :, r % H, c % W] * ok for (r, c), ok in zip(cells, inside, strict=True)], 1)

    found, keys = torch.empty_like(x), {place: patches(data, *place) for place in everywhere}
    for i, j in everywhere:
        places = everywhere if border != "same" else [(i, j)]
        if border == "zeros":  # the same place, along an axis on which the window reaches beyond the border
            rows, columns = ([k] if k < p or k >= n - p else range(p, n - p) for k, n in ((i, H), (j, W)))
            places = list(product(rows, columns))
        distance = [(patches(x[None], i, j) - keys[place]).square().sum((1, 2)) for place in places]
        centres = [data[:, :, r, c] for r, c in places]
        found[:, i, j] = torch.cat(centres)[torch.cat(distance).argmin()]
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("border", ["same", "zeros", "circular"])
@pytest.mark.parametrize("window", WINDOWS)
def test_training_images_are_mosaics_of_themselves(images, window, border, dtype):
    found = local_consistency(images[:4].to(dtype), images, window, border, atol=1e-6)
    assert found.share.tolist() == [1.0] * 4
    assert found.deviation.max() < 1e-6
    assert_close(found.mean_deviation, torch.zeros(4).double(), rtol=0, atol=1e-6)


def test_windows_that_wrap_find_themselves_only_inside(images):
    """With interior patches only, a window of x that wraps has no counterpart."""
    found = local_consistency(images[:4], images, 3, "interior", atol=1e-6)
    assert found.pixels[:, 1:-1, 1:-1].all()
    assert not found.pixels.all()


def test_circular_shifts_are_mosaics_on_the_torus_only(images):
    x = images[:3].roll((2, 1), (2, 3))
    assert (local_consistency(x, images, 3, "circular", atol=1e-6).share == 1).all()
    for border in ("zeros", "interior", "same"):
        assert (local_consistency(x, images, 3, border, atol=1e-6).share < 1).all()


@pytest.mark.parametrize("border", BORDERS)
def test_one_flipped_pixel_of_two_images(toy, border):
    """Its window holds eight whites, or at a corner of the image three: the nearest patch is white, 2 away."""
    places = [(3, 4)] if border == "interior" else [(3, 4), (0, 0), (7, 3)]
    for place in places:
        found = local_consistency(drawn(place), toy, 3, border, atol=0.5)
        assert found.share.item() == pytest.approx(63 / 64)
        assert found.mean_deviation.item() == pytest.approx(2 / 64)
        assert not found.pixels[0][place]
        assert found.deviation[0, 0][place] == 2


def test_blocks_of_two_images(toy):
    """A pixel stays if at least five of its 3 x 3 window agree with it."""
    share = lambda *black: local_consistency(drawn(*black), toy, 3, "circular", atol=0).share.item()  # noqa: E731
    block = lambda n: (slice(2, 2 + n), slice(2, 2 + n))  # noqa: E731
    assert share(block(2)) == pytest.approx(1 - 4 / 64)  # four of nine are black: all four pixels flip
    assert share(block(3)) == pytest.approx(1 - 4 / 64)  # only the corners flip, again with four of nine
    cross = [(slice(3, 5), slice(2, 6)), (slice(2, 6), slice(3, 5))]  # a 4 x 4 block without its corners
    assert share(*cross) == 1
    assert share((slice(None), slice(2, 3))) == pytest.approx(1 - 8 / 64)  # a line of width 1 has three of nine
    assert share((slice(None), slice(2, 4))) == 1  # of width 2: six of nine


def test_a_mosaic_is_no_training_image(toy):
    """Two half planes: neither training image, yet every pixel is the centre of its nearest patch."""
    x = drawn((slice(None), slice(4)))
    for border in BORDERS:
        found = local_consistency(x, toy, 3, border, atol=0)
        assert found.share.item() == 1
        assert found.mean_deviation.item() == 0
    assert metrics.nearest(x, toy)[0].item() == pytest.approx(64**0.5 * 2**0.5)


def test_a_pixel_counts_when_all_of_its_channels_do(toy):
    """One channel of one pixel flipped: one pixel fails, and the mean over both channels halves."""
    x = drawn().expand(1, 2, 8, 8).clone()
    x[0, 1, 3, 4] = -1
    found = local_consistency(x, toy.expand(2, 2, 8, 8), 3, atol=1.5)
    assert found.share.item() == pytest.approx(63 / 64)
    assert found.mean_deviation.item() == pytest.approx(1 / 64)
    assert found.deviation[0, :, 3, 4].tolist() == [0, 2]


def test_the_tolerance_is_in_units_of_the_pixels(toy):
    x = 0.75 * drawn()
    shares = {atol: local_consistency(x, toy, 3, atol=atol).share.item() for atol in (0, 0.2, 0.25, 1)}
    assert shares == {0: 0.0, 0.2: 0.0, 0.25: 1.0, 1: 1.0}
    found = local_consistency(x, toy, 3, atol=0)
    assert replace(found, atol=0.3).share.item() == 1  # the same comparison, judged anew
    assert found.mean_deviation.item() == pytest.approx(0.25)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("border", ["same", "zeros", "circular"])
@pytest.mark.parametrize("window", [1, 3, 5])
def test_the_nearest_patch_is_that_of_loops(images, randn, window, border, dtype):
    x = images[:2] + 0.4 * randn(2, 2, 5, 6)
    found = local_consistency(x.to(dtype), images[:6], window, border, atol=0.1)
    expected = torch.stack([centres_by_loops(one, images[:6], window, border) for one in x])
    assert_close(found.deviation, (x - expected).abs().to(dtype), rtol=0, atol=1e-6)
    assert found.deviation.dtype == dtype
    assert_close(found.share, ((x - expected).abs() <= 0.1).all(1).double().mean((1, 2)))


def test_only_patches_of_the_class_count(toy):
    x, labels = torch.cat([drawn(), -drawn()]), torch.tensor([7, 3])
    right = local_consistency(x, toy, 3, atol=0, labels=labels, classes=torch.tensor([7, 3]))
    wrong = local_consistency(x, toy, 3, atol=0, labels=labels, classes=torch.tensor([3, 7]))
    assert right.share.tolist() == [1, 1]
    assert wrong.share.tolist() == [0, 0]
    assert wrong.mean_deviation.tolist() == [2, 2]


def test_batches_of_data_serve(images):
    x = 0.9 * images[:3]
    whole, parts = (local_consistency(x, data, 3, atol=0.1) for data in (images, images.split(5)))
    assert_close(whole.deviation, parts.deviation, rtol=0, atol=0)


def test_patch_machines_come_nearer_to_mosaics_with_more_steps(images, randn):
    machine, x = patch_machine(images, 3, "circular"), 12 * randn(4, 2, 5, 6)
    ends = [sample(machine, x, edm_levels(n, 0.001, 12.0)) for n in (2, 60)]
    few, many = (local_consistency(end, images, 3, "circular", atol=0.02) for end in ends)
    assert few.share.mean() < 0.3 < 0.6 < many.share.mean()
    assert few.mean_deviation.mean() > 2 * many.mean_deviation.mean()


def test_a_machine_of_two_images_paints_new_mosaics(toy, randn):
    end = sample(patch_machine(toy, 3, "circular"), 12 * randn(16, 1, 8, 8), edm_levels(60, 0.001, 12.0))
    share = local_consistency(end, toy, 3, "circular", atol=1e-6).share
    assert share.mean() > 0.98
    assert len({tuple(one.flatten().tolist()) for one in end[share == 1]}) > 2  # so most are no training image


def test_what_cannot_be_compared_gets_one_sentence(toy):
    x, labels = drawn(), torch.tensor([0, 1])
    call = partial(local_consistency, atol=0.1)
    for atol in (-0.1, nan, inf, True, "0", None):
        refused("atol is", call, x, toy, 3, atol=atol)
    refused("odd whole number", call, x, toy, 4)
    refused("odd whole number", call, x, toy, WindowTable((0.0,), (3,)))
    refused("border is 'reflect'", call, x, toy, 3, "reflect")
    refused("window", call, x, toy, 9, "circular")
    refused("labels and classes", call, x, toy, 3, labels=labels)
    refused("labels and classes", call, x, toy, 3, classes=labels)
    refused("class", call, x, toy, 3, labels=labels, classes=labels[1:] + 4)
    for bad in (x[0], x[:0], x.long(), [x]):
        refused("expected floating images", call, bad, toy, 3)
    refused("NaN or infinite", call, x / 0, toy, 3)
    refused("shape", call, x[..., 1:], toy, 3)
    refused("shape", call, x, toy[0], 3)


def test_consistency_reads_its_record():
    deviation = torch.tensor([0.0, 0.1, 0.2, 0.3]).reshape(1, 1, 2, 2)
    found = Consistency(deviation, 0.15)
    assert found.pixels.tolist() == [[[True, True], [False, False]]]
    assert found.share.item() == 0.5
    assert found.mean_deviation.item() == pytest.approx(0.15)
