"""An .mp4 made by hand, box by box, so that it can be odd in one chosen way."""

import struct

import av

RATE = 25  # frames per second; one sample lasts one unit of the time scale
UPRIGHT = (1, 0, 0, 1, 0, 0)  # a, b, c, d, x, y of a display matrix


def box(kind, *parts):
    body = b"".join(parts)
    return struct.pack(">I4s", len(body) + 8, kind.encode()) + body


def words(*values):
    return struct.pack(f">{len(values)}i", *values)


def children(data):
    """The boxes that follow one another in ``data``: kind and content."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        yield kind.decode("latin1"), data[at + 8 : at + size]
        at += size


def inside(data, *kinds):
    """The content of a box within boxes."""
    for kind in kinds:
        data = dict(children(data))[kind]
    return data


def samples(path):
    """The packets of an .mp4, those that an edit list hides too: (bytes, is a key frame)."""
    with av.open(str(path), options={"ignore_editlist": "1"}) as container:
        return [(bytes(p), p.is_keyframe) for p in container.demux(video=0) if p.size]


def description(path):
    """How an .mp4's samples are coded: the one entry of its ``stsd`` box."""
    return inside(path.read_bytes(), "moov", "trak", "mdia", "minf", "stbl", "stsd")[8:]


def _matrix(a, b, c, d, x, y):
    one = 1 << 16
    return words(a * one, b * one, 0, c * one, d * one, 0, x * one, y * one, 1 << 30)


def movie(path, runs, *, size, edits=None, matrix=UPRIGHT, keys=None):
    """Write an .mp4 with one video track.

    Args:
        runs: one (description, samples) pair per chunk.
        size: width, height.
        edits: (first sample shown, how many) pairs; None: everything, without an edit list.
        matrix: the display matrix, in whole units.
        keys: numbers of the samples to call key frames; None: those that are.
    """
    everything = [sample for _, run in runs for sample in run]
    count = len(everything)
    if keys is None:
        keys = [n for n, (_, is_key) in enumerate(everything) if is_key]
    ftyp = box("ftyp", b"isom", words(512), b"isomiso2mp41")
    kinds = list(dict.fromkeys(entry for entry, _ in runs))
    at, offsets = len(ftyp) + 8, []
    for _, run in runs:
        offsets.append(at)
        at += sum(len(data) for data, _ in run)
    per_chunk = [
        (n, len(run), kinds.index(entry) + 1) for n, (entry, run) in enumerate(runs, start=1)
    ]
    stbl = box(
        "stbl",
        box("stsd", words(0, len(kinds)), *kinds),
        box("stts", words(0, 1, count, 1)),
        box("stss", words(0, len(keys), *(n + 1 for n in keys))),
        box("stsc", words(0, len(runs), *(value for entry in per_chunk for value in entry))),
        box("stsz", words(0, 0, count, *(len(data) for data, _ in everything))),
        box("stco", words(0, len(offsets), *offsets)),
    )
    minf = box(
        "minf",
        box("vmhd", words(1, 0, 0)),
        box("dinf", box("dref", words(0, 1), box("url ", words(1)))),
        stbl,
    )
    mdia = box(
        "mdia",
        box("mdhd", words(0, 0, 0, RATE, count), b"\x55\xc4\0\0"),
        box("hdlr", words(0, 0), b"vide", words(0, 0, 0), b"v\0"),
        minf,
    )
    lists = [] if edits is None else [(length, start, 1 << 16) for start, length in edits]
    elst = box("elst", words(0, len(lists), *(value for entry in lists for value in entry)))
    shown = count if edits is None else sum(length for _, length in edits)
    trak = box(
        "trak",
        box(
            "tkhd",
            words(3, 0, 0, 1, 0, shown, 0, 0, 0, 0),
            _matrix(*matrix),
            words(size[0] << 16, size[1] << 16),
        ),
        b"" if edits is None else box("edts", elst),
        mdia,
    )
    mvhd = words(0, 0, 0, RATE, shown, 1 << 16) + b"\1\0" + bytes(10) + _matrix(*UPRIGHT)
    moov = box("moov", box("mvhd", mvhd, bytes(24), words(2)), trak)
    mdat = box("mdat", *(data for data, _ in everything))
    path.write_bytes(ftyp + mdat + moov)
    return path
