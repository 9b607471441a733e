"""A model's sizes and weights as a GGUF file has them: GPT-2, Llama and Qwen2.

Names and layouts are llama.cpp's (its folder src/models). Three things differ from Hugging Face's: GPT-2's matrices are
stored transposed there; Llama's q and k rows are ordered for the other way to rotate, pairs of neighbours and not
halves; and an output that is the embedding itself is not written twice.

>>> sizes(model.config)["gpt2.block_count"]                               # doctest: +SKIP
12
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from hone.errors import HoneError

UPSTREAM = (
    "llama.cpp's own converter may know it: hone export RUN --to merged -o merged, then "
    "python convert_hf_to_gguf.py merged"
)
NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
PROJECTIONS = {
    **{f"self_attn.{name}_proj": f"attn_{name}" for name in "qkv"},
    "self_attn.o_proj": "attn_output",
    **{f"mlp.{name}_proj": f"ffn_{name}" for name in ("gate", "up", "down")},
}
ROTATED = re.compile(r"attn_(q|k)\.weight$")


@dataclass(frozen=True)
class Architecture:
    """How an architecture is written. block: the prefix of a layer's names. names: ours -> GGUF's, without suffix.

    transposed: matrices that Hugging Face stores as (inputs, outputs).
    """

    block: str
    names: dict[str, str]
    transposed: frozenset[str] = frozenset()


GPT2 = Architecture(
    "transformer.h",
    {
        "transformer.wte": "token_embd",
        "transformer.wpe": "position_embd",
        "transformer.ln_f": "output_norm",
        "lm_head": "output",
        "ln_1": "attn_norm",
        "ln_2": "ffn_norm",
        "attn.c_attn": "attn_qkv",
        "attn.c_proj": "attn_output",
        "mlp.c_fc": "ffn_up",
        "mlp.c_proj": "ffn_down",
    },
    frozenset({"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"}),
)
LLAMA = Architecture(
    "model.layers",
    {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        **NORMS,
        **PROJECTIONS,
    },
)
ARCHITECTURES = {"gpt2": GPT2, "llama": LLAMA, "qwen2": LLAMA}
# What llama.cpp computes, whatever a config says: value of the key, or the key is absent.
FIXED: dict[str, dict[str, tuple[Any, ...]]] = {
    "gpt2": {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    },
    "llama": {"hidden_act": ("silu", "swish")},
    "qwen2": {"hidden_act": ("silu", "swish"), "use_sliding_window": (False,)},
}


def check_architecture(config: Any) -> str:
    """The architecture's name in a GGUF file.

    Raises:
        HoneError: one that is not written here, or a setting of it that llama.cpp does not compute.
    """
    kind = str(config.model_type)
    if kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise HoneError(f"a model of type '{kind}' is not written as GGUF here ({known} are)", fix=UPSTREAM)
    for key, accepted in FIXED[kind].items():
        if (value := getattr(config, key, accepted[0])) not in accepted:
            raise HoneError(f"{key} is {value!r}: llama.cpp computes {accepted[0]!r} for {kind}", fix=UPSTREAM)
    if kind != "gpt2" and (rope := _rope(config)).get("rope_type", "default") != "default":
        what = f"rope scaling of type '{rope['rope_type']}' is not written as GGUF here"
        raise HoneError(what, fix=UPSTREAM)
    return kind


def sizes(config: Any) -> dict[str, int | float]:
    """The keys of the architecture: counts as integers, epsilons and bases as floats."""
    kind = check_architecture(config)
    if kind == "gpt2":
        return {
            "gpt2.block_count": config.n_layer,
            "gpt2.context_length": config.n_positions,
            "gpt2.embedding_length": config.n_embd,
            "gpt2.feed_forward_length": config.n_inner or 4 * config.n_embd,
            "gpt2.attention.head_count": config.n_head,
            "gpt2.attention.layer_norm_epsilon": float(config.layer_norm_epsilon),
        }
    head = _head_size(config)
    return {
        f"{kind}.block_count": config.num_hidden_layers,
        f"{kind}.context_length": config.max_position_embeddings,
        f"{kind}.embedding_length": config.hidden_size,
        f"{kind}.feed_forward_length": config.intermediate_size,
        f"{kind}.attention.head_count": config.num_attention_heads,
        f"{kind}.attention.head_count_kv": config.num_key_value_heads,
        f"{kind}.attention.key_length": head,
        f"{kind}.attention.value_length": head,
        f"{kind}.attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        f"{kind}.rope.dimension_count": head,
        f"{kind}.rope.freq_base": float(_rope(config).get("rope_theta", 10_000.0)),
        f"{kind}.vocab_size": config.vocab_size,
    }


def _head_size(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _rope(config: Any) -> Mapping[str, Any]:
    return dict(getattr(config, "rope_parameters", None) or {})


def tensors(model: PreTrainedModel) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    """(name in the file, what gives its values as float32), in a fixed order; nothing is copied before it is asked for.

    Raises:
        HoneError: a weight of the model has no place in the file.
    """
    config, kind = model.config, check_architecture(model.config)
    weights: dict[str, Tensor] = model.state_dict()
    embedding = next(name for name, there in ARCHITECTURES[kind].names.items() if there == "token_embd")
    heads = (getattr(config, "num_attention_heads", 0), getattr(config, "num_key_value_heads", 0))
    for name, weight in weights.items():
        if name == "lm_head.weight" and weight.data_ptr() == weights[f"{embedding}.weight"].data_ptr():
            continue  # tied: llama.cpp takes the embedding where there is no output
        there, transposed = file_name(name, ARCHITECTURES[kind])
        rotated = ROTATED.search(there) if kind == "llama" else None
        n_heads = heads[0 if rotated and rotated[1] == "q" else 1] if rotated else 0
        yield there, partial(_values, weight, transposed, n_heads)


def file_name(name: str, architecture: Architecture) -> tuple[str, bool]:
    """A weight's name in the file, and whether it is transposed.

    >>> file_name("transformer.h.3.mlp.c_fc.weight", GPT2)
    ('blk.3.ffn_up.weight', True)
    """
    found = re.fullmatch(rf"(?:{re.escape(architecture.block)}\.(\d+)\.)?(.+)\.(weight|bias)", name)
    inner = found[2] if found else ""
    there = architecture.names.get(inner)
    if found is None or there is None:
        raise HoneError(f"the weight {name} has no place in a GGUF file of this architecture", fix=UPSTREAM)
    block = f"blk.{found[1]}." if found[1] is not None else ""
    return f"{block}{there}.{found[3]}", inner in architecture.transposed and found[3] == "weight"


def _values(weight: Tensor, transposed: bool, n_heads: int) -> np.ndarray:
    values: np.ndarray = weight.detach().float().cpu().numpy()
    if transposed:
        values = values.T
    return np.ascontiguousarray(neighbours(values, n_heads) if n_heads else values)


def neighbours(values: np.ndarray, n_heads: int) -> np.ndarray:
    """Rows of q or k, (n_heads * d, inputs), from halves that rotate together to neighbours that do.

    >>> neighbours(np.arange(4)[:, None], 1)[:, 0].tolist()
    [0, 2, 1, 3]
    """
    rows, inputs = values.shape
    half = rows // n_heads // 2
    return values.reshape(n_heads, 2, half, inputs).swapaxes(1, 2).reshape(rows, inputs)
