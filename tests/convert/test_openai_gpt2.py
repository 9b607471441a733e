"""OpenAI's raw GPT-2 files: a checkpoint that TensorFlow wrote, read without it, and every way to spoil one.

tests/fixtures/openai-gpt2-tiny holds the files, the SHA-256 of each variable and the logits that TensorFlow computed
(tests/fixtures/make_openai_checkpoint.py). Tolerance of logits: 1e-4 in float32, two implementations apart.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from hone.cli import app
from hone.convert.openai_gpt2 import NEEDED, checkpoint_prefix, convert, read_hparams, read_model, variables
from hone.convert.tensorbundle import crc32c, masked, open_bundle, read_tensor
from hone.errors import HoneError
from hone.models.gpt2 import GPT2, SIZES
from hone.models.source import check_source

RAW = Path(__file__).parents[1] / "fixtures" / "openai-gpt2-tiny"
EXPECTED = json.loads((RAW / "expected.json").read_text())
DATA = "model.ckpt.data-00000-of-00001"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A copy of the files, to be spoilt."""
    shutil.copytree(RAW, tmp_path / "raw")
    return tmp_path / "raw"


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("converted") / "tiny"
    convert(RAW, target)
    return target


# --- the checkpoint --------------------------------------------------------------------------------------------------


def test_every_variable_is_bit_for_bit_what_tensorflow_had() -> None:
    bundle = open_bundle(RAW / "model.ckpt")
    assert bundle.entries.keys() == EXPECTED["sha256"].keys()
    for name, digest in EXPECTED["sha256"].items():
        assert hashlib.sha256(read_tensor(bundle, name).tobytes()).hexdigest() == digest, name
    assert read_tensor(bundle, "model/h1/mlp/c_fc/w").shape == (1, 48, 192)


def test_logits_are_those_of_tensorflow(converted: Path) -> None:
    from transformers import AutoModelForCausalLM

    ids, expected = torch.tensor(EXPECTED["ids"]), torch.from_numpy(np.load(RAW / "expected.npy"))
    mine, _ = read_model(RAW, read_hparams(RAW / "hparams.json"))
    theirs = AutoModelForCausalLM.from_pretrained(converted).eval()
    with torch.no_grad():
        for logits in (mine(ids), theirs(ids).logits):
            assert logits.shape == expected.shape == (2, 20, 300)
            assert float((logits - expected).abs().max()) <= 1e-4
    assert float(expected.std()) > 1, "logits of no size would agree with anything"


@pytest.mark.parametrize("size", SIZES)
def test_names_and_shapes_of_the_released_sizes(size: str) -> None:
    found = list(variables(SIZES[size]))
    with torch.device("meta"):
        wanted = {name: tuple(tensor.shape) for name, tensor in GPT2(SIZES[size]).state_dict().items()}
    assert {ours: shape[-2:] for _, ours, shape in found} == wanted
    assert len(found) == len(wanted) == 4 + 12 * SIZES[size].n_layer
    theirs = {name: shape for name, _, shape in found}
    width = SIZES[size].n_embd
    assert theirs["model/wte"] == (50257, width)
    assert theirs["model/h11/attn/c_attn/w"] == (1, width, 3 * width)
    assert theirs["model/h0/mlp/c_proj/w"] == (1, 4 * width, width)
    assert theirs["model/ln_f/g"] == (width,)


# --- CRC and table ---------------------------------------------------------------------------------------------------


def test_crc32c_of_published_examples() -> None:
    """RFC 3720, appendix B.4, and the customary check value."""
    for data, crc in {
        b"": 0,
        b"123456789": 0xE3069283,
        bytes(32): 0x8A9136AA,
        b"\xff" * 32: 0x62A8AB43,
        bytes(range(32)): 0x46DD794E,
        bytes(range(31, -1, -1)): 0x113FDB5C,
    }.items():
        assert crc32c(data) == crc, data
    assert masked(0) == 0xA282EAD8


@pytest.mark.parametrize("size", [1, 16_383, 16_384, 32_767, 32_768, 32_769, 49_152, 70_001])
def test_crc32c_of_large_data_is_that_of_its_bytes_one_by_one(size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size).astype(np.uint8)
    crc = 0xFFFFFFFF
    for byte in data.tobytes():
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    assert crc32c(data) == crc32c(data.tobytes()) == crc ^ 0xFFFFFFFF


def number(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + number(value >> 7)


def block(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """A block and its trailer; keys share their beginnings with the key before."""
    body, before = b"", b""
    for key, value in pairs:
        shared = next((i for i in range(min(len(key), len(before))) if key[i] != before[i]), min(len(key), len(before)))
        body += number(shared) + number(len(key) - shared) + number(len(value)) + key[shared:] + value
        before = key
    body += bytes(4) + (1).to_bytes(4, "little") + b"\0"
    return body + masked(crc32c(body)).to_bytes(4, "little")


def table(blocks: list[list[tuple[bytes, bytes]]]) -> bytes:
    data, handles = b"", []
    for pairs in blocks:
        written = block(pairs)
        handles.append((pairs[-1][0], number(len(data)) + number(len(written) - 5)))
        data += written
    footer = b""
    for written in (block([]), block(handles)):
        footer += number(len(data)) + number(len(written) - 5)
        data += written
    return data + footer.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")


def test_a_table_of_several_blocks_and_data_files(tmp_path: Path) -> None:
    values = {f"scope/number_{i:03}": np.arange(i % 5, dtype=np.int64) * i for i in range(300)}
    shards = [b"", b""]
    entries = []
    for i, (name, value) in enumerate(values.items()):
        raw, shard = value.tobytes(), i % 2
        shape = (
            b"\x12" + number(1 + len(number(len(value)))) + b"\x08" + number(len(value)) if len(value) else b"\x12\0"
        )
        fields = b"\x08\x09\x12" + number(len(shape)) + shape + b"\x18" + number(shard)
        fields += b"\x20" + number(len(shards[shard])) + b"\x28" + number(len(raw))
        entries.append((name.encode(), fields + b"\x35" + masked(crc32c(raw)).to_bytes(4, "little")))
        shards[shard] += raw
    header = (b"", b"\x08\x02\x1a\x02\x08\x01")
    (tmp_path / "m.index").write_bytes(table([[header, *entries[:100]], entries[100:101], entries[101:]]))
    for i, data in enumerate(shards):
        (tmp_path / f"m.data-0000{i}-of-00002").write_bytes(data)
    bundle = open_bundle(tmp_path / "m")
    assert bundle.n_shards == 2
    assert list(bundle.entries) == list(values)
    for name, value in values.items():
        assert np.array_equal(read_tensor(bundle, name), value)


# --- convert ---------------------------------------------------------------------------------------------------------


def test_convert_writes_a_model_folder_that_says_what_it_is(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["convert", str(RAW), str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "72,576 parameters" in result.stdout
    assert "n_layer 2" in result.stdout
    assert re.search(r"largest difference \d\.\de-0[5-9]", result.stdout), result.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"], "nothing is left beside it"
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["vocab_size"], config["n_positions"], config["eos_token_id"]) == (300, 32, 299)


def test_convert_as_json_and_what_was_converted_generates(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["convert", str(RAW), str(tmp_path / "out"), "--json"])
    assert json.loads(result.stdout)["n_parameters"] == 72_576
    result = CliRunner().invoke(app, ["generate", str(tmp_path / "out"), "-p", "the area", "--max-new-tokens", "4"])
    assert result.exit_code == 0, result.output


def test_an_optimizers_variables_are_passed_over(raw: Path, tmp_path: Path) -> None:
    bundle = open_bundle(raw / "model.ckpt")
    pairs = read_pairs(raw / "model.ckpt.index")
    slot = dict(pairs)[b"model/wte"]
    pairs = sorted([*pairs, (b"beta1_power", slot), (b"model/h1/ln_1/b/Adam", slot), (b"model/wte/Adam_1", slot)])
    (raw / "model.ckpt.index").write_bytes(table([pairs]))
    assert len(open_bundle(raw / "model.ckpt").entries) == len(bundle.entries) + 3
    done = convert(raw, tmp_path / "out")
    assert done.n_ignored == 3


def read_pairs(path: Path) -> list[tuple[bytes, bytes]]:
    from hone.convert.tensorbundle import _table

    return list(_table(path.read_bytes()))


def test_the_checkpoint_is_found_without_its_absolute_path(raw: Path) -> None:
    (raw / "checkpoint").write_text('model_checkpoint_path: "/home/somebody/run1/model.ckpt"\n')
    assert checkpoint_prefix(raw) == raw / "model.ckpt"
    (raw / "checkpoint").unlink()
    (raw / "model.ckpt.meta").unlink()
    assert checkpoint_prefix(raw) == raw / "model.ckpt"
    shutil.copy(raw / "model.ckpt.index", raw / "model-2.index")
    with pytest.raises(HoneError, match=r"2 checkpoints here: model-2, model\.ckpt"):
        checkpoint_prefix(raw)


def test_raw_files_given_as_a_model_say_what_to_do(raw: Path) -> None:
    with pytest.raises(HoneError, match=r"raw GPT-2 files(.|\n)*hone convert"):
        check_source(str(raw))


# --- spoilt files ----------------------------------------------------------------------------------------------------


def rewrite(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes())) and None  # type: ignore[func-returns-value]


def flip(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def hparams(**changes: Any) -> Callable[[Path], None]:
    def change(data: bytes) -> bytes:
        found = {key: value for key, value in {**json.loads(data), **changes}.items() if value is not None}
        return json.dumps(found).encode()

    return rewrite("hparams.json", change)


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


SPOILT: dict[str, tuple[Callable[[Path], None], str]] = {
    "no hparams": (remove("hparams.json"), "no hparams.json"),
    "no encoder": (remove("encoder.json"), "no encoder.json"),
    "no merges": (remove("vocab.bpe"), "no vocab.bpe"),
    "no index": (remove("model.ckpt.index"), r"model\.ckpt\.index: no such file"),
    "no data": (remove(DATA), rf"{DATA}: no such file"),
    "data cut": (rewrite(DATA, lambda data: data[:-1]), "cut short"),
    "data empty": (rewrite(DATA, lambda data: b""), "cut short"),
    "data flipped": (rewrite(DATA, flip(123_457)), "is damaged: its CRC differs"),
    "index cut": (rewrite("model.ckpt.index", lambda data: data[:-1]), "not the index"),
    "index empty": (rewrite("model.ckpt.index", lambda data: b""), "not the index"),
    "index begins late": (rewrite("model.ckpt.index", lambda data: data[9:]), "damaged index"),
    "index flipped": (rewrite("model.ckpt.index", flip(40)), "damaged index: the CRC of the block"),
    "handles flipped": (rewrite("model.ckpt.index", flip(-45)), "damaged index"),
    "index of text": (rewrite("model.ckpt.index", lambda data: b"404: Not Found\n" * 9), "not the index"),
    "another checkpoint named": (
        rewrite("checkpoint", lambda data: b'model_checkpoint_path: "model-9"'),
        r"model-9\.index: no such file",
    ),
    "checkpoint names none": (rewrite("checkpoint", lambda data: b"<html>"), "names no checkpoint"),
    "hparams no JSON": (rewrite("hparams.json", lambda data: b"n_vocab=300"), "not readable as JSON"),
    "hparams a list": (rewrite("hparams.json", lambda data: b"[]"), "n_vocab is missing"),
    "a size missing": (hparams(n_ctx=None), "n_ctx is missing"),
    "a size of text": (hparams(n_ctx="32"), "n_ctx is '32', expected a whole number"),
    "a size of zero": (hparams(n_head=0), "n_head is 0"),
    "heads that do not divide": (hparams(n_head=5), "n_embd 48 cannot be shared"),
    "wider": (hparams(n_embd=96), r"model/wte is \(300, 48\), expected \(300, 96\)"),
    "longer": (hparams(n_ctx=64), r"model/wpe is \(32, 48\), expected \(64, 48\)"),
    "deeper": (hparams(n_layer=3), "2 blocks here, n_layer 3"),
    "shallower": (hparams(n_layer=1), "2 blocks here, n_layer 1"),
    "encoder no JSON": (rewrite("encoder.json", lambda data: data[:-5]), "encoder.json"),
    "encoder too large": (
        rewrite("encoder.json", lambda data: json.dumps({**json.loads(data), "more": 300}).encode()),
        "encoder.json has 301 tokens, the model 300",
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_spoilt_files_give_one_clear_message_and_leave_nothing(case: str, raw: Path, tmp_path: Path) -> None:
    spoil, message = SPOILT[case]
    spoil(raw)
    result = CliRunner().invoke(app, ["convert", str(raw), str(tmp_path / "out")])
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("error: "), result.stderr
    assert re.search(message, result.stderr), result.stderr
    assert len(result.stderr.splitlines()) <= 5, "with a loop to fetch what is missing"
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_variables_of_another_kind_are_refused(raw: Path) -> None:
    """An entry's first byte pair is its type: float16 (19) in place of float32 (1), then a missing variable."""
    pairs = dict(read_pairs(raw / "model.ckpt.index"))
    half = {**pairs, b"model/wpe": b"\x08\x13" + pairs[b"model/wpe"][2:]}
    without = {name: value for name, value in pairs.items() if name != b"model/ln_f/b"}
    string = {**pairs, b"model/wpe": b"\x08\x07" + pairs[b"model/wpe"][2:]}
    sliced = {**pairs, b"model/wpe": pairs[b"model/wpe"] + b"\x3a\x00"}
    small = {**pairs, b"model/wpe": pairs[b"model/wpe"].replace(b"\x08\x20", b"\x08\x21")}
    sizes = read_hparams(raw / "hparams.json")
    for changed, message in ((half, "of TensorFlow's type 19"), (without, "has no model/ln_f/b")):
        (raw / "model.ckpt.index").write_bytes(table([sorted(changed.items())]))
        with pytest.raises(HoneError, match=message):
            read_model(raw, sizes)
    for changed, message in ((string, "type 7"), (sliced, "saved in slices"), (small, "6144 bytes, its shape")):
        (raw / "model.ckpt.index").write_bytes(table([sorted(changed.items())]))
        with pytest.raises(HoneError, match=message):
            read_tensor(open_bundle(raw / "model.ckpt"), "model/wpe")
    with pytest.raises(HoneError, match="no variable 'model/h9'"):
        read_tensor(open_bundle(raw / "model.ckpt"), "model/h9")


def test_no_flipped_bit_of_the_index_passes_or_crashes(raw: Path) -> None:
    """Every byte of the index, one bit each: refused by a HoneError, or of no consequence (padding)."""
    whole = (raw / "model.ckpt.index").read_bytes()
    entries = open_bundle(raw / "model.ckpt").entries
    harmless = 0
    for at in range(len(whole)):
        (raw / "model.ckpt.index").write_bytes(flip(at)(whole))
        try:
            assert open_bundle(raw / "model.ckpt").entries == entries, at
            harmless += 1
        except HoneError:
            continue
    assert harmless <= 60, "only the footer's padding and the handle of the unused block may change unseen"


def test_a_target_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    for target in (tmp_path / "out", tmp_path / "out" / "mine.txt"):
        with pytest.raises(HoneError, match="exists already"):
            convert(RAW, target)
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"
    (tmp_path / "empty").mkdir()
    assert convert(RAW, tmp_path / "empty").folder == tmp_path / "empty"
    with pytest.raises(HoneError, match="a model folder already"):
        convert(tmp_path / "empty", tmp_path / "again")
    with pytest.raises(HoneError, match="no such folder"):
        convert(tmp_path / "nowhere", tmp_path / "again")


def test_a_model_that_loads_back_differently_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the file had been written wrong: one weight of the saved model is another."""
    import safetensors.torch

    def spoilt(weights: Any, path: Any, **options: Any) -> None:
        weights = {
            **weights,
            "transformer.h.1.attn.c_proj.weight": weights["transformer.h.0.attn.c_proj.weight"].clone(),
        }
        original(weights, path, **options)

    original = safetensors.torch.save_file
    monkeypatch.setattr(safetensors.torch, "save_file", spoilt)
    with pytest.raises(HoneError, match="answers differently"):
        convert(RAW, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_weights_that_are_no_numbers_are_refused(raw: Path, tmp_path: Path) -> None:
    bundle = open_bundle(raw / "model.ckpt")
    entry = bundle.entries["model/ln_f/b"]
    data = bytearray((raw / DATA).read_bytes())
    data[entry.offset : entry.offset + 4] = np.float32("nan").tobytes()
    (raw / DATA).write_bytes(data)
    pairs = dict(read_pairs(raw / "model.ckpt.index"))
    crc = masked(crc32c(bytes(data[entry.offset : entry.offset + entry.size])))
    pairs[b"model/ln_f/b"] = pairs[b"model/ln_f/b"][:-4] + crc.to_bytes(4, "little")
    (raw / "model.ckpt.index").write_bytes(table([sorted(pairs.items())]))
    with pytest.raises(HoneError, match="not numbers"):
        convert(raw, tmp_path / "out")


def test_where_the_files_are_is_said_where_they_are_missing(tmp_path: Path) -> None:
    """Address, sizes and a loop that fetches all seven files of the model that the folder is named after."""
    for name, gigabytes in {"124M": "498 MB", "355M": "1.42 GB", "774M": "3.10 GB", "1558M": "6.23 GB"}.items():
        with pytest.raises(HoneError, match="no such folder") as caught:
            convert(tmp_path / name, tmp_path / "out")
        fix = str(caught.value.fix)
        assert (
            f"{name} ({gigabytes})" in fix
            and f"https://openaipublic.blob.core.windows.net/gpt-2/models/{name}/$f" in fix
        )
        loop = re.search(r"for f in (.+); do", fix)
        assert loop and set(loop[1].split()) >= {*NEEDED, "checkpoint", DATA, "model.ckpt.index"}
    (tmp_path / "my files").mkdir()
    with pytest.raises(HoneError, match=r"no hparams\.json") as caught:
        convert(tmp_path / "my files", tmp_path / "out")
    assert "'/$f" in str(caught.value.fix), "the folder is quoted for the shell"
