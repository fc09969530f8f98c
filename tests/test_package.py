"""The package as a whole: what importing costs, who imports whom, what is installed."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import schedenv
from schedenv.space import Point, Space

ROOT = Path(schedenv.__file__).parent

# Imports point down only. Modules of one layer may import each other.
LAYERS = [
    "errors",
    "tvm_lowering",
    "tvm_adapter",
    "user_file",
    "tvm_database",
    "tvm_accesses",
    "tvm_features",
    "tvm_math",
    "tvm_rewrites",
    "tvm_relax",
    "tvm_joins",
    "tvm_packing",
    "hardware",
    "fma",
    "calibration",
    "tasks",
    "space",
    "measure",
    "tvm_tuning",
    "records",
    "costmodel",
    "tuning",
    "networks",
    "envs",
    "training",
    "comparison",
    "baselines",
    "",  # the package itself, which registers the environments
    "doctor",
    "cli",
]


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = (
        "import sys, gymnasium, schedenv\n"
        "heavy = {'tvm', 'tvm_ffi', 'torch', 'scipy', 'sqlalchemy', 'onnxruntime', 'xgboost'}\n"
        "print(sorted(heavy & set(sys.modules)),\n"
        "      'schedenv/Edit-v0' in gymnasium.registry)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.strip() == "[] True", done.stderr


def sources(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def layer_of(module: str) -> str:
    """`schedenv.tasks.layouts` is of the layer `tasks`, a name of the package itself of ``."""
    name = module.partition(".")[2].partition(".")[0]
    known = (ROOT / name).is_dir() or (ROOT / f"{name}.py").is_file()
    return name if name and known else ""


def imported_modules(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything of schedenv that a file imports, lazily or not."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # The folder of the agents is installed under another name: within it they are relative.
            if node.level and ROOT not in path.parents:
                continue
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "schedenv":
                yield node.lineno, name


@pytest.mark.parametrize("path", sources(ROOT), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_from_its_own_layer_and_below(path: Path) -> None:
    parts = path.relative_to(ROOT).with_suffix("").parts
    own = "" if parts == ("__init__",) else parts[0]
    upward = [
        f"line {line}: {name}"
        for line, name in imported_modules(path)
        if LAYERS.index(layer_of(name)) > LAYERS.index(own)
    ]
    assert upward == []


def test_every_module_has_a_layer() -> None:
    tops = {path.relative_to(ROOT).with_suffix("").parts[0] for path in sources(ROOT)}
    assert tops - {"__init__"} == set(LAYERS) - {""}


def test_agents_import_nothing_above_training() -> None:
    import schedenv_agents

    paths = sources(Path(schedenv_agents.__file__).parent)
    assert paths
    for path in paths:
        for line, name in imported_modules(path):
            assert LAYERS.index(layer_of(name)) <= LAYERS.index("training"), f"{path}:{line}"


def test_tvm_internals_are_touched_by_the_adapters_alone() -> None:
    moving = ("tvm.s_tir", "tvm.meta_schedule", "tvm.tirx", "tvm_ffi")
    adapters = (
        "tvm_accesses.py",
        "tvm_adapter.py",
        "tvm_database.py",
        "tvm_features.py",
        "tvm_joins.py",
        "tvm_lowering.py",
        "tvm_math.py",
        "tvm_packing.py",
        "tvm_relax.py",
        "tvm_rewrites.py",
        "tvm_tuning.py",
    )
    offenders = []
    for path in sources(ROOT):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            if any(name.startswith(moving) for name in names) and path.name not in adapters:
                offenders.append(f"{path.relative_to(ROOT)}:{node.lineno}: {names}")
    assert offenders == []


def test_every_installed_agent_loads_and_asks_for_legal_points(tiny_space: Space) -> None:
    points = {point.name: point for point in entry_points(group="schedenv.agents")}
    assert {"random", "greedy"} <= set(points)
    for point in points.values():
        asked = point.load()(tiny_space, 0).ask(3)
        assert 1 <= len(asked) <= 3
        assert all(isinstance(one, Point) and tiny_space.is_legal(one) for one in asked)


def test_a_missing_extra_is_named_with_the_command_that_installs_it() -> None:
    from schedenv.errors import MissingExtraError

    assert str(MissingExtraError("onnxruntime", "vendor", "the comparison")) == (
        "the comparison needs the package 'onnxruntime', which is not installed; "
        "run: pip install 'schedenv[vendor]'"
    )


def test_what_is_installed_is_what_the_project_file_declares() -> None:
    """Else agents added since are unknown, and the tests pass on a package that nobody ships."""
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]
    for group, members in project["entry-points"].items():
        installed = {point.name: point.value for point in entry_points(group=group)}
        missing = {name: value for name, value in members.items() if installed.get(name) != value}
        assert not missing, f"{group}: run make .venv/.installed-test again: {missing}"
