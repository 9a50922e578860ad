"""The recipe's data set -> its samples, wherever they have to come from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from thaw.config.consistency import get_archives
from thaw.config.schema import Archive, CaptchaDatasetConfig, CsvDatasetConfig, FolderDatasetConfig
from thaw.data.archive import extract_archive, find_nested_archive
from thaw.data.captcha import build_captcha_folder
from thaw.data.cifar import build_cifar_folder
from thaw.data.download import DownloadError, download, manual_download_error
from thaw.data.kaggle import KAGGLE_URL_PREFIX, download_competition
from thaw.data.readers import Columns, read_csv
from thaw.data.samples import SPLITS, Samples, build_samples, load_folder_samples
from thaw.system.cache_folder import cache_write_error, compute_cache_key


def load_samples(
    dataset: CaptchaDatasetConfig | FolderDatasetConfig | CsvDatasetConfig,
    seed: int,
    cache_dir: Path,
    mirror: str | None,
) -> Samples:
    """The samples of `dataset`; drawn, fetched or unpacked first where that is still to be done. `seed` cuts splits.

    Raises:
        UserFault: where the data cannot be had, or holds no data set.
    """
    if isinstance(dataset, CaptchaDatasetConfig):
        counts = {split: getattr(dataset, split) for split in SPLITS}
        root = build_captcha_folder(dataset.characters, counts, dataset.side, dataset.draw_seed, cache_dir)
        return load_folder_samples(root, dict(zip(SPLITS, SPLITS, strict=True)), {}, seed)
    root, fractions = _prepare_root(dataset, cache_dir, mirror), dataset.fractions.model_dump()
    if isinstance(dataset, CsvDatasetConfig):
        columns = Columns(
            dataset.path_column, dataset.label_column, dataset.split_column, dataset.folder, dataset.suffix
        )
        reader_result = read_csv(root, dataset.file, columns, dataset.unlabelled)
        return build_samples(root, reader_result, fractions, seed, dataset.per_class)
    if dataset.convert == "cifar" and not (root / dataset.splits.train).is_dir():
        root = build_cifar_folder(root, cache_dir)
    return load_folder_samples(root, dataset.splits.model_dump(), fractions, seed, dataset.exclude, dataset.per_class)


def missing_download(dataset: CaptchaDatasetConfig | FolderDatasetConfig | CsvDatasetConfig, cache_dir: Path) -> str:
    """What `samples_of` would have to fetch, and where it would lie; empty where all is here or is drawn."""
    if isinstance(dataset, CaptchaDatasetConfig):
        return ""
    if dataset.root is not None:
        root = Path(dataset.root).expanduser()
        return "" if root.exists() else str(root)
    archive = get_archives(dataset)[(dataset.variant or "") if isinstance(dataset, CsvDatasetConfig) else "archive"]
    file = _get_download_path(archive, cache_dir)
    return (
        ""
        if _get_extraction_folder(dataset.name, archive, cache_dir).is_dir() or file.is_file()
        else f"{archive.url} as {file}"
    )


def _prepare_root(dataset: FolderDatasetConfig | CsvDatasetConfig, cache_dir: Path, mirror: str | None) -> Path:
    """The folder that the reader is to read. A user's own copy may be that of any variant."""
    archives = get_archives(dataset)
    selected_archive = (
        archives[(dataset.variant or "") if isinstance(dataset, CsvDatasetConfig) else "archive"] if archives else None
    )
    if dataset.root is None:
        assert selected_archive is not None  # the recipe's check asks for one of the two
        alternatives = [f"dataset.variant={name}" for name in archives if archives[name] is not selected_archive]
        return _resolve_data_folder(
            _download_and_extract(dataset.name, selected_archive, alternatives, cache_dir, mirror), [selected_archive]
        )
    root = Path(dataset.root).expanduser().absolute()
    candidate_archives = [selected_archive, *archives.values()] if selected_archive else []
    inner = next((archive.inner for archive in candidate_archives if archive.inner), None)
    if root.is_dir() and inner and _resolve_data_folder(root, candidate_archives) == root:
        root = find_nested_archive(root, inner) or root
    return _resolve_data_folder(
        _extract_copy(dataset.name, root, inner, cache_dir) if root.is_file() else root, candidate_archives
    )


def _resolve_data_folder(root: Path, archives: Sequence[Archive]) -> Path:
    folders = (root / archive.folder for archive in archives if archive.folder)
    return next((folder for folder in folders if folder.is_dir()), root)


def _extract_copy(name: str, file: Path, inner: str | None, cache_dir: Path) -> Path:
    stat = file.stat()
    key = compute_cache_key(file=str(file), size=stat.st_size, time=stat.st_mtime_ns, inner=inner)
    return extract_archive(file, cache_dir / "datasets" / f"{name}-{key}", inner)


def _download_and_extract(
    name: str, archive: Archive, alternatives: Sequence[str], cache_dir: Path, mirror: str | None
) -> Path:
    target = _get_extraction_folder(name, archive, cache_dir)
    if target.is_dir():
        return target
    if archive.url.startswith(KAGGLE_URL_PREFIX):
        return extract_archive(
            _download_from_kaggle(archive.url, alternatives, cache_dir / "downloads"), target, archive.inner
        )
    return extract_archive(_download_from_network(name, archive, cache_dir, mirror), target, archive.inner)


def _get_extraction_folder(name: str, archive: Archive, cache_dir: Path) -> Path:
    """Where the archive is unpacked to."""
    digits = archive.checksum.split(":")[1][:16] if archive.checksum else compute_cache_key(url=archive.url)
    inner_suffix = f"-{compute_cache_key(inner=archive.inner)}" if archive.inner else ""
    return cache_dir / "datasets" / f"{name}-{digits}{inner_suffix}"


def _get_download_path(archive: Archive, cache_dir: Path) -> Path:
    """Where the archive is fetched to; Kaggle's client names it after the competition."""
    name = Path(archive.url).name
    return cache_dir / "downloads" / (f"{name}.zip" if archive.url.startswith(KAGGLE_URL_PREFIX) else name)


def _download_from_kaggle(url: str, alternatives: Sequence[str], folder: Path) -> Path:
    try:
        return download_competition(url, folder, ["dataset.root=FILE_OR_FOLDER of a copy", *alternatives])
    except OSError as error:
        raise cache_write_error(folder, error) from error


def _download_from_network(name: str, archive: Archive, cache_dir: Path, mirror: str | None) -> Path:
    assert archive.checksum is not None  # the recipe's check asks for it
    file = _get_download_path(archive, cache_dir)
    try:
        return download(archive.url, archive.checksum, file, mirror)
    except DownloadError as error:
        fix = "dataset=captcha, which needs no network, or dataset.root=DIR of a copy"
        raise manual_download_error(
            f"the data set {name}", archive.url, archive.checksum, f"put the file at {file}", str(error), fix
        ) from error
