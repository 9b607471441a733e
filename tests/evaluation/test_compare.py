"""`hone compare` on run folders and graded programs: the same items or a refusal, one rule of better, exit codes."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import hone
from hone.cli import app
from hone.errors import HoneError
from hone.evaluation.run import fingerprint
from hone.statistics.paired import METRICS, Metric, before_after, compare_metrics, metrics_of, paired, verdict
from hone.tasks import task_of


def losses(n: int, shift: float = 0.0, seed: int = 1, tokens: int = 20) -> dict[str, Any]:
    """Items of a causal run: item losses around 3 nats a token, those of one `seed` alike but for the shift."""
    rng = np.random.default_rng(0)
    n_tokens = rng.integers(tokens, 10 * tokens, n)
    level = rng.normal(3, 0.5, n) + np.random.default_rng(seed).normal(0, 0.05, n) + shift
    return {
        "kind": "document",
        "nll": (level * n_tokens).tolist(),
        "n_tokens": n_tokens.tolist(),
        "n_bytes": (4 * n_tokens).tolist(),
        "fingerprint": f"{n}",
    }


def run_of(folder: Path, **items: dict[str, Any]) -> Path:
    (folder / "eval").mkdir(parents=True)
    for name, value in items.items():
        (folder / "eval" / f"{name}.items.json").write_text(json.dumps(value))
    return folder


def results_of(path: Path, passed: dict[str, list[bool]]) -> Path:
    rows = [{"task_id": task, "passed": ok, "verdict": "…"} for task, each in passed.items() for ok in each]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_planted_difference_is_found_and_signed(tmp_path: Path) -> None:
    a, b = run_of(tmp_path / "a", tuned=losses(40)), run_of(tmp_path / "b", tuned=losses(40, -0.1, seed=2))
    found = hone.compare(a, b)
    loss = found["metrics"]["loss"]
    assert found["verdict"] == loss["verdict"] == "better"
    assert loss["difference"] == pytest.approx(-0.1, abs=0.05)
    assert loss["difference"] == pytest.approx(loss["b"] - loss["a"])
    assert 0 < loss["mde"] < 0.1
    assert found["sentence"] == f"{b} is better than {a} in loss and bits per byte."
    back = hone.compare(b, a)
    assert back["verdict"] == "worse"
    assert back["metrics"]["loss"]["p_value"] == loss["p_value"]
    assert hone.compare(a, b) == found, "the same files, the same numbers"


def test_bits_per_byte_is_the_loss_again_and_counts_once(tmp_path: Path) -> None:
    metrics = hone.compare(
        run_of(tmp_path / "a", tuned=losses(40)), run_of(tmp_path / "b", tuned=losses(40, -0.01, seed=2))
    )["metrics"]
    assert metrics["loss"]["p_adjusted"] == metrics["loss"]["p_value"] == metrics["bits_per_byte"]["p_adjusted"]
    assert metrics["bits_per_byte"]["difference"] == pytest.approx(metrics["loss"]["difference"] / 4 / math.log(2))


def test_the_same_model_twice(tmp_path: Path) -> None:
    for items in (
        losses(30),
        losses(1),
        {"kind": "row", "nll": [1.0] * 9, "true": [1] * 9, "predicted": [1] * 8 + [0]},
        {"kind": "row", **losses(9), "written": {"exact_match": [0.0] * 9, "rouge_l": [0.5] * 9}},
    ):
        folder = run_of(tmp_path / f"{len(items)}-{len(items['nll'])}", tuned=items, base=items)
        for found in (hone.compare(folder, folder), hone.compare(folder)):
            for metric in found["metrics"].values():
                assert (metric["verdict"], metric["p_value"], metric["difference"]) == ("not distinguishable", 1.0, 0.0)
            assert "not distinguishable" in found["sentence"]


def test_every_item_better_by_the_same(tmp_path: Path) -> None:
    rows = {"kind": "row", "nll": [1.0] * 8, "n_tokens": [1] * 8, "fingerprint": "x"}
    found = hone.compare(run_of(tmp_path / "a", tuned=rows, base={**rows, "nll": [1.5] * 8}))
    loss = found["metrics"]["loss"]
    assert (loss["verdict"], loss["p_value"], loss["difference_interval"]) == ("better", 2 / 2**8, [-0.5, -0.5])
    assert loss["mde"] is None, "no spread to judge by"


def test_few_items_show_nothing_and_it_says_so(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "a", base=losses(5), tuned=losses(5, -2.0))
    assert hone.compare(folder)["verdict"] == "not distinguishable"
    told = CliRunner().invoke(app, ["compare", str(folder)])
    assert "so few items cannot show any difference" in told.stdout


def test_other_items_are_refused(tmp_path: Path) -> None:
    a = run_of(tmp_path / "a", tuned=losses(30))
    for name, items, message in (
        ("count", losses(31), "measured on 31 documents"),
        ("text", {**losses(30), "fingerprint": "other"}, "on other documents"),
        ("kind", {**losses(30), "kind": "piece"}, "30 pieces"),
    ):
        with pytest.raises(HoneError, match=message) as caught:
            hone.compare(a, run_of(tmp_path / name, tuned=items))
        assert "validation_file" in str(caught.value)
    older = {key: value for key, value in losses(30).items() if key != "fingerprint"}
    assert hone.compare(a, run_of(tmp_path / "older", tuned=older))["n_items"] == 30
    with pytest.raises(HoneError, match="on other documents"):
        hone.compare(a, run_of(tmp_path / "cut", tuned={**older, "n_tokens": [5] * 30}))


def test_other_tokens_of_the_same_texts_leave_bits_per_byte(tmp_path: Path) -> None:
    """Half the tokens for the same bytes and nats: a loss twice as high, and no difference."""
    other = losses(30, seed=1)
    other["n_tokens"] = [n // 2 for n in other["n_tokens"]]
    a, b = run_of(tmp_path / "a", tuned=losses(30)), run_of(tmp_path / "b", tuned=other)
    found = hone.compare(a, b)
    assert list(found["metrics"]) == ["bits_per_byte"]
    assert found["metrics"]["bits_per_byte"]["p_value"] == 1.0
    other["n_bytes"] = [n - 1 for n in other["n_bytes"]]  # the first token of a document has no loss
    (run_of(tmp_path / "c", tuned=other),)
    bits = hone.compare(a, tmp_path / "c")["metrics"]["bits_per_byte"]
    assert bits["difference"] == pytest.approx(bits["b"] - bits["a"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"kind": "row", "n_tokens": [1, 2]}, "not the numbers of items"),
        ({"kind": "row", "nll": [1.0, 2.0], "n_tokens": [1]}, "different lengths"),
        ({"kind": "row", "nll": ["a"], "n_tokens": [1]}, "not the numbers of items"),
        ({"kind": "row", "nll": [float("nan")], "n_tokens": [1]}, "no numbers"),
        ({"kind": "row", "nll": [1.0, 2.0], "n_tokens": [3, 3], "n_bytes": [-1, 5]}, "below 0"),
        ({"kind": "row", "nll": [1.0, 2.0], "n_tokens": [3, 3], "n_bytes": [float("nan"), 5]}, "below 0"),
        ({"kind": "row", "nll": [1.0, 2.0], "n_tokens": [0, 0]}, "none at all"),
        ({"kind": "row", "nll": [1.0, 2.0], "n_tokens": [3, 3], "written": None}, "not the numbers of items"),
        ({"kind": "row", "nll": [1.0, 2.0], "n_tokens": [3, 3], "written": {"zzz": [1, 2]}}, "is no metric"),
        ([1, 2], "a JSON object was expected"),
    ],
)
def test_damaged_measurements(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    a = run_of(tmp_path / "a", tuned=losses(2))
    with pytest.raises(HoneError, match=message):
        hone.compare(a, run_of(tmp_path / "b", tuned=content))


def test_what_is_not_there(tmp_path: Path) -> None:
    graded = results_of(tmp_path / "a_results.jsonl", {"t/1": [True]})
    run = run_of(tmp_path / "run", tuned=losses(3))
    for arguments, message in (
        ([tmp_path / "none"], "no such folder"),
        ([run], "holds no measurement of its base model"),
        ([graded], "two files of graded programs"),
        ([run, graded], "nothing in common"),
        ([graded, results_of(tmp_path / "b", {"other": [True]}).rename(tmp_path / "b.jsonl")], "no task is also in"),
    ):
        with pytest.raises(HoneError, match=message):
            hone.compare(*arguments)
    (tmp_path / "samples.jsonl").write_text('{"task_id": "t/1", "completion": "pass"}\n')
    with pytest.raises(HoneError, match=r"samples\.jsonl:1: a graded program has") as caught:
        hone.compare(graded, tmp_path / "samples.jsonl")
    assert "hone grade" in str(caught.value)


def test_graded_programs_one_sample_each(tmp_path: Path) -> None:
    """30 tasks of both, nine that only B passes; a task of A's alone is left out. McNemar's p: 2 / 2**9."""
    before = {f"t/{i}": [i < 10] for i in range(30)}
    after = {task: [i < 19] for i, task in enumerate(before)}
    a = results_of(tmp_path / "a.jsonl", {"only/a": [True], **before})
    b = results_of(tmp_path / "b.jsonl", dict(reversed(after.items())))
    found = hone.compare(a, b)
    rate = found["metrics"]["passed"]
    assert (rate["test"], rate["p_value"], rate["only_b"], rate["only_a"]) == ("McNemar", 2 / 2**9, 9, 0)
    assert (rate["a"], rate["b"], rate["difference"]) == (10 / 30, 19 / 30, 0.3)
    assert (found["only_in_a"], found["only_in_b"], found["n_items"]) == (["only/a"], [], 30)
    assert found["sentence"] == f"{b} is better than {a} in pass rate."
    told = CliRunner().invoke(app, ["compare", str(a), str(b)])
    assert "left out: 1 tasks that only A has, as only/a" in told.stdout


def test_graded_programs_several_samples(tmp_path: Path) -> None:
    a = results_of(tmp_path / "a.jsonl", {f"t/{i}": [i % 2 == 0, False, False, False] for i in range(12)})
    b = results_of(tmp_path / "b.jsonl", {f"t/{i}": [True, i % 3 == 0, True, False] for i in range(12)})
    rate = hone.compare(a, b)["metrics"]["passed"]
    assert (rate["test"], rate["a"], rate["b"]) == ("sign flip", 1 / 8, 7 / 12)
    assert (rate["verdict"], rate["p_value"]) == ("better", 2 / 2**12)


def test_several_metrics_are_adjusted() -> None:
    """A p of 0.03 alone is better; beside three others that say nothing it is not."""
    rng = np.random.default_rng(0)
    nothing, neither = (
        {name: Metric(name, rng.normal(0, 1, 30)) for name in ("chrf_mean", "rouge_l", "loss")} for _ in "ab"
    )
    right = np.zeros(30)
    one = {"exact_match": Metric("exact_match", right)}
    other = {"exact_match": Metric("exact_match", np.where(np.arange(30) < 6, 1, right))}
    alone = compare_metrics(one, other)["exact_match"]
    among = compare_metrics({**one, **nothing}, {**other, **neither})["exact_match"]
    assert (alone["p_value"], alone["p_adjusted"], alone["verdict"]) == (2 / 2**6, 2 / 2**6, "better")
    assert (among["p_value"], among["p_adjusted"], among["verdict"]) == (2 / 2**6, 8 / 2**6, "not distinguishable")


def test_a_metric_that_cannot_alarm_costs_the_others_nothing() -> None:
    """Five rows of thirty differ: McNemar's p is at least 1/16, so there is one question and not two."""
    before = {"loss": Metric("loss", np.zeros(30)), "exact_match": Metric("exact_match", np.zeros(30))}
    loss = np.where(np.arange(30) < 6, -1.0, 0.0)
    after = {"loss": Metric("loss", loss), "exact_match": Metric("exact_match", np.arange(30) < 5)}
    found = compare_metrics(before, after)
    assert [found[name]["n_differing"] for name in found] == [6, 5]
    assert found["loss"]["p_adjusted"] == found["loss"]["p_value"] == pytest.approx(2 / 2**6, abs=0.006)
    after["exact_match"] = Metric("exact_match", np.arange(30) < 6)
    assert compare_metrics(before, after)["loss"]["p_adjusted"] > 0.05


def test_verdict_needs_both_the_test_and_the_interval() -> None:
    def of(p: float, interval: list[float] | None) -> str:
        return verdict(p, interval, alpha=0.05, higher_is_better=False)

    assert of(0.01, [-0.3, -0.1]) == "better"
    assert of(0.01, [0.1, 0.3]) == "worse"
    assert {of(0.06, [-0.3, -0.1]), of(0.01, [-0.3, 0.0]), of(0.01, None)} == {"not distinguishable"}


def test_what_a_training_writes() -> None:
    """eval/compare.json: a key for each metric's difference, the headline's evidence at the top, all under metrics."""
    base, tuned = ({**losses(12, shift), "kind": "row"} for shift in (0.0, -0.2))
    base["written"], tuned["written"] = {"exact_match": [0.0] * 12}, {"exact_match": [1.0] * 12}
    found = before_after(base, tuned)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["task"], found["verdict"], found["n_items"], found["item"]) == ("seq2seq", "better", 12, "row")
    assert (found["exact_match_difference"], found["loss_difference"]) == (1.0, pytest.approx(-0.2))
    assert (found["p_value"], found["p_adjusted"]) == (2 / 2**12, 4 / 2**12)
    assert set(found["metrics"]) == {"loss", "bits_per_byte", "exact_match"} <= set(METRICS)


def test_levels_stay_in_their_range() -> None:
    few = paired(Metric("rouge_l", np.array([1.0, 1.0, 0.2])), Metric("rouge_l", np.array([0.0, 0.0, 0.1])))
    assert (few["a_interval"][1], few["b_interval"][0]) == (1.0, 0.0)
    assert metrics_of({"nll": [1.0], "n_tokens": [2], "n_bytes": [0]}).keys() == {"loss"}


def test_exit_codes_and_json(tmp_path: Path) -> None:
    a, b = run_of(tmp_path / "a", tuned=losses(40)), run_of(tmp_path / "b", tuned=losses(40, 0.1, seed=2))
    run = CliRunner().invoke
    worse = run(app, ["compare", str(a), str(b), "--fail-if-worse", "loss"])
    assert worse.exit_code == 3
    assert worse.stdout.splitlines()[0] == f"{b} is worse than {a} in loss and bits per byte."
    assert "failed: loss is worse: +0.09" in worse.stderr
    assert run(app, ["compare", str(b), str(a), "--fail-if-worse", "loss"]).exit_code == 0
    assert run(app, ["compare", str(a), str(a), "--fail-if-worse", "loss"]).exit_code == 0
    unknown = run(app, ["compare", str(a), str(b), "--fail-if-worse", "accuracy"])
    assert (unknown.exit_code, "name one of loss, bits_per_byte" in unknown.stderr) == (1, True)
    told = run(app, ["compare", str(a), str(b), "--json", "--fail-if-worse", "loss"])
    assert (told.exit_code, json.loads(told.stdout)) == (3, hone.compare(a, b))


def test_fingerprint_is_of_the_texts_alone(tmp_path: Path, model_folder: Path, tokenizer: Any, write_rows: Any) -> None:
    """The same for other pieces of a text and other white space, another for one other letter."""

    def of(text: str, **settings: Any) -> str:
        other = write_rows("train.jsonl", [{"text": "something else"}])
        rows = write_rows("rows.jsonl", [{"text": text}, {"text": "another document " * 5}])
        config = hone.load_config(
            {
                "model_name_or_path": str(model_folder),
                "train_file": str(other),
                "validation_file": str(rows),
                "token_cache_dir": str(tmp_path / "cache"),
                **settings,
            }
        )
        return fingerprint(hone.prepare(config).validation, task_of(config), tokenizer)

    text = "def add(a, b):\n    return a + b\n" * 6
    assert of(text) == of(text, max_length=32) == of(text.replace("    ", "  "))
    assert of(text) != of(text.replace("+", "-"))


def test_a_ruined_run_is_told_in_few_digits(tmp_path: Path) -> None:
    from hone.evaluation.run import describe
    from hone.metrics.losses import ItemLosses, summarize

    ruined = summarize(
        ItemLosses(np.full(3, 9e3), np.full(3, 9), np.full(3, 30), "document"), confidence=0.95, resamples=50
    )
    told = describe(dataclasses.asdict(ruined))
    assert "perplexity 1e+304 [1e+304, 1e+304]" in told and len(told) < 200
