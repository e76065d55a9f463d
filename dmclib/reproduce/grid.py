"""Which jobs a grid of seeds and splits has, and which notebooks follow them.

A job is one seed of one official split: a run of the training notebook, which trains every stream
and stage. What it has trained lies in the cache under what it follows from, so the split's other
notebooks, which run once for all seeds, find it done.
"""

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dmclib import paths
from dmclib.data import corpora, manifest
from dmclib.errors import ProfileError
from dmclib.reproduce.profiles import TRAINING, Step, plan, results_name


@dataclass(frozen=True)
class Part:
    """One split of a grid."""

    name: str  # of its folder of results, "ucf101-split2"
    split: int
    seeds: tuple[int, ...]
    jobs: tuple[Step, ...]  # one a seed
    others: tuple[Step, ...]  # in order, when the jobs are done


def numbers(text: str, option: str) -> list[int]:
    """What ``--seeds`` or ``--splits`` says, as ``0,1,2``; nothing for an empty text.

    Raises:
        ProfileError: something in it is no whole number, or comes twice.
    """
    words = [word.strip() for word in text.split(",")] if text else []
    for word in words:
        if not re.fullmatch(r"[0-9]{1,9}", word):
            raise ProfileError(f"{option} {text}: {word!r} is no whole number; write it as 0,1,2.")
    found = [int(word) for word in words]
    for number in found:
        if found.count(number) > 1:
            raise ProfileError(f"{option} {text}: {number} comes twice.")
    return found


def expand(
    profile: str,
    *,
    seeds: Sequence[int] = (),
    splits: Sequence[int] = (),
    only: Sequence[str] = (),
    settings: Sequence[str] = (),
    data: str | Path | None = None,
    dry: bool = False,
) -> list[Part]:
    """The parts of a grid, a split each; everything that can be checked before a run is checked.

    Args:
        profile, only, settings, data, dry: as :func:`profiles.plan` takes them.
        seeds: by default the profile's ``seeds``.
        splits: by default the profile's one.

    Raises:
        ProfileError: as :func:`profiles.plan` does; the profile trains nothing, or has no such
            split; or seeds or splits are said twice.
    """
    steps = plan(profile, settings=settings, data=data, dry=dry)
    every = _of_training(steps)
    if not every:
        raise ProfileError(
            f"profile {profile} does not run notebook {TRAINING}, which trains: there is nothing "
            "for --seeds and --splits."
        )
    for option, given, name in (("--seeds", seeds, "seeds"), ("--splits", splits, "split_number")):
        if given and _is_set(settings, name):
            raise ProfileError(f"give {option} or --set {name}=..., not both.")
    if splits:
        known = _splits(profile, every)
        for split in splits:
            if split not in known:
                raise ProfileError(
                    f"--splits: there is no split {split} of {_videos(every)}; there are "
                    f"{', '.join(map(str, known))}."
                )
    seeds = seeds or next((step.every["seeds"] for step in steps if "seeds" in step.every), None)
    seeds = seeds or [every.get("seed", 0)]
    parts = []
    for split in splits or [every.get("split_number")]:
        steps = plan(
            profile, only=only, settings=settings, data=data, split=split, seeds=seeds, dry=dry
        )
        jobs = tuple(step for step in steps if step.seed is not None)
        others = tuple(step for step in steps if step.seed is None)
        name = results_name(profile, split or 1)
        parts.append(Part(name, split or 1, tuple(seeds), jobs, others))
    return parts


def of_the_paper(profile: str, **how) -> list[Part]:
    """The grid that the paper has of a published data set, every split; none of another data set.

    Args:
        profile: ``ucf101``, say.
        how: ``only``, ``settings`` and ``data`` of :func:`expand`.
    """
    steps = plan(profile, settings=how["settings"], data=how["data"], dry=True)
    every = _of_training(steps)
    if not every or not published(every):
        return []
    said = _is_set(how["settings"], "split_number")
    return expand(profile, splits=() if said else _splits(profile, every), **how, dry=True)


def published(every: dict) -> corpora.Counts:
    """The published counts of the videos that a notebook with these parameters is about, if any."""
    return getattr(corpora.ADAPTERS.get(every.get("corpus")), "SPLITS", {})


def command(
    profile: str,
    parts: Sequence[Part],
    *,
    job: Step | None = None,
    only: Sequence[str] = (),
    settings: Sequence[str] = (),
    data: str | Path | None = None,
) -> str:
    """The command line that runs these parts of a grid, or one job of the one part given.

    Where the videos are not at hand, it names the place where ``dmc prepare`` puts them.

    Args:
        profile: the grid's.
        parts: which.
        job: which alone.
        only, settings, data: as the grid was given them.
    """
    every = (job or next(step for part in parts for step in (*part.jobs, *part.others))).every
    words = ["dmc", "reproduce", profile]
    if job is not None:
        only = [TRAINING]
        settings = [text for text in settings if _speaks_to(text, every)]
    if only:
        words += ["--only", ",".join(only)]
    words += ["--seeds", _joined([job.seed] if job else parts[0].seeds)]
    videos = every.get("prepared_folder") or every.get("data_folder")
    if videos or published(every):
        words += ["--splits", _joined(part.split for part in parts)]
        settings = [text for text in settings if not _is_set([text], "split_number")]
    if not videos and published(every):
        settings = [*settings, f"prepared_folder={default_folder(every)}"]
    for text in settings:
        words += ["--set", text]
    if data is not None:
        words += ["--data", str(data)]
    return shlex.join(words)


def _joined(found: Iterable[int]) -> str:
    return ",".join(map(str, found))


def default_folder(every: dict) -> str:
    """Where ``dmc prepare`` puts a data set, from the checkout where that is."""
    folder = paths.CACHE / "prepared" / every["corpus"]
    return str(folder.relative_to(paths.ROOT) if folder.is_relative_to(paths.ROOT) else folder)


def _of_training(steps: Sequence[Step]) -> dict:
    """All parameters of the training notebook; none where it does not run."""
    return next((step.every for step in steps if step.notebook.stem[:2] == TRAINING), {})


def _splits(profile: str, every: dict) -> list[int]:
    """The official splits that there are; 1 where clips are dealt by chance."""
    folder, prepared = every.get("data_folder"), every.get("prepared_folder")
    if "split_number" not in every:
        raise ProfileError(f"notebook {TRAINING} has no split_number: leave --splits out.")
    if prepared:
        known = manifest.read(prepared).lists
    elif folder:
        known = corpora.open_corpus(every["corpus"], folder).lists
    elif not (known := published(every)):
        raise ProfileError(
            f"profile {profile} draws its clips, which have no official splits: leave --splits out."
        )
    return sorted(known) or [1]


def _videos(every: dict) -> str:
    return str(every["prepared_folder"] or every["data_folder"] or every["corpus"])


def _is_set(settings: Sequence[str], name: str) -> bool:
    """Whether the command line sets this parameter, for all notebooks or for one."""
    return any(_parameter(text)[1] == name for text in settings)


def _speaks_to(text: str, every: dict) -> bool:
    """Whether a setting is for the training notebook, and not for others alone."""
    notebook, name = _parameter(text)
    return name in every and notebook[:2] in ("", TRAINING)


def _parameter(text: str) -> tuple[str, str]:
    """The notebook, or nothing, and the parameter of ``06.parameter=value``."""
    notebook, _, name = text.partition("=")[0].strip().rpartition(".")
    return notebook, name
