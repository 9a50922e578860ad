"""Start, resume and end a run. A process may be killed between any two writes: the run can be started or resumed."""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from thaw.config.errors import Problem, UserError
from thaw.config.optimizer_rules import is_class_path
from thaw.config.recipe_overrides import with_resume_overrides
from thaw.config.schema import Recipe
from thaw.config.validation import validate_recipe
from thaw.runs import RECIPE_FILE, RECORD_FILE
from thaw.runs.environment import format_current_time, get_git_revision, get_versions, make_recipe_portable
from thaw.runs.overview import summarize_recipe
from thaw.runs.run import Run, build_missing_run_problem, is_job, read_status
from thaw.system.files import write_json, write_text
from thaw.system.portable import format_traceback, shorten_home

TRUSTED_PACKAGES = ("timm.optim.", "thaw.")
FULL_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class TrialPruned(Exception):
    """A search stopped one of its runs early. The message says when and why."""


def create_run(recipe: Recipe, directory: Path, command: str = "") -> Run:
    """Start a run directory for `recipe`. `command` is the command line, recorded in `run.json`. A run that was killed
    before it had a `run.json` never began: its directory is used.

    Raises:
        UserError: if `directory` already holds a run.
    """
    run = Run(directory, make_recipe_portable(recipe), {})
    if run.exists or run.has_results:
        fix = f"resume={shlex.quote(str(directory))}, or another hydra.run.dir"
        raise UserError("The run directory is taken.", [Problem(str(directory), "it holds a run", fix=fix)])
    directory.mkdir(parents=True, exist_ok=True)
    run.write_recipe()
    run.update(**_build_first_entries(recipe, command))
    return run


def _build_first_entries(recipe: Recipe, command: str) -> dict[str, Any]:
    return {
        "status": "running",
        "command": command,
        "seed": recipe.seed,
        "summary": summarize_recipe(recipe),
        "started": format_current_time(),
        "versions": get_versions(),
        "git": get_git_revision(),
        **({"notes": recipe.notes} if recipe.notes else {}),
    }


def resume_run(directory: Path, overrides: Sequence[str] = (), command: str = "", trust: bool = False) -> Run:
    """Open the run in `directory` to continue it.

    `overrides` change where its data and weights are, on which hardware it trains, or trainer.epochs. A run that is
    done continues with more epochs; if its metrics or predictions are damaged, it is evaluated again. `command` is
    recorded. `trust` allows an optimizer of another package than torch, which is imported.

    Raises:
        UserError: if there is nothing to continue, or its recipe cannot be trained here.
    """
    check_resumable(directory, overrides)
    run = Run(directory)
    run.previous_texts = {
        name: (directory / name).read_text(encoding="utf-8")
        for name in (RECORD_FILE, RECIPE_FILE)
        if (directory / name).is_file()
    }
    recipe = make_recipe_portable(with_resume_overrides(run.recipe, overrides)) if overrides else run.recipe
    check_trusted(recipe, trust, f"thaw resume {shlex.quote(str(directory))}")
    validate_recipe(recipe.to_dict())  # with all rules: the data and weights of a run that trains must be here
    if not run.exists:
        run.record = _build_first_entries(recipe, command)
    entry = {
        "time": format_current_time(),
        "command": command,
        "overrides": list(overrides),
        "evaluates_only": run.is_finished and recipe.trainer.epochs == run.recipe.trainer.epochs,
    }
    run.update(status="running", resumed=[*run.record.get("resumed", []), entry])
    if recipe != run.recipe:
        run.recipe = recipe
        run.write_recipe()
    return run


def check_resumable(directory: Path, overrides: Sequence[str] = ()) -> None:
    """Raise UserError if there is no run in `directory`, it is damaged, or it has finished and `overrides` do not
    continue it."""
    run = Run(directory)
    if not (directory / RECIPE_FILE).is_file():
        problem = build_missing_run_problem(directory, f"resume={directory}", "resume=")
        raise UserError("no run to resume.", [problem])
    num_epochs = max((int(row["epoch"]) for row in run.read_history()), default=0)
    epochs = with_resume_overrides(run.recipe, overrides).trainer.epochs
    if epochs != run.recipe.trainer.epochs:
        _check_epochs(run, epochs, num_epochs)
    elif run.exists and run.is_finished:
        _check_evaluable(run, num_epochs)


def _check_evaluable(run: Run, num_epochs: int) -> None:
    """Raise UserError if the results of a finished run are complete, or it lacks the weights to compute them again."""
    if run.needs_evaluation and not run.is_probe:
        if not run.best_checkpoint.is_file():
            got = "no such file, so the run cannot be evaluated again"
            raise UserError("nothing to resume.", [Problem(str(run.best_checkpoint), got, fix="train it again")])
        return
    can_continue = run.status == "done" and not run.is_probe and not is_job(run.directory)
    fix = f"trainer.epochs={2 * num_epochs} beside it trains more epochs, or start a new run"
    problem = Problem(
        f"resume={run.directory}", f"this run is {run.status}", fix=fix if can_continue else "start a new one"
    )
    raise UserError("nothing to resume.", [problem])


def _check_epochs(run: Run, epochs: int, num_epochs: int) -> None:
    """Raise UserError if a run that has trained `num_epochs` cannot continue to `epochs`."""
    subject = f"trainer.epochs={epochs}"
    if is_job(run.directory):
        got = "the run is a job of a sweep, whose command decides its epochs"
        raise UserError("a job keeps its epochs.", [Problem(subject, got, fix="start a run or a sweep of its own")])
    if epochs < num_epochs or (epochs == num_epochs and run.is_finished):
        got = f"{num_epochs} epochs are trained"
        raise UserError("nothing to resume.", [Problem(subject, got, fix=f"trainer.epochs={num_epochs + 1} or more")])
    if run.is_finished and not run.last_checkpoint.is_file():
        problem = Problem(str(run.last_checkpoint), "no such file: the run cannot go on", fix="start a new run")
        raise UserError("nothing to resume.", [problem])


def check_trusted(recipe: Recipe, trust: bool, command: str) -> None:
    """Raise UserError if `recipe`, read from a file, names a class that training would import, and `trust` is not set.

    A module executes code when it is imported. torch's own optimizers are always fine. `command` is the fix.
    """
    name = recipe.optimizer.name
    if not trust and not is_trusted_class(name):
        got = "a class of another package than torch and timm; importing it executes code"
        problem = Problem(f"optimizer.name={name}", got, fix=f"{command} --trust, if you know where the file is from")
        raise UserError("the recipe names a class that thaw does not know.", [problem])


def format_resume_command(directory: Path) -> str:
    """Return the command that continues the run in `directory`, which is of the user's own."""
    run = Run(directory)
    needs_trust = run.exists and not is_trusted_class(run.recipe.optimizer.name)
    return f"python train.py {shlex.quote(f'resume={directory}')}{' --trust' * needs_trust}"


def is_trusted_class(name: str) -> bool:
    """Return whether `name` is an optimizer of torch or timm, which may be imported whatever file names it."""
    return not is_class_path(name) or name.startswith(TRUSTED_PACKAGES)


def record_failure(directory: Path, error: str) -> None:
    """Record `error` of a job that failed before it trained. A run that trained records its own; a damaged record
    stays as it is."""
    with suppress(UserError):
        if read_status(directory) is None:
            directory.mkdir(parents=True, exist_ok=True)
            entries = {"status": "failed", "ended": format_current_time(), "error": shorten_home(error)}
            write_json(directory / RECORD_FILE, entries)


@contextmanager
def record_status(run: Run) -> Iterator[None]:
    """Write into `run.json` how the run ended, whatever ends it. A pruned run does not raise. If the user has to change
    something before the training can start, a single run leaves no trace."""
    try:
        yield
    except TrialPruned as reason:
        run.update(status="pruned", ended=format_current_time(), pruned=str(reason))
        return
    except UserError as error:
        with suppress(OSError):  # the error that is raised says why
            if run.has_started or is_job(run.directory):
                run.update(status="failed", ended=format_current_time(), error=str(error))
            else:
                undo(run)
        raise
    except Exception:
        with suppress(OSError):
            run.update(status="failed", ended=format_current_time(), error=format_traceback())
        raise
    except BaseException:
        with suppress(OSError):
            run.update(status="interrupted", ended=format_current_time())
        raise
    run.update(status="done", ended=format_current_time(), checkpoints=run.compute_checkpoint_digests())


def undo(run: Run) -> None:
    """Restore the files of a run as they were before this process resumed it, or remove those of a new run."""
    for name in (RECORD_FILE, RECIPE_FILE):
        file = run.directory / name
        if name in run.previous_texts:
            write_text(file, run.previous_texts[name])
        else:
            file.unlink(missing_ok=True)


@contextmanager
def create_directory(directory: Path) -> Iterator[None]:
    """Create a folder for a context; after it, remove the new folders that are still empty.

    Raises:
        UserError: if the folder cannot be created.
    """
    new_folders = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    with explain_write_errors(directory, "another output_dir"):
        directory.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):
            for folder in new_folders:
                folder.rmdir()


@contextmanager
def explain_write_errors(directory: Path, full_disk_fix: str) -> Iterator[None]:
    """Turn an error of writing into `directory` into a UserError that says what to change."""
    was_there = directory.is_dir()
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK_ERRORS:
            fix = f"free some space, then {full_disk_fix}"
            raise UserError("the disk is full.", [Problem(str(directory), str(error), fix=fix)]) from error
        file = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
        if file is None or not (file.is_relative_to(directory) or directory.is_relative_to(file)):
            raise
        problem = Problem(str(file), str(error.strerror), "a folder that can be written", "another output_dir")
        if was_there and not directory.is_dir():
            got = "the folder was removed while the run wrote into it"
            problem = Problem(str(directory), got, fix="start the run again")
        raise UserError("the output folder cannot be written.", [problem]) from error
