"""Are the verdicts of `foveate compare` right as often as they promise?

One arm, a small network on a part of the digits, is compared with itself (A/A), and with an effect planted.
docs/benchmarks.md says how, and which counts are expected. There is no peer.

    python benchmarks/verdicts.py --folder FOLDER --json FILE    # resumes when it was killed
"""

import contextlib
import sys
import tempfile
from argparse import Namespace
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveate.comparison.arms import parse_arm
from foveate.comparison.planning import plan
from foveate.comparison.pooling import Family
from foveate.comparison.statistics import Difference, compare, conclude, spread_of
from foveate.comparison.training import ArmJob, result_path, run_arm, unpack
from foveate.data.dataset import Dataset, load_dataset
from foveate.execution.local import LocalPool
from foveate.execution.serial import SerialPool
from foveate.settings import DataConfig
from foveate.training.device import prepare_process
from foveate.training.settings import resolve_settings
from harness import begin, command_line, read_record, write_record

STAGES = "[{filters: 8, kernels: [3, 3]}, {filters: 16, kernels: [3, 3]}]"
ARM = f"minute,attention=none,stages={STAGES},epochs=1,passes_per_epoch=4,batch=50,tta_views=1"
FAMILY = Family("pairs", ((1, 0),), 2)
"""One pair, by its own spread: of two arms, what the rule `blocks` comes to as well."""
TINY_DELTA = 1e-9
"""Nothing lies within ±δ then: only helps, hurts and inconclusive are left, and the level is what is tested."""

Bits = NDArray[np.bool_]


def main() -> None:
    """Train every run, then compare; print and write what came of it."""
    parser = command_line(
        __doc__,
        comparisons=(200, "of the arm with itself"),
        seeds=(5, "of each side of those"),
        planted=(100, "comparisons with a planted effect"),
        points=(1.0, "the effect, in points of accuracy"),
        pilot=(10, "seeds of each side of the pilot"),
        subset=(1100, "training images"),
        workers=(2, "processes; 0: this one alone"),
        folder=(Path, "keep the runs there, and do not repeat those that lie there"),
        bits=(Path, "an .npz of this benchmark: judge the runs that it recorded, and train none"),
    )
    arguments = begin(parser)
    with tempfile.TemporaryDirectory() as temporary:
        measure(arguments, arguments.folder or Path(temporary))


def measure(arguments: Namespace, folder: Path) -> None:
    """All of it, with the runs in `folder`."""
    effect, draw = arguments.points / 100, np.random.default_rng(0)
    runs = Runs(arguments, folder)
    pilot = runs[: 2 * arguments.pilot]
    seen = compare(pilot[: arguments.pilot], pilot[arguments.pilot :])
    spread = spread_of(seen, FAMILY, None) or sys.exit("the pilot has no spread: give it more seeds")
    planned = plan(seen, FAMILY, spread, delta=effect, alpha=0.05)
    needed = planned.difference or sys.exit(f"no number of seeds sees {arguments.points:g} points")
    told = f"differences spread by {100 * spread.sd:.2f} points, taken as {100 * planned.sd:.2f}"
    print(f"the pilot's {arguments.pilot} {told}: {needed} seeds for {arguments.points:g} points", flush=True)
    first, alike = len(pilot), 2 * arguments.seeds * arguments.comparisons
    verdicts = Counter(
        answer(compare(*sides))
        for sides in runs[first : first + alike].reshape(arguments.comparisons, 2, arguments.seeds, -1)
    )
    called = verdicts["helps"] + verdicts["hurts"]
    told = f"{arguments.comparisons} comparisons of {arguments.seeds} seeds"
    print(f"A/A, {told}: {called} called different {dict(verdicts)}")
    planted = min(arguments.planted, (runs.most - first) // (2 * needed))
    found = Counter(
        answer(compare(better(one, effect, draw), other))
        for one, other in runs[first : first + 2 * needed * planted].reshape(planted, 2, needed, -1)
    )
    print(f"planted {arguments.points:g} points, {planted} comparisons of {needed} seeds: {dict(found)}")
    bits = runs[: first + max(alike, 2 * needed * planted)]
    record = {"images": bits.shape[1], "accuracy": float(bits[first:].mean()), "seeds": arguments.seeds}
    record |= {"alike": dict(verdicts), "pilot_sd": spread.sd, "planned_sd": planned.sd, "planted_seeds": needed}
    write_record(arguments.json, {**record, "planted_points": arguments.points, "planted": dict(found)})
    if arguments.json and not arguments.bits:  # which images each seed got right, from seed 0 on
        np.savez_compressed(arguments.json.with_suffix(".npz"), right=np.packbits(bits, axis=1))


def answer(difference: Difference) -> str:
    """The verdict on a pair."""
    spread = spread_of(difference, FAMILY, None)
    return conclude(difference, FAMILY, spread, delta=TINY_DELTA).answer


class Runs:
    """Which validation images each seed gets right, from 0 on: [seeds, images], trained when it is asked for.

    `most`: seeds that there can be.
    """

    def __init__(self, arguments: Namespace, folder: Path) -> None:
        self._arguments, self._folder, self.most = arguments, folder, 10**9
        self._dataset = load_dataset("digits", DataConfig(size=16))
        self._recorded: Bits | None = None
        if arguments.bits:
            images = len(self._dataset.splits["validation"])
            with np.load(arguments.bits, allow_pickle=False) as file:
                self._recorded = np.unpackbits(file["right"], axis=1)[:, :images].astype(bool)
            self.most = len(self._recorded)

    def __getitem__(self, seeds: slice) -> Bits:
        """Of a range of seeds."""
        if self._recorded is not None:
            return self._recorded[seeds]
        return train(self._arguments, self._dataset, range(seeds.start or 0, seeds.stop), self._folder)


def train(arguments: Namespace, dataset: Dataset, seeds: range, folder: Path) -> Bits:
    """Which validation images each seed gets right: [seeds, images]."""
    arm = parse_arm(ARM, {"threads": 1, "device": "cpu", "size": 16})
    prepare_process(arm.config)  # as many threads as a worker will have
    config = resolve_settings(arm.config, dataset)
    done = {seed: result_path(folder / str(seed), "validation") for seed in seeds}
    results = {seed: read_record(path, None) for seed, path in done.items() if path.exists()}
    pool = LocalPool(run_arm, arguments.workers) if arguments.workers else SerialPool(run_arm)
    with contextlib.closing(pool):
        waiting, running = [seed for seed in seeds if seed not in results][::-1], 0
        while waiting or running:
            while waiting and running < pool.workers:
                seed = waiting.pop()
                job = ArmJob(
                    config=config.replacing(seed=seed),
                    dataset="digits",
                    data_dir=None,
                    fingerprint=dataset.fingerprint,
                    subset=arguments.subset,
                    folder=str(folder / str(seed)),
                    split="validation",
                )
                pool.submit(seed, job.model_dump(mode="json"))
                running += 1
            event = pool.event(timeout_s=60)
            if event is None or event.kind == "progress":
                continue
            if event.kind != "done":
                sys.exit(f"seed {event.job}: {event.value['message']}")
            results[event.job] = event.value
            running -= 1
    return np.stack([unpack(results[seed]["right"], results[seed]["images"]) for seed in seeds])


def better(right: Bits, effect: float, draw: np.random.Generator) -> Bits:
    """The answers [seeds, images], of which a share `effect` of each seed was put right, if as many are wrong.

    What is no whole image is left to chance.
    """
    mended = right.copy()
    for answers in mended:
        wrong = draw.permutation(np.flatnonzero(~answers))
        answers[wrong[: int(effect * len(answers) + draw.random())]] = True
    return mended


if __name__ == "__main__":
    main()
