# ---
# jupyter:
#   jupytext: {text_representation: {extension: .py, format_name: percent}}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   scorebook:
#     goals:
#       - give every component of an image its own noise, and prove that only the curve of noise levels matters, not its speed
#       - write Gaussian, mixture and kernel-density machines for component-wise noise, and use them to condition on what is known
#       - set the three knobs basis, prior and schedule, and prove which of them are independent
#       - say where whitening acts once the score is exact, and measure it without drawing a sample
#       - place known methods as curves in one space of noise levels
#       - prove that noising is a Wilson-Polchinski flow, and that softness is the sharpness of its cutoff
#     minutes: 100
#     needs: [gaussian-machine, mixtures, orthonormal-bases]
#     paper: [mnist, cifar10]
# ---

# %% [markdown]
# (unified)=
# # Component-wise noise and priors
#
# So far one number, the noise level, was shared by all components of an image. It need not be. {cite:t}`gerdes2024gud` give every component, in any orthonormal basis, a schedule of its own, and drive the data to any Gaussian. Ordinary diffusion, blurring, cascades and autoregression then become curves in one space.
#
# :::{admonition} In this chapter
# You will write down this larger family and the exact machines for it. You will learn what each of its three knobs does, and prove that two of them overlap. You will draw known methods as curves in a plane. At the end you will meet an old acquaintance of physicists: the same equations, read from noise to data, are those of the renormalisation group.
#
# What the family does to the *sampler*, from diffusion to autoregression, is the subject of {ref}`the next chapter <softness>`.
#
# It takes about 100 minutes. It needs {ref}`the Gaussian machine <gaussian-machine>`, {ref}`mixtures <mixtures>` and {ref}`orthonormal bases <orthonormal-bases>`.
# :::

# %% tags=["parameters"]
profile = "quick"
seed = 0
data = ["digits", "photos"]

# %% tags=["hide-input"]
import math
from dataclasses import replace

import matplotlib.pyplot as plt
import torch
from IPython.display import Image, Markdown
from torch.testing import assert_close

from scorebook import paper, record, record_data
from scorebook.files import book_root
from scorebook.slider import frame_slider
from scoremachines import Mixture, Moments, Noise, cosine, ddim, plot, sample
from scoremachines import data as datasets
from scoremachines.ancestral import euler_maruyama, large, posterior_cov, small
from scoremachines.bases import DCT, PCA, Pixel, Wavelet
from scoremachines.coordinates import Coordinates, Prior, gaussian_law
from scoremachines.likelihood import exact_law, noised_law
from scoremachines.orders import by_column, by_frequency, by_level, by_variance
from scoremachines.paths import (
    active_share,
    at_gamma,
    blurring,
    gamma_of,
    heat,
    inverse_softness,
    regulator,
    soft,
    stairs,
    walk,
)
from scoremachines.smoothed import KernelDensity
from scoremachines.teleport import gaussian_kl, gaussian_w2

size = {
    "quick": {"steps": 64, "probes": 256, "priors": (0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6), "prior steps": (64, 256)},
    "paper": {"steps": 16, "probes": 128, "priors": (0.4, 1.0, 1.6), "prior steps": (16,)},
}[profile]
if profile == "quick":
    torch.set_num_threads(1)  # the images are small: threads would only wait for each other
rng = torch.Generator().manual_seed(seed)
first, last = data[0], data[-1]  # measurements are made on the first data set, pictures on the last
GREY = {"cifar10": 1}  # colour images are turned to grey
PICTURE = {"photos": 2929, "mnist": 1, "cifar10": 18}[last]


def load(name, split):
    """A data set of this chapter in grey; of photographs the larger patches."""
    return datasets.load(name, split, size=32 if name == "photos" else None, channels=GREY.get(name))


train, test, pictures = load(first, "train"), load(first, "test"), load(last, "train")
for images in {images.sha256: images for images in (train, test, pictures)}.values():
    record_data(images)
x0, new = train.x0.double(), test.x0.double()
shape, D = x0.shape[1:], x0[0].numel()
picture = pictures.x0[PICTURE : PICTURE + 1].double()
picture_moments = Moments.of(pictures.x0.double())
NUGGET = 1e-3  # white noise of this variance is part of the data: some pixels of the images never change
record("dimension", D)
record("steps", size["steps"])


def normal(*sizes):
    """Standard normal numbers in float64 from the chapter's generator."""
    return torch.randn(sizes, generator=rng, dtype=torch.float64)


def variances(basis, moments):
    """The variance of every coefficient of the data in a basis."""
    rows = basis.analysis(moments.cov.reshape(-1, *moments.shape)).flatten(1)
    both = basis.analysis(rows.T.reshape(-1, *moments.shape)).flatten(1)
    return both.diagonal().reshape(moments.shape) + NUGGET


# %% [markdown]
# ## A clock for every component
#
# Let $\chi\in\R^D$ be the components of an image in some coordinates; which ones is a question for later. Component $i$ follows an Ornstein–Uhlenbeck process with a rate $\beta_i(t)\ge0$ of its own,
#
# $$
# d\chi_i=-\tfrac12\beta_i\,\chi_i\,dt+\sqrt{\beta_i}\,dW_i ,
# $$ (eq-unified-ou)
#
# driven by independent Brownian motions. It is linear, so it can be solved. With $\alpha_i=\exp(-\frac12\int_0^t\beta_i)$ and $\sigma_i^2=1-\alpha_i^2$,
#
# $$
# \chi_i(t)=\alpha_i\,\chi_i(0)+\sigma_i\,\varepsilon_i ,
# $$ (eq-unified-forward)
#
# and the $\varepsilon_i$ are independent and standard normal. So a level of {term}`component-wise noise` is a pair of vectors, and as $\alpha_i^2+\sigma_i^2=1$ one vector is enough. We take minus the log {term}`signal-to-noise ratio`,
#
# $$
# \begin{split}
# \gamma_i&=\log\frac{\sigma_i^2}{\alpha_i^2},\\
# \alpha_i^2&=\frac1{1+e^{\gamma_i}},\qquad\sigma_i^2=\frac1{1+e^{-\gamma_i}} .
# \end{split}
# $$ (eq-unified-gamma)
#
# Noise rises with $\gamma$, from $-\infty$ (clean) to $+\infty$ (nothing left). Differentiate $\log\alpha_i^2=-\log(1+e^{\gamma_i})$ to get $d\log\alpha_i^2=-\sigma_i^2\,d\gamma_i$. On the other hand $d\log\alpha_i^2=-\beta_i\,dt$. Hence
#
# $$
# \beta_i=\sigma_i^2\,\frac{d\gamma_i}{dt} .
# $$ (eq-unified-beta)
#
# In the library `at_gamma` makes a level from $\gamma$, and `gamma_of` returns $\gamma$ of any level, variance preserving or not. Infinite $\gamma$ are legal and give exact zeros.

# %%
gamma = torch.tensor([[-math.inf, -2.0, 0.0, 3.0, math.inf]], dtype=torch.float64)
level = at_gamma(gamma)
assert_close(level.alpha**2, 1 / (1 + gamma.exp()))
assert_close(level.sigma**2, 1 / (1 + (-gamma).exp()))
assert_close(gamma_of(level), gamma)

rate = torch.func.grad(lambda t: -2 * cosine(t).alpha.log())(torch.tensor(0.4, dtype=torch.float64))
slope = torch.func.grad(lambda t: gamma_of(cosine(t)))(torch.tensor(0.4, dtype=torch.float64))
assert_close(rate, cosine(0.4).sigma ** 2 * slope)  # beta of the cosine schedule

# %% [markdown]
# ### Back again
#
# Let $p_t$ be the density of $\chi(t)$ and $s=\nabla\log p_t$ its score. Each component has its own diffusion coefficient, and a diagonal matrix is as good as a number in the arguments of {ref}`the first chapter <noise-and-scores>`. The process run backwards {cite:p}`anderson1982` and the {term}`probability flow` are
#
# $$
# \begin{split}
# d\chi_i&=-\beta_i\bigl(\tfrac12\chi_i+s_i\bigr)dt+\sqrt{\beta_i}\,d\bar W_i,\\
# d\chi_i&=-\tfrac12\beta_i\,(\chi_i+s_i)\,dt .
# \end{split}
# $$ (eq-unified-reverse)
#
# The first runs with $dt<0$ and noise of variance $\beta_i|dt|$. What couples the components is the score alone: $s_i$ depends on all of $\chi$ and on all of $\gamma$.
#
# :::{prf:proposition} Only the curve counts
# :label: prop-unified-curve
#
# Let $\gamma(t)$ be a continuously differentiable curve with finite components, and let the data be bounded or a mixture of Gaussians. (i) Its probability flow is
#
# $$
# \begin{split}
# d\chi_i&=-\tfrac12\sigma_i^2\,(\chi_i+s_i)\,d\gamma_i\\
# &=D_i\,d\alpha_i+\hat\varepsilon_i\,d\sigma_i ,
# \end{split}
# $$ (eq-unified-flow)
#
# with $D=\E[\chi(0)\mid\chi]$ and $\hat\varepsilon_i=(\chi_i-\alpha_iD_i)/\sigma_i$. (ii) Another parametrisation of the same curve has the same flow map from end to end. (iii) $p_t$, $s$ and $D$ depend on the point $\gamma(t)$ only, not on the curve that leads there.
# :::
#
# :::{prf:proof}
# (i) Insert {eq}`eq-unified-beta` into {eq}`eq-unified-reverse`. From {eq}`eq-unified-gamma`, $d\alpha_i=-\frac12\alpha_i\sigma_i^2\,d\gamma_i$ and $d\sigma_i=\frac12\alpha_i^2\sigma_i\,d\gamma_i$. With $\chi_i=\alpha_iD_i+\sigma_i\hat\varepsilon_i$ and Tweedie's $s_i=-\hat\varepsilon_i/\sigma_i$ ({prf:ref}`thm-noise-tweedie`, component by component),
#
# $$
# \begin{split}
# -\tfrac12\sigma_i^2(\chi_i+s_i)&=-\tfrac12\alpha_i\sigma_i^2D_i+\tfrac12\sigma_i(1-\sigma_i^2)\hat\varepsilon_i\\
# &=D_i\,\frac{d\alpha_i}{d\gamma_i}+\hat\varepsilon_i\,\frac{d\sigma_i}{d\gamma_i} .
# \end{split}
# $$
#
# (ii) No $dt$ is left in {eq}`eq-unified-flow`, so a change of the parameter changes nothing; existence and uniqueness are as in {prf:ref}`thm-noise-flow`: $D$ is smooth in $\chi$ and $\gamma$ and grows at most linearly in $\chi$, so that a solution is unique and cannot run away. (iii) By {eq}`eq-unified-forward`, $\gamma(t)$ determines the law of the pair $(\chi(0),\chi(t))$.
# :::
#
# The second line of {eq}`eq-unified-flow` is {eq}`eq-noise-flow-clockless` read component by component. So all samplers of this book take component-wise levels as they are: `ddim` is $\chi_i'=\alpha_i'D_i+\sigma_i'\hat\varepsilon_i$. What (ii) does *not* say is that two different curves between the same ends have the same flow map. They do not, and {ref}`the next chapter <softness>` says what changes.
#
# We check the two forms of the flow on a mixture in four dimensions, for a level and a direction $d\gamma$ at random.

# %%
roots = normal(2, 4, 4)
few = Mixture(
    torch.tensor([0.3, 0.7], dtype=torch.float64),
    tuple(gaussian_law(normal(4), root @ root.T, (4,)) for root in roots),
)
gamma, d_gamma, chi = normal(1, 4), normal(1, 4), normal(8, 4)
level = at_gamma(gamma)
d_alpha, d_sigma = torch.func.jvp(lambda g: (at_gamma(g).alpha, at_gamma(g).sigma), (gamma,), (d_gamma,))[1]
by_score = -(level.sigma**2) / 2 * (chi + few.score(chi, level)) * d_gamma
assert_close(few.denoise(chi, level) * d_alpha + few.eps(chi, level) * d_sigma, by_score)

# %% [markdown]
# ### An axis is never guessed
#
# A level for components of shape `shape` has $\alpha$ and $\sigma$ of shape `(1, *shape)`, with an axis of length one for the batch. A level per image has shape `(B, 1, ..., 1)`. Why so pedantic? A vector of 64 numbers beside 64 images of 64 components could mean either, and by broadcasting it would silently mean one of them. Here it is an error.

# %%
batch, vector = normal(64, 64), torch.rand(64, generator=rng, dtype=torch.float64)
try:
    Noise(vector, (1 - vector**2).sqrt()).on(batch)
except ValueError as error:
    print(error)
per_component, per_image = vector[None], vector[:, None]
assert_close(Noise(per_component, 0.5).add(batch, 0 * batch), batch * vector)
assert_close(Noise(per_image, 0.5).add(batch, 0 * batch), batch * vector[:, None])

# %% [markdown]
# ## Machines that know what is clean and what is not
#
# What is the best guess of a clean image if some of its components are nearly clean and others all but lost? Write $A=\diag(\alpha)$ and $N=\diag(\sigma^2)$.
#
# :::{prf:theorem} Three exact machines
# :label: thm-unified-machines
#
# (i) If $\chi(0)\sim\N(\mu,C)$ and $M=ACA+N$ is regular, then
#
# $$
# \begin{split}
# D(\chi)&=\mu+CA\,M^{-1}(\chi-A\mu),\\
# \Cov[\chi(0)\mid\chi]&=C-CA\,M^{-1}AC .
# \end{split}
# $$ (eq-unified-gaussian)
#
# (ii) For a {term}`mixture` with weights $\pi_k$, means $\mu_k$ and covariances $C_k$, let $M_k=AC_kA+N$ be regular and let $D_k$ be the machine (i) of component $k$. Then
#
# $$
# \begin{split}
# D&=\sum_kw_kD_k,\\
# w_k&\propto\pi_k\,\N(\chi;A\mu_k,M_k) .
# \end{split}
# $$ (eq-unified-mixture)
#
# (iii) Put a Gaussian of deviations $h_i\geq0$ around each of $N$ images $y_n$, and let $v_i=\alpha_i^2h_i^2+\sigma_i^2>0$. Then, with $\bar y=\sum_nw_n(\chi)\,y_n$,
#
# $$
# \begin{split}
# w&=\softmax_n\Bigl(-\sum_i\tfrac{(\chi_i-\alpha_iy_{n,i})^2}{2v_i}\Bigr),\\
# D_i&=\bar y_i+\frac{\alpha_ih_i^2}{v_i}\,(\chi_i-\alpha_i\bar y_i) .
# \end{split}
# $$ (eq-unified-kernel)
# :::
#
# :::{prf:proof}
# (i) $(\chi(0),\chi)$ is jointly Gaussian with cross-covariance $CA$, and $\chi$ has mean $A\mu$ and covariance $M$. This is the conditional law of Gaussians. (ii) Given the label the law is that of (i), and $w_k$ is the posterior probability of the label by Bayes' rule. (iii) is (ii) with $C_k=\diag(h^2)$: then $M_k=\diag(v)$, the same for all $k$, and the weighted mean of $y_{n,i}+\frac{\alpha_ih_i^2}{v_i}(\chi_i-\alpha_iy_{n,i})$ is affine in $y_{n,i}$.
# :::
#
# With $h=0$ the last one is the {term}`ideal machine`. With $h>0$ it is the exact machine of a kernel density estimate, `KernelDensity`, and it stays finite when some $\sigma_i$ vanish. Unlike with a single noise level, no eigenbasis of $C$ solves (i) once and for all: $A$ and $C$ do not commute. A new level costs a new factorisation.

# %%


def by_hand(chi, mean, cov, level):
    alpha, sigma = level.alpha[0], level.sigma[0]
    M = alpha[:, None] * cov * alpha + (sigma**2).diag()
    return mean + torch.linalg.solve(M, chi - alpha * mean, left=False) @ (alpha[:, None] * cov)


gaussians = few.components
guesses = torch.stack([by_hand(chi, one.mean, one.cov, level) for one in gaussians])
noised = [noised_law(one, level) for one in gaussians]
logits = torch.stack([torch.distributions.MultivariateNormal(one.mean, one.cov).log_prob(chi) for one in noised])
weights = (logits + few.weights.log()[:, None]).softmax(0)
assert_close(guesses[0], gaussians[0].denoise(chi, level))
assert_close((weights[:, :, None] * guesses).sum(0), few.denoise(chi, level))

y, h = normal(50, 4), torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
v = level.alpha**2 * h**2 + level.sigma**2
weights = (-((chi[:, None] - level.alpha * y) ** 2 / (2 * v)).sum(2)).softmax(1)
mean = weights @ y
assert_close(mean + level.alpha * h**2 / v * (chi - level.alpha * mean), KernelDensity.fit(y, h).denoise(chi, level))

# %% [markdown]
# ### Nothing left, and nothing lost
#
# The two extreme levels have a meaning. A component at $\alpha_i=0$ says nothing; one at $\sigma_i=0$ is known. A machine for component-wise noise thus contains every conditional expectation.
#
# :::{prf:proposition} Conditioning is a noise level
# :label: prop-unified-conditioning
#
# Let $K$ be the components with $(\alpha_i,\sigma_i)=(1,0)$. Then $D(\chi)$ is the machine of the conditional law of the data given $\chi(0)_K=\chi_K$, at the level of the other components. In particular, if the others have $\alpha_i=0$, it is $\E[\chi(0)\mid\chi(0)_K=\chi_K]$.
# :::
#
# :::{prf:proof}
# $D$ is the mean of $\chi(0)$ given $\chi$. To know $\chi$ is to know $\chi(0)_K$ and the noisy others.
# :::
#
# So a machine of this kind fills in missing parts of an image, with no training for it and no heuristics. For Gaussian data and $\alpha=0$ elsewhere it is linear regression:

# %%
whole = gaussians[0]
cov, mean = whole.cov, whole.mean
half = at_gamma(torch.tensor([[-math.inf, -math.inf, math.inf, math.inf]], dtype=torch.float64))
slope = torch.linalg.solve(cov[:2, :2], cov[:2, 2:])
filled = torch.cat([chi[:, :2], mean[2:] + (chi[:, :2] - mean[:2]) @ slope], 1)
assert_close(filled, whole.denoise(chi, half))

# %% [markdown]
# Now images. The left half is nearly clean, with $\gamma=-6$ ($\sigma/\alpha=0.05$), and the right half is nearly lost, with $\gamma=6$. Three machines are fitted on training images: one Gaussian; a mixture with one Gaussian per class, each covariance shrunk by a tenth towards that of all images; and a kernel density, whose bandwidth is the most likely one for training images left out. To every covariance we add $10^{-3}I$, since some pixels never change.

# %% tags=["hide-input"]
moments = Moments.of(x0)
nugget = NUGGET * torch.eye(D, dtype=torch.float64)
law = gaussian_law(moments.mean, moments.cov + nugget, shape)
mean_image = moments.mean.reshape(shape)


def shrunk(one):
    """The Gaussian of a class, its covariance shrunk towards that of all images."""
    return gaussian_law(one.mean, 0.9 * one.cov + 0.1 * moments.cov + nugget, shape)


by_class = Mixture.fit(x0, by="labels", labels=train.labels)
mixture = replace(by_class, components=tuple(map(shrunk, by_class.components)))
order = torch.randperm(len(x0), generator=rng)
probe, kept = order[: size["probes"]], order[size["probes"] :]
some = KernelDensity.fit(x0[kept], 1.0)
bandwidths = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
likely = [some.ideal.log_density(x0[probe], Noise(1.0, h)).mean().item() for h in bandwidths]
bandwidth = bandwidths[max(range(len(likely)), key=likely.__getitem__)]
machines = {"Gaussian": law, "mixture": mixture, "kernel density": KernelDensity.fit(x0, bandwidth)}
record("bandwidth", bandwidth)

column_gamma = torch.where(torch.arange(shape[2]) < shape[2] // 2, -6.0, 6.0).double()
split_level = at_gamma(column_gamma.expand(1, *shape).clone())
clean = {"training": x0[probe], "held out": new[torch.randperm(len(new), generator=rng)[: size["probes"]]]}
noisy = {key: split_level.add(some, normal(*some.shape)) for key, some in clean.items()}
guess = {(m, key): one.denoise(noisy[key], split_level) for key in clean for m, one in machines.items()}
errors = {(m, key): (found - clean[key]).square().mean((0, 1, 2)) for (m, key), found in guess.items()}
for (m, key), values in errors.items():
    tidy = f"{m}_{key}".replace(" ", "_")
    record(f"column_{tidy}", values.tolist(), rtol=0.05)
    record(f"right_{tidy}", values[shape[2] // 2 :].mean().item(), rtol=0.05)
    record(f"left_{tidy}", values[: shape[2] // 2].mean().item(), rtol=0.05)
spread = {key: (some - mean_image).square().mean((0, 1, 2)) for key, some in clean.items()}
for key, values in spread.items():
    record(f"spread_{key}".replace(" ", "_"), values.tolist(), rtol=0.05)

# %% mystnb={"figure": {"name": "fig-unified-halves", "caption": "Left half nearly clean ($\\gamma=-6$), right half nearly noise ($\\gamma=6$): what three machines make of it. Upper two rows: training images. Lower three: held-out images. The Gaussian returns a blurred right half. The mixture decides on a class, or on a few, and draws their mean. The kernel density completes training images without visible error, and new images with the right half of one or a few training images."}, "image": {"alt": "Five rows of five small grey images: clean image, noisy image whose right half is noise, and three completions. Those of the Gaussian are blurred on the right, those of the mixture less so, those of the kernel density sharp.", "width": "90%", "classes": "dark-light"}} tags=["hide-input"]
chosen = [("training", 0), ("training", 1), ("held out", 0), ("held out", 1), ("held out", 2)]
rows = [[clean[key][b], noisy[key][b], *(guess[m, key][b] for m in machines)] for key, b in chosen]
grid = torch.stack([image for row in rows for image in row])
plot.image_grid(grid, columns=5, titles=["clean", "noisy", *machines], rows=["train", "train", "new", "new", "new"])

# %% mystnb={"figure": {"name": "fig-unified-columns", "caption": "Mean squared error by column of the three machines at the level of the last figure, digits. Left: training images. Right: held-out images. Grey: the spread of the images about their mean, what a machine without evidence would get. On columns 1 to 3 all errors are far below it; columns 0 and 7 hardly vary at all. On the right half the kernel density has no visible error on training images, which it has stored. On new images it is the worst of the three, in column 6 even worse than the mean image, and the mixture is the best."}, "image": {"alt": "Two panels of mean squared error against the column from 0 to 7. All three machines are near zero on columns 0 to 3, rise on columns 4 and 5 and fall again, except for the kernel density in the left panel, which stays at zero. In the right panel it lies highest and the mixture lowest.", "width": "100%"}} tags=["hide-input"]
fig, axes = plot.figure(1, 2, size=(6.4, 3.6), sharey=True)
for axis, key in zip(axes, clean, strict=True):
    axis.plot(spread[key], color="grey", lw=3, alpha=0.6, label="spread")
    for m, color, style in zip(machines, plot.COLORS, plot.STYLES, strict=False):
        axis.plot(errors[m, key], style, color=color, marker="o", ms=4, lw=1.8, label=m)
    axis.axvline(shape[2] / 2 - 0.5, color="black", lw=0.8, ls=":")
    axis.set(xlabel="column", ylim=(0, None))
    axis.set_title(key, fontsize=11)
axes[0].set_ylabel("mean squared error")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=10)
fig

# %% [markdown]
# On the right half the errors on new images are {glue:text}`right_Gaussian_held_out:.3f` for the Gaussian, {glue:text}`right_mixture_held_out:.3f` for the mixture and {glue:text}`right_kernel_density_held_out:.3f` for the kernel density (bandwidth {glue:text}`bandwidth`). On training images they are {glue:text}`right_Gaussian_training:.3f`, {glue:text}`right_mixture_training:.3f` and {glue:text}`right_kernel_density_training:.0e`. The last number is memorisation in a new guise: half an image is enough to find the other half in the store.
#
# ## Three knobs
#
# In which components should the noise act, and how much of it? {cite:t}`gerdes2024gud` name three choices. Let $W$ be an {term}`orthonormal basis`, $m$ the mean of the data, and $S=\diag(S_i)$ positive. Put
#
# $$
# \begin{split}
# \chi&=S^{-1}W\,(x-m),\\
# x&=m+W^\top S\,\chi ,
# \end{split}
# $$ (eq-unified-coordinates)
#
# and add noise to $\chi$ along a curve $\gamma(t)$. At the end $\chi\sim\N(0,I)$, so in pixels the data are driven to $\N(m,W^\top S^2W)$, the {term}`prior`.
#
# - The *basis* $W$ says what a component is: a pixel, a principal component, a frequency, a wavelet.
# - The *prior* $S$ says what is at the end of the road. `Prior.isotropic` is $S=1$. `Prior.matched` takes for $S_i$ the deviation of the data in component $i$, so that all components of $\chi$ have unit variance: {term}`whitening`.
# - The *schedule* $\gamma_i(t)$ says when.
#
# The mean is subtracted first, always. What is left of it would count as signal. And densities pick up the volume of the map, $\log p(x)=\log p(\chi)-\sum_i\log S_i$.

# %%
basis = DCT()
variance = variances(basis, moments)
matched = Coordinates(basis, mean_image, Prior.matched(variance))
chi = basis.analysis(x0[:5] - mean_image) / variance.sqrt()
assert_close(chi, matched.analysis(x0[:5]))
assert_close(matched.synthesis(chi), x0[:5])

white = matched.law(law)  # the same Gaussian law, as the law of chi
assert_close(white.cov.diagonal(), torch.ones(D, dtype=torch.float64))
nearly_clean = Noise(1.0, 1e-4)
change = white.log_density(chi, nearly_clean) - law.log_density(x0[:5], nearly_clean)
assert_close(change, torch.full_like(change, matched.log_volume), rtol=1e-3, atol=1e-2)

# %% [markdown]
# ### Four ways to lose a picture
#
# One photograph, four forward processes. *Ordinary*: pixels, $S=1$, one $\gamma$ for all. *Matched*: cosine transform, whitened, one $\gamma$ for all; now the noise has the power spectrum of the data. *Columns*: pixels, and column after column. *Haar*: Haar wavelets in whitened coefficients, noised by level and column at once. For the last two we need a schedule with an order.
#
# :::{prf:definition} Linear soft conditioning
# :label: def-unified-soft
#
# Give every component a label $l_i$, *larger* for components that are noised earlier and so generated later. Let $\Sigma_i$ be the variance of the data in component $i$ of $\chi$, $a\ge0$, and $\gamma_c<\gamma_n$. The schedule is $\gamma_i(t)=(1-t)\,\gamma_i(0)+t\,\gamma_i(1)$ with
#
# $$
# \begin{split}
# \gamma_i(0)&=\log\Sigma_i+\gamma_c+a\,(l_i-\max l),\\
# \gamma_i(1)&=\log\Sigma_i+\gamma_n+a\,(l_i-\min l) .
# \end{split}
# $$ (eq-unified-soft)
#
# It is *capped* if each $\gamma_i$ is then clamped to $[\log\Sigma_i+\gamma_c,\ \log\Sigma_i+\gamma_n]$.
# :::
#
# The log signal-to-noise ratio of the noisy component, data included, is $\log\Sigma_i-\gamma_i$. It falls at one speed for all components, and component $i$ is $a\,l_i$ ahead. The last component to be generated ends at exactly $-\gamma_c$, the first one begins at exactly $-\gamma_n$, and the others go further. This is the schedule of the paper's public code, with its end points mended, as we will see. The code calls $1/a$ the softness. We call $a$ the inverse softness.

# %% tags=["hide-input"]
side = picture.shape[2:]
haar = Wavelet("haar", 3 if min(side) % 8 == 0 else 2)
picture_mean = picture_moments.mean.reshape(picture_moments.shape)
zeros = torch.zeros(picture_moments.shape, dtype=torch.float64)
columns = by_column(Pixel(), picture_moments.shape, "left to right")
both = 4.0 * by_level(haar, picture_moments.shape) + 0.5 * by_column(haar, picture_moments.shape, "left to right")
ENDS = {"clean": -9.0, "noisy": 5.0}


def coordinates(basis, whiten):
    """Coordinates of the pictures, with the prior matched to them or isotropic."""
    isotropic = Prior.isotropic(picture_moments.shape)
    prior = Prior.matched(variances(basis, picture_moments)) if whiten else isotropic
    return Coordinates(basis, picture_mean, prior)


processes = {
    "ordinary": (coordinates(Pixel(), False), soft(zeros, 0, **ENDS)),
    "matched": (coordinates(DCT(), True), soft(zeros, 0, **ENDS)),
    "columns": (
        coordinates(Pixel(), False),
        soft(columns, inverse_softness(columns, 0.25, **ENDS), **ENDS, capped=True),
    ),
    "Haar": (coordinates(haar, True), soft(both, 1.0, **ENDS, capped=True)),
}
eps = normal(*picture.shape)


def forward(name, t):
    """The picture at time t of one of the processes."""
    where, schedule = processes[name]
    return where.synthesis(schedule(t).add(where.analysis(picture), eps))


# %% mystnb={"figure": {"name": "fig-unified-forward", "caption": "One photograph under four forward processes, with the same noise $\\varepsilon$ in each row. *Ordinary*: white noise covers fine detail first, though the schedule treats all pixels alike. *Matched*: all frequencies lose their signal at the same time, and what is left looks like clouds. *Columns*: from right to left; read backwards, the image is generated from left to right. *Haar*: fine coefficients first, and within a level from right to left."}, "image": {"alt": "Four rows of six pictures of an eye. Row one becomes white noise evenly. Row two dissolves into soft cloudy noise. Row three is replaced by white noise from the right to the left. Row four loses its details from the right, then its coarse blocks.", "width": "100%", "classes": "dark-light"}} tags=["hide-input"]
times = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
rows = torch.cat([forward(name, t) for name in processes for t in times])
plot.image_grid(rows, columns=6, titles=[f"t = {t:g}" for t in times], rows=list(processes), limits=(-1.6, 1.6))

# %% mystnb={"figure": {"name": "fig-unified-forward-slider", "caption": "The same four processes, time by time."}} tags=["hide-input"]
frames, alts = [], []
ticks = [k / 10 for k in range(11)]
for t in ticks:
    fig, axes = plot.figure(2, 2, size=(5.0, 5.2))
    for axis, name in zip(axes.flat, processes, strict=True):
        plot.show(axis, forward(name, t)[0], (-1.6, 1.6))
        axis.set_axis_off()
        axis.set_title(name, fontsize=11)
    frames.append(fig)
    alts.append(f"The photograph under four forward processes at time {t:g}.")
plt.close("all")
frame_slider(frames, [f"t = {t:g}" for t in ticks], alts, label="Time")

# %% [markdown]
# ## Which knobs are independent?
#
# Three knobs, but not three freedoms. Write $z=W(x-m)$ for the coefficients without scale, $z=S\chi(0)$ for clean data, and look at the noisy component on *their* scale,
#
# $$
# \begin{split}
# y_i&=\frac{S_i}{\alpha_i}\,\chi_i(t)=z_i+\sqrt{v_i}\,\varepsilon_i,\\
# v_i&=S_i^2\,e^{\gamma_i} .
# \end{split}
# $$ (eq-unified-y)
#
# The prior and the schedule have merged into one number $v_i$, the variance of the noise on the scale of the data.
#
# :::{prf:theorem} Prior equivalence
# :label: thm-unified-prior
#
# Let two models share $W$ and $m$, and let their priors and curves be related by
#
# $$
# \gamma_i'=\gamma_i+\log\frac{S_i^2}{S_i'^2} .
# $$ (eq-unified-equivalence)
#
# (i) They have the same signal-to-noise ratios of noisy components, and $\chi'_i=c_i\chi_i$ with $c_i=\sigma_i'/\sigma_i$ maps the forward process of the first to that of the second, noise for noise. (ii) Their exact machines return the same image, $D_z'(c\,\chi)=D_z(\chi)$. (iii) Let both start from states with $\chi'=c\,\chi$ and take the same number of steps, with the same random numbers. With `ddim` and with ancestral steps of small variance (`ddpm`) or with the full or diagonal covariance of the reverse kernel they then end in the same image.
# :::
#
# :::{prf:proof}
# (i) {eq}`eq-unified-equivalence` says $v_i'=v_i$, hence $y'=y$ if both use the same $z$ and $\varepsilon$. The noisy component has signal-to-noise ratio $\Var(z_i)/v_i$. From $\sigma_i=\alpha_i\sqrt{v_i}/S_i$, $\chi_i'/\chi_i=(\alpha_i'/S_i')(S_i/\alpha_i)=\sigma_i'/\sigma_i$. (ii) Both know $y$, and the law of $(z,y)$ is the same. (iii) Write the steps in $y$, with $D_z$ the denoised $z$ and $v\to v_+$ the step. In $\chi$, `ddim` is $\chi_+=\alpha_+D+\sigma_+\hat\varepsilon$. Multiplied by $S/\alpha_+$, this is
#
# $$
# y_+=D_z+\sqrt{\frac{v_+}{v}}\,(y-D_z) .
# $$
#
# The bridge {eq}`eq-noise-ddpm` with $\rho^2=v_+/v$ becomes $y_+=D_z+\rho^2(y-D_z)+\sqrt{v_+(1-\rho^2)}\,\xi$, and the covariance of $z$ given $y$ adds $(1-\rho^2)_i\Cov_{ij}(1-\rho^2)_j$ to that of the last term. None of them contains $S$ or $\alpha$.
# :::
#
# The exact probability flow is covered, too, as the limit of small steps. So with exact machines the prior is not a degree of freedom besides the schedule. What is left for it to do? Four things, and each is an approximation or a convention:
#
# 1. *The start.* A sampler begins with $\chi\sim\N(0,I)$. On the scale $y$ this is $\N(0,\,S^2+v)$, the law of noisy data *if the clean data were the prior*. The smaller the remaining signal, the less it matters.
# 2. *Euler–Maruyama steps*, $\chi_+=\chi+\sigma^2\Delta\gamma\,(\frac12\chi+s)+\dots$, contain $\sigma^2$, not only $v$. They freeze the drift $-\frac12\chi$ together with the score, and what the drift is depends on the scale.
# 3. *Ancestral steps of large variance* add noise that would be right for components of unit variance.
# 4. *A network's input.* The numbers $\chi_i$ that it sees have variance $\alpha_i^2\Sigma_i+\sigma_i^2$. If matched, it is always 1.
#
# We test it with the cosine transform and one Gaussian. The steps are affine, so `exact_law` returns the law of the output without a sample. Three versions: *matched*, started from $\N(0,I)$; *isotropic*, with the curve of {eq}`eq-unified-equivalence` and the rescaled start $\N(0,c^2)$; and *isotropic* started from $\N(0,I)$. The divergence is from noisy data at the last level. It does not change when components are rescaled, so the three can be compared.

# %%
isotropic = Coordinates(basis, mean_image, Prior.isotropic(shape))
plain, labels = isotropic.law(law), by_variance(variance)
log_variance = variance.log()
start, shifted = soft(labels, 1.0)(0.7), soft(labels, 1.0, log_variance=log_variance)(0.7)
assert_close(gamma_of(shifted), gamma_of(start) + log_variance)
c = shifted.sigma / start.sigma
chi = start.add(matched.analysis(x0[:5]), normal(5, *shape))
assert_close(plain.denoise(c * chi, shifted), matched.prior.scale * white.denoise(chi, start))

# %% tags=["hide-input"]
STEPS = {"ddim": ddim, "ddpm": small, "large": large, "Euler": euler_maruyama}
CASES = [("ddim", 0.0), ("ddim", 1.0), ("ddpm", 0.0), ("Euler", 0.0)]
if profile == "quick":
    CASES = [(key, a) for a in (0.0, 1.0) for key in STEPS]


def scaled(variance):
    """The law of independent components with these variances."""
    return gaussian_law(torch.zeros(D, dtype=torch.float64), variance.flatten().diag(), shape)


def divergences(step, a):
    """KL from noisy data to the sampler's law: matched, isotropic from the rescaled start, and from N(0, I)."""
    one = walk(soft(labels, a), size["steps"])
    two = walk(soft(labels, a, log_variance=log_variance), size["steps"])
    rescaled = scaled((two[0].sigma / one[0].sigma) ** 2)
    runs = ((white, one, None), (plain, two, rescaled), (plain, two, None))
    return [gaussian_kl(noised_law(q, path[-1]), exact_law(q, path, step, begin)) for q, path, begin in runs]


kl = {(key, a): divergences(STEPS[key], a) for key, a in CASES}
for (key, a), values in kl.items():
    record(f"kl_{key}_{a:g}", values, rtol=1e-2)
    if key in ("ddim", "ddpm"):
        assert_close(values[0], values[1], rtol=1e-7, atol=1e-10)  # the theorem
begin = {}
for a in (0.0, 1.0):
    one, two = (soft(labels, a, log_variance=v)(1.0) for v in (None, log_variance))
    begin[a] = [gaussian_kl(noised_law(q, level), scaled(torch.ones(shape).double()))
                for q, level in ((white, one), (plain, two))]  # fmt: skip
    record(f"kl_start_{a:g}", begin[a], rtol=1e-2)
for k, key in enumerate(("matched", "rescaled", "white")):
    record(f"kl_ddim_0_{key}", kl["ddim", 0.0][k], rtol=1e-2)
    record(f"kl_Euler_0_{key}", kl["Euler", 0.0][k], rtol=1e-2)
record("kl_start_matched", begin[0.0][0])
record("kl_start_isotropic", begin[0.0][1])
lines = [
    "| steps | $a$ | matched | isotropic, rescaled start | isotropic, start $\\mathcal{N}(0,I)$ |",
    "|---" * 5 + "|",
]
for (key, a), values in kl.items():
    lines.append(f"| {key} | {a:g} | " + " | ".join(f"{value:.4f}" for value in values) + " |")
Markdown("\n".join(lines))

# %% [markdown]
# *Divergence in nats of the sampler's law, {glue:text}`steps` steps, cosine transform, $\gamma_c=-7$, $\gamma_n=3$.*
#
# For `ddim` and `ddpm` the first two columns agree to all digits that arithmetic holds, as they must. For the other two steps they do not. The large-variance step was made for components of unit variance, and Euler–Maruyama steps happen to do better here with the isotropic prior, if the start is rescaled with it. The last column is a matter of the start. With $a=0$ the isotropic prior is {glue:text}`kl_start_isotropic:.2f` nats off at $t=1$ before any step is made, the matched one {glue:text}`kl_start_matched:.3f`. A deterministic sampler carries most of this error to the end; a stochastic one forgets most of it. With $a=1$ both starts are nearly right. Note that a wrong start is sometimes *better*: its error and that of the steps can have opposite signs.
#
# ### What a basis cannot do
#
# The basis is no freedom of its own either, as long as all components are treated alike. If $\gamma_i$ and $S_i$ are the same for all $i$, the noise in pixels is $W^\top\varepsilon$, white in every orthonormal basis. The levels, the machine and the steps are then those of pixels, and a seed $\varepsilon$ in one basis and its rotation in another end in the same image.
#
# There is a second case in which little happens.
#
# :::{prf:proposition} Gaussian data in their own basis
# :label: prop-unified-pca
#
# Let the data be Gaussian and let $W$ diagonalise their covariance. Then under every component-wise noise $D_i$ depends on $\chi_i$ and $\gamma_i$ only, and the output of a step-by-step sampler that starts from independent components has independent components, the law of each of which depends on its own $\gamma_i$ at the steps only.
# :::
#
# :::{prf:proof}
# $C$, $A$ and $N$ are diagonal, so {eq}`eq-unified-gaussian` and the kernels are too.
# :::
#
# So for Gaussian data in the basis of principal components there is nothing to condition on. An order, soft or hard, changes the levels at which a component begins, steps and ends, and nothing else. To see components help each other one has to look at other bases, or at data that are not Gaussian.

# %%
pca = PCA.fit(law)
own, level = Coordinates(pca, mean_image, Prior.isotropic(shape)), at_gamma(3 * normal(1, *shape))
cov = posterior_cov(own.law(law), normal(1, *shape), level)[0]
assert_close(cov, cov.diagonal().diag(), rtol=0, atol=1e-9)

z, path = normal(4, *shape), [cosine(t) for t in (1.0, 0.8, 0.6, 0.4, 0.2, 0.1)]
in_pixels = sample(mixture, mean_image * path[0].alpha + basis.synthesis(z), path)
in_cosines = sample(isotropic.law(mixture), z, path)
assert_close(basis.synthesis(in_cosines) + path[-1].alpha * mean_image, in_pixels)

# %% [markdown]
# ## Orders
#
# What should the labels be? Anything that says who comes first. The library has a few. By *variance*, $l_i=-\log\Var(z_i)$: large variances first. By *frequency*. By *level* of a wavelet transform: coarse first. By *column* or row: reading order. Labels can be added: four times the level plus half the column is as good an order as any.

# %% mystnb={"figure": {"name": "fig-unified-orders", "caption": "Four orders, as maps of the labels over the coefficients of the pictures. Bright coefficients are noised earlier and generated later. Top: cosine transform, zero frequency at the top left; the variance of photographs falls with frequency, so the two orders are much alike. Bottom left: pixels by column. Bottom right: Haar wavelets, four times the level plus half the column, as packed by the transform."}, "image": {"alt": "Four square maps. Two brighten from the top left corner outwards, one from left to right, and one in nested quarters each of which brightens to the right.", "width": "85%"}} tags=["hide-input"]
maps = {
    "variance": by_variance(variances(DCT(), picture_moments)),
    "frequency": by_frequency(DCT(), picture_moments.shape),
    "column": columns,
    "level + column": both,
}
fig, axes = plot.figure(2, 2, size=(5.4, 5.0))
for axis, (name, label) in zip(axes.flat, maps.items(), strict=True):
    fig.colorbar(axis.imshow(label[0], cmap="viridis", interpolation="nearest"), ax=axis, fraction=0.046)
    axis.set_title(name, fontsize=11)
    axis.set_axis_off()
fig

# %% [markdown]
# Now let $a$ grow. Take unit variances, $\Sigma_i=1$, and put $G=\gamma_n-\gamma_c$ and $R=\max l-\min l$. All $\gamma_i$ have the slope $G+aR$. So a component needs the share
#
# $$
# w=\frac G{G+aR}
# $$ (eq-unified-share)
#
# of the run to go from $\gamma_c$ to $\gamma_n$, its *active window*, and the windows of neighbours in the order are shifted by $a$ times the difference of their labels, over $G+aR$. Two components are never active together once $a\,|l_i-l_j|\ge G$. On average over the run $wD$ of $D$ components are active.
#
# Two values of $a$ have a name. With labels by variance, $l_i=-\log\Var(z_i)$, and $S=1$, {eq}`eq-unified-soft` reads $\gamma_i=\text{const}+(a-1)\,l_i$. At $a=1$ all components have one $\gamma$: *ordinary diffusion*. At $a=0$ all have one signal-to-noise ratio. Ordinary diffusion is not neutral; it has the order of the spectrum built in. By {prf:ref}`thm-unified-prior` the same holds in whitened coordinates with $\Sigma_i=1$.

# %%
ordinary = gamma_of(soft(labels, 1.0, log_variance=log_variance)(0.3))
assert_close(ordinary, ordinary.mean().expand_as(ordinary))
equal = log_variance - gamma_of(soft(labels, 0.0, log_variance=log_variance)(0.3))
assert_close(equal, equal.mean().expand_as(equal))

reach = (labels.max() - labels.min()).item()
assert_close(active_share(labels, 2.0), 10 / (10 + 2 * reach))
moving = gamma_of(soft(labels, 2.0)(0.5))
assert_close(moving - gamma_of(soft(labels, 2.0)(0.4)), torch.full_like(moving, 0.1 * (10 + 2 * reach)))

# %% mystnb={"figure": {"name": "fig-unified-snr", "caption": "Log signal-to-noise ratio against time for nine coefficients of the cosine transform, from the largest variance (dark, generated first) to the smallest (bright), for five values of $a$. The dashed lines are $-\\gamma_c=7$ and $-\\gamma_n=-3$: between them a component is active, and its line is drawn solid. At $a=0$ all components share one line. As $a$ grows the lines separate, and fewer are active at a time."}} tags=["hide-input"]
ranked = labels.flatten().argsort()
members = ranked[torch.linspace(0, D - 1, 9).round().long()]
fine = torch.linspace(0, 1, 201, dtype=torch.float64)
softness = (0.0, 0.5, 1.0, 2.0, 10.0)
frames, alts, names, active = [], [], [], {}
for a in softness:
    schedule = soft(labels, a)
    snr = -torch.stack([gamma_of(schedule(t)).flatten()[members] for t in fine.tolist()])
    active[a] = active_share(labels, a)
    fig, axis = plot.figure(size=(5.6, 3.8))
    for k, color in enumerate(plt.cm.viridis(torch.linspace(0, 0.92, 9).numpy())):
        inside = (snr[:, k] <= 7) & (snr[:, k] >= -3)
        axis.plot(fine, snr[:, k], color=color, lw=1, alpha=0.5)
        axis.plot(fine[inside], snr[inside, k], color=color, lw=3)
    for value in (7, -3):
        axis.axhline(value, color="black", ls="--", lw=1)
    axis.set(xlabel="time t", ylabel="log signal-to-noise ratio", ylim=(-14, 18), xlim=(0, 1))
    axis.set_title(f"a = {a:g}, a component is active {100 * active[a]:.0f} % of the time", fontsize=11)
    frames.append(fig)
    names.append(f"a = {a:g}")
    alts.append(
        f"Nine falling parallel lines of log signal-to-noise ratio, active {100 * active[a]:.0f} % of the time."
    )
plt.close("all")
record("active", list(active.values()))
record("label_reach", reach)
frame_slider(frames, names, alts, label="Inverse softness")

# %% tags=["hide-input"]
lines = ["| $a$ | " + " | ".join(f"{a:g}" for a in softness) + " |", "|---" * 6 + "|"]
lines.append("| share of the run, $w$ | " + " | ".join(f"{100 * active[a]:.0f} %" for a in softness) + " |")
lines.append(f"| active of {D}, on average | " + " | ".join(f"{D * active[a]:.1f}" for a in softness) + " |")
Markdown("\n".join(lines))

# %% tags=["remove-cell"]
four = torch.tensor([100.0, 10.0, 1.0, 0.1], dtype=torch.float64)
theirs = soft(by_variance(four) + four.log(), 1.0)  # log variance folded into the labels
ours = soft(by_variance(four), 1.0, log_variance=four.log())
end = (gamma_of(theirs(1.0)) - four.log())[0]
start_of = (gamma_of(theirs(0.0)) - four.log())[0]
assert_close((gamma_of(ours(0.0)) - four.log())[0, -1].item(), -7.0)
assert_close((gamma_of(ours(1.0)) - four.log())[0, 0].item(), 3.0)
record("code_end", end[0].item())
record("code_start", start_of[-1].item())
record("code_snr", (-end[0]).exp().item())

# %% [markdown]
# One remark for those who use the paper's public code. As we read it (commit `1b44c50` of December 2025), its `variance_adjusted_schedule` announces {eq}`eq-unified-soft`, but folds $\log\Sigma_i$ into the labels before their extremes are taken. For variances $100, 10, 1, 0.1$ and $a=1$ the smallest component then ends at $\gamma-\log\Sigma=$ {glue:text}`code_start:.1f` in place of $-7$, and the largest begins at {glue:text}`code_end:.1f` in place of $3$, with a signal-to-noise ratio of {glue:text}`code_snr:.1f` left, while the sampler starts from white noise. We do not know whether the paper's own runs used this function.
#
# ## Neighbours
#
# Many methods fit in. Each is a choice of $W$, $S$ and a curve $\gamma(t)$. Where a method does not preserve the variance of components, read $\gamma_i=\log(\sigma_i^2/\alpha_i^2)$; by {prf:ref}`thm-noise-matched`, applied to each component, nothing else matters to the flow.
#
# | method | $W$ | curve |
# |---|---|---|
# | ordinary diffusion {cite:p}`ho2020ddpm,kingma2021vdm` | any | $\gamma_i=\gamma$: $a=1$ by variance |
# | equal SNR {cite:p}`falck2025` | Fourier | $\gamma_i-\log\Sigma_i$ the same for all: $a=0$ |
# | blurring diffusion {cite:p}`hoogeboom2023` | DCT | $\alpha_k=\alpha(t)\,d_k(t)$ with a blur $d_k$; one $\sigma$ |
# | inverse heat dissipation {cite:p}`rissanen2023` | DCT | $\alpha_k=e^{-\lambda_k\tau}$; small constant $\sigma$ |
# | cascades, wavelet score models {cite:p}`guth2022` | wavelets | one level after another, whitened, all of a level together |
# | rolling diffusion {cite:p}`ruhe2024` | frames | $\gamma_i=f(t-i\,\tau)$, a window that slides |
# | diffusion forcing {cite:p}`chen2024forcing` | tokens | trained on all of the cube, sampled on any curve |
# | learned noise {cite:p}`sahoo2024` | pixels | a curve learned from data, one per input |
#
# Two remarks on the rows. Inverse heat dissipation has no Gaussian end: the mean of an image is never lost, and its sampler starts from blurred training images. And the first row is what {cite:t}`dieleman2024` calls spectral autoregression: white noise hides the small variances first, and those of images are the high frequencies. {cite:t}`falck2025` report that removing this order does as well on images. In our words, $a=1$ and $a=0$ are two curves through the same space, and which is better is no matter of principle.
#
# A picture says it best. The components of a curve are many, so we look at two: on the left a low and a high frequency of the pictures, on the right an early and a late column.

# %% tags=["hide-input"]
picture_variance = variances(DCT(), picture_moments)
frequency = by_frequency(DCT(), picture_moments.shape)
picture_labels, bare = by_variance(picture_variance), picture_variance.log()
low, high = (0, 0, 2), (0, 0, 3 * picture_moments.shape[2] // 4)
first_column, last_column = (0, 5, side[1] // 8), (0, 5, side[1] // 2)
clock = torch.linspace(0.002, 0.998, 150, dtype=torch.float64).tolist()


def curve(schedule, one, two, log_variance):
    """Log signal-to-noise ratios of two components along a schedule: (n, 2)."""
    gammas = [gamma_of(schedule(t))[0] for t in clock]
    return torch.stack([torch.stack([log_variance[k] - g[k] for k in (one, two)]) for g in gammas])


octaves = torch.where(frequency > frequency[high] / 2, 1.0, 0.0)
by_frequencies = {
    "ordinary, a = 1": curve(soft(picture_labels, 1.0, log_variance=bare), low, high, bare),
    "equal SNR, a = 0": curve(soft(picture_labels, 0.0, log_variance=bare), low, high, bare),
    "soft, a = 4": curve(soft(picture_labels, 4.0, log_variance=bare), low, high, bare),
    "blurring": curve(blurring(frequency), low, high, bare),
    "inverse heat": curve(heat(frequency), low, high, bare),
    "cascade": curve(stairs(octaves, -8.0, 6.0), low, high, zeros),
}
wide = {"clean": -8.0, "noisy": 6.0, "capped": True}
by_columns = {
    "ordinary": curve(soft(columns, 0.0, **wide), first_column, last_column, zeros),
    "columns, w = 0.6": curve(
        soft(columns, inverse_softness(columns, 0.6, -8, 6), **wide), first_column, last_column, zeros
    ),
    "rolling, w = 0.4": curve(
        soft(columns, inverse_softness(columns, 0.4, -8, 6), **wide), first_column, last_column, zeros
    ),
    "autoregression": curve(stairs(columns, -8.0, 6.0), first_column, last_column, zeros),
}

# %% mystnb={"figure": {"name": "fig-unified-plane", "caption": "Methods as curves of the log signal-to-noise ratios of two noisy components. Data lie at the top right, noise at the bottom left; arrows point from noise to data. Left: a low frequency (2 half waves across the image) and a high one (24). Linear soft conditioning gives parallel lines of slope one, shifted by $a$. Blurring diffusion follows ordinary diffusion near the data and then loses the high frequency faster. Inverse heat dissipation has lost the high frequency long before the low one begins to fade. A cascade turns a corner: first the one, then the other. Right: two columns, $w$ being the share of the run in which a column is active. The smaller $w$, the closer to the corner of autoregression. The square stands for diffusion forcing, which is trained on all pairs of levels. The cascade is drawn for whitened components, the other lines on the left with the variances of the pictures."}, "image": {"alt": "Left panel: three parallel diagonal lines, a curve that bends over, a nearly vertical line, and a corner made of a horizontal and a vertical line. Right panel: a grey square with its diagonal, two bent lines below it, and a corner along the border.", "width": "100%"}} tags=["hide-input"]
fig, axes = plot.figure(1, 2, size=(6.6, 5.0), gridspec_kw={"wspace": 0.12})
axes[1].add_patch(plot.Rectangle((-6, -6), 14, 14, color="black", alpha=0.08, lw=0, label="diffusion forcing"))
for axis, lines in zip(axes, (by_frequencies, by_columns), strict=True):
    for (label, points), color, style in zip(lines.items(), plot.COLORS, [*plot.STYLES, "-", "--"], strict=False):
        axis.plot(points[:, 0], points[:, 1], style, color=color, lw=2, label=label)
        seen = ((points > -13) & (points < 17)).all(1).nonzero()[:, 0]
        k = int(seen[2 * len(seen) // 3])
        tip, tail = points[max(k - 4, 0)], points[k]
        axis.annotate("", tip, tail, arrowprops={"arrowstyle": "-|>", "color": color, "lw": 1.5})
    axis.set_aspect("equal")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), frameon=False, fontsize=10)
axes[0].set(xlabel="low frequency, log SNR", ylabel="high frequency, log SNR", xlim=(-14, 18), ylim=(-14, 18))
axes[1].set(xlabel="early column, log SNR", ylabel="late column, log SNR", xlim=(-7.5, 9.5), ylim=(-7.5, 9.5))
fig

# %% [markdown]
# Linear soft conditioning, in any basis and for any $a$, is a set of *parallel straight lines* here: only their offset is chosen. Blurring bends, and the cap bends the lines on the right. Nothing in the theory asks for straight lines. Which curve is best for a given number of steps is a question of {ref}`geometry <softness>`.
#
# ## The renormalisation group
#
# A forward process that loses small scales first, and a law that becomes simpler as it does: this is also what physicists do to a field theory. {cite:t}`gerdes2024gud` use the analogy as a motivation. Others have made it precise in several ways: {cite:t}`carosso2020` with a stochastic process, {cite:t}`cotler2023` with optimal transport, {cite:t}`masuki2025` with a diffusion model whose noise comes from a regulator. With component-wise noise the statement is short, and it is an identity.
#
# Let $k$ number the components, say plane waves, and let $z(t)=S\chi(t)$ be the noisy coefficients on the scale of the prior $\pi=\N(0,\diag S_k^2)$. Write their law as a Gaussian times an interaction,
#
# $$
# p_t(z)=\pi(z)\,e^{-V_t(z)} .
# $$ (eq-unified-interaction)
#
# To a physicist $\pi$ is the free field with propagator $S_k^2$. Nothing is assumed: $V_0=-\log(p_0/\pi)$ for any density $p_0$.
#
# :::{prf:theorem} Noising is a Wilson–Polchinski flow
# :label: thm-unified-polchinski
#
# Let $p_0$ be a density, $0<\alpha_k<1$, and let $\zeta_k\sim\N(0,(1-\alpha_k^2)S_k^2)$ be independent. (i)
#
# $$
# e^{-V_t(z)}=\E_\zeta\,e^{-V_0(\alpha z+\zeta)} .
# $$ (eq-unified-mehler)
#
# (ii) The rescaled field $\varphi=\alpha z$ has a density proportional to
#
# $$
# \begin{split}
# &\exp\Bigl(-\sum_k\frac{\varphi_k^2}{2C_k}-U_t(\varphi)\Bigr),\\
# &C_k=\alpha_k^2S_k^2,\qquad U_t(\varphi)=V_t(\varphi/\alpha),
# \end{split}
# $$ (eq-unified-effective)
#
# with $e^{-U_t(\varphi)}=\E_\zeta\,e^{-V_0(\varphi+\zeta)}$. (iii) While the $\alpha_k$ change smoothly,
#
# $$
# \frac{\partial U}{\partial t}=\frac12\sum_k\frac{dC_k}{dt}\Bigl[\Bigl(\frac{\partial U}{\partial\varphi_k}\Bigr)^2-\frac{\partial^2U}{\partial\varphi_k^2}\Bigr] .
# $$ (eq-unified-polchinski)
#
# (iv) The denoiser is the gradient of the effective interaction:
#
# $$
# D_k=\varphi_k-(S_k^2-C_k)\,\frac{\partial U_t}{\partial\varphi_k} .
# $$ (eq-unified-force)
# :::
#
# :::{prf:proof}
# (i) Started from $\pi$, the Ornstein–Uhlenbeck process stays in $\pi$, and $(z_k(0),z_k(t))$ is a normal pair with equal variances and correlation $\alpha_k$. Such a pair is symmetric, so the transition density $q$ satisfies $q(z\mid z_0)\,\pi(z_0)=q(z_0\mid z)\,\pi(z)$. Hence
#
# $$
# \begin{split}
# p_t(z)&=\int q(z\mid z_0)\,\pi(z_0)\,e^{-V_0(z_0)}\,dz_0\\
# &=\pi(z)\int q(z_0\mid z)\,e^{-V_0(z_0)}\,dz_0 ,
# \end{split}
# $$
#
# and $q(\cdot\mid z)$ is the law of $\alpha z+\zeta$. (ii) The density of $\varphi$ is proportional to $\pi(\varphi/\alpha)\,e^{-V_t(\varphi/\alpha)}$. (iii) By (ii) $e^{-U_t}$ is $e^{-V_0}$ convolved with a Gaussian of variances $S_k^2-C_k$. So it solves a heat equation,
#
# $$
# \partial_te^{-U}=-\frac12\sum_k\frac{dC_k}{dt}\,\partial_k^2e^{-U} ,
# $$
#
# and $\partial_k^2e^{-U}=[(\partial_kU)^2-\partial_k^2U]\,e^{-U}$, $\partial_te^{-U}=-e^{-U}\partial_tU$. (iv) The score of $p_t$ is $-z_k/S_k^2-\alpha_k\partial_kU$, and the noise of $z_k$ has variance $(1-\alpha_k^2)S_k^2=S_k^2-C_k$. Tweedie's formula gives $\alpha_kD_k=z_k+(S_k^2-C_k)(-z_k/S_k^2-\alpha_k\partial_kU)=\alpha_k^2z_k-\alpha_k(S_k^2-C_k)\,\partial_kU$.
# :::
#
# Now let $\alpha_k^2=K(k/\Lambda)$ with a cutoff $\Lambda$ that falls with $t$. Then $C_k=K(k/\Lambda)\,S_k^2$ is the propagator of a free field with a smooth cutoff, the chain rule turns $d/dt$ into $\Lambda\,d/d\Lambda$, and {eq}`eq-unified-polchinski` becomes the equation of {cite:t}`polchinski1984`. (He writes the weight as $e^{L}$, so $L=-U$, and the signs of the two terms in the bracket become equal.) $U$ is the interaction that the modes below the cutoff feel when those above have been averaged over, as in {cite:t}`wilson1974`.
#
# | diffusion | renormalisation group |
# |---|---|
# | prior variance $S_k^2$ | propagator of the free field |
# | signal left, $\alpha_k^2(t)$ | cutoff function $K(k/\Lambda)$, the {term}`regulator` |
# | time from 0 to 1 | cutoff from above all modes to below all |
# | rescaled noisy data $\alpha z$ | field below the cutoff |
# | $-\log(p_t/\pi)$ at $z$ | effective interaction $U$ at $\varphi=\alpha z$ |
# | $D$, what a network learns | force of the effective interaction, {eq}`eq-unified-force` |
# | generation | the flow undone, mode by mode |
# | one $\gamma$ for all | a cutoff that does not ask for $k$ |
#
# ### One mode
#
# Let $S=1$, and let $z$ have the double well $\frac14(z^2-2)^2$ for its $-\log p_0$, up to a constant. The interaction is what is left after the Gaussian part, $V_0=\frac14(z^2-2)^2-\frac12z^2$. One quadrature over $\zeta$ gives $U$. We check (i) against the forward process, and (iv) against the posterior mean.

# %%
nodes = torch.linspace(-9, 9, 601, dtype=torch.float64)
log_weights = (-(nodes**2) / 2).log_softmax(0)  # the rule of rectangles: for such integrands as good as any


def bare(z):
    return (z**2 - 2) ** 2 / 4 - z**2 / 2


def interaction(phi, K):
    """U where the share K of the propagator is left."""
    return -(log_weights - bare(phi[..., None] + (1 - K) ** 0.5 * nodes)).logsumexp(-1)


K, z = 0.4, torch.linspace(-2, 2, 41, dtype=torch.float64)
alpha, sigma = K**0.5, (1 - K) ** 0.5
z0 = torch.linspace(-6, 6, 2001, dtype=torch.float64)
joint = -((z[:, None] - alpha * z0) ** 2) / (2 * sigma**2) - z0**2 / 2 - bare(z0)
by_forward = -(joint.logsumexp(1) + z**2 / 2)  # V_t up to a constant, from p_t itself
by_mehler = interaction(alpha * z, K)
assert_close(by_mehler - by_mehler[20], by_forward - by_forward[20])

force = torch.func.vmap(torch.func.grad(lambda phi: interaction(phi, K)))(alpha * z)
assert_close(alpha * z - (1 - K) * force, joint.softmax(1) @ z0)

# %% [markdown]
# And the other way round: we integrate Polchinski's equation. With one mode $dC=dK$, so against $u=1-K$ it reads $\partial_uU=\frac12(U''-U'^2)$, from $U=V_0$ at $u=0$. We put $U$ on Chebyshev points in $[-2.5,2.5]$, where derivatives are matrices, and take classical Runge–Kutta steps. An equation on an interval needs values at its ends; we give it those of the quadrature.


# %%
def chebyshev(n, half):
    """Points cos(pi k / n) scaled to [-half, half], and the matrix that differentiates there."""
    k = torch.arange(n + 1, dtype=torch.float64)
    x = torch.cos(math.pi * k / n)
    c = torch.where((k == 0) | (k == n), 2.0, 1.0) * (-1.0) ** k
    off = (c[:, None] / c) / (x[:, None] - x + torch.eye(n + 1))
    return half * x, (off - off.sum(1).diag()) / half


points, derivative = chebyshev(40, 2.5)
second, count = derivative @ derivative, 4000
h, U = 1 / count, bare(points)
ends = interaction(points[[0, -1]], 1 - torch.arange(2 * count + 1)[:, None, None] * h / 2)


def slope_of(U, at):
    U = torch.cat([at[:1], U[1:-1], at[1:]])
    return (second @ U - (derivative @ U) ** 2) / 2


for step in range(count):
    here, middle, there = (ends[2 * step + j] for j in range(3))
    k1 = slope_of(U, here)
    k2 = slope_of(U + h / 2 * k1, middle)
    k3 = slope_of(U + h / 2 * k2, middle)
    U = U + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope_of(U + h * k3, there))
    U = torch.cat([there[:1], U[1:-1], there[1:]])
integrated = (U - interaction(points, 0.0)).abs().max().item()
record("polchinski_error", integrated, rtol=10.0)
assert integrated < 1e-8

# %% mystnb={"figure": {"name": "fig-unified-potential", "caption": "One mode with a double well. Left: $\\frac12\\varphi^2+U_t(\\varphi)$, the free part at $K=1$ plus the interaction, its least value put to zero, as the cutoff passes the mode and the share $K$ of its propagator falls from one. The barrier melts. Dots: Polchinski's equation, integrated from $K=1$ to $K=0$. Right: the interaction $V_t$ as a function of the noisy coefficient $z$ itself. It flattens to a constant: the law of $z$ becomes the prior."}, "image": {"alt": "Two panels with five curves each. Left, a double well whose barrier shrinks until a single wide well is left, with dots on the last curve. Right, a double well that flattens to a horizontal line.", "width": "100%"}} tags=["hide-input"]
fig, axes = plot.figure(1, 2, size=(6.4, 3.7))
phi = torch.linspace(-2.5, 2.5, 201, dtype=torch.float64)
for K, color, style in zip((1.0, 0.8, 0.5, 0.2, 0.0), plot.COLORS, [*plot.STYLES, "-"], strict=False):
    effective = phi**2 / 2 + interaction(phi, K)
    axes[0].plot(phi, effective - effective.min(), style, color=color, lw=1.8, label=f"K = {K:g}")
    left = interaction(K**0.5 * phi, K)
    axes[1].plot(phi, left - left[100], style, color=color, lw=1.8)
near = points.abs() < 2.2
dots = (points**2 / 2 + U)[near]
axes[0].plot(points[near], dots - dots.min(), "o", color="black", ms=3.5)
axes[0].set(xlabel="rescaled field φ", ylabel="free part + interaction", ylim=(-0.1, 3))
axes[1].set(xlabel="noisy coefficient z", ylabel="interaction", ylim=(-2.2, 2))
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=10)
fig

# %% [markdown]
# The integrated equation and the quadrature agree to {glue:text}`polchinski_error:.0e` at $K=0$. There $U$ has a name: up to a quadratic term it is *minus* the cumulant generating function of the data ({ref}`ex-unified-cumulants`).
#
# For more modes we check {eq}`eq-unified-polchinski` at points. Two coupled modes, with propagators 1 and $\frac12$, and the heat kernel's cutoff at frequencies 1 and 2, $K_k=e^{-k^2\tau}$. All derivatives are automatic.

# %%
propagator, waves = torch.tensor([1.0, 0.5], dtype=torch.float64), torch.tensor([1.0, 2.0], dtype=torch.float64)
coarse = nodes[::4]
pairs = torch.cartesian_prod(coarse, coarse)
log_pairs = (-pairs.square().sum(1) / 2).log_softmax(0)


def kept_propagator(tau):
    return (-(waves**2) * tau).exp() * propagator


def coupled(phi, tau):
    z = phi + (propagator - kept_propagator(tau)).sqrt() * pairs
    return -(log_pairs - (z.square().sum(1) - 2) ** 2 / 4 + 0.3 * z[:, 0] * z[:, 1] ** 2).logsumexp(0)


tau = torch.tensor(0.3, dtype=torch.float64)
for phi in 0.7 * normal(5, 2):
    rate = torch.func.grad(coupled, 1)(phi, tau)
    first_order = torch.func.grad(coupled)(phi, tau)
    second_order = torch.func.hessian(coupled)(phi, tau).diagonal()
    change = torch.func.jacfwd(kept_propagator)(tau)
    assert_close((change * (first_order**2 - second_order)).sum() / 2, rate, rtol=1e-8, atol=1e-10)

# %% [markdown]
# ### The regulator is the softness
#
# Which cutoff functions are in use? Two families, with a sharpness $p$, and $q=f_k/\Lambda$ the frequency in units of the cutoff.
#
# :::{prf:proposition} Regulators are schedules
# :label: prop-unified-regulator
#
# Let $\log\Lambda$ fall linearly in $t$, from $\log\Lambda_0$ to $\log\Lambda_1$, let all $f_k>0$, and $\alpha_k^2=K(f_k/\Lambda)$, variance preserving.
#
# (i) The rational regulator $K(q)=1/(1+q^{2p})$ is the linear soft conditioning of {prf:ref}`def-unified-soft` with labels $l_k=\log f_k$, inverse softness $a=2p$, $\Sigma_k=1$ and
#
# $$
# \begin{split}
# \gamma_c&=2p\log(\max f/\Lambda_0),\\
# \gamma_n&=2p\log(\min f/\Lambda_1),
# \end{split}
# $$
#
# provided that $\gamma_c<\gamma_n$. (ii) The exponential regulator $K(q)=e^{-q^2}$ has the $\alpha_k$ of a heat kernel, $e^{-(2\pi f_k)^2b^2/2}$, with a blur of $b=1/(2\pi\Lambda)$ pixels. (iii) As $p\to\infty$ either regulator $e^{-q^{2p}}$ or $1/(1+q^{2p})$ becomes sharp: frequencies below the cutoff are clean, those above are lost, and one shell of equal $f$ after another is noised.
# :::
#
# :::{prf:proof}
# (i) $\gamma_k=\log(1/K-1)=2p\,(\log f_k-\log\Lambda)$. This is linear in $t$ with one slope for all $k$, and at $t=0$ and $t=1$ it takes the values {eq}`eq-unified-soft`. (ii) $\alpha_k=e^{-f_k^2/(2\Lambda^2)}$. (iii) $q^{2p}$ tends to 0 for $q<1$ and to infinity for $q>1$.
# :::
#
# So the inverse softness of a model is the sharpness of its regulator: twice the $p$ of a rational one. Diffusion with a soft cutoff averages over modes little by little, all of them at different stages at the same time. Wilson's original construction, one thin shell after another, is autoregression in $|k|$, from fine to coarse; generation runs from coarse to fine. As far as we know (i) has not been stated before. One caution: it is about $\gamma$, the noise. How much is left to learn about a mode depends on the data's own variance there, and labels $\log f$ are as good as labels by variance only where the spectrum is a power law, $\Sigma_k\propto f_k^{-\eta}$: then $-\log\Sigma_k=\eta\log f_k$, and in whitened components a rational regulator with $2p=\eta$ is ordinary diffusion, $a=1$ by variance.

# %%
f = by_frequency(DCT(), (1, 8, 8))
f[0, 0, 0] = f[0, 0, 1] / 2  # a frequency zero has no logarithm
p, cutoffs = 1.5, (5.0, 0.005)
by_cutoff = regulator(f, cutoffs, "rational", p)
low_end, high_end = 2 * p * math.log(f.max() / cutoffs[0]), 2 * p * math.log(f.min() / cutoffs[1])
by_softness = soft(f.log(), 2 * p, clean=low_end, noisy=high_end)
blur = (0.5, 20.0)
by_heat = heat(f, smallest=blur[0], largest=blur[1])
by_exponential = regulator(f, tuple(1 / (2 * math.pi * b) for b in blur))
for t in (0.0, 0.3, 0.9):
    assert_close(gamma_of(by_cutoff(t)), gamma_of(by_softness(t)))
    assert_close(by_exponential(t).alpha, by_heat(t).alpha)
sharp = regulator(f, (1.0, 0.01), "rational", 2000.0)(0.5).alpha
assert_close(sharp, (f < 0.1)[None].double())

# %% mystnb={"figure": {"name": "fig-unified-regulators", "caption": "Signal left, $\\alpha_k^2=K(f_k/\\Lambda)$, against frequency in units of the cutoff. The sharper the regulator, the fewer frequencies are partly noised at one time. Rational regulators are linear soft conditioning with $a=2p$ and labels $\\log f$; the exponential one with $p=1$ is the heat kernel."}, "image": {"alt": "Five falling curves from one to zero against frequency over cutoff on a logarithmic axis; two gentle ones, two steeper ones, and a nearly vertical step, all passing near the cutoff.", "width": "85%"}} tags=["hide-input"]
q = torch.logspace(-1.5, 1.5, 301, dtype=torch.float64)
shapes = {
    "rational, p = 1/2 (a = 1)": ("rational", 0.5),
    "rational, p = 2 (a = 4)": ("rational", 2.0),
    "rational, p = 20 (a = 40)": ("rational", 20.0),
    "exponential, p = 1 (heat)": ("exponential", 1.0),
    "exponential, p = 3": ("exponential", 3.0),
}
signal = {name: regulator(q, (1.0, 0.1), form, p)(0.0).alpha[0] ** 2 for name, (form, p) in shapes.items()}
fig = plot.curves(q, signal, xlabel="frequency / cutoff", ylabel="signal left, α²")
fig.axes[0].lines[4].set(marker="o", markevery=20)
fig.axes[0].legend(frameon=False, fontsize=10)
fig

# %% [markdown]
# ### Downhill, mode by mode
#
# In the coefficients $z$ the Fokker–Planck equation of {eq}`eq-unified-ou` is
#
# $$
# \begin{split}
# \partial_tp&=\tfrac12\sum_k\beta_k\,\partial_k\bigl(z_kp+S_k^2\,\partial_kp\bigr)\\
# &=\tfrac12\sum_k\beta_kS_k^2\,\partial_k\bigl(p\,\partial_k\log(p/\pi)\bigr) .
# \end{split}
# $$ (eq-unified-descent)
#
# Multiply by $\log(p/\pi)=-V_t$ and integrate by parts. The divergence from the prior never rises:
#
# $$
# \frac d{dt}\mathrm{KL}(p_t\Vert\pi)=-\tfrac12\sum_k\beta_kS_k^2\,\E(\partial_kV_t)^2 .
# $$ (eq-unified-decay)
#
# More is true. {eq}`eq-unified-descent` is steepest descent of this divergence in a Wasserstein metric, which may change with $t$, in which mode $k$ has the mobility $\frac12\beta_kS_k^2$: the view of {cite:t}`cotler2023`. All variance-preserving schedules with the same prior go downhill on the same landscape. They differ in which coordinates may move when. For the double well, with $\beta=1$, so $K=e^{-\tau}$:

# %%
wide_z = torch.linspace(-7, 7, 1401, dtype=torch.float64)


def to_prior(tau):
    """KL(p_t || pi), with p_t from the interaction."""
    V = interaction((-tau / 2).exp() * wide_z, (-tau).exp())
    log_p = (-(wide_z**2) / 2 - V).log_softmax(0)
    return (log_p.exp() * (log_p - (-(wide_z**2) / 2).log_softmax(0))).sum()


alpha = (-tau / 2).exp()
pull = alpha * torch.func.vmap(torch.func.grad(lambda phi: interaction(phi, alpha**2)))(alpha * wide_z)
p_t = (-(wide_z**2) / 2 - interaction(alpha * wide_z, alpha**2)).softmax(0)
assert_close(torch.func.grad(to_prior)(tau), -(p_t * pull**2).sum() / 2)

# %% [markdown]
# (unified-reported)=
# ## What the paper reports, what we get
#
# The body of the paper was not available to us. We know its abstract and the beginning of its introduction, what its reviewers wrote about it, and its public code, which holds none of its experiments. So the column *reported* below is second-hand, and carries no digits.
#
# | reported by {cite:t}`gerdes2024gud` | ours |
# |---|---|
# | sketches of the components' signal-to-noise paths | {numref}`fig-unified-snr`, computed |
# | one photograph under four forward processes | {numref}`fig-unified-forward`, our reading of the four |
# | quality varies smoothly with $a$, near $a=1$ about optimal (CIFAR-10, principal components, one network) | {numref}`fig-unified-priors` for the sampler alone |
# | the two priors, isotropic and matched, rank differently under likelihood and FID | see below |
#
# The last row is curious. By {prf:ref}`thm-unified-prior` the two priors are *one* model if the machine is exact and the start is right. A difference can come from the start, from the steps, and from the network. We can measure the first two. The setting: digits, one Gaussian, principal components, schedule {eq}`eq-unified-soft` with labels by variance, `ddim`, and $\N(0,I)$ as the start in both. We take two measures of the output. The divergence counts all components alike, as a likelihood does. The Wasserstein-2 distance in pixels counts large variances more, as does the Fréchet distance behind FID, though in other features.

# %% tags=["hide-input"]
pca_variance = pca.lam.reshape(shape)
pca_labels, pca_log = by_variance(pca_variance), pca_variance.log()


def on_images(found, where, level):
    """The law of S chi / alpha: coefficients of images."""
    scale = (where.prior.scale / level.alpha[0]).flatten()
    return gaussian_law(scale * found.mean, scale[:, None] * found.cov * scale, shape)


def two_measures(prior, log_variance, a, n):
    """KL in nats and W2 per pixel from noisy data to the output of n steps from N(0, I)."""
    where = Coordinates(pca, mean_image, prior)
    path, clean_law = walk(soft(pca_labels, a, log_variance=log_variance), n), where.law(law)
    output, target = exact_law(clean_law, path, ddim), noised_law(clean_law, path[-1])
    distance = gaussian_w2(*(on_images(one, where, path[-1]) for one in (output, target)))
    return [gaussian_kl(target, output), distance / D**0.5]


PRIORS = {"matched": (Prior.matched(pca_variance), None), "isotropic": (Prior.isotropic(shape), pca_log)}
measured = {
    (name, n): torch.tensor([two_measures(*choice, a, n) for a in size["priors"]])
    for name, choice in PRIORS.items()
    for n in size["prior steps"]
}
one = size["priors"].index(1.0)
for (name, n), values in measured.items():
    record(f"prior_{name}_{n}", values.tolist(), rtol=1e-2)
record("prior_a", list(size["priors"]))
record("prior_steps", list(size["prior steps"]))
for name in PRIORS:
    kl_1, w2_1 = measured[name, size["prior steps"][0]][one].tolist()
    record(f"prior_{name}_kl", kl_1, rtol=1e-2)
    record(f"prior_{name}_w2", w2_1, rtol=1e-2)

# %% mystnb={"figure": {"name": "fig-unified-priors", "caption": "Error of a `ddim` sampler with exact scores, started from $\\mathcal N(0,I)$ with either prior, against $a$; digits, one Gaussian, principal components. Left: divergence in nats. Right: Wasserstein-2 distance per pixel. With 64 steps the isotropic prior has the smaller divergence from $a=0.8$ to 1.4 and the same at 1.6, with 256 between 1 and 1.4; it has the larger distance at every $a$. Had it been started from the right law, its curves would be those of the matched prior."}, "image": {"alt": "Two panels against a from 0.4 to 1.6, with curves for two priors and two numbers of steps. Left, on a logarithmic axis, the isotropic curves start far above and fall below the matched ones, which rise slowly. Right, the isotropic curves lie above the matched ones throughout.", "width": "100%"}} tags=["hide-input"]
fig, axes = plot.figure(1, 2, size=(6.6, 3.9))
looks = zip(plot.COLORS, [*plot.STYLES, "-"], "osD^", strict=False)
for ((name, n), values), (color, style, mark) in zip(measured.items(), looks, strict=False):
    for axis, found in zip(axes, values.T, strict=True):
        axis.plot(size["priors"], found, style, color=color, marker=mark, ms=4, label=f"{name}, {n} steps")
axes[0].set(xlabel="inverse softness a", ylabel="divergence, nats", yscale="log")
axes[1].set(xlabel="inverse softness a", ylabel="W2 per pixel", ylim=(0, None))
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=10)
fig

# %% [markdown]
# At $a=1$ and the smaller number of steps the divergence is {glue:text}`prior_matched_kl:.3f` for the matched prior and {glue:text}`prior_isotropic_kl:.3f` for the isotropic one; the distance is {glue:text}`prior_matched_w2:.4f` and {glue:text}`prior_isotropic_w2:.4f`. The first measure prefers one prior, the second the other. The reason is simple. `ddim` shrinks all components. The isotropic start has too much variance in the many small components, which makes up for that, and too little in the few large ones, which makes it worse. So a ranking that depends on the measure is *consistent with* exact scores and a wrong start. It does not show that this is what happened in the paper, where a network was in the loop.
#
# And the smooth dependence on $a$? With the matched prior, or the right start, the error of the sampler rises with $a$ from the beginning. With the isotropic prior started from $\N(0,I)$ there is a minimum in between. Where it lies depends on the measure and on the number of steps ({numref}`fig-unified-priors`). Neither needs a network. How the number of steps prices $a$ is worked out in {ref}`the next chapter <softness>`.
#
# ### On full data sets
#
# The same notebook runs on MNIST ($28\times28$) and CIFAR-10 (grey, $32\times32$), with fewer steps. {ref}`reproducing` gives every count.
#
# The table repeats what digits have shown. The two columns that {prf:ref}`thm-unified-prior` makes equal are equal, for `ddim` and for `ddpm`, and for Euler–Maruyama they are not. With so few steps the divergences are large. At $a=0$ the isotropic start is wrong by far more than any sampler is, as the last row of each set says: `ddim` carries most of that to the end, `ddpm` hardly any. At $a=1$, ordinary diffusion, the two starts make little difference.

# %% tags=["hide-input", "paper-results"]
TITLES = {"mnist": "MNIST", "cifar10": "CIFAR-10, grey"}
results = {key: found for key, found in paper("11_unified").items() if key in TITLES}
results = {key: results[key] for key in TITLES if key in results}


def paper_table():
    """Rows: data, steps and a; columns: the three versions, and what is wrong with both starts."""
    lines = [
        "| data | steps | $a$ | matched | isotropic, rescaled | isotropic, $\\mathcal{N}(0,I)$ |",
        "|---" * 6 + "|",
    ]
    for name, r in results.items():
        for key, a in (("ddim", 0), ("ddim", 1), ("ddpm", 0), ("Euler", 0)):
            cells = " | ".join(f"{value:.3g}" for value in r[f"kl_{key}_{a}"])
            lines.append(f"| {TITLES[name]} | {key}, {r['steps']} | {a} | {cells} |")
        cells = " | ".join(f"{r['kl_start_0'][k]:.3g}" for k in (0, 1))
        lines.append(f"| {TITLES[name]} | start alone | 0 | {cells.split(' | ')[0]} | | {cells.split(' | ')[1]} |")
    return "\n".join(lines)


Markdown(paper_table()) if results else None

# %% mystnb={"figure": {"name": "fig-unified-paper-columns", "caption": "Paper profile: mean squared error by column over 128 images of each kind, MNIST at 28 and CIFAR-10 in grey at 32 pixels a side, machines fitted on all training images; left half nearly clean, right half nearly noise, as in the same figure for digits. Upper panels: training images. Lower panels: held-out images. Grey: the spread of the images. The kernel density has stored the training images, and is the worst of the three on new ones. The mixture is the best on new images of MNIST; for photographs it is no better than one Gaussian."}, "image": {"alt": "Panels of mean squared error against the column, for each data set on training and on held-out images; near zero on the left half and larger on the right half, except for the kernel density on training images, which stays near zero.", "width": "100%"}} tags=["hide-input", "paper-results"]
fig = None
if results:
    fig, axes = plot.figure(2, len(results), size=(6.4, 6.0), squeeze=False, sharey="col")
    for pair, (name, r) in zip(axes.T, results.items(), strict=True):
        for axis, key in zip(pair, ("training", "held_out"), strict=True):
            axis.plot(r[f"spread_{key}"], color="grey", lw=3, alpha=0.6, label="spread")
            for m, color, style in zip(
                ("Gaussian", "mixture", "kernel density"), plot.COLORS, plot.STYLES, strict=False
            ):
                axis.plot(r[f"column_{m.replace(' ', '_')}_{key}"], style, color=color, lw=1.8, label=m)
            axis.set_title(f"{TITLES[name]}, {key.replace('_', ' ')}", fontsize=11)
            axis.set(xlabel="column", ylim=(0, None))
    for axis in axes[:, 0]:
        axis.set_ylabel("mean squared error")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=10)
fig

# %% mystnb={"figure": {"name": "fig-unified-paper-forward", "caption": "Paper profile: an image of CIFAR-10 under the four forward processes, rows as in the figure for the photograph."}, "image": {"alt": "Four rows of six pictures of a bird. Row one becomes white noise evenly, row two dissolves into soft clouds, row three is replaced by noise from the right, row four loses details from the right and then coarse blocks.", "width": "100%", "classes": "dark-light"}} tags=["hide-input", "paper-results"]
stored = book_root() / "results" / "paper" / "11_unified" / "cifar10" / "fig-unified-forward.png"
Image(filename=str(stored)) if stored.is_file() else None

# %% [markdown]
# ## Exercises
#
# :::{exercise} What the white start believes
# :label: ex-unified-start
#
# Show that $\chi\sim\N(0,I)$ at $t=1$ is the law of noisy data for clean data $\N(m,W^\top S^2W)$. For Gaussian data with variances $\lambda_i$ in their principal components, compute the divergence of noisy data from this start, with prior $S$ and level $\gamma$. For which $S$ is it zero? Verify with $S=1$.
# :::

# %% [markdown]
# :::{solution-start} ex-unified-start
# :class: dropdown
# :::
#
# If $z\sim\N(0,S^2)$ then $\chi(0)\sim\N(0,1)$, and the process preserves this law. In general $\chi_i$ is normal with variance $r_i=\alpha_i^2\lambda_i/S_i^2+\sigma_i^2=1+\alpha_i^2(\lambda_i/S_i^2-1)$, and the divergence is $\frac12\sum_i(r_i-1-\log r_i)$. It vanishes for $S_i^2=\lambda_i$ at every level: a matched prior in the right basis makes even a short run start exactly.

# %%
level = soft(pca_labels, 0.5, log_variance=pca_log)(1.0)
r = 1 + level.alpha**2 * (pca_variance - 1)
own_law = Coordinates(pca, mean_image, Prior.isotropic(shape)).law(law)
found = gaussian_kl(noised_law(own_law, level), scaled(torch.ones(shape).double()))
assert_close(found, ((r - 1 - r.log()).sum() / 2).item(), rtol=1e-6, atol=1e-9)

# %% [markdown]
# :::{solution-end}
# :::

# %% [markdown]
# :::{exercise} How many at a time
# :label: ex-unified-active
#
# Labels are equally spaced, $l_i=i\,\delta$ for $i=0,\dots,n-1$, and $\Sigma_i=1$. How many components are active at a time, away from the ends of the run? From which $a$ on is it at most one? Compare with {eq}`eq-unified-share`, and explain the difference.
# :::

# %% [markdown]
# :::{solution-start} ex-unified-active
# :class: dropdown
# :::
#
# Component $i$ is active while $\gamma_i=\text{const}(t)+a\,i\,\delta$ lies in an interval of length $G$. So about $G/(a\delta)$ of them are, and at most one once $a\delta\ge G$. The average over the run is $nw=nG/(G+a(n-1)\delta)$. As long as $a\delta<G$ it is smaller than $G/(a\delta)$, since at both ends of the run fewer are active.

# %%
n, delta, a = 200, 0.1, 5.0
row = torch.arange(n) * delta
schedule = soft(row, a)
gammas = torch.cat([gamma_of(schedule((k + 0.5) / 1000)) for k in range(1000)])
counts = ((gammas > -7) & (gammas < 3)).double().sum(1)
assert abs(counts[500].item() - 10 / (a * delta)) <= 1
assert_close(counts.mean().item(), n * active_share(row, a), rtol=0.01, atol=0.0)

# %% [markdown]
# :::{solution-end}
# :::

# %% [markdown]
# :::{exercise} Half a digit
# :label: ex-unified-half
#
# A machine that conditions also classifies. Put the right half of held-out digits at $\alpha=0$ and the left half at $\sigma=0$. How often is the most probable class of the mixture the right one? And with the whole image?
# :::

# %% [markdown]
# :::{solution-start} ex-unified-half
# :class: dropdown
# :::
#
# The class weights of {eq}`eq-unified-mixture` at such a level are the posterior probabilities given the left half. Nothing has to be fitted again.

# %%
gamma_half = torch.where(torch.arange(shape[2]) < shape[2] // 2, -math.inf, math.inf).double()
halves = at_gamma(gamma_half.expand(1, *shape).clone())
truth = test.labels[:360]
held = new[:360]
scores = {
    "half": mixture.log_responsibilities(halves.add(held, torch.zeros_like(held)), halves),
    "whole": mixture.log_responsibilities(held, Noise(1.0, 0.0)),
}
accuracy = {key: (found.argmax(1) == truth).double().mean().item() for key, found in scores.items()}
for key, value in accuracy.items():
    record(f"accuracy_{key}", 100 * value, rtol=0.05)
assert 0.2 < accuracy["half"] < accuracy["whole"]

# %% [markdown]
# With the left half {glue:text}`accuracy_half:.0f` % are right, with the whole image {glue:text}`accuracy_whole:.0f` %.
#
# :::{solution-end}
# :::

# %% [markdown]
# :::{exercise} The end of the flow
# :label: ex-unified-cumulants
#
# Let $K\to0$ for all modes. Show that $\frac12\sum_k\varphi_k^2/S_k^2-U(\varphi)$ is the cumulant generating function of the data at $\varphi_k/S_k^2$, $\log\E\exp\sum_kz_k\varphi_k/S_k^2$, up to a constant. Verify for the double well. (What does this say about Gaussian data?)
# :::

# %% [markdown]
# :::{solution-start} ex-unified-cumulants
# :class: dropdown
# :::
#
# At $K=0$ $\zeta$ has the law $\pi$, so $e^{-U(\varphi)}=\int\pi(z-\varphi)\,e^{-V_0(z)}\,dz$. With $\pi(z-\varphi)=\pi(z)\exp\sum_k(z_k\varphi_k-\frac12\varphi_k^2)/S_k^2$ and $\pi e^{-V_0}=p_0$, take logarithms. So the effective interaction at the end of the flow holds all cumulants of the data: nothing is lost from $U$, although the law of the noisy data has become the prior. For Gaussian data $U$ is quadratic.

# %%
phi = torch.linspace(-1.5, 1.5, 31, dtype=torch.float64)
log_p0 = (-(z0**2) / 2 - bare(z0)).log_softmax(0)
generating = (log_p0 + z0 * phi[:, None]).logsumexp(1)
by_flow = phi**2 / 2 - interaction(phi, 0.0)
assert_close(by_flow - by_flow[15], generating - generating[15])

# %% [markdown]
# :::{solution-end}
# :::

# %% [markdown]
# :::{exercise} Large steps and their prior
# :label: ex-unified-large
#
# Take one component of Gaussian data with variance $\lambda$ and prior $S$. Compute the variance after one step of large variance from the noisy law at $\gamma$ to that at $\gamma'$, on the scale of $\chi$. For which $S$ is it exact?
# :::

# %% [markdown]
# :::{solution-start} ex-unified-large
# :class: dropdown
# :::
#
# Let $\Sigma=\lambda/S^2$, $c=1-e^{\gamma'-\gamma}$. The step is $\chi'=m\chi+\sqrt c\,\sigma\,\xi$, where $m\chi$ is the mean of the true reverse kernel. The true variance of $\chi'$ given $\chi$ is $c\sigma'^2+(c\alpha')^2\Var$, with $\Var=\Sigma\sigma^2/(\alpha^2\Sigma+\sigma^2)$. For $\Sigma=1$ it is $c(\sigma'^2+c\,\alpha'^2\sigma^2)$. As $c\,\alpha'^2\sigma^2=\alpha'^2\sigma^2-\alpha^2\sigma'^2=\sigma^2-\sigma'^2$, this is $c\sigma^2$: the step is exact for $S^2=\lambda$. For other $\Sigma$ it adds too much by $c^2\alpha'^2\sigma^4(1-\Sigma)/(\alpha^2\Sigma+\sigma^2)$, so that the variance after it is $\alpha'^2\Sigma+\sigma'^2$ plus this. It is exact only for $S^2=\lambda$.

# %%
now, nxt = (at_gamma(torch.full((1, 1), g, dtype=torch.float64)) for g in (1.0, -0.5))
for S2, exact in ((0.5, True), (1.0, False)):
    unit = gaussian_law(torch.zeros(1).double(), torch.tensor([[0.5 / S2]]).double(), (1,))
    after = exact_law(unit, [now, nxt], large, noised_law(unit, now))
    assert torch.allclose(after.cov, noised_law(unit, nxt).cov) == exact

# %% [markdown]
# :::{solution-end}
# :::
#
# :::{admonition} Limits and open questions
# The machines of this chapter are exact for Gaussians, mixtures and kernel densities. What a schedule or a prior does to a *network* that has to learn the score is another question, and the one that the paper is about. {prf:ref}`thm-unified-prior` says where to look: a prior can help a network only through its inputs and its loss, the start, or the steps.
#
# Only linear coordinates were considered, and noise that is independent in them. Schedules that depend on the image, and matrix-valued ones, are outside.
#
# {prf:ref}`thm-unified-polchinski` is an identity about marginal laws. It does not say that a cutoff in frequency is a good idea for images, nor that a fixed point exists. Renormalisation in the full sense rescales space after each step, so that a critical system reproduces itself. Our flow leaves the frequencies where they are.
#
# The comparison of priors uses one Gaussian and one step rule. With other numbers of steps, other steps or other measures the order of the two can change, which is the point.
# :::
