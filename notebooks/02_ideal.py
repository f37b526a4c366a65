# ---
# jupyter:
#   jupytext: {text_representation: {extension: .py, format_name: percent}}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   scorebook:
#     goals: ["derive the exact denoiser of a training set and stream it over data of any size",
#       "prove that a perfectly trained denoiser reproduces training images, and see it do so",
#       "predict the noise level at which the posterior condenses onto one image",
#       "read the ideal machine as attention over the training set"]
#     minutes: 75
#     needs: [noise-and-scores]
#     paper: [mnist, fashion, cifar10]
# ---

# %% [markdown]
# (ideal-machine)=
# # The ideal machine memorises
#
# A diffusion network is trained to denoise the images of a training set. Suppose that the training succeeds completely:
# no function has a smaller loss. We need not train anything to know this function. It has a closed form, it can be
# evaluated on a laptop, and it is useless as a generator: it can only return images that it was given.
#
# This chapter builds that function, the {term}`ideal machine`, and looks at it from every side. It is the yardstick of
# the whole book. Each later machine differs from it in a way that can be named, and the difference is what lets a
# machine make new images.
#
# :::{admonition} What you will be able to do
# - derive the exact {term}`denoiser` of a training set, and stream it over data of any size without approximation;
# - prove that a perfectly trained denoiser reproduces training images, and watch it do so;
# - say at which {term}`noise level` the posterior condenses onto one image, and predict that level from the spectrum of
#   the data;
# - read the machine as attention over the training set, and say why networks do something else.
#
# It takes about 75 minutes. You need {ref}`noise-and-scores`: the noise level, Tweedie's formula
# ({prf:ref}`thm-noise-tweedie`), the {term}`probability flow`. Probability at the level of Bayes' rule and Jensen's inequality is enough.
# :::

# %% tags=["parameters"]
profile = "quick"
seed = 0
data = ["digits", "photos"]

# %% tags=["hide-input"]
import math
from functools import reduce
from itertools import pairwise

import torch
from IPython.display import Markdown, display
from torch.testing import assert_close

from scorebook import paper, record, record_data
from scorebook.slider import frame_slider
from scoremachines import (
    Gaussian,
    Ideal,
    Noise,
    SoftMean,
    cosine,
    ddim,
    ddpm,
    edm_levels,
    heun,
    levels,
    metrics,
    plot,
    sample,
    trajectory,
)
from scoremachines.data import load

SETTINGS = {
    "quick": {"probes": 256, "seeds": 32, "dtype": torch.float64},
    "paper": {"probes": 128, "seeds": 16, "dtype": torch.float32},
}
probes, seeds, dtype = SETTINGS[profile].values()
rng = torch.Generator().manual_seed(seed)


def normal(*shape):
    return torch.randn(*shape, generator=rng, dtype=dtype)


# %% [markdown]
# The training images are shuffled once. So the first $n$ of them are a random subset of size $n$, and the first few can
# serve as test points. The held-out images come from the test split: for the photographs these are patches that share
# no pixel with a training patch ({ref}`data-sets`).

# %%
train, held, labels = {}, {}, {}
for name in data:
    images, others = load(name, "train"), load(name, "test")
    record_data(images)
    record_data(others)
    order = torch.randperm(len(images), generator=rng)
    train[name] = images.x0[order].to(dtype)
    labels[name] = images.labels[order]
    held[name] = others.x0[torch.randperm(len(others), generator=rng)].to(dtype)

ideal = {name: Ideal.fit(images) for name, images in train.items()}
gaussian = {name: Gaussian.fit(images) for name, images in train.items()}

# %% tags=["remove-cell"]
TITLES = {
    "digits": "digits",
    "photos": "photograph patches",
    "mnist": "MNIST",
    "fashion": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
}
for name in data:
    record(f"count_{name}", len(train[name]))
    record(f"dimension_{name}", train[name][0].numel())
record("probes", probes)
record("seeds", seeds)

# %% [markdown]
# The run of this page uses {glue:text}`count_digits` digits of {glue:text}`dimension_digits` pixels and
# {glue:text}`count_photos` grey patches of photographs of {glue:text}`dimension_photos` pixels. Pixel values lie in
# $[-1, 1]$, and all noise levels are quoted on this scale.
#
# ## The score of a training set
#
# We write $y_1, \dots, y_N \in \R^D$ for the training images, each flattened into a vector. (With an argument, $D(x)$ is
# the denoiser; alone, $D$ is the dimension.) Their *empirical
# distribution* puts the mass $1/N$ on each of them, $\hat p_0 = \frac1N \sum_i \delta_{y_i}$. A clean image $x_0$ drawn
# from it is one of the $N$ images, chosen evenly. Noise at the level $(\alpha, \sigma)$ with $\sigma > 0$ makes
# $x = \alpha x_0 + \sigma \varepsilon$, $\varepsilon \sim \N(0, I)$, and so the density of $x$ is a mixture of $N$ equal round
# Gaussians, one about each shrunken image:
#
# $$
# \begin{split}
# & p(x) = \frac1N \sum_{i=1}^N \varphi_\sigma(x - \alpha y_i), \\
# & \varphi_\sigma(u) = (2 \pi \sigma^2)^{-D/2} \exp\Bigl( -\frac{\norm{u}^2}{2 \sigma^2} \Bigr).
# \end{split}
# $$ (eq-ideal-density)
#
# :::{prf:definition} Ideal machine
# :label: def-ideal-machine
#
# The *ideal machine* of the images $y_1, \dots, y_N$ is the {term}`denoiser` of their empirical distribution,
# $D(x) = \E[x_0 \mid x]$ for $x_0 \sim \hat p_0$. Its *weights* $w_i(x)$ are the posterior probabilities of the images,
# given $x$.
# :::
#
# {cite:t}`kamb2025creativity` call it the ideal score machine; {cite:t}`wang2024gaussian` speak of the delta mixture.
#
# :::{prf:theorem} A softmax average over images
# :label: thm-ideal-softmax
#
# For every $\alpha \ge 0$, $\sigma > 0$ and $x \in \R^D$,
#
# $$
# \begin{split}
# & D(x) = \sum_{i=1}^N w_i(x)\, y_i, \\
# & w(x) = \softmax_i \Bigl( -\frac{\norm{x - \alpha y_i}^2}{2 \sigma^2} \Bigr),
# \end{split}
# $$ (eq-ideal-softmax)
#
# and the {term}`score` of {eq}`eq-ideal-density` is $\nabla \log p(x) = (\alpha D(x) - x) / \sigma^2$.
# :::
#
# :::{prf:proof}
# Let the random index $I$ be the number of the chosen image, uniform on $1, \dots, N$. Given $I = i$, the density of $x$ is
# $\varphi_\sigma(x - \alpha y_i)$. By Bayes' rule
#
# $$
# \begin{split}
# w_i(x) &= \Pr(I = i \mid x) \\
# &= \frac{\frac1N \varphi_\sigma(x - \alpha y_i)}{\frac1N \sum_j \varphi_\sigma(x - \alpha y_j)} .
# \end{split}
# $$
#
# The factors $1/N$ and the prefactors of $\varphi_\sigma$ cancel, which leaves the softmax. The mean of $x_0 = y_I$ under this posterior is the sum in {eq}`eq-ideal-softmax`.
# For the score, differentiate {eq}`eq-ideal-density`. The gradient of $\varphi_\sigma(u)$ is $-\varphi_\sigma(u)\, u / \sigma^2$, and so
#
# $$
# \frac{\nabla p(x)}{p(x)} = \sum_i w_i(x)\, \frac{\alpha y_i - x}{\sigma^2} = \frac{\alpha D(x) - x}{\sigma^2} .
# $$
# :::
#
# The theorem is four lines of code. We compare them with `Ideal` of the library, and its score with the derivative of its
# log density, on a few hundred images.


# %%
def denoise(x, noise, y):
    squared = (x.flatten(1)[:, None] - noise.alpha * y.flatten(1)).square().sum(2)
    w = torch.softmax(-squared / (2 * noise.sigma**2), dim=1)
    return (w @ y.flatten(1)).reshape(x.shape)


few = train[data[0]][:300].double()
machine = Ideal.fit(few)
noise = Noise(alpha=0.8, sigma=0.6)
x = noise.add(few[:16], normal(few[:16].shape).double()).requires_grad_()

assert_close(denoise(x, noise, few), machine.denoise(x, noise))
(slope,) = torch.autograd.grad(machine.log_density(x, noise).sum(), x)
assert_close(slope, machine.score(x, noise))
x = x.detach()

# %% [markdown]
# ### Only $x / \alpha$ and $\sigma / \alpha$ matter
#
# Let $\alpha > 0$. Dividing by $\alpha$ inside {eq}`eq-ideal-softmax` shows that the weights depend on $x / \alpha$ and $\sigma / \alpha$
# alone. From here on we use $\alpha = 1$ unless we say otherwise. Every statement holds for the other
# {term}`schedules <schedule>` after this rescaling; the one exception is $\alpha = 0$ ({ref}`ex-ideal-alpha`).

# %%
assert_close(machine.denoise(x, Noise(0.8, 0.6)), machine.denoise(x / 0.8, Noise(1.0, 0.6 / 0.8)))

# %% [markdown]
# ## Streaming the softmax
#
# The sum in {eq}`eq-ideal-softmax` runs over the whole training set for every single evaluation. Large sets do not fit
# into memory at once; they are read in chunks, perhaps by several processes. Two things must not go wrong.
#
# **Underflow.** The logits $\ell_i = -\norm{x - \alpha y_i}^2 / (2 \sigma^2)$ are large negative numbers. A held-out image
# keeps a positive distance from every training image, so that every logit goes to $-\infty$ as $\sigma \to 0$. Sooner or
# later every $e^{\ell_i}$ is zero in floating-point arithmetic, and the quotient is 0/0.

# %%
x0 = held[data[0]][:64].float()
noise = Noise(1.0, 0.1)
x = noise.add(x0, normal(x0.shape).float())
logits = -torch.cdist(x.flatten(1), train[data[0]].float().flatten(1)).square() / (2 * noise.sigma**2)
lost = (logits.exp().sum(1) == 0).double().mean()
assert ideal[data[0]].denoise(x, noise).isfinite().all()

# %% tags=["remove-cell"]
record("lost", 100 * lost.item(), rtol=0.05)

# %% [markdown]
# Here, at $\sigma = 0.1$ and in single precision, {glue:text}`lost:.0f` per cent of the held-out digits lose *every* weight.
# The cure is to carry the largest logit along and to exponentiate only differences.
#
# **Merging.** A chunk must leave behind enough for the exact answer. It is enough to keep three things.
#
# :::{prf:definition} Soft mean
# :label: def-ideal-softmean
#
# The *soft mean* of logits $\ell_1, \dots, \ell_n$ and values $v_1, \dots, v_n \in \R^D$ is the triple
#
# $$
# \begin{split}
# m &= \max_i \ell_i, \\
# Z &= \sum_i e^{\ell_i - m}, \\
# T &= \sum_i e^{\ell_i - m} v_i,
# \end{split}
# $$
#
# and $(-\infty, 0, 0)$ for $n = 0$. Two of them merge as $(m, Z, T) \oplus (m', Z', T') = (M, Z'', T'')$,
#
# $$
# \begin{split}
# M &= \max(m, m'), \\
# Z'' &= e^{m - M} Z + e^{m' - M} Z', \\
# T'' &= e^{m - M} T + e^{m' - M} T',
# \end{split}
# $$ (eq-ideal-merge)
#
# where a term with $m = -\infty$ or $m' = -\infty$ counts as zero.
# :::
#
# :::{prf:theorem} Chunks merge exactly
# :label: thm-ideal-monoid
#
# The merge {eq}`eq-ideal-merge` is associative and commutative, with $(-\infty, 0, 0)$ as identity: a commutative monoid.
# The soft mean of two sets of values together is the merge of their soft means. So any partition of the data, in any
# order, gives the same triple, and
#
# $$
# \begin{split}
# & T / Z = \sum_i \softmax(\ell)_i\, v_i, \\
# & m + \log Z = \log \sum_i e^{\ell_i} .
# \end{split}
# $$
# :::
#
# :::{prf:proof}
# Send a triple to $\Phi(m, Z, T) = (m,\, e^m Z,\, e^m T)$, with $\Phi(-\infty, 0, 0) = (-\infty, 0, 0)$. This map is one to
# one, because $m$ is kept and $e^m$ is positive when $m$ is finite. Multiplying {eq}`eq-ideal-merge` by $e^M$ shows that
# $\Phi(a \oplus b)$ has the larger of the two first entries, and the sums of the two second and third entries. Maximum and
# addition are commutative and associative, with identities $-\infty$, $0$ and $0$. Hence $\oplus$ is, too.
#
# For a set $A$ of pairs $(\ell_i, v_i)$, $\Phi$ of its soft mean is
# $(\max_A \ell_i,\, \sum_A e^{\ell_i},\, \sum_A e^{\ell_i} v_i)$. On disjoint sets these entries combine by maximum and
# sums, which is what $\oplus$ does. The quotient of the last two entries of $\Phi$, and the logarithm of the second, give
# the last two lines of the theorem.
# :::
#
# No exponential in {eq}`eq-ideal-merge` exceeds 1, and the largest term of $Z$ equals 1: nothing overflows, and $Z$ never
# underflows. `SoftMean` is this triple. A merge of chunks, in five lines, agrees with the machine, which reads its data in
# exactly this way:


# %%
def streamed(x, noise, chunks):
    def part(y):
        logits = -torch.cdist(x.flatten(1), noise.alpha * y.flatten(1)).square() / (2 * noise.sigma**2)
        return SoftMean.of(logits, y.flatten(1))

    return reduce(SoftMean.merge, map(part, chunks)).mean.reshape(x.shape)


noise = Noise(1.0, 0.5)
x = noise.add(few[:16], normal(few[:16].shape).double())
for chunk in (3, 50, 300):
    assert_close(streamed(x, noise, few.split(chunk)), machine.denoise(x, noise))
    assert_close(Ideal.fit(few, chunk=chunk).denoise(x, noise), machine.denoise(x, noise))

# %% [markdown]
# ### A trap: averaging the answers of the chunks
#
# It is tempting to denoise with each chunk and to average the results. Implementations have been published that do this.
# Let chunk $c$ alone answer $D_c$, and let $\pi_c$ be the posterior probability that the image lies in chunk $c$, which is
# proportional to $\sum_{i \in c} e^{\ell_i}$. The exact answer is $D = \sum_c \pi_c D_c$: it weighs the chunks by these
# masses. So the plain average over $C$ chunks is wrong by
#
# $$
# \frac1C \sum_c D_c(x) - D(x) = \sum_c \Bigl( \frac1C - \pi_c \Bigr) D_c(x).
# $$ (eq-ideal-trap)
#
# The error vanishes when all chunks explain $x$ equally well. This is nearly so at high noise, for chunks of equal size. At
# low noise one chunk holds the right image, and the others insist on their best wrong ones.


# %%
def averaging_errors(machine, x, noise, sizes):
    """Root-mean-square error per pixel of the plain average of chunk answers, for several chunk sizes."""
    log_w, y, exact = machine.log_weights(x, noise), machine.data.flatten(1), machine.denoise(x, noise)
    errors = []
    for n in sizes:
        parts = [SoftMean.of(*part) for part in zip(log_w.split(n, 1), y.split(n), strict=True)]
        assert_close(reduce(SoftMean.merge, parts).mean, exact.flatten(1), rtol=1e-4, atol=1e-4)
        wrong = torch.stack([part.mean for part in parts]).mean(0)
        errors.append((wrong - exact.flatten(1)).square().mean().sqrt().item())
    return errors


trap_sigmas = (0.3, 1.0, 3.0)
trap_sizes = {name: [4**k for k in range(3, 9) if 4**k < len(train[name])] + [len(train[name])] for name in data}
trap = {}
for name in data:
    x0 = train[name][:32]
    eps = normal(*x0.shape)
    for sigma in trap_sigmas:
        noise = Noise(1.0, sigma)
        x = noise.add(x0, eps)
        trap[name, sigma] = averaging_errors(ideal[name], x, noise, trap_sizes[name])

# %% mystnb={"figure": {"name": "fig-ideal-trap", "caption": "The plain average of per-chunk answers is wrong. Root-mean-square error per pixel (pixels span $[-1, 1]$) against the chunk size, for noised training images; one panel per data set. When the chunk size does not divide the number of images, the last chunk is smaller, and the plain average still counts it as a whole one. The last point of each curve is a single chunk, where both rules agree. At low noise the error is a sizeable part of the image contrast for every chunk that is smaller than the training set."}, "image": {"alt": "Error curves against chunk size on a logarithmic axis. At sigma 0.3 the error lies between a tenth and a quarter for all smaller chunks and drops to zero only when one chunk holds all images. At sigma 1 it is lower, with the same drop at the end; at sigma 3 it is close to zero throughout.", "width": "90%", "classes": "dark-light"}} tags=["hide-input"]
fig, axes = plot.figure(1, len(data), size=(6.4, 3.4), sharey=True, squeeze=False)
for axis, name in zip(axes[0], data, strict=True):
    series = {f"σ = {sigma:g}": torch.tensor(trap[name, sigma]) for sigma in trap_sigmas}
    plot.curves(trap_sizes[name], series, "chunk size", "", axis=axis)
    axis.set_title(TITLES[name], fontsize=12)
axes[0, 0].set_ylabel("rms error per pixel")
fig

# %% tags=["remove-cell"]
for name in data:
    errors = dict(zip(trap_sizes[name], trap[name, trap_sigmas[0]], strict=True))
    record(f"trap_{name}", errors[256], rtol=0.02)
    assert trap[name, trap_sigmas[0]][-1] < 1e-6

# %% [markdown]
# {numref}`fig-ideal-trap` shows the size of the mistake on real images. With chunks of 256 images and $\sigma = 0.3$ the
# error is {glue:text}`trap_digits:.2f` per pixel for the digits and {glue:text}`trap_photos:.2f` for the patches, where
# black and white are two apart. Nothing in the result gives the mistake away: it is still an average of training images,
# only too blurred. A test that compares two chunk sizes finds it at once.
#
# ### One sigma per pixel
#
# When the noise differs between components, with standard deviations $\sigma_d$ and factors $\alpha_d$, the exponent
# becomes $-\frac12 \sum_d (x_d - \alpha_d y_{i,d})^2 / \sigma_d^2$, and nothing else changes.

# %%
alpha, sigma = 0.3 + 0.7 * torch.rand(2, 1, *few.shape[1:], generator=rng).double()
noise = Noise(alpha, sigma)
x = noise.add(few[:16], normal(few[:16].shape).double())
squared = ((x[:, None] - alpha * few) / sigma).flatten(2).square().sum(2)
by_hand = torch.einsum("bn,nchw->bchw", torch.softmax(-squared / 2, 1), few)
assert_close(by_hand, machine.denoise(x, noise))

# %% [markdown]
# ## What training would converge to
#
# A denoising network $f$ is trained on noised training images. At one noise level its loss is
#
# $$
# \begin{split}
# L(f) &= \frac1N \sum_{i=1}^N \E_\varepsilon \norm{f(\alpha y_i + \sigma \varepsilon) - y_i}^2 \\
# &= \E \norm{f(x) - x_0}^2
# \end{split}
# $$ (eq-ideal-loss)
#
# with $x_0 \sim \hat p_0$. The second form says it all: this is least squares under the *empirical* law, not under the law of all images.
#
# :::{prf:theorem} The ideal machine is the unique minimiser of the training loss
# :label: thm-ideal-minimiser
#
# For every measurable $f$ with $L(f) < \infty$
#
# $$
# \begin{split}
# & L(f) = L(D) + \E \norm{f(x) - D(x)}^2, \\
# & L(D) = \E\, \tr \Cov[x_0 \mid x],
# \end{split}
# $$ (eq-ideal-excess)
#
# where $x \sim p$. Hence $L(f) \ge L(D)$, with equality only if $f = D$ almost everywhere. If $f$ is continuous and
# reaches the minimum, then $f = D$ everywhere.
# :::
#
# :::{prf:proof}
# Write $f - x_0 = (f - D) + (D - x_0)$, all at the same $x$, and expand the square. The cross term is twice
# $\E[(f - D) \cdot (D - x_0)]$. Given $x$, its first factor is a constant and $\E[D(x) - x_0 \mid x] = 0$ by
# definition of $D$; so the cross term vanishes. (All terms are finite, because $D$ is bounded by the largest image and
# $L(f)$ is finite.) The term that remains, $\E \norm{D - x_0}^2$, is
# $\E\, \tr \Cov[x_0 \mid x]$. Equality forces $\int p\, \norm{f - D}^2 dx = 0$; since $p > 0$ everywhere, $f = D$ outside a set of Lebesgue measure zero. Two
# continuous functions that agree almost everywhere agree everywhere.
# :::
#
# :::{prf:corollary} Excess loss measures the distance from memorisation
# :label: cor-ideal-memorises
#
# If at some noise level a trained network's loss {eq}`eq-ideal-loss` exceeds the minimum by $\delta$, then its mean squared
# distance from the ideal machine, on noised training images, is exactly $\delta$. A continuous network that reaches the minimum
# at every noise level *is* the ideal machine, and every {term}`sampler` that calls it produces what the ideal machine produces.
# :::
#
# The theorem leaves no way out. Data augmentation only replaces $\hat p_0$ by the law of the augmented images, which are then
# memorised instead. The weighting of noise levels changes nothing as long as each level has positive weight. A network that
# makes new images does so because it does not reach the minimum.
#
# We can watch {eq}`eq-ideal-excess` at work on a function that is not the minimiser, the {term}`Gaussian machine` of the same data.

# %%
noise = Noise(1.0, 0.7)
name = data[0]
pick = torch.randint(len(train[name]), (8 * probes,), generator=rng)
x0 = train[name][pick]
x = noise.add(x0, normal(x0.shape))
D, G = ideal[name].denoise(x, noise), gaussian[name].denoise(x, noise)
excess = ((G - x0).square() - (D - x0).square()).flatten(1).sum(1)
distance = (G - D).square().flatten(1).sum(1)
spread = (excess - distance).std() / len(x) ** 0.5
assert (excess.mean() - distance.mean()).abs() < 4 * spread + 1e-4 * distance.mean()

# %% tags=["remove-cell"]
record("excess", excess.mean(), rtol=0.01)
record("distance", distance.mean(), rtol=0.01)
record("excess_error", spread, rtol=0.05)

# %% [markdown]
# At $\sigma = 0.7$, on the digits and summed over the pixels, the Gaussian machine's loss exceeds the minimum by {glue:text}`excess:.3f`, and its mean
# squared distance from the ideal machine is {glue:text}`distance:.3f`. The two agree within the Monte-Carlo error,
# {glue:text}`excess_error:.3f`.
#
# ## Where the flow ends
#
# ### One image takes all
#
# Let the noise go to zero at a fixed point $x$. The softmax becomes a maximum.
#
# :::{prf:theorem} Collapse to the nearest image
# :label: thm-ideal-collapse
#
# Let $\alpha > 0$, let $y_*$ be a training image nearest to $x / \alpha$, let $k$ be the number of training images equal to $y_*$, and let the gap
#
# $$
# \Delta(x) = \min_{y_i \neq y_*} \norm{x - \alpha y_i}^2 - \norm{x - \alpha y_*}^2
# $$
#
# be positive. Let $w_*$ be the total weight of the $k$ copies, and $R = \max_{i,j} \norm{y_i - y_j}$. Then
#
# $$
# \begin{split}
# & 1 - w_*(x) \le \frac{N - k}{k}\, e^{-\Delta(x) / (2 \sigma^2)}, \\
# & \norm{D(x) - y_*} \le R\, \frac{N - k}{k}\, e^{-\Delta(x) / (2 \sigma^2)} .
# \end{split}
# $$ (eq-ideal-collapse)
#
# In particular, at $\alpha = 1$, $D(x) \to y_*$ as $\sigma \to 0$ for every $x$ that is not on the boundary between two
# Voronoi cells of the training images (the cell of an image holds the points nearer to it than to any other).
# :::
#
# :::{prf:proof}
# Divide numerator and denominator of the softmax by the largest term. The odds against the nearest image are
#
# $$
# \begin{split}
# \frac{1 - w_*}{w_*} &= \frac1k \sum_{y_i \neq y_*} e^{-(\norm{x - \alpha y_i}^2 - \norm{x - \alpha y_*}^2) / (2 \sigma^2)} \\
# &\le \frac{N - k}{k}\, e^{-\Delta / (2 \sigma^2)},
# \end{split}
# $$
#
# and $1 - w_* \le (1 - w_*) / w_*$. Further, $D - y_* = \sum_{y_i \neq y_*} w_i (y_i - y_*)$ has norm at most $(1 - w_*) R$.
# Off the boundaries $\Delta > 0$, and at $\alpha = 1$ it does not depend on $\sigma$.
# :::


# %%
def collapse_bound(x, noise, y):
    """The right-hand side for the weight in the collapse bound, for distinct images."""
    distance, _ = metrics.nearest(x, noise.alpha * y, k=2)
    gap = distance[:, 1] ** 2 - distance[:, 0] ** 2
    return (len(y) - 1) * torch.exp(-gap / (2 * noise.sigma**2))


x = few[:64] + 0.2 * normal(few[:64].shape).double()
for sigma in (0.5, 0.3, 0.2, 0.1):
    noise = Noise(1.0, sigma)
    rest = -torch.expm1(machine.log_weights(x, noise).amax(1))
    assert (rest <= collapse_bound(x, noise, few) + 1e-12).all()

# %% [markdown]
# ### The flow is captured
#
# The point $x$ is not fixed in sampling; it moves with the {term}`probability flow` $\mathrm d x / \mathrm d \sigma = (x - D(x)) / \sigma$
# (for $\alpha = 1$). On a list of levels the `ddim` step is its Euler step,
#
# $$
# x' = D(x) + \theta\, (x - D(x)), \qquad \theta = \sigma' / \sigma < 1 .
# $$ (eq-ideal-ddim)
#
# Each step draws $x$ towards the present guess. Does the guess still change when $x$ moves? There is a point of no return,
# and it can be tested.
#
# :::{prf:theorem} Capture
# :label: thm-ideal-capture
#
# Let $\alpha = 1$, and let the distance between any two of the $N \ge 2$ images be at most $R$. Let $y_*$ be an image that
# occurs only once, and $s > 0$ its squared distance from the closest other image. Suppose that at some level $\sigma_1$ the
# state $x_1$ has $y_*$ as its nearest image, with a gap
#
# $$
# \begin{split}
# & \Delta(x_1) \ge \Delta_1 := 2 \sigma_1^2 \log \frac{4 N R^2}{s} , \\
# & \text{where } \Delta_1 \le \frac{s}{2} .
# \end{split}
# $$ (eq-ideal-capture)
#
# Then the probability flow, and `ddim` on any decreasing list of levels from $\sigma_1$ on, keep $y_*$ as the nearest image.
# The flow ends there: for $0 < \sigma \le \sigma_1$
#
# $$
# \norm{x(\sigma) - y_*} \le \frac{\sigma}{\sigma_1} \Bigl( \norm{x_1 - y_*} + \frac{s}{4R} \Bigr) .
# $$ (eq-ideal-capture-rate)
#
# A `ddim` list that goes to zero from a last level $\sigma_n \le \sigma_1$ ends within $R N e^{-\Delta_1 / (2 \sigma_n^2)}$ of $y_*$.
# :::
#
# :::{prf:proof}
# For an image $y_i \neq y_*$ put $\Delta_i(x) = \norm{x - y_i}^2 - \norm{x - y_*}^2$. The squares of $x$ cancel, so $\Delta_i$
# is an affine function of $x$, and $\Delta(x) = \min_i \Delta_i(x)$ wherever $y_*$ is nearest. Let $s_i = \norm{y_i - y_*}^2 \ge s$.
# The weights sum to one, so $\Delta_i(D) = \sum_j w_j \Delta_i(y_j)$, with $\Delta_i(y_*) = s_i$ and $\Delta_i(y_j) \ge -R^2$
# for the others:
#
# $$
# \begin{split}
# \Delta_i(D) &\ge w_* s_i - (1 - w_*) R^2 \\
# &\ge s_i - 2 R^2 (1 - w_*),
# \end{split}
# $$
#
# where we used $s_i \le R^2$.
#
# *The set is kept.* Let $\sigma \le \sigma_1$ and let $x$ be in the set
# $\{\Delta_i(x) \ge \Delta_1 \text{ for all } i\}$. By {prf:ref}`thm-ideal-collapse`,
# $1 - w_* \le N e^{-\Delta_1 / (2 \sigma_1^2)} = s / (4 R^2)$, and therefore
# $\Delta_i(D) \ge s_i - s / 2 \ge s / 2 \ge \Delta_1$.
#
# A `ddim` step makes $x'$ a convex combination of $D(x)$ and $x$. Since $\Delta_i$ is affine and at least $\Delta_1$ at both,
# $\Delta_i(x') \ge \Delta_1$: the set is never left. The flow is the limit of `ddim` steps of vanishing size (for
# $\sigma > 0$ its right-hand side is smooth), and the set is closed; so the flow does not leave it either.
#
# *The distance.* Put $\tau = \log(\sigma_1 / \sigma)$. The flow is $\mathrm d x / \mathrm d \tau = D - x$, hence
# $\mathrm d [e^\tau (x - y_*)] / \mathrm d \tau = e^\tau (D - y_*)$, where
# $\norm{D - y_*} \le R N e^{-\Delta_1 / (2 \sigma^2)}$ by {prf:ref}`thm-ideal-collapse`. Put
# $a = \Delta_1 / (2 \sigma_1^2) = \log(4 N R^2 / s)$, which exceeds 2 because $R^2 \ge s$ and $N \ge 2$. Then
# $\Delta_1 / (2 \sigma^2) = a e^{2 \tau} \ge a (1 + 2 \tau)$, and $N e^{-a} = s / (4 R^2)$. So
# $\norm{D - y_*} \le \frac{s}{4 R} e^{-2 a \tau}$. Integrating,
#
# $$
# \begin{split}
# e^\tau \norm{x - y_*} &\le \norm{x_1 - y_*} + \frac{s}{4 R} \int_0^\infty e^{(1 - 2a) u} \,\mathrm d u \\
# &\le \norm{x_1 - y_*} + \frac{s}{4 R} ,
# \end{split}
# $$
#
# because the integral is $1 / (2a - 1) < 1$. This is {eq}`eq-ideal-capture-rate`.
#
# Finally, the `ddim` step from $\sigma_n$ into $\sigma' = 0$ has $\theta = 0$: it returns $D(x)$, which is within $R N e^{-\Delta_1 / (2 \sigma_n^2)}$ of $y_*$.
# :::
#
# Capture concerns one path. All paths together obey a law that needs no condition at all: the flow carries the density at
# $\sigma_1$ to the density at $\sigma$. If it starts from $x \sim p$ at $\sigma_1$, then at $\sigma$ it is distributed like
# $y_I + \sigma \varepsilon$, with $I$ uniform. The distance of such a point from the training set is at most
# $\sigma \norm{\varepsilon}$, about $\sigma \sqrt D$. As $\sigma \to 0$ each of $N$ distinct images receives the same share $1/N$
# of the paths. The {term}`memorisation` is complete and even-handed. (A sampler starts from pure noise at a large $\sigma_1$
# instead of from $p$; the two laws are then close.)
#
# The condition {eq}`eq-ideal-capture` costs one search for the two nearest images. So we can follow real trajectories, look up the
# level at which the theorem first applies, and check that it tells the truth.


# %%
def certified(state, y, radius):
    """Whether the capture theorem applies at a state, and the image it names."""
    distance, index = metrics.nearest(state.x, y, k=2)
    gap = distance[:, 1] ** 2 - distance[:, 0] ** 2
    separation = metrics.nearest(y[index[:, 0]], y, k=2)[0][:, 1] ** 2
    needed = 2 * state.noise.sigma**2 * torch.log(4 * len(y) * radius**2 / separation)
    return (gap >= needed) & (needed <= separation / 2), index[:, 0]


grid = edm_levels(40)
samples, paths, capture = {}, {}, {}
for name in data:
    y = train[name]
    radius = 2 * (y - y.mean(0)).flatten(1).norm(dim=1).max()  # at least the diameter
    start = grid[0].sigma * normal(seeds, *y.shape[1:])
    paths[name] = list(trajectory(ideal[name], start, grid))
    samples[name] = paths[name][-1].x
    _, final = metrics.nearest(samples[name], y)
    capture[name] = torch.full((seeds,), math.nan, dtype=torch.float64)
    for state in paths[name][:-1]:
        sure, image = certified(state, y, radius)
        assert (image[sure] == final[sure, 0]).all()
        capture[name][sure & capture[name].isnan()] = state.noise.sigma

# %% tags=["remove-cell"]
sample_distance, held_distance, train_distance = {}, {}, {}
for name in data:
    sample_distance[name], nearest_image = metrics.nearest(samples[name], train[name])
    held_distance[name] = metrics.nearest(held[name][: 4 * probes], train[name])[0][:, 0]
    train_distance[name] = metrics.nearest(train[name][: 4 * probes], train[name], k=2)[0][:, 1]
    record(f"captured_{name}", capture[name].isfinite().sum())
    record(f"capture_sigma_{name}", capture[name][capture[name].isfinite()].median(), rtol=0.05)
    record(f"sample_distance_{name}", sample_distance[name].max().clamp(min=1e-9), rtol=1.0)
    record(f"held_distance_{name}", held_distance[name].median())
    record(f"train_distance_{name}", train_distance[name].median())
    record(f"different_images_{name}", len(nearest_image.unique()), rtol=0.1)

# %% [markdown]
# We start from {glue:text}`seeds` seeds for each data set, at $\sigma = 80$. The theorem applied before the end to
# {glue:text}`captured_digits` digits and {glue:text}`captured_photos` patches, and it was right every time (the cell above asserts it). In the median the digits are
# certified at $\sigma =$ {glue:text}`capture_sigma_digits:.2f` and the patches at {glue:text}`capture_sigma_photos:.3f`. The
# certificate is a sufficient condition, and it comes late: the next section shows that the decision falls earlier.


# %% tags=["remove-cell"]
def pictures(rows, sides, titles):
    """Rows of images, which may differ in shape between rows, with a label left of each row and titles above its images."""
    columns = len(rows[0])
    height = sum(5.8 / columns + 0.3 * bool(title) for title in titles)
    fig, axes = plot.figure(len(rows), columns, size=(6.4, height), squeeze=False)
    fig.get_layout_engine().set(h_pad=0.02, w_pad=0.02)
    for line, row, side, title in zip(axes, rows, sides, titles, strict=True):
        for c, (axis, image) in enumerate(zip(line, row, strict=True)):
            plot.show(axis, image)
            axis.axis("off")
            if title:
                axis.set_title(title[c], fontsize=10)
        line[0].text(-0.1, 0.5, side, transform=line[0].transAxes, ha="right", va="center", fontsize=10)
    return fig


# %% mystnb={"figure": {"name": "fig-ideal-samples", "caption": "Samples of the ideal machine and the training image nearest to each. Eight seeds per data set, 40 levels of `ddim` from $\\sigma = 80$. The number above each pair is the Euclidean distance between the two. Every sample is a training image, pixel for pixel."}, "image": {"alt": "Two rows for each data set: eight generated images and below them their nearest training images. The rows look identical, and all distances printed above are zero to the digits shown.", "width": "100%", "classes": "dark-light"}} tags=["hide-input"]
rows, sides, titles = [], [], []
for name in data:
    distance, index = metrics.nearest(samples[name][:8], train[name])
    rows += [samples[name][:8], train[name][index[:, 0]]]
    sides += ["sample", "nearest"]
    titles += [[f"{d:.0e}" if d >= 1e-12 else "0" for d in distance[:, 0].tolist()], None]
pictures(rows, sides, titles)

# %% [markdown]
# {numref}`fig-ideal-samples` is the evidence. For comparison we need a yardstick: how far is an image that was *not* in the training
# set from its nearest training image?
#
# | Euclidean distance | digits | photograph patches |
# |---|---|---|
# | at most, sample to nearest training image | {glue:text}`sample_distance_digits:.0e` | {glue:text}`sample_distance_photos:.0e` |
# | median, held-out image to nearest training image | {glue:text}`held_distance_digits:.2f` | {glue:text}`held_distance_photos:.2f` |
# | median, training image to nearest other training image | {glue:text}`train_distance_digits:.2f` | {glue:text}`train_distance_photos:.2f` |
# | different training images among the {glue:text}`seeds` samples | {glue:text}`different_images_digits` | {glue:text}`different_images_photos` |
#
# Fresh images of the same kind keep a distance of order one. The samples have a distance of zero, within rounding.
#
# ### Does the solver matter?
#
# Which image is reached depends on the path. That *some* image is reached hardly depends on anything. We run three steps (`ddim`,
# `heun`, `ddpm`) on the levels of {cite:t}`karras2022edm`, and `ddim` on the cosine schedule at evenly spaced times, with few and many
# levels. Two questions are asked of every sample: does it lie on a training image (within a root-mean-square distance of $10^{-3}$ per
# pixel, less than one grey level)? And is the training image
# nearest to it the one that a fine grid reaches from the same seed?

# %%
counts = (2, 5, 10, 20)
runs = {
    "ddim": (ddim, edm_levels),
    "heun": (heun, edm_levels),
    "ddpm": (ddpm, edm_levels),
    "ddim, cosine": (ddim, lambda n: levels(cosine, torch.linspace(1, 0, n + 1).tolist())),
}


def landing(machine, eps, step, grid):
    """Distances per pixel to the nearest training image at the end of a run, and which images these are."""
    scale = (grid[0].alpha ** 2 + grid[0].sigma ** 2) ** 0.5
    x = sample(machine, scale * eps, grid, step, torch.Generator().manual_seed(seed))
    distance, index = metrics.nearest(x, machine.data)
    return distance[:, 0] / x[0].numel() ** 0.5, index[:, 0]


landed, agreed, variety = {}, {}, {}
for name in data:
    eps = normal(seeds, *train[name].shape[1:])
    _, reference = landing(ideal[name], eps, heun, edm_levels(40))
    for label, (step, make) in runs.items():
        ends = [landing(ideal[name], eps, step, make(n)) for n in counts]
        landed[name, label] = torch.tensor([(d < 1e-3).double().mean() for d, _ in ends])
        agreed[name, label] = torch.tensor([(i == reference).double().mean() for _, i in ends])
        variety[name, label] = [len(i.unique()) for _, i in ends]

# %% mystnb={"figure": {"name": "fig-ideal-solver", "caption": "Landing on a training image is easy; landing on the right one is not. Left: fraction of samples that lie on a training image. Right: fraction whose nearest training image, landed or not, is the one that Heun's method on 40 levels reaches from the same seed (`ddpm` adds fresh noise, so it has no reason to). On the levels that end at $\\sigma = 0.002$ the solvers land on a training image with any number of steps. The evenly spaced cosine times end with a large step: they need more levels, and on the patches even 20 are not enough for all samples."}, "image": {"alt": "Two columns of curves against the number of levels. On the left three solvers stay at one for all numbers of levels. The cosine curve rises from zero, to one for the digits and to about two thirds for the patches. On the right the fraction of agreement rises with the number of levels for ddim, heun and the cosine times, more slowly for the patches, and stays near zero for ddpm. For the digits the cosine times agree best at few levels.", "width": "95%", "classes": "dark-light"}} tags=["hide-input"]
fig, axes = plot.figure(len(data), 2, size=(6.4, 3.1 * len(data)), sharex=True, sharey=True, squeeze=False)
for row, name in zip(axes, data, strict=True):
    for axis, found, title in zip(
        row, (landed, agreed), ("on a training image", "on the reference image"), strict=True
    ):
        plot.curves(counts, {label: found[name, label] for label in runs}, "", "", axis=axis)
        axis.set(title=f"{TITLES[name]}\n{title}", ylim=(-0.05, 1.05), xticks=counts, xticklabels=counts)
        axis.minorticks_off()
        axis.title.set_fontsize(11)
        axis.get_legend().remove()
    row[0].set_ylabel("fraction of samples")
axes[0, 0].legend(frameon=False, fontsize=10, loc="lower right")
for axis in axes[-1]:
    axis.set_xlabel("levels with noise")
fig

# %% tags=["remove-cell"]
for name in data:
    record(f"variety_two_{name}", variety[name, "ddim"][0])
    record(f"landed_two_{name}", 100 * landed[name, "ddim"][0], rtol=0.05)
    record(f"landed_cosine_{name}", 100 * landed[name, "ddim, cosine"][1], rtol=0.2)
    record(f"agreed_ddim_{name}", 100 * agreed[name, "ddim"][-1], rtol=0.1)
    record(f"agreed_heun_{name}", 100 * agreed[name, "heun"][-1], rtol=0.1)

# %% [markdown]
# The extreme case is instructive. With two levels, $\sigma = 80$ and $0.002$, `ddim` jumps close to $D(x)$ at $\sigma = 80$, which is
# nearly the mean image, and from there to the nearest training image. All samples land ({glue:text}`landed_two_digits:.0f` per cent of
# the digits, {glue:text}`landed_two_photos:.0f` of the patches). But the number of different images among {glue:text}`seeds` seeds is
# {glue:text}`variety_two_digits` for the digits. (For the patches it is {glue:text}`variety_two_photos`: their mean brightness varies so
# much that $D(x)$ depends on the seed even there.)
#
# Exact landing is a property of the last step alone. From a last level $\sigma_n$ where the posterior has condensed, the step into $\sigma = 0$ returns $D(x)$, which
# {prf:ref}`thm-ideal-collapse` puts within an exponentially small distance of a training image. When the last level is still high, as
# for a few evenly spaced cosine times, the step returns an average of several images. With five cosine times only
# {glue:text}`landed_cosine_digits:.0f` per cent of the digits land.
#
# The path does matter for *which* image is reached. With 20 levels `ddim` agrees with the reference on
# {glue:text}`agreed_ddim_digits:.0f` per cent of the digits, and `heun` on {glue:text}`agreed_heun_digits:.0f` per cent; for the patches, which have
# many near neighbours, the figures are {glue:text}`agreed_ddim_photos:.0f` and {glue:text}`agreed_heun_photos:.0f` per cent. On the digits a
# few cosine times do better than as many of the other levels, although they land less often. They spend more of their steps near
# $\sigma / \alpha = 1$, where, as the next section shows, the decision falls.
#
# A sharp sample is no evidence of an accurate solver, and a
# blurred one is no evidence of a wrong path.
#
# ## When the posterior condenses
#
# At high noise $x$ says little, all images have nearly the same weight, and $D(x)$ is the mean image. At low noise one image has all
# the weight. How many images take part in between?
#
# :::{prf:definition} Effective number of images
# :label: def-ideal-neff
#
# The {term}`effective number of images` at $x$ is the exponential of the entropy of the weights,
# $N_{\mathrm{eff}}(x) = \exp\bigl( -\sum_i w_i(x) \log w_i(x) \bigr)$. A second measure is the participation number
# $N_2(x) = 1 / \sum_i w_i(x)^2$.
# :::
#
# Both lie between 1 and $N$, and equal $n$ when $n$ images share the weight evenly; always $1 / \max_i w_i \le N_2 \le N_{\mathrm{eff}}$
# ({ref}`ex-ideal-neff`).
#
# One function measures everything we need in the rest of the chapter: on images that were in the training set, and
# on images that were not, with the same noise.

# %%
sigmas = torch.logspace(math.log10(0.04), math.log10(40), 25, dtype=torch.float64).tolist()


def measure(name, x0, eps):
    """Posterior quantities for x0 + sigma eps at every sigma; each is (levels, probes)."""
    machine, table = ideal[name], []
    for sigma in sigmas:
        noise = Noise(1.0, sigma)
        x = noise.add(x0, eps)
        log_w = machine.log_weights(x, noise)
        w = log_w.exp()
        D, G = (w @ machine.data.flatten(1)).reshape(x.shape), gaussian[name].denoise(x, noise)
        entropy = -(w * log_w).sum(1)
        trace = (w @ machine.energy.to(w) - D.flatten(1).square().sum(1)).clamp(min=0)
        participation = -w.square().sum(1).log()
        table.append([entropy, participation, w.amax(1), trace, metrics.mse(D, x0), metrics.mse(G, x0)])
    names = ("entropy", "participation", "top", "trace", "ideal", "gaussian")
    return dict(zip(names, torch.stack([torch.stack(row) for row in table], 1), strict=True))


count = {name: min(probes, len(held[name])) for name in data}
eps = {name: normal(count[name], *train[name].shape[1:]) for name in data}
seen = {name: measure(name, train[name][: count[name]], eps[name]) for name in data}
unseen = {name: measure(name, held[name][: count[name]], eps[name]) for name in data}

# %% [markdown]
# The code computes the trace of the {term}`posterior covariance` as $\sum_i w_i \norm{y_i}^2 - \norm{D}^2$. The library gives the
# covariance itself, as a product with a vector; summed over the unit vectors it agrees:

# %%
noise = Noise(1.0, 0.7)
x = noise.add(few[:1], normal(few[:1].shape).double())
w = machine.log_weights(x, noise).exp()
trace = w @ few.flatten(1).square().sum(1) - machine.denoise(x, noise).square().sum()
units = torch.eye(few[0].numel(), dtype=torch.float64).reshape(-1, *few.shape[1:])
products = machine.posterior_cov_product(x.expand_as(units), noise, units)
assert_close((products * units).sum().reshape(1), trace)


# %% tags=["remove-cell"]
def crossing(values, target):
    """The sigma at which a monotone curve over `sigmas` crosses the target, by interpolation in log sigma; else the last of them."""
    above = values > target
    changes = (above != above[0]).nonzero()
    if not len(changes):
        return sigmas[-1]
    k = int(changes[0])
    share = ((target - values[k - 1]) / (values[k] - values[k - 1])).item()
    return sigmas[k - 1] * (sigmas[k] / sigmas[k - 1]) ** share


for name in data:
    for kind, found in (("seen", seen[name]), ("unseen", unseen[name])):
        record(f"two_{kind}_{name}", crossing(found["entropy"].median(1).values, math.log(2)), rtol=0.01)
        record(f"half_{kind}_{name}", crossing(found["top"].median(1).values, 0.5), rtol=0.01)
    record(f"neff_curve_{name}", seen[name]["entropy"].median(1).values.exp(), rtol=0.01)
    record(f"neff_curve_unseen_{name}", unseen[name]["entropy"].median(1).values.exp(), rtol=0.01)
record("sigmas", sigmas)

# %% mystnb={"figure": {"name": "fig-ideal-neff", "caption": "Effective number of images against the noise level. Thick lines: median of $N_{\\mathrm{eff}}$ over noised training images and over noised held-out images; bands: quartiles; thin dotted line: $N_2$ for training images. The dashed grey lines are $N_{\\mathrm{eff}} = 2$ and the number of training images. At high noise the two kinds cannot be told apart; as the noise falls, held-out images keep more neighbours and condense at a lower level. The bands show how unequal the patches are: some still have many near neighbours where others have long condensed."}, "image": {"alt": "Curves that rise from one at low noise to the number of training images at high noise. The curves for training and held-out images coincide at high noise. At lower noise the held-out curve lies above the other, and reaches one at a lower noise level. The bands are narrow for the digits and wide for the patches.", "width": "90%", "classes": "dark-light"}} tags=["hide-input"]
fig, axes = plot.figure(len(data), 1, size=(6.4, 3.5 * len(data)), sharex=True, squeeze=False)
for axis, name in zip(axes[:, 0], data, strict=True):
    both = {"noised training images": seen[name], "noised held-out images": unseen[name]}
    middle = {label: found["entropy"].median(1).values.exp() for label, found in both.items()}
    bands = {
        label: tuple(found["entropy"].quantile(q, dim=1).exp() for q in (0.25, 0.75)) for label, found in both.items()
    }
    plot.curves(sigmas, middle, "", "number of images", bands, yscale="log", axis=axis)
    axis.plot(sigmas, seen[name]["participation"].median(1).values.exp(), ":", color=plot.COLORS[0], lw=1)
    for level in (2, len(train[name])):
        axis.axhline(level, color="grey", ls="--", lw=0.8)
    axis.set_title(TITLES[name], fontsize=12)
axes[-1, 0].set_xlabel("noise level σ")
fig

# %% [markdown]
# We call the level at which the median of $N_{\mathrm{eff}}$ is 2 the *condensation level*. Another sensible choice is the level at which
# the largest weight is one half, in the median. The two differ by a modest factor:
#
# | condensation level $\sigma$ | digits | photograph patches |
# |---|---|---|
# | $N_{\mathrm{eff}} = 2$, noised training images | {glue:text}`two_seen_digits:.2f` | {glue:text}`two_seen_photos:.2f` |
# | $N_{\mathrm{eff}} = 2$, noised held-out images | {glue:text}`two_unseen_digits:.2f` | {glue:text}`two_unseen_photos:.2f` |
# | $\max_i w_i = \frac12$, noised training images | {glue:text}`half_seen_digits:.2f` | {glue:text}`half_seen_photos:.2f` |
# | $\max_i w_i = \frac12$, noised held-out images | {glue:text}`half_unseen_digits:.2f` | {glue:text}`half_unseen_photos:.2f` |
#
# Two things in {numref}`fig-ideal-neff` are worth a pause. First, held-out images condense as well, necessarily onto a *wrong* image: at a lower
# level, but then completely. The machine is confidently wrong about an image that it has never seen. Second, the levels are not small: this noise is clearly visible.
# Memorisation is decided long before the last, invisible steps.
#
# {numref}`fig-ideal-slider` follows one held-out image of each kind.


# %% mystnb={"figure": {"name": "fig-ideal-slider", "caption": "Lower the noise on one held-out image of each data set: the clean image, its noisy version $x$ (rescaled to be visible), the answer $D(x)$, and the four training images of largest weight with their weights in per cent. The noise pattern is the same at every level, only its size changes. At high noise the answer is a blur of many images with tiny weights; at the end it is the training image nearest to $x$, a sharp image that is not the right one. On the way the leader can change once more, when $x$ crosses the boundary between two Voronoi cells."}} tags=["hide-input"]
def percent(weight):
    return f"{100 * weight:.0f} %" if weight > 0.0995 else f"{100 * weight:.1f} %"


def slide(sigma, top=4):
    rows, titles, words = [], [], []
    for name in data:
        k = held[name][: count[name]].flatten(1).std(1).sort().indices[3 * count[name] // 4]  # one with some contrast
        x0, noise = held[name][k], Noise(1.0, sigma)
        x = noise.add(x0[None], eps[name][k][None])
        w = ideal[name].log_weights(x, noise).exp()[0]
        weight, best = w.topk(top)
        rows.append([x0, x[0] / (1 + sigma**2) ** 0.5, ideal[name].denoise(x, noise)[0], *train[name][best]])
        titles.append(["clean", "x", "D(x)", *map(percent, weight.tolist())])
        words.append(
            f"{TITLES[name]}: {1 / w.square().sum():.1f} images take part, largest weight {percent(weight[0])}"
        )
    return pictures(rows, [""] * len(data), titles), f"Sigma {sigma:.2f}. " + "; ".join(words) + "."


slide_sigmas = torch.logspace(math.log10(4), -1, 10, dtype=torch.float64).tolist()
frames, alts = zip(*map(slide, slide_sigmas), strict=True)
frame_slider(frames, [f"σ = {sigma:.2f}" for sigma in slide_sigmas], alts, label="Noise level")

# %% [markdown]
# ### The information in a noisy image
#
# The entropy of the weights is what is still unknown about which image it was. It is tied to the {term}`posterior covariance`, and to the
# density, by an identity that we can prove and check.
#
# :::{prf:theorem} Entropy of the weights and posterior variance
# :label: thm-ideal-information
#
# Let $x = y_I + \sigma \varepsilon$ with $I$ uniform, and let
# $H(\sigma) = \E\bigl[ -\sum_i w_i(x) \log w_i(x) \bigr]$, the logarithm of the geometric mean of $N_{\mathrm{eff}}$. Then
#
# $$
# \begin{split}
# & H(\sigma) = \E[-\log w_I(x)] = \log N - \mathcal I(I; x), \\
# & \frac{\mathrm d H}{\mathrm d \log \sigma} = \frac{\E\, \tr \Cov[x_0 \mid x]}{\sigma^2},
# \end{split}
# $$ (eq-ideal-information)
#
# where $\mathcal I(I; x)$ is the mutual information of the image number and $x$. If the images are distinct,
#
# $$
# \int_0^\infty \frac{\E\, \tr \Cov[x_0 \mid x]}{\sigma^2} \, \frac{\mathrm d \sigma}{\sigma} = \log N .
# $$ (eq-ideal-area)
# :::
#
# :::{prf:proof}
# Given $x$, the number $I$ has the probabilities $w_i(x)$; so $\E[-\log w_I \mid x] = -\sum_i w_i \log w_i$, and $H$ is the conditional
# entropy of $I$ given $x$, which is $\log N - \mathcal I(I; x)$. By Bayes' rule
# $-\log w_I = \log N + \log p(x) - \log \varphi_\sigma(x - y_I)$. Taking means, with $h = -\E \log p(x)$,
#
# $$
# H = \log N - h + \frac D2 \log(2 \pi e \sigma^2).
# $$
#
# Put $v = \sigma^2$. Adding Gaussian noise is diffusion: $\partial p / \partial v = \frac12 \nabla^2 p$. Hence
#
# $$
# \begin{split}
# \frac{\mathrm d h}{\mathrm d v} &= -\int \frac{\partial p}{\partial v} (\log p + 1)\, \mathrm d x \\
# &= -\frac12 \int \nabla^2 p \, \log p \, \mathrm d x \\
# &= \frac12 \int \frac{\norm{\nabla p}^2}{p} \,\mathrm d x
# = \frac12 \E \norm{\nabla \log p}^2 .
# \end{split}
# $$
#
# (The mixture {eq}`eq-ideal-density` and its derivatives decay like Gaussians while $\log p$ grows only quadratically; so the boundary
# terms vanish, and $\int \partial p / \partial v \, \mathrm d x = 0$.) By Tweedie $\nabla \log p = (D(x) - x) / v$. Further,
# $x - x_0 = (x - D(x)) + (D(x) - x_0)$, where the second term is orthogonal to every function of $x$. Let $c = \E\, \tr \Cov[x_0 \mid x]$. Then
# $D v = \E \norm{x - x_0}^2 = \E \norm{x - D(x)}^2 + c$, where the factor $D$ of $D v$ is the dimension. Together
#
# $$
# \begin{split}
# \frac{\mathrm d H}{\mathrm d v} &= -\frac{\mathrm d h}{\mathrm d v} + \frac{D}{2 v} \\
# &= -\frac{D v - c}{2 v^2} + \frac{D}{2 v} = \frac{c}{2 v^2} ,
# \end{split}
# $$
#
# and $\mathrm d v / \mathrm d \log \sigma = 2 v$ gives {eq}`eq-ideal-information`.
#
# *The limits.* As $\sigma \to 0$, $x \to y_I$. When the images are distinct the gap $\Delta(x)$ tends to a positive number, and
# $N_{\mathrm{eff}} \to 1$ by {prf:ref}`thm-ideal-collapse`. As $\sigma \to \infty$ the differences of the logits tend to zero, and
# $N_{\mathrm{eff}} \to N$. Entropies lie in $[0, \log N]$, so by bounded convergence $H$ runs from $0$ to $\log N$. Its
# derivative integrates to {eq}`eq-ideal-area`.
# :::
#
# In information theory the formula for $\mathrm d h / \mathrm d v$ is known as de Bruijn's identity, and the derivative of $\mathcal I$ as the
# I-MMSE relation.
#
# The theorem has a clear reading. A training set of $N$ images is a dictionary with $\log N$ nats to reveal, and no more. The ratio of the
# posterior variance to the noise variance is the rate at which they are revealed as the noise falls, per unit of $\log \sigma$. Where this
# rate is high, the picture is being decided. (With repeated images, $\log N$ in {eq}`eq-ideal-area` is replaced by the entropy of
# their law, which is smaller. A few of the patches are repeated.)
#
# The log density has its use here. The mutual information $\mathcal I(I; x) = \E[\log \varphi_\sigma(x - y_I) - \log p(x)]$ needs no weights at
# all. In code, with the check that it agrees with $\log N + \log w_I$ term by term:


# %%
def information(machine, x0, eps, noise):
    """Monte-Carlo mutual information between the image and x = alpha x0 + sigma eps, in nats, one term per probe."""
    log_kernel = -eps.square().flatten(1).sum(1) / 2 - eps[0].numel() * math.log(noise.sigma * (2 * math.pi) ** 0.5)
    return log_kernel - machine.log_density(noise.add(x0, eps), noise)


for name in data:
    y, e, noise = train[name][:16].double(), eps[name][:16].double(), Noise(1.0, 1.0)
    log_w = ideal[name].log_weights(noise.add(y, e), noise)
    assert_close(
        math.log(len(train[name])) + log_w.diagonal(), information(ideal[name], y, e, noise), rtol=0, atol=1e-3
    )

rate, area, entropy_mean = {}, {}, {}
log_sigma = torch.tensor(sigmas, dtype=torch.float64).log()
for name in data:
    rate[name] = seen[name]["trace"].double().mean(1) / torch.tensor(sigmas, dtype=torch.float64) ** 2
    entropy_mean[name] = seen[name]["entropy"].double().mean(1)
    area[name] = entropy_mean[name][0] + torch.cat([torch.zeros(1), torch.cumulative_trapezoid(rate[name], log_sigma)])

# %% mystnb={"figure": {"name": "fig-ideal-information", "caption": "The entropy of the weights and the area under the rate. Solid: mean entropy of the weights, $H(\\sigma)$, over noised training images. Dashed: its first value plus the running integral of $\\E\\,\\tr\\Cov[x_0 \\mid x] / \\sigma^2$ over $\\log \\sigma$; the theorem says that they agree. Dash-dotted: the rate itself, whose peak marks where most is decided. Dotted grey: $\\log N$."}, "image": {"alt": "For each data set an S-shaped entropy curve that rises to the logarithm of the number of images, and the integrated posterior variance close to it, slightly lower at high noise. A third curve, the rate, is a hump with its peak in the middle of the rise; for the patches it has a shoulder at low noise.", "width": "90%", "classes": "dark-light"}} tags=["hide-input"]
fig, axes = plot.figure(1, len(data), size=(6.4, 3.8), sharey=True, squeeze=False)
for axis, name in zip(axes[0], data, strict=True):
    series = {"entropy of weights": entropy_mean[name], "integrated rate": area[name], "rate": rate[name]}
    plot.curves(sigmas, series, "noise level σ", "", axis=axis)
    axis.axhline(math.log(len(train[name])), color="grey", ls=":", lw=1)
    axis.set_title(TITLES[name], fontsize=12)
    axis.get_legend().remove()
axes[0, 0].set_ylabel("nats")
fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=10)
fig

# %% tags=["remove-cell"]
for name in data:
    gap = (area[name] - entropy_mean[name]).abs().max()
    assert gap < 0.06 * math.log(len(train[name])), (name, gap)
    record(f"area_gap_{name}", 100 * gap / math.log(len(train[name])), rtol=0.1)
    record(f"log_count_{name}", math.log(len(train[name])))
    record(f"peak_sigma_{name}", sigmas[int(rate[name].argmax())])
    record(f"peak_rate_{name}", rate[name].max(), rtol=0.01)

# %% [markdown]
# {numref}`fig-ideal-information` compares both sides with {glue:text}`probes` probes. They differ by at most
# {glue:text}`area_gap_digits:.1f` per cent of $\log N =$ {glue:text}`log_count_digits:.2f` for the digits, and
# {glue:text}`area_gap_photos:.1f` per cent of {glue:text}`log_count_photos:.2f` for the patches: the sampling error of a small set of probes,
# which adds up along the integral because all levels share the same noise, and the error of the trapezoid rule. The rate peaks at $\sigma =$ {glue:text}`peak_sigma_digits:.2f` for the digits and at
# {glue:text}`peak_sigma_photos:.2f` for the patches.
#
# Along a single sampling path the posterior variance behaves in the same way, but in bursts.


# %% tags=["hide-input"]
def along(name, shown=6):
    """The largest weight and the rate tr Cov / sigma^2 along the first sampling paths: (levels, shown) each."""
    top, rates = [], []
    for state in paths[name][:-1]:
        w = ideal[name].log_weights(state.x[:shown], state.noise).exp()
        trace = w @ ideal[name].energy.to(w) - state.x0[:shown].flatten(1).square().sum(1)
        top.append(w.amax(1))
        rates.append(trace.clamp(min=0) / state.noise.sigma**2)
    return torch.stack(top), torch.stack(rates)


# %% mystnb={"figure": {"name": "fig-ideal-path", "caption": "Six sampling paths of the ideal machine, on the first data set. Above: the largest weight. Below: the trace of the posterior covariance divided by $\\sigma^2$, the rate at which the path decides. Sampling runs from right to left. Each path makes its choice in one or a few bursts near the condensation level, then nothing more happens."}, "image": {"alt": "Two panels against the noise level. Above, the largest weight of six paths climbs from nearly zero on the right to one on the left. Below, the rate of each path has one or several humps where its largest weight climbs, and falls to zero on the left.", "width": "90%", "classes": "dark-light"}} tags=["hide-input"]
fig, axes = plot.figure(2, 1, size=(6.4, 5.2), sharex=True)
path_sigmas = [noise.sigma for noise in grid[:-1]]
top, rates = along(data[0])
for axis, values, label in zip(axes, (top, rates), ("largest weight", "rate, nats per unit of log σ"), strict=True):
    plot.curves(path_sigmas, {f"seed {k + 1}": values[:, k] for k in range(values.shape[1])}, "", label, axis=axis)
axes[0].set(title=TITLES[data[0]], xlim=(0.05, 20))
axes[1].get_legend().remove()
axes[1].set_xlabel("noise level σ")
fig

# %% [markdown]
# ### Predicting the condensation level
#
# Can the level be predicted without computing any weights? {cite:t}`biroli2024` study optimally trained diffusion, for many images in high
# dimension, with methods of statistical physics. They find a *collapse* of the trajectories onto training images, by a mechanism similar to
# the condensation in a glass, and obtain its time from an "excess entropy" of the data.
#
# We derive a condition of this kind in our own terms, for a finite number of images. It has a familiar form: the training set is a random code book.
# An image is a code word, noise is the channel, and the machine is the decoder. Decoding succeeds when the channel carries more than the
# $\log N$ nats needed to name a code word.
#
# Suppose now that $y_1, \dots, y_N$ are independent draws from a population law $p_0$ with covariance $\Sigma$, whose eigenvalues are
# $\lambda_1, \dots, \lambda_D$. Let $\mathcal I(\sigma)$ be the mutual information of $x_0$ and $x = \alpha x_0 + \sigma \varepsilon$ when $x_0 \sim p_0$:
# a property of the population, not of the sample.
#
# :::{prf:theorem} The odds of the right image
# :label: thm-ideal-odds
#
# Let $N \ge 2$ and $x = \alpha y_1 + \sigma \varepsilon$, with $\varepsilon$ independent of the images. Then the log odds of the right image obey
#
# $$
# \begin{split}
# & \E \log \frac{w_1(x)}{1 - w_1(x)} \ge \mathcal I(\sigma) - \log(N - 1), \\
# & \mathcal I(\sigma) \le \mathcal I_G(\sigma), \\
# & \mathcal I_G(\sigma) := \frac12 \sum_{k=1}^D \log \Bigl( 1 + \frac{\alpha^2 \lambda_k}{\sigma^2} \Bigr).
# \end{split}
# $$ (eq-ideal-odds)
#
# The second line is an equality when $p_0$ is Gaussian.
# :::
#
# :::{prf:proof}
# Condition on $y_1$ and $x$. The odds against the right image are
#
# $$
# \frac{1 - w_1}{w_1} = \sum_{i=2}^N \frac{\varphi_\sigma(x - \alpha y_i)}{\varphi_\sigma(x - \alpha y_1)} .
# $$
#
# The other images are independent of $y_1$ and $x$, and the mean of $\varphi_\sigma(x - \alpha y_i)$ over $y_i \sim p_0$ is the noised density
# $p_\sigma(x)$ of the *population*. So the conditional mean of the odds is $(N - 1)\, p_\sigma(x) / \varphi_\sigma(x - \alpha y_1)$. The
# logarithm is concave; by Jensen's inequality
#
# $$
# \begin{split}
# & \E \Bigl[ \log \frac{1 - w_1}{w_1} \Bigm| y_1, x \Bigr] \\
# & \qquad \le \log(N - 1) - \log \frac{\varphi_\sigma(x - \alpha y_1)}{p_\sigma(x)} .
# \end{split}
# $$
#
# The mean of the last logarithm over $y_1$ and $x$ is $\mathcal I(\sigma)$, by definition. For the second inequality,
# $\mathcal I = h(x) - h(\sigma \varepsilon)$, and among all laws with the covariance $\alpha^2 \Sigma + \sigma^2 I$ the Gaussian has the largest entropy:
# $h(x) \le \frac12 \log \det (2 \pi e (\alpha^2 \Sigma + \sigma^2 I))$.
# :::
#
# Replacing the sum over the other images by its mean is called *annealing*. If it were exact, and if the data were Gaussian, the mean log
# odds would be $\mathcal I_G(\sigma) - \log(N - 1)$. The right image would reach even odds at the level where
#
# $$
# \log (N - 1) = \frac12 \sum_{k=1}^D \log \Bigl( 1 + \frac{\alpha^2 \lambda_k}{\sigma^2} \Bigr) .
# $$ (eq-ideal-annealed)
#
# For the eigenvalues we take those of the training set. The estimate makes three assumptions, and the theorem gives the direction of the first
# two errors.
#
# - *Annealing* underestimates the mean log odds, so it puts the level too low.
# - *Gaussianity* overestimates the information, so it puts the level too high.
# - *Independence* fails for overlapping patches: near-copies must be told apart, and this lowers the true level.
#
# To separate the first error from the others, we repeat the measurement on a
# surrogate: as many independent draws from the Gaussian with the same mean and covariance. (The exact flow of the {term}`Gaussian machine` from
# pure noise to $\sigma = 0$ draws them.)
#
# Because the images are shuffled, one pass gives the answer for every $N$: we add up the weights of the first $n$ images.


# %%
def log_odds(machine, eps, sizes):
    """Log odds of the true image among the first n, for x = y_b + sigma eps_b: (levels, sizes, probes)."""
    own, table = torch.arange(len(eps)), []
    for sigma in sigmas:
        noise = Noise(1.0, sigma)
        log_w = machine.log_weights(noise.add(machine.data[: len(eps)], eps), noise)
        right = log_w[own, own]
        log_w[own, own] = -torch.inf
        segments = [part.logsumexp(1) for part in log_w.tensor_split(sizes[:-1], 1)]
        table.append(right - torch.stack(segments).logcumsumexp(0))
    return torch.stack(table)


def gaussian_information(lam, sigma):
    return 0.5 * torch.log1p(lam / sigma**2).sum()


sizes, odds, odds_gauss, predicted = {}, {}, {}, {}
for name in data:
    N = len(train[name])
    sizes[name] = [n for n in (2**k for k in range(7, 17)) if count[name] <= n < 0.8 * N] + [N]
    clean, noisy = Noise(1.0, 0.0), Noise(0.0, 1.0)
    surrogate = Ideal.fit(
        [gaussian[name].flow(normal(len(y), *y.shape[1:]), noisy, clean) for y in train[name].split(4096)]
    )
    odds[name] = log_odds(ideal[name], eps[name], sizes[name])
    odds_gauss[name] = log_odds(surrogate, eps[name], sizes[name])
    nats = torch.stack([gaussian_information(gaussian[name].lam, sigma) for sigma in sigmas])
    predicted[name] = [crossing(nats, math.log(n - 1)) for n in sizes[name]]
    del surrogate

# %% tags=["remove-cell"]
levels_of, levels_gauss = {}, {}
for name in data:
    levels_of[name], levels_gauss[name] = (
        [crossing(table[:, k].median(1).values, 0.0) for k in range(len(sizes[name]))]
        for table in (odds[name], odds_gauss[name])
    )
    nats = torch.stack([gaussian_information(gaussian[name].lam, sigma) for sigma in sigmas])
    spread = odds_gauss[name][:, -1].double().std(1) / count[name] ** 0.5
    slack = odds_gauss[name][:, -1].double().mean(1) - (nats - math.log(len(train[name]) - 1))
    assert (slack > -4 * spread).all(), (name, slack / spread)
    for kind, found in (("", levels_of), ("_surrogate", levels_gauss), ("_predicted", predicted)):
        record(f"condensation{kind}_{name}", found[name][-1], rtol=0.02)
        record(f"condensation_curve{kind}_{name}", found[name], rtol=0.02)
    record(f"sizes_{name}", sizes[name])
    record(
        f"factor_{name}",
        (gaussian_information(gaussian[name].lam, 0.5) - gaussian_information(gaussian[name].lam, 1)).exp(),
    )

# %% mystnb={"figure": {"name": "fig-ideal-condensation", "caption": "Condensation level against the number of training images: the $\\sigma$ at which the right image has even odds in the median. Circles: subsets of the real images. Squares: Gaussian surrogates with the same mean and covariance. Line: the annealed estimate, $\\log (N - 1) = \\mathcal{I}_G$, computed from the spectrum alone. The surrogates follow the estimate closely; real images condense at lower noise, and the patches much lower. More images lower the level only slowly, because their number enters through its logarithm."}, "image": {"alt": "Condensation level falling with the number of images on logarithmic axes, for each data set. The Gaussian surrogate points lie close to the predicted line; the points for real images lie below it.", "width": "90%", "classes": "dark-light"}} tags=["hide-input"]
fig, axes = plot.figure(1, len(data), size=(6.4, 3.8), sharey=True, squeeze=False)
for axis, name in zip(axes[0], data, strict=True):
    axis.plot(sizes[name], predicted[name], "-", color=plot.COLORS[6], label="annealed estimate")
    axis.plot(sizes[name], levels_gauss[name], "s--", color=plot.COLORS[1], label="Gaussian surrogate")
    axis.plot(sizes[name], levels_of[name], "o-.", color=plot.COLORS[0], label="real images")
    ticks, powers = [0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10], sizes[name][::3]
    axis.set(title=TITLES[name], xlabel="number of images", xscale="log", yscale="log", yticks=ticks, yticklabels=ticks)
    axis.set(xticks=powers, xticklabels=powers)
    axis.minorticks_off()
axes[0, 0].set_ylabel("condensation level σ")
bounds = [value for name in data for value in levels_of[name] + levels_gauss[name] + predicted[name]]
axes[0, 0].set_ylim(min(bounds) / 1.3, max(bounds) * 1.3)
fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=10)
fig

# %% [markdown]
# | level of even odds, all images | digits | photograph patches |
# |---|---|---|
# | annealed estimate {eq}`eq-ideal-annealed` | {glue:text}`condensation_predicted_digits:.2f` | {glue:text}`condensation_predicted_photos:.2f` |
# | Gaussian surrogate, measured | {glue:text}`condensation_surrogate_digits:.2f` | {glue:text}`condensation_surrogate_photos:.2f` |
# | real images, measured | {glue:text}`condensation_digits:.2f` | {glue:text}`condensation_photos:.2f` |
#
# For the surrogates the annealed estimate is good, although $D$ and $N$ are far from any limit; the inequality {eq}`eq-ideal-odds` holds at every level, which the
# code asserts up to Monte-Carlo error. The measured levels of the surrogates lie slightly above the estimate, the side on which annealing errs.
#
# What remains between surrogate and real images is mostly the
# information that a Gaussian with the same covariance would carry and that the images do not. It is moderate for the digits. For the patches it is large:
# one covariance has to serve flat sky and sharp edges alike, and flat patches differ from each other by far less than the
# covariance says.
#
# The logarithm is the lesson. By the estimate, lowering the condensation level from 1 to 0.5 takes
# $\exp(\mathcal I_G(0.5) - \mathcal I_G(1))$ times as many images: {glue:text}`factor_digits:,.0f` times for the digits. The exponent is a sum over all directions of the data, so
# the factor grows quickly with the dimension. More data alone do not cure the ideal machine.
#
# ## The machine is attention
#
# Expand the square in {eq}`eq-ideal-softmax`. The term $\norm{x}^2$ is the same for every image and drops out of the softmax:
#
# $$
# \begin{split}
# & D(x) = \sum_i \softmax_i \bigl( \beta\, x \cdot y_i + b_i \bigr)\, y_i , \\
# & \beta = \frac{\alpha}{\sigma^2} , \quad b_i = -\frac{\alpha^2 \norm{y_i}^2}{2 \sigma^2} .
# \end{split}
# $$ (eq-ideal-attention)
#
# This is one attention head. The query is the noisy image $x$, keys and values are the training images $y_i$, the inverse temperature is $\beta$, and the
# bias $b_i$ makes up for keys of different length. Lowering the noise lowers the temperature. The library evaluates exactly this form, because it consists of
# two matrix products; and any attention routine can serve as an ideal machine:


# %%
def attention(x, noise, y):
    keys = y.flatten(1)
    scale, bias = noise.alpha / noise.sigma**2, -(noise.snr / 2) * keys.square().sum(1)
    heads = torch.nn.functional.scaled_dot_product_attention(
        x.flatten(1), keys, keys, attn_mask=bias[None], scale=scale
    )
    return heads.reshape(x.shape)


noise = Noise(0.8, 0.6)
x = noise.add(few[:16], normal(few[:16].shape).double())
attention_bound = 1e-10
assert_close(attention(x, noise, few), machine.denoise(x, noise), rtol=0, atol=attention_bound)

# %% tags=["remove-cell"]
record("attention_error", attention_bound)

# %% [markdown]
# When all images have the same norm, the bias is a constant and drops out. What is left, $\sum_i \softmax_i(\beta\, x \cdot y_i)\, y_i$,
# is the update rule of the modern Hopfield network, which {cite:t}`ramsauer2021` identified with attention. In that language
# the training images are stored patterns, and sampling is retrieval while the temperature falls. The authors name three kinds of fixed point: an average over
# all patterns, averages over some of them, and single patterns.
#
# The weights of the last section pass through similar stages as the noise falls, and {ref}`ex-ideal-two` works out the smallest example. But
# the two questions differ. A fixed point asks whether a pattern holds itself; condensation asks how the weights lie at a typical noisy image.
#
# ### Why networks do something else
#
# By {prf:ref}`thm-ideal-minimiser` a network that minimises the training loss must implement this attention over the complete training set. Trained
# networks that generate new images cannot do so. {cite:t}`kamb2025creativity` argue that the architecture of a convolutional network forbids it: each output
# pixel sees a limited window of the input, and the same rule is applied at every place. The best denoiser *under these two constraints* is another machine,
# which attends to patches instead of images. {cite:t}`wang2024gaussian` find that at moderate and high noise the score of trained networks is close to that of the
# Gaussian with the mean and covariance of the data, and at lower noise closer to a coarse mixture of Gaussians than to the training set's own score. Both are the
# subject of later chapters.
#
# ## What generalisation would need
#
# {prf:ref}`thm-ideal-minimiser` says that no machine denoises *training* images better. What about images that it has not seen? We have measured both
# errors already, together with those of the Gaussian machine, which remembers nothing but mean and covariance.

# %% mystnb={"figure": {"name": "fig-ideal-gap", "caption": "Denoising error per pixel against the noise level, on noised training images (solid and dash-dotted) and on noised held-out images (dashed and dotted). The thin grey line is the error $\\sigma^2$ of returning $x$ itself. The ideal machine's training error falls steeply at low noise. Its held-out error stops falling near the condensation level, and at low noise it is worse than doing nothing. The Gaussian machine treats both kinds of image nearly alike."}, "image": {"alt": "Error curves on logarithmic axes. The error of the ideal machine on training images plunges out of the frame at low noise. On held-out images it levels off and crosses the line sigma squared. The two curves of the Gaussian machine stay close together and below sigma squared. At high noise all four curves meet.", "width": "90%", "classes": "dark-light"}} tags=["hide-input"]
fig, axes = plot.figure(len(data), 1, size=(6.4, 3.5 * len(data)), sharex=True, squeeze=False)
for axis, name in zip(axes[:, 0], data, strict=True):
    series = {
        "ideal, training": seen[name]["ideal"].mean(1),
        "ideal, held out": unseen[name]["ideal"].mean(1),
        "Gaussian, training": seen[name]["gaussian"].mean(1),
        "Gaussian, held out": unseen[name]["gaussian"].mean(1),
    }
    plot.curves(sigmas, series, "", "mean squared error per pixel", yscale="log", axis=axis)
    axis.plot(sigmas, [sigma**2 for sigma in sigmas], color="grey", lw=0.8)
    axis.set(title=TITLES[name], ylim=(1e-4, 2))
axes[-1, 0].set_xlabel("noise level σ")
fig

# %% tags=["remove-cell"]
for name in data:
    for kind, found in (("seen", seen[name]), ("unseen", unseen[name])):
        record(f"error_ideal_{kind}_{name}", found["ideal"].mean(1), rtol=0.01)
        record(f"error_gaussian_{kind}_{name}", found["gaussian"].mean(1), rtol=0.01)
    worse = unseen[name]["ideal"].mean(1) - unseen[name]["gaussian"].mean(1)
    nothing = unseen[name]["ideal"].mean(1) - torch.tensor(sigmas) ** 2
    record(f"worse_below_{name}", crossing(worse, 0.0), rtol=0.02)
    record(f"useless_below_{name}", crossing(nothing, 0.0), rtol=0.02)
    record(f"floor_{name}", unseen[name]["ideal"][0].mean(), rtol=0.01)
    last = [found[kind][-1].mean() for found in (seen[name], unseen[name]) for kind in ("ideal", "gaussian")]
    record(f"high_noise_ratio_{name}", last[2] / last[3])

# %% [markdown]
# In {numref}`fig-ideal-gap` the ideal machine's held-out error levels off at {glue:text}`floor_digits:.3f` per pixel for the digits, which is the mean squared
# distance to the nearest training image. Three levels stand out.
#
# - Below $\sigma =$ {glue:text}`useless_below_digits:.2f` (digits) and {glue:text}`useless_below_photos:.2f` (patches) it would be better to
#   return the noisy image unchanged.
# - Below {glue:text}`worse_below_digits:.2f` and {glue:text}`worse_below_photos:.2f` the Gaussian machine, which knows nothing about
#   any single image, denoises new images better. Somewhat above, the ideal machine is the better one, even on new images: while it averages over many neighbours it uses
#   more than two moments.
# - At the highest level shown both answers are close to the mean image. The two have the same error, up to a factor of
#   {glue:text}`high_noise_ratio_digits:.4f` and {glue:text}`high_noise_ratio_photos:.4f`.
#
# The reason is geometric. $D(x)$ lies in the convex hull of the training images for every $x$. A new image $z$ outside the hull can never be returned: its error is at
# least its squared distance from the hull, however small the noise. Once the posterior has condensed it is even the squared distance from a single image. To generalise, a
# machine must leave the hull, or forget enough to stop telling the images apart. The next chapter does both: it keeps two moments and nothing else.
#
# ## What the papers report, what we get
#
# | claim | here |
# |---|---|
# | Sampling with the optimal denoiser of a finite training set can only return training images {cite:p}`kamb2025creativity` | distance of a sample from a training image, at most: {glue:text}`sample_distance_digits:.0e` (digits), {glue:text}`sample_distance_photos:.0e` (patches) |
# | Collapse resembles condensation, and its time follows from an excess entropy of the data {cite:p}`biroli2024` | even odds at $\sigma =$ {glue:text}`condensation_surrogate_digits:.2f` for Gaussian data, predicted {glue:text}`condensation_predicted_digits:.2f`; real digits {glue:text}`condensation_digits:.2f` |
# | At high noise the score is nearly that of a Gaussian with the mean and covariance of the data {cite:p}`wang2024gaussian` | ratio of the denoising errors, ideal to Gaussian, at the highest level: {glue:text}`high_noise_ratio_digits:.4f` (digits) |
# | Attention is the update rule of a Hopfield network, retrieval from stored patterns {cite:p}`ramsauer2021` | difference between attention and machine, at most: {glue:text}`attention_error:.0e` |
#
# The papers study other data, larger networks and other limits; the table compares statements, not numbers.
#
# ## At full size
#
# The paper profile runs the cells of this chapter on all training images of MNIST, Fashion-MNIST and CIFAR-10. Held-out images come from the test sets; of that of CIFAR-10, only a part was at hand. {ref}`reproducing` gives every count, and says how to run it. {numref}`fig-ideal-sets` compares all data sets at hand.

# %% tags=["hide-input"]
committed = paper("02_ideal")
ROWS = {
    "training images": "count_{}",
    "pixels and channels": "dimension_{}",
    "largest distance, sample to training image": "sample_distance_{}",
    "median distance, held-out to training image": "held_distance_{}",
    "condensation level, training images": "two_seen_{}",
    "condensation level, held-out images": "two_unseen_{}",
    "even odds, measured": "condensation_{}",
    "even odds, Gaussian surrogate": "condensation_surrogate_{}",
    "even odds, annealed estimate": "condensation_predicted_{}",
    "held out: ideal worse than Gaussian below": "worse_below_{}",
    "held out: ideal worse than doing nothing below": "useless_below_{}",
}


def shown(value):
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


if committed:
    head = ["", *(TITLES[name] for name in committed)]
    body = [[label, *(shown(committed[name][key.format(name)]) for name in committed)] for label, key in ROWS.items()]
    table = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *body]]
    display(
        Markdown(
            "\n".join(["**Paper profile.** Distances are Euclidean, levels are values of σ, up to 40.", "", *table])
        )
    )


# %% mystnb={"figure": {"name": "fig-ideal-sets", "caption": "All data sets at hand: those of this page's run, and the full training sets of the paper profile where their results are committed. Above: median effective number of images for noised training images (lines) and for noised held-out images (thin dotted lines), as a fraction of the training set. Below: level of even odds against the number of images, measured (circles) and annealed estimate (lines)."}, "image": {"alt": "Above, curves that rise from nearly zero to one as the noise grows, each data set at its own noise level. Below, measured levels that fall slowly with the number of images, at or below the predicted lines.", "width": "90%", "classes": "dark-light"}} tags=["hide-input"]
def here(name):
    """The numbers of this run, under the names by which they were recorded."""
    return {
        "count": len(train[name]),
        "neff_curve": seen[name]["entropy"].median(1).values.exp(),
        "neff_curve_unseen": unseen[name]["entropy"].median(1).values.exp(),
        "sizes": sizes[name],
        "condensation_curve": levels_of[name],
        "condensation_curve_predicted": predicted[name],
    }


curves = {name: here(name) for name in data}
for name, found in committed.items():
    curves[name] = {key: found[f"{key}_{name}"] for key in curves[data[0]]}
fig, (upper, lower) = plot.figure(2, 1, size=(6.4, 7.2))
for (name, found), color, style in zip(curves.items(), plot.COLORS, 2 * plot.STYLES, strict=False):
    total = found["count"]
    upper.plot(sigmas, torch.as_tensor(found["neff_curve"]) / total, style, color=color, label=TITLES[name])
    upper.plot(sigmas, torch.as_tensor(found["neff_curve_unseen"]) / total, ":", color=color, lw=1)
    lower.plot(found["sizes"], found["condensation_curve"], "o", color=color)
    lower.plot(found["sizes"], found["condensation_curve_predicted"], style, color=color)
upper.set(xscale="log", yscale="log", xlabel="noise level σ", ylabel="fraction of images that take part")
lower.set(xscale="log", yscale="log", xlabel="number of images", ylabel="level of even odds σ")
upper.legend(frameon=False, fontsize=10)
fig

# %% [markdown]
# ## Exercises
#
# :::{exercise} Copies and order
# :label: ex-ideal-copies
#
# (a) Show that the ideal machine does not depend on the order of the images. (b) One image is put into the training set $k$ times. Show that this is the same as adding
# $\log k$ to its logit. How small must $\sigma$ be before the copies have no influence on $D(x)$, for $x$ off the Voronoi boundaries? Check (a) and (b) in code.
# :::

# %% [markdown]
# :::{solution-start} ex-ideal-copies
# :class: dropdown
# :::
#
# (a) {eq}`eq-ideal-softmax` is a sum over images; by {prf:ref}`thm-ideal-monoid` the streaming computation is symmetric, too. (b) $k$ equal terms $e^\ell$ add up to
# $k e^\ell = e^{\ell + \log k}$. The copies shift one logit by a constant, while the differences of logits grow like $\Delta / (2 \sigma^2)$: once
# $\sigma^2 \ll \Delta / (2 \log k)$ the nearest image wins whether it has copies or not. Copies change how often an image is reached ($k$ times as often as any other), not which
# images can be reached.

# %%
copies = Ideal.fit(torch.cat([few, few[:1].expand(9, -1, -1, -1)]))
log_w = machine.log_weights(x, noise)
log_w[:, 0] += math.log(10)
assert_close(copies.denoise(x, noise), torch.einsum("bn,nchw->bchw", log_w.softmax(1), few))
assert_close(Ideal.fit(few.flip(0)).denoise(x, noise), machine.denoise(x, noise))

# %% [markdown]
# :::{solution-end}
# :::

# %% [markdown]
# :::{exercise} The machine with two images
# :label: ex-ideal-two
#
# Take $N = 2$ with $y_1 = a \neq 0$ and $y_2 = -a$, at $\alpha = 1$. (a) Show that $D(x) = a \tanh(a \cdot x / \sigma^2)$. (b) A point with $D(x) = x$ does not move under the
# probability flow at that level. Show that $x = 0$ is one, and that two more appear exactly when $\sigma < \norm{a}$. (c) What does this say about the
# condensation level of two images? Check (a) and (b) in code.
# :::

# %% [markdown]
# :::{solution-start} ex-ideal-two
# :class: dropdown
# :::
#
# (a) The logits are $\pm a \cdot x / \sigma^2$ plus a common term, so $w_1 - w_2 = \tanh(a \cdot x / \sigma^2)$. (b) Fixed points lie on the line through $\pm a$: put $x = c\, a$, then
# $c = \tanh(c \norm{a}^2 / \sigma^2)$. The right side is odd, increasing and concave for $c > 0$, with slope $\norm{a}^2 / \sigma^2$ at zero. So a solution
# $c > 0$ exists if and only if the slope exceeds 1, that is $\sigma < \norm{a}$. (c) The average of two images loses its stability when the noise falls below half
# their distance: the two attractors separate at $\sigma = \norm{y_1 - y_2} / 2$.

# %%
a = few[0]
pair = Ideal.fit(torch.stack([a, -a]))
size = a.norm().item()
point = normal(*a.shape).double()
assert_close(pair.denoise(point[None], Noise(1.0, 2.0))[0], a * torch.tanh((a * point).sum() / 4))
for sigma, expected in ((1.1 * size, 0.0), (0.9 * size, None)):
    c = torch.ones(1, dtype=torch.float64)
    for _ in range(2000):
        c = torch.tanh(c * size**2 / sigma**2)
    assert (c < 1e-6) if expected == 0.0 else (c > 0.1)
    assert_close(pair.denoise(c * a[None], Noise(1.0, sigma)), c * a[None])

# %% [markdown]
# :::{solution-end}
# :::

# %% [markdown]
# :::{exercise} Counting images
# :label: ex-ideal-neff
#
# Show that $1 \le 1 / \max_i w_i \le N_2 \le N_{\mathrm{eff}} \le N$. When are they equal? Check the chain on the measurements of this chapter.
# :::

# %% [markdown]
# :::{solution-start} ex-ideal-neff
# :class: dropdown
# :::
#
# $\sum_i w_i^2 \le \max_i w_i \sum_i w_i = \max_i w_i$ gives the first inequality after 1. By Jensen, $\log \sum_i w_i\, w_i \ge \sum_i w_i \log w_i$; change signs and
# exponentiate: $N_2 \le N_{\mathrm{eff}}$. Again by Jensen $\sum_i w_i \log (1 / w_i) \le \log \sum_i 1 \le \log N$, where the sums run over images with $w_i > 0$. The first equality, with
# 1, holds when one image has all the weight. $1 / \max_i w_i$, $N_2$ and $N_{\mathrm{eff}}$ are equal when all positive weights are equal, and they equal $N$ when all images have the same
# weight.

# %%
for found in (*seen.values(), *unseen.values()):
    chain = [-found["top"].log(), found["participation"], found["entropy"]]
    assert all((low <= high + 1e-4).all() for low, high in pairwise(chain))
    assert (chain[0] > -1e-4).all()

# %% [markdown]
# :::{solution-end}
# :::

# %% [markdown]
# :::{exercise} No signal
# :label: ex-ideal-alpha
#
# What are $D(x)$, the score and the posterior covariance at $\alpha = 0$? Why can the identity $\Cov[x_0 \mid x] = \frac{\sigma^2}{\alpha} \nabla D$ of
# {prf:ref}`thm-noise-tweedie-second` not be used there, and what does the library do instead?
# :::

# %% [markdown]
# :::{solution-start} ex-ideal-alpha
# :class: dropdown
# :::
#
# All logits are equal, so $D(x)$ is the mean image, the score is $-x / \sigma^2$, and the posterior is the prior: its covariance is that of the data. The identity reads
# $0 / 0$, since $D$ does not depend on $x$. The library forms $\sum_i w_i (y_i - D) (y_i - D) \cdot v$ directly, which is valid for every $\alpha$.

# %%
blind = Noise(0.0, 0.7)
v = normal(few[:16].shape).double()
assert_close(machine.denoise(x, blind), few.mean(0).expand_as(x))
assert_close(machine.score(x, blind), -x / 0.7**2)
covariance = few.flatten(1).T.cov(correction=0)
assert_close(machine.posterior_cov_product(x, blind, v).flatten(1), v.flatten(1) @ covariance)

# %% [markdown]
# :::{solution-end}
# :::

# %% [markdown]
# :::{exercise} Labels
# :label: ex-ideal-labels
#
# Let each image have a label. The conditional ideal machine $D_c$ is the ideal machine of the images with label $c$. Show that $D(x) = \sum_c \Pr(c \mid x)\, D_c(x)$, and
# express $\Pr(c \mid x)$ through the log densities of the conditional machines. Check it in code.
# :::

# %% [markdown]
# :::{solution-start} ex-ideal-labels
# :class: dropdown
# :::
#
# Average {eq}`eq-ideal-softmax` class by class: $D = \sum_c \bigl( \sum_{i \in c} w_i \bigr) \frac{\sum_{i \in c} w_i y_i}{\sum_{i \in c} w_i}$. The first factor is
# $\Pr(c \mid x)$, the second is $D_c$, because within a class the weights keep their proportions. By Bayes' rule $\Pr(c \mid x)$ is proportional to $N_c\, p_c(x)$, where $N_c$ is the number of
# images of the class and $p_c$ its noised density. This is {eq}`eq-ideal-merge` with classes as chunks.

# %%
kinds = labels[data[0]][: len(few)]
parts = [Ideal.fit(few[kinds == c]) for c in kinds.unique()]
log_share = torch.stack([part.log_density(x, noise) + math.log(len(part.data)) for part in parts], 1)
mixed = sum(
    p[:, None, None, None] * part.denoise(x, noise) for p, part in zip(log_share.softmax(1).T, parts, strict=True)
)
assert_close(mixed, machine.denoise(x, noise))

# %% [markdown]
# :::{solution-end}
# :::

# %% [markdown]
# :::{exercise} On the boundary
# :label: ex-ideal-boundary
#
# Let $x$ have exactly two nearest training images, $y_1 \neq y_2$, at $\alpha = 1$. What is the limit of $D(x)$ as $\sigma \to 0$? How wide is the layer around the boundary in which
# $D(x)$ is a visible mixture of the two? Check both answers in code.
# :::

# %% [markdown]
# :::{solution-start} ex-ideal-boundary
# :class: dropdown
# :::
#
# The two images have equal weight and the others vanish: the limit is $(y_1 + y_2) / 2$. Move $x$ by $t$ along the unit vector from $y_2$ to $y_1$. The gap of squared distances is
# $2 t \norm{y_1 - y_2}$, and as in {ref}`ex-ideal-two` $w_1 - w_2 = \tanh(t \norm{y_1 - y_2} / (2 \sigma^2))$. The layer has a width of about $2 \sigma^2 / \norm{y_1 - y_2}$: it shrinks with the
# variance of the noise, not with its standard deviation. A noisy image is spread over $\sigma$, so at low noise nearly none falls into the layer.

# %%
distance, index = metrics.nearest(few[:1], few, k=2)
y1, y2 = few[index[0]]
gap, sigma = distance[0, 1], 0.05 * distance[0, 1]
middle, direction = (y1 + y2) / 2, (y1 - y2) / gap
t = sigma**2 / gap
end = machine.denoise(torch.stack([middle, middle + t * direction]), Noise(1.0, sigma.item()))
assert_close(end[0], middle)
assert_close(end[1], middle + math.tanh(0.5) * (y1 - y2) / 2)

# %% [markdown]
# :::{solution-end}
# :::

# %% [markdown]
# :::{admonition} Limits and open questions
# - *The machine is exact; its law is not the one we want.* Everything here holds for the empirical distribution. How far it is from the population is a question of statistics, and the chapter answers it
#   only through held-out images.
# - *Capture is sufficient, not sharp.* {prf:ref}`thm-ideal-capture` certifies paths at lower noise than where the decision falls. A sharp criterion would have to follow the mass of many images at once.
# - *The condensation estimate assumes independent Gaussian data.* The surrogate shows that annealing is a small error here. The spectrum does not determine the rest: the information that real
#   images carry at a given noise level is unknown, and bounding it from above by the Gaussian value is crude for photographs.
# - *Distance in pixels is a poor measure of novelty.* A shifted training image is far away in pixels and would count as new. The machine of this chapter cannot produce it; a network can.
# - *Cost.* Each evaluation reads the complete training set. Exact pruning is possible at low noise, where almost all weights vanish; we do not use it.
# - *Partial memorisation.* Trained networks are not this machine, yet they can reproduce some of their training images. Which ones, and when during training, this chapter does not say.
# :::
