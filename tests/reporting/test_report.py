"""The page: what it says, that names are text, and how it looks in a browser at two widths, light and dark."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import browser
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import ddoq
from ddoq.reporting import figures, findings, latent_map
from ddoq.reporting.call import call
from ddoq.reporting.charts import Axis, Line, line_chart
from ddoq.storage.run import Run

pytest.importorskip("jinja2")
pytest.importorskip("ot")

HOSTILE = ("<script>document.title='x'</script>", '猫 & "dog" \' }} {{ 7 * 7 }}', "a" * 150)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Sixty digits 0, 1, 2."""
    bunch = load_digits()
    chosen = np.flatnonzero(bunch.target < 3)[:60]
    return (bunch.images[chosen] * 15).astype(np.uint8), bunch.target[chosen]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything that a page can show, its classes named by an enemy."""
    out = tmp_path_factory.mktemp("report") / "<b>run"
    options = {"class_names": HOSTILE, "progress": False, "device": "cpu"}
    distil = {"ipc": 3, "codec": "identity", "synthesis": "decode", "controls": ("nearest",), **options}
    runs = [out, out.with_name("other")]
    for seed, path in enumerate(runs):
        ddoq.distill(digits(), path, seed=seed, **distil)
    ddoq.weigh(out, progress=False)
    ddoq.evaluate(runs, digits(), data=digits(), full_data=True, seeds=2, epochs=3, gradients=1, **options)
    ddoq.evaluate(runs, digits(), seeds=1, epochs=2, lr=0.02, **options)
    return out


@pytest.fixture(scope="module")
def page(run: Path) -> Path:
    return ddoq.report(run)


class Reader(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_names_are_text_and_nothing_comes_from_elsewhere(page: Path) -> None:
    reader = Reader(page.read_text(encoding="utf-8"))
    assert not {tag for tag, _ in reader.tags} & {"script", "iframe", "object", "embed", "b>run"}
    assert all(name in reader.text for name in (*HOSTILE, "<b>run"))
    for tag, attributes in reader.tags:
        assert not [name for name in attributes if name.startswith("on")]
        if tag == "a":
            assert re.match(r"#|https://arxiv\.org/abs/", attributes["href"] or "")
        else:
            assert re.match(r"data:", attributes.get("src") or attributes.get("href") or "data:")
    (policy,) = (a["content"] for tag, a in reader.tags if tag == "meta" and "http-equiv" in a)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_what_the_page_says(run: Path, page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    text = " ".join(" ".join(Reader(html).text).split())
    small = ddoq.load(run)
    own = small.weights[small.labels == 0].numpy()
    assert f"coefficient of variation {own.std() / own.mean():.2f}" in text
    assert "9 weighted images stand for 60" in text
    assert html.count('alt="image of') == 18  # nine, and nine of the control
    gradients = "Gradient error: decode, convnet3, 9 images, seed 0"
    for part in (gradients, "Weights on minus weights off", "HLR", "IOR", "reencoded"):
        assert part in text
    for loss in ("random subset, uniform, convnet3, 9 images", "decode, density, convnet3, 9 images"):
        assert loss in text
    for protocol, rows in (("dc, epochs=3", 6), ("dc, epochs=2, lr=0.02", 4)):
        _, _, own = html.partition(f'colspan="11"><bdi>{protocol}</bdi></th></tr>')
        assert own.split("</tbody>")[0].split("colspan")[0].count('data-name="set"') == rows
        assert html.count(f"<b><bdi>{protocol}</bdi></b>") == 2  # over its accuracies and its differences
        assert f"Loss: {protocol}" in text
    assert "along one student's training (3 epochs in batches of 256, learning rate 0.01, whatever" in text
    command = text.replace(" \\ ", " ")
    assert "ddoq distill DATA again --ipc 3 --codec identity --synthesis decode --controls nearest" in command
    assert ddoq.report(run).read_text(encoding="utf-8") == html


def test_a_page_says_what_is_not_there(tmp_path: Path) -> None:
    run = tmp_path / "run"
    ddoq.distill(digits(), run, ipc=2, codec="identity", synthesis="decode", progress=False)
    page = ddoq.report(run, tmp_path / "elsewhere" / "page.html")
    assert page == tmp_path / "elsewhere" / "page.html"
    assert page.read_text().count("None yet") == 2
    assert not (run / "report").exists()
    (run / "train" / "test-0").mkdir(parents=True)
    (run / "train" / "agreement-a-1-b-seed0.jsonl").write_text("nonsense")
    row = {"set": "a", "weighting": "b", "student": "c", "protocol": "d", "images": 6, "accuracies": [1.0]}
    for wrong in ({}, {**row, "accuracies": ["x"]}, {**row, "set": [1]}, {**row, "distillations": 0}):
        (run / "train" / "test-0" / "evaluation.json").write_text(
            json.dumps({"rows": [wrong], "test_images": 1, "notes": []})
        )
        assert ddoq.report(run, page).read_text().count("None yet") == 2


def test_a_weighed_folder_of_large_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(30):
            Image.fromarray(rng.integers(0, 255, (80, 80, 3), np.uint8)).save(tmp_path / "images" / name / f"{i}.png")
    data = rng.integers(0, 255, (90, 80, 80, 3), np.uint8), ["a", "b"] * 45
    ddoq.weigh(tmp_path / "images", data, progress=False)
    page = ddoq.report(tmp_path / "images")
    assert page == tmp_path / "images" / ".report" / "index.html"
    html = page.read_text()
    assert html.count("data:image/jpeg") == 40
    assert "10 images in between are left out" in html
    assert "The same call" not in html
    assert ddoq.load(tmp_path / "images").class_names == ("a", "b")


def test_the_call_makes_the_run_again(run: Path, tmp_path: Path) -> None:
    python, _ = call(Run.open(run).manifest)  # type: ignore[misc]
    line = python.replace('"again"', f"{str(tmp_path / 'again')!r}, progress=False")
    exec(line, {"data": ddoq.open_data(digits(), class_names=HOSTILE)})
    first, again = Run.open(run), Run.open(tmp_path / "again")
    assert again.manifest["config"] == first.manifest["config"]
    assert again.output("synthesize:nearest") == first.output("synthesize:nearest")


def test_the_plane_of_a_map_is_that_of_the_largest_variances(run: Path) -> None:
    found = latent_map.latent_map(Run.open(run), range(3))
    assert found is not None
    pixels = digits()[0].reshape(60, -1) / 255
    values = np.linalg.svd(pixels - pixels.mean(axis=0), compute_uv=False) ** 2
    assert found.share == pytest.approx(values[:2].sum() / values.sum(), rel=1e-3)  # latents are float16
    assert np.concatenate(found.latents).var(axis=0) * 60 == pytest.approx(values[:2], rel=1e-3)
    for latents, points, weights in zip(found.latents, found.points, found.weights, strict=True):
        assert weights.mean() == pytest.approx(1)
        assert np.average(points, axis=0, weights=weights) == pytest.approx(latents.mean(axis=0), abs=5e-3)


def test_rows_without_logs_here_take_no_line(run: Path) -> None:
    opened = Run.open(run)
    table = findings.evaluation(opened)
    assert table is not None
    others = tuple(replace(table.rows[0], set=f"elsewhere {i}") for i in range(figures.STYLES))
    charts = figures.training_charts(opened, table)
    assert figures.training_charts(opened, replace(table, rows=(*others, *table.rows))) == charts
    assert [chart["protocol"] for chart in charts] == ["dc, epochs=3", "dc, epochs=2, lr=0.02"]


def test_curves_are_those_of_logs_of_this_size(run: Path) -> None:
    opened = Run.open(run)
    table = findings.evaluation(opened)
    assert table is not None
    row = next(row for row in table.rows if (row.set, row.weighting) == ("decode", "density"))
    epochs, losses = findings.curve(opened, table.test_set, row, "loss")
    first, second = (
        [json.loads(line)["loss"] for line in path.read_text().splitlines() if '"epoch"' in line]
        for path in sorted((run / "train").glob("test-*/decode-9-density-*epochs_3-*"))
    )
    assert (epochs, losses) == ([1, 2, 3], [(a + b) / 2 for a, b in zip(first, second, strict=True)])
    assert findings.curve(opened, table.test_set, replace(row, images=30), "loss") == ([], [])
    assert findings.curve(opened, table.test_set, row, "accuracy") == ([], [])
    log = sorted((run / "train").glob("test-*/decode-9-density-*epochs_3-*"))[0]
    whole = log.read_text()
    log.write_text(whole.replace('"epoch": 1,', '"epoch": 1, "accuracy": 5.0,'))
    assert findings.curve(
        opened, table.test_set, replace(row, accuracies=row.accuracies[:1], distillations=1), "accuracy"
    ) == (
        [1],
        [5.0],
    )
    log.write_text(whole)


def test_without_jinja2(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ModuleNotFoundError, match=r"ddoq\[report\]"):
        ddoq.report(run)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    program = browser.find()
    if program is None:
        pytest.skip("no Chromium: apt-get install chromium-headless-shell, or set DDOQ_BROWSER")
    with browser.Browser(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


TEXTS = r"""(() => {
  const numbers = colour => colour.match(/[\d.]+/g).map(Number);
  const light = rgb => rgb.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const found = numbers(getComputedStyle(e).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
  };
  return [...document.querySelectorAll('body *')]
    .filter(e => e.tagName != 'title' && [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()))
    .map(e => {
      const style = getComputedStyle(e), box = e.getBoundingClientRect(), drawn = e.ownerSVGElement;
      const [a, b] = [light(numbers(drawn ? style.fill : style.color)), light(behind(e))].sort((x, y) => y - x);
      return {text: e.textContent.trim().slice(0, 40), contrast: (a + 0.05) / (b + 0.05),
              size: parseFloat(style.fontSize) * (drawn ? Math.hypot(e.getScreenCTM().a, e.getScreenCTM().b) : 1),
              right: box.right, width: box.width};
    })
    .filter(each => each.width > 0 && each.right > 0);
})()"""


OVERLAPS = """[...document.querySelectorAll('svg')].flatMap(svg => {
  const texts = [...svg.querySelectorAll('text')].map(e => [e.textContent, e.getBoundingClientRect()]);
  return texts.flatMap(([a, one], i) => texts.slice(i + 1)
    .filter(([b, two]) => one.left < two.right && two.left < one.right && one.top < two.bottom && two.top < one.bottom)
    .map(([b]) => [a, b]));
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_how_the_page_looks(page: Path, chromium: browser.Browser, width: int, scheme: str) -> None:
    chromium.open(page, width, scheme)
    assert chromium.run("window.innerWidth") == width
    chromium.run("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert chromium.run("document.documentElement.scrollWidth") == width  # nothing to scroll sideways
    assert chromium.messages == []
    assert [url for url in chromium.requests if not url.startswith("data:")] == [page.resolve().as_uri()]
    images = chromium.run("[...document.images].map(image => image.complete && image.naturalWidth)")
    assert len(images) == 18
    assert set(images) == {8}
    texts = chromium.run(TEXTS)
    assert len(texts) > 150
    assert min(texts, key=lambda each: each["contrast"])["contrast"] >= 4.5  # WCAG 2.2, level AA
    assert min(texts, key=lambda each: each["size"])["size"] >= 10
    assert max(texts, key=lambda each: each["right"])["right"] <= width
    line = Line([1.0, 30.0], [0.002, 1500.0], "s0", "a")
    wide = line_chart([line], Axis(1, 30), Axis.around(line.y, log=True), "epoch", "mean weighted loss", "title")
    wide += line_chart([line], Axis(1, 30), Axis(0.001, 0.0045), "epoch", "mean weighted loss", "title")
    chromium.run(f"document.querySelector('.charts').insertAdjacentHTML('beforeend', {json.dumps(wide)})")
    assert chromium.run(OVERLAPS) == []  # labels and ticks of the charts
    background = chromium.run("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    assert chromium.run("document.title") == "<b>run · ddoq"
