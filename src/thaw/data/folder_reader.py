"""Read an image folder: the class folders of each split, every image of which becomes a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from thaw.config.errors import Problem, UserError, find_closest_name, format_names
from thaw.config.printable import escape_line
from thaw.data.folder_layout import LAYOUTS, Layout, find_layout, find_unknown_folders, parse_split_name
from thaw.data.folder_scan import REPEATED_LINK, Folder, FolderScan, scan_folder
from thaw.data.readers import ReaderResult, normalize_class_name, normalize_name
from thaw.data.sample_table import UNDRAWN_SPLIT, SampleTable, build_table

IN_NO_CLASS = "in no class folder"
IN_UNUSED_SPLIT = "in the folder of a split that is null"
MAX_LISTED_NAMES = 5


def read_image_folder(
    root: Path, folders: Mapping[str, str | None], exclude: Collection[str] = (), merge_subfolders: bool = False
) -> ReaderResult:
    """Read `root/SPLIT/CLASS/...` if any of the split folders `folders` exists, else `root/CLASS/...`.

    `folders` is explained in `find_layout`. `exclude` names files and folders to leave out, which are not reported as
    ignored. Images in folders of a class folder belong to the class; with `merge_subfolders` also where the class
    folder may contain classes or splits.

    Raises:
        UserError: with every folder that is neither split nor class, that contains classes instead of images, or that
            contains no image.
    """
    scan = scan_folder(root, exclude)
    layout = find_layout(scan.top, folders)
    class_folders = {split: _list_class_folders(folder, layout) for split, folder in _iter_parts(layout)}
    problems = [
        *find_unknown_folders(layout),
        *_find_repeated_splits(scan, layout),
        *([] if merge_subfolders else _find_nested_classes(root, class_folders)),
        *_find_split_names(class_folders),
        *_find_empty_classes(scan, class_folders),
    ]
    if problems:
        raise UserError(f"the folders under {root} are not all understood.", problems)
    missing_words = [word for word in exclude if word not in scan.excluded_words]
    warnings = list(_check_excluded_words(missing_words, exclude, scan))
    return _build_result(root, scan, layout, class_folders, warnings)


def _iter_parts(layout: Layout) -> Iterable[tuple[str | None, Folder]]:
    return layout.splits.items() if layout.splits else [(None, layout.top)]


def _list_class_folders(folder: Folder, layout: Layout) -> list[Folder]:
    return [sub_folder for sub_folder in folder.folders if sub_folder not in layout.unused_folders]


ClassFolders = Mapping[str | None, list[Folder]]


def _find_nested_classes(root: Path, class_folders: ClassFolders) -> Iterator[Problem]:
    """Yield the class folders that contain no image but several folders of images, or the folder of a split."""
    nested_names: dict[str, list[str]] = {}
    for class_folder in (folder for folders in class_folders.values() for folder in folders):
        names = [folder.name for folder in _list_nested_classes(class_folder)]
        if names:
            nested_names[class_folder.path] = names
    for path, names in list(nested_names.items())[:MAX_LISTED_NAMES]:
        num_more = len(nested_names) - MAX_LISTED_NAMES
        more = f"; {num_more} more class folders are like it" if num_more > 0 else ""
        got = f"a class folder that contains folders of images: {format_names(names, MAX_LISTED_NAMES)}{more}"
        fix = "dataset.subfolders=merge joins them to one class"
        if None in class_folders and not any(map(parse_split_name, names)):
            fix += f"; dataset.root={root / path} takes each as a class"
        yield Problem(f"{path}/", got, LAYOUTS, fix)


def _list_nested_classes(class_folder: Folder) -> list[Folder]:
    folder = class_folder
    while True:
        filled_folders = [sub_folder for sub_folder in folder.folders if any(sub_folder.iter_images())]
        split_folders = [sub_folder for sub_folder in filled_folders if parse_split_name(sub_folder.name)]
        if split_folders or folder.images or len(filled_folders) != 1:
            return split_folders or ([] if folder.images else filled_folders)
        (folder,) = filled_folders


def _find_repeated_splits(scan: FolderScan, layout: Layout) -> Iterator[Problem]:
    """Yield the links beside the split folders that have the name of a split and lead to a folder read already."""
    for path in (PurePosixPath(path) for path, reason in scan.ignored.items() if reason == REPEATED_LINK):
        if parse_split_name(path.name) and path.parent == PurePosixPath(layout.top.path):
            fix = f"dataset.exclude=[{path}]"
            yield Problem(f"{path}/", REPEATED_LINK, "a folder of its own for each split", fix)


def _find_split_names(class_folders: ClassFolders) -> Iterator[Problem]:
    """Yield the class folders in a split that are called as a split is. Such a class must be in several splits."""
    folders_by_name: dict[str, dict[str, Folder]] = {}
    for split, folders in class_folders.items():
        for folder in folders if split else []:
            folders_by_name.setdefault(normalize_class_name(folder.name), {})[str(split)] = folder
    is_split_name = {name: parse_split_name(name) is not None for name in folders_by_name}
    for name, folders_by_split in folders_by_name.items():
        if is_split_name[name] and (len(folders_by_split) == 1 or all(is_split_name.values())):
            got = f"a folder called {name} in the folder of {format_names(sorted(folders_by_split))}"
            paths = ", ".join(folder.path for folder in folders_by_split.values())
            fix = f"dataset.exclude=[{paths}], or another name for the folder if it is a class"
            yield Problem(f"{paths}/", got, LAYOUTS, fix)


def _find_empty_classes(scan: FolderScan, class_folders: ClassFolders) -> Iterator[Problem]:
    """Yield the classes without an image in any split."""
    folders_by_name: dict[str, list[Folder]] = {}
    for folder in (folder for folders in class_folders.values() for folder in folders):
        folders_by_name.setdefault(normalize_class_name(folder.name), []).append(folder)
    for name, folders in sorted(folders_by_name.items()):
        if not any(path for folder in folders for path in folder.iter_images()):
            paths = format_names([f"{folder.path}/" for folder in folders], MAX_LISTED_NAMES)
            fix = f"images, or dataset.exclude=[{name}]"
            yield Problem(paths, f"a folder without an image: {_describe_files(scan, folders)}", LAYOUTS, fix)


def _describe_files(scan: FolderScan, folders: Collection[Folder]) -> str:
    prefixes = tuple(f"{folder.path}/" for folder in folders)
    files = [path for path in scan.ignored if path.startswith(prefixes) and not path.endswith("/")]
    suffixes = Counter(PurePosixPath(path).suffix.lower() or "without a suffix" for path in files)
    return format_names([f"{count} {suffix}" for suffix, count in suffixes.most_common()], MAX_LISTED_NAMES) or "empty"


def _check_excluded_words(words: Collection[str], exclude: Collection[str], scan: FolderScan) -> Iterator[str]:
    """Yield a warning for each of `words`, the entries of `exclude` that exclude nothing.

    Raises:
        UserError: if a folder is called almost so.
    """
    names = sorted({normalize_name(folder.name) for folder in scan.top.iter_folders() if folder.path})
    problems = []
    for word in words:
        if closest := find_closest_name(word, names):
            fixed_words = ", ".join(closest if entry == word else entry for entry in exclude)
            got, fix = "no such file or folder", f"dataset.exclude=[{fixed_words}]"
            problems.append(Problem(f"dataset.exclude: {word}", got, format_names(names), fix))
        else:
            yield f"dataset.exclude={word} leaves nothing out: no file or folder is called so"
    if problems:
        raise UserError("dataset.exclude names what is not there.", problems)


def _build_result(
    root: Path,
    scan: FolderScan,
    layout: Layout,
    class_folders: ClassFolders,
    warnings: Iterable[str],
) -> ReaderResult:
    prefix = f"{layout.top.path}/" if layout.top.path else ""
    ignored = scan.ignored | _find_unread_images(scan, layout, class_folders)
    return ReaderResult(
        root / layout.top.path,
        _build_rows(class_folders, prefix),
        {split: f"{folder.path.removeprefix(prefix)}/" for split, folder in layout.splits.items()},
        {escape_line(path.removeprefix(prefix)): reason for path, reason in sorted(ignored.items())},
        LAYOUTS,
        "a sub-folder {split}/",
        "dataset.exclude=[{names}]",
        (*layout.notes, *_describe_folders(scan, class_folders)),
        tuple(warnings),
    )


def _find_unread_images(scan: FolderScan, layout: Layout, class_folders: ClassFolders) -> dict[str, str]:
    """Return path -> reason of the images that are in no class folder."""
    used = {nested for folders in class_folders.values() for folder in folders for nested in folder.iter_folders()}
    unused = {nested for folder in layout.unused_folders for nested in folder.iter_folders()}
    return {
        path: IN_UNUSED_SPLIT if folder in unused else IN_NO_CLASS
        for folder in scan.top.iter_folders()
        if folder not in used
        for path in folder.images
    }


def _build_rows(class_folders: ClassFolders, prefix: str) -> SampleTable:
    """Return the images of the class folders as rows, whose paths begin after `prefix`."""
    paths, class_names, splits = list[str](), list[str](), list[str]()
    for split, folders in class_folders.items():
        for class_folder in folders:
            images = [path.removeprefix(prefix) for path in class_folder.iter_images()]
            paths += images
            class_names += [normalize_class_name(class_folder.name)] * len(images)
            splits += [split or UNDRAWN_SPLIT] * len(images)
    return build_table(paths, class_names, splits)


def _describe_folders(scan: FolderScan, class_folders: ClassFolders) -> Iterator[str]:
    """Yield what a person may not expect: links that were followed, folders in class folders, names that were changed
    or joined."""
    if scan.linked_folders:
        link_names = [f"{path}/" for path in scan.linked_folders]
        yield f"links to folders that were followed: {len(link_names)} ({_shorten(link_names)})"
    folders = [folder for split_folders in class_folders.values() for folder in split_folders]
    nested_paths = [f"{nested.path}/" for folder in folders for nested in folder.iter_folders() if nested is not folder]
    if nested_paths:
        yield f"folders in class folders: {len(nested_paths)} ({_shorten(sorted(nested_paths))})"
    for split_folders in class_folders.values():
        counts = Counter(normalize_class_name(folder.name) for folder in split_folders)
        for name in (name for name, count in counts.items() if count > 1):
            yield f"{counts[name]} folders that differ only in how characters are composed are one class: {name}"
    changed_names = sorted({folder.name for folder in folders if normalize_class_name(folder.name) != folder.name})
    if changed_names:
        yield f"class names in one line and in composed characters (Unicode NFC): {_shorten(changed_names)}"


def _shorten(names: Collection[str]) -> str:
    return format_names(names, MAX_LISTED_NAMES)
