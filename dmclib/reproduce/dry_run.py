"""What a run would train: every training with the frames that it learns from, and hours.

Hours come from what ``dmc bench training`` has measured, and from nothing else.
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields

from rich.console import Console
from rich.table import Table

from dmclib import experiment, results
from dmclib.data import DataConfig
from dmclib.errors import DMCError
from dmclib.experiment import Setting
from dmclib.models import GeneratorConfig
from dmclib.reproduce import jobs
from dmclib.reproduce.profiles import Step, published
from dmclib.training import TrainConfig

# Of every notebook that trains; one has ``seed``, another ``seeds``.
PARAMETERS = {field.name for field in fields(Setting)} - {"seed"}


def show(console: Console, steps: Sequence[Step]) -> None:
    """Print the trainings of these notebooks, each once, and what they come to.

    Raises:
        DMCError: a prepared folder or a folder of videos does not hold what it should.
    """
    found = [(config, name, step.every) for step in steps for name, config in _trainings(step)]
    if not found:
        return
    rates, machine = _measured()
    table = Table(title="Trainings", title_justify="left")
    for column in ("training", "seed", "split", "epochs", "frames", "hours"):
        table.add_column(column, justify="left" if column == "training" else "right")
    clips: dict[DataConfig, int] = {}
    frames_left, hours_left, unknown = 0, 0.0, 0
    trainings = {config: (name, parameters) for config, name, parameters in reversed(found)}
    for config, (name, parameters) in reversed(trainings.items()):
        here, data = _at_hand(parameters), config.data
        if data not in clips:
            counted = len(data.open().clips("train")) if here else None
            clips[data] = counted or published(parameters)[data.split_number][0]
        frames = clips[data] * config.segments * config.epochs
        rate = rates.get((kind(config), config.size))
        hours = frames / rate / 3600 if rate else None
        if done := here and config.done:
            hours = None
        else:
            frames_left += frames
            hours_left += hours or 0
            unknown += hours is None
        last = "done" if done else "-" if hours is None else _hours(hours)
        numbers = (config.seed, data.split_number, config.epochs, f"{frames:,}", last)
        table.add_row(name, *map(str, numbers))
    if not console.is_terminal:
        console.width = max(console.width, 200)  # nothing is gained by folding lines in a file
    console.print(table)
    without = f", without the {unknown} that were not measured (-)" if unknown else ""
    text = (
        f"{len(trainings)} trainings; left are {frames_left:,} frames: {_hours(hours_left)} hours "
        f"{machine}{without}. Reading and decoding clips, validation and test are not in it."
    )
    if not all(_at_hand(parameters) for _, parameters in trainings.values()):
        text += (
            " The videos are not at hand: their numbers are the published ones, of which about a "
            "sixth is held out for validation and counted here."
        )
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def kind(config: TrainConfig) -> str:
    """What a step of a training costs by, size and batch aside; names a row of the measurement.

    L_mse costs nothing that one could see beside the rest, so ``cls`` and ``cls + MSE`` are one
    kind. L_mse alone needs no classifier, and a generator of another shape than the paper's is a
    kind of its own.
    """
    words = [config.stream]
    if config.network != "resnet18":
        words.append(config.network)
    if config.stream == "cue" and config.generator != GeneratorConfig():
        words.append(f"generator {config.generator}")
    if config.weights.adversarial:
        words.append("adversarial")
    if not config.weights.classification:
        words.append("without classifier")
    return ", ".join(words)


def _trainings(step: Step) -> Iterator[tuple[str, TrainConfig]]:
    """Name and config of what a notebook trains, seed by seed of each split."""
    every = step.every
    if not every.keys() >= PARAMETERS:
        return
    seeds = every.get("seeds") or [every["seed"]]
    for split in every.get("splits") or [every["split_number"]]:
        for seed in (*seeds, *every.get("further_seeds", ())):
            setting = Setting.of(every | {"seed": seed, "split_number": split})
            plain = experiment.trainings(setting)
            if seed in seeds[1:]:
                del plain[experiment.SINGLE_FRAME]  # notebook 06 trains it once
            if seed in seeds:
                yield from plain.items()
            if seed in every.get("further_seeds", ()):
                names = {config: name for name, config in plain.items()}
                more = experiment.further(setting)
                for name in every["further"]:
                    changed = more[name], plain[experiment.AGAINST[name]]
                    for config in (c for each in changed for c in jobs.with_ancestors(each)):
                        own = name if config == more[name] else f"{name}, a stage before"
                        yield names.get(config, own), config


def _measured() -> tuple[dict[tuple[str, int], float], str]:
    """Frames per second by kind and crop (px): on a GPU, else in profile laptop; and on what."""
    for profile in ("gpu", "laptop"):
        try:
            record = results.load("bench_training", profile)
        except DMCError:
            continue
        rows = record.rows.to_dict("records")
        rates = {(row["task"], row["size"]): row["frames_per_second"] for row in rows}
        if all(row["device"].startswith("cuda") for row in rows):
            return rates, f"on {record.machine['gpu']}"
        cores, cpu = record.machine["threads"], record.machine["cpu"]
        return rates, f"on {cores} cores of {cpu} (no GPU has been measured)"
    return {}, "(nothing has been measured: run dmc bench training)"


def _at_hand(parameters: dict) -> bool:
    """Whether the videos are there to be counted; puppets always are."""
    given = parameters["prepared_folder"] or parameters["data_folder"]
    return bool(given or not published(parameters))


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"
