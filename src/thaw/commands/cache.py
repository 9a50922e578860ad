"""`thaw cache`: what lies in the cache folder, and `thaw cache clear` to be rid of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from thaw.commands.table import Column, print_table
from thaw.commands.verbs import verb_of
from thaw.config.faults import DONE, Fault, UserFault, listing, nearest
from thaw.data.cache import cache_folder
from thaw.data.contents import KINDS, PARTIAL, Entry, contents, is_busy, remove

LEFT = 1
FOLDER = "data.cache"
COLUMNS = [
    Column("kind", keep=True),
    Column("key"),
    Column("size", number=True),
    Column("last use", keep=True),
    Column("what"),
]
HELP = """thaw cache [clear [KIND|KEY ...]] [data.cache=DIR]

  What thaw keeps so as not to make or fetch it again: its kind, key, size and last use. Kinds are

    downloads   archives as they were fetched
    datasets    data sets as they were unpacked or drawn
    decoded     their images, decoded and resized
    features    what frozen stages make of them
    weights     of backbones
    measured    which memory layout of a network is faster on this machine

  clear       remove everything, or all of some kinds, or what some keys name; what a killed process has left half
              filled, too. What a process is filling stays. Other files in the folder are not touched.
  data.cache  the folder; $THAW_CACHE, or the user's own, where nothing is said

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
        return DONE
    words = [one for one in arguments if not one.startswith(f"{FOLDER}=")]
    folder = _folder([one.split("=", 1)[1] for one in arguments if one.startswith(f"{FOLDER}=")])
    if strange := [one for one in words if "=" in one or one.startswith("-")]:
        fix = f"{FOLDER}={strange[0].partition('=')[2] or 'DIR'}"
        raise UserFault("not understood.", [Fault(one, valid=f"{FOLDER}=DIR", fix=fix) for one in strange])
    if not words:
        return _list(folder)
    _, chosen = verb_of("thaw cache", words, ["clear"])
    return _clear(folder, chosen)


def _folder(named: Sequence[str]) -> Path:
    folder = cache_folder(named[-1] if named else None)
    if named and not folder.is_dir():
        raise UserFault("no such cache.", [Fault(f"{FOLDER}={named[-1]}", "no folder", "a folder that is there")])
    return folder


def _list(folder: Path) -> int:
    found = contents(folder)
    if not found:
        print(f"nothing is kept in {folder}")
        return DONE
    print_table(COLUMNS, [_row(one) for one in found])
    sums = ", ".join(f"{kind} {_size(_of(found, kind))}" for kind in KINDS if _of(found, kind))
    print(f"\n{len(found)} entries, {_size(found)} in {folder}: {sums}")
    return DONE


def _row(entry: Entry) -> list[str]:
    what = entry.what
    if PARTIAL.fullmatch(entry.key):
        what = "being filled" if is_busy(entry) else "abandoned, half filled"
    return [entry.kind, entry.key, _size([entry]), time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used)), what]


def _of(entries: Iterable[Entry], kind: str) -> list[Entry]:
    return [one for one in entries if one.kind == kind]


def _clear(folder: Path, chosen: Sequence[str]) -> int:
    found = contents(folder)
    keys = {one.key for one in found}
    if unknown := [word for word in chosen if word not in KINDS and word not in keys]:
        raise UserFault("nothing was removed.", [_unknown(word, sorted(keys)) for word in unknown])
    meant = [one for one in found if not chosen or one.kind in chosen or one.key in chosen]
    removed, left = [], list[str]()
    for one in meant:
        if reason := _kept_back(one):
            left.append(f"  {one.kind} {one.key}: {reason}")
        else:
            removed.append(one)
    print(f"{len(removed)} of {len(found)} entries removed, {_size(removed)} freed in {folder}")
    if left:
        print("\n".join([f"{len(left)} stayed:", *left]), file=sys.stderr)
    return LEFT if left else DONE


def _unknown(word: str, keys: Sequence[str]) -> Fault:
    closest = nearest(word, [*KINDS, *keys])
    fix = f"thaw cache clear {closest}" if closest else "thaw cache, which lists the keys"
    return Fault(word, "no kind, and no key in the cache", listing([*KINDS, *keys], 12), fix)


def _kept_back(entry: Entry) -> str:
    """Removes it, or says why not."""
    try:
        remove(entry)
    except TimeoutError:  # as filelock's Timeout is
        return "a process is filling it"
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _size(entries: Iterable[Entry]) -> str:
    size, unit = float(sum(one.size for one in entries)), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1000:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
