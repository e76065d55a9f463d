"""Facts about reading: pictures, motion and residual of every frame, in one pass or singly."""

import itertools
import os
import re
import shutil

import av
import numpy as np
import pytest

from dmclib import codec
from dmclib.codec import index, mpeg4, predict, read_at, read_frames
from dmclib.errors import VideoError
from tests.codec.material import (
    FIELDS,
    MODES,
    foreign,
    literal_sources,
    moving_pictures,
    remuxed,
    same,
)


def test_a_texture_moved_2_right_and_1_down_has_that_motion(clips):
    frame = read_at(clips / "clip.mp4", [6])[0]
    assert frame.motion.dtype == np.float32
    assert frame.motion.shape == (2, 34, 50)
    assert frame.residual.dtype == np.int16
    assert frame.residual.shape == (3, 34, 50)
    assert frame.rgb.dtype == np.uint8
    assert frame.rgb.shape == (34, 50, 3)
    # Away from the left and top edge, where content comes in from nowhere.
    assert np.median(frame.motion[0, 16:, 16:]) == 2
    assert np.median(frame.motion[1, 16:, 16:]) == 1


def test_key_frames_have_neither_motion_nor_residual(clips):
    frames = list(read_frames(clips / "clip.mp4"))
    assert [f.index for f in frames] == list(range(30))
    assert [f.gop_index for f in frames] == [n // 12 for n in range(30)]
    assert [f.gop_position for f in frames] == [n % 12 for n in range(30)]
    for frame in frames:
        assert frame.is_key == (frame.gop_position == 0)
        assert not (frame.is_key and (frame.motion.any() or frame.residual.any()))


@pytest.mark.parametrize(("accumulate", "subpixel"), MODES)
def test_prediction_plus_residual_is_the_decoded_frame(clips, accumulate, subpixel):
    frames = list(read_frames(clips / "clip.mp4", accumulate=accumulate, subpixel=subpixel))
    bare = list(codec.decode_rgb(clips / "clip.mp4"))
    for frame, rgb in zip(frames, bare, strict=True):
        np.testing.assert_array_equal(frame.rgb, rgb)
        if not frame.is_key:
            back = frame.gop_position if accumulate else 1
            rebuilt = predict(bare[frame.index - back], frame.motion).astype(int)
            np.testing.assert_array_equal(rebuilt + frame.residual.transpose(1, 2, 0), rgb)


def test_accumulated_motion_is_the_way_from_the_i_frame_pixel_by_pixel(clips):
    with av.open(str(clips / "clip.mp4")) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = {"flags2": "+export_mvs"}
        exported = [f.side_data.get("MOTION_VECTORS") for f in container.decode(stream)]
        rows = [one.to_ndarray().copy() if one else np.zeros(0, FIELDS) for one in exported]
    here = np.stack(np.mgrid[:34, :50], -1)
    for frame in read_frames(clips / "clip.mp4", accumulate=True):
        if frame.is_key:
            origin = here
        step = literal_sources(rows[frame.index], 34, 50)
        origin = origin[step[..., 0], step[..., 1]]
        np.testing.assert_array_equal(frame.motion[::-1].transpose(1, 2, 0), here - origin)


def test_accumulated_half_pixels_add_up_from_the_nearest_pixel(clips):
    steps = read_frames(clips / "clip.mp4", subpixel=True)
    ways = read_frames(clips / "clip.mp4", subpixel=True, accumulate=True)
    fractions, before = 0, None
    for step, way in zip(steps, ways, strict=True):
        expected = step.motion.copy()
        for y, x in np.ndindex(34, 50) if not step.is_key else []:
            dx, dy = step.motion[:, y, x].tolist()
            source = round(min(max(y - dy, 0), 33)), round(min(max(x - dx, 0), 49))
            expected[:, y, x] += before[:, *source]
        before = expected
        np.testing.assert_array_equal(way.motion, expected)
        fractions += np.count_nonzero(step.motion % 1)
    assert fractions > 0


def test_half_pixels_explain_more_than_whole_ones(tmp_path):
    # Content that moves 0.5 px a frame: shift a texture of twice the size by 1, and halve it.
    def drifts():
        big = next(moving_pictures(1, 160, 200)).astype(np.float32)
        for n in range(12):
            part = np.roll(big, n, axis=1)[:, 20:180]
            yield part.reshape(80, 2, 80, 2, 3).mean((1, 3)).astype(np.uint8)

    codec.encode(drifts(), tmp_path / "half.mp4")
    left = {}
    for subpixel in (False, True):
        frames = list(read_frames(tmp_path / "half.mp4", subpixel=subpixel))[1:]
        left[subpixel] = np.mean([np.abs(f.residual).mean() for f in frames])
        assert np.isin(frames[3].motion * 2 % 2, [0, 1] if subpixel else [0]).all()
    assert left[True] < left[False]


@pytest.mark.parametrize("suffix", ["mp4", "m4v"])
@pytest.mark.parametrize(("accumulate", "subpixel"), MODES)
def test_read_at_gives_what_read_frames_gives(clips, suffix, accumulate, subpixel):
    mode = {"accumulate": accumulate, "subpixel": subpixel}
    everything = list(read_frames(clips / f"clip.{suffix}", **mode))
    asked = [29, 3, 12, 11, 3, 0, 17]
    for n, frame in zip(asked, read_at(clips / f"clip.{suffix}", asked, **mode), strict=True):
        assert same(frame, everything[n])


def test_both_containers_hold_the_same_frames(clips):
    for a, b in zip(read_frames(clips / "clip.mp4"), read_frames(clips / "clip.m4v"), strict=True):
        assert same(a, b)


def test_read_at_decodes_only_the_gops_it_needs(tmp_path, clips):
    packets = codec.packets(clips / "clip.m4v")
    data = bytearray((clips / "clip.m4v").read_bytes())
    begin = sum(p.size_bytes for p in packets[:12])
    data[begin + 100 : begin + 1100] = b"\xff" * 1000  # inside the second GOP
    (tmp_path / "damaged.m4v").write_bytes(data)
    whole = list(read_frames(clips / "clip.m4v"))
    for frame in read_at(tmp_path / "damaged.m4v", [5, 26]):
        assert same(frame, whole[frame.index])
    with pytest.raises(VideoError, match=r"marked corrupt|cannot be decoded"):
        read_at(tmp_path / "damaged.m4v", [20])


@pytest.fixture
def looks(monkeypatch):
    """The files that were opened to find where their frames lie, and those scanned for it."""
    looks = []

    def noted(word, function):
        def look(*args, **options):
            looks.append(word)
            return function(*args, **options)

        return look

    monkeypatch.setattr(index, "opened", noted("opened", index.opened))
    monkeypatch.setattr(mpeg4, "scan", noted("scanned", mpeg4.scan))
    return looks


@pytest.mark.parametrize(("suffix", "once"), [("mp4", ["opened"]), ("m4v", ["opened", "scanned"])])
def test_a_file_is_looked_at_once_until_it_changes(tmp_path, clips, looks, suffix, once):
    path = tmp_path / f"clip.{suffix}"
    shutil.copy(clips / path.name, path)
    for n in range(10):
        assert read_at(path, [n])[0].index == n
    assert looks == once
    codec.encode(moving_pictures(seed=1), path)
    for n, frame in enumerate(read_frames(path)):
        assert same(read_at(path, [n])[0], frame)
    assert looks == 2 * once
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    read_at(path, [0])
    assert looks == 3 * once
    path.unlink()
    with pytest.raises(VideoError, match="no such file"):
        read_at(path, [0])


def test_of_two_files_of_one_name_size_and_time_each_is_itself(tmp_path, clips, monkeypatch):
    # As unpacked archives have them, which keep whole seconds; named from where they lie.
    sizes = []
    for folder, seed in (("a", 0), ("b", 1)):
        (tmp_path / folder).mkdir()
        codec.encode(moving_pictures(seed=seed), tmp_path / folder / "clip.m4v")
        sizes.append((tmp_path / folder / "clip.m4v").stat().st_size)
    for folder, size in zip("ab", sizes, strict=True):
        monkeypatch.chdir(tmp_path / folder)
        with open("clip.m4v", "ab") as handle:
            handle.write(bytes(max(sizes) - size))
        os.utime("clip.m4v", (0, 0))
        for n, frame in enumerate(read_frames("clip.m4v")):
            assert same(read_at("clip.m4v", [n])[0], frame)


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 64, 1 << 20])
def test_start_codes_are_found_wherever_a_file_is_cut_for_the_search(monkeypatch, piece):
    monkeypatch.setattr(mpeg4, "_PIECE", piece)
    data = np.random.default_rng(0).choice(np.array([0, 0, 1, 0xB6], np.uint8), 2000).tobytes()
    vops = [found.start() for found in re.finditer(rb"(?=\x00\x00\x01\xb6)", data)]
    assert len(vops) > 10
    assert mpeg4.scan(data)[1].tolist() == vops


@pytest.mark.parametrize("n", [-1, 30, 10**12])
def test_a_frame_that_is_not_there_is_named_with_the_number_there_are(clips, n):
    with pytest.raises(VideoError, match=f"has 30 frames, .* no frame {n}"):
        read_at(clips / "clip.mp4", [0, n])


def test_no_frames_asked_for_is_no_frames(clips):
    assert read_at(clips / "clip.mp4", []) == []


@pytest.mark.parametrize("accumulate", [False, True])
def test_what_a_caller_does_to_a_frame_does_not_reach_the_next(clips, accumulate):
    whole = list(read_frames(clips / "clip.mp4", accumulate=accumulate))
    for n, frame in enumerate(read_frames(clips / "clip.mp4", accumulate=accumulate)):
        assert same(frame, whole[n])
        for array in (frame.rgb, frame.motion, frame.residual):
            array[:] = 7


def test_a_file_with_its_index_in_pieces_is_read_in_one_pass_only(tmp_path, clips):
    options = {"movflags": "frag_keyframe+empty_moov"}
    source = remuxed(clips / "clip.mp4", tmp_path / "pieces.mp4", **options)
    for a, b in zip(read_frames(source), read_frames(clips / "clip.mp4"), strict=True):
        assert same(a, b)
    with pytest.raises(VideoError, match=r"in pieces.*codec\.transcode\("):
        read_at(source, [3])


def test_frames_cut_away_by_an_edit_list_are_not_missed(tmp_path, clips):
    source = remuxed(clips / "clip.mp4", tmp_path / "trimmed.mp4", cut=5)
    whole = list(codec.decode_rgb(clips / "clip.mp4"))
    np.testing.assert_array_equal(list(codec.decode_rgb(source)), whole[5:])
    # Their I-frame is among them, and is still what the next frames refer to.
    expected = list(read_frames(clips / "clip.mp4"))[5:]
    for frame, other in zip(read_frames(source), expected, strict=True):
        for array in ("rgb", "motion", "residual"):
            np.testing.assert_array_equal(getattr(frame, array), getattr(other, array))
    np.testing.assert_array_equal(read_at(source, [1])[0].residual, expected[1].residual)


def test_split_macroblocks_are_read_too(tmp_path):
    source = foreign(tmp_path / "four.mp4", "mpeg4", pix_fmt="yuv420p", flags="+mv4", bf="0")
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = {"flags2": "+export_mvs"}
        exported = [f.side_data.get("MOTION_VECTORS") for f in container.decode(stream)]
        assert 8 in np.concatenate([one.to_ndarray()["w"] for one in exported if one])
    for before, frame in itertools.pairwise(read_frames(source)):
        if not frame.is_key:
            rebuilt = predict(before.rgb, frame.motion) + frame.residual.transpose(1, 2, 0)
            np.testing.assert_array_equal(rebuilt, frame.rgb)
