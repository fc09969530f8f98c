"""ONNX files are read with suspicion: what cannot be used is said in one sentence."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from schedenv.errors import MissingShapesError, NetworkFileError, UnsupportedOperatorsError
from schedenv.tasks.networks.source import load_onnx

from ...small_networks import chain, convolutional, make_network

LIMIT = 1 << 30
Save = Callable[[Any], Path]


def relu() -> Any:
    return helper.make_node("Relu", ["x"], ["y"])


def refusal(path: Path, kind: type[Exception] = NetworkFileError, **shapes: Any) -> str:
    with pytest.raises(kind) as caught:
        load_onnx(path, shapes, LIMIT)
    return str(caught.value)


def test_a_sound_network_is_read_without_its_dropouts(small_network: Path) -> None:
    model = load_onnx(small_network, {}, LIMIT)
    kinds = [node.op_type for node in model.graph.node]
    assert "Dropout" not in kinds
    assert kinds.count("Conv") == 3
    onnx.checker.check_model(model)


def test_a_dropout_that_is_the_output_stays(save: Save) -> None:
    path = save(make_network([helper.make_node("Dropout", ["x"], ["y"])], {}, [1, 4]))
    assert [node.op_type for node in load_onnx(path, {}, LIMIT).graph.node] == ["Dropout"]


def test_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "none.onnx"
    assert refusal(path) == f"there is no file {str(path)!r}; check the path"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file(small_network: Path, tmp_path: Path, share: float) -> None:
    path = tmp_path / "cut.onnx"
    whole = small_network.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert re.search("cannot be read as ONNX|not valid ONNX|no ONNX network", refusal(path))


def test_something_else(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("not a network\n" * 10)
    assert re.search("cannot be read as ONNX|no ONNX network", refusal(path))


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.onnx"
    path.touch()
    assert refusal(path) == f"{path} is no ONNX network: its graph has no operators"


def test_unsupported_operators_are_listed_together(save: Save) -> None:
    nodes = [
        helper.make_node("Frobnicate", ["x"], ["a"]),
        helper.make_node("Det", ["a"], ["b"]),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    path = save(make_network(nodes, {}, [4, 4]))
    assert refusal(path, UnsupportedOperatorsError) == (
        f"{path} uses operators that TVM cannot convert: Det, Frobnicate; export the network with "
        "other operators"
    )


def test_open_extents_are_asked_for(save: Save) -> None:
    path = save(make_network([relu()], {}, ["batch", 3]))
    assert refusal(path, MissingShapesError) == (
        f"{path} leaves extents of its inputs open ('x' is batchx3); give them numbers, for "
        "example --shape x=1x3"
    )
    load_onnx(path, {"x": (2, 3)}, LIMIT)


def test_shapes_of_unknown_inputs_or_ranks_are_refused(save: Save) -> None:
    path = save(make_network([relu()], {}, ["batch", 3]))
    assert refusal(path, MissingShapesError, z=(1,)) == (
        f"{path} has no input 'z'; its inputs are 'x'"
    )
    assert refusal(path, MissingShapesError, x=(1, 3, 5)) == (
        f"the input 'x' of {path} has 2 extents, and 1x3x5 has 3"
    )


def external(model: Any, location: str) -> Any:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return model


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "sub/../../secret.bin"])
def test_weights_outside_the_networks_folder_are_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "network"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(b"\0" * 4096)
    path = folder / "network.onnx"
    onnx.save(external(convolutional([1, 3, 16, 16]), location), str(path))
    assert "outside its own folder; that is refused" in refusal(path)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "network"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(b"\0" * 4096)
    (folder / "weights.bin").symlink_to(tmp_path / "secret.bin")
    path = folder / "network.onnx"
    onnx.save(external(convolutional([1, 3, 16, 16]), "weights.bin"), str(path))
    assert "outside its own folder; that is refused" in refusal(path)


def test_weights_that_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    onnx.save(external(convolutional([1, 3, 16, 16]), "gone.bin"), str(path))
    assert "which does not exist; copy that file along with the network" in refusal(path)


def test_gigantic_weights_are_refused_before_they_are_allocated(save: Save) -> None:
    model = make_network([relu()], {"w": np.zeros(1, np.float32)}, [1, 4])
    model.graph.initializer[0].dims[:] = [1 << 20, 1 << 20]
    assert "has weights of 4.4e+03 GB; at most 1.07 GB fit" in refusal(save(model))


def test_negative_extents_of_weights_are_refused(save: Save) -> None:
    model = make_network([relu()], {"w": np.zeros(1, np.float32)}, [1, 4])
    model.graph.initializer[0].dims[:] = [-4]
    assert "expected no negative extents" in refusal(save(model))


def test_gigantic_constants_of_operators_are_refused_too(save: Save) -> None:
    constant = onnx.numpy_helper.from_array(np.zeros(1, np.float32), "c")
    constant.dims[:] = [1 << 20, 1 << 20]
    nodes = [helper.make_node("Constant", [], ["c"], value=constant), relu()]
    assert "has weights of 4.4e+03 GB" in refusal(save(make_network(nodes, {}, [1, 4])))


def test_constants_of_operators_are_not_read_from_elsewhere(tmp_path: Path) -> None:
    constant = onnx.TensorProto(
        name="c", dims=[4], data_type=1, data_location=onnx.TensorProto.EXTERNAL
    )
    constant.external_data.add(key="location", value="/etc/passwd")
    nodes = [helper.make_node("Constant", [], ["c"], value=constant), relu()]
    path = tmp_path / "network.onnx"
    onnx.save(make_network(nodes, {}, [1, 4]), str(path))
    assert "outside its own folder; that is refused" in refusal(path)


def test_a_very_deep_graph_is_refused_before_tvm_sees_it(save: Save) -> None:
    path = save(chain(50_000))
    assert refusal(path) == (
        f"{path} has 50000 operators, and TVM imports at most 10000 in reasonable time; export a "
        "part of the network, or a shallower one"
    )


def test_operators_in_branches_count_and_are_checked(save: Save) -> None:
    branch = helper.make_graph(
        [helper.make_node("Frobnicate", ["x"], ["b"])], "branch", [],
        [helper.make_tensor_value_info("b", 1, [4])],
    )  # fmt: skip
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)]
    path = save(make_network(nodes, {"c": np.asarray(True)}, [4]))
    assert "Frobnicate" in refusal(path, UnsupportedOperatorsError)
