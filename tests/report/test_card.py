"""The model card: what the hub reads of it, how the model is used, no path of the machine."""

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, ModelCardData

from hone.config.load import load_config
from hone.config.sections.model import ModelSection
from hone.report.card import base_of, model_card
from hone.report.folder import read_folder
from hone.results import ClassReport, ClassScores, Sample, write
from hone.results.contamination import Contamination
from written_run import LOG, lines, measured, write_run


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "my-run")


def card_of(folder: Path, *settings: str, tag: str = "text-generation") -> tuple[ModelCardData, str]:
    config = load_config(folder / "config.resolved.yaml", list(settings))
    text = model_card(replace(read_folder(folder), config=config), tag)
    return ModelCard(text).data, text


def test_the_front_matter_is_the_hubs(run_folder: Path) -> None:
    data, text = card_of(run_folder, "train_file=null", "dataset_name=codeparrot/codeparrot-clean")
    assert (data.base_model, data.library_name, data.pipeline_tag) == ("distilgpt2", "transformers", "text-generation")
    assert data.tags == ["hone"] and data.datasets == ["codeparrot/codeparrot-clean"]
    assert data.license is None and "# license: not known. Fill it in" in text
    adapter, text = card_of(run_folder, "method=lora")
    assert (adapter.library_name, adapter.to_dict()["base_model_relation"]) == ("peft", "adapter")
    assert "from peft import AutoPeftModelForCausalLM" in text and "hone export" in text


def test_the_bundled_base_is_described_with_its_licence(run_folder: Path) -> None:
    data, text = card_of(run_folder, "model_name_or_path=hone-base")
    assert data.base_model is None and data.license == "mit" and "hone-base" in (data.tags or [])
    assert "the small model of Python code that comes with hone" in text and "license: not known" not in text


def test_a_local_base_hands_on_what_its_card_says_and_never_its_path(run_folder: Path, tmp_path: Path) -> None:
    local = tmp_path / "my-base"
    local.mkdir()
    data, text = card_of(run_folder, f"model_name_or_path={local}")
    assert data.base_model is None and "The local model `my-base`" in text
    (local / "README.md").write_text("---\nlicense: apache-2.0\nbase_model: org/first\n---\n# x\n", encoding="utf-8")
    data, text = card_of(run_folder, f"model_name_or_path={local}", f"train_file={tmp_path / 'rows.jsonl'}")
    assert (data.base_model, data.license) == ("org/first", "apache-2.0") and "itself made from org/first" in text
    assert str(tmp_path) not in text
    (local / "README.md").write_text("---\n: [\n---\n", encoding="utf-8")
    assert base_of(ModelSection(model_name_or_path=str(local))).licence is None, (
        "a card that cannot be read says nothing"
    )


@pytest.mark.parametrize("tag", ["text-generation", "text-classification", "text2text-generation"])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("template", ["plain", "instruction", "chat"])
def test_the_snippet_is_python_and_the_prompt_is_one_of_the_data(
    run_folder: Path, tag: str, method: str, template: str
) -> None:
    (run_folder / "template.json").write_text(f'{{"template": "{template}"}}', encoding="utf-8")
    prompt = "### Instruction:\nSay 'it' \"so\" \\ ```.\n\n### Response:\n"
    for name in ("base", "tuned"):
        write(run_folder / "eval" / f"{name}.json", measured(4.0, samples=[Sample(item=0, prompt=prompt, text="it\n")]))
    _, text = card_of(run_folder, f"method={method}", tag=tag)
    snippet = re.findall(r"^(`+)python\n(.*?)\n\1$", text, re.DOTALL | re.MULTILINE)[0][1]
    tree = ast.parse(snippet)
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert any(name.startswith("AutoPeft" if method == "lora" else "AutoModel") for name in names)
    if template != "chat":
        assert prompt in {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert prompt in text
    assert ("A held-out text:" in text) == (tag == "text-classification")
    assert ("in the form of the training" in text) == (tag != "text-classification")
    assert ("### Input:" in text) == (template == "instruction" and tag == "text-generation")


def test_before_and_after_limits_and_training(run_folder: Path) -> None:
    _, text = card_of(run_folder)
    assert "Better: loss fell by 1.250 [1.100, 1.400] nats a token over 33 held-out documents" in text
    assert "| base | 5.500 [5.350, 5.650] |" in text and "| tuned | 4.250 [4.100, 4.400] |" in text
    for heading in ("## Use", "## Prompt", "## Before and after", "## Limits", "## How it was trained"):
        assert f"\n{heading}\n" in text
    assert "| rows | 187 training examples, 23,979 tokens (10,358 supervised), of train.jsonl" in text
    assert "| training | 20 steps, 3 epochs" in text
    for name in ("base", "tuned", "compare"):
        (run_folder / "eval" / f"{name}.json").unlink()
    assert "Not measured: there were no held-out rows." in card_of(run_folder)[1]


@pytest.mark.parametrize(
    ("epoch", "said"), [(0.8, "0.8 epochs"), (2.9987, "3 epochs"), (1.0, "1 epoch"), (0.004, "0.004")]
)
def test_the_epochs_are_those_that_were_reached(run_folder: Path, epoch: float, said: str) -> None:
    text = lines([*LOG, {"step": 8, "epoch": epoch, "loss": 4.0}])
    (run_folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    assert f"| training | 8 steps, {said}" in card_of(run_folder, "max_steps=8")[1]
    (run_folder / "metrics.jsonl").write_text(lines(LOG), encoding="utf-8")
    assert "| training | 20 steps, 8 rows a step" in card_of(run_folder, "max_steps=20")[1], "3 epochs were not reached"


def test_near_matches_are_not_said_to_be_in_the_training_rows(run_folder: Path) -> None:
    def limits(**by_kind: int) -> str:
        named = {name.replace("_", " "): count for name, count in by_kind.items()}
        found = Contamination(n_items=99, n_contaminated=sum(by_kind.values()), near=0.5, by_kind=named)
        write(run_folder / "eval" / "contamination.json", found)
        return card_of(run_folder)[1].split("## Limits")[1]

    near = limits(exact=0, same_code=0, near=15)
    assert "- Of the 99 held-out documents, 15 nearly match a training row:" in near
    assert "in the training rows" not in near
    both = limits(exact=1, same_code=2, near=1)
    assert "- Of the 99 held-out documents, 3 are in the training rows and 1 nearly matches one:" in both
    assert "training row" not in limits().replace("recites training rows", "")


def test_the_card_of_a_classifier_has_its_classes_and_no_prompt(run_folder: Path) -> None:
    scores = ClassScores(precision=0.5, recall=0.5, f1=0.5, rows=1)
    report = ClassReport(
        classes={"ham": scores, "spam_*": scores},
        averages={},
        confusion=[[1, 0], [1, 0]],
        majority_class="ham",
        majority_accuracy=0.5,
    )
    folder = replace(
        read_folder(run_folder),
        tuned=measured(4.0, samples=[Sample(item=0, prompt="Buy now", reference="spam_*", text="ham")]).model_copy(
            update={"classes": report}
        ),
        status={"try_it": "hone predict {run} --text '…'"},
        base=None,
        memorization=None,
    )
    text = model_card(folder, "text-classification")
    assert "It answers with one of 2 classes: ham, spam\\_\\*." in text
    assert "A held-out text:\n\n```\nBuy now\n```" in text and "answers: “ham”; the row says “spam\\_\\*”." in text
    assert "With hone: `hone predict NAME --text '…'`. It prints the class." in text
    for word in ("prompt", "Prompt", "finished", "recites"):
        assert word not in text
