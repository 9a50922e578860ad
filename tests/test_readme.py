"""Every command in the README does what it says. Trainings are made small by overrides behind them."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.comparison.records import write_run
from tests.conftest import ROOT, TINY, only_run, thaw, typed
from tests.images import image_folder
from thaw.cli.train import launch
from thaw.config.compose import check_command, parse_command

README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
COMMANDS = sorted({line.split("#")[0].strip() for line in SHELL.splitlines() if line.split("#")[0].strip()})
TRAININGS = [line for line in COMMANDS if line.startswith("python train.py") and "--" not in line]
VERBS = [line for line in COMMANDS if line.startswith("thaw ")]
NEEDS_FETCHING = ("resnet50", "convnext", "vit_", "hymenoptera")
ELSEWHERE = {
    "resume=": "tests/training/test_resume.py interrupts a run first",
    "launcher=": "tests/sweep/test_launchers.py runs jobs in other processes",
    "trainer=ddp": "tests/training/test_devices.py trains in two processes",
    "thaw resume": "tests/sweep/test_sweep.py takes up a sweep that was killed",
    "thaw dashboard": "tests/commands/test_dashboard.py starts it and looks at it",
}
AFTER_TRAINING = ("evaluate", "predict", "explain", "export")
SMALL = ("trainer.epochs=2", "trainer.batch_size=8", "trainer.accelerator=cpu", "trainer.threads=1")


def is_long(line: str) -> bool:
    """Large networks from random weights, and nine jobs."""
    return any(name in line for name in ("resnet50", "vit_", "finetune seed=0,1,2"))


def skip_what_others_run(line: str) -> None:
    for words, where in ELSEWHERE.items():
        if words in line:
            pytest.skip(where)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands after a training name: runs, a checkpoint alone, pictures."""
    folder = tmp_path_factory.mktemp("places")
    data = image_folder(folder / "DIR", {"train": 5, "val": 2, "test": 3}, classes=("ants", "bees"))
    mine = ("dataset=folder", f"dataset.root={data}", "dataset.image_size=32", *SMALL)
    for name, recipe in (("captchas", TINY), ("mine", mine)):
        assert launch([*recipe, "strategy=fixed", f"output_dir={folder / name}"]) == 0
    shutil.copytree(only_run(folder / "captchas"), folder / "outputs" / "RUN")
    shutil.copy(only_run(folder / "mine") / "checkpoints" / "best.ckpt", folder)
    shutil.copytree(data / "test" / "ants", folder / "photos")
    shutil.copy(next((folder / "photos").iterdir()), folder / "IMAGE")
    shutil.rmtree(folder / "captchas")
    return folder


def test_the_readme_has_commands() -> None:
    assert len(TRAININGS) >= 8
    assert {"make train", "make test"} <= set(COMMANDS)


@pytest.mark.parametrize("line", [pytest.param(one, marks=[pytest.mark.long] * is_long(one)) for one in TRAININGS])
def test_a_training_of_the_readme_runs(line: str, tmp_path: Path) -> None:
    words = shlex.split(line)[2:]
    skip_what_others_run(line)
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
        small = tuple(one for one in small if "image_size" not in one or "vit_" not in line)
    extra = [f"output_dir={tmp_path / 'outputs'}"]
    if "-m" in words:
        extra.append("trainer.epochs=1")
        small = tuple(one for one in small if not one.startswith("trainer.epochs"))
    if "sweep=search" in words:
        extra.extend(["hydra.sweeper.trials=2", "strategy=fixed"][: 2 - any("strategy=" in word for word in words)])
    elif any(word.startswith("sweep=") for word in words):
        extra.extend(["seed=0", "dataset.image_size=32"])
        small = tuple(one for one in small if not one.startswith("dataset.image_size"))
    assert launch([*arguments, *small, *extra]) == 0


@pytest.mark.parametrize("line", TRAININGS)
def test_a_training_of_the_readme_is_a_valid_command_as_it_stands(line: str, tmp_path: Path) -> None:
    words = [word.replace("root=DIR", f"root={tmp_path}") for word in shlex.split(line)[2:]]
    if not any("resume=" in word for word in words):
        check_command(parse_command(words))


@pytest.mark.parametrize("line", [line for line in VERBS if line.split()[1] in AFTER_TRAINING])
def test_a_command_after_a_training_runs(line: str, places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(places)
    if "--captcha" in line and not (places / "captchas").exists():
        assert thaw(monkeypatch, "data", "captchas", "out=captchas", "count=2") == 0
    of_machine = ["trainer.accelerator=cpu", "trainer.threads=1"] if " evaluate " in line else []
    assert thaw(monkeypatch, *shlex.split(line)[1:], *of_machine) == 0


@pytest.mark.parametrize("line", [line for line in VERBS if line.split()[1] not in AFTER_TRAINING])
def test_a_verb_of_the_readme_runs(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_what_others_run(line)
    monkeypatch.chdir(tmp_path)
    for name in ("SWEEP/0", "RUN"):
        write_run(tmp_path / "outputs" / name)
    _, verb, *words = [word.replace("hymenoptera", "captcha") for word in shlex.split(line)]
    of_data = [one for one in TINY if one.startswith("dataset.") and verb != "inspect" and "captchas" not in words]
    small = {
        "list": [],
        "cache": [],
        "compare": [],
        "probe": [*of_data, f"output_dir={tmp_path}"],
        "find": [*TINY, f"output_dir={tmp_path}", "steps=30" if "learning_rate" in words else "highest=8"],
    }
    assert thaw(monkeypatch, verb, *words, *small.get(verb, of_data)) == 0


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """The presets of one's own that the README shows, over a data set that is there."""
    data = image_folder(tmp_path / "data", {".": 9}, classes=("ants", "bees"))
    for name, text in re.findall(r"```yaml\n# mine/(\S+)\n(.*?)```", README, re.DOTALL):
        file = tmp_path / "mine" / name
        file.parent.mkdir(parents=True)
        file.write_text(text.replace("root: DIR", f"root: {data}"))
    return tmp_path / "mine"


def test_presets_of_ones_own_are_trained(mine: Path) -> None:
    (line,) = [line for line in COMMANDS if "--config-dir" in line]
    words = [word.replace("mine", str(mine), 1) if word == "mine" else word for word in shlex.split(line)[2:]]
    assert {file.parent.name for file in mine.rglob("*.yaml")} == {"dataset", "backbone", "strategy", "head"}
    recipe = check_command(parse_command(words)).build_recipe()
    assert (recipe.backbone.library, recipe.head.kind, list(recipe.strategy.phases)) == ("timm", "mlp", ["head", "top"])
    here = ["backbone=efficientnet_lite0", "dataset.image_size=32", *SMALL, f"output_dir={mine.parent / 'outputs'}"]
    assert launch([*(word for word in words if word != "backbone=swin"), *here]) == 0


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
