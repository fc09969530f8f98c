"""The command line: `schedenv tasks | tune | compare | record | fit | train | export | ...`."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import typer
from rich.console import Console

from schedenv import __version__
from schedenv.cli.collect import collect
from schedenv.cli.compare import compare
from schedenv.cli.doctor import doctor
from schedenv.cli.evaluate import evaluate
from schedenv.cli.export import export
from schedenv.cli.fit import fit
from schedenv.cli.fleet import app as fleet
from schedenv.cli.record import record
from schedenv.cli.records import app as records
from schedenv.cli.replay import replay
from schedenv.cli.report import report
from schedenv.cli.tasks import tasks
from schedenv.cli.train import train
from schedenv.cli.tune import tune
from schedenv.errors import InputError, SchedenvError
from schedenv.records.printable import printable

app = typer.Typer(
    help="Make tensor programs faster: tune them on this machine, export the schedules.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(tasks)
app.command()(tune)
app.command()(compare)
app.command()(report)
app.command()(record)
app.command()(collect)
app.command()(fit)
app.command()(train)
app.command()(evaluate)
app.command()(replay)
app.command()(export)
app.command()(doctor)
app.add_typer(fleet, name="fleet")
app.add_typer(records, name="records")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"schedenv {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    del version  # the callback has dealt with it


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning as a user wants it: the message, without the line of source that gave it."""
    typer.echo(f"warning: {printable(str(message), lines=True)}", err=True)


def main() -> None:
    """Run the command line; errors become one message and an exit code.

    Exit codes: 0 done, 1 the machine or the store failed, 2 the input cannot be used,
    130 interrupted.
    """
    warnings.showwarning = _show_warning
    try:
        app()
    except SchedenvError as error:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print("[bold red]error:[/]", end=" ")
        # A message may quote what stands in a file that anybody may have written.
        console.print(printable(str(error), lines=True), markup=False)
        sys.exit(2 if isinstance(error, InputError) else 1)
