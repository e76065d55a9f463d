"""Make and read compressed video: pictures, motion vectors and residuals of MPEG-4 Part 2.

A clip is a row of groups of pictures (GOPs): one I-frame, coded alone, then P-frames, each coded as
motion vectors (where every block came from) plus a residual (what the vectors could not explain).
Paper section 3.1; the reading follows CoViAR's loader, on which DMC-Net is built.

What FFmpeg does lives in ``video``, the arithmetic of motion vectors in ``vectors``, the way from
decoded to compressed frames in ``gops``; what notebooks need of them has its name here.
"""

import mmap
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from dmclib import gops, video
from dmclib.errors import VideoError
from dmclib.gops import CompressedFrame as CompressedFrame
from dmclib.vectors import predict as predict
from dmclib.vectors import rasterize_motion_vectors as rasterize_motion_vectors
from dmclib.video import Packet as Packet
from dmclib.video import VideoInfo as VideoInfo
from dmclib.video import decode_rgb as decode_rgb
from dmclib.video import packets as packets
from dmclib.video import probe as probe

_EXPORT_VECTORS = {"flags2": "+export_mvs"}  # for the codec; av.open would ignore it in silence


# --- writing ------------------------------------------------------------------------------------


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
                video.check_size(path, size)
            if size != (width, height):
                raise VideoError(
                    f"{path}: frame {n} is {width}x{height} after frames of {size[0]}x{size[1]}; "
                    "give all frames one size."
                )
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            yield video.to_yuv(frame, reformatter, size)

    video.write(checked(), path, fps=Fraction(fps), gop=gop, quantizer=quantizer)


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
            (:func:`dmclib.video.letterbox`).

    Raises:
        VideoError: ``source`` is missing, damaged, cut short or without video; a setting is out of
            range.
    """
    source, target = Path(source), Path(target)
    reformatter, convert = VideoReformatter(), video.letterbox if letterbox else video.to_yuv
    video.check_size(target, size)

    with video.opened(source) as (container, stream):

        def scaled() -> Iterator[av.VideoFrame]:
            for frame in islice(video.decoded(source, container, stream), frames):
                try:
                    yuv = convert(video.upright(frame, reformatter), reformatter, size)
                except video.AV_ERRORS as error:
                    found = f"a picture cannot be scaled ({error})"
                    raise video.damaged(source, found) from error
                yield yuv

        video.write(scaled(), target, fps=video.frame_rate(stream), gop=gop, quantizer=quantizer)


# --- reading ------------------------------------------------------------------------------------


def read_frames(
    path: str | Path, *, accumulate: bool = False, subpixel: bool = False
) -> Iterator[CompressedFrame]:
    """Read every frame of a clip in one pass: picture, motion and residual.

    Args:
        path: MPEG-4 Part 2 without B-frames, as :func:`encode` and :func:`transcode` make it.
        accumulate: False: motion from the frame before, residual against it (all released DMC-Net
            runs). True: every pixel is traced back to the GOP's I-frame; motion is the whole way,
            residual is against the I-frame (the paper's text, CoViAR's streams).
        subpixel: False: CoViAR's whole pixels. True: half pixels are kept, and the residual is what
            bilinear prediction at the half pixel misses (see :func:`predict`), so that motion and
            residual still belong together. With ``accumulate`` the steps of the way are added with
            their fractions, each from the pixel nearest to where the last one came from.

    Yields:
        :class:`CompressedFrame`, in order. ``residual`` added to ``predict(reference, motion)`` is
        ``rgb`` exactly. ``residual`` is a view whose colours lie side by side in memory.

    Raises:
        VideoError: a file that is missing, damaged, cut short, in another codec or with B-frames;
            frames before the damage have been yielded by then.
    """
    path = Path(path)
    reader = gops.Reader(path, accumulate=accumulate, subpixel=subpixel)
    with video.opened(path, codec="mpeg4") as (container, stream):
        stream.codec_context.options = _EXPORT_VECTORS
        for group in gops.groups(path, video.decoded(path, container, stream)):
            yield from reader.read(group)


def read_at(
    path: str | Path,
    frame_indices: Sequence[int],
    *,
    accumulate: bool = False,
    subpixel: bool = False,
) -> list[CompressedFrame]:
    """Read single frames, decoding only the GOPs they are in, each up to the frame asked for.

    Args:
        path: as for :func:`read_frames`, but .mp4, where frames are found by its index, or a bare
            .m4v stream, where they are found by their start codes.
        frame_indices: frame numbers from 0, in any order; a number may come twice.
        accumulate, subpixel: as for :func:`read_frames`.

    Returns:
        The frames, in the order asked for, equal to those of :func:`read_frames`.

    Raises:
        VideoError: as :func:`read_frames`, and for a number that the clip does not have.
    """
    path, indices = Path(path), [int(i) for i in frame_indices]
    with (
        video.opened(path, codec="mpeg4") as (container, stream),
        open(path, "rb") as handle,
        mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        spans, is_key = video.find_packets(path, container, stream, data)
        for i in indices:
            if not 0 <= i < len(spans):
                raise VideoError(
                    f"{path}: has {len(spans)} frames, numbered from 0; there is no frame {i}."
                )
        decoder = av.CodecContext.create("mpeg4", "r")
        decoder.extradata = stream.codec_context.extradata  # an .mp4 keeps the VOL header there
        decoder.thread_count = 1
        decoder.options = _EXPORT_VECTORS
        keys = np.flatnonzero(is_key)
        wanted = np.unique(np.array(indices, np.int64))
        gop_of = np.searchsorted(keys, wanted, side="right") - 1
        found = {}
        for gop in np.unique(gop_of).tolist():
            members = wanted[gop_of == gop].tolist()
            if gop < 0:
                raise video.needs_transcode(path, "begins with a P-frame without its I-frame")
            first = int(keys[gop])
            chunks = [data[begin:end] for begin, end in spans[first : members[-1] + 1]]
            group = []
            for index, frame in enumerate(
                video.checked(path, _decode(decoder, chunks), first), first
            ):
                gops.check_kind(path, frame, index)
                if (frame.pict_type == PictureType.I) != (index == first):
                    raise video.damaged(path, f"its index is wrong about frame {index}")
                # A frame that no other one needs is let go, so that its memory is used again.
                needed = accumulate or index == first or index in members or index + 1 in members
                group.append(frame if needed else None)
            if len(group) != len(chunks):
                raise video.damaged(path, f"{len(group)} of {len(chunks)} frames can be decoded")
            reader = gops.Reader(path, accumulate=accumulate, subpixel=subpixel)
            reader.index, reader.gop_index = first - 1, gop - 1
            found |= {frame.index: frame for frame in reader.read(group, members)}
            decoder.flush_buffers()
    return [found[i] for i in indices]


def _decode(decoder: av.CodecContext, chunks: list[bytes]) -> Iterator[av.VideoFrame]:
    for chunk in chunks:
        # Copied by update: av.Packet(bytes) lends the bytes without the zero padding that FFmpeg's
        # bit reader needs behind them, and now and then a good frame comes out marked corrupt.
        packet = av.Packet(len(chunk))
        packet.update(chunk)
        yield from decoder.decode(packet)
    yield from decoder.decode(None)
