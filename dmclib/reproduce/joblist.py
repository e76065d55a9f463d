"""What a grid's dry run says of every job: its command, what it reads and writes, and how long.

Hours come from what ``dmc bench training`` has measured, and from nothing else: where it has not,
there are none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import training
from dmclib import experiment, paths, results
from dmclib.data import DataConfig
from dmclib.errors import DMCError
from dmclib.reproduce import grid
from dmclib.reproduce.grid import Part
from dmclib.reproduce.profiles import Step
from dmclib.reproduce.runs import Runs
from dmclib.training import TrainConfig


@dataclass(frozen=True)
class Speed:
    """How many frames a second a machine trains on."""

    frames_per_second: dict[tuple[str, int], float]  # (kind of training, crop in px) -> frames
    hours: str  # what kind of hours they make
    says: str  # ``{hours}`` is where their number goes


@dataclass(frozen=True)
class Training:
    """One training of a job."""

    name: str
    config: TrainConfig
    frames: int  # that it learns from, each as often as it is seen
    hours: float | None  # None: a training of this kind and size was not measured
    place: str  # its folder in ``cache/training``
    done: bool


def show(
    console: Console, profile: str, parts: Sequence[Part], *, fresh: bool = False, **how
) -> None:
    """Print every job of a grid, the notebooks that follow, and what it comes to.

    Args:
        console: where to.
        profile: as the grid was given it, and
        how: ``only``, ``settings`` and ``data`` likewise.
        parts: the grid.
        fresh: jobs that are done run again.
    """
    if not console.is_terminal:
        console.width = max(console.width, 200)  # nothing is gained by folding lines in a file
    speed, total = measured(), []
    _line(console, f"All of this: {grid.command(profile, parts, **how)}\n")
    count = sum(len(part.jobs) for part in parts)
    number = 0
    for part in parts:
        runs = Runs(part.name)
        for job in part.jobs:
            number += 1
            done = runs.is_done(job) and not fresh
            state = "done already" if done else "would run"
            _line(console, f"[{number}/{count}] {part.name}: {job.name}: {state}")
            _line(console, f"  command  {grid.command(profile, [part], job=job, **how)}")
            every = job.every
            made = trainings(every, speed)
            _line(console, f"  reads    {_reads(every, made)}")
            _line(console, f"  writes   {_writes(runs, job)}")
            console.print(_table(made, speed))
            total += [] if done else made
        if part.others:
            then = "then " if part.jobs else ""
            names = ", ".join(step.name for step in part.others)
            _line(console, f"{part.name}: {then}{names}")
            _line(console, f"  command  {grid.command(profile, [part], **how)}")
            _line(console, f"  writes   {_short(runs.folder.parent)}, figures/{part.name}\n")
    for sentence in _summary(total, count, speed, parts) if count else ():
        _line(console, sentence)


def measured() -> Speed:
    """What ``dmc bench training`` has found: on a GPU, else in profile laptop, else nothing."""
    for profile in ("gpu", "laptop"):
        try:
            record = results.load("bench_training", profile)
        except DMCError:
            continue
        rows = record.rows.to_dict("records")
        rates = {(row["task"], row["size"]): row["frames_per_second"] for row in rows}
        if all(row["device"].startswith("cuda") for row in rows):
            gpu = record.machine["gpu"]
            return Speed(rates, "GPU hours", f"{{hours}} GPU hours, measured on {gpu}.")
        return Speed(
            rates,
            "machine hours",
            f"no GPU has been measured: {{hours}} machine hours on {record.machine['threads']} "
            f"cores of {record.machine['cpu']}, as measured by dmc bench training; run that on a "
            "GPU (--profile gpu) for GPU hours.",
        )
    return Speed({}, "hours", "no hours: nothing has been measured; run dmc bench training.")


def trainings(every: dict, speed: Speed) -> list[Training]:
    """The trainings of one job.

    Args:
        every: all parameters of the training notebook. Of a published data set the videos need not
            be at hand: its counts are the published ones then.
        speed: what makes the hours.

    Raises:
        DMCError: a prepared folder or a folder of videos does not hold what it should.
    """
    at_hand = _at_hand(every)
    counts: dict[DataConfig, int] = {}
    found = []
    for name, config in experiment.trainings(experiment.Setting.of(every)).items():
        if config.data not in counts:
            counts[config.data] = _clips(every, config.data)[0]
        frames = counts[config.data] * config.segments * config.epochs
        rate = speed.frames_per_second.get((training.kind(config), config.size))
        hours = None if rate is None else frames / rate / 3600
        place, done = (config.key, config.done) if at_hand else ("<key>", False)
        found.append(Training(name, config, frames, hours, place, done))
    return found


def _at_hand(every: dict) -> bool:
    """Whether the videos are there to be counted; puppets always are."""
    given = every["prepared_folder"] or every["data_folder"]
    return bool(given or not grid.published(every))


def _clips(every: dict, data: DataConfig) -> tuple[int, int]:
    """Clips to train on and to test on."""
    if not _at_hand(every):
        return grid.published(every)[data.split_number]
    dataset = data.open()
    return len(dataset.clips("train")), len(dataset.clips("test"))


def _reads(every: dict, made: Sequence[Training]) -> str:
    train, test = _clips(every, made[0].config.data)
    counts = f"{train:,} clips to train on, {test:,} to test on"
    if _at_hand(every):
        place = every["prepared_folder"] or every["data_folder"] or "drawn puppets"
        return f"{_short(place)}: {counts}"
    root = f"dmc prepare {every['corpus']} --root FOLDER --flow tvl1"
    return f"{grid.default_folder(every)} (made by {root}): {counts}, as published"


def _writes(runs: Runs, job: Step) -> str:
    trained = f"{_short(paths.CACHE / 'training')}/<key>, as below"
    return f"{_short(runs.executed(job))}, {_short(runs.result(job))}, {trained}"


def _table(made: Sequence[Training], speed: Speed) -> Table:
    table = Table("training", "looks at", "starts from", title_justify="left")
    for column in ("epochs", "frames", speed.hours):
        table.add_column(column, justify="right")
    table.add_column("key")
    for one in made:
        hours = "done" if one.done else "-" if one.hours is None else _hours(one.hours)
        numbers = (f"{one.config.epochs}", f"{one.frames:,}", hours)
        start = _start(one.config, made)
        table.add_row(one.name, training.kind(one.config), start, *numbers, one.place)
    return table


def _start(config: TrainConfig, made: Sequence[Training]) -> str:
    if config.start_from is not None:
        names = [one.name for one in made if one.config == config.start_from]
        return f"checkpoint of {names[0] if names else config.start_from.stream}"
    return "weights by chance" if config.initial is None else f"ImageNet: {config.initial}"


def _summary(
    total: Sequence[Training], jobs: int, speed: Speed, parts: Sequence[Part]
) -> list[str]:
    left = [one for one in total if not one.done]
    counted = [one.hours for one in left if one.hours is not None]
    frames = sum(one.frames for one in left)
    said = [f"In all: jobs {jobs}, trainings to do {len(left)}, frames {frames:,}."]
    said.append(f"Estimate: {speed.says.format(hours=_hours(sum(counted)))}")
    if speed.frames_per_second and len(counted) < len(left):
        missing = len(left) - len(counted)
        said.append(f"Not in it, for want of a measurement (-): trainings {missing}.")
    said.append(
        "That is training steps, their batches ready in memory: reading and decoding clips, "
        "validation and test are not in it."
    )
    if not _at_hand(next(job.every for part in parts for job in part.jobs)):
        said.append(
            "Counts of clips are the published ones: about a sixth of those to train on is held "
            "out for validation, and is counted as trained on here."
        )
    return said


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"


def _short(path: str | Path) -> str:
    path = Path(path)
    return str(path.relative_to(paths.ROOT) if path.is_relative_to(paths.ROOT) else path)


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
