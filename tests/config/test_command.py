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


def compose_run_directory() -> str:
    with initialize_config_dir(str(get_config_folder()), version_base="1.3"):
        config = compose("config", return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        first, second = config.hydra.run.dir, config.hydra.run.dir
    assert first == second  # every access within a run gives the same directory
    OmegaConf.clear_cache(config)
    return str(first)


def test_run_directories_started_in_the_same_second_have_different_names() -> None:
    register_resolvers([])
    names = {compose_run_directory() for _ in range(40)}
    assert len(names) == 40
    assert all(Path(name).parts[0] == "outputs" for name in names)


def test_the_name_of_a_run_directory_says_what_is_trained() -> None:
    register_resolvers([])
    assert "_captcha-tf_efficientnet_lite0-finetune_" in compose_run_directory()


def test_each_job_of_a_sweep_is_checked() -> None:
    with pytest.raises(UserError) as caught:
        check_command(parse_command(["-m", "strategy=scratch,finetune", "backbone.weights=none,default"]))
    (problem,) = caught.value.problems
    assert "strategy=finetune starts from source weights" in problem.subject


def test_a_sweep_by_pattern_and_range_is_checked_like_a_list() -> None:
    check_command(parse_command(["-m", "strategy=glob(*)", "seed=range(0,2)"]))
    with pytest.raises(UserError, match="seed=-1"):
        check_command(parse_command(["-m", "strategy=glob(fi*)", "seed=range(-1,1)"]))


def test_asking_for_help_or_the_configuration_trains_nothing() -> None:
    assert parse_command(["--help"]).shows_help
    assert parse_command(["--cfg", "job"]).shows_help
    assert not parse_command(["seed=1"]).shows_help


def run_thaw(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "import sys; from thaw.cli.main import main; sys.exit(main())", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]], ids=["nothing", "--help", "-h"])
def test_thaw_without_arguments_lists_its_commands(arguments: list[str]) -> None:
    process = run_thaw(*arguments)
    assert process.returncode == 0
    assert "train" in process.stdout


def test_thaw_names_the_nearest_command() -> None:
    process = run_thaw("trian", "seed=1")
    assert process.returncode == 2
    assert "trian" in process.stderr
    assert "fix:   thaw train" in process.stderr


def test_thaw_train_takes_the_arguments_of_train_py() -> None:
    process = run_thaw("train", "strategy=fintune")
    assert process.returncode == 2
    assert "strategy=finetune" in process.stderr


def test_a_preset_of_a_sweep_needs_a_sweep() -> None:
    with pytest.raises(UserError, match="put -m in front: -m sweep=strategies"):
        check_command(parse_command(["sweep=strategies"]))


def test_a_preset_sweeps_over_the_keys_that_the_command_line_does_not_set() -> None:
    assert check_command(parse_command(["-m", "sweep=strategies"])).num_jobs == 9
    assert check_command(parse_command(["-m", "sweep=strategies", "seed=4"])).num_jobs == 3
    assert check_command(parse_command(["-m", "sweep=strategies", "seed=range(0,2)", "strategy=fixed"])).num_jobs == 2


def test_a_preset_is_checked_like_overrides() -> None:
    with pytest.raises(UserError, match="starts from random weights"):
        check_command(parse_command(["-m", "sweep=strategies", "backbone.weights=IMAGENET1K_V1", "backbone=resnet18"]))
