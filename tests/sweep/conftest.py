from pathlib import Path

import pytest

from tests.sweep.runs import SMALL, STRATEGIES
from thaw.cli.train import launch


@pytest.fixture(scope="session")
def solo_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of their own, in this process: jobs of a sweep are to equal them."""
    found = {}
    for strategy in STRATEGIES:
        for seed in (0, 1, 2):
            outputs = tmp_path_factory.mktemp("alone")
            assert launch([*SMALL, f"strategy={strategy}", f"seed={seed}", f"output_dir={outputs}"]) == 0
            (record,) = outputs.rglob("run.json")
            found[f"strategy={strategy},seed={seed}"] = record.parent
    return found
