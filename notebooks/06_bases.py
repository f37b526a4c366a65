# ---
# jupyter:
#   jupytext: {text_representation: {extension: .py, format_name: percent}}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   scorebook:
#     goals:
#       - say what an orthonormal basis changes about denoising, and what it leaves alone
#       - prove that the principal components are best for a machine that treats coefficients separately
#       - derive the Haar and db2 filters by hand from two equations, and build the transform of images from them
#       - measure how heavy-tailed, how correlated and how dependent the wavelet coefficients of images are
#       - explain what a redundant frame does to white noise
#     minutes: 80
#     needs: [noise-and-scores, ideal-machine, gaussian-machine]
#     paper: [mnist, cifar10]
# ---

# %% [markdown]
# (orthonormal-bases)=
# # Orthonormal bases
#
# A score is a vector with one entry for each pixel. Written in another basis it is the same vector. So why does a paper on diffusion models begin by choosing wavelets {cite:p}`finn2026wavelet`? Because the machines that follow treat the coefficients *separately*, or a few at a time. How much such a machine loses depends on the basis: on how much of an image lies in the relations between its coefficients.
#
# :::{admonition} In this chapter
# You will see that a denoising problem is the same in every orthonormal basis and, but for a change of scale, in no other. You will build five bases in a few lines each, and derive the shortest wavelet filters by hand. Then you will measure what images look like in wavelet coefficients: sparse, weakly correlated, and far from independent.
#
# It takes about 80 minutes. It needs {ref}`noise and scores <noise-and-scores>` and {ref}`the Gaussian machine <gaussian-machine>`.
# :::

# %% tags=["parameters"]
profile = "quick"
seed = 0
data = ["digits", "photos"]

# %% tags=["hide-input"]
import math

import pywt
import torch
from IPython.display import Markdown
from torch.testing import assert_close

from scorebook import paper, record, record_data
from scorebook.slider import frame_slider
from scoremachines import Gaussian, Ideal, Moments, Noise, plot
from scoremachines import data as datasets
from scoremachines.bases import DCT, PCA, Fourier, Opponent, Pixel, Wavelet
from scoremachines.frames import Frame, isometry
from scoremachines.matrices import level_matrix

size = {"quick": {"draws": 100, "images": 6500}, "paper": {"draws": 100, "images": 20000}}[profile]
rng = torch.Generator().manual_seed(seed)
how = {"digits": {}, "photos": {"size": 32}, "mnist": {"size": 32}, "cifar10": {"channels": 1}}

train = {name: datasets.load(name, "train", **how[name]) for name in data}
test = {name: datasets.load(name, "test", **how[name]) for name in data}
for images in (*train.values(), *test.values()):
    record_data(images)
moments = {name: Moments.of(images.x0) for name, images in train.items()}
shapes = {name: images.x0.shape[1:] for name, images in train.items()}
depth = {name: 2 if shape[-1] < 32 else 3 for name, shape in shapes.items()}
first, last = data[0], data[-1]


def normal(*shape):
    """Standard normal numbers in float64 from the chapter's generator."""
    return torch.randn(shape, generator=rng, dtype=torch.float64)


def centred(name, images):
    """Images in float64, minus the mean of the training images."""
    return images.x0.double() - moments[name].mean.reshape(shapes[name])


# %% [markdown]
# Digits are 8 × 8 pixels here. All other images are 32 × 32: patches of photographs in the quick profile, MNIST (resized) and CIFAR-10 (as luma) in the paper profile.
#
# ## White noise stays white
#
# Let $W$ be an invertible matrix. In new coordinates $z=Wx$, a noisy image $x=\alpha x_0+\sigma\varepsilon$ with white noise $\varepsilon\sim\N(0,I)$ becomes $z=\alpha z_0+\sigma W\varepsilon$ with $z_0=Wx_0$. Signal and noise are still added. But is the noise still white?
#
# :::{prf:theorem} White noise stays white
# :label: thm-bases-white
#
# Let $\varepsilon\sim\N(0,I)$. Then $W\varepsilon\sim\N(0,I)$ if and only if $W$ is orthogonal, that is, $WW^\top=I$.
# :::
#
# :::{prf:proof}
# A linear map of a Gaussian vector is Gaussian. Its mean is $W\,\E\varepsilon=0$ and its covariance is $W\,\E[\varepsilon\varepsilon^\top]W^\top=WW^\top$. A Gaussian law is determined by mean and covariance, so it is $\N(0,I)$ exactly if $WW^\top=I$.
# :::
#
# For a square matrix, $WW^\top=I$ also gives $W^\top W=I$. The rows $w_i$ of $W$, the *atoms*, then form an {term}`orthonormal basis`; *analysis* is $z_i=w_i^\top x$, and *synthesis* is $x=W^\top z=\sum_iz_iw_i$. In such a basis a denoising problem is again a denoising problem, at the same noise level. All its objects are carried over.
#
# :::{prf:proposition} Denoisers, scores and flows are carried over
# :label: prop-bases-covariant
#
# Let $W$ be orthogonal and $z=Wx$. Denote by $D_x$, $s_x$ the {term}`denoiser` and the {term}`score` of the noisy images at a level $(\alpha,\sigma)$ with $\sigma>0$, and by $D_z$, $s_z$ those of their coefficients. Then
#
# $$
# \begin{split}
# D_z(z)&=W\,D_x(W^\top z),\\
# s_z(z)&=W\,s_x(W^\top z),
# \end{split}
# $$ (eq-bases-covariant)
#
# the errors $\E\norm{z_0-D_z(z)}^2$ and $\E\norm{x_0-D_x(x)}^2$ are equal, and $W$ carries the {term}`probability flow` of the images to that of the coefficients.
# :::
#
# :::{prf:proof}
# To know $z$ is to know $x$, so $D_z(z)=\E[Wx_0\mid x]=W\,D_x(x)$. The errors are equal because $W$ keeps lengths. The density of $z$ is $p_z(z)=p_x(W^\top z)$, since $|\det W|=1$. By the chain rule its logarithm has the gradient $W\,\nabla\log p_x(W^\top z)$. Finally, let $x_t$ follow the flow of the images, $dx=D_x\,d\alpha+\hat\varepsilon_x\,d\sigma$ with $\hat\varepsilon_x=(x-\alpha D_x)/\sigma$. Multiply by $W$ and use {eq}`eq-bases-covariant`: $z_t=Wx_t$ solves the same equation with $D_z$.
# :::
#
# Two machines of the earlier chapters know nothing of pixels: the {term}`ideal machine` compares images by their distance, which $W$ keeps, and the {term}`Gaussian machine` transforms its covariance along. Fitted on coefficients, they give the coefficients of what they give in pixels. Here is the check, in five bases that we are about to build.

# %%
x0, shape = train[first].x0.double(), shapes[first]
probe = torch.randperm(len(x0), generator=rng)[:500]
noise = Noise(0.8, 0.6)
x = noise.add(x0[probe[:16]], normal(16, *shape))
for basis in (Pixel(), Fourier(), DCT(), PCA.fit(moments[first]), Wavelet("db2", depth[first])):
    for Machine in (Ideal, Gaussian):
        on_images, on_coefficients = Machine.fit(x0[probe]), Machine.fit(basis.analysis(x0[probe]))
        there = basis.synthesis(on_coefficients.denoise(basis.analysis(x), noise))
        assert_close(there, on_images.denoise(x, noise), rtol=1e-9, atol=1e-9)

# %% [markdown]
# So a change of basis, by itself, explains nothing and improves nothing. A basis begins to matter when a machine treats the coefficients in a way that does depend on it: each by itself, each with its neighbours only, or all of one kind alike.
#
# ### The price of treating coefficients separately
#
# Take the simplest such machine: the {term}`Wiener filter` for each coefficient by itself. Let $\Sigma=\Cov(x_0)$ be the covariance of the images, and $C=W\Sigma W^\top$ that of their coefficients. The machine knows the means and the variances $C_{ii}$ of the coefficients, and ignores all correlations.
#
# :::{prf:theorem} Principal components are best, at every noise level
# :label: thm-bases-pca
#
# Let $\sigma>0$, and let $\Sigma$ have the eigenvalues $\lambda_k$. In an orthonormal basis, the best denoiser that is affine in each coefficient separately has the error
#
# $$
# \begin{split}
# E_W&=\sum_i\omega(C_{ii}),\\
# \omega(v)&=\frac{\sigma^2v}{\alpha^2v+\sigma^2}.
# \end{split}
# $$ (eq-bases-diagonal)
#
# It is at least $\sum_k\omega(\lambda_k)$, the error of the Gaussian machine. If $\alpha>0$, the two are equal exactly if $C$ is diagonal. Moreover, the $n$ largest variances $C_{ii}$ never hold more than the $n$ largest eigenvalues.
# :::
#
# :::{prf:proof}
# The formula is the error of the Wiener filter, {prf:ref}`thm-wiener`, in one dimension, summed over coefficients. Let $O=WU$, where the columns of $U$ are the eigenvectors of $\Sigma$. Then $C_{ii}=\sum_kO_{ik}^2\lambda_k$. The squares $O_{ik}^2$ add up to one along each row and each column, because $O$ is orthogonal. So $C_{ii}$ is a weighted mean of eigenvalues. The function $\omega$ is concave, and Jensen's inequality gives
#
# $$
# \begin{split}
# \sum_i\omega(C_{ii})&\ge\sum_i\sum_kO_{ik}^2\,\omega(\lambda_k)\\
# &=\sum_k\omega(\lambda_k).
# \end{split}
# $$
#
# If $C$ is diagonal, its entries $C_{ii}$ are the eigenvalues, and the two sides agree. Conversely, if $\alpha>0$, $\omega$ is strictly concave. Equality then requires that, for each $i$, all $\lambda_k$ with $O_{ik}\ne0$ are equal to $C_{ii}$, so that $\Sigma w_i=C_{ii}w_i$: each atom is an eigenvector. For the last statement, the sum of $n$ of the $C_{ii}$ is $\sum_kt_k\lambda_k$, where $t_k$ is the sum of $O_{ik}^2$ over the chosen $i$. So $0\le t_k\le1$ and $\sum_kt_k=n$, and such a sum is largest when $t_k=1$ for the $n$ largest eigenvalues and zero for the others.
# :::
#
# Only the *diagonal* of $C$ enters {eq}`eq-bases-diagonal`. In code, analysis of the rows of $\Sigma$, then of its columns:


# %%
def rotate(cov, basis, shape):
    """The covariance of the coefficients, W cov W^T."""
    half = basis.analysis(cov.reshape(-1, *shape)).flatten(1)
    return basis.analysis(half.T.reshape(-1, *shape)).flatten(1)


bases = {
    name: {
        "pixels": Pixel(),
        "Fourier": Fourier(),
        "DCT": DCT(),
        "PCA": PCA.fit(moments[name]),
        "Haar": Wavelet("haar"),  # all levels, down to a single scaling coefficient
        "db2": Wavelet("db2", depth[name]),
    }
    for name in data
}
covs = {
    name: {key: rotate(moments[name].cov, basis, shapes[name]) for key, basis in bases[name].items()} for name in data
}

# %% tags=["hide-input"]
sigmas = torch.logspace(-2, 1.5, 50, dtype=torch.float64)


def separate_error(variance):
    """Error of the Wiener filter for each coefficient by itself, at alpha = 1 and each sigma."""
    return torch.stack([(variance * s**2 / (variance + s**2)).sum() for s in sigmas])


price = {}
for name in data:
    best = separate_error(bases[name]["PCA"].lam)
    for key, cov in covs[name].items():
        price[name, key] = separate_error(cov.diagonal()) / best
        off = 1 - cov.diagonal().square().sum() / cov.square().sum()
        record(f"{name}_{key}_price", price[name, key].max().item())
        record(f"{name}_{key}_off", off.clamp(min=0).item(), rtol=1e-2 if key != "PCA" else 1.0)
        assert price[name, key].min() > 1 - 1e-9
shallow = separate_error(rotate(moments[last].cov, Wavelet("haar", depth[last]), shapes[last]).diagonal())
record(f"{last}_shallow_price", (shallow / separate_error(bases[last]["PCA"].lam)).max().item())

# %% mystnb={"figure": {"name": "fig-bases-wiener", "caption": "The price of treating coefficients separately: the error of one Wiener filter for each coefficient, over that of the Gaussian machine, against the noise level ($\\alpha=1$). No basis goes below one; principal components reach it. On photos the cosine transform is close, and pixels are a very bad choice. db2, with three levels, has a hump at high noise; Haar, taken down to a single scaling coefficient, has none. On digits no basis but the principal components is close at middle noise, and pixels are the best of the others at low noise."}, "image": {"alt": "Two panels of error ratio against sigma, each with six curves; PCA is the constant one. On digits the other five rise to a maximum of about one and a half below sigma one and fall back to one; the curve of pixels rises later. On photos the curve of pixels rises above eight near sigma one, db2 has a low maximum at small sigma and a second, higher one near sigma five, and the three others stay below one and a half.", "width": "100%"}} tags=["hide-input"]
fig, axes = plot.figure(1, len(data), size=(6.4, 3.6), squeeze=False)
for axis, name in zip(axes[0], data, strict=True):
    plot.curves(
        sigmas, {key: price[name, key] for key in bases[name]}, "noise level σ", "error / Gaussian machine", axis=axis
    )
    axis.set(title=name, yscale="log")
    axis.minorticks_off()
    highest = max(price[name, key].max() for key in bases[name])
    axis.set_yticks([1, 1.2, 1.4, 1.6] if highest < 2 else [1, 2, 4, 8], labels=None)
    axis.yaxis.set_major_formatter("{x:g}")
    axis.get_legend().remove()
fig.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=10)
fig

# %% [markdown]
# At its worst noise level, a separate filter for each coefficient costs a factor {glue:text}`photos_pixels_price:.1f` for pixels on photos, {glue:text}`photos_db2_price:.2f` for db2, {glue:text}`photos_Haar_price:.2f` for Haar and {glue:text}`photos_DCT_price:.2f` for the cosine transform. On digits these factors are {glue:text}`digits_pixels_price:.2f`, {glue:text}`digits_db2_price:.2f`, {glue:text}`digits_Haar_price:.2f` and {glue:text}`digits_DCT_price:.2f`. When there is little noise, the error counts the coefficients that vary at all, and pixels at the border of a digit hardly do.
#
# db2 and Haar are the two wavelet bases that we build below; a *scaling coefficient* is a weighted mean of the image over a block of pixels. The second hump of db2 is no property of its atoms. Three levels leave 16 scaling coefficients, and all of them say how bright the patch is. Noise that hides one of them does not hide their mean, which a machine that treats them separately cannot form. Haar, stopped after three levels, has this hump too, with a factor {glue:text}`photos_shallow_price:.2f`. Here it is continued until a single scaling coefficient is left. (db2 stays at the three levels of the paper. On two values its four taps would meet themselves around the torus.) Remember this hump when a machine of the next chapters improves by coupling *scaling* coefficients.
#
# Why then not always use principal components? Because {prf:ref}`thm-bases-pca` is about *affine* machines. It counts variances and nothing else. A machine that uses higher moments, or neighbours, may prefer a basis in which those are simple. We come back to this once the moments are measured.
#
# ## Four classical bases
#
# **Pixels.** $W=I$. Every atom is a point.
#
# **Fourier.** On a grid of $n_1\times n_2=D$ pixels, write $\langle k,p\rangle=k_1p_1/n_1+k_2p_2/n_2$. The plane wave of frequency $k=(k_1,k_2)$ is $e_k[p]=e^{2\pi i\langle k,p\rangle}/\sqrt D$. It is complex; but $e_{-k}$ is its conjugate, and $\sqrt2$ times the real and the imaginary part of $e_k$ span the same plane. (Where $-k=k$, modulo the sides, $e_k$ is real already.) Of each pair $\pm k$, one place of the coefficient array holds the cosine, the other the sine.
#
# **DCT**, the discrete cosine transform. The Fourier basis believes that the left edge of an image continues at the right one. Where it does not, there is a jump, and a jump has large coefficients at all frequencies. The cosine transform reflects the image at its edges first, so that there is none. Its atoms are products of cosines, with a maximum or minimum half a pixel beyond the centres of the outermost pixels.
#
# **PCA.** The eigenvectors of the covariance, by decreasing variance, as in {ref}`the Gaussian machine <gaussian-machine>`. It is the only basis here that has to be fitted.
#
# Each takes a few lines, and must agree with the library.

# %%
side = shape[-1]
place = torch.arange(side, dtype=torch.float64)
k1, k2, p1, p2 = torch.meshgrid(place, place, place, place, indexing="ij")
waves = torch.exp(2j * math.pi * (k1 * p1 + k2 * p2) / side) / side  # [k1, k2, p1, p2]
rank, mirror = (k1 * side + k2)[..., :1, :1], ((-k1) % side * side + (-k2) % side)[..., :1, :1]
fourier = torch.where(
    rank < mirror, math.sqrt(2) * waves.real, torch.where(rank > mirror, -math.sqrt(2) * waves.imag, waves.real)
)
# the place after its mirror image holds sqrt(2) Im F at its own frequency, that is, minus the sine
assert_close(torch.einsum("klpq,bcpq->bckl", fourier, x), Fourier().analysis(x))

cosines = torch.cos(math.pi * place[:, None] * (place + 0.5) / side) * math.sqrt(2 / side)
cosines[0] /= math.sqrt(2)
assert_close(cosines @ x @ cosines.T, DCT().analysis(x))

U = torch.linalg.eigh(moments[first].cov).eigenvectors.flip(1)
assert_close((x.flatten(1) @ U).abs(), PCA.fit(moments[first]).analysis(x).flatten(1).abs(), atol=1e-8, rtol=1e-8)

# %% [markdown]
# ### Stationary fields belong to Fourier
#
# Two of these bases are optimal, each for its own reason. Principal components are, by {prf:ref}`thm-bases-pca`. Plane waves are, when no place is special.
#
# :::{prf:proposition} Plane waves diagonalise stationary covariances
# :label: prop-bases-stationary
#
# Let $\Cov(x[p],x[q])=c[p-q]$ depend on the difference of the positions only, taken modulo the sides of the grid. The plane waves are then eigenvectors, $\Sigma e_k=\hat c_k\,e_k$ with $\hat c_k=\sum_rc[r]\,e^{-2\pi i\langle k,r\rangle}$, which is real and not negative. The real plane waves are eigenvectors too.
# :::
#
# :::{prf:proof}
# $(\Sigma e_k)[p]=\sum_qc[p-q]\,e_k[q]$. Put $q=p-r$. Since $e_k[p-r]=e_k[p]\,e^{-2\pi i\langle k,r\rangle}$, the sum is $\hat c_ke_k[p]$. Eigenvalues of a covariance are real and not negative. As $c[r]=c[-r]$, the waves $e_k$ and $e_{-k}$ have the same eigenvalue, and so have their real and imaginary parts.
# :::
#
# Small patches cut from photographs at many places are nearly stationary, except that a patch does not continue at its other side. The share of the squared entries of $C$ that lie off its diagonal is {glue:text}`photos_Fourier_off:.4f` in the Fourier basis and {glue:text}`photos_DCT_off:.4f` in the cosine basis, against {glue:text}`photos_pixels_off:.3f` in pixels. (The one overall brightness, which both keep in one coefficient, dominates these shares.) Digits are not stationary at all: they have a centre, and the shares are {glue:text}`digits_Fourier_off:.2f`, {glue:text}`digits_DCT_off:.2f` and {glue:text}`digits_pixels_off:.2f`.
#
# ### Neither is local
#
# An edge in one corner of an image touches nearly *every* plane wave. The same holds for principal components, which can be chosen as plane waves where the field is stationary on the torus. To say "there is an edge here", a sum of waves has to conspire. A pixel is as local as can be, but it holds all frequencies, and two pixels side by side nearly say the same. {numref}`fig-bases-atoms` shows what lies between: atoms that are local in space *and* in frequency. We build them next.


# %% tags=["hide-input"]
def atom(basis, row, column):
    """The atom whose coefficient lies at this place of the array."""
    unit = torch.zeros(1, *shapes[last], dtype=torch.float64)
    unit[0, 0, row, column] = 1
    return basis.synthesis(unit)[0]


def band_places(basis):
    """A place near the middle of one band after the other, coarse to fine."""
    bands = basis.bands(shapes[last])
    chosen = [bands[i] for i in torch.linspace(0, len(bands) - 1, 8).round().int()]
    return [((b.rows.start + b.rows.stop) // 2, (b.columns.start + b.columns.stop) // 2) for b in chosen]


side = shapes[last][-1]
frequencies = [(0, 1), (1, 0), (1, 1), (0, 3), (2, 3), (5, 1), (4, 6), (side // 2 - 1, 3)]
ranks = [min(k, side * side - 1) for k in (1, 2, 3, 5, 9, 20, 60, 200)]
places = {
    "pixels": [(4 + 3 * i, 5 * i % side) for i in range(8)],
    "Fourier": frequencies,
    "DCT": frequencies,
    "PCA": [(k // side, k % side) for k in ranks],
    "Haar": band_places(bases[last]["Haar"]),
    "db2": band_places(bases[last]["db2"]),
}

# %% mystnb={"figure": {"name": "fig-bases-atoms", "caption": "Eight atoms of each basis, each with its own contrast; mid-grey is zero. Waves and principal components fill the whole image. Pixels are points. Wavelets, sorted here from coarse to fine, have a size, a place and an orientation. Haar starts with the constant; db2 with one of its scaling atoms of level 3."}, "image": {"alt": "Six rows of eight small pictures. Pixels: single bright dots. Fourier and DCT: stripes and checkered waves of growing frequency over the whole square. PCA: similar wave-like patterns, less regular, the last like noise. Haar: a uniform square, two halves, then groups of black and white rectangles that become smaller. db2: small groups of light and dark spots with jagged outlines, becoming smaller.", "width": "90%"}} tags=["hide-input"]
chosen = [atom(bases[last][key], *spot) for key, spots in places.items() for spot in spots]
plot.image_grid(torch.stack([0.85 * a / a.abs().max() for a in chosen]), columns=8, rows=list(places))

# %% [markdown]
# How local is an atom? With $\sum_pw[p]^2=1$, the number $1/\sum_pw[p]^4$ is its *area* in pixels: it is $n$ when the energy is spread evenly over $n$ pixels. The same formula, applied to the Fourier coefficients of the atom, gives its *bandwidth*, the number of frequencies that it occupies.


# %% tags=["hide-input"]
def extent(coefficients):
    """Over how many entries the energy of each row is spread: 1 for one, n for n equal ones."""
    energy = coefficients.abs().square()
    return energy.sum(1).square() / energy.square().sum(1)


units = torch.eye(math.prod(shapes[last]), dtype=torch.float64).reshape(-1, *shapes[last])
area, bandwidth = {}, {}
for key, basis in bases[last].items():
    atoms = basis.synthesis(units)
    area[key] = extent(atoms.flatten(1))
    bandwidth[key] = extent(torch.fft.fft2(atoms, norm="ortho").flatten(1))
    record(f"{last}_{key}_area", area[key].median().item(), rtol=0.02)
    record(f"{last}_{key}_bandwidth", bandwidth[key].median().item(), rtol=0.02)

# %% mystnb={"figure": {"name": "fig-bases-locality", "caption": "Area in pixels against bandwidth in frequencies, for every atom of six bases on images of $32\\times32$. Pixels and plane waves sit in opposite corners. Wavelets lie along the diagonal between them: fine atoms are small and broadband, coarse ones large and narrowband. db2 lies below Haar, so it is the more local of the two. Most principal components of these photos are as broadband as fine wavelets and nearly as large as waves: local in neither sense. (Components of small, nearly equal variances are mixtures that depend on the sample.)"}, "image": {"alt": "Scatter plot on logarithmic axes. One point for all pixels at area one and bandwidth one thousand. Fourier and DCT at areas of some hundreds of pixels and bandwidths from one to some tens. Haar and db2 in groups that descend from the upper left to the lower right, db2 below Haar. PCA forms a tall cloud at areas of about three hundred and bandwidths from about ten to four hundred.", "width": "80%"}} tags=["hide-input"]
fig, axis = plot.figure(size=(6.4, 4.2))
for key, color, mark in zip(area, plot.COLORS, "os^dvP", strict=False):
    axis.loglog(area[key], bandwidth[key], mark, color=color, label=key, ms=5, alpha=0.5)
axis.set(xlabel="area (pixels)", ylabel="bandwidth (frequencies)")
axis.legend(frameon=False, fontsize=10)
fig

# %% [markdown]
# ## A filter bank from two equations
#
# We look for an orthogonal matrix whose atoms are local, and all alike: shifted copies of very few shapes. Two shapes suffice. Let $h[0],\dots,h[F-1]$, with $F$ even, be a *low-pass* filter, and $g[0],\dots,g[F-1]$ a *high-pass* filter. Use each at every *second* position of a signal $x$ of even length $n$:
#
# $$
# \begin{split}
# a[m]&=\sum_jh[j]\,x[2m+j],\\
# d[m]&=\sum_jg[j]\,x[2m+j],
# \end{split}
# $$ (eq-bases-level)
#
# for $m=0,\dots,n/2-1$, with positions taken modulo $n$. The $n/2$ {term}`scaling coefficients <scaling coefficient>` $a$ should be a smaller version of the signal. The $n/2$ *details* $d$ should hold what is missing. (The library starts each atom $F/2-1$ places further left. That only renumbers the positions.) The two filters together are a {term}`filter bank`. We demand two things of $h$ {cite:p}`daubechies1988`.
#
# **Orthonormality.** Copies of $h$, shifted by even steps, are orthonormal. With $h[j]=0$ outside of $0,\dots,F-1$, and with $\delta_0=1$ and $\delta_m=0$ otherwise, for all integers $m$,
#
# $$
# \sum_jh[j]\,h[j+2m]=\delta_m.
# $$ (eq-bases-shifts)
#
# **Vanishing moments.** The details of a smooth signal should be small, and those of a polynomial of degree below $P$ zero. If $g[j]=(-1)^jh[F-1-j]$, it is enough that, for $q=0,\dots,P-1$,
#
# $$
# \sum_j(-1)^jj^q\,h[j]=0.
# $$ (eq-bases-vanishing)
#
# :::{prf:proposition} The alternating flip
# :label: prop-bases-flip
#
# Let $h$ satisfy {eq}`eq-bases-shifts`, and let $g[j]=(-1)^jh[F-1-j]$. Then the even shifts of $g$ are orthonormal, and orthogonal to those of $h$. For even $n\ge F$ the $n$ rows of {eq}`eq-bases-level` form an orthogonal matrix. If $h$ satisfies {eq}`eq-bases-vanishing` too, $\sum_jj^qg[j]=0$ for $q<P$: on the line, polynomials of degree below $P$ have no details.
# :::
#
# :::{prf:proof}
# In $\sum_jg[j]\,g[j+2m]$ the signs cancel, and with $i=F-1-j-2m$ it is $\sum_ih[i+2m]\,h[i]=\delta_m$. Next, let
#
# $$
# \begin{split}
# s_m&=\sum_jh[j]\,g[j+2m]\\
# &=\sum_j(-1)^jh[j]\\
# &\qquad\times h[F-1-j-2m].
# \end{split}
# $$
#
# Substitute $j\to F-1-2m-j$. The two factors change places, and the sign $(-1)^j$ becomes $(-1)^{F-1-2m-j}=-(-1)^j$, since $F$ is even. So $s_m=-s_m=0$.
#
# On the circle of $n\ge F$ positions, the inner product of two rows is the sum of these sums over all $m$ that differ by multiples of $n/2$. All of them vanish, except for $m=0$ and equal filters. So the $n$ rows are orthonormal.
#
# Finally, with $i=F-1-j$ and $(-1)^{F-1-i}=-(-1)^i$,
#
# $$
# \begin{split}
# &\sum_jj^qg[j]\\
# &=-\sum_i(-1)^i(F-1-i)^qh[i].
# \end{split}
# $$
#
# Expand the power: every term has a vanishing sum. The details of $x[p]=p^q$ are $\sum_jg[j]\,(2m+j)^q$, and vanish in the same way.
# :::
#
# One more consequence is worth a line. Add the squares of $\sum_jh[j]$ and $\sum_j(-1)^jh[j]$: products $h[j]h[j']$ with odd $j-j'$ cancel, and those with even $j-j'$ appear twice. So
#
# $$
# \begin{split}
# &\Bigl(\sum_jh[j]\Bigr)^2\\
# &+\Bigl(\sum_j(-1)^jh[j]\Bigr)^2\\
# &=2\sum_m\sum_jh[j]\,h[j+2m]\\
# &=2 .
# \end{split}
# $$ (eq-bases-sum)
#
# With one vanishing moment the second square is zero, and $\sum_jh[j]=\sqrt2$, choosing the sign. A constant signal is then passed on unchanged, apart from the factor $\sqrt2$ that keeps its energy in half as many values.
#
# ### Two taps: Haar
#
# Let $F=2$, $P=1$. {eq}`eq-bases-vanishing` says $h[0]=h[1]$, and {eq}`eq-bases-sum` gives $h=(1,1)/\sqrt2$, $g=(1,-1)/\sqrt2$: sums and differences of pairs.
#
# ### Four taps: db2
#
# Let $F=4$, $P=2$, and write $s=1/\sqrt2$. The moment $q=0$ and {eq}`eq-bases-sum` say that $h[0]+h[2]=h[1]+h[3]=s$. The moment $q=1$ says that $h[1]+3h[3]=2h[2]$. Everything can be expressed by $b=h[3]$:
#
# $$
# \begin{split}
# h[1]&=s-b,\\
# h[2]&=\tfrac12s+b,\\
# h[0]&=\tfrac12s-b.
# \end{split}
# $$
#
# What is left of orthonormality is $h[0]h[2]+h[1]h[3]=0$. (With it, the first two lines of {eq}`eq-bases-sum` give $2=2\sum_jh[j]^2$.) Inserted,
#
# $$
# \begin{split}
# \tfrac14s^2-b^2+sb-b^2&=0,\\
# b&=\tfrac14(1\pm\sqrt3)\,s .
# \end{split}
# $$
#
# The two signs give a filter and its mirror image. With the minus sign,
#
# $$
# \begin{split}
# 4\sqrt2\,h=\bigl(&1+\sqrt3,\;3+\sqrt3,\\
# &3-\sqrt3,\;1-\sqrt3\bigr).
# \end{split}
# $$ (eq-bases-db2)
#
# This is db2, the filter of {cite:t}`finn2026wavelet`. We build one level as a matrix and compare it with the library, and the taps with PyWavelets {cite:p}`lee2019pywavelets`.


# %%
def one_level(h, n):
    """The matrix of one level on n values: low-pass rows above, high-pass rows below."""
    g = h.flip(0) * (-1.0) ** torch.arange(len(h))
    matrix = torch.zeros(n, n, dtype=h.dtype)
    for m in range(n // 2):
        for j in range(len(h)):
            position = (2 * m + j - (len(h) // 2 - 1)) % n
            matrix[m, position] += h[j]
            matrix[n // 2 + m, position] += g[j]
    return matrix


root3 = math.sqrt(3)
haar = torch.tensor([1.0, 1.0], dtype=torch.float64) / math.sqrt(2)
db2 = torch.tensor([1 + root3, 3 + root3, 3 - root3, 1 - root3], dtype=torch.float64) / (4 * math.sqrt(2))
for h, name in ((haar, "haar"), (db2, "db2")):
    assert_close(h, torch.tensor(pywt.Wavelet(name).rec_lo, dtype=torch.float64))
    matrix = one_level(h, 16)
    assert_close(matrix @ matrix.T, torch.eye(16, dtype=torch.float64))
    assert_close(matrix, torch.as_tensor(level_matrix(name, 16)))

# %% mystnb={"figure": {"name": "fig-bases-filters", "caption": "Left: one level of db2 on 16 values, an orthogonal matrix; mid-grey is zero. Above, the low-pass atoms, each two places further right than the one before; below, the high-pass atoms. The first and the last low-pass and high-pass row wrap around. Right: what the two filters pass, against frequency (0.5 is the fastest oscillation). At every frequency the two add up to 2. With four taps instead of two, db2 separates low from high frequencies more sharply."}, "image": {"alt": "Left, a sixteen by sixteen matrix with two descending staircases of short light and dark runs, with a few entries in the opposite corners. Right, two curves falling from 2 to 0 as frequency grows and their two mirror images rising; the curves of db2 are steeper in the middle than those of Haar.", "width": "100%"}} tags=["hide-input"]
fig, axes = plot.figure(1, 2, size=(6.4, 3.2))
matrix = one_level(db2, 16)
plot.show(axes[0], matrix[None] / matrix.abs().max())
axes[0].set(xlabel="position", ylabel="coefficient", xticks=[], yticks=[])
frequency = torch.linspace(0, 0.5, 100, dtype=torch.float64)


def passed(taps):
    """Squared size of the Fourier transform of a filter at each frequency."""
    wave = torch.exp(2j * math.pi * frequency[:, None] * torch.arange(len(taps)))
    return (taps * wave).sum(1).abs() ** 2


for h, label, style, color in ((haar, "Haar", "--", plot.COLORS[1]), (db2, "db2", "-", plot.COLORS[0])):
    low, high = passed(h), passed(h.flip(0) * (-1.0) ** torch.arange(len(h)))
    assert_close(low + high, torch.full_like(low, 2))
    axes[1].plot(frequency, low, style, color=color, label=f"{label}, low")
    axes[1].plot(frequency, high, style, color=color, alpha=0.5, label=f"{label}, high")
axes[1].set(xlabel="frequency (cycles per pixel)", ylabel="energy passed")
fig.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
fig

# %% [markdown]
# ### The pyramid
#
# The scaling coefficients look like a signal of half the length. So do it again, on them alone, and again: $L$ levels {cite:p}`mallat1989`. Every step multiplies by an orthogonal matrix, hence the whole transform is orthogonal. Its cost is $n+n/2+n/4+\dots<2n$ times the length of the filter; for images it is less than $\tfrac43$ of the first level.
#
# An image of $n_1\times n_2$ pixels is transformed along its columns and along its rows: one level is $W_{n_1}xW_{n_2}^\top$ with the matrices of {eq}`eq-bases-level` for the two sides. It has four quarters. Low-pass in both directions gives the scaling coefficients A, which take the next step. The three others are details: high-pass vertically (H, which sees horizontal edges), high-pass horizontally (V, vertical edges) and both (D, diagonal ones). Here is the complete transform, checked against PyWavelets and against the library.


# %%
def transform(x, h, levels):
    """The coefficients of images x (..., H, W), packed: scaling coefficients in the top left corner."""
    z = x.clone()
    for level in range(levels):
        rows, columns = x.shape[-2] >> level, x.shape[-1] >> level
        corner = z[..., :rows, :columns]
        z[..., :rows, :columns] = one_level(h, rows) @ corner @ one_level(h, columns).T
    return z


signal = normal(4, 1, 32, 48)
packed, _ = pywt.coeffs_to_array(pywt.wavedec2(signal.numpy(), "db2", mode="periodization", level=3), axes=(-2, -1))
assert_close(transform(signal, db2, 3), torch.from_numpy(packed))
assert_close(transform(signal, db2, 3), Wavelet("db2", 3).analysis(signal))
assert_close(transform(signal, haar, 4), Wavelet("haar", 4).analysis(signal))

# %% tags=["hide-input"]
photograph = datasets.to_unit(torch.tensor(pywt.data.camera()))[None, None, :256, 128:384].double()
camera = Wavelet("db2", 3)
z = camera.analysis(photograph)
tiles = camera.bands(z.shape[1:])

# %% mystnb={"figure": {"name": "fig-bases-pyramid", "caption": "A photograph of $256\\times256$ pixels and its db2 coefficients of three levels, packed into an array of the same size. Every band has its own contrast, and mid-grey is zero. Most details are near zero. Those that are not line up along edges, and the same edge shows at all scales, at the same place."}, "image": {"alt": "Left, a man with a film camera in front of a lawn and buildings. Right, the wavelet pyramid: a small copy of the photograph in the top left corner, and nine grey panels, three sizes by three orientations, in which the outlines of the man, the tripod and the buildings appear as thin black and white lines.", "width": "100%"}} tags=["hide-input"]
fig, axes = plot.figure(1, 2, size=(6.4, 3.25))
plot.show(axes[0], photograph[0])
axes[0].axis("off")
plot.pyramid(z[0], [(band.rows, band.columns) for band in tiles], [band.name for band in tiles], axes[1])
fig

# %% [markdown]
# The library's `Wavelet.bands` names these parts; A3 is the scaling band of level 3, V1 the finest vertical details.
#
# ### What periodicity does
#
# Taking positions modulo $n$ glues the left edge of the image to the right one, and the upper edge to the lower. With db2 the first and the last atom of each row of a band reach across the seam. Where the image does not continue, they see a jump.


# %% tags=["hide-input"]
def seam(name):
    """Mean energy of the finest vertical details in the two outer columns, over that in the others."""
    basis = bases[name]["db2"]
    band = next(b for b in basis.bands(shapes[name]) if b.name == "V1")
    energy = basis.analysis(centred(name, train[name]))[:, 0, band.rows, band.columns].square().mean((0, 1))
    return (energy[[0, -1]].mean() / energy[1:-1].mean()).item()


for name in data:
    record(f"{name}_seam", seam(name), rtol=0.01)

# %% [markdown]
# On photos the finest vertical details at the seam have {glue:text}`photos_seam:.1f` times the energy of the others; on digits, whose background is the same on both sides, {glue:text}`digits_seam:.2f` times. Such coefficients are no error: the transform is orthogonal, and the image can be recovered. But they are details that no photograph contains, and every statistic of a small image includes them.
#
# ## Frames: more coefficients than pixels
#
# To avoid the seam, one can extend the image beyond its edges instead, and keep all coefficients that the extended image has. With padding by zeros, one level of db2 on $n$ values has $n+2$ coefficients. (For even $n$; in general, $2\lfloor(n+F-1)/2\rfloor$.) The analysis matrix $B$ is tall: more coefficients than pixels. It is no basis any more.
#
# :::{prf:proposition} Zero padding gives a Parseval frame
# :label: prop-bases-frame
#
# Let $B$ have as rows all atoms of the transform on the infinite line (in two dimensions, the plane) that meet the image, restricted to the image. Then $B^\top B=I$: the rows form a *Parseval frame*, also called tight. If there are $M$ rows and $D<M$ pixels, then $BB^\top$ is a projection with $M-D$ eigenvalues 0. Its diagonal entries lie between 0 and 1, and white noise $\varepsilon$ in the pixels becomes noise $B\varepsilon\sim\N(0,BB^\top)$ in the coefficients.
# :::
#
# :::{prf:proof}
# An image that is extended by zeros has the same length as before, and the transform on the line keeps lengths (its rows are orthonormal and complete; see {ref}`ex-bases-complete`). Atoms that miss the image contribute nothing. So $\norm{Bx}=\norm x$ for all $x$, that is, $B^\top B=I$. Then $(BB^\top)^2=B(B^\top B)B^\top=BB^\top$: a projection, of rank $D$. Its diagonal entries are $e_i^\top BB^\top e_i=\norm{BB^\top e_i}^2$, between 0 and $\norm{e_i}^2=1$. The law of the noise is that of a linear map of a Gaussian vector.
# :::
#
# A Parseval frame still reconstructs, $x=B^\top z$, and still keeps energy, $\norm z=\norm x$. What breaks is everything that needed $BB^\top=I$:
#
# * the noise in the coefficients is correlated, and near the edges weaker, so moment formulas that let the noises of different coefficients be independent do not apply;
# * the errors of the coefficients do not add up to the error of the image: $\norm{B^\top e}\le\norm e$, with equality only for $e$ in the range of $B$;
# * a denoised coefficient vector need not be the analysis of any image.
#
# The chapters that follow use orthonormal bases where they solve for moments exactly, and frames only where they want to be consistent with the protocol of the paper.

# %%
one = isometry("db2", "zero", 16)  # the padded level of the library
F = torch.as_tensor(one)
assert F.shape == (18, 16)
assert_close(F.T @ F, torch.eye(16, dtype=torch.float64))
projection = F @ F.T
assert_close(projection @ projection, projection)

# %% mystnb={"figure": {"name": "fig-bases-frame", "caption": "Covariance of the coefficients of white noise, one level of db2 on 16 values. Left: periodic, an orthonormal basis; the noise is white. Right: padded with zeros, 18 coefficients. The first low-pass and the last high-pass atom meet the image with their two smaller taps only. They hold little noise, and it is correlated with that of a partner at the same end."}, "image": {"alt": "Two square maps. Left, a bright diagonal on a dark ground. Right, the same diagonal, but its first and last entries are dark, and four single entries off the diagonal are not zero: two of a positive and two of a negative value, coupling the first low-pass to the first high-pass coefficient and the last to the last.", "width": "90%"}} tags=["hide-input"]
fig, axes = plot.figure(1, 2, size=(6.4, 2.9))
periodic = one_level(db2, 16)
for axis, cov, title in zip(
    axes, (periodic @ periodic.T, projection), ("periodic, 16 × 16", "zero padding, 18 × 18"), strict=True
):
    drawn = axis.imshow(cov, cmap="viridis", vmin=-0.5, vmax=1)
    axis.set(title=title, xticks=[], yticks=[])
    axis.grid(False)
fig.colorbar(drawn, ax=axes, shrink=0.8)
fig

# %% [markdown]
# ### The paper's dictionary
#
# {cite:t}`finn2026wavelet` use db2 with three orientations and three levels on images of $32\times32$. The text describes a periodic boundary and scaling atoms at the coarsest level. The coefficient maps drawn in one of its figures measure $17\times17$, $10\times10$ and $6\times6$ cells. These are the sizes of a padded transform; they do not tell zeros from other paddings. It also reports two deviations from orthonormality, $\norm{BB^\top-I}=0.01201$ and $\norm{B^\top B-I}=0.01346$ (App. C.1). We compute such norms for four candidates: the periodic basis, the tight frame, and the two dictionaries that are consistent with its bars ({ref}`reported-figures`).

# %% tags=["hide-input"]
pixels = torch.eye(1024, dtype=torch.float64).reshape(-1, 1, 32, 32)
analyses = {
    "periodic": Wavelet("db2", 3).analysis(pixels).flatten(1),
    "tight": Frame().analysis(pixels),
    "level1": Frame(scaling_level=1).analysis(pixels),
    "details": Frame(scaling_level=0).analysis(pixels),
}
for key, images_of_pixels in analyses.items():
    B = images_of_pixels.T
    defect = (torch.linalg.eigvalsh(B.T @ B) - 1).abs()
    zeros = len(B) - B.shape[1]  # B B^T has the same eigenvalues, and this many zeros more
    norms = {
        "columns": defect.max().item(),
        "rows": max(defect.max().item(), float(zeros > 0)),
        "frobenius": math.sqrt(defect.square().sum().item() + zeros) / len(B),
    }
    record(f"dictionary_{key}_atoms", len(B))
    for norm, value in norms.items():
        record(f"dictionary_{key}_{norm}", value, rtol=1e-6 if value > 1e-9 else 1e3)  # 1e3: rounding, no number

# %% [markdown]
# | dictionary on 32 × 32 | atoms | spectral norm of $BB^\top-I$ | spectral norm of $B^\top B-I$ | Frobenius norm of $BB^\top-I$, over the number of atoms |
# |---|---|---|---|---|
# | the paper's text (App. C.1), as reported | | 0.01201 | 0.01346 | |
# | periodic basis | {glue:text}`dictionary_periodic_atoms` | {glue:text}`dictionary_periodic_rows:.0e` | {glue:text}`dictionary_periodic_columns:.0e` | {glue:text}`dictionary_periodic_frobenius:.0e` |
# | zero padding, details and scaling of level 3 | {glue:text}`dictionary_tight_atoms` | {glue:text}`dictionary_tight_rows:.2f` | {glue:text}`dictionary_tight_columns:.0e` | {glue:text}`dictionary_tight_frobenius:.4f` |
# | zero padding, details and scaling of level 1 | {glue:text}`dictionary_level1_atoms` | {glue:text}`dictionary_level1_rows:.2f` | {glue:text}`dictionary_level1_columns:.2f` | {glue:text}`dictionary_level1_frobenius:.4f` |
# | zero padding, details only | {glue:text}`dictionary_details_atoms` | {glue:text}`dictionary_details_rows:.2f` | {glue:text}`dictionary_details_columns:.2f` | {glue:text}`dictionary_details_frobenius:.4f` |
#
# If $B$ is not square, one of the two products is singular, and its spectral distance from $I$ is at least 1. If $B$ is square, the two products have the same eigenvalues, and the two distances are equal. The two reported numbers are small and differ. So they are not two spectral norms of one matrix. The Frobenius norm of the tight frame, divided by the number of its atoms, has about their size. We know of no exact match. The question stays open; nothing in this book depends on it.
#
# ## What images look like in wavelets
#
# ### Energy and tails, scale by scale
#
# For every coefficient we have its variance and its excess kurtosis $\kappa_4=\E[(z-\E z)^4]/\Var(z)^2-3$ over the training images; it is zero for a Gaussian. Within a band we average the kurtosis with the variances as weights, so that coefficients that hardly vary hardly count. Intervals are 95 % bootstrap intervals. They resample images; for photos they resample the regions that patches were cut from, because patches of a region are not independent.


# %% tags=["hide-input"]
def resampled(images, index):
    """Weights of the images, (1 + draws, N): equal ones first, then bootstrap draws that resample whole groups."""
    groups = (
        torch.arange(len(index)) if images.regions is None else images.regions[index].unique(return_inverse=True)[1]
    )
    count = int(groups.max()) + 1
    picks = torch.randint(count, (size["draws"], count), generator=rng)
    often = torch.stack([torch.bincount(pick, minlength=count) for pick in picks]).double()
    weights = torch.cat([torch.ones(1, count, dtype=torch.float64), often])[:, groups]
    return weights / weights.sum(1, keepdim=True)


def interval(values):
    """(estimate, low, high) from the values under all weights."""
    return torch.stack([values[0], *values[1:].quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))])


def tails(z, weights):
    """Mean variance and variance-weighted excess kurtosis of coefficients z (N, n), each with its interval."""
    m1, m2, m3, m4 = (weights @ z**power for power in (1, 2, 3, 4))
    variance = m2 - m1**2
    fourth = m4 - 4 * m3 * m1 + 6 * m2 * m1**2 - 3 * m1**4
    alive = variance > 1e-9 * variance[0].max()  # in a draw, a coefficient of the border may not vary at all
    kurtosis = torch.where(alive, fourth / variance, 0).sum(1) / torch.where(alive, variance, 0).sum(1) - 3
    return interval(variance.mean(1)), interval(kurtosis)


coefficients, weights, bands, energy, kurtosis = {}, {}, {}, {}, {}
for name in data:
    index = torch.randperm(len(train[name]), generator=rng)[: size["images"]]
    weights[name] = resampled(train[name], index)
    basis = bases[name]["db2"]
    z = basis.analysis(centred(name, train[name])[index])[:, 0]
    coefficients[name] = {band.name: z[:, band.rows, band.columns] for band in basis.bands(shapes[name])}
    bands[name] = list(coefficients[name])
    measured = [tails(band.flatten(1), weights[name]) for band in coefficients[name].values()]
    energy[name], kurtosis[name] = (torch.stack(part) for part in zip(*measured, strict=True))
    assert (kurtosis[name] >= -2 - 1e-9).all()  # no law has less
    record(f"{name}_images", len(index))
    record(f"{name}_energy", energy[name].tolist(), rtol=0.05)
    record(f"{name}_kurtosis", kurtosis[name].tolist(), rtol=0.05)
    for band, row in zip(bands[name], kurtosis[name], strict=True):
        for key, value in zip(("", "_low", "_high"), row, strict=True):
            record(f"{name}_kurtosis_{band}{key}", value.item(), rtol=0.05)
    by_level = torch.stack([energy[name][1 + 3 * i : 4 + 3 * i, 0].mean() for i in range(depth[name])])
    record(f"{name}_level_ratio", (by_level[0] / by_level[-1]).pow(1 / (depth[name] - 1)).item())

# %% mystnb={"figure": {"name": "fig-bases-bands", "caption": "Variance (above) and excess kurtosis (below) of the db2 coefficients by band, from coarse to fine; H, V and D are the orientations, the number is the level. On photos the variance falls by a steady factor from level to level. The tails of the details are far heavier than a Gaussian's, and heaviest at the finest scale. The scaling coefficients are the opposite: their tails are lighter. Digits of $8\\times8$ pixels hardly show any of this. Bars: 95 % bootstrap intervals."}, "image": {"alt": "Two rows of points over band names, for digits and photos. Photos: the variance falls by more than a factor of a thousand from A3 to D1; the kurtosis is minus one for A3, about ten for the coarse details and rises to thirty for D1. Digits: the variance of the bands of level 2 is between four tenths and nine tenths, that of level 1 falls to one tenth; the kurtosis of all bands lies between minus one and one.", "width": "100%"}} tags=["hide-input"]
fig, axes = plot.figure(2, len(data), size=(6.4, 4.6), squeeze=False, sharex="col")
for column, name in enumerate(data):
    spots = torch.arange(len(bands[name]))
    for axis, rows, color in zip(axes[:, column], (energy[name], kurtosis[name]), plot.COLORS, strict=False):
        errors = torch.stack([rows[:, 0] - rows[:, 1], rows[:, 2] - rows[:, 0]]).clamp(min=0)
        axis.errorbar(spots, rows[:, 0], errors, fmt="o", color=color, ms=5, capsize=3)
    axes[0, column].set(title=name, yscale="log")
    scale = "symlog" if kurtosis[name].max() > 3 else "linear"
    axes[1, column].set(yscale=scale, xticks=spots, xticklabels=bands[name])
    axes[1, column].axhline(0, color="black", lw=1)
    axes[1, column].yaxis.set_major_formatter("{x:g}")
    axes[1, column].tick_params(axis="x", labelsize=9)
for axis, label in zip(axes[:, 0], ("variance", "excess kurtosis"), strict=True):
    axis.set_ylabel(label)
fig

# %% [markdown]
# On photos, the mean variance of the details grows by a factor of {glue:text}`photos_level_ratio:.1f` from each level to the next coarser one. That is near the wavelet side of a well-known law: the power spectrum of natural images falls like $|k|^{-2}$ {cite:p}`field1987`, for which the factor would be 4 (see {ref}`ex-bases-power`). A field with that spectrum looks alike at all scales. These photographs are a little smoother than that. For digits, with two levels only, the factor is {glue:text}`digits_level_ratio:.1f`.
#
# The details of photos have an excess kurtosis of {glue:text}`photos_kurtosis_D1:.0f` ({glue:text}`photos_kurtosis_D1_low:.0f` to {glue:text}`photos_kurtosis_D1_high:.0f`) in D1, {glue:text}`photos_kurtosis_V1:.0f` in V1 and {glue:text}`photos_kurtosis_V3:.0f` in V3. Most of the image is smooth, so most details are near zero; an edge makes a few of them large. Are the scaling coefficients near Gaussian, then? No. The excess kurtosis of A3 is {glue:text}`photos_kurtosis_A3:.2f` ({glue:text}`photos_kurtosis_A3_low:.2f` to {glue:text}`photos_kurtosis_A3_high:.2f`); a uniform distribution has $-1.2$. A scaling coefficient is little more than the mean brightness of a block of $8\times8$ pixels, and brightness is limited to a range. (On MNIST and CIFAR-10, at the end of this chapter, the number is closer to zero. That makes the fourth moment nearly Gaussian, not the law.) In digits of $8\times8$ pixels a stroke is as wide as an atom, few places are smooth, and all bands lie between {glue:text}`digits_kurtosis_V2:.2f` (V2) and {glue:text}`digits_kurtosis_H1:.2f` (H1).


# %% mystnb={"figure": {"name": "fig-bases-histograms", "caption": "Densities of coefficients in units of their own standard deviation, on a logarithmic scale, with the Gaussian of the same variance (grey). Details of photos: a sharp peak and heavy tails, straighter than a Gaussian's parabola. Scaling coefficients of photos: flat, and with hard ends. Coefficients that hardly vary are left out."}, "image": {"alt": "Two panels of densities on a log scale. Digits: A2, V2 and D1 stay close to the grey parabola, and D1 has some mass beyond it. Photos: A3 is flat between minus one and a half and two and ends abruptly; V2 and D1 have a peak above the parabola and nearly straight flanks that reach eight standard deviations.", "width": "100%"}} tags=["hide-input"]
edges = torch.linspace(-8, 8, 65, dtype=torch.float64)
centres = (edges[1:] + edges[:-1]) / 2
fig, axes = plot.figure(1, len(data), size=(6.4, 3.4), squeeze=False, sharey=True)
for axis, name in zip(axes[0], data, strict=True):
    for band, color, style in zip((bands[name][0], "V2", "D1"), plot.COLORS, plot.STYLES, strict=False):
        z = coefficients[name][band].flatten(1)
        z = z[:, z.var(0) > 0.01 * z.var(0).mean()]
        z = (z - z.mean(0)) / z.std(0)
        density = torch.histc(z, 64, -8, 8) / z.numel() / 0.25
        axis.plot(centres, density.where(density > 0, torch.nan), style, color=color, label=band, lw=1.8)
    axis.plot(centres, torch.exp(-(centres**2) / 2) / math.sqrt(2 * math.pi), color="grey", lw=1)
    axis.set(title=name, yscale="log", ylim=(1e-5, 3), xlabel="standard deviations")
    axis.legend(frameon=False, fontsize=10)
axes[0, 0].set_ylabel("density")
fig

# %% [markdown]
# ### How few coefficients suffice
#
# {prf:ref}`thm-bases-pca` says which basis packs most variance into a *fixed* set of $n$ coefficients: PCA, on the images that it was fitted on. An adaptive choice is another matter: keep the $n$ largest coefficients of *each* image, whichever they are. Here an atom of the right size at the right place can pay off.


# %% tags=["hide-input"]
def compaction(name, key, adaptive):
    """Share of the energy of held-out images, minus the mean, in their first n coefficients, n = 1, 2, ..."""
    energies = bases[name][key].analysis(centred(name, test[name])[:2000]).flatten(1).square()
    order = covs[name][key].diagonal().argsort(descending=True)
    kept = energies.sort(descending=True).values if adaptive else energies[:, order]
    return kept.sum(0).cumsum(0) / energies.sum()


compact = {
    (name, key, adaptive): compaction(name, key, adaptive)
    for name in data
    for key in bases[name]
    for adaptive in (False, True)
}
for (name, key, adaptive), kept in compact.items():
    record(f"{name}_{key}_{'adaptive' if adaptive else 'fixed'}", 1 - kept[len(kept) // 16 - 1].item(), rtol=0.01)
    record(f"{name}_sixteenth", len(kept) // 16) if (key, adaptive) == ("db2", True) else None

# %% mystnb={"figure": {"name": "fig-bases-compaction", "caption": "Share of the energy of held-out images (minus the mean image) that is lost when $n$ coefficients are kept. Left: the same $n$ for all images, those of largest variance on the training images. Right: the $n$ largest of each image. Adaptive choice helps every basis. On photos it helps Haar more than the principal components, which Haar overtakes; the cosine transform stays ahead of both until a few hundred coefficients are kept. On digits the principal components win either way."}, "image": {"alt": "Four panels of falling curves, energy lost against coefficients kept. Digits: PCA falls first in both panels, the others are close together, and pixels fall steeply at the end. Photos: pixels stay near one almost to the end; db2 falls late, with a kink at 16 coefficients; the other four are close together throughout, DCT and PCA lowest on the left; on the right DCT is lowest, except near the end, where Haar and db2 fall below it.", "width": "100%"}} tags=["hide-input"]
fig, axes = plot.figure(len(data), 2, size=(6.4, 2.4 * len(data) + 0.8), squeeze=False, sharey="row")
for row, name in zip(axes, data, strict=True):
    for axis, adaptive in zip(row, (False, True), strict=True):
        lost = {key: (1 - compact[name, key, adaptive])[:-1].clamp(min=1e-6) for key in bases[name]}
        steps = torch.arange(1, len(lost["db2"]) + 1)
        plot.curves(steps, lost, "coefficients kept", "energy lost", yscale="log", axis=axis)
        axis.set(title=f"{name}, {'largest of each image' if adaptive else 'same for all'}", ylim=(1e-3, 1.1))
        axis.title.set_fontsize(10)
        axis.get_legend().remove()
    row[1].set_ylabel("")
fig.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False, fontsize=9)
fig

# %% [markdown]
# With one coefficient in sixteen, {glue:text}`photos_sixteenth` of 1024, the same for all held-out photos, principal components lose {glue:text}`photos_PCA_fixed:.3f` of the energy, the cosine transform {glue:text}`photos_DCT_fixed:.3f`, db2 {glue:text}`photos_db2_fixed:.3f`, Haar {glue:text}`photos_Haar_fixed:.3f`, and pixels {glue:text}`photos_pixels_fixed:.2f`. (The theorem is about the images that a basis was fitted on. On new ones, the fitted basis need not win.) Chosen for each image, the losses are {glue:text}`photos_PCA_adaptive:.3f`, {glue:text}`photos_DCT_adaptive:.3f`, {glue:text}`photos_db2_adaptive:.3f`, {glue:text}`photos_Haar_adaptive:.3f` and {glue:text}`photos_pixels_adaptive:.2f`.
#
# So on patches this small wavelets are no miracle. There is not much room for a place in $32\times32$ pixels. And db2 has the seam, which Haar atoms never cross; with so few coefficients, its smoothness does not make up for that. (With a quarter of all coefficients, the same for all, it does.)
#
# On this larger image with flat regions and sharp edges it is different. The slider keeps the $n$ largest coefficients of an image of $96\times96$ pixels in three bases. With 64 of them the cosine transform loses least, {glue:text}`camera_DCT_64:.3f` against {glue:text}`camera_Haar_64:.3f` for Haar and {glue:text}`camera_db2_64:.3f` for db2; with 1024 it loses most, {glue:text}`camera_DCT_1024:.4f` against {glue:text}`camera_Haar_1024:.4f` and {glue:text}`camera_db2_1024:.4f`.

# %% mystnb={"figure": {"name": "fig-bases-slider", "caption": "The centre of the photograph of {numref}`fig-bases-pyramid`, at half its resolution, from its $n$ largest coefficients in three bases; above each, the share of the variance that is lost. Few cosines make a blurred picture with waves in the sky, few Haar atoms make blocks. As $n$ grows, the waves in the sky stay long after the wavelets have got it right, because wavelets spend their coefficients at the edges."}} tags=["hide-input"]
small = torch.nn.functional.avg_pool2d(photograph[..., 30:222, 20:212], 2)
frames, labels, alts = [], [], []
for n in (64, 128, 256, 512, 1024, 2048, 4096):
    fig, axes = plot.figure(1, 3, size=(6.4, 2.5))
    lost = {}
    for axis, (key, basis) in zip(
        axes, {"DCT": DCT(), "Haar": Wavelet("haar", 5), "db2": Wavelet("db2", 5)}.items(), strict=True
    ):
        z = basis.analysis(small)
        cut = z.abs().flatten().kthvalue(z.numel() - n + 1).values
        kept = basis.synthesis(z.where(z.abs() >= cut, 0))
        lost[key] = ((kept - small).square().sum() / (small - small.mean()).square().sum()).item()
        plot.show(axis, kept[0])
        axis.set_title(f"{key}: {100 * lost[key]:.1f} %", fontsize=10)
        record(f"camera_{key}_{n}", lost[key])
    for axis in axes:
        axis.axis("off")
    frames.append(fig)
    labels.append(f"n = {n} of {small.numel()}")
    alts.append(
        f"Three approximations of the man with the camera by {n} coefficients. Share of variance lost: "
        + ", ".join(f"{key} {100 * value:.1f} percent" for key, value in lost.items())
        + "."
    )
frame_slider(frames, labels, alts, label="Coefficients kept")

# %% [markdown]
# ### Uncorrelated is not independent
#
# Look at {numref}`fig-bases-pyramid` again. Large details sit next to large details, and in the same place as large details of the next coarser scale, their *parents*. Their magnitudes go together, much more than their signs do. Two numbers show it: the correlation $\rho(z,z')$ of two coefficients, and that of their squares, $\rho(z^2,z'^2)$. If the two were jointly Gaussian, the second would be the square of the first ({ref}`ex-bases-squares`). So whatever exceeds it is seen by no covariance, in any basis. Both numbers are pooled: covariances and variances are summed over the places of a band before they are divided. For Gaussian pairs the rule is then exact if all places are alike, as they nearly are in photos.


# %% tags=["hide-input"]
def inside(z):
    """A square band without the places at the seam, where there is room: two on each side of 16."""
    edge = z.shape[-1] // 8
    return z[:, edge : z.shape[1] - edge, edge : z.shape[2] - edge]


def pairs(bands):
    """Pairs of details (N, h, w) of level 1 by their relation."""
    H, V, D = (inside(bands[f"{o}1"]) for o in "HVD")
    parents = [inside(bands[f"{o}2"].repeat_interleave(2, 1).repeat_interleave(2, 2)) for o in "HVD"]
    return {
        "along the edge": [(H[:, :, 1:], H[:, :, :-1]), (V[:, 1:], V[:, :-1])],
        "across the edge": [(H[:, 1:], H[:, :-1]), (V[:, :, 1:], V[:, :, :-1])],
        "sibling": [(H, V), (H, D), (V, D)],
        "parent": list(zip((H, V, D), parents, strict=True)),
    }


def correlation(a, b, weights):
    """Correlation over the images, with covariances and variances summed over positions; with its interval."""
    a, b = a.flatten(1), b.flatten(1)
    ma, mb, ab, aa, bb = (weights @ v for v in (a, b, a * b, a * a, b * b))
    return interval((ab - ma * mb).sum(1) / ((aa - ma**2).sum(1) * (bb - mb**2).sum(1)).sqrt())


dependence = {}
for name in data:
    for relation, found in pairs(coefficients[name]).items():
        signed = torch.stack([correlation(a, b, weights[name]) for a, b in found])
        squared = torch.stack([correlation(a**2, b**2, weights[name]) for a, b in found])
        dependence[name, relation] = signed, squared
        word = relation.split()[0]
        record(f"{name}_{word}_signed", signed[:, 0].abs().mean().item(), rtol=0.02)
        record(f"{name}_{word}_squared", squared[:, 0].mean().item(), rtol=0.02)

# %% mystnb={"figure": {"name": "fig-bases-dependence", "caption": "Left: the finest vertical details V1 of photos given their parent V2, every column normalised (the square root is shown); both in units of their standard deviation. The most probable value stays at zero, and the spread grows with the size of the parent: a bow tie, slightly tilted. Right: correlation of squares against squared correlation, for pairs of details of level 1. Jointly Gaussian pairs, alike at all places, would lie on the line. Filled: photos; open: digits. Bars: 95 % bootstrap intervals."}, "image": {"alt": "Left, a map that is brightest in its centre; the distribution of the child is narrow where the parent is near zero and wide where it is large, with a bright horizontal line at zero throughout. Right, a scatter plot with a diagonal line. All filled points lie well above the line: siblings and parents near the left edge at heights of one to four tenths, neighbours further right at three to five tenths. Open points lie close to the line or below it.", "width": "100%"}} tags=["hide-input"]
fig, axes = plot.figure(1, 2, size=(6.4, 3.5))
child, parent = ((v / v.std()).flatten() for v in pairs(coefficients[last])["parent"][1])
box = torch.linspace(-4, 4, 34, dtype=torch.float64)
counts = torch.histogramdd(torch.stack([child, parent], 1), [box, box]).hist
axes[0].imshow((counts / counts.sum(0)).sqrt(), origin="lower", extent=(-4, 4, -4, 4), cmap="viridis", aspect="auto")
axes[0].set(xlabel="parent V2", ylabel="child V1")
axes[0].grid(False)
for name, fill in ((first, "none"), (last, "full")):
    for (relation, color), mark in zip(zip(pairs(coefficients[name]), plot.COLORS, strict=False), "os^d", strict=False):
        signed, squared = dependence[name, relation]
        low, high = squared[:, 0] - squared[:, 1], squared[:, 2] - squared[:, 0]
        axes[1].errorbar(
            signed[:, 0].square(), squared[:, 0], torch.stack([low, high]).clamp(min=0), fmt=mark, color=color, fillstyle=fill,
            label=relation if fill == "full" else None, ms=6, capsize=2, lw=1,
        )  # fmt: skip
axes[1].plot([0, 0.3], [0, 0.3], color="black", lw=1)
axes[1].set(xlabel="squared correlation", ylabel="correlation of squares")
fig.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
fig

# %% [markdown]
# On photos the finest details have, on average, correlations of size {glue:text}`photos_parent_signed:.2f` with their parents and {glue:text}`photos_sibling_signed:.2f` with their siblings (the other orientations at the same place); for their squares it is {glue:text}`photos_parent_squared:.2f` and {glue:text}`photos_sibling_squared:.2f`. Neighbours are correlated too, {glue:text}`photos_along_signed:.2f` along the edge and {glue:text}`photos_across_signed:.2f` across it, and their squares {glue:text}`photos_along_squared:.2f` and {glue:text}`photos_across_squared:.2f`. (On photos, places at the seam are left out: all of them would see the same jump at once.) On digits there is little of the kind: squares of parent and child have a correlation of {glue:text}`digits_parent_squared:.2f`. Neighbours across an edge are correlated, {glue:text}`digits_across_signed:.2f`, but their squares, with {glue:text}`digits_across_squared:.2f`, less than the square of that.
#
# This is the programme of {ref}`the wavelet score machine <wavelet-machine>` and of {ref}`the question which moments matter <which-moments>`. A machine that knows the variances of coefficients gets what {prf:ref}`thm-bases-pca` allows. Heavy tails can be used by a polynomial in the coefficient itself. Correlations between neighbours can be used by linear terms. And the common magnitudes of neighbours, siblings and parents can be used only by products that couple them, such as a coefficient times the energy around it {cite:p}`portilla2003`.
#
# ### Colour
#
# The three colour channels of an image are strongly correlated, so separate channels are a poor basis. `Opponent` rotates the colours first, by the cosine transform of three values: luminance $(1,1,1)/\sqrt3$, red against blue $(1,0,-1)/\sqrt2$, green against magenta $(1,-2,1)/\sqrt6$. A rotation of colours is orthogonal, so it can be followed by any basis of this chapter.

# %%
coloured = {name: datasets.load(name, "test", size=32, channels=3) for name in data if name in ("photos", "cifar10")}
for name, images in coloured.items():
    record(f"{name}_colour_count", images.count)
    z = Opponent(Wavelet("db2", 3)).analysis(images.x0.double() - images.x0.double().mean(0))
    assert_close(z.square().sum(), (images.x0.double() - images.x0.double().mean(0)).square().sum())
    share = z.square().mean((0, 2, 3)) / z.square().mean((0, 2, 3)).sum()
    record(f"{name}_luminance", share[0].item())
    record(f"{name}_red_blue", share[1].item())
    record(f"{name}_green_magenta", share[2].item())

# %% [markdown]
# On {glue:text}`photos_colour_count` held-out patches of the two colour photographs, luminance holds {glue:text}`photos_luminance:.3f` of the energy, red against blue {glue:text}`photos_red_blue:.3f`, and green against magenta {glue:text}`photos_green_magenta:.4f`.
#
# ## On full data sets
#
# The same notebook runs on MNIST (resized to $32\times32$) and CIFAR-10 (as luma), with {glue:text}`draws` bootstrap draws over 20,000 training images each. Covariances are those of all training images; the energies lost are measured on 2,000 test images of MNIST and 1,000 of CIFAR-10. {ref}`reproducing` says how to make the numbers again. The tables have no counterpart in the paper, which compares families of features in one basis, db2. On MNIST, db2 is the best of the bases that need no fit, in all four lines of the table. On CIFAR-10 it is not: there the cosine transform is ahead of it in all four. PCA is ahead on both sets. If wavelets are the right basis, it must be for what these tables do not measure.


# %% tags=["hide-input"]
record("draws", size["draws"])
results = paper("06_bases")
titles = {"mnist": "MNIST", "cifar10": "CIFAR-10"}
KEYS = {
    "price": "price of separate Wiener filters, worst σ",
    "off": "off-diagonal share of the covariance",
    "fixed": "energy lost with 64 coefficients, the same for all",
    "adaptive": "energy lost with 64 coefficients, chosen for each image",
}


def paper_table():
    """One line for each data set and quantity, one column for each basis."""
    columns = ["pixels", "Fourier", "DCT", "PCA", "Haar", "db2"]
    lines = ["| data | quantity | " + " | ".join(columns) + " |", "|---" * (2 + len(columns)) + "|"]
    for name, r in results.items():
        for key, words in KEYS.items():
            cells = [f"{r[f'{name}_{column}_{key}']:.3f}" for column in columns]
            lines.append("| " + " | ".join([titles[name], words, *cells]) + " |")
    return "\n".join(lines)


def dependence_table():
    relations = {"along": "along the edge", "across": "across the edge", "sibling": "sibling", "parent": "parent"}
    lines = [
        "| data | pairs of finest details | size of the correlation | correlation of squares |",
        "|---|---|---|---|",
    ]
    for name, r in results.items():
        for relation, words in relations.items():
            lines.append(
                f"| {titles[name]} | {words} | {r[f'{name}_{relation}_signed']:.3f} "
                f"| {r[f'{name}_{relation}_squared']:.3f} |"
            )
    return "\n".join(lines)


Markdown(paper_table() + "\n\n" + dependence_table() if results else "")

# %% mystnb={"figure": {"name": "fig-bases-paper", "caption": "Paper profile: variance and excess kurtosis of the db2 coefficients by band, 20,000 training images each. In both, details have heavier tails than a Gaussian, heaviest at the finest level, but far less heavy than in the five photographs of the quick profile. The scaling coefficients have nearly the kurtosis of a Gaussian. On MNIST, H3 and V3 vary more than half as much as the scaling coefficients. Bars: 95 % bootstrap intervals, hardly larger than the marks."}, "image": {"alt": "Two panels of points over band names for MNIST and CIFAR-10. The variance falls by a factor of one to three thousand from A3 to D1. The excess kurtosis is near zero for A3, between four tenths and four at levels 3 and 2, and between three and seven at level 1.", "width": "100%"}} tags=["hide-input"]
names = ["A3", *(f"{o}{level}" for level in (3, 2, 1) for o in "HVD")]
fig, axes = plot.figure(1, 2, size=(6.4, 3.2))
for (name, r), color, mark in zip(results.items(), plot.COLORS, "os", strict=False):
    for axis, key in zip(axes, ("energy", "kurtosis"), strict=True):
        rows = torch.tensor(r[f"{name}_{key}"])
        errors = torch.stack([rows[:, 0] - rows[:, 1], rows[:, 2] - rows[:, 0]]).clamp(min=0)
        axis.errorbar(
            torch.arange(len(rows)), rows[:, 0], errors, fmt=mark, color=color, label=titles[name], ms=5, capsize=3
        )
for axis, label, scale in zip(axes, ("variance", "excess kurtosis"), ("log", "linear"), strict=True):
    axis.set(ylabel=label, yscale=scale, xticks=range(len(names)), xticklabels=names)
    axis.tick_params(axis="x", labelsize=8)
axes[1].axhline(0, color="black", lw=1)
if results:
    axes[0].legend(frameon=False, fontsize=10)
fig if results else None

# %% [markdown]
# ## Exercises
#
# :::{exercise} Noise of a different level in each coefficient
# :label: ex-bases-componentwise
#
# Let the noise have different levels $\sigma_i$ in the coefficients of an orthonormal basis $W$: $z=z_0+\diag(\sigma_1,\dots,\sigma_D)\,\varepsilon$. What is its covariance in pixels? For which levels is it white there?
# :::
#
# :::{solution} ex-bases-componentwise
# :class: dropdown
#
# $x=W^\top z$, so the covariance is $W^\top\diag(\sigma_i^2)\,W$: a matrix with the atoms as eigenvectors. It is a multiple of the identity only if all $\sigma_i$ are equal. Unequal noise levels single out a basis. That is why the library wants component-wise noise in the coordinates in which a machine was fitted.
# :::
#
# :::{exercise} Symmetric filters
# :label: ex-bases-symmetric
#
# Show that a symmetric filter of four taps, $h=(a,b,b,a)$, satisfies {eq}`eq-bases-shifts` only if it is a Haar filter with gaps. (It is known that the same holds for every finite length: but for Haar's, no orthonormal wavelet basis has symmetric real filters of finite length. The symlets of PyWavelets are the least asymmetric of their kind.)
# :::
#
# :::{solution} ex-bases-symmetric
# :class: dropdown
#
# The shift $m=1$ requires $h[0]h[2]+h[1]h[3]=2ab=0$. If $a=0$, then $h=(0,b,b,0)$ with $2b^2=1$: Haar. If $b=0$, then $h=(a,0,0,a)$ with $2a^2=1$: sums and differences of values three places apart.
# :::
#
# :::{exercise} What db2 does not see
# :label: ex-bases-ramp
#
# Predict the level-1 details of the ramp $x[p]=p$, $p=0,\dots,15$, with Haar and with db2. Which of them are not zero, and why? Check.
# :::

# %% [markdown]
# :::{solution-start} ex-bases-ramp
# :class: dropdown
# :::
#
# db2 has two vanishing moments: it does not see straight lines. Only atoms across the seam, where the ramp jumps from 15 to 0, have a detail. Our matrix starts its atoms one place further left, so the first and the last row wrap. Haar has one vanishing moment. It sees the same slope at every place, $-1/\sqrt2$, and has no atom across the seam.

# %%
ramp = torch.arange(16, dtype=torch.float64)
details = one_level(db2, 16)[8:] @ ramp
assert details[1:-1].abs().max() < 1e-12 < details[[0, -1]].abs().min()
assert_close(one_level(haar, 16)[8:] @ ramp, torch.full((8,), -(0.5**0.5), dtype=torch.float64))

# %% [markdown]
# :::{solution-end}
# :::

# %% [markdown]
# :::{exercise} Complete on the line
# :label: ex-bases-complete
#
# The rows of {eq}`eq-bases-level`, for all integers $m$ and without wrapping, are orthonormal by {prf:ref}`prop-bases-flip`. Show that they are also complete: $\sum_ma[m]^2+d[m]^2=\sum_px[p]^2$ for every signal $x$ of finite length.
# :::
#
# :::{solution} ex-bases-complete
# :class: dropdown
#
# Take a circle of even length $n\ge F$ that is so large that the signal, with $F$ zeros on either side of it, fits into it. No atom that meets the signal then wraps in a way that matters: its other end lies on zeros. So on the circle and on the line, the same coefficients are not zero, and have the same values. On the circle the $n$ orthonormal rows are a basis of an $n$-dimensional space, and the energies are equal.
# :::
#
# :::{exercise} The factor of four
# :label: ex-bases-power
#
# Let a stationary field in two dimensions have the power spectrum $|k|^{-2}$. Argue that the variance of its wavelet details grows by a factor of 4 from each level to the next coarser one.
# :::
#
# :::{solution} ex-bases-power
# :class: dropdown
#
# The variance of a coefficient is the power spectrum, averaged over frequency with the squared Fourier transform of the atom as weights. Those add up to one, because the atom has length one. An atom of level $j+1$ is, but for the discretisation, an atom of level $j$ at twice the size. It occupies frequencies half as large, and there the spectrum is $2^2$ times as large. In general a spectrum $|k|^{-\beta}$ gives the factor $2^\beta$.
# :::
#
# :::{exercise} Squares of a Gaussian pair
# :label: ex-bases-squares
#
# Let $(z,z')$ be Gaussian with mean zero, variance one and correlation $\rho$. Show that the correlation of $z^2$ and $z'^2$ is $\rho^2$. Then let $z=ru$, $z'=ru'$ with independent standard normal $u,u'$ and a common random scale $r>0$. Compute the excess kurtosis of $z$ and the correlations of $(z,z')$ and of their squares for $r^2$ uniform on $[0,2]$, and check by simulation.
# :::

# %% [markdown]
# :::{solution-start} ex-bases-squares
# :class: dropdown
# :::
#
# Write $z'=\rho z+\sqrt{1-\rho^2}\,u$ with $u$ independent of $z$. Then $\Cov(z^2,z'^2)=\rho^2\Var(z^2)$, and both squares have the same variance, 2.
#
# For the common scale, $\E z^2=\E r^2=1$ and $\E z^4=3\,\E r^4$, so $\kappa_4=3\Var(r^2)$. The correlation of $z,z'$ is zero. The covariance of the squares is $\Var(r^2)$ and their variance is $3\,\E r^4-1$. With $\Var(r^2)=\tfrac13$, $\kappa_4=1$ and the correlation of the squares is $\tfrac13/(3\cdot\tfrac43-1)=\tfrac19$. Heavy tails and dependent magnitudes have one cause here: a scale that varies from place to place.

# %%
scale = (2 * torch.rand(400_000, generator=rng, dtype=torch.float64)).sqrt()
pair = scale * normal(2, 400_000)
assert abs(pair.pow(4).mean() / pair.square().mean() ** 2 - 3 - 1) < 0.05
assert pair.corrcoef()[0, 1].abs() < 0.01
assert abs(pair.square().corrcoef()[0, 1] - 1 / 9) < 0.01

# %% [markdown]
# :::{solution-end}
# :::

# %% tags=["remove-cell"]
shifted = {name: centred(name, test[name])[:500].roll(1, -1) for name in data}
for name in data:
    fine = next(band for band in bases[name]["db2"].bands(shapes[name]) if band.name == "V1")
    before, after = (
        bases[name]["db2"].analysis(v)[..., fine.rows, fine.columns].square().sum((1, 2, 3))
        for v in (centred(name, test[name])[:500], shifted[name])
    )
    record(f"{name}_shift", ((after - before).abs() / (after + before)).median().item() * 2, rtol=0.01)

# %% [markdown]
# :::{admonition} Limits and open questions
# A wavelet basis is not translation-invariant. Move a photo by one pixel to the right, around the torus, and the energy in its V1 band changes by {glue:text}`photos_shift:.2f` of its size in the median; for a digit it is {glue:text}`digits_shift:.2f`. A convolutional network has no such grid. Redundant transforms remove it, at the price of correlated noise ({prf:ref}`prop-bases-frame`).
#
# The bases here were chosen by us or fitted to second moments. {prf:ref}`thm-bases-pca` settles which is best for affine machines that treat coefficients separately. No such theorem is known to us for machines that use higher moments. The measured tails and dependences suggest wavelets; {ref}`the next chapter <wavelet-machine>` asks what they are worth.
#
# Kurtosis is a mean of fourth powers. Its intervals are wide for photos, where a few regions carry most of it, and five photographs are not the natural images. On $8\times8$ digits there is hardly room for scales.
#
# What the two norms in App. C.1 of the paper measure is unknown to us.
# :::
