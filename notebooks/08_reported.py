# ---
# jupyter:
#   jupytext: {text_representation: {extension: .py, format_name: percent}}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   scorebook:
#     goals:
#       - derive the shared-readout model and say how it differs from one regression per coefficient
#       - say when ridge on the readout and ridge on the score are the same machine, and when not
#       - predict how optimistic an in-sample error is from the number of features per image
#       - rebuild reported numbers from settings that are consistent with them, and say which effects survive
#     minutes: 60
#     needs: [wavelet-machine, which-moments]
#     paper:
#       - mnist-32-sigma-1
#       - mnist-32-sigma-2
#       - mnist-32-sigma-3
#       - mnist-32-sigma-4
#       - mnist-64-sigma-1
#       - mnist-64-sigma-2
#       - mnist-64-sigma-3
#       - mnist-64-sigma-4
# ---

# %% [markdown]
# (reported-figures)=
# # The paper's figures, rebuilt
#
# {cite:t}`finn2026wavelet` report their experiments in bar charts: the denoising error of three families of features, at degrees 1 to 3, at four noise levels and two image sizes. This chapter rebuilds the bars. It then asks a second question of every one of them: what is the error on images and noise that the fit has not seen?
#
# Three kinds of statement occur here, and they must not be confused. Some things are *stated* in the paper. Some we *infer*: with a certain setting our bars agree with the reported ones, so the setting is *consistent with* the figures. Agreement is not proof, and the code of the paper is not public. And some things we *measure*, with everything written down.
#
# :::{admonition} In this chapter
# You will meet a second model: one regression for all pixels, in place of one for each coefficient. You will see what it can express, what its ridge does, and how far its error on its own training data can be trusted. You will then compare reported, in-sample and held-out errors, bar by bar.
#
# It takes about 60 minutes. It needs {ref}`the wavelet score machine <wavelet-machine>` and {ref}`which moments matter <which-moments>`.
# :::

# %% tags=["parameters"]
profile = "quick"
seed = 0
data = ["digits"]

# %% tags=["hide-input"]
import torch
from IPython.display import Markdown
from torch.testing import assert_close

from scorebook import paper, record, record_data
from scorebook.slider import frame_slider
from scoremachines import Gaussian, Moments, edm, metrics, plot
from scoremachines import data as datasets
from scoremachines.bases import Pixel, Wavelet
from scoremachines.frames import Frame
from scoremachines.ridge import SharedFeatures, SharedRidge

threads = torch.get_num_threads()
torch.set_num_threads(1)  # the digits are small: threads would only wait for each other
live = data == ["digits"]  # otherwise this run is a job of the paper profile, such as mnist-32-sigma-1
seeds = range(seed, seed + 5)


def generator(seed):
    """A generator of its own for every fit, so that the noisy images of a fit can be made again."""
    return torch.Generator().manual_seed(seed)


def noisy(x0, noise, seed):
    """The noisy images that a machine fitted with this seed has seen."""
    return noise.add(x0, torch.randn(x0.shape, generator=generator(seed), dtype=x0.dtype))


digits = datasets.load("digits", "train")
record_data(digits)
x0 = digits.x0.double()
level = edm(0.5)

# %% [markdown]
# ## Two models
#
# Section 2 of the paper derives what {ref}`the chapter on the machine <wavelet-machine>` computes: every coefficient has a few features of its own, and the systems are small. Section 3 and appendix C describe the experiments with another model. All features of all coefficients are collected in one vector $\phi(x)\in\R^p$, and a dense matrix maps it to all pixels.
#
# :::{prf:definition} The shared-readout machine
# :label: def-reported-shared
#
# Let $z=Fx$ be the coefficients of a noisy image in a dictionary $F$, and $\phi(x)$ the distinct monomials of a family over all of them, with the constant. The *shared-readout machine* is $D(x)=W^\top\phi(x)$, where $W$ minimises, over $N$ training images $x_0$ with one noisy version $x$ each,
#
# $$
# \begin{split}
# &\tfrac1N\!\sum\!\norm{W^\top\phi(x)-x_0}^2\\
# &\quad+\gamma\norm{W}^2 .
# \end{split}
# $$ (eq-reported-ridge)
# :::
#
# The two models share their features, but not their limits. The difference is largest where the features are simplest.
#
# :::{prf:proposition} Independent features, full filter
# :label: prop-reported-linear
#
# If $F$ is injective, the shared-readout machine with independent features of degree 1 and $\gamma=0$ is the best affine map from the $N$ noisy images to the clean ones. It does not depend on $F$.
# :::
#
# :::{prf:proof}
# $D(x)=w_0+W_1^\top Fx$ is affine in $x$. Conversely let $x\mapsto b+Ax$ be affine. $F$ has a left inverse $F^+$, so $Ax=AF^+Fx$ has the form $W_1^\top Fx$. Hence the minimum runs over all affine maps.
# :::
#
# So here "independent" means that no two different coefficients are multiplied with each other: the machine is *additive*. It does not mean that a coefficient is predicted from itself alone. That machine is the diagonal filter of {prf:ref}`prop-wavelet-linear`. On digits at $\sigma=0.5$ we compare the two. (On this page, "in-sample" means: on the very noisy images that were fitted.)


# %%
def linear_filter(x, x0):
    """The best affine map from these noisy images to these clean ones: full least squares."""
    a, b = x.flatten(1), x0.flatten(1)
    A = torch.linalg.lstsq(a - a.mean(0), b - b.mean(0)).solution
    return (b.mean(0) + (a - a.mean(0)) @ A).reshape(x0.shape)


x = noisy(x0, level, seed)
full = linear_filter(x, x0)
for basis in (Pixel(), Wavelet("db2")):
    machine = SharedRidge.fit(x0, basis, level, degree=1, ridge=1e-12, rng=generator(seed))
    assert_close(machine.denoise(x, level), full, rtol=1e-6, atol=1e-6)

# %% tags=["hide-input"]
z0, z = (Wavelet("db2").analysis(images).flatten(1) for images in (x0, x))
slope = ((z - z.mean(0)) * (z0 - z0.mean(0))).mean(0) / z.var(0, correction=0)
diagonal = z0.mean(0) + slope * (z - z.mean(0))
record("digits_full_error", metrics.mse(full, x0).mean().item(), rtol=1e-2)
record("digits_diagonal_error", (diagonal - z0).square().mean().item(), rtol=1e-2)

# %% [markdown]
# The full filter has an in-sample error of {glue:text}`digits_full_error:.3f` per pixel, the diagonal one {glue:text}`digits_diagonal_error:.3f`.
#
# ### What the dictionary contains
#
# The paper states a Daubechies wavelet (db2) with three levels at $32\times32$, periodic boundaries, and scaling coefficients at the coarsest level. It also says that its dictionary is overcomplete. Its figure of the coefficients shows maps of $17$, $10$ and $6$ cells a side, which are the sizes of a *zero-padded* transform, and a scaling map of the finest size, $17\times17$. The following dictionary is consistent with the reported bars: zero padding; for independent features the scaling coefficients of level 1 and all details; for band-tied and local features the details alone. Neighbours beyond the border are dropped. This gives the following numbers of features, the constant included.

# %% tags=["hide-input"]
FRAME = Frame("db2", levels=3, mode="zero", scaling_level=1)


def vocabulary(side, family, degree, scaling):
    return SharedFeatures.of(FRAME, (1, side, side), family, degree, scaling=scaling)


def count_table():
    lines = [
        "| family | scaling band | side | D = 1 | D = 2 | D = 3 | p / N at D = 3 |",
        "|---|---|---|---|---|---|---|",
    ]
    for side in (32, 64):
        for family, scaling in (("independent", True), ("band-tied", False), ("local", False), ("band-tied", True)):
            p = [len(vocabulary(side, family, degree, scaling)) for degree in (1, 2, 3)]
            word = "yes" if scaling else "no"
            counts = " | ".join(f"{n:,}" for n in p)
            lines.append(f"| {family} | {word} | {side} | {counts} | {p[-1] / 60_000:.2f} |")
    return "\n".join(lines)


Markdown(count_table())

# %% [markdown]
# Two things follow before anything is fitted. At degree 1 all three families would be the same model if they had the same coefficients. In the paper's charts they are not the same. Without the scaling band, a machine cannot see the overall brightness of a region. This alone separates the bars, as we shall see.
#
# And the numbers are large. The last column of the table gives the number of features per training image, for all 60 000 of them.
#
# ### Hermite features
#
# The paper repeats one experiment with Hermite polynomials. At $\gamma=0$ nothing can change: up to degree $d$ both sets of polynomials span the same space, and least squares depends on the span only.

# %%
hermite_level = edm(1.0)
x = noisy(x0, hermite_level, seed)
y = Wavelet("db2").analysis(x).flatten(1) / hermite_level.sigma
one = torch.ones(len(y), 1, dtype=y.dtype)
monomials = torch.cat([one, y, y**2, y**3], 1)
hermite = torch.cat([one, y, y**2 - 1, y**3 - 3 * y], 1)
guesses = [A @ torch.linalg.lstsq(A, x0.flatten(1), driver="gelsd").solution for A in (monomials, hermite)]
assert_close(*guesses, rtol=1e-8, atol=1e-8)
record("hermite_condition", (torch.linalg.cond(monomials) / torch.linalg.cond(hermite)).item(), rtol=1e-2)

# %% [markdown]
# On the digits the two fits agree to rounding. What changes is the conditioning: at $\sigma=1$ the condition number of the monomials is {glue:text}`hermite_condition:.1f` times that of the Hermite polynomials. With $\gamma>0$ the two sets are shrunk differently. In the published charts, the bars of figure 8 coincide with those of figures 5a and 6a to within the width of a line, which is consistent with a negligible $\gamma$.
#
# ## Two ridges
#
# Equation {eq}`eq-reported-ridge` shrinks the denoiser. Section 2 of the paper puts the ridge on the weights of the score instead. {prf:ref}`prop-wavelet-ridge` treats this for one coefficient; here is the shared model.
#
# :::{prf:proposition} Ridge on the readout, ridge on the score
# :label: prop-reported-ridge
#
# Let $x_0=x/\alpha+(\sigma^2/\alpha)\,\tau$, where $\tau=(\alpha x_0-x)/\sigma^2$ is the target of denoising score matching. Fit $\tau$ by ridge on weights $V$, and let $D(x)=\bigl(x+\sigma^2V^\top\phi(x)\bigr)/\alpha$. If every entry of $x$ is a combination of the features, this machine and that of {eq}`eq-reported-ridge` are the same at $\gamma=0$. As $\gamma\to\infty$, the first tends to $x/\alpha$, whose score is zero, and the second to the zero image.
# :::
#
# :::{prf:proof}
# Let $x=C^\top\phi(x)$. At $\gamma=0$ both minimise the same error over the same functions: $D=\bigl(C+\sigma^2V\bigr)^\top\phi/\alpha$ runs over all $W^\top\phi$ as $V$ does. The limits follow from $V\to0$ and $W\to0$.
# :::
#
# The zero image is black on the scale $[0,1]$, but grey on our scale $[-1,1]$: a ridge on the readout depends on where zero is. And the condition on $x$ matters: it fails for a dictionary of details alone, where the score machine keeps the low-pass noise and the readout machine has to guess it.

# %% tags=["hide-input"]
ridges = [0.0, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1e3]
test = datasets.load("digits", "test")
record_data(test)
held_out = test.x0.double()


def penalty_errors(penalty):
    """In-sample and held-out error per pixel at each ridge, (len(ridges), 2)."""
    rows = []
    for gamma in ridges:
        machine = SharedRidge.fit(
            x0, Wavelet("db2"), level, degree=2, ridge=gamma, penalty=penalty, rng=generator(seed)
        )
        fresh = metrics.mse(machine.denoise(noisy(held_out, level, seed + 1), level), held_out)
        rows.append((machine.training_error, fresh.mean().item()))
    return torch.tensor(rows, dtype=torch.float64)


shrunk = {penalty: penalty_errors(penalty) for penalty in ("readout", "score")}
assert_close(shrunk["readout"][0], shrunk["score"][0], rtol=1e-6, atol=0)
for penalty, rows in shrunk.items():
    record(f"digits_ridge_{penalty}", rows[:, 1].tolist(), rtol=1e-2)

# %% mystnb={"figure": {"name": "fig-reported-ridge", "caption": "Error of the two ridges on digits, degree 2, $\\sigma=0.5$, in-sample and on held-out images. (Features are scaled to mean 0 and variance 1.) Below $\\gamma=0.01$ the choice does not matter. Beyond it the ridge on the score ends at the noise itself, $\\sigma^2=0.25$, and the ridge on the readout at the mean square of the images."}, "image": {"alt": "Four curves of error against ridge on logarithmic axes. All are flat up to a ridge of about a tenth. Then the curve of the readout climbs steeply to about 0.7, that of the score gently to 0.25. Held-out curves lie slightly above in-sample curves.", "width": "80%"}} tags=["hide-input"]
fig, axis = plot.figure(size=(6.4, 3.4))
for (penalty, rows), color in zip(shrunk.items(), plot.COLORS, strict=False):
    for column, style, where in ((0, "--", "in-sample"), (1, "-", "held-out")):
        axis.plot(ridges[1:], rows[1:, column], style, color=color, label=f"ridge on the {penalty}, {where}")
axis.set(xscale="log", xlabel="ridge γ", ylabel="mean squared error per pixel", yscale="log")
axis.legend(frameon=False)
fig if live else None

# %% [markdown]
# The paper calls its $\gamma$ small and does not print it. For the comparison below we use $10^{-5}$. By {numref}`fig-reported-ridge`, any small value would do.
#
# ## How optimistic is an in-sample error?
#
# The paper evaluates "over the entire dataset", the same 60 000 images that were fitted. Our bars match the reported ones when the *noise* is the same too. How much lower is such an error than an honest one?
#
# :::{prf:proposition} Optimism of least squares
# :label: prop-reported-optimism
#
# Let $Y=AW_*+E$, where $A$ is a fixed $N\times p$ matrix of rank $p$ and the entries of $E$ have mean zero and variance $\sigma_e^2$, those of one column being uncorrelated. The least-squares fit $\hat W$ has the expected squared error per entry
#
# $$
# \begin{split}
# &\E\,\tfrac1{ND}\norm{Y-A\hat W}^2\\
# &\quad=\Bigl(1-\frac pN\Bigr)\sigma_e^2 .
# \end{split}
# $$ (eq-reported-optimism)
#
# If instead the rows of $A$ are independent draws of $\N(0,\Sigma)$, $E$ is independent of them, and $N>p+1$, then the error on a new row is, in expectation, $\sigma_e^2\,\frac{N-1}{N-p-1}$.
# :::
#
# :::{prf:proof}
# Let $P=A(A^\top A)^{-1}A^\top$, a projection of rank $p$. Then $Y-A\hat W=(I-P)E$. Each of the $D$ columns has the expected square $\sigma_e^2\tr(I-P)=\sigma_e^2(N-p)$. For a new row $a$, the error of the prediction is $e-a^\top(A^\top A)^{-1}A^\top E$, with variance $\sigma_e^2\bigl(1+a^\top(A^\top A)^{-1}a\bigr)$. Average over $a$, then over $A$: $A^\top A$ has a Wishart law, so $\E(A^\top A)^{-1}=\Sigma^{-1}/(N-p-1)$, and the average is $\sigma_e^2\bigl(1+p/(N-p-1)\bigr)$.
# :::
#
# For large $N$ the second error is $\sigma_e^2/(1-p/N)$. So the best possible error lies between the two, and the errors have the ratio
#
# $$
# \frac{\text{in-sample}}{\text{held-out}}\approx\Bigl(1-\frac pN\Bigr)^2 .
# $$ (eq-reported-ratio)
#
# Nothing here is Gaussian, and the truth is not a polynomial, so $E$ depends on $A$. Is the law any good? We draw $N$ digits with replacement, with fresh noise, fit independent features of degree 2 ($p=$ {glue:text}`digits_p`), and repeat this with five seeds.

# %%
counts = [200, 300, 500, 1000, 2000, 5000]
features = SharedFeatures.of(Wavelet("db2"), (1, 8, 8), "independent", 2)
probe = x0[torch.randint(len(x0), (4000,), generator=generator(seed + 100))]
fresh = noisy(probe, level, seed + 200)


def both_errors(n, seed):
    """In-sample error of a fit to n noisy digits drawn with replacement, and its error on other draws."""
    chosen = x0[torch.randint(len(x0), (n,), generator=generator(seed + 300))]
    machine = SharedRidge.nested(chosen, {"one": features}, level, ridge=1e-10, rng=generator(seed))["one"]
    return machine.training_error, metrics.mse(machine.denoise(fresh, level), probe).mean().item()


best = sum(both_errors(100_000, seed)) / 2
optimism = torch.tensor([[both_errors(n, s) for s in seeds] for n in counts], dtype=torch.float64) / best
ratio = len(features) / torch.tensor(counts, dtype=torch.float64)
mean, spread = optimism.mean(1), optimism.std(1)
interval = 2.776 * spread / len(seeds) ** 0.5  # Student's t, 95 %, four degrees of freedom
record("digits_p", len(features))
record("digits_optimism", mean.tolist(), rtol=2e-2)
record("digits_law_error", ((mean[:, 0] / (1 - ratio)) - 1).abs().max().item(), rtol=0.5)

# %% mystnb={"figure": {"name": "fig-reported-optimism", "caption": "Errors over the best possible error, against features per image: digits, degree 2, $\\sigma=0.5$, mean of five seeds with 95 % intervals. Lines: the two laws of {prf:ref}`prop-reported-optimism`. New images are further draws from the same digits, so that only the size of the sample is at work."}, "image": {"alt": "Blue points fall on a straight line from one to about one third as features per image grow from zero to 0.65. Orange points rise on a curve from one to about three.", "width": "80%"}} tags=["hide-input"]
grid = torch.linspace(0, 0.7, 100)
fig, axis = plot.figure(size=(6.4, 3.6))
for column, color, label in ((0, plot.COLORS[0], "in-sample"), (1, plot.COLORS[1], "fresh images and noise")):
    axis.errorbar(ratio, mean[:, column], interval[:, column], fmt="o", color=color, capsize=3, label=label)
axis.plot(grid, 1 - grid, "-", color=plot.COLORS[0], label="$1-p/N$")
axis.plot(grid, 1 / (1 - grid), "--", color=plot.COLORS[1], label="$1/(1-p/N)$")
axis.set(xlabel="features per image, p / N", ylabel="error / best possible error", ylim=(0, 4))
axis.legend(frameon=False)
fig if live else None

# %% [markdown]
# The points lie on the lines. At the smallest $N$ a machine that looks three times better than possible is three times worse. The next figure shows the same on images: with few images, a digit is recovered almost perfectly from the noise that was fitted, and badly from any other noise.

# %% mystnb={"figure": {"name": "fig-reported-slider", "caption": "Eight training digits (top), denoised from the noise of the fit (middle), and from new noise (bottom). Move the slider to fit more images."}} tags=["hide-input"]
frames, labels, alts = [], [], []
clean, names = x0[:8], ["clean", "same noise", "new noise"]
for n in (200, 300, 500, 1000, 1437):
    machine = SharedRidge.nested(x0[:n], {"one": features}, level, rng=generator(seed))["one"]
    seen, new = noisy(x0[:n], level, seed)[:8], noisy(clean, level, seed + 1)
    rows = torch.cat([clean, machine.denoise(seen, level), machine.denoise(new, level)])
    frames.append(plot.image_grid(rows.float(), columns=8, rows=names))
    labels.append(f"N = {n}, p / N = {len(features) / n:.2f}")
    same, other = (metrics.mse(row, clean).mean() for row in rows.split(8)[1:])
    alts.append(
        f"Eight clean digits, the same digits denoised from the noise of the fit, mean squared error {same:.3f}, and "
        f"denoised from new noise, {other:.3f}."
    )
frame_slider(frames, labels=labels, alts=alts, label="Training images") if live else None

# %% [markdown]
# ## The reported bars
#
# The following settings are consistent with the reported bars.
#
# | | stated | consistent with the bars |
# |---|---|---|
# | images | MNIST, 60 000 training images, resized to 32 and 64, in $[0,1]$ | bilinear resize, then standardised: mean 0.1307 subtracted, divided by 0.3081 |
# | noise | $x=x_0+\sigma\varepsilon$, $\sigma=1,2,3,4$ | in these units. On the scale $[0,1]$ the noise is $0.3081\,\sigma$, on our scale $[-1,1]$ it is $0.6162\,\sigma$ |
# | dictionary | db2, three levels | zero-padded, coefficients as above |
# | fit | ridge, small $\gamma$ | one noise draw for each image; any small $\gamma$ |
# | evaluation | over the entire data set | the training images with the noise of the fit |
# | error | mean square after clamping to $[0,1]$ | both images clamped, in standardised units |
#
# The last line deserves a remark. An intensity $q\in[0,1]$ becomes $(q-0.1307)/0.3081$. Clamped to $[0,1]$, all intensities below 0.13 count as black and all above 0.44 as white. No continuous constant was fitted to obtain this list. But the discrete choices in it were found by comparing a few of the bars with several candidates; the other bars followed.
#
# :::{dropdown} What is computed
# Every machine is fitted to all 60 000 training images. Its error is measured on the first 10 000 of them with the noise of the fit ("in-sample"), on the same images with new noise ("fresh"), and on the 10 000 test images with new noise ("held-out"). Also the error on the scale $[0,1]$ with the prediction clamped ("raw"), the plain error without any clamping, and standard errors over images. Sets of features that share a dictionary are fitted from one Gram matrix. Products are taken in single precision and added up in double precision; the systems are solved in double precision.
# :::

# %%
MEAN, STD = 0.1307, 0.3081  # of MNIST on [0, 1], the usual constants


def standardised(images):
    return ((images.x0 + 1) / 2 - MEAN) / STD


def clipped(found, clean):
    """The squared error per image after both images are clamped to [0, 1], in standardised units."""
    return metrics.mse(found.clamp(0, 1), clean.clamp(0, 1))


def raw(found, clean):
    """The squared error per image on the scale [0, 1], with the prediction clamped to it."""
    return metrics.mse((found * STD + MEAN).clamp(0, 1), clean * STD + MEAN)


def vocabularies(side):
    """The fits of a job: each is a dictionary of sets of features that share a Gram matrix."""
    families = {"independent": (True, 3), "band-tied": (False, 3 if side == 32 else 2)}
    first = {f"{f}-{d}": vocabulary(side, f, d, s) for f, (s, top) in families.items() for d in range(1, top + 1)}
    if side > 32:
        return [first]
    first |= {f"band-tied-with-scaling-{d}": vocabulary(side, "band-tied", d, True) for d in (2, 3)}
    pixels = {f"pixels-{d}": SharedFeatures.of(Pixel(), (1, side, side), "independent", d) for d in (2, 3)}
    return [first, {f"local-{d}": vocabulary(side, "local", d, False) for d in (2, 3)}, pixels]


def score(machine, clean, x):
    """Clipped, raw and plain squared errors per image, (3, N)."""
    rows = []
    for u, v in zip(clean.split(5000), x.split(5000), strict=True):
        found = machine.denoise(v, machine.noise)
        rows.append(torch.stack([clipped(found, u), raw(found, u), metrics.mse(found, u)]))
    return torch.cat(rows, 1)


def report(name, machine, train, test, job_seed):
    """Record every error of one machine: on 10 000 of its own noisy images, on them with new noise, on new images."""
    noise = machine.noise
    part = train[:10_000]
    sets = {
        "in_sample": (part, noisy(train, noise, job_seed)[: len(part)]),
        "fresh": (part, noisy(part, noise, job_seed + 1000)),
        "test": (test, noisy(test, noise, job_seed + 2000)),
    }
    record(f"{name}_p", len(machine.features))
    for where, (clean, x) in sets.items():
        errors = score(machine, clean, x)
        for kind, values in zip(("", "_raw", "_plain"), errors, strict=True):
            record(f"{name}_{where}{kind}", values.mean().item(), rtol=1e-2)
            record(f"{name}_{where}{kind}_error", (values.std() / len(values) ** 0.5).item(), rtol=0.2)


def repeat(features, noise, train, test, found):
    """Record the errors of the remaining seeds."""
    for other in seeds[1:]:
        for name, machine in SharedRidge.nested(train, features, noise, rng=generator(other)).items():
            x = noisy(train, noise, other)[:10_000]
            inside = score(machine, train[:10_000], x)
            outside = score(machine, test, noisy(test, noise, other + 2000))
            for where, values in (("in_sample", inside), ("test", outside)):
                found.setdefault(f"{name}_{where}_seeds", []).append(values[0].mean().item())
    for name, values in found.items():
        record(name, values, rtol=1e-2)


def linear(sigma, train, moments):
    """The Gaussian machine on [-1, 1], told the level of the noise, and told sigma instead."""
    machine, noise = Gaussian.fit(moments), edm(2 * STD * sigma)
    errors = {"told": [], "mistold": []}
    for u, v in zip(train.split(5000), noisy(train, edm(sigma), seed).split(5000), strict=True):
        x = 2 * (v * STD + MEAN) - 1
        for key, told in (("told", noise), ("mistold", edm(sigma))):
            found = ((machine.denoise(x, told) + 1) / 2 - MEAN) / STD
            errors[key].append(raw(found, u))
    for key, values in errors.items():
        record(f"linear_{key}_raw", torch.cat(values).mean().item(), rtol=1e-2)


def rank(side):
    """How many of the coefficients are linearly independent, with and without the scaling band."""
    F = FRAME.analysis(torch.eye(side**2, dtype=torch.float64).reshape(-1, 1, side, side)).T
    details = F[len(FRAME.bands((1, side, side))[0].grid.flatten()) :]
    return [int((torch.linalg.eigvalsh(A.T @ A) > 1e-9).sum()) for A in (F, details)]


for job in [] if live else data:
    torch.set_num_threads(threads)
    name, side, sigma = job.replace("-sigma", "").split("-")
    side, sigma = int(side), float(sigma)
    images, others = (datasets.load(name, split, size=side) for split in ("train", "test"))
    record_data(images)
    record_data(others)
    train, test = standardised(images), standardised(others)
    record("rank", rank(side))
    linear(sigma, train, Moments.of(images.x0))
    del images, others
    for features in vocabularies(side):
        for key, machine in SharedRidge.nested(train, features, edm(sigma), rng=generator(seed)).items():
            report(key, machine, train, test, seed)
    if side == 32:
        few = {f"independent-{d}": vocabulary(side, "independent", d, True) for d in (1, 2, 3)}
        repeat(few, edm(sigma), train, test, {})

# %% [markdown]
# Each cell of the table shows the *reported* height, then our error *in-sample*, then *held-out*. The paper's figure 8, with Hermite polynomials, has the bars of figures 5a and 6a, so those rows serve for it too.

# %% tags=["hide-input"]
SIGMAS = (1, 2, 3, 4)
TIMES_10000 = {  # heights of the bars, read off the figures of Finn et al. (2026): figure, model, side -> degree -> sigma
    ("5a", "independent", 32): {1: (144, 312, 454, 568), 2: (115, 266, 410, 533), 3: (108, 256, 398, 518)},
    ("5b", "band-tied", 32): {1: (173, 354, 502, 616), 2: (141, 310, 457, 578), 3: (125, 280, 421, 535)},
    ("5c", "local", 32): {1: (174, 355, 501, 617), 2: (122, 273, 411, 527), 3: (89, 207, 320, 416)},
    ("6a", "independent", 64): {1: (52, 131, 212, 289), 2: (36, 94, 160, 230), 3: (28, 78, 138, 200)},
    ("6b", "band-tied", 64): {1: (186, 353, 478, 577), 2: (117, 239, 345, 438), 3: (67, 150, 228, 295)},
    ("7b", "local", 64): {2: (73, 154, 229, 295)},
}
LINEAR = {32: (0.0087, 0.0185, 0.0267, 0.0330), 64: (0.0130, 0.0260, 0.0357, 0.0433)}  # figures 7a and 7b
REPORTED = {
    (figure, model, side, degree, sigma): height / 1e4
    for (figure, model, side), bars in TIMES_10000.items()
    for degree, heights in bars.items()
    for sigma, height in zip(SIGMAS, heights, strict=True)
}
results = paper("08_reported") if live else {}  # a job does not depend on other jobs


def ours(side, sigma, model, degree, what):
    """A number of the paper profile, None where the job was not run; at degree 1 local and band-tied are one model."""
    name = "band-tied" if (model, degree) == ("local", 1) else model
    return results.get(f"mnist-{side}-sigma-{sigma}", {}).get(f"{name}-{degree}_{what}")


def bar_table():
    lines = [
        "| figure | model | side | D | p | σ = 1 | σ = 2 | σ = 3 | σ = 4 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for figure, model, side, degree in dict.fromkeys(key[:4] for key in REPORTED):
        cells, p = [], ""
        for sigma in SIGMAS:
            reported = REPORTED[figure, model, side, degree, sigma]
            inside, outside = (ours(side, sigma, model, degree, what) for what in ("in_sample", "test"))
            p = p or ours(side, sigma, model, degree, "p") or ""
            found = "not run" if inside is None else f"{inside:.4f} · {outside:.4f}"
            cells.append(f"{reported:.4f} · {found}")
        lines.append(f"| {figure} | {model} | {side} | {degree} | {p} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


Markdown(bar_table())

# %% tags=["hide-input"]
deviations = {
    key: ours(side, sigma, model, degree, "in_sample") / reported - 1
    for key, reported in REPORTED.items()
    for _, model, side, degree, sigma in [key]
    if ours(side, sigma, model, degree, "in_sample") is not None
}


def deviation_text():
    size = torch.tensor([abs(v) for v in deviations.values()])
    figure, model, side, degree, sigma = max(deviations, key=lambda key: abs(deviations[key]))
    worst = deviations[figure, model, side, degree, sigma]
    return (
        f"Of {len(REPORTED)} bars, {len(deviations)} were rebuilt. In-sample, the median deviation from the reported "
        f"height is {100 * size.median():.1f} %. {(size <= 0.03).sum()} bars are within 3 %. The largest deviation, "
        f"{100 * worst:+.1f} %, is that of figure {figure}, {model}, degree {degree}, at σ = {sigma}."
    )


if deviations:
    record("deviations", list(deviations.values()), rtol=1e-2)
Markdown(deviation_text() if deviations else "The paper profile has not been run.")


# %% mystnb={"figure": {"name": "fig-reported-bars", "caption": "Reported heights (bars) with our in-sample errors (dots) and held-out errors (crosses), in the error of the paper. Bars without dots were not rebuilt. The dots sit on the bars. The crosses tell another story: they lie above the dots, the further the more features there are."}, "image": {"alt": "Five panels of bars in groups of three over noise levels one to four. Where there are dots, they coincide with the tops of the bars. Crosses lie slightly above them for degree 1 and further above for degree 3, most of all in the panel of local features, where the crosses of degree 3 are at nearly twice the height of their bars.", "width": "100%"}} tags=["hide-input"]
def bars_figure():
    panels = [key for key in TIMES_10000 if key[0] != "7b"]
    fig, axes = plot.figure(2, 3, size=(9.0, 5.6))
    for axis, (figure, model, side) in zip(axes.flat, panels, strict=False):
        for degree in (1, 2, 3):
            at = [sigma + (degree - 2) * 0.27 for sigma in SIGMAS]
            heights = [REPORTED[figure, model, side, degree, sigma] for sigma in SIGMAS]
            color = plot.COLORS[degree - 1]
            axis.bar(at, heights, 0.25, color=color, alpha=0.35, label=f"D = {degree}, reported")
            for what, marker in (("in_sample", "o"), ("test", "x")):
                found = [ours(side, sigma, model, degree, what) for sigma in SIGMAS]
                axis.plot(at, [float("nan") if v is None else v for v in found], marker, color=color, ms=4)
        axis.set(title=f"{figure}: {model}, {side} × {side}", xticks=SIGMAS)
    axes[1, 0].set(xlabel="σ in standardised units")
    for axis in axes[:, 0]:
        axis.set(ylabel="reported error")
    axes[1, 2].axis("off")
    handles, words = axes[0, 0].get_legend_handles_labels()
    for marker, word in (("o", "ours, in-sample"), ("x", "ours, held-out")):
        handles += axes[1, 2].plot([], [], marker, color="black", ms=4)
        words.append(word)
    axes[1, 2].legend(handles, words, loc="center", frameon=False)
    return fig


bars_figure() if live and results else None

# %% [markdown]
# Too large for the machine at hand are band-tied features of degree 3 and local features at $64\times64$, which need 26 000 features and more.
#
# ## Which effects survive?
#
# The table gives the change of the error from one machine to another: as reported, in-sample, and held-out.

# %% tags=["hide-input"]
EFFECTS = {
    "degree 3 for 1, independent, 32": (("independent", 3, 32), ("independent", 1, 32)),
    "degree 3 for 1, band-tied, 32": (("band-tied", 3, 32), ("band-tied", 1, 32)),
    "degree 3 for 1, local, 32": (("local", 3, 32), ("local", 1, 32)),
    "degree 3 for 1, independent, 64": (("independent", 3, 64), ("independent", 1, 64)),
    "degree 2 for 1, band-tied, 64": (("band-tied", 2, 64), ("band-tied", 1, 64)),
    "local for independent, degree 2, 32": (("local", 2, 32), ("independent", 2, 32)),
    "local for independent, degree 3, 32": (("local", 3, 32), ("independent", 3, 32)),
    "band-tied for independent, degree 2, 32": (("band-tied", 2, 32), ("independent", 2, 32)),
    "band-tied for independent, degree 3, 32": (("band-tied", 3, 32), ("independent", 3, 32)),
    "the same with the scaling band, degree 2": (("band-tied-with-scaling", 2, 32), ("independent", 2, 32)),
    "the same with the scaling band, degree 3": (("band-tied-with-scaling", 3, 32), ("independent", 3, 32)),
    "pixels for wavelets, degree 2, 32": (("pixels", 2, 32), ("independent", 2, 32)),
    "pixels for wavelets, degree 3, 32": (("pixels", 3, 32), ("independent", 3, 32)),
    "64 for 32, independent, degree 1": (("independent", 1, 64), ("independent", 1, 32)),
    "64 for 32, independent, degree 3": (("independent", 3, 64), ("independent", 3, 32)),
}
HEIGHTS = {key[1:]: height for key, height in REPORTED.items()}  # without the number of the figure


def change(new, old, sigma, what):
    """How much larger one error is than the other, in per cent; empty where one of them is not known."""
    pair = []
    for model, degree, side in (new, old):
        known = HEIGHTS.get((model, side, degree, sigma))
        pair.append(known if what == "reported" else ours(side, sigma, model, degree, what))
    return "" if None in pair else f"{round(100 * (pair[0] / pair[1] - 1)):+d} %"


def effect_table():
    kinds = ("reported", "in_sample", "test")
    lines = ["| change | " + " | ".join(f"σ = {s}: {k.replace('_', '-')}" for s in (1, 4) for k in kinds) + " |"]
    lines += ["|---|" + "---|" * 6]
    for name, (new, old) in EFFECTS.items():
        lines.append(f"| {name} | " + " | ".join(change(new, old, s, k) for s in (1, 4) for k in kinds) + " |")
    return "\n".join(lines).replace("test", "held-out")


Markdown(effect_table())

# %% [markdown]
# Read it row by row.
#
# **A higher degree** lowers every in-sample error, as reported. Held-out, at $\sigma=1$, it clearly helps the independent family, and nearly all of the gain is there at degree 2. For band-tied features degree 3 is no better than degree 2. For local features it is worse than degree 2 and hardly better than degree 1. At $\sigma=4$ degree 2 gains the independent family a few per cent, and degree 3 loses most of that again. Band-tied and local features of degree 3 are worse there than those of degree 1, local ones by far.
#
# **Local coupling** at degree 3 is best in-sample, as reported. Held-out it is far worse than independent features. Part of this is the scaling band, which local features lack. The rest is their number: in this model a local product is one of very many features and must earn its place against the noise that comes with the others. Against band-tied features, which see the same coefficients, the local ones win by a little at degree 2 and $\sigma=1$, and lose otherwise. In the coefficient-wise model, with its few features for each coefficient, local coupling is another matter: see {ref}`which moments matter <which-moments>`.
#
# **Band-tied features are worse than independent ones**, as reported, in-sample and held-out. But they lack the scaling band. Give it back, and the band-tied machine contains the independent one. Its in-sample error is then lower, and its held-out error the same to within a few per cent, a little higher where the features are many. What is reported as a price of mixing orientations is consistent with the price of a missing low-pass image.
#
# **The resolution.** The reported errors at $64\times64$ are lower. Three things change at once. A fixed $\sigma$ per pixel is half as strong relative to coarse structure ({ref}`ex-reported-resolution`). The smooth interpolation adds pixels but hardly any information. And $p/N$ grows, which lowers in-sample errors and raises held-out ones. So the comparison cannot say much about wavelets and resolution.
#
# **Pixels.** With independent features of the *pixels*, and a smaller number of them, the error changes by a few per cent. In this model the wavelets matter little: the dense readout mixes everything, and powers act almost as well on intensities as on coefficients.
#
# Is the gap between in-sample and held-out error really a matter of $p/N$? {numref}`fig-reported-law` compares the plain errors of all machines with {eq}`eq-reported-ratio`. For $p$ it counts features without the linear dependences of the redundant dictionary.


# %% mystnb={"figure": {"name": "fig-reported-law", "caption": "In-sample over held-out plain error of every machine that was rebuilt, against features per image. Line: the law for least squares, with nothing fitted."}, "image": {"alt": "Points fall from near one at few features per image to about one half at 0.29. They follow the curve of one minus p over N, squared.", "width": "80%"}} tags=["hide-input"]
def law_points(side, sigma, model):
    """Share of features (without linear dependences) and in-sample over held-out plain error, for every degree run."""
    for degree in (1, 2, 3):
        p, inside, outside = (ours(side, sigma, model, degree, what) for what in ("p", "in_sample_plain", "test_plain"))
        if p is not None:
            with_scaling, without = results[f"mnist-{side}-sigma-{sigma}"]["rank"]
            independent = model == "independent"
            first = ours(side, sigma, model, 1, "p") - 1
            yield (p - first + (with_scaling if independent else without)) / 60_000, inside / outside


def law_figure():
    fig, axis = plot.figure(size=(6.4, 3.6))
    models = [(model, side) for side in (32, 64) for model in ("independent", "band-tied", "local")]
    for (model, side), color in zip(models[:5], plot.COLORS, strict=False):  # the local family only at 32
        points = [point for sigma in SIGMAS for point in law_points(side, sigma, model)]
        if points:
            marker = "o" if side == 32 else "s"
            axis.plot(*zip(*points, strict=True), marker, color=color, ms=5, label=f"{model}, {side} × {side}")
    share = torch.linspace(0, 0.32, 100)
    axis.plot(share, (1 - share) ** 2, color="black", label="$(1-p/N)^2$")
    axis.set(xlabel="features per image, p / N", ylabel="in-sample / held-out error", ylim=(0, 1.05))
    axis.legend(frameon=False)
    return fig


law_figure() if live and results else None

# %% [markdown]
# The law accounts for nearly all of the gap. What an in-sample error promises, and a test image does not deliver, is the price of $p$ numbers fitted to $N$ images. It is not a property of the families.
#
# ### The linear baseline
#
# The paper's figure 7 compares its machines with a linear denoiser, whose error is reported as lower at $32\times32$ and higher at $64\times64$. By {prf:ref}`prop-reported-linear` a linear denoiser *is* the independent machine of degree 1, so the two bars cannot differ in the same units. The published baseline code of one of the authors uses the scale $[0,1]$ with a clamped prediction, and it tells the denoiser the noise level $\sigma$ on the scale $[-1,1]$, where the noise was in fact $0.6162\,\sigma$. The table repeats this with the {term}`Gaussian machine`, beside the same machine told the right level. All errors are raw.


# %% tags=["hide-input"]
def linear_table():
    lines = ["| side | σ | reported | told another level | told the level | degree 1, in-sample | degree 1, held-out |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for side in (32, 64):
        for sigma, reported in zip(SIGMAS, LINEAR[side], strict=True):
            found = results.get(f"mnist-{side}-sigma-{sigma}")
            names = ("linear_mistold_raw", "linear_told_raw", "independent-1_in_sample_raw", "independent-1_test_raw")
            cells = [f"{found[name]:.4f}" for name in names] if found else ["not run"] * 4
            lines.append(f"| {side} | {sigma} | {reported:.4f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


Markdown(linear_table())

# %% [markdown]
# At $32\times32$ the mistold denoiser has the reported error to within a few per cent. Told the right level its error is lower, and close to that of the independent machine of degree 1, as it must be. So the bars of figure 7 are consistent with two different units, and in equal units there is no contest: the linear denoiser is one of the wavelet machines. Where the bars at $64\times64$ come from, we do not know.
#
# ### Seeds
#
# Held-out errors of the independent family at $32\times32$ for five seeds, each with its own noise in training and test: mean and 95 % interval of the mean, in the error of the paper.


# %% tags=["hide-input"]
def seed_table():
    lines = ["| D | " + " | ".join(f"σ = {sigma}" for sigma in SIGMAS) + " |", "|---|---|---|---|---|"]
    for degree in (1, 2, 3):
        cells = []
        for sigma in SIGMAS:
            others = ours(32, sigma, "independent", degree, "test_seeds")
            values = torch.tensor([ours(32, sigma, "independent", degree, "test"), *others] if others else [])
            half = 2.776 * values.std() / len(values) ** 0.5 if others else 0
            cells.append(f"{values.mean():.5f} ± {half:.5f}" if others else "not run")
        lines.append(f"| {degree} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


Markdown(seed_table())

# %% [markdown]
# The seeds move these errors far less than the degree does. The effects above are not accidents of one noise draw.
#
# ## Exercises
#
# :::{exercise} What counts as grey
# :label: ex-reported-clip
#
# Show that the error of the paper, restricted to one pixel, is at most 1, and that a prediction of 0.9 for a pixel of intensity 0.5 (both on $[0,1]$) costs nothing.
# :::
#
# :::{solution} ex-reported-clip
# :class: dropdown
#
# Both numbers are clamped to $[0,1]$, so they differ by at most 1. In standardised units 0.5 becomes $(0.5-0.1307)/0.3081\approx1.2$ and 0.9 becomes about $2.5$. Both are clamped to 1.
# :::
#
# :::{exercise} Correct an in-sample error
# :label: ex-reported-gcv
#
# You are given the in-sample error, $p$ and $N$. Propose an estimate of the held-out error. Apply it to the reported bars of figure 5c at $\sigma=1$, and compare the order of the three degrees before and after.
# :::
#
# :::{solution} ex-reported-gcv
# :class: dropdown
#
# Divide by $(1-p/N)^2$, by {eq}`eq-reported-ratio`. This is the idea of generalised cross-validation. With $p/N=0.02,\,0.12,\,0.29$ the factors are about $1.04,\,1.29,\,1.98$. The bars $0.0174,\,0.0122,\,0.0089$ become $0.0182,\,0.0157,\,0.0177$: degree 2 is now the best. Compare with the table, but remember that the law is about the plain error.
# :::
#
# :::{exercise} Resolution and noise
# :label: ex-reported-resolution
#
# An image is resized from side $n$ to side $2n$ by smooth interpolation, and noise of the same $\sigma$ per pixel is added. By which factor does the signal-to-noise ratio of the coarse orthonormal wavelet coefficients grow? Which $\sigma$ at side $2n$ would be a fair comparison?
# :::
#
# :::{solution} ex-reported-resolution
# :class: dropdown
#
# A coefficient at a given coarse scale of the scene averages four times as many pixels, with orthonormal weights that are half as large: $4\cdot\frac12=2$ times the value. The noise of an orthonormal coefficient is $\sigma$ at any size. So the ratio of variances grows by a factor 4, and the fair level at side $2n$ is $2\sigma$.
# :::
#
# :::{exercise} Does the basis matter?
# :label: ex-reported-basis
#
# Fit independent features of degree 1 and 3 to the digits, with ten noise draws for each image, in pixels and in two wavelet bases. Predict first: at which degree can the basis matter? Which basis is best?
# :::

# %% [markdown]
# :::{solution-start} ex-reported-basis
# :class: dropdown
# :::
#
# By {prf:ref}`prop-reported-linear` the basis drops out at degree 1. At degree 3 it matters, since an additive model in one basis is not additive in another. On digits the pixels win. They have the most to gain from powers: a single pixel is nearly black or white, and a cubic can pull its noisy value towards one of the two.

# %%
errors = {}
for basis in (Pixel(), Wavelet("haar"), Wavelet("db2")):
    for degree in (1, 3):
        machine = SharedRidge.fit(x0, basis, level, degree=degree, draws=10, rng=generator(seed))
        errors[type(basis).__name__, getattr(basis, "name", ""), degree] = machine.training_error
linear_errors, cubic = ([e for (*_, degree), e in errors.items() if degree == d] for d in (1, 3))
assert max(linear_errors) / min(linear_errors) < 1 + 1e-3
assert max(cubic) / min(cubic) > 1.02

# %% [markdown]
# :::{solution-end}
# :::

# %% [markdown]
# :::{admonition} Limits and open questions
# Everything said here about unpublished settings is an inference from the agreement of bars. Other settings might agree as well. How the intervals of the published bars were made, which $\gamma$ was used, and why the two linear bars of figure 7b are as high as they are, we do not know.
#
# None of this touches the mathematics of the paper. Its closed form, its families and its question, *which moments, at which scale, at which noise*, stand; {ref}`which moments matter <which-moments>` asks it without sampled noise, on held-out images and with intervals.
#
# Bars that the table marks "not run" were not rebuilt. At $64\times64$, band-tied features of degree 3 and local features need larger systems than any solved here, and were not tried. The networks that the paper compares with were not rerun here.
# :::
