"""The notebooks of a profile in order, or a grid of its seeds and splits.

Papermill alone only warns about a parameter that a notebook lacks, and starts from the first
notebook every time. So here everything is checked before anything runs, and :class:`runs.Runs`
remembers what is done.
"""

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from dmclib import cluster, files, paths, results
from dmclib.data import corpora
from dmclib.errors import DMCError
from dmclib.reproduce import execute, grid
from dmclib.reproduce.execute import NotebookFailed
from dmclib.reproduce.grid import Part
from dmclib.reproduce.profiles import Step, plan
from dmclib.reproduce.runs import Runs

Job = tuple[Part, Step]  # one of the part's jobs


def reproduce(
    profile: str = "laptop",
    *,
    seeds: Sequence[int] = (),
    splits: Sequence[int] = (),
    scheduler: str | None = None,
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
        seeds, splits: make it a grid (:mod:`grid`): the training notebook for each seed of each
            split, then, split by split, the others. The dry run of a published data set is that of
            the paper's grid where neither is given.
        scheduler: address of a Dask scheduler, ``tcp://host:port``, whose workers run the grid's
            trainings. They must see this checkout and its cache at the same paths.
        fresh: run again what is done already.
        dry_run: say what would run, with which parameters, and run nothing.
        console: where progress is printed; standard output by default.

    Raises:
        NotebookFailed: at the first error; its half-run notebook ends in ``.failed.ipynb``. In a
            grid all that does not depend on it runs first.
        DMCError: as :func:`plan` does, if the same profile is being run by another process, or the
            cluster cannot be used.
    """
    console = console or Console()
    how = {"only": only, "settings": settings, "data": data}
    if seeds or splits:
        parts = grid.expand(profile, seeds=seeds, splits=splits, **how, dry=dry_run)
    elif scheduler is not None:
        raise DMCError("--scheduler runs the trainings of a grid: give --seeds or --splits too.")
    else:
        parts = grid.of_the_paper(profile, **how) if dry_run else []
    if not parts:
        _reproduce_one(profile, how, fresh, dry_run, console)
    elif dry_run:
        from dmclib.reproduce import (
            joblist,
        )  # its trainings need torchvision, which takes seconds to import

        joblist.show(console, profile, parts, fresh=fresh, **how)
    else:
        _reproduce_grid(parts, scheduler, fresh, console)


def _reproduce_one(profile: str, how: dict, fresh: bool, dry_run: bool, console: Console) -> None:
    steps = plan(profile, **how)
    if how["data"] is not None:
        word = next((step.every["corpus"] for step in steps if "corpus" in step.every), "folder")
        for sentence in corpora.open_corpus(word, how["data"]).summary():
            console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    # Another split of the same profile has a name, and so results, of its own.
    profile = next((s.parameters["profile"] for s in steps if "profile" in s.parameters), profile)
    runs = Runs(profile)
    if dry_run:
        _show_plan(console, steps, [] if fresh else runs.done_first(steps))
        return
    with runs.held(), execute.announced():
        _in_order(steps, runs, fresh, console)
    _show_results(console, profile)


def _reproduce_grid(
    parts: Sequence[Part], scheduler: str | None, fresh: bool, console: Console
) -> None:
    """Run the jobs, and the other notebooks of each part when its own are done."""
    runs = {part.name: Runs(part.name) for part in parts}
    failures: list[NotebookFailed] = []
    with ExitStack() as stack:
        for each in runs.values():
            stack.enter_context(each.held())
        stack.enter_context(execute.announced())
        todo: list[Job] = []
        for part in parts:
            for job in part.jobs:
                if fresh or not runs[part.name].is_done(job):
                    todo.append((part, job))
                else:
                    _say_done(console, f"{part.name}: {job.name}")
        left = {part.name: [job.name for each, job in todo if each is part] for part in parts}
        failed = {part.name: [] for part in parts}

        def go_on(part: Part) -> None:
            """Run what follows the jobs of a part, if they are through."""
            names = ", ".join(step.name for step in part.others)
            if left[part.name] or not names:
                return
            if failed[part.name]:
                what = f"{part.name}: {names}: not run, for want of {', '.join(failed[part.name])}"
                console.print(what, markup=False, highlight=False, soft_wrap=True)
                return
            console.print(f"{part.name}:", markup=False, highlight=False)
            try:
                _in_order(part.others, runs[part.name], fresh, console)
            except NotebookFailed as failure:
                failures.append(failure)

        for part in parts:
            go_on(part)
        if scheduler is None:
            work = _one_after_the_other(todo, runs, console)
        else:
            work = _on_cluster(scheduler, todo, runs, console)
        for part, job, failure in stack.enter_context(closing(work)):
            left[part.name].remove(job.name)
            if failure is not None:
                failures.append(failure)
                failed[part.name].append(job.name)
            go_on(part)
    for part in parts:
        _show_results(console, part.name)
    if failures:
        told = "\n\n".join(map(str, failures))
        raise NotebookFailed(
            f"{told}\n\n{len(failures)} failed; all that does not depend on them was run."
        )


def _one_after_the_other(
    todo: Sequence[Job], runs: Mapping[str, Runs], console: Console
) -> Iterator[tuple[Part, Step, NotebookFailed | None]]:
    """Run jobs here; give each when it is over, and how it failed if it did."""
    expected = [runs[part.name].expected_seconds(job) for part, job in todo]
    for k, (part, job) in enumerate(todo):
        heading = f"[{k + 1}/{len(todo)}] {part.name}: {job.name}"
        try:
            _run_one(job, runs[part.name], heading, expected[k:], console)
        except NotebookFailed as failure:
            yield part, job, failure
        else:
            yield part, job, None


def _on_cluster(
    scheduler: str, todo: Sequence[Job], runs: Mapping[str, Runs], console: Console
) -> Iterator[tuple[Part, Step, NotebookFailed | None]]:
    """Hand jobs to a cluster's workers; give each when it is over, as above."""
    if not todo:
        return
    token = paths.CACHE / f"seen-by-workers-{uuid.uuid4().hex}"
    files.write_text(token, "")
    try:
        with cluster.executor(scheduler) as workers:
            futures = {}
            for part, job in todo:
                runs[part.name].begin(job)
                task = execute.task(job, runs[part.name].executed(job), token)
                futures[workers.submit(execute.on_worker, task)] = part, job
            console.print(f"jobs handed to {scheduler}: {len(todo)}", highlight=False)
            for k, future in enumerate(as_completed(futures), start=1):
                part, job = futures[future]
                heading = f"[{k}/{len(todo)}] {part.name}: {job.name}"
                try:
                    answer = future.result()
                except DMCError:
                    raise
                except Exception as problem:  # a job that its workers died of, say
                    what = f"{type(problem).__name__}: {problem}"
                    answer = {"failed": f"{part.name}: {job.name} was lost on the cluster ({what})"}
                if "stop" in answer:
                    raise DMCError(answer["stop"])
                if "failed" in answer:
                    console.print(f"{heading}: failed", markup=False)
                    yield part, job, NotebookFailed(answer["failed"])
                else:
                    runs[part.name].finish(job, answer["seconds"])
                    _say_ended(console, heading, answer["seconds"])
                    yield part, job, None
    finally:
        token.unlink(missing_ok=True)


def _in_order(steps: Sequence[Step], runs: Runs, fresh: bool, console: Console) -> None:
    """Run notebooks from the first that is not done to the last, or to the first that fails."""
    done = [] if fresh else runs.done_first(steps)
    for step in done:
        _say_done(console, step.name)
    left = steps[len(done) :]
    expected = [runs.expected_seconds(step) for step in left]
    for k, step in enumerate(left):
        heading = f"[{len(done) + k + 1}/{len(steps)}] {step.name}"
        _run_one(step, runs, heading, expected[k:], console)


def _run_one(
    step: Step, runs: Runs, heading: str, expected: list[float | None], console: Console
) -> None:
    """Run one notebook, with a line that counts, and remember that it is done.

    ``expected`` holds seconds of this notebook and of each that is to follow, or None.
    """
    runs.begin(step)
    start = time.monotonic()
    with _progress(console, heading, expected):
        execute.execute(step, runs.executed(step))
    seconds = time.monotonic() - start
    runs.finish(step, seconds)
    _say_ended(console, heading, seconds)


def _say_done(console: Console, name: str) -> None:
    console.print(f"{name}: done already (--fresh runs it again)", highlight=False)


def _say_ended(console: Console, heading: str, seconds: float) -> None:
    console.print(f"{heading}: done in {_duration(seconds)}", markup=False)


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
