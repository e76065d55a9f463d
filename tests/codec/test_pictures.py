"""Colours survive transcoding, and pictures come out as a player shows them."""

from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from dmclib import codec
from tests.codec import mp4_maker

WIDTH, HEIGHT = 96, 64


def painting():
    """A grey ramp, pure colours, and a smooth mixture of all: uint8 (64, 96, 3)."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[:16] = np.linspace(0, 255, WIDTH)[:, None]
    pure = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255)]
    picture[16:32] = np.repeat(pure, WIDTH // 6, axis=0)
    y, x = np.mgrid[:32, :WIDTH]
    mixture = np.sin(x / 9) + np.cos(y / 7), np.sin(x / 12 + y / 9), np.cos(x / 15 - y / 8)
    picture[32:] = np.clip(128 + 90 * np.stack(mixture, -1), 0, 255)
    return picture


def source(path, name, pix_fmt, *, matrix=None, color_range=None, **options):
    """Three times the painting, in a codec, pixel format, colour matrix and range."""
    frame = av.VideoFrame.from_ndarray(painting(), format="rgb24")
    frame = VideoReformatter().reformat(
        frame, format=pix_fmt, dst_colorspace=matrix, dst_color_range=color_range
    )
    with av.open(str(path), "w") as out:
        stream = out.add_stream(name, rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pix_fmt
        if matrix is not None:
            stream.codec_context.colorspace = matrix
        if color_range is not None:
            stream.codec_context.color_range = color_range
        stream.codec_context.options = options
        for n in range(3):
            frame.pts, frame.time_base = n, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def filtered(path, *filters):
    """A video's frames, as FFmpeg's own filters make them."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        graph = av.filter.Graph()
        nodes = [graph.add_buffer(template=stream)]
        nodes += [graph.add(*one.split("=", 1)) for one in filters]
        nodes.append(graph.add("buffersink"))
        graph.link_nodes(*nodes).configure()
        for frame in container.decode(stream):
            graph.push(frame)
            yield graph.pull()


def rgb(frames):
    return np.stack([frame.to_ndarray() for frame in frames]).astype(int)


def read(path):
    return np.stack([frame.rgb for frame in codec.read_frames(path)]).astype(int)


LIMITED, FULL = ColorRange.MPEG, ColorRange.JPEG
SOURCES = {
    "mjpeg": ("avi", "mjpeg", "yuvj420p", {"qmin": "1", "qmax": "1"}),
    "h264 full": ("mp4", "libx264", "yuv420p", {"color_range": FULL, "qp": "1"}),
    "h264 full 709": (
        *("mp4", "libx264", "yuv420p"),
        {"matrix": Colorspace.ITU709, "color_range": FULL, "qp": "1"},
    ),
    "h264 limited 601": (
        *("mp4", "libx264", "yuv420p"),
        {"matrix": Colorspace.ITU601, "color_range": LIMITED, "qp": "1"},
    ),
    "h264 limited 709": (
        *("mp4", "libx264", "yuv420p"),
        {"matrix": Colorspace.ITU709, "color_range": LIMITED, "qp": "1"},
    ),
    "h264 limited 2020, 10 bits": (
        *("mp4", "libx264", "yuv420p10le"),
        {"matrix": Colorspace.BT2020, "color_range": LIMITED, "qp": "1"},
    ),
    "h264 full 4:2:2, 10 bits": (
        *("mp4", "libx264", "yuv422p10le"),
        {"matrix": Colorspace.ITU709, "color_range": FULL, "qp": "1"},
    ),
    "h264 4:4:4": ("mp4", "libx264", "yuv444p", {"color_range": LIMITED, "qp": "1"}),
    "h265, 12 bits": ("mp4", "libx265", "yuv420p12le", {"x265-params": "lossless=1"}),
    "x264rgb": ("mkv", "libx264rgb", "rgb24", {"qp": "0"}),
    "vp9 gbrp": ("mkv", "libvpx-vp9", "gbrp", {"lossless": "1"}),
    "png": ("mov", "png", "rgb24", {}),
    "png with alpha": ("mov", "png", "rgba", {}),
    "png, 16 bits": ("mov", "png", "rgb48be", {}),
    "png, grey": ("mov", "png", "gray", {}),
    "apng": ("apng", "apng", "rgb24", {}),
    "ffv1 gbrp, 12 bits": ("mkv", "ffv1", "gbrp12le", {}),
    # It also names a place of the colour samples, which RGB does not have.
    "jpeg 2000": ("mkv", "jpeg2000", "rgb24", {"pred": "1", "chroma_sample_location": "topleft"}),
    "raw": ("avi", "rawvideo", "bgr24", {}),
    "mpeg-4": ("avi", "mpeg4", "yuv420p", {"qmin": "1", "qmax": "1"}),
}


@pytest.fixture(params=SOURCES)
def film(request, tmp_path):
    suffix, name, pix_fmt, settings = SOURCES[request.param]
    return source(tmp_path / f"film.{suffix}", name, pix_fmt, **settings)


@pytest.mark.parametrize("quantizer", [1, 8])
@pytest.mark.parametrize(
    ("size", "picture"),
    [((WIDTH, HEIGHT), None), ((120, 40), None), ((96, 96), (96, 64))],
    ids=["as it is", "stretched", "letterboxed"],
)
def test_transcoding_loses_no_more_colour_than_ffmpeg_does(
    tmp_path, film, size, picture, quantizer
):
    clip = tmp_path / "clip.mp4"
    codec.transcode(film, clip, size=size, quantizer=quantizer, letterbox=picture is not None)
    width, height = picture or size
    top, left = (size[1] - height) // 2, (size[0] - width) // 2
    inside = np.s_[:, top : top + height, left : left + width]
    scaled = f"scale={width}:{height}:flags=bicubic+accurate_rnd"
    truth = np.zeros((3, size[1], size[0], 3), int)
    truth[inside] = rgb(filtered(film, scaled, "format=rgb24"))

    theirs = tmp_path / "theirs.mp4"
    with av.open(str(theirs), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.options = {"qmin": str(quantizer), "qmax": str(quantizer)}
        pad = f"pad={size[0]}:{size[1]}:{left}:{top}:black"
        for n, frame in enumerate(filtered(film, scaled, "format=yuv420p", pad)):
            frame.pts, frame.time_base, frame.pict_type = n, Fraction(1, 25), 0
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    error, limit = np.abs(read(clip) - truth).mean(), np.abs(read(theirs) - truth).mean() + 1
    assert error <= limit
    shown = rgb(filtered(film, "format=rgb24"))
    # FFmpeg spreads colour of half size smoothly over the pixels where it has more than 8 bits.
    assert np.abs(shown - list(codec.decode_rgb(film))).mean() < 3


@pytest.mark.parametrize("matrix", [4, 8, 10, 11, 12, 13, 14])
def test_a_colour_matrix_that_the_scaler_does_not_know_is_no_damage(tmp_path, matrix):
    plain = source(tmp_path / "plain.mkv", "ffv1", "yuv420p", matrix=Colorspace.ITU601)
    tagged = tmp_path / "tagged.mkv"
    data, element = plain.read_bytes(), b"\x55\xb1\x81"  # Matroska's MatrixCoefficients, a byte
    at = data.index(element) + len(element)
    tagged.write_bytes(data[:at] + bytes([matrix]) + data[at + 1 :])
    with av.open(str(tagged)) as container:
        assert next(container.decode(video=0)).colorspace == matrix
    pictures = zip(codec.decode_rgb(tagged), codec.decode_rgb(plain), strict=True)
    for seen, expected in pictures:
        assert np.abs(seen.astype(int) - expected).mean() < (8 if matrix == 10 else 1)
    codec.transcode(tagged, tmp_path / "clip.mp4", size=(WIDTH, HEIGHT))
    assert codec.probe(tmp_path / "clip.mp4").frames == 3


# --- the display matrix -------------------------------------------------------------------------

# The matrix for a stored picture of (W, H), and the picture that it shows.
MATRICES = {
    "upright": (lambda w, h: (1, 0, 0, 1, 0, 0), lambda p: p),
    "mirrored": (lambda w, h: (-1, 0, 0, 1, w, 0), lambda p: p[:, ::-1]),
    "upside down, mirrored": (lambda w, h: (1, 0, 0, -1, 0, h), lambda p: p[::-1]),
    "turned by 180 degrees": (lambda w, h: (-1, 0, 0, -1, w, h), lambda p: p[::-1, ::-1]),
    "turned clockwise": (lambda w, h: (0, 1, -1, 0, h, 0), lambda p: np.rot90(p, -1)),
    "turned counter-clockwise": (lambda w, h: (0, -1, 1, 0, 0, w), np.rot90),
    "transposed": (lambda w, h: (0, 1, 1, 0, 0, 0), lambda p: p.swapaxes(0, 1)),
    "transposed, turned": (
        lambda w, h: (0, -1, -1, 0, h, w),
        lambda p: np.rot90(p, 2).swapaxes(0, 1),
    ),
}


@pytest.fixture(params=MATRICES)
def turned(request, tmp_path):
    """A film with a display matrix, the same without, and how the one follows from the other."""
    matrix, shown = MATRICES[request.param]
    plain = source(tmp_path / "plain.mov", "mjpeg", "yuvj420p", qmin="1", qmax="1")
    run, size = (mp4_maker.description(plain), mp4_maker.samples(plain)), (WIDTH, HEIGHT)
    path = mp4_maker.movie(tmp_path / "film.mov", [run], size=size, matrix=matrix(*size))
    return path, plain, shown


def test_pictures_are_shown_as_the_display_matrix_says(turned):
    path, plain, shown = turned
    for seen, stored in zip(codec.decode_rgb(path), codec.decode_rgb(plain), strict=True):
        np.testing.assert_array_equal(seen, shown(stored))


@pytest.mark.parametrize("letterbox", [False, True])
def test_a_clip_holds_the_picture_as_it_is_shown(tmp_path, turned, letterbox):
    path, plain, shown = turned
    by_hand = [np.ascontiguousarray(shown(picture)) for picture in codec.decode_rgb(plain)]
    codec.encode(by_hand, tmp_path / "by_hand.mp4")
    size = (80, 80) if letterbox else by_hand[0].shape[1::-1]
    for name in ("by_hand.mp4", path.name):
        codec.transcode(tmp_path / name, tmp_path / f"c_{name}.mp4", size=size, letterbox=letterbox)
    expected, clip = (read(tmp_path / f"c_{name}.mp4") for name in ("by_hand.mp4", path.name))
    assert np.abs(clip - expected).mean() < 3  # one was compressed twice; wrongly turned: above 30
    assert np.abs(clip - expected[:, ::-1]).mean() > 20
