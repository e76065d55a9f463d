import numpy as np
import pytest

from dmclib import flow
from dmclib.data import puppets
from dmclib.data.puppets import Puppet, Recipe


def still(recipe, monkeypatch, **changes):
    """A puppet whose look is fixed where the test needs it to be."""
    look = puppets.LOOKS[recipe.split]
    ranges = {name: getattr(look, name) for name in puppets.Look.__dataclass_fields__}
    fixed = {name: (value, value) for name, value in changes.items()}
    monkeypatch.setitem(puppets.LOOKS, recipe.split, puppets.Look(**ranges | fixed))
    return Puppet(recipe)


def test_a_recipe_gives_the_same_clip_every_time_and_another_seed_another():
    one = list(Puppet(Recipe("kick", "train", 1, frames=3)).frames())
    again = list(Puppet(Recipe("kick", "train", 1, frames=3)).frames())
    other = list(Puppet(Recipe("kick", "train", 2, frames=3)).frames())
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(one[0], other[0])


@pytest.mark.parametrize("action", puppets.ACTIONS)
def test_the_frame_before_warped_by_the_exact_motion_is_the_frame(action, monkeypatch):
    # Without sensor noise, what is left is what limbs uncover, and the blur of reading the texture
    # between its pixels, twice. A coarse grain keeps the blur small.
    puppet = still(Recipe(action, "train", 4, frames=12), monkeypatch, noise=0.0, grain_px=5.0)
    frames = list(puppet.frames())
    warped = flow.warp(frames[5], puppet.motion(6))
    inside = np.s_[8:-8, 8:-8]  # the camera brings new things in at the border
    stayed = np.abs(frames[6].astype(float) - frames[5])[inside]
    left = np.abs(frames[6] - warped)[inside]
    assert np.median(left) < 2.0  # grey levels; the textures' deviation is over 20
    assert left.mean() < 0.6 * stayed.mean()


def test_the_camera_alone_moves_the_background(monkeypatch):
    puppet = still(Recipe("wave", "train", 0, frames=6), monkeypatch, jitter_px=0.0)
    motion = puppet.motion(3)
    assert not motion[:, :, :8].any()  # the puppet stands in the middle
    assert np.abs(motion).max() > 1.0  # and its forearm waves


def test_a_mirrored_puppet_is_drawn_in_about_half_of_the_clips():
    walks = [Puppet(Recipe("walk", "train", seed, frames=25)) for seed in range(20)]

    def travelled(walk):
        x = walk.bones["torso"].start[:, 0] - walk.shake[:, 0]
        return x[-1] - x[0]

    right = [travelled(walk) > 0 for walk in walks]
    assert 4 <= sum(right) <= 16


def test_limbs_are_thinner_than_a_macroblock():
    bones = Puppet(Recipe("run", "test", 0)).bones
    thin = [name for name, bone in bones.items() if 2 * bone.half_width < 16]
    assert len(thin) >= 9  # all but the torso


def test_a_limb_outside_the_picture_is_no_error(monkeypatch):
    puppet = still(Recipe("cartwheel", "train", 3, frames=36), monkeypatch, height=1.6)
    assert np.isfinite(puppet.motion(35)).all()


def test_splits_draw_from_different_textures():
    hues = [puppets.LOOKS[split].hue for split in ("train", "validation", "test")]
    assert hues[0][1] < hues[1][0]
    assert hues[1][1] <= hues[2][0]


def test_an_unknown_action_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="juggle"):
        Puppet(Recipe("juggle", "train", 0))
