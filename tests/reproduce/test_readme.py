import pytest

from dmclib import errors, experiment, paths, results
from dmclib.reproduce import readme

TEXT = readme.FILE.read_text(encoding="utf-8")


def test_readmes_tables_are_what_the_committed_results_give():
    assert readme.renewed(TEXT) == TEXT, "README is older than results/: make readme"


def test_an_older_table_is_replaced_and_nothing_else():
    begin = "<!-- table claims -->\n"
    older = TEXT.replace(begin, f"{begin}| an | older | row |\n")
    assert readme.renewed(f"Other words\n{older}") == f"Other words\n{TEXT}" != older


def test_a_table_without_its_place_is_named():
    with pytest.raises(errors.DMCError, match="no place for table 'real': put in <!-- table real"):
        readme.renewed(TEXT.replace("<!-- end real -->", ""))


def test_a_variant_is_a_row_in_per_cent_and_what_was_not_measured_stays_empty(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    row = {"accuracy": 0.5, "low": 0.25, "high": 0.75, "n": 8}
    row |= {"clip_accuracy": 0.6, "clip_low": 0.3, "clip_high": 0.9}
    rows = [
        row | {"variant": experiment.METADATA, "epe_px": None},
        row | {"variant": experiment.ADV, "epe_px": 0.126},
    ]
    gain = {"a": "x", "b": "y", "a - b": 0.125, "low": -0.01, "high": 0.26, "says": "nothing"}
    run = results.start_run("06_ablations", profile="laptop", seed=0)
    run.save(rows, data="clips", differences=[gain])
    lines = readme.ablation("laptop").splitlines()
    assert lines[2] == "| file metadata |  | 60.0 [30.0, 90.0] |  |"
    assert lines[3] == "| DMC: cls + MSE + adv | 50.0 [25.0, 75.0] | 60.0 [30.0, 90.0] | 0.13 |"
    assert lines[-1] == "| x - y | +12.5 [-1.0, +26.0] | nothing |"


def test_a_change_stands_beside_what_it_changes_and_other_differences_elsewhere(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    row = {"variant": experiment.KEEP_DX, "accuracy": 0.5, "low": 0.25, "high": 0.75, "n": 8}
    gain = {"a - b": -0.125, "low": -0.26, "high": 0.01, "says": "nothing"}
    differences = [
        gain | {"a": experiment.ADV, "b": experiment.MOTION},
        gain | {"a": experiment.KEEP_DX, "b": experiment.MSE},
    ]
    run = results.start_run("06_ablations", profile="ablations", seed=0)
    run.save([row | {"epe_px": 0.126}], data="clips", differences=differences)
    cells = "released: flip keeps dx | DMC: cls + MSE | 50.0 [25.0, 75.0] | -12.5 [-26.0, +1.0]"
    assert readme.changes("ablations").splitlines()[2:] == [f"| {cells} | 0.13 | nothing |"]
