import struct
import tracemalloc
import zlib

import numpy as np
import pytest

from dmclib import flow
from dmclib.errors import VideoError
from dmclib.flow import store

HEAD, TAIL = 12, 8  # bytes of a file before its first field and after its index


def smooth(count, height=24, width=32, *, reach_px=6.0, seed=0):
    """Fields that look like flow: mostly slow, smooth, a fast patch with a sharp edge."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    fields = []
    for _ in range(count):
        a, b, c = rng.normal(0, 0.1, (3, 2, 1, 1))
        field = a + b * y + c * x
        field[:, height // 4 : height // 2, width // 4 : width // 2] += rng.normal(0, reach_px)
        fields.append(field.astype(np.float32))
    return fields


def eight_bits(fields):
    """What the paper's eight bits leave of fields."""
    return flow.dequantize(flow.quantize(np.stack(fields)))


def written(path, count=5, **kwargs):
    fields = smooth(count, **kwargs)
    assert store.write(path, fields) == count
    return fields


def deflated(data):
    return zlib.compress(data, wbits=-zlib.MAX_WBITS)


def signed(body, *, version=1, width=32, height=24, sizes=None):
    """A file of one field, its checksum right, whatever its head and index say."""
    head = b"DMCFLOW" + struct.pack("<BHH", version, width, height)
    sizes = [len(body)] if sizes is None else sizes
    index = b"".join(struct.pack("<II", size, zlib.crc32(body)) for size in sizes)
    count = struct.pack("<I", len(sizes))
    return head + body + index + count + struct.pack("<I", zlib.crc32(head + index + count))


@pytest.mark.parametrize("size", [(24, 32), (256, 340), (1, 1), (7, 13), (1, 50), (50, 1)])
def test_nothing_is_lost_beyond_the_eight_bits(tmp_path, size):
    path = tmp_path / f"clip{store.SUFFIX}"
    fields = written(path, 3, height=size[0], width=size[1])
    back = store.read(path, [1, 2, 3])
    assert back.dtype == np.float32
    assert back.shape == (3, 2, *size)
    assert (back == eight_bits(fields)).all()


def test_noise_over_the_whole_range_comes_back_within_the_stated_error(tmp_path):
    noise = np.random.default_rng(0).uniform(-60, 60, (4, 2, 40, 50)).astype(np.float32)
    noise[0, 0, 0, :4] = [20, -20, 1e30, -1e30]
    store.write(tmp_path / "a.flow", noise)
    back = store.read(tmp_path / "a.flow", range(1, 5))
    assert np.abs(back - noise.clip(-20, 20)).max() <= store.ERROR_PX
    assert store.ERROR_PX < 1.01 * 20 / 127.5


def test_frames_come_in_the_order_they_are_asked_for(tmp_path):
    fields = eight_bits(written(tmp_path / "a.flow", 9))
    assert store.count(tmp_path / "a.flow") == 9
    order = [9, 2, 2, 7, 1]
    back = store.read(tmp_path / "a.flow", np.array(order))
    for field, n in zip(back, order, strict=True):
        assert (field == fields[n - 1]).all()
    assert store.read(tmp_path / "a.flow", []).shape == (0, 2, 24, 32)


def test_one_field_is_a_clip(tmp_path):
    fields = written(tmp_path / "a.flow", 1)
    assert store.count(tmp_path / "a.flow") == 1
    assert (store.read(tmp_path / "a.flow", [1]) == eight_bits(fields)).all()


@pytest.mark.parametrize("value", [0.0, -25.0])
def test_a_field_all_alike_is_not_taken_for_a_bomb(tmp_path, value):
    store.write(tmp_path / "a.flow", [np.full((2, 1080, 1920), value, np.float32)])
    back = store.read(tmp_path / "a.flow", [1])
    assert (back == flow.dequantize(flow.quantize(np.float32([value])))).all()
    assert (tmp_path / "a.flow").stat().st_size < 10_000


def test_same_flow_same_bytes(tmp_path):
    written(tmp_path / "a.flow")
    written(tmp_path / "b.flow")
    assert (tmp_path / "a.flow").read_bytes() == (tmp_path / "b.flow").read_bytes()


def test_fields_are_taken_one_by_one(tmp_path):
    held = []

    def fields():
        for field in smooth(4):
            assert len(held) < 2
            held.append(field)
            yield field
            held.clear()

    assert store.write(tmp_path / "a.flow", fields()) == 4


@pytest.mark.parametrize("index", [0, -1, 6, 10**12])
def test_a_frame_that_is_not_there_is_refused(tmp_path, index):
    written(tmp_path / "a.flow")
    with pytest.raises(VideoError, match=f"frames 1 to 5, not into frame {index}"):
        store.read(tmp_path / "a.flow", [1, index])


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.full((2, 24, 32), np.nan, np.float32), "frame 3 is float32 or holds NaN"),
        (np.full((2, 24, 32), -np.inf, np.float32), "frame 3 is float32 or holds NaN"),
        (np.zeros((2, 24, 32), np.uint8), "frame 3 is uint8"),
        (np.zeros((2, 24, 30), np.float32), "frame 3 has shape"),
        (np.zeros((24, 32, 2), np.float32), "frame 3 has shape"),
        (np.zeros((2, 0, 32), np.float32), "frame 3 has shape"),
        (np.zeros((2, 1, 1 << 16), np.float32), "frame 3 has shape"),
    ],
)
def test_what_is_no_flow_is_refused_and_leaves_nothing(tmp_path, bad, words):
    with pytest.raises(VideoError, match=words):
        store.write(tmp_path / "a.flow", [*smooth(2), bad])
    assert list(tmp_path.iterdir()) == []


def test_a_clip_without_flow_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(VideoError, match="no flow to store"):
        store.write(tmp_path / "a.flow", iter([]))
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_half_way_leaves_the_old_file(tmp_path):
    fields = written(tmp_path / "a.flow", seed=1)

    def interrupted():
        yield from smooth(2)
        raise KeyboardInterrupt

    for name in ("a.flow", "b.flow"):
        with pytest.raises(KeyboardInterrupt):
            store.write(tmp_path / name, interrupted())
    assert [path.name for path in tmp_path.iterdir()] == ["a.flow"]
    assert (store.read(tmp_path / "a.flow", range(1, 6)) == eight_bits(fields)).all()


def test_every_cut_is_noticed(tmp_path):
    path = tmp_path / "a.flow"
    written(path, 3, height=6, width=8)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(VideoError, match=r"a\.flow: .*(damaged|no flow file)"):
            store.count(path)
        with pytest.raises(VideoError):
            store.read(path, [1])


def test_every_byte_counts(tmp_path):
    path = tmp_path / "a.flow"
    written(path, 3, height=6, width=8)
    whole = path.read_bytes()
    for position in range(len(whole)):
        for flipped in (1 << position % 8, 0xFF):
            damaged = bytearray(whole)
            damaged[position] ^= flipped
            path.write_bytes(damaged)
            with pytest.raises(VideoError, match=r"a\.flow: .*repare"):
                store.read(path, [1, 2, 3])


def test_a_damaged_field_spares_the_others(tmp_path):
    path = tmp_path / "a.flow"
    fields = eight_bits(written(path, 3))
    damaged = bytearray(path.read_bytes())
    damaged[HEAD + 20] ^= 0xFF
    path.write_bytes(damaged)
    assert (store.read(path, [2, 3]) == fields[1:]).all()
    with pytest.raises(VideoError, match=r"flow into frame 1 .* damaged"):
        store.read(path, [1])


def test_the_files_made_up_below_are_like_real_ones(tmp_path):
    path = tmp_path / "a.flow"
    path.write_bytes(signed(deflated(bytes([128] * 32) + bytes(32 * 47))))
    assert not store.read(path, [1]).any()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no flow file"),
        (b"RIFF" * 20, "no flow file"),
        (signed(deflated(bytes(1536)), version=2), "format 2, where this version reads 1"),
        (signed(deflated(bytes(1536)), width=65535, height=65535), "cannot hold 1 fields"),
        (signed(deflated(bytes(1536)), width=0), "cannot hold"),
        (signed(deflated(bytes(1536)), sizes=[]), "cut short"),
        (signed(deflated(bytes(1536)), sizes=[2**32 - 1]), "cannot hold"),
        (signed(deflated(bytes(1536)), sizes=[0, 16]), "cannot hold"),
        (signed(deflated(bytes(1536))) + bytes(4), "cut short"),
        (signed(deflated(bytes(1536)))[:-8] + b"\xff" * 8, "cut short"),
        (signed(deflated(bytes(1535))), "frame 1 is not of 32x24 pixels"),
        (signed(deflated(bytes(1537))), "frame 1 is not of 32x24 pixels"),
        (signed(b"\xff" * 1000), "frame 1 cannot be read"),
    ],
)
def test_a_hostile_file_is_refused_in_a_sentence(tmp_path, content, words):
    path = tmp_path / "a.flow"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=rf"a\.flow: .*{words}"):
        store.read(path, [1])


def test_a_hostile_head_allocates_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.flow"
    path.write_bytes(signed(deflated(bytes(1536)), width=65535, height=65535))
    monkeypatch.setattr(np, "empty", lambda *_: pytest.fail("allocated before the sizes are known"))
    with pytest.raises(VideoError):
        store.read(path, [1] * 1000)


def test_a_field_that_unfolds_to_gigabytes_is_given_up_early(tmp_path):
    path = tmp_path / "a.flow"
    path.write_bytes(signed(deflated(bytes(50_000_000))))
    tracemalloc.start()
    try:
        with pytest.raises(VideoError, match="frame 1 is not of 32x24 pixels"):
            store.read(path, [1])
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_what_is_no_file_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "absent.flow"):
        with pytest.raises(VideoError, match="cannot be opened"):
            store.count(path)
