"""The kinds of models there are: which class of transformers builds and loads them, and how they differ.

>>> DECODER.continues, CLASSIFIER.continues
(True, False)
"""

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
)

from hone import bundled


@dataclass(frozen=True)
class ModelKind:
    """A kind of models.

    auto: has `from_pretrained` and `from_config`. architectures: the classes of configs that it can build.
    called, examples: in messages. peft: its name as a task of PEFT's.
    new_head: the head is not part of a base model. It scores what the data names (`Dataset.outputs`), begins at random,
    trains whole whatever the method, and is saved with an adapter.
    encoder_decoder: it reads one text and writes another, each of a length of its own.
    """

    auto: Any
    architectures: Container[type]
    called: str
    examples: str
    peft: str
    new_head: bool = False
    encoder_decoder: bool = False

    @property
    def continues(self) -> bool:
        """Whether it continues what it reads. Any other kind has to know the padding of a batch."""
        return not (self.new_head or self.encoder_decoder)


DECODER = ModelKind(
    AutoModelForCausalLM,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    called="a decoder (causal language model)",
    examples="gpt2 or llama",
    peft="CAUSAL_LM",
)
CLASSIFIER = ModelKind(
    AutoModelForSequenceClassification,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    called="a model that can classify",
    examples="bert, gpt2 or llama",
    peft="SEQ_CLS",
    new_head=True,
)
ENCODER_DECODER = ModelKind(
    AutoModelForSeq2SeqLM,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    called="an encoder-decoder",
    examples="t5 or bart",
    peft="SEQ_2_SEQ_LM",
    encoder_decoder=True,
)


def loading_fix(name: str, reason: str, kind: ModelKind = DECODER) -> str:
    """What to do about a model that a library refused for `reason`."""
    if "trust_remote_code" in reason or "custom code" in reason:
        return "its Python code was not run; trust_remote_code=true runs it as you: only where you have read it"
    if "attn" in reason or "ttention" in reason:
        return "set attn_implementation to sdpa or eager"
    if "Unrecognized configuration class" in reason:
        return f"name another kind of model: {kind.called}, such as {kind.examples}; or set task"
    if Path(name).is_dir():
        return "the folder is damaged or incomplete: copy or download it again, config.json and safetensors together"
    return (
        f"{bundled.suggest(name)}no folder of that name in {Path.cwd()}; a hub name needs a network "
        "(and HF_HUB_OFFLINE unset), and weights in safetensors"
    )
