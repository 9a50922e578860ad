"""Every command on every page runs. Overrides make the trainings small."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.comparison.records import write_run
from tests.conftest import ROOT, TINY, get_only_run, run_thaw, run_train_script
from tests.docs.pages import find_blocks, list_commands
from tests.images import write_image_folder
from thaw.cli.train import launch
from thaw.config.compose import check_command, parse_command

COMMANDS = list_commands()
PRINTS_CONFIG = ("--help", "--cfg")
TRAIN_PREFIXES = ("python train.py", "thaw train")
TRAIN_COMMANDS = [line for line in COMMANDS if line.startswith(TRAIN_PREFIXES)]
CONFIG_COMMANDS = [line for line in TRAIN_COMMANDS if any(flag in line for flag in PRINTS_CONFIG)]
TRAININGS = sorted(  # `thaw train` does the same as `python train.py`
    {
        line.replace("thaw train", "python train.py")
        for line in TRAIN_COMMANDS
        if line not in CONFIG_COMMANDS and "--config-dir" not in line
    }
)
VERBS = [line for line in COMMANDS if line.startswith("thaw ") and "|" not in line and line not in TRAIN_COMMANDS]
NEEDS_RUN = ("evaluate", "predict", "explain", "export", "report")
VERBS_AFTER_TRAINING = [line for line in VERBS if line.split()[1] in NEEDS_RUN]
OTHER_VERBS = [line for line in VERBS if line not in VERBS_AFTER_TRAINING]
DOWNLOADED_NETWORKS = ("resnet50", "convnext", "vit_")
LARGE_SWEEPS = ("sweep=learning_rates", "sweep=images_per_class")
TESTED_ELSEWHERE = {
    "resume=": "tests/training/test_resume.py",
    "dataset.split_seed=${seed}": "tests/data/test_factory.py",
    "dataset.group_column=patient": "tests/data/test_folds.py",
    "dataset.group_pattern=": "tests/data/test_groups.py",
    "audit dataset=folder": "tests/cli/test_audit.py",
    "sweep=folds": "tests/sweeps/test_sweep_folds.py",
    "sweep=search folds=5": "tests/config/test_fold_keys.py",
    "python train.py folds=5": "tests/sweeps/test_sweep_folds.py",
    "thaw probe dataset=folder dataset.root=DIR folds=5": "tests/probing/test_probe_folds.py",
    "thaw probe dataset=hymenoptera folds=5": "tests/probing/test_probe_folds.py",
    "launcher=": "tests/sweeps/test_launchers.py",
    "trainer=ddp": "tests/training/test_devices.py",
    "trainer=fsdp": "tests/training/test_devices.py",
    "thaw resume": "tests/sweeps/test_sweep.py",
    "thaw dashboard": "tests/cli/test_dashboard.py",
    "thaw submit": "tests/cli/test_submit.py",
}
SHELL_COMMANDS = {
    ". .venv/bin/activate",
    "pre-commit install",
    'eval "$(thaw completion bash)"',
    'eval "$(thaw completion zsh)"',
    "thaw completion fish | source",
}
SMALL = ("trainer.epochs=2", "trainer.batch_size=8", "trainer.accelerator=cpu", "trainer.threads=1")
SMALL_IMAGES = "dataset.image_size=32"


def is_long(line: str) -> bool:
    """Return whether the command trains a large network or many jobs."""
    return any(name in line for name in (*DOWNLOADED_NETWORKS, "finetune seed=0,1,2", *LARGE_SWEEPS))


def skip_if_tested_elsewhere(line: str) -> None:
    for words, file in TESTED_ELSEWHERE.items():
        if words in line:
            pytest.skip(file)


def remove_given_keys(overrides: tuple[str, ...], words: list[str]) -> list[str]:
    """Return the `overrides` whose keys `words` do not set. There are never more epochs than `overrides` say."""
    given_keys = {word.split("=")[0] for word in words} - {"trainer.epochs"}
    return [override for override in overrides if override.split("=")[0] not in given_keys]


def test_every_command_is_tested() -> None:
    tools = ("make ", "python -m benchmarks.", "pip install ", "torchrun ", "srun ")
    tested_commands = {*TRAIN_COMMANDS, *VERBS, *SHELL_COMMANDS}
    assert len(TRAININGS) >= 20
    assert [line for line in COMMANDS if line not in tested_commands and not line.startswith(tools)] == []
    assert sorted(SHELL_COMMANDS - set(COMMANDS)) == []


@pytest.mark.parametrize("file", sorted(set(TESTED_ELSEWHERE.values())))
def test_a_file_that_tests_other_commands_exists(file: str) -> None:
    assert (ROOT / file).is_file()


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("make ")])
def test_a_target_of_make_exists(line: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{line.split()[1]}:", makefile, re.MULTILINE)


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("python -m ")])
def test_a_benchmark_exists(line: str) -> None:
    assert (ROOT / f"{line.split()[2].replace('.', '/')}.py").is_file()


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("pip ")])
def test_an_extra_that_is_installed_exists(line: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extra,) = re.findall(r"thaw\[(\w+)\]", line)
    assert extra in project["optional-dependencies"]


@pytest.mark.parametrize("line", [pytest.param(line, marks=[pytest.mark.long] * is_long(line)) for line in TRAININGS])
def test_a_training_runs(line: str, tmp_path: Path) -> None:
    skip_if_tested_elsewhere(line)
    words = shlex.split(line)[2:]
    data = write_image_folder(tmp_path / "data", {"train": 5, "test": 2}, classes=("ants", "bees"))
    write_label_table(data)
    arguments = [word.replace("root=DIR", f"root={data}") for word in words]
    if "dataset=hymenoptera" in words:
        official_data = write_image_folder(tmp_path / "official", {"train": 6, "val": 3}, classes=("ants", "bees"))
        arguments.append(f"dataset.root={official_data}")
    has_dataset = any(word.startswith("dataset=") for word in words)
    small_overrides = remove_given_keys(SMALL if has_dataset else TINY, words)
    if any(name in line for name in DOWNLOADED_NETWORKS):  # the same network with random weights
        arguments = [*(word for word in arguments if not word.startswith("strategy=")), "strategy=scratch"]
        small_overrides = [override for override in small_overrides if override != SMALL_IMAGES or "vit_" not in line]
    assert launch([*arguments, *small_overrides, *shorten_sweep(words), f"output_dir={tmp_path / 'outputs'}"]) == 0


def write_label_table(data: Path) -> None:
    """Write `labels.csv` for the images below `data`."""
    paths = [path.relative_to(data).as_posix() for path in sorted(data.rglob("*.png"))]
    rows = [f"{path},{path.split('/')[1]}\n" for path in paths]
    (data / "labels.csv").write_text("path,label\n" + "".join(rows))


def shorten_sweep(words: list[str]) -> list[str]:
    """Return overrides that make the sweep of `words` short: later values of a key replace earlier ones."""
    if "-m" not in words:
        return []
    if "sweep=search" in words:
        has_strategy = any("strategy=" in word for word in words)
        return ["trainer.epochs=1", "hydra.sweeper.trials=2", *([] if has_strategy else ["strategy=fixed"])]
    if any(word.startswith("sweep=") for word in words):
        return ["trainer.epochs=1", "seed=0", SMALL_IMAGES]
    return ["trainer.epochs=1"]


@pytest.mark.parametrize("line", [line for line in TRAININGS if "resume=" not in line])
def test_a_training_is_a_valid_command_without_changes(line: str, tmp_path: Path) -> None:
    words = [word.replace("root=DIR", f"root={tmp_path}") for word in shlex.split(line)[2:]]
    check_command(parse_command(words))


@pytest.mark.parametrize("line", CONFIG_COMMANDS)
def test_a_command_prints_help_or_the_configuration(line: str) -> None:
    process = run_train_script(*shlex.split(line)[2:])
    assert process.returncode == 0, process.stderr
    assert "seed" in process.stdout or "n_jobs" in process.stdout


@pytest.fixture(scope="module")
def folder_of_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create the paths that the commands after a training name: runs, a checkpoint, pictures, captchas."""
    folder = tmp_path_factory.mktemp("folder_of_runs")
    data = write_image_folder(folder / "DIR", {"train": 5, "val": 2, "test": 3}, classes=("ants", "bees"))
    image_recipe = ("dataset=folder", f"dataset.root={data}", SMALL_IMAGES, *SMALL)
    for name, recipe in (("of_captchas", TINY), ("of_images", image_recipe)):
        assert launch([*recipe, "strategy=fixed", f"output_dir={folder / name}"]) == 0
    for name in ("RUN", "OTHER"):
        shutil.copytree(get_only_run(folder / "of_captchas"), folder / "outputs" / name)
    shutil.copy(get_only_run(folder / "of_images") / "checkpoints" / "best.ckpt", folder)
    shutil.copytree(data / "test" / "ants", folder / "photos")
    shutil.copy(next((folder / "photos").iterdir()), folder / "IMAGE")
    return folder


@pytest.mark.parametrize("line", VERBS_AFTER_TRAINING)
def test_a_verb_after_a_training_runs(line: str, folder_of_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder_of_runs)
    if "--captcha" in line and not (folder_of_runs / "captchas").exists():
        assert run_thaw(monkeypatch, "data", "captchas", "--out", "captchas", "--count", "2") == 0
    hardware = ["trainer.accelerator=cpu", "trainer.threads=1"] if " evaluate " in line else []
    assert run_thaw(monkeypatch, *shlex.split(line)[1:], *hardware) == 0


@pytest.mark.parametrize("line", OTHER_VERBS)
def test_a_verb_runs(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_if_tested_elsewhere(line)
    monkeypatch.chdir(tmp_path)
    for name in ("SWEEP/0", "RUN", "OTHER"):
        write_run(tmp_path / "outputs" / name)
    write_image_folder(tmp_path / "DIR", {"train": 5, "val": 2, "test": 3}, classes=("ants", "bees"))
    write_presets(tmp_path, tmp_path / "DIR")
    words = [word.replace("hymenoptera", "captcha") for word in shlex.split(line)[1:]]
    assert run_thaw(monkeypatch, *words, *shorten_verb(words, tmp_path)) == 0


def shorten_verb(words: list[str], folder: Path) -> list[str]:
    """Return overrides and options that make a verb short; it writes below `folder`."""
    small_data = [override for override in TINY if override.startswith("dataset.")]
    if "dataset=folder" in words:
        small_data = [SMALL_IMAGES]
    output = f"output_dir={folder}"
    overrides_by_verb = {
        "data": [] if "captchas" in words else small_data,
        "features": small_data,
        "audit": [*small_data, *(() if "--out" in words else (output,))],
        "probe": [*small_data, *(() if "--out" in words else (output,))],
        # With fewer images and steps the loss falls on some processors and not on others.
        "lr-find": [*TINY, "dataset.train=30", output, *(() if "--steps" in words else ("--steps", "60"))],
        "batch-size": [*TINY, output, *(() if "--max-batch-size" in words else ("--max-batch-size", "8"))],
    }
    return overrides_by_verb.get(words[0], [])


def write_presets(folder: Path, data: Path) -> list[Path]:
    """Write the presets of the configuration page below `folder`, for the images in `data`."""
    files = []
    for block in find_blocks(ROOT / "docs" / "configuration.md", "yaml"):
        header, _, text = block.partition("\n")
        if not header.startswith("# mine/"):
            continue
        files.append(folder / header.removeprefix("# "))
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        files[-1].write_text(text.replace("root: DIR", f"root: {data}"))
    return files


def test_presets_of_the_configuration_page_are_trained(tmp_path: Path) -> None:
    data = write_image_folder(tmp_path / "data", {".": 9}, classes=("ants", "bees"))
    files = write_presets(tmp_path, data)
    assert {file.parent.name for file in files} == {"dataset", "backbone", "strategy", "head"}
    (line,) = [line for line in TRAIN_COMMANDS if "--config-dir" in line]
    words = [str(tmp_path / "mine") if word == "mine" else word for word in shlex.split(line)[2:]]
    recipe = check_command(parse_command(words)).build_recipe()
    assert (recipe.backbone.library, recipe.head.kind, list(recipe.strategy.phases)) == ("timm", "mlp", ["head", "top"])
    overrides = ["backbone=efficientnet_lite0", SMALL_IMAGES, *SMALL, f"output_dir={tmp_path / 'outputs'}"]
    assert launch([*(word for word in words if word != "backbone=swin"), *overrides]) == 0


def test_the_problems_on_the_page_are_those_that_are_printed() -> None:
    (block,) = find_blocks(ROOT / "docs" / "index.md", "text", marker="output")
    command, _, expected = block.partition("\n")
    assert run_train_script(*shlex.split(command)[3:]).stderr == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_for_the_shell(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_thaw(monkeypatch, "completion", shell) == 0
    script = capsys.readouterr().out
    assert "thaw" in script
    if shutil.which(shell) and shell != "fish":
        assert subprocess.run([shell, "-n"], input=script, text=True, check=False).returncode == 0


def test_a_run_is_visible_in_tensorboard(tmp_path: Path) -> None:
    assert launch([*TINY, "trainer.epochs=1", f"output_dir={tmp_path}"]) == 0
    assert list((get_only_run(tmp_path) / "tensorboard").glob("events.out.tfevents.*"))
