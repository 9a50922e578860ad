"""What a recipe is made of, before anything is planned or trained: fetch, index and split, build."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import torch

from thaw.analysis.inventory import print_dataset_summary, print_problems
from thaw.config.faults import format_names
from thaw.config.schema import Recipe, SourceRowsHeadConfig
from thaw.data.augmentation import build_augmentation
from thaw.data.batches import ImageDataset
from thaw.data.build import load_samples
from thaw.data.cache import resolve_cache_dir
from thaw.data.fewer import limit_per_class
from thaw.data.inspected import DatasetInspection, inspect_dataset
from thaw.data.live import LazyImageStore
from thaw.data.preprocessing import Preprocessing
from thaw.data.samples import Samples
from thaw.features.build import ExecutionConfig
from thaw.features.cache import FeatureCache
from thaw.features.crew import SINGLE_PROCESS, ProcessGroup
from thaw.features.decision import Prefix
from thaw.features.inference import get_dtype
from thaw.features.views import Views, build_views
from thaw.network.build import build_network, load_seeded_pretrained
from thaw.network.cost import StageCost, compute_stage_costs
from thaw.network.kinds import convert_to_sync_batchnorm
from thaw.network.network import Network, pool
from thaw.network.source import PretrainedModel
from thaw.network.source_rows import describe_rows
from thaw.training import ranks
from thaw.training.feed import resolve_num_workers
from thaw.training.hardware import (
    ProcessTopology,
    check_sync_batchnorm,
    get_device,
    resolve_accelerator,
    resolve_precision,
    resolve_process_topology,
)
from thaw.training.process import available_cpus, configure_process


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
        return build_views(self.samples, self.images.augmentation, self.recipe.seed, self.recipe.cache.views)

    def build_feature_cache(self, views: Views, process_group: ProcessGroup = SINGLE_PROCESS) -> FeatureCache:
        recipe, backbone = self.recipe, self.recipe.backbone
        device = get_device(self.accelerator, process_group.rank % self.topology.devices)
        return FeatureCache(
            resolve_cache_dir(recipe.data.cache),
            recipe.cache.gib * 2**30,
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
    cache_dir, accelerator = resolve_cache_dir(recipe.data.cache), resolve_accelerator(recipe.trainer)
    check_sync_batchnorm(recipe.trainer, accelerator)
    precision = resolve_precision(recipe.trainer, accelerator)

    all_samples = load_samples(recipe.dataset, recipe.seed, cache_dir, recipe.data.mirror)
    image_size, is_random = recipe.dataset.image_size, recipe.strategy.start == "random"
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
