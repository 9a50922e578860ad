"""Archives that are damaged or hostile are extracted as they were packed, or rejected; nothing leaves the target."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from thaw.config.errors import UserError
from thaw.data.archive import extract_archive

NUM_ARCHIVES = 300
Tree = dict[str, bytes]
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar.gz": gzip.compress,
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
}
ZIP_METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
NAMES = [
    *["../evil", "/evil", "a/../../evil", "..", ".", "", "a/./b", "train", "train/crow/0.png/x", "n" * 300, "d/" * 90],
    *["\\evil", "..\\evil", "C:\\evil", "con", "\x1b[2J", "gr\u00f6\u00dfe", "caf\udce9", "a\nb", " ", "e\u0301"],
]
TARGETS = ["..", "/etc/passwd", "missing", "link0", "link1", "train/crow/0.png", "train", "../outside/file", ".", ""]
MEMBER_TYPES = [bytes([code]) for code in b"0123456789AKLNSVxgXZ\0\xff"]


def generate_tree(rng: random.Random) -> Tree:
    return {
        f"{split}/{name}/{index}.png": rng.choice([rng.randbytes, bytes])(rng.choice([0, 1, 511, 512, 513, 3000]))
        for split in ("train", "test")
        for name in ("crow", "owl")
        for index in range(rng.randrange(1, 3))
    }


def pack(rng: random.Random, kind: str, tree: Tree) -> bytes:
    if kind == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", rng.choice(ZIP_METHODS)) as archive:
            for name, content in tree.items():
                archive.writestr(name, content)
        return buffer.getvalue()
    return COMPRESSORS[kind](pack_tar(rng, tree, is_hostile=False))


def pack_tar(rng: random.Random, tree: Tree, is_hostile: bool) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=rng.choice([0, 1, 2]), errors="surrogateescape") as archive:
        for name, content in tree.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
            for number in range(rng.randrange(3) if is_hostile else 0):
                archive.addfile(generate_member(rng, number))
    return buffer.getvalue()


def generate_member(rng: random.Random, number: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(rng.choice([*NAMES, f"link{number}", f"link{number}/file", f"train/link{number}"])[:90])
    member.type = rng.choice([tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, *MEMBER_TYPES])
    member.linkname, member.mode = rng.choice(TARGETS), rng.choice([0o644, 0o0, 0o7777])
    member.size = 0
    return member


def damage(rng: random.Random, content: bytes) -> bytes:
    """Return `content` cut, with other bytes, or with bytes more or fewer."""
    start, length = rng.randrange(len(content)), rng.choice([1, 2, 16, 512, 1000])
    middle = {
        0: b"",
        1: bytes(length),
        2: rng.randbytes(length),
        3: bytes([content[start] ^ (1 << rng.randrange(8))]),
        4: content[start : start + length] * 2,
    }
    kind = rng.randrange(7)
    if kind == 5:
        return content[:start]
    if kind == 6:
        return rng.randbytes(rng.randrange(600)) + content
    return content[:start] + middle[kind] + content[start + (1 if kind == 3 else length) :]


def forge_tar_header(rng: random.Random, content: bytes) -> bytes:
    """Return a tar with another size, type, name or checksum in the header of a member."""
    headers = [start for start in range(0, len(content), 512) if content[start + 257 : start + 262] == b"ustar"]
    start = rng.choice(headers or [0])
    header = bytearray(content[start : start + 512])
    offset, value = rng.choice([
        (124, rng.choice([b"77777777777", b"00000000000", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"-0000000001", b"x"])),
        (156, rng.choice(MEMBER_TYPES)),
        (0, rng.choice(NAMES).encode("utf-8", "surrogateescape")[:99]),
        (157, rng.choice(TARGETS).encode()),
    ])  # fmt: skip
    header[offset : offset + len(value)] = value
    if rng.random() < 0.9:
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
    return content[:start] + bytes(header) + content[start + 512 :]


def generate_archive(rng: random.Random, tree: Tree) -> tuple[bytes, bool]:
    """Return an archive of `tree`, and whether its format protects the content, so that damage must be noticed."""
    way = rng.choice(["damage", "damage", "hostile tar", "hostile zip", "forge", "bomb"])
    if way == "damage":
        kind = rng.choice(["zip", "zip", *COMPRESSORS])
        return damage(rng, pack(rng, kind, tree)), kind != "tar"
    compress = COMPRESSORS[rng.choice(list(COMPRESSORS))]
    if way == "hostile tar":
        return compress(pack_tar(rng, tree, is_hostile=True)), False
    if way == "forge":
        return compress(forge_tar_header(rng, pack_tar(rng, tree, is_hostile=False))), False
    hostile_tree = tree | {rng.choice(NAMES)[:250] or "x": b"evil" for _ in range(2)}
    if way == "bomb":
        hostile_tree["zeros"] = bytes(rng.choice([300_000, 12 << 20]))
        return compress(pack_tar(rng, {name: hostile_tree[name] for name in [*tree, "zeros"]}, False)), False
    names = {name.encode("utf-8", "replace").decode(): content for name, content in hostile_tree.items()}
    return pack(rng, "zip", names), False


def list_outside(folder: Path) -> dict[str, bytes | None]:
    paths = [path for path in folder.rglob("*") if "cache" not in path.relative_to(folder).parts]
    return {str(path): path.read_bytes() if path.is_file() else None for path in paths}


def assert_is_inside(target: Path) -> None:
    """Check that all that was extracted is plain files and folders, or links to those."""
    for folder, _, names in os.walk(target):
        for path in (Path(folder, name) for name in names):
            assert path.is_file()
            assert path.resolve().is_relative_to(target.resolve())


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("seed", range(NUM_ARCHIVES))
def test_an_archive_is_extracted_as_it_was_packed_or_rejected(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    tree = generate_tree(rng)
    content, is_protected = generate_archive(rng, tree)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_bytes(b"unchanged")
    (tmp_path / "archive").write_bytes(content)
    (tmp_path / "cache").mkdir()
    before, target = list_outside(tmp_path), tmp_path / "cache" / "target"
    try:
        extract_archive(tmp_path / "archive", target, inner=rng.choice([None] * 9 + ["0.png"]))
    except UserError:
        assert [path.name for path in (tmp_path / "cache").iterdir()] == [".target.lock"]
    else:
        assert_is_inside(target)
        extracted = {
            path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*.png") if path.is_file()
        }
        if is_protected:
            assert extracted == tree
    assert list_outside(tmp_path) == before
