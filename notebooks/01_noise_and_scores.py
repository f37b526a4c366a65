# ---
# jupyter:
#   jupytext: {text_representation: {extension: .py, format_name: percent}}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   scorebook:
#     goals:
#       - say what a noise level is, and why it is a pair of numbers
#       - prove Tweedie's two identities, and move between score, denoiser and predicted noise
#       - prove that score matching and denoising have the same minimiser
#       - derive the probability flow, and the samplers ddim, heun and ddpm from it
#       - compare schedules at matched signal-to-noise ratio, and measure the order of a sampler
#     minutes: 90
#     needs: []
#     paper: [mnist, cifar10]
# ---

# %% [markdown]
# (noise-and-scores)=
# # Noise and scores
#
# :::{admonition} What this chapter is for
# After it you can say what a diffusion model computes at one noise level, prove that three different ways of writing
# it are the same, and turn it into pictures. It takes about ninety minutes. You need multivariate
# calculus, conditional expectation, and enough Python to read ten lines of PyTorch.
# :::
#
# A diffusion model makes images from noise. It does so with one function: given a noisy image, *what was the clean
# image, on average?* This chapter defines that function, the {term}`denoiser`, and shows that it knows everything else:
# the gradient of the log density of noisy images, the covariance of what the noise has hidden, and the
# differential equation that carries noise to images.
#
# Nothing here needs a neural network. The denoisers in this book are closed formulas, so each statement can be checked
# to rounding error, and we do check it. The pattern is always the same: **derive** a formula, **write** it in a few
# lines, **check** the lines against the library `scoremachines`, and from then on **import** it.

# %% tags=["parameters"]
profile = "quick"
seed = 0
data = ["digits", "photos"]

# %% tags=["hide-input"]
import math
from itertools import pairwise

import torch
from IPython.display import display
from torch.testing import assert_close

from scorebook import paper, record, record_data
from scorebook.slider import frame_slider
from scoremachines import (
    Gaussian,
    Ideal,
    Machine,
    Noise,
    cosine,
    cosine_legacy,
    ddim,
    ddpm,
    edm,
    edm_levels,
    flow,
    heun,
    levels,
    metrics,
    plot,
    sample,
    trajectory,
    vp,
)
from scoremachines.data import load

settings = {
    "quick": {
        "images": 2000,
        "draws": 8192,
        "repeats": 5,
        "oversampling": [2, 4, 8, 16, 32, 64],
        "steps": [5, 10, 20, 40, 80, 160],
    },
    "paper": {"images": 10000, "draws": 4096, "repeats": 1, "oversampling": [2, 4, 8], "steps": [5, 10, 20, 40, 80]},
}[profile]
rng = torch.Generator().manual_seed(seed)


def choose(images, count):
    """A random choice of at most `count` images, in double precision."""
    record_data(images)
    return images.x0[torch.randperm(len(images), generator=rng)[:count]].double()


def normal(shape):
    return torch.randn(shape, generator=rng, dtype=torch.float64)


def evenly(first, last, n):
    return torch.linspace(first, last, n, dtype=torch.float64).tolist()


def strip(images, gap=1):
    """Images (n, C, H, W) side by side as one image (C, H, width), with white gaps."""
    padded = torch.nn.functional.pad(images, (0, gap), value=1.0)
    return torch.cat(list(padded), dim=2)[..., :-gap]


def sheet(rows, titles=()):
    """One row of images for each entry of `rows`, with its name on the left and a title over each column."""
    shapes = [row.shape for row in rows.values()]
    heights = [5.6 * s[2] / (s[0] * (s[3] + 1)) for s in shapes]
    size = (6.4, sum(heights) + 0.1 * len(heights) + (0.3 if titles else 0))
    fig, axes = plot.figure(len(rows), 1, size, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axis, (name, images) in zip(axes[:, 0], rows.items(), strict=True):
        plot.show(axis, strip(images))
        axis.axis("off")
        axis.text(-0.01, 0.5, name, transform=axis.transAxes, ha="right", va="center", fontsize=10)
    for k, title in enumerate(titles):
        axes[0, 0].text((k + 0.5) / len(titles), 1.04, title, transform=axes[0, 0].transAxes, ha="center", fontsize=10)
    return fig


clean = {name: choose(load(name), settings["images"]) for name in data}
images = clean[data[0]]  # (N, C, H, W), the set on which the theory is checked
D = images[0].numel()

# %% [markdown]
# The images of this run are those of the parameter cell: by default scikit-learn's handwritten digits, $8\times8$ pixels
# {cite:p}`pedregosa2011`, and grey patches of $16\times16$ pixels cut from photographs {cite:p}`lee2019pywavelets`. Pixel
# values lie in $[-1, 1]$, black to white. One image is a vector $x_0\in\R^D$; for the digits, $D=64$. See {ref}`data-sets`.
#
# ## Adding noise
#
# :::{prf:definition} Noise level
# :label: def-noise-level
#
# A *noise level* is a pair $(\alpha,\sigma)$ of non-negative numbers, not both zero. It turns a clean image $x_0$ into a
# noisy one,
#
# $$
# x = \alpha\, x_0 + \sigma\,\varepsilon, \qquad \varepsilon\sim\N(0, I),
# $$ (eq-noise-forward)
#
# where the noise $\varepsilon$ is independent of $x_0$. Its {term}`signal-to-noise ratio` is $\alpha^2/\sigma^2$, infinite at $\sigma=0$.
# :::
#
# Throughout, $x_0$ is random: it is drawn from the *data law*, of which we only ask that $\E\norm{x_0}^2$ is finite. The
# uniform law on a training set is one example.

# %%
noise = Noise(alpha=0.6, sigma=0.8)
x0 = images[:8]
eps = normal(x0.shape)
x = 0.6 * x0 + 0.8 * eps

assert_close(noise.add(x0, eps), x)
assert_close(noise.snr, (0.6 / 0.8) ** 2)

# %% mystnb={"figure": {"name": "fig-noise-slider", "caption": "Real images under more and more noise; the same images and the same noise $\\varepsilon$ in every frame, with $\\alpha=\\cos\\theta$ and $\\sigma=\\sin\\theta$. Fine detail goes first. At $\\sigma=\\alpha$ only traces of the largest shapes are left, and at $\\alpha=0$ the image is gone altogether: that last level exists only because the level is a pair."}} tags=["hide-input"]
frames, names, alts = [], [], []
some = {}
for name, x in clean.items():  # of the first 64 images the six with most contrast
    x0 = x[x[:64].flatten(1).var(1).topk(6).indices]
    some[name] = (x0, normal(x0.shape))
seen = [
    "clean images",
    "a light grain",
    "a clear grain, every shape still visible",
    "strong grain, large shapes visible",
]
seen += ["faint traces of the largest shapes", "hardly a trace of an image", "noise alone"]
for k in range(11):
    # sin and cos of the same angle, with both ends exact
    level = Noise(math.sin(math.pi / 2 * (10 - k) / 10), math.sin(math.pi / 2 * k / 10))
    frames.append(sheet({name: level.add(x0, eps) for name, (x0, eps) in some.items()}))
    names.append(f"α = {level.alpha:.2f}, σ = {level.sigma:.2f}")
    word = seen[[0, 1, 2, 3, 3, 4, 4, 5, 5, 5, 6][k]]
    alts.append(f"Six images of each data set at alpha {level.alpha:.2f} and sigma {level.sigma:.2f}: {word}.")
frame_slider(frames, labels=names, alts=alts, label="Noise level")

# %% [markdown]
# ### Why a pair
#
# Papers index the noise by a time $t$, by $\sigma$ alone, or by the signal-to-noise ratio. We carry the pair, for
# three reasons.
#
# * A time means nothing without a {term}`schedule`, a function $t\mapsto(\alpha,\sigma)$. A denoiser that takes $t$ is tied
#   to one schedule, although $t$ occurs nowhere in {eq}`eq-noise-forward`. A denoiser that takes the pair serves them all.
# * A bare $\sigma$ fixes $\alpha=1$, and then pure noise, $\alpha=0$, can only be approached. Many
#   schedules end exactly there.
# * Every formula below is written so that nothing is divided by $\alpha$, except where we say so. The formulas are then
#   valid, and computable, at the very place where sampling starts.
#
# Scaling a level scales the noisy image and nothing else: if $c>0$, then $(c\alpha, c\sigma)$ turns $x_0$ into
# $c\,x$. Two levels with $\sigma>0$ differ by such a factor exactly when they have the same signal-to-noise ratio.
# The ratio therefore says how much of the image a level lets through, and the factor is a choice of units.
# We use this fact {ref}`below <schedules-at-matched-snr>`, where it makes schedules comparable.
#
# ## The noisy density and its score
#
# Write $\varphi_\sigma(u) = (2\pi\sigma^2)^{-D/2}\exp(-\norm{u}^2/2\sigma^2)$ for the density of $\sigma\varepsilon$. Given
# $x_0$, the noisy image has density $\varphi_\sigma(x-\alpha x_0)$. On average over the data law it has density
#
# $$
# p(x) = \E\big[\varphi_\sigma(x-\alpha x_0)\big],
# $$ (eq-noise-density)
#
# where the expectation is over $x_0$ and $x$ is fixed. The density depends on the level; we write $p(x;\alpha,\sigma)$
# when that matters. However rough the data law is, and a training set is as rough as can be, $p$ is smooth.
#
# :::{prf:lemma} Noise makes everything smooth
# :label: lem-noise-smooth
#
# Let $\sigma>0$ and let $h$ be a function with $\E|h(x_0)|<\infty$. Then $g(x)=\E[h(x_0)\,\varphi_\sigma(x-\alpha x_0)]$
# has derivatives of every order, and they may be taken under the expectation. In particular $p$ is smooth, and $p>0$.
# :::
#
# :::{prf:proof}
# Each partial derivative of $\varphi_\sigma$ is a polynomial times a Gaussian, hence bounded, by $C_k$ say for order $k$. By
# the mean value theorem, difference quotients in $x$ of $h(x_0)\,\partial^k\varphi_\sigma(x-\alpha x_0)$ are bounded
# by $C_{k+1}|h(x_0)|$, which does not depend on $x$ and has finite expectation. Dominated convergence lets the derivative
# pass under the expectation; induction on $k$ gives all orders. Positivity is clear, since $\varphi_\sigma>0$.
# :::
#
# :::{prf:definition} Score
# :label: def-noise-score
#
# For $\sigma>0$ the {term}`score` is $s(x)=\nabla_x\log p(x)$.
# :::
#
# The score points to where noisy images are more likely. Two dimensions are enough to see it. Let the data be
# five points in the plane. Their noisy density is a mixture of five Gaussians, and `Ideal` is the library's exact machine
# for such a cloud; {ref}`the next chapter <ideal-machine>` is about it.

# %% tags=["hide-input"]
points = torch.tensor([[-1.0, -0.6], [-0.5, 0.9], [0.2, -0.1], [0.9, 0.8], [1.1, -0.9]], dtype=torch.float64)
plane = Ideal.fit(points)

# %% mystnb={"figure": {"name": "fig-noise-field", "caption": "Score (arrows) over the log density of five noisy points (brighter is more likely; the points are the white dots; arrow lengths are compressed). With little noise each point is a peak of its own, and almost every arrow points to the nearest one. As $\\sigma$ grows the peaks merge, until one hill around the mean is left. At high noise only the mean and the spread of the data still matter."}} tags=["hide-input"]
side = torch.linspace(-2, 2, 41, dtype=torch.float64)
grid = torch.stack(torch.meshgrid(side, side, indexing="xy"), dim=-1)
spreads = [0.15, 0.3, 0.45, 0.55, 0.7, 1.5]
frames, alts = [], []
for spread in spreads:
    level, where = Noise(1.0, spread), grid.reshape(-1, 2)
    arrows = plane.score(where, level).reshape(grid.shape)
    height = plane.log_density(where, level).reshape(grid.shape[:2])
    fig, axis = plot.figure(size=(3.7, 3.5))
    plot.score_field(grid, arrows, height, every=5, axis=axis)
    axis.scatter(*points.T, color="white", edgecolor="black", zorder=3)
    axis.set(xlim=(-2, 2), ylim=(-2, 2))
    frames.append(fig)
    around = torch.nn.functional.max_pool2d(height[None], 3, stride=1, padding=1)[0]
    peaks = (height == around)[1:-1, 1:-1].sum().item()
    shape = "a single hill" if peaks == 1 else f"{peaks} separate peaks"
    alts.append(f"Arrows of the score over the log density at sigma {spread}: {shape}, and the arrows point uphill.")
frame_slider(frames, labels=[f"σ = {s}" for s in spreads], alts=alts, label="Noise level")

# %% [markdown]
# ## The denoiser is a posterior mean
#
# Having seen $x$, what is known about $x_0$? Bayes' rule gives the *posterior* expectation of any function $h$ with
# $\E|h(x_0)|<\infty$,
#
# $$
# \E[h(x_0)\mid x] = \frac{\E[h(x_0)\,\varphi_\sigma(x-\alpha x_0)]}{p(x)} ,
# $$ (eq-noise-bayes)
#
# where on the right $x_0$ is averaged over the data law with $x$ fixed. This is also the conditional expectation in the
# usual sense.
#
# :::{prf:definition} Denoiser
# :label: def-noise-denoiser
#
# The {term}`denoiser` at level $(\alpha,\sigma)$, $\sigma>0$, is the posterior mean $D(x)=\E[x_0\mid x]$.
# :::
#
# The letter is that of the dimension, by long custom. We write $D$ for $D(x)$ where it stands among vectors, and say so where the dimension is meant.
#
# No other guess at the clean image is better in mean square. Here and below, expectations without a condition are over
# the pair $(x_0,\varepsilon)$, with $x=\alpha x_0+\sigma\varepsilon$.
#
# :::{prf:theorem} The posterior mean minimises the squared error
# :label: thm-noise-mse
#
# For every function $f:\R^D\to\R^D$ with $\E\norm{f(x)}^2<\infty$,
#
# $$
# \E\norm{f(x)-x_0}^2 = \E\norm{f(x)-D(x)}^2 + \E\norm{D(x)-x_0}^2 .
# $$ (eq-noise-pythagoras)
#
# Hence $D$ is the minimiser, and the only one up to sets of probability zero.
# :::
#
# :::{prf:proof}
# Write $f(x)-x_0=(f(x)-D(x))+(D(x)-x_0)$ and square. The cross term is $2\,\E[(f(x)-D(x))\cdot(D(x)-x_0)]$. Condition on
# $x$: the first factor is then fixed, and the second has mean $D(x)-\E[x_0\mid x]=0$. So the cross term vanishes. All terms
# are finite because $\E\norm{x_0}^2<\infty$, and $\norm{D(x)}^2\le\E[\norm{x_0}^2\mid x]$ by Jensen's inequality.
# :::
#
# The second term on the right does not depend on $f$. It is the smallest possible error, the *minimal mean squared
# error*. Training a network on the squared error therefore pulls it towards $D$, and only the first term can be
# trained away.
#
# For a finite set of images $y_1,\dots,y_N$, {eq}`eq-noise-bayes` is a weighted mean with weights
# proportional to $\varphi_\sigma(x-\alpha y_i)$. That is a few lines of code.

# %%
y = images[:200]
few = Ideal.fit(y)


def posterior_mean(x, y, noise):
    x, values = x.flatten(1), y.flatten(1)
    distance = (x[:, None] - noise.alpha * values).square().sum(2)
    weights = (-distance / (2 * noise.sigma**2)).softmax(1)
    return (weights @ values).reshape(-1, *y.shape[1:])


x = noise.add(y[:8], normal(y[:8].shape))
assert_close(posterior_mean(x, y, noise), few.denoise(x, noise))

# %% [markdown]
# ## Tweedie's two identities
#
# The score is a gradient of a density, the denoiser a mean of images. Tweedie's formula says that they are the same
# object. It goes back to {cite:t}`robbins1956`, who credits M. C. K. Tweedie; {cite:t}`efron2011` tells its story.
#
# :::{prf:theorem} Tweedie's formula
# :label: thm-noise-tweedie
#
# Let $\sigma>0$ and $\E\norm{x_0}<\infty$. For every $x\in\R^D$,
#
# $$
# s(x) = \frac{\alpha\, D(x) - x}{\sigma^2} .
# $$ (eq-noise-tweedie)
# :::
#
# :::{prf:proof}
# The Gaussian satisfies $\nabla_x\,\varphi_\sigma(x-\alpha x_0) = \dfrac{\alpha x_0-x}{\sigma^2}\,\varphi_\sigma(x-\alpha x_0)$.
# By {prf:ref}`lem-noise-smooth` with $h=1$ we may differentiate {eq}`eq-noise-density` under the expectation:
#
# $$
# \begin{split}
# \nabla p(x) &= \E\Big[\frac{\alpha x_0-x}{\sigma^2}\,\varphi_\sigma(x-\alpha x_0)\Big]\\
# &= \frac{\alpha\,\E[x_0\,\varphi_\sigma(x-\alpha x_0)] - x\,p(x)}{\sigma^2}.
# \end{split}
# $$
#
# Divide by $p(x)>0$ and use {eq}`eq-noise-bayes` with $h(x_0)=x_0$.
# :::
#
# Nothing was divided by $\alpha$: at $\alpha=0$ the formula reads $s(x)=-x/\sigma^2$, the score of pure noise, which is
# right. The usual form $D=(x+\sigma^2s)/\alpha$ needs $\alpha>0$.
#
# The next derivative brings the next moment.
#
# :::{prf:theorem} Tweedie's second identity
# :label: thm-noise-tweedie-second
#
# Let $\sigma>0$ and $\E\norm{x_0}^2<\infty$, and let $J(x)=\partial D/\partial x$ be the Jacobian of the denoiser. Then
#
# $$
# \begin{split}
# J(x) &= \frac{\alpha}{\sigma^2}\,\Cov[x_0\mid x],\\
# \Cov[x_0\mid x] &= \frac{\sigma^2}{\alpha}\,J(x)\quad\text{if}\ \alpha>0 .
# \end{split}
# $$ (eq-noise-tweedie-second)
# :::
#
# :::{prf:proof}
# Let $n_i(x)=\E[x_{0,i}\,\varphi_\sigma(x-\alpha x_0)]$, so that $D_i=n_i/p$. {prf:ref}`lem-noise-smooth` with
# $h(x_0)=x_{0,i}$ gives
#
# $$
# \begin{split}
# \frac{\partial_j n_i}{p} &= \E\Big[x_{0,i}\,\frac{\alpha x_{0,j}-x_j}{\sigma^2}\;\Big|\;x\Big]\\
# &= \frac{\alpha\,\E[x_{0,i}x_{0,j}\mid x] - x_j D_i}{\sigma^2} .
# \end{split}
# $$
#
# By Tweedie's formula $\partial_j p/p = (\alpha D_j-x_j)/\sigma^2$. The quotient rule, with $D_i=n_i/p$, gives
#
# $$
# \begin{split}
# \partial_j D_i &= \frac{\partial_j n_i}{p} - D_i\,\frac{\partial_j p}{p}\\
# &= \frac{\alpha}{\sigma^2}\big(\E[x_{0,i}x_{0,j}\mid x] - D_iD_j\big).
# \end{split}
# $$
#
# The terms with $x_j$ have cancelled, and the bracket is the posterior covariance.
# :::
#
# So a denoiser knows not only its best guess but also how uncertain it is. A direction in which the guess
# moves quickly with $x$ is a direction in which $x_0$ is still open. Three consequences are used all through this book.
#
# :::{prf:corollary}
# :label: cor-noise-jacobian
#
# Under the same conditions: (i) $J(x)$ is symmetric and positive semidefinite. (ii) The Hessian of the log density is
# $\nabla^2\log p = (\alpha J-I)/\sigma^2$. (iii) For $\alpha>0$ the smallest possible error is
# $\E\norm{D(x)-x_0}^2=(\sigma^2/\alpha)\,\E\tr J(x)$.
# :::
#
# :::{prf:proof}
# (i) A covariance is symmetric and positive semidefinite, and $\alpha\ge0$. (ii) Differentiate {eq}`eq-noise-tweedie`. (iii) Given $x$, the
# expected squared distance of $x_0$ from its mean is $\tr\Cov[x_0\mid x]$; insert {eq}`eq-noise-tweedie-second` and average over $x$.
# :::
#
# Now the check. The library's `score` uses Tweedie's formula. Automatic differentiation of the log density knows nothing of
# it, and must agree.

# %%
x.requires_grad_()
(gradient,) = torch.autograd.grad(few.log_density(x, noise).sum(), x)
x = x.detach()

mean = posterior_mean(x, y, noise)
assert_close((noise.alpha * mean - x) / noise.sigma**2, gradient)
assert_close(few.score(x, noise), gradient)

# %% [markdown]
# For the second identity we compute the product of the posterior covariance with a vector $v$ in two ways: from the weights
# of the images, and by differentiating the denoiser in the direction $\sigma^2 v/\alpha$. The second way works
# for every machine; it is what `Machine.posterior_cov_product` does.

# %%
v = normal(x.shape)
weights = few.log_weights(x, noise).exp()
mean = few.denoise(x, noise).flatten(1)
centred = y.flatten(1) - mean[:, None]  # (B, N, D)
along = torch.einsum("bnd,bd->bn", centred, v.flatten(1))
by_weights = torch.einsum("bn,bnd->bd", weights * along, centred)
by_weights = by_weights.reshape(x.shape)

direction = noise.sigma**2 / noise.alpha * v
_, by_jacobian = torch.func.jvp(
    lambda x: posterior_mean(x, y, noise),
    (x,),
    (direction,),
)

assert_close(by_jacobian, by_weights)
assert_close(Machine.posterior_cov_product(few, x, noise, v), by_weights)
assert_close(few.posterior_cov_product(x, noise, v), by_weights)

# %% [markdown]
# ## Three names for one function
#
# Networks are trained to predict the clean image, the noise, or the score. By Tweedie's formula these are one function in
# three units. The noise that the denoiser implies is the posterior mean of $\varepsilon$, because
# $\varepsilon=(x-\alpha x_0)/\sigma$ and $x$ is known:
#
# $$
# \hat\varepsilon(x) = \E[\varepsilon\mid x] = \frac{x-\alpha D(x)}{\sigma} = -\sigma\,s(x) .
# $$ (eq-noise-eps)
#
# | from | denoiser $D$ | noise $\hat\varepsilon$ | score $s$ |
# |---|---|---|---|
# | $D$ | | $(x-\alpha D)/\sigma$ | $(\alpha D-x)/\sigma^2$ |
# | $\hat\varepsilon$ | $(x-\sigma\hat\varepsilon)/\alpha$ | | $-\hat\varepsilon/\sigma$ |
# | $s$ | $(x+\sigma^2s)/\alpha$ | $-\sigma s$ | |
#
# Only the first row is free of $\alpha$ in the denominator. At $\alpha=0$ noise and score know nothing of the data, while
# the denoiser still gives the mean image. This is why `denoise` is the one method that a machine of this book must
# define. The other two follow in a line each.

# %%
x0_hat = few.denoise(x, noise)
assert_close((x - noise.alpha * x0_hat) / noise.sigma, few.eps(x, noise))
assert_close(-few.eps(x, noise) / noise.sigma, few.score(x, noise))

# %% [markdown]
# The three training losses are one loss too. Let $\tilde D$ be any function of $x$, and let $\tilde\varepsilon$ and
# $\tilde s$ follow from it by the first row of the table. Since $x$ is the same for prediction and target, it drops out of each difference:
#
# $$
# \begin{split}
# \norm{\tilde\varepsilon-\varepsilon}^2 &= \frac{\alpha^2}{\sigma^2}\norm{\tilde D-x_0}^2,\\
# \sigma^2\,\norm{\tilde s+\varepsilon/\sigma}^2 &= \norm{\tilde\varepsilon-\varepsilon}^2 .
# \end{split}
# $$ (eq-noise-losses)
#
# At one noise level the minimiser is the same for all three, and the score loss weighted by $\sigma^2$ *is* the noise loss. Across levels
# they differ by the weight of each level. A network of limited size divides its effort by these weights. A machine that
# is exact at each level is the minimiser under all of them.
#
# ## Score matching is denoising
#
# Suppose we want a model $\tilde s$ of the score itself. The natural loss, *explicit score matching*, needs the score that
# we do not have. There are two ways round this. {cite:t}`hyvarinen2005` removes the unknown score by an integration by
# parts. {cite:t}`vincent2011` replaces it by the score of the noise given the clean image,
# $\nabla_x\log\varphi_\sigma(x-\alpha x_0)=-\varepsilon/\sigma$, which every training pair supplies. Define
#
# $$
# \begin{split}
# L_{\text{explicit}}(\tilde s) &= \E\norm{\tilde s(x)-s(x)}^2,\\
# L_{\text{implicit}}(\tilde s) &= \E\big[\norm{\tilde s(x)}^2+2\,\nabla\!\cdot\tilde s(x)\big],\\
# L_{\text{denoising}}(\tilde s) &= \E\norm{\tilde s(x)+\varepsilon/\sigma}^2 .
# \end{split}
# $$ (eq-noise-three-losses)
#
# :::{prf:theorem} The three losses differ by constants
# :label: thm-noise-matching
#
# Let $\sigma>0$, $\E\norm{x_0}^2<\infty$ and $\E\norm{\tilde s(x)}^2<\infty$. Then
#
# $$
# L_{\text{denoising}}(\tilde s) = L_{\text{explicit}}(\tilde s) + \frac{\alpha^2}{\sigma^4}\,\E\norm{D(x)-x_0}^2 .
# $$ (eq-noise-vincent)
#
# If moreover $\tilde s$ is continuously differentiable and $\E|\nabla\!\cdot\tilde s(x)|<\infty$, then
#
# $$
# L_{\text{implicit}}(\tilde s) = L_{\text{explicit}}(\tilde s) - \E\norm{s(x)}^2 .
# $$ (eq-noise-hyvarinen)
# :::
#
# :::{prf:proof}
# *Denoising.* By {eq}`eq-noise-tweedie` the target misses the score by
# $-\varepsilon/\sigma-s(x)=\alpha\,(x_0-D(x))/\sigma^2$, which has mean zero given $x$. As in {prf:ref}`thm-noise-mse`, the cross
# term vanishes, and the squared length of this difference gives the constant.
#
# *Implicit.* By {eq}`eq-noise-eps` and Jensen, $\E\norm{s(x)}^2\le\E\norm{\varepsilon}^2/\sigma^2=D/\sigma^2$, with $D$ here
# the dimension; so all terms are finite. Expanding the square, it remains to show
# $\E[\tilde s(x)\cdot s(x)]=-\E[\nabla\!\cdot\tilde s(x)]$. Let $F=p\,\tilde s$. Since $\nabla p=p\,s$,
#
# $$
# \nabla\!\cdot F = p\,(\nabla\!\cdot\tilde s+\tilde s\cdot s),
# $$
#
# and both $F$ and $\nabla\!\cdot F$ are integrable, by the assumptions and the Cauchy-Schwarz inequality. The claim is that
# $\int\nabla\!\cdot F\,dx=0$. Take a smooth function $\chi$ with $\chi=1$ on the unit ball and $\chi=0$ outside the ball of
# radius two. For every $R>0$ the divergence theorem gives
# $\int\chi(x/R)\,\nabla\!\cdot F\,dx=-\frac1R\int\nabla\chi(x/R)\cdot F\,dx$. As $R\to\infty$ the left side tends to $\int\nabla\!\cdot F\,dx$
# by dominated convergence. The right side tends to zero, since $\nabla\chi$ is bounded and $F$ integrable.
# :::
#
# (Hyvärinen's loss is half of ours.) The constant in {eq}`eq-noise-vincent` is the minimal mean squared error, times
# $\alpha^2/\sigma^4$. It is the loss that a perfect model is left with, and it can be large. A training curve that levels off far above zero
# is by itself no sign of a bad model.
#
# We can watch the theorem at work. Take the training set as the data law, so that the exact score $s$ is that of `Ideal`. Take as
# model $\tilde s$ the `Gaussian` machine, which knows only the mean and the covariance of the data ({ref}`gaussian-machine`);
# its divergence is known in closed form. Each loss is an average over random pairs $(x_0,\varepsilon)$, so each
# comes with a standard error. The constants of the theorem are averaged over the same draws.

# %%
ideal, gauss = Ideal.fit(images), Gaussian.fit(images)

x0 = images[torch.randint(len(images), (settings["draws"],), generator=rng)]
eps = normal(x0.shape)
x = noise.add(x0, eps)
model = gauss.score(x, noise)
exact = ideal.score(x, noise)
target = -eps / noise.sigma
divergence = -(1 / (noise.alpha**2 * gauss.lam + noise.sigma**2)).sum()


def square(a):
    return a.flatten(1).square().sum(1)


estimates = {
    "explicit": square(model - exact),
    "denoising": square(model - target) - square(exact - target),
    "implicit": square(model) + 2 * divergence + square(exact),
}


def mean_and_error(values):
    error = values.std().item() / math.sqrt(len(values))
    return values.mean().item(), error


for name in ("denoising", "implicit"):
    gap, error = mean_and_error(estimates[name] - estimates["explicit"])
    assert abs(gap) < 4 * error

# %% tags=["remove-cell"]
means, errors = {}, {}
for name, values in estimates.items():
    means[name], errors[name] = mean_and_error(values)
    record(f"loss_{name}", means[name])
    record(f"error_{name}", errors[name])
record("loss_raw", square(model - target).mean())
record("draws", settings["draws"])
record("error_ratio", errors["implicit"] / errors["explicit"])

# %% [markdown]
# | loss, minus its constant | estimate | standard error |
# |---|---|---|
# | explicit, $\E\norm{\tilde s-s}^2$ | {glue:text}`loss_explicit:.2f` | {glue:text}`error_explicit:.2f` |
# | denoising | {glue:text}`loss_denoising:.2f` | {glue:text}`error_denoising:.2f` |
# | implicit | {glue:text}`loss_implicit:.2f` | {glue:text}`error_implicit:.2f` |
#
# The three agree within their errors, over {glue:text}`draws` pairs at $\alpha=0.6$, $\sigma=0.8$. The raw denoising loss is {glue:text}`loss_raw:.2f`; here most of it is the
# constant.
#
# The implicit loss needs no noise-free image, but pays with a standard error {glue:text}`error_ratio:.0f` times that of the
# explicit one.
#
# ### What least squares learns
#
# If the model is restricted to affine functions $Wz$ of $x$, with $z=(1,x)$, the best denoiser is the Gaussian
# machine: the minimiser of a squared error over affine functions depends on means and covariances only, and for a Gaussian
# law the affine solution is the exact one. A least-squares fit on $n$ noisy pairs should reach it as $n$ grows, but how fast?
#
# Let $r=x_0-W_*z$ be the residual of the best affine denoiser $W_*$, and $M=\E[zz^\top]$. The residual is uncorrelated with
# $z$. The least-squares estimate misses $W_*$ by $(\frac1n\sum_i r_iz_i^\top)(\frac1n\sum_i z_iz_i^\top)^{-1}$. The second
# factor tends to $M^{-1}$, which exists because $\sigma>0$. The first is a mean of $n$ independent terms of mean zero. So, to leading order, the
# excess error of the fit on fresh data has expectation
#
# $$
# \E\norm{(\hat W-W_*)z}^2 \simeq \frac1n\,\E\big[\norm{r}^2\,z^\top M^{-1}z\big]
# \qquad (n\to\infty).
# $$ (eq-noise-excess)
#
# If the size of the residual did not depend on $z$, the right side would be $(D+1)/n$ times the smallest affine error.


# %%
def with_one(x):
    """z = (1, x)"""
    return torch.nn.functional.pad(x.flatten(1), (1, 0), value=1.0)


def pairs(n):
    x0 = images[torch.randint(len(images), (n,), generator=rng)]
    return with_one(noise.add(x0, normal(x0.shape))), x0.flatten(1)


def least_squares(n):
    z, x0 = pairs(n)
    return torch.linalg.solve(z.T @ z, z.T @ x0)


# the Gaussian machine as a matrix: an affine map is known by its values at 0
# and at the unit vectors
probe = torch.cat([torch.zeros(1, D), torch.eye(D)]).double()
best = gauss.denoise(probe.reshape(-1, *images.shape[1:]), noise).flatten(1)
best[1:] -= best[0]

mean = with_one(noise.alpha * gauss.mean[None])[0]
M = torch.outer(mean, mean)
M[1:, 1:] += noise.alpha**2 * gauss.cov + noise.sigma**2 * torch.eye(D)


def excess_error(n):
    miss = least_squares(n) - best
    return (miss * (M @ miss)).sum()


sizes = torch.tensor([k * (D + 1) for k in settings["oversampling"]])
repeats = range(settings["repeats"])
found = [[excess_error(n) for _ in repeats] for n in sizes.tolist()]
excess = torch.tensor(found)

z, x0 = pairs(settings["draws"])
leverage = (z * torch.linalg.solve(M, z.T).T).sum(1)
law = (square(x0 - z @ best) * leverage).mean() / sizes

# %% tags=["remove-cell"]
record("excess_ratio", excess[-1].mean() / law[-1])
record("excess_size", int(sizes[-1]))
record("affine_error", gauss.denoising_error(noise))
record("excess_last", excess[-1].mean())

# %% mystnb={"figure": {"name": "fig-noise-least-squares", "caption": "Excess error of an affine denoiser that was fitted by least squares to $n$ noisy images, over that of the Gaussian machine (solid: mean of independent fits; band: smallest to largest; dashed: the law of the text, without a free constant). As $n$ grows the measured curve joins the law and falls like $1/n$: denoising on samples learns the Gaussian machine, and the rest is sampling error."}, "image": {"alt": "Two falling lines on logarithmic axes against the number of samples. The predicted line is straight; the measured excess error starts above it, falls faster, and joins it at the right end", "width": "85%", "classes": "dark-light"}} tags=["hide-input"]
fig = plot.curves(
    sizes.double(),
    {"least squares": excess.mean(1), "law": law},
    xlabel="number of noisy images n",
    ylabel="excess error",
    bands={"least squares": (excess.amin(1), excess.amax(1))},
    yscale="log",
)
fig.axes[0].set_xticks(sizes, sizes.tolist())
fig.axes[0].minorticks_off()
fig

# %% [markdown]
# At {glue:text}`excess_size` samples the measured excess is {glue:text}`excess_ratio:.2f` times the law. It is then
# {glue:text}`excess_last:.3f`, beside an error of {glue:text}`affine_error:.2f` that no affine denoiser can avoid.
# At small $n$ the fit is worse than the law, because the sample's own $\frac1n\sum z_iz_i^\top$ is then far from $M$.
#
# ## The probability flow
#
# We have a family of densities, one for each level, and want to move samples from one to another. Let
# $\tau\mapsto(\alpha(\tau),\sigma(\tau))$ be a path of levels, and write a dot for $d/d\tau$. For one fixed pair
# $(x_0,\varepsilon)$ the noisy image moves with velocity $\dot\alpha x_0+\dot\sigma\varepsilon$. A sampler does not
# know the pair. The best it can do is to move with the posterior mean of that velocity,
#
# $$
# v(x) = \dot\alpha\,D(x) + \dot\sigma\,\hat\varepsilon(x) = \E\big[\dot\alpha x_0+\dot\sigma\varepsilon\mid x\big] .
# $$ (eq-noise-velocity)
#
# That this is enough is the central fact behind deterministic sampling. It is the {term}`probability flow` of
# {cite:t}`song2021sde`, here in the form used for flow matching {cite:p}`lipman2023`.
#
# :::{prf:theorem} The flow carries the marginals
# :label: thm-noise-flow
#
# Let $\norm{x_0}\le R$ with probability one. Let $\alpha,\sigma$ be continuously differentiable on $[\tau_0,\tau_1]$, with $\alpha\ge0$ and
# $\sigma>0$ there. Then
#
# $$
# \frac{dx}{d\tau} = \dot\alpha\,D(x)+\dot\sigma\,\hat\varepsilon(x)
# $$ (eq-noise-flow)
#
# has exactly one solution on $[\tau_0,\tau_1]$ from each starting point, and if $x(\tau_0)$ has density
# $p(\cdot;\alpha(\tau_0),\sigma(\tau_0))$, then $x(\tau_1)$ has density $p(\cdot;\alpha(\tau_1),\sigma(\tau_1))$.
# The same holds from $\tau_1$ back to $\tau_0$.
# :::
#
# :::{prf:proof}
# *Continuity equation.* Write $p_\tau$ for the density and $v_\tau$ for the velocity at $\tau$, and let $x_\tau=\alpha x_0+\sigma\varepsilon$. For a smooth
# test function $f$ of compact support,
#
# $$
# \begin{split}
# \frac{d}{d\tau}\int f\,p_\tau\,dx=\frac{d}{d\tau}\,\E f(x_\tau)
# &=\E\big[\nabla f(x_\tau)\cdot(\dot\alpha x_0+\dot\sigma\varepsilon)\big]\\
# &=\E\big[\nabla f(x_\tau)\cdot v_\tau(x_\tau)\big]=\int\nabla f\cdot v_\tau\,p_\tau\,dx .
# \end{split}
# $$
#
# The derivative may pass under the expectation, since $\nabla f$, $\dot\alpha$ and $\dot\sigma$ are bounded and $x_0$ and $\varepsilon$ have
# finite means; the third equality conditions on $x_\tau$. Now $p_\tau(x)=\E\,\varphi_\sigma(x-\alpha x_0)$ is
# continuously differentiable in $\tau$, because $x_0$ is bounded, and smooth in $x$; so is $v_\tau$ in $x$. Integrating the right side by parts, we get
# $\int f\,(\partial_\tau p_\tau+\nabla\!\cdot(p_\tau v_\tau))\,dx=0$ for all such $f$, and so
#
# $$
# \partial_\tau p_\tau+\nabla\!\cdot(p_\tau v_\tau)=0 \quad\text{at every point.}
# $$ (eq-noise-continuity)
#
# *Solutions.* A posterior mean of points in a ball of radius $R$ lies in that ball, so $\norm{D}\le R$. The posterior covariance is at most
# $R^2I$, so by {prf:ref}`thm-noise-tweedie-second` the Jacobian of $D$ is at most
# $\alpha R^2/\sigma^2$. Hence $v_\tau=\dot\alpha D+\dot\sigma(x-\alpha D)/\sigma$ has a Jacobian bounded on the whole path, where $\sigma$ is bounded
# away from zero; $v_\tau$ and its Jacobian are continuous in $(\tau,x)$. By the Picard-Lindelöf theorem there is one solution from each point, forwards and backwards, and the maps
# $\Phi_{\tau\to\tau_1}$ that carry points from $\tau$ to $\tau_1$ are continuously differentiable with continuously differentiable inverses.
#
# *Transport.* Let $f$ be a test function and $g_\tau=f\circ\Phi_{\tau\to\tau_1}$. It is constant along solutions, so
# $\partial_\tau g_\tau+v_\tau\cdot\nabla g_\tau=0$, and it has compact support. With {eq}`eq-noise-continuity`,
#
# $$
# \begin{split}
# \frac{d}{d\tau}\int g_\tau\,p_\tau\,dx
# &=\int\big(p_\tau\,\partial_\tau g_\tau-g_\tau\,\nabla\!\cdot(p_\tau v_\tau)\big)dx\\
# &=\int p_\tau\,(\partial_\tau g_\tau+v_\tau\cdot\nabla g_\tau)\,dx=0 .
# \end{split}
# $$
#
# Comparing both ends, $\int f\circ\Phi_{\tau_0\to\tau_1}\,p_{\tau_0}\,dx=\int f\,p_{\tau_1}\,dx$. This says that $\Phi_{\tau_0\to\tau_1}$ carries
# $p_{\tau_0}$ to $p_{\tau_1}$; its inverse does the opposite.
# :::
#
# Multiply {eq}`eq-noise-flow` by $d\tau$. The clock drops out:
#
# $$
# dx = D(x)\,d\alpha + \hat\varepsilon(x)\,d\sigma .
# $$ (eq-noise-flow-clockless)
#
# Only the *curve* of levels matters, not the speed at which it is run through. This is the equation that the samplers of this book
# solve. In terms of the score the velocity is
# $\frac{\dot\alpha}{\alpha}\,x-\big(\sigma\dot\sigma-\frac{\dot\alpha}{\alpha}\sigma^2\big)s(x)$, which is the familiar form with a drift and a
# diffusion coefficient. It divides by $\alpha$ and breaks down at pure noise, where {eq}`eq-noise-flow-clockless` is
# regular.
#
# Component-wise noise, with one $\alpha$ and one $\sigma$ for each coordinate, needs no change in the argument: {eq}`eq-noise-velocity` is then read coordinate by coordinate.
#
# We check the continuity equation point by point. Divided by $p$ it reads $\partial_\tau\log p+\nabla\!\cdot v+v\cdot s=0$. On the
# five points in the plane, along the path $(\cos\tau,\sin\tau)$, with every derivative automatic:


# %%
def level(tau):
    return Noise(torch.cos(tau), torch.sin(tau))


def velocity(x, tau):
    D, eps = plane.denoise(x, level(tau)), plane.eps(x, level(tau))
    return -torch.sin(tau) * D + torch.cos(tau) * eps


def along(f, at, direction):
    return torch.func.jvp(f, (at,), (direction,))[1]


def divergence(f, x):
    axes = torch.eye(2).to(x)
    parts = [along(f, x, e.expand_as(x))[:, i] for i, e in enumerate(axes)]
    return sum(parts)


where, tau = normal((100, 2)), torch.tensor(0.6, dtype=torch.float64)
one = torch.ones_like(tau)
rate = along(lambda tau: plane.log_density(where, level(tau)), tau, one)
spread = divergence(lambda x: velocity(x, tau), where)
drift = (velocity(where, tau) * plane.score(where, level(tau))).sum(1)

assert_close(rate + spread + drift, torch.zeros(100, dtype=torch.float64))

# %% [markdown]
# ### Steps: ddim and heun
#
# A sampler walks a list of levels. On the pair from $(\alpha,\sigma)$ to $(\alpha',\sigma')$ the simplest step freezes $D$ and $\hat\varepsilon$.
# Since $x=\alpha D+\sigma\hat\varepsilon$ by {eq}`eq-noise-eps`, this Euler step collapses:
#
# $$
# x' = x+(\alpha'-\alpha)\,D+(\sigma'-\sigma)\,\hat\varepsilon = \alpha'D+\sigma'\hat\varepsilon .
# $$ (eq-noise-ddim)
#
# It is the deterministic `ddim` rule of {cite:t}`song2021ddim`: read off a clean image and a noise, and mix them again at the new level. It is valid from $\alpha=0$ and into
# $\sigma'=0$, where it returns $\alpha'D$.
#
# The step `heun` goes on from there. It evaluates the machine at the end of the ddim step, which gives $D'$ and $\hat\varepsilon'$, and repeats the step with the
# means of both ends,
#
# $$
# x' = x+(\alpha'-\alpha)\,\tfrac12(D+D')+(\sigma'-\sigma)\,\tfrac12(\hat\varepsilon+\hat\varepsilon') .
# $$ (eq-noise-heun)
#
# It costs two evaluations. {cite:t}`karras2022edm` recommend it, with $\alpha=1$. Into $\sigma'=0$, where
# $\hat\varepsilon'$ is not defined, it is the ddim step.

# %%
now, nxt = Noise(0.6, 0.8), Noise(0.8, 0.6)
x = now.add(y[:8], normal(y[:8].shape))
x0_hat, eps_hat = few.denoise(x, now), few.eps(x, now)
guess = nxt.alpha * x0_hat + nxt.sigma * eps_hat
assert_close(guess, ddim(few, x, x0_hat, now, nxt))

x0_mean = (x0_hat + few.denoise(guess, nxt)) / 2
eps_mean = (eps_hat + few.eps(guess, nxt)) / 2
d_alpha, d_sigma = nxt.alpha - now.alpha, nxt.sigma - now.sigma
corrected = x + d_alpha * x0_mean + d_sigma * eps_mean
assert_close(corrected, heun(few, x, x0_hat, now, nxt))

# %% [markdown]
# ### A random step: ddpm
#
# Noise can also be added little by little. Let $(\alpha',\sigma')$ be a level with more signal than $(\alpha,\sigma)$, that is
# $\sigma'/\alpha'\le\sigma/\alpha$, and $\alpha'>0$. From $x'=\alpha'x_0+\sigma'\varepsilon'$ we get to the noisier level by rescaling and adding fresh noise $\xi\sim\N(0,I)$,
#
# $$
# x = \frac{\alpha}{\alpha'}\,x' + \sqrt{\sigma^2-\frac{\alpha^2}{\alpha'^2}\sigma'^2}\;\xi .
# $$
#
# Inserting $x'$ shows that $x=\alpha x_0+\sigma\varepsilon$ with $\sigma\varepsilon=\frac{\alpha}{\alpha'}\sigma'\varepsilon'+\sqrt{\cdots}\,\xi$. So $\varepsilon$ and $\varepsilon'$ are both standard normal, independent of $x_0$ and jointly Gaussian, and each coordinate pair has correlation
#
# $$
# \rho = \frac{\alpha\,\sigma'}{\alpha'\,\sigma}\in[0,1] ,
# $$ (eq-noise-rho)
#
# whose square is the ratio of the two signal-to-noise ratios.
#
# :::{prf:proposition} The bridge
# :label: prop-noise-bridge
#
# Given $x_0$ and $x$ with $\sigma>0$, the less noisy image is
# $x'=\alpha'x_0+\sigma'\big(\rho\,\varepsilon+\sqrt{1-\rho^2}\,z\big)$, with $\varepsilon=(x-\alpha x_0)/\sigma$ and
# $z\sim\N(0,I)$ independent of $x_0$ and $x$.
# :::
#
# :::{prf:proof}
# For a pair of standard normal variables with correlation $\rho$, the second given the first is normal with mean $\rho\varepsilon$ and
# variance $1-\rho^2$. Coordinates are independent, and the pair $(\varepsilon,\varepsilon')$ is independent of $x_0$.
# :::
#
# The sampler does not know $x_0$ and puts the denoiser in its place. This gives the *ancestral* step of {cite:t}`ho2020ddpm`,
#
# $$
# x' = \alpha'D+\sigma'\big(\rho\,\hat\varepsilon+\sqrt{1-\rho^2}\;z\big) .
# $$ (eq-noise-ddpm)
#
# With $1$ put in the place of $\rho$ it is ddim; values in between give the family of {cite:t}`song2021ddim`. Replacing $x_0$ by its mean loses a little variance
# in each step; {ref}`ex-noise-ancestral` computes how much.

# %%
rho = now.alpha * nxt.sigma / (nxt.alpha * now.sigma)
twin = rng.clone_state()  # draws the same z as rng
z = torch.randn(x.shape, generator=twin, dtype=x.dtype)
mixed = rho * eps_hat + math.sqrt(1 - rho**2) * z
by_hand = nxt.alpha * x0_hat + nxt.sigma * mixed
assert_close(by_hand, ddpm(few, x, x0_hat, now, nxt, rng=rng))

# %% [markdown]
# ## Schedules
#
# A {term}`schedule` is a curve of levels with a parameter $t$: clean at $t=0$, noise at $t=1$. We use five.
#
# | name | $\alpha(t)$ | $\sigma(t)$ | source |
# |---|---|---|---|
# | cosine | $\cos a(t)/\cos a(0)$, $a(t)=\frac\pi2\frac{t+0.008}{1.008}$ | $\sqrt{1-\alpha^2}$ | {cite:t}`nichol2021` |
# | legacy cosine | $\cos a(t)$, $a(t)=\frac\pi2\frac{t}{1.008}$ | $\sin a(t)$ | code of {cite:t}`kamb2025creativity` |
# | VP | $\exp\big(-\frac12(\beta_0t+\frac12(\beta_1-\beta_0)t^2)\big)$, $\beta_0=0.1$, $\beta_1=20$ | $\sqrt{1-\alpha^2}$ | {cite:t}`song2021sde` |
# | flow | $1-t$ | $t$ | {cite:t}`lipman2023` |
# | EDM | $1$ | $\big(a+t\,(b-a)\big)^7$, $a=0.002^{1/7}$, $b=80^{1/7}$ | {cite:t}`karras2022edm` |
#
# The last row writes the grid of that paper as a schedule; it stops at $\sigma=0.002$, after which one more step goes to $\sigma=0$.


# %%
def edm_time(t, low=0.002, high=80.0, rho=7):
    a, b = low ** (1 / rho), high ** (1 / rho)
    return edm((a + t * (b - a)) ** rho)


schedules = {
    "cosine": cosine,
    "legacy": cosine_legacy,
    "vp": vp,
    "flow": flow,
    "edm": edm_time,
}

n = 18
by_hand = [edm_time(1 - k / (n - 1)).sigma for k in range(n)] + [0.0]
assert_close(by_hand, [noise.sigma for noise in edm_levels(n)])

# %% mystnb={"figure": {"name": "fig-noise-schedules", "caption": "The five schedules as log signal-to-noise ratio against $t$. They agree that the ratio falls, and on little else: at $t=0.5$ three of them are close to zero, and VP and EDM about two units lower. Cosine and flow fall to minus infinity at $t=1$, where no signal is left; legacy cosine, VP and EDM stop at a finite value. A statement about time $t$ is thus a statement about a schedule."}, "image": {"alt": "Five falling curves of log signal-to-noise ratio against time; cosine and flow dive at time one, legacy cosine, VP and EDM end at about minus nine to minus ten", "width": "85%", "classes": "dark-light"}} tags=["hide-input"]
title = dict(zip(schedules, ("cosine", "legacy cosine", "VP", "flow", "EDM"), strict=True))


def mark(axis):
    """Set EDM, the fifth curve, apart by circles, since there are four line styles."""
    axis.lines[4].set(marker="o", markevery=0.09)
    axis.legend(frameon=False, fontsize=10)


t = torch.linspace(0.001, 0.999, 400, dtype=torch.float64)
log_snr = {
    title[name]: torch.tensor([schedule(s).snr for s in t.tolist()]).log() for name, schedule in schedules.items()
}
fig = plot.curves(t, log_snr, xlabel="time t", ylabel="log signal-to-noise ratio", xscale="linear")
mark(fig.axes[0])
fig

# %% [markdown]
# (schedules-at-matched-snr)=
# ### At matched signal-to-noise ratio
#
# Do schedules differ in anything but bookkeeping? The exact flow does not see the difference.
#
# :::{prf:theorem} The flow depends on the signal-to-noise path only
# :label: thm-noise-matched
#
# Let $(\alpha,\sigma)$ be a path as in {prf:ref}`thm-noise-flow`, let $c>0$ be continuously differentiable on it, and let
# $(\tilde\alpha,\tilde\sigma)=(c\alpha,c\sigma)$. Then the denoisers of the two levels satisfy
# $\tilde D(c\,x)=D(x)$, the predicted noises are equal likewise, and $x$ solves the flow of the first path if and only if $c\,x$ solves that of the second.
# Two paths with $\sigma,\tilde\sigma>0$ are related in this way exactly when they have the same signal-to-noise ratio throughout, and then $c=\tilde\sigma/\sigma$.
# :::
#
# :::{prf:proof}
# If $x=\alpha x_0+\sigma\varepsilon$ then $cx=\tilde\alpha x_0+\tilde\sigma\varepsilon$. Knowing $x$ and knowing $cx$ is the same, so the
# posterior means of $x_0$ and of $\varepsilon$ are the same. Along the first flow, with $x=\alpha D+\sigma\hat\varepsilon$,
#
# $$
# \begin{split}
# d(cx)=c\,dx+x\,dc &= c\,(D\,d\alpha+\hat\varepsilon\,d\sigma)+(\alpha D+\sigma\hat\varepsilon)\,dc\\
# &= D\,d(c\alpha)+\hat\varepsilon\,d(c\sigma),
# \end{split}
# $$
#
# which is the flow of the second path at $cx$. The converse is the same with $1/c$. Finally, equal ratios mean
# $\tilde\alpha/\tilde\sigma=\alpha/\sigma$, which gives $\tilde\alpha=c\alpha$ with $c=\tilde\sigma/\sigma$.
# :::
#
# Note that $\alpha=0$ is allowed. Where $\alpha>0$, the choice $c=1/\alpha$ gives the variance-exploding form: with $y=x/\alpha$ and $r=\sigma/\alpha$ the flow is
#
# $$
# dy=\hat\varepsilon\,dr .
# $$ (eq-noise-ve)
#
# The choice $c=(\alpha^2+\sigma^2)^{-1/2}$ gives the variance-preserving form, where the level is an angle $\theta$ and a ddim step only changes it, from
# $x=\cos\theta\,D+\sin\theta\,\hat\varepsilon$ to $x'=\cos\theta'D+\sin\theta'\,\hat\varepsilon$. This form exists at $\alpha=0$ too.
#
# What of samplers, which take finite steps? For ddim nothing changes, and for heun something does.
#
# :::{prf:proposition} Which steps see the scale
# :label: prop-noise-steps
#
# For an exact denoiser, let $r=\sigma/\alpha$ and $r'=\sigma'/\alpha'$, with all four numbers positive, and put $y=x/\alpha$, $y'=x'/\alpha'$. (i) The ddim step is
# $y'=y+(r'-r)\,\hat\varepsilon$, the Euler step of {eq}`eq-noise-ve`; the ddpm step is $y'=D+r'(\rho\hat\varepsilon+\sqrt{1-\rho^2}\,z)$ with $\rho=r'/r$ (for $r'\le r$). Both depend on the
# schedule through $r$ and $r'$ only. (ii) The heun step is
#
# $$
# y' = y+(r'-r)\,\hat\varepsilon+\frac{\alpha}{\alpha'}\cdot\frac{r'-r}{2}\,(\hat\varepsilon'-\hat\varepsilon) ,
# $$ (eq-noise-heun-scale)
#
# which is the trapezoid rule for {eq}`eq-noise-ve` only where $\alpha=\alpha'$.
# :::
#
# :::{prf:proof}
# (i) Divide {eq}`eq-noise-ddim` and {eq}`eq-noise-ddpm` by $\alpha'$ and use $D=y-r\hat\varepsilon$. By {prf:ref}`thm-noise-matched` $D$ and $\hat\varepsilon$ depend on $y$ and $r$ only. (ii) Let $\hat x=\alpha'D+\sigma'\hat\varepsilon$ be the ddim step. From {eq}`eq-noise-heun`,
# $x'=\hat x+\frac12(\alpha'-\alpha)(D'-D)+\frac12(\sigma'-\sigma)(\hat\varepsilon'-\hat\varepsilon)$. Since $D'=(\hat x-\sigma'\hat\varepsilon')/\alpha'$ and
# $D=(\hat x-\sigma'\hat\varepsilon)/\alpha'$, we have $D'-D=-r'(\hat\varepsilon'-\hat\varepsilon)$. The correction divided by $\alpha'$ is
# therefore $\frac{1}{2\alpha'}\big(\sigma'-\sigma-r'\alpha'+r'\alpha\big)(\hat\varepsilon'-\hat\varepsilon)=\frac{\alpha}{2\alpha'}(r'-r)(\hat\varepsilon'-\hat\varepsilon)$.
# :::
#
# So the scale of the state is no matter of taste for heun. On a schedule whose $\alpha$ rises, the correction is damped by $\alpha/\alpha'$. With small steps
# $\alpha/\alpha'\to1$, and the difference is of higher order. The damping also makes a start at pure noise possible. There $r$ is infinite, and so would be the full trapezoid
# correction. Multiply the correction in {eq}`eq-noise-heun-scale` by $\alpha'$: it changes $x'$ by $\frac12(\alpha r'-\sigma)(\hat\varepsilon'-\hat\varepsilon)$, which at $\alpha=0$ is $-\frac12\sigma\,(\hat\varepsilon'-\hat\varepsilon)$.
#
# Now the experiment. We choose thirty-one ratios $r$ and find, for each schedule, the times with these ratios. Then we run the ideal machine from the same seeds on all five, and
# compare the whole paths, brought to the common scale $x/\sqrt{\alpha^2+\sigma^2}$.


# %%
def time_of(schedule, r):
    """The time at which sigma / alpha = r, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(80):
        middle = (low + high) / 2
        if schedule(middle).snr > r**-2:
            low = middle
        else:
            high = middle
    return high


def scaled_path(schedule):
    walk = [schedule(time_of(schedule, r)) for r in ratios]
    states = trajectory(ideal, walk[0].sigma * start, walk)
    scaled = [x / math.hypot(now.alpha, now.sigma) for now, x, _ in states]
    return torch.stack(scaled)


start = normal((8, *images.shape[1:]))
ratios = [50 * (0.02 / 50) ** (k / 30) for k in range(31)]
paths = {name: scaled_path(schedules[name]) for name in schedules}
for path in paths.values():
    assert_close(path, paths["edm"], rtol=0, atol=1e-8)

# %% tags=["remove-cell"]
record("matched_ddim", max((path - paths["edm"]).abs().max() for path in paths.values()), rtol=100)  # rounding

# %% [markdown]
# With ddim the five paths agree at every level: the largest difference of any pixel is {glue:text}`matched_ddim:.0e`,
# which is rounding. (Cosine, legacy cosine and VP are all variance preserving. At the same ratio they are the same level, so among these three there was nothing to show.)
#
# With heun the scale matters, and with few steps it matters much. We take the six ratios of a six-point EDM grid and walk them with the Gaussian machine in three scales: variance exploding, $\alpha=1$; variance
# preserving; and that of the flow schedule, $\alpha+\sigma=1$. The exact end point is known for this machine, from `Gaussian.flow`.

# %%
scales = {
    "exploding": lambda r: 1.0,
    "preserving": lambda r: 1 / math.hypot(1, r),
    "flow": lambda r: 1 / (1 + r),
}
six = [noise.sigma for noise in edm_levels(6)[:-1]]


def relative_error(walk, step):
    """Error of the Gaussian machine's end point against the exact flow."""
    x = walk[0].sigma * start
    exact = gauss.flow(x, walk[0], walk[-1])
    miss = sample(gauss, x, walk, step) - exact
    return (miss.norm() / exact.norm()).item()


by_scale = {}
for name, alpha in scales.items():
    walk = [Noise(alpha(r), alpha(r) * r) for r in six]
    for step in (ddim, heun):
        by_scale[step.__name__, name] = relative_error(walk, step)

# %% tags=["remove-cell"]
for (step, name), error in by_scale.items():
    record(f"scale_{step}_{name}", error)

# %% [markdown]
# | scale | ddim | heun |
# |---|---|---|
# | $\alpha=1$ | {glue:text}`scale_ddim_exploding:.3f` | {glue:text}`scale_heun_exploding:.3f` |
# | $\alpha^2+\sigma^2=1$ | {glue:text}`scale_ddim_preserving:.3f` | {glue:text}`scale_heun_preserving:.3f` |
# | $\alpha+\sigma=1$ | {glue:text}`scale_ddim_flow:.3f` | {glue:text}`scale_heun_flow:.3f` |
#
# The entries are errors relative to the size of the exact end point. The ddim column is constant, as it must be. The rows of the heun column share their signal-to-noise ratios and their cost; only the factor $\alpha/\alpha'$ of {prf:ref}`prop-noise-steps` differs.
# With $\alpha=1$ the correction is made in full, and heun is worse than ddim. Damped, it is better.
#
# The reason is an overshoot, on long steps. Take a direction in which the data have variance $\lambda$, and let $y$ be measured from the mean. There the Gaussian machine has $\hat\varepsilon=ry/(\lambda+r^2)$, and the exact flow multiplies $y$ by
# $\sqrt{(\lambda+r'^2)/(\lambda+r^2)}$ ({ref}`gaussian-machine`). Let one step leap over $\sqrt\lambda$, from $r\gg\sqrt\lambda$ to $r'\ll\sqrt\lambda$. Then $\hat\varepsilon\approx y/r$ at its start and $\hat\varepsilon'\approx0$ at its end.
# The full trapezoid step leaves about $y/2$. The exact flow leaves about $y\sqrt\lambda/r$, which is far less.
#
# ## The order of a sampler
#
# A schedule, then, is a choice of *steps*: which ratios are visited, and for heun in which scale. To compare such choices we need an exact answer, and the Gaussian machine has
# one, `Gaussian.flow` ({ref}`gaussian-machine` derives it). We let each schedule take $n$ steps, uniform in its
# own time, and measure the relative error at the end. The walk ends at $\sigma/\alpha=0.02$ in one experiment and at
# $\sigma/\alpha=0.002$ in the other.


# %%
def solver_errors(schedule, step, end):
    found, t_end = [], time_of(schedule, end)
    for n in settings["steps"]:
        walk = [schedule(t) for t in evenly(1, t_end, n + 1)]
        found.append(relative_error(walk, step))
    return torch.tensor(found)


solver, slope = {}, {}
for step in (ddim, heun):
    for name, schedule in schedules.items():
        for end in (0.02, 0.002):
            errors = solver_errors(schedule, step, end)
            solver[step.__name__, name, end] = errors
            slope[step.__name__, name, end] = torch.log2(errors[-2] / errors[-1])

# %% tags=["remove-cell"]
count = settings["steps"]
for (step, name, end), errors in solver.items():
    suffix = f"{step}_{name}_{'near' if end == 0.02 else 'far'}"
    record(f"slope_{suffix}", slope[step, name, end])
    record(f"solver_{suffix}", errors)
    record(f"few_{suffix}", errors[1 if step == "ddim" else 0])
for name, schedule in schedules.items():
    before_last = evenly(1, time_of(schedule, 0.002), count[-1] + 1)[-2]
    record(f"jump_{name}", schedule(before_last).snr ** -0.5)
record("steps", count)
record("steps_last", count[-1])
record("steps_before", count[-2])

# %% mystnb={"figure": {"name": "fig-noise-order", "caption": "Relative error at the end of the flow of the Gaussian machine against the number of machine evaluations, for steps uniform in each schedule's own time, down to $\\sigma/\\alpha=0.002$ (above: ddim; below: heun, two evaluations a step). ddim is of first order on every schedule. heun on EDM is of second order at once, but starts from the largest error; on cosine and VP its lines are hardly steeper than those of ddim; flow and legacy cosine lie between."}, "image": {"alt": "Two panels of falling curves on logarithmic axes. Upper panel: five almost parallel lines of slope minus one. Lower panel: EDM starts highest and falls with slope minus two, crossing legacy cosine, cosine and VP; these two fall with a slope little steeper than minus one, and flow is lowest", "width": "90%", "classes": "dark-light"}} tags=["hide-input"]
fig, axes = plot.figure(2, 1, (6.4, 7.2), sharex=True)
for axis, (step, cost) in zip(axes, {"ddim": 1, "heun": 2}.items(), strict=True):
    lines = {title[name]: solver[step, name, 0.002] for name in schedules}
    plot.curves(torch.tensor(count) * cost, lines, "", f"relative error ({step})", yscale="log", axis=axis)
    mark(axis)
axes[1].set_xlabel("evaluations of the machine")
fig

# %% [markdown]
# The table gives the slope between the last two points, minus the logarithm to base two of the error ratio when {glue:text}`steps_before` steps become {glue:text}`steps_last`.
# First order means 1, second order 2.
#
# | schedule | ddim, to 0.02 | ddim, to 0.002 | heun, to 0.02 | heun, to 0.002 |
# |---|---|---|---|---|
# | cosine | {glue:text}`slope_ddim_cosine_near:.2f` | {glue:text}`slope_ddim_cosine_far:.2f` | {glue:text}`slope_heun_cosine_near:.2f` | {glue:text}`slope_heun_cosine_far:.2f` |
# | legacy cosine | {glue:text}`slope_ddim_legacy_near:.2f` | {glue:text}`slope_ddim_legacy_far:.2f` | {glue:text}`slope_heun_legacy_near:.2f` | {glue:text}`slope_heun_legacy_far:.2f` |
# | VP | {glue:text}`slope_ddim_vp_near:.2f` | {glue:text}`slope_ddim_vp_far:.2f` | {glue:text}`slope_heun_vp_near:.2f` | {glue:text}`slope_heun_vp_far:.2f` |
# | flow | {glue:text}`slope_ddim_flow_near:.2f` | {glue:text}`slope_ddim_flow_far:.2f` | {glue:text}`slope_heun_flow_near:.2f` | {glue:text}`slope_heun_flow_far:.2f` |
# | EDM | {glue:text}`slope_ddim_edm_near:.2f` | {glue:text}`slope_ddim_edm_far:.2f` | {glue:text}`slope_heun_edm_near:.2f` | {glue:text}`slope_heun_edm_far:.2f` |
#
# "Second order" is a promise about small steps, and on some schedules the steps are not small where it counts. As seen above, in a direction of variance $\lambda$ the flow of the Gaussian
# machine bends at $r\approx\sqrt\lambda$; a grid resolves that direction only if its steps there are shorter than $\sqrt\lambda$.
#
# The last step to 0.002 is telling. Out of {glue:text}`steps_last` steps, it starts from
# $r$ equal to {glue:text}`jump_edm:.4f` on EDM, {glue:text}`jump_flow:.4f` on flow, {glue:text}`jump_legacy:.4f` on legacy cosine, {glue:text}`jump_cosine:.4f` on cosine and {glue:text}`jump_vp:.4f` on VP, and passes over every direction whose $\sqrt\lambda$ lies in between.
# That is also the order in which the slopes fall. The reason lies in the schedules near $t=0$. The steps of EDM shrink almost in proportion to $r$. For flow and legacy cosine $r$ is nearly proportional to $t$. For VP and cosine that holds too, but not to the end: there $r$ goes like $\sqrt t$.
#
# Few steps are another matter. At ten evaluations (heun: five steps) the relative errors are:
#
# | schedule | ddim, ten steps | heun, five steps |
# |---|---|---|
# | cosine | {glue:text}`few_ddim_cosine_far:.3f` | {glue:text}`few_heun_cosine_far:.3f` |
# | legacy cosine | {glue:text}`few_ddim_legacy_far:.3f` | {glue:text}`few_heun_legacy_far:.3f` |
# | VP | {glue:text}`few_ddim_vp_far:.3f` | {glue:text}`few_heun_vp_far:.3f` |
# | flow | {glue:text}`few_ddim_flow_far:.3f` | {glue:text}`few_heun_flow_far:.3f` |
# | EDM | {glue:text}`few_ddim_edm_far:.3f` | {glue:text}`few_heun_edm_far:.3f` |
#
# Here EDM with heun is the worst of all, since its long steps overshoot, and flow with heun is the best. These are statements about one linear machine, and the ranking
# need not carry over to others. What carries over is the method: compare against an exact flow, and report the steps, the end, and the cost.
#
# ## First samples
#
# Everything is ready to make images. We take two machines for each data set, `Gaussian` and `Ideal`, start both from the same noise, and walk the
# cosine schedule with ddim. Watch two things: the state $x$, and below it the current guess $D(x)$.

# %%
path = levels(cosine, evenly(1, 0, 61))
shown = [0, 12, 24, 32, 40, 48, 54, 60]
made, walks, gaps = {}, {}, {}
for name, x0 in clean.items():
    rng = torch.Generator().manual_seed(seed)  # independent of the draws above
    noises = normal((8, *x0.shape[1:]))
    for kind in (Gaussian, Ideal):
        states = list(trajectory(kind.fit(x0), noises, path))
        made[name, kind.__name__] = states[-1].x
        walks[name, kind.__name__] = [states[k] for k in shown]
        distance, _ = metrics.nearest(states[-1].x, x0)
        gaps[name, kind.__name__] = distance.mean() / math.sqrt(x0[0].numel())

# %% tags=["remove-cell"]
for k, name in enumerate(data):
    for kind in ("Gaussian", "Ideal"):
        record(f"nearest_{kind}_{k}", gaps[name, kind], rtol=1e-2)

# %% mystnb={"figure": {"name": "fig-noise-trajectory", "caption": "One seed, two machines, from noise (left) to image (right); the numbers are $\\sigma$. Of the eight seeds of {numref}`fig-noise-samples` we show the one with the most contrast. Rows: the state $x$, which starts as the same noise for both, and the guess $D(x)$ below it. Both machines begin with the mean image, and their guesses are alike while the noise is high. Then the Gaussian machine fills in soft detail, whereas the ideal machine settles on one sharp image well before the noise is gone."}, "image": {"alt": "Rows of images for each data set and machine. Noisy states clear up from left to right; the guesses start as a blurred mean image and end soft for the Gaussian machine and sharp for the ideal machine", "classes": "dark-light"}} tags=["hide-input"]
rows = {}
for (name, kind), states in walks.items():
    k = made[name, "Ideal"].flatten(1).var(1).argmax()
    rows[f"{name}\n{kind}, x"] = torch.stack([s.x[k] for s in states])
    rows[f"{name}\n{kind}, D"] = torch.stack([s.x0[k] for s in states])
sheet(rows, [f"{path[k].sigma:.2f}" for k in shown])

# %% mystnb={"figure": {"name": "fig-noise-samples", "caption": "Eight samples of each machine, the same eight seeds in both rows of a data set. Ideal samples are sharp, and look like data; Gaussian samples have the right smoothness and the right large shapes, but no clean strokes or edges. Compare column by column: the two machines often agree in the large and disagree in detail."}, "image": {"alt": "Rows of eight sample images: for each data set soft, cloudy samples of the Gaussian machine above sharp samples of the ideal machine", "classes": "dark-light"}} tags=["hide-input"]
sheet({f"{name}\n{kind}": x for (name, kind), x in made.items()})

# %% [markdown]
# The sharp samples are too good. The root-mean-square distance per pixel from a sample to the nearest training image, averaged over the eight seeds, is
# {glue:text}`nearest_Ideal_0:.1e` for the ideal machine on the first data set and {glue:text}`nearest_Gaussian_0:.2f` for the Gaussian machine.
# The ideal machine has copied. (Some photographic patches are nearly equal. There a sample can end between two neighbours, since the last step starts at a positive $\sigma$ and lands on $D$.)
#
# {ref}`The next chapter <ideal-machine>` shows that it must, and {ref}`the one after it <gaussian-machine>` solves
# the Gaussian machine completely.
#
# ## What the literature reports, what we get


# %% tags=["remove-cell"]
class Counted(Machine):
    """A machine that counts how often it is asked."""

    def __init__(self, machine):
        self.machine, self.calls = machine, 0

    def denoise(self, x, noise):
        self.calls += 1
        return self.machine.denoise(x, noise)


counted = Counted(gauss)
sample(counted, 80 * start[:1], edm_levels(18), heun)
record("evaluations_edm", counted.calls)
record("edm_second", edm_levels(18)[1].sigma)
record("edm_last", edm_levels(18)[-2].sigma)
record("vp_end", vp(1.0).alpha)
record("cosine_end", cosine(1.0).alpha)
record("legacy_end", cosine_legacy(1.0).alpha)
record("flow_half", math.log(flow(0.5).snr))

# %% [markdown]
# | quantity | literature | here |
# |---|---|---|
# | cosine schedule, $\alpha(1)$ | $\cos\frac\pi2=0$ {cite:p}`nichol2021` | {glue:text}`cosine_end:.4f` |
# | legacy cosine, $\alpha(1)$ | $\cos\frac{\pi}{2.016}$, from public code {cite:p}`kamb2025creativity` | {glue:text}`legacy_end:.4f` |
# | VP, $\alpha(1)$ | $e^{-(\beta_0+\beta_1)/4}=e^{-5.025}$ {cite:p}`song2021sde` | {glue:text}`vp_end:.4f` |
# | flow, log signal-to-noise ratio at $t=\frac12$ | $0$ {cite:p}`lipman2023` | {glue:text}`flow_half:.4f` |
# | EDM grid with $n=18$, second and last noisy $\sigma$ | $\big(80^{1/7}+\frac1{17}(0.002^{1/7}-80^{1/7})\big)^7$ and $0.002$ {cite:p}`karras2022edm` | {glue:text}`edm_second:.2f` and {glue:text}`edm_last:.3f` |
# | evaluations of heun on that grid, to $\sigma=0$ | $2n-1=35$ {cite:p}`karras2022edm` | {glue:text}`evaluations_edm` |
# | order of heun | 2 {cite:p}`karras2022edm` | {glue:text}`slope_heun_edm_far:.2f` on EDM, {glue:text}`slope_heun_cosine_far:.2f` on cosine, to 0.002 |
# | ddim, dependence on the schedule at matched ratio | none: it is Euler in $\sigma/\alpha$ {cite:p}`song2021ddim` | difference {glue:text}`matched_ddim:.0e` |
# | denoising minus explicit score matching | a constant {cite:p}`vincent2011` | with the constant of {eq}`eq-noise-vincent` taken off: {glue:text}`loss_denoising:.2f`, explicit {glue:text}`loss_explicit:.2f` |
#
# Two things deserve care when results are compared. Legacy cosine, VP and EDM do not reach pure noise at $t=1$, so a sampler that starts there from $\N(0,\sigma^2I)$
# starts slightly off. And "cosine" names at least two schedules in public code.
#
# ## Paper profile
#
# The same chapter runs on larger data sets, with up to ten thousand images of each. Where such results are committed with the book, the next cell lists them, one column
# for each data set: the explicit loss and the denoising loss without its constant, the excess error of least squares over its law, the slopes of heun to $\sigma/\alpha=0.002$, and the distance per pixel from samples to the nearest training image.

# %% tags=["hide-input"]
committed = paper("01_noise_and_scores")
wanted = {
    "explicit loss": "loss_explicit",
    "denoising loss": "loss_denoising",
    "excess over law": "excess_ratio",
    **{f"slope of heun, {title[name]}": f"slope_heun_{name}_far" for name in schedules},
    "nearest image, Gaussian": "nearest_Gaussian_0",
    "nearest image, Ideal": "nearest_Ideal_0",
}
if committed:
    cells = [["", *committed]]
    cells += [[text, *(f"{values[key]:.3g}" for values in committed.values())] for text, key in wanted.items()]
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in cells)
    text = "\n".join("  ".join(f"{cell:>24}" for cell in row) for row in cells)
    display({"text/html": f'<table class="table">{body}</table>', "text/plain": text}, raw=True)

# %% [markdown]
# ## Exercises
#
# :::{exercise} Predicting the velocity
# :label: ex-noise-velocity
#
# On a variance-preserving schedule, $\alpha^2+\sigma^2=1$, some networks predict $v=\alpha\varepsilon-\sigma x_0$. Express $D$ and
# $\hat\varepsilon$ by $x$ and $\hat v=\E[v\mid x]$. What does $\hat v$ mean at both ends? Check your formulas on `few`.
# :::

# %% [markdown]
# :::{solution-start} ex-noise-velocity
# :class: dropdown
# :::
#
# The pair $(x,v)$ is the pair $(x_0,\varepsilon)$ turned by an angle: $x=\alpha x_0+\sigma\varepsilon$, $v=-\sigma x_0+\alpha\varepsilon$. Turn it back and take posterior means:
# $D=\alpha x-\sigma\hat v$ and $\hat\varepsilon=\sigma x+\alpha\hat v$. At $\alpha=0$, $\hat v=-D$; at $\sigma\to0$, $\hat v=\hat\varepsilon$. No
# division occurs, at either end, which is why this target is popular.

# %%
v_hat = now.alpha * few.eps(x, now) - now.sigma * few.denoise(x, now)
assert_close(now.alpha * x - now.sigma * v_hat, few.denoise(x, now))
assert_close(now.sigma * x + now.alpha * v_hat, few.eps(x, now))

# %% [markdown]
# :::{solution-end}
# :::

# %% [markdown]
# :::{exercise} Two points
# :label: ex-noise-two-points
#
# Let $x_0$ be $+1$ or $-1$ with equal probability, in one dimension. Compute $D(x)$, the score, and the posterior variance. For which levels has the noisy density two peaks?
# :::

# %% [markdown]
# :::{solution-start} ex-noise-two-points
# :class: dropdown
# :::
#
# The posterior odds of $+1$ against $-1$ are $\exp(2\alpha x/\sigma^2)$, so $D(x)=\tanh(\alpha x/\sigma^2)$. By Tweedie $s=(\alpha\tanh(\alpha x/\sigma^2)-x)/\sigma^2$. The
# variance is $1-D^2$, because $x_0^2=1$; Tweedie's second identity gives the same, since $\tanh'=1-\tanh^2$. The density is symmetric, and by {prf:ref}`cor-noise-jacobian` its curvature at zero has the sign of
# $\alpha J(0)-1=\alpha^2/\sigma^2-1$. If $\alpha>\sigma$ zero is a minimum and there are two peaks. If $\alpha\le\sigma$ then $|\alpha\tanh(\alpha x/\sigma^2)|<|x|$ for $x\ne0$, and zero is the only peak.

# %%
pair = Ideal.fit(torch.tensor([[1.0], [-1.0]], dtype=torch.float64))
line = torch.linspace(-3, 3, 61, dtype=torch.float64)[:, None]
mean_of_two = torch.tanh(now.alpha * line / now.sigma**2)
assert_close(pair.denoise(line, now), mean_of_two)
variance = pair.posterior_cov_product(line, now, torch.ones_like(line))
assert_close(variance, 1 - mean_of_two**2)

# %% [markdown]
# :::{solution-end}
# :::

# %% [markdown]
# :::{exercise} Orthogonality
# :label: ex-noise-orthogonality
#
# Show that $\E[(\varepsilon-\hat\varepsilon(x))\,g(x)]=0$ for every bounded function $g$, and deduce that $\E\norm{\hat\varepsilon(x)}^2=D-\frac{\alpha^2}{\sigma^2}\E\norm{D(x)-x_0}^2$, where the
# first $D$ is the dimension. In mean square, predicted noise is thus never longer than noise. Where does the missing length go as $\sigma\to0$?
# :::
#
# :::{solution} ex-noise-orthogonality
# :class: dropdown
#
# Condition on $x$: $g(x)$ is fixed and $\varepsilon-\hat\varepsilon$ has mean zero by {eq}`eq-noise-eps`. The same holds with $\hat\varepsilon$ itself in place of $g$, since it is square integrable: $\E[(\varepsilon-\hat\varepsilon)\cdot\hat\varepsilon]=0$.
# Hence $\E\norm{\varepsilon}^2=\E\norm{\hat\varepsilon}^2+\E\norm{\varepsilon-\hat\varepsilon}^2$. The left side is the dimension, and
# $\varepsilon-\hat\varepsilon=\alpha(D-x_0)/\sigma$. As $\sigma\to0$ at fixed $\alpha>0$, data with a continuous density have a posterior covariance close to $\sigma^2I/\alpha^2$; then the second term eats up all of the first, and
# nothing can be predicted of the noise. For a finite training set the posterior condenses on one image, the error vanishes faster than any power of $\sigma$, and the noise is predicted in full.
# :::
#
# :::{exercise} Pure noise
# :label: ex-noise-pure
#
# At $\alpha=0$ the Jacobian of the denoiser is zero, and Tweedie's second identity reads $0=0$. Show that nevertheless $\frac{\sigma^2}{\alpha}J(x)\to\Cov[x_0]$ as $\alpha\to0$ for bounded data. Check it numerically, and check that the library's closed form is right at $\alpha=0$ itself.
# :::

# %% [markdown]
# :::{solution-start} ex-noise-pure
# :class: dropdown
# :::
#
# By {prf:ref}`thm-noise-tweedie-second` the left side is $\Cov[x_0\mid x]$ for every $\alpha>0$. In {eq}`eq-noise-bayes` the weight $\varphi_\sigma(x-\alpha x_0)$ tends to
# $\varphi_\sigma(x)$, which does not depend on $x_0$, uniformly over bounded data. Posterior moments therefore tend to prior moments.

# %%
covariance = Gaussian.fit(y).cov
nearly, pure = Noise(1e-6, 1.0), Noise(0.0, 1.0)
v = normal(x.shape)
expected = (v.flatten(1) @ covariance).reshape(x.shape)
by_jacobian = Machine.posterior_cov_product(few, x, nearly, v)
assert_close(by_jacobian, expected, rtol=1e-3, atol=1e-3)
assert_close(few.posterior_cov_product(x, pure, v), expected)

# %% [markdown]
# :::{solution-end}
# :::

# %% [markdown]
# :::{exercise} Euler in time
# :label: ex-noise-euler
#
# Take Euler steps of {eq}`eq-noise-flow` in $t$, that is $x'=x+h\,(\dot\alpha D+\dot\sigma\hat\varepsilon)$ with derivatives at $t$ and $h=t'-t$. On which of the five schedules is
# this ddim? On the legacy cosine schedule, for which data is ddim exact, and for which is Euler in $t$? Which is nearer to the exact flow for the images of this chapter?
# :::

# %% [markdown]
# :::{solution-start} ex-noise-euler
# :class: dropdown
# :::
#
# The two agree when $\alpha$ and $\sigma$ are both linear in $t$: on the flow schedule, and on no other of the five.
# If all the data are one image, $D$ and $\hat\varepsilon$ do not change along the flow, and ddim is exact with any number of steps. On the legacy cosine schedule $\alpha=\cos\theta$ and
# $\sigma=\sin\theta$ with $\theta$ linear in $t$. If the data are standard normal, $D=\alpha x$ and $\hat\varepsilon=\sigma x$, so the velocity $(-\sigma D+\alpha\hat\varepsilon)\,\dot\theta$ is zero: nothing moves, and Euler in
# $t$ is exact, whereas a ddim step multiplies $x$ by $\alpha'\alpha+\sigma'\sigma=\cos(\theta-\theta')<1$. Neither step is the better one for all data.


# %%
def euler_in_time(machine, x, times):
    for t, t_next in pairwise(times):
        here, rate = cosine_legacy(t), math.pi / 2.016
        D, eps = machine.denoise(x, here), machine.eps(x, here)
        x = x + (t_next - t) * rate * (here.alpha * eps - here.sigma * D)
    return x


times = evenly(1, 0.02, 41)
walk = [cosine_legacy(t) for t in times]
first, last = walk[0], walk[-1]

single = Gaussian.fit(y[:1])
assert_close(sample(single, start, walk), single.flow(start, first, last))

parts = torch.zeros(D), torch.ones(D), torch.eye(D), torch.zeros(())
standard = Gaussian(*parts, images.shape[1:])
moved = euler_in_time(standard, start, times)
assert_close(moved, standard.flow(start, first, last))

exact = gauss.flow(start, first, last)
miss_ddim = sample(gauss, start, walk) - exact
miss_euler = euler_in_time(gauss, start, times) - exact

# %% tags=["remove-cell"]
record("euler_ddim", miss_ddim.norm() / exact.norm())
record("euler_time", miss_euler.norm() / exact.norm())

# %% [markdown]
# For the Gaussian machine of the images, with forty steps down to $t=0.02$, the relative error is {glue:text}`euler_ddim:.4f` with ddim and
# {glue:text}`euler_time:.4f` with Euler in $t$. What speaks for ddim is not its error constant here. It needs the two levels and no derivatives, it does not depend on the schedule, and a step into $\sigma=0$ lands on $\alpha'D$. Euler in $t$ lands elsewhere, and on
# VP and cosine $\dot\sigma$ grows without bound as $t\to0$.

# %% [markdown]
# :::{solution-end}
# :::

# %% [markdown]
# :::{exercise} What an ancestral step loses
# :label: ex-noise-ancestral
#
# Start a ddpm step {eq}`eq-noise-ddpm` from an $x$ with the right distribution. Show that its result has the right mean, and that its covariance is too small by exactly
# $\alpha'^2(1-\rho^2)^2\,\E\,\Cov[x_0\mid x]$. How does the loss over a whole walk depend on the number of steps? Check the formula on the Gaussian machine.
# :::

# %% [markdown]
# :::{solution-start} ex-noise-ancestral
# :class: dropdown
# :::
#
# With $\varepsilon=(x-\alpha x_0)/\sigma$ and $\alpha\sigma'\rho/\sigma=\alpha'\rho^2$, the bridge of {prf:ref}`prop-noise-bridge` is
# $x'=\alpha'(1-\rho^2)\,x_0+\frac{\sigma'\rho}{\sigma}x+\sigma'\sqrt{1-\rho^2}\,z$, which has exactly the right law. The step puts $\E[x_0\mid x]$ for $x_0$. The mean stays; by the law of total
# covariance the part $\alpha'^2(1-\rho^2)^2\,\E\,\Cov[x_0\mid x]$ is lost. For small steps $1-\rho^2$ is proportional to the step, so one step loses second order and a walk first order. In a direction of variance $\lambda$ the Gaussian
# machine multiplies by $k=\alpha\lambda/(\alpha^2\lambda+\sigma^2)$, and its posterior variance is $\lambda\sigma^2/(\alpha^2\lambda+\sigma^2)$.

# %%
noisy, lam = now.alpha**2 * gauss.lam + now.sigma**2, gauss.lam
keep = nxt.alpha * (1 - rho**2)
gain = keep * now.alpha * lam / noisy + nxt.sigma * rho / now.sigma
after = gain**2 * noisy + nxt.sigma**2 * (1 - rho**2)
right = nxt.alpha**2 * lam + nxt.sigma**2
assert_close(right - after, keep**2 * lam * now.sigma**2 / noisy)

# %% [markdown]
# :::{solution-end}
# :::

# %% [markdown]
# :::{admonition} Limits and open questions
# * The proofs of Tweedie's identities need finite moments only. The proof for the flow assumes bounded data, which images are, and $\sigma>0$. What happens in the
#   limit $\sigma\to0$ depends on the data law; for a training set {ref}`the next chapter <ideal-machine>` answers it.
# * {prf:ref}`thm-noise-matched` speaks of exact denoisers. A trained network need not satisfy $\tilde D(cx)=D(x)$, unless its inputs are scaled so that it does.
# * The convergence study uses one linear machine. For a curved flow, as that of the ideal machine near its branching points, error constants can be larger by far, and the best schedule is not known in general.
# * Which schedule is best at few steps, for which spectrum, is a question that the exact flow makes precise. We have measured it, not solved it.
# :::
