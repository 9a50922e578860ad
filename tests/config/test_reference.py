"""Every key of the recipe is described, and the JSON schema accepts every file in `conf/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from omegaconf import OmegaConf

from tests.conftest import ROOT
from thaw.config.compose import compose_recipe
from thaw.config.reference import (
    NOT_SET,
    SECTION_GROUPS,
    build_json_schema,
    build_schema_files,
    describe_keys,
    describe_valid_values,
    read_field_docs,
)
from thaw.config.schema import MlpHeadConfig, StepSchedule

FILES = sorted((ROOT / "conf").rglob("*.yaml"))
HEADER = "# yaml-language-server: $schema="
every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT / "conf")))


def read_schema_path(file: Path) -> Path:
    (line,) = [line for line in file.read_text().splitlines()[:2] if line.startswith(HEADER)]
    return (file.parent / line.removeprefix(HEADER)).resolve()


def find_errors(group: str | None, values: Any) -> list[str]:
    return [error.message for error in jsonschema.Draft7Validator(build_json_schema(group)).iter_errors(values)]


def test_every_key_has_a_meaning() -> None:
    assert [description.key for description in describe_keys() if not description.meaning.endswith(".")] == []


def test_the_reference_has_every_key_of_the_default_recipe() -> None:
    described_keys = {description.key for description in describe_keys()}
    free_mappings = ("strategy.phases", "optimizer.arguments")

    def iter_keys(values: dict[str, Any], prefix: str = "") -> set[str]:
        keys = {f"{prefix}{key}" for key, value in values.items() if not isinstance(value, dict)}
        for key, value in values.items():
            if isinstance(value, dict) and f"{prefix}{key}" not in free_mappings:
                keys |= iter_keys(value, f"{prefix}{key}.")
        return keys

    assert iter_keys(compose_recipe([]).to_dict()) <= described_keys


def test_a_default_is_that_of_the_preset() -> None:
    defaults = {(row.key, variant): row.default for row in describe_keys() for variant in row.variants or [""]}
    assert defaults["optimizer.learning_rate", ""] == "0.001"
    assert defaults["trainer.epochs", ""] == "4"
    assert defaults["scheduler.gamma", "step"] == defaults["scheduler.gamma", "plateau"] == "0.1"
    assert defaults["dataset.root", "folder"] == NOT_SET
    assert defaults["trainer.early_stopping", ""] == "null"
    assert defaults["trainer.averaging.decay", "ema"] == "0.999"
    assert defaults["strategy.phases.NAME.layer_decay", ""] == "1.0"
    assert defaults["optimizer.decay_norms_and_biases", ""] == "false"


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("trainer.batch_size", "integer (at least 2, at most 65536)"),
        ("trainer.devices", "integer or auto (greater than 0, at most 1024)"),
        ("trainer.accelerator", "auto, cpu, gpu"),
        ("head.dropout", "number (at least 0, less than 1)"),
        ("dataset.image_size", "integer or null (at least 16, at most 2048)"),
        ("strategy.phases.any.train", "list of text"),
        ("scheduler.gamma", "number (greater than 0, at most 1) or number (greater than 0, less than 1)"),
        ("trainer.epoch", ""),
    ],
)
def test_valid_values_are_described_by_type_and_range(key: str, words: str) -> None:
    assert describe_valid_values(key) == words


def test_the_string_below_a_field_is_its_description_also_if_a_base_class_has_it() -> None:
    assert read_field_docs(MlpHeadConfig)["hidden"] == "Width of each hidden layer."
    assert read_field_docs(StepSchedule)["warmup_epochs"].startswith("Epochs in which")


def test_the_schema_files_are_up_to_date() -> None:
    files = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "schema").glob("*")}
    assert files == build_schema_files(), "run python -m thaw.config.reference"


@every_file
def test_a_file_points_to_its_schema_and_fits_it(file: Path) -> None:
    schema = json.loads(read_schema_path(file).read_text())
    values = OmegaConf.to_container(OmegaConf.load(file))
    assert [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(values)] == []


@pytest.mark.parametrize("group", [*SECTION_GROUPS, None])
def test_a_schema_rejects_a_misspelt_key(group: str | None) -> None:
    assert find_errors(group, {"misspelt": 1})
    assert not find_errors(group, {"defaults": []})


def test_a_schema_rejects_a_wrong_value_and_describes_it() -> None:
    assert find_errors(None, {"trainer": {"epochs": "five"}})
    assert find_errors("trainer", {"epochs": 0})
    assert find_errors("head", {"kind": "linear", "hidden": [8]})
    definitions = build_json_schema("trainer")["$defs"]
    assert "Epochs of the whole training" in json.dumps(definitions)


def test_a_schema_of_an_unknown_group_is_an_error() -> None:
    with pytest.raises(KeyError):
        build_json_schema("trianer")


def test_hydra_does_not_take_the_schemas_for_a_group() -> None:
    assert not (ROOT / "conf" / "schema").exists()
    assert (ROOT / "schema").is_dir()
