"""Facts about clips that are written: encoded from pictures, or transcoded from other videos."""

import itertools

import av
import numpy as np
import pytest

from dmclib import codec
from dmclib.codec import read_at, read_frames
from dmclib.errors import VideoError
from tests.codec.material import foreign, moving_pictures


@pytest.mark.parametrize("suffix", ["mp4", "m4v"])
@pytest.mark.parametrize("gop", [1, 5, 12])
def test_an_i_frame_comes_every_gop_frames_and_at_no_scene_cut(tmp_path, suffix, gop):
    clip = tmp_path / f"clip.{suffix}"
    codec.encode(moving_pictures(30), clip, gop=gop, fps=30000 / 1001)
    assert [p.is_key for p in codec.packets(clip)] == [n % gop == 0 for n in range(30)]
    with av.open(str(clip)) as container:
        types = [av.video.frame.PictureType(f.pict_type).name for f in container.decode(video=0)]
    assert types == ["P" if n % gop else "I" for n in range(30)]


def test_a_clip_says_what_it_is(clips):
    info = codec.probe(clips / "clip.mp4")
    assert info == codec.VideoInfo("mpeg4", 50, 34, 25.0, 30, counted=False)
    assert codec.probe(clips / "clip.m4v").counted  # a bare stream has no header to ask
    assert sum(p.size_bytes for p in codec.packets(clips / "clip.m4v")) == (
        (clips / "clip.m4v").stat().st_size
    )


@pytest.mark.parametrize("suffix", ["mp4", "m4v"])
def test_the_same_pictures_give_the_same_bytes(tmp_path, clips, suffix):
    codec.encode(moving_pictures(), tmp_path / f"again.{suffix}")
    again = (tmp_path / f"again.{suffix}").read_bytes()
    assert again == (clips / f"clip.{suffix}").read_bytes()
    assert b"Lavf" not in again  # nor do they depend on the version that wrote them
    assert b"Lavc" not in again


def test_a_coarser_quantizer_makes_a_smaller_file(tmp_path, clips):
    codec.encode(moving_pictures(), tmp_path / "coarse.mp4", quantizer=20)
    assert (tmp_path / "coarse.mp4").stat().st_size < (clips / "clip.mp4").stat().st_size / 3


@pytest.mark.parametrize("size", [(50, 34), (340, 256), (342, 20), (16, 16)])
def test_a_plain_colour_comes_back_up_to_the_last_column(tmp_path, size):
    # FFmpeg's fast ways to planar and four-byte RGB leave the last W % 8 columns as they were.
    colour = np.array([200, 60, 90])
    picture = np.broadcast_to(colour.astype(np.uint8), (size[1], size[0], 3))
    codec.encode([picture] * 2, tmp_path / "plain.mp4")
    for frame in read_frames(tmp_path / "plain.mp4"):
        assert np.abs(frame.rgb.astype(int) - colour).max() <= 4  # YUV of 8 bits, quantizer 1


@pytest.mark.parametrize(
    ("frames", "name", "settings", "sentence"),
    [
        ([], "x.mp4", {}, "no frames to encode"),
        ([np.zeros((34, 51, 3), np.uint8)], "x.mp4", {}, "51x34 .* must be even"),
        ([np.zeros((0, 50, 3), np.uint8)], "x.mp4", {}, "50x0"),
        ([np.zeros((34, 50, 3), np.float32)], "x.mp4", {}, "frame 0 is float32"),
        ([np.zeros((34, 50), np.uint8)], "x.mp4", {}, r"frame 0 is uint8 \(34, 50\)"),
        (
            [np.zeros((34, 50, 3), np.uint8), np.zeros((34, 52, 3), np.uint8)],
            *("x.mp4", {}, "frame 1 is 52x34 after frames of 50x34"),
        ),
        ([np.zeros((34, 50, 3), np.uint8)], "x.webm", {}, "as .mp4 or .m4v"),
        ([np.zeros((34, 50, 3), np.uint8)], "x.mp4", {"quantizer": 0}, "quantizer 0"),
        ([np.zeros((34, 50, 3), np.uint8)], "x.mp4", {"gop": 0}, "gop 0"),
        ([np.zeros((34, 50, 3), np.uint8)], "x.mp4", {"fps": 0}, "fps 0"),
        ([np.zeros((16, 9000, 3), np.uint8)], "x.mp4", {}, "does not take 9000x16"),
    ],
)
def test_what_cannot_be_encoded_is_said_and_leaves_nothing(
    tmp_path, frames, name, settings, sentence
):
    with pytest.raises(VideoError, match=sentence):
        codec.encode(frames, tmp_path / name, **settings)
    assert list(tmp_path.iterdir()) == []


def test_an_encoding_that_is_broken_off_leaves_nothing(tmp_path):
    def breaks_off():
        yield from itertools.islice(moving_pictures(), 20)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        codec.encode(breaks_off(), tmp_path / "clip.mp4")
    assert list(tmp_path.iterdir()) == []


# --- transcoding --------------------------------------------------------------------------------


def test_transcoding_keeps_every_frame_and_gives_the_size_asked_for(tmp_path):
    source = foreign(tmp_path / "film.avi")
    codec.transcode(source, tmp_path / "clip.mp4", size=(68, 44), gop=5)
    assert codec.probe(tmp_path / "clip.mp4") == codec.VideoInfo("mpeg4", 68, 44, 25, 20, False)
    frames = list(read_frames(tmp_path / "clip.mp4"))
    assert [f.gop_position for f in frames] == [n % 5 for n in range(20)]
    before = np.mean([rgb.mean() for rgb in codec.decode_rgb(source)])
    assert abs(np.mean([f.rgb.mean() for f in frames]) - before) < 2


def bright(path):
    """The rows and columns of a clip's first picture that are brighter than grey, as two slices."""
    seen = next(codec.decode_rgb(path)).max(axis=2) > 128
    return tuple(
        np.s_[found[0] : found[-1] + 1]
        for found in (np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0)))
    )


def boxed(folder, pictures, size=(340, 256)):
    codec.encode(pictures, folder / "source.mp4")
    codec.transcode(folder / "source.mp4", folder / "clip.mp4", size=size, letterbox=True)
    return folder / "clip.mp4"


@pytest.mark.parametrize(
    ("source", "size", "inside"),
    [  # width and height; rows and columns of the picture, even and in the middle
        ((64, 64), (340, 256), np.s_[0:256, 42:298]),
        ((118, 200), (340, 256), np.s_[0:256, 94:246]),  # 151.04 wide
        ((612, 288), (340, 256), np.s_[48:208, 0:340]),
        ((48, 32), (64, 48), np.s_[2:44, 0:64]),  # 42.7 high: 6 rows are over, 2 and 4
        ((4, 640), (340, 256), np.s_[0:256, 168:170]),  # never thinner than a colour sample
    ],
)
def test_a_letterboxed_picture_has_its_exact_place_between_black_bars(
    tmp_path, source, size, inside
):
    orange = np.full((source[1], source[0], 3), (255, 128, 0), np.uint8)
    clip = boxed(tmp_path, [orange, orange], size)
    info = codec.probe(clip)
    assert (info.width, info.height, info.frames) == (*size, 2)
    assert bright(clip) == inside
    for rgb in codec.decode_rgb(clip):
        bars = np.ones(rgb.shape[:2], bool)
        bars[inside] = False
        assert rgb[bars].max(initial=0) <= 4  # a block over the edge is coded, not exact
        assert abs(rgb[inside].astype(int) - (255, 128, 0)).max() <= 4


def test_a_square_stays_square_in_a_letterbox_and_not_without(tmp_path):
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[16:48, 16:48] = 255
    clip = boxed(tmp_path, [picture])
    assert bright(clip) == np.s_[64:192, 106:234]  # 128 x 128
    codec.transcode(tmp_path / "source.mp4", tmp_path / "stretched.mp4")
    assert bright(tmp_path / "stretched.mp4") == np.s_[64:192, 85:255]


def test_a_letterbox_of_the_pictures_own_shape_changes_nothing(tmp_path):
    clip = boxed(tmp_path, moving_pictures(6), (100, 68))
    codec.transcode(tmp_path / "source.mp4", tmp_path / "plain.mp4", size=(100, 68))
    assert clip.read_bytes() == (tmp_path / "plain.mp4").read_bytes()


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_the_call_that_an_error_names_is_the_cure(tmp_path, suffix):
    source = foreign(tmp_path / f"film{suffix}")
    with pytest.raises(VideoError, match="the video is mjpeg") as caught:
        list(read_frames(source))
    call = str(caught.value).partition("first: ")[2]
    assert call.startswith("codec.transcode(")
    eval(call)  # the sentence is the user's next command: it must run as printed
    assert len(list(read_frames(tmp_path / "film_mpeg4.mp4"))) == 20


@pytest.mark.parametrize("read", [lambda p: list(read_frames(p)), lambda p: read_at(p, [0, 19])])
def test_b_frames_are_refused_with_the_call_that_helps(tmp_path, read):
    source = foreign(tmp_path / "b.mp4", "mpeg4", pix_fmt="yuv420p", bf="2")
    with pytest.raises(VideoError, match=r"b\.mp4: .* codec\.transcode\('"):
        read(source)
    codec.transcode(source, tmp_path / "p.mp4", size=(50, 34))
    assert len(list(read_frames(tmp_path / "p.mp4"))) == 20


@pytest.mark.parametrize("size", [(0, 0), (341, 256), (-2, 4)])
def test_an_impossible_size_is_refused_before_anything_is_read(tmp_path, size):
    with pytest.raises(VideoError, match="must be even"):
        codec.transcode(tmp_path / "absent.avi", tmp_path / "clip.mp4", size=size)
