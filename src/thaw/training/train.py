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

from thaw.config.faults import Fault, UserFault
from thaw.training.assembly import Assembly, assembled
from thaw.training.averaging import averaging_of
from thaw.training.board import show_charts, show_results
from thaw.training.checkpoint import AtomicCheckpointIO
from thaw.training.files import write_json
from thaw.training.hardware import devices_for
from thaw.training.history import History
from thaw.training.learner import NotFinite
from thaw.training.nodes import PATIENCE
from thaw.training.norms import Norms
from thaw.training.outcome import (
    Predicted,
    draw,
    metrics_by_split,
    predicted,
    timing,
)
from thaw.training.page import write_page
from thaw.training.pictures import show_data
from thaw.training.predictions_file import write_predictions
from thaw.training.pruning import Pruning
from thaw.training.ranks import backend, together
from thaw.training.run import Pruned, Run
from thaw.training.saving import Checkpoints
from thaw.training.sharding import Sharding
from thaw.training.supply import Entering
from thaw.training.tables import print_summary
from thaw.training.trials import is_trial


def train(run: Run) -> None:
    """Fetch, index and split, build, plan, train, record. A resumed run goes the same way from its last checkpoint."""
    began = time.perf_counter()
    quieten()
    parts = together(partial(assembled, run))
    trainer = trainer_for(run, parts)
    if run.rank == 0 and not run.last.is_file():  # a resumed run has shown them
        show_data(trainer, parts.samples, parts.feed.images)
        show_charts(trainer)
    _fit(trainer, parts, run)
    predictions = predicted(trainer, parts.learner, parts.feed, parts.supply, run.best)
    if run.rank == 0:
        _record(trainer, parts, run, predictions, began)


def trainer_for(run: Run, parts: Assembly, callbacks: Sequence[Callback] = ()) -> pl.Trainer:
    """A Trainer that writes into the run directory; `callbacks` are heard before its own."""
    settings, on_screen = run.recipe.trainer, sys.stderr.isatty() and run.rank == 0
    return pl.Trainer(
        accelerator=parts.accelerator,
        devices=devices_for(parts.accelerator, parts.layout.devices),
        num_nodes=parts.layout.nodes,
        strategy=_exchange(parts),
        precision=parts.precision,
        max_epochs=settings.epochs,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=settings.clip_norm,
        callbacks=[*callbacks, *_callbacks(run, parts), *([TQDMProgressBar(leave=False)] if on_screen else [])],
        enable_progress_bar=on_screen,
        logger=TensorBoardLogger(run.directory, name="", version="tensorboard"),
        plugins=[AtomicCheckpointIO()],
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        inference_mode=not parts.learner.is_divided,  # what it puts together in evaluation, training is to use again
        default_root_dir=run.directory,
    )


def _exchange(parts: Assembly) -> Strategy | str:
    """How several processes exchange gradients. `find_unused_parameters`: later phases train other parts, and one that
    is frozen in this phase has no gradient to wait for. BatchNorm's statistics are averaged once an epoch."""
    if parts.layout.processes == 1:
        return "auto"
    if parts.learner.is_divided:
        return Sharding(parts.layout.processes, backend(parts.accelerator))
    return DDPStrategy(
        cluster_environment=LightningEnvironment(),
        process_group_backend=backend(parts.accelerator),
        timeout=PATIENCE,
        find_unused_parameters=len(parts.learner.plan.phases) > 1,
        broadcast_buffers=False,
    )


def _callbacks(run: Run, parts: Assembly) -> list[Callback]:
    patience = run.recipe.trainer.early_stopping
    watching = ["trainer.early_stopping"] if patience else []
    watching += ["scheduler"] if run.recipe.scheduler.name == "plateau" else []
    watching += ["sweep=search"] if is_trial(run.directory) else []
    if watching and parts.feed.val is None:
        fix = "dataset.fractions.val=0.15, or trainer.early_stopping=null, another scheduler and no search"
        raise UserFault("nothing to watch.", [Fault(one, "no validation images", fix=fix) for one in watching])
    stopping = [EarlyStopping("val/accuracy", mode="max", patience=patience.patience)] if patience else []
    averaging = averaging_of(run.recipe.trainer)
    averages = [averaging] if averaging else []
    history = History(run.directory / "history.csv", writes=run.rank == 0)
    pruning = [Pruning(run.directory)] if is_trial(run.directory) else []  # by the history's last row
    return [*averages, Entering(parts.supply), history, Norms(), *pruning, *stopping, Checkpoints(run.best.parent)]


def _fit(trainer: pl.Trainer, parts: Assembly, run: Run) -> None:
    checkpoint = run.last if run.last.is_file() else None
    try:
        trainer.fit(parts.learner, parts.feed.train, parts.feed.val, ckpt_path=checkpoint, weights_only=True)
    except NotFinite as error:
        if is_trial(run.directory):
            raise Pruned(f"the loss is not finite any more in {error}") from error
        rates = ", ".join(f"{part} {rate:.3g}" for part, rate in error.rates.items())
        lower = f"optimizer.learning_rate={run.recipe.optimizer.learning_rate / 10:g}"
        fix = f"{lower}, trainer.clip_norm=1.0, scheduler=cosine (it warms up), or trainer.precision=32-true"
        raise UserFault(
            "the loss is not finite any more.", [Fault(str(error), f"learning rates: {rates}", fix=fix)]
        ) from error


def _record(trainer: pl.Trainer, parts: Assembly, run: Run, predictions: Predicted, began: float) -> None:
    samples = parts.samples
    metrics = metrics_by_split(predictions, samples.labels())
    write_predictions(run.directory / "predictions.csv", samples, *predictions["test"])
    draw(run, samples, parts.feed.images, predictions)
    metrics["timing"] = timing(run, samples.counts()["train"], time.perf_counter() - began, parts.supply.seconds)
    write_json(run.directory / "metrics.json", metrics)
    show_results(run, samples, predictions["test"], metrics)
    write_page(run, parts.learner.network, samples, parts.feed.images, parts.preprocessing, parts.stages)
    print_summary(metrics, str(run.directory), run.recipe.notes)


def explaining(function: Callable[[Run], None], run: Run) -> None:
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


def quieten() -> None:
    """Silences what Lightning says about choices that thaw has made on purpose."""
    for library in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(library).setLevel(logging.WARNING)
    for about in (
        "does not have many workers",  # batches are cut from memory
        "exists and is not empty",  # a resumed run's checkpoints
        "smaller than the logging interval",  # scalars are logged by the epoch
        "custom batch sampler `InOrder`",
        "have no `val_dataloader`",
        "It is recommended to use `self.log",  # what is logged is the same in all processes
        "`broadcast_buffers` is deprecated",  # its successor is not in torch 2.6
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning 2.6 on torch 2.15
    ):
        warnings.filterwarnings("ignore", f".*{about}.*")
