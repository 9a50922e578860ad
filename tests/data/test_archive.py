"""Archives of all kinds are extracted, and damaged or malicious ones are rejected."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from thaw.config.errors import UserError
from thaw.data.archive import extract_archive

TREE = {"birds/train/crow/1.png": b"one", "birds/test/crow/2.png": b"two", "birds/read me.txt": b""}
TAR_MODES = {"tar": "w", "tar.gz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}
LONG_CONTENT = random.Random(0).randbytes(3000) + b"and on " * 500


def write_zip(file: Path, tree: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in tree.items():
            archive.writestr(name, content)
    return file


def write_tar(file: Path, tree: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(file, mode) as archive:  # type: ignore[call-overload]
        for name, content in tree.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file


def write_archive(folder: Path, kind: str, tree: dict[str, bytes]) -> Path:
    file = folder / f"images.{kind}"
    return write_zip(file, tree) if kind == "zip" else write_tar(file, tree, TAR_MODES[kind])


def write_tar_member(file: Path, kind: bytes, name: str, link_target: str = "", file_name: str = "") -> Path:
    """Write a tar with one member that is not a file, and optionally a file `file_name` that is written through it."""
    with tarfile.open(file, "w") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.devmajor, member.devminor = kind, link_target, 1, 3
        archive.addfile(member)
        if file_name:
            file_member = tarfile.TarInfo(file_name)
            file_member.size = 4
            archive.addfile(file_member, io.BytesIO(b"evil"))
    return file


def read_contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_rejected(archive: Path, folder: Path) -> UserError:
    """Check that `archive` is rejected and leaves nothing in `folder` or next to it; return the error."""
    folder.mkdir()
    paths_before = set(folder.parent.rglob("*"))
    with pytest.raises(UserError, match="the archive cannot be extracted") as error_info:
        extract_archive(archive, folder / "target")
    new_paths = set(folder.parent.rglob("*")) - paths_before
    assert [path.name for path in new_paths if not path.name.endswith(".lock")] == []
    assert str(archive) in str(error_info.value)
    return error_info.value


@pytest.mark.parametrize("kind", ["zip", *TAR_MODES])
def test_archives_of_all_kinds_are_extracted(tmp_path: Path, kind: str) -> None:
    assert read_contents(extract_archive(write_archive(tmp_path, kind, TREE), tmp_path / "target")) == TREE


def test_the_kind_of_an_archive_is_detected_from_its_content(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "images.zip", TREE, "w:gz")
    assert read_contents(extract_archive(archive, tmp_path / "target")) == TREE


def test_an_archive_is_extracted_once(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "images.zip", TREE)
    extract_archive(archive, tmp_path / "target")
    archive.unlink()
    assert read_contents(extract_archive(archive, tmp_path / "target")) == TREE


def test_links_within_an_archive_are_extracted(tmp_path: Path) -> None:
    archive = write_tar_member(tmp_path / "links.tar", tarfile.SYMTYPE, "link", "file", file_name="file")
    assert (extract_archive(archive, tmp_path / "target") / "link").read_bytes() == b"evil"


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "a/../../target-and-more/evil"])
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_a_path_outside_the_target_is_rejected(tmp_path: Path, kind: str, name: str) -> None:
    archive = write_archive(tmp_path, kind, {"good": b"good", name: b"evil"})
    assert name.rpartition("/")[2] in str(assert_rejected(archive, tmp_path / "folder"))


def test_an_absolute_path_in_a_zip_is_rejected(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "images.zip", {str(tmp_path / "evil"): b"evil"})
    assert "outside the folder" in str(assert_rejected(archive, tmp_path / "folder"))


def test_an_absolute_path_in_a_tar_writes_nothing_outside(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "images.tar", {str(tmp_path / "evil"): b"evil"})
    target = extract_archive(archive, tmp_path / "target")  # its leading slash is removed (PEP 706)
    assert not (tmp_path / "evil").exists()
    assert list(read_contents(target).values()) == [b"evil"]


@pytest.mark.parametrize(
    ("kind", "link_target"),
    [
        (tarfile.SYMTYPE, "../../.."),
        (tarfile.SYMTYPE, "/etc"),
        (tarfile.LNKTYPE, "../../secret"),
        (tarfile.LNKTYPE, "/etc/passwd"),
    ],
)
def test_a_link_out_of_the_target_is_rejected_and_not_followed(tmp_path: Path, kind: bytes, link_target: str) -> None:
    (tmp_path / "secret").write_text("secret")
    assert_rejected(
        write_tar_member(tmp_path / "images.tar", kind, "link", link_target, file_name="link/evil"), tmp_path / "folder"
    )
    assert (tmp_path / "secret").read_text() == "secret"


def test_a_link_in_a_zip_becomes_a_regular_file(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr(link, str(tmp_path))
    target = extract_archive(tmp_path / "images.zip", tmp_path / "target")
    assert not (target / "link").is_symlink()
    assert (target / "link").read_text() == str(tmp_path)


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_device_files_and_pipes_are_rejected(tmp_path: Path, kind: bytes) -> None:
    assert_rejected(write_tar_member(tmp_path / "images.tar", kind, "device"), tmp_path / "folder")


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_decompression_bomb_is_rejected_with_its_size(tmp_path: Path, kind: str) -> None:
    archive = write_archive(tmp_path, kind, {"zeros": bytes(12 << 20)})
    assert f"unpacks to {12 << 20} bytes" in str(assert_rejected(archive, tmp_path / "folder"))


def test_a_decompression_bomb_with_a_false_size_is_rejected(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "images.zip", {"zeros": bytes(12 << 20)})
    size = (12 << 20).to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace(size, (9).to_bytes(4, "little")))
    assert_rejected(archive, tmp_path / "folder")


def test_small_files_may_have_a_high_compression_ratio(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "images.zip", {"zeros": bytes(900_000)})
    assert (extract_archive(archive, tmp_path / "target") / "zeros").stat().st_size == 900_000


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04"], ids=["empty", "foreign", "a beginning"])
def test_a_file_that_is_not_an_archive_is_rejected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "images.zip").write_bytes(content)
    assert "neither zip nor tar" in str(assert_rejected(tmp_path / "images.zip", tmp_path / "folder"))


@pytest.mark.parametrize("kind", ["zip", *TAR_MODES])
def test_a_truncated_archive_is_rejected(tmp_path: Path, kind: str) -> None:
    archive = write_archive(tmp_path, kind, {"a": LONG_CONTENT, "b": LONG_CONTENT})
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    assert_rejected(archive, tmp_path / "folder")


def write_damaged_zip(folder: Path, method: int) -> Path:
    archive = write_zip(folder / "images.zip", {"a": LONG_CONTENT}, method)
    content = bytearray(archive.read_bytes())
    content[50:120] = bytes(70)
    archive.write_bytes(content)
    return archive


def write_damaged_tar(folder: Path, kind: str) -> Path:
    archive = write_archive(folder, kind, {"a": LONG_CONTENT, "b": LONG_CONTENT})
    content = bytearray(archive.read_bytes())
    content[600:700] = bytes(100)
    archive.write_bytes(content)
    return archive


def write_patched_zip(folder: Path, offset: int, value: int) -> Path:
    """Change a byte of the entry in the zip's directory and in its own header, where the offset is two bytes less."""
    archive = write_zip(folder / "images.zip", {"a": LONG_CONTENT})
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + offset] = content[offset - 2] = value
    archive.write_bytes(content)
    return archive


@pytest.mark.parametrize(
    "write_damaged",
    [
        pytest.param(lambda folder: write_damaged_zip(folder, zipfile.ZIP_STORED), id="zip, stored"),
        pytest.param(lambda folder: write_damaged_zip(folder, zipfile.ZIP_DEFLATED), id="zip, deflate"),
        pytest.param(lambda folder: write_damaged_zip(folder, zipfile.ZIP_BZIP2), id="zip, bzip2"),
        pytest.param(lambda folder: write_damaged_zip(folder, zipfile.ZIP_LZMA), id="zip, lzma"),
        pytest.param(lambda folder: write_damaged_tar(folder, "tar.gz"), id="tar.gz"),
        pytest.param(lambda folder: write_damaged_tar(folder, "tar.bz2"), id="tar.bz2"),
        pytest.param(lambda folder: write_damaged_tar(folder, "tar.xz"), id="tar.xz"),
        pytest.param(lambda folder: write_patched_zip(folder, 8, 1), id="zip, encrypted"),
        pytest.param(lambda folder: write_patched_zip(folder, 10, 99), id="zip, unknown method"),
    ],
)
def test_a_damaged_or_encrypted_archive_is_not_reported_as_a_disk_error(
    tmp_path: Path, write_damaged: Callable[[Path], Path]
) -> None:
    assert_rejected(write_damaged(tmp_path), tmp_path / "folder")


def write_nested_zip(folder: Path, inner: dict[str, bytes]) -> Path:
    """Write a zip that contains `data/images.tar.gz` and files next to it."""
    content = write_tar(folder / "inner", inner, "w:gz").read_bytes()
    (folder / "inner").unlink()
    return write_zip(
        folder / "outer.zip", {"data/images.tar.gz": content, "data/outlines.tar": b"", "images/a": b"outer"}
    )


def test_only_the_content_of_a_nested_archive_is_extracted(tmp_path: Path) -> None:
    inner = {"images/a": b"inner", "data/b": b"b"}  # with the names of files paths_before it
    assert (
        read_contents(extract_archive(write_nested_zip(tmp_path, inner), tmp_path / "target", "images.tar.gz")) == inner
    )
    assert [path.name for path in (tmp_path / "target").iterdir() if path.name not in ("images", "data")] == []


def test_an_archive_without_the_nested_one_is_extracted_unchanged(tmp_path: Path) -> None:
    assert (
        read_contents(extract_archive(write_zip(tmp_path / "a.zip", TREE), tmp_path / "target", "images.tar.gz"))
        == TREE
    )


def test_a_nested_archive_with_a_path_outside_the_target_leaves_nothing(tmp_path: Path) -> None:
    archive = write_nested_zip(tmp_path, {"../../evil": b"evil"})
    with pytest.raises(UserError, match="evil"):
        extract_archive(archive, tmp_path / "folder" / "target", "images.tar.gz")
    assert [path for path in tmp_path.rglob("*") if path.name in ("evil", "target")] == []


def test_a_nested_decompression_bomb_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unpacks to"):
        extract_archive(write_nested_zip(tmp_path, {"zeros": bytes(12 << 20)}), tmp_path / "target", "images.tar.gz")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("link_target", ["missing", "link", "folder/../missing"])
def test_a_link_to_a_member_that_is_missing_is_rejected(tmp_path: Path, kind: bytes, link_target: str) -> None:
    archive = write_tar_member(tmp_path / "images.tar", kind, "link", link_target, file_name="folder/file")
    assert "not in it" in str(assert_rejected(archive, tmp_path / "folder"))


def test_a_hard_link_to_a_member_has_its_content(tmp_path: Path) -> None:
    archive = write_tar_member(tmp_path / "links.tar", tarfile.LNKTYPE, "a/link", "b/file", file_name="b/file")
    assert (extract_archive(archive, tmp_path / "target") / "a" / "link").read_bytes() == b"evil"


@pytest.mark.parametrize("kind", TAR_MODES)
def test_a_tar_that_ends_between_two_members_is_rejected(tmp_path: Path, kind: str) -> None:
    content = write_tar(tmp_path / "whole.tar", {"a": b"a" * 512, "b": b"b"}).read_bytes()[: 2 * 512]
    opened = {"tar": open, "tar.gz": gzip.open, "tar.bz2": bz2.open, "tar.xz": lzma.open}[kind]
    with opened(tmp_path / "images", "wb") as stream:  # type: ignore[operator]
        stream.write(content)
    assert "its end is missing" in str(assert_rejected(tmp_path / "images", tmp_path / "folder"))


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "images.tar", {"a": b"a" * 512, "b": b"b"})
    content = bytearray(archive.read_bytes())
    content[1024 + 5] ^= 1  # in the name of b: its checksum is wrong
    archive.write_bytes(content)
    assert_rejected(archive, tmp_path / "folder")


def test_a_tar_whose_last_member_is_a_zip_is_a_tar(tmp_path: Path) -> None:
    inner = write_zip(tmp_path / "inner.zip", {"x": b"x"}).read_bytes()
    target = extract_archive(write_tar(tmp_path / "images.tar", {"a": b"a", "z.zip": inner}), tmp_path / "target")
    assert sorted(read_contents(target)) == ["a", "z.zip"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(
    "tree", [{"a": b"file", "a/b": b"below"}, {"a/b": b"below", "a": b"file"}, {"n" * 300: b"long"}, {"..": b""}, {}]
)
def test_members_that_cannot_be_together_are_rejected(tmp_path: Path, kind: str, tree: dict[str, bytes]) -> None:
    assert_rejected(write_archive(tmp_path, kind, tree), tmp_path / "folder")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_of_two_members_with_one_name_the_last_is_extracted(tmp_path: Path, kind: str) -> None:
    archive = write_archive(tmp_path, kind, {"a": b"first"})
    if kind == "zip":
        with zipfile.ZipFile(archive, "a") as zip_archive:
            zip_archive.writestr("a", b"last")
    else:
        with tarfile.open(archive, "a") as tar_archive:
            member = tarfile.TarInfo("a")
            member.size = 4
            tar_archive.addfile(member, io.BytesIO(b"last"))
    assert read_contents(extract_archive(archive, tmp_path / "target")) == {"a": b"last"}


def test_names_of_a_zip_from_windows_or_without_a_declared_encoding_are_read(tmp_path: Path) -> None:
    member, plain = zipfile.ZipInfo("birds\\crow\\1.png"), zipfile.ZipInfo("Gr\xf6\xdfe/1.png")
    member.create_system = 0
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr(member, b"one")
        archive.writestr(plain, b"two")
    content = (tmp_path / "images.zip").read_bytes()
    content = content.replace(b"PK\x03\x04\x14\x00\x00\x08", b"PK\x03\x04\x14\x00\x00\x00")
    content = content.replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x08", b"PK\x01\x02\x14\x03\x14\x00\x00\x00")
    (tmp_path / "images.zip").write_bytes(content)
    names = set(read_contents(extract_archive(tmp_path / "images.zip", tmp_path / "target")))
    assert names == {"birds/crow/1.png", "Gr\xf6\xdfe/1.png"}
