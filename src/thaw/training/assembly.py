"""The parts of a run, put together from its recipe: materials, plan, supply, learner."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from thaw.config.faults import Problem, UserError
from thaw.config.schema import Recipe
from thaw.data.balance import class_weights
from thaw.data.preprocessing import Preprocessing
from thaw.data.samples import Samples
from thaw.features.decision import decide_caching, describe_decisions
from thaw.network.cost import StageCost
from thaw.network.kinds import count_parameters
from thaw.network.network import HEAD
from thaw.strategy.plan import Plan
from thaw.strategy.schedule import compute_lr_factor
from thaw.training.checkpoint import build_checkpoint_metadata
from thaw.training.feed import DataLoaders, build_dataloaders
from thaw.training.hardware import ProcessTopology, describe_hardware, resolve_memory_format
from thaw.training.learner import ClassificationModule
from thaw.training.materials import Components, build_components
from thaw.training.objective import build_optimizer, collect_trainable_parameters
from thaw.training.planning import plan_for_recipe
from thaw.training.run import Run
from thaw.training.supply import BatchSource
from thaw.training.tables import print_plan


@dataclass(frozen=True)
class TrainingSetup:
    """What training needs. `precision` is Lightning's name of it, `layout` are the processes that train together."""

    samples: Samples
    preprocessing: Preprocessing
    stages: list[StageCost]
    dataloaders: DataLoaders
    module: ClassificationModule
    batch_source: BatchSource
    accelerator: str
    precision: Any
    topology: ProcessTopology


def setup_training(run: Run) -> TrainingSetup:
    """Raises UserFault where data, weights or hardware are not as the recipe needs them."""
    recipe, components = run.recipe, build_components(run.recipe)
    samples, network = components.samples, components.network
    _check_dataset_unchanged(run, samples)
    plan = plan_for_recipe(recipe, network)
    parameter_counts = {
        "total": count_parameters(list(network.parameters())),
        "trainable": count_parameters(collect_trainable_parameters(network, plan, [*network.stages, HEAD])),
    }
    print_plan(
        [stage_cost.facts for stage_cost in components.stages], plan, parameter_counts, recipe.strategy.source_pull
    )
    batch_source = _build_batch_source(run, components, plan)
    cache_decisions = [decision.to_dict() for decision in batch_source.decisions.values()]
    run.update(
        **components.build_run_entries(),
        parameters=parameter_counts,
        plan=plan.to_dicts(),
        features=cache_decisions,
        hardware=describe_hardware(),
        processes=components.topology.to_dict(),
    )
    dataloaders = build_dataloaders(recipe, samples, components.images, batch_source, components.is_on_gpu, run.rank)
    _print_processes(components)
    return TrainingSetup(
        samples,
        components.preprocessing,
        components.stages,
        dataloaders,
        _build_module(components, plan, dataloaders, batch_source),
        batch_source,
        components.accelerator,
        components.precision,
        components.topology,
    )


def _print_processes(components: Components) -> None:
    trainer, topology = components.recipe.trainer, components.topology
    if topology.world_size == 1:
        if trainer.parallel != "auto":
            print(f"one process: trainer.parallel={trainer.parallel} has nothing to share out\n")
        return
    location = "this machine" if topology.nodes == 1 else f"{topology.nodes} nodes, {topology.devices} on each"
    global_batch_size, parallelism = (
        trainer.batch_size * topology.world_size,
        "FSDP" if trainer.parallel == "fsdp" else "DDP",
    )
    batch_description = f"batches of {topology.world_size} x {trainer.batch_size} = {global_batch_size} images"
    print(
        f"{topology.world_size} processes on {location}, {parallelism}: {batch_description} at the learning rate of the recipe\n"
    )


def _build_batch_source(run: Run, components: Components, plan: Plan) -> BatchSource:
    recipe, views, prefixes = run.recipe, components.build_views(), components.compute_prefixes()
    has_averaging, augmentation = recipe.trainer.averaging is not None, components.images.augmentation
    blocker = "trainer.parallel=fsdp has the stages in pieces" if is_fsdp(components) else ""
    cache_decisions = decide_caching(plan, prefixes, recipe.cache, augmentation, views.num_rows, has_averaging, blocker)
    print(
        "\n".join(describe_decisions(cache_decisions, prefixes, views.num_rows, augmentation, recipe.cache.views))
        + "\n"
    )
    return BatchSource(
        components.network,
        plan,
        cache_decisions,
        components.build_feature_cache(views, components.build_process_group(run.rank)),
        recipe.cache.mode == "require",
    )


def _build_module(
    components: Components, plan: Plan, dataloaders: DataLoaders, batch_source: BatchSource
) -> ClassificationModule:
    recipe, network = components.recipe, components.network
    steps_per_epoch = -(-len(dataloaders.train) // recipe.trainer.accumulate)
    # A fused step hides the gradients that clipping would have to unscale, and not each can step on pieces of weights.
    fused = components.precision != "16-mixed" and not is_fsdp(components)
    stage_facts, cached_depths = (
        [stage_cost.facts for stage_cost in components.stages],
        [decision.depth for decision in batch_source.decisions.values()],
    )
    return ClassificationModule(
        network,
        plan,
        components.preprocessing,
        partial(build_optimizer, recipe.optimizer, fused=fused),
        lambda step, epochs, losses: compute_lr_factor(recipe.scheduler, step, steps_per_epoch, epochs, losses),
        steps_per_epoch,
        seed=recipe.seed,
        label_smoothing=recipe.trainer.label_smoothing,
        decay_norms_and_biases=recipe.optimizer.decay_norms_and_biases,
        memory_format=resolve_memory_format(recipe.backbone, components.accelerator),
        metadata=build_checkpoint_metadata(
            recipe.to_dict(), components.samples.classes, components.preprocessing, stage_facts, cached_depths
        ),
        l2_sp=recipe.strategy.source_pull,
        class_weights=_compute_class_weights(recipe, components.samples),
        is_fsdp=is_fsdp(components),
    )


def is_fsdp(components: Components) -> bool:
    """Whether each process holds a piece of every weight."""
    return components.recipe.trainer.parallel == "fsdp" and components.topology.world_size > 1


def _compute_class_weights(recipe: Recipe, samples: Samples) -> Tensor | None:
    if recipe.trainer.class_balance != "weights":
        return None
    return torch.from_numpy(class_weights(samples.get_labels()[samples.get_positions("train")], len(samples.classes)))


def _check_dataset_unchanged(run: Run, samples: Samples) -> None:
    recorded_fingerprint = run.record.get("data", {}).get("fingerprint", samples.fingerprint)
    if recorded_fingerprint != samples.fingerprint:
        fix = "restore the images, or start a new run"
        problem = Problem(f"resume={run.directory}", f"fingerprint {samples.fingerprint}", recorded_fingerprint, fix)
        raise UserError("the data set is not the one that this run began with.", [problem])
