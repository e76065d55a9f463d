import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import recognition as bench_recognition
from dmclib import (
    codec,
    data,
    evaluation,
    fast,
    machine,
    recognition,
    training,
    transforms,
    weights,
)
from dmclib.errors import ScoreFileError, VideoError
from dmclib.training import TrainConfig
from tests.close import FLOAT32

SIZE = 32


@pytest.fixture(autouse=True)
def _float32(monkeypatch):
    """Fast networks too compute in float32, wherever the tests run."""
    monkeypatch.setattr(machine, "has_bf16", lambda device: False)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """27 frames, 48 x 64: GOPs of 12, 12 and 3, a coarse texture that drifts to the right."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    texture = coarse.repeat(8, axis=0).repeat(8, axis=1)
    path = tmp_path_factory.mktemp("recognition") / "clip.mp4"
    codec.encode((np.roll(texture, 2 * n, axis=1) for n in range(27)), path)
    return path


def trained(stream, **settings):
    torch.manual_seed(0)
    config = TrainConfig(stream=stream, data=data.DataConfig(), epochs=1, size=SIZE, **settings)
    return training.build_networks(config, classes=4).eval()


def whole_frames(path, numbers, picture=lambda frame: frame.residual.clip(-128, 127)):
    frames = codec.read_at(path, numbers)
    pictures = np.stack([picture(frame) for frame in frames]).astype(np.float32)
    motion = np.stack([frame.motion for frame in frames])
    return transforms.Sample(torch.from_numpy(motion), torch.from_numpy(pictures))


def ask(networks, view):
    with torch.inference_mode():
        return networks.logits(networks.field(transforms.normalize(view)))


class Noted(torch.nn.Module):
    """Stands for a classifier: remembers what it sees; its one score is the mean of dx."""

    def __init__(self):
        super().__init__()
        self.seen, self.weight = [], torch.nn.Parameter(torch.ones(1))

    def forward(self, seen):
        self.seen.append(seen.clone())
        return seen[:, :1].mean(dim=(2, 3)) * self.weight


@pytest.mark.parametrize("stream", ["rgb", "motion", "residual"])
def test_a_stream_of_coviar_is_the_mean_of_25_frames_and_ten_views(clip, stream):
    networks, logits = trained(stream), []
    numbers = data.segment_centers(27, 25)
    if stream == "rgb":  # their I-frames
        numbers = [number - number % 12 for number in numbers]
        whole = whole_frames(clip, numbers, lambda f: f.rgb.transpose(2, 0, 1).astype(int) - 128)
    else:
        whole = whole_frames(clip, numbers)
    # The window: 0.875 of the 48 x 48 that fit, in the corners and in the middle.
    for top, left in [(0, 0), (0, 22), (6, 0), (6, 22), (3, 11)]:
        view = transforms.resize(transforms.crop(whole, top, left, 42, 42), (SIZE, SIZE))
        logits += [ask(networks, view), ask(networks, transforms.flip(view))]
    assert sum(map(len, logits)) == 250
    found = recognition.recognise(clip, networks, size=SIZE)
    torch.testing.assert_close(found, torch.cat(logits).mean(dim=0), **FLOAT32)


def test_the_cue_is_asked_about_the_middle_alone_at_the_height_it_was_trained_on(clip):
    networks = trained("cue")
    networks.classifier = Noted()
    whole = whole_frames(clip, data.segment_centers(27, 25))
    small = transforms.resize(whole, (36, 48))
    score = ask(networks, transforms.center_crop(small, (SIZE, SIZE))).mean(dim=0)
    networks.classifier.seen.clear()
    found = recognition.recognise(clip, networks, size=SIZE, height=36)
    assert len(networks.classifier.seen) == 1
    torch.testing.assert_close(found, score, atol=fast.TOLERANCE, rtol=0)
    larger = recognition.recognise(clip, networks, size=SIZE)
    assert (larger - found).abs() > 10 * fast.TOLERANCE  # so the height is heeded


def test_mirrored_views_move_the_other_way(clip):
    networks = trained("motion")
    networks.classifier = Noted()
    recognition.recognise(clip, networks, size=SIZE)
    seen = networks.classifier.seen
    assert len(seen) == 10
    for view, mirrored in zip(seen[::2], seen[1::2], strict=True):
        assert view[:, 0].mean() > 0.1  # 2 px to the right are 0.17 on the network's scale
        torch.testing.assert_close(mirrored[:, 0], -view[:, 0].flip(-1))
        torch.testing.assert_close(mirrored[:, 1], view[:, 1].flip(-1))


def test_a_clip_is_read_as_the_networks_were_trained(clip):
    networks = trained("motion")
    networks.classifier = Noted()
    numbers = data.segment_centers(27, 25)
    accumulated = np.stack([f.motion for f in codec.read_at(clip, numbers, accumulate=True)])
    middle = torch.from_numpy(accumulated[..., 3:45, 11:53])  # the ninth view's window
    view = transforms.resize(transforms.Sample(middle, middle.new_zeros(25, 3, 42, 42)), (32, 32))
    recognition.recognise(clip, networks, size=SIZE, reading="accumulated")
    torch.testing.assert_close(
        networks.classifier.seen[8], transforms.normalize(view).motion, **FLOAT32
    )


def test_flow_and_clips_of_other_gops_are_refused(clip, tmp_path):
    with pytest.raises(ValueError, match="flow is in no compressed file"):
        recognition.recognise(clip, trained("flow"), size=SIZE)
    other = tmp_path / "gop5.mp4"
    codec.encode(codec.decode_rgb(clip), other, gop=5)
    with pytest.raises(VideoError, match=r"gop5\.mp4: key frames are not 12 frames apart"):
        recognition.recognise(other, trained("motion"), size=SIZE)


@pytest.fixture
def puppets(tmp_path, monkeypatch):
    """Untrained streams, kept as finished trainings are, of a data set of two short clips."""
    monkeypatch.setattr("dmclib.paths.CACHE", tmp_path)
    monkeypatch.setattr(recognition, "FRAMES", 4)  # of 25, to be quick
    monkeypatch.setattr(data.PuppetActions, "classes", ("kick", "wave"))
    clips = data.DataConfig(clips_per_class=(1, 1, 1), reading="accumulated")
    made = {}
    for stream in ("motion", "flow"):
        made[stream] = config = TrainConfig(stream=stream, data=clips, epochs=1, size=SIZE)
        torch.manual_seed(0)
        weights.save(training.build_networks(config, 2), config.folder / "weights.safetensors")
        frame = {"logits": torch.zeros(1, 2), "label": torch.zeros(1, dtype=torch.int64)}
        frame |= {"clip": torch.zeros(1, dtype=torch.int64), "epe_px": torch.zeros(1)}
        weights.write(frame, config.folder / "scores.safetensors")
    return made


def test_a_split_is_scored_once_clip_by_clip_and_its_streams_fuse(puppets, monkeypatch):
    files = {stream: recognition.score_split(config) for stream, config in puppets.items()}
    config = puppets["motion"]
    found, dataset = recognition.read_scores(files["motion"]), config.data.open()
    assert found.names == tuple(clip.name for clip in dataset.clips("test"))
    assert found.labels.tolist() == [0, 1]
    path = dataset.clips("test")[1].path
    how = {"size": SIZE, "height": 128, "reading": "accumulated"}
    one = recognition.recognise(path, training.load_networks(config), **how)
    torch.testing.assert_close(torch.from_numpy(found.scores[1]), one, **FLOAT32)

    streams, labels = recognition.read_together(files)
    fused = evaluation.fuse(streams, {"motion": 1, "flow": 1})
    assert fused.shape == (2, 2)
    assert 0 <= evaluation.top1(fused, labels) <= 1
    some = recognition.read_scores(recognition.score_split(config, first=1))
    np.testing.assert_array_equal(some.scores, found.scores[:1])
    monkeypatch.setattr(training, "load_networks", None)  # nothing is asked again
    assert recognition.score_split(config) == files["motion"]


def test_scores_that_are_cut_short_are_made_again(puppets):
    file = recognition.score_split(puppets["motion"])
    whole = file.read_bytes()
    scores = recognition.read_scores(file).scores.copy()  # else they would follow the file
    for damaged in (whole[: len(whole) // 2], b"", bytes(len(whole))):
        file.write_bytes(damaged)
        assert recognition.score_split(puppets["motion"]) == file
        np.testing.assert_array_equal(recognition.read_scores(file).scores, scores)


def test_a_few_clips_are_of_every_class_also_where_a_class_stands_together(puppets, monkeypatch):
    class Sorted(data.PuppetActions):  # as videos in folders are
        def clips(self, split):
            return sorted(super().clips(split), key=lambda clip: clip.name)

    clips = data.DataConfig(clips_per_class=(1, 1, 3))
    config = replace(puppets["motion"], data=clips)
    shutil.copytree(puppets["motion"].folder, config.folder)
    monkeypatch.setattr("dmclib.data.frames.PuppetActions", Sorted)
    whole = recognition.read_scores(recognition.score_split(config))
    assert whole.labels.tolist() == [0, 0, 0, 1, 1, 1]
    some = recognition.read_scores(recognition.score_split(config, first=4))
    assert some.labels.tolist() == [0, 1, 0, 1]
    assert some.names == tuple(whole.names[k] for k in (0, 3, 1, 4))
    np.testing.assert_array_equal(some.scores, whole.scores[[0, 3, 1, 4]])


SCORES = recognition.StreamScores(
    np.arange(6, dtype=np.float32).reshape(3, 2), np.array([0, 1, 1]), ("a", "b", "c"), ("x", "y")
)


def test_scores_come_back_as_they_were(tmp_path):
    recognition.write_scores(SCORES, tmp_path / "scores.safetensors")
    found = recognition.read_scores(tmp_path / "scores.safetensors")
    np.testing.assert_array_equal(found.scores, SCORES.scores)
    np.testing.assert_array_equal(found.labels, SCORES.labels)
    assert (found.names, found.classes) == (SCORES.names, SCORES.classes)


@pytest.mark.parametrize("missing", ["scores", "labels", "names", "classes"])
def test_a_file_that_is_not_one_of_scores_is_refused(tmp_path, missing):
    tensors = {"scores": torch.zeros(3, 2), "labels": torch.tensor([0, 1, 1])}
    note = {"names": json.dumps(SCORES.names), "classes": json.dumps(SCORES.classes)}
    tensors.pop(missing, None), note.pop(missing, None)
    weights.write(tensors, tmp_path / "other.safetensors", note)
    with pytest.raises(ScoreFileError, match=rf"other\.safetensors is no file of .*'{missing}'"):
        recognition.read_scores(tmp_path / "other.safetensors")


def test_a_missing_a_cut_and_a_strange_file_are_refused(tmp_path):
    path = tmp_path / "scores.safetensors"
    with pytest.raises(ScoreFileError, match="is not there; score the split again"):
        recognition.read_scores(path)
    recognition.write_scores(SCORES, path)
    whole = path.read_bytes()
    for damaged in (whole[:-5], whole[:20], b"", b"cos\nsystem\n(S'x'\ntR."):
        path.write_bytes(damaged)
        with pytest.raises(ScoreFileError, match="not a readable safetensors file"):
            recognition.read_scores(path)


def test_streams_of_different_clips_are_not_fused(tmp_path):
    files = {"a": tmp_path / "a.safetensors", "b": tmp_path / "b.safetensors"}
    recognition.write_scores(SCORES, files["a"])
    other = recognition.StreamScores(SCORES.scores, SCORES.labels, ("a", "c", "b"), SCORES.classes)
    recognition.write_scores(other, files["b"])
    with pytest.raises(ScoreFileError, match=r"b\.safetensors is not about the same clips"):
        recognition.read_together(files)


def test_the_protocol_stands_beside_another_rule_on_the_clips_that_both_know(tmp_path):
    files = {"a": tmp_path / "a.safetensors", "b": tmp_path / "b.safetensors"}
    for name, scores in (
        ("a", [[2, 0], [2, 0], [0, 2]]),  # calls x, x, y
        ("b", [[0, 1], [0, 3], [0, 1]]),
    ):
        found = replace(SCORES, scores=np.float32(scores))  # clips a, b, c are x, y, y
        recognition.write_scores(found, files[name])
    methods = {"a": {"a": 1}, "both": {"a": 1, "b": 1}, "a and flow": {"a": 1, "flow": 1}}
    # Of the clips c, z, a, b the other rule has right:
    right = {"a": [True, True, False, False], "both": [True, False, True, True], "a and flow": []}
    right = {name: np.array(own) for name, own in right.items()}
    alone, both = recognition.compare_rules(files, methods, right, ["c", "z", "a", "b"])

    assert (alone["variant"], both["variant"]) == ("a", "both")  # no file of flow
    assert (alone["accuracy"], alone["other"], alone["n"]) == (2 / 3, 1 / 3, 3)
    assert (both["accuracy"], both["other"], both["gain"]) == (1, 1, 0)
    assert alone["gain"] == pytest.approx(1 / 3)
    assert alone["low"] < 2 / 3 < alone["high"]
    assert alone["other_low"] < 1 / 3 < alone["other_high"]
    assert alone["gain_low"] <= 0 < alone["gain_high"]


def test_the_bench_times_the_whole_beside_its_parts(clip):
    (row,) = bench_recognition.rows(clip, size=SIZE, repeats=1)
    assert row["decoded"] == 12 + 12 + 3  # the last centre, 26, is in the third GOP
    assert row["ratio"] == row["whole_ms"] / (row["decode_ms"] + row["network_ms"])
    assert {"eager_network_ms", "eager_whole_ms"} <= row.keys()
