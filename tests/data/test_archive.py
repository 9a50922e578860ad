"""Archives of all kinds, and archives made to do harm."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from thaw.config.errors import UserError
from thaw.data.archive import extract_archive

TREE = {"birds/train/crow/1.png": b"one", "birds/test/crow/2.png": b"two", "birds/read me.txt": b""}
MODES = {"tar": "w", "tar.gz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}
LONG = random.Random(0).randbytes(3000) + b"and on " * 500


def zipped(file: Path, tree: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in tree.items():
            archive.writestr(name, content)
    return file


def tarred(file: Path, tree: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(file, mode) as archive:  # type: ignore[call-overload]
        for name, content in tree.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file


def packed(folder: Path, kind: str, tree: dict[str, bytes]) -> Path:
    file = folder / f"images.{kind}"
    return zipped(file, tree) if kind == "zip" else tarred(file, tree, MODES[kind])


def tarred_member(file: Path, kind: bytes, name: str, leads_to: str = "", then: str = "") -> Path:
    """A tar with one member that is no file, and a file `then` that is written through it."""
    with tarfile.open(file, "w") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.devmajor, member.devminor = kind, leads_to, 1, 3
        archive.addfile(member)
        if then:
            written = tarfile.TarInfo(then)
            written.size = 4
            archive.addfile(written, io.BytesIO(b"evil"))
    return file


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(archive: Path, folder: Path) -> UserError:
    """Unpacks `archive` in `folder`, where it must leave nothing, nor beside it."""
    folder.mkdir()
    around = set(folder.parent.rglob("*"))
    with pytest.raises(UserError, match="the archive was not unpacked") as caught:
        extract_archive(archive, folder / "target")
    left = set(folder.parent.rglob("*")) - around
    assert [path.name for path in left if not path.name.endswith(".lock")] == []
    assert str(archive) in str(caught.value)
    return caught.value


@pytest.mark.parametrize("kind", ["zip", *MODES])
def test_an_archive_of_any_kind_unpacks_to_its_files(tmp_path: Path, kind: str) -> None:
    assert contents(extract_archive(packed(tmp_path, kind, TREE), tmp_path / "target")) == TREE


def test_the_kind_is_told_by_the_content_and_not_by_the_name(tmp_path: Path) -> None:
    archive = tarred(tmp_path / "images.zip", TREE, "w:gz")
    assert contents(extract_archive(archive, tmp_path / "target")) == TREE


def test_an_archive_is_unpacked_once(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "images.zip", TREE)
    extract_archive(archive, tmp_path / "target")
    archive.unlink()
    assert contents(extract_archive(archive, tmp_path / "target")) == TREE


def test_links_inside_an_archive_are_kept(tmp_path: Path) -> None:
    archive = tarred_member(tmp_path / "links.tar", tarfile.SYMTYPE, "link", "file", then="file")
    assert (extract_archive(archive, tmp_path / "target") / "link").read_bytes() == b"evil"


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "a/../../target-and-more/evil"])
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_a_path_that_climbs_out_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    archive = packed(tmp_path, kind, {"good": b"good", name: b"evil"})
    assert name.rpartition("/")[2] in str(refused(archive, tmp_path / "folder"))


def test_an_absolute_path_in_a_zip_is_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "images.zip", {str(tmp_path / "evil"): b"evil"})
    assert "outside the folder" in str(refused(archive, tmp_path / "folder"))


def test_an_absolute_path_in_a_tar_writes_nothing_outside(tmp_path: Path) -> None:
    archive = tarred(tmp_path / "images.tar", {str(tmp_path / "evil"): b"evil"})
    inside = extract_archive(archive, tmp_path / "target")  # its leading slash is taken off (PEP 706)
    assert not (tmp_path / "evil").exists()
    assert list(contents(inside).values()) == [b"evil"]


@pytest.mark.parametrize(
    ("kind", "leads_to"),
    [
        (tarfile.SYMTYPE, "../../.."),
        (tarfile.SYMTYPE, "/etc"),
        (tarfile.LNKTYPE, "../../secret"),
        (tarfile.LNKTYPE, "/etc/passwd"),
    ],
)
def test_a_link_that_leads_out_is_refused_and_nothing_is_written_through_it(
    tmp_path: Path, kind: bytes, leads_to: str
) -> None:
    (tmp_path / "secret").write_text("secret")
    refused(tarred_member(tmp_path / "images.tar", kind, "link", leads_to, then="link/evil"), tmp_path / "folder")
    assert (tmp_path / "secret").read_text() == "secret"


def test_a_link_in_a_zip_becomes_a_plain_file(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr(link, str(tmp_path))
    target = extract_archive(tmp_path / "images.zip", tmp_path / "target")
    assert not (target / "link").is_symlink()
    assert (target / "link").read_text() == str(tmp_path)


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_device_files_and_pipes_are_refused(tmp_path: Path, kind: bytes) -> None:
    refused(tarred_member(tmp_path / "images.tar", kind, "device"), tmp_path / "folder")


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_bomb_is_refused_with_its_size(tmp_path: Path, kind: str) -> None:
    archive = packed(tmp_path, kind, {"zeros": bytes(12 << 20)})
    assert f"unpacks to {12 << 20} bytes" in str(refused(archive, tmp_path / "folder"))


def test_a_bomb_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "images.zip", {"zeros": bytes(12 << 20)})
    size = (12 << 20).to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace(size, (9).to_bytes(4, "little")))
    refused(archive, tmp_path / "folder")


def test_small_files_that_shrink_well_are_no_bomb(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "images.zip", {"zeros": bytes(900_000)})
    assert (extract_archive(archive, tmp_path / "target") / "zeros").stat().st_size == 900_000


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04"], ids=["empty", "foreign", "a beginning"])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "images.zip").write_bytes(content)
    assert "neither zip nor tar" in str(refused(tmp_path / "images.zip", tmp_path / "folder"))


@pytest.mark.parametrize("kind", ["zip", *MODES])
def test_an_archive_that_breaks_off_is_refused(tmp_path: Path, kind: str) -> None:
    archive = packed(tmp_path, kind, {"a": LONG, "b": LONG})
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    refused(archive, tmp_path / "folder")


def damage_a_zip(folder: Path, method: int) -> Path:
    archive = zipped(folder / "images.zip", {"a": LONG}, method)
    content = bytearray(archive.read_bytes())
    content[50:120] = bytes(70)
    archive.write_bytes(content)
    return archive


def damage_a_tar(folder: Path, kind: str) -> Path:
    archive = packed(folder, kind, {"a": LONG, "b": LONG})
    content = bytearray(archive.read_bytes())
    content[600:700] = bytes(100)
    archive.write_bytes(content)
    return archive


def mark_a_zip(folder: Path, offset: int, value: int) -> Path:
    """Changes a byte of the entry in the zip's directory and of its own header, which lies two bytes nearer."""
    archive = zipped(folder / "images.zip", {"a": LONG})
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + offset] = content[offset - 2] = value
    archive.write_bytes(content)
    return archive


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda folder: damage_a_zip(folder, zipfile.ZIP_STORED), id="zip, stored"),
        pytest.param(lambda folder: damage_a_zip(folder, zipfile.ZIP_DEFLATED), id="zip, deflate"),
        pytest.param(lambda folder: damage_a_zip(folder, zipfile.ZIP_BZIP2), id="zip, bzip2"),
        pytest.param(lambda folder: damage_a_zip(folder, zipfile.ZIP_LZMA), id="zip, lzma"),
        pytest.param(lambda folder: damage_a_tar(folder, "tar.gz"), id="tar.gz"),
        pytest.param(lambda folder: damage_a_tar(folder, "tar.bz2"), id="tar.bz2"),
        pytest.param(lambda folder: damage_a_tar(folder, "tar.xz"), id="tar.xz"),
        pytest.param(lambda folder: mark_a_zip(folder, 8, 1), id="zip, encrypted"),
        pytest.param(lambda folder: mark_a_zip(folder, 10, 99), id="zip, unknown method"),
    ],
)
def test_an_archive_that_is_damaged_or_encrypted_is_refused_and_the_disk_is_not_blamed(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    refused(make(tmp_path), tmp_path / "folder")


def nested(folder: Path, inner: dict[str, bytes]) -> Path:
    """A zip that holds `data/images.tar.gz`, and files beside it."""
    content = tarred(folder / "inner", inner, "w:gz").read_bytes()
    (folder / "inner").unlink()
    return zipped(folder / "outer.zip", {"data/images.tar.gz": content, "data/outlines.tar": b"", "images/a": b"outer"})


def test_of_an_archive_in_an_archive_only_the_inner_content_is_kept(tmp_path: Path) -> None:
    inner = {"images/a": b"inner", "data/b": b"b"}  # of the same names as what lies around it
    assert contents(extract_archive(nested(tmp_path, inner), tmp_path / "target", "images.tar.gz")) == inner
    assert [path.name for path in (tmp_path / "target").iterdir() if path.name not in ("images", "data")] == []


def test_an_archive_without_the_inner_one_is_unpacked_as_it_is(tmp_path: Path) -> None:
    assert contents(extract_archive(zipped(tmp_path / "a.zip", TREE), tmp_path / "target", "images.tar.gz")) == TREE


def test_an_inner_archive_that_climbs_out_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    archive = nested(tmp_path, {"../../evil": b"evil"})
    with pytest.raises(UserError, match="evil"):
        extract_archive(archive, tmp_path / "folder" / "target", "images.tar.gz")
    assert [path for path in tmp_path.rglob("*") if path.name in ("evil", "target")] == []


def test_an_inner_bomb_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unpacks to"):
        extract_archive(nested(tmp_path, {"zeros": bytes(12 << 20)}), tmp_path / "target", "images.tar.gz")
