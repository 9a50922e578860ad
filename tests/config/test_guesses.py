"""Keys and choices of other libraries are answered with what to type instead."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.conftest import run_train_script
from thaw.cli.main import main
from thaw.config.catalog import list_group_choices
from thaw.config.compose import check_command, parse_command
from thaw.config.errors import Problem, UserError
from thaw.config.guesses import CHOICE_GUESSES, KEY_GUESSES, SECTIONS, VALUE_GUESSES
from thaw.config.reference import find_fields, iter_literals
from thaw.config.schema import Recipe

FIXES = {
    "lr=0.1": "optimizer.learning_rate=0.1",
    "learning_rate=3e-4": "optimizer.learning_rate=3e-4",
    "optimizer.lr=0.1": "optimizer.learning_rate=0.1",
    "trainer.lr=0.1": "optimizer.learning_rate=0.1",
    "lr=high": "optimizer.learning_rate=VALUE",
    "lr=0.1,0.01": "-m optimizer.learning_rate=0.1,0.01",
    "weight_decay=0.1": "optimizer.weight_decay=0.1",
    "optimizer.momentum=0.9": "optimizer=sgd optimizer.arguments.momentum=0.9",
    "optimizer=SGD": "optimizer=sgd",
    "optimizer=RMSprop": "optimizer=torch optimizer.name=RMSprop",
    "scheduler=onecycle": "scheduler=one_cycle",
    "scheduler=CosineAnnealingLR": "scheduler=cosine",
    "scheduler=none": "scheduler=constant",
    "model=resnet18": "backbone=resnet18",
    "arch=resnet50": "backbone=resnet50",
    "model=resnet34": "backbone=torchvision backbone.name=resnet34",
    "model.name=vgg16": "backbone=vgg16",
    "backbone=resnet34": "backbone=torchvision backbone.name=resnet34",
    "backbone=ResNet18": "backbone=resnet18",
    "backbone=vit": "backbone=timm backbone.name=vit_small_patch16_224",
    "pretrained=true": "strategy=finetune",
    "pretrained=False": "strategy=scratch",
    "freeze=true": "strategy=fixed",
    "strategy=freeze": "strategy=fixed",
    "strategy=linear_probe": "strategy=fixed",
    "strategy=linear-probing": "strategy=fixed",
    "strategy=feature_extraction": "strategy=fixed",
    "strategy=full": "strategy=finetune",
    "strategy=fine_tune": "strategy=finetune",
    "num_classes=10": "leave it out: the classes of the data set are counted",
    "exclude=README.md": "data.exclude=README.md",
    "relabel=README.md": "data.relabel=README.md",
    "epochs=5": "trainer.epochs=5",
    "max_epochs=5": "trainer.epochs=5",
    "trainer.max_epochs=5": "trainer.epochs=5",
    "batch_size=64": "trainer.batch_size=64",
    "bs=64": "trainer.batch_size=64",
    "data.batch_size=64": "trainer.batch_size=64",
    "patience=3": "'trainer.early_stopping={patience: 3}'",
    "gpus=1": "trainer.accelerator=gpu trainer.devices=1",
    "+trainer.gpus=1": "trainer.accelerator=gpu trainer.devices=1",
    "gpus=0": "trainer.accelerator=cpu",
    "device=cuda": "trainer.accelerator=gpu",
    "precision=16": "trainer.precision=16-mixed",
    "trainer.precision=16": "trainer.precision=16-mixed",
    "trainer.accelerator=cuda": "trainer.accelerator=gpu",
    "dataset=imagefolder": "dataset=folder dataset.root=DIR",
    "dataset=cifar100": "dataset=folder dataset.root=DIR",
    "dataset=mnist": "dataset=folder dataset.root=DIR",
    "dataset=cifar": "dataset=cifar10",
    "dataset=CIFAR-10": "dataset=cifar10",
    "data=hymenoptera": "dataset=hymenoptera",
    "data_dir=my images": "dataset=folder 'dataset.root=my images'",
    "dataset.path=images": "dataset=folder dataset.root=images",
    "image_size=224": "dataset.image_size=224",
    "img_size=224": "dataset.image_size=224",
    "augmentation=randaugment": "augment=rand_augment",
    "aug=flip": "augment=flip",
    "augment=true": "augment=crop_flip",
    "ckpt_path=outputs/run": "resume=outputs/run",
    "feature_cache=false": "feature_cache=off",
    "label_smooth=0.1": "trainer.label_smoothing=0.1",  # by the closest key of the recipe
    "decay_norms_and_bias=true": "optimizer.decay_norms_and_biases=true",
    "learning_rate=inf": "optimizer.learning_rate=VALUE",
    "epochs=3": "trainer.epochs=3",
    "dataset.batch_size=8": "trainer.batch_size=8",
    "strategy=head_only": "strategy=fixed",
    "strategy=frozen": "strategy=fixed",
    "strategy=from_scratch": "strategy=scratch",
    "linear_probe=true": "strategy=fixed",
    "feature_extraction=true": "strategy=fixed",
    "head_only=true": "strategy=fixed",
    "frozen=true": "strategy=fixed",
    "full=true": "strategy=finetune",
    "from_scratch=true": "strategy=scratch",
    "data_dir=my images (2), new": "dataset=folder 'dataset.root=my images (2), new'",
    "dataset.root=my images": "dataset=folder 'dataset.root=my images'",
    "head.hidden=[8]": "head=mlp 'head.hidden=[8]'",
    "scheduler.gamma=0.1": "scheduler=step scheduler.gamma=0.1",
}
# Words that are no key=value, and options of other programs.
WORD_FIXES = {
    "--epochs 10": "trainer.epochs=10",
    "--epochs=10": "trainer.epochs=10",
    "--lr 0.1": "optimizer.learning_rate=0.1",
    "--trainer.epochs 3": "trainer.epochs=3",
    "--strategy fixed": "strategy=fixed",
    "--model resnet34": "backbone=torchvision backbone.name=resnet34",
    "--batch-size 8": "trainer.batch_size=8",
    "resnet18": "backbone=resnet18",
    "resnet34": "backbone=torchvision backbone.name=resnet34",
    "hymenoptera": "dataset=hymenoptera",
    "linear-probe": "strategy=fixed",
    "conf": "dataset=folder dataset.root=conf",
    "seed": "seed=VALUE",
}


def find_problem_of(arguments: list[str]) -> Problem:
    with pytest.raises(UserError) as caught:
        check_command(parse_command(arguments))
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(("guess", "fix"), FIXES.items(), ids=FIXES)
def test_a_guess_is_answered_with_what_to_type(guess: str, fix: str) -> None:
    problem = find_problem_of([guess])
    assert problem.fix == fix
    assert guess.lstrip("+").partition("=")[0].split(".")[-1] in problem.subject
    assert problem.valid or fix.startswith("leave it out")


@pytest.mark.parametrize(("words", "fix"), WORD_FIXES.items(), ids=WORD_FIXES)
def test_a_word_or_an_option_is_answered_with_what_to_type(words: str, fix: str) -> None:
    assert find_problem_of(words.split()).fix == fix


@pytest.mark.parametrize(
    ("command", "fix"),
    {
        "inspect resnet18": "backbone=resnet18",
        "inspect --epochs 10": "trainer.epochs=10",
        "data verify conf": "dataset=folder dataset.root=conf",
        "find lr": "thaw lr-find",
        "list models": "thaw list backbones",
    }.items(),
)
def test_other_verbs_answer_guesses_too(command: str, fix: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command.split()) == 2
    assert f"fix:   {fix}\n" in capsys.readouterr().err


@pytest.mark.parametrize("fix", sorted({*FIXES.values(), *WORD_FIXES.values()}))
def test_a_fix_can_be_typed(fix: str, tmp_path: Path) -> None:
    if "VALUE" in fix or fix.startswith(("leave it out", "resume=")):
        pytest.skip("needs a value, or is advice")
    words = [f"dataset.root={tmp_path}" if word.startswith("dataset.root=") else word for word in shlex.split(fix)]
    check_command(parse_command(words))


def test_an_unknown_data_set_is_answered_with_the_presets_and_the_way_to_a_folder() -> None:
    problem = find_problem_of(["dataset=cifar100"])
    assert "cifar10, csv" in problem.valid
    assert "a folder for each class" in problem.valid


def test_the_message_of_a_guess_is_complete() -> None:
    process = run_train_script("lr=0.1")
    assert process.returncode == 2
    assert process.stderr.splitlines() == [
        "thaw: 1 problem in the command. Nothing was started.",
        "  lr=0.1: no such key",
        "      valid: optimizer.learning_rate: number (greater than 0)",
        "      fix:   optimizer.learning_rate=0.1",
    ]


def test_a_guess_in_a_yaml_file_is_answered_too(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\nlr: 0.1\nmodel: {name: resnet34}\ntrainer: {max_epochs: 3}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        check_command(parse_command(["--config-dir", str(tmp_path), "experiment=mine"]))
    assert [problem.fix for problem in caught.value.problems] == [
        "optimizer.learning_rate=0.1",
        "backbone=torchvision backbone.name=resnet34",
        "trainer.epochs=3",
    ]


def test_keys_below_a_group_whose_choice_is_a_guess_are_not_judged() -> None:
    assert find_problem_of(["model=resnet34", "backbone.weights=none"]).fix.startswith("backbone=torchvision")


def list_targets() -> list[str]:
    """The overrides in all fixes of the tables."""
    fixes = [entry for fix in KEY_GUESSES.values() for entry in ([fix] if isinstance(fix, str) else fix.values())]
    fixes += [fix for guesses in CHOICE_GUESSES.values() for fix in guesses.values()]
    return sorted({target for fix in fixes if "=" in fix for target in shlex.split(fix)})


@pytest.mark.parametrize("target", list_targets())
def test_every_fix_names_a_key_or_a_choice_that_exists(target: str) -> None:
    key, value = target.split("=", 1)
    choices = list_group_choices()
    if key in choices:
        assert value == "{value}" or value in choices[key]
    elif not key.startswith("optimizer.arguments."):
        assert find_fields(key)


def test_no_guess_is_a_key_or_a_choice_that_exists() -> None:
    assert [key for key in KEY_GUESSES if key in Recipe.model_fields] == ["data"]  # a section, but no group
    assert [key for key in KEY_GUESSES if "." in key and find_fields(key)] == []
    choices = list_group_choices()
    normalized_choices = {group: {name.replace("_", "") for name in names} for group, names in choices.items()}
    clashes = [
        guess for group, guesses in CHOICE_GUESSES.items() for guess in guesses.keys() & normalized_choices[group]
    ]
    assert clashes == []


def test_a_key_of_the_recipe_is_no_guess_even_if_its_last_part_is() -> None:
    check_command(parse_command(["trainer.devices=2", "backbone.weights=none", "strategy=scratch"]))
    assert "trainer" in SECTIONS


def test_every_guessed_value_is_valid() -> None:
    for key, values in VALUE_GUESSES.items():
        literals = {literal for field in find_fields(key) for literal in iter_literals(field.annotation)}
        assert set(values.values()) <= literals
        assert not set(values) & literals
