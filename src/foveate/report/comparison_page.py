"""The page of a comparison."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from foveate.comparison.arms import short_labels
from foveate.comparison.experiment import ArmRun
from foveate.comparison.findings import PairFinding
from foveate.comparison.outcomes import PLAN_WORDS, ArmSummary, group_lines, measured_images, unused_attention
from foveate.comparison.planning import POWER
from foveate.comparison.settings import ComparisonConfig
from foveate.comparison.statistics import Interval
from foveate.counts import plural
from foveate.report import comparison_plots as plots
from foveate.report.sections import (
    Body,
    Card,
    Column,
    Grid,
    Page,
    Plot,
    Section,
    Table,
    Text,
    code,
    numbers,
    openings_table,
    record_section,
    small,
)


def comparison_page(
    *,
    title: str,
    split: str,
    config: ComparisonConfig,
    summaries: Sequence[ArmSummary],
    pairs: Sequence[PairFinding],
    failures: Mapping[ArmRun, str],
    environment: Mapping[str, Any],
    opening: str | None,
    openings: Sequence[tuple[str, str]] = (),
) -> Page:
    """What the runs of a comparison come to.

    Args:
        failures: why runs have no result.
        opening: the command that opens the test split; None: the data has none.
        openings: (time, command) of each time that it was opened.
    """
    sizes = [_images(size) for size in config.subsets]
    trained = "" if sizes == ["all"] else f", trained on {' and '.join(sizes)} images"
    images = f"{measured_images(pairs, split)} of {Path(config.data).name}"
    reference = short_labels(config.arms)[0]
    subtitle = f"Against {reference}, {plural(config.seeds, 'seed')}{trained}, measured on the {images}"
    sized = any(config.subsets)
    again = " More seeds make a new comparison: seeds must not be added until a verdict comes."
    if config.pilot:
        note = Markup(
            "<strong>This is the pilot of a plan, and no evidence.</strong> It says how many seeds of every arm a "
            "comparison needs, so that it sees a true difference of {1:g} points with a chance of {0:g}\u00a0%, "
            "and so that it says with the same chance of arms that do not differ that there is none; {2}."
        ).format(100 * POWER, 100 * config.delta, PLAN_WORDS)
    else:
        note = _verdict_note(config, len(pairs))
        if split == "validation" and openings:
            note += " These are validation images; the test split was opened, but is not measured to the end."
        elif split == "validation" and opening is not None:
            note += Markup(" These are validation images; the test split is closed. {} opens it.").format(
                code(opening)
            )
    for line in group_lines(pairs):
        note += Markup(" {}.").format(line.capitalize())
    for line in config.told:
        note += Markup(" <strong>{}.</strong>").format(line[0].upper() + line[1:])
    sections = [
        Section("verdicts", "Verdicts", "Verdicts", _verdicts(pairs, failures, config, sized=sized), note),
        _arms(summaries, config, sized=sized),
        _seeds(summaries, pairs, config, split, sized=sized),
        Section("openings", "Test split", "Looks at the test split", [Card("", [openings_table(openings)])])
        if openings
        else None,
        record_section("comparison", "comparison.yaml", config.model_dump(mode="json"), environment, note=again),
    ]
    return Page(title, subtitle, sections)


_RULES = {
    "blocks": "all arms share one spread, after the mean effect of each seed is removed (blocks)",
    "dunnett": "all arms share one spread, seeds are not taken out (Dunnett)",
    "pairs": "each pair has its own spread, and its share of α (Bonferroni)",
}


def _verdict_note(config: ComparisonConfig, pairs: int) -> Markup:
    """The rule by which it is judged."""
    together, delta = 100 * (1 - config.alpha), 100 * config.delta
    if config.rule == "seeds":
        return Markup(
            "This comparison was begun by an earlier version of Foveate, and the rule of that version judges it: "
            "a verdict rests on the interval over seeds alone, at {:.4g}\u00a0% for each so that all hold "
            "together at {:g}\u00a0%. Inside ±{:g} points: no difference that matters. Without zero: helps or "
            "hurts. Otherwise inconclusive. It holds for other seeds on these very images; the interval over "
            "seeds and images, for other images too."
        ).format(100 * (1 - config.alpha / max(pairs, 1)), together, delta)
    return Markup(
        "A verdict speaks of new seeds and of new images. Helps or hurts: the interval over seeds and images, at "
        "{:g}\u00a0% for all pairs together, leaves zero out. No difference, or by less than {:g} points: that at "
        "{:g}\u00a0% lies inside ±{:g} points, which is two one-sided tests. Otherwise inconclusive. What the "
        "interval over seeds alone shows is said to hold on these images. The rule, fixed before the runs: {}."
    ).format(together, delta, 100 * (1 - 2 * config.alpha), delta, _RULES[config.rule])


def _verdicts(
    pairs: Sequence[PairFinding], failures: Mapping[ArmRun, str], config: ComparisonConfig, *, sized: bool
) -> list[Body]:
    columns = [
        *_subject("Arm, minus another", sized=sized),
        Column("Seeds it takes" if config.pilot else "Verdict", "wide"),
        *numbers("Difference", "Over seeds", "Over seeds and images"),
        *numbers(*([] if config.rule == "seeds" else [f"The same, {100 * (1 - 2 * config.alpha):g}\u00a0%"])),
        *numbers("Seeds", "Correlation by seed"),
    ]
    rows = [
        [
            *_names(each, sized=sized),
            each.plan_words.capitalize() if config.pilot else each.words,
            f"{100 * each.difference.mean:+.2f}" if each.difference else "–",
            _points(each.verdict.interval if each.verdict else None),
            _points(each.verdict.image_interval if each.verdict else None),
            *(
                []
                if config.rule == "seeds"
                else [_points(each.verdict.equivalence_interval if each.verdict else None)]
            ),
            str(len(each.seeds)),
            _correlation(each),
        ]
        for each in pairs
    ]
    caption = (
        "The accuracy of an arm minus that of another, in points. Correlation by seed: of the accuracies of the "
        "two; where it is near zero, pairing by seed gains nothing."
    )
    table = Table("Verdicts", columns, rows, caption)
    bodies: list[Body] = []
    for run, reason in failures.items():
        size = f", {_images(config.subsets[run.subset])} training images" if sized else ""
        failed = f"Failed and left out: {config.arms[run.arm].name}, seed {run.seed}{size}: {reason}"
        bodies.append(Text(failed, note=True))
    bodies.append(Card("", [table]))
    if not (measured := [each for each in pairs if each.difference]):
        return bodies
    differences = Plot(
        "differences",
        "Differences",
        "Chart of the difference of each pair with its intervals; every value is in the table of verdicts",
        "The black dot is the mean over seeds, the thick line its simultaneous interval over seeds, the thin one "
        "that over seeds and images; small dots are single seeds. Shaded: too small to matter. Orange: helps or "
        "hurts.",
        plots.differences(measured, config.delta),
    )
    if len(config.subsets) == 1:
        return [*bodies, Grid([differences])]
    curve = Plot(
        "data_size",
        "With fewer images",
        "Chart of the difference of each pair over the number of training images; every value is in the table of "
        "verdicts",
        "The same pairs, trained on fewer images: the difference with the interval that judges it.",
        plots.over_data_size(measured, config.delta),
    )
    return [*bodies, Grid([differences, curve])]


def _arms(summaries: Sequence[ArmSummary], config: ComparisonConfig, *, sized: bool) -> Section:
    rows, labels = [], short_labels(config.arms)
    for found in summaries:
        arm = config.arms[found.arm]
        control = "; ".join(dict.fromkeys(arm.matched.values()))
        whole = f"a control, matched in {control}: {arm.name}" if control else arm.name
        name = small(labels[found.arm], whole if whole != labels[found.arm] else "")
        rows.append([name, *([_images(found.subset)] if sized else []), *found.cells.values()])
    caption = (
        "The settings in which the arms differ, over the whole arm. Accuracy: the mean over seeds ± the standard "
        "deviation. Costs are those of training on one image."
    )
    terms = (
        "Attention ablated: the accuracy of the same weights without it. Gate: the factor of a residual "
        "attention, which begins at 0; of all seeds. MFLOP: millions of operations to train on one image, "
        "forward and backward; ms: to train on one, the median of the runs. Parameters are those that are "
        "trained."
    )
    table = Table("Arms", [*_subject("Arm", sized=sized), *numbers(*summaries[0].cells)], rows, caption)
    unused = [Text(f"{line}.", note=True) for line in unused_attention(summaries, config)]
    note = (
        "The first is the reference. Controls are the reference, widened until it costs what an arm costs: what "
        "an arm gains over them is not due to its size. Where an arm has the reference’s parameters within "
        "1\u00a0%, or its FLOPs within 2\u00a0%, the reference is that control itself."
    )
    return Section("arms", "Arms", "Arms", [Text(terms, note=True), *unused, Card("", [table])], note)


def _seeds(
    summaries: Sequence[ArmSummary],
    pairs: Sequence[PairFinding],
    config: ComparisonConfig,
    split: str,
    *,
    sized: bool,
) -> Section:
    note = (
        "All arms of a seed see the same images in the same order, augmented alike unless that is what they "
        "differ in, and begin with the same weights wherever a whole part of the network (a block, the head) "
        "agrees in its shapes."
    )
    if own := [arm for arm in config.arms if arm.first_seed is not None]:
        told = " and ".join(f"{arm.name} (from {arm.first_seed:,} on)" for arm in own)
        note += f" With seeds of its own: {told}; it shares nothing of this with the others."
    labels = short_labels(config.arms)
    ended = [(labels[each.arm], each) for each in summaries if each.accuracies]
    if not ended:
        return Section("seeds", "Seeds", "Seed by seed", [Text("No run has ended.", note=True)], note)
    runs = Plot(
        "accuracies",
        "Every run",
        f"Chart of the accuracy of every run; every value is in results-{split}.csv",
        "A dot is a run, the bar the mean of its arm; thin lines join the runs of one seed.",
        plots.accuracies(ended),
    )
    rows = [
        [*_names(each, sized=sized), seed, f"{100 * of_seed:+.2f}", f"{p:.3f}" if p >= 0.0005 else "<0.001"]
        for each in pairs
        if each.difference
        for seed, of_seed, p in zip(
            _seed_names(each), each.difference.per_seed, each.difference.mcnemar, strict=True
        )
    ]
    columns = [*_subject("Arm, minus another", sized=sized), *numbers("Seed", "Difference", "p")]
    tests = Table("McNemar’s test", columns, rows, "Exact p, and the difference in points", tall=True)
    meaning = (
        "For two trained networks: whether one is right where the other is wrong more often than the other way "
        "round. It says nothing about other seeds, so it is no part of any verdict, and its values are not to "
        "be combined."
    )
    if group_lines(pairs):
        meaning += " It takes every image on its own: where images of one group are alike, p is too small."
    card = Card("McNemar’s test", [Text(meaning, note=True), tests])
    return Section("seeds", "Seeds", "Seed by seed", [Grid([runs, card])], note)


def _subject(title: str, *, sized: bool) -> list[Column]:
    return [Column(title, "break"), *(numbers("Training images") if sized else [])]


def _names(pair: PairFinding, *, sized: bool) -> list[str]:
    arm, other = pair.labels
    return [small(arm, f"minus {other}"), *([_images(pair.subset)] if sized else [])]


def _seed_names(pair: PairFinding) -> list[str]:
    both = zip(pair.seeds, pair.other_seeds, strict=True)
    return [str(seed) if seed == other else f"{seed} and {other}" for seed, other in both]


def _images(subset: int | None) -> str:
    return "all" if subset is None else f"{subset:,}"


def _correlation(pair: PairFinding) -> str:
    found = pair.difference.correlation if pair.difference else None
    return "–" if found is None else f"{found:+.2f}"


def _points(bounds: Interval | None) -> str:
    return "–" if bounds is None else f"{100 * bounds[0]:+.2f} to {100 * bounds[1]:+.2f}"
