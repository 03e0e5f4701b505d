"""The file of a backup: what was written is read, and no damage goes unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mumian_orchestrator.adapters.disk.backup_file import DiskBackupReader, DiskBackupWriter
from mumian_orchestrator.ports.backup_file import BackupFileError

KEYS = st.text(st.characters(codec="utf-8"), min_size=1)
RECORDS = st.dictionaries(KEYS, st.binary(max_size=300), max_size=20)
HEADER = {"revision": 7}


def written(folder: Path, records: dict[str, bytes]) -> Path:
    """A whole file."""
    path = folder / "backup"
    with DiskBackupWriter(path) as file:
        file.header(HEADER)
        for key, value in records.items():
            file.record(key, value)
        file.finish()
    return path


@given(records=RECORDS)
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, records: dict[str, bytes]
) -> None:
    file = DiskBackupReader(written(tmp_path_factory.mktemp("backup"), records))
    assert file.check() == (HEADER, len(records))
    assert dict(file.records()) == records


@given(data=st.data())
def test_a_file_that_is_cut_or_changed_anywhere_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = written(tmp_path_factory.mktemp("backup"), data.draw(RECORDS))
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[place] ^= data.draw(st.integers(1, 255))
    for broken in (whole[:place], bytes(changed), whole + whole[place:]):
        path.write_bytes(broken)
        with pytest.raises(BackupFileError):
            DiskBackupReader(path).check()


def test_a_file_that_was_not_finished_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), DiskBackupWriter(tmp_path / "backup") as file:
        file.header(HEADER)
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"mumian-backup 9\n{}\n", "another version"), (b"", "no backup"), (b"etcd snapshot", "no backup")],
)
def test_another_file_is_told_from_a_damaged_one(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(BackupFileError, match=message):
        DiskBackupReader(tmp_path / "file").check()
