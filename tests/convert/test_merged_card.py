"""The card of a merged model: its own snippet, the adapter's head and numbers, no reference to what was not copied."""

import ast
import re
from typing import Any

import pytest
from huggingface_hub import ModelCard

from hone.convert.merged_card import NO_LICENCE, merged_card

ADAPTERS = """---
library_name: peft
pipeline_tag: text-generation
tags: [hone, lora, hone-base]
license: mit
datasets: [org/rows]
---

# lora

`hone-base`, the small model, trained with hone (causal, lora).

Better: loss fell.

## Use

````python
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

name = 'lora'  # this folder, or its name on the hub
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoPeftModelForCausalLM.from_pretrained(name)
inputs = tokenizer('def f():```', return_tensors='pt')
output = model.generate(**inputs, max_new_tokens=64, do_sample=False)[0]
````

PEFT looks for the base where `adapter_config.json` says; `hone export` makes one model of both.

With hone: `hone generate NAME -p '…'`. It writes the prompt in the form of the training.

## Prompt

The form:

```
# Not a title

## Use
```

## Before and after

| | loss |
| --- | --- |
| base | 5 |
| tuned | 4 |

## Limits

- Few rows.

## How it was trained

| hone | 0.1 |

More: `report.md`, `env.json` (versions, hardware, fingerprints of the data).
"""


def front(card: str) -> dict[str, Any]:
    found: dict[str, Any] = ModelCard(card).data.to_dict()
    return found


def code_of(card: str) -> str:
    code = re.findall(r"^(`+)python\n(.*?)\n\1$", card, re.DOTALL | re.MULTILINE)
    assert len(code) == 1
    ast.parse(code[0][1])
    return str(code[0][1])


def test_it_says_how_the_merged_model_is_used_and_keeps_what_holds() -> None:
    card = merged_card("merged", "AutoModelForCausalLM", "About it.", None, ADAPTERS)
    data = front(card)
    assert (data["library_name"], data["pipeline_tag"], data["license"]) == ("transformers", "text-generation", "mit")
    assert data["tags"] == ["hone", "hone-base"] and data["datasets"] == ["org/rows"] and NO_LICENCE not in card
    code = code_of(card)
    assert "from transformers import AutoModelForCausalLM, AutoTokenizer" in code and "name = 'merged'" in code
    assert "inputs = tokenizer('def f():```', return_tensors='pt')" in code and "max_new_tokens=64" in code
    for kept in ("`hone-base`, the small model, trained", "Better: loss fell.", "About it.", "| tuned | 4 |", "- Few",
                 "```\n# Not a title\n\n## Use\n```", "With hone: `hone generate NAME", "| hone | 0.1 |"):  # fmt: skip
        assert kept in card
    assert "Measured with base and adapter" in card
    unmeasured = ADAPTERS.replace("| --- | --- |", "").replace("| ", "")
    assert "Measured with" not in merged_card("m", "AutoModelForCausalLM", "", None, unmeasured)
    for gone in ("peft", "PEFT", "'lora'", "# lora", "report.md", "env.json", "hone export"):
        assert gone not in card


@pytest.mark.parametrize(
    "loader", ["AutoModelForCausalLM", "AutoModelForSequenceClassification", "AutoModelForSeq2SeqLM"]
)
def test_another_adapters_card_gives_its_head_only(loader: str) -> None:
    theirs = (
        "---\nbase_model: org/base\ntags: ['base_model:adapter:org/base', lora]\n---\n# Model Card\n\n## Use\n\nMore."
    )
    for text, base in ((theirs, "org/base"), ("", None), ("---\n: [\n---\nx", None)):
        card = merged_card("merged", loader, "About it.", None, text)
        data = front(card)
        assert data.get("base_model") == base and data["tags"] == ["hone"] and NO_LICENCE in card
        assert f"model = {loader}.from_pretrained(name)" in code_of(card) and "More." not in card
    assert front(merged_card("m", loader, "About it.", "org/other", theirs))["base_model"] == "org/other"
