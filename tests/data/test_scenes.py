from itertools import chain, combinations

import numpy as np
import pytest

from dmclib.data import scenes
from dmclib.data.scenes import CLOTH_PX, Noise, Photographs
from dmclib.errors import DatasetError
from dmclib.paths import ROOT


def rng():
    return np.random.default_rng(3)


def test_no_photograph_is_in_two_splits():
    assert scenes.PHOTOGRAPHS.keys() == {"train", "validation", "test"}
    for a, b in combinations(scenes.PHOTOGRAPHS.values(), 2):
        assert not set(a) & set(b)


@pytest.mark.parametrize("file", [*chain.from_iterable(scenes.PHOTOGRAPHS.values())])
def test_every_photograph_is_installed_and_its_licence_is_listed(file):
    picture = scenes.read(file)
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    assert 128 <= len(picture) <= 720
    assert f"`{file.rsplit('/', 1)[1]}`" in (ROOT / "PHOTOGRAPHS.md").read_text()


def test_a_photograph_is_read_as_rgb():
    cat = scenes.read(f"{scenes.SKIMAGE}/chelsea.png")
    red, _, blue = cat.reshape(-1, 3).mean(axis=0)
    assert red > 1.3 * blue  # it is ginger


@pytest.mark.parametrize(
    ("file", "package"),
    [
        ("skimage/data/not_there.png", "scikit-image"),
        ("skimage/data/README.txt", "scikit-image"),  # no picture
        ("sklearn/datasets/images/not_there.jpg", "scikit-learn"),
    ],
)
def test_a_photograph_that_is_not_there_names_the_package_to_install(file, package):
    with pytest.raises(DatasetError, match=f"pip install --force-reinstall {package}"):
        scenes.read(file)


def test_a_split_without_photographs_is_refused(monkeypatch):
    monkeypatch.setitem(scenes.PHOTOGRAPHS, "test", ())
    with pytest.raises(DatasetError, match="lists no photograph for the test split: name one"):
        Photographs(rng(), "test")


@pytest.mark.parametrize("kind", [Photographs, Noise])
def test_backdrops_and_cloth_are_pictures(kind):
    scenery = kind(rng(), "train")
    for _ in range(12):
        backdrop, cloth = scenery.backdrop(128), scenery.cloth()
        assert backdrop.dtype == cloth.dtype == np.float32
        assert backdrop.shape[2] == 3
        assert cloth.shape == (CLOTH_PX, CLOTH_PX, 3)
        for picture in (backdrop, cloth):
            assert -0.01 <= picture.min() <= picture.max() <= 255.01  # float32 is resized


def test_beyond_its_border_a_picture_goes_on_mirrored_without_a_seam():
    ramp = np.tile(np.arange(20, dtype=np.float32)[None, :, None], (4, 1, 3))
    x = np.arange(-19, 39, dtype=np.float32)[None]
    seen = scenes.look_up(ramp, x, np.zeros_like(x))[0, :, 0]
    np.testing.assert_allclose(np.abs(np.diff(seen)), 1)
    np.testing.assert_allclose(seen[:19], np.arange(19, 0, -1))


def test_between_pixels_a_picture_is_bilinear():
    ramp = np.tile(np.arange(20, dtype=np.float32)[None, :, None], (4, 1, 3))
    at = np.float32([[3.5]]), np.float32([[1.25]])
    np.testing.assert_allclose(scenes.look_up(ramp, *at), 3.5)


def test_noise_of_two_splits_has_other_colours():
    hues = [scenes.HUES[split] for split in ("train", "validation", "test")]
    assert hues[0][1] < hues[1][0]
    assert hues[1][1] <= hues[2][0]
