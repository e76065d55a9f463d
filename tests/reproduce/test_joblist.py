import io
import json

import pytest
from rich.console import Console

from dmclib import experiment, paths
from dmclib.data import manifest
from dmclib.reproduce import joblist, runner
from dmclib.reproduce.profiles import plan

# Published: videos to train on of each split; epochs of each training, from the released schedules.
UCF101 = (9_537, 9_586, 9_624)
EPOCHS = {"ucf101": (510, 510, 510, 510, 50, 50, 50, 50)}


@pytest.fixture(autouse=True)
def own_results(tmp_path, monkeypatch):
    """The real notebooks and profiles, and nothing that has run or been measured."""
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")


def dry(profile, **keywords):
    """What a dry run says into a file."""
    console = Console(file=io.StringIO())
    runner.reproduce(profile, dry_run=True, console=console, **keywords)
    return console.file.getvalue()


def measured(profile, rates, *, size=224, device="cpu", gpu=None):
    """Leave what ``dmc bench training`` leaves: frames a second by kind."""
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


def row(text, name):
    """The cells of a training's first row."""
    line = next(line for line in text.splitlines() if line.startswith(f"│ {name} "))
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_the_papers_experiment_is_listed_without_a_video_at_hand():
    text = dry("ucf101")
    folder = f"prepared_folder={paths.CACHE / 'prepared' / 'ucf101'}"
    assert text.startswith(
        f"All of this: dmc reproduce ucf101 --seeds 0 --splits 1,2,3 --set {folder}\n"
    )
    for split, clips in enumerate(UCF101, start=1):
        name = "ucf101" if split == 1 else f"ucf101-split{split}"
        assert f"[{split}/3] {name}: 04_training-seed0: would run\n" in text
        assert f"  dmc reproduce ucf101 --only 04 --seeds 0 --splits {split} --set {folder}" in text
        assert f": {clips:,} clips to train on" in text
        assert f"results/{name}/runs/04_training-seed0.ipynb" in text
        assert f"results/{name}/04_training.json" in text
        assert f"{name}: then 05_recognition, 06_ablations, 08_figures\n" in text
    assert "made by dmc prepare ucf101 --root FOLDER" in text
    assert row(text, experiment.MOTION)[3:5] == ["510", f"{3 * 510 * 9_537:,}"]
    assert row(text, experiment.ADV)[2] == f"checkpoint of {experiment.MSE}"
    frames = 3 * sum(UCF101) * sum(EPOCHS["ucf101"])
    assert f"In all: jobs 3, trainings to do 24, frames {frames:,}.\n" in text
    assert not paths.RESULTS.exists()
    assert not paths.CACHE.exists()


@pytest.mark.parametrize(
    ("profile", "jobs", "counts"),
    [
        ("hmdb51", 3, "3,570 clips to train on, 1,530 to test on, as published"),
        ("kinetics-n50", 1, "12,000 clips to train on, 8,000 to test on, as published"),
    ],
)
def test_other_published_data_sets_have_their_own_splits_and_counts(profile, jobs, counts):
    assert dry(profile).count(counts) == jobs


def test_a_split_that_is_asked_for_is_the_only_one():
    for how in ({"splits": [2]}, {"settings": ["split_number=2"]}):
        text = dry("ucf101", **how)
        assert "[1/1] ucf101-split2: 04_training-seed0" in text
        assert "--splits 2 " in text
        assert "split_number" not in text
    assert "[2/2] ucf101: 04_training-seed7: would run" in dry("ucf101", seeds=[0, 7])


def test_hours_are_frames_by_measured_throughput_and_name_the_gpu():
    measured("gpu", EVERY, device="cuda", gpu="Loom 3000")
    measured("laptop", dict.fromkeys(EVERY, 1.0))  # a GPU's goes before it
    text = dry("ucf101", splits=[1])
    frames = 3 * 9_537 * sum(EPOCHS["ucf101"])
    assert f"Estimate: {frames / 1000 / 3600:.3g} GPU hours, measured on Loom 3000.\n" in text
    assert row(text, experiment.MOTION)[5] == f"{3 * 9_537 * 510 / 1000 / 3600:.3g}"
    assert "reading and decoding clips, validation and test are not in it" in text
    assert "about a sixth of those to train on is held out for validation" in text


def test_without_a_gpu_the_hours_are_this_machines_and_said_to_be():
    measured("laptop", EVERY)
    frames = 3 * 9_537 * sum(EPOCHS["ucf101"])
    text = dry("ucf101", splits=[1])
    assert (
        f"no GPU has been measured: {frames / 1000 / 3600:.3g} machine hours on 2 cores of Abacus "
        "9, as measured by dmc bench training; run that on a GPU (--profile gpu) for GPU hours."
    ) in text


def test_what_was_not_measured_has_no_hours():
    assert "no hours: nothing has been measured" in dry("ucf101", splits=[1])
    measured("laptop", {kind: 1000.0 for kind in EVERY if kind != "cue"})
    text = dry("ucf101", splits=[1])
    assert row(text, experiment.CLS)[5] == "-"
    assert row(text, experiment.FLOW)[5] != "-"
    assert "Not in it, for want of a measurement (-): trainings 3." in text
    # another crop costs another time
    assert row(dry("ucf101", splits=[1], settings=["size=112"]), experiment.FLOW)[5] == "-"


def test_nothing_is_folded_in_a_file():
    text = dry("ucf101", settings=[f"05.scores_folder={'far/' * 60}away"])
    assert all(len(row(text, name)) == 7 for name in (experiment.LONGER, experiment.SINGLE_FRAME))
    assert "…" not in text
    assert f"{'far/' * 60}away" in text


def test_drawn_clips_are_counted_and_what_is_done_is_not_to_do():
    text = dry("smoke", seeds=[0, 1])
    # ten actions, two clips of each, three frames; 5 epochs thrice, 2 of flow, 2 four times
    assert "drawn puppets: 20 clips to train on, 20 to test on" in text
    assert "In all: jobs 2, trainings to do 16," in text
    assert "held out" not in text
    (step,) = plan("smoke", only=["04"], seeds=[1])
    config = experiment.trainings(experiment.Setting.of(step.every))[experiment.MOTION]
    config.folder.mkdir(parents=True)
    (config.folder / "scores.safetensors").touch()
    text = dry("smoke", seeds=[0, 1])
    assert text.count(" done │ " + config.key) == 1
    assert "In all: jobs 2, trainings to do 15," in text


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
    text = dry("ucf101", seeds=[0], settings=[f"prepared_folder={tmp_path}"])
    # of each class, one of three scenes is held out for validation
    assert f"reads    {tmp_path}: 4 clips to train on, 2 to test on\n" in text
    assert row(text, experiment.FLOW)[4] == f"{3 * 4 * 510:,}"
    assert "held out" not in text
    assert "[1/2]" in dry("ucf101", settings=[f"prepared_folder={tmp_path}"])
    assert joblist.measured().frames_per_second == {}
