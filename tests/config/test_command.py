import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from thaw.config.compose import check_command, get_config_folder, parse_command, register_resolvers
from thaw.config.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def run_directory() -> str:
    with initialize_config_dir(str(get_config_folder()), version_base="1.3"):
        config = compose("config", return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        first, second = config.hydra.run.dir, config.hydra.run.dir
    assert first == second  # within one run it is one directory, whoever asks
    OmegaConf.clear_cache(config)
    return str(first)


def test_run_directories_started_in_the_same_second_have_different_names() -> None:
    register_resolvers([])
    names = {run_directory() for _ in range(40)}
    assert len(names) == 40
    assert all(Path(name).parts[0] == "outputs" for name in names)


def test_a_run_directorys_name_says_what_is_trained() -> None:
    register_resolvers([])
    assert "_captcha-tf_efficientnet_lite0-finetune_" in run_directory()


def test_each_job_of_a_sweep_is_checked() -> None:
    with pytest.raises(UserError) as told:
        check_command(parse_command(["-m", "strategy=scratch,finetune", "backbone.weights=none,default"]))
    (fault,) = told.value.problems
    assert "strategy=finetune starts from source weights" in fault.subject


def test_a_sweep_by_pattern_and_range_is_checked_like_a_list() -> None:
    check_command(parse_command(["-m", "strategy=glob(*)", "seed=range(0,2)"]))
    with pytest.raises(UserError, match="seed=-1"):
        check_command(parse_command(["-m", "strategy=glob(fi*)", "seed=range(-1,1)"]))


def test_asking_for_help_or_the_configuration_trains_nothing() -> None:
    assert parse_command(["--help"]).shows_help
    assert parse_command(["--cfg", "job"]).shows_help
    assert not parse_command(["seed=1"]).shows_help


def thaw(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "import sys; from thaw.cli.main import main; sys.exit(main())", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]], ids=["nothing", "--help", "-h"])
def test_thaw_by_itself_lists_its_commands(arguments: list[str]) -> None:
    run = thaw(*arguments)
    assert run.returncode == 0
    assert "train" in run.stdout


def test_thaw_names_the_nearest_command() -> None:
    run = thaw("trian", "seed=1")
    assert run.returncode == 2
    assert "trian" in run.stderr
    assert "fix:   thaw train" in run.stderr


def test_thaw_train_takes_what_train_py_takes() -> None:
    run = thaw("train", "strategy=fintune")
    assert run.returncode == 2
    assert "strategy=finetune" in run.stderr


def test_a_preset_of_a_sweep_asks_for_a_sweep() -> None:
    with pytest.raises(UserError, match="put -m in front: -m sweep=strategies"):
        check_command(parse_command(["sweep=strategies"]))


def test_a_preset_sweeps_over_what_the_command_line_leaves_to_it() -> None:
    assert check_command(parse_command(["-m", "sweep=strategies"])).num_jobs == 9
    assert check_command(parse_command(["-m", "sweep=strategies", "seed=4"])).num_jobs == 3
    assert check_command(parse_command(["-m", "sweep=strategies", "seed=range(0,2)", "strategy=fixed"])).num_jobs == 2


def test_a_preset_is_checked_like_what_is_typed() -> None:
    with pytest.raises(UserError, match="starts from random weights"):
        check_command(parse_command(["-m", "sweep=strategies", "backbone.weights=IMAGENET1K_V1", "backbone=resnet18"]))
