"""GPT-2 in the open: every operation of the model, in the order in which it happens, in plain PyTorch.

For reading, for checking other implementations against, and for training loops of one's own (`examples/plain_loop.py`).
No cache and no fused attention: runs of `hone train` use transformers' GPT-2, which computes the same. The architecture
is that of Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3; where the paper is
silent, that of the code released with it: the tanh form of GELU, affine maps stored as (inputs, outputs).

Shapes: B sequences, T tokens, C = n_embd channels, H heads of D = C / H channels, V tokens in the vocabulary.
Parameter names are those of transformers' GPT-2 without its leading "transformer.".

>>> model = load_gpt2(Path("gpt2"))                      # doctest: +SKIP
>>> model(torch.tensor([[15496, 11, 995]])).shape        # doctest: +SKIP
torch.Size([1, 3, 50257])
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hone.errors import HoneError
from hone.files import disk_errors, follow_umask, read_json, write_json_atomic

LAYER_NORM_EPSILON = 1e-5
INITIAL_SPREAD = 0.02  # standard deviation of initial weights


@dataclass(frozen=True)
class GPT2Config:
    """The sizes of a GPT-2, under the names of the released hparams.json; the defaults are the smallest model's."""

    n_vocab: int = 50257
    n_ctx: int = 1024
    n_embd: int = 768
    n_head: int = 12
    n_layer: int = 12


SIZES = {  # the four released models, by their millions of parameters
    "124M": GPT2Config(),
    "355M": GPT2Config(n_embd=1024, n_head=16, n_layer=24),
    "774M": GPT2Config(n_embd=1280, n_head=20, n_layer=36),
    "1558M": GPT2Config(n_embd=1600, n_head=25, n_layer=48),
}


class Affine(nn.Module):
    """x @ weight + bias. The weight is (inputs, outputs), the transpose of nn.Linear's."""

    def __init__(self, inputs: int, outputs: int, spread: float = INITIAL_SPREAD) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs).normal_(0.0, spread))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias  # (…, inputs) -> (…, outputs)


def residual_spread(config: GPT2Config) -> float:
    """Spread of the maps that write to the residual stream: 2 n_layer of them add up, so each starts smaller."""
    return INITIAL_SPREAD / math.sqrt(2 * config.n_layer)


class Attention(nn.Module):
    """Each token gathers from itself and those before it; H heads do so independently."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.c_attn = Affine(config.n_embd, 3 * config.n_embd)  # query, key and value at once
        self.c_proj = Affine(config.n_embd, config.n_embd, residual_spread(config))

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        D = C // self.n_head
        query, key, value = self.c_attn(x).split(C, dim=-1)  # each (B, T, C)
        query = query.view(B, T, self.n_head, D).transpose(1, 2)  # (B, H, T, D)
        key = key.view(B, T, self.n_head, D).transpose(1, 2)
        value = value.view(B, T, self.n_head, D).transpose(1, 2)
        scores = query @ key.transpose(-2, -1) / math.sqrt(D)  # (B, H, T, T): row t scores what token t looks at
        later = torch.ones(T, T, dtype=torch.bool, device=x.device).triu(diagonal=1)
        weights = scores.masked_fill(later, float("-inf")).softmax(dim=-1)  # each row sums to 1
        gathered = weights @ value  # (B, H, T, D)
        joined: Tensor = self.c_proj(gathered.transpose(1, 2).reshape(B, T, C))
        return joined


class MLP(nn.Module):
    """Each token by itself: to four times the width, through GELU (its tanh form), and back."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.c_fc = Affine(config.n_embd, 4 * config.n_embd)
        self.c_proj = Affine(4 * config.n_embd, config.n_embd, residual_spread(config))

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.gelu(self.c_fc(x), approximate="tanh")  # (B, T, 4C)
        back: Tensor = self.c_proj(hidden)  # (B, T, C)
        return back


class Block(nn.Module):
    """Attention, then the MLP; each reads a normalised copy of the residual stream and adds what it found to it."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=LAYER_NORM_EPSILON)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=LAYER_NORM_EPSILON)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT2(nn.Module):
    """Token ids (B, T), T <= n_ctx, to logits (B, T, V); logits[:, t] score the token at t + 1."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.n_vocab, config.n_embd)
        self.wpe = nn.Embedding(config.n_ctx, config.n_embd)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=LAYER_NORM_EPSILON)
        for table in (self.wte, self.wpe):
            nn.init.normal_(table.weight, 0.0, INITIAL_SPREAD)

    def forward(self, ids: Tensor) -> Tensor:
        positions = torch.arange(ids.shape[1], device=ids.device)
        x = self.wte(ids) + self.wpe(positions)  # (B, T, C): what the token is, and where
        for block in self.h:
            x = block(x)
        x = self.ln_f(x)
        return x @ self.wte.weight.T  # (B, T, V): the head is the embedding itself, which counts once


# ---- weights in and out ---------------------------------------------------------------------------------------------


def fill(model: GPT2, weights: Mapping[str, Tensor], where: str | None = None) -> GPT2:
    """Put weights into the model (which may be on the meta device) and return it.

    Args:
        weights: by transformers' names, with or without "transformer."; its copy of the head and its stored attention
            masks (`attn.bias`, `attn.masked_bias` of old files) are not weights and are passed over.

    Raises:
        HoneError: a weight is missing, unknown or of another shape.
    """
    given = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}
    for name in [n for n in given if n == "lm_head.weight" or n.endswith((".attn.bias", ".attn.masked_bias"))]:
        del given[name]
    wanted = model.state_dict()
    for name in sorted(wanted.keys() | given.keys()):
        if name not in given or name not in wanted:
            problem = f"{name} is missing" if name in wanted else f"{name} is not a weight of such a GPT-2"
            raise HoneError(problem, where=where, fix=f"expected the weights of {model.config}")
        if given[name].shape != wanted[name].shape:
            shapes = tuple(given[name].shape), tuple(wanted[name].shape)
            raise HoneError(f"{name} is {shapes[0]}, expected {shapes[1]}", where=where, fix=f"by {model.config}")
    model.load_state_dict(given, assign=True)
    return model.requires_grad_(True)


def load_gpt2(folder: Path) -> GPT2:
    """A GPT-2 from a model folder as transformers saves it (config.json, model.safetensors), in float32.

    Raises:
        HoneError: no such files, another architecture, or a variant of GPT-2 that computes something else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise HoneError(f"no {name} here", where=str(folder), fix="name the folder of a GPT-2 saved in one piece")
    described = read_json(folder / "config.json")
    ours = {"model_type": "gpt2", "activation_function": "gelu_new", "layer_norm_epsilon": LAYER_NORM_EPSILON,
            "n_inner": None, "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False,
            "tie_word_embeddings": True}  # fmt: skip
    for key, value in ours.items():
        if described.get(key, value) != value:
            raise HoneError(
                f"{key} is {described[key]!r}, this model needs {value!r}",
                where=str(folder / "config.json"),
                fix="load it with hone.load or transformers",
            )
    theirs = {"n_vocab": "vocab_size", "n_ctx": "n_positions"}  # the other sizes are called the same
    names = {name: theirs.get(name, name) for name in asdict(GPT2Config())}
    config = GPT2Config(**{ours: int(described[name]) for ours, name in names.items() if name in described})
    try:
        weights = load_file(folder / "model.safetensors")
    except SafetensorError as error:
        raise HoneError(f"damaged: {error}", where=str(folder / "model.safetensors"), fix="copy it again") from error
    with torch.device("meta"):
        model = GPT2(config)
    return fill(model, {name: tensor.float() for name, tensor in weights.items()}, where=str(folder))


def save_gpt2(model: GPT2, folder: Path, *, end_id: int | None = None) -> None:
    """Write config.json and model.safetensors as transformers does: its `from_pretrained` and `load_gpt2` read them.

    Args:
        end_id: the tokenizer's end token; None where nobody needs to know.
    """
    from safetensors.torch import save_file

    config = model.config
    described = {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "dtype": "float32",
        "vocab_size": config.n_vocab, "n_positions": config.n_ctx, "n_embd": config.n_embd, "n_head": config.n_head,
        "n_layer": config.n_layer, "activation_function": "gelu_new", "layer_norm_epsilon": LAYER_NORM_EPSILON,
        "tie_word_embeddings": True, "bos_token_id": end_id, "eos_token_id": end_id,
    }  # fmt: skip
    with disk_errors(folder, "name another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        weights = {f"transformer.{name}": tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        follow_umask(folder)
    write_json_atomic(folder / "config.json", described)
