"""The recipe's data set -> its samples, wherever they have to come from."""

from __future__ import annotations

from pathlib import Path

from thaw.config.schema import Archive, Captcha, Folder
from thaw.data.archive import unpacked
from thaw.data.cache import key_of
from thaw.data.captcha import captcha_folder
from thaw.data.fetch import NotFetched, fetched, needs_by_hand
from thaw.data.samples import SPLITS, Samples, folder_samples


def samples_of(dataset: Captcha | Folder, seed: int, cache: Path, mirror: str | None) -> Samples:
    """The samples of `dataset`; drawn, fetched or unpacked first where that is still to be done. `seed` cuts splits.

    Raises:
        UserFault: where the data cannot be had, or holds no data set.
    """
    if isinstance(dataset, Captcha):
        counts = {split: getattr(dataset, split) for split in SPLITS}
        root = captcha_folder(dataset.characters, counts, dataset.side, dataset.draw_seed, cache)
        return folder_samples(root, dict(zip(SPLITS, SPLITS, strict=True)), {}, seed)
    root = _folder(dataset, cache, mirror)
    return folder_samples(root, dataset.splits.model_dump(), dataset.fractions.model_dump(), seed)


def _folder(dataset: Folder, cache: Path, mirror: str | None) -> Path:
    inner = dataset.archive.folder if dataset.archive else ""
    if dataset.root is None:
        assert dataset.archive is not None  # the recipe's check asks for one of the two
        return _fetched_folder(dataset.name, dataset.archive, cache, mirror) / inner
    root = Path(dataset.root).expanduser().absolute()
    if root.is_file():
        stat = root.stat()
        root = unpacked(
            root,
            cache / "datasets" / f"{dataset.name}-{key_of(file=str(root), size=stat.st_size, time=stat.st_mtime_ns)}",
        )
    return root / inner if (root / inner).is_dir() else root


def _fetched_folder(name: str, archive: Archive, cache: Path, mirror: str | None) -> Path:
    target = cache / "datasets" / f"{name}-{archive.checksum.split(':')[1][:16]}"
    if target.is_dir():
        return target
    file = cache / "downloads" / Path(archive.url).name
    try:
        fetched(archive.url, archive.checksum, file, mirror)
    except NotFetched as error:
        fix = "dataset=captcha, which needs no network, or dataset.root=DIR of a copy"
        raise needs_by_hand(
            f"the data set {name}", archive.url, archive.checksum, f"put the file at {file}", str(error), fix
        ) from error
    return unpacked(file, target)
