"""Write clips: encode pictures, transcode a video, in MPEG-4 Part 2 without B-frames."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from dmclib import files
from dmclib.codec.container import AV_ERRORS, damaged, decoded, frame_rate, opened, upright
from dmclib.errors import OutputError, VideoError

_CONTAINERS = {".mp4": "mp4", ".m4v": "m4v"}  # .m4v: a bare stream, as CoViAR's


def encode(
    frames: Iterable[np.ndarray],
    path: str | Path,
    *,
    fps: float | Fraction = 25,
    gop: int = 12,
    quantizer: int = 1,
) -> None:
    """Compress pictures to MPEG-4 Part 2: an I-frame every ``gop`` frames, P-frames between.

    The same pictures give the same bytes. The file appears whole or not at all.

    Args:
        frames: RGB, uint8, each ``(H, W, 3)`` with even H and W, all of one size; read one by one.
        path: ``.mp4`` (with an index, so that :func:`read_at` need not scan) or ``.m4v`` (the bare
            stream that CoViAR's loader reads, headers repeated at every I-frame).
        fps: frames per second.
        gop: frames from one I-frame to the next; 12 in the paper.
        quantizer: 1 (best) to 31, the same for every block; 1 is CoViAR's setting.

    Raises:
        VideoError: no frames, one that is not as described above, or a setting out of range.
    """
    path, reformatter = Path(path), VideoReformatter()

    def checked() -> Iterator[av.VideoFrame]:
        size = None
        for n, rgb in enumerate(frames):
            if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
                raise VideoError(
                    f"{path}: frame {n} is {rgb.dtype} {rgb.shape}; give uint8 (H, W, 3), RGB."
                )
            height, width = rgb.shape[:2]
            if size is None:
                size = width, height
                _check_size(path, size)
            if size != (width, height):
                raise VideoError(
                    f"{path}: frame {n} is {width}x{height} after frames of {size[0]}x{size[1]}; "
                    "give all frames one size."
                )
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            yield _to_yuv(frame, reformatter, size)

    _write(checked(), path, fps=Fraction(fps), gop=gop, quantizer=quantizer)


def transcode(
    source: str | Path,
    target: str | Path,
    *,
    size: tuple[int, int] = (340, 256),
    gop: int = 12,
    quantizer: int = 1,
    frames: int | None = None,
    letterbox: bool = False,
) -> None:
    """Turn any readable video into a clip as :func:`encode` makes it.

    Every decoded frame is kept, in order, upright and scaled to ``size``, by default whatever its
    shape, as CoViAR scales every video to 340x256. One frame is in memory at a time.

    Args:
        source: any video that FFmpeg reads.
        target: ``.mp4`` or ``.m4v``; appears whole or not at all.
        size: width and height of the clip in pixels, both even.
        gop, quantizer: as for :func:`encode`.
        frames: of a longer source only so many, from its beginning; the rest is not looked at.
        letterbox: keep the picture's shape, in the middle between two black bars
            (:func:`dmclib.letterbox`).

    Raises:
        VideoError: ``source`` is missing, damaged, cut short or without video; a setting is out of
            range.
    """
    source, target = Path(source), Path(target)
    reformatter, convert = VideoReformatter(), _letterbox if letterbox else _to_yuv
    _check_size(target, size)

    with opened(source) as (container, stream):

        def scaled() -> Iterator[av.VideoFrame]:
            for frame in islice(decoded(source, container, stream), frames):
                try:
                    yuv = convert(upright(frame, reformatter), reformatter, size)
                except AV_ERRORS as error:
                    found = f"a picture cannot be scaled ({error})"
                    raise damaged(source, found) from error
                yield yuv

        _write(scaled(), target, fps=frame_rate(stream), gop=gop, quantizer=quantizer)


def _check_size(path: Path, size: tuple[int, int]) -> None:
    """Raise a ``VideoError`` if MPEG-4, with half-size colour, cannot have this (width, height)."""
    if any(side < 2 or side % 2 for side in size):
        raise VideoError(
            f"{path}: cannot be {size[0]}x{size[1]} pixels; MPEG-4 stores colour at half size, so "
            "width and height must be even. Crop or pad by a pixel."
        )


def _to_yuv(frame: av.VideoFrame, reformatter: VideoReformatter, size: tuple) -> av.VideoFrame:
    """Convert to what the encoder takes: rounded exactly, in BT.601, which readers assume."""
    return reformatter.reformat(
        frame,
        width=size[0],
        height=size[1],
        format="yuv420p",
        dst_colorspace=Colorspace.ITU601,
        interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT,
        threads=1,
    )


def _letterbox(frame: av.VideoFrame, reformatter: VideoReformatter, size: tuple) -> av.VideoFrame:
    """Convert as :func:`_to_yuv` does, but in the picture's own shape, between two black bars.

    Its sides are rounded to even pixels, and it begins at one, since colour has half the size; so
    it may lie a pixel off the centre. The frame's pixels are taken as square.
    """
    scale = min(size[0] / frame.width, size[1] / frame.height)
    width, height = (max(2, 2 * round(side * scale / 2)) for side in (frame.width, frame.height))
    left, top = (size[0] - width) // 4 * 2, (size[1] - height) // 4 * 2
    picture = _to_yuv(frame, reformatter, (width, height))
    boxed = av.VideoFrame(*size, "yuv420p")
    black = (16, 1), (128, 2), (128, 2)  # of brightness and both colours; px to one of theirs
    for (value, px), source, target in zip(black, picture.planes, boxed.planes, strict=True):
        whole = _samples(target)
        whole[:] = value
        inside = np.s_[top // px : (top + height) // px, left // px : (left + width) // px]
        whole[inside] = _samples(source)
    return boxed


def _samples(plane: av.video.plane.VideoPlane) -> np.ndarray:
    """A plane's bytes, (height, width), shared with it."""
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width]


def _write(
    frames: Iterator[av.VideoFrame], path: Path, *, fps: Fraction, gop: int, quantizer: int
) -> None:
    """Encode YUV frames to ``path``, whole or not at all and without B-frames.

    Raises:
        VideoError: no frames, a setting out of range, or what ``frames`` raises.
        OutputError: the file cannot be written, as on a full disk.
    """
    if path.suffix not in _CONTAINERS:
        raise VideoError(f"{path}: clips are written as .mp4 or .m4v. Change the suffix.")
    fps = fps.limit_denominator(1001)
    if gop < 1 or not 1 <= quantizer <= 31 or not 0 < fps < 1 << 16:
        raise VideoError(
            f"{path}: cannot be made with gop {gop}, quantizer {quantizer}, fps {float(fps):g}; "
            "gop is at least 1, quantizer 1 to 31, fps above 0 and below 65536."
        )
    first = next(frames, None)
    if first is None:
        raise VideoError(f"{path}: there are no frames to encode. Give at least one.")
    try:
        _encode(chain([first], frames), path, first, fps, gop, quantizer)
    except (av.FFmpegError, OSError) as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror}). Make room, or give another folder."
        ) from error


def _encode(
    frames: Iterable[av.VideoFrame],
    path: Path,
    first: av.VideoFrame,
    fps: Fraction,
    gop: int,
    quantizer: int,
) -> None:
    exact = {"fflags": "+bitexact"}  # no date and no version in the file
    with (
        files.whole(path) as partial,
        av.open(str(partial), "w", format=_CONTAINERS[path.suffix], options=exact) as out,
    ):
        stream = out.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, "yuv420p"
        stream.codec_context.thread_count = 1  # slices would depend on the number of threads
        stream.codec_context.options = {
            "g": str(gop),
            "bf": "0",
            "qmin": str(quantizer),
            "qmax": str(quantizer),
            "flags": "+bitexact",
            "sc_threshold": "1000000000",  # above any score: no I-frame at a scene cut
        }
        for n, frame in enumerate(frames):
            frame.pts, frame.time_base = n, 1 / fps
            frame.pict_type = PictureType.NONE  # a transcoded frame remembers what it was
            try:
                coded = stream.encode(frame)
            except av.FFmpegError as error:
                size = f"{frame.width}x{frame.height}"
                raise VideoError(
                    f"{path}: the encoder does not take {size} pixels at {float(fps):g} frames per "
                    f"second ({error}). Give smaller frames or another rate."
                ) from error
            out.mux(coded)
        out.mux(stream.encode(None))
