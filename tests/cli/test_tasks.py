"""`schedenv tasks`, `--help` and `--version`."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from schedenv import __version__
from schedenv.cli import app
from schedenv.errors import UnknownNameError
from schedenv.tasks import OPERATORS, resolve

COLUMNS = {"COLUMNS": "200"}


def invoke(*words: str) -> Any:
    return CliRunner(env=COLUMNS).invoke(app, list(words))


def test_tasks_lists_every_operator_suite_and_agent() -> None:
    done = invoke("tasks")
    assert done.exit_code == 0, done.output
    words = " ".join(done.stdout.split())
    agents = (
        "agents: droplet, evolutionary, greedy, greedy-forecast, greedy-prior, greedy-trees, "
        "hierarchical, hierarchical-paper, hierarchical-prior, optuna, random, register-tiles"
    )
    for name in (*OPERATORS, "core", "ansor", "odd", agents):
        assert name in words


def test_tasks_as_json_is_the_whole_of_stdout_and_every_default_resolves() -> None:
    done = invoke("tasks", "--json")
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    assert [row["name"] for row in content["operators"]] == list(OPERATORS)
    assert set(content["suites"]) == {"core", "ansor", "odd"}
    assert len(content["suites"]["core"]) == 13
    assert content["agents"] == [
        "droplet",
        "evolutionary",
        "greedy",
        "greedy-forecast",
        "greedy-prior",
        "greedy-trees",
        "hierarchical",
        "hierarchical-paper",
        "hierarchical-prior",
        "optuna",
        "random",
        "register-tiles",
    ]
    for row in content["operators"]:
        assert row["default"].startswith(f"{row['name']}:")
        OPERATORS[row["name"]].plan(row["default"].partition(":")[2])


def test_tasks_of_a_suite_shows_its_members_and_their_costs() -> None:
    table, as_json = invoke("tasks", "core"), invoke("tasks", "core", "--json")
    assert table.exit_code == as_json.exit_code == 0
    content = json.loads(as_json.stdout)
    assert len(content) == 13
    for row in content:
        assert row["name"] in table.stdout
        assert row["spec"] in table.stdout
    gmm = next(row for row in content if row["name"] == "core/gmm-2")
    assert gmm["hash"] == resolve(gmm["spec"]).content_hash
    batch, rows, columns, depth = map(int, gmm["spec"].partition(":")[2].split("x"))
    assert gmm["flops"] == 2 * batch * rows * columns * depth
    elements = batch * (rows * depth + depth * columns + rows * columns)
    assert gmm["bytes"] == 4 * elements


def test_tasks_of_an_unknown_suite_is_refused_with_the_closest_match() -> None:
    done = invoke("tasks", "cores")
    assert isinstance(done.exception, UnknownNameError)
    assert str(done.exception) == "unknown suite 'cores'; did you mean 'core'?"


@pytest.mark.parametrize("command", [(), ("tasks",), ("tune",), ("export",), ("doctor",)])
def test_help_exits_with_0(command: tuple[str, ...]) -> None:
    done = invoke(*command, "--help")
    assert done.exit_code == 0
    assert "Usage" in done.stdout


def test_the_version_is_printed() -> None:
    done = invoke("--version")
    assert (done.exit_code, done.stdout) == (0, f"schedenv {__version__}\n")


def test_an_unknown_command_exits_with_2() -> None:
    assert invoke("tunes").exit_code == 2
