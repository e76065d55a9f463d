import ast
import re

import pytest

from dmclib.paths import ROOT

# CONTRIBUTING.md shows the same map, module by module; an import goes to a lower layer only.
LAYERS = [
    {"paths", "errors", "files"},
    {
        "timing",
        "parallel",
        "video",
        "vectors",
        "lists",
        "manifest",
        "children",
        "cluster",
        "scorefiles",
        "tvl1",
        "raft",
    },
    {"gops", "flow", "results", "corpora", "released", "checkpoints"},
    {"codec", "flowstore"},
    {"transforms", "models", "losses", "puppets", "prepare_one"},
    {"data", "clipnets", "prepare", "fast_cpu", "fast_cuda", "stream"},
    {"config", "loader", "fast"},
    {"loop", "schedules"},
    {"training", "evaluation"},
    {"jobs", "experiment", "fusions", "recognition", "figures", "profiles"},
    {
        "charts",
        "diagrams",
        "findings",
        "demo",
        "doctor",
        "runs",
        "execute",
        "grid",
        "bench_codec",
        "bench_flow",
        "bench_storage",
        "bench_generator",
        "bench_loader",
        "bench_training",
    },
    {"claims", "joblist", "bench_networks", "bench_path", "bench_recognition"},
    {"runner", "bench", "bench_curves", "readme"},
    {"cli"},
]
LAYER_OF = {name: k for k, names in enumerate(LAYERS) for name in names}
ONLY_IN = {
    "matplotlib": {"figures", "charts", "diagrams"},
    "papermill": {"execute"},
    "typer": {"cli"},
    "distributed": {"cluster"},
}
WITHOUT_FILES = {"models", "losses", "transforms"}
FILES_AND_CODECS = {
    "av",
    "cv2",
    "pathlib",
    "os",
    "io",
    "codec",
    "data",
    "files",
    "paths",
    "results",
}

MODULES = {path.stem: ast.parse(path.read_text()) for path in (ROOT / "dmclib").glob("*.py")}
NAMES = sorted(MODULES.keys() - {"__init__"})


def imports(tree):
    """Names of all modules imported anywhere in a file: dmclib's own bare, others' top level."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            assert [alias.name for alias in node.names] != ["*"], "import *"
            names = [node.module]
            if node.module == "dmclib":
                names = [f"dmclib.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            yield parts[1] if parts[0] == "dmclib" and len(parts) > 1 else parts[0]


@pytest.mark.parametrize("name", NAMES)
def test_imports_go_down(name):
    assert name in LAYER_OF, f"say in LAYERS and CONTRIBUTING.md where {name} belongs"
    own = {other for other in imports(MODULES[name]) if other in LAYER_OF}
    assert {other for other in own if LAYER_OF[other] >= LAYER_OF[name]} == set()


@pytest.mark.parametrize(("package", "allowed"), ONLY_IN.items())
def test_a_library_has_one_door(package, allowed):
    users = {name for name in NAMES if package in imports(MODULES[name])}
    assert users <= allowed


def test_networks_and_losses_see_no_file_and_no_codec():
    for name in WITHOUT_FILES & MODULES.keys():
        assert set(imports(MODULES[name])) & FILES_AND_CODECS == set(), name


def test_init_holds_the_map_and_the_version_alone():
    docstring, version = MODULES["__init__"].body
    assert isinstance(docstring, ast.Expr)
    assert ast.unparse(version).startswith("__version__ = ")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_public_says_what_it_is(name):
    assert ast.get_docstring(MODULES[name])
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.ClassDef):
            inside = [node, *(child for child in node.body if isinstance(child, ast.FunctionDef))]
        elif node is MODULES[name]:
            inside = [child for child in node.body if isinstance(child, ast.FunctionDef)]
        else:
            continue
        if isinstance(node, ast.ClassDef) and node.name.startswith("_"):
            continue
        for item in inside:
            assert item.name.startswith("_") or ast.get_docstring(item), f"{name}.{item.name}"


@pytest.mark.parametrize("name", NAMES)
def test_nothing_unpickles_and_nothing_runs_a_shell(name):
    source = ast.unparse(MODULES[name])
    assert "pickle" not in set(imports(MODULES[name])) or name == "scorefiles"
    for words in ("shell=True", "allow_pickle=True", "weights_only=False", "os.system"):
        assert words not in source


def test_the_map_in_contributing_is_this_one():
    table = (ROOT / "CONTRIBUTING.md").read_text()
    rows = [re.findall(r"`(\w+)`", row) for row in re.findall(r"^\| \d+ \|([^|]+)\|", table, re.M)]
    assert [set(row) for row in rows] == LAYERS
