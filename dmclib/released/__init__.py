"""The authors' released scores, aligned, and Table 4 made from them."""

from dmclib.released.scores import RELEASES as RELEASES
from dmclib.released.scores import SPLITS as SPLITS
from dmclib.released.scores import load as load
