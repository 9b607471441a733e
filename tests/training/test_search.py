"""`hone search`: ordinary runs; half of the held-out items choose one of them, the other half judges it."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hone
from conftest import pairs
from forked import hone_process
from hone.config.grid import grid, point_name, split_choices
from hone.errors import HoneError
from hone.results import read
from hone.results.search import Search
from hone.runs import Run
from hone.training.search import halves
from hone.training.several import train_several

RATES = {"learning_rate": [1e-3, 1e-5]}


@pytest.fixture
def settings(tmp_path: Path, model_folder: Path, write_rows: Callable[..., Path]) -> dict[str, Any]:
    return {
        "model_name_or_path": str(model_folder),
        "train_file": str(write_rows("rows.jsonl", pairs(40))),
        "validation_split_percentage": 30,
        "max_length": 64,
        "num_train_epochs": 1,
        "save_strategy": "no",
        "eval_strategy": "no",
        "bootstrap_resamples": 200,
        "use_cpu": True,
        "sample_prompts": 0,
        "output_dir": str(tmp_path / "out"),
    }


def items(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    found = json.loads((folder / "eval" / f"{name}.items.json").read_text())["metrics"]["loss"]
    return np.array(found["numerator"]), np.array(found["weight"])


def loss(folder: Path, at: np.ndarray, name: str = "tuned") -> float:
    numerator, weight = items(folder, name)
    return float(numerator[at].sum() / weight[at].sum())


@pytest.mark.slow
def test_one_half_chooses_and_the_other_judges(settings: dict[str, Any], tmp_path: Path) -> None:
    found = hone.search(settings, RATES)
    assert found == read(Search, tmp_path / "out" / "search.json")
    folders = {value: tmp_path / "out" / f"learning_rate-{value}" for value in RATES["learning_rate"]}
    choosing, judging = halves(len(items(folders[1e-3], "tuned")[0]), found.split_seed)
    assert (found.n_choosing, found.n_judging) == (len(choosing), len(judging))
    by_hand = {value: loss(folder, choosing) for value, folder in folders.items()}
    assert {point.values["learning_rate"]: point.chosen_by.value for point in found.points} == pytest.approx(by_hand)
    assert found.winner.values["learning_rate"] == min(by_hand, key=lambda value: by_hand[value]) == 1e-3
    winner, second = folders[1e-3], folders[1e-5]
    assert found.on_judging and found.on_choosing and found.over_second
    for comparison, at in ((found.on_judging, judging), (found.on_choosing, choosing)):
        gain = comparison.metrics["loss"].difference.value
        assert gain == pytest.approx(loss(winner, at) - loss(winner, at, "base"), rel=1e-6)
    over = found.over_second.metrics["loss"].difference.value
    assert over == pytest.approx(loss(winner, judging) - loss(second, judging), rel=1e-6)
    text = hone.text(found)
    assert "learning_rate=0.001, by 6" in text and "do not quote it" in text
    alone = hone.train({**settings, "learning_rate": 1e-5, "output_dir": str(tmp_path / "alone")})
    assert np.array_equal(items(alone.folder, "tuned")[0], items(second, "tuned")[0])


@pytest.mark.slow
def test_trainings_in_processes_of_their_own_give_the_same_and_are_not_trained_again(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    space = {"learning_rate": [1e-3, 1e-4, 1e-5]}
    here = hone.search({**settings, "output_dir": str(tmp_path / "here")}, space)
    apart = hone.search(settings, space, jobs=2)
    assert [point.chosen_by for point in apart.points] == [point.chosen_by for point in here.points]
    first = Run(tmp_path / "out" / "learning_rate-0.001")
    others = [Run(tmp_path / "out" / f"learning_rate-{rate}") for rate in (1e-4, 1e-5)]
    assert all(run.base == first.base for run in others), "the base is measured once"
    monkeypatch.setattr("hone.training.several.train", None)  # nothing is left for it
    monkeypatch.setattr(subprocess, "Popen", None)
    assert hone.search(settings, space, jobs=2) == apart


@pytest.mark.slow
def test_a_training_that_fails_in_another_process_says_why(settings: dict[str, Any], tmp_path: Path) -> None:
    config = hone.load_config({**settings, "max_length": 100_000, "eval_base": False})
    with pytest.raises(HoneError, match=r"/out.*max_length") as error:
        train_several([config], None, jobs=2, one_base=False)
    assert "Traceback" not in str(error.value)


@pytest.mark.slow
def test_a_signal_ends_all_of_them_and_the_same_command_goes_on(
    settings: dict[str, Any], tmp_path: Path, write_rows: Callable[..., Path]
) -> None:
    config = tmp_path / "my.yaml"
    config.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items()) + "max_steps: 300\n")
    words = ["search", str(config), "learning_rate=[1e-3,1e-4]", "--jobs", "2"]
    words += ["eval_base=false", "logging_steps=1", "save_strategy=epoch", "num_train_epochs=100"]
    stderr = tmp_path / "stderr.txt"
    stderr.touch()
    begun = hone_process(words, stderr=stderr)
    logs = [tmp_path / "out" / f"learning_rate-{rate}" / "metrics.jsonl" for rate in (1e-3, 1e-4)]
    while not all(log.is_file() for log in logs) and begun.exitcode is None:
        time.sleep(0.1)
    begun.terminate()
    begun.join(60)
    said = stderr.read_text()
    assert begun.exitcode == 130, said
    assert said.strip().splitlines()[-1].startswith("interrupted: stopped while training")
    states = [json.loads((log.parent / "status.json").read_text())["status"] for log in logs]
    assert states == ["interrupted", "interrupted"]
    assert all(Run(log.parent).checkpoints() for log in logs)


@pytest.mark.slow
def test_a_range_is_searched_by_proposals_that_are_the_same_again(settings: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    space = {"learning_rate": (1e-5, 1e-2), "weight_decay": [0.0, 0.1]}
    found = hone.search(settings, space, trials=3)
    assert 2 <= len(found.points) <= 3
    assert all(1e-5 <= point.values["learning_rate"] <= 1e-2 for point in found.points)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/model.safetensors")}
    assert hone.search(settings, space, trials=3) == found
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/model.safetensors")} == before


def test_halves_are_disjoint_and_the_same_each_time() -> None:
    a, b = halves(21, 42)
    assert sorted([*a, *b]) == list(range(21)) and len(a) == 10
    assert all(np.array_equal(x, y) for x, y in zip((a, b), halves(21, 42)))
    assert not np.array_equal(a, halves(21, 43)[0])


@pytest.mark.parametrize(
    ("space", "more", "words"),
    [
        ({}, {}, "nothing to search over"),
        ({"learning_rate": (1e-5, 1e-3)}, {}, "--trials"),
        ({"learning_rate": [1e-3]}, {}, "1 trainings"),
        ({"output_dir": ["a", "b"]}, {}, "folder of its own"),
        ({"learning_rate": [1e-3, -1.0]}, {}, "greater than 0"),
        (RATES, {"jobs": 0}, "0 trainings at a time"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    settings: dict[str, Any], tmp_path: Path, space: Any, more: dict[str, int], words: str
) -> None:
    with pytest.raises(HoneError, match=words):
        hone.search(settings, space, **more)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_too_few_items_cannot_be_halved(settings: dict[str, Any]) -> None:
    with pytest.raises(HoneError, match="4 held-out items are too few"):
        hone.search({**settings, "validation_split_percentage": 10}, RATES)


def test_lists_and_ranges_are_told_from_values() -> None:
    tokens = ["my.yaml", "--lr=[1e-4,3e-4]", "train_file=[a.jsonl,b.jsonl]", "train.seed=1..3", "output_dir=../x", "-h"]
    left, space = split_choices(tokens)
    assert left == ["my.yaml", "train_file=[a.jsonl,b.jsonl]", "output_dir=../x", "-h"]
    assert space == {"learning_rate": [1e-4, 3e-4], "seed": (1, 3)}
    with pytest.raises(HoneError, match="two lists"):
        split_choices(["lr=[1,2]", "learning_rate=[3,4]"])
    with pytest.raises(HoneError, match="the smaller number"):
        split_choices(["lr=1e-3..1e-4"])
    with pytest.raises(HoneError, match="without values"):
        split_choices(["lr=[]"])


def test_folder_names_tell_points_apart() -> None:
    points = grid({"learning_rate": [1e-4, 1e-4, 3e-4], "model_name_or_path": ["a/b" * 40, "a/b" * 41]})
    names = [point_name(point) for point in points]
    assert len(points) == len(set(names)) == 4
    assert all("/" not in name and "=" not in name for name in names)
