"""The benchmarks run. Only a machine without other work gives meaningful measurements."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import (
    audit,
    cached,
    copies,
    decoding,
    finetune,
    frozen,
    heads,
    precision,
    probe,
    reproduce,
    scale,
    statistics,
    steps,
    strategies,
)
from benchmarks import input as benchmark_input
from benchmarks import sweep as benchmark_sweep
from tests.conftest import ROOT, TINY
from tests.images import write_image_folder


@pytest.mark.long
def test_steps_compares_a_step_of_each_strategy_with_one_of_finetune(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "STEPS", 2)
    steps.main([*TINY])
    rows = re.findall(r"^(\w+(?:, cached)?) +[\d.]+ +([\d.]+) x$", capsys.readouterr().out, re.MULTILINE)
    assert [name for name, _ in rows] == list(steps.STRATEGIES)
    assert dict(rows)["finetune"] == "1.00"


def test_cached_compares_steps_on_features_with_a_plain_loop(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached, "VECTORS", 100)
    cached.main(["trainer.epochs=2", "trainer.threads=1"])
    rows = re.findall(r"^(plain loop|thaw) +\d+ +\d+ +([\d.]+)$", capsys.readouterr().out, re.MULTILINE)
    assert [name for name, _ in rows] == ["plain loop", "thaw"]
    assert rows[0][1] == "1.00"


def test_finetune_compares_the_throughput_of_a_run_with_a_plain_loop(capsys: pytest.CaptureFixture[str]) -> None:
    finetune.main([*TINY, "trainer.epochs=3"])
    assert re.search(r"[\d.]+ images/s, plain loop [\d.]+ images/s", capsys.readouterr().out)


@pytest.mark.long
def test_strategies_prints_a_table_of_strategies_and_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(strategies, "STRATEGIES", ("scratch", "fixed"))
    monkeypatch.setattr(strategies, "RECIPE", (*TINY, "trainer.epochs=1", "seed=0,1"))
    assert strategies.main([]) == 0
    rows = re.findall(
        r"^\| `(\w+)` \| [\d.]+ ± [\d.]+ \| [\d.]+, [\d.]+ \| \d+ \|$", capsys.readouterr().out, re.MULTILINE
    )
    assert rows == ["scratch", "fixed"]


def test_strategies_trains_every_strategy_file() -> None:
    assert set(strategies.STRATEGIES) == {file.stem for file in (ROOT / "conf" / "strategy").glob("*.yaml")}


def test_input_is_compared_with_a_training_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    replacements = {"IMAGE_SIZE": 32, "BATCH_SIZE": 4, "EPOCHS": 1, "configure_process": lambda *_: None}
    for name, value in replacements.items():
        monkeypatch.setattr(benchmark_input, name, value)
    root = write_image_folder(tmp_path, {"train": 10}, classes=("ants", "bees")) / "train"
    monkeypatch.setattr("sys.argv", ["input", "--root", str(root)])
    benchmark_input.main()
    assert re.search(r"on real input [\d.]+: [\d.]+ of it", capsys.readouterr().out)


@pytest.mark.long
def test_decoding_compares_runs_and_passes_with_full_decoding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PHOTOGRAPH_SIZE": (1280, 1040), "ROUNDS": 1, "EPOCHS": 1, "NUM_PICTURES": 4}.items():
        monkeypatch.setattr(decoding, name, value)
    root = write_image_folder(tmp_path / "few", {"train": 6, "test": 4}, classes=("ants", "bees"))
    decoding.main(["--photographs", "24", str(root)])
    output = capsys.readouterr().out
    assert re.search(r"difference of 24 images of photographs, resized to 64 pixels: mean 0\.[0-9]*[1-9]", output)
    assert re.search(r"difference of 20 images of few, resized to 256 pixels: mean 0\.", output)
    titles = re.findall(r"^(.+), seconds$", output, re.MULTILINE)
    assert titles == ["first run on 24 photographs", "pass over few"]
    assert output.count("1.00 times as fast") >= 2


def test_heads_compares_a_grid_of_heads_with_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "ROUNDS", 1)
    heads.main([*TINY])
    output = capsys.readouterr().out
    assert re.search(r"108 heads \d+ ms: [\d.]+ x the time of one", output)
    assert re.search(r"its test accuracy [\d.]+, 95 % interval", output)


def test_probe_compares_rules_of_choice_and_strategy_fixed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "SEEDS", range(1))
    root = write_image_folder(tmp_path, {"train": 12}, classes=("ants", "bees")) / "train"
    overrides = [override for override in TINY if not override.startswith("dataset.")]
    probe.main([f"insects={root}", "dataset.image_size=32", "dataset.fractions.val=0.2", *overrides])
    assert re.search(
        r"^\| insects \| 2 \| \d+ \|( \d\.\d{3} \|){3}( [+-]\d\.\d{3} \|){2}$", capsys.readouterr().out, re.M
    )


@pytest.mark.long
def test_frozen_compares_runs_on_cached_features_with_a_plain_loop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen, "ROUNDS", 1)
    monkeypatch.setattr(frozen, "available_cpus", lambda: 0)
    frozen.main([*TINY, "dataset=captcha", "trainer.epochs=2"])
    output = capsys.readouterr().out
    assert re.search(r"plain loop, 2 epochs +[\d.]+ s +test accuracy [\d.]+", output)
    assert re.search(r"faster than the plain loop: first run [\d.]+ times, second [\d.]+ times", output)


@pytest.mark.long
def test_sweep_compares_the_time_of_a_sweep_with_that_of_its_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    benchmark_sweep.main([*TINY, "trainer.epochs=1", "seed=0", "strategy=scratch,fixed"])
    assert re.search(r"^2 jobs, .*\n.* the sweep takes [\d.]+ times as long$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.long
def test_audit_plants_faults_of_each_kind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "MAX_SCENES", 10)
    roots = [write_image_folder(tmp_path / name, {"": 30}, classes=("ants", "bees")) for name in ("first", "second")]
    audit.main([*(f"{root.name}={root}" for root in roots), "dataset.image_size=32", "trainer.threads=1"])
    rows = re.findall(r"^\| (first|second) \|(.*)\|$", capsys.readouterr().out, re.MULTILINE)
    assert [name for name, _ in rows] == ["first", "second"] * 2
    assert [row.count("|") for _, row in rows] == [8, 8, 11, 11]


@pytest.mark.long
def test_copies_plants_and_finds_near_copies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "NUM_PLANTED", 14)
    root = write_image_folder(tmp_path / "data", {"": 20}, classes=("ants", "bees"))
    copies.main([f"data={root}", "dataset.image_size=32", "trainer.threads=1"])
    row = capsys.readouterr().out.splitlines()[-1]
    assert re.match(r"\| data \| 54 \| \d+ of 14 \|", row)
    assert row.count("|") == 15


def test_statistics_counts_false_alarms_and_coverage() -> None:
    for name in ("images: one seed, 300 images", "pooled images: 5 folds, centroids"):
        simulate, _ = statistics.build_rows()[name]
        row = statistics.run_row(lambda rng, simulate=simulate: simulate(rng, 0.0), 40)  # type: ignore[misc]
        assert row["different"] <= 0.2
        assert row["covers"] >= 0.8
        assert row["accuracy covers"] >= 0.8
    assert statistics.run_plain_t_test(10, 40) > 0.05


@pytest.mark.long
def test_reproduce_compares_experiments_with_their_published_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))
    root = write_image_folder(tmp_path / "data", {"train": 6, "val": 3}, classes=("ants", "bees"))
    small_overrides = ("dataset.image_size=32", "trainer.epochs=1", "trainer.accelerator=cpu", "trainer.threads=1")
    arguments = [
        "hymenoptera_fixed",
        "hotdog_fixed",
        "--lite",
        "--seeds=0,1",
        f"--root=hymenoptera={root}",
        *small_overrides,
    ]
    assert reproduce.main(arguments) == 0
    assert reproduce.main(["hymenoptera_finetune", "--root", f"hymenoptera={root}", *small_overrides]) == 0
    output = capsys.readouterr().out
    number = r"\d\.\d{3}"
    result = rf"accuracy {number} ± {number} \(2 seeds, {number} to {number} by 6 images\)"
    row = rf"^\| `hymenoptera_fixed` \| accuracy 0\.948 to 0\.961 \| {result} \| \S+ \| tf_efficientnet_lite0 instead"
    assert re.search(row, output, re.MULTILINE)
    assert f"hotdog.zip as {tmp_path / 'cache' / 'downloads' / 'hotdog.zip'}" in output
    assert f"resnet18-f37072fd.pth as {tmp_path / 'cache' / 'weights'}" in output


def test_scale_measures_a_first_and_a_second_start_and_removes_the_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_here(command: list[str], **_: object) -> SimpleNamespace:
        scale.main(command[3:])
        return SimpleNamespace(stdout=capsys.readouterr().out)

    monkeypatch.setattr(scale, "subprocess", SimpleNamespace(run=run_here))
    monkeypatch.setattr(scale, "NUM_CLASSES", 4)
    scale.main(["300", "--folder", str(tmp_path)])
    assert re.search(
        r"^\| 300 \| [\d.]+ \| [\d.]+ \| -?[\d.]+ \| -?\d+ \| -?\d+ \|$", capsys.readouterr().out, re.MULTILINE
    )
    assert list(tmp_path.iterdir()) == []


def test_every_benchmark_is_tested_here() -> None:
    files = {file.stem for file in (ROOT / "benchmarks").glob("*.py")} - {"__init__"}
    assert files == {
        "audit",
        "cached",
        "copies",
        "decoding",
        "finetune",
        "frozen",
        "heads",
        "input",
        "precision",
        "probe",
        "reproduce",
        "scale",
        "statistics",
        "steps",
        "strategies",
        "sweep",
    }


def test_precision_compares_speed_and_accuracy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "IMAGE_SIZE", 32)
    monkeypatch.setattr(precision, "NETWORKS", {"EfficientNet-Lite0": ("backbone=efficientnet_lite0",)})
    monkeypatch.setattr(precision, "STRATEGIES", ("fixed",))
    monkeypatch.setattr(precision, "SEEDS", (0, 1))
    precision.main(["captcha", *(override for override in TINY if "precision" not in override), "trainer.epochs=1"])
    output = capsys.readouterr().out
    assert re.search(r"\| EfficientNet-Lite0 (\| [\d.*]+ ){6}\|", output)
    assert re.search(r"\| captcha \| `fixed` (\| [\d.]+ ± [\d.]+ ){2}\| [+-][\d.]+ \|", output)
