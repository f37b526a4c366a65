"""The equivariant machine against the ideal machine of all shifts, spelled out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from scoremachines import Equivariant, Ideal, Noise, edm
from tests.conftest import noisy, pictures, refused, seeded, shifts

DTYPES = (torch.float32, torch.float64)
CLOSE = {torch.float32: {"rtol": 1e-5, "atol": 1e-5}, torch.float64: {"rtol": 1e-10, "atol": 1e-10}}
LEVELS = (Noise(0.8, 0.6), Noise(1.0, 0.1), Noise(1.0, 30.0), Noise(0.0, 1.0))
QUANTITIES = ("denoise", "score", "eps", "log_density")

both_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def noisy_shifts(data, *args):
    return noisy(data.roll((1, 2), (2, 3)), *args)


# Against the ideal machine of the orbit -----------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 5), (1, 4, 1), (2, 4, 4), (3, 5, 3), (1, 6, 7)], ids=str)
def test_it_is_the_ideal_machine_of_all_shifts(shape, dtype):
    """Odd and even sides, which a transform of real numbers treats differently."""
    data = pictures(7, *shape, dtype=dtype)
    machine, ideal = Equivariant.fit(data), Ideal.fit(shifts(data.double()))
    for noise in (*LEVELS, Noise(torch.linspace(0, 1, 3).reshape(3, 1, 1, 1), 0.5)):
        x = noisy_shifts(data, noise)
        for quantity in QUANTITIES:
            found = getattr(machine, quantity)(x, noise)
            assert found.dtype == dtype
            tolerance = {**CLOSE[dtype]}
            if dtype == torch.float32 and quantity in ("score", "eps"):  # a difference divided by sigma or its square
                tolerance["atol"] = 1e-5 / noise.on(x)[1].min().item() ** 2
            assert_close(found.double(), getattr(ideal, quantity)(x.double(), noise), **tolerance)


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 12),
    batch=st.integers(1, 5),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)),
    chunk=st.sampled_from([1, 2, 3, 7, 2048]),
    level=st.tuples(st.floats(0, 1.5), st.floats(0.05, 20)),
    seed=st.integers(0, 2**31),
)
def test_neither_batch_nor_chunk_nor_shape_matter(count, batch, shape, chunk, level, seed):
    data, noise = pictures(count, *shape, seed=seed), Noise(*level)
    x = noisy_shifts(data, noise, batch, seed + 1)
    machine, ideal = Equivariant.fit(data, chunk=chunk), Ideal.fit(shifts(data))
    assert_close(machine.denoise(x, noise), ideal.denoise(x, noise), **CLOSE[torch.float64])
    assert_close(machine.log_density(x, noise), ideal.log_density(x, noise), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("chunk", [1, 3, 4, 11, 100])
def test_ragged_chunks(chunk):
    data, noise = pictures(11, 2, 4, 5), Noise(torch.linspace(0.1, 1, 4).reshape(4, 1, 1, 1), 0.5)
    x = noisy_shifts(data, noise, 4)
    whole, machine = Equivariant.fit(data), Equivariant.fit(iter(data.split((3, 1, 7))), chunk=chunk)
    for quantity in QUANTITIES:
        assert_close(getattr(machine, quantity)(x, noise), getattr(whole, quantity)(x, noise), **CLOSE[torch.float64])


@pytest.mark.parametrize("chunk", [1, 4, 2048])
def test_labels_restrict_the_images(chunk):
    """A batch of mixed classes; the density is that of the law of the class, whose size counts."""
    data, labels = pictures(20, 1, 4, 3), torch.arange(20) % 3 + 4
    labels[7] = 9
    level, classes = Noise(torch.linspace(0.2, 1, 4).reshape(4, 1, 1, 1), 0.5), torch.tensor([5, 9, 4, 5])
    x, machine = noisy_shifts(data, level, 4), Equivariant.fit(data, labels=labels, chunk=chunk)
    for b, label in enumerate(classes.tolist()):
        noise, ideal = Noise(level.alpha[b : b + 1], 0.5), Ideal.fit(shifts(data[labels == label]))
        for quantity in QUANTITIES:
            found = getattr(machine.given(classes), quantity)(x, level)[b]
            assert_close(found, getattr(ideal, quantity)(x[b : b + 1], noise)[0], **CLOSE[torch.float64])
    assert_close(machine.denoise(x, level), Equivariant.fit(data).denoise(x, level))


# What follows from it -----------------------------------------------------------------------------------------------


@both_dtypes
def test_it_commutes_with_shifts(dtype):
    data, noise = pictures(9, 2, 5, 6, dtype=dtype), Noise(0.8, 0.5)
    x, machine = noisy_shifts(data, noise), Equivariant.fit(data)
    for step in ((1, 0), (0, -1), (3, 4)):
        shifted = x.roll(step, (2, 3))
        assert_close(machine.denoise(shifted, noise), machine.denoise(x, noise).roll(step, (2, 3)), **CLOSE[dtype])
        assert_close(machine.log_density(shifted, noise), machine.log_density(x, noise), rtol=1e-5, atol=1e-5)


def test_images_count_as_often_as_they_are_there_wherever_they_are():
    data, noise = pictures(9, 2, 5, 6), Noise(0.8, 0.5)
    x, machine = noisy_shifts(data, noise), Equivariant.fit(data)
    moved = torch.cat([image.roll((k, 2 * k), (1, 2))[None] for k, image in enumerate(data.flip(0))])
    for others in (moved, data.repeat(3, 1, 1, 1)):
        for quantity in QUANTITIES:
            assert_close(getattr(Equivariant.fit(others), quantity)(x, noise), getattr(machine, quantity)(x, noise))


def test_a_black_and_a_white_image():
    """No shift changes them: x0 = tanh((alpha / sigma^2) times the sum of the image) at every pixel."""
    data = torch.ones(2, 1, 4, 3, dtype=torch.float64) * torch.tensor([1, -1]).reshape(2, 1, 1, 1)
    x = torch.randn(4, 1, 4, 3, generator=seeded(), dtype=torch.float64)
    for noise in (Noise(0.8, 2.0), Noise(0.1, 1.0)):
        expected = (noise.alpha / noise.sigma**2 * x.sum((1, 2, 3), keepdim=True)).tanh().expand_as(x)
        assert_close(Equivariant.fit(data).denoise(x, noise), expected)


def test_only_the_noise_to_signal_ratio_matters():
    data = pictures(9, 1, 5, 4)
    x, machine = noisy_shifts(data, edm(0.7)), Equivariant.fit(data)
    for scale in (0.1, 3.0):
        expected = machine.denoise(x, edm(0.7))
        assert_close(machine.denoise(scale * x, Noise(scale, 0.7 * scale)), expected)


def test_density_integrates_to_one():
    grid = torch.linspace(-6, 6, 201, dtype=torch.float64)
    x = torch.cartesian_prod(grid, grid).reshape(-1, 1, 1, 2)
    machine = Equivariant.fit(torch.tensor([[-1.0, 0.2], [0.9, 0.3]], dtype=torch.float64).reshape(2, 1, 1, 2))
    mass = machine.log_density(x, Noise(0.7, 0.5)).exp().sum() * (grid[1] - grid[0]) ** 2
    assert mass.item() == pytest.approx(1, abs=1e-6)


@both_dtypes
def test_with_little_noise_the_nearest_shift_is_returned(dtype):
    data = pictures(9, 3, 5, 4, dtype=dtype)
    for sigma in (1e-3, 1e-6, 1e-8):
        machine, x = Equivariant.fit(data), data.roll((2, 1), (2, 3))
        assert_close(machine.denoise(x, edm(sigma)), x, rtol=1e-5, atol=1e-5)


def test_covariance_and_gradients_are_those_of_the_orbit():
    data, noise = pictures(6, 2, 3, 4), Noise(torch.tensor([0.8, 0.3]).reshape(2, 1, 1, 1), 0.6)
    x, v = noisy_shifts(data, noise, 2), torch.randn(2, 2, 3, 4, generator=seeded(5), dtype=torch.float64)
    machine, ideal = Equivariant.fit(data, chunk=4), Ideal.fit(shifts(data))
    expected = ideal.posterior_cov_product(x, noise, v)
    assert_close(machine.posterior_cov_product(x, noise, v), expected, rtol=1e-9, atol=1e-10)
    point = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(machine.log_density(point, noise).sum(), point)
    assert_close(gradient, machine.score(x, noise), rtol=1e-9, atol=1e-10)


# Refusals -----------------------------------------------------------------------------------------------------------


def test_what_is_refused():
    data, labels = pictures(6, 1, 5, 5), torch.arange(6) % 2
    machine, x = Equivariant.fit(data, labels=labels), data[:3]
    for call in (machine.denoise, machine.log_density, machine.score, machine.eps):
        refused("one level", call, x, Noise(1.0, torch.ones(1, 1, 5, 5)))
        refused("sigma is 0", call, x, Noise(1.0, 0.0))
        refused("shape", call, x[..., :4], edm(1.0))
        refused("shape", call, x.flatten(1), edm(1.0))
        refused("expected a Noise", call, x, 1.0)
    for chunk in (0, -1, 1.5, True, None):
        refused("chunk", Equivariant.fit, data, chunk=chunk)
    for other in (data.flatten(1), data[:, 0], data[None], [data, data[..., :4]]):
        refused("shape", Equivariant.fit, other)
    refused("without labels", Equivariant.fit(data).given, labels[:3])
    refused("labels", Equivariant.fit, data, labels=labels[:5])
    refused("labels", Equivariant.fit, data, labels=labels.double())
    refused("2", machine.given, torch.tensor([0, 1, 2]))
    refused("labels", machine.given(labels[:2]).denoise, x, edm(1.0))
    refused("labels", machine.given(labels[:4]).log_density, x, edm(1.0))
    refused("alpha is 0", machine.posterior_cov_product, x, Noise(0.0, 1.0), x)


@pytest.mark.parametrize("quantity", ["denoise", "log_density"])
def test_only_where_the_exponent_overflows_sigma_is_refused(quantity):
    data = pictures(6, 1, 5, 5)
    call = getattr(Equivariant.fit(data), quantity)
    for sigma in (1e-20, 1e-100, 1e-150):
        assert call(data + 0.1, edm(sigma)).isfinite().all()
    for sigma in (1e-154, 1e-200, 1e-320):
        refused("sigma is .* overflows", call, data + 0.1, edm(sigma))
