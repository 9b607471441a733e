"""`hone export --to gguf` and `--to ollama`: a folder with one GGUF file, checked by an independent reader.

The run's model is taken in float32, an adapter added to its base in memory; the file is written aside, read back by
llama.cpp (or transformers), compared with the model on held-out items, and only then named.

>>> done = export_gguf("runs/my", Path("my-gguf"), "f16")                  # doctest: +SKIP
>>> done.file.name                                                         # doctest: +SKIP
'my-f16.gguf'
"""

import re
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hone.convert.gguf_card import gguf_card
from hone.convert.gguf_check import Checked, check_gguf, positions
from hone.convert.gguf_file import TYPES, Prompt, write_gguf
from hone.convert.gguf_tokenizer import Vocabulary, describe
from hone.convert.gguf_weights import check_architecture
from hone.convert.held_items import comparison_items
from hone.convert.merge import load_whole, logits_of, probe_ids, summed
from hone.convert.ollama import modelfile
from hone.convert.prompt_form import begins_with_bos, jinja_of
from hone.convert.verified_write import difference, refuse_existing, verified_write
from hone.errors import HoneError, placed
from hone.inference.generate import chosen_settings, chosen_template
from hone.inference.prompts import turn_end
from hone.models.inspect import check_vocabulary
from hone.models.kinds import CLASSIFIER, DECODER
from hone.models.load import kind_of, quiet_libraries

KINDS = tuple(TYPES)
SUM_TOLERANCE = 1e-4  # of the spread of the logits: base + adapter in one matrix, compared with side by side
SMALL = 300_000_000  # parameters: up to here many tokens are compared
MOST_TOKENS, FEW_TOKENS = 16_384, 2_048


@dataclass(frozen=True)
class Gguf:
    """What was written. compared_on: what the items were, in words. notes: what the user should know."""

    folder: Path
    file: Path
    kind: str
    template: str
    n_bytes: int
    checked: Checked
    compared_on: str
    notes: list[str]


def export_gguf(
    source: str,
    target: Path,
    kind: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    base: str | None = None,
    ollama: bool = False,
) -> Gguf:
    """Write the folder `target` with the model of `source` as a GGUF file; with a Modelfile for Ollama if asked.

    Args:
        kind: f32, f16, bf16 or q8_0. base: where an adapter's base is now.

    Raises:
        HoneError: llama.cpp has no form for this model or its tokenizer, or a bar of the comparison is missed; nothing
            is left at `target` then.
    """
    quiet_libraries()
    refuse_existing(target)
    with placed(source):
        _refuse_other_tasks(source)
        template = chosen_template(source, None, tokenizer, talking=True)
        model, base_checked = _whole_model(source, tokenizer, base)
        check_architecture(model.config)
        end = turn_end(tokenizer) if template == "chat" else ""
        vocabulary = describe(tokenizer, model.get_input_embeddings().weight.shape[0], end)
        name = plain_name(target)
        file = f"{name}-{kind}.gguf"
        settings = chosen_settings(source, {})
        made, notes = modelfile(file, template, tokenizer, settings, positions(model)) if ollama else ("", [])
    prompt = Prompt(jinja_of(template, tokenizer), begins_with_bos(template, tokenizer))
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    most = MOST_TOKENS if n_parameters <= SMALL else FEW_TOKENS
    items, what = comparison_items(source, tokenizer, positions(model), most)
    notes = [*notes, *_notes(vocabulary, base_checked)]

    with verified_write(
        target,
        lambda path: check_gguf(path / file, kind, model, tokenizer, vocabulary, items),
        lambda found: gguf_card(source, name, file, template, found, what, ollama=ollama),
    ) as done:
        write_gguf(model, vocabulary, done.path / file, kind, prompt, name=name)
        if ollama:
            (done.path / "Modelfile").write_text(made, encoding="utf-8")
    assert done.found is not None
    path = target / file
    return Gguf(target, path, kind, template, path.stat().st_size, done.found, what, notes)


def plain_name(folder: Path) -> str:
    """A folder's name for file names and other programs.

    >>> plain_name(Path("My Model-gguf")), plain_name(Path("runs/my-ollama"))
    ('My-Model', 'my')
    """
    return re.sub(r"-(gguf|ollama)$", "", re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name)) or "model"


def _refuse_other_tasks(source: str) -> None:
    kind = kind_of(source)
    if kind is DECODER:
        return
    what = "a classifier" if kind is CLASSIFIER else "an encoder-decoder"
    raise HoneError(
        f"this is {what}: a GGUF file is for models that continue a text",
        fix=f"use `hone predict` or `hone generate`, or hone export {source} --to merged for other programs",
    )


def _whole_model(source: str, tokenizer: PreTrainedTokenizerBase, base: str | None) -> tuple[PreTrainedModel, bool]:
    """The model in float32 and in one piece; an adapter's sum is compared with base and adapter side by side."""
    whole = load_whole(source, tokenizer, base)
    check_vocabulary(whole.model, tokenizer)
    if whole.base is None:
        return summed(whole).eval(), True
    ids = probe_ids(whole.model, tokenizer)
    before = logits_of(whole.model, ids)
    model = summed(whole).eval()
    found = difference(before, logits_of(model, ids))
    if not found <= SUM_TOLERANCE * float(before.std()):
        raise HoneError(f"added to its base, the adapter answers differently: its logits differ by up to {found:.1e}")
    return model, whole.base_checked


def _notes(vocabulary: Vocabulary, base_checked: bool) -> list[str]:
    notes = []
    if not base_checked:
        notes.append("the adapter does not say which weights it was trained on; the base is unchecked")
    if vocabulary.nfc:
        notes.append("llama.cpp does not compose characters (NFC) as this tokenizer does: compared on composed texts")
    if vocabulary.also_ends:
        names = " ".join(vocabulary.also_ends)
        notes.append(f"llama.cpp ends an answer at {names} too, by their names")
    if "eos" not in vocabulary.ids:
        notes.append("the tokenizer has no end token: answers end at their longest length")
    return notes
