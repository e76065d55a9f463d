"""Pictures of motion and charts of numbers; only this wing imports matplotlib."""

from dmclib.figures.cues import COLUMNS as COLUMNS
from dmclib.figures.cues import Window as Window
from dmclib.figures.cues import cue_panels as cue_panels
from dmclib.figures.cues import improved_windows as improved_windows
from dmclib.figures.pictures import RESIDUAL_LEVELS as RESIDUAL_LEVELS
from dmclib.figures.pictures import accumulation as accumulation
from dmclib.figures.pictures import error_maps as error_maps
from dmclib.figures.pictures import gop_strip as gop_strip
from dmclib.figures.pictures import motion_arrows as motion_arrows
from dmclib.figures.pictures import motion_comparison as motion_comparison
from dmclib.figures.pictures import residual_picture as residual_picture
from dmclib.figures.pictures import save as save
from dmclib.figures.pictures import title_strip as title_strip
from dmclib.figures.pictures import to_rgb as to_rgb
from dmclib.figures.pictures import use_house_style as use_house_style
from dmclib.figures.steps import block_search as block_search
from dmclib.figures.steps import explorer_page as explorer_page
