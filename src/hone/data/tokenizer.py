"""Tokenizers: train one, load and save one, and turn many texts into ids fast and without surprises.

`start_ids` and `continuation_ids` are the hot path: the Rust backend's batch call, its threads, and no per-row Python
beyond it. Neither adds special tokens; begin-of-text and the end token are the encoder's business. What is said of
"byte-level" holds for GPT-2, Llama 3 and Qwen, of "SentencePiece" for Llama 1-2, Mistral, Gemma and T5.

>>> tokenizer = train_bpe(["a text", "another text"], vocab_size=270)
>>> tokenizer.decode(start_ids(tokenizer, ["a text"], special=False)[0])
'a text'
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hone import bundled
from hone.config.sections.model import ModelSection
from hone.data.tokenizer_trial import check_rules
from hone.errors import HoneError, first_line
from hone.files import disk_errors
from hone.hub import no_retries
from hone.runs import no_such_folder

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

GPT2_FILES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))  # Hugging Face's names, OpenAI's names
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "vocab.txt")
ANCHORS = ("\n", "a", ".")  # what a continued text is hung on; each works where the others melt into the text


def train_bpe(
    texts: Iterable[str], *, vocab_size: int, end_token: str = "<|endoftext|>", min_frequency: int = 2
) -> "PreTrainedTokenizerBase":
    """Train a byte-level BPE as GPT-2's: any text can be encoded, and decoding gives it back unchanged.

    The end token is id 0 and both `eos` and `bos`; there is no unknown token, and padding is left to whoever pads.
    A small corpus may yield fewer than `vocab_size` ids: `len(tokenizer)` is the truth. `texts` is read once.

    Raises:
        HoneError: `vocab_size` below 257 (the 256 bytes and the end token), or no text at all.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    if vocab_size < 257:
        raise HoneError(
            f"vocab_size={vocab_size} is too small", fix="256 bytes and the end token make 257; 512 or more is usual"
        )
    backend = _byte_level(Tokenizer(models.BPE()))
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[end_token],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),  # sorted: ids must not depend on hash order
        show_progress=False,
    )
    iterator = iter(texts)
    first = next(iterator, None)
    if first is None:
        raise HoneError("no text to train a tokenizer on")
    backend.train_from_iterator(chain([first], iterator), trainer=trainer)
    return _wrapped(backend, end_token)


def save_tokenizer(tokenizer: "PreTrainedTokenizerBase", folder: Path) -> None:
    """Write the tokenizer's files (and its chat template) so that `load_tokenizer(folder)` finds them."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save_pretrained(folder)


def load_tokenizer(
    name_or_path: str | Path, *, revision: str | None = None, trust_remote_code: bool = False
) -> "PreTrainedTokenizerBase":
    """Load a tokenizer from a folder or from the hub.

    A folder with only the two files of GPT-2's tokenizer (vocab.json and merges.txt, or OpenAI's encoder.json and
    vocab.bpe) is read as GPT-2.

    Raises:
        HoneError: nothing of the kind there, damaged files, or the hub cannot be reached.
    """
    name = bundled.resolve(str(name_or_path))
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _load_folder(folder, trust_remote_code)
    if folder.is_file():
        raise HoneError("a tokenizer is named by its folder, not by a file", where=name, fix=f"use {folder.parent}")
    if name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1:
        raise no_such_folder(name)
    advice = "check the name; without a network, download it once (`hf download NAME`) or name a local folder"
    with no_retries(name):
        if rules := _rules(name, revision):
            check_rules(rules)
        return _auto_tokenizer(name, revision, trust_remote_code, fix=bundled.suggest(name) + advice)


def tokenizer_of(section: ModelSection) -> "PreTrainedTokenizerBase":
    """The tokenizer that a config trains with: the one it names, else its model's own, of the same revision.

    Raises:
        HoneError: as `load_tokenizer`.
    """
    name, revision = section.tokenizer_name_or_path, None
    if name is None:
        name, revision = section.model_name_or_path, section.model_revision
    return load_tokenizer(str(name), revision=revision, trust_remote_code=section.trust_remote_code)


def start_ids(tokenizer: "PreTrainedTokenizerBase", texts: list[str], *, special: bool) -> list[list[int]]:
    """Ids of texts that open an example, without any special token added.

    special: True parses the tokenizer's special tokens where the text holds them (chat templates do); False takes
    them for ordinary text.
    """
    if not tokenizer.is_fast:
        return _slow_ids(tokenizer, texts, special)
    with _plain_backend(tokenizer, special) as backend:
        return _batch(backend, texts)


def continuation_ids(tokenizer: "PreTrainedTokenizerBase", texts: list[str], *, special: bool) -> list[list[int]]:
    """Ids of texts that continue another text: no mark of a beginning, no special token added.

    SentencePiece tokenizers put a space before a text that begins. There, the text is encoded behind an anchor whose
    ids are taken off again; where the two cannot be told apart the text is encoded as it is.
    """
    if not tokenizer.is_fast:
        return _slow_ids(tokenizer, texts, special)
    with _plain_backend(tokenizer, special) as backend:
        if _hung_on_anchors(backend, ["x"]) == _batch(backend, ["x"]):  # byte-level: a beginning is not marked
            return _batch(backend, texts)
        return _hung_on_anchors(backend, texts)


def adds_bos(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Does this tokenizer begin every text with its begin-of-text token, as its model was trained to expect?"""
    ids: list[int] = tokenizer("x")["input_ids"]
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]


def token_byte_lengths(tokenizer: "PreTrainedTokenizerBase", vocab_size: int) -> np.ndarray:
    """UTF-8 bytes that each token id stands for: (vocab_size,) int32, for bits per byte.

    Special tokens, and ids beyond the tokenizer's own (padded embeddings), count 0. Added tokens that are not special
    stand for their own text (GPT-NeoX has runs of spaces there). For byte-level tokenizers the sum over a text's
    ids is exactly its length; SentencePiece counts the space it puts before a beginning, one byte a text.

    Raises:
        HoneError: a tokenizer without a Rust backend, whose pieces do not say what they stand for.
    """
    from tokenizers import pre_tokenizers

    if not tokenizer.is_fast:
        raise HoneError(
            "bits per byte need a fast tokenizer", where=type(tokenizer).__name__, fix="compare by loss instead"
        )
    backend = tokenizer.backend_tokenizer
    byte_level = backend.decoder is not None and b"ByteLevel" in backend.decoder.__getstate__()  # its JSON
    alphabet = set(pre_tokenizers.ByteLevel.alphabet())
    added = backend.get_added_tokens_decoder()
    lengths = np.zeros(vocab_size, dtype=np.int32)
    for piece, token_id in backend.get_vocab(with_added_tokens=True).items():
        if token_id >= vocab_size:
            continue
        if token_id in added:
            lengths[token_id] = 0 if added[token_id].special else len(piece.encode("utf-8"))
        elif byte_level and alphabet.issuperset(piece):
            lengths[token_id] = len(piece)  # one character a byte
        else:
            lengths[token_id] = _piece_bytes(piece)
    return lengths


def _piece_bytes(piece: str) -> int:
    """
    >>> _piece_bytes("▁the"), _piece_bytes("<0x0A>"), _piece_bytes("##ing")
    (4, 1, 3)
    """
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return 1
    return len(piece.removeprefix("##").replace("▁", " ").encode("utf-8"))


def _byte_level(backend: "Tokenizer") -> "Tokenizer":
    from tokenizers import decoders, pre_tokenizers, processors

    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    return backend


def _wrapped(backend: "Tokenizer", end_token: str) -> "PreTrainedTokenizerBase":
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=end_token, bos_token=end_token, clean_up_tokenization_spaces=False
    )


def _load_folder(folder: Path, trust_remote_code: bool) -> "PreTrainedTokenizerBase":
    described = any((folder / name).is_file() for name in TOKENIZER_FILES)
    has_config = (folder / "config.json").is_file()
    for names in GPT2_FILES:
        # vocab.json and merges.txt beside a config.json may be another model's, which the config then tells
        if (
            all((folder / name).is_file() for name in names)
            and not described
            and not (has_config and names[0] == "vocab.json")
        ):
            return _load_gpt2(folder, *names)
    if not described and not has_config:
        wanted = ", ".join((TOKENIZER_FILES[0], *(" + ".join(names) for names in GPT2_FILES)))
        raise HoneError("no tokenizer in this folder", where=str(folder), fix=f"one of these is needed: {wanted}")
    if rules := _rules(str(folder), None):
        check_rules(rules)
    fix = "save it again with save_pretrained, or copy the tokenizer's files from the base model's folder"
    return _auto_tokenizer(str(folder), None, trust_remote_code, fix)


def _rules(name: str, revision: str | None) -> Path | None:
    """The file of rules that transformers would load, fetched from the hub if need be; None where there is none.

    What stands in the way of fetching it is for loading to say.
    """
    from transformers.tokenization_utils_base import get_fast_tokenizer_file
    from transformers.utils import cached_file

    file = "tokenizer.json"
    with suppress(OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError):
        settings = cached_file(name, "tokenizer_config.json", revision=revision or "main")
        file = get_fast_tokenizer_file(json.loads(Path(settings).read_text("utf-8"))["fast_tokenizer_files"])
    with suppress(OSError):
        return Path(cached_file(name, file, revision=revision or "main"))
    return None


def _load_gpt2(folder: Path, vocab_name: str, merges_name: str) -> "PreTrainedTokenizerBase":
    from tokenizers import Tokenizer, models

    try:
        backend = Tokenizer(models.BPE.from_file(str(folder / vocab_name), str(folder / merges_name)))
    except Exception as error:  # the Rust library raises nothing more precise
        raise HoneError(
            f"cannot read {vocab_name} and {merges_name}: {error}",
            where=str(folder),
            fix="one of them is damaged or was not copied whole: copy or download both again",
        ) from error
    end_token = "<|endoftext|>"
    if backend.token_to_id(end_token) is None:
        fix = "add the tokenizer.json or tokenizer_config.json of the model it belongs to"
        raise HoneError(f"not GPT-2's vocabulary: no {end_token} in {vocab_name}", where=str(folder), fix=fix)
    backend.add_special_tokens([end_token])
    return _wrapped(_byte_level(backend), end_token)


def _auto_tokenizer(name: str, revision: str | None, trust_remote_code: bool, fix: str) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(name, revision=revision or "main", trust_remote_code=trust_remote_code)
        if not isinstance(loaded.model_max_length, int | float):
            raise TypeError(f"model_max_length is {loaded.model_max_length!r:.40}, not a number")
        return loaded
    except BaseException as error:  # OSError, ValueError, KeyError, ImportError, the Rust library's Exception or panic
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        if "trust_remote_code" in str(error):
            fix = "its Python code was not run; trust_remote_code=true runs it as you: only where you have read it"
        raise HoneError(f"cannot load the tokenizer: {first_line(error)[:300]}", where=name, fix=fix) from error


def is_panic(error: BaseException) -> bool:
    """Whether it is what pyo3 makes of a panic in Rust, which is no Exception."""
    return type(error).__name__ == "PanicException"


@contextmanager
def _plain_backend(tokenizer: "PreTrainedTokenizerBase", special: bool) -> "Iterator[Tokenizer]":
    """The Rust tokenizer with nothing cut, nothing padded, and special tokens parsed or not; restored afterwards."""
    backend = tokenizer.backend_tokenizer
    before = backend.encode_special_tokens
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = not special  # True: encoded like any text
    try:
        yield backend
    finally:
        backend.encode_special_tokens = before


def _batch(backend: "Tokenizer", texts: list[str]) -> list[list[int]]:
    try:
        return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]
    except BaseException as error:
        if not is_panic(error):
            raise
        raise HoneError(
            f"the tokenizer gave up: {first_line(str(error))}",
            fix="its tokenizer.json has a rule that no text gets through",
        ) from error


def _hung_on_anchors(backend: "Tokenizer", texts: list[str]) -> list[list[int]]:
    """Encode anchor + text and take the anchor's ids off; texts that melt into one anchor are tried on the next."""
    found: dict[int, list[int]] = {}
    for anchor in ANCHORS:
        left = [i for i in range(len(texts)) if i not in found]
        head = _batch(backend, [anchor])[0]
        for i, ids in zip(left, _batch(backend, [anchor + texts[i] for i in left])):
            if head and ids[: len(head)] == head:
                found[i] = ids[len(head) :]
    left = [i for i in range(len(texts)) if i not in found]
    found.update(zip(left, _batch(backend, [texts[i] for i in left])))
    return [found[i] for i in range(len(texts))]


def _slow_ids(tokenizer: "PreTrainedTokenizerBase", texts: list[str], special: bool) -> list[list[int]]:
    """Python tokenizers: no batch threads and no way to say that a text continues."""
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, split_special_tokens=not special)["input_ids"]
    return ids


def tokenizer_fingerprint(tokenizer: "PreTrainedTokenizerBase") -> str:
    """A hash of what the tokenizer does: its rules, special tokens and chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    parts = [rules, str(sorted(tokenizer.special_tokens_map.items(), key=str)), str(tokenizer.chat_template)]
    return hashlib.sha256("\x1e".join(parts).encode()).hexdigest()
