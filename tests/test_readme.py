"""Every command in the README does what it says. Trainings are made small by overrides behind them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.comparison.records import write_run
from tests.conftest import ROOT, TINY, only_run, typed
from tests.images import image_folder
from thaw.cli import main
from thaw.config.command import checked, parsed
from thaw.launch import launch

README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
COMMANDS = sorted({line.split("#")[0].strip() for line in SHELL.splitlines() if line.split("#")[0].strip()})
TRAININGS = [line for line in COMMANDS if line.startswith("python train.py") and "--" not in line]
VERBS = [line for line in COMMANDS if line.startswith("thaw ")]
NEEDS_FETCHING = ("resnet50", "convnext", "vit_", "hymenoptera")
ELSEWHERE = {
    "resume": "tests/sweep/test_sweep.py takes up a sweep that was killed",
    "dashboard": "tests/commands/test_dashboard.py starts it and looks at it",
}
SMALL = ("trainer.epochs=2", "trainer.batch_size=8", "trainer.accelerator=cpu", "trainer.threads=1")


def test_the_readme_has_commands() -> None:
    assert len(TRAININGS) >= 8
    assert {"make train", "make test"} <= set(COMMANDS)


@pytest.mark.parametrize("line", TRAININGS)
def test_a_training_of_the_readme_runs(line: str, tmp_path: Path) -> None:
    words = shlex.split(line)[2:]
    if any("resume=" in word for word in words):
        pytest.skip("tests/training/test_resume.py interrupts a run first")
    data = image_folder(tmp_path / "data", {"train": 5, "test": 2}, classes=("ants", "bees"))
    listed = [path.relative_to(data).as_posix() for path in sorted(data.rglob("*.png"))]
    (data / "labels.csv").write_text("path,label\n" + "".join(f"{path},{path.split('/')[1]}\n" for path in listed))
    arguments = [word.replace("root=DIR", f"root={data}") for word in words]
    if any(word.startswith("dataset=hymenoptera") for word in words):
        layout = image_folder(tmp_path / "official", {"train": 6, "val": 3}, classes=("ants", "bees"))
        arguments.append(f"dataset.root={layout}")
    small = SMALL if any(word.startswith("dataset=") for word in words) else TINY
    small = tuple(one for one in small if one.split("=")[0] not in {word.split("=")[0] for word in words})
    if any(name in line for name in NEEDS_FETCHING[:3]):  # the same network from random weights: nothing to fetch
        arguments = [word for word in arguments if not word.startswith("strategy=")] + ["strategy=scratch"]
        small = tuple(one for one in small if "image_size" not in one)
    extra = [f"output_dir={tmp_path / 'outputs'}"]
    if "-m" in words:
        extra.append("trainer.epochs=1")
        small = tuple(one for one in small if not one.startswith("trainer.epochs"))
    if any(word.startswith("sweep=") for word in words):
        extra.extend(["seed=0", "dataset.image_size=32"])
        small = tuple(one for one in small if not one.startswith("dataset.image_size"))
    assert launch([*arguments, *small, *extra]) == 0


@pytest.mark.parametrize("line", TRAININGS)
def test_a_training_of_the_readme_is_a_valid_command_as_it_stands(line: str, tmp_path: Path) -> None:
    words = [word.replace("root=DIR", f"root={tmp_path}") for word in shlex.split(line)[2:]]
    if not any("resume=" in word for word in words):
        checked(parsed(words))


@pytest.mark.parametrize("line", VERBS)
def test_a_verb_of_the_readme_runs(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SWEEP/0", "RUN"):
        write_run(tmp_path / "outputs" / name)
    words = [word.replace("hymenoptera", "captcha") for word in shlex.split(line)]
    if words[1] in ELSEWHERE:
        pytest.skip(ELSEWHERE[words[1]])
    of_data = [one for one in TINY if one.startswith("dataset.") and words[1] != "inspect"]
    small = {
        "list": [],
        "cache": [],
        "compare": [],
        "probe": [*of_data, f"output_dir={tmp_path}"],
        "find": [*TINY, f"output_dir={tmp_path}", "steps=30" if "learning_rate" in words else "highest=8"],
    }
    monkeypatch.setattr("sys.argv", [*words, *small.get(words[1], of_data)])
    assert main() == 0


def test_the_faults_shown_are_those_that_are_told() -> None:
    shown = re.search(r"```text\n\$ python train.py (.*?)\n(.*?)```", README, re.DOTALL)
    assert shown is not None
    assert typed(*shlex.split(shown[1])).stderr == shown[2]


def test_the_help_shown_is_there() -> None:
    assert "Groups and their choices" in typed("--help").stdout


def test_pictures_and_pages_that_the_readme_names_exist() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    local = [target for target in targets if not target.startswith("http")]
    assert local
    assert [target for target in local if not (ROOT / target).is_file()] == []


def test_a_run_is_found_by_tensorboard(tmp_path: Path) -> None:
    assert launch([*TINY, "trainer.epochs=1", f"output_dir={tmp_path}"]) == 0
    assert list((only_run(tmp_path) / "tensorboard").glob("events.out.tfevents.*"))
