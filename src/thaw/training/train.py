"""Train a run: components, plan, data loaders, module; then fit, evaluate and record."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.environments import LightningEnvironment  # type: ignore[attr-defined]
from pytorch_lightning.strategies import DDPStrategy, Strategy

from thaw.config.errors import Problem, UserError
from thaw.config.schema import TrainerConfig
from thaw.runs.lifecycle import TrialPruned, explain_write_errors
from thaw.runs.run import Run
from thaw.runs.search import is_trial
from thaw.system.devices import get_lightning_devices
from thaw.system.reporter import SILENT, Reporter
from thaw.training.callbacks.checkpointing import AtomicCheckpointIO, CheckpointCallback, build_checkpoint_metadata
from thaw.training.callbacks.checks import (
    FiniteLossCallback,
    NonFiniteLossError,
    PruningCallback,
    SynchronizationCallback,
)
from thaw.training.callbacks.gradient_norms import GradientNormCallback
from thaw.training.callbacks.history import HistoryCallback
from thaw.training.callbacks.progress import ProgressCallback
from thaw.training.callbacks.weight_averaging import build_weight_averaging
from thaw.training.dataloaders import EpochLoader, EpochPreparation
from thaw.training.distributed.collectives import raise_on_all_ranks, select_backend
from thaw.training.distributed.fsdp import FSDP2Strategy
from thaw.training.distributed.rendezvous import TIMEOUT
from thaw.training.evaluation import (
    SplitPredictions,
    compute_split_metrics,
    compute_timing,
    draw_results,
    predict_splits,
    warn_if_not_drawn,
)
from thaw.training.l2_sp import build_l2_sp_regularizer
from thaw.training.setup import TrainingSetup, setup_training
from thaw.training.tensorboard import log_charts, log_dataset
from thaw.visualization.reports.console import print_summary


def train(run: Run, reporter: Reporter = SILENT) -> None:
    """Train a run and write everything into its directory. A resumed run continues from its last checkpoint.

    Raises:
        UserError: if data, weights or hardware are not as the recipe needs them, or the loss is not finite.
        TrialPruned: if the run is a trial of a search that prunes it.
    """
    start_time = time.perf_counter()
    silence_lightning()
    setup = raise_on_all_ranks(partial(setup_training, run, reporter))
    trainer = build_trainer(run, setup, reporter)
    if run.rank == 0 and not run.last_checkpoint.is_file():  # a resumed run has logged them
        log_charts(trainer)
        with warn_if_not_drawn("pictures of the data set", run.directory, reporter):
            log_dataset(trainer, setup.components.data)
    if not run.only_evaluates:
        _fit(trainer, setup, run)
    predictions = predict_splits(trainer, setup, run.best_checkpoint)
    if run.rank == 0:
        _write_results(run, setup, predictions, start_time, reporter)


def build_trainer(
    run: Run, setup: TrainingSetup, reporter: Reporter = SILENT, callbacks: Sequence[Callback] = ()
) -> pl.Trainer:
    """Build a Trainer that writes into the run directory. `callbacks` come before its own."""
    settings, devices = run.recipe.trainer, setup.components.devices
    return pl.Trainer(
        accelerator=devices.accelerator,
        devices=get_lightning_devices(devices.accelerator, devices.topology.devices),
        num_nodes=devices.topology.nodes,
        strategy=_build_strategy(setup),
        precision=setup.components.lightning_precision,
        max_epochs=settings.epochs,
        callbacks=[*callbacks, *_build_callbacks(run, setup, reporter)],
        enable_progress_bar=False,  # ProgressCallback shows it
        logger=TensorBoardLogger(run.directory, name="", version="tensorboard"),
        plugins=[AtomicCheckpointIO()],
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        inference_mode=not devices.is_fsdp,  # weights that are gathered in inference mode cannot be trained afterwards
        default_root_dir=run.directory,
    )


def _build_strategy(setup: TrainingSetup) -> Strategy | str:
    """Build the strategy by which several processes exchange gradients.

    `find_unused_parameters`: later phases train other parts, and DDP must not wait for the gradients of parts that are
    frozen in this phase. BatchNorm's statistics are averaged once per epoch, by a callback.
    """
    devices = setup.components.devices
    if devices.topology.world_size == 1:
        return "auto"
    backend = select_backend(devices.accelerator)
    if devices.is_fsdp:
        return FSDP2Strategy(devices.topology.world_size, backend)
    return DDPStrategy(
        cluster_environment=LightningEnvironment(),
        process_group_backend=backend,
        timeout=TIMEOUT,
        find_unused_parameters=len(setup.plan.phases) > 1,
        broadcast_buffers=False,
    )


def _build_callbacks(run: Run, setup: TrainingSetup, reporter: Reporter) -> list[Callback]:
    """Build the callbacks in the order in which Lightning calls them.

    - Weight averaging is first: when an epoch starts, it puts the trained weights into the network, from which
      EpochPreparation may compute features.
    - EpochPreparation seeds the epoch after everything that could draw random numbers.
    - Gradient norms are measured before L2-SP adds its gradients.
    - The history has its row before pruning reads it, and before a loss that is not finite ends the run.
    - Lightning calls early stopping and checkpoints last, after the module's own hooks.
    """
    is_search_trial, settings = is_trial(run.directory), run.recipe.trainer
    if setup.loaders.val is None:
        _check_validation_unused(run)
    averaging = build_weight_averaging(settings)
    early_stopping = settings.early_stopping
    callbacks = [
        averaging,
        EpochPreparation(setup.batch_source, run.recipe.seed),
        HistoryCallback(run, reporter),
        ProgressCallback(reporter, setup.components.data.samples.count_per_split()) if run.rank == 0 else None,
        GradientNormCallback(),
        PruningCallback(run.directory) if is_search_trial else None,
        *build_step_callbacks(setup),
        SynchronizationCallback(),
        EarlyStopping("val/accuracy", mode="max", patience=early_stopping.patience) if early_stopping else None,
        CheckpointCallback(run.last_checkpoint, run.best_checkpoint, _build_metadata(setup)),
    ]
    return [callback for callback in callbacks if callback]


def build_step_callbacks(setup: TrainingSetup) -> list[Callback]:
    """Build the callbacks that act on losses and gradients: L2-SP and the check that the loss is finite."""
    l2_sp, network = setup.components.recipe.strategy.l2_sp, setup.components.model.network
    regularizers = [build_l2_sp_regularizer(network, setup.plan, l2_sp)] if l2_sp else []
    return [*regularizers, FiniteLossCallback()]


def _check_validation_unused(run: Run) -> None:
    """Raise UserError if a setting of the recipe needs validation images."""
    recipe = run.recipe
    settings = ["trainer.early_stopping"] if recipe.trainer.early_stopping else []
    settings += ["scheduler"] if recipe.scheduler.name == "plateau" else []
    settings += ["sweep=search"] if is_trial(run.directory) else []
    if settings:
        fix = "dataset.fractions.val=0.15, or trainer.early_stopping=null, another scheduler and no search"
        problems = [Problem(setting, "no validation images", fix=fix) for setting in settings]
        raise UserError("no validation images to monitor.", problems)


def _build_metadata(setup: TrainingSetup) -> dict[str, Any]:
    components, decisions = setup.components, setup.batch_source.decisions.values()
    return build_checkpoint_metadata(
        components.recipe.to_dict(),
        components.data.samples.classes,
        components.model.preprocessing,
        components.model.facts,
        [decision.depth for decision in decisions],
        components.data.identity,
        components.record_precision(),
    )


def _fit(trainer: pl.Trainer, setup: TrainingSetup, run: Run) -> None:
    """Fit, from the last checkpoint if there is one."""
    loaders, checkpoint_path = setup.loaders, run.last_checkpoint if run.last_checkpoint.is_file() else None
    try:
        val_loader = EpochLoader(loaders.val) if loaders.val else None
        trainer.fit(setup.module, EpochLoader(loaders.train), val_loader, ckpt_path=checkpoint_path, weights_only=True)
    except NonFiniteLossError as error:
        if is_trial(run.directory):
            raise TrialPruned(f"the loss is not finite in {error}") from error
        rates = ", ".join(f"{part} {learning_rate:.3g}" for part, learning_rate in error.learning_rates.items())
        fixes = [
            f"optimizer.learning_rate={run.recipe.optimizer.learning_rate / 10:g}",
            "trainer.gradient_clip_val=1.0",
            "scheduler=cosine (it warms up)",
        ]
        problem = Problem(
            str(error), f"learning rates: {rates}", fix=f"{', '.join(fixes)}, or trainer.precision=32-true"
        )
        raise UserError("the loss is not finite.", [problem]) from error


def _write_results(
    run: Run, setup: TrainingSetup, predictions: SplitPredictions, start_time: float, reporter: Reporter
) -> None:
    data, samples = setup.components.data, setup.components.data.samples
    metrics = compute_split_metrics(predictions, data)
    run.write_predictions(samples, *predictions["test"])
    num_train_images = samples.count_per_split()["train"]
    wall_s = time.perf_counter() - start_time
    metrics["timing"] = compute_timing(run, num_train_images, wall_s, setup.batch_source.seconds)
    run.write_metrics(metrics)
    draw_results(run, data, setup.components.model, predictions, metrics, reporter)
    example_image = samples.root / samples.samples[int(predictions["test"][1][0])].path
    print_summary(reporter, run, metrics, example_image)


@contextmanager
def explain_resource_errors(run: Run) -> Iterator[None]:
    """Turn a full GPU, a full disk or a folder that is gone into a UserError that says what to change."""
    try:
        with explain_write_errors(run.directory, f"resume={run.directory}"):
            yield
    except torch.cuda.OutOfMemoryError as error:
        raise _build_memory_error(run.recipe.trainer) from error


def _build_memory_error(settings: TrainerConfig) -> UserError:
    """Build the error of a full GPU.

    The fix makes batches smaller and accumulates more of them, so that each optimizer step has the same images. A prime
    number of images cannot be divided, and is reduced by one first.
    """
    batch_size, remark = settings.batch_size, "which averages the same images in each step, but BatchNorm over fewer"
    divisors = [divisor for divisor in range(2, batch_size // 2 + 1) if batch_size % divisor == 0]
    if not divisors and batch_size > 3:
        divisors, batch_size, remark = [2], batch_size - 1, "with one image fewer in each step"
    fix = "a smaller dataset.image_size, another backbone, or strategy=fixed, which keeps fewer activations"
    if divisors:
        accumulate = settings.accumulate_grad_batches * divisors[0]
        smaller_batches = f"trainer.batch_size={batch_size // divisors[0]} trainer.accumulate_grad_batches={accumulate}"
        fix = f"{smaller_batches}, {remark}"
    return UserError("the GPU's memory is full.", [Problem(f"trainer.batch_size={settings.batch_size}", fix=fix)])


def silence_lightning() -> None:
    """Silence Lightning's messages about choices that thaw makes on purpose."""
    for logger_name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(logger_name).setLevel(logging.WARNING)
    for message in (
        "exists and is not empty",  # the checkpoints of a resumed run
        "smaller than the logging interval",  # scalars are logged once per epoch
        "have no `val_dataloader`",
        "It is recommended to use `self.log",  # the logged values are the same in all processes
        "`broadcast_buffers` is deprecated",  # its successor is not in torch 2.6
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning 2.6 on torch 2.15
    ):
        warnings.filterwarnings("ignore", f".*{message}.*")
