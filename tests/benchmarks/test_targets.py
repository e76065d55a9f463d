import pytest

from benchmarks import suites, targets
from benchmarks.targets import Target

AT_MOST = Target("reading", "codec", {"task": "read"}, "ratio", 2.0)
AT_LEAST = Target("frames", "codec", {}, "fps", 30, at_least=True)
ROWS = [
    {"task": "read", "clip": "a", "ratio": 1.5, "fps": 40.0},
    {"task": "read", "clip": "b", "ratio": 2.5, "fps": 35.0},
    {"task": "write", "ratio": 9.0},
    {"task": "read", "needs": "a GPU", "fps": float("nan")},
]


def test_the_worst_of_the_rows_that_are_meant_counts():
    assert AT_MOST.figure(ROWS) == 2.5
    assert AT_LEAST.figure(ROWS) == 35.0
    assert AT_MOST.figure([]) is None


@pytest.mark.parametrize(
    ("target", "figure", "verdict"),
    [
        (AT_MOST, 2.0, "reached"),
        (AT_MOST, 2.01, "missed"),
        (AT_LEAST, 30, "reached"),
        (AT_LEAST, 29.9, "missed"),
        (AT_LEAST, None, "not measured"),
    ],
)
def test_a_bound_is_kept_or_not(target, figure, verdict):
    assert target.holds(figure) == verdict


def test_each_target_stands_beside_its_figure_and_the_one_before(monkeypatch):
    monkeypatch.setattr(targets, "TARGETS", (AT_MOST, AT_LEAST, Target("x", "flow", {}, "ms", 1)))
    before = {"codec": [{"task": "read", "ratio": 3.0}]}
    first, second = targets.table({"codec": ROWS[:1]}, before)
    assert first == {
        "suite": "codec",
        "target": "reading",
        "bound": "at most 2",
        "figure": 1.5,
        "before": 3.0,
        "verdict": "reached",
    }
    assert (second["bound"], second["before"]) == ("at least 30", None)


def test_every_target_is_of_a_suite():
    assert {target.suite for target in targets.TARGETS} <= set(suites.SUITES)
