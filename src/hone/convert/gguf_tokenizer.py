"""A tokenizer as a GGUF file has it: byte-level BPE of GPT-2's, SmolLM's, Qwen2's and Llama 3's kind.

llama.cpp cuts a text into words by a rule with a name (`pre`) and knows a fixed list of rules. Which one a tokenizer
needs is read from the structure of its tokenizer.json; upstream's converter compares a hash of the ids of one text,
which no vocabulary that somebody trained can match. What cannot be said in those words is refused.

>>> describe(tokenizer, n_embeddings=8192).pre                             # doctest: +SKIP
'gpt-2'
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from hone.convert.gguf_weights import UPSTREAM
from hone.errors import HoneError

Rules = Mapping[str, Any]  # of a tokenizer.json
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
# The two expressions that llama.cpp has as rules; each is compared letter by letter.
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
EXPRESSIONS = {QWEN2: "qwen2", LLAMA3: "llama-bpe"}
# Tokens that end a generation in llama.cpp by their name alone, whatever a file says (`llama-vocab.cpp`).
ENDS_BY_NAME = frozenset({
    *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>"),
    *("<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<eos>"),
    *("<end_of_utterance>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~["),
    *("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>", "<|repo_name|>", "<fim-repo>"),
    *("<REPO>", "<reponame>", "<|file_sep|>"),
})  # fmt: skip


@dataclass(frozen=True)
class Vocabulary:
    """What the file says of the tokenizer.

    pre: llama.cpp's name of the rule that cuts words. nfc: the tokenizer composes characters (NFC) before that, which
    llama.cpp does not. tokens, kinds: by id. merges: in their order, as "a b". ids: special ones, by the file's names.
    also_ends: tokens that end a generation in llama.cpp by their names, beside the model's end token.
    """

    pre: str
    nfc: bool
    tokens: list[str]
    kinds: list[int]
    merges: list[str]
    ids: dict[str, int]
    also_ends: list[str]


def describe(tokenizer: PreTrainedTokenizerBase, n_embeddings: int, turn_end: str = "") -> Vocabulary:
    """The tokenizer as llama.cpp is told of it; ids without a token, up to `n_embeddings`, are unused.

    turn_end: what ends an answer in the chat template, if it is a token of its own.

    Raises:
        HoneError: it does something that llama.cpp has no word for.
    """
    rules = rules_of(tokenizer)
    pre, nfc = word_rule(rules)
    _check_model(rules["model"])
    tokens, kinds = _tokens(rules, n_embeddings)
    ids = _special_ids(tokenizer)
    if turn_end in tokens and kinds[tokens.index(turn_end)] == CONTROL and tokens.index(turn_end) != ids.get("eos"):
        ids["eot"] = tokens.index(turn_end)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in rules["model"]["merges"]]
    return Vocabulary(pre, nfc, tokens, kinds, merges, ids, _also_ends(tokens, kinds, ids))


def rules_of(tokenizer: PreTrainedTokenizerBase) -> Rules:
    """tokenizer.json, as it is in memory."""
    if not tokenizer.is_fast:
        raise HoneError("a tokenizer without tokenizer.json is not written as GGUF here", fix=UPSTREAM)
    rules: Rules = json.loads(tokenizer.backend_tokenizer.to_str())
    return rules


def word_rule(rules: Rules) -> tuple[str, bool]:
    """llama.cpp's name of the rule that cuts a text into words, and whether the tokenizer composes characters first."""
    if rules["model"].get("type") != "BPE":
        kind = rules["model"].get("type")
        raise HoneError(f"the tokenizer is of the kind {kind}, and only byte-level BPE is written here", fix=UPSTREAM)
    normalizer = rules.get("normalizer")
    steps = _steps(rules.get("pre_tokenizer"))
    kinds = [step.get("type") for step in steps]
    last = steps[-1] if steps else {}
    if kinds and kinds[-1] == "ByteLevel" and not last.get("add_prefix_space"):
        pre = None
        if kinds == ["ByteLevel"] and last.get("use_regex", True):
            pre = "gpt-2"
        elif kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits") and last.get("use_regex", True):
            pre = "smollm"
        elif kinds == ["Split", "ByteLevel"] and not last.get("use_regex", True) and _keeps_all(steps[0]):
            pre = EXPRESSIONS.get(steps[0]["pattern"].get("Regex", ""))
        nfc = normalizer == {"type": "NFC"} and pre == "qwen2"
        if pre is not None and (normalizer is None or nfc):
            return pre, nfc
    if normalizer is not None:
        kind = normalizer.get("type")
        raise HoneError(
            f"the tokenizer changes texts first ({kind}), which llama.cpp does not do for BPE", fix=UPSTREAM
        )
    raise HoneError(
        f"the tokenizer cuts words by a rule that llama.cpp has no name for ({' + '.join(map(str, kinds)) or 'none'})",
        fix=UPSTREAM,
    )


def _steps(pre_tokenizer: Rules | None) -> list[Rules]:
    if pre_tokenizer is None:
        return []
    if pre_tokenizer["type"] == "Sequence":
        return list(pre_tokenizer["pretokenizers"])
    return [pre_tokenizer]


def _keeps_all(split: Rules) -> bool:
    return split.get("behavior") == "Isolated" and not split.get("invert")


def _check_model(model: Rules) -> None:
    """Settings of the BPE itself that change ids and have no key in the file."""
    changes = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    if wrong := [name for name in changes if model.get(name)]:
        what = f"the tokenizer's BPE has {wrong[0]}={model[wrong[0]]!r}, which llama.cpp does not know"
        raise HoneError(what, fix=UPSTREAM)


def _tokens(rules: Rules, n_embeddings: int) -> tuple[list[str], list[int]]:
    """Spelling and kind of each id."""
    tokens = [f"[PAD{i}]" for i in range(n_embeddings)]
    kinds = [UNUSED] * n_embeddings
    for token, i in rules["model"]["vocab"].items():
        tokens[i], kinds[i] = token, NORMAL
    for added in rules.get("added_tokens", ()):
        content, i = added["content"], added["id"]
        if odd := [flag for flag in ("lstrip", "rstrip", "single_word") if added.get(flag)]:
            what = f"the added token {content!r} has {odd[0]}, which llama.cpp does not know"
            raise HoneError(what, fix=UPSTREAM)
        tokens[i], kinds[i] = content, CONTROL if added.get("special") else USER_DEFINED
    if twice := [token for token, n in Counter(tokens).items() if n > 1]:
        what = f"two ids are spelled {twice[0]!r}: llama.cpp ends itself when it reads such a vocabulary"
        raise HoneError(what, fix="use a tokenizer without that token, or use the run with hone or transformers")
    return tokens, kinds


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    found = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "padding": tokenizer.pad_token_id}
    return {name: int(value) for name, value in found.items() if isinstance(value, int)}


def _also_ends(tokens: list[str], kinds: list[int], ids: dict[str, int]) -> list[str]:
    """Special tokens that llama.cpp ends at beside the end token; an ordinary one of such a name is refused."""
    known = (ids.get("eos"), ids.get("eot"))
    named = [i for i, token in enumerate(tokens) if token in ENDS_BY_NAME and i not in known]
    if ordinary := [tokens[i] for i in named if kinds[i] != CONTROL]:
        raise HoneError(
            f"the vocabulary has the ordinary token {ordinary[0]!r}: llama.cpp ends every answer at it, by its name",
            fix="use a tokenizer without that token, or use the run with hone or transformers",
        )
    return [tokens[i] for i in named]
