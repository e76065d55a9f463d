import os
import resource

import av
import numpy as np
import pytest
import torch
from PIL import Image

from dmclib import cli, codec, data, demo, experiment, models, paths, training, weights
from dmclib.errors import CheckpointError, OutputError, ProfileError, VideoError
from tests.codec import mp4_maker
from tests.codec.material import contained

FRAMES = 14  # an I-frame, its GOP, an I-frame and a P-frame


def drifting(frames=FRAMES, height=64, width=96):
    """A coarse texture that moves 4 px to the right a frame, uint8 RGB."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    texture = coarse.repeat(8, axis=0).repeat(8, axis=1)
    return (np.roll(texture, 4 * n, axis=1) for n in range(frames))


@pytest.fixture
def ours(tmp_path):
    path = tmp_path / "drift.mp4"
    codec.encode(drifting(), path, fps=10)
    return path


@pytest.fixture
def theirs(tmp_path):
    """The same pictures as somebody else's encoder stores them."""
    path = tmp_path / "theirs.avi"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        for picture in drifting():
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
    return path


@pytest.fixture
def still_cue():
    """A generator that adds nothing: its cue is the vectors themselves."""
    generator = models.DenseGenerator().eval()
    torch.nn.init.zeros_(generator.to_cue.weight)
    torch.nn.init.zeros_(generator.to_cue.bias)
    return demo.Weights(generator, 32, "A cue that is the vectors.")


def panels_of(path, count):
    """The middles of every frame's panels: (frames, panels, H, W, 3)."""
    rows = np.stack(list(codec.decode_rgb(path)))[:, -250:-6]
    return np.stack([part[:, :, 8:-12] for part in np.split(rows, count, axis=2)], axis=1)


def test_a_clip_and_a_still_of_every_panel_are_written(ours, tmp_path, still_cue):
    before = ours.read_bytes()
    shown = demo.show(ours, tmp_path / "out", weights=still_cue)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "drift-dmc.mp4",
        "drift-dmc.png",
    ]
    assert shown.frames == FRAMES
    assert shown.full_colour_px == 4
    assert "A cue that is the vectors." in shown.says
    info = codec.probe(shown.clip)
    assert (info.frames, info.fps) == (FRAMES, 10)
    assert (info.width, info.height) == (4 * 388, 256 + 44)  # panels keep the source's 3:2
    assert shown.still.read_bytes().startswith(b"\x89PNG")
    assert ours.read_bytes() == before

    strip = next(codec.decode_rgb(shown.clip))[:40]
    for title in np.split(strip, 4, axis=1):
        assert (title.max(axis=2) < 100).any()  # dark letters above each panel
    picture, vectors, residual, cue = panels_of(shown.clip, 4).astype(int).swapaxes(0, 1)
    assert np.abs(picture[0] - picture[5]).mean() > 20
    assert (vectors[0] > 240).all()  # the first frame knows of no motion: white
    # 4 px to the right are all of the scale: red. An I-frame keeps what the frame before had.
    for n in (5, 11, 12, 13):
        red = np.median(vectors[n], axis=(0, 1))
        assert red[0] > 200
        assert red[1:].max() < 60
        assert np.abs(cue[n] - vectors[n]).mean() < 8  # it was enlarged from 32 rows
    assert np.abs(residual[0] - 128).max() < 12


def test_another_codec_is_re_encoded_and_its_cue_left_out_without_weights(theirs, tmp_path):
    shown = demo.show(theirs, tmp_path / "out")
    assert shown.frames == codec.probe(shown.clip).frames == FRAMES
    assert codec.probe(shown.clip).width == 3 * 388
    vectors = panels_of(shown.clip, 3)[5, 1].astype(int)
    assert np.median(vectors[..., 0] - vectors[..., 1]) > 60  # to the right still
    assert shown.says == ()


@pytest.mark.parametrize("codec_name", ["h264", "mpeg4"])
def test_the_clip_is_h264_or_what_there_is(ours, tmp_path, monkeypatch, codec_name):
    if codec_name == "mpeg4":
        monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    elif "libx264" not in av.codecs_available:
        pytest.skip("this FFmpeg has no libx264")
    shown = demo.show(ours, tmp_path / "out")
    with av.open(str(shown.clip)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == (codec_name, "yuv420p")
    assert len(list(codec.decode_rgb(shown.clip))) == FRAMES


def test_of_a_long_video_the_beginning_is_shown(ours, theirs, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "LONGEST", 5)
    for source in (ours, theirs):
        shown = demo.show(source, tmp_path / "out")
        assert shown.frames == codec.probe(shown.clip).frames == 5
        assert "first 5 frames" in shown.says[0]


@pytest.mark.parametrize("name", ["12:30.mp4", "http:film.mp4", "-film.mp4", "a%d.mp4", "100%.mp4"])
def test_a_path_is_a_path(ours, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    ours.rename(name)
    shown = demo.show(name)
    stem = name.removesuffix(".mp4")
    assert sorted(os.listdir(f"{stem}-dmc")) == [f"{stem}-dmc.mp4", f"{stem}-dmc.png"]
    assert codec.probe(shown.clip).frames == FRAMES
    assert next(codec.decode_rgb(shown.still)).shape == next(codec.decode_rgb(shown.clip)).shape


@pytest.mark.parametrize("suffix", ["m4v", "mp4"])
def test_a_size_that_changes_in_mid_stream_is_shown_whole(tmp_path, suffix):
    takes = []
    for n, (height, width) in enumerate([(64, 96), (48, 64)]):
        codec.encode(drifting(12, height, width), tmp_path / f"{n}.m4v")
        takes.append((tmp_path / f"{n}.m4v").read_bytes())
    (tmp_path / "takes.m4v").write_bytes(b"".join(takes))
    source = tmp_path / f"takes.{suffix}"
    if suffix == "mp4":
        contained(tmp_path / "takes.m4v", source)
    shown = demo.show(source, tmp_path / "out")
    assert shown.frames == codec.probe(shown.clip).frames == 24


def test_a_mirrored_clip_is_shown_as_a_player_shows_it(ours, tmp_path):
    run = mp4_maker.description(ours), mp4_maker.samples(ours)
    mirror = (-1, 0, 0, 1, 96, 0)
    path = mp4_maker.movie(tmp_path / "film.mp4", [run], size=(96, 64), matrix=mirror)
    shown = demo.show(path, tmp_path / "out")
    plain = demo.show(ours, tmp_path / "plain")
    picture, vectors, _ = panels_of(shown.clip, 3)[5].astype(int)
    expected, _, _ = panels_of(plain.clip, 3)[5].astype(int)
    assert np.abs(picture - expected[:, ::-1]).mean() < 20 < np.abs(picture - expected).mean()
    assert np.median(vectors[..., 0] - vectors[..., 1]) < -60  # to the left: cyan


def test_the_video_itself_is_never_written_to(ours, tmp_path):
    (tmp_path / "out").mkdir()
    os.link(ours, tmp_path / "out" / "drift-dmc.png")
    before = ours.read_bytes()
    with pytest.raises(OutputError, match="is the video itself"):
        demo.show(ours, tmp_path / "out")
    assert ours.read_bytes() == before
    assert os.listdir(tmp_path / "out") == ["drift-dmc.png"]


def test_what_fails_half_way_leaves_nothing(ours, tmp_path, monkeypatch):
    def broken(*_):
        yield {"picture": np.zeros((64, 96, 3), np.uint8), "motion vectors": np.zeros((2, 64, 96))}
        raise VideoError("frame 1 is damaged.")

    monkeypatch.setattr(demo, "panels_of", broken)
    with pytest.raises(VideoError, match="frame 1"):
        demo.show(ours, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize("part", [0.1, 0.9])
def test_a_full_disk_is_a_sentence_and_leaves_nothing(ours, tmp_path, part):
    whole = demo.show(ours, tmp_path / "whole")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(part * whole.clip.stat().st_size), limits[1]))
    try:
        with pytest.raises(
            OutputError, match=r"drift-dmc\.mp4: cannot be written \(File too large"
        ):
            demo.show(ours, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path / "out") == []


def test_a_bad_video_and_a_missing_one_are_a_sentence(tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"not a video at all" * 100)
    for path, words in ((bad, "is not a readable video"), (tmp_path / "gone.mp4", "no such file")):
        with pytest.raises(VideoError, match=words):
            demo.show(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_weights_are_a_sentence_with_the_command(tmp_path, monkeypatch, ours, capsys):
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    with pytest.raises(CheckpointError, match="dmc reproduce laptop --only 06"):
        demo.find_weights("laptop")
    with pytest.raises(CheckpointError, match="dmc reproduce ucf101 --only 06"):
        demo.find_weights("ucf101")  # whose videos must be named: the kept generator alone
    with pytest.raises(ProfileError, match="there is no profile 'labtop'"):
        demo.find_weights("labtop")
    monkeypatch.setattr("sys.argv", ["dmc", "demo", str(ours), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert "dmc: no generator of profile laptop is trained" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """The training that notebook 06 shows at its defaults, as if it were done."""
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    config = demo._config("smoke")
    weights.save(training.build_networks(config, 10), config.folder / "weights.safetensors")
    frame = {"logits": torch.zeros(1, 10), "epe_px": torch.zeros(1)}
    frame |= {name: torch.zeros(1, dtype=torch.int64) for name in ("label", "clip")}
    weights.write(frame, config.folder / "scores.safetensors")
    return config


def test_a_finished_training_names_classes_and_says_what_they_are_worth(finished, ours, tmp_path):
    assert finished.weights.adversarial == 0.1
    weights = demo.find_weights("smoke")
    assert weights.height == 128
    shown = demo.show(ours, tmp_path / "out", weights=weights)
    (line,) = [sentence for sentence in shown.says if sentence.startswith("Its classifier says")]
    assert sum(action in line for action in data.PuppetActions.classes) == 3
    assert any("trained on PuppetActions" in sentence for sentence in shown.says)


def test_a_kept_generator_comes_back_with_what_it_was_trained_on(finished, monkeypatch, tmp_path):
    kept = experiment.save_generator(finished, "laptop")
    assert kept.stat().st_size < 30_000
    monkeypatch.setattr(paths, "CACHE", tmp_path / "elsewhere")
    trained = demo.find_weights("laptop")
    assert (trained.height, trained.networks) == (128, None)
    assert "results/laptop, trained on PuppetActions" in trained.says
    assert trained.generator.state_dict()["to_cue.weight"].shape == (2, 33, 3, 3)
    assert kept.parent.name == "laptop"

    weights.save(trained.generator, kept)  # without its note
    with pytest.raises(CheckpointError, match="does not say the height"):
        demo.find_weights("laptop")


@pytest.mark.data
def test_a_real_video_of_another_codec_is_shown(shared_data, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "LONGEST", 3)
    shown = demo.show(shared_data / "clips" / "imageio_cockatoo.mp4", tmp_path / "out")
    info = codec.probe(shown.clip)
    assert (info.frames, info.width, info.height) == (3, 3 * 460, 256 + 44)


def test_panels_become_a_picture_that_moves(tmp_path):
    dice = np.random.default_rng(0)
    rows = [
        {
            "picture": dice.integers(0, 256, (32, 48, 3), dtype=np.uint8),
            "motion vectors": dice.normal(size=(2, 32, 48)).astype(np.float32),
        }
        for _ in range(5)
    ]
    target = demo.animate(rows, tmp_path / "new" / "moving.webp", full_colour_px=4)
    with Image.open(target) as moving:
        assert (moving.n_frames, moving.info["loop"]) == (5, 0)
        assert moving.width == 2 * (384 + 4)
