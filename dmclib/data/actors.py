"""Actors: ten actions as joint angles over time, the limbs that follow, and what they wear.

Limbs are rigid, so that every point's motion is known. Most are thinner than a macroblock of 16 px
at the size that networks are trained on; the torso, and the thighs of a stout actor, are not.
"""

from dataclasses import dataclass

import numpy as np

from dmclib.data.scenes import CLOTH_PX, Noise, Photographs

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

# Length, and half-width at beginning and end, as shares of the actor's height; back to front.
LIMBS = {
    "far upper arm": (0.16, 0.030, 0.025),
    "far forearm": (0.17, 0.024, 0.017),
    "far foot": (0.07, 0.020, 0.015),
    "far shin": (0.24, 0.036, 0.021),
    "far thigh": (0.24, 0.050, 0.038),
    "neck": (0.07, 0.030, 0.028),
    "torso": (0.27, 0.068, 0.088),
    "head": (0.055, 0.050, 0.054),
    "near foot": (0.07, 0.020, 0.015),
    "near shin": (0.24, 0.036, 0.021),
    "near thigh": (0.24, 0.050, 0.038),
    "near upper arm": (0.16, 0.032, 0.026),
    "near forearm": (0.17, 0.025, 0.018),
}
HAND, FACE = 0.82, 0.55  # share of a forearm where the hand begins; of a head, where hair does
ANKLE_DEGREES = 80  # from shin to foot
SKINS = ((255, 219, 195), (236, 188, 153), (198, 134, 96), (141, 85, 54), (92, 56, 40))
HAIRS = ((28, 22, 20), (70, 45, 30), (120, 80, 45), (196, 160, 100), (130, 130, 130))


class Limb:
    """A tapered capsule that moves rigidly, and its paint.

    ``start`` is (T, 2) px, ``angle`` (T,) radians, ``half_widths`` px at its two ends.
    """

    def __init__(self, start, angle, length: float, half_widths: tuple[float, float]):
        self.start, self.length, self.half_widths = start, length, half_widths
        self.direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)

    def local(self, t, x, y):
        """Where points lie along and across the limb at time ``t``, px."""
        (ox, oy), (c, s) = self.start[t], self.direction[t]
        return (x - ox) * c + (y - oy) * s, (y - oy) * c - (x - ox) * s

    def image(self, t, along, across):
        """Where points of the limb are at time ``t``, px: the opposite of :meth:`local`."""
        (ox, oy), (c, s) = self.start[t], self.direction[t]
        return ox + along * c - across * s, oy + along * s + across * c

    def outside(self, along, across):
        """Distance from the limb's outline, px; negative within. Also its half-width there."""
        part = np.clip(along / self.length, 0, 1)
        width = self.half_widths[0] + part * (self.half_widths[1] - self.half_widths[0])
        return np.hypot(along - part * self.length, across) - width, width

    def bounds(self, t):
        """Corners of a box round the limb at time ``t``: ((x, y), (x, y)), px."""
        ends = np.stack([self.start[t], self.start[t] + self.length * self.direction[t]])
        margin = max(self.half_widths)
        return ends.min(0) - margin, ends.max(0) + margin


@dataclass(frozen=True)
class Outfit:
    """What an actor wears: cloth, float32 (CLOTH_PX, CLOTH_PX, 3), and colours, RGB."""

    shirt: np.ndarray
    trousers: np.ndarray
    shoes: np.ndarray
    skin: np.ndarray
    hair: np.ndarray
    sleeves: bool  # long ones
    shorts: bool

    @classmethod
    def drawn(cls, scenery: Photographs | Noise, rng: np.random.Generator) -> "Outfit":
        """Clothes of a split's scenery; of noise, everything is."""
        if scenery.plain:
            return cls(*(scenery.cloth() for _ in range(5)), sleeves=False, shorts=False)
        shirt, trousers = scenery.cloth(), scenery.cloth()

        def plain(colour):
            return np.full((CLOTH_PX, CLOTH_PX, 3), colour, np.float32)

        skin = np.array(SKINS[rng.integers(len(SKINS))]) + rng.normal(0, 6, 3)
        hair = np.array(HAIRS[rng.integers(len(HAIRS))]) + rng.normal(0, 6, 3)
        shoes = rng.uniform(20, 200, 3)
        sleeves, shorts = rng.random() < 0.5, rng.random() < 0.3
        return cls(shirt, trousers, plain(shoes), plain(skin), plain(hair), sleeves, shorts)

    def parts(self, limb: str) -> tuple[np.ndarray, np.ndarray, float]:
        """A limb's first cloth, the second that follows it, and the share where that begins."""
        match limb.removeprefix("far ").removeprefix("near "):
            case "upper arm" | "torso":
                return self.shirt, self.shirt, 1.0
            case "forearm":
                return (self.shirt if self.sleeves else self.skin), self.skin, HAND
            case "thigh":
                return self.trousers, self.trousers, 1.0
            case "shin":
                cloth = self.skin if self.shorts else self.trousers
                return cloth, cloth, 1.0
            case "foot":
                return self.shoes, self.shoes, 1.0
            case "head":
                return self.skin, self.hair, FACE
            case _:
                return self.skin, self.skin, 1.0


def pose(action: str, cycles: np.ndarray, swing: float, rng) -> dict[str, np.ndarray]:
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
    joints = {
        "x": zero, "y": zero, "turn": zero, "torso": zero + rest[0] / 2,
        "near arm": zero + rest[1], "near elbow": zero + 12 + rest[2],
        "far arm": zero + rest[3], "far elbow": zero + 12 + rest[4],
        "near leg": zero + 4 + rest[5] / 2, "near knee": zero - 4,
        "far leg": zero - 4 + rest[6] / 2, "far knee": zero - 4,
    }  # fmt: skip

    def move(**changes):
        for name, change in changes.items():
            key = name.replace("_", " ")
            joints[key] = joints[key] + change

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
    return joints


def limbs(
    joints: dict[str, np.ndarray], height: float, bulk: float, centre, mirror: float
) -> dict[str, Limb]:
    """The limbs that follow from joint angles, back to front.

    Forward is +x, or -x if ``mirror`` is -1; ``bulk`` multiplies all widths.
    """
    turn = np.deg2rad(joints["turn"])

    def direction(degrees):  # 0 points down, 90 forward
        angle = np.deg2rad(degrees) + turn
        return np.stack([mirror * np.sin(angle), np.cos(angle)], axis=1)

    pelvis = centre + height * np.stack([mirror * joints["x"], joints["y"]], axis=1)
    up = direction(180 - joints["torso"])
    spine = LIMBS["torso"][0] * height * up
    shoulder, throat = pelvis + 0.93 * spine, pelvis + spine + 0.03 * height * up
    chains = {"torso": (pelvis, up), "neck": (throat, up)}
    chains["head"] = (throat + 0.085 * height * up, up)
    for side in ("far", "near"):
        # Arms hang from the leaning torso, legs from the pelvis.
        for root, limb, joint, upper, lower in (
            (shoulder, "arm", "elbow", "upper arm", "forearm"),
            (pelvis, "leg", "knee", "thigh", "shin"),
        ):
            angle = joints[f"{side} {limb}"] - (joints["torso"] * 0.5 if limb == "arm" else 0)
            first, bent = direction(angle), angle + joints[f"{side} {joint}"]
            end = root + LIMBS[f"{side} {upper}"][0] * height * first
            chains[f"{side} {upper}"] = (root, first)
            chains[f"{side} {lower}"] = (end, direction(bent))
            if lower == "shin":
                ankle = end + LIMBS[f"{side} shin"][0] * height * direction(bent)
                chains[f"{side} foot"] = (ankle, direction(bent + ANKLE_DEGREES))
    made = {}
    for name, (length, *half_widths) in LIMBS.items():
        start, way = chains[name]
        angle = np.arctan2(way[:, 1], way[:, 0])
        widths = tuple(bulk * height * half_width for half_width in half_widths)
        made[name] = Limb(start.copy(), angle, length * height, widths)
    return made
