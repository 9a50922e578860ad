"""The learning-rate range test and the batch-size finder, as functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import TINY
from thaw.config.compose import compose_recipe
from thaw.config.errors import UserError
from thaw.config.schema import Recipe
from thaw.data.batches import Batch
from thaw.models.network import Network
from thaw.system.process import get_available_in_cgroup, get_available_memory, get_peak_memory, reset_peak_memory
from thaw.training.module import ClassificationModule
from thaw.training.tuner import batch_size_finder
from thaw.training.tuner.batch_size_finder import BatchSizeResult, BatchSizeTrial, find_batch_size
from thaw.training.tuner.lr_finder import range_test

LearningRates = list[dict[str, float]]


def compose_tiny(*overrides: str) -> Recipe:
    return compose_recipe([*TINY, *overrides])


@pytest.fixture
def learning_rates(monkeypatch: pytest.MonkeyPatch) -> LearningRates:
    """The learning rates of the parts that trained, for every batch."""
    learning_rates: LearningRates = []
    compute_loss: Callable[..., Any] = ClassificationModule.compute_training_loss

    def record_and_compute(module: ClassificationModule, batch: Batch) -> Any:
        groups = module.trainer.optimizers[0].param_groups
        trained_groups = [group for group in groups if any(parameter.requires_grad for parameter in group["params"])]
        learning_rates.append({group["part"]: group["lr"] for group in trained_groups})
        return compute_loss(module, batch)

    monkeypatch.setattr(ClassificationModule, "compute_training_loss", record_and_compute)
    return learning_rates


def test_rates_rise_by_a_constant_factor_and_parts_keep_their_multipliers(learning_rates: LearningRates) -> None:
    curve, phase = range_test(compose_tiny(), 1e-6, 1e-4, 9)
    assert phase == "all"
    assert curve.learning_rates == pytest.approx([10 ** (-6 + step / 4) for step in range(9)])
    assert [rates["stem"] for rates in learning_rates] == pytest.approx(list(curve.learning_rates))
    assert [rates["head"] for rates in learning_rates] == pytest.approx([10 * rate for rate in curve.learning_rates])


def test_a_range_test_longer_than_the_first_phase_stays_in_it(learning_rates: LearningRates) -> None:
    """36 images in batches of 8 are 4 steps an epoch; only the head trains in the first epoch of this recipe."""
    recipe = compose_tiny("strategy=lp_ft", "trainer.epochs=2")
    curve, phase = range_test(recipe, 1e-6, 1e-4, 10)
    assert phase == next(iter(recipe.strategy.phases))
    assert len(curve.losses) == 10
    assert all(set(rates) == {"head"} for rates in learning_rates)


def test_the_same_seed_gives_the_same_losses_and_another_seed_others() -> None:
    first, repeated, other_seed = (range_test(compose_tiny(f"seed={seed}"), 1e-6, 1e-2, 5)[0] for seed in (0, 0, 1))
    assert first == repeated
    assert first.losses != other_seed.losses


def test_a_step_of_several_batches_has_their_mean_loss() -> None:
    """The learning rates are too low to change a weight."""
    accumulated, _ = range_test(compose_tiny("trainer.accumulate_grad_batches=2"), 1e-14, 1e-13, 2)
    single, _ = range_test(compose_tiny(), 1e-14, 1e-13, 4)
    assert accumulated.losses[0] == pytest.approx((single.losses[0] + single.losses[1]) / 2, rel=1e-4)
    assert accumulated.losses[1] == pytest.approx((single.losses[2] + single.losses[3]) / 2, rel=1e-4)


@pytest.mark.parametrize("highest", [1e3, 1e30])
def test_it_ends_where_the_loss_diverges(learning_rates: LearningRates, highest: float) -> None:
    curve, _ = range_test(compose_tiny("optimizer=sgd"), 1e-3, highest, 30)
    assert curve.has_diverged
    assert len(curve.losses) < 30
    assert len(learning_rates) <= len(curve.losses) + 1


def limit_memory(monkeypatch: pytest.MonkeyPatch, max_images: int) -> None:
    """Make forward passes of more than `max_images` images fail as torch fails on a full GPU."""
    forward = Network.forward

    def forward_limited(network: Network, images: torch.Tensor) -> torch.Tensor:
        if len(images) > max_images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(network, images)

    monkeypatch.setattr(Network, "forward", forward_limited)


def test_batches_double_up_to_the_number_of_training_images() -> None:
    result = find_batch_size(compose_tiny(), 16, 512)
    assert [trial.batch_size for trial in result.trials] == [16, 32]
    assert result.stop_reason == "there are 36 training images"
    assert all(trial.images_per_s > 0 for trial in result.trials)


def test_the_phase_that_trains_most_is_measured(learning_rates: LearningRates) -> None:
    result = find_batch_size(compose_tiny("strategy=lp_ft"), 4, 4)
    assert result.phase_name == list(compose_tiny("strategy=lp_ft").strategy.phases)[-1]
    assert all("stem" in rates for rates in learning_rates)
    assert result.stop_reason == "--max-batch-size 4"


def test_finders_train_on_cached_features(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_on_image(*_: object) -> None:
        pytest.fail("an image went through the whole network")

    monkeypatch.setattr(ClassificationModule, "forward", fail_on_image)
    recipe = compose_tiny("strategy=fixed")
    curve, _ = range_test(recipe, 1e-5, 1.0, 25)
    assert curve.losses[0] > curve.losses[-1]
    result = find_batch_size(recipe, 4, 8)
    assert result.input_kind == "features"
    assert [trial.batch_size for trial in result.trials] == [4, 8]


def test_full_memory_ends_the_trials_and_leaves_the_process_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        limit_memory(patch, 8)
        result = find_batch_size(compose_tiny(), 8, 512)
    assert [trial.batch_size for trial in result.trials] == [8]
    assert result.stop_reason == "16 is out of memory"
    assert [trial.batch_size for trial in find_batch_size(compose_tiny(), 16, 16).trials] == [16]


def test_if_nothing_fits_the_error_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_memory(monkeypatch, 3)
    with pytest.raises(UserError, match="--min-batch-size 2"):
        find_batch_size(compose_tiny(), 4, 8)
    with pytest.raises(UserError, match="36 training images"):
        find_batch_size(compose_tiny(), 64, 128)


def test_full_memory_in_the_range_test_is_a_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_memory(monkeypatch, 6)
    with pytest.raises(UserError, match=r"trainer\.batch_size=4"):
        range_test(compose_tiny(), 1e-6, 1e-2, 5)


def test_on_a_cpu_batches_that_would_take_most_of_the_memory_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_size_finder, "get_available_memory", lambda: 2**20)
    result = find_batch_size(compose_tiny(), 8, 32)
    assert len(result.trials) < 3
    assert "GiB of 0.0 available" in result.stop_reason


def test_the_largest_of_the_fast_batch_sizes_is_suggested() -> None:
    speeds = {4: 50.0, 8: 98.5, 16: 100.0, 32: 99.0, 64: 90.0}
    trials = BatchSizeResult(
        tuple(BatchSizeTrial(size, speed, 0) for size, speed in speeds.items()), "", "all", "images"
    )
    assert trials.suggestion == 32


def test_the_peak_includes_memory_that_was_used_briefly() -> None:
    reset_peak_memory()
    before = get_peak_memory()
    size = 200 * 2**20
    del [torch.ones(size, dtype=torch.uint8)][0]
    assert get_peak_memory() > before + size / 4  # the heap may have had a part already
    assert get_available_memory() > 2**20


@pytest.mark.parametrize(("limit", "left"), [("1000", 1000 - 600 + 150), ("max", 2**40)])
def test_the_limit_of_a_container_counts_without_its_file_cache(tmp_path: Path, limit: str, left: int) -> None:
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text("600\n")
    (tmp_path / "memory.stat").write_text("anon 300\ninactive_file 150\n")
    assert min(get_available_in_cgroup(tmp_path), 2**40) == left
    assert min(get_available_in_cgroup(tmp_path / "none"), 2**40) == 2**40
