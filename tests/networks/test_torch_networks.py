"""An exported transformer block, from its file to a verified library: the real thing, small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from schedenv import hardware as hw
from schedenv.networks.build import build_tuned
from schedenv.networks.compare import Contender, compare
from schedenv.tasks import resolve_many
from schedenv.tasks.networks.prepare import prepare

pytestmark = pytest.mark.slow
torch = pytest.importorskip("torch")

TOKENS, WIDTH, HEADS = 17, 32, 2


class Block(torch.nn.Module):
    """Embedding, attention, layer norms, GELU, softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(8, WIDTH)
        self.register_buffer("positions", torch.randn(TOKENS, WIDTH))
        self.qkv, self.mixed = torch.nn.Linear(WIDTH, 3 * WIDTH), torch.nn.Linear(WIDTH, WIDTH)
        self.before, self.after = torch.nn.LayerNorm(WIDTH), torch.nn.LayerNorm(WIDTH)
        self.up, self.down = torch.nn.Linear(WIDTH, 64), torch.nn.Linear(64, WIDTH)

    def forward(self, tokens: Any) -> Any:
        x = self.words(tokens) + self.positions
        batch = x.shape[0]
        q, k, v = (
            part.reshape(batch, TOKENS, HEADS, WIDTH // HEADS).transpose(1, 2)
            for part in self.qkv(self.before(x)).chunk(3, -1)
        )
        weights = torch.softmax(q @ k.transpose(-1, -2) * (WIDTH // HEADS) ** -0.5, -1)
        x = x + self.mixed((weights @ v).transpose(1, 2).reshape(batch, TOKENS, WIDTH))
        x = x + self.down(torch.nn.functional.gelu(self.up(self.after(x))))
        return {"tokens": x, "mean": x.mean(1)}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("torch") / "block.pt2"
    example = torch.zeros(2, TOKENS, dtype=torch.int64)
    batch = {"tokens": {0: torch.export.Dim("batch", max=16)}}
    program = torch.export.export(Block().eval(), (), {"tokens": example}, dynamic_shapes=batch)
    torch.export.save(program, str(path))
    return path


def test_outputs_are_those_of_torch(exported: Path, tmp_path: Path) -> None:
    network = prepare(exported, {"tokens": (3, TOKENS)})
    library = build_tuned(network, {}, hw.detect(), tmp_path).linked.library
    comparison = compare(
        [Contender("torch", "torch", exported), Contender("schedenv", "tvm", library)],
        network.description.inputs,
        hw.detect(),
        reference="torch",
        turns=0,
    )
    assert comparison.errors["schedenv"] <= 1
    assert comparison.timings == {}


def test_a_program_is_a_suite(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "layer.pt2"
    layer = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU()).eval()
    torch.export.save(torch.export.export(layer, (torch.ones(5, 8),)), str(path))
    (task,) = resolve_many(f"network:{path}")
    assert "matmul" in task.family
    assert task.flops >= 2 * 5 * 8 * 16


def test_norms_and_clips_are_fused_with_their_convolutions(tmp_path: Path) -> None:
    nn = torch.nn
    block = nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6(),
        nn.Conv2d(32, 32, 3, 1, 1, groups=32, bias=False), nn.BatchNorm2d(32), nn.ReLU6(),
        nn.Conv2d(32, 16, 1, bias=False), nn.BatchNorm2d(16),
    )  # fmt: skip
    path = tmp_path / "mobile.pt2"
    program = torch.export.export(block.eval(), (torch.ones(1, 3, 16, 16),))
    torch.export.save(program, str(path))
    families = [entry.family for entry in prepare(path).entries.values()]
    assert families.count("conv2d_add_maximum_minimum") == 2
    assert families.count("conv2d_add") == 1
    assert set(families) <= {"conv2d_add_maximum_minimum", "conv2d_add", "transpose"}
