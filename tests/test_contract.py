"""The contract of every machine: shapes, batches, ends, purity, refusals, Tweedie.

What is marked `density` is asked only of the machines that have a `log_density`: they are exact posterior means.
"""

import re
from itertools import product

import pytest
import torch
from torch.testing import assert_close

from scoremachines import Gaussian, Ideal, Machine, Moments, Noise
from scoremachines.smoothed import KernelDensity
from tests.conftest import one_sentence

DTYPES = (torch.float32, torch.float64)
TOLERANCE = {torch.float32: {"rtol": 2e-4, "atol": 2e-5}, torch.float64: {"rtol": 1e-9, "atol": 1e-11}}
LEVEL = Noise(0.8, 0.6)

both_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_quantity = pytest.mark.quantities("denoise", "score", "eps", "log_density")
density = pytest.mark.quantities("log_density")


@pytest.fixture
def machine(fit, data):
    return fit(data)


@pytest.fixture
def x(data, randn):
    return LEVEL.add(data[:6], randn(6, *data.shape[1:]))


def per_image():
    alpha, sigma = torch.linspace(0, 1, 6), torch.linspace(0.3, 2, 6)
    return Noise(alpha.reshape(6, 1, 1, 1), sigma.reshape(6, 1, 1, 1))


def per_component(shape):
    n = torch.tensor(shape).prod()
    return Noise(torch.linspace(0.2, 1, n).reshape(1, *shape), torch.linspace(1.5, 0.3, n).reshape(1, *shape))


def per_everything(x):
    ramp = torch.linspace(0.1, 1, x.numel(), dtype=torch.float64).reshape(x.shape)
    return Noise(ramp, 1.2 - ramp)


def some_levels(x):
    axes = torch.full((1,) * x.ndim, 0.7, dtype=torch.float64)
    return [
        LEVEL,
        Noise(torch.tensor(0.8), 0.6),
        Noise(axes, 1),
        per_image(),
        per_component(x.shape[1:]),
        per_everything(x),
    ]


def rows(value, b):
    return value[b : b + 1] if isinstance(value, torch.Tensor) and value.ndim and len(value) > 1 else value


def one_row(noise, b):
    return Noise(rows(noise.alpha, b), rows(noise.sigma, b))


def by_component(noise):
    return any(torch.as_tensor(level).shape[1:].numel() > 1 for level in (noise.alpha, noise.sigma))


def refuses(machine, f, *args):
    """Whether the call is refused: Ideal and Gaussian may not, another machine does it in one sentence."""
    try:
        f(*args)
        return False
    except ValueError as error:
        sentence = str(error)
    assert not isinstance(machine, Ideal | Gaussian), sentence
    assert one_sentence(sentence), sentence
    return True


def served(machine, x, levels):
    """Return the levels to hold the machine to: all, less the component-wise ones that it consistently refuses."""
    refused = [noise for noise in levels if by_component(noise) and refuses(machine, machine.denoise, x, noise)]
    for noise in refused:
        assert refuses(machine, machine.score, x, noise)
        assert refuses(machine, machine.eps, x, noise)
        assert refuses(machine, machine.posterior_cov_product, x, noise, x)
    return [noise for noise in levels if not any(noise is other for other in refused)]


def served_cov(machine, x, levels):
    """Return the levels where posterior_cov_product is served: without signal the base class may refuse it."""
    return [
        noise
        for noise in served(machine, x, levels)
        if (noise.on(x)[0] > 0).all() or not refuses(machine, machine.posterior_cov_product, x, noise, x)
    ]


# Shapes and dtypes ----------------------------------------------------------------------------------------------


@both_dtypes
@every_quantity
def test_outputs_follow_shape_and_dtype_of_x(fit, data, x, dtype, quantity):
    x = x.to(dtype)
    for machine in (fit(data.float()), fit(data.double())):
        for noise in served(machine, x, some_levels(x)):
            y = getattr(machine, quantity)(x, noise)
            assert y.shape == ((6,) if quantity == "log_density" else x.shape)
            assert y.dtype == dtype


@both_dtypes
def test_posterior_covariance_follows_shape_and_dtype_of_x(fit, data, x, dtype):
    x = x.to(dtype)
    for machine in (fit(data.float()), fit(data.double())):
        for noise in served_cov(machine, x, some_levels(x)):
            product = machine.posterior_cov_product(x, noise, x)
            assert product.shape == x.shape
            assert product.dtype == dtype


def test_component_wise_noise_is_served_or_refused_in_one_sentence(machine, x):
    """`served` checks the refusals; what is served depends on the component that a level belongs to."""
    for noise in served(machine, x, [per_component(x.shape[1:]), per_everything(x)]):
        mirrored = Noise(*(level.flip(1, 2, 3) for level in (noise.alpha, noise.sigma)))
        assert (machine.denoise(x, noise) - machine.denoise(x, mirrored)).abs().max() > 1e-3


@both_dtypes
def test_precision_of_the_fit_changes_rounding_only(fit, data, x, dtype):
    exact = fit(data.float().double()).denoise(x, LEVEL)
    assert_close(fit(data.float()).denoise(x.to(dtype), LEVEL).double(), exact, rtol=1e-5, atol=1e-5)


@density
def test_float32_data_keep_float64_precision_at_float64_points(fit, data, x):
    data = data.float()
    noise = Noise(1.0, 0.05)
    assert_close(fit(data).log_density(x, noise), fit(data.double()).log_density(x, noise), rtol=1e-9, atol=1e-9)


@both_dtypes
def test_to_moves_the_machine(machine, x, dtype):
    assert_close(machine.to(dtype).denoise(x, LEVEL), machine.denoise(x, LEVEL), rtol=1e-5, atol=1e-5)


@every_quantity
def test_ambiguous_noise_is_refused(machine, x, quantity):
    """B = D = 6, so only the number of axes can tell one level per image from one per component."""
    shapes = [(6,), (6, 1), (1, 6), (2, 3), (1, 2, 3), (6, 1, 1), (6, 2, 3), (1, 1, 1, 1, 1)]
    for name, shape in product(["alpha", "sigma"], shapes):
        noise = Noise(**{"alpha": 1.0, "sigma": 1.0, name: torch.ones(shape)})
        with pytest.raises(ValueError, match=rf"{name}.*{re.escape(str(shape))}") as error:
            getattr(machine, quantity)(x, noise)
        assert str(tuple(x.shape)) in str(error.value)


def test_noise_with_wrong_lengths_is_refused(machine, x):
    for shape in [(2, 1, 1, 1), (5, 1, 2, 3), (1, 1, 3, 2), (1, 2, 1, 1)]:
        with pytest.raises(ValueError, match="sigma"):
            machine.denoise(x, Noise(1.0, torch.ones(shape)))


def test_flat_samples_need_two_axes_of_noise(fit, data, x):
    """A machine that sees images may refuse to be fitted on anything else."""
    if refuses(fit(data), fit, data.flatten(1)):
        return
    machine, x = fit(data.flatten(1)), x.flatten(1)
    with pytest.raises(ValueError, match="sigma"):
        machine.denoise(x, Noise(1.0, torch.ones(6)))
    sigma = torch.linspace(0.5, 2, 6)
    one_per_image = machine.denoise(x, Noise(1.0, sigma[:, None]))
    for noise in served(machine, x, [Noise(1.0, sigma[None])]):
        assert (one_per_image - machine.denoise(x, noise)).abs().max() > 1e-3


@every_quantity
def test_points_of_another_shape_are_refused(machine, quantity):
    for shape in [(6, 6), (1, 2, 3), (6, 1, 3, 2), (6, 2, 2, 3), (6,)]:
        with pytest.raises(ValueError, match="shape"):
            getattr(machine, quantity)(torch.ones(shape), LEVEL)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_points_that_are_not_floating_are_refused(machine, x, dtype):
    with pytest.raises(ValueError, match="dtype"):
        machine.denoise(x.to(dtype), LEVEL)


@both_dtypes
@every_quantity
def test_an_empty_batch_stays_empty(machine, x, dtype, quantity):
    x = x[:0].to(dtype)
    of_none = [Noise(torch.ones(shape), torch.ones(shape)) for shape in [(0, 1, 1, 1), (0, 1, 2, 3)]]
    for noise in served(machine, x, [LEVEL, per_component((1, 2, 3)), *of_none]):
        y = getattr(machine, quantity)(x, noise)
        assert y.shape == ((0,) if quantity == "log_density" else x.shape)
        assert y.dtype == dtype


# Batches --------------------------------------------------------------------------------------------------------


@both_dtypes
@every_quantity
def test_a_batch_is_its_images_one_by_one(machine, x, dtype, quantity):
    x = x.to(dtype)
    f = getattr(machine, quantity)
    for noise in served(machine, x, [LEVEL, per_image(), per_component(x.shape[1:]), per_everything(x)]):
        single = torch.cat([f(x[b : b + 1], one_row(noise, b)) for b in range(len(x))])
        assert_close(f(x, noise), single, **TOLERANCE[dtype])


@both_dtypes
@every_quantity
def test_equal_components_are_isotropic(machine, x, dtype, quantity):
    """One number, one number per image and one per component are the same level when all are equal."""
    x = x.to(dtype)
    f = getattr(machine, quantity)
    expected = f(x, LEVEL)
    shapes = [(6, 1, 1, 1), (1, 1, 2, 3), (1, 1, 1, 3), (6, 1, 2, 3)]
    levels = [Noise(torch.full(shape, 0.8, dtype=dtype), torch.full(shape, 0.6, dtype=dtype)) for shape in shapes]
    for noise in served(machine, x, levels):
        assert_close(f(x, noise), expected, **TOLERANCE[dtype])


# Ends -----------------------------------------------------------------------------------------------------------


@both_dtypes
@density
def test_without_signal_the_prior_mean_is_left(machine, law, data, x, dtype):
    x, mean = x.to(dtype), law(data).mean(0).to(dtype).expand_as(x)
    ones = torch.ones(1, 1, 2, 3, dtype=dtype)
    levels = [Noise(0.0, 1.0), Noise(0.0, 50.0), Noise(0 * ones, ones), Noise(torch.zeros(6, 1, 1, 1), 2.0)]
    for noise in served(machine, x, levels):
        assert_close(machine.denoise(x, noise), mean, **TOLERANCE[dtype])


def near_and_far(x):
    return torch.cat([distance * x for distance in (1.0, 1e4, 1e6)])


@pytest.mark.parametrize("sigma", [1e-10, 1e-6, 1e-3, 1.0, 1e3, 1e6, 1e12])
@both_dtypes
def test_finite_everywhere(machine, x, dtype, sigma):
    x = near_and_far(x.to(dtype))
    levels = [Noise(1.0, sigma), Noise(0.0, sigma), Noise(1.0, torch.full((1, 1, 2, 3), sigma, dtype=dtype))]
    for noise in served(machine, x, levels):
        assert machine.denoise(x, noise).isfinite().all()
    for noise in served_cov(machine, x, levels):
        assert machine.posterior_cov_product(x, noise, x).isfinite().all()


@both_dtypes
@pytest.mark.quantities("score", "eps", "log_density")
def test_score_and_density_are_finite_far_away(machine, x, dtype, quantity):
    x = near_and_far(x.to(dtype))
    for noise in (Noise(1.0, 1e-3), Noise(0.5, 1.0), Noise(1.0, 1e6)):
        assert getattr(machine, quantity)(x, noise).isfinite().all()


@pytest.mark.quantities("denoise", "log_density")
def test_very_different_noise_per_component_is_finite_where_served(machine, x, quantity):
    sigma = torch.tensor([1e-9, 1e-8, 1.0, 1.0, 1e-7, 80.0], dtype=torch.float64).reshape(1, 1, 2, 3)
    for noise in served(machine, x, [Noise(1.0, sigma)]):
        assert getattr(machine, quantity)(x, noise).isfinite().all()


@pytest.mark.quantities("score", "eps", "log_density")
def test_not_defined_without_noise(machine, x, quantity):
    some = torch.ones(1, 1, 2, 3)
    some[0, 0, 1, 2] = 0
    for sigma in (0, 0.0, torch.tensor(0.0), some):
        if isinstance(machine, KernelDensity) and quantity == "log_density":  # its law has a density of its own
            assert machine.log_density(x, Noise(1.0, sigma)).isfinite().all()
            continue
        with pytest.raises(ValueError, match="sigma is 0"):
            getattr(machine, quantity)(x, Noise(1.0, sigma))


def test_data_without_variance_are_served(fit, data, x):
    machine = fit(data[:1].expand(4, *data.shape[1:]))
    for noise in served(machine, x, some_levels(x)):
        assert machine.denoise(x, noise).isfinite().all()


@density
def test_data_without_variance_are_returned(fit, law, data, x):
    same = law(data[:1]).mean(0, keepdim=True)  # of a law of shifts, an image that no shift changes
    machine = fit(same.expand(4, *same.shape[1:]))
    if isinstance(machine, KernelDensity):  # one Gaussian around the sample
        for noise in served(machine, x, some_levels(x)):
            alpha, sigma = noise.on(x)
            share = alpha * machine.bandwidth**2 / (alpha**2 * machine.bandwidth**2 + sigma**2)
            assert_close(machine.denoise(x, noise), same + share * (x - alpha * same), rtol=1e-9, atol=1e-9)
        return
    for noise in served(machine, x, some_levels(x)):
        assert_close(machine.denoise(x, noise), same.expand_as(x), rtol=1e-9, atol=1e-9)


# Purity ---------------------------------------------------------------------------------------------------------


@every_quantity
def test_inputs_are_left_alone(fit, data, x, quantity):
    everything = per_everything(x)
    levels = [Noise(everything.alpha[:, :, :1, :1], everything.sigma[:, :, :1, :1]), everything]
    inputs = (data, x, everything.alpha, everything.sigma)
    before = [t.clone() for t in inputs]
    machine = fit(data)
    for noise in served(machine, x, levels):
        getattr(machine, quantity)(x, noise)
        machine.posterior_cov_product(x, noise, x)
    for now, then in zip(inputs, before, strict=True):
        assert torch.equal(now, then)


def test_no_hidden_randomness_or_state(machine, x):
    state = torch.get_rng_state()
    first = machine.denoise(x, LEVEL)
    machine.denoise(10 * x, Noise(1.0, 5.0))
    assert torch.equal(machine.denoise(x, LEVEL), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_machines_are_frozen(machine):
    name = next(iter(machine.__dataclass_fields__))
    with pytest.raises(AttributeError):
        setattr(machine, name, None)


def test_points_without_contiguous_memory_are_served(machine, x):
    strided = x.movedim(0, -1).contiguous().movedim(-1, 0)
    assert not strided.is_contiguous()
    assert_close(machine.denoise(strided, LEVEL), machine.denoise(x, LEVEL))


# Tweedie --------------------------------------------------------------------------------------------------------


def test_score_eps_and_denoiser_say_the_same(machine, x):
    for noise in served(machine, x, some_levels(x)):
        alpha, sigma = noise.on(x)
        D, score, eps = machine.denoise(x, noise), machine.score(x, noise), machine.eps(x, noise)
        assert_close(noise.add(D, eps), x)
        assert_close(score, -eps / sigma)
        assert_close(alpha * D, x + sigma**2 * score)


@density
def test_score_is_the_gradient_of_the_log_density(machine, x):
    for noise in served(machine, x, some_levels(x)):
        point = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(machine.log_density(point, noise).sum(), point)
        assert_close(machine.score(x, noise), gradient, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("noise", [LEVEL, per_component((1, 2, 3))], ids=["isotropic", "component-wise"])
@density
def test_the_jacobian_of_the_score_is_symmetric(machine, x, noise):
    for level in served(machine, x, [noise]):
        jacobian = torch.func.jacrev(machine.score)(x[:1], level).reshape(6, 6)
        assert_close(jacobian, jacobian.T, rtol=1e-8, atol=1e-9)


def test_posterior_covariance_is_the_jacobian_product(machine, x, randn):
    """The closed forms of the machines agree with Tweedie's second identity, which the base class evaluates."""
    v = randn(*x.shape)
    levels = [LEVEL, Noise(1.0, 3.0), per_component((1, 2, 3)), Noise(per_everything(x).alpha, 0.7)]
    for noise in served(machine, x, levels):
        closed = machine.posterior_cov_product(x, noise, v)
        assert_close(closed, Machine.posterior_cov_product(machine, x, noise, v), rtol=1e-8, atol=1e-9)


@density
def test_posterior_covariance_is_symmetric_and_not_negative(machine, x, randn):
    v, w = randn(*x.shape), randn(*x.shape)
    for noise in served_cov(machine, x, some_levels(x)):
        cov_v, cov_w = (machine.posterior_cov_product(x, noise, z) for z in (v, w))
        assert_close((w * cov_v).flatten(1).sum(1), (v * cov_w).flatten(1).sum(1), rtol=1e-8, atol=1e-10)
        assert ((v * cov_v).flatten(1).sum(1) > -1e-12).all()


def test_the_base_class_refuses_the_second_identity_without_signal(machine, x):
    with pytest.raises(ValueError, match="alpha is 0"):
        Machine.posterior_cov_product(machine, x, Noise(0.0, 1.0), x)


def test_the_closed_forms_give_the_prior_covariance_without_signal(data, x, randn):
    v = randn(*x.shape)
    expected = (v.flatten(1) @ Moments.of(data).cov).reshape(x.shape)
    for machine in (Ideal.fit(data), Gaussian.fit(data)):
        for noise in (Noise(0.0, 1.0), Noise(torch.zeros(1, 1, 2, 3), 1.0)):
            assert_close(machine.posterior_cov_product(x, noise, v), expected)


def test_a_direction_of_another_shape_is_refused(machine, x):
    with pytest.raises(ValueError, match="shape"):
        machine.posterior_cov_product(x, LEVEL, x[..., :2])
    with pytest.raises(ValueError, match="shape"):
        machine.posterior_cov_product(x[..., :2], LEVEL, x)


# Fitting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(10,), (3, 7), (1, 0, 4, 5), (2, 2, 2, 2, 2)])
@pytest.mark.quantities("denoise", "log_density")
def test_batches_fit_like_one_tensor(fit, data, x, sizes, quantity):
    one, streamed = (getattr(fit(batches), quantity) for batches in (data, iter(data.split(sizes))))
    assert_close(streamed(x, LEVEL), one(x, LEVEL))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_data_that_are_not_finite_are_refused(fit, data, bad):
    data[7, 0, 1, 1] = bad
    with pytest.raises(ValueError, match="sample 7"):
        fit(data)
    with pytest.raises(ValueError, match="sample 7"):
        fit(data.split(4))


def test_empty_data_are_refused(fit, data):
    for nothing in (data[:0], [], iter([]), [data[:0], data[:0]]):
        with pytest.raises(ValueError, match="no sample"):
            fit(nothing)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_data_that_are_not_floating_are_refused(fit, data, dtype):
    with pytest.raises(ValueError, match="dtype"):
        fit(data.to(dtype))


def test_data_that_are_no_tensors_are_refused(fit, data):
    for wrong in ([data.numpy()], data.tolist(), data.numpy()):
        with pytest.raises(ValueError, match="expected torch tensors"):
            fit(wrong)


def test_data_of_wrong_shape_are_refused(fit, data):
    with pytest.raises(ValueError, match="shape"):
        fit([data[:5], data[5:, :, :1]])
    for flat in (torch.ones(5), torch.tensor(1.0)):
        with pytest.raises(ValueError, match="shape"):
            fit(flat)


def test_a_machine_without_closed_form_says_so():
    class Identity(Machine):
        def denoise(self, x, noise):
            return x

    with pytest.raises(TypeError, match="Identity is not fitted"):
        Identity.fit(torch.ones(2, 2))


def test_denoise_is_the_only_thing_a_machine_must_define():
    assert Machine.__abstractmethods__ == {"denoise"}
