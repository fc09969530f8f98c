"""A race's report: what is on the page is what the race said, and a browser draws it."""

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import numpy as np
import pytest

from schedenv.comparison.arenas import RecordedArena
from schedenv.comparison.curves import RaceData
from schedenv.comparison.page import write_page
from schedenv.comparison.pictures import draw
from schedenv.comparison.race import Request, race
from schedenv.comparison.scores import Axis
from schedenv.comparison.text import markdown, sections
from schedenv.errors import OutputDirError
from schedenv.hardware import Hardware
from schedenv.space import Space
from schedenv.tasks import Task
from schedenv.tuning import run_dir
from schedenv.tuning.agent import find_agent

from ..recorded_table import make_table
from .helpers import bad_agents

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def folder(
    tiny_task: Task, tiny_space: Space, hardware: Hardware, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    table = make_table(tiny_task, tiny_space, hardware, 100)
    folder = tmp_path_factory.mktemp("race")
    names = ["random", "droplet", bad_agents(folder)["Raising"]]
    agents = [find_agent(name) for name in names]
    arena = RecordedArena(agents, {"one <b>": table, "two": table})
    race(Request(arena, 3, 24, None, None, folder / "race"))
    return folder / "race"


def test_lines_start_at_the_first_trial_and_end_at_the_standings(folder: Path) -> None:
    data = RaceData.read(folder)
    for line, standing in zip(data.quality(Axis.TRIALS), data.summary.standings, strict=True):
        assert (line.x[0], line.x[-1]) == (1, 24)
        assert (np.diff(line.y) >= -1e-12).all()
        assert line.y[-1] == pytest.approx(standing.checkpoints[-1].quality.estimate)
        assert (line.low <= line.y + 1e-12).all()
        assert (line.y <= line.high + 1e-12).all()
    for line in data.latency_us(data.field.facts[0], Axis.SECONDS):
        assert (np.diff(line.y) <= 1e-12).all()
    assert [line.y[0] for line in data.profiles()] == [1, 1, 1]


def test_finals_beside_a_neighbour_are_named(folder: Path) -> None:
    summary = RaceData.read(folder).summary
    one, two = summary.facts

    def notes(*slowdowns: float) -> str:
        facts = tuple(
            msgspec.structs.replace(fact, slowdown=slowdown)
            for fact, slowdown in zip((one, two), slowdowns, strict=True)
        )
        changed = msgspec.structs.replace(summary, facts=facts)
        return next(section.note for section in sections(changed) if section.title == "Tasks")

    assert notes(1.0, 1.1) == ""
    assert notes(1.0, 1.5) == (
        "A neighbour disturbed at least three of four moments in the finals of these tasks "
        "(slowdown, lower quartile): two (1.50). Without it, other kernels may be the fastest."
    )


def test_the_page_needs_no_network_and_holds_the_race(folder: Path) -> None:
    data = RaceData.read(folder)
    page = write_page(data, run_dir.read_json(folder / run_dir.RUN), folder).read_text()
    assert not re.search(r'<(script|link|img)[^>]+(src|href)="?http', page)
    assert "Raising: the agent Raising raised ZeroDivisionError: as scripted" in page
    assert "one &lt;b&gt;" in page
    assert "one <b>" not in page
    calls = re.findall(r'Plotly\.newPlot\(\s*"[^"]+",\s*(\[.*?\]),\s*\{', page, re.DOTALL)
    assert len(calls) == 3
    named = [trace for trace in json.loads(calls[0]) if trace.get("name")]
    assert {trace["name"] for trace in named} == {"random", "droplet", "Raising"}


def test_the_pictures_are_drawn_in_both_formats(folder: Path) -> None:
    files = draw(RaceData.read(folder), folder)
    assert [path.name for path in files] == ["quality.png", "quality.svg", "tasks.png", "tasks.svg"]
    assert files[0].read_bytes().startswith(b"\x89PNG")
    assert ET.parse(files[3]).getroot().tag.endswith("svg")


def test_the_markdown_has_a_line_for_every_contestant_and_task(folder: Path) -> None:
    run = run_dir.read_json(folder / run_dir.RUN)
    lines = markdown(RaceData.read(folder).summary, run)
    assert lines[0] == "# 3 agents on 2 recorded tables"
    for start in ("| random | ", "| droplet | ", "| Raising | ", "| two | "):
        assert any(line.startswith(start) for line in lines)
    for heading in (line for line in lines if line.startswith("|---")):
        assert lines[lines.index(heading) - 1].count("|") == heading.count("|")
    assert lines[-1] == (
        "- failed 6 times: Raising: the agent Raising raised ZeroDivisionError: as scripted"
    )


def test_a_race_that_has_not_ended_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(OutputDirError) as caught:
        RaceData.read(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/summary.json does not exist; expected the --out directory of a finished "
        "schedenv compare"
    )


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium is installed")
def test_a_browser_draws_every_line(folder: Path) -> None:
    data = RaceData.read(folder)
    page = write_page(data, run_dir.read_json(folder / run_dir.RUN), folder)
    done = subprocess.run(
        [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000",
         "--window-size=1200,2400", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    # The lines of the legend are relative, with small letters.
    drawn = re.findall(r'<path class="js-line"[^>]* d="M([^"]*[HV][^"]*)"', done.stdout)
    # Two pictures of two panels and one of one, three contestants, a line and two edges of a band.
    assert len(drawn) == 5 * 3 * 3
    assert not any("NaN" in path for path in drawn)
    assert done.stdout.count('class="legendtext"') == 3 * 3
