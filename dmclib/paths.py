"""Where things live, from this file's own place and never from the working directory.

Papermill runs a notebook in the caller's folder, nbval in the notebook's own: only paths that do
not depend on either give both the same files.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
PROFILES = NOTEBOOKS / "profiles"
RESULTS = ROOT / "results"
FIGURES = ROOT / "figures"
# Relative paths in the environment are meant from the project's root, wherever a kernel runs.
CACHE = ROOT / os.environ.get("DMC_CACHE", "cache")  # clips, flow, checkpoints: rebuildable


def released_scores() -> Path | None:
    """The authors' score files (their folder ``exp_my``), or None.

    ``DMC_RELEASED_SCORES`` names it; without that, it is looked for among the real clips.
    """
    beside = (data_root() or ROOT) / "released_scores" / "exp_my"
    folder = ROOT / os.environ.get("DMC_RELEASED_SCORES", beside)
    return folder if folder.is_dir() else None


def data_root() -> Path | None:
    """The folder of real clips: ``DMC_SHARED_DATA``, else ``../shared/data``, else None.

    The suite never needs it; notebooks and tests that use it say so where it is absent.
    """
    folder = ROOT / os.environ.get("DMC_SHARED_DATA", "../shared/data")
    return folder if folder.is_dir() else None
