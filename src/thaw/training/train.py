"""A run, from start to end."""

from __future__ import annotations

import errno
import logging
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger

from thaw.config.faults import Fault, UserFault
from thaw.config.schema import Recipe
from thaw.data.build import samples_of
from thaw.data.cache import cache_folder
from thaw.data.samples import Samples
from thaw.network.build import build_network, source_for
from thaw.network.network import HEAD, StageFacts, facts
from thaw.network.source import Source
from thaw.strategy.plan import Plan, planned
from thaw.strategy.schedule import factor
from thaw.training.checkpoint import AtomicCheckpointIO, Describe, checkpoints
from thaw.training.feed import Feed, feed_of
from thaw.training.hardware import accelerator_for, hardware, memory_format_for, precision_for
from thaw.training.history import History
from thaw.training.learner import Learner, NotFinite
from thaw.training.objective import built_optimizer
from thaw.training.outcome import (
    draw,
    log_hyperparameters,
    metrics_by_split,
    predicted,
    timing,
    write_metrics,
    write_predictions,
)
from thaw.training.process import Interrupted, interruptible, prepare
from thaw.training.run import Run, claimed, interrupted_run, new_run, recorded
from thaw.training.tables import print_plan, print_summary, totals


def start(recipe: Recipe, directory: Path) -> int:
    """Trains `recipe` in a new run directory and returns the exit status."""
    return _to_its_end(directory, lambda: new_run(recipe, directory))


def resume(directory: Path) -> int:
    """Continues the run in `directory` from its last whole epoch and returns the exit status."""
    return _to_its_end(directory, lambda: interrupted_run(directory))


def _to_its_end(directory: Path, opened: Callable[[], Run]) -> int:
    try:
        with interruptible(), claimed(directory):
            run = opened()
            with recorded(run):
                _explaining(train, run)
    except UserFault as fault:
        print(f"thaw: {fault}", file=sys.stderr)
        return 2
    except Interrupted:
        print(f"\ninterrupted; go on with: python train.py resume={directory}", file=sys.stderr)
        return 130
    return 0


def train(run: Run) -> None:
    """Fetch, index and split, build, plan, train, record. A resumed run goes the same way from its last checkpoint."""
    started, recipe = time.perf_counter(), run.recipe
    _quieten()
    prepare(recipe.seed, recipe.trainer.deterministic, recipe.trainer.threads)
    cache = cache_folder(recipe.cache_dir)
    accelerator = accelerator_for(recipe.trainer)

    samples = samples_of(recipe.dataset, recipe.seed, cache, recipe.mirror)
    _say_samples(recipe, samples)
    source = source_for(recipe.backbone, recipe.strategy.start == "random", recipe.seed, cache, recipe.mirror)
    preprocessing = source.preprocessing.at(recipe.dataset.image_size, recipe.dataset.crop)
    network = build_network(source, recipe.head, len(samples.classes), preprocessing)
    stages = facts(network, preprocessing.size)
    plan = _plan(recipe, stages)
    print_plan(stages, plan)
    _note_what_is_trained(run, samples, source, stages, plan)

    feed = feed_of(recipe, samples, preprocessing, cache, accelerator == "gpu")
    steps = -(-len(feed.train) // recipe.trainer.accumulate)
    precision = precision_for(recipe.trainer, accelerator)
    learner = Learner(
        network,
        plan,
        preprocessing,
        partial(built_optimizer, recipe.optimizer, fused=precision != "16-mixed"),  # a fused step hides the gradients
        lambda step: factor(
            recipe.scheduler, step, steps, recipe.trainer.epochs
        ),  # that clipping would have to unscale
        steps,
        seed=recipe.seed,
        label_smoothing=recipe.trainer.label_smoothing,
        decay_norms_and_biases=recipe.optimizer.decay_norms_and_biases,
        memory_format=memory_format_for(recipe.backbone, accelerator),
    )
    describe = Describe(recipe.plain(), samples.classes, preprocessing, stages)
    trainer = _trainer(run, [describe, *_callbacks(run, feed)], accelerator, precision)
    _fit(trainer, learner, feed, run)
    _record(run, trainer, learner, samples, feed, started)


def _plan(recipe: Recipe, stages: list[StageFacts]) -> Plan:
    optimizer, parts = recipe.optimizer, [one.name for one in stages]
    assert parts[-1] == HEAD
    return planned(recipe.strategy, parts, recipe.trainer.epochs, optimizer.learning_rate, optimizer.weight_decay)


def _trainer(run: Run, callbacks: list[Callback], accelerator: str, precision: Any) -> pl.Trainer:
    settings, on_screen = run.recipe.trainer, sys.stderr.isatty()
    return pl.Trainer(
        accelerator=accelerator,
        devices=1 if settings.devices == "auto" else settings.devices,
        precision=precision,
        max_epochs=settings.epochs,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=settings.clip_norm,
        callbacks=[*callbacks, *([TQDMProgressBar(leave=False)] if on_screen else [])],
        enable_progress_bar=on_screen,
        logger=TensorBoardLogger(run.directory, name="", version="tensorboard"),
        plugins=[AtomicCheckpointIO()],
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=run.directory,
    )


def _callbacks(run: Run, feed: Feed) -> list[Callback]:
    patience = run.recipe.trainer.early_stopping
    if patience and feed.val is None:
        fault = Fault(
            "trainer.early_stopping",
            "no validation images",
            fix="dataset.fractions.val=0.15, or trainer.early_stopping=null",
        )
        raise UserFault("nothing to stop on.", [fault])
    stopping = [EarlyStopping("val/accuracy", mode="max", patience=patience.patience)] if patience else []
    return [History(run.directory / "history.csv"), *stopping, *checkpoints(run.best.parent, feed.val is not None)]


def _fit(trainer: pl.Trainer, learner: Learner, feed: Feed, run: Run) -> None:
    checkpoint = run.last if run.last.is_file() else None
    try:
        trainer.fit(learner, feed.train, feed.val, ckpt_path=checkpoint, weights_only=True)
    except NotFinite as error:
        rates = ", ".join(f"{part} {rate:.3g}" for part, rate in error.rates.items())
        lower = f"optimizer.learning_rate={run.recipe.optimizer.learning_rate / 10:g}"
        fix = f"{lower}, trainer.clip_norm=1.0, scheduler=cosine (it warms up), or trainer.precision=32-true"
        raise UserFault(
            "the loss is not finite any more.", [Fault(str(error), f"learning rates: {rates}", fix=fix)]
        ) from error


def _record(run: Run, trainer: pl.Trainer, learner: Learner, samples: Samples, feed: Feed, started: float) -> None:
    predictions = predicted(trainer, learner, feed, run.best)
    metrics = metrics_by_split(predictions, samples.labels())
    write_predictions(run.directory / "predictions.csv", samples, *predictions["test"])
    draw(run, samples, feed, predictions)
    metrics["timing"] = timing(run, samples.counts()["train"], time.perf_counter() - started)
    write_metrics(run, metrics)
    log_hyperparameters(trainer, run, metrics)
    print_summary(metrics, str(run.directory), [])


def _note_what_is_trained(run: Run, samples: Samples, source: Source, stages: list[StageFacts], plan: Plan) -> None:
    data = {
        "fingerprint": samples.fingerprint,
        "classes": len(samples.classes),
        "images": samples.counts(),
        "passed_over": len(samples.passed_over),
    }
    before = run.record.get("data", data)["fingerprint"]
    if before != samples.fingerprint:
        fault = Fault(
            f"resume={run.directory}",
            f"fingerprint {samples.fingerprint}",
            before,
            "restore the images, or start a new run",
        )
        raise UserFault("the data set is not the one that this run began with.", [fault])
    run.note(data=data, source=source.weights, parameters=totals(stages, plan), plan=plan.plain(), hardware=hardware())


def _say_samples(recipe: Recipe, samples: Samples) -> None:
    counts = ", ".join(f"{count} {split}" for split, count in samples.counts().items())
    print(
        f"{recipe.dataset.name}: {counts} images of {len(samples.classes)} classes, fingerprint {samples.fingerprint}"
    )
    if samples.passed_over:
        shown = ", ".join(samples.passed_over[:3]) + (", ..." if len(samples.passed_over) > 3 else "")
        print(f"passed over {len(samples.passed_over)} files that are no images: {shown}")
    print()


def _explaining(function: Callable[[Run], None], run: Run) -> None:
    """Turns a full disk or a full GPU into what the user can do about it."""
    try:
        function(run)
    except torch.cuda.OutOfMemoryError as error:
        half = max(2, run.recipe.trainer.batch_size // 2)
        fix = f"trainer.batch_size={half} trainer.accumulate={2 * run.recipe.trainer.accumulate}, which trains alike"
        raise UserFault(
            "the GPU's memory is full.", [Fault(f"trainer.batch_size={run.recipe.trainer.batch_size}", fix=fix)]
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        fix = f"free some space, then resume={run.directory}"
        raise UserFault("the disk is full.", [Fault(str(run.directory), str(error), fix=fix)]) from error


def _quieten() -> None:
    """Silences what Lightning says about choices that thaw has made on purpose."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for about in (
        "does not have many workers",  # batches are cut from memory
        "exists and is not empty",  # a resumed run's checkpoints
        "smaller than the logging interval",  # scalars are logged by the epoch
        "custom batch sampler `InOrder`",
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning 2.6 on torch 2.15
    ):
        warnings.filterwarnings("ignore", f".*{about}.*")
