"""Imports point one way along the data's path, and nothing light loads anything heavy."""

import ast
import resource
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "gigaseg"

FAULTS = ("attempt", "damage", "samples", "trial")
"""Parts of `testing` that run the command line."""

LAYERS = [
    {"cluster", "errors", "gdal", "geometry", "gpus", "keys", "lease", "processes", "progress", "results"},
    {"devices"},
    {"columns", "files", "runner"},
    {"config", "configfiles", "runrecord", "sheet", "slides", "segmenters.card", "export.formats"},
    {"tiles", "sidefiles"},
    {"exemplar", "segmenters.base", "segmenters.registry"},
    {"sam"},
    {"prompts"},
    {"segmenters"},
    {"instances"},
    {"stitch"},
    {"measure", "metrics"},
    {"one_shot"},
    {"export"},
    {"report"},
    {"testing"},
    {"options", "schema"},
    {"train"},
    {"incoming"},
    {"plan", "status", "commands", "ahead", "doctor", "session", "viewer"},
    {"cli"},
    {"__main__", *(f"testing.{name}" for name in ("faults", *(f"faults.{part}" for part in FAULTS)))},
]
"""Who may import whom: a part imports from itself, its own layer and those above it in this list."""

MAY_IMPORT_TORCH = (
    "doctor.machine",
    "sam",
    "prompts",
    "segmenters",
    "train",
    "devices",
    "instances.model",
    "instances.one_model",
    "instances.pipeline",
    "instances.stages",
    "instances.transfer",
)


def layer_of(name):
    for depth, layer in enumerate(LAYERS):
        if name in layer:
            return depth
    return next((depth for depth, layer in enumerate(LAYERS) if name.partition(".")[0] in layer), None)


def modules():
    for path in sorted(SOURCE.rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        yield name.removesuffix(".__init__"), path


def imports(path, *, at_import_time=False):
    tree = ast.parse(path.read_text())
    nodes = tree.body if at_import_time else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_every_module_has_a_layer_and_imports_from_no_later_one():
    wrong = []
    for name, path in modules():
        if name == "__init__":
            continue
        own = layer_of(name)
        if own is None:
            wrong.append(f"{name} has no layer")
            continue
        for target in imports(path):
            package = "gigaseg." + name.partition(".")[0]
            if not target.startswith("gigaseg.") or target.startswith(package + "."):
                continue
            other = layer_of(target.removeprefix("gigaseg."))
            if other is None or other > own:
                wrong.append(f"{name} imports {target}")
    assert wrong == []


def test_only_models_import_torch():
    found = {
        name
        for name, path in modules()
        if any(target.partition(".")[0] in ("torch", "torchvision", "segment_anything") for target in imports(path))
    }
    assert found, "the rule would be empty"
    assert [name for name in found if not name.startswith(MAY_IMPORT_TORCH)] == []


@pytest.mark.parametrize("code", ["import gigaseg", "from gigaseg.cli import make_parser; make_parser().format_help()"])
def test_a_light_start_loads_nothing_heavy_and_is_quick(code):
    check = f"{code}\nimport sys\nprint(sorted({{'torch', 'shapely', 'numpy', 'pyarrow', 'zarr'}} & set(sys.modules)))"
    seconds = []
    for _ in range(3):  # the quickest counts, and processor time, so that other work on the machine does not
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.stdout.strip() == "[]"
    assert min(seconds) < 0.5


def test_planning_a_cohort_loads_no_torch():
    code = "import gigaseg.plan, gigaseg.slides.inspect, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
