"""The Gaussian machine: the exact denoiser of data with the training set's mean and covariance.

With mean mu and covariance Sigma = U diag(lam) U^T, and u = x - alpha mu,

    E[x0 | x] = mu + U diag( alpha lam / (alpha^2 lam + sigma^2) ) U^T u          (Wiener filter),

and the probability flow between any two levels (alpha, sigma) -> (alpha', sigma') is the linear map

    x' = alpha' mu + U diag( sqrt( (alpha'^2 lam + sigma'^2) / (alpha^2 lam + sigma^2) ) ) U^T u.

Both are spectral functions of Sigma. When only r eigenvectors are kept, the D - r other directions share one variance
`rest`. Component-wise noise does not commute with Sigma; there the D x D system is solved instead.
Source: Wang and Vastola (2024), and chapter "The Gaussian machine, solved".
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor

from .machine import Machine, batches, flatten, like
from .noise import Noise
from .stats import Moments

CLEAN = Noise(1.0, 0.0)


@dataclass(frozen=True, eq=False)
class Gaussian(Machine):
    """The posterior mean for x0 ~ N(mean, U diag(lam) U^T + rest (I - U U^T)).

    mean: (D,); lam: (r,), decreasing; U: (D, r), orthonormal columns; rest: 0-d, the variance of every direction
    outside U; shape: the shape of one sample. Component-wise and per-image noise are served. sigma = 0 in some or all
    components conditions on them exactly.
    """

    mean: Float[Tensor, " D"]
    lam: Float[Tensor, " r"]
    U: Float[Tensor, "D r"]
    rest: Float[Tensor, ""]
    shape: torch.Size

    @classmethod
    def fit(
        cls,
        data: Tensor | Iterable[Tensor] | Moments,
        rank: int | None = None,
        remainder: Literal["isotropic", "drop"] = "isotropic",
    ) -> Self:
        """Take mean and covariance (divided by N) from data (N, *shape), from batches, or from their `Moments`.

        rank: how many leading eigenvectors are kept, all by default. remainder: "isotropic" spreads the variance left
        over evenly over the other directions, so that the total is kept; "drop" sets it to zero.
        """
        moments = data if isinstance(data, Moments) else reduce(Moments.merge, map(Moments.of, batches(data)))
        D = len(moments.mean)
        rank = D if rank is None else rank
        if type(rank) is not int or not 1 <= rank <= D:
            raise ValueError(f"rank is {rank}, expected a whole number from 1 to the dimension {D}.")
        if remainder not in ("isotropic", "drop"):
            raise ValueError(f'remainder is {remainder!r}, expected "isotropic" or "drop".')
        lam, U = torch.linalg.eigh(moments.cov)
        lam, U = lam.clamp(min=0).flip(0), U.flip(1)
        left = lam[rank:].mean() if rank < D and remainder == "isotropic" else lam.new_zeros(())
        return cls(moments.mean, lam[:rank].clone(), U[:, :rank].contiguous(), left, moments.shape)

    @property
    def cov(self) -> Float[Tensor, "D D"]:
        """The dense covariance U diag(lam - rest) U^T + rest I."""
        return (self.U * (self.lam - self.rest)) @ self.U.T + self.rest * torch.eye(len(self.mean)).to(self.U)

    def denoise(self, x: Float[Tensor, "B *shape"], noise: Noise) -> Float[Tensor, "B *shape"]:
        """Return mu + Sigma A (A Sigma A + S^2)^-1 (x - A mu), A = diag(alpha), S = diag(sigma): the Wiener filter."""
        flat, alpha, sigma = flatten(x, noise, self.shape)
        u = flat - alpha * self.mean.to(x)
        if alpha.shape[1] == 1:
            gain = self._apply(u, lambda lam: _ratio(alpha * lam, alpha**2 * lam + sigma**2))
        else:
            gain = _rowwise(self._regress, u, alpha, sigma)
        return (self.mean.to(x) + gain).reshape(x.shape)

    def log_density(self, x: Float[Tensor, "B *shape"], noise: Noise) -> Float[Tensor, " B"]:
        """Return log N(x; A mu, A Sigma A + S^2) in nats; raises ValueError where sigma is 0."""
        flat, alpha, sigma = flatten(x, noise, self.shape)
        if noise.singular:
            raise ValueError("sigma is 0 in some component, where the density may not exist; use sigma > 0.")
        u = flat - alpha * self.mean.to(x)
        terms = (
            self._spectral_density(u, alpha, sigma)
            if alpha.shape[1] == 1
            else _rowwise(self._dense_density, u, alpha, sigma)
        )
        return -(terms + u.shape[1] * math.log(2 * math.pi)) / 2

    def posterior_cov_product(
        self, x: Float[Tensor, "B *shape"], noise: Noise, v: Float[Tensor, "B *shape"]
    ) -> Float[Tensor, "B *shape"]:
        """Return Cov[x0 | x] v = (Sigma - Sigma A (A Sigma A + S^2)^-1 A Sigma) v, valid at alpha = 0 too."""
        flatten(x, noise, self.shape)
        flat, alpha, sigma = flatten(like(v, x), noise, self.shape)
        if alpha.shape[1] == 1:
            product = self._apply(flat, lambda lam: _ratio(lam * sigma**2, alpha**2 * lam + sigma**2))
        else:
            prior = self._apply(flat, lambda lam: lam)
            product = prior - _rowwise(self._regress, alpha * prior, alpha, sigma)
        return product.reshape(x.shape)

    def flow(self, x: Float[Tensor, "B *shape"], start: Noise, end: Noise) -> Float[Tensor, "B *shape"]:
        """Carry x along the exact probability flow from level `start` to level `end`, in either direction.

        Each principal coordinate is scaled by the ratio of its noisy deviations. One level per image;
        sigma(start) > 0, since at sigma = 0 the map from directions without variance cannot be inverted.
        """
        alpha, sigma, alpha_end, sigma_end, u = self._between(x, start, end)
        moved = self._apply(u, lambda lam: ((alpha_end**2 * lam + sigma_end**2) / (alpha**2 * lam + sigma**2)).sqrt())
        return (alpha_end * self.mean.to(x) + moved).reshape(x.shape)

    def denoised_path(self, x: Float[Tensor, "B *shape"], start: Noise, end: Noise) -> Float[Tensor, "B *shape"]:
        """Return D at level `end` on the flow that passes through x at level `start`: denoise(flow(x)), in one map.

        mu + sum_k xi_k u_k u_k . (x - alpha mu) with
        xi_k = alpha' lam_k / sqrt((alpha'^2 lam_k + sigma'^2)(alpha^2 lam_k + sigma^2)).
        """
        alpha, sigma, alpha_end, sigma_end, u = self._between(x, start, end)
        gain = self._apply(u, lambda lam: _transfer(lam, alpha, sigma, alpha_end, sigma_end))
        return (self.mean.to(x) + gain).reshape(x.shape)

    def emergence(self, noise: Noise) -> Float[Tensor, " r"]:
        """Return alpha sqrt(lam / (alpha^2 lam + sigma^2)), the fraction of each principal feature present in D.

        It rises from 0 at sigma = infinity to 1 at sigma = 0; half the power is there at sigma = alpha sqrt(lam).
        """
        alpha, sigma = _scalars(noise)
        return alpha * _ratio(self.lam, alpha**2 * self.lam + sigma**2).sqrt()

    def sensitivity(self, start: Noise, end: Noise = CLEAN) -> Float[Tensor, " r"]:
        """Return the change of D at level `end` per unit kick of x along u_k at level `start`.

        alpha' lam / sqrt((alpha'^2 lam + sigma'^2)(alpha^2 lam + sigma^2)); with the default end, the change of the
        final image, sqrt(lam / (alpha^2 lam + sigma^2)).
        """
        return _transfer(self.lam, *_scalars(start), *_scalars(end))

    def denoising_error(self, noise: Noise) -> Float[Tensor, ""]:
        """Return E |D(x) - x0|^2 = sum_k lam_k sigma^2 / (alpha^2 lam_k + sigma^2), summed over all D directions."""
        alpha, sigma = _scalars(noise)
        lam = torch.cat([self.lam, self.rest.expand(len(self.mean) - len(self.lam))])
        return _ratio(lam * sigma**2, alpha**2 * lam + sigma**2).sum()

    def _apply(self, u: Tensor, f) -> Tensor:
        """Return f(Sigma) u for a spectral function f of the variances; u is (B, D)."""
        U, kept, other = self.U.to(u), f(self.lam.to(u)), f(self.rest.to(u))
        return other * u + ((kept - other) * (u @ U)) @ U.T

    def _between(self, x: Tensor, start: Noise, end: Noise) -> tuple[Tensor, ...]:
        flat, alpha, sigma = flatten(x, start, self.shape)
        _, alpha_end, sigma_end = flatten(x, end, self.shape)
        if alpha.shape[1] > 1 or alpha_end.shape[1] > 1:
            raise ValueError(
                "the noise differs between components, where the flow has no closed form; use one per image."
            )
        if start.singular:
            raise ValueError("sigma of the start is 0, where the flow cannot be inverted; start from sigma > 0.")
        return alpha, sigma, alpha_end, sigma_end, flat - alpha * self.mean.to(x)

    def _regress(self, u: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return Sigma A (A Sigma A + S^2)^+ u for one (alpha, sigma) of length D; u is (B, D)."""
        alpha, sigma, u64 = alpha.double(), sigma.double(), u.double()
        if sigma.min() > 0:
            root, Q, R = self._factor(alpha, sigma)
            white = torch.linalg.solve_triangular(R, Q.T @ (u64 / sigma).T, upper=True)
            return (root @ white).T.to(u)
        # exact conditioning: directions with neither variance nor noise carry no information
        cov = self.cov.double()
        noisy = alpha[:, None] * cov * alpha + torch.diag(sigma**2)
        scale = noisy.diagonal().sqrt()
        scale = scale.where(scale > 0, 1)
        weights = torch.linalg.pinv(noisy / scale[:, None] / scale, hermitian=True) @ (u64 / scale).T
        return ((weights.T / scale * alpha) @ cov).to(u)

    def _factor(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return L = Sigma^(1/2) and (Q, R), where [A L / S; I] = [Q; .] R: a square root that cannot lose rank.

        With x0 = mu + L w the posterior of w is the least-squares problem |A L w / S - u / S|^2 + |w|^2.
        """
        U, lam, rest = self.U.double(), self.lam.double(), self.rest.double()
        eye = torch.eye(len(alpha), dtype=torch.float64, device=U.device)
        root = (U * (lam.sqrt() - rest.sqrt())) @ U.T + rest.sqrt() * eye
        Q, R = torch.linalg.qr(torch.cat([(alpha / sigma)[:, None] * root, eye]))
        return root, Q[: len(alpha)], R

    def _spectral_density(self, u: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the Mahalanobis norm plus the log determinant of the noisy covariance."""
        var, rest = (alpha**2 * lam.to(u) + sigma**2 for lam in (self.lam, self.rest))
        c = u @ self.U.to(u)
        outside = (u - c @ self.U.to(u).T).square().sum(1) / rest[:, 0]
        return (c**2 / var + var.log()).sum(1) + outside + (u.shape[1] - c.shape[1]) * rest[:, 0].log()

    def _dense_density(self, u: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        sigma = sigma.double()
        root, Q, R = self._factor(alpha.double(), sigma)
        white = (u.double() / sigma).T
        w = torch.linalg.solve_triangular(R, Q.T @ white, upper=True)
        residual = white - (alpha.double() / sigma)[:, None] * (root @ w)
        logdet = 2 * (R.diagonal().abs().log().sum() + sigma.log().sum())
        return (residual.square().sum(0) + w.square().sum(0) + logdet).to(u)


def _ratio(top: Tensor, bottom: Tensor) -> Tensor:
    """top / bottom, and 0 where bottom is 0: a direction with neither variance nor noise does not move."""
    return torch.where(bottom > 0, top / bottom.where(bottom > 0, 1), 0)


def _transfer(lam: Tensor, alpha, sigma, alpha_end, sigma_end) -> Tensor:
    noisy = (alpha**2 * lam + sigma**2) * (alpha_end**2 * lam + sigma_end**2)
    return alpha_end * _ratio(lam, noisy.sqrt())


def _scalars(noise: Noise) -> tuple[float, float]:
    alpha, sigma = (torch.as_tensor(level, dtype=torch.float64) for level in (noise.alpha, noise.sigma))
    if alpha.numel() != 1 or sigma.numel() != 1:
        raise ValueError(f"the noise has shape {tuple((alpha + sigma).shape)}, expected one level for everything.")
    return alpha.item(), sigma.item()


def _rowwise(f, u: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Apply f(u, alpha, sigma) with one level for the whole batch, or row by row when each image has its own."""
    if len(u) == 0:
        one = u.new_ones(u.shape[1])
        return f(u, one, one)
    if len(alpha) == 1:
        return f(u, alpha[0], sigma[0])
    return torch.cat([f(u[b : b + 1], alpha[b], sigma[b]) for b in range(len(u))])
