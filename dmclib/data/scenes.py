"""What actors stand before and wear: photographs, or noise.

The photographs are scikit-image's and scikit-learn's own (PHOTOGRAPHS.md has authors and licences).
Their flat parts leave a block matcher nothing to hold on to, as in real video, so that vectors
become noisy there. Noise gives every block a texture of its own, and a matcher hardly errs.
"""

from functools import lru_cache
from importlib import resources

import cv2
import numpy as np

from dmclib.errors import DatasetError

SKIMAGE, SKLEARN = "skimage/data", "sklearn/datasets/images"
PACKAGES = {"skimage": "scikit-image", "sklearn": "scikit-learn"}

# No photograph is in two splits; each split has flat and busy ones, coloured and grey ones.
PHOTOGRAPHS = {
    "train": (
        f"{SKIMAGE}/astronaut.png",
        f"{SKIMAGE}/cell.png",
        f"{SKIMAGE}/clock_motion.png",
        f"{SKIMAGE}/coins.png",
        f"{SKIMAGE}/grass.png",
        f"{SKIMAGE}/hubble_deep_field.jpg",
        f"{SKIMAGE}/ihc.png",
        f"{SKIMAGE}/retina.jpg",
        f"{SKIMAGE}/rocket.jpg",
    ),
    "validation": (f"{SKIMAGE}/brick.png", f"{SKIMAGE}/chelsea.png", f"{SKLEARN}/flower.jpg"),
    "test": (
        f"{SKIMAGE}/camera.png",
        f"{SKIMAGE}/coffee.png",
        f"{SKIMAGE}/gravel.png",
        f"{SKLEARN}/china.jpg",
    ),
}
HUES = {"train": (0.0, 0.45), "validation": (0.5, 0.7), "test": (0.7, 0.95)}  # of noise, turns

SCALES = (0.5, 1.2)  # px of a picture of REFERENCE_PX height per px of a photograph
REFERENCE_PX = 128
CLOTH_PX = 64  # side of a piece of cloth


class Photographs:
    """Draws backdrops and cloth from the photographs of one split, with ``rng`` alone.

    Raises:
        DatasetError: the split has no photographs.
    """

    plain = False  # actors have skin, shading and a shadow

    def __init__(self, rng: np.random.Generator, split: str):
        self.rng, self._files = rng, PHOTOGRAPHS[split]
        if not self._files:
            raise DatasetError(
                f"scenes.PHOTOGRAPHS lists no photograph for the {split} split: name one, or ask "
                'for scenes="noise".'
            )

    def backdrop(self, height: int) -> np.ndarray:
        """A whole photograph, scaled for a picture of this height, px: float32 (h, w, 3), RGB.

        Beyond its borders it goes on mirrored (:func:`look_up`), which shows no seam.
        """
        photograph = self._photograph()
        # Larger pictures show more of the photograph, and its pixels only a little larger.
        scale = self.rng.uniform(*SCALES) * max(height / REFERENCE_PX, 1) ** 0.5
        if self.rng.random() < 0.5:
            photograph = photograph[:, ::-1]
        scaled = cv2.resize(
            np.ascontiguousarray(photograph),
            None,
            fx=scale,
            fy=scale,
            interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
        )
        return scaled.astype(np.float32)

    def cloth(self) -> np.ndarray:
        """A piece of cloth: float32 (CLOTH_PX, CLOTH_PX, 3), RGB: cut out, striped or plain."""
        kind = self.rng.choice(["cut", "stripes", "plain"], p=[0.5, 0.25, 0.25])
        if kind == "cut":
            photograph = self._photograph()
            side = int(self.rng.uniform(0.25, 0.6) * min(photograph.shape[:2]))
            top, left = (self.rng.integers(n - side + 1) for n in photograph.shape[:2])
            piece = photograph[top : top + side, left : left + side]
            piece = cv2.resize(piece, (CLOTH_PX, CLOTH_PX), interpolation=cv2.INTER_AREA)
            # Brightness is drawn anew, or a dark photograph would give dark clothes only.
            gain = np.float32(self.rng.uniform(70, 180) / max(piece.mean(), 20))
            return np.clip(piece * gain, 0, 255)
        colour = self.rng.uniform(30, 225, 3)
        cloth = np.tile(colour, (CLOTH_PX, CLOTH_PX, 1))
        if kind == "stripes":
            width = self.rng.integers(3, 9)
            bands = np.arange(CLOTH_PX) // width % 2 == 0
            other = self.rng.uniform(30, 225, 3)
            if self.rng.random() < 0.5:
                cloth[bands] = other
            else:
                cloth[:, bands] = other
        return cloth.astype(np.float32)

    def _photograph(self) -> np.ndarray:
        """One of the split's photographs, float32; grey ones get a tint."""
        picture = read(self._files[self.rng.integers(len(self._files))]).astype(np.float32)
        grey = (picture[::16, ::16].std(axis=-1) < 2).all()
        tint = self.rng.uniform(0.75, 1.15, 3).astype(np.float32)
        return np.clip(picture * tint, 0, 255) if grey else picture


class Noise:
    """Draws backdrops and cloth from one family of coloured noise, with ``rng`` alone."""

    plain = True  # everything wears the same noise, so that one picture says little of the pose

    def __init__(self, rng: np.random.Generator, split: str):
        self.rng, self._grain_px = rng, rng.uniform(2.5, 6.0)
        angle = 2 * np.pi * (rng.uniform(*HUES[split]) + np.array([0, 1 / 3, 2 / 3]))
        self._contrast = rng.uniform(22, 40)  # standard deviation in grey levels
        self._mean, self._tint = 128 + 30 * np.cos(angle), np.cos(angle + 1)

    def backdrop(self, height: int) -> np.ndarray:
        """A patch, twice as high as the picture, that goes on mirrored: float32 (h, h, 3), RGB."""
        return self._patch(2 * height)

    def cloth(self) -> np.ndarray:
        """A piece of cloth: float32 (CLOTH_PX, CLOTH_PX, 3), RGB."""
        return self._patch(CLOTH_PX)

    def _patch(self, side: int) -> np.ndarray:
        def noise():
            field = self.rng.normal(size=(side, side)).astype(np.float32)
            field = cv2.GaussianBlur(field, None, self._grain_px / 2.5)
            # Every patch has the same mean, so brightness gives no limb away.
            return ((field - field.mean()) / field.std())[..., None]

        patch = self._mean + self._contrast * (noise() + 0.5 * noise() * self._tint)
        return np.clip(patch, 0, 255).astype(np.float32)


SCENES = {"photographs": Photographs, "noise": Noise}


@lru_cache(maxsize=len(PHOTOGRAPHS["train"]))
def read(file: str) -> np.ndarray:
    """A photograph of an installed package: uint8 (H, W, 3), RGB, at most 720 px high.

    Raises:
        DatasetError: it is not there or cannot be read; names the package to install.
    """
    package, _, name = file.partition("/")
    try:
        raw = np.frombuffer((resources.files(package) / name).read_bytes(), np.uint8)
        picture = cv2.imdecode(raw, cv2.IMREAD_COLOR)
    except (ModuleNotFoundError, OSError):
        picture = None
    if picture is None:
        raise DatasetError(
            f"the photograph {name} of {PACKAGES[package]} is not in this installation: install "
            f"the package again (pip install --force-reinstall {PACKAGES[package]})."
        )
    if len(picture) > 720:
        width = round(picture.shape[1] * 720 / len(picture))
        picture = cv2.resize(picture, (width, 720), interpolation=cv2.INTER_AREA)
    return picture[..., ::-1]


def look_up(picture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear look-up at float32 positions, px; mirrored beyond: (h, w) positions -> (h, w, 3)."""
    return cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
