"""Make and read compressed video: pictures, motion vectors and residuals of MPEG-4 Part 2.

A clip is a row of groups of pictures (GOPs): one I-frame, coded alone, then P-frames, each coded as
motion vectors (where every block came from) plus a residual (what the vectors could not explain).
Paper section 3.1; the reading follows CoViAR's loader, on which DMC-Net is built.
"""

from dmclib.codec.index import Packet as Packet
from dmclib.codec.index import VideoInfo as VideoInfo
from dmclib.codec.index import packets as packets
from dmclib.codec.index import probe as probe
from dmclib.codec.pictures import decode_rgb as decode_rgb
from dmclib.codec.prediction import prediction_share as prediction_share
from dmclib.codec.read import CompressedFrame as CompressedFrame
from dmclib.codec.read import read_at as read_at
from dmclib.codec.read import read_frames as read_frames
from dmclib.codec.vectors import predict as predict
from dmclib.codec.vectors import rasterize_motion_vectors as rasterize_motion_vectors
from dmclib.codec.write import encode as encode
from dmclib.codec.write import transcode as transcode
