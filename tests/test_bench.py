import numpy as np
import pytest

from dmclib import bench
from dmclib.codec import encode
from dmclib.errors import VideoError


def test_both_reading_tasks_are_timed_beside_bare_decoding(tmp_path, capsys):
    pictures = np.random.default_rng(0).integers(0, 256, (40, 32, 48, 3), dtype=np.uint8)
    encode(pictures, tmp_path / "clip.mp4")
    rows = bench.codec(tmp_path / "clip.mp4", repeats=2)
    assert [row["task"] for row in rows] == list(bench.LIMITS)
    assert rows[0]["frames"] == 40
    # GOPs of 12, 12, 12 and 4 frames: P-frames 2 of the second, 5 of the third and 2 of the last.
    assert rows[1]["frames"] == 3 + 6 + 3
    printed = capsys.readouterr().out
    for row in rows:
        assert row["ratio"] == row["ours_ms"] / row["bare_ms"]
        assert f"{row['ratio']:.2f} times (limit {row['limit']:g})" in printed


def test_a_clip_is_drawn_where_the_real_ones_are_absent(tmp_path, monkeypatch):
    monkeypatch.setattr(bench.paths, "data_root", lambda: None)
    monkeypatch.setattr(
        bench, "_codec_rows", lambda clip, repeats: [clip.name, clip.stat().st_size]
    )
    name, size = bench.codec()
    assert name == "drawn.m4v"
    assert size > 100_000


def test_a_clip_too_short_to_choose_from_is_refused(tmp_path):
    encode(np.zeros((20, 32, 48, 3), np.uint8), tmp_path / "clip.mp4")
    with pytest.raises(VideoError, match="has 2 GOPs with P-frames"):
        bench.codec(tmp_path / "clip.mp4")
