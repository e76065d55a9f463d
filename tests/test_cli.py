import subprocess
import sys

import pytest

from dmclib import __version__, cli, doctor
from dmclib.errors import DMCError
from dmclib.reproduce import runner


def dmc(monkeypatch, *arguments):
    """The exit code of a ``dmc`` command."""
    monkeypatch.setattr(sys, "argv", ["dmc", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code or 0


def test_the_command_is_told_apart_by_its_version(monkeypatch, capsys):
    assert dmc(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"dmclib {__version__}\n"


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from dmclib import cli; from typer.main import get_command; "
        "get_command(cli.app); "
        "print([m for m in ('torch', 'av', 'papermill', 'pandas', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_options_reach_the_runner(monkeypatch):
    called = {}
    monkeypatch.setattr(runner, "reproduce", lambda profile, **rest: called.update(rest, p=profile))
    line = ["reproduce", "real", "--only", "04, 05", "--set", "a=1", "--set", "06.b=2", "--fresh"]
    line += ["--seeds", "0, 1", "--scheduler", "tcp://here:8786"]
    assert dmc(monkeypatch, *line) == 0
    assert called == {
        "p": "real",
        "seeds": [0, 1],
        "splits": [],
        "scheduler": "tcp://here:8786",
        "only": ["04", "05"],
        "settings": ["a=1", "06.b=2"],
        "data": None,
        "fresh": True,
        "dry": False,
    }


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (DMCError("clip.mp4 holds no frames."), 2, "dmc: clip.mp4 holds no frames.\n"),
        (runner.NotebookFailed("notebook 04 stopped."), 1, "dmc: notebook 04 stopped.\n"),
        (KeyboardInterrupt(), 130, "dmc: stopped; the same command goes on from this notebook.\n"),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_an_exit_code(monkeypatch, capsys, error, code, words):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(runner, "reproduce", fail)
    assert dmc(monkeypatch, "reproduce") == code
    assert capsys.readouterr().err == words


def test_doctor_ends_with_1_only_if_something_fails(monkeypatch, capsys):
    found = [doctor.Finding("ok", "Fine."), doctor.Finding("warn", "Hm.")]
    monkeypatch.setattr(doctor, "examine", lambda: iter(found))
    assert dmc(monkeypatch, "doctor") == 0
    assert capsys.readouterr().out == "ok    Fine.\nwarn  Hm.\n"
    found.append(doctor.Finding("fail", "Broken."))
    assert dmc(monkeypatch, "doctor") == 1
