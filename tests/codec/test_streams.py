"""Streams whose motion is of another kind, whose headers change, or which are not alone."""

import itertools
import re
import warnings

import av
import numpy as np
import pytest

from dmclib import codec
from dmclib.codec import predict, read_at, read_frames
from dmclib.errors import VideoError
from tests.codec import mp4_maker
from tests.codec.material import bits, contained, foreign, moving_pictures, pieces, same, vop

# A macroblock without texture, as an I-VOP has it: no AC prediction, no coefficients, six DC of 0.
GREY = "1 0 0011" + "011" * 4 + "11" * 2
SEQUENCE = b"\x00\x00\x01\xb0\xf5\x00\x00\x01\x00\x00\x00\x01\x20"  # up to the layer's first bit


def refused_with_a_cure(path, why):
    """Assert that reading is refused by a sentence whose command makes a readable clip."""
    with pytest.raises(VideoError, match=why) as caught:
        list(read_frames(path))
    assert str(path) in str(caught.value)
    eval(re.search(r"codec\.transcode\(.*\)", str(caught.value))[0])
    clip = path.with_name(f"{path.stem}_mpeg4.mp4")
    assert len(list(read_frames(clip))) == sum(1 for _ in codec.decode_rgb(path))


# --- motion that is not of frames ---------------------------------------------------------------


def rows_apart(count=8, height=96, width=128):
    """Every other row moves 4 px per frame, the rest stands still."""
    moving, still = (next(moving_pictures(1, height, width, seed)) for seed in (1, 2))
    for n in range(count):
        picture = still.copy()
        picture[::2] = np.roll(moving, 4 * n, axis=1)[::2]
        yield picture


def test_vectors_of_fields_are_refused(tmp_path):
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.codec_context.options = {"flags": "+ilme+ildct", "qmin": "2", "qmax": "2", "bf": "0"}
        for n, picture in enumerate(rows_apart()):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = n
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    refused_with_a_cure(path, r"frame \d is interlaced and has vectors of fields")
    for accumulate in (False, True):
        with pytest.raises(VideoError, match="vectors of fields"):
            read_at(path, range(8), accumulate=accumulate)


def test_an_interlaced_stream_with_vectors_of_frames_is_read(tmp_path):
    path = foreign(tmp_path / "film.mp4", "mpeg4", pix_fmt="yuv420p", flags="+ildct", bf="0")
    frames = list(read_frames(path))
    assert len(frames) == 20
    for before, frame in itertools.pairwise(frames):
        if not frame.is_key:
            rebuilt = predict(before.rgb, frame.motion) + frame.residual.transpose(1, 2, 0)
            np.testing.assert_array_equal(rebuilt, frame.rgb)


def test_global_motion_is_refused(tmp_path):
    layer = (
        f"0 00010001 1 0010 001 0001 0 00 1 {25:016b} 1 0 1 {32:013b} 1 {32:013b} 1"
        "0 1 10 000000 00 0 0 0 0 1 1 0 0 0 0"  # 10: global motion; 000000: no warping points
    )
    pictures = [vop(0, 0, "1 000 00010" + GREY * 4)]
    # None of the four macroblocks is coded: they follow the global motion.
    pictures += [vop(3, n, "1 0 000 00010 001" + "1" * 4) for n in range(1, 5)]
    path = tmp_path / "film.m4v"
    path.write_bytes(SEQUENCE + bits(layer) + b"".join(pictures))
    refused_with_a_cure(path, "frame 1 is an S-frame")
    with pytest.raises(VideoError, match=r"frame [12] is an S-frame"):
        read_at(path, [2])


# --- headers that change in mid-stream ----------------------------------------------------------

TAKES = {"half": ("", (50, 34)), "quarter": ("+qpel", (50, 34)), "small": ("", (32, 20))}


@pytest.fixture(scope="module")
def takes(tmp_path_factory):
    """Three takes: of each its sample description, headers, samples and frames."""
    folder, found = tmp_path_factory.mktemp("takes"), {}
    for name, (flags, size) in TAKES.items():
        path = folder / f"{name}.mp4"
        with av.open(str(path), "w") as out:
            stream = out.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            stream.codec_context.options = {
                **{"bf": "0", "g": "6", "sc_threshold": "1000000000"},
                "flags": "+global_header" + flags,
            }
            for n, picture in enumerate(moving_pictures(18, size[1], size[0])):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = n
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        with av.open(str(path)) as container:
            headers = container.streams.video[0].codec_context.extradata
        frames = list(read_frames(path, subpixel=True))
        found[name] = mp4_maker.description(path), headers, mp4_maker.samples(path), frames
    assert 0.25 in np.unique([frame.motion % 1 for frame in found["quarter"][3]])
    return found


def equal(frames, takes, order):
    """Assert that frames are those of these takes, one after the other."""
    expected = [frame for name in order for frame in takes[name][3]]
    for n, (frame, whole) in enumerate(zip(frames, expected, strict=True)):
        assert (frame.index, frame.gop_index, frame.gop_position) == (n, n // 6, n % 6)
        for array in ("rgb", "motion", "residual"):
            np.testing.assert_array_equal(getattr(frame, array), getattr(whole, array))


ORDERS = [("half", "quarter"), ("quarter", "half", "quarter"), ("half", "small", "quarter")]


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
@pytest.mark.parametrize("suffix", ["m4v", "mp4"])
def test_a_take_is_read_by_the_headers_before_it(tmp_path, takes, order, suffix):
    # Each take has its headers once, before its first picture; its later I-frames have none.
    path = tmp_path / f"film.{suffix}"
    samples = [
        ((takes[name][1] if n == 0 else b"") + data, is_key)
        for name in order
        for n, (data, is_key) in enumerate(takes[name][2])
    ]
    if suffix == "m4v":
        path.write_bytes(b"".join(data for data, _ in samples))
    else:
        mp4_maker.movie(path, [(takes[order[0]][0], samples)], size=(50, 34))
    count = 18 * len(order)
    equal(read_frames(path, subpixel=True), takes, order)
    equal(read_at(path, range(count), subpixel=True), takes, order)
    for n in range(0, count, 7):  # by itself, so that no header before has been decoded
        found = read_at(path, [n], subpixel=True)[0]
        np.testing.assert_array_equal(found.rgb, takes[order[n // 18]][3][n % 18].rgb)
    assert codec.probe(path).frames == len(codec.packets(path)) == count


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_samples_are_read_by_their_own_description(tmp_path, takes, order):
    runs = [(takes[name][0], takes[name][2]) for name in order]
    path = mp4_maker.movie(tmp_path / "film.mp4", runs, size=(50, 34))
    equal(read_frames(path, subpixel=True), takes, order)
    assert codec.probe(path).frames == len(codec.packets(path)) == 18 * len(order)
    with pytest.raises(VideoError, match=r"more than one sample description.*codec\.transcode\("):
        read_at(path, [0])
    for seen, name in zip(codec.decode_rgb(path), np.repeat(order, 18), strict=True):
        assert seen.shape[1::-1] == TAKES[name][1]


def test_a_change_of_size_before_a_p_frame_is_refused(tmp_path, takes):
    # Its reference has another size, so no vector can tell where a pixel came from.
    _, headers, samples, _ = takes["half"]
    _, other, smaller, _ = takes["small"]
    path = tmp_path / "film.m4v"
    data = [headers, *(data for data, _ in samples[:4]), other, *(data for data, _ in smaller[1:3])]
    path.write_bytes(b"".join(data))
    for read in (lambda: list(read_frames(path)), lambda: read_at(path, [5])):
        with pytest.raises(VideoError, match=r"picture size changes|corrupt|decoded"):
            read()


# --- no I-frame at the beginning ----------------------------------------------------------------


@pytest.fixture(params=["m4v", "mp4", "avi", "mkv"])
def tail(request, tmp_path, clips):
    """A clip that begins with seven P-frames."""
    headers, pictures = pieces(clips / "clip.m4v")
    path, stream = tmp_path / f"film.{request.param}", tmp_path / "bare.m4v"
    stream.write_bytes(headers + b"".join(pictures[5:]))
    if request.param == "m4v":
        stream.rename(path)
    elif request.param == "mp4":
        samples = [(data, b"\x00\x00\x01\xb3" in data) for data in pictures[5:]]
        run = mp4_maker.description(clips / "clip.mp4"), samples
        mp4_maker.movie(path, [run], size=(50, 34))
    else:
        contained(stream, path)
    return path


def test_frames_before_the_first_i_frame_are_left_out_and_counted(tmp_path, clips, tail):
    with pytest.warns(UserWarning, match=rf"{tail.name}: 7 frames before the first I-frame"):
        pictures = list(codec.decode_rgb(tail))
    np.testing.assert_array_equal(pictures, list(codec.decode_rgb(clips / "clip.m4v"))[12:])
    with pytest.warns(UserWarning, match="7 frames before the first I-frame"):
        codec.transcode(tail, tmp_path / "clip.mp4", size=(50, 34))
    assert codec.probe(tmp_path / "clip.mp4").frames == 18
    assert codec.probe(tail).frames == len(codec.packets(tail)) == 18
    for read in (lambda: list(read_frames(tail)), lambda: read_at(tail, [10])):
        with pytest.raises(VideoError, match=r"codec\.transcode\("):
            read()


def test_a_video_without_an_i_frame_is_refused(tmp_path, clips):
    headers, pictures = pieces(clips / "clip.m4v")
    path = tmp_path / "film.m4v"
    path.write_bytes(headers + b"".join(pictures[5:12]))
    for read in (codec.decode_rgb, lambda path: [codec.transcode(path, tmp_path / "clip.mp4")]):
        with pytest.raises(VideoError, match="has no I-frame, so its 7 frames cannot be decoded"):
            list(read(path))
    assert not (tmp_path / "clip.mp4").exists()


def test_a_picture_that_is_refreshed_bit_by_bit_needs_no_i_frame(tmp_path):
    # H.264 may send intra blocks that wander over P-frames; its decoder waits for a whole picture.
    settings = {"x264-params": "intra-refresh=1:keyint=10:bframes=0:scenecut=0"}
    source = foreign(tmp_path / "film.mkv", "libx264", pix_fmt="yuv420p", frames=40, **settings)
    path = tmp_path / "cut.mkv"
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        track = new.add_stream_from_template(old.streams.video[0])
        for packet in [p for p in old.demux(video=0) if p.size][10:]:
            packet.stream = track
            new.mux(packet)
    with av.open(str(path)) as container:
        bare = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(list(codec.decode_rgb(path)), bare)
    assert codec.probe(path).frames == len(bare) > 10


# --- the right stream, at its rate --------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_a_thumbnail_before_the_film_is_not_taken_for_it(tmp_path, clips, suffix):
    thumbnail = foreign(tmp_path / "thumbnail.mov", frames=1)
    path = tmp_path / f"film.{suffix}"
    with (
        av.open(str(thumbnail)) as small,
        av.open(str(clips / "clip.mp4")) as film,
        av.open(str(path), "w") as out,
    ):
        tracks = [out.add_stream_from_template(one.streams.video[0]) for one in (small, film)]
        for one, track in zip((small, film), tracks, strict=True):
            for packet in one.demux(video=0):
                if packet.size:
                    packet.stream = track
                    out.mux(packet)
    info = codec.probe(path)
    assert (info.codec, info.frames) == ("mpeg4", 30)
    whole = list(read_frames(clips / "clip.mp4"))
    for frame, expected in zip(read_frames(path), whole, strict=True):
        assert same(frame, expected)
    if suffix != "mkv":
        assert same(read_at(path, [20])[0], whole[20])


RATES = [25, 10, 12.5, 15, 0.5, 1, 60, 29.97, 24000 / 1001, 30000 / 1001, 7.3]


@pytest.mark.parametrize("fps", RATES)
def test_a_clip_keeps_its_frame_rate_in_both_containers(tmp_path, fps):
    for suffix in ("m4v", "mp4"):
        clip = tmp_path / f"clip.{suffix}"
        codec.encode(moving_pictures(30), clip, fps=fps)
        assert codec.probe(clip).fps == pytest.approx(fps, rel=1e-3)
        for target in (tmp_path / "again.m4v", tmp_path / "again.mp4"):
            codec.transcode(clip, target, size=(50, 34))
            assert codec.probe(target).fps == pytest.approx(fps, rel=1e-3)


def test_a_bare_streams_rate_is_that_of_its_pictures_in_order_of_showing(tmp_path):
    # B-frames come behind the frame that is shown after them.
    options = {"container": "m4v", "pix_fmt": "yuv420p", "rate": 12}
    path = foreign(tmp_path / "film.m4v", "mpeg4", **options, bf="2", g="10")
    assert codec.probe(path).fps == 12


def test_a_bare_streams_fixed_rate_is_taken_from_its_layer(tmp_path):
    # 30000 ticks per second, and 1001 of them from one picture to the next.
    layer = (
        f"0 00000001 0 0001 0 00 1 {30000:016b} 1 1 {1001:015b} 1 {16:013b} 1 {16:013b} 1"
        "0 1 0 0 0 1 1 0 0"
    )
    picture = b"\x00\x00\x01\xb6" + bits(f"00 0 1 {0:015b} 1 1 000 00010" + GREY)
    path = tmp_path / "film.m4v"
    path.write_bytes(SEQUENCE + bits(layer) + picture)
    assert codec.probe(path) == codec.VideoInfo("mpeg4", 16, 16, 30000 / 1001, 1, counted=True)
