"""The command `schedenv report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from schedenv.comparison.race import COMMAND
from schedenv.comparison.text import markdown
from schedenv.errors import OutputDirError
from schedenv.tuning import run_dir


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The --out directory of schedenv compare.")
    ],
) -> None:
    """Write a race's report: an interactive page, pictures (PNG and SVG), and Markdown."""
    run = run_dir.read_json(folder / run_dir.RUN)
    if run.get("command") != COMMAND:
        raise OutputDirError(
            f"{folder} holds a run of something else; expected the --out directory of "
            "schedenv compare"
        )
    # Here, for the command line is to start without matplotlib and plotly.
    from schedenv.comparison.curves import RaceData
    from schedenv.comparison.page import write_page
    from schedenv.comparison.pictures import draw

    data = RaceData.read(folder)
    page = write_page(data, run, folder)
    pictures = draw(data, folder)
    text = folder / "report.md"
    written = "\n".join(markdown(data.summary, run))
    run_dir.write_text(text, f"{written}\n")
    console = Console(highlight=False, soft_wrap=True)
    console.print(written, markup=False)
    console.print(f"pictures: {', '.join(str(path) for path in pictures)}", markup=False)
    console.print(f"Markdown: {text}", markup=False)
    console.print(f"open in a browser: {page.resolve().as_uri()}", markup=False)
