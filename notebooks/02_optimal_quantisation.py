# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Optimal quantisation in pictures
#
# If you know k-means, you know most of this already. k-means puts $k$ points where the mean squared distance of the
# samples to their nearest point is small. *Optimal quantisation* looks at the same points and asks: how well does this
# small set stand for the whole distribution? For that every point carries a **weight**, the share of the distribution
# that lies nearest to it, and the mean squared distance gets two names: the **distortion**, and the square of the
# Wasserstein distance $W_2$ between the data and the weighted points.
#
# Everything here runs in under a minute on small data that are made here or come with scikit-learn.

# %%
import matplotlib.pyplot as plt
import numpy as np
from scipy.spatial import Voronoi, voronoi_plot_2d
from sklearn.datasets import load_digits, make_moons

import ddoq

plt.rcParams.update({"figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False, "font.size": 9})
BLUE, ORANGE, GREY = "#2a6f97", "#e07a1f", "#8a8a8a"
AREA = 1500  # of a disc of weight one, in square points
generator = np.random.default_rng(0)

# %% [markdown]
# ## Points, cells, weights
#
# Three distributions of the plane, each quantised into 24 points. A line separates the *cells*: all samples of a cell
# have the same nearest point. The area of a disc is the weight of its point, the share of the samples in its cell.

# %%
moons, _ = make_moons(4000, noise=0.12, random_state=0)
blobs = np.concatenate(
    [
        generator.normal((-2, 0), 0.9, (2500, 2)),
        generator.normal((2, 1.5), 0.3, (1200, 2)),
        generator.normal((2, -1.5), 0.5, (300, 2)),
    ]
)
measures = {"normal": generator.normal(size=(4000, 2)), "three unequal blobs": blobs, "two moons": moons}


def draw_cells(axis, X, points, weights):
    far = 100 * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])  # so that the cells at the rim are closed, far outside
    cells = Voronoi(np.concatenate([points, far]))
    voronoi_plot_2d(cells, axis, show_points=False, show_vertices=False, line_colors="#444444", line_width=0.8)
    axis.scatter(*X.T, s=2, color=BLUE, alpha=0.35, linewidths=0)
    axis.scatter(*points.T, s=AREA * weights, color=ORANGE, edgecolors="white", linewidths=0.8, zorder=3)
    middle, half = (X.min(axis=0) + X.max(axis=0)) / 2, np.ptp(X, axis=0).max() / 2
    axis.set(xlim=middle[0] + [-half, half], ylim=middle[1] + [-half, half], xticks=[], yticks=[])
    axis.set_aspect("equal")
    axis.spines[["left", "bottom"]].set_visible(False)


figure, axes = plt.subplots(1, 3, figsize=(10, 3.7))
for axis, (name, X) in zip(axes, measures.items(), strict=True):
    q = ddoq.quantize(X, 24, random_state=0)
    draw_cells(axis, X, q.points, q.weights)
    axis.set_title(f"{name}: $W_2$ = {np.sqrt(q.distortion):.3f}")
figure.tight_layout()

# %% [markdown]
# Points gather where the samples are dense, but less than the samples do: a lonely point in the sparse rim has a large
# cell and a small weight. That is why quantised points without their weights misrepresent the data: they make rare
# samples look common.

# %% [markdown]
# ## Weights matter: $W_2$ with and without them
#
# `ddoq.w2(X, points)` is the distance with the weights of the cells, the least that these points can have.
# `ddoq.w2(X, points, weights)` takes any others, and solves the transport problem exactly. Here the weights are
# replaced by $1/k$: for many points on unequal data that costs more than the points had gained.

# %%
numbers = [4, 8, 16, 32]
figure, axes = plt.subplots(1, 3, figsize=(10, 3))
for axis, (name, X) in zip(axes, measures.items(), strict=True):
    subset = X[generator.permutation(len(X))[:1000]]  # exact transport is slow on many samples
    distances = {"random": [], "uniform": [], "weighted": []}
    for k in numbers:
        points, uniform = ddoq.quantize(subset, k, random_state=0).points, np.full(k, 1 / k)
        draws = [subset[generator.choice(len(subset), k, replace=False)] for _ in range(5)]
        distances["random"].append(np.mean([ddoq.w2(subset, drawn, uniform) for drawn in draws]))
        distances["uniform"].append(ddoq.w2(subset, points, uniform))
        distances["weighted"].append(ddoq.w2(subset, points))
    axis.plot(numbers, distances["random"], "s:", color=GREY)
    axis.plot(numbers, distances["uniform"], "o--", color=BLUE)
    axis.plot(numbers, distances["weighted"], "o-", color=ORANGE)
    axis.set(title=name, xlabel="points", xscale="log", xticks=numbers, xticklabels=numbers)
    axis.set_ylim(bottom=0)
    axis.minorticks_off()
axes[0].set_ylabel("$W_2$ to the samples")
figure.legend(
    ["random samples, uniform weights", "quantiser's points, uniform weights", "quantiser's points and weights"],
    loc="lower center",
    ncols=3,
    frameon=False,
)
figure.tight_layout(rect=(0, 0.09, 1, 1))

# %% [markdown]
# ## Algorithm 1: learning from a stream
#
# *Competitive learning* sees one sample at a time and keeps none. The nearest point, the winner, moves a step of size
# $\gamma_i$ towards the sample, and the weights take the same step towards the winner:
#
# $$x_{win} \leftarrow (1-\gamma_i)\,x_{win} + \gamma_i X_i, \qquad w \leftarrow (1-\gamma_i)\,w + \gamma_i\,e_{win}.$$
#
# `OnlineQuantizer` does exactly these steps, in batches of any size. Its `online_weights` (orange) cost nothing, but
# remember where samples fell while the points were still elsewhere. Whoever can read the data again takes the masses of
# the cells instead: `quantization(X).weights` (the black rings).

# %%
X = np.concatenate([blobs[generator.permutation(len(blobs))] for _ in range(5)])
stream = ddoq.OnlineQuantizer(16, step=(16, 2 / 3))
figure, axes = plt.subplots(1, 4, figsize=(11, 3.4))
seen = 0
for axis, upto in zip(axes, (40, 200, 1000, 20000), strict=True):
    stream.update(X[seen:upto])
    seen = upto
    q = stream.quantization(blobs)
    draw_cells(axis, blobs, stream.points, stream.online_weights)
    axis.scatter(*q.points.T, s=AREA * q.weights, facecolors="none", edgecolors="black", linewidths=1, zorder=4)
    error = np.abs(stream.online_weights - q.weights).sum() / 2
    axis.set_title(f"{upto:,} samples\n$W_2$ = {np.sqrt(q.distortion):.3f}, weights {100 * error:.0f} % off")
figure.tight_layout()

# %% [markdown]
# ## Which clock, which step?
#
# The step is $\gamma_i = (1 + i/b)^{-power}$. What does $i$ count? In Algorithm 1 all samples (`clock="global"`);
# in MacQueen's rule, which scikit-learn's `MiniBatchKMeans` follows too, the winner's own wins (`clock="point"`). With
# power 1 a step soon is too small to mend a bad start; with less the points go on moving, and the weights of the global
# clock are mostly noise. `average=True` resolves that: it takes large steps and gives the means over all of them.

# %%
cloud = generator.normal(size=(30_000, 2))
least = min(ddoq.quantize(cloud[:4000], 20, random_state=seed).distortion for seed in range(3))
settings = {
    "global, power 1": {"clock": "global", "step": (20, 1)},
    "global, power 1/2": {"clock": "global", "step": (20, 1 / 2)},
    "global, averaged": {"clock": "global", "average": True},
    "point, power 1": {"clock": "point", "step": (1, 1)},
    "point, power 1/2": {"clock": "point", "step": (1, 1 / 2)},
    "point, averaged": {"clock": "point", "average": True},
}
cuts = np.unique(np.geomspace(100, len(cloud), 14).astype(int))
figure, axes = plt.subplots(1, 2, figsize=(10, 3.4))
for name, options in settings.items():
    curves = np.zeros((2, len(cuts)))
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(len(cloud))
        stream, seen = ddoq.OnlineQuantizer(20, **options), 0
        for i, upto in enumerate(cuts):
            stream.update(cloud[order[seen:upto]])
            seen = upto
            q = stream.quantization(cloud[:10_000])
            curves[:, i] += [q.distortion / 4, np.abs(stream.online_weights - q.weights).sum() / 8]
    colour, dashes = BLUE if "global" in name else ORANGE, {"1": ":", "1/2": "--"}.get(name.split()[-1], "-")
    for axis, curve in zip(axes, curves, strict=True):
        axis.plot(cuts, curve, color=colour, linestyle=dashes, label=name)
axes[0].set(xscale="log", xlabel="samples seen", ylabel="distortion", title="the points", ylim=(0.17, 0.26))
axes[1].set(
    xscale="log", yscale="log", xlabel="samples seen", ylabel="total variation", title="error of the online weights"
)
axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
figure.tight_layout()

# %% [markdown]
# ## Lloyd against Hartigan
#
# Lloyd's iterations, k-means as everybody knows it, stop when every sample is in the cell of its nearest point. In many
# dimensions that happens too soon: a point is the mean of its samples, so each sample pulls *its own* point towards
# itself, and looks nearer to it than it should. Hartigan's moves ask the right question: does the distortion fall if
# one sample changes cells, its effect on both means included? By default (`refine="auto"`) they follow Lloyd where
# there are 15 samples a point or more. With fewer they fit the samples more than the distribution, which only samples
# that were held out can show.

# %%
d, n = 400, 600
centres = generator.normal(size=(40, d))
train, held_out = (centres[generator.integers(40, size=n)] + 3 * generator.normal(size=(n, d)) for _ in range(2))
numbers, gain = [5, 10, 20, 40, 80, 150], np.zeros((2, 6))
for j, k in enumerate(numbers):
    distortions = np.zeros((2, 2))
    for seed in range(4):
        for row, refine in enumerate(("none", "hartigan")):
            points = ddoq.quantize(train, k, refine=refine, random_state=seed).points
            distortions[row] += [ddoq.w2(train, points) ** 2, ddoq.w2(held_out, points) ** 2]
    gain[:, j] = 100 * (distortions[1] / distortions[0] - 1)

figure, axis = plt.subplots(figsize=(6.5, 3.2))
axis.axhline(0, color=GREY, linewidth=0.8)
axis.plot(numbers, gain[0], "o-", color=BLUE, label="on the samples")
axis.plot(numbers, gain[1], "o-", color=ORANGE, label="on held-out samples")
axis.axvline(n / 15, color=GREY, linestyle=":", linewidth=1)
axis.text(n / 15 * 1.04, 2.5, "15 samples a point", color=GREY, fontsize=8)
axis.set(xscale="log", xticks=numbers, xticklabels=numbers, xlabel="points", ylabel="change of distortion, %")
axis.set_title(f"Hartigan's moves after Lloyd: {n} samples, {d} features")
axis.minorticks_off()
axis.legend(frameon=False)
figure.tight_layout()

# %% [markdown]
# ## How many points? The rate-distortion curve
#
# `ddoq.rate_distortion` gives the distortion of every class for many numbers of points in one call. Here are the
# handwritten digits. The zeros look alike, and one point serves them well already; the ones start highest and end among
# the lowest, since they are written in a few distinct ways. No curve has a kink where one could stop for free, but each
# says what more points would buy.

# %%
digits = load_digits()
images, labels = digits.data / 16, digits.target
curve = ddoq.rate_distortion(images, labels, k=[1, 2, 3, 5, 8, 12, 20, 30, 50, 80], random_state=0)
figure, axis = plt.subplots(figsize=(6.5, 3.6))
curve.plot(axis)
axis.set_title("digits: distortion of each class")
figure.tight_layout()

# %% [markdown]
# With a `budget` for all classes together, the points go where they lower the distortion the most: the varied classes
# get more of them than the uniform ones.

# %%
same = ddoq.quantize_classes(images, labels, 10, random_state=0)
shared = ddoq.quantize_classes(images, labels, budget=100, random_state=0)
sizes = np.bincount(labels)
for name, q in (("10 each", same), ("budget=100", shared)):
    print(f"{name:11s} mean distortion {sizes @ q.distortion / len(images):.4f}   points {np.diff(q.offsets).tolist()}")

# %% [markdown]
# ## Points of a class, with their weights
#
# The same in images: the ten points of the ones and of the eights, by weight. These weighted sets are what
# [the first notebook](01_quickstart.ipynb) trains a network on.

# %%
figure, axes = plt.subplots(2, 10, figsize=(10, 2.5))
for row, digit in zip(axes, (1, 8), strict=True):
    q = same[digit]
    for axis, j in zip(row, np.argsort(-q.weights), strict=True):
        axis.imshow(q.points[j].reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        axis.set_title(f"{100 * q.weights[j]:.0f} %", fontsize=9)
        axis.axis("off")
figure.tight_layout()
