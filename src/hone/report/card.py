"""The model card: README.md of a run folder, as the hub reads it. Says how to use the model before what it scored.

No path of the machine is in it: it is what most people upload.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML, YAMLError

from hone.bundled import NAME, resolve
from hone.config.dump import flow
from hone.config.sections.data import DataSection
from hone.config.sections.model import ModelSection
from hone.convert.merged_card import HUB_NAME, NO_LICENCE, TAGS
from hone.report.folder import Folder
from hone.report.markdown import fenced, inline
from hone.report.run_sections import data_lines
from hone.report.samples import sample_marks
from hone.report.verdict import passing, verdict_of
from hone.results import Measurement, SideBySide, side_by_side
from hone.results.contamination import Contamination, leaked
from hone.show import estimate, plural, unmeasured_classes

CLASSIFIES = "text-classification"
LOADERS = {tag: loader for loader, tag in TAGS.items()}
BUNDLED = "`hone-base`, the small model of Python code that comes with hone (a GPT-2 of 10 million weights)"
Front = dict[str, str | list[str]]
LONGEST_PROMPT = 500  # characters, in a snippet
SHOWN_CLASSES = 50


def model_card(folder: Folder, pipeline_tag: str) -> str:
    """Markdown with the front matter of the hub: use, prompt, numbers before and after, limits, how it was trained."""
    base, config = base_of(folder.settings.model), folder.settings
    parts = [_front_matter(folder, base, pipeline_tag), f"# {inline(folder.path.name)}"]
    parts.append(f"{base.described}, trained with hone ({config.method.task}, {config.method.method}).")
    if folder.comparison or folder.code_comparison:
        parts += [" ".join(inline(sentence) for sentence in verdict_of(folder).sentences)]
    example = _example(folder)
    parts += _use(folder, pipeline_tag, example)
    parts += _prompt(folder, pipeline_tag, example)
    parts += ["## Before and after", *_numbers(folder), "## Limits", _limits(folder, base, pipeline_tag)]
    parts += ["## How it was trained", _training(folder)]
    return "\n\n".join(part for part in parts if part) + "\n"


# ---- the base and the front matter -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Base:
    """The model that was trained. described: for a reader. hub: its name there, if it has one. licence: if known."""

    described: str
    hub: str | None = None
    licence: str | None = None


def base_of(model: ModelSection) -> Base:
    """What is known of the base without a network: by its name, its folder's card, or the hub's cache."""
    name = model.model_name_or_path
    if name is None:
        return Base(f"A {model.model_type} model with random weights at the start")
    if name == NAME and resolve(name) != name:
        return Base(BUNDLED, licence=_read_front(Path(resolve(name)) / "README.md").get("license"))
    if HUB_NAME.fullmatch(name) and not Path(name).exists():
        licence = _read_front(_cached_card(name)).get("license")
        return Base(f"[{name}](https://huggingface.co/{name})", name, licence)
    front = _read_front(Path(name) / "README.md")
    parent = front.get("base_model", "")
    hub = parent if HUB_NAME.fullmatch(parent) else None
    origin = f", itself made from {hub}" if hub else ""
    return Base(f"The local model `{Path(name).name}`{origin}", hub, front.get("license"))


def _cached_card(name: str) -> Path | None:
    """The card of a hub model, if the hub's cache has it; nothing is fetched."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "README.md")
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def _read_front(path: Path | None) -> dict[str, str]:
    """The texts in the front matter of a card; empty where there is none that can be read."""
    try:
        text = path.read_text(encoding="utf-8") if path and path.is_file() else ""
        block = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
        found = YAML(typ="safe").load(block[1]) if block else None
    except (OSError, UnicodeDecodeError, YAMLError):
        return {}
    return {str(key): value for key, value in (found or {}).items() if isinstance(value, str)}


def _front_matter(folder: Folder, base: Base, pipeline_tag: str) -> str:
    config = folder.settings
    lora = config.method.method == "lora"
    front: Front = {"library_name": "peft" if lora else "transformers", "pipeline_tag": pipeline_tag}
    front["tags"] = ["hone", *(["lora"] if lora else []), *([NAME] if base.described == BUNDLED else [])]
    if base.hub:
        front |= {"base_model": base.hub, "base_model_relation": "adapter" if lora else "finetune"}
    if base.licence:
        front["license"] = base.licence
    if name := _hub_data(config.data):
        front["datasets"] = [name]
    lines = ["---", *(f"{key}: {flow(value)}" for key, value in front.items())]
    if not base.licence:
        lines.append(NO_LICENCE)
    return "\n".join([*lines, "---"])


def _hub_data(data: DataSection) -> str | None:
    name = data.dataset_name
    return name if name and HUB_NAME.fullmatch(name) and not Path(name).exists() else None


# ---- how it is used --------------------------------------------------------------------------------------------------


def _example(folder: Folder) -> SideBySide | None:
    """A held-out prompt with the tuned model's answer; one that passes its tests, if there is such."""
    found = [one for one in side_by_side(folder.base, folder.tuned) if one.tuned is not None]
    right = [one for one in found if (mark := sample_marks(folder, one).get("tuned")) and mark.right]
    return next(iter([*right, *found]), None)


def _use(folder: Folder, tag: str, example: SideBySide | None) -> list[str]:
    loader = LOADERS.get(tag)
    if loader is None:
        return []
    lora = folder.settings.method.method == "lora"
    auto = loader.replace("Auto", "AutoPeft", 1) if lora else loader
    imports = [f"from peft import {auto}", "from transformers import AutoTokenizer"]
    if not lora:
        imports = [f"from transformers import {auto}, AutoTokenizer"]
    lines = [
        *imports,
        "",
        f"name = {folder.path.name!r}  # this folder, or its name on the hub",
        "tokenizer = AutoTokenizer.from_pretrained(name)",
        f"model = {auto}.from_pretrained(name)",
        *_asked(folder, example),
        *_call(folder.settings.generate.max_new_tokens, tag),
    ]
    parts = ["## Use", fenced("\n".join(lines), "python")]
    if lora:
        parts.append("PEFT looks for the base where `adapter_config.json` says; `hone export` makes one model of both.")
    if command := str(folder.status.get("try_it") or ""):
        command = command.replace("{run}", "NAME")
        does = "prints the class" if tag == CLASSIFIES else "writes the prompt in the form of the training"
        parts.append(f"With hone: `{command}`. It {does}.")
    return parts


def _asked(folder: Folder, example: SideBySide | None) -> list[str]:
    if folder.template == "chat":
        return [
            "messages = [{'role': 'user', 'content': '…'}]",
            "form = {'add_generation_prompt': True, 'return_tensors': 'pt', 'return_dict': True}",
            "inputs = tokenizer.apply_chat_template(messages, **form)",
        ]
    prompt = example.prompt if example and len(example.prompt) <= LONGEST_PROMPT else "…"
    return [f"inputs = tokenizer({prompt!r}, return_tensors='pt')"]


def _call(limit: int, tag: str) -> list[str]:
    if tag == CLASSIFIES:
        return ["print(model.config.id2label[model(**inputs).logits.argmax().item()])"]
    lines = [f"output = model.generate(**inputs, max_new_tokens={limit}, do_sample=False)[0]"]
    new = "output" if tag == "text2text-generation" else "output[inputs['input_ids'].shape[1] :]"
    return [*lines, f"print(tokenizer.decode({new}, skip_special_tokens=True))"]


FORMS = {
    "instruction": "Prompts are instructions in this form, the text in braces replaced (without `### Input:` and its "
    "text where there is no input):\n\n"
    "```\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n```",
    "chat": "Prompts are conversations in the tokenizer's own chat template: `tokenizer.apply_chat_template(messages, "
    "add_generation_prompt=True)`.",
    "plain": "There is no template: the model continues a prompt as it is.",
}


def _prompt(folder: Folder, tag: str, example: SideBySide | None) -> list[str]:
    if tag not in LOADERS:
        return []
    if tag == CLASSIFIES:
        return _classes(folder, example)
    form = FORMS.get(folder.template or "") if tag == "text-generation" else None
    parts = ["## Prompt", form] if form else ["## Example"]
    if example is not None:
        parts += ["A held-out prompt, finished:", fenced(example.prompt), "What the model answers:"]
        parts.append(fenced((example.tuned or "").rstrip("\n")))
    return parts if len(parts) > 1 else []


def _classes(folder: Folder, example: SideBySide | None) -> list[str]:
    """What a classifier answers with, and a held-out text with its answer."""
    measured = list(folder.measured.values())
    report = measured[-1].classes if measured else None
    names = list(report.classes) if report else []
    parts = []
    if names:
        more = f" and {len(names) - SHOWN_CLASSES:,} more" if len(names) > SHOWN_CLASSES else ""
        listed = ", ".join(inline(name) for name in names[:SHOWN_CLASSES])
        parts = ["## Classes", f"It answers with one of {len(names):,} classes: {listed}{more}."]
        if report and (without := unmeasured_classes(report)):
            listed = ", ".join(inline(name) for name in without[:SHOWN_CLASSES])
            parts.append(f"How well it finds these was not measured, for want of held-out rows: {listed}.")
    if example is not None:
        truth = f"; the row says “{inline(example.reference)}”" if example.reference else ""
        parts += ["## Example", "A held-out text:", fenced(example.prompt)]
        parts.append(f"The class that the model answers: “{inline(example.tuned or '')}”{truth}.")
    return parts


# ---- what it is worth ------------------------------------------------------------------------------------------------


def _numbers(folder: Folder) -> list[str]:
    """A row for each model: tasks that pass, then the metrics of the held-out items."""
    measured = folder.measured
    if not measured:
        return ["Not measured: there were no held-out rows."]
    last = list(measured.values())[-1]
    kinds = {key: level.kind for key, level in last.metrics.items()}
    counts = passing(folder)
    solved = {name: f"{n:,} of {counts[2]:,}" for name, n in zip(("base", "tuned"), counts)} if counts else {}
    rows = [["", *(["tasks that pass"] if solved else []), *(kind.title for kind in kinds.values())]]
    for name, found in measured.items():
        first = [solved.get(name, "–")] if solved else []
        rows.append([name, *first, *(estimate(found.metrics.get(key), kind.form) for key, kind in kinds.items())])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "| --- " * len(rows[0]) + "|")
    return ["\n".join(lines), _over(last)]


def _over(last: Measurement) -> str:
    over = f"Over {plural(last.n_items, f'held-out {last.item}')}, {last.n_tokens:,} tokens"
    return f"{over}; in brackets {last.confidence_level:.0%} intervals over {last.item}s."


def _limits(folder: Folder, base: Base, tag: str) -> str:
    lines = []
    if (counts := passing(folder)) and counts[1] < counts[2]:
        lines.append(
            f"{counts[2] - counts[1]:,} of the {counts[2]:,} tasks still fail: run what it writes in a sandbox."
        )
    if folder.measured:
        lines.append("The numbers hold for texts like the held-out ones. For others nothing was measured.")
    if folder.contamination and folder.settings.data.overlap != "drop":
        lines += _leaked(folder.contamination)
    if folder.memorization is None and tag != CLASSIFIES:
        lines.append("Whether it recites training rows was not measured.")
    if base.described == BUNDLED:
        lines.append("The base is made for learning and tests. It knows Python's syntax and little else.")
    if tag == CLASSIFIES:
        lines.append("It answers with one of its classes for any text, also for one that belongs to none of them.")
    else:
        lines.append("Nothing was done against harmful or false answers.")
    return "\n".join(f"- {line}" for line in lines)


def _leaked(found: Contamination) -> list[str]:
    if not found.n_contaminated:
        return []
    return [
        f"Of the {plural(found.n_items, f'held-out {found.item}')}, {leaked(found)}: the numbers flatter the model."
    ]


def _length(folder: Folder) -> str:
    """'8 steps, 0.8 epochs, ': as far as the training went, which max_steps and max_train_seconds may cut short."""
    last, train = folder.metrics[-1] if folder.metrics else {}, folder.settings.train
    epochs = last.get("epoch")
    if epochs is None and train.max_steps <= 0:
        epochs = train.num_train_epochs
    steps = f"{plural(last['step'], 'step')}, " if "step" in last else ""
    if epochs is None:
        return steps
    said = f"{round(epochs, 2):g}" if epochs >= 0.01 else f"{epochs:.1g}"
    return f"{steps}{said} epoch{'' if said == '1' else 's'}, "


def _training(folder: Folder) -> str:
    config = folder.settings
    train = config.train
    version = (folder.env.get("versions") or {}).get("hone-lm")
    rows = [
        ["hone", version or "–"],
        ["method", f"{config.method.task}, {config.method.method}"],
        ["rows", _rows(folder, config.data)],
        ["training", f"{_length(folder)}{train.per_device_train_batch_size} rows a step and "
         f"device, accumulated over {train.gradient_accumulation_steps}"],
        ["learning rate", f"{train.learning_rate:g}, {train.lr_scheduler_type}"],
        ["seed", str(train.seed)],
    ]  # fmt: skip
    lines = ["| | |", "| --- | --- |", *(f"| {inline(name)} | {inline(value)} |" for name, value in rows)]
    return "\n".join(lines) + "\n\nMore: `report.md`, `env.json` (versions, hardware, fingerprints of the data)."


def _rows(folder: Folder, data: DataSection) -> str:
    """'413 training examples, 36,261 tokens, of train.jsonl (SHA-256 577a9dedd749)'."""
    said = next((line for line in data_lines(folder.log) if " training examples" in line), "")
    counts = ", ".join(said.split(", ")[:2])
    files = (folder.env.get("data") or {}).get("train") or []
    names = [f"{Path(str(one.get('file'))).name} (SHA-256 {str(one.get('sha256', ''))[:12]})" for one in files[:3]]
    names = [data.dataset_name] if data.dataset_name and not files else names
    return f"{counts or '–'}{', of ' if names else ''}{', '.join(names)}"
