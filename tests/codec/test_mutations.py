"""Files damaged at random: never a crash, a hang, or a frame that FFmpeg does not give."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from dmclib import codec, paths
from tests.codec import mutants
from tests.codec.material import foreign, moving_pictures

# container -> codec, pixel format, settings
FOREIGN = {
    "h264.mp4": ("libx264", "yuv420p", {"g": "8", "threads": "1"}),
    "h264.ts": ("libx264", "yuv420p", {"g": "8", "bf": "0", "threads": "1"}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {"g": "8", "bf": "0"}),
    "mpeg4.mkv": ("mpeg4", "yuv420p", {"g": "8", "bf": "0"}),
    "mjpeg.avi": ("mjpeg", "yuvj420p", {}),
    "png.mov": ("png", "rgb24", {}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {"g": "8", "threads": "1"}),
    "mpeg2.mpg": ("mpeg2video", "yuv420p", {"g": "8"}),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Ten small videos in eight containers and six codecs."""
    folder = tmp_path_factory.mktemp("sources")
    for suffix in ("mp4", "m4v"):
        codec.encode(moving_pictures(20), folder / f"ours.{suffix}", gop=8)
    for name, (encoder, pix_fmt, options) in FOREIGN.items():
        foreign(folder / name, encoder, pix_fmt=pix_fmt, **options)
    return sorted(folder.iterdir())


def test_the_sources_themselves_are_read_without_a_fault(sources):
    for path in sources:
        assert mutants.examine(path) == (True, [])


@pytest.mark.parametrize("count", [50, pytest.param(500, marks=pytest.mark.slow)])
def test_damaged_files_give_ffmpegs_frames_or_a_sentence(sources, tmp_path, count):
    seed = int(os.environ.get("DMC_MUTATION_SEED", "0"))
    rng = np.random.default_rng(seed)
    files = []
    for n in range(count):
        source = sources[n % len(sources)]
        files.append(tmp_path / f"{n:03d}_{source.name}")
        files[-1].write_bytes(mutants.damage(source.read_bytes(), rng))
    workers = os.cpu_count() or 1
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.codec.mutants", *map(str, files[worker::workers])],
            cwd=paths.ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for worker in range(workers)
    ]
    found = [json.loads(line) for child in children for line in child.communicate()[0].splitlines()]
    read = sum(complete for _, complete, _ in found)
    print(f"seed {seed}: {len(found)} damaged files, {read} read, {len(found) - read} refused")
    faults = [f"{name}: {'; '.join(said)}" for name, _, said in found if said]
    assert not faults, f"seed {seed}: " + "\n".join(faults)
    assert sorted(name for name, _, _ in found) == sorted(map(str, files))
    # Otherwise the damage would be none, or so large that it shows at once.
    assert count / 10 < read < count * 9 / 10
