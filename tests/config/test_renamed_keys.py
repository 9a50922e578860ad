"""Keys of version 0.1 are rejected with their new names, on the command line and in YAML files."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import run_train_script
from thaw.config.compose import check_command, compose_recipe, parse_command
from thaw.config.errors import Problem, UserError
from thaw.config.recipe_overrides import with_overrides
from thaw.config.renamed_keys import RENAMED_KEYS, find_new_key, upgrade_recipe

# old key -> the command that sets it, and the fix with the value kept
COMMANDS = {
    "cache": (["cache=off"], "feature_cache=off"),
    "data.cache": (["data.cache=/data"], "data.cache_dir=/data"),
    "trainer.accumulate": (["trainer.accumulate=4"], "trainer.accumulate_grad_batches=4"),
    "trainer.clip_norm": (["trainer.clip_norm=1.5"], "trainer.gradient_clip_val=1.5"),
    "trainer.workers": (["+trainer.workers=2"], "trainer.num_workers=2"),
    "trainer.nodes": (["trainer=ddp", "trainer.nodes=2"], "trainer.num_nodes=2"),
    "strategy.start": (["strategy.start=source"], "strategy.init=pretrained"),
    "strategy.source_pull": (["strategy.source_pull=0.01"], "strategy.l2_sp=0.01"),
    "strategy.phases.*.share": (["strategy.phases.all.share=0.5"], "strategy.phases.all.fraction=0.5"),
    "scheduler.rise": (["scheduler.rise=0.3"], "scheduler.pct_start=0.3"),
    "scheduler.start_divisor": (["scheduler.start_divisor=10"], "scheduler.div_factor=10"),
    "scheduler.end_divisor": (["scheduler.end_divisor=1e4"], "scheduler.final_div_factor=400"),
    "scheduler.every_epochs": (["scheduler=step", "scheduler.every_epochs=3"], "scheduler.step_size=3"),
    "scheduler.factor": (["scheduler=step", "scheduler.factor=0.5"], "scheduler.gamma=0.5"),
    "scheduler.floor": (["scheduler=plateau", "scheduler.floor=0.01"], "scheduler.min_lr_ratio=0.01"),
    "scheduler.final": (["scheduler=cosine", "scheduler.final=0.01"], "scheduler.min_lr_ratio=0.01"),
    "head.initialisation": (["head.initialisation=xavier"], "head.initialization=xavier"),
    "augment.colour_jitter": (
        ["augment.colour_jitter={brightness: 0.1, contrast: 0.1, saturation: 0.1, hue: 0.1}"],
        "'augment.color_jitter={brightness: 0.1, contrast: 0.1, saturation: 0.1, hue: 0.1}'",
    ),
    "augment.random_resized_crop.centre": (
        ["augment=crop_flip", "augment.random_resized_crop.centre=0.8"],
        "augment.random_resized_crop.center=0.8",
    ),
}
FORMS = [
    (["cache.views=8"], "feature_cache.views=8"),
    (["~cache"], "~feature_cache"),
    (["~trainer.workers"], "~trainer.num_workers"),
    (["++trainer.workers=2"], "trainer.num_workers=2"),
    (["cache=offf"], "feature_cache=off"),
    (["trainer.accumulate=many"], "trainer.accumulate_grad_batches=VALUE"),
    (["scheduler.start_divisor=10", "scheduler.end_divisor=1e4"], "scheduler.final_div_factor=1000"),
    (["-m", "cache=auto,off"], "feature_cache=auto,off"),
    (["trainer.workers=0,2"], "-m trainer.num_workers=0,2"),
    (["augment.colour_jitter.hue=0.1"], "augment.color_jitter.hue=0.1"),
    (["augment=crop_flip", "augment.random_resized_crop={centre: 0.8}"], "augment.random_resized_crop.center=0.8"),
]


def find_problems_of(arguments: list[str]) -> tuple[Problem, ...]:
    with pytest.raises(UserError) as caught:
        check_command(parse_command(arguments))
    return caught.value.problems


@pytest.mark.parametrize("old_key", [key for key in RENAMED_KEYS if not key.startswith("hydra.")])
def test_an_old_key_is_rejected_with_the_new_key_and_the_value(old_key: str) -> None:
    arguments, fix = COMMANDS[old_key]
    (problem,) = find_problems_of(arguments)
    assert problem.fix == fix
    assert "version 0.1" in problem.got
    assert problem.valid
    check_command(parse_command([*arguments[:-1], *shlex.split(fix)]))


@pytest.mark.parametrize(
    ("arguments", "fix"), FORMS, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_every_form_of_an_override_keeps_its_form(arguments: list[str], fix: str) -> None:
    assert fix in [problem.fix for problem in find_problems_of(arguments)]


def test_train_py_exits_with_status_2() -> None:
    process = run_train_script("trainer.accumulate=4")
    assert process.returncode == 2
    assert "fix:   trainer.accumulate_grad_batches=4" in process.stderr


def write_preset(folder: Path, group: str, text: str) -> list[str]:
    (folder / group).mkdir()
    (folder / group / "mine.yaml").write_text(text)
    return ["--config-dir", str(folder), f"{group}=mine"]


def test_an_old_key_in_a_preset_is_rejected(tmp_path: Path) -> None:
    phases = "{a: {train: [all], learning_rate: {all: 1.0}, share: 0.5}}"
    arguments = write_preset(tmp_path, "strategy", f"name: mine\nstart: source\nphases: {phases}\n")
    fixes = [problem.fix for problem in find_problems_of(arguments)]
    assert fixes == ["strategy.phases.a.fraction=0.5", "strategy.init=pretrained"]


def test_an_old_section_in_an_experiment_is_rejected(tmp_path: Path) -> None:
    arguments = write_preset(tmp_path, "experiment", '# @package _global_\ncache: {mode: "off", views: 3}\n')
    (problem,) = find_problems_of(arguments)
    assert problem.fix == "feature_cache: {mode: off, views: 3}"


def test_an_old_group_in_a_defaults_list_is_rejected(tmp_path: Path) -> None:
    text = '# @package _global_\ndefaults:\n  - override /cache: "off"\n'
    (problem,) = find_problems_of(write_preset(tmp_path, "experiment", text))
    assert problem.fix == "override /feature_cache"


def test_an_unquoted_off_in_a_defaults_list_is_no_crash(tmp_path: Path) -> None:
    text = "# @package _global_\ndefaults:\n  - override /feature_cache: off\n"
    (problem,) = find_problems_of(write_preset(tmp_path, "experiment", text))
    assert 'quote on, off, yes and no: "off"' in problem.fix


def test_a_syntax_error_in_a_preset_names_file_and_line(tmp_path: Path) -> None:
    (problem,) = find_problems_of(write_preset(tmp_path, "trainer", "defaults: [default]\nepochs: [1\n"))
    assert problem.subject.endswith("mine.yaml:3:1")  # where the bracket is still open


@pytest.mark.parametrize(
    ("line", "fix"), [("data.cache=/data", "data.cache_dir=/data"), ("cache=off", "feature_cache.mode=off")]
)
def test_commands_for_trained_models_reject_old_keys_too(line: str, fix: str) -> None:
    with pytest.raises(UserError) as caught:
        with_overrides(compose_recipe([]), [line])
    assert [problem.fix for problem in caught.value.problems] == [fix]


def test_a_key_that_was_not_renamed_has_no_new_key() -> None:
    assert find_new_key("trainer.epochs") is None
    assert find_new_key("data.cache_dir") is None
    assert find_new_key("strategy.phases.head.share") == "strategy.phases.head.fraction"


def test_the_fix_of_a_renamed_key_means_the_same_as_the_upgraded_recipe() -> None:
    old_scheduler = {"name": "one_cycle", "start_divisor": 10, "end_divisor": 1e4}
    assert upgrade_recipe({"scheduler": old_scheduler})["scheduler"]["final_div_factor"] == 1000


def test_an_old_run_of_hymenoptera_leaves_out_the_gif_that_it_did_not_read() -> None:
    assert upgrade_recipe({"dataset": {"name": "hymenoptera"}})["dataset"]["exclude"] == ["imageNotFound.gif"]
    assert compose_recipe(["dataset=hymenoptera"]).dataset.exclude == ["imageNotFound.gif"]


@pytest.mark.parametrize(("values", "split_seed"), [({"seed": 3}, 3), ({"seed": 3, "dataset": {"split_seed": 1}}, 1)])
def test_an_old_run_keeps_the_splits_that_its_seed_drew(values: dict[str, Any], split_seed: int) -> None:
    assert upgrade_recipe({"dataset": {}} | values)["dataset"]["split_seed"] == split_seed
