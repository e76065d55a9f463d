"""Headers of MPEG-4 Part 2: where a stream's pictures lie, of which type, and at what rate.

A stream is cut by start codes. A video object layer (VOL) header says how the following pictures
are coded; a video object plane (VOP) is one picture, or says that none was coded. FFmpeg does not
tell these things without decoding, so they are read here (ISO/IEC 14496-2, 6.2.3 and 6.2.5).
"""

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np

INTRA, PREDICTED, BIDIRECTIONAL, SPRITE = range(4)  # types of a VOP: I, P, B, S (global motion)
VOP = b"\x00\x00\x01\xb6"
END = b"\x00\x00\x01\xb1"  # of the sequence; FFmpeg takes it for a damaged picture
_VOL = re.compile(rb"\x00\x00\x01[\x20-\x2f]")
_CLOCK = re.compile(rb"\x00\x00\x01\xb3(...)", re.DOTALL)  # header of a group of VOPs
_HEADER_BYTES = 64  # more than the fields read here can take
_TIMED = 100  # VOPs that tell the rate
_PIECE = 1 << 20  # bytes scanned at a time: they and what is found of them stay in the cache
NOT_CODED_BYTES = 1024  # a VOP without a picture takes some ten bytes, with odd headers a few more


class Layer(NamedTuple):
    """What a VOL header says about time."""

    ticks: int  # per second
    period: int  # ticks from one picture to the next; 0 where that is not fixed


class Plane(NamedTuple):
    """What a VOP header says."""

    kind: int  # INTRA, PREDICTED, BIDIRECTIONAL or SPRITE
    coded: bool  # False: there is no picture, the one before is shown again
    seconds: int  # on from the time of the last I- or P-VOP, in whole seconds
    ticks: int  # within the second
    rounding: int  # 0 or 1: what half-pixel prediction of a P-VOP subtracts before it divides


class _Bits:
    def __init__(self, data: bytes):
        self._text = f"{int.from_bytes(data):0{8 * len(data)}b}" if data else ""
        self._at = 0

    def take(self, count: int) -> int:
        self._at += count
        return int(self._text[self._at - count : self._at] or "0", 2)


@lru_cache(maxsize=16)
def layer(header: bytes) -> Layer | None:
    """Read the last VOL header among these bytes; None where there is none."""
    *_, found = [None, *_VOL.finditer(header)]
    if found is None:
        return None
    bits = _Bits(header[found.end() : found.end() + _HEADER_BYTES])
    bits.take(9)  # random access, type
    version = bits.take(7) >> 3 if bits.take(1) else 1
    if bits.take(4) == 15:  # shape of a pixel, in its own words
        bits.take(16)
    if bits.take(1):  # control parameters
        bits.take(3)
        if bits.take(1):
            bits.take(79)
    if bits.take(2) == 3 and version != 1:  # grey-scale shape
        bits.take(4)
    bits.take(1)
    ticks = bits.take(16)
    bits.take(1)
    fixed = bits.take(1)
    return Layer(ticks, bits.take(_tick_bits(ticks)) if fixed else 0)


def _tick_bits(ticks: int) -> int:
    return max(1, (ticks - 1).bit_length())


def plane(data: bytes, within: Layer | None) -> Plane:
    """Read a VOP header.

    Args:
        data: begins with the VOP's start code.
        within: the layer in force; without it, the VOP counts as coded and its time as 0.
    """
    bits = _Bits(data[len(VOP) : len(VOP) + _HEADER_BYTES])
    kind, seconds = bits.take(2), 0
    while bits.take(1):
        seconds += 1
    if within is None or not within.ticks or not bits.take(1):
        return Plane(kind, True, 0, 0, 0)
    ticks = bits.take(_tick_bits(within.ticks))
    coded = not bits.take(1) or bits.take(1) == 1  # a marker bit of 0: the layer does not fit
    return Plane(kind, coded, seconds, ticks, bits.take(1) if kind in (PREDICTED, SPRITE) else 0)


def leading(kinds: Iterable[int]) -> tuple[int, int]:
    """Count the pictures at a stream's beginning that have no reference.

    Returns:
        How many come before the first I-VOP, and how many B-VOPs come right behind it. Decoders
        make up a grey reference for the former and leave the latter out in silence.
    """
    before = behind = 0
    kinds = iter(kinds)
    for kind in kinds:
        if kind == INTRA:
            break
        before += 1
    for kind in kinds:
        if kind != BIDIRECTIONAL:
            break
        behind += 1
    return before, behind


def rate(data: bytes, spans: np.ndarray, vops: np.ndarray) -> Fraction | None:
    """Pictures per second by the times of the first VOPs; None where they do not tell.

    Args:
        data, spans, vops: as for :func:`coded`.
    """
    within, clock, clock_before, times = None, 0, 0, []
    for begin, vop in zip(spans[:_TIMED, 0].tolist(), vops[:_TIMED].tolist(), strict=True):
        header = data[begin:vop]
        within = layer(header) or within
        if within is None or not within.ticks:
            return None
        if found := _CLOCK.search(header):
            bits = _Bits(found[1])
            clock = bits.take(5) * 3600 + bits.take(6) * 60 + 0 * bits.take(1) + bits.take(6)
        here = plane(data[vop : vop + _HEADER_BYTES], within)
        start = clock_before if here.kind == BIDIRECTIONAL else clock
        times.append((start + here.seconds) * within.ticks + here.ticks)
        if here.kind != BIDIRECTIONAL:
            clock_before, clock = clock, clock + here.seconds
    if within is not None and within.period:
        return Fraction(within.ticks, within.period)
    steps = np.diff(np.unique(times))
    steps = steps[steps <= 2 * np.median(steps)] if len(steps) else steps  # no jump of the clock
    return Fraction(within.ticks * len(steps), int(steps.sum())) if len(steps) else None


class Pictures(NamedTuple):
    """The coded VOPs of a file, in file order."""

    spans: np.ndarray  # int64 (N, 2): first byte and the one behind the last, headers included
    headers: np.ndarray  # int64 (N, 2): bytes of the latest headers with a VOL before; 0, 0 of none
    kept: np.ndarray  # int64 (N,): the numbers that these had among all spans given


def coded(
    data, spans: np.ndarray, vops: np.ndarray, suspects: Sequence[int], first: Layer | None
) -> Pictures:
    """Drop the spans without a coded VOP, and find the headers in force.

    Args:
        data: the file's bytes.
        spans: int64 ``(N, 2)``, in file order.
        vops: int64 ``(N,)``: where each span's VOP begins; -1 of a span without one.
        suspects: spans to look at, in order: those that may have headers or no picture.
        first: the layer in force at the beginning.
    """
    within, headers = first, np.zeros_like(spans)
    keep = np.ones(len(spans), bool)
    for n in suspects:
        begin, end = spans[n].tolist()
        vop = int(vops[n])
        header = data[begin : end if vop < 0 else vop]
        if (changed := layer(header)) is not None:
            within = changed
            headers[n:] = begin, begin + len(header)
        keep[n] = vop >= 0 and (end - begin > NOT_CODED_BYTES or plane(data[vop:end], within).coded)
    return Pictures(spans[keep], headers[keep], np.flatnonzero(keep))


def _start_codes(byte: np.ndarray, at: int) -> np.ndarray:
    """Where start codes begin among the :data:`_PIECE` bytes from ``at`` on."""
    piece = byte[at : at + _PIECE + 3]
    starts = np.flatnonzero(piece[2:-1] == 1)  # far faster than a search for all three bytes
    return starts[(piece[starts] == 0) & (piece[starts + 1] == 0)] + at


def scan(data) -> tuple[np.ndarray, np.ndarray]:
    """Cut a bare stream into one span per VOP, as FFmpeg's parser does.

    Returns:
        Spans and VOPs as for :func:`coded`. What comes between two VOPs belongs to the second.
    """
    byte = np.frombuffer(data, np.uint8)
    starts = np.concatenate([_start_codes(byte, at) for at in range(0, len(byte), _PIECE)])
    codes = byte[starts + 3]
    inside = (codes == 0xB7) | (codes == 0xB8)  # do not end a VOP
    starts, codes = starts[~inside], codes[~inside]
    vops = np.flatnonzero(codes == VOP[3])
    begins = np.concatenate([[0], starts[vops[:-1] + 1]])[: len(vops)]
    return np.stack([begins, np.append(begins[1:], len(byte))[: len(vops)]], 1), starts[vops]
