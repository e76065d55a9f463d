import sys

import numpy as np
import pytest

from benchmarks import codec as bench_codec
from dmclib import paths
from dmclib.codec import encode, packets
from dmclib.errors import VideoError
from dmclib.speed import clips

PARTS = ["decode", "RGB", "vectors of blocks", "their field", "prediction", "reference kept"]
PARTS += ["residual and the rest"]


@pytest.fixture
def clip(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (40, 32, 48, 3), dtype=np.uint8)
    encode(pictures, tmp_path / "clip.mp4")
    return tmp_path / "clip.mp4"


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """An interpreter that has a package mvextractor, which reads five frames and no more."""
    package = tmp_path / "site" / "mvextractor"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "videocap.py").write_text(
        "class VideoCap:\n"
        "    def open(self, path): self.left = 5\n"
        "    def read(self): self.left -= 1; return (self.left >= 0,)\n"
        "    def release(self): pass\n"
    )
    monkeypatch.setenv(bench_codec.OTHER_PYTHON, sys.executable)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))


def test_reading_is_timed_beside_bare_decoding_of_the_same_frames(clip, monkeypatch):
    monkeypatch.delenv(bench_codec.OTHER_PYTHON, raising=False)
    every, three, _, *parts = bench_codec.rows(clip, repeats=2)
    assert [every["task"], three["task"]] == ["every frame", "three P-frames"]
    assert every["frames"] == 40
    # GOPs of 12, 12, 12 and 4 frames: P-frames 2 of the second, 5 of the third and 2 of the last.
    assert three["frames"] == 3 + 6 + 3
    for row in (every, three):
        assert row["ratio"] == row["ours_ms"] / row["bare_ms"]
        assert row["ours_lower_ms"] <= row["ours_ms"] <= row["ours_upper_ms"]
    assert [row["task"] for row in parts] == [f"a frame: {part}" for part in PARTS]
    assert min(row["part_lower_ms"] for row in parts) > 0


def test_a_clip_is_decoded_by_its_path_whatever_its_name(clip, monkeypatch):
    monkeypatch.chdir(clip.parent)
    clip.rename("12:30.mp4")
    clips.decode_bare("12:30.mp4", range(40))


def test_the_other_package_is_timed_where_an_interpreter_has_it(clip, elsewhere):
    row = bench_codec.rows(clip, repeats=2)[2]
    assert row["frames"] == 5
    assert row["ratio"] == row["ours_ms"] / row["theirs_ms"]


@pytest.mark.parametrize("python", [None, sys.executable, "/nowhere/python"])
def test_without_the_other_package_its_row_says_what_it_needs(clip, monkeypatch, python):
    monkeypatch.delenv(bench_codec.OTHER_PYTHON, raising=False)
    if python:
        monkeypatch.setenv(bench_codec.OTHER_PYTHON, python)
    row = bench_codec.rows(clip, repeats=1)[2]
    assert "motion-vector-extractor" in row["needs"]
    assert "ours_ms" not in row


def test_a_long_film_is_read_near_its_end_beside_one_of_its_parts(tmp_path):
    row = bench_codec._in_a_film(tmp_path, repeats=1, parts=3)
    assert (
        row["frames"]
        == len(packets(tmp_path / "film.m4v"))
        == 3 * len(packets(tmp_path / "part.m4v"))
    )
    assert row["ratio"] == row["ours_ms"] / row["theirs_ms"]


def test_a_clip_is_drawn_where_the_real_ones_are_absent(monkeypatch):
    monkeypatch.setattr(paths, "data_root", lambda: None)
    with clips.default_clip() as path:
        assert path.name == "drawn.m4v"
        assert [packet.is_key for packet in packets(path)] == ([True] + [False] * 11) * 10
        assert path.stat().st_size > 100_000
    assert not path.exists()


def test_a_clip_too_short_to_choose_from_is_refused(tmp_path):
    encode(np.zeros((20, 32, 48, 3), np.uint8), tmp_path / "clip.mp4")
    with pytest.raises(VideoError, match="has 2 GOPs with P-frames"):
        bench_codec.rows(tmp_path / "clip.mp4")
