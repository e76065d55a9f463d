from types import SimpleNamespace

import pytest
import torch

from dmclib import machine
from dmclib.speed import timing
from dmclib.speed.timing import Timing, measure


class Clock:
    """Stands still, except where a function says how long it took."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """Wall time on a machine without a GPU."""
    clock = Clock()
    monkeypatch.setattr(timing.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=clock))
    return clock


def test_calls_alternate_and_the_warm_up_is_not_counted(clock):
    calls = []

    def taking(name, seconds):
        def call():
            calls.append(name)
            clock.now += seconds.pop(0)

        return call

    functions = {
        "a": taking("a", [50.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        "b": taking("b", [50.0, 10.0, 10.0, 10.0, 10.0, 90.0]),
    }
    timings = measure(functions, repeats=5, warmup=1)
    assert calls == ["a", "b"] * 6
    assert timings == {"a": Timing(3.0, 2.0, 4.0, 5), "b": Timing(10.0, 10.0, 10.0, 5)}


def test_a_functions_seconds_hold_those_of_what_it_calls():
    def inner():
        sum(range(10_000))

    def outer():
        inner()
        inner()

    spent = timing.cumulative(outer)
    assert spent["test_timing.outer"] >= spent["test_timing.inner"] > 0
    assert spent["test_timing.another"] == 0


def test_at_least_one_call_is_timed():
    with pytest.raises(ValueError, match="repeats is 0"):
        measure({"a": lambda: None}, repeats=0)


def test_on_a_gpu_a_call_is_the_time_between_two_events_on_its_stream(monkeypatch):
    clock, log = Clock(), []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = clock.now
            log.append("event")

        def synchronize(self):
            clock.now += 100.0  # the host learns of it much later; that is nobody's time

        def elapsed_time(self, later):
            return 1e3 * (later.at - self.at)

    def call():
        clock.now += 2.0
        log.append("call")

    monkeypatch.setattr(timing.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(timing.torch.cuda, "synchronize", lambda: log.append("wait"))
    monkeypatch.setattr(timing.torch.cuda, "Event", Event)
    taken = measure({"a": call}, repeats=3, warmup=1)
    assert taken == {"a": Timing(2.0, 2.0, 2.0, 3)}
    assert log == ["wait", "event", "call", "event"] * 4


def test_a_batch_is_shared_among_its_frames():
    assert Timing(0.008, 0.004, 0.016, 5).ms("ours", per=4) == {
        "ours_ms": 2.0,
        "ours_lower_ms": 1.0,
        "ours_upper_ms": 4.0,
    }


def test_the_slowest_call_has_the_lowest_rate():
    rate = Timing(0.5, 0.25, 1.0, 5).rate("frames_per_second", 6)
    assert rate == {"frames_per_second": 12.0, "lower": 6.0, "upper": 24.0}


def test_threads_are_held_and_put_back():
    before = torch.get_num_threads()
    with timing.pinned(before + 2):
        assert torch.get_num_threads() == before + 2
        assert f"{before + 2} threads" in machine.in_words()
    assert torch.get_num_threads() == before


def test_what_is_timed_needs_no_gradients():
    weight = torch.ones(2, requires_grad=True)
    assert not timing.forward(lambda x: x * weight, torch.ones(2))().requires_grad
