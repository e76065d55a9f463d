"""A corpus made ready for training: every video re-encoded, with its flow, and a manifest.

Each video is one task: transcode to 340x256 (in its own shape if the corpus says so), GOP 12,
quantizer 1 (paper, 4.2), then the flow between successive frames of the *prepared* clip, which are
the ones that a training sees. Tasks run on the cores of this machine or, unchanged, on a Dask
cluster; both are a ``concurrent.futures`` executor. A task's work is done in a child process
(``children``), so that a video may crash or hang its decoder without harm.

A run may be killed at any moment; the next one makes again what was in hand, and nothing else. The
manifest and the quarantine are written at the end, and do not show how often that happened.
"""

import fcntl
import os
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

from tqdm.auto import tqdm

from dmclib import cluster, prepare_one
from dmclib import flow as optical_flow
from dmclib.children import ChildLost, Team
from dmclib.data import manifest
from dmclib.data.corpora import Corpus
from dmclib.errors import DatasetError, DMCError, OutputError

FLOWS = (*get_args(optical_flow.Method), "none")
QUICK = "dis"  # TV-L1, the paper's, takes core-days for a whole corpus: never without being asked
PATIENCE_SECONDS = 600  # that a child may take for one transcoding, or one field of flow
CHILD = (sys.executable, "-P", "-c", "from dmclib import prepare_one; prepare_one.child()")

_PARTIAL = re.compile(r"\..+\.\d+\.partial(\.\w+)?", re.DOTALL)  # as files.whole names them


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
            text += (
                f" {self.left_over:,} prepared videos are not in the corpus any more; --verify "
                "names their files."
            )
        if self.quarantined:
            text += (
                f" {len(self.quarantined):,} could not be prepared; quarantine.json says why. One: "
                f"{_printable(min(self.quarantined.values()))}"
            )
        return text


class Quarantined(DatasetError):
    """The run is over, and some videos could not be prepared; ``report`` holds them."""

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

    The folder is described in ``manifest``. A video that fails is tried once more in a fresh
    process, then left out and listed in ``quarantine.json``; another run tries it again.

    Args:
        corpus: what :mod:`corpora` reads.
        out: folder of its own, new or from an earlier run; apart from the corpus's folder.
        flow: one of :data:`FLOWS`; by default what the folder holds, or :data:`QUICK` in a new one.
        jobs: videos at once on this machine; one a core by default.
        scheduler: address of a Dask scheduler, ``tcp://host:port``, to run there instead. Its
            workers need this package, and both folders at the same paths.
        keep_going: return the report also if videos were quarantined.

    Raises:
        Quarantined: some videos could not be prepared, all others are, and not ``keep_going``.
        DatasetError: ``out`` is in use, holds something else or flow of another method, or overlaps
            the corpus's folder; or a name would lead out of it.
        DMCError: a file cannot be written, as on a full disk; flow cannot be computed here; the
            cluster cannot be reached or fails. What is done stays done.
    """
    out = Path(out).resolve()
    if flow is not None and flow not in FLOWS:
        raise DMCError(f"There is no flow {flow!r}; choose {', '.join(FLOWS)}.")
    if jobs is not None and jobs < 1:
        raise DMCError(f"{jobs} jobs at once do nothing; give 1 or more.")
    _check_place(corpus, out)
    try:
        with _claimed(out, corpus.name, flow) as method:
            made = {
                "codec": prepare_one.codec_settings(corpus.letterbox),
                "flow": prepare_one.flow_settings(method),
            }
            _clean(out)
            try:
                report = _run(corpus, out, made, jobs, scheduler)
            finally:
                _clean(out)  # children that crash, and workers that die, leave theirs behind
    except OSError as problem:
        raise OutputError(prepare_one.cannot_write(problem, out)) from problem
    if report.quarantined and not keep_going:
        raise Quarantined(report)
    return report


def _printable(text: str) -> str:
    """Text with names of files in it, as a terminal may show it: no control characters."""
    return text if text.isprintable() else ascii(text)


def _run(
    corpus: Corpus, out: Path, made: dict, jobs: int | None, scheduler: str | None
) -> PrepareReport:
    """Do the tasks that are not done, and write what the folder then holds."""
    tasks = [
        {"name": v.name, "source": os.path.abspath(v.source), "out": str(out), **made}
        for v in corpus.videos
    ]
    todo = [task for task in tasks if not prepare_one.is_done(task)]
    quarantined, newly = {}, 0
    if todo:
        # It is there only when all that it names is.
        (out / manifest.FILE).unlink(missing_ok=True)
        with (
            _workers(jobs, scheduler) as submit,
            tqdm(
                desc=f"prepare {corpus.name}",
                total=len(tasks),
                initial=len(tasks) - len(todo),
                unit="video",
            ) as bar,
        ):
            names = {submit(task): task["name"] for task in todo}
            for future in as_completed(names):
                answer = future.result()
                if "stop" in answer:
                    raise DMCError(f"{answer['stop']} What is done stays; run it again to go on.")
                if "failed" in answer:
                    quarantined[names[future]] = answer["failed"]
                    bar.set_postfix(quarantined=len(quarantined))
                newly += answer.get("made", False)
                bar.update()
    for name in quarantined:
        for path in prepare_one.places(out, name):
            path.unlink(missing_ok=True)  # made of a source that has since been replaced
    entries = {}
    for video in corpus.videos:
        if video.name not in quarantined:
            entries[video.name] = prepare_one.entry(out, video.name, video.label)
    lists = {
        number: {side: tuple(n for n in names if n in entries) for side, names in sides.items()}
        for number, sides in corpus.lists.items()
    }
    prepare_one.check_inside(out, out / "lists")
    corpus.write_lists(out / "lists")
    prepare_one.write_json(out / "quarantine.json", dict(sorted(quarantined.items())))
    manifest.write(
        out,
        manifest.Manifest(
            dataset=corpus.name,
            classes=corpus.classes,
            missing=len(corpus.missing),
            quarantined=tuple(sorted(quarantined)),
            **made,
            lists=lists,
            entries=entries,
        ),
    )
    known = {str(prepare_one.places(out, video.name)[2]) for video in corpus.videos}
    recorded = (os.path.join(f, n) for f, _, names in os.walk(out / "records") for n in names)
    return PrepareReport(
        folder=out,
        made=newly,
        kept=len(entries) - newly,
        quarantined=dict(sorted(quarantined.items())),
        left_over=sum(path not in known for path in recorded),
        frames=sum(entry.frames for entry in entries.values()),
        clip_bytes=sum(entry.clip_bytes for entry in entries.values()),
        flow=(made["flow"] or {"method": "none"})["method"],
        flow_bytes=sum(entry.flow_bytes or 0 for entry in entries.values()),
    )


# --- who works ----------------------------------------------------------------------------------

Submit = Callable[[dict], Future]


@contextmanager
def _workers(jobs: int | None, scheduler: str | None) -> Iterator[Submit]:
    """Give a function that hands out a task; at the end nothing is left running here."""
    if scheduler is not None:
        with cluster.executor(scheduler) as executor:
            yield partial(executor.submit, _on_cluster)
        return
    team, executor = Team(CHILD), ThreadPoolExecutor(jobs or os.cpu_count())
    try:
        yield partial(executor.submit, _supervise, team)
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        team.stop()
        executor.shutdown()


_CLUSTER_TEAM = Team(CHILD)  # of a Dask worker, which has no other place to keep it


def _on_cluster(task: dict) -> dict:
    return _supervise(_CLUSTER_TEAM, task)


def _supervise(team: Team, task: dict) -> dict:
    """Let a child do the task, and a fresh one if that fails; return the last answer."""
    for fresh in (False, True):
        try:
            answer = team.ask(task, PATIENCE_SECONDS, fresh=fresh)
        except ChildLost as lost:
            answer = {"failed": f"{task['name']}: the process that prepared it {lost}."}
        except DMCError as problem:
            return {"stop": str(problem)}
        if "failed" not in answer or team.stopped:
            return answer
    return answer


# --- where it goes ------------------------------------------------------------------------------


def _check_place(corpus: Corpus, out: Path) -> None:
    """Refuse folders inside each other, and names that could lead out of the folder."""
    root = corpus.root.resolve()
    if out == root or root in out.parents or out in root.parents:
        raise DatasetError(
            f"The output {out} and the videos in {root} must not be, or lie in, one another. Give "
            "another folder (--out)."
        )
    seen = set()
    for video in corpus.videos:
        parts = video.name.split("/")
        if len(parts) != 2 or any(p in ("", ".", "..") or "\0" in p for p in parts):
            raise DatasetError(f"The name {video.name!r} is not '<class>/<file>'; rename it.")
        if video.name in seen:
            raise DatasetError(f"The name {video.name!r} comes twice; rename one.")
        seen.add(video.name)


@contextmanager
def _claimed(out: Path, dataset: str, flow: str | None) -> Iterator[str]:
    """Hold a folder for this run alone, only one that is ours to write into; give its flow."""
    lock_file = out / prepare_one.LOCK
    out.mkdir(parents=True, exist_ok=True)
    if not lock_file.is_file() and any(out.iterdir()):
        raise DatasetError(
            f"{out} holds other things, and no prepared videos. Give a new or an empty folder."
        )
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    with open(lock_file, "r+", opener=lambda path, _: os.open(path, flags, 0o644)) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatasetError(
                f"Another `dmc prepare` is at work in {out}. Wait for it, or give another folder."
            ) from None
        owner, _, held = lock.read().partition("\n")
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
        lock.seek(0)
        lock.write(dataset if method == "none" else f"{dataset}\n{method}")
        lock.flush()
        yield method


def _clean(out: Path) -> None:
    """Remove what killed runs have left half-written; links are not followed."""
    for folder in (out, *(out / part for part in ("clips", "flow", "records", "lists"))):
        for inside, folders, names in os.walk(folder):
            if folder == out:
                folders.clear()
            for name in filter(_PARTIAL.fullmatch, names):
                os.unlink(os.path.join(inside, name))
