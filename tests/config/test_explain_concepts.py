"""`hone explain` of a concept: the sections of docs/concepts.md, found by their words and readable in a terminal."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hone.cli import app
from hone.config.concepts import Concept, concept, concepts, plain
from hone.config.explain import concept_of, explain, keys_of
from hone.config.related import GROUPS, MOST_USED, related
from hone.config.schema import leaves
from hone.errors import HoneError

ROOT = Path(__file__).parents[2]
ASKED = (
    "loss|perplexity|lora|overfitting|tokens|nats|interval|mcnemar|classification|generation|Confidence Interval|TOP P"
)


@pytest.mark.parametrize("word", ASKED.split("|"))
def test_what_people_ask_for_is_answered(word: str) -> None:
    text = explain(word)
    assert len(text.splitlines()) > 5


@pytest.mark.parametrize(
    ("words", "title"),
    [
        ("document|documents|row|rows|item|jsonl", "Held-out rows"),
        ("not distinguishable|verdict|better", "Paired difference"),
        ("nats/token", "Nats"),
        ("ETA", "Epochs, steps and batches"),
        ("MDE", "Minimum detectable effect"),
    ],
)
def test_words_of_the_screens_are_answered(words: str, title: str) -> None:
    assert [explain(word).split(" (")[0] for word in words.split("|")] == [title] * len(words.split("|"))


@pytest.mark.parametrize("one", concepts(), ids=lambda one: one.title)
def test_a_concept_reads_well_in_a_terminal(one: Concept) -> None:
    text = plain(one.text)
    assert not re.search(r"\]\(|<!--|```|^\|", text, re.M), "no links, comments, fences or bars"
    assert "**" not in re.sub(r"`[^`]*`", "", text)
    assert max(map(len, text.splitlines())) <= 125
    prose = re.sub(
        r"[^\w]", "", re.sub(r"<!--.*?-->|\]\([^)]*\)|```\w*|^\|[ :|-]+\|$", "", one.text, flags=re.S | re.M)
    )
    assert re.sub(r"[^\w]", "", text) == prose, "no word is lost"


def test_markdown_becomes_plain_text() -> None:
    page = "A *few* **bold** `*words*`, see\n[there](x.md#y).\n```bash\nhone  train\n\nls\n```\n"
    page += "\n| a | b |\n| --- | --: |\n| x | 1 |\n"
    assert plain(page) == (
        "  A few bold `*words*`, see there.\n\n      hone  train\n\n      ls\n\n    a  b\n    -  -\n    x  1"
    )
    assert plain("2 * 3 * 4 and rows * columns") == "  2 * 3 * 4 and rows * columns"


def test_a_key_comes_before_a_concept_and_points_to_it() -> None:
    text = explain("temperature")
    assert text.startswith("generate.temperature: ")
    way = re.search(r"Concept +Temperature: `hone explain (.+)`", text)
    assert way and explain(way[1]).startswith("Temperature (Writing text)")


@pytest.mark.parametrize("one", concepts(), ids=lambda one: one.title)
def test_keys_and_concepts_point_to_each_other(one: Concept) -> None:
    """From each concept to its keys, from each of these back, and every concept can be reached."""
    shown = CliRunner().invoke(app, ["explain", *one.title.split()]).stdout
    for key in keys_of(one):
        assert concept_of(key) == one
        way = re.search(rf"{re.escape(one.title)}: `hone explain (.+)`", explain(key))
        assert way and concept(way[1]) == one and explain(way[1]).startswith(one.title), key
        assert key in shown


def test_nearest_over_keys_and_concepts() -> None:
    for typed, meant in {"overfiting": "overfitting", "perplexety": "perplexity", "lorar": "lora_r"}.items():
        with pytest.raises(HoneError, match=f"did you mean '{meant}'"):
            explain(typed)
    with pytest.raises(HoneError, match="`hone explain` lists all"):
        explain("xyzzy")


def test_related_keys_exist_and_none_is_left_out() -> None:
    assert {key for group in GROUPS for key in group} == set(leaves())
    assert len(MOST_USED) == 10 and set(MOST_USED) <= set(leaves())
    assert all(len(set(group)) == len(group) > 1 for group in GROUPS)
    assert all(leaf in related(other) for leaf in leaves() for other in related(leaf))
    assert max(len(related(leaf)) for leaf in leaves()) <= 10, "a list of everything points nowhere"


def test_without_a_word_the_ten_are_marked_and_the_concepts_listed() -> None:
    text = explain(None)
    assert re.findall(r"^★ (\w+) ", text, re.M) == [leaf for leaf in leaves() if leaf in MOST_USED]
    words = re.sub(r"\s+", " ", text.split("Concepts: ")[1])
    assert all(any(word in words for word in one.words) for one in concepts())
    assert max(map(len, text.splitlines())) <= 120
