"""Analytic score machines: closed-form denoisers that say what a diffusion network computes, and why.

    images --to_unit--> x0 --of / merge--> statistics --fit--> machine
    times --schedule--> levels --------------------------------> | denoise
    seed (torch.Generator) --> x at levels[0] --> trajectory <---+

Data sets, metrics and figures live in `scoremachines.data`, `scoremachines.metrics` and `scoremachines.plot`.
"""

from .cumulants import sigma_skip, third_cumulant
from .equivariant import Equivariant
from .gaussian import Gaussian
from .ideal import Ideal
from .machine import Machine
from .mixture import Mixture
from .networks import Network
from .noise import Noise, cosine, cosine_legacy, edm, edm_levels, flow, levels, vp
from .patches import EquivariantLocal, Local
from .sample import State, ddim, ddpm, heun, sample, trajectory
from .smoothed import KernelDensity
from .solvers import dpmpp_2m, dpmpp_3m, unipc_bh1, unipc_bh2
from .stats import Moments, SoftMean
from .teleport import teleport

__all__ = [
    "Equivariant",
    "EquivariantLocal",
    "Gaussian",
    "Ideal",
    "KernelDensity",
    "Local",
    "Machine",
    "Mixture",
    "Moments",
    "Network",
    "Noise",
    "SoftMean",
    "State",
    "cosine",
    "cosine_legacy",
    "ddim",
    "ddpm",
    "dpmpp_2m",
    "dpmpp_3m",
    "edm",
    "edm_levels",
    "flow",
    "heun",
    "levels",
    "sample",
    "sigma_skip",
    "teleport",
    "third_cumulant",
    "trajectory",
    "unipc_bh1",
    "unipc_bh2",
    "vp",
]
