"""What has run of a profile: the executed notebooks, and which of them need not run again.

``results/<profile>/runs/manifest.json`` remembers each notebook's fingerprint and how it ended, so
that a run that was stopped goes on where it stopped.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from dmclib import paths, results
from dmclib.errors import DMCError
from dmclib.files import write_text
from dmclib.reproduce.profiles import Step


class Runs:
    """The folder ``results/<profile>/runs``.

    Args:
        profile: names the folder of results; another split has another one.
    """

    def __init__(self, profile: str):
        self.profile, self.folder = profile, paths.RESULTS / profile / "runs"
        self._manifest = self._read()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for this process; the system lets go of it when that ends, however.

        Raises:
            DMCError: another process holds it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "lock", "a+") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                handle.seek(0)
                raise DMCError(
                    f"profile {self.profile} is being run by process {handle.read().strip()}: "
                    "wait for it, or stop it first."
                ) from None
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            for left_over in self.folder.glob(".*.partial.ipynb"):
                left_over.unlink()
            self._manifest = self._read()
            yield

    def executed(self, step: Step) -> Path:
        """Where the executed notebook is kept."""
        return self.folder / f"{step.name}.ipynb"

    def result(self, step: Step) -> Path:
        """Where a notebook that measures something writes its numbers."""
        profile = step.parameters.get("profile", self.profile)
        return paths.RESULTS / profile / f"{step.notebook.stem}.json"

    def is_done(self, step: Step) -> bool:
        """Whether it has run to its end as it is, and what it left is there."""
        entry = self._manifest.get(step.name, {})
        same = entry.get("fingerprint") == step.fingerprint and entry.get("status") == "finished"
        there = self.executed(step).is_file()
        return same and there and not (entry.get("result") and not self.result(step).is_file())

    def done_first(self, steps: Sequence[Step]) -> list[Step]:
        """The first steps that need not run again, up to the first that must."""
        for k, step in enumerate(steps):
            if not self.is_done(step):
                return list(steps[:k])
        return list(steps)

    def begin(self, step: Step) -> None:
        """Note that a notebook is about to run, and that those after it are out of date."""
        for name, entry in self._manifest.items():
            # Those may be made from what this one made before; a grid's jobs are not.
            if name[:2] > step.name[:2] and "-seed" not in name:
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
            seconds=round(seconds, 1), status="finished", result=self.result(step).is_file()
        )
        self._write()

    def expected_seconds(self, step: Step) -> float | None:
        """How long it took last time here, else where the committed results were made, or None."""
        try:
            return self._manifest[step.name]["seconds"]
        except KeyError:
            pass
        try:
            return results.load(step.notebook.stem, self.profile).seconds
        except DMCError:
            return None

    def _read(self) -> dict:
        try:
            manifest = json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}  # nothing is known to be done, so everything runs
        return manifest if isinstance(manifest, dict) else {}

    def _write(self) -> None:
        text = json.dumps(self._manifest, indent=2, sort_keys=True)
        write_text(self.folder / "manifest.json", text + "\n")
