"""Which GPUs the processes of a run use."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from thaw.system.devices import assign_gpus_from, compute_gpu_index, get_gpu_index, get_lightning_devices


@pytest.mark.parametrize(
    ("rank", "first", "count", "index"),
    [(0, 0, 4, 0), (0, 3, 4, 3), (0, 4, 4, 0), (0, 9, 4, 1), (1, 2, 4, 3), (1, 3, 4, 0), (0, 5, 1, 0), (0, 0, 0, 0)],
)
def test_gpu_numbers_wrap_around(rank: int, first: int, count: int, index: int) -> None:
    assert compute_gpu_index(rank, first, count) == index


def test_child_processes_know_the_first_gpu_of_a_job() -> None:
    for first in ("3", "4"):
        with assign_gpus_from(int(first)):
            command = [sys.executable, "-c", "import os; print(os.environ['THAW_FIRST_GPU'])"]
            assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == first
    assert "THAW_FIRST_GPU" not in os.environ


def test_cpu_devices_have_no_numbers() -> None:
    with assign_gpus_from(3):
        assert get_lightning_devices("cpu", 2) == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_job_starts_at_the_gpu_of_its_number() -> None:
    count = torch.cuda.device_count()
    with assign_gpus_from(count + 1):
        assert get_gpu_index(0) == 1 % count
        assert get_lightning_devices("gpu", 1) == [1 % count]
