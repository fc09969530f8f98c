"""Processes that share the machine: several may build, one may time."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from schedenv.measure.turns import MachineTurns

HOLDER = """
import sys, time
from pathlib import Path
from schedenv.measure.turns import MachineTurns
with getattr(MachineTurns(Path(sys.argv[1])), sys.argv[2])():
    print("holds", flush=True)
    time.sleep(float(sys.argv[3]))
"""


def holder(directory: Path, what: str, seconds: float) -> subprocess.Popen[str]:
    """Another process, once it holds its turn."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory), what, str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "holds\n"
    return process


def begins(turn: Callable[[], object]) -> threading.Event:
    """An event that is set as soon as a turn, taken in a thread of its own, begins."""
    begun = threading.Event()

    def take() -> None:
        with turn():  # type: ignore[attr-defined]
            begun.set()

    threading.Thread(target=take, daemon=True).start()
    return begun


@pytest.mark.parametrize(
    ("held", "wanted", "together"),
    [
        ("building", "building", True),
        ("building", "timing", False),
        ("timing", "building", False),
        ("timing", "timing", False),
    ],
)
def test_builders_share_the_machine_and_a_timing_has_it_alone(
    held: str, wanted: str, together: bool, tmp_path: Path
) -> None:
    other = holder(tmp_path, held, 1000)
    begun = begins(getattr(MachineTurns(tmp_path), wanted))
    assert begun.wait(5.0 if together else 0.3) is together
    other.kill()
    other.wait()
    assert begun.wait(30.0)


def test_a_turn_ends_with_the_process_that_has_it(tmp_path: Path) -> None:
    other = holder(tmp_path, "timing", 1000)
    other.kill()
    other.wait()
    with MachineTurns(tmp_path).timing():
        pass


def test_who_waits_to_time_is_not_overtaken_by_new_builders(tmp_path: Path) -> None:
    first, second, third = (MachineTurns(tmp_path) for _ in range(3))
    order: list[str] = []

    def time_it() -> None:
        with second.timing():
            order.append("timing")

    def build() -> None:
        with third.building():
            order.append("building")

    with first.building():
        threads = [threading.Thread(target=time_it), threading.Thread(target=build)]
        threads[0].start()
        time.sleep(0.2)
        threads[1].start()
        time.sleep(0.2)
    for thread in threads:
        thread.join(30.0)
    assert order == ["timing", "building"]


def test_nobody_waits_for_ever_for_a_holder_that_was_stopped(tmp_path: Path) -> None:
    other = holder(tmp_path, "timing", 1000)
    with MachineTurns(tmp_path, patience_s=0.2).timing():
        pass
    other.kill()
    other.wait()


def test_where_the_lock_files_cannot_be_opened_turns_are_not_taken(tmp_path: Path) -> None:
    turns = MachineTurns(tmp_path / "missing")
    with turns.timing(), turns.building():
        pass
    turns.close()
    turns.close()
