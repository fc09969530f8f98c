"""Exported torch programs: what could run code is refused, the rest computes what torch does."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from schedenv.errors import MissingShapesError, NetworkFileError, UnsupportedOperatorsError
from schedenv.tasks.networks.torch_source import load_program

torch = pytest.importorskip("torch")

LIMIT = 1 << 30
Edit = Callable[[str, bytes], bytes]


class Scale(torch.nn.Module):
    """The smallest program with a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))

    def forward(self, x: Any) -> Any:
        return torch.relu(x * self.weight)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("torch") / "scale.pt2"
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(Scale(), (torch.ones(4, 3),), dynamic_shapes=({0: batch},))
    torch.export.save(program, str(path))
    return path


@pytest.fixture
def edited(exported: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes the archive with some records changed or added."""

    def write(edit: Edit = lambda _, content: content, **added: bytes) -> Path:
        path = tmp_path / "edited.pt2"
        with zipfile.ZipFile(exported) as source, zipfile.ZipFile(path, "w") as target:
            root = source.namelist()[0].split("/")[0]
            for name in source.namelist():
                target.writestr(name, edit(name.removeprefix(f"{root}/"), source.read(name)))
            for name, content in added.items():
                target.writestr(f"{root}/{name}", content)
        return path

    return write


def refusal(path: Path, kind: type[Exception] = NetworkFileError, **shapes: Any) -> str:
    with pytest.raises(kind) as caught:
        load_program(path, shapes or {"x": (4, 3)}, LIMIT)
    return str(caught.value)


def in_model(change: Callable[[Any], None]) -> Edit:
    """Changes the parsed program."""

    def edit(name: str, content: bytes) -> bytes:
        if name != "models/model.json":
            return content
        model = json.loads(content)
        change(model)
        return json.dumps(model).encode()

    return edit


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """Exists if code of the file was run."""
    path = tmp_path / "marker"
    yield path
    assert not path.exists()


@pytest.mark.slow
def test_a_sound_program_is_read_even_when_rewritten(edited: Callable[..., Path]) -> None:
    program = load_program(edited(), {"x": (4, 3)}, LIMIT)
    assert program.graph_signature.user_inputs == ("x",)


def test_samples_that_are_more_than_tensors(edited: Callable[..., Path], marker: Path) -> None:
    buffer = io.BytesIO()
    torch.save((Evil(marker),), buffer)
    path = edited(lambda name, content: buffer.getvalue() if "sample_inputs" in name else content)
    assert "could run code: its sample inputs are more than tensors" in refusal(path)


@pytest.mark.parametrize("name", ["data/constants/opaque_obj_0", "data/constants/custom_obj_0"])
def test_objects_in_the_archive(edited: Callable[..., Path], marker: Path, name: str) -> None:
    path = edited(**{name: pickle.dumps(Evil(marker))})
    assert f"could run code: it holds {name!r}" in refusal(path)


def test_compiled_libraries(edited: Callable[..., Path]) -> None:
    path = edited(**{"data/aotinductor/model/code.so": b"\x7fELF"})
    assert "it holds 'data/aotinductor/model/code.so'" in refusal(path)


def test_pickled_weights(edited: Callable[..., Path], marker: Path) -> None:
    def edit(name: str, content: bytes) -> bytes:
        if not name.endswith("weights_config.json"):
            return content
        config = json.loads(content)
        config["config"]["weight"]["use_pickle"] = True
        return json.dumps(config).encode()

    assert "'weight' is kept as a Python object, not as a tensor" in refusal(edited(edit))


@pytest.mark.parametrize(
    "target",
    [
        "torch.load",
        "torch.hub.load",
        "_operator.call",
        "math.gcd",
        "torch.ops.aten.from_file.default",
    ],
)
def test_functions_that_are_no_operators(edited: Callable[..., Path], target: str) -> None:
    def change(model: Any) -> None:
        model["graph_module"]["graph"]["nodes"][0]["target"] = target

    path = edited(in_model(change))
    assert refusal(path, UnsupportedOperatorsError) == (
        f"{path} uses operators that TVM cannot convert: {target}; export the network with other "
        "operators"
    )


@pytest.mark.parametrize(
    "text", ["__import__('os').getpid()", "exec(s0)", "s0.__class__", "().__class__", "s0[0]"]
)
def test_extents_that_are_programs(edited: Callable[..., Path], text: str) -> None:
    def change(model: Any) -> None:
        stack = [model]
        while stack:
            top = stack.pop()
            if isinstance(top, dict):
                if "expr_str" in top:
                    top["expr_str"] = text
                stack.extend(top.values())
            elif isinstance(top, list):
                stack.extend(top)

    assert f"an extent is {text!r}" in refusal(edited(in_model(change)))


def test_trees_that_name_modules(edited: Callable[..., Path]) -> None:
    tree = '[1, {"type": "collections.defaultdict", "context": "{}", "children_spec": []}]'

    def change(model: Any) -> None:
        model["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = tree

    assert "inputs or outputs are a collections.defaultdict" in refusal(edited(in_model(change)))


def test_dicts_whose_keys_name_modules(edited: Callable[..., Path]) -> None:
    leaf = {"type": None, "context": None, "children_spec": []}
    context = json.dumps([{"__enum__": True, "fqn": "this:X", "name": "A"}]).replace(
        "__e", "_\\u005fe"
    )
    tree = {"type": "builtins.dict", "context": context, "children_spec": [leaf]}

    def change(model: Any) -> None:
        signature = model["graph_module"]["module_call_graph"][0]["signature"]
        signature["in_spec"] = json.dumps([1, tree])

    assert "named by an enumeration" in refusal(edited(in_model(change)))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file(exported: Path, tmp_path: Path, share: float) -> None:
    path = tmp_path / "cut.pt2"
    whole = exported.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "cannot be read as an exported program" in refusal(path)


def test_gigantic_weights_are_refused_before_they_are_allocated(
    edited: Callable[..., Path],
) -> None:
    def edit(name: str, content: bytes) -> bytes:
        if not name.endswith("weights_config.json"):
            return content
        config = json.loads(content)
        config["config"]["weight"]["tensor_meta"]["sizes"] = [{"as_int": 1 << 40}]
        return json.dumps(config).encode()

    assert "has weights of 4.4e+03 GB; at most 1.07 GB fit" in refusal(edited(edit))


@pytest.mark.slow
def test_open_extents_are_asked_for(exported: Path) -> None:
    with pytest.raises(MissingShapesError, match=r"leaves extents of its inputs open \('x' is s"):
        load_program(exported, {}, LIMIT)
    assert refusal(exported, MissingShapesError, x=(4, 5)).endswith("5 must be 3")


@pytest.mark.slow
def test_operators_that_tvm_lacks_are_listed_together(tmp_path: Path) -> None:
    class Unusual(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.linalg.svdvals(x) + torch.special.bessel_j0(x).sum()

    path = tmp_path / "unusual.pt2"
    torch.export.save(torch.export.export(Unusual(), (torch.ones(3, 3),)), str(path))
    said = refusal(path, UnsupportedOperatorsError, x=(3, 3))
    assert "_linalg_svd.default, special_bessel_j0.default" in said
