"""Do two checkouts of hone make the same weights and numbers? Every kind of run, tiny, on both sides.

    python benchmarks/same_results.py OLD NEW

OLD and NEW are folders with src/hone in them. Random tiny models and rows are made once, then each checkout runs the
same commands in a process of its own: CPU, float32, one thread, the same seeds. A table says what is equal and what
differs, and by how much. Exit code 3: something differs that `WANTED` does not name. The cases: same_results.yaml.

The two may write their result files in different forms: `numbers` reads the one with flat names ("loss",
"loss_interval") and the one of `hone.results`, and gives a number the same name in both.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

Numbers = dict[str, float | str]

# Differences that are meant: (case, file, name) as patterns of `fnmatch`, and why.
WANTED: list[tuple[str, str, str, str]] = [
    ("lora-chat", "*.export.out", "difference", "divided by the spread in another precision: 8 digits are equal"),
    ("*", "*", "quality.per_text.*", "the numbers of each text are not kept: the texts are"),
    ("code-tasks", "*.compare.out", "code.*", "the unit tests are in it, too"),
    ("*", "*/compare.code.json", "passed.test", "the same test, without 'exact'"),
]

# What no two runs have in common: clocks, memory, paths; and what describes a number but is not one.
UNCOMPARED = {
    *("seconds", "seconds_per_step", "step_s", "tokens_per_s", "tokens_per_second", "mfu", "timing"),
    *("eval_runtime", "eval_samples_per_second", "eval_steps_per_second"),
    *("peak_memory_bytes", "memory", "disk", "version", "kind"),
}
# Texts that are compared, too.
TEXTS = re.compile(
    r"(^|\.)(text|answers|completion|label|verdict|test|prompt|reference|copied)(\.|$)"
    r"|^(samples|lines)\.\d+\.(base|tuned|model)$"
)
SHOWN = 3  # differing names in a line of the table


@dataclass(frozen=True)
class Case:
    """Settings, and the commands that run with them."""

    settings: dict[str, Any]
    commands: list[str]


def cases() -> dict[str, Case]:
    """The cases of same_results.yaml, in its order."""
    found = YAML(typ="safe").load(Path(__file__).with_suffix(".yaml"))
    return {
        name: Case({**found["common"], **case["settings"]}, case.get("commands", ["train {config} output_dir=run"]))
        for name, case in found["cases"].items()
    }


# ---- tiny models and rows --------------------------------------------------------------------------------------------

OPERATIONS = {"add": "+", "subtract": "-", "multiply": "*"}
CHATML = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def write_inputs(folder: Path) -> None:
    """Models with random weights, their tokenizers, and rows of every form."""
    words = [(i, word, sign) for i in range(8) for word, sign in OPERATIONS.items()]
    functions = [
        f'def {word}_{i}(a, b):\n    """{word.title()} {i} and the numbers a and b."""\n    return a {sign} b - {i}\n'
        for i, word, sign in words
    ]
    spoken = [(f"{word.title()} {i} and {i + 3}.", f"{i} {sign} {i + 3}") for i, word, sign in words]
    rows: dict[str, list[dict[str, Any]]] = {
        "functions": [{"text": text} for text in functions[:18]],
        "held": [{"text": text} for text in functions[18:]],
        "leaked": [{"text": text} for text in [*functions[18:], functions[0], functions[4].replace("num", "NUM")]],
        "instructions": [{"instruction": asked, "output": answer} for asked, answer in spoken],
        "chats": [
            {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}
            for asked, answer in spoken
        ],
        "pairs": [{"source": f"swap {i} {i % 13}", "target": f"{i % 13} {i}" + "!" * (i % 4)} for i in range(30)],
        "labelled": [
            {"text": f"day {i} is {word}{' indeed' * (i % 5)}", "label": f"{word} day"}
            for i in range(32)
            for word in ["sunny" if i % 3 else "dark"]
        ],
        "prompts": [{"prompt": text[:12], "id": i} for i, text in enumerate(functions[:3])],
        "tasks": [
            {
                "task_id": f"add{i}", "prompt": f"def add{i}(a, b):\n    '''Add them.'''\n", "entry_point": f"add{i}",
                "tests": [f"assert add{i}(1, 2) == 3"], "reference": "    return a + b\n",
            }
            for i in range(8)
        ],
        "right": [{"task_id": f"add{i}", "completion": "    return a + b\n"} for i in range(8)],
        "mixed": [{"task_id": f"add{i}", "completion": f"    return a {'-+'[i % 4 > 2]} b\n"} for i in range(8)],
    }  # fmt: skip
    for name, found in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    (folder / "book.txt").write_text("\n".join(functions), encoding="utf-8")
    for name, case in cases().items():
        (folder / f"{name}.config.json").write_text(json.dumps(case.settings), encoding="utf-8")
    write_models(
        folder, [*functions, *(f"{asked} {answer}" for asked, answer in spoken), "user assistant day is sunny"]
    )


def write_models(folder: Path, corpus: list[str]) -> None:
    """GPT-2, Llama, T5 and BERT, two or three layers each, with their tokenizers."""
    import torch
    import transformers as hf

    hf.utils.logging.disable_progress_bar()
    plain = bpe(corpus, ["<|endoftext|>", "<|start|>", "<|end|>"], eos_token="<|endoftext|>", bos_token="<|endoftext|>")
    plain.chat_template = CHATML
    plain.save_pretrained(folder / "tokenizer")
    t5 = bpe(corpus, ["<pad>", "</s>"], "$A </s>", eos_token="</s>", pad_token="<pad>")
    bert = bpe(
        corpus, ["[PAD]", "[CLS]", "[SEP]"], "[CLS] $A [SEP]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]"
    )
    common = {"bos_token_id": 0, "eos_token_id": 0, "n_layer": 3, "n_head": 2, "n_embd": 32, "n_positions": 128}
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    t5_size = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}
    configs = {
        "gpt2": (plain, hf.GPT2Config(vocab_size=len(plain), **common)),
        "llama": (plain, hf.LlamaConfig(vocab_size=len(plain), **small, bos_token_id=0, eos_token_id=0)),
        "t5": (t5, hf.T5Config(vocab_size=len(t5), **t5_size, pad_token_id=0, eos_token_id=1)),
        "bert": (bert, hf.BertConfig(vocab_size=len(bert), **small, pad_token_id=0)),
    }
    makers = {"t5": hf.AutoModelForSeq2SeqLM, "bert": hf.AutoModelForMaskedLM}
    for name, (tokenizer, config) in configs.items():
        torch.manual_seed(0)
        makers.get(name, hf.AutoModelForCausalLM).from_config(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def bpe(corpus: list[str], special: list[str], frame: str | None = None, **names: str) -> Any:
    """A byte-level tokenizer of 400 tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(corpus, trainer)
    if frame is not None:
        numbers = [(token, backend.token_to_id(token)) for token in special]
        backend.post_processor = processors.TemplateProcessing(single=frame, special_tokens=numbers)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


# ---- one checkout's part, in a process of its own --------------------------------------------------------------------


def run_cases(checkout: Path, inputs: Path, folder: Path, names: Iterable[str]) -> None:
    """Run the commands of each case as `python -m hone` would; what they print goes to <n>.<command>.out."""
    import hone

    assert hone.__file__ and Path(hone.__file__).is_relative_to(checkout), f"{hone.__file__} is not of {checkout}"
    for name in names:
        here = folder / name
        here.mkdir(parents=True)
        os.chdir(here)
        os.environ["HONE_CACHE"] = str(here / "cache")
        for number, text in enumerate(cases()[name].commands):
            words = shlex.split(text.format(config=inputs / f"{name}.config.json", inputs=inputs))
            print(f"\n==== {name}: hone {text}", file=sys.stderr, flush=True)
            code, printed = hone_command(words)
            (here / f"{number}.{words[0]}.out").write_text(printed, encoding="utf-8")
            (here / f"{number}.{words[0]}.exit").write_text(str(code), encoding="utf-8")


def hone_command(words: list[str]) -> tuple[int | str, str]:
    """Exit code and standard output of `hone WORDS`, in this process: libraries are loaded once."""
    sys.argv = ["hone", *words]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            runpy.run_module("hone", run_name="__main__")
            code: int | str = 0
        except SystemExit as stop:
            code = 0 if stop.code is None else stop.code
        except Exception:
            traceback.print_exc()
            code = "traceback"
    return code, printed.getvalue()


def start(checkout: Path, inputs: Path, folder: Path, names: Iterable[str]) -> "subprocess.Popen[bytes]":
    """The cases of one checkout, on inputs of its own: `hone grade` writes beside them."""
    shutil.copytree(inputs, folder / "inputs")
    quiet = {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONHASHSEED": "0",
    }
    environment = {**os.environ, **quiet, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--run", str(folder / "inputs"), str(folder), *names, "--", str(checkout)]
    with (folder / "log.txt").open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


# ---- by meaning ------------------------------------------------------------------------------------------------------

# One name for what has two, on either side: file, pattern, and the name in `hone.results`; None for what is said twice.
NAMES: list[tuple[str, str, str | None]] = [
    ("*", r"^generation_quality\.n_texts$", "n_texts"),
    ("*", r"^generation_quality\.", "quality."),
    ("*", r"^quality\.(\w+)_n$", r"quality.\1.n_items"),
    ("*", r"^(samples\.\d+)\.(base|tuned|model)$", r"\1.text"),
    ("*", r"^classes\.classes\.", "classes."),
    ("*", r"^classes\.(confusion|majority)", r"\1"),
    ("*", r"^classes\.averages\.(\w+)\.(\w+)$", r"\1_\2"),
    ("*", r"^n_written$", "exact_match.n_items"),
    ("*", r"(^|\.)(mde|detectable|detectable_difference)$", r"\1minimum_detectable_effect"),
    ("*", "two-boxes", "two-sandboxes"),
    ("*", r"^(pass_at_k.*\.\d+)\.estimate", r"\1"),
    ("*", "tasks_with_too_few_samples", "n_too_few"),
    ("*.items.json", r"^nll\.", "loss.numerator."),
    ("*.items.json", r"^n_tokens\.", "loss.weight."),
    ("*.items.json", r"^n_bytes\.", "bits_per_byte.weight."),
    ("*.items.json", r"^written\.(\w+)\.", r"\1.numerator."),
    ("*compare*", r"^only_tuned_better$", "passed.only_b"),
    ("*compare*", r"^only_base_better$", "passed.only_a"),
    ("*compare*", r"^pass_difference", "passed.difference"),
    ("*compare*", r"^(only_\w+_right|mcnemar_p_value)$", None),
    ("*compare*", r"^(\w+?)_(difference|p_value|p_adjusted)(\.low|\.high|)$", r"\1.\2\3"),
    ("*compare*", r"^(\w+?)_detectable$", r"\1.minimum_detectable_effect"),
    ("*repeat*", r"^(tuned|change)\.", None),
    ("*repeat*", r"\.(tuned|change)\.(seeds|mean_on_these_items)\.(low|high)$", r".\1.mean_on_these_items.\3"),
    ("*repeat*", r"\.(tuned|change)\.(low|high)$", r".\1.mean.\2"),
    ("memorization.json", r"\.(base|tuned)\.(copying|copied_characters)(\.low|\.high|)$", r".\2.\1\3"),
    ("memorization.json", r"\.copying_difference", ".change.difference"),
    ("memorization.json", r"^(prompts\.\w+)\.(p_value|only_base|only_tuned)$", r"\1.change.\2"),
    ("memorization.json", r"\.only_base$", ".only_a"),
    ("memorization.json", r"\.only_tuned$", ".only_b"),
    ("contamination.json", r"^n_overlapping$", "n_contaminated"),
    ("contamination.json", r"^n_(exact|near|same_code)$", r"by_kind.\1"),
]
HEADLINE_AGAIN = {
    "p_value",
    "p_adjusted",
    "minimum_detectable_effect",
    "power",
    "verdict",
    "test",
}  # of flat comparisons


def numbers(path: Path) -> Numbers:
    """name -> number (or text) of a result file, whatever its form."""
    file, text = path.name.replace("overlap", "contamination"), path.read_text(encoding="utf-8")
    try:
        value = json.loads(text)
    except ValueError:
        try:
            value = {"lines": [json.loads(line) for line in text.splitlines() if line.strip()]}
        except ValueError:
            return {}  # not a file of numbers, as a table for people
    if isinstance(value, dict) and {"true", "predicted"} <= value.keys():
        right = [int(true == answered) for true, answered in zip(value.pop("true"), value.pop("predicted"))]
        value["accuracy"] = {"numerator": right}
    named = ((one_name(file, name.replace(" ", "_")), number) for name, number in flat(value))
    found = {name: number for name, number in named if name}
    if "compare" in file:
        again = {name: found.pop(name) for name in HEADLINE_AGAIN & found.keys()}
        if "passed.p_value" not in found and "passed.difference" in found:
            found |= {f"passed.{name}": number for name, number in again.items()}
    return found


def one_name(file: str, name: str) -> str | None:
    for files, pattern, other in NAMES:
        if fnmatch(file, files) and re.search(pattern, name):
            if other is None:
                return None
            name = re.sub(pattern, other, name)
    return name


def flat(value: Any, name: str = "") -> Iterator[tuple[str, float | str]]:
    """Dotted names. {"loss": 1, "loss_interval": [0, 2]} is the same as {"loss": {"value": 1, "low": 0, "high": 2}}."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in UNCOMPARED:
                continue
            if key == "interval" or key.endswith("_interval"):
                start = ".".join(filter(None, [name, key.removesuffix("interval").removesuffix("_")]))
                yield from zip((f"{start}.low", f"{start}.high"), inner or ())
            elif key in ("value", "metrics"):
                yield from flat(inner, name)
            else:
                yield from flat(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from flat(inner, f"{name}.{i}" if name else str(i))
    elif isinstance(value, (int, float)) or (isinstance(value, str) and TEXTS.search(name)):
        yield name, value


# ---- the comparison --------------------------------------------------------------------------------------------------


def digests(folder: Path, pattern: str) -> dict[str, str]:
    """SHA-256 of the files that match; those of a cache, whose folders are named by keys, by their content alone."""
    found = {}
    for path in sorted(folder.rglob(pattern)):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        place = path.relative_to(folder)
        found[f"cache/{path.name} {digest[:8]}" if place.parts[0] == "cache" else str(place)] = digest
    return found


def tables(folder: Path) -> dict[str, Numbers]:
    """What a case left: numbers of each result file and of each command's output; weights and tokens as digests."""
    found: dict[str, Numbers] = {
        "weights": {**digests(folder, "*.safetensors")},
        "tokens": {**digests(folder, "*.bin")},
    }
    found["exit codes"] = {path.name: path.read_text() for path in sorted(folder.glob("*.exit"))}
    files = [
        *folder.rglob("metrics.jsonl"),
        *folder.rglob("eval/*.json*"),
        *folder.rglob("repeat.json"),
        *folder.glob("*.out"),
    ]
    names = {path: str(path.relative_to(folder)).replace("overlap", "contamination") for path in sorted(files)}
    return found | {name: numbers(path) for path, name in names.items()}


def differences(old: Numbers, new: Numbers) -> dict[str, str]:
    """name -> how it differs. What only NEW has is an addition, not a difference."""
    found = {}
    for name, before in old.items():
        after = new.get(name)
        if after is None:
            found[name] = "missing"
        elif before != after and not (before != before and after != after):
            if isinstance(before, (int, float)) and isinstance(after, (int, float)):
                found[name] = f"{before:.6g} -> {after:.6g} ({after - before:+.1e})"
            else:
                found[name] = f"{str(before)[:30]!r} -> {str(after)[:30]!r}"
    return found


def compare(case: str, old: Path, new: Path) -> tuple[list[list[str]], bool]:
    """The lines of the table for one case; and whether something differs that is not wanted."""
    rows, failed = [], False
    before, after = tables(old), tables(new)
    for file, values in before.items():
        found = differences(values, after.get(file, {}))
        if file == "exit codes":
            found |= {name: f"exit code {code}" for name, code in {**values, **after[file]}.items() if code != "0"}
        wanted = {name: why for name in found if (why := wanted_because(case, file, name))}
        unwanted = [f"DIFFERS {name}: {how}" for name, how in found.items() if name not in wanted]
        added = len(after.get(file, {}).keys() - values.keys())
        said = [f"{len(values) - len(found)} equal", *([f"{added} new"] if added else [])]
        said += [f"wanted: {why}" for why in dict.fromkeys(wanted.values())]
        said += [*unwanted[:SHOWN], *([f"and {len(unwanted) - SHOWN} more"] if len(unwanted) > SHOWN else [])]
        failed = failed or bool(unwanted)
        if values:
            rows.append([case, file, "; ".join(said)])
    return rows, failed


def wanted_because(case: str, file: str, name: str) -> str | None:
    """Why this difference is meant; None where it is not."""
    for cases, files, names, why in WANTED:
        if fnmatch(case, cases) and fnmatch(file, files) and fnmatch(name, names):
            return why
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--only", default="*", help="cases that match these patterns; two-runs needs light-lab")
    parser.add_argument("--keep", type=Path, help="an empty folder to work in, kept afterwards")
    parser.add_argument("--brief", action="store_true", help="only what differs")
    asked = parser.parse_args()
    names = [name for name in cases() if any(fnmatch(name, pattern) for pattern in asked.only.split(","))]
    if "code-tasks" in names and shutil.which("bwrap") is None:
        names.remove("code-tasks")
        print("code-tasks is left out: bubblewrap is not installed")
    began = time.perf_counter()
    with contextlib.ExitStack() as stack:
        work = (asked.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))).resolve()
        (work / "inputs").mkdir(parents=True)
        write_inputs(work / "inputs")
        sides = {"old": asked.old.resolve(), "new": asked.new.resolve()}
        running = [start(path, work / "inputs", work / side, names) for side, path in sides.items()]
        codes = [process.wait() for process in running]
        for side, code in zip(sides, codes):
            if code:
                log = (work / side / "log.txt").read_text(errors="replace")
                print(f"{side} failed:\n{log[-3000:]}", file=sys.stderr)
        compared = [compare(name, work / "old" / name, work / "new" / name) for name in names]
    rows = [row for found, _ in compared for row in found if "DIFFERS" in row[2] or not asked.brief]
    width = [max((len(row[i]) for row in rows), default=0) for i in (0, 1)]
    for case, file, said in rows:
        print(f"{case:{width[0]}}  {file:{width[1]}}  {said}")
    failed = any(failed for _, failed in compared) or any(codes)
    print(f"{'DIFFERENT' if failed else 'the same'}: {len(names)} cases in {time.perf_counter() - began:.0f} s")
    return 3 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        of_folder, to_folder, *chosen, _, of_checkout = sys.argv[2:]
        run_cases(Path(of_checkout), Path(of_folder), Path(to_folder), chosen)
    else:
        sys.exit(main())
