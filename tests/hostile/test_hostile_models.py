"""Model folders made to do harm: code, pickles, absurd sizes, broken headers, adapters that point elsewhere."""

import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hone.data.tokenizer import load_tokenizer
from hone.errors import HoneError

pytest_plugins = ["spoiled"]

Hone = Callable[..., Any]
Refused = Callable[..., str]
CODE = "from pathlib import Path\nPath({marker!r}).write_text('ran')\n"


def change(path: Path, **keys: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


@pytest.mark.parametrize("command", ["generate", "plan"])
@pytest.mark.parametrize(("key", "value"), [("n_layer", 10**9), ("n_embd", 10**7), ("vocab_size", 10**12)])
def test_sizes_that_no_model_has(
    project: Path, hone: Hone, refused: Refused, command: str, key: str, value: int
) -> None:
    change(project / "model" / "config.json", **{key: value})
    words = ("generate", "model", "--prompt", "Hi") if command == "generate" else ("plan", "cfg.yaml")
    refused(hone(*words), "model/config.json", key, f"{value:,}")


@pytest.mark.parametrize("where", ["model", "tokenizer"])
def test_code_in_a_models_folder_is_not_run(project: Path, hone: Hone, refused: Refused, where: str) -> None:
    marker = project / "ran.txt"
    (project / "model" / "evil.py").write_text(CODE.format(marker=str(marker)))
    maps = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}
    if where == "model":
        change(project / "model" / "config.json", model_type="evil", auto_map=maps)
    else:
        tokenizer = project / "model" / "tokenizer_config.json"
        change(tokenizer, tokenizer_class="EvilTokenizer", auto_map={"AutoTokenizer": ["evil.T", "evil.T"]})
    result = hone("train", "cfg.yaml")
    assert not marker.exists()
    if result.exit_code:  # a tokenizer of a known kind is read without its code
        refused(result, "trust_remote_code")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth"])
def test_pickled_weights_are_named_and_not_read(project: Path, hone: Hone, refused: Refused, name: str) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.write_text, (project / "ran.txt", "ran"))

    (project / "model" / "model.safetensors").unlink()
    (project / "model" / name).write_bytes(pickle.dumps(Evil()))
    refused(hone("train", "cfg.yaml"), name, "pickle is never loaded")
    assert not (project / "ran.txt").exists()


def header(about: dict[str, Any], length: int | None = None) -> bytes:
    text = json.dumps(about).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text


@pytest.mark.parametrize(
    "content",
    [
        header({}, 100_000_001) + b" " * 100,
        header({}, 2**63),
        header({name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in "ab"}) + b"\0" * 8,
        header({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}}) + b"\0" * 8,
        header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}) + b"\0" * 8,
        struct.pack("<Q", 200_000) + b"[" * 200_000,
    ],
    ids=["header-of-100-MB", "header-of-2-to-the-63", "overlapping", "shape-overflows", "backwards", "nested"],
)
def test_safetensors_with_a_hostile_header(project: Path, hone: Hone, refused: Refused, content: bytes) -> None:
    (project / "model" / "model.safetensors").write_bytes(content)
    refused(hone("generate", "model", "--prompt", "Hi"), "model")


@pytest.mark.parametrize("base", ["https://example.org/a/model", "../../../../../../etc", "/etc", "file:///etc/passwd"])
def test_an_adapter_that_points_elsewhere(project: Path, hone: Hone, refused: Refused, base: str) -> None:
    adapter = project / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base, "peft_type": "LORA"}))
    (adapter / "adapter_model.safetensors").write_bytes(header({}))
    refused(hone("generate", "adapter", "--prompt", "Hi"), "adapter", base)


def test_a_tokenizer_that_takes_all_memory(project: Path, hone: Hone, refused: Refused) -> None:
    with (project / "model" / "tokenizer.json").open("wb") as file:
        file.truncate(1 << 30)  # a hole: nothing is written
    refused(hone("prepare", "cfg.yaml"), "model/tokenizer.json", "64 MiB")


def test_a_tokenizer_nested_without_end(project: Path, hone: Hone, refused: Refused) -> None:
    rules = json.loads((project / "model" / "tokenizer.json").read_text())
    text = json.dumps({**rules, "normalizer": "HERE"})
    deep = '{"type": "Sequence", "normalizers": [' * 5_000 + "]}" * 5_000
    (project / "model" / "tokenizer.json").write_text(text.replace('"HERE"', deep))
    refused(hone("prepare", "cfg.yaml"), "model", "cannot load the tokenizer")


def replaced(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"normalizer": {"type": "Sequence", "normalizers": [replaced("a", "aa")] * 40}}, "for a text of a few words"),
        ({"normalizer": replaced("a", "a" * 100_000)}, "100,000 tokens"),
        ({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"}}}, "breaks down on ordinary text"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": ""}}, "cannot load the tokenizer"),
        ({"padding": {"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_token": "a"}}, "MiB of memory"),
    ],
    ids=["doubles", "expands", "goes-back", "panics", "pads"],
)
def test_a_tokenizer_whose_rules_do_not_end(
    project: Path, hone: Hone, refused: Refused, rules: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hone.data.tokenizer_trial.CPU_SECONDS", 1)
    whole = {"behavior": "Isolated", "invert": False}
    for part in rules.values():
        part |= whole if part.get("type") == "Split" else {}
        part |= {"pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0} if "strategy" in part else {}
    change(project / "model" / "tokenizer.json", **rules)
    refused(hone("prepare", "cfg.yaml"), "model/tokenizer.json", words)


@pytest.mark.parametrize("place", ["hub", "folder"])
def test_rules_are_tried_before_they_are_loaded(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Also those of the hub, and those under the name of a version, which transformers prefers."""
    model, cache = project / "model", tmp_path / "cache" / "models--me--it"
    bomb = {"normalizer": replaced("a", "a" * 100_000)}
    name = str(model)
    if place == "folder":
        (model / "tokenizer.4.0.0.json").write_bytes((model / "tokenizer.json").read_bytes())
        change(model / "tokenizer.4.0.0.json", **bomb)
        change(model / "tokenizer_config.json", fast_tokenizer_files=["tokenizer.4.0.0.json", "tokenizer.json"])
    else:
        change(model / "tokenizer.json", **bomb)
        shutil.copytree(model, cache / "snapshots" / "abc")
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text("abc")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache.parent))
        name = "me/it"

    def loaded(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("it was loaded before it was tried")

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", loaded)
    with pytest.raises(HoneError, match="100,000 tokens") as error:
        load_tokenizer(name)
    assert ("tokenizer.json" if place == "hub" else "tokenizer.4.0.0.json") in str(error.value.where)
