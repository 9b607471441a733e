"""The models that are served: base and tuned of a run, one model, or several adapters over one base in memory once.

Each has a fingerprint of its weights, its adapter, its tokenizer and its template. Before anything is answered, base
and tuned are asked the same, and have to differ: a server that answers for the base with the tuned model is the worst
there is.

>>> [model.name for model in served_models("runs/my", [], {}, None)]                            # doctest: +SKIP
['base', 'tuned']
"""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hone import bundled
from hone.config.sections.generate import GenerateSection
from hone.data.templates import INPUT, INSTRUCTION, RESPONSE
from hone.data.tokenizer import load_tokenizer, tokenizer_fingerprint
from hone.errors import HoneError
from hone.hub import WEIGHTS, file_in_cache
from hone.inference.base import base_of_run, same_weights, share_weights
from hone.inference.engine import Engine, Request
from hone.inference.generate import SamplingOptions, chosen_settings, chosen_template, ready_model, trained_template
from hone.inference.stream import Answer, AnswerRule
from hone.manifest import file_digest
from hone.models.inspect import check_vocabulary, max_positions
from hone.models.source import ADAPTER, ADAPTER_WEIGHTS, base_of, check_source

PROBE_TOKENS, PROBE_TOP = 4, 20  # of the question that base and tuned are asked at the start
NO_BASE = "give --no-base to serve the tuned model alone"


@dataclass(frozen=True)
class Served:
    """One model under its name.

    tokenizer: for prompts; answers are decoded with a copy of it, in another thread. weights: file -> SHA-256, those of
    the base first where there is an adapter. template: how chat messages are formatted. window: positions, None where
    the model does not say. aliases: other names it answers to.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    decoder: PreTrainedTokenizerBase
    template: str
    settings: GenerateSection
    folder: str
    weights: Mapping[str, str]
    adapter: Mapping[str, str]
    template_sha256: str
    fingerprint: str
    window: int | None
    created: int
    aliases: tuple[str, ...] = ()


def served_models(
    name: str,
    adapters: Sequence[tuple[str, str]],
    options: SamplingOptions,
    template: str | None,
    *,
    with_base: bool = True,
) -> list[Served]:
    """What `hone serve NAME` answers for: of a run base and tuned, of any other model that model alone, and adapters.

    Raises:
        HoneError: a model does not load, an adapter is for another base, or two that should differ do not.
    """
    check_source(name)
    if adapters:
        return _with_adapters(name, adapters, options, template)
    if trained_template(name) is None:
        return [replace(_served(_own_name(name), name, options, template), aliases=("default",))]
    tuned = replace(_served("tuned", name, options, template), aliases=(_own_name(name), "default"))
    if not with_base or (base := _base_of(name, tuned)) is None:
        return [tuned]
    refuse_equal(base, tuned)
    return [base, tuned]


def _own_name(name: str) -> str:
    path = Path(name)
    return path.resolve().name if path.is_dir() else name


def _with_adapters(
    name: str, adapters: Sequence[tuple[str, str]], options: SamplingOptions, template: str | None
) -> list[Served]:
    """A base and adapters over it, each under the name given to it."""
    if (Path(name) / ADAPTER).is_file():
        raise HoneError("this is an adapter: with --adapter, name its base first", where=name, fix=_base_first(name))
    base = replace(_served("base", name, options, template), aliases=(_own_name(name),))
    found = [base]
    for given, folder in adapters:
        check_source(folder)
        if not (Path(folder) / ADAPTER).is_file():
            raise HoneError("not an adapter: it has no adapter_config.json", where=folder, fix=f"hone serve {folder}")
        if given in {n for one in found for n in (one.name, *one.aliases)}:
            raise HoneError(f"two models are named '{given}'", where=f"--adapter {given}={folder}", fix="rename one")
        adapter = _served(given, folder, options, template)
        if other := share_weights(base.model, adapter.model):
            raise HoneError(
                f"the adapter '{given}' was trained over {base_of(Path(folder))}, whose weights differ from {name}'s "
                f"(such as {other[0]})",
                where=folder,
                fix=_base_first(folder),
            )
        refuse_equal(base, adapter)
        found.append(adapter)
    return found


def _base_first(folder: str) -> str:
    return f"hone serve {base_of(Path(folder))} --adapter NAME={folder}"


def _served(name: str, source: str, options: SamplingOptions, template: str | None) -> Served:
    settings = chosen_settings(source, options)
    model, tokenizer = ready_model(source)
    chosen = chosen_template(source, template, tokenizer, talking=True)
    files = _files(source)
    adapter = {path.name: file_digest(path) for path in files if path.name == ADAPTER_WEIGHTS}
    base = _files(str(base_of(Path(source)))) if adapter else [path for path in files if path.name not in adapter]
    return _described(name, source, model, tokenizer, chosen, settings, base, adapter)


def _described(
    name: str,
    source: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    settings: GenerateSection,
    files: Sequence[Path],
    adapter: Mapping[str, str],
) -> Served:
    weights = {path.name: file_digest(path) for path in files}
    template_sha256 = template_digest(template, tokenizer)
    parts = [*weights.values(), *adapter.values(), tokenizer_fingerprint(tokenizer), template_sha256]
    return Served(
        name=name,
        model=model,
        tokenizer=tokenizer,
        decoder=copy.deepcopy(tokenizer),
        template=template,
        settings=settings,
        folder=source,
        weights=weights,
        adapter=adapter,
        template_sha256=template_sha256,
        fingerprint=f"hone-{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:16]}",
        window=max_positions(model),
        created=int(max((path.stat().st_mtime for path in files), default=0)),
    )


def template_digest(template: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of the form that prompts are given."""
    forms = {"plain": "", "instruction": INSTRUCTION + INPUT + RESPONSE, "chat": str(tokenizer.chat_template)}
    return hashlib.sha256(f"{template}\n{forms[template]}".encode()).hexdigest()


def _files(source: str) -> list[Path]:
    """The files that hold a model's weights, all of its shards; of an adapter its own."""
    folder = Path(bundled.resolve(source))
    if not folder.is_dir():
        cached = next((path for name in WEIGHTS if (path := file_in_cache(source, name))), None)
        folder = Path(cached).parent if cached else folder
    if (folder / ADAPTER).is_file():
        return [folder / ADAPTER_WEIGHTS]
    return sorted(path for path in folder.glob("*.safetensors") if path.name != ADAPTER_WEIGHTS)


# ---- base and tuned ------------------------------------------------------------------------------------------------


def _base_of(run: str, tuned: Served) -> Served | None:
    """The model a run began with, in the form of its training; None for one that began with nothing."""
    try:
        found = base_of_run(run, tuned.model, tuned.tokenizer)
    except HoneError as error:
        raise HoneError(f"the base of this run does not load: {error}", where=run, fix=NO_BASE) from error
    if found is None:
        return None
    name, model = found
    tokenizer = tuned.tokenizer
    try:
        check_vocabulary(model, tokenizer)
    except HoneError:  # the training added tokens
        tokenizer = load_tokenizer(name)
    return _described("base", name, model, tokenizer, tuned.template, tuned.settings, _files(name), {})


def refuse_equal(base: Served, tuned: Served) -> None:
    """Ask both the same, as clients will, and refuse to serve two names for one model.

    Raises:
        HoneError: their weights are equal, or their answers do not differ in any log-probability.
    """
    if same_weights(base.model, tuned.model) or _probed(base) == _probed(tuned):
        raise HoneError(
            f"'{base.name}' and '{tuned.name}' give the same scores to every token of a probe: the training changed "
            "nothing, or one model is served as two",
            where=tuned.folder,
            fix="look at the losses with hone report, or serve one of them: hone serve MODEL",
        )


def _probed(served: Served) -> list[Any]:
    """What the engine says to a question of four tokens: the likeliest ones with their log-probabilities."""
    ids = served.tokenizer.encode("def add(a, b):", add_special_tokens=False) or [0]
    settings = GenerateSection(max_new_tokens=PROBE_TOKENS)
    answer = Answer(served.decoder, [], AnswerRule((), [], PROBE_TOKENS))
    engine = Engine(served.model)
    return [(step.token, step.top) for step in engine.run(Request(ids, answer, settings, logprobs=PROBE_TOP))]
