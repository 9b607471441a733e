"""One GGUF file: keys, tokenizer and weights of a model, written with the `gguf` package, one tensor at a time.

>>> write_gguf(model, vocabulary, Path("my-f16.gguf"), "f16", prompt)    # doctest: +SKIP
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType
from gguf.quants import quantize
from transformers import PreTrainedModel

from hone.convert.gguf_tokenizer import Vocabulary
from hone.convert.gguf_weights import check_architecture, sizes, tensors
from hone.errors import HoneError

TYPES = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
Q8_ROW = 32  # values that share one scale in q8_0
LARGEST_F16 = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Prompt:
    """How a prompt reaches the model. jinja: the chat template of the file. begins: with begin-of-text before it."""

    jinja: str
    begins: bool


def write_gguf(
    model: PreTrainedModel, vocabulary: Vocabulary, path: Path, kind: str, prompt: Prompt, *, name: str
) -> None:
    """Write the file `path`.

    Args:
        kind: of the matrices: f32, f16, bf16 or q8_0. Norms, biases and positions are float32 in each.
        name: of the model, as programs show it.

    Raises:
        HoneError: the architecture is not written here, or a weight is too large for the kind.
    """
    writer = GGUFWriter(path, check_architecture(model.config))
    _add_keys(writer, model, vocabulary, kind, prompt, name)
    try:
        for tensor, values in _encoded(model, kind):
            shape, raw = values.shape, values.dtype == np.uint8
            writer.add_tensor_info(tensor, shape, values.dtype, values.nbytes, _raw_type(tensor, kind) if raw else None)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for _, values in _encoded(model, kind):  # again: all of them at once would be a second model in memory
            writer.write_tensor_data(values)
    finally:
        writer.close()


def _add_keys(
    writer: GGUFWriter, model: PreTrainedModel, vocabulary: Vocabulary, kind: str, prompt: Prompt, name: str
) -> None:
    writer.add_name(name)
    writer.add_type("model")
    writer.add_file_type(TYPES[kind][1])
    writer.add_quantization_version(2)  # ggml's GGML_QNT_VERSION
    for key, value in sizes(model.config).items():
        if isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_uint32(key, value)
    writer.add_tokenizer_model("gpt2")  # byte-level BPE, whatever the architecture
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    writer.add_token_merges(vocabulary.merges)
    for special, token in vocabulary.ids.items():
        writer.add_uint32(f"tokenizer.ggml.{special}_token_id", token)
    writer.add_add_bos_token(prompt.begins)  # always: some rules add one where the file says nothing
    writer.add_chat_template(prompt.jinja)


def _encoded(model: PreTrainedModel, kind: str) -> Iterator[tuple[str, np.ndarray]]:
    for tensor, values in tensors(model):
        yield tensor, _encode(tensor, values(), kind)


def _encode(tensor: str, values: np.ndarray, kind: str) -> np.ndarray:
    """The values as they lie in the file; bytes where numpy has no type for them."""
    if _stays_float32(tensor, values) or kind == "f32":
        return values
    if kind == "f16" or (values.shape[-1] % Q8_ROW and kind == "q8_0"):
        if float(np.abs(values).max()) > LARGEST_F16:
            what = f"{tensor} has a value of {float(np.abs(values).max()):.0f}, beyond what f16 can hold"
            raise HoneError(what, fix="use --dtype bf16 or f32")
        return values.astype(np.float16)
    encoded: np.ndarray = quantize(values, TYPES[kind][0])
    return encoded


def _stays_float32(tensor: str, values: np.ndarray) -> bool:
    return values.ndim == 1 or tensor.startswith("position_embd")


def _raw_type(tensor: str, kind: str) -> GGMLQuantizationType:
    return TYPES[kind][0]
