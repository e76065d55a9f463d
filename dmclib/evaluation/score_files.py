"""Score files that the authors released, read without running anything in them.

They are pickles, which may call any function. The unpickler here knows the four names that these
files need, puts a passive class or function in the place of each, and refuses any other name.
"""

import io
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dmclib import errors

LARGEST_SCORE_FILE = 64 * 2**20  # bytes unpacked; the largest released one has 3.6 MB


@dataclass(frozen=True)
class ReleasedScores:
    """The authors' scores of one stream on one split's test videos."""

    scores: np.ndarray  # float32 (videos, classes), raw, averaged over a video's segments
    labels: np.ndarray  # int64 (videos,)
    names: tuple[str, ...]  # the authors' paths; spelled differently in some files, order agrees


def load_released_scores(path: str | Path) -> ReleasedScores:
    """Read a score file that the authors released, without running anything in it.

    The file is an ``.npz`` with labels, names, and a pickled object array of one row per video:
    scores ``(1, classes)``, label and, in the adversarial runs, the discriminator's output, which
    is not read.

    Raises:
        ScoreFileError: the file is missing, damaged, too large or unsafe, or its parts do not
            agree.
    """
    path = Path(path)
    if not path.is_file():
        raise errors.ScoreFileError(
            f"{path}: no such score file. Point to a checkout of facebookresearch/dmc-net's exp_my."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
            if size > LARGEST_SCORE_FILE:
                raise _Refused(f"it unpacks to {size} bytes, more than {LARGEST_SCORE_FILE}")
            parts = {part: archive.read(f"{part}.npy") for part in ("scores", "labels", "names")}
        return _assemble(**{part: _read_npy(part, content) for part, content in parts.items()})
    except _Refused as error:
        reason = str(error)
    # Damaged bytes may surface as nearly anything in zipfile, numpy's header reader and pickle.
    except Exception as error:
        reason = f"it is damaged ({type(error).__name__}: {error})"
    raise errors.ScoreFileError(
        f"{path}: not one of the authors' score files: {reason}. Fetch it again from "
        "facebookresearch/dmc-net, and open no other file this way."
    )


class _Refused(Exception):
    """Why a score file is not taken."""


class _Dtype:
    """Stands for ``numpy.dtype``: remembers its code and byte order."""

    def __init__(self, code: str, *_):
        self.code = code

    def __setstate__(self, state):
        self.order = state[1]


class _Array:
    """Stands for ``numpy.ndarray``: remembers what the pickle says of it."""

    def __init__(self, *_):
        pass

    def __setstate__(self, state):
        _, self.shape, self.dtype, self.fortran, self.data = state

    def to_float32(self) -> np.ndarray:
        if (self.dtype.code, self.dtype.order, self.fortran) != ("f4", "<", False):
            raise _Refused("its scores are not little-endian float32")
        return np.frombuffer(self.data, "<f4").reshape(self.shape)


class _ScoreUnpickler(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO):
        super().__init__(stream)
        self.encoded = 0
        self.allowed = {
            ("numpy.core.multiarray", "_reconstruct"): _Array,
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): _Dtype,
            ("_codecs", "encode"): self._encode,
        }

    def find_class(self, module: str, name: str):
        if (module, name) not in self.allowed:
            wanted = ascii(f"{module}.{name}"[:80])
            raise _Refused(f"its pickle asks for {wanted}, which no score file needs")
        return self.allowed[module, name]

    def _encode(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":  # as Python 2's bytes come; the real one reaches any codec
            raise _Refused(f"its pickle encodes as {ascii(encoding)[:80]}")
        # A few bytes of pickle can encode one long text over and over.
        self.encoded += len(text)
        if self.encoded > LARGEST_SCORE_FILE:
            raise _Refused("its pickle writes more bytes than it has")
        return str.encode(text, encoding)


def _read_npy(part: str, content: bytes) -> np.ndarray | list:
    """The array in one member; for scores, the flat list of cells with its checked shape."""
    stream = io.BytesIO(content)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise _Refused(f"{part}.npy is not of format 1.0")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if part == "scores":
        array = _ScoreUnpickler(stream).load()
        if not isinstance(array, _Array) or not isinstance(array.data, list):
            raise _Refused("its scores are not an object array")
        videos, columns = array.shape
        if (videos, columns) != shape or columns not in (2, 3) or array.fortran:
            raise _Refused(f"its scores have shape {array.shape}, not (videos, 2 or 3)")
        if len(array.data) != videos * columns:
            raise _Refused(f"its scores have {len(array.data)} cells for shape {shape}")
        return [array.data[i : i + 2] for i in range(0, len(array.data), columns)]
    if dtype.kind not in "iU" or fortran or len(shape) != 1:
        raise _Refused(f"{part}.npy holds {dtype} of shape {shape}")
    return np.frombuffer(stream.read(), dtype).reshape(shape)


def _assemble(scores: list, labels: np.ndarray, names: np.ndarray) -> ReleasedScores:
    if not len(scores) == len(labels) == len(names) > 0:
        raise _Refused(f"{len(scores)} scores, {len(labels)} labels and {len(names)} names")
    rows = np.concatenate([row.to_float32() for row, _ in scores])
    if rows.shape[0] != len(scores) or not np.isfinite(rows).all():
        raise _Refused(f"its scores are not finite rows, one per video (shape {rows.shape})")
    if [label for _, label in scores] != labels.tolist():
        raise _Refused("the labels beside its scores are not those of labels.npy")
    if labels.min() < 0 or labels.max() >= rows.shape[1]:
        raise _Refused(f"labels {labels.min()} to {labels.max()} for {rows.shape[1]} classes")
    return ReleasedScores(rows, labels.astype(np.int64), tuple(names.tolist()))
