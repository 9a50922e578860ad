"""Classes that a run or a sweep from a file names: nothing of another package is imported without --trust."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.comparison.records import build_recipe
from thaw.cli.main import main
from thaw.cli.train import launch
from thaw.config.compose import compose_recipe
from thaw.config.errors import UserError
from thaw.runs.lifecycle import check_trusted, format_resume_command

EVIL_MODULE = 'from pathlib import Path\nPath("imported").touch()\n'


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file that appears when the module `evil_optimizers` is imported."""
    (tmp_path / "evil_optimizers.py").write_text(EVIL_MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "imported"


def write_interrupted_run(directory: Path, optimizer: str) -> Path:
    directory.mkdir(parents=True)
    recipe = dict(build_recipe("strategy=scratch"))
    recipe["optimizer"] = recipe["optimizer"] | {"name": optimizer, "arguments": {}}
    (directory / "config.yaml").write_text(yaml.safe_dump(recipe))
    (directory / "run.json").write_text(json.dumps({"status": "interrupted"}))
    return directory


@pytest.mark.parametrize("command", ["thaw resume", "train.py resume="])
def test_a_foreign_run_imports_nothing(
    command: str, module: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_interrupted_run(tmp_path / "run", "evil_optimizers.Lion")
    status = main(["resume", str(run)]) if command == "thaw resume" else launch([f"resume={run}"])
    assert status == 2
    errors = capsys.readouterr().err
    assert "optimizer.name=evil_optimizers.Lion" in errors
    assert f"fix:   thaw resume {run} --trust" in errors
    assert not module.exists()
    assert json.loads((run / "run.json").read_text()) == {"status": "interrupted"}


@pytest.mark.parametrize("name", ["adamw", "SGD", "torch.optim.Adam", "timm.optim.Lamb"])
def test_optimizers_of_torch_and_timm_are_always_fine(name: str) -> None:
    recipe = compose_recipe(["strategy=scratch", "optimizer=torch", f"optimizer.name={name}"])
    check_trusted(recipe, trust=False, command="")


def test_an_own_run_is_continued_with_the_option(tmp_path: Path) -> None:
    own_run = write_interrupted_run(tmp_path / "own", "my_optimizers.Lion")
    assert format_resume_command(own_run) == f"python train.py resume={own_run} --trust"
    run = write_interrupted_run(tmp_path / "run", "adamw")
    assert format_resume_command(run) == f"python train.py resume={run}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "strategy=scratch", "seed=0,1", "optimizer=torch", "optimizer.name=evil_optimizers.Lion"],
        [
            "-m",
            "strategy=scratch",
            "seed=0,1",
            "+hydra.callbacks.evil._target_=os.system",
            "+hydra.callbacks.evil.command=touch",
        ],
        ["-m", "strategy=scratch", "seed=0,1", "hydra.launcher._target_=evil_optimizers.Launcher"],
        ["-m", "strategy=scratch", "seed=0,1", "hydra.searchpath=[pkg://evil_optimizers]"],
    ],
)
def test_a_foreign_sweep_executes_nothing(
    arguments: list[str], module: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.json").write_text(json.dumps({"arguments": arguments, "jobs": 2}))
    assert main(["resume", str(tmp_path / "sweep")]) == 2
    assert not module.exists()
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir()) == ["sweep.json"]
    assert "Traceback" not in capsys.readouterr().err


def test_trust_lets_the_recipe_pass() -> None:
    recipe = compose_recipe(["strategy=scratch", "optimizer=torch", "optimizer.name=json.Lion"])
    check_trusted(recipe, trust=True, command="")
    with pytest.raises(UserError, match="--trust"):
        check_trusted(recipe, trust=False, command="thaw resume RUN")
