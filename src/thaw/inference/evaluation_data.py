"""Load the data that a trained network is evaluated on. The recipe in its checkpoint may come from a stranger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import yaml

from thaw.config.catalog import get_config_folder
from thaw.config.dataset_rules import get_archives
from thaw.config.errors import Problem, UserError
from thaw.config.schema import CaptchaDatasetConfig, CsvDatasetConfig, FolderDatasetConfig, Recipe
from thaw.data.corrections import describe_missing_files
from thaw.data.evaluation_samples import EvaluationSamples
from thaw.data.factory import is_available, load_evaluation_samples, load_samples
from thaw.data.samples import Samples, limit_per_class
from thaw.inference.load import Classifier
from thaw.system.cache_entries import is_cache_folder
from thaw.system.cache_folder import resolve_cache_dir


@dataclass(frozen=True)
class EvaluationData:
    """Samples with the splits in which they are evaluated. `is_own`: they are all those that the network's run had.
    `notes` say in which way they differ."""

    samples: Samples
    is_own: bool
    notes: tuple[str, ...] = ()


def load_evaluation_data(
    classifier: Classifier, recipe: Recipe, overrides: Sequence[str] = (), recorded_fingerprint: str | None = None
) -> EvaluationData:
    """Load the data set of `recipe`: the classifier's own, changed by `overrides` that the user has typed.

    Of other data than those of the run, no image counts as a test image that the network was trained or selected on. A
    checkpoint of version 0.2 or older does not tell; then `recorded_fingerprint`, from the record of its run, does.

    Raises:
        UserError: if the data cannot be loaded or have other classes, or if only the checkpoint says where to fetch
            them.
    """
    check_sources(recipe, overrides)
    loaded, identity = load_evaluation_samples(recipe, classifier.classes), classifier.identity
    notes = tuple(describe_missing_files(recipe.data))
    own_samples = _limit(loaded.samples, recipe)
    if identity is None:
        has_new_data = any(override.startswith("dataset") for override in overrides)
        is_own = recorded_fingerprint == own_samples.fingerprint or not (recorded_fingerprint or has_new_data)
        return EvaluationData(own_samples, is_own, notes if is_own else (*notes, _describe_unknown(loaded)))
    if identity.fingerprint == loaded.samples.fingerprint:
        return EvaluationData(own_samples, is_own=True, notes=notes)
    samples = loaded.split_by_identity(identity)
    difference = f"fingerprint {loaded.samples.fingerprint} instead of {identity.fingerprint}"
    note = f"other images than the run's ({difference}): {_describe(loaded, samples)}"
    return EvaluationData(samples, is_own=False, notes=(*notes, note))


def load_recorded_samples(recipe: Recipe, overrides: Sequence[str] = ()) -> Samples:
    """Load the samples of a recipe from a checkpoint, as the run split them.

    Raises:
        UserError: as `load_samples`, or if only the checkpoint says where to fetch the data set.
    """
    check_sources(recipe, overrides)
    return load_samples(recipe, is_evaluation=True)


def _limit(samples: Samples, recipe: Recipe) -> Samples:
    per_class = recipe.data.train_per_class
    return limit_per_class(samples, per_class, recipe.seed) if per_class else samples


def _describe_unknown(loaded: EvaluationSamples) -> str:
    hint = "" if loaded.has_own_splits else "; split=all evaluates all of them"
    return (
        "caution: other images than the run's, and the network may have been trained on some of them: a checkpoint of "
        f"version 0.2 or older does not say on which{hint}"
    )


def _describe(loaded: EvaluationSamples, samples: Samples) -> str:
    count, num_test = len(samples.samples), samples.count_per_split()["test"]
    if loaded.has_own_splits:
        num_left_out = loaded.num_own_test_images - num_test
        if not num_left_out:
            return "the network has learned from none of the test images"
        return f"{num_left_out} that the network was trained or selected on are left out of the test images"
    if num_test == count:
        return f"all {count} are test images, as the data set has no splits and the network has learned from none"
    return (
        f"{count - num_test} that the network was trained or selected on are left out of the test images; the other "
        f"{num_test} are test images"
    )


def check_sources(recipe: Recipe, overrides: Sequence[str] = ()) -> None:
    """Raise UserError if loading the data set of a checkpoint's recipe would fetch from an address, or write into a
    folder, that neither thaw knows nor the user has typed in `overrides`."""
    typed_keys = [override.partition("=")[0].lstrip("+") for override in overrides]
    if problems := list(_find_source_problems(recipe, typed_keys)):
        raise UserError("a checkpoint does not decide where data are fetched from and written to.", problems)


def _find_source_problems(recipe: Recipe, typed_keys: Sequence[str]) -> Iterator[Problem]:
    dataset, data = recipe.dataset, recipe.data
    if data.cache_dir and "data.cache_dir" not in typed_keys and _would_fill_cache(recipe):
        got = "a folder that only the checkpoint names, and no cache of thaw"
        yield Problem(f"data.cache_dir={data.cache_dir}", got, fix="data.cache_dir=null, which is your cache")
    if isinstance(dataset, CaptchaDatasetConfig) or dataset.root is not None:
        return
    is_typed, is_here = "dataset" in typed_keys, is_available(recipe)
    if not is_typed:
        yield from _find_path_problems(dataset)
    if data.mirror and "data.mirror" not in typed_keys and not is_here:
        yield Problem(f"data.mirror={data.mirror}", "an address that only the checkpoint names", fix="data.mirror=null")
    if not is_here and not is_typed and not any(key.startswith("dataset.archive") for key in typed_keys):
        yield from _find_archive_problems(dataset)


def _would_fill_cache(recipe: Recipe) -> bool:
    """Return whether loading the data set may write into a cache folder that is none yet."""
    root, is_converted = getattr(recipe.dataset, "root", None), getattr(recipe.dataset, "convert", None) is not None
    is_folder = root is not None and Path(root).expanduser().is_dir() and not is_converted
    return not is_folder and not is_cache_folder(resolve_cache_dir(recipe.data.cache_dir))


def _find_archive_problems(dataset: FolderDatasetConfig | CsvDatasetConfig) -> Iterator[Problem]:
    known_archives = list_known_archives()
    for archive in get_archives(dataset).values():
        if (archive.url, archive.checksum) not in known_archives:
            fix = "dataset=NAME of a preset, or dataset.root=DIR of a copy"
            yield Problem(archive.url, "an address that only the checkpoint names", "an address in conf/dataset/", fix)


def _find_path_problems(dataset: FolderDatasetConfig | CsvDatasetConfig) -> Iterator[Problem]:
    """Yield the paths in a downloaded data set that lead out of it."""
    for key, path in _iter_inner_paths(dataset):
        if path and (PurePath(path).is_absolute() or ".." in PurePath(path).parts):
            yield Problem(f"dataset.{key}={path}", "a path out of the data set", "a path below it", "dataset=NAME")


def _iter_inner_paths(dataset: FolderDatasetConfig | CsvDatasetConfig) -> Iterator[tuple[str, str | None]]:
    for name, archive in get_archives(dataset).items():
        yield f"{name}.folder", archive.folder
        yield f"{name}.inner", archive.inner
    if isinstance(dataset, CsvDatasetConfig):
        yield from (("file", dataset.file), ("folder", dataset.folder), ("unlabelled", dataset.unlabelled))
    elif dataset.splits:
        yield from ((f"splits.{split}", folder) for split, folder in dataset.splits.model_dump().items())


def list_known_archives() -> set[tuple[str, str | None]]:
    """Return address and checksum of every archive in thaw's own presets."""
    contents = [yaml.safe_load(file.read_bytes()) for file in (get_config_folder() / "dataset").glob("*.yaml")]
    return {(archive["url"], archive.get("checksum")) for content in contents for archive in _iter_archives(content)}


def _iter_archives(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from [content["archive"]] if content.get("archive") else []
    yield from (content.get("archives") or {}).values()
