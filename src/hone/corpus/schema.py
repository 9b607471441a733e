"""The keys of a corpus configuration: this file is the only list of them. `load.py` reads a YAML file into it.

>>> CorpusConfig().near.near_buckets
14
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from hone.config.fields import FilePath, FilePaths, Section


def key(
    default: Any,
    what: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
) -> Any:
    """A key and what it sets; ge, gt, le, lt: bounds of numbers."""
    return Field(default, description=what, ge=ge, gt=gt, le=le, lt=lt)


class ReadSection(Section):
    """What is read: files, or a data set of the hub."""

    files: FilePath | FilePaths | None = key(
        None,
        "Files, folders, patterns (`src/**/*.py`): .jsonl .json .csv .parquet .txt .md .py .warc .wet .gz",
    )
    dataset_name: str | None = key(None, "A data set of the hub, or a local folder in its layout, in place of files.")
    dataset_config_name: str | None = key(None, "Its configuration (subset).")
    dataset_split: str = key("train", "Its split.")
    dataset_revision: str | None = key(None, "Its commit or tag; without one the newest is read.")
    text_column: str = key("text", "The column that holds the text.")
    on_bad_row: Literal["error", "skip"] = key("error", "A row that cannot be read: stop and name it, or count it.")


class FilterSection(Section):
    """Which documents stay. A threshold of null is not looked at."""

    quality: Literal["auto", "code", "prose", "off"] = key(
        "auto", "Which rules hold: those of code, of prose, by the file's suffix (.py is code), or none."
    )
    min_characters: int = key(100, "Shorter texts are dropped.", ge=1)
    max_characters: int = key(1_000_000, "Longer texts are dropped.", ge=1)
    min_ascii_share: float | None = key(
        None, "The least share of ASCII characters (0.98: English and code).", ge=0, le=1
    )
    scripts: list[str] | None = key(None, "Scripts (Latin, Cyrillic, Han …) that nine of ten letters must belong to.")
    languages: list[str] | None = key(
        None, "Languages that are kept, by their codes (en, de …), as py3langid sees a text; not of code."
    )
    min_letter_share: float | None = key(
        0.25, "The least share of letters and digits among the characters.", ge=0, le=1
    )
    max_line_characters: int | None = key(1000, "Of code: the longest line.", ge=1)
    max_mean_line_characters: float | None = key(100, "Of code: the longest mean of a line.", gt=0)
    drop_generated: bool = key(True, "Of code: drop what says of itself that it is generated.")
    min_word_characters: float | None = key(3, "Of prose: the shortest mean of a word.", gt=0)
    max_word_characters: float | None = key(10, "Of prose: the longest mean of a word.", gt=0)
    min_stop_words: int | None = key(
        2, "Of prose: how many of the, be, to, of, and, that, have, with must occur.", ge=0
    )
    max_symbol_share: float | None = key(0.1, "Of prose: # and … for each word.", ge=0)
    max_repeated_line_share: float | None = key(0.3, "Of prose: the share of lines that repeat another.", ge=0, le=1)
    licence_column: str | None = key(None, "The column that names a row's licence.")
    licences: list[str] | None = key(None, "Licences that are kept, in any case; with licence_column.")
    mask_secrets: bool = key(True, "Replace e-mail addresses, keys and tokens.")
    blocks: list[dict[str, object]] | None = key(
        None, "Filters and formatters of datatrove by name, with their arguments: `- GopherRepetitionFilter: {}`."
    )


class NearSection(Section):
    """Copies and near-copies."""

    exact: bool = key(True, "Drop texts that an earlier document holds word for word.")
    near: bool = key(True, "Drop texts that nearly match an earlier document (MinHash).")
    near_ngram: int = key(5, "Words that are hashed together.", ge=1, le=50)
    near_buckets: int = key(14, "Groups of hashes, of which one must agree. More find more.", ge=1, le=256)
    near_hashes_per_bucket: int = key(8, "Hashes in a group, which must all agree. More find less.", ge=1, le=64)


class ContaminationSection(Section):
    """Evaluation items that must not be trained on."""

    evaluation_files: FilePath | FilePaths | None = key(
        None, "Evaluation items: documents that hold one, or half of its 13-word runs, are dropped."
    )


class TokensSection(Section):
    """From text to shards."""

    tokenizer_name_or_path: str = key("hone-base", "The tokenizer: a folder, a hub name, or a bundled one.")
    validation_percentage: float = key(0.5, "Documents held out, by a hash of their text, in per cent.", ge=0, lt=100)
    split_seed: int = key(0, "Another number holds out other documents.", ge=0)
    shard_tokens: int = key(100_000_000, "Tokens of a shard; its last document is written whole.", ge=1)


class OutputSection(Section):
    """Where and how it runs; nothing here changes a byte of the corpus."""

    output_dir: FilePath = key(Path("corpus"), "The folder that becomes the sealed corpus.")
    work_dir: FilePath | None = key(None, "Where what lies between is kept; by default beside output_dir.")
    keep_work: bool = key(False, "Keep it when the corpus is sealed.")
    workers: int | None = key(None, "Processes; null for one on each processor.", ge=1, le=4096)
    task_mb: int = key(64, "Bytes read by a task, in MB: what a restart may cost, and what is held in memory.", ge=1)
    executor: Literal["local", "slurm", "ray"] = key(
        "local", "Processes on this machine, jobs of a Slurm cluster, or tasks of a Ray cluster."
    )
    slurm_partition: str | None = key(None, "The partition of the cluster.")
    slurm_time: str = key("04:00:00", "The limit of a task.")
    slurm_mem_gb: int = key(4, "Memory of a task, in GB.", ge=1)
    slurm_setup: str | None = key(None, "A line of shell before each task (`source .venv/bin/activate`).")


class CorpusConfig(Section):
    """The whole configuration."""

    read: ReadSection = Field(default_factory=ReadSection)
    filter: FilterSection = Field(default_factory=FilterSection)
    near: NearSection = Field(default_factory=NearSection)
    contamination: ContaminationSection = Field(default_factory=ContaminationSection)
    tokens: TokensSection = Field(default_factory=TokensSection)
    output: OutputSection = Field(default_factory=OutputSection)


# Sections whose values decide the content of a corpus.
DECIDING = ("read", "filter", "near", "contamination", "tokens")
PATH_LEAVES = ("files", "evaluation_files", "output_dir", "work_dir")
NAME_OR_FOLDER_LEAVES = ("tokenizer_name_or_path", "dataset_name")


def leaves() -> dict[str, str]:
    """Leaf -> its section, for every key."""
    return {leaf: section for section, of in sections().items() for leaf in of.model_fields}


def sections() -> dict[str, type[Section]]:
    """Section -> its class, in their order."""
    found: dict[str, type[Section]] = {}
    for name, field in CorpusConfig.model_fields.items():
        assert isinstance(field.annotation, type) and issubclass(field.annotation, Section)
        found[name] = field.annotation
    return found


def keys_text() -> str:
    """The keys as the documentation lists them: a table a section."""
    parts = []
    for name, section in sections().items():
        fields = section.model_fields.items()
        rows = [f"| `{leaf}` | {_shown(field.default)} | {field.description} |" for leaf, field in fields]
        head = f"### `{name}`: {(section.__doc__ or '').strip()}"
        parts.append("\n".join([head, "", "| key | default | what it sets |", "| --- | --- | --- |", *rows]))
    return "\n\n".join(parts) + "\n"


def _shown(value: Any) -> str:
    """As YAML has it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    print(keys_text(), end="")
