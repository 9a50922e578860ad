"""`thaw cache`: list what is in the cache folder; `thaw cache clear`: remove it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.cli.grammar import Verb, VerbGroup
from thaw.cli.options import path_argument
from thaw.config.errors import EXIT_FAILURE, EXIT_SUCCESS, Problem, UserError, find_closest_name, format_names

if TYPE_CHECKING:
    from thaw.system.cache_entries import CacheEntry

CACHE_DIR_KEY = "data.cache_dir"
FOLDER_NOTE = f"{CACHE_DIR_KEY} is the folder; the default is $THAW_CACHE, or the user's cache folder."


@Verb(
    "list",
    summary="list downloads, data sets, decoded images, features and weights with size and last use",
    examples=("thaw cache list", f"thaw cache {CACHE_DIR_KEY}=DIR"),
    description="Kinds: downloads (archives), datasets (unpacked or drawn), indexes (hashes of the files of a data "
    "set), decoded (their images, decoded and resized), features (outputs of frozen stages), weights (of backbones), "
    "measured (which memory layout and precision of a network are faster on this machine). The last use is what the "
    f"file system records, often once a day.\n\n{FOLDER_NOTE}",
    recipe_keys=(CACHE_DIR_KEY,),
)
def list_cache(overrides: Sequence[str]) -> int:
    """Print the entries of the cache and return the exit status.

    Raises:
        UserError: if there is no such folder.
    """
    from thaw.cli.table import Column, print_table
    from thaw.system.cache_entries import ENTRY_LISTERS, list_entries

    folder = _resolve_cache_folder(overrides)
    entries = list_entries(folder)
    if not entries:
        print(f"nothing is in the cache {folder}")
        return EXIT_SUCCESS
    columns = [Column("kind", no_wrap=True), Column("key"), Column("size", is_numeric=True)]
    columns += [Column("last use", no_wrap=True), Column("content")]
    print_table(columns, [_build_row(entry) for entry in entries])
    entries_by_kind = {kind: [entry for entry in entries if entry.kind == kind] for kind in ENTRY_LISTERS}
    totals = ", ".join(f"{kind} {_format_size(group)}" for kind, group in entries_by_kind.items() if group)
    print(f"\n{len(entries)} entries, {_format_size(entries)} in {folder}: {totals}")
    return EXIT_SUCCESS


@Verb(
    "clear",
    summary="remove everything from the cache, or some kinds, or some keys",
    examples=("thaw cache clear decoded features", "thaw cache clear"),
    description="Also removes what a killed process has left incomplete. Entries that a process is writing stay, and "
    "other files in the folder are not touched. A run in progress continues to read the files that it has opened.\n\n"
    f"{FOLDER_NOTE}",
    paths=(path_argument("names", "[KIND|KEY]...", required=False),),
    recipe_keys=(CACHE_DIR_KEY,),
    exit_statuses="0 done; 1 an entry is being written, or cannot be removed, and stays; 2 there is something for you "
    "to change.",
)
def clear(names: Sequence[str], overrides: Sequence[str]) -> int:
    """Remove the entries that `names` name, all if there are none, and return the exit status.

    Raises:
        UserError: for a name that is neither a kind nor a key, or if there is no such folder.
    """
    from thaw.system.cache_entries import ENTRY_LISTERS, list_entries

    folder = _resolve_cache_folder(overrides)
    entries = list_entries(folder)
    known_names = [*ENTRY_LISTERS, *sorted({entry.key for entry in entries})]
    if problems := [_build_unknown_name_problem(name, known_names) for name in names if name not in known_names]:
        raise UserError("nothing was removed.", problems)
    removed_entries, failures = list["CacheEntry"](), list[str]()
    for entry in entries:
        if names and entry.kind not in names and entry.key not in names:
            continue
        if reason := _try_remove_entry(entry):
            failures.append(f"  {entry.kind} {entry.key}: {reason}")
        else:
            removed_entries.append(entry)
    freed = f"{_format_size(removed_entries)} freed in {folder}"
    print(f"{len(removed_entries)} of {len(entries)} entries removed, {freed}")
    if failures:
        print("\n".join([f"{len(failures)} stayed:", *failures]), file=sys.stderr)
    return EXIT_FAILURE if failures else EXIT_SUCCESS


def _resolve_cache_folder(overrides: Sequence[str]) -> Path:
    from thaw.system.cache_folder import resolve_cache_dir

    value = overrides[-1].partition("=")[2] if overrides else None
    folder = resolve_cache_dir(value)
    if value and not folder.is_dir():
        raise UserError("no such cache.", [Problem(overrides[-1], "no folder", "an existing folder")])
    return folder


def _build_row(entry: CacheEntry) -> list[str]:
    from thaw.system.cache_entries import PARTIAL_NAME_PATTERN, is_busy

    description = entry.description
    if PARTIAL_NAME_PATTERN.fullmatch(entry.key):
        description = "being written" if is_busy(entry) else "abandoned, incomplete"
    last_use = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.last_used))
    return [entry.kind, entry.key, _format_size([entry]), last_use, description]


def _build_unknown_name_problem(name: str, known_names: Sequence[str]) -> Problem:
    closest = find_closest_name(name, known_names)
    fix = f"thaw cache clear {closest}" if closest else "thaw cache, which lists the keys"
    return Problem(name, "neither a kind nor a key in the cache", format_names(known_names, 12), fix)


def _try_remove_entry(entry: CacheEntry) -> str:
    """Remove `entry`, or return the reason why it stays."""
    from thaw.system.cache_entries import remove

    try:
        remove(entry)
    except TimeoutError:  # filelock's Timeout is one
        return "a process is writing it"
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _format_size(entries: Iterable[CacheEntry]) -> str:
    size, unit = float(sum(entry.size for entry in entries)), "B"
    for next_unit in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1000:
            break
        size, unit = size / 1024, next_unit
    return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"


cache = VerbGroup("cache", "list what is in the cache, or remove it", [list_cache, clear], default_verb="list")
