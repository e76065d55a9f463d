import ast
import json
import re
import shutil
import statistics
import subprocess

import nbformat
import papermill
import pytest
import yaml

from dmclib import paths
from dmclib.data import manifest
from dmclib.data.corpora import ADAPTERS
from dmclib.reproduce.profiles import defaults, plan

NOTEBOOKS = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
PROFILES = sorted(path.stem for path in paths.PROFILES.glob("*.yaml"))
FOLDERS = re.compile(r"(?<![\w.])/(home|work|root|tmp|Users|mnt|private)/")
BELONGS_IN_MODULES = {"papermill", "matplotlib", "cv2", "av"}

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code" and cell.source.strip()]


def texts(path):
    """Every source, and every output as text; pictures are left out."""
    for cell in read(path).cells:
        yield cell.source
        for output in cell.get("outputs", []):
            yield output.get("text", "")
            data = output.get("data", {})
            yield from (str(value) for kind, value in data.items() if kind.startswith("text/"))


def test_there_are_notebooks_and_their_numbers_say_the_order():
    assert NOTEBOOKS
    assert all(re.fullmatch(r"\d\d_[a-z_]+", path.stem) for path in NOTEBOOKS)
    numbers = [path.stem[:2] for path in NOTEBOOKS]
    assert len(set(numbers)) == len(numbers)


@each_notebook
def test_it_is_a_notebook_of_this_interpreter_and_not_large(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert path.stat().st_size < 2_500_000


@each_notebook
def test_it_opens_with_its_question_and_ends_with_what_was_not_checked(path):
    cells = read(path).cells
    assert cells[0].cell_type == "markdown"
    for word in ("**Question.**", "**Needs**", "**Makes**", "**Time**"):
        assert word in cells[0].source
    last = [cell.source for cell in cells if cell.cell_type == "markdown"][-1]
    assert "What we found" in last
    assert "What we did not check" in last


@each_notebook
def test_its_parameters_are_literals_with_a_type_and_a_meaning(path):
    tagged = [c for c in read(path).cells if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1
    lines = tagged[0].source.splitlines()
    for statement in ast.parse(tagged[0].source).body:
        assert isinstance(statement, ast.AnnAssign), lines[statement.lineno - 1]
        assert re.search(r"  # \w", lines[statement.end_lineno - 1]), lines[statement.lineno - 1]
    assert defaults(path).get("profile") == "laptop"


@each_notebook
def test_it_was_run_from_top_to_bottom_without_an_error(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for output in (output for cell in cells for output in cell.outputs):
        assert output.output_type != "error"
        assert "Traceback (most recent call last)" not in output.get("text", "")


@each_notebook
def test_its_cells_are_short_and_the_work_is_done_in_modules(path):
    cells = code_cells(path)
    assert statistics.median(len(cell.source.splitlines()) for cell in cells) <= 12
    imported = set()
    for node in ast.walk(ast.parse("\n".join(cell.source for cell in cells))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    assert not imported & BELONGS_IN_MODULES


def computing(notebook):
    """Sources of the code cells, but for the parameters, which the profile decides."""
    return [
        cell.source
        for cell in notebook.cells
        if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", [])
    ]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@each_notebook
def test_its_results_were_made_by_the_code_that_it_shows(path):
    file = paths.RESULTS / "laptop" / f"{path.stem}.json"
    if not file.is_file():
        pytest.skip("it keeps no results")
    commit = json.loads(file.read_text())["commit"].removesuffix("-dirty")
    command = ["git", "show", f"{commit}:./{path.name}"]
    then = subprocess.run(command, cwd=path.parent, capture_output=True, text=True)
    if then.returncode != 0:
        pytest.skip(f"commit {commit}, of its results, is not in this copy's history")
    assert computing(read(path)) == computing(nbformat.reads(then.stdout, as_version=4))


@each_notebook
def test_what_needs_a_kernel_is_shown_without_one_too(path):
    for cell in code_cells(path):
        if cell.source.startswith("explore."):
            shown = {kind for output in cell.outputs for kind in output.get("data", {})}
            assert shown & {"image/jpeg", "text/html"}, cell.source


@each_notebook
def test_it_names_no_folder_of_the_machine_it_was_run_on(path):
    for text in texts(path):
        assert not FOLDERS.search(text), text


each_profile = pytest.mark.parametrize("profile", PROFILES)


@each_profile
def test_every_word_of_a_profile_fits_the_notebooks(profile, tmp_path):
    asked = yaml.safe_load((paths.PROFILES / f"{profile}.yaml").read_text())
    settings = []
    if "prepared_folder" in asked:
        dataset = ADAPTERS[asked["corpus"]].__name__
        manifest.write(tmp_path, manifest.Manifest(dataset, (), 0, (), {}, None, {}, {}))
        settings.append(f"prepared_folder={tmp_path}")
    assert plan(profile, settings=settings, data=tmp_path if "data_folder" in asked else None)


@each_profile
def test_papermill_alone_gives_a_notebook_what_a_profile_says(profile, tmp_path):
    asked = yaml.safe_load((paths.PROFILES / f"{profile}.yaml").read_text())
    source, target = paths.NOTEBOOKS / "06_ablations.ipynb", tmp_path / "out.ipynb"
    papermill.execute_notebook(source, target, parameters=asked, prepare_only=True)
    (cell,) = [c for c in code_cells(target) if "injected-parameters" in c.metadata.tags]
    given = {}
    exec(cell.source, given)
    assert {name: given[name] for name in asked} == asked


def test_a_run_at_the_notebooks_defaults_is_the_laptop_run():
    assert all(step.parameters == {"profile": "laptop"} for step in plan("laptop"))
