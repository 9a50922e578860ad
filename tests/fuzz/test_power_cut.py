"""A power cut at any moment leaves the old or the new content of what thaw writes, and what was going on continues."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.conftest import TINY
from tests.data.server import run_server
from tests.data.test_archive import write_zip
from tests.fuzz.power_cut import LOSSES, Recording, build_state, record
from tests.images import write_image_folder
from thaw.cli.train import launch
from thaw.data.archive import extract_archive
from thaw.data.download import download
from thaw.runs.run import Run
from thaw.sweeps.record import Sweep, read_sweep, write_sweep
from thaw.system.cache_folder import build_folder_once
from thaw.system.files import write_text
from thaw.training.callbacks.checkpointing import AtomicCheckpointIO

pytestmark = pytest.mark.long
NUM_TRAINING_CUTS = 32


def check_all_cuts(recording: Recording, folder: Path, check: Callable[[Path], None]) -> int:
    """Call `check` with what each cut leaves, and return the number of cuts."""
    assert any(event[0] == "sync" for event in recording.events)
    rng, number = random.Random(0), 0
    for num_events in range(len(recording.events) + 1):
        for loss in LOSSES:
            state = build_state(recording, num_events, loss, rng, folder / f"cut{number}")
            try:
                check(state)
            except BaseException as error:
                error.add_note(f"after {num_events} of {recording.events}, losing {loss}")
                raise
            shutil.rmtree(state)
            number += 1
    return number


def test_the_simulation_finds_a_file_that_is_not_synced(tmp_path: Path) -> None:
    """Writing without fsync must be seen as wrong, or the other tests say nothing."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_text("old")
    with record(root) as recording:
        (root / "file.partial").write_text("new")
        (root / "file.partial").replace(root / "file")
        os.fsync(os.open(root, os.O_RDONLY))

    def check(state: Path) -> None:
        assert (state / "file").read_text() in ("old", "new")

    with pytest.raises(AssertionError):
        check_all_cuts(recording, tmp_path, check)


def test_a_text_file_is_old_or_new(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    write_text(root / "file", "old" * 999)
    with record(root) as recording:
        write_text(root / "file", "new" * 999)

    def check(state: Path) -> None:
        assert (state / "file").read_text() in ("old" * 999, "new" * 999)

    assert check_all_cuts(recording, tmp_path, check) > 12
    (tmp_path / "last").mkdir()
    last = build_state(recording, len(recording.events), "everything", random.Random(0), tmp_path / "last" / "state")
    assert (last / "file").read_text() == "new" * 999, "what was written is safe once the call has returned"


def test_a_record_of_a_run_is_old_or_new(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    run = Run(root, record={})
    run.update(status="running", number=0)
    with record(root) as recording:
        for number in (1, 2):
            run.update(number=number, text="x" * 100 * number)
            run.write_report(f"page {number}")

    def check(state: Path) -> None:
        assert Run(state).record["number"] in (0, 1, 2)
        assert not (state / "report.html").exists() or (state / "report.html").read_text() in ("page 1", "page 2")

    check_all_cuts(recording, tmp_path, check)


def test_a_checkpoint_is_old_or_new(tmp_path: Path) -> None:
    root, checkpoint_io = tmp_path / "root", AtomicCheckpointIO()
    root.mkdir()
    checkpoints = [{"state_dict": {"weight": torch.full((5000,), float(number))}} for number in range(3)]
    checkpoint_io.save_checkpoint(checkpoints[0], root / "last.ckpt")
    with record(root) as recording:
        for checkpoint in checkpoints[1:]:
            checkpoint_io.save_checkpoint(checkpoint, root / "last.ckpt")

    def check(state: Path) -> None:
        weight = torch.load(state / "last.ckpt", weights_only=True)["state_dict"]["weight"]
        assert weight.unique().tolist() in ([0.0], [1.0], [2.0])

    check_all_cuts(recording, tmp_path, check)


def test_the_record_of_a_sweep_is_absent_or_complete(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    sweep = Sweep(("strategy=fixed,scratch", "seed=0,1"), 4)
    with record(root) as recording:
        write_sweep(root, sweep)

    def check(state: Path) -> None:
        assert not (state / "sweep.json").exists() or read_sweep(state) == sweep

    check_all_cuts(recording, tmp_path, check)


def test_a_folder_of_the_cache_is_absent_or_complete(tmp_path: Path) -> None:
    contents = {"a.bin": b"a" * 5000, "below/b.bin": b"b" * 5000, "below/deeper/c.bin": b"c"}

    def fill(folder: Path) -> None:
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    def read(folder: Path) -> dict[str, bytes]:
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    root = tmp_path / "root"
    root.mkdir()
    with record(root) as recording:
        build_folder_once(root / "kind" / "entry", fill)

    def check(state: Path) -> None:
        assert read(build_folder_once(state / "kind" / "entry", fill)) == contents

    check_all_cuts(recording, tmp_path, check)


def test_a_download_and_its_archive_are_absent_or_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("thaw.data.download.time", SimpleNamespace(sleep=lambda _: None))
    tree = {"train/crow/1.png": b"one" * 900, "test/crow/2.png": b"two" * 900}
    content = write_zip(tmp_path / "images.zip", tree).read_bytes()
    checksum = "sha256:" + hashlib.sha256(content).hexdigest()
    root = tmp_path / "root"
    root.mkdir()
    with run_server() as server:
        url = server.serve("/images.zip", content)

        def fetch(cache_dir: Path) -> dict[str, bytes]:
            target = cache_dir / "datasets" / "birds"
            if not target.is_dir():
                extract_archive(download(url, checksum, cache_dir / "downloads" / "images.zip"), target)
            return {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*.png")}

        with record(root) as recording:
            fetch(root)

        def check(state: Path) -> None:
            assert fetch(state) == tree

        check_all_cuts(recording, tmp_path, check)


def read_outcome(run: Path) -> tuple[dict[str, object], list[dict[str, str]], str]:
    """Return metrics and history without times, and the predictions."""
    metrics = json.loads((run / "metrics.json").read_text())
    rows = csv.DictReader(io.StringIO((run / "history.csv").read_text()))
    history = [{key: value for key, value in row.items() if "seconds" not in key} for row in rows]
    return {split: metrics[split] for split in ("val", "test")}, history, (run / "predictions.csv").read_text()


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """A run with augmentation and dropout, recorded with its cache."""
    root = tmp_path_factory.mktemp("power") / "root"
    root.mkdir()
    with record(root) as recording:
        assert launch([*build_command(root)]) == 0
    return recording


def build_command(root: Path) -> list[str]:
    data = root.parent / "data"
    if not data.is_dir():
        write_image_folder(data, {"train": 6, "val": 3, "test": 3}, ["ants", "bees"])
    settings = [setting for setting in TINY if not setting.startswith("dataset.")]
    return [
        *settings,
        "dataset=folder",
        f"dataset.root={data}",
        "dataset.image_size=32",
        "head.dropout=0.3",
        "augment=crop_flip",
        f"data.cache_dir={root / 'cache'}",
        f"hydra.run.dir={root / 'run'}",
    ]


@pytest.mark.parametrize("seed", range(NUM_TRAINING_CUTS))
def test_a_training_continues_to_the_same_bits(
    training: Recording, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, root = random.Random(seed), training.root
    expected = read_outcome(root / "run")
    whole = root.with_name(f"whole{seed}")
    num_events, loss = rng.randrange(len(training.events)), LOSSES[seed % len(LOSSES)]
    state = build_state(training, num_events, loss, rng, root.with_name(f"state{seed}"))
    root.rename(whole)  # the recipe names the cache by its path
    state.rename(root)
    try:
        status = launch([f"resume={root / 'run'}"])
        output = capsys.readouterr()
        assert status in (0, 2), output
        assert "Traceback" not in output.err + output.out
        if status == 2 and "nothing to resume" not in output.err:
            assert launch(build_command(root)) == 0, output.err + capsys.readouterr().err
        assert read_outcome(root / "run") == expected
    finally:
        root.rename(root.with_name(f"checked{seed}"))
        whole.rename(root)
