"""The parts of a run, put together from its recipe: materials, plan, supply, learner."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from thaw.config.faults import Fault, UserFault
from thaw.config.schema import Recipe
from thaw.data.balance import class_weights
from thaw.data.preprocessing import Preprocessing
from thaw.data.samples import Samples
from thaw.features.decision import decisions, told
from thaw.network.cost import StageCost
from thaw.network.kinds import size_of
from thaw.network.network import HEAD
from thaw.strategy.plan import Plan
from thaw.strategy.schedule import factor
from thaw.training.checkpoint import description
from thaw.training.feed import Feed, feed_of
from thaw.training.hardware import Layout, hardware, memory_format_for
from thaw.training.learner import Learner
from thaw.training.materials import Materials, gathered
from thaw.training.objective import built_optimizer, trained_parameters
from thaw.training.planning import plan_of
from thaw.training.run import Run
from thaw.training.supply import Supply
from thaw.training.tables import print_plan


@dataclass(frozen=True)
class Assembly:
    """What training needs. `precision` is Lightning's name of it, `layout` are the processes that train together."""

    samples: Samples
    preprocessing: Preprocessing
    stages: list[StageCost]
    feed: Feed
    learner: Learner
    supply: Supply
    accelerator: str
    precision: Any
    layout: Layout


def assembled(run: Run) -> Assembly:
    """Raises UserFault where data, weights or hardware are not as the recipe needs them."""
    recipe, made = run.recipe, gathered(run.recipe)
    samples, network = made.samples, made.network
    _check_unchanged(run, samples)
    plan = plan_of(recipe, network)
    totals = {
        "total": size_of(list(network.parameters())),
        "trainable": size_of(trained_parameters(network, plan, [*network.stages, HEAD])),
    }
    print_plan([one.facts for one in made.stages], plan, totals, recipe.strategy.source_pull)
    supply = _supply(run, made, plan)
    features = [one.plain() for one in supply.decisions.values()]
    run.note(
        **made.recorded(),
        parameters=totals,
        plan=plan.plain(),
        features=features,
        hardware=hardware(),
        processes=made.layout.plain(),
    )
    feed = feed_of(recipe, samples, made.images, supply, made.on_gpu, run.rank)
    _say_processes(made)
    return Assembly(
        samples,
        made.preprocessing,
        made.stages,
        feed,
        _learner(made, plan, feed, supply),
        supply,
        made.accelerator,
        made.precision,
        made.layout,
    )


def _say_processes(made: Materials) -> None:
    trainer, layout = made.recipe.trainer, made.layout
    if layout.processes == 1:
        if trainer.parallel != "auto":
            print(f"one process: trainer.parallel={trainer.parallel} has nothing to share out\n")
        return
    where = "this machine" if layout.nodes == 1 else f"{layout.nodes} nodes, {layout.devices} on each"
    together, what = trainer.batch_size * layout.processes, "FSDP" if trainer.parallel == "fsdp" else "DDP"
    batch = f"batches of {layout.processes} x {trainer.batch_size} = {together} images"
    print(f"{layout.processes} processes on {where}, {what}: {batch} at the learning rate of the recipe\n")


def _supply(run: Run, made: Materials, plan: Plan) -> Supply:
    recipe, views, prefixes = run.recipe, made.views(), made.prefixes()
    averages, augmentation = recipe.trainer.averaging is not None, made.images.augmentation
    against = "trainer.parallel=fsdp has the stages in pieces" if is_divided(made) else ""
    decided = decisions(plan, prefixes, recipe.cache, augmentation, views.row_count, averages, against)
    print("\n".join(told(decided, prefixes, views.row_count, augmentation, recipe.cache.views)) + "\n")
    return Supply(
        made.network, plan, decided, made.feature_cache(views, made.crew(run.rank)), recipe.cache.mode == "require"
    )


def _learner(made: Materials, plan: Plan, feed: Feed, supply: Supply) -> Learner:
    recipe, network = made.recipe, made.network
    steps = -(-len(feed.train) // recipe.trainer.accumulate)
    # A fused step hides the gradients that clipping would have to unscale, and not each can step on pieces of weights.
    fused = made.precision != "16-mixed" and not is_divided(made)
    facts, cached = [one.facts for one in made.stages], [one.depth for one in supply.decisions.values()]
    return Learner(
        network,
        plan,
        made.preprocessing,
        partial(built_optimizer, recipe.optimizer, fused=fused),
        lambda step, epochs, losses: factor(recipe.scheduler, step, steps, epochs, losses),
        steps,
        seed=recipe.seed,
        label_smoothing=recipe.trainer.label_smoothing,
        decay_norms_and_biases=recipe.optimizer.decay_norms_and_biases,
        memory_format=memory_format_for(recipe.backbone, made.accelerator),
        about=description(recipe.plain(), made.samples.classes, made.preprocessing, facts, cached),
        source_pull=recipe.strategy.source_pull,
        class_weights=_class_weights(recipe, made.samples),
        is_divided=is_divided(made),
    )


def is_divided(made: Materials) -> bool:
    """Whether each process holds a piece of every weight."""
    return made.recipe.trainer.parallel == "fsdp" and made.layout.processes > 1


def _class_weights(recipe: Recipe, samples: Samples) -> Tensor | None:
    if recipe.trainer.class_balance != "weights":
        return None
    return torch.from_numpy(class_weights(samples.labels()[samples.of("train")], len(samples.classes)))


def _check_unchanged(run: Run, samples: Samples) -> None:
    before = run.record.get("data", {}).get("fingerprint", samples.fingerprint)
    if before != samples.fingerprint:
        fix = "restore the images, or start a new run"
        fault = Fault(f"resume={run.directory}", f"fingerprint {samples.fingerprint}", before, fix)
        raise UserFault("the data set is not the one that this run began with.", [fault])
