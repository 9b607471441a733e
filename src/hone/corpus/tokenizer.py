"""The tokenizer of a corpus: loaded by its name once, and kept in the work folder for the processes that tokenise.

Loading one by its name imports torch: 170 MB and two seconds in each process. A copy of its rules needs neither.

>>> keep(described("hone-base")[0], work.folder)                                    # doctest: +SKIP
>>> kept(work.folder, "hone-base", work.plan.tokenizer.sha256).eos_token_id         # doctest: +SKIP
0
"""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from hone.data.shards import vocabulary_sha256
from hone.data.tokenizer import load_tokenizer, save_tokenizer, tokenizer_fingerprint
from hone.errors import HoneError
from hone.results.corpus import TokenizerAbout

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FOLDER = "tokenizer"  # of the work folder


@lru_cache(maxsize=2)
def described(name: str) -> "tuple[PreTrainedTokenizerBase, TokenizerAbout]":
    """The tokenizer of this name, and what a corpus says of it.

    Raises:
        HoneError: as `load_tokenizer`, or it has no end token.
    """
    tokenizer = load_tokenizer(name)
    if tokenizer.eos_token_id is None:
        fix = "take another, or make one: hone tokenizer train"
        raise HoneError("the tokenizer has no end token", where=name, fix=fix)
    about = TokenizerAbout(
        name=Path(name).name,
        sha256=tokenizer_fingerprint(tokenizer),
        vocabulary_sha256=vocabulary_sha256(tokenizer),
        n_entries=len(tokenizer),
        end_token_id=int(tokenizer.eos_token_id),
    )
    return tokenizer, about


def keep(tokenizer: "PreTrainedTokenizerBase", work_folder: Path) -> None:
    """Write the tokenizer into a work folder."""
    save_tokenizer(tokenizer, work_folder / FOLDER)


@lru_cache(maxsize=2)
def kept(work_folder: Path, name: str, sha256: str) -> "PreTrainedTokenizerBase":
    """The kept tokenizer; the named one where the rules alone do not make what has this fingerprint."""
    from transformers import PreTrainedTokenizerFast
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # that its class is another one than it was saved from
    try:
        found: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(str(work_folder / FOLDER))
        if tokenizer_fingerprint(found) == sha256:
            return found
    except (OSError, ValueError, TypeError, AttributeError, LookupError):
        pass  # without a Rust backend
    finally:
        logging.set_verbosity(verbosity)
    return load_tokenizer(name)
