"""A number never travels without its origin: commit, machine, seed, parameters, data.

A notebook opens with :func:`start_run` and ends with :meth:`Run.save`, which writes one readable
file, ``results/<profile>/<name>.json``. Arrays that a figure needs go to ``<name>.npz``. The
paper's own numbers lie in ``results/paper/reported.yaml`` and are read by :func:`reported`, so that
ours and theirs never mix.
"""

import json
import math
import os
import re
import subprocess
import time
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import yaml

from dmclib import machine, paths
from dmclib.errors import DMCError
from dmclib.files import whole, write_text

Rows = list[dict] | pd.DataFrame


@dataclass(frozen=True)
class Record:
    """One results file as it was saved, its rows as a table."""

    name: str
    profile: str
    commit: str  # git's, with "-dirty" where dmclib or a profile had been edited; or "unknown"
    machine: dict
    seed: int
    parameters: dict
    data: str | dict
    created: str  # UTC, ISO 8601
    seconds: float  # from start_run to save
    rows: pd.DataFrame
    extra: dict


@dataclass
class Run:
    """A run whose numbers are still to come; :func:`start_run` makes it."""

    name: str
    profile: str
    origin: dict  # seed, parameters, commit, machine
    started: float = field(default_factory=time.monotonic)

    def save(self, rows: Rows, *, data: str | dict, **extra) -> Path:
        """Write the rows and their origin to ``results/<profile>/<name>.json``, whole or not.

        Args:
            rows: one mapping per row, column name -> number, text, truth value or None. A row with
                an ``accuracy`` (a share in [0, 1]) needs ``n``, the number of cases, and its
                interval ``low``, ``high``.
            data: what the numbers were measured on, in words or as a mapping.
            extra: further facts of the run as a whole, kept under ``extra``.

        Raises:
            DMCError: there is no row, a number is not finite, or an accuracy comes alone.
        """
        rows = rows.to_dict("records") if isinstance(rows, pd.DataFrame) else list(rows)
        if not rows:
            raise DMCError(f"{self.name}: there is no row to save.")
        record = {
            "name": self.name,
            "profile": self.profile,
            **self.origin,
            "data": data,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self.started, 1),
            "rows": rows,
            "extra": extra,
        }
        record = _plain(record, self.name)
        for k, row in enumerate(record["rows"], start=1):
            _check_accuracy(row, f"{self.name}, row {k}")
        path = _path(self.name, self.profile, ".json")
        write_text(path, _pretty(record))
        return path

    def save_arrays(self, **arrays: np.ndarray) -> Path:
        """Write small arrays that a figure needs to ``results/<profile>/<name>.npz``.

        Raises:
            DMCError: one of them is not numbers, truth values or text (no pickle is written).
        """
        for key, array in arrays.items():
            if np.asarray(array).dtype.hasobject:
                raise DMCError(f"{self.name}: array {key!r} holds Python objects, not numbers.")
        path = _path(self.name, self.profile, ".npz")
        with whole(path) as partial:
            np.savez_compressed(partial, **arrays)
        return path


def start_run(name: str, *, profile: str, seed: int, **parameters) -> Run:
    """Record the origin of the numbers to come: commit, machine, seed and parameters.

    Args:
        name: the notebook's, such as ``"06_ablations"``; names the results file.
        profile: names the folder of results.
        seed: of clips, weights and sampling.
        parameters: whatever else the notebook was given. Absolute paths are made relative to the
            project, so that a committed file does not name the machine's folders.
    """
    _path(name, profile, ".json")  # a bad name fails now, not after the hours of work
    parameters = {key: _portable(value) for key, value in parameters.items()}
    origin = {"seed": seed, "parameters": parameters}
    return Run(name, profile, origin | {"commit": _commit(), "machine": machine.describe()})


def load(name: str, profile: str) -> Record:
    """Read what :meth:`Run.save` wrote.

    Raises:
        DMCError: the file is absent (the message says which notebook to run) or damaged.
    """
    path = _existing(name, profile, ".json")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return Record(**{**record, "rows": pd.DataFrame(record["rows"])})
    except (ValueError, TypeError, KeyError) as error:
        raise DMCError(f"{path} is damaged ({error}): {_remedy(name, profile)}") from None


def load_arrays(name: str, profile: str) -> dict[str, np.ndarray]:
    """Read what :meth:`Run.save_arrays` wrote; nothing in the file can run code.

    Raises:
        DMCError: the file is absent (the message says which notebook to run) or damaged.
    """
    path = _existing(name, profile, ".npz")
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}
    except (ValueError, OSError, AttributeError, EOFError, BadZipFile, zlib.error) as error:
        raise DMCError(f"{path} holds no arrays ({error}): {_remedy(name, profile)}") from None


def reported(table: str) -> pd.DataFrame:
    """Read one table of the paper, or of the authors' released scores, row by row as published.

    ``table`` is a key of ``results/paper/reported.yaml``, such as ``"table_4"``. The column
    ``source`` says where it was published.

    Raises:
        DMCError: there is no such table; the message lists the tables.
    """
    tables = yaml.safe_load((paths.RESULTS / "paper" / "reported.yaml").read_text("utf-8"))
    if table not in tables:
        raise DMCError(f"the paper has no table {table!r} here; there are {', '.join(tables)}.")
    origin = {"source": tables[table]["source"]}
    return pd.DataFrame([origin | row for row in tables[table]["rows"]])


def to_markdown(table: pd.DataFrame) -> str:
    """A table as markdown, one line per row, without the index; numbers as they print."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).to_numpy()]
    escaped = pd.DataFrame(lines).astype(str).replace({r"\|": r"\\|", "\n": " "}, regex=True)
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped.to_numpy())


def _path(name: str, profile: str, suffix: str) -> Path:
    for word in (name, profile):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", word):
            raise DMCError(f"{word!r} cannot name a results file: use letters, digits, _ and -.")
    if profile == "paper":
        raise DMCError("a profile cannot be called 'paper': results/paper holds published numbers.")
    return paths.RESULTS / profile / f"{name}{suffix}"


def _existing(name: str, profile: str, suffix: str) -> Path:
    path = _path(name, profile, suffix)
    if not path.is_file():
        raise DMCError(f"{path} is not there: {_remedy(name, profile)}")
    return path


def _remedy(name: str, profile: str) -> str:
    return f"run notebook {name} first (dmc reproduce {profile} --only {name[:2]})."


def _check_accuracy(row: dict, where: str) -> None:
    if "accuracy" not in row:
        return
    missing = [key for key in ("n", "low", "high") if row.get(key) is None]
    if missing:
        raise DMCError(
            f"{where}: an accuracy without {', '.join(missing)}; say how many it was counted on "
            "and its interval (evaluation.wilson_interval)."
        )
    low, accuracy, high = row["low"], row["accuracy"], row["high"]
    rounding = 1e-6  # an interval that ends at exactly 0 or 1 is computed, and so rounded
    if not (0 <= accuracy <= 1 and low - rounding <= accuracy <= high + rounding):
        raise DMCError(f"{where}: accuracy {accuracy} is not a share inside [{low}, {high}].")


def _plain(value, where: str):
    """The value in JSON's types; a number that is not finite is an error."""
    if isinstance(value, dict):
        return {str(key): _plain(item, f"{where}, {key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}, {k}") for k, item in enumerate(value)]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise DMCError(f"{where}: {value} is not a result; leave the entry out or use None.")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise DMCError(f"{where}: a {type(value).__name__} cannot be kept as a number or a word.")


def _pretty(record: dict) -> str:
    """JSON with sorted keys and one line per row; a row's columns keep the notebook's order."""
    lines = []
    for key, value in sorted(record.items()):
        text = json.dumps(value, ensure_ascii=False, sort_keys=True)
        if key == "rows":
            rows = (f"    {json.dumps(row, ensure_ascii=False)}" for row in value)
            text = "[\n" + ",\n".join(rows) + "\n  ]"
        lines.append(f'  "{key}": {text}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _portable(value):
    if isinstance(value, str | Path) and Path(value).is_absolute():
        inside = Path(value).is_relative_to(paths.ROOT.parent)
        return Path(os.path.relpath(value, paths.ROOT)).as_posix() if inside else Path(value).name
    return value


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(paths.ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _commit() -> str:
    """The commit of ``dmclib``; notebooks do not count as edited, because running one edits it."""
    try:
        top, commit = _git("rev-parse", "--show-toplevel", "HEAD").split("\n")[:2]
        changed = _git("status", "--porcelain", "--", "dmclib", "notebooks/profiles").strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    if Path(top).resolve() != paths.ROOT:
        return "unknown"  # an unpacked archive inside a repository that knows nothing of it
    return f"{commit}-dirty" if changed else commit
