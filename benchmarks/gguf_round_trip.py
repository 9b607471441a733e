"""GGUF files read back by llama.cpp: ids, logits, perplexity and greedy text beside the models they were made of.

    python benchmarks/gguf_round_trip.py                       # tiny models of each architecture, and the bundled one
    python benchmarks/gguf_round_trip.py --run out/demo/functions      # a run of yours, too
    python benchmarks/gguf_round_trip.py --tasks out/demo/functions    # its unit tests through llama.cpp, in f16

Needs llama-cpp-python (`pip install "hone-lm[gguf-check]"`). One thread, float32 on hone's side. Exit code 3: a bar of
`hone.convert.gguf_check` was missed.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from scipy.stats import binomtest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from hone.config.load import load_config
from hone.convert.gguf_check import Checked, Item, check_gguf
from hone.convert.gguf_export import export_gguf
from hone.convert.gguf_file import TYPES, Prompt, write_gguf
from hone.convert.gguf_tokenizer import LLAMA3, QWEN2, describe
from hone.convert.held_items import comparison_items
from hone.convert.hostile_strings import hostile_strings
from hone.convert.llama_reader import installed, open_reader
from hone.convert.merge import load_whole, summed
from hone.data.tokenizer import load_tokenizer, start_ids
from hone.errors import HoneError
from hone.grading.ask import question
from hone.grading.tasks import read_tasks
from hone.inference.generate import chosen_template
from hone.inference.prompts import prompt_ids
from hone.models.load import quiet_libraries
from hone.runs import RESOLVED

HEAD = "| model | kind | ids equal | largest logit | KL | same likeliest | perplexity | greedy | MB |"
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_layer": 4, "n_head": 4, "n_embd": 128, "n_positions": 512},
    "llama": {"hidden_size": 128, "intermediate_size": 320, "num_hidden_layers": 4, "num_attention_heads": 8,
              "num_key_value_heads": 4, "head_dim": 16, "max_position_embeddings": 512},
    "qwen2": {"hidden_size": 128, "intermediate_size": 320, "num_hidden_layers": 4, "num_attention_heads": 8,
              "num_key_value_heads": 2, "max_position_embeddings": 512},
}  # fmt: skip
DEFAULT = (*SHAPES, "hone-base")
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
RULES: dict[str, Any] = {
    "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "llama": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), BYTES]),
    "qwen2": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"), BYTES]),
}


def random_model(kind: str) -> tuple[Any, PreTrainedTokenizerFast]:
    """A random model of an architecture, with a vocabulary of 2,000 trained on this project's documentation."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = RULES[kind], decoders.ByteLevel()
    if kind == "qwen2":
        backend.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator([*texts(), *hostile_strings(500)], trainer=trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>", bos_token="<|endoftext|>")
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=2016, bos_token_id=0, eos_token_id=0, **SHAPES[kind])
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0 if parameter.dim() > 1 else 1.0)  # logits as wide as a trained model's
    return model, tokenizer


def texts() -> list[str]:
    docs = Path(__file__).resolve().parents[1] / "docs"
    return [path.read_text(encoding="utf-8") for path in sorted(docs.glob("*.md"))[:12]]


def document_items(tokenizer: Any, n: int = 12) -> list[Item]:
    ids = [one[:256] for one in start_ids(tokenizer, texts(), special=False)]
    return [Item(one, [True] * len(one)) for one in ids[:n]]


def row(name: str, found: Checked, n_bytes: int) -> str:
    change = found.perplexity_file / found.perplexity_run - 1
    cells = [
        *(name, found.kind, f"{found.n_texts:,} of {found.n_texts:,}", f"{found.largest:.2g}", f"{found.kl:.1e}"),
        *(f"{found.agree:.2%}", f"{change:+.3%}"),
        f"{found.n_equal_greedy} of {found.n_greedy}" + (f" ({found.n_ties} ties)" if found.n_ties else ""),
        f"{n_bytes / 1e6:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def round_trips(names: list[str], n_hostile: int) -> Iterator[str]:
    """A line of the table for each model and kind; what is refused is said in its place.

    Args:
        names: of architectures, for random models; of models and runs.
    """
    for name in names:
        if name in SHAPES:
            model, tokenizer = random_model(name)
            items = document_items(tokenizer)
        else:
            tokenizer = load_tokenizer(name)
            model = summed(load_whole(name, tokenizer, None)).eval()
            items = (
                comparison_items(name, tokenizer, 512, 4_096)[0] if Path(name).is_dir() else document_items(tokenizer)
            )
        vocabulary = describe(tokenizer, model.get_input_embeddings().weight.shape[0])
        for kind in TYPES:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"m-{kind}.gguf"
                write_gguf(model, vocabulary, path, kind, Prompt("{{ messages[-1]['content'] }}", False), name="m")
                try:
                    found = check_gguf(path, kind, model, tokenizer, vocabulary, items, n_hostile)
                    yield row(name if name in SHAPES else Path(name).name, found, path.stat().st_size)
                except HoneError as error:
                    yield f"| {name} | {kind} | REFUSED: {error.what} |"


def through_llama(run: str) -> dict[str, Any]:
    """A run's unit tests through llama.cpp in f16, beside what it answered itself: passes, texts, ends."""
    from hone.grading.grade import Sample, grade
    from hone.grading.sandbox.selftest import ready

    config = load_config(Path(run) / RESOLVED)
    tasks, most = read_tasks(Path(str(config.eval.code_tasks))), config.generate.max_new_tokens
    lines = (Path(run) / "eval" / "tuned.code.jsonl").read_text(encoding="utf-8").splitlines()
    own = {row["task_id"]: row for row in map(json.loads, lines)}
    tokenizer = load_tokenizer(run)
    template = chosen_template(run, None, tokenizer)
    samples, ended = [], 0
    with tempfile.TemporaryDirectory() as folder, ready("strict") as sandbox:
        done = export_gguf(run, Path(folder) / "out", "f16", tokenizer)
        with open_reader(done.file, 512) as reader:
            for task in tasks:
                asked, stops = question(task, template)
                written = reader.greedy(prompt_ids(asked, template, tokenizer), most, ends=True)
                ended += written[-1] == tokenizer.eos_token_id
                text = tokenizer.decode([token for token in written if token != tokenizer.eos_token_id])
                samples.append(
                    Sample(task.task_id, min((text.partition(stop)[0] for stop in stops), key=len, default=text))
                )
        theirs = {found.task_id: found.passed for found in grade(tasks, samples, sandbox=sandbox)}
    only_hone = sum(own[name]["passed"] and not theirs[name] for name in theirs)
    only_llama = sum(theirs[name] and not own[name]["passed"] for name in theirs)
    differ = only_hone + only_llama
    return {
        "tasks": len(tasks),
        "passed_hone": sum(one["passed"] for one in own.values()),
        "passed_llama_cpp": sum(theirs.values()),
        "only_hone": only_hone,
        "only_llama_cpp": only_llama,
        "mcnemar_p": float(binomtest(only_hone, differ).pvalue) if differ else 1.0,
        "same_text": sum(own[one.task_id]["completion"].strip() == one.text.strip() for one in samples),
        "ended_by_themselves": ended,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="append", default=[], help="a run of yours, too (may be repeated)")
    parser.add_argument("--only", nargs="+", choices=list(DEFAULT), default=list(DEFAULT), help="which of our own")
    parser.add_argument("--tasks", metavar="RUN", help="only the unit tests of this run, through llama.cpp")
    parser.add_argument("--hostile", type=int, default=3_200, help="how many hostile texts")
    given = parser.parse_args()
    if not installed():
        sys.exit('llama-cpp-python is not installed: pip install "hone-lm[gguf-check]"')
    quiet_libraries()
    torch.set_num_threads(1)
    if given.tasks:
        print(json.dumps(through_llama(given.tasks), indent=1))
        return
    print(HEAD)
    print("| " + " | ".join(["---"] * HEAD.count(" | ")) + " | --- |")
    refused = 0
    for line in round_trips([*given.only, *given.run], given.hostile):
        refused += "REFUSED" in line
        print(line, flush=True)
    sys.exit(3 if refused else 0)


if __name__ == "__main__":
    main()
