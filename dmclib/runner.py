"""The notebooks in order, by papermill: checked before, resumable after.

Papermill alone only warns about a parameter that a notebook lacks, writes its output in place and
starts from the first notebook every time. So here everything is checked before anything runs, each
output gets its name only when it is whole, and :class:`runs.Runs` remembers what is done.
"""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError, strip_color
from rich.console import Console
from rich.progress import Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from dmclib import paths, results
from dmclib.errors import DMCError
from dmclib.files import whole
from dmclib.profiles import Step, plan
from dmclib.runs import Runs


class NotebookFailed(DMCError):
    """A notebook stopped at an error; the message holds the cell, the error and the half run."""


def reproduce(
    profile: str = "laptop",
    *,
    only: Sequence[str] = (),
    settings: Sequence[str] = (),
    data: str | Path | None = None,
    fresh: bool = False,
    dry_run: bool = False,
    console: Console | None = None,
) -> None:
    """Run the notebooks of a profile in order; those that are done and unchanged are skipped.

    Once a notebook runs, all after it run too, for they may read what it makes. Executed notebooks
    go to ``results/<profile>/runs``; the sources are never written to. Arguments as for
    :func:`plan`, and:

    Args:
        fresh: run again what is done already.
        dry_run: say what would run, with which parameters, and run nothing.
        console: where progress is printed; standard output by default.

    Raises:
        NotebookFailed: at the first error; its half-run notebook ends in ``.failed.ipynb``.
        DMCError: as :func:`plan` does, or if the same profile is being run by another process.
    """
    console = console or Console()
    steps = plan(profile, only=only, settings=settings, data=data)
    # Another split of the same profile has a name, and so results, of its own.
    profile = next((s.parameters["profile"] for s in steps if "profile" in s.parameters), profile)
    runs = Runs(profile)
    if dry_run:
        _show_plan(console, steps, [] if fresh else runs.done_first(steps))
        return
    with runs.held(), announced():
        in_order(steps, runs, fresh=fresh, console=console)
    show_results(console, profile)


def in_order(steps: Sequence[Step], runs: Runs, *, fresh: bool, console: Console) -> None:
    """Run notebooks one after the other, from the first that is not done.

    Raises:
        NotebookFailed: at the first error.
    """
    done = [] if fresh else runs.done_first(steps)
    for step in done:
        say_done(console, step.name)
    left = steps[len(done) :]
    expected = [runs.expected_seconds(step) for step in left]
    for k, step in enumerate(left):
        heading = f"[{len(done) + k + 1}/{len(steps)}] {step.name}"
        run_one(step, runs, heading, expected[k:], console)


def run_one(
    step: Step, runs: Runs, heading: str, expected: list[float | None], console: Console
) -> None:
    """Run one notebook, with a line that says so, and remember that it is done.

    Args:
        step: which.
        runs: where it is kept; held by this process.
        heading: how to name it in that line.
        expected: seconds of this notebook and of each that is to follow, or None.
        console: where that line goes.

    Raises:
        NotebookFailed: it stopped at an error.
    """
    runs.begin(step)
    start = time.monotonic()
    with _progress(console, heading, expected):
        execute(step, runs.executed(step))
    seconds = time.monotonic() - start
    runs.finish(step, seconds)
    console.print(f"{heading}: done in {duration(seconds)}", markup=False)


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


def say_done(console: Console, name: str) -> None:
    """Say that something is not run because it is done."""
    console.print(f"{name}: done already (--fresh runs it again)", highlight=False)


class _TimeLeft(ProgressColumn):
    """The time left of the whole run, counted down while a notebook runs."""

    def __init__(self, expected: list[float | None]):
        super().__init__()
        self.expected = expected

    def render(self, task) -> Text:
        """Words for now; rich asks a few times a second."""
        return Text(_left(self.expected, task.elapsed or 0))


@contextmanager
def _progress(console: Console, heading: str, expected: list[float | None]) -> Iterator[None]:
    """In a terminal a line that counts, elsewhere one plain line."""
    if not console.is_terminal:
        console.print(f"{heading} ... ({_left(expected, 0)})", markup=False, highlight=False)
        yield
        return
    heading_column = TextColumn("{task.description}", markup=False)
    columns = (SpinnerColumn(), heading_column, TimeElapsedColumn(), _TimeLeft(expected))
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(heading, total=None)
        yield


def _left(expected: list[float | None], elapsed: float) -> str:
    """The whole run's time left in words; notebooks that were never timed cannot be counted."""
    if all(seconds is None for seconds in expected):
        return "time left unknown: never timed"
    seconds = max((expected[0] or 0) - elapsed, 0) + sum(each or 0 for each in expected[1:])
    return f"{'at least' if None in expected else 'about'} {duration(seconds)} left"


def duration(seconds: float) -> str:
    """Seconds in words."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def _show_plan(console: Console, steps: list[Step], done: list[Step]) -> None:
    for step in steps:
        state = "done already" if step in done else "would run"
        console.print(f"{step.name}: {state}", markup=False, highlight=False)
        for key, value in step.parameters.items():
            console.print(f"    {key} = {value!r}", markup=False, highlight=False)


def show_results(console: Console, profile: str) -> None:
    """Name the files that a profile has left, and show its ablations."""
    for folder in (paths.RESULTS / profile, paths.FIGURES / profile):
        files = sorted(path.name for path in folder.glob("*.*") if path.is_file())
        if files:
            console.print(f"{folder}: {', '.join(files)}", markup=False, highlight=False)
    try:
        rows = results.load("06_ablations", profile).rows
    except DMCError:
        return  # this profile does not run the ablations
    table = Table("variant", "frames", "clips", "seeds", title=f"Ablations, profile {profile}")
    for row in rows.to_dict("records"):
        frames, clips = (
            f"{row[share]:.3f} [{row[low]:.3f}, {row[high]:.3f}]"
            for share, low, high in (
                ("accuracy", "low", "high"),
                ("clip_accuracy", "clip_low", "clip_high"),
            )
        )
        table.add_row(row["variant"], frames, clips, str(row["seeds"]))
    console.print(table)
