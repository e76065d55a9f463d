"""What a run would train: every training with the frames that it learns from, and hours.

Hours come from what ``dmc bench training`` has measured, and from nothing else.
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields

from rich.console import Console
from rich.table import Table

from dmclib import experiment, results
from dmclib.errors import DMCError
from dmclib.experiment import Setting
from dmclib.models import GeneratorConfig
from dmclib.reproduce.profiles import Step, published
from dmclib.training import TrainConfig

PARAMETERS = {field.name for field in fields(Setting)}  # of every notebook that trains


def show(console: Console, steps: Sequence[Step]) -> None:
    """Print the trainings of these notebooks, each once, and what they come to."""
    if not console.is_terminal:
        console.width = max(console.width, 200)  # nothing is gained by folding lines in a file
    rates, machine = _measured()
    table = Table(title="Trainings", title_justify="left")
    for column in ("training", "seed", "split", "epochs", "frames", "hours"):
        table.add_column(column, justify="left" if column == "training" else "right")
    seen, counts, frames_left, hours_left, unknown = set(), {}, 0, 0.0, 0
    for name, config, parameters in _trainings(steps):
        if config in seen:
            continue
        seen.add(config)
        at_hand = _at_hand(parameters)
        if config.data not in counts:
            counts[config.data] = (
                len(config.data.open().clips("train"))
                if at_hand
                else published(parameters)[config.data.split_number][0]
            )
        frames = counts[config.data] * config.segments * config.epochs
        rate = rates.get((kind(config), config.size))
        hours, done = frames / rate / 3600 if rate else None, at_hand and config.done
        if not done:
            frames_left += frames
            hours_left += hours or 0
            unknown += hours is None
        said = "done" if done else "-" if hours is None else f"{hours:,.3g}"
        numbers = (config.seed, config.data.split_number, config.epochs, f"{frames:,}", said)
        table.add_row(name, *map(str, numbers))
    if not seen:
        return
    console.print(table)
    lines = [
        f"{len(seen)} trainings, {frames_left:,} frames to learn from: {hours_left:,.3g} hours"
    ]
    lines[0] += f" {machine}" + (
        f", without {unknown} that were not timed (-)." if unknown else "."
    )
    lines.append("Reading and decoding clips, validation and test are not in it.")
    if not all(_at_hand(step.every) for step in steps if step.every.keys() >= PARAMETERS):
        lines.append(
            "The videos are not at hand: their numbers are the published ones, of which about a "
            "sixth is held out for validation and counted here."
        )
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def kind(config: TrainConfig) -> str:
    """What a step of a training costs by, size and batch aside; names a row of the measurement.

    L_mse costs nothing that one could see beside the rest, so ``cls`` and ``cls + MSE`` are one
    kind. A generator of another shape than the paper's is a kind of its own.
    """
    words = [config.stream]
    if config.network != "resnet18":
        words.append(config.network)
    if config.stream == "cue" and config.generator != GeneratorConfig():
        words.append(f"generator {config.generator}")
    if config.weights.adversarial:
        words.append("adversarial")
    return ", ".join(words)


def _trainings(steps: Sequence[Step]) -> Iterator[tuple[str, TrainConfig, dict]]:
    """Name, config and the notebook's parameters of what the notebooks train, seed by seed."""
    for every in (step.every for step in steps if step.every.keys() >= PARAMETERS):
        seeds = every.get("seeds") or [every["seed"]]
        for split in every.get("splits") or [every["split_number"]]:
            for seed in seeds:
                setting = Setting.of(every | {"seed": seed, "split_number": split})
                for name, config in experiment.trainings(setting).items():
                    if name != experiment.SINGLE_FRAME or seed == seeds[0]:
                        yield name, config, every
            for seed in every.get("further_seeds", ()):
                setting = Setting.of(every | {"seed": seed, "split_number": split})
                plain, further = experiment.trainings(setting), experiment.further(setting)
                for name in every["further"]:
                    against = experiment.AGAINST[name]
                    yield against, plain[against], every
                    yield name, further[name], every


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
