"""Damaged copies of small videos, each given to the codec in a process of its own.

``python -m tests.codec.mutants FILE...`` prints one line of JSON per file: its name, whether it was
read or refused, and what went wrong. It forks for each file, so that a crash or a hang is that
file's alone and costs no new start.
"""

import json
import os
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

import av
import numpy as np

from dmclib import codec
from dmclib.errors import VideoError

PATIENCE = 10  # seconds of the processor for one call; six times that, on the clock, for a file


def damage(data, rng):
    """A copy of some bytes, damaged in one of the ways that disks, networks and tools have."""
    data = bytearray(data)
    begin = int(rng.integers(len(data)))
    length = int(2 ** rng.uniform(0, np.log2(len(data) / 4)))
    piece = data[begin : begin + length]
    match rng.integers(7):
        case 0:
            for at in rng.integers(len(data), size=rng.integers(1, 20)):
                data[at] ^= 1 << rng.integers(8)
        case 1:
            for at in rng.integers(len(data), size=rng.integers(1, 20)):
                data[at] = rng.integers(256)
        case 2:
            data[begin : begin + length] = bytes(len(piece))
        case 3:
            del data[begin : begin + length]
        case 4:
            data[begin:begin] = piece
        case 5:
            del data[begin:]
        case 6:
            at = int(rng.integers(len(data)))
            data[at : at + length] = piece
    return bytes(data)


def bare_frames(path):
    """FFmpeg's own decoding: RGB of its frames, and whether it had doubts about any.

    Of damaged pictures some decoders leave parts unwritten, so that an older picture shows through.
    Which one depends on what memory is free: a frame is None if it differs when all are kept.
    """
    pairs, kept, doubts = [], [], False
    for keep in (False, True):
        frames = []
        try:
            with av.open(f"file:{path}") as container:
                stream = container.streams.best("video")
                stream.codec_context.thread_count = 1
                for packet in container.demux(stream):
                    if packet.size or packet.dts is None:  # an empty sample is not the end
                        for frame in packet.decode():
                            doubts |= frame.is_corrupt
                            frames.append(frame.to_ndarray(format="rgb24"))
                            kept += [frame] * keep
        except Exception:
            doubts = True
        pairs.append(frames)
    return [a if np.array_equal(a, b) else None for a, b in zip(*pairs, strict=True)], doubts


def examine(path):
    """Give a file to the codec's calls; whether it was read, and what went wrong."""
    faults, target = [], path.with_name(f"{path.stem}.target.mp4")
    warnings.simplefilter("ignore")
    bare, doubts = bare_frames(path)
    _tried(faults, "probe", lambda: [codec.probe(path)])
    shown, complete = _tried(faults, "decode_rgb", codec.decode_rgb, path)
    _compare(faults, "decode_rgb", shown, complete, bare, doubts)
    for accumulate in (False, True):
        name = f"read_frames, accumulate={accumulate}"
        read, whole = _tried(faults, name, codec.read_frames, path, accumulate=accumulate)
        _compare(faults, name, [f.rgb for f in read], whole, bare, doubts)
        for n in {0, len(read) // 2, len(read) - 1} if read else ():
            name = f"read_at {n}, accumulate={accumulate}"
            found, _ = _tried(faults, name, codec.read_at, path, [n], accumulate=accumulate)
            for array in ("rgb", "motion", "residual") if found else ():
                if not np.array_equal(getattr(found[0], array), getattr(read[n], array)):
                    faults.append(f"{name}: another {array} than read_frames")
    size = (64, 48)
    _, written = _tried(faults, "transcode", lambda: [codec.transcode(path, target, size=size)])
    if written != complete or written != target.exists():
        faults.append(f"transcode: {written}, decode_rgb: {complete}, a file: {target.exists()}")
    elif written and codec.probe(target).frames != len(shown):
        faults.append(f"transcode: {codec.probe(target).frames} frames of {len(shown)}")
    target.unlink(missing_ok=True)
    return complete, faults


def _tried(faults, name, call, *arguments, **options):
    """What a call gives, and whether it ended without an error; notes what must not happen."""
    start, result, complete = time.process_time(), [], True
    try:
        for item in call(*arguments, **options):
            result.append(item)
    except VideoError:
        complete = False
    except Exception:
        complete = False
        faults.append(f"{name}: {traceback.format_exc()}")
    if time.process_time() - start > PATIENCE:
        faults.append(f"{name}: takes {time.process_time() - start:.0f} s")
    return result, complete


def _compare(faults, name, ours, complete, bare, doubts):
    """Frames that are given must be FFmpeg's; all of them, unless there is an error."""
    if complete and doubts:
        faults.append(f"{name}: FFmpeg has doubts that were not reported")
    # Frames before the first I-frame and a last one shown twice are FFmpeg's alone.
    starts = range(len(bare) - len(ours) + 1) if complete else range(len(bare))
    for start in starts:
        pairs = zip(ours, bare[start:], strict=False)
        if all(b is None or np.array_equal(a, b) for a, b in pairs):
            return
    if ours:
        faults.append(f"{name}: {len(ours)} frames differ from FFmpeg's {len(bare)}")


def _in_a_child(path):
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(write_end, json.dumps(examine(path))[:60000].encode())
        finally:
            os._exit(0)
    os.close(write_end)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.alarm(6 * PATIENCE)
    _, status = os.waitpid(child, 0)
    signal.alarm(0)
    with os.fdopen(read_end, "rb") as pipe:
        said = pipe.read()
    if os.WIFSIGNALED(status):
        return False, [f"ended by {signal.Signals(os.WTERMSIG(status)).name}"]
    return json.loads(said) if said else (False, ["ended without a word"])


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(json.dumps([name, *_in_a_child(Path(name))]), flush=True)
