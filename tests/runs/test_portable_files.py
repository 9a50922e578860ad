"""The files of a run can be shared: they name no folder of the machine, and still find data from any folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT, get_only_run, run_thaw
from tests.images import write_image_folder
from thaw.cli.train import launch
from thaw.runs.lifecycle import record_failure
from thaw.runs.run import Run
from thaw.sweeps.record import Sweep, read_sweep, write_sweep
from thaw.system.portable import expand_home, format_command, format_traceback, make_portable, shorten_home

SUFFIXES = (".yaml", ".json", ".csv", ".html", ".yml", ".txt", ".log")
RUN = ("dataset.image_size=32", "trainer.epochs=1", "trainer.batch_size=8", "trainer.threads=1", "strategy=fixed")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "ann").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "ann"))
    return tmp_path / "ann"


def test_a_run_names_no_folder_of_the_machine_and_finds_its_data_from_another_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image_folder(home / "one" / "data", {"train": 6, "val": 3, "test": 3}, ["ants", "bees"])
    (home / "two").mkdir()
    monkeypatch.chdir(home / "one")
    assert launch([*RUN, "trainer.accelerator=cpu", "dataset=folder", "dataset.root=data", "data.cache_dir=cache"]) == 0
    run = get_only_run(home / "one" / "outputs")
    texts = [file.read_text("utf-8") for file in run.rglob("*") if file.suffix in SUFFIXES]
    assert len(texts) == 7, sorted(file.name for file in run.rglob("*") if file.suffix in SUFFIXES)
    for folder in (home, ROOT):
        assert [text for text in texts if str(folder) in text] == []
        files = [path for path in run.rglob("*") if path.is_file()]
        assert [file.name for file in files if str(folder).encode() in file.read_bytes()] == []
    recipe = Run(run).recipe
    assert (recipe.dataset.root, recipe.data.cache_dir) == ("~/one/data", "~/one/cache")  # type: ignore[union-attr]
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["thaw"]["recipe"]["dataset"]["root"] == "~/one/data"
    monkeypatch.chdir(home / "two")
    capsys.readouterr()
    assert run_thaw(monkeypatch, "evaluate", str(run), "--split", "test") == 0
    assert "the same numbers" in capsys.readouterr().out


def test_an_error_in_a_record_names_no_folder_of_the_machine(home: Path, tmp_path: Path) -> None:
    try:
        raise FileNotFoundError(f"{home}/data/1.png")
    except FileNotFoundError:
        record_failure(tmp_path, format_traceback())
    error = json.loads((tmp_path / "run.json").read_text())["error"]
    assert "~/data/1.png" in error
    assert str(tmp_path) not in error
    assert str(ROOT) not in error


def test_a_sweep_is_resumed_from_another_folder(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    words = ("dataset.root=data", f"output_dir={home}/out", "seed=0,1", "dataset.name=a", "dataset.root=a,b")
    write_sweep(tmp_path, Sweep(words, 2))
    assert str(home) not in (tmp_path / "sweep.json").read_text()
    monkeypatch.chdir(tmp_path)
    assert read_sweep(tmp_path).arguments == (f"dataset.root={home}/data", *words[1:])


@pytest.mark.parametrize(
    ("text", "shortened"),
    [
        ("{home}", "~"),
        ("{home}/x y", "~/x y"),
        ("dataset.root={home}/x and '{home}/y'", "dataset.root=~/x and '~/y'"),
        ("{home}-other/x", "{home}-other/x"),
        ("/backup{home}/x", "/backup{home}/x"),
        ("file://{home}/x", "file://~/x"),
        ("/data/imagenet", "/data/imagenet"),
    ],
)
def test_the_home_folder_is_shortened_where_it_begins_a_path(home: Path, text: str, shortened: str) -> None:
    text, shortened = text.format(home=home), shortened.format(home=home)
    assert shorten_home({"a": [text, 1, None]}) == {"a": [shortened, 1, None]}
    assert expand_home(shortened) == text


def test_a_path_is_found_from_any_folder(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert make_portable("data") == str(tmp_path / "data")
    assert make_portable("~/data") == "~/data"
    monkeypatch.chdir(home)
    assert make_portable("data") == "~/data"


def test_a_command_is_recorded_without_the_folder_of_its_program() -> None:
    assert format_command(["/opt/thaw/train.py", "seed=1", "notes=a b"]) == "python train.py seed=1 'notes=a b'"
    assert format_command(["/opt/venv/bin/thaw", "train"]) == "thaw train"
    assert format_command(["/opt/thaw/src/thaw/__main__.py", "train"]) == "python -m thaw train"
