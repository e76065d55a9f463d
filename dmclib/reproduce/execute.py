"""One notebook by papermill: in this process, or in a child of a Dask worker.

An output has its name only once it is whole; papermill would write it in place.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError, strip_color

from dmclib import cluster, paths
from dmclib.children import Child, ChildLost, serve
from dmclib.errors import DMCError
from dmclib.files import whole
from dmclib.reproduce.profiles import Step

CHILD = (sys.executable, "-P", "-c", "from dmclib.reproduce import execute; execute.child()")
WATCH_SECONDS = 0.5


class NotebookFailed(DMCError):
    """A notebook stopped at an error; the message holds the cell, the error and the half run."""


@contextmanager
def announced() -> Iterator[None]:
    """Tell the kernels this process's number: the training they start ends when it is gone."""
    os.environ["DMC_RUNNER_PID"] = str(os.getpid())
    try:
        yield
    finally:
        del os.environ["DMC_RUNNER_PID"]


def execute(step: Step, target: Path) -> None:
    """Run one notebook; ``target`` is there only once it has run to its end.

    Raises:
        NotebookFailed: at an error; the half-run notebook lies beside ``target``.
    """
    failed = target.with_suffix(".failed.ipynb")
    for old in (target, failed):
        old.unlink(missing_ok=True)
    logging.getLogger("papermill").setLevel(logging.ERROR)
    with whole(target) as partial:
        try:
            papermill.execute_notebook(
                step.notebook,
                partial,
                parameters=step.parameters,
                kernel_name="python3",  # this interpreter's own, whatever the file was saved with
                progress_bar=False,
                cwd=step.notebook.parent,
                # its own log goes to our terminal; what the notebook says goes to the notebook
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
            )
        except PapermillExecutionError as error:
            os.replace(partial, failed)
            what = strip_color(f"{error.ename}: {error.evalue}")
            raise NotebookFailed(_failure(step, error.source, what, failed)) from None
        except DeadKernelError:
            cells = nbformat.read(partial, as_version=4).cells
            source = [cell.source for cell in cells if cell.metadata.papermill.start_time][-1]
            os.replace(partial, failed)
            what = "the kernel died; too little memory is the usual reason."
            raise NotebookFailed(_failure(step, source, what, failed)) from None


def _failure(step: Step, source: str, what: str, failed: Path) -> str:
    cell = "\n".join(f"    {line}" for line in source.splitlines())
    return (
        f"notebook {step.name} stopped at this cell:\n\n{cell}\n\n{what}\n\n"
        f"The half-run notebook is {failed}; the next run goes on from this notebook."
    )


# --- on a cluster -------------------------------------------------------------------------------


def task(step: Step, target: Path, token: Path) -> dict:
    """What a worker is told, to :func:`on_worker`.

    Args:
        step: the notebook.
        target: where it is to be kept.
        token: a file in our cache, by which a worker shows that it sees the same one.
    """
    return {
        "notebook": str(step.notebook),
        "parameters": step.parameters,
        "seed": step.seed,
        "target": str(target),
        "token": str(token),
        "root": str(paths.ROOT),
    }


def on_worker(task: dict) -> dict:
    """In a task of a Dask worker: run a notebook in a child, which ends when nobody waits any more.

    Returns:
        ``{"seconds": ...}`` of a notebook that ran to its end; ``{"failed": why}``; ``{"stop":
        why}`` where no notebook can run on this worker.
    """
    address, wanted = cluster.worker()
    if str(paths.ROOT) != task["root"]:
        return {
            "stop": f"The worker at {address} has the package of {paths.ROOT}, not of "
            f"{task['root']}: start it with the dask of that checkout."
        }
    for path in (task["notebook"], task["token"]):
        if not Path(path).is_file():
            return {
                "stop": f"The worker at {address} does not see {path}: the checkout and its cache "
                "must be on a file system that all workers share, at the same paths."
            }
    child, over = Child(CHILD, environment={}), threading.Event()

    def watch() -> None:
        while not over.wait(WATCH_SECONDS):
            if not wanted():
                child.kill()

    threading.Thread(target=watch, daemon=True).start()
    try:
        return child.ask(task, None)
    except ChildLost as lost:
        return {"failed": f"{task['target']}: the process that ran it at {address} {lost}."}
    finally:
        over.set()
        child.kill()


def child() -> None:
    """What :func:`on_worker` runs: it and all that it started end with the worker."""
    serve(_answer)


def _answer(task: dict, beat: Callable[[], None]) -> dict:
    os.environ["DMC_CACHE"] = str(Path(task["token"]).parent)
    step = Step(Path(task["notebook"]), task["parameters"], "", task["seed"])
    start = time.monotonic()
    try:
        with announced():
            execute(step, Path(task["target"]))
    except NotebookFailed as failure:
        return {"failed": str(failure)}
    return {"seconds": time.monotonic() - start}
