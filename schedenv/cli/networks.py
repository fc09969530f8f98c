"""`schedenv tune model.onnx`, or `model.pt2`: a whole network."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from schedenv.calibration import Peaks
from schedenv.cli.display import duration
from schedenv.errors import InputError
from schedenv.networks import build
from schedenv.networks.report import TUNED, UNTUNED
from schedenv.networks.slices import Search, Slice
from schedenv.networks.tune import NetworkOutcome, NetworkRequest, NetworkWatcher, tune_network
from schedenv.tasks.resolve import NETWORK_FILES

DEFAULT_SECONDS = 600.0

_PEERS = {"onnxruntime": "ONNX Runtime", "torch": "torch"}

_STAGES = {
    "import": "importing the network, folding constants, packing weights",
    "references": "computing every kernel's reference",
    "search": "searching",
    "finals": "timing each kernel's fastest candidates against each other",
    "build": "compiling the network with variants of its kernels, timing them there, and untuned",
    "confirm": "verifying the outputs, timing the networks in turn",
}
_ROWS = 12


def is_network(task: str) -> bool:
    """Whether a TASK string names a whole network."""
    return task.endswith(NETWORK_FILES)


def parse_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """`NAME=1x3x224x224` options as extents by name.

    Raises:
        InputError: One is not of that form.
    """
    shapes = {}
    for text in texts:
        name, equals, extents = text.rpartition("=")
        if not equals or not name or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", extents):
            raise InputError(
                f"expected --shape NAME=EXTENTS such as input=1x3x224x224, got {text!r}"
            )
        shapes[name] = tuple(int(extent) for extent in extents.split("x"))
    return shapes


class _Lines(NetworkWatcher):
    """One line a stage, one a slice."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def stage(self, name: str) -> None:
        self._console.print(f"[dim]{_STAGES[name]}[/]")

    def slice(self, part: Slice, search: Search) -> None:
        trials = search.kernels[part.task].trials
        best = "nothing valid yet" if part.best_s is None else f"{part.best_s * 1e6:.1f} us"
        found = f"{best} after {trials} trials"
        if part.negligible:
            found = f"{part.untuned_s * 1e6:.1f} us untuned, too little to be tuned"
        waiting = sum(not kernel.state.best_s for kernel in search.kernels.values())
        total = (
            f"{waiting} kernels to come"
            if waiting
            else f"kernels of the network {search.network_s * 1e3:.2f} ms"
        )
        self._console.print(
            f"{search.elapsed_s:6.0f} s  {part.task}: {found}; {total}", soft_wrap=True
        )


def run(request: NetworkRequest, peaks: Peaks, console: Console, *, as_json: bool) -> None:
    """Tune a network and say what came of it."""
    try:
        outcome = tune_network(request, peaks, None if as_json else _Lines(console))
    except KeyboardInterrupt:
        Console(stderr=True, soft_wrap=True).print(
            f"interrupted; every result is kept. Continue with:\n  {resume_command(request)}"
        )
        raise typer.Exit(130) from None
    if as_json:
        typer.echo(json.dumps(outcome.report or _unfinished(request, outcome)))
    elif outcome.report is None:
        console.print("interrupted; every result is kept. Continue with:", soft_wrap=True)
        console.print(f"  {resume_command(request)}", soft_wrap=True)
    else:
        print_report(outcome.report, request.out, console)
    if outcome.interrupted_by is not None:
        raise typer.Exit(128 + outcome.interrupted_by)


def resume_command(request: NetworkRequest) -> str:
    """The command that continues a run."""
    words = ["schedenv", "tune", str(request.path), "--agent", request.agent]
    words += ["--scheduler", request.scheduler, "--seconds", f"{request.seconds:g}"]
    for name, extents in request.shapes.items():
        words += ["--shape", f"{name}={'x'.join(map(str, extents))}"]
    words += ["--seed", str(request.seed), "--out", str(request.out), "--resume"]
    return shlex.join(words)


def _unfinished(request: NetworkRequest, outcome: NetworkOutcome) -> dict[str, Any]:
    return {
        "network": str(request.path),
        "interrupted": True,
        "seconds": outcome.search.elapsed_s,
        "resume": resume_command(request),
    }


def print_report(report: dict[str, Any], out: Path, console: Console) -> None:
    """Where the time goes, and how fast the network is."""
    rows = report["kernels"]
    vendor = report["verified"]["against"]
    columns = {
        "untuned_us": "untuned",
        "tuned_us": "tuned",
        "in_network_us": "in network",
        "vendor_us": _PEERS[vendor],
        "roofline_us": "roofline",
    }
    if all(row["vendor_us"] is None for row in rows):
        del columns["vendor_us"]
    table = Table(title="Where the time goes: us a call", box=SIMPLE)
    table.add_column("kernel", overflow="fold")
    for column in ("calls", *columns.values()):
        # Two lines leave room for the kernels' names.
        table.add_column(column.replace(" ", "\n"), justify="right")
    for row in rows[:_ROWS]:
        times = ("?" if row[key] is None else f"{row[key]:.1f}" for key in columns)
        table.add_row(row["kernel"], str(row["calls"]), *times)
    console.print(table)
    waiting = sum(row["tuned_us"] is None for row in rows)
    if waiting:
        console.print(
            f"[yellow]{waiting} of {len(rows)} kernels are untuned:[/] the budget ended before "
            "their turn; go on with a larger --seconds and --resume",
            soft_wrap=True,
        )
    if report["tune_next"]:
        console.print(f"Most to gain: {', '.join(report['tune_next'])}", soft_wrap=True)
    latency, speedup = report["latency_us"], report["speedup"]
    console.print(
        f"[bold green]{latency[TUNED]['estimate'] / 1e3:.3f} ms[/] "
        f"(95 % {latency[TUNED]['low'] / 1e3:.3f} to {latency[TUNED]['high'] / 1e3:.3f}), outputs "
        f"verified against {_PEERS[vendor]}; [bold]{speedup[UNTUNED]['estimate']:.1f}x[/] faster "
        f"than untuned TVM ({latency[UNTUNED]['estimate'] / 1e3:.2f} ms), "
        f"[bold]{speedup[vendor]['estimate']:.2f}x[/] (95 % {speedup[vendor]['low']:.2f} to "
        f"{speedup[vendor]['high']:.2f}) the speed of {_PEERS[vendor]} "
        f"({latency[vendor]['estimate'] / 1e3:.3f} ms)",
        soft_wrap=True,
    )
    for name, reason in report["left_out"].items():
        console.print(
            f"[yellow]{_PEERS.get(name, name)} was left out:[/] {escape(reason)}", soft_wrap=True
        )
    for key, what in (
        ("untried", "not all fast kernels were tried in the network"),
        ("untimed", "kernels are not timed in the network"),
        ("unprofiled", f"kernels of {_PEERS[vendor]} are not timed"),
    ):
        if report[key] is not None:
            console.print(f"[yellow]{what}:[/] {escape(report[key])}", soft_wrap=True)
    console.print(
        f"{report['trials']} trials in {duration(report['seconds'])}; run it with: "
        f"python {shlex.quote(str(out / build.EXAMPLE))}",
        soft_wrap=True,
    )
