"""Pictures of motion and charts of numbers; only this wing imports matplotlib."""

from dmclib.figures.pictures import RESIDUAL_LEVELS as RESIDUAL_LEVELS
from dmclib.figures.pictures import Mark as Mark
from dmclib.figures.pictures import accumulation as accumulation
from dmclib.figures.pictures import cue_panels as cue_panels
from dmclib.figures.pictures import error_changes as error_changes
from dmclib.figures.pictures import gop_strip as gop_strip
from dmclib.figures.pictures import motion_arrows as motion_arrows
from dmclib.figures.pictures import motion_comparison as motion_comparison
from dmclib.figures.pictures import residual_picture as residual_picture
from dmclib.figures.pictures import save as save
from dmclib.figures.pictures import title_strip as title_strip
from dmclib.figures.pictures import to_rgb as to_rgb
from dmclib.figures.pictures import use_house_style as use_house_style
