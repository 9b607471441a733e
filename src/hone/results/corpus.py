"""What `hone corpus run` wrote, and what became of everything it read: manifest.json of a corpus."""

from typing import Literal

from pydantic import Field

from hone.results import File, Result


class InputFile(Result):
    """A file that was read, or a part of it. file: as the configuration's folder sees it.

    first: of a part of JSON lines its first byte, of parquet its first group of rows. n_bytes, sha256: of the part; of
    parquet of the whole file; None for a data set of the hub, whose `file` names it with its commit.
    """

    file: str
    first: int = 0
    n_bytes: int | None
    sha256: str | None


class Shard(Result):
    """One shard. name: of its files, without their suffix. inputs: places in the manifest's inputs."""

    name: str
    split: Literal["train", "val"]
    documents: int
    tokens: int
    largest_id: int
    inputs: list[int]


class DroppedDocuments(Result):
    """Documents that were left out for one reason. first: where the first of them were found."""

    reason: str
    count: int
    first: list[str]


class TokenizerAbout(Result):
    """name: as the configuration has it. sha256: of its rules. vocabulary_sha256: of its pieces and their ids."""

    name: str
    sha256: str
    vocabulary_sha256: str
    n_entries: int
    end_token_id: int


class FileSize(Result):
    """Size and SHA-256 of a file of the corpus, as in every manifest of hone's."""

    bytes: int
    sha256: str


class CorpusManifest(File):
    """manifest.json. It holds no time, no number of workers and no name of a machine: equal corpora have equal ones.

    key: a hash of the settings that decide the content, and of the inputs' names and sizes. n_read, n_masked: documents
    read; secrets masked, by kind. n_text_bytes: of the documents kept. files: of everything beside the manifest.
    """

    kind: Literal["corpus"] = "corpus"
    key: str
    settings_sha256: str
    tokenizer: TokenizerAbout
    dtype: Literal["uint16", "uint32"]
    n_read: int
    n_text_bytes: int
    shards: list[Shard] = Field(min_length=1)
    dropped: list[DroppedDocuments]
    n_masked: dict[str, int]
    inputs: list[InputFile]
    versions: dict[str, str]
    files: dict[str, FileSize]

    def total(self, split: str) -> tuple[int, int]:
        """Documents and tokens of one split."""
        of = [shard for shard in self.shards if shard.split == split]
        return sum(shard.documents for shard in of), sum(shard.tokens for shard in of)
