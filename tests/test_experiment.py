from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dmclib import codec, data, experiment, paths
from dmclib.data import DataConfig
from dmclib.data.corpora import VideoFolder
from dmclib.errors import DMCError
from dmclib.experiment import ADV, CLS, FLOW, LONGER, METADATA, MOTION, MSE, RESIDUAL, SINGLE_FRAME
from dmclib.losses import LossWeights
from dmclib.training import TrainConfig

CLIPS = DataConfig()


def chain(config):
    """The config and the stages before it, first stage first."""
    before = [] if config.start_from is None else chain(config.start_from)
    return [*before, config]


def setting(**changes):
    """A notebook's, of the clips that CLIPS is."""
    parameters = {
        **{"data_folder": "", "corpus": "folder", "prepared_folder": "", "split_number": 1},
        **{"train_clips": 20, "validation_clips": 4, "test_clips": 12, "frames_per_clip": 6},
        **{"seed": 3, "size": 64, "schedule": "short", "flow_epochs": 7, "stage_epochs": 2},
        **{"network": "resnet18", "habits": [], "imagenet": "none", "precision": "float32"},
    }
    return experiment.Setting(**parameters | changes)


@pytest.fixture
def variants():
    return experiment.trainings(setting())


def test_a_setting_is_found_among_a_notebooks_parameters():
    parameters = setting().parameters()
    assert experiment.Setting.of(parameters | {"device": "cpu"}) == setting()
    assert setting(prepared_folder="somewhere").clips == replace(CLIPS, prepared="somewhere")


def test_all_variants_see_the_same_clips_crops_and_order(variants):
    for config in variants.values():
        for stage in chain(config):
            assert (stage.data, stage.seed, stage.size) == (CLIPS, 3, 64)
            assert stage.segments == variants[FLOW].segments
            assert stage.clips_per_batch == variants[FLOW].clips_per_batch


def test_the_stages_are_the_papers(variants):
    assert chain(variants[CLS]) == [variants[FLOW], variants[CLS]]
    assert chain(variants[ADV]) == [variants[FLOW], variants[MSE], variants[ADV]]
    streams = {name: config.stream for name, config in variants.items()}
    assert streams == {
        SINGLE_FRAME: "rgb",
        MOTION: "motion",
        RESIDUAL: "residual",
        CLS: "cue",
        MSE: "cue",
        LONGER: "cue",
        ADV: "cue",
        FLOW: "flow",
    }


def test_the_variants_of_dmc_differ_in_the_loss_alone(variants):
    assert variants[CLS].weights == LossWeights(1.0, 0.0, 0.0)
    assert variants[MSE].weights == LossWeights(1.0, 10.0, 0.0)
    assert variants[ADV].weights == LossWeights(1.0, 10.0, 0.1)
    assert replace(variants[MSE], weights=LossWeights()) == variants[CLS]
    # The generator is not new any more, so the classifier need not wait for it.
    same = {"weights": LossWeights(), "start_from": variants[FLOW], "frozen_epochs": 1}
    assert replace(variants[ADV], **same) == variants[CLS]


def test_the_control_of_the_adversarial_stage_lacks_its_term_alone(variants):
    assert variants[LONGER].start_from == variants[ADV].start_from == variants[MSE]
    without = replace(variants[ADV].weights, adversarial=0.0)
    assert replace(variants[ADV], weights=without) == variants[LONGER]


def test_a_baseline_gets_as_many_epochs_as_a_dmc_classifier_and_its_teacher(variants):
    together = sum(stage.epochs for stage in chain(variants[MSE]))
    assert together == 7 + 2
    for name in (SINGLE_FRAME, MOTION, RESIDUAL):
        assert variants[name].epochs == together


def test_another_seed_shares_no_training(variants):
    others = experiment.trainings(setting(seed=4))
    keys = {stage.key for config in variants.values() for stage in chain(config)}
    assert keys.isdisjoint(stage.key for config in others.values() for stage in chain(config))


def test_each_further_training_has_one_thing_changed(variants):
    further = experiment.further(setting())
    assert further.keys() == experiment.AGAINST.keys()
    for name, config in further.items():
        plain = variants[experiment.AGAINST[name]]
        changed = {
            f.name for f in fields(plain) if getattr(plain, f.name) != getattr(config, f.name)
        }
        allowed = {"generator"} if name.startswith("generator") else {"data"}
        if name.startswith("released"):
            allowed = {"habits", "start_from"} if name == experiment.KEEP_DX else {"habits"}
        assert changed == allowed, name


def test_habits_are_followed_where_they_belong_and_unknown_ones_refused():
    flip, block, turns = "keep-dx", "block-target", "classifier-with-discriminator"
    named = experiment.trainings(setting(habits=[flip, block, turns]))
    habits = {name: set(config.habits) for name, config in named.items()}
    assert habits[FLOW] == habits[MOTION] == habits[CLS] == {flip}
    assert habits[MSE] == {flip, block}
    assert habits[ADV] == {flip, turns}
    assert habits[RESIDUAL] == habits[SINGLE_FRAME] == set()
    with pytest.raises(DMCError, match="habits has no 'smoking'"):
        experiment.trainings(setting(habits=["smoking"]))


def test_the_released_schedules_are_those_of_the_run_scripts():
    hmdb = experiment.trainings(setting(schedule="hmdb51"))
    frame, vectors = hmdb[SINGLE_FRAME], hmdb[MOTION]
    assert (frame.network, frame.epochs, frame.lr) == ("resnet152", 220, 3e-4)
    assert (vectors.epochs, vectors.steps, vectors.lr) == (360, (120, 200, 280), 5e-3)
    assert (hmdb[RESIDUAL].epochs, hmdb[RESIDUAL].lr) == (300, 1e-3)
    readings = {name: config.data.reading for name, config in hmdb.items()}
    assert readings[MOTION] == readings[RESIDUAL] == "accumulated"  # as CoViAR's streams
    assert readings[MSE] == readings[FLOW] == "plain"  # as the runs of DMC-Net
    mse, adv = hmdb[MSE], hmdb[ADV]
    assert (mse.clips_per_batch, adv.clips_per_batch) == (45, 30)
    assert (mse.epochs, mse.steps, mse.frozen_epochs) == (50, (20, 35, 45), 1)
    assert mse.lr == 0.01 * mse.generator_lr == 1e-4
    assert adv.weights == LossWeights(1.0, 10.0, 1.0, 0.01)
    assert {config.eps for config in hmdb.values()} == {1e-3}
    ucf = experiment.trainings(setting(schedule="ucf101"))
    assert [ucf[name].lr for name in (SINGLE_FRAME, MOTION, RESIDUAL)] == [3e-4, 1e-2, 5e-3]
    assert {ucf[name].epochs for name in (SINGLE_FRAME, MOTION, RESIDUAL)} == {510}
    with pytest.raises(
        DMCError, match="schedule has no 'long'; there are short, i3d, hmdb51, ucf101"
    ):
        experiment.trainings(setting(schedule="long"))


def test_the_i3d_runs_see_64_frames_and_wait_for_the_generator():
    chain = experiment.trainings(
        setting(network="i3d", schedule="i3d", frames_per_clip=64, train_clips=20)
    )
    assert {config.segments for config in chain.values()} == {64}
    mse, adv = chain[MSE], chain[ADV]
    assert (mse.frozen_epochs, mse.clips_per_batch, mse.micro_batches) == (6, 96, 32)
    assert (mse.lr, adv.discriminator_lr, adv.discriminator_depth) == (4e-4, 2e-3, 1)


def test_i3ds_published_weights_begin_streams_of_motion_alone(tmp_path):
    file = tmp_path / "flow_imagenet.pt"
    file.touch()
    chain = experiment.trainings(setting(network="i3d", imagenet=str(tmp_path)))
    begun = {name for name, config in chain.items() if config.initial == str(file)}
    assert begun == {MOTION, FLOW}


def test_what_the_classifiers_start_from_is_said_aloud(tmp_path):
    assert "random weights, as this profile asks" in experiment.starting_weights(setting())
    given = setting(imagenet=str(tmp_path), schedule="hmdb51")
    said = experiment.starting_weights(given)
    assert "resnet152 starts from RANDOM weights: no resnet152-????????.pth was found" in said
    file = tmp_path / "resnet18-01234567.pth"
    file.touch()
    assert f"resnet18 starts from published weights, {file.name}." in experiment.starting_weights(
        given
    )
    named = experiment.trainings(given)
    assert named[MOTION].initial == str(file)
    assert named[MSE].initial is None  # it starts from the flow classifier
    assert named[SINGLE_FRAME].initial is None


LABELS = torch.arange(4).repeat_interleave(3)  # four clips, each of its own class, of three frames


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Make a finished training whose test frames are right (1) or wrong (0) as told."""
    monkeypatch.setattr(paths, "CACHE", tmp_path)

    def make(right, *, stream="motion", seed=0, sure=1.0, epe_px=0.0):
        right = torch.tensor(right)
        said = torch.where(right == 1, LABELS, (LABELS + 1) % 4)
        # A wrong frame is ``sure`` of the wrong class where a right one is 1 sure of the right one.
        height = torch.where(right == 1, 1.0, sure)
        logits = torch.nn.functional.one_hot(said, 4) * height[:, None]
        config = TrainConfig(stream, CLIPS, epochs=1, seed=seed)
        config.folder.mkdir(parents=True)
        scores = {
            "logits": logits,
            "label": LABELS,
            "clip": torch.arange(4).repeat_interleave(3),
            "epe_px": torch.full((12,), epe_px),
        }
        save_file(scores, config.folder / "scores.safetensors")
        return config

    return make


HALF = [1, 1, 0, 1, 0, 0, 0, 0, 0, 1, 1, 1]  # 6 of 12; the majority is right in clips 0 and 3


def test_a_row_counts_frames_and_clips_over_seeds(trained):
    runs = {
        MOTION: [trained(HALF, epe_px=2.0), trained([1] * 12, seed=1, epe_px=4.0)],
    }
    (row,) = experiment.table(runs)
    assert row["variant"] == MOTION
    assert row["accuracy"] == pytest.approx((6 / 12 + 1) / 2)
    assert row["clip_accuracy"] == pytest.approx((2 / 4 + 1) / 2)
    assert (row["n"], row["clips"], row["seeds"]) == (12, 4, 2)
    assert row["epe_px"] == pytest.approx(3.0)


def test_intervals_hold_the_mean_and_are_those_of_clips_not_of_frames(trained):
    (row,) = experiment.table({MOTION: [trained([1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0])]})
    assert row["low"] <= row["accuracy"] <= row["high"]
    # Frames of these clips are all right or all wrong, so they tell no more than the clips do.
    assert (row["low"], row["high"]) == (row["clip_low"], row["clip_high"])


def test_a_clip_is_called_by_the_mean_of_its_frames_scores(trained):
    # One wrong frame of three outvotes two right ones when it is surer than both together.
    config = trained([1, 1, 0] * 4, sure=2.5)
    np.testing.assert_array_equal(experiment.clips_right(config), [False] * 4)
    right, clip = experiment.frames_right(config)
    np.testing.assert_array_equal(right, [True, True, False] * 4)
    np.testing.assert_array_equal(clip, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])


def test_splits_are_pooled_and_their_clips_kept_apart(trained):
    first, second = trained([1] * 12, epe_px=1.0), trained([0] * 12, seed=1, epe_px=3.0)
    right, clip = experiment.frames_right((first, second))
    assert right.tolist() == [True] * 12 + [False] * 12
    assert clip.tolist() == [n // 3 for n in range(24)]
    (row,) = experiment.table({MOTION: [(first, second)]})
    assert (row["accuracy"], row["n"], row["clips"], row["epe_px"]) == (0.5, 24, 8, 2.0)
    (difference,) = experiment.differences(
        {"a": [(first, first)], "b": [(first, second)]}, [("a", "b")]
    )
    assert difference["a - b"] == 0.5


def test_a_picture_has_no_end_point_error(trained):
    (row,) = experiment.table({SINGLE_FRAME: [trained(HALF, stream="rgb", epe_px=float("nan"))]})
    assert row["epe_px"] is None


def test_a_difference_is_told_only_where_the_interval_excludes_zero(trained):
    runs = {
        FLOW: [trained([1] * 12, stream="flow")],
        MOTION: [trained([0] * 12)],
        CLS: [trained([1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0], stream="residual")],
        MSE: [trained([0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1], seed=1)],
    }
    pairs = [(FLOW, MOTION), (MOTION, FLOW), (CLS, MSE), (MSE, MSE)]
    wins, loses, unclear, equal = experiment.differences(runs, pairs)
    assert (wins["a"], wins["b"], wins["a - b"]) == (FLOW, MOTION, 1.0)
    assert wins["says"] == loses["says"] == f"{FLOW} wins"
    assert (loses["a - b"], loses["low"], loses["high"]) == (-1.0, -1.0, -1.0)
    assert unclear["low"] < 0 < unclear["high"]
    assert unclear["says"] == equal["says"] == "no difference seen"


def test_a_difference_pairs_the_frames(trained):
    # Both are right in half of the frames; a wins where b is wrong in just one frame a clip.
    a = trained([1, 1, 0] * 4)
    b = trained([1, 0, 0] * 4, seed=1)
    (row,) = experiment.differences({"a": [a], "b": [b]}, [("a", "b")])
    assert row["a - b"] == row["low"] == row["high"] == pytest.approx(1 / 3)
    assert row["says"] == "a wins"


def test_metadata_that_gives_the_class_away_is_found_and_else_stays_at_chance(monkeypatch):
    labels = {"train": torch.arange(10).repeat_interleave(4), "test": torch.arange(10).repeat(3)}

    def telling(dataset, split):
        return torch.nn.functional.one_hot(labels[split]).float(), labels[split]

    def silent(dataset, split):
        return torch.ones(len(labels[split]), 6), labels[split]

    monkeypatch.setattr(experiment, "metadata", telling)
    row = experiment.metadata_row(CLIPS)
    assert (row["variant"], row["accuracy"], row["n"]) == (METADATA, 1.0, 30)
    assert experiment.metadata_row(CLIPS, CLIPS)["n"] == 60  # of two splits
    monkeypatch.setattr(experiment, "metadata", silent)
    row = experiment.metadata_row(CLIPS)
    assert row["accuracy"] == pytest.approx(0.1)
    assert row["low"] < 0.1 < row["high"]


def test_every_row_has_the_same_columns(trained, monkeypatch):
    labels = torch.arange(10)
    monkeypatch.setattr(experiment, "metadata", lambda dataset, split: (torch.ones(10, 6), labels))
    (row,) = experiment.table({MOTION: [trained(HALF)]})
    assert list(row) == list(experiment.metadata_row(CLIPS))


@pytest.mark.parametrize("letterbox", [False, True])
def test_metadata_are_of_the_publishers_file(tmp_path, monkeypatch, letterbox):
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    for name in ("fall", "rise"):
        for number in range(8):
            (tmp_path / "videos" / name).mkdir(parents=True, exist_ok=True)
            file = tmp_path / "videos" / name / f"{number}.mp4"
            codec.encode([np.full((32, 48, 3), number, np.uint8)] * 4, file)
    corpus = VideoFolder(tmp_path / "videos")
    corpus.letterbox = letterbox
    dataset = data.Videos(corpus)
    features, labels = experiment.metadata(dataset, "test")
    assert labels.tolist() == [0, 0, 1, 1]
    assert features[:, :4].tolist() == [[48, 32, 25, 4]] * 4
    torch.testing.assert_close(features[:, 5], features[:, 4] / 4)
