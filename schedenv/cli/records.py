"""The commands `schedenv records list | show | merge | prune | verify | rescue | import`."""

from __future__ import annotations

import datetime
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from schedenv import hardware as hw
from schedenv.cli.stores import describe, existing, new_or_existing, schedule_text
from schedenv.errors import InputError
from schedenv.measure.result import Status
from schedenv.records import Archive, Record, Run, Selection
from schedenv.records.archive import Unreadable
from schedenv.records.metaschedule_import import import_database
from schedenv.records.printable import printable
from schedenv.records.rescue import rescue as run_rescue
from schedenv.records.upkeep import merge as run_merge
from schedenv.records.upkeep import prunable
from schedenv.tasks import resolve

app = typer.Typer(
    help="Look at record stores, and keep them in order. STORE is a file, a run directory or a "
    "URL such as postgresql+psycopg://USER@HOST/NAME.",
    no_args_is_help=True,
)

_SHOWN_REASONS = 10
_NAME_WIDTH = 60

_Store = Annotated[str, typer.Argument(metavar="STORE", help="A file, run directory or URL.")]
_Task = Annotated[str | None, typer.Option(help="Of this task: its name or hash.")]
_Statuses = Annotated[
    list[str] | None, typer.Option("--status", help="With this status; may be repeated.")
]
_Hardware = Annotated[str | None, typer.Option(help="Of this hardware: its fingerprint.")]
_Agent = Annotated[str | None, typer.Option(help="Proposed by this agent.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_(
    store: _Store,
    task: _Task = None,
    status: _Statuses = None,
    hardware: _Hardware = None,
    agent: _Agent = None,
    limit: Annotated[int, typer.Option(help="With --task: at most so many records.")] = 20,
    as_json: _Json = False,
) -> None:
    """List the tasks of a store; with --task, its records, the fastest first."""
    selection = Selection(task=task, fingerprint=hardware, agent=agent, statuses=_known(status))
    with existing(store) as archive:
        reading, runs = archive.read(selection), archive.runs()
    rows = _task_rows(reading.records) if task is None else _record_rows(reading.records, runs)
    shown = rows if task is None else rows[: max(0, limit)]
    if as_json:
        typer.echo(json.dumps({"rows": shown, "unreadable": len(reading.unreadable)}, indent=2))
        return
    if not rows:
        typer.echo("no records")
    else:
        Console().print(_as_table(shown))
        if len(shown) < len(rows):
            typer.echo(f"{len(rows) - len(shown)} more; show them with --limit {len(rows)}")
    _warn_of(reading.unreadable, archive.name)


@app.command()
def show(
    store: _Store,
    number: Annotated[int, typer.Argument(metavar="ID", help="As records list --task shows it.")],
    task: Annotated[
        str | None,
        typer.Option(help="The TASK that the record is of, if its stored name does not say."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Show one record: samples, phases, conditions, and its schedule."""
    with existing(store) as archive:
        reading, runs = archive.read(Selection(ids=[number])), archive.runs()
    if reading.unreadable:
        raise archive.unreadable(number, reading.unreadable[0].reason)
    if not reading.records:
        raise InputError(
            f"{archive.name} has no record {number}; "
            f"list them with: schedenv records list {archive.name} --task TASK"
        )
    record = reading.records[0]
    run = runs.get(record.run_id or "")
    if as_json:
        typer.echo(json.dumps(describe(record, run), indent=2))
        return
    console = Console(highlight=False, soft_wrap=True)
    grid = Table.grid(padding=(0, 2))
    for name, value in describe(record, run).items():
        text = value if isinstance(value, str) else json.dumps(value)
        grid.add_row(Text(name, style="bold"), Text(printable(text, limit=2000)))
    console.print(grid)
    console.print(Text(schedule_text(record, run, task)), style="dim")


@app.command()
def merge(
    stores: Annotated[list[str], typer.Argument(metavar="STORE...", help="What to copy from.")],
    to: Annotated[str, typer.Option("--to", help="A new or existing file, or a URL.")],
    as_json: _Json = False,
) -> None:
    """Copy the records of several stores into one; copies of one measurement once."""
    archives = [existing(store) for store in stores]
    try:
        with new_or_existing(to) as target:
            reports = run_merge(archives, target)
    finally:
        for archive in archives:
            archive.close()
    if as_json:
        content = [
            {
                "store": report.name,
                "added": report.added,
                "duplicates": report.duplicates,
                "unreadable": len(report.unreadable),
                "hardware": report.hardware,
            }
            for report in reports
        ]
        typer.echo(json.dumps(content, indent=2))
        return
    table = Table("store", "added", "duplicates", "unreadable", "hardware")
    for report in reports:
        counts = [report.added, report.duplicates, len(report.unreadable)]
        hardware = ", ".join(f"{printable(key)}: {n}" for key, n in report.hardware.items())
        table.add_row(Text(printable(report.name)), *map(str, counts), Text(hardware))
    Console().print(table)


@app.command()
def prune(
    store: _Store,
    task: _Task = None,
    status: _Statuses = None,
    hardware: _Hardware = None,
    agent: _Agent = None,
    older_than: Annotated[
        float | None, typer.Option(metavar="DAYS", help="Stored longer ago than this.")
    ] = None,
    keep_best: Annotated[
        int | None,
        typer.Option(metavar="N", help="Keep the N fastest of each task and hardware."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: _Json = False,
) -> None:
    """Delete the records that meet every condition given, but for --keep-best.

    A run whose records are deleted measures them again when it is resumed.
    """
    selection = Selection(
        task=task,
        fingerprint=hardware,
        agent=agent,
        statuses=_known(status),
        before=_days_ago(older_than),
    )
    with existing(store) as archive:
        going = prunable(archive, selection, keep_best)
        if not dry_run and going:
            archive.delete([record.id for record in going])
    counts = Counter(record.result.status.value for record in going)
    if as_json:
        typer.echo(json.dumps({"deleted": len(going), "dry_run": dry_run, "by_status": counts}))
        return
    listed = ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "none"
    typer.echo(f"{'would delete' if dry_run else 'deleted'} {len(going)} records ({listed})")


@app.command()
def verify(store: _Store, as_json: _Json = False) -> None:
    """Check a store and every record in it; exit code 1 if anything is wrong."""
    with existing(store) as archive:
        damage, reading = archive.damage(), archive.read()
    whole = not damage and not reading.unreadable
    if as_json:
        content = {
            "ok": whole,
            "records": len(reading.records),
            "unreadable": {row.id: row.reason for row in reading.unreadable},
            "damage": damage,
        }
        typer.echo(json.dumps(content, indent=2))
    else:
        for line in damage:
            typer.echo(f"damaged: {line}")
        for row in reading.unreadable:
            typer.echo(f"record {row.id}: {printable(row.reason, limit=200)}")
        typer.echo(
            f"{len(reading.records)} records are good, {len(reading.unreadable)} cannot be read"
        )
        if not whole:
            typer.echo(f"copy the good ones with: schedenv records rescue {archive.name} --to NEW")
    if not whole:
        raise typer.Exit(1)


@app.command()
def rescue(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The damaged file.")],
    to: Annotated[Path, typer.Option("--to", help="A file that does not exist yet.")],
    as_json: _Json = False,
) -> None:
    """Copy every readable record of a damaged store into a new one, and say what is lost."""
    if to.exists():
        raise InputError(f"--to {to} exists already; expected a new file")
    if not store.is_file():
        raise InputError(f"{store} does not exist; expected the file of a record store")
    with Archive(to) as target:
        report = run_rescue(store, target)
    if as_json:
        content = {
            "records": report.records,
            "from_pages": report.from_pages,
            "unreadable": report.unreadable,
            "missing": report.missing,
            "damage": report.damage,
        }
        typer.echo(json.dumps(content, indent=2))
        return
    damage = " ".join(report.damage.split()) if report.damage else "none found by SQLite"
    typer.echo(f"damage: {printable(damage, limit=200)}")
    typer.echo(f"{report.records} records copied to {to}")
    if report.from_pages:
        typer.echo(f"  {report.from_pages} of them SQLite itself could not reach any more")
    for number, reason in list(report.unreadable.items())[:_SHOWN_REASONS]:
        typer.echo(f"  record {number} is lost: {printable(reason, limit=200)}")
    if len(report.unreadable) > _SHOWN_REASONS:
        typer.echo(f"  and {len(report.unreadable) - _SHOWN_REASONS} more like these are lost")
    if report.missing:
        typer.echo(f"  {report.missing} numbers have no row: lost, or deleted in earlier days")


@app.command("import")
def import_(
    directory: Annotated[Path, typer.Argument(help="A MetaSchedule database.")],
    task: Annotated[str, typer.Option(metavar="TASK", help="What its records are of.")],
    to: Annotated[str, typer.Option("--to", help="A new or existing file, or a URL.")],
    as_json: _Json = False,
) -> None:
    """Import the records of a MetaSchedule database that are points of the task's space."""
    resolved = resolve(task)
    with new_or_existing(to) as target:
        report = import_database(directory, resolved, hw.detect(), target)
    reasons = Counter((line.kind, line.reason or "") for line in report.left_out)
    if as_json:
        content = {
            "added": report.added,
            "duplicates": report.duplicates,
            "left_out": [
                {"line": line.number, "kind": line.kind, "reason": line.reason}
                for line in report.left_out
            ],
        }
        typer.echo(json.dumps(content, indent=2))
        return
    typer.echo(f"{report.added} records imported, {report.duplicates} were there already")
    for (kind, reason), count in reasons.most_common(_SHOWN_REASONS):
        lines = [
            line.number for line in report.left_out if (line.kind, line.reason) == (kind, reason)
        ]
        where = f"line {lines[0]}" if count == 1 else f"{count} lines, the first {lines[0]}"
        typer.echo(f"  left out ({kind}), {where}: {printable(reason, limit=200)}")


def _task_rows(records: list[Record]) -> list[dict[str, Any]]:
    groups: defaultdict[tuple[str, str, str], list[Record]] = defaultdict(list)
    for record in records:
        groups[record.task_hash, record.task_name, record.fingerprint].append(record)
    rows = []
    for (task_hash, name, fingerprint), group in sorted(groups.items()):
        times = [r.result.estimate_s for r in group if r.result.estimate_s is not None]
        counts = Counter(record.result.status.value for record in group)
        rows.append(
            {
                "task": name,
                "hash": task_hash,
                "hardware": fingerprint,
                "records": len(group),
                "best_us": min(times) * 1e6 if times else None,
                "statuses": dict(counts.most_common()),
            }
        )
    return rows


def _record_rows(records: list[Record], runs: dict[str, Run]) -> list[dict[str, Any]]:
    def order(record: Record) -> tuple[bool, float, int]:
        estimate_s = record.result.estimate_s
        return estimate_s is None, estimate_s or 0.0, record.id

    rows = []
    for record in sorted(records, key=order):
        run = runs.get(record.run_id or "")
        estimate_s = record.result.estimate_s
        rows.append(
            {
                "id": record.id,
                "status": record.result.status.value,
                "estimate_us": estimate_s * 1e6 if estimate_s is not None else None,
                "point": str(record.result.point),
                "agent": run.agent if run else None,
                "hardware": record.fingerprint,
                "stored": record.created_at,
            }
        )
    return rows


def _as_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(Text(printable(_cell(value), limit=_NAME_WIDTH)) for value in row.values()))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, dict):
        return ", ".join(f"{count} {name}" for name, count in value.items())
    return str(value)


def _known(statuses: list[str] | None) -> list[str] | None:
    for status in statuses or []:
        if status not in set(Status):
            raise InputError(
                f"expected --status of {', '.join(Status)}, got '{printable(status, limit=40)}'"
            )
    return statuses or None


def _days_ago(days: float | None) -> str | None:
    if days is None:
        return None
    if not 0 <= days < 1e5:
        raise InputError(f"expected --older-than of 0 to 100,000 days, got {days:g}")
    moment = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
    return moment.isoformat(timespec="seconds")


def _warn_of(unreadable: list[Unreadable], name: str) -> None:
    if unreadable:
        typer.echo(
            f"warning: {len(unreadable)} more cannot be read; "
            f"list them with: schedenv records verify {name}",
            err=True,
        )
