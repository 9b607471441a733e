"""Generation: the same answers alone and in company, with seeds, ends and windows that hold."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from typer.testing import CliRunner

from hone.cli import app
from hone.config.sections.generate import GenerateSection
from hone.data.records import Chat, Message, Pair
from hone.data.tokenizer import save_tokenizer
from hone.errors import HoneError
from hone.inference.engine import Engine, Request, answer_all
from hone.inference.generate import chosen_settings, generate_texts, special_ends
from hone.inference.prompts import Prompt, prompt_ids, read_prompts, turn_end
from hone.inference.stream import Answer, AnswerRule

pytest_plugins = ["talking"]

PROMPTS = ["def add(a, b):", "x", "The quick brown fox jumps over the lazy dog; " * 3, "for i in", ""]
ARCHITECTURES = ["gpt2", "gpt_neox", "opt", "llama", "mistral", "qwen2"]


def settings(**values: Any) -> GenerateSection:
    return GenerateSection(**{"max_new_tokens": 12, **values})


def texts(model: Any, tokenizer: Any, prompts: list[Any], template: str = "plain", **values: Any) -> list[list[str]]:
    return list(generate_texts(model, tokenizer, prompts, settings(**values), template))


def invoke(*arguments: str, **options: Any) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], **options)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_batch_gives_what_each_prompt_gives_alone(
    architecture: str, tiny_model: Callable[..., Any], tokenizer: Any
) -> None:
    """Greedy and sampled, with prompts of 1 to 60 tokens side by side, padded on the left."""
    model = tiny_model(architecture)
    for values in ({}, {"temperature": 1.0, "num_return_sequences": 2, "sampling_seed": 5}):
        alone = [texts(model, tokenizer, [prompt], **values)[0] for prompt in PROMPTS]
        assert texts(model, tokenizer, PROMPTS, **values) == alone
        assert texts(model, tokenizer, PROMPTS[::-1], **values) == alone[::-1]
    assert len({text for answers in alone for text in answers}) == 10, "the prompts differ, and so must the answers"


def ids_of(model: Any, tokenizer: Any, prompt: list[int], n: int = 1, **values: Any) -> list[list[int]]:
    """n answers to one prompt, as ids; the end token is cut off."""
    answers = [Answer(tokenizer, prompt, AnswerRule([0], [], values["max_new_tokens"])) for _ in range(n)]
    answer_all(Engine(model), [Request(prompt, answer, settings(**values), i) for i, answer in enumerate(answers)])
    return [answer.ids for answer in answers]


def test_greedy_is_the_likeliest_token_at_each_step(tiny_model: Callable[..., Any], tokenizer: Any) -> None:
    model = tiny_model("llama")
    ids = tokenizer.encode("def add(")
    for _ in range(10):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    n = len(ids) - 10
    expected = ids[n : ids.index(0, n)] if 0 in ids[n:] else ids[n:]
    assert ids_of(model, tokenizer, ids[:n], max_new_tokens=10) == [expected]


def test_samples_follow_the_distribution(tiny_model: Callable[..., Any], tokenizer: Any) -> None:
    """4,000 first tokens against the filtered probabilities, by a chi-square test with a fixed seed."""
    model, prompt = tiny_model("gpt2"), tokenizer.encode("The quick")
    drawn = ids_of(model, tokenizer, prompt, n=4000, max_new_tokens=1, temperature=2.0, top_k=8, top_p=0.6)
    with torch.no_grad():
        logits = (model(torch.tensor([prompt])).logits[0, -1] / 2.0).double()
    kept, order = logits.topk(8)
    p = kept.softmax(0)
    p = torch.where(p.cumsum(0) - p < 0.6, p, 0.0)
    p /= p.sum()
    found = np.array([sum(row == [int(token)] for row in drawn) for token in order])
    assert found.sum() == 4000 - sum(row == [] for row in drawn), "only tokens that the filters keep are drawn"
    n_kept = int((p > 0).sum())
    assert 2 <= n_kept < 8 and found[n_kept:].sum() == 0
    assert chisquare(found[:n_kept], p[:n_kept].numpy() * found.sum()).pvalue > 0.001


def test_seeds(tiny_model: Callable[..., Any], tokenizer: Any) -> None:
    model = tiny_model("gpt2")
    first = texts(model, tokenizer, ["def"], temperature=1.0, num_return_sequences=20, sampling_seed=1)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert texts(model, tokenizer, ["def"], temperature=1.0, num_return_sequences=20, sampling_seed=1) == first
    assert torch.equal(torch.get_rng_state(), before), "generation leaves other random draws alone"
    assert texts(model, tokenizer, ["def"], temperature=1.0, sampling_seed=1) == [first[0][:1]], "the first of many"
    other = texts(model, tokenizer, ["def"], temperature=1.0, num_return_sequences=20, sampling_seed=2)
    assert not set(other[0]) & set(first[0]) and len(set(first[0])) == 20
    cold = texts(model, tokenizer, ["def"], temperature=1e-300, sampling_seed=3)
    assert cold == texts(model, tokenizer, ["def"]), "the limit of low temperatures is greedy"


def test_the_models_own_habits_do_not_count(tiny_model: Callable[..., Any], tokenizer: Any) -> None:
    from transformers import GenerationConfig

    model = tiny_model("gpt2")
    plain = texts(model, tokenizer, PROMPTS[:1], max_new_tokens=40)
    habits = GenerationConfig(repetition_penalty=5.0, do_sample=True, top_k=2, temperature=3.0, min_new_tokens=40)
    model.generation_config = habits
    assert texts(model, tokenizer, PROMPTS[:1], max_new_tokens=40) == plain
    assert model.generation_config is habits


def test_adapters_generate_as_merged_weights_do(tiny_model: Callable[..., Any], tokenizer: Any) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_model("llama"), LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    plain = texts(model, tokenizer, PROMPTS)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(0))
    adapted = texts(model, tokenizer, PROMPTS)
    assert adapted != plain
    assert texts(model.merge_and_unload(), tokenizer, PROMPTS) == adapted


def test_an_encoder_decoder_answers_as_transformers_lets_it(tokenizer: Any) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    ends = {"pad_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 0}
    model = T5ForConditionalGeneration(T5Config(vocab_size=len(tokenizer), **sizes, **ends)).eval()
    expected = []
    for prompt in PROMPTS[:4]:
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        row = model.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=None)[0, 1:]
        expected.append([tokenizer.decode(row, skip_special_tokens=True)])
    model.generation_config.eos_token_id = None
    found = texts(model, tokenizer, PROMPTS[:4])
    assert all(e[0].startswith(f[0]) for e, f in zip(expected, found)) and any(f[0] for f in found)


# ---- ends ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_taught_model_stops_by_itself(teach: Callable[..., Any], tokenizer: Any) -> None:
    lessons = [(prompt_ids(ask, "instruction", tokenizer), [*tokenizer.encode(say), 0])
               for ask, say in (("Add 1 and 2.", "The sum is 3."), ("Greet.", "hello, dog"))]  # fmt: skip
    model = teach(tokenizer, lessons)
    found = texts(model, tokenizer, ["Add 1 and 2.", "Greet."], "instruction", max_new_tokens=60)
    assert found == [["The sum is 3."], ["hello, dog"]]
    cut = texts(model, tokenizer, ["Add 1 and 2.", "Greet."], "instruction", max_new_tokens=60, stop=["is", ", d"])
    assert cut == [["The sum "], ["hello"]]


@pytest.mark.parametrize("end", ["special", "spelled"])
def test_a_chat_turn_ends_at_the_templates_marker(
    end: str, teach: Callable[..., Any], tokenizer: Any, chat_tokenizer: Any
) -> None:
    """The marker may be a token that is not the tokenizer's end token, or even ordinary text."""
    import copy

    if end == "spelled":
        chat_tokenizer = copy.deepcopy(tokenizer)
        chat_tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }} #END#\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"  # noqa: E501
    marker = turn_end(chat_tokenizer)
    assert marker == {"special": "<|im_end|>", "spelled": "#END#"}[end]
    ids = chat_tokenizer.encode(f"fox {marker}" if end == "spelled" else f"fox{marker}")
    assert 0 not in ids
    asked = prompt_ids("Who?", "chat", chat_tokenizer)
    model = teach(chat_tokenizer, [(asked, ids)])
    answers = texts(model, chat_tokenizer, ["Who?"], "chat", max_new_tokens=50)
    assert [answers[0][0].strip()] == ["fox"]


def test_end_tokens_of_the_generation_config(tiny_model: Callable[..., Any], chat_tokenizer: Any) -> None:
    model = tiny_model("gpt2", vocab_size=len(chat_tokenizer))
    model.generation_config.eos_token_id = [0, len(chat_tokenizer) - 1, 7, 100_000]
    assert special_ends(model, chat_tokenizer) == {0, len(chat_tokenizer) - 1}, "7 is an ordinary token: a mismatch"


def test_scores_that_are_no_numbers_are_refused(tiny_model: Callable[..., Any], tokenizer: Any) -> None:
    model = tiny_model("gpt2", seed=3)
    with torch.no_grad():
        model.transformer.ln_f.weight.fill_(float("nan"))
    for temperature in (0.0, 1.0):
        with pytest.raises(HoneError, match="NaN"):
            texts(model, tokenizer, ["x"], temperature=temperature)


# ---- windows ------------------------------------------------------------------------------------------------------


def test_a_long_prompt_beside_short_ones_keeps_to_the_window(tiny_model: Callable[..., Any], tokenizer: Any) -> None:
    """256 positions: a row that has used up its own must not be dragged on by its neighbours."""
    model = tiny_model("gpt2")
    long = tokenizer.decode(tokenizer.encode("def add(a, b):" * 100)[:250])
    assert 240 < len(tokenizer.encode(long)) < 256
    found = texts(model, tokenizer, ["x", long, "y"], max_new_tokens=30)
    assert found == [texts(model, tokenizer, [prompt], max_new_tokens=30)[0] for prompt in ("x", long, "y")]
    assert 0 < len(tokenizer.encode(found[1][0])) <= 256 - len(tokenizer.encode(long))
    with pytest.raises(HoneError, match=r"rows.jsonl:2.*window 256"):
        texts(model, tokenizer, ["x", Prompt(long * 2, {}, "rows.jsonl:2")])


# ---- prompts as in training ---------------------------------------------------------------------------------------


def test_prompt_ids_are_those_that_training_masked(tokenizer: Any, chat_tokenizer: Any) -> None:
    from hone.data.encode import EncodeRule, encode
    from hone.data.sources import Row

    talk = [Message("system", "Be  brief. "), Message("user", "Add 1 2"), Message("assistant", "\n 3"),
            Message("user", "Sure?"), Message("assistant", " Yes.")]  # fmt: skip
    cases = [
        (Pair("def add(a, b):", " return"), "plain", tokenizer),
        (Pair("Add  1 and 2. ", "3"), "instruction", tokenizer),
        (Chat(talk), "chat", chat_tokenizer),
        (Pair("Who is\nthere?", "A fox"), "chat", chat_tokenizer),
    ]
    for example, template, spells in cases:
        rule = EncodeRule(template=template, completion_only_loss=True, append_eos=False)
        row = next(encode([(Row({}, "rows", 1), example)], spells, rule, on_drop=print))
        last = max(i for i in range(1, len(row.ids)) if row.supervised[i] and not row.supervised[i - 1])
        assert prompt_ids(example, template, spells) == row.ids[:last].tolist(), template


def test_reading_prompts(write_rows: Callable[..., Path], tmp_path: Path) -> None:
    rows = write_rows(
        "p.jsonl",
        [
            {"prompt": "a", "id": 7},
            {"prompt": "b", "completion": "B", "tests": ["x"]},
            {"instruction": "c", "input": "C"},
            {"messages": [{"role": "user", "content": "d"}, {"role": "assistant", "content": "D"}]},
            {"conversations": [{"from": "human", "value": "e"}]},
        ],
    )
    found = read_prompts(rows)
    assert [prompt.where for prompt in found] == [f"{rows}:{n}" for n in range(1, 6)]
    assert found[0].example == found[0].example.__class__("a", "")
    assert found[1].example == Pair("b", ""), "the answer is not shown to the model"
    assert found[1].columns["tests"] == ["x"]
    lines = tmp_path / "p.txt"
    lines.write_bytes("\ufeffone\n\n  \ntwo é\n".encode())
    assert [(prompt.example, prompt.where) for prompt in read_prompts(lines)] == [
        ("one", f"{lines}:1"),
        ("two é", f"{lines}:4"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("p.jsonl", b'{"prompt": "a"}\n{"text": "b"}\n', ("p.jsonl:2", "no prompt in the row", "prompt")),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": 3}\n', ("p.jsonl:2", "must be text")),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt"\n', ("p.jsonl:2", "JSON")),
        ("p.txt", b"a\ncaf\xe9\n", ("p.txt:2", "not UTF-8")),
        ("p.txt", b"\n \n", ("p.txt", "no prompts")),
        ("p.md", b"text\n", ("p.md", "no prompt in the row", ".txt")),
        ("none.txt", None, ("none.txt", "cannot read")),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": "%s"}\n' % (b"word " * 300), ("p.jsonl:2", "window 256")),
        ("p.jsonl", b'{"messages": [{"role": "user", "content": "a"}]}\n', ("p.jsonl:1", "plain", "template=chat")),
    ],
)
def test_bad_prompts_are_named_before_anything_is_generated(
    name: str, content: bytes | None, words: tuple[str, ...], tmp_path: Path, model_folder: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    out = tmp_path / "out.jsonl"
    result = invoke("generate", model_folder, "--prompts", tmp_path / name, "-o", out)
    assert result.exit_code == 1 and "Traceback" not in result.output
    for word in words:
        assert word in result.stderr, (word, result.stderr)
    assert not out.exists()


# ---- the command --------------------------------------------------------------------------------------------------


def test_a_file_of_prompts(model_folder: Path, write_rows: Callable[..., Path], tmp_path: Path) -> None:
    rows = write_rows("p.jsonl", [{"prompt": prompt, "n": i} for i, prompt in enumerate(PROMPTS[:4])])
    options = ("--max-new-tokens", "8", "--temperature", "1", "-n", "2", "--seed", "4")
    shown = invoke("generate", model_folder, "--prompts", rows, "--json", *options)
    assert shown.exit_code == 0, shown.output
    out = tmp_path / "answers.jsonl"
    written = invoke("generate", model_folder, "--prompts", rows, "-o", out, *options)
    assert written.exit_code == 0 and written.stdout == "", written.output
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert lines == [json.loads(line) for line in shown.stdout.splitlines()]
    assert [line["n"] for line in lines] == [0, 1, 2, 3]
    alone = invoke("generate", model_folder, "-p", PROMPTS[2], "--json", *options)
    assert json.loads(alone.stdout) == {"prompt": PROMPTS[2], "answers": lines[2]["answers"]}
    piped = invoke("generate", model_folder, "--json", *options, input=PROMPTS[2])
    assert piped.stdout == alone.stdout
    plain = invoke("generate", model_folder, "--prompts", rows, *options).stdout
    assert plain.index(f"--- {rows}:1") < plain.index(lines[0]["answers"][1]) < plain.index(f"--- {rows}:2")

    for target, word in (
        (rows, "prompts itself"),
        (tmp_path, "is a folder"),
        (tmp_path / "no" / "x", "no such folder"),
    ):
        refused = invoke("generate", model_folder, "--prompts", rows, "-o", target)
        assert refused.exit_code == 1 and word in refused.stderr
    both = invoke("generate", model_folder, "--prompts", rows, "-p", "x")
    assert both.exit_code == 1 and "more than one" in both.stderr
    useless = invoke("generate", model_folder, "-p", "x", "-n", "2")
    assert useless.exit_code == 1 and "temperature 0 gives the same text" in useless.stderr


def test_a_run_brings_its_template_and_settings(
    tiny_model: Callable[..., Any], chat_tokenizer: Any, tmp_path: Path
) -> None:
    """Also when one of its checkpoints is named; what is given on the command line wins."""
    import hone

    for folder in (tmp_path / "run", tmp_path / "run" / "checkpoint-2"):
        tiny_model("gpt2", vocab_size=len(chat_tokenizer)).save_pretrained(folder)
        save_tokenizer(chat_tokenizer, folder)
        (folder / "template.json").write_text('{"template": "chat"}')
        found = chosen_settings(folder, {"top_k": 3, "temperature": None})
        assert (found.temperature, found.max_new_tokens, found.top_k) == (0.0, 128, 3)
    (tmp_path / "run" / "config.resolved.yaml").write_text(
        "model_name_or_path: x\ntrain_file: y\ntemperature: 0.5\nmax_new_tokens: 5\nstop: ['zz']\n"
    )
    for folder in (tmp_path / "run", tmp_path / "run" / "checkpoint-2"):
        found = chosen_settings(folder, {"max_new_tokens": 9})
        assert (found.temperature, found.max_new_tokens, found.stop) == (0.5, 9, ["zz"])
        as_trained, as_said = (hone.generate(folder, "fox", template=name) for name in (None, "chat"))
        assert as_trained == as_said != hone.generate(folder, "fox", template="plain")


def test_from_python(model_folder: Path) -> None:
    import hone

    options = {"max_new_tokens": 6, "temperature": 1.0, "n": 3, "seed": 7}
    first = hone.generate(model_folder, "def add(", **options)
    assert len(set(first)) == 3
    assert [answers[:2] for answers in hone.generate_many(model_folder, ["x", "def add("], **options)][1] == first[:2]
    cut = hone.generate(model_folder, "def add(", stop=(first[0][1:3],), **options)
    assert cut[0] == first[0][: first[0].index(first[0][1:3])]
    with pytest.raises(HoneError, match="temperature"):
        hone.generate(model_folder, "def add(", temprature=1.0)  # type: ignore[call-arg]


def test_models_that_cannot_write_are_refused(tmp_path: Path, tokenizer: Any, model_folder: Path) -> None:
    from transformers import GPT2Config, GPT2ForSequenceClassification

    sizes = {"n_layer": 1, "n_head": 2, "n_embd": 8, "n_positions": 16, "vocab_size": len(tokenizer)}
    GPT2ForSequenceClassification(GPT2Config(**sizes, pad_token_id=0)).save_pretrained(tmp_path / "classifier")
    save_tokenizer(tokenizer, tmp_path / "classifier")
    for command in (("generate", tmp_path / "classifier", "-p", "x"), ("chat", tmp_path / "classifier")):
        result = invoke(*command)
        assert result.exit_code == 1 and "hone predict" in result.stderr, result.output
    for command in ("generate", "chat"):
        refused = invoke(command, model_folder, "--template", "chat", input="x")
        assert refused.exit_code == 1 and "no chat template" in refused.stderr


@pytest.mark.parametrize("options", [[], ["--temperature", "1", "-n", "2", "--seed", "3"]])
def test_a_stream_shows_the_text_of_the_answer(
    model_folder: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["generate", model_folder, "-p", PROMPTS[2], "--max-new-tokens", "30", *options]
    written: list[str] = []
    monkeypatch.setattr("hone.inference.terminal.piece_writer", lambda: written.append)
    plain = invoke(*command).stdout
    assert invoke(*command, "--stream").exit_code == 0
    assert "".join(written) == plain and len(written) > 10, "in pieces"


@pytest.mark.parametrize("more", [["--json"], ["--output", "x.jsonl"], ["--prompts", "x.txt"]])
def test_a_stream_is_of_one_prompt(model_folder: Path, more: list[str]) -> None:
    refused = invoke("generate", model_folder, "--stream", *more)
    assert refused.exit_code == 1 and "one prompt" in refused.stderr
