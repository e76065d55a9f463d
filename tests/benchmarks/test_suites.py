import inspect
import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import suites, targets
from benchmarks.targets import Target
from dmclib import cli, machine, paths
from dmclib.errors import DMCError

ROWS = [
    {"task": "reading", "clip": "a.mp4", "frames": 40, "ours_ms": 3.0, "ours_lower_ms": 2.5},
    {"task": "reading", "clip": "a.mp4", "frames": 20, "ours_ms": 1.0, "ours_lower_ms": 0.5},
    {"task": "flying", "needs": "a CUDA GPU"},
]


@pytest.fixture
def fake_suites(monkeypatch, tmp_path):
    """Suites that measure nothing, results in a folder of the test's own."""
    fake = {"codec": lambda *clip: [*ROWS], "flow": lambda: [dict(row) for row in ROWS]}
    monkeypatch.setattr(suites, "SUITES", fake)
    monkeypatch.setattr(targets, "TARGETS", ())
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    return fake


def printed(suite, **options):
    console = Console(file=io.StringIO(), width=160)
    suites.run(suite, console=console, **options)
    return console.file.getvalue()


def test_every_suite_runs_without_a_word_from_its_user():
    for name, rows in suites.SUITES.items():
        inspect.signature(rows).bind()  # a TypeError where something must be given
        assert rows.__name__ == "rows", name


def test_a_suite_is_shown_with_its_machine_and_kept_with_its_origin(fake_suites, tmp_path):
    text = printed("codec", profile="here")
    assert machine.in_words() in text
    table = [line for line in text.splitlines() if "reading" in line]
    assert [line.split()[-2] for line in table] == ["3", "1"]
    assert "flying: not measured, needs: a CUDA GPU" in text
    assert "lower" not in text
    record = json.loads((tmp_path / "here" / "bench_codec.json").read_text())
    assert record["rows"] == ROWS
    assert record["data"] == "a.mp4"
    assert record["machine"] == machine.describe()


def test_all_goes_on_after_a_suite_that_cannot_run(fake_suites, tmp_path):
    def fails():
        raise DMCError("OpenCV is not installed.")

    fake_suites["flow"] = fails
    fake_suites["codec"], fake_suites["loader"] = fake_suites["flow"], fake_suites["codec"]
    text = printed("all", profile="here")
    assert "flow: not measured, needs: OpenCV is not installed." in text
    assert (tmp_path / "here" / "bench_loader.json").is_file()
    assert not (tmp_path / "here" / "bench_flow.json").exists()
    with pytest.raises(DMCError, match="OpenCV is not installed"):
        printed("flow")


def test_two_runs_are_held_together_row_by_row(fake_suites, tmp_path):
    printed("codec", profile="before")
    faster = [dict(row) for row in reversed(ROWS)]
    faster[1]["ours_ms"] = 0.25  # the 20 frames; now before the 40
    fake_suites["codec"] = lambda: [*faster, {"task": "new", "ours_ms": 1.0}]
    text = printed("codec", compare=tmp_path / "before" / "bench_codec.json")
    beside = [line.split() for line in text.splitlines() if "a.mp4 " in line and "ours_ms" in line]
    assert [[word for word in line if word[0].isdigit()] for line in beside] == [
        ["20", "1", "0.25", "0.25"],
        ["40", "3", "3", "1.00"],
    ]
    assert "new: not measured then" in text


def test_rows_that_are_named_alike_are_held_together_in_their_order(fake_suites, tmp_path):
    fake_suites["codec"] = lambda: [{"task": "a", "ms": 1.0}, {"task": "a", "ms": 2.0}]
    printed("codec", profile="before")
    fake_suites["codec"] = lambda: [{"task": "a", "ms": 3.0}, {"task": "a", "ms": 8.0}]
    text = printed("codec", compare=tmp_path / "before")
    assert "3.00" in text
    assert "4.00" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no saved run"),
        ('{"name": "bench_codec", "rows": [1]}', "is no saved run"),
        ('{"name": "bench_flow", "rows": []}', "holds bench_flow, not bench_codec"),
        ('{"rows": []}', "is no saved run"),
    ],
)
def test_what_is_no_run_of_the_suite_is_refused_before_anything_is_measured(
    fake_suites, tmp_path, content, message
):
    fake_suites["codec"] = lambda: pytest.fail("measured")
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(DMCError, match=message):
        printed("codec", compare=tmp_path / "run.json")


def test_a_file_that_is_not_there_is_named(fake_suites, tmp_path):
    with pytest.raises(DMCError, match=r"absent\.json cannot be read"):
        printed("codec", compare=tmp_path / "absent.json")


def test_an_unknown_suite_is_answered_with_those_there_are(fake_suites):
    with pytest.raises(DMCError, match="no suite 'coded'; choose codec, flow or all"):
        printed("coded")


def test_a_clip_goes_to_the_codec_alone(fake_suites, tmp_path):
    given = []
    fake_suites["codec"] = lambda *clip: given.extend(clip) or ROWS
    printed("codec", clip=tmp_path / "clip.mp4")
    assert given == [tmp_path / "clip.mp4"]
    with pytest.raises(DMCError, match="only suite codec takes a clip"):
        printed("flow", clip=tmp_path / "clip.mp4")


def test_an_earlier_file_outlives_a_run_that_measured_nothing(fake_suites, tmp_path):
    printed("codec", profile="here")
    fake_suites["codec"] = lambda: [{"task": "reading", "needs": "a clip"}]
    printed("codec", profile="here")
    assert json.loads((tmp_path / "here" / "bench_codec.json").read_text())["rows"] == ROWS


def test_the_command_hands_its_options_on(monkeypatch, tmp_path):
    called = {}
    monkeypatch.setattr(suites, "run", lambda suite, **rest: called.update(rest, suite=suite))
    line = ["dmc", "bench", "codec", "a.mp4", "--profile", "gpu", "--compare", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    options = {"profile": "gpu", "clip": Path("a.mp4"), "compare": tmp_path}
    assert called == options | {"suite": "codec"}


def test_targets_stand_beside_what_was_kept_before(fake_suites, monkeypatch, tmp_path):
    asked = Target("reading, ms", "codec", {"task": "reading"}, "ours_ms", 2.0)
    monkeypatch.setattr(targets, "TARGETS", (asked,))
    printed("all", profile="here")
    fake_suites["codec"] = lambda: [{"task": "reading", "ours_ms": 1.5}]
    text = printed("all", profile="here")
    assert "reached" in text
    (row,) = json.loads((tmp_path / "here" / "bench_targets.json").read_text())["rows"]
    assert (row["figure"], row["before"], row["verdict"]) == (1.5, 3.0, "reached")
