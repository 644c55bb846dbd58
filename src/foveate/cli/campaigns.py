"""The commands that train many networks: tune and compare."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

import foveate
from foveate import terminal
from foveate.cli import options as opt
from foveate.cli.early import check_request
from foveate.cli.options import given_settings, stoppable
from foveate.cli.results import print_comparison
from foveate.durations import seconds
from foveate.errors import ConfigError


def tune(
    data: opt.Data = None,
    space: Annotated[
        str | None, typer.Option(help="What is searched: paper, default (the default), or a YAML file.")
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            "--search",
            "--knob",
            metavar="NAME",
            help="Search this hyperparameter of the space; repeatable (default: all). --knob is its older name.",
        ),
    ] = None,
    max_epochs: Annotated[int | None, typer.Option(help="Epochs of the longest trials, R (default: 9).")] = None,
    factor: Annotated[
        int | None,
        typer.Option(help="A rung keeps one trial in this many, η (default: 6 of screening, 3 of hyperband)."),
    ] = None,
    formula: Annotated[
        str | None, typer.Option(help="Sizes of Hyperband's brackets: li2018 (the default) or kerastuner.")
    ] = None,
    algorithm: Annotated[
        str | None,
        typer.Option(
            help="screening: many short trials, the best of every six long (the default where the rate falls); "
            "hyperband (where it is constant, or with --factor or --formula); asha, where no trial waits."
        ),
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Trials of asha (default: as many as Hyperband has).")] = None,
    iterations: Annotated[int | None, typer.Option(help="Times that the brackets are gone through.")] = None,
    time: Annotated[
        str | None, typer.Option(metavar="90s|30m|1h", help="Go through as many brackets as fit into this time.")
    ] = None,
    semantics: Annotated[
        str | None,
        typer.Option(
            help="What a promoted trial does: begin anew, with a schedule of its own (the default where the rate "
            "falls); continue (where it is constant); or kerastuner, as the paper's library does it."
        ),
    ] = None,
    first_size: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            help="Size of the images in first rungs, which are cheaper then (default: as in the others).",
        ),
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="random (the default), or tpe.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the trials' settings.")] = None,
    workers: opt.Workers = None,
    ray: opt.Ray = None,
    gpus: opt.Gpus = None,
    threads: opt.JobThreads = None,
    subset: Annotated[
        int | None, typer.Option(help="Images to search with, training and validation together (default: all).")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="Folder or URL (of fsspec) for the checkpoints (default: the study's folder)."),
    ] = None,
    hang_limit: opt.HangLimit = None,
    size: opt.Size = None,
    device: opt.Device = None,
    setting: opt.Setting = None,
    name: opt.Name = None,
    runs: opt.Runs = opt.RUNS,
    data_dir: opt.DataDir = None,
    resume: Annotated[
        Path | None, typer.Option(help="Study to resume where it stopped; DATA only if it was moved.")
    ] = None,
) -> None:
    """Search settings on DATA with many trials. The test split stays closed."""
    plan: dict[str, Any] = {
        "max_epochs": max_epochs,
        "factor": factor,
        "formula": formula,
        "algorithm": algorithm,
        "trials": trials,
        "iterations": iterations,
        "time_s": None if time is None else seconds(time),
        "semantics": semantics,
        "first_size": first_size,
        "sampler": sampler,
        "seed": seed,
        "storage": storage,
        "hang_limit_s": hang_limit,
    }
    given = {key: value for key, value in plan.items() if value is not None}
    settings = given_settings(setting, size=size, device=device, threads=threads)
    if resume is not None and (given or settings or space or search or subset or name or runs != opt.RUNS):
        raise ConfigError(
            f"--resume takes every setting from the study: `foveate tune --resume {shlex.quote(str(resume))}`"
        )
    if resume is None and data is None:
        raise ConfigError("nothing to tune on: name a data set, as in `foveate tune digits`")
    if resume is None:
        check_request("tune", data, runs, name)
    crew: dict[str, Any] = {"workers": workers, "ray": ray, "gpus": gpus}
    display = terminal.display()
    with stoppable():
        if resume is not None:
            done = foveate.resume_study(resume, data, data_dir=data_dir, display=display, **crew)
        else:
            done = foveate.tune(
                data or "",
                space=space or "default",
                search=tuple(search or ()),
                **crew,
                subset=subset,
                data_dir=data_dir,
                runs=runs,
                name=name,
                display=display,
                settings=settings,
                **given,
            )
    terminal.print_lines(done.lines, results=done.results, report=done.report)


def compare(
    data: opt.Data = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PRESET[,KEY=VALUE…]",
            help="What is compared; repeatable. A single arm is compared with itself without attention.",
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Runs of every arm (default: 5, or 4 with --plan).")] = None,
    first_seed: Annotated[int | None, typer.Option(help="The first seed (default: 0).")] = None,
    subset: Annotated[
        list[int] | None,
        typer.Option(help="Train on this many images; repeatable, for a curve of data size (default: all)."),
    ] = None,
    delta: Annotated[
        float | None, typer.Option(help="Smallest difference that matters, in points of accuracy (default: 0.5).")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Chance of any false verdict, over all pairs together (default: 0.05).")
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(
            help="How pairs are judged together: blocks (the default: one spread for all arms, seed effects "
            "removed), dunnett (one spread, seed effects left in), or pairs (each pair by its own spread)."
        ),
    ] = None,
    controls: Annotated[
        bool, typer.Option("--controls/--no-controls", help="Controls matched in parameters and in FLOPs.")
    ] = True,
    plan: Annotated[
        bool, typer.Option("--plan", help="Run a small pilot, and print how many seeds a comparison needs.")
    ] = False,
    workers: opt.Workers = None,
    ray: opt.Ray = None,
    gpus: opt.Gpus = None,
    threads: opt.JobThreads = None,
    hang_limit: opt.HangLimit = None,
    size: opt.Size = None,
    device: opt.Device = None,
    setting: opt.Setting = None,
    name: opt.Name = None,
    runs: opt.Runs = opt.RUNS,
    data_dir: opt.DataDir = None,
    final: Annotated[
        bool, typer.Option("--final", help="Open the test split after every run has ended, and judge by it.")
    ] = False,
    resume: Annotated[
        Path | None, typer.Option(help="Comparison to resume where it stopped; DATA only if it was moved.")
    ] = None,
) -> None:
    """Train arms with the same seeds on DATA. Say whether they differ."""
    chosen: dict[str, Any] = {
        "seeds": seeds,
        "first_seed": first_seed,
        "subsets": tuple(subset) if subset else None,
        "delta": delta / 100 if delta is not None else None,
        "alpha": alpha,
        "rule": rule,
        "hang_limit_s": hang_limit,
    }
    given = {key: value for key, value in chosen.items() if value is not None}
    settings = given_settings(setting, size=size, device=device, threads=threads)
    if delta is not None and not 0 < delta < 100:
        raise ConfigError(f"--delta {delta:g}: give points of accuracy, above 0 and below 100")
    if resume is not None and (
        arm or seeds or given or settings or name or runs != opt.RUNS or plan or not controls
    ):
        raise ConfigError(
            "--resume takes every setting from the comparison: "
            f"`foveate compare --resume {shlex.quote(str(resume))}`"
        )
    if resume is None and data is None:
        raise ConfigError("nothing to compare on: name a data set, as in `foveate compare digits --arm minute`")
    if plan and (final or first_seed is not None):
        raise ConfigError(
            "--plan has seeds of its own and opens no test split: give neither --final nor --first-seed"
        )
    if resume is None:
        check_request("compare", data, runs, name)
    crew: dict[str, Any] = {"workers": workers, "ray": ray, "gpus": gpus}
    display = terminal.display()
    with stoppable():
        if resume is not None:
            done = foveate.resume_comparison(resume, data, data_dir=data_dir, final=final, display=display, **crew)
        else:
            if final:
                given["final"] = True
            make = foveate.plan_comparison if plan else foveate.compare
            done = make(
                data or "",
                tuple(arm or ()),
                controls=controls,
                **crew,
                data_dir=data_dir,
                runs=runs,
                name=name,
                settings=settings,
                display=display,
                **given,
            )
    print_comparison(done)
