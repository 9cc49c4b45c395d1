"""Optimal quantisation of samples, class by class: checks and defaults around the C core, which does the arithmetic.

k points and the masses of their Voronoi cells that (locally) minimise the distortion, the weighted mean squared
distance of the samples to their nearest points: the squared 2-Wasserstein distance between the data and the weighted
points. Greedy k-means++ start, Lloyd's iterations to the fixed point of the labels, then single-point (Hartigan) moves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddoq.machine import backend
from ddoq.quantization.budget import convex_curve, grid, share
from ddoq.quantization.checks import (
    SKETCH,
    STREAMING,
    as_classes,
    check_finite,
    check_integer,
    check_memory,
    check_number_of_points,
    check_sample_weight,
    check_starts,
    check_tolerance,
    count_distinct,
    real_type,
)
from ddoq.quantization.forms import Form, Refine, curve_forms, forms_of
from ddoq.quantization.gpu import DeviceSamples, Place, placed, quantize_on_gpu
from ddoq.quantization.one_pass import label_left_out, one_pass
from ddoq.quantization.starts import Init, RandomState, starts, streams

Clock = Literal["global", "point"]
Method = Literal["lloyd", "clvq", "minibatch"]
Progress = Callable[[int], None]

# In Gram form starts are cheap beside the matrix, the cheaper the fewer points, and the best of several is lower where
# the data have clusters. In a sketch seeds are exchanged, which lowers it more than further starts.
STARTS, STARTS_OF_FEW, FEW_POINTS = 4, 8, 16
STARTS_IN_SKETCH, STARTS_IN_SKETCH_OF_FEW = 1, 4


@dataclass(frozen=True)
class Quantization:
    """A weighted set of points that stands for the samples it was made from.

    Attributes
    ----------
    points
        (k, d), the samples' float32 or float64: the weighted mean of each cell.
    weights
        (k,) float64: mass of each cell over the whole mass; they sum to one.
    counts
        (k,) int64: samples of positive weight in each cell.
    labels
        (n,) int64: index of each sample's nearest point.
    distortion
        Weighted mean squared distance to the nearest point: the squared 2-Wasserstein distance.
    n_iter
        Lloyd iterations of the restart that was kept.

    Examples
    --------
    >>> import ddoq
    >>> pair = ddoq.quantize([[0.0], [1.0], [2.0], [9.0]], 2, random_state=0)
    >>> sorted(zip(pair.points[:, 0].tolist(), pair.weights.tolist()))
    [(1.0, 0.75), (9.0, 0.25)]
    """

    points: NDArray[Any]
    weights: NDArray[np.float64]
    counts: NDArray[np.int64]
    labels: NDArray[np.int64]
    distortion: float
    n_iter: int


@dataclass(frozen=True)
class ClassQuantization:
    """The quantisations of C classes side by side, in the sorted order of their labels; `[i]` is the one of class i.

    Attributes
    ----------
    classes
        (C,): the distinct labels in sorted order.
    class_index
        (n,) int64: index of each sample's class in `classes`.
    points
        (K, d): the points of all classes, class by class.
    weights, counts
        (K,): of each point, within its class: the weights of a class sum to one.
    offsets
        (C + 1,) int64: class i has the points offsets[i] to offsets[i + 1].
    labels
        (n,) int64: index of each sample's nearest point within its class.
    distortion, n_iter
        (C,): of each class.

    Examples
    --------
    >>> import ddoq
    >>> both = ddoq.quantize_classes([[0.0], [2.0], [5.0], [5.0]], ["cat", "cat", "dog", "dog"], 1)
    >>> both.points.tolist(), both.distortion.tolist(), both[1].counts.tolist()
    ([[1.0], [5.0]], [1.0, 0.0], [2])
    """

    classes: NDArray[Any]
    class_index: NDArray[np.int64]
    points: NDArray[Any]
    weights: NDArray[np.float64]
    counts: NDArray[np.int64]
    offsets: NDArray[np.int64]
    labels: NDArray[np.int64]
    distortion: NDArray[np.float64]
    n_iter: NDArray[np.int64]

    def __len__(self) -> int:
        """Give the number of classes."""
        return len(self.classes)

    def __getitem__(self, i: int) -> Quantization:
        """Give the quantisation of the i-th class; its labels are those of the class's samples, in the data's order."""
        i = range(len(self))[i]
        part = slice(self.offsets[i], self.offsets[i + 1])
        return Quantization(
            points=self.points[part],
            weights=self.weights[part],
            counts=self.counts[part],
            labels=self.labels[self.class_index == i],
            distortion=float(self.distortion[i]),
            n_iter=int(self.n_iter[i]),
        )


def quantize(
    X: ArrayLike,
    k: int,
    *,
    method: Method = "lloyd",
    step: tuple[float, float] | None = None,
    clock: Clock = "global",
    average: bool = False,
    sample_weight: ArrayLike | None = None,
    init: Init = "k-means++",
    n_init: int | Literal["auto"] = "auto",
    refine: Refine = "auto",
    form: Form = "auto",
    max_iter: int = 300,
    tol: float = 1e-4,
    progress: Progress | None = None,
    random_state: RandomState = None,
    n_threads: int | None = None,
    device: str = "cpu",
) -> Quantization:
    """Quantise the samples into k weighted points.

    Parameters
    ----------
    X
        (n, d) samples. C-ordered float16, float32, float64 and torch's bfloat16, memory-mapped too, are not copied;
        other layouts are, and integers, which become float32. Points of halves are float32, and the result has the
        bits that the samples in float32 would give.
    k
        Number of points, at most the number of distinct rows.
    method
        "lloyd"; "clvq": one pass of `OnlineQuantizer` over the shuffled samples; "minibatch": scikit-learn's
        MiniBatchKMeans in D4M's order (`ddoq.quantization.minibatch`). The last two look at each sample once before the
        full assignment that gives the weights; `n_iter` is 1, a point may end without samples (weight zero), and
        sample_weight, init, n_init, refine, form, max_iter and tol are refused.
    step, clock, average
        Of "clvq" alone, as for `OnlineQuantizer`: (b, power) of the step (1 + i / b)^-power, what i counts, and whether
        the points are the means of those of all steps.
    sample_weight
        (n,), not negative; None: all one. Samples of weight zero take no part and are labelled at the end.
    init
        "k-means++": greedy, as in scikit-learn; "random": k distinct samples; or the (k, d) starting points themselves.
    n_init
        Starts, of which the one of lowest distortion is kept, before single-point moves. "auto": in Gram form,
        which makes them nearly free, 8 for k <= 16 and 4 for more, but 4 and 1 of "k-means++" in a sketch (see refine);
        1 in streaming form.
    refine
        "hartigan": after Lloyd, move single samples so long as the distortion falls; "none": Lloyd alone, as
        scikit-learn; "auto": "hartigan" where there are at least 15 samples a point, since it overfits on fewer, and,
        where d >= 1,024, n >= 512 and k <= 64, from a start found faster: in a random sketch of 640 (k <= 16) or 512
        features of 600 samples and 4 a point more, where "k-means++" then tries as many samples again as seeds, each in
        place of the seed that is missed least. Samples are then moved in all features, and points, labels and weights
        taken there. In streaming form there are no moves: "auto" is "none".
    form
        "gram": the products of all pairs of samples once, memory n^2, and then iterations that do not depend on d;
        "streaming": iterations over a packed copy of the samples with all threads, memory n d; "auto": streaming above
        4,096 samples, but above 16,384 where "auto" refines and there are at most 100 samples a point.
    max_iter
        Most Lloyd iterations of a start. A fit that it or `tol` stops may leave a point without samples (weight zero).
    tol
        Of the streaming form, as in scikit-learn: it also stops where the squares of the points' shifts sum to at most
        tol times the mean of the features' variances. The Gram form stops where the labels stay, as does tol=0.
    progress
        Called with the number of finished classes about every 50 ms; an exception from it stops the work.
    random_state
        Seed: an integer or SeedSequence for repeatable results; a Generator or RandomState is drawn from; None: fresh.
    n_threads
        Threads; None: as many as the process may use. The result has the same bits for any number. Not of "minibatch":
        scikit-learn takes all threads of OpenMP and BLAS, and its bits may depend on them.
    device
        "cpu"; "cuda" or "cuda:1": an NVIDIA GPU (see `ddoq.cuda.why_not`), from the same random numbers; "auto": the
        GPU that X is on, if it is on one. On a GPU X is float16, bfloat16 or float32, in host memory (copied while the
        GPU works) or, C-ordered and not copied, on the GPU, as torch's tensor or anything with DLPack; every class is
        in Gram form, "auto" refines without a sketch, and only "lloyd" runs there. Points of torch's tensors on a GPU
        are a tensor beside them; all else is NumPy's.

    Raises
    ------
    ValueError
        On wrong shapes or values, NaN or infinity (naming the row), or k above the number of distinct rows.
    TypeError
        On data that are not real numbers.
    MemoryError
        If the (n, n) Gram matrix or the copy of the samples does not fit; the message says its size and what to do.
    RuntimeError
        If a GPU is asked for that cannot be used; the message says why.

    Examples
    --------
    >>> import ddoq
    >>> X = [[0.0], [1.0], [2.0], [10.0]]
    >>> q = ddoq.quantize(X, 2, sample_weight=[1, 1, 2, 4], random_state=0)
    >>> sorted(zip(q.points[:, 0].tolist(), q.weights.tolist()))
    [(1.25, 0.5), (10.0, 0.5)]
    >>> q.distortion * 32
    11.0
    """
    samples, place = placed(X, device)
    result = _quantize(
        samples,
        np.zeros(len(samples), dtype=np.int64),
        np.array([None]),
        np.array([check_integer(k, "k")]),
        streams(random_state, 1),
        method=method,
        step=step,
        clock=clock,
        average=average,
        sample_weight=sample_weight,
        init=init,
        n_init=n_init,
        refine=refine,
        form=form,
        max_iter=max_iter,
        tol=tol,
        progress=progress,
        n_threads=n_threads,
        place=place,
    )
    return result[0]


def quantize_classes(
    X: ArrayLike,
    y: ArrayLike,
    k: int | Sequence[int] | None = None,
    *,
    budget: int | None = None,
    method: Method = "lloyd",
    step: tuple[float, float] | None = None,
    clock: Clock = "global",
    average: bool = False,
    sample_weight: ArrayLike | None = None,
    init: Init = "k-means++",
    n_init: int | Literal["auto"] = "auto",
    refine: Refine = "auto",
    form: Form = "auto",
    max_iter: int = 300,
    tol: float = 1e-4,
    progress: Progress | None = None,
    random_state: RandomState | Sequence[np.random.SeedSequence] = None,
    n_threads: int | None = None,
    device: str = "cpu",
) -> ClassQuantization:
    """Quantise every class of the samples into weighted points of its own, classes side by side.

    Parameters
    ----------
    X
        (n, d) samples, as for `quantize`. Classes in streaming form have all threads one after the other; the others
        run side by side, one (n_c, n_c) Gram matrix per thread.
    y
        (n,) labels of any type that sorts; the classes are its distinct values in sorted order.
    k
        Points per class: one number for all, or a sequence with one for each class in sorted order.
    budget
        Instead of k: points in all, shared out over the classes by their rate-distortion curves so that the sum of
        mass times distortion falls the most, at least one each. The curves are measured at numbers of points in steps
        of about the square root of two, from one Gram matrix a class; needs "k-means++" or "random" as init.
    init
        As for `quantize`; starting points are (K, d), class by class.
    random_state
        As for `quantize`: class i draws from the i-th child of the seed. Or a sequence with the SeedSequence of each
        class: a group of classes then gives the same result as within the whole.
    method, step, clock, average, sample_weight, n_init, refine, form, max_iter, tol, progress, n_threads, device
        As for `quantize`. A budget needs the samples in host memory.

    Raises
    ------
    ValueError, TypeError, MemoryError, RuntimeError
        As `quantize`, naming the class; ValueError for a budget below one point a class or above all distinct rows.

    Examples
    --------
    >>> import ddoq
    >>> X = [[0.0], [2.0], [7.0], [5.0], [5.0]]
    >>> q = ddoq.quantize_classes(X, ["b", "b", "b", "a", "a"], [1, 2], random_state=0)
    >>> q.classes.tolist(), q.offsets.tolist()
    (['a', 'b'], [0, 1, 3])
    >>> q[0].points.tolist(), sorted(q[1].points.tolist())
    ([[5.0]], [[1.0], [7.0]])
    >>> ddoq.quantize_classes(X, ["b", "b", "b", "a", "a"], budget=3, random_state=0).offsets.tolist()
    [0, 1, 3]
    """
    samples, place = placed(X, device)
    classes, class_index = as_classes(y, len(samples))
    seeds = streams(random_state, len(classes))
    if (k is None) == (budget is None):
        raise TypeError("give either k or budget")
    if budget is None:
        numbers = _points_per_class(k, len(classes))
    else:
        numbers = _share_budget(
            samples,
            class_index,
            classes,
            check_integer(budget, "budget"),
            seeds,
            sample_weight=sample_weight,
            init=init,
            n_init=n_init,
            refine=refine,
            form=form,
            max_iter=max_iter,
            tol=tol,
            n_threads=n_threads,
            place=place,
        )
    return _quantize(
        samples,
        class_index,
        classes,
        numbers,
        seeds,
        method=method,
        step=step,
        clock=clock,
        average=average,
        sample_weight=sample_weight,
        init=init,
        n_init=n_init,
        refine=refine,
        form=form,
        max_iter=max_iter,
        tol=tol,
        progress=progress,
        n_threads=n_threads,
        place=place,
    )


def _quantize(
    X: NDArray[Any] | DeviceSamples,
    class_index: NDArray[np.int64],
    classes: NDArray[Any],
    k: NDArray[np.int64],
    seeds: list[np.random.SeedSequence],
    *,
    method: Method,
    sample_weight: ArrayLike | None,
    init: Init,
    n_init: int | Literal["auto"],
    refine: Refine,
    form: Form,
    max_iter: int,
    tol: float,
    progress: Progress | None,
    n_threads: int | None,
    step: tuple[float, float] | None = None,
    clock: Clock = "global",
    average: bool = False,
    repeats: NDArray[np.int64] | None = None,
    place: Place | None = None,
) -> ClassQuantization:
    n_init, max_iter = check_starts(n_init), check_integer(max_iter, "max_iter")
    if refine not in ("auto", "hartigan", "none"):
        raise ValueError(f'refine must be "auto", "hartigan" or "none", not {refine!r}')
    if form not in ("auto", "gram", "streaming"):
        raise ValueError(f'form must be "auto", "gram" or "streaming", not {form!r}')
    if form == "streaming" and refine == "hartigan":
        raise ValueError('refine="hartigan" needs the Gram matrix: use form="gram", or refine="none"')
    tol = check_tolerance(tol)
    if method not in ("lloyd", "clvq", "minibatch"):
        raise ValueError(f'method must be "lloyd", "clvq" or "minibatch", not {method!r}')
    options = (init, n_init, refine, form, max_iter, tol)
    plain = isinstance(init, str) and options == ("k-means++", "auto", "auto", "auto", 300, 1e-4)
    if method != "lloyd" and (sample_weight is not None or not plain):
        names = "sample_weight, init, n_init, refine, form, max_iter and tol"
        raise ValueError(f'{names} are for method="lloyd", not {method!r}')
    if method != "clvq" and (step is not None or clock != "global" or average):
        raise ValueError(f'step, clock and average are for method="clvq", not {method!r}')
    if place is not None and (method != "lloyd" or form == "streaming"):
        raise ValueError('a GPU has method="lloyd" in Gram form alone: use device="cpu"')
    threads, isa = backend.n_threads(n_threads), backend.isa()
    w = check_sample_weight(sample_weight, len(X))
    own_classes, own_k = classes, k
    if repeats is not None:
        first = np.cumsum(repeats) - repeats
        own_classes, own_k = classes[first], np.maximum.reduceat(k, first)
    if not isinstance(X, DeviceSamples):
        check_finite(X, class_index, own_classes, threads)

    rows = np.flatnonzero(w > 0)
    narrow = np.uint16 if len(own_classes) <= 2**16 else np.int64  # which NumPy sorts in linear time
    rows = rows[np.argsort(class_index[rows].astype(narrow), kind="stable")]
    sizes = np.bincount(class_index[rows], minlength=len(own_classes))
    if not isinstance(X, DeviceSamples):  # otherwise the GPU tells which classes to look at
        check_number_of_points(X, rows, _offsets(sizes), own_k, own_classes)
    form = "gram" if place is not None else form
    forms = own_forms = forms_of(form, refine, sizes, own_k, X.shape[1])
    if repeats is not None:
        forms = curve_forms(forms_of(form, refine, np.repeat(sizes, repeats), k, X.shape[1]), np.repeat(forms, repeats))
    if method == "lloyd" and place is None:
        check_memory(sizes, own_k, X.shape[1], real_type(X.dtype), threads, own_classes, own_forms, refine)
    if repeats is not None:
        own = np.split(rows, np.cumsum(sizes)[:-1])
        rows = np.concatenate([part for part, repeat in zip(own, repeats, strict=True) for _ in range(repeat)])
        sizes = np.repeat(sizes, repeats)
    row_offsets, point_offsets = _offsets(sizes), _offsets(k)
    n_starts = np.full(len(k), n_init) if n_init != "auto" else _automatic_starts(init, forms, k, place is not None)
    n_init = int(n_starts.max())

    result = _empty_result(X, class_index, classes, point_offsets)
    if method != "lloyd":
        assert not isinstance(X, DeviceSamples)
        one_pass(result, X, method, step, clock, average, seeds, progress, threads, isa)
        return result
    if place is not None:
        return quantize_on_gpu(
            place,
            X,
            result,
            forms,
            k,
            seeds,
            w,
            rows,
            row_offsets,
            init=init,
            n_starts=n_starts,
            max_iter=max_iter,
            progress=progress,
            n_threads=threads,
            label_all=repeats is None,
        )
    assert not isinstance(X, DeviceSamples)
    labels = np.empty(len(rows), dtype=np.int64)
    backend.core.quantize_classes(
        X,
        w,
        rows,
        row_offsets,
        point_offsets,
        n_init,
        n_starts,
        *starts(init, n_init, seeds, w, rows, row_offsets, k, result.points),
        max_iter,
        tol,
        forms,
        threads,
        isa,
        result.points,
        result.weights,
        result.counts,
        labels,
        result.distortion,
        result.n_iter,
        progress,
    )
    if repeats is None:
        result.labels[rows] = labels
        label_left_out(result, X, w, threads, isa)
    return result


def _automatic_starts(init: Init, forms: NDArray[np.uint8], k: NDArray[np.int64], on_gpu: bool) -> NDArray[np.int64]:
    if not isinstance(init, str):
        return np.ones(len(k), dtype=np.int64)
    few = k <= FEW_POINTS
    n_starts = np.where(few, STARTS_OF_FEW, STARTS)
    if init == "k-means++" and not on_gpu:
        exchanged = np.where(few, STARTS_IN_SKETCH_OF_FEW, STARTS_IN_SKETCH)
        n_starts = np.where(forms == SKETCH, exchanged, n_starts)
    return np.where(forms == STREAMING, 1, n_starts)


def quantize_curves(
    X: NDArray[Any],
    class_index: NDArray[np.int64],
    classes: NDArray[Any],
    k: list[NDArray[np.int64]],
    seeds: list[np.random.SeedSequence],
    *,
    sample_weight: ArrayLike | None,
    **options: Any,
) -> list[NDArray[np.float64]]:
    """Distortion of each class for each of its own numbers of points k; options as for `_quantize`.

    The core shares the Gram matrix among consecutive classes of the same rows: each class is given once for each k, in
    the form of its largest one.
    """
    repeats = np.array([len(numbers) for numbers in k])
    result = _quantize(
        X,
        class_index,
        np.repeat(classes, repeats),
        np.concatenate(k),
        [seed for seed, repeat in zip(seeds, repeats, strict=True) for _ in range(repeat)],
        method="lloyd",
        sample_weight=sample_weight,
        progress=None,
        repeats=repeats,
        **options,
    )
    return np.split(result.distortion, np.cumsum(repeats)[:-1])


def _share_budget(
    X: NDArray[Any] | DeviceSamples,
    class_index: NDArray[np.int64],
    classes: NDArray[Any],
    budget: int,
    seeds: list[np.random.SeedSequence],
    *,
    sample_weight: ArrayLike | None,
    init: Init,
    **options: Any,
) -> NDArray[np.int64]:
    if not isinstance(init, str):
        raise ValueError('init must be "k-means++" or "random" with a budget, which finds the numbers of points')
    if isinstance(X, DeviceSamples):
        raise ValueError("a budget needs the samples in host memory: give X.cpu() and device='cuda'")
    if budget < len(classes):
        raise ValueError(f"budget = {budget} is below one point for each of the {len(classes)} classes: choose more")
    w = check_sample_weight(sample_weight, len(X))
    most = budget - len(classes) + 1
    own = [np.flatnonzero((class_index == c) & (w > 0)) for c in range(len(classes))]
    limits = [max(1, count_distinct(X, rows, most)) for rows in own]
    if sum(limits) < budget:
        raise ValueError(f"budget = {budget} is above the {sum(limits)} distinct samples of all classes: choose less")
    numbers = [grid(limit) for limit in limits]
    curves = quantize_curves(X, class_index, classes, numbers, seeds, sample_weight=sample_weight, init=init, **options)
    convex = [convex_curve(k, distortion) for k, distortion in zip(numbers, curves, strict=True)]
    return share(convex, np.array([w[rows].sum() for rows in own]), budget)


def _empty_result(
    X: NDArray[Any] | DeviceSamples, class_index: NDArray[np.int64], classes: NDArray[Any], offsets: NDArray[np.int64]
) -> ClassQuantization:
    """Allocate the arrays that the core fills."""
    n_points, n_classes = int(offsets[-1]), len(classes)
    return ClassQuantization(
        classes=classes,
        class_index=class_index,
        points=np.empty((n_points, X.shape[1]), dtype=real_type(X.dtype)),
        weights=np.empty(n_points, dtype=np.float64),
        counts=np.empty(n_points, dtype=np.int64),
        offsets=offsets,
        labels=np.empty(len(X), dtype=np.int64),
        distortion=np.empty(n_classes, dtype=np.float64),
        n_iter=np.empty(n_classes, dtype=np.int64),
    )


def _offsets(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _points_per_class(k: int | Sequence[int] | None, n_classes: int) -> NDArray[np.int64]:
    if isinstance(k, Integral):
        return np.full(n_classes, check_integer(k, "k"), dtype=np.int64)
    if isinstance(k, str) or not isinstance(k, Sequence | np.ndarray):
        raise TypeError(f"k must be an integer or a sequence with one for each class, not {k!r}")
    if len(k) != n_classes:
        raise ValueError(f"k has {len(k)} numbers of points for {n_classes} classes")
    return np.array([check_integer(number, f"k[{i}]") for i, number in enumerate(k)], dtype=np.int64)
