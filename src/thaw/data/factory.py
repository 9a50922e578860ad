"""Load the samples of a recipe's data set, after drawing, downloading or extracting it if necessary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from thaw.config.dataset_rules import get_archives
from thaw.config.schema import Archive, CaptchaDatasetConfig, CsvDatasetConfig, FolderDatasetConfig, Recipe
from thaw.data.archive import extract_archive, find_nested_archive
from thaw.data.captcha import build_captcha_folder
from thaw.data.cifar import build_cifar_folder
from thaw.data.corrections import apply_corrections
from thaw.data.csv_reader import Columns, read_csv
from thaw.data.csv_table import TableFormat
from thaw.data.dataset_folder import load_undamaged
from thaw.data.download import KAGGLE_URL_PREFIX, DownloadError, download, download_competition, manual_download_error
from thaw.data.evaluation_samples import EvaluationSamples, build_evaluation_samples
from thaw.data.file_index import FileIndex
from thaw.data.folder_reader import read_image_folder
from thaw.data.groups import find_groups
from thaw.data.readers import ReaderResult
from thaw.data.sample_table import SPLITS
from thaw.data.samples import Samples, build_samples, index_rows, list_classes, split_reader_result
from thaw.data.splits import SplitSettings
from thaw.data.transfer import get_file_name
from thaw.system.cache_entries import is_cache_folder
from thaw.system.cache_folder import cache_write_error, compute_cache_key, resolve_cache_dir
from thaw.system.reporter import SILENT, Reporter


def load_samples(
    recipe: Recipe, reporter: Reporter = SILENT, *, is_evaluation: bool = False, file_index: FileIndex | None = None
) -> Samples:
    """Load the samples of the recipe's data set. `dataset.split_seed` draws the splits that the data set does not have.
    `is_evaluation` is for `apply_corrections`; `file_index` is the one of the cache folder, if not another is given.

    Raises:
        UserError: if the data is not available or is not a valid data set.
    """
    cache_dir = resolve_cache_dir(recipe.data.cache_dir)
    file_index = file_index or _open_file_index(cache_dir, reporter, is_evaluation)

    def load() -> Samples:
        return build_samples(_read_rows(recipe, reporter, is_evaluation), _build_split_settings(recipe), file_index)

    return load_undamaged(load, lambda samples: samples, cache_dir, reporter)


def load_fold_samples(recipe: Recipe, reporter: Reporter = SILENT) -> list[Samples]:
    """Load the samples of each of `recipe.folds`, as `load_samples` does for one `fold`; files are read once.

    Raises:
        UserError: as `load_samples`.
    """
    cache_dir = resolve_cache_dir(recipe.data.cache_dir)

    def load() -> list[Samples]:
        reader_result = _read_rows(recipe, reporter)
        settings = _build_split_settings(recipe)
        results = [
            split_reader_result(reader_result, replace(settings, fold=fold)) for fold in range(recipe.folds or 1)
        ]
        classes = list_classes(results[0])
        hashes = FileIndex(cache_dir, reporter).hash_files(results[0].root, results[0].rows.paths)
        return [index_rows(result, classes, hashes) for result in results]

    return load_undamaged(load, lambda folds: folds[0], cache_dir, reporter)


def load_evaluation_samples(recipe: Recipe, classes: Sequence[str], reporter: Reporter = SILENT) -> EvaluationSamples:
    """Load the samples of the recipe's data set to evaluate a network of `classes` on them, as
    `build_evaluation_samples` does.

    Raises:
        UserError: if the data is not available, has no images, or other classes.
    """
    cache_dir = resolve_cache_dir(recipe.data.cache_dir)

    def load() -> EvaluationSamples:
        reader_result = _read_rows(recipe, reporter, is_evaluation=True)
        file_index = _open_file_index(cache_dir, reporter, is_evaluation=True)
        return build_evaluation_samples(reader_result, classes, _build_split_settings(recipe), file_index)

    return load_undamaged(load, lambda evaluation: evaluation.samples, cache_dir, reporter)


def _open_file_index(cache_dir: Path, reporter: Reporter, is_evaluation: bool) -> FileIndex:
    """Open the index of the cache folder. An evaluation fills no folder that is none yet: a checkpoint may name it."""
    return FileIndex(None if is_evaluation and not is_cache_folder(cache_dir) else cache_dir, reporter)


def _build_split_settings(recipe: Recipe) -> SplitSettings:
    dataset = recipe.dataset
    if isinstance(dataset, CaptchaDatasetConfig):
        # Characters have splits of their own; only folds need a fraction.
        fractions = {"val": dataset.val / (dataset.train + dataset.val)} if recipe.folds is not None else {}
        return SplitSettings(fractions, dataset.split_seed, None, recipe.folds, recipe.fold)
    return SplitSettings(
        dataset.fractions.model_dump(),
        dataset.split_seed,
        dataset.per_class,
        recipe.folds,
        recipe.fold,
        recipe.data.group_leak == "warn",
    )


def _read_rows(recipe: Recipe, reporter: Reporter, is_evaluation: bool = False) -> ReaderResult:
    """Return the rows of the data set as the recipe corrects them, with their groups."""
    reader_result = apply_corrections(_read_dataset(recipe, reporter), recipe.data, is_evaluation=is_evaluation)
    pattern = getattr(recipe.dataset, "group_pattern", None)
    return find_groups(reader_result, pattern, is_evaluation=is_evaluation)


def _read_dataset(recipe: Recipe, reporter: Reporter) -> ReaderResult:
    """Return the rows of the data set, after drawing, downloading or extracting it if necessary."""
    dataset, cache_dir = recipe.dataset, resolve_cache_dir(recipe.data.cache_dir)
    if isinstance(dataset, CaptchaDatasetConfig):
        counts = {split: getattr(dataset, split) for split in SPLITS}
        root = build_captcha_folder(dataset.characters, counts, dataset.side, dataset.draw_seed, cache_dir)
        return read_image_folder(root, dict(zip(SPLITS, SPLITS, strict=True)))
    root = _prepare_root(dataset, cache_dir, recipe.data.mirror, reporter)
    if isinstance(dataset, CsvDatasetConfig):
        columns = Columns(
            dataset.path_column,
            dataset.label_column,
            dataset.split_column,
            dataset.folder,
            dataset.suffix,
            dataset.group_column,
        )
        table_format = TableFormat(dataset.delimiter, dataset.encoding)
        return read_csv(root, dataset.file, columns, dataset.unlabelled, table_format)
    split_folders = dataset.splits.model_dump() if dataset.splits else {}
    if dataset.convert == "cifar" and not (root / split_folders.get("train", "train")).is_dir():
        root = build_cifar_folder(root, cache_dir)
    return read_image_folder(root, split_folders, dataset.exclude, dataset.subfolders == "merge")


def missing_download(recipe: Recipe) -> str:
    """Return what `load_samples` would have to download and where to, or the root that is missing; empty if nothing."""
    dataset, cache_dir = recipe.dataset, resolve_cache_dir(recipe.data.cache_dir)
    if isinstance(dataset, CaptchaDatasetConfig):
        return ""
    if dataset.root is not None:
        root = Path(dataset.root).expanduser()
        return "" if root.exists() else str(root)
    archive = _select_archive(dataset, get_archives(dataset))
    file = _get_download_path(archive, cache_dir)
    is_available = _get_extraction_folder(dataset.name, archive, cache_dir).is_dir() or file.is_file()
    return "" if is_available else f"{archive.url} as {file}"


def is_available(recipe: Recipe) -> bool:
    """Return whether the data set of `recipe` is here: nothing has to be downloaded or extracted from a download."""
    dataset = recipe.dataset
    if isinstance(dataset, CaptchaDatasetConfig) or dataset.root is not None:
        return True
    archive = _select_archive(dataset, get_archives(dataset))
    return _get_extraction_folder(dataset.name, archive, resolve_cache_dir(recipe.data.cache_dir)).is_dir()


def _select_archive(dataset: FolderDatasetConfig | CsvDatasetConfig, archives: Mapping[str, Archive]) -> Archive:
    return archives[(dataset.variant or "") if isinstance(dataset, CsvDatasetConfig) else "archive"]


def _prepare_root(
    dataset: FolderDatasetConfig | CsvDatasetConfig, cache_dir: Path, mirror: str | None, reporter: Reporter
) -> Path:
    """Return the folder to read, after downloading or extracting it if necessary."""
    archives = get_archives(dataset)
    if dataset.root is not None:
        return _prepare_copy(dataset, Path(dataset.root).expanduser().absolute(), cache_dir)
    archive = _select_archive(dataset, archives)  # the validation of the recipe requires a root or an archive
    alternatives = [f"dataset.variant={name}" for name in archives if archives[name] is not archive]
    root = _download_and_extract(dataset.name, archive, alternatives, cache_dir, mirror, reporter)
    return _resolve_data_folder(root, [archive])


def _prepare_copy(dataset: FolderDatasetConfig | CsvDatasetConfig, root: Path, cache_dir: Path) -> Path:
    """Return the folder to read in the user's own copy, a folder or an archive, of any variant of the data set."""
    archives = get_archives(dataset)
    candidates = [_select_archive(dataset, archives), *archives.values()] if archives else []
    inner = next((archive.inner for archive in candidates if archive.inner), None)
    if root.is_dir() and inner and _resolve_data_folder(root, candidates) == root:
        root = find_nested_archive(root, inner) or root
    if root.is_file():
        stat = root.stat()
        key = compute_cache_key(file=str(root), size=stat.st_size, time=stat.st_mtime_ns, inner=inner)
        root = extract_archive(root, cache_dir / "datasets" / f"{dataset.name}-{key}", inner)
    return _resolve_data_folder(root, candidates)


def _resolve_data_folder(root: Path, archives: Sequence[Archive]) -> Path:
    """Return the first existing folder that one of `archives` keeps its data in, or `root`."""
    folders = (root / archive.folder for archive in archives if archive.folder)
    return next((folder for folder in folders if folder.is_dir()), root)


def _download_and_extract(
    name: str, archive: Archive, alternatives: Sequence[str], cache_dir: Path, mirror: str | None, reporter: Reporter
) -> Path:
    target = _get_extraction_folder(name, archive, cache_dir)
    if target.is_dir():
        return target
    if archive.url.startswith(KAGGLE_URL_PREFIX):
        file = _download_from_kaggle(archive.url, alternatives, cache_dir / "downloads", reporter)
    else:
        file = _download_from_network(name, archive, cache_dir, mirror, reporter)
    return extract_archive(file, target, archive.inner)


def _get_extraction_folder(name: str, archive: Archive, cache_dir: Path) -> Path:
    digits = archive.checksum.split(":")[1][:16] if archive.checksum else compute_cache_key(url=archive.url)
    inner_suffix = f"-{compute_cache_key(inner=archive.inner)}" if archive.inner else ""
    return cache_dir / "datasets" / f"{name}-{digits}{inner_suffix}"


def _get_download_path(archive: Archive, cache_dir: Path) -> Path:
    """Return where the archive is downloaded to; Kaggle's client names the file after the competition."""
    name = get_file_name(archive.url)
    return cache_dir / "downloads" / (f"{name}.zip" if archive.url.startswith(KAGGLE_URL_PREFIX) else name)


def _download_from_kaggle(url: str, alternatives: Sequence[str], folder: Path, reporter: Reporter) -> Path:
    try:
        return download_competition(url, folder, ["dataset.root=FILE_OR_FOLDER of a copy", *alternatives], reporter)
    except OSError as error:
        raise cache_write_error(folder, error) from error


def _download_from_network(
    name: str, archive: Archive, cache_dir: Path, mirror: str | None, reporter: Reporter
) -> Path:
    assert archive.checksum is not None  # the validation of the recipe requires it
    file = _get_download_path(archive, cache_dir)
    try:
        return download(archive.url, archive.checksum, file, mirror, reporter)
    except DownloadError as error:
        fix = "dataset=captcha, which needs no network, or dataset.root=DIR of a copy"
        raise manual_download_error(
            f"the data set {name}", archive.url, archive.checksum, f"put the file at {file}", str(error), fix
        ) from error
