"""Quantises by methods that look at each sample once, CLVQ and MiniBatchKMeans."""

from __future__ import annotations

import numpy as np

from ddoq.quantization.assign import cells
from ddoq.quantization.device_samples import DeviceSamples
from ddoq.quantization.host import empty_result
from ddoq.quantization.online import OnlineQuantizer
from ddoq.quantization.options import Options
from ddoq.quantization.problem import Execution, Problem
from ddoq.quantization.result import ClassQuantization, point_range
from ddoq.quantization.samples import widened


def one_pass(problem: Problem, options: Options, execution: Execution) -> ClassQuantization:
    """Quantise one class after the other by "clvq" or "minibatch"."""
    from ddoq.quantization.minibatch import minibatch_points  # which loads scikit-learn

    assert not isinstance(problem.X, DeviceSamples)
    result = empty_result(problem)
    for c, seed in enumerate(problem.seeds):
        rows, in_class = problem.class_rows(c), point_range(result, c)
        rng, k, samples = np.random.Generator(np.random.PCG64(seed)), int(problem.k[c]), widened(problem.X[rows])
        if options.method == "clvq":
            stream = OnlineQuantizer(
                k, step=options.step, clock=options.clock, average=options.average, n_threads=execution.n_threads
            )
            stream.update(samples[rng.permutation(len(rows))])
            points = stream.points
        else:
            points = minibatch_points(samples, k, rng)
        result.points[in_class] = points
        voronoi = cells(samples, result.points[in_class], execution.n_threads, n_iter=1)
        result.weights[in_class], result.counts[in_class] = voronoi.weights, voronoi.counts
        result.labels[rows] = voronoi.labels
        result.distortion[c], result.n_iter[c] = voronoi.distortion, voronoi.n_iter
        if execution.progress:
            execution.progress(c + 1)
    return result
