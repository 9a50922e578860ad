"""Names of the directories of a sweep's jobs."""

from __future__ import annotations

import pytest

from thaw.config.compose import MAX_JOB_NAME_LENGTH, build_job_name


def test_the_name_has_the_keys_that_are_swept_over() -> None:
    command_line = ["-m", "++trainer.epochs=3", "++output_dir=/home/me/runs", "strategy=fixed,scratch", "++seed=0,1"]
    job = ["++trainer.epochs=3", "++output_dir=/home/me/runs", "hydra.verbose=true", "strategy=fixed", "++seed=1"]
    assert build_job_name(job, command_line) == "strategy=fixed,seed=1"


def test_without_a_sweep_the_name_has_all_keys_but_paths_and_presets() -> None:
    job = ["++trainer.epochs=3", "++output_dir=/home/me/runs", "hydra.verbose=true", "sweep=seeds", "launcher=joblib"]
    assert build_job_name(job, job) == "trainer.epochs=3"


@pytest.mark.parametrize(
    ("override", "name"),
    [
        ("++dataset.root=/home/me/pictures/", "dataset.root=pictures"),
        ("++head.hidden=[64,32]", "head.hidden=64-32"),
        ("++strategy.phases.unfreeze.unfreeze=['last:3']", "strategy.phases.unfreeze.unfreeze=last-3"),
        ("++strategy.phases.all.batchnorm={all: eval}", "strategy.phases.all.batchnorm=all-eval"),
        ("++optimizer.learning_rate=1e-3", "optimizer.learning_rate=1e-3"),
        ("++seed=-1", "seed=-1"),
        ("+experiment=overfit", "experiment=overfit"),
        ("~augment", "~augment"),
        ("output_dir=elsewhere", "default"),
        ("hydra/launcher=basic", "default"),
    ],
)
def test_a_name_is_a_single_readable_directory(override: str, name: str) -> None:
    assert build_job_name([override], []) == name


def test_splits_that_each_seed_draws_are_not_part_of_the_name() -> None:
    command_line = ["++seed=3,4", "++dataset.split_seed=${seed}"]
    assert build_job_name(["++seed=3", r"++dataset.split_seed=$\{seed\}"], command_line) == "seed=3"


def test_a_long_name_ends_with_a_whole_override() -> None:
    job = [f"++dataset.characters={'A' * 60}", "++optimizer.weight_decay=0.05", "++optimizer.learning_rate=0.001"]
    assert build_job_name(job, []) == f"dataset.characters={'A' * 60}"
    assert len(build_job_name([f"++dataset.characters={'A' * 300}"], [])) == MAX_JOB_NAME_LENGTH
