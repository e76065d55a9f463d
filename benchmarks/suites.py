"""Behind ``dmc bench``: run suites of speed rows, show them, keep them, compare two runs.

In a suite's row, text and whole numbers (other than ``repeats`` and sizes in bytes) name what was
measured; the other numbers are the results. A row that this machine cannot measure has ``needs``.
"""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import classifier, classify, codec, flow, loader, recognition, targets, training
from dmclib import machine, results
from dmclib.errors import DMCError
from dmclib.speed import end_to_end, generator, table_3, timing

Rows = list[dict]

SUITES: dict[str, Callable[..., Rows]] = {
    "codec": codec.rows,
    "flow": flow.rows,
    "loader": loader.rows,
    "generator": generator.rows,
    "classifier": classifier.rows,
    "training": training.rows,
    "path": end_to_end.rows,
    "recognition": recognition.rows,
    "classify": classify.rows,
    "table3": table_3.rows,
}


def run(
    suite: str,
    *,
    profile: str = "laptop",
    clip: Path | None = None,
    compare: Path | None = None,
    console: Console | None = None,
) -> None:
    """Measure a suite, or ``all``; show the rows and save ``results/<profile>/bench_<suite>.json``.

    At the end each of the project's targets (:mod:`benchmarks.targets`) stands beside its figure
    and the one that was kept before; after ``all``, in ``bench_targets.json`` too.

    Args:
        suite: a key of :data:`SUITES`, or ``all``. A suite that cannot run is an error; among all,
            a line that says what it needs.
        profile: names the folder of results.
        clip: for suite ``codec`` the clip to read.
        compare: what an earlier run saved, to compare with: its file or, for ``all``, the folder of
            the files.
        console: where to print.

    Raises:
        DMCError: there is no such suite, nothing to compare with, or the suite itself fails.
    """
    if suite not in SUITES and suite != "all":
        raise DMCError(f"there is no suite {suite!r}; choose {', '.join(SUITES)} or all.")
    if clip is not None and suite != "codec":
        raise DMCError(f"only suite codec takes a clip; leave {clip} out.")
    chosen = list(SUITES) if suite == "all" else [suite]
    # Read before the minutes of measuring, and before a run to the same place takes its name.
    earlier = {name: _saved_rows(compare, name) for name in chosen} if compare else {}
    kept = {name: _kept_rows(profile, name) for name in chosen}
    measured: dict[str, Rows] = {}
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, 160)  # a file needs no folded lines
    console.print(machine.in_words(), soft_wrap=True, highlight=False)
    with timing.pinned(torch.get_num_threads()):  # OpenCV too, which would take its own number
        for name in chosen:
            started = time.monotonic()
            origin = results.start_run(f"bench_{name}", profile=profile, seed=0)
            try:
                rows = SUITES[name](*([clip] if clip else []))
            except DMCError as error:
                if suite != "all":
                    raise
                rows = [{"task": name, "needs": str(error)}]
            show(console, name, rows)
            measured[name] = rows
            if not _measured(rows):
                continue  # an earlier file is worth more than nothing
            clips = sorted({row["clip"] for row in rows if "clip" in row})
            path = origin.save(rows, data=", ".join(clips) or "made for the run")
            if name in earlier:
                show_comparison(console, name, earlier[name], rows)
            spent = f"{time.monotonic() - started:.0f} s"
            console.print(f"{spent}; saved results/{profile}/{path.name}\n", highlight=False)
        asked = targets.table(measured, earlier or kept)
        show(console, "targets", asked)
        if suite == "all" and asked:
            origin = results.start_run("bench_targets", profile=profile, seed=0)
            origin.save(asked, data="the suites' results beside this file")


def show(console: Console, title: str, rows: Rows) -> None:
    """Print rows as tables, one for each set of columns, and a line for each that has ``needs``."""
    tables: dict[tuple, Table] = {}
    for shown in _measured(rows):
        if tuple(shown) not in tables:
            table = tables[tuple(shown)] = Table(title=title, title_justify="left")
            for key, value in shown.items():
                table.add_column(key, justify="left" if isinstance(value, str) else "right")
        tables[tuple(shown)].add_row(*map(_text, shown.values()))
    for table in tables.values():
        console.print(table)
    for row in rows:
        if "needs" in row:
            name = ", ".join(str(value) for key, value in row.items() if key != "needs")
            line = f"{name}: not measured, needs: {row['needs']}"
            console.print(line, markup=False, soft_wrap=True)


def show_comparison(console: Console, title: str, earlier: Rows, rows: Rows) -> None:
    """Print each measure of two runs with the ratio now / then; name the rows that only one has.

    Rows belong together if they have the same names; of several such, the first with the first.
    """
    table = Table("row", "measure", title=f"{title}: then and now", title_justify="left")
    for column in ("then", "now", "now / then"):
        table.add_column(column, justify="right")
    old, new = _by_name(earlier), _by_name(rows)
    for name, row in new.items():
        then = old.get(name, {})
        for key, value in row.items():
            if isinstance(value, float) and isinstance(then.get(key), float):
                ratio = f"{value / then[key]:.2f}" if then[key] else "-"
                table.add_row(_words(name), key, _text(then[key]), _text(value), ratio)
    console.print(table)
    for only, when in ((new.keys() - old, "then"), (old - new.keys(), "now")):
        for name in sorted(only, key=str):
            console.print(f"{_words(name)}: not measured {when}", markup=False)


def _by_name(rows: Rows) -> dict[tuple, dict]:
    """What names each row, and its number among those named alike -> its columns but details."""
    named: dict[tuple, dict] = {}
    for row in _measured(rows):
        names = {key: value for key, value in row.items() if isinstance(value, str | int)}
        name = tuple(value for key, value in names.items() if not key.endswith("bytes"))
        named[*name, sum(other[:-1] == name for other in named)] = row
    return named


def _measured(rows: Rows) -> Rows:
    """The rows that hold results, without quartiles and repeats."""
    detail = re.compile("repeats|.*(lower|upper).*")
    measured = (row for row in rows if "needs" not in row)
    return [{k: v for k, v in row.items() if not detail.fullmatch(k)} for row in measured]


def _words(name: tuple) -> str:
    return " ".join(map(str, name[:-1]))


def _text(value) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return "" if value is None else str(value)


def _kept_rows(profile: str, suite: str) -> Rows:
    """The rows that the last run left in results; none where there is no such file."""
    try:
        return results.load(f"bench_{suite}", profile).rows.to_dict("records")
    except DMCError:
        return []


def _saved_rows(path: Path, suite: str) -> Rows:
    """The rows that an earlier run of this suite saved; none where its folder lacks the file."""
    if path.is_dir():
        path = path / f"bench_{suite}.json"
        if not path.is_file():
            return []
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        name, rows = record["name"], [dict(row) for row in record["rows"]]
    except OSError as error:
        raise DMCError(f"{path} cannot be read ({error.strerror}); give a saved run.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DMCError(f"{path} is no saved run ({error}); give a results file.") from None
    if name != f"bench_{suite}":
        raise DMCError(
            f"{path} holds {name}, not bench_{suite}; compare a suite with itself, and all with a "
            "folder of results."
        )
    return rows
