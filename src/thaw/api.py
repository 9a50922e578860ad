"""The public Python interface: what `thaw.__init__` exports.

Every call leaves the process as it was: threads, random generators, deterministic mode, signal handlers, environment
and working directory. Nothing is printed unless `verbose=True`, also not in a notebook.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.config.errors import UserError
from thaw.config.schema import Recipe
from thaw.runs.run import Run, open_run
from thaw.system.reporter import SILENT, ConsoleReporter, Reporter

if TYPE_CHECKING:
    from torch import nn

    from thaw.auditing.result import AuditResult
    from thaw.comparison.comparison import Comparison, RunSource
    from thaw.inference.load import CheckpointLike, Classifier
    from thaw.models.stages import StagedModel
    from thaw.probing.cross_validation import CrossValidation
    from thaw.probing.record import ProbeResult
    from thaw.training.extraction import Extraction
    from thaw.training.tuner.lr_finder import LRCurve

__all__ = [
    "UserError",
    "audit",
    "compare",
    "compose",
    "extract_features",
    "find_learning_rate",
    "load",
    "open_run",
    "probe",
    "split_stages",
    "sweep",
    "train",
]
AnyPath = str | os.PathLike[str]  # a run is one too


def compose(*overrides: str, config_dir: AnyPath | None = None) -> Recipe:
    """Compose a recipe from the same `key=value` overrides that the command line takes.

    Args:
        overrides: for example `"dataset=hymenoptera"`, `"strategy=fixed"`, `"trainer.epochs=10"`.
        config_dir: a folder with your own presets, as `--config-dir` on the command line.

    Raises:
        UserError: with every problem of the overrides in `problems`.
    """
    options = ["--config-dir", str(config_dir)] if config_dir is not None else []
    from thaw.config.compose import compose_recipe, preserve_hydra

    with preserve_hydra():  # not the state of torch, which composing does not import
        return compose_recipe([*options, *overrides])


def train(
    recipe: Recipe | Run,
    directory: AnyPath | None = None,
    *,
    overrides: Sequence[str] = (),
    trust: bool = False,
    verbose: bool = False,
) -> Run:
    """Train `recipe` and return its run; continue the run if one that was interrupted is given.

    Args:
        recipe: what `compose` returned, or an interrupted run.
        directory: the run directory; by default a new one in `recipe.output_dir`.
        overrides: changes of a run that is continued, such as `"trainer.epochs=20"` or `"dataset.root=DIR"`.
        trust: import the optimizer class of another package that a run names; that executes code.
        verbose: print what the command line prints.

    Raises:
        UserError: if data, weights, hardware or settings do not fit, or the loss is not finite any more.
        KeyboardInterrupt: after Ctrl-C. The run can be continued with `train(open_run(directory))`.
    """
    with _preserved_process():
        from thaw.training.start import resume_run, start_run

        if isinstance(recipe, Run):
            reporter = _choose_reporter(verbose)
            return resume_run(recipe.directory, overrides, command="thaw.train(run)", trust=trust, reporter=reporter)
        path = Path(directory).expanduser() if directory is not None else _name_run_directory(recipe)
        return start_run(recipe, path, command="thaw.train(recipe)", reporter=_choose_reporter(verbose))


def sweep(*overrides: str, verbose: bool = False) -> list[Run]:
    """Train one run for each combination of comma-separated values, as `python train.py -m` does.

    Returns:
        the runs in the order of their jobs. A run that failed has the status "failed".

    Raises:
        UserError: with every problem of every job, before the first one starts.
    """
    with _preserved_process():
        from thaw.config.compose import parse_command
        from thaw.sweeps.sweep import sweep as run_sweep

        command, reporter = parse_command(["-m", *overrides]), _choose_reporter(verbose)
        return run_sweep(command, command_line=f"thaw.sweep({', '.join(map(repr, overrides))})", reporter=reporter).runs


def compare(runs: RunSource | Iterable[RunSource]) -> Comparison:
    """Compare runs: accuracy with intervals, paired tests, time, and what is not comparable. Nothing is written.

    Args:
        runs: runs, sweeps, or paths of run directories, sweeps and folders with runs below them.

    Raises:
        UserError: if there is no run in one of them, or none is done.
    """
    from thaw.comparison.comparison import build_comparison

    return build_comparison(runs)


def load(checkpoint: CheckpointLike) -> Classifier:
    """Load the best network of a run, or a checkpoint file, to predict with it.

    Raises:
        UserError: if it is no checkpoint of thaw. Nothing in the file is executed.
    """
    with _preserved_process():
        from thaw.inference.load import load_checkpoint

        return load_checkpoint(checkpoint)


def extract_features(recipe: Recipe, stage: str | None = None, *, verbose: bool = False) -> Extraction:
    """Compute the output of the backbone up to `stage` (by default the last) for every image of the data set.

    Raises:
        UserError: if there is no such stage, or data, weights or hardware do not fit.
    """
    with _preserved_process():
        from thaw.training.extraction import extract_features as extract

        return extract(recipe, stage, reporter=_choose_reporter(verbose))


def probe(recipe: Recipe, directory: AnyPath | None = None, *, verbose: bool = False) -> ProbeResult | CrossValidation:
    """Fit linear classifiers and k-NN to frozen features and keep the best, chosen on validation images, as a run.

    Returns:
        the result; for a recipe with `folds` and no `fold` that of all folds, each of which is a run in `directory`.

    Raises:
        UserError: if there are no validation images, or data, weights or hardware do not fit.
    """
    path = Path(directory).expanduser() if directory is not None else _name_run_directory(recipe, "probe")
    with _preserved_process():
        from thaw.probing.folds import probe_folds
        from thaw.probing.linear_heads import HeadGrid
        from thaw.probing.probe import probe as fit_probe

        is_cross_validated = recipe.folds is not None and recipe.fold is None
        return (probe_folds if is_cross_validated else fit_probe)(recipe, HeadGrid(), path, _choose_reporter(verbose))


def audit(recipe: Recipe, directory: AnyPath | None = None, *, verbose: bool = False) -> AuditResult:
    """Find copies, probable wrong labels, shortcuts and leaks in the data set of `recipe`, before training.

    Args:
        recipe: what `compose` returned. Its data set, backbone and hardware are used, and all images.
        directory: folder to write audit.html, audit.csv, audit.json, exclude.csv and relabel.csv to; by default nothing
            is written.
        verbose: show the progress.

    Raises:
        UserError: if data, weights or hardware do not fit.
    """
    with _preserved_process():
        from thaw.auditing.audit import audit as audit_dataset

        result = audit_dataset(recipe, reporter=_choose_reporter(verbose))
        if directory is not None:
            result.write(directory)
        return result


def find_learning_rate(
    recipe: Recipe, *, min_lr: float = 1e-7, max_lr: float = 10.0, steps: int = 100, verbose: bool = False
) -> LRCurve:
    """Train `recipe` for some steps while the learning rate rises, and suggest one (learning-rate range test).

    Raises:
        UserError: as training would.
    """
    with _preserved_process():
        from thaw.training.tuner.lr_finder import range_test

        curve, _ = range_test(recipe, min_lr, max_lr, steps, reporter=_choose_reporter(verbose))
        return curve


def split_stages(model: nn.Module, size: int = 224) -> StagedModel:
    """Cut a network of torchvision, timm or your own into named stages and a head.

    Args:
        model: a network that `torch.fx` can trace, from images [n, 3, size, size] to logits [n, classes].
        size: side of the images in pixels.

    Raises:
        UserError: if it cannot be traced or cut.
    """
    with _preserved_process():
        from thaw.models.stages import split_stages as split

        return split(model, size)


def _choose_reporter(verbose: bool) -> Reporter:
    return ConsoleReporter() if verbose else SILENT


def _name_run_directory(recipe: Recipe, kind: str = "") -> Path:
    words = kind or f"{recipe.dataset.name}-{recipe.backbone.name}-{recipe.strategy.name}"
    return Path(recipe.output_dir).expanduser() / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{words}_{secrets.token_hex(3)}"


@contextmanager
def _preserved_process() -> Iterator[None]:
    from thaw.system.process import Interrupted, preserve_process_state

    try:
        with preserve_process_state():
            yield
    except Interrupted:
        raise KeyboardInterrupt from None
