"""The one-way data flow, the public names, docstrings, and types at run time."""

import ast
import graphlib
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import scoremachines

ROOT = Path(scoremachines.__file__).parent
MODULES = sorted(module.name for module in pkgutil.iter_modules([str(ROOT)]))

READERS = {"data", "files", "photos", "sources"}  # where images come from; no machine knows
TOP = {"compare", "likelihood", "geometry", "extension"}  # the layer above machines, samplers and metrics
MAY_IMPORT = {
    "noise": set(),
    "stats": set(),
    "matrices": set(),
    "bases": {"matrices"},
    "frames": {"bases", "matrices"},
    "orders": {"bases"},
    "paths": {"noise"},
    "monomials": set(),
    "powersums": {"monomials"},
    "stencils": {"bases", "monomials"},
    "metrics": set(),
    "plot": set(),
    "machine": {"noise"},
    "sample": {"machine", "noise"},
    "solvers": {"machine", "noise", "sample"},
    "cumulants": {"machine", "stats"},
    "teleport": {"gaussian", "machine", "noise", "stats"},
    "coordinates": {"bases", "gaussian", "mixture", "stats"},
    "ancestral": {"gaussian", "machine", "mixture", "noise"},
    "likelihood": {"ancestral", "coordinates", "gaussian", "machine", "noise", "paths", "sample"},
    "geometry": {"ancestral", "gaussian", "machine", "noise", "paths"},
    "extension": {"coordinates", "gaussian", "machine", "noise", "paths", "sample"},
    "smoothed": {"ideal", "machine", "noise"},
    "networks": {"checkpoints", "machine", "noise"},
    "train": {"ancestral", "gaussian", "mixture", "networks", "paths"},
    "checkpoints": set(),
    "clusters": {"machine"},
    "softmoments": {"gaussian", "stats"},
    "windows": {"noise"},
    "conditional": {"clusters", "machine", "noise"},
    "equivariant": {"conditional", "machine", "noise", "stats"},
    "offsets": {"stats"},
    "vectors": set(),
    "plans": {"offsets"},
    "kernel": {"plans", "vectors"},
    "lanes": {"kernel", "offsets", "plans", "stats"},
    "patches": {"conditional", "lanes", "machine", "noise", "offsets", "windows"},
    "quality": set(),
    "classifier": set(),
    "features": {"bases", "machine", "stats"},
    "data": READERS - {"data"},
    "files": {"sources"},
    "photos": {"files", "sources"},
    "sources": set(),
}
TOOLS = {"plot", "metrics", "sample", "solvers", "teleport", "cumulants", "quality", "features", "classifier"}
TOOLS |= {"ancestral", "coordinates", "orders", "paths", "train"}
ABOVE_MACHINES = READERS | TOOLS | TOP


def imports(module: str) -> set[str]:
    """The modules of the package that this module imports, anywhere in its source."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == scoremachines.__name__:
            found |= {node.module.split(".")[1]} if "." in node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {name[1] if len(name) > 1 else "" for name in names if name[0] == scoremachines.__name__}
    return found


# Who imports whom -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_lies_below(module):
    machines = set(MODULES) - ABOVE_MACHINES
    allowed = MAY_IMPORT.get(module, machines | {"sample", "metrics"} if module in TOP else machines)
    assert imports(module) <= allowed - {module}


def test_imports_have_no_cycle():
    order = graphlib.TopologicalSorter({module: imports(module) for module in MODULES})
    assert len(list(order.static_order())) == len(MODULES)


def test_the_root_offers_neither_data_nor_figures():
    assert not imports("__init__") & (READERS | {"plot", "metrics", "quality", "features", "classifier"})


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_is_light():
    packages = {"matplotlib", "sklearn", "pywt", "scipy", "PIL", "pooch", "numba"}
    heavy = packages | {"scoremachines.plot", "scoremachines.data"}
    assert run(f"import sys, scoremachines; print(sorted({heavy} & set(sys.modules)))").strip() == "[]"


# Public names and docstrings ------------------------------------------------------------------------------------


def test_public_names():
    expected = """Gaussian Ideal Machine Moments Noise SoftMean State cosine cosine_legacy ddim ddpm edm edm_levels flow
    heun levels sample trajectory vp Mixture dpmpp_2m dpmpp_3m unipc_bh1 unipc_bh2 sigma_skip teleport
    third_cumulant Local EquivariantLocal Equivariant""".split()
    assert set(expected) <= set(scoremachines.__all__)
    assert len(scoremachines.__all__) == len(set(scoremachines.__all__))
    for name in scoremachines.__all__:
        assert getattr(scoremachines, name).__module__.startswith("scoremachines.")


def test_functions_of_the_root_are_not_hidden_by_modules():
    """`sample` and `machine` are modules too: the root must hold the function."""
    assert inspect.isfunction(scoremachines.sample)
    assert inspect.isfunction(scoremachines.flow)


def public():
    """Every public function, class, method and property defined in the package, by dotted name."""
    for module in [scoremachines, *(importlib.import_module(f"scoremachines.{name}") for name in MODULES)]:
        yield module.__name__, module
        for name, thing in vars(module).items():
            if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
                continue
            if inspect.isclass(thing) or inspect.isfunction(thing):
                yield f"{module.__name__}.{name}", thing
            if inspect.isclass(thing):
                members = {key: value for key, value in vars(thing).items() if not key.startswith("_")}
                yield from (
                    (f"{module.__name__}.{name}.{key}", value)
                    for key, value in members.items()
                    if inspect.isfunction(value) or isinstance(value, property | classmethod | staticmethod)
                )


def test_everything_public_has_a_docstring():
    assert [name for name, thing in public() if not (thing.__doc__ or "").strip()] == []


def test_docstrings_begin_with_a_sentence():
    openings = {name: thing.__doc__.split("\n\n")[0].strip() for name, thing in public()}
    assert [name for name, first in openings.items() if first[-1] not in ".:"] == []


def test_files_stay_short():
    """A guide of the design: a file of more than about three hundred lines holds two ideas."""
    lengths = {path.name: len(path.read_text().splitlines()) for path in ROOT.glob("*.py")}
    assert {name: length for name, length in lengths.items() if length > 320} == {}


# Types at run time ----------------------------------------------------------------------------------------------

TYPED = """
import sys
import warnings
warnings.filterwarnings("ignore", message=".torch.jit.script. is deprecated")
from typing import Self
import scoremachines.kernel
compiled = ("scoremachines.kernel", "scoremachines.vectors")  # numba compiles functions only as they are written
for name in [name for name in sys.modules if name.startswith("scoremachines") and name not in compiled]:
    del sys.modules[name]
from beartype import BeartypeConf, FrozenDict, beartype
from jaxtyping import TypeCheckError, install_import_hook

checked = beartype(conf=BeartypeConf(hint_overrides=FrozenDict({Self: object})))  # jaxtyping goes by method
with install_import_hook("scoremachines", "__main__.checked"):
    import scoremachines
    from scoremachines import *
    from scoremachines import bases, classifier, compare, cumulants, features, frames, metrics, plot, polynomial
    from scoremachines import ancestral, coordinates, extension, geometry, likelihood, networks, orders, paths, train
    from scoremachines import quality, solvers, windows
    from scoremachines.smoothed import KernelDensity
    from scoremachines.teleport import baselines, draw, gaussian_kl, gaussian_w2, noisy_law, teleported_law
import torch

rng = torch.Generator().manual_seed(0)
data = torch.rand(20, 1, 4, 4, generator=rng) * 2 - 1
x = torch.randn(3, 1, 4, 4, generator=rng)
column = torch.linspace(0.2, 1, 3).reshape(3, 1, 1, 1)
third = torch.arange(20) % 3
mixtures = [Mixture.fit(data, k=2, rank=3, by=by, rng=rng) for by in ("kmeans", "em")]
mixtures += [Mixture.fit(data.split(6), by="labels", labels=third, remainder="drop", rank=2)]
mixtures += [mixtures[0].given(third[:3] % 2)]
one_gaussian = (Gaussian.fit(data.split(6)), Gaussian.fit(Moments.of(data), rank=3))
for machine in (Ideal.fit(data, chunk=7), *mixtures, *one_gaussian):
    by_component = Noise(1.0, torch.ones(1, 1, 4, 4))
    for noise in (Noise(0.6, 0.8), Noise(1, torch.tensor(0.5)), Noise(column, column), by_component):
        machine.denoise(x, noise), machine.score(x, noise), machine.eps(x, noise), machine.log_density(x, noise)
        machine.posterior_cov_product(x, noise, x), Machine.posterior_cov_product(machine, x, noise, x)
    machine.to(torch.float64).denoise(x, Noise(0.6, 0.8))
for walk in (levels(cosine, [1.0, 0.5]), levels(flow, [1.0, 0.5]), edm_levels(3)):
    for step in (ddim, heun, ddpm, dpmpp_2m, dpmpp_3m, unipc_bh1, unipc_bh2):
        sample(machine, x, walk, step, rng)
Ideal.fit(data).log_weights(x, Noise(0.6, 0.8)), solvers.evaluations(heun, edm_levels(3))
mixtures[0].log_responsibilities(x, Noise(column, column)), mixtures[1].flow(x, edm(2.0), edm(1.0))
machine.flow(x, Noise(1.0, 2.0), Noise(1.0, 0.0)), machine.denoised_path(x, Noise(1.0, 2.0), Noise(1.0, 0.5))
machine.emergence(Noise(1.0, 2.0)), machine.sensitivity(Noise(1.0, 2.0)), machine.denoising_error(Noise(1.0, 2.0))
cosine(torch.rand(3)), cosine_legacy(0.3), vp(0.3), edm(torch.rand(2))
wavelet, colour, many = bases.Wavelet("haar", 2), torch.randn(3, 3, 4, 4, generator=rng), data.repeat(2, 1, 1, 1)
for basis in (bases.Pixel(), bases.Fourier(), bases.DCT(), bases.PCA.fit(Moments.of(data)), wavelet):
    basis.synthesis(basis.analysis(x)), basis.bands((1, 4, 4))
bases.Opponent(wavelet).synthesis(bases.Opponent(wavelet).analysis(colour)), wavelet.scaling(x)
frame = frames.Frame("haar", 1)
frame.synthesis(frame.analysis(x), (1, 4, 4)), frame.bands((1, 4, 4))
settings = [dict(family=family, degree=2) for family in ("independent", "parent-child", "energy", "low-pass", "full")]
settings += [dict(family=family, tied=True, conservative=c) for family in ("band-tied", "local") for c in (False, True)]
settings += [dict(family="combined", tied=True), dict(family=(("self", "powers"), ("neighbours", "linear")), degree=2)]
for options in settings:
    machine = polynomial.WaveletPolynomial.fit(many, wavelet, **options)
    inside, held_out = machine.coefficient_machine, machine.moments_of(x)
    machine.denoise(x, Noise(column, column)), machine.guarded().score(x, Noise(1, torch.tensor(0.5)))
    inside.eps(x, Noise(0.6, 0.8)), machine.to(torch.float32).posterior_cov_product(x, Noise(0.6, 0.8), x)
    machine.ledger(Noise(0.6, 0.8), held_out), machine.denoising_error(Noise(0.6, 0.8))
    inside.outside(x, Noise(0.6, 0.8)), inside.condition_numbers(Noise(0.6, 0.8)), held_out.merge(held_out)
    machine.fit(held_out.merge(inside.moments)).basis
    if options["family"] != "full":
        inside.hermite_moments(Noise(0.6, 0.8))
polynomial.WaveletPolynomial.fit(data.split(6), wavelet).coefficient_machine.denoise(x, by_component)
found = cumulants.cumulants(data.split(6), chunk=7)
third_cumulant(data, population=True), cumulants.displacement(found, torch.ones(2))
found.onset, sigma_skip(found, 0.1)
table = windows.WindowTable.of(levels(cosine_legacy, [0.9, 0.5])[:2], (3, 1))
windows.published("mnist-unet-zeros").at(0.3), windows.published("cifar10-resnet-circular", "calibrated")
local = [Local.fit(data.split(6), 5, labels=third), EquivariantLocal.fit(data, table, "zeros", tolerance=1e-3)]
local += [EquivariantLocal.fit(data, 3, border, third, chunk=40) for border in ("circular", "interior", "zeros")]
for machine in (*local, local[0].given(third[:3]), local[2].given(third[:3]).to(torch.float64)):
    for point, noise in ((x, Noise(0.6, 0.8)), (x.double(), Noise(column, column))):
        machine.denoise_windows(point, noise, (1, 3)), machine.posterior_windows(point, noise, [3])
        machine.posterior(point, noise).effective, machine.eps(point, noise), machine.score(point, noise)
        machine.posterior_cov_product(point, noise, point)
equivariant = Equivariant.fit(data, third, chunk=7)
for machine in (equivariant, equivariant.given(third[:3]), equivariant.to(torch.float64)):
    machine.log_density(x, Noise(column, column)), machine.posterior_cov_product(x, Noise(0.6, 0.8), x)
    machine.score(x, Noise(0.6, 0.8)), machine.denoise(x.double(), Noise(0.6, 0.8))
walk = levels(cosine_legacy, [0.9, 0.5])
found = compare.calibrate_windows(local[4], Ideal.fit(data), walk, (1, 3), x)
found.best, found.median, found.table
found = compare.local_consistency(x, data, 3, atol=0.1, labels=third, classes=third[:3])
found.pixels, found.share, found.mean_deviation
starts = baselines(Moments.of(data), {"pixels": bases.Pixel(), "wavelets": wavelet}, ranks=(3,))
for start in (*starts.values(), *(start.to(torch.float32) for start in starts.values())):
    teleport(start, x, edm(80.0), edm(5.0)), draw(start, edm(5.0), 2, rng)
    law = teleported_law(start, edm(80.0), edm(5.0))
    gaussian_kl(law, noisy_law(starts["full"], edm(5.0)))
    gaussian_w2(law, noisy_law(start, edm(5.0)))
labels = orders.by_variance(data.var(0)) + orders.by_level(wavelet, (1, 4, 4))
for order in (orders.by_frequency(bases.DCT(), (1, 4, 4)), orders.by_frequency(bases.Fourier(), [1, 4, 4])):
    neighbours = paths.blurring(order), paths.heat(order), paths.regulator(order, (1, 0.1))
labels += orders.by_column(wavelet, (1, 4, 4), "left to right")
labels += orders.by_row(bases.Pixel(), (1, 4, 4), "bottom to top")
softness = paths.inverse_softness(labels.float(), 0.5), paths.active_share(labels, 1)
for schedule in (paths.soft(labels, softness[0], -7, 4, labels, capped=True), paths.soft(labels, 0), *neighbours):
    paths.gamma_of(schedule(0.4)), paths.walk(schedule, 3), paths.walk(schedule, [1.0, 0.5])
stairs = paths.walk(paths.stairs(labels), 16)
paths.gamma_of(Noise(1.0, 0.5)), paths.at_gamma(paths.gamma_of(stairs[3]))
variance = bases.DCT().analysis(data).var(0)
frame = coordinates.Coordinates(bases.DCT(), data.mean(0), coordinates.Prior.matched(variance, 0.01))
chi = frame.analysis(data)
frame.synthesis(chi.double()), frame.log_volume, coordinates.Prior.isotropic([1, 4, 4]), frame.law(mixtures[2])
own = coordinates.Matrix(torch.eye(16).double(), data.shape[1:])
own.synthesis(own.analysis(x)), coordinates.gaussian_law(torch.zeros(16), torch.eye(16), [1, 4, 4])
law, soft = frame.law(Gaussian.fit(data)), paths.walk(paths.soft(labels, 0.3, -4.0, 4.0), 3)
kernels = KernelDensity.fit(chi, 0.3), KernelDensity.fit(chi.split(6), 0.1 + variance)
for machine in (*kernels, frame.law(mixtures[0]), law):
    if isinstance(machine, KernelDensity):
        machine.log_density(chi[:3], stairs[3]), machine.to(torch.float64).score(chi[:3], Noise(column, column))
        machine.posterior_cov_product(chi[:3], stairs[3], chi[:3]), machine.shape
    ancestral.posterior_cov(machine, chi[:3], soft[1])
    for kernel in (ancestral.small, ancestral.large, ancestral.diagonal, ancestral.full, ancestral.euler_maruyama):
        sample(machine, chi[:3], soft, kernel, rng)
    likelihood.elbo(machine, chi, soft, rng).nats
    likelihood.elbo(machine, chi.double(), soft, rng, variance[None]).nats
    found = likelihood.flow_log_density(machine, chi[:3], soft, 1.0), geometry.metric(machine, soft[1], chi[:3])
likelihood.bits_per_dim(found[0], 16, 1 / 128), likelihood.noised_law(law, soft[0])
for kernel in (ancestral.full, ancestral.euler_maruyama, ancestral.diagonal, ddpm, ddim, heun):
    likelihood.exact_law(law, soft, kernel), likelihood.exact_law(law, soft, kernel, law)
geometry.metric(law, soft[1]), geometry.information(law, soft[1]), geometry.component_information(law, soft)
geometry.gap(law, soft), geometry.length(law, soft), geometry.energy(law, soft)
geometry.constant_speed(law, paths.soft(labels, 0.3), 3), geometry.error_matrix(law, chi[:3], soft[1])
known = torch.zeros(1, 4, 4, dtype=torch.bool)
known[..., :2] = True
extension.frozen(soft, known), extension.complete(law, chi[:3], known, soft, ddpm, rng)
blocks = extension.equal_blocks(labels, 4)
extension.block_kl(law, blocks), extension.extension_kl(law, 3, 1), extension.extended_law(law, 7, 2)
extension.extend(law, chi[:3], 7, 2, soft, ancestral.small, rng)
filling, moving = extension.conveyor_levels((1, 4, 4), 3, 3)
extension.conveyor(law, sample(law, chi[:3], filling), moving, 7, ddim, rng), extension.conveyor_kl(law, moving)
for condition in ("state", "mean"):
    network = networks.Network.start(networks.MLP((1, 4, 4), 8, 1, condition), (-7, 3.0), rng)
    for family in (train.soft_paths(labels, (0.4, 1.6)), train.cube((1, 4, 4), -7, 3)):
        network = list(train.train(network, train.draws(frame.law(mixtures[0])), family, rng, 2, 4))[-1].network
    for point in (chi[:3], chi[:3].double()):
        network.denoise(point, stairs[3]), network.score(point, Noise(column, column)), network.shape
    network.to(torch.float64).rounded().posterior_cov_product(point, Noise(1.0, 0.5), point)
small = classifier.train(data, third, rng, epochs=1)
seen = [f(data) for f in (features.PrincipalFeatures.fit(data, 3), features.wavelet_features, small.rounded().features)]
for a in seen:
    quality.frechet(a, a[:10]), quality.mmd(a, a[:10]), quality.sliced_wasserstein(a, a[:10], rng, 4)
    quality.recall(a, a[:10]), quality.precision(a, a[:10])
for metric in (metrics.mse, metrics.pearson, metrics.r2, metrics.R2, metrics.cosine, metrics.explained):
    metric(x, x + 1)
metrics.explained(x, x + 1, data.mean(0)), metrics.nearest(x, data, 2), metrics.bootstrap(x.flatten(), rng)
plot.image_grid(x), plot.trajectory(x, x, [2.0, 1.0, 0.0]), plot.spectrum({"lam": column.flatten()})
plot.curves(column.flatten(), {"one": column.flatten()}, "x", "y")
grid = torch.randn(4, 4, 2)
plot.score_field(grid, grid, grid[..., 0])
try:
    machine.denoise("x", Noise(1.0, 1.0))
except TypeCheckError:
    print("checked")
"""


def test_annotations_hold_at_run_time():
    assert run(TYPED).strip() == "checked"
