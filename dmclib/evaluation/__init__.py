"""Fusion, top-1 accuracy, nearness to flow, intervals; the authors' score files (4.2)."""

from dmclib.evaluation.accuracy import accuracy_rows as accuracy_rows
from dmclib.evaluation.accuracy import called_right as called_right
from dmclib.evaluation.accuracy import clustered_interval as clustered_interval
from dmclib.evaluation.accuracy import fuse as fuse
from dmclib.evaluation.accuracy import holm as holm
from dmclib.evaluation.accuracy import mcnemar as mcnemar
from dmclib.evaluation.accuracy import metadata_baseline as metadata_baseline
from dmclib.evaluation.accuracy import paired_difference as paired_difference
from dmclib.evaluation.accuracy import ratio_interval as ratio_interval
from dmclib.evaluation.accuracy import share_interval as share_interval
from dmclib.evaluation.accuracy import top1 as top1
from dmclib.evaluation.accuracy import video_scores as video_scores
from dmclib.evaluation.accuracy import wilson_interval as wilson_interval
from dmclib.evaluation.nearness import WHOLE as WHOLE
from dmclib.evaluation.nearness import Nearness as Nearness
from dmclib.evaluation.nearness import blockiness as blockiness
from dmclib.evaluation.nearness import nearness as nearness
from dmclib.evaluation.nearness import region_masks as region_masks
from dmclib.evaluation.score_files import load_released_scores as load_released_scores
