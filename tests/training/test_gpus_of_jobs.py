"""Which GPU a run begins with, and what its further processes take."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from thaw.training.hardware import beginning_with, devices_for, gpu, gpu_of


@pytest.mark.parametrize(
    ("rank", "first", "count", "index"),
    [(0, 0, 4, 0), (0, 3, 4, 3), (0, 4, 4, 0), (0, 9, 4, 1), (1, 2, 4, 3), (1, 3, 4, 0), (0, 5, 1, 0), (0, 0, 0, 0)],
)
def test_gpus_are_counted_round_the_machine(rank: int, first: int, count: int, index: int) -> None:
    assert gpu_of(rank, first, count) == index


def test_the_next_job_of_a_process_begins_elsewhere_and_its_further_processes_know() -> None:
    for first in ("3", "4"):
        with beginning_with(int(first)):
            asked = [sys.executable, "-c", "import os; print(os.environ['THAW_FIRST_GPU'])"]
            assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip() == first
    assert "THAW_FIRST_GPU" not in os.environ


def test_a_cpu_has_no_numbers() -> None:
    with beginning_with(3):
        assert devices_for("cpu", 2) == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_job_begins_with_the_gpu_of_its_number() -> None:
    count = torch.cuda.device_count()
    with beginning_with(count + 1):
        assert gpu(0) == 1 % count
        assert devices_for("gpu", 1) == [1 % count]
