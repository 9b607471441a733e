"""Tiny classifiers and encoder-decoders with their tokenizers, and rows to train them on.

Plain functions, imported by the tests of the tasks.
"""

from typing import Any

QUIET = {
    "use_cpu": True,
    "logging_steps": 1,
    "sample_prompts": 0,
    "save_strategy": "no",
    "max_length": 64,
    "bootstrap_resamples": 200,
}
GPT2 = {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 128}
GPT2_DRY = {**GPT2, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
BERT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}
T5 = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
BART = {
    "d_model": 32,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "max_position_embeddings": 64,
    "dropout": 0.0,
}
WORDS = {"good": ("sunny", "bright", "happy"), "bad": ("rainy", "dark", "sad")}


def labelled_rows(n: int, text: str = "text", label: str = "label") -> list[dict[str, Any]]:
    """n separable rows of uneven length, all different, two good for each bad one."""
    rows = []
    for i in range(n):
        name = "bad" if i % 3 == 0 else "good"
        rows.append({text: f"day {i} is {WORDS[name][i // 3 % 3]}{' indeed' * (i % 5)}", label: name})
    return rows


def pair_rows(n: int) -> list[dict[str, Any]]:
    """n rows of uneven length, all different: two numbers change places."""
    return [{"source": f"swap {i} {i * 7 % 13}", "target": f"{i * 7 % 13} {i}" + "!" * (i % 4)} for i in range(n)]


def bert_tokenizer(words: list[str]) -> Any:
    """Whole words between [CLS] and [SEP], with padding and unknown tokens of its own."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted(set(words))])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )


def framed_tokenizer(prefix: str = "", suffix: str = "</s>") -> Any:
    """Words in the frame of T5 (`… </s>`) or of BART (`<s> … </s>`); padding has an id of its own."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "a", "b", "c", "d", "e"])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single=f"{prefix} $A {suffix}".strip(), special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", eos_token="</s>", bos_token="<s>"
    )
