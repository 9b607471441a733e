"""GGUF files: read back they are the model that was written, by transformers and, where it is there, by llama.cpp."""

import json
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader, GGUFWriter
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

import hone
from conftest import pairs
from hone.cli import app
from hone.convert import gguf_check, gguf_weights
from hone.convert.gguf_check import BARS, Item, check_gguf, greedy
from hone.convert.gguf_export import export_gguf
from hone.convert.gguf_file import Prompt, write_gguf
from hone.convert.gguf_tokenizer import CONTROL, LLAMA3, QWEN2, UNUSED, describe
from hone.convert.hostile_strings import hostile_strings
from hone.convert.llama_reader import installed
from hone.errors import HoneError
from hone.verify import verify

with_llama = pytest.mark.skipif(not installed(), reason="llama-cpp-python is not installed (the extra gguf-check)")
CORPUS = [
    "def add(a, b):\n    return a + b  # größe 123\n",
    "It's the time of the fox, isn't it?",
    "你好 世界 e\u0301",
] * 9
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
RULES: dict[str, Any] = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "qwen2": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"), BYTES]),
    "llama-bpe": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), BYTES]),
}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def bpe(pre: Any, normalizer: Any = None, special: list[str] | None = None, **options: Any) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 400 tokens that cuts words as it is told."""
    backend = Tokenizer(models.BPE(**options))
    backend.pre_tokenizer, backend.decoder = pre, decoders.ByteLevel()
    if normalizer is not None:
        backend.normalizer = normalizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = SPECIAL if special is None else special
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=names, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer=trainer)
    end = names[0] if names else None
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=end, bos_token=end)


def items(tokenizer: Any, n: int = 3) -> list[Item]:
    ids = tokenizer(" ".join(CORPUS[:6])).input_ids
    return [Item(ids[i : i + 40], [False] * 5 + [True] * 35) for i in range(n)]


def written(tmp_path: Path, model: Any, tokenizer: Any, kind: str = "f32") -> Path:
    path = tmp_path / f"m-{kind}.gguf"
    vocabulary = describe(tokenizer, model.get_input_embeddings().num_embeddings)
    write_gguf(model, vocabulary, path, kind, Prompt("{{ messages[-1]['content'] }}", False), name="m")
    return path


def check(path: Path, kind: str, model: Any, tokenizer: Any, n_hostile: int = 200) -> gguf_check.Checked:
    vocabulary = describe(tokenizer, model.get_input_embeddings().num_embeddings)
    return check_gguf(path, kind, model, tokenizer, vocabulary, items(tokenizer), n_hostile)


# ---- tokenizers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pre", RULES)
def test_the_word_rule_is_read_from_the_structure(pre: str) -> None:
    tokenizer = bpe(RULES[pre])
    found = describe(tokenizer, 410)
    assert (found.pre, found.nfc, len(found.tokens)) == (pre, False, 410)
    assert found.tokens[405] == "[PAD405]" and found.kinds[405] == UNUSED
    assert [found.kinds[i] for i in range(3)] == [CONTROL] * 3 and found.ids == {"bos": 0, "eos": 0}
    assert found.also_ends == ["<|im_end|>"]
    assert found.merges and all(pair.count(" ") == 1 for pair in found.merges)
    for token, i in tokenizer.get_vocab().items():
        assert found.tokens[i] == token


def test_a_tokenizer_that_composes_characters_is_told() -> None:
    assert describe(bpe(RULES["qwen2"], normalizers.NFC()), 400).nfc
    with pytest.raises(HoneError, match="changes texts first"):
        describe(bpe(RULES["gpt-2"], normalizers.NFC()), 400)


@pytest.mark.parametrize(
    ("tokenizer", "says"),
    [
        (lambda: bpe(RULES["qwen2"], normalizers.NFKC()), "changes texts first .NFKC"),
        (lambda: bpe(pre_tokenizers.ByteLevel(add_prefix_space=True)), "a rule that llama.cpp has no name for"),
        (lambda: bpe(pre_tokenizers.Metaspace()), "no name for .Metaspace"),
        (lambda: bpe(pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"\d"), "isolated"), BYTES])), "no name for"),
        (lambda: bpe(pre_tokenizers.Sequence([pre_tokenizers.Digits(), RULES["gpt-2"]])), "no name for"),
        (lambda: bpe(RULES["gpt-2"], byte_fallback=True), "BPE has byte_fallback"),
        (lambda: bpe(RULES["gpt-2"], special=["<|endoftext|>", "[PAD401]"]), "two ids are spelled '.PAD401.'"),
    ],
)
def test_what_llama_cpp_has_no_word_for_is_refused(tokenizer: Callable[[], Any], says: str) -> None:
    with pytest.raises(HoneError, match=says) as caught:
        describe(tokenizer(), 410)
    assert "convert_hf_to_gguf.py" in str(caught.value) or "hone or transformers" in str(caught.value)


def test_words_of_another_kind_are_refused() -> None:
    backend = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0))
    with pytest.raises(HoneError, match="of the kind Unigram"):
        describe(PreTrainedTokenizerFast(tokenizer_object=backend), 2)


def test_an_ordinary_token_with_the_name_of_an_end_is_refused() -> None:
    tokenizer = bpe(RULES["gpt-2"])
    tokenizer.add_tokens(["</s>"])
    with pytest.raises(HoneError, match=r"the ordinary token '</s>': llama.cpp ends every answer at it"):
        describe(tokenizer, 410)
    from tokenizers import AddedToken

    tokenizer = bpe(RULES["gpt-2"])
    tokenizer.add_tokens([AddedToken("<note>", lstrip=True)])
    with pytest.raises(HoneError, match="'<note>' has lstrip"):
        describe(tokenizer, 410)


def test_the_token_that_ends_a_turn_is_told() -> None:
    tokenizer = bpe(RULES["gpt-2"])
    assert describe(tokenizer, 400, "<|im_end|>").ids == {"bos": 0, "eos": 0, "eot": 2}
    assert describe(tokenizer, 400, "<|im_end|>").also_ends == []
    for other in ("<|endoftext|>", "</turn>", ""):
        assert "eot" not in describe(tokenizer, 400, other).ids


def test_hostile_strings_are_many_and_the_same() -> None:
    found = hostile_strings(2000)
    assert found == hostile_strings(2000) and len(set(found)) > 1900
    kinds = {unicodedata.category(letter) for text in found for letter in text}
    assert {"Cc", "Cf", "Mn", "Lo", "So", "Nd", "Zs", "Zl", "Co"} <= kinds
    for text in found:
        text.encode()


# ---- weights ---------------------------------------------------------------------------------------------------------

ARCHITECTURES: list[tuple[str, dict[str, Any]]] = [
    ("gpt2", {}),
    ("gpt2", {"tie_word_embeddings": False, "vocab_size": 410}),
    ("llama", {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "hidden_size": 64}),
    ("llama", {"tie_word_embeddings": True, "head_dim": 8, "num_key_value_heads": 2}),
    ("qwen2", {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 64}),
]


@pytest.fixture
def without_llama(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_check, "installed", lambda: False)


@pytest.mark.parametrize(("kind", "options"), ARCHITECTURES)
def test_transformers_reads_the_same_weights(
    kind: str, options: Any, tmp_path: Path, tiny_model: Any, tokenizer: Any, without_llama: None
) -> None:
    model = tiny_model(kind, **options)
    found = check(written(tmp_path, model, tokenizer), "f32", model, tokenizer)
    assert found.largest <= 1e-5 and found.kl <= 1e-9 and found.agree == 1
    assert found.n_equal_greedy == found.n_greedy == 3 and not found.whole
    has_output = "output.weight" in {tensor.name for tensor in GGUFReader(tmp_path / "m-f32.gguf").tensors}
    assert has_output == (not model.config.tie_word_embeddings)


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0"])
def test_smaller_kinds_lose_what_they_may(
    kind: str, tmp_path: Path, tiny_model: Any, tokenizer: Any, without_llama: None
) -> None:
    model = tiny_model("llama", hidden_size=64, num_attention_heads=4, num_key_value_heads=2, head_dim=16)
    path = written(tmp_path, model, tokenizer, kind)
    found = check(path, kind, model, tokenizer)
    assert found.largest > 0 and found.kl <= (BARS[kind].kl or 1e-3)
    types = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(path).tensors}
    assert types["blk.0.attn_q.weight"] == kind.upper() and types["blk.0.attn_norm.weight"] == "F32"


def test_rows_that_do_not_fill_a_block_are_f16(tmp_path: Path, tiny_model: Any, tokenizer: Any) -> None:
    model = tiny_model("gpt2", n_embd=48, n_head=4)
    types = {t.name: t.tensor_type.name for t in GGUFReader(written(tmp_path, model, tokenizer, "q8_0")).tensors}
    assert types["blk.0.attn_qkv.weight"] == "F16" and types["blk.0.ffn_down.weight"] == "Q8_0"
    assert types["position_embd.weight"] == "F32"


def test_a_value_beyond_f16_is_refused(tmp_path: Path, tiny_model: Any, tokenizer: Any) -> None:
    model = tiny_model("gpt2")
    with torch.no_grad():
        model.transformer.h[0].mlp.c_fc.weight[0, 0] = 1e6
    with pytest.raises(HoneError, match=r"blk.0.ffn_up.weight has a value of 1000000.*") as caught:
        written(tmp_path, model, tokenizer, "f16")
    assert "bf16" in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("gpt_neox", {}, "type 'gpt_neox' is not written"),
        ("gpt2", {"activation_function": "relu"}, "activation_function is 'relu'"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "type 'linear'"),
        ("llama", {"attention_bias": True, "mlp_bias": True}, None),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window is True"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(
    kind: str, options: Any, says: str | None, tmp_path: Path, tiny_model: Any, tokenizer: Any
) -> None:
    model = tiny_model(kind, **options)
    if says is None:  # biases have their places
        assert written(tmp_path, model, tokenizer).is_file()
        return
    with pytest.raises(HoneError, match=says) as caught:
        written(tmp_path, model, tokenizer)
    assert "convert_hf_to_gguf.py" in str(caught.value)


def test_rows_in_the_wrong_order_are_caught(
    tmp_path: Path, tiny_model: Any, tokenizer: Any, without_llama: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader undoes what the writer should have done."""
    monkeypatch.setattr(gguf_weights, "neighbours", lambda values, n_heads: values)
    model = tiny_model("llama")
    path = written(tmp_path, model, tokenizer)
    with pytest.raises(HoneError, match="the file answers differently: a logit differs by up to"):
        check(path, "f32", model, tokenizer)


def test_greedy_is_the_likeliest_token_again_and_again(tiny_model: Any) -> None:
    model = tiny_model("qwen2")
    ids = [5, 9, 3]
    for token in greedy(model, ids, 4):
        assert token == int(model(torch.tensor([ids])).logits[0, -1].argmax())
        ids = [*ids, token]


# ---- llama.cpp -------------------------------------------------------------------------------------------------------


@with_llama
@pytest.mark.parametrize(("kind", "options"), [ARCHITECTURES[0], ARCHITECTURES[2], ARCHITECTURES[4]])
def test_llama_cpp_answers_as_the_model_does(
    kind: str, options: Any, tmp_path: Path, tiny_model: Any, tokenizer: Any
) -> None:
    model = tiny_model(kind, **options)
    found = check(written(tmp_path, model, tokenizer), "f32", model, tokenizer, 300)
    assert found.whole and found.n_texts == 303
    assert found.largest <= 2e-3 and found.kl <= 1e-6 and found.n_equal_greedy + found.n_ties == 3


@with_llama
@pytest.mark.parametrize("pre", RULES)
def test_llama_cpp_cuts_texts_as_the_tokenizer_does(pre: str, tmp_path: Path, tiny_model: Any) -> None:
    tokenizer = bpe(RULES[pre], normalizers.NFC() if pre == "qwen2" else None)
    model = tiny_model("qwen2", vocab_size=len(tokenizer))
    assert check(written(tmp_path, model, tokenizer), "f32", model, tokenizer, 1000).n_texts == 1003


@with_llama
def test_another_word_rule_is_caught_by_the_ids(tmp_path: Path, tiny_model: Any) -> None:
    """A file that names Qwen2's rule for a vocabulary of GPT-2's."""
    tokenizer = bpe(RULES["gpt-2"])
    model = tiny_model("gpt2", vocab_size=len(tokenizer))
    path = written(tmp_path, model, tokenizer)
    path.write_bytes(path.read_bytes().replace(b"gpt-2", b"qwen2"))
    with pytest.raises(HoneError, match=r"llama.cpp cuts .* differently: at token"):
        check(path, "f32", model, tokenizer)


@with_llama
@pytest.mark.slow
def test_the_benchmark_prints_its_table() -> None:
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "benchmarks/gguf_round_trip.py", "--only", "llama", "--hostile", "150"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines()[2:]]
    assert [row[1] for row in rows] == ["f32", "f16", "bf16", "q8_0"] and {row[2] for row in rows} == {"162 of 162"}


@with_llama
def test_a_file_that_ends_llama_cpp_is_refused(tmp_path: Path, tiny_model: Any, tokenizer: Any) -> None:
    model = tiny_model("gpt2")
    path = written(tmp_path, model, tokenizer)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(HoneError, match=r"llama.cpp does not read the file"):
        check(path, "f32", model, tokenizer)


# ---- hone export --to gguf -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    """A full run and a LoRA run of a few steps."""
    folder = tmp_path_factory.mktemp("runs")
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in pairs(30)))
    for method in ("full", "lora"):
        hone.train(
            {
                "model_name_or_path": str(model_folder),
                "train_file": str(rows),
                "validation_split_percentage": 30,
                "template": "instruction",
                "max_length": 64,
                "method": method,
                "lora_r": 4,
                "learning_rate": 2e-2,
                "max_steps": 4,
                "save_strategy": "no",
                "sample_prompts": 0,
                "output_dir": str(folder / method),
            }
        )
    return folder


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["export", *arguments])


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_becomes_a_checked_file(method: str, runs: Path, tmp_path: Path, without_llama: None) -> None:
    done = invoke(str(runs / method), "--to", "gguf", "-o", str(tmp_path / "out-gguf"), "--dtype", "float32", "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert not said["verified"] and said["compared_on"] == "held-out items" and said["n_items"] > 3
    assert said["largest"] <= 1e-4 and said["template"] == "instruction"
    names = {path.name for path in (tmp_path / "out-gguf").iterdir()}
    assert names == {"out-f32.gguf", "README.md", "manifest.json"} and not list(tmp_path.glob(".*"))
    assert not verify(str(tmp_path / "out-gguf")).problems
    reader = GGUFReader(tmp_path / "out-gguf" / "out-f32.gguf")
    jinja = reader.fields["tokenizer.chat_template"].contents()
    import jinja2

    prompt = jinja2.Template(jinja).render(messages=[{"role": "user", "content": "Add 2."}])
    assert prompt == "### Instruction:\nAdd 2.\n\n### Response:\n"
    assert reader.fields["tokenizer.ggml.pre"].contents() == "gpt-2"
    card = (tmp_path / "out-gguf" / "README.md").read_text()
    assert "library_name: gguf" in card and "llama-server -m out-f32.gguf" in card and "| tuned |" in card
    assert "peft" not in card.lower() and "mean KL divergence" in card


def test_what_it_prints_says_what_was_not_verified(runs: Path, tmp_path: Path, without_llama: None) -> None:
    done = invoke(str(runs / "full"), "--to", "gguf", "-o", str(tmp_path / "out"), "--dtype", "q8_0")
    assert done.exit_code == 0, done.output
    assert "weights verified: read back by transformers" in done.stdout
    assert 'tokenizer not verified: install llama-cpp-python, pip install "hone-lm[gguf-check]"' in done.stdout


@with_llama
@pytest.mark.slow
def test_a_merged_adapter_through_llama_cpp(runs: Path, tmp_path: Path) -> None:
    done = invoke(str(runs / "lora"), "--to", "gguf", "-o", str(tmp_path / "out"), "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["verified"] and said["n_texts"] > 1000 and said["n_equal_greedy"] + said["n_ties"] == said["n_greedy"]


def test_without_rows_it_is_compared_on_texts_of_hones(
    model_folder: Path, tmp_path: Path, tokenizer: Any, without_llama: None
) -> None:
    found = export_gguf(str(model_folder), tmp_path / "out", "f32", tokenizer)
    assert "not at hand" in found.compared_on and found.checked.n_items == 6


def test_a_classifier_is_refused(tmp_path: Path, write_rows: Any, model_folder: Path) -> None:
    config = json.loads((model_folder / "config.json").read_text()) | {
        "architectures": ["GPT2ForSequenceClassification"]
    }
    for path in model_folder.iterdir():
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "labels" / "config.json").write_text(json.dumps(config))
    done = invoke(str(tmp_path / "labels"), "--to", "gguf", "-o", str(tmp_path / "out"))
    assert done.exit_code == 1 and "this is a classifier: a GGUF file is for models that continue a text" in done.stderr
    assert "hone predict" in done.stderr and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), OSError("409600 requested and 94496 written")]
)
def test_a_full_disk_leaves_nothing(
    error: OSError, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_llama: None
) -> None:
    """numpy says how much it could not write, and no number of the system's."""

    def full(self: Any, tensor: Any, tensor_endianess: Any = None) -> None:
        raise error

    monkeypatch.setattr(GGUFWriter, "write_tensor_data", full)
    done = invoke(str(model_folder), "--to", "gguf", "-o", str(tmp_path / "out"))
    assert done.exit_code == 1 and "cannot write: the disk is full" in done.stderr and "-o FOLDER" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_changed_byte_is_seen_by_verify(
    model_folder: Path, tmp_path: Path, tokenizer: Any, without_llama: None
) -> None:
    found = export_gguf(str(model_folder), tmp_path / "out", "f16", tokenizer)
    data = bytearray(found.file.read_bytes())
    data[-100] ^= 1
    found.file.write_bytes(data)
    assert len(verify(str(tmp_path / "out")).problems) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--to", "gguf", "--dtype", "q4_k"), "unknown dtype 'q4_k'"),
        (("--to", "merged", "--dtype", "q8_0"), "unknown dtype 'q8_0'"),
        (("--to", "gguf", "--repo", "me/x"), "--repo and --public are for --to hub"),
        (("--to", "hub"), "an upload needs a name on the hub"),
        (("--to", "hub", "--repo", "me/x", "-o", "out"), "an upload writes no folder"),
    ],
)
def test_options_that_do_not_go_together(arguments: tuple[str, ...], says: str, model_folder: Path) -> None:
    done = invoke(str(model_folder), *arguments)
    assert done.exit_code == 1 and says in done.stderr
