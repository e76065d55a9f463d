"""The authors' released scores, aligned, and Table 4 made from them."""

from dmclib.released.scores import COVIAR as COVIAR
from dmclib.released.scores import RELEASES as RELEASES
from dmclib.released.scores import SPLITS as SPLITS
from dmclib.released.scores import Release as Release
from dmclib.released.scores import Scores as Scores
from dmclib.released.scores import load as load
