"""What each strategy file leaves as it was, and what it changes; found by globbing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT, TINY, only_run
from thaw.config.schema import Recipe
from thaw.data.cache import cache_folder
from thaw.launch import launch
from thaw.network.build import build_network, source_for

STRATEGIES = sorted(path.stem for path in (ROOT / "conf" / "strategy").glob("*.yaml"))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_frozen_parts_stay_as_they_were_and_trained_ones_move(strategy: str, tmp_path: Path) -> None:
    assert launch([*TINY, f"strategy={strategy}", f"output_dir={tmp_path}"]) == 0
    run = only_run(tmp_path)
    after = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    before = _weights_at_the_start(run)
    trained = {
        part["name"]
        for phase in json.loads((run / "run.json").read_text())["plan"]
        for part in phase["parts"]
        if part["trainable"]
    }
    for name, value in before.items():
        part = "head" if name.startswith("head.") else name.split(".")[1]
        same = torch.equal(value, after[f"network.{name}"])
        assert same == (part not in trained), name


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_optimizer_has_the_rates_and_decays_that_the_table_says(strategy: str, tmp_path: Path) -> None:
    recipe = [*TINY, f"strategy={strategy}", "scheduler=constant", "optimizer.weight_decay=0.02"]
    assert launch([*recipe, f"output_dir={tmp_path}"]) == 0
    run = only_run(tmp_path)
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    planned = {part["name"]: part for part in json.loads((run / "run.json").read_text())["plan"][-1]["parts"]}
    groups = checkpoint["optimizer_states"][0]["param_groups"]
    assert {group["part"] for group in groups} == set(planned)
    for group in groups:
        part = planned[group["part"]]
        assert group["lr"] == pytest.approx(part["learning_rate"])
        assert group["weight_decay"] == (part["weight_decay"] if group["decays"] else 0.0)


def _weights_at_the_start(run: Path) -> dict[str, torch.Tensor]:
    about = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["thaw"]
    recipe = Recipe.model_validate(about["recipe"])
    random = recipe.strategy.start == "random"
    source = source_for(recipe.backbone, random, recipe.seed, cache_folder(None), None)
    preprocessing = source.preprocessing.at(recipe.dataset.image_size, recipe.dataset.crop)
    return build_network(source, recipe.head, len(about["classes"]), preprocessing).state_dict()
