"""TV-L1 optical flow of many frame pairs at once, in torch: the paper's teacher, on any device.

Source: Zach, Pock and Bischof, "A duality based approach for realtime TV-L1 optical flow" (DAGM
2007), in the discretisation of Sanchez, Meinhardt-Llopis and Facciolo (IPOL 2013,
doi:10.5201/ipol.2013.26), with a median filter between the warps (Wedel et al., "An improved
algorithm for TV-L1 optical flow", 2009). Weights and scales are OpenCV's defaults for
``DualTVL1OpticalFlow``, so that the two agree; ``benchmarks/flow.py`` measures how closely.

The flow u minimises the sum of ``|grad u|``, over both components, and
``LAMBDA * |I1(x + u) - I0(x)|``. Each warp linearises I1 around the present flow; its steps
alternate between the brightness term, solved pixel by pixel, and the smoothness term, by gradient
ascent on its dual variable p.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dmclib.errors import DMCError

TAU, LAMBDA, THETA = 0.25, 0.15, 0.3  # time step, weight of brightness (0 to 255), coupling
SCALES, FACTOR, SMALLEST = 5, 0.8, 16  # the pyramid; no scale has a side under SMALLEST px
WARPS = 5  # per scale
# Per warp. OpenCV stops when a step changes the flow by 0.01 px or less: here after 19 steps on
# average (four pairs of real clips). A fixed number spares a GPU the wait for the values, and keeps
# a pair's flow independent of the other pairs.
STEPS = 20

# Compare and exchange: the smaller value goes to the first index, the larger to the second.
_SORT = ((0, 3), (1, 4), (0, 2), (1, 3), (0, 1), (2, 4), (1, 2), (3, 4), (2, 3))  # five values
# Brings the median of 5 x 5 values that ascend along rows and columns to index 17. A test tries
# every input of zeros and ones, which proves it for all inputs.
_SELECT = (
    *((11, 15), (17, 21), (3, 7), (13, 16), (7, 13), (8, 15), (17, 15), (9, 13)),
    *((4, 12), (17, 9), (12, 9), (4, 17), (20, 12), (17, 12), (20, 17)),
)
_MEDIAN = 17


@torch.no_grad()
def estimate(previous: Tensor, current: Tensor) -> Tensor:
    """Flow between batches of successive grey frames, ``(N, H, W)``, 0 to 255 in any number type.

    Returns float32 ``(N, 2, H, W)``, pixels per frame, in the convention of :mod:`dmclib.flow`, on
    the device of the frames.

    Raises:
        DMCError: the two are not batches of grey frames of one size.
    """
    if previous.shape != current.shape or previous.ndim != 3 or not previous.numel():
        raise DMCError(
            "TV-L1 needs two batches of grey frames of one size (N, H, W); got "
            f"{tuple(previous.shape)} and {tuple(current.shape)}."
        )
    # The paper's flow is defined at I0 and points to I1. With I0 = current and I1 = previous it is
    # given at the current pixels, as ours is, with the opposite sign.
    first, second = current.float()[:, None], previous.float()[:, None]
    # A core's caches hold one pair, not sixteen; a GPU is only filled by many.
    together = 1 if first.device.type == "cpu" else len(first)
    parts = zip(first.split(together), second.split(together), strict=True)
    return -torch.cat([_coarse_to_fine(*part) for part in parts])


def _coarse_to_fine(first: Tensor, second: Tensor) -> Tensor:
    pyramid = [(first, second)]
    while len(pyramid) < SCALES:
        size = [round(side * FACTOR) for side in pyramid[-1][0].shape[2:]]
        if min(size) < SMALLEST:
            break
        pyramid.append(tuple(F.interpolate(one, size, mode="bilinear") for one in pyramid[-1]))
    flow = torch.zeros_like(pyramid[-1][0]).repeat(1, 2, 1, 1)
    for i0, i1 in reversed(pyramid):
        (height, width), (rows, columns) = flow.shape[2:], i0.shape[2:]
        flow = F.interpolate(flow, (rows, columns), mode="bilinear")
        flow[:, 0] *= columns / width  # pixels of this scale
        flow[:, 1] *= rows / height
        flow = _one_scale(i0, i1, flow)
    return flow


def _one_scale(i0: Tensor, i1: Tensor, flow: Tensor) -> Tensor:
    """Refine ``flow`` (N, 2, H, W) between pictures (N, 1, H, W)."""
    ringed = F.pad(i1, (1, 1, 1, 1), mode="replicate")
    slope_x = (ringed[:, :, 1:-1, 2:] - ringed[:, :, 1:-1, :-2]) / 2
    slope_y = (ringed[:, :, 2:, 1:-1] - ringed[:, :, :-2, 1:-1]) / 2
    planes = torch.cat([i1, slope_x, slope_y], 1)
    # In units of THETA / TAU pixels the dual step needs no factors.
    unit = THETA / TAU
    dual = flow.new_zeros(2, *flow.shape)  # of the derivatives along x, then along y
    ahead = torch.zeros_like(dual)  # forward differences; the last column and row stay zero
    length = torch.empty_like(flow)
    for _ in range(WARPS):
        flow = median_5x5(flow)
        warped = _warp(planes, flow)
        slope = warped[:, 1:]
        # rho(u) = I1(x + u0) + <slope, u - u0> - I0, divided by |slope|^2; where it is flat, the
        # brightness says nothing and nothing is pulled.
        steepness = slope.square().sum(1, keepdim=True)
        inverse = torch.where(steepness > 1e-9, 1 / steepness, 0)
        constant = (warped[:, :1] - i0 - (slope * flow).sum(1, keepdim=True)) * inverse
        by_flow = slope * (inverse * unit)
        pull = slope / unit
        flow = flow / unit
        miss = torch.empty_like(constant)
        for _ in range(STEPS):
            _step(flow, dual, constant, by_flow, pull, ahead, length, miss)
        flow *= unit
    return flow


def _step(flow, dual, constant, by_flow, pull, ahead, length, miss) -> None:
    """Update the flow and its dual in place; the last three arguments are scratch memory."""
    # v = u - pull * clip(rho / |slope|^2): equation 15 of Zach et al. without its three cases.
    torch.addcmul(constant, by_flow[:, :1], flow[:, :1], out=miss)
    miss.addcmul_(by_flow[:, 1:], flow[:, 1:]).clamp_(-LAMBDA * THETA, LAMBDA * THETA)
    flow.addcmul_(pull, miss, value=-1)
    # u = v + THETA * div p, by backward differences.
    x, y = dual
    flow.add_(x, alpha=TAU).add_(y, alpha=TAU)
    flow[..., 1:].sub_(x[..., :-1], alpha=TAU)
    flow[..., 1:, :].sub_(y[..., :-1, :], alpha=TAU)
    # p = (p + TAU / THETA * grad u) / (1 + TAU / THETA * |grad u|), by forward differences.
    torch.sub(flow[..., 1:], flow[..., :-1], out=ahead[0, ..., :-1])
    torch.sub(flow[..., 1:, :], flow[..., :-1, :], out=ahead[1, ..., :-1, :])
    torch.mul(ahead[0], ahead[0], out=length)
    length.addcmul_(ahead[1], ahead[1]).sqrt_().add_(1)
    dual.add_(ahead).div_(length)


def _warp(planes: Tensor, flow: Tensor) -> Tensor:
    """Look ``planes`` (N, C, H, W) up at ``pixel + flow``, bicubic; the border repeats."""
    height, width = flow.shape[2:]
    x = torch.arange(width, device=flow.device) + flow[:, 0]
    y = torch.arange(height, device=flow.device)[:, None] + flow[:, 1]
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    return F.grid_sample(planes, grid, mode="bicubic", padding_mode="border", align_corners=False)


def median_5x5(planes: Tensor) -> Tensor:
    """Replace each value of (N, C, H, W) by the median of the 5 x 5 around it; the border repeats.

    Minima and maxima of whole planes are forty times as fast as sorting at each pixel.
    """
    height, width = planes.shape[2:]
    ringed = F.pad(planes, (2, 2, 2, 2), mode="replicate")
    rows = [ringed[:, :, k : k + height] for k in range(5)]
    for a, b in _SORT:  # down the columns, once for the five windows that each is part of
        rows[a], rows[b] = torch.minimum(rows[a], rows[b]), torch.maximum(rows[a], rows[b])
    window = [row[..., k : k + width] for row in rows for k in range(5)]
    for a, b, smaller, larger in _PROGRAM:
        one, other = window[a], window[b]
        window[a] = torch.minimum(one, other) if smaller else None
        window[b] = torch.maximum(one, other) if larger else None
    return window[_MEDIAN]


def _program() -> list[tuple[int, int, bool, bool]]:
    """Sort the rows, then select; of each exchange only the half that the median depends on."""
    network = [(5 * row + a, 5 * row + b) for row in range(5) for a, b in _SORT] + [*_SELECT]
    needed, program = {_MEDIAN}, []
    for a, b in reversed(network):
        if a in needed or b in needed:
            program.append((a, b, a in needed, b in needed))
            needed |= {a, b}
    return program[::-1]


_PROGRAM = _program()
