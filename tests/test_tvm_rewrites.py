"""Rewrites of imported graphs: what is fused with what, and that the outputs stay the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from schedenv import hardware as hw
from schedenv import tvm_relax
from schedenv.tasks.networks.network import family_of

torch = pytest.importorskip("torch")
nn, pad = torch.nn, torch.nn.functional.pad


def families(module: Any, *inputs: Any) -> list[str]:
    """The kernels' operators of the prepared module; its outputs are compared with torch's."""
    import tvm
    from tvm import relax

    torch.manual_seed(0)
    program = torch.export.export(module.eval(), inputs).run_decompositions()
    imported = tvm_relax.import_torch(program)
    prepared = tvm_relax.fuse(tvm_relax.simplify(imported, channels_last=True))
    executable = tvm_relax.compile_network(prepared, hw.target(hw.detect()))
    main = relax.VirtualMachine(executable, tvm.cpu())["main"]
    actual = main(*(tvm.runtime.tensor(value.numpy()) for value in inputs)).numpy()
    with torch.inference_mode():
        expected = module(*inputs).numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    return [family_of(name) for name in tvm_relax.call_sequence(prepared)]


class Padded(nn.Module):
    """A convolution of a padded image."""

    def __init__(self, pads: tuple[int, ...], *, groups: int = 1, **mode: Any) -> None:
        super().__init__()
        self.pads, self.mode = pads, mode
        self.convolution = nn.Conv2d(16, 16, 3, 2, groups=groups)

    def forward(self, x: Any) -> Any:
        return self.convolution(pad(x, self.pads, **self.mode))


@pytest.mark.parametrize("groups", [1, 16])
def test_a_pad_becomes_its_convolutions_padding(groups: int) -> None:
    found = families(Padded((0, 1, 2, 3), groups=groups), torch.randn(1, 16, 12, 12))
    assert found == ["transpose", "conv2d_add", "transpose"]


def test_a_pad_by_nothing_goes() -> None:
    found = families(Padded((0, 0, 0, 0)), torch.randn(1, 16, 12, 12))
    assert found == ["transpose", "conv2d_add", "transpose"]


@pytest.mark.parametrize(
    ("pads", "mode"),
    [((1, 1, 1, 1), {"value": 1.0}), ((1, 1, 1, 1), {"mode": "reflect"}), ((-1, 1, 0, 0), {})],
)
def test_other_pads_stay(pads: tuple[int, ...], mode: dict[str, Any]) -> None:
    found = families(Padded(pads, **mode), torch.randn(1, 16, 12, 12))
    assert sum("conv2d" in family for family in found) == 1
    assert "conv2d_add" not in found[0]
    assert len(found) >= 3


class FeedForward(nn.Module):
    """Two linear layers around a GELU, and a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: Any) -> Any:
        return x + 2.0 * self.down(torch.nn.functional.gelu(self.up(x)))


def test_what_follows_a_linear_layer_is_fused_with_it() -> None:
    found = families(FeedForward(), torch.randn(1, 5, 16))
    products = [family for family in found if "matmul" in family]
    assert products == ["matmul_add_tir_gelu", "matmul_add_multiply_add"]


def test_operands_of_other_shapes_keep_their_reshape() -> None:
    class Broadcast(nn.Module):
        def forward(self, x: Any, row: Any) -> Any:
            return x.reshape(2, 3, 4) + row

    assert families(Broadcast(), torch.randn(6, 4), torch.randn(3, 4)) == ["reshape_add"]


def test_both_operands_may_be_reshaped() -> None:
    class Both(nn.Module):
        def forward(self, x: Any, y: Any) -> Any:
            return torch.relu(x.reshape(2, 12) * y.reshape(2, 12)).reshape(4, 6)

    found = families(Both(), torch.randn(4, 6), torch.randn(3, 8))
    assert found == ["reshape_multiply_relu"]


def test_clips_are_fused_with_their_convolution() -> None:
    block = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU6())
    found = families(block, torch.randn(1, 16, 8, 8))
    assert "conv2d_add_maximum_minimum" in found
