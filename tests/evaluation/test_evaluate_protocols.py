"""Evaluation under protocols: teachers, stored labels, the best look."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_evaluate import QUICK, TEST, digits, distilled, of_test, run

import ddoq
from ddoq.evaluation.table import Evaluation
from ddoq.training.loop import StudentSteps

__all__ = ["run"]


def test_protocols_with_a_teacher(run: Path) -> None:
    """Every row, random and all images too, has the teacher's labels; the same is not trained twice, another is."""
    teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    options: dict[str, Any] = {"data": digits(), "full_data": True, "seeds": 1, "protocol": "d4m", **QUICK}
    table = ddoq.evaluate(run, digits(True), teacher=teacher, **options)
    (protocol,) = {row.protocol for row in table.rows}
    assert protocol.startswith("d4m, epochs=1, teacher Sequential@")
    assert {row.set for row in table.rows} >= {"random subset", "full data", "decode"}
    assert {row.labels for row in table.rows} == {"soft"}
    assert {table.hard_label_recovery(row) for row in table.rows} == {None}
    assert table.improvement_over_random(table.rows[-1]) is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StudentSteps, "run", None)
        assert ddoq.evaluate(run, digits(True), teacher=teacher, **options).rows == table.rows
    alone = ddoq.train(ddoq.load(run, weighting="density"), test=digits(True), teacher=teacher, protocol="d4m", **QUICK)
    (row,) = [row for row in table.rows if (row.set, row.weighting) == ("decode", "density")]
    assert row.accuracies == (alone.accuracy,)
    with pytest.raises(ValueError, match="soft labels: give teacher"):
        ddoq.evaluate(run, digits(True), **options)
    with pytest.raises(ValueError, match=r"'rded' is defined for 1, 10 or 50"):
        ddoq.evaluate(run, digits(True), teacher=teacher, **{**options, "protocol": "rded"})
    with pytest.raises(ValueError, match="protocol 'dc' alone"):
        ddoq.evaluate(run, digits(True), teacher=teacher, gradients=1, **options)


@pytest.mark.parametrize("store", ["float16", "topk"])
def test_stored_labels(run: Path, tmp_path: Path, store: Any) -> None:
    """Sets with a folder train as `ddoq.train(labels=)` does, the others online on the same views."""
    teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    decode, nearest = ddoq.load(run), ddoq.load(run, synthesis="nearest")
    how: dict[str, Any] = {"epochs": 2, "store": store, "top_k": 2, "seed": 5, "progress": False, "device": "cpu"}
    ddoq.label(decode, teacher, tmp_path / "decode", **how)
    options: dict[str, Any] = {"protocol": "d4m", **QUICK, "epochs": 3, "seeds": 2, "weightings": ("density",)}
    alone = ddoq.evaluate({"decode": decode}, digits(True), labels=tmp_path / "decode", **options)
    (row,) = alone.rows
    one: dict[str, Any] = {"protocol": "d4m", "labels": tmp_path / "decode", **QUICK, "epochs": 3}
    weighted = ddoq.load(run, weighting="density")
    trained = [ddoq.train(weighted, test=digits(True), seed=seed, **one) for seed in range(2)]
    assert row.accuracies == tuple(result.accuracy for result in trained)
    topk = store == "topk"
    assert row.protocol.startswith("d4m, epochs=3, label_epochs=2, teacher Sequential@")
    assert row.protocol.endswith(", top 2, views of seed 5" if topk else ", views of seed 5")
    assert ("top 2" in row.protocol) == topk
    assert row.labels == "soft"

    both: dict[str, Any] = {"data": digits(), "labels": [tmp_path / "decode"], **options}
    with pytest.raises(ValueError, match="no stored labels of random images, 'nearest': give teacher too"):
        ddoq.evaluate(run, digits(True), **both)
    table = ddoq.evaluate(run, digits(True), teacher=teacher, **both)
    assert {each.protocol.replace(", top 2", "") for each in table.rows} == {row.protocol.replace(", top 2", "")}
    assert table.rows[-1].accuracies == row.accuracies
    random = {each.set: each for each in table.rows}["random subset"]
    log = next(of_test(run / "train").glob("random_subset-6-uniform-convnet3-d4m_epochs_3_label_epochs_2*seed1.jsonl"))
    settings = json.loads(log.read_text().splitlines()[0])["settings"]
    assert (settings["view_seed"], settings["label_epochs"], settings["soft_labels"]["made"]) == (5, 2, "online")
    gained = table.improvement_over_random(table.rows[-1])
    assert gained is None if topk else gained == pytest.approx(row.mean - random.mean)

    ddoq.label(nearest, teacher, tmp_path / "nearest", **how)
    del both["data"]
    folders = [tmp_path / "decode", tmp_path / "nearest"]
    full = ddoq.evaluate(run, digits(True), **{**both, "labels": folders})
    assert [each.set for each in full.rows] == ["nearest", "decode"]
    with pytest.raises(ValueError, match="of the images of none of these sets"):
        ddoq.evaluate({"decode": decode}, digits(True), **{**both, "labels": folders})
    other = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    with pytest.raises(ValueError, match=r"the labels are by Sequential@.*, the teacher is Sequential@"):
        ddoq.evaluate(run, digits(True), teacher=other, **both)
    ddoq.label(nearest, teacher, tmp_path / "other", **{**how, "seed": 6})
    with pytest.raises(
        ValueError, match=r"other views \(seed 6 there, 5 here\), here being .*: give labels made alike"
    ):
        ddoq.evaluate(run, digits(True), **{**both, "labels": [tmp_path / "decode", tmp_path / "other"]})
    with pytest.raises(ValueError, match="1 of 2 distillations of 'set' have no stored labels: add them"):
        ddoq.evaluate({"set": [decode, nearest]}, digits(True), **both)


def test_soft_labels_are_named_where_a_protocol_takes_both(run: Path) -> None:
    teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    changes = {"mix": "cutmix", "mix_weights": "base"}
    table = ddoq.evaluate(run, digits(True), teacher=teacher, settings=changes, seeds=1, **QUICK)
    assert "labels=soft" in table.rows[0].protocol
    assert "mix=cutmix, mix_weights=base" in table.rows[0].protocol


def test_the_best_look_stands_beside_the_last(tmp_path: Path) -> None:
    data = {"set": distilled([5, 9])}
    teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    options: dict[str, Any] = {"protocol": "rded", "teacher": teacher, "seeds": 2, "logs": tmp_path, **QUICK}
    table = ddoq.evaluate(data, TEST, **{**options, "epochs": 40})
    (row,) = table.rows
    assert row.best is not None
    assert len(row.bests) == 2
    assert all(best >= last for best, last in zip(row.bests, row.accuracies, strict=True))
    assert f"{row.best:.2f}" in str(table)
    assert Evaluation.from_json(table.to_json()) == table
    for log, best in zip(sorted(tmp_path.rglob("set-*")), row.bests, strict=True):
        (result,) = (json.loads(line)["result"] for line in log.read_text().splitlines() if '"result"' in line)
        assert result["best"] == best
    assert ddoq.evaluate(data, TEST, **{**options, "epochs": 40}) == table  # read
