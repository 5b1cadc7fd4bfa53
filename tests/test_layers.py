"""The direction of imports, as DESIGN's table of layers has it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "upop_ray"
ENTRY_POINTS = {"sweep", "doctor", "run", "report", "export", "bench", "plan", "prepare"}
#: entry points that lie beside what they are about
INNER_ENTRY_POINTS = {"data/prepare.py": "prepare"}
LEAVES = {"errors", "problems", "config", "identity", "store", "tracking", "terminal"}
#: layer -> layers of this package that it may import, besides itself
ALLOWED = {
    "errors": set(),
    "problems": {"errors"},
    "config": {"errors", "problems"},
    "identity": {"config"},
    "store": {"errors"},
    "tracking": {"store", "config", "errors"},
    "terminal": {"errors"},
    "pruning": {"errors"},
    "models": {"pruning", "errors"},
    "data": {"store", "errors"},
    "tasks": {"data", "config", "errors"},
    "training": {"terminal", "tasks", "models", "data", "pruning", "store", "tracking", "identity", "config", "errors"},
    "distributed": {"training", "tasks", "models", "data", "pruning", "reporting", *LEAVES},
    "deploy": {"models", "data", "pruning", "reporting", "store", "config", "errors"},
    "reporting": {"store", "tracking", "terminal", "config", "identity", "errors"},
    # importing the package makes sliced models known to transformers
    "__init__": {"models"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def layer_of(file: Path) -> str:
    path = file.relative_to(PACKAGE)
    return INNER_ENTRY_POINTS.get(path.as_posix(), path.parts[0].removesuffix(".py"))


def imported(file: Path) -> Iterator[str]:
    """Dotted names of all that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layers_imported(file: Path) -> set[str]:
    return {name.split(".")[1] for name in imported(file) if name.startswith("upop_ray.")} - {layer_of(file)}


@pytest.mark.parametrize("layer", sorted(ALLOWED))
def test_a_layer_imports_what_the_table_allows(layer: str) -> None:
    wrong = {
        str(file.relative_to(PACKAGE)): sorted(layers_imported(file) - ALLOWED[layer])
        for file in FILES
        if layer_of(file) == layer and layers_imported(file) - ALLOWED[layer]
    }
    assert not wrong


def test_every_file_belongs_to_a_layer() -> None:
    assert {layer_of(file) for file in FILES} - set(ALLOWED) <= ENTRY_POINTS


def test_distributed_alone_imports_ray_or_deepspeed() -> None:
    users = {layer_of(file) for file in FILES if {n.split(".")[0] for n in imported(file)} & {"ray", "deepspeed"}}
    assert users == {"distributed"}


def test_pruning_is_pure_torch() -> None:
    outside = {name.split(".")[0] for file in FILES if layer_of(file) == "pruning" for name in imported(file)}
    assert outside - set(sys.stdlib_module_names) == {"torch", "upop_ray"}


def test_computing_a_point_loads_neither_ray_nor_deepspeed() -> None:
    code = "import sys, upop_ray.training.point; print(*sorted({n.split('.')[0] for n in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120)
    modules = set(loaded.stdout.split())
    assert "upop_ray" in modules and not modules & {"ray", "deepspeed"}
