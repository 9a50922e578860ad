"""The images that a network is evaluated on: those of its run, or others without any that it has learned from."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import get_only_run, run_thaw
from tests.images import write_image_folder
from thaw.cli.train import launch

CLASSES = ("ants", "bees", "wasps")
RECIPE = [
    *("dataset=folder", "dataset.root=pictures", "dataset.image_size=32", "strategy=scratch", "trainer.epochs=1"),
    *("trainer.batch_size=8", "trainer.accelerator=cpu", "trainer.threads=1"),
]

MOVED = "dataset.root=pictures"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data without splits in `here/pictures`, and a run of them, started in `here`, below `outputs`."""
    project = tmp_path_factory.mktemp("project")
    write_image_folder(project / "here" / "pictures", {"": 10}, CLASSES)
    previous_folder = Path.cwd()
    os.chdir(project / "here")
    try:
        assert launch([*RECIPE, f"hydra.run.dir={project / 'outputs' / 'run'}"]) == 0
    finally:
        os.chdir(previous_folder)
    assert get_only_run(project) == project / "outputs" / "run"
    return project


@pytest.fixture
def copy(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project that a test may change, with the working folder `here` in it. `MOVED` names its data."""
    copied_project = Path(shutil.copytree(project, tmp_path / "copy"))
    monkeypatch.chdir(copied_project / "here")
    return copied_project


def evaluate(copy: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    return run_thaw(monkeypatch, "evaluate", str(copy / "outputs" / "run"), *arguments)


def read_paths(file: Path) -> set[str]:
    with file.open(newline="") as stream:
        return {row["path"] for row in csv.DictReader(stream)}


def add_images(root: Path, count: int, classes: tuple[str, ...] = CLASSES) -> Path:
    """Write `count` images of each class that the project's data do not have."""
    folder = write_image_folder(root.with_name(f"drawn_{root.name}"), {"": count}, classes, side=36)
    for path in sorted(folder.rglob("*.png")):
        (root / path.parent.name).mkdir(parents=True, exist_ok=True)
        path.rename(root / path.parent.name / f"new{path.name}")
    shutil.rmtree(folder)
    return root


@pytest.mark.parametrize("folder", ["here", "elsewhere"])
def test_a_run_finds_its_data_from_any_folder(
    folder: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image_folder(tmp_path / "elsewhere" / "pictures", {"": 9}, CLASSES, side=24)  # other data of the same name
    monkeypatch.chdir(project / "here" if folder == "here" else tmp_path / "elsewhere")
    assert evaluate(project, monkeypatch) == 0
    assert "the same numbers" in capsys.readouterr().out


def test_images_that_were_trained_on_are_no_test_images_after_others_were_added(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_images(Path("pictures"), 6)
    assert evaluate(copy, monkeypatch, MOVED, "split=test", "out=evaluation") == 0
    output = capsys.readouterr().out
    assert "other images than the run's (fingerprint " in output
    assert "compared with the run's own metrics.json" not in output
    own_paths = read_paths(copy / "outputs" / "run" / "predictions.csv")
    paths = read_paths(Path("evaluation/predictions.csv"))
    assert {path for path in paths if "new" not in path} == own_paths
    assert len(paths - own_paths) == 18
    assert f"the other {len(paths)} are test images" in output


def test_new_images_without_splits_are_all_evaluated(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = add_images(copy / "new", 5)
    assert evaluate(copy, monkeypatch, "dataset=folder", f"dataset.root={root}") == 0
    output = capsys.readouterr().out
    assert "all 15 are test images" in output
    assert "test, 15 images" in output


@pytest.mark.parametrize(
    ("layout", "classes", "count"),
    [("test", CLASSES, 2), ("test", CLASSES[:1], 3), ("", CLASSES[1:], 1), ("", CLASSES[:1], 1)],
    ids=["a test folder alone", "a class in a test folder", "an image of some classes", "a single image"],
)
def test_any_labeled_images_are_enough(
    layout: str,
    classes: tuple[str, ...],
    count: int,
    copy: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    add_images(copy / "new" / layout, count, classes)
    assert evaluate(copy, monkeypatch, "dataset=folder", f"dataset.root={copy / 'new'}") == 0
    output = capsys.readouterr().out
    assert f"test, {count * len(classes)} images" in output
    assert "nan" not in output


def test_test_images_of_a_new_folder_that_were_trained_on_are_left_out(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    test_paths = read_paths(copy / "outputs" / "run" / "predictions.csv")
    paths = {path.relative_to("pictures").as_posix() for path in Path("pictures").rglob("*.png")} - test_paths
    add_images(copy / "new" / "test", 2)
    for path in sorted(paths)[:4]:
        shutil.copy(f"pictures/{path}", copy / "new" / "test" / "bees")
    assert evaluate(copy, monkeypatch, "dataset=folder", f"dataset.root={copy / 'new'}") == 0
    output = capsys.readouterr().out
    assert "4 that the network was trained or selected on are left out of the test images" in output
    assert "test, 6 images" in output


def test_unknown_classes_are_an_error_with_the_nearest_name(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = add_images(copy / "new", 1, ("ants", "bee", "birds"))
    assert evaluate(copy, monkeypatch, "dataset=folder", f"dataset.root={root}") == 2
    message = capsys.readouterr().err
    assert "unknown to the network: bee, birds" in message
    assert "bees instead of bee, or dataset.exclude=[bee,birds]" in message
    assert evaluate(copy, monkeypatch, "dataset=folder", f"dataset.root={root}", "dataset.exclude=[bee,birds]") == 0


def test_the_split_that_a_fix_names_can_be_evaluated(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in read_paths(copy / "outputs" / "run" / "predictions.csv"):
        (Path("pictures") / path).unlink()
    assert evaluate(copy, monkeypatch, MOVED, "split=test") == 2
    assert "fix:   split=train" in capsys.readouterr().err
    assert evaluate(copy, monkeypatch, MOVED, "split=train") == 0


def write_changed_checkpoint(copy: Path, **entries: Any) -> Path:
    """Write the run's checkpoint with other entries of its metadata; None removes an entry."""
    content = torch.load(copy / "outputs" / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    content["thaw"] = {key: value for key, value in {**content["thaw"], **entries}.items() if value is not None}
    torch.save(content, copy / "foreign.ckpt")
    return copy / "foreign.ckpt"


def test_a_checkpoint_without_an_identity_gives_a_caution_for_other_data(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, root = write_changed_checkpoint(copy, data=None), add_images(copy / "new", 9)
    assert run_thaw(monkeypatch, "evaluate", str(checkpoint)) == 0
    assert "caution" not in capsys.readouterr().out
    assert run_thaw(monkeypatch, "evaluate", str(checkpoint), "dataset=folder", f"dataset.root={root}") == 0
    assert "caution: other images than the run's" in capsys.readouterr().out
    run = copy / "outputs" / "run"
    shutil.copy(checkpoint, run / "checkpoints" / "best.ckpt")
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({key: value for key, value in record.items() if key != "checkpoints"}))
    assert evaluate(copy, monkeypatch, MOVED) == 0
    assert "caution" not in capsys.readouterr().out
    add_images(Path("pictures"), 2)
    assert evaluate(copy, monkeypatch, MOVED) == 0
    assert "caution: other images than the run's" in capsys.readouterr().out


def build_foreign_recipe(copy: Path, dataset: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    content = torch.load(copy / "outputs" / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    recipe: dict[str, Any] = content["thaw"]["recipe"]
    archive = {"url": f"file://{copy}/stolen.zip", "checksum": f"sha256:{64 * '0'}", "folder": "", "inner": None}
    recipe["dataset"] |= {"root": None, "archive": archive, **dataset}
    recipe["data"] |= data
    return recipe


@pytest.mark.parametrize(
    ("dataset", "data", "message"),
    [
        ({}, {}, "an address that only the checkpoint names"),
        ({}, {"mirror": "http://127.0.0.1:9/"}, "data.mirror=http://127.0.0.1:9/"),
        ({}, {"cache_dir": "evil"}, "no cache of thaw"),
        ({"name": "/evil"}, {}, "dataset.name"),
        ({"name": "../../evil"}, {}, "dataset.name"),
        ({"splits": {"train": "../../..", "val": None, "test": None}}, {}, "a path out of the data set"),
    ],
    ids=["address", "mirror", "cache", "absolute name", "relative name", "path"],
)
def test_a_checkpoint_does_not_decide_where_data_are_fetched_from(
    dataset: dict[str, Any],
    data: dict[str, Any],
    message: str,
    copy: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("thaw.data.factory.download", lambda *_: pytest.fail("something is fetched"))
    checkpoint = write_changed_checkpoint(copy, recipe=build_foreign_recipe(copy, dataset, data))
    assert run_thaw(monkeypatch, "evaluate", str(checkpoint)) == 2
    assert message in capsys.readouterr().err
    assert not list(copy.glob("**/evil*"))


def test_a_checkpoint_with_a_foreign_address_is_used_with_the_users_own_data(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = write_changed_checkpoint(copy, recipe=build_foreign_recipe(copy, {}, {}))
    assert run_thaw(monkeypatch, "evaluate", str(checkpoint), "dataset=folder", MOVED) == 0
    assert run_thaw(monkeypatch, "export", str(checkpoint), "--format", "safetensors") == 0
    assert "NOT on real ones" in capsys.readouterr().out


def test_a_checkpoint_does_not_decide_where_hashes_are_kept(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in Path("pictures").rglob("*.*"):
        os.utime(file, (1e9, 1e9))  # so old that it is remembered
    checkpoint = write_changed_checkpoint(copy, recipe=build_foreign_recipe(copy, {}, {"cache_dir": "evil"}))
    assert run_thaw(monkeypatch, "evaluate", str(checkpoint), "dataset=folder", MOVED) == 0
    assert not list(copy.glob("**/evil*"))
