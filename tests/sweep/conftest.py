from pathlib import Path

import pytest

from tests.sweep.runs import SMALL, STRATEGIES
from thaw.cli.train import launch


@pytest.fixture(scope="session")
def solo_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Single runs in this process, by the name of the job of a sweep that must equal them."""
    runs = {}
    for strategy in STRATEGIES:
        for seed in (0, 1, 2):
            outputs = tmp_path_factory.mktemp("solo")
            assert launch([*SMALL, f"strategy={strategy}", f"seed={seed}", f"output_dir={outputs}"]) == 0
            (record,) = outputs.rglob("run.json")
            runs[f"strategy={strategy},seed={seed}"] = record.parent
    return runs
