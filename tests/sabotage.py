"""Trouble for a worker; a file of its own, because a worker loads all that this one imports."""

import os
from pathlib import Path

from dmclib import codec
from dmclib.prepare import video


def make(acts: dict[str, str], task):
    """Do as ``video.make``, but run code before a video is transcoded: file's stem -> code."""
    transcode = codec.transcode

    def bad(source, *rest, **settings):
        exec(acts.get(Path(source).stem, ""), {"os": os})
        transcode(source, *rest, **settings)

    codec.transcode = bad
    try:
        return video.make(task)
    finally:
        codec.transcode = transcode
