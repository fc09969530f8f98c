"""The command `schedenv tasks`."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from schedenv.tasks import OPERATORS, list_operators, members, resolve_many, suite_names
from schedenv.tuning.agent import agent_names


def tasks(
    suite: Annotated[
        str | None, typer.Argument(help="Show the members of this suite, with their costs.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the operators, suites and agents known, or the members of one suite."""
    if suite is not None:
        _show_suite(suite, as_json)
    elif as_json:
        operators = [
            {
                "name": row.name,
                "title": row.title,
                "parameters": row.parameters,
                "default": f"{row.name}:{row.default_shape}",
            }
            for row in list_operators()
        ]
        suites = {name: list(members(name)) for name in suite_names()}
        content = {"operators": operators, "suites": suites, "agents": agent_names()}
        typer.echo(json.dumps(content, indent=2))
    else:
        _show_all()


def _show_all() -> None:
    console = Console()
    table = Table("operator", "what it is", "shape", "alone it means", title="Operators")
    for row in list_operators():
        table.add_row(row.name, row.title, row.parameters, f"{row.name}:{row.default_shape}")
    console.print(table)
    table = Table("suite", "members", "for example", title="Suites")
    for name in suite_names():
        names = members(name)
        table.add_row(name, str(len(names)), ", ".join(names[:3]))
    console.print(table)
    console.print(f"agents: {', '.join(agent_names())}")
    example = next(iter(OPERATORS))
    console.print(
        f"A task is an operator ({example}), an operator with a shape, a suite's member, or a "
        "function in a Python file (program.py:function).\n"
        "Tune one:  schedenv tune gmm:1x512x512x512 --seconds 60"
    )


def _show_suite(suite: str, as_json: bool) -> None:
    # A network is a suite too, but no other TASK is one.
    if not suite.startswith("network:"):
        members(suite)
    rows = resolve_many(suite)
    if as_json:
        content = [
            {
                "name": task.name,
                "spec": task.spec,
                "flops": task.flops,
                "bytes": task.bytes,
                "hash": task.content_hash,
            }
            for task in rows
        ]
        typer.echo(json.dumps(content, indent=2))
        return
    table = Table("member", "task", title=f"Suite {suite}")
    table.add_column("MFLOP", justify="right")
    table.add_column("kB", justify="right")
    table.add_column("FLOP/byte", justify="right")
    for task in rows:
        table.add_row(
            task.name,
            task.spec,
            f"{task.flops / 1e6:.4g}",
            f"{task.bytes / 1e3:.4g}",
            f"{task.intensity:.3g}",
        )
    Console().print(table)
