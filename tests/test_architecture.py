import ast
import re

import pytest

from dmclib.paths import ROOT

# CONTRIBUTING.md shows the same map. A room is a module or a wing (a folder) of dmclib; an import
# goes to a room of a lower layer.
LAYERS = [
    {"paths", "errors", "files"},
    {"machine", "weights", "codec", "transforms", "losses", "cluster"},
    {"flow", "models", "i3d"},
    {"fast", "results", "evaluation", "data"},
    {"training", "figures", "speed", "prepare"},
    {"experiment", "recognition"},
    {"claims", "released"},
    {"reproduce", "doctor"},
    {"demo"},
    {"classify", "explore"},
    {"cli"},
]
LAYER_OF = {name: k for k, names in enumerate(LAYERS) for name in names}
ONLY_IN = {
    "matplotlib": {"figures"},
    "papermill": {"reproduce.runner"},
    "ipywidgets": {"explore"},
    "typer": {"cli"},
    "distributed": {"cluster"},
    "pickle": {"evaluation.score_files"},
}
WITHOUT_FILES = {"models", "losses", "transforms"}
FILES_AND_CODECS = {"av", "cv2", "pathlib", "os", "io", "codec", "data", "files", "paths"}

PACKAGE = ROOT / "dmclib"
FILES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_text())
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.parent != PACKAGE or not path.stem.startswith("__")
}
FACES = sorted(name for name in FILES if name.endswith(".__init__"))
NAMES = sorted(FILES.keys() - set(FACES))


def imports(tree):
    """Everything imported anywhere in a file, dotted: module, or module and name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            assert [alias.name for alias in node.names] != ["*"], "import *"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def outside(tree):
    """Other packages that a file imports."""
    return {name.split(".")[0] for name in imports(tree)} - {"dmclib"}


def room(name):
    return name.split(".")[0]


@pytest.mark.parametrize("name", FILES)
def test_imports_go_down(name):
    assert room(name) in LAYER_OF, f"say in LAYERS and CONTRIBUTING.md where {name} belongs"
    own = {
        room(other.removeprefix("dmclib.")) for other in imports(FILES[name]) if "dmclib." in other
    }
    above = {o for o in own & LAYER_OF.keys() if LAYER_OF[o] >= LAYER_OF[room(name)]}
    assert above <= {room(name)}
    assert not own & {"benchmarks", "book"}


@pytest.mark.parametrize("name", FILES)
def test_no_import_of_a_private_name(name):
    for other in imports(FILES[name]):
        if other.startswith("dmclib."):
            assert not other.split(".")[-1].startswith("_") or other == "dmclib.__version__", other


@pytest.mark.parametrize(("package", "allowed"), ONLY_IN.items())
def test_a_library_has_one_door(package, allowed):
    users = {name for name in FILES if package in outside(FILES[name])}
    assert {name if name in allowed else room(name) for name in users} <= allowed


def test_networks_and_losses_see_no_file_and_no_codec():
    for name in WITHOUT_FILES:
        seen = {part for other in imports(FILES[name]) for part in other.split(".")[:2]}
        assert seen & FILES_AND_CODECS == set(), name


@pytest.mark.parametrize("name", FACES)
def test_a_face_holds_names_only(name):
    docstring, *rest = FILES[name].body
    assert isinstance(docstring, ast.Expr)
    assert all(isinstance(line, ast.ImportFrom) for line in rest)


def test_init_holds_the_map_and_the_version_alone():
    docstring, version = ast.parse((PACKAGE / "__init__.py").read_text()).body
    assert isinstance(docstring, ast.Expr)
    assert ast.unparse(version).startswith("__version__ = ")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_public_says_what_it_is(name):
    assert ast.get_docstring(FILES[name])
    for node in ast.walk(FILES[name]):
        if isinstance(node, ast.ClassDef):
            inside = [node, *(child for child in node.body if isinstance(child, ast.FunctionDef))]
        elif node is FILES[name]:
            inside = [child for child in node.body if isinstance(child, ast.FunctionDef)]
        else:
            continue
        if isinstance(node, ast.ClassDef) and node.name.startswith("_"):
            continue
        for item in inside:
            assert item.name.startswith("_") or ast.get_docstring(item), f"{name}.{item.name}"


@pytest.mark.parametrize("name", NAMES)
def test_nothing_unpickles_and_nothing_runs_a_shell(name):
    source = ast.unparse(FILES[name])
    for words in ("shell=True", "allow_pickle=True", "weights_only=False", "os.system"):
        assert words not in source


@pytest.mark.parametrize("folder", ["dmclib", "benchmarks"])
def test_no_module_is_longer_than_it_can_be_read(folder):
    for path in (ROOT / folder).rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 403, path


def test_the_package_stays_small_to_read():
    assert len(list(PACKAGE.glob("[!_]*"))) + 2 <= 33


def test_the_map_in_contributing_is_this_one():
    table = (ROOT / "CONTRIBUTING.md").read_text()
    rows = [re.findall(r"`(\w+)`", row) for row in re.findall(r"^\| \d+ \|([^|]+)\|", table, re.M)]
    assert [set(row) for row in rows] == LAYERS
