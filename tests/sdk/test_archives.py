"""Folders as one file: the same bytes for the same folder, and nothing written outside of one."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mumian.archives import ArchiveError, files_below, pack, unpack
from mumian.bundles import packed

NAMES = st.text("abc.-_ é", min_size=1, max_size=8).filter(lambda name: name.strip(".") != "")
FOLDERS = st.dictionaries(st.tuples(NAMES, NAMES), st.binary(max_size=2000), max_size=6)
LIMITS = {"bytes_max": 10_000_000, "files_max": 1000}


def archive_of(*entries: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    """A gzipped tar of entries that our own packer would never make."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for entry, content in entries:
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    out.seek(0)
    return out


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


@settings(max_examples=50)
@given(FOLDERS)
def test_what_is_packed_is_unpacked_and_packs_to_the_same_bytes(
    contents: dict[tuple[str, str], bytes],
) -> None:
    with tempfile.TemporaryDirectory() as name:
        first, second = Path(name, "first"), Path(name, "second")
        for (folder, file), content in contents.items():
            (first / f"in {folder}").mkdir(parents=True, exist_ok=True)
            (first / f"in {folder}" / file).write_bytes(content)
        first.mkdir(exist_ok=True)
        second.mkdir()
        once = io.BytesIO()
        pack(first, files_below(first), once)
        once.seek(0)
        written = unpack(once, second, **LIMITS)
        assert written == files_below(first)
        assert all((first / file).read_bytes() == (second / file).read_bytes() for file in written)
        again = io.BytesIO()
        pack(second, files_below(second), again)
        assert again.getvalue() == once.getvalue()


def test_what_may_be_executed_stays_so_and_caches_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "x.pyc").touch()
    (tmp_path / "run.sh").write_text("true")
    (tmp_path / "run.sh").chmod(0o700)
    (tmp_path / "link").symlink_to("run.sh")
    with packed(tmp_path) as (bundle, file):
        out = tmp_path / "out"
        out.mkdir()
        assert [str(path) for path in unpack(file_at_start(file), out, **LIMITS)] == ["link", "run.sh"]
        assert bundle.size_bytes == file.seek(0, os.SEEK_END)
    assert os.access(out / "run.sh", os.X_OK)
    assert not (out / "link").is_symlink()


def file_at_start(file: object) -> io.BytesIO:
    file.seek(0)  # type: ignore[attr-defined]
    return io.BytesIO(file.read())  # type: ignore[attr-defined]


@pytest.mark.parametrize("target", ["/etc/passwd", "../secret", "inside"])
def test_a_link_that_leads_out_or_to_a_folder_is_refused(tmp_path: Path, target: str) -> None:
    folder = tmp_path / "folder"
    (folder / "inside").mkdir(parents=True)
    (tmp_path / "secret").touch()
    (folder / "link").symlink_to(target)
    with pytest.raises(ArchiveError, match="is a link to"):
        files_below(folder)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (entry("../out"), "leads out"),
        (entry("/etc/mumian-test"), "leads out"),
        (entry("a/../../out"), "leads out"),
        (entry("link", tarfile.SYMTYPE, "/etc"), "something else"),
        (entry("link", tarfile.LNKTYPE, "a"), "something else"),
        (entry("pipe", tarfile.FIFOTYPE), "something else"),
        (entry("disk", tarfile.BLKTYPE), "something else"),
    ],
)
def test_what_is_no_plain_file_inside_is_refused(tmp_path: Path, bad: tarfile.TarInfo, said: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(ArchiveError, match=said):
        unpack(archive_of((bad, b"")), inside, **LIMITS)
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]
    assert list(inside.iterdir()) == []


def test_an_archive_that_grows_when_it_is_unpacked_is_cut_off(tmp_path: Path) -> None:
    bomb = archive_of((entry("zeros"), bytes(5_000_000)))
    assert len(bomb.getvalue()) < 50_000
    with pytest.raises(ArchiveError, match="more than 1 MiB"):
        unpack(bomb, tmp_path, bytes_max=1024**2, files_max=10)
    many = archive_of(*((entry(str(number)), b"") for number in range(11)))
    with pytest.raises(ArchiveError, match="more than 10 files"):
        unpack(many, tmp_path, bytes_max=1024**2, files_max=10)


@pytest.mark.parametrize(
    "damage", [b"", b"no archive", gzip.compress(b"no tar" * 200)], ids=["empty", "no gzip", "no tar"]
)
def test_a_damaged_archive_is_an_error_of_its_own(tmp_path: Path, damage: bytes) -> None:
    with pytest.raises(ArchiveError, match="cannot be unpacked"):
        unpack(io.BytesIO(damage), tmp_path, **LIMITS)
