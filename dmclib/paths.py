"""Where things live, from this file's own place and never from the working directory.

Papermill runs a notebook in the caller's folder, nbval in the notebook's own. Only paths that
depend on neither give both the same files.
"""

import os
from pathlib import Path


def _folder(variable: str, default: str | Path) -> Path:
    """The folder that an environment variable names, or the default where it is unset or empty.

    ``~`` is the home folder. A relative path starts at the project's root.
    """
    return ROOT / os.path.expanduser(os.environ.get(variable) or default)


ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
PROFILES = NOTEBOOKS / "profiles"
RESULTS = ROOT / "results"
FIGURES = ROOT / "figures"
CACHE = _folder("DMC_CACHE", "cache")  # clips, flow, checkpoints: all can be made again


def released_scores() -> Path | None:
    """The authors' score files (their folder ``exp_my``), or None where there is no such folder.

    ``DMC_RELEASED_SCORES`` names it; the default is a folder of the real clips.
    """
    default = (data_root() or ROOT) / "released_scores" / "exp_my"
    folder = _folder("DMC_RELEASED_SCORES", default)
    return folder if folder.is_dir() else None


def released_weights() -> Path | None:
    """The folder of the authors' checkpoints, ``hmdb51/split1/*.pth.tar`` ..., or None.

    ``DMC_RELEASED_WEIGHTS`` names it; the default is a folder of the real clips.
    """
    folder = _folder("DMC_RELEASED_WEIGHTS", (data_root() or ROOT) / "released_weights")
    return folder if folder.is_dir() else None


def data_root() -> Path | None:
    """The folder of real clips, or None: ``DMC_SHARED_DATA``, by default ``../shared/data``.

    The suite never needs it. Notebooks and tests that use it say so where it is absent.
    """
    folder = _folder("DMC_SHARED_DATA", "../shared/data")
    return folder if folder.is_dir() else None
