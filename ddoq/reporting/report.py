"""A run as one HTML page that carries all it shows: no script, nothing from elsewhere.

The page forbids itself both (Content-Security-Policy). Names that come from the user's folders are escaped by jinja2
and by `charts`. Colours follow the reader's light or dark setting, the layout the width of the window.
"""

from __future__ import annotations

import importlib.resources
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ddoq._version import __version__
from ddoq.data.distilled import DistilledDataset, load
from ddoq.evaluation.table import Evaluation, explained
from ddoq.reporting import figures, findings
from ddoq.reporting.call import call, flattened
from ddoq.reporting.gallery import gallery
from ddoq.reporting.latent_map import MAP_CLASSES, Map, latent_map
from ddoq.storage.files import write_atomic
from ddoq.storage.run import Run

MAX_SPREADS = 100  # classes in the chart of weights


def report(run: str | PathLike[str], out: str | PathLike[str] | None = None) -> Path:
    """Write a run as a page of HTML: images with their weights, distances, a map, accuracies, how to make it again.

    It shows what is in the folder: `ddoq.weigh` adds the distances to the data, `ddoq.evaluate` the accuracies; call
    them before, and this again.

    Parameters
    ----------
    run
        A run folder made by `ddoq.distill`, or an image folder to which `ddoq.weigh` gave weights.
    out
        The file to write; default: report/index.html in the folder (.report/index.html in an image folder).

    Returns
    -------
    Path
        Of the file.

    Raises
    ------
    ddoq.RunError
        Not a run, or a damaged one.
    ModuleNotFoundError
        jinja2 is not installed (extra `report`).

    Examples
    --------
    >>> import ddoq, tempfile
    >>> images, labels = np.arange(12 * 64, dtype=np.uint8).reshape(12, 8, 8), np.arange(12) % 2
    >>> out = tempfile.mkdtemp()
    >>> _ = ddoq.distill((images, labels), out, ipc=2, codec="identity", synthesis="decode", progress=False)
    >>> ddoq.report(out).relative_to(out).as_posix()
    'report/index.html'
    """
    template = _template()
    dataset = load(run)
    opened = Run.open(run)
    path = Path(out) if out is not None else opened.path / _folder(opened) / "index.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, template.render(**_content(opened, dataset)).encode("utf-8", "replace"))
    return path


def _template() -> Any:
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("a report needs jinja2: pip install 'ddoq[report]'", name=error.name) from error
    text = importlib.resources.files("ddoq.reporting").joinpath("report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(text)


def _content(run: Run, dataset: DistilledDataset) -> dict[str, Any]:
    """What the template fills in: it escapes all but the SVG, which `charts` has escaped."""
    spreads = findings.spreads(dataset)
    curve, everything = findings.rate_distortion_curve(run), _map(run, MAP_CLASSES)
    evaluation = findings.evaluation(run)
    config = run.config
    return {
        "name": run.path.name,
        "version": __version__,
        "dataset": dataset,
        "config": config,
        "counts": int(dataset.counts.sum()),
        "smooth": dataset.images.shape[-1] > 64,
        "spreads": [figures.spread_row(spread, spreads) for spread in spreads[:MAX_SPREADS]],
        "variation": float(np.mean([spread.variation for spread in spreads])),
        "effective": float(np.mean([spread.effective for spread in spreads])),
        "ipc": len(dataset) / len(dataset.class_names),
        "gallery": gallery(dataset, spreads),
        "controls": [(name, gallery(load(run.path, synthesis=name), None, 10)) for name in run.syntheses()[1:]],
        "distances": figures.distance_bars(findings.distances(run)),
        "curve": curve,
        "curve_svg": None if curve is None else figures.curve_chart(curve, config.get("ipc")),
        "map": everything,
        "map_svg": None if everything is None else figures.class_map(everything),
        "panels": figures.panels(run),
        "evaluation": evaluation,
        "columns": {} if evaluation is None else _columns(evaluation),
        "explained": [] if evaluation is None else explained(evaluation.columns),
        "strips": [] if evaluation is None else figures.accuracy_strips(evaluation),
        "differences": [] if evaluation is None else figures.difference_strips(evaluation),
        "trainings": [] if evaluation is None else figures.training_charts(run, evaluation),
        "agreements": [figures.agreement_chart(*agreement) for agreement in findings.agreements(run)[:6]],
        "settings": list(flattened(config)),
        "stages": findings.stages(run),
        "manifest": run.manifest,
        "call": call(run.manifest),
    }


def _columns(evaluation: Evaluation) -> dict[str, list[str]]:
    """The table by column; protocols stand over their rows instead."""
    return {name: cells for name, cells in evaluation.columns.items() if name != "protocol"}


def _folder(run: Run) -> str:
    """The report's folder, hidden where others would take it for a class of images."""
    return ".report" if run.kind == "weighed" else "report"


def _map(run: Run, most: int) -> Map | None:
    return latent_map(run, range(min(len(run.class_names), most)))
