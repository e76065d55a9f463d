import multiprocessing
import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from dmclib import codec, data, transforms
from dmclib.data import Clip, Frames, loader, segment_centers
from dmclib.data.loader import Batches, Sampling, Segments, StoredFrames
from dmclib.errors import DatasetError, VideoError
from dmclib.flow import store
from dmclib.transforms import Sample

SIZE = 42  # the middle 42 x 42 px of a 64 x 48 frame: the test's crop resizes nothing
FIELDS = ("motion", "residual", "flow")


def drifting(folder, name, *, label=0, frames=40, gop=12, flow=True):
    """A small clip of a texture that drifts 3 px right and 1 px down; its flow is its vectors."""
    rng = np.random.default_rng([label, frames])
    texture = rng.integers(0, 256, (12, 16, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    path = folder / f"{name}.mp4"
    codec.encode((np.roll(texture, (n, 3 * n), (0, 1)) for n in range(frames)), path, gop=gop)
    clip = Clip(name, label, "train", path, path, path.with_suffix(store.SUFFIX))
    if flow and frames > 1:
        store.write(clip.flow, [frame.motion for frame in codec.read_frames(path)][1:])
    return clip


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return [drifting(folder, f"clip {n}", label=n % 2, frames=37 + n) for n in range(5)]


def same(a: Sample, b: Sample):
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in FIELDS)


@pytest.fixture
def asked(monkeypatch):
    """The frame numbers of every read, in order."""
    numbers, read_at = [], codec.read_at

    def noting(path, indices):
        numbers.append(list(indices))
        return read_at(path, indices)

    monkeypatch.setattr(codec, "read_at", noting)
    return numbers


def test_the_test_item_is_the_middle_of_each_part_cut_from_the_middle(clips):
    item = Segments(clips, Sampling(segments=4, size=SIZE), train=False)[2]
    frames = codec.read_at(clips[2].path, segment_centers(39, 4))
    window = np.s_[:, 3:45, 11:53]
    for n, frame in enumerate(frames):
        scale = 2 * 20 * 0.226
        np.testing.assert_allclose(
            item.motion[n], frame.motion.clip(-20, 20)[window] / scale, rtol=1e-6
        )
        shown = (frame.residual + 128).clip(0, 255)[window] / 255 - 0.5
        std = np.array([0.229, 0.224, 0.225])[:, None, None]
        np.testing.assert_allclose(item.residual[n], shown / std, rtol=1e-5, atol=1e-6)
        gap = transforms.denormalize_motion(item.flow[n] - item.motion[n]).abs().max()
        assert gap <= store.ERROR_PX


def test_training_takes_one_p_frame_of_each_part_and_in_time_every_one(clips, asked):
    segments = Segments(clips, Sampling(size=32))
    for epoch in range(60):
        segments[epoch * len(segments) + 3]  # of 40 frames
    parts = zip(*asked, strict=True)
    for part, numbers in enumerate(parts):
        own = {n for n in range(40) if part * 40 // 3 - 1 <= n <= (part + 1) * 40 / 3 and n % 12}
        assert set(numbers) <= own
        assert len(set(numbers)) > 10


@pytest.mark.parametrize("frames", [2, 3, 13])
def test_a_short_clip_gives_its_p_frames_more_than_once(tmp_path, asked, frames):
    segments = Segments([drifting(tmp_path, "short", frames=frames)], Sampling(size=32))
    for epoch in range(20):
        assert segments[epoch].motion.shape == (3, 2, 32, 32)
    assert {n for numbers in asked for n in numbers} == set(range(1, min(frames, 12)))


def test_motion_and_flow_are_cut_scaled_and_mirrored_together(clips):
    segments = Segments(clips, Sampling(size=SIZE))
    directions = set()
    for number in range(20):
        item = segments[number]
        # One step of the stored flow; a window is enlarged by 48 * 0.75 -> 42 at most.
        gap = transforms.denormalize_motion(item.flow - item.motion).abs().max()
        assert gap <= store.ERROR_PX * SIZE / (48 * 0.75)
        directions |= {1 if dx > 0 else -1 for dx in item.motion[:, 0].median(-1)[0].median(-1)[0]}
    assert directions == {1, -1}


def test_an_item_follows_from_seed_epoch_and_clip_alone(clips):
    item = Segments(clips, Sampling(size=32, seed=5))[5 + 1]  # epoch 1, clip 1
    torch.randn(3)
    assert same(item, Segments(clips, Sampling(size=32, seed=5))[5 + 1])
    assert same(item, Segments(clips[::-1], Sampling(size=32, seed=5))[5 + 3])  # the same clip
    assert not same(item, Segments(clips, Sampling(size=32, seed=6))[5 + 1])
    assert not same(item, Segments(clips, Sampling(size=32, seed=5))[1])  # epoch 0


def test_the_rgb_item_is_the_picture_of_the_gops_key_frame(clips):
    segments = Segments(clips, Sampling(segments=3, size=SIZE, picture="rgb"), train=False)
    item = segments[0]  # of 37 frames: the middles are 6, 18 and 30
    for n, frame in enumerate(codec.read_at(clips[0].path, [0, 12, 24])):
        shown = frame.rgb[3:45, 11:53].transpose(2, 0, 1) / 255 - 0.5
        std = np.array([0.229, 0.224, 0.225])[:, None, None]
        np.testing.assert_allclose(item.residual[n], shown / std, rtol=1e-5, atol=1e-6)
    assert item.flow is None
    assert not item.motion.any()


@pytest.mark.parametrize("reading", ["accumulated", "subpixel"])
def test_a_reading_is_the_codecs_own_and_leaves_flow_as_it_is(clips, reading):
    numbers = [5, 11, 30]
    plain = Segments(clips).read(clips[0], numbers)
    read = Segments(clips, Sampling(reading=reading)).read(clips[0], numbers)
    how = {"accumulated": {"accumulate": True}, "subpixel": {"subpixel": True}}[reading]
    for n, frame in enumerate(codec.read_at(clips[0].path, numbers, **how)):
        np.testing.assert_array_equal(read.motion[n], frame.motion)
        np.testing.assert_array_equal(read.residual[n], frame.residual.clip(-128, 127))
    assert not torch.equal(read.motion, plain.motion)
    assert not torch.equal(read.residual, plain.residual)
    assert torch.equal(read.flow, plain.flow)


def test_accumulated_vectors_grow_until_the_next_key_frame(clips):
    motion = Segments(clips, Sampling(reading="accumulated")).read(clips[0], [1, 4, 11, 13]).motion
    # The texture drifts 3 px a frame; the middle has not left the picture since the I-frame.
    assert motion[:, 0, 24, 48].tolist() == [3, 12, 33, 3]


def test_an_unknown_reading_is_refused(clips):
    with pytest.raises(DatasetError, match="no reading 'traced'; there are plain, accumulated"):
        Sampling(reading="traced")


def test_every_epoch_is_a_pass_over_all_clips_in_an_order_of_its_own(clips):
    stream = Batches(Segments(clips, Sampling(size=32, seed=1)), workers=0)
    orders = []
    for epoch in range(4):
        batches = list(stream.batches(epoch, 2))
        assert [len(batch.clip) for batch in batches] == [2, 2, 1]
        orders.append(torch.cat([batch.clip for batch in batches]).tolist())
        for batch in batches:
            assert batch.sample.motion.shape == (3 * len(batch.clip), 2, 32, 32)
            assert batch.label.tolist() == [clips[n].label for n in batch.clip]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders)
    assert len({tuple(order) for order in orders}) > 1


def test_all_gives_every_clip_in_order_a_label_for_each_frame(clips):
    segments = Segments(clips, Sampling(segments=25, size=32), train=False)
    batches = list(Batches(segments, workers=0).all())
    assert torch.cat([batch.clip for batch in batches]).tolist() == [n // 25 for n in range(125)]
    assert torch.cat([batch.label for batch in batches]).tolist() == [
        n // 25 % 2 for n in range(125)
    ]
    motion = torch.cat([batch.sample.motion for batch in batches])
    assert torch.equal(motion[75:100], segments[3].motion)


@pytest.mark.slow
def test_workers_give_the_batches_of_one_process_and_a_sentence_of_a_bad_clip(clips, tmp_path):
    here = Batches(Segments(clips, Sampling(size=32)), workers=0)
    there = Batches(Segments(clips, Sampling(size=32)), workers=2)
    state = torch.get_rng_state()
    for epoch in (0, 1, 0):
        pairs = zip(here.batches(epoch, 2), there.batches(epoch, 2), strict=True)
        for one, other in pairs:
            assert torch.equal(one.clip, other.clip)
            assert same(one.sample, other.sample)
    assert torch.equal(torch.get_rng_state(), state)  # dropout's draws are not disturbed
    clips[1].path.rename(tmp_path / "away")
    try:
        with pytest.raises(VideoError, match=r"clip 1\.mp4: no such file\. Check the path\.$"):
            list(there.batches(2, 2))
    finally:
        (tmp_path / "away").rename(clips[1].path)
    assert len(list(there.batches(2, 2))) == 3  # it goes on
    assert len(multiprocessing.active_children()) == 2
    del there
    assert not multiprocessing.active_children()


def test_reading_leaves_no_file_open(clips):
    segments = Segments(clips, Sampling(size=32))
    segments[0]
    before = len(os.listdir("/proc/self/fd"))
    for number in range(10):
        segments[number]
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_cannot_be_a_sample_is_refused_by_name(tmp_path):
    one = drifting(tmp_path, "one", frames=1)
    with pytest.raises(DatasetError, match=r"one.mp4: a clip of 1 frames.*remove it"):
        Segments([one])[0]
    takes = b""
    for side in (32, 48):
        codec.encode(np.zeros((24, side, side, 3), np.uint8), tmp_path / "take.m4v")
        takes += (tmp_path / "take.m4v").read_bytes()
    (tmp_path / "two.m4v").write_bytes(takes)
    two = replace(one, path=tmp_path / "two.m4v", flow=None)
    with pytest.raises(VideoError, match=r"two.m4v: the picture size changes between frames"):
        Segments([two])[0]
    other = drifting(tmp_path, "other", gop=5, flow=False)
    with pytest.raises(VideoError, match=r"other.mp4: key frames are not 12 frames apart"):
        Segments([other], Sampling(segments=25), train=False)[0]
    missing = drifting(tmp_path, "missing", flow=False)
    with pytest.raises(VideoError, match=r"missing\.avi"):
        Segments([missing])[0]
    store.write(missing.flow, np.zeros((39, 2, 48, 60), np.float32))
    with pytest.raises(VideoError, match=r"missing.avi: is 60x48 and its clip 64x48 pixels"):
        Segments([missing])[0]


def frames_of(clips):
    """Frames whose motion is their own row number; 3 a clip."""
    rows = torch.arange(3 * clips)
    motion = rows.half().view(-1, 1, 1, 1).expand(-1, 2, 40, 40)
    residual = torch.zeros(3 * clips, 3, 40, 40, dtype=torch.int8)
    names = tuple(map(str, range(clips)))
    return Frames(motion, residual, motion, residual.byte(), rows // 3 % 2, rows // 3, names)


def test_in_memory_every_clip_comes_once_and_its_frames_from_its_own_segments():
    items = StoredFrames(frames_of(5), Sampling(segments=2, size=40))
    read, taken = items.read, []
    items.read = lambda rows: taken.append(rows) or read(rows)
    batches = list(Batches(items, workers=0).batches(0, 2))
    dealt = torch.cat([batch.clip for batch in batches])
    assert sorted(dealt.tolist()) == [0, 1, 2, 3, 4]
    for batch in batches:
        assert batch.label.tolist() == [clip % 2 for clip in batch.clip]
    rows = torch.stack(taken)
    assert torch.equal(items.frames.clip[rows], dealt[:, None].expand(-1, 2))
    assert (rows[:, 1] > rows[:, 0]).all()


def test_an_epoch_can_be_repeated_by_itself_and_the_next_is_another():
    source = Batches(StoredFrames(frames_of(5), Sampling(segments=2, size=32, seed=4)), workers=0)
    first, again, second = (list(source.batches(epoch, 2)) for epoch in (1, 1, 2))
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.clip, other.clip)
        assert torch.equal(one.sample.motion, other.sample.motion)
    assert any(not torch.equal(a.clip, b.clip) for a, b in zip(first, second, strict=True))


def test_processes_share_each_batch_and_every_clip_is_cut_as_for_one_alone():
    source = Batches(StoredFrames(frames_of(5), Sampling(segments=2, size=32)), workers=0)
    whole = list(source.batches(3, 4))
    shares = [list(source.batches(3, 4, rank=rank, processes=2)) for rank in (0, 1)]
    for alone, *parts in zip(whole, *shares, strict=True):
        found = {
            c: m
            for p in parts
            for c, m in zip(p.clip.tolist(), p.sample.motion.view(-1, 2, 2, 32, 32), strict=True)
        }
        assert sorted(found) == sorted(alone.clip.tolist())
        for clip, motion in zip(
            alone.clip.tolist(), alone.sample.motion.view(-1, 2, 2, 32, 32), strict=True
        ):
            assert torch.equal(found[clip], motion)


def test_batches_are_as_equal_as_can_be():
    sizes = [len(batch) for batch in loader.epoch_batches(17, 0, 8)]
    assert sizes == [6, 6, 5]
    assert [len(batch) for batch in loader.epoch_batches(16, 0, 8)] == [8, 8]


def test_in_memory_all_gives_every_frame_in_order():
    items = StoredFrames(frames_of(5), Sampling(segments=2, size=32), train=False)
    (batch,) = Batches(items, workers=0).all()
    assert torch.equal(batch.clip, torch.arange(15) // 3)
    rows = transforms.denormalize_motion(batch.sample.motion[:, 1, 0, 0])
    # The window of 35 px in the middle became 32, and motion shrank with it.
    np.testing.assert_allclose(rows, np.arange(15).clip(0, 20) * 32 / 35, rtol=1e-5)


def test_consecutive_frames_follow_each_other_from_a_random_one_or_the_middle(clips):
    train, test = (
        Segments(clips, Sampling(segments=5, size=32, consecutive=True), train=train)
        for train in (True, False)
    )
    count = codec.probe(clips[0].path).frames
    runs = [[data.off_key_frame(n) for n in range(k, k + 5)] for k in range(count - 4)]
    dice = [loader.seeded(0, epoch, clips[0].name) for epoch in range(12)]
    drawn = [runs.index(train.numbers(clips[0], each)) for each in dice]
    assert len(set(drawn)) > 3
    middle = (count - 5) // 2
    assert test.numbers(clips[0]) == [data.off_key_frame(n) for n in range(middle, middle + 5)]
    too_many = Segments(clips, Sampling(segments=count + 3, size=32, consecutive=True), train=False)
    assert too_many.numbers(clips[0])[-4:] == [data.off_key_frame(count - 1)] * 4


def test_in_memory_consecutive_frames_share_one_crop_and_whole_clips_stay_together():
    many = frames_of(30)
    sampling = Sampling(segments=2, size=32, consecutive=True)
    items = StoredFrames(many, sampling)
    read, taken = items.read, []
    items.read = lambda rows: taken.append(rows) or read(rows)
    list(Batches(items, workers=0).batches(0, 30))
    assert all(rows[1] == rows[0] + 1 for rows in taken)
    assert {int(rows[0]) % 3 for rows in taken} == {0, 1}
    middles = Batches(StoredFrames(many, sampling, train=False), workers=0)
    found = [batch.clip for batch in middles.all()]
    assert torch.equal(torch.cat(found), torch.arange(30).repeat_interleave(2))
    assert all(len(clips) % 2 == 0 for clips in found)
