"""Optical flow of a clip in one file: eight bits per value, and any field read by itself.

A file is a grey FFV1 video in AVI, one intra picture per field: the bytes of
:func:`fields.quantize`, dx above dy, and below them a row that begins with their CRC-32. It starts
from the frame's number, so a field in another one's place is noticed too. FFV1 has checksums of its
own, but FFmpeg only logs it when they fail.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from dmclib.codec import container
from dmclib.codec.write import EXACT, write_frames
from dmclib.errors import VideoError
from dmclib.flow.fields import dequantize, quantize

SUFFIX = ".avi"
ERROR_PX = 0.157  # one step of flow.quantize is 20 / 127.5 px; rounded up

_SIDES = range(4, 8193)  # pixels: the CRC-32 needs 4 columns; FFmpeg takes pictures up to 2^28
_RATE = Fraction(25)  # a video must have one; nothing here follows from it
# Coder 0 is Rice codes: a fifth larger than the range coder's, and read in less than half the time.
# Level 1 has no slices, each with a checksum of FFV1's own, and is read in nine tenths of it.
_FFV1 = {"level": "1", "coder": "0", "context": "0", "g": "1", "flags": "+bitexact"}


def write(path: str | Path, fields: Iterable[np.ndarray]) -> int:
    """Store the flow of a clip, whole or not at all. The same fields give the same bytes.

    Args:
        path: the file to write; an old one there is replaced.
        fields: flow into frames 1, 2, ... of the clip: float ``(2, H, W)``, pixels per frame, all
            of one size. Taken one by one; cut to 20 px, as :func:`fields.quantize` does.

    Returns:
        How many fields were written.

    Raises:
        VideoError: there is no field, a field of another shape or type, or one with NaN or
            infinity.
        OutputError: the file cannot be written, as on a full disk.
    """
    path = Path(path)
    form = {"rate": _RATE, "muxer": EXACT, "container": "avi", "pix_fmt": "gray"}
    return write_frames(_pictures(path, fields), path, "ffv1", _FFV1, **form)


def read(path: str | Path, frame_indices: Sequence[int]) -> np.ndarray:
    """Read the flow into some frames; only these are decoded.

    Frames of the clip have numbers from 1, in any order. Returns float32 ``(frames, 2, H, W)``,
    pixels per frame: at most :data:`ERROR_PX` from what was written, cut to 20 px.

    Raises:
        VideoError: the file is missing, damaged or not ours, or has no flow into one of the frames.
    """
    path = Path(path)
    if not path.is_file():
        raise VideoError(f"{path}: no such file. Check the path, or prepare the clip again.")
    container.silence()
    try:
        only = {"protocol_whitelist": "file"}
        with av.open(container.url(path), format="avi", options=only) as file:
            stream = file.streams.video[0]
            stream.codec_context.thread_count = 1
            size, promised = (stream.height, stream.width), stream.frames
            last = len(stream.index_entries)  # the index ends the file: a cut shortens it
            pictures = [_decode(file, stream, int(n)) for n in frame_indices if 1 <= n <= last]
    except container.AV_ERRORS as error:
        raise _damaged(path, f"cannot be read ({error})") from error
    if not 1 <= last == promised:
        raise _damaged(path, f"is cut short: its index has {last} of {promised} fields")
    absent = [n for n in frame_indices if not 1 <= n <= last]
    if absent:
        raise VideoError(
            f"{path}: has flow into frames 1 to {last}, not into frame {absent[0]}. Ask for "
            "those, or prepare the clip again."
        )
    codes = [_codes(path, n, rows, size) for n, rows in zip(frame_indices, pictures, strict=True)]
    return dequantize(np.array(codes, np.uint8).reshape(-1, 2, size[0] // 2, size[1]))


def _pictures(path: Path, fields: Iterable[np.ndarray]) -> Iterator[av.VideoFrame]:
    size = None
    for n, field in enumerate(fields, 1):
        size = size or field.shape
        problem = _problem(field, size)
        if problem:
            raise VideoError(f"{path}: flow into frame {n} {problem}")
        rows = np.zeros((2 * size[1] + 1, size[2]), np.uint8)
        rows[:-1] = quantize(field).reshape(-1, size[2])
        rows[-1, :4] = _check(rows, n)
        yield av.VideoFrame.from_ndarray(rows, format="gray")
    if size is None:
        raise VideoError(f"{path}: there is no flow to store. A clip needs two frames or more.")


def _problem(field: np.ndarray, size: tuple[int, ...]) -> str | None:
    """Why a field cannot be stored beside others of this size, if it cannot."""
    shape = field.shape
    if len(shape) != 3 or shape[0] != 2 or not all(side in _SIDES for side in shape[1:]):
        return f"has shape {shape}. Give (2, H, W), sides of 4 to 8192 pixels."
    if shape != size:
        return f"has shape {shape}, frame 1 {size}. Give fields of one size."
    if field.dtype.kind != "f" or not np.isfinite(field).all():
        return f"is {field.dtype} or holds NaN or infinity. Give finite pixels as floats."
    return None


def _check(rows: np.ndarray, n: int) -> np.ndarray:
    """The CRC-32 of frame ``n``'s rows above the last one: uint8 (4,)."""
    return np.frombuffer(zlib.crc32(np.ascontiguousarray(rows[:-1]), n).to_bytes(4), np.uint8)


def _decode(file, stream, n: int) -> np.ndarray | None:
    """The picture of frame ``n``, if FFmpeg finds one."""
    file.seek(n - 1, stream=stream)
    picture = next(file.decode(stream), None)
    return None if picture is None else picture.to_ndarray()


def _codes(path: Path, n: int, rows: np.ndarray | None, size: tuple[int, int]) -> np.ndarray:
    """The eight bits of frame ``n``'s field, uint8 (2, H, W), from a picture (2 H + 1, W)."""
    if rows is None or rows.shape != size or (rows[-1, :4] != _check(rows, n)).any():
        raise _damaged(path, f"flow into frame {n} is not what was written")
    return rows[:-1].reshape(2, -1, size[1])


def _damaged(path: Path, found: str) -> VideoError:
    return VideoError(f"{path}: {found}. The file is damaged: prepare the clip again.")
