"""A run with data.exclude and data.relabel records both, and needs their content only while it trains."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import TINY, get_only_run, run_thaw
from tests.images import write_image_folder
from thaw.cli.train import launch
from thaw.runs.run import Run

EXCLUDED = "path,note\ntest/ants/01.png,a copy\ntrain/bees/02.png,blurred\n"
RELABELED = "path,label\ntrain/ants/03.png,bees\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data in `data`, both files, and a run of them in `outputs`, started in the folder itself."""
    project = tmp_path_factory.mktemp("project")
    write_image_folder(project / "data", {"train": 8, "val": 2, "test": 4}, ("ants", "bees"))
    (project / "exclude.csv").write_text(EXCLUDED)
    (project / "relabel.csv").write_text(RELABELED)
    recipe = ["dataset=folder", "dataset.root=data", "dataset.image_size=32", *TINY[6:], "trainer.epochs=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        assert launch([*recipe, "strategy=fixed", "data.exclude=exclude.csv", "data.relabel=relabel.csv"]) == 0
    return project


@pytest.fixture
def copy(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run in a copy of the project, whose data and files it names; the working folder is another."""
    copied_project = Path(shutil.copytree(project, tmp_path / "project"))
    run = get_only_run(copied_project)
    for file in (run / "config.yaml", run / "run.json"):
        file.write_text(file.read_text().replace(str(project), str(copied_project)))
    monkeypatch.chdir(tmp_path)
    return run


def test_the_record_and_the_report_have_both_files(project: Path) -> None:
    run = get_only_run(project)
    data = json.loads((run / "run.json").read_text())["data"]
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in (EXCLUDED, RELABELED)]
    assert data["excluded"] == {"count": 2, "sha256": digests[0]}
    assert data["relabeled"] == {"count": 1, "sha256": digests[1]}
    assert data["images"] == {"train": 15, "val": 4, "test": 7}
    assert "excluded by data.exclude" in (run / "report.html").read_text()
    assert Run(run).recipe.data.exclude == str(project / "exclude.csv")  # found from any folder
    assert "test/ants/01.png" not in (run / "predictions.csv").read_text()


def test_a_resumed_run_whose_file_has_changed_names_it(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy.parents[1] / "relabel.csv").write_text(RELABELED + "train/ants/04.png,bees\n")
    assert launch([f"resume={copy}", "trainer.epochs=2"]) == 2
    message = capsys.readouterr().err
    assert "the data set is not the one that this run began with" in message
    assert "relabel.csv\n      got:   SHA-256 " in message
    assert "exclude.csv" not in message
    moved = copy.parents[1] / "moved.csv"
    moved.write_text(RELABELED.replace("\n", "\r\n"))  # other bytes of the same content, in another place
    assert launch([f"resume={copy}", "trainer.epochs=2", f"data.relabel={moved}"]) == 0
    assert json.loads((copy / "run.json").read_text())["status"] == "done"


def test_a_run_is_evaluated_without_the_files(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(get_only_run(project))
    assert run_thaw(monkeypatch, "evaluate", run, "--split=test") == 0
    assert "the same numbers" in capsys.readouterr().out
    for name in ("exclude", "relabel"):
        shutil.move(project / f"{name}.csv", tmp_path)
    assert run_thaw(monkeypatch, "evaluate", run, "--split=test") == 0
    output = capsys.readouterr().out
    assert "exclude.csv: no such file, so the images are not corrected by it" in output
    assert "other images than the run's" in output
    assert "test, 8 images" in output
    assert run_thaw(monkeypatch, "predict", run, str(project / "data" / "test")) == 0
    assert run_thaw(monkeypatch, "evaluate", run, f"data.exclude={project / 'exclude.csv'}") == 2
    assert "no such file" in capsys.readouterr().err  # what the user types must be there
    moved = [f"data.{name}={tmp_path / name}.csv" for name in ("exclude", "relabel")]
    assert run_thaw(monkeypatch, "evaluate", run, "--split=test", *moved) == 0
    assert "test, 7 images" in capsys.readouterr().out
    for name in ("exclude", "relabel"):
        shutil.move(tmp_path / f"{name}.csv", project)
