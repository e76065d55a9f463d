"""Where a picture's flow comes from: the camera, something that moves, or the edge between them.

Motion vectors go wrong in other ways on each of the three. On still background they are noise, on
a body they are coarse, and along its edge a block cannot follow. (The paper's Figure 5 shows all
three; it measures none.)
"""

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

REGIONS = ("background", "body", "boundary")
MOVES_PX = 0.5  # what differs from the camera by more moves by itself: a whole-pixel vector's error
JUMP_PX = 0.5  # neighbours whose motion differs by more lie on two sides of an edge
SAMPLES = 512  # pixels, at most, among which a camera is looked for
CAMERAS = 128  # guesses; where half is background, all miss it once in 10^7 pictures


def regions(field: np.ndarray, *, band_px: int = 4) -> dict[str, np.ndarray]:
    """Divide a picture into still background, moving body, and a band along motion edges.

    The background is what follows the camera, whose motion :func:`camera` finds. The body moves
    otherwise by more than ``MOVES_PX``. An edge lies between two neighbours whose motion beside the
    camera's differs by more than ``JUMP_PX``; the band has ``band_px`` pixels on either side of it.
    Limbs that move evenly with each other have no edge between them.

    Args:
        field: exact or reference flow, float ``(2, H, W)``, px per frame. Of an estimated flow,
            whose edges are smooth, only those that rise by ``JUMP_PX`` within a pixel are found.
        band_px: the band's width on either side, px, at least 1.

    Returns:
        bool ``(H, W)`` by name, in the order of ``REGIONS``. Every pixel is in exactly one.
    """
    own = field.astype(np.float32) - camera(field)
    edge = np.zeros(own.shape[1:], bool)
    for step, before, after in _neighbours(own):
        jump = np.hypot(*step) > JUMP_PX
        edge[before] |= jump
        edge[after] |= jump
    # The two pixels at an edge are the band's first.
    boundary = ndimage.maximum_filter(edge, 2 * band_px - 1, mode="constant")
    moves = np.hypot(*own) > MOVES_PX
    masks = ~moves & ~boundary, moves & ~boundary, boundary
    return dict(zip(REGIONS, masks, strict=True))


def camera(field: np.ndarray) -> np.ndarray:
    """The motion that the camera alone would give: float32, ``(2, H, W)``, px per frame.

    Shake, pan, zoom and roll are affine in a pixel's place. Among affine motions through three
    pixels each (RANSAC, with fixed draws, so equal fields have equal cameras) the one is taken that
    most of the picture agrees with, and then fitted to all that agree, by least squares.

    The largest part that moves as one is taken for the background, so a body that fills more of the
    picture than its background does is mistaken for it. If nothing moves as one (water, noise), the
    camera found means nothing and most pixels count as body; a caller who cannot exclude that looks
    at the background's share.
    """
    _, height, width = field.shape
    y, x = np.indices((height, width), np.float32)
    # Centred and scaled, so that the equations are well conditioned.
    x, y = x / width - 0.5, y / height - 0.5
    places = np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3)
    motion = field.astype(np.float32).reshape(2, -1).T

    random = np.random.default_rng(0)
    some = random.permutation(len(places))[:SAMPLES]
    triples = random.choice(some, (CAMERAS, 3))
    corners = places[triples]
    sound = np.abs(np.linalg.det(corners)) > 0.01  # neither on a line nor next to each other
    guesses = np.linalg.solve(corners[sound], motion[triples[sound]])  # (guesses, 3, 2)
    misses = np.square(places[some] @ guesses - motion[some]).sum(axis=-1)
    # Cut off, so that what does not agree counts, but not how far it is off.
    best = guesses[np.minimum(misses, MOVES_PX**2).sum(axis=-1).argmin()]
    for _ in range(2):
        agrees = np.square(places @ best - motion).sum(axis=-1) < MOVES_PX**2
        best = np.linalg.lstsq(places[agrees], motion[agrees])[0]
    return (places @ best).T.reshape(field.shape)


def _neighbours(own: np.ndarray) -> Iterator[tuple]:
    """Differences of neighbours along x, then y, and where the two pixels of each lie."""
    everything, first, last = slice(None), slice(None, -1), slice(1, None)
    yield own[:, :, 1:] - own[:, :, :-1], (everything, first), (everything, last)
    yield own[:, 1:] - own[:, :-1], (first, everything), (last, everything)
