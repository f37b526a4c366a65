"""Quality of samples: distances between two sets of images, seen through features.

Every function takes features a (N, F) and b (M, F) of two sets, in any floating type, and returns one number, computed
in float64. `scoremachines.features` and `scoremachines.classifier` turn images into features.

    frechet               squared Wasserstein-2 distance of the Gaussians with the sets' means and covariances
    mmd                   squared maximum mean discrepancy under a cubic kernel: the first three moments
    sliced_wasserstein    Wasserstein-2 distance of the sets' one-dimensional projections, in quadratic mean
    precision, recall     shares of one set that lie within reach of the neighbourhoods of the other

None of these numbers can be compared with a published FID, KID, precision or recall: those see images through an
Inception or VGG network trained on ImageNet. They can be compared with each other for the same features and the same
numbers of samples, since all but `mmd` depend on the latter also when both sets follow one law.
"""

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

DIRECTIONS_AT_ONCE = 32


def frechet(a: Float[Tensor, "N F"], b: Float[Tensor, "M F"]) -> float:
    """Return the Frechet distance |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2), in squared units of a.

    m and C are mean and covariance (divided by N), of any rank. It is zero exactly when both agree, and no larger than
    the squared Wasserstein-2 distance of the sets. It is biased upwards: for two sets of one law with unit covariance
    by about (F + F (F + 1) / 4) (1/N + 1/M). Not comparable with published FID, which uses Inception features.
    Source: Dowson and Landau (1982); Heusel et al. (2017).
    """
    a, b = _features(a, b)
    # with C_a = P^T P and C_b = Q^T Q the root has the trace of |P Q^T|: no covariance is formed, no eigenvalue clipped
    P, Q = _root(a), _root(b)
    cross = torch.linalg.svdvals(P @ Q.T).sum()
    total = (a.mean(0) - b.mean(0)).square().sum() + P.square().sum() + Q.square().sum() - 2 * cross
    return total.clamp(min=0).item()  # rounding alone could make it negative


def mmd(a: Float[Tensor, "N F"], b: Float[Tensor, "M F"], chunk: int = 512) -> float:
    """Return the unbiased squared maximum mean discrepancy under the kernel k(x, y) = (x.y / F + 1)^3.

    mean_{i != j} k(a_i, a_j) + mean_{i != j} k(b_i, b_j) - 2 mean_{ij} k(a_i, b_j). Its expectation does not depend on
    N and M and is zero exactly when the moments of order 1 to 3 agree, so that single values can be negative. The
    kernel, and so the result, depends on the scale and the origin of the features. `chunk` rows are read at a time.
    Not comparable with published KID, which uses Inception features. Raises ValueError unless each set has two
    samples. Source: Gretton et al. (2012), eq. 3; Binkowski et al. (2018).
    """
    a, b = _features(a, b, least=2)
    _check_whole("chunk", chunk)
    return (_within(a, chunk) + _within(b, chunk) - 2 * _kernel_sum(a, b, chunk) / (len(a) * len(b))).item()


def sliced_wasserstein(
    a: Float[Tensor, "N F"], b: Float[Tensor, "M F"], rng: torch.Generator, directions: int = 512
) -> float:
    """Return the sliced Wasserstein-2 distance, sqrt(mean over unit vectors v of W2(v.a, v.b)^2), in units of a.

    In one dimension W2^2 is the integral over u in (0, 1) of the squared difference of the quantile functions, taken
    exactly, whatever N and M. The mean is over `directions` uniform random directions: its relative error is of order
    1 / sqrt(directions). It is biased upwards by finite sets, by an order of 1/N + 1/M in W2^2.
    Source: Rabin et al. (2012); Bonneel et al. (2015).
    """
    a, b = _features(a, b)
    _check_whole("directions", directions)
    if not isinstance(rng, torch.Generator):
        raise ValueError(f"rng is a {type(rng).__name__}, expected a torch.Generator, which draws the directions.")
    v = torch.randn(directions, a.shape[1], generator=rng, device=rng.device, dtype=a.dtype).to(a.device)
    v = v / v.norm(dim=1, keepdim=True)
    squares = [_squared_w2(part @ a.T, part @ b.T) for part in v.split(DIRECTIONS_AT_ONCE)]
    return torch.cat(squares).mean().sqrt().item()


def recall(real: Float[Tensor, "N F"], fake: Float[Tensor, "M F"], k: int = 3, chunk: int = 512) -> float:
    """Return the share of real samples within reach of a fake one: no farther from it than its k-th fake neighbour.

    A sample is not its own neighbour. The balls around the fake samples stand for the support of their law, so recall
    falls when kinds of real images are missing. It depends on N, M and k, and is below 1 for two sets of one law:
    compare it with the recall of as many held-out real samples. `chunk` rows are read at a time.
    Not comparable with published values, which use VGG features. Raises ValueError unless 1 <= k < M.
    Source: Kynkaanniemi et al. (2019).
    """
    real, fake = _features(real, fake)
    _check_whole("chunk", chunk)
    _check_whole("k", k)
    if k >= len(fake):
        raise ValueError(f"k is {k}, but {len(fake)} samples have {len(fake) - 1} neighbours each; lower k.")
    # equal points get equal distances only when these are measured by subtraction
    reach = torch.cat([_distances(part, fake).kthvalue(k + 1).values for part in fake.split(chunk)])
    inside = torch.cat([(_distances(part, fake) <= reach).any(1) for part in real.split(chunk)])
    return inside.double().mean().item()


def precision(real: Float[Tensor, "N F"], fake: Float[Tensor, "M F"], k: int = 3, chunk: int = 512) -> float:
    """Return the share of fake samples within reach of a real one: `recall` with the sets exchanged.

    It falls when fake images are unlike all real ones. Not comparable with published values.
    Raises ValueError unless 1 <= k < N. Source: Kynkaanniemi et al. (2019).
    """
    return recall(fake, real, k, chunk)


def _features(a: Tensor, b: Tensor, least: int = 1) -> tuple[Float64[Tensor, "N F"], Float64[Tensor, "M F"]]:
    """Return both sets in float64, on the device of a, after checking them."""
    for x in (a, b):
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim != 2:
            kind = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"a set of features is {kind}, expected floating (N, F); turn images into features first.")
        if len(x) < least or not x.shape[1]:
            raise ValueError(
                f"a set of features has shape {tuple(x.shape)}, expected (N, F) with N >= {least}, F >= 1."
            )
        if not x.isfinite().all():
            raise ValueError("the features hold NaN or infinite values; remove or repair those samples first.")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"the sets have {a.shape[1]} and {b.shape[1]} features, expected the same ones in both.")
    return a.double(), b.to(a.device, torch.float64)


def _check_whole(name: str, value: int) -> None:
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} is {value!r}, expected a whole number, 1 or more.")


def _root(x: Tensor) -> Float64[Tensor, "R F"]:
    """R with R^T R = covariance: the triangular factor of the centred samples, of min(N, F) rows."""
    return torch.linalg.qr(x - x.mean(0), mode="r").R / len(x) ** 0.5


def _within(x: Tensor, chunk: int) -> Tensor:
    """The mean of k(x_i, x_j) over i != j."""
    diagonal = (x.square().mean(1) + 1).pow(3).sum()
    return (_kernel_sum(x, x, chunk) - diagonal) / (len(x) * (len(x) - 1))


def _kernel_sum(a: Tensor, b: Tensor, chunk: int) -> Tensor:
    return sum((part @ b.T / b.shape[1] + 1).pow(3).sum() for part in a.split(chunk))


def _squared_w2(a: Float64[Tensor, "d N"], b: Float64[Tensor, "d M"]) -> Float64[Tensor, " d"]:
    """The squared Wasserstein-2 distance of N and M equal masses on a line, for each row."""
    i, j, width = _steps(a.shape[1], b.shape[1], a.device)
    return ((a.sort().values[:, i] - b.sort().values[:, j]).square() * width).sum(1)


def _steps(N: int, M: int, device: torch.device) -> tuple[Int64[Tensor, " s"], Int64[Tensor, " s"], Tensor]:
    """The steps between the jumps, at i/N and j/M, of two quantile functions: the rank in each set, and the width."""
    ends = torch.cat([torch.arange(1, N + 1) * M, torch.arange(1, M + 1) * N]).unique().to(device)  # of N M, exactly
    width = ends.diff(prepend=ends.new_zeros(1)).double() / (N * M)
    return (ends - 1) // M, (ends - 1) // N, width


def _distances(a: Tensor, b: Tensor) -> Float64[Tensor, "n M"]:
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
