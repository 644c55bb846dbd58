import copy
import dataclasses
import html.parser
import io
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from foveate.errors import OutputError
from foveate.evaluation import score
from foveate.model.layers import LayerTable
from foveate.report.html import render as render_page
from foveate.report.html import write_page
from foveate.report.run_folder import measured_splits, most_confident_mistakes
from foveate.report.run_page import RunPage, run_page
from foveate.report.run_results import PAPER_TABLE
from foveate.report.sections import Card, Section, Table, numbers
from foveate.training.measured import FoldScore, Measured

Run = Callable[..., RunPage]
Look = Callable[[Path, int, str], None]
Scored = Callable[..., Measured]

pytestmark = pytest.mark.usefixtures("blank_plots")


def render(run: RunPage) -> str:
    return render_page(run_page(run))


class Parsed(html.parser.HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.words and self.tags[-1][0] == "wbr":  # within a word, and not between two
            self.words[-1] += data
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_page_tells_all_that_a_run_has_to_tell(run: Run) -> None:
    text = Parsed(render(run(bad=[("a/b.jpg", "truncated")], notes=["no image of cat in test"]))).text
    for told in (
        "cifar10-paper", "foveate train cifar10 --preset paper", "5,370,314 trainable", "5.37 M", "46 min 08 s",
        "650 images/s", "LuongRowAttention2d", "16×16×64", "train.gradient_clip –", "train.compile no",
        "train.seed 1",
        "a/b.jpg", "truncated", "no image of cat in test", "airplane", "4,000", "a processor", "2.13.0",
        "1 could not be read and was left out, never replaced", "Looks at the test split None so far",
    ):  # fmt: skip
        assert told in text, told


def test_every_metric_stands_with_its_interval(run: Run) -> None:
    page = run()
    report, text = page.reports["validation"], Parsed(render(page)).text
    assert f"{report.loss:.3f} {report.intervals['loss'][0]:.3f}–" in text
    for metric in set(report.intervals) - {"loss"}:
        low, high = report.intervals[metric]
        assert f"{100 * getattr(report, metric):.1f} % {100 * low:.1f}–{100 * high:.1f}" in text


def test_a_precision_of_no_predictions_is_a_dash(paged: Run) -> None:
    for scale, told in (
        (0.1, "those of the true class – no score is above 0.5"),
        (9, "those of the true class 100"),
    ):
        found = score(scale * np.eye(3)[[0, 1, 2, 0]], [0, 1, 2, 0], ("a", "b", "c"), resamples=50).to_dict()
        reports = measured_splits({"validation": {**found, "variants": {}, "gate": None}})
        assert told in Parsed(render(paged(("a", "b", "c"), reports=reports))).text


@pytest.mark.parametrize("settings", [{}, {"class_weights": [1.0, 2.0]}, {"sampler": "balanced"}])
def test_of_uneven_classes_the_recall_of_each_comes_first(paged: Run, settings: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [300, 60, 5])
    logits = rng.normal(size=(365, 3))
    logits[np.arange(365), labels] += np.array([4, 2, 0.3])[labels]
    found = score(logits, labels, ("cat", "dog", "fox"), resamples=50).to_dict()
    reports = measured_splits({"validation": {**found, "variants": {}, "gate": None}})
    page = Parsed(render(paged(("cat", "dog", "fox"), reports=reports, settings={"train": settings}))).text
    assert "cat has 300 of these images, and fox has 5: look at the recall of each class" in page
    assert ("class_weights=balanced" in page) is not bool(settings)
    recalls, results = page.index("Recall of each class, validation"), page.index("mean cross-entropy in nats")
    assert page.index("Balanced accuracy, validation") < recalls < results
    of_classes = page[recalls:results]
    assert of_classes.index("fox") < of_classes.index("dog") < of_classes.index("cat")
    assert "Recall of each class, validation" not in render(paged())


def test_the_balanced_accuracy_is_that_of_the_classes_that_have_images(paged: Run) -> None:
    labels = np.repeat([0, 1], [100, 10])
    predicted = labels.copy()
    predicted[0] = 2
    found = score(9 * np.eye(3)[predicted], labels, ("cat", "dog", "fox"), resamples=50).to_dict()
    report = {**found, "variants": {}, "gate": None}
    page = Parsed(render(paged(("cat", "dog", "fox"), reports=measured_splits({"test": report})))).text
    assert "Balanced accuracy, test 99.5" in page
    del report["balanced_accuracy"], report["intervals"]["balanced_accuracy"]  # as of an earlier version
    page = Parsed(render(paged(("cat", "dog", "fox"), reports=measured_splits({"test": report})))).text
    assert "Balanced accuracy, test" not in page
    assert "Accuracy, test 99.1" in page


def test_what_was_measured_another_way_stands_beside_with_its_interval(run: Run, scored: Scored) -> None:
    variants = {
        "mean of 6 views": {"n": 600, "loss": 0.41, "accuracy": 0.861, "intervals": {"accuracy": [0.831, 0.886]}},
        "attention taken out": {"n": 600, "loss": 0.62, "accuracy": 0.8, "intervals": {"accuracy": [0.766, 0.83]}},
    }
    report = dataclasses.replace(scored(), variants=variants, gate=-0.2154)
    text = Parsed(render(run(reports={"validation": report}))).text
    low, high = report.intervals["accuracy"]
    for told in (
        "Measured another way, validation",
        "the gate of the attention is -0.215, and 0 would be no attention",
        f"As they are {100 * report.accuracy:.1f} % {100 * low:.1f}–{100 * high:.1f}",
        "Mean of 6 views 86.1 % 83.1–88.6 0.410",
        "Attention ablated 80.0 % 76.6–83.0 0.620",
    ):
        assert told in text, told
    assert (
        "the gate of the attention"
        not in Parsed(render(run(reports={"validation": dataclasses.replace(report, gate=None)}))).text
    )
    assert "Measured another way" not in Parsed(render(run())).text


def test_how_far_the_network_sees_stands_beside_its_layers(run: Run, scored: Scored) -> None:
    field = {
        "convolutions": 26, "before_attention": 6, "attention_reach": [6, 32], "effective": 9.4,
        "effective_without_attention": 7.2, "images": 16,
    }  # fmt: skip
    report = dataclasses.replace(scored(), receptive_field=field)
    text = Parsed(render(run(reports={"validation": report}))).text
    theory = (
        "Attention can reach all 32 px along the width and 6 px along the height; the convolutions before it see "
        "6 px, and all convolutions together 26 px."
    )
    measured = (
        "In the trained network the centre of the last feature maps depends on about 9 × 9 px, and on 7 × 7 px "
        "with the attention ablated (the effective receptive field, by the gradients of 16 images)."
    )
    assert f"{theory} {measured}" in text
    earlier = Parsed(render(run())).text  # of a version that did not measure it
    assert theory in earlier
    assert "effective receptive field" not in earlier


def test_calibration_and_corruptions_are_told_where_they_were_measured(run: Run, scored: Scored) -> None:
    calibration = {"temperature": 0.6254, "loss": 0.3, "expected_calibration_error": 0.0123}
    corruptions = {
        "images": 1000,
        "clean": 0.9,
        "mean": 0.612,
        "accuracy": {"shot_noise": [0.9, 0.8, 0.7, 0.6, 0.5]},
        "weights": "0" * 64,
    }
    report = dataclasses.replace(scored(), calibration=calibration, corruptions=corruptions)
    text = Parsed(render(run(reports={"validation": report}))).text
    for told in (
        "With its logits divided by 0.625, fitted on validation and saved with the model, 1.2 %",
        "Accuracy of 1,000 images; as they are 90.0 %",
        "kinds and severities 61.2 %",
        "Shot noise 90.0 % 80.0 % 70.0 % 60.0 % 50.0 % 70.0 %",
    ):
        assert told in text, told
    plain = Parsed(render(run(reports={"validation": dataclasses.replace(report, calibration=None)}))).text
    assert "With its logits divided by" not in plain
    assert "Under corruptions" not in Parsed(render(run())).text


def test_a_few_validation_images_are_no_word_on_the_figure_of_the_test_split(run: Run, scored: Scored) -> None:
    few, many = scored(images=13), scored(images=2000)
    told = "13 validation images tell only that the accuracy is between"
    assert told in Parsed(render(run(reports={"validation": few}))).text
    assert told not in Parsed(render(run(reports={"validation": few, "test": many}))).text


@pytest.mark.parametrize("folds", [0, 4])
def test_as_many_folds_are_advised_as_can_be_drawn(run: Run, scored: Scored, folds: int) -> None:
    """Of other data, which a network is measured on, none can be: it is trained already."""
    report = dataclasses.replace(scored(("cat", "dog"), images=20), most_folds=folds)
    text = Parsed(render(run(("cat", "dog"), reports={"validation": report}))).text
    assert "20 validation images tell only that the accuracy is between" in text
    assert ("train with --folds 4" in text) is (folds == 4)
    assert ("only more images tell more" in text) is (folds == 0)


def test_the_layers_of_a_backbone_are_folded_and_those_of_a_small_network_are_not(run: Run) -> None:
    small = run()
    assert small.layers is not None
    backbone = dataclasses.replace(small.layers, rows=small.layers.rows * 20)
    assert "<summary>All 60 layers</summary>" in render(run(layers=backbone))
    assert "layers</summary>" not in render(small)


@pytest.mark.browser
def test_a_table_wider_than_a_phone_shows_that_it_scrolls(run: Run, tmp_path: Path) -> None:
    """At its right edge it is darker than its card until it is scrolled to its end."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install '.[browser]'")
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("needs chromium, as from Debian's package of that name")
    page_of_run = run_page(run(tuple(f"a class of a long name {number}" for number in range(3))))
    wide = Table("Wide", numbers(*(f"Column{number}" for number in range(12))), [["123456"] * 12])
    page_of_run = dataclasses.replace(
        page_of_run, sections=[*page_of_run.sections, Section("wide", "Wide", "Wide", [Card("", [wide])])]
    )
    path = tmp_path / "report.html"
    path.write_text(render_page(page_of_run))
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        page = browser.new_page(viewport={"width": 390, "height": 900})
        page.goto(path.as_uri())
        scrolling = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1)"
        assert page.evaluate(f"{scrolling}.map(e => e.getAttribute('aria-label'))") == ["Wide"]
        box = page.locator("[aria-label=Wide]")

        def edge() -> tuple[int, ...]:
            with Image.open(io.BytesIO(box.screenshot())) as shot:
                found: Any = shot.convert("RGB").getpixel((shot.width - 2, 1))
            return tuple(found)

        darker = edge()
        box.evaluate("e => { e.scrollLeft = e.scrollWidth }")
        assert edge() == (255, 255, 255)
        assert max(darker) < 235
        browser.close()


@pytest.mark.usefixtures("drawn_plots")
def test_names_paths_and_settings_cannot_be_markup(run: Run, nasty: tuple[str, ...]) -> None:
    attack = "<img src=x onerror=alert(1)>"
    page = render(
        run(
            nasty, title=attack, subtitle=attack, command=attack, notes=[attack], bad=[(attack, attack)],
            settings={attack: attack}, environment={attack: [attack]},
            test_openings=[(attack, attack)],
        )
    )  # fmt: skip
    parsed = Parsed(page)
    assert attack in parsed.text
    assert "<script>alert('a')</script>" in parsed.text
    assert not [tag for tag, _ in parsed.tags if tag == "script"]
    assert not [attributes for _, attributes in parsed.tags if any(name.startswith("on") for name in attributes)]
    assert {attributes["src"].partition(":")[0] for tag, attributes in parsed.tags if tag == "img"} == {"data"}


@pytest.mark.usefixtures("drawn_plots")
def test_nothing_is_loaded_from_anywhere(run: Run) -> None:
    page = render(run())
    parsed = Parsed(page)
    assert not {"script", "link", "iframe", "object", "embed"} & {tag for tag, _ in parsed.tags}
    for _, attributes in parsed.tags:
        for name in ("src", "href", "xlink:href", "srcset"):
            assert re.match(r"(data:|#|$)", attributes.get(name) or "")
    assert not re.search(r"url\((?!#)|@import", page)
    assert "default-src 'none'" in page


@pytest.mark.usefixtures("drawn_plots")
def test_pictures_and_plots_say_what_they_are(run: Run) -> None:
    parsed = Parsed(render(run()))
    assert all(attributes["alt"] for tag, attributes in parsed.tags if tag == "img")
    labels = [a["aria-label"] for _, a in parsed.tags if a.get("role") == "img"]
    assert len(labels) == 5
    assert all(labels)
    assert all(a.get("scope") for tag, a in parsed.tags if tag == "th")
    ids = [a["id"] for _, a in parsed.tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_the_papers_table_stands_beside_only_for_the_paper(run: Run, scored: Scored, epochs: Any) -> None:
    assert "Figure 4.1" not in render(run())
    text = Parsed(render(run(paper=True))).text
    assert "Figure 4.1" in text
    assert "Figure 4.2" in text
    assert "this run was measured on validation only" in text
    assert "84.7–86.1" in text
    for value, _ in PAPER_TABLE.values():
        assert f"{value:.3f}" in text or f"{100 * value:.1f} %" in text
    assert "this run for" not in text
    assert (
        "The paper trained for 45 epochs, this run for 6."
        in Parsed(render(run(paper=True, history=epochs(6)))).text
    )
    both = run(paper=True, reports={"validation": scored(), "test": scored(seed=1)})
    assert "measured on validation only" not in render(both)
    assert both.lead == "test"


def test_looks_at_the_test_split_are_listed(run: Run) -> None:
    openings = [(f"2026-01-0{day}", f"look {day}") for day in (1, 2)]
    text = Parsed(render(run(test_openings=openings))).text
    assert "2026-01-01 look 1 2026-01-02 look 2" in text


def test_a_look_that_another_run_records_is_not_denied(run: Run, scored: Scored) -> None:
    text = Parsed(render(run(reports={"test": scored()}))).text
    assert "the look is recorded in the model’s own run" in text
    assert "None so far" not in text


def test_of_a_model_file_it_says_that_no_look_is_recorded(run: Run, scored: Scored) -> None:
    text = Parsed(render(run(reports={"test": scored()}, settings={}))).text
    assert "the look is recorded nowhere" in text
    assert "own run" not in text


def test_of_many_bad_images_the_first_are_listed_and_all_are_counted(run: Run) -> None:
    text = Parsed(render(run(bad=[(f"image-{index}.jpg", "zero bytes") for index in range(300)]))).text
    assert "300 could not be read" in text
    assert "the first 100 are listed" in text
    assert "image-99.jpg" in text
    assert "image-100.jpg" not in text


def test_groups_are_a_table_lowest_accuracy_first(run: Run, scored: Scored) -> None:
    report = scored(groups=("day", "night", "<b>dusk</b>"))
    text = Parsed(render(run(reports={"validation": report}))).text
    order = sorted(report.groups, key=lambda name: report.groups[name].accuracy)
    places = [text.index(f"{name} {report.groups[name].n:,}") for name in order]
    assert places == sorted(places)


def test_of_many_groups_it_says_how_many_there_are(run: Run, scored: Scored) -> None:
    report = scored(groups=tuple(f"patient {index}" for index in range(150)))
    text = Parsed(render(run(reports={"validation": report}))).text
    assert f"Lowest accuracy first; 100 of {report.group_count} groups" in text
    assert report.group_count > len(report.groups) == 100


def test_what_was_only_evaluated_has_no_training(paged: Run, scored: Scored) -> None:
    page = render(paged(reports={"all": scored()}))
    assert 'id="curves"' not in page
    assert "Training time" not in page
    assert "Accuracy, all" in page
    assert "All of it on all 600 images." in page


def test_final_training_has_curves_without_validation(run: Run, epochs: Any) -> None:
    text = Parsed(render(run(history=epochs(3, validated=lambda _: False), best_epoch=None))).text
    assert "nothing was held out for validation" in text
    assert "the best on validation" not in text


def test_a_perfect_model_has_no_mistakes(run: Run, scored: Scored) -> None:
    page = render(run(reports={"validation": scored(skill=50.0)}, mistakes=[]))
    assert 'id="mistakes"' not in page
    assert "every image was classified correctly" in page


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(4.25, "4.2 s"), (59.4, "59.4 s"), (61, "1 min 01 s"), (3599.6, "1 h 00 min"), (27000, "7 h 30 min")],
)
def test_durations_are_told_in_fitting_units(run: Run, seconds: float, told: str) -> None:
    page = run(timing={"train_s": seconds, "images_per_s": 10.0, "epochs": 1})
    assert told in Parsed(render(page)).text


def test_a_time_without_the_features_that_were_kept_before_says_so(run: Run) -> None:
    timing = {"train_s": 1.3, "images_per_s": 50.0, "epochs": 1}
    for kept, told in ((False, "1 epoch, 50 images/s"), (True, "features that were computed and kept before")):
        assert told in Parsed(render(run(timing={**timing, "features_kept": kept}))).text


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        (True, "chosen by the log-loss over folds"),
        (False, "folds could not choose it"),
        (None, "chosen by the log"),
    ],
)
def test_a_regression_whose_penalty_no_fold_chose_says_so(
    run: Run, epochs: Callable[..., list[Any]], chosen: bool | None, told: str
) -> None:
    settings = {"train": {"optimizer": "logistic_regression"}, "model": {"backbone": "resnet18"}}
    history = [dataclasses.replace(each, strength_chosen=chosen) for each in epochs(1)]
    text = Parsed(render(run(settings=settings, history=history))).text
    assert told in text
    assert ("chosen by" in text) is (chosen is not False)


def test_folds_are_told_apart_from_a_test_split_that_was_measured_after_them(run: Run, scored: Scored) -> None:
    folds = [FoldScore(images=300, accuracy=accuracy) for accuracy in (0.5, 0.6)]
    text = Parsed(render(run(reports={"test": scored(), "out-of-fold": replace(scored(), folds=folds)}))).text
    assert "Accuracy, test" in text
    assert "Fold by fold, out-of-fold images" in text
    assert "that of the out-of-fold accuracy is over images" in text


def test_folds_of_groups_say_once_over_what_their_intervals_are(run: Run, scored: Scored) -> None:
    folds = [FoldScore(images=300, accuracy=accuracy) for accuracy in (0.5, 0.6)]
    for groups, over in (((), "images"), (("day", "night"), "groups, of which the images share a fold")):
        report = replace(scored(groups=groups), folds=folds)
        text = Parsed(render(run(reports={"out-of-fold": report}))).text
        assert f"that of the out-of-fold accuracy is over {over}." in text
        assert ("Those of all out-of-fold images are over groups" in text) == bool(groups)


def test_copies_in_two_folds_are_told_beside_the_folds(run: Run) -> None:
    folds = [FoldScore(images=50, accuracy=accuracy) for accuracy in (0.5, 0.6)]
    (report,) = run().reports.values()
    for copies in (0, 4):
        measured = replace(report, folds=folds, copies_across_folds=copies)
        text = Parsed(render(run(reports={"out-of-fold": measured}))).text
        assert ("Of 4 images there is a copy or a near copy in another fold" in text) == bool(copies)


@given(
    st.lists(st.tuples(st.floats(0.01, 1), st.integers(0, 2)), min_size=1, max_size=30),
    st.integers(0, 40),
)
def test_mistakes_are_the_surest_wrong_ones_in_order(drawn: list[tuple[float, int]], count: int) -> None:
    probabilities = np.array([[p, 0, (1 - p) / 2] for p, _ in drawn], np.float32)
    labels = np.array([label for _, label in drawn])
    predicted = probabilities.argmax(1)
    found = most_confident_mistakes(probabilities, labels, count)
    wrong = np.flatnonzero(predicted != labels)
    assert len(found) == min(count, len(wrong))
    assert set(found) <= set(wrong)
    sure = probabilities.max(1)
    assert list(sure[found]) == sorted(sure[wrong], reverse=True)[:count]


@pytest.mark.usefixtures("drawn_plots")
def test_the_report_is_written_with_its_plots_and_is_small(run: Run, tmp_path: Path) -> None:
    path = write_page(run_page(run()), tmp_path / "report.html")
    assert path == tmp_path / "report.html"
    assert {file.name for file in tmp_path.iterdir()} == {
        "report.html", "accuracy.png", "loss.png", "confusion_matrix.png", "reliability.png", "per_class.png",
    }  # fmt: skip
    assert path.stat().st_size < 1_500_000
    assert render(run()) == path.read_text(encoding="utf-8")
    with pytest.raises(OutputError):
        write_page(run_page(run()), tmp_path / "none" / "report.html")


@pytest.mark.browser
@pytest.mark.usefixtures("drawn_plots")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it_without_overflow_network_or_faint_text(
    run: Run, nasty: tuple[str, ...], scored: Scored, tmp_path: Path, look: Look, width: int, scheme: str
) -> None:
    # As long as they come: the cards' largest numbers, and 12 min 34 s or 111 h 06 min.
    timing = {"train_s": 754.0 if scheme == "light" else 400_000.0, "images_per_s": 1_234_567.8, "epochs": 100_000}
    report = copy.copy(scored(nasty))
    object.__setattr__(report, "n", 12_345_678)
    layers = LayerTable(rows=(), trainable=999_999_999, non_trainable=640)
    bad = [("x" * 300 + ".jpg", "truncated")] * 150
    page = run(nasty, paper=True, bad=bad, timing=timing, reports={"validation": report}, layers=layers)
    look(write_page(run_page(page), tmp_path / "report.html"), width, scheme)
