from pathlib import Path

import pytest

from thaw.config.compose import check_command, parse_command
from thaw.config.errors import UserError

CONF = Path(__file__).resolve().parents[2] / "conf"
GLOBAL_GROUPS = ("experiment", "sweep", "launcher")  # their files set keys of other groups
CHOICES = sorted(CONF.glob("*/*.yaml"))


def list_required_overrides(choice: Path, folder: Path) -> list[str]:
    """Return overrides for the keys that the file leaves open with `???`."""
    override_by_key = {
        "root": f"dataset.root={folder}",
        "name": {
            "torchvision": "backbone.name=resnet18",
            "timm": "backbone.name=resnet26",
            "torch": "optimizer.name=rmsprop",
        }.get(choice.stem, ""),
    }
    lines = choice.read_text().splitlines()
    return [override_by_key[line.split(":")[0].strip()] for line in lines if "???" in line]


@pytest.mark.parametrize("choice", CHOICES, ids=lambda file: f"{file.parent.name}={file.stem}")
def test_every_shipped_choice_composes_with_the_defaults(choice: Path, tmp_path: Path) -> None:
    options = ["-m"] if choice.parent.name in GLOBAL_GROUPS[1:] else []
    check_command(
        parse_command([*options, f"{choice.parent.name}={choice.stem}", *list_required_overrides(choice, tmp_path)])
    )


def test_the_defaults_are_a_valid_recipe() -> None:
    check_command(parse_command([]))


@pytest.mark.parametrize("choice", CHOICES, ids=lambda file: f"{file.parent.name}={file.stem}")
def test_a_misspelt_key_in_a_file_of_the_user_is_reported(choice: Path, tmp_path: Path) -> None:
    group = choice.parent.name
    if group in GLOBAL_GROUPS:
        pytest.skip("its keys are those of the whole recipe")
    (tmp_path / group).mkdir()
    (tmp_path / group / "mine.yaml").write_text(f"{choice.read_text()}\nmisspelt: 1\n")
    arguments = ["--config-dir", str(tmp_path), f"{group}=mine", *list_required_overrides(choice, tmp_path)]
    with pytest.raises(UserError, match=rf"{group}\.misspelt: no such key"):
        check_command(parse_command(arguments))


def test_a_valid_file_of_the_user_is_a_choice(tmp_path: Path) -> None:
    (tmp_path / "strategy").mkdir()
    (tmp_path / "strategy" / "mine.yaml").write_text((CONF / "strategy" / "fixed.yaml").read_text())
    check_command(parse_command(["--config-dir", str(tmp_path), "strategy=mine"]))
