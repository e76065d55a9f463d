import json
import os
import shutil
import sys

import numpy as np
import pytest
import torch

from dmclib import cli, codec, data, evaluation, fast, paths, recognition
from dmclib.data import manifest
from dmclib.released import protocol
from dmclib.transforms import Sample
from tests.released.material import (
    MEAN,
    STD,
    classified,
    dmc_state,
    normed,
    resnet,
    stream_state,
    their_cue,
    their_residual,
    their_vectors,
    under,
    write,
)

CLASSES = ("clap", "smile")  # ours are sorted; the authors' labels of HMDB-51 are smile 0, clap 1
LABELS = {"smile": 0, "clap": 1}
FRAMES = [6, 15, 23]  # of 30: (30 - 2) / 3 * (k + 0.5) + 1 is 5.67, 15 and 24.33; 24 is a key frame
KEY_FRAMES = [0, 12, 24]  # 29 / 3 * (k + 0.5) is 4.83, 14.5 and 24.17
WINDOW = 42  # of 48 rows, 0.875
FILES = {"iframe": "a", "mv": "b", "residual": "c", protocol.ADV: "d"}  # names say nothing


def names(action):
    """Two films to train on, two to test on, a clip of each."""
    return [f"{action}/film{k}_{action}_u_nm_np1_fr_med_0.avi" for k in range(4)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """What ``dmc prepare hmdb51`` would leave of eight clips, 30 frames of 64 x 48."""
    root, entries = tmp_path_factory.mktemp("prepared"), {}
    origin = {"source_bytes": 1, "source_sha256": "", "clip_bytes": 1, "clip_sha256": ""}
    origin |= dict.fromkeys(("flow", "flow_bytes", "flow_sha256"))
    for label, action in enumerate(CLASSES):
        for k, name in enumerate(names(action)):
            dice = np.random.default_rng([label, k])
            texture = dice.integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            step = (
                -1
            ) ** k  # in a GOP at most 11 px, where mirroring and rounding may change places
            moved = (np.roll(texture, step * t, axis=1 - label) for t in range(30))
            clip = f"clips/{name}.mp4"
            codec.encode(moved, root / clip)
            size = {"width": 64, "height": 48, "frames": 30}
            entries[name] = manifest.Entry(name=name, label=label, clip=clip, **size, **origin)
    films = [names(action) for action in CLASSES]
    lists = {
        n: {
            "train": tuple(name for own in films for name in np.roll(own, n)[:2].tolist()),
            "test": tuple(name for own in films for name in np.roll(own, n)[2:].tolist()),
        }
        for n in (1, 2)
    }
    made = manifest.Manifest("HMDB51", CLASSES, 0, (), {}, None, lists, entries)
    manifest.write(root, made)
    return root


@pytest.fixture(scope="module")
def states():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = {"iframe": under("base_model", resnet(3, 51)), "mv": stream_state(2, 51)}
        made |= {"residual": stream_state(3, 51), protocol.ADV: dmc_state(classes=51)}
        made["another data set"] = under("base_model", resnet(3, 101))
    for state in made.values():
        state["base_model.fc.bias"][2:] -= 100  # smile or clap
    return made


@pytest.fixture(scope="module")
def written(tmp_path_factory, states):
    """One file per network, to be linked: each has 45 MB."""
    folder = tmp_path_factory.mktemp("written")
    yield {name: write(folder / f"{k}", state) for k, (name, state) in enumerate(states.items())}
    shutil.rmtree(folder)


@pytest.fixture
def weights(tmp_path, written):
    """The folder of checkpoints, of split 1."""
    folder = tmp_path / "weights"
    (folder / "split1").mkdir(parents=True)
    for name, file in FILES.items():
        os.link(written[name], folder / "split1" / f"{file}.pth.tar")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def _small(tmp_path, monkeypatch):
    """Three frames, small crops, networks as they are; results and cache of this test alone."""
    monkeypatch.setattr(recognition, "FRAMES", 3)
    monkeypatch.setattr(protocol, "SIZE", WINDOW)
    monkeypatch.setattr(fast, "form", lambda network: network)
    for part in ("paper", "released"):
        shutil.copytree(paths.RESULTS / part, tmp_path / "results" / part)
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")


@pytest.fixture
def dmc(monkeypatch, capsys):
    """Give the exit code of ``dmc reproduce hmdb51 ...``, and what it says."""

    def call(*arguments):
        line = ["dmc", "reproduce", "hmdb51", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", line)
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        return end.value.code or 0, said.out + said.err

    return call


def views(x, *, vectors=False):
    """Five windows, each as it is and mirrored; of vectors a level of dx becomes 256 less it."""
    found = []
    for top, left in [(0, 0), (0, 22), (6, 0), (6, 22), (3, 11)]:
        window = x[..., top : top + WINDOW, left : left + WINDOW]
        mirrored = window[..., ::-1].copy()
        if vectors:
            mirrored[:, 0] = 1 / 255 - mirrored[:, 0]
        found += [window, mirrored]
    return torch.from_numpy(np.concatenate(found).astype(np.float32))


@torch.no_grad()
def long_hand(states, clip):
    """Each stream's score of a clip, by the paper's and the code's description alone."""
    pictures = np.stack([frame.rgb.transpose(2, 0, 1) for frame in codec.read_at(clip, KEY_FRAMES)])
    pictures = (pictures / 255 - MEAN[:, None, None]) / STD[:, None, None]
    accumulated = codec.read_at(clip, FRAMES, accumulate=True)
    plain = codec.read_at(clip, FRAMES)

    def whole(frames):
        fields = (np.stack([getattr(f, k) for f in frames]) for k in ("motion", "residual"))
        return Sample(*(torch.from_numpy(field.astype(np.float32)) for field in fields))

    def bn(name, x):
        return normed(states[name], "data_bn", x, 1e-5)

    middle = whole(plain).map(*[lambda x: x[..., 3:45, 11:53]] * 2)
    seen = {
        "iframe": views(pictures),
        "mv": bn("mv", views(their_vectors(whole(accumulated)), vectors=True)),
        "residual": bn("residual", views(their_residual(whole(accumulated)))),
        protocol.ADV: their_cue(states[protocol.ADV], middle),
    }
    return {name: classified(states[name], x).mean(dim=0).numpy() for name, x in seen.items()}


@pytest.mark.slow
def test_the_networks_are_asked_as_the_authors_ask_them(
    dmc, prepared, weights, states, monkeypatch
):
    assert dmc("--released-weights", weights, "--data", prepared)[0] == 0
    dataset = data.DataConfig(prepared=str(prepared)).open()
    clips = dataset.clips("test")
    assert [clip.name for clip in clips] == [names(a)[k] for a in CLASSES for k in (1, 2)]
    theirs = [long_hand(states, clip.path) for clip in clips]
    theirs = {name: np.stack([own[name] for own in theirs]) for name in FILES}
    labels = [LABELS[dataset.classes[clip.label]] for clip in clips]

    found, config = {}, data.DataConfig(prepared=str(prepared))
    for name, file in FILES.items():
        path = protocol._target(weights / "split1" / f"{file}.pth.tar", config)
        kept = recognition.read_scores(path)
        assert kept.labels.tolist() == labels
        assert kept.classes[:2] == ("smile", "clap")
        np.testing.assert_allclose(kept.scores, theirs[name], rtol=1e-3, atol=1e-3)
        found[name] = kept.scores
    both = {"CoViAR": {"iframe": 2, "mv": 1, "residual": 1}}
    both[f"CoViAR + DMC ({protocol.ADV})"] = both["CoViAR"] | {protocol.ADV: 1}
    for method, fused in both.items():
        by_hand = sum(weight * theirs[name] for name, weight in fused.items())
        ours = evaluation.fuse({name: found[name] for name in fused}, fused)
        np.testing.assert_allclose(ours, by_hand, rtol=1e-3, atol=1e-3)
        accuracy = np.mean(by_hand.argmax(axis=1) == labels)
        record = json.loads((paths.RESULTS / "hmdb51" / "released_weights.json").read_text())
        (row,) = [row for row in record["rows"] if row["method"] == method]
        assert (row["accuracy"], row["n"], row["sources"]) == (accuracy, 4, 4)
    assert len(record["rows"]) == 6
    assert set(record["extra"]["checkpoints"]["1"]) == set(FILES)

    monkeypatch.setattr(recognition, "score_clips", None)  # nothing is asked again
    code, said = dmc("--released-weights", weights, "--data", prepared)
    assert code == 0
    cells = {line.split("│")[1].strip(): line.split("│")[2:-1] for line in said.splitlines()
             if line.startswith("│")}  # fmt: skip
    paper, released, ours, n = (cell.strip() for cell in cells[f"CoViAR + DMC ({protocol.ADV})"])
    assert (paper, released, n) == ("62.8 (Table 4), 61.8 (4.3)", "64.05", "4")
    assert ours.startswith(f"{100 * accuracy:.2f} [")
    assert cells["I-frames"][0].strip() == ""


@pytest.mark.slow
def test_two_splits_are_averaged_and_both_cues_may_be_there(dmc, prepared, weights):
    write(weights / "split1" / "e.pth.tar", dmc_state(depth=0, classes=51))
    shutil.copytree(weights / "split1", weights / "split2", copy_function=os.link)
    assert dmc("--released-weights", weights, "--data", prepared)[0] == 0
    record = json.loads((paths.RESULTS / "hmdb51" / "released_weights.json").read_text())
    assert [row["method"] for row in record["rows"]][-2:] == [
        "CoViAR + DMC (cls + MSE)",
        "CoViAR + DMC (cls + MSE + adv)",
    ]
    for row in record["rows"]:
        alone = [r for r in record["extra"]["splits"] if r["method"] == row["method"]]
        assert [r["split"] for r in alone] == [1, 2]
        assert row["accuracy"] == np.mean([r["accuracy"] for r in alone])
        assert row["n"] == 8
    assert [row["b"] for row in record["extra"]["differences"]] == ["CoViAR", "CoViAR"]


def test_a_dry_run_says_what_would_be_read_and_leaves_nothing(dmc, prepared, weights):
    code, said = dmc("--released-weights", weights, "--data", prepared, "--dry-run")
    assert code == 0
    assert f"split 1: 4 test clips of {prepared}" in said
    assert f"motion vectors: {weights / 'split1' / 'b.pth.tar'}, would be scored" in said
    assert not paths.CACHE.exists()
    assert not (paths.RESULTS / "hmdb51").exists()


def test_without_data_the_place_of_dmc_prepare_is_looked_at(dmc, weights):
    code, said = dmc("--released-weights", weights)
    assert code == 2
    assert f"{paths.CACHE / 'prepared' / 'hmdb51'} has no manifest.json" in said


def spoiled(weights, written, wrong):
    """Spoil a folder of checkpoints in one way; the further arguments that this takes."""
    there = weights / "split1"
    if wrong == "none":
        shutil.rmtree(there)
    elif wrong == "lacking":
        (there / "c.pth.tar").unlink()
    elif wrong == "another data set":
        os.link(written[wrong], there / "e.pth.tar")
    elif wrong == "no checkpoint":
        (there / "e.pth.tar").write_text("not at all")
    elif wrong == "doubled":
        os.link(written["mv"], there / "e.pth.tar")
    return ("--splits", "2") if wrong == "other split" else ()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("none", r"split1 holds no *.pth.tar; expected FOLDER/split1/*.pth.tar"),
        ("other split", r"split2 holds no *.pth.tar; expected FOLDER/split1/*.pth.tar"),
        ("lacking", "split1 has no checkpoint of residuals; expected FOLDER/split1/*.pth.tar"),
        ("another data set", "e.pth.tar tells 101 classes apart, and the data set has 51"),
        ("no checkpoint", "e.pth.tar cannot be read as weights"),
        ("doubled", "e.pth.tar are both of motion vectors: leave one of them there"),
    ],
)
def test_what_is_wrong_with_the_folder_is_one_sentence(
    dmc, prepared, weights, written, wrong, words
):
    more = spoiled(weights, written, wrong)
    code, said = dmc("--released-weights", weights, "--data", prepared, *more)
    assert code == 2
    assert said.startswith("dmc: ")
    assert said.count("\n") == 1
    assert words in said
    assert not (paths.RESULTS / "hmdb51").exists()


def test_other_videos_and_other_options_are_refused(dmc, prepared, weights, tmp_path):
    made = manifest.read(prepared)
    for number, (change, words) in enumerate({
        ("dataset", "UCF101"): "was prepared from UCF101, and not from hmdb51",
        ("classes", ("clap", "sneeze")): "has a class 'sneeze', which is none of the 51",
    }.items()):  # fmt: skip
        shutil.copytree(prepared, other := tmp_path / str(number))
        manifest.write(other, manifest.Manifest(**vars(made) | dict([change])))
        assert words in dmc("--released-weights", weights, "--data", other)[1]
    said = dmc("--released-weights", weights, "--data", prepared, "--only", "04")[1]
    assert "trains nothing: leave --only, --set, --seeds and --scheduler out" in said


@pytest.mark.parametrize("count", [2, 13, 26, 40, 301])
def test_the_frames_are_those_of_the_rule(monkeypatch, count):
    monkeypatch.setattr(recognition, "FRAMES", 25)
    step = (count - 1 - 1) / 25
    expected = [int(np.round(step * (k + 0.5))) + 1 for k in range(25)]
    expected = [number - (number % 12 == 0) for number in expected]
    for stream in ("motion", "residual", "cue"):
        assert protocol.frame_numbers(count, stream) == expected
    step = (count - 1) / 25
    expected = [int(np.round(step * (k + 0.5))) for k in range(25)]
    assert protocol.frame_numbers(count, "rgb") == expected
