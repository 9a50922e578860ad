"""Find out how an image folder is laid out: which folders are splits, and which are classes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from thaw.config.errors import Problem, UserError, find_closest_name, format_count, format_names
from thaw.data.folder_scan import Folder
from thaw.data.readers import normalize_name

SPLIT_NAMES = {  # split -> the names of its folder that are understood, in any case
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
LAYOUTS = "train/CLASS/IMAGE, also val/ and test/ like it; or CLASS/IMAGE"
MAX_LISTED_NAMES = 5
WORD_BOUNDARY = re.compile(r"[\W_]+|(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True)
class Layout:
    """Where the class folders of an image folder are.

    Attributes:
        top: the folder of the splits or classes.
        splits: split -> the folder of its class folders; empty: the class folders are directly in `top`.
        unused_folders: folders of splits that are null, which are neither splits nor classes.
        notes: what was taken for what, for the person who started the command.
    """

    top: Folder
    splits: dict[str, Folder]
    unused_folders: tuple[Folder, ...]
    notes: tuple[str, ...]


def parse_split_name(name: str) -> str | None:
    """Return the split whose folder may be called `name`, or None."""
    return next((split for split, names in SPLIT_NAMES.items() if name.lower() in names), None)


def find_layout(top: Folder, split_folders: Mapping[str, str | None]) -> Layout:
    """Find the splits of `top`, or of the only folder in it.

    `split_folders` maps a split to the name of its folder: one of SPLIT_NAMES also stands for its other names, another
    one only for itself; None: the split has no folder. Without entries there are no splits.

    Raises:
        UserError: if a folder is missing, if two folders may be the same split, or if one folder is two splits.
    """
    folder = top
    while not (splits := _match_splits(folder, split_folders)) and (inner_folder := _get_only_folder(folder)):
        folder = inner_folder
    if not splits:
        _check_own_names(top, split_folders)
    split_names = ", ".join(f"{splits[split].path}/ -> {split}" for split in splits)
    has_other_names = any(splits[split].name != split_folders[split] for split in splits)
    notes = [f"read from {folder.path}/, the only folder"] if folder.path else []
    notes += [f"split folders: {split_names}"] if has_other_names else []
    unused_folders = _find_unused_folders(folder, split_folders, splits)
    class_splits = {split: _skip_repeated_names(split_folder) for split, split_folder in splits.items()}
    return Layout(folder, class_splits, tuple(unused_folders), tuple(notes))


def _get_only_folder(folder: Folder) -> Folder | None:
    """Return the only sub-folder if it contains no images but folders: archives often have one on top."""
    if folder.images or len(folder.folders) != 1:
        return None
    (inner_folder,) = folder.folders
    return inner_folder if inner_folder.folders and not inner_folder.images else None


def _match_splits(folder: Folder, split_folders: Mapping[str, str | None]) -> dict[str, Folder]:
    """Return the folder of each split that has one in `folder`."""
    names = {split: name for split, name in split_folders.items() if name}
    candidates = {split: _find_candidates(folder, name) for split, name in names.items()}
    _check_single_candidates(candidates)
    splits = {split: matches[0] for split, matches in candidates.items() if matches}
    if splits and (missing_names := [name for split, name in names.items() if split not in splits]):
        _check_own_names(folder, {split: name for split, name in names.items() if name in missing_names})
    splits = splits or _match_affixed_names(folder, split_folders)
    _check_disjoint(splits)
    return splits


def _find_candidates(folder: Folder, name: str) -> list[Folder]:
    if name in SPLIT_NAMES:
        return [sub_folder for sub_folder in folder.folders if sub_folder.name.lower() in SPLIT_NAMES[name]]
    path = str(PurePosixPath(folder.path, name))
    return [sub_folder for sub_folder in folder.iter_folders() if normalize_name(sub_folder.path) == path]


def _check_single_candidates(candidates: Mapping[str, Sequence[Folder]]) -> None:
    problems = []
    for split, matches in candidates.items():
        if len(matches) > 1:
            names = " and ".join(f"{match.path}/" for match in matches)
            fix = f"dataset.exclude=[{matches[-1].path}], or join the folders"
            problems.append(Problem(names, f"{len(matches)} folders that may be {split}", "one", fix))
    if problems:
        raise UserError("the split folders are ambiguous.", problems)


def _check_own_names(folder: Folder, split_folders: Mapping[str, str | None]) -> None:
    """Raise if a folder is missing whose name is not one of SPLIT_NAMES: somebody has typed it."""
    problems = []
    paths = [sub_folder.path for sub_folder in folder.iter_folders() if sub_folder.path]
    for split, name in split_folders.items():
        if name and name not in SPLIT_NAMES:
            closest = find_closest_name(name, paths)
            valid = f"a folder below the root: {format_names(sorted(paths), MAX_LISTED_NAMES)}"
            fix = f"dataset.splits.{split}={closest or 'FOLDER'}"
            problems.append(Problem(f"dataset.splits.{split}={name}", "no such folder", valid, fix))
    if problems:
        raise UserError("split folders are missing.", problems)


def _check_disjoint(splits: Mapping[str, Folder]) -> None:
    paths = {split: PurePosixPath(folder.path) for split, folder in splits.items()}
    problems = [
        Problem(f"{paths[outer]}/ and {paths[inner]}/", f"images that are {outer} and {inner}", "a folder for each")
        for outer in paths
        for inner in paths
        if inner != outer and paths[inner].is_relative_to(paths[outer])
    ]
    if problems:
        raise UserError("split folders overlap.", problems)


def _match_affixed_names(folder: Folder, split_folders: Mapping[str, str | None]) -> dict[str, Folder]:
    """Return the splits of folders such as seg_train and seg_test, if the other words of their names are the same.

    A class may also be called test_tube: the train folder must contain folders and no images.
    """
    splits_by_name = {name or split: split for split, name in split_folders.items()}
    groups: dict[tuple[str, ...], dict[str, Folder]] = {}
    for sub_folder in folder.folders:
        words, split_name = _parse_affixed_name(sub_folder.name)
        if split_name in splits_by_name:
            groups.setdefault(words, {}).setdefault(splits_by_name[split_name], sub_folder)
    complete_groups = [
        {split: group[split] for split, name in split_folders.items() if name and split in group}
        for group in groups.values()
        if len(group) > 1 and "train" in group and _contains_folders_only(_skip_repeated_names(group["train"]))
    ]
    return complete_groups[0] if len(complete_groups) == 1 else {}


def _parse_affixed_name(name: str) -> tuple[tuple[str, ...], str | None]:
    """Return the words of `name` but the split's, and the split: (("seg",), "train") of seg_train."""
    words = [word for word in WORD_BOUNDARY.split(name) if word]
    split_words = [word for word in words if parse_split_name(word)]
    if len(split_words) != 1:
        return tuple(words), None
    return tuple(word.lower() for word in words if word not in split_words), parse_split_name(split_words[0])


def _contains_folders_only(folder: Folder) -> bool:
    return bool(folder.folders) and not folder.images


def _skip_repeated_names(folder: Folder) -> Folder:
    """Return the inner folder of seg_train/seg_train/CLASS, which unpacking archives leaves behind."""
    while not folder.images and len(folder.folders) == 1:
        (inner_folder,) = folder.folders
        is_repeated = normalize_name(inner_folder.name).lower() == normalize_name(folder.name).lower()
        if not is_repeated and parse_split_name(inner_folder.name) is None:
            return folder
        folder = inner_folder
    return folder


def _find_unused_folders(
    top: Folder, split_folders: Mapping[str, str | None], splits: Mapping[str, Folder]
) -> Iterator[Folder]:
    """Yield the folders that have the name of a split that is null, with the affixes of the other split folders."""
    null_splits = {split for split, name in split_folders.items() if name is None}
    known_affixes = {(), *(_parse_affixed_name(folder.name)[0] for folder in splits.values())}
    for folder in top.folders:
        affixes, split = _parse_affixed_name(folder.name)
        if split in null_splits and affixes in known_affixes and folder not in splits.values():
            yield folder


def find_unknown_folders(layout: Layout) -> Iterator[Problem]:
    """Yield a problem for each folder beside the split folders that is none itself, or for all if the split folders
    may as well be classes."""
    split_paths = [folder.path for folder in layout.splits.values()]
    known_paths = {folder.path for folder in layout.unused_folders}
    others = list(_iter_unknown_folders(layout.top, split_paths, known_paths)) if split_paths else []
    if not others:
        return
    top_names = sorted({path.removeprefix(f"{layout.top.path}/").partition("/")[0] for path in split_paths})
    train_folder = layout.splits.get("train")
    if train_folder and not train_folder.images:
        for folder in others:
            yield _build_unknown_folder_problem(folder, layout.splits, top_names)
    else:
        subject = f"{format_names(f'{name}/' for name in top_names)} beside "
        subject += format_names([f"{folder.path}/" for folder in others], MAX_LISTED_NAMES)
        words = ", ".join(top_names)
        fix = f"dataset.splits=null if {words} is a class; dataset.exclude=[{words}] if not"
        yield Problem(subject, "splits beside classes, or classes with the name of a split", LAYOUTS, fix)


def _iter_unknown_folders(folder: Folder, split_paths: Sequence[str], known_paths: set[str]) -> Iterator[Folder]:
    for sub_folder in folder.folders:
        if sub_folder.path in known_paths or sub_folder.path in split_paths:
            continue
        if any(path.startswith(f"{sub_folder.path}/") for path in split_paths):
            yield from _iter_unknown_folders(sub_folder, split_paths, known_paths)
        else:
            yield sub_folder


def _build_unknown_folder_problem(folder: Folder, splits: Mapping[str, Folder], top_names: Sequence[str]) -> Problem:
    num_images = sum(1 for _ in folder.iter_images())
    got = f"{format_count(num_images, 'image') if num_images else 'no images'}, and it is no split"
    _, split = _parse_affixed_name(folder.name)
    fix = f"dataset.exclude=[{folder.path}]"
    if split and split not in splits:
        fix = f"dataset.splits.{split}={folder.path}, or {fix}"
    valid = f"only split folders beside {format_names(f'{name}/' for name in top_names)}: {LAYOUTS}"
    return Problem(f"{folder.path}/", got, valid, fix)
