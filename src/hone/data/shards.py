"""A sealed corpus, read as one store. Written by `hone corpus run` (`corpus/`).

    manifest.json         what it is, how it came to be, and size and SHA-256 of every file, under a seal
    corpus.yaml           the configuration as it was given
    train-00000.bin       tokens end to end, as in a store (`store.py`)
    train-00000.docs.npy  (documents + 1,) int64, where each document starts in its shard, and where the last one ends
    val-00000.bin …       the held-out documents

Documents are in the order (shard, position). A document never straddles two shards.

>>> store = corpus_store([Path("corpora/code")], [], tokenizer)                    # doctest: +SKIP
>>> store.train.n_documents, store.train.tokens[:5]                                # doctest: +SKIP
"""

import hashlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hone.data.store import Split, Store, empty_split
from hone.data.token_files import TokenFiles
from hone.errors import HoneError
from hone.manifest import MANIFEST, file_digest, problems
from hone.results import read
from hone.results.corpus import CorpusManifest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger("hone")

CORPUS_CONFIG = "corpus.yaml"  # the file by which a folder is known as a corpus
READ_WHOLE_BYTES = 2_000_000_000  # compared by content when it is opened: a second or two; larger ones by their sizes
FIX = "`hone verify` names every damaged file: copy them again, or delete the folder and run `hone corpus run` again"


def is_corpus(path: Path) -> bool:
    """Whether a folder is a sealed corpus, whole or not."""
    return (path / CORPUS_CONFIG).is_file() and (path / MANIFEST).exists()


def read_manifest(folder: Path) -> CorpusManifest:
    """What a corpus says of itself.

    Raises:
        HoneError: its manifest is missing, damaged, or of another version.
    """
    try:
        found = read(CorpusManifest, folder / MANIFEST)
    except HoneError as error:
        raise HoneError(error.what, where=error.where, fix=FIX) from error
    if found is None:
        raise HoneError("a corpus without its manifest", where=str(folder / MANIFEST), fix=FIX)
    return found


def corpus_problems(folder: Path, *, whole: bool = True) -> list[str]:
    """What of a corpus is not as it was written, each beginning with the file's name.

    Args:
        whole: read every file, however large; else only small corpora are read and of large ones the sizes compared.
    """
    try:
        manifest = read_manifest(folder)
    except HoneError as error:
        return [f"{MANIFEST}: {error.what}"]
    files = {name: about.model_dump() for name, about in manifest.files.items()}
    small = sum(about.bytes for about in manifest.files.values()) <= READ_WHOLE_BYTES
    return problems(folder, files, hashes=whole or small)


def open_corpus(folder: Path) -> tuple[Split, Split, CorpusManifest]:
    """Training and held-out documents of a sealed corpus, compared with its manifest.

    Raises:
        HoneError: a file is missing, damaged or of another format.
    """
    manifest = read_manifest(folder)
    if found := corpus_problems(folder, whole=False):
        more = f", and {len(found) - 1} more files" if len(found) > 1 else ""
        name, _, reason = found[0].partition(": ")
        raise HoneError(f"the corpus is damaged: {reason}{more}", where=str(folder / name), fix=FIX)
    return _split(folder, "train", manifest), _split(folder, "val", manifest), manifest


def _split(folder: Path, name: str, manifest: CorpusManifest) -> Split:
    shards = [shard for shard in manifest.shards if shard.split == name]
    if not shards:
        return empty_split()
    starts, before = [np.zeros(1, np.int64)], 0
    for shard in shards:
        path = folder / f"{shard.name}.docs.npy"
        borders = np.load(path, allow_pickle=False)
        if len(borders) != shard.documents + 1 or borders[0] != 0 or borders[-1] != shard.tokens:
            raise HoneError("the corpus is damaged: the index does not fit the tokens", where=str(path), fix=FIX)
        starts.append(borders[1:] + before)
        before += shard.tokens
    dtype = np.dtype(manifest.dtype).newbyteorder("<")
    paths = [folder / f"{shard.name}.bin" for shard in shards]
    tokens = TokenFiles(paths, [s.tokens for s in shards], dtype, max(shard.largest_id for shard in shards))
    return Split(tokens, None, np.concatenate(starts))


def corpus_store(train: list[Path], validation: list[Path], tokenizer: "PreTrainedTokenizerBase") -> Store:
    """A sealed corpus as a store to train from; the shards stay where they are.

    Args:
        validation: another corpus, whose held-out documents are measured (its training documents if it has none);
            empty for the corpus's own.

    Raises:
        HoneError: files are mixed with it, it was made with another tokenizer, or it is damaged.
    """
    if len(train) != 1 or len(validation) > 1 or not all(map(is_corpus, validation)):
        raise HoneError(
            "a corpus cannot be mixed with other files",
            where=str(train[0]),
            fix="give one corpus as train_file; validation_file, if you need it, is another corpus",
        )
    own, held, manifest = open_corpus(train[0])
    _refuse_other_tokenizer(train[0], manifest, tokenizer)
    sources = {"train": [_source(train[0], manifest)]}
    if validation:
        other, held, about = open_corpus(validation[0])
        _refuse_other_tokenizer(validation[0], about, tokenizer)
        held = held if held.n_documents else other
        sources["validation"] = [_source(validation[0], about)]
    if sum(about.bytes for about in manifest.files.values()) > READ_WHOLE_BYTES:
        log.info("%s: compared by sizes; `hone verify` reads every byte", train[0])
    dropped = [one.model_dump() for one in manifest.dropped]
    meta = {"form": "text", "template": "plain", "dtype": manifest.dtype, "sources": sources, "dropped": dropped}
    meta["splits"] = {
        name: {"documents": split.n_documents, "tokens": len(split.tokens)}
        for name, split in (("train", own), ("val", held))
    }
    return Store(None, own, held, meta)


def _source(folder: Path, manifest: CorpusManifest) -> dict[str, str | int]:
    """What a run writes down of the data it was trained on; the hash is that of the manifest."""
    n_bytes = sum(about.bytes for about in manifest.files.values())
    return {"file": folder.name, "bytes": n_bytes, "sha256": file_digest(folder / MANIFEST)}


def vocabulary_sha256(tokenizer: "PreTrainedTokenizerBase") -> str:
    """A hash of the tokenizer's pieces and their ids."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()


def _refuse_other_tokenizer(folder: Path, manifest: CorpusManifest, tokenizer: "PreTrainedTokenizerBase") -> None:
    if manifest.tokenizer.vocabulary_sha256 != vocabulary_sha256(tokenizer):
        raise HoneError(
            f"the corpus was made with another tokenizer: {manifest.tokenizer.name} "
            f"({manifest.tokenizer.n_entries:,} entries), not {tokenizer.name_or_path} ({len(tokenizer):,})",
            where=str(folder / MANIFEST),
            fix="set tokenizer_name_or_path to the corpus's, or make the corpus again with the model's",
        )
