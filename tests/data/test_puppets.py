from dataclasses import fields

import cv2
import numpy as np
import pytest

from dmclib import flow
from dmclib.data import puppets
from dmclib.data.puppets import Camera, Look, Puppet, Recipe
from dmclib.errors import DatasetError

CALM = {"noise": 0.0, "flicker": 0.0, "jitter_px": 0.0}


@pytest.fixture
def fixed(monkeypatch):
    """Make a puppet whose look is fixed where the test needs it to be."""

    def make(recipe, **changes):
        look = puppets.LOOKS[recipe.split]
        ranges = {field.name: getattr(look, field.name) for field in fields(Look)}
        ranges |= {name: (value, value) for name, value in changes.items()}
        monkeypatch.setitem(puppets.LOOKS, recipe.split, Look(**ranges))
        return Puppet(recipe)

    return make


def speed_px(puppet, index):
    """Median speed of the background in a frame, px."""
    motion = puppet.motion(index)[:, ~puppet.body(index)]
    return float(np.median(np.hypot(*motion)))


@pytest.mark.parametrize("scenes", ["photographs", "noise"])
def test_a_recipe_gives_the_same_clip_every_time_and_another_seed_another(scenes):
    def clip(seed):
        return list(Puppet(Recipe("kick", "train", seed, frames=3, scenes=scenes)).frames())

    one, again, other = clip(1), clip(1), clip(2)
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(one[0], other[0])


@pytest.mark.parametrize("action", puppets.ACTIONS)
def test_the_frame_before_warped_by_the_exact_motion_is_the_frame(action, fixed):
    # Without noise and flicker, what is left is what limbs uncover, a shadow that is no thing, and
    # the blur of reading a picture between its pixels, twice: little before a smooth backdrop.
    puppet = fixed(Recipe(action, "test", 4, frames=12), **CALM | {"jitter_px": 0.8})
    puppet.backdrop = cv2.GaussianBlur(puppet.backdrop, None, 3)
    frames = list(puppet.frames())
    warped = flow.warp(frames[5], puppet.motion(6))
    inside = np.s_[16:-16, 16:-16]  # the camera brings new things in at the border
    stayed = np.abs(frames[6].astype(float) - frames[5])[inside]
    left = np.abs(frames[6] - warped)[inside]
    assert np.median(left) < 1.5  # grey levels
    assert left.mean() < 0.6 * stayed.mean()


def kind_of(camera):
    """What a camera does that does not shake."""
    if np.ptp(camera.zoom):
        return "zoom"
    return "pan" if np.ptp(camera.shift) else "rest"


def seed_of(kind, fixed):
    """The first seed whose camera of a "wave" is of this kind."""
    clips = ((seed, fixed(Recipe("wave", "train", seed), **CALM)) for seed in range(50))
    return next(seed for seed, clip in clips if kind_of(clip.camera) == kind)


def test_a_camera_at_rest_leaves_the_background_where_it_is(fixed):
    puppet = fixed(Recipe("wave", "train", seed_of("rest", fixed)), **CALM)
    motion, body = puppet.motion(3), puppet.body(3)
    assert not motion[:, ~body].any()
    assert np.abs(motion[:, body]).max() > 1.0  # and its forearm waves


def test_cameras_rest_pan_and_zoom_in_part_of_the_clips(fixed):
    clips = [fixed(Recipe("wave", "train", seed), **CALM) for seed in range(40)]
    kinds = [kind_of(clip.camera) for clip in clips]
    for kind, low, high in (("rest", 22, 37), ("pan", 2, 14), ("zoom", 1, 9)):
        assert low <= kinds.count(kind) <= high, kind


def test_pans_reach_some_8_px_a_frame_and_no_more():
    clips = [Puppet(Recipe("walk", "train", seed)) for seed in range(60)]
    fastest = [np.hypot(*np.diff(clip.camera.shift, axis=0).T).max() for clip in clips]
    assert 6 < max(fastest) < 16  # with the shake and the pan's own swing


def test_who_walks_beside_a_panning_camera_stays_in_the_picture():
    for seed in range(30):
        clip = Puppet(Recipe("walk", "test", seed))
        if np.abs(clip.camera.shift - clip.camera.actor_shift).max() > 20:
            assert clip.body(0).any(), seed
            assert clip.body(35).any(), seed


def test_world_and_picture_are_each_others_opposite():
    recipe = Recipe("run", "test", 0, size=(64, 48))
    for seed in range(8):
        camera = Camera(np.random.default_rng(seed), puppets.LOOKS["test"], recipe)
        for actor in (False, True):
            seen = camera.picture(5, *camera.world(5, 10.0, 20.0, actor=actor), actor=actor)
            np.testing.assert_allclose(seen, (10, 20))


def test_an_actor_faces_left_in_about_half_of_the_clips():
    def travelled(walk):
        x = walk.limbs["torso"].start[:, 0]
        return x[-1] - x[0]

    walks = [Puppet(Recipe("walk", "train", seed, frames=25)) for seed in range(20)]
    assert 4 <= sum(travelled(walk) > 0 for walk in walks) <= 16


def test_most_limbs_are_thinner_than_a_macroblock_and_some_thicker():
    clips = [Puppet(Recipe("run", "test", seed)) for seed in range(8)]
    widths = np.array([[2 * max(limb.half_widths) for limb in c.limbs.values()] for c in clips])
    assert ((widths < 16).sum(axis=1) >= 9).all()
    assert (widths.max(axis=1) > 16).sum() >= 2


def test_a_limb_outside_the_picture_is_no_error(fixed):
    puppet = fixed(Recipe("cartwheel", "train", 3, frames=36), height=1.6)
    assert np.isfinite(puppet.motion(35)).all()
    assert len(list(puppet.frames())) == 36


def test_the_body_is_what_moves_apart_from_the_background(fixed):
    puppet = fixed(Recipe("run", "test", 1, frames=6), **CALM)
    motion, body = puppet.motion(3), puppet.body(3)
    assert body.shape == (128, 128)
    assert 0.03 < body.mean() < 0.4
    camera = np.median(motion[:, ~body], axis=1)
    apart = np.hypot(*(motion - camera[:, None, None]))
    assert np.median(apart[body]) > 1.0 > np.median(apart[~body])


def test_pictures_are_of_any_size_and_shape():
    wide = Puppet(Recipe("clap", "train", 0, size=(340, 256), frames=2))
    assert next(wide.frames()).shape == (256, 340, 3)
    assert wide.motion(1).shape == (2, 256, 340)
    small = Puppet(Recipe("clap", "train", 0, size=32, frames=2))
    assert next(small.frames()).shape == (32, 32, 3)


def test_a_larger_picture_moves_by_more_pixels(fixed):
    seed = seed_of("pan", fixed)
    clips = [
        fixed(Recipe("wave", "train", seed, size=size), **CALM | {"jitter_px": 0.8})
        for size in (128, 256)
    ]
    small, large = (np.mean([speed_px(clip, index) for index in range(36)]) for clip in clips)
    assert large == pytest.approx(2 * small, rel=0.1)


def test_flicker_changes_the_brightness_of_the_whole_picture(fixed):
    recipe = Recipe("bow", "train", 2, frames=8)
    steady, flickers = (
        [frame.mean() for frame in fixed(recipe, **CALM | {"flicker": share}).frames()]
        for share in (0.0, 0.05)
    )
    assert np.std(flickers) > 3 * np.std(steady)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"action": "juggle"}, "no action 'juggle'; there are bow, cartwheel"),
        ({"split": "holiday"}, "no split 'holiday'; there are train, validation, test"),
        ({"scenes": "paintings"}, "no kind of scene 'paintings'; there are photographs, noise"),
        ({"size": 31}, "31x31 px is too small for an actor: give at least 32 px"),
        ({"size": (340, 16)}, "340x16 px is too small"),
    ],
)
def test_a_recipe_that_cannot_be_drawn_is_refused_in_one_sentence(changes, words):
    with pytest.raises(DatasetError, match=words):
        Recipe(**{"action": "walk", "split": "train", "seed": 0} | changes)
