import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from shutil import rmtree

import dask
import psutil
import pytest
import torch
from distributed import LocalCluster

from dmclib import data, files, paths, training
from dmclib.data import DataConfig
from dmclib.errors import DMCError
from dmclib.reproduce import jobs
from dmclib.training import TrainConfig

CLIPS = DataConfig(clips_per_class=(1, 1, 1), frames_per_clip=2, height=32)


@pytest.fixture(scope="module")
def with_frames(tmp_path_factory):
    """A cache that holds the frames of CLIPS, so that no training has to make them."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "CACHE", folder)
        for split in data.SPLITS:
            data.load_frames(CLIPS, split, workers=1)
    return folder


@pytest.fixture(autouse=True)
def _nothing_trained_yet(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.05)
    monkeypatch.delenv("DMC_RUNNER_PID", raising=False)
    yield
    left = tmp_path.glob("training/*/config.json")  # where a test failed before it stopped them
    jobs.stop([TrainConfig.from_json(file.read_text()) for file in left])


@pytest.fixture
def frames(with_frames, _nothing_trained_yet):
    """CLIPS ready to be trained on."""
    (paths.CACHE / "frames").symlink_to(with_frames / "frames")


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Have a shell script run instead of a training, which takes seconds to import torch.

    It sees the training's folder as its working directory, and its config in config.json.
    """

    def use(script):
        file = tmp_path / "stand-in"
        file.write_text(f'#!/bin/sh\ncd "${{3%/*}}"\n{EPOCH}\n{script}\n')
        file.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(file))

    return use


EPOCH = """epoch() { echo "{\\"epochs\\": $1}" >new; mv new progress.json; }"""
ENDLESS = "epoch 1; sleep 60; true"  # sh stays, so that there are two processes to stop
FINISHES = "touch scores.safetensors"


@pytest.fixture
def started(monkeypatch):
    """The configs whose processes were started, in order."""
    configs, start = [], jobs.start

    def noting(config, *rest):
        child = start(config, *rest)
        if child is not None:
            configs.append(config)
        return child

    monkeypatch.setattr(jobs, "start", noting)
    return configs


def config(stream="motion", **changes):
    return TrainConfig(stream, CLIPS, **{"epochs": 4, "size": 32, "segments": 2} | changes)


def run(*configs):
    # So many processes leave each one thread, as the tests themselves have.
    jobs.run(list(configs), device="cpu", at_once=max(2, os.cpu_count()))


def watch(monkeypatch, act):
    """Have ``act`` called with the number of epochs whenever the bar moves."""

    class Bar(jobs.tqdm):
        def update(self, n=1):
            act(n)
            return super().update(n)

    monkeypatch.setattr(jobs, "tqdm", Bar)


@pytest.mark.slow
@pytest.mark.usefixtures("frames")
def test_a_killed_training_goes_on_and_ends_as_fit_ends_when_undisturbed(monkeypatch):
    flow = config("flow", epochs=1)
    stage = config("cue", start_from=flow)
    training.fit(flow)
    scores = training.fit(stage)
    expected = training.load_networks(stage).state_dict()
    rmtree(stage.folder)

    moved = []

    def kill_it_within_the_second_epoch(epochs):
        moved.append(epochs)
        if sum(moved) > 1:
            os.kill(jobs.pid(stage), signal.SIGKILL)

    with monkeypatch.context() as patch:
        watch(patch, kill_it_within_the_second_epoch)
        with pytest.raises(DMCError, match=r"ended by SIGKILL .* go on from its last checkpoint"):
            run(stage)
    assert not stage.done
    left_over = stage.folder / ".checkpoint.1.partial.safetensors"
    left_over.write_bytes(b"half")  # as it stays where a process is killed while it saves

    run(stage)
    assert '"epoch": 1,' not in (stage.folder / "log.txt").read_text()  # it was not begun again
    assert [row["epoch"] for row in training.load_log(stage)] == [1, 2, 3, 4]
    for name, tensor in training.load_networks(stage).state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert torch.equal(training.load_scores(stage).logits, scores.logits)
    assert not left_over.exists()


@pytest.mark.usefixtures("frames")
def test_a_training_ends_when_the_run_that_it_belongs_to_does(monkeypatch):
    with subprocess.Popen(["sleep", "60"]) as runner:

        def end_the_run(_):
            runner.kill()
            runner.wait()

        monkeypatch.setenv("DMC_RUNNER_PID", str(runner.pid))
        watch(monkeypatch, end_the_run)
        with pytest.raises(DMCError, match=r"SIGTERM(.|\n)*belongs to is over"):
            run(config(epochs=40))


@pytest.mark.usefixtures("frames")
def test_a_failure_on_the_users_files_is_shown_as_its_sentence():
    damaged = config()
    damaged.folder.mkdir(parents=True)
    checkpoint = damaged.folder / "checkpoint.safetensors"
    checkpoint.write_bytes(b"half")
    with pytest.raises(DMCError) as failure:
        run(damaged)
    headline, *tail = str(failure.value).splitlines()
    log = damaged.folder / "log.txt"
    assert headline == f"The motion training, seed 0, failed. Its log is {log}:"
    assert tail[-1].startswith(f"{checkpoint} is not a readable safetensors file")
    assert "Traceback" not in str(failure.value)


def test_a_training_outlives_the_kernel_that_started_it(stand_in, started):
    python = sys.executable
    stand_in("epoch 1; while ! test -e closed; do sleep 0.05; done; epoch 2; " + FINISHES)
    going = config()
    cell = (
        "import sys; from dmclib.reproduce import jobs; from dmclib.training import TrainConfig; "
        "sys.executable = sys.argv[2]; "
        "jobs.run([TrainConfig.from_json(sys.argv[1])], device='cpu')"
    )
    kernel = subprocess.Popen(
        [python, "-c", cell, json.dumps(asdict(going)), sys.executable],
        env=os.environ | {"DMC_CACHE": str(paths.CACHE)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        # Its number is written a moment after it has begun.
        while not (going.folder / "progress.json").exists() or jobs.pid(going) is None:
            assert kernel.poll() is None
            time.sleep(0.05)
    finally:
        os.killpg(kernel.pid, signal.SIGKILL)
        kernel.wait()
    assert jobs.pid(going) is not None
    (going.folder / "closed").touch()
    run(going)
    assert going.done
    assert started == []  # this call only watched it


def test_two_calls_at_once_share_one_process(stand_in, started):
    stand_in(f"sleep 0.3; {FINISHES}")
    shared = config()
    with ThreadPoolExecutor(2) as pool:
        for call in [pool.submit(run, shared), pool.submit(run, shared)]:
            call.result()
    assert started == [shared]


def test_a_training_that_another_call_lost_is_taken_over(monkeypatch, stand_in):
    stand_in(ENDLESS)
    lost, start = config(), jobs.start
    child = start(lost, "cpu", 1)  # as a kernel did that has since been closed
    watched = []

    def lose_it_once_it_is_watched(config, *rest):
        mine = start(config, *rest)
        if mine is None:
            watched.append(config)
            stand_in(FINISHES)
            jobs.stop([lost])
            child.wait()
        return mine

    monkeypatch.setattr(jobs, "start", lose_it_once_it_is_watched)
    run(lost)
    assert watched == [lost]
    assert lost.done


def test_stages_come_after_the_ones_that_they_start_from_and_only_once(stand_in, started):
    stand_in(FINISHES)
    flow = config("flow")
    mse, cls = config("cue", start_from=flow), config("cue", start_from=flow, lr=0.1)
    adversarial = config("cue", start_from=mse)
    run(adversarial, cls, flow)
    assert [started.count(config) for config in (flow, mse, cls, adversarial)] == [1, 1, 1, 1]
    assert len(started) == 4
    assert started[0] == flow
    assert started.index(mse) < started.index(adversarial)
    run(adversarial, cls, flow)
    assert len(started) == 4


def test_no_more_run_at_once_than_asked_for(stand_in, started):
    stand_in(f"ls -d ../*/busy 2>/dev/null && exit 1; touch busy; sleep 0.2; rm busy; {FINISHES}")
    jobs.run([config(seed=seed) for seed in range(3)], device="cpu", at_once=1)
    assert len(started) == 3


def test_stopping_the_cell_stops_its_trainings_and_those_it_only_watched(monkeypatch, stand_in):
    def stop_the_cell(_):
        raise KeyboardInterrupt

    stand_in(ENDLESS)
    own, other = config(), config(seed=1)
    jobs.start(other, "cpu", 1)
    watch(monkeypatch, stop_the_cell)
    with pytest.raises(KeyboardInterrupt):
        run(own, other)
    assert [jobs.pid(own), jobs.pid(other)] == [None, None]


def test_a_failure_stops_the_others_that_this_call_started(stand_in):
    stand_in(f"grep Infinity config.json && {{ echo all is lost; exit 1; }}; {ENDLESS}")
    broken, own, other = config(lr=float("inf")), config(seed=1), config(seed=2)
    child = jobs.start(other, "cpu", 1)
    with pytest.raises(DMCError, match=r"all is lost$"):
        run(broken, own, other)
    assert jobs.pid(own) is None
    assert jobs.pid(other) == child.pid
    jobs.stop([other])
    child.wait()


def test_an_error_shows_the_end_of_a_long_log(stand_in):
    stand_in("seq 1000; exit 1")
    with pytest.raises(DMCError) as failure:
        run(config())
    assert str(failure.value).splitlines()[1:] == [str(n) for n in range(989, 1001)]


def test_code_that_changed_under_a_kernel_is_refused(monkeypatch):
    trained = config()
    trained.folder.mkdir(parents=True)
    (trained.folder / "config.json").write_text(json.dumps(asdict(trained)))
    file = str(trained.folder / "config.json")
    monkeypatch.setattr(files, "code_digest", lambda *modules: "another")
    with pytest.raises(SystemExit, match="restart the kernel"):
        jobs._child(file, "cpu", "1")


def test_the_cores_are_shared_alike_whatever_is_left_to_do(monkeypatch, stand_in):
    stand_in(f"echo $5 >threads; {FINISHES}")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    seeds = [config(seed=seed) for seed in range(4)]

    def threads():
        jobs.run(seeds, device="cpu")
        return [int((each.folder / "threads").read_text()) for each in seeds]

    assert threads() == [2, 2, 2, 2]
    rmtree(seeds[0].folder)
    assert threads() == [2, 2, 2, 2]


def test_the_bar_moves_when_a_training_does_and_leaves_nothing(monkeypatch, stand_in, capsys):
    moves = []
    stand_in(f"for k in 1 2 3; do sleep 0.2; epoch $k; done; sleep 0.2; {FINISHES}")
    watch(monkeypatch, moves.append)
    run(config())
    assert sum(moves) == 4
    assert 0 not in moves
    shown = capsys.readouterr().err
    assert "1 training" in shown
    assert shown.rsplit("\r", 1)[-1].strip() == ""


# --- on a scheduler's workers -------------------------------------------------------------------


@pytest.fixture
def scheduler(tmp_path, monkeypatch):
    """The address of two workers in processes of their own, which have the same cache."""
    monkeypatch.setenv("DMC_CACHE", str(paths.CACHE))
    how = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": 50}
    own = {
        "temporary-directory": str(tmp_path / "dask"),
        "distributed.deploy.lost-worker-timeout": "1 day",  # as cluster.workers, which says why
    }
    with dask.config.set(own), LocalCluster(**how) as started:
        yield started.scheduler_address


def wait_for(condition, seconds=600):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.usefixtures("frames")
def test_a_lost_worker_costs_its_own_training_some_epochs_and_no_bit(scheduler):
    lost, other = config(epochs=8), config(epochs=8, seed=1)
    scores = training.fit(lost)
    rmtree(lost.folder)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(jobs.run, [lost, other], scheduler=scheduler)
        wait_for(lambda: call.done() or (lost.folder / "checkpoint.safetensors").exists())
        number = jobs.pid(lost)
        os.kill(psutil.Process(number).ppid(), signal.SIGKILL)
        wait_for(lambda: not psutil.pid_exists(number))  # it ends with its worker
        assert not lost.done
        call.result(900)
    assert torch.equal(training.load_scores(lost).logits, scores.logits)
    assert '"epoch": 1,' not in (lost.folder / "log.txt").read_text()  # it was not begun again
    assert '"epoch": 1,' in (other.folder / "log.txt").read_text()  # and this one went on


@pytest.mark.slow
@pytest.mark.usefixtures("frames")
def test_on_workers_failures_have_their_sentence_and_ctrl_c_ends_trainings(scheduler, monkeypatch):
    damaged, going = config(), config(epochs=400, seed=1)
    damaged.folder.mkdir(parents=True)
    (damaged.folder / "checkpoint.safetensors").write_bytes(b"half")
    monkeypatch.setenv("DMC_SCHEDULER", scheduler)  # as under dmc reproduce --scheduler
    with pytest.raises(DMCError, match=r"seed 0, failed(.|\n)*is not a readable safetensors file"):
        jobs.run([damaged])

    def stop_the_cell(_):
        raise KeyboardInterrupt

    watch(monkeypatch, stop_the_cell)
    with pytest.raises(KeyboardInterrupt):
        jobs.run([going])
    wait_for(lambda: jobs.pid(going) is None)
    monkeypatch.setattr(paths, "CACHE", paths.CACHE / "another")
    with pytest.raises(DMCError, match=r"The worker at tcp://\S+ looks for .* \(DMC_CACHE\)"):
        jobs.run([replace(going)])
