import ast
import contextlib
import io
from dataclasses import fields, replace

import nbformat
import numpy as np
import pandas as pd
import pytest

from dmclib import errors, paths, released, results
from dmclib.released import fusions
from tests.score_maker import write_scores

WORDS = sorted(released.RELEASES)


def in_per_cent(tables):
    rows = pd.DataFrame(tables.accuracies)
    return 100 * rows.pivot(index="method", columns="split", values="accuracy")


def assert_published(tables, word):
    """Every stream and fusion to the printed digit, for each split that is printed."""
    found = in_per_cent(tables)
    expected = results.reported(f"released_{word}").set_index("method")
    found = found.loc[expected.index]
    np.testing.assert_allclose(found.mean(axis=1), expected["mean"].astype(float), atol=0.00501)
    splits = [name for name in ("split_1", "split_2", "split_3") if name in expected]
    if splits:
        np.testing.assert_allclose(found.to_numpy(), expected[splits].astype(float), atol=0.00501)
    means = pd.DataFrame(tables.means).set_index("method").loc[found.index]
    np.testing.assert_allclose(100 * means["accuracy"], found.mean(axis=1))


@pytest.mark.parametrize("word", WORDS)
def test_the_committed_tables_have_the_published_digits(word):
    tables = fusions.committed(word)
    assert_published(tables, word)
    n = {"hmdb51": {1530}, "ucf101": {3783, 3734, 3696}}[word]
    assert {row["n"] for row in tables.accuracies} == n


def test_the_scripts_weights_give_ucf_the_figure_that_weight_1_does_not():
    found = in_per_cent(fusions.committed("ucf101")).mean(axis=1).round(2)
    assert found["CoViAR + DMC (cls + MSE), scripts' weights"] == 90.79
    assert found["CoViAR + DMC (cls + MSE)"] == 90.72


@pytest.mark.data
@pytest.mark.parametrize("word", WORDS)
def test_the_authors_files_give_the_committed_tables(shared_data, word):
    rebuilt = fusions.rebuild(word, shared_data / "released_scores" / "exp_my")
    assert_published(rebuilt, word)
    kept = fusions.committed(word)
    for table in fields(fusions.Tables):
        found, expected = getattr(rebuilt, table.name), getattr(kept, table.name)
        if isinstance(found, list):
            # Columns of what lies beside the rows come back in the alphabet's order.
            found, expected = pd.DataFrame(found), pd.DataFrame(expected)
            pd.testing.assert_frame_equal(found, expected, rtol=1e-9, check_like=True)
        else:
            assert found == expected


def run_released_part(cells):
    """Run these cells as a notebook does; the text that each of the checked ones shows."""
    given, shown = {"scores_folder": "", "profile": "smoke", "np": np, "pd": pd}, {}
    given |= {"fusions": fusions, "paths": paths, "released": released}
    for cell in cells:
        body = ast.parse(cell.source).body
        last = body.pop() if isinstance(body[-1], ast.Expr) else None
        with (
            contextlib.redirect_stdout(io.StringIO()) as printed,
            pd.option_context("display.max_columns", 20),  # in a notebook; in a terminal, none
        ):
            exec(compile(ast.Module(body, []), cell.id, "exec"), given)
            value = last and repr(eval(compile(ast.Expression(last.value), cell.id, "eval"), given))
        shown[cell.id] = value or printed.getvalue()
    return shown


@pytest.mark.parametrize("at_hand", [pytest.param(True, marks=pytest.mark.data), False])
def test_notebook_10_shows_the_same_with_the_authors_files_and_without(
    request, monkeypatch, at_hand
):
    folder = "nowhere"
    if at_hand:
        folder = request.getfixturevalue("shared_data") / "released_scores" / "exp_my"
    monkeypatch.setenv("DMC_RELEASED_SCORES", str(folder))
    cells = nbformat.read(paths.NOTEBOOKS / "10_released_scores.ipynb", 4).cells
    (start,) = [k for k, cell in enumerate(cells) if "paths.released_scores()" in cell.source]
    checked = [
        cell for cell in cells[start:] if "nbval-check-output" in cell.metadata.get("tags", [])
    ]
    shown = run_released_part([cells[start], *checked])

    told = shown.pop(cells[start].id)
    assert told == "" if at_hand else "No score files here: clone facebookresearch/dmc-net" in told
    for cell in checked:
        (output,) = cell.outputs
        kept = output["text"] if "text" in output else output["data"]["text/plain"]
        assert shown[cell.id] == kept
    everything = "".join(shown.values())
    for figure in ("51.72", "39.54", "43.46", "52.09", "59.46", "63.12", "61.55", "61.81"):
        assert figure in everything
    for figure in ("87.02", "69.05", "79.29", "84.26", "90.64", "91.57", "90.72"):
        assert figure in everything


# --- a data set small enough to count by hand ----------------------------------------------------

# Classes a and b, two films each with one clip a split. Rows: a from film 1, a 2, b 1, b 2.
LABELS = (0, 0, 1, 1)
SCORES = {
    "iframe": [[1, 0], [0, 1], [0, 1], [1, 0]],  # right, wrong, right, wrong: sure of neither
    "mv": [[0, 0], [0, 0], [0, 0], [0, 0]],
    "residual": [[0, 0], [0, 0], [0, 0], [0, 0]],
    "flow": [[3, 0], [3, 0], [0, 3], [0, 3]],  # always right, and sure
    "cls + MSE": [[0, 0], [3, 0], [0, 0], [0, 0]],  # mends the second
}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The folder of a release "small" with the methods of UCF-101."""
    files = {name: f"{name}/split{{}}.npz" for name in SCORES}
    release = replace(released.RELEASES["ucf101"], title="Small", files=files)
    monkeypatch.setitem(released.RELEASES, "small", release)
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    for split in released.SPLITS:
        names = [f"{'ab'[k]}/v_g0{f}_c0{split}.avi" for k, f in ((0, 1), (0, 2), (1, 1), (1, 2))]
        for name, scores in SCORES.items():
            file = tmp_path / files[name].format(split)
            write_scores(file, scores=scores, labels=LABELS, names=names)
    return tmp_path


def test_accuracies_differences_and_gains_by_hand(small):
    tables = fusions.rebuild("small", small)

    means = {row["method"]: row["accuracy"] for row in tables.means}
    assert means["I-frames"] == means["CoViAR"] == 0.5
    assert means["CoViAR + DMC (cls + MSE)"] == 0.75
    assert means["CoViAR + flow"] == 1
    assert means["CoViAR + DMC (cls + MSE), scripts' weights"] == pytest.approx(
        (0.75 + 0.5 * 2) / 3
    )

    (dmc,) = [
        row
        for row in tables.differences
        if (row["a"], row["b"], row["split"]) == ("CoViAR + DMC (cls + MSE)", "CoViAR", "all")
    ]
    assert (dmc["gain"], dmc["only_a"], dmc["only_b"]) == (0.25, 3, 0)
    assert dmc["p_videos"] == 0.25  # three coins alike, either side
    assert dmc["p"] == 1  # but they are clips of one film
    assert {row["split"] for row in tables.differences} == {1, 2, 3, "all"}
    assert not any("scripts" in row["a"] + row["b"] for row in tables.differences)

    assert [(row["class"], row["gain"], row["n"], row["sources"]) for row in tables.gains] == [
        ("a", 0.5, 6, 2),
        ("b", 0.0, 6, 2),
    ]
    assert tables.names == {"respelled": 0, "misplaced": 0, "videos": 12, "sources": 4}


def test_confusions_and_weights_by_hand(small):
    tables = fusions.rebuild("small", small)
    assert tables.confusions == [
        {
            "a": "a",
            "b": "b",
            "a_called_b": 0,
            "b_called_a": 3,
            "mixed": 3,
            "mixed_by_coviar": 6,
            "n": 12,
        }
    ]
    assert tables.confusion == {"classes": ["a", "b"], "counts": [[6, 0], [3, 3]], "n": [6, 6]}

    accuracy = np.array(tables.weights["accuracy"])
    assert accuracy.shape == (13, 13)
    # The I-frames' wrong 2 against the cue's 3 times its weight; the vectors say nothing.
    assert (accuracy == np.where(3 * np.array(tables.weights["dmc"]) > 2, 0.75, 0.5)).all()
    assert tables.weights["best_on_test"] == {"mv": 0, "dmc": 0.75}


def test_as_probabilities_a_sure_stream_weighs_less(small):
    by_method = {row["method"]: row for row in fusions.rebuild("small", small).softmax}
    # The I-frames' lead of 1 becomes 2 * 0.462 = 0.92, flow's of 3 only 0.91: it mends nothing.
    assert by_method["CoViAR + flow"]["raw"] == 1
    assert by_method["CoViAR + flow"]["softmax"] == 0.5
    assert by_method["CoViAR"]["gain"] == 0


def test_tables_come_back_as_they_were_kept(small):
    tables = fusions.rebuild("small", small)
    path = fusions.save("small", tables)
    assert path == small / "results" / "released" / "small.json"
    assert fusions.committed("small") == tables  # digit for digit
    record = results.load("small", "released")
    assert "Small" in record.data
    assert record.parameters["weights"]["CoViAR"] == {"iframe": 2, "mv": 1, "residual": 1}

    results.start_run("small", profile="released", seed=0).save(tables.accuracies, data="older")
    with pytest.raises(errors.DMCError, match=r"small\.json has other tables"):
        fusions.committed("small")


def test_rows_matched_by_name_are_another_table_and_positions_stay_the_authors(small):
    names = [f"{'ab'[k]}/v_g0{f}_c01.avi" for k, f in ((0, 2), (0, 1), (1, 1), (1, 2))]
    file = small / "cls + MSE/split1.npz"
    write_scores(file, scores=SCORES["cls + MSE"], labels=LABELS, names=names)  # a's two swapped
    tables = fusions.rebuild("small", small)
    (row,) = [row for row in tables.realigned if row["method"] == "CoViAR + DMC (cls + MSE)"]
    assert tables.names["misplaced"] == 2
    assert row["by_position"] == 0.75
    assert row["by_name"] == pytest.approx((0.5 + 0.75 + 0.75) / 3)


def test_a_frame_is_for_reading(small):
    tables = {"small": fusions.rebuild("small", small)}
    frame = fusions.frame(tables, "gains", ["class", "p", "gain", "n"])
    assert frame.columns.tolist() == ["class", "p", "gain", "n"]
    assert frame.iloc[0].tolist() == ["a", "1", 50.0, 6]
    assert frame.index.tolist() == ["Small", "Small"]


def test_table_4_is_whole_and_no_column_holds_the_papers_and_ours():
    tables = {word: fusions.committed(word) for word in WORDS}
    ours = [
        {"variant": "CoViAR + DMC", "accuracy": 0.5, "low": 0.4, "high": 0.6},
        {"variant": "residual", "accuracy": 0.3, "low": 0.2, "high": 0.4},
    ]
    rows = pd.DataFrame(fusions.table_4(tables, ours, "PuppetActions")).set_index("from")

    quoted = results.reported("table_4")
    assert rows.loc["quoted", "method"].tolist() == quoted["method"].tolist()
    assert rows.loc["quoted", "HMDB-51, paper"].astype(float).tolist() == quoted["hmdb51"].tolist()
    assert rows.index.unique().tolist() == [
        "quoted",
        "released scores",
        "ours (PuppetActions)",
    ]
    own = {"quoted": "paper", "released scores": "released", "ours (PuppetActions)": "ours"}
    for origin, word in own.items():
        others = [name for name in rows if name not in ("method", "note") and word not in name]
        assert (rows.loc[[origin], others] == "").all(axis=None)
        assert (rows.loc[[origin]].drop(columns=["method", "note", *others]) != "").any(axis=None)

    text = rows.loc["released scores"].set_index("method")
    assert text.loc["CoViAR", "HMDB-51, released"].startswith("59.46 [")
    assert text.loc["CoViAR + DMC (cls + MSE + adv)", "UCF-101, released"] == ""  # not released
    assert rows.loc["ours (PuppetActions)", "ours"] == "50.00 [40.0, 60.0]"
