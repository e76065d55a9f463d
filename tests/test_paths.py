import os
import subprocess
import sys
from pathlib import Path

import pytest

from dmclib import paths

VARIABLES = {
    "DMC_SHARED_DATA": paths.data_root,
    "DMC_RELEASED_SCORES": paths.released_scores,
    "DMC_RELEASED_WEIGHTS": paths.released_weights,
}


def test_the_score_files_are_where_the_variable_says(tmp_path, monkeypatch):
    monkeypatch.setenv("DMC_RELEASED_SCORES", str(tmp_path))
    assert paths.released_scores() == tmp_path
    monkeypatch.setenv("DMC_RELEASED_SCORES", str(tmp_path / "absent"))
    assert paths.released_scores() is None


@pytest.mark.parametrize("variable", [None, ""])
@pytest.mark.parametrize("made", [True, False])
def test_without_the_variable_they_are_looked_for_among_the_real_clips(
    tmp_path, monkeypatch, made, variable
):
    monkeypatch.delenv("DMC_RELEASED_SCORES", raising=False)
    if variable is not None:
        monkeypatch.setenv("DMC_RELEASED_SCORES", variable)
    monkeypatch.setenv("DMC_SHARED_DATA", str(tmp_path))
    folder = tmp_path / "released_scores" / "exp_my"
    if made:
        folder.mkdir(parents=True)
    assert paths.released_scores() == (folder if made else None)


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch, variable):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(variable, "~/my clips")
    assert VARIABLES[variable]() is None
    (tmp_path / "my clips").mkdir()
    assert VARIABLES[variable]() == tmp_path / "my clips"


def test_an_empty_variable_is_not_the_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path / "checkout")
    (tmp_path / "checkout").mkdir()
    monkeypatch.setenv("DMC_SHARED_DATA", "")
    assert paths.data_root() is None
    (tmp_path / "shared" / "data").mkdir(parents=True)
    assert paths.data_root().resolve() == tmp_path / "shared" / "data"


@pytest.mark.parametrize(
    ("value", "cache"),
    [
        ("", paths.ROOT / "cache"),
        ("~/dmc cache", Path("/home/me/dmc cache")),
        ("/elsewhere", Path("/elsewhere")),
        ("here", paths.ROOT / "here"),
    ],
)
def test_the_cache_is_where_the_variable_says(tmp_path, value, cache):
    code = "from dmclib import paths; print(paths.CACHE)"
    variables = os.environ | {"DMC_CACHE": value, "HOME": "/home/me", "PYTHONPATH": str(paths.ROOT)}
    command = [sys.executable, "-c", code]
    said = subprocess.check_output(command, env=variables, cwd=tmp_path, text=True)
    assert said.strip() == str(cache)
