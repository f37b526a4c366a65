"""The shared ridge: its features counted, its regression against least squares, its limits, its refusals."""

import pytest
import torch
from torch.testing import assert_close

from scoremachines import Noise, edm
from scoremachines.bases import DCT, Pixel, Wavelet
from scoremachines.frames import Frame
from scoremachines.ridge import RidgeSums, SharedFeatures, SharedRidge

NOISE = Noise(0.8, 0.5)
HAAR = Wavelet("haar", levels=1)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.fixture
def images(rand):
    """Four hundred smooth, skewed images of 4 x 4."""
    x = rand(400, 1, 4, 4)
    return 2 * (x + x.roll(1, 2) + x.roll(1, 3)) ** 2 / 9 - 1


def noisy(x0, noise=NOISE):
    """The noisy images that a machine fitted with `seeded()` has seen."""
    return noise.add(x0, torch.randn(x0.shape, generator=seeded(), dtype=x0.dtype))


# Features ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "family", "scaling", "counts"),
    [
        (32, "independent", True, (1565, 3129, 4693)),
        (32, "band-tied", False, (1276, 3826, 8076)),
        (32, "local", False, (1276, 7075, 17398)),
        (64, "independent", True, (5629, 11257, 16885)),
        (64, "band-tied", False, (4540, 13618)),
    ],
)
def test_numbers_of_features_of_the_paper(side, family, scaling, counts):
    frame = Frame(scaling_level=1)
    found = [SharedFeatures.of(frame, (1, side, side), family, d, 1, scaling) for d in range(1, len(counts) + 1)]
    assert tuple(map(len, found)) == counts


def by_hand(basis, x, family):
    """The features of degree 3, one coefficient at a time, from the definitions of the families."""
    z = basis.analysis(x)[:, 0]
    found = {"1": torch.ones_like(z[:, 0, 0])}
    for band in basis.bands(x.shape[1:]):
        w = z[:, band.rows, band.columns]
        h, v = w.shape[1:]
        for i in range(h):
            for j in range(v):
                y = w[:, i, j]
                found |= {f"{band.name}{i}{j}^{n}": y**n for n in (1, 2, 3)}
                if family == "local":
                    for k, m in {((i + a) % h, (j + b) % v) for a in (-1, 0, 1) for b in (-1, 0, 1)} - {(i, j)}:
                        one, two = sorted([(i, j), (k, m)])
                        for a, b in ((1, 1), (1, 2), (2, 1)):
                            value = w[:, one[0], one[1]] ** a * w[:, two[0], two[1]] ** b
                            found[f"{band.name}{one}{two}{a}{b}"] = value
    return torch.stack(list(found.values()))


@pytest.mark.parametrize("family", ["independent", "local"])
def test_features_are_those_of_the_definition(images, family):
    ours = SharedFeatures.of(HAAR, (1, 4, 4), family, 3).values(images[:30])
    theirs = by_hand(HAAR, images[:30], family)
    assert ours.shape == theirs.shape
    a, b = (values[values[:, 0].sort().indices] for values in (ours, theirs))
    assert_close(a, b)


def test_band_tied_features_are_all_monomials_of_a_triple(images):
    z = HAAR.analysis(images[:1])[0, 0]
    ours = SharedFeatures.of(HAAR, (1, 4, 4), "band-tied", 3, scaling=False).values(images[:1])[:, 0]
    found = [torch.tensor(1.0, dtype=torch.float64)]
    for i in range(2):
        for j in range(2):
            h, v, d = z[2 + i, j], z[i, 2 + j], z[2 + i, 2 + j]
            found += [h**a * v**b * d**c for a in range(4) for b in range(4) for c in range(4) if 0 < a + b + c < 4]
    assert_close(ours.sort().values, torch.stack(found).sort().values)


def test_a_union_knows_where_its_parts_are(images):
    parts = [SharedFeatures.of(HAAR, (1, 4, 4), family, d) for family, d in (("local", 2), ("band-tied", 3))]
    union, places = parts[0].union(parts[1])
    assert len(union) < len(parts[0]) + len(parts[1])
    for part, place in zip(parts, places, strict=True):
        assert (place.diff() > 0).all()
        assert_close(union.values(images[:5])[place], part.values(images[:5]))


# The regression ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dictionary", "family"),
    [
        (HAAR, "independent"),
        (HAAR, "local"),
        (DCT(), "independent"),
        (Frame("haar", 1), "independent"),
        (Frame("haar", 1), "local"),
    ],
)
def test_without_ridge_it_is_least_squares(images, dictionary, family):
    machine = SharedRidge.fit(images, dictionary, NOISE, family, degree=2, ridge=0, rng=seeded())
    x = noisy(images)
    A, Y = machine.features.values(x).T, images.flatten(1)
    expected = A @ torch.linalg.lstsq(A, Y).solution
    assert_close(machine.denoise(x, NOISE).flatten(1), expected, rtol=1e-8, atol=1e-8)
    assert machine.training_error == pytest.approx((expected - Y).square().mean().item(), rel=1e-8)


@pytest.mark.parametrize("penalty", ["readout", "score"])
def test_with_ridge_it_minimises_the_penalised_error(images, penalty):
    """Brute force: ridge is least squares with sqrt(gamma N) I appended, on features of mean 0 and variance 1."""
    gamma, x = 0.3, noisy(images)
    machine = SharedRidge.fit(images, HAAR, NOISE, degree=2, ridge=gamma, penalty=penalty, rng=seeded())
    A = machine.features.values(x).T
    A[:, 1:] = (A[:, 1:] - A[:, 1:].mean(0)) / A[:, 1:].std(0, correction=0)
    offset = x.flatten(1) / NOISE.alpha if penalty == "score" else torch.zeros(len(x), 16, dtype=x.dtype)
    tall = torch.cat([A, (gamma * len(x)) ** 0.5 * torch.eye(A.shape[1], dtype=A.dtype)])
    target = torch.cat([images.flatten(1) - offset, torch.zeros(A.shape[1], 16, dtype=A.dtype)])
    expected = offset + A @ torch.linalg.lstsq(tall, target).solution
    assert_close(machine.denoise(x, NOISE).flatten(1), expected, rtol=1e-8, atol=1e-8)
    assert machine.training_error == pytest.approx((expected - images.flatten(1)).square().mean().item(), rel=1e-8)


def test_without_ridge_both_penalties_are_one_machine(images):
    a, b = (SharedRidge.fit(images, HAAR, NOISE, ridge=0, penalty=p, rng=seeded()) for p in ("readout", "score"))
    x = noisy(images[:20])
    assert_close(a.denoise(x, NOISE), b.denoise(x, NOISE), rtol=1e-7, atol=1e-7)


def test_a_large_ridge_ends_at_the_zero_image_or_at_the_identity(images):
    x = noisy(images[:20])
    readout, score = (
        SharedRidge.fit(images, HAAR, NOISE, ridge=1e12, penalty=p, rng=seeded()) for p in ("readout", "score")
    )
    assert_close(readout.denoise(x, NOISE), torch.zeros_like(x), atol=1e-8, rtol=0)
    assert_close(score.denoise(x, NOISE), x / NOISE.alpha, atol=1e-8, rtol=0)
    assert_close(score.score(x, NOISE), torch.zeros_like(x), atol=1e-8, rtol=0)


def test_independent_degree_one_is_the_full_linear_filter_of_the_sample(images):
    """Not the diagonal one: the dense readout sees every coefficient, so the basis drops out."""
    x = noisy(images)
    a, b = x.flatten(1) - x.flatten(1).mean(0), images.flatten(1) - images.flatten(1).mean(0)
    wiener = images.flatten(1).mean(0) + a @ torch.linalg.solve(a.T @ a, a.T @ b)
    for basis in (HAAR, Pixel()):
        machine = SharedRidge.fit(images, basis, NOISE, degree=1, ridge=1e-12, rng=seeded())
        assert_close(machine.denoise(x, NOISE).flatten(1), wiener, rtol=1e-7, atol=1e-7)


def test_nested_fits_are_those_of_separate_fits(images):
    features = {d: SharedFeatures.of(HAAR, (1, 4, 4), "independent", d) for d in (1, 2, 3)}
    machines = SharedRidge.nested(images, features, NOISE, rng=seeded())
    x = noisy(images[:20])
    for d, machine in machines.items():
        alone = SharedRidge.fit(images, HAAR, NOISE, degree=d, rng=seeded())
        assert_close(machine.denoise(x, NOISE), alone.denoise(x, NOISE), rtol=1e-9, atol=1e-9)


def test_sums_merge_in_any_order_and_streaming_changes_nothing(images, monkeypatch):
    x, features = noisy(images), SharedFeatures.of(HAAR, (1, 4, 4), "local", 3)
    whole = RidgeSums.of(x, images, features).centred()
    monkeypatch.setattr("scoremachines.ridge.ENTRIES", 50 * len(features))
    monkeypatch.setattr("scoremachines.ridge.BLOCK", 7)
    parts = [RidgeSums.of(x[s], images[s], features) for s in (slice(0, 0), slice(0, 130), slice(130, 400))]
    for order in ((0, 1, 2), (2, 0, 1)):
        sums = parts[order[0]].merge(parts[order[1]]).merge(parts[order[2]]).centred()
        assert sums.count == 400
        for name in ("center", "cross", "energy"):
            assert_close(getattr(sums, name), getattr(whole, name))
        assert_close(sums.gram.triu(), whole.gram.triu(), rtol=1e-9, atol=1e-9)


def test_more_draws_bring_the_fit_closer_to_fresh_noise(images):
    """With p = 33 features of few images, in-sample error is optimistic; draws of the noise narrow the gap."""
    few, gaps = images[:60], []
    for draws in (1, 20):
        machine = SharedRidge.fit(few, HAAR, NOISE, degree=2, draws=draws, rng=seeded())
        fresh = Noise(0.8, 0.5).add(few.repeat(50, 1, 1, 1), torch.randn(3000, 1, 4, 4, generator=seeded()).double())
        error = (machine.denoise(fresh, NOISE) - few.repeat(50, 1, 1, 1)).square().mean().item()
        gaps.append(error - machine.training_error)
    assert gaps[1] < gaps[0] / 3


def test_a_value_that_never_varies_is_legal(images):
    still = images.clone()
    still[:, :, 0, 0] = 0.25
    machine = SharedRidge.fit(still, Pixel(), edm(0.0), degree=2, rng=seeded())
    assert machine.weights.isfinite().all()
    assert_close(machine.denoise(still[:3], edm(0.0)), still[:3], rtol=1e-3, atol=1e-3)


def test_precision_follows_the_query(images):
    machine = SharedRidge.fit(images, HAAR, NOISE, rng=seeded())
    x = noisy(images[:8])
    assert_close(machine.denoise(x.float(), NOISE), machine.denoise(x, NOISE).float(), rtol=1e-4, atol=1e-4)
    assert_close(machine.denoise(x[3:4], NOISE), machine.denoise(x, NOISE)[3:4])


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"family": "energy"}, "family is 'energy'"),
        ({"degree": 0}, "degree is 0"),
        ({"radius": 0.5}, "radius is 0.5"),
        ({"ridge": -1.0}, "ridge is -1.0"),
        ({"penalty": "none"}, "penalty is 'none'"),
        ({"draws": 0}, "draws is 0"),
        ({"noise": Noise(0.0, 1.0), "penalty": "score"}, "alpha is 0"),
        ({"noise": edm(torch.ones(1, 1, 4, 4))}, "not a single level"),
        ({"family": "band-tied", "dictionary": Pixel()}, "has a relative called 'siblings'"),
        ({"dictionary": "db2"}, "expected a Basis or a Frame"),
        ({"dictionary": Frame("haar", 1, scaling_level=1), "degree": 1, "ridge": 0, "n": 10}, "is singular"),
    ],
)
def test_bad_arguments_get_one_sentence(images, settings, words):
    arguments = {"dictionary": HAAR, "noise": NOISE, **settings}
    data = images[: arguments.pop("n", 400)]
    with pytest.raises(ValueError, match=words) as caught:
        SharedRidge.fit(data, **arguments)
    assert str(caught.value).count(". ") == 0
    assert "\n" not in str(caught.value)


def test_images_of_another_shape_are_refused(images):
    with pytest.raises(ValueError, match=r"samples have shape \(4, 4\), expected images of shape \(C, H, W\)"):
        SharedRidge.fit(images[:, 0], HAAR, NOISE)
    features = {"small": SharedFeatures.of(HAAR, (1, 2, 2))}
    with pytest.raises(ValueError, match=r"images have shape \(400, 1, 4, 4\), expected \(B, 1, 2, 2\)"):
        SharedRidge.nested(images, features, NOISE)


def test_batches_are_read_once(images):
    read = []
    stream = (read.append(len(part)) or part for part in images.split(150))
    machine = SharedRidge.fit(stream, HAAR, NOISE, rng=seeded())
    assert read == [150, 150, 100]
    assert machine.training_error > 0


def test_it_refuses_a_level_it_was_not_fitted_at(images):
    machine = SharedRidge.fit(images, HAAR, NOISE, rng=seeded())
    x = noisy(images[:4])
    machine.denoise(x, Noise(torch.full((4, 1, 1, 1), 0.8), torch.full((4, 1, 1, 1), 0.5)))
    for level in (edm(0.5), Noise(0.8, torch.tensor([0.5, 0.5, 0.5, 0.6]).reshape(4, 1, 1, 1))):
        with pytest.raises(ValueError, match="fit another at this level"):
            machine.denoise(x, level)


def test_sums_of_different_features_do_not_merge(images):
    a, b = (RidgeSums.of(images, images, SharedFeatures.of(HAAR, (1, 4, 4), "independent", d)) for d in (1, 2))
    with pytest.raises(ValueError, match="different features"):
        a.merge(b)


def test_only_features_of_one_dictionary_have_a_union(images):
    a, b = (SharedFeatures.of(basis, (1, 4, 4)) for basis in (HAAR, Pixel()))
    with pytest.raises(ValueError, match="different dictionaries"):
        SharedRidge.nested(images, {"haar": a, "pixels": b}, NOISE)
    with pytest.raises(ValueError, match="features is empty"):
        SharedRidge.nested(images, {}, NOISE)


def test_without_the_scaling_band_the_penalties_differ_even_at_ridge_zero(images):
    """x is not in the span of its details: only the score penalty passes the low-pass image on."""
    features = {"details": SharedFeatures.of(HAAR, (1, 4, 4), "independent", 1, scaling=False)}
    x, Y = noisy(images), images.flatten(1)
    A = features["details"].values(x).T
    for penalty, offset in (("readout", torch.zeros_like(Y)), ("score", x.flatten(1) / NOISE.alpha)):
        fitted = SharedRidge.nested(images, features, NOISE, ridge=0, penalty=penalty, rng=seeded())["details"]
        expected = offset + A @ torch.linalg.lstsq(A, Y - offset).solution
        assert_close(fitted.denoise(x, NOISE).flatten(1), expected, rtol=1e-8, atol=1e-8)
    low = HAAR.analysis(expected.reshape(x.shape))[..., :2, :2] - HAAR.analysis(x)[..., :2, :2] / NOISE.alpha
    assert low.square().mean() < 0.1 * (NOISE.sigma / NOISE.alpha) ** 2
