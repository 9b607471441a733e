"""Manifests: each way in which a file can differ from what was written is found and named."""

import hashlib
import os
from pathlib import Path

import pytest

from hone import manifest
from hone.manifest import damaged, describe_files, file_digest, problems


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.bin").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "deep" / "b.json").write_text("{}")
    (tmp_path / "empty").touch()
    return tmp_path


def test_describes_every_file_by_size_and_sha256(folder: Path) -> None:
    found = describe_files(folder)
    assert list(found) == ["a.bin", "deep/b.json", "empty"]
    for name, about in found.items():
        content = (folder / name).read_bytes()
        assert about == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert list(describe_files(folder, ["empty"])) == ["empty"]
    assert problems(folder, found, hashes=True) == []


def test_large_files_are_read_piece_by_piece(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"x" * 3_000_001)
    assert file_digest(path) == hashlib.sha256(b"x" * 3_000_001).hexdigest()


def test_each_change_is_named_by_its_file(folder: Path) -> None:
    files = describe_files(folder)
    flipped = bytearray((folder / "a.bin").read_bytes())
    flipped[5000] ^= 1
    (folder / "a.bin").write_bytes(flipped)
    (folder / "empty").write_text("no longer")
    (folder / "deep" / "b.json").unlink()
    there_only = ["deep/b.json: missing", "empty: 9 bytes, expected 0"]
    assert problems(folder, files, hashes=False) == there_only
    assert problems(folder, files, hashes=True) == ["a.bin: the content is not what was written", *there_only]


@pytest.mark.parametrize("about", [None, {}, {"bytes": 1}, {"bytes": "x", "sha256": ""}, [1]])
def test_a_damaged_manifest_is_a_problem_and_not_an_error(folder: Path, about: object) -> None:
    expected = ["a.bin: the manifest does not say its size and SHA-256"]
    assert problems(folder, {"a.bin": about}, hashes=True) == damaged(folder, {"a.bin": about}) == expected


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="every file can be read here")
def test_a_file_that_may_not_be_read(folder: Path) -> None:
    files = describe_files(folder)
    (folder / "a.bin").chmod(0)
    assert problems(folder, files, hashes=True) == ["a.bin: not readable (Permission denied)"]


def test_what_is_small_is_read_whole_at_each_opening(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = describe_files(folder)
    (folder / "a.bin").write_bytes(bytes(files["a.bin"]["bytes"]))
    assert damaged(folder, files) == ["a.bin: the content is not what was written"]
    monkeypatch.setattr(manifest, "READ_WHOLE_BYTES", 1000)
    assert damaged(folder, files) == []
