"""A model's weights as the decoder of `fast_step` wants them: views of the model's own tensors, none copied.

GPT-2, Llama, Qwen2 and Mistral without a sliding window; LoRA adapters are kept as products of their own, so that
several of them and their base share the base's memory. Anything else has a reason why not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from hone.inference.native import Kernel, computes
from hone.models.inspect import unwrapped

Map = Callable[[Tensor], Tensor]

COMPUTED: dict[str, Map] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}
ACTIVATIONS = {
    **{name: name for name in COMPUTED},
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_pytorch_tanh"), "gelu_tanh"),
    "swish": "silu",
}
STEADY_ROPE = ("default", "linear", "llama3", "yarn")  # the others turn by another angle once a text has grown long


class Unsuitable(Exception):
    """Why a model is left to transformers' own forward pass."""


@dataclass(frozen=True)
class Linear:
    """x w^T + bias, and for each adapter x down^T up^T: weight (out, in), down (rank, in), up (out, rank)."""

    weight: Tensor
    bias: Tensor | None
    adapters: tuple[tuple[Tensor, Tensor], ...] = ()

    def __call__(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight, self.bias)
        for down, up in self.adapters:
            y = torch.addmm(y, F.linear(x, down), up.t())
        return y


@dataclass(frozen=True)
class Norm:
    """LayerNorm; `rms`: without the mean."""

    weight: Tensor
    bias: Tensor | None
    eps: float
    rms: bool

    def __call__(self, x: Tensor) -> Tensor:
        if self.rms:
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        return torch.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True)
class Mlp:
    """down(act(up x)), or down(act(gate x) * up x)."""

    gate: Linear | None
    up: Linear
    down: Linear
    activation: str

    def __call__(self, x: Tensor) -> Tensor:
        act = COMPUTED[self.activation]
        if self.gate is None:
            return self.down(act(self.up(x)))
        return self.down(act(self.gate(x)).mul_(self.up(x)))


@dataclass(frozen=True)
class Layer:
    """What a layer does to hidden states (N, E). `heads` gives queries, keys and values side by side."""

    norm_before_attention: Norm
    heads: tuple[Linear, ...]
    attention_out: Linear
    norm_before_mlp: Norm
    mlp: Mlp


@dataclass(frozen=True)
class Weights:
    """A causal model, taken apart. n_heads: of queries; n_kept: of keys and values. turns: cosine and sine of position
    p as (P, 2, head_dim), None where positions are embedded instead. scale: of the products of queries and keys."""

    embed: Tensor
    positions: Tensor | None
    turns: Tensor | None
    layers: tuple[Layer, ...]
    norm: Norm
    head: Linear
    n_heads: int
    n_kept: int
    head_dim: int
    window: int
    scale: float

    @cached_property
    def kernel(self) -> Kernel | None:
        """These weights as the compiled kernel reads them, None where there is none for them."""
        return Kernel(self) if computes(self.embed) else None

    @property
    def dtype(self) -> torch.dtype:
        """Of what is computed: float32 where the kernel reads bfloat16."""
        return self.embed.dtype if self.kernel is None else torch.float32

    @property
    def device(self) -> torch.device:
        return self.embed.device


def weights_of(model: PreTrainedModel) -> Weights:
    """The weights of a model, with the adapters that are active now.

    Raises:
        Unsuitable: an architecture, or a setting of one, that is not written down here.
    """
    inner: Any = unwrapped(model)
    if len({(p.device, p.dtype) for p in inner.parameters()}) != 1:
        raise Unsuitable("its weights are of several types or on several devices")
    name = type(inner).__name__
    if name == "GPT2LMHeadModel":
        return _gpt2(inner)
    if name in ("LlamaForCausalLM", "Qwen2ForCausalLM", "MistralForCausalLM"):
        return _llama(inner)
    raise Unsuitable(f"{name} is not one of the models written down")


def _gpt2(model: Any) -> Weights:
    config, body = model.config, model.transformer
    if config.add_cross_attention or config.scale_attn_by_inverse_layer_idx or not config.scale_attn_weights:
        raise Unsuitable("GPT-2 with another attention")
    act = _activation(config.activation_function)
    layers = [
        Layer(
            _norm(block.ln_1),
            (_linear(block.attn.c_attn),),
            _linear(block.attn.c_proj),
            _norm(block.ln_2),
            Mlp(None, _linear(block.mlp.c_fc), _linear(block.mlp.c_proj), act),
        )
        for block in body.h
    ]
    head_dim = config.n_embd // config.n_head
    return Weights(
        embed=_table(body.wte),
        positions=_table(body.wpe),
        turns=None,
        layers=tuple(layers),
        norm=_norm(body.ln_f),
        head=_linear(model.lm_head),
        n_heads=config.n_head,
        n_kept=config.n_head,
        head_dim=head_dim,
        window=config.n_positions,
        scale=head_dim**-0.5,
    )


def _llama(model: Any) -> Weights:
    config, body = model.config, model.model
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or (model.config.model_type == "mistral" and config.sliding_window is not None):
        raise Unsuitable("a sliding window")
    if (body.rotary_emb.rope_type or "default") not in STEADY_ROPE:
        raise Unsuitable(f"rotary positions of the kind '{body.rotary_emb.rope_type}'")
    act = _activation(config.hidden_act)
    layers = [
        Layer(
            _norm(block.input_layernorm),
            tuple(_linear(getattr(block.self_attn, f"{name}_proj")) for name in "qkv"),
            _linear(block.self_attn.o_proj),
            _norm(block.post_attention_layernorm),
            _mlp_of(block.mlp, act),
        )
        for block in body.layers
    ]
    attention = body.layers[0].self_attn
    return Weights(
        embed=_table(body.embed_tokens),
        positions=None,
        turns=_turns(body.rotary_emb, config.max_position_embeddings, _computed(_chosen(body.norm).weight).dtype),
        layers=tuple(layers),
        norm=_norm(body.norm),
        head=_linear(model.lm_head),
        n_heads=config.num_attention_heads,
        n_kept=config.num_key_value_heads,
        head_dim=attention.head_dim,
        window=config.max_position_embeddings,
        scale=attention.scaling,
    )


def _mlp_of(mlp: Any, act: str) -> Mlp:
    return Mlp(_linear(mlp.gate_proj), _linear(mlp.up_proj), _linear(mlp.down_proj), act)


def _activation(name: str) -> str:
    if name not in ACTIVATIONS:
        raise Unsuitable(f"the activation {name}")
    return ACTIVATIONS[name]


def _turns(rotary: Any, n_positions: int, dtype: torch.dtype) -> Tensor:
    """transformers' own cosines and sines; the sine of the first half negated, as their rotate_half does to values."""
    device = rotary.inv_freq.device
    cos, sin = rotary(torch.zeros((), dtype=dtype, device=device), torch.arange(n_positions, device=device)[None])
    half = sin.shape[-1] // 2
    return torch.stack([cos[0], torch.cat([-sin[0, :, :half], sin[0, :, half:]], -1)], 1)


def _chosen(module: Any) -> Any:
    """The module that computes: what PEFT keeps beside the original, where an adapter trained it whole."""
    if type(module).__name__ != "ModulesToSaveWrapper":
        return module
    active = [name for name in module.active_adapters if name in module.modules_to_save]
    if module.disable_adapters or not active:
        return module.original_module
    return module.modules_to_save[active[0]]


def _table(module: Any) -> Tensor:
    module = _chosen(module)
    if type(module) is not nn.Embedding or module.max_norm is not None:
        raise Unsuitable(f"an embedding of type {type(module).__name__}")
    return module.weight.detach()


def _computed(weight: Tensor) -> Tensor:
    """In the type that is computed in; only norms and adapters are so copied, and they are small."""
    return weight.detach().float() if computes(weight) else weight.detach()


def _norm(module: Any) -> Norm:
    module = _chosen(module)
    weight = _computed(module.weight)
    if type(module) is nn.LayerNorm:
        return Norm(weight, None if module.bias is None else _computed(module.bias), module.eps, rms=False)
    if type(module).__name__ in ("LlamaRMSNorm", "Qwen2RMSNorm", "MistralRMSNorm"):
        return Norm(weight, None, module.variance_epsilon, rms=True)
    raise Unsuitable(f"a norm of type {type(module).__name__}")


def _linear(module: Any) -> Linear:
    """A linear module with the LoRA adapters on it that are active."""
    module = _chosen(module)
    extra: list[tuple[Tensor, Tensor]] = []
    if type(module).__module__.startswith("peft.tuners.lora"):
        extra = _adapters(module)
        module = module.base_layer
    if type(module) is nn.Linear:
        weight = module.weight.detach()
    elif type(module) is Conv1D:
        weight = module.weight.detach().t()
    else:
        raise Unsuitable(f"a linear module of type {type(module).__name__}")
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        raise Unsuitable("weights that do not lie together")
    return Linear(weight, None if module.bias is None else module.bias.detach(), tuple(extra))


def _adapters(module: Any) -> list[tuple[Tensor, Tensor]]:
    """(A, scaled B) of each LoRA adapter that is active and not merged into the base."""
    if module.merged and module.disable_adapters:
        raise Unsuitable("a merged adapter that is switched off")
    if module.merged or module.disable_adapters:
        return []
    found = []
    for name in module.active_adapters:
        if name not in module.lora_A:
            continue
        down, up = module.lora_A[name], module.lora_B[name]
        if module.use_dora.get(name) or getattr(module, "lora_variant", {}).get(name) or up.bias is not None:
            raise Unsuitable("an adapter that is more than two products")
        found.append((_computed(down.weight), _computed(up.weight) * module.scaling[name]))
    return found
