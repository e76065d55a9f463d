import threading

import numpy as np
import pytest
import torch
from torch import nn

from dmclib import flow
from dmclib.codec import encode
from dmclib.errors import DMCError
from dmclib.speed import end_to_end, generator, table_3, timing
from dmclib.speed.clips import drifting_texture
from dmclib.speed.timing import Timing


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "clip.m4v"
    encode(drifting_texture(24, height=64, width=96), path)
    return path


def taking(seconds):
    return Timing(seconds, seconds / 2, seconds * 2, 3)


@pytest.fixture
def known(monkeypatch):
    """Networks that take known times: 120 ms an I-frame's, 12 and 24 ms the small ones, ..."""
    alone = {
        "GoogLeNet RGB": 5, "GoogLeNet flow": 6, "ResNet-152 RGB": 120, "ResNet-152 flow": 130,
        "ResNet-18 vectors": 12, "ResNet-18 residual": 24, "ResNet-18 flow": 36,
        "generator": 8, "ResNet-18 cue": 40, "generator + ResNet-18": 48,
    }  # fmt: skip
    monkeypatch.setattr(table_3, "networks", lambda *_, **__: dict.fromkeys(alone, int))
    eager = {f"{name}, eager": 2 * ms for name, ms in alone.items()}

    def measure(calls, **_):
        both = {name: 100 for name in calls if isinstance(name, tuple)}
        return {name: taking(ms / 1e3) for name, ms in (alone | eager | both).items()}

    monkeypatch.setattr(table_3, "measure", measure)
    return {"RGB": taking(0.001), "TV-L1": taking(1), "vectors and residual": taking(0.002)}


def test_a_frame_costs_a_twelfth_of_the_i_frame_and_eleven_twelfths_of_a_p_frame(known):
    found = table_3.table_3a(known, batches=[1, 4])
    rows = {(r["method"], r["batch"]): r for r in found if r["table"] == "3a"}
    coviar, dmc = rows["CoViAR", 1], rows["DMC-Net", 1]
    assert coviar["preprocess_ms"] == pytest.approx(2)
    assert coviar["networks_ms"] == pytest.approx((120 + 11 * (12 + 24)) / 12)
    assert coviar["at_once_ms"] == pytest.approx((120 + 11 * 100) / 12)
    assert coviar["total_ms"] == pytest.approx(2 + 43)
    assert coviar["eager_networks_ms"] == pytest.approx(2 * 43)
    assert coviar["networks_lower_ms"] == pytest.approx(43 / 2)
    assert dmc["networks_ms"] == pytest.approx((120 + 11 * (12 + 24 + 48)) / 12)
    assert dmc["fps"] == pytest.approx(1000 / (2 + 87))
    assert rows["CoViAR + TV-L1", 1]["preprocess_ms"] == pytest.approx(1002)
    assert rows["two-stream GoogLeNet", 1]["networks_ms"] == pytest.approx(11)
    # A call's time is that of the batch; preparation is a frame's already.
    assert rows["CoViAR", 4]["total_ms"] == pytest.approx(2 + 43 / 4)


def test_the_parts_of_a_frame_add_up_to_its_total(known):
    found = table_3.table_3a(known, batches=[4])
    for row in (row for row in found if row["table"] == "3a"):
        parts = [
            r["part_ms"] for r in found if r["table"] == "parts" and r["method"] == row["method"]
        ]
        assert sum(parts) == pytest.approx(row["total_ms"])


def test_at_once_means_that_none_waits_for_another():
    together = threading.Barrier(3)
    before = torch.get_num_threads()
    calls = [lambda: together.wait(timeout=20)] * 3
    with table_3.at_once(calls, "cpu") as call:
        call()
        call()
        assert torch.get_num_threads() == before


def test_torchs_threads_are_shared_out_among_those_at_once():
    seen = []
    with timing.pinned(4):
        calls = [lambda: seen.append(torch.get_num_threads())] * 2
        with table_3.at_once(calls, "cpu") as call:
            call()
            assert torch.get_num_threads() == 4
    assert seen == [2, 2]


def test_an_error_at_once_is_an_error():
    def fail():
        raise DMCError("no.")

    with table_3.at_once([int, fail], "cpu") as call, pytest.raises(DMCError):
        call()


def test_flow_methods_are_timed_alone_and_with_the_classifier_behind():
    chosen = ["DIS", "DMC generator"]
    rows = table_3.table_3b(size=128, repeats=1, methods=chosen, device="cpu")
    assert [row["method"] for row in rows] == chosen
    behind = [row["with_resnet18_ms"] - row["ms"] for row in rows]
    assert behind[0] == pytest.approx(behind[1])
    assert behind[0] > 0
    eager = [row["with_eager_resnet18_ms"] - row["ms"] for row in rows]
    assert eager[0] == pytest.approx(eager[1])
    assert eager[0] != behind[0]


def test_a_method_that_is_not_installed_says_what_it_needs(monkeypatch):
    def missing(*_, **__):
        raise DMCError("OpenCV's contrib build.")

    monkeypatch.setattr(flow, "estimate", missing)
    rows = table_3.table_3b(size=128, repeats=1, methods=["DIS", "DMC generator"])
    assert rows[0] == {"table": "3b", "method": "DIS", "needs": "OpenCV's contrib build."}
    assert rows[1]["ms"] > 0


def test_every_network_of_table_3_sees_the_planes_it_should():
    planes = {}
    for name, call in table_3.networks(64, 2, "cpu", lambda network: network).items():
        inputs = call.__wrapped__.args
        planes[name] = [tuple(x.shape[:2]) for x in inputs]
        assert call() is not None
    assert planes["GoogLeNet flow"] == planes["ResNet-152 flow"] == [(2, 10)]
    assert planes["generator + ResNet-18"] == [(2, 2), (2, 3)]


def test_the_least_time_of_a_cue_follows_from_what_the_machine_gives():
    floor = generator.generator_floor({"gflops": 100.0, "gb_per_s": 10.0}, size=224)
    # 228.5 million multiply-adds, two operations each; seven planes of four-byte numbers.
    assert floor["compute_ms"] == pytest.approx(2 * 4554 * 224**2 / 100e9 * 1e3)
    assert floor["memory_ms"] == pytest.approx(7 * 4 * 224**2 / 10e9 * 1e3)
    assert floor["floor_ms"] == floor["compute_ms"]


@pytest.fixture
def no_limits(monkeypatch):
    monkeypatch.setattr(generator, "limits", lambda _: {"gflops": 1.0, "gb_per_s": 1.0})


def test_the_generators_rows_hold_each_form_of_one_network_beside_the_papers(
    monkeypatch, no_limits
):
    monkeypatch.setattr(generator, "compiled", lambda network: network)  # takes half a minute
    rows = generator.rows_on("cpu", batches=[1, 3], size=32, repeats=1)
    forms = ["summed", "torch.compile", "fast"]
    assert [(row["batch"], row["form"]) for row in rows] == [(n, f) for n in (1, 3) for f in forms]
    for row in rows:
        assert row["largest_difference"] < 1e-4
        assert row["gain"] == row["eager_ms"] / row["ours_ms"]


def test_a_compiler_that_fails_costs_its_own_row_alone(monkeypatch, no_limits):
    def fails(network):
        return lambda motion, residual: 1 / 0

    monkeypatch.setattr(generator, "compiled", fails)
    rows = generator.rows_on("cpu", batches=[2], size=32, repeats=1)
    assert [row["form"] for row in rows] == ["torch.compile", "summed", "fast"]
    assert "ZeroDivisionError" in rows[0]["needs"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU")
def test_the_generators_rows_say_that_they_need_a_gpu(monkeypatch):
    monkeypatch.setattr(generator, "rows_on", lambda device, **_: [{"device": device}])
    assert generator.rows()[1:] == [{"task": "cue", "device": "cuda", "needs": "a CUDA GPU"}]


def test_the_path_over_flow_scores_the_frames_that_it_is_given(clip):
    seen = []

    class Classifier(nn.Module):
        def forward(self, field):
            seen.append(field)
            return field.mean((2, 3))

    end_to_end.by_flow(clip, Classifier(), 5, method="dis", batch=4, device="cpu")()
    assert [tuple(x.shape) for x in seen] == [(4, 2, 224, 224), (1, 2, 224, 224)]
    # The background drifts right and down: the field says so, in the sign of the whole suite.
    assert np.all(torch.cat(seen).median(3).values.median(2).values.numpy() > 0)


def test_both_ways_and_the_floor_are_timed_frame_by_frame(clip):
    rows = end_to_end.rows(clip, frames=4, batch=4, repeats=1)
    assert rows[0]["ours_ms"] == rows[3]["ours_ms"] == rows[4]["ours_ms"]
    assert rows[1]["ours_ms"] == rows[4]["theirs_ms"]
    for row in rows:
        assert row["gain"] == row["theirs_ms"] / row["ours_ms"]


def test_curves_have_a_row_for_each_point_and_method(clip):
    rows = end_to_end.curves(clip, frames=[1, 2], sizes=[128], batches=[2], repeats=1, device="cpu")
    counted = {axis: sum(row["axis"] == axis for row in rows) for axis in ("frames", "size")}
    assert counted == {"frames": 4, "size": 4}
    assert {row["x"] for row in rows if row["axis"] == "batch"} == {2}
    assert all(row["lower_ms"] <= row["ms"] <= row["upper_ms"] for row in rows)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_streams_are_joined_before_the_call_ends():
    a, b = (torch.randn(1024, 1024, device="cuda") for _ in "ab")
    made = {}
    calls = [lambda k=k: made.update({k: a @ b}) for k in range(3)]
    with table_3.at_once(calls, "cuda") as call:
        call()
    assert all(torch.equal(product, a @ b) for product in made.values())
