"""A generator that is kept with the results, for ``dmc demo``."""

from pathlib import Path

from dmclib import models, paths, training, weights
from dmclib.errors import CheckpointError
from dmclib.training import TrainConfig


def generator_file(profile: str) -> Path:
    """The file of :func:`save_generator`."""
    return paths.RESULTS / profile / "06_generator.safetensors"


def save_generator(config: TrainConfig, profile: str) -> Path:
    """Keep a training's generator, without its classifier, in ``results/<profile>``: some 20 kB.

    Raises:
        CheckpointError: ``config`` has not been trained.
    """
    path = generator_file(profile)
    note = {"data": config.data.open().name, "height": str(config.data.scaled_to or 0)}
    weights.write(training.load_networks(config).generator.state_dict(), path, note)
    return path


def load_generator(profile: str) -> tuple[models.DenseGenerator, int | None, str]:
    """What :func:`save_generator` kept: the generator in evaluation mode, height and data set.

    To that height, px, frames were scaled in its training; None: they were not.

    Raises:
        CheckpointError: the file is missing, damaged or without that height.
    """
    path, remedy = generator_file(profile), f"dmc reproduce {profile} --only 06"
    if not path.exists():
        raise CheckpointError(f"no generator of profile {profile} is trained: {remedy} makes one.")
    generator, note = models.DenseGenerator().eval(), weights.read_note(path)
    weights.load(generator, path)
    height = note.get("height", "")
    if not height.isdecimal():
        raise CheckpointError(
            f"{path} does not say the height of the frames that it was trained on: write it again "
            f"with {remedy}."
        )
    return generator, int(height) or None, note.get("data", "unnamed videos")
