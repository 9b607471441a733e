"""The model card: README.md of a run folder, with the numbers of its eval files."""

from hone.bundled import NAME
from hone.config.sections.method import MethodSection
from hone.config.sections.model import ModelSection
from hone.results import Measurement
from hone.runs import Run
from hone.show import change_line, code_lines, estimate, plural


def model_card(run: Run, model: ModelSection, method: MethodSection, pipeline_tag: str) -> str:
    """Markdown with the front matter the hub reads; says what was trained on what, and what that changed."""
    base = model.model_name_or_path or f"{model.model_type} from scratch"
    tuned, comparison = run.tuned, run.comparison
    front = ["---", "library_name: " + ("peft" if method.method == "lora" else "transformers")]
    front += [f"pipeline_tag: {pipeline_tag}", "tags: [hone]"]
    if model.model_name_or_path and not model.model_name_or_path.startswith(("/", ".", NAME)):
        relation = "adapter" if method.method == "lora" else "finetune"
        front += [f"base_model: {model.model_name_or_path}", f"base_model_relation: {relation}"]
    lines = [*front, "---", "", f"# {run.folder.name}", ""]
    lines += [f"`{base}`, trained with hone ({method.task}, {method.method}).", ""]
    if tuned is not None:
        lines += _numbers({name: found for name, found in (("base", run.base), ("tuned", tuned)) if found})
    if comparison is not None:
        text = change_line(comparison)
        lines += ["", f"{text[0].upper()}{text[1:]}."]
    if programs := code_lines(*run.code()):
        lines += ["", "Programming tasks, run against their tests:", "", *(f"- {line}" for line in programs)]
    lines += ["", "Settings: `config.resolved.yaml`. Versions, hardware and data fingerprints: `env.json`.", ""]
    return "\n".join(lines)


def _numbers(measured: dict[str, Measurement]) -> list[str]:
    """A table of the metrics of each model, and what they are over."""
    last = list(measured.values())[-1]
    kinds = {key: level.kind for key, level in last.metrics.items()}
    rows = [
        [name, *(estimate(found.metrics.get(key), kind.form) for key, kind in kinds.items())]
        for name, found in measured.items()
    ]
    lines = [f"| {' | '.join(row)} |" for row in [["held-out data", *(kind.title for kind in kinds.values())], *rows]]
    lines.insert(1, "| --- " * (len(kinds) + 1) + "|")
    over = f"Over {plural(last.n_items, last.item)}, {last.n_tokens:,} tokens"
    return [*lines, "", f"{over}; {last.confidence_level:.0%} intervals over {last.item}s."]
