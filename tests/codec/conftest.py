import pytest

from dmclib import codec
from tests.codec.material import moving_pictures


@pytest.fixture(scope="package")
def clips(tmp_path_factory):
    """The same pictures as .mp4 and as bare .m4v stream."""
    folder = tmp_path_factory.mktemp("clips")
    for suffix in ("mp4", "m4v"):
        codec.encode(moving_pictures(), folder / f"clip.{suffix}")
    return folder
