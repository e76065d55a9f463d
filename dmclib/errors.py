"""What can go wrong, in a sentence each.

Every failure on a user's file or setting is a :class:`DMCError`: its message names the place, says
what was found there and what to do. All are also ``ValueError``, so that code which does not know
this package can still catch them.
"""


class DMCError(ValueError):
    """Something the user can put right; the message says how."""

    exit_code = 2  # of the ``dmc`` command


class VideoError(DMCError):
    """A video that cannot be read, or not as compressed MPEG-4 Part 2."""


class OutputError(DMCError):
    """A file that cannot be written: no space, no permission, no such place."""


class DatasetError(DMCError):
    """A data set whose folder, lists or clips are not as they should be."""


class CheckpointError(DMCError):
    """A checkpoint that is missing, damaged or of another configuration."""


class ScoreFileError(DMCError):
    """A score file that is missing, damaged or not safe to read."""


class ProfileError(DMCError):
    """A profile, parameter or notebook name that does not exist or does not fit."""
