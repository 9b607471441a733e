"""Programs against the unit tests of their tasks, and public benchmarks."""

from hone.results import Estimate, File, Result


class PassAtK(Result):
    """pass@k over tasks; estimate: None where one of the tasks has fewer than k samples (n_too_few have)."""

    estimate: Estimate | None
    n_tasks: int
    n_too_few: int = 0


class Sampling(Result):
    """How answers were drawn: these keys of the section `generate`."""

    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    num_return_sequences: int
    sampling_seed: int
    stop: list[str]


class CodeSetup(Result):
    """What must be the same for two measurements to be compared."""

    tasks_sha256: str
    template: str
    settings: Sampling


class CodeMeasurement(File):
    """Answers to programming tasks, graded by the tests of the tasks: eval/base.code.json, eval/tuned.code.json.

    pass_at_k: of each k; pass_at_k_by_trust: the same of the samples that were kept apart from their tests in one way.
    passed: task_id -> whether each of its samples passed. n_at_limit: samples that ended by the limit of tokens.
    """

    pass_at_k: dict[int, PassAtK]
    pass_at_k_by_trust: dict[str, dict[int, PassAtK]]
    verdicts: dict[str, int]
    trust: dict[str, int]
    isolation: list[str]
    passed: dict[str, list[bool]]
    n_samples: int
    n_tasks: int
    tasks_without_samples: list[str]
    confidence_level: float
    about: CodeSetup | None = None
    n_at_limit: int = 0
    seconds: float = 0.0


class PublicScore(Estimate):
    """A number of lm-eval's. higher_is_better: None where it does not say."""

    n_items: int
    higher_is_better: bool | None


class PublicScores(File):
    """What `hone eval --tasks` found: task -> metric -> score. limit: only the first so many items of each task."""

    tasks: dict[str, dict[str, PublicScore]]
    versions: dict[str, str]
    n_shot: dict[str, int]
    chat_template: bool
    limit: int | None
    confidence_level: float
