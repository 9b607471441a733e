"""Uploads to a stand-in for the hub: what goes up, what stays, and what is refused. No network."""

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

import hone
from conftest import pairs
from hone.cli import app
from hone.convert import hub_upload
from hone.convert.hub_upload import upload
from hone.errors import HoneError


class Hub:
    """The four calls of huggingface_hub.HfApi that an upload makes."""

    def __init__(self, *, private: bool | None = None, spoil: str = "", error: Exception | None = None) -> None:
        self.private, self.spoil, self.error = private, spoil, error
        self.files: dict[str, bytes] = {}

    def create_repo(self, *, repo_id: str, repo_type: str, private: bool, exist_ok: bool) -> str:
        if self.error:
            raise self.error
        assert repo_type == "model" and exist_ok
        self.private = private if self.private is None else self.private
        return f"https://huggingface.co/{repo_id}"

    def repo_info(self, *, repo_id: str, files_metadata: bool = False) -> Any:
        siblings = []
        for name, data in self.files.items():
            large = name.endswith((".safetensors", ".gguf"))
            data = data + b"x" if name == self.spoil else data
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            lfs = SimpleNamespace(sha256=hashlib.sha256(data).hexdigest()) if large else None
            siblings.append(SimpleNamespace(rfilename=name, lfs=lfs, blob_id=blob))
        return SimpleNamespace(private=self.private, siblings=siblings)

    def upload_folder(self, *, folder_path: str, repo_id: str, allow_patterns: list[str], commit_message: str) -> None:
        for path in Path(folder_path).iterdir():
            if path.name in allow_patterns:
                self.files[path.name] = path.read_bytes()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in pairs(20)))
    for method in ("full", "lora"):
        keys = {"model_name_or_path": str(model_folder), "train_file": str(rows), "method": method, "lora_r": 4}
        hone.train(keys, max_steps=2, save_steps=1, max_length=64, sample_prompts=1, output_dir=str(folder / method))
    return folder


def test_the_model_goes_up_and_the_training_stays(runs: Path) -> None:
    api = Hub()
    done = upload(str(runs / "full"), "me/model", api=api)
    assert done.address == "https://huggingface.co/me/model" and api.private and not done.public
    assert set(api.files) == set(done.files) == {
        "README.md", "config.json", "generation_config.json", "model.safetensors", "template.json", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    assert str(runs).encode() not in b"".join(api.files.values())
    assert done.notes == ["the card says no licence: the licences of base and rows bind you"]


def test_an_adapter_on_a_local_base_goes_up_merged(runs: Path) -> None:
    api = Hub()
    done = upload(str(runs / "lora"), "me/model", api=api)
    assert "model.safetensors" in api.files and not any("adapter" in name for name in api.files)
    assert "base and adapter were merged" in done.notes[0]
    assert sorted(path.name for path in runs.iterdir()) == ["full", "lora", "rows.jsonl"]


def test_an_adapter_on_a_base_of_the_hub_goes_up_as_it_is(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "lora", tmp_path / "lora")
    path = tmp_path / "lora" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "owner/base"}))
    (tmp_path / "lora" / "manifest.json").unlink()
    api = Hub()
    upload(str(tmp_path / "lora"), "me/adapter", api=api)
    assert {"adapter_config.json", "adapter_model.safetensors"} <= set(api.files)


@pytest.mark.parametrize(
    ("text", "says"),
    [("the token is hf_" + "a" * 30, "has a secret in it"), ("see {home}/rows.jsonl", "has a path of your machine")],
)
def test_a_file_that_gives_something_away_stops_the_upload(
    runs: Path, tmp_path: Path, text: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    shutil.copytree(runs / "full", tmp_path / "full")
    card = tmp_path / "full" / "README.md"
    card.write_text(card.read_text() + text.format(home="/home/somebody") + "\n")
    api = Hub()
    with pytest.raises(HoneError, match=rf"README.md:\d+: {says}"):
        upload(str(tmp_path / "full"), "me/model", api=api)
    assert not api.files and api.private is None


def test_a_public_repository_that_is_there_already(runs: Path) -> None:
    with pytest.raises(HoneError, match="everybody can read it"):
        upload(str(runs / "full"), "me/model", api=Hub(private=False))
    assert upload(str(runs / "full"), "me/model", public=True, api=Hub()).public


def test_other_bytes_on_the_hub_are_seen(runs: Path) -> None:
    for name in ("model.safetensors", "README.md"):
        with pytest.raises(HoneError, match=f"other bytes of {name}"):
            upload(str(runs / "full"), "me/model", api=Hub(spoil=name))


@pytest.mark.parametrize(("status", "says"), [(401, "hf auth login"), (403, "a name of your own"), (503, "network")])
def test_a_refusal_is_one_message(runs: Path, status: int, says: str) -> None:
    error = OSError(f"{status} Client Error: nothing for you")
    error.response = SimpleNamespace(status_code=status)  # type: ignore[attr-defined]
    with pytest.raises(HoneError, match=r"the hub refused: .*nothing for you") as caught:
        upload(str(runs / "full"), "me/model", api=Hub(error=error))
    assert says in str(caught.value)


def test_without_network_or_token(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def command() -> Any:
        return CliRunner().invoke(app, ["export", str(runs / "full"), "--to", "hub", "--repo", "me/model"])

    monkeypatch.setattr(hub_upload, "in_reach", lambda: False)
    assert command().exit_code == 1 and "the hub is out of reach" in command().stderr
    monkeypatch.setattr(hub_upload, "in_reach", lambda: True)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert command().exit_code == 1 and "no token for the hub" in command().stderr
    monkeypatch.setattr(hub_upload, "_api", Hub)
    done = command()
    assert done.exit_code == 0 and "uploaded 7 files to https://huggingface.co/me/model (private" in done.stdout


def test_a_name_of_the_hub_is_no_folder(runs: Path) -> None:
    with pytest.raises(HoneError, match="only a folder can be uploaded"):
        upload("hone-base", "me/model", api=Hub())
