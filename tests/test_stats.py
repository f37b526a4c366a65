"""Monoid laws of the statistics, their precision, and their files."""

import math
import random
from functools import reduce

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from scoremachines import Gaussian, Moments, SoftMean

cuts = st.lists(st.integers(0, 24), max_size=6).map(lambda c: np.diff([0, *sorted(c), 24]).tolist())
seeds = st.integers(0, 2**31)
laws = settings(max_examples=40, deadline=None)


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shuffled(parts, seed):
    return random.Random(seed).sample(parts, len(parts))


def tree(parts):
    """Merge neighbours pairwise, as several processes would."""
    while len(parts) > 1:
        parts = [reduce(type(parts[0]).merge, parts[k : k + 2]) for k in range(0, len(parts), 2)]
    return parts[0]


def assert_same(a, b, **tolerance):
    for name in a.__dataclass_fields__:
        left, right = getattr(a, name), getattr(b, name)
        assert left == right if not isinstance(left, torch.Tensor) else assert_close(left, right, **tolerance) is None


# Moments --------------------------------------------------------------------------------------------------------


@laws
@given(sizes=cuts, seed=seeds)
def test_moments_of_any_partition_in_any_order(sizes, seed):
    data = normal(seed, 24, 2, 2) + 3
    whole = Moments.of(data)
    parts = shuffled([Moments.of(part) for part in data.split(sizes)], seed)
    for merged in (reduce(Moments.merge, parts), tree(parts)):
        assert_same(merged, whole, rtol=1e-10, atol=1e-10)


@laws
@given(seed=seeds, chunk=st.integers(1, 30))
def test_moments_do_not_depend_on_the_chunk(seed, chunk):
    data = normal(seed, 24, 3)
    assert_same(Moments.of(data, chunk), Moments.of(data), rtol=1e-10, atol=1e-10)


@given(seed=seeds)
def test_moments_of_nothing_are_the_identity(seed):
    some, nothing = Moments.of(normal(seed, 5, 2, 3)), Moments.of(torch.empty(0, 2, 3))
    assert_same(some.merge(nothing), some)
    assert_same(nothing.merge(some), some)
    assert nothing.merge(nothing).count == 0


def test_moments_are_mean_and_covariance(randn):
    data = randn(30, 2, 3)
    moments = Moments.of(data)
    flat = data.flatten(1).numpy()
    assert moments.count == 30
    assert moments.shape == (2, 3)
    assert_close(moments.mean.numpy(), flat.mean(0))
    assert_close(moments.cov.numpy(), np.cov(flat.T, bias=True))


@pytest.mark.parametrize("offset", [1e3, 1e6])
def test_float32_data_are_accumulated_in_float64(randn, offset):
    """With a large offset, sums in float32 or an uncentred second moment would lose the covariance."""
    data = (randn(5000, 3) + offset).float()
    moments = reduce(Moments.merge, map(Moments.of, data.split(7)))
    assert moments.mean.dtype == moments.cov.dtype == torch.float64
    assert_close(moments.mean.numpy(), data.double().numpy().mean(0), rtol=1e-13, atol=0)
    assert_close(moments.cov.numpy(), np.cov(data.double().numpy().T, bias=True), rtol=1e-9, atol=1e-9)


def test_moments_refuse_other_shapes():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(6,\)"):
        Moments.of(torch.ones(2, 2, 3)).merge(Moments.of(torch.ones(2, 6)))


def test_the_covariance_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no sample"):
        Moments.of(torch.empty(0, 3)).cov  # noqa: B018
    with pytest.raises(ValueError, match="no sample"):
        Gaussian.fit(Moments.of(torch.empty(0, 3)))


@pytest.mark.parametrize("bad", [torch.full((4, 3), math.nan), torch.ones(4), torch.tensor(1.0)])
def test_moments_of_bad_data_are_refused(bad):
    with pytest.raises(ValueError, match="data"):
        Moments.of(bad)


def test_gaussian_from_moments_is_gaussian_from_data(data, randn):
    a, b = Gaussian.fit(data), Gaussian.fit(Moments.of(data[:3]).merge(Moments.of(data[3:])))
    assert_close(a.lam, b.lam)
    assert_close(a.cov, b.cov)
    assert a.shape == b.shape


# Files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def moments(data):
    return Moments.of(data)


SOURCE = {"name": "digits", "sha256": "abc"}


@pytest.mark.parametrize("known", [{}, {"name": "digits"}, {"sha256": "abc"}])
def test_moments_of_unnamed_data_are_not_saved(tmp_path, moments, known):
    with pytest.raises(ValueError, match="provenance lacks"):
        moments.save(tmp_path / "m", **known)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def file(tmp_path, moments):
    moments.save(tmp_path / "digits.safetensors", **SOURCE, preprocessing="none")
    return tmp_path / "digits.safetensors"


def test_save_and_load(file, moments):
    found = Moments.load(file, name="digits", sha256="abc", preprocessing="none")
    assert_same(found, moments, rtol=0, atol=0)
    assert found.fingerprint == moments.fingerprint
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_saving_again_replaces_the_file(file):
    other = Moments.of(torch.ones(3, 2))
    other.save(file, **SOURCE)
    assert_same(Moments.load(file), other)


def test_the_fingerprint_tells_moments_apart(data, moments):
    others = [Moments.of(data[1:]), Moments.of(data.flatten(1)), Moments.of(data + 1e-9)]
    assert len({m.fingerprint for m in [moments, *others]}) == 4
    assert Moments.of(data).fingerprint == moments.fingerprint


@pytest.mark.parametrize("fact", [{"sha256": "abd"}, {"name": "mnist"}, {"seed": "1"}, {"count": "11"}])
def test_moments_of_other_data_are_refused(file, fact):
    key, value = next(iter(fact.items()))
    with pytest.raises(ValueError, match=f"{key} = .*expected {value}") as error:
        Moments.load(file, **fact)
    assert str(file) in str(error.value)


def test_provenance_cannot_contradict_the_numbers(tmp_path, moments):
    for wrong in ({"count": "11"}, {"fingerprint": "0"}, {"shape": "[6]"}):
        with pytest.raises(ValueError, match="contradicts"):
            moments.save(tmp_path / "m", **SOURCE, **wrong)
    moments.save(tmp_path / "m", **SOURCE, count="10")
    assert Moments.load(tmp_path / "m", count="10").count == 10


def test_numbers_that_do_not_match_the_fingerprint_are_refused(file, moments):
    facts = {"count": "10", "shape": "[1, 2, 3]", "fingerprint": moments.fingerprint}
    tensors = load_file(file)
    tensors["mean"][0] += 1e-12
    save_file(tensors, file, metadata=facts)
    with pytest.raises(ValueError, match="fingerprint") as error:
        Moments.load(file)
    assert str(file) in str(error.value)


@pytest.mark.parametrize("facts", [{"count": "ten"}, {"shape": "[1,"}, {"shape": "6"}])
def test_unreadable_facts_are_refused(file, moments, facts):
    facts = {"count": "10", "shape": "[1, 2, 3]", "fingerprint": moments.fingerprint} | facts
    save_file(load_file(file), file, metadata=facts)
    with pytest.raises(ValueError, match="remake it") as error:
        Moments.load(file)
    assert str(file) in str(error.value)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_files_are_refused(file, keep):
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match="not a complete safetensors file") as error:
        Moments.load(file)
    assert str(file) in str(error.value)


def test_files_of_something_else_are_refused(tmp_path):
    save_file({"weights": torch.ones(2)}, tmp_path / "net")
    with pytest.raises(ValueError, match="weights"):
        Moments.load(tmp_path / "net")
    (tmp_path / "text").write_text("not a tensor " * 30)
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        Moments.load(tmp_path / "text")


def test_missing_files_are_named(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(FileNotFoundError, match=str(path)):
            Moments.load(path)


def test_an_unwritable_target_leaves_nothing_behind(tmp_path, moments):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").touch()
    (tmp_path / "file").touch()
    for target in (tmp_path / "folder", tmp_path / "file" / "m", tmp_path / "none" / "m"):
        with pytest.raises(OSError, match=target.name):
            moments.save(target, **SOURCE)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "kept"]


def test_a_failed_write_keeps_the_old_file(file, moments, monkeypatch):
    before = file.read_bytes()

    def half(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr("scoremachines.stats.save_file", half)
    with pytest.raises(OSError, match="no space"):
        moments.save(file, **SOURCE)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


# SoftMean -------------------------------------------------------------------------------------------------------


def soft(seed, scale):
    return scale * normal(seed, 3, 24), normal(seed + 1, 24, 2)


@laws
@given(sizes=cuts, seed=seeds, scale=st.sampled_from([1.0, 1e3, 1e12]))
def test_soft_mean_of_any_partition_in_any_order(sizes, seed, scale):
    logits, values = soft(seed, scale)
    whole = SoftMean.of(logits, values)
    pieces = zip(logits.split(sizes, 1), values.split(sizes), strict=True)
    parts = shuffled([SoftMean.of(*piece) for piece in pieces], seed)
    for merged in (reduce(SoftMean.merge, parts), tree(parts)):
        assert_same(merged, whole, rtol=1e-9, atol=1e-9)
    assert_close(whole.mean, logits.softmax(1) @ values)
    assert_close(whole.logsumexp, logits.logsumexp(1))


@given(seed=seeds)
def test_soft_mean_of_nothing_is_the_identity(seed):
    some = SoftMean.of(*soft(seed, 5.0))
    nothing = SoftMean.of(torch.empty(3, 0).double(), torch.empty(0, 2).double())
    assert_same(some.merge(nothing), some)
    assert_same(nothing.merge(some), some)
    assert_same(nothing.merge(nothing), nothing)
    assert (nothing.logsumexp == -math.inf).all()


@given(seed=seeds, shift=st.floats(-1e6, 1e6))
def test_a_common_factor_cancels(seed, shift):
    logits, values = soft(seed, 2.0)
    a, b = SoftMean.of(logits, values), SoftMean.of(logits + shift, values)
    assert_close(a.mean, b.mean, rtol=1e-7, atol=1e-7)
    assert_close(b.logsumexp, a.logsumexp + shift, rtol=1e-9, atol=1e-7)


def test_weights_of_zero_count_nothing():
    """Log weights of -inf, alone in their chunk or not, first or last."""
    logits, values = soft(0, 1.0)
    logits[:, :4] = -math.inf
    logits[:, 20:] = -math.inf
    parts = [SoftMean.of(part, v) for part, v in zip(logits.split(4, 1), values.split(4), strict=True)]
    for order in (parts, parts[::-1]):
        merged = reduce(SoftMean.merge, order)
        assert_close(merged.mean, logits[:, 4:20].softmax(1) @ values[4:20])
        assert_close(merged.logsumexp, logits.logsumexp(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("peak", [-1e30, -1e4, 0.0, 1e4, 1e30])
def test_huge_log_weights_neither_overflow_nor_vanish(dtype, peak):
    logits = torch.tensor([[peak, peak, 2 * peak if peak < 0 else peak / 2]], dtype=dtype)
    values = torch.tensor([[1.0], [3.0], [100.0]], dtype=dtype)
    merged = SoftMean.of(logits[:, :1], values[:1]).merge(SoftMean.of(logits[:, 1:], values[1:]))
    expected = logits.softmax(1) @ values
    assert merged.mean.dtype == dtype
    assert_close(merged.mean, expected)


def test_soft_mean_can_be_differentiated(randn):
    """The gradient of logsumexp is the softmax, through chunks too."""
    logits, values = soft(3, 2.0)
    logits.requires_grad_()
    parts = [SoftMean.of(part, v) for part, v in zip(logits.split(7, 1), values.split(7), strict=True)]
    (gradient,) = torch.autograd.grad(reduce(SoftMean.merge, parts).logsumexp.sum(), logits)
    assert_close(gradient, logits.softmax(1))
