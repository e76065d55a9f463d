from dataclasses import fields, replace

import pytest

from dmclib import experiment, paths
from dmclib.data import DataConfig
from dmclib.errors import DMCError
from dmclib.experiment import ADV, ALONE, CLS, FLOW, LONGER, MOTION, MSE, RESIDUAL, SINGLE_FRAME
from dmclib.losses import LossWeights
from dmclib.reproduce import profiles

CLIPS = DataConfig()


def chain(config):
    """The config and the stages before it, first stage first."""
    before = [] if config.start_from is None else chain(config.start_from)
    return [*before, config]


def setting(**changes):
    """A notebook's, of the clips that CLIPS is."""
    parameters = {
        **{"data_folder": "", "corpus": "folder", "prepared_folder": "", "split_number": 1},
        **{"train_clips": 20, "validation_clips": 4, "test_clips": 12, "frames_per_clip": 6},
        **{"seed": 3, "size": 64, "schedule": "short", "flow_epochs": 7, "stage_epochs": 2},
        **{"alone_epochs": 5, "alpha": 100.0, "adversarial": 0.5},
        **{"network": "resnet18", "habits": [], "imagenet": "none", "precision": "float32"},
    }
    return experiment.Setting(**parameters | changes)


@pytest.fixture
def variants():
    return experiment.trainings(setting())


def test_a_setting_is_found_among_a_notebooks_parameters():
    parameters = setting().parameters()
    assert experiment.Setting.of(parameters | {"device": "cpu"}) == setting()
    assert setting(prepared_folder="somewhere").clips == replace(CLIPS, prepared="somewhere")


def test_a_folder_that_a_profile_leaves_blank_is_not_taken_for_drawn_clips():
    with pytest.raises(DMCError, match="prepared_folder has no value"):
        setting(prepared_folder=None)


def test_all_variants_see_the_same_clips_crops_and_order(variants):
    for config in variants.values():
        for stage in chain(config):
            assert (stage.data, stage.seed, stage.size) == (CLIPS, 3, 64)
            if stage != variants[ALONE]:  # no class loss, so nothing is averaged over a clip
                assert (stage.segments, stage.clips_per_batch) == (1, 20)


def test_a_classifier_of_clips_keeps_small_batches_of_them():
    for name, config in experiment.trainings(setting(network="i3d")).items():
        assert (config.segments, config.clips_per_batch) == (6, 8), name


def test_the_stages_are_the_papers(variants):
    flow, alone, mse, adv = (variants[name] for name in (FLOW, ALONE, MSE, ADV))
    assert chain(variants[CLS]) == [flow, variants[CLS]]
    assert chain(adv) == [flow, alone, mse, adv]
    streams = {name: config.stream for name, config in variants.items()}
    assert streams == {
        SINGLE_FRAME: "rgb",
        MOTION: "motion",
        RESIDUAL: "residual",
        CLS: "cue",
        ALONE: "cue",
        MSE: "cue",
        LONGER: "cue",
        ADV: "cue",
        FLOW: "flow",
    }


def test_the_variants_of_dmc_differ_in_the_loss_alone(variants):
    assert variants[CLS].weights == LossWeights(1.0, 0.0, 0.0)
    assert variants[ALONE].weights == LossWeights(0.0, 100.0, 0.0)
    assert variants[MSE].weights == LossWeights(1.0, 100.0, 0.0)
    assert variants[ADV].weights == LossWeights(1.0, 100.0, 0.5)
    # The generator is not new any more: it learns more slowly, and the classifier need not wait.
    same = {"weights": LossWeights(), "start_from": variants[FLOW], "frozen_epochs": 1}
    same |= {"generator_lr": variants[CLS].generator_lr}
    assert variants[MSE].generator_lr < variants[CLS].generator_lr
    assert replace(variants[MSE], **same) == variants[CLS]
    of_discriminator = {"discriminator_lr": 1e-3, "discriminator_depth": 3}
    assert replace(variants[ADV], **same, **of_discriminator) == variants[CLS]


def test_without_a_stage_alone_a_new_generator_gets_its_first_epoch_for_itself():
    variants = experiment.trainings(setting(alone_epochs=0))
    assert ALONE not in variants
    assert chain(variants[MSE]) == [variants[FLOW], variants[MSE]]
    assert variants[MSE].frozen_epochs == 1
    assert replace(variants[MSE], weights=LossWeights()) == variants[CLS]
    for name, config in experiment.further(setting(alone_epochs=0)).items():
        if name == experiment.ACTORS_MSE:  # begins with a cue that was learned elsewhere
            continue
        assert all(stage.stream != "cue" for stage in chain(config)[:-2]), name


def test_the_control_of_the_adversarial_stage_lacks_its_term_alone(variants):
    assert variants[LONGER].start_from == variants[ADV].start_from == variants[MSE]
    without = replace(variants[ADV].weights, adversarial=0.0)
    assert replace(variants[ADV], weights=without) == variants[LONGER]


def test_a_baseline_gets_as_many_epochs_as_a_dmc_classifier_and_its_teacher(variants):
    moved = [stage for stage in chain(variants[MSE]) if stage.weights.classification]
    together = sum(stage.epochs for stage in moved)
    assert together == 7 + 2
    for name in (SINGLE_FRAME, MOTION, RESIDUAL):
        assert variants[name].epochs == together


def test_another_seed_shares_no_training(variants):
    others = experiment.trainings(setting(seed=4))
    keys = {stage.key for config in variants.values() for stage in chain(config)}
    assert keys.isdisjoint(stage.key for config in others.values() for stage in chain(config))


def test_each_further_training_has_one_thing_changed(variants):
    further = experiment.further(setting())
    assert further.keys() == experiment.AGAINST.keys()
    for name, config in further.items():
        if name in (experiment.ACTORS_FLOW, experiment.ACTORS_MSE):
            continue
        plain = variants[experiment.AGAINST[name]]
        parts = {"generator": "generator", "released": "habits", "alpha": "weights"}
        part = parts.get(name.split(":")[0], "data")
        for old, new in zip(chain(plain), chain(config), strict=True):
            changed = {f.name for f in fields(old) if getattr(old, f.name) != getattr(new, f.name)}
            assert changed - {"start_from"} <= {part}, name
        if part != "weights":  # one alpha may be the profile's own
            assert getattr(config, part) != getattr(plain, part), name


def test_a_changed_generator_is_changed_from_its_beginning():
    further = experiment.further(setting())
    for name in (experiment.NO_RESIDUAL, experiment.SUBPIXEL, experiment.NOISE_MSE):
        _, alone, mse = chain(further[name])
        assert (alone.generator, alone.data) == (mse.generator, mse.data), name
    flow = chain(further[experiment.NOISE_MSE])[0]
    assert flow.data.scenes == "noise"
    assert chain(further[experiment.SUBPIXEL])[0].data.reading == "plain"  # flow has no vectors
    flips = ["keep-dx" in stage.habits for stage in chain(further[experiment.KEEP_DX])]
    assert flips == [True] * 3


def test_networks_from_drawn_actors_have_seen_what_the_laptop_profile_trains():
    laptop = profiles.defaults(paths.NOTEBOOKS / "06_ablations.ipynb")
    assert {name: laptop[name] for name in experiment.ACTORS} == experiment.ACTORS
    real = setting(data_folder="somewhere", size=48)
    further, plain = experiment.further(real), experiment.trainings(real)
    drawn = experiment.trainings(replace(real, **experiment.ACTORS))
    for name in (experiment.ACTORS_FLOW, experiment.ACTORS_MSE):
        same = plain[experiment.AGAINST[name]]
        assert further[name].start_from == drawn[experiment.AGAINST[name]]
        assert replace(further[name], start_from=same.start_from) == same


def test_habits_are_followed_where_they_belong_and_unknown_ones_refused():
    flip, block, turns = "keep-dx", "block-target", "classifier-with-discriminator"
    named = experiment.trainings(setting(habits=[flip, block, turns]))
    habits = {name: set(config.habits) for name, config in named.items()}
    assert habits[FLOW] == habits[MOTION] == habits[CLS] == {flip}
    assert habits[MSE] == {flip, block}
    assert habits[ADV] == {flip, turns}
    assert habits[RESIDUAL] == habits[SINGLE_FRAME] == set()
    with pytest.raises(DMCError, match="habits has no 'smoking'"):
        experiment.trainings(setting(habits=["smoking"]))


def test_the_released_schedules_are_those_of_the_run_scripts():
    hmdb = experiment.trainings(setting(schedule="hmdb51"))
    frame, vectors = hmdb[SINGLE_FRAME], hmdb[MOTION]
    assert (frame.network, frame.epochs, frame.lr) == ("resnet152", 220, 3e-4)
    assert (vectors.epochs, vectors.steps, vectors.lr) == (360, (120, 200, 280), 5e-3)
    assert (hmdb[RESIDUAL].epochs, hmdb[RESIDUAL].lr) == (300, 1e-3)
    readings = {name: config.data.reading for name, config in hmdb.items()}
    assert readings[MOTION] == readings[RESIDUAL] == "accumulated"  # as CoViAR's streams
    assert readings[MSE] == readings[FLOW] == "plain"  # as the runs of DMC-Net
    mse, adv = hmdb[MSE], hmdb[ADV]
    assert (mse.clips_per_batch, adv.clips_per_batch) == (45, 30)
    assert (mse.epochs, mse.steps, mse.frozen_epochs) == (50, (20, 35, 45), 1)
    assert mse.lr == 0.01 * mse.generator_lr == 1e-4
    assert adv.weights == LossWeights(1.0, 10.0, 1.0, 0.01)
    assert {config.eps for config in hmdb.values()} == {1e-3}
    ucf = experiment.trainings(setting(schedule="ucf101"))
    assert [ucf[name].lr for name in (SINGLE_FRAME, MOTION, RESIDUAL)] == [3e-4, 1e-2, 5e-3]
    assert {ucf[name].epochs for name in (SINGLE_FRAME, MOTION, RESIDUAL)} == {510}
    with pytest.raises(
        DMCError, match="schedule has no 'long'; there are short, i3d, hmdb51, ucf101"
    ):
        experiment.trainings(setting(schedule="long"))


def test_the_i3d_runs_see_64_frames_and_wait_for_the_generator():
    chain = experiment.trainings(
        setting(network="i3d", schedule="i3d", frames_per_clip=64, train_clips=20)
    )
    assert {config.segments for config in chain.values()} == {64}
    mse, adv = chain[MSE], chain[ADV]
    assert (mse.frozen_epochs, mse.clips_per_batch, mse.micro_batches) == (6, 96, 32)
    assert (mse.lr, adv.discriminator_lr, adv.discriminator_depth) == (4e-4, 2e-3, 1)


def test_i3ds_published_weights_begin_streams_of_motion_alone(tmp_path):
    file = tmp_path / "flow_imagenet.pt"
    file.touch()
    chain = experiment.trainings(setting(network="i3d", imagenet=str(tmp_path)))
    begun = {name for name, config in chain.items() if config.initial == str(file)}
    assert begun == {MOTION, FLOW}


def test_what_the_classifiers_start_from_is_said_aloud(tmp_path):
    assert "random weights, as this profile asks" in experiment.starting_weights(setting())
    given = setting(imagenet=str(tmp_path), schedule="hmdb51")
    said = experiment.starting_weights(given)
    assert "resnet152 starts from RANDOM weights: no resnet152-????????.pth was found" in said
    file = tmp_path / "resnet18-01234567.pth"
    file.touch()
    assert f"resnet18 starts from published weights, {file.name}." in experiment.starting_weights(
        given
    )
    named = experiment.trainings(given)
    assert named[MOTION].initial == str(file)
    assert named[MSE].initial is None  # it starts from the flow classifier
    assert named[SINGLE_FRAME].initial is None
