# ---
# jupyter:
#   jupytext: {text_representation: {extension: .py, format_name: percent}}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   scorebook:
#     goals:
#       - prove which denoiser is best among those that are local, that share weights, or that commute with shifts
#       - write these machines in a few lines, and at a cost per pair of patches that hardly depends on the window
#       - say which patches a pixel is compared with near the border, and why a padding of zeros betrays the place
#       - place every machine in one lattice of exact limits
#       - count all images that a local machine can make of two, and measure which of them it does make
#     minutes: 80
#     needs: [ideal-machine]
#     paper: []
# ---

# %% [markdown]
# (locality)=
# # Locality and equivariance
#
# The {term}`ideal machine` is the best denoiser of the training set, and it can only return training images. A convolutional network cannot be the ideal machine. It sees the image through {term}`windows <window>`, and it treats all places alike. {cite:t}`kamb2025creativity` ask for the best denoiser *under these two constraints*. The answer has a closed form again, and it makes new images.
#
# :::{admonition} In this chapter
# You will prove what the best local denoiser is, what becomes of it when all places share their weights, and what {term}`equivariance` alone brings. You will write these machines in a few lines, find out what happens at the border, and order them all in one lattice of exact limits. Then comes the smallest example of creativity there is: two training images, one black and one white. All images that the machine can make of them can be counted. The machines and the first three theorems are, in substance, from the paper; the border, the lattice and the counts are worked out here.
#
# It takes about 80 minutes. It needs {ref}`the ideal machine <ideal-machine>`.
# :::

# %% tags=["parameters"]
profile = "quick"
seed = 0
data = ["digits"]

# %% tags=["hide-input"]
import math
from collections import Counter
from dataclasses import dataclass
from itertools import product

import torch
from IPython.display import Markdown
from torch.nn.functional import pad
from torch.testing import assert_close

from scorebook import record, record_data
from scorebook.slider import frame_slider
from scoremachines import (
    Equivariant,
    EquivariantLocal,
    Gaussian,
    Ideal,
    Local,
    Machine,
    Noise,
    SoftMean,
    cosine_legacy,
    edm,
    levels,
    metrics,
    plot,
    sample,
    trajectory,
)
from scoremachines import data as datasets

PROBES, BATCH, RUNS = 48, 20000, 10  # images at each noise level; seeds at once on the smallest tori, and how often
torch.set_num_threads(1)  # the images are small: threads would only wait for each other
rng = torch.Generator().manual_seed(seed)
train, test = (datasets.load(data[0], split) for split in ("train", "test"))
for images in (train, test):
    record_data(images)
y = train.x0
record("count", len(y))


def normal(*shape, dtype=torch.float64):
    """Standard normal numbers from the chapter's generator."""
    return torch.randn(shape, generator=rng, dtype=dtype)


def choose(images, n):
    """n different images, drawn without replacement."""
    return images[torch.randperm(len(images), generator=rng)[:n]]


# %% [markdown]
# ## What a convolutional network cannot do
#
# The ideal machine is the only minimiser of the training loss ({prf:ref}`thm-ideal-minimiser`). A network that makes new images does not reach the minimum. It may be that it cannot. Two facts hold for every network that is made of convolutions only:
#
# **Locality.** The output at a pixel is computed from a window around it. With $k$ layers of $3\times3$ filters the window measures $2k+1$ pixels.
#
# **Equivariance.** The same filters act at every place. If the image is shifted, the output is shifted, at least away from the border.
#
# The ideal machine has neither property. Its weights are those of whole images, so each pixel of the output looks at every pixel of the input. {numref}`fig-locality-reach` shows what one pixel looks at in four machines, of which three are built in this chapter.

# %% tags=["hide-input"]
P = 3
few = y[:100].double()  # formulas written by hand are checked on few images
reach_machines = {
    "ideal": Ideal.fit(few),
    "equivariant": Equivariant.fit(few),
    "local": Local.fit(few, P),
    "equivariant local": EquivariantLocal.fit(few, P, "zeros"),
}
at, noise = (4, 3), edm(0.7)
x = noise.add(few[:16], normal(16, *y.shape[1:])).requires_grad_()
reach = {}
for key, machine in reach_machines.items():
    (slope,) = torch.autograd.grad(machine.denoise(x, noise)[:, 0, *at].sum(), x)
    reach[key] = slope[:, 0].square().mean(0)
x = x.detach()
inside = torch.zeros(y.shape[2:], dtype=torch.bool)
inside[at[0] - 1 : at[0] + 2, at[1] - 1 : at[1] + 2] = True
assert all(reach[key][~inside].sum() == 0 for key in ("local", "equivariant local"))
record("reach_ideal", 100 * (reach["ideal"][~inside].sum() / reach["ideal"].sum()).item(), rtol=0.05)

# %% mystnb={"figure": {"name": "fig-locality-reach", "caption": "What one pixel looks at, for machines of a hundred digits at $\\sigma=0.7$: root mean square, over noisy training images, of the derivative of the output at the framed pixel with respect to every pixel of the input. Each panel has its own scale, dark is zero. The ideal and the equivariant machine look at all pixels. The local machines, here with a window of 3, look at nine."}, "image": {"alt": "Four coloured maps of eight by eight pixels. In the two upper ones, ideal and equivariant, all pixels have some brightness, the framed pixel and its neighbours among the brightest. In the two lower ones, local and equivariant local, only the three by three block around the framed pixel is bright and the rest is dark.", "width": "75%", "classes": "dark-light"}} tags=["hide-input"]
fig, axes = plot.figure(2, 2, size=(4.8, 5.2))
for axis, (key, square) in zip(axes.flat, reach.items(), strict=True):
    axis.imshow(square.sqrt(), cmap="viridis", vmin=0)
    axis.add_patch(plot.Rectangle((at[1] - 0.5, at[0] - 0.5), 1, 1, fill=False, edgecolor="white", lw=2))
    axis.set(xticks=[], yticks=[])
    axis.set_title(key, fontsize=12)
    axis.grid(False)
fig

# %% [markdown]
# For the ideal machine {glue:text}`reach_ideal:.0f` % of the squared sensitivity lie outside of the window of nine pixels. So which function has the smallest loss among those that a network could compute? Whether trained networks compute *that* function is another question, for measurements. First the function.
#
# ## The best function of a window
#
# Let $u$ run over the $n=HW$ pixels of an image, and let $x(u)\in\R^C$ be its values there, one for each channel. (With an argument in the grid, $x(u)$ is a pixel; $D(x)_u$ is the pixel $u$ of the denoised image.)
#
# :::{prf:definition} Window, local denoiser
# :label: def-locality-window
#
# The *window* $\Omega_u(x)$ of half-width $p$ holds the values $x(v)$ of all pixels $v$ that differ from $u$ by at most $p$ rows and at most $p$ columns, and zeros for places outside of the image. Its width is $2p+1$. A denoiser $f$ is *local* if $f(x)_u=f_u(\Omega_u(x))$ at every pixel, with any functions $f_u$.
# :::
#
# :::{prf:theorem} The best local denoiser
# :label: thm-locality-local
#
# Let $x_0$ have finite second moments under some law, and let $D$ be the denoiser of that law. Put
#
# $$
# \begin{split}
# &D_{\rm loc}(x)_u\\
# &\quad=\E[x_0(u)\mid\Omega_u(x)]\\
# &\quad=\E[D(x)_u\mid\Omega_u(x)].
# \end{split}
# $$ (eq-locality-local)
#
# Then for every local $f$ with finite error
#
# $$
# \begin{split}
# &\E\norm{f-x_0}^2\\
# &\quad=\E\norm{f-D_{\rm loc}}^2\\
# &\qquad+\E\norm{D_{\rm loc}-D}^2\\
# &\qquad+\E\norm{D-x_0}^2 ,
# \end{split}
# $$ (eq-locality-pythagoras)
#
# all at the same $x$. So $D_{\rm loc}$ is the best local denoiser, and also the local function that comes closest to $D$. For the empirical law of the images $y_1,\dots,y_N$ and $\sigma>0$,
#
# $$
# \begin{split}
# &D_{\rm loc}(x)_u=\sum_iw_{u,i}\,y_i(u),\\
# &w_u=\softmax_i(-\ell_{u,i}),\\
# &\ell_{u,i}\\
# &\quad=\frac{\norm{\Omega_u(x)-\alpha\,\Omega_u(y_i)}^2}{2\sigma^2}.
# \end{split}
# $$ (eq-locality-softmax)
# :::
#
# :::{prf:proof}
# The two forms of $D_{\rm loc}$ agree because $\Omega_u(x)$ is a function of $x$: the mean given the window is the mean, given the window, of the mean given $x$. Write $f-x_0$ as the sum of $f-D_{\rm loc}$, $D_{\rm loc}-D$ and $D-x_0$, and look at pixel $u$. The third has mean zero given $x$, and the first two are functions of $x$. The second has mean zero given $\Omega_u(x)$, and the first is a function of $\Omega_u(x)$. So all cross terms vanish. (The terms are finite, since conditional means do not raise second moments.) Sum over $u$.
#
# For the empirical law let $I$ be the number of the image, uniform on $1,\dots,N$. Given $I=i$ the entries of $\Omega_u(x)$ inside the image are independent and normal, with means $\alpha\,\Omega_u(y_i)$ and variance $\sigma^2$. Those outside are zero in both windows and add nothing to the distance. Bayes' rule gives the weights, as in {prf:ref}`thm-ideal-softmax`.
# :::
#
# This is the {term}`local machine`. Compare it with {eq}`eq-ideal-softmax`: the distance between images has become a distance between windows, and *every pixel has a posterior of its own*. The upper left corner may find its window in one training image, and the lower right corner in another. That is all there is to creativity here.
#
# {eq}`eq-locality-pythagoras` splits the error of any local network in three: what training has left undone, the price of locality, and what nobody can know. Here are windows and machine, in ten lines.


# %%
def windows(x, p):
    """All windows of images (N, C, H, W), as (N, H, W, C (2p + 1)^2)."""
    large = pad(x, (p, p, p, p))
    return large.unfold(2, 2 * p + 1, 1).unfold(3, 2 * p + 1, 1).permute(0, 2, 3, 1, 4, 5).flatten(3)


def local(x, y, noise, p):
    square = (windows(x, p)[:, None] - noise.alpha * windows(y, p)).square().sum(-1)
    w = (-square / (2 * noise.sigma**2)).softmax(1)
    return torch.einsum("bnhw,nchw->bchw", w, y)


for noise, p in product((edm(0.3), Noise(0.6, 0.8), Noise(0.0, 1.0)), (0, 1, 3)):
    x = noise.add(few[:8], normal(8, *y.shape[1:]))
    assert_close(local(x, few, noise, p), Local.fit(few, 2 * p + 1).denoise(x, noise))

# %% [markdown]
# ### Is it best?
#
# The theorem can be tested in two ways. First, the residual $x_0(u)-D_{\rm loc}(x)_u$ must be uncorrelated with *every* function of the window, on noised training images. We try three, at every pixel, and count the mean in standard errors. Second, the error on training images must be below that of any other local function. As the rival we take the best *affine* local function, a Wiener filter ({prf:ref}`thm-wiener`) for each window. It needs only the mean and the covariance of the windows.


# %%
def affine(x, y, noise, p):
    """The best affine function of each window."""
    clean, centre = windows(y, p), (2 * p + 1) ** 2 // 2  # one channel
    mean, deviation = clean.mean(0), clean - clean.mean(0)
    cov = torch.einsum("nhwi,nhwj->hwij", deviation, deviation) / len(y)
    noisy = noise.alpha**2 * cov + noise.sigma**2 * torch.eye(cov.shape[-1]).to(cov)
    gain = noise.alpha * torch.linalg.solve(noisy, cov[..., centre])
    return (mean[..., centre] + ((windows(x, p) - noise.alpha * mean) * gain).sum(-1))[:, None]


assert_close(affine(x, few, edm(0.5), 7), Gaussian.fit(few).denoise(x, edm(0.5)))  # a window that sees everything

noise, count = edm(0.5), 4000
machine, z, error = Local.fit(y, P), {}, {}
for split, images in (("training", y), ("held out", test.x0)):
    x0 = images[torch.randint(len(images), (count,), generator=rng)]
    x = noise.add(x0, normal(*x0.shape, dtype=torch.float32))
    residual = (x0 - machine.denoise(x, noise))[:, 0, ..., None]
    window = windows(x, P // 2)
    tried = torch.stack([window[..., 4], window.mean(-1), torch.tanh(window[..., 4] * window.mean(-1))], -1)
    both = (residual * (tried - tried.mean(0)))[:, residual.std(0)[..., 0] > 0.1]  # not where every image is black
    z[split] = both.mean(0) / both.std(0) * count**0.5
    rival = affine(x.double(), y.double(), noise, P // 2)
    error[split] = residual.square().mean().item(), metrics.mse(rival, x0).mean().item()
assert z["training"].abs().max() < 5
assert error["training"][0] < error["training"][1]

# %% tags=["remove-cell"]
record("tests", z["training"].numel())
for split, tag in (("training", "train"), ("held out", "held")):
    record(f"z_{tag}", z[split].square().mean().sqrt().item(), rtol=0.05)
    record(f"z_max_{tag}", z[split].abs().max().item(), rtol=0.1)
    record(f"error_local_{tag}", error[split][0], rtol=0.02)
    record(f"error_affine_{tag}", error[split][1], rtol=0.02)

# %% [markdown]
# On training images the {glue:text}`tests` correlations have a root mean square of {glue:text}`z_train:.2f` standard errors, where one is expected of pure chance, and none exceeds {glue:text}`z_max_train:.1f`. The error per pixel is {glue:text}`error_local_train:.4f`, that of the affine rival {glue:text}`error_affine_train:.4f`. On held-out images the theorem promises nothing, since they do not follow the training law: there the root mean square is {glue:text}`z_held:.1f` standard errors. Still, the local machine has the error {glue:text}`error_local_held:.4f`, and the rival {glue:text}`error_affine_held:.4f`.
#
# ### A score of windows
#
# The ideal machine is the score of a density. The local machine is the score of many.
#
# :::{prf:proposition} Each pixel climbs the density of its own window
# :label: prop-locality-score
#
# Let $\sigma>0$, and let $p_u$ be the density of the entries of $\Omega_u(x)$ that lie inside the image. Then
#
# $$
# \begin{split}
# &\frac{\alpha D_{\rm loc}(x)_u-x(u)}{\sigma^2}\\
# &\quad=\nabla_{x(u)}\log p_u(\Omega_u(x)),
# \end{split}
# $$ (eq-locality-score)
#
# and for $\alpha>0$ the derivative of $D_{\rm loc}(x)_u$ with respect to $x(v)$ is $\frac{\alpha}{\sigma^2}\Cov[x_0(u),x_0(v)\mid\Omega_u(x)]$ if $v$ lies in the window of $u$, and zero otherwise.
# :::
#
# :::{prf:proof}
# The window is a noisy version of the clean window, at the same level. {eq}`eq-locality-score` is the central component of Tweedie's formula ({prf:ref}`thm-noise-tweedie`) for it, and the derivative is the second identity ({prf:ref}`thm-noise-tweedie-second`).
# :::
#
# The derivative of pixel $u$ by pixel $v$ conditions on the window of $u$, that of $v$ by $u$ on the window of $v$. In general the two differ. So the Jacobian is not symmetric, the local machine is not the gradient of any function, and there is no density whose denoiser it is. One can still walk along $dx=D\,d\alpha+\hat\varepsilon\,d\sigma$, and this is what the samplers do. But this flow no longer carries the law of noisy training images with it, and nothing says which law its images follow.

# %%
noise = edm(0.5)
x = noise.add(few[:4], normal(4, *y.shape[1:]))
machine = Local.fit(few, P)


def jacobian(machine, x):
    rows = torch.func.jacrev(lambda image: machine.denoise(image[None], noise)[0].flatten())
    return torch.stack([rows(image).flatten(1) for image in x])


def log_density(query):
    """The log density of every window of one image, up to a constant; query (H, W, D) are the windows."""
    return torch.logsumexp(-(query - windows(few, P // 2)).square().sum(-1) / (2 * noise.sigma**2), 0)


query = windows(x[:1], P // 2)[0].requires_grad_()
(slope,) = torch.autograd.grad(log_density(query).sum(), query)
assert_close(slope[..., P * P // 2], machine.score(x, noise)[0, 0])

asymmetry = {}
for key, one in (("ideal", Ideal.fit(few)), ("local", machine)):
    J = jacobian(one, x)
    asymmetry[key] = ((J - J.mT).norm() / (2 * J.norm())).item()
assert asymmetry["ideal"] < 1e-10
record("asymmetry", 100 * asymmetry["local"], rtol=0.05)

# %% [markdown]
# For a window of 3 and digits at $\sigma=0.5$ the antisymmetric part has {glue:text}`asymmetry:.0f` % of the norm of the Jacobian. For the ideal machine it vanishes.
#
# ### One function for all places
#
# Now share the weights: $f(x)_u=g(\Omega_u(x))$ with the same $g$ at every pixel. Let us begin on a {term}`torus`, where the windows wrap around and all pixels are alike. We then assume that the window fits into the image, $2p+1\le\min(H,W)$, so that no pixel is seen twice.
#
# :::{prf:theorem} The best shared function of a window
# :label: thm-locality-shared
#
# Among the denoisers $f(x)_u=g(\Omega_u(x))$ the error is smallest for
#
# $$
# \begin{split}
# &g(\omega)\\
# &\ \ =\E[x_0(U)\mid\Omega_U(x)=\omega]
# \end{split}
# $$ (eq-locality-shared)
#
# where the pixel $U$ is uniform and independent of $x_0$ and $\varepsilon$. For the empirical law, $\sigma>0$, and windows that wrap,
#
# $$
# \begin{split}
# &D(x)_u=\sum_{i,v}w_{u,i,v}\,y_i(v),\\
# &w_u=\softmax_{i,v}(-\ell_{u,i,v}),\\
# &\ell_{u,i,v}\\
# &\quad=\frac{\norm{\Omega_u(x)-\alpha\,\Omega_v(y_i)}^2}{2\sigma^2}.
# \end{split}
# $$ (eq-locality-pooled)
#
# For windows with zeros outside the sum runs over those $v$ only whose window overlaps the border like that of $u$: the same entries lie outside.
# :::
#
# :::{prf:proof}
# The squared error, summed over pixels, is $n$ times its mean over a random pixel, $n\,\E\norm{g(\Omega_U(x))-x_0(U)}^2$. This is a problem of guessing $x_0(U)$ from the observation $\Omega_U(x)$. By {prf:ref}`thm-noise-mse`, with this pair in place of $(x_0,x)$, the conditional mean is best.
#
# For the empirical law the hidden pair $(I,U)$ is uniform. If windows wrap, the observation given $(I,U)=(i,v)$ has the law $\N(\alpha\,\Omega_v(y_i),\sigma^2I)$, and Bayes' rule gives {eq}`eq-locality-pooled`. If they are filled with zeros, the entries outside are exactly zero, and those inside are almost surely not. So the zeros of $\omega$ tell which entries lie outside, and every $v$ with another overlap has posterior probability zero. The rest have normal densities on the same entries, and Bayes' rule applies to them.
# :::
#
# This is the {term}`equivariant local machine`. The {term}`dictionary` of a pixel now has the patches of *all places* (on a torus), $n$ times as many as before. With zeros outside it has more than before in the interior and as many as before in the corners; we come back to this.
#
# ### All shifts of all images
#
# What does equivariance bring without locality? Let a finite group $G$ act on images by orthogonal matrices $T$, such as the $n$ circular shifts $(T_dx)(u)=x(u+d)$. A denoiser is *equivariant* if $f(Tx)=Tf(x)$ for all of them.
#
# :::{prf:theorem} The best equivariant denoiser
# :label: thm-locality-equivariant
#
# Let $T$ be uniform on $G$ and independent of all else. The best equivariant denoiser of a law is the denoiser of the law of $Tx_0$. For the empirical law it is the ideal machine of the {term}`orbit`: of all images $Ty_i$.
# :::
#
# :::{prf:proof}
# Let $f$ be equivariant. Since $T$ is orthogonal, $\norm{f(x)-x_0}=\norm{f(Tx)-Tx_0}$. And $Tx=\alpha Tx_0+\sigma T\varepsilon$, where $T\varepsilon$ is standard normal, whatever $T$ is. So $f$ has the same error under the law of $x_0$ and under that of $Tx_0$. Under the latter the smallest error of all functions is that of its denoiser, $D_G$. It remains to see that $D_G$ is equivariant. For a fixed $S\in G$ the pair $(STx_0,STx)$ has the same law as $(Tx_0,Tx)$, because $ST$ is uniform too. Hence $D_G(Sx)=S\,D_G(x)$.
# :::
#
# Both theorems agree where they meet: a function that is local *and* commutes with all shifts of a torus is a shared function of windows. Kamb and Ganguli define this machine but do not evaluate it. It still memorises: its samples are shifted training images. Equivariance without locality is not creative.


# %%
def orbit(y):
    """All circular shifts of all images."""
    return torch.cat([y.roll(shift, (2, 3)) for shift in product(*map(range, y.shape[2:]))])


for noise in (edm(0.3), Noise(0.6, 0.8)):
    x = noise.add(few[:8], normal(8, *y.shape[1:]))
    assert_close(Ideal.fit(orbit(few)).denoise(x, noise), Equivariant.fit(few).denoise(x, noise), rtol=1e-7, atol=1e-7)
    for machine in (Equivariant.fit(few), EquivariantLocal.fit(few, 5, "circular")):
        shifted = machine.denoise(x.roll((3, 2), (2, 3)), noise)
        assert_close(shifted, machine.denoise(x, noise).roll((3, 2), (2, 3)), rtol=1e-7, atol=1e-7)

# %% [markdown]
# ### The price of a constraint
#
# All three classes of functions are linear spaces, and the best member of each is the projection of the ideal machine $D$ on it. So the argument behind {eq}`eq-locality-pythagoras` serves them all: *on training images* a constraint raises the error by the mean square of $D_{\rm con}-D$, the distance of the best constrained machine from the ideal one. On new images there is no such law, and the constraint may pay.

# %% tags=["hide-input"]
sigmas = [0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0]
splits = {"training": y, "held out": test.x0}
machines = {
    "ideal": Ideal.fit(y),
    "equivariant": Ideal.fit(orbit(y)),  # the same as Equivariant, and for images as small as these the fastest way
    "local": Local.fit(y, P),
    "equivariant local": EquivariantLocal.fit(y, P, "zeros"),
    "one Gaussian": Gaussian.fit(y),
}
errors = {(split, key): [] for split in splits for key in (*machines, "affine local")}
gaps = []
for split, images in splits.items():
    for noise in map(edm, sigmas):
        x0 = choose(images, PROBES)
        x = noise.add(x0, normal(*x0.shape, dtype=torch.float32))
        guess = {key: machine.denoise(x, noise) for key, machine in machines.items()}
        guess["affine local"] = affine(x.double(), y.double(), noise, P // 2)
        found = {key: metrics.mse(value, x0) for key, value in guess.items()}
        for key, value in found.items():
            errors[split, key].append(value.mean().item())
        if split == "training":  # error of the coarser machine - error of the finer one - distance, image by image
            for coarse, fine in (("local", "ideal"), ("equivariant local", "local"), ("equivariant", "ideal")):
                gap = found[coarse] - found[fine] - metrics.mse(guess[coarse], guess[fine])
                if gap.std() > 1e-6:  # at small noise the ideal machine has no error, and both sides are equal
                    gaps.append((gap.mean() / gap.std() * len(gap) ** 0.5).item())
        if noise.sigma == 0.2:
            for key in found:
                record(f"{key.replace(' ', '_')}_{split[:4]}", found[key].mean().item(), rtol=0.02)
assert max(map(abs, gaps)) < 5
record("pythagoras", torch.tensor(gaps).square().mean().sqrt().item(), rtol=0.1)
record("probes", PROBES)

# %% mystnb={"figure": {"name": "fig-locality-price", "caption": "Denoising error relative to one Gaussian, on noised training digits (left) and on held-out digits (right); all windows have width 3. On training images every constraint raises the error, and the ideal machine, which has next to no error at small noise, leaves the frame. On held-out images at small noise the order is reversed: the more constraints, the smaller the error. At high noise nine pixels say too little, and the local machines fall behind the ideal one. The equivariant ones fall back furthest, as they know least of where they are."}, "image": {"alt": "Two panels on logarithmic axes. Left: the curves of the ideal and the equivariant machine rise from far below, the local and the equivariant local one from less far below; all come near one or exceed it at high noise, the equivariant curves reaching two. Right: at small noise the ideal and the equivariant machine lie far above, the local one lower, the equivariant local one lower still; the two local curves dip below one at medium noise; at high noise all but the equivariant curves merge at one.", "width": "100%"}} tags=["hide-input"]
fig, axes = plot.figure(1, 2, size=(6.4, 4.2), sharey=True)
base = {split: torch.tensor(errors[split, "one Gaussian"]) for split in splits}
shown = [key for key in (*machines, "affine local") if key != "one Gaussian"]
for axis, split in zip(axes, splits, strict=True):
    for key, color, mark in zip(shown, ("#000000", "#CC79A7", "#0072B2", "#D55E00", "#009E73"), "xvos^", strict=True):
        style = {"ideal": "--", "equivariant": "--", "affine local": ":"}.get(key, "-")
        values = torch.tensor(errors[split, key]) / base[split]
        axis.plot(sigmas, values, style, color=color, marker=mark, ms=4, lw=1.5, label=key)
    axis.axhline(1, color="black", lw=0.8)
    axis.set(xscale="log", yscale="log", xlabel="noise level σ", ylim=(0.05, 50), title=split)
    axis.set_yticks([0.1, 1, 10], ["0.1", "1", "10"])
axes[0].set_ylabel("error / one Gaussian's")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=10)
fig

# %% [markdown]
# At $\sigma=0.2$ the ideal machine has the error {glue:text}`ideal_trai:.4f` on training digits, the local machine {glue:text}`local_trai:.4f` and the equivariant local one {glue:text}`equivariant_local_trai:.4f`. On held-out digits the three are {glue:text}`ideal_held:.4f`, {glue:text}`local_held:.4f` and {glue:text}`equivariant_local_held:.4f`, and one Gaussian has {glue:text}`one_Gaussian_held:.4f`. Equivariance alone hardly helps: {glue:text}`equivariant_held:.4f`. On training images the differences of the errors agree with the mean squared distances of the machines, as they must: over all noise levels the deviations have a root mean square of {glue:text}`pythagoras:.2f` standard errors ({glue:text}`probes` images each).
#
# No single window is good at all noise levels. {ref}`The next chapter <mosaics>` lets it depend on the noise.
#
# ## The sum over offsets
#
# Computed as written, {eq}`eq-locality-pooled` compares $n$ windows with $n$ patches of each training image, at $C(2p+1)^2$ numbers a pair. There is a better way. Sort the pairs $(u,v)$ by their {term}`offset` $d=v-u$.
#
# :::{prf:proposition} Distances of windows are box sums
# :label: prop-locality-offsets
#
# For an image $x$, a training image $y$ and an offset $d$ let
#
# $$
# \begin{split}
# &P_d(v)\\
# &\ \ =\sum_c\bigl(x_c(v)-\alpha y_c(v+d)\bigr)^2.
# \end{split}
# $$ (eq-locality-plane)
#
# Then the squared distance between the window of $x$ at $u$ and the patch of $\alpha y$ at $u+d$ is
#
# $$
# \sum_{|e_1|,|e_2|\le p}P_d(u+e).
# $$ (eq-locality-box)
#
# Places outside are wrapped, or count as zero where both windows are filled with zeros.
# :::
#
# :::{prf:proof}
# The entry $e$ of the window at $u$ is $x(u+e)$, that of the patch at $u+d$ is $y(u+d+e)$. Their squared difference is $P_d(u+e)$.
# :::
#
# So one plane serves all pixels $u$ at once, and the value that belongs to the pair is $y(u+d)$: a shifted copy of the image. No patch is ever formed. The softmax over all offsets and images streams, by {prf:ref}`thm-ideal-monoid`, one offset after another.


# %%
def box(plane, p):
    """Sums over windows that wrap around, first along columns, then along rows."""
    for axis in (-1, -2):
        plane = sum(plane.roll(k, axis) for k in range(-p, p + 1))
    return plane


def sum_over_offsets(x, y, noise, p):
    soft = SoftMean(torch.full(x[:, 0].shape, -math.inf).double(), torch.zeros_like(x[:, 0]), torch.zeros_like(x))
    for d in product(*map(range, y.shape[2:])):
        value = y.roll(d, (2, 3))
        plane = (x[:, None] - noise.alpha * value).square().sum(2)
        logits = -box(plane, p) / (2 * noise.sigma**2)  # (B, N, H, W)
        peak = logits.amax(1)
        weights = (logits - peak[:, None]).exp()
        met = SoftMean(peak, weights.sum(1), torch.einsum("bnhw,nchw->bchw", weights, value))
        soft = merge(soft, met)
    return soft.total / soft.mass[:, None]


def merge(a, b):
    peak = torch.maximum(a.peak, b.peak)
    left, right = (a.peak - peak).exp(), (b.peak - peak).exp()
    total = left[:, None] * a.total + right[:, None] * b.total
    return SoftMean(peak, left * a.mass + right * b.mass, total)


for noise, p in product((edm(0.2), Noise(0.6, 0.8)), (0, 1, 3)):
    x = noise.add(few[:4], normal(4, *y.shape[1:]))
    machine = EquivariantLocal.fit(few, 2 * p + 1, "circular")
    assert_close(sum_over_offsets(x, few, noise, p), machine.denoise(x, noise))

# %% [markdown]
# What does a pair cost? With explicit patches of $k=C(2p+1)^2$ numbers it takes $3k-1$ operations to form the distance (subtract, square, add; we take $\alpha y$ as given). With planes it takes $3C-1$ operations for the entry of the plane, and the box sums. Summed as in the code above, one axis after the other, these are $4p$ additions. With running sums, in which each window differs from the last by one entry added and one subtracted, they are four, whatever the window.

# %% tags=["hide-input"]
costs = {(c, w): (3 * c * w * w - 1, 3 * c - 1 + 2 * (w - 1), 3 * c - 1 + 4) for c in (1, 3) for w in (3, 9, 17)}
lines = ["| channels | window | patches | planes | planes, running |", "|---" * 5 + "|"]
lines += [f"| {c} | {w} | {a} | {b} | {r} |" for (c, w), (a, b, r) in costs.items()]
Markdown("\n".join(lines))

# %% [markdown]
# Operations per pair for the distance alone; the softmax adds one exponential, and $C+1$ products and sums. The library adds only, and does not use running sums, which round away the small distances that decide at small noise ({ref}`ex-locality-integral`). Larger windows share the sums of smaller ones, so `denoise_windows` serves a whole list of windows in one pass over the planes. For {prf:ref}`thm-locality-equivariant` even the sum over offsets is too much work: all $n$ inner products of two images form one correlation, and a fast Fourier transform has it in $O(n\log n)$ operations.
#
# ## At the border
#
# A torus is a convenience. The networks of interest fill the outside with zeros, and they come to know where they are. {prf:ref}`thm-locality-shared` says how: a window at the border has exact zeros, which noise never has inside. The number of zeros tells the distance to the border.
#
# :::{prf:proposition} Who is compared with whom
# :label: prop-locality-border
#
# Let the windows be filled with zeros. Call a row $i$, $0\le i<H$, *inner* if $p\le i<H-p$, and likewise for columns. Two places overlap the border alike if and only if their rows are equal or both inner, and their columns are equal or both inner. So if $H\ge2p+1$ and $W\ge2p+1$, with $h=H-2p$ and $w=W-2p$, the number $n_u$ of places in the dictionary of $u$ is
#
# - $hw$ in the interior, at $hw$ pixels;
# - $w$ near the upper or lower border only, at $2pw$ pixels, and $h$ near the left or right border only, at $2ph$ pixels;
# - one in the four corners, at $4p^2$ pixels.
#
# All pixels together have $(h^2+2p)(w^2+2p)$ partners in each training image.
# :::
#
# :::{prf:proof}
# Row $i$ has $\max(0,p-i)$ window rows above the image and $\max(0,p+i-H+1)$ below. If the first number is positive, it determines $i$, and if the second is, it does too. Both vanish exactly for inner rows. The same holds for columns, and a place overlaps the border alike if both numbers of both axes agree. Along the rows there are then $h$ inner ones with $h$ partners each and $2p$ others with one partner each, which makes $h^2+2p$ pairs, and $w^2+2p$ along the columns.
# :::
#
# {numref}`fig-locality-border` draws the dictionaries. Besides the two borders of the theorem it has a third, `"interior"`, which the public code uses for networks with circular padding: the windows of the noisy image wrap, but those of the training images must lie inside.

# %% mystnb={"figure": {"name": "fig-locality-border", "caption": "Which places of the training images three pixels are compared with, for a window of 5 on a grid of $12\\times12$. Pixel A is near a corner, B near the left border, C in the interior. *Same place*: the local machine. *Zeros*: equivariant local; B has its column, C the interior, A itself. White lines bound the nine kinds of places: the interior, four strips, and four corners in which each pixel stands alone. *Interior* and *circular*: all three pixels have the same dictionary."}, "image": {"alt": "Four grids of twelve by twelve cells with the letters A near the upper left corner, B near the left side, C in the middle. Same place: only the three cells are coloured. Zeros: the cell A, the part of the column of B between two rows from either end, and the central block of eight by eight cells for C, in three colours; lines divide the grid in nine parts. Interior: the central block in one colour. Circular: the whole grid in one colour.", "width": "85%"}} tags=["hide-input"]
side, spots = 12, {"A": (1, 0), "B": (5, 1), "C": (6, 6)}
tints = [plot.plt.matplotlib.colors.to_rgb(c) for c in ("#E6E6E6", "#E69F00", "#56B4E9", "#009E73", "#B9A9D0")]


def partners(place, border, p=2):
    """The places that a pixel is compared with, as a mask."""
    masks = []
    for i in place:
        line = torch.arange(side)
        inner = (line >= p) & (line < side - p)
        alike = inner if border == "zeros" and inner[i] else line == i
        masks.append({"interior": inner, "circular": line >= 0}.get(border, alike))
    return torch.outer(*masks)


fig, axes = plot.figure(2, 2, size=(5.4, 5.8))
for axis, (border, title) in zip(
    axes.flat,
    {"same": "same place", "zeros": "zeros", "interior": "interior", "circular": "circular"}.items(),
    strict=True,
):
    picture = torch.tensor(tints[0]).repeat(side, side, 1)
    for tint, place in zip(tints[1:], spots.values(), strict=False):
        picture[partners(place, border)] = torch.tensor(tints[4] if border in ("interior", "circular") else tint)
    axis.imshow(picture)
    if border == "zeros":
        for line in (1.5, side - 2.5):
            axis.axhline(line, color="white", lw=2)
            axis.axvline(line, color="white", lw=2)
    for name, (i, j) in spots.items():
        axis.text(j, i, name, ha="center", va="center", fontsize=12, fontweight="bold")
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize=12)
    axis.grid(False)
fig

# %% [markdown]
# The library keeps the count, here for digits.

# %%
H, W = y.shape[2:]
for p in (0, 1, 2, 3):
    machine = EquivariantLocal.fit(few, 2 * p + 1, "zeros")
    n_u = machine.patches_per_image(2 * p + 1)
    h, w = H - 2 * p, W - 2 * p
    assert n_u.sum() == (h * h + 2 * p) * (w * w + 2 * p)
    assert n_u[p : -p or None, p : -p or None].unique().tolist() == [h * w]
    assert (Local.fit(few, 2 * p + 1).patches_per_image(2 * p + 1) == 1).all()

# %% [markdown]
# The knowledge of the place that zeros give is knowledge in a limit. A window at the border differs from an interior one with small values there by as little as one likes, and yet the best $g$ treats them differently. So no continuous $g$ attains the minimum if the two answers differ. It can come as close as one likes: let it switch from one answer to the other as the values outside reach $\delta$. An interior window looks like a border window to it with a probability of order $\delta^k$, if there are $k$ values outside, and the loss is within a term of that order of the minimum ({ref}`ex-locality-eye`). A network has to be steep near zero. Far from the border, by more than $p$, no steepness helps: the window has no zeros.
#
# ### The mean at high noise
#
# The four dictionaries differ most where the noise is high. At $\alpha=0$ the window says nothing, and each machine returns the mean of the centres in its dictionary.

# %% tags=["hide-input"]
P_mean = 5
borders = {
    "local": Local.fit(y.double(), P_mean),
    **{border: EquivariantLocal.fit(y.double(), P_mean, border) for border in ("zeros", "interior", "circular")},
}
priors = {key: machine.denoise(normal(1, *y.shape[1:]), Noise(0.0, 1.0))[0] for key, machine in borders.items()}
truth = y.double().mean(0)
assert_close(priors["local"], truth)
assert_close(priors["circular"], truth.mean().expand_as(truth))
p = P_mean // 2
assert_close(priors["interior"], truth[:, p:-p, p:-p].mean().expand_as(truth))
assert_close(priors["zeros"][:, p:-p, p:-p], priors["interior"][:, p:-p, p:-p])
for key, mean in priors.items():
    record(f"prior_{key}", metrics.mse(mean[None].expand_as(y), y.double()).mean().item())
record("grey_interior", priors["interior"].mean().item())
record("grey_circular", priors["circular"].mean().item())

# %% mystnb={"figure": {"name": "fig-locality-prior", "caption": "What the machines return when there is no signal at all, $\\alpha=0$, for digits and a window of 5: the mean of the centres of each dictionary. Local: the mean image. Zeros: the mean of each of the nine kinds of places, pixel by pixel in the corners. Interior and circular: one grey value. Interior is brighter, since the strokes are in the middle of the images."}, "image": {"alt": "Four small grey images. Local: a blurred bright upright shape on black. Zeros: a uniform grey middle block with strips of their own brightness above, below and at the sides, and individual dark pixels in the corners. Interior: uniform mid-grey. Circular: uniform darker grey.", "width": "90%", "classes": "dark-light"}} tags=["hide-input"]
plot.image_grid(torch.stack(list(priors.values())), columns=4, titles=list(priors))

# %% [markdown]
# The interior machine returns the grey value {glue:text}`grey_interior:.2f`, the circular one {glue:text}`grey_circular:.2f` (black is $-1$). Measured on the training images, these means have the errors {glue:text}`prior_local:.3f` (local), {glue:text}`prior_zeros:.3f` (zeros), {glue:text}`prior_circular:.3f` (circular) and {glue:text}`prior_interior:.3f` (interior) per pixel. The last is no best function of any kind on the whole torus. It is the best function on interior windows, asked about windows that cross the border. The difference matters at high noise, with large windows, and for images whose middle differs from their rim.
#
# ## The lattice of machines
#
# Every machine of this chapter is a limit of another one. {numref}`fig-locality-lattice` collects the limits, and the cell below the figure asserts each arrow.

# %% mystnb={"figure": {"name": "fig-locality-lattice", "caption": "Exact limits. An arrow leads from a machine to what it becomes under the condition at the arrow, for square images of side $L$ and windows of width $P$. Dashed: equal only at pixels whose window lies inside the image. On the left no weights are shared, on the right all places are alike. From top to bottom the window shrinks."}, "image": {"alt": "A diagram with boxes. Top row: ideal, equivariant. Middle row: local, zeros, circular; below circular: interior. Bottom: one pixel at its place, one pixel anywhere. Solid arrows: local to ideal, zeros to local, circular to equivariant, ideal to equivariant, local to one pixel at its place, and from zeros, circular and interior to one pixel anywhere. Dashed arrows: local to circular, zeros to interior.", "width": "100%"}} tags=["hide-input"]
boxes = {
    "ideal": (0.13, 0.93, "ideal"),
    "equivariant": (0.87, 0.93, "equivariant"),
    "local": (0.13, 0.53, "local"),
    "zeros": (0.5, 0.53, "equivariant local,\nzeros"),
    "circular": (0.87, 0.53, "equivariant local,\ncircular"),
    "interior": (0.5, 0.27, "equivariant local,\ninterior"),
    "place": (0.13, 0.06, "one pixel,\nat its place"),
    "histogram": (0.87, 0.06, "one pixel,\nany place"),
}
arrows = [
    ("local", "ideal", "P ≥ 2L − 1", "-", (0.13, 0.73)),
    ("zeros", "local", "P ≥ L", "-", (0.3, 0.56)),
    ("circular", "equivariant", "P = L", "-", (0.87, 0.73)),
    ("ideal", "equivariant", "fit on all shifts", "-", (0.5, 0.96)),
    ("local", "place", "P = 1", "-", (0.13, 0.3)),
    ("zeros", "interior", "inside", "--", (0.5, 0.4)),
    ("circular", "histogram", "P = 1", "-", (0.87, 0.3)),
    ("interior", "histogram", "P = 1", "-", (0.69, 0.165)),
    ("zeros", "histogram", "P = 1", "-", (0.69, 0.32)),
    ("local", "circular", "fit on all shifts, inside", "--", (0.5, 0.76)),
]
fig, axis = plot.figure(size=(6.4, 5.2))
style = {"ha": "center", "va": "center", "fontsize": 12}
frame = {"boxstyle": "round", "fc": "#F2F2F2", "ec": "black"}
drawn = {name: axis.text(a, b, text, bbox=frame, **style).get_bbox_patch() for name, (a, b, text) in boxes.items()}
for start, end, label, line, middle in arrows:
    bend = "arc3,rad=-0.45" if (start, end) == ("local", "circular") else "arc3"
    look = {"arrowstyle": "-|>,head_length=0.6,head_width=0.3", "ls": line, "color": "#0072B2", "lw": 1.5}
    look |= {"patchA": drawn[start], "patchB": drawn[end], "shrinkA": 2, "shrinkB": 2, "connectionstyle": bend}
    axis.annotate("", boxes[end][:2], boxes[start][:2], arrowprops=look, zorder=4)
    axis.text(*middle, label, **style | {"fontsize": 11}, bbox={"fc": "white", "ec": "none", "pad": 1}, zorder=5)
axis.set(xlim=(0, 1), ylim=(0, 1))
axis.axis("off")
fig

# %% [markdown]
# *Proofs in a line each.* Two pixels of an image of side $L$ differ by at most $L-1$ rows and columns, so a window of $2L-1$ holds the whole image from everywhere. With $P\ge L$ at most one row is inner, so no two places overlap the border alike. A circular window with $P=L$, which must then be odd, sees every pixel once: it is the shifted image. With $P=1$ no window reaches the border. At pixels whose window lies inside, the patches inside are all that the dictionaries hold, both for zeros and for interior. If the local machine is fitted on all shifts, the patches at any one place are all patches, wrapped; they agree with its own windows where these lie inside. And the equivariant machine is the ideal one of the orbit. Two more limits are not drawn. With one training image every machine with "same place" returns it. And the interior machine with $P=L$ odd has one patch for each image, the image itself: at its centre the ideal machine.

# %%
odd = few[:8, :, :7, :7]  # images of side 7
side, p = 7, 1

for noise in (edm(0.5), Noise(0.6, 0.8)):
    x = noise.add(odd[:3], normal(3, 1, side, side))
    ideal, equivariant = Ideal.fit(odd).denoise(x, noise), Equivariant.fit(odd).denoise(x, noise)
    same = {P: Local.fit(odd, P).denoise(x, noise) for P in (1, 3, side, 2 * side - 1, 2 * side + 3)}
    shared = {
        (border, P): EquivariantLocal.fit(odd, P, border).denoise(x, noise)
        for border, P in product(("zeros", "circular", "interior"), (1, 3, side))
    }
    assert_close(same[2 * side - 1], ideal)
    assert_close(same[2 * side + 3], ideal)
    assert_close(shared["zeros", side], same[side])
    assert_close(EquivariantLocal.fit(odd, 2 * side - 1, "zeros").denoise(x, noise), ideal)
    assert_close(shared["circular", side], equivariant)
    assert_close(Ideal.fit(orbit(odd)).denoise(x, noise), equivariant)
    assert_close(shared["zeros", 1], shared["circular", 1])
    assert_close(shared["interior", 1], shared["circular", 1])
    assert_close(shared["circular", 1], Ideal.fit(odd.reshape(-1, 1)).denoise(x.reshape(-1, 1), noise).reshape(x.shape))
    assert_close(shared["zeros", 3][..., p:-p, p:-p], shared["interior", 3][..., p:-p, p:-p])
    shifted = Local.fit(orbit(odd), 3).denoise(x, noise)
    assert_close(shifted[..., p:-p, p:-p], shared["circular", 3][..., p:-p, p:-p])
    assert_close(EquivariantLocal.fit(orbit(odd), 3, "circular").denoise(x, noise), shared["circular", 3])
    assert_close(shared["interior", side][..., 3, 3], ideal[..., 3, 3])
    assert_close(same[1], torch.stack([Ideal.fit(odd[:, 0, i, j, None]).denoise(x[:, 0, i, j, None], noise)
                                       for i, j in product(range(side), repeat=2)], -1).reshape(x.shape))  # fmt: skip
    assert_close(Local.fit(odd[:1], 3).denoise(x, noise), odd[:1].expand_as(x))

# %% [markdown]
# The lattice is also a list of tests for anybody's implementation.
#
# ## Two images
#
# The smallest training set with something to be creative about has two images on a torus, one all white, $+1$, and one all black, $-1$. Kamb and Ganguli use it, with a window of 3, to explain their machine. Here it can be solved.
#
# The dictionary of every pixel holds two patches: nine times $+1$, and nine times $-1$. Let $S_u(x)$ be the sum of the nine values of the window at $u$. The difference of the two squared distances is $4\alpha S_u$, so the logits differ by $2\alpha S_u/\sigma^2$. Two values $\pm1$ with the weights of a softmax over logits $\pm a$ have the mean $\tanh a$:
#
# $$
# D(x)_u=\tanh\Bigl(\frac{\alpha}{\sigma^2}S_u(x)\Bigr).
# $$ (eq-locality-toy)
#
# Each pixel follows the majority of its window, softly at high noise and strictly at low noise. As a machine of the library this takes a method of two lines.


# %%
@dataclass(frozen=True)
class Toy(Machine):
    """The equivariant local machine of one white and one black image on a torus, with window 3."""

    def denoise(self, x, noise):
        alpha, sigma = noise.on(x)
        return torch.tanh(alpha / sigma**2 * box(x, 1))


toy = Toy()
both = torch.ones(2, 1, 6, 5, dtype=torch.float64) * torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
for noise in (edm(0.3), edm(3.0), Noise(0.6, 0.8), Noise(0.0, 1.0)):
    x = normal(4, 1, 6, 5)
    assert_close(toy.denoise(x, noise), EquivariantLocal.fit(both, 3, "circular").denoise(x, noise))

# %% [markdown]
# What does the flow make of noise? Take $\alpha=1$. With $\tau=-\log\sigma$ the {term}`probability flow` of the machine, $dx/d\sigma=(x-D)/\sigma$, reads
#
# $$
# \frac{dx(u)}{d\tau}=\tanh\bigl(e^{2\tau}S_u(x)\bigr)-x(u).
# $$ (eq-locality-flow)
#
# Call a binary image *consistent* if every pixel agrees with the majority of its window. (Nine values have no ties.)
#
# :::{prf:theorem} Where the flow ends
# :label: thm-locality-toy
#
# 1. If the flow converges, $x\to x^*$ as $\tau\to\infty$, and no $S_u(x^*)$ is zero, then $x^*$ is a consistent image.
# 2. Every consistent image is the limit for an open set of starts. From a normal start it has positive probability.
# 3. Consistent images that differ by a shift, by a symmetry of the grid or by the exchange of black and white have the same probability.
# :::
#
# :::{prf:proof}
# *1.* The right-hand side of {eq}`eq-locality-flow` converges to $s_u-x^*(u)$, where $s_u$ is the sign of $S_u(x^*)$. If this limit were not zero, $x(u)$ would grow or fall without bound. So $x^*(u)=s_u=\pm1$ is the majority of its window.
#
# *2.* Let $m$ be consistent and let $\delta=\frac1{18}$. Since $m(u)S_u(m)$ is odd and positive, it is at least one, and $m(u)S_u(x)\ge1-9\delta=\frac12$ for all $x$ in the box $|x(u)-m(u)|\le\delta$. There the first term of {eq}`eq-locality-flow` has the sign $m(u)$ and at least the size $\tanh(e^{2\tau}/2)$. From a $\tau_0$ on this exceeds $1-\delta$. So from $\tau_0$ on no path leaves the box, since at its sides $x(u)$ moves inwards, and then the first term tends to $m(u)$, and $x(u)$ with it. The flow from the start to $\tau_0$ is a homeomorphism (its right-hand side is smooth and grows at most linearly). So the starts that lead into the open box form an open set, which is not empty, and a normal law gives it positive probability.
#
# *3.* The flow and the normal law have all these symmetries.
# :::
#
# The box in the second part is not small. For $\sigma_0=0.5$ we have $\tanh(1/(2\sigma_0^2))>1-\delta$. A seed that has come within $\frac1{18}$ of a consistent image at that level can be called.

# %%
assert math.tanh(1 / (2 * 0.5**2)) > 1 - 1 / 18


def consistent(s):
    """Whether every pixel of binary images (..., H, W) agrees with the majority of its window."""
    return (s * box(s, 1) > 0).flatten(-2).all(-1)


def decode(code, H, W):
    """Whole numbers as binary images of +1 and -1, one bit for a pixel."""
    bits = (code[:, None] >> torch.arange(H * W)) & 1
    return (2 * bits - 1).reshape(-1, H, W).to(torch.int8)


def encode(s):
    return ((s.flatten(-2) > 0).long() << torch.arange(s.shape[-1] * s.shape[-2])).sum(-1)


codes = torch.arange(2**16)
creative = codes[consistent(decode(codes, 4, 4))]  # all consistent images of 4 x 4 pixels
m = decode(creative, 4, 4)[:, None].double()
near = m + (2 * torch.rand(m.shape, generator=rng, dtype=torch.float64) - 1) / 18
fine = [edm(0.5 * math.exp(-k / 4)) for k in range(60)]
assert_close(sample(toy, near, fine), m)
record("creative_4", len(creative))

# %% [markdown]
# {numref}`fig-locality-flow` follows one seed on a torus of $32\times32$ pixels. Around $\sigma=3$ the uniform part begins to grow (its rate is $9/\sigma^2-1$), and finer parts follow. Black and white regions form, their borders straighten, and what is left hardly moves any more.

# %% mystnb={"figure": {"name": "fig-locality-flow", "caption": "One seed on a torus of $32\\times32$ pixels, with two training images, one white and one black. Left: the noisy state $x$, divided by $\\sqrt{1+\\sigma^2}$. Right: the denoised image. Move the slider to lower the noise."}} tags=["hide-input"]
side = 32
stops = [10.0, 3.0, 2.0, 1.5, 1.0, 0.6, 0.3, 0.1, 0.01, 1e-6]
grid = sorted({*stops, *(80 * math.exp(-k / 8) for k in range(150))}, reverse=True)
states = {s.noise.sigma: s for s in trajectory(toy, 80 * normal(1, 1, side, side), [edm(s) for s in grid])}
figures = []
for sigma in stops:
    state = states[sigma]
    fig, axes = plot.figure(1, 2, size=(5.0, 2.9))
    for axis, image, title in zip(axes, (state.x[0] / (1 + sigma**2) ** 0.5, state.x0[0]), ("x", "D(x)"), strict=True):
        plot.show(axis, image)
        axis.set_title(title, fontsize=12)
        axis.axis("off")
    figures.append(fig)
    plot.plt.close(fig)
words = [
    "pure noise, and a faint cloudy pattern",
    "noise, and the same clouds with more contrast",
    "noise, and black and white regions with soft borders",
    "noise, and black and white regions with soft borders",
    "regions that shine through the noise, and the same with nearly sharp borders",
    "noisy regions, and the same with sharp borders",
    "slightly noisy regions, and the same with sharp borders, fewer than before",
    "regions with little noise left, and the same with sharp borders",
    "a few rounded regions with sharp borders, on both sides nearly the same",
    "a few rounded regions with sharp borders, on both sides the same",
]
frame_slider(
    figures,
    labels=[f"σ = {s:g}" for s in stops],
    alts=[f"The state and the denoised image at noise {s:g}: {word}." for s, word in zip(stops, words, strict=True)],
    label="Noise level",
)

# %% [markdown]
# ### How fast do the violations disappear?
#
# A sampler stops somewhere. Its last step lands on the denoised image at the last noise level, here $\tanh(S_u/\sigma^2)$, which is binary for all practical purposes. It need not be consistent: pixels may still *violate* the majority of their windows. Kamb and Ganguli show that large steps leave such violations. We separate two causes: how long the steps are, and where they end.

# %% tags=["hide-input"]


def violations(image):
    """The share of pixels that disagree with the majority of their windows, for each image, after rounding to +-1."""
    s = image.sign()
    return (s * box(s, 1) < 0).flatten(1).double().mean(1)


seeds = normal(48, 1, side, side)
ends = [10.0**-k for k in range(-1, 11)]
broken, stuck = {}, {}
for density in (1, 2, 8, 16):  # steps for each factor of e in the noise
    path = [edm(80 * math.exp(-k / density)) for k in range(math.ceil(28 * density))]
    found = {s.noise.sigma: violations(s.x0) for s in trajectory(toy, 80 * seeds, path)}
    nearest = {end: min(found, key=lambda sigma: abs(math.log(sigma / end))) for end in ends}
    broken[density] = [found[nearest[end]].mean().item() for end in ends]
    stuck[density] = [100 * (found[nearest[end]] > 0).double().mean().item() for end in ends]
    record(f"broken_{density}", broken[density], rtol=0.1)
settled = (seeds, path)


def published(n):
    """The levels of the sampler of the paper: n steps, of which the first is not taken."""
    return levels(cosine_legacy, [i / n for i in range(n - 1, 0, -1)])


uniform = {n: violations(sample(toy, seeds, published(n))).mean().item() for n in (5, 10, 20, 50, 100, 500, 1000)}
record("uniform_20", 100 * uniform[20], rtol=0.1)
record("uniform_100", 100 * uniform[100], rtol=0.1)
record("uniform_1000", 100 * uniform[1000], rtol=0.1)
index = ends.index(0.01)
record("coarse_end", 100 * broken[1][index], rtol=0.1)
record("fine_end", 100 * broken[16][index], rtol=0.1)
record("late_end", 100 * broken[16][ends.index(1e-6)], rtol=0.2)
record("images_end", stuck[16][index], rtol=0.1)
record("images_late", stuck[16][-1], rtol=0.5)
record("toy_seeds", len(seeds))

# %% mystnb={"figure": {"name": "fig-locality-violations", "caption": "Share of pixels that violate the majority of their windows, on a torus of $32\\times32$ pixels, against the noise level at which the sampler stops. Lines: equal steps in $\\log\\sigma$, so many for each factor of $e$. Black squares: equal steps in $t$ on the schedule of the paper, $n=5$ to 1000; there more steps also mean a lower end. Over most of the range shorter steps lower the share by a factor of about two. A lower end lowers it by orders of magnitude. (At the lowest levels only a few pixels are left, and their number is uncertain.)"}, "image": {"alt": "Log-log plot. Four nearly parallel lines fall from a few tenths at noise ten to about one in ten thousand or less at the lowest noise, far to the right; the line with one step for each factor of e lies highest, the lines with eight and sixteen steps nearly coincide. Black squares lie close to the lines, from noise of a third down to about two thousandths.", "width": "90%"}} tags=["hide-input"]
fig, axis = plot.figure(size=(6.4, 4.2))
for (density, values), color, style in zip(broken.items(), plot.COLORS, plot.STYLES, strict=False):
    kept = [(end, value) for end, value in zip(ends, values, strict=True) if value > 0]
    axis.plot(*zip(*kept, strict=True), style, color=color, lw=1.8, label=f"{density} per factor of e")
where = [published(n)[-2] for n in uniform]
axis.plot(
    [noise.sigma / noise.alpha for noise in where], list(uniform.values()), "s", color="black", label="equal in t"
)
axis.set(xscale="log", yscale="log", xlabel="last noise level σ", ylabel="violating pixels", xlim=(20, 5e-11))
axis.legend(frameon=False, fontsize=11, title="steps")
fig

# %% [markdown]
# At $\sigma=0.01$ one step for each factor of $e$ leaves {glue:text}`coarse_end:.2f` % of the pixels in violation, and 16 steps still {glue:text}`fine_end:.2f` %; hardly an image is free of them ({glue:text}`images_end:.0f` % have some). At $\sigma=10^{-6}$ it is {glue:text}`late_end:.3f` %. At the lowest level of the figure {glue:text}`images_late:.0f` % of the {glue:text}`toy_seeds` images have a violation left. The squares tell the same story in the variable of the paper. The sampler that starts at $t=0.95$ and takes 19 steps leaves {glue:text}`uniform_20:.1f` %, and one with 999 steps {glue:text}`uniform_1000:.1f` %. But the latter also ends at a noise fifty times lower.
#
# The reason is in {eq}`eq-locality-flow`. At small noise its first term is $\pm1$, and a pixel on the wrong side relaxes like $e^{-\tau}$, that is, in proportion to $\sigma$. To change its mind a pixel needs a factor of two in the noise ({ref}`ex-locality-corner`). Then its neighbours may change theirs. Where a bent border straightens pixel by pixel, each pixel takes a share of the factors of two that are left. No step size can speed this up; steps of a whole factor of $e$, where a factor of two would do, slow it down. So the statement that samples are consistent images is a statement about $\sigma\to0$, and it is reached slowly.

# %% mystnb={"figure": {"name": "fig-locality-samples", "caption": "Four seeds. Above: as the sampler of the paper leaves them, after 19 steps that end at $t=0.05$; pixels that violate the majority of their windows are orange. Below: the same seeds on the fine grid, at $\\sigma\\approx10^{-10}$. The training set holds a white and a black image, and nothing else."}, "image": {"alt": "Eight square images with rounded black and white regions. In the upper row a few orange pixels lie along bends of the borders between black and white. The lower row shows similar regions for the same seeds, smoother, without orange pixels.", "width": "100%", "classes": "dark-light"}} tags=["hide-input"]
early = sample(toy, seeds[:4], published(20)).sign()
late = sample(toy, 80 * seeds[:4], settled[1]).sign()
colours = torch.tensor([[0.0, 0.0, 0.0], [0.9, 0.9, 0.9], [0.84, 0.37, 0.0]], dtype=torch.float64)
both_rows = torch.cat([early, late])
kind = torch.where(both_rows * box(both_rows, 1) < 0, 2, (both_rows > 0).long())[:, 0]
plot.image_grid(2 * colours[kind].movedim(-1, 1) - 1, columns=4)

# %% [markdown]
# ## Creativity, counted
#
# {prf:ref}`thm-locality-toy` says that the machine makes exactly the consistent images, up to starts that do not converge or end in a tie. So two training images turn into *how many*? The paper says: exponentially many. On small tori one can try all binary images. The number on $4\times4$ pixels is {glue:text}`creative_4`.
#
# For larger ones there is a classical tool, the {term}`transfer matrix`. Whether row $b$ is consistent depends on $b$ and on the rows $a$ above and $c$ below it. So take pairs of rows as states, and let
#
# $$
# T_{(a,b),(b,c)}=1
# $$
#
# if row $b$ is consistent between $a$ and $c$, and all other entries zero. A closed walk of $H$ steps is a consistent image of $H$ rows, with a marked first row, and
#
# $$
# N(H,W)=\tr T^H .
# $$ (eq-locality-trace)
#
# For $W=7$ there are $2^{14}$ states. Most of them are never part of a closed walk, and can be left out.


# %%
def row_graph(width, wrap=True, white=0):
    """The states and the steps between them, as (number of states, steps (E, 2)); the first columns may be all white.

    Without wrap the two outermost columns need not be consistent.
    """
    free = width - white
    rows = (torch.arange(2**free)[:, None] >> torch.arange(free)) & 1
    rows = torch.cat([torch.ones(2**free, white, dtype=torch.int64), rows], 1).to(torch.int8)
    ring = rows + rows.roll(1, 1) + rows.roll(-1, 1)  # the part of the window sum in this row
    middle = slice(None) if wrap else slice(1, -1)
    steps = []
    for c in range(2**free):
        total = ring[:, None] + (ring + ring[c])  # rows a, b and c
        fits = ((total >= 5) == (rows == 1))[..., middle].all(2)
        a, b = fits.nonzero().T
        steps.append(torch.stack([a * 2**free + b, b * 2**free + c], 1))
    steps = torch.cat(steps)
    while not (keep := torch.isin(steps[:, 0], steps[:, 1]) & torch.isin(steps[:, 1], steps[:, 0])).all():
        steps = steps[keep]
    states, steps = steps.unique(return_inverse=True)
    return len(states), steps.reshape(-1, 2)


def closed_walks(graph, most):
    """The trace of T^H for H = 1, ..., most, in whole numbers."""
    states, (start, end) = graph[0], graph[1].T
    power, found = torch.eye(states, dtype=torch.int64), []
    for _ in range(most):
        power = torch.zeros_like(power).index_add_(1, end, power[:, start])
        found.append(int(power.trace()))
    return found


def growth(graph):
    """Bounds from below and above of the largest eigenvalue of T, by power iteration on 1 + T."""
    states, (start, end) = graph[0], graph[1].T

    def follow(v):
        return torch.zeros_like(v).index_add_(0, start, v[end])  # T v

    v = torch.ones(states, dtype=torch.float64)
    for _ in range(300):
        v = v + follow(v)
        v = v / v.norm()
    ratio = follow(v) / v
    fastest = torch.where(ratio > ratio.max() - 1e-9, v, 0)  # other states lead to slower parts of the graph only
    return (follow(fastest) / fastest)[fastest > 0].min().item(), ratio.max().item()


graphs = {width: row_graph(width) for width in range(3, 8)}
walks = {width: closed_walks(graph, 12) for width, graph in graphs.items()}
for H, W in ((3, 3), (4, 3), (5, 3), (4, 4), (5, 4)):  # all binary images, one by one
    assert consistent(decode(torch.arange(2 ** (H * W)), H, W)).sum() == walks[W][H - 1]
assert all(walks[a][b - 1] == walks[b][a - 1] for a, b in product(graphs, repeat=2))
record("walks_7", walks[7][6])
record("walks_7_12", walks[7][11])
record("states_7", graphs[7][0])

# %% tags=["hide-input"]
heights = (3, 4, 5, 6, 7, 8, 10, 12)
lines = ["| rows | " + " | ".join(f"{w} columns" for w in walks) + " |", "|---:" * (len(walks) + 1) + "|"]
lines += [f"| {h} | " + " | ".join(f"{walks[w][h - 1]:,}".replace(",", " ") for w in walks) + " |" for h in heights]
Markdown("\n".join(lines))

# %% [markdown]
# The table gives the exact number of consistent images, two of which are the training images. The table is symmetric, as it must be, and its small entries agree with the search through all binary images. Of $2^{14}$ states only {glue:text}`states_7` remain for seven columns.
#
# ### How many for each pixel?
#
# For a fixed width the number grows like $\lambda^H$, with $\lambda$ the largest eigenvalue of $T$: the machine has $\frac1W\log_2\lambda$ bits of freedom for each pixel. On the plane one can still prove that some freedom is left, by hand and by machine.
#
# :::{prf:proposition} Exponentially many
# :label: prop-locality-many
#
# 1. On a torus of $5a\times5b$ pixels there are at least $2^{ab}$ consistent images: $\frac1{25}$ bit a pixel.
# 2. Let $\lambda_w$ be the largest eigenvalue of the transfer matrix of those images of $w$ columns whose first two columns are all white, and $\Lambda_w$ that of strips of $w$ columns in which the two outermost columns need not be consistent. With $k$ fixed, the number of consistent images of $H$ rows and $kw$ columns is at least $\lambda_w^{kH}$ and at most $\Lambda_w^{kH}$, up to factors that do not grow exponentially with $H$; for the lower bound, along a sequence of heights.
# :::
#
# :::{prf:proof}
# *1.* Divide the torus into cells of $5\times5$. In each cell paint, or do not paint, this figure of twelve black pixels on white:
#
# $$
# \begin{matrix}
# \cdot&\bullet&\bullet&\cdot&\cdot\\
# \bullet&\bullet&\bullet&\bullet&\cdot\\
# \bullet&\bullet&\bullet&\bullet&\cdot\\
# \cdot&\bullet&\bullet&\cdot&\cdot\\
# \cdot&\cdot&\cdot&\cdot&\cdot
# \end{matrix}
# $$
#
# Windows of black pixels stay in their own cell, or see only white pixels of the next. The eight black pixels on the rim see five black ones, the four others eight. A white corner of the figure sees three black pixels. A pixel of the fifth row or column sees at most four, two on either side. So black and white agree with their majorities.
#
# *2.* Two white columns side by side are consistent whatever lies beyond, since each of their pixels sees six white ones. The other columns see nothing beyond the two white columns at their sides. So $k$ such images side by side are consistent together, and there are at least $(\tr T^H)^k$ of them. Conversely, cut an image in $k$ strips. Each is a closed walk of the strip's transfer matrix, and they determine the image.
# :::
#
# A power iteration alone would only approximate the eigenvalues. Its last vector also encloses them (Collatz and Wielandt): if $Tv\ge rv$ for some $v\ge0$ that is not zero, then $T^kv\ge r^kv$ for all $k$, so the largest eigenvalue is at least $r$; and if $Tv\le sv$ for a positive $v$, it is at most $s$. The lower bound uses $r$, the upper one $s$. They agree to twelve digits.

# %%
blob = torch.tensor([[0, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
painted = torch.randint(2, (200, 4, 6), generator=rng)
assert consistent(1 - 2 * torch.kron(painted, blob[None])).all()

enclosed = {
    "all images, circular": {w: growth(graph) for w, graph in graphs.items()},
    "upper bound": {w: growth(row_graph(w, wrap=False)) for w in range(3, 8)},
    "lower bound": {w: growth(row_graph(w, white=2)) for w in range(5, 11)},
}
assert all(high < (1 + 1e-12) * low for found in enclosed.values() for low, high in found.values())
bits = {
    label: {w: math.log2(low if label == "lower bound" else high) / w for w, (low, high) in found.items()}
    for label, found in enclosed.items()
}
highest = math.ceil(1e4 * min(bits["upper bound"].values())) / 1e4  # bounds are rounded outwards
lowest = math.floor(1e4 * max(bits["lower bound"].values())) / 1e4
record("bits_low", lowest, rtol=1e-6)
record("bits_high", highest, rtol=1e-6)
record("bits_7", bits["all images, circular"][7], rtol=1e-6)

# %% mystnb={"figure": {"name": "fig-locality-bits", "caption": "Bits of freedom for each pixel, $\\frac1w\\log_2\\lambda$, of the consistent images of $w$ columns and any number of rows, and the two bounds of {prf:ref}`prop-locality-many`. On large tori the number of bits lies between the highest of the lower bounds and the lowest of the upper bounds, the shaded band. (The values for single widths need not lie in it.)"}, "image": {"alt": "Bits per pixel against the width. The curve for circular images rises from 0.23 to about 0.41 at five columns and then falls slowly. The upper bound falls from 0.78 to about 0.53. The lower bound varies around 0.25 to 0.28. A shaded band runs from about 0.28 to 0.53.", "width": "80%"}} tags=["hide-input"]
fig, axis = plot.figure(size=(6.4, 3.8))
axis.axhspan(lowest, highest, color="#E6E6E6", lw=0)
for (label, values), color, mark, style in zip(bits.items(), plot.COLORS, "os^", ("-", "--", ":"), strict=False):
    axis.plot(*zip(*values.items(), strict=True), style, color=color, marker=mark, lw=1.6, label=label)
axis.set(xlabel="columns", ylabel="bits per pixel", ylim=(0, 0.85))
axis.legend(frameon=False, fontsize=11)
fig

# %% [markdown]
# So the machine has between {glue:text}`bits_low:.4f` and {glue:text}`bits_high:.4f` bits for each pixel on large tori. (For other widths combine strips; a narrow strip that is left over does not count in the limit.) A torus of seven columns has {glue:text}`bits_7:.3f`. The training set holds one bit for the whole image.
#
# ### Which ones does it make?
#
# All of them, says the theorem, but it does not say how often. On $4\times4$ pixels the consistent images fall into a few orbits, under shifts, symmetries of the square and the exchange of colours, and all images of an orbit are equally probable. {numref}`fig-locality-orbits` gives the share of each orbit among random seeds.


# %% tags=["hide-input"]
def symmetries(side):
    """All symmetries of the square torus as permutations of its pixels."""
    grid = torch.arange(side * side).reshape(side, side)
    turned = [g for f in (grid, grid.T) for g in (f, f.flip(0), f.flip(1), f.flip((0, 1)))]
    return torch.stack([g.roll(d, (0, 1)).flatten() for g in turned for d in product(range(side), repeat=2)])


def orbit_of(code, side):
    """The smallest code in the orbit of each binary image, black and white exchanged or not."""
    bits = (code[:, None] >> torch.arange(side * side)) & 1
    weights = 1 << torch.arange(side * side)
    moved = (bits[:, symmetries(side)] * weights).sum(-1)
    return torch.minimum(moved, weights.sum() - moved).amin(1)


coarse = [edm(80 * math.exp(-k / 4)) for k in range(56)]


def ends_of(side, batch, runs):
    """The codes of the final images of many seeds that are consistent, and how many seeds there were."""
    found = []
    for _ in range(runs):
        final = sample(toy, 80 * normal(batch, 1, side, side, dtype=torch.float32), coarse).sign()[:, 0]
        found.append(encode(final[consistent(final)]))
    return torch.cat(found), batch * runs


sizes = Counter(orbit_of(creative, 4).tolist())
made, seeds_4 = ends_of(4, BATCH, RUNS)
names, count = made.unique(return_counts=True)
hits = Counter()
for name, number in zip(orbit_of(names, 4).tolist(), count.tolist(), strict=True):
    hits[name] += number
order = sorted(sizes, key=lambda name: (-hits[name], -sizes[name], name))
shares = [100 * hits[name] / seeds_4 for name in order]
assert set(hits) <= set(sizes)
assert len(made) > 0.999 * seeds_4
assert hits[order[-1]] == 0  # the chessboard
record("orbits", len(order))
record("orbit_seeds", seeds_4)
record("orbit_sizes", [sizes[name] for name in order][:3])
record("orbit_shares", shares, rtol=0.01)
record("orbit_training", shares[0], rtol=0.01)
record("orbit_new", 100 - shares[0], rtol=0.05)
record("orbits_seen", sum(hits[name] > 0 for name in order), rtol=0.3)
record("images_seen", len(names), rtol=0.3)

# %% mystnb={"figure": {"name": "fig-locality-orbits", "caption": "All consistent images of $4\\times4$ pixels on a torus, one of each orbit, with the number of images in the orbit and the share of seeds that end there. The first orbit consists of the two training images. Every orbit has positive probability; for those with the share 0 % it is too small for the number of seeds."}, "image": {"alt": "Nine small black and white images of four by four pixels with captions. The first is uniform and has about 96 per cent of the seeds. The second has two black and two white rows, with about 4 per cent. The others, with patches of black of different shapes and, in the last ones, a chessboard and regular patterns, have small fractions of a per cent or zero.", "width": "80%", "classes": "dark-light"}} tags=["hide-input"]
titles = [f"{sizes[name]} images\n{share:.2g} %" for name, share in zip(order, shares, strict=True)]
plot.image_grid(decode(torch.tensor(order), 4, 4)[:, None].double(), columns=3, titles=titles, limits=(-1, 1.2))

# %% [markdown]
# Of {glue:text}`orbit_seeds` seeds {glue:text}`orbit_training:.1f` % end in one of the two training images. The other {glue:text}`orbit_new:.1f` % are new. So counting is not enough. The machine *can* make all {glue:text}`creative_4` images, but with such unequal probabilities that {glue:text}`images_seen` of them have appeared, and whole orbits, the chessboard among them, have not.
#
# With the size of the torus the picture changes. The next table follows 2000 seeds at each size. It has the number of consistent images, the share of seeds that reach one, the share that reach a training image, and how many different consistent images were reached. Large tori settle late. So the sampler goes down to a noise of about $10^{-14}$, and what is not consistent even there is not counted.

# %% tags=["hide-input"]
longer = [edm(80 * math.exp(-k / 4)) for k in range(144)]
head = ("side", "consistent images", "seeds that reach one, %", "a training image, %", "different ones")
lines = ["| " + " | ".join(head) + " |", "|---:" * len(head) + "|"]
for side in (3, 4, 5, 6, 7, 8, 12, 16):
    final = sample(toy, 80 * normal(2000, 1, side, side, dtype=torch.float32), longer).sign()[:, 0]
    reached = final[consistent(final)]
    share, different = len(reached) / 20, len(reached.unique(dim=0))
    repeated = (reached.flatten(1).double().mean(1).abs() == 1).sum().item() / 20
    record(f"consistent_{side}", share, rtol=0.01)
    record(f"repeated_{side}", repeated, rtol=0.05)
    record(f"different_{side}", different, rtol=0.05)
    known = f"{walks[side][side - 1]:,}".replace(",", " ") if side in walks else "not counted"
    lines.append(f"| {side} | {known} | {share:.2f} | {repeated:.2f} | {different} |")
Markdown("\n".join(lines))

# %% [markdown]
# On a torus of side 3 the window is the whole image, the machine is the equivariant one, and it memorises. At side 16, {glue:text}`consistent_16:.1f` % of the seeds have reached a consistent image, {glue:text}`different_16` different ones, and {glue:text}`repeated_16:.2f` % a training image. The larger the image is, compared with the window, the rarer are copies.
#
# ## What the paper reports, what we get
#
# {cite:t}`kamb2025creativity` treat the toy in words and pictures. The table sets their statements beside our numbers. Their comparisons with networks belong to the next chapters.

# %% tags=["hide-input"]
rows = {
    "the score of the two images": ("by example", "a closed form, equal up to rounding"),
    "samples": ("binary, each pixel with the majority", "proved for the limit σ → 0"),
    "after 19 steps": ("not stated", f"{100 * uniform[20]:.1f} % of the pixels violate it"),
    "large steps break consistency": ("shown in a figure", f"{100 * uniform[5]:.1f} % with 4 steps, {100 * uniform[1000]:.1f} % with 999; most of it is the lower end"),
    "number of images": ("exponential", f"{lowest:.4f} to {highest:.4f} bits a pixel; {walks[7][6]:,} on 7 × 7".replace(",", " ")),
    "which of them": ("not stated", f"all, but {shares[0]:.0f} % of seeds repeat a training image on 4 × 4"),
    "equivariance without locality": ("defined", f"held-out error {errors['held out', 'equivariant'][2]:.3f} at σ = 0.2, ideal {errors['held out', 'ideal'][2]:.3f}"),
}  # fmt: skip
lines = ["| | paper | ours |", "|---|---|---|"]
Markdown("\n".join(lines + [f"| {label} | {theirs} | {ours} |" for label, (theirs, ours) in rows.items()]))

# %% [markdown]
# Two differences are worth a remark. The derivation for the torus lets the windows of training images wrap, as {prf:ref}`thm-locality-shared` demands. The public code takes interior patches only. And the paper attributes the violations in its figure to the step size. With equal steps of $t$, as in its other experiments, the step size cannot be told from the level at which the sampler stops.
#
# Others have drawn locality from other sources. {cite:t}`niedoba2025` average the posterior means of whole overlapping patches, not only of their centres. {cite:t}`lukoianov2025` argue that the locality of networks comes from the covariance of the data rather than from convolutions. {prf:ref}`thm-locality-local` is silent about this: it holds for any set of pixels in the place of the window.
#
# ## Exercises
#
# :::{exercise} Averaging is not projecting
# :label: ex-locality-average
#
# Take the ideal machine $D$, shift the input, denoise, shift back, and average over all shifts: $A(x)=\frac1n\sum_dT_d^{-1}D(T_dx)$. Show that $A$ is equivariant. Why is it not the best equivariant denoiser? Write the best one as a weighted average of the same terms, and measure both.
# :::

# %% [markdown]
# :::{solution-start} ex-locality-average
# :class: dropdown
# :::
#
# Shifting $x$ permutes the terms and shifts the sum, so $A$ is equivariant. The best denoiser conditions on the shift: let the hidden shift $T_d$ be uniform. Given $x$, it has the posterior probability $\pi_d\propto p(T_d^{-1}x)$, with $p$ the density of noisy training images, and given both, the mean of $T_dx_0$ is $T_dD(T_d^{-1}x)$. So $D_G=\sum_d\pi_d\,T_dD(T_d^{-1}x)$. Averaging with equal weights asks the ideal machine about shifted images that it has never seen, and believes all its answers.

# %%
base, noise = Ideal.fit(few), edm(0.7)
x0 = few[torch.randint(len(few), (200,), generator=rng)]
x = noise.add(x0, normal(*x0.shape))
shifts = list(product(range(8), repeat=2))
answers = torch.stack([base.denoise(x.roll(d, (2, 3)), noise).roll((-d[0], -d[1]), (2, 3)) for d in shifts])
pi = torch.stack([base.log_density(x.roll(d, (2, 3)), noise) for d in shifts]).softmax(0)
weighted = (pi[..., None, None, None] * answers).sum(0)
assert_close(weighted, Equivariant.fit(few).denoise(x, noise), rtol=1e-7, atol=1e-7)
assert metrics.mse(answers.mean(0), x0).mean() > 1.5 * metrics.mse(weighted, x0).mean()

# %% [markdown]
# :::{solution-end}
# :::

# %% [markdown]
# :::{exercise} One pixel
# :label: ex-locality-pixel
#
# With a window of one pixel the equivariant local machine applies one function of a grey value to every pixel. Of which law of images is it the exact denoiser? What do its samples look like? Check the law.
# :::

# %% [markdown]
# :::{solution-start} ex-locality-pixel
# :class: dropdown
# :::
#
# The function is the posterior mean of a grey value drawn from the histogram of all pixels of all training images. It is the exact denoiser of images whose pixels are independent draws from that histogram. So here the flow does carry a law: its samples are such images, noise with the grey values of digits. The exact flow maps each pixel separately, and on a line that fixes the map: it keeps quantiles ({ref}`ex-mixtures-line`).

# %%
machine = EquivariantLocal.fit(few.float(), 1)
grid = [edm(80 * math.exp(-k / 12)) for k in range(130)]
final = sample(machine, 80 * normal(12, 1, 8, 8, dtype=torch.float32), grid).flatten().sort().values
expected = torch.quantile(few.float().flatten(), torch.linspace(0, 1, len(final)))
assert (final - expected).abs().mean() < 0.06

# %% [markdown]
# :::{solution-end}
# :::

# %% [markdown]
# :::{exercise} How sharp must the eye be?
# :label: ex-locality-eye
#
# Let $g_\delta$ take a window for a window at the upper border if its $k=2p+1$ values in the first row are all below $\delta$ in size. Bound the probability that it errs at an interior pixel. What does this mean for a network that has to be continuous? Check with digits, a window of 3 and $\sigma=0.5$.
# :::

# %% [markdown]
# :::{solution-start} ex-locality-eye
# :class: dropdown
# :::
#
# Given the clean image each value has a normal density, which is at most $1/(\sqrt{2\pi}\sigma)$. So the $k$ independent values are all below $\delta$ with a probability of at most $(2\delta/\sqrt{2\pi}\sigma)^k$. Let a continuous function interpolate between the two best answers while the largest of the $k$ values passes from $\delta/2$ to $\delta$. It is exact at the border and errs in the interior with that probability only. Both answers are bounded, so its error exceeds the minimum by at most a constant times $\delta^k$. The price of a moderate slope, $1/\delta$, is small, and with $k$ zeros to look at it is tiny.

# %%
noise, delta = edm(0.5), 0.2
x = noise.add(y.double(), normal(*y.shape))
fooled = (windows(x, 1)[:, 1:-1, 1:-1, :3].abs() < delta).all(-1).double().mean()
assert 0 < fooled < (2 * delta / (math.sqrt(2 * math.pi) * noise.sigma)) ** 3

# %% [markdown]
# :::{solution-end}
# :::

# %% [markdown]
# :::{exercise} Why not an integral image?
# :label: ex-locality-integral
#
# With the sums of {eq}`eq-locality-plane` over all rectangles that start in one corner, each box sum takes three operations. Do it in single precision, on planes of $32\times32$ entries in which one window matches its patch to within 0.01 and the others do not, as at small noise. How large are the errors? Compare with adding.
# :::

# %% [markdown]
# :::{solution-start} ex-locality-integral
# :class: dropdown
# :::
#
# The integral image grows to the sum of the whole plane, about a thousand, and single precision keeps seven digits of *that*: the error is of the order of $10^{-4}$, however small the distance. It moves the logit by 0.02 at $\sigma=0.05$ and by 2 at $\sigma=0.005$, and larger planes or several channels make it worse. Adding keeps seven digits of the *result*.

# %%
plane = normal(200, 32, 32).square()
plane[:, 20:25, 20:25] = 1e-4 * normal(200, 5, 5).square()
exact = plane[:, 20:25, 20:25].sum((1, 2))
integral = pad(plane.float(), (1, 0, 1, 0)).cumsum(1).cumsum(2)
by_integral = integral[:, 25, 25] - integral[:, 20, 25] - integral[:, 25, 20] + integral[:, 20, 20]
by_adding = box(plane.float(), 2)[:, 22, 22]
assert (by_adding / exact - 1).abs().max() < 1e-6
assert (by_integral - exact).abs().max() > 1e-5 > 1000 * (by_adding - exact).abs().max()

# %% [markdown]
# :::{solution-end}
# :::

# %% [markdown]
# :::{exercise} A corner that goes
# :label: ex-locality-corner
#
# At small noise {eq}`eq-locality-flow` is $dx(u)/d\tau=\pm1-x(u)$. A white pixel finds itself in a window of five black pixels and four white ones, itself included. By which factor must the noise fall until it is black? Show that the corner of a white square goes this way, but that the corners of the figure in {prf:ref}`prop-locality-many` stay. What does this say about the shapes that a converged sample can have?
# :::
#
# :::{solution} ex-locality-corner
# :class: dropdown
#
# From $x(u)=1$ the equation $dx/d\tau=-1-x$ gives $x=2e^{-\tau}-1$, counted from where it starts: zero after $\tau=\log2$, a factor of two in the noise, and $-1$ only in the limit. (Its value falls from the first moment on, so windows change sign a little earlier than the pixel does.) The corner of a large white square has four white pixels in its window, two by two with itself, and five black ones. It goes, and then the square has two new corners that see five white ones. They stay: corners of 135° are stable, corners of 90° are not. In a converged sample regions have blunt corners, unless they touch others corner to corner: in some images of {numref}`fig-locality-orbits` the ninth pixel, across the corner, saves a sharp one.
# :::
#
# :::{exercise} Three columns
# :label: ex-locality-golden
#
# On a torus of three columns all windows of a row hold the same nine values. Show that the consistent images are the cyclic sequences of black and white rows in which no row differs from both neighbours. Count them: $N(H,3)=L_H+2\cos(\pi H/3)$, where the Lucas numbers $L_H$ obey $L_1=1$, $L_2=3$, $L_H=L_{H-1}+L_{H-2}$. What is the number of bits for each pixel?
# :::

# %% [markdown]
# :::{solution-start} ex-locality-golden
# :class: dropdown
# :::
#
# All pixels of a row see the same window, so they agree with the same majority, and each row is all black or all white. A row between two rows is consistent if at least one of them has its colour. The transfer matrix of pairs of colours has four states. With $E=1$ if the two rows of a pair are equal and $E=0$ if not, a pair that is not equal must come between equal ones. On sequences that are symmetric under the exchange of colours the matrix acts as $\begin{pmatrix}1&1\\1&0\end{pmatrix}$, and on antisymmetric ones as $\begin{pmatrix}1&-1\\1&0\end{pmatrix}$. Their eigenvalues are the golden ratio $\varphi$ and $-1/\varphi$, and $e^{\pm i\pi/3}$. The trace of the power $H$ is the sum of the powers. The bits for each pixel are $\frac13\log_2\varphi\approx0.231$, the first point of {numref}`fig-locality-bits`.

# %%
lucas = [1, 3]
while len(lucas) < 12:
    lucas.append(lucas[-1] + lucas[-2])
assert walks[3] == [number + round(2 * math.cos(math.pi * (h + 1) / 3)) for h, number in enumerate(lucas)]
assert math.isclose(bits["all images, circular"][3], math.log2((1 + 5**0.5) / 2) / 3, rel_tol=1e-9)

# %% [markdown]
# :::{solution-end}
# :::
#
# :::{admonition} Limits and open questions
# The theorems say which function is best under a constraint. They do not say that training finds it. A network with a receptive field of 17 pixels is allowed to use all of them at every noise level, and its best function is then a local machine with that window. That networks use less at small noise is an observation, and why they do is open; the next chapter compares predictions that need no network.
#
# The best local function on training images is still a function of the training set, patch by patch. With a large window and few images it memorises like the ideal machine.
#
# The local machine is not the score of a density, so likelihoods, and every argument that needs the law of the samples, are out of reach. {prf:ref}`thm-locality-toy` gives the possible ends for two images, not their probabilities; how these depend on the shape is open. It also leaves out starts that do not converge. We have met none, but have no proof that they have probability zero.
#
# Between {glue:text}`bits_low:.4f` and {glue:text}`bits_high:.4f` bits for each pixel the exact value is open; wider strips would narrow the gap. How many bits the *samples* have, which are far from uniform, is another question.
#
# The digits have $8\times8$ pixels, and a window of 5 covers much of them. What holds for images of the size of the papers is for the next chapter.
# :::
