"""Trainings in processes of their own, which go on when a notebook, a tab or a kernel is closed.

:func:`run` starts what is missing and watches it. Interrupted and called again, it finds finished
trainings done, waits for those that another process has under way, and lets the others go on from
their last checkpoints.

A training's process holds a lock on the file ``lock`` in the training's folder from before its
first instruction to its end, however that comes. So no training ever has two processes, and nothing
that a dead one left behind is mistaken for life.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import torch
from tqdm.auto import tqdm

from dmclib import files, machine, paths
from dmclib.errors import DMCError
from dmclib.training import TrainConfig, fit

POLL_SECONDS = 0.5
PATIENCE_SECONDS = 10  # for processes that were told to stop
TAIL_LINES = 12  # of a failed training's log, shown in the error


def run(configs: list[TrainConfig], *, device: str = "auto", at_once: int | None = None) -> None:
    """Train every config that is not done yet, and the stages that they start from, with one bar.

    A training of another call that is still under way is waited for, and taken over if its process
    dies. Ctrl-C stops the processes of these trainings, whoever started them; under ``dmc
    reproduce`` they also end when that command does. What they have done stays done.

    Args:
        configs: what to train; those that another one starts from are added, and trained first.
        device: as :func:`dmclib.training.fit` takes it; ``cuda`` and ``auto`` give each of several
            GPUs a training of its own.
        at_once: how many processes share the cores; by default one a core, up to one a training
            (small networks train faster side by side than on many threads), and one a GPU.

    Raises:
        DMCError: there is no such device; or a training that this call started fails: holds the end
            of its log and where the log lies. The others that this call started are stopped.
    """
    chain = list({c.key: c for config in configs for c in _with_ancestors(config)}.values())
    waiting = [config for config in chain if not config.done]
    if not waiting:
        return
    cores, devices = os.cpu_count() or 1, [machine.choose_device(device)]
    if devices == ["cuda"]:
        devices = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if at_once is None:
        # Of all, not of those left: going on with more threads would change the last bits.
        at_once = len(devices) if devices != ["cpu"] else min(cores, len(chain))
    threads = max(1, cores // at_once)
    left = waiting.copy()
    own: dict[str, subprocess.Popen] = {}
    where: dict[str, str] = {}
    reached = sum(_progress(config)["epochs"] for config in waiting)
    total = sum(config.epochs for config in waiting)
    name = "1 training" if len(waiting) == 1 else f"{len(waiting)} trainings"
    try:
        with tqdm(total=total, initial=reached, desc=name, unit="epoch", leave=False) as bar:
            while True:
                busy = sum(child.poll() is None for child in own.values())
                for config in left.copy():
                    child = own.get(config.key)
                    ended = child is not None and child.poll() is not None  # asked before ``done``
                    ready = config.start_from is None or config.start_from.done
                    if config.done:
                        left.remove(config)
                    elif ended:
                        raise DMCError(_last_words(config, child.returncode))
                    elif child is None and ready and busy < at_once:
                        taken = [where[key] for key, one in own.items() if one.poll() is None]
                        place = min(devices, key=taken.count)
                        child = _start(config, place, threads)
                        if child is not None:
                            own[config.key], where[config.key] = child, place
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
        # A person who stops the cell wants the machine back.
        _stop(left)
        raise
    except DMCError:
        _stop([config for config in left if config.key in own])
        raise
    for child in own.values():
        child.wait()


def _with_ancestors(config: TrainConfig) -> list[TrainConfig]:
    before = [] if config.start_from is None else _with_ancestors(config.start_from)
    return [*before, config]


def _start(config: TrainConfig, device: str, threads: int) -> subprocess.Popen | None:
    """Start the training's process; None where another one has the training under way."""
    folder = config.folder
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
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
                env=os.environ | {"DMC_CACHE": str(paths.CACHE)},
            )
        lock.write(str(child.pid))
    return child


def _pid(config: TrainConfig) -> int | None:
    """The number of the process that has the training under way, if one has."""
    try:
        with open(config.folder / "lock") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(lock.read())
    except (FileNotFoundError, ValueError):  # never started; about to be
        pass
    return None


def _stop(configs: list[TrainConfig]) -> None:
    """End the trainings' processes, with the ones that decode for them, and see them gone."""
    for config in configs:
        pid = _pid(config)
        if pid is not None:
            # It may have ended just now, for which macOS has another error.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(_pid(config) for config in configs) and time.monotonic() < deadline:
        time.sleep(0.05)


def _progress(config: TrainConfig) -> dict[str, float]:
    """How many ``epochs`` are done, and the latest ``loss`` and ``accuracy`` if there are any."""
    try:
        told = json.loads((config.folder / "progress.json").read_text())
    except FileNotFoundError:
        told = {"epochs": 0}
    return told | {"epochs": config.epochs} if config.done else told


def _last_words(config: TrainConfig, status: int) -> str:
    log = config.folder / "log.txt"
    tail = log.read_text(errors="replace").strip().splitlines()[-TAIL_LINES:]
    what = "failed"
    if status < 0:
        what = (
            f"was ended by {signal.Signals(-status).name} (too little memory is the usual reason "
            "for SIGKILL); run it again to go on from its last checkpoint"
        )
    return "\n".join(
        [f"The {config.stream} training, seed {config.seed}, {what}. Its log is {log}:", *tail]
    )


def _child(config_file: str, device: str = "auto", threads: str = "") -> None:
    """What a training's process does: one that :func:`run` started, or one of ``torchrun``'s."""
    config = TrainConfig.from_json(Path(config_file).read_text())
    if config.folder != Path(config_file).resolve().parent:
        sys.exit("The package's code was changed after it was loaded: restart the kernel.")
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
    """Wait for the end of ``dmc reproduce``, and end with it: its user has no cell to stop."""
    while True:
        try:
            os.kill(runner, 0)  # asks only whether it is there
        except OSError:
            print("The run that this training belongs to is over.", flush=True)
            os.killpg(0, signal.SIGTERM)
        time.sleep(1)


if __name__ == "__main__":
    _child(*sys.argv[1:])
