"""README.md of a folder with a GGUF file: how it is run, how well it was checked, and what the run's card says.

>>> print(gguf_card("runs/my", "my-gguf", "my-f16.gguf", "plain", checked, "held-out items", ollama=False))
...                                                                        # doctest: +SKIP
"""

from pathlib import Path

from hone import bundled
from hone.convert.gguf_check import Checked
from hone.convert.gguf_text import table
from hone.convert.merged_card import kept_head, kept_sections

FORMS = {
    "plain": "The model continues a prompt as it is; it knows no turns.",
    "instruction": "A prompt is an instruction in the form of the training, which the file's chat template writes. The "
    "model knows no turns: each message is a prompt of its own.",
    "chat": "The file's chat template writes conversations in the form of the training.",
}


def gguf_card(
    source: str, name: str, file: str, template: str, found: Checked, compared_on: str, *, ollama: bool
) -> str:
    """Markdown with the front matter of the hub.

    Args:
        source: the run. name: of the folder. file: the GGUF file. compared_on: what the items were, in words.
    """
    own = Path(bundled.resolve(source)) / "README.md"
    before = own.read_text(encoding="utf-8", errors="replace") if own.is_file() else ""
    made = Path(source).resolve().name if Path(source).exists() else source
    about = f"`{made}` as a GGUF file ({found.kind}), for llama.cpp and the programs built on it."
    use = ["```bash", f"llama-cli -m {file}", f"llama-server -m {file} --jinja"]
    use += [f"ollama create {name} -f Modelfile && ollama run {name}"] if ollama else []
    parts = [kept_head(before, "gguf"), f"# {name}", about, "## Use", "\n".join([*use, "```"]), FORMS[template]]
    parts += ["## How it was checked", f"Read back by {found.reader} and compared with the run in float32."]
    rows = [f"| {what} | {value} | {bar} |" for what, value, bar in table(found, compared_on)]
    parts.append("\n".join(["| | found | accepted |", "| --- | --- | --- |", *rows]))
    parts += kept_sections(before, ("Before and after", "Limits", "How it was trained"))
    return "\n\n".join(parts) + "\n"
