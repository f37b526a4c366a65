"""Networks: the exact denoiser of a Gaussian comes back through a module that knows its velocity."""

import importlib.util
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import layer_norm, silu
from torch.testing import assert_close

from scoremachines import Gaussian, Noise, cosine, edm
from scoremachines.data import load
from scoremachines.networks import MLP, Network
from scoremachines.paths import at_gamma
from tests.conftest import refused, seeded

ROOT = Path(__file__).parents[1]
NAMES = ("digits-fixed", "digits-range", "digits-cube", "digits-scalar")
ORIGIN = {"name": "cloud", "sha256": "0" * 64}
REACH = (-12.0, 8.0)


class Exact(nn.Module):
    """The velocity of a machine's own denoiser: v = alpha eps - sigma x0 = (alpha chi - x0) / sigma."""

    def __init__(self, machine):
        super().__init__()
        self.machine, self.shape = machine, machine.shape

    def forward(self, chi, gamma):
        noise = at_gamma(gamma)
        return (noise.alpha * chi - self.machine.denoise(chi, noise)) / noise.sigma


class Seen(nn.Module):
    """Velocity 0; it remembers what it was shown."""

    def __init__(self, shape):
        super().__init__()
        self.shape, self.shown = shape, []

    def forward(self, chi, gamma):
        self.shown.append((chi, gamma))
        return torch.zeros_like(chi)


def started(shape=(2, 3), reach=REACH, **settings):
    return Network.start(MLP(shape, **({"width": 8, "blocks": 2} | settings)), reach, seeded())


@pytest.fixture
def network():
    return started((6,))


# The velocity -------------------------------------------------------------------------------------------------------


def levels(mixed):
    column = torch.tensor([-9.0, -6.0, -1.0, 2.0, 4.0, 7.9]).double()[None]
    return [
        Noise(0.6, 0.8),
        edm(3.0),
        cosine(0.3),
        at_gamma(column),
        Noise(5 * at_gamma(column).alpha, 0.01),
        Noise(torch.linspace(0.1, 2, 5)[:, None], 0.7),
        mixed,
    ]


def test_the_exact_velocity_gives_the_exact_machine(cloud, x, mixed):
    """Common, component-wise and per-image levels, variance preserving or not."""
    gaussian = Gaussian.fit(cloud)
    network = Network(Exact(gaussian), (-20.0, 20.0))
    for noise in levels(mixed):
        assert_close(network.denoise(x, noise), gaussian.denoise(x, noise), rtol=1e-9, atol=1e-9)
        assert_close(network.eps(x, noise), gaussian.eps(x, noise), rtol=1e-8, atol=1e-8)
        v = x.flip(0)
        cov = gaussian.posterior_cov_product(x, noise, v)
        assert_close(network.posterior_cov_product(x, noise, v), cov, rtol=1e-8, atol=1e-9)


def test_without_velocity_it_is_the_machine_of_white_data(x, mixed):
    for noise in levels(mixed):
        alpha, sigma = noise.on(x)
        found = Network(Seen(torch.Size([6])), REACH).denoise(x, noise)
        assert_close(found, alpha * x / (alpha**2 + sigma**2))


def test_what_the_module_is_shown(x, mixed):
    """A sample at a variance-preserving level, and gamma clamped to the reach."""
    for noise in levels(mixed):
        seen = Seen(torch.Size([6]))
        Network(seen, (-7.0, 3.0)).denoise(x, noise)
        alpha, sigma = noise.on(x)
        ((chi, gamma),) = seen.shown
        assert chi.shape == gamma.shape == x.shape
        assert_close(chi, x / (alpha**2 + sigma**2).sqrt())
        assert_close(gamma, (2 * (sigma / alpha).log()).clamp(-7, 3).expand_as(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ends(network, x, dtype):
    """A component without noise is returned, and one without signal is guessed; both are shown at the reach's end."""
    x = x.to(dtype)
    some = torch.tensor([[0.0, 0.5, 1.0, 0.0, 2.0, 1.0]])
    noise = Noise(torch.tensor([[2.0, 1.0, 0.0, 1.0, 0.0, 0.5]]), some)
    found = network.denoise(x, noise)
    assert found.isfinite().all()
    assert_close(found[:, [0, 3]], x[:, [0, 3]] / torch.tensor([2.0, 1.0]).to(dtype))
    ends = torch.tensor([[REACH[0], 2 * math.log(0.5), REACH[1], REACH[0], REACH[1], 2 * math.log(2.0)]])
    size = torch.tensor([[2.0, math.sqrt(1.25), 1.0, 1.0, 2.0, math.sqrt(1.25)]])
    near = at_gamma(ends.to(dtype))
    v = (near.alpha * x / size - network.denoise(x / size, near)) / near.sigma
    assert_close(found[:, [1, 5]], network.denoise(x / size, near)[:, [1, 5]])
    assert_close(found[:, [2, 4]], -v[:, [2, 4]], rtol=1e-4, atol=1e-5)
    assert_close(network.denoise(x, Noise(2.0, 0.0)), x / 2)
    for sigma in (1e-10, 1e-6, 1e12):
        assert network.denoise(1e6 * x, Noise(1.0, sigma)).isfinite().all()
        assert network.denoise(x, Noise(0.0, sigma)).isfinite().all()


def test_the_dtype_of_the_points_is_that_of_the_arithmetic(network, x, mixed):
    exact, single = network.denoise(x, mixed), network.denoise(x.float(), mixed)
    assert exact.dtype == torch.float64
    assert 0 < (single.double() - exact).abs().max() < 1e-4
    assert_close(network.to(torch.float64).denoise(x, mixed), exact, rtol=0, atol=0)
    assert all(weight.dtype == torch.float32 for weight in network.module.parameters())


def test_gradients_reach_the_points_and_not_the_weights(network, x):
    point = x.clone().requires_grad_()
    found = network.denoise(point, Noise(0.6, 0.8))
    (gradient,) = torch.autograd.grad(found.sum(), point)
    assert gradient.abs().max() > 0
    assert not network.denoise(x, Noise(0.6, 0.8)).requires_grad


# The modules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", ["state", "mean"])
def test_the_layers_are_those_it_says(condition, randn):
    module = started((2, 3), condition=condition).module.double()
    chi, gamma = randn(5, 2, 3), 5 * randn(5, 2, 3)
    W, flat = module.state_dict(), gamma.flatten(1)
    variance = 1 / (1 + flat.exp())
    seen = [flat / 10, variance.sqrt(), (1 - variance).sqrt()] if condition == "state" else [flat.mean(1)[:, None] / 10]
    h = torch.cat([chi.flatten(1), *seen], 1) @ W["input.weight"].T + W["input.bias"]
    for k in range(2):
        inner = layer_norm(h, (8,)) @ W[f"inner.{k}.weight"].T + W[f"inner.{k}.bias"]
        h = h + silu(inner) @ W[f"outer.{k}.weight"].T + W[f"outer.{k}.bias"]
    expected = h @ W["output.weight"].T + W["output.bias"]
    with torch.no_grad():
        assert_close(module(chi, gamma), expected.reshape(5, 2, 3))


def test_only_the_mean_is_seen(randn):
    """Two states of one mean: the same velocity from the one network, different ones from the other."""
    chi, gamma = randn(3, 2, 3), torch.linspace(-5, 4, 6).reshape(1, 2, 3).expand(3, 2, 3).double()
    for condition, same in (("mean", True), ("state", False)):
        module = started((2, 3), condition=condition).module.double()
        with torch.no_grad():
            gap = (module(chi, gamma) - module(chi, gamma.flip(1, 2))).abs().max()
        assert (gap < 1e-12) == same


def test_start_is_seeded_and_touches_no_global_generator():
    state = torch.get_rng_state()
    one, two = started(), started()
    other = Network.start(MLP((2, 3), 8, 2), REACH, seeded(1))
    assert torch.equal(torch.get_rng_state(), state)
    for name, weight in one.module.state_dict().items():
        assert torch.equal(weight, two.module.state_dict()[name])
        assert weight.dtype == torch.float32
        assert torch.equal(weight, other.module.state_dict()[name]) == name.endswith("bias")
    wide = Network.start(MLP((64,), 256), REACH, seeded()).module
    for layer in (wide.input, *wide.inner, *wide.outer, wide.output):
        assert layer.weight.var().item() * layer.in_features == pytest.approx(1, abs=0.05)
        assert not layer.bias.any()


def test_sizes():
    for condition, limit in (("state", 480e3), ("mean", 430e3)):
        module = MLP((1, 8, 8), condition=condition)
        assert 0.3e6 < sum(weight.numel() for weight in module.parameters()) < limit
        assert MLP(**module.settings).state_dict().keys() == module.state_dict().keys()
        assert module.settings == {"shape": [1, 8, 8], "width": 256, "blocks": 3, "condition": condition}


def test_bad_networks_get_one_sentence(network, x):
    for wrong in ({"shape": (0, 3)}, {"shape": (2.0,)}, {"width": 0}, {"blocks": 1.5}, {"condition": "time"}):
        refused("whole numbers above 0", MLP, **({"shape": (2, 3)} | wrong))
    refused("no numbers; give it some", Network, MLP((6,)), REACH)
    for reach in ((1.0, 1.0), (-math.inf, 3.0), (math.nan, 1.0), (1.0,)):
        refused("least and the largest gamma", Network, network.module, reach)
    refused("rng is a int", Network.start, MLP((6,)), REACH, 0)
    refused("fitted on samples of shape", network.denoise, x[:, :4], edm(1.0))
    refused("expected a Noise", network.denoise, x, 1.0)
    with pytest.raises(TypeError, match="not fitted in closed form"):
        Network.fit(x)


# Checkpoints --------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(network, tmp_path):
    path = tmp_path / "one.safetensors"
    network.save(path, **ORIGIN, steps=3)
    return path


@pytest.mark.parametrize("condition", ["state", "mean"])
def test_a_checkpoint_gives_the_rounded_network(condition, x, mixed, tmp_path):
    network = started((6,), condition=condition)
    network.save(tmp_path / "one", **ORIGIN, steps=3)
    found = Network.load(tmp_path / "one", **ORIGIN)
    assert found.reach == REACH
    assert found.manifest["steps"] == 3
    assert found.module.settings == network.module.settings
    assert torch.equal(found.denoise(x, mixed), network.rounded().denoise(x, mixed))
    assert_close(found.denoise(x, mixed), network.denoise(x, mixed), rtol=1e-2, atol=1e-2)
    assert not torch.equal(found.denoise(x, mixed), network.denoise(x, mixed))


def rewrite(path, **manifest):
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["manifest"]) | manifest
        held = {name: file.get_tensor(name) for name in file.keys()}
    facts = {key: value for key, value in facts.items() if value is not None}
    save_file(held, path, metadata={"manifest": json.dumps(facts)})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"settings": None}, "does not say which network"),
        ({"settings": 7}, "does not say which network"),
        ({"settings": {"shape": [6], "depth": 2}}, "does not say which network"),
        ({"settings": {"shape": 6}}, "does not say which network"),
        ({"settings": {"shape": [6], "width": -8}}, "does not say which network"),
        ({"module": "UNet"}, "does not say which network"),
        ({"reach": None}, "does not say which network"),
        ({"reach": [1]}, "does not say which network"),
        ({"reach": [3, -7]}, "does not say which network"),
        ({"settings": {"shape": [6], "width": 8, "blocks": 3}}, "other sizes"),
        ({"settings": {"shape": [10**6, 10**6], "width": 8, "blocks": 2}}, "other sizes"),
        ({"name": "other"}, "made with name = other"),
    ],
)
def test_changed_checkpoints_are_refused(saved, change, match):
    rewrite(saved, **change)
    refused(match, Network.load, saved, **ORIGIN)


def test_other_modules_are_not_saved(cloud, tmp_path):
    refused("module is a Exact", Network(Exact(Gaussian.fit(cloud)), REACH).save, tmp_path / "one", **ORIGIN)


# The committed networks -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_networks", ROOT / "scripts" / "train_networks.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def setting(script):
    law = script.law_of(load("digits"))
    coordinates = script.coordinates_of(law)
    return coordinates.law(law), coordinates.prior.scale.log() * -2


def test_the_law_has_mean_0_and_variance_1_in_its_coordinates(setting):
    law, _ = setting
    mean = sum(weight * one.mean for weight, one in zip(law.weights, law.components, strict=True))
    square = sum(
        weight * (one.cov.diagonal() + one.mean**2) for weight, one in zip(law.weights, law.components, strict=True)
    )
    assert_close(mean, torch.zeros(64).double(), atol=1e-12, rtol=0)
    assert_close(square, torch.ones(64).double())


def test_measures_of_the_exact_denoiser_and_of_none(script, setting, monkeypatch):
    """Nothing is lost by the law itself, on a path or around a loop; a velocity of 0 loses nats on every path."""
    law, labels = setting
    monkeypatch.setattr(script, "SAMPLES", 2)
    monkeypatch.setattr(script, "POINTS", 2)
    exact = script.measured(Network(Exact(law), (-40.0, 40.0)), law, labels)
    assert max(map(abs, (exact["loop_nats"], *exact["excess_nats"].values()))) < 1e-9
    none = script.measured(Network(Seen(law.shape), REACH), law, labels)
    assert all(20 < excess < 80 for excess in none["excess_nats"].values())


def test_every_network_is_tested(script):
    files = {path.stem for path in (ROOT / "results" / "networks").glob("*.safetensors")}
    assert set(NAMES) == set(script.NETS) == files


@pytest.mark.parametrize("name", NAMES)
def test_committed_networks_are_sound_and_small(script, setting, monkeypatch, name):
    law, labels = setting
    path = ROOT / "results" / "networks" / f"{name}.safetensors"
    images = load("digits")
    found = Network.load(path, **images.provenance)
    assert path.stat().st_size < 1e6
    assert found.manifest["steps"] == script.STEPS
    assert found.manifest["law"] == script.LAW
    assert found.module.condition == script.NETS[name][0]
    monkeypatch.setattr(script, "POINTS", 12)
    x0 = script.draws(law)(200, seeded(5))
    for a, excess in found.manifest["excess_nats"].items():
        path = script.soft(labels, float(a), script.CLEAN, script.NOISY)
        again = script.along(lambda t, path=path: script.gamma_of(path(t)), found, law, x0, seeded(6))
        assert again == pytest.approx(excess, rel=0.1)
        assert excess < (16 if name == "digits-cube" else 4)  # 42 for v = 0, 17 for the law's Gaussian


def test_the_script_writes_a_checkpoint(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "STEPS", 2)
    monkeypatch.setattr(script, "SAMPLES", 8)
    monkeypatch.setattr(script, "POINTS", 2)
    out = tmp_path / "folder" / "one.safetensors"
    script.main(["--net", "digits-cube", "--out", str(out)])
    found = Network.load(out, **load("digits").provenance)
    assert found.manifest["a"] == "cube"
    assert found.manifest["steps"] == 2
    assert set(found.manifest["excess_nats"]) == {"0.4", "1.0", "1.6"}
    assert f"{out}" in capsys.readouterr().out
