from pathlib import Path

import pytest

from thaw.config.compose import check_command, parse_command
from thaw.config.errors import UserError

CONF = Path(__file__).resolve().parents[2] / "conf"
GLOBAL = ("experiment", "sweep", "launcher")  # groups whose files set keys of others
CHOICES = sorted(CONF.glob("*/*.yaml"))


def values_needed(choice: Path, folder: Path) -> list[str]:
    """Values for what the file leaves open with `???`."""
    answers = {
        "root": f"dataset.root={folder}",
        "name": {
            "torchvision": "backbone.name=resnet18",
            "timm": "backbone.name=resnet26",
            "torch": "optimizer.name=rmsprop",
        }.get(choice.stem, ""),
    }
    lines = choice.read_text().splitlines()
    return [answers[line.split(":")[0].strip()] for line in lines if "???" in line]


@pytest.mark.parametrize("choice", CHOICES, ids=lambda file: f"{file.parent.name}={file.stem}")
def test_every_shipped_choice_composes_with_the_defaults(choice: Path, tmp_path: Path) -> None:
    of_sweeps = ["-m"] if choice.parent.name in GLOBAL[1:] else []
    check_command(parse_command([*of_sweeps, f"{choice.parent.name}={choice.stem}", *values_needed(choice, tmp_path)]))


def test_the_defaults_are_a_whole_recipe() -> None:
    check_command(parse_command([]))


@pytest.mark.parametrize("choice", CHOICES, ids=lambda file: f"{file.parent.name}={file.stem}")
def test_a_typing_error_in_a_file_of_the_users_own_is_told(choice: Path, tmp_path: Path) -> None:
    group = choice.parent.name
    if group in GLOBAL:
        pytest.skip("its keys are those of the whole recipe")
    (tmp_path / group).mkdir()
    (tmp_path / group / "mine.yaml").write_text(f"{choice.read_text()}\nmisspelt: 1\n")
    arguments = ["--config-dir", str(tmp_path), f"{group}=mine", *values_needed(choice, tmp_path)]
    with pytest.raises(UserError, match=rf"{group}\.misspelt: no such key"):
        check_command(parse_command(arguments))


def test_a_sound_file_of_the_users_own_is_a_choice(tmp_path: Path) -> None:
    (tmp_path / "strategy").mkdir()
    (tmp_path / "strategy" / "mine.yaml").write_text((CONF / "strategy" / "fixed.yaml").read_text())
    check_command(parse_command(["--config-dir", str(tmp_path), "strategy=mine"]))
