"""Torch programs whose layers are fused and tuned like those of ONNX files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from schedenv.cli import app
from schedenv.tasks import resolve_many
from schedenv.tasks.networks.prepare import prepare

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow

Save = Callable[..., Path]


@pytest.fixture
def export(tmp_path: Path) -> Save:
    """Exports a module for inputs of some shapes."""

    def save(module: Any, *shapes: tuple[int, ...], **options: Any) -> Path:
        path = tmp_path / "program.pt2"
        inputs = tuple(torch.zeros(shape) for shape in shapes)
        torch.export.save(torch.export.export(module.eval(), inputs, **options), str(path))
        return path

    return save


class Attention(torch.nn.Module):  # type: ignore[misc]
    """One layer of a transformer, with layer norm and GELU."""

    def __init__(self, width: int = 32, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.project = torch.nn.Linear(width, 3 * width)
        self.norm = torch.nn.LayerNorm(width)
        self.wide = torch.nn.Linear(width, 4 * width)
        self.narrow = torch.nn.Linear(4 * width, width)

    def forward(self, x: Any) -> Any:
        batch, length, width = x.shape
        parts = self.project(x).reshape(batch, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        x = self.norm(x + mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.narrow(torch.nn.functional.gelu(self.wide(x)))


def inverted_residual() -> Any:
    """The convolutions of a MobileNet-V2 block."""
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6(),
        nn.Conv2d(32, 32, 3, 1, 1, groups=32, bias=False), nn.BatchNorm2d(32), nn.ReLU6(),
        nn.Conv2d(32, 16, 1, bias=False), nn.BatchNorm2d(16),
    )  # fmt: skip


def test_norms_and_clips_are_fused_with_their_convolutions(export: Save) -> None:
    network = prepare(export(inverted_residual(), (1, 3, 16, 16)))
    families = [entry.family for entry in network.entries.values()]
    assert families.count("conv2d_add_maximum_minimum") == 2
    assert families.count("conv2d_add") == 1
    assert set(families) <= {"conv2d_add_maximum_minimum", "conv2d_add", "transpose"}


def test_a_program_is_a_suite(export: Save) -> None:
    names = [task.name for task in resolve_many(f"network:{export(Attention(), (1, 17, 32))}")]
    assert sum("matmul" in name for name in names) >= 4
    assert any("layer_norm" in name for name in names)


def test_a_transformer_is_tuned_and_verified_against_torch(export: Save, tmp_path: Path) -> None:
    path = export(Attention(), (1, 17, 32))
    out = tmp_path / "out"
    result = CliRunner().invoke(
        app, ["tune", str(path), "--seconds", "8", "--out", str(out), "--json"]
    )
    assert result.exit_code == 0, result.output
    report = json.loads((out / "report.json").read_text())
    assert report["verified"]["against"] == "torch"
    assert set(report["latency_us"]) == {"torch", "schedenv", "tvm-untuned"}
    assert all(error <= 1 for error in report["verified"]["error_of_tolerated"].values())
