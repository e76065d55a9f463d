from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dmclib import codec, data, evaluation, experiment, paths
from dmclib.data import DataConfig
from dmclib.data.corpora import VideoFolder
from dmclib.experiment import CLS, FLOW, METADATA, MOTION, MSE, RESIDUAL, SINGLE_FRAME
from dmclib.training import TrainConfig

CLIPS = DataConfig()
LABELS = torch.arange(4).repeat_interleave(3)  # four clips, each of its own class, of three frames


def give_clips(monkeypatch, names):
    """Let the test clips of every data set have these names."""
    clips = [SimpleNamespace(name=name) for name in names]
    dataset = SimpleNamespace(clips=lambda split: clips)
    monkeypatch.setattr(DataConfig, "open", lambda config: dataset)


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Make a finished training whose test frames are right (1) or wrong (0) as told."""
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    give_clips(monkeypatch, "abcd")

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


GROUP = "Punch/v_Punch_g0{}_c0{}.avi"


def test_clips_of_one_group_tell_no_more_than_one_of_them(trained, monkeypatch):
    a, b = [1, 1, 1, 1, 0, 1], [0, 0, 1, 0, 1, 0]  # two clips of three frames
    give_clips(monkeypatch, [GROUP.format(group, copy) for group in (1, 2) for copy in (1, 2)])
    copies = trained([*a[:3], *a[:3], *a[3:], *a[3:]]), trained([*b[:3] * 2, *b[3:] * 2], seed=1)
    many = experiment.table({MOTION: [copies[0]]})[0]
    difference = experiment.differences({"a": [copies[0]], "b": [copies[1]]}, [("a", "b")])[0]
    frames = np.array([a, b]), np.array([0, 0, 0, 1, 1, 1])
    assert (many["low"], many["high"]) == evaluation.clustered_interval(frames[0][:1], frames[1])
    paired = evaluation.paired_difference(*frames[0], frames[1])
    assert (difference["a - b"], difference["low"], difference["high"]) == paired
    for row in (many, difference):
        assert (row["clips"], row["clusters"]) == (4, 2)
    give_clips(monkeypatch, [GROUP.format(group, 1) for group in (1, 2, 3, 4)])
    (apart,) = experiment.table({MOTION: [copies[0]]})
    assert (apart["clips"], apart["clusters"]) == (4, 4)


def test_what_could_be_detected_is_two_point_eight_standard_errors(trained):
    a, b = trained([1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0]), trained([0, 0, 0, 1, 1, 1] * 2, seed=1)
    runs = {"a": [a], "b": [b]}
    row, equal = experiment.differences(runs, [("a", "b"), ("a", "a")])
    # Four clips of +1, -1, +1, -1: the standard error of their mean is 1/2.
    assert row["detectable"] == pytest.approx(2.8 / 2, rel=0.1)
    assert equal["detectable"] is None


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
    assert experiment.tables.clusters((first, second)).tolist() == [0, 1, 2, 3] * 2  # both times
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

    monkeypatch.setattr(experiment.tables, "metadata", telling)
    give_clips(monkeypatch, map(str, range(30)))
    row = experiment.metadata_row(CLIPS)
    assert (row["variant"], row["accuracy"], row["n"]) == (METADATA, 1.0, 30)
    assert experiment.metadata_row(CLIPS, CLIPS)["n"] == 60  # of two splits
    monkeypatch.setattr(experiment.tables, "metadata", silent)
    row = experiment.metadata_row(CLIPS)
    assert (row["n"], row["clusters"]) == (30, 30)
    assert row["accuracy"] == pytest.approx(0.1)
    assert row["low"] < 0.1 < row["high"]


def test_every_row_has_the_same_columns(trained, monkeypatch):
    labels = torch.arange(10)
    monkeypatch.setattr(
        experiment.tables, "metadata", lambda dataset, split: (torch.ones(10, 6), labels)
    )
    (row,) = experiment.table({MOTION: [trained(HALF)]})
    give_clips(monkeypatch, map(str, range(10)))
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


def test_fusion_adds_a_stream_to_coviars_three_with_the_authors_weights(trained):
    runs = {
        SINGLE_FRAME: [trained([1] * 6 + [0] * 6, stream="rgb")],  # counts twice
        MOTION: [trained([1] * 3 + [0] * 9), trained([1] * 12, seed=1)],
        RESIDUAL: [
            trained([0] * 12, stream="residual"),
            trained([0] * 12, stream="residual", seed=1),
        ],
        FLOW: [trained([0] * 6 + [1] * 6, stream="flow", seed=s) for s in (0, 1)],
    }
    rows, (gain,) = experiment.fused(runs, [FLOW])
    coviar, flow = rows
    # By seed 0, clip 0: 3 votes of 4; clip 1: 2 of 4, a tie that the lower class wins; 2 and 3: 0.
    # By seed 1 the vectors help every clip: 3 of 4 in clips 0 and 1, one vote of 4 in 2 and 3.
    assert coviar["variant"] == "CoViAR: frame + vectors + residual"
    assert (coviar["n"], coviar["seeds"]) == (4, 2)
    assert coviar["accuracy"] == pytest.approx((2 + 2) / 8)
    # Flow adds a vote against in clips 0 and 1, and one for clips 2 and 3.
    assert (gain["a"], gain["b"]) == (f"CoViAR + {FLOW}", coviar["variant"])
    assert gain["a - b"] == pytest.approx(flow["accuracy"] - coviar["accuracy"])
    assert flow["variant"] == gain["a"]


def test_data_sets_together_weigh_by_what_they_know():
    def part(gain, width, clips, **more):
        row = {"a": MSE, "b": MOTION, "a - b": gain, "low": gain - width, "high": gain + width}
        return row | {"clips": clips, "clusters": clips // 10} | more

    equal = [part(0.1, 0.14, 90), part(0.02, 0.14, 200)]
    (row,) = experiment.together([[equal[0]], [part(0, 0.1, 5, b=FLOW), equal[1]]])
    assert row["a - b"] == pytest.approx(0.06)
    assert (row["low"], row["high"]) == pytest.approx((0.06 - 0.099, 0.06 + 0.099), abs=1e-3)
    assert (row["clips"], row["clusters"], row["says"]) == (290, 29, "no difference seen")
    assert row["detectable"] == pytest.approx(2.8 * 0.099 / 1.96, abs=1e-3)
    (row,) = experiment.together([[part(0.1, 0.02, 90)], [part(0.4, 0.2, 90)]])
    assert row["a - b"] == pytest.approx((100 * 0.1 + 0.4) / 101)
    assert row["says"] == f"{MSE} wins"
    assert experiment.together([[part(0.1, 0.0, 90)], [part(0.1, 0.1, 90)]]) == []
    assert experiment.together([[], [part(0.1, 0.1, 90)]]) == []
