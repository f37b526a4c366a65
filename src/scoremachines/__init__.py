"""Analytic score machines: closed-form denoisers that say what a diffusion network computes, and why.

    images --to_unit--> x0 --of / merge--> statistics --fit--> machine
    times --schedule--> levels --------------------------------> | denoise
    seed (torch.Generator) --> x at levels[0] --> trajectory <---+

Data sets, metrics and figures live in `scoremachines.data`, `scoremachines.metrics` and `scoremachines.plot`.
"""

from .gaussian import Gaussian
from .ideal import Ideal
from .machine import Machine
from .noise import Noise, cosine, cosine_legacy, edm, edm_levels, flow, levels, vp
from .sample import State, ddim, ddpm, heun, sample, trajectory
from .stats import Moments, SoftMean

__all__ = [
    "Gaussian",
    "Ideal",
    "Machine",
    "Moments",
    "Noise",
    "SoftMean",
    "State",
    "cosine",
    "cosine_legacy",
    "ddim",
    "ddpm",
    "edm",
    "edm_levels",
    "flow",
    "heun",
    "levels",
    "sample",
    "trajectory",
    "vp",
]
