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


AWS = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
OTHERS = {
    "openai": "sk-proj-" + "aB3" * 12,
    "github": "ghp_" + "a1B" * 12,
    "github-fine": "github_pat_" + "a1B" * 12,
    "gitlab": "glpat-" + "a1B" * 8,
    "aws": "AKIA" + "Q7" * 8,
    "google": "AIza" + "aB3_x" * 7,
    "slack": "xoxb-" + "1234567890-" * 3 + "ab",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlLW9mLWl0",
    "npm": "npm_" + "a1B" * 12,
    "key": "-----BEGIN RSA PRIVATE KEY-----",
    "database": "postgresql://me:swordfish@db.example.org/rows",
}


@pytest.mark.parametrize("name", list(OTHERS))
def test_secrets_of_other_services(name: str, project: Path, hone: Hone, refused: Refused) -> None:
    secret = OTHERS[name]
    (project / "cfg.yaml").write_text(f"seed: 1\n# {secret}\n")
    said = [refused(hone("check", "cfg.yaml"), "cfg.yaml:2", "a password or token")]
    said.append(refused(hone("train", f"train_file={secret}.jsonl"), "command line", "a password or token"))
    for command in (("report", f"a {secret}"), ("generate", f"a {secret}", "-p", "x")):
        result = hone(*command)
        assert result.exit_code == 1
        said.append(result.output + result.stderr)
    hidden = "swordfish" if name == "database" else secret
    assert not any(hidden in text for text in said), said


def test_a_secret_of_the_environment_is_known_by_its_name(
    hone: Hone, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", AWS)
    result = hone("report", f"s3-{AWS}")
    assert result.exit_code == 1 and AWS not in result.output + result.stderr, result.stderr
    message = refused(hone("check", "cfg.yaml", f"column_mapping={{text: '{AWS}x'}}"), "a password or token")
    assert AWS not in message


def test_what_looks_a_little_like_a_secret_is_shown() -> None:
    from hone.errors import said

    for text in (
        "model/sk-learn",
        "hf_hub",
        "sha 40ce682b59293c6efef414511e257fd480a2dabe",
        "a@b.org",
        "sk-short",
        "AKIA",
    ):
        assert said(text) == text


def test_python_hears_the_same(project: Path) -> None:
    import hone

    for ways in ({"config": {"model_name_or_path": URL}}, {"config": None, "dataset_name": URL}):
        with pytest.raises(hone.HoneError, match="a password or token") as caught:
            hone.load_config(ways.pop("config"), **ways)
        assert PASSWORD not in str(caught.value)
