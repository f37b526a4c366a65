# ---
# jupyter:
#   jupytext: {text_representation: {extension: .py, format_name: percent}}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   scorebook:
#     goals:
#       - sample from local machines, and say of every pixel which training image it comes from
#       - prove that, up to ties, the flow of a local machine can only end on a patch mosaic, and measure how nearly a sampler gets there
#       - bound the information in a window from both sides, and find the edge of memorisation without a network
#       - predict the window from the data in four ways, and hold them against the published windows
#       - say what the border, the index of the schedule, the start and the size of the dictionary do to the images
#       - show on new images that local machines generalise where the ideal machine memorises
#     minutes: 90
#     needs: [mixtures, locality]
#     paper: [mnist, fashion, cifar10]
# ---

# %% [markdown]
# (mosaics)=
# # Patch mosaics
#
# A machine that sees only a window around each pixel cannot know which training image it is drawing. {ref}`The last chapter <locality>` derived such machines. What do they draw? Here we let them. Every pixel chooses a training patch for itself, and in the end the patches have to fit: where the flow comes to rest, the result is a {term}`patch mosaic`, a new image put together from many old ones. {cite:t}`kamb2025creativity` propose this as the mechanism by which convolutional diffusion networks are creative.
#
# :::{admonition} In this chapter
# You will sample from five machines with the same noise, and find out where the pixels come from. You will prove that, up to ties, a mosaic is all that the flow can end on, and measure what a real sampler leaves undone. You will ask how large the window should be, and answer without a network, in four ways. At the end you will denoise images that no machine has seen.
#
# It takes about 90 minutes. It needs {ref}`mixtures <mixtures>` and {ref}`locality and equivariance <locality>`.
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
from matplotlib.collections import LineCollection
from torch.testing import assert_close

from scorebook import paper, record, record_data
from scorebook.slider import frame_slider
from scoremachines import (
    Equivariant,
    EquivariantLocal,
    Gaussian,
    Ideal,
    Local,
    Mixture,
    Noise,
    cosine_legacy,
    levels,
    metrics,
    plot,
    sample,
    trajectory,
)
from scoremachines import data as datasets
from scoremachines.bases import Wavelet
from scoremachines.compare import calibrate_windows, local_consistency
from scoremachines.polynomial import WaveletPolynomial
from scoremachines.windows import WindowTable, published

# How many images each experiment uses; of conditional machines, for each class. Pairs of pixels and patches are the cost.
PLANS = {
    "quick": {
        "images": 1437,  # samples and provenance
        "few": 1437,  # circular borders and ablations
        "part": 400,  # walks with many steps
        "sweep": 1437,  # errors and entropies of the equivariant local machine
        "local": 1437,  # errors and entropies of the local machine
        "seeds": 12,
        "starts": 8,
        "probes": (16, 24),  # validation; training and held out
        "windows": (3, 5, 7),
        "local windows": (1, 3, 5, 7, 9, 11, 15),
        "shown": 8,
    },
    "paper": {
        "images": 3000,
        "few": 500,
        "part": 200,
        "sweep": 300,
        "local": 5000,
        "seeds": 3,
        "starts": 3,
        "probes": (4, 6),
        "windows": (3, 5, 7, 9, 13, 17, 23),
        "local windows": (1, 3, 5, 9, 13, 17, 25, 63),
        "shown": 3,
    },
}
plan, name = PLANS[profile], data[0]
if profile == "quick":
    torch.set_num_threads(1)  # the images are small: threads would only wait for each other
rng = torch.Generator().manual_seed(seed)
conditional = name in ("fashion", "cifar10")  # as the networks that the published windows belong to


def load(name, split):
    """A data set of this chapter; the larger ones at 32 pixels, as in the tables that we compare with."""
    return datasets.load(name, split, size=32 if name in ("mnist", "fashion") else None)


train, test, small = load(name, "train"), load(name, "test"), datasets.load("digits").x0
record_data(train)
record_data(test)
x0, shape = train.x0, train.x0.shape[1:]
C, side = shape[0], shape[2]
order = torch.randperm(len(x0), generator=rng)  # the first n of it are a random subset, and all subsets are nested
classes = torch.arange(plan["seeds"]) % 10 if conditional else None  # one for each seed
half_grey = 1 / 16 if name == "digits" else 1 / 255  # half the distance between two grey levels
for key in ("images", "few", "part", "sweep", "local", "seeds", "starts"):
    record(f"plan_{key}", min(plan[key], len(x0)))
record("side", side)


def normal(*sizes):
    """Standard normal numbers from the chapter's generator, in the precision of the images."""
    return torch.randn(sizes, generator=rng)


def chosen(n):
    """A random subset: n training images, or n of each class asked for, with their labels."""
    if not conditional:
        return x0[order[:n]], None
    index = torch.cat([order[train.labels[order] == c][:n] for c in classes.unique()])
    return x0[index], train.labels[index]


def given(machine, which=slice(None)):
    """The machine for the classes of these seeds."""
    return machine.given(classes[which]) if conditional else machine


def mse(a, b):
    """Mean squared difference over pixels, channels and images."""
    return (a - b).double().square().mean().item()


# %% [markdown]
# ## One seed, five machines
#
# All machines of this chapter are posterior means. They differ in what a pixel sees, and in what it compares that with. With $\Omega_u(x)$ the {term}`window` of $x$ around pixel $u$, $\mathcal P_u$ its {term}`dictionary` of clean patches, and $q(0)$ the centre of a patch $q$,
#
# $$
# \begin{split}
# &D(x)_u=\sum_{q\in\mathcal P_u}w_u(q)\,q(0),\\
# &w_u=\softmax_q\Bigl(\\
# &\quad-\tfrac{\norm{\Omega_u(x)-\alpha q}^2}{2\sigma^2}\Bigr).
# \end{split}
# $$ (eq-mosaics-machine)
#
# | machine | a pixel sees | and compares with |
# |---|---|---|
# | ideal | the image | training images |
# | equivariant | the image | their circular shifts |
# | local | its window | patches at its place |
# | equivariant local, zeros | its window | patches at all places that overlap the border alike |
# | equivariant local, circular | its window, wrapped | patches at all places, wrapped |
#
# The window depends on the noise. With their paper, {cite:t}`kamb2025creativity` released tables of windows, found by comparison with trained networks, for 20 times $t$ on a cosine schedule without offset. We use that schedule, `cosine_legacy`, and their 19 evaluations from $t=0.95$ to $t=0.05$. The tables are for $32\times32$ pixels. Digits have $8\times8$, and no table was published for them. We make one of our own: a quarter of the reach $p$ of the published windows $2p+1$ for MNIST would be the same share of the image, but a reach below one sees nothing. So we take one half, rounded down, and at least one.

# %%


def shrunk(table):
    """Half the reach, rounded down, and at least one."""
    return WindowTable(table.log_snr, tuple(2 * max(1, (w - 1) // 4) + 1 for w in table.windows))


def table_of(index):
    """The published table in one of its readings, shrunk for digits."""
    if name == "digits":
        return shrunk(published("mnist-resnet-zeros", index))
    return published(f"{name}-resnet-zeros", index)


table = table_of("sampled")
times = [i / 20 for i in range(19, 0, -1)]
grid = levels(cosine_legacy, times)
lines = ["| $t$ | " + " | ".join(f"{t:.2f}" for t in times[::3]) + " |", "|---" * 8 + "|"]
lines.append("| $\\sigma/\\alpha$ | " + " | ".join(f"{n.sigma / n.alpha:.2g}" for n in grid[:-1:3]) + " |")
ours = [table.at(2 * math.log(n.alpha / n.sigma)) for n in grid[:-1]]
lines.append("| window | " + " | ".join(str(w) for w in ours[::3]) + " |")
record("windows_used", ours)
Markdown("\n".join(lines))

# %% [markdown]
# The published networks for Fashion-MNIST and CIFAR-10 know the class, and so do our machines there: a seed of class $c$ is compared with training images of class $c$ only.

# %% tags=["hide-input"]
images, labels = chosen(plan["images"])
few, few_labels = chosen(plan["few"])
z = normal(plan["seeds"], *shape)
zeros = EquivariantLocal.fit(images, table, "zeros", labels)
circular = EquivariantLocal.fit(few, table, "circular", few_labels)
if name == "digits":  # for small images the shifts themselves are faster than Fourier transforms
    shifted = torch.cat([images.roll((i, j), (2, 3)) for i in range(side) for j in range(side)])
    equivariant = Ideal.fit(shifted)
    part = Equivariant.fit(images[:200])
    probe = Noise(0.6, 0.8).add(x0[:2].double(), normal(2, *shape).double())
    with_shifts = Ideal.fit(torch.cat([images[:200].roll((i, j), (2, 3)) for i in range(side) for j in range(side)]))
    assert_close(with_shifts.denoise(probe, Noise(0.6, 0.8)), part.denoise(probe, Noise(0.6, 0.8)))
else:
    equivariant = Equivariant.fit(few, few_labels)
ideal = Local.fit(images, 2 * side - 1, labels) if conditional else Ideal.fit(images)  # the same machine
machines = {
    "ideal": ideal,
    "equivariant": equivariant,
    "local": Local.fit(images, table, labels),
    "zeros": zeros,
    "circular": circular,
}
further = [0.05 / 2**k for k in (1, 2, 3)]  # beyond the published end, for the next section
path = list(trajectory(given(zeros), z, levels(cosine_legacy, [*times, *further])))
drawn = {"zeros": path[18].x0}  # t = 0.05: the last step of the published sampler lands on D
for key in ("ideal", "equivariant", "local"):
    drawn[key] = sample(machines[key] if isinstance(machines[key], Ideal) else given(machines[key]), z, grid)
wrapped_path = list(trajectory(given(circular), z, grid))
drawn["circular"] = wrapped_path[-1].x
drawn = {key: drawn[key] for key in machines}
near = {key: metrics.nearest(found, images)[0][:, 0] for key, found in drawn.items()}
new = test.x0[torch.isin(test.labels, classes)] if conditional else test.x0
new = new[torch.randperm(len(new), generator=rng)[:64]]
near["held out"] = metrics.nearest(new, images)[0][:, 0]
for key, distance in near.items():
    record(f"near_{key.replace(' ', '_')}", distance.double().mean().item(), rtol=0.05)

# %% mystnb={"figure": {"name": "fig-mosaics-samples", "caption": "Samples of five machines; a column is one seed. Last row: the training image nearest to the sample with zero borders. The ideal machine returns training images, and the equivariant one shifted training images. The local machine draws strokes that join to digit-like shapes. With zero borders the strokes are shared between places, and most of the image resembles that of the local machine. With circular borders there is no place to speak of, and strokes wrap around."}, "image": {"alt": "Six rows of small grey images. Rows from top: clean digits; digits cut and shifted around the frame; digit-like shapes with some odd strokes; similar shapes with more odd strokes; strokes that fill the frame and cross its borders; and training digits, several of them like the image in the fourth row.", "width": "100%", "classes": "dark-light"}} tags=["hide-input"]
closest = images[metrics.nearest(drawn["zeros"], images)[1][:, 0]]
rows = torch.stack([row[: plan["shown"]] for row in (*drawn.values(), closest)])
names = ["ideal", "equivariant", "local", "equiv. local,\nzeros", "equiv. local,\ncircular", "nearest"]
if plan["shown"] < len(rows):  # few seeds: one row for each
    figure = plot.image_grid(rows.transpose(0, 1).flatten(0, 1), columns=len(rows), titles=names)
else:
    figure = plot.image_grid(rows.flatten(0, 1), columns=plan["shown"], rows=names)
figure


# %% tags=["hide-input"]
def alike(a, b):
    """Median over seeds of the correlation of the final images, and its square."""
    r = metrics.pearson(drawn[a].double(), drawn[b].double())
    return r.median().item(), r.square().median().item()


pairs = [("zeros", "local"), ("zeros", "ideal"), ("local", "ideal"), ("zeros", "circular"), ("zeros", "equivariant")]
for a, b in pairs:
    record(f"alike_{a}_{b}", list(alike(a, b)), rtol=0.1)
    record(f"r_{a}_{b}", alike(a, b)[0], rtol=0.1)
wins = metrics.pearson(drawn["zeros"], drawn["local"]) > metrics.pearson(drawn["zeros"], drawn["ideal"])
record("local_wins", wins.double().mean().item(), rtol=0.2)

# %% [markdown]
# The samples of the ideal machine lie {glue:text}`near_ideal:.2f` from the nearest training image (Euclidean distance over all pixels), those of the local machine {glue:text}`near_local:.2f`, of the equivariant local machine with zero borders {glue:text}`near_zeros:.2f`. New digits lie {glue:text}`near_held_out:.2f` from it. So locality has undone the copying, and overshoots: the mosaics are farther from the training images than new digits are.
#
# Yet the images of a column are related. The median correlation over pixels between the final images of the equivariant local machine with zero borders and the local machine is $r=$ {glue:text}`r_zeros_local:.2f`, and with the ideal machine {glue:text}`r_zeros_ideal:.2f`. At high noise these three are nearly one machine: with a window that holds most of the image, and borders that tell the place, little has been taken away from the ideal one. They do the same things to the noise at first, and part later. This matters for every claim that one machine predicts another: a high correlation is easier to get than it seems. Even two different seeds of one machine have a median $r$ of {glue:text}`r_other_seed:.2f`, since all digits are bright in the middle. The circular machine does not know the place, and starts from another mean. Its correlation with zero borders is {glue:text}`r_zeros_circular:.2f`.
#
# Photographs have no background to be black. The next figure repeats the first one for grey patches of photographs, of $16\times16$ pixels, with the windows of CIFAR-10 at half the reach.

# %% tags=["hide-input"]
photos, z_photos = datasets.load("photos").x0, normal(8, 1, 16, 16)
photos = photos[torch.randperm(len(photos), generator=rng)[:500]]
photo_table = shrunk(published("cifar10-resnet-zeros"))
photo_machines = {
    "ideal": Ideal.fit(photos),
    "equivariant": Equivariant.fit(photos),
    "local": Local.fit(photos, photo_table),
    "zeros": EquivariantLocal.fit(photos, photo_table, "zeros"),
    "circular": EquivariantLocal.fit(photos, photo_table, "circular"),
}
of_photos = {key: sample(machine, z_photos, grid) for key, machine in photo_machines.items()}
nearest_photos = metrics.nearest(of_photos["zeros"], photos)[1][:, 0]
record("photos", len(photos))
for key, found in of_photos.items():
    record(f"near_photos_{key}", metrics.nearest(found, photos)[0][:, 0].double().mean().item(), rtol=0.05)
new_photos = datasets.load("photos", "test").x0[::16]
record("near_photos_held_out", metrics.nearest(new_photos, photos)[0][:, 0].double().mean().item())
for key in ("local", "ideal", "circular"):
    r = metrics.pearson(of_photos["zeros"].double(), of_photos[key].double()).median().item()
    record(f"r_photos_zeros_{key}", r, rtol=0.1)

# %% mystnb={"figure": {"name": "fig-mosaics-photos", "caption": "The same for 500 grey patches of photographs. The ideal machine returns training images, and the equivariant one shifted training images, many of them smooth. The three local machines draw nearly the same images from the same seed, and none of them is smooth: blotches in strong contrast, unlike their nearest training images."}, "image": {"alt": "Six rows of small grey photographs. The two upper rows hold flat or finely textured patches and a few with an edge. The next three rows hold dark and bright blotches, in the same places in all three. The last row holds flat patches and patches with one edge.", "width": "100%", "classes": "dark-light"}} tags=["hide-input"]
rows = torch.stack([*of_photos.values(), photos[nearest_photos]])
plot.image_grid(rows.flatten(0, 1), columns=8, rows=names)

# %% [markdown]
# Here the place means little, and so does the border. The machine with zero borders has $r=$ {glue:text}`r_photos_zeros_local:.2f` with the local one and {glue:text}`r_photos_zeros_circular:.2f` with the circular one, but {glue:text}`r_photos_zeros_ideal:.2f` with the ideal one. The mosaics lie {glue:text}`near_photos_zeros:.1f` from the nearest training image, and new photographs {glue:text}`near_photos_held_out:.1f`. What they seem to lack is agreement over distances: most photographs of this size are smooth, and a machine whose windows measure at most nine pixels lets each region choose its grey for itself.
#
# ## Where the pixels come from
#
# At low noise a pixel's weights concentrate on few patches. The {term}`effective number of patches`, the exponential of the entropy of $w_u$, says on how many. Where it is below 1.5 we call the pixel *settled*. It is then nearly the centre of one training patch, and we may ask for its {term}`provenance`: from which image, and which place. `posterior` returns both from the same pass that computes $D$.
#
# The published sampler stops early. At $t=0.05$ many pixels have not settled. For this section we let it go on, and halve $t$ three times. The slider follows one seed down the noise.

# %% tags=["hide-input"]
last = path[-2]  # the last level with noise; the final image is D there
early, origin = (given(zeros).posterior(path[k].x, path[k].noise) for k in (18, -2))
assert_close(origin.x0, path[-1].x, rtol=1e-3, atol=1e-4)
single = origin.effective < 1.5
centre = images[origin.image, :, origin.row, origin.column].movedim(-1, 1)
decided = (origin.x0 - centre).abs().amax(1) <= half_grey  # equal patches may share the weight


def tile_keys(found):
    """One whole number for image and offset of the nearest patch of each pixel: equal for pixels of one tile."""
    H, W = found.row.shape[1:]
    down, right = found.row - torch.arange(H)[:, None], found.column - torch.arange(W)
    return (found.image * 2 * H + down + H) * 2 * W + right + W


def tiles(key):
    """Number the connected pixels of equal key: (H, W) whole numbers, by passing the smallest number on."""
    number = torch.arange(key.numel()).reshape(key.shape)
    while True:
        before = number.clone()
        for axis in (0, 1):
            n = key.shape[axis] - 1
            one, two = number.narrow(axis, 0, n), number.narrow(axis, 1, n)
            least = torch.minimum(one, two)
            equal = key.narrow(axis, 0, n) == key.narrow(axis, 1, n)
            one.copy_(least.where(equal, one)), two.copy_(torch.minimum(least, two).where(equal, two))
        if (number == before).all():
            return number


# %% mystnb={"figure": {"name": "fig-mosaics-slider", "caption": "One seed of the equivariant local machine with zero borders, from high to low noise. Top left: the noisy image $x$, divided by $\\sqrt{\\alpha^2+\\sigma^2}$. Top right: the denoised image $D(x)$. Bottom left: the effective number of patches of each pixel, on a logarithmic scale. Bottom right: tiles, that is, neighbouring pixels whose nearest patches come from one image with one offset; the shade tells tiles apart and means nothing else. At high noise every pixel averages over more than a thousand patches. As the noise falls the pixels settle one by one, most of them on patches of different images; black pixels, whose patches repeat, do not."}} tags=["hide-input"]
shown = [path[i] for i in (0, 4, 8, 11, 14, 16, 18, 21)]
mono = given(zeros, slice(0, 1))
posteriors = [mono.posterior(state.x[:1], state.noise) for state in shown]
most = max(found.effective.max().item() for found in posteriors)
shade = torch.rand(side * side, generator=rng).numpy()
frames, names, alts = [], [], []
for state, found in zip(shown, posteriors, strict=True):
    fig, axes = plot.figure(2, 2, size=(5.6, 5.4))
    plot.show(axes[0, 0], state.x[0])
    plot.show(axes[0, 1], found.x0[0])
    field = axes[1, 0].imshow(
        found.effective[0], norm="log", vmin=1, vmax=most, cmap="viridis", interpolation="nearest"
    )
    fig.colorbar(field, ax=axes[1, 0], fraction=0.046)
    number = tiles(tile_keys(found)[0])
    axes[1, 1].imshow(shade[number], cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
    for axis, title in zip(axes.flat, ("x", "D(x)", "effective patches", "tiles"), strict=True):
        axis.set_axis_off()
        axis.set_title(title, fontsize=11)
    ratio = state.noise.sigma / state.noise.alpha
    count = len(number.unique())
    frames.append(fig)
    names.append(f"σ/α = {ratio:.2g}")
    alts.append(
        f"Noisy image, denoised image, effective number of patches with median {found.effective.median():.0f}, and "
        f"{count} tiles, at noise-to-signal ratio {ratio:.2g}."
    )
frame_slider(frames, names, alts, label="Noise level")

# %% mystnb={"figure": {"name": "fig-mosaics-provenance", "caption": "Two samples of the equivariant local machine with zero borders, walked to $t=0.05/8$ and taken apart. Left: the sample. Light blue lines separate tiles of settled pixels; dots mark pixels that have not settled (effective number of patches 1.5 or more). Coloured frames: the three training images that give most settled pixels. Right: these training images, with the pixels that they give in the same colour. Offsets differ: a pixel may come from another place than its own."}, "image": {"alt": "Two rows of four small images. The left image of each row is covered by a net of light blue lines that encloses mostly single pixels and a few groups of pixels; dots sit mostly on black pixels; some pixels carry a blue, orange or green frame. The three training images beside it have a few pixels framed in blue, orange and green.", "width": "100%", "classes": "dark-light"}} tags=["hide-input"]


def frame(axis, row, column, color):
    """A frame inside one pixel."""
    axis.add_patch(
        plot.Rectangle(
            (column - 0.38, row - 0.38), 0.76, 0.76, fill=False, edgecolor=color, lw=1.6 if side < 16 else 0.8
        )
    )


def net(axis, number, settled):
    """Lines around the settled pixels of each tile."""
    H, W = number.shape
    number = torch.where(settled, number, -1)
    segments = [((c + 0.5, r - 0.5), (c + 0.5, r + 0.5)) for r in range(H) for c in range(W - 1)
                if number[r, c] != number[r, c + 1]]  # fmt: skip
    segments += [((c - 0.5, r + 0.5), (c + 0.5, r + 0.5)) for r in range(H - 1) for c in range(W)
                 if number[r, c] != number[r + 1, c]]  # fmt: skip
    axis.add_collection(LineCollection(segments, colors=plot.COLORS[5], linewidths=1.2 if side < 16 else 0.5))


fig, axes = plot.figure(2, 4, size=(6.4, 3.4))
for row, b in zip(axes, (0, 1), strict=True):
    plot.show(row[0], path[-1].x[b])
    net(row[0], tiles(tile_keys(origin)[b]), single[b])
    rest = (~single[b]).nonzero()
    row[0].plot(rest[:, 1], rest[:, 0], ".", color=plot.COLORS[4], ms=4 if side < 16 else 0.8)
    used, counts = origin.image[b][single[b]].unique(return_counts=True)
    for axis, color, index in zip(row[1:], plot.COLORS, used[counts.argsort(descending=True)], strict=False):
        plot.show(axis, images[index])
        for r, c in ((origin.image[b] == index) & single[b]).nonzero().tolist():
            frame(row[0], r, c, color)
            frame(axis, origin.row[b, r, c], origin.column[b, r, c], color)
    for axis in row:
        axis.set_axis_off()
for axis, title in zip(axes[0], ("sample", "source 1", "source 2", "source 3"), strict=True):
    axis.set_title(title, fontsize=11)
fig

# %% tags=["remove-cell"]
sources = [found[one].unique().numel() for found, one in zip(origin.image, single, strict=True)]
settled = single.double().flatten(1).sum(1)
sizes = []
for key, one in zip(tile_keys(origin), single, strict=True):
    number = tiles(key)
    sizes.append(number[one].bincount()[number[one].unique()].double())
every = torch.cat(sizes)
record("early_share", 100 * (early.effective < 1.5).double().mean().item(), rtol=0.1)
record("settled_share", 100 * single.double().mean().item(), rtol=0.1)
record("decided_share", 100 * decided[~single].double().mean().item(), rtol=0.1)
record("settled_sigma", last.noise.sigma / last.noise.alpha)
record("sources_median", float(torch.tensor(sources).double().median()), rtol=0.2)
record("settled_median", settled.median().item(), rtol=0.2)
record("sources_least", min(sources), rtol=0.5)
record("sources_most", max(sources), rtol=0.5)
record("tile_mean", every.mean().item(), rtol=0.1)
record("tile_most", torch.stack([one.max() for one in sizes]).max().item(), rtol=0.5)
record("tile_largest", torch.stack([one.max() for one in sizes]).median().item(), rtol=0.5)
moved = (origin.row != torch.arange(side)[:, None]) | (origin.column != torch.arange(side))
inside = single.clone()
inside[:, [0, -1]], inside[:, :, [0, -1]] = False, False
record("moved_inside", 100 * moved[inside].double().mean().item(), rtol=0.1)

# %% [markdown]
# At $t=0.05$, where the published sampler stops, {glue:text}`early_share:.0f` % of the pixels have settled; at $\sigma/\alpha=$ {glue:text}`settled_sigma:.3f`, where this one does, {glue:text}`settled_share:.0f` %. The median sample has {glue:text}`settled_median:.0f` settled pixels, from {glue:text}`sources_median:.0f` different training images ({glue:text}`sources_least` to {glue:text}`sources_most` over the samples). A tile has {glue:text}`tile_mean:.2f` settled pixels on average, the largest one of a sample {glue:text}`tile_largest:.0f` in the median and {glue:text}`tile_most:.0f` at most. Of the settled pixels away from the border {glue:text}`moved_inside:.0f` % come from another place than their own. So the pieces of this mosaic are hardly larger than pixels. The word patch should not mislead: what is pieced together is not patches but their *centres*, and a patch only has to fit the window around it better than all others do.
#
# A caution about such maps. Patches repeat. A black window has thousands of exact copies, and its nearest patch is whichever comes first. Such a pixel never settles, however little the noise, although nothing about its value is open: of the pixels that have not settled, {glue:text}`decided_share:.1f` % of $D$ are within half a grey level of the centre of their nearest patch. What they lack is a known *source*, not a known value, and we count only settled pixels.
#
# ## Mosaics are where the flow ends
#
# Why should the patches of neighbouring pixels fit? Because the flow cannot stop while they do not. It is easiest to see with $\alpha=1$; on other schedules divide $x$ by $\alpha$ and read $\sigma$ for $\sigma/\alpha$. The {term}`probability flow` is
#
# $$
# \frac{dx}{d\sigma}=\frac{x-D(x)}\sigma .
# $$ (eq-mosaics-flow)
#
# :::{prf:definition} Locally consistent image
# :label: def-mosaics-consistent
#
# For an image $x$ and a pixel $u$ let $A_u(x)$ be the set of patches $q\in\mathcal P_u$ with the smallest $\norm{\Omega_u(x)-q}$. The image is *locally consistent*, or a mosaic, if at every pixel all $q\in A_u(x)$ have the centre $q(0)=x_u$.
# :::
#
# :::{prf:theorem} The flow ends on mosaics
# :label: thm-mosaics-limit
#
# Let a patch machine have one window and one dictionary for $0<\sigma\le\sigma_1$, and let $x(\sigma)$ solve {eq}`eq-mosaics-flow` there. If $x(\sigma)\to x^*$ as $\sigma\to0$, then at every pixel $x^*_u$ lies in the convex hull of the centres of $A_u(x^*)$. In particular, where these centres agree, $x^*_u$ is that centre.
# :::
#
# :::{prf:proof}
# Let $H_u$ be the convex hull, a compact set. *The denoiser approaches it.* Let $q\notin A_u(x^*)$ and $q'\in A_u(x^*)$. The ratio of their weights at $x(\sigma)$ is the exponential of $-1/(2\sigma^2)$ times $\norm{\Omega_u(x)-q}^2-\norm{\Omega_u(x)-q'}^2$, and this difference tends to a positive number. So the weights outside $A_u(x^*)$ tend to zero, and the distance of $D(x(\sigma))_u$ from $H_u$ does too.
#
# *The limit lies in it.* Suppose $x^*_u\notin H_u$. Then a vector $a$ and a number $\eta>0$ exist with $a\cdot(x^*_u-h)\ge2\eta$ for all $h\in H_u$. For all $\sigma$ below some $\sigma_2$ it follows that $a\cdot(x_u-D(x)_u)\ge\eta$, and so $\frac{d}{d\sigma}\,a\cdot x_u\ge\eta/\sigma$. Integrate from $\sigma$ to $\sigma_2$: the difference $a\cdot x_u(\sigma_2)-a\cdot x_u(\sigma)$ is at least $\eta\log(\sigma_2/\sigma)$. It grows without bound as $\sigma\to0$, and $x$ does not converge.
# :::
#
# {cite:t}`kamb2025creativity` prove that the limit is locally consistent when both $x$ and its speed converge. The argument above needs no assumption on the speed, and it says what remains when several patches are equally near. Two things it does not say. It does not say that the limit exists. And it does not say *which* mosaic is reached. About the latter we can say this much.
#
# :::{prf:proposition} Every mosaic is reached
# :label: prop-mosaics-stable
#
# Let $x^*$ be locally consistent. Then there are $r>0$ and $\sigma_1>0$ such that every solution of {eq}`eq-mosaics-flow` with $\norm{x(\sigma_1)-x^*}\le r$ tends to $x^*$ as $\sigma\to0$.
# :::
#
# :::{prf:proof}
# Distances are continuous and the dictionaries finite. So there are $r>0$ and $g>0$ such that for $\norm{x-x^*}\le2r$ the patches of $A_u(x^*)$ are nearer to $\Omega_u(x)$ than all other patches of $\mathcal P_u$, by at least $g$ in squared distance. They have the centre $x^*_u$, and the weights of all others together are at most of the order of $e^{-g/2\sigma^2}$. Hence $\norm{D(x)-x^*}\le Ke^{-g/2\sigma^2}$ with some constant $K$.
#
# Let $e=x-x^*$. By {eq}`eq-mosaics-flow`, $\frac{d}{d\sigma}\frac e\sigma=\frac{x^*-D}{\sigma^2}$. While $x$ stays within $2r$ this is at most $Ke^{-g/2\sigma^2}/\sigma^2$ in norm. Its integral from $0$ to $\sigma_1$ is some finite $\delta$, so
#
# $$
# \norm{e(\sigma)}\le\sigma\Bigl(\frac{\norm{e(\sigma_1)}}{\sigma_1}+\delta\Bigr).
# $$
#
# Choose $\sigma_1$ so small that $\sigma_1\delta<r$. With $\norm{e(\sigma_1)}\le r$ the right side is below $2r$, so $x$ never gets that far, and it tends to zero with $\sigma$.
# :::
#
# Between two positive levels the flow is a bijection that is continuous in both directions. So every mosaic is the end of an open set of starts, and up to ties between patches with different centres no other end is possible. To count mosaics is to count what the machine can make; {ref}`the last chapter <locality>` does so for two training images.
#
# Training images are mosaics: every window is a patch of the dictionary, at distance zero. (Unless the same patch occurs twice with different centres, which cannot be, since the centre is part of the patch.) So are their shifts, for circular borders.

# %%
for border in ("zeros", "circular"):
    assert (local_consistency(small[:20], small, 3, border, atol=0.0).share == 1).all()
assert (local_consistency(small[:20].roll((2, 3), (2, 3)), small, 3, "circular", atol=0.0).share == 1).all()

# %% [markdown]
# ### How consistent is a sample?
#
# A sampler takes finitely many steps and stops at a positive noise level. The published one ends with the posterior mean at $t=0.05$, where $\sigma/\alpha=$ {glue:text}`last_sigma:.3f`. That is not a mosaic. `local_consistency` compares every pixel with the centre of the patch nearest to the window around it, here a window of three pixels, the last one of the table. We call a pixel consistent if it differs from that centre by at most half a grey level.
#
# We vary three things: the number of levels from $t=0.95$ to $t=0.05$, the noise at which the sampler stops, and the steps on the way from $t=0.05$ to there. One step halves $t$; with a fine end eight steps do. ({glue:text}`plan_part` training images, {glue:text}`plan_starts` seeds.)

# %% tags=["hide-input"]
part, part_labels = chosen(plan["part"])
walker = EquivariantLocal.fit(part, table, "zeros", part_labels)
if conditional:
    walker = walker.given(classes[: plan["starts"]])
ends = [0.05 / 4**k for k in range(6)]
plans = {"5 levels": (5, 1), "19 levels": (19, 1), "80 levels": (80, 1), "80 levels, fine end": (80, 8)}
window = min(table.windows)


def consistent(x, data=part, labels=part_labels, border="zeros"):
    """Share of consistent pixels of each image x, and its mean distance to the centres of the nearest patches."""
    some = {"labels": labels, "classes": classes[: len(x)]} if conditional else {}
    found = local_consistency(x, data, window, border, atol=half_grey, **some)
    return torch.stack([found.share, found.mean_deviation])


def walk(n, fine):
    """Consistency of the denoised image at each end: n levels down to t = 0.05, then so many for each halving of t."""
    down = [0.95 - 0.9 * k / (n - 1) for k in range(n)]
    on = [0.05 / 2 ** (k / fine) for k in range(1, 10 * fine + 1)]
    states = list(trajectory(walker, z[: plan["starts"]], levels(cosine_legacy, [*down, *on])))
    ends_of_walk = torch.stack([consistent(state.x0) for state in states[n - 1 : -1 : 2 * fine]])
    return ends_of_walk, 100 * changed(states[-2].x0, states[-2 - fine].x0)


def changed(a, b):
    """Share of pixels that differ by more than half a grey level."""
    return ((a - b).abs().amax(1) > half_grey).double().mean().item()


walks, moving = zip(*(walk(*one) for one in plans.values()), strict=True)
walks = dict(zip(plans, walks, strict=True))  # (end, share or deviation, start)
record("still_moving", list(moving), rtol=0.5)
record("still_moving_80", moving[2], rtol=0.5)
at = [n.sigma / n.alpha for n in map(cosine_legacy, ends)]
for label, values in walks.items():
    tidy = label.replace(" levels", "").replace(", ", "_").replace(" ", "_")
    record(f"consistent_{tidy}", (100 * values[:, 0].mean(1)).tolist(), rtol=0.05)
    record(f"deviation_{tidy}", values[:, 1].mean(1).tolist(), rtol=0.2)
    record(f"consistent_end_{tidy}", 100 * values[-1, 0].mean().item(), rtol=0.05)
record("last_sigma", at[0])
record("end_sigma", at[-1])

# %% mystnb={"figure": {"name": "fig-mosaics-consistency", "caption": "How nearly a sample is a mosaic, against the noise at which the sampler stops. Left: share of pixels that differ by at most half a grey level from the centre of the nearest patch. Right: mean distance from that centre; the pixels lie in $[-1,1]$. Bars: one standard error over the seeds. More levels help where the sampler stops early, and stopping later helps all. With steps that halve $t$ the share levels off; with finer steps it goes on rising, slowly."}, "image": {"alt": "Two panels against the final noise-to-signal ratio, falling to the right from 0.08 to 0.0001. Left, four curves of the share of consistent pixels rise steeply at first; that of five levels starts lowest, and that with a fine end comes out highest. Right, four curves of the mean deviation fall; that with a fine end is lowest at the right.", "width": "100%"}} tags=["hide-input"]
fig, axes = plot.figure(1, 2, size=(6.4, 3.3))
for (label, values), color, style, mark in zip(walks.items(), plot.COLORS, plot.STYLES, "osD^", strict=False):
    mean, bar = values.mean(2), values.std(2) / values.shape[2] ** 0.5
    for axis, k, factor in ((axes[0], 0, 100), (axes[1], 1, 1)):
        some = {"color": color, "marker": mark, "ms": 4, "capsize": 2, "label": label}
        axis.errorbar(at, factor * mean[:, k], factor * bar[:, k], ls=style, **some)
for axis in axes:
    axis.set(xscale="log", xlabel="final σ/α")
    axis.set_xticks([1e-1, 1e-2, 1e-3, 1e-4])
    axis.minorticks_off()
    axis.invert_xaxis()
axes[0].set_ylabel("consistent pixels, %")
axes[1].set_ylabel("mean deviation")
axes[1].set_ylim(0)
axes[0].legend(frameon=False, fontsize=10)
fig

# %% tags=["remove-cell"]
for key, border in (("zeros", "zeros"), ("local", "same"), ("circular", "circular")):
    own = (few, few_labels) if key == "circular" else (images, labels)
    share, deviation = consistent(drawn[key], *own, border).mean(1).tolist()
    record(f"published_consistent_{key}", 100 * share, rtol=0.05)
    record(f"published_deviation_{key}", deviation, rtol=0.1)
some = {"labels": labels, "classes": classes} if conditional else {}
off = ~local_consistency(drawn["zeros"], images, window, atol=half_grey, **some).pixels
aim = images[early.image, :, early.row, early.column].movedim(-1, 1)  # the patch that led at the last evaluation
there = (drawn["zeros"] - aim).abs().amax(1) <= half_grey
record("off_there", 100 * there[off].double().mean().item(), rtol=0.2)

# %% [markdown]
# As the paper samples, 19 evaluations with all training images, {glue:text}`published_consistent_zeros:.0f` % of the pixels are consistent, and the mean deviation is {glue:text}`published_deviation_zeros:.3f`. (The local machine, compared with the patches at each place: {glue:text}`published_consistent_local:.0f` %; circular borders: {glue:text}`published_consistent_circular:.0f` %.) Of the inconsistent pixels {glue:text}`off_there:.0f` % do have the value of the patch that led at the last evaluation: they have arrived, but in the final step their neighbours moved too, and now another patch is nearer. The others lie between several patches. Going on to $\sigma/\alpha=$ {glue:text}`end_sigma:.5f` raises the share, to {glue:text}`consistent_end_80:.0f` % with 80 levels and steps that halve $t$, and to {glue:text}`consistent_end_80_fine_end:.0f` % with a fine end. At such low noise a settled pixel moves in a straight line to its centre, and halving the noise takes it half the way. If on the way the window around it comes nearer to another patch, the goal changes, and the way begins anew. So the approach is slow. After ten halvings {glue:text}`still_moving_80:.0f` % of the pixels of $D$ still change by more than half a grey level with each halving. Large steps make this worse: the fine end passes through the same noise and comes nearer to a mosaic. {ref}`ex-mosaics-automaton` takes this to its limit.

# %% [markdown]
# ## How large a window?
#
# The published windows were found with trained networks. Can the data alone say how far a pixel should look? We compare four answers. Each looks at the images only, none at a network.
#
# ### What a window tells
#
# A large window tells more. If it tells enough to name the very patch that is behind the noise, the machine returns that patch, and the larger window is a way to memorise. {cite:t}`hunt2026bird` report that this happens when the information in the observation exceeds the logarithm of the size of the data, and that networks generate near this {term}`edge of memorisation`. For patches we have to say what is observed, what is to be named, and out of how many.
#
# Fix a pixel $u$ with a dictionary of $n=Nn_u$ patches ($N$ images, $n_u$ places in each). The *name* $J$ is uniform on the $n$ patches $q_1,\dots,q_n$. The *observation* is the noisy window $O=\alpha q_J+\sigma\varepsilon$. The weights of the machine are the posterior of the name, $w_u(q_j)=P(J=j\mid O)$ at $O=\Omega_u(x)$. Let $H(O)$ be its entropy in nats. The information that the observation holds about the name is
#
# $$
# I_n=\log n-\E\,H(O).
# $$ (eq-mosaics-information)
#
# A noised training image, at a place drawn from the dictionary of $u$, has windows with exactly this law. So $\E\,H$ is the mean of `Posterior.entropy` over noised training images. It costs nothing extra.
#
# Now let the dictionary be random: its patches are drawn, independently or not, from laws whose average over the $n$ patches is one law of patches. Write $p(o)$ for the density of the noisy window when the clean one has this law, $I$ for the mutual information of the two, $\hat p(o)$ for the density under the dictionary, $\Sigma$ for the covariance of the clean patch, $d$ for its number of values, and $h_0=\frac d2\log(2\pi e\sigma^2)$ for the entropy of the noise.
#
# :::{prf:proposition} Bounds on the information
# :label: prop-mosaics-bracket
#
# Let the law have finite second moments, and let $O'$ be the noisy window of a fresh patch of this law. Let $q$ be any density that may depend on the dictionary but not on $O'$; one choice is $\hat p$. Then, with expectations over dictionaries as well,
#
# $$
# \begin{split}
# &\E\,I_n\le I,\\
# &I\le\E\bigl[-\log q(O')\bigr]-h_0,\\
# &I\le\tfrac12\log\det\Bigl(I_d+\tfrac{\alpha^2}{\sigma^2}\Sigma\Bigr),
# \end{split}
# $$ (eq-mosaics-bracket)
#
# where $I_d$ is the identity. So the mean entropy of the weights obeys
#
# $$
# \E\,H\ge\max(0,\,\log n-I).
# $$ (eq-mosaics-edge)
# :::
#
# :::{prf:proof}
# Given the name, $O$ is normal with entropy $h_0$. So $I_n=h(\hat p)-h_0$ and $I=h(p)-h_0$, with $h$ the differential entropy. By assumption $\E\hat p=p$, and since $h$ is concave, $\E h(\hat p)\le h(p)$. This is the first line. For the second, given the dictionary $\E[-\log q(O')]=h(p)+\mathrm{KL}(p\Vert q)\ge h(p)$. For the third, among all laws with the covariance $\alpha^2\Sigma+\sigma^2I_d$ the normal one has the largest entropy. The last statement is the first line and {eq}`eq-mosaics-information`; an entropy of a discrete law is not negative.
# :::
#
# {cite:t}`hunt2026bird` report $S=\max(0,\log|D|-I)$ for the entropy $S$. In our reading $D$ is the dictionary of the pixel, with $|D|=n$. {eq}`eq-mosaics-edge` says that one half of this holds always: on average the entropy cannot be smaller. That it is not much larger is the other half, which needs patches that are nearly independent. We measure it. Beyond the edge, where $I>\log n$, the weights can condense on one patch.
#
# Two remarks on the definitions. Equal patches have different names. So $\E\,H$ does not vanish at low noise if patches repeat: black windows cannot be told apart, and there is nothing to memorise in them. And $\log n$ counts places, too: an equivariant dictionary is larger, so its edge lies at larger windows.
#
# First the definition, written out for the interior pixels of a few digits, and checked against the library.


# %%
def windows_of(images, w):
    """All windows inside the images as rows: (N * places, C w w), in float64."""
    return images.double().unfold(2, w, 1).unfold(3, w, 1).movedim(1, 3).flatten(3).flatten(0, 2)


def log_likelihoods(o, patches, ratio):
    """-|o - q|^2 / (2 ratio^2) for all pairs: windows divided by alpha, ratio = sigma / alpha."""
    squares = o.square().sum(1)[:, None] + patches.square().sum(1) - 2 * o @ patches.T
    return -squares.clamp(min=0) / (2 * ratio**2)


noise, w = cosine_legacy(0.3), 3
x = noise.add(small[:4].double(), normal(4, *small.shape[1:]).double())
patches = windows_of(small[:300], w)
logits = log_likelihoods(windows_of(x, w) / noise.alpha, patches, noise.sigma / noise.alpha)
weights = logits.softmax(1)
found = EquivariantLocal.fit(small[:300].double(), w, "zeros").posterior(x, noise)
assert_close(weights @ patches[:, w * w // 2], found.x0[:, 0, 1:-1, 1:-1].flatten())
assert_close(torch.special.entr(weights).sum(1), found.entropy[:, 1:-1, 1:-1].flatten(), rtol=1e-6, atol=1e-6)

# %% [markdown]
# Now the bounds. The second line of {eq}`eq-mosaics-bracket` needs images that neither the dictionary nor $q$ has seen; we take the held-out ones. For $q$ we take $\hat p$ and, fitted to training patches, a mixture of ten Gaussians with the noise added. The dictionary is a random set of {glue:text}`bracket_patches` interior patches.

# %% tags=["hide-input"]
inner = (3, 5, 7) if name == "digits" else (3, 7, 13)
ratios = [
    cosine_legacy(t).sigma / cosine_legacy(t).alpha for t in (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9)
]
few_probes, most_patches = 512, 5000


def some_of(rows, n):
    """So many rows at random, or all of them if there are fewer."""
    return rows[torch.randperm(len(rows), generator=rng)[:n]]


def gaussian_bounds(patches, ratios):
    """The Gaussian bound of the information in a patch, at every noise level."""
    lam = torch.linalg.eigvalsh(torch.cov(some_of(patches, 20000).T, correction=0)).clamp(min=0)
    return [torch.log1p(lam / ratio**2).sum().item() / 2 for ratio in ratios]


def bracket(w):
    """Bounds of the information at every noise level: I_n, from new windows, Gaussian, from a mixture of Gaussians."""
    patches, fresh = windows_of(x0[order[:1500]], w), some_of(windows_of(test.x0[:500], w), few_probes)
    gaussian = gaussian_bounds(patches, ratios)
    smooth = Mixture.fit(some_of(patches, 20000)[:, None], 10, rng=rng)
    patches = some_of(patches, most_patches)
    own = some_of(patches, few_probes)
    rows = []
    for ratio, from_moments in zip(ratios, gaussian, strict=True):
        row = []
        for clean in (own, fresh):
            eps = normal(*clean.shape).double()
            logits = log_likelihoods(clean + ratio * eps, patches, ratio)
            # -log p(o) - h_0, with |eps|^2 / 2 in place of its mean d / 2, whose fluctuations cancel
            row.append((math.log(len(patches)) - logits.logsumexp(1) - eps.square().sum(1) / 2).mean().item())
        seen = clean + ratio * eps  # the last ones, of fresh images
        cross = -smooth.log_density(seen[:, None], Noise(1.0, ratio)) - eps.square().sum(1) / 2
        cross = cross.mean().item() - clean.shape[1] * math.log(2 * math.pi * ratio**2) / 2
        rows.append([*row, from_moments, cross])
    return torch.tensor(rows, dtype=torch.float64).T


brackets = {w: bracket(w) for w in inner}
record("bracket_patches", most_patches)
record("bracket_probes", few_probes)
for w, rows in brackets.items():
    record(f"bracket_{w}", rows.tolist(), rtol=0.05)

# %% mystnb={"figure": {"name": "fig-mosaics-information", "caption": "The information of a noisy window about the clean one, in nats, for three windows against noise. Shaded: between the lower bound $I_n$ of the dictionary itself (lines) and the smallest of three upper bounds. All are estimates, from a few hundred windows, so at high noise the upper one can come out slightly below the lower one. Dashed: $\\log n$, what it takes to name a patch; $I_n$ cannot exceed it. At high noise the bounds meet. The edge of memorisation of a window is where its information crosses the dashed line: larger windows cross it at higher noise."}, "image": {"alt": "Three bands against the noise-to-signal ratio on a logarithmic axis, rising from zero at high noise towards low noise. The band of the largest window rises first. Each lower edge levels off at a dashed horizontal line, while the upper edge crosses it and leaves the frame.", "width": "85%"}} tags=["hide-input"]
fig, axis = plot.figure(size=(6.0, 4.0))
limit = math.log(most_patches)
for (w, rows), color, style in zip(brackets.items(), plot.COLORS, plot.STYLES, strict=False):
    upper = rows[1:].amin(0)
    axis.fill_between(ratios, rows[0], upper, color=color, alpha=0.25, lw=0)
    axis.plot(ratios, rows[0], style, color=color, lw=1.8, label=f"window {w}")
axis.axhline(limit, color="black", lw=1.2, ls="--")
axis.set(xscale="log", xlabel="noise-to-signal ratio σ/α", ylabel="information, nats", ylim=(0, 1.8 * limit))
axis.legend(frameon=False)
fig

# %% [markdown]
# For the smallest window the bounds meet down to $\sigma/\alpha\approx0.3$, and there is little doubt about the information. For larger windows they part where the dictionary runs out of patches. There the lower bound sticks at $\log n$, and the upper bounds are only as good as the densities: the mixture is nearer than one Gaussian, but not by much. A better model of patches would close more of the gap from above. From below, nothing that compares with $n$ patches can pass $\log n$.
#
# ### Entropy, window by window
#
# For the machines themselves we take the mean entropy over all pixels. It is shown below as a share of $\log n$, since pixels have dictionaries of different size. Training images tell of the law that the machine believes in. New images tell whether anything changes when the image is not in the store.

# %% tags=["hide-input"]
SWEEP = (0.05, 0.1, 0.15, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9)
sweep_levels = [cosine_legacy(t) for t in SWEEP]
sweep_ratios = [n.sigma / n.alpha for n in sweep_levels]
count_val, count = plan["probes"]
shuffled = test.x0[torch.randperm(len(test.x0), generator=rng)]
probes = {
    "training": x0[order[:count]],
    "held out": shuffled[:count],
    "validation": shuffled[count : count + count_val],
}
noised = {
    (split, k): level.add(clean, normal(*clean.shape))
    for split, clean in probes.items()
    for k, level in enumerate(sweep_levels)
}
patch_machines = {
    "equivariant local": (EquivariantLocal.fit(x0[order[: plan["sweep"]]], 3, "zeros"), plan["windows"]),
    "local": (Local.fit(x0[order[: plan["local"]]], 3), plan["local windows"]),
}
errors, entropies, log_n = {}, {}, {}
for key, (machine, windows) in patch_machines.items():
    log_n[key] = torch.stack(
        [(machine.patches_per_image(w) * len(machine.data)).double().log().mean() for w in windows]
    )
    for split, clean in probes.items():
        found = [machine.posterior_windows(noised[split, k], n, windows) for k, n in enumerate(sweep_levels)]
        errors[key, split] = torch.tensor([[mse(one.x0, clean) for one in row] for row in found]).double()
        entropies[key, split] = torch.tensor([[one.entropy.mean().item() for one in row] for row in found]).double()
for (key, split), rows in errors.items():
    record(f"sweep_{key}_{split}".replace(" ", "_"), rows.tolist(), rtol=0.05)
    record(f"entropy_{key}_{split}".replace(" ", "_"), entropies[key, split].tolist(), rtol=0.05)
record("sweep_ratios", sweep_ratios)

# %% mystnb={"figure": {"name": "fig-mosaics-entropy", "caption": "Mean entropy of the weights of the local machine as a share of $\\log N$, against the window, for several noise levels. Lines: noised training images. Dots: noised held-out images. At high noise even the largest window leaves the posterior wide. At low noise it condenses as soon as the window exceeds a few pixels. Where it is about to condense, new images have more entropy than training images: the machine does not find what it looks for."}, "image": {"alt": "Five falling curves of relative entropy against the window from 1 to 15 pixels. The curve of the highest noise falls from one to about one half, the curve of the lowest drops from about 0.8 at one pixel to zero at five to seven. Dots lie on the curves at small windows and a little above them at large ones.", "width": "85%"}} tags=["hide-input"]
fig, axis = plot.figure(size=(6.0, 4.0))
windows = plan["local windows"]
for k, color, style in zip((0, 3, 4, 5, 6), plot.COLORS, [*plot.STYLES, "-"], strict=False):
    share = {split: entropies["local", split][k] / log_n["local"] for split in ("training", "held out")}
    axis.plot(windows, share["training"], style, color=color, lw=1.8, label=f"σ/α = {sweep_ratios[k]:.2g}")
    axis.plot(windows, share["held out"], "o", color=color, ms=4)
axis.set(xlabel="window, pixels", ylabel="entropy / log N", ylim=(0, 1.03), xticks=windows)
axis.legend(frameon=False, fontsize=10)
fig

# %% [markdown]
# ### The window of the least error
#
# The second answer needs no information theory. Denoise images that the machine has not seen, with every window, and take the window with the smallest error. Small windows say too little; large ones find too few patches that fit. By {prf:ref}`thm-mixtures-yardstick` the winner is the machine closest to the denoiser of the law of images. We choose on validation images, and keep another set of new images for later.
#
# ### The window of the Wiener filter
#
# The third answer looks at two moments only. {cite:t}`lukoianov2025` point out that the best *affine* denoiser is local already: in the Gaussian machine the pixel $u$ of the output depends on the pixel $v$ of the input through
#
# $$
# G_{uv}=\Bigl[\alpha\Sigma\,(\alpha^2\Sigma+\sigma^2I)^{-1}\Bigr]_{uv},
# $$ (eq-mosaics-wiener)
#
# with $\Sigma$ the covariance of the images, and that this fades with distance. How wide is such a row? Two measures. *The published one*: divide by $G_{uu}$ and count the pixels above a threshold in absolute value, {glue:text}`threshold` here (0.005 was published for MNIST and 0.05 for CIFAR-10; for digits and Fashion-MNIST we take the former). *The participation number*: with $g_v=G_{uv}^2$, summed over channels, $(\sum_vg_v)^2/\sum_vg_v^2$ is the number of pixels for a row of equal entries, and nearly one for a single peak. Of either number the square root is a width, and we average it over all pixels $u$ that vary.

# %% tags=["hide-input"]
gaussian = Gaussian.fit(x0)
threshold = {"cifar10": 0.05}.get(name, 0.005)  # published for CIFAR-10 and MNIST


def wiener_widths(machine, noise):
    """Mean width of the rows of the Wiener filter: by the threshold, and by participation."""
    gain = noise.alpha * machine.lam / (noise.alpha**2 * machine.lam + noise.sigma**2)
    rows = (machine.U * gain) @ machine.U.T
    alive = rows.diagonal() > 1e-3 * rows.diagonal().max()  # pixels that vary
    rows, size = rows[alive], rows.diagonal()[alive, None]
    by_pixel = (rows / size).abs().reshape(len(rows), C, -1)
    counted = (by_pixel > threshold).any(1).double().sum(1)
    share = by_pixel.square().sum(1)
    return [counted.sqrt().mean().item(), (share.sum(1).square() / share.square().sum(1)).sqrt().mean().item()]


widths = torch.tensor([wiener_widths(gaussian, n) for n in sweep_levels], dtype=torch.float64)
record("threshold", threshold)
record("wiener_widths", widths.tolist(), rtol=0.02)

# %% [markdown]
# ### The window of a better machine
#
# The fourth answer is that of the paper, without its network. `calibrate_windows` walks a *reference* machine from noise to image, and at every level compares the noise that it predicts with that of the local machine, for all windows. The best window has the largest cosine; we take the median over {glue:text}`plan_starts` starts, with {glue:text}`plan_part` training images. Networks come in a later chapter. The best machine at hand that knows nothing of windows is, for digits at low and medium noise, a mixture of ten Gaussians ({numref}`fig-mixtures-ladder`). On CIFAR-10 one Gaussian is as good ({numref}`fig-mixtures-paper`).

# %% tags=["hide-input"]
reference = gaussian if C == 3 else Mixture.fit(x0[order[:20000]], 10, rng=rng)
record("reference", "one Gaussian" if C == 3 else "a mixture of ten Gaussians")
part_machine = EquivariantLocal.fit(x0[order[: plan["part"]]], 3, "zeros")
walk_levels = levels(cosine_legacy, [i / 20 for i in range(20, 0, -2)])
starts = normal(plan["starts"], *shape)
calibration = calibrate_windows(part_machine, reference, walk_levels, plan["windows"], starts)
calibrated_ratios = [n.sigma / n.alpha for n in calibration.levels]
record("calibrated", calibration.median.tolist(), rtol=0.3)
record("calibrated_ratios", calibrated_ratios)

# %% [markdown]
# ### All answers, and the published windows
#
# One more number is needed from the first answer: *where* is the edge? The entropy falls smoothly in the window. We mark the windows at which the mean entropy of the equivariant local machine has fallen to one half and to a tenth of $\log n$, by linear interpolation. And, from covariances alone, we mark the window at which the Gaussian bound in {eq}`eq-mosaics-bracket` passes $\log n$. (It is for interior pixels. The entropies are means over all pixels, of which those at the border have smaller dictionaries.) The bound is an upper one, so the edge itself lies at this window or at a larger one. The figure puts them beside the windows in use, here our shrunken table for digits. On the full data sets, where the published tables belong, the comparison is {ref}`below <mosaics-reported>`.


# %% tags=["hide-input"]
def crossing(values, windows, target):
    """The window at which falling values reach the target, linear in between; the last or first one if they never do."""
    for (a, b), (low, high) in zip(pairwise(windows), pairwise(values.tolist()), strict=True):
        if low <= target:
            return a
        if high <= target:
            return a + (b - a) * (low - target) / (low - high)
    return windows[-1]


def gaussian_edge(bounds, windows, size, images):
    """Where the bound (levels, windows) passes log n, for so many images of this size."""
    names = torch.tensor([math.log(images * (size - w + 1) ** 2) for w in windows], dtype=torch.float64)
    return [crossing(row, windows, 0.0) for row in names - bounds]


shared, windows = "equivariant local", plan["windows"]
share = entropies[shared, "training"] / log_n[shared]
seen = x0[order[:3000]]
bounds = torch.tensor([gaussian_bounds(windows_of(seen, w), sweep_ratios) for w in windows], dtype=torch.float64).T
record("gaussian_bounds", bounds.tolist(), rtol=0.05)
record("sweep_windows", list(windows))
predicted = {
    "entropy, half": [crossing(row, windows, 0.5) for row in share],
    "entropy, a tenth": [crossing(row, windows, 0.1) for row in share],
    "Gaussian bound": gaussian_edge(bounds, windows, side, min(plan["sweep"], len(x0))),
    "least error": [windows[k] for k in errors[shared, "validation"].argmin(1).tolist()],
    "Wiener, threshold": widths[:, 0].tolist(),
    "Wiener, participation": widths[:, 1].tolist(),
}
for label, values in predicted.items():
    tidy = label.replace(", ", "_").replace(" ", "_").lower()
    record(f"window_{tidy}", [float(v) for v in values], rtol=0.1)


def linear(values, windows, w):
    """The value at window w, linear between the windows that were tried."""
    k = max(1, next(k for k, tried in enumerate(windows) if tried >= w))
    low, high = windows[k - 1], windows[k]
    return values[k - 1] + (values[k] - values[k - 1]) * (w - low) / (high - low)


def passes(ratios, found, target=5.0):
    """The noise at which a window that rises with it passes the target, linear in the logarithm."""
    rising = sorted(zip(ratios, map(float, found), strict=True))
    for (a, low), (b, high) in pairwise(rising):
        if low < target <= high:
            return a * (b / a) ** ((target - low) / (high - low))
    return rising[0][0] if rising[0][1] >= target else rising[-1][0]


use = [table.at(-2 * math.log(ratio)) for ratio in sweep_ratios]
at_use = torch.tensor([linear(row.tolist(), windows, w) for row, w in zip(share, use, strict=True)])
record("share_in_use", at_use.tolist(), rtol=0.05)
record("used_least", 100 * at_use.min().item(), rtol=0.05)
record("used_most", 100 * at_use.max().item(), rtol=0.05)
for label in ("entropy, half", "Gaussian bound", "least error"):
    record(
        f"passes_{label.replace(', ', '_').replace(' ', '_').lower()}", passes(sweep_ratios, predicted[label]), rtol=0.2
    )
record("passes_calibrated", passes(calibrated_ratios, calibration.median.tolist()), rtol=0.3)
record("passes_in_use", passes([n.sigma / n.alpha for n in grid[:-1]], ours))
record("window_calibrated", [float(v) for v in calibration.median.tolist()], rtol=0.3)
record("entropy_share", share.tolist(), rtol=0.05)

LOOKS = {
    "entropy, half": ("#0072B2", "-", "o"),
    "entropy, a tenth": ("#56B4E9", "--", "s"),
    "Gaussian bound": ("#CC79A7", ":", "^"),
    "least error": ("#D55E00", "-", "o"),
    "Wiener, threshold": ("#009E73", "--", "s"),
    "Wiener, participation": ("#E69F00", ":", "^"),
    "calibrated": ("#CC79A7", "-.", "D"),
}
GROUPS = (("entropy, half", "entropy, a tenth", "Gaussian bound"), tuple(LOOKS)[3:])


def draw_windows(axis, found, labels):
    """Predicted windows against noise; found: label -> (ratios, windows)."""
    for label in labels:
        color, style, mark = LOOKS[label]
        axis.plot(*found[label], style, color=color, marker=mark, ms=4, lw=1.5, label=label)
    axis.set(xscale="log", xlabel="σ/α")


# %% mystnb={"figure": {"name": "fig-mosaics-windows", "caption": "Which window at which noise, on digits. Black steps: the table in use. Left: from the information in windows: the mean entropy of the weights has fallen to one half or one tenth of $\\log n$, and the Gaussian bound on the information exceeds $\\log n$ beyond the dotted line. Right: the window of the least error on validation images; two widths of the rows of the Wiener filter; and the window calibrated against a mixture of ten Gaussians. All rise with the noise. Half of the entropy, the Gaussian bound, the least error and the calibration rise close to each other, and the table somewhat later; a tenth of the entropy and the Wiener widths lie apart. (Windows of 3, 5 and 7 were tried, so nothing can leave this range but the Wiener widths, which end at the image.)"}, "image": {"alt": "Two panels with windows from 1 to 8 pixels against the noise-to-signal ratio. A black staircase rises from 3 to 7 in both. On the left three curves rise to 7; those of half the entropy and of the Gaussian bound are close together, the one of a tenth of the entropy lies above. On the right the least error and the calibration rise from 3 to 7 near the staircase; the threshold width of the Wiener filter lies above, from 4.5 to 7.2, and the participation width below, from 1.1 to 2.8.", "width": "100%"}} tags=["hide-input"]
fig, axes = plot.figure(1, 2, size=(6.4, 4.2), sharey=True)
found = {label: (sweep_ratios, values) for label, values in predicted.items()}
found["calibrated"] = (calibrated_ratios, calibration.median)
for axis, labels in zip(axes, GROUPS, strict=True):
    axis.step([n.sigma / n.alpha for n in grid[:-1]], ours, where="mid", color="black", lw=2, label="in use")
    draw_windows(axis, found, labels)
    axis.legend(frameon=False, fontsize=9, loc="upper left")
axes[0].set_ylabel("window, pixels")
axes[0].set_ylim(0, 1.6 * max(windows))
fig

# %% [markdown]
# On digits, different questions get similar answers. Take the noise at which each answer reaches a window of five pixels. For the least error on new images it is $\sigma/\alpha=$ {glue:text}`passes_least_error:.2f`, for the Gaussian bound {glue:text}`passes_gaussian_bound:.2f`, for one half of the entropy {glue:text}`passes_entropy_half:.2f`, and for the calibration {glue:text}`passes_calibrated:.2f`. Our table in use, shrunk from one for other images, has five from {glue:text}`passes_in_use:.2f` on. Only three windows were tried, so this is an agreement within a factor of about 1.5 in the noise, no more. At seven pixels it is worse: the table reaches them at clearly higher noise than all answers. The entropy has fallen to one tenth of $\log n$ only at windows that are too large for new images. So the least error does not sit where nothing is left of the entropy. At medium noise it sits where about half of it is left.
#
# At the windows in use the mean entropy is between {glue:text}`used_least:.0f` and {glue:text}`used_most:.0f` % of $\log n$. A public notebook beside the code of {cite:t}`hunt2026bird` finds 60 to 97 % of $\log N$ at the windows calibrated on a network, for a local machine with 300 images. There the edge follows the calibration only if its threshold is raised to 70 to 90 % of $\log N$. But a threshold that is fitted to a network is no prediction; the Gaussian bound has none to choose.
#
# The two Wiener widths differ by more than a factor of two from each other. The participation width is less than half of all the rest. The threshold width is far above the others at low noise, and ends at the image. A width of a filter depends on where one cuts its tails, and the threshold was chosen for each data set. The filter is also blind to the size of the training set. The Gaussian bound uses the same two moments, but compares them with $\log n$, and needs no threshold. We conclude that a filter alone gives the *shape* of the curve, rising with the noise, and not its height.
#
# ## What the details do
#
# Between the theory and the published images stand four decisions that are easily overlooked. We know of no report on them. We change one at a time.
#
# ### Wrapped or interior patches
#
# For networks with circular padding the derivation asks for wrapped training patches; the public code takes interior ones. {numref}`fig-locality-prior` has shown what that does at high noise: the mean of interior centres is another one. On digits, with strokes in the middle and black at the rim, it is too bright. And images drawn so?

# %% tags=["hide-input"]
inside_only = given(EquivariantLocal.fit(few, table, "interior", few_labels))
drawn["interior"] = sample(inside_only, z, grid)
brightness = {key: drawn[key].mean().item() for key in ("circular", "interior", "zeros", "local")}
for key, value in brightness.items():
    record(f"bright_{key}", value, rtol=0.05)
record("bright_training", few.mean().item())
gap = [
    (inside_only.denoise(state.x, state.noise) - state.x0).square().mean().sqrt().item()
    for state in wrapped_path[:19:3]
]
record("border_gap", gap, rtol=0.05)

# the windows that a calibration finds with either dictionary, if the network were the circular machine with these windows
pair_images = x0[order[: plan["part"]]]
others = x0[order[plan["part"] : 2 * plan["part"]]]  # a network's own images are more, and not only these
stand_in = EquivariantLocal.fit(others, table_of("calibrated"), "circular")
walk_down = [cosine_legacy(t) for t in (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)]
down_ratios = [n.sigma / n.alpha for n in walk_down]
tried = (3, 5, 7) if name == "digits" else (3, 5, 7, 9, 11, 13, 15, 17)
riddle = published("mnist-resnet-circular", "calibrated")
windows_down = {
    "windows of the stand-in": [stand_in.window.at(-2 * math.log(ratio)) for ratio in down_ratios],
    "published, MNIST": [riddle.at(-2 * math.log(ratio)) for ratio in down_ratios],
}
for border in ("circular", "interior"):
    machine = EquivariantLocal.fit(pair_images, 3, border)
    windows_down[border] = calibrate_windows(machine, stand_in, walk_down, tried, starts[:4]).median.tolist()
    record(f"calibrated_{border}", windows_down[border], rtol=0.5)
record("down_ratios", down_ratios)
record("windows_of_stand_in", windows_down["windows of the stand-in"])
agree = [a == b for a, b in zip(windows_down["circular"], windows_down["windows of the stand-in"], strict=True)]
record("wrapped_agrees", sum(agree), rtol=0.2)
record("levels_down", len(agree))

# %% mystnb={"figure": {"name": "fig-mosaics-border", "caption": "Wrapped or interior patches, on digits. Left: samples from the same seeds, with wrapped patches (top) and with interior ones (bottom). Right: a calibration against a circular machine that stands in for a network, with the windows drawn in black. A calibration with wrapped patches finds these windows. One with interior patches finds the smallest window at every noise level: it is the one whose mean is least wrong."}, "image": {"alt": "Left, two rows of four small images. The upper ones have strokes on black; the lower ones are filled with bright strokes. Right, windows against noise: a black line rises from 3 to 7, a dashed blue one lies on it, and an orange one stays at 3.", "width": "100%", "classes": "dark-light"}} tags=["hide-input"]
fig, axes = plot.figure(1, 2, size=(6.4, 3.2), width_ratios=(1.25, 1))
pad = torch.nn.functional.pad
n = min(4, plan["shown"])
both = [torch.cat(list(pad(drawn[key][:n], (1, 1, 1, 1), value=1.0)), 2) for key in ("circular", "interior")]
plot.show(axes[0], torch.cat(both, 1))
axes[0].set_axis_off()
lines = {
    "windows of the stand-in": ("black", "-", ""),
    "circular": ("#0072B2", "--", "o"),
    "interior": ("#D55E00", "-", "s"),
}
if name == "mnist":
    lines["published, MNIST"] = ("#777777", ":", "")
for label, (color, style, mark) in lines.items():
    words = {"circular": "found with wrapped patches", "interior": "found with interior patches"}.get(label, label)
    axes[1].plot(down_ratios, windows_down[label], style, color=color, marker=mark, ms=4, lw=1.8, label=words)
axes[1].set(xscale="log", xlabel="σ/α", ylabel="window, pixels", ylim=(0, max(tried) + 1), yticks=tried)
axes[1].legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0))
fig

# %% [markdown]
# The circular machine draws images with a mean grey value of {glue:text}`bright_circular:.2f`; training images have {glue:text}`bright_training:.2f`. With interior patches it is {glue:text}`bright_interior:.2f`: strokes fill the frame.
#
# The dictionary can also explain a riddle of the published tables. All rise with the noise, except the one for MNIST with circular padding, which falls back from 11 to 3 in the last steps. Suppose that the network *were* a circular machine, with windows that rise as in the tables for zero padding. Which windows would a calibration find, with {glue:text}`plan_part` other training images? With wrapped patches it finds the true ones, at {glue:text}`wrapped_agrees` of {glue:text}`levels_down` noise levels. With interior patches it does not. At high noise the network predicts the mean of all pixels, and an interior dictionary has another mean, except with windows so small that nearly all patches are interior. So it takes the smallest. On digits, where a window of 5 is most of the image, it takes the smallest everywhere. On MNIST, at $32\times32$ pixels, it falls back at high noise only, {ref}`as the published table does <mosaics-reported>`.
#
# ### One step off, and the first step
#
# The public calibration stores the window for $t=i/20$ as entry $i-1$ of a table; the public sampler reads entry $i$. So samples are drawn with windows that were calibrated one step noisier. `published` offers both readings. And the machine starts at $t=0.95$, directly from the seed, while the network starts at $t=1$. The step that is skipped would have been $x_{0.95}=\alpha D+\sigma\hat\varepsilon$, and since $D$ is nearly the mean image there, it would have added about $\alpha(0.95)\mu$ and left the noise nearly as it is.

# %% tags=["hide-input"]
base_few = given(EquivariantLocal.fit(few, table, "zeros", few_labels))
runs = {
    "as published": (base_few, grid),
    "index": (given(EquivariantLocal.fit(few, table_of("calibrated"), "zeros", few_labels)), grid),
    "start": (base_few, levels(cosine_legacy, [1.0, *times])),
    "steps": (base_few, levels(cosine_legacy, [0.95 - 0.9 * k / 36 for k in range(37)])),
}
walks_few = {key: list(trajectory(machine, z, some)) for key, (machine, some) in runs.items()}
finals = {key: states[-1].x for key, states in walks_few.items()}
lines = ["| change | median r | R² | RMS | mean grey |", "|---" * 5 + "|"]
words = {"index": "windows as calibrated", "start": "start at t = 1", "steps": "37 levels in place of 19"}
for key, label in words.items():
    a, b = finals["as published"].double(), finals[key].double()
    r, R2 = metrics.pearson(a, b).median().item(), metrics.R2(a, b).median().item()
    rms = (a - b).square().mean().sqrt().item()
    lines.append(f"| {label} | {r:.3f} | {R2:.3f} | {rms:.3f} | {b.mean() - a.mean():+.3f} |")
    record(f"ablation_{key}", [r, R2, rms, (b.mean() - a.mean()).item()], rtol=0.2)
another = finals["as published"].double()
r = metrics.pearson(another, another.roll(1, 0)).median().item()
rms = (another - another.roll(1, 0)).square().mean().sqrt().item()
lines.append(f"| another seed | {r:.3f} | | {rms:.3f} | |")
record("ablation_seed", [r, rms], rtol=0.2)
record("r_other_seed", r, rtol=0.2)
record("start_shift", finals["start"].mean().item() - finals["as published"].mean().item(), rtol=0.3)
Markdown("\n".join(lines))

# %% [markdown]
# The table compares the final images with those of the published settings, seed by seed: the median correlation $r$, the median $R^2$ (one minus the squared distance over the variance of the image), the root mean square of the difference, and the change of the mean grey value. For scale, the last row compares different seeds. On digits the index, the missing first step and the number of levels all leave their mark, and all of them are small beside a change of the seed. The missing step takes away a shift of about $0.09\mu$. The flow makes up for most of it: the mean grey value changes by {glue:text}`start_shift:+.3f`. Images with a mean far from zero have more to lose; see {ref}`below <mosaics-reported>` for MNIST.
#
# ### A part of the dictionary
#
# Large dictionaries are costly, and published experiments take shortcuts: 5000 images for the calibration, 10 000 in a demonstration. What does a random part of the images do to $D$? Write $A_i$ and $B_i$ for what image $i$ adds to the numerator and to the denominator of {eq}`eq-mosaics-machine`, so that $D_u=\sum_iA_i/\sum_iB_i$. A random part of $m$ out of $N$ images returns the ratio of two sums over the part. To first order its deviation is that of a sample mean, and sampling without replacement gives the variance
#
# $$
# \begin{split}
# &\E(D'_u-D_u)^2\\
# &\quad\approx\Bigl(\frac Nm-1\Bigr)\frac N{N-1}\sum_ir_i^2,\\
# &r_i=\frac{A_i-D_uB_i}{\sum_jB_j}.
# \end{split}
# $$ (eq-mosaics-delta)
#
# This is known as the {term}`delta method`. The patches of one image come together, so images are the units, not patches. We check it on digits, at interior pixels, with window 3.

# %% tags=["hide-input"]
w, total, repeats = 3, 1200, 12
store = small[:total]
centres = windows_of(store, w)[:, w * w // 2].reshape(total, -1)
clean = datasets.load("digits", "test").x0[:6].double()
fractions = (4, 16, 64)
part_levels = [cosine_legacy(t) for t in (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)]
measured, bars, expected = ({k: [] for k in fractions} for _ in range(3))
for n in part_levels:
    x = n.add(clean, normal(*clean.shape).double())
    logits = log_likelihoods(windows_of(x, w) / n.alpha, windows_of(store, w), n.sigma / n.alpha)
    weights, logits = (one.reshape(len(logits), total, -1) for one in (logits.softmax(1), logits))
    whole = (weights * centres).sum((1, 2))
    residual = (weights * (centres - whole[:, None, None])).sum(2)  # r_i for every pixel
    spread = total / (total - 1) * residual.square().sum(1).mean()
    for k in fractions:
        gaps = []
        for _ in range(repeats):
            some = torch.randperm(total, generator=rng)[: total // k]
            found = logits[:, some].flatten(1).softmax(1) @ centres[some].flatten()
            gaps.append((found - whole).square().mean())
        gaps = torch.stack(gaps)
        measured[k].append(gaps.mean().sqrt().item())
        bars[k].append((gaps.std() / repeats**0.5 / 2 / gaps.mean().sqrt()).item())
        expected[k].append(((total / (total // k) - 1) * spread).sqrt().item())
for k in fractions:
    record(f"subset_{k}", measured[k], rtol=0.2)
    record(f"delta_{k}", expected[k], rtol=0.2)

record("quarter_high", measured[4][-1], rtol=0.2)
record("quarter_low", measured[4][0], rtol=0.2)

# the same along the samples of this chapter's own data
own_states = [walks_few["as published"][k] for k in (0, 6, 12, 15, 18)]
quarter = given(EquivariantLocal.fit(few[::4], table, "zeros", None if few_labels is None else few_labels[::4]))
own_gap = [(quarter.denoise(s.x, s.noise) - s.x0).square().mean().sqrt().item() for s in own_states]
record("own_quarter", own_gap, rtol=0.1)
record("own_quarter_ratios", [s.noise.sigma / s.noise.alpha for s in own_states])

# %% mystnb={"figure": {"name": "fig-mosaics-subset", "caption": "What a random part of the training images does to $D$: root-mean-square difference from all 1200 digits, at interior pixels, window 3. Symbols: measured over twelve random parts, with standard errors. Lines: the delta method {eq}`eq-mosaics-delta`. They agree from $\\sigma/\\alpha\\approx0.6$ on; at 0.3 still for one quarter, while for one sixty-fourth the law says too much. At the lowest noise it says too little for the larger parts: if the one patch that fits is not in the part, nothing replaces it."}, "image": {"alt": "Log-log plot of the difference against the noise-to-signal ratio, for one quarter, one sixteenth and one sixty-fourth of the images. Symbols and lines coincide at high noise and fall together. At the lowest noise the symbols for one quarter and one sixteenth keep rising, above their lines, which turn down.", "width": "85%"}} tags=["hide-input"]
fig, axis = plot.figure(size=(6.0, 4.0))
at = [n.sigma / n.alpha for n in part_levels]
for k, color, style, mark in zip(fractions, plot.COLORS, plot.STYLES, "osD", strict=False):
    axis.plot(at, expected[k], style, color=color, lw=1.5)
    axis.errorbar(at, measured[k], bars[k], fmt=mark, color=color, ms=5, capsize=2, label=f"1/{k} of the images")
axis.set(xscale="log", yscale="log", xlabel="noise-to-signal ratio σ/α", ylabel="RMS difference")
axis.legend(frameon=False, fontsize=10)
fig

# %% [markdown]
# Where thousands of patches share the weight, the law of first order is accurate, and a quarter of the images is nearly as good as all: at the highest noise the difference is {glue:text}`quarter_high:.3f`, on a range of two. At low noise it is {glue:text}`quarter_low:.2f`, several times what {eq}`eq-mosaics-delta` predicts. The error is then not the scatter of an average but the loss of the one patch that would have fitted. So short cuts are cheap at high noise and dear at low noise, where windows are small and pairs are many. And the cost can be known beforehand: $\sum_ir_i^2$ needs one pass.
#
# ## Local machines generalise
#
# So far we have looked at samples. The sharper question is the one of {prf:ref}`thm-mixtures-yardstick`: who is closest to the denoiser of the law of images? New images answer it, without a network and without taste. Here are all machines of the book so far. The local ones take at each noise level the window with the smallest error on validation images, which are neither training images nor the ones that measure here.

# %% tags=["hide-input"]
rivals = {"ideal": Ideal.fit(x0), "Gaussian": gaussian}
if C == 1:
    rivals["mixture"] = reference
    rivals["wavelet"] = WaveletPolynomial.fit(x0[order[:10000]], Wavelet("db2"), "local")
rivals["equivariant"] = equivariant if name == "digits" else Equivariant.fit(x0[order[:1000]])
errors_of = {}
for split in ("training", "held out"):
    for key, machine in rivals.items():
        errors_of[key, split] = [
            mse(machine.denoise(noised[split, k], n), probes[split]) for k, n in enumerate(sweep_levels)
        ]
    for key in patch_machines:
        best = errors[key, "validation"].argmin(1)
        errors_of[key, split] = errors[key, split].gather(1, best[:, None])[:, 0].tolist()
for (key, split), values in errors_of.items():
    record(f"error_{key}_{split}".replace(" ", "_"), values, rtol=0.05)
record(
    "best_windows_local", [plan["local windows"][k] for k in errors["local", "validation"].argmin(1).tolist()], rtol=0.5
)
record(
    "best_windows_equivariant_local",
    [plan["windows"][k] for k in errors[shared, "validation"].argmin(1).tolist()],
    rtol=0.5,
)
record(
    "wins",
    sum(a < b for a, b in zip(errors_of[shared, "held out"], errors_of["Gaussian", "held out"], strict=True)),
    rtol=0.5,
)

HUES = {
    "ideal": ("#000000", "--", "x"),
    "mixture": ("#009E73", "-.", "D"),
    "wavelet": ("#E69F00", ":", "^"),
    "equivariant": ("#CC79A7", "--", "v"),
    "local": ("#0072B2", "-", "o"),
    "equivariant local": ("#D55E00", "-", "s"),
}


def draw_errors(axis, ratios, values):
    """Errors relative to one Gaussian; values: machine -> errors."""
    for label, (color, style, mark) in HUES.items():
        if label in values:
            relative = torch.tensor(values[label]) / torch.tensor(values["Gaussian"])
            axis.plot(ratios, relative, style, color=color, marker=mark, ms=4, lw=1.5, label=label)
    axis.axhline(1, color="black", lw=0.8)
    axis.set(xscale="log", yscale="log", xlabel="σ/α", ylim=(0.05, 50))
    axis.set_yticks([0.1, 1, 10], ["0.1", "1", "10"])


# %% mystnb={"figure": {"name": "fig-mosaics-heldout", "caption": "Denoising error relative to one Gaussian against noise, digits. Left: noised training images. Right: noised held-out images. The local machines have at each level the window that was best on validation images. On training images the ideal and the equivariant machine are far ahead at low noise: they have stored the answer. On held-out images they are far behind there. Between $\\sigma/\\alpha=0.15$ and 0.3 the two local machines lead; at higher noise a mixture is as good or better."}, "image": {"alt": "Two panels on logarithmic axes. Left: the curves of the ideal and the equivariant machine lie far below all others at low noise, below the frame; those of the local machines below one. Right: the ideal and equivariant curves start far above one and fall to one; the local curve lies below one from the lowest noise on, the equivariant local one starts near two and is below one from the second point on; both reach one at high noise. The mixture lies below one up to medium noise, and wavelet stays slightly above one.", "width": "100%"}} tags=["hide-input"]
fig, axes = plot.figure(1, 2, size=(6.4, 4.2), sharey=True)
for axis, split in zip(axes, ("training", "held out"), strict=True):
    draw_errors(
        axis, sweep_ratios, {key: errors_of[key, split] for key in [*HUES, "Gaussian"] if (key, split) in errors_of}
    )
    axis.set_title(split, fontsize=11)
axes[0].set_ylabel("error / one Gaussian's")
fig.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=10)
fig

# %% tags=["remove-cell"]
low = SWEEP.index(0.2)
for key in ("ideal", "local", "equivariant local", "mixture"):
    if (key, "held out") in errors_of:
        tidy = key.replace(" ", "_")
        for split in ("training", "held out"):
            ratio = errors_of[key, split][low] / errors_of["Gaussian", split][low]
            record(f"relative_{tidy}_{split.replace(' ', '_')}", ratio, rtol=0.05)
            record(f"absolute_{tidy}_{split.replace(' ', '_')}", errors_of[key, split][low], rtol=0.05)
record("low_sigma", sweep_ratios[low])
record("lowest_training", errors_of["equivariant local", "training"][0], rtol=0.1)
record("lowest_held_out", errors_of["equivariant local", "held out"][0], rtol=0.1)
record("sweep_count", count)

# %% [markdown]
# At $\sigma/\alpha=$ {glue:text}`low_sigma:.2f` the ideal machine has {glue:text}`relative_ideal_training:.0e` times the error of one Gaussian on training images, and {glue:text}`relative_ideal_held_out:.2f` times on new ones. The equivariant local machine has {glue:text}`relative_equivariant_local_training:.2f` times on training images and {glue:text}`relative_equivariant_local_held_out:.2f` times on new ones, the local one {glue:text}`relative_local_training:.2f` and {glue:text}`relative_local_held_out:.2f`, and a mixture of ten Gaussians {glue:text}`relative_mixture_training:.2f` and {glue:text}`relative_mixture_held_out:.2f`. In absolute terms, the mean squared error per pixel of the equivariant local machine is {glue:text}`absolute_equivariant_local_training:.3f` on its own images and {glue:text}`absolute_equivariant_local_held_out:.3f` on new ones; for the ideal machine these are {glue:text}`absolute_ideal_training:.0e` and {glue:text}`absolute_ideal_held_out:.3f`. The equivariant local machine is made of training patches and nothing else, and yet at this noise it denoises new images about as well as its own, clearly better than one Gaussian, and no worse than a mixture of ten. This is what it means to generalise: not to interpolate between images, but to have seen the parts before. ({glue:text}`sweep_count` images on each side; the same images and the same noise for all machines. The training images here are the machine's own.)
#
# This noise level is a favourable one. At lower noise the machine finds its own patches again: at $\sigma/\alpha=$ {glue:text}`last_sigma:.2f` the errors are {glue:text}`lowest_training:.4f` and {glue:text}`lowest_held_out:.4f`. And between 0.5 and 0.85, where it takes windows of five and seven, the left panel of {numref}`fig-mosaics-heldout` is well below the right one. On digits these windows are most of the image, and large windows memorise.
#
# There are two exceptions. At the lowest noise digits have a peculiarity: they have 17 grey levels, an eighth apart, and a machine that looks at single pixels can round. The local machine is allowed a window of one and takes it. The equivariant local one was not, its windows begin at 3 as in the published tables, and there it is worse than one Gaussian. At high noise the place in the image matters more than the neighbourhood. There the window hardly changes the error, and all machines that know the place meet; the equivariant machine, which does not, is worst.
#
# (mosaics-reported)=
# ## What the paper reports, what we get
#
# {cite:t}`kamb2025creativity` compare their machines with trained networks, from the same seed: a network of 150 steps, a machine of 19 evaluations, correlation over pixels, median over 100 seeds. We have no network yet. But the same seeds can be given to the machines, and how they correlate *with each other* limits what such a table can tell. Our rows are from the paper profile: {ref}`full-size images <reproducing>` at $32\times32$ pixels, with a random part of the training images, for each class where the published networks know the class.

# %% tags=["hide-input", "paper-results"]
TITLES = {"mnist": "MNIST", "fashion": "Fashion-MNIST", "cifar10": "CIFAR-10"}
results = {key: found for key, found in paper("10_mosaics").items() if key in TITLES}
results = {key: results[key] for key in TITLES if key in results}
REPORTED = {"mnist": (0.94, 0.82, 0.61), "fashion": (0.94, 0.88, 0.68), "cifar10": (0.95, 0.90, 0.42)}


def between(a, b):
    """The range of the correlation of two images that correlate a and b with a third."""
    slack = ((1 - a**2) * (1 - b**2)) ** 0.5
    return f"{a * b - slack:.2f} to {a * b + slack:.2f}"


lines = ["| | " + " | ".join(TITLES.values()) + " |", "|---" * 4 + "|"]
for k, label in enumerate(("equivariant local", "local", "ideal")):
    lines.append(f"| {label} and network, reported | " + " | ".join(f"{REPORTED[d][k]:.2f}" for d in TITLES) + " |")
lines.append(
    "| implied: equiv. local and ideal | " + " | ".join(between(REPORTED[d][0], REPORTED[d][2]) for d in TITLES) + " |"
)
for label, key in (("ideal", "zeros_ideal"), ("local", "zeros_local")):
    cells = [f"{results[d][f'alike_{key}'][0]:.2f}" if d in results else "" for d in TITLES]
    lines.append(f"| equiv. local and {label}, ours | " + " | ".join(cells) + " |")
cells = [f"{results[d]['plan_images']} / {results[d]['plan_seeds']}" if d in results else "" for d in TITLES]
lines.append("| training images / seeds, ours | " + " | ".join(cells) + " |")
Markdown("\n".join(lines))

# %% [markdown]
# The reported rows are for the network with residual layers and zero padding. Correlations obey a triangle inequality ({ref}`ex-mosaics-triangle`): if the equivariant local machine has $r=a$ with the network and the ideal machine $r=b$, their own correlation lies between $ab\pm\sqrt{(1-a^2)(1-b^2)}$. The fourth row inserts the reported medians, as if one seed had them all. Our two rows below are *not* a reproduction: few seeds, and a part of the training images. They are an orientation of what a machine scores that is no network at all. All three correlations with the ideal machine lie in the implied ranges, that of Fashion-MNIST at the upper end.
#
# One more caution. The captions of the paper speak of $r^2$. The public evaluation script computes $r$. The numbers above are as printed. If they are $r$, then 0.95 means $r^2=0.90$.
#
# ### Samples at full size
#
# What do mosaics of photographs look like? Each row is a seed with a class of its own.
#
# :::{figure} ../results/paper/10_mosaics/cifar10/fig-mosaics-samples.png
# :name: fig-mosaics-samples-cifar10
# :alt: Three rows of six small colour images, for the classes aeroplane, car and bird. The first image of each row is a photograph, the second a shifted photograph; the third to fifth show blotches of the same colours in the same places, in one of them the outline of a car; the last is a photograph.
# :width: 100%
#
# {numref}`fig-mosaics-samples` in the paper profile, on CIFAR-10, class-conditional, with the published windows. Columns are machines, rows are seeds of the first three classes; the last column is the training image nearest to the sample with zero borders, of any of these classes. The ideal machine, the local one and the equivariant local one with zero borders have 3000 images of the class, the other two 500.
# :::
#
# :::{figure} ../results/paper/10_mosaics/fashion/fig-mosaics-samples.png
# :name: fig-mosaics-samples-fashion
# :alt: Three rows of six small grey images of clothing, for the classes T-shirt, trousers and pullover. The first image of each row is clean; the third and fourth show garment-like shapes put together from parts; the fifth shows such parts without a frame; the last is a training image.
# :width: 100%
#
# The same on Fashion-MNIST. Parts of a garment that are farther apart than the window at their noise level are decided on independently. This is how {cite:t}`kamb2025creativity` explain sleeves and trouser legs in excess.
# :::
#
# :::{figure} ../results/paper/10_mosaics/mnist/fig-mosaics-provenance.png
# :name: fig-mosaics-provenance-mnist
# :alt: Two rows of four images of handwritten strokes. The left image of each row is covered by small light blue cells on the strokes and dots on the black background; a few pixels carry coloured frames, which recur on the three training digits beside it.
# :width: 100%
#
# {numref}`fig-mosaics-provenance` in the paper profile, on MNIST. The strokes have settled, in tiles of one or a few pixels. The black background and the inside of thick white strokes have not: their patches repeat.
# :::
#
# ### The riddle of the falling windows
#
# {numref}`fig-mosaics-border-mnist` repeats the calibration of {numref}`fig-mosaics-border` on MNIST, the data set of the riddle. The stand-in has the published windows for *zero* padding, which do not fall.
#
# :::{figure} ../results/paper/10_mosaics/mnist/fig-mosaics-border.png
# :name: fig-mosaics-border-mnist
# :alt: Left, three samples of strokes on black above, and three with more strokes below. Right, windows against noise. A black line rises from 3 to 15, and a dashed blue one follows it. An orange one rises with them to 11 and falls back to 3 at the highest noise; a dotted grey one does so, too.
# :width: 100%
#
# {numref}`fig-mosaics-border` in the paper profile, on MNIST, with 200 training images for the stand-in, 200 others for the calibration, and three starts. With wrapped patches the calibration finds the windows of the stand-in, but for two levels of low noise, where it finds one step less. With interior patches it finds windows that rise to 11 and fall back to 3, nearly those published for a network with circular padding (grey).
# :::

# %% tags=["hide-input", "paper-results"]
head = (0, 2, 4, 6, 7, 8, 10)


def window_row(label, values):
    return f"| {label} | " + " | ".join(str(values[k]) for k in head) + " |"


lines = []
if results:
    ratios_down = next(iter(results.values()))["down_ratios"]
    lines = ["| σ/α | " + " | ".join(f"{ratios_down[k]:.2g}" for k in head) + " |", "|---" * (len(head) + 1) + "|"]
for key, r in results.items():
    lines.append(window_row(f"{TITLES[key]}: stand-in", r["windows_of_stand_in"]))
    for border, word in (("circular", "wrapped"), ("interior", "interior")):
        lines.append(window_row(f"found, {word}", r[f"calibrated_{border}"]))
    if key in ("mnist", "cifar10"):  # the two published networks with circular padding
        rising = published(f"{key}-resnet-circular", "calibrated")
        windows = [rising.at(-2 * math.log(ratio)) for ratio in r["down_ratios"]]
        lines.append(window_row("published", windows))
Markdown("\n".join(lines)) if results else None

# %% [markdown]
# The table has all three sets, and the published windows of the networks with circular padding. On MNIST a fall like the published one is there, within one step of two pixels at every level. No network with circular padding was needed to make it; the rising windows that we put in are those published for zero padding. On Fashion-MNIST, for which no table with circular padding was published, interior patches make the windows fall as well. On CIFAR-10 they do so at the last level only, $t=1$. The published table does not fall at all, and before that level the two differ by one step at most. A likely reason is that photographs are about as bright at the rim as in the middle, so an interior dictionary has nearly the right mean. (At $t=1$ the noise predicted by different windows differs little, so a small error of the mean decides. With wrapped patches the calibration still finds the windows of the stand-in there, on all three sets.) So the falling windows need not be a property of the network. On images with a dark rim an interior dictionary can make them out of windows that rise. That the network acts like a circular machine is our assumption here; later chapters have networks to ask.
#
# ### The published windows
#
# The next two figures repeat {numref}`fig-mosaics-windows` on the data sets that the published windows belong to. Both readings of the index are drawn.


# %% tags=["hide-input", "paper-results"]
def published_steps(axis, key):
    """The published windows against noise, in both readings of the index."""
    for index, style, width in (("calibrated", "-", 2.0), ("sampled", ":", 1.5)):
        found = published(f"{key}-resnet-zeros", index)
        ratios = [math.exp(-snr / 2) for snr in found.log_snr]
        label = f"published, {'as calibrated' if index == 'calibrated' else 'as sampled'}"
        axis.step(ratios, found.windows, where="mid", ls=style, color="black", lw=width, label=label)


def stored(r, label):
    """One predicted curve of a paper run."""
    if label == "calibrated":
        return r["calibrated_ratios"], r["window_calibrated"]
    return r["sweep_ratios"], r[f"window_{label.replace(', ', '_').replace(' ', '_').lower()}"]


def paper_windows(labels):
    fig, axes = plot.figure(2, 2, size=(5.4, 5.6))
    for axis, (key, r) in zip(axes.flat, results.items(), strict=False):
        published_steps(axis, key)
        draw_windows(axis, {label: stored(r, label) for label in labels}, labels)
        if "Gaussian bound" in labels:
            few_many = [
                gaussian_edge(torch.tensor(r["gaussian_bounds"]), r["sweep_windows"], r["side"], n)
                for n in (500, 50_000)
            ]
            axis.fill_between(r["sweep_ratios"], *few_many, color=LOOKS["Gaussian bound"][0], alpha=0.25, lw=0)
        axis.set(xlim=(0.06, 12), ylim=(0, 32))
        axis.set_title(TITLES[key], fontsize=11)
    for axis in axes[:, 0]:
        axis.set_ylabel("window, pixels")
    for axis in axes.flat[len(results) :]:
        axis.set_axis_off()
    axes[1, 1].legend(*axes[0, 0].get_legend_handles_labels(), loc="center", frameon=False, fontsize=9)
    return fig


# %% mystnb={"figure": {"name": "fig-mosaics-paper-information", "caption": "Paper profile: windows from the information in them, beside the published ones, which a trained network decided (black). Blue: the mean entropy of the weights has fallen to one half and one tenth of $\\log n$. Pink, dotted: the Gaussian bound on the information exceeds $\\log n$ beyond, for our 300 images; shaded: the same for 500 to 50 000 images. No window above 23 was tried."}, "image": {"alt": "One panel per data set with windows from 3 to about 25 pixels against the noise-to-signal ratio. Black staircases rise from 3 to 15 or 17. Three predicted curves rise as well, the one for a tenth of the entropy lies highest.", "width": "100%"}} tags=["hide-input", "paper-results"]
paper_windows(GROUPS[0]) if results else None

# %% mystnb={"figure": {"name": "fig-mosaics-paper-windows", "caption": "Paper profile: windows from other questions, beside the published ones (black): the least error on validation images, two widths of the Wiener filter, and a calibration against an analytic machine, a mixture of ten Gaussians for the grey images and one Gaussian for CIFAR-10."}, "image": {"alt": "One panel per data set with windows against the noise-to-signal ratio. Black staircases rise from 3 to 15 or 17. Four curves rise with them: the participation width of the Wiener filter is lowest, its threshold width leaves the others behind.", "width": "100%"}} tags=["hide-input", "paper-results"]
paper_windows(GROUPS[1]) if results else None


# %% tags=["hide-input", "paper-results"]
def off_by(r, key, label):
    """Mean absolute distance in pixels of a predicted window from the published one, as calibrated."""
    truth = published(f"{key}-resnet-zeros", "calibrated")
    pairs = [(w, truth.at(-2 * math.log(s))) for s, w in zip(*stored(r, label), strict=True) if s < 12]
    return sum(abs(w - v) for w, v in pairs) / len(pairs)


lines = ["| distance from the published window, pixels | " + " | ".join(TITLES[k] for k in results) + " |"]
lines.append("|---" * (len(results) + 1) + "|")
for label in LOOKS:
    lines.append(f"| {label} | " + " | ".join(f"{off_by(r, k, label):.1f}" for k, r in results.items()) + " |")
for end, pick in (("least", min), ("most", max)):
    lines.append(
        f"| entropy / log n at the published window, {end} | "
        + " | ".join(f"{pick(r['share_in_use']):.2f}" for r in results.values())
        + " |"
    )
Markdown("\n".join(lines)) if results else None

# %% [markdown]
# On all three sets the windows of half the entropy, of the Gaussian bound and of the least error rise with the published ones, and the table says how far they are from them on average. At the highest noise most go on to 23, the largest window that we tried, where the published tables level off at 15 or 17; the field of view of those networks is 17 pixels. Only the least error on CIFAR-10 ends at 17, too. On MNIST half of the entropy starts too high. Black windows repeat, and their entropy stays, however little the noise ({ref}`ex-mosaics-duplicates`). A tenth of the entropy asks for larger windows than the published ones, on MNIST and Fashion-MNIST by far. The Wiener width by threshold is above the published windows: on CIFAR-10 by little at most levels and by more at the highest noise, far on the other two sets, where the threshold is ten times smaller. The participation width is too small on all. In the means of the table the highest noise weighs most. There the Gaussian bound is too large by several pixels, so on average it is hardly closer than the better of the two Wiener widths, except on MNIST. The best answer on CIFAR-10 is the least error, and with it the calibration: at nearly every level either finds the published window or the next one.
#
# Read the figures with the sizes in mind. The published windows belong to dictionaries of 5000 to 60 000 images and to one class where the network knows the class. Our equivariant local machine has 300 images of all classes together here, and 200 in the calibration. With ten times as many, $\log n$ grows by 2.3 nats and the edges move to larger windows; for the Gaussian bound this is drawn, since it takes no machine at all. The covariance of the patches is that of all classes together.
#
# ### New images
#
# The same comparison as in {numref}`fig-mosaics-heldout`. The machines that can afford it have all training images (ideal, Gaussian, mixture), the equivariant local one has the fewest. On MNIST that is enough to be well below one Gaussian and the mixture at low and medium noise. On Fashion-MNIST it is below one Gaussian, too, except at the highest noise; it is about as good as the mixture at low noise and worse above. On CIFAR-10 it is about as good as one Gaussian that has all images, except at the lowest noise, and better by far than the ideal machine that has them, too, until they meet at the highest noise. On the grey images the ideal machine is the better one at the two highest levels. Photographs at small noise are what one Gaussian is good at ({ref}`mixtures <mixtures>`). All machines denoise the same images with the same noise; but these are six for each set, so differences of a tenth mean little.

# %% mystnb={"figure": {"name": "fig-mosaics-paper-heldout", "caption": "Paper profile: denoising error on new images relative to one Gaussian. The ideal machine has all training images, the local machine 5000, the equivariant local one 300. Means over six new images; the windows of the local machines were chosen on four others."}, "image": {"alt": "One panel per data set with curves of relative error against the noise-to-signal ratio. The ideal machine lies far above one at low noise and falls; the equivariant local machine lies near or below one, except on CIFAR-10 at the lowest noise, where it is about two.", "width": "100%"}} tags=["hide-input", "paper-results"]
fig = None
if results:
    fig, axes = plot.figure(2, 2, size=(5.4, 5.6), sharey=True)
    for axis, (key, r) in zip(axes.flat, results.items(), strict=False):
        names = [k for k in [*HUES, "Gaussian"] if f"error_{k}_held_out".replace(" ", "_") in r]
        draw_errors(axis, r["sweep_ratios"], {k: r[f"error_{k}_held_out".replace(" ", "_")] for k in names})
        axis.set_title(TITLES[key], fontsize=11)
    for axis in axes[:, 0]:
        axis.set_ylabel("error / one Gaussian's")
    for axis in axes.flat[len(results) :]:
        axis.set_axis_off()
    axes[1, 1].legend(*axes[0, 0].get_legend_handles_labels(), loc="center", frameon=False, fontsize=10)
fig

# %% tags=["hide-input", "paper-results"]
ROWS = {
    "settled pixels at t = 0.05, %": ("early_share", ".0f"),
    "settled pixels at t = 0.05/8, %": ("settled_share", ".0f"),
    "source images, median": ("sources_median", ".0f"),
    "mean tile, settled pixels": ("tile_mean", ".1f"),
    "decided, of those not settled, %": ("decided_share", ".0f"),
    "consistent pixels, as published, %": ("published_consistent_zeros", ".0f"),
    "consistent pixels, late and fine end, %": ("consistent_end_80_fine_end", ".0f"),
    "mean deviation": ("published_deviation_zeros", ".3f"),
    "mean grey, training": ("bright_training", ".2f"),
    "mean grey, circular": ("bright_circular", ".2f"),
    "mean grey, interior": ("bright_interior", ".2f"),
    "index off by one, r": ("ablation_index", ".3f"),
    "start at t = 1, r": ("ablation_start", ".3f"),
    "start at t = 1, mean grey": ("start_shift", "+.3f"),
    "37 levels, r": ("ablation_steps", ".3f"),
}
lines = ["| | " + " | ".join(TITLES[k] for k in results) + " |", "|---" * (len(results) + 1) + "|"]
for label, (field, spec) in ROWS.items():
    cells = []
    for r in results.values():
        value = r[field][0] if isinstance(r[field], list) else r[field]
        cells.append(format(value, spec))
    lines.append(f"| {label} | " + " | ".join(cells) + " |")
Markdown("\n".join(lines)) if results else None

# %% [markdown]
# The rows of consistent pixels are strict: half a grey level of 255. Of the pixels that have not settled, nearly all on MNIST are decided in value, and few on CIFAR-10, where there are few such pixels: the background of digits repeats, photographs hardly do. A start at $t=1$ darkens the images of the two sets with a dark mean, and hardly those of CIFAR-10.
#
# ## Exercises
#
# :::{exercise} The automaton at the end
# :label: ex-mosaics-automaton
#
# With $\tau=-\log\sigma$ the flow {eq}`eq-mosaics-flow` is $dx/d\tau=D(x)-x$. As $\sigma\to0$ the denoiser becomes $c(x)$: at every pixel the centre of the nearest patch. Iterate $x\mapsto c(x)$ from samples, which is this flow with large steps. Mosaics are its fixed points. Does the iteration come to rest on one?
# :::

# %% [markdown]
# :::{solution-start} ex-mosaics-automaton
# :class: dropdown
# :::
#
# All pixels jump to the centres of their nearest patches at once, and the windows change under their feet. After one round most images still change, and with every round fewer do. Most come to rest, on a mosaic. A few never do: they return to an earlier image after a few rounds, and go round for ever. So this map has cycles. The flow itself moves in small steps, and need not follow it there; but nothing in the argument that mosaics are the only ends says that an end is reached. (The distance of *all* windows to their nearest patches would be a natural quantity to decrease. But a jump makes a pixel fit its own patch, not the windows of its neighbours.)

# %%
store = small[:300]
rule = EquivariantLocal.fit(store, 3, "zeros")


def nearest_centres(x):
    found = rule.posterior(x, Noise(1.0, 1e-3))
    return store[found.image, :, found.row, found.column].movedim(-1, 1)


state, moving = sample(rule, torch.randn(96, 1, 8, 8, generator=torch.Generator().manual_seed(1)), grid), []
for _ in range(60):  # images at rest are set aside
    after = nearest_centres(state)
    still = (after == state).flatten(1).all(1)
    state = after[~still]
    moving.append(len(state))
assert moving[0] > 90 > 30 > moving[15] > moving[-1] > 0
circling, returned = state, torch.zeros(len(state), dtype=torch.bool)
for _ in range(12):
    circling = nearest_centres(circling)
    returned |= (circling == state).flatten(1).all(1)
assert returned.all()

# %% [markdown]
# :::{solution-end}
# :::

# %% [markdown]
# :::{exercise} The entropy that is left
# :label: ex-mosaics-duplicates
#
# Let the patch $q$ occur $m(q)$ times in the dictionary. Show that as $\sigma\to0$ the mean entropy of the weights tends to $\E\log m(q_J)$, with $J$ uniform. What does $I_n$ tend to? Check it on digits with window 3.
# :::

# %% [markdown]
# :::{solution-start} ex-mosaics-duplicates
# :class: dropdown
# :::
#
# At small noise the observation tells the patch, and nothing about which of its copies it is. The weights become uniform on $m(q_J)$ copies, with entropy $\log m(q_J)$. (The entropy is bounded by $\log n$, so the means converge too.) Then $I_n\to\log n-\E\log m$, which is the entropy of the law of the *different* patches. What can be memorised is this, not $\log n$.

# %%
store = small[:300]
patches, copies = windows_of(store, 3).unique(dim=0, return_counts=True)
floor = (copies * copies.double().log()).sum() / copies.sum()
found = EquivariantLocal.fit(store, 3, "zeros").posterior(store, Noise(1.0, 1e-3))
assert_close(found.entropy[:, 1:-1, 1:-1].mean(), floor.float(), rtol=1e-3, atol=1e-3)

# %% [markdown]
# :::{solution-end}
# :::

# %% [markdown]
# :::{exercise} Patches are not independent
# :label: ex-mosaics-units
#
# In {eq}`eq-mosaics-delta` the units are images. Suppose that one drew patches instead, or thought so: replace $\sum_ir_i^2$ by the sum of the squares of the contributions of single patches. Which of the two is larger on digits, and why?
# :::

# %% [markdown]
# :::{solution-start} ex-mosaics-units
# :class: dropdown
# :::
#
# The contribution of an image is the sum of those of its patches. If these were uncorrelated, both sums would agree. At low noise hardly more than one patch of an image counts, and they do agree. At the highest noise all patches count alike, and the ratio is the number of places times the variance of the mean of an image over that of a pixel. Digits all have much the same share of ink: their means vary no more than those of random sets of pixels, and the ratio is near one. Photographs are dark or bright as a whole. There patches as units promise an error that is too small by far.

# %%
photos = datasets.load("photos").x0[::40][:300]
units = {}
for label, store in {"digits": small[:1200], "photos": photos}.items():
    for t in (0.05, 0.95):
        n = cosine_legacy(t)
        x = n.add(
            store[-3:].double(), torch.randn(3, *store.shape[1:], generator=torch.Generator().manual_seed(2)).double()
        )
        patches = windows_of(store, 3)
        weights = log_likelihoods(windows_of(x, 3)[::4] / n.alpha, patches, n.sigma / n.alpha).softmax(1)
        each = weights * (patches[:, 4] - (weights @ patches[:, 4])[:, None])
        by_image = each.reshape(len(each), len(store), -1).sum(2)
        units[label, t] = (by_image.square().sum() / each.square().sum()).item()
assert 0.9 < units["digits", 0.05] < 1.1
assert 0.8 < units["digits", 0.95] < 1.2
assert units["photos", 0.95] > 3

# %% [markdown]
# :::{solution-end}
# :::

# %% [markdown]
# :::{exercise} Correlations obey a triangle inequality
# :label: ex-mosaics-triangle
#
# Three images have the correlations $a$ and $b$ of the first with the second and with the third. Show that the correlation of the second and the third lies in $ab\pm\sqrt{(1-a^2)(1-b^2)}$, and that each value in this range occurs. A machine has $r=0.95$ with a network. What is the least $r$ of two such machines?
# :::
#
# :::{solution} ex-mosaics-triangle
# :class: dropdown
#
# Subtract the mean from each image and divide by the norm: three unit vectors $e,f,g$ with $e\cdot f=a$ and $e\cdot g=b$. Write $f=ae+\sqrt{1-a^2}\,f'$ and $g=be+\sqrt{1-b^2}\,g'$ with unit vectors $f',g'$ orthogonal to $e$. Then $f\cdot g=ab+\sqrt{(1-a^2)(1-b^2)}\,f'\cdot g'$, and $f'\cdot g'$ takes every value from $-1$ to $1$ (in at least three dimensions). In angles: the third angle lies between the difference and the sum of the other two. For $a=b=0.95$ the least value is $2\cdot0.95^2-1=0.805$.
# :::
#
# :::{admonition} Limits and open questions
# {prf:ref}`thm-mosaics-limit` assumes that the flow converges. We have no proof that it does, and {ref}`ex-mosaics-automaton` shows that its discrete caricature need not. Which mosaic is reached, and with what probability, is open.
#
# {prf:ref}`prop-mosaics-bracket` bounds the information in one window. An image has many windows that overlap, and memorising all of them is not memorising the image: {numref}`fig-mosaics-provenance` shows samples most of whose pixels have settled, on dozens of training images. What the edge of memorisation means for whole images made by local machines is a question about how pieces fit, not about single pieces.
#
# The bounds meet only where the dictionary is large for the window. At low noise and large windows our bounds leave the information open by a factor of up to eight. Better densities of patches would lower the upper bound.
#
# That the least error, the half entropy, the Gaussian bound and a calibration pass the same window at nearly the same noise was found on digits, with three windows to choose from. It is not a theorem. On the full data sets the choice is finer, and the dictionaries of the equivariant local machine are small there.
#
# All of this asks what the best window is, or where a posterior condenses. Whether a *network* uses that window, pixel by pixel and image by image, has to be asked of a network.
# :::
