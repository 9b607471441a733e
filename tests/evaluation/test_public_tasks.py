"""lm-eval's numbers with intervals and counts: by a stand-in with the signature of version 0.4.13; and without it."""

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import hone
from conftest import pairs
from hone.cli import app
from hone.errors import HoneError
from hone.evaluation.public_tasks import evaluate_public, interval_of
from hone.results.benchmarks import PublicScores
from hone.statistics.intervals import wilson_interval
from hone.tables.results import public_text

EVALUATOR = """
import json
from pathlib import Path


def simple_evaluate(
    model, model_args=None, tasks=None, num_fewshot=None, batch_size=None, max_batch_size=None, device=None,
    use_cache=None, cache_requests=False, rewrite_requests_cache=False, delete_requests_cache=False, limit=None,
    samples=None, bootstrap_iters=100000, check_integrity=False, write_out=False, log_samples=True,
    evaluation_tracker=None, system_instruction=None, apply_chat_template=False, fewshot_as_multiturn=True,
    gen_kwargs=None, task_manager=None, verbosity=None, predict_only=False, random_seed=0, numpy_random_seed=1234,
    torch_random_seed=1234, fewshot_random_seed=1234, confirm_run_unsafe_code=False, metadata=None,
):
    given = dict(locals())
    if "nonsense" in tasks:
        raise ValueError("Spec 'nonsense' is not a registered task/group/tag name or valid YAML path\\nmore")
    seen = {key: given[key] for key in ("tasks", "limit", "num_fewshot", "use_cache", "cache_requests",
                                        "apply_chat_template", "confirm_run_unsafe_code", "log_samples")}
    seen |= {"class": type(model.pretrained).__name__, "tokens": len(model.tokenizer), "batch_size": model.batch_size}
    seen["training"] = model.pretrained.training
    seen["adapted"] = sum("lora_" in name for name, _ in model.pretrained.named_parameters())
    Path(__file__).with_name("seen.json").write_text(json.dumps(seen))
    error = (0.25 * 0.75 / 19) ** 0.5
    return {
        "results": {
            "easy": {"alias": "easy", "name": "easy", "sample_len": 20, "acc,none": 0.25, "acc_stderr,none": error,
                     "acc_norm,none": 0.0, "acc_norm_stderr,none": 0.0},
            "wiki": {"alias": "wiki", "word_perplexity,none": 31.5, "word_perplexity_stderr,none": "N/A",
                     "f1,strict-match": 0.4, "f1_stderr,strict-match": 0.05},
            "both": {"alias": "both", "acc,none": 0.3, "acc_stderr,none": 0.04},
        },
        "group_subtasks": {"easy": [], "wiki": [], "both": ["easy", "wiki"]},
        "n-samples": {"easy": {"original": 500, "effective": 20}, "wiki": {"original": 62, "effective": 62}},
        "higher_is_better": {"easy": {"acc": True}, "wiki": {"word_perplexity": False}},
        "versions": {"easy": 1.0},
        "n-shot": {"easy": 0},
    }
"""
MODELS = """
class HFLM:
    def __init__(self, pretrained, backend="default", revision="main", subfolder="", tokenizer=None, batch_size=1):
        self.pretrained, self.tokenizer, self.batch_size = pretrained, tokenizer, batch_size
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A stand-in for lm-eval; yields the file in which it leaves what it was called with."""
    folder = tmp_path / "packages" / "lm_eval"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text(EVALUATOR)
    (folder / "models" / "__init__.py").touch()
    (folder / "models" / "huggingface.py").write_text(MODELS)
    about = folder.parent / "lm_eval-0.4.13.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: lm_eval\nVersion: 0.4.13\n")
    for name in ("lm_eval", "lm_eval.models", "lm_eval.models.huggingface"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(folder.parent)
    yield folder / "seen.json"
    for name in [name for name in sys.modules if name.split(".")[0] == "lm_eval"]:
        del sys.modules[name]


def test_without_the_package_one_message_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, model_folder: Path
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    done = CliRunner().invoke(app, ["eval", str(model_folder), "--tasks", "arc_easy"])
    assert done.exit_code == 1 and "Traceback" not in done.stderr
    assert "public benchmarks need the lm-eval package" in done.stderr
    assert "pip install 'hone-lm[lm-eval]'" in done.stderr


def test_the_call(package: Path, model_folder: Path, tokenizer: Any) -> None:
    found = evaluate_public(str(model_folder), ["easy", "wiki"], hone.load_config({}).eval, limit=20)
    seen = json.loads(package.read_text())
    assert seen["tasks"] == ["easy", "wiki"] and seen["limit"] == 20 and seen["num_fewshot"] is None
    assert seen["use_cache"] is None and seen["cache_requests"] is False, "its cache is not keyed by the model"
    assert seen["confirm_run_unsafe_code"] is False, "it runs code in this process"
    assert seen["class"] == "GPT2LMHeadModel" and seen["tokens"] == len(tokenizer) and not seen["training"]
    assert found.versions["lm-eval"] == "0.4.13" and found.limit == 20


def test_numbers_have_intervals_and_counts(package: Path, model_folder: Path) -> None:
    tasks = evaluate_public(str(model_folder), ["easy"], hone.load_config({}).eval).tasks
    expected = wilson_interval(5, 20)
    accuracy = tasks["easy"]["acc"]
    assert (accuracy.value, accuracy.bounds) == (0.25, expected.bounds)
    assert (accuracy.n_items, accuracy.higher_is_better) == (20, True)
    assert (tasks["easy"]["acc_norm"].high or 0) > 0.15, "0 of 20 is not known to be 0"
    assert tasks["wiki"]["word_perplexity"].bounds is None
    assert tasks["wiki"]["word_perplexity"].higher_is_better is False
    assert tasks["wiki"]["f1 (strict-match)"].bounds == pytest.approx((0.4 - 0.098, 0.4 + 0.098), abs=1e-4)
    assert tasks["both"]["acc"].n_items == 82, "a group has the items of its tasks"
    assert set(tasks["easy"]) == {"acc", "acc_norm"}, "no names, no lengths"


def test_a_narrower_confidence_level(package: Path, model_folder: Path) -> None:
    wide, narrow = (
        evaluate_public(str(model_folder), ["easy"], hone.load_config({"confidence_level": level}).eval).tasks
        for level in (0.95, 0.5)
    )
    for task, metric in (("easy", "acc"), ("wiki", "f1 (strict-match)")):
        (a, d), (b, c) = wide[task][metric].bounds, narrow[task][metric].bounds
        assert a < b < c < d


@pytest.mark.parametrize("error", [None, math.nan])
def test_no_error_no_interval(error: float | None) -> None:
    assert interval_of(0.5, error, 10, 0.95).low is None


def test_what_lm_eval_refuses_is_one_message(package: Path, model_folder: Path) -> None:
    with pytest.raises(HoneError, match="nonsense: lm-eval") as caught:
        evaluate_public(str(model_folder), ["nonsense"], hone.load_config({}).eval)
    assert "lm-eval ls tasks" in str(caught.value) and "\nmore" not in str(caught.value)


def test_a_lora_run_is_measured_with_its_adapter(
    package: Path, model_folder: Path, tmp_path: Path, write_rows: Any
) -> None:
    keys = {"model_name_or_path": str(model_folder), "train_file": str(write_rows("rows.jsonl", pairs(20))),
            "output_dir": str(tmp_path / "run"), "max_steps": 1, "max_length": 64, "method": "lora",
            "eval_base": False, "sample_prompts": 0}  # fmt: skip
    run = hone.train(hone.load_config(keys))
    done = CliRunner().invoke(app, ["eval", str(run.folder), "--tasks", "easy, wiki"])
    assert done.exit_code == 0, done.output
    assert json.loads(package.read_text())["adapted"] > 0
    assert "0.2500 [0.1119, 0.4687]" in done.stdout and "lm-eval gives no error" in done.stdout
    assert "95% intervals; lm-eval 0.4.13" in done.stdout


def test_the_command_says_that_a_part_is_no_result(package: Path, model_folder: Path) -> None:
    done = CliRunner().invoke(app, ["eval", str(model_folder), "--tasks", "easy", "--limit", "20"])
    assert done.exit_code == 0, done.output
    assert "the first 20 items only: no benchmark result" in done.stdout
    as_json = CliRunner().invoke(app, ["eval", str(model_folder), "--tasks", "easy", "--json"])
    found = PublicScores.model_validate_json(as_json.stdout)
    assert (found.tasks["easy"]["acc"].value, found.limit) == (0.25, None)
    assert "easy  acc                0.2500 [0.1119, 0.4687]" in public_text(found)
