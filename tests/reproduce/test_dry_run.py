import io
import json

import pytest
from rich.console import Console

from dmclib import experiment, paths
from dmclib.data import manifest
from dmclib.reproduce import runner
from dmclib.reproduce.profiles import plan

# Published: videos to train on of each split; epochs of each training, from the released schedules.
UCF101 = (9_537, 9_586, 9_624)
EPOCHS = (510, 510, 510, 510, 50, 50, 50, 50)


@pytest.fixture(autouse=True)
def own_results(tmp_path, monkeypatch):
    """The real notebooks and profiles, and nothing that has run or been measured."""
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")


def dry(profile, **keywords):
    """What a dry run says into a file."""
    console = Console(file=io.StringIO())
    runner.reproduce(profile, dry=True, console=console, **keywords)
    return console.file.getvalue()


def measured(profile, rates, *, size=224, device="cpu", gpu=None):
    """Leave what ``dmc bench training`` leaves: frames per second by kind."""
    rows = [
        {"task": kind, "device": device, "size": size, "frames_per_second": rate}
        for kind, rate in rates.items()
    ]
    record = {
        "name": "bench_training", "profile": profile, "commit": "", "seed": 0, "parameters": {},
        "machine": {"gpu": gpu, "threads": 2, "cpu": "Abacus 9"}, "data": "", "created": "",
        "seconds": 1.0, "rows": rows, "extra": {},
    }  # fmt: skip
    path = paths.RESULTS / profile / "bench_training.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record))


EVERY = dict.fromkeys(
    ("rgb, resnet152", "rgb", "motion", "residual", "flow", "cue", "cue, adversarial"), 1000.0
)


def rows(text, name):
    """The cells of a training's rows: name, seed, split, epochs, frames, hours."""
    lines = [line for line in text.splitlines() if line.startswith("│")]
    found = ([cell.strip() for cell in line.strip("│").split("│")] for line in lines)
    return [row for row in found if row[0] == name]


def test_the_papers_trainings_are_listed_once_each_without_a_video_at_hand():
    text = dry("ucf101", splits=[1, 2, 3])
    assert "04_training: would run" in text
    assert [row[2:5] for row in rows(text, experiment.MOTION)] == [
        [str(split), "510", f"{3 * 510 * clips:,}"] for split, clips in enumerate(UCF101, start=1)
    ]
    frames = 3 * sum(UCF101) * sum(EPOCHS)
    assert f"24 trainings; left are {frames:,} frames: 0 hours (nothing has been measured" in text
    assert "about a sixth is held out for validation and counted here" in text
    assert not paths.RESULTS.exists()
    assert not paths.CACHE.exists()


@pytest.mark.parametrize(("profile", "clips"), [("hmdb51", 3_570), ("kinetics-n50", 12_000)])
def test_other_published_data_sets_have_their_own_counts(profile, clips):
    (row,) = rows(dry(profile), experiment.ADV)
    assert row[4] == f"{3 * 50 * clips:,}"


def test_weizmann_is_trained_once_for_each_person_left_out_and_each_seed():
    found = rows(dry("weizmann"), experiment.MOTION)
    assert sorted((row[2], row[1]) for row in found) == [
        (str(split), str(seed)) for split in range(1, 10) for seed in (0, 1)
    ]
    assert {row[4] for row in found} == {f"{80 * int(found[0][3]):,}"}


def test_single_frames_are_trained_by_one_seed_and_the_rest_by_all():
    text = dry("ucf101", seeds=[4, 7])
    assert [row[1] for row in rows(text, experiment.MSE)] == ["4", "7"]
    assert [row[1] for row in rows(text, experiment.SINGLE_FRAME)] == ["4"]


def test_hours_are_frames_by_measured_throughput_and_name_the_gpu():
    measured("gpu", EVERY, device="cuda", gpu="Loom 3000")
    measured("laptop", dict.fromkeys(EVERY, 1.0))  # a GPU's goes before it
    text = dry("ucf101")
    frames = 3 * 9_537 * sum(EPOCHS)
    assert f" frames: {frames / 1000 / 3600:.3g} hours on Loom 3000." in text
    assert rows(text, experiment.MOTION)[0][5] == f"{3 * 9_537 * 510 / 1000 / 3600:.3g}"
    assert "Reading and decoding clips, validation and test are not in it." in text


def test_without_a_gpu_the_hours_are_this_machines_and_what_was_not_measured_has_none():
    measured("laptop", {kind: 1000.0 for kind in EVERY if kind != "cue"})
    text = dry("ucf101")
    assert "hours on 2 cores of Abacus 9 (no GPU has been measured), without the 3 that" in text
    assert rows(text, experiment.CLS)[0][5] == "-"
    assert rows(text, experiment.FLOW)[0][5] != "-"
    # another crop costs another time
    assert rows(dry("ucf101", settings=["size=112"]), experiment.FLOW)[0][5] == "-"


def test_nothing_is_folded_in_a_file():
    text = dry("ucf101", settings=[f"05.device={'far/' * 60}away"])
    assert all(len(row) == 6 for row in rows(text, experiment.LONGER))
    assert "…" not in text
    assert f"{'far/' * 60}away" in text


def test_drawn_clips_are_counted_and_what_is_done_is_not_left():
    text = dry("smoke", only=["04"], seeds=[1])
    assert "9 trainings; " in text
    assert "held out" not in text
    (step,) = plan("smoke", only=["04"], seeds=[1])
    config = experiment.trainings(experiment.Setting.of(step.every))[experiment.MOTION]
    # ten actions, two clips of each, a frame of each clip
    assert rows(text, experiment.MOTION)[0][4] == f"{10 * 2 * config.epochs:,}"
    config.folder.mkdir(parents=True)
    (config.folder / "scores.safetensors").touch()
    assert rows(dry("smoke", only=["04"], seeds=[1]), experiment.MOTION)[0][5] == "done"


def test_further_trainings_are_listed_with_those_that_they_change():
    text = dry("smoke", only=["06"], settings=["further_seeds=[3]"])
    name = "generator: without residual"
    before, after = (rows(text, words) for words in (f"{name}, a stage before", name))
    assert [row[1] for row in before] == ["3"]  # its generator alone
    assert [row[1] for row in after] == ["3"]
    for plain in (experiment.MSE, experiment.ALONE, experiment.FLOW):
        assert [row[1] for row in rows(text, plain)] == ["0", "3"]


def test_a_prepared_folder_is_counted_itself(tmp_path):
    names = [f"{action}/v_{action}_g0{k}_c01.avi" for action in ("Hop", "Jump") for k in range(4)]
    sizes = {"width": 340, "height": 256, "frames": 30}
    origin = {"source_bytes": 1, "source_sha256": "", "clip_bytes": 1, "clip_sha256": ""}
    flow = dict.fromkeys(("flow", "flow_bytes", "flow_sha256"))
    entries = {
        name: manifest.Entry(
            name=name, label=name[0] == "J", clip=f"clips/{name}.mp4", **sizes, **origin, **flow
        )
        for name in names
    }
    lists = {n: {"train": names[:3] + names[4:7], "test": names[3::4]} for n in (1, 2)}
    made = manifest.Manifest("UCF101", ("Hop", "Jump"), 0, (), {}, None, lists, entries)
    manifest.write(tmp_path, made)
    text = dry("ucf101", settings=[f"prepared_folder={tmp_path}"])
    # of each class, one of three scenes is held out for validation
    assert rows(text, experiment.FLOW)[0][4] == f"{3 * 4 * 510:,}"
    assert "held out" not in text
