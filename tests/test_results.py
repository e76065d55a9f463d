import json
import subprocess

import numpy as np
import pandas as pd
import pytest

from dmclib import paths, results
from dmclib.errors import DMCError

ROW = {"method": "DMC", "accuracy": 0.5, "n": 40, "low": 0.35, "high": 0.65}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run whose results go to a folder of the test's own."""
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    return results.start_run("06_ablations", profile="laptop", seed=3, epochs=8, lr=np.float32(0.5))


def test_what_is_saved_comes_back_with_its_origin(run):
    rows = [ROW, {"method": "cues | none", "seconds": np.float64(0.25), "done": np.bool_(True)}]
    path = run.save(rows, data={"set": "PuppetActions", "clips": 40}, device="cpu")
    assert path == paths.RESULTS / "laptop" / "06_ablations.json"

    record = results.load("06_ablations", "laptop")
    assert (record.seed, record.parameters) == (3, {"epochs": 8, "lr": 0.5})
    assert record.data == {"set": "PuppetActions", "clips": 40}
    assert record.extra == {"device": "cpu"}
    assert record.created.endswith("+00:00")
    assert list(record.rows["method"]) == ["DMC", "cues | none"]
    assert record.rows.loc[0, "accuracy"] == 0.5
    assert record.rows.loc[1, "seconds"] == 0.25


def test_a_table_saves_as_its_rows_do(run):
    text = run.save([ROW], data="none").read_text()
    again = run.save(pd.DataFrame([ROW]), data="none").read_text()
    assert json.loads(text)["rows"] == json.loads(again)["rows"] == [ROW]
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert sum(line.startswith("    {") for line in text.splitlines()) == 1  # a line a row


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"accuracy": 0.5}, "row 1: an accuracy without n, low, high"),
        ({**ROW, "high": None}, "an accuracy without high"),
        ({**ROW, "accuracy": 50.0}, "not a share inside"),
        ({**ROW, "low": 0.6}, r"not a share inside \[0.6"),
        ({"seconds": float("nan")}, "rows, 0, seconds: nan"),
        ({"seconds": np.float32("inf")}, "rows, 0, seconds: inf"),
        ({"field": np.zeros(2)}, "a ndarray cannot be kept"),
    ],
)
def test_a_number_that_would_mislead_is_refused_and_nothing_is_written(run, row, message):
    with pytest.raises(DMCError, match=message):
        run.save([row], data="none")
    assert not paths.RESULTS.exists()


def test_no_rows_are_no_result(run):
    with pytest.raises(DMCError, match="no row"):
        run.save([], data="none")


def test_an_absent_result_names_the_notebook_to_run(run):
    for read in (results.load, results.load_arrays):
        with pytest.raises(DMCError, match=r"dmc reproduce laptop --only 06\)"):
            read("06_ablations", "laptop")


@pytest.mark.parametrize("text", ["", "[1]", '{"rows": []}', "{"])
def test_a_damaged_result_is_said_in_a_sentence(run, text):
    run.save([ROW], data="none").write_text(text)
    with pytest.raises(DMCError, match="is damaged"):
        results.load("06_ablations", "laptop")


def test_arrays_come_back_as_they_were_and_never_as_objects(run):
    motion = np.arange(6, dtype=np.float32).reshape(2, 1, 3)
    path = run.save_arrays(motion=motion, names=["a", "b"])
    back = results.load_arrays("06_ablations", "laptop")
    np.testing.assert_array_equal(back["motion"], motion)
    assert back["motion"].dtype == np.float32
    assert list(back["names"]) == ["a", "b"]
    with pytest.raises(DMCError, match="'rows' holds Python objects"):
        run.save_arrays(rows=np.array([{}]))
    np.savez(path, rows=np.array([{}]))  # as somebody else's file might be
    with pytest.raises(DMCError, match="holds no arrays"):
        results.load_arrays("06_ablations", "laptop")
    path.write_bytes(b"PK not a zip")
    with pytest.raises(DMCError, match="holds no arrays"):
        results.load_arrays("06_ablations", "laptop")


@pytest.mark.parametrize("name", [("../06", "laptop"), ("06", "a/b"), ("06", ""), ("06", "paper")])
def test_a_name_never_leads_out_of_its_folder(name):
    with pytest.raises(DMCError):
        results.start_run(name[0], profile=name[1], seed=0)


def test_no_folder_of_this_machine_is_noted(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    monkeypatch.setattr(paths, "ROOT", tmp_path / "suite")
    folders = {"near": str(tmp_path / "shared" / "clips"), "far": "/elsewhere/clips", "word": "a/b"}
    run = results.start_run("05_recognition", profile="real", seed=0, **folders)
    run.save([{"seconds": 1}], data="none")
    noted = results.load("05_recognition", "real").parameters
    assert noted == {"near": "../shared/clips", "far": "clips", "word": "a/b"}


def test_the_commit_says_whether_the_code_had_been_edited(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    assert results._commit() == "unknown"  # not a repository

    def git(*words):
        identity = ["-c", "user.name=n", "-c", "user.email=e@e"]
        command = ["git", "-C", tmp_path, *identity, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    (tmp_path / "dmclib").mkdir()
    (tmp_path / "dmclib" / "codec.py").write_text("x = 1\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    commit = git("rev-parse", "HEAD")
    (tmp_path / "notes.txt").touch()  # not code
    assert results._commit() == commit
    (tmp_path / "dmclib" / "codec.py").write_text("x = 2\n")
    assert results._commit() == f"{commit}-dirty"
    monkeypatch.setattr(paths, "ROOT", tmp_path / "dmclib")  # unpacked inside another's repository
    assert results._commit() == "unknown"


def test_the_papers_tables_say_where_they_stand_and_agree_with_themselves():
    losses = results.reported("section_4_3")
    assert list(losses["hmdb51"]) == [60.5, 61.5, 61.8]
    assert set(losses["source"]) == {"paper, section 4.3"}
    assert len(results.reported("table_4")) == 22
    speed = results.reported("table_3a")
    for scenario in "sc":  # a total is its two parts
        parts = speed["preprocess_ms"] + speed[f"cnn_{scenario}_ms"]
        np.testing.assert_allclose(speed[f"total_{scenario}_ms"], parts, atol=1e-9)
    np.testing.assert_allclose(speed["total_c_fps"], 1000 / speed["total_c_ms"], rtol=0.01)
    released = results.reported("released_hmdb51")
    splits = released[["split_1", "split_2", "split_3"]].mean(axis=1)
    np.testing.assert_allclose(released["mean"], splits, atol=0.006)
    layers = results.reported("table_2")  # densely connected: each layer sees all before it
    assert list(layers["channels_in"]) == [5, *(5 + layers["channels_out"].cumsum())[:-1]]
    with pytest.raises(DMCError, match=r"no table 'table_9'.*table_1"):
        results.reported("table_9")


def test_a_table_as_markdown_is_a_line_a_row_whatever_its_cells_hold():
    table = pd.DataFrame({"claim": ["a | b", "two\nlines"], "n": [3, 4]})
    assert results.to_markdown(table).split("\n") == [
        "| claim | n |",
        "| --- | --- |",
        "| a \\| b | 3 |",
        "| two lines | 4 |",
    ]
