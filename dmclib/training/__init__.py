"""Train any stream and stage: seeded, resumable, kept in a folder named by the config (4.2).

:func:`fit` trains one :class:`TrainConfig`; :mod:`dmclib.reproduce.jobs` runs many, each in a
process of its own.
"""

from dmclib.training.config import HABITS as HABITS
from dmclib.training.config import TrainConfig as TrainConfig
from dmclib.training.fitting import Scores as Scores
from dmclib.training.fitting import build_networks as build_networks
from dmclib.training.fitting import fit as fit
from dmclib.training.fitting import load_log as load_log
from dmclib.training.fitting import load_networks as load_networks
from dmclib.training.fitting import load_scores as load_scores
