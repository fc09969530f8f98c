"""The interactive report: one HTML file that needs no network, plotly's script included."""

from __future__ import annotations

import html
import math
from pathlib import Path
from typing import Any

from schedenv.comparison.curves import Line, RaceData, axis_title, quality_title
from schedenv.comparison.scores import Axis
from schedenv.comparison.text import about_run, failure_lines, sections, title_of
from schedenv.errors import MissingExtraError, OutputDirError
from schedenv.tuning.run_dir import write_text

PAGE = "report.html"

_COLUMNS = 3
_PANEL_HEIGHT = 300
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 1180px;
       margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin: 1.8em 0 .4em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25em .8em; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
.scroll { overflow-x: auto; } .failed { color: #a33; } .note { color: #666; }
"""


def write_page(data: RaceData, run: dict[str, Any], folder: Path) -> Path:
    """Write the report of a race.

    Args:
        data: The race.
        run: Its `run.json`.
        folder: Where `report.html` goes.

    Returns:
        The file.

    Raises:
        MissingExtraError: plotly is not installed.
        OutputDirError: The file cannot be written.
    """
    graph, subplots, script = _plotly()
    figures = [
        ("Quality over the budget", _quality(data, graph, subplots)),
        ("Runs that are better than a threshold", _profiles(data, graph)),
        ("Latency by task", _by_task(data, graph, subplots)),
    ]
    title = html.escape(title_of(data.summary))
    about = f'<p class="note">{html.escape(about_run(run))}</p>'
    parts = [f"<h1>{title}</h1>", about, _tables(data)]
    for heading, figure in figures:
        parts.append(f"<h2>{heading}</h2>")
        parts.append(figure.to_html(full_html=False, include_plotlyjs=False))
    content = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{title}</title><style>{_STYLE}</style>"
        f"<script>{script}</script></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )
    path = folder / PAGE
    try:
        write_text(path, content)
    except OSError as error:
        raise OutputDirError(f"{path} cannot be written ({error.strerror})") from None
    return path


def _plotly() -> tuple[Any, Any, str]:
    try:
        import plotly.graph_objects as graph
        from plotly import subplots
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise MissingExtraError("plotly", "plot", "the interactive report") from None
    return graph, subplots, get_plotlyjs()


def _tables(data: RaceData) -> str:
    parts = []
    for section in sections(data.summary):
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        if section.note:
            parts.append(f'<p class="note">{html.escape(section.note)}</p>')
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in section.headings)
        rows = (
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in section.rows
        )
        parts.append(f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>')
    failures = failure_lines(data.summary)
    if failures:
        items = "".join(f"<li>{html.escape(line)}</li>" for line in failures)
        parts.append(f'<h2>Failures</h2><ul class="failed">{items}</ul>')
    return "\n".join(parts)


def _quality(data: RaceData, graph: Any, subplots: Any) -> Any:
    axes = (Axis.TRIALS, Axis.SECONDS)
    figure = subplots.make_subplots(1, len(axes), horizontal_spacing=0.09)
    for column, axis in enumerate(axes, start=1):
        _add(figure, graph, data, data.quality(axis), 1, column, legend=column == 1)
        figure.update_xaxes(title=axis_title(data, axis), **_ticks(axis), row=1, col=column)
        figure.update_yaxes(title=quality_title(data), row=1, col=column)
    return _styled(figure, 420)


def _profiles(data: RaceData, graph: Any) -> Any:
    figure = graph.Figure()
    _add(figure, graph, data, data.profiles(), None, None, legend=True)
    figure.update_xaxes(title=quality_title(data))
    figure.update_yaxes(title="share of runs that are better")
    return _styled(figure, 380)


def _by_task(data: RaceData, graph: Any, subplots: Any) -> Any:
    facts, axis = data.field.facts, data.summary.axis
    columns = max(1, min(_COLUMNS, len(facts)))
    rows = max(1, math.ceil(len(facts) / columns))
    figure = subplots.make_subplots(
        rows, columns, subplot_titles=[html.escape(fact.title) for fact in facts],
        vertical_spacing=0.28 / rows, horizontal_spacing=0.07,
    )  # fmt: skip
    for number, fact in enumerate(facts):
        row, column = number // columns + 1, number % columns + 1
        _add(figure, graph, data, data.latency_us(fact, axis), row, column, legend=number == 0)
        figure.add_hline(y=fact.best_s * 1e6, line_dash="dot", line_width=1, row=row, col=column)
        figure.update_xaxes(title=axis_title(data, axis), **_ticks(axis), row=row, col=column)
        figure.update_yaxes(type="log", title="latency, us", row=row, col=column)
    return _styled(figure, _PANEL_HEIGHT * rows + 60)


def _add(
    figure: Any,
    graph: Any,
    data: RaceData,
    lines: list[Line],
    row: int | None,
    column: int | None,
    *,
    legend: bool,
) -> None:
    """Lines with bands; a click on a name hides all of an agent's."""
    where = {} if row is None else {"row": row, "col": column}
    for line in lines:
        colour = data.colour(line.agent)
        shared = {"legendgroup": line.agent, "line_shape": "hv"}
        band = {**shared, "mode": "lines", "line_width": 0, "showlegend": False}
        figure.add_trace(
            graph.Scatter(x=line.x.tolist(), y=line.high.tolist(), hoverinfo="skip", **band),
            **where,
        )
        figure.add_trace(
            graph.Scatter(
                x=line.x.tolist(), y=line.low.tolist(), hoverinfo="skip", fill="tonexty",
                fillcolor=_faded(colour), **band,
            ),
            **where,
        )  # fmt: skip
        figure.add_trace(
            graph.Scatter(
                x=line.x.tolist(), y=line.y.tolist(), name=html.escape(line.agent), mode="lines",
                line_color=colour, showlegend=legend, **shared,
            ),
            **where,
        )  # fmt: skip


def _ticks(axis: Axis) -> dict[str, Any]:
    """A logarithmic axis; trials are marked by powers of two."""
    if axis is Axis.TRIALS:
        return {"type": "log", "tickvals": [2**power for power in range(16)]}
    return {"type": "log"}


def _styled(figure: Any, height: int) -> Any:
    figure.update_layout(
        template="plotly_white", height=height, margin={"l": 60, "r": 20, "t": 40, "b": 50},
        hovermode="x unified",
    )  # fmt: skip
    return figure


def _faded(colour: str) -> str:
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"
