from dataclasses import replace

from benchmarks import training as bench_training
from benchmarks.training import TIMED, kind
from dmclib import experiment
from dmclib.data import DataConfig
from dmclib.models import GeneratorConfig
from dmclib.training import TrainConfig
from tests.experiment.test_trainings import setting

PLAIN = {"data": DataConfig(), "epochs": 1, "size": 32}
KINDS = [kind(TrainConfig(**PLAIN, **chosen)) for chosen in TIMED]
CUE = TrainConfig(**PLAIN, stream="cue", weights=bench_training.MSE)


def test_every_training_of_the_ablation_is_of_a_kind_that_is_timed():
    chain = experiment.trainings(setting())
    assert {kind(config) for config in chain.values()} <= set(KINDS)
    assert "rgb, resnet152" in KINDS  # the paper's network for I-frames
    assert len(set(KINDS)) == len(KINDS)


def test_what_costs_more_is_another_kind():
    assert kind(CUE) == "cue"
    assert kind(replace(CUE, weights=bench_training.ADVERSARIAL)) == "cue, adversarial"
    assert kind(replace(CUE, weights=bench_training.ALONE)) == "cue, without classifier"
    assert kind(replace(CUE, generator=GeneratorConfig(widths=(128, 128, 96, 64, 32)))) not in KINDS
    # What changes no time that one could see, and what the rows say themselves.
    assert kind(replace(CUE, epochs=9, seed=3, size=64, clips_per_batch=4)) == "cue"


def test_frames_a_second_count_three_frames_a_clip(monkeypatch):
    small = [chosen for chosen in TIMED if "network" not in chosen]  # the large one takes seconds
    monkeypatch.setattr(bench_training, "TIMED", small)
    monkeypatch.setattr(bench_training, "taken_apart", lambda precision: {"task": "a step"})
    monkeypatch.setattr(bench_training, "has_bf16", lambda device: False)
    *rows, step = bench_training.rows(size=32, clips=2, repeats=1)
    assert step["task"] == "a step"
    assert [row["task"] for row in rows] == [name for name in KINDS if "resnet152" not in name]
    for row in rows:
        assert row["frames_per_batch"] == 6
        assert 0 < row["lower"] <= row["frames_per_second"] <= row["upper"]


def test_a_step_is_taken_apart_beside_torchs_own_convolutions():
    row = bench_training.taken_apart("float32", size=32, clips=2, repeats=1)
    parts = row["forward_ms"] + row["backward_ms"] + row["update_ms"]
    assert abs(parts - row["ours_ms"]) < 1e-6 * row["ours_ms"]
    assert row["gain"] == row["theirs_ms"] / row["ours_ms"]
