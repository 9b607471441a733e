"""What the schema says of itself: explain, recipes, the reference page."""

import re
from pathlib import Path

import pytest

from hone.bundled import RATES
from hone.config import load_config
from hone.config.aliases import ALIASES
from hone.config.checks import require_training
from hone.config.explain import explain, recipe_names, recipe_text, recipe_title
from hone.config.fields import docs_of
from hone.config.reference import reference_markdown
from hone.config.related import MOST_USED, related
from hone.config.schema import leaf_field, leaves, section_names
from hone.errors import HoneError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("leaf", leaves())
def test_explain_says_everything_about_a_key(leaf: str) -> None:
    text = " ".join(explain(leaf).split())
    for part, words in docs_of(leaf_field(leaf)).items():
        assert words is None or " ".join(words.split()) in text, part
    assert text.startswith(f"{leaves()[leaf]}.{leaf}: ")


def test_the_example_of_a_template_is_what_is_trained() -> None:
    from hone.data.records import Instruction
    from hone.data.templates import render

    row = Instruction("Write a function double(x) that returns twice x.", "", "def double(x):\n    return 2 * x")
    example = docs_of(leaf_field("template"))["example"]
    assert "".join(part.text for part in render(row, "instruction", None)) + "<|endoftext|>" == example
    assert f"```\n{example}\n```" in reference_markdown()
    assert all(f"      {line}".rstrip() in explain("template") for line in example.splitlines())


def test_the_bundled_model_s_rates_are_those_that_its_texts_name() -> None:
    said = re.findall(r"(\S+) (full|freeze|lora)\b", docs_of(leaf_field("learning_rate"))["how"])
    assert {method: float(rate) for rate, method in said} == RATES


def test_explain_without_a_key_lists_all() -> None:
    text = explain(None)
    assert all(f" {leaf} " in text for leaf in leaves()) and all(f"\n{name}: " in text for name in section_names())


def test_explain_accepts_other_spellings() -> None:
    assert explain("train.learning_rate") == explain("--learning-rate") == explain(" learning_rate ")
    assert explain("train").startswith("train: ") and "\n★ learning_rate " in explain("train")
    assert explain("method").startswith("method.method: ")
    assert explain("warmup_ratio").startswith("warmup_ratio is called warmup_steps here")
    assert "safetensors" in explain("save_safetensors")
    for name in ALIASES:
        assert f".{ALIASES[name].leaf}: " in explain(name)


@pytest.mark.parametrize("key", ["lerning_rate", "model.learning_rate"])
def test_explain_unknown_key(key: str) -> None:
    with pytest.raises(HoneError, match="did you mean 'learning_rate'"):
        explain(key)


def test_the_recipes() -> None:
    assert recipe_names() == [
        "book",
        "classify",
        "code-from-scratch",
        "instruct-gpt2",
        "light-lab",
        "qwen2-lora-cpu",
        "qwen2-lora-gpu",
        "summarize-code",
    ]
    assert all(20 < len(recipe_title(name)) < 90 for name in recipe_names())
    with pytest.raises(HoneError, match="there are: book"):
        recipe_text("nope")


@pytest.mark.parametrize("name", recipe_names())
def test_each_recipe_loads_and_can_be_trained(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.yaml"
    path.write_text(recipe_text(name), encoding="utf-8")
    config = load_config(path)
    require_training(config)
    assert config.notices == [] and config.output.output_dir == tmp_path / "runs" / name


@pytest.mark.parametrize("name", recipe_names())
def test_each_key_of_a_recipe_has_the_schemas_words_above_it(name: str) -> None:
    comment = ""
    found = 0
    for line in recipe_text(name).splitlines():
        if line.startswith("  #"):
            comment += " " + line.strip(" #")
            continue
        key = re.match(r"  (\w+):", line)
        if key:
            assert docs_of(leaf_field(key[1]))["what"] in comment, line
            found += 1
        comment = ""
    assert found >= 7 and max(map(len, recipe_text(name).splitlines())) <= 120


def test_recipes_hold_the_values_of_their_sources(tmp_path: Path) -> None:
    loaded = {}
    for name in recipe_names():
        (tmp_path / "r.yaml").write_text(recipe_text(name), encoding="utf-8")
        loaded[name] = load_config(tmp_path / "r.yaml")
    lab, book, instruct, scratch = (loaded[n] for n in ("light-lab", "book", "instruct-gpt2", "code-from-scratch"))
    assert (lab.model.model_name_or_path, lab.data.max_length, lab.data.on_long_row) == ("distilgpt2", 128, "truncate")
    assert (lab.train.per_device_train_batch_size, lab.train.num_train_epochs, lab.train.learning_rate) == (2, 2, 5e-5)
    assert (book.model.model_name_or_path, book.data.batching, book.train.lr_scheduler_type) == (
        "gpt2",
        "windows",
        "linear",
    )
    assert book.train.warmup_steps > 0 and book.data.train_file == tmp_path / "book.txt"
    assert (instruct.model.model_name_or_path, instruct.data.template) == ("gpt2-medium", "instruction")
    assert (instruct.method.method, instruct.method.num_unfrozen_layers) == ("freeze", 4)
    assert (instruct.train.num_train_epochs, instruct.data.batching) == (3, "flat")
    train = scratch.train
    assert (scratch.model.model_type, scratch.data.batching, scratch.data.max_length) == ("gpt2", "windows", 128)
    assert (train.per_device_train_batch_size, train.gradient_accumulation_steps) == (
        32,
        8,
    ) and not scratch.data.append_eos
    assert (train.lr_scheduler_type, train.warmup_steps, train.weight_decay) == ("cosine", 1000, 0.1)
    assert (train.learning_rate, train.num_train_epochs) == (5e-4, 1)
    assert train.eval_steps == train.save_steps == train.logging_steps == 5000
    for name in ("qwen2-lora-cpu", "qwen2-lora-gpu"):
        method = loaded[name].method
        assert loaded[name].model.model_name_or_path == "Qwen/Qwen2-1.5B"
        assert (method.method, method.lora_r, method.lora_alpha) == ("lora", 64, 128)
        assert method.lora_target_modules == ["q_proj", "v_proj"]
        section = loaded[name].train
        assert section.per_device_train_batch_size * section.gradient_accumulation_steps == 16


def test_the_reference_page_is_up_to_date() -> None:
    committed = (ROOT / "docs" / "reference" / "config.md").read_text(encoding="utf-8")
    assert committed == reference_markdown(), "run: python -m hone.config.reference > docs/reference/config.md"


def test_the_reference_page_has_every_key_and_name() -> None:
    page = reference_markdown()
    assert all(f"\n### {leaf}\n" in page for leaf in leaves()) and all(f"| `{name}` |" in page for name in ALIASES)


def test_the_reference_page_begins_with_a_line_for_each_key() -> None:
    index = reference_markdown().split("\n## model\n")[0]
    rows = re.findall(r"^\| ([★ ]) \| \[(\w+)\]\(#(\w+)(?:-1)?\) \| `(.+?)` \| (.+) \|$", index, re.M)
    assert [(name, anchor) for _, name, anchor, _, _ in rows] == [(leaf, leaf) for leaf in leaves()]
    assert [name for star, name, *_ in rows if star == "★"] == [leaf for leaf in leaves() if leaf in MOST_USED]


@pytest.mark.parametrize("leaf", leaves())
def test_a_key_of_the_reference_points_to_its_relatives_and_says_nothing_twice(leaf: str) -> None:
    part = reference_markdown().split(f"\n### {leaf}\n")[1].split("\n##")[0]
    assert all(f"[{other}](#{other}" in part for other in related(leaf))
    docs = docs_of(leaf_field(leaf))
    assert ("On a CPU" in part) == ("On a GPU" in part) == (docs["cpu"] != docs["gpu"])
