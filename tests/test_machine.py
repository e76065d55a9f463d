import socket

import pytest
import torch

from dmclib import machine
from dmclib.errors import DMCError


def test_the_machine_is_described_without_saying_whose_it_is():
    facts = machine.describe()
    assert facts["cores"] >= 1
    assert facts["threads"] == torch.get_num_threads()
    assert facts["torch"] == torch.__version__
    assert (facts["gpu"] is None) != torch.cuda.is_available()
    text = " ".join(map(str, facts.values()))
    assert socket.gethostname() not in text
    assert "/" not in text.replace(facts["cpu"], "")


def test_the_gpu_is_chosen_where_there_is_one(monkeypatch):
    for there, device in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert machine.choose_device() == device


def test_a_device_that_is_not_there_is_refused_with_those_that_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert machine.choose_device("cuda:1") == "cuda:1"
    with pytest.raises(DMCError, match="no device 'cuda:2' here: choose auto or cpu, cuda, cuda:0"):
        machine.choose_device("cuda:2")
