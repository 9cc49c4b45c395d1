"""Computes rate-distortion curves: the distortion of each class for many numbers of points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddoq.quantization.options import Form, Init, Options, RandomState, Refine, check_integer
from ddoq.quantization.problem import checked_execution, checked_problem
from ddoq.quantization.samples import as_classes, as_samples
from ddoq.quantization.solve import solve_curves
from ddoq.quantization.starts import streams

LEGEND_ROWS = 20  # of a column


@dataclass(frozen=True)
class RateDistortion:
    """The distortion of C classes at m numbers of points.

    Attributes
    ----------
    classes
        (C,): the distinct labels in sorted order; (None,) without labels.
    k
        (m,) int64: numbers of points, as asked for.
    distortion
        (C, m) float64: weighted mean squared distance to the nearest point, in the data's unit squared.

    Examples
    --------
    >>> import ddoq
    >>> curve = ddoq.rate_distortion([[0.0], [2.0]], k=[1, 2])
    >>> curve.distortion.tolist(), curve.w2.tolist()
    ([[1.0, 0.0]], [[1.0, 0.0]])
    """

    classes: NDArray[Any]
    k: NDArray[np.int64]
    distortion: NDArray[np.float64]

    @property
    def w2(self) -> NDArray[np.float64]:
        """(C, m): 2-Wasserstein distance between the class and its weighted points, in the data's unit."""
        return np.sqrt(self.distortion)

    def plot(self, ax: Any = None) -> Any:
        """Draw a line for each class on log axes of `ax`, or of a new figure; give the axes. Zeros are left out.

        Needs matplotlib, of the extra `report`.
        """
        import matplotlib
        from matplotlib.figure import Figure

        axes = Figure().subplots() if ax is None else ax
        colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(self.classes)))
        order = np.argsort(self.k)
        for name, distortion, colour in zip(self.classes.tolist(), self.distortion, colours, strict=True):
            seen = order[distortion[order] > 0]
            axes.plot(self.k[seen], distortion[seen], color=colour, label=None if name is None else str(name))
        axes.set(xscale="log", yscale="log", xlabel="points per class", ylabel="distortion")
        if len(self.classes) > 1:
            columns = -(-len(self.classes) // LEGEND_ROWS)
            axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small", ncols=columns)
        return axes


def rate_distortion(
    X: ArrayLike,
    y: ArrayLike | None = None,
    k: Sequence[int] = (1, 2, 5, 10, 20, 50),
    *,
    sample_weight: ArrayLike | None = None,
    init: Init = "k-means++",
    n_init: int | Literal["auto"] = "auto",
    refine: Refine = "auto",
    form: Form = "auto",
    max_iter: int = 300,
    tol: float = 1e-4,
    random_state: RandomState | Sequence[np.random.SeedSequence] = None,
    n_threads: int | None = None,
) -> RateDistortion:
    """Distortion of every class for every number of points in k, from one Gram matrix for each class.

    Each value is that of `quantize_classes` with that k and the same seed, whatever other k are asked for, as long as
    `form="auto"` would choose alike and there is no sketch: a class is quantised in the form, and in the sketch, of its
    largest k. Fits find local minima: a curve may rise by a little where k grows by a little.

    Parameters
    ----------
    X, sample_weight, n_init, refine, form, max_iter, tol, n_threads
        As for `quantize_classes`.
    y
        (n,) labels; None: the samples are one class.
    k
        Numbers of points, in any order, each at most the number of distinct rows of every class.
    init
        "k-means++" or "random".
    random_state
        As for `quantize_classes`: class i draws from the i-th child of the seed, anew for each k.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `quantize_classes`.

    Examples
    --------
    >>> import ddoq
    >>> curve = ddoq.rate_distortion([[0.0], [2.0], [5.0], [9.0]], ["a", "a", "b", "b"], [1, 2], random_state=0)
    >>> curve.classes.tolist(), curve.distortion.tolist()
    (['a', 'b'], [[1.0, 0.0], [4.0, 0.0]])
    """
    samples = as_samples(X, halves=True)
    if not isinstance(k, Sequence | np.ndarray) or isinstance(k, str) or len(k) == 0:
        raise TypeError(f"k must be a sequence of at least one number of points, not {k!r}")
    if not isinstance(init, str):
        raise ValueError('init must be "k-means++" or "random": starting points fit one number of points only')
    numbers = np.array([check_integer(number, f"k[{i}]") for i, number in enumerate(k)], dtype=np.int64)
    if y is None:
        classes, class_index = np.array([None]), np.zeros(len(samples), dtype=np.int64)
    else:
        classes, class_index = as_classes(y, len(samples))
    options = Options(init=init, n_init=n_init, refine=refine, form=form, max_iter=max_iter, tol=tol)
    execution = checked_execution(n_threads)
    seeds, largest = streams(random_state, len(classes)), np.full(len(classes), numbers.max())
    problem = checked_problem(samples, class_index, classes, largest, seeds, sample_weight, options, execution)
    curves = solve_curves(problem, [numbers] * len(classes), options, execution)
    return RateDistortion(classes, numbers, np.stack(curves))
