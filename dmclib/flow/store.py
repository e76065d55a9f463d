"""Optical flow of a clip in one file: eight bits a value, and any frame read back by itself.

Training asks for single frames in random order, so each field is compressed alone: the bytes of
:func:`quantize`, each less the one above it, deflated. Nothing is lost beyond those eight
bits. ``bench_storage`` holds this against video codecs, pictures and a chunked array store.

The file: a head (magic, version, width, height), the compressed fields one after the other, an
index (size and checksum of each) and a tail (how many, a checksum of head and index). All numbers
are little-endian, all checksums CRC-32: it notices every flipped bit, where zlib's own Adler-32
let one through to other pixels in a small file.
"""

import os
import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dmclib import files
from dmclib.errors import VideoError
from dmclib.flow.fields import dequantize, quantize

SUFFIX = ".flow"
ERROR_PX = 0.157  # one step of flow.quantize is 20 / 127.5 px; rounded up

_MAGIC, _VERSION = b"DMCFLOW", 1
_HEAD = struct.Struct("<7sBHH")  # magic, version, width, height
_TAIL = struct.Struct("<II")  # fields, CRC-32 of head, index and number of fields
_ENTRY = np.dtype([("size", "<u4"), ("crc", "<u4")])  # of a compressed field
_RAW = -zlib.MAX_WBITS  # deflate without zlib's own checksum
# Deflate makes at most 258 bytes of two bits, so a file cannot make us allocate far beyond it.
_MAX_RATIO = 1032


def write(path: str | Path, fields: Iterable[np.ndarray]) -> int:
    """Store the flow of a clip, whole or not at all.

    Args:
        path: where to; an old file there is replaced.
        fields: flow into frames 1, 2, ... of the clip (frame 0 has none): float ``(2, H, W)``,
            pixels per frame, all of one size. Taken one by one, in one pass. What is beyond 20 px
            is cut to the ends of :func:`quantize`'s scale, as the authors do.

    Returns:
        How many fields were written.

    Raises:
        VideoError: there is no field, a field of another shape or type, or one with NaN or
            infinity; nothing is left behind, nor is it after any other exception.
    """
    entries: list[tuple[int, int]] = []
    head = b""
    with files.whole(path) as partial, open(partial, "wb") as out:
        for n, field in enumerate(fields, 1):
            codes = _codes(path, n, field)
            if n == 1:
                shape = codes.shape
                head = _HEAD.pack(_MAGIC, _VERSION, shape[2], shape[1])
                out.write(head)
            if codes.shape != shape:
                found = f"flow into frame {n} has shape {codes.shape}, frame 1 {shape}"
                raise VideoError(f"{path}: {found}. Give fields of one size.")
            coded = _deflate(codes)
            out.write(coded)
            entries.append((len(coded), zlib.crc32(coded)))
        if not entries:
            raise VideoError(f"{path}: there is no flow to store. A clip needs two frames or more.")
        index, count = np.array(entries, _ENTRY).tobytes(), len(entries)
        out.write(index + _TAIL.pack(count, _checksum(head, index, count)))
    return count


def read(path: str | Path, frame_indices: Sequence[int]) -> np.ndarray:
    """Read back the flow into some frames; only these are decompressed.

    Args:
        path: a file that :func:`write` made.
        frame_indices: numbers of frames in the clip, 1 and up, in any order.

    Returns:
        float32 ``(len(frame_indices), 2, H, W)``, pixels per frame: at most :data:`ERROR_PX` from
        what was written, held within 20 px.

    Raises:
        VideoError: a file that is missing, damaged or not ours, or a frame that is not in it.
    """
    with _opened(path) as file:
        height, width, starts, checksums = _layout(path, file)
        last = len(checksums)
        absent = [n for n in frame_indices if not 1 <= n <= last]
        if absent:
            raise VideoError(
                f"{path}: has flow into frames 1 to {last}, not into frame {absent[0]}. Ask for "
                "those, or make the file again from the whole clip."
            )
        fields = np.empty((len(frame_indices), 2, height, width), np.float32)
        for field, n in zip(fields, frame_indices, strict=True):
            file.seek(starts[n - 1])
            coded = file.read(starts[n] - starts[n - 1])
            if zlib.crc32(coded) != checksums[n - 1]:
                raise _damaged(path, f"flow into frame {n} is not what was written")
            field[:] = dequantize(_inflate(path, n, coded, (2, height, width)))
    return fields


def count(path: str | Path) -> int:
    """How many fields a file holds: flow into frames 1 to that.

    Raises:
        VideoError: a file that is missing, damaged or not ours.
    """
    with _opened(path) as file:
        return len(_layout(path, file)[3])


def _codes(path: str | Path, n: int, field: np.ndarray) -> np.ndarray:
    if field.ndim != 3 or field.shape[0] != 2 or not all(0 < s < 1 << 16 for s in field.shape[1:]):
        found = f"flow into frame {n} has shape {field.shape}"
        raise VideoError(f"{path}: {found}. Give (2, H, W), sides of 1 to 65535 pixels.")
    if field.dtype.kind != "f" or not np.isfinite(field).all():
        found = f"flow into frame {n} is {field.dtype} or holds NaN or infinity"
        raise VideoError(f"{path}: {found}. Give finite pixels as floats.")
    return quantize(field)


def _deflate(codes: np.ndarray) -> bytes:
    rows = codes.reshape(-1, codes.shape[2])  # dx above dy
    differences = np.diff(rows, axis=0, prepend=np.uint8(0))  # wraps around at 256
    # Runs of one byte and Huffman codes alone: on flow some 7 % smaller than the search for longer
    # repeats at zlib's default level, and five times as fast.
    coder = zlib.compressobj(wbits=_RAW, strategy=zlib.Z_RLE)
    return coder.compress(differences) + coder.flush()


def _inflate(path: str | Path, n: int, coded: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    expected = shape[0] * shape[1] * shape[2]
    try:
        # No more than is expected, whatever a hostile file unfolds to.
        differences = zlib.decompressobj(_RAW).decompress(coded, expected + 1)
    except zlib.error as error:
        raise _damaged(path, f"flow into frame {n} cannot be read ({error})") from error
    if len(differences) != expected:
        raise _damaged(path, f"flow into frame {n} is not of {shape[2]}x{shape[1]} pixels")
    rows = np.frombuffer(differences, np.uint8).reshape(-1, shape[2])
    return np.cumsum(rows, axis=0, dtype=np.uint8).reshape(shape)


def _opened(path: str | Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        found = f"{path}: cannot be opened ({error.strerror})"
        raise VideoError(f"{found}. Check the path, or prepare the clip again.") from error


def _layout(path: str | Path, file: BinaryIO) -> tuple[int, int, list[int], list[int]]:
    """Height, width, where each field starts (and the last ends), their checksums."""
    size = os.fstat(file.fileno()).st_size
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size or head[: len(_MAGIC)] != _MAGIC:
        raise VideoError(f"{path}: is no flow file of this package. Prepare the clip again.")
    _, version, width, height = _HEAD.unpack(head)
    if version != _VERSION:
        found = f"{path}: is of format {version}, where this version reads {_VERSION}"
        raise VideoError(f"{found}. Prepare the clip again.")
    file.seek(size - _TAIL.size)
    fields, checksum = _TAIL.unpack(file.read(_TAIL.size))
    end = size - _TAIL.size - fields * _ENTRY.itemsize
    if fields < 1 or end < _HEAD.size:
        raise _damaged(path, "is cut short")
    file.seek(end)
    index = file.read(fields * _ENTRY.itemsize)
    if _checksum(head, index, fields) != checksum:
        raise _damaged(path, "is cut short, or its index is not what was written")
    entries = np.frombuffer(index, _ENTRY)
    sizes = entries["size"]
    starts = [_HEAD.size, *(_HEAD.size + np.cumsum(sizes, dtype=np.int64)).tolist()]
    if starts[-1] != end or not 0 < 2 * width * height <= _MAX_RATIO * int(sizes.min()):
        raise _damaged(path, f"cannot hold {fields} fields of {width}x{height} pixels")
    return height, width, starts, entries["crc"].tolist()


def _checksum(head: bytes, index: bytes, fields: int) -> int:
    return zlib.crc32(head + index + fields.to_bytes(4, "little"))


def _damaged(path: str | Path, found: str) -> VideoError:
    return VideoError(f"{path}: {found}. The file is damaged: prepare the clip again.")
