"""The table: which rows, what is trained on what, resuming through logs, classes by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import ddoq
from ddoq.data.distilled import DistilledDataset
from ddoq.evaluation.plan import full_entries, open_compared
from ddoq.evaluation.table import Evaluation, stored
from ddoq.training.log import _sealed, logged_accuracies
from ddoq.training.loop import StudentSteps

QUICK = {"epochs": 1, "progress": False, "device": "cpu"}


def digits(test: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Sixty digits 0, 1, 2; with `test` thirty others."""
    bunch = load_digits()
    chosen = np.flatnonzero(bunch.target < 3)[60:90] if test else np.flatnonzero(bunch.target < 3)[:60]
    return (bunch.images[chosen] * 15).astype(np.uint8), bunch.target[chosen]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluate") / "run"
    ddoq.distill(digits(), out, ipc=2, codec="identity", synthesis="decode", controls=("nearest",), progress=False)
    return out


def distilled(counts: list[int], names: tuple[str, ...] = ("0", "1"), seed: int = 0) -> DistilledDataset:
    """Random images, equally many of each class, standing for `counts` images."""
    per_class = len(counts) // len(names)
    generator = torch.Generator().manual_seed(seed)
    return DistilledDataset(
        torch.randint(0, 255, (len(counts), 1, 8, 8), generator=generator, dtype=torch.uint8),
        torch.arange(len(names)).repeat_interleave(per_class),
        torch.tensor(counts),
        torch.ones(len(counts), dtype=torch.float64),
        class_names=names,
        mean=torch.tensor([0.5]),
        std=torch.tensor([0.3]),
        manifest={},
        weighting="uniform",
        class_prior="balanced",
    )


def of_test(folder: Path) -> Path:
    """Where the logs and the table of the one test set are."""
    (found,) = folder.glob("test-*")
    return found


TEST = (np.random.default_rng(0).integers(0, 255, (8, 8, 8), np.uint8), [0, 1] * 4)


def test_rows_logs_and_resume(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = ddoq.evaluate(run, digits(True), data=digits(), full_data=True, seeds=2, **QUICK)
    assert [(row.set, row.weighting, row.images, row.n) for row in table.rows] == [
        ("random subset", "uniform", 6, 2),
        ("full data", "uniform", 60, 2),
        ("nearest", "uniform", 6, 2),
        ("nearest", "density", 6, 2),
        ("decode", "uniform", 6, 2),
        ("decode", "density", 6, 2),
    ]
    assert table.test_images == 30
    assert {row.protocol for row in table.rows} == {"dc, epochs=1"}
    logs = sorted(path.name for path in of_test(run / "train").iterdir())
    assert len(logs) == 13
    assert "random_subset-6-uniform-convnet3-dc_epochs_1-seed1.jsonl" in logs
    assert "nearest-6-density-convnet3-dc_epochs_1-seed0.jsonl" in logs
    stored = json.loads((of_test(run / "train") / "evaluation.json").read_text())
    assert Evaluation.from_json(stored) == table

    # the second call reads the logs: what it gives is what they say
    log = of_test(run / "train") / "decode-6-density-convnet3-dc_epochs_1-seed1.jsonl"
    whole = log.read_bytes()
    body = b"".join(whole.splitlines(keepends=True)[:-1])
    accuracy = json.dumps(table.rows[-1].accuracies[1]).encode()
    assert body.count(b'"accuracy": ' + accuracy) == 1
    log.write_bytes(_sealed(body.replace(b'"accuracy": ' + accuracy, b'"accuracy": 12.5')))
    again = ddoq.evaluate(run, digits(True), data=digits(), full_data=True, seeds=2, **QUICK)
    assert again.rows[:-1] == table.rows[:-1]
    assert again.rows[-1].accuracies == (table.rows[-1].accuracies[0], 12.5)

    # a log that is damaged, cut short, or made with other settings, is trained again
    threads = f'"torch_threads": {torch.get_num_threads()}'.encode()
    damaged = [
        whole.replace(accuracy, b"12.5"),
        whole[:-1],
        body,
        b"",
        _sealed(body.replace(b'"batch_size": 256', b'"batch_size": 255')),
        _sealed(body.replace(threads, b'"torch_threads": 77')),
        _sealed(body.replace(b'"device": "cpu"', b'"device": "NVIDIA"')),
        _sealed(b"[]\n[]\n"),
    ]
    for content in damaged:
        assert content != whole
        log.write_bytes(content)
        assert ddoq.evaluate(run, digits(True), weightings=("density",), seeds=2, **QUICK).rows[-1] == table.rows[-1]
        assert log.read_bytes() != content
        logged = logged_accuracies(log, json.loads(whole.splitlines()[0])["settings"])
        assert logged == (table.rows[-1].accuracies[1],) * 2  # looked at once


def test_a_row_is_what_train_gives(run: Path) -> None:
    table = ddoq.evaluate(run, digits(True), weightings=("sqrt",), seeds=1, epochs=3, progress=False, device="cpu")
    dataset = ddoq.load(run, weighting="sqrt")
    alone = ddoq.train(dataset, test=digits(True), epochs=3, progress=False, device="cpu")
    assert (table.rows[-1].set, table.rows[-1].weighting) == ("decode", "sqrt")
    assert table.rows[-1].accuracies == (alone.accuracy,)


def test_random_subset_is_balanced_and_fresh_for_each_seed(run: Path) -> None:
    entries = {entry.name: entry for entry in full_entries(open_compared(run, None), digits(), False, None, 2, None)}
    (row,) = entries.values()
    assert [len(group) for group in row.trainings] == [1, 1]  # each training is a draw of its own
    (one,), (other,) = row.trainings
    draws = [training.data() for training in (one, one, other)]
    assert torch.equal(draws[0].images, draws[1].images)
    assert not torch.equal(draws[0].images, draws[2].images)
    label_of = {image.tobytes(): label for image, label in zip(*digits(), strict=True)}
    for draw in draws:
        keys = [image.numpy().tobytes() for image in draw.images[:, 0]]
        assert len(set(keys)) == 6  # without replacement
        assert [label_of[key] for key in keys] == [0, 0, 1, 1, 2, 2] == draw.labels.tolist()
        assert draw.weights.tolist() == [1] * 6


def test_equal_weights_are_trained_once() -> None:
    table = ddoq.evaluate({"one": distilled([5, 9]), "two": distilled([1, 2, 3, 3])}, TEST, seeds=1, **QUICK)
    assert [(row.set, row.weighting) for row in table.rows] == [
        ("one", "any"),
        ("two", "uniform"),
        ("two", "density"),
    ]
    assert "one" in table.notes[0]
    assert table.notes[0].endswith("trained once")


def test_few_steps_are_named() -> None:
    sets = {"one": distilled([5, 9]), "two": distilled([1, 2, 3, 3])}
    options: dict[str, Any] = {"seeds": 1, "batch_size": 2, "weightings": ("density",), **QUICK}
    for epochs, few in ((2, {2: 2, 4: 4}), (150, {150: 2}), (300, {})):
        notes = ddoq.evaluate(sets, TEST, **{**options, "epochs": epochs}).notes
        protocol = f"dc, epochs={epochs}, batch_size=2"
        assert notes == tuple(
            f"{steps} steps of {images} images under {protocol} are few: published protocols make 300 and more"
            for steps, images in few.items()
        )


def test_few_steps_are_counted_by_the_recipe_of_each_size() -> None:
    """d4m's batches are as large as a small set: one step an epoch, of whichever size."""
    teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    sets = {"one": distilled([5, 9]), "two": distilled([1, 2, 3, 3])}
    options: dict[str, Any] = {"protocol": "d4m", "teacher": teacher, "seeds": 1, "weightings": ("density",), **QUICK}
    one, two = ddoq.evaluate(sets, TEST, **options).notes
    assert one.startswith("1 steps of 2 images under d4m, epochs=1 are few")
    assert two.startswith("1 steps of 4 images under d4m, epochs=1 are few")


def test_logs_of_sets_given_by_name(tmp_path: Path) -> None:
    ddoq.evaluate({"my/set": distilled([1, 2, 3, 3])}, TEST, weightings=("density",), seeds=1, logs=tmp_path, **QUICK)
    (folder,) = tmp_path.glob("images-*")
    assert [path.name for path in of_test(tmp_path).iterdir()] == ["evaluation.json"]
    assert [path.name for path in of_test(folder).iterdir()] == ["my_set-4-density-convnet3-dc_epochs_1-seed0.jsonl"]


def test_logs_stay_where_they_are_when_a_distillation_comes_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(1).integers(0, 255, (8, 8, 8), np.uint8)
    options: dict[str, Any] = {"data": (images, [0, 1] * 4), "seeds": 1, "logs": tmp_path, **QUICK}
    one, two = (distilled([1, 2, 3, 4], seed=seed) for seed in range(2))
    first = ddoq.evaluate({"set": one}, TEST, **options)
    run, trained = StudentSteps.run, []
    monkeypatch.setattr(StudentSteps, "run", lambda self, **given: trained.append(self) or run(self, **given))
    both = ddoq.evaluate({"set": [two, one]}, TEST, **options)
    assert len(trained) == 3  # two's with both weightings, and a further random subset
    assert both.rows[1].accuracies[1:] == first.rows[1].accuracies
    assert len(list(tmp_path.glob("images-*"))) == 2
    assert [path.parent for path in tmp_path.rglob("evaluation.json")] == [of_test(tmp_path)]


def test_a_folder_gathers_the_rows_of_all_calls(tmp_path: Path) -> None:
    sets = {"set": distilled([1, 2, 3, 4])}
    options: dict[str, Any] = {"seeds": 2, "logs": tmp_path, **QUICK}
    images = np.random.default_rng(1).integers(0, 255, (8, 8, 8), np.uint8)

    def kept() -> list[tuple[str, str, str, int]]:
        table = stored(of_test(tmp_path) / "evaluation.json")
        assert table is not None
        return [(row.set, row.weighting, row.protocol, row.n) for row in table.rows]

    first = ddoq.evaluate(sets, TEST, **options)
    assert stored(of_test(tmp_path) / "evaluation.json") == first
    second = ddoq.evaluate(sets, TEST, weightings=("density",), **{**options, "epochs": 2})
    assert [row.protocol for row in second.rows] == ["dc, epochs=2"]
    # what is there stays where it is, what is new comes to its place
    ddoq.evaluate(sets, TEST, weightings=("sqrt",), data=(images, [0, 1] * 4), **options)
    assert kept() == [
        ("random subset", "uniform", "dc, epochs=1", 2),
        ("set", "uniform", "dc, epochs=1", 2),
        ("set", "density", "dc, epochs=1", 2),
        ("set", "sqrt", "dc, epochs=1", 2),
        ("set", "density", "dc, epochs=2", 2),
    ]
    table = stored(of_test(tmp_path) / "evaluation.json")
    assert table is not None
    assert [table.difference(row) is None for row in table.rows] == [True, True, False, False, True]
    # a row made anew replaces the old one, and is compared with trainings of the same seeds alone
    ddoq.evaluate(sets, TEST, weightings=("sqrt",), **{**options, "seeds": 3})
    table = stored(of_test(tmp_path) / "evaluation.json")
    assert table is not None
    assert kept()[3] == ("set", "sqrt", "dc, epochs=1", 3)
    assert table.difference(table.rows[3]) is None
    # and of the same images, beside which those of others stay
    ddoq.evaluate({"set": distilled([1, 2, 3, 4], seed=1)}, TEST, weightings=("density",), **options)
    table = stored(of_test(tmp_path) / "evaluation.json")
    assert table is not None
    assert kept()[2] == kept()[4] == ("set", "density", "dc, epochs=1", 2)
    assert [table.difference(row) is None for row in table.rows[2:5]] == [False, True, True]

    other = (TEST[0][::-1].copy(), TEST[1])
    anew = ddoq.evaluate(sets, other, **options)
    assert {stored(path).test_set for path in tmp_path.glob("test-*/evaluation.json")} == {  # type: ignore[union-attr]
        table.test_set,
        anew.test_set,
    }


def test_sizes_in_one_folder_have_logs_of_their_own(tmp_path: Path) -> None:
    images = np.random.default_rng(1).integers(0, 255, (8, 8, 8), np.uint8)
    options: dict[str, Any] = {"data": (images, [0, 1] * 4), "gradients": 1, "seeds": 1, "logs": tmp_path, **QUICK}
    sets = {"set": [distilled([1, 2, 3, 4]), distilled([1, 2, 3, 4, 5, 6])]}
    table = ddoq.evaluate(sets, TEST, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StudentSteps, "run", None)
        patch.setattr("ddoq.evaluation.gradients.gradient_error", None)
        assert ddoq.evaluate(sets, TEST, **options) == table


def test_classes_are_matched_by_name() -> None:
    names = ("b", "a")
    dataset = distilled([1, 2, 3, 4], names)
    images = dataset.images[:, 0].numpy()
    # the test set's own order is sorted: "a", "b"
    table = ddoq.evaluate({"set": dataset}, (images, ["b", "b", "a", "a"]), epochs=30, seeds=1, progress=False)
    assert table.rows[0].accuracies == (100.0,)
    with pytest.raises(ValueError, match=r"test data lacks 'b' and has 'c' beside"):
        ddoq.evaluate({"set": dataset}, (images, ["c", "c", "a", "a"]), **QUICK)
    with pytest.raises(ValueError, match="full data set lacks 'b'"):
        ddoq.evaluate({"set": dataset}, (images, ["b", "b", "a", "a"]), data=(images, ["a"] * 4), **QUICK)
    by_index = ddoq.evaluate({"set": dataset}, (images, [0, 0, 1, 1]), class_names=names, seeds=1, **QUICK)
    assert by_index.test_images == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"students": ("convnet3", "convnet4")}, "convnet4"),
        ({"weightings": ("densely",)}, "densely"),
        ({"seeds": 0}, "seeds=0"),
        ({"full_data": True}, "needs data"),
        ({"data": (np.zeros((3, 8, 8), np.uint8), [0, 1, 1])}, "class '0'.*1 images.*2"),
    ],
)
def test_bad_arguments(options: dict, message: str) -> None:
    with pytest.raises((ValueError, ModuleNotFoundError), match=message):  # the latter where timm is not installed
        ddoq.evaluate({"set": distilled([1, 2, 3, 4])}, TEST, **QUICK, **options)


def test_test_images_that_are_converted_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 255, (4, 10, 12, 3), np.uint8), [0, 1] * 2
    sets = {"one": distilled([5, 9])}
    said = "test images 12 x 10 x 3 were converted to 8 x 8 x 1, to fit the images that students train on"
    assert ddoq.evaluate(sets, colour, seeds=1, **QUICK).notes[0] == said
    small = [Image.fromarray(rng.integers(0, 255, (8 + i, 8), np.uint8)) for i in range(4)]
    assert "test images of 4 sizes were" in ddoq.evaluate(sets, (small, [0, 1] * 2), seeds=1, **QUICK).notes[0]
    grey = (np.repeat(TEST[0][..., None], 3, axis=3), TEST[1])  # in three channels, but without colour
    for test in (TEST, grey):
        assert "converted" not in str(ddoq.evaluate(sets, test, seeds=1, **QUICK))
    ddoq.train(sets["one"], test=colour, epochs=1, device="cpu")
    assert said in capsys.readouterr().err
    ddoq.train(sets["one"], test=TEST, epochs=1, device="cpu")
    assert "converted" not in capsys.readouterr().err


def test_names_not_in_a_sequence() -> None:
    with pytest.raises(TypeError, match="sequences of names"):
        ddoq.evaluate({"set": distilled([1, 2])}, TEST, students="convnet3", **QUICK)


def test_sets_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="'b' has other classes"):
        ddoq.evaluate({"a": distilled([1, 2]), "b": distilled([1, 2], ("0", "2"))}, TEST, **QUICK)
    with pytest.raises(ValueError, match="no set"):
        ddoq.evaluate({}, TEST, **QUICK)


def run_of(out: Path, **options: object) -> Path:
    quick = {"codec": "identity", "synthesis": "decode", "progress": False, "ipc": 2}
    ddoq.distill(digits(), out, **{**quick, **options})
    return out


def test_distillations_sizes_and_folders(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / f"seed{seed}", seed=seed) for seed in range(2)]
    larger = run_of(tmp_path / "larger", ipc=3)
    table = ddoq.evaluate([*runs, larger], digits(True), data=digits(), seeds=2, **QUICK)
    assert [(row.set, row.weighting, row.images, row.n, row.distillations) for row in table.rows] == [
        ("random subset", "uniform", 6, 4, 4),
        ("decode", "uniform", 6, 4, 2),
        ("decode", "density", 6, 4, 2),
        ("random subset", "uniform", 9, 2, 2),
        ("decode", "uniform", 9, 2, 1),
        ("decode", "density", 9, 2, 1),
    ]
    for seed, run in enumerate(runs):  # a row's groups are its runs, each evaluated alone
        alone = ddoq.evaluate(run, digits(True), weightings=("density",), seeds=2, **QUICK)
        assert alone.rows[0].accuracies == tuple(table.rows[2].groups[seed])
    difference = table.difference(table.rows[2])
    assert difference is not None
    assert (difference.n, difference.mean) == (2, pytest.approx(table.rows[2].mean - table.rows[1].mean))
    assert table.difference(table.rows[5]).interval is None  # type: ignore[union-attr]

    with pytest.raises(ValueError, match="same images twice"):
        ddoq.evaluate([runs[0], runs[0]], digits(True), **QUICK)
    other = run_of(tmp_path / "other", max_iter=1, seed=5)
    with pytest.raises(ValueError, match="'decode' differ in max_iter, not in seed and ipc alone"):
        ddoq.evaluate([runs[0], other], digits(True), **QUICK)

    # any folder of class folders; its classes are sorted by folder, and matched by name
    folder = tmp_path / "others"
    for name, image in zip(("2", "1", "0"), digits()[0][[2, 1, 0]], strict=True):
        (folder / name).mkdir(parents=True)
        Image.fromarray(image).save(folder / name / "a.png")
    named = ddoq.evaluate({"mine": runs, "theirs": folder}, digits(True), seeds=1, **QUICK)
    assert [(row.set, row.weighting, row.images) for row in named.rows] == [
        ("theirs", "uniform", 3),
        ("mine", "uniform", 6),
        ("mine", "density", 6),
    ]
    assert (of_test(folder / ".train") / "evaluation.json").exists()
    assert f"theirs: its logs and this table are in {folder / '.train'}" in named.notes
    (theirs,) = [each for each in open_compared({"mine": runs, "theirs": folder}, None) if each.name == "theirs"]
    for label, image in zip(theirs.first.labels, theirs.first.images, strict=True):
        assert np.array_equal(image[0], digits()[0][label])


def test_sets_with_classes_in_another_order_are_put_in_that_of_the_first() -> None:
    one, other = distilled([1, 2, 3, 4]), distilled([1, 2, 3, 4], ("1", "0"), seed=1)
    sets = open_compared({"one": one, "other": other}, None)
    assert [each.first.class_names for each in sets] == [("0", "1")] * 2
    assert sets[1].first.labels.tolist() == [1, 1, 0, 0]
    assert other.labels.tolist() == [0, 0, 1, 1]  # the caller's is as it was
