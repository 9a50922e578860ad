"""Build what a run trains with: components, then plan, data loaders and module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from thaw.config.errors import Problem, UserError, format_names
from thaw.config.schema import Recipe, SourceRowsHeadConfig
from thaw.data.augmentation import build_augmentation
from thaw.data.batches import ImageDataset, class_weights
from thaw.data.factory import load_samples
from thaw.data.identity import DataIdentity, build_identity
from thaw.data.image_store import LazyImageStore
from thaw.data.inspection import DatasetInspection, inspect_dataset
from thaw.data.leaks import find_leaks
from thaw.data.preprocessing import Decoding, Preprocessing
from thaw.data.readers import Correction
from thaw.data.samples import Samples, limit_per_class
from thaw.features.cache import FeatureCache, open_feature_cache
from thaw.features.cache_key import build_feature_spec, describe_architecture
from thaw.features.cache_policy import CachingConditions, Prefix, decide_caching, describe_decisions
from thaw.features.extract import ExecutionConfig
from thaw.features.precision import choose_precision, record_precision, restore_precision
from thaw.features.process_group import SINGLE_PROCESS, ProcessGroup
from thaw.features.speed import MEASUREMENTS_FOLDER, SpeedTest
from thaw.features.views import Views, build_views
from thaw.models.cost import StageCost, compute_stage_costs
from thaw.models.factory import build_network, load_seeded_pretrained
from thaw.models.image_sizes import check_backbone
from thaw.models.network import HEAD, Network, StageFacts, convert_to_sync_batchnorm, count_parameters, pool
from thaw.models.pretrained import PretrainedModel
from thaw.models.source_rows import describe_rows
from thaw.runs.run import Run
from thaw.runs.schema import PrecisionEntry
from thaw.strategy.plan import Plan
from thaw.strategy.schedule import compute_lr_factor
from thaw.strategy.selection import describe_uneven_stages
from thaw.system.cache_folder import resolve_cache_dir
from thaw.system.devices import Devices, describe_hardware, resolve_devices, resolve_memory_format
from thaw.system.process import available_cpus, configure_process
from thaw.system.reporter import SILENT, Reporter
from thaw.training.continuation import check_continuation
from thaw.training.dataloaders import BatchSource, DataLoaders, build_dataloaders, resolve_num_workers
from thaw.training.distributed.collectives import all_gather_object
from thaw.training.freezing import build_parts, collect_trainable_parameters, plan_for_recipe
from thaw.training.module import ClassificationLoss, ClassificationModule
from thaw.training.optimizers import Optimization
from thaw.visualization.reports.console import print_dataset_summary, print_plan, print_problems


@dataclass(frozen=True)
class TrainingSetup:
    """Everything that training needs."""

    components: Components
    plan: Plan
    batch_source: BatchSource
    loaders: DataLoaders
    module: ClassificationModule


def setup_training(run: Run, reporter: Reporter = SILENT) -> TrainingSetup:
    """Build what the run trains with, and add it to the run's record.

    Raises:
        UserError: if data, weights or hardware are not as the recipe needs them.
    """
    components = build_components(run.recipe, reporter, _find_decoding(run))
    _check_unchanged(run, components)
    plan = plan_for_recipe(run.recipe, components.model.network)
    check_continuation(run, plan, reporter)
    parameter_counts = _count_parameters(components.model.network, plan)
    print_plan(reporter, components.model.facts, plan, parameter_counts, run.recipe.strategy.l2_sp)
    if reason := describe_uneven_stages(build_parts(components.model.network)):
        reporter.warn(f"{reason}: a strategy cannot tell early layers from late ones\n")
    if "plan" in run.record:  # a resumed run
        components.restore_precision(run.record.get("precision"))
    else:
        components.choose_precision(plan.num_static_stages, reporter)
    batch_source = _build_batch_source(components, plan, run.rank, reporter)
    data, devices = components.data, components.devices
    loaders = build_dataloaders(run.recipe, data.samples, data.images, batch_source, devices, run.rank)
    _print_processes(components, reporter)
    module = _build_module(components, plan, len(loaders.train))
    run.start(
        **components.build_run_entries(),
        parameters=parameter_counts,
        plan=plan.to_dicts(),
        features=[decision.to_dict() for decision in batch_source.decisions.values()],
        hardware=describe_hardware(),
        processes=components.devices.topology.to_dict(),
    )
    return TrainingSetup(components, plan, batch_source, loaders, module)


@dataclass(frozen=True)
class Data:
    """The images of a run. `inspection` has the samples that can be used and the problems of the data set; `identity`
    recognizes the images later."""

    inspection: DatasetInspection
    images: ImageDataset
    identity: DataIdentity

    @property
    def samples(self) -> Samples:
        """The table of samples."""
        return self.inspection.samples

    def find_leaks(self) -> dict[str, np.ndarray]:
        """Return the positions of the test images that leak, by kind, as `thaw.data.leaks.find_leaks` does."""
        return find_leaks(self.samples, self.inspection.copies)


@dataclass(frozen=True)
class Model:
    """A network with the pretrained model it was built from, its preprocessing and the cost of its stages and head."""

    network: Network
    pretrained: PretrainedModel
    preprocessing: Preprocessing
    stages: list[StageCost]

    @property
    def facts(self) -> list[StageFacts]:
        """Name, output shape and parameters of each stage and the head."""
        return [stage.facts for stage in self.stages]


@dataclass(frozen=True)
class Components:
    """What training, probing and feature extraction are built from."""

    recipe: Recipe
    data: Data
    model: Model
    devices: Devices

    def build_run_entries(self) -> dict[str, Any]:
        """Build the entries of `run.json` about the data, the pretrained weights and the precision."""
        samples, inspection, recipe = self.data.samples, self.data.inspection, self.recipe
        data = {
            "fingerprint": samples.fingerprint,
            "classes": len(samples.classes),
            "images": samples.count_per_split(),
            "decoding": self.model.preprocessing.decoding,
            "split_seed": recipe.dataset.split_seed,
            "folds": recipe.folds,
            "fold": recipe.fold,
            "groups": len(np.unique(samples.get_groups())) if samples.has_groups else None,
            "passed_over": len(samples.ignored_files),
            "skipped": inspection.skipped,
            "leaks": {kind: len(positions) for kind, positions in self.data.find_leaks().items()},
            **{name: _to_entry(samples.corrections.get(name)) for name in ("excluded", "relabeled")},
            "problems": [problem.to_dict() for problem in inspection.problems],
        }
        precision = self.record_precision().model_dump()
        return {"data": data, "source": self.model.pretrained.weights_info, "precision": precision}

    @property
    def lightning_precision(self) -> Any:
        """The precision of a Trainer: that of the parts that train."""
        return self.model.network.precision.trained

    def choose_precision(self, num_frozen_stages: int, reporter: Reporter = SILENT) -> None:
        """Give the network its precision, of which `num_frozen_stages` leading stages never train.

        Raises:
            UserError: if the cache folder cannot be written.
        """
        recipe, network = self.recipe, self.model.network
        folder = resolve_cache_dir(recipe.data.cache_dir) / MEASUREMENTS_FOLDER
        architecture, size = describe_architecture(recipe.backbone), self.model.preprocessing.size
        speed_test = SpeedTest(network, architecture, size, folder, reporter)
        network.precision = choose_precision(recipe, self.devices, num_frozen_stages, speed_test)

    def restore_precision(self, entry: Mapping[str, Any] | None) -> None:
        """Give the network the precision that `run.json` has recorded."""
        parsed_entry = PrecisionEntry.model_validate(entry) if entry else None
        self.model.network.precision = restore_precision(parsed_entry, self.recipe.trainer, self.devices.accelerator)

    def record_precision(self) -> PrecisionEntry:
        """Return the entry of the network's precision in a run and in a checkpoint."""
        return record_precision(self.model.network.precision, self.devices.accelerator)

    def compute_prefixes(self) -> list[Prefix]:
        """Compute the feature size and the cost of the first 1, 2, ... stages."""
        multiply_adds, prefixes = 0, list[Prefix]()
        for depth, stage in enumerate(self.model.stages[:-1], 1):
            multiply_adds += stage.multiply_adds
            output = torch.zeros(1, *stage.facts.shape)
            num_values = (pool(output) if depth == len(self.model.network.stages) else output).numel()
            bytes_per_value = self.model.network.precision.get_output_dtype(depth).itemsize
            prefixes.append(Prefix(depth, stage.facts.name, num_values * bytes_per_value, multiply_adds))
        return prefixes

    def build_views(self) -> Views:
        """Build the views of each image that the feature cache holds."""
        recipe, images = self.recipe, self.data.images
        return build_views(self.data.samples, images.augmentation, recipe.seed, recipe.feature_cache.views)

    def build_feature_cache(
        self, views: Views, process_group: ProcessGroup = SINGLE_PROCESS, reporter: Reporter = SILENT
    ) -> FeatureCache:
        """Build the cache of features of `views`, which the processes of `process_group` compute together."""
        recipe, devices = self.recipe, self.devices
        spec = build_feature_spec(recipe.backbone, self.model.preprocessing, views)
        num_workers = resolve_num_workers(recipe.trainer, devices.is_on_gpu)
        execution = ExecutionConfig(devices.get_device(process_group.rank), num_workers)
        bytes_per_image = {prefix.depth: prefix.bytes_per_image for prefix in self.compute_prefixes()}
        return open_feature_cache(recipe, spec, self.data.images, execution, bytes_per_image, process_group, reporter)


def build_components(recipe: Recipe, reporter: Reporter = SILENT, decoding: Decoding = "scaled") -> Components:
    """Configure the process, load the data set and build the network.

    Raises:
        UserError: if data, weights or hardware are not as the recipe needs them.
    """
    devices = resolve_devices(recipe.trainer)
    threads = recipe.trainer.threads or max(1, available_cpus() // devices.topology.devices)
    configure_process(recipe.seed, recipe.trainer.deterministic, threads)
    cache_dir, dataset = resolve_cache_dir(recipe.data.cache_dir), recipe.dataset
    is_random = recipe.strategy.init == "random"
    check_backbone(recipe.backbone, is_random, dataset.image_size)
    all_samples = load_samples(recipe, reporter)
    pretrained = load_seeded_pretrained(
        recipe.backbone, is_random, recipe.seed, cache_dir, recipe.data.mirror, dataset.image_size, reporter
    )
    preprocessing = replace(pretrained.preprocessing.with_size(dataset.image_size, dataset.crop), decoding=decoding)
    data = build_data(recipe, all_samples, preprocessing, reporter)
    model = _build_model(recipe, pretrained, preprocessing, data.samples.classes, reporter)
    if recipe.trainer.sync_batchnorm and devices.topology.world_size > 1:
        convert_to_sync_batchnorm(model.network)
    return Components(recipe, data, model, devices)


def build_data(recipe: Recipe, all_samples: Samples, preprocessing: Preprocessing, reporter: Reporter = SILENT) -> Data:
    """Inspect `all_samples` and open their images, as the recipe says.

    Raises:
        UserError: if images cannot be decoded; with data.broken=skip only if too few are left.
    """
    settings = recipe.data
    inspection = inspect_dataset(
        all_samples,
        preprocessing,
        resolve_cache_dir(settings.cache_dir),
        settings.broken == "skip",
        settings.near_duplicates,
        settings.store_gib * 2**30,
        reporter,
    )
    if settings.train_per_class:
        samples = limit_per_class(inspection.samples, settings.train_per_class, recipe.seed)
        inspection = replace(inspection, samples=samples)
    print_dataset_summary(reporter, recipe.dataset.name, inspection.samples, inspection.skipped)
    print_problems(reporter, inspection.problems)
    if isinstance(inspection.store, LazyImageStore):
        reporter.write("images are decoded anew in every epoch: a store of them would be larger than data.store_gib")
    reporter.write()
    labels, augmentation = inspection.samples.get_labels(), build_augmentation(recipe.augment)
    images = ImageDataset(inspection.store, labels, preprocessing.size, augmentation, recipe.seed)
    return Data(inspection, images, build_identity(all_samples.fingerprint, inspection.samples))


def _build_model(
    recipe: Recipe,
    pretrained: PretrainedModel,
    preprocessing: Preprocessing,
    classes: tuple[str, ...],
    reporter: Reporter,
) -> Model:
    network = build_network(pretrained, recipe.head, classes, preprocessing)
    if isinstance(recipe.head, SourceRowsHeadConfig):
        reporter.write(describe_rows(recipe.head, classes, pretrained.classes))
    if network.unused_parameters:
        names = format_names(network.unused_parameters, 4)
        reporter.write(f"parameters of the pretrained model that the network does not use: {names}")
    return Model(network, pretrained, preprocessing, compute_stage_costs(network, preprocessing.size))


def _find_decoding(run: Run) -> Decoding:
    """Return how images are decoded: in a resumed run as it began, and in one of version 0.2 or older at full size."""
    data = run.record.get("data")
    decoding: Decoding = data.get("decoding", "full") if data else "scaled"
    return decoding


def _check_unchanged(run: Run, components: Components) -> None:
    """Raise UserError if the images or the source weights of a resumed run are not those that it began with."""
    fingerprint, source = components.data.samples.fingerprint, components.model.pretrained.weights_info
    recorded_fingerprint = run.record.get("data", {}).get("fingerprint", fingerprint)
    if recorded_fingerprint != fingerprint:
        fix = "restore the images, dataset.root=DIR if they have moved, or start a new run"
        problem = Problem(f"resume={run.directory}", f"fingerprint {fingerprint}", recorded_fingerprint, fix)
        problems = [problem, *_find_changed_corrections(run, components.data.samples)]
        raise UserError("the data set is not the one that this run began with.", problems)
    recorded_hash = (run.record.get("source") or source).get("hash")
    if recorded_hash != source.get("hash"):
        subject = f"backbone.weights={run.recipe.backbone.weights}"
        problem = Problem(
            subject, f"SHA-256 {source.get('hash')}", str(recorded_hash), "the file that the run began with"
        )
        raise UserError("the source weights are not those that this run began with.", [problem])


def _find_changed_corrections(run: Run, samples: Samples) -> Iterator[Problem]:
    """Yield a problem for each file of corrections that is not the one that the run began with."""
    settings = run.recipe.data
    for key, name, file in (("exclude", "excluded", settings.exclude), ("relabel", "relabeled", settings.relabel)):
        recorded, entry = run.record["data"].get(name), _to_entry(samples.corrections.get(name))
        if recorded != entry:
            got, valid = ("no file" if value is None else f"SHA-256 {value['sha256']}" for value in (entry, recorded))
            yield Problem(f"data.{key}={file}", got, valid, "the file that the run began with")


def _to_entry(correction: Correction | None) -> dict[str, Any] | None:
    return correction.to_dict() if correction is not None else None


def _count_parameters(network: Network, plan: Plan) -> dict[str, int]:
    trainable_parameters = collect_trainable_parameters(network, plan, [*network.stages, HEAD])
    return {
        "total": count_parameters(list(network.parameters())),
        "trainable": count_parameters(trainable_parameters),
    }


def _build_batch_source(components: Components, plan: Plan, rank: int, reporter: Reporter) -> BatchSource:
    recipe, views, prefixes = components.recipe, components.build_views(), components.compute_prefixes()
    augmentation, has_averaging = components.data.images.augmentation, recipe.trainer.averaging is not None
    blocker = "trainer.parallel=fsdp shards the stages" if components.devices.is_fsdp else ""
    conditions = CachingConditions(recipe.feature_cache, augmentation, views.num_rows, has_averaging, blocker)
    decisions = decide_caching(plan, prefixes, conditions)
    reporter.write("\n".join(describe_decisions(decisions, prefixes, conditions)) + "\n")
    process_group = ProcessGroup(rank, components.devices.topology.world_size, all_gather_object)
    cache = components.build_feature_cache(views, process_group, reporter)
    is_required = recipe.feature_cache.mode == "require"
    return BatchSource(components.model.network, plan, decisions, cache, is_required, reporter)


def _print_processes(components: Components, reporter: Reporter) -> None:
    trainer, topology = components.recipe.trainer, components.devices.topology
    if topology.world_size == 1:
        if trainer.parallel != "auto":
            reporter.write(f"one process: trainer.parallel={trainer.parallel} has no effect\n")
        return
    location = "this machine" if topology.nodes == 1 else f"{topology.nodes} nodes, {topology.devices} on each"
    parallelism = "FSDP" if trainer.parallel == "fsdp" else "DDP"
    global_batch_size = trainer.batch_size * topology.world_size
    batches = f"batches of {topology.world_size} x {trainer.batch_size} = {global_batch_size} images"
    processes = f"{topology.world_size} processes on {location}, {parallelism}"
    reporter.write(f"{processes}: {batches} at the learning rate of the recipe\n")


def _build_module(components: Components, plan: Plan, batches_per_epoch: int) -> ClassificationModule:
    recipe, model, devices = components.recipe, components.model, components.devices
    trainer, accumulate = recipe.trainer, recipe.trainer.accumulate_grad_batches
    steps_per_epoch = -(-batches_per_epoch // accumulate)
    # A fused step hides the gradients that clipping would have to unscale, and not every fused step supports shards.
    is_fused = model.network.precision.trained != "16-mixed" and not devices.is_fsdp

    def schedule(step: int, epochs: int, val_losses: Sequence[float]) -> float:
        return compute_lr_factor(recipe.scheduler, step, steps_per_epoch, epochs, val_losses)

    return ClassificationModule(
        model.network,
        model.preprocessing,
        resolve_memory_format(recipe.backbone, devices.accelerator),
        plan,
        Optimization(recipe.optimizer, schedule, steps_per_epoch, is_fused, accumulate, trainer.gradient_clip_val),
        _build_criterion(recipe, components.data.samples),
    )


def _build_criterion(recipe: Recipe, samples: Samples) -> ClassificationLoss:
    weights = None
    if recipe.trainer.class_balance == "weights":
        train_labels = samples.get_labels()[samples.get_positions("train")]
        weights = torch.from_numpy(class_weights(train_labels, len(samples.classes)))
    return ClassificationLoss(recipe.trainer.label_smoothing, weights)
