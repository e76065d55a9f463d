"""The notebooks in order, by papermill: checked before, resumable after.

Papermill alone only warns about a parameter that a notebook lacks, writes its output in place and
starts from the first notebook every time. So here everything is checked before anything runs, each
output gets its name only when it is whole, and ``results/<profile>/runs/manifest.json`` remembers
what is done, so that a run that was stopped goes on where it stopped.
"""

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
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
from dmclib.files import whole, write_text
from dmclib.profiles import Step, plan


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
    runs = paths.RESULTS / profile / "runs"
    if dry_run:
        _show_plan(console, steps, [] if fresh else _finished(steps, _read_manifest(runs), runs))
        return
    with _locked(runs, profile), _announced():
        manifest = _read_manifest(runs)
        done = [] if fresh else _finished(steps, manifest, runs)
        for step in done:
            console.print(f"{step.name}: done already (--fresh runs it again)", highlight=False)
        left = steps[len(done) :]
        expected = [_expected_seconds(step, profile, manifest) for step in left]
        for k, step in enumerate(left):
            for name, entry in manifest.items():
                if name > step.name:  # made from what this notebook made before
                    entry["status"] = "outdated"
            entry = manifest.setdefault(step.name, {})
            entry |= {
                "fingerprint": step.fingerprint,
                "started": datetime.now(UTC).isoformat(timespec="seconds"),
                "status": "stopped",  # what is found here if this process dies
            }
            _write_manifest(runs, manifest)
            heading = f"[{len(done) + k + 1}/{len(steps)}] {step.name}"
            start = time.monotonic()
            with _progress(console, heading, expected[k:]):
                _execute(step, runs)
            entry |= {"seconds": round(time.monotonic() - start, 1), "status": "finished"}
            entry["result"] = _result(step, runs).is_file()
            _write_manifest(runs, manifest)
            console.print(f"{heading}: done in {_duration(entry['seconds'])}", markup=False)
    _show_results(console, profile)


def _read_manifest(runs: Path) -> dict:
    try:
        manifest = json.loads((runs / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # nothing is known to be done, so everything runs
    return manifest if isinstance(manifest, dict) else {}


def _write_manifest(runs: Path, manifest: dict) -> None:
    write_text(runs / "manifest.json", json.dumps(manifest, indent=2, sort_keys=True) + "\n")


def _finished(steps: list[Step], manifest: dict, runs: Path) -> list[Step]:
    """The first steps that need not run again, up to the first that must."""
    for k, step in enumerate(steps):
        entry = manifest.get(step.name, {})
        same = entry.get("fingerprint") == step.fingerprint and entry.get("status") == "finished"
        there = (runs / step.notebook.name).is_file()
        if not same or not there or (entry.get("result") and not _result(step, runs).is_file()):
            return steps[:k]
    return steps


def _result(step: Step, runs: Path) -> Path:
    """Where a notebook that measures something writes its numbers."""
    return runs.parent / f"{step.name}.json"


def _expected_seconds(step: Step, profile: str, manifest: dict) -> float | None:
    """How long it took last time here, else where the committed results were made, else None."""
    try:
        return manifest[step.name]["seconds"]
    except KeyError:
        pass
    try:
        return results.load(step.name, profile).seconds
    except DMCError:
        return None


@contextmanager
def _locked(runs: Path, profile: str) -> Iterator[None]:
    """Hold the profile's run folder; the system lets go of it when this process ends, however."""
    runs.mkdir(parents=True, exist_ok=True)
    with open(runs / "lock", "a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            raise DMCError(
                f"profile {profile} is being run by process {handle.read().strip()}: "
                "wait for it, or stop it first."
            ) from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        for left_over in runs.glob(".*.partial.ipynb"):
            left_over.unlink()
        yield


@contextmanager
def _announced() -> Iterator[None]:
    """Tell the kernels this process's number: the training they start ends when it is gone."""
    os.environ["DMC_RUNNER_PID"] = str(os.getpid())
    try:
        yield
    finally:
        del os.environ["DMC_RUNNER_PID"]


def _execute(step: Step, runs: Path) -> None:
    """Run one notebook to ``runs``; it has its name there only once it has run to its end."""
    target = runs / step.notebook.name
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
                cwd=paths.NOTEBOOKS,
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
    return f"{'at least' if None in expected else 'about'} {_duration(seconds)} left"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def _show_plan(console: Console, steps: list[Step], done: list[Step]) -> None:
    for step in steps:
        state = "done already" if step in done else "would run"
        console.print(f"{step.name}: {state}", markup=False, highlight=False)
        for key, value in step.parameters.items():
            console.print(f"    {key} = {value!r}", markup=False, highlight=False)


def _show_results(console: Console, profile: str) -> None:
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
