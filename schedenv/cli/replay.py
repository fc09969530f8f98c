"""The command `schedenv replay`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from schedenv.envs.episode import Episode, Replay
from schedenv.envs.episode import replay as run_replay


def replay(
    file: Annotated[Path, typer.Argument(help="An episode that Episode.save wrote.")],
    picture: Annotated[
        Path | None, typer.Option(help="Draw the saved episode into this file (.png, .svg).")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, nothing else.")
    ] = False,
) -> None:
    """Take the steps of a saved episode again: does it still hold?

    Recorded and predicted rewards must be the same to the last bit. With measured ones every step
    must lead to the same point, and the latencies are shown side by side. Exit code 1 if the
    episode does not hold.
    """
    episode = Episode.load(file)
    if picture is not None:
        from schedenv.envs.plot import plot_episode

        plot_episode(file, picture)
    result = run_replay(episode)
    if as_json:
        typer.echo(json.dumps(summary(episode, result)))
    else:
        _print(Console(highlight=False), episode, result)
    if not result.valid:
        raise typer.Exit(1)


def summary(episode: Episode, result: Replay) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "valid": result.valid,
        "env_id": episode.env_id,
        "task": episode.task,
        "saved_return": episode.total_reward,
        "return": sum(check.reward for check in result.checks),
        **msgspec.to_builtins(result),
    }


def _print(console: Console, episode: Episode, result: Replay) -> None:
    table = Table("step", "action", title=f"{episode.env_id}, {episode.task}")
    for heading in ("reward saved", "now", "us saved", "now", "status"):
        table.add_column(heading, justify="right")
    table.add_column("same")
    for number, check in enumerate(result.checks):
        status = check.status
        if status != check.saved_status:
            status = f"{check.saved_status}, now {status}"
        table.add_row(
            str(number),
            "reset" if check.action < 0 else str(check.action),
            f"{check.saved_reward:.4f}",
            f"{check.reward:.4f}",
            _us(check.saved_latency_us),
            _us(check.latency_us),
            status,
            "yes" if check.same else "point" if check.same_transition else "no",
        )
    console.print(table)
    for line in remarks(result):
        console.print(line, soft_wrap=True, markup=False)


def remarks(result: Replay) -> list[str]:
    """What a person has to know about a replay, a line each; the verdict comes last."""
    lines = []
    if not result.same_task:
        lines.append("the task's name stands for another program now")
    if not result.same_hardware:
        lines.append("the rewards are of other hardware now; latencies cannot be compared")
    if result.stopped is not None:
        lines.append(f"the replay ended early at {result.stopped}")
    if result.valid:
        kind = "observations and rewards are the same" if result.is_exact else "every step is legal"
        lines.append(f"the episode holds: {kind}")
    else:
        broken = [
            number
            for number, check in enumerate(result.checks)
            if not (check.same if result.is_exact else check.same_transition)
        ]
        where = f"; the first difference is at step {broken[0]}" if broken else ""
        lines.append(f"the episode does not hold{where}")
    return lines


def _us(latency_us: float | None) -> str:
    return "-" if latency_us is None else f"{latency_us:.2f}"
