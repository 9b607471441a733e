"""A token or a password, wherever a user may put it, is in no run folder, no report and no message."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["spoiled"]

Hone = Callable[..., Any]
Refused = Callable[..., str]
TOKEN = "hf_" + "Zq9" * 11
PASSWORD = "correcthorse7battery"
URL = f"https://me:{PASSWORD}@example.org/model"


def assert_kept(result: Any, folder: Path) -> None:
    """Neither what was said nor any file that hone wrote has one of them."""
    for secret in (TOKEN, PASSWORD):
        assert secret not in result.output
        assert secret not in result.stderr
        for path in folder.rglob("*"):
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path


def test_the_environments_token_is_not_written_down(project: Path, hone: Hone, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY"):
        monkeypatch.setenv(name, TOKEN)
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{PASSWORD}@127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = hone("train", "cfg.yaml")
    assert result.exit_code == 0, result.output
    assert (project / "out" / "env.json").is_file()
    assert_kept(result, project / "out")
    for command in (("report", "out"), ("doctor",), ("runs", ".")):
        assert_kept(hone(*command), project / "out")


@pytest.mark.parametrize(
    "line", [f"model_name_or_path: {URL}", f"# my token: {TOKEN}", f"dataset_name: {URL}", f"report_to: {TOKEN}"]
)
def test_a_configuration_with_a_secret_is_refused(project: Path, hone: Hone, refused: Refused, line: str) -> None:
    (project / "cfg.yaml").write_text(f"seed: 1\n{line}\n")
    result = hone("train", "cfg.yaml", "train_file=train.jsonl", "output_dir=out")
    refused(result, "cfg.yaml:2", "a password or token", "HF_TOKEN")
    assert not (project / "out").exists()
    assert_kept(result, project / "model")


@pytest.mark.parametrize("setting", [f"model_name_or_path={URL}", f"train_file={URL}.jsonl", f"tokenzier={TOKEN}"])
def test_a_setting_with_a_secret_is_refused(project: Path, hone: Hone, refused: Refused, setting: str) -> None:
    result = hone("train", "cfg.yaml", setting)
    refused(result, "command line", "a password or token")
    assert_kept(result, project / "model")


@pytest.mark.parametrize(
    "command",
    [
        ("generate", URL, "--prompt", "Hi"),
        ("report", URL),
        ("check", URL),
        ("prepare", "cfg.yaml", "--tokenizer", TOKEN),
    ],
)
def test_an_argument_with_a_secret_is_not_repeated(project: Path, hone: Hone, command: tuple[str, ...]) -> None:
    result = hone(*command)
    assert result.exit_code in (1, 2), result.output
    assert_kept(result, project / "model")


def test_python_hears_the_same(project: Path) -> None:
    import hone

    for ways in ({"config": {"model_name_or_path": URL}}, {"config": None, "dataset_name": URL}):
        with pytest.raises(hone.HoneError, match="a password or token") as caught:
            hone.load_config(ways.pop("config"), **ways)
        assert PASSWORD not in str(caught.value)
