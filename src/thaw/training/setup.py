"""The parts of a run, put together from its recipe: materials, plan, supply, learner."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from thaw.config.errors import Problem, UserError, format_names
from thaw.config.schema import Recipe, SourceRowsHeadConfig
from thaw.data.augmentation import build_augmentation
from thaw.data.batches import ImageDataset
from thaw.data.class_balance import class_weights
from thaw.data.factory import load_samples
from thaw.data.image_store import LazyImageStore
from thaw.data.inspection import DatasetInspection, inspect_dataset
from thaw.data.preprocessing import Preprocessing
from thaw.data.samples import Samples, limit_per_class
from thaw.features.cache import FeatureCache
from thaw.features.cache_policy import Prefix, decide_caching, describe_decisions
from thaw.features.extract import ExecutionConfig
from thaw.features.forward import get_dtype
from thaw.features.process_group import SINGLE_PROCESS, ProcessGroup
from thaw.features.views import Views, build_views
from thaw.models.cost import StageCost, compute_stage_costs
from thaw.models.factory import build_network, load_seeded_pretrained
from thaw.models.network import HEAD, Network, pool
from thaw.models.parameters import convert_to_sync_batchnorm, count_parameters
from thaw.models.pretrained import PretrainedModel
from thaw.models.source_rows import describe_rows
from thaw.runs.run import Run
from thaw.strategy.plan import Plan
from thaw.strategy.schedule import compute_lr_factor
from thaw.system.cache_folder import resolve_cache_dir
from thaw.system.devices import (
    ProcessTopology,
    check_sync_batchnorm,
    describe_hardware,
    get_device,
    resolve_accelerator,
    resolve_memory_format,
    resolve_precision,
    resolve_process_topology,
)
from thaw.system.process import available_cpus, configure_process
from thaw.training.callbacks.checkpointing import build_checkpoint_metadata
from thaw.training.dataloaders import BatchSource, DataLoaders, build_dataloaders, resolve_num_workers
from thaw.training.distributed import collectives as ranks
from thaw.training.freezing import plan_for_recipe
from thaw.training.module import ClassificationModule
from thaw.training.optimizers import build_optimizer, collect_trainable_parameters
from thaw.visualization.reports.console import print_dataset_summary, print_plan, print_problems


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
    print_plan([stage_cost.facts for stage_cost in components.stages], plan, parameter_counts, recipe.strategy.l2_sp)
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
    cache_decisions = decide_caching(
        plan, prefixes, recipe.feature_cache, augmentation, views.num_rows, has_averaging, blocker
    )
    print(
        "\n".join(
            describe_decisions(cache_decisions, prefixes, views.num_rows, augmentation, recipe.feature_cache.views)
        )
        + "\n"
    )
    return BatchSource(
        components.network,
        plan,
        cache_decisions,
        components.build_feature_cache(views, components.build_process_group(run.rank)),
        recipe.feature_cache.mode == "require",
    )


def _build_module(
    components: Components, plan: Plan, dataloaders: DataLoaders, batch_source: BatchSource
) -> ClassificationModule:
    recipe, network = components.recipe, components.network
    steps_per_epoch = -(-len(dataloaders.train) // recipe.trainer.accumulate_grad_batches)
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
        l2_sp=recipe.strategy.l2_sp,
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


@dataclass(frozen=True)
class Components:
    """`data` are the images that can be used, `stages` what they cost; `precision` is Lightning's name of it, `layout`
    are the processes that train together."""

    recipe: Recipe
    data: DatasetInspection
    pretrained: PretrainedModel
    preprocessing: Preprocessing
    network: Network
    stages: list[StageCost]
    images: ImageDataset
    accelerator: str
    precision: Any
    topology: ProcessTopology

    @property
    def samples(self) -> Samples:
        return self.data.samples

    def build_run_entries(self) -> dict[str, Any]:
        """What `run.json` says of the data and the source weights."""
        samples = self.samples
        data = {
            "fingerprint": samples.fingerprint,
            "classes": len(samples.classes),
            "images": samples.count_per_split(),
            "passed_over": len(samples.ignored_files),
            "skipped": self.data.skipped,
            "problems": [problem.to_dict() for problem in self.data.problems],
        }
        return {"data": data, "source": self.pretrained.weights_info}

    def compute_prefixes(self) -> list[Prefix]:
        """Of every depth from 1 to all stages."""
        bytes_per_value, multiply_adds, prefixes = torch.finfo(get_dtype(self.precision)).bits // 8, 0, []
        for depth, stage_cost in enumerate(self.stages[:-1], 1):
            multiply_adds += stage_cost.multiply_adds
            output = torch.zeros(1, *stage_cost.facts.shape)
            num_values = (pool(output) if depth == len(self.network.stages) else output).numel()
            prefixes.append(Prefix(depth, stage_cost.facts.name, num_values * bytes_per_value, multiply_adds))
        return prefixes

    def build_views(self) -> Views:
        return build_views(self.samples, self.images.augmentation, self.recipe.seed, self.recipe.feature_cache.views)

    def build_feature_cache(self, views: Views, process_group: ProcessGroup = SINGLE_PROCESS) -> FeatureCache:
        recipe, backbone = self.recipe, self.recipe.backbone
        device = get_device(self.accelerator, process_group.rank % self.topology.devices)
        return FeatureCache(
            resolve_cache_dir(recipe.data.cache_dir),
            recipe.feature_cache.gib * 2**30,
            self.images,
            views,
            self.preprocessing,
            f"{backbone.library} {version(backbone.library)} {backbone.name}",
            ExecutionConfig(device, str(self.precision), resolve_num_workers(recipe.trainer, self.is_on_gpu)),
            {prefix.depth: prefix.bytes_per_image for prefix in self.compute_prefixes()},
            {"dataset": recipe.dataset.name, "backbone": backbone.name},
            process_group,
        )

    def build_process_group(self, rank: int) -> ProcessGroup:
        """All processes of the run, of which this one is number `rank`."""
        return ProcessGroup(rank, self.topology.world_size, ranks.all_gather_object)

    @property
    def is_on_gpu(self) -> bool:
        return self.accelerator == "gpu"


def build_components(recipe: Recipe) -> Components:
    """Raises UserFault where data, weights or hardware are not as the recipe needs them."""
    topology = resolve_process_topology(recipe.trainer)
    threads = recipe.trainer.threads or max(1, available_cpus() // topology.devices)
    configure_process(recipe.seed, recipe.trainer.deterministic, threads)
    cache_dir, accelerator = resolve_cache_dir(recipe.data.cache_dir), resolve_accelerator(recipe.trainer)
    check_sync_batchnorm(recipe.trainer, accelerator)
    precision = resolve_precision(recipe.trainer, accelerator)

    all_samples = load_samples(recipe)
    image_size, is_random = recipe.dataset.image_size, recipe.strategy.init == "random"
    pretrained = load_seeded_pretrained(
        recipe.backbone, is_random, recipe.seed, cache_dir, recipe.data.mirror, image_size
    )
    preprocessing = pretrained.preprocessing.with_size(image_size, recipe.dataset.crop)
    skip_broken, max_store_bytes = recipe.data.broken == "skip", recipe.data.store_gib * 2**30
    data = inspect_dataset(
        all_samples, preprocessing, cache_dir, skip_broken, recipe.data.near_duplicates, max_store_bytes
    )
    if recipe.data.train_per_class:
        data = replace(data, samples=limit_per_class(data.samples, recipe.data.train_per_class, recipe.seed))
    _print_dataset(recipe.dataset.name, data)

    network = build_network(pretrained, recipe.head, data.samples.classes, preprocessing)
    if recipe.trainer.sync_batchnorm and topology.world_size > 1:
        convert_to_sync_batchnorm(network)
    if isinstance(recipe.head, SourceRowsHeadConfig):
        print(describe_rows(recipe.head, data.samples.classes, pretrained.classes))
    if network.unused_parameters:
        print(f"of the source this network does not use {format_names(network.unused_parameters, 4)}")
    stages = compute_stage_costs(network, preprocessing.size)
    augmentation = build_augmentation(recipe.augment)
    images = ImageDataset(data.store, data.samples.get_labels(), preprocessing.size, augmentation, recipe.seed)
    return Components(
        recipe, data, pretrained, preprocessing, network, stages, images, accelerator, precision, topology
    )


def _print_dataset(dataset_name: str, data: DatasetInspection) -> None:
    print_dataset_summary(dataset_name, data.samples, data.skipped)
    print_problems(data.problems)
    if isinstance(data.store, LazyImageStore):
        print("images are decoded anew in every epoch: a store of them would be larger than data.store_gib")
    print()
