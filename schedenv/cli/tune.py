"""The command `schedenv tune`."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from schedenv import hardware as hw
from schedenv.calibration import Peaks
from schedenv.calibration import peaks as measure_peaks
from schedenv.cli import networks
from schedenv.cli.display import LiveDisplay, duration
from schedenv.cli.fleet import find_devices
from schedenv.errors import InputError
from schedenv.networks.tune import DEFAULT_AGENT, NetworkRequest
from schedenv.records.database import is_url, without_password
from schedenv.space import UNTUNED
from schedenv.tasks import resolve
from schedenv.tuning import run_dir
from schedenv.tuning.tune import Outcome, Request, Watcher
from schedenv.tuning.tune import tune as run_tune

_DEFAULT_SECONDS = 60.0
_DEFAULT_AGENT = "greedy-prior"
_NOTABLE_DRIFT = 1.5


def tune(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK",
            help="An operator (gmm), with a shape (gmm:1x512x512x512), a member of a suite "
            "(core/gmm-2), a function in a file (program.py:function), or a whole network "
            "(model.onnx, or model.pt2 of torch.export).",
        ),
    ],
    agent: Annotated[
        str | None,
        typer.Option(
            help="Who proposes candidates: an installed agent, FILE.py:CLASS, or the folder of a "
            "checkpoint. [default: greedy-prior; register-tiles for a network]"
        ),
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Stop after this many candidates.")] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            help="Stop after this long. [default: 60 if --trials is not given; 600 for a network]"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Run directory. [default: out/TASK-AGENT-SEED]")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    allow_foreign: Annotated[
        bool, typer.Option("--allow-foreign", help="Accept records of other hardware in --out.")
    ] = False,
    tracker: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Measure on the devices of this tracker."),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="With --tracker: what the devices are registered under.")
    ] = None,
    hardware_file: Annotated[
        Path | None,
        typer.Option(
            "--hardware",
            help="With --tracker: output of schedenv doctor --json on a device, if the devices "
            "are served by plain TVM.",
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            help="Where the results go, if not to --out: a file, or "
            "postgresql+psycopg://USER@HOST/NAME."
        ),
    ] = None,
    scheduler: Annotated[
        str, typer.Option(help="For a network: which task goes on (gradient, round-robin, ucb).")
    ] = "gradient",
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=EXTENTS", help="For a network: an input's shape, 1x3x224x224."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object at the end, nothing else.")
    ] = False,
) -> None:
    """Find a faster schedule for one task, or for all of a network's, and verify it."""
    if networks.is_network(task):
        agent = agent or DEFAULT_AGENT
        alone = {"--trials": trials, "--tracker": tracker, "--store": store}
        given = [option for option, value in alone.items() if value is not None]
        if given:
            raise InputError(
                f"{' and '.join(given)} cannot be used with a network; it is tuned for --seconds "
                "on this machine, and its records are in --out"
            )
        networks.run(
            NetworkRequest(
                Path(task),
                networks.DEFAULT_SECONDS if seconds is None else seconds,
                out or _default_out(Path(task).stem, agent, seed),
                networks.parse_shapes(shape or ()),
                agent,
                scheduler,
                seed,
                resume,
            ),
            _own_peaks(),
            Console(highlight=False),
            as_json=as_json,
        )
        return
    resolved = resolve(task)
    agent = agent or _DEFAULT_AGENT
    if trials is None and seconds is None:
        seconds = _DEFAULT_SECONDS
    devices = find_devices(tracker, key, hardware_file)
    request = Request(
        resolved,
        agent,
        trials,
        seconds,
        seed,
        out or _default_out(resolved.name, agent, seed),
        resume,
        allow_foreign,
        devices.fleet if devices else None,
        devices.hardware if devices else None,
        hardware_file,
        store if store is None or is_url(store) else str(Path(store).absolute()),
    )
    peaks = devices.peaks if devices else _own_peaks()
    console = Console(highlight=False)
    try:
        if as_json:
            outcome = run_tune(request, peaks, Watcher())
            typer.echo(json.dumps(_summary(request, outcome)))
        else:
            with LiveDisplay(console, resolved, peaks) as display:
                outcome = run_tune(request, peaks, display)
            _report(request, outcome, console)
    except KeyboardInterrupt:
        # Before or after the search, which deals with interruptions itself.
        Console(stderr=True, soft_wrap=True).print(
            f"interrupted; every result is kept. Continue with:\n  {resume_command(request)}"
        )
        raise typer.Exit(130) from None
    if outcome.interrupted_by is not None:
        raise typer.Exit(128 + outcome.interrupted_by)


def _own_peaks() -> Peaks:
    with Console(stderr=True).status("measuring this machine's peaks (once, some 8 seconds)"):
        return measure_peaks(hw.detect())


def _default_out(name: str, agent: str, seed: int) -> Path:
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", f"{name}-{agent}").strip("-")
    return Path("out") / f"{slug}-{seed}"


def resume_command(request: Request, budget_factor: int = 1) -> str:
    """The command that continues a run, with its budget multiplied."""
    words = ["schedenv", "tune", request.task.name, "--agent", request.agent]
    if request.trials is not None:
        words += ["--trials", str(request.trials * budget_factor)]
    if request.seconds is not None:
        words += ["--seconds", f"{request.seconds * budget_factor:g}"]
    if request.fleet is not None:
        words += ["--tracker", str(request.fleet.tracker), "--key", request.fleet.key]
    if request.hardware_file is not None:
        words += ["--hardware", str(request.hardware_file)]
    if request.store is not None:
        words += ["--store", without_password(request.store)]
    words += ["--seed", str(request.seed), "--out", str(request.out), "--resume"]
    return shlex.join(words)


def export_command(out: Path) -> str:
    """The command that makes a run's result usable by plain TVM."""
    words = ["schedenv", "export", str(out), "--format", "metaschedule"]
    return shlex.join([*words, "--to", str(out / "database")])


def _summary(request: Request, outcome: Outcome) -> dict[str, Any]:
    if outcome.verdict is not None:
        return {**run_dir.read_json(request.out / run_dir.BEST), "out": str(request.out)}
    best = outcome.progress.best
    return {
        "task": request.task.spec,
        "interrupted": True,
        "unconfirmed_best_us": best.estimate_s * 1e6 if best and best.estimate_s else None,
        "trials": outcome.trials,
        "elapsed_s": outcome.elapsed_s,
        "out": str(request.out),
        "resume": resume_command(request),
    }


def _report(request: Request, outcome: Outcome, console: Console) -> None:
    counts = ", ".join(
        f"{count} {status.value}" for status, count in outcome.progress.counts.most_common()
    )
    spent = f"{outcome.trials} trials in {duration(outcome.elapsed_s)} ({counts or 'none'})"
    verdict = outcome.verdict
    if verdict is None:
        console.print(
            f"interrupted after {spent}; every result is kept. Continue with:", soft_wrap=True
        )
        console.print(f"  {resume_command(request)}", soft_wrap=True)
        return
    best = run_dir.read_json(request.out / run_dir.BEST)
    tuned, baseline = best["tuned"], best["baseline"]
    if verdict.point == UNTUNED:
        console.print(
            f"[yellow]nothing beat the untuned program[/] ({baseline['latency_us']:.1f} us): "
            f"{spent}. Try a larger budget:",
            soft_wrap=True,
        )
        console.print(f"  {resume_command(request, budget_factor=4)}", soft_wrap=True)
        return
    _warn_of_drift(outcome, console)
    console.print(best["schedule"], style="dim")
    low, ratio, high = verdict.ratios
    rate = (
        f", {tuned['gflops_per_s']:.4g} GFLOP/s = {tuned['fraction_of_peak']:.0%} of peak"
        if request.task.flops
        else ""
    )
    console.print(
        f"[bold green]{request.task.name}: {tuned['latency_us']:.1f} us[/] "
        f"(95 % {tuned['low_us']:.1f} to {tuned['high_us']:.1f}){rate}, verified",
        soft_wrap=True,
    )
    console.print(
        f"[bold]{ratio:.1f}x[/] faster than untuned ({low:.1f} to {high:.1f}; "
        f"{baseline['latency_us']:.1f} us); {spent}; use it with: "
        f"{export_command(request.out)}",
        soft_wrap=True,
    )


def _warn_of_drift(outcome: Outcome, console: Console) -> None:
    """Say so if the machine's own speed changed much while candidates were compared."""
    slowest = outcome.progress.machine_range()
    if slowest is not None and slowest[1] > _NOTABLE_DRIFT * slowest[0]:
        console.print(
            f"[yellow]the machine's own speed varied {slowest[1] / slowest[0]:.1f}-fold during the "
            "search[/] (a reference kernel timed with each candidate); a quieter one finds more",
            soft_wrap=True,
        )
