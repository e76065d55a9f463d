"""Articulated puppets whose every pixel's motion is known.

A drawing of ten textured limbs performs one of ten actions in front of a background of the same
texture family, seen by a shaky and noisy camera. Limbs are 4 to 18 px wide where a macroblock is
16, so a codec's vectors are right about the middle of the body and wrong about its edges, which is
what DMC-Net sets out to repair. Because puppet and background wear the same kind of texture, a
single frame says little of the pose; what gives the action away is motion.

All of a clip follows from its :class:`Recipe`. The motion field is worked out from the same limb
transforms that draw the picture, so it is exact up to float32, and is never stored: it is computed
again when it is asked for.
"""

from dataclasses import dataclass

import numpy as np

ACTIONS = (
    "bow",
    "cartwheel",
    "clap",
    "jump",
    "kick",
    "punch",
    "run",
    "squat",
    "walk",
    "wave",
)

FPS = 25
TEXTURE_PX = 64  # side of a limb's texture; it repeats beyond

# Lengths and half-widths as shares of the puppet's height, drawn back to front.
LIMBS = {
    "far upper arm": (0.17, 0.030),
    "far forearm": (0.17, 0.026),
    "far thigh": (0.24, 0.044),
    "far shin": (0.24, 0.034),
    "torso": (0.28, 0.085),
    "head": (0.07, 0.062),
    "near thigh": (0.24, 0.044),
    "near shin": (0.24, 0.034),
    "near upper arm": (0.17, 0.030),
    "near forearm": (0.17, 0.026),
}


@dataclass(frozen=True)
class Look:
    """What a split's clips look like: ranges to draw from, each (low, high)."""

    hue: tuple[float, float]  # turns of the colour wheel
    grain_px: tuple[float, float]  # size of the texture's blobs
    contrast: tuple[float, float]  # standard deviation in grey levels
    cycles_per_second: tuple[float, float]
    height: tuple[float, float]  # puppet's height as a share of the frame's
    swing: tuple[float, float]  # factor on every joint's amplitude
    noise: tuple[float, float]  # sensor noise, standard deviation in grey levels
    jitter_px: tuple[float, float]  # camera shake, standard deviation in px per frame


# Disjoint textures and only partly overlapping motion: a classifier has to find what the splits
# share, which is the action.
LOOKS = {
    "train": Look(
        hue=(0.0, 0.45), grain_px=(2.5, 5.0), contrast=(25, 40), cycles_per_second=(0.9, 1.5),
        height=(0.62, 0.78), swing=(0.9, 1.2), noise=(1, 4), jitter_px=(0.2, 0.8),
    ),
    "validation": Look(
        hue=(0.5, 0.7), grain_px=(3.0, 6.0), contrast=(22, 36), cycles_per_second=(0.8, 1.6),
        height=(0.60, 0.80), swing=(0.85, 1.2), noise=(1, 5), jitter_px=(0.2, 0.9),
    ),
    "test": Look(
        hue=(0.7, 0.95), grain_px=(3.0, 6.0), contrast=(22, 36), cycles_per_second=(0.8, 1.6),
        height=(0.58, 0.82), swing=(0.85, 1.25), noise=(1, 5), jitter_px=(0.2, 0.9),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """All that one clip follows from."""

    action: str  # one of ACTIONS
    split: str  # a key of LOOKS
    seed: int
    size: int = 128  # height and width in px
    frames: int = 36

    def __post_init__(self):
        if self.action not in ACTIONS or self.split not in LOOKS:
            raise ValueError(
                f"there is no action {self.action!r} of split {self.split!r}; actions are "
                f"{', '.join(ACTIONS)}, splits {', '.join(LOOKS)}."
            )


class Puppet:
    """One clip: draw it with :meth:`frames`, ask for its exact motion with :meth:`motion`."""

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        look = LOOKS[recipe.split]
        # The split and the action go into the seed, so no two clips share textures or movements.
        self._rng = rng = np.random.default_rng(
            [recipe.seed, ACTIONS.index(recipe.action), list(LOOKS).index(recipe.split)]
        )
        draw = {name: rng.uniform(*getattr(look, name)) for name in Look.__dataclass_fields__}
        self.noise = draw["noise"]
        self.texture = _Texture(rng, draw["hue"], draw["grain_px"], draw["contrast"])

        size, frames = recipe.size, recipe.frames
        height = draw["height"] * size
        start, mirror = rng.uniform(0, 1), rng.choice([-1.0, 1.0])
        # One frame before the first, so that frame 0 too has a motion.
        cycles = start + draw["cycles_per_second"] * np.arange(-1, frames) / FPS
        pose = _pose(recipe.action, cycles, draw["swing"], rng)
        centre = size * (0.5 + rng.uniform(-0.08, 0.08, size=2)) + [0, 0.04 * size]
        shake = np.cumsum(rng.normal(0, draw["jitter_px"], (frames + 1, 2)), axis=0)
        self.shake = shake - shake.mean(axis=0)  # (frames + 1, 2): camera, px
        self.bones = _bones(pose, height, centre, mirror)
        for bone in self.bones.values():
            bone.start += self.shake
        self.limb_textures = {name: self.texture.patch(TEXTURE_PX) for name in self.bones}
        self.backdrop = self.texture.patch(size + 64)  # wide enough for any shake

    def frames(self):
        """Yield the clip's pictures: uint8, (size, size, 3), RGB."""
        # The same noise in all actions of one number, so that it cannot tell them apart.
        grain = np.random.default_rng([self.recipe.seed, 1])
        for t in range(self.recipe.frames):
            picture = self._paint(t)[0]
            picture += grain.normal(0, self.noise, picture.shape).astype(np.float32)
            yield np.clip(np.rint(picture), 0, 255).astype(np.uint8)

    def motion(self, index: int) -> np.ndarray:
        """Exact motion into frame ``index``: float32 (2, size, size), dx and dy in px.

        How far what is seen at a pixel has moved since the frame before (destination - source),
        for frame 0 since the moment before the clip begins.
        """
        return self._paint(index, motion_only=True)[1]

    def _paint(self, t: int, *, motion_only: bool = False):
        size, now, before = self.recipe.size, t + 1, t
        picture = None
        if not motion_only:
            picture = _sample(self.backdrop, *_grid(size, -self.shake[now] + 32))
        motion = np.empty((2, size, size), np.float32)
        motion[:] = (self.shake[now] - self.shake[before])[:, None, None]
        for name, bone in self.bones.items():
            box = bone.box(now, size)
            if box is None:
                continue
            rows, cols = box
            y, x = np.mgrid[rows, cols].astype(np.float32)
            along, across = bone.local(now, x, y)
            beyond = along - np.clip(along, 0, bone.length)
            cover = np.clip(bone.half_width - np.hypot(beyond, across) + 0.5, 0, 1)
            solid = cover >= 0.5
            was_x, was_y = bone.image(before, along, across)
            motion[0, rows, cols][solid] = (x - was_x)[solid]
            motion[1, rows, cols][solid] = (y - was_y)[solid]
            if picture is not None:
                skin = _sample(self.limb_textures[name], along + 16, across + 32)
                picture[rows, cols] += cover[..., None] * (skin - picture[rows, cols])
        return picture, motion


class _Bone:
    """A limb: a capsule that moves rigidly. ``start`` is (T, 2) px, ``angle`` (T,) radians."""

    def __init__(self, start, angle, length: float, half_width: float):
        self.start, self.length, self.half_width = start, length, half_width
        self.direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)

    def local(self, t, x, y):
        (ox, oy), (c, s) = self.start[t], self.direction[t]
        return (x - ox) * c + (y - oy) * s, (y - oy) * c - (x - ox) * s

    def image(self, t, along, across):
        (ox, oy), (c, s) = self.start[t], self.direction[t]
        return ox + along * c - across * s, oy + along * s + across * c

    def box(self, t, size):
        ends = np.stack([self.start[t], self.start[t] + self.length * self.direction[t]])
        low = np.maximum(np.floor(ends.min(0) - self.half_width - 1).astype(int), 0)
        high = np.minimum(np.ceil(ends.max(0) + self.half_width + 2).astype(int), size)
        if (low >= high).any():
            return None
        return slice(low[1], high[1]), slice(low[0], high[0])


class _Texture:
    """A family of coloured noise: patches of it differ, their statistics do not."""

    def __init__(self, rng, hue: float, grain_px: float, contrast: float):
        self.rng, self.grain_px, self.contrast = rng, grain_px, contrast
        angle = 2 * np.pi * (hue + np.array([0, 1 / 3, 2 / 3]))
        self.mean = 128 + 30 * np.cos(angle)
        self.tint = np.cos(angle + 1)

    def patch(self, side: int) -> np.ndarray:
        """A patch that repeats seamlessly, float32 (side, side, 3)."""
        frequency = np.hypot(
            *np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij")
        )
        low_pass = np.exp(-((frequency * self.grain_px) ** 2) * np.pi)
        low_pass[0, 0] = 0  # every patch has the same mean, so brightness gives no limb away

        def noise():
            spectrum = np.fft.rfft2(self.rng.normal(size=(side, side))) * low_pass
            field = np.fft.irfft2(spectrum, s=(side, side))
            return (field / field.std())[..., None]

        patch = self.mean + self.contrast * (noise() + 0.5 * noise() * self.tint)
        return np.clip(patch, 0, 255).astype(np.float32)


def _grid(size, offset):
    y, x = np.mgrid[:size, :size].astype(np.float32)
    return x + np.float32(offset[0]), y + np.float32(offset[1])


def _sample(patch, x, y):
    """Bilinear look-up at float positions, repeating beyond the patch: (…,) -> (…, 3)."""
    side = len(patch)
    x0, y0 = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    fx, fy = (x - x0)[..., None].astype(np.float32), (y - y0)[..., None].astype(np.float32)
    x0, y0 = x0 % side, y0 % side
    x1, y1 = (x0 + 1) % side, (y0 + 1) % side
    top = patch[y0, x0] * (1 - fx) + patch[y0, x1] * fx
    bottom = patch[y1, x0] * (1 - fx) + patch[y1, x1] * fx
    return top * (1 - fy) + bottom * fy


def _pose(action: str, cycles: np.ndarray, swing: float, rng) -> dict[str, np.ndarray]:
    """Joint angles in degrees over time.

    Torso and upper limbs: 0 hangs straight down, positive lifts forward (towards +x); ``elbow`` and
    ``knee`` bend relative to the limb above. ``x`` and ``y`` shift the pelvis and ``turn`` rotates
    the whole body, as shares of the height and in degrees.
    """
    wave = np.sin(2 * np.pi * cycles)
    pulse = 0.5 - 0.5 * np.cos(2 * np.pi * cycles)  # 0 at rest, 1 at the height of the action
    zero = np.zeros_like(wave)
    a = swing
    rest = rng.uniform(-8, 8, size=8)
    pose = {
        "x": zero, "y": zero, "turn": zero, "torso": zero + rest[0] / 2,
        "near arm": zero + rest[1], "near elbow": zero + 12 + rest[2],
        "far arm": zero + rest[3], "far elbow": zero + 12 + rest[4],
        "near leg": zero + 4 + rest[5] / 2, "near knee": zero - 4,
        "far leg": zero - 4 + rest[6] / 2, "far knee": zero - 4,
    }  # fmt: skip

    def move(**changes):
        for name, change in changes.items():
            key = name.replace("_", " ")
            pose[key] = pose[key] + change

    match action:
        case "bow":
            move(torso=75 * a * pulse, near_arm=50 * pulse, far_arm=50 * pulse)
        case "cartwheel":
            move(turn=360 * (cycles - cycles.mean()), near_arm=165, far_arm=195)
            move(near_leg=28, far_leg=-28, x=0.35 * (cycles - cycles.mean()))
        case "clap":
            beat = 35 * a * np.sin(4 * np.pi * cycles)
            move(near_arm=65 + beat, far_arm=65 - beat, near_elbow=35, far_elbow=35)
        case "jump":
            # Squared, so that crouch and flight meet without a jerk.
            crouch, flight = np.clip(-wave, 0, None) ** 2, np.clip(wave, 0, None) ** 2
            move(y=-0.16 * a * flight + 0.1 * crouch, near_arm=110 * a * flight)
            move(near_leg=45 * crouch, near_knee=-85 * crouch, far_arm=110 * a * flight)
            move(far_leg=45 * crouch, far_knee=-85 * crouch)
        case "kick":
            move(
                near_leg=95 * a * pulse**2,
                near_knee=-50 * a * pulse * (1 - pulse),
                torso=-12 * pulse,
            )
            move(near_arm=-20 * pulse, far_arm=25 * pulse)
        case "punch":
            move(near_arm=30 + 55 * a * pulse, near_elbow=105 * (1 - pulse))
            move(far_arm=30 + 55 * a * (1 - pulse), far_elbow=105 * pulse)
        case "run":
            stride = 48 * a * wave
            move(near_leg=12 + stride, near_knee=-45 + 40 * a * np.cos(2 * np.pi * cycles))
            move(far_leg=12 - stride, far_knee=-45 - 40 * a * np.cos(2 * np.pi * cycles))
            move(near_arm=-stride, near_elbow=75, far_arm=stride, far_elbow=75, torso=14)
            move(y=0.03 * a * np.cos(4 * np.pi * cycles), x=0.45 * (cycles - cycles.mean()))
        case "squat":
            move(y=0.24 * a * pulse, near_leg=85 * a * pulse, near_knee=-125 * a * pulse)
            move(far_leg=80 * a * pulse, far_knee=-120 * a * pulse, torso=18 * pulse)
            move(near_arm=75 * a * pulse, far_arm=75 * a * pulse)
        case "walk":
            stride = 26 * a * wave
            move(near_leg=stride, near_knee=-12 + 12 * a * np.cos(2 * np.pi * cycles))
            move(far_leg=-stride, far_knee=-12 - 12 * a * np.cos(2 * np.pi * cycles))
            move(near_arm=-0.9 * stride, far_arm=0.9 * stride, x=0.25 * (cycles - cycles.mean()))
        case "wave":
            move(near_arm=140, near_elbow=25 + 50 * a * np.sin(4 * np.pi * cycles))
    return pose


def _bones(pose, height: float, centre, mirror: float) -> dict[str, _Bone]:
    """Joint angles -> limbs in the picture, back to front. Forward is +x, or -x if mirrored."""
    turn = np.deg2rad(pose["turn"])

    def direction(degrees):  # 0 points down, 90 forward
        angle = np.deg2rad(degrees) + turn
        return np.stack([mirror * np.sin(angle), np.cos(angle)], axis=1)

    pelvis = centre + height * np.stack([mirror * pose["x"], pose["y"]], axis=1)
    up = direction(180 - pose["torso"])
    shoulder = pelvis + LIMBS["torso"][0] * 0.93 * height * up
    neck = pelvis + (LIMBS["torso"][0] + 0.05) * height * up
    chains = {"torso": (pelvis, up), "head": (neck, up)}
    for side in ("far", "near"):
        # Arms hang from the leaning torso, legs from the pelvis.
        for root, limb, joint, upper, lower in (
            (shoulder, "arm", "elbow", "upper arm", "forearm"),
            (pelvis, "leg", "knee", "thigh", "shin"),
        ):
            angle = pose[f"{side} {limb}"] - (pose["torso"] * 0.5 if limb == "arm" else 0)
            first = direction(angle)
            second = direction(angle + pose[f"{side} {joint}"])
            chains[f"{side} {upper}"] = (root, first)
            chains[f"{side} {lower}"] = (
                root + LIMBS[f"{side} {upper}"][0] * height * first,
                second,
            )
    bones = {}
    for name, (length, half_width) in LIMBS.items():
        start, way = chains[name]
        angle = np.arctan2(way[:, 1], way[:, 0])
        bones[name] = _Bone(start.copy(), angle, length * height, half_width * height)
    return bones
