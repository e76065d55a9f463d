"""A packet is not always a picture: every call counts the pictures that decoding shows."""

import av
import numpy as np
import pytest

from dmclib import codec
from dmclib.codec import read_at, read_frames
from dmclib.errors import VideoError
from tests.codec import mp4_maker
from tests.codec.material import (
    NOT_CODED,
    contained,
    foreign,
    moving_pictures,
    pieces,
    same,
    vop,
)

FORMATS = {"mpeg4": "yuv420p", "mjpeg": "yuvj420p", "libx264": "yuv420p", "png": "rgb24"}
UNKNOWN_TO_FFMPEG = [("libx264", "avi"), ("libx264", "ts"), ("libx265", "avi"), ("mpeg4", "ts")]
CONTAINERS = {
    "m4v": {},
    "mp4": {},
    "mov": {},
    "avi": {},
    "mkv": {},
    "fragments.mp4": {"movflags": "frag_keyframe+empty_moov"},
    "hybrid.mp4": {"movflags": "frag_keyframe"},
}
# Where VOPs that are not coded come: before which picture of 30 in GOPs of 12, and which.
INSERTED = {
    "in a GOP": {6: NOT_CODED},
    "behind an I-frame": {13: NOT_CODED},
    "before an I-frame": {12: NOT_CODED},
    "three in a row": {7: NOT_CODED * 3},
    "of type I": {5: vop(0, 3, "0")},
    "before everything": {0: NOT_CODED},
    "behind everything": {30: NOT_CODED},
    "with padding": {20: NOT_CODED + bytes(40)},
}


def agree(path, count):
    """Assert that every call finds so many pictures."""
    assert codec.probe(path).frames == count
    assert len(codec.packets(path)) == count
    assert sum(1 for _ in codec.decode_rgb(path)) == count
    target = path.with_name("target.mp4")
    codec.transcode(path, target, size=(50, 34))
    assert codec.probe(target).frames == count


def bare_count(path):
    """How many pictures FFmpeg decodes, empty packets aside."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [p for p in container.demux(stream) if p.size or p.dts is None]
        return sum(len(packet.decode()) for packet in packets)


@pytest.fixture(scope="module")
def whole(clips):
    return list(read_frames(clips / "clip.m4v"))


def equal(path, whole):
    """Assert that a file's frames are these, in one pass and singly where there is an index."""
    for frame, expected in zip(read_frames(path), whole, strict=True):
        assert same(frame, expected)
    if path.name not in ("stream.m4v", "stream.mp4", "stream.mov"):
        with pytest.raises(VideoError, match=r"codec\.transcode\("):
            read_at(path, [0])
        return
    for frame, expected in zip(read_at(path, range(len(whole))), whole, strict=True):
        assert same(frame, expected)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("where", INSERTED)
def test_vops_that_are_not_coded_are_no_pictures(tmp_path, clips, whole, where, container):
    headers, pictures = pieces(clips / "clip.m4v")
    inserted = INSERTED[where]
    stream = tmp_path / "bare.m4v"
    joined = b"".join(inserted.get(n, b"") + data for n, data in enumerate([*pictures, b""]))
    stream.write_bytes(headers + joined)
    path = tmp_path / f"stream.{container}"
    if container == "m4v":
        stream.rename(path)
    else:
        contained(stream, path, **CONTAINERS[container])
    agree(path, 30)
    equal(path, whole)


def test_the_layer_in_force_tells_how_to_read_a_vop_that_is_not_coded(tmp_path, clips, whole):
    # At 500 ticks per second the time takes 9 bits, at 25 it takes 5; both are in this stream.
    fast = tmp_path / "fast.m4v"
    codec.encode(moving_pictures(), fast, fps=500)
    (slow_headers, slow), (_, quick) = pieces(clips / "clip.m4v"), pieces(fast)
    not_coded = vop(1, 0, "0")  # at 500 ticks its bits say: a picture
    path = tmp_path / "stream.m4v"
    path.write_bytes(b"".join([*quick[:24], slow_headers, *slow[:6], not_coded, *slow[6:12]]))
    agree(path, 36)
    for n, frame in enumerate(read_at(path, range(24, 36))):
        np.testing.assert_array_equal(frame.rgb, whole[n].rgb)


@pytest.mark.parametrize("suffix", ["m4v", "mp4", "avi", "mkv"])
def test_the_end_code_of_a_stream_is_no_damage(tmp_path, clips, whole, suffix):
    stream = tmp_path / "bare.m4v"
    stream.write_bytes((clips / "clip.m4v").read_bytes() + b"\x00\x00\x01\xb1")
    path = tmp_path / f"stream.{suffix}"
    if suffix == "m4v":
        stream.rename(path)
    else:
        contained(stream, path)
    agree(path, 30)
    equal(path, whole)


# --- empty samples, leading pictures, pictures that are never shown -----------------------------


@pytest.mark.parametrize("at", [1, 6, 12, 20])
@pytest.mark.parametrize("name", ["mpeg4", "mjpeg", "libx264", "png"])
def test_an_empty_sample_is_no_picture_and_no_damage(tmp_path, name, at):
    options = {"bf": "0", "g": "12"} if name in ("mpeg4", "libx264") else {}
    source = foreign(tmp_path / "film.mov", name, pix_fmt=FORMATS[name], **options)
    samples = mp4_maker.samples(source)
    run = mp4_maker.description(source), [*samples[:at], (b"", False), *samples[at:]]
    path = mp4_maker.movie(tmp_path / "stream.mov", [run], size=(50, 34))
    np.testing.assert_array_equal(
        list(codec.decode_rgb(path)), list(codec.decode_rgb(source)), strict=True
    )
    agree(path, 20)
    if name == "mpeg4":
        equal(path, list(read_frames(source)))


@pytest.mark.parametrize("name", ["mpeg4", "mjpeg"])
def test_a_dropped_frame_of_an_avi_is_no_picture_and_no_damage(tmp_path, name):
    # FFmpeg fills a gap in time with empty chunks, as recorders do that drop a frame.
    source = foreign(tmp_path / "film.avi", name, bf="0", pix_fmt=FORMATS[name])
    path = tmp_path / "gap.avi"
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        track = new.add_stream_from_template(old.streams.video[0])
        for n, packet in enumerate(p for p in old.demux(video=0) if p.size):
            packet.pts = packet.dts = n + 3 * (n >= 7)
            packet.stream = track
            new.mux(packet)
    agree(path, 20)


@pytest.mark.parametrize("suffix", ["mkv", "avi", "mp4", "ts"])
@pytest.mark.parametrize("name", ["mpeg4", "mpeg2video", "libx264", "libx265"])
def test_leading_pictures_behind_a_lossless_cut_are_no_damage(tmp_path, name, suffix):
    if (name, suffix) in UNKNOWN_TO_FFMPEG:
        pytest.skip("FFmpeg does not write this, or not with the headers that its decoder needs")
    # 10 is no multiple of 1 + 3: the last B-frames of a GOP come behind the next I-frame.
    x26x = "keyint=10:min-keyint=1:open-gop=1:scenecut=0:bframes=3:b-adapt=0:log-level=none"
    options = {
        "libx264": {"x264-params": x26x.replace(":log-level=none", "")},
        "libx265": {"x265-params": x26x},
    }.get(name, {"g": "10", "bf": "2", "sc_threshold": "1000000000"})
    source = foreign(tmp_path / "film.mkv", name, pix_fmt="yuv420p", frames=40, **options)
    path = tmp_path / f"cut.{suffix}"
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        track = new.add_stream_from_template(old.streams.video[0])
        packets = [p for p in old.demux(video=0) if p.size]
        second = [n for n, packet in enumerate(packets) if packet.is_keyframe][1]
        for packet in packets[second:]:
            packet.pts, packet.dts = (
                packet.pts - packets[second].dts,
                packet.dts - packets[second].dts,
            )
            packet.stream = track
            new.mux(packet)
    count = bare_count(path)
    assert 0 < count < len(packets) - second  # some come before the I-frame, and cannot be decoded
    agree(path, count)


def test_pictures_that_are_only_referred_to_are_not_counted(tmp_path):
    source = foreign(tmp_path / "film.mkv", "libvpx", pix_fmt="yuv420p")
    path = tmp_path / "stream.mkv"
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        track = new.add_stream_from_template(old.streams.video[0])
        for n, packet in enumerate(p for p in old.demux(video=0) if p.size):
            data = bytearray(packet)
            data[0] &= ~0x10 if n in (3, 11) else 0xFF  # VP8's bit "this frame is shown"
            hidden = av.Packet(bytes(data))
            hidden.pts, hidden.dts, hidden.time_base = packet.pts, packet.dts, packet.time_base
            hidden.is_keyframe, hidden.stream = packet.is_keyframe, track
            new.mux(hidden)
    assert bare_count(path) == 18
    agree(path, 18)


# --- an index that is wrong ---------------------------------------------------------------------


@pytest.mark.parametrize("keys", [range(30), [0], [0, 24], [6], []], ids=str)
def test_an_index_with_the_wrong_key_frames_is_said_or_does_no_harm(tmp_path, clips, whole, keys):
    source = clips / "clip.mp4"
    run = mp4_maker.description(source), mp4_maker.samples(source)
    path = mp4_maker.movie(tmp_path / "stream.mp4", [run], size=(50, 34), keys=list(keys))
    for frame, expected in zip(read_frames(path), whole, strict=True):
        assert same(frame, expected)
    refused = []
    for n in range(30):
        try:
            frame = read_at(path, [n])[0]
        except VideoError as refusal:
            refused.append(str(refusal))
        else:
            np.testing.assert_array_equal(frame.rgb, whole[n].rgb)
            np.testing.assert_array_equal(frame.residual, whole[n].residual)
    assert all("codec.transcode(" in refusal for refusal in refused)  # and not: is damaged
