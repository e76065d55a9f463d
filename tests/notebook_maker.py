"""Tiny notebooks from strings, so that a test and the notebook it runs are read together."""

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook


def write(folder: Path, name: str, parameters: str, *cells: str) -> Path:
    """Write ``<folder>/<name>.ipynb``: a title, the parameters cell, then the code cells."""
    tagged = new_code_cell(parameters, metadata={"tags": ["parameters"]})
    code = [new_code_cell(source) for source in cells]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = new_notebook(
        cells=[new_markdown_cell(f"# {name}"), tagged, *code], metadata={"kernelspec": kernel}
    )
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


def use_folder(monkeypatch, folder: Path) -> Path:
    """Let dmclib find its notebooks, profiles, results and figures under ``folder``.

    There is one profile, ``smoke``, which leaves all at the notebooks' defaults.
    """
    from dmclib import paths

    monkeypatch.setattr(paths, "NOTEBOOKS", folder / "notebooks")
    monkeypatch.setattr(paths, "PROFILES", folder / "notebooks" / "profiles")
    monkeypatch.setattr(paths, "RESULTS", folder / "results")
    monkeypatch.setattr(paths, "FIGURES", folder / "figures")
    paths.PROFILES.mkdir(parents=True)
    (paths.PROFILES / "smoke.yaml").write_text("profile: smoke\n")
    return folder
