"""Check the settings of the data set. Each rule is a function that yields pairs of a key and its problem."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from thaw.config.errors import Problem, find_closest_name, format_names
from thaw.config.schema import Archive, CaptchaDatasetConfig, CsvDatasetConfig, FolderDatasetConfig, Recipe


def check_captcha_characters(recipe: Recipe) -> Iterator[tuple[str, Problem]]:
    """Yield a problem if a character is drawn as two classes."""
    dataset = recipe.dataset
    if not isinstance(dataset, CaptchaDatasetConfig):
        return
    uppercase_characters = dataset.characters.upper()  # a class is a folder; some file systems take a and A as equal
    if duplicates := sorted(
        {character for character in uppercase_characters if uppercase_characters.count(character) > 1}
    ):
        yield (
            "dataset.characters",
            Problem(f"dataset.characters names {format_names(duplicates)} twice", valid="each class once"),
        )


def check_dataset_root(recipe: Recipe) -> Iterator[tuple[str, Problem]]:
    """Yield a problem if there is neither a root nor an archive, or no train images are left."""
    dataset = recipe.dataset
    if isinstance(dataset, CaptchaDatasetConfig):
        return
    if dataset.root is None and not get_archives(dataset):
        yield (
            "dataset.root",
            Problem("dataset.root is null, and there is no archive to download", fix="dataset.root=DIR"),
        )
    elif dataset.root is not None and not Path(dataset.root).expanduser().exists():
        path = Path(dataset.root).expanduser()
        closest = (
            find_closest_name(path.name, [entry.name for entry in path.parent.glob("*")])
            if path.parent.is_dir()
            else None
        )
        fix = f"dataset.root={path.parent / closest}" if closest else "dataset.root=DIR"
        valid = (
            "an image folder, or an archive of it"
            if isinstance(dataset, FolderDatasetConfig)
            else "a folder, or an archive"
        )
        yield "dataset.root", Problem(f"dataset.root={dataset.root}", "no such folder", valid, fix)
    if dataset.fractions.val + dataset.fractions.test >= 1:
        got = f"{dataset.fractions.val} + {dataset.fractions.test}"
        yield "dataset.fractions", Problem("dataset.fractions leave nothing to train on", got, "val + test < 1")


def check_split_folders(recipe: Recipe) -> Iterator[tuple[str, Problem]]:
    """Yield a problem for each folder that is two splits: images would be trained and tested on."""
    dataset = recipe.dataset
    if not isinstance(dataset, FolderDatasetConfig) or dataset.splits is None:
        return
    splits_by_folder: dict[str, list[str]] = {}
    for split, folder in dataset.splits.model_dump().items():
        if folder is not None:
            splits_by_folder.setdefault(os.path.normpath(folder), []).append(split)
    for folder, splits in splits_by_folder.items():
        if len(splits) > 1:
            subject = f"dataset.splits: {folder} is the folder of {format_names(splits)}"
            fix = " ".join(f"dataset.splits.{split}=null" for split in splits[1:])
            fix += f", which takes {format_names(splits[1:])} images from {splits[0]}"
            yield "dataset.splits", Problem(subject, "the same images", "a folder for each", fix)


def check_groups(recipe: Recipe) -> Iterator[tuple[str, Problem]]:
    """Yield a problem if the groups are said twice, the pattern finds none, or whole groups cannot be split so."""
    dataset = recipe.dataset
    if isinstance(dataset, CaptchaDatasetConfig):
        return
    pattern, column = dataset.group_pattern, getattr(dataset, "group_column", None)
    if pattern is not None and column is not None:
        subject = "dataset.group_column and dataset.group_pattern both say the groups"
        yield "dataset.group_pattern", Problem(subject, fix="dataset.group_pattern=null, or dataset.group_column=null")
    if pattern is not None and (got := _describe_wrong_pattern(pattern)):
        fix = "'dataset.group_pattern=([^/_]+)_[^/]*$' for what is in front of the first _ of a file name"
        subject, valid = f"dataset.group_pattern={pattern}", "a regular expression with a group in parentheses"
        yield "dataset.group_pattern", Problem(subject, got, valid, fix)
    if dataset.per_class is not None and (pattern is not None or column is not None):
        key = "group_pattern" if pattern is not None else "group_column"
        subject = f"dataset.per_class={dataset.per_class} and dataset.{key}"
        got = "whole groups rarely have exactly so many images of a class"
        fix = f"dataset.per_class=null data.train_per_class={dataset.per_class}"
        yield "dataset.per_class", Problem(subject, got, fix=fix)


def _describe_wrong_pattern(pattern: str) -> str:
    try:
        return "" if re.compile(pattern).groups else "no parentheses, so no group 1"
    except re.error as error:
        return f"no regular expression: {error}"


def check_csv_encoding(recipe: Recipe) -> Iterator[tuple[str, Problem]]:
    """Yield a problem if Python has no such encoding of text."""
    dataset = recipe.dataset
    if not isinstance(dataset, CsvDatasetConfig) or dataset.encoding is None:
        return
    try:
        is_text_encoding = isinstance("".encode(dataset.encoding), bytes)
    except (LookupError, UnicodeError, ValueError):
        is_text_encoding = False
    if not is_text_encoding:
        subject = f"dataset.encoding={dataset.encoding}"
        yield "dataset.encoding", Problem(subject, "no such encoding", "such as utf-8, utf-16, cp1252 and gb18030")


def get_archives(dataset: FolderDatasetConfig | CsvDatasetConfig) -> dict[str, Archive]:
    """Return every archive from which the data set can be downloaded, by variant."""
    if isinstance(dataset, CsvDatasetConfig):
        return dataset.archives
    return {"archive": dataset.archive} if dataset.archive else {}


def check_dataset_variant(recipe: Recipe) -> Iterator[tuple[str, Problem]]:
    """Yield a problem if the archives have no such variant."""
    dataset = recipe.dataset
    if not isinstance(dataset, CsvDatasetConfig) or dataset.variant in (dataset.archives or [None]):
        return
    closest = find_closest_name(dataset.variant or "", dataset.archives) or next(iter(dataset.archives), "null")
    valid = format_names(dataset.archives) or "null, as there are no archives"
    yield (
        "dataset.variant",
        Problem(f"dataset.variant={dataset.variant}", "no such variant", valid, f"dataset.variant={closest}"),
    )


def check_archive_checksums(recipe: Recipe) -> Iterator[tuple[str, Problem]]:
    """Yield a problem for each archive that would be downloaded without a check."""
    dataset = recipe.dataset
    if isinstance(dataset, CaptchaDatasetConfig):
        return
    for key, archive in get_archives(dataset).items():
        archive_key = f"dataset.{'' if isinstance(dataset, FolderDatasetConfig) else 'archives.'}{key}"
        if archive.checksum is None and not archive.url.startswith("kaggle://"):
            subject = f"{archive_key}.checksum=null, and only the client of kaggle:// checks a download without one"
            yield f"{archive_key}.checksum", Problem(subject, fix=f"{archive_key}.checksum=sha256:HEX")


def check_correction_files(recipe: Recipe) -> Iterator[tuple[str, Problem]]:
    """Yield a problem for each file of corrections that is not there; a trained network does not need it any more."""
    for key, name in (("exclude", recipe.data.exclude), ("relabel", recipe.data.relabel)):
        file = Path(name).expanduser() if name is not None else None
        if file is None or file.is_file():
            continue
        names = sorted(path.name for path in file.parent.glob("*.csv")) if file.parent.is_dir() else []
        closest = find_closest_name(file.name, names)
        got = "a folder" if file.is_dir() else "no such file"
        fix = f"data.{key}={file.parent / closest}" if closest else f"data.{key}=FILE, or data.{key}=null"
        yield f"data.{key}", Problem(f"data.{key}={name}", got, "a CSV file", fix)


DATASET_RULES = (
    check_captcha_characters,
    check_dataset_root,
    check_split_folders,
    check_groups,
    check_csv_encoding,
    check_dataset_variant,
    check_archive_checksums,
)
