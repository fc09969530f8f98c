"""A picture of an episode: latency over steps, with the best, the baseline and the optimum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from schedenv.envs.episode import Episode
from schedenv.errors import MissingExtraError, OutputDirError

_SIZE_INCHES = (8.0, 4.5)
_DPI = 100


def draw_episode(episode: Episode) -> npt.NDArray[np.uint8]:
    """An episode as a picture.

    Returns:
        uint8, shape (450, 800, 3).

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = _figure(episode)
    figure.canvas.draw()
    return np.array(figure.canvas.buffer_rgba(), np.uint8)[:, :, :3].copy()


def plot_episode(path: Path, out: Path) -> None:
    """Draw a saved episode into a file; the ending of its name says in which format.

    Raises:
        MissingExtraError: matplotlib is not installed.
        EpisodeError: `path` holds no episode.
        OutputDirError: The picture cannot be written.
    """
    figure = _figure(Episode.load(path))
    try:
        figure.savefig(out)
    except (OSError, ValueError) as error:
        raise OutputDirError(f"{out} cannot be written ({error})") from None


def _figure(episode: Episode) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "plot", "a picture of an episode") from None
    figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    values, label = _values(episode)
    steps = np.arange(len(values))
    axes.step(steps, values, where="post", color="tab:blue", marker=".", label=label)
    if episode.start_latency_us is not None or any(s.latency_us for s in episode.steps):
        best = np.fmin.accumulate(values)
        axes.step(steps, best, where="post", color="tab:green", label="best so far")
        axes.set_yscale("log")
        if episode.untuned_us is not None:
            axes.axhline(episode.untuned_us, color="tab:gray", ls="--", label="untuned")
        if episode.optimum_us is not None:
            axes.axhline(episode.optimum_us, color="tab:red", ls=":", label="known optimum")
    failed = [n for n, step in enumerate(episode.steps, 1) if step.status != "ok"]
    illegal = [n for n, step in enumerate(episode.steps, 1) if step.illegal]
    for where, marker, name in ((failed, "x", "failed"), (illegal, "|", "illegal")):
        if where:
            heights = [values[n] for n in where]
            axes.plot(where, heights, marker, color="black", label=name)
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    axes.set_title(f"{episode.env_id}, {episode.task}: return {episode.total_reward:.2f}")
    axes.legend()
    return figure


def _values(episode: Episode) -> tuple[npt.NDArray[np.float64], str]:
    """The curve from the start on: latencies, or returns where no latency is known."""
    latencies = [episode.start_latency_us, *(step.latency_us for step in episode.steps)]
    if any(latencies):
        return np.array([np.nan if v is None else v for v in latencies]), "latency (us a call)"
    rewards = [0.0, *(step.reward for step in episode.steps)]
    return np.cumsum(rewards), "return so far"
