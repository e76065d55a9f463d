"""A whole corpus: which videos are still to do, who does them, and what the folder then holds."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from tqdm.auto import tqdm

from dmclib import cluster, files
from dmclib import flow as optical_flow
from dmclib.cluster import Workers
from dmclib.data import lists, manifest
from dmclib.data.corpus import Corpus, Video
from dmclib.errors import DatasetError, DMCError, OutputError
from dmclib.prepare import video
from dmclib.prepare.video import Task

FLOWS = (*get_args(optical_flow.Method), "none")
QUICK = "dis"  # TV-L1, the paper's, takes core-days for a whole corpus: never without being asked
PATIENCE_SECONDS = 600  # that a worker may take for one transcoding, or one field of flow

_PARTIAL = re.compile(r"\..+\.\w+\.partial(\.\w+)?", re.DOTALL)  # as files.whole names them


@dataclass(frozen=True)
class PrepareReport:
    """How a run ended."""

    folder: Path
    made: int  # videos prepared by this run
    kept: int  # videos that were prepared already
    quarantined: dict[str, str]  # name -> why it could not be prepared
    left_over: int  # videos prepared once that the corpus does not have any more
    frames: int  # of all clips
    clip_bytes: int
    flow: str  # how it was made
    flow_bytes: int

    def __str__(self) -> str:
        text = (
            f"{self.made:,} videos prepared, {self.kept:,} already were: {self.frames:,} frames, "
            f"{self.clip_bytes / 1e6:,.1f} MB of clips, {self.flow_bytes / 1e6:,.1f} MB of flow "
            f"({self.flow})."
        )
        if self.left_over:
            text += f" {self.left_over:,} others have left the corpus; --verify names their files."
        if self.quarantined:
            text += f" {len(self.quarantined):,} could not be prepared; quarantine.json says why."
            one = min(self.quarantined.values())
            text += f" One: {one if one.isprintable() else ascii(one)}"  # it may hold a file's name
        return text


class Quarantined(DatasetError):
    """The run is over, and some videos could not be prepared; ``report`` holds them."""

    exit_code = 1

    def __init__(self, report: PrepareReport):
        super().__init__(str(report))
        self.report = report


def prepare(
    corpus: Corpus,
    out: str | Path,
    *,
    flow: str | None = None,
    jobs: int | None = None,
    scheduler: str | None = None,
    keep_going: bool = False,
) -> PrepareReport:
    """Prepare every video of a corpus, going on where an earlier run stopped.

    A video that fails or takes its worker with it is tried once more, then left out and listed in
    ``quarantine.json``; another run tries it again.

    Args:
        corpus: what :mod:`dmclib.data.corpora` reads.
        out: folder as :mod:`dmclib.data.manifest` describes, apart from the corpus's folder.
        flow: one of :data:`FLOWS`; by default what the folder holds, or :data:`QUICK` in a new one.
        jobs: videos at once on this machine; one per core by default.
        scheduler: address of a Dask scheduler, ``tcp://host:port``, to run there instead. Its
            workers need this package, and both folders at the same paths.
        keep_going: return the report also if videos were quarantined.

    Raises:
        Quarantined: some videos could not be prepared, all others are, and not ``keep_going``.
        DatasetError: ``out`` is in use, holds something else or flow of another method, or overlaps
            the corpus's folder; or a name would lead out of it.
        DMCError: a file cannot be written, flow cannot be computed here, or the cluster cannot be
            reached or fails. What is done stays done.
    """
    out = Path(out).resolve()
    if flow is not None and flow not in FLOWS:
        raise DMCError(f"There is no flow {flow!r}; choose {', '.join(FLOWS)}.")
    if jobs is not None and jobs < 1:
        raise DMCError(f"{jobs} jobs at once do nothing; give 1 or more.")
    _check_places(corpus, out)
    try:
        with _claimed(out, corpus.name, flow) as method:
            settings = {"codec": video.codec_settings(corpus.letterbox)}
            settings["flow"] = video.flow_settings(method)
            _clean(out)
            try:
                made, quarantined = _make(corpus, out, settings, jobs, scheduler)
            finally:
                _clean(out)  # workers that are lost leave theirs behind
            report = _describe(corpus, out, settings, made, quarantined)
    except OSError as problem:
        raise OutputError(video.cannot_write(problem, out)) from problem
    if report.quarantined and not keep_going:
        raise Quarantined(report)
    return report


def _make(
    corpus: Corpus, out: Path, settings: dict, jobs: int | None, scheduler: str | None
) -> tuple[int, dict[str, str]]:
    """Do the tasks that are not done; give how many made something, and name -> why one failed."""
    tasks = [Task(v.name, os.path.abspath(v.source), str(out), **settings) for v in corpus.videos]
    todo = [task for task in tasks if not video.is_done(task)]
    made, quarantined = 0, {}
    if not todo:
        return made, quarantined
    (out / manifest.FILE).unlink(missing_ok=True)  # it is there only when all that it names is
    done = len(tasks) - len(todo)
    with (
        cluster.workers(jobs, scheduler=scheduler) as workers,
        tqdm(desc=f"prepare {corpus.name}", total=len(tasks), initial=done, unit="video") as bar,
    ):
        for name, answer in _answers(workers, todo):
            if isinstance(answer, str):
                quarantined[name] = answer
                bar.set_postfix(quarantined=len(quarantined))
            else:
                made += answer
            bar.update()
    for path in (path for name in quarantined for path in video.places(out, name)):
        path.unlink(missing_ok=True)  # made of a source that has since been replaced
    return made, dict(sorted(quarantined.items()))


def _answers(workers: Workers, tasks: Sequence[Task]) -> Iterator[tuple[str, bool | str]]:
    """Give each video's name with what :func:`video.make` answers the first or the second time."""
    failed = []
    for (task,), answer in _each(workers, [(task,) for task in tasks]):
        if isinstance(answer, str):
            failed.append((task,))
        else:
            yield task.name, _said(task, answer)
    for (task,), answer in _each(workers, failed):
        yield task.name, _said(task, answer)


def _each(workers: Workers, jobs: Sequence[tuple[Task]]) -> Iterator[tuple]:
    return workers.each_twice(video.make, jobs, patience_seconds=PATIENCE_SECONDS)


def _said(task: Task, answer: Any) -> bool | str:
    if answer is not cluster.LOST:
        return answer
    return (
        f"{task.name}: the process that prepared it was lost, twice: it crashed, ran out of "
        f"memory, or did nothing for {PATIENCE_SECONDS:g} seconds."
    )


def _describe(
    corpus: Corpus, out: Path, settings: dict, made: int, quarantined: dict[str, str]
) -> PrepareReport:
    """Write what the folder now holds, and say it."""
    entries = {v.name: _entry(out, v) for v in corpus.videos if v.name not in quarantined}
    video.check_inside(out, out / "lists")
    lists.write(out / "lists", corpus.classes, corpus.lists)
    files.write_text(out / "quarantine.json", json.dumps(quarantined, indent=1) + "\n")
    content = manifest.Manifest(
        dataset=corpus.name,
        classes=corpus.classes,
        missing=len(corpus.missing),
        quarantined=tuple(quarantined),
        lists={
            number: {side: tuple(filter(entries.get, names)) for side, names in sides.items()}
            for number, sides in corpus.lists.items()
        },
        entries=entries,
        **settings,
    )
    manifest.write(out, content)
    known = {str(video.places(out, v.name)[2]) for v in corpus.videos}
    recorded = (os.path.join(f, n) for f, _, names in os.walk(out / "records") for n in names)
    return PrepareReport(
        folder=out,
        made=made,
        kept=len(entries) - made,
        quarantined=quarantined,
        left_over=sum(path not in known for path in recorded),
        frames=sum(entry.frames for entry in entries.values()),
        clip_bytes=sum(entry.clip_bytes for entry in entries.values()),
        flow=(settings["flow"] or {"method": "none"})["method"],
        flow_bytes=sum(entry.flow_bytes or 0 for entry in entries.values()),
    )


def _entry(out: Path, published: Video) -> manifest.Entry:
    """What the manifest says of a video that is done."""
    clip, field_file, record = video.places(out, published.name)
    made = video.read_record(record)
    described, flow = made["clip"], made["flow"] or {}
    return manifest.Entry(
        name=published.name,
        label=published.label,
        clip=clip.relative_to(out).as_posix(),
        flow=field_file.relative_to(out).as_posix() if flow else None,
        width=described["width"],
        height=described["height"],
        frames=described["frames"],
        source_bytes=made["source"]["bytes"],
        source_sha256=made["source"]["sha256"],
        clip_bytes=described["bytes"],
        clip_sha256=described["sha256"],
        flow_bytes=flow.get("bytes"),
        flow_sha256=flow.get("sha256"),
    )


def _check_places(corpus: Corpus, out: Path) -> None:
    """Refuse folders inside each other, and names that could lead out of the folder."""
    root = corpus.root.resolve()
    if out.is_relative_to(root) or root.is_relative_to(out):
        raise DatasetError(
            f"The output {out} and the videos in {root} must not be, or lie in, one another. Give "
            "another folder (--out)."
        )
    for name in (each.name for each in corpus.videos):
        parts = name.split("/")
        if len(parts) != 2 or any(p in ("", ".", "..") or "\0" in p for p in parts):
            raise DatasetError(f"The name {name!r} is not '<class>/<file>'; rename it.")


@contextmanager
def _claimed(out: Path, dataset: str, flow: str | None) -> Iterator[str]:
    """Hold a folder for this run alone, only one that is ours to write into; give its flow."""
    lock = out / video.LOCK
    out.mkdir(parents=True, exist_ok=True)
    if not lock.is_file() and any(out.iterdir()):
        raise DatasetError(
            f"{out} holds other things, and no prepared videos. Give a new or an empty folder."
        )
    busy = f"Another `dmc prepare` is at work in {out}. Wait for it, or give another folder."
    with files.held(lock, busy=lambda: DatasetError(busy)):
        said = lock.read_text(encoding="utf-8", errors="replace")
        owner, _, held = said.partition("\n")
        if owner not in ("", dataset):
            raise DatasetError(
                f"{out} holds prepared videos of {owner[:80]!r}, not of {dataset}. Give another "
                "folder (--out)."
            )
        # Flow may have taken days: it is never made anew by another method in the same place.
        if held and flow not in (None, held):
            raise DatasetError(
                f"{out} holds flow by {held[:80]}, not {flow}. Go on with that one, or give "
                "another folder (--out)."
            )
        method = flow or held or QUICK
        words = dataset if method == "none" else f"{dataset}\n{method}"
        if said != words:
            lock.write_text(words, encoding="utf-8")  # in place: the lock hangs on this very file
        yield method


def _clean(out: Path) -> None:
    """Remove what killed runs have left half-written; links are not followed."""
    for folder in (out, *(out / part for part in ("clips", "flow", "records", "lists"))):
        for inside, folders, names in os.walk(folder):
            if folder == out:
                folders.clear()
            for name in filter(_PARTIAL.fullmatch, names):
                os.unlink(os.path.join(inside, name))
