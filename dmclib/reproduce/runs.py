"""What has run of a profile: the executed notebooks, and which of them need not run again.

``results/<profile>/runs/manifest.json`` remembers each notebook's fingerprint and how it ended, so
that a run that was stopped goes on where it stopped.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path

from dmclib import files, paths, results
from dmclib.errors import DMCError
from dmclib.reproduce.profiles import Step


class Runs:
    """The folder ``results/<profile>/runs``; one official split has a profile of its own."""

    def __init__(self, profile: str):
        self.profile, self.folder = profile, paths.RESULTS / profile / "runs"
        self._manifest = self._read()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for this process.

        Raises:
            DMCError: another process holds it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = self.folder / "lock"

        def busy() -> DMCError:
            return DMCError(
                f"profile {self.profile} is being run by process {lock.read_text().strip()}: "
                "wait for it, or stop it first."
            )

        with files.held(lock, busy):
            lock.write_text(str(os.getpid()))
            for left_over in self.folder.glob(".*.partial.ipynb"):
                left_over.unlink()
            self._manifest = self._read()
            yield

    def executed(self, step: Step) -> Path:
        """Where the executed notebook is kept."""
        return self.folder / f"{step.name}.ipynb"

    def done_first(self, steps: Sequence[Step]) -> list[Step]:
        """The first steps that need not run again, up to the first that must."""
        return list(takewhile(self._is_done, steps))

    def begin(self, step: Step) -> None:
        """Note that a notebook is about to run, and that those after it are out of date."""
        for name, entry in self._manifest.items():
            if name > step.name:  # they may be made from what this one made before
                entry["status"] = "outdated"
        self._manifest.setdefault(step.name, {}).update(
            fingerprint=step.fingerprint,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            status="stopped",  # what is found here if this process dies
        )
        self._write()

    def finish(self, step: Step, seconds: float) -> None:
        """Note that it ran to its end."""
        self._manifest[step.name].update(
            seconds=round(seconds, 1), status="finished", result=self._result(step).is_file()
        )
        self._write()

    def expected_seconds(self, step: Step) -> float | None:
        """How long it took last time here, else where the committed results were made, or None."""
        if "seconds" in (entry := self._manifest.get(step.name, {})):
            return entry["seconds"]
        try:
            return results.load(step.name, self.profile).seconds
        except DMCError:
            return None

    def _is_done(self, step: Step) -> bool:
        """Whether it has run to its end as it is, and what it left is there."""
        entry = self._manifest.get(step.name, {})
        same = entry.get("fingerprint") == step.fingerprint and entry.get("status") == "finished"
        there = self.executed(step).is_file()
        return same and there and not (entry.get("result") and not self._result(step).is_file())

    def _result(self, step: Step) -> Path:
        """Where a notebook that measures something writes its numbers."""
        return paths.RESULTS / self.profile / f"{step.name}.json"

    def _read(self) -> dict:
        try:
            manifest = json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}  # nothing is known to be done, so everything runs
        return manifest if isinstance(manifest, dict) else {}

    def _write(self) -> None:
        text = json.dumps(self._manifest, indent=2, sort_keys=True)
        files.write_text(self.folder / "manifest.json", text + "\n")
