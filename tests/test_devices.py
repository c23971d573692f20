"""A device that is not there is told before anything is loaded onto it."""

import pytest
import torch

from gigaseg.devices import choose_device, gpu_name
from gigaseg.errors import DeviceError

GPUS = torch.cuda.device_count() if torch.cuda.is_available() else 0


def test_auto_is_the_first_gpu_or_else_the_cpu():
    assert choose_device("auto") == ("cuda:0" if GPUS else "cpu")
    assert choose_device("cpu") == "cpu"


@pytest.mark.parametrize(
    "wanted", ["gpu", "", "CPU", "cuda:", "cuda:-1", "cuda:x", "mps", f"cuda:{GPUS}", "cuda:99999"]
)
def test_any_other_word_and_a_gpu_that_is_not_there_are_told_with_what_is(wanted):
    there = ", ".join(["auto", "cpu", *(f"cuda:{i}" for i in range(GPUS))])
    with pytest.raises(DeviceError, match=f"device is '{wanted}', accepted on this machine: {there}") as caught:
        choose_device(wanted)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(GPUS > 0, reason="there is a GPU")
def test_a_machine_without_a_gpu_says_so():
    with pytest.raises(DeviceError, match="device is 'cuda', accepted on this machine: auto, cpu; "):
        choose_device("cuda")


@pytest.mark.skipif(GPUS == 0, reason="no GPU")
def test_cuda_alone_is_the_first_gpu():
    assert choose_device("cuda") == "cuda:0"


def test_a_gpu_has_a_name_and_the_cpu_none():
    assert gpu_name("cpu") == ""
    assert bool(gpu_name(choose_device("auto"))) == bool(GPUS)
