"""What a public project carries beside its code agrees with the code: versions, licence, CI, hooks, dates."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import hone

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def yaml_of(name: str) -> Any:
    return YAML(typ="safe", pure=True).load(text_of(name))


def test_one_version_and_one_licence() -> None:
    citation = yaml_of("CITATION.cff")
    assert citation["version"] == PROJECT["version"] == hone.__version__
    assert re.search(r"^## (\S+)", text_of("CHANGELOG.md"), re.M).group(1) == PROJECT["version"]  # type: ignore[union-attr]
    assert citation["license"] == PROJECT["license"] == "MIT" and text_of("LICENSE").startswith("MIT License")
    assert citation["cff-version"] == "1.2.0" and {"message", "title", "authors"} <= set(citation)


@pytest.mark.parametrize("page", ["docs/reference/config.md", "docs/files/index.md", "docs/further-reading.md"])
def test_a_page_that_describes_a_version_says_which(page: str) -> None:
    assert f"or hone {PROJECT['version']}" in text_of(page)


def test_classifiers_agree_with_what_is_required() -> None:
    versions = [line.split(" :: ")[-1] for line in PROJECT["classifiers"] if "Python :: 3." in line]
    assert PROJECT["requires-python"] == f">={versions[0]}"
    assert yaml_of(".github/workflows/ci.yml")["jobs"]["linux"]["strategy"]["matrix"]["python"] == versions


def test_extras_of_the_install_page_are_those_of_the_package() -> None:
    table = text_of("docs/install.md").split("## Extras")[1].split("\n## ")[0]
    assert sorted(re.findall(r"^\| `([\w-]+)` \|", table, re.M)) == sorted(PROJECT["optional-dependencies"])


def steps() -> list[Any]:
    return [step for job in yaml_of(".github/workflows/ci.yml")["jobs"].values() for step in job["steps"]]


def test_the_workflow_is_pinned_and_may_only_read() -> None:
    workflow = yaml_of(".github/workflows/ci.yml")
    assert workflow["permissions"] == {"contents": "read"} and "concurrency" in workflow
    assert all(job["timeout-minutes"] <= 60 for job in workflow["jobs"].values())
    for line in re.findall(r"uses: (.+)", text_of(".github/workflows/ci.yml")):
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line
    checkouts = [step for step in steps() if step.get("uses", "").startswith("actions/checkout@")]
    assert len(checkouts) == len(workflow["jobs"]) and all(
        step["with"] == {"persist-credentials": False} for step in checkouts
    )


def test_the_workflow_checks_what_make_checks() -> None:
    commands = {step.get("run", "") for step in steps()}
    checked = re.search(r"^check:.*?\n((?:\t.*\n)+)", text_of("Makefile"), re.M)
    assert checked
    for line in re.findall(r"\$\(BIN\)/(.+)", checked[1]):
        assert line in commands, line


def test_hooks_are_local_and_their_tools_come_with_the_package() -> None:
    (repository,) = yaml_of(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        tool, *arguments = hook["entry"].split()
        name = tool.removeprefix(".venv/bin/")
        assert name == "python" or any(line.startswith(name) for line in PROJECT["optional-dependencies"]["dev"])
        assert all((ROOT / argument).is_file() for argument in arguments if "/" in argument)
