"""Files that are not as they should be, and real ones: frames, or a sentence."""

import itertools
import wave

import av
import numpy as np
import pytest

from dmclib import codec
from dmclib.codec import read_at, read_frames
from dmclib.errors import VideoError
from dmclib.paths import data_root
from tests.codec.material import remuxed, same

NASTY = sorted((data_root() / "nasty").iterdir()) if data_root() else []

READERS = {
    "probe": codec.probe,
    "packets": codec.packets,
    "decode_rgb": lambda path: list(codec.decode_rgb(path)),
    "read_frames": lambda path: list(read_frames(path)),
    "read_at": lambda path: read_at(path, [0]),
    "transcode": lambda path: codec.transcode(path, path.with_name("target.mp4")),
}


@pytest.fixture(params=READERS)
def reader(request):
    return READERS[request.param]


def refused(reader, path, sentence):
    with pytest.raises(VideoError, match=sentence) as caught:
        reader(path)
    assert str(path) in str(caught.value)
    assert not path.with_name("target.mp4").exists()


def test_a_missing_file(tmp_path, reader):
    refused(reader, tmp_path / "absent.mp4", "no such file")


@pytest.mark.parametrize("content", [b"", b"not a video\n", b"#EXTM3U\nhttp://example.org/a.ts\n"])
def test_a_text_named_mp4(tmp_path, reader, content):
    path = tmp_path / "notes.mp4"
    path.write_bytes(content)
    refused(reader, path, "is not a readable video|no video|cannot be decoded")


def test_audio_alone(tmp_path, reader):
    path = tmp_path / "song.wav"
    with wave.open(str(path), "wb") as song:
        song.setnchannels(1)
        song.setsampwidth(2)
        song.setframerate(8000)
        song.writeframes(bytes(1600))
    refused(reader, path, "holds audio but no video")


@pytest.mark.parametrize("name", ["decode_rgb", "read_frames", "transcode"])
@pytest.mark.parametrize("suffix", ["mp4", "m4v"])
@pytest.mark.parametrize("flips", [1, 2, 3])
def test_damaged_bytes_give_an_error_or_whole_frames_never_zeros(
    tmp_path, clips, name, suffix, flips
):
    data = bytearray((clips / f"clip.{suffix}").read_bytes())
    rng = np.random.default_rng(flips)
    for at in rng.integers(len(data) // 8, len(data) // 2, 20 * flips):
        data[at] ^= 0xFF
    path = tmp_path / f"damaged.{suffix}"
    path.write_bytes(data)
    refused(READERS[name], path, "damaged")


@pytest.mark.parametrize("name", ["decode_rgb", "read_frames", "read_at", "transcode"])
def test_a_clip_that_is_cut_short(tmp_path, clips, name):
    path = tmp_path / "short.mp4"
    data = (clips / "clip.mp4").read_bytes()
    path.write_bytes(data[: len(data) // 2])  # its index, at the end, is gone
    refused(READERS[name], path, "not a readable video")


@pytest.mark.parametrize("name", ["decode_rgb", "read_frames", "read_at", "transcode"])
@pytest.mark.parametrize("beyond", [0, 50], ids=["between frames", "in a frame"])
def test_a_clip_cut_short_behind_its_index(tmp_path, clips, name, beyond):
    remuxed(clips / "clip.mp4", tmp_path / "fast.mp4", movflags="faststart")
    with av.open(str(tmp_path / "fast.mp4")) as container:
        at = [packet.pos for packet in container.demux(video=0) if packet.size][20]
    path = tmp_path / "short.mp4"
    path.write_bytes((tmp_path / "fast.mp4").read_bytes()[: at + beyond])
    refused(READERS[name], path, "cut short|corrupt|decoded")


def test_frames_before_the_damage_are_given_first(tmp_path, clips):
    packets = codec.packets(clips / "clip.m4v")
    data = bytearray((clips / "clip.m4v").read_bytes())
    begin = sum(p.size_bytes for p in packets[:16])
    data[begin + 20 : begin + 400] = b"\xff" * 380
    (tmp_path / "damaged.m4v").write_bytes(data)
    frames = read_frames(tmp_path / "damaged.m4v")
    for whole in itertools.islice(read_frames(clips / "clip.m4v"), 16):
        assert same(next(frames), whole)
    with pytest.raises(VideoError, match=r"frame 1[67] is marked corrupt"):
        list(frames)


def test_a_stream_that_begins_in_the_middle_of_a_gop(tmp_path, clips):
    packets = codec.packets(clips / "clip.m4v")
    data = (clips / "clip.m4v").read_bytes()
    path = tmp_path / "tail.m4v"
    header = data[: data.index(b"\x00\x00\x01\xb6")]
    path.write_bytes(header + data[sum(p.size_bytes for p in packets[:5]) :])
    for read in (READERS["read_frames"], READERS["read_at"]):
        refused(read, path, "P-frame|corrupt|wrong about|decoded")


def test_a_header_that_claims_a_billion_frames_is_not_believed(tmp_path, clips):
    data = bytearray((clips / "clip.mp4").read_bytes())
    at = data.index(b"stsz") + 12
    assert int.from_bytes(data[at : at + 4], "big") == 30
    data[at : at + 4] = (10**9).to_bytes(4, "big")
    path = tmp_path / "boast.mp4"
    path.write_bytes(data)
    for read in (READERS["read_frames"], READERS["read_at"]):
        refused(read, path, "boast.mp4")


# --- the real clips -----------------------------------------------------------------------------


@pytest.mark.data
def test_the_default_reading_is_the_papers_loader(shared_data):
    golden = np.load(shared_data / "golden" / "bikes_coviar.npz")
    clip = shared_data / "clips" / "bikes.m4v"
    columns, errors = np.arange(340), []
    for accumulate, mode in ((False, "plain"), (True, "accumulated")):
        names = [n for n in golden.files if n.endswith(f"{mode}_mv")]
        assert len(names) == 6
        asked = [12 * int(n[3:5]) + int(n[9:11]) for n in names]
        for name, frame in zip(names, read_at(clip, asked, accumulate=accumulate), strict=True):
            np.testing.assert_array_equal(frame.motion, golden[name].transpose(2, 0, 1))
            bgr = golden[name.replace("_mv", "_residual_bgr")]
            error = np.abs(frame.residual - bgr[..., ::-1].transpose(2, 0, 1))
            # The loader's scaler leaves columns 336 to 339 unwritten. Values made of them cannot
            # agree; all others do, exactly.
            made_of_them = (columns >= 336) | (columns - frame.motion[0] >= 336)
            assert error[:, ~made_of_them].max() == 0
            errors.append(error)
    errors = np.stack(errors)
    print(f"residuals within 3: {(errors <= 3).mean():.4f}, mean difference {errors.mean():.3f}")
    assert (errors <= 3).mean() >= 0.98
    assert errors.mean() <= 1


@pytest.mark.data
@pytest.mark.parametrize("path", NASTY, ids=lambda path: path.name)
@pytest.mark.parametrize("name", ["decode_rgb", "read_frames", "transcode"])
def test_odd_files_give_frames_or_a_sentence(shared_data, tmp_path, path, name):
    target = tmp_path / "target.mp4"
    error, frames = None, 0
    try:
        if name == "transcode":
            codec.transcode(path, target)
            frames = len(list(read_frames(target)))
        else:
            frames = sum(1 for _ in getattr(codec, name)(path))
    except VideoError as refusal:
        error = str(refusal)
    if error is None:
        assert frames > 0
    else:
        assert str(path) in error
        assert not target.exists()


@pytest.mark.data
@pytest.mark.parametrize(("name", "turns"), [("90", -1), ("180", 2), ("270", 1)])
def test_a_phone_video_is_turned_upright(shared_data, name, turns):
    path = shared_data / "nasty" / f"decord_video_{name}.mov"
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    upright = next(codec.decode_rgb(path))
    np.testing.assert_allclose(upright, np.rot90(stored, turns), atol=16)  # scalers round


@pytest.mark.data
def test_a_clip_of_another_encoder_is_read_or_refused(shared_data):
    foreign_clip = shared_data / "clips" / "mvextractor_vid_mpeg4_part2.mp4"
    frames = read_at(foreign_clip, [1, 200, 336])
    assert [f.rgb.shape for f in frames] == [(720, 1280, 3)] * 3
    with pytest.raises(VideoError, match="B-frame"):
        list(read_frames(shared_data / "clips" / "mmaction2_test.avi"))
