import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dmclib import codec, data, losses, paths, training
from dmclib.data import Clip, DataConfig, Frames, loader
from dmclib.errors import CheckpointError, DatasetError, DMCError
from dmclib.flow import store
from dmclib.losses import LossWeights
from dmclib.training import TrainConfig, fitting
from dmclib.training.distributed import ProcessGroup
from dmclib.training.loop import Loop
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


class TwoWays:
    """What a training asks of a data set whose frames are at hand."""

    name, classes = "two ways", ("up", "down")

    def __init__(self, frames, each=3):
        self.frames, self.each = frames, each

    def clips(self, split):
        labels = self.frames[split].label[:: self.each].tolist()
        return [Clip(f"clip {n}", label, split, None, None) for n, label in enumerate(labels)]


@pytest.fixture(autouse=True)
def two_directions(tmp_path, monkeypatch):
    frames = {"train": moving(6, 0), "validation": moving(2, 1), "test": moving(4, 2)}
    monkeypatch.setattr(data, "load_frames", lambda config, split: frames[split])
    monkeypatch.setattr(DataConfig, "open", lambda config: TwoWays(frames))
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
    made = config(**{"weights": ALL_TERMS} | changes)
    items = loader.StoredFrames(moving(6, 0), loader.Sampling(segments=2, size=32))
    train = loader.Batches(items, workers=0)
    group = ProcessGroup(torch.device("cpu"))
    loop = Loop(made, training.build_networks(made, 2), train, group)
    sample = Sample(*(torch.randn(4, c, 32, 32) for c in (2, 3, 2)))
    return loop, loader.Batch(sample, torch.tensor([0, 1]), torch.tensor([0, 1]))


def bits(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def changed(before, network):
    """The networks of which any weight or statistic is not what it was, to the bit."""
    after = network.state_dict()
    return {k.split(".")[0] for k, old in before.items() if not torch.equal(old, after[k])}


def only(loop, *names):
    """Have the loop take the steps of these networks alone."""
    update = loop.update
    loop.update = lambda *updated: update(*(name for name in updated if name in names))


def test_a_discriminator_step_leaves_generator_and_classifier_as_they_were_to_the_bit():
    loop, batch = steps()
    loop.networks.train()
    before = bits(loop.networks)
    loop.discriminator_step(loop.parts(batch))
    assert changed(before, loop.networks) == {"discriminator"}


def parameters(network):
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def moved(before, network):
    """The networks that have learned since."""
    after = dict(network.named_parameters())
    return {k.split(".")[0] for k, old in before.items() if not torch.equal(old, after[k])}


def test_a_generator_step_leaves_the_discriminators_weights_as_they_were_to_the_bit():
    loop, batch = steps()
    only(loop, "generator", "classifier")
    before = parameters(loop.networks)
    loop.step(0, batch)
    assert moved(before, loop.networks) == {"generator", "classifier"}


def test_a_frozen_classifier_waits_while_the_generator_learns():
    loop, _ = steps(frozen_epochs=1, weights=LossWeights(reconstruction=10.0))
    for expected in ({"generator"}, {"generator", "classifier"}):
        before = parameters(loop.networks)
        loop.run_epoch()
        assert moved(before, loop.networks) == expected


def test_without_a_class_loss_the_classifier_is_not_asked_and_stays_as_it_was_to_the_bit():
    loop, batch = steps(weights=LossWeights(classification=0.0, reconstruction=1.0))
    loop.logits = None  # would fail if it were called
    loop.networks.train()
    before = bits(loop.networks)
    terms = loop.step(0, batch)
    assert changed(before, loop.networks) == {"generator"}
    assert terms.keys() == {"loss", "reconstruction"}
    torch.testing.assert_close(terms["loss"], terms["reconstruction"])


def test_a_generator_alone_comes_nearer_to_flow_before_a_classifier_that_stays():
    flow = config("flow")
    training.fit(flow)
    weights_alone = LossWeights(classification=0.0, reconstruction=1.0)
    alone = config(start_from=flow, weights=weights_alone, epochs=12, generator_lr=1e-2)
    training.fit(alone)
    log = training.load_log(alone)
    assert log[-1]["validation_epe_px"] < 0.8 * log[0]["validation_epe_px"]
    theirs, own = weights(flow), weights(alone)
    for name in (name for name in theirs if name.startswith("classifier.")):
        assert torch.equal(theirs[name], own[name]), name


def test_only_a_cue_can_do_without_the_class_loss():
    with pytest.raises(DMCError, match="the flow stream learns by the class loss alone"):
        config("flow", weights=LossWeights(classification=0.0))


def test_with_the_released_habit_even_steps_and_odd_ones_move_other_networks():
    loop, batch = steps(habits=("classifier-with-discriminator",))
    moves = []
    loop.update = lambda *names: moves.append(names)
    even, odd = loop.step(0, batch), loop.step(1, batch)
    assert moves == [("discriminator",), ("classifier",), ("generator",)]
    assert even.keys() == {
        *("loss", "classification", "accuracy", "discriminator", "discriminator_accuracy")
    }
    torch.testing.assert_close(even["loss"], even["classification"])  # L_cls alone
    assert odd.keys() == {"loss", "classification", "accuracy", "reconstruction", "adversarial"}


def test_the_loss_is_equation_4_over_the_mean_of_the_segments():
    loop, batch = steps()
    networks, sample = loop.networks.eval(), batch.sample  # no dropout: one discriminator
    loop.update = lambda *names: None
    terms = loop.step(0, batch)
    cue = networks.generator(sample.motion, sample.residual)
    logits = networks.classifier(cue).view(2, 2, -1).mean(1)
    expected = (
        losses.classification(logits, batch.label)
        + 10.0 * losses.reconstruction(cue, sample.flow)
        + 1.0 * losses.generator_loss(networks.discriminator(cue))
    )
    assert terms["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_released_target_of_stage_1_is_the_mean_over_blocks():
    habit, batch = steps(habits=("block-target",), weights=LossWeights(reconstruction=10.0))
    plain, _ = steps(weights=LossWeights(reconstruction=10.0))
    plain.networks.load_state_dict(habit.networks.state_dict())
    means = replace(batch.sample, flow=losses.block_means(batch.sample.flow))
    found = [
        loop.step(0, given)["reconstruction"]
        for loop, given in ((habit, batch), (plain, batch._replace(sample=means)))
    ]
    assert torch.equal(*found)


def test_a_batch_in_parts_has_the_gradients_of_the_whole():
    whole, batch = steps()
    parts, _ = steps(micro_batches=2)
    parts.networks.load_state_dict(whole.networks.state_dict())
    gradients = []
    for loop in (whole, parts):
        loop.networks.eval()  # normalisation and dropout, which see the parts, are left out
        loop.update = lambda *names: None
        loop.generator_step(loop.parts(batch))
        gradients.append(
            {k: p.grad for k, p in loop.networks.named_parameters() if p.grad is not None}
        )
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6)


def test_four_clips_can_be_learned_by_heart(monkeypatch):
    four = {split: moving(4, 3) for split in data.SPLITS}
    monkeypatch.setattr(data, "load_frames", lambda config, split: four[split])
    monkeypatch.setattr(DataConfig, "open", lambda config: TwoWays(four))
    terms = LossWeights(reconstruction=10.0)
    mse = config(epochs=15, clips_per_batch=4, lr=3e-3, generator_lr=2e-2, weights=terms)
    training.fit(mse)
    log = training.load_log(mse)
    assert log[-1]["accuracy"] == 1.0
    assert log[-1]["classification"] < 0.1
    assert log[-1]["reconstruction"] < 0.5 * log[0]["reconstruction"]


def test_rates_fall_to_a_tenth_at_the_steps_also_after_a_restart(tmp_path):
    def rates(loop):
        found = []
        for _ in range(loop.config.epochs - loop.epoch):
            found.append(loop.optimizers["classifier"].param_groups[0]["lr"])
            loop.run_epoch()
        return found

    how = {"epochs": 4, "steps": (1, 3), "lr": 1e-2, "weights": LossWeights()}
    assert rates(steps(**how)[0]) == pytest.approx([1e-2, 1e-3, 1e-3, 1e-4])
    loop, _ = steps(**how)
    loop.run_epoch(), loop.run_epoch()
    loop.save(tmp_path / "checkpoint.safetensors")
    again, _ = steps(**how)
    again.restore(tmp_path / "checkpoint.safetensors")
    assert rates(again) == pytest.approx([1e-3, 1e-4])


def test_first_layer_body_and_last_layer_can_learn_at_their_own_rates():
    loop, _ = steps(lr=1.0, first_layer_lr=0.1, body_lr=0.01)
    rate = {
        id(p): group["max_lr"]
        for group in loop.optimizers["classifier"].param_groups
        for p in group["params"]
    }
    named = dict(loop.networks.classifier.named_parameters())
    assert len(rate) == len(named)
    found = {name: rate[id(named[name])] for name in ("conv1.weight", "bn1.bias", "fc.weight")}
    assert found == {"conv1.weight": 0.1, "bn1.bias": 0.1, "fc.weight": 1.0}
    assert rate[id(named["layer3.0.conv1.weight"])] == 0.01


def test_bf16_trains_float32_weights():
    trained = config(weights=ALL_TERMS, epochs=1, precision="bf16")
    scores = training.fit(trained)
    assert {t.dtype for t in weights(trained).values()} == {torch.float32, torch.int64}
    assert scores.logits.dtype == torch.float32
    assert scores.logits.isfinite().all()


class Prepared:
    """Small compressed clips of which one class moves up, the other down, with their flow."""

    name, classes = "prepared", ("up", "down")

    def __init__(self, folder):
        self.folder = folder

    def clips(self, split):
        made = []
        for number in range({"train": 6, "validation": 2, "test": 4}[split]):
            path = self.folder / f"{split} {number}.mp4"
            clip = Clip(path.stem, number % 2, split, path, path, path.with_suffix(store.SUFFIX))
            made.append(clip)
            if not path.exists():
                texture = np.random.default_rng(number).integers(0, 256, (40, 48, 3), np.uint8)
                step = 6 * (2 * clip.label - 1)
                codec.encode((np.roll(texture, step * n, 0) for n in range(20)), path)
                noise = np.random.default_rng(number).normal(0, 3, (19, 2, 40, 48))
                noise[:, 1] += step
                store.write(clip.flow, noise.astype(np.float32))
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


def test_prepared_clips_are_read_as_the_data_config_says(prepared):
    seen = []
    for reading in set(data.READINGS) - {"dis"}:
        made = streamed(replace(prepared, reading=reading), "residual")
        batch = next(fitting.batches(made, "test", torch.device("cpu"), 0).all())
        seen.append(batch.sample)
    for n, sample in enumerate(seen):
        for other in seen[:n]:
            assert not torch.equal(sample.residual, other.residual)
            assert torch.equal(sample.flow, other.flow)
    with pytest.raises(DatasetError, match="DIS flow needs the frame before"):
        fitting.batches(streamed(replace(prepared, reading="dis")), "test", torch.device("cpu"), 0)


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
    networks = training.build_networks(stage, 2)
    fitting.take_over(networks, stage, flow.data.open().classes)
    for name, tensor in training.load_networks(flow).classifier.state_dict().items():
        assert torch.equal(networks.classifier.state_dict()[name], tensor), name


def test_other_classes_get_a_last_layer_of_their_own():
    flow = config("flow", epochs=1)
    training.fit(flow)
    stage = config("flow", start_from=flow)
    for classes in (("jump", "run", "wave"), ("jump", "run")):  # as many, too, but others
        networks = training.build_networks(stage, len(classes))
        new = networks.classifier.fc.weight.clone()
        fitting.take_over(networks, stage, classes)
        assert torch.equal(networks.classifier.fc.weight, new)
        before, now = training.load_networks(flow).classifier.layer4, networks.classifier.layer4
        assert torch.equal(now[0].conv1.weight, before[0].conv1.weight)


def test_a_stage_without_the_one_before_says_which_command_trains_it():
    flow = config("flow")
    told = r"a flow stage that has not been trained .* python -m dmclib\.reproduce\.jobs (.*)$"
    with pytest.raises(CheckpointError, match=told) as refused:
        training.fit(config(start_from=flow))
    file = Path(re.search(told, str(refused.value))[1])
    assert TrainConfig.from_json(file.read_text()) == flow
    assert file.parent == flow.folder


def test_a_checkpoint_of_another_config_is_refused_with_what_differs():
    def stop(row):
        raise KeyboardInterrupt

    one, other = config(seed=1), config(seed=2, lr=0.5)
    with pytest.raises(KeyboardInterrupt):
        training.fit(one, on_epoch=stop)
    shutil.copytree(one.folder, other.folder)
    with pytest.raises(CheckpointError, match=r"another training, which differs in lr, seed;"):
        training.fit(other)


def test_a_tampered_checkpoint_is_refused():
    def stop(row):
        raise KeyboardInterrupt

    one = config()
    with pytest.raises(KeyboardInterrupt):
        training.fit(one, on_epoch=stop)
    file = one.folder / "checkpoint.safetensors"
    tensors = load_file(file)
    save_file(tensors, file)  # without its note
    with pytest.raises(CheckpointError, match="is no checkpoint of a training"):
        training.fit(one)


def test_a_batch_larger_than_the_data_set_is_refused():
    with pytest.raises(DatasetError, match="batch of 7 clips is more than the 6 that two ways"):
        training.fit(config(clips_per_batch=7))


def test_an_unknown_device_is_refused():
    with pytest.raises(DMCError, match="there is no device 'abacus' here: choose auto or cpu"):
        training.fit(config(), device="abacus")


def test_a_loss_that_is_no_number_stops_the_training():
    broken = config("flow", lr=float("inf"))
    with pytest.raises(FloatingPointError, match=r"epoch \d, step \d, clips clip \d, clip \d;"):
        training.fit(broken)
    assert not broken.done


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"epochs": 0}, "cannot train"),
        ({"size": 16}, "cannot train"),
        ({"segments": 7}, "cannot train"),
        ({"micro_batches": 3}, "2 clips in 3 parts"),
        ({"habits": ("smoking",)}, "habits has no 'smoking'; there are keep-dx"),
        ({"precision": "fp8"}, "precision has no 'fp8'"),
        ({"stream": "flow", "frozen_epochs": 1}, "no generator to train"),
    ],
)
def test_a_config_that_cannot_be_trained_is_refused(wrong, sentence):
    with pytest.raises(DMCError, match=sentence):
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


def test_i3d_is_trained_and_gives_one_answer_per_clip(monkeypatch):
    frames = {
        split: of_many(clips) for split, clips in (("train", 4), ("validation", 2), ("test", 3))
    }
    monkeypatch.setattr(data, "load_frames", lambda config, split: frames[split])
    monkeypatch.setattr(DataConfig, "open", lambda config: TwoWays(frames, each=16))
    clips = DataConfig(frames_per_clip=16)
    trained = TrainConfig(
        "cue", clips, epochs=1, size=32, segments=16, clips_per_batch=2, network="i3d",
        weights=ALL_TERMS,
    )  # fmt: skip
    scores = training.fit(trained)
    assert scores.logits.shape == (3, 2)
    assert scores.clip.tolist() == [0, 1, 2]
    assert scores.label.tolist() == [0, 1, 0]
    assert scores.epe_px.isfinite().all()


def of_many(clips):
    """As ``moving``, but 16 frames a clip."""
    few = moving(clips, 0)
    rows = torch.arange(clips).repeat_interleave(16) * 3
    parts = {
        name: getattr(few, name)[rows]
        for name in ("motion", "residual", "flow", "rgb", "label", "clip")
    }
    return Frames(**parts, names=few.names)
