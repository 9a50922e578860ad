"""Find the problems of every job of a command before any starts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from thaw.config.consistency import RULES, check_fold_is_set
from thaw.config.errors import Problem
from thaw.config.hydra_settings import find_settings_problems
from thaw.config.job_composer import Composer, resolve_values
from thaw.config.overrides import detect_missing_launcher, get_first_line
from thaw.config.preset_files import merge_missing_keys
from thaw.config.renamed_keys import find_new_key
from thaw.config.schema import Recipe
from thaw.config.search_space import check_search_validation, extreme_points, find_search_problems, is_search
from thaw.config.sweep_jobs import (
    build_sweep_values,
    count_differences,
    expand_jobs,
    find_size_problems,
    sample_evenly,
    select_jobs,
)
from thaw.config.validation import find_problems

MAX_SIMILAR_PROBLEMS = 3  # of one key; more are reported as one
MAX_COMBINATION_PROBLEMS = 20  # a contradiction of two settings is in a share of all jobs, with the same message
PLACEHOLDER_FOLDS = 5
MAX_EXTREME_JOBS = 9  # of a search; each takes 0.1 s
COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException)
ComputeValues = Callable[[Sequence[str]], dict[str, Any]]


def find_problems_in_jobs(overrides: Sequence[Override], composer: Composer) -> list[Problem]:
    """Return the problems of the run, or of the sweep and of its jobs; similar ones of several jobs as one."""
    if composer.command.multirun:
        return merge_similar_problems(list(dict.fromkeys(_find_problems_in_sweep(overrides, composer))))
    lines = [override.input_line or "" for override in overrides]
    problems = list(_find_problems_in_job(lines, composer, lambda job: resolve_values(composer.compose_job(job))))
    return problems or [*_check_preset_without_sweep(composer, lines), *_check_settings(lines, composer)]


def _check_preset_without_sweep(composer: Composer, lines: Sequence[str]) -> Iterator[Problem]:
    """Yield a problem for a preset of conf/sweep/ without -m: its values would be ignored."""
    preset_lines = [line for line in lines if line.lstrip("+").startswith("sweep=")]
    if preset_lines and composer.compose_job(lines).hydra.runtime.choices.get("sweep"):
        yield Problem(preset_lines[0], "a preset for sweeps", "with -m", f"put -m in front: -m {preset_lines[0]}")


def _check_settings(lines: Sequence[str], composer: Composer) -> Iterator[Problem]:
    yield from find_settings_problems(composer.compose_job(lines), lines, multirun=False)


def _find_problems_in_sweep(overrides: Sequence[Override], composer: Composer) -> Iterator[Problem]:
    lines = [override.input_line or "" for override in overrides]
    try:
        shared_config = composer.compose_shared_config(overrides)
        all_overrides = [*parse_preset_overrides(overrides, shared_config, composer), *overrides]
    except COMPOSITION_ERRORS as error:
        single_lines = [override.input_line or "" for override in overrides if not override.is_sweep_override()]
        yield build_composition_problem(error, _find_culprit(single_lines, composer))
        return
    yield from find_settings_problems(shared_config, lines, multirun=True)
    if fold_problems := list(_check_folds_of_preset(overrides, shared_config)):
        yield from fold_problems
        shared_config.folds = PLACEHOLDER_FOLDS  # so that the problems of the other keys are found too
        overrides = [override for override in overrides if override.key_or_group != "folds"]
        all_overrides = [*parse_preset_overrides(overrides, shared_config, composer), *overrides]
    if size_problems := list(find_size_problems(all_overrides)):
        yield from size_problems
    elif is_search(shared_config):
        yield from _find_problems_in_search(shared_config, all_overrides, composer)
    elif has_adaptive_sweeper(shared_config):
        job = [override.input_line or "" for override in overrides if not override.is_sweep_override()]
        yield from _find_problems_in_job(job, composer, lambda job: resolve_values(composer.compose_job(job)))
    else:
        yield from _find_problems_in_grid(all_overrides, composer)


def _check_folds_of_preset(overrides: Sequence[Override], shared_config: DictConfig) -> Iterator[Problem]:
    """Yield a problem for no number of folds, or several, with a preset that runs all folds of one number."""
    override = next((override for override in overrides if override.key_or_group == "folds"), None)
    if override is None or "fold" not in (shared_config.hydra.sweeper.params or {}):
        return
    if override.is_sweep_override():
        values = list(override.sweep_string_iterator()) if override.is_discrete_sweep() else []
        fix = f"folds={values[0]}, and another sweep for each other number" if values else "folds=5"
        yield Problem(str(override.input_line), "several numbers of folds", "one number", fix)
    elif override.value() is None:
        yield Problem(str(override.input_line), "no folds", "one number", "folds=5, or leave sweep=folds out")


def _find_problems_in_search(
    shared_config: DictConfig, overrides: Sequence[Override], composer: Composer
) -> Iterator[Problem]:
    """Yield the problems of a search and those of trials at the ends of its space."""
    problems = list(find_search_problems(shared_config, overrides))
    yield from problems
    if problems:
        return
    jobs = sample_evenly(extreme_points(overrides), MAX_EXTREME_JOBS)
    job_problems = [
        problem
        for job in jobs
        for problem in _find_problems_in_job(job, composer, lambda job: resolve_values(composer.compose_job(job)))
    ]
    yield from job_problems
    if not job_problems:
        yield from check_search_validation(Recipe.model_validate(resolve_values(composer.compose_job(jobs[0]))))


def _find_problems_in_grid(overrides: Sequence[Override], composer: Composer) -> Iterator[Problem]:
    """Yield the problems of a sweep over all combinations: first of jobs in which a single value differs from the first
    job's, and only if there are none, of the others."""
    intervals = [override for override in overrides if override.is_interval_sweep()]
    for override in intervals:
        fix = f"{override.key_or_group}=VALUE,VALUE, or sweep=search"
        yield Problem(str(override.input_line), "an interval", "a list of values", fix)
    jobs = expand_jobs([override for override in overrides if override not in intervals])
    try:
        sweep_values = build_sweep_values(overrides, jobs[0], composer)
    except COMPOSITION_ERRORS:
        yield from _find_problems_in_job(jobs[0], composer, lambda job: resolve_values(composer.compose_job(job)))
        return
    checked_jobs = select_jobs(jobs, sweep_values)
    neighbours = [job for job in checked_jobs if count_differences(job, jobs[0]) <= 1]
    has_problem = False
    for job in neighbours:
        for problem in _find_problems_in_job(job, composer, sweep_values.compute_values):
            has_problem = True
            yield problem
    if has_problem:
        return
    job_problems = (
        problem for job in checked_jobs for problem in _find_problems_in_job(job, composer, sweep_values.compute_values)
    )
    yield from islice(job_problems, MAX_COMBINATION_PROBLEMS)


def has_adaptive_sweeper(shared_config: DictConfig) -> bool:
    """Whether the sweeper chooses values from earlier results, as every sweeper but Hydra's own may do."""
    return str(shared_config.hydra.sweeper.get("_target_", "")).rpartition(".")[2] != BasicSweeper.__name__


def count_jobs(shared_config: DictConfig, all_overrides: Sequence[Override]) -> int | None:
    """Return the number of jobs of a sweep; None if another sweeper than thaw's decides it."""
    if is_search(shared_config):
        return int(shared_config.hydra.sweeper.trials)
    return None if has_adaptive_sweeper(shared_config) else len(expand_jobs(all_overrides))


def parse_preset_overrides(
    overrides: Sequence[Override], shared_config: DictConfig, composer: Composer
) -> list[Override]:
    """Return the overrides of a preset of conf/sweep/, without keys that the command line sets. `shared_config` is the
    part that all jobs share."""
    command_line_keys = {override.key_or_group for override in overrides}
    params = (
        {}
        if has_adaptive_sweeper(shared_config) and not is_search(shared_config)
        else shared_config.hydra.sweeper.get("params") or {}
    )
    lines = [composer.force_override(f"{key}={value}") for key, value in params.items() if key not in command_line_keys]
    return list(OverridesParser.create(config_loader=composer.config_loader).parse_overrides(lines))


def _find_problems_in_job(job: Sequence[str], composer: Composer, compute_values: ComputeValues) -> Iterator[Problem]:
    """Yield the problems of one job. Overrides with a problem are removed and the others checked again, so that a
    wrong type does not hide a contradiction; a problem with the default of a removed key is not reported."""
    remaining_lines, reported_keys = list(job), set[str]()
    rules = [*RULES, check_fold_is_set] if composer.command.trains else RULES
    while True:
        try:
            keyed_problems = find_problems(compute_values(remaining_lines), rules)
            if keyed_problems and composer.group_choices.preset_folder:
                own_presets = composer.find_own_presets(composer.compose_job(remaining_lines))
                keyed_problems = merge_missing_keys(keyed_problems, own_presets)
        except COMPOSITION_ERRORS as error:
            culprit = _find_culprit(remaining_lines, composer)
            yield build_composition_problem(error, culprit)
            if culprit is None or "=" not in culprit or "." not in culprit.split("=", 1)[0]:
                return  # keys below a group cannot be judged without its choice
            remaining_lines.remove(culprit)
            reported_keys.add(culprit.lstrip("+~").split("=", 1)[0])
            continue
        yield from (
            problem
            for key, problem in keyed_problems
            if not any(reported_key == key or reported_key in problem.subject for reported_key in reported_keys)
        )
        reported_keys.update(key for key, _ in keyed_problems)
        blamed_lines = [line for line in remaining_lines if any(_is_blamed_on(key, line) for key, _ in keyed_problems)]
        remaining_lines = [line for line in remaining_lines if line not in blamed_lines]
        if not blamed_lines or (not remaining_lines and composer.command.has_shipped_config):
            return


def _is_blamed_on(key: str, line: str) -> bool:
    override_key = line.lstrip("+~").split("=", 1)[0]
    is_nested_key = "." in override_key and key.startswith(f"{override_key}.")
    return key == override_key or is_nested_key or override_key.startswith(f"{key}.")


def _find_culprit(lines: Sequence[str], composer: Composer) -> str | None:
    """Return the first of `lines` with which the configuration cannot be composed; None: it cannot without any."""
    for count in range(len(lines) + 1):
        try:
            resolve_values(composer.compose_job(lines[:count]))
        except COMPOSITION_ERRORS:
            return lines[count - 1] if count else None
    return None


def build_composition_problem(error: Exception, culprit: str | None) -> Problem:
    """Return the problem of a configuration that Hydra cannot compose, because of the override `culprit` if known."""
    message = str(error)
    old_group = re.search(r"Could not override '(?:[\w.]*/)*(\w+)'", message)
    if old_group and (new_group := find_new_key(old_group[1])):  # a defaults list that was written for version 0.1
        return Problem(
            message.splitlines()[0], f"the group {old_group[1]} of version 0.1", new_group, f"override /{new_group}"
        )
    if problem := detect_missing_launcher(message):
        return problem
    cause = error.__cause__ if message.startswith("Error merging override") and error.__cause__ else error
    if culprit is not None:
        return Problem(culprit, _describe_cause(cause), "a value that fits to the key, or leave it out")
    is_bool = "value in defaults : bool" in message
    fix = 'quote on, off, yes and no: "off"' if is_bool else "python train.py --help lists groups and choices"
    return Problem("the configuration cannot be composed", _describe_cause(error), fix=fix)


def _describe_cause(error: BaseException) -> str:
    return get_first_line(error).partition(" Config search path:")[0]


def merge_similar_problems(problems: Sequence[Problem]) -> list[Problem]:
    """Return `problems` with those of many values of one key as one, such as those of 100 wrong seeds."""
    groups: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        groups.setdefault((problem.subject.partition("=")[0], problem.valid), []).append(problem)
    merged: list[Problem] = []
    for (key, valid), similar in groups.items():
        if len(similar) <= MAX_SIMILAR_PROBLEMS or not all("=" in problem.subject for problem in similar):
            merged += similar
            continue
        values = [problem.subject.partition("=")[2] for problem in similar]
        subject = f"{key}={', '.join(values[:MAX_SIMILAR_PROBLEMS])}, ... {values[-1]}"
        merged.append(Problem(subject, f"{len(similar)} values", valid, similar[0].fix))
    return merged
