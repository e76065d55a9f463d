"""Every stream and stage, trained alike: seeded, resumable, kept by what it follows from (4.2).

:func:`fit` trains one :class:`TrainConfig`; :mod:`dmclib.reproduce.jobs` runs many, each in a
process of its own.
"""

from dmclib.training.config import CLIP_NETWORKS as CLIP_NETWORKS
from dmclib.training.config import HABITS as HABITS
from dmclib.training.config import TrainConfig as TrainConfig
from dmclib.training.fitting import Networks as Networks
from dmclib.training.fitting import Scores as Scores
from dmclib.training.fitting import fit as fit
from dmclib.training.fitting import load_log as load_log
from dmclib.training.fitting import load_networks as load_networks
from dmclib.training.fitting import load_scores as load_scores
