import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from dmclib import codec, data, flowstore, loader, losses, paths, training
from dmclib.config import TrainConfig
from dmclib.data import Clip, DataConfig, Frames
from dmclib.errors import CheckpointError, DatasetError
from dmclib.losses import LossWeights
from dmclib.transforms import Sample

ALL_TERMS = LossWeights(reconstruction=10.0, adversarial=1.0)


def moving(clips, seed):
    """Frames whose class, of two, is the way that everything moves; 3 frames a clip."""
    dice = torch.Generator().manual_seed(seed)
    label = (torch.arange(clips) % 2).repeat_interleave(3)
    flow = torch.zeros(3 * clips, 2, 40, 40)
    flow[:, 1] = 6.0 * (2 * label - 1)[:, None, None]  # dy, which a mirrored picture keeps
    noisy = flow + 3 * torch.randn(flow.shape, generator=dice)
    return Frames(
        motion=noisy.half(),
        residual=torch.randint(-20, 20, (3 * clips, 3, 40, 40), generator=dice).to(torch.int8),
        flow=flow.half(),
        rgb=torch.randint(0, 255, (3 * clips, 3, 40, 40), generator=dice).to(torch.uint8),
        label=label,
        clip=torch.arange(clips).repeat_interleave(3),
        names=tuple(f"clip {c}" for c in range(clips)),
    )


@pytest.fixture(autouse=True)
def two_directions(tmp_path, monkeypatch):
    frames = {"train": moving(6, 0), "validation": moving(2, 1), "test": moving(4, 2)}
    monkeypatch.setattr(data, "load_frames", lambda config, split: frames[split])
    monkeypatch.setattr(paths, "CACHE", tmp_path)


def config(stream="cue", **changes):
    plain = {"epochs": 2, "size": 32, "clips_per_batch": 2, "segments": 2}
    return TrainConfig(stream, DataConfig(), **plain | changes)


def weights(trained):
    return training.load_networks(trained).state_dict()


def test_training_learns_which_way_things_move_and_keeps_its_scores():
    flow = config("flow", epochs=20, clips_per_batch=6, segments=3, lr=3e-3)
    scores = training.fit(flow)
    assert (scores.logits.argmax(1) == scores.label).float().mean() == 1.0
    assert torch.equal(training.load_scores(flow).logits, scores.logits)
    log = training.load_log(flow)
    assert [row["epoch"] for row in log] == list(range(1, 21))
    assert log[-1]["classification"] < log[0]["classification"]
    assert not (flow.folder / "checkpoint.safetensors").exists()


@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_stopped_training_ends_with_the_weights_of_an_undisturbed_one(stop_after, tmp_path):
    whole = config(weights=ALL_TERMS, epochs=3)
    training.fit(whole)
    expected = weights(whole)
    (whole.folder).rename(tmp_path / "undisturbed")

    def stop(row):
        if row["epoch"] == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.fit(whole, on_epoch=stop)
    assert not whole.done
    torch.randn(7)  # something else draws random numbers in between
    training.fit(whole)
    assert [row["epoch"] for row in training.load_log(whole)] == [1, 2, 3]
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, expected[name]), name


def test_the_same_config_gives_the_same_weights_and_another_seed_others(tmp_path):
    one = config()
    training.fit(one)
    first = weights(one)
    one.folder.rename(tmp_path / "first")
    training.fit(one)
    assert all(
        torch.equal(a, b) for a, b in zip(first.values(), weights(one).values(), strict=True)
    )
    other = replace(one, seed=1)
    training.fit(other)
    assert not torch.equal(
        first["generator.to_cue.weight"], weights(other)["generator.to_cue.weight"]
    )


def steps(**changes):
    """A loop after its set-up, and a batch of it."""
    made = config(weights=ALL_TERMS, **changes)
    train = loader.InMemory(moving(6, 0), segments=2, size=32)
    loop = training._Loop(made, training.Networks(made, 2), train, torch.device("cpu"))
    sample = Sample(*(torch.randn(4, c, 32, 32) for c in (2, 3, 2)))
    return loop, sample, torch.tensor([0, 1])


def copy(network):
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def changed(before, network):
    return {name for name, p in network.named_parameters() if not torch.equal(before[name], p)}


def test_a_discriminator_step_moves_the_discriminator_alone():
    loop, sample, labels = steps()
    networks = loop.networks
    before = copy(networks)
    loop._update = lambda which, loss, update=loop._update: update(which, loss) if which else None
    loop._step(sample, labels)
    moved = changed(before, networks)
    assert moved
    assert all(name.startswith("discriminator.") for name in moved)


def test_a_generator_step_leaves_the_discriminator_alone():
    loop, sample, labels = steps()
    before = copy(loop.networks)
    loop._update = lambda which, loss, update=loop._update: None if which else update(which, loss)
    loop._step(sample, labels)
    moved = changed(before, loop.networks)
    assert not any(name.startswith("discriminator.") for name in moved)
    assert any(name.startswith("generator.") for name in moved)
    assert any(name.startswith("classifier.") for name in moved)


def test_the_loss_is_equation_4_over_the_mean_of_the_segments():
    loop, sample, labels = steps()
    networks = loop.networks.eval()  # no dropout, so that both ways see the same discriminator
    loop._update = lambda which, loss: None
    terms = loop._step(sample, labels)
    cue = networks.generator(sample.motion, sample.residual)
    logits = networks.classifier(cue).view(2, 2, -1).mean(1)
    expected = (
        losses.classification(logits, labels)
        + 10.0 * losses.reconstruction(cue, sample.flow)
        + 1.0 * losses.generator_loss(networks.discriminator(cue))
    )
    assert terms["loss"] == pytest.approx(expected.item(), rel=1e-5)


class Prepared:
    """Small compressed clips of which one class moves up, the other down, with their flow."""

    def __init__(self, folder):
        self.folder = folder

    def clips(self, split):
        made = []
        for number in range({"train": 6, "validation": 2, "test": 4}[split]):
            path = self.folder / f"{split} {number}.mp4"
            clip = Clip(path.stem, number % 2, split, path, path, path.with_suffix(".flow"))
            made.append(clip)
            if not path.exists():
                texture = np.random.default_rng(number).integers(0, 256, (40, 48, 3), np.uint8)
                step = 6 * (2 * clip.label - 1)
                codec.encode((np.roll(texture, step * n, 0) for n in range(20)), path)
                noise = np.random.default_rng(number).normal(0, 3, (19, 2, 40, 48))
                noise[:, 1] += step
                flowstore.write(clip.flow, noise.astype(np.float32))
        return made


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """The config of a prepared data set; its frames are never all in memory."""
    monkeypatch.setattr(DataConfig, "open", lambda config: Prepared(tmp_path))
    monkeypatch.setattr(DataConfig, "content", lambda config: "")
    monkeypatch.setattr(data, "load_frames", None)
    return DataConfig(prepared="somewhere")


def streamed(prepared, stream="cue", **changes):
    return replace(config(stream, **changes), data=prepared)


def test_prepared_clips_are_streamed_and_their_training_goes_on_where_it_stopped(
    prepared, tmp_path
):
    whole = streamed(prepared, weights=ALL_TERMS, epochs=2, clips_per_batch=3)
    scores = training.fit(whole, workers=0)
    expected = weights(whole)
    assert scores.clip.tolist() == [n // 6 for n in range(24)]  # six frames of each of four
    assert scores.label.tolist() == [n // 6 % 2 for n in range(24)]
    whole.folder.rename(tmp_path / "undisturbed")

    def stop(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.fit(whole, on_epoch=stop, workers=0)
    torch.randn(7)
    again = training.fit(whole, workers=0)
    assert torch.equal(again.logits, scores.logits)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, expected[name]), name


def test_streamed_flow_teaches_which_way_things_move(prepared):
    flow = streamed(prepared, "flow", epochs=4, clips_per_batch=6, segments=3, lr=3e-3)
    scores = training.fit(flow, workers=0)
    assert training.load_log(flow)[-1]["accuracy"] == 1.0
    assert (scores.epe_px == 0).all()  # the field that it looks at is the flow itself


def test_the_log_says_how_fast_clips_came_and_how_long_the_networks_waited(prepared, monkeypatch):
    for made in (streamed(prepared, "rgb", epochs=1), config("rgb", epochs=1)):
        if made.data.prepared is None:
            monkeypatch.setattr(data, "load_frames", lambda config, split: moving(2, 0))
        training.fit(made, workers=0)
        (row,) = training.load_log(made)
        assert row["clips_per_second"] > 0
        assert 0 < row["data_wait"] < 1


def test_a_stage_that_learns_from_flow_needs_clips_that_have_it(prepared, monkeypatch):
    clips = Prepared.clips
    monkeypatch.setattr(
        Prepared, "clips", lambda self, split: [replace(c, flow=None) for c in clips(self, split)]
    )
    for made in (streamed(prepared, "flow"), streamed(prepared, weights=ALL_TERMS)):
        with pytest.raises(DatasetError, match=r"somewhere was prepared without optical flow"):
            training.fit(made, workers=0)
    scores = training.fit(streamed(prepared, "motion", epochs=1), workers=0)
    assert scores.epe_px.isnan().all()


def test_a_stage_takes_over_every_network_of_the_stage_before():
    flow = config("flow", epochs=1)
    training.fit(flow)
    stage = config(start_from=flow)
    networks = training.Networks(stage, 2)
    training._take_over(networks, flow)
    for name, tensor in training.load_networks(flow).classifier.state_dict().items():
        assert torch.equal(networks.classifier.state_dict()[name], tensor), name


def test_a_stage_without_the_one_before_says_what_to_train():
    with pytest.raises(CheckpointError, match="train its flow stage first"):
        training.fit(config(start_from=config("flow")))


def test_a_loss_that_is_no_number_stops_the_training():
    broken = config("flow", lr=float("inf"))
    with pytest.raises(FloatingPointError, match=r"epoch \d, step \d, clips"):
        training.fit(broken)
    assert not broken.done


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"size": 16}, {"segments": 7}])
def test_a_config_that_cannot_be_trained_is_refused(wrong):
    with pytest.raises(ValueError, match="cannot train"):
        config(**wrong)


def test_the_key_follows_every_setting_and_the_stage_before():
    plain = config(start_from=config("flow"))
    others = [
        replace(plain, seed=1),
        replace(plain, weights=ALL_TERMS),
        replace(plain, data=DataConfig(seed=1)),
        replace(plain, start_from=config("flow", seed=1)),
    ]
    assert len({plain.key, *(other.key for other in others)}) == 5


def test_a_config_survives_json():
    plain = config(start_from=config("flow"), weights=ALL_TERMS)
    again = TrainConfig.from_json(json.dumps(asdict(plain)))
    assert again == plain
    assert again.key == plain.key
