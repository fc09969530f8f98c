"""Finding agents: installed ones, classes in files, names of one's own."""

from pathlib import Path

import pytest

from schedenv.errors import AgentError, CheckpointError, ProgramFileError, UnknownNameError
from schedenv.space import Space
from schedenv.tuning.agent import agent_names, find_agent, make_agent

AGENT = """
from schedenv_agents.random import RandomAgent

class Mine(RandomAgent):
    pass

class NoAgent:
    pass

class Broken(RandomAgent):
    def __init__(self, space, seed):
        raise ValueError("as scripted")
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(AGENT)
    return path


def test_a_class_in_a_file_is_an_agent_of_its_own_name(file: Path, tiny_space: Space) -> None:
    factory = find_agent(f"{file}:Mine")
    assert factory.name == "Mine"
    points = factory.make(tiny_space, 3).ask(5)
    assert points == make_agent("random", tiny_space, 3).ask(5)


def test_any_agent_can_be_given_another_name(file: Path) -> None:
    assert find_agent("null=random").name == "null"
    assert find_agent(f"mine-2.0={file}:Mine").name == "mine-2.0"


def test_a_class_that_is_no_agent_is_refused_with_those_that_are(file: Path) -> None:
    for name in ("NoAgent", "Mien"):
        with pytest.raises(ProgramFileError) as caught:
            find_agent(f"{file}:{name}")
        assert str(caught.value) == (
            f"{file}:{name}: expected a class with the methods ask, tell, state_dict; the file has "
            "RandomAgent, Mine, Broken. See docs/agents.md"
        )


def test_a_file_that_fails_is_refused_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("x = 1\nraise KeyError('as scripted')\n")
    with pytest.raises(ProgramFileError) as caught:
        find_agent(f"{path}:Mine")
    assert str(caught.value) == (
        f"{path}:Mine: importing the file failed at line 2: KeyError: 'as scripted'"
    )
    with pytest.raises(ProgramFileError, match="there is no file"):
        find_agent(f"{tmp_path / 'none.py'}:Mine")


def test_a_constructor_that_raises_is_the_agents_fault(file: Path, tiny_space: Space) -> None:
    with pytest.raises(AgentError) as caught:
        find_agent(f"{file}:Broken").make(tiny_space, 0)
    assert str(caught.value) == (
        "the agent Broken raised ValueError when it was created: as scripted"
    )


def test_names_that_nothing_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError) as caught:
        find_agent("gredy")
    assert str(caught.value) == (
        "unknown agent 'gredy'; did you mean 'greedy' or 'greedy-trees' or "
        "'greedy-prior'? (or name FILE.py:CLASS, or the folder of a "
        "checkpoint)"
    )
    with pytest.raises(UnknownNameError) as caught:
        find_agent("zzz")
    assert str(caught.value).startswith(
        f"unknown agent 'zzz'; known: {', '.join(agent_names())} (or name"
    )
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        find_agent(f"mine={tmp_path}")
