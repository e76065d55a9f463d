"""The ``dmc`` command: run the notebooks, label videos, examine the installation, measure speed.

Whatever needs torch, PyAV or Jupyter is imported inside its command, so that ``dmc --help`` answers
at once.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from dmclib import __version__
from dmclib.errors import DatasetError, DMCError, ProfileError

app = typer.Typer(
    help="DMC-Net, reproduced: recognise actions straight from compressed video.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Scheduler = Annotated[str | None, typer.Option(help="a Dask scheduler to use: tcp://host:port")]
SUITES = "codec, flow, loader, generator, classifier, training, path, recognition, classify, table3"


def main() -> None:
    """Run the command line; what the user can put right is one sentence, never a traceback.

    Exit codes: 0 done, 1 a notebook, check or video failed, 2 a wrong setting or file, 130 Ctrl-C,
    143 SIGTERM.
    """
    # Leave as at Ctrl-C, in good order, with temporary files removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        app()
    except DMCError as error:
        print(f"dmc: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


@contextmanager
def _stoppable(then: str) -> Iterator[None]:
    """Answer Ctrl-C in a sentence; ``then`` says what it left."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"dmc: stopped; {then}.", err=True)
        raise typer.Exit(130) from None


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dmclib {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which.")
    ] = False,
) -> None:
    pass


@app.command()
def reproduce(
    profile: Annotated[str, typer.Argument(help="one of notebooks/profiles")] = "laptop",
    only: Annotated[str, typer.Option(help="numbers of the notebooks to run: 04,05")] = "",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="parameter=value, or 06.parameter=value")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="real videos, one folder per class; with --released-weights a prepared folder"
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="train with each of these: 0,1,2")] = "",
    splits: Annotated[str, typer.Option(help="official splits, tests pooled: 1,2,3")] = "",
    scheduler: Scheduler = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="run again what is done already")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would run")] = False,
    released_weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="train nothing, and test the authors' networks (profile hmdb51 or ucf101): "
            "FOLDER/split1/*.pth.tar, likewise split2 and split3, are their checkpoints of "
            "I-frames, motion vectors, residuals and DMC-Net, under any names",
        ),
    ] = None,
) -> None:
    """Run the notebooks of a profile in order, going on where the last run stopped."""
    from dmclib.reproduce import profiles, runner

    if released_weights is not None:
        from dmclib.released import protocol

        if only or settings or seeds or scheduler:
            raise ProfileError(
                "--released-weights runs no notebook and trains nothing: leave --only, --set, "
                "--seeds and --scheduler out."
            )
        numbers = profiles.numbers(splits, "--splits")
        with _stoppable("the same command goes on from here"):
            protocol.run(profile, released_weights, data, splits=numbers, fresh=fresh, dry=dry_run)
        return
    with _stoppable("the same command goes on from this notebook"):
        runner.reproduce(
            profile,
            seeds=profiles.numbers(seeds, "--seeds"),
            splits=profiles.numbers(splits, "--splits"),
            scheduler=scheduler,
            only=[word.strip() for word in only.split(",") if word.strip()],
            settings=settings or [],
            data=data,
            fresh=fresh,
            dry=dry_run,
        )


@app.command()
def prepare(
    dataset: Annotated[
        str,
        typer.Argument(
            help="ucf101, hmdb51, kinetics-n50, ut-interaction, weizmann, folder, folds"
        ),
    ],
    root: Annotated[Path | None, typer.Option(help="the data set as published")] = None,
    out: Annotated[
        Path | None, typer.Option(help="where to; by default prepared/DATASET in the cache")
    ] = None,
    flow: Annotated[
        str | None, typer.Option(help="tvl1, tvl1-torch, dis, farneback, raft, raft-small or none")
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="videos at once; by default one a core")] = None,
    scheduler: Scheduler = None,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="take a copy that lacks videos")
    ] = False,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="exit 0 also if videos were quarantined")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="only compare the prepared files with the manifest")
    ] = False,
) -> None:
    """Re-encode a data set's videos and compute their flow, going on where the last run stopped.

    The paper's flow is tvl1, which takes core-days for a whole data set, tvl1-torch a quarter of
    that; dis, which a new folder has by default, takes hours.
    """
    from dmclib import paths
    from dmclib.data import corpora, manifest
    from dmclib.prepare import corpus as preparation

    out = out or paths.CACHE / "prepared" / dataset
    if verify:
        sentences = manifest.verify(out)
        for sentence in sentences:
            typer.echo(sentence)
        if sentences:
            typer.echo(f"dmc: {len(sentences)} files of {out} are not as prepared.", err=True)
            raise typer.Exit(1)
        typer.echo(f"{out}: every file is as the manifest says.")
        return
    if root is None:
        raise DatasetError("Say with --root where the data set lies.")
    corpus = corpora.open_corpus(dataset, root, allow_partial=allow_partial)
    for sentence in corpus.summary():
        typer.echo(sentence)
    with _stoppable("the same command goes on from here"):
        report = preparation.prepare(
            corpus, out, flow=flow, jobs=jobs, scheduler=scheduler, keep_going=keep_going
        )
    typer.echo(str(report))


@app.command()
def demo(
    source: Annotated[Path, typer.Argument(metavar="VIDEO", help="any video")],
    out: Annotated[
        Path | None, typer.Option(help="folder to write to; by default ./<video's name>-dmc")
    ] = None,
    profile: Annotated[str, typer.Option(help="whose trained networks make the cue")] = "laptop",
    flow: Annotated[
        bool, typer.Option("--flow", help="a panel of TV-L1 too, about a second a frame")
    ] = False,
) -> None:
    """Show a video beside its motion vectors, residual and cue: a clip and a still."""
    from dmclib import demo

    with _stoppable("nothing was written"):
        shown = demo.show(source, out, weights=demo.find_weights(profile), with_flow=flow)
    for sentence in shown.says:
        typer.echo(sentence)
    typer.echo(f"{shown.frames} frames: {shown.clip} and {shown.still}")


@app.command()
def classify(
    videos: Annotated[
        list[Path], typer.Argument(metavar="VIDEO...", help="any videos, or folders of them")
    ],
    out: Annotated[
        Path | None, typer.Option(help="CSV file of scores; videos in it are not scored again")
    ] = None,
    profile: Annotated[str, typer.Option(help="whose trained networks are asked")] = "laptop",
    scheduler: Scheduler = None,
) -> None:
    """Name the action in each video, on all cores or a Dask cluster."""
    from dmclib import classify

    left = "nothing was written" if out is None else "the same command goes on from here"
    with _stoppable(left):
        report = classify.classify(videos, out, profile=profile, scheduler=scheduler)
    for sentence in report.sentences if out is None else []:
        typer.echo(sentence)
    for sentence in report.failed.values():
        typer.echo(f"dmc: {sentence}", err=True)
    typer.echo(str(report))
    if report.failed:
        raise typer.Exit(1)


@app.command()
def doctor() -> None:
    """Say what is right and what is wrong with this installation."""
    from dmclib.doctor import examine

    failed = False
    for state, sentence in examine():
        typer.echo(f"{state:4}  {sentence}")
        failed |= state == "fail"
    if failed:
        raise typer.Exit(1)


@app.command()
def bench(
    suite: Annotated[str, typer.Argument(help=f"{SUITES} or all")] = "all",
    clip: Annotated[Path | None, typer.Argument(help="MPEG-4 clip, for suite codec")] = None,
    profile: Annotated[str, typer.Option(help="names the folder of results")] = "laptop",
    compare: Annotated[
        Path | None, typer.Option(help="a run saved before, or for all the folder of them")
    ] = None,
) -> None:
    """Time a part beside what it competes with; print the rows and keep them in results."""
    from dmclib import paths

    sys.path.insert(0, str(paths.ROOT))  # they stand beside the package, as the notebooks do
    from benchmarks import suites

    suites.run(suite, profile=profile, clip=clip, compare=compare)
