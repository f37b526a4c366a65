"""Cumulants of a cloud, and how far they drive the ideal flow from the Gaussian one.

For centred samples v_i = y_i - mean, with covariance Sigma, the cumulant tensors of order three and four are

    K3 = E v (x) v (x) v,        K4 = E v (x) v (x) v (x) v - (the three pairings of Sigma (x) Sigma).

Their squared norms need no tensor of D^3 entries, since <v^(x n), w^(x n)> = (v . w)^n. Over all pairs (v, w),

    |K3|^2 = E (v . w)^3,        |K4|^2 = E (v . w)^4 - 6 E (v^T Sigma v)^2 + 3 |Sigma|^4 + 6 |Sigma^2|^2,

with Frobenius norms. A sum over pairs is no monoid: two clouds merge only together with the pairs between them.

Start the exact flows of the training set and of its Gaussian at one point of pure noise, sigma -> infinity, and stop
both at sigma (alpha = 1; on other schedules read sigma / alpha). At x = mean + sigma z their denoisers differ by

    D_ideal - D_gauss = K3[He2(z)] / (2 sigma^2) + K4[He3(z)] / (6 sigma^3) + O(sigma^-4),

He_n the Hermite tensors, and z stays fixed along the path to leading order. Order n alone therefore displaces the
state by a mean square |K_n|^2 / ((n-1)! n^2 sigma^(2n-2)), and different orders are uncorrelated:

    E |x_ideal - x_gauss|^2 = |K3|^2 / (18 sigma^4) + |K4|^2 / (96 sigma^6) + ...

Besides the higher cumulants this leaves out the change of K3's own share by a factor 1 + O(lam / sigma^2), of the
order sigma^-6 too. Source: chapter "The Gaussian machine, solved".
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial, reduce
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from .machine import batches
from .stats import Moments


@dataclass(frozen=True)
class Cumulants:
    """Squared norms of the cumulants of `count` samples with D entries each.

    second: |Sigma|^2; third: |K3|^2; fourth: |K4|^2, all of the cloud itself, every pair counted.
    third_population: the average of (v . w)^3 over pairs of different samples, which estimates |K3|^2 of the
    population; centring at the estimated mean leaves a bias that falls as 1 / N, and it can be negative.
    """

    count: int
    D: int
    second: float
    third: float
    fourth: float
    third_population: float

    @property
    def onset(self) -> float:
        """The sigma = |K4| / (sqrt(3) |K3|) where both orders contribute alike to E |D_ideal - D_gauss|^2."""
        return math.sqrt(self.fourth / (3 * self.third)) if self.third else math.inf


def cumulants(data: Tensor | Iterable[Tensor], chunk: int = 2048) -> Cumulants:
    """Return the cumulants of data (N, *shape), or of batches that can be read again, by all pairs of samples.

    `chunk` samples meet `chunk` others at a time, each two chunks once. The samples are centred in float64, multiplied
    in their own precision (float32 at least), and summed in float64. Raises ValueError for a single sample, for an
    iterator, which can be read only once, and for batches that come in another order when read again.
    """
    if type(chunk) is not int or chunk < 1:
        raise ValueError(f"chunk is {chunk}, expected at least one sample at a time.")
    if isinstance(data, Iterator):
        raise ValueError("the data are an iterator, which can be read only once; pass a tensor or a list of batches.")
    moments = reduce(Moments.merge, map(Moments.of, batches(data)))
    if moments.count < 2:
        raise ValueError("the data hold 1 sample, expected at least two: one point has no cumulants.")
    read = partial(_centred, data, moments.mean, chunk)
    if isinstance(data, Tensor):  # in memory already: centre it once
        read = partial(iter, list(read()))
    return _cumulants(read, moments.count, moments.cov)


def third_cumulant(data: Tensor | Iterable[Tensor], population: bool = False, chunk: int = 2048) -> float:
    """Return |K3|^2 of the data, or with `population` its estimate for the law they were drawn from.

    It is the average of (v_i . v_j)^3 over all pairs, or over those with i != j. Errors: those of `cumulants`.
    """
    found = cumulants(data, chunk)
    return found.third_population if population else found.third


def displacement(cumulants: Cumulants, sigma: float | Tensor) -> float | Tensor:
    """Return the law of the teleportation error, E |x_ideal - x_gauss|^2 / D at sigma, in units of the data squared.

    (|K3|^2 / (18 sigma^4) + |K4|^2 / (96 sigma^6)) / D, for flows that start together in pure noise; sigma > 0 on the
    scale alpha = 1.
    """
    if not (torch.as_tensor(sigma) > 0).all():
        raise ValueError(f"sigma is {sigma}, expected positive values, where the two flows are compared.")
    third, fourth = _coefficients(cumulants)
    return third / sigma**4 + fourth / sigma**6


def sigma_skip(data: Tensor | Iterable[Tensor] | Cumulants, tolerance: float) -> float:
    """Return the sigma (alpha = 1) down to which one may teleport: there `displacement` equals the tolerance.

    tolerance: the mean squared error per component that is accepted, on the data's scale. With s = sigma^2 the law is
    the cubic s^3 - (|K3|^2 / (18 D tolerance)) s - |K4|^2 / (96 D tolerance) = 0, which has one positive root. It is 0
    for a cloud without third and fourth cumulant. Raises ValueError unless 0 < tolerance < infinity.
    """
    if not 0 < tolerance < math.inf:
        raise ValueError(f"tolerance is {tolerance}, expected a positive mean squared error per component, say 1e-3.")
    third, fourth = _coefficients(data if isinstance(data, Cumulants) else cumulants(data))
    # the three roots add up to zero, so the other two have negative real parts
    return math.sqrt(np.roots([1, 0, -third / tolerance, -fourth / tolerance]).real.max())


def _coefficients(cumulants: Cumulants) -> tuple[float, float]:
    return cumulants.third / (18 * cumulants.D), cumulants.fourth / (96 * cumulants.D)


def _centred(data: Tensor | Iterable[Tensor], mean: Tensor, chunk: int) -> Iterator[Tensor]:
    """Yield the samples minus their mean, (n, D) with n <= chunk."""
    for batch in [data] if isinstance(data, Tensor) else data:
        wide = torch.promote_types(batch.dtype, torch.float32)
        for part in batch.split(chunk):
            yield (part.flatten(1).double() - mean).to(wide)


def _cumulants(read: Callable[[], Iterator[Tensor]], N: int, cov: Float64[Tensor, "D D"]) -> Cumulants:
    cubes, fourths = _pair_sums(read)
    own = sum(v.double().square().sum(1).pow(3).sum().item() for v in read())
    quadratic = sum(((v.double() @ cov) * v).sum(1).square().sum().item() for v in read()) / N
    second = cov.square().sum().item()
    fourth = fourths / N**2 - 6 * quadratic + 3 * second**2 + 6 * (cov @ cov).square().sum().item()
    # squared norms, which rounding must not make negative
    return Cumulants(N, len(cov), second, max(cubes / N**2, 0.0), max(fourth, 0.0), (cubes - own) / (N * (N - 1)))


def _pair_sums(read: Callable[[], Iterator[Tensor]]) -> tuple[float, float]:
    """Return the sums of (v . w)^3 and (v . w)^4 over all ordered pairs; two different chunks meet once."""
    third = fourth = 0.0
    for i, a in enumerate(read()):
        for j, b in enumerate(islice(read(), i, None)):
            if j == 0 and not torch.equal(a, b):
                raise ValueError("the batches came in another order when read again; switch shuffling off.")
            pairs = (a @ b.T).double().flatten()
            square = pairs * pairs
            times = 2 if j else 1
            third += times * square.dot(pairs).item()
            fourth += times * square.dot(square).item()
    return third, fourth
