import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from dmclib import paths, training
from dmclib.data import DataConfig
from dmclib.errors import DatasetError
from dmclib.losses import LossWeights
from dmclib.training import TrainConfig, distributed
from dmclib.training.distributed import ProcessGroup
from dmclib.training.loop import Loop

CLIPS = DataConfig(clips_per_class=(1, 1, 1), frames_per_clip=2, height=32)


def test_a_group_of_one_sums_nothing_and_waits_for_nobody():
    with distributed.join("cpu") as group:
        assert (group.rank, group.size, group.device) == (0, 1, torch.device("cpu"))
        tensor = torch.arange(3.0)
        group.sum([tensor])
        group.wait()
    assert torch.equal(tensor, torch.arange(3.0))


@pytest.mark.parametrize("shape", [(6, 4, 5, 5), (6, 4), (3, 4, 2, 5, 5)])
def test_normalisation_over_a_group_of_one_is_batch_normalisation(shape, monkeypatch):
    monkeypatch.setattr(distributed.dist, "all_reduce", lambda tensor: None)
    kind = {2: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(shape)]
    plain = kind(4, eps=0.8, momentum=0.3)
    nn.init.uniform_(plain.weight)
    nn.init.uniform_(plain.bias)
    holder = nn.Sequential(nn.Sequential(kind(4, eps=0.8, momentum=0.3)))
    holder[0][0].load_state_dict(plain.state_dict())
    distributed.share_norms(holder)
    shared = holder[0][0]
    assert isinstance(shared, distributed.GroupBatchNorm)
    x = 3 + 2 * torch.randn(shape)
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    for layer, given in ((plain, one), (shared, other)):
        (layer(given) ** 3).sum().backward()
    torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-4)
    assert plain.state_dict().keys() == shared.state_dict().keys()
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(shared.state_dict()[name], tensor)
    torch.testing.assert_close(shared.eval()(x), plain.eval()(x))


def test_a_group_larger_than_its_batches_is_refused(monkeypatch):
    group = ProcessGroup(torch.device("cpu"), rank=0, size=4)
    config = TrainConfig("motion", CLIPS, epochs=1, size=32, segments=2, clips_per_batch=3)

    class Train:
        items = range(10)

    with pytest.raises(DatasetError, match="4 processes cannot share batches of 2 clips"):
        Loop(config, training.build_networks(config, 10), Train(), group)


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one_with_the_same_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CACHE", tmp_path / "one")
    # With Adam's usual eps, a first step has the gradient's sign and any rounding in it tells.
    how = {"size": 32, "segments": 2, "clips_per_batch": 6, "epochs": 2, "eps": 1e-3}
    both = LossWeights(reconstruction=10.0)
    stage = TrainConfig("cue", CLIPS, weights=both, **how)
    training.fit(stage, device="cpu")
    alone = training.load_log(stage)

    monkeypatch.setattr(paths, "CACHE", tmp_path / "two")
    (tmp_path / "two").mkdir()
    for made in ("puppets", "frames"):
        (tmp_path / "two" / made).symlink_to(tmp_path / "one" / made)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [
        *torchrun,
        "--nproc-per-node=2",
        "-m",
        "dmclib.reproduce.jobs",
        str(stage.write()),
        "cpu",
        "1",
    ]
    environment = os.environ | {"DMC_CACHE": str(paths.CACHE), "OMP_NUM_THREADS": "1"}
    environment.pop("DMC_RUNNER_PID", None)
    subprocess.run(command, check=True, env=environment, cwd=paths.ROOT, timeout=240)
    together = training.load_log(stage)

    # The same sums in another order. At 32 px the last normalisations see a dozen values, and carry
    # rounding on: the first epoch's loss is the same to 1 in 100,000, the second's to some 1 in
    # 1,000, which differs from processor to processor.
    for name in ("loss", "classification", "reconstruction", "accuracy"):
        for alone_row, row, tolerance in zip(alone, together, (1e-5, 1e-2), strict=True):
            assert row[name] == pytest.approx(alone_row[name], rel=tolerance), name
    assert json.loads((stage.folder / "progress.json").read_text())["epochs"] == 2
