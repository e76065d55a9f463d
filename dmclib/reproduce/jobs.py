"""Trainings in processes of their own, on this machine or on the workers of a Dask scheduler.

:func:`run` starts what is missing and watches it. Interrupted and called again, it finds finished
trainings done, waits for those that another process has under way, and lets the others go on from
their last checkpoints.

On this machine a training is no task of a worker pool, because it must outlive its caller: it goes
on when a notebook, a tab or a kernel is closed, and ends with the same bits. On a scheduler's
workers each is one task, and ends when the caller does; a lost worker costs the epochs since the
last checkpoint of its own training.

A training's process holds a lock on ``lock`` in the training's folder from before its first
instruction to its end. So no training has two processes, and a dead one is never taken for alive.
"""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

import torch
from tqdm.auto import tqdm

from dmclib import cluster, files, machine, paths
from dmclib.errors import DMCError
from dmclib.training import TrainConfig, fit

POLL_SECONDS = 0.5
PATIENCE_SECONDS = 10  # for processes that were told to stop
TAIL_LINES = 12  # of a failed training's log, shown in the error


class _Task:
    """A training on a worker, with those calls of a process that are needed here."""

    def __init__(self, future: Future):
        self._future, self.returncode = future, None

    def poll(self) -> object | None:
        if self.returncode is None and self._future.done():
            self.returncode = cluster.answer(self._future)
        return self.returncode


Start = Callable[[TrainConfig], subprocess.Popen | _Task | None]


def run(
    configs: Sequence[TrainConfig],
    *,
    device: str = "auto",
    at_once: int | None = None,
    scheduler: str | None = None,
) -> None:
    """Train every config that is not done yet, and the stages that they start from, with one bar.

    A training of another call that is under way is waited for, and taken over if its process dies.
    Ctrl-C stops these trainings, whoever started them; under ``dmc reproduce`` they also end when
    that command does. What they have done stays done.

    Args:
        configs: what to train; those that another one starts from are added, and trained first.
        device: as :func:`dmclib.training.fit` takes it; ``cuda`` and ``auto`` give each of several
            GPUs a training of its own.
        at_once: how many processes share the cores; by default one per GPU, else one per core, as
            small networks train faster side by side than on many threads.
        scheduler: address of a Dask scheduler, ``tcp://host:port``, whose workers train instead,
            one training per thread: start one worker with one thread per GPU. They must find data
            and cache at the same paths. By default what ``DMC_SCHEDULER`` says.

    Raises:
        DMCError: there is no such device or scheduler; or a training that this call started fails,
            with the end of its log. The others that this call started are stopped.
    """
    chain = list({c.key: c for config in configs for c in with_ancestors(config)}.values())
    waiting = [config for config in chain if not config.done]
    if not waiting:
        return
    scheduler = scheduler or os.environ.get("DMC_SCHEDULER")
    if scheduler is None:
        # Threads for the whole chain, not for what is left: more would change the last bits.
        _watch(waiting, *_here(device, at_once, len(chain)))
        return
    with cluster.workers(scheduler=scheduler) as workers:
        _watch(
            waiting,
            lambda config: _Task(workers.submit(_on_worker, config, config.write(), device)),
            lambda: workers.count,
        )


def with_ancestors(config: TrainConfig) -> list[TrainConfig]:
    """A training behind the stages that it starts from, the first of them first."""
    before = [] if config.start_from is None else with_ancestors(config.start_from)
    return [*before, config]


def _here(device: str, at_once: int | None, trainings: int) -> tuple[Start, Callable[[], int]]:
    """How to start a training on this machine, and how many have room."""
    cores, devices = os.cpu_count() or 1, [machine.choose_device(device)]
    if devices == ["cuda"]:
        devices = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if at_once is None:
        at_once = len(devices) if devices != ["cpu"] else min(cores, trainings)
    threads = max(1, cores // at_once)
    started: list[tuple[subprocess.Popen, str]] = []

    def start_one(config: TrainConfig) -> subprocess.Popen | None:
        taken = [place for child, place in started if child.poll() is None]
        place = min(devices, key=taken.count)
        child = start(config, place, threads)
        if child is not None:
            started.append((child, place))
        return child

    return start_one, lambda: at_once


def _watch(waiting: Sequence[TrainConfig], start: Start, room: Callable[[], int]) -> None:
    """Start trainings as there is room, until all are done."""
    left = list(waiting)
    own: dict[str, subprocess.Popen | _Task] = {}
    reached = sum(_progress(config)["epochs"] for config in waiting)
    total = sum(config.epochs for config in waiting)
    name = "1 training" if len(waiting) == 1 else f"{len(waiting)} trainings"
    try:
        with tqdm(total=total, initial=reached, desc=name, unit="epoch", leave=False) as bar:
            while True:
                busy, places = sum(child.poll() is None for child in own.values()), room()
                for config in left.copy():
                    child = own.get(config.key)
                    ended = child is not None and child.poll() is not None  # asked before ``done``
                    ready = config.start_from is None or config.start_from.done
                    if config.done:
                        left.remove(config)
                    # Without a fault, a shared file system may show the end a little later.
                    elif ended and child.returncode != 0:
                        raise DMCError(_last_words(config, child.returncode))
                    elif child is None and ready and busy < places:
                        child = start(config)
                        if child is not None:
                            own[config.key] = child
                        busy += 1
                progress = [_progress(config) for config in waiting]
                now = sum(each["epochs"] for each in progress)
                if now != reached:
                    bar.update(round(now - reached, 2))
                    reached = now
                    latest = max(progress, key=lambda each: each.get("at", 0))
                    words = {k: f"{latest[k]:.3g}" for k in ("loss", "accuracy") if k in latest}
                    bar.set_postfix(words, refresh=False)
                if not left:
                    break
                time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        stop(left)  # a person who stops the cell wants the machine back
        raise
    except DMCError:
        stop([config for config in left if config.key in own])
        raise
    while any(child.poll() is None for child in own.values()):
        time.sleep(POLL_SECONDS / 10)


def start(
    config: TrainConfig, device: str, threads: int, *, runner: int | None = None
) -> subprocess.Popen | None:
    """Start a training's process; None where another one has it under way or has just ended it.

    It computes on ``threads`` threads, and ends with process ``runner``, by default the one in
    ``DMC_RUNNER_PID`` if there is one.
    """
    folder = config.folder
    folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"DMC_CACHE": str(paths.CACHE)}
    if runner is not None:
        environment["DMC_RUNNER_PID"] = str(runner)
    # fcntl's own lock, for a child can inherit it: ``files.held`` leaves a gap before it has begun.
    with open(folder / "lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        if config.done:
            return None
        lock.truncate(0)
        for left_over in folder.glob(".*.partial*"):  # of a process that was killed
            left_over.unlink()
        command = [sys.executable, "-m", "dmclib.reproduce.jobs", config.write(), device, threads]
        with open(folder / "log.txt", "wb") as log:
            child = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that a closed kernel does not take it along
                pass_fds=[lock.fileno()],  # it holds our lock on, after we have closed the file
                env=environment,
            )
        lock.write(f"{child.pid} {socket.gethostname()}")
    return child


def pid(config: TrainConfig) -> int | None:
    """The number of the process on this machine that has the training under way, if one has."""
    # Without the file it was never started; without a number in it, it is about to be.
    with suppress(FileNotFoundError, ValueError), open(config.folder / "lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            number, host = lock.read().split()
            return int(number) if host == socket.gethostname() else None
    return None


def stop(configs: Sequence[TrainConfig]) -> None:
    """End the trainings' processes on this machine, with those that decode for them."""
    for number in filter(None, map(pid, configs)):
        # It may have ended just now, for which macOS has another error.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(number, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(map(pid, configs)) and time.monotonic() < deadline:
        time.sleep(0.05)


def _progress(config: TrainConfig) -> dict[str, float]:
    """How many ``epochs`` are done, and the latest ``loss`` and ``accuracy`` if there are any."""
    told = {"epochs": 0}
    with suppress(FileNotFoundError):
        told = json.loads((config.folder / "progress.json").read_text())
    return told | {"epochs": config.epochs} if config.done else told


def _last_words(config: TrainConfig, status: object) -> str:
    log = config.folder / "log.txt"
    tail = log.read_text(errors="replace").strip().splitlines()[-TAIL_LINES:]
    what = "failed"
    if status is cluster.LOST:
        what = "was lost with its worker, and with those that went on with it"
    elif status < 0:
        what = (
            f"was ended by {signal.Signals(-status).name} (too little memory is the usual reason "
            "for SIGKILL); run it again to go on from its last checkpoint"
        )
    training = f"The {config.stream} training, seed {config.seed}"
    return "\n".join([f"{training}, {what}. Its log is {log}:", *tail])


# --- on a worker --------------------------------------------------------------------------------


def _on_worker(config: TrainConfig, file: Path, device: str) -> int:
    """In a Dask task: the exit code of a training's process, which ends when nobody waits for it.

    A worker may be a daemon, which may not start the processes that a training reads clips with.
    """
    address, threads, wanted = cluster.context()
    if config.folder != file.parent or not file.is_file():
        raise DMCError(
            f"The worker at {address} looks for {file} in {config.folder}, and it must see it "
            "there: put the cache (DMC_CACHE) on a file system that all workers share, at the same "
            "path."
        )
    child = None
    while wanted() and not config.done:
        # A lost worker's process holds the training for some moments more.
        child = child or start(config, device, threads, runner=os.getpid())
        if child is not None and child.poll() is not None:
            return child.returncode
        time.sleep(POLL_SECONDS)
    if child is None:
        return 0
    if not config.done:
        os.killpg(child.pid, signal.SIGTERM)
    return child.wait()


# --- in a training's process --------------------------------------------------------------------


def _child(config_file: str, device: str = "auto", threads: str = "") -> None:
    """What a training's process does: one that :func:`start` started, or one of ``torchrun``'s."""
    config = TrainConfig.from_json(Path(config_file).read_text())
    if config.folder != Path(config_file).absolute().parent:
        sys.exit(
            "The package's code is not the one that asked for this training: restart the kernel, "
            "and the workers if there are some."
        )
    if "DMC_RUNNER_PID" in os.environ:
        runner = int(os.environ["DMC_RUNNER_PID"])
        threading.Thread(target=_end_with, args=[runner], daemon=True).start()
    if threads:
        torch.set_num_threads(int(threads))

    def on_step(progress: dict) -> None:
        told = json.dumps(progress | {"at": time.time()})
        files.write_text(config.folder / "progress.json", told)

    def on_epoch(row: dict) -> None:
        on_step({"epochs": row["epoch"]} | {k: row[k] for k in ("loss", "accuracy") if k in row})
        print(json.dumps({name: round(value, 5) for name, value in row.items()}), flush=True)

    try:
        fit(config, device=device, on_epoch=on_epoch, on_step=on_step)
    except DMCError as problem:
        sys.exit(str(problem))


def _end_with(runner: int) -> None:
    """Wait for the end of a process that need not be the parent, and end with it."""
    while True:
        try:
            os.kill(runner, 0)  # asks only whether it is there
        except OSError:
            print("The run that this training belongs to is over.", flush=True)
            os.killpg(0, signal.SIGTERM)
        time.sleep(1)


if __name__ == "__main__":
    _child(*sys.argv[1:])
