"""The recipe's data set -> its samples, wherever they have to come from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from thaw.config.consistency import archives_of
from thaw.config.schema import Archive, Captcha, Folder, Table
from thaw.data.archive import nested_archive, unpacked
from thaw.data.cache import cannot_write, key_of
from thaw.data.captcha import captcha_folder
from thaw.data.cifar import cifar_folder
from thaw.data.fetch import NotFetched, fetched, needs_by_hand
from thaw.data.kaggle import SCHEME, competition_archive
from thaw.data.samples import SPLITS, Samples, folder_samples, samples_from
from thaw.data.table import Columns, csv_rows


def samples_of(dataset: Captcha | Folder | Table, seed: int, cache: Path, mirror: str | None) -> Samples:
    """The samples of `dataset`; drawn, fetched or unpacked first where that is still to be done. `seed` cuts splits.

    Raises:
        UserFault: where the data cannot be had, or holds no data set.
    """
    if isinstance(dataset, Captcha):
        counts = {split: getattr(dataset, split) for split in SPLITS}
        root = captcha_folder(dataset.characters, counts, dataset.side, dataset.draw_seed, cache)
        return folder_samples(root, dict(zip(SPLITS, SPLITS, strict=True)), {}, seed)
    root, fractions = _root(dataset, cache, mirror), dataset.fractions.model_dump()
    if isinstance(dataset, Table):
        columns = Columns(
            dataset.path_column, dataset.label_column, dataset.split_column, dataset.folder, dataset.suffix
        )
        found = csv_rows(root, dataset.file, columns, dataset.unlabelled)
        return samples_from(root, found, fractions, seed, dataset.per_class)
    if dataset.convert == "cifar" and not (root / dataset.splits.train).is_dir():
        root = cifar_folder(root, cache)
    return folder_samples(root, dataset.splits.model_dump(), fractions, seed, dataset.exclude, dataset.per_class)


def still_to_fetch(dataset: Captcha | Folder | Table, cache: Path) -> str:
    """What `samples_of` would have to fetch, and where it would lie; empty where all is here or is drawn."""
    if isinstance(dataset, Captcha):
        return ""
    if dataset.root is not None:
        root = Path(dataset.root).expanduser()
        return "" if root.exists() else str(root)
    archive = archives_of(dataset)[(dataset.variant or "") if isinstance(dataset, Table) else "archive"]
    file = _download(archive, cache)
    return "" if _folder(dataset.name, archive, cache).is_dir() or file.is_file() else f"{archive.url} as {file}"


def _root(dataset: Folder | Table, cache: Path, mirror: str | None) -> Path:
    """The folder that the reader is to read. A user's own copy may be that of any variant."""
    archives = archives_of(dataset)
    chosen = archives[(dataset.variant or "") if isinstance(dataset, Table) else "archive"] if archives else None
    if dataset.root is None:
        assert chosen is not None  # the recipe's check asks for one of the two
        instead = [f"dataset.variant={name}" for name in archives if archives[name] is not chosen]
        return _inside(_fetched_folder(dataset.name, chosen, instead, cache, mirror), [chosen])
    root = Path(dataset.root).expanduser().absolute()
    ordered = [chosen, *archives.values()] if chosen else []
    inner = next((archive.inner for archive in ordered if archive.inner), None)
    if root.is_dir() and inner and _inside(root, ordered) == root:
        root = nested_archive(root, inner) or root
    return _inside(_unpacked_copy(dataset.name, root, inner, cache) if root.is_file() else root, ordered)


def _inside(root: Path, archives: Sequence[Archive]) -> Path:
    folders = (root / archive.folder for archive in archives if archive.folder)
    return next((folder for folder in folders if folder.is_dir()), root)


def _unpacked_copy(name: str, file: Path, inner: str | None, cache: Path) -> Path:
    stat = file.stat()
    key = key_of(file=str(file), size=stat.st_size, time=stat.st_mtime_ns, inner=inner)
    return unpacked(file, cache / "datasets" / f"{name}-{key}", inner)


def _fetched_folder(name: str, archive: Archive, instead: Sequence[str], cache: Path, mirror: str | None) -> Path:
    target = _folder(name, archive, cache)
    if target.is_dir():
        return target
    if archive.url.startswith(SCHEME):
        return unpacked(_from_kaggle(archive.url, instead, cache / "downloads"), target, archive.inner)
    return unpacked(_from_network(name, archive, cache, mirror), target, archive.inner)


def _folder(name: str, archive: Archive, cache: Path) -> Path:
    """Where the archive is unpacked to."""
    digits = archive.checksum.split(":")[1][:16] if archive.checksum else key_of(url=archive.url)
    inside = f"-{key_of(inner=archive.inner)}" if archive.inner else ""
    return cache / "datasets" / f"{name}-{digits}{inside}"


def _download(archive: Archive, cache: Path) -> Path:
    """Where the archive is fetched to; Kaggle's client names it after the competition."""
    name = Path(archive.url).name
    return cache / "downloads" / (f"{name}.zip" if archive.url.startswith(SCHEME) else name)


def _from_kaggle(url: str, instead: Sequence[str], folder: Path) -> Path:
    try:
        return competition_archive(url, folder, ["dataset.root=FILE_OR_FOLDER of a copy", *instead])
    except OSError as error:
        raise cannot_write(folder, error) from error


def _from_network(name: str, archive: Archive, cache: Path, mirror: str | None) -> Path:
    assert archive.checksum is not None  # the recipe's check asks for it
    file = _download(archive, cache)
    try:
        return fetched(archive.url, archive.checksum, file, mirror)
    except NotFetched as error:
        fix = "dataset=captcha, which needs no network, or dataset.root=DIR of a copy"
        raise needs_by_hand(
            f"the data set {name}", archive.url, archive.checksum, f"put the file at {file}", str(error), fix
        ) from error
