import json

import pytest

from dmclib import claims, experiment, paths, results
from dmclib.claims import Finding


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty results folder that has the paper's numbers."""
    (tmp_path / "paper").symlink_to(paths.RESULTS / "paper")
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    return tmp_path


def keep(name, profile, rows, *, data="PuppetActions, test split, 12 clips", **extra):
    results.start_run(name, profile=profile, seed=0).save(rows, data=data, **extra)


def share(name, accuracy, width=0.1, **more):
    low, high = accuracy - width, accuracy + width
    return {"variant": name, "accuracy": accuracy, "low": low, "high": high, "n": 36} | more


def row(table, beginning):
    (found,) = table[table["claim"].str.startswith(beginning)].to_dict("records")
    return found


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.1, 0.3, "supported"),
        (-0.3, -0.1, "contradicted"),
        (-0.1, 0.3, "no difference seen"),
        (0.0, 0.3, "no difference seen"),
        (None, None, "shown, not judged"),
    ],
)
def test_the_verdict_is_the_side_of_zero_that_the_interval_lies_on(low, high, verdict):
    assert Finding("clips", "", low, high).verdict == verdict


def test_without_results_the_papers_numbers_stand_alone(folder):
    table = claims.table(["laptop", "real"])
    untested = table[table["verdict"] == claims.NOT_TESTED]
    assert len(untested) == len(table) - 1  # the multiply-adds are counted on the spot
    assert not untested["ours"].any()
    assert row(table, "DMC-Net is better than CoViAR, HMDB-51")["paper"].startswith(
        "62.8 - 59.1 = +3.7"
    )
    assert row(table, "The adversarial loss")["paper"] == "61.8 - 61.5 = +0.3"


def test_a_paired_difference_keeps_its_n_and_says_where_it_was_found(folder):
    pair = {"a": experiment.ADV, "b": experiment.MOTION, "says": ""}
    counted = {"clips": 12, "seeds": 3, "epe_px": 0.5}
    rows = [share(name, 0.5, **counted) for name in (experiment.ADV, experiment.MOTION)]
    better = pair | {"a - b": 0.2, "low": 0.1, "high": 0.3}
    worse = pair | {"a - b": -0.2, "low": -0.3, "high": -0.1}
    keep("06_ablations", "laptop", rows, differences=[better])
    keep("06_ablations", "real", rows, differences=[worse], data="VideoFolder cats, test split")

    found = row(claims.table(["laptop", "real"]), "The cue is more discriminative")
    assert found["ours"] == (
        "PuppetActions: +20.0 [+10.0, +30.0], n = 12 clips, 3 seeds; "
        "cats: -20.0 [-30.0, -10.0], n = 12 clips, 3 seeds"
    )
    assert found["verdict"] == "supported: PuppetActions; contradicted: cats"
    assert found["command"] == "dmc reproduce --only 06"
    assert not found["released scores"]


def test_nearness_to_flow_is_judged_where_the_results_have_an_interval(folder):
    rows = [share(name, 0.5, epe_px=0.5) for name in (experiment.ADV, experiment.MOTION)]
    ratio = {"epe_ratio": 0.8, "epe_ratio_low": 0.7, "epe_ratio_high": 0.9}
    whole = {"variant": experiment.ADV, "region": "whole", "clips": 12, "seeds": 3} | ratio
    keep("06_ablations", "laptop", rows, differences=[], nearness=[whole])
    keep("06_ablations", "real", rows, differences=[], data="VideoFolder cats, test split")
    found = row(claims.table(["laptop", "real"]), "The cue is less noisy")
    both = "end-point error: vectors 0.50 px, cue 0.50 px"
    judged = f"{both}, 0.80 [0.70, 0.90] of it, n = 12 clips, 3 seeds"
    assert found["ours"] == f"PuppetActions: {judged}; cats: {both}"
    assert found["verdict"] == "supported: PuppetActions; shown, not judged: cats"


def test_two_separate_intervals_support_only_where_they_leave_a_gap(folder):
    coviar = share("CoViAR: frame + vectors + residual", 0.5)
    keep("05_recognition", "laptop", [coviar, share("CoViAR + DMC", 0.65)])
    keep("05_recognition", "real", [coviar, share("CoViAR + DMC", 0.75)], data="cats, 36")
    found = row(claims.table(["laptop", "real"]), "DMC-Net is better than CoViAR, HMDB-51")
    assert found["verdict"] == "no difference seen: PuppetActions; supported: cats"
    assert "+15.0 [-5.0, +35.0], n = 36, not paired" in found["ours"]


def test_released_differences_turn_with_the_claims_direction(folder):
    both = {"a": "CoViAR + DMC (cls + MSE + adv)", "b": "CoViAR + flow", "split": "all", "n": 4590}
    means = [
        {"method": name, "accuracy": mean, "low": mean - 0.03, "high": mean + 0.03, "n": 4590}
        for name, mean in (
            ("TV-L1 flow", 0.52),
            ("motion vectors", 0.40),
            ("I-frames", 0.51),
            ("CoViAR + DMC (cls + MSE + adv)", 0.618),
        )
    ]
    keep(
        "hmdb51", "released", [{"method": "I-frames"}],
        data="the authors' released per-video scores, official test lists of HMDB-51",
        differences=[both | {"gain": -0.013, "low": -0.021, "high": -0.006}], means=means,
    )  # fmt: skip

    table = claims.table([])
    flow = row(table, "CoViAR + flow is better than DMC-Net, HMDB-51")
    assert flow["released scores"] == "HMDB-51: +1.3 [+0.6, +2.1], n = 4590"
    assert flow["verdict"] == "supported: HMDB-51"
    assert row(table, "Flow is more")["released scores"].startswith("HMDB-51: +12.0 [+6.0, +18.0]")
    assert (
        "61.80 [58.8, 64.8], +0.00 from the one and -1.00 from the other, which lies inside"
        in (claims.discrepancies([]).loc[0, "effect"])
    )


@pytest.mark.parametrize(
    ("device", "verdict"), [("cpu", "not comparable here: "), ("cuda", "shown, not judged: ")]
)
def test_times_are_shown_and_a_processors_are_not_compared_with_a_gpus(folder, device, verdict):
    def speed(method, ms):
        row = {"table": "3a", "method": method, "batch": 1}
        for total in ("total", "total_at_once"):
            row |= {f"{total}{side}_ms": ms for side in ("", "_lower", "_upper")}
        return row

    rows = [speed("CoViAR", 30.0), speed("DMC-Net", 33.0), speed("CoViAR + TV-L1", 660.0)]
    keep("07_speed", "laptop", rows, device=device)
    table = claims.table(["laptop"])
    slow = row(table, "DMC-Net is two orders")
    assert "660 / 33 ms = 20 times, quartiles 20 to 20" in slow["ours"]
    for claim in (slow, row(table, "DMC-Net takes little longer")):
        assert claim["verdict"].startswith(verdict)


def test_a_damaged_results_file_is_an_error_and_not_an_untested_claim(folder):
    (folder / "laptop").mkdir()
    (folder / "laptop" / "06_ablations.json").write_text("{")
    with pytest.raises(results.DMCError, match="damaged"):
        claims.table(["laptop"])


def test_the_generator_is_counted_as_table_1_has_it(folder):
    found = row(claims.table(["laptop", "real"]), "The generator costs less than 1 %")
    assert found["ours"] == "224 x 224, counted: 0.2285 / 36.10 GMAC = 0.63%"
    assert found["verdict"].startswith("supported")


def test_all_six_differences_are_listed_and_none_is_guessed(folder):
    differ = claims.discrepancies(claims.OURS)
    assert len(differ) == 6
    assert set(differ["effect"]) == {claims.NOT_MEASURED}


@pytest.mark.parametrize(
    ("variant", "place"),
    [
        ("input: accumulated", 1),
        ("released: flip keeps dx", 2),
        ("released: block-averaged target", 3),
        ("released: D step moves classifier", 4),
    ],
)
def test_a_difference_that_was_trained_has_its_effect_against_what_it_changes(
    folder, variant, place
):
    rows = [share(name, 0.5, clips=12, seeds=3) for name in (variant, experiment.ADV)]
    worse = {"a": variant, "b": experiment.ADV, "a - b": -0.2, "low": -0.3, "high": -0.1}
    other = {"a": experiment.ADV, "b": experiment.MOTION, "a - b": 0.1, "low": 0.0, "high": 0.2}
    keep("06_ablations", "laptop", rows, differences=[other, worse])
    turned = {"a": experiment.ADV, "b": variant, "a - b": 0.0, "low": -0.1, "high": 0.2}
    keep("06_ablations", "real", rows, differences=[turned], data="VideoFolder cats, test split")

    effects = claims.discrepancies(["laptop", "real"])["effect"]
    assert effects[place] == (
        "PuppetActions: -20.0 [-30.0, -10.0], n = 12 clips, 3 seeds, against "
        "DMC: cls + MSE + adv: worse; "
        "cats: +0.0 [-20.0, +10.0], n = 12 clips, 3 seeds, against "
        "DMC: cls + MSE + adv: no difference seen"
    )
    assert set(effects.drop(place)) == {claims.NOT_MEASURED}


def test_a_paired_difference_goes_before_two_separate_intervals(folder):
    pair = {"a": "CoViAR + DMC", "b": "CoViAR: frame + vectors + residual"}
    rows = [share(name, 0.5) for name in pair.values()]
    gain = pair | {"a - b": 0.1, "low": 0.05, "high": 0.15}
    keep("05_recognition", "laptop", rows, differences=[gain])
    found = row(claims.table(["laptop"]), "DMC-Net is better than CoViAR, HMDB-51")
    assert found["ours"] == "PuppetActions: +10.0 [+5.0, +15.0], n = 36"


def test_in_markdown_a_finding_has_a_line_and_the_place_stands_below_the_claim(folder):
    rows = [share(name, 0.5) for name in ("CoViAR + DMC", "CoViAR + flow")]
    for profile, data in (("laptop", "dogs, 36"), ("real", "cats, 36")):
        keep("05_recognition", profile, rows, data=data)
    text = claims.to_markdown(claims.table(["laptop", "real"]))
    assert text.splitlines()[0] == (
        "| claim | paper | released scores | ours | verdict | command |"
    )
    (line,) = [line for line in text.splitlines() if "flow is better than DMC-Net, HMDB" in line]
    assert line == (
        "| CoViAR + flow is better than DMC-Net, HMDB-51<br>*Figure 4* | drawn, not printed |  | "
        "dogs: +0.0 [-20.0, +20.0], n = 36, not paired<br>"
        "cats: +0.0 [-20.0, +20.0], n = 36, not paired | "
        "no difference seen: dogs, cats | `dmc reproduce --only 05,10` |"
    )


def test_what_is_committed_answers_the_claims_it_should():
    for word in ("hmdb51", "ucf101"):
        record = json.loads((paths.RESULTS / "released" / f"{word}.json").read_text())
        assert {"means", "differences"} <= record["extra"].keys()
    table = claims.table(["laptop", "real"])
    assert row(table, "DMC-Net is better than CoViAR, HMDB-51")["verdict"].startswith("supported")
    assert row(table, "The cue is more discriminative")["ours"].startswith("PuppetActions: ")
