"""Score files like the authors', for tests."""

import pickle
import zipfile

import numpy as np


def write_npy(archive, name, array):
    with archive.open(f"{name}.npy", "w") as member:
        np.lib.format.write_array_header_1_0(
            member, np.lib.format.header_data_from_array_1_0(array)
        )
        if array.dtype.hasobject:
            # Protocol 2 and the module's name of the time, as Python 2 and numpy 1 wrote it.
            content = pickle.dumps(array, protocol=2)
            content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            member.write(content)
        else:
            member.write(array.tobytes())


def write_scores(
    path,
    *,
    scores=((0.25, 1.5, -2.0), (1.25, 1.5, -2.0)),
    columns=2,
    cells=None,
    labels=(1, 0),
    beside=None,
    names=("a/one", "b/two"),
):
    """A file as the authors' code left it; ``beside`` are the labels in the scores' own rows."""
    rows = np.empty((len(scores), columns), dtype=object)
    for i, (row, label) in enumerate(zip(scores, beside or labels, strict=True)):
        rows[i, 0] = np.float32([row])
        rows[i, 1] = label
        if columns > 2:
            rows[i, 2] = np.zeros((25, 2), np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        write_npy(archive, "scores", rows if cells is None else cells)
        write_npy(archive, "labels", np.array(labels, np.int64))
        write_npy(archive, "names", np.array(names))
    return path
