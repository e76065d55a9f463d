import io
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from rich.console import Console

from dmclib import files, paths
from dmclib.errors import DMCError
from dmclib.reproduce import runner
from tests.notebook_maker import use_folder, write

PARAMETERS = 'profile: str = "laptop"  # name\nepochs: int = 1  # passes over the clips'
NOTE = """
import os, sys
with open("log.txt", "a") as log:
    print({!r}, profile, epochs, os.environ["DMC_RUNNER_PID"], sys.executable, file=log)
"""


def run(**keywords):
    """What a run prints where there is no terminal."""
    console = Console(file=io.StringIO(), width=200)
    runner.reproduce("night", console=console, **keywords)
    return console.file.getvalue()


def manifest():
    return json.loads((paths.RESULTS / "night" / "runs" / "manifest.json").read_text())


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """One run that stops at its second notebook, and the next run, after the reason is gone."""
    with pytest.MonkeyPatch.context() as patch:
        folder = use_folder(patch, tmp_path_factory.mktemp("story"))
        write(paths.NOTEBOOKS, "00_first", PARAMETERS, NOTE.format("first"))
        trouble = "import os\nassert not os.path.exists('broken'), 'a clip [red] is missing'"
        saves = "open('../results/night/01_second.json', 'w').close()"
        write(paths.NOTEBOOKS, "01_second", PARAMETERS, trouble, NOTE.format("second"), saves)
        write(
            paths.NOTEBOOKS, "02_third", "", NOTE.replace(", profile, epochs", "").format("third")
        )
        (paths.PROFILES / "night.yaml").write_text("profile: night\nepochs: 3")
        sources = {path.name: path.read_bytes() for path in paths.NOTEBOOKS.glob("*.ipynb")}
        runs = paths.RESULTS / "night" / "runs"
        runs.mkdir(parents=True)
        (runs / "lock").write_text("4194305")  # left by a dead process: above any real number
        (runs / ".01_second.1.partial.ipynb").write_text("{")  # left by a killed one

        (paths.NOTEBOOKS / "broken").touch()
        with pytest.raises(runner.NotebookFailed) as failure:
            run()
        after_failure = {path.name for path in runs.iterdir()}, manifest()
        (paths.NOTEBOOKS / "broken").unlink()
        printed = run()
        (paths.FIGURES / "night").mkdir(parents=True)
        (paths.FIGURES / "night" / "02_third.png").touch()
        yield {
            "folder": folder,
            "runs": runs,
            "failure": str(failure.value),
            "after_failure": after_failure,
            "printed": printed,
            "log": (paths.NOTEBOOKS / "log.txt").read_text().splitlines(),
            "untouched": all((paths.NOTEBOOKS / n).read_bytes() == s for n, s in sources.items()),
        }


def test_a_failure_shows_the_cell_the_error_and_the_half_run_notebook(story):
    for part in (
        "01_second",
        "    assert not os.path.exists('broken')",
        "AssertionError: a clip [red] is missing",
        str(story["runs"] / "01_second.failed.ipynb"),
    ):
        assert part in story["failure"]
    files, then = story["after_failure"]
    assert files == {"00_first.ipynb", "01_second.failed.ipynb", "manifest.json", "lock"}
    assert {name: entry["status"] for name, entry in then.items()} == {
        "00_first": "finished",
        "01_second": "stopped",
    }


def test_the_next_run_goes_on_at_the_failed_notebook_and_in_order(story):
    # one line a notebook: the first one did not run again
    assert [line.split()[0] for line in story["log"]] == ["first", "second", "third"]
    assert "00_first: done already" in story["printed"]
    assert "[2/3] 01_second" in story["printed"]
    assert not (story["runs"] / "01_second.failed.ipynb").exists()
    assert all(entry["status"] == "finished" for entry in manifest().values())


def test_notebooks_get_their_parameters_this_interpreter_and_the_runners_number(story):
    expected = ["night", "3", str(os.getpid()), sys.executable]
    assert [line.split()[1:] for line in story["log"]] == [expected, expected, expected[2:]]
    assert "DMC_RUNNER_PID" not in os.environ
    assert story["untouched"]


def test_what_is_done_is_not_run_again_and_the_last_screen_names_the_figures(story):
    printed = run()  # would add to the log if it ran anything
    assert printed.count("done already") == 3
    assert "figures/night: 02_third.png" in printed
    assert (paths.NOTEBOOKS / "log.txt").read_text().splitlines() == story["log"]


def test_a_changed_notebook_runs_again_and_so_do_those_after_it(story):
    printed = run(dry=True, settings=["01.epochs=4"])
    states = [line for line in printed.splitlines() if not line.startswith(" ")]
    assert states == ["00_first: done already", "01_second: would run", "02_third: would run"]
    assert run(dry=True, fresh=True).count("would run") == 3


def test_a_notebook_whose_numbers_are_gone_runs_again(story):
    (paths.RESULTS / "night" / "01_second.json").unlink()
    states = [line for line in run(dry=True).splitlines() if not line.startswith(" ")]
    assert states == ["00_first: done already", "01_second: would run", "02_third: would run"]
    (paths.RESULTS / "night" / "01_second.json").touch()


def test_two_runs_of_one_profile_at_once_are_refused(story):
    with (
        files.held(story["runs"] / "lock"),
        pytest.raises(DMCError, match=f"being run by process {os.getpid()}"),
    ):
        run()


def test_the_kernels_are_told_of_a_scheduler_that_answers(tmp_path, monkeypatch):
    use_folder(monkeypatch, tmp_path)
    told = "import os; assert os.environ['DMC_SCHEDULER'] == address"
    write(paths.NOTEBOOKS, "00_first", 'profile: str = ""\naddress: str = ""', told)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        how = {"settings": [f"address={address}"], "console": Console(file=io.StringIO())}
        runner.reproduce("smoke", scheduler=address, **how)
    assert "DMC_SCHEDULER" not in os.environ
    with pytest.raises(DMCError, match="No Dask scheduler answers at"):
        runner.reproduce("smoke", scheduler=address, **how)


def test_an_unknown_setting_is_refused_before_anything_runs(tmp_path, monkeypatch):
    use_folder(monkeypatch, tmp_path)
    write(paths.NOTEBOOKS, "00_first", PARAMETERS)
    with pytest.raises(DMCError, match="epoch"):
        runner.reproduce("smoke", settings=["epoch=2"])
    assert not paths.RESULTS.exists()


def test_what_the_folder_of_videos_holds_is_said_before_anything_runs(tmp_path, monkeypatch):
    use_folder(monkeypatch, tmp_path)
    write(paths.NOTEBOOKS, "00_first", PARAMETERS + '\ndata_folder: str = ""  # real videos')
    (paths.PROFILES / "night.yaml").write_text("profile: night\ndata_folder:")
    for name in ("run/a.avi", "walk/a.mp4", "walk/notes.txt"):
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / name).touch()
    printed = run(data=tmp_path / "videos", dry=True)
    assert "VideoFolder: 2 videos of 2 classes (run, walk)." in printed
    assert ".txt files (1, as walk/notes.txt)" in printed


def test_a_dead_kernel_is_said_in_a_sentence_with_its_cell(tmp_path, monkeypatch):
    use_folder(monkeypatch, tmp_path)
    write(paths.NOTEBOOKS, "00_first", PARAMETERS, "import os", "os._exit(1)", "print()")
    with pytest.raises(runner.NotebookFailed, match=r"    os._exit\(1\)\n\nthe kernel died"):
        runner.reproduce("smoke", console=Console(file=io.StringIO()))
    assert (paths.RESULTS / "smoke" / "runs" / "00_first.failed.ipynb").is_file()


def test_another_installations_kernel_called_python3_is_not_taken(tmp_path, monkeypatch):
    use_folder(monkeypatch, tmp_path)
    foreign = tmp_path / "jupyter" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    argv = ["false", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = {"argv": argv, "display_name": "Python 3", "language": "python"}
    (foreign / "kernel.json").write_text(json.dumps(kernel))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    cell = f"import sys\nassert sys.executable == {sys.executable!r}, sys.executable"
    write(paths.NOTEBOOKS, "00_first", PARAMETERS, cell)
    runner.reproduce("smoke", console=Console(file=io.StringIO()))
    assert (paths.RESULTS / "smoke" / "runs" / "00_first.ipynb").is_file()


MAIN = """
import sys
from pathlib import Path
from dmclib import cli, paths
paths.NOTEBOOKS, paths.RESULTS = Path(sys.argv[1]), Path(sys.argv[2])
paths.PROFILES = paths.NOTEBOOKS / "profiles"
sys.argv[1:] = ["reproduce", "smoke"]
cli.main()
"""


def wait_for(condition, seconds=600):
    for _ in range(20 * seconds):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail(f"waited for {seconds} s in vain")


def is_alive(process_number):
    try:
        os.kill(process_number, 0)
    except ProcessLookupError:
        return False
    return True


def test_ctrl_c_stops_the_kernel_and_leaves_nothing_half_written(tmp_path):
    started = tmp_path / "started"
    cell = f"import os, time\nopen({str(started)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)"
    write(tmp_path / "notebooks", "00_first", PARAMETERS, cell)
    (tmp_path / "notebooks" / "profiles").mkdir()
    (tmp_path / "notebooks" / "profiles" / "smoke.yaml").write_text("profile: smoke")
    folders = [tmp_path / "notebooks", tmp_path / "results"]
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, *folders],
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs, and so a test run among them, ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for(lambda: started.exists() and started.read_text())
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=600)

    assert process.returncode == 130
    assert said.strip().splitlines()[-1].startswith("dmc: stopped; the same command goes on")
    assert "Traceback" not in said
    runs = tmp_path / "results" / "smoke" / "runs"
    assert {path.name for path in runs.iterdir()} == {"manifest.json", "lock"}
    assert json.loads((runs / "manifest.json").read_text())["00_first"]["status"] == "stopped"
    wait_for(lambda: not is_alive(int(started.read_text())))
