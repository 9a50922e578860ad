"""Every recipe of conf/experiment/ has a complete comment, and trains on data in the layout of its data set."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from benchmarks.reproduce import LITE, PARTS, PublishedMetric, read_header, read_published_metric
from tests.conftest import ROOT, TINY, get_only_run
from tests.data import official
from tests.data.official import write_files
from thaw.cli import probe
from thaw.cli.main import main
from thaw.cli.train import launch
from thaw.config.compose import check_command, compose_recipe, parse_command
from thaw.config.schema import MlpHeadConfig

FILES = sorted((ROOT / "conf" / "experiment").glob("*.yaml"))
COMMANDS = [(file.stem, line.split("  ")[0]) for file in FILES for line in read_header(file)["Commands"].splitlines()]
SMALL = ("trainer.epochs=1", "trainer.batch_size=8", "trainer.accelerator=cpu", "trainer.threads=1")
SMALL_DATA = {"captcha": TINY[:6]}  # created by the run
every_experiment = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write a few images in the official layout of each data set and return the paths by its name."""
    folder = tmp_path_factory.mktemp("official")
    counts = {"chair": 8, "Faces": 8, "Faces_easy": 8}
    archives = {"hotdog": official.make_hotdog_zip(), "hymenoptera": official.make_hymenoptera_zip()}
    archives["caltech101"] = official.make_caltech101_zip(counts)
    write_files(folder, {f"{name}.zip": content for name, content in archives.items()})
    write_files(folder / "dog_breeds", official.make_dog_breeds_files())
    write_files(folder / "cifar10", official.make_cifar_files(each=2))
    return {name: folder / f"{name}.zip" for name in archives} | {
        name: folder / name for name in ("dog_breeds", "cifar10")
    }


@every_experiment
def test_an_experiment_starts_with_its_purpose_its_commands_and_its_numbers(file: Path) -> None:
    parts = read_header(file)
    assert set(parts) == {"Shows", "Commands", *PARTS}
    assert all(len(text) > 20 for text in parts.values())
    assert parts["Shows"].endswith(".")
    assert parts["Commands"].splitlines()[0] == f"python train.py experiment={file.stem}"
    assert "not measured" in parts["Expect"] or re.match(r"accuracy [\d.]+ .*interval.* s\b", parts["Expect"])
    read_published_metric(file)


@pytest.mark.parametrize(("name", "line"), COMMANDS)
def test_the_commands_of_an_experiment_are_valid(name: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(line)
    if words[:2] == ["python", "train.py"]:
        check_command(parse_command(words[2:]))
        return
    monkeypatch.setattr(probe, "_probe", lambda *_: 0)
    assert words[:2] == ["thaw", "probe"]
    assert main(words[1:]) == 0


@every_experiment
def test_an_experiment_trains_on_the_layout_of_its_data_set(
    file: Path, data: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = compose_recipe([f"experiment={file.stem}"])
    name = recipe.dataset.name
    data_overrides = SMALL_DATA.get(name) or (f"dataset.root={data[name]}", "dataset.image_size=32")
    assert launch([f"experiment={file.stem}", *LITE, *data_overrides, *SMALL, f"output_dir={tmp_path}"]) == 0
    run = get_only_run(tmp_path)
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "done"
    assert record["plan"]
    assert json.loads((run / "metrics.json").read_text())["test"]["count"] > 0
    output = " ".join(capsys.readouterr().out.split())
    assert all(f"note: {note}" in output for note in recipe.notes)
    assert record.get("notes", []) == recipe.notes


@pytest.mark.parametrize("strategy", ["scratch", "fixed", "finetune"])
def test_a_note_reports_a_number_that_was_chosen_on_the_test_images(strategy: str) -> None:
    (note,) = compose_recipe([f"experiment=hymenoptera_{strategy}"]).notes
    assert "the same images that it is measured on" in note


@pytest.mark.parametrize(("name", "rate", "momentum"), [("finetune", 5e-5, 0.0), ("scratch", 5e-4, 0.0)])
def test_learning_rates_for_a_mean_loss_match_the_summed_loss_of_d2l(name: str, rate: float, momentum: float) -> None:
    recipe = compose_recipe([f"experiment=hotdog_{name}"])
    optimizer, batch = recipe.optimizer, recipe.trainer.batch_size
    assert batch == 128
    assert optimizer.learning_rate == pytest.approx(rate * batch)
    assert optimizer.learning_rate * optimizer.weight_decay == pytest.approx(rate * 1e-3), "no factor for the decay"
    assert optimizer.arguments["momentum"] == momentum


def test_the_caltech_head_is_that_of_the_tutorial() -> None:
    head = compose_recipe(["experiment=caltech101_vgg16"]).head
    assert isinstance(head, MlpHeadConfig)
    assert (head.hidden, head.activation, head.dropout) == ([256], "relu", 0.4)
    assert 4096 * 256 + 256 + 256 * 100 + 100 == 1_074_532


def test_both_face_folders_of_caltech_are_one_class(data: dict[str, Path], tmp_path: Path) -> None:
    from thaw.data.factory import load_samples

    recipe = compose_recipe(["experiment=caltech101_vgg16", f"dataset.root={data['caltech101']}"])
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"cache_dir": str(tmp_path)})})
    assert load_samples(recipe).classes == ("Faces", "chair")


@pytest.mark.parametrize(("value", "expected"), [(0.95, "within"), (0.9, "-0.048"), (0.97, "+0.009")])
def test_the_difference_is_measured_from_the_nearer_end(value: float, expected: str) -> None:
    assert PublishedMetric("accuracy", 0.948, 0.961).format_difference(value) == expected
