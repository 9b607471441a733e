"""The model card of a merged model: its own way of use, and what the source's card says that still holds.

The source's card is the one that hone wrote, if there is one (`report/card.py`); of any other, only its head is taken.

>>> print(merged_card("merged", "AutoModelForCausalLM", "About it.", "distilgpt2", ""))      # doctest: +SKIP
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

from hone.config.dump import flow

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
HEAD = re.compile(r"---\n(.*?)\n---\n?", re.DOTALL)
FENCE = re.compile(r"^(`{3,})python\n(.*?)\n\1$", re.DOTALL | re.MULTILINE)
KEPT = ("Prompt", "Classes", "Example", "Before and after", "Limits", "How it was trained")
NO_LICENCE = "# license: not known. Fill it in before you upload: the licences of base and rows bind you."
TAGS = {
    "AutoModelForCausalLM": "text-generation",
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForSeq2SeqLM": "text2text-generation",
}
CALLS = {
    "AutoModelForCausalLM": "print(tokenizer.decode(model.generate(**inputs)[0], skip_special_tokens=True))",
    "AutoModelForSequenceClassification": "print(model.config.id2label[model(**inputs).logits.argmax().item()])",
    "AutoModelForSeq2SeqLM": "print(tokenizer.decode(model.generate(**inputs)[0], skip_special_tokens=True))",
}


def merged_card(name: str, loader: str, about: str, hub_base: str | None, before: str) -> str:
    """README.md of a merged model.

    Args:
        name: of its folder. loader: the class of transformers that loads it. about: what was merged, and how exactly.
        hub_base: the base's name on the hub, if it has one. before: the source's own card, empty if there is none.
    """
    found = HEAD.match(before)
    body = before[found.end() :] if found else before
    head = _read(found[1] if found else "")
    sections = _sections(body)
    ours = "Before and after" in sections
    parts = [_head(head, loader, hub_base), f"# {name}"]
    parts += [*(sections[""] if ours else []), about]
    parts += ["## Use", *_use(name, loader, "\n\n".join(sections.get("Use", [])) if ours else "")]
    for title in KEPT if ours else ():
        if title in sections:
            parts += [f"## {title}", *sections[title]]
            measured = title == "Before and after" and any("| --- " in text for text in sections[title])
            if measured and head.get("library_name") == "peft":
                parts.append("Measured with base and adapter side by side.")
    return "\n\n".join(parts) + "\n"


def kept_head(before: str, library: str) -> str:
    """The head of a card for the same model in another form: licence, data, tags and base stay."""
    found = HEAD.match(before)
    head = _read(found[1] if found else "")
    lines = _head(head, "AutoModelForCausalLM", None).splitlines()
    return "\n".join(f"library_name: {library}" if line.startswith("library_name:") else line for line in lines)


def kept_sections(before: str, titles: Sequence[str]) -> list[str]:
    """Sections of a card that hone wrote, as they are; nothing of any other card."""
    found = HEAD.match(before)
    sections = _sections(before[found.end() :] if found else before)
    if "Before and after" not in sections:
        return []
    return [part for title in titles if title in sections for part in (f"## {title}", *sections[title])]


def _read(head: str) -> dict[str, Any]:
    try:
        found = YAML(typ="safe").load(head)
    except YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def _head(before: dict[str, Any], loader: str, hub_base: str | None) -> str:
    """The source's head, of a whole model: licence, data and tags stay."""
    tags = before.get("tags")
    kept = [str(tag) for tag in tags if not str(tag).startswith("base_model:")] if isinstance(tags, list) else []
    front: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": before.get("pipeline_tag", TAGS[loader])}
    front["tags"] = list(dict.fromkeys(["hone", *(tag for tag in kept if tag not in ("lora", "transformers"))]))
    named = str(before.get("base_model", ""))
    if hub_base or (HUB_NAME.fullmatch(named) and not Path(named).exists()):
        front |= {"base_model": hub_base or named, "base_model_relation": "finetune"}
    front |= {key: before[key] for key in ("license", "datasets") if key in before}
    lines = [f"{key}: {flow(value)}" for key, value in front.items()]
    return "\n".join(["---", *lines, *([] if "license" in front else [NO_LICENCE]), "---"])


def _sections(body: str) -> dict[str, list[str]]:
    """Its paragraphs by heading, those before the first under ""; a listing is one paragraph, whatever is in it."""
    found: dict[str, list[str]] = {"": []}
    title, fence, lines = "", "", list[str]()

    def close() -> None:
        if text := "\n".join(lines).strip("\n"):
            found[title].append(text)
        lines.clear()

    for line in body.splitlines():
        ticks = re.match(r"`{3,}", line)
        if not fence and line.startswith("# "):
            continue
        if not fence and line.startswith("## "):
            close()
            title = line[3:].strip()
            found.setdefault(title, [])
            continue
        if not fence and not line.strip():
            close()
            continue
        lines.append(line)
        if ticks and not fence:
            fence = ticks[0]
        elif fence and line.strip() == fence:
            fence = ""
    close()
    trained = found.get("How it was trained", [])  # its last line names files that are in the adapter's folder only
    found["How it was trained"] = [text for text in trained if not text.startswith("More: ")]
    return {title: texts for title, texts in found.items() if texts or not title}


def _use(name: str, loader: str, before: str) -> list[str]:
    """The source's snippet without PEFT, with its prompt; what `hone` command there is stays true."""
    first = [
        f"from transformers import {loader}, AutoTokenizer",
        "",
        f"name = {name!r}  # this folder, or its name on the hub",
    ]
    first += ["tokenizer = AutoTokenizer.from_pretrained(name)", f"model = {loader}.from_pretrained(name)"]
    snippet = FENCE.search(before)
    lines = snippet[2].split("\n") if snippet else []
    begins = next((i for i, line in enumerate(lines) if line.startswith("model = ")), None)
    asked = (
        lines[begins + 1 :] if begins is not None else ["inputs = tokenizer('…', return_tensors='pt')", CALLS[loader]]
    )
    ticks = snippet[1] if snippet else "```"
    with_hone = re.search(r"^With hone: .*$", before, re.MULTILINE)
    code = "\n".join([f"{ticks}python", *first, *asked, ticks])
    return [code, *([with_hone[0]] if with_hone else [])]
