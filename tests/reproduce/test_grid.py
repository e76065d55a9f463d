import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from dmclib import cluster, paths
from dmclib.data import manifest
from dmclib.errors import DMCError, ProfileError
from dmclib.reproduce import execute, grid, runner
from dmclib.reproduce.profiles import defaults
from tests.notebook_maker import use_folder, write
from tests.reproduce.test_runner import is_alive, wait_for

VIDEOS = """
profile: str = "smoke"  # names the results
epochs: int = 1  # passes over the clips
data_folder: str = ""  # real videos
prepared_folder: str = ""  # prepared ones
corpus: str = "folder"  # their kind
split_number: int = 1  # of its lists
"""
SEED = VIDEOS + "seed: int = 0  # of weights\n"
SEEDS = VIDEOS + "seeds: list = [0]  # of weights\n"
NOTE = """
import os
with open("log.txt", "a") as log:
    print({!r}, profile, {}, split_number, os.environ["DMC_RUNNER_PID"], file=log)
"""


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """A training, one notebook before it and three after it; profile ``night`` with two seeds."""
    use_folder(monkeypatch, tmp_path)
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    write(paths.NOTEBOOKS, "03_generator", 'profile: str = "smoke"\nseed: int = 0')
    write(paths.NOTEBOOKS, "04_training", SEED, NOTE.format("train", "seed"))
    write(paths.NOTEBOOKS, "05_recognition", SEED)
    write(paths.NOTEBOOKS, "06_ablations", SEEDS, NOTE.format("compare", "seeds"))
    write(paths.NOTEBOOKS, "08_figures", 'profile: str = "smoke"')
    profile = "prepared_folder:\nseeds: [0, 1]\n"
    (paths.PROFILES / "night.yaml").write_text(profile)
    (paths.PROFILES / "ucf101.yaml").write_text(profile + "corpus: ucf101\n")
    return tmp_path


@pytest.fixture
def prepared(suite):
    """The settings that give a prepared folder of two official splits."""
    sides = {"train": (), "test": ()}
    empty = manifest.Manifest("UCF101", (), 0, (), {}, None, {1: sides, 2: sides}, {})
    manifest.write(suite / "prepared", empty)
    return [f"prepared_folder={suite / 'prepared'}"]


def shown(parts):
    """Of each part: its name, its jobs' names and places of results, and the other notebooks."""
    return [
        (
            part.name,
            {job.name: (job.parameters["profile"], job.parameters["seed"]) for job in part.jobs},
            [step.name for step in part.others],
        )
        for part in parts
    ]


# --- which jobs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0,x", "0,,1", "-1", "1.5", "0;1", "²"])
def test_what_is_no_list_of_numbers_is_refused(text):
    with pytest.raises(ProfileError, match=re.escape(f"--seeds {text}: ") + ".*no whole number"):
        grid.numbers(text, "--seeds")


def test_numbers_are_read_in_their_order_and_once():
    assert grid.numbers("", "--seeds") == []
    assert grid.numbers("2, 0,10", "--seeds") == [2, 0, 10]
    with pytest.raises(ProfileError, match="--splits 1,2,1: 1 comes twice"):
        grid.numbers("1,2,1", "--splits")


def test_a_job_is_a_seed_of_a_split_and_only_the_notebooks_own_seed_has_the_plain_name(prepared):
    parts = grid.expand("night", seeds=[1, 0], splits=[1, 2], settings=prepared)
    others = ["03_generator", "05_recognition", "06_ablations", "08_figures"]
    assert shown(parts) == [
        (
            "night",
            {"04_training-seed1": ("night-seed1", 1), "04_training-seed0": ("night", 0)},
            others,
        ),
        (
            "night-split2",
            {
                "04_training-seed1": ("night-split2-seed1", 1),
                "04_training-seed0": ("night-split2", 0),
            },
            others,
        ),
    ]
    assert {job.parameters["split_number"] for job in parts[1].jobs} == {2}
    given = {step.name: step.parameters for step in parts[1].others}
    assert given["06_ablations"]["seeds"] == [1, 0]
    assert given["05_recognition"]["seed"] == 1  # a seed that the grid trains
    assert "seed" not in given["03_generator"]  # it comes before the training
    assert {step["profile"] for step in given.values()} == {"night-split2"}


def test_a_job_is_the_same_whatever_other_jobs_the_grid_has(prepared):
    (part,) = grid.expand("night", seeds=[1], settings=prepared)
    whole = grid.expand("night", seeds=[0, 1, 2], splits=[2, 1], settings=prepared)
    assert part.jobs[0] == whole[1].jobs[1]


def test_seeds_are_the_profiles_and_the_split_is_its_own_where_they_are_not_said(prepared):
    assert [part.seeds for part in grid.expand("night", splits=[2], settings=prepared)] == [(0, 1)]
    (part,) = grid.expand("night", seeds=[5], settings=[*prepared, "split_number=2"])
    assert (part.name, part.split) == ("night-split2", 2)
    # also where the notebook that has them is not run
    (part,) = grid.expand("night", splits=[1], only=["04"], settings=prepared)
    assert [job.seed for job in part.jobs] == [0, 1]
    assert part.others == ()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"splits": [3]}, r"no split 3 of .*prepared; there are 1, 2\."),
        ({"splits": [1], "settings": ["split_number=2"]}, "give --splits or --set split_number="),
        ({"seeds": [1], "settings": ["06.seeds=[2]"]}, "give --seeds or --set seeds="),
        ({"seeds": [1], "only": ["07"]}, "no notebook '07'"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(prepared, how, message):
    how = how | {"settings": [*prepared, *how.get("settings", [])]}
    with pytest.raises(ProfileError, match=message):
        grid.expand("night", **how)


def test_drawn_clips_have_no_splits_and_a_profile_without_training_no_seeds(suite):
    (paths.PROFILES / "drawn.yaml").write_text("epochs: 2")
    assert len(grid.expand("drawn", seeds=[0, 1])) == 1
    with pytest.raises(ProfileError, match="profile drawn draws its clips, which have no official"):
        grid.expand("drawn", splits=[1])
    (paths.PROFILES / "speed.yaml").write_text('notebooks: ["08"]')
    with pytest.raises(ProfileError, match="profile speed does not run notebook 04"):
        grid.expand("speed", seeds=[0])
    write(paths.NOTEBOOKS, "04_training", 'profile: str = "smoke"')
    with pytest.raises(ProfileError, match="has no split_number: leave --splits out"):
        grid.expand("drawn", splits=[1])
    with pytest.raises(ProfileError, match="no seed and profile to set"):
        grid.expand("drawn", seeds=[1])


def test_a_jobs_command_makes_that_job_and_a_parts_command_that_part(prepared):
    settings = [*prepared, "epochs=3", "06.epochs=4", "04.epochs=2"]
    parts = grid.expand("night", seeds=[0, 1], splits=[1, 2], settings=settings)

    def again(words):
        """The parts that a command line gives."""
        options = dict(seeds=[], splits=[], settings=[], only=[])
        dmc, reproduce, profile, *rest = shlex.split(words)
        assert (dmc, reproduce, profile) == ("dmc", "reproduce", "night")
        for option, value in zip(rest[::2], rest[1::2], strict=True):
            match option:
                case "--set":
                    options["settings"].append(value)
                case "--only":
                    options["only"] = value.split(",")
                case _:
                    options[option[2:]] = grid.numbers(value, option)
        return grid.expand(profile, **options)

    for part in parts:
        assert again(grid.command("night", [part], settings=settings)) == [part]
        for job in part.jobs:
            (alone,) = again(grid.command("night", [part], job=job, settings=settings))
            assert (alone.jobs, alone.others) == ((job,), ())
    assert again(grid.command("night", parts, settings=settings)) == parts


# --- running them -------------------------------------------------------------------------------


@pytest.fixture
def ran(monkeypatch):
    """What was run, in order; nothing is, but its files are there afterwards. ``bad`` fails."""
    ran, ran_bad = [], set()

    def pretend(step, target):
        name = f"{target.parent.parent.name}/{step.name}"
        ran.append(name)
        if name in ran_bad:
            raise runner.NotebookFailed(f"{name} stopped.")
        target.write_text("{}")
        result = paths.RESULTS / step.parameters["profile"] / f"{step.notebook.stem}.json"
        result.parent.mkdir(exist_ok=True)
        result.write_text(f"{step.parameters.get('seed')}")

    monkeypatch.setattr(execute, "execute", pretend)
    return ran, ran_bad


def run(settings=(), **keywords):
    console = Console(file=io.StringIO(), width=200)
    runner.reproduce("night", console=console, settings=settings, **keywords)
    return console.file.getvalue()


def test_a_failed_job_stops_what_depends_on_it_alone_and_the_next_run_does_the_rest(prepared, ran):
    ran, bad = ran
    how = {"settings": prepared, "seeds": [0, 1], "splits": [1, 2], "only": ["04", "06", "08"]}
    bad.add("night/04_training-seed0")
    with pytest.raises(runner.NotebookFailed, match="night/04_training-seed0 stopped") as failure:
        run(**how)
    assert "1 failed" in str(failure.value)
    first = [f"night/04_training-seed{seed}" for seed in (0, 1)]
    second = [f"night-split2/04_training-seed{seed}" for seed in (0, 1)]
    second += ["night-split2/06_ablations", "night-split2/08_figures"]
    assert ran == first + second

    bad.clear()
    ran.clear()
    printed = run(**how)
    assert ran == ["night/04_training-seed0", "night/06_ablations", "night/08_figures"]
    assert "night: 04_training-seed1: done already" in printed
    # the numbers of the notebook's own seed are the split's, others beside it
    assert (paths.RESULTS / "night" / "04_training.json").read_text() == "0"
    assert (paths.RESULTS / "night-seed1" / "04_training.json").read_text() == "1"
    assert (paths.RESULTS / "night-split2-seed1" / "04_training.json").read_text() == "1"

    ran.clear()
    assert run(**how).count("done already") == 8
    assert ran == []
    run(**how, fresh=True)
    assert len(ran) == 8


def test_a_job_that_runs_again_outdates_the_notebooks_after_it_and_no_other_job(prepared, ran):
    ran, _ = ran
    how = {"settings": prepared, "seeds": [0, 1]}
    run(**how)
    (paths.RESULTS / "night-seed1" / "04_training.json").unlink()
    ran.clear()
    run(**how)
    assert ran == [
        "night/04_training-seed1",
        *(f"night/{name}" for name in ("05_recognition", "06_ablations", "08_figures")),
    ]


def test_a_notebook_that_fails_stops_its_own_split_alone(prepared, ran):
    ran, bad = ran
    bad.add("night/05_recognition")
    with pytest.raises(runner.NotebookFailed, match="night/05_recognition stopped"):
        run(settings=prepared, seeds=[0], splits=[1, 2])
    assert "night/06_ablations" not in ran
    assert ran[-1] == "night-split2/08_figures"


def test_a_scheduler_without_a_grid_is_refused(prepared):
    with pytest.raises(DMCError, match="give --seeds or --splits too"):
        run(settings=prepared, scheduler="tcp://127.0.0.1:1")


@pytest.fixture
def workers(monkeypatch):
    """Two threads in the place of a cluster, and what each job is answered with."""
    answers = {}

    @contextmanager
    def executor(scheduler):
        with ThreadPoolExecutor(2) as pool:
            yield pool

    def on_worker(task):
        assert Path(task["token"]).parent == paths.CACHE
        assert Path(task["token"]).is_file()
        target = Path(task["target"])
        answer = answers.get(f"{target.parent.parent.name}/{target.stem}", {"seconds": 1.0})
        if isinstance(answer, Exception):
            raise answer
        if "seconds" in answer:
            target.write_text("{}")
        return answer

    monkeypatch.setattr(cluster, "executor", executor)
    monkeypatch.setattr(execute, "on_worker", on_worker)
    return answers


def test_on_a_cluster_the_jobs_run_there_and_the_rest_here(prepared, ran, workers):
    ran, _ = ran
    how = {"settings": prepared, "splits": [1, 2], "scheduler": "tcp://there:8786"}
    workers["night-split2/04_training-seed1"] = {"failed": "04_training-seed1 stopped."}
    with pytest.raises(runner.NotebookFailed, match="04_training-seed1 stopped"):
        run(**how)
    names = ["03_generator", "05_recognition", "06_ablations", "08_figures"]
    assert ran == [f"night/{name}" for name in names]
    workers.clear()
    printed = run(**how)
    assert "jobs handed to tcp://there:8786: 1" in printed
    assert ran == [f"{part}/{name}" for part in ("night", "night-split2") for name in names]
    assert list(paths.CACHE.iterdir()) == []  # the token is gone


def test_a_job_that_its_workers_die_of_stops_no_other(prepared, ran, workers):
    ran, _ = ran
    workers["night/04_training-seed0"] = RuntimeError("four workers died")
    with pytest.raises(runner.NotebookFailed, match=r"seed0 was lost .*four workers died") as said:
        run(settings=prepared, splits=[1, 2], scheduler="tcp://there:8786")
    assert "1 failed" in str(said.value)
    assert {name.partition("/")[0] for name in ran} == {"night-split2"}


def test_a_worker_that_does_not_see_the_same_files_is_refused(prepared, workers):
    workers["night/04_training-seed0"] = {"stop": "The worker at x does not see y."}
    with pytest.raises(DMCError, match="The worker at x does not see y") as refusal:
        run(settings=prepared, seeds=[0], scheduler="tcp://there:8786")
    assert not isinstance(refusal.value, runner.NotebookFailed)


def test_a_worker_says_what_it_does_not_see(suite, monkeypatch):
    monkeypatch.setattr(cluster, "worker", lambda: ("tcp://there:1", lambda: True))
    monkeypatch.setattr(execute, "Child", lambda *_, **__: pytest.fail("something was run"))
    (part,) = grid.expand("smoke", seeds=[0])
    for missing in ("notebook", "token"):
        task = execute.task(part.jobs[0], suite / "out.ipynb", part.jobs[0].notebook)
        answer = execute.on_worker(task | {missing: str(suite / "elsewhere")})
        assert "tcp://there:1 does not see" in answer["stop"]
        assert "elsewhere: the checkout and its cache must be on a file" in answer["stop"]
    task = execute.task(part.jobs[0], suite / "out.ipynb", part.jobs[0].notebook)
    answer = execute.on_worker(task | {"root": "/old/copy"})
    assert f"has the package of {paths.ROOT}, not of /old/copy" in answer["stop"]


# --- with kernels -------------------------------------------------------------------------------


def log():
    return sorted((paths.NOTEBOOKS / "log.txt").read_text().splitlines())


def test_the_notebooks_are_given_their_seeds_and_kept_under_their_jobs_names(prepared):
    run(settings=prepared, seeds=[0, 2], only=["04", "06"])
    me = os.getpid()
    expected = [f"compare night [0, 2] 1 {me}", f"train night 0 1 {me}"]
    assert log() == [*expected, f"train night-seed2 2 1 {me}"]
    kept = {path.name for path in (paths.RESULTS / "night" / "runs").glob("*.ipynb")}
    assert kept == {"04_training-seed0.ipynb", "04_training-seed2.ipynb", "06_ablations.ipynb"}
    executed = paths.RESULTS / "night" / "runs" / "04_training-seed2.ipynb"
    assert '"seed": 2' in json.dumps(json.loads(executed.read_text())["metadata"])
    assert defaults(paths.NOTEBOOKS / "04_training.ipynb")["seed"] == 0


@pytest.fixture
def address(tmp_path):
    """A Dask cluster of two workers in this process."""
    distributed = pytest.importorskip("distributed")
    how = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with (
        pytest.importorskip("dask").config.set({"temporary-directory": str(tmp_path / "dask")}),
        distributed.LocalCluster(processes=False, protocol="tcp", **how) as started,
    ):
        yield started.scheduler_address


@pytest.mark.slow
def test_a_dask_cluster_runs_the_jobs_each_in_a_process_of_its_own(prepared, address):
    trouble = "assert seed != 1, 'seed 1 is cursed'"
    write(paths.NOTEBOOKS, "04_training", SEED, trouble, NOTE.format("train", "seed"))
    with pytest.raises(runner.NotebookFailed, match="AssertionError: seed 1 is cursed"):
        run(settings=prepared, seeds=[0, 1, 2], only=["04", "06"], scheduler=address)
    lines = [line.rsplit(" ", 1) for line in log()]
    assert [words for words, _ in lines] == ["train night 0 1", "train night-seed2 2 1"]
    processes = {int(process) for _, process in lines}
    assert len(processes) == 2
    assert os.getpid() not in processes
    kept = {path.name for path in (paths.RESULTS / "night" / "runs").glob("*.ipynb")}
    assert kept == {
        "04_training-seed0.ipynb",
        "04_training-seed1.failed.ipynb",
        "04_training-seed2.ipynb",
    }
    wait_for(lambda: not any(map(is_alive, processes)))


MAIN = """
import sys
from pathlib import Path
from dmclib import cli, paths
root = Path(sys.argv[1])
paths.NOTEBOOKS, paths.RESULTS, paths.CACHE = root / "notebooks", root / "results", root / "cache"
paths.PROFILES = paths.NOTEBOOKS / "profiles"
sys.argv[1:] = ["reproduce", "smoke", "--only=04", "--seeds=0", f"--scheduler={sys.argv[2]}"]
cli.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_job_on_a_cluster_ends_with_the_command_however_that_ends(suite, address, how):
    started = suite / "started"
    cell = f"import os, time\nopen({str(started)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)"
    write(paths.NOTEBOOKS, "04_training", SEED, cell)
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, suite, address],
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs, and so a test run among them, ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        # three interpreters start one after the other
        wait_for(lambda: started.exists() and started.read_text(), seconds=120)
        process.send_signal(how)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    kernel = int(started.read_text())
    wait_for(lambda: not is_alive(kernel))
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "dmc: stopped; the same command goes on" in said
        assert "Traceback" not in said
    assert not (paths.RESULTS / "smoke" / "runs" / "04_training-seed0.ipynb").exists()
