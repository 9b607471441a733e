"""What is measured: one `Table` for each kind of training, with its model's shape, its settings and its set-ups.

Nothing of torch is imported here: the parent process only reads these.
"""

from dataclasses import dataclass, field
from typing import Any

GPT2_DROPOUT = ("resid_pdrop", "embd_pdrop", "attn_pdrop")


@dataclass(frozen=True)
class Table:
    """One table of the benchmark.

    model_type, shape: of the random weights; the vocabulary is `vocab_size`, or the tokenizer's own where that is None.
    dtype: of the saved weights. method: keys of hone's config, spelled out for the peers in `peers.apply_method`.
    bf16: False computes everything in float32, whatever the set-up asks for.
    batch: rows of a step. warm_up: steps before the first measured one. epochs: a turn is an epoch over `rows` rows.
    alive: children stay between turns; False starts a fresh process for every turn.
    start_up: the time until the first step has ended is the figure of interest.
    """

    says: str
    model_type: str
    shape: dict[str, Any]
    setups: tuple[str, ...]
    vocab_size: int | None = 50257
    dtype: str = "float32"
    method: dict[str, Any] = field(default_factory=lambda: {"method": "full"})
    bf16: bool = True
    learning_rate: float = 5e-5
    batch: int = 8
    warm_up: int = 2
    steps: int = 6
    rounds: int = 3
    epochs: bool = False
    rows: int | None = None
    alive: bool = True
    start_up: bool = False


DISTILGPT2 = {"n_layer": 6, "n_embd": 768, "n_head": 12, "n_positions": 1024}

TABLES = {
    "distilgpt2": Table(
        says="full fine-tuning, distilgpt2's shape",
        model_type="gpt2",
        shape=DISTILGPT2,
        setups=("sources", "trainer-tuned", "expert", "trl-default", "trl-tuned", "nanogpt-style", "hone"),
    ),
    "float32": Table(
        says="full fine-tuning, distilgpt2's shape, everything in float32",
        model_type="gpt2",
        shape=DISTILGPT2,
        setups=("sources", "trainer-tuned", "expert", "trl-tuned", "nanogpt-style", "hone"),
        bf16=False,
    ),
    "gpt2-medium-top4": Table(
        says="GPT-2 355M's shape, top 4 of 24 blocks and the final norm trained",
        model_type="gpt2",
        shape={"n_layer": 24, "n_embd": 1024, "n_head": 16, "n_positions": 1024},
        setups=("sources", "trainer-tuned", "expert", "trl-tuned", "hone"),
        method={"method": "freeze", "num_unfrozen_layers": 4},
        warm_up=0,
        epochs=True,
        rows=32,
    ),
    "qwen2-lora": Table(
        says="Qwen2-1.5B's shape in bfloat16, LoRA r 64 on q_proj and v_proj",
        model_type="qwen2",
        shape={
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32768,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            "tie_word_embeddings": True,
        },
        setups=("sources", "expert", "trl-default", "trl-tuned", "hone"),
        vocab_size=151936,
        dtype="bfloat16",
        method={
            "method": "lora",
            "lora_r": 64,
            "lora_alpha": 128,
            "lora_dropout": 0.0,
            "lora_target_modules": ["q_proj", "v_proj"],
        },
        learning_rate=1e-4,
        batch=1,
        warm_up=1,
        alive=False,
    ),
    "tiny": Table(
        says="a Llama of 260,000 weights beside its embeddings, 8 rows in all, one step an epoch",
        model_type="llama",
        shape={
            "hidden_size": 64,
            "intermediate_size": 172,
            "num_hidden_layers": 5,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "max_position_embeddings": 512,
            "tie_word_embeddings": True,
        },
        setups=("trainer", "expert", "hone"),
        vocab_size=None,
        bf16=False,
        learning_rate=1e-3,
        warm_up=1,
        steps=20,
        rounds=5,
        rows=8,
        alive=False,
        start_up=True,
    ),
}
