"""The section `model`: which weights, tokenizer and number format a run starts from."""

from typing import Literal

from pydantic import JsonValue

from hone.config.fields import Section, key


class ModelSection(Section):
    """Either existing weights (`model_name_or_path`) or a fresh architecture (`model_type`), never both."""

    model_name_or_path: str | None = key(
        None,
        what="The model to start from: a hub name or a folder with weights.",
        why="What the model already knows matters more than any other setting; fine-tuning steers it, it adds little.",
        how="A value that starts with . / or ~, or names a folder (beside the YAML file; on the command line, in the "
        "folder you are in), is a folder; hone-base is the small bundled model for Python; else a hub name.",
        benefit="A base trained on similar text needs fewer rows and a lower learning rate.",
        tradeoff="Too large: out of memory, or hours per epoch. Too small: the loss stops early at a high value, and "
        "answers are fluent but wrong.",
        cpu="distilgpt2 (82M), gpt2 (124M); up to 1.5B with LoRA and bfloat16",
        gpu="0.5B to 8B; full training needs about 16 bytes a weight, LoRA about 2 to 4",
        maps_to="transformers.PreTrainedModel.from_pretrained.pretrained_model_name_or_path",
    )
    offline_model_name_or_path: str | None = key(
        None,
        what="The model to start from where model_name_or_path is a hub name that cannot be had: not in the hub's "
        "cache, and no network.",
        why="A recipe should run on a plane, too.",
        how="hone-base is the small bundled model for Python; any folder will do. A one-line notice is logged. Its own "
        "tokenizer, all linear layers for lora, and no revision come with it; with hone-base also its own learning "
        "rate, unless the command line gives one.",
        benefit="The same command works with and without a network.",
        tradeoff="Set: without a network the run is about another, usually smaller model. null: it stops and says why.",
        cpu="null, or hone-base to try out",
        gpu="null",
        maps_to=None,
    )
    tokenizer_name_or_path: str | None = key(
        None,
        what="The tokenizer: a hub name or a folder; null takes the model's own.",
        why="From scratch there is no model to take it from, and a tokenizer of your own suits code or another script.",
        how="Read with AutoTokenizer. Weights from elsewhere only understand the token ids they were trained with.",
        benefit="A fitting vocabulary spends fewer tokens on the same text: more context, faster epochs.",
        tradeoff="Another tokenizer on existing weights: the starting loss is far above the base's, often near "
        "ln(vocabulary), about 10.8 for 50,257 tokens.",
        cpu="null; from scratch your own with 8,000 to 32,000 entries",
        gpu="null; from scratch 32,000 to 100,000 entries",
        maps_to="transformers.PreTrainedTokenizerBase.from_pretrained.pretrained_model_name_or_path",
    )
    model_revision: str | None = key(
        None,
        what="Branch, tag or commit of the hub model; null takes its main branch.",
        why="A hub name can point to other weights tomorrow; a commit cannot.",
        how="Passed to the download; folders ignore it. Quote it when it looks like a number.",
        benefit="A run that can be repeated, and numbers that stay comparable.",
        tradeoff="Not pinned: results move without a change of yours. Pinned: fixes of the author do not arrive.",
        cpu="null to try out, a commit hash for results you report",
        gpu="null to try out, a commit hash for results you report",
        maps_to="transformers.PreTrainedModel.from_pretrained.revision",
    )
    model_type: str | None = key(
        None,
        what="Architecture of a model trained from scratch, e.g. gpt2; its weights start random.",
        why="For a new language, a new kind of code, or to see how pre-training works.",
        how="Any decoder name that AutoConfig knows; config_overrides sets its size, the tokenizer its vocabulary. "
        "Excludes model_name_or_path.",
        benefit="No inherited habits, licence or vocabulary.",
        tradeoff="Needs far more text: with about 20 tokens a weight, 10M weights want 200M tokens. With a few "
        "megabytes the training loss falls and the validation loss rises.",
        cpu="gpt2 with 4 layers of width 128 to 256",
        gpu="gpt2 or llama, 100M weights and more",
        maps_to="transformers.AutoConfig.for_model.model_type",
    )
    config_overrides: dict[str, JsonValue] = key(
        {},
        what="Architecture keys for a model from scratch, e.g. {n_layer: 4, n_head: 4, n_embd: 256}.",
        why="The defaults of an architecture are its published size, usually too large for a laptop.",
        how="Given to AutoConfig over the defaults. The width must be a multiple of the number of heads.",
        benefit="A model as large as your text and your hours allow.",
        tradeoff="Too large: slow, and it memorizes a small corpus. Too small: training and validation loss stay "
        "equal and high.",
        cpu="{n_layer: 4, n_head: 4, n_embd: 256}, about 3M weights besides the embeddings",
        gpu="{} (gpt2's own: 12 layers, 12 heads, width 768)",
        maps_to="transformers.AutoConfig.for_model",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = key(
        "float32",
        what="Number format in which the weights are held.",
        why="It decides the memory of the weights: 4 bytes each in float32, 2 in the others.",
        how="Set when loading. To compute in bfloat16 but keep exact weights, leave float32 here and set bf16: true.",
        benefit="Half the memory with bfloat16, so that a base twice as large fits; fine for LoRA, whose frozen "
        "weights never change.",
        tradeoff="Trained bfloat16 weights have 8 significant bits: at small learning rates updates round to nothing "
        "and the loss stands still. float16 overflows at 65,504: loss nan.",
        cpu="float32; bfloat16 for LoRA on 1B and more",
        gpu="float32 with bf16: true; bfloat16 for LoRA on large models",
        maps_to="transformers.PreTrainedConfig.dtype",
    )
    attn_implementation: str = key(
        "sdpa",
        what="Which code computes attention: sdpa, eager, flash_attention_2, or another that transformers offers.",
        why="Attention takes a growing part of the time as rows get long, and the naive form stores a square matrix.",
        how="sdpa is PyTorch's fused function and needs no extra package; eager is the readable reference.",
        benefit="sdpa never stores the length x length matrix where a fused kernel applies.",
        tradeoff="eager: out of memory at long rows. flash_attention_2: needs its package, a recent GPU and 16-bit "
        "numbers, and fails at loading without them.",
        cpu="sdpa",
        gpu="sdpa; flash_attention_2 where it is installed and rows exceed 2,048 tokens",
        maps_to="transformers.PreTrainedModel.set_attn_implementation.attn_implementation",
    )
    trust_remote_code: bool = key(
        False,
        what="Whether Python code that comes with a hub model may run on this machine.",
        why="A few models ship their architecture as code instead of being part of transformers.",
        how="Read the repository's .py files first, and pin model_revision to the commit you have read.",
        benefit="Access to architectures that transformers does not contain.",
        tradeoff="true: whoever controls the repository runs code as you. false: such models are refused at loading.",
        cpu="false",
        gpu="false",
        maps_to="transformers.PreTrainedTokenizerBase.from_pretrained.trust_remote_code",
    )
