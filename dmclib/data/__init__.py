"""Data sets, which of their frames a training sees, and its batches (paper, 4.1 and 4.2)."""

from dmclib.data.datasets import GOP as GOP
from dmclib.data.datasets import Clip as Clip
from dmclib.data.datasets import Dataset as Dataset
from dmclib.data.datasets import Prepared as Prepared
from dmclib.data.datasets import PuppetActions as PuppetActions
from dmclib.data.datasets import Videos as Videos
from dmclib.data.frames import READINGS as READINGS
from dmclib.data.frames import DataConfig as DataConfig
from dmclib.data.frames import Frames as Frames
from dmclib.data.frames import Reading as Reading
from dmclib.data.frames import folder_digest as folder_digest
from dmclib.data.frames import load_frames as load_frames
from dmclib.data.frames import off_key_frame as off_key_frame
from dmclib.data.frames import reading_options as reading_options
from dmclib.data.frames import segment_centers as segment_centers
from dmclib.data.lists import SPLITS as SPLITS
