"""Put the trained base model into the package: bfloat16 weights, tokenizer, and a card with what was measured.

    python base_model/base_ship.py --corpus out/base --bits out/base/bits.md        # writes src/hone/assets/base

The card's continuations are of held-out functions, evenly spaced over all that have a docstring: nobody picks them.
"""

import argparse
import ast
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hone.config.load import load_config
from hone.config.sections.generate import GenerateSection
from hone.files import read_json, write_text_atomic
from hone.inference.generate import generate_texts, ready_model
from hone.manifest import describe_model
from hone.runs import Run

ASSETS = Path(__file__).resolve().parents[1] / "src" / "hone" / "assets" / "base"
STOPS = ["\ndef ", "\nclass ", "\n@", "\nif "]
HEAD_BYTES, NEW_TOKENS, N_CONTINUATIONS = 600, 64, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder with held_out.jsonl and corpus.md")
    parser.add_argument("--runs", type=Path, nargs=2, metavar=("RUN", "LAST"), help="default: run and last in --corpus")
    parser.add_argument("--bits", type=Path, required=True, help="what benchmarks/base_model.py printed")
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder to write")
    options = parser.parse_args()
    first, last = (Run(folder) for folder in options.runs or (options.corpus / "run", options.corpus / "last"))
    save(last, options.out)
    model, tokenizer = ready_model(str(options.out))  # what is shipped, not what was trained
    heads = list(evenly(list(held_out_heads(options.corpus / "held_out.jsonl")), N_CONTINUATIONS))
    settings = GenerateSection(max_new_tokens=NEW_TOKENS, stop=STOPS)
    answers = generate_texts(model, tokenizer, [head.text for head in heads], settings, "plain")
    shown = [(head, texts[0]) for head, texts in zip(heads, answers, strict=True)]
    facts = Facts(first, last, model.num_parameters())
    packages, bits = (path.read_text(encoding="utf-8") for path in (options.corpus / "corpus.md", options.bits))
    write_text_atomic(options.out / "README.md", card(facts, packages, bits, shown))
    print(f"wrote {options.out}: {sum(path.stat().st_size for path in options.out.iterdir()):,} bytes")


def save(run: Run, folder: Path) -> None:
    """The run's model in bfloat16 and its tokenizer, as `from_pretrained` reads them."""
    import torch
    from transformers import AutoModelForCausalLM

    from hone.data.tokenizer import load_tokenizer, save_tokenizer

    model = AutoModelForCausalLM.from_pretrained(run.folder, dtype=torch.bfloat16)
    model.config.use_cache = True
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    save_tokenizer(load_tokenizer(run.folder), folder)
    for path in folder.iterdir():
        path.chmod(0o644)
    describe_model(folder)


# ---- continuations --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Head:
    """The beginning of a held-out function: everything up to the end of its docstring."""

    place: str
    text: str


def held_out_heads(path: Path) -> Iterator[Head]:
    """Top-level functions with a docstring, in the order of the file."""
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        lines = row["text"].splitlines()
        for node in ast.parse(row["text"]).body:
            if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) and len(node.body) > 1:
                text = "\n".join(lines[node.lineno - 1 : node.body[0].end_lineno])
                if len(text.encode()) <= HEAD_BYTES:
                    yield Head(f"{row['package']}, {row['path']}", text)


def evenly(items: list[Head], n: int) -> Iterator[Head]:
    """n of the items, as far apart as they can be."""
    return (items[(2 * i + 1) * len(items) // (2 * n)] for i in range(n))


# ---- the card ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Facts:
    """Two runs and the model that came of them."""

    first: Run
    last: Run
    n_parameters: int

    def curve(self) -> list[tuple[int, float]]:
        """(tokens read so far, bits per byte on the held-out pieces) of both runs, one behind the other."""
        tuned = self.last.tuned
        assert tuned is not None and tuned.n_bytes, f"{self.last.folder} is not finished"
        per_nat = tuned.n_tokens / tuned.n_bytes / math.log(2)
        points, before = [], 0
        for run in (self.first, self.last):
            tokens = before
            for line in run.metric_lines():
                tokens = before + line.get("tokens", tokens - before)
                if "eval_loss" in line:
                    points.append((tokens, line["eval_loss"] * per_nat))
            before = tokens
        return points

    def tokens(self) -> int:
        return sum(
            max(line["tokens"] for line in run.metric_lines() if "tokens" in line) for run in (self.first, self.last)
        )

    def hours(self) -> float:
        return sum(float(run.status["seconds"]) for run in (self.first, self.last)) / 3600


def card(facts: Facts, packages: str, bits: str, shown: list[tuple[Head, str]]) -> str:
    """Markdown: what the model is for and not for, what it was trained on, what was measured, and what it writes."""
    config: Any = load_config(facts.first.folder / "config.resolved.yaml")
    shape = config.model.config_overrides
    versions = read_json(facts.last.folder / "env.json").get("versions", {})
    torch_version = f" (torch {versions['torch']})" if "torch" in versions else ""
    curve = "\n".join(f"| {tokens / 1e6:.1f} | {value:.3f} |" for tokens, value in facts.curve())
    texts = "\n".join(
        f"`{head.place}`\n\n```python\n{head.text}\n# …\n{answer.strip(chr(10)).rstrip()}\n```\n"
        for head, answer in shown
    )
    return f"""---
library_name: transformers
pipeline_tag: text-generation
license: mit
language: code
tags: [hone, python]
---

# hone-base

A GPT-2 of {facts.n_parameters:,} weights ({shape["n_layer"]} blocks of width {shape["n_embd"]}, {shape["n_positions"]}
positions, 8,192 tokens, bfloat16) that has read Python. hone made it from random weights (`make base`) and ships it,
so that fine-tuning, tests and lessons work without a network.

**For**: the demo, tests, learning, trying a recipe out. It knows Python's syntax and idioms, and little else.
**Not for**: writing programs that anybody relies on, any other language, facts, chat, or judging a method by its
absolute numbers. It repeats what its corpus says, mistakes and names included.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
```

In hone its name is `hone-base`: `hone generate hone-base -p 'def fibonacci(n):'`, `model_name_or_path: hone-base`.

## Training

{facts.tokens():,} tokens in {facts.hours():.1f} hours on two CPU cores (AVX512-BF16){torch_version}:
`base_model/base.yaml` at a constant rate, then `base_model/base-last.yaml` down to zero over the plainest code.
Muon for the hidden matrices, AdamW for the rest. Bits per byte on pieces of held-out files while it read:

| million tokens | bits per byte |
| ---: | ---: |
{curve}

## Held-out packages

All models pay for every byte of the same files (`python benchmarks/base_model.py --model hone-base`).

{bits.strip()}

## What it writes

Ten heads of held-out functions, evenly spaced over all with a docstring, continued greedily by up to {NEW_TOKENS}
tokens; what stands behind `# …` is the model's.

{texts}
## Corpus

Python source of the packages below, each under a permissive licence that its own metadata names. Left out: tests,
vendored and generated files, tables, near copies, and training files that share a passage with a held-out one; e-mail
addresses and keys are masked. Weights and card are under hone's licence.

{packages.strip()}
"""


if __name__ == "__main__":
    main()
