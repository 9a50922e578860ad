"""A run, from start to end."""

from __future__ import annotations

import errno
import logging
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.environments import LightningEnvironment  # type: ignore[attr-defined]
from pytorch_lightning.strategies import DDPStrategy, Strategy

from thaw.config.errors import Problem, UserError
from thaw.runs.run import Run, TrialPruned
from thaw.runs.search import is_trial
from thaw.system.devices import resolve_devices
from thaw.training.callbacks.checkpointing import AtomicCheckpointIO, CheckpointCallback
from thaw.training.callbacks.gradient_norms import GradientNormCallback
from thaw.training.callbacks.history import HistoryCallback
from thaw.training.callbacks.pruning import PruningCallback
from thaw.training.callbacks.weight_averaging import build_weight_averaging
from thaw.training.dataloaders import PhasePreparation
from thaw.training.distributed.collectives import raise_on_all_ranks, select_backend
from thaw.training.distributed.fsdp import FSDP2Strategy
from thaw.training.distributed.rendezvous import TIMEOUT
from thaw.training.evaluation import (
    SplitPredictions,
    compute_split_metrics,
    compute_timing,
    predict_splits,
    save_plots,
    write_report,
)
from thaw.training.module import NonFiniteLossError
from thaw.training.setup import TrainingSetup, setup_training
from thaw.training.tensorboard import log_charts, log_dataset, log_results
from thaw.visualization.reports.console import print_summary


def train(run: Run) -> None:
    """Fetch, index and split, build, plan, train, record. A resumed run goes the same way from its last checkpoint."""
    start_time = time.perf_counter()
    silence_lightning()
    setup = raise_on_all_ranks(partial(setup_training, run))
    trainer = build_trainer(run, setup)
    if run.rank == 0 and not run.last_checkpoint.is_file():  # a resumed run has shown them
        log_dataset(trainer, setup.samples, setup.dataloaders.images)
        log_charts(trainer)
    _fit(trainer, setup, run)
    predictions = predict_splits(trainer, setup.module, setup.dataloaders, setup.batch_source, run.best_checkpoint)
    if run.rank == 0:
        _write_results(trainer, setup, run, predictions, start_time)


def build_trainer(run: Run, setup: TrainingSetup, callbacks: Sequence[Callback] = ()) -> pl.Trainer:
    """A Trainer that writes into the run directory; `callbacks` are heard before its own."""
    settings, has_progress_bar = run.recipe.trainer, sys.stderr.isatty() and run.rank == 0
    return pl.Trainer(
        accelerator=setup.accelerator,
        devices=resolve_devices(setup.accelerator, setup.topology.devices),
        num_nodes=setup.topology.nodes,
        strategy=_build_strategy(setup),
        precision=setup.precision,
        max_epochs=settings.epochs,
        accumulate_grad_batches=settings.accumulate_grad_batches,
        gradient_clip_val=settings.gradient_clip_val,
        callbacks=[
            *callbacks,
            *_build_callbacks(run, setup),
            *([TQDMProgressBar(leave=False)] if has_progress_bar else []),
        ],
        enable_progress_bar=has_progress_bar,
        logger=TensorBoardLogger(run.directory, name="", version="tensorboard"),
        plugins=[AtomicCheckpointIO()],
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        inference_mode=not setup.module.is_fsdp,  # what it puts together in evaluation, training is to use again
        default_root_dir=run.directory,
    )


def _build_strategy(setup: TrainingSetup) -> Strategy | str:
    """How several processes exchange gradients. `find_unused_parameters`: later phases train other parts, and one that
    is frozen in this phase has no gradient to wait for. BatchNorm's statistics are averaged once an epoch."""
    if setup.topology.world_size == 1:
        return "auto"
    if setup.module.is_fsdp:
        return FSDP2Strategy(setup.topology.world_size, select_backend(setup.accelerator))
    return DDPStrategy(
        cluster_environment=LightningEnvironment(),
        process_group_backend=select_backend(setup.accelerator),
        timeout=TIMEOUT,
        find_unused_parameters=len(setup.module.plan.phases) > 1,
        broadcast_buffers=False,
    )


def _build_callbacks(run: Run, setup: TrainingSetup) -> list[Callback]:
    early_stopping = run.recipe.trainer.early_stopping
    settings_needing_val = ["trainer.early_stopping"] if early_stopping else []
    settings_needing_val += ["scheduler"] if run.recipe.scheduler.name == "plateau" else []
    settings_needing_val += ["sweep=search"] if is_trial(run.directory) else []
    if settings_needing_val and setup.dataloaders.val is None:
        fix = "dataset.fractions.val=0.15, or trainer.early_stopping=null, another scheduler and no search"
        raise UserError(
            "nothing to watch.", [Problem(setting, "no validation images", fix=fix) for setting in settings_needing_val]
        )
    early_stopping_callbacks = (
        [EarlyStopping("val/accuracy", mode="max", patience=early_stopping.patience)] if early_stopping else []
    )
    averaging = build_weight_averaging(run.recipe.trainer)
    averaging_callbacks = [averaging] if averaging else []
    history = HistoryCallback(run)
    pruning_callbacks = [PruningCallback(run.directory)] if is_trial(run.directory) else []  # by the history's last row
    return [
        *averaging_callbacks,
        PhasePreparation(setup.batch_source),
        history,
        GradientNormCallback(),
        *pruning_callbacks,
        *early_stopping_callbacks,
        CheckpointCallback(run.best_checkpoint.parent),
    ]


def _fit(trainer: pl.Trainer, setup: TrainingSetup, run: Run) -> None:
    checkpoint_path = run.last_checkpoint if run.last_checkpoint.is_file() else None
    try:
        trainer.fit(
            setup.module, setup.dataloaders.train, setup.dataloaders.val, ckpt_path=checkpoint_path, weights_only=True
        )
    except NonFiniteLossError as error:
        if is_trial(run.directory):
            raise TrialPruned(f"the loss is not finite any more in {error}") from error
        rates_text = ", ".join(f"{part} {rate:.3g}" for part, rate in error.learning_rates.items())
        lower_rate_override = f"optimizer.learning_rate={run.recipe.optimizer.learning_rate / 10:g}"
        fix = f"{lower_rate_override}, trainer.gradient_clip_val=1.0, scheduler=cosine (it warms up), or trainer.precision=32-true"
        raise UserError(
            "the loss is not finite any more.", [Problem(str(error), f"learning rates: {rates_text}", fix=fix)]
        ) from error


def _write_results(
    trainer: pl.Trainer, setup: TrainingSetup, run: Run, predictions: SplitPredictions, start_time: float
) -> None:
    samples = setup.samples
    metrics = compute_split_metrics(predictions, samples.get_labels())
    run.write_predictions(samples, *predictions["test"])
    save_plots(run, samples, setup.dataloaders.images, predictions)
    metrics["timing"] = compute_timing(
        run, samples.count_per_split()["train"], time.perf_counter() - start_time, setup.batch_source.seconds
    )
    run.write_metrics(metrics)
    log_results(run, samples, predictions["test"], metrics)
    write_report(run, setup.module.network, samples, setup.dataloaders.images, setup.preprocessing, setup.stages)
    print_summary(metrics, str(run.directory), run.recipe.notes)


def call_with_error_hints(function: Callable[[Run], None], run: Run) -> None:
    """Turns a full disk or a full GPU into what the user can do about it."""
    try:
        function(run)
    except torch.cuda.OutOfMemoryError as error:
        half_batch_size = max(2, run.recipe.trainer.batch_size // 2)
        fix = f"trainer.batch_size={half_batch_size} trainer.accumulate_grad_batches={2 * run.recipe.trainer.accumulate_grad_batches}, which trains alike"
        raise UserError(
            "the GPU's memory is full.", [Problem(f"trainer.batch_size={run.recipe.trainer.batch_size}", fix=fix)]
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        fix = f"free some space, then resume={run.directory}"
        raise UserError("the disk is full.", [Problem(str(run.directory), str(error), fix=fix)]) from error


def silence_lightning() -> None:
    """Silences what Lightning says about choices that thaw has made on purpose."""
    for logger_name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(logger_name).setLevel(logging.WARNING)
    for message in (
        "does not have many workers",  # batches are cut from memory
        "exists and is not empty",  # a resumed run's checkpoints
        "smaller than the logging interval",  # scalars are logged by the epoch
        "custom batch sampler `SequentialBatchSampler`",
        "have no `val_dataloader`",
        "It is recommended to use `self.log",  # what is logged is the same in all processes
        "`broadcast_buffers` is deprecated",  # its successor is not in torch 2.6
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning 2.6 on torch 2.15
    ):
        warnings.filterwarnings("ignore", f".*{message}.*")
