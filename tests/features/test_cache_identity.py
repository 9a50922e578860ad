"""Training, evaluation and probes compute the same key for the same features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import thaw.features.cache
import thaw.inference.evaluate
from tests.conftest import TINY, get_only_run
from thaw.cli.train import launch
from thaw.config.compose import compose_recipe
from thaw.config.schema import Recipe
from thaw.data.factory import load_samples
from thaw.inference.evaluate import evaluate_splits
from thaw.inference.load import load_checkpoint
from thaw.probing.linear_heads import HeadGrid
from thaw.probing.probe import probe
from thaw.runs.run import open_run
from thaw.training.extraction import extract_features

SMALL_GRID = HeadGrid(learning_rates=(1e-2,), weight_decays=(0.0,), seeds=1, epochs=2)


def list_keys(recipe: Recipe) -> list[str]:
    assert recipe.data.cache_dir is not None
    return sorted(path.name for path in (Path(recipe.data.cache_dir) / "features").iterdir() if path.name[0] != ".")


@pytest.fixture(scope="module")
def trained_recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Train a head on cached features; return the recipe."""
    folder = tmp_path_factory.mktemp("trained")
    overrides = [*TINY, "strategy=fixed", f"data.cache_dir={folder / 'cache'}", f"output_dir={folder / 'outputs'}"]
    assert launch(overrides) == 0
    return compose_recipe(overrides)


@pytest.fixture
def _no_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thaw.features.cache, "extract_features", lambda *_: pytest.fail("features were computed"))


@pytest.mark.usefixtures("_no_computation")
def test_a_probe_finds_the_features_of_a_training(trained_recipe: Recipe, tmp_path: Path) -> None:
    keys = list_keys(trained_recipe)
    result = probe(trained_recipe, SMALL_GRID, tmp_path / "probe")
    assert result.metrics["timing"]["cache_s"] == 0
    assert list_keys(trained_recipe) == keys


@pytest.mark.usefixtures("_no_computation")
def test_an_extraction_finds_the_features_of_a_training(trained_recipe: Recipe) -> None:
    assert extract_features(trained_recipe).seconds == 0


def test_evaluation_finds_the_features_of_a_training(trained_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thaw.inference.evaluate, "iter_predictions", lambda *_: pytest.fail("images were decoded"))
    run_directory = get_only_run(Path(trained_recipe.output_dir))
    evaluation = evaluate_splits(
        load_checkpoint(run_directory), trained_recipe, load_samples(trained_recipe), ["test"]
    )["test"]
    assert evaluation.compute_metrics()["accuracy"] == open_run(run_directory).metrics["test"]["accuracy"]


def test_evaluation_finds_the_features_of_a_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = compose_recipe([*TINY, "strategy=fixed", f"data.cache_dir={tmp_path / 'cache'}"])
    result = probe(recipe, SMALL_GRID, tmp_path / "probe")
    monkeypatch.setattr(thaw.inference.evaluate, "iter_predictions", lambda *_: pytest.fail("images were decoded"))
    evaluation = evaluate_splits(load_checkpoint(result.run.directory), recipe, load_samples(recipe), ["test"])["test"]
    assert evaluation.compute_metrics()["accuracy"] == result.metrics["test"]["accuracy"]


@pytest.mark.parametrize("change", ["trainer.precision=bf16-mixed", "augment=flip"])
def test_evaluation_decodes_images_if_the_recipe_needs_other_features(
    change: str, trained_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded_paths: list[Path] = []
    iter_predictions = thaw.inference.evaluate.iter_predictions

    def record_paths(classifier: object, paths: list[Path], batch_size: int) -> object:
        decoded_paths.extend(paths)
        return iter_predictions(classifier, paths, batch_size)

    monkeypatch.setattr(thaw.inference.evaluate, "iter_predictions", record_paths)
    run_directory = get_only_run(Path(trained_recipe.output_dir))
    overrides = [*TINY, "strategy=fixed", f"data.cache_dir={trained_recipe.data.cache_dir}", change]
    recipe = compose_recipe(overrides)
    classifier = load_checkpoint(run_directory).on_hardware(recipe.trainer)
    evaluation = evaluate_splits(classifier, recipe, load_samples(recipe), ["test"])["test"]
    assert len(decoded_paths) == len(evaluation.positions)
    assert np.isfinite(evaluation.logits.numpy()).all()
