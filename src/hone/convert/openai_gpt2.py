"""OpenAI's GPT-2 as released (TensorFlow's files) to a model folder, which everything else here loads.

The release is a folder: hparams.json, encoder.json, vocab.bpe, checkpoint, model.ckpt.index, model.ckpt.data-…,
model.ckpt.meta. Fine-tuned copies of it have the same files; what an optimizer left among the variables is passed over.
Nothing is trusted: sizes come from hparams.json and every tensor must have the shape they mean; every checksum is
checked; and the saved model has to give the logits of the glass-box GPT-2 (`verified_write.py`).

>>> print(describe(convert(Path("124M"), Path("gpt2"))))                 # doctest: +SKIP
"""

import json
import math
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hone.convert.tensorbundle import open_bundle, read_tensor
from hone.convert.verified_write import refuse_existing, same_logits, verified_write
from hone.data.tokenizer import load_tokenizer, save_tokenizer, start_ids
from hone.errors import HoneError
from hone.models.gpt2 import GPT2, SIZES, GPT2Config, fill, save_gpt2
from hone.models.load import load_finished, quiet_libraries
from hone.show import size

ADDRESS = "https://openaipublic.blob.core.windows.net/gpt-2/models"
FILES = (
    *("checkpoint", "encoder.json", "hparams.json", "model.ckpt.data-00000-of-00001", "model.ckpt.index"),
    *("model.ckpt.meta", "vocab.bpe"),
)
NEEDED = ("hparams.json", "encoder.json", "vocab.bpe")
HPARAMS = ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")
RELEASED = (
    "OpenAI's folders hold hparams.json, encoder.json, vocab.bpe, checkpoint, model.ckpt.index and model.ckpt.data"
)
NORM = {"g": "weight", "b": "bias"}
AFFINE = {"w": "weight", "b": "bias"}  # w is (1, inputs, outputs): a convolution over one token
BLOCK = {"ln_1": NORM, "attn/c_attn": AFFINE, "attn/c_proj": AFFINE,
         "ln_2": NORM, "mlp/c_fc": AFFINE, "mlp/c_proj": AFFINE}  # fmt: skip
PROBE = "The quick brown fox isn't 1,234 years old.\n\n    def größe(x): return x  # naïve 🙂\t\x00"
TOLERANCE = 1e-3  # of the largest logit; rounding in float32 gives 1e-6 of it, and 5e-4 on wild random weights


@dataclass(frozen=True)
class Converted:
    """What was written. max_difference: of any logit of the probe, between the saved model and the glass-box GPT-2."""

    folder: Path
    hparams: GPT2Config
    n_parameters: int
    n_bytes: int
    max_difference: float
    largest_logit: float
    n_ignored: int


def convert(source: Path, target: Path) -> Converted:
    """Write the model folder `target` from OpenAI's files in `source`, in float32.

    Raises:
        HoneError: files missing, damaged or of different models, `target` in use, or the saved model differs.
    """
    quiet_libraries()
    _check_files(source)
    refuse_existing(target)
    hparams = read_hparams(source / "hparams.json")
    tokenizer = load_tokenizer(source)
    model, n_ignored = read_model(source, hparams)
    check_vocabulary_size(tokenizer, hparams, source)
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    ids = _probe_ids(tokenizer, hparams.n_ctx)
    with torch.inference_mode():
        expected: Tensor = model(ids)
    if not expected.isfinite().all():
        raise HoneError("the weights give logits that are not numbers", fix="this checkpoint is of a diverged training")
    largest = float(expected.abs().max())
    check = same_logits(expected, lambda path: _logits_of_saved(path, ids), tolerance=TOLERANCE * largest)
    with verified_write(target, check) as written:
        save_gpt2(model, written.path, end_id=tokenizer.eos_token_id)
        save_tokenizer(tokenizer, written.path)
        del model  # one copy of the weights at a time
    n_bytes = sum(path.stat().st_size for path in target.iterdir())
    return Converted(target, hparams, n_parameters, n_bytes, float(written.found or 0), largest, n_ignored)


def describe(done: Converted) -> str:
    """What `hone convert` prints."""
    sizes = ", ".join(f"{name} {getattr(done.hparams, name):,}" for name in HPARAMS)
    lines = [
        f"GPT-2, {done.n_parameters:,} parameters ({sizes})",
        f"wrote {done.folder} ({done.n_bytes / 1e6:,.1f} MB, float32)",
        f"loaded back, its logits equal the glass-box GPT-2's: largest difference {done.max_difference:.1e} "
        f"compared with logits up to {done.largest_logit:.1f}",
    ]
    if done.n_ignored:
        lines.insert(1, f"passed over {done.n_ignored} variables that are not weights (an optimizer's)")
    return "\n".join(lines)


# ---- what the release holds -----------------------------------------------------------------------------------------


def _check_files(source: Path) -> None:
    if not source.is_dir():
        raise HoneError("no such folder", where=str(source), fix=how_to_get(source))
    if missing := [name for name in NEEDED if not (source / name).is_file()]:
        what = f"not OpenAI's GPT-2 files: no {', '.join(missing)}"
        if (source / "config.json").is_file():
            raise HoneError(what, where=str(source), fix="this is a model folder already: use it as it is")
        raise HoneError(what, where=str(source), fix=how_to_get(source))


def how_to_get(source: Path) -> str:
    """Where OpenAI's files are, how large, and a loop for the shell that fetches those of one model into `source`."""
    sizes = {name: size(4 * sum(math.prod(shape) for *_, shape in variables(shapes))) for name, shapes in SIZES.items()}
    name = source.name if source.name in SIZES else "124M"
    released = ", ".join(f"{each} ({n_bytes})" for each, n_bytes in sizes.items())
    loop = f"for f in {' '.join(FILES)}; do\n"
    loop += f"    curl -fL -C - --create-dirs -o {shlex.quote(str(source))}/$f {ADDRESS}/{name}/$f\n  done"
    return f"OpenAI released {released}; this fetches {name}, and goes on after an interruption:\n  {loop}"


def read_hparams(path: Path) -> GPT2Config:
    """The sizes of a released model.

    Raises:
        HoneError: not JSON, a size is missing or impossible.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise HoneError(f"not readable as JSON ({error})", where=str(path), fix="copy it again") from error
    sizes: dict[str, int] = {}
    for name in HPARAMS:
        value = found.get(name) if isinstance(found, dict) else None
        if type(value) is not int or value < 1:
            what = f"{name} is missing" if value is None else f"{name} is {value!r}, expected a whole number above 0"
            raise HoneError(what, where=str(path), fix=f"expected {', '.join(HPARAMS)}, as in the release")
        sizes[name] = value
    hparams = GPT2Config(**sizes)
    if hparams.n_embd % hparams.n_head:
        what = f"n_embd {hparams.n_embd} cannot be shared among n_head {hparams.n_head} heads"
        raise HoneError(what, where=str(path), fix="take the hparams.json that belongs to this checkpoint")
    return hparams


def checkpoint_prefix(source: Path) -> Path:
    """The path of the checkpoint without its endings: what `checkpoint` names, or the only one there is.

    Raises:
        HoneError: none, or several and nothing says which.
    """
    found = sorted(path.with_suffix("") for path in source.glob("*.index"))
    path = source / "checkpoint"
    if path.is_file():
        named = re.search(r'^model_checkpoint_path: "(.*)"', path.read_text(encoding="utf-8", errors="replace"), re.M)
        if named is None:
            raise HoneError("names no checkpoint", where=str(path), fix='expected model_checkpoint_path: "model.ckpt"')
        return source / Path(named[1]).name  # an absolute path is of the machine that wrote it
    if len(found) != 1:
        what = f"{len(found) or 'no'} checkpoints here" + (f": {', '.join(p.name for p in found)}" if found else "")
        raise HoneError(
            what, where=str(source), fix="add the file `checkpoint`, which says which" if found else RELEASED
        )
    return found[0]


def variables(hparams: GPT2Config) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(OpenAI's name, transformers' name without "transformer.", shape there) of every weight, in the order of use."""
    width = hparams.n_embd
    outputs = {"attn/c_attn": 3 * width, "attn/c_proj": width, "mlp/c_fc": 4 * width, "mlp/c_proj": width}
    inputs = {"mlp/c_proj": 4 * width}
    yield "model/wte", "wte.weight", (hparams.n_vocab, width)
    yield "model/wpe", "wpe.weight", (hparams.n_ctx, width)
    for layer in range(hparams.n_layer):
        for part, names in BLOCK.items():
            for theirs, ours in names.items():
                shape: tuple[int, ...] = (outputs.get(part, width),)
                if theirs == "w":
                    shape = (1, inputs.get(part, width), *shape)
                yield f"model/h{layer}/{part}/{theirs}", f"h.{layer}.{part.replace('/', '.')}.{ours}", shape
    for theirs, ours in NORM.items():
        yield f"model/ln_f/{theirs}", f"ln_f.{ours}", (width,)


def read_model(source: Path, hparams: GPT2Config) -> tuple[GPT2, int]:
    """The glass-box GPT-2 with the weights of a checkpoint, and how many variables were passed over.

    Raises:
        HoneError: no or several checkpoints, damaged files, or weights that are not those of `hparams`.
    """
    bundle = open_bundle(checkpoint_prefix(source))
    where = str(bundle.prefix)
    fix = "take hparams.json and the checkpoint from the same model"
    wanted = list(variables(hparams))
    names = {theirs for theirs, _, _ in wanted}
    # checked before anything is read; a deeper model would otherwise lose its upper blocks in silence
    layers = {int(found[1]) for name in bundle.entries if (found := re.match(r"model/h(\d+)/", name))}
    if len(layers) != hparams.n_layer:
        raise HoneError(f"{len(layers)} blocks here, n_layer {hparams.n_layer} in hparams.json", where=where, fix=fix)
    for theirs, _, shape in wanted:
        if theirs not in bundle.entries:
            raise HoneError(f"the checkpoint has no {theirs}", where=where, fix=fix)
        if (entry := bundle.entries[theirs]).shape != shape or entry.dtype != 1:
            kind = "" if entry.dtype == 1 else f" of TensorFlow's type {entry.dtype}"
            raise HoneError(
                f"{theirs} is {entry.shape}{kind}, expected {shape}, float32, by hparams.json", where=where, fix=fix
            )
    weights: dict[str, Tensor] = {}
    for theirs, ours, shape in wanted:
        weights[ours] = torch.from_numpy(read_tensor(bundle, theirs).reshape(shape[-2:]))
    with torch.device("meta"):
        model = GPT2(hparams)
    return fill(model, weights, where).eval(), len(bundle.entries.keys() - names)


# ---- the check of what was written ----------------------------------------------------------------------------------


def check_vocabulary_size(tokenizer: PreTrainedTokenizerBase, hparams: GPT2Config, source: Path) -> None:
    """Refuse an encoder.json with more tokens than the model."""
    needed = max(tokenizer.get_vocab().values()) + 1
    if needed > hparams.n_vocab:
        raise HoneError(
            f"encoder.json has {needed:,} tokens, the model {hparams.n_vocab:,}",
            where=str(source),
            fix="take the tokenizer's files from the same model",
        )


def _probe_ids(tokenizer: PreTrainedTokenizerBase, n_ctx: int) -> Tensor:
    """(1, at most n_ctx) ids of a text that uses letters, digits, spaces and bytes beyond ASCII."""
    return torch.tensor([start_ids(tokenizer, [PROBE], special=False)[0][:n_ctx]])


def _logits_of_saved(folder: Path, ids: Tensor) -> Tensor:
    """Of the folder loaded as any user would: its tokenizer has to give the same ids of the probe."""
    if not torch.equal(_probe_ids(load_tokenizer(folder), ids.shape[1]), ids):
        raise HoneError("the saved tokenizer gives other ids than encoder.json", where=str(folder))
    with torch.inference_mode():
        logits: Tensor = load_finished(str(folder))(ids).logits
    return logits
