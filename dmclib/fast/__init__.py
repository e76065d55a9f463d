"""The networks as fast as the machine allows, for inference; the same answers."""

from dmclib.fast.select import TOLERANCE as TOLERANCE
from dmclib.fast.select import CompiledGenerator as CompiledGenerator
from dmclib.fast.select import form as form
from dmclib.fast.stream import classify as classify
from dmclib.fast.stream import read_ahead as read_ahead
