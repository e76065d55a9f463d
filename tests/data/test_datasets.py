import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from dmclib import codec, data, flow, paths
from dmclib.data import DataConfig, lists, manifest, puppets
from dmclib.data.corpora import VideoFolder
from dmclib.errors import DatasetError
from dmclib.flow import store
from dmclib.training import TrainConfig

TINY = DataConfig(clips_per_class=(1, 1, 1), frames_per_clip=3)


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
    assert per_action.tolist() == [3] * len(puppets.ACTIONS)
    assert frames.motion.shape == (30, 2, 128, 128)
    assert len(frames.names) == 10
    assert torch.equal(frames.label.view(10, 3)[:, 0], torch.arange(10))


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
    monkeypatch.setattr(data.frames, "_extract", None)  # would fail if it were called
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


DAMAGE = {
    "cut short": lambda whole: whole[: len(whole) // 2],
    "empty": lambda whole: b"",
    "a web page": lambda whole: b"<!DOCTYPE html><html>login</html>",
    "zeros": lambda whole: bytes(len(whole)),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("folder", ["frames", "puppets"])
def test_what_is_damaged_in_the_cache_is_made_again(frames, cache, damage, folder):
    if folder == "frames":
        file = next(cache.rglob("train_wave_*.safetensors"))
    else:
        file = next(cache.rglob("train_wave_*.mp4"))
        for made in cache.rglob(f"{file.stem}-*.safetensors"):
            made.unlink()
    whole = file.read_bytes()
    file.write_bytes(DAMAGE[damage](whole))
    again = data.load_frames(TINY, "train", workers=1)
    for name in ("motion", "residual", "flow", "rgb"):
        assert torch.equal(getattr(again, name), getattr(frames, name))
    assert file.read_bytes() == whole


def test_smaller_frames_carry_smaller_motion(frames, cache):
    half = data.load_frames(replace(TINY, height=64), "train", first=1, workers=1)
    assert half.motion.shape[2:] == half.rgb.shape[2:] == (64, 64)
    # A field scaled by a half has half the values; bilinear at a half is the mean of 2 x 2.
    expected = torch.nn.functional.avg_pool2d(frames.flow[:3].float(), 2) / 2
    torch.testing.assert_close(half.flow.float(), expected, atol=0.01, rtol=0.01)


def test_another_reading_gives_its_own_vectors_and_residual_and_the_same_flow(frames, cache):
    config = replace(TINY, reading="accumulated")
    again = data.load_frames(config, "train", first=1, workers=1)
    path = config.open().clips("train")[0].path
    for n, frame in enumerate(codec.read_at(path, data.segment_centers(36, 3), accumulate=True)):
        np.testing.assert_array_equal(again.motion[n].numpy(), frame.motion)
        np.testing.assert_array_equal(again.residual[n].numpy(), frame.residual.clip(-128, 127))
    assert not torch.equal(again.motion, frames.motion[:3])
    assert not torch.equal(again.residual, frames.residual[:3])
    assert torch.equal(again.flow, frames.flow[:3])
    assert torch.equal(again.rgb, frames.rgb[:3])


def test_dis_flow_is_read_in_place_of_vectors_with_their_sign(frames, cache):
    config = replace(TINY, reading="dis")
    read = data.load_frames(config, "train", first=1, workers=1)
    path = config.open().clips("train")[0].path
    index = data.segment_centers(36, 3)[1]
    pair = [frame.rgb for frame in codec.read_at(path, [index - 1, index])]
    expected = flow.estimate(*pair, method="dis")
    np.testing.assert_allclose(read.motion[1].float().numpy(), expected, atol=0.02)
    error = (read.motion.float() - read.flow.float()).norm(dim=1).mean()
    assert error < (frames.motion[:3].float() - read.flow.float()).norm(dim=1).mean()
    assert torch.equal(read.residual, frames.residual[:3])


def test_scenes_of_noise_are_another_data_set(cache):
    noise = replace(TINY, scenes="noise")
    assert noise.open().name == "PuppetActions before noise"
    assert noise.open().key() != TINY.open().key()
    clips = [config.open().clips("test")[0].path for config in (TINY, noise)]
    assert clips[0] != clips[1]
    with pytest.raises(DatasetError, match="no kind of scene 'paintings'; there are photographs"):
        replace(TINY, scenes="paintings").open()


def test_a_training_follows_from_its_reading():
    keys = {TrainConfig("motion", DataConfig(reading=r), epochs=1).key for r in data.READINGS}
    assert len(keys) == len(data.READINGS)


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


def read(root, **how):
    return data.Videos(VideoFolder(root), **how)


def names(dataset, split):
    return [clip.name for clip in dataset.clips(split)]


def test_a_letterboxed_clip_is_never_taken_for_a_stretched_one(folder, cache):
    boxed = VideoFolder(folder)
    boxed.letterbox = True
    made = {}
    for how, corpus in (("stretched", VideoFolder(folder)), ("boxed", boxed)):
        dataset = data.Videos(corpus)
        clip = dataset.clips("test")[0]
        dataset.make(clip)
        made[how] = clip
    assert made["boxed"].source == made["stretched"].source
    assert made["boxed"].path.stem != made["stretched"].path.stem  # frames are kept under it too
    edges = {how: next(codec.decode_rgb(clip.path))[:10].max() for how, clip in made.items()}
    assert edges["boxed"] == 0  # 48x32 fills 340x226
    assert edges["stretched"] > 0


def test_a_folder_is_split_without_a_clip_on_two_sides(folder):
    dataset = read(folder)
    assert dataset.classes == ("fall", "rise")
    split = [set(names(dataset, s)) for s in data.SPLITS]
    assert [len(s) for s in split] == [10, 2, 4]
    assert len(set().union(*split)) == 16


def test_clips_of_one_scene_stay_on_one_side(tmp_path):
    for name in ("fall", "rise"):
        for scene in range(6):
            for cut in range(3):
                video(tmp_path / name / f"v_{name}_g{scene:02d}_c{cut:02d}.mp4", 3 * scene + cut)
    dataset = read(tmp_path)
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
        read(tmp_path)


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
    dataset = read(tmp_path)
    assert [len(dataset.clips(split)) for split in data.SPLITS] == [4, 2, 2]


def test_official_lists_beside_the_folder_are_followed(folder):
    beside = folder.parent / "ucfTrainTestlist"
    beside.mkdir()
    listed = {"train": [], "test": ["fall/absent_g99_c01.mp4"]}
    for file in sorted(folder.rglob("*.mp4")):
        part = "test" if "_g00_" in file.name else "train"
        listed[part].append(f"{file.parent.name}/{file.name}" + (" 1" if part == "train" else ""))
    for part, lines in listed.items():
        (beside / f"{part}list01.txt").write_text("\n".join(lines))
    dataset = read(folder)
    assert names(dataset, "test") == ["fall/v_fall_g00_c01.mp4", "rise/v_rise_g00_c01.mp4"]
    assert len(names(dataset, "train") + names(dataset, "validation")) == 14


def test_lists_that_name_nothing_here_are_an_error(folder):
    beside = folder.parent / "ucfTrainTestlist"
    beside.mkdir()
    for part in ("train", "test"):
        (beside / f"{part}list01.txt").write_text(f"other/v_other_{part}.avi 1\n")
    with pytest.raises(DatasetError, match="gives no train clip of fall, rise"):
        read(folder)


def test_a_folder_without_classes_says_what_was_expected(tmp_path):
    with pytest.raises(DatasetError, match=r"<root>/<class>"):
        read(tmp_path)
    with pytest.raises(DatasetError, match="is not a folder"):
        read(tmp_path / "absent")


def test_an_unknown_split_names_the_known_ones():
    with pytest.raises(DatasetError, match="train, validation, test"):
        data.PuppetActions().clips("dev")


def test_another_split_number_follows_the_other_list(folder):
    every = sorted(f"{file.parent.name}/{file.name}" for file in folder.rglob("*.mp4"))
    for number in (1, 2):
        test = [name for name in every if f"_g0{number}_" in name]
        beside = folder.parent / "ucfTrainTestlist"
        beside.mkdir(exist_ok=True)
        (beside / f"testlist0{number}.txt").write_text("\n".join(test))
        train = "\n".join(name for name in every if name not in test)
        (beside / f"trainlist0{number}.txt").write_text(train)
    assert names(DataConfig(str(folder), split_number=2).open(), "test") == [
        "fall/v_fall_g02_c01.mp4",
        "rise/v_rise_g02_c01.mp4",
    ]
    with pytest.raises(DatasetError, match=r"no split 3; there are \(1, 2\)"):
        DataConfig(str(folder), split_number=3).open()


def test_a_sequence_that_shows_every_class_is_on_one_side(tmp_path):
    for label, name in enumerate(("hug", "kick", "push")):
        for sequence in range(1, 9):
            if (name, sequence) != ("kick", 3):  # so that the classes count differently
                index = 3 * sequence + label
                video(tmp_path / name / f"{index}_{sequence}_{label}.mp4", index)
    dataset = read(tmp_path, split_number=5)
    sides = {}
    for split in data.SPLITS:
        for clip in dataset.clips(split):
            sides.setdefault(lists.scene(clip.name), set()).add(split)
    assert sides["sequence 5"] == {"test"}
    assert all(len(found) == 1 for found in sides.values())


def interactions(root):
    """Three classes in seven sequences; sequence 6 has no push, and sequence 5 has two."""
    for label, name in enumerate(("hug", "kick", "push")):
        for sequence in range(1, 8):
            index = 3 * sequence + label
            shown = 5 if (name, sequence) == ("push", 6) else sequence
            video(root / name / f"{index}_{shown}_{label}.mp4", index)


def test_a_class_may_be_missing_from_a_test_where_every_clip_is_tested_once(tmp_path):
    interactions(tmp_path)
    dataset = read(tmp_path, split_number=6)
    assert names(dataset, "test") == ["hug/18_6_0.mp4", "kick/19_6_1.mp4"]
    for split in ("train", "validation"):
        assert {clip.label for clip in dataset.clips(split)} == {0, 1, 2}


def test_it_may_not_where_the_lists_leave_clips_out(tmp_path):
    for name in ("fall", "rise"):
        for number in range(4):
            video(tmp_path / "videos" / name / f"{number}.mp4", number)
    beside = tmp_path / "ucfTrainTestlist"
    beside.mkdir()
    (beside / "testlist01.txt").write_text("fall/0.mp4\n")
    train = [f"{name}/{n}.mp4\n" for name in ("fall", "rise") for n in (1, 2, 3)]
    (beside / "trainlist01.txt").write_text("".join(train))
    with pytest.raises(DatasetError, match="gives no test clip of rise"):
        read(tmp_path / "videos")


FIELD = np.stack([np.full((256, 340), 2.5), np.full((256, 340), -1.0)]).astype(np.float32)


@pytest.fixture
def prepared(tmp_path):
    """A folder as ``dmc prepare`` leaves it: two classes, three scenes each, one for the test."""
    root, entries = tmp_path / "prepared", {}
    for label, name in enumerate(("fall", "rise")):
        for scene in range(3):
            file = f"v_{name}_g0{scene}_c01.avi"
            clip, field = f"clips/{name}/{file}.mp4", f"flow/{name}/{file}{store.SUFFIX}"
            (root / clip).parent.mkdir(parents=True, exist_ok=True)
            (root / field).parent.mkdir(parents=True, exist_ok=True)
            picture = np.full((256, 340, 3), 40 * label + 9 * scene, np.uint8)
            picture[64:96, 64:96] = 255
            codec.encode([np.roll(picture, 2 * t, axis=1) for t in range(4)], root / clip)
            store.write(root / field, [FIELD * (1 + label)] * 3)
            entries[f"{name}/{file}"] = manifest.Entry(
                name=f"{name}/{file}",
                label=label,
                clip=clip,
                flow=field,
                width=340,
                height=256,
                frames=4,
                source_bytes=1,
                source_sha256="0" * 64,
                clip_bytes=1,
                clip_sha256="0" * 64,
                flow_bytes=1,
                flow_sha256="0" * 64,
            )
    test = tuple(name for name in entries if "_g02_" in name)
    parts = {"train": tuple(entries.keys() - set(test)), "test": test}
    manifest.write(
        root,
        manifest.Manifest("UCF101", ("fall", "rise"), 0, (), {}, {}, {1: parts}, entries),
    )
    return root


def test_a_prepared_folder_gives_its_own_clips_lists_and_flow(prepared, cache):
    config = DataConfig(prepared=str(prepared), frames_per_clip=2)
    dataset = config.open()
    assert (dataset.name, dataset.classes) == ("UCF101", ("fall", "rise"))
    assert names(dataset, "test") == ["fall/v_fall_g02_c01.avi", "rise/v_rise_g02_c01.avi"]
    assert [len(dataset.clips(split)) for split in data.SPLITS] == [2, 2, 2]
    clip = dataset.clips("test")[1]
    assert clip.path == prepared / "clips/rise/v_rise_g02_c01.avi.mp4"
    got = dataset.flow(clip, 2)
    np.testing.assert_allclose(got, 2 * FIELD, atol=store.ERROR_PX)
    frames = data.load_frames(config, "test", workers=1)
    assert frames.motion.shape == (4, 2, 256, 340)  # as prepared, whatever ``height`` says
    np.testing.assert_allclose(frames.flow[3], 2 * FIELD, atol=store.ERROR_PX + 0.01)
    assert data.load_frames(config, "test", first=1).names == frames.names[:1]


def test_a_prepared_folder_without_flow_or_manifest_says_what_to_do(prepared):
    dataset = DataConfig(prepared=str(prepared)).open()
    with pytest.raises(DatasetError, match="has no flow; run dmc prepare"):
        dataset.flow(replace(dataset.clips("test")[0], flow=None), 1)
    (prepared / "clips/rise/v_rise_g02_c01.avi.mp4").unlink()
    with pytest.raises(DatasetError, match=r"v_rise_g02_c01\.avi\.mp4 is not there any more"):
        dataset.make(dataset.clips("test")[1])
    with pytest.raises(DatasetError, match="no split 2"):
        DataConfig(prepared=str(prepared), split_number=2).open()
    (prepared / manifest.FILE).unlink()
    with pytest.raises(DatasetError, match="not a prepared folder"):
        DataConfig(prepared=str(prepared)).open()


def test_a_training_follows_from_the_manifest_and_not_from_the_prepared_files(prepared):
    def key(config):
        return TrainConfig("motion", config, epochs=1).key

    config = DataConfig(prepared=str(prepared))
    first = key(config)
    (prepared / "clips/rise/v_rise_g02_c01.avi.mp4").unlink()  # thousands of such are not looked at
    assert key(config) == first
    assert key(replace(config, split_number=2)) != first
    file = prepared / manifest.FILE
    file.write_text(file.read_text().replace('"source_bytes": 1', '"source_bytes": 2', 1))
    assert key(config) != first
    file.unlink()
    with pytest.raises(DatasetError, match="not a prepared folder"):
        key(config)


def test_a_config_comes_back_from_json():
    clips = DataConfig(
        *(None, "hmdb51", "here"), split_number=3, clips_per_class=(3, 2, 1), reading="accumulated"
    )
    config = TrainConfig("cue", clips, 2, start_from=TrainConfig("flow", clips, 1))
    assert TrainConfig.from_json(json.dumps(asdict(config))) == config


def test_an_unknown_reading_names_the_known_ones():
    with pytest.raises(DatasetError, match="no reading 'best'; there are plain, accumulated, sub"):
        DataConfig(reading="best")


def test_two_places_of_videos_are_refused():
    with pytest.raises(DatasetError, match="not both"):
        DataConfig(folder="here", prepared="there")


@pytest.mark.data
def test_whole_corpora_are_read_by_their_word_and_partial_ones_are_not(shared_data):
    root = str(shared_data / "ucf101-4class")
    with pytest.raises(DatasetError, match="200 of 13,320"):
        DataConfig(root, corpus="ucf101").open()


def test_a_folders_digest_follows_its_videos_and_the_lists_beside_it(tmp_path):
    (tmp_path / "videos" / "kick").mkdir(parents=True)
    seen = [data.folder_digest(tmp_path / "videos")]
    (tmp_path / "videos" / "kick" / "a.avi").write_bytes(b"one")
    seen.append(data.folder_digest(tmp_path / "videos"))
    (tmp_path / "videos" / "kick" / "a.avi").write_bytes(b"other")
    seen.append(data.folder_digest(tmp_path / "videos"))
    (tmp_path / "ucfTrainTestlist").mkdir()
    (tmp_path / "ucfTrainTestlist" / "trainlist01.txt").write_text("kick/a.avi 1")
    seen.append(data.folder_digest(tmp_path / "videos"))
    assert len(set(seen)) == 4
    assert data.folder_digest(tmp_path / "videos") == seen[-1]
