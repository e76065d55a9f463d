import pytest

from dmclib import errors, experiment, paths, results
from dmclib.reproduce import readme

TEXTS = {path: path.read_text(encoding="utf-8") for path in readme.FILES}
FIRST, ALL = readme.FILES


def test_the_tables_are_what_the_committed_results_give():
    assert readme.renewed(TEXTS) == TEXTS, "a table is older than results/: make readme"


def test_an_older_table_is_replaced_and_nothing_else():
    begin = "<!-- table claims -->\n"
    older = TEXTS[ALL].replace(begin, f"{begin}| an | older | row |\n")
    new = readme.renewed(TEXTS | {ALL: f"Other words\n{older}"})
    assert new == TEXTS | {ALL: f"Other words\n{TEXTS[ALL]}"}
    assert new != TEXTS


@pytest.mark.parametrize(
    "text",
    [
        TEXTS[ALL].replace("<!-- end real -->", ""),
        TEXTS[ALL].replace("<!-- table real -->", ""),
        TEXTS[ALL] + "<!-- table real -->\n<!-- end real -->",
    ],
)
def test_a_table_without_its_one_place_is_named(text):
    with pytest.raises(errors.DMCError, match="'real' has not one place in README: put in <!-- ta"):
        readme.renewed(TEXTS | {ALL: text})


def test_readmes_first_screen_has_three_differences_with_their_intervals(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    gain = {"a - b": 0.125, "low": -0.01, "high": 0.26, "says": "nothing"}
    differences = [gain | {"a": a, "b": b} for a, b in [("x", "y"), *readme.SHOWN]]
    results.start_run("06_ablations", profile="laptop", seed=0).save(
        [{"variant": "x"}], data="clips", differences=differences
    )
    lines = readme.first("laptop").splitlines()
    assert len(lines) == 2 + 3
    assert all("+12.5 [-1.0, +26.0]" in line for line in lines[2:])


def test_a_target_that_was_not_measured_has_no_figure(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    row = {"suite": "codec", "target": "reading", "bound": "at most 2", "before": None}
    rows = [
        row | {"figure": 1.256, "verdict": "reached"},
        row | {"figure": None, "verdict": "not measured"},
    ]
    results.start_run("bench_targets", profile="laptop", seed=0).save(rows, data="rows")
    lines = readme.speed("laptop").splitlines()
    assert lines[2] == "| codec | reading | at most 2 | 1.26 | reached |"
    assert lines[3] == "| codec | reading | at most 2 |  | not measured |"


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


def test_fusions_and_nearness_have_tables_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    row = {"variant": experiment.ADV, "accuracy": 0.5, "low": 0.25, "high": 0.75, "n": 8}
    row |= {"clip_accuracy": 0.6, "clip_low": 0.3, "clip_high": 0.9, "epe_px": 0.126}
    gain = {"a": "x", "b": "y", "a - b": 0.125, "low": -0.01, "high": 0.26, "says": "nothing"}
    ends = ("", "_low", "_high")
    ratio = {f"squared_ratio{end}": 0.5 for end in ends} | {f"epe_ratio{end}": 1.5 for end in ends}
    blocks = {f"blockiness{end}": 2.0 for end in ends}
    near = [
        {"variant": experiment.ADV, "region": "whole"} | ratio | blocks,
        {"variant": experiment.ADV, "region": "body"} | dict.fromkeys(ratio),
    ]
    fused = gain | {"a": "CoViAR + x", "of": "whole clips"}
    run = results.start_run("06_ablations", profile="laptop", seed=0)
    names = ("abroad", experiment.MOTION)  # the vectors stand among the others already
    far = [row | {"variant": name} for name in names for row in near]
    run.save([row], data="clips", differences=[gain, fused], nearness=near, travelled=far)
    lines = readme.ablation("laptop").splitlines()
    assert lines[4:8] == [
        "| difference, single frames | points | says |",
        "|---|---|---|",
        "| x - y | +12.5 [-1.0, +26.0] | nothing |",
        "",
    ]
    assert lines[8] == "| difference, whole clips | points | says |"
    assert lines[10] == "| CoViAR + x - y | +12.5 [-1.0, +26.0] | nothing |"
    titles = "end-point, whole | squared, whole | squared, body | blockiness"
    assert lines[12] == f"| error, share of the vectors' | {titles} |"
    whole = "1.50 [1.50, 1.50] | 0.50 [0.50, 0.50]"
    assert lines[14] == f"| DMC: cls + MSE + adv | {whole} |  | 2.00 [2.00, 2.00] |"
    assert lines[15:] == [f"| abroad | {whole} |  | 2.00 [2.00, 2.00] |"]


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
