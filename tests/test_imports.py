"""Who may import whom, read from the sources; and what importing loads, seen from a fresh interpreter."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import vmoe

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "vmoe"


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
PARTS = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir()} - {
    "__init__",
    "__pycache__",
    "py.typed",
}


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def import_nodes(node: ast.AST, *, only_on_import: bool):
    """Import statements below a node, those for type checkers aside; with only_on_import, not those in functions."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child) or (only_on_import and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)):
            continue
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        yield from import_nodes(child, only_on_import=only_on_import)


def imports(module: str, *, only_on_import: bool = False) -> set[str]:
    """Full names of what a module imports: modules, and modules of vmoe imported by ``from package import module``."""
    found = set()
    package = module.split(".") if MODULES[module].stem == "__init__" else module.split(".")[:-1]
    for node in import_nodes(ast.parse(MODULES[module].read_text(encoding="utf-8")), only_on_import=only_on_import):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
            continue
        base = node.module or ""
        if node.level:
            base = ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])
        submodules = {f"{base}.{alias.name}" for alias in node.names} & set(MODULES)
        found |= submodules
        if len(submodules) < len(node.names):
            found.add(base)
    return found


def part_of(module: str) -> str:
    """``moe`` for ``vmoe.moe.gates``, ``vmoe`` for the package itself."""
    return module.split(".")[1] if "." in module else module


ANY = frozenset(PARTS | {"vmoe"})
# Which parts of vmoe a part may import; `vmoe` is the package itself, which holds the version and lazy names.
MAY_IMPORT = {
    "vmoe": {"api", "moe"},
    "moe": set(),
    "backbones": {"moe", "tensors"},
    "config": {"moe", "untrusted"},
    "files": set(),
    "tensors": set(),
    "untrusted": set(),
    "train": {"moe", "config", "files", "tensors", "untrusted"},
    "data": {"config", "files", "untrusted"},
    "report": {"config", "files", "untrusted"},
    "api": {"backbones", "config", "moe", "train"},
    "cli": ANY,
    "__main__": {"cli"},
}
# Which part alone adapts a library.
KERNELS = "vmoe.moe.dispatch.triton"  # imported only where Triton is installed and asked for
ADAPTED_BY = {"ffcv": "data", "transformers": "backbones", "matplotlib": "report", "safetensors": "tensors"}


def test_every_part_has_its_rule():
    assert {part_of(module) for module in MODULES} <= set(MAY_IMPORT)


@pytest.mark.parametrize("module", MODULES)
def test_a_part_imports_only_the_parts_below_it(module):
    part = part_of(module)
    parts = {part_of(name) for name in imports(module) if name.split(".")[0] == "vmoe"}
    assert parts - {part} <= set(MAY_IMPORT[part])


@pytest.mark.parametrize("module", [module for module in MODULES if part_of(module) in ("data", "report")])
def test_data_and_report_know_config_by_its_types_alone(module):
    """The package's own names or its schema: no reading of files, no wording of errors."""
    from_config = {name for name in imports(module) if part_of(name) == "config" and name.startswith("vmoe.")}
    assert from_config <= {"vmoe.config", "vmoe.config.schema"}


@pytest.mark.parametrize("module", [module for module in MODULES if part_of(module) in ("moe", "report")])
def test_the_core_needs_torch_alone_and_the_report_not_even_that(module):
    """Kernels for GPUs aside, which need Triton."""
    allowed = {"moe": {"torch", "vmoe"}, "report": {"vmoe", "matplotlib", "numpy", "yaml"}}[part_of(module)]
    if module.startswith(KERNELS):
        allowed = allowed | {"triton"}
    outside = {name.split(".")[0] for name in imports(module)} - set(sys.stdlib_module_names)
    assert outside <= allowed


FOREIGN_WORDS = re.compile(r"\b(image|picture|pixel|text|vocabulary|language)s?\b", re.IGNORECASE)


@pytest.mark.parametrize("module", [module for module in MODULES if part_of(module) == "moe"])
def test_the_core_knows_neither_images_nor_text(module):
    """No line of it names them; Triton's own language is another one."""
    lines = MODULES[module].read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if FOREIGN_WORDS.search(line.replace("import triton.language as tl", ""))] == []


@pytest.mark.parametrize("package", ADAPTED_BY)
def test_libraries_are_adapted_in_one_place(package):
    users = {part_of(module) for module in MODULES if package in {name.split(".")[0] for name in imports(module)}}
    assert users <= {ADAPTED_BY[package]}


@pytest.mark.parametrize("module", MODULES)
def test_nothing_asks_which_task_it_is(module):
    """Tasks are told apart by tables, one a part, and never by a comparison."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    compared = [node for node in ast.walk(tree) if isinstance(node, ast.Compare | ast.match_case)]
    named = {node.value for found in compared for node in ast.walk(found) if isinstance(node, ast.Constant)}
    assert not {"images", "text"} & named
    classes = {"ImageRunConfig", "TextRunConfig", "ImageTask", "TextTask", "ImageAssembly", "TextAssembly"}
    checks = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance"]
    assert not classes & {node.id for check in checks for node in ast.walk(check) if isinstance(node, ast.Name)}


def test_no_cycles():
    """Among modules, as they are imported when the package is; a cycle raises `CycleError`."""
    graph = {}
    for module in MODULES:
        own = {name for name in imports(module, only_on_import=True) if name in MODULES}
        graph[module] = own - {module}
    order = list(TopologicalSorter(graph).static_order())
    assert set(order) == set(MODULES)


def test_no_cycles_among_parts():
    graph = {
        part: {part_of(name) for m in MODULES if part_of(m) == part for name in imports(m) if name in MODULES}
        - {part, "vmoe"}
        for part in PARTS
    }
    assert set(TopologicalSorter(graph).static_order()) >= PARTS


def test_the_reader_of_imports_sees_every_form(tmp_path, monkeypatch):
    source = """
import torch.nn as nn
from . import layer
from .gates import Gate
from ..config import load_config
from vmoe.data import loader
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import hidden
def f():
    import timm
"""
    path = tmp_path / "probe.py"
    path.write_text(source)
    monkeypatch.setitem(MODULES, "vmoe.moe.probe", path)
    on_import = {"torch.nn", "vmoe.moe.layer", "vmoe.moe.gates", "vmoe.config", "vmoe.data.loader", "typing"}
    assert imports("vmoe.moe.probe", only_on_import=True) == on_import
    assert imports("vmoe.moe.probe") == on_import | {"timm"}


# --- what is loaded --------------------------------------------------------------------------------------


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_vmoe_loads_none_of_its_dependencies():
    loaded = run("import sys, vmoe; print(*{name.split('.')[0] for name in sys.modules})").split()
    assert "vmoe" in loaded
    assert not {"torch", "timm", "pydantic", "yaml", "numpy", "ffcv", "matplotlib"} & set(loaded)


def test_importing_the_core_does_not_load_the_compiler():
    """Nor kernels for a device that is not asked for: each takes seconds."""
    loaded = set(run("import sys, vmoe.moe; print(*sys.modules)").split())
    assert "vmoe.moe.dispatch.fused" in loaded
    assert not {"torch._dynamo", "torch._inductor", "vmoe.moe.dispatch.triton"} & loaded


def test_every_public_name_is_there_and_no_other():
    for name in vmoe.__all__:
        assert getattr(vmoe, name).__name__ == name
    assert set(vmoe.__all__) <= set(dir(vmoe))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = vmoe.nonsense


BLOCK = "import sys; sys.modules.update(dict.fromkeys({!r}.split()));"


def test_the_core_works_with_torch_alone():
    blocked = BLOCK.format("timm pydantic yaml ffcv torchvision tqdm matplotlib sklearn transformers")
    uses = """
import torch
from vmoe.moe import HostMlp, MoESpec, RoutingFree, RoutingStats, balance_for, build_moe, record
spec = MoESpec(gate=RoutingFree())
layer = build_moe(spec, HostMlp(8, 32, torch.nn.functional.gelu, bias=True, std_in=0.02, std_out=0.02))
stats = RoutingStats(layer)
with record(layer) as routings:
    layer(torch.randn(2, 3, 8)).sum().backward()
stats.update(routings)
balance_for(layer)(routings)
print(stats.figures()[''].density > 0)
"""
    assert run(blocked + uses) == "True\n"


def test_the_report_reads_without_torch():
    run(BLOCK.format("torch timm pydantic yaml ffcv matplotlib") + "import vmoe.report")
