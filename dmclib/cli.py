"""The ``dmc`` command: run the notebooks, examine the installation, time the codec.

Whatever needs torch, PyAV or Jupyter is imported inside its command, so that ``dmc --help`` answers
at once.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from dmclib import __version__
from dmclib.errors import DMCError

app = typer.Typer(
    help="DMC-Net, reproduced: recognise actions straight from compressed video.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
bench_app = typer.Typer(help="Time a part against the bare library under it.")
app.add_typer(bench_app, name="bench", no_args_is_help=True)


def main() -> None:
    """Run the command line; what the user can put right is one sentence, never a traceback.

    Exit codes: 0 done, 1 a notebook or a check failed, 2 a wrong setting or file, 130 Ctrl-C.
    """
    try:
        app()
    except DMCError as error:
        print(f"dmc: {error}", file=sys.stderr)
        sys.exit(2)


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
    profile: Annotated[
        str, typer.Argument(help="smoke, or a file of notebooks/profiles")
    ] = "laptop",
    only: Annotated[str, typer.Option(help="numbers of the notebooks to run: 04,05")] = "",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="parameter=value, or 06.parameter=value")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="folder of real videos, one folder a class")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="run again what is done already")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would run")] = False,
) -> None:
    """Run the notebooks of a profile in order, going on where the last run stopped."""
    from dmclib import runner

    try:
        runner.reproduce(
            profile,
            only=[word.strip() for word in only.split(",") if word.strip()],
            settings=settings or [],
            data=data,
            fresh=fresh,
            dry_run=dry_run,
        )
    except runner.NotebookFailed as failure:
        typer.echo(f"dmc: {failure}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("dmc: stopped; the same command goes on from this notebook.", err=True)
        raise typer.Exit(130) from None


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


@bench_app.command()
def codec(
    clip: Annotated[Path | None, typer.Argument(help="MPEG-4 clip; one is made without it")] = None,
) -> None:
    """Time reading pixels, motion and residual against bare FFmpeg decoding."""
    from dmclib import bench

    bench.codec(clip)
