"""`hone compare` on run folders and graded programs: the same items or a refusal, one rule of better, exit codes."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import hone
from hone.cli import app
from hone.config.dump import resolved_yaml
from hone.config.load import load_config
from hone.errors import HoneError
from hone.evaluation.compare import compare_code
from hone.evaluation.held_out import fingerprint
from hone.files import SEAL, _seal, read_sealed
from hone.metrics.losses import ItemLosses, measurement_of
from hone.results import Comparison, Estimate, Items, Kind, json_text, write
from hone.results.contamination import Contamination
from hone.show import may_miss, measurement_line
from hone.statistics.paired import Metric, compare_items, compare_metrics, estimate, items_of, paired, verdict
from hone.tables.results import sentence
from hone.tasks import task_of
from written_run import programs

ACCURACY = Kind(heading="accuracy", higher_is_better=True, top=1.0)
MATCH = Kind(heading="exact match", higher_is_better=True, top=1.0)
ROUGE = Kind(heading="ROUGE-L", higher_is_better=True, top=1.0)
ROW_LOSS = Kind(heading="loss", unit="nats/row", higher_is_better=False)


def of_tokens(nll: Any, n_tokens: Any, n_bytes: Any = None, item: str = "document", **given: Any) -> Items:
    sizes = [np.array(values if values is not None else np.zeros(len(nll))) for values in (n_tokens, n_bytes)]
    found = items_of(item, ItemLosses(np.array(nll), *sizes, item).metrics())
    return found.model_copy(update=given)


def losses(n: int, shift: float = 0.0, seed: int = 1, tokens: int = 20) -> Items:
    """Items of a causal run: item losses around 3 nats a token, those of one `seed` alike but for the shift."""
    rng = np.random.default_rng(0)
    n_tokens = rng.integers(tokens, 10 * tokens, n)
    level = rng.normal(3, 0.5, n) + np.random.default_rng(seed).normal(0, 0.05, n) + shift
    return of_tokens(level * n_tokens, n_tokens, 4 * n_tokens, fingerprint=f"{n}")


def with_metrics(items: Items, **more: Metric) -> Items:
    return items.model_copy(update={"metrics": items.metrics | items_of(items.item, more).metrics})


def run_of(folder: Path, **items: Items) -> Path:
    for name, value in items.items():
        (folder / "eval").mkdir(parents=True, exist_ok=True)
        write(folder / "eval" / f"{name}.items.json", value)
    return folder


def results_of(path: Path, passed: dict[str, list[bool]]) -> Path:
    rows = [{"task_id": task, "passed": ok, "verdict": "…"} for task, each in passed.items() for ok in each]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_planted_difference_is_found_and_signed(tmp_path: Path) -> None:
    a, b = run_of(tmp_path / "a", tuned=losses(40)), run_of(tmp_path / "b", tuned=losses(40, -0.1, seed=2))
    found = hone.compare(a, b)
    loss = found.metrics["loss"]
    assert found.verdict == loss.verdict == "better"
    assert loss.difference.value == pytest.approx(-0.1, abs=0.05)
    assert loss.difference.value == pytest.approx(loss.b.value - loss.a.value)
    assert loss.minimum_detectable_effect and 0 < loss.minimum_detectable_effect < 0.1
    assert sentence(found) == "b is better than a in loss and bits per byte."
    back = hone.compare(b, a)
    assert back.verdict == "worse"
    assert back.metrics["loss"].p_value == loss.p_value
    assert hone.compare(a, b) == found, "the same files, the same numbers"


def test_bits_per_byte_is_the_loss_again_and_counts_once(tmp_path: Path) -> None:
    metrics = hone.compare(
        run_of(tmp_path / "a", tuned=losses(40)), run_of(tmp_path / "b", tuned=losses(40, -0.01, seed=2))
    ).metrics
    loss, bits = metrics["loss"], metrics["bits_per_byte"]
    assert loss.p_adjusted == loss.p_value == bits.p_adjusted
    assert bits.difference.value == pytest.approx(loss.difference.value / 4 / math.log(2))


def test_the_same_model_twice(tmp_path: Path) -> None:
    right = {"accuracy": Metric(ACCURACY, np.arange(9) < 8), "loss": Metric(ROW_LOSS, np.ones(9))}
    written = {"exact_match": Metric(MATCH, np.zeros(9)), "rouge_l": Metric(ROUGE, np.full(9, 0.5))}
    for i, items in enumerate((losses(30), losses(1), items_of("row", right), with_metrics(losses(9), **written))):
        folder = run_of(tmp_path / f"{i}", tuned=items, base=items)
        for found in (hone.compare(folder, folder), hone.compare(folder)):
            for change in found.metrics.values():
                same = (change.verdict, change.p_value, change.difference.value)
                assert same == ("not distinguishable", 1.0, 0.0)
            assert "not distinguishable" in sentence(found)


def test_every_item_better_by_the_same(tmp_path: Path) -> None:
    base, tuned = (of_tokens([nll] * 8, [1] * 8, item="row", fingerprint="x") for nll in (1.5, 1.0))
    loss = hone.compare(run_of(tmp_path / "a", tuned=tuned, base=base)).metrics["loss"]
    assert (loss.verdict, loss.p_value, loss.difference.bounds) == ("better", 2 / 2**8, (-0.5, -0.5))
    assert loss.minimum_detectable_effect is None, "no spread to judge by"


def test_few_items_show_nothing_and_it_says_so(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "a", base=losses(5), tuned=losses(5, -2.0))
    assert hone.compare(folder).verdict == "not distinguishable"
    told = CliRunner().invoke(app, ["compare", str(folder)])
    assert "so few items cannot show any difference" in told.stdout


def test_few_items_can_miss_a_rare_kind_and_it_says_so(tmp_path: Path) -> None:
    """One item in ten nine times as large is called a change at 12 items in 23 % of cases: no test can see it."""
    for n, said in ((12, "is missing among 12 with a chance of 28 %"), (40, "")):
        folder = run_of(tmp_path / str(n), base=losses(n), tuned=losses(n, -2.0))
        told = CliRunner().invoke(app, ["compare", str(folder)]).stdout
        assert ("is missing among" in told) == bool(said) and said in told
        assert ("is missing among" in may_miss(hone.compare(folder))) == bool(said)


def test_other_items_are_refused(tmp_path: Path) -> None:
    a = run_of(tmp_path / "a", tuned=losses(30))
    for name, items, message in (
        ("count", losses(31), "measured on 31 documents"),
        ("text", losses(30).model_copy(update={"fingerprint": "other"}), "on other documents"),
        ("item", losses(30).model_copy(update={"item": "piece"}), "30 pieces"),
    ):
        with pytest.raises(HoneError, match=message) as caught:
            hone.compare(a, run_of(tmp_path / name, tuned=items))
        assert "validation_file" in str(caught.value)
    unnamed = losses(30).model_copy(update={"fingerprint": None})
    assert hone.compare(a, run_of(tmp_path / "unnamed", tuned=unnamed)).n_items == 30
    with pytest.raises(HoneError, match="on other documents"):
        hone.compare(a, run_of(tmp_path / "cut", tuned=of_tokens([1.0] * 30, [5] * 30)))


def test_other_tokens_of_the_same_texts_leave_bits_per_byte(tmp_path: Path) -> None:
    """Half the tokens for the same bytes and nats: a loss twice as high, and no difference."""
    items = losses(30)
    nats, n_tokens = np.array(items.metrics["loss"].numerator), np.array(items.metrics["loss"].weight)
    n_bytes = 4 * n_tokens
    a = run_of(tmp_path / "a", tuned=items)
    b = run_of(tmp_path / "b", tuned=of_tokens(nats, n_tokens // 2, n_bytes, fingerprint="30"))
    found = hone.compare(a, b)
    assert list(found.metrics) == ["bits_per_byte"]
    assert found.metrics["bits_per_byte"].p_value == 1.0
    fewer = of_tokens(nats, n_tokens // 2, n_bytes - 1, fingerprint="30")  # the first token of a document has no loss
    bits = hone.compare(a, run_of(tmp_path / "c", tuned=fewer)).metrics["bits_per_byte"]
    assert bits.difference.value == pytest.approx(bits.b.value - bits.a.value)


def test_texts_written_for_other_rows_are_not_compared(tmp_path: Path) -> None:
    few, more = (with_metrics(losses(30), exact_match=Metric(MATCH, np.ones(n))) for n in (5, 6))
    found = hone.compare(run_of(tmp_path / "a", tuned=few), run_of(tmp_path / "b", tuned=more))
    assert list(found.metrics) == ["loss", "bits_per_byte"]


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"numerator": [1.0, 2.0], "weight": [1]}, "different lengths"),
        ({"numerator": ["a"]}, r"metrics\.loss\.numerator\.0"),
        ({"numerator": [float("nan")]}, "finite number"),
        ({"numerator": [1.0, 2.0], "weight": [-1, 5]}, "below 0"),
        ({"numerator": [1.0, 2.0], "weight": [float("nan"), 5]}, "finite number"),
        ({"numerator": [1.0, 2.0], "weight": [0, 0]}, "no weight at all"),
        ({"numerator": None}, "valid list"),
        ({"numerator": [1.0], "kind": {"heading": "x"}}, r"metrics\.loss\.kind\.higher_is_better"),
        (None, r"metrics"),
    ],
)
def test_damaged_measurements(tmp_path: Path, loss: dict[str, Any] | None, message: str) -> None:
    a = run_of(tmp_path / "a", tuned=losses(2))
    b = run_of(tmp_path / "b", tuned=losses(2))
    path = b / "eval" / "tuned.items.json"
    content = read_sealed(path)
    content["metrics"] = {} if loss is None else {"loss": {**content["metrics"]["loss"], **loss}}
    path.write_text(json.dumps(content | {SEAL: _seal(content)}))
    with pytest.raises(HoneError, match=message) as caught:
        hone.compare(a, b)
    assert caught.value.where == str(path)


def test_what_is_not_there(tmp_path: Path) -> None:
    graded = results_of(tmp_path / "a_results.jsonl", {"t/1": [True]})
    run = run_of(tmp_path / "run", tuned=losses(3))
    for arguments, message in (
        ([tmp_path / "none"], "no such folder"),
        ([Path("gpt2")], "no such run folder, and no file of graded programs"),
        ([tmp_path / "none_results.jsonl"], "no such run folder, and no file of graded programs"),
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
    rate = found.metrics["passed"]
    assert (rate.test, rate.p_value, rate.only_b, rate.only_a) == ("McNemar", 2 / 2**9, 9, 0)
    assert (rate.a.value, rate.b.value, rate.difference.value) == (10 / 30, 19 / 30, 0.3)
    assert (found.only_in_a, found.only_in_b, found.n_items) == (["only/a"], [], 30)
    assert sentence(found) == "b.jsonl is better than a.jsonl in pass rate."
    printed = CliRunner().invoke(app, ["compare", str(a), str(b)])
    assert "left out: 1 tasks that only a.jsonl has, as only/a" in printed.stdout


def test_graded_programs_several_samples(tmp_path: Path) -> None:
    a = results_of(tmp_path / "a.jsonl", {f"t/{i}": [i % 2 == 0, False, False, False] for i in range(12)})
    b = results_of(tmp_path / "b.jsonl", {f"t/{i}": [True, i % 3 == 0, True, False] for i in range(12)})
    rate = hone.compare(a, b).metrics["passed"]
    assert (rate.test, rate.a.value, rate.b.value) == ("sign flip", 1 / 8, 7 / 12)
    assert rate.verdict == "better" and 2 / 2**12 <= rate.p_value < 0.001


def test_several_metrics_are_adjusted() -> None:
    """A p of 0.03 alone is better; beside three others that say nothing it is not."""
    rng = np.random.default_rng(0)
    nothing, neither = (
        {name: Metric(ROW_LOSS, rng.normal(0, 1, 30)) for name in ("this", "that", "other")} for _ in "ab"
    )
    right = np.zeros(30)
    one, other = ({"exact_match": Metric(MATCH, values)} for values in (right, np.where(np.arange(30) < 6, 1, right)))
    alone = compare_metrics(one, other)["exact_match"]
    among = compare_metrics({**one, **nothing}, {**other, **neither})["exact_match"]
    assert (alone.p_value, alone.p_adjusted, alone.verdict) == (2 / 2**6, 2 / 2**6, "better")
    assert (among.p_value, among.p_adjusted, among.verdict) == (2 / 2**6, 8 / 2**6, "not distinguishable")


def test_a_metric_that_cannot_alarm_costs_the_others_nothing() -> None:
    """Five rows of thirty differ: McNemar's p is at least 1/16, so there is one question and not two."""
    before = {"loss": Metric(ROW_LOSS, np.zeros(30)), "exact_match": Metric(MATCH, np.zeros(30))}
    loss = np.where(np.arange(30) < 6, -1.0, 0.0)
    after = {"loss": Metric(ROW_LOSS, loss), "exact_match": Metric(MATCH, np.arange(30) < 5)}
    found = compare_metrics(before, after)
    assert [change.n_differing for change in found.values()] == [6, 5]
    assert found["loss"].p_adjusted == found["loss"].p_value == pytest.approx(2 / 2**6, abs=0.006)
    after["exact_match"] = Metric(MATCH, np.arange(30) < 6)
    assert compare_metrics(before, after)["loss"].p_adjusted > 0.05


def test_what_has_no_better_side_is_not_compared() -> None:
    words = Metric(Kind(heading="words", higher_is_better=None), np.arange(9.0))
    assert compare_metrics({"words": words}, {"words": words}) == {}


def test_verdict_needs_both_the_test_and_the_interval() -> None:
    def of(p: float, low: float | None, high: float | None) -> str:
        return verdict(p, Estimate(value=0.0, low=low, high=high), ROW_LOSS, alpha=0.05)

    assert of(0.01, -0.3, -0.1) == "better"
    assert of(0.01, 0.1, 0.3) == "worse"
    assert {of(0.06, -0.3, -0.1), of(0.01, -0.3, 0.0), of(0.01, None, None)} == {"not distinguishable"}


@pytest.mark.parametrize(
    ("p", "bounds", "higher", "expected"),
    [
        (0.049, (0.2, 0.5), True, "better"),
        (0.049, (0.2, 0.5), False, "worse"),
        (0.049, (-0.5, -0.2), True, "worse"),
        (0.049, (-0.5, -0.2), False, "better"),
        (0.05, (0.2, 0.5), True, "not distinguishable"),
        (0.01, (0.0, 0.5), True, "not distinguishable"),
        (0.01, (-0.5, 0.0), True, "not distinguishable"),
        (0.01, (2.0, 3.0), True, "better"),
        (0.01, (-0.2, 0.5), None, "not distinguishable"),
    ],
)
def test_verdicts_by_hand(p: float, bounds: tuple[float, float], higher: bool | None, expected: str) -> None:
    difference = Estimate(value=sum(bounds) / 2, low=bounds[0], high=bounds[1])
    assert verdict(p, difference, Kind(heading="x", higher_is_better=higher), alpha=0.05) == expected


def test_which_test_is_taken_and_what_it_could_have_seen() -> None:
    """McNemar where both are yes or no; the sign flip of shares; else also the second look; each with its effect."""
    from hone.statistics.intervals import (
        mean_test,
        minimum_detectable_mean,
        ratio_interval,
        share_difference_interval,
        sign_flip,
    )

    rng = np.random.default_rng(5)
    skewed = 1.7 - rng.exponential(1, 9)
    assert sign_flip(skewed) < mean_test(skewed), "else the two are not told apart here"
    loss, share = Kind(heading="loss", higher_is_better=False), Kind(heading="share", higher_is_better=True, top=1.0)
    zeros = np.full(9, 0.5)
    found = paired(Metric(loss, zeros), Metric(loss, zeros + skewed))
    assert found.p_value == mean_test(skewed) and found.test == "sign flip"
    spread = float(np.std(skewed * 9 / 8 - skewed.mean() * 9 / 8, ddof=1))
    effect = minimum_detectable_mean(spread * 8 / 9, 9, power=0.8, alpha=0.05)
    assert found.minimum_detectable_effect == pytest.approx(effect, rel=1e-6)
    assert paired(Metric(share, zeros), Metric(share, zeros + skewed)).p_value == sign_flip(skewed)
    same = paired(Metric(share, zeros), Metric(share, zeros)).difference
    assert same == share_difference_interval(0, 0, 9)
    assert paired(Metric(loss, zeros), Metric(loss, zeros)).difference == ratio_interval(np.zeros(9), np.ones(9))
    mixed = paired(Metric(share, np.array([0.0, 1.0, 1.0, 0.0])), Metric(share, np.array([0.5, 1.0, 0.2, 0.0])))
    assert mixed.test == "sign flip" and mixed.only_a is None


def test_weights_that_differ_a_little_count_each_for_its_own() -> None:
    """Two tokenizers: the value of each side is over its own tokens, and so is their difference."""
    kind = Kind(heading="loss", higher_is_better=False)
    a = Metric(kind, np.array([2.0, 9.0, 4.0]), np.array([1.0, 3.0, 2.0]))
    b = Metric(kind, np.array([3.0, 9.0, 8.0]), np.array([1.0, 4.0, 4.0]))
    found = paired(a, b)
    assert (found.a.value, found.b.value) == pytest.approx((15 / 6, 20 / 9))
    assert found.difference.value == pytest.approx(20 / 9 - 15 / 6)


def test_what_one_item_or_equal_differences_can_show() -> None:
    kind = Kind(heading="loss", higher_is_better=False)
    for n, step in ((1, 0.5), (9, 0.5), (9, 1e-9)):
        found = paired(Metric(kind, np.ones(n)), Metric(kind, np.ones(n) + step))
        assert found.minimum_detectable_effect is None, "no spread was seen to judge by"
    small = np.ones(9) + np.linspace(0, 1e-6, 9)
    assert paired(Metric(kind, np.ones(9)), Metric(kind, small)).minimum_detectable_effect == pytest.approx(
        4e-7, rel=0.5
    )


def test_what_a_training_compares() -> None:
    base, tuned = (
        with_metrics(losses(12, shift), exact_match=Metric(MATCH, np.full(12, right)))
        for shift, right in ((0.0, 0), (-0.2, 1))
    )
    found = compare_items(base, tuned)
    assert Comparison.model_validate_json(json_text(found)) == found
    assert (found.headline, found.verdict, found.n_items, found.item) == ("loss", "better", 12, "document")
    assert list(found.metrics) == ["loss", "bits_per_byte", "exact_match"]
    assert found.metrics["exact_match"].difference.value == 1.0
    assert found.metrics["loss"].difference.value == pytest.approx(-0.2)
    p = found.metrics["loss"].p_value
    assert 2 / 2**12 <= p < 0.001 and found.metrics["loss"].p_adjusted == 4 / 2**12


def test_levels_stay_in_their_range() -> None:
    few = paired(Metric(ROUGE, np.array([1.0, 1.0, 0.2])), Metric(ROUGE, np.array([0.0, 0.0, 0.1])))
    assert (few.a.high, few.b.low) == (1.0, 0.0)


def test_what_is_not_a_number_is_named() -> None:
    with pytest.raises(HoneError, match="loss of 1 of 3 items"):
        estimate(Metric(ROW_LOSS, np.array([1.0, np.nan, 2.0])))


def test_exit_codes_and_json(tmp_path: Path) -> None:
    a, b = run_of(tmp_path / "a", tuned=losses(40)), run_of(tmp_path / "b", tuned=losses(40, 0.1, seed=2))
    run = CliRunner().invoke
    worse = run(app, ["compare", str(a), str(b), "--fail-if-worse", "loss"])
    assert worse.exit_code == 3
    assert worse.stdout.splitlines()[0] == "b is worse than a in loss and bits per byte."
    assert "failed: loss is worse: +0.09" in worse.stderr
    assert run(app, ["compare", str(b), str(a), "--fail-if-worse", "loss"]).exit_code == 0
    assert run(app, ["compare", str(a), str(a), "--fail-if-worse", "loss"]).exit_code == 0
    unknown = run(app, ["compare", str(a), str(b), "--fail-if-worse", "accuracy"])
    assert (unknown.exit_code, "name one of loss, bits_per_byte" in unknown.stderr) == (1, True)
    told = run(app, ["compare", str(a), str(b), "--json", "--fail-if-worse", "loss"])
    assert told.exit_code == 3 and Comparison.model_validate_json(told.stdout) == hone.compare(a, b)


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
    ruined = ItemLosses(np.full(3, 9e3), np.full(3, 9), np.full(3, 30), "document")
    line = measurement_line(measurement_of("causal", ruined, confidence=0.95, resamples=50))
    assert "perplexity 1e+304 [1e+304, 1e+304]" in line and len(line) < 200


def code_of(folder: Path, **passed: list[bool]) -> Path:
    for name, each in passed.items():
        write(folder / "eval" / f"{name}.code.json", programs(*each))
    return folder


def test_base_and_tuned_are_called_that_and_their_unit_tests_count(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "run", base=losses(40), tuned=losses(40, -0.1, seed=2))
    code_of(folder, base=[False] * 20, tuned=[True] * 12 + [False] * 8)
    told = CliRunner().invoke(app, ["compare", str(folder)]).stdout
    assert told.startswith("tuned is better than base in pass rate, loss and bits per byte.\n")
    head, _, first, *_ = told.splitlines()[2:]
    assert head.split()[:2] == ["base", "tuned"] and "tuned - base, paired" in head and head.endswith("tuned is")
    assert first.startswith("passed ") and first.endswith("better") and "+0.600" in first
    assert "pass rate: over 20 tasks" in told and str(tmp_path) not in told
    found = json.loads(CliRunner().invoke(app, ["compare", str(folder), "--json"]).stdout)
    assert (found["a"], found["b"], found["code"]["metrics"]["passed"]["only_b"]) == ("base", "tuned", 12)


def test_two_runs_are_called_by_the_end_of_their_paths_that_differs(tmp_path: Path) -> None:
    a, b = (tmp_path / name / "run" for name in ("first", "second"))
    for folder, right in ((a, True), (b, False)):
        code_of(run_of(folder, tuned=losses(40)), tuned=[right] * 20)
    told = CliRunner().invoke(app, ["compare", str(a), str(b), "--fail-if-worse", "passed"])
    assert told.exit_code == 3 and "passed is worse" in told.stderr
    assert told.stdout.startswith("second/run is worse than first/run in pass rate; not distinguishable in loss")


def test_programs_of_other_tasks_are_left_out(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "run", base=losses(40), tuned=losses(40, -0.1, seed=2))
    write(folder / "eval/base.code.json", programs(True, names=["x"]))
    write(folder / "eval/tuned.code.json", programs(True, names=["y"]))
    assert compare_code(folder) is None
    assert "pass rate" not in CliRunner().invoke(app, ["compare", str(folder)]).stdout


# ---- two runs that differ in more than their models ------------------------------------------------------------------


def configured(folder: Path, held_out: str = "eval.jsonl", sha: str = "1", **keys: Any) -> Path:
    """The files of a run that say what it was trained and measured on."""
    given = {"train_file": "train.jsonl", "validation_file": held_out}
    config = load_config({**given, **keys})
    (folder / "config.resolved.yaml").write_text(resolved_yaml(config))
    (folder / "env.json").write_text(json.dumps({"data": {"validation": [{"file": held_out, "sha256": sha}]}}))
    return folder


def contaminated(folder: Path, exact: int, near: int = 0, **keys: Any) -> Path:
    found = {"n_items": 40, "n_contaminated": exact + near, "by_kind": {"exact": exact, "near": near}}
    found_rows = Contamination.model_validate({**found, "rows": list(range(exact + near))})
    write(folder / "eval/contamination.json", found_rows)
    return configured(folder, **keys)


def test_runs_that_differ_in_contamination_say_so_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("leaky", "clean", "none", "x")):
        run_of(Path(name), tuned=losses(40, seed=seed))
    contaminated(Path("leaky"), 36, 2)
    contaminated(Path("clean"), 36, 2, overlap="drop")
    contaminated(Path("none"), 0)
    printed = CliRunner().invoke(app, ["compare", "leaky", "clean"]).stdout
    assert printed.count("contamination differs") == 1
    said = "of the 40 held-out documents of leaky, 36 are in the training rows and 2 nearly match one"
    dropped = "clean was trained without the 38 rows that held or nearly matched one (overlap=drop)"
    assert f"contamination differs: {said}; {dropped}. The numbers of leaky are" in printed
    assert "The numbers of leaky are better than they would be on new rows\n" in printed
    (note,) = hone.compare("none", "leaky").notes
    assert note.startswith("contamination differs: none of the 40 held-out documents of none is in its training rows;")
    (note,) = hone.compare("x", "leaky").notes
    assert "for x it was not looked for" in note
    for a, b in (("clean", "none"), ("x", "clean"), ("leaky", "leaky")):
        assert hone.compare(a, b).notes == []
    absolute = CliRunner().invoke(app, ["compare", str(tmp_path / "leaky"), str(tmp_path / "clean")]).stdout
    assert f"differs: {said}; clean was" in absolute


@pytest.mark.parametrize(
    ("a", "b", "says", "fix"),
    [
        ({"template": "instruction"}, {"template": "plain"},
         "the rows are the same, their form is not: template is plain, and instruction in a", "the same template"),
        ({"max_length": 64}, {"max_length": 128},
         "the rows are the same, their form is not: max_length is 128, and 64 in a", "the same max_length"),
        ({"max_eval_samples": 20}, {"max_eval_samples": 30},
         "other rows are held out: max_eval_samples is 30, and 20 in a", "the same max_eval_samples"),
        ({"template": "plain"}, {"template": "instruction", "held_out": "other.jsonl", "sha": "2"}, "", "measure both"),
        ({}, {}, "", "measure both on the same rows"),
    ],
)  # fmt: skip
def test_what_really_differs_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, a: dict[str, Any], b: dict[str, Any], says: str, fix: str
) -> None:
    monkeypatch.chdir(tmp_path)
    configured(run_of(Path("a"), tuned=losses(30)), **a)
    configured(run_of(Path("b"), tuned=losses(30).model_copy(update={"fingerprint": "other"})), **b)
    with pytest.raises(HoneError) as found:
        hone.compare("a", "b")
    assert found.value.what == "measured on other documents than a" + (f": {says}" if says else "")
    assert fix in str(found.value.fix)


def test_the_template_that_was_chosen_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both configs say auto; what came of it is in template.json. And a share of the rows held out anew."""
    monkeypatch.chdir(tmp_path)
    for name, template, texts in (("a", "plain", "x"), ("b", "chat", "y")):
        configured(run_of(Path(name), tuned=losses(30).model_copy(update={"fingerprint": texts})))
        Path(name, "template.json").write_text(json.dumps({"template": template}))
    with pytest.raises(HoneError, match="template is chat, and plain in a"):
        hone.compare("a", "b")
    for name, share in (("a", 10.0), ("b", 20.0)):
        configured(Path(name), held_out="", validation_file=None, validation_split_percentage=share)
    with pytest.raises(HoneError, match=r"rows are held out: validation_split_percentage is 20\.0, and 10\.0 in a"):
        hone.compare("a", "b")
