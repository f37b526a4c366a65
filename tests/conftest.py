"""Shared fixtures and functions. A new machine joins the contract suite by one line in MACHINES."""

import re
from collections.abc import Callable
from functools import cache
from itertools import product

import pytest
import torch
from torch import Tensor

from scoremachines import Equivariant, EquivariantLocal, Gaussian, Ideal, Local, Machine, Mixture, Noise
from scoremachines.bases import DCT
from scoremachines.networks import MLP, Network
from scoremachines.polynomial import WaveletPolynomial
from scoremachines.smoothed import KernelDensity
from scoremachines.windows import WindowTable

SHAPE = (1, 2, 3)  # D = 6, which is also the batch size: an axis guessed from its length would go unnoticed elsewhere


def by_thirds(data, **options) -> Mixture:
    """A mixture of three components; labels serve data of every kind, iterators and equal samples included."""
    data = data if isinstance(data, Tensor) else list(data)
    count = data.shape[:1].numel() if isinstance(data, Tensor) else sum(map(len, data))
    return Mixture.fit(data, by="labels", labels=torch.arange(count) % 3, **options)


MACHINES: dict[str, Callable[[Tensor], Machine]] = {
    "ideal": Ideal.fit,
    "ideal-chunked": lambda data: Ideal.fit(data, chunk=3),
    "kernel-density": lambda data: KernelDensity.fit(data, 0.3),
    "gaussian": Gaussian.fit,
    "gaussian-rank": lambda data: Gaussian.fit(data, rank=2),
    "gaussian-drop": lambda data: Gaussian.fit(data, rank=2, remainder="drop"),
    "mixture": lambda data: by_thirds(data),
    "mixture-drop": lambda data: by_thirds(data, rank=1, remainder="drop"),
    "wavelet": WaveletPolynomial.fit,
    "wavelet-local": lambda data: WaveletPolynomial.fit(data, DCT(), family="linear-neighbours", degree=2, tied=True),
    "coefficients": lambda data: WaveletPolynomial.fit(data, DCT()).coefficient_machine,
    "local": lambda data: Local.fit(data, 3),
    "local-tolerant": lambda data: Local.fit(data, 1, chunk=40, tolerance=1e-7),
    "equivariant-local-zeros": lambda data: EquivariantLocal.fit(data, 3, "zeros"),
    "equivariant-local-circular": lambda data: EquivariantLocal.fit(data, 1, "circular", chunk=50),  # 3 exceeds SHAPE
    "equivariant-local-interior": lambda data: EquivariantLocal.fit(data, 1, "interior"),
    "equivariant": Equivariant.fit,
    "network": lambda data: Network.start(MLP(Gaussian.fit(data).shape, 16, 2), (-12.0, 8.0), seeded()),
    "equivariant-chunked": lambda data: Equivariant.fit(data, chunk=25),
}


def shifts(images: Tensor) -> Tensor:
    """All circular shifts of images (N, C, H, W), one after another: (H W N, C, H, W)."""
    steps = product(range(images.shape[2]), range(images.shape[3]))
    return torch.cat([images.roll(step, (2, 3)) for step in steps])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int, *shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Images uniform in [-1, 1]."""
    return (2 * torch.rand(n, *shape, generator=seeded(seed), dtype=torch.float64) - 1).to(dtype)


def noisy(data: Tensor, noise: Noise, count: int = 3, seed: int = 1) -> Tensor:
    """Noisy versions of some of the images, in their dtype."""
    x0 = data[torch.arange(count) % len(data)]
    return noise.add(x0, torch.randn(x0.shape, generator=seeded(seed), dtype=torch.float64).to(x0))


def patch_machine(data: Tensor, window: int | WindowTable, border: str = "zeros", **options) -> Machine:
    """A patch machine by its border; patches of the same place only are the border "same"."""
    if border == "same":
        return Local.fit(data, window, **options)
    return EquivariantLocal.fit(data, window, border, **options)


def one_sentence(text: str) -> bool:
    return re.fullmatch(r"([^.\n]|\.(?=\S))+\.", text) is not None


def refused(match: str, f: Callable, *args, **options) -> None:
    """The call raises a ValueError that matches, in one sentence."""
    with pytest.raises(ValueError, match=match) as error:
        f(*args, **options)
    assert one_sentence(str(error.value)), str(error.value)


# The samples of a machine's law where those are not the data themselves
LAWS = {"equivariant": shifts, "equivariant-chunked": shifts}


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)  # the tensors are small: threads would only wait for each other
    # torch 2.13 itself uses a deprecated call when forward-mode differentiation starts
    config.addinivalue_line("filterwarnings", "ignore:.torch.jit.script. is deprecated:DeprecationWarning")
    config.addinivalue_line("markers", "quantities(*names): run over the machines of the registry that have them")


@cache
def machine_class(name: str, shape: tuple[int, ...]) -> type[Machine] | None:
    """The class of a machine fitted on samples of this shape; none where a shape other than SHAPE is refused."""
    try:
        return type(MACHINES[name](2 * torch.rand(10, *shape, generator=torch.Generator().manual_seed(0)) - 1))
    except ValueError:
        if shape == SHAPE:
            raise
        return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes `fit` over the registry; one marked `quantities`, over the machines that have them.

    With `shape=` in the mark, these are the machines that take samples of this shape, in place of SHAPE.
    """
    if "fit" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("quantities")
    if marker is None:
        metafunc.parametrize("fit", MACHINES, indirect=True)
        return
    shape = marker.kwargs.get("shape", SHAPE)
    pairs = [(name, q) for q in marker.args for name in MACHINES if hasattr(machine_class(name, shape), q)]
    if "quantity" in metafunc.fixturenames:
        metafunc.parametrize(("fit", "quantity"), pairs, indirect=["fit"])
    else:
        metafunc.parametrize("fit", dict.fromkeys(name for name, _ in pairs), indirect=True)


@pytest.fixture
def fit(request: pytest.FixtureRequest) -> Callable[[Tensor], Machine]:
    """How to fit one machine of the registry."""
    return MACHINES[request.param]


@pytest.fixture
def law(request: pytest.FixtureRequest) -> Callable[[Tensor], Tensor]:
    """Data to the equally likely samples of the law of the machine that `fit` fits."""
    return LAWS.get(request.node.callspec.params["fit"], lambda data: data)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.fixture
def randn(rng: torch.Generator) -> Callable[..., Tensor]:
    """Draw float64 normal numbers."""
    return lambda *shape: torch.randn(shape, generator=rng, dtype=torch.float64)


@pytest.fixture
def rand(rng: torch.Generator) -> Callable[..., Tensor]:
    """Draw float64 numbers uniform in [0, 1]."""
    return lambda *shape: torch.rand(shape, generator=rng, dtype=torch.float64)


@pytest.fixture
def data(rand: Callable[..., Tensor]) -> Tensor:
    """Ten asymmetric samples of SHAPE in [-1, 1] whose first component never varies."""
    cloud = 2 * rand(10, *SHAPE) ** 3 - 1
    cloud[:, 0, 0, 0] = 0.25
    return cloud


@pytest.fixture
def cloud(rand):
    """Forty asymmetric points in six dimensions with strong correlations."""
    return (2 * rand(40, 6) ** 3 - 1) @ (0.3 * torch.eye(6) + 0.2 * torch.ones(6, 6).triu()).double()


@pytest.fixture
def mixed(rand):
    """A random level for every component of every one of five images."""
    return Noise(rand(5, 6), 0.2 + rand(5, 6))


@pytest.fixture
def x(cloud, randn):
    return cloud[:5] + 0.5 * randn(5, 6)


@pytest.fixture
def machine():
    """A Gaussian whose deviations span two decades, as those of images do."""
    generator = torch.Generator().manual_seed(3)
    mix = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64)).Q
    spread = torch.tensor([2.0, 1.0, 0.4, 0.1, 0.02], dtype=torch.float64)
    return Gaussian.fit(torch.randn(50, 5, generator=generator, dtype=torch.float64) * spread @ mix + 0.3)
