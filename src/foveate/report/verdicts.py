"""The arms and pairs of a comparison as rows, and its verdicts in words, for its page and the terminal."""

from collections.abc import Mapping
from dataclasses import dataclass

from foveate.comparison.experiment import ArmSummary, Finding
from foveate.comparison.statistics import Difference, Verdict, sd_interval


@dataclass(frozen=True)
class ComparedArm:
    """An arm, with all training images or a subset."""

    name: str
    label: str
    """The same, short enough for a plot."""
    matched: Mapping[str, str]
    """Of a control: the arms that it is matched to, and in what."""
    summary: ArmSummary


@dataclass(frozen=True, kw_only=True)
class ComparedPair:
    """The accuracy of an arm minus that of another, with all training images or a subset."""

    arm: str
    other: str
    labels: tuple[str, str]
    """The same two, short enough for a plot."""
    subset: int | None
    seeds: tuple[int, ...]
    """Those in which both have a result."""
    difference: Difference | None
    """None where there are none."""
    verdict: Verdict | None
    words: str
    """The verdict in one sentence."""
    plan: str
    """Of a pilot: how many seeds it takes."""


def verdict_in_words(finding: Finding, *, seeds_wanted: int, next_seed: int) -> str:
    """One sentence.

    Args:
        seeds_wanted: by the comparison; it may have fewer.
        next_seed: the first seed of a comparison that shares none with this one.
    """
    verdict, difference = finding.verdict, finding.difference
    if verdict is None or difference is None:
        return "No seed has a result of both."
    points = f"{100 * difference.mean:+.2f} points"
    if len(finding.seeds) < seeds_wanted:
        points += f" over the {len(finding.seeds)} of {seeds_wanted} seeds in which both came to an end"
    if difference.alike:
        points += ", both right on the same images in every seed: what differs may have no effect"
    if verdict.interval is None:
        return f"Inconclusive: {points}, from one seed, which has no interval."
    if verdict.answer == "no difference":
        return f"No difference larger than {100 * verdict.delta:g} points ({points})."
    if verdict.answer in ("helps", "hurts"):
        return f"{verdict.answer.capitalize()}: {points}."
    if verdict.seeds is None:
        return f"Inconclusive: {points}; not even thousands of seeds would decide."
    return (
        f"Inconclusive: {points}; about {verdict.seeds:,} new seeds would decide, in a separate comparison "
        f"(--first-seed {next_seed})."
    )


def plan_in_words(finding: Finding) -> str:
    """How many seeds a comparison of a pilot's pair takes."""
    if finding.difference is None or finding.difference.sd is None:
        return "unknown, it takes at least two seeds of both"
    needed = "not even thousands" if finding.seeds_needed is None else f"{finding.seeds_needed:,}"
    return f"{needed} ({len(finding.seeds)} pilot seeds spread by {100 * finding.difference.sd:.2f} points)"


def spread_in_words(seeds: int) -> str:
    """How well a pilot knows by how much seeds differ."""
    low, high = sd_interval(seeds)
    return (
        f"the true spread is {low:.2g} to {high:.2g} times that of {seeds} seeds: take more where they are cheap"
    )
