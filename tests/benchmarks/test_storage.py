import json

import pytest

from benchmarks import storage as bench_storage
from dmclib import paths

LOSSY = {"JPEG, quality 95", "JPEG, quality 100"}


@pytest.fixture
def few(monkeypatch):
    """A clip of few fields, so that a row takes no time."""
    monkeypatch.setattr(bench_storage, "FIELDS", 10)


@pytest.fixture
def drawn(few, monkeypatch):
    monkeypatch.setattr(paths, "data_root", lambda: None)


def test_each_candidate_has_a_row_and_only_jpeg_loses_anything(drawn):
    rows = bench_storage.rows(repeats=2)
    assert [row["candidate"] for row in rows] == list(bench_storage.candidates())
    assert rows[0]["candidate"] == "flowstore"
    for row in rows:
        if "needs" in row:
            continue
        assert (row["error_px"] > 0) == (row["candidate"] in LOSSY), row
        assert 0 <= row["read_lower_ms"] <= row["read_ms"] <= row["read_upper_ms"]
        assert row["open_ms"] > 0
        assert row["write_ms"] > 0
    measured = {row["candidate"]: row for row in rows if "needs" not in row}
    raw = measured["bytes as they are"]["kb_exact"]
    assert raw == 2 * 256 * 256 / 1000
    assert measured["flowstore"]["kb_exact"] < raw / 4
    json.dumps(rows, allow_nan=False)


def test_a_candidate_without_its_library_says_what_it_needs(drawn, monkeypatch):
    monkeypatch.setattr(bench_storage, "_installed", lambda library: False)
    monkeypatch.setattr(bench_storage.av, "codecs_available", set())
    rows = {row["candidate"]: row for row in bench_storage.rows(repeats=1)}
    assert "zarr" in rows["zarr, a chunk a field, zipped"]["needs"]
    assert "OpenCV" in rows["PNG"]["needs"]
    assert "libx264" in rows["H.264, lossless, groups of six"]["needs"]
    assert "needs" not in rows["flowstore"]


@pytest.mark.data
@pytest.mark.slow
def test_real_clips_are_stored_by_both_estimators(few, shared_data):
    pytest.importorskip("cv2")
    if not (shared_data / "ucf101-4class").is_dir():
        pytest.skip("the UCF-101 clips are not among the real ones")
    row = bench_storage.rows(clips=1, repeats=1)[0]
    assert row["clip"] == "UCF-101, 340x256, 1 clips, 10 pairs by DIS, 6 by TV-L1"
    assert 0 < row["kb_dis"] < 60
    assert 0 < row["kb_tvl1"] < 60
