"""`thaw inspect`, as a user types it."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from tests.conftest import run_thaw
from thaw.config.compose import check_command, parse_command
from thaw.config.errors import UserError


@pytest.fixture
def run_inspect(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The lines that `thaw inspect` says, where no network can be reached."""

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network")

    def read_lines(*arguments: str) -> list[str]:
        monkeypatch.setattr(socket.socket, "connect", unreachable)
        monkeypatch.setattr(socket, "getaddrinfo", unreachable)
        assert run_thaw(monkeypatch, "inspect", *arguments) == 0
        return [line.rstrip() for line in capsys.readouterr().out.splitlines()]

    return read_lines


def row(read_lines: list[str], stage: str) -> list[str]:
    return next(line.split() for line in read_lines if line.split()[:1] == [stage])


def test_the_stage_table_has_the_figures_of_a_published_network(run_inspect: Any) -> None:
    lines = run_inspect("backbone=resnet18")
    assert lines[1] == "images of 224 x 224, the size of the default weights; 1000 classes, as in ImageNet"
    assert row(lines, "layer4") == ["layer4", "512", "8,393,728", "71.8%", "0.4110", "5"]
    assert row(lines, "total") == ["total", "11,689,512", "100.0%", "1.8141", "20"]
    assert "GMACs: billions of multiply-adds for one image, often called GFLOPs" in lines


def test_a_named_data_set_gives_size_and_classes(run_inspect: Any) -> None:
    lines = run_inspect("backbone=resnet18", "dataset=captcha", "dataset.characters=ABC", "dataset.image_size=64")
    assert lines[1] == "images of 64 x 64, of dataset=captcha; 3 classes, of dataset=captcha"
    assert row(lines, "head")[:3] == ["head", "3", "1,539"]


def test_a_data_set_on_another_machine_is_not_downloaded(run_inspect: Any) -> None:
    lines = run_inspect("backbone=resnet18", "dataset=hymenoptera")
    assert lines[1].endswith("1000 classes, as those of hymenoptera are not read")


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_networks_of_timm_are_inspected(name: str, run_inspect: Any) -> None:
    lines = run_inspect("backbone=timm", f"backbone.name={name}")
    assert lines[0] == f"timm {name}"
    assert row(lines, "total")[1] == {"resnet18": "11,689,512", "vit_tiny_patch16_224": "5,717,416"}[name]


def test_a_constructor_may_compute_with_tensors(run_inspect: Any) -> None:
    lines = run_inspect("backbone=torchvision", "backbone.name=regnet_y_400mf", "dataset.image_size=32")
    assert row(lines, "block4")[-1] == "19"


def test_weights_whose_package_is_not_installed_are_not_needed(run_inspect: Any) -> None:
    overrides = ("backbone=efficientnet_lite1", "backbone.package.file=not_installed/weights.pth")
    with pytest.raises(UserError, match="not installed"):
        check_command(parse_command(overrides))
    assert row(run_inspect(*overrides), "total")[1] == "5,416,680"


def test_layers_are_listed_by_stage(run_inspect: Any) -> None:
    lines = run_inspect("backbone=resnet18", "--layers")
    start = next(number for number, line in enumerate(lines) if line.startswith("stage") and "layer  " in line)
    rows = [line.split() for line in lines[start + 1 :]]
    assert rows[0] == ["stem", "conv1", "Conv2d", *["64", "x", "112", "x", "112"], "9,408"]
    assert rows[1][0] == "bn1"  # a stage's name stands once
    num_parameters = sum(int(cells[-1].replace(",", "")) for cells in rows if cells[-1] != "-")
    assert num_parameters == 11_689_512


def test_the_plan_of_a_strategy_is_shown(run_inspect: Any) -> None:
    lines = run_inspect("backbone=resnet18", "strategy=fixed", "--plan")
    assert "11,689,512 parameters, 513,000 trainable (4.4%)" in lines
    assert sum("frozen" in line for line in lines) == 5


def test_random_weights_are_inspected_under_any_strategy(run_inspect: Any) -> None:
    assert row(run_inspect("backbone=resnet18", "backbone.weights=none", "strategy=fixed"), "total")[-1] == "20"


def test_attention_pooling_is_counted(run_inspect: Any) -> None:
    """The query of SigLIP's pooling is a parameter, at which torch's counter failed."""
    lines = run_inspect("backbone=timm", "backbone.name=vit_base_patch16_siglip_224", "strategy=scratch")
    assert float(row(lines, "total")[3]) > 10


def test_stages_that_are_no_measure_of_depth_are_named(run_inspect: Any) -> None:
    lines = run_inspect("backbone=timm", "backbone.name=xcit_nano_12_p16_224")
    assert any(line.startswith("the backbone has 2 stages, and stem has 90 of its 102 layers") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("backbone=torchvision", "backbone.name=vit_b_32", "dataset.image_size=33"), "dataset.image_size=32"),
        (("backbone=timm", "backbone.name=gemma4_vit_167m_enc"), "an encoder of another model"),
        (("backbone=resnet81",), "backbone=resnet18"),
        (("backbone=resnet18", "--layer"), "--layers"),
        (("-m", "backbone=resnet18,resnet50"), "-m"),
        (("backbone=resnet18", "trainer.epochs=0"), "trainer.epochs=0"),
        (("backbone=resnet18", "strategy.phases.all.train=[layer9]", "--plan"), "layer9"),
    ],
)
def test_wrong_commands_end_with_2_and_show_the_fix(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_thaw(monkeypatch, "inspect", *arguments) == 2
    assert message in capsys.readouterr().err
