"""`thaw cache`, as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import run_thaw
from tests.filling import FILL_PROGRAM
from thaw.system.cache_folder import build_folder_once

DATASET, STORE, FEATURES, FILLED = "bees-0123456789abcdef", "0" * 16, "f" * 16, "a" * 16


def fill_dataset(folder: Path) -> None:
    (folder / "train").mkdir()
    (folder / "train" / "bee.png").write_bytes(b"0" * 3000)


def fill_store(folder: Path) -> None:
    (folder / "pixels.bin").write_bytes(b"0" * 50_000)
    np.save(folder / "table.npy", np.zeros((7, 5), dtype=np.int64))


def fill_features(folder: Path) -> None:
    metadata = {
        "dataset": "bees",
        "backbone": "resnet18",
        "stage": "layer3",
        "rows": 7,
        "shape": [4, 2],
        "dtype": "float32",
    }
    (folder / "values.bin").write_bytes(b"0" * 7 * 4 * 2 * 4)
    (folder / "meta.json").write_text(json.dumps(metadata))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """An entry of most kinds, among things of the user's own."""
    cache = tmp_path / "cache"
    build_folder_once(cache / "datasets" / DATASET, fill_dataset)
    build_folder_once(cache / "decoded" / STORE, fill_store)
    build_folder_once(cache / "features" / FEATURES, fill_features)
    for name in ("bees.zip", "wasps.zip.part"):
        file = cache / "downloads" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"0" * 2000)
        file.with_name(f".{name.removesuffix('.part')}.lock").touch()
    for name in ("downloads/thesis.zip", "datasets/mine/bee.png", "notes/todo.txt"):
        (cache / name).parent.mkdir(exist_ok=True)
        (cache / name).write_text("mine")
    return cache


def list_keys(cache: Path) -> set[str]:
    """Keys, by name alone."""
    folders = [cache / kind for kind in ("downloads", "datasets", "decoded", "features")]
    names = {path.name for folder in folders for path in folder.iterdir() if not path.name.endswith(".lock")}
    return names - {"thesis.zip", "mine"}


def has_user_files(cache: Path) -> bool:
    return all((cache / name).is_file() for name in ("downloads/thesis.zip", "datasets/mine/bee.png", "notes/todo.txt"))


def test_entries_are_listed_with_kind_size_and_content(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    os.utime(cache / "features" / FEATURES / "meta.json", (0, 86_400 * 366))  # used last in January 1971
    assert run_thaw(monkeypatch, "cache", f"data.cache_dir={cache}") == 0
    rows = {line.split()[1]: line for line in capsys.readouterr().out.splitlines()[1:] if len(line.split()) > 2}
    assert {DATASET, STORE, FEATURES, "bees.zip", "wasps.zip.part"} <= set(rows)
    assert rows[FEATURES].split()[0] == "features"
    assert "bees, resnet18, layer3, 7 x 4 x 2, float32" in rows[FEATURES]
    assert "1971-01-0" in rows[FEATURES]
    assert "7 images" in rows[STORE]
    assert "49.2 KiB" in rows[STORE]  # 50,000 bytes of pixels and 408 of the table
    assert "1 file" in rows[DATASET]
    assert "interrupted" in rows["wasps.zip.part"]
    assert not {"thesis.zip", "mine"} & set(rows)
    assert "5 entries" in " ".join(rows.values())


def test_damaged_entries_are_listed_as_unreadable(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = cache / "decoded" / STORE / "table.npy"
    table.write_bytes(table.read_bytes().replace(b"}", b"\0"))  # NumPy raises a TokenError for such a header
    (cache / "features" / FEATURES / "meta.json").write_text('{"shape": 3}')
    assert run_thaw(monkeypatch, "cache", f"data.cache_dir={cache}") == 0
    assert capsys.readouterr().out.count("unreadable") == 2


def test_an_empty_or_missing_cache_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "absent"))
    assert run_thaw(monkeypatch, "cache") == 0
    assert "nothing is in the cache" in capsys.readouterr().out
    assert run_thaw(monkeypatch, "cache", "clear") == 0


@pytest.mark.parametrize(
    ("arguments", "remaining_keys"),
    [
        ((), set()),
        (("decoded", "features"), {DATASET, "bees.zip", "wasps.zip.part"}),
        ((DATASET,), {STORE, FEATURES, "bees.zip", "wasps.zip.part"}),
        (("downloads", STORE), {DATASET, FEATURES}),
    ],
)
def test_only_named_entries_are_removed(
    arguments: tuple[str, ...],
    remaining_keys: set[str],
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_thaw(monkeypatch, "cache", "clear", *arguments, f"data.cache_dir={cache}") == 0
    assert list_keys(cache) == remaining_keys
    assert has_user_files(cache)
    assert f"{5 - len(remaining_keys)} of 5 entries removed" in capsys.readouterr().out


def test_the_freed_space_is_printed(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_thaw(monkeypatch, "cache", "clear", "downloads", f"data.cache_dir={cache}") == 0
    assert "3.9 KiB freed" in capsys.readouterr().out


def test_a_removed_entry_can_be_built_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_thaw(monkeypatch, "cache", "clear", f"data.cache_dir={cache}") == 0
    assert (build_folder_once(cache / "datasets" / DATASET, fill_dataset) / "train" / "bee.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("claer",), "thaw cache clear"),
        (("clear", "decodd"), "thaw cache clear decoded"),
        (("clear", "bees-0123456789abcdee"), f"thaw cache clear {DATASET}"),
        (("clear", "decoded", "nothing-like-it"), "thaw cache, which lists"),
        (("dta.cache=x",), "data.cache_dir=x"),
        (("clear", "--all"), "no such option"),
        (("data.cache_dir=nowhere",), "no folder"),
    ],
)
def test_wrong_commands_end_with_2_and_remove_nothing(
    arguments: tuple[str, ...],
    message: str,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("THAW_CACHE", str(cache))
    before = list_keys(cache)
    assert run_thaw(monkeypatch, "cache", *arguments) == 2
    assert message in capsys.readouterr().err
    assert list_keys(cache) == before


@pytest.fixture
def writing_process(cache: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of filling a folder."""
    target = cache / "decoded" / FILLED
    process = subprocess.Popen([sys.executable, "-c", FILL_PROGRAM, target], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "filling\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_an_entry_that_a_process_is_writing_stays(
    writing_process: subprocess.Popen[str],
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_thaw(monkeypatch, "cache", f"data.cache_dir={cache}") == 0
    assert "being written" in capsys.readouterr().out
    assert run_thaw(monkeypatch, "cache", "clear", f"data.cache_dir={cache}") == 1
    captured = capsys.readouterr()
    assert "5 of 6 entries removed" in captured.out
    assert "a process is writing it" in captured.err
    (remaining_keys,) = list_keys(cache)
    assert remaining_keys.startswith(f".{FILLED}.partial-")


def test_the_incomplete_entry_of_a_killed_process_is_removed(
    writing_process: subprocess.Popen[str],
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    writing_process.kill()
    writing_process.wait()
    assert run_thaw(monkeypatch, "cache", f"data.cache_dir={cache}") == 0
    assert "abandoned, incomplete" in capsys.readouterr().out
    assert run_thaw(monkeypatch, "cache", "clear", "decoded", f"data.cache_dir={cache}") == 0
    assert list_keys(cache) == {DATASET, FEATURES, "bees.zip", "wasps.zip.part"}


def test_a_process_continues_to_read_a_file_that_it_has_opened(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.memmap(cache / "decoded" / STORE / "pixels.bin", np.uint8, "r")
    assert run_thaw(monkeypatch, "cache", "clear", "decoded", f"data.cache_dir={cache}") == 0
    assert (pixels == ord("0")).all()


def test_a_repository_of_timm_is_one_entry(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = cache / "weights" / "timm" / "models--timm--resnet18.a1_in1k"
    (hub / "blobs").mkdir(parents=True)
    (hub / "blobs" / "abc").write_bytes(b"0" * 5000)
    (hub / "snapshots").mkdir()
    (hub / "snapshots" / "model.safetensors").symlink_to(hub / "blobs" / "abc")
    assert run_thaw(monkeypatch, "cache", f"data.cache_dir={cache}") == 0
    assert "4.9 KiB" in next(line for line in capsys.readouterr().out.splitlines() if hub.name in line)
    assert run_thaw(monkeypatch, "cache", "clear", hub.name, f"data.cache_dir={cache}") == 0
    assert not hub.exists()
    assert list((cache / "weights" / "timm").iterdir()) == []


def test_listing_the_cache_imports_no_torch() -> None:
    program = "import sys; from thaw.cli.main import main; main(['cache']); print('torch' in sys.modules)"
    captured = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert captured.splitlines()[-1] == "False"
