"""Write clips: encode pictures, transcode a video, in MPEG-4 Part 2 without B-frames."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from dmclib import files
from dmclib.codec.container import AV_ERRORS, damaged, frame_rate, opened, shown, url
from dmclib.codec.pictures import letterboxed, to_yuv, upright
from dmclib.errors import OutputError, VideoError

EXACT = {"fflags": "+bitexact"}  # no date and no version in the file
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
            yield to_yuv(frame, reformatter, size)

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
    """Turn any readable video into a clip as :func:`encode` makes it, frame by frame.

    Every frame that the video shows is kept, in order, upright and scaled to ``size``, by default
    whatever its shape, as in CoViAR. Frames before the first I-frame are left out with a warning.

    Args:
        source: any video that FFmpeg reads.
        target: ``.mp4`` or ``.m4v``; appears whole or not at all.
        size: width and height of the clip in pixels, both even.
        gop, quantizer: as for :func:`encode`.
        frames: of a longer source only so many, from its beginning; the rest is not looked at.
        letterbox: keep the picture's shape, in the middle between two black bars.

    Raises:
        VideoError: ``source`` is missing, damaged, cut short or without video; a setting is out of
            range.
    """
    source, target = Path(source), Path(target)
    reformatter, convert = VideoReformatter(), letterboxed if letterbox else upright
    _check_size(target, size)

    with opened(source) as (container, stream):

        def scaled() -> Iterator[av.VideoFrame]:
            for frame in islice(shown(source, container, stream), frames):
                try:
                    yuv = convert(frame, reformatter, size)
                except AV_ERRORS as error:
                    raise damaged(source, f"a picture cannot be scaled ({error})") from error
                yield yuv

        fps = frame_rate(source, container, stream)
        _write(scaled(), target, fps=fps, gop=gop, quantizer=quantizer)


def _check_size(path: Path, size: tuple[int, int]) -> None:
    """Raise a ``VideoError`` if MPEG-4, with half-size colour, cannot have this (width, height)."""
    if any(side < 2 or side % 2 for side in size):
        raise VideoError(
            f"{path}: cannot be {size[0]}x{size[1]} pixels; MPEG-4 stores colour at half size, so "
            "width and height must be even. Crop or pad by a pixel."
        )


def _write(
    frames: Iterator[av.VideoFrame], path: Path, *, fps: Fraction, gop: int, quantizer: int
) -> None:
    """Encode YUV frames to MPEG-4 Part 2 without B-frames; a ``VideoError`` of a bad setting."""
    if path.suffix not in _CONTAINERS:
        raise VideoError(f"{path}: clips are written as .mp4 or .m4v. Change the suffix.")
    fps = fps.limit_denominator(1001)
    if gop < 1 or not 1 <= quantizer <= 31 or not 0 < fps < 1 << 16:
        raise VideoError(
            f"{path}: cannot be made with gop {gop}, quantizer {quantizer}, fps {float(fps):g}; "
            "gop is at least 1, quantizer 1 to 31, fps above 0 and below 65536."
        )
    options = {
        "g": str(gop),
        "bf": "0",
        "qmin": str(quantizer),
        "qmax": str(quantizer),
        "flags": "+bitexact",
        "sc_threshold": "1000000000",  # above any score: no I-frame at a scene cut
    }
    container = _CONTAINERS[path.suffix]
    write_frames(frames, path, "mpeg4", options, rate=fps, muxer=EXACT, container=container)


def write_frames(
    frames: Iterator[av.VideoFrame],
    path: Path,
    name: str,
    options: dict[str, str],
    *,
    rate: Fraction,
    muxer: dict[str, str],
    container: str | None = None,
    pix_fmt: str = "yuv420p",
    threads: int = 1,
) -> int:
    """Encode frames of one size to ``path`` by any of FFmpeg's encoders, whole or not at all.

    Args:
        frames: taken one by one; their times are set here.
        name, options: of the encoder.
        rate: frames per second.
        muxer: options of the container's writer; :data:`EXACT` for the same bytes each time.
        container: FFmpeg's name of it; without it the suffix tells.
        pix_fmt: what the encoder gets.
        threads: of the encoder, 0 for all cores. Some encoders' bytes depend on their number.

    Returns:
        How many frames were written.

    Raises:
        VideoError: no frames, a size or a rate that the encoder does not take, or what ``frames``
            raises.
        OutputError: the file cannot be written, as on a full disk.
    """
    first = next(frames, None)
    if first is None:
        raise VideoError(f"{path}: there are no frames to encode. Give at least one.")
    count, target = 0, {"format": container, "options": muxer}
    with writing(path), files.whole(path) as partial, av.open(url(partial), "w", **target) as out:
        stream = out.add_stream(name, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, pix_fmt
        stream.codec_context.thread_count = threads
        for frame in chain([first], frames):
            frame.pts, frame.time_base = count, 1 / rate
            frame.pict_type = PictureType.NONE  # a transcoded frame remembers what it was
            try:
                coded = stream.encode(frame)
            except av.FFmpegError as error:
                size = f"{frame.width}x{frame.height}"
                raise VideoError(
                    f"{path}: the encoder does not take {size} pixels at {float(rate):g} frames "
                    f"per second ({error}). Give smaller frames or another rate."
                ) from error
            out.mux(coded)
            count += 1
        out.mux(stream.encode(None))
    return count


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise an ``OutputError`` where ``path`` cannot be written, as on a full disk."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror}). Make room, or give another folder."
        ) from error
