"""Behind ``dmc bench``: run suites of speed rows, show them, keep them, hold two runs together.

A suite is a function that measures and returns rows. In a row, text and whole numbers (other than
``repeats`` and sizes in bytes) name what was measured; the other numbers are what came out. A row
that this machine cannot measure has ``needs``: what it would take.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import codec, flow, loader, recognition, training
from dmclib import machine, results
from dmclib.errors import DMCError
from dmclib.speed import end_to_end, generator, table_3, timing

Rows = list[dict]

SUITES: dict[str, Callable[..., Rows]] = {
    "codec": codec.rows,
    "flow": flow.rows,
    "loader": loader.rows,
    "generator": generator.rows,
    "training": training.rows,
    "path": end_to_end.rows,
    "recognition": recognition.rows,
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

    Args:
        suite: a key of :data:`SUITES`, or ``all``. Of all, one that cannot run is a line that says
            what it needs; alone it is the error.
        profile: names the folder of results.
        clip: for suite ``codec`` the clip to read.
        compare: what an earlier run saved, shown beside this one: its file or, for ``all``, the
            folder of the files.
        console: where to print.

    Raises:
        DMCError: no such suite, nothing to compare with, or what the suite itself says.
    """
    if suite not in SUITES and suite != "all":
        raise DMCError(f"there is no suite {suite!r}; choose {', '.join(SUITES)} or all.")
    if clip is not None and suite != "codec":
        raise DMCError(f"only suite codec takes a clip; leave {clip} out.")
    chosen = list(SUITES) if suite == "all" else [suite]
    # Read before the minutes of measuring, and before a run to the same place takes its name.
    earlier = {name: _saved_rows(compare, name) for name in chosen} if compare else {}
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, 160)  # nothing is gained by folding lines in a file
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
            if all("needs" in row for row in rows):
                continue  # nothing measured: an earlier file is worth more
            clips = sorted({row["clip"] for row in rows if "clip" in row})
            path = origin.save(rows, data=", ".join(clips) or "made for the run")
            if name in earlier:
                show_beside(console, name, earlier[name], rows)
            taken = time.monotonic() - started
            console.print(f"{taken:.0f} s; saved results/{profile}/{path.name}\n", highlight=False)


def show(console: Console, title: str, rows: Rows) -> None:
    """Print rows as tables, one for each set of columns, and a line for each that needs something.

    Quartiles and numbers of repeats stay in the saved file.
    """
    tables: dict[tuple, Table] = {}
    for row in rows:
        if "needs" in row:
            continue
        shown = {key: value for key, value in row.items() if not _is_detail(key)}
        if tuple(shown) not in tables:
            table = tables[tuple(shown)] = Table(title=title, title_justify="left")
            for key, value in shown.items():
                table.add_column(key, justify="left" if isinstance(value, str) else "right")
        tables[tuple(shown)].add_row(*map(_text, shown.values()))
    for table in tables.values():
        console.print(table)
    for row in rows:
        if "needs" in row:
            what = ", ".join(str(value) for key, value in row.items() if key != "needs")
            console.print(
                f"{what}: not measured, needs: {row['needs']}", markup=False, soft_wrap=True
            )


def show_beside(console: Console, title: str, earlier: Rows, rows: Rows) -> None:
    """Print each measure of two runs with the ratio now / then; rows that only one has are named.

    Rows belong together if they have the same names; of several such, the first with the first.
    """
    table = Table("row", "measure", title=f"{title}: then and now", title_justify="left")
    for column in ("then", "now", "now / then"):
        table.add_column(column, justify="right")
    old, new = _by_name(earlier), _by_name(rows)
    for name, row in new.items():
        for key, now, then in _measures(row, old.get(name, {})):
            ratio = f"{now / then:.2f}" if then else "-"
            table.add_row(" ".join(map(str, name[:-1])), key, _text(then), _text(now), ratio)
    console.print(table)
    for word, only in (
        ("not measured then", new.keys() - old),
        ("not measured now", old - new.keys()),
    ):
        for name in sorted(only, key=str):
            console.print(f"{' '.join(map(str, name[:-1]))}: {word}", markup=False)


def _measures(row: Mapping, other: Mapping) -> Iterator[tuple[str, float, float]]:
    for key, value in row.items():
        if isinstance(value, float) and isinstance(other.get(key), float) and not _is_detail(key):
            yield key, value, other[key]


def _by_name(rows: Rows) -> dict[tuple, dict]:
    """What names each row, and its number among those named alike -> row."""
    found: dict[tuple, dict] = {}
    for row in rows:
        if "needs" in row:
            continue
        name = tuple(value for key, value in row.items() if _is_name(key, value))
        again = sum(other[:-1] == name for other in found)
        found[*name, again] = row
    return found


def _is_name(key: str, value) -> bool:
    return isinstance(value, str | int) and not key.endswith("bytes") and not _is_detail(key)


def _is_detail(key: str) -> bool:
    return key == "repeats" or any(word in key for word in ("lower", "upper", "quartile"))


def _text(value) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return "" if value is None else str(value)


def _saved_rows(place: Path, suite: str) -> Rows:
    """The rows that an earlier run of this suite saved; none where its folder lacks the file."""
    path = place / f"bench_{suite}.json" if place.is_dir() else place
    if place.is_dir() and not path.is_file():
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
