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
# # What the weights are, and what they are worth
#
# A distilled image stands for many images, and not every one for as many. Its *weight* says for how many: the share of
# its class that lies nearest to its point. Training multiplies its loss by it. This notebook looks at the weights of
# a small distilled set, at what they do to the distance and to the gradients, at an ablation (with the weights and
# without, for three kinds of points), and at the report that ddoq writes of a run.
#
# The set is made here, in seconds, of scikit-learn's digits. The ablation's trainings took minutes: they are read from
# `benchmarks/results/ablation.json`, which `benchmarks/ablation.py` makes.

# %%
import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import ddoq
from ddoq.cli.demo import digits
from ddoq.evaluation.gradients import gradient_agreement
from ddoq.evaluation.table import Evaluation
from ddoq.reporting.findings import spreads
from ddoq.reporting.latent_map import latent_map
from ddoq.storage.run import Run

plt.rcParams.update({"figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False, "font.size": 9})
BLUE, ORANGE, GREEN, GREY = "#2a6f97", "#e07a1f", "#3a7d44", "#8a8a8a"

# %% [markdown]
# ## The weights of a distilled set
#
# Ten images per digit, quantised in pixels and decoded as they are (`codec="identity"`), twice: with Lloyd's algorithm
# and single-point moves, and with the minibatch k-means of D4M.

# %%
train_set, test_set = digits()
folder = Path(tempfile.mkdtemp())
runs = {"lloyd": folder / "lloyd", "minibatch": folder / "minibatch"}
sets = {
    name: ddoq.distill(train_set, run, ipc=10, codec="identity", synthesis="decode", quantizer=name, progress=False)
    for name, run in runs.items()
}
print(sets["lloyd"])

# %% [markdown]
# The images of three digits, the heaviest first. A weight of 1 is the average, 2 stands for twice as many images. As in
# the talk's figure of distilled jeeps, nothing in an image tells whether it is heavy: the weight is a fact about the
# data around it.

# %%
small = sets["lloyd"]
figure, axes = plt.subplots(3, 10, figsize=(9, 3.5))
for line, digit in zip(axes, (0, 3, 4), strict=True):
    own = np.flatnonzero(small.labels.numpy() == digit)
    for axis, i in zip(line, own[np.argsort(-small.weights.numpy()[own])], strict=True):
        axis.imshow(small.images[i, 0], cmap="gray", vmin=0, vmax=255)
        axis.set_title(f"{float(small.weights[i]):.2f}", fontsize=8, pad=3)
        axis.axis("off")
figure.tight_layout()

# %% [markdown]
# How unequal they are is said by the *coefficient of variation*, deviation over mean: 0 where all weigh the same.

# %%
figure, axis = plt.subplots(figsize=(7.5, 3.2))
for shift, (name, colour) in zip((-0.12, 0.12), (("lloyd", BLUE), ("minibatch", ORANGE)), strict=True):
    found = spreads(sets[name])
    for c, spread in enumerate(found):
        axis.scatter(np.full(10, c + shift), spread.weights, s=14, color=colour, alpha=0.7, lw=0)
    mean = np.mean([spread.variation for spread in found])
    axis.scatter([], [], color=colour, label=f"{name}: coefficient of variation {mean:.2f}")
axis.axhline(1, color=GREY, lw=0.8)
axis.set(xlabel="digit", ylabel="weight", xticks=range(10))
axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 1.16), ncols=2)
figure.tight_layout()

# %% [markdown]
# Where the weights come from: one digit's images in the plane of their two largest principal components, and the
# points, with areas as their weights. A point among many images is heavy. (Two components hold a part of the variance:
# what looks near may be far apart.)

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 3.8))
for axis, (name, colour) in zip(axes, (("lloyd", BLUE), ("minibatch", ORANGE)), strict=True):
    plane = latent_map(Run.open(runs[name]), range(1, 2))
    axis.scatter(*plane.latents[0].T, s=7, color=GREY, alpha=0.6, lw=0)
    axis.scatter(*plane.points[0].T, s=90 * plane.weights[0], color=colour, ec="white", lw=0.8)
    axis.set_title(f"{name}, digit 1 ({100 * plane.share:.0f} % of the variance)")
    axis.set_box_aspect(1)
    axis.axis("off")
figure.tight_layout()

# %% [markdown]
# ## What they do to the distance
#
# The Wasserstein distance $W_2$ between a class and its points is as small as the points allow when every point carries
# the mass of its cell. With equal weights some mass has to travel.

# %%
print("mean over the digits   weighted   uniform")
for name, run in runs.items():
    rows = {row.weighting: row.mean for row in ddoq.weigh(run, progress=False).rows if row.set == "points"}
    print(f"{name:22} {rows['density']:8.3f}  {rows['uniform']:8.3f}")

# %% [markdown]
# ## What they do to the gradients
#
# Why should a distance matter to a network? Because the gradient of the loss is a mean over the data, and a mean over
# a nearby measure is a similar mean. `gradient_agreement` trains a student on the set and measures on the way
# $|g_\text{full} - g_\text{set}|\,/\,|g_\text{full}|$: at the same moments, for the same student, with the weights and
# without. 0 is the full gradient, 1 as bad as no step.

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True)
for axis, (name, run) in zip(axes, runs.items(), strict=True):
    found = gradient_agreement(run, train_set, epochs=12, every=2, images_per_class=50, progress=False)
    for weighting, colour in (("uniform", ORANGE), ("density", BLUE)):
        axis.plot(found.epochs, found.errors[weighting], "o-", ms=3, color=colour, label=weighting)
    axis.set(title=name, xlabel="epoch", ylim=(0, None))
    print(f"{name}: {found}")
axes[0].set_ylabel("error of the gradient")
axes[0].legend(frameon=False)
figure.tight_layout()

# %% [markdown]
# ## What they do to students: an ablation
#
# Three kinds of points times three kinds of weights. Every cell has three distillations (other seeds of the quantiser)
# with two students each, and the comparison is *paired*: the same images and the same student, with the weights and
# without. The interval is over distillations (Student's t), because two students of one distillation share its images.

# %%
here = Path.cwd() if (Path.cwd() / "benchmarks").exists() else Path.cwd().parent
stored = json.loads((here / "benchmarks" / "results" / "ablation.json").read_text())
table = Evaluation.from_json(stored)
print(table)

# %%
figure, axis = plt.subplots(figsize=(7, 2.6))
compared = [(row, table.difference(row)) for row in table.rows if row.weighting in ("density", "sqrt")]
for place, (row, difference) in enumerate(reversed(compared)):
    colour = BLUE if row.weighting == "density" else GREEN
    axis.plot(difference.interval, [place, place], color=colour, lw=3, alpha=0.4, solid_capstyle="round")
    axis.scatter(difference.values, [place] * difference.n, s=14, color=colour)
    axis.plot(difference.mean, place, "|", color="black", ms=12, mew=2)
axis.axvline(0, color=GREY, lw=0.8)
axis.set_yticks(range(len(compared)), [f"{row.set}, {row.weighting}" for row, _ in reversed(compared)])
axis.set_xlabel("accuracy minus that with uniform weights, percentage points (95 % interval)")
figure.tight_layout()

# %% [markdown]
# Beside it what the theory speaks of, for the same points:

# %%
print(f"{'':18}{'coefficient':>12}{'W2':>22}{'gradient error':>24}")
print(f"{'':18}{'of variation':>12}{'weighted':>12}{'uniform':>10}{'weighted':>14}{'uniform':>10}")
for name, points in stored["points"].items():
    variation = np.mean([each["variation"] for each in points])
    w2 = {weighting: np.mean([each["w2"][weighting] for each in points]) for weighting in ("density", "uniform")}
    error = {w: np.mean([each["gradient_errors"][w] for each in points]) for w in ("density", "uniform")}
    print(
        f"{name:18}{variation:12.2f}{w2['density']:12.3f}{w2['uniform']:10.3f}"
        f"{error['density']:14.3f}{error['uniform']:10.3f}"
    )
print(f"W2 of one point per class: {stored['one_point_w2']:.3f}")

# %%
clear = [f"{row.set}, {row.weighting}" for row, d in compared if d.interval[0] * d.interval[1] > 0]
print(f"intervals that leave out zero: {len(clear)} of {len(compared)} {clear or ''}")

# %% [markdown]
# The distance and the error of the gradient need no training, or one, to tell the weights apart. Accuracies need many:
# where an interval contains zero, three distillations do not say whether the weights help. On digits this small even
# random images come within a few points, and little is left to cure. `docs/results.md` has other data.
#
# ## The report
#
# `ddoq.report(run)` (or `ddoq report run`) writes all of this for a run as one HTML page, which needs no network and
# can be sent to anybody: images with weights, the coefficients of variation, distances, the map, accuracies if
# `ddoq.evaluate` has been there, and the call that makes the run again.

# %%
ddoq.evaluate(runs["lloyd"], test_set, data=train_set, seeds=1, epochs=5, batch_size=10, progress=False)
page = ddoq.report(runs["lloyd"])
print(f"{page}: {page.stat().st_size / 1024:.0f} KiB")
