"""Training rows in the held-out items, and in what is written."""

from pydantic import Field

from hone.results import Difference, File, Level, Result, Sample


class ContaminatedItem(Result):
    """A held-out item and the worst of the training rows that hold it. share, code_share: of the item's n-grams.

    where, row_where: file and line of the two; "" where they are not known (token files, the hub, all but the worst).
    """

    item: int
    row: int
    kind: str
    share: float
    code_share: float
    text: str
    row_text: str
    where: str = ""
    row_where: str = ""


class Contamination(File):
    """eval/contamination.json: held-out items that occur in the training rows. not_searched: why none were looked for.

    n: tokens of an n-gram. near: the share of an item's n-grams that makes a row "near". n_short: items of fewer than
    n tokens. rows: all that hold an item. items: the worst first.
    """

    not_searched: str | None = None
    item: str = "document"
    n: int = 0
    near: float = 0.0
    n_items: int = 0
    n_rows: int = 0
    n_short: int = 0
    n_contaminated: int = 0
    by_kind: dict[str, int] = Field(default_factory=dict)
    items: list[ContaminatedItem] = Field(default_factory=list)
    rows: list[int] = Field(default_factory=list)
    seconds: float = 0.0


def leaked(found: Contamination) -> str:
    """'2 are in the training rows and 15 nearly match one': near matches are told apart from copies."""
    near = found.by_kind.get("near", 0)
    same = found.n_contaminated - near
    copies = f"{same:,} {'is' if same == 1 else 'are'} in the training rows" if same else ""
    matches = (
        f"{near:,} nearly {'matches' if near == 1 else 'match'} {'one' if same else 'a training row'}" if near else ""
    )
    return " and ".join(part for part in (copies, matches) if part)


class Continuations(File):
    """eval/memorization.base.json, ….tuned.json: prompts from training and held-out rows, and what follows them."""

    training: list[Sample]
    held_out: list[Sample]


class Copying(Result):
    """Of the continuations of one group of prompts, for "base" and "tuned": how many copy, and how much of them.

    copying: share of texts that copy; copied_characters: share of characters. change: tuned - base, by prompt.
    """

    n_items: int
    copying: dict[str, Level]
    copied_characters: dict[str, Level]
    change: Difference | None = None


class CopiedText(Result):
    model: str
    prompts: str
    item: int
    copied: str


class Memorization(File):
    """eval/memorization.json: how much of what is written is copied from the n_rows training rows.

    prompts: "training" and "held_out", where there are such. examples: the longest copies first.
    """

    copied_characters_in_a_row: int
    copied_words_in_a_row: int
    max_new_tokens: int
    n_rows: int
    confidence_level: float
    prompts: dict[str, Copying]
    examples: list[CopiedText] = Field(default_factory=list)
