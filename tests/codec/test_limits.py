"""What the codec meets outside of a video: names, a full disk, too little memory."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dmclib import codec
from dmclib.errors import OutputError
from tests.codec.material import foreign, moving_pictures

NAMES = [
    "12:30.mp4",
    "2019-05-01T12:30:00.m4v",
    "http:film.mp4",
    "file:film.mp4",
    "concat:a|b.mp4",
    "pipe:1.m4v",
    "data:,film.mp4",
    "-film.mp4",
    "--.m4v",
    "a%d.mp4",
    "a%03d.m4v",
    "100%.mp4",
    "take #1 & 2?.mp4",
    'it\'s "it".mp4',
    "two\nlines.mp4",
    "[a]*.mp4",
    "größe.mp4",
    os.fsdecode(b"gr\xf6sse.mp4"),  # Latin-1, as old file systems have it
    "9:00/12:30.mp4",
    "%d/%d.mp4",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_a_path(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    codec.encode(moving_pictures(3), name)
    assert os.path.isfile(name)
    assert codec.probe(name).frames == len(codec.packets(name)) == 3
    assert len(list(codec.decode_rgb(name))) == len(list(codec.read_frames(name))) == 3
    assert [frame.index for frame in codec.read_at(name, [2, 0])] == [2, 0]
    codec.transcode(name, "again:" + os.path.basename(name), size=(50, 34))
    assert codec.probe("again:" + os.path.basename(name)).frames == 3
    left = {entry for _, _, files in os.walk(".") for entry in files}
    assert left == {os.path.basename(name), "again:" + os.path.basename(name)}


@pytest.mark.parametrize("name", ["png", "mjpeg"])
def test_a_percent_sign_does_not_ask_for_other_pictures(tmp_path, name):
    suffix = {"png": "png", "mjpeg": "jpg"}[name]
    pix_fmt = {"png": "rgb24", "mjpeg": "yuvj420p"}[name]
    made = foreign(
        tmp_path / "one.mov", name, pix_fmt=pix_fmt, frames=1, container="image2", update="1"
    )
    made.rename(tmp_path / f"p%d.{suffix}")
    (tmp_path / f"p1.{suffix}").write_bytes(b"no picture")
    assert len(list(codec.decode_rgb(tmp_path / f"p%d.{suffix}"))) == 1


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("suffix", ["mp4", "m4v"])
def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path, suffix, part):
    # No file of the child may become longer than this: the disk is full then.
    pictures = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    codec.encode(pictures, tmp_path / f"whole.{suffix}")
    limit = int(part * (tmp_path / f"whole.{suffix}").stat().st_size)
    child = os.fork()
    if not child:
        outcome = 1
        try:
            import resource
            import signal

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            codec.encode(pictures, tmp_path / f"clip.{suffix}")
        except OutputError as error:
            outcome = 0 if f"clip.{suffix}: cannot be written" in str(error) else 2
        finally:
            os._exit(outcome)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [path.name for path in tmp_path.iterdir()] == [f"whole.{suffix}"]


_PEAK = """
import sys
from dmclib import codec
codec.read_at(sys.argv[1], [1])
codec.read_at(sys.argv[1], [399], accumulate=bool(int(sys.argv[2])))
lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(lines["VmHWM"].split()[0]) / 1024)  # ru_maxrss would be the parent's at the least
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the peak")
@pytest.mark.parametrize("suffix", ["mp4", "m4v"])
def test_accumulating_over_a_long_gop_takes_no_more_memory(tmp_path, suffix):
    path = tmp_path / f"long.{suffix}"
    texture = np.tile(next(moving_pictures(1, 480, 640)), (1, 2, 1))
    frames = (texture[:, n : n + 640] for n in range(400))
    codec.encode(frames, path, gop=1000, quantizer=31)
    peaks = [
        float(subprocess.check_output([sys.executable, "-c", _PEAK, str(path), mode], text=True))
        for mode in "01"
    ]
    assert peaks[1] - peaks[0] < 64  # MiB; all pictures of the GOP together are 176
