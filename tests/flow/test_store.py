import re
import resource

import av
import numpy as np
import pytest

from dmclib import codec, flow
from dmclib.errors import OutputError, VideoError
from dmclib.flow import store


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


@pytest.mark.parametrize("name", ["12:30.avi", "http:film.avi", "a%d.avi", "-film.avi"])
def test_a_path_is_a_path(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    fields = written(name)
    np.testing.assert_array_equal(store.read(name, range(1, 6)), eight_bits(fields))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def read_or_refused(path, expected):
    """Whether every field comes back as it was; False if the file is refused in a sentence."""
    try:
        fields = store.read(path, range(1, len(expected) + 1))
    except VideoError as error:
        message = str(error)
        if re.search(r"a\.avi: .*prepare the clip again", message):
            return False
        raise
    assert fields.shape == expected.shape
    assert (fields == expected).all()
    return True


@pytest.mark.parametrize("size", [(24, 32), (256, 340), (4, 4), (7, 13), (4, 50), (50, 4)])
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
    store.write(tmp_path / "a.avi", noise)
    back = store.read(tmp_path / "a.avi", range(1, 5))
    assert np.abs(back - noise.clip(-20, 20)).max() <= store.ERROR_PX
    assert store.ERROR_PX < 1.01 * 20 / 127.5


def test_frames_come_in_the_order_they_are_asked_for(tmp_path):
    fields = eight_bits(written(tmp_path / "a.avi", 9))
    order = [9, 2, 2, 7, 1]
    back = store.read(tmp_path / "a.avi", np.array(order))
    for field, n in zip(back, order, strict=True):
        assert (field == fields[n - 1]).all()
    assert store.read(tmp_path / "a.avi", []).shape == (0, 2, 24, 32)


def test_one_field_is_a_clip(tmp_path):
    fields = written(tmp_path / "a.avi", 1)
    assert (store.read(tmp_path / "a.avi", [1]) == eight_bits(fields)).all()


@pytest.mark.parametrize("value", [0.0, -25.0])
def test_a_field_all_alike_takes_little_space(tmp_path, value):
    store.write(tmp_path / "a.avi", [np.full((2, 1080, 1920), value, np.float32)])
    back = store.read(tmp_path / "a.avi", [1])
    assert (back == flow.dequantize(flow.quantize(np.float32([value])))).all()
    assert (tmp_path / "a.avi").stat().st_size < 10_000


def test_same_flow_same_bytes(tmp_path):
    written(tmp_path / "a.avi")
    written(tmp_path / "b.avi")
    assert (tmp_path / "a.avi").read_bytes() == (tmp_path / "b.avi").read_bytes()


def test_fields_are_taken_one_by_one(tmp_path):
    held = []

    def fields():
        for field in smooth(4):
            assert len(held) < 2
            held.append(field)
            yield field
            held.clear()

    assert store.write(tmp_path / "a.avi", fields()) == 4


@pytest.mark.parametrize("index", [0, -1, 6, 10**12])
def test_a_frame_that_is_not_there_is_refused(tmp_path, index):
    written(tmp_path / "a.avi")
    with pytest.raises(VideoError, match=f"frames 1 to 5, not into frame {index}"):
        store.read(tmp_path / "a.avi", [1, index])


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.full((2, 24, 32), np.nan, np.float32), "frame 3 is float32 or holds NaN"),
        (np.full((2, 24, 32), -np.inf, np.float32), "frame 3 is float32 or holds NaN"),
        (np.zeros((2, 24, 32), np.uint8), "frame 3 is uint8"),
        (np.zeros((2, 24, 30), np.float32), "frame 3 has shape"),
        (np.zeros((24, 32, 2), np.float32), "frame 3 has shape"),
        (np.zeros((2, 0, 32), np.float32), "frame 3 has shape"),
        (np.zeros((2, 4, 8193), np.float32), "frame 3 has shape"),
    ],
)
def test_what_is_no_flow_is_refused_and_leaves_nothing(tmp_path, bad, words):
    with pytest.raises(VideoError, match=words):
        store.write(tmp_path / "a.avi", [*smooth(2), bad])
    assert list(tmp_path.iterdir()) == []


def test_a_clip_without_flow_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(VideoError, match="no flow to store"):
        store.write(tmp_path / "a.avi", iter([]))
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_half_way_leaves_the_old_file(tmp_path):
    fields = written(tmp_path / "a.avi", seed=1)

    def interrupted():
        yield from smooth(2)
        raise KeyboardInterrupt

    for name in ("a.avi", "b.avi"):
        with pytest.raises(KeyboardInterrupt):
            store.write(tmp_path / name, interrupted())
    assert [path.name for path in tmp_path.iterdir()] == ["a.avi"]
    assert (store.read(tmp_path / "a.avi", range(1, 6)) == eight_bits(fields)).all()


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"a\.avi: cannot be written \(File too large\)"):
            store.write(tmp_path / "a.avi", smooth(9, 256, 340))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_every_cut_is_refused(tmp_path):
    path = tmp_path / "a.avi"
    fields = eight_bits(written(path, 3, height=8, width=12))
    whole = path.read_bytes()
    # The last three bytes are the zeros of a length: without them every number is still there.
    for length in [*range(0, len(whole) - 200, 23), *range(len(whole) - 200, len(whole) - 3)]:
        path.write_bytes(whole[:length])
        assert not read_or_refused(path, fields), length


def test_no_flipped_bit_gives_a_wrong_number(tmp_path):
    path = tmp_path / "a.avi"
    fields = eight_bits(written(path, 3, height=8, width=12))
    whole = path.read_bytes()
    pictures = [match.start() + 8 for match in re.finditer(b"00dc", whole)][1:4]
    refused = []
    head = whole.index(b"JUNK")  # what follows it is room for a longer index, without meaning
    for bit in [*range(0, 8 * head, 5), *range(8 * pictures[0] - 64, 8 * len(whole), 5)]:
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        if not read_or_refused(path, fields):
            refused.append(bit // 8)
    second = range(pictures[1], pictures[2] - 16)
    assert sum(byte in second for byte in refused) >= 8 * len(second) // 5 - 1  # every one


def test_a_damaged_field_spares_the_others(tmp_path):
    path = tmp_path / "a.avi"
    fields = eight_bits(written(path, 3))
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(b"movi00dc") + 60] ^= 0xFF
    path.write_bytes(damaged)
    assert (store.read(path, [2, 3]) == fields[1:]).all()
    with pytest.raises(VideoError, match=r"flow into frame 1 .* damaged"):
        store.read(path, [1])


def test_fields_that_have_moved_up_by_one_are_noticed(tmp_path):
    written(tmp_path / "whole.avi", 3)
    path = tmp_path / "a.avi"
    with av.open(str(tmp_path / "whole.avi")) as whole, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(whole.streams.video[0])
        _, *others = (packet for packet in whole.demux() if packet.size)
        for n, packet in enumerate(others):
            packet.stream, packet.pts, packet.dts = stream, n, n
            out.mux(packet)
    for n in (1, 2):
        with pytest.raises(VideoError, match=f"frame {n} is not what was written"):
            store.read(path, [n])


@pytest.mark.parametrize("content", [b"", b"RIFF" * 20, b"DMCFLOW\x01" + bytes(99), b"#EXTM3U\n"])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "a.avi").write_bytes(content)
    with pytest.raises(VideoError, match=r"a\.avi: .*prepare the clip again"):
        store.read(tmp_path / "a.avi", [1])


def test_another_video_is_no_flow(tmp_path):
    codec.encode([np.zeros((32, 48, 3), np.uint8)] * 3, tmp_path / "a.mp4")
    with pytest.raises(VideoError, match=r"a\.mp4: .*prepare the clip again"):
        store.read(tmp_path / "a.mp4", [1])
    with av.open(str(tmp_path / "a.avi"), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        out.mux(stream.encode(av.VideoFrame(48, 32, "yuv420p")))
        out.mux(stream.encode(None))
    with pytest.raises(VideoError, match=r"a\.avi: .*prepare the clip again"):
        store.read(tmp_path / "a.avi", [1])


def test_what_is_no_file_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "absent.avi"):
        with pytest.raises(VideoError, match="no such file"):
            store.read(path, [1])
