"""The mixture machine: the exact denoiser of a mixture of K Gaussians.

With x0 ~ sum_k weight_k N(mu_k, Sigma_k), x = alpha x0 + sigma eps is a mixture too, and

    E[x0 | x] = sum_k w_k(x) D_k(x),
    w_k(x) = softmax_k( log weight_k + log N(x; alpha mu_k, alpha^2 Sigma_k + sigma^2 I) ),

with the Gaussian machine D_k of component k and its posterior probability w_k, the responsibility. With one component
it is `Gaussian`; with one component of no variance for each sample it is `Ideal`. Between the two lies a coarse-grained
score. The responsibilities are computed in float64: at little noise they are differences of large numbers.
Source: Wang and Vastola (2024), and chapter "Mixtures, the coarse-grained score".
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from typing import Literal, Self

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torch.nn.functional import one_hot

from .clusters import CHUNK, by_label, check_kmeans, check_labels, check_rereadable, kmeans, members, occupied
from .gaussian import CLEAN, Gaussian
from .machine import Machine, batches, flatten, like
from .noise import Noise
from .softmoments import SoftMoments, raised


@dataclass(frozen=True, eq=False)
class Mixture(Machine):
    """The posterior mean for x0 ~ sum_k weights_k N(component k).

    weights: (K,), or (B, K) for a prior of its own for each image of a batch, with sum 1; components: K Gaussians.
    Component-wise and per-image noise are served. sigma = 0 in some or all components conditions on them exactly; where
    several components compete, their covariances have to be regular there. A component is not evaluated for images to
    which it contributes exactly nothing.
    """

    weights: Float[Tensor, "*B K"]
    components: tuple[Gaussian, ...]

    @classmethod
    def fit(
        cls,
        data: Tensor | Iterable[Tensor],
        k: int | None = None,
        rank: int | None = None,
        by: Literal["kmeans", "labels", "em"] = "kmeans",
        labels: Int[Tensor, " N"] | None = None,
        remainder: Literal["isotropic", "drop"] = "isotropic",
        rng: torch.Generator | None = None,
        passes: int = 100,
        tolerance: float = 1e-4,
        floor: float = 1e-6,
    ) -> Self:
        """Fit k Gaussians to data (N, *shape), or to batches that can be read many times, each time in the same order.

        by: "kmeans" gives each component the mean, covariance and share of one cluster; "labels" those of one label,
        the i-th distinct label in increasing order for component i; "em" starts from "kmeans" and raises the likelihood
        of the data, with no variance below `floor`. rank and remainder: as in `Gaussian.fit`; "drop" is the form of the
        source. rng: for "kmeans" and "em", whose passes end when one betters the inertia or the log-likelihood by no
        more than the fraction `tolerance`, or after `passes`. "em" holds K matrices of D x D, the others one at a time.
        """
        _check_settings(by, labels, remainder, floor)
        check_rereadable(data) if by == "labels" else check_kmeans(data, k, rng, passes, tolerance)
        count, shape = _survey(data)
        _check_sizes(count, shape.numel(), k, rank)
        assigned = by_label(labels, count, k) if by == "labels" else kmeans(data, k, rng, passes, tolerance)
        counts = occupied(assigned, int(assigned.max()) + 1 if k is None else k)
        fitted = (_fitted(members(data, assigned, i), n, shape, rank, remainder) for i, n in enumerate(counts.tolist()))
        found = cls(counts.double() / count, tuple(fitted))
        return found._climbed(data, rank, passes, tolerance, floor) if by == "em" else found

    def _climbed(self, data, rank: int | None, passes: int, tolerance: float, floor: float) -> Self:
        """Return the mixture after passes of expectation and maximisation that started here."""
        found = replace(self, components=tuple(raised(one, floor) for one in self.components))
        before = -math.inf
        for _ in range(passes):
            parts = (part for batch in batches(data) for part in batch.split(CHUNK))
            soft = reduce(SoftMoments.merge, (SoftMoments.of(part, found._log_joint(part, CLEAN)) for part in parts))
            now = soft.log_likelihood.item()
            if now - before <= tolerance * abs(now):
                break
            found, before = type(self)(soft.weights, soft.gaussians(rank, floor)), now
        return found

    @property
    def shape(self) -> torch.Size:
        """The shape of one sample."""
        return self.components[0].shape

    def given(self, labels: Int[Tensor, " B"]) -> Self:
        """Return the machine for images whose components are known: labels (B,) are numbers of components from 0."""
        K = len(self.components)
        check_labels(labels)
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < K:
            raise ValueError(f"the labels go from {labels.min()} to {labels.max()}, expected components 0 to {K - 1}.")
        return replace(self, weights=one_hot(labels.long(), K).to(self.weights))

    def denoise(self, x: Float[Tensor, "B *shape"], noise: Noise) -> Float[Tensor, "B *shape"]:
        """Return sum_k w_k(x) D_k(x)."""
        total = torch.zeros_like(x)
        for one, share, rows, some, level in self._shares(x, noise):
            total = total.index_add(0, rows, share * one.denoise(some, level))
        return total

    def log_responsibilities(self, x: Float[Tensor, "B *shape"], noise: Noise) -> Float[Tensor, "B K"]:
        """Return log w_k(x), the log posterior probability of each component."""
        return self._log_posterior(x, noise).to(x)

    def log_density(self, x: Float[Tensor, "B *shape"], noise: Noise) -> Float[Tensor, " B"]:
        """Return log sum_k weight_k N(x; A mu_k, A Sigma_k A + S^2) in nats; raises ValueError where sigma is 0."""
        flatten(x, noise, self.shape)
        if noise.singular:
            raise ValueError("sigma is 0 in some component, where the density may not exist; use sigma > 0.")
        return self._log_joint(x, noise).logsumexp(1).to(x)

    def posterior_cov_product(
        self, x: Float[Tensor, "B *shape"], noise: Noise, v: Float[Tensor, "B *shape"]
    ) -> Float[Tensor, "B *shape"]:
        """Return Cov[x0 | x] v = sum_k w_k (C_k v + (D_k - D)(D_k - D) . v), valid at alpha = 0 too.

        C_k: the posterior covariance of component k; the second part is the spread of the D_k around D.
        """
        flatten(x, noise, self.shape)
        v, mean = like(v, x), self.denoise(x, noise)
        total = torch.zeros_like(x)
        for one, share, rows, some, level in self._shares(x, noise):
            gap, along = one.denoise(some, level) - mean[rows], v[rows]
            spread = gap * _column((gap * along).flatten(1).sum(1), x)
            total = total.index_add(0, rows, share * (one.posterior_cov_product(some, level, along) + spread))
        return total

    def flow(self, x: Float[Tensor, "B *shape"], start: Noise, end: Noise) -> Float[Tensor, "B *shape"]:
        """Carry each image along the exact probability flow of the component most probable at level `start`.

        Exact for one component, and close where one has all the responsibility along the way; elsewhere the flow of a
        mixture has no closed form. One level per image; sigma(start) > 0.
        """
        for level in (start, end):
            flatten(x, level, self.shape)
        if start.singular:
            raise ValueError("sigma of the start is 0, where the flow cannot be inverted; start from sigma > 0.")
        best = one_hot(self._log_posterior(x, start).argmax(1), len(self.components))
        moved = torch.zeros_like(x)
        for k, rows in _live(best):
            levels = (_rows(level, rows) for level in (start, end))
            moved = moved.index_add(0, rows, self.components[k].flow(x[rows], *levels))
        return moved

    def to(self, *target: torch.dtype | torch.device | str | Tensor) -> Self:
        """Return the machine, its components included, on another dtype or device, as `Tensor.to` does."""
        return replace(super().to(*target), components=tuple(one.to(*target) for one in self.components))

    def _shares(self, x: Tensor, noise: Noise) -> Iterator[tuple[Gaussian, Tensor, Tensor, Tensor, Noise]]:
        """Yield (component, w_k, rows, x, noise) for every component, at the rows where w_k is not 0."""
        weights = self._log_posterior(x, noise).exp()
        for k, rows in _live(weights):
            yield self.components[k], _column(weights[rows, k], x).to(x), rows, x[rows], _rows(noise, rows)

    def _log_posterior(self, x: Tensor, noise: Noise) -> Float64[Tensor, "B K"]:
        """Return log w_k(x) in float64; an image with one possible component needs no density."""
        flatten(x, noise, self.shape)
        prior = self._prior(x)
        rows = ((prior > 0).sum(1) > 1).nonzero()[:, 0]
        contested = replace(self, weights=prior[rows])
        found = prior.log().index_copy(0, rows, contested._log_joint(x[rows], _rows(noise, rows)))
        beyond = found.amax(1, keepdim=True) == -math.inf  # so far out that float64 holds no log density
        return torch.where(beyond, prior.log(), found).log_softmax(1)

    def _log_joint(self, x: Tensor, noise: Noise) -> Float64[Tensor, "B K"]:
        """Return log(weight_k N(x; A mu_k, A Sigma_k A + S^2)), -inf where weight_k is 0."""
        prior, x = self._prior(x), x.double()
        columns = list(prior.log().unbind(1))
        for k, rows in _live(prior):
            density = _joint_density if noise.singular else Gaussian.log_density
            values = density(self.components[k], x[rows], _rows(noise, rows))
            columns[k] = columns[k].index_add(0, rows, values)
        return torch.stack(columns, 1)

    def _prior(self, x: Tensor) -> Float64[Tensor, "B K"]:
        if self.weights.ndim > 1 and len(self.weights) != len(x):
            raise ValueError(
                f"the machine holds weights for {len(self.weights)} images and x has {len(x)}; give it labels for x."
            )
        return self.weights.to(x.device, torch.float64).expand(len(x), len(self.components))


# Rows of a batch ----------------------------------------------------------------------------------------------------


def _live(weights: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield (k, rows) for every column of weights (B, K) that is not 0 everywhere, and the rows where it is not."""
    for k, column in enumerate(weights.unbind(1)):
        rows = column.nonzero()[:, 0]
        if len(rows):
            yield k, rows


def _rows(noise: Noise, rows: Tensor) -> Noise:
    """The levels of some images of the batch; a level without a row for each image is the same for all."""
    shared = (not isinstance(a, Tensor) or a.ndim == 0 or len(a) == 1 for a in (noise.alpha, noise.sigma))
    found = (a if same else a[rows.to(a.device)] for a, same in zip((noise.alpha, noise.sigma), shared, strict=True))
    return Noise(*found)


def _column(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(-1, *(1,) * (x.ndim - 1))


def _joint_density(gaussian: Gaussian, x: Tensor, noise: Noise) -> Float64[Tensor, " B"]:
    """Return log N(x; A mu, A Sigma A + S^2) where sigma is 0 in some component and Sigma is regular there."""
    flat, alpha, sigma = flatten(x, noise, gaussian.shape)
    gaussian = gaussian.to(torch.float64)
    u, cov = flat - alpha * gaussian.mean, gaussian.cov
    if len(alpha) == 1:
        return _dense_density(u, cov, alpha[0], sigma[0])
    return torch.cat([_dense_density(u[b : b + 1], cov, alpha[b], sigma[b]) for b in range(len(u))])


def _dense_density(u: Tensor, cov: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Return log N(u; 0, A Sigma A + S^2) by the Cholesky factor of the correlation matrix."""
    D = len(cov)
    alpha, sigma = alpha.expand(D), sigma.expand(D)
    noisy = alpha[:, None] * cov * alpha + torch.diag(sigma**2)
    scale = noisy.diagonal().sqrt()
    scale = scale.where(scale > 0, 1)
    root, failed = torch.linalg.cholesky_ex(noisy / scale[:, None] / scale)
    if failed or root.diagonal().min() ** 2 < D * torch.finfo(u.dtype).eps:
        raise ValueError(
            "sigma is 0 in some component, and there the covariance of a Gaussian of the mixture is singular, so that "
            "its responsibility is not defined; use sigma > 0 or keep more variance."
        )
    white = torch.linalg.solve_triangular(root, (u / scale).T, upper=False)
    logdet = 2 * (root.diagonal() * scale).log().sum()
    return -(white.square().sum(0) + logdet + D * math.log(2 * math.pi)) / 2


# Fitting ------------------------------------------------------------------------------------------------------------


def _fitted(samples: Iterable[Tensor], count: int, shape: torch.Size, rank: int | None, remainder: str) -> Gaussian:
    """Fit one Gaussian; few samples in many dimensions go by their own singular values, not by a D x D matrix."""
    few = 2 * count < shape.numel()
    return _thin(torch.cat(list(samples)), rank, remainder) if few else Gaussian.fit(samples, rank, remainder)


def _thin(samples: Tensor, rank: int | None, remainder: str) -> Gaussian:
    """Fit the Gaussian of n < D samples, which vary in n - 1 directions at most."""
    y = samples.flatten(1).double()
    count, D = y.shape
    mean = y.mean(0)
    _, s, Vh = torch.linalg.svd(y - mean, full_matrices=False)
    lam = s[: count - 1] ** 2 / count
    kept = lam[:rank]
    left = lam[len(kept) :].sum() / (D - len(kept)) if remainder == "isotropic" else lam.new_zeros(())
    return Gaussian(mean, kept.clone(), Vh[: len(kept)].T.contiguous(), left, samples.shape[1:])


def _survey(data: Tensor | Iterable[Tensor]) -> tuple[int, torch.Size]:
    """Return the number of samples and the shape of one, after checking all of them."""
    count = 0
    for batch in batches(data):
        count, shape = count + len(batch), batch.shape[1:]
    return count, shape


def _check_settings(by: str, labels, remainder: str, floor: float) -> None:
    if by not in ("kmeans", "labels", "em"):
        raise ValueError(f'by is {by!r}, expected "kmeans", "labels" or "em".')
    if remainder not in ("isotropic", "drop"):
        raise ValueError(f'remainder is {remainder!r}, expected "isotropic" or "drop".')
    if by == "em" and remainder == "drop":
        raise ValueError('remainder is "drop", which leaves no density for "em" to raise; use "isotropic".')
    if (labels is None) == (by == "labels"):
        raise ValueError(f'by is {by!r} and labels are {type(labels).__name__}; give labels with by="labels" only.')
    if not 0 < floor < math.inf:
        raise ValueError(f"floor is {floor}, expected a variance above 0.")


def _check_sizes(count: int, D: int, k: int | None, rank: int | None) -> None:
    if k is not None and (type(k) is not int or not 1 <= k <= count):
        raise ValueError(f"k is {k}, expected a whole number from 1 to the {count} samples of the data.")
    if rank is not None and (type(rank) is not int or not 1 <= rank <= D):
        raise ValueError(f"rank is {rank}, expected a whole number from 1 to the dimension {D}.")
