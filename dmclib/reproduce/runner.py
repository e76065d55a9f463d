"""The notebooks of a profile in order.

Papermill alone only warns about a parameter that a notebook lacks, starts from the first notebook
every time, and writes its output in place. So here everything is checked before anything runs,
:class:`runs.Runs` remembers what is done, and an output has its name only once it is whole.
"""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError, strip_color
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text
from traitlets import default

from dmclib import cluster, files, paths, results
from dmclib.data import corpora
from dmclib.errors import DMCError
from dmclib.reproduce.profiles import Step, plan
from dmclib.reproduce.runs import Runs


class _OwnKernel(AsyncKernelManager):
    """Starts this interpreter; other installations have a kernel called python3 too."""

    @default("kernel_spec_manager")
    def _own(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])  # so that ipykernel's own is left


class NotebookFailed(DMCError):
    """A notebook stopped at an error; the message holds the cell, the error and the half run."""

    exit_code = 1


def reproduce(
    profile: str = "laptop",
    *,
    scheduler: str | None = None,
    fresh: bool = False,
    dry: bool = False,
    console: Console | None = None,
    **settings,
) -> None:
    """Run the notebooks of a profile in order; those that are done and unchanged are skipped.

    Once a notebook runs, all after it run too, for they may read what it makes. Executed notebooks
    go to ``results/<profile>/runs``; the sources are never written to.

    Args:
        profile: as :func:`plan` takes it.
        scheduler: address of a Dask scheduler, ``tcp://host:port``, for the trainings
            (:func:`jobs.run`); the notebooks' kernels find it in their environment.
        fresh: run again what is done already.
        dry: say what would run, with which parameters and trainings, and run nothing.
        console: where progress is printed; standard output by default.
        settings: ``only``, ``settings``, ``data``, ``seeds`` and ``splits`` of :func:`plan`.

    Raises:
        NotebookFailed: at the first error; its half-run notebook ends in ``.failed.ipynb``.
        DMCError: as :func:`plan`; another process runs the same profile; no scheduler answers.
    """
    console = console or Console()
    steps = plan(profile, **settings, dry=dry)
    if settings.get("data") is not None:
        word = next((step.every["corpus"] for step in steps if "corpus" in step.every), "folder")
        for sentence in corpora.open_corpus(word, settings["data"]).summary():
            console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    # One official split of the same profile has a name, and so results, of its own.
    profile = next((s.parameters["profile"] for s in steps if "profile" in s.parameters), profile)
    runs = Runs(profile)
    if dry:
        _show_plan(console, steps, [] if fresh else runs.done_first(steps))
        from dmclib.reproduce import dry_run  # torchvision, which it needs, takes seconds

        dry_run.show(console, steps)
        return
    if scheduler is not None:
        cluster.check(scheduler)
    with runs.held(), _told(DMC_RUNNER_PID=str(os.getpid()), DMC_SCHEDULER=scheduler):
        done = [] if fresh else runs.done_first(steps)
        for step in done:
            console.print(f"{step.name}: done already (--fresh runs it again)", highlight=False)
        left = steps[len(done) :]
        expected = [runs.expected_seconds(step) for step in left]
        for k, step in enumerate(left):
            heading = f"[{len(done) + k + 1}/{len(steps)}] {step.name}"
            runs.begin(step)
            start = time.monotonic()
            with _progress(console, heading, expected[k:]):
                _execute(step, runs.executed(step))
            seconds = time.monotonic() - start
            runs.finish(step, seconds)
            console.print(f"{heading}: done in {_duration(seconds)}", markup=False)
    _show_results(console, profile)


@contextmanager
def _told(**variables: str | None) -> Iterator[None]:
    """Put variables into the environment that kernels, and the trainings they start, inherit."""
    given = {name: value for name, value in variables.items() if value is not None}
    os.environ.update(given)
    try:
        yield
    finally:
        for name in given:
            del os.environ[name]


def _execute(step: Step, target: Path) -> None:
    """Run one notebook; ``target`` is there only once it has run to its end."""
    failed = target.with_suffix(".failed.ipynb")
    for old in (target, failed):
        old.unlink(missing_ok=True)
    logging.getLogger("papermill").setLevel(logging.ERROR)
    with files.whole(target) as partial:
        try:
            papermill.execute_notebook(
                step.notebook,
                partial,
                parameters=step.parameters,
                kernel_name="python3",  # whatever the file was saved with
                kernel_manager_class=_OwnKernel,
                progress_bar=False,
                cwd=step.notebook.parent,
                # its own log goes to our terminal; what the notebook says goes to the notebook
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
            )
        except PapermillExecutionError as error:
            source, what = error.source, strip_color(f"{error.ename}: {error.evalue}")
        except DeadKernelError:
            cells = nbformat.read(partial, as_version=4).cells
            source = [cell.source for cell in cells if cell.metadata.papermill.start_time][-1]
            what = "the kernel died; too little memory is the usual reason."
        else:
            return
        os.replace(partial, failed)
        cell = "\n".join(f"    {line}" for line in source.splitlines())
        raise NotebookFailed(
            f"notebook {step.name} stopped at this cell:\n\n{cell}\n\n{what}\n\n"
            f"The half-run notebook is {failed}; the next run goes on from this notebook."
        )


@contextmanager
def _progress(console: Console, heading: str, expected: list[float | None]) -> Iterator[None]:
    """Say what runs and what is left; ``expected`` holds seconds of this and each later step."""
    if not console.is_terminal:
        console.print(f"{heading} ... ({_left(expected, 0)})", markup=False, highlight=False)
        yield
        return
    start, spinner = time.monotonic(), Spinner("dots")

    def line() -> Spinner:
        seconds = time.monotonic() - start
        spinner.update(text=Text(f"{heading} {_duration(seconds)} {_left(expected, seconds)}"))
        return spinner

    with Live(get_renderable=line, console=console, transient=True):
        yield


def _left(expected: list[float | None], elapsed: float) -> str:
    """The whole run's time left in words; notebooks that were never timed cannot be counted."""
    if all(seconds is None for seconds in expected):
        return "time left unknown: never timed"
    seconds = max((expected[0] or 0) - elapsed, 0) + sum(each or 0 for each in expected[1:])
    return f"{'at least' if None in expected else 'about'} {_duration(seconds)} left"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def _show_plan(console: Console, steps: Sequence[Step], done: Sequence[Step]) -> None:
    for step in steps:
        state = "done already" if step in done else "would run"
        console.print(f"{step.name}: {state}", markup=False, highlight=False)
        for key, value in step.parameters.items():
            console.print(f"    {key} = {value!r}", markup=False, highlight=False, soft_wrap=True)


def _show_results(console: Console, profile: str) -> None:
    for folder in (paths.RESULTS / profile, paths.FIGURES / profile):
        names = sorted(path.name for path in folder.glob("*.*") if path.is_file())
        if names:
            console.print(f"{folder}: {', '.join(names)}", markup=False, highlight=False)
    try:
        rows = results.load("06_ablations", profile).rows
    except DMCError:
        return  # this profile does not run the ablations
    table = Table("variant", "frames", "clips", "seeds", title=f"Ablations, profile {profile}")
    for row in rows.to_dict("records"):
        frames = "{accuracy:.3f} [{low:.3f}, {high:.3f}]".format_map(row)
        clips = "{clip_accuracy:.3f} [{clip_low:.3f}, {clip_high:.3f}]".format_map(row)
        table.add_row(row["variant"], frames, clips, str(row["seeds"]))
    console.print(table)
