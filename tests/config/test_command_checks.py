"""A whole command is checked before anything starts: paths, numbers, sweeps, Hydra's options and settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from thaw.config.compose import check_command, compose_recipe, parse_command
from thaw.config.errors import Problem, UserError
from thaw.config.job_composer import Composer
from thaw.config.literal_paths import PATH_KEYS, quote_path
from thaw.config.reference import find_fields
from thaw.config.schema_dataset import check_path

WRONG_COMMANDS = {
    # numbers
    "optimizer.learning_rate=inf": "a finite number",
    "optimizer.weight_decay=nan": "a finite number",
    "optimizer.arguments.eps=inf": "number, finite",
    "data.store_gib=inf": "a finite number",
    "trainer.threads=100000000000": "less than or equal to 1024",
    "trainer.epochs=1000000000": "less than or equal to 100000",
    "head=mlp head.hidden=[1000000000000]": "less than or equal to 16384",
    # paths
    "output_dir=~no_such_user/x": "a path; ~ is your home folder",
    "dataset=folder dataset.root=~no_such_user/x": "a path; ~ is your home folder",
    f"output_dir={'x' * 5000}": "a path of at most",
    # sweeps
    "-m seed=range(0,0)": "at least one value",
    "-m seed=range(0,1000000000)": "at most 10,000 jobs",
    "-m seed=range(0,200) dataset.train=range(1,200)": "at most 10,000 jobs",
    "-m seed=range(0,1,0)": "at most 10,000 jobs",
    "-m optimizer.learning_rate=range(0.1,inf)": "at most 10,000 jobs",
    "-m dataset=range(0,1000000000)": "captcha, cifar10",
    "-m sweep=search optimizer.learning_rate=interval(0.1,inf)": "a finite number",
    # Hydra's settings
    "hydra.run.dir=${hydra.run.dir}": "a path",
    "++notes.deeper=1": "a value that fits to the key",
    "hydra.sweeper.params=3": "a value that fits to the key",
    "seed=${seed}": "a value that fits to the key",
    "-m hydra.sweep.subdir=x seed=0,1": "${hydra.job.num}",
    "-m launcher=joblib hydra.launcher.n_jobs=0 seed=0,1": "1 to 1024, or -1",
}
REFUSED_OPTIONS = {
    "--config-path /tmp": "--config-dir DIR",
    "--shell-completion install=bash": "thaw completion bash",
    "--experimental-rerun x": "resume=DIR",
    "-m --cfg job seed=0,1": "leave -m out",
    "--cfg job --info": "leave --info out",
    "--resolve": "--cfg job --resolve",
    "--config-name nothing": "leave it out",
    "--config-dir /nope": "",
    "hydra.job.chdir=true": "leave it out",
    "hydra.mode=MULTIRUN": "leave it out: -m runs a sweep",
}


def find_problems_of(arguments: list[str]) -> tuple[Problem, ...]:
    with pytest.raises(UserError) as caught:
        check_command(parse_command(arguments))
    return caught.value.problems


@pytest.mark.parametrize(("command", "valid"), WRONG_COMMANDS.items(), ids=lambda text: text[:60])
def test_a_value_without_effect_or_sense_is_refused_with_what_is_valid(command: str, valid: str) -> None:
    (problem,) = find_problems_of(command.split())
    assert valid in problem.valid
    assert problem.fix not in (problem.subject, command)
    assert len(str(problem)) < 3000


@pytest.mark.parametrize(("command", "fix"), REFUSED_OPTIONS.items())
def test_an_option_that_thaw_does_not_have_is_refused(command: str, fix: str) -> None:
    (problem,) = find_problems_of(command.split())
    assert fix in problem.fix


def test_a_bad_value_in_the_middle_of_a_long_sweep_is_found_before_the_start() -> None:
    seeds = [*range(100), -5, *range(100, 200)]
    problems = find_problems_of(
        ["-m", f"seed={','.join(map(str, seeds))}", "trainer.epochs=1,zero", "strategy=fixed,scratch"]
    )
    assert sorted(problem.subject for problem in problems) == ["seed=-5", "trainer.epochs=zero"]


def test_a_combination_that_fails_in_a_long_sweep_is_found() -> None:
    arguments = ["-m", "seed=range(0,100)", "trainer.precision=auto,16-mixed", "trainer.accelerator=auto,cpu"]
    (problem,) = find_problems_of(arguments)
    assert problem.subject == "trainer.precision=16-mixed needs a GPU, and trainer.accelerator=cpu"


def test_many_similar_problems_are_reported_as_one() -> None:
    (problem,) = find_problems_of(["-m", "seed=range(-200,2)"])
    assert problem.subject == "seed=-200, -199, -198, ... -1"
    assert problem.got == "200 values"


def test_jobs_that_differ_in_plain_values_are_composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    composed_jobs, compose_job = list[object](), Composer.compose_job

    def count_and_compose(composer: Composer, lines: Sequence[str]) -> DictConfig:
        composed_jobs.append(lines)
        return compose_job(composer, lines)

    monkeypatch.setattr(Composer, "compose_job", count_and_compose)
    assert check_command(parse_command(["-m", "seed=range(0,100)", "head.dropout=0.0,0.5"])).num_jobs == 200
    assert len(composed_jobs) < 10


def test_values_of_a_sweep_are_merged_as_hydra_does() -> None:
    arguments = ["-m", "trainer.averaging={kind: ema, decay: 0.9},null", "trainer.gradient_clip_val=null,1.0"]
    assert check_command(parse_command([*arguments, "seed=0,1"])).num_jobs == 8
    (problem,) = find_problems_of([*arguments, "trainer.early_stopping.patience=3,0"])
    assert problem.subject == "trainer.early_stopping.patience=0"


@pytest.mark.parametrize(
    "name", ["a b (c)", "a,b", "x=1, y", "[v2]", "{a}", "it's", 'a"b', "2024", "true", "a\\", "caf\u00e9"]
)
def test_a_path_is_taken_as_it_is_typed(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    recipe = compose_recipe(["dataset=folder", f"dataset.root={tmp_path / name}", f"output_dir={name}"])
    assert recipe.dataset.root == str(tmp_path / name)  # type: ignore[union-attr]
    assert recipe.output_dir == name


def test_the_paths_of_a_sweep_are_separated_by_commas() -> None:
    assert quote_path("dataset.root=/a (1),/b c", multirun=True) == "dataset.root='/a (1)','/b c'"
    assert quote_path('dataset.root="/a,b",c', multirun=True) == 'dataset.root="/a,b",c'
    assert quote_path("dataset.root=glob(*)", multirun=True) == "dataset.root=glob(*)"


def test_a_regular_expression_is_taken_as_it_is_typed() -> None:
    for pattern in (r"(\w+/p\d{1,3})_", "([^/]+)$", r"s(\d+)-[=,'\"#]", "null"):
        overrides = parse_command(["-m", f"dataset.group_pattern={pattern}"]).overrides
        (override,) = OverridesParser.create().parse_overrides([*overrides])
        assert override.value() == (None if pattern == "null" else pattern)


@pytest.mark.parametrize("line", ["resume=null", "dataset.root='/a b'", "dataset.root=${output_dir}", "seed=a b"])
def test_what_is_no_bare_path_is_left_to_hydra(line: str) -> None:
    assert quote_path(line, multirun=False) == line


def test_path_keys_are_those_of_the_schema() -> None:
    for key in PATH_KEYS:
        fields = find_fields(key)
        assert fields or key.startswith("hydra.")
        assert all("check_path" in f"{field.annotation}{field.metadata}" for field in fields), key


def test_the_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for line in ("output_dir=~/runs", 'output_dir="~/runs"', "hydra.run.dir=~/runs/mine"):
        directory = check_command(parse_command([line])).config.hydra.run.dir
        assert directory.startswith(f"{tmp_path}/runs/")
    sweep = check_command(parse_command(["-m", "output_dir=~/runs", "seed=0,1"]))
    assert sweep.config.hydra.sweep.dir.startswith(f"{tmp_path}/runs/")
    (tmp_path / "pics").mkdir()
    compose_recipe(["dataset=folder", "dataset.root=~/pics"])


@pytest.mark.parametrize("path", ["a\0b", "x" * 256, "a/" * 2100, "~no_such_user/x"])
def test_a_path_that_no_file_system_has_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"path|byte"):
        check_path(path)


def test_a_fix_that_repeats_what_was_typed_is_left_out() -> None:
    assert Problem("seed=1", fix="seed=1").fix == ""
    (problem,) = find_problems_of(["dataset=folder", "dataset.root=DIR"])
    assert problem.fix == ""
