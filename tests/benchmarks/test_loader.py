import pytest

from benchmarks import loader as bench_loader
from dmclib import codec, paths
from dmclib.data import loader

PARTS = ["decode", "vectors", "flow", "residual", "transform"]


@pytest.fixture
def few(monkeypatch):
    """Two puppets, whatever else is at hand."""
    monkeypatch.setattr(paths, "data_root", lambda: None)
    monkeypatch.setattr(bench_loader, "CLIPS", 2)
    monkeypatch.setattr(bench_loader, "PASS", 4)


def test_the_parts_of_a_sample_add_up_and_none_is_free(few, tmp_path):
    what, clips = bench_loader._prepare(tmp_path)
    assert what == "puppets"
    assert [codec.probe(clip.flow).frames + 1 for clip in clips] == [
        codec.probe(clip.path).frames for clip in clips
    ]
    parts = bench_loader._parts(loader.Segments(clips, loader.Sampling(size=32)), 1)
    assert list(parts) == [*PARTS, "whole, without transport"]
    seconds = [spent.median for spent in parts.values()]
    assert min(seconds) > 0
    assert sum(seconds[:-1]) == pytest.approx(seconds[-1])


@pytest.mark.slow
def test_every_way_of_loading_has_its_row(few):
    rows = bench_loader.rows(repeats=1)
    costs = [row["task"].removeprefix("a sample: ") for row in rows if "part_ms" in row]
    assert costs == [*PARTS, "whole, without transport", "transport"]
    rates = [row for row in rows if "samples_per_second" in row]
    assert [row["task"] for row in rates] == [
        f"samples, {how}" for how in ("in this process", "1 worker", "2 workers")
    ]
    assert all(row["lower"] <= row["samples_per_second"] <= row["upper"] for row in rates)
    assert rows[-1]["read_lower_ms"] <= rows[-1]["read_ms"] <= rows[-1]["read_upper_ms"]
    assert 0 < rows[-1]["kb"] < 2 * 256 * 256 / 1e3 / 4  # a quarter of the bytes as they are
