"""200 damages of the files of a run, drawn from a seed. Each command succeeds with the right numbers, or names the file
in one message. Run it with `pytest -m long tests/fuzz/test_run_files.py`."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from thaw.cli.main import main
from thaw.comparison.comparison import build_comparison
from thaw.config.errors import UserError
from thaw.inference.load import load
from thaw.runs.lifecycle import check_resumable
from thaw.runs.run import open_run
from thaw.sweeps.record import read_jobs

RUN = Path(__file__).parents[1] / "runs" / "version_0_1"
TEST_ACCURACY = 0.25
NUM_DAMAGES = 200
CHECKPOINT = "checkpoints/best.ckpt"
FILES = ("run.json", "config.yaml", "history.csv", "metrics.json", "predictions.csv", "sweep.json", CHECKPOINT)
FOREIGN_TEXTS = (
    *("[]", "null", "3", '"text"', "{}", "true", "NaN", "[1, 2, 3]", '{"status": 3}', '{"status": "done"}', "1e999"),
    *("[" * 100_000, "{a: " * 5_000, "- " * 60_000, '{"a":' * 3_000, "9" * 6_000, '{"test": NaN, "val": {}}'),
    *("a: &a [*a]", "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "a,b\n1,2\n", "epoch\n1\n", "\ufeff{}", "<html/>"),
    *("!!python/object/apply:os.system ['true']", "a: !!binary zz", "seed: 0\nseed: 1\n", "\t- x", '"'),
    "a\n" * 100_000,
)
FOREIGN_VALUES = (None, True, -1, 1e308, "", "text", [], {}, [[]], {"a": {"b": 1}}, 10**30, [None], "\x1b[31m", 0.5)


@dataclass(frozen=True)
class Damage:
    """What happened to a file of a run."""

    file: str
    kind: str
    seed: int

    def apply(self, directory: Path) -> None:
        rng, path = random.Random(self.seed), directory / self.file
        KINDS[self.kind](path, rng)


def _remove(path: Path, rng: random.Random) -> None:
    path.unlink()


def _empty(path: Path, rng: random.Random) -> None:
    path.write_bytes(rng.choice([b"", b"\n", b"  \n\n"]))


def _cut(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(1, len(content))])


def _flip_bytes(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 20)):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _fill_randomly(path: Path, rng: random.Random) -> None:
    path.write_bytes(rng.randbytes(rng.choice([1, 100, 10_000])))


def _replace(path: Path, rng: random.Random) -> None:
    path.write_text(rng.choice(FOREIGN_TEXTS), encoding="utf-8")


def _change_a_line(path: Path, rng: random.Random) -> None:
    lines = path.read_bytes().split(b"\n")
    index = rng.randrange(len(lines))
    lines[index] = rng.choice([b"", b",,,,,,,", lines[index] * 2, lines[rng.randrange(len(lines))], b"x: [", b'"'])
    path.write_bytes(b"\n".join(lines))


def _change_a_value(path: Path, rng: random.Random) -> None:
    """Replace or remove an entry anywhere in a JSON file; other files are cut."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        _cut(path, rng)
        return
    containers = list(_list_containers(content))
    container = rng.choice(containers)
    key = rng.choice(list(container if isinstance(container, dict) else range(len(container))))
    if rng.random() < 0.3:
        del container[key]
    else:
        container[key] = rng.choice(FOREIGN_VALUES)
    path.write_text(json.dumps(content))


def _list_containers(value: Any) -> list[Any]:
    if not isinstance(value, dict | list) or not value:
        return []
    children = value.values() if isinstance(value, dict) else value
    return [value, *(container for child in children for container in _list_containers(child))]


def _make_a_folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _link_to_itself(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to(path)


KINDS: dict[str, Callable[[Path, random.Random], None]] = {
    function.__name__.strip("_"): function
    for function in (
        *(_remove, _empty, _cut, _flip_bytes, _fill_randomly, _replace, _change_a_line, _change_a_value),
        *(_make_a_folder, _link_to_itself),
    )
}


def draw_damages() -> list[Damage]:
    rng = random.Random(15)
    return [Damage(rng.choice(FILES), rng.choice(list(KINDS)), index) for index in range(NUM_DAMAGES)]


def check_command(*arguments: str, accepted_statuses: tuple[int, ...] = (0, 2)) -> int:
    status = main(arguments)
    assert status in accepted_statuses, arguments
    return status


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Return a sweep of a run that will be damaged and its good neighbor, of another seed."""
    directory = tmp_path / "sweep"
    for number in (0, 1):
        run = shutil.copytree(RUN, directory / f"{number}_seed={number}")
        record, recipe = json.loads((run / "run.json").read_text()), (run / "config.yaml").read_text()
        (run / "run.json").write_text(json.dumps(record | {"seed": number}))
        (run / "config.yaml").write_text(recipe.replace("\nseed: 0\n", f"\nseed: {number}\n"))
    (directory / "sweep.json").write_text(json.dumps({"arguments": ["-m", "seed=0,1"], "jobs": 2}))
    return directory


@pytest.mark.long
@pytest.mark.parametrize("damage", draw_damages(), ids=lambda damage: f"{damage.file}-{damage.kind}-{damage.seed}")
def test_a_damaged_run_is_right_or_named(
    damage: Damage, sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, neighbor = sweep / "0_seed=0", sweep / "1_seed=1"
    damage.apply(sweep if damage.file == "sweep.json" else run)
    check_neighbor_is_compared(sweep, neighbor)
    check_opening(run)
    if damage.file in (CHECKPOINT, "metrics.json", "run.json"):  # all that evaluate reads
        check_evaluation(run, capsys)
    check_resuming(run, sweep)
    check_command("report", str(run))
    check_command("list", "runs", str(sweep), accepted_statuses=(0,))
    output = capsys.readouterr()
    assert "Traceback" not in output.err + output.out
    assert neighbor.name.partition("_")[0] in output.out


def check_neighbor_is_compared(sweep: Path, neighbor: Path) -> None:
    comparison = build_comparison([sweep])
    comparison.to_markdown()
    accuracies = {row["run"]: row["test_accuracy"] for row in comparison.runs.to_dict("records")}
    assert accuracies[neighbor.name] == TEST_ACCURACY
    damaged_accuracy = accuracies.get("0_seed=0", TEST_ACCURACY)
    assert damaged_accuracy == TEST_ACCURACY or damaged_accuracy != damaged_accuracy  # left out: nan


def check_opening(run: Path) -> None:
    def read_everything(directory: Path) -> None:
        opened_run = open_run(directory)
        repr(opened_run)
        _ = (opened_run.history, opened_run.plan, opened_run.predictions)
        assert not opened_run.metrics or opened_run.metrics["test"]["accuracy"] == TEST_ACCURACY

    check_named(read_everything, run)


def check_evaluation(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    if check_command("evaluate", str(run), "--split", "test") == 0:
        assert re.search(r"^accuracy +0\.250 ", capsys.readouterr().out, re.MULTILINE)


def check_resuming(run: Path, sweep: Path) -> None:
    """Check what `thaw resume` does before it trains."""
    check_named(check_resumable, run)
    check_named(read_jobs, sweep)


def check_named(function: Callable[[Path], object], directory: Path) -> None:
    """Check that `function` succeeds, or names a file in `directory`."""
    message = ""
    try:
        function(directory)
    except UserError as error:
        message = str(error)
    assert not message or str(directory) in message


@pytest.mark.long
def test_the_undamaged_run_passes_all_checks(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_neighbor_is_compared(sweep, sweep / "1_seed=1")
    check_evaluation(sweep / "0_seed=0", capsys)
    check_command("report", str(sweep / "0_seed=0"), accepted_statuses=(0,))
    assert load(sweep / "0_seed=0").classes
