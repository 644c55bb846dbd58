"""Are the verdicts of `foveate compare` right as often as they promise?

One arm, a small network on a part of the digits, is compared with itself (A/A), and with an effect planted.
docs/benchmarks.md says how, and which counts are expected. There is no peer.

    python benchmarks/verdicts.py --folder FOLDER --json docs/records/verdicts.json    # resumes when it was killed
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
from foveate.comparison.statistics import compare, conclude, seeds_needed
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
    )
    arguments = begin(parser)
    with tempfile.TemporaryDirectory() as temporary:
        measure(arguments, arguments.folder or Path(temporary))


def measure(arguments: Namespace, folder: Path) -> None:
    """All of it, with the runs in `folder`."""
    effect, draw = arguments.points / 100, np.random.default_rng(0)
    dataset = load_dataset("digits", DataConfig(size=16))
    pilot = train(arguments, dataset, range(2 * arguments.pilot), folder)
    sd = compare(pilot[: arguments.pilot], pilot[arguments.pilot :]).sd
    assert sd is not None
    needed = seeds_needed(sd, effect)
    assert needed is not None
    told = f"differences spread by {100 * sd:.2f} points"
    print(f"the pilot's {arguments.pilot} {told}: {needed} seeds for {arguments.points:g} points", flush=True)
    alike, planted = (2 * seeds for seeds in (arguments.seeds * arguments.comparisons, needed * arguments.planted))
    runs = train(arguments, dataset, range(len(pilot), len(pilot) + max(alike, planted)), folder)
    verdicts = Counter(
        conclude(compare(*sides), delta=TINY_DELTA).answer
        for sides in runs[:alike].reshape(arguments.comparisons, 2, arguments.seeds, -1)
    )
    called = verdicts["helps"] + verdicts["hurts"]
    told = f"{arguments.comparisons} comparisons of {arguments.seeds} seeds"
    print(f"A/A, {told}: {called} called different {dict(verdicts)}")
    found = Counter(
        conclude(compare(better(one, effect, draw), other), delta=TINY_DELTA).answer
        for one, other in runs[:planted].reshape(arguments.planted, 2, needed, -1)
    )
    print(f"planted {arguments.points:g} points, {arguments.planted} comparisons of {needed} seeds: {dict(found)}")
    record = {"images": runs.shape[1], "accuracy": float(runs.mean()), "seeds": arguments.seeds}
    record |= {"alike": dict(verdicts), "pilot_sd": sd, "planted_seeds": needed}
    write_record(arguments.json, {**record, "planted_points": arguments.points, "planted": dict(found)})
    if arguments.json:  # which images each seed got right, from seed 0 on
        bits = np.packbits(np.concatenate([pilot, runs]), axis=1)
        np.savez_compressed(arguments.json.with_suffix(".npz"), right=bits)


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
