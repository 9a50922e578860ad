"""`thaw cache`: what lies in the cache folder, and `thaw cache clear` to be rid of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from thaw.cli.arguments import parse_verb
from thaw.cli.table import Column, print_table
from thaw.config.errors import EXIT_SUCCESS, Problem, UserError, find_closest_name, format_names
from thaw.system.cache_entries import ENTRY_LISTERS, PARTIAL_NAME_PATTERN, CacheEntry, is_busy, list_entries, remove
from thaw.system.cache_folder import resolve_cache_dir

EXIT_NOT_REMOVED = 1
CACHE_DIR_KEY = "data.cache_dir"
COLUMNS = [
    Column("kind", no_wrap=True),
    Column("key"),
    Column("size", is_numeric=True),
    Column("last use", no_wrap=True),
    Column("what"),
]
HELP = """thaw cache [clear [KIND|KEY ...]] [data.cache_dir=DIR]

  What thaw keeps so as not to make or fetch it again: its kind, key, size and last use. Kinds are

    downloads   archives as they were fetched
    datasets    data sets as they were unpacked or drawn
    decoded     their images, decoded and resized
    features    what frozen stages make of them
    weights     of backbones
    measured    which memory layout of a network is faster on this machine

  clear       remove everything, or all of some kinds, or what some keys name; what a killed process has left half
              filled, too. What a process is filling stays. Other files in the folder are not touched.
  data.cache_dir  the folder; $THAW_CACHE, or the user's own, where nothing is said

    thaw cache
    thaw cache clear decoded features

A run in progress goes on reading what it has opened. The last use is what the file system notes, often once a day.
Exit status: 0; 1 where something is being filled, or cannot be removed, and stays; 2 something for you to change."""


def run(arguments: Sequence[str]) -> int:
    """Lists or clears and returns the exit status.

    Raises:
        UserFault: for words that name nothing in the cache, or a folder that is not there.
    """
    if {"--help", "-h"} & set(arguments):
        print(HELP)
        return EXIT_SUCCESS
    remaining_arguments = [argument for argument in arguments if not argument.startswith(f"{CACHE_DIR_KEY}=")]
    folder = _resolve_cache_folder(
        [argument.split("=", 1)[1] for argument in arguments if argument.startswith(f"{CACHE_DIR_KEY}=")]
    )
    if unknown_arguments := [
        argument for argument in remaining_arguments if "=" in argument or argument.startswith("-")
    ]:
        fix = f"{CACHE_DIR_KEY}={unknown_arguments[0].partition('=')[2] or 'DIR'}"
        raise UserError(
            "not understood.",
            [Problem(argument, valid=f"{CACHE_DIR_KEY}=DIR", fix=fix) for argument in unknown_arguments],
        )
    if not remaining_arguments:
        return _print_entries(folder)
    _, kinds_or_keys = parse_verb("thaw cache", remaining_arguments, ["clear"])
    return _clear_entries(folder, kinds_or_keys)


def _resolve_cache_folder(values: Sequence[str]) -> Path:
    folder = resolve_cache_dir(values[-1] if values else None)
    if values and not folder.is_dir():
        raise UserError(
            "no such cache.", [Problem(f"{CACHE_DIR_KEY}={values[-1]}", "no folder", "a folder that is there")]
        )
    return folder


def _print_entries(folder: Path) -> int:
    entries = list_entries(folder)
    if not entries:
        print(f"nothing is kept in {folder}")
        return EXIT_SUCCESS
    print_table(COLUMNS, [_build_row(entry) for entry in entries])
    totals = ", ".join(
        f"{kind} {_format_size(_select_kind(entries, kind))}" for kind in ENTRY_LISTERS if _select_kind(entries, kind)
    )
    print(f"\n{len(entries)} entries, {_format_size(entries)} in {folder}: {totals}")
    return EXIT_SUCCESS


def _build_row(entry: CacheEntry) -> list[str]:
    description = entry.description
    if PARTIAL_NAME_PATTERN.fullmatch(entry.key):
        description = "being filled" if is_busy(entry) else "abandoned, half filled"
    return [
        entry.kind,
        entry.key,
        _format_size([entry]),
        time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.last_used)),
        description,
    ]


def _select_kind(entries: Iterable[CacheEntry], kind: str) -> list[CacheEntry]:
    return [entry for entry in entries if entry.kind == kind]


def _clear_entries(folder: Path, kinds_or_keys: Sequence[str]) -> int:
    entries = list_entries(folder)
    keys = {entry.key for entry in entries}
    if unknown_names := [name for name in kinds_or_keys if name not in ENTRY_LISTERS and name not in keys]:
        raise UserError(
            "nothing was removed.", [_build_unknown_name_problem(name, sorted(keys)) for name in unknown_names]
        )
    selected_entries = [
        entry for entry in entries if not kinds_or_keys or entry.kind in kinds_or_keys or entry.key in kinds_or_keys
    ]
    removed_entries, failures = [], list[str]()
    for entry in selected_entries:
        if reason := _try_remove_entry(entry):
            failures.append(f"  {entry.kind} {entry.key}: {reason}")
        else:
            removed_entries.append(entry)
    print(
        f"{len(removed_entries)} of {len(entries)} entries removed, {_format_size(removed_entries)} freed in {folder}"
    )
    if failures:
        print("\n".join([f"{len(failures)} stayed:", *failures]), file=sys.stderr)
    return EXIT_NOT_REMOVED if failures else EXIT_SUCCESS


def _build_unknown_name_problem(name: str, keys: Sequence[str]) -> Problem:
    closest = find_closest_name(name, [*ENTRY_LISTERS, *keys])
    fix = f"thaw cache clear {closest}" if closest else "thaw cache, which lists the keys"
    return Problem(name, "no kind, and no key in the cache", format_names([*ENTRY_LISTERS, *keys], 12), fix)


def _try_remove_entry(entry: CacheEntry) -> str:
    """Removes it, or says why not."""
    try:
        remove(entry)
    except TimeoutError:  # as filelock's Timeout is
        return "a process is filling it"
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
