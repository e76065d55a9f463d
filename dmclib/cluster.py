"""The one door to Dask: work on this machine's cores or on a cluster's, by the same calls.

A damaged video can crash a decoder, hold it for ever or fill the memory. So every task runs in a
worker process, and costs no more than itself: Dask replaces a worker that is lost, and an alarm in
the worker ends it when a task gives no sign of life.

The workers of a scheduler need this package. What a task names, they must find at the same paths,
so a cluster here is machines that share a file system.
"""

import faulthandler
import logging
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from dmclib.errors import DMCError

CONNECT_SECONDS = 10
NO_WORKER_SECONDS = 600  # a run that has had no worker for so long ends
LOOK_SECONDS = 1  # how often :meth:`Workers.each` looks for workers that came or went
LOST = object()  # stands for the answer of a task whose worker was lost

# Of the workers on this machine; whoever starts a scheduler configures its own.
_CONFIG = {
    "distributed.scheduler.allowed-failures": 0,  # callers try again by themselves
    # Dask closes a worker for good that takes longer than this to start again, 15 s by default. On
    # a busy machine all take longer, and none would be left.
    "distributed.deploy.lost-worker-timeout": "1 day",
    # What is in a worker's memory is one task's, so there is nothing to spill or to wait for.
    **dict.fromkeys(
        ("distributed.worker.memory." + k for k in ("target", "spill", "pause")), False
    ),
    # Dask would put these into our own environment too. The hash seed cannot be left out there.
    "distributed.nanny.pre-spawn-environ": {"PYTHONHASHSEED": "random"},
}
# There is a worker per core. OpenCV and torch read these when they are first imported.
_ONE_THREAD = {"OPENCV_FOR_THREADS_NUM": "1", "OMP_NUM_THREADS": "1"}
# Ctrl-C is for the caller, who then ends the workers.
_DEAF = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)"


class Workers:
    """Processes that do tasks; :func:`workers` gives them."""

    def __init__(self, client: Any):
        self._client = client
        self._executor = client.get_executor(pure=False)  # what was answered once may have changed
        self._alone_since: float | None = None  # when ``count`` first saw no worker

    @property
    def address(self) -> str:
        """The address of their scheduler."""
        return self._client.scheduler.address

    @property
    def count(self) -> int:
        """How many tasks can run at once: the workers' threads, at least 1.

        Raises:
            DMCError: whoever asks has found no worker for :data:`NO_WORKER_SECONDS`.
        """
        threads = sum(self._client.nthreads().values())
        if threads:
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = time.monotonic()
        elif time.monotonic() - self._alone_since > NO_WORKER_SECONDS:
            raise DMCError(
                f"The cluster at {self.address} has had no worker for {NO_WORKER_SECONDS / 60:g} "
                "minutes. Start workers there (see what `dmc doctor` says if this machine's do not "
                "start), then run it again; what is done stays."
            )
        return max(1, threads)

    def submit(self, function: Callable, *arguments: Any) -> Future:
        """Hand out one task; :func:`answer` gives what came of it."""
        return self._executor.submit(function, *arguments)

    def each(
        self, function: Callable, jobs: Iterable[tuple], *, patience_seconds: float | None = None
    ) -> Iterator[tuple[tuple, Any]]:
        """Do ``function(*job)`` for every job; give each job with its answer as they end.

        Args:
            function: importable by the workers. What it raises is raised here.
            jobs: as many are handed out as can run at once. Dask blames every task that a lost
                worker holds, so none waits in a worker behind another.
            patience_seconds: a worker ends whose task calls :func:`sign_of_life` less often.

        Yields:
            Job and answer, :data:`LOST` where the task took its worker with it.

        Raises:
            DMCError: there has been no worker for :data:`NO_WORKER_SECONDS`.
        """
        jobs, running = iter(jobs), {}
        while True:
            for job in islice(jobs, max(0, self.count - len(running))):
                running[self.submit(_guarded, function, patience_seconds, job)] = job
            if not running:
                return
            done = wait(running, LOOK_SECONDS, return_when=FIRST_COMPLETED).done
            answers = [(running.pop(future), answer(future)) for future in done]
            del done  # Dask would do a task again whose future we hold and whose worker is lost
            yield from answers

    def each_twice(
        self, function: Callable, jobs: Iterable[tuple], *, patience_seconds: float
    ) -> Iterator[tuple[tuple, Any]]:
        """As :meth:`each`, but of a task whose worker was lost the answer to a second try.

        That one is alone: a scheduler's worker may have several threads, and no task is to be
        blamed for the crash of another.
        """
        lost = []
        for job, given in self.each(function, jobs, patience_seconds=patience_seconds):
            if given is LOST:
                lost.append(job)
            else:
                yield job, given
        for job in lost:
            yield from self.each(function, [job], patience_seconds=patience_seconds)


@contextmanager
def workers(count: int | None = None, *, scheduler: str | None = None) -> Iterator[Workers]:
    """Worker processes; tasks left at the end are cancelled, and local workers ended.

    Local workers also end when this process does, however that happens.

    Args:
        count: of this machine, one thread each; one per core by default.
        scheduler: address of a Dask scheduler, ``tcp://host:port``, to use its workers instead.

    Raises:
        DMCError: workers cannot be started here; no scheduler answers, or its cluster fails later.
    """
    with _local(count) if scheduler is None else _connected(scheduler) as client:
        found = Workers(client)
        try:
            yield found
        finally:
            found._executor.shutdown(wait=False)  # cancels


def answer(future: Future) -> Any:
    """What a task returned, :data:`LOST` if it took its worker with it; raises what it raised."""
    from distributed import KilledWorker  # a second to import, which is needed only here

    try:
        return future.result()
    except KilledWorker:
        return LOST


def check(scheduler: str) -> None:
    """Raise a ``DMCError`` if nothing answers at a scheduler's address."""
    try:
        parts = urlsplit(scheduler)
        if parts.scheme not in ("tcp", "tls") or not parts.hostname or not parts.port:
            raise ValueError("not an address")
        socket.create_connection((parts.hostname, parts.port), CONNECT_SECONDS).close()
    except (OSError, ValueError) as problem:
        raise DMCError(
            f"No Dask scheduler answers at {scheduler!r} ({problem}). Check that it runs; the "
            "address looks like tcp://host:8786."
        ) from problem


@contextmanager
def _local(count: int | None) -> Iterator[Any]:
    import dask
    from distributed import Client, LocalCluster

    environment = dict(os.environ)
    with (
        tempfile.TemporaryDirectory(prefix="dmc-", ignore_cleanup_errors=True) as folder,
        dask.config.set(_CONFIG | {"temporary-directory": folder}),
    ):
        try:
            cluster = LocalCluster(
                n_workers=count or os.cpu_count(),
                threads_per_worker=1,
                dashboard_address=None,
                scheduler_kwargs={
                    "dashboard_address": "127.0.0.1:0"
                },  # any port; 8787 is another's
                silence_logs=logging.CRITICAL,
                env=_ONE_THREAD,
                preload=[_DEAF],
            )
        except (RuntimeError, OSError) as problem:
            raise DMCError(
                f"Worker processes do not start here ({problem}). See what `dmc doctor` says."
            ) from problem
        try:
            with cluster, Client(cluster, set_as_default=False) as client:
                yield client
        finally:
            os.environ.clear()
            os.environ.update(environment)


@contextmanager
def _connected(scheduler: str) -> Iterator[Any]:
    from distributed import Client

    check(scheduler)  # a Client that fails to connect leaves its event loop behind
    try:
        with Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False) as client:
            yield client
    except (DMCError, KeyboardInterrupt):
        raise
    except Exception as problem:
        raise DMCError(
            f"The cluster at {scheduler} failed ({type(problem).__name__}: {problem}). What is "
            "done stays; run it again to go on."
        ) from problem


# --- in a worker --------------------------------------------------------------------------------

_nowhere = open(os.devnull, "w")  # noqa: SIM115 - open for as long as the process is
_lock = threading.Lock()
_silent: dict[int, tuple[float, float]] = {}  # a task's thread -> patience, when it runs out


def sign_of_life() -> None:
    """In a task: say that it goes on; elsewhere nothing happens."""
    me = threading.get_ident()
    with _lock:
        if me in _silent:
            patience, _ = _silent[me]
            _silent[me] = patience, time.monotonic() + patience
            _set_alarm()


def context() -> tuple[str, int, Callable[[], bool]]:
    """In a task: the worker's address, its threads, and whether the task is still wanted.

    The last is a function. It returns False once the client has cancelled the task or has gone;
    Dask leaves a task that is under way to itself.
    """
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is not None and task.state != "cancelled"

    return worker.address, worker.state.nthreads, wanted


def _guarded(function: Callable, patience_seconds: float | None, job: tuple) -> Any:
    if patience_seconds is None:
        return function(*job)
    me = threading.get_ident()
    with _lock:
        _silent[me] = patience_seconds, 0
    sign_of_life()
    try:
        return function(*job)
    finally:
        with _lock:
            del _silent[me]
            _set_alarm()


def _set_alarm() -> None:
    """Let the process end when the first patience of its tasks runs out.

    faulthandler waits in C: a task that hangs there while it holds the interpreter ends too.
    """
    faulthandler.cancel_dump_traceback_later()
    if _silent:
        left = min(end for _, end in _silent.values()) - time.monotonic()
        faulthandler.dump_traceback_later(max(left, 1e-3), exit=True, file=_nowhere)
