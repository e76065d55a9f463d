"""Memory for frames that come one after another, used again instead of fetched anew."""

import math
import threading
import weakref

import numpy as np

_KEPT_BYTES = 1 << 25  # per thread: motion and residual of 25 frames of 340x256


class _Block(np.ndarray):
    """Memory as a type of its own: numpy makes a view refer to the array that owns the memory, but
    not across types. So a view of an array that lies in a block keeps that array alive.
    """


class Recycler(threading.local):
    """Makes arrays whose memory is used again once nobody holds them or a view of them.

    Filling a frame's arrays takes less time than fetching their memory from the system, which comes
    page by page, in no cache, and is given back as often.
    """

    def __init__(self):
        # Each with a weak reference to the array in it; those used last, which caches hold, behind.
        self._blocks: list[tuple[_Block, weakref.ref]] = []

    def empty(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """An array of any values, as of ``np.empty``."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        for n in reversed(range(len(self._blocks))):
            block, user = self._blocks[n]
            if block.size == size and user() is None:
                del self._blocks[n]
                break
        else:
            block = _Block(size, np.uint8)
        array = np.ndarray(shape, dtype, block)
        self._blocks.append((block, weakref.ref(array)))
        while sum(block.size for block, _ in self._blocks) > _KEPT_BYTES:
            del self._blocks[0]
        return array


RECYCLED = Recycler()
