"""The parts of a run, put together from its recipe: fetch, index and split, build, plan."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from thaw.analysis.inventory import say_problems, say_samples
from thaw.config.faults import Fault, UserFault
from thaw.config.schema import Recipe
from thaw.data.build import samples_of
from thaw.data.cache import cache_folder
from thaw.data.inspected import Inspected, inspected
from thaw.data.live import Live
from thaw.data.preprocessing import Preprocessing
from thaw.data.samples import Samples
from thaw.network.build import build_network, source_for
from thaw.network.network import Network, StageFacts, facts
from thaw.network.source import Source
from thaw.strategy.plan import Plan, planned
from thaw.strategy.schedule import factor
from thaw.training.checkpoint import description
from thaw.training.feed import Feed, feed_of
from thaw.training.hardware import accelerator_for, hardware, memory_format_for, precision_for
from thaw.training.learner import Learner
from thaw.training.objective import built_optimizer
from thaw.training.process import prepare
from thaw.training.run import Run
from thaw.training.tables import print_plan, totals


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
    prepare(recipe.seed, recipe.trainer.deterministic, recipe.trainer.threads)
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

    network = build_network(source, recipe.head, len(samples.classes), preprocessing)
    stages = facts(network, preprocessing.size)
    plan = _plan(recipe, stages)
    print_plan(stages, plan)
    _note(run, data, source, stages, plan)

    feed = feed_of(recipe, samples, data.store, preprocessing.size, accelerator == "gpu")
    precision = precision_for(recipe.trainer, accelerator)
    about = description(recipe.plain(), samples.classes, preprocessing, stages)
    learner = _learner(recipe, network, plan, preprocessing, feed, accelerator, precision, about)
    return Assembly(samples, feed, learner, accelerator, precision)


def _plan(recipe: Recipe, stages: list[StageFacts]) -> Plan:
    optimizer, parts = recipe.optimizer, [one.name for one in stages]
    return planned(recipe.strategy, parts, recipe.trainer.epochs, optimizer.learning_rate, optimizer.weight_decay)


def _learner(
    recipe: Recipe,
    network: Network,
    plan: Plan,
    preprocessing: Preprocessing,
    feed: Feed,
    accelerator: str,
    precision: Any,
    about: dict[str, Any],
) -> Learner:
    steps = -(-len(feed.train) // recipe.trainer.accumulate)
    fused = precision != "16-mixed"  # a fused step hides the gradients that clipping would have to unscale
    return Learner(
        network,
        plan,
        preprocessing,
        partial(built_optimizer, recipe.optimizer, fused=fused),
        lambda step: factor(recipe.scheduler, step, steps, recipe.trainer.epochs),
        steps,
        seed=recipe.seed,
        label_smoothing=recipe.trainer.label_smoothing,
        decay_norms_and_biases=recipe.optimizer.decay_norms_and_biases,
        memory_format=memory_format_for(recipe.backbone, accelerator),
        about=about,
    )


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


def _note(run: Run, data: Inspected, source: Source, stages: list[StageFacts], plan: Plan) -> None:
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
        parameters=totals(stages, plan),
        plan=plan.plain(),
        hardware=hardware(),
    )
