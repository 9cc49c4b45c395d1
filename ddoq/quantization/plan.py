"""Plans a quantisation: in which form each class is computed, and from how many starts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddoq.quantization.forms import curve_forms, forms_of
from ddoq.quantization.options import Options
from ddoq.quantization.problem import Problem
from ddoq.quantization.starts import automatic_starts


@dataclass(frozen=True, eq=False)
class Plan:
    """Of each of C classes the form (GRAM, GRAM_MOVES, SKETCH or STREAMING) and the number of starts."""

    forms: NDArray[np.uint8]
    n_starts: NDArray[np.int64]


def plan_of(problem: Problem, options: Options, *, on_gpu: bool) -> Plan:
    """Plan a problem; a pure function of sizes and options."""
    forms = forms_of("gram" if on_gpu else options.form, options.refine, problem.sizes, problem.k, problem.X.shape[1])
    return Plan(forms, _starts_of(forms, problem, options, on_gpu))


def plan_of_curves(
    repeated: Problem, largest: Plan, repeats: NDArray[np.int64], options: Options, *, on_gpu: bool
) -> Plan:
    """Plan a repeated problem: each of its classes has the form of the largest number of points of that class."""
    forms = plan_of(repeated, options, on_gpu=on_gpu).forms
    forms = curve_forms(forms, np.repeat(largest.forms, repeats))
    return Plan(forms, _starts_of(forms, repeated, options, on_gpu))


def _starts_of(forms: NDArray[np.uint8], problem: Problem, options: Options, on_gpu: bool) -> NDArray[np.int64]:
    if options.n_init == "auto":
        return automatic_starts(options.init, forms, problem.k, on_gpu)
    return np.full(len(problem.k), options.n_init)
