import json

import numpy as np
import pytest

from benchmarks import flow as bench_flow
from dmclib import flow, paths
from dmclib.flow import raft
from dmclib.speed import timing


@pytest.fixture
def quick(monkeypatch):
    """Small pictures, no real clips, no RAFT weights."""
    monkeypatch.setattr(bench_flow, "WIDTH", 48)
    monkeypatch.setattr(bench_flow, "HEIGHT", 40)
    monkeypatch.setattr(paths, "data_root", lambda: None)
    monkeypatch.setattr(raft, "weights_path", lambda network: paths.ROOT / f"{network}-absent.pth")


def test_every_method_has_a_row_that_measures_or_says_what_it_needs(quick):
    pytest.importorskip("cv2.optflow")
    rows = bench_flow.rows(repeats=1)

    json.dumps(rows)
    pairs = {row["method"].partition(",")[0]: row for row in rows if row["task"] == "a pair"}
    assert pairs.keys() == set(flow.METHODS)
    for method in ("tvl1", "farneback", "dis"):
        assert pairs[method]["pair_ms"] > 0
        assert pairs[method]["pair_lower_ms"] <= pairs[method]["pair_upper_ms"]
    assert pairs["tvl1"]["times_tvl1"] == 1
    assert pairs["raft"]["needs"] == "the weights raft-absent.pth"
    assert rows[-1]["needs"].startswith("the real clips")


def test_a_batchs_time_is_shared_by_its_pairs():
    times = {
        "tvl1, one core": timing.Timing(1.0, 1.0, 1.0, 3),
        "all": timing.Timing(2.0, 1.0, 3.0, 3),
    }
    row = bench_flow._row("all", times, 64)
    assert row["pair_ms"] == 1e3 * 2 / 64
    assert row["times_tvl1"] == 32


@pytest.mark.data
def test_the_same_seed_draws_the_same_pairs(shared_data):
    (a, b), (c, d) = (next(bench_flow.real_pairs(shared_data, 1, seed=3)) for _ in range(2))
    assert a.shape == b.shape == (256, 340, 3)
    assert a.dtype == np.uint8
    np.testing.assert_array_equal([a, b], [c, d])
    assert (a != b).any()
