"""The parts of a run, put together from its recipe: fetch, index and split, build, plan."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from thaw.analysis.inventory import say_problems, say_samples
from thaw.config.faults import Fault, UserFault, listing
from thaw.config.schema import Recipe, SourceRowsHead
from thaw.data.balance import class_weights
from thaw.data.build import samples_of
from thaw.data.cache import cache_folder
from thaw.data.inspected import Inspected, inspected
from thaw.data.live import Live
from thaw.data.preprocessing import Preprocessing
from thaw.data.samples import Samples
from thaw.network.build import build_network, source_for
from thaw.network.kinds import size_of
from thaw.network.network import HEAD, Network, facts
from thaw.network.source import Source
from thaw.network.source_rows import told_rows
from thaw.strategy.plan import Plan
from thaw.strategy.schedule import factor
from thaw.training.checkpoint import description
from thaw.training.feed import Feed, feed_of
from thaw.training.hardware import accelerator_for, hardware, memory_format_for, precision_for
from thaw.training.learner import Learner
from thaw.training.objective import built_optimizer, trained_parameters
from thaw.training.planning import plan_of
from thaw.training.process import cores, prepare
from thaw.training.ranks import device_count
from thaw.training.run import Run
from thaw.training.tables import print_plan


@dataclass(frozen=True)
class Assembly:
    """What training needs. `precision` is Lightning's name of it."""

    samples: Samples
    feed: Feed
    learner: Learner
    accelerator: str
    precision: Any


def assembled(run: Run) -> Assembly:
    """Raises UserFault where data, weights or hardware are not as the recipe needs them."""
    recipe = run.recipe
    threads = recipe.trainer.threads or max(1, cores() // device_count(recipe.trainer.devices))
    prepare(recipe.seed, recipe.trainer.deterministic, threads)
    cache, accelerator = cache_folder(recipe.data.cache), accelerator_for(recipe.trainer)

    found = samples_of(recipe.dataset, recipe.seed, cache, recipe.data.mirror)
    size, is_random = recipe.dataset.image_size, recipe.strategy.start == "random"
    source = source_for(recipe.backbone, is_random, recipe.seed, cache, recipe.data.mirror, size)
    preprocessing = source.preprocessing.at(size, recipe.dataset.crop)
    skip, most_bytes = recipe.data.broken == "skip", recipe.data.store_gib * 2**30
    data = inspected(found, preprocessing, cache, skip, recipe.data.near_duplicates, most_bytes)
    samples = data.samples
    _say(recipe.dataset.name, data)
    _check_unchanged(run, samples)

    network = build_network(source, recipe.head, samples.classes, preprocessing)
    if isinstance(recipe.head, SourceRowsHead):
        print(told_rows(recipe.head, samples.classes, source.classes))
    if network.unused:
        print(f"of the source this network does not use {listing(network.unused, 4)}")
    stages = facts(network, preprocessing.size)
    plan = plan_of(recipe, network)
    totals = {
        "total": size_of(list(network.parameters())),
        "trainable": size_of(trained_parameters(network, plan, [*network.stages, HEAD])),
    }
    print_plan(stages, plan, totals, recipe.strategy.source_pull)
    _note(run, data, source, totals, plan)

    feed = feed_of(recipe, samples, data.store, preprocessing.size, accelerator == "gpu", run.rank)
    precision = precision_for(recipe.trainer, accelerator)
    about = description(recipe.plain(), samples.classes, preprocessing, stages)
    weights = _class_weights(recipe, samples)
    learner = _learner(recipe, network, plan, preprocessing, feed, accelerator, precision, about, weights)
    return Assembly(samples, feed, learner, accelerator, precision)


def _learner(
    recipe: Recipe,
    network: Network,
    plan: Plan,
    preprocessing: Preprocessing,
    feed: Feed,
    accelerator: str,
    precision: Any,
    about: dict[str, Any],
    weights: Tensor | None,
) -> Learner:
    steps = -(-len(feed.train) // recipe.trainer.accumulate)
    fused = precision != "16-mixed"  # a fused step hides the gradients that clipping would have to unscale
    return Learner(
        network,
        plan,
        preprocessing,
        partial(built_optimizer, recipe.optimizer, fused=fused),
        lambda step, epochs, losses: factor(recipe.scheduler, step, steps, epochs, losses),
        steps,
        seed=recipe.seed,
        label_smoothing=recipe.trainer.label_smoothing,
        decay_norms_and_biases=recipe.optimizer.decay_norms_and_biases,
        memory_format=memory_format_for(recipe.backbone, accelerator),
        about=about,
        source_pull=recipe.strategy.source_pull,
        class_weights=weights,
    )


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


def _say(name: str, data: Inspected) -> None:
    say_samples(name, data.samples, data.skipped)
    say_problems(data.problems)
    if isinstance(data.store, Live):
        print("images are decoded anew in every epoch: a store of them would be larger than data.store_gib")
    print()


def _note(run: Run, data: Inspected, source: Source, parameters: dict[str, int], plan: Plan) -> None:
    samples = data.samples
    run.note(
        data={
            "fingerprint": samples.fingerprint,
            "classes": len(samples.classes),
            "images": samples.counts(),
            "passed_over": len(samples.passed_over),
            "skipped": data.skipped,
            "problems": [problem.plain() for problem in data.problems],
        },
        source=source.weights,
        parameters=parameters,
        plan=plan.plain(),
        hardware=hardware(),
    )
