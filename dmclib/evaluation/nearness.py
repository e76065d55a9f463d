"""How near a motion field is to flow, region by region, and whether it shows macroblocks.

The paper shows this in its Figure 5 and does not measure it. Intervals are those of
:func:`~dmclib.evaluation.accuracy.ratio_interval`: over whole clips (persons, groups or
sequences where there are some), and seeds where there are several.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dmclib import flow

WHOLE = "whole"  # the region of all pixels


@dataclass(frozen=True)
class Nearness:
    """Errors of n frames against flow in one region, kept as sums over its pixels.

    Those of several seeds may be stacked: ``(seeds, n)`` in place of ``(n,)``.

    A mean over frames weighs each pixel alike if it is made of the sums: with ``near`` and ``far``
    from two fields of the same frames,

        ratio_interval(near.epe_sum, near.pixels, clip)    # mean end-point error, px
        ratio_interval(near.epe_sum, far.epe_sum, clip)    # one mean error over the other
    """

    epe_sum: np.ndarray  # float64 (n,), px
    squared_sum: np.ndarray  # float64 (n,), px^2: squared end-point error
    pixels: np.ndarray  # int (n,), the region's

    @property
    def epe(self) -> np.ndarray:
        """End-point error of each frame, px: float64 ``(n,)``, NaN where it has no such pixel."""
        return self._mean(self.epe_sum)

    @property
    def squared(self) -> np.ndarray:
        """Squared error of each frame, px^2: float64 ``(n,)``, NaN where it has no such pixel.

        It is of both planes together: twice the mean square that equation 1 takes.
        """
        return self._mean(self.squared_sum)

    def _mean(self, sums: np.ndarray) -> np.ndarray:
        nothing = np.full(sums.shape, np.nan)
        return np.divide(sums, self.pixels, out=nothing, where=self.pixels > 0)


def region_masks(flow_fields: np.ndarray) -> dict[str, np.ndarray]:
    """:func:`flow.regions` of each of n fields ``(n, 2, H, W)``: name -> bool ``(n, H, W)``."""
    masks = [flow.regions(field) for field in flow_fields]
    return {name: np.stack([mask[name] for mask in masks]) for name in flow.REGIONS}


def nearness(
    fields: np.ndarray, flow_fields: np.ndarray, masks: Mapping[str, np.ndarray]
) -> dict[str, Nearness]:
    """Measure n fields against flow, in each region and in the whole picture.

    Args:
        fields: motion vectors, cues or estimated flow, float ``(n, 2, H, W)``, px per frame.
        flow_fields: what they are compared with, of the same shape and unit.
        masks: region -> bool ``(n, H, W)``, such as :func:`region_masks` makes once for all fields
            that are compared.

    Returns:
        One :class:`Nearness` per region, and one under ``WHOLE``, which comes first.

    Raises:
        ValueError: the shapes do not agree.
    """
    if fields.shape != flow_fields.shape:
        raise ValueError(f"Fields of {fields.shape} and flow of {flow_fields.shape} do not compare")
    frames, _, height, width = fields.shape
    wrong = {name: m.shape for name, m in masks.items() if m.shape != (frames, height, width)}
    if wrong:
        raise ValueError(f"Masks of {frames} pictures of {height} x {width} px, but {wrong}")
    squared = np.empty((frames, height, width))
    for k in range(frames):  # one by one: a test set's differences at once would fill the memory
        squared[k] = np.square(fields[k].astype(float) - flow_fields[k]).sum(axis=0)
    errors = np.sqrt(squared)
    masks = {WHOLE: np.ones(squared.shape, bool)} | dict(masks)
    measured = {}
    for name, mask in masks.items():
        epe, square = (np.einsum("nhw,nhw->n", values, mask) for values in (errors, squared))
        measured[name] = Nearness(epe, square, mask.sum(axis=(1, 2)))
    return measured


def blockiness(fields: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """How much of a field's change lies on the lines of the macroblock grid.

    The mean squared difference of neighbours across a grid line, over that of all neighbours: 1 if
    the grid cannot be seen, up to about a block's side if nothing changes elsewhere. (Over that of
    the *other* neighbours alone it would be infinite for whole 16 px blocks.)

    Args:
        fields: float ``(n, 2, H, W)``, px per frame.
        rows, columns: in which row, and column, of macroblocks each row ``(H,)`` and column
            ``(W,)`` of pixels lies: a line is where the number changes. Of a whole MPEG-4 picture
            ``np.arange(H) // 16``; cropping moves the lines, and scaling their distance.

    Returns:
        float64 ``(n,)``, at least 0. A constant field has no grid to be seen: 1.
    """
    energy, across = np.zeros((2, 2, len(fields)))  # of [all, grid lines]: sum, and how many
    for axis, blocks in ((2, rows), (3, columns)):
        change = np.square(np.diff(fields.astype(float), axis=axis))
        onto = np.diff(blocks) != 0
        for k, part in enumerate((change, np.compress(onto, change, axis=axis))):
            energy[k] += part.sum(axis=(1, 2, 3))
            across[k] += part[0].size
    every, grid = energy / across
    return np.divide(grid, every, out=np.ones(len(fields)), where=every > 0)
