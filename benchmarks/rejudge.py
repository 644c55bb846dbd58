"""What a recorded comparison comes to by each rule: its runs are read from the record, and nothing is trained.

A record is what docs/records/evidence keeps of a comparison: its settings, a table of its runs, and which images
each of them got right. The rule that a new comparison has is `blocks`; `seeds` is that of earlier versions.

    python benchmarks/rejudge.py docs/records/evidence/screening docs/records/evidence/small --json FILE
"""

import csv
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from foveate.comparison.experiment import ArmRun, Experiment
from foveate.comparison.findings import PairFinding, pair_findings
from foveate.comparison.pooling import Rule
from foveate.comparison.settings import ComparisonConfig
from foveate.comparison.training import ArmResult, JudgedSplit, pack
from foveate.config import read_yaml
from foveate.validation import validated
from harness import begin, command_line, write_record

RULES: tuple[Rule, ...] = ("seeds", "pairs", "blocks", "dunnett")
SPLITS: tuple[JudgedSplit, ...] = ("validation", "test")


class Recorded(Experiment):
    """An experiment of which a record is left, without its runs' folders."""

    def __init__(self, folder: Path, split: JudgedSplit, rule: Rule) -> None:
        values = read_yaml(folder / "comparison.yaml")
        for arm in values["arms"]:
            if (control_of := arm.pop("control_of", None)) or arm["matched"] is None:  # how records began
                arm["matched"] = {control_of: arm["matched"]} if control_of else {}
        config = validated(ComparisonConfig, values)
        super().__init__(config.model_copy(update={"rule": rule}), folder, split)
        names = {arm.name: place for place, arm in enumerate(config.arms)}
        sizes = {"" if size is None else str(size): place for place, size in enumerate(config.subsets)}
        with (folder / f"results-{split}.csv").open(encoding="utf-8") as file:
            rows = {
                ArmRun(sizes[row["training_images"]], int(row["seed"]), names[row["arm"]]): row
                for row in csv.DictReader(file)
            }
        with np.load(folder / f"right-{split}.npz", allow_pickle=False) as file:
            runs, bits = file["runs"], np.unpackbits(file["right"], axis=1).astype(bool)
        self._recorded: dict[ArmRun, ArmResult] = {}
        for place, padded in zip(runs.tolist(), bits, strict=True):
            row = rows[run := ArmRun(*place)]
            accuracy = float(row["accuracy"])
            right = padded[: round(padded.sum() / accuracy)]  # without the bits that fill the last byte
            without, gate = (float(row[key]) if row[key] else None for key in ("without_attention", "gate"))
            self._recorded[run] = ArmResult(
                accuracy=accuracy,
                loss=float(row["loss"]),
                without_attention=without,
                gate=gate,
                images=len(right),
                right=pack(right),
                train_s=float(row["train_s"]),
                images_shown=int(row["images_shown"]),
            )

    def result(self, run: ArmRun) -> ArmResult | None:
        """What the record has of a run."""
        return self._recorded.get(run)


def main() -> None:
    """Judge every record by every rule, and print and write what comes of it."""
    parser = command_line(__doc__)
    parser.add_argument("records", nargs="+", type=Path)
    arguments = begin(parser)
    record: dict[str, Any] = {}
    for folder in arguments.records:
        for split in (each for each in SPLITS if (folder / f"right-{each}.npz").exists()):
            for rule in RULES:
                findings = pair_findings(Recorded(folder, split, rule))
                print(f"{folder.name}, {split} images, by the rule {rule}:")
                for finding in findings:
                    print(f"  {finding.title}:\n    {finding.words}  {intervals(finding)}")
                record.setdefault(folder.name, {}).setdefault(split, {})[rule] = [kept(each) for each in findings]
    write_record(arguments.json, record)


def kept(finding: PairFinding) -> dict[str, Any]:
    """What the record holds of a pair."""
    difference, verdict = finding.difference, finding.verdict
    return {
        "pair": finding.title,
        "difference": difference and difference.mean,
        "correlation": difference and difference.correlation,
        "spread": finding.spread and asdict(finding.spread),
        "verdict": verdict and asdict(verdict),
        "words": finding.words,
    }


def intervals(finding: PairFinding) -> str:
    """In points: over seeds, over seeds and images, and the same for two one-sided tests."""
    verdict = finding.verdict
    found = (verdict.interval, verdict.image_interval, verdict.equivalence_interval) if verdict else ()
    return " ".join(f"[{100 * each[0]:+.2f}, {100 * each[1]:+.2f}]" for each in found if each)


if __name__ == "__main__":
    main()
