"""What every test file shares."""

import pytest
import torch

from dmclib import paths


@pytest.fixture
def shared_data():
    """The folder of real clips; the test is skipped where it is absent."""
    folder = paths.data_root()
    if folder is None:
        pytest.skip("real clips not found: set DMC_SHARED_DATA to their folder")
    return folder


@pytest.fixture
def house_style():
    """Draw in the house style, without a screen, and leave matplotlib as it was."""
    import matplotlib
    import matplotlib.pyplot as plt

    from dmclib import figures

    matplotlib.use("Agg")
    with plt.rc_context():
        figures.use_house_style()
        yield


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Small tensors are quicker on one thread, and sums have one order."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_random_state():
    """Seed torch before a test and restore its random state after, so order does not matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
