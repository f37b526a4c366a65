# ---
# jupyter:
#   jupytext: {text_representation: {extension: .py, format_name: percent}}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   scorebook:
#     goals:
#       - go from diffusion to autoregression with one number, and prove that the end of the road is exact ancestral sampling
#       - show that the map from noise to images goes from Brenier's to that of Knothe and Rosenblatt
#       - prove that the likelihood of an exact model cannot depend on softness, order or basis, and say what can
#       - predict from a metric how many steps a schedule needs, find the shortest schedule, and price autoregression
#       - compare diffusion with autoregression by blocks at equal numbers of steps
#       - condition on parts of an image, and extend images by columns, with exact error laws
#       - read off a small network what it costs not to know the noising state
#     minutes: 120
#     needs: [mixtures, unified]
#     paper: [mnist, cifar10]
# ---

# %% [markdown]
# (softness)=
# # Soft conditioning
#
# A diffusion model makes all parts of an image at once, little by little. An autoregressive model makes them one after another, each at a stroke, given those before. {cite:t}`gerdes2024gud` point out that both are diffusion with component-wise noise, and that a dial turns the one into the other. Between the two, a component is made while the earlier ones are partly done: {term}`soft conditioning`. What does the dial change? Here the machines are exact, so we can say what it *must* change, what it *cannot* change, and what it costs.
#
# :::{admonition} In this chapter
# You will prove that one end of the dial is exact ancestral sampling and that the flow map turns with it from one classical transport map to another. You will prove that the likelihood does not depend on the dial at all. What does is the number of steps. A metric on the space of noise levels predicts it, and prices autoregression. You will check all this on digits, in four bases, with no network. Then you will condition, extend images, and look at networks.
#
# It takes about two hours. It needs {ref}`mixtures <mixtures>` and {ref}`component-wise noise <unified>`.
# :::

# %% tags=["parameters"]
profile = "quick"
seed = 0
data = ["digits"]

# %% tags=["hide-input"]
import math
from itertools import pairwise

import torch
from IPython.display import Markdown
from torch.testing import assert_close

from scorebook import paper, record, record_data
from scorebook.files import book_root
from scorebook.slider import frame_slider
from scoremachines import (
    Mixture,
    Moments,
    Noise,
    ddim,
    ddpm,
    heun,
    plot,
    sample,
    trajectory,
)
from scoremachines import data as datasets
from scoremachines.ancestral import diagonal, full, large
from scoremachines.bases import DCT, PCA, Pixel, Wavelet
from scoremachines.coordinates import Coordinates, Prior, gaussian_law
from scoremachines.extension import (
    block_kl,
    complete,
    conveyor_kl,
    conveyor_levels,
    equal_blocks,
    extend,
    extended_law,
    extension_kl,
    frozen,
)
from scoremachines.geometry import (
    component_information,
    energy,
    error_matrix,
    gap,
    geodesic,
    information,
    length,
    metric,
)
from scoremachines.likelihood import bits_per_dim, elbo, exact_law, flow_log_density, noised_law
from scoremachines.networks import Network
from scoremachines.orders import by_column, by_variance
from scoremachines.paths import active_share, at_gamma, gamma_of, inverse_softness, soft, stairs, walk
from scoremachines.photos import photographs
from scoremachines.smoothed import KernelDensity
from scoremachines.teleport import gaussian_kl, gaussian_w2
from scoremachines.train import draws

PLANS = {
    "quick": {
        "softness": (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0, 8.0, 16.0),
        "steps": (64,),
        "draws": 600,  # samples of the mixture
    },
    "paper": {
        "softness": (0.0, 0.5, 1.0, 2.0),
        "steps": (32,),
        "draws": 300,
    },
}
plan, name = PLANS[profile], data[0]
if profile == "quick":
    torch.set_num_threads(1)  # the matrices are small: threads would only wait for each other
rng = torch.Generator().manual_seed(seed)


def normal(*shape):
    """Standard normal numbers in float64 from the chapter's generator."""
    return torch.randn(shape, generator=rng, dtype=torch.float64)


def load(split):
    """The images of this run by name; those of CIFAR-10 in grey, and smaller in colour."""
    if name == "cifar10":
        return {"grey": datasets.load(name, split, channels=1), "colour": datasets.load(name, split, size=16)}
    return {name: datasets.load(name, split)}


sets = load("all" if name == "digits" else "train")
recorded = set()


def note(images):
    """Record a data set; the same images in another size or in grey are recorded once."""
    if (images.name, images.split) not in recorded:
        record_data(images)
        recorded.add((images.name, images.split))


for images in sets.values():
    note(images)

# %% [markdown]
# ## The dial
#
# Recall {prf:ref}`def-unified-soft`. Write the data in coordinates $\chi=S^{-1}W(x-m)$ in which every component has unit variance, and let $\gamma_i=\log(\sigma_i^2/\alpha_i^2)$. Give every component a label $l_i$: larger labels are to be generated later. The {term}`soft-conditioning schedule <soft conditioning>` of {cite:t}`gerdes2024gud` moves all components with one speed, and shifts them against each other by their labels:
#
# $$
# \begin{split}
# \gamma_i(t)&=(1-t)\,\gamma_i(0)+t\,\gamma_i(1),\\
# \gamma_i(0)&=\gamma_c+a\,(l_i-\max l),\\
# \gamma_i(1)&=\gamma_n+a\,(l_i-\min l).
# \end{split}
# $$ (eq-soft)
#
# The last component ends at $\gamma_c$ (clean), the first begins at $\gamma_n$ (noisy), and all others end cleaner and begin noisier. The number $a\ge0$ is the {term}`inverse softness`. At $a=0$ all components have one signal-to-noise ratio. If the label is $-\log$ of the variance that a component has in the data, $a=1$ is ordinary diffusion: in the data's own units the noise is then the same for all. Larger $a$ makes the order stricter.


# %%
def gamma(labels, a, t, clean=-7.0, noisy=3.0):
    start = clean + a * (labels - labels.max())
    end = noisy + a * (labels - labels.min())
    return (1 - t) * start + t * end


labels = 3 * normal(8)
for t in (0.0, 0.3, 1.0):
    assert_close(gamma(labels, 1.7, t)[None], gamma_of(soft(labels, 1.7)(t)))

# %% [markdown]
# A component that is cleaner than $\gamma_c$ or noisier than $\gamma_n$ has little left to do. One may stop it there: the *capped* schedule is $\gamma_i(t)$ clipped to $[\gamma_c,\gamma_n]$. We use it wherever schedules with different $a$ are compared, so that all of them begin and end at the same noise. (Capped, $a=1$ has the order of ordinary diffusion, not its ends.)
#
# :::{prf:proposition} When components move together
# :label: prop-soft-window
#
# Let $G=\gamma_n-\gamma_c$ and $R=\max l-\min l$. In the capped schedule component $i$ moves during the share $w=G/(G+aR)$ of the time, from $t=(1-w)(\max l-l_i)/R$ on. Two components move together at some time if and only if $a\,|l_i-l_j|<G$. With labels at equal distance $\delta$, about $G/(a\delta)$ components move at a time, and none together if $a\ge G/\delta$.
# :::
#
# :::{prf:proof}
# The common slope of {eq}`eq-soft` is $G+aR$. So component $i$ is at $\gamma_c$ when $t(G+aR)=a(\max l-l_i)$, and at $\gamma_n$ a time $G/(G+aR)$ later. Insert $aR=(G+aR)(1-w)$. Windows of equal length overlap if and only if their starts differ by less than the length, $a|l_i-l_j|<G$. In units of the label a window is $G/a$ long.
# :::
#
# So components move strictly one after another from a finite $a$ on. That is ancestral sampling only nearly: what is finished keeps the noise of $\gamma_c$, and what is to come a trace of signal at $\gamma_n$. The theorem below takes the ends to infinity.

# %% mystnb={"figure": {"name": "fig-softness-clocks", "caption": "The dial: log signal-to-noise ratio of eight columns of an image, labels $0$ to $7$, in capped schedules from $\\gamma_n=4$ (dark) to $\\gamma_c=-7$ (bright). Time runs from noise, $t=1$, to data, $t=0$. At $a=0$ all columns clear up together; at $a=11$ one has finished before the next one begins."}, "image": {"alt": "Four panels with time from left to right and eight columns from top to bottom. In the first all rows turn from dark to bright together. In the second and third the rows turn one after another, overlapping. In the last each row turns while the others stay dark or bright, a staircase.", "width": "100%"}} tags=["hide-input"]
columns = torch.arange(8.0).double()
fig, axes = plot.figure(2, 2, size=(5.4, 4.4), sharex=True, sharey=True)
for axis, a in zip(axes.flat, (0.0, 1.0, 4.0, 11.0), strict=True):
    times = torch.linspace(1, 0, 400)
    snr = -torch.cat([gamma_of(soft(columns, a, -7, 4, capped=True)(t)) for t in times.tolist()])
    drawn = axis.imshow(snr.T, aspect="auto", cmap="viridis", extent=(1, 0, 8.5, 0.5), interpolation="nearest")
    axis.set_title(f"a = {a:g}: {active_share(columns, a, -7, 4):.0%} of the time", fontsize=10)
for axis in axes[1]:
    axis.set_xlabel("time $t$")
for axis in axes[:, 0]:
    axis.set_ylabel("column")
fig.colorbar(drawn, ax=axes, label=r"$-\gamma$ (nats)", shrink=0.8)
fig

# %% [markdown]
# ### What it looks like
#
# To see the dial at work we need data with more than one mode. Take one Gaussian for each class of images, 0.9 times the covariance of the class plus a little white noise to keep it regular. This {ref}`mixture <mixtures>` has an exact denoiser under component-wise noise. The labels are the columns, from left to right.


# %%
def class_mixture(x, labels):
    """One Gaussian for each class: 0.9 of its covariance, 0.1 of its mean variance, and 0.001, in every direction."""
    parts, shape = [Moments.of(x[labels == c]) for c in range(10)], x.shape[1:]
    eye = torch.eye(len(parts[0].mean)).double()
    covs = [0.9 * m.cov + (0.1 * m.cov.trace() / len(eye) + 1e-3) * eye for m in parts]
    weights = torch.tensor([m.count for m in parts]).double() / len(x)
    return Mixture(weights, tuple(gaussian_law(m.mean, cov, shape) for m, cov in zip(parts, covs, strict=True)))


def total(mixture):
    """Mean (*shape) and variances (*shape) of a mixture."""
    means = torch.stack([c.mean for c in mixture.components])
    mean = mixture.weights @ means
    within = torch.stack([c.cov.diagonal() for c in mixture.components])
    return mean.reshape(mixture.shape), (mixture.weights @ (within + (means - mean) ** 2)).reshape(mixture.shape)


def classes(split):
    """The images whose classes we mix: digits, and MNIST at 14 pixels in its own run."""
    return datasets.load(name, split, size=14) if name == "mnist" else datasets.load("digits", split)


seen = classes("train")
note(seen)
blend = class_mixture(seen.x0.double(), seen.labels)
pixels = Coordinates(Pixel(), total(blend)[0], Prior.matched(total(blend)[1]))
chi_blend = pixels.law(blend)
side, D = blend.shape[-1], blend.shape.numel()
left_to_right = by_column(Pixel(), blend.shape, "left to right")

# %% [markdown]
# The slider below shows eight samples from the same starting noise with three settings of the dial. Above: the state. Below: what the machine expects of the finished image.

# %% mystnb={"figure": {"name": "fig-softness-samples", "caption": "Digits by three settings of the dial, from one starting noise. Upper row of each pair: the state $\\chi$, in the data's units; lower row: the denoised image. At $a=0$ the whole image clears up at once. At $a=11$ a column is finished before the next one begins, and the denoised image shows what the machine expects to the right of it."}} tags=["hide-input"]
start = normal(8, *blend.shape)
walks = {}
for a in (0.0, 2.0, 11.0):
    path = walk(soft(left_to_right, a, -7, 4, capped=True), 40)
    walks[a] = list(trajectory(chi_blend, start, path, ddpm, torch.Generator().manual_seed(seed)))
frames, names, alts = [], [], []
for k in range(0, 41, 4):
    rows = [pixels.synthesis(part) for a in walks for part in (walks[a][k].x, walks[a][k].x0)]
    titles = [f"{kind}\na = {a:g}" for a in walks for kind in ("state", "expected")]
    frames.append(plot.image_grid(torch.cat(rows), columns=8, rows=titles))
    names.append(f"t = {1 - k / 40:.2f}")
    alts.append(
        f"Six rows of eight small images at time {1 - k / 40:.2f}: states and expected images for a = 0, 2, 11."
    )
frame_slider(frames, names, alts, label="Time")

# %% [markdown]
# ## The autoregressive end is exact ancestral sampling
#
# What is a diffusion model that finishes one component before it begins the next? The finished ones are known, $\gamma=-\infty$. Those to come are pure noise, $\gamma=\infty$, and say nothing.
#
# :::{prf:theorem} The autoregressive end
# :label: thm-softness-ar
#
# Order the components $1,\dots,D$ and let component $i$ move alone from $\gamma=\infty$ to $\gamma=-\infty$, while $\gamma_j=-\infty$ for $j<i$ and $\gamma_j=\infty$ for $j>i$. Then
#
# 1. the law of the state is $p(\chi_{<i})\;p_\gamma(\chi_i\mid\chi_{<i})\,\prod_{j>i}\N(\chi_j;0,1)$, where $p_\gamma(\,\cdot\mid\chi_{<i})$ is the conditional law of the data, noised to $\gamma$;
# 2. the score of the moving component is $\partial_i\log p_\gamma(\chi_i\mid\chi_{<i})$, so the reverse process draws $\chi_1$, then $\chi_2$ given $\chi_1$, and so on: ancestral sampling from the law of the data, without error;
# 3. for Gaussian data with a regular covariance one step of the exact kernel for each component suffices, and the map from the noise that it uses to the sample is $z\mapsto\mu+Lz$ with the Cholesky factor $L$ of the covariance, $\Sigma=LL^\top$ with $L$ lower triangular in the order of generation.
# :::
#
# :::{prf:proof}
# Components at $\gamma=-\infty$ are the data's own, and components at $\gamma=\infty$ are independent noise. That is 1. The other factors do not contain $\chi_i$, so the logarithmic derivative along $\chi_i$ is that of the middle factor. The moving component therefore obeys the reverse equation of a one-dimensional diffusion whose data have the law $p(\chi_i\mid\chi_{<i})$. It starts from $\N(0,1)$, which is its law at $\gamma=\infty$. A reverse process started from the right law ends in the right law. By induction over $i$ this is 2. For 3, the kernel from $\gamma_i=\infty$ to $-\infty$ is $\N(\E[\chi_i\mid\chi_{<i}],\Var[\chi_i\mid\chi_{<i}])$. So $\chi_i=\E[\chi_i\mid\chi_{<i}]+\Var[\chi_i\mid\chi_{<i}]^{1/2}z_i$. The conditional mean is affine in $\chi_{<i}$, hence in $z_{<i}$: the whole map is affine and lower triangular with a positive diagonal. Its linear part $L$ has $LL^\top=\Sigma$, and the Cholesky factor is the only such matrix.
# :::
#
# `stairs` is this schedule, with infinite ends by default. The library's Gaussian machine takes $\sigma_i=0$ for an exact condition, so the theorem can be tried as it stands.

# %%
small = gaussian_law(torch.zeros(5), (lambda A: A @ A.T / 5 + 0.1 * torch.eye(5))(normal(5, 5)), (5,))
one_by_one = walk(stairs(torch.arange(5)), 5)  # five steps, each from pure noise to clean
assert_close(exact_law(small, one_by_one, full).cov, small.cov, atol=1e-12, rtol=0)
again = torch.Generator().manual_seed(1)
z = torch.stack([torch.randn(3, 5, generator=again, dtype=torch.float64)[:, k] for k in range(5)], 1)
sampled = sample(small, normal(3, 5), one_by_one, full, torch.Generator().manual_seed(1))
assert_close(sampled, z @ torch.linalg.cholesky(small.cov).T)  # step k draws for all components and uses the k-th

# %% [markdown]
# Ordinary diffusion takes infinitely many steps to be exact, and this takes $D$. For one component at a time nothing has to be assumed about the others, so nothing has to be done slowly. The price is paid elsewhere: each step needs the machine anew, and there are as many steps as components. We come back to the bill.
#
# ## From Brenier to Knothe and Rosenblatt
#
# Now replace the draws by the {term}`probability flow`. For Gaussian data and an exact solution it is an affine map from noise to data, $\chi(1)\mapsto\mu+F\chi(1)$, if it starts at $\gamma=\infty$ and ends at $\gamma=-\infty$. It carries $\N(0,I)$ to $\N(\mu,\Sigma)$, so
#
# $$
# \begin{split}
# FF^\top&=\Sigma,\\
# F&=\Sigma^{1/2}Q,
# \end{split}
# $$ (eq-softness-map)
#
# with an orthogonal $Q$ that depends on the path. The law of the samples does not know about $Q$; which noise becomes which image does.
#
# :::{prf:proposition} The ends of the dial are two classical maps
# :label: prop-softness-maps
#
# 1. If all components share one $\gamma$, then $F=\Sigma^{1/2}$, the symmetric root: $F$ is the optimal transport map from $\N(0,I)$ to $\N(0,\Sigma)$ for the squared distance, Brenier's map.
# 2. If the components move one at a time, $F$ is the Cholesky factor in the order of generation: the map of Knothe and Rosenblatt, which sends the first coordinate to its marginal law, the second to its law given the first, and so on.
# :::
#
# :::{prf:proof}
# 1 is the exact flow of {ref}`the Gaussian machine <gaussian-machine>` from $\sigma/\alpha=\infty$ to $0$: in the direction of $u_k$ it multiplies by $\sqrt{\lambda_k}$. A linear map with a symmetric positive semidefinite matrix is the gradient of a convex function, which makes it optimal {cite:p}`brenier1991`. 2: while component $i$ moves, the flow changes $\chi_i$ only. By {prf:ref}`thm-softness-ar` it is the flow of a one-dimensional diffusion with data law $\N(\E[\chi_i\mid\chi_{<i}],\Var[\chi_i\mid\chi_{<i}])$, which carries $z_i$ to the mean plus the deviation times $z_i$. From here on the proof is that of the theorem.
# :::
#
# For other laws the second statement remains true, with the increasing map from $\N(0,1)$ to each conditional law, since in one dimension a flow preserves the order of points. The first does not: the flow of a law that is not Gaussian is in general no optimal map {cite:p}`lavenant2022`. Interpolations from one map to the other are known in transport theory, by costs that weigh the coordinates more and more unequally {cite:p}`carlier2010`. The dial is another one.

# %%
spread = torch.tensor([3.0, 1.0, 0.5, 0.1]).double()
turn = torch.linalg.qr(normal(4, 4)).Q
four = gaussian_law(torch.zeros(4), turn @ torch.diag(spread) @ turn.T, (4,))
brenier = turn @ torch.diag(spread.sqrt()) @ turn.T
knothe = torch.linalg.cholesky(four.cov)


def flow_map(law, path):
    """The matrix of the probability flow, from the images of the unit vectors under Heun's rule."""
    eye = torch.eye(len(law.mean)).double()
    return sample(law, eye, path, heun).T


def gap_to(target, F):
    return (torch.linalg.norm(F - target) / torch.linalg.norm(target)).item()


softnesses = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 28.0)
maps = {a: flow_map(four, walk(soft(torch.arange(4), a, -14, 14, capped=True), 800)) for a in softnesses}
assert_close(maps[0.0], brenier, atol=2e-4, rtol=0)
assert_close(maps[28.0], knothe, atol=2e-3, rtol=0)
for F in maps.values():
    assert_close(F @ F.T, four.cov, atol=5e-3, rtol=0)
cost = {a: ((F - torch.eye(4)) ** 2).sum().item() for a, F in maps.items()}  # E |F z - z|^2
record("map_brenier", [gap_to(brenier, F) for F in maps.values()])
record("map_knothe", [gap_to(knothe, F) for F in maps.values()])
record("map_cost", list(cost.values()))

# %% mystnb={"figure": {"name": "fig-softness-maps", "caption": "The flow map of a Gaussian in four dimensions by inverse softness, labels $0$ to $3$. Left: relative distance (Frobenius) to the symmetric root, which is Brenier's map, and to the Cholesky factor, the map of Knothe and Rosenblatt. Right: mean squared distance that noise travels, with the cost of the optimal map and of the triangular one. $FF^\\top=\\Sigma$ throughout."}, "image": {"alt": "Two panels against the inverse softness. Left: one curve rises from zero and levels off, the other falls to nearly zero; they cross near a = 2. Right: a curve rises from the lower of two dotted lines to the upper one.", "width": "100%"}} tags=["hide-input"]
fig, axes = plot.figure(1, 2, size=(6.4, 3.0))
for target, label, style in ((brenier, "to Brenier's", "o-"), (knothe, "to Knothe–Rosenblatt", "s--")):
    axes[0].plot(list(maps), [gap_to(target, F) for F in maps.values()], style, lw=1.8, label=label)
axes[0].set(xlabel="inverse softness $a$", ylabel="relative distance", xscale="symlog")
axes[0].legend(frameon=False, fontsize=9)
axes[1].plot(list(cost), list(cost.values()), "o-", lw=1.8)
for F in (brenier, knothe):
    axes[1].axhline(((F - torch.eye(4)) ** 2).sum().item(), color="black", ls=":", lw=1.2)
axes[1].set(xlabel="inverse softness $a$", ylabel=r"$E\|Fz-z\|^2$", xscale="symlog")
fig

# %% [markdown]
# ## What the dial cannot change
#
# The paper compares likelihoods of networks across $a$ and finds differences. What would an exact machine show? Think of the noisy component as a measurement of the clean one, $e^{-\gamma_i/2}\chi_i(0)+\varepsilon_i$, with signal-to-noise ratio $e^{-\gamma_i}$. Let $I(\gamma)$ be the mutual information between $\chi(0)$ and all the measurements, and
#
# $$
# \begin{split}
# K(\chi)&=\Cov[\varepsilon\mid\chi],\\
# m_i(\gamma)&=\E K_{ii}=\E(\varepsilon_i-\hat\varepsilon_i)^2 .
# \end{split}
# $$ (eq-softness-K)
#
# $K$ is also the posterior covariance of the data, measured in units of the noise: $K_{ij}=e^{-(\gamma_i+\gamma_j)/2}\Cov[\chi_i(0),\chi_j(0)\mid\chi]$.
#
# :::{prf:theorem} Information does not depend on the path
# :label: thm-softness-path
#
# $\partial I/\partial\gamma_i=-\tfrac12m_i(\gamma)$. So on every path from a level $\gamma^1$ to a level $\gamma^0$
#
# $$
# -\frac12\int\sum_im_i\,d\gamma_i=I(\gamma^0)-I(\gamma^1).
# $$ (eq-softness-path)
#
# The left side is the loss of an exact denoiser, the continuous-time part of its likelihood bound. It depends on the two ends of the path, and on nothing in between. So it is for every single image: $-\tfrac12\E[(\varepsilon_i-\hat\varepsilon_i)^2\mid\chi(0)]$ is a derivative, too, that of the divergence of the law of $\chi$ given $\chi(0)$ from the law of $\chi$.
# :::
#
# :::{prf:proof}
# Two independent measurements of the same quantity with ratios $s$ and $\delta$ are worth one with ratio $s+\delta$: their weighted mean is sufficient. So raising the ratio of component $i$ by $\delta$ is to add a measurement $y'=\sqrt\delta\,\chi_i(0)+\varepsilon'$. By the chain rule it adds the information $I(\chi_i(0);y'\mid\chi)$. For weak measurements this is $\tfrac12\delta$ times the variance of what is measured, up to $o(\delta)$, so $\partial I/\partial(e^{-\gamma_i})=\tfrac12\E\Var[\chi_i(0)\mid\chi]$. Multiply by $\partial e^{-\gamma_i}/\partial\gamma_i=-e^{-\gamma_i}$. The rest is the integral of a gradient. (For one image: the divergence in question is $\E[\log p(\chi\mid\chi(0))-\log p(\chi)\mid\chi(0)]$, and its derivative follows from the heat equation that $p$ obeys in each component; the mean over images is $I$. With one common ratio this is the relation of {cite:t}`guo2005`.)
# :::
#
# For a Gaussian $I=\tfrac12\log\det(1+A\Sigma A/\sigma^2)$. We take digits in four bases, whitened, and three paths each: all components together, a soft order by variance, and one after another in a random order.

# %%
BASES = {"pixel": lambda m: Pixel(), "PCA": PCA.fit, "DCT": lambda m: DCT(), "Haar": lambda m: Wavelet("haar")}
FLOOR = 1e-3  # variance added in every direction, so that no pixel is certain


def whitened(x0):
    """For each basis: the Gaussian of the images in whitened coordinates, the coordinates, and -log variance."""
    m, found = Moments.of(x0.double()), {}
    law = gaussian_law(m.mean, m.cov + FLOOR * torch.eye(len(m.mean)), m.shape)
    for key, basis in BASES.items():
        plain = Coordinates(basis(m), m.mean.reshape(m.shape), Prior.isotropic(m.shape)).law(law)
        variance = plain.cov.diagonal().reshape(m.shape)
        coordinates = Coordinates(basis(m), m.mean.reshape(m.shape), Prior.matched(variance))
        found[key] = coordinates.law(law), coordinates, by_variance(variance)
    return found


CLEAN_END, NOISY_END = -7.0, 4.0
worlds = {key: whitened(images.x0) for key, images in sets.items()}
world = next(iter(worlds.values()))


def capped(labels, a):
    return soft(labels, a, CLEAN_END, NOISY_END, capped=True)


# %%
def hand_made_information(law, level):
    scaled = (level.alpha / level.sigma).flatten()
    return torch.linalg.slogdet(torch.eye(len(law.mean)) + scaled[:, None] * law.cov * scaled)[1].item() / 2


for key, (law, _, labels) in (world if name == "digits" else {}).items():
    ends = [at_gamma(torch.full((1, *law.shape), g).double()) for g in (NOISY_END, CLEAN_END)]
    gained = hand_made_information(law, ends[1]) - hand_made_information(law, ends[0])
    assert_close(information(law, ends[1]) - information(law, ends[0]), gained, rtol=1e-10, atol=0)
    order = torch.randperm(labels.numel(), generator=rng).double().reshape(labels.shape)
    together = capped(labels, 0.0)
    paths = [
        walk(together, 40),
        walk(capped(labels, 2.0), 200),
        walk(stairs(order, CLEAN_END, NOISY_END), labels.numel()),
    ]
    for path in paths:
        assert_close(component_information(law, path).sum().item(), gained, rtol=1e-8, atol=0)
    record(f"information_{key}", gained)

# %% [markdown]
# Three paths and one number, to eight digits: {glue:text}`information_pixel:.1f` nats in the whitened pixels of digits, {glue:text}`information_PCA:.1f` in principal components. (The bases differ because the ends do: the same $\gamma$ in whitened coordinates is another noise in the data.) For images of another law than the machine's see {ref}`ex-softness-mismatch`.
#
# The probability flow gives a likelihood, too. Along it the density changes by minus the divergence of the velocity $-\tfrac12\sigma_i^2(\chi_i+s_i)\,d\gamma_i$. By {term}`Tweedie's formula`, once more differentiated, $\partial_is_i=-(1-K_{ii})/\sigma_i^2$. So
#
# $$
# d\log p=\tfrac12\sum_i\bigl(K_{ii}-\alpha_i^2\bigr)\,d\gamma_i .
# $$ (eq-softness-flow-density)
#
# `flow_log_density` integrates this from an image to noise. For an exact machine it must give the density of the data at the end, on every path.

# %%
end = at_gamma(torch.full((1, 4), -5.0).double())
chi = end.add(sample(four, normal(6, 4), walk(stairs(torch.zeros(4)), 1), full, rng), normal(6, 4))
density = torch.distributions.MultivariateNormal(torch.zeros(4).double(), noised_law(four, end).cov).log_prob(chi)
for a in (0.0, 2.0, 19.0):
    path = walk(soft(torch.arange(4), a, -5, 14, capped=True), 400)
    assert_close(flow_log_density(four, chi, path), density, atol=2e-3, rtol=0)

# %% [markdown]
# How large are such likelihoods? As an anchor, here is the likelihood of the Gaussian machine. The images are made continuous: uniform noise as wide as a grey level is added to each value. In bits for each of the $D$ values ({glue:text}`anchor_train_digits:.2f` for the digits that the Gaussian was fitted to, {glue:text}`anchor_test_digits:.2f` for new ones; of 17 grey levels) such numbers for the larger sets can be held against what networks reach.


# %%
def anchor(split, fitted, width):
    """Mean bits per dimension of images with noise as wide as a grey level, under a Gaussian machine."""
    nats = []
    for part in split.x0.split(2000):
        part = part + width * (torch.rand(part.shape, generator=rng, dtype=torch.float64) - 0.5)
        nats.append(-fitted.log_density(part, Noise(1.0, 1e-6)))
    return bits_per_dim(torch.cat(nats), split.x0[0].numel(), width).mean().item()


width = 1 / 8 if name == "digits" else 2 / 255
train, test = (datasets.load(name, split) for split in ("train", "test"))
note(test)
m = Moments.of(train.x0.double())
fitted = gaussian_law(m.mean, m.cov + width**2 / 12 * torch.eye(len(m.mean)), m.shape)
record(f"anchor_train_{name}", anchor(train, fitted, width))
record(f"anchor_test_{name}", anchor(test, fitted, width))

# %% [markdown]
# So what can make a likelihood depend on the dial? Three things only. The *network*, which is not exact, and whose errors may add up to more on one path than on another. The *ends*: a path that starts where signal is left, or stops at different noise. And the *steps*, if they are few. A curve of likelihood against $a$ shows their sum. The rest of this chapter takes them apart, steps first.
#
# ## What steps cost
#
# Let a sampler take $N$ steps with `ddpm`, whose draws are independent in every component, and whose variance is the least: that of a step to a known $\chi(0)$. In whitened coordinates that is not the law of the reverse process, and the difference is a divergence.
#
# :::{prf:proposition} The gap of a discrete path
# :label: prop-softness-gap
#
# The Kullback–Leibler divergence from the law of the whole reversed path of the data to that of the sampler with the exact denoiser is, apart from the start,
#
# $$
# \begin{split}
# \mathrm{gap}={}&\tfrac12\sum_n\sum_i\bigl(e^{\gamma_i^{n}-\gamma_i^{n+1}}-1\bigr)m_i(\gamma^{n})\\
# &-\bigl[I(\gamma^{N})-I(\gamma^{0})\bigr],
# \end{split}
# $$ (eq-softness-gap)
#
# with the levels numbered in the direction of generation, from noise $\gamma^{0}$ to data $\gamma^{N}$. It is what the evidence lower bound of $N$ steps lacks to the bound of infinitely many.
# :::
#
# :::{prf:proof}
# Given $\chi(0)$ the true step from $\gamma$ to $\gamma'$ is Gaussian with variance $c\sigma'^2$ in each component, $c=1-e^{\gamma'-\gamma}$, as in `ddpm`. The means differ by $\alpha'c(\chi(0)-D)$. The divergence is half the squared difference over the variance, $\tfrac12(e^{-\gamma'}-e^{-\gamma})(\chi_i(0)-D_i)^2$ in each component, which has the mean $\tfrac12(e^{\gamma_i-\gamma_i'}-1)m_i$. The sampler, though, should be compared with the step *not* given $\chi(0)$. The mean divergence from a conditional law exceeds that from the mixture of the conditional laws by the mutual information $I(\chi(0);\chi'\mid\chi)$. As $\chi(0)\to\chi'\to\chi$ is a Markov chain, this is $I(\gamma')-I(\gamma)$. Sum over the steps.
# :::
#
# For many small steps only second order remains.
#
# :::{prf:theorem} A metric for schedules
# :label: thm-softness-metric
#
# Let
#
# $$
# \begin{split}
# G_{ij}(\gamma)&=\E\bigl[K_{ij}^2\bigr]\\
# &=\delta_{ij}m_i+\frac{\partial m_i}{\partial\gamma_j}.
# \end{split}
# $$ (eq-softness-metric)
#
# A smooth path $\gamma(t)$ walked in $N$ equal steps of $t$ has $N\,\mathrm{gap}\to\tfrac14\int_0^1\dot\gamma^\top G\dot\gamma\,dt\ge\tfrac14L^2$, with $L=\int\sqrt{\dot\gamma^\top G\dot\gamma}\,dt$ the length of the path in the metric $G$. There is equality if and only if the speed in the metric is constant.
# :::
#
# :::{prf:proof}
# Let $\delta=\gamma-\gamma'$ in one step. Expand {eq}`eq-softness-gap`: the first sum gives $\tfrac12\sum_i(\delta_i+\tfrac12\delta_i^2)m_i$, and the information gained is $\tfrac12\sum_i\delta_im_i-\tfrac14\sum_{ij}\delta_i\delta_j\,\partial m_i/\partial\gamma_j$ by {prf:ref}`thm-softness-path`. The difference is $\tfrac14\delta^\top G\delta$ with the second form of $G$. For the first, compare the two kernels directly. To leading order both are Gaussian with the same mean, and in units of the sampler's noise the true covariance is $1+\diag(\delta)^{1/2}K\diag(\delta)^{1/2}$. The divergence of $\N(0,1+B)$ from $\N(0,1)$ is $\tfrac14\tr B^2$ to leading order, here $\tfrac14\sum_{ij}\delta_i\delta_jK_{ij}^2$; take the mean. (The two forms agree for all $\gamma$: this is the second derivative of mutual information found by {cite:t}`payaro2009`.) With $\delta=\dot\gamma/N$ the sum of $N$ such terms is a Riemann sum. The inequality is that of Cauchy and Schwarz.
# :::
#
# The two parts of $G$ have a plain meaning. The diagonal is the price of coarse steps in each component by itself. An element $K_{ij}$ off the diagonal says that what is not yet known of $i$ and $j$ hangs together; moving both at once, with independent draws, costs $\E K_{ij}^2$. That is the price of generating in parallel, and it is what an order is meant to avoid.

# %%
pair = gaussian_law(torch.zeros(2), torch.tensor([[1.0, 0.9], [0.9, 1.0]]), (2,))
level = at_gamma(torch.tensor([[0.3, -0.8]]).double())
a, s = level.alpha[0], level.sigma[0]
K = torch.eye(2) - s[:, None] * torch.linalg.inv(a[:, None] * pair.cov * a + torch.diag(s**2)) * s  # for Gaussian data
assert_close(K**2, metric(pair, level))


def m(gamma):
    return error_matrix(pair, torch.zeros(1, 2).double(), at_gamma(gamma[None]))[0].diagonal()


slope = torch.autograd.functional.jacobian(m, torch.tensor([0.3, -0.8]).double())
assert_close(K**2, torch.diag(m(torch.tensor([0.3, -0.8]).double())) + slope)

law, _, labels = world["DCT"] if name == "digits" else (pair, None, torch.arange(2))
predicted = energy(law, walk(capped(labels, 1.0), 400)) / 4
ladder = {n: n * gap(law, walk(capped(labels, 1.0), n)) for n in (8, 32, 128, 512)}
record("gap_predicted", predicted)
for n, value in ladder.items():
    record(f"gap_{n}", value)

# %% [markdown]
# For digits in the DCT basis with $a=1$, $N$ times the gap is {glue:text}`gap_8:.0f` nats at $N=8$, and {glue:text}`gap_32:.0f`, {glue:text}`gap_128:.0f`, {glue:text}`gap_512:.0f` at 32, 128 and 512. The theorem predicts {glue:text}`gap_predicted:.0f`.
#
# The evidence lower bound of $N$ steps is the sum of these parts: the divergence at the start, the information gained, the gap, and the cost of decoding what is left at the end. `elbo` estimates it for any machine, with one noisy draw for each step. Here is the estimate against the sum, in four dimensions.

# %%
clean = sample(four, normal(20000, 4), walk(stairs(torch.zeros(4)), 1), full, rng)
for a in (0.0, 2.0):
    path = walk(soft(torch.arange(4), a, CLEAN_END, NOISY_END, capped=True), 16)
    bound = elbo(four, clean, path, rng)
    gained = information(four, path[-1]) - information(four, path[0])
    parts = bound.prior.mean() + gained + gap(four, path) + bound.reconstruction.mean()
    error = bound.diffusion.std() / len(clean) ** 0.5
    assert abs(bound.nats.mean() - parts) < 4 * error, (bound.nats.mean(), parts, error)

# %% [markdown]
# ### The shortest schedule
#
# If steps are what costs, the best schedule is a {term}`geodesic`. In two dimensions it can be drawn. Let two components of unit variance have the correlation $\rho$.

# %%
begin, finish = (at_gamma(torch.tensor([[g, g]]).double()) for g in (4.0, -6.0))


def two(rho, s=1.0):
    """Two components with deviations 1 and s."""
    return gaussian_law(torch.zeros(2), torch.tensor([[1.0, rho * s], [rho * s, s**2]]), (2,))


both = {f"$\\rho$ = {r}": two(r) for r in (0.0, 0.5, 0.9, 0.99)} | {"0.9, unequal": two(0.9, 0.2)}
order = torch.arange(2)
routes = {
    "together": walk(soft(torch.zeros(2), 0.0, -6, 4), 200),
    "soft, $w=0.6$": walk(soft(order, inverse_softness(order, 0.6, -6, 4), -6, 4, capped=True), 200),
    "one by one": walk(stairs(order, -6.0, 4.0), 200),
}
costs, shortest = {}, {}
for key, law in both.items():
    shortest[key] = geodesic(law, begin, finish, 64)
    costs[key] = {kind: length(law, path) ** 2 / 4 for kind, path in (routes | {"geodesic": shortest[key]}).items()}
    assert costs[key]["geodesic"] <= min(costs[key].values()) + 1e-9
    record(f"route_{len(costs)}", list(costs[key].values()))
lines = ["| | " + " | ".join(costs["0.9, unequal"]) + " |", "|---" * 5 + "|"]
lines += [f"| {key} | " + " | ".join(f"{v:.1f}" for v in row.values()) + " |" for key, row in costs.items()]
Markdown("\n".join(lines))

# %% mystnb={"figure": {"name": "fig-softness-geodesics", "caption": "Schedules for two components with correlation 0.9 as curves in the plane of their $\\gamma$, from noise (upper right) to data (lower left). The second component has a fifth of the first one's deviation. Ellipses: steps of equal cost; where they are small, steps are expensive. (They are cut off where steps cost next to nothing.) The shortest curve runs below the diagonal: the smaller component is ahead of where ordinary diffusion would have it. Its first piece, over ground that costs next to nothing, is drawn as a straight line."}, "image": {"alt": "A plane with a straight diagonal, a curve bulging to the lower right of it, and on the other side a dashed broken line and a dotted staircase along the edges, all joining the same two corners. Ellipses are large at the upper right and smaller and tilted along the middle.", "width": "80%"}} tags=["hide-input"]
fig, axis = plot.figure(size=(4.8, 4.8))
for u in range(-5, 5, 2):
    for v in range(-5, 5, 2):
        G = metric(both["0.9, unequal"], at_gamma(torch.tensor([[u, v]]).double()))
        values, vectors = torch.linalg.eigh(G)
        circle = torch.linspace(0, 2 * math.pi, 80).double()
        ring = vectors @ ((0.35 / values.clamp(min=0.12).sqrt())[:, None] * torch.stack([circle.cos(), circle.sin()]))
        axis.plot(u + ring[0], v + ring[1], color="0.7", lw=0.8)
for (key, path), style in zip(
    (routes | {"geodesic": shortest["0.9, unequal"]}).items(), ("-", "--", ":", "-"), strict=True
):
    points = torch.cat([gamma_of(level) for level in path])
    axis.plot(points[:, 0], points[:, 1], style, lw=2.6 if key == "geodesic" else 1.8, label=key)
axis.set(xlabel=r"$\gamma_1$", ylabel=r"$\gamma_2$", xlim=(-6.4, 4.4), ylim=(-6.4, 4.4))
axis.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
fig

# %% [markdown]
# The entries are $\tfrac14L^2$, the limit of $N$ times the gap, in nats. With equal variances the diagonal is a geodesic by symmetry; for $\rho=0.9$ the tests of the library find nothing shorter on a grid, within its accuracy. For independent components one by one costs twice as much. With growing correlation it gets relatively cheaper, and remains the most expensive. With unequal variances, in the last row, the diagonal is ordinary diffusion, and it orders too much: on the shortest curve the smaller component is less far behind ({numref}`fig-softness-geodesics`). The soft schedule of our table orders more still, and costs more.
#
# ### The price of autoregression
#
# That was no accident of two dimensions. Let $I_i=-\tfrac12\int m_i\,d\gamma_i$ be the information that arrives through component $i$ along a path; the sum is $I$, the same for all paths.
#
# :::{prf:theorem} The price of autoregression
# :label: thm-softness-price
#
# For `ddpm` steps and any data, to leading order in $1/N$:
#
# 1. every path on which no $\gamma_i$ rises has $N\,\mathrm{gap}\ge\sum_iI_i^2\ge I^2/D$;
# 2. every path that moves one component at a time has $N\,\mathrm{gap}\ge I^2$.
#
# For Gaussian data in the PCA basis both first inequalities can be met, by walking with all $y_i=\log(1+\mathrm{snr}_i)$ linear in time, and one after another at constant speed. The ratio of the two is the participation number $(\sum_iI_i)^2/\sum_iI_i^2$.
# :::
#
# :::{prf:proof}
# 1. $\dot\gamma_i\dot\gamma_j\ge0$ and $G_{ij}\ge0$, so $\dot\gamma^\top G\dot\gamma\ge\sum_i\dot\gamma_i^2G_{ii}$. By Jensen's inequality $G_{ii}=\E K_{ii}^2\ge m_i^2$. And $\int(\dot\gamma_im_i)^2dt\ge(\int\dot\gamma_im_i\,dt)^2=4I_i^2$. The last bound is $\sum_iI_i^2\ge(\sum_iI_i)^2/D$.
# 2. On such a path the length is the sum $\sum_i\int\sqrt{G_{ii}}\,|d\gamma_i|\ge\sum_i\int m_i|d\gamma_i|=2I$.
#
# With independent components $K$ is diagonal and does not depend on $\chi$, so $G_{ii}=m_i^2$ and $G_{ij}=0$. Then $m_i\,d\gamma_i=-dy_i$, with $m=\mathrm{snr}/(1+\mathrm{snr})$: the metric is flat in the coordinates $y$, straight lines are shortest, and Cauchy–Schwarz is tight at constant speed.
# :::


# %%
def ordinary(images):
    """Information that each principal component receives in ordinary diffusion, from gamma = 4 to -7."""
    lam = torch.linalg.eigvalsh(Moments.of(images.x0.double()).cov).clamp(min=0) + FLOOR
    return ((lam * math.exp(-CLEAN_END)).log1p() - (lam * math.exp(-NOISY_END)).log1p()) / 2


lines = ["| digits, PCA, whitened | $N$ gap, nats |", "|---|---|"]
if name == "digits":
    law, _, labels = world["PCA"]
    common, turns = capped(labels, 0.0), stairs(labels, CLEAN_END, NOISY_END)
    share = component_information(law, walk(common, 100))
    price = {
        "together, $\\gamma$ linear": energy(law, walk(common, 200)) / 4,
        "together, best speed": length(law, walk(common, 200)) ** 2 / 4,
        "bound for any order, $\\sum I_i^2$": (share**2).sum().item(),
        "one by one, best speed": length(law, walk(turns, 8 * labels.numel())) ** 2 / 4,
        "bound for one by one, $I^2$": share.sum().item() ** 2,
    }
    lines += [f"| {key} | {value:,.0f} |" for key, value in price.items()]
    record("price", list(price.values()))
    record("price_ratio", price["one by one, best speed"] / price["together, best speed"])
for key, images in sets.items():
    share = ordinary(images)
    record(f"{key}_ordinary_information", share.sum().item())
    record(f"{key}_ordinary_participation", (share.sum() ** 2 / (share**2).sum()).item())
    record(f"{key}_dimension", len(share))
Markdown("\n".join(lines))

# %% [markdown]
# In whitened PCA one component at a time costs {glue:text}`price_ratio:.0f` times as many steps as all together for the same gap. That is the number of components, which are independent and alike there. The lower bounds hold for all data. What saves real autoregressive models is a better kernel: they draw from the conditional law itself, in one step, and pay nothing ({prf:ref}`thm-softness-ar`).
#
# How much is the kernel's share? Let the sampler know the variance of every component, though not how they hang together: the step `diagonal`. In the proof of {prf:ref}`thm-softness-metric` the diagonal of $B$ then drops out, and what is left of the metric is $G_{ij}$ with $i\ne j$. Moving one at a time costs nothing at this order, and moving together costs what is off the diagonal.

# %%
if name == "digits":
    law, _, labels = world["DCT"]
    rate = NOISY_END - CLEAN_END
    along = [metric(law, level) for level in walk(capped(labels, 0.0), 200)]
    off = [rate**2 / 4 * (G.sum() - G.trace()).item() for G in along]
    whole = [rate**2 / 4 * G.sum().item() for G in along]
    kernel_price = [sum([*values[1:-1], (values[0] + values[-1]) / 2]) / 200 for values in (whole, off)]
    assert_close(kernel_price[0], energy(law, walk(capped(labels, 0.0), 200)) / 4, rtol=1e-3, atol=0)
    record("price_small", kernel_price[0])
    record("price_diagonal", kernel_price[1])

# %% [markdown]
# For digits in the DCT basis, all components together, $N$ times the gap tends to {glue:text}`price_small:.0f` nats with `ddpm` and to {glue:text}`price_diagonal:.0f` with `diagonal`. So most of the price is paid for a poor variance, and an order can save the rest only. With a kernel that knows nothing but means, order is a luxury.
#
# ### Exact laws of the samples
#
# The gap speaks of whole paths. What about the law of the images at their end? On a Gaussian machine every sampler is affine, so the law of its output is Gaussian, and `exact_law` computes it. In principal components there is a closed form.
#
# :::{prf:proposition} Two samplers in whitened principal components
# :label: prop-softness-laws
#
# Let the components be independent with unit variance and the start $\N(0,1)$.
#
# 1. DDIM multiplies the variance of a component by $\cos^2(\theta_n-\theta_{n+1})$ in every step, with $\tan\theta=e^{\gamma/2}$.
# 2. The ancestral steps `large`, `diagonal` and `full` are exact, whatever the number of steps.
# 3. With $\gamma$ linear over a range $\Delta\gamma$ and many steps, $\mathrm{KL}\approx D\,\Delta\gamma^2/(64N^2)$ for DDIM and $D\,\Delta\gamma^2/(16N^2)$ for `ddpm`. Under soft conditioning $\Delta\gamma=G+aR$.
# :::
#
# :::{prf:proof}
# 1. For unit variance $D=\alpha\chi$ and $\hat\varepsilon=\sigma\chi$, so $\chi'=(\alpha'\alpha+\sigma'\sigma)\chi$, and $\alpha=\cos\theta$, $\sigma=\sin\theta$. 2. The posterior variance is $\sigma^2$. The variance of the true kernel is $c\sigma'^2+(c\alpha')^2\sigma^2$. With $c=1-\alpha^2\sigma'^2/(\alpha'^2\sigma^2)$ and $\alpha^2+\sigma^2=1$ this is $c\sigma^2$, the variance of `large`. 3. Let $\delta=\Delta\gamma/N$. From $\tan\theta=e^{\gamma/2}$ follows $d\theta=\tfrac12\sin\theta\cos\theta\,d\gamma=\tfrac12\alpha\sigma\,d\gamma$. So DDIM loses the share $\sum(\Delta\theta)^2=\tfrac{\delta}4\int\alpha^2\sigma^2d\gamma=\tfrac\delta4$, because $\alpha^2\sigma^2d\gamma=-d\alpha^2$, and the ends are nearly 0 and 1. `ddpm` lacks the variance $(c\alpha')^2\sigma^2$ in every step, about $\delta^2\alpha^2\sigma^2$. Each later step multiplies variances by $1-c\sigma^2$, since `large`, which adds $c\sigma^2$, keeps unit variance; over the rest of the path this makes $\exp(-\int\sigma^2d\gamma)\approx\alpha^2$. The sum is $\delta\int\alpha^4\sigma^2\,d\gamma=\tfrac\delta2$. A relative error $e$ of a variance costs $e^2/4$.
# :::

# %%
law, _, labels = world["PCA"]
path = walk(capped(labels, 1.0), 64)
theta = torch.cat([(gamma_of(level) / 2).exp().atan() for level in path]).flatten(1)
closed = ((theta[:-1] - theta[1:]).cos() ** 2).prod(0)
assert_close(exact_law(law, path, ddim).cov.diagonal(), closed, rtol=1e-10, atol=0)
truth = noised_law(law, path[-1])
if name == "digits":
    for step in (large, diagonal, full):
        assert gaussian_kl(truth, exact_law(law, walk(capped(labels, 1.0), 9), step)) < 1e-12
reach = (labels.max() - labels.min()).item()
if name == "digits":
    fine = walk(capped(labels, 1.0), 256)
    for step, factor in ((ddpm, 16), (ddim, 64)):
        record(f"law_{step.__name__}", gaussian_kl(truth, exact_law(law, fine, step)))
        record(f"law_{step.__name__}_predicted", 64 * (NOISY_END - CLEAN_END + reach) ** 2 / (factor * 256**2))

# %% [markdown]
# At $N=256$ and $a=1$ the divergence of digits is {glue:text}`law_ddpm:.4f` for `ddpm`, and the law of 3 says {glue:text}`law_ddpm_predicted:.4f`; for DDIM {glue:text}`law_ddim:.5f` and {glue:text}`law_ddim_predicted:.5f`. So with exact scores, matched ends, and independent components, hierarchy costs steps and buys nothing. For components that depend on each other it could be different. Is it?
#
# ## Basis, softness, steps
#
# The next experiment is the one that the paper could not do without a network's errors in it. Four bases, whitened; labels by variance; capped schedules from $\gamma=4$ to $-7$, so that all runs begin and end at the same noise. To begin with, the start is right, too: noisy data at $\gamma=4$, with their correlations. We report two distances between the law of the samples and that of noisy data at the end: the divergence, which counts all components alike, and the Wasserstein-2 distance in the data's units, which counts the large ones.


# %% tags=["hide-input"]
def in_data_units(law, coordinates):
    """The law of S chi: the data's scale, in the rotated axes."""
    S = coordinates.prior.scale.flatten()
    return gaussian_law(S * law.mean, S[:, None] * law.cov * S, law.shape)


def distances(found, truth, coordinates):
    return gaussian_kl(truth, found), gaussian_w2(in_data_units(truth, coordinates), in_data_units(found, coordinates))


swept = {}
for key, world_of in worlds.items():
    for basis, (law, coordinates, labels) in world_of.items():
        begins, truth = (noised_law(law, capped(labels, 0.0)(t)) for t in (1.0, 0.0))
        for step in (ddpm, ddim):
            for n in plan["steps"]:
                rows = [
                    distances(exact_law(law, walk(capped(labels, a), n), step, begins), truth, coordinates)
                    for a in plan["softness"]
                ]
                swept[key, basis, step.__name__, n] = rows
                for k, measure in enumerate(("kl", "w2")):
                    record(f"{key}_{basis}_{step.__name__}_{n}_{measure}", [row[k] for row in rows])


def ranges_of(world_of):
    """The range R of the labels in each basis."""
    return {basis: (labels.max() - labels.min()).item() for basis, (_, _, labels) in world_of.items()}


for key, world_of in worlds.items():
    ranges = ranges_of(world_of)
    for basis, value in ranges.items():
        record(f"{key}_range_{basis}", value)
    n, dims = plan["steps"][-1], sets[key].x0[0].numel()
    for step, factor in (("ddpm", 16), ("ddim", 64)):
        ratios = [
            row[0] / (dims * (NOISY_END - CLEAN_END + a * ranges[basis]) ** 2 / (factor * n**2))
            for basis in ranges
            for a, row in zip(plan["softness"], swept[key, basis, step, n], strict=True)
        ]
        record(f"{key}_collapse_{step}_low", min(ratios))
        record(f"{key}_collapse_{step}_high", max(ratios))
record("softness", plan["softness"])
record("steps", plan["steps"][-1])

# %% tags=["hide-input"]
HUES = {"pixel": ("C0", "o-"), "PCA": ("C1", "s--"), "DCT": ("C2", "^-."), "Haar": ("C4", "v:")}


def draw_sweep(axis, softness, found, measure):
    """One panel: distance against inverse softness, a curve for each basis."""
    for basis, values in found.items():
        color, style = HUES[basis]
        axis.plot(softness, values, style, color=color, ms=4, lw=1.6, label=basis)
    axis.set_xscale("symlog", linthresh=0.25, linscale=0.4)
    axis.set_yscale("log")
    axis.set_xticks([a for a in (0, 0.5, 1, 2, 4, 16) if a <= max(softness)])
    axis.get_xaxis().set_major_formatter(lambda v, _: f"{v:g}")
    axis.set_ylabel({"kl": "KL (nats)", "w2": "$W_2$ (data's units)"}[measure], fontsize=10)


# %% mystnb={"figure": {"name": "fig-softness-sweep", "caption": "Digits, Gaussian data, exact denoiser, 64 steps: distance of the samples' law from noisy data against the inverse softness $a$, in four whitened bases with labels by variance. Upper row: divergence. Lower row: Wasserstein-2 distance in the data's units. Left: `ddpm`. Right: DDIM. $a=1$ orders as ordinary diffusion does."}, "image": {"alt": "Four panels with four curves each, against inverse softness on a compressed axis. All curves rise with a; at large a DCT lies lowest and PCA highest.", "width": "100%"}} tags=["hide-input"]
if name == "digits":
    fig, axes = plot.figure(2, 2, size=(6.0, 5.4), sharex=True)
    for row, measure in zip(axes, ("kl", "w2"), strict=True):
        for axis, step in zip(row, ("ddpm", "ddim"), strict=True):
            values = {b: [r[measure == "w2"] for r in swept["digits", b, step, 64]] for b in HUES}
            draw_sweep(axis, plan["softness"], values, measure)
    for axis, step in zip(axes[0], ("ddpm", "DDIM"), strict=True):
        axis.set_title(step, fontsize=11)
    for axis in axes[1]:
        axis.set_xlabel("inverse softness $a$")
    axes[0, 0].legend(frameon=False, fontsize=9)
else:
    fig = None
fig

# %% mystnb={"figure": {"name": "fig-softness-steps", "caption": "Divergence against the number of steps, digits in whitened DCT coordinates, $a=1$. `ddpm` and DDIM from the right start fall with the square of the number of steps (thin black dots: the two laws of the proposition). `diagonal` falls with the square, too, from a lower value. DDIM from $\\N(0,I)$ levels off towards the error of its start."}, "image": {"alt": "Double logarithmic plot of four curves against the number of steps from 8 to 256. Three fall as straight lines of slope minus two, the fourth follows the DDIM line at first and then levels off.", "width": "80%"}} tags=["hide-input"]
fig = None
if name == "digits":
    law, _, labels = world["DCT"]
    counts = (8, 16, 32, 64, 128, 256)
    begins, truth = (noised_law(law, capped(labels, 1.0)(t)) for t in (1.0, 0.0))
    runs = {
        "ddpm": (ddpm, begins),
        "DDIM": (ddim, begins),
        "diagonal": (diagonal, begins),
        "DDIM, white start": (ddim, None),
    }
    by_steps = {
        key: [gaussian_kl(truth, exact_law(law, walk(capped(labels, 1.0), n), step, start)) for n in counts]
        for key, (step, start) in runs.items()
    }
    fig = plot.curves(torch.tensor(counts), by_steps, "steps $N$", "KL (nats)", yscale="log")
    span = NOISY_END - CLEAN_END + ranges_of(world)["DCT"]
    for factor in (16, 64):
        fig.axes[0].plot(counts, [64 * span**2 / (factor * n**2) for n in counts], ":", color="black", lw=1)
    fig.axes[0].set_xticks(counts, [str(n) for n in counts])
    fig.axes[0].minorticks_off()
    for key, values in by_steps.items():
        record(f"steps_{key.replace(', ', '_').replace(' ', '_')}", values)
    record("steps_white", by_steps["DDIM, white start"][-1])
    record("steps_right", by_steps["DDIM"][-1])
fig

# %% [markdown]
# All distances grow with $a$, in every basis and for both samplers. For large $a$ they are least in the DCT basis and largest in PCA, by a factor of four in the divergence. Is DCT the better basis, then? Look at the labels. The variances of DCT coefficients of digits span $R=${glue:text}`digits_range_DCT:.1f` in the logarithm, Haar {glue:text}`digits_range_Haar:.1f`, pixels {glue:text}`digits_range_pixel:.1f`, principal components {glue:text}`digits_range_PCA:.1f`. {prf:ref}`prop-softness-laws` was derived for independent components. We try its laws on all four bases, and divide the forty divergences of each sampler by them. For `ddpm`, with $D(G+aR)^2/(16N^2)$, the ratios lie between {glue:text}`digits_collapse_ddpm_low:.2f` and {glue:text}`digits_collapse_ddpm_high:.2f`; for DDIM, with 64 in place of 16, between {glue:text}`digits_collapse_ddim_low:.2f` and {glue:text}`digits_collapse_ddim_high:.2f`. So for digits a single number, the length $G+aR$ of the schedule, says nearly all about the divergence that basis and softness lead to. At $a=0$ all bases are alike. An order costs according to the range of its labels, whatever it orders.
#
# And the steps? {numref}`fig-softness-steps` shows the second power of $1/N$ that the laws have. It also shows what happens when the start is not right, and DDIM, which forgets nothing, begins from $\N(0,I)$: at 256 steps its divergence is {glue:text}`steps_white:.4f`, in place of {glue:text}`steps_right:.4f`.
#
# ### Ends that do not match
#
# Without the cap, the first component starts at $\gamma_n$, and the sampler starts it from $\N(0,1)$. In whitened coordinates that has the right variances, whatever signal is left. But in every basis except PCA the components are correlated, and the start knows nothing of that. Larger $a$ makes the others noisier at the start, which mends this; and it costs steps. So there can be an optimum between, for a reason that has nothing to do with learning.

# %% tags=["hide-input"]
ENDS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 4.0)
lines = ["| $a$ | " + " | ".join(f"{a:g}" for a in ENDS) + " |", "|---" * (len(ENDS) + 1) + "|"]
for n in (64, 256) if name == "digits" else ():
    for basis, (law, _, labels) in world.items():
        open_ended = [walk(soft(labels, a, CLEAN_END, NOISY_END), n) for a in ENDS]
        values = [gaussian_kl(noised_law(law, path[-1]), exact_law(law, path, ddim)) for path in open_ended]
        record(f"ends_{n}_{basis}", values)
        record(f"ends_best_{n}_{basis}", ENDS[values.index(min(values))])
        lines += [f"| {basis} | " + " | ".join(f"{v:.4f}" for v in values) + " |"] if n == 256 else []
Markdown("\n".join(lines))

# %% [markdown]
# KL of DDIM with 256 steps, in nats, uncapped schedules. In PCA, where nothing is correlated, it rises with $a$. In the other bases the best of these settings is {glue:text}`ends_best_256_pixel:g` (pixel), {glue:text}`ends_best_256_DCT:g` (DCT) and {glue:text}`ends_best_256_Haar:g` (Haar); with 64 steps it is {glue:text}`ends_best_64_pixel:g`, {glue:text}`ends_best_64_DCT:g` and {glue:text}`ends_best_64_Haar:g`. {cite:t}`gerdes2024gud` report that $a$ near 1 was about optimal for their networks. Here there is no network, and with enough steps an optimum near 1 is found all the same: a balance between a start that is slightly wrong and steps that are too few. So such an optimum need not say anything about what networks find easy. (It does not rule that out either.) We do not know the ends, the sampler and the number of steps of the paper's runs.
#
# ## Parallel against blocks
#
# Autoregression in blocks is another way to use few steps: draw a block of components at once, each from its own conditional law given all earlier blocks. It needs no diffusion. Its error is known exactly.
#
# :::{prf:proposition} The error of blocks
# :label: prop-softness-blocks
#
# Draw blocks $B_1,\dots,B_N$ in turn, each component $i\in B_n$ independently from $p(\chi_i\mid\chi_{B_1},\dots,\chi_{B_{n-1}})$. Then the divergence of the samples from the data is the sum over blocks of the total correlation of the block given the earlier ones,
#
# $$
# \begin{split}
# \sum_n\E\Bigl[&\mathrm{KL}\bigl(p(\chi_{B_n}\mid\chi_{<n})\\
# &\;\big\Vert\;\textstyle\prod_{i\in B_n}p(\chi_i\mid\chi_{<n})\bigr)\Bigr].
# \end{split}
# $$
#
# For Gaussian data the term is $\tfrac12\bigl[\sum_i\log C_{ii}-\log\det C\bigr]$ with the conditional covariance $C$ of the block.
# :::
#
# :::{prf:proof}
# The chain rule of the divergence, block by block; the expectation is over the data's own earlier blocks.
# :::
#
# So a good order makes the components of a block independent *given what is there already*. For pixels that is what coarse-to-fine sampling does: first a coarse grid, then the points between. We compare orders at equal numbers of steps $N$ with diffusion of all components together, by the step `diagonal`, which knows the same as the blocks do: the variance of each component given the rest. Both aim at data with noise of $\gamma=-7$.


# %%
def block_error(law, blocks):
    """The sum of conditional total correlations, from conditional covariances."""
    total, cov = 0.0, law.cov
    for n in blocks.unique():
        new, old = (blocks == n).flatten().nonzero()[:, 0], (blocks < n).flatten().nonzero()[:, 0]
        C = cov[new][:, new] - cov[new][:, old] @ torch.linalg.solve(cov[old][:, old], cov[old][:, new])
        total += (C.diagonal().log().sum() - torch.linalg.slogdet(C)[1]).item() / 2
    return total


def spaced_out(side):
    """Coarse grid first: the bits of row and column in reverse, interleaved."""
    bits = (side - 1).bit_length()
    flip = torch.tensor([sum(((i >> b) & 1) << (2 * (bits - 1 - b)) for b in range(bits)) for i in range(side)])
    return (2 * flip[:, None] + flip).double()


tables = {}
for key, bases, counts in (
    ("digits", ("pixel", "DCT", "Haar"), (8, 16, 32, 64)),
    ("mnist", ("pixel",), (28, 112)),
    ("grey", ("pixel",), (32, 128)),
):
    for basis in bases if key in worlds else ():
        law, _, labels = worlds[key][basis]
        target = noised_law(law, at_gamma(torch.full((1, *law.shape), CLEAN_END).double()))
        raster = torch.arange(labels.numel()).reshape(labels.shape)
        chance = torch.randperm(labels.numel(), generator=rng).reshape(labels.shape)
        spaced = spaced_out(law.shape[-1])[None] if basis == "pixel" else raster.mT.contiguous()
        orders = {"variance": labels, "raster": raster, "random": chance, "spaced": spaced}
        for n in counts:
            rows = {kind: block_kl(target, equal_blocks(order, n)) for kind, order in orders.items()}
            if key == "digits":
                assert_close(rows["raster"], block_error(target, equal_blocks(raster, n)), atol=1e-9, rtol=1e-9)
            parallel = gaussian_kl(target, exact_law(law, walk(capped(labels, 0.0), n), diagonal))
            tables[basis, n] = {"diffusion": parallel} | rows
            record(f"{key}_blocks_{basis}_{n}", [max(v, 1e-12) for v in tables[basis, n].values()])
for (_, n), row in tables.items() if name == "digits" else ():
    assert (min(row, key=row.get) == "diffusion") == (n < 64)
lines = ["| basis | $N$ | diffusion | variance | raster | random | spaced |", "|---" * 7 + "|"]
lines += [
    f"| {b} | {n} | " + " | ".join(f"{v if abs(v) > 1e-9 else 0:.2g}" for v in row.values()) + " |"
    for (b, n), row in tables.items()
]
Markdown("\n".join(lines))

# %% [markdown]
# KL in nats of the samples from noisy digits at $\gamma=-7$. Columns on the right: block autoregression by order. "Spaced" is coarse-to-fine for pixels, and by columns for the others. The random order depends on the seed.
#
# With 8 or 16 steps diffusion beats every order. With 32 it is still ahead, and in pixels a spaced order comes near. With 64 steps, one component each, all orders are exact, and diffusion is not. In pixels and DCT the plain orders, by rows and by variance, are worst; neighbouring pixels depend on each other most. The best order is the spaced one for pixels, the one by columns for DCT, and for Haar coefficients, as long as there is an error, this random one.
#
# ## More than one mode
#
# A Gaussian hides one thing: with several modes the first components must choose, and the later ones must agree. Take the mixture of ten classes, generate by columns from left to right, and ask whether the classes come out as often as they should. If $n$ samples fall into the classes $n_k$ times, $X^2=\sum_k(n_k-n\pi_k)^2/(n\pi_k)$ is about 9 when the law is right, with a standard deviation of 4. The samplers have 64 steps, and once 256.


# %% tags=["hide-input"]
def chi_square(x, machine, level):
    """Pearson's statistic of the classes of these samples, each of the class most probable to the machine."""
    counts = machine.log_responsibilities(x, level).argmax(1).bincount(minlength=10)
    return ((counts - len(x) * machine.weights) ** 2 / (len(x) * machine.weights)).sum().item()


def ancestral(machine, n):
    """n samples of a mixture, one pixel after another, columns first, each from its exact conditional law."""
    order = torch.arange(D).reshape(side, side).T.flatten()
    means = torch.stack([c.mean[order] for c in machine.components])
    roots = torch.stack([torch.linalg.cholesky(c.cov[order][:, order]) for c in machine.components])
    x, z = torch.zeros(n, D).double(), torch.zeros(n, len(means), D).double()
    log_w = machine.weights.log().expand(n, -1)
    for i in range(D):
        centre = means[:, i] + (z[:, :, :i] * roots[:, i, :i]).sum(2)
        k = torch.multinomial(log_w.softmax(1), 1, generator=rng)
        x[:, i] = (centre.gather(1, k) + roots[:, i, i][k] * normal(n, 1))[:, 0]
        z[:, :, i] = (x[:, i, None] - centre) / roots[:, i, i]
        log_w = log_w - z[:, :, i] ** 2 / 2 - roots[:, i, i].log()
    return x[:, order.argsort()].reshape(n, *machine.shape)


found, names = [], []
for a in (0.0, 1.0, 4.0, 11.0):
    path = walk(capped(left_to_right, a), 64)
    images = sample(chi_blend, normal(plan["draws"], *chi_blend.shape), path, ddpm, rng)
    found.append(chi_square(images, chi_blend, path[-1]))
    names.append(f"$a$ = {a:g}")
path = walk(capped(left_to_right, 11.0), 256)
images = sample(chi_blend, normal(plan["draws"], *chi_blend.shape), path, ddpm, rng)
found.append(chi_square(images, chi_blend, path[-1]))
names.append("$a$ = 11, 256 steps")
images = ancestral(chi_blend, plan["draws"])
found.append(chi_square(images, chi_blend, at_gamma(torch.full((1, *images.shape[1:]), 40.0).neg().double())))
names.append("pixel by pixel")
record("chi_square", found, rtol=0.5)
for key, value in zip(("0", "1", "4", "11", "more", "ancestral"), found, strict=True):
    record(f"chi_square_{key}", value, rtol=0.5)
lines = [
    "| " + " | ".join(names) + " |",
    "|---" * len(names) + "|",
    "| " + " | ".join(f"{v:.0f}" for v in found) + " |",
]
Markdown("\n".join(lines))

# %% [markdown]
# The statistic is {glue:text}`chi_square_0:.0f` when all columns clear up together, and grows with the order: {glue:text}`chi_square_1:.0f`, {glue:text}`chi_square_4:.0f`, {glue:text}`chi_square_11:.0f`. At $a=11$ each column has eight steps, and a choice of class made in eight steps is made badly. With four times as many steps in all it is {glue:text}`chi_square_more:.0f`. That autoregression is not to blame shows in the last column, too: drawn one after another from their exact conditional laws, pixels give {glue:text}`chi_square_ancestral:.0f`. Few steps for each component are. (With more samples $X^2$ would grow in proportion where the law is wrong.)
#
# ## Conditioning and extending
#
# ### Conditioning for free
#
# A machine that serves component-wise noise can sample some components given others without further training. Hold the known ones at $\gamma=-\infty$ and lead the others from noise to clean. `complete` does so.
#
# :::{prf:proposition} Frozen components
# :label: prop-softness-frozen
#
# Let the components in $A$ have $(\alpha,\sigma)=(1,0)$ at all levels and hold $\chi_A$. With the exact denoiser the reverse process of the others, $B$, samples $p(\chi_B\mid\chi_A)$.
# :::
#
# :::{prf:proof}
# $D_B(\chi)=\E[\chi_B(0)\mid\chi_B,\chi_A(0)=\chi_A]$ is the denoiser of the law $p(\chi_B\mid\chi_A)$ for the noise of $B$.
# :::
#
# No guidance and no resampling are needed, since the machine has been told what is known. For Gaussian data and the exact kernel one step is enough:

# %%
law = chi_blend.components[0]
mask = (torch.arange(side) < side // 2).expand(1, side, side)  # the left half is known
A, B = mask.flatten(), ~mask.flatten()
value = normal(D)
one_step = frozen(walk(stairs(torch.zeros(1, side, side)), 1), mask)
begin_at = gaussian_law(torch.where(A, value, 0.0), torch.diag(B.double()), law.shape)
done = exact_law(law, one_step, full, begin_at)
C = law.cov
gain = torch.linalg.solve(C[A][:, A], C[A][:, B]).T
assert_close(done.mean[B], law.mean[B] + gain @ (value - law.mean)[A], atol=1e-8, rtol=0)
assert_close(done.cov[B][:, B], C[B][:, B] - gain @ C[A][:, B], atol=1e-8, rtol=0)

# %% [markdown]
# With the mixture we complete the left halves of digits that it has not been fitted to. The classes of the completions should be as frequent as the machine's own posterior, given the left half, says.

# %% tags=["hide-input"]
unseen = classes("test").x0.double()
halves = pixels.analysis(unseen)
path = walk(capped(left_to_right, 0.0), 64)
empty = Noise(mask[None].double(), (~mask)[None].double())  # the left half known, nothing of the right
belief = chi_blend.log_responsibilities(torch.where(mask, halves, 0), empty).exp()
doubtful = (-(belief * belief.clamp(min=1e-300).log()).sum(1)).argsort(descending=True)[:4]
copies = 400
filled = complete(chi_blend, halves[doubtful].repeat_interleave(copies, 0), mask, path, ddpm, rng)
drawn = chi_blend.log_responsibilities(filled, at_gamma(torch.full((1, 1, side, side), -20.0).double())).argmax(1)
frequency = torch.stack([part.bincount(minlength=10) / copies for part in drawn.split(copies)])
record("completion_belief", belief[doubtful].flatten().tolist(), rtol=0.05)
record("completion_frequency", frequency.flatten().tolist(), rtol=0.3)
record("completion_copies", copies)
record("completion_gap", (frequency - belief[doubtful]).abs().max().item(), rtol=0.5)
record("completion_error", (belief[doubtful] * (1 - belief[doubtful]) / copies).sqrt().max().item(), rtol=0.5)

# %% mystnb={"figure": {"name": "fig-softness-completions", "caption": "Four digits that the mixture has not seen, those whose left halves leave most doubt. First column: the digit. Second: what is known of it. Then: completions, all with the same left half."}, "image": {"alt": "Four rows of eight small images. The left halves agree within a row; the right halves differ, and make different digits out of the same left half.", "width": "100%", "classes": "dark-light"}} tags=["hide-input"]
rows = []
for k, index in enumerate(doubtful.tolist()):
    hidden = torch.where(mask, unseen[index], 0.0)[None]
    rows += [unseen[index][None], hidden, pixels.synthesis(filled[k * copies : k * copies + 6])]
plot.image_grid(torch.cat(rows), columns=8, titles=["digit", "known"] + ["completed"] * 6)

# %% [markdown]
# The largest difference between a class's frequency among {glue:text}`completion_copies` completions and its posterior probability is {glue:text}`completion_gap:.2f`, where the standard error is up to {glue:text}`completion_error:.2f`. (Between two and three standard errors, once among all the classes of four digits, is no surprise; besides, 64 steps of `ddpm` are not quite exact.) The right half that the digit really had is one of many that fit.
#
# ### Extending an image
#
# The paper makes strips of histology images that are wider than its network's window, by repeated extension. How exactly, we do not know. The plain way is: generate a window, keep its last columns, generate new ones given them, and so on. A reviewer asked whether this is still the reversal of a diffusion. It is, but of another law.
#
# :::{prf:theorem} What extension samples
# :label: thm-softness-extension
#
# Let the columns $c_1,c_2,\dots$ of an image be stationary. Generate $w$ columns exactly, and then again and again $w-k$ new ones exactly, given the last $k$. The strip has the density $p(\text{first})\prod p(\text{new}\mid\text{kept})$: from window to window it remembers $k$ columns, and nothing of the dropped ones, all those before them. Its divergence from the data is
#
# $$
# \begin{split}
# &\mathrm{KL}(\text{data}\,\Vert\,\text{strip})\\
# &\quad=\sum_{\text{steps}}I(\text{new};\text{dropped}\mid\text{kept}).
# \end{split}
# $$ (eq-softness-extension)
#
# It is zero if and only if the new columns of every step are independent of the dropped ones given those kept, as when the columns are Markov of order $k$.
# :::
#
# :::{prf:proof}
# The data have the density $p(\text{first})\prod p(\text{new}\mid\text{kept},\text{dropped})$. The mean of the logarithm of the ratio is the sum of the conditional informations.
# :::
#
# In a long strip the error grows in proportion to the width, at a rate that depends on the data, the window and the columns kept. We measure it on a texture: the Gaussian with the autocovariance of photographs, 8 rows high, and windows of 16 columns.


# %%
def autocovariance(images, rows, columns):
    """Mean covariance of pixels at each offset; the biased estimate, which is positive semidefinite."""
    total = 0.0
    for image in images:
        u = torch.as_tensor(image).double() / 127.5 - 1
        u = u - u.mean()
        power = torch.fft.rfft2(u, s=[2 * n for n in u.shape]).abs() ** 2
        total = total + torch.fft.irfft2(power, s=[2 * n for n in u.shape]) / u.numel() / len(images)
    lag = lambda n: torch.arange(n)[:, None] - torch.arange(n)  # noqa: E731
    dy, dx = lag(rows)[:, None, :, None], lag(columns)[None, :, None, :]
    return total[dy, dx].reshape(rows * columns, rows * columns)


HEIGHT, WINDOW, WIDTH = 8, 16, 48
texture = [image for image in photographs() if image.ndim == 2]


def strip_law(width):
    cov = autocovariance(texture, HEIGHT, width) + FLOOR * torch.eye(HEIGHT * width)
    return gaussian_law(torch.zeros(HEIGHT * width), cov, (1, HEIGHT, width))


strip, window_law = strip_law(WIDTH), strip_law(WINDOW)
KEPT = (1, 2, 4, 8, 12, 15)
extension = [extension_kl(strip, WINDOW, k) for k in KEPT]
steps_of = [-(-(WIDTH - WINDOW) // (WINDOW - k)) for k in KEPT]
assert_close(gaussian_kl(strip, extended_law(window_law, WIDTH, 8)), extension[3], rtol=1e-6, atol=1e-9)
record("extension_kl", extension)
lines = ["| columns kept | " + " | ".join(map(str, KEPT)) + " |", "|---" * (len(KEPT) + 1) + "|"]
lines.append("| steps | " + " | ".join(map(str, steps_of)) + " |")
lines.append("| KL, nats | " + " | ".join(f"{v:.3g}" for v in extension) + " |")
Markdown("\n".join(lines))

# %% mystnb={"figure": {"name": "fig-softness-strips", "caption": "Extending a Gaussian texture with the autocovariance of photographs, 8 rows high, from windows of 16 columns. Upper: four ways to go on from one window, by the law of the whole strip and by extension. Lower: correlation of the pixels of a row with those of column 14, near the end of the first window. All start alike. With one column kept the correlations are too low from soon after the first window on, with four from the third window on; with twelve the curve of the data is followed closely throughout."}, "image": {"alt": "Four blurry grey strips above a plot. In the plot four nearly equal curves fall from a peak at column 14; that for one column lies lower from about column 20 on, that for four from about column 30 on.", "width": "100%"}} tags=["hide-input"]
exact_step = walk(stairs(torch.zeros(1, HEIGHT, WINDOW)), 1)  # one exact step for a whole window
first = (torch.linalg.cholesky(window_law.cov) @ normal(HEIGHT * WINDOW)).reshape(1, 1, HEIGHT, WINDOW)
padded = torch.nn.functional.pad(first, (0, WIDTH - WINDOW))
known = (torch.arange(WIDTH) < WINDOW).expand(1, HEIGHT, WIDTH)
whole = complete(strip, padded, known, walk(stairs(torch.zeros(1, HEIGHT, WIDTH)), 1), full, rng)
strips = {"whole": whole} | {f"k = {k}": extend(window_law, first, WIDTH, k, exact_step, full, rng) for k in (1, 4, 12)}
laws = {"whole": strip} | {f"k = {k}": extended_law(window_law, WIDTH, k) for k in (1, 4, 12)}
fig, axes = plot.figure(5, 1, size=(6.0, 6.4), height_ratios=[1, 1, 1, 1, 3])
peak = 3 * strip.cov.diagonal().mean().sqrt().item()
for axis, (key, image) in zip(axes, strips.items(), strict=False):
    plot.show(axis, image[0], (-peak, peak))
    axis.set_ylabel(key, rotation=0, ha="right", va="center", fontsize=10)
    axis.set(xticks=[], yticks=[])
for (key, found), style in zip(laws.items(), ("-", ":", "-.", "--"), strict=True):
    cov = found.cov.reshape(HEIGHT, WIDTH, HEIGHT, WIDTH).diagonal(dim1=0, dim2=2).mean(-1)
    axes[-1].plot(range(1, WIDTH + 1), cov[13] / (cov[13, 13] * cov.diagonal()).sqrt(), style, lw=1.8, label=key)
axes[-1].set(xlabel="column", ylabel="correlation\nwith column 14", ylim=(0.4, 1.03))
axes[-1].legend(frameon=False, fontsize=9)
fig

# %% [markdown]
# ### The conveyor
#
# One may also extend softly: hold a window whose columns are on their way, clean at its left end and noise at its right; move all of them on by one; emit the first, add noise at the right. This is the {term}`conveyor`, known for video as rolling diffusion {cite:p}`ruhe2024`, and what the capped column schedule becomes when it never ends. The new column is joined to its neighbours while these are still noisy. Emitted columns are forgotten at once, though. How much does that cost?
#
# :::{prf:proposition} What the conveyor forgets
# :label: prop-softness-conveyor
#
# Let $E$ be the columns emitted so far and $S$ the state of the window. With a machine that knows the law of a window, and exact steps, the divergence of the conveyor's path from that of the data is
#
# $$
# \begin{split}
# \sum_{\text{moves}}\bigl[&I(E;S_{\text{after}})-I(E;S_{\text{before}})\\
# &+\mathrm{KL}(\text{new column}\,\Vert\,\text{noise})\bigr],
# \end{split}
# $$ (eq-softness-conveyor)
#
# where "before" and "after" are the two ends of a move. It bounds the divergence of the emitted strip.
# :::
#
# :::{prf:proof}
# During a move the data's own process has the kernel $p(S_{\text{after}}\mid S_{\text{before}},E)$, the conveyor $p(S_{\text{after}}\mid S_{\text{before}})$. (For data the state after a move is less noisy than before, and given it the state before is independent of $E$.) The mean divergence is $I(E;S_{\text{after}}\mid S_{\text{before}})$. Because $E\to S_{\text{after}}\to S_{\text{before}}$ is a Markov chain, that is the difference of the informations. The third term is what comes in at the right: the divergence of the new column of the data, given all that is there, from noise. Forgetting the path can only lower a divergence.
# :::

# %%
REACH = 16.0  # from noise at gamma = 9, where next to nothing of a column is left, to clean at -7
grades = [REACH / n for n in (1, 2, 4, 8, 16)]  # n columns on their way at a time
belts = [conveyor_levels((1, HEIGHT, WINDOW), a, 8, CLEAN_END, CLEAN_END + REACH)[1] for a in grades]
forgotten = [conveyor_kl(strip, belt) for belt in belts]
record("conveyor_kl", forgotten)
lines = ["| columns on their way | " + " | ".join(f"{REACH / a:.0f}" for a in grades) + " |", "|---" * 6 + "|"]
lines.append("| bound, nats | " + " | ".join(f"{v:.3g}" for v in forgotten) + " |")
Markdown("\n".join(lines))

# %% [markdown]
# With up to four columns on their way the bound is about that of the extension that keeps 15 columns, with eight nearly twice. (Emitted columns keep the noise of $\gamma=-7$, which hides some of the error.) When every column of the window is on its way, nothing in it is clean, and what was emitted is lost: the bound is many times larger. Nothing is gained by softness in this measure, with exact steps. What a soft conveyor may save is steps, since columns share them.
#
# ## What a network makes of it
#
# So far the denoiser was exact, and could not tell one path from another. Now we ask networks. They are small: three residual layers of width 256, trained on samples of the mixture of ten classes in whitened DCT coordinates. The law is known, so the exact denoiser is known as well, and a network's loss splits.
#
# :::{prf:proposition} Excess loss is divergence
# :label: prop-softness-excess
#
# Let $\hat\varepsilon$ be the prediction of a network, $\hat\varepsilon^*$ that of the exact denoiser. Along a path
#
# $$
# \begin{split}
# &-\tfrac12\int\sum_i\E(\varepsilon_i-\hat\varepsilon_i)^2\,d\gamma_i\\
# &\quad=I+\underbrace{\Bigl(-\tfrac12\int\sum_i\E(\hat\varepsilon^*_i-\hat\varepsilon_i)^2\,d\gamma_i\Bigr)}_{\text{excess}},
# \end{split}
# $$ (eq-softness-excess)
#
# with $I=I(\gamma^0)-I(\gamma^1)$ for every path between the same ends. In continuous time the divergence of the network's samples from the data's law at the end is at most the excess, plus that of the start.
# :::
#
# :::{prf:proof}
# $\varepsilon-\hat\varepsilon^*$ is orthogonal to every function of $\chi$. That gives {eq}`eq-softness-excess` with {prf:ref}`thm-softness-path`. The reverse equation of a network and the true one have the same noise, and drifts that differ by $\beta(\hat\varepsilon^*-\hat\varepsilon)/\sigma$ in each component. By Girsanov's theorem the divergence between the laws of their paths is half the integral of the squared difference over $\beta$, which is the excess. Forgetting the path can only lower it. (For ordinary diffusion: {cite:t}`song2021likelihood`.)
# :::
#
# First the exact machine. On capped schedules, which have the same ends, its loss should not depend on $a$, for this mixture as little as for a Gaussian. Then four networks. One was trained on the single path $a=1$. One on all $a$ from 0.4 to 1.6, as in the paper, with the whole noising state $\gamma$ as input. One on independent $\gamma_i$, uniform in a cube, as in diffusion forcing {cite:p}`chen2024forcing`. And one on $a$ from 0.4 to 1.6 again, but shown only a number, the mean of $\gamma$.

# %% tags=["hide-input"]
NETS = {
    "state, $a=1$": "digits-fixed",
    "state, $a$ in 0.4 to 1.6": "digits-range",
    "state, cube": "digits-cube",
    "mean only, 0.4 to 1.6": "digits-scalar",
}
TRIED = (0.0, 0.4, 1.0, 1.6, 3.0)
POINTS, SAMPLES = 24, 256


def midpoints(schedule):
    """The middle of each of POINTS equal steps of a schedule, and its change of gamma."""
    ends = [gamma_of(schedule(k / POINTS)) for k in range(POINTS + 1)]
    return [((a + b) / 2, b - a) for a, b in pairwise(ends)]


def losses(steps, exact, networks, x0):
    """For every sample: the loss of the exact denoiser along the path, and the excess of each network."""
    total = torch.zeros(len(x0)).double()
    excess = {key: torch.zeros(len(x0)).double() for key in networks}
    for gamma, change in steps:
        noise, eps = at_gamma(gamma), normal(*x0.shape)
        x = noise.add(x0, eps)
        best = exact.eps(x, noise)
        total += ((eps - best) ** 2 * change).flatten(1).sum(1) / 2
        for key, network in networks.items():
            off = (best - network.eps(x.float(), noise).double()) ** 2 * change
            excess[key] += off.flatten(1).sum(1) / 2
    return total, excess


lines = []
if name == "digits":
    plain = Coordinates(DCT(), total(blend)[0], Prior.isotropic(blend.shape)).law(blend)
    cosines = Coordinates(DCT(), total(blend)[0], Prior.matched(total(plain)[1]))
    exact, labels = cosines.law(blend), by_variance(total(plain)[1])
    networks = {
        key: Network.load(book_root() / "results" / "networks" / f"{file}.safetensors") for key, file in NETS.items()
    }
    clean = draws(exact)(SAMPLES, rng)
    same_ends = {
        a: losses(midpoints(soft(labels, a, -7, 3, capped=True)), exact, {}, clean)[0] for a in (0.0, 1.0, 3.0)
    }
    for a, values in same_ends.items():
        record(f"loss_{a:g}", values.mean().item(), rtol=0.05)
    record("loss_error", (values.std() / SAMPLES**0.5).item(), rtol=0.3)
    found = {a: losses(midpoints(soft(labels, a)), exact, networks, clean)[1] for a in TRIED}
    found = {a: {key: values.mean().item() for key, values in row.items()} for a, row in found.items()}
    lines = ["| excess, nats | " + " | ".join(f"{a:g}" for a in TRIED) + " |", "|---" * (len(TRIED) + 1) + "|"]
    lines += [f"| {key} | " + " | ".join(f"{found[a][key]:.2f}" for a in TRIED) + " |" for key in NETS]
    for a in TRIED:
        gain = found[a]["mean only, 0.4 to 1.6"] - found[a]["state, $a$ in 0.4 to 1.6"]
        record(f"state_gain_{a:g}", gain, rtol=0.3)
    for key, file in NETS.items():
        for a in TRIED:
            record(f"excess_{file}_{a:g}", found[a][key], rtol=0.1)
Markdown("\n".join(lines))

# %% [markdown]
# The exact machine's loss is {glue:text}`loss_0:.1f` nats at $a=0$, {glue:text}`loss_1:.1f` at $a=1$, {glue:text}`loss_3:.1f` at $a=3$, with a standard error of {glue:text}`loss_error:.1f`. The table holds the excess of the networks, on fresh samples.
#
# The first network, on the path that it was trained on, has an excess of {glue:text}`excess_digits-fixed_1:.1f` nats. Off its path it gets worse, and at $a=3$ it is at {glue:text}`excess_digits-fixed_3:.0f`. Training on the range costs nothing at $a=1$, and helps at its ends and beyond. The cube is another matter: {glue:text}`excess_digits-cube_0:.0f` to {glue:text}`excess_digits-cube_3:.0f` nats on every path. A network of the same size, trained equally long, has to learn all states, and is worse on those of the trained paths.
#
# And the network that is shown a single number? It is behind the one that sees the state, at $a=1$ by {glue:text}`state_gain_1:.1f` nats and at $a=1.6$ by {glue:text}`state_gain_1.6:.1f`. That is little. How noisy a component is can be guessed from the components themselves, and on this family a guess does nearly as well. (We trained each network once. Differences of a few tenths may be chance. At $a=0$ and $a=3$ the states lie off the paths that the networks other than the cube's have seen in training; at $a=3$ those near the ends lie outside the cube as well. The ends of the five paths differ, so the columns should not be compared with each other in detail.)
#
# ### Are the predictions those of any law?
#
# A predictor that is the exact one of *some* law, be it the wrong one, has a loss that does not depend on the path ({ref}`ex-softness-mismatch`). So walk around a closed loop: raise $\gamma$ of the coarse half of the components, then of the fine half, then lower both in the same order. The exact denoiser comes back with nothing. What a network comes back with shows that its predictions at different states contradict each other, which no likelihood along a single path reveals. (Zero would not prove the contrary.) On the first half of this loop the fine half of the components is cleaner than the coarse one: states that no schedule with $a\ge0$ visits. A second loop stays inside: from $t=0.3$ to $0.7$ at $a=0.4$, on to $a=1.6$, back to $t=0.3$, and back to $a=0.4$.


# %% tags=["hide-input"]
def polygon(states):
    """The midpoints and changes of gamma along straight lines from state to state."""
    return [(a + (b - a) * (k + 0.5) / POINTS, (b - a) / POINTS) for a, b in pairwise(states) for k in range(POINTS)]


lines = []
if name == "digits":
    coarse = labels < labels.median()
    corners = ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0))
    across = polygon([5 * torch.where(coarse, a, b).double()[None] - 4 for a, b in corners])
    turns = ((0.3, 0.4), (0.7, 0.4), (0.7, 1.6), (0.3, 1.6), (0.3, 0.4))
    inside = polygon([gamma_of(soft(labels, a)(t)) for t, a in turns])
    clean = draws(exact)(2 * SAMPLES, rng)
    loops = {kind: losses(path, exact, networks, clean)[1] for kind, path in (("outside", across), ("inside", inside))}
    lines = ["| loop integral, nats | coarse, then fine | inside the family |", "|---|---|---|"]
    for key, file in NETS.items():
        cells = []
        for kind, loop in loops.items():
            mean, error = loop[key].mean().item(), loop[key].std().item() / len(clean) ** 0.5
            cells.append(f"{mean:.2f} ± {error:.2f}")
            record(f"loop_{kind}_{file}", mean, rtol=0.3)
            record(f"loop_{kind}_{file}_error", error, rtol=0.3)
        lines.append(f"| {key} | " + " | ".join(cells) + " |")
Markdown("\n".join(lines))

# %% [markdown]
# Inside the family all four agree with themselves to a few tenths of a nat. Across states that soft schedules never visit, the three networks that were trained on such schedules contradict themselves by {glue:text}`loop_outside_digits-range:.0f` to {glue:text}`loop_outside_digits-scalar:.0f` nats, about twice their excess on any path they know or more. The one trained on the cube does not: {glue:text}`loop_outside_digits-cube:.1f`. So a network that is to be sampled along any path has to be trained on all of them, and pays for it on each. One that was trained on a family serves that family. That is what the paper claims for its networks, too: any schedule *inside the trained range*.

# %% [markdown]
# ## What the paper reports
#
# {cite:t}`gerdes2024gud` train networks on CIFAR-10 and on histology images. We could read the abstract and the beginning of the introduction, the reviews of the paper, summaries by others, and the public code, which holds none of the experiments. So "reported" means: stated there.
#
# | reported | what we get, with exact machines |
# |---|---|
# | CIFAR-10, PCA: likelihood and FID change smoothly with $a\in[0.4,1.6]$; $a\approx1$ nearly the best | the likelihood cannot depend on $a$ ({prf:ref}`thm-softness-path`); the law of few-step samples gets worse with $a$ when the ends match; from the start $\N(0,I)$ and with 256 steps $a=1$ is best in three bases, but not in whitened PCA and not with 64 steps |
# | CIFAR-10, Fourier: two parameters $r$ and $a$; the setting like ordinary diffusion is nearly the best | the meaning of $r$ is not known to us |
# | isotropic and variance-matched prior rank differently under likelihood and FID | the prior acts only through truncation, some samplers, and scaling ({ref}`component-wise noise <unified>`); KL and $W_2$ rank settings differently without a network |
# | histology (PCAM), columns, $b=0.3$ and $0.5$: 3.90 and 3.94 bits per dimension (in which order is not said) | not comparable. If $b$ is the $a$ of columns and $G=10$, all 32 columns and 20 of them move at a time: far from autoregression |
# | CIFAR-10, 3 Haar levels and columns: 3.17 bits per dimension at best | not comparable |
# | strips longer than the window, by repeated extension | exact for columns that are Markov of the order kept; the error is {eq}`eq-softness-extension` |
#
# The definitions of $b$ and of a parameter $r$ of the Fourier experiments are not known to us, nor are networks, ends, samplers and numbers of steps. What the reviewers missed is a run that is truly autoregressive, and a comparison with an autoregressive model. {prf:ref}`thm-softness-ar`, the price table and the count of classes are such runs, without a network.
#
# ### At full size
#
# The same experiments on MNIST at 28 pixels, and on CIFAR-10 in grey at 32 pixels and in colour at 16: Gaussian data with the covariance of all training images, and 32 steps.

# %% tags=["hide-input", "paper-results"]
results = paper("12_softness")
TITLES = {"mnist": "MNIST", "grey": "CIFAR-10, grey", "colour": "CIFAR-10, colour"}
HOMES = {"mnist": "mnist", "grey": "cifar10", "colour": "cifar10"}
at_hand = {key: results[HOMES[key]] for key in TITLES if HOMES[key] in results}
ROWS = {
    "values $D$": ("dimension", "{:.0f}"),
    "range $R$: pixel": ("range_pixel", "{:.1f}"),
    "PCA": ("range_PCA", "{:.1f}"),
    "DCT": ("range_DCT", "{:.1f}"),
    "Haar": ("range_Haar", "{:.1f}"),
    "KL over its law, `ddpm`: least": ("collapse_ddpm_low", "{:.2f}"),
    "greatest": ("collapse_ddpm_high", "{:.2f}"),
    "ordinary diffusion: $I$, nats": ("ordinary_information", "{:.0f}"),
    "participation number": ("ordinary_participation", "{:.0f}"),
}
lines = ["| | " + " | ".join(TITLES[key] for key in at_hand) + " |", "|---" * (len(at_hand) + 1) + "|"]
for label, (entry, form) in ROWS.items():
    lines.append(f"| {label} | " + " | ".join(form.format(r[f"{key}_{entry}"]) for key, r in at_hand.items()) + " |")
Markdown("\n".join(lines)) if at_hand else None

# %% tags=["hide-input", "paper-results"]
lines = []
if at_hand:
    lines = [
        "| blocks, KL | $N$ | diffusion | variance | raster | random | spaced |",
        "|---" * 7 + "|",
    ]
for key, counts in (("mnist", (28, 112)), ("grey", (32, 128))):
    for n in counts if key in at_hand else ():
        values = at_hand[key][f"{key}_blocks_pixel_{n}"]
        lines.append(f"| {TITLES[key]} | {n} | " + " | ".join(f"{v:.3g}" for v in values) + " |")
Markdown("\n".join(lines)) if at_hand else None

# %% tags=["hide-input", "paper-results"]
lines = []
if at_hand:
    lines = ["| one Gaussian, bits per dimension | training images | new images |", "|---|---|---|"]
for key, label in (("mnist", "MNIST, 28 pixels"), ("cifar10", "CIFAR-10, colour, 32 pixels")):
    if key in results:
        values = [results[key][f"anchor_{split}_{key}"] for split in ("train", "test")]
        lines.append(f"| {label} | " + " | ".join(f"{v:.2f}" for v in values) + " |")
Markdown("\n".join(lines)) if at_hand else None

# %% tags=["hide-input", "paper-results"]
lines = []
if "mnist" in results:
    heads = ["$a$ = 0", "1", "4", "11", "11, 256 steps", "pixel by pixel"]
    lines = ["| MNIST, 14 pixels | " + " | ".join(heads) + " |", "|---" * 7 + "|"]
    lines.append("| $X^2$ of the classes | " + " | ".join(f"{v:.0f}" for v in results["mnist"]["chi_square"]) + " |")
Markdown("\n".join(lines)) if lines else None

# %% mystnb={"figure": {"name": "fig-softness-paper", "caption": "Paper profile: divergence of the law of `ddpm` samples in 32 steps from noisy data, against the inverse softness, in four whitened bases. MNIST has 28 pixels a side, CIFAR-10 32 in grey and 16 in colour. Capped schedules, labels by variance, exact denoiser of Gaussian data with the covariance of all training images."}, "image": {"alt": "Three panels with four curves each. For MNIST all rise, PCA highest, DCT and pixels lowest. For CIFAR-10 PCA, DCT and Haar rise together, and the curve of pixels is almost flat below them.", "width": "100%"}} tags=["hide-input", "paper-results"]
fig = None
if at_hand:
    fig, axes = plot.figure(2, 2, size=(5.8, 5.4), sharex=True)
    for axis, (key, r) in zip(axes.flat, at_hand.items(), strict=False):
        draw_sweep(axis, r["softness"], {b: r[f"{key}_{b}_ddpm_32_kl"] for b in HUES}, "kl")
        axis.set_title(TITLES[key], fontsize=11)
        axis.set_xlabel("inverse softness $a$")
        axis.tick_params(labelbottom=True)
    for axis in axes.flat[len(at_hand) :]:
        axis.set_axis_off()
    axes[1, 1].legend(*axes[0, 0].get_legend_handles_labels(), loc="center", frameon=False, fontsize=10)
fig

# %% [markdown]
# The laws of {prf:ref}`prop-softness-laws` hold at full size as well: the ratios in the first table stay near one, though 32 steps are few. (Farthest from it are the pixels of photographs in colour, at every $a$.) On CIFAR-10 the variances of pixels are nearly alike. An order by variance is hardly an order there, and costs little: the curves of pixels are almost flat. In the other bases the labels span about as much as in PCA, and the divergence at $a=2$ is several times that at $a=0$. The participation number says among how many components ordinary diffusion shares the information: about two thirds of the pixels of MNIST, three quarters of those of CIFAR-10 in grey. That many times as many steps would be needed one by one.
#
# Blocks fare as they do for digits: diffusion is ahead of every order, and a spaced order of pixels is the best of them. Even that is farther behind than it was for digits. The classes of MNIST, counted over 300 samples for each setting, show the same, too, only more: the statistic is right together and pixel by pixel, and wrong wherever a column has few steps.
#
# One Gaussian is worth about a bit and a half per value less on CIFAR-10 than the best likelihood reported in the paper. (Our new images are the first 1000 of the test set, the paper's are not said.) That is the scale on which to read differences in the second decimal.
#
# ## Limits and open questions
#
# - Gaussians and small mixtures cannot show what a finite network finds easy to learn. That is what the authors of the paper hope for from other bases and orders. Our results say what is left to explain once steps and ends are accounted for.
# - {prf:ref}`thm-softness-metric` is about `ddpm`, whose draws are independent and whose variance is the least. Other samplers have other metrics. For the step `diagonal` the diagonal terms vanish at this order, and the price of moving correlated components together remains.
# - The law $D(G+aR)^2/(16N^2)$ was proved for independent components. Why it nearly holds for `ddpm` and correlated ones, in three bases, we do not know. Labels that follow the variances may matter.
# - Laws of the samples are compared at $\gamma_c$, with noise left. What is lost in the last step to clean data is not counted.
# - Is there an order, and a basis, in which soft conditioning makes *learning* easier at equal cost? The dial can be set for every network. The comparison has to be made at matched ends, steps, and lengths $G+aR$.
#
# ## Exercises

# %% [markdown]
# :::{exercise} A cosine schedule for every component
# :label: ex-softness-cosine
#
# By {prf:ref}`prop-softness-laws` DDIM multiplies the variance of a whitened principal component by $\prod\cos^2(\theta_n-\theta_{n+1})$. Show that for given ends equal angles are best, and that then $\mathrm{KL}\approx D\pi^4/(64N^2)$ if the ends are far apart. Check it on digits. What is this schedule called for one component?
# :::

# %% [markdown]
# :::{solution-start} ex-softness-cosine
# :class: dropdown
# :::
#
# $-\sum\log\cos\delta_n$ with $\sum\delta_n=\Theta$ fixed is least at equal $\delta_n=\Theta/N$, as $-\log\cos$ is convex. The variance is then $\cos^{2N}(\Theta/N)\approx1-\Theta^2/N$. With $\Theta\approx\pi/2$ the relative error is $e=\pi^2/(4N)$, and $\tfrac D4e^2=D\pi^4/(64N^2)$. With $\alpha=\cos\theta$ and $\theta$ linear in time it is the cosine schedule, here for the ratio of the *whitened* component.

# %%
if name == "digits":
    law, _, labels = world["PCA"]
    n, turn_by = 256, torch.linspace(1, 0, 257).double()
    first, last = ((torch.tensor(g).double() / 2).exp().atan() for g in (NOISY_END, CLEAN_END))
    angles = last + turn_by * (first - last)
    even = [at_gamma((2 * angle.tan().log()).expand(1, *law.shape)) for angle in angles]
    found = gaussian_kl(noised_law(law, even[-1]), exact_law(law, even, ddim))
    wide = (first - last).item()
    assert abs(found / (64 * wide**4 / (4 * n**2)) - 1) < 0.01
    plain = walk(capped(labels, 0.0), n)
    assert found < 0.6 * gaussian_kl(noised_law(law, plain[-1]), exact_law(law, plain, ddim))

# %% [markdown]
# :::{solution-end}
# :::

# %% [markdown]
# :::{exercise} A wrong law is still consistent
# :label: ex-softness-mismatch
#
# Let $\hat\varepsilon_q$ be the exact predictor for a law $q$ that is *not* that of the data $p$. Show that its loss $-\tfrac12\int\sum_i\E_p(\varepsilon_i-\hat\varepsilon_{q,i})^2\,d\gamma_i$ does not depend on the path either. Then halve the first component of the exact denoiser, and measure the loss on two paths. What does a dependence on the path reveal? Why would it not do to halve *both* components?
# :::

# %% [markdown]
# :::{solution-start} ex-softness-mismatch
# :class: dropdown
# :::
#
# Let $q_\gamma$ be the noised law in the coordinates $y_i=e^{-\gamma_i/2}\chi_i(0)+\varepsilon_i$. For the true law the excess of $\E_p(\varepsilon_i-\hat\varepsilon_{q,i})^2$ over $m_i$ is $\E_p(\hat\varepsilon_{p,i}-\hat\varepsilon_{q,i})^2$, which is minus twice the derivative of $\mathrm{KL}(p_\gamma\Vert q_\gamma)$ with respect to $\gamma_i$ (by the equation of diffusion in one component). So the loss is $I+\mathrm{KL}(p_\gamma\Vert q_\gamma)$ at the clean end less the same at the noisy end. A predictor whose loss depends on the path is therefore the predictor of *no* law. Independence alone does not prove the contrary: $\E(\chi_i(0)-cD_i)^2$ is $(1-c)^2$ times the variance of $\chi_i$ plus $1-(1-c)^2$ times the least error, because $\E D_i^2$ is their difference; so with the same $c$ for all components the loss is a gradient again.

# %%
truth_law, wrong_law = (gaussian_law(torch.zeros(2), torch.tensor([[1, r], [r, 1]]), (2,)) for r in (0.9, 0.3))


def loss(law, guess, scale, path):
    """(1/2) int sum_i E (eps_i - eps_hat_i)^2 dgamma_i for guesses scale * D, D of a Gaussian, trapezoid rule."""
    errors, gammas = [], torch.cat([gamma_of(level) for level in path])
    for level in path:
        eye, (a, s) = torch.eye(2).double(), (part[0] for part in level.on(torch.zeros(1, 2).double()))
        M = scale[:, None] * guess.denoise(eye, level).T  # the guess is M x
        off = (eye - M * a) @ law.cov @ (eye - M * a).T + (M * s) @ (M * s).T  # covariance of x0 - M x
        errors.append(off.diagonal() * (a / s) ** 2)
    errors = torch.stack(errors)
    return -((errors[1:] + errors[:-1]) / 2 * gammas.diff(dim=0)).sum().item() / 2


ways = [walk(soft(torch.zeros(2), 0.0, -4, 4), 400), walk(stairs(torch.arange(2), -4.0, 4.0), 800)]
cases = [
    (truth_law, (1, 1), True),
    (wrong_law, (1, 1), True),
    (truth_law, (0.5, 0.5), True),
    (truth_law, (0.5, 1), False),
]
for guess, scale, same in cases:
    one, other = (loss(truth_law, guess, torch.tensor(scale).double(), way) for way in ways)
    assert (abs(one - other) < 1e-3 * one) == same

# %% [markdown]
# :::{solution-end}
# :::

# %% [markdown]
# :::{exercise} Memorising one pixel at a time
# :label: ex-softness-memory
#
# Take the kernel density of a few training digits with a small bandwidth $h$, and sample it in the autoregressive limit, pixel by pixel with many steps each. What do you get as $h\to0$? Does softness change what an ideal machine memorises?
# :::

# %% [markdown]
# :::{solution-start} ex-softness-memory
# :class: dropdown
# :::
#
# Ancestral sampling is exact for this law too, and the law is that of the training images with a little noise. So every sample is a training image, at every $a$: the first pixels choose among all images, and each next one among those that agree so far. With $h=0$ and finished pixels without noise only exact agreement would count, and the score does not exist; $h>0$ is what makes the limit well defined.

# %%
few = seen.x0[:20, :, 2:5, 2:5].double()
machine = KernelDensity.fit(few, 0.02)
order = torch.arange(9).reshape(1, 3, 3)
for path in (walk(soft(order, 0.0, -9, 9), 200), walk(stairs(order, -9.0, 9.0), 900)):
    images = sample(machine, normal(30, 1, 3, 3), path, ddpm, rng)
    distance = torch.cdist(images.flatten(1), few.flatten(1)).amin(1)
    assert distance.max() < 0.25  # twelve deviations of the kernel; training images are farther apart

# %% [markdown]
# :::{solution-end}
# :::

# %% [markdown]
# :::{exercise} The best order for a line
# :label: ex-softness-line
#
# Sixteen pixels in a line are a stationary Markov chain, $\Cov[\chi_i,\chi_j]=\varrho^{|i-j|}$. Draw them in two blocks of eight. Compare: the left half and then the right half; the odd places and then the even ones. Which conditional correlations remain in each case? What does the second block cost in the second case?
# :::

# %% [markdown]
# :::{solution-start} ex-softness-line
# :class: dropdown
# :::
#
# Given the odd places, the even ones are independent: each depends on its two neighbours only. So the second block costs nothing, and the first costs a chain with $\varrho^2$ in place of $\varrho$. For halves the second block is a chain given one end only, and costs two thirds of the first.

# %%
place = torch.arange(16.0).double()
chain = gaussian_law(torch.zeros(16), 0.9 ** (place[:, None] - place).abs(), (16,))
halves_cost, odd_even = block_kl(chain, (place >= 8).long()), block_kl(chain, (place % 2).long())
assert odd_even < 0.5 * halves_cost
C = chain.cov
even_given_odd = C[1::2, 1::2] - C[1::2, ::2] @ torch.linalg.solve(C[::2, ::2], C[::2, 1::2])
assert_close(even_given_odd, torch.diag(even_given_odd.diagonal()), atol=1e-12, rtol=0)
assert_close(odd_even, -7 / 2 * math.log(1 - 0.9**4))  # seven links of the chain with 0.81

# %% [markdown]
# :::{solution-end}
# :::
