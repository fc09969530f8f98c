"""Races on a recorded table: the order, the record, resuming, and contestants that fail."""

import csv
from pathlib import Path

import pytest

from schedenv.comparison.arenas import LiveArena, RecordedArena
from schedenv.comparison.attempts import ATTEMPTS, RESULTS, read_attempts
from schedenv.comparison.contestant import contestant
from schedenv.comparison.race import Request, Watcher, order_of, race
from schedenv.comparison.summary import read_summary
from schedenv.errors import InputError, OutputDirError
from schedenv.hardware import Hardware
from schedenv.measure.table import Table
from schedenv.space import Space
from schedenv.tasks import Task
from schedenv.tuning.agent import find_agent

from ..recorded_table import make_table
from .helpers import bad_agents


@pytest.fixture(scope="module")
def table(tiny_task: Task, tiny_space: Space, hardware: Hardware) -> Table:
    return make_table(tiny_task, tiny_space, hardware, 100)


def request(table: Table, out: Path, *names: str, **more: object) -> Request:
    arena = RecordedArena([find_agent(name) for name in names], {"one": table, "two": table})
    given = {"seeds": 2, "trials": 16, "seconds": None, "reference": None, **more}
    return Request(arena, out=out, **given)


def test_the_order_is_shuffled_seed_by_seed_with_the_contestants_of_a_task_together() -> None:
    tasks, agents = [f"t{n}" for n in range(5)], ["a", "b", "c"]
    order = order_of(tasks, agents, 4)
    assert order == order_of(tasks, agents, 4)
    assert sorted(order) == sorted((t, a, s) for t in tasks for a in agents for s in range(4))
    assert [seed for _, _, seed in order] == sorted(seed for _, _, seed in order)
    blocks = [order[start : start + 3] for start in range(0, len(order), 3)]
    assert all(len({task for task, _, _ in block}) == 1 for block in blocks)
    assert len({tuple(agent for _, agent, _ in block) for block in blocks}) > 3
    assert len({tuple(task for task, _, _ in order[s * 15 : s * 15 + 15]) for s in range(4)}) > 1


def test_a_race_is_the_same_again_and_says_who_was_better(table: Table, tmp_path: Path) -> None:
    first = race(request(table, tmp_path / "1", "random", "greedy"))
    again = race(request(table, tmp_path / "2", "random", "greedy"))
    assert first == again == read_summary(tmp_path / "1")
    assert (tmp_path / "1" / ATTEMPTS).read_bytes() == (tmp_path / "2" / ATTEMPTS).read_bytes()
    random, greedy = first.standings
    assert (random.agent, random.attempts, random.failed) == ("random", 4, 0)
    assert [point.at for point in greedy.checkpoints] == [1, 8, 16]
    assert 0 < random.checkpoints[0].quality.estimate <= random.checkpoints[-1].quality.estimate
    assert random.checkpoints[-1].improvement is None
    assert 0 <= greedy.checkpoints[-1].improvement.estimate <= 1


def test_the_tidy_table_has_every_improvement_and_the_end_of_every_attempt(
    table: Table, tmp_path: Path
) -> None:
    race(request(table, tmp_path, "random"))
    with (tmp_path / RESULTS).open() as file:
        rows = list(csv.DictReader(file))
    made = read_attempts(tmp_path)
    assert sum(row["event"] == "end" for row in rows) == len(made) == 4
    improved = [row for row in rows if row["event"] == "improvement"]
    assert len(improved) == sum(len(attempt.curve) for attempt in made.values())
    for row in rows:
        regret = float(row["latency_us"]) / (table.optimum_s * 1e6) - 1
        assert float(row["regret"]) == pytest.approx(regret, abs=1e-3)
        assert None not in row.values()


def test_an_interrupted_race_goes_on_and_ends_as_if_it_had_not_been(
    table: Table, tmp_path: Path
) -> None:
    whole = race(request(table, tmp_path / "whole", "random", "greedy"))

    class Interrupting(Watcher):
        def made(self, attempt: object) -> None:
            if len(read_attempts(tmp_path / "cut")) == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        race(request(table, tmp_path / "cut", "random", "greedy"), Interrupting())
    with (tmp_path / "cut" / ATTEMPTS).open("ab") as file:
        file.write(b'{"task":"one","agent":"ran')  # what a kill in the middle of a line leaves
    begun = []

    class Counting(Watcher):
        def begin(self, total: int, done: int) -> None:
            begun.append((total, done))

    resumed = race(request(table, tmp_path / "cut", "random", "greedy", resume=True), Counting())
    assert begun == [(8, 3)]
    assert resumed == whole
    assert read_attempts(tmp_path / "cut") == read_attempts(tmp_path / "whole")


def test_contestants_may_be_added_to_a_race_but_its_budget_may_not_change(
    table: Table, tmp_path: Path
) -> None:
    race(request(table, tmp_path, "random"))
    grown = race(request(table, tmp_path, "random", "droplet", seeds=3, resume=True))
    assert [standing.attempts for standing in grown.standings] == [6, 6]
    with pytest.raises(OutputDirError) as caught:
        race(request(table, tmp_path, "random", trials=17, resume=True))
    assert str(caught.value) == (
        f"--out {tmp_path} holds a race with trials 16, not 17; repeat the command that started it "
        "with --resume, or choose another --out"
    )
    with pytest.raises(OutputDirError, match="already holds a run"):
        race(request(table, tmp_path, "random"))


def test_a_contestant_that_breaks_its_contract_is_named_and_the_race_goes_on(
    table: Table, tmp_path: Path
) -> None:
    bad = bad_agents(tmp_path)
    summary = race(request(table, tmp_path / "race", "random", *bad.values(), seeds=1))
    said = {
        attempt.agent: attempt.failure
        for attempt in read_attempts(tmp_path / "race").values()
        if attempt.task == "one"
    }
    illegal = said.pop("Illegal")
    assert illegal is not None
    assert illegal.startswith("Illegal: the agent Illegal asked for the illegal point 99:1,2: ")
    assert said == {
        "random": None,
        "Silent": "Silent: it asked for nothing at all",
        "Raising": "Raising: the agent Raising raised ZeroDivisionError: as scripted",
        "Unborn": "Unborn: the agent Unborn raised KeyError when it was created: 'as scripted'",
        "Repeating": "Repeating: 50 times in a row it asked only for what was measured already, "
        "after 1 trials",
        "Deaf": "Deaf: the agent Deaf raised ValueError when told results: as scripted",
    }
    standing = {one.agent: one for one in summary.standings}
    assert [standing[name].failed for name in ("random", *bad)] == [0, 2, 2, 2, 2, 2, 2]
    # Who found nothing is left with the untuned program.
    untuned = table.optimum_s / table.info.untuned_s
    assert standing["Silent"].checkpoints[-1].quality.estimate == pytest.approx(untuned)
    assert standing["random"].checkpoints[-1].quality.estimate > untuned


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"seeds": 0}, "expected --seeds of at least 1, got 0"),
        ({"jobs": 0}, "expected --jobs of at least 1, got 0"),
        ({"reference": "gredy"}, "expected --reference to be one of random; got 'gredy'"),
        ({"trials": None}, "a budget needs --trials, --seconds, or both; neither was given"),
    ],
)
def test_what_cannot_be_raced_is_refused(
    table: Table, tmp_path: Path, more: dict, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        request(table, tmp_path, "random", **more)
    assert str(caught.value) == message


def test_attempts_at_once_have_the_results_of_one_by_one(table: Table, tmp_path: Path) -> None:
    alone = race(request(table, tmp_path / "1", "random", "greedy"))
    at_once = race(request(table, tmp_path / "2", "random", "greedy", jobs=2))
    assert alone == at_once
    assert read_attempts(tmp_path / "1") == read_attempts(tmp_path / "2")
    assert (tmp_path / "1" / RESULTS).read_bytes() == (tmp_path / "2" / RESULTS).read_bytes()


def test_attempts_that_are_measured_do_not_go_on_at_once(
    tiny_task: Task, hardware: Hardware, tmp_path: Path
) -> None:
    arena = LiveArena([contestant("random")], [tiny_task], hardware, tmp_path)
    with pytest.raises(InputError) as caught:
        Request(arena, 1, 4, None, None, tmp_path, jobs=2)
    assert str(caught.value) == (
        "expected --jobs 1 for a race on this machine, got 2: attempts that go on at once disturb "
        "each other's times. Recorded tables can be raced on by several"
    )


def test_one_name_for_two_contestants_is_refused(table: Table, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        request(table, tmp_path, "random", "random=greedy")
    assert str(caught.value) == (
        "two of the agents are called 'random'; name each once, or call one NAME=AGENT"
    )
    race(request(table, tmp_path, "random", "mine=random"))
