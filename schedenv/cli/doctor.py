"""The command `schedenv doctor`."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from schedenv.calibration import Peaks
from schedenv.doctor import Check, Report, diagnose
from schedenv.hardware import Hardware

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    noise: Annotated[
        bool, typer.Option("--noise", help="Also time one kernel against itself (A/A test).")
    ] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Measure the peaks again, cached or not.")
    ] = False,
) -> None:
    """Show the machine, versions, threads, peaks and noise: what is wrong and how to mend it."""
    with Console(stderr=True).status("examining the machine (up to 20 seconds)"):
        report = diagnose(noise=noise, refresh=refresh)
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        _render(report, Console())
    raise typer.Exit(1 if report.failed else 0)


def _render(report: Report, console: Console) -> None:
    if report.hardware is not None:
        console.print(_machine_table(report.hardware))
    console.print(_pairs_table("Versions", report.versions))
    if report.peaks is not None:
        console.print(_peaks_table(report.peaks))
    console.print(_checks_table(report.checks))
    _render_mends(report.checks, console)


def _machine_table(hardware: Hardware) -> Table:
    return _pairs_table(
        "Machine",
        {
            "processor": f"{hardware.cpu_model} ({hardware.mcpu})",
            "cores used": str(hardware.cores),
            "vectors": f"{hardware.vector_bits} bits",
            "L1 data, a core": _binary_size(hardware.l1d_bytes),
            "L2, a core": _binary_size(hardware.l2_bytes),
            "L3, shared": _binary_size(hardware.l3_bytes),
            "memory": _binary_size(hardware.memory_bytes),
            "fingerprint": hardware.fingerprint,
        },
    )


def _peaks_table(peaks: Peaks) -> Table:
    return _pairs_table(
        "Measured peaks",
        {
            "float32, all cores": f"{peaks.flops_per_s / 1e9:.0f} GFLOP/s",
            "float32, one core": f"{peaks.one_core_flops_per_s / 1e9:.0f} GFLOP/s",
            "copy, read plus write": f"{peaks.copy_bytes_per_s / 1e9:.1f} GB/s",
            "measured": peaks.measured_at_iso,
        },
    )


def _pairs_table(title: str, pairs: dict[str, str]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs.items():
        # Text, for brackets in a string would be taken for markup.
        table.add_row(name, Text(value))
    return table


def _checks_table(checks: tuple[Check, ...]) -> Table:
    table = Table("", "check", "found", title="Checks", title_justify="left")
    for check in checks:
        status = Text(check.status, style=_COLOURS[check.status])
        table.add_row(status, Text(check.name), Text(check.detail))
    return table


def _render_mends(checks: tuple[Check, ...], console: Console) -> None:
    """Print the mends below the table, one a line and unwrapped, so that they can be copied."""
    mends = [check for check in checks if check.mend is not None and check.status != "ok"]
    if not mends:
        console.print("Nothing to mend.")
        return
    console.print("To mend:", style="bold")
    for check in mends:
        line = Text.assemble("  ", (check.name, _COLOURS[check.status]), f": {check.mend}")
        console.print(line, soft_wrap=True)


def _binary_size(size_bytes: int | None) -> str:
    if size_bytes is None:
        return "unknown"
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.4g} {unit}"
    return f"{size_bytes} bytes"
