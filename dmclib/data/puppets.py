"""Clips of actors in front of photographs, of which every pixel's motion is known.

An actor of tapered limbs performs one of ten actions, seen by a camera that shakes and, in part of
the clips, pans and zooms; its brightness flickers and its sensor is noisy. Limbs are mostly thinner
than a macroblock, so a codec's vectors are right about the middle of a body and wrong about its
edges, and on flat background they are noise: what DMC-Net sets out to repair.

All of a clip follows from its :class:`Recipe`. The motion field is worked out from the same
transforms that draw the picture, so it is exact up to float32, and is never stored: it is computed
again when it is asked for.
"""

from dataclasses import dataclass

import numpy as np

from dmclib.data import actors, scenes
from dmclib.data.actors import ACTIONS as ACTIONS
from dmclib.errors import DatasetError

FPS = 25
SMALLEST_PX = 32  # two macroblocks
SHADE = 0.45  # how much darker a limb's outline is than its middle
FAR = 0.8  # brightness of the limbs behind the body


@dataclass(frozen=True)
class Look:
    """How a split's clips move: ranges to draw from, each (low, high)."""

    cycles_per_second: tuple[float, float]
    height: tuple[float, float]  # actor's height as a share of the frame's
    bulk: tuple[float, float]  # factor on every limb's width
    swing: tuple[float, float]  # factor on every joint's amplitude
    noise: tuple[float, float]  # sensor noise, standard deviation in grey levels
    flicker: tuple[float, float]  # change of brightness per frame, standard deviation, share
    jitter_px: tuple[float, float]  # camera shake, standard deviation in px per frame at 128 px


# The splits share no photograph, and only part of their motion: a classifier has to find what they
# have in common, which is the action.
LOOKS = {
    "train": Look(
        cycles_per_second=(0.9, 1.5), height=(0.66, 0.80), bulk=(0.85, 1.3), swing=(0.9, 1.2),
        noise=(1, 4), flicker=(0.0, 0.015), jitter_px=(0.2, 0.8),
    ),
    "validation": Look(
        cycles_per_second=(0.8, 1.6), height=(0.64, 0.82), bulk=(0.8, 1.35), swing=(0.85, 1.2),
        noise=(1, 5), flicker=(0.0, 0.02), jitter_px=(0.2, 0.9),
    ),
    "test": Look(
        cycles_per_second=(0.8, 1.6), height=(0.62, 0.84), bulk=(0.8, 1.35), swing=(0.85, 1.25),
        noise=(1, 5), flicker=(0.0, 0.02), jitter_px=(0.2, 0.9),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """All that one clip follows from.

    Raises:
        DatasetError: an unknown action, split or kind of scene, or a picture smaller than two
            macroblocks.
    """

    action: str  # one of ACTIONS
    split: str  # a key of LOOKS
    seed: int
    size: int | tuple[int, int] = 128  # height and width, or (width, height), px
    frames: int = 36
    scenes: str = "photographs"  # or "noise"

    def __post_init__(self):
        for name, word, known in (
            ("action", self.action, ACTIONS),
            ("split", self.split, LOOKS),
            ("kind of scene", self.scenes, scenes.SCENES),
        ):
            if word not in known:
                raise DatasetError(f"there is no {name} {word!r}; there are {', '.join(known)}.")
        if min(self.shape) < SMALLEST_PX:
            raise DatasetError(
                f"a picture of {self.shape[1]}x{self.shape[0]} px is too small for an actor: give "
                f"at least {SMALLEST_PX} px, which are two macroblocks, each way."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the pictures, px."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size[::-1]


class Camera:
    """Where the world is in each picture, from one moment before the first frame.

    A point of the world at w is seen at ``middle + zoom * (w - middle) + shift``. The actor's world
    moves along with the camera by the share ``follows`` of its pan, as someone walking beside it.
    """

    def __init__(self, rng: np.random.Generator, look: Look, recipe: Recipe):
        height, width = recipe.shape
        unit, moments = height / 128, recipe.frames + 1  # px per px at the usual size
        self.middle = np.array([width, height]) / 2
        shake = np.cumsum(rng.normal(0, rng.uniform(*look.jitter_px), (moments, 2)), axis=0) * unit
        time = np.arange(moments) - moments / 2
        pan, self.zoom, follows = np.zeros((moments, 2)), np.ones(moments), 0.0
        kind = rng.choice(["shake", "track", "swing", "zoom"], p=[0.76, 0.08, 0.08, 0.08])
        heading, begin = rng.uniform(0, 2 * np.pi, 2)
        way = np.array([np.cos(heading), np.sin(heading)])
        # Most cameras move by 1 to 4 px per frame, few by up to 8.
        speed = unit * (1 + 7 * rng.random() ** 2)
        if kind == "track":  # at nearly even speed, and the actor with it
            travelled = time + 3 * np.sin(2 * np.pi * time / 40 + begin)
            pan, follows = speed * travelled[:, None] * way, 1.0
        elif kind == "swing":  # to and fro, past an actor who stays
            period = rng.uniform(20, 40)  # frames
            reach = min(speed * period / (2 * np.pi), 0.14 * height)
            pan = reach * np.sin(2 * np.pi * time / period + begin)[:, None] * way
        elif kind == "zoom":
            rate = rng.choice([-1, 1]) * rng.uniform(0.003, 0.012)  # per frame
            self.zoom = np.exp(rate * time)
        shake -= shake.mean(axis=0)
        self.shift = shake + pan
        self.actor_shift = shake + (1 - follows) * pan

    def world(self, t, x, y, *, actor: bool = False):
        """Which points of the world, or the actor's, are seen at picture positions at moment t."""
        (sx, sy), (mx, my) = (self.actor_shift if actor else self.shift)[t], self.middle
        return mx + (x - mx - sx) / self.zoom[t], my + (y - my - sy) / self.zoom[t]

    def picture(self, t, x, y, *, actor: bool = False):
        """Where points of the world are seen at moment t: the opposite of :meth:`world`."""
        (sx, sy), (mx, my) = (self.actor_shift if actor else self.shift)[t], self.middle
        return mx + (x - mx) * self.zoom[t] + sx, my + (y - my) * self.zoom[t] + sy


class Puppet:
    """One clip: draw it with :meth:`frames`, ask for its exact motion with :meth:`motion`."""

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        look = LOOKS[recipe.split]
        # Split and action go into the seed, so no two clips share scenery or movements.
        rng = np.random.default_rng(
            [recipe.seed, ACTIONS.index(recipe.action), list(LOOKS).index(recipe.split)]
        )
        height, frames = recipe.shape[0], recipe.frames
        # One moment before the first frame, so that frame 0 too has a motion.
        cycles = rng.uniform(0, 1) + rng.uniform(*look.cycles_per_second) * (
            np.arange(-1, frames) / FPS
        )
        joints = actors.pose(recipe.action, cycles, rng.uniform(*look.swing), rng)
        self.camera = Camera(rng, look, recipe)
        tall, bulk = rng.uniform(*look.height) * height, rng.uniform(*look.bulk)
        centre = self.camera.middle + height * rng.uniform(-0.08, 0.08, size=2) + [0, 0.02 * height]
        self.limbs = actors.limbs(joints, tall, bulk, centre, rng.choice([-1.0, 1.0]))
        self.ground = centre[1] + 0.49 * tall  # y of the soles of who stands, px
        self.tall, self.noise = tall, rng.uniform(*look.noise)
        steps = rng.normal(0, rng.uniform(*look.flicker), frames)
        self.gain = 1 + steps + 0.3 * np.cumsum(steps)  # flickers, and drifts a little
        self.scenery = scenes.SCENES[recipe.scenes](rng, recipe.split)
        self.outfit = actors.Outfit.drawn(self.scenery, rng)
        self.backdrop = self.scenery.backdrop(height)
        self.corner = rng.uniform(0, np.array(self.backdrop.shape[1::-1]))

    def frames(self):
        """Yield the clip's pictures: uint8, (H, W, 3), RGB."""
        # The same noise in all actions of one number, so that it cannot tell them apart.
        grain = np.random.default_rng([self.recipe.seed, 1])
        for index in range(self.recipe.frames):
            picture = self._paint(index + 1) * np.float32(self.gain[index])
            picture += self.noise * grain.standard_normal(picture.shape, np.float32)
            yield np.clip(np.rint(picture), 0, 255).astype(np.uint8)

    def motion(self, index: int) -> np.ndarray:
        """Exact motion into frame ``index``: float32 (2, H, W), dx and dy in px.

        How far what is seen at a pixel has moved since the frame before (destination - source),
        for frame 0 since the moment before the clip begins.
        """
        height, width = self.recipe.shape
        now, before = index + 1, index
        y, x = np.mgrid[:height, :width].astype(np.float64)
        was = self.camera.picture(before, *self.camera.world(now, x, y))
        motion = np.stack([x - was[0], y - was[1]])
        for name in self.limbs:
            for box, (x, y), along, across, outside in self._seen(name, now):
                solid = outside <= 0  # what covers at least half of a pixel
                limb = self.limbs[name]
                was = self.camera.picture(before, *limb.image(before, along, across), actor=True)
                motion[0][box][solid] = (x - was[0])[solid]
                motion[1][box][solid] = (y - was[1])[solid]
        return motion.astype(np.float32)

    def body(self, index: int) -> np.ndarray:
        """Which pixels of frame ``index`` show the actor: bool (H, W)."""
        body = np.zeros(self.recipe.shape, bool)
        for name in self.limbs:
            for box, _, _, _, outside in self._seen(name, index + 1):
                body[box] |= outside <= 0
        return body

    def _seen(self, name: str, t: int):
        """Yield the box of a limb, its pixels, their place on the limb, and px to the outline.

        Nothing, if the limb is outside the picture.
        """
        limb, (height, width) = self.limbs[name], self.recipe.shape
        low, high = (self.camera.picture(t, *corner, actor=True) for corner in limb.bounds(t))
        left, top = np.maximum(np.floor(low).astype(int) - 1, 0)
        right, bottom = np.minimum(np.ceil(high).astype(int) + 2, (width, height))
        if left >= right or top >= bottom:
            return
        y, x = np.mgrid[top:bottom, left:right].astype(np.float64)
        along, across = limb.local(t, *self.camera.world(t, x, y, actor=True))
        outside, _ = limb.outside(along, across)
        yield np.s_[top:bottom, left:right], (x, y), along, across, outside * self.camera.zoom[t]

    def _paint(self, t: int) -> np.ndarray:
        """The picture at moment ``t``, without flicker and noise: float32 (H, W, 3)."""
        height, width = self.recipe.shape
        y, x = np.mgrid[:height, :width].astype(np.float32)
        world_x, world_y = self.camera.world(t, x, y)
        at = (world_x + self.corner[0], world_y + self.corner[1])
        picture = scenes.look_up(self.backdrop, *(a.astype(np.float32) for a in at))
        if not self.scenery.plain:
            picture *= self._shadow(t, x, y)[..., None]
        for name, limb in self.limbs.items():
            for box, _, along, across, outside in self._seen(name, t):
                cover = np.clip(0.5 - outside, 0, 1).astype(np.float32)[..., None]
                colour = self._colour(name, limb, along, across)
                picture[box] += cover * (colour - picture[box])
        return picture

    def _shadow(self, t: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """How bright the ground is below the actor, 0 to 1: (H, W). It darkens; nothing moves."""
        pelvis = self.limbs["torso"].start[t]
        cx, cy = self.camera.picture(t, pelvis[0], self.ground, actor=True)
        size = self.tall * self.camera.zoom[t]
        far = np.square((x - cx) / (0.22 * size)) + np.square((y - cy) / (0.05 * size))
        return (1 - 0.5 * np.exp(-far)).astype(np.float32)

    def _colour(self, name: str, limb: actors.Limb, along, across) -> np.ndarray:
        """A limb's colours at places on it: float32 (h, w, 3)."""
        first, second, change = self.outfit.parts(name)
        # On the cloth a limb lies along y, so that stripes go round it or along it.
        at = (across + scenes.CLOTH_PX / 2).astype(np.float32), along.astype(np.float32)
        colour = scenes.look_up(first, *at)
        if second is not first:
            later = along > change * limb.length
            colour[later] = scenes.look_up(second, *at)[later]
        if self.scenery.plain:
            return colour
        _, width = limb.outside(along, across)
        shade = 1 - SHADE * np.clip(np.square(across / width), 0, 1)
        shade *= FAR if name.startswith("far") else 1
        return colour * shade.astype(np.float32)[..., None]
