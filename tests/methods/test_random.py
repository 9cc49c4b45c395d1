"""Random real images as a method: a run without latents loads, is evaluated and reported, and cannot be weighed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ddoq
from ddoq.cli.demo import digits
from ddoq.evaluation.gradients import gradient_agreement
from ddoq.reporting.call import call
from ddoq.storage.run import Run, RunError

QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 10, "device": "cpu", "progress": False}


def draw(out: Path, **options: Any) -> ddoq.DistilledDataset:
    settings: dict[str, Any] = {"ipc": 3, "method": "random", "device": "cpu", "progress": False, **options}
    return ddoq.distill(digits()[0], out, **settings)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("random") / "run"
    draw(out)
    return out


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "images" / "metadata.jsonl").read_text().splitlines()]


def test_the_images_are_distinct_ones_of_their_class(run: Path) -> None:
    images, labels = digits()[0]
    small = ddoq.load(run)
    sources = [row["source_index"] for row in rows(run)]
    assert len(set(sources)) == 30
    assert np.array_equal(small.images[:, 0].numpy(), images[sources])
    assert labels[sources].tolist() == small.labels.tolist() == np.repeat(range(10), 3).tolist()
    assert small.weights.tolist() == [1.0] * 30
    assert [int(small.counts[small.labels == c].sum()) for c in range(10)] == np.bincount(labels).tolist()
    assert small.mean.item() == pytest.approx(images.mean() / 255)
    assert small.std.item() == pytest.approx(images.std() / 255)
    assert small.manifest["config"]["method"] == "random"
    assert small.manifest["config"]["options"] == {}
    assert repr(small).endswith(", uniform weights 1 to 1, method random)")


def test_the_same_call_changes_nothing_and_another_seed_draws_others(run: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.name != "run.lock"}
    draw(run)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    first = (run / "images" / "0000_0" / "00000.png").read_bytes()
    os.remove(run / "images" / "0000_0" / "00000.png")
    draw(run)
    assert (run / "images" / "0000_0" / "00000.png").read_bytes() == first
    other = draw(tmp_path / "other", seed=1, class_prior="data", output_size=6)
    assert other.images.shape == (30, 1, 6, 6)
    assert other.weights.min() < 1 < other.weights.max()
    drawn = [[row["source_index"] for row in rows(folder)] for folder in (run, tmp_path / "other")]
    assert drawn[0] != drawn[1]


def test_they_are_those_of_an_evaluations_random_row(run: Path, tmp_path: Path) -> None:
    train, test = digits()
    table = ddoq.evaluate(run, test, data=train, seeds=1, logs=tmp_path, **QUICK)
    assert [(row.set, row.weighting) for row in table.rows] == [("random subset", "uniform"), ("random", "uniform")]
    assert table.rows[0].accuracies == table.rows[1].accuracies
    assert not any("method" in note for note in table.notes)


def test_gradients_are_measured_with_the_weights_there_are(run: Path, tmp_path: Path) -> None:
    measured = gradient_agreement(run, digits()[0], log=tmp_path / "log.jsonl", images_per_class=20, **QUICK)
    assert set(measured.errors) == {"uniform"}


def test_weights_that_stand_for_cells_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="method 'random' makes images with weighting 'uniform', not 'density'"):
        draw(tmp_path / "run", weighting="density")
    for weighting in ("density", "sqrt", "reencoded"):
        with pytest.raises(ValueError, match=f"these images have no '{weighting}' weights.*method 'random'.*'uniform'"):
            ddoq.load(run, weighting=weighting)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="method 'random' has no option 'strength': it is one of method 'ddoq', 'd4m'"):
        draw(tmp_path / "run", strength=0.5)


def test_a_report_of_them(run: Path) -> None:
    page = ddoq.report(run)
    assert page.relative_to(run).as_posix() == "report/index.html"
    text = page.read_text(encoding="utf-8")
    assert "Method: random." in text
    assert "ddoq distill DATA again" in text
    made_by = call(Run.open(run).manifest)
    assert made_by is not None
    words = "--ipc 3 --method random --image-size 8 --seed 0"
    assert made_by[1].replace(" \\\n   ", "") == f"ddoq distill DATA again {words}"


def test_there_is_nothing_to_weigh_them_in(run: Path) -> None:
    with pytest.raises(RunError, match=r"made by method 'random', which leaves no latents.*copy .*images"):
        ddoq.weigh(run, progress=False)
    with pytest.raises(RunError, match="which leaves no latents"):
        ddoq.weigh(run, digits()[0], progress=False)
