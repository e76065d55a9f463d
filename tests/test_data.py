import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from dmclib import codec, data, paths, puppets
from dmclib.data import DataConfig
from dmclib.errors import DatasetError

TINY = DataConfig(clips_per_class=(2, 1, 1), frames_per_clip=3)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache of this file's own, filled once: making clips starts processes."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setattr(paths, "CACHE", folder)
        yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def frames(cache):
    return data.load_frames(TINY, "train")


def test_a_split_gives_every_action_equally_often(frames):
    per_action = torch.bincount(frames.label)
    assert per_action.tolist() == [2 * 3] * len(puppets.ACTIONS)
    assert frames.motion.shape == (60, 2, 128, 128)
    assert len(frames.names) == 20
    assert torch.equal(frames.label.view(20, 3)[:, 0], torch.arange(10).repeat(2))


def test_motion_and_flow_are_those_of_the_clip(frames, cache):
    dataset = TINY.open()
    clip = dataset.clips("train")[7]
    index = data.segment_centers(36, 3)[1]
    decoded = codec.read_at(clip.path, [index])[0]
    row = 7 * 3 + 1
    np.testing.assert_array_equal(frames.motion[row].numpy(), decoded.motion)
    np.testing.assert_array_equal(frames.rgb[row].numpy(), decoded.rgb.transpose(2, 0, 1))
    exact = puppets.Puppet(dataset.recipe(clip)).motion(index)
    np.testing.assert_allclose(frames.flow[row].numpy(), exact, atol=0.01)  # kept in 16 bits


def test_vectors_are_nearer_to_the_exact_motion_than_no_motion_is(frames):
    error = (frames.motion.float() - frames.flow.float()).norm(dim=1).mean()
    assert error < 0.9 * frames.flow.float().norm(dim=1).mean()


def test_what_is_in_the_cache_is_not_made_again(frames, cache, monkeypatch):
    monkeypatch.setattr(data, "ProcessPoolExecutor", None)  # would fail if it were asked for work
    again = data.load_frames(TINY, "train")
    assert torch.equal(again.motion, frames.motion)


def test_only_what_is_missing_is_made_again(frames, cache):
    stored = sorted((cache / "frames").rglob("train_wave_*.safetensors"))
    untouched = sorted((cache / "frames").rglob("train_bow_*.safetensors"))[0]
    before = untouched.stat().st_mtime_ns
    stored[0].unlink()
    again = data.load_frames(TINY, "train", workers=1)
    assert torch.equal(again.residual, frames.residual)
    assert untouched.stat().st_mtime_ns == before


def test_smaller_frames_carry_smaller_motion(frames, cache):
    half = data.load_frames(replace(TINY, height=64), "train")
    assert half.motion.shape[2:] == half.rgb.shape[2:] == (64, 64)
    # A field scaled by a half has half the values; bilinear at a half is the mean of 2 x 2.
    expected = torch.nn.functional.avg_pool2d(frames.flow.float(), 2) / 2
    torch.testing.assert_close(half.flow.float(), expected, atol=0.01, rtol=0.01)


@pytest.mark.parametrize(
    ("frames", "segments", "expected"),
    [
        (36, 6, [3, 9, 15, 21, 27, 33]),
        (36, 3, [6, 18, 30]),
        (24, 1, [11]),  # 12 is a key frame: the last P-frame before it
        (2, 3, [1, 1, 1]),  # frame 0 is a key frame and has none before it
    ],
)
def test_segment_centres_are_p_frames(frames, segments, expected):
    assert data.segment_centers(frames, segments) == expected


def test_a_clip_of_one_frame_has_nothing_to_give():
    with pytest.raises(DatasetError, match="1 frames has no P-frame"):
        data.segment_centers(1, 3)


def video(path, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.full((32, 48, 3), shade, np.uint8)
    picture[8:16, 8:16] = 255
    codec.encode([np.roll(picture, 2 * t, axis=1) for t in range(4)], path)


@pytest.fixture
def folder(tmp_path):
    for label, name in enumerate(("fall", "rise")):
        for number in range(8):
            video(
                tmp_path / "videos" / name / f"v_{name}_g{number:02d}_c01.mp4", 20 * label + number
            )
    return tmp_path / "videos"


def names(dataset, split):
    return [clip.name for clip in dataset.clips(split)]


def test_a_folder_is_split_without_a_clip_on_two_sides(folder):
    dataset = data.VideoFolder(folder)
    assert dataset.classes == ("fall", "rise")
    split = [set(names(dataset, s)) for s in data.SPLITS]
    assert [len(s) for s in split] == [10, 2, 4]
    assert len(set().union(*split)) == 16


def test_clips_of_one_scene_stay_on_one_side(tmp_path):
    for name in ("fall", "rise"):
        for scene in range(6):
            for cut in range(3):
                video(tmp_path / name / f"v_{name}_g{scene:02d}_c{cut:02d}.mp4", 3 * scene + cut)
    dataset = data.VideoFolder(tmp_path)
    sides = {}
    for split in data.SPLITS:
        for clip in dataset.clips(split):
            sides.setdefault(clip.name.rsplit("_", 1)[0], set()).add(split)
    assert len(sides) == 12
    assert all(len(found) == 1 for found in sides.values())


def test_a_class_without_a_training_clip_is_named(tmp_path):
    for number in range(4):
        video(tmp_path / "fall" / f"{number}.mp4", number)
    video(tmp_path / "rise" / "only.mp4", 9)
    with pytest.raises(DatasetError, match="no train clip of rise"):
        data.VideoFolder(tmp_path)


def test_a_clip_without_p_frames_is_named(tmp_path):
    for name in ("fall", "rise"):
        for number in range(4):
            video(tmp_path / name / f"{number}.mp4", number)
    codec.encode([np.zeros((32, 48, 3), np.uint8)], tmp_path / "rise" / "0.mp4")
    config = DataConfig(folder=str(tmp_path), frames_per_clip=1, height=32)

    def load_all():
        for split in data.SPLITS:
            data.load_frames(config, split, workers=1)

    with pytest.raises(DatasetError, match=r"0\.mp4: a clip of 1 frames has no P-frame"):
        load_all()


@pytest.mark.parametrize("wrong", [{"frames_per_clip": 0}, {"clips_per_class": (3, 0, 1)}])
def test_counts_of_nothing_are_refused(wrong):
    with pytest.raises(DatasetError, match="must be at least 1"):
        DataConfig(**wrong)


def test_a_small_class_still_gives_a_validation_clip(tmp_path):
    for name in ("fall", "rise"):
        for number in range(4):
            video(tmp_path / name / f"{number}.mp4", number)
    dataset = data.VideoFolder(tmp_path)
    assert [len(dataset.clips(split)) for split in data.SPLITS] == [4, 2, 2]


def test_official_lists_beside_the_folder_are_followed(folder):
    lists = folder.parent / "ucfTrainTestlist"
    lists.mkdir()
    listed = {"train": [], "test": ["fall/absent_g99_c01.mp4"]}
    for file in sorted(folder.rglob("*.mp4")):
        part = "test" if "_g00_" in file.name else "train"
        listed[part].append(f"{file.parent.name}/{file.name}" + (" 1" if part == "train" else ""))
    for part, lines in listed.items():
        (lists / f"{part}list01.txt").write_text("\n".join(lines))
    dataset = data.VideoFolder(folder)
    assert names(dataset, "test") == ["fall/v_fall_g00_c01.mp4", "rise/v_rise_g00_c01.mp4"]
    assert len(names(dataset, "train") + names(dataset, "validation")) == 14


def test_lists_that_name_nothing_here_are_an_error(folder):
    lists = folder.parent / "ucfTrainTestlist"
    lists.mkdir()
    for part in ("train", "test"):
        (lists / f"{part}list01.txt").write_text("other/v_other_g01_c01.avi 1\n")
    with pytest.raises(DatasetError, match="gives no train clip of fall, rise"):
        data.VideoFolder(folder)


def test_a_folder_without_classes_says_what_was_expected(tmp_path):
    with pytest.raises(DatasetError, match=r"<root>/<class>"):
        data.VideoFolder(tmp_path)
    with pytest.raises(DatasetError, match="is not a folder"):
        data.VideoFolder(tmp_path / "absent")


def test_an_unknown_split_names_the_known_ones():
    with pytest.raises(DatasetError, match="train, validation, test"):
        data.PuppetActions().clips("dev")


def test_metadata_are_of_the_publishers_file(folder):
    features, labels = data.metadata(data.VideoFolder(folder), "test")
    assert labels.tolist() == [0, 0, 1, 1]
    assert features[:, :4].tolist() == [[48, 32, 25, 4]] * 4
    torch.testing.assert_close(features[:, 5], features[:, 4] / 4)
