"""Optical flow: the teacher's target, a picture, and the paper's eight bits.

Flow here has the same convention as motion vectors: float32, ``(2, H, W)`` = dx, dy in pixels per
frame, right and down positive, from the reference to the current frame (destination - source) and
defined at the *current* frame's pixels. So ``previous(p - flow(p))`` looks like ``current(p)``.
"""

from dmclib.flow.fields import dequantize as dequantize
from dmclib.flow.fields import endpoint_error as endpoint_error
from dmclib.flow.fields import flow_to_rgb as flow_to_rgb
from dmclib.flow.fields import quantize as quantize
from dmclib.flow.fields import warp as warp
from dmclib.flow.methods import METHODS as METHODS
from dmclib.flow.methods import Method as Method
from dmclib.flow.methods import estimate as estimate
from dmclib.flow.methods import estimate_clip as estimate_clip
from dmclib.flow.regions import REGIONS as REGIONS
from dmclib.flow.regions import regions as regions
