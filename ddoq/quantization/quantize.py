"""Quantises samples, class by class, into weighted points: the public functions.

k points and the masses of their Voronoi cells that (locally) minimise the distortion, the weighted mean squared
distance of the samples to their nearest points: the squared 2-Wasserstein distance between the data and the weighted
points. Greedy k-means++ start, Lloyd's iterations to the fixed point of the labels, then single-point (Hartigan) moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddoq.quantization.curves import share_budget
from ddoq.quantization.device_samples import samples_and_gpu
from ddoq.quantization.options import (
    Clock,
    Form,
    Init,
    Method,
    Options,
    Progress,
    RandomState,
    Refine,
    check_integer,
)
from ddoq.quantization.problem import checked_execution, checked_problem
from ddoq.quantization.result import ClassQuantization, Quantization
from ddoq.quantization.samples import as_classes
from ddoq.quantization.solve import solve
from ddoq.quantization.starts import streams


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
        Number of starts; the one of lowest distortion after Lloyd's iterations is kept. "auto": in Gram form, where
        starts cost little beside the matrix, 8 for k <= 16 and 4 for more, but 4 and 1 of "k-means++" in a sketch (see
        `refine`), which exchanges seeds; in streaming form 1.
    refine
        Whether single samples are moved to other cells after Lloyd's iterations, for as long as the distortion falls:
        "hartigan": they are; "none": they are not, as in scikit-learn; "auto": they are where there are at least 15
        samples a point, since moves overfit on fewer, and never in streaming form, which has none.
        Where d >= 1,024, n >= 512 and k <= 64, the "auto" that moves samples also starts faster. Lloyd's iterations
        then see a random sketch: 640 features (k <= 16) or 512, of 600 samples and 4 more a point. "k-means++" draws as
        many samples again as seeds, and each takes the place of the seed that is missed least, if that lowers the
        distortion. The moves, points, labels and weights are those of all samples in all features.
    form
        "gram": the products of all pairs of samples are computed once, which takes memory of n^2, and the cost of an
        iteration does not depend on d. "streaming": every iteration reads a packed copy of the samples, with all
        threads, which takes memory of n d. "auto": streaming above 4,096 samples; but above 16,384 where
        `refine="auto"` moves samples and there are at most 100 a point, and never with `refine="hartigan"`.
    max_iter
        Lloyd iterations of a start at most. A fit that ends by `max_iter` or `tol` may leave a point without samples
        (weight zero).
    tol
        The streaming form also stops where the squares of the points' shifts sum to at most `tol` times the mean of the
        features' variances, as scikit-learn does. The Gram form stops only where the labels stay, as does `tol=0`.
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
    samples, gpu = samples_and_gpu(X, device)
    class_index, numbers = np.zeros(len(samples), dtype=np.int64), np.array([check_integer(k, "k")])
    seeds = streams(random_state, 1)
    options = Options(method, init, n_init, refine, form, max_iter, tol, step, clock, average)
    execution = checked_execution(n_threads, gpu, progress)
    one_class = np.array([None])  # which errors and results do not name
    problem = checked_problem(samples, class_index, one_class, numbers, seeds, sample_weight, options, execution)
    return solve(problem, options, execution)[0]


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
    samples, gpu = samples_and_gpu(X, device)
    classes, class_index = as_classes(y, len(samples))
    seeds = streams(random_state, len(classes))
    if (k is None) == (budget is None):
        raise TypeError("give either k or budget")
    options = Options(method, init, n_init, refine, form, max_iter, tol, step, clock, average)
    execution = checked_execution(n_threads, gpu, progress)
    if budget is None:
        numbers = _points_per_class(k, len(classes))
    else:
        points = check_integer(budget, "budget")
        numbers = share_budget(samples, class_index, classes, points, seeds, sample_weight, options, execution)
    problem = checked_problem(samples, class_index, classes, numbers, seeds, sample_weight, options, execution)
    return solve(problem, options, execution)


def _points_per_class(k: int | Sequence[int] | None, n_classes: int) -> NDArray[np.int64]:
    if isinstance(k, Integral):
        return np.full(n_classes, check_integer(k, "k"), dtype=np.int64)
    if isinstance(k, str) or not isinstance(k, Sequence | np.ndarray):
        raise TypeError(f"k must be an integer or a sequence with one for each class, not {k!r}")
    if len(k) != n_classes:
        raise ValueError(f"k has {len(k)} numbers of points for {n_classes} classes")
    return np.array([check_integer(number, f"k[{i}]") for i, number in enumerate(k)], dtype=np.int64)
