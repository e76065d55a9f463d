"""Work in child processes that may crash, hang or be killed while the caller goes on.

A damaged video can take a decoder down with it, or hold it for ever. So the work on one is done by
a child process, which answers in JSON. Starting one takes a second; :class:`Team` therefore keeps
one for every thread that asks, and replaces those that are lost. A child ends by itself when the
process that asked it has gone, however that went.

Not ``multiprocessing``: its processes may not be started from a Dask worker, which is a daemon.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from dmclib.errors import DMCError

IDLE_SECONDS = 60  # without a job: on a cluster, children outlive the run that wanted them
START_SECONDS = 120  # to import everything, on a busy machine
# A team has a child a core. OpenCV and torch read these when they are first imported.
_ONE_THREAD = {"OPENCV_FOR_THREADS_NUM": "1", "OMP_NUM_THREADS": "1"}


class ChildLost(Exception):
    """A child that ended, or had to be ended, before it answered; the message says how."""


class Child:
    """One child process.

    Args:
        command: what to run. It gets the number of an open file as last argument, and calls
            :func:`serve`.
        environment: what it finds in its environment beside ours; by default, that it has one core.
    """

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str] = _ONE_THREAD):
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ | dict(environment),
                start_new_session=True,  # Ctrl-C is for the caller, who then ends the child
            )
        self._greeted = False

    def ask(self, job: dict, patience_seconds: float | None) -> dict:
        """Let the child do a job; return its answer. Without patience, wait for ever.

        Raises:
            ChildLost: the child ended, or gave no sign of life for ``patience_seconds``.
            DMCError: it did not get as far as :func:`serve`.
        """
        if not self._greeted:
            try:
                self._receive(START_SECONDS)
            except ChildLost as lost:
                raise DMCError(
                    f"A worker process {lost} before it could start. See what `dmc doctor` says."
                ) from None
            self._greeted = True
        try:
            self._connection.send_bytes(json.dumps(job).encode())
        except OSError:
            raise ChildLost(self._end()) from None
        while (answer := self._receive(patience_seconds)) is None:
            pass
        return answer

    def _receive(self, patience_seconds: float | None) -> dict | None:
        """The next answer; None for a sign of life."""
        try:
            if not self._connection.poll(patience_seconds):
                self.kill()
                raise ChildLost(f"did nothing for {patience_seconds:g} seconds and was stopped")
            return json.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            raise ChildLost(self._end()) from None

    def _end(self) -> str:
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"crashed ({how})"

    def kill(self) -> None:
        """End the child now, whatever it does; a thread that waits for it gets ``ChildLost``."""
        self._process.kill()
        self._process.wait()


class Team:
    """A child for every thread that asks.

    Args:
        command: as for :class:`Child`.
    """

    def __init__(self, command: Sequence[str]):
        self._command = command
        self._mine = threading.local()
        self._lock, self._children, self._stopped = threading.Lock(), set(), False

    def ask(self, job: dict, patience_seconds: float, *, fresh: bool = False) -> dict:
        """Let this thread's child, or a ``fresh`` one, do a job; return its answer.

        Raises:
            ChildLost: as :meth:`Child.ask`, or because the team was stopped.
            DMCError: the child did not start.
        """
        child = getattr(self._mine, "child", None)
        if child is None or fresh:
            if child is not None:
                self._dismiss(child)
            child = self._mine.child = self._hire()
        try:
            return child.ask(job, patience_seconds)
        except ChildLost:
            self._dismiss(child)
            raise

    @property
    def stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopped

    def stop(self) -> None:
        """End all children; none is started any more."""
        with self._lock:
            self._stopped = True
            for child in self._children:
                child.kill()

    def _hire(self) -> Child:
        with self._lock:
            if self._stopped:
                raise ChildLost("was stopped")
            child = Child(self._command)
            self._children.add(child)
            return child

    def _dismiss(self, child: Child) -> None:
        self._mine.child = None
        child.kill()
        with self._lock:
            self._children.discard(child)


def serve(work: Callable[[dict, Callable[[], None]], dict]) -> None:
    """In the child: do the jobs that come, one after the other, until the asker has gone.

    Args:
        work: takes a job and a function that gives a sign of life; returns the answer.
    """
    jobs = queue.SimpleQueue()
    connection = Connection(int(sys.argv[-1]))

    def listen() -> None:
        try:
            while True:
                jobs.put(json.loads(connection.recv_bytes()))
        except (EOFError, OSError):
            os._exit(0)  # nobody waits for what the main thread is doing

    def beat() -> None:
        connection.send_bytes(b"null")

    beat()
    threading.Thread(target=listen, daemon=True).start()
    while True:
        try:
            job = jobs.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            return
        connection.send_bytes(json.dumps(work(job, beat)).encode())
