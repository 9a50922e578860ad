"""What a recipe is made of, before anything is planned or trained: fetch, index and split, build."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import torch

from thaw.analysis.inventory import say_problems, say_samples
from thaw.config.faults import listing
from thaw.config.schema import Recipe, SourceRowsHead
from thaw.data.augmentation import augmentation_of
from thaw.data.batches import Images
from thaw.data.build import samples_of
from thaw.data.cache import cache_folder
from thaw.data.fewer import with_fewer
from thaw.data.inspected import Inspected, inspected
from thaw.data.live import Live
from thaw.data.preprocessing import Preprocessing
from thaw.data.samples import Samples
from thaw.features.build import Machine
from thaw.features.cache import FeatureCache
from thaw.features.crew import ALONE, Crew
from thaw.features.decision import Prefix
from thaw.features.inference import dtype_of
from thaw.features.views import Views, views_for
from thaw.network.build import build_network, source_for
from thaw.network.cost import StageCost, stage_costs
from thaw.network.kinds import synchronise_batchnorm
from thaw.network.network import Network, vectors
from thaw.network.source import Source
from thaw.network.source_rows import told_rows
from thaw.training import ranks
from thaw.training.feed import worker_count
from thaw.training.hardware import Layout, accelerator_for, check_batchnorm, device_of, layout_of, precision_for
from thaw.training.process import cores, prepare


@dataclass(frozen=True)
class Materials:
    """`data` are the images that can be used, `stages` what they cost; `precision` is Lightning's name of it, `layout`
    are the processes that train together."""

    recipe: Recipe
    data: Inspected
    source: Source
    preprocessing: Preprocessing
    network: Network
    stages: list[StageCost]
    images: Images
    accelerator: str
    precision: Any
    layout: Layout

    @property
    def samples(self) -> Samples:
        return self.data.samples

    def recorded(self) -> dict[str, Any]:
        """What `run.json` says of the data and the source weights."""
        samples = self.samples
        data = {
            "fingerprint": samples.fingerprint,
            "classes": len(samples.classes),
            "images": samples.counts(),
            "passed_over": len(samples.passed_over),
            "skipped": self.data.skipped,
            "problems": [problem.plain() for problem in self.data.problems],
        }
        return {"data": data, "source": self.source.weights}

    def prefixes(self) -> list[Prefix]:
        """Of every depth from 1 to all stages."""
        width, total, found = torch.finfo(dtype_of(self.precision)).bits // 8, 0, []
        for depth, one in enumerate(self.stages[:-1], 1):
            total += one.multiply_adds
            output = torch.zeros(1, *one.facts.shape)
            numbers = (vectors(output) if depth == len(self.network.stages) else output).numel()
            found.append(Prefix(depth, one.facts.name, numbers * width, total))
        return found

    def views(self) -> Views:
        return views_for(self.samples, self.images.augmentation, self.recipe.seed, self.recipe.cache.views)

    def feature_cache(self, views: Views, crew: Crew = ALONE) -> FeatureCache:
        recipe, backbone = self.recipe, self.recipe.backbone
        device = device_of(self.accelerator, crew.rank % self.layout.devices)
        return FeatureCache(
            cache_folder(recipe.data.cache),
            recipe.cache.gib * 2**30,
            self.images,
            views,
            self.preprocessing,
            f"{backbone.library} {version(backbone.library)} {backbone.name}",
            Machine(device, str(self.precision), worker_count(recipe.trainer, self.on_gpu)),
            {one.depth: one.bytes_an_image for one in self.prefixes()},
            {"dataset": recipe.dataset.name, "backbone": backbone.name},
            crew,
        )

    def crew(self, rank: int) -> Crew:
        """All processes of the run, of which this one is number `rank`."""
        return Crew(rank, self.layout.processes, ranks.gathered)

    @property
    def on_gpu(self) -> bool:
        return self.accelerator == "gpu"


def gathered(recipe: Recipe) -> Materials:
    """Raises UserFault where data, weights or hardware are not as the recipe needs them."""
    layout = layout_of(recipe.trainer)
    threads = recipe.trainer.threads or max(1, cores() // layout.devices)
    prepare(recipe.seed, recipe.trainer.deterministic, threads)
    cache, accelerator = cache_folder(recipe.data.cache), accelerator_for(recipe.trainer)
    check_batchnorm(recipe.trainer, accelerator)
    precision = precision_for(recipe.trainer, accelerator)

    found = samples_of(recipe.dataset, recipe.seed, cache, recipe.data.mirror)
    size, is_random = recipe.dataset.image_size, recipe.strategy.start == "random"
    source = source_for(recipe.backbone, is_random, recipe.seed, cache, recipe.data.mirror, size)
    preprocessing = source.preprocessing.at(size, recipe.dataset.crop)
    skip, most_bytes = recipe.data.broken == "skip", recipe.data.store_gib * 2**30
    data = inspected(found, preprocessing, cache, skip, recipe.data.near_duplicates, most_bytes)
    if recipe.data.train_per_class:
        data = replace(data, samples=with_fewer(data.samples, recipe.data.train_per_class, recipe.seed))
    _say(recipe.dataset.name, data)

    network = build_network(source, recipe.head, data.samples.classes, preprocessing)
    if recipe.trainer.sync_batchnorm and layout.processes > 1:
        synchronise_batchnorm(network)
    if isinstance(recipe.head, SourceRowsHead):
        print(told_rows(recipe.head, data.samples.classes, source.classes))
    if network.unused:
        print(f"of the source this network does not use {listing(network.unused, 4)}")
    stages = stage_costs(network, preprocessing.size)
    augmentation = augmentation_of(recipe.augment)
    images = Images(data.store, data.samples.labels(), preprocessing.size, augmentation, recipe.seed)
    return Materials(recipe, data, source, preprocessing, network, stages, images, accelerator, precision, layout)


def _say(name: str, data: Inspected) -> None:
    say_samples(name, data.samples, data.skipped)
    say_problems(data.problems)
    if isinstance(data.store, Live):
        print("images are decoded anew in every epoch: a store of them would be larger than data.store_gib")
    print()
