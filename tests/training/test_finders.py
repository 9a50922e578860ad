"""The learning-rate range test and the trials of batch sizes, as functions."""

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
from thaw.models.network import Network
from thaw.system.memory import get_available_in_cgroup, get_available_memory, get_peak_memory, reset_peak_memory
from thaw.training.module import ClassificationModule
from thaw.training.tuner import batch_size_finder
from thaw.training.tuner.batch_size_finder import BatchSizeResult, BatchSizeTrial, find_batch_size
from thaw.training.tuner.lr_finder import range_test

Seen = list[dict[str, float]]


def tiny(*overrides: str) -> Recipe:
    return compose_recipe([*TINY, *overrides])


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """The learning rates by part of every batch, of what had a gradient to follow."""
    rates: Seen = []
    step: Callable[..., Any] = ClassificationModule.training_step

    def watched(learner: ClassificationModule, *arguments: Any) -> Any:
        groups = learner.trainer.optimizers[0].param_groups
        moving = [one for one in groups if any(each.requires_grad for each in one["params"])]
        rates.append({one["part"]: one["lr"] for one in moving})
        return step(learner, *arguments)

    monkeypatch.setattr(ClassificationModule, "training_step", watched)
    return rates


def test_rates_rise_by_one_factor_and_parts_keep_their_multipliers(seen: Seen) -> None:
    curve, phase = range_test(tiny(), 1e-6, 1e-4, 9)
    assert phase == "all"
    assert curve.learning_rates == pytest.approx([10 ** (-6 + step / 4) for step in range(9)])
    assert [one["stem"] for one in seen] == pytest.approx(list(curve.learning_rates))
    assert [one["head"] for one in seen] == pytest.approx([10 * rate for rate in curve.learning_rates])


def test_a_test_longer_than_the_first_phase_stays_in_it(seen: Seen) -> None:
    """36 images in batches of 8 are 4 steps an epoch; the head alone trains in one epoch of this recipe."""
    recipe = tiny("strategy=lp_ft", "trainer.epochs=2")
    curve, phase = range_test(recipe, 1e-6, 1e-4, 10)
    assert phase == next(iter(recipe.strategy.phases))
    assert len(curve.losses) == 10
    assert all(set(one) == {"head"} for one in seen)


def test_the_same_seed_gives_the_same_losses_and_another_seed_others() -> None:
    first, again, other = (range_test(tiny(f"seed={seed}"), 1e-6, 1e-2, 5)[0] for seed in (0, 0, 1))
    assert first == again
    assert first.losses != other.losses


def test_a_step_of_several_batches_has_their_mean_loss() -> None:
    """At rates at which no weight moves."""
    whole, _ = range_test(tiny("trainer.accumulate_grad_batches=2"), 1e-14, 1e-13, 2)
    parts, _ = range_test(tiny(), 1e-14, 1e-13, 4)
    assert whole.losses[0] == pytest.approx((parts.losses[0] + parts.losses[1]) / 2, rel=1e-4)
    assert whole.losses[1] == pytest.approx((parts.losses[2] + parts.losses[3]) / 2, rel=1e-4)


@pytest.mark.parametrize("highest", [1e3, 1e30])
def test_it_ends_where_the_loss_diverges(seen: Seen, highest: float) -> None:
    curve, _ = range_test(tiny("optimizer=sgd"), 1e-3, highest, 30)
    assert curve.has_diverged
    assert len(curve.losses) < 30
    assert len(seen) <= len(curve.losses) + 1


def fullness(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Lets forward passes of more than `most` images fail as torch fails on a full GPU."""
    forward = Network.forward

    def limited(network: Network, images: torch.Tensor) -> torch.Tensor:
        if len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(network, images)

    monkeypatch.setattr(Network, "forward", limited)


def test_batches_double_up_to_the_number_of_training_images() -> None:
    found = find_batch_size(tiny(), 16, 512)
    assert [one.batch_size for one in found.trials] == [16, 32]
    assert found.stop_reason == "there are 36 training images"
    assert all(one.images_per_s > 0 for one in found.trials)


def test_the_phase_that_trains_most_is_measured(seen: Seen) -> None:
    found = find_batch_size(tiny("strategy=lp_ft"), 4, 4)
    assert found.phase_name == list(tiny("strategy=lp_ft").strategy.phases)[-1]
    assert all("stem" in one for one in seen)
    assert found.stop_reason == "highest=4"


def test_where_frozen_stages_run_once_the_finders_train_on_features(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        pytest.fail("an image went through the whole network")

    monkeypatch.setattr(ClassificationModule, "forward", refused)
    fixed = tiny("strategy=fixed")
    curve, _ = range_test(fixed, 1e-5, 1.0, 25)
    assert curve.losses[0] > curve.losses[-1]
    found = find_batch_size(fixed, 4, 8)
    assert found.input_kind == "features"
    assert [one.batch_size for one in found.trials] == [4, 8]


def test_a_full_memory_ends_the_trials_and_leaves_the_process_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        fullness(patch, 8)
        found = find_batch_size(tiny(), 8, 512)
    assert [one.batch_size for one in found.trials] == [8]
    assert found.stop_reason == "16 is out of memory"
    assert [one.batch_size for one in find_batch_size(tiny(), 16, 16).trials] == [16]


def test_where_nothing_fits_the_user_is_told_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    fullness(monkeypatch, 3)
    with pytest.raises(UserError, match="min_batch_size=2"):
        find_batch_size(tiny(), 4, 8)
    with pytest.raises(UserError, match="36 training images"):
        find_batch_size(tiny(), 64, 128)


def test_a_full_memory_in_the_range_test_is_the_users_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    fullness(monkeypatch, 6)
    with pytest.raises(UserError, match=r"trainer\.batch_size=4"):
        range_test(tiny(), 1e-6, 1e-2, 5)


def test_on_a_cpu_no_batch_is_tried_that_would_take_most_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_size_finder, "get_available_memory", lambda: 2**20)
    found = find_batch_size(tiny(), 8, 32)
    assert len(found.trials) < 3
    assert "GiB of 0.0 available" in found.stop_reason


def test_the_largest_of_the_fast_ones_is_suggested() -> None:
    speeds = {4: 50.0, 8: 98.5, 16: 100.0, 32: 99.0, 64: 90.0}
    trials = BatchSizeResult(
        tuple(BatchSizeTrial(size, speed, 0) for size, speed in speeds.items()), "", "all", "images"
    )
    assert trials.suggestion == 32


def test_the_peak_holds_what_was_used_for_a_moment() -> None:
    reset_peak_memory()
    before = get_peak_memory()
    size = 200 * 2**20
    del [torch.ones(size, dtype=torch.uint8)][0]
    assert get_peak_memory() > before + size / 4  # the heap may have held a part already
    assert get_available_memory() > 2**20


@pytest.mark.parametrize(("limit", "left"), [("1000", 1000 - 600 + 150), ("max", 2**40)])
def test_a_containers_limit_counts_and_its_file_cache_gives_way(tmp_path: Path, limit: str, left: int) -> None:
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text("600\n")
    (tmp_path / "memory.stat").write_text("anon 300\ninactive_file 150\n")
    assert min(get_available_in_cgroup(tmp_path), 2**40) == left
    assert min(get_available_in_cgroup(tmp_path / "none"), 2**40) == 2**40
