"""Which parameters train: all of them, or the top blocks of a frozen network; and the table that says so.

The blocks are found by structure, not by a list of known models: the outermost ModuleList that is as long as the
config's layer count. An encoder-decoder has two such stacks; its top is the top of the decoder, and its encoder stays
frozen. Where more than one list fits, nothing is guessed: the error names the candidates.

>>> freeze(model, num_unfrozen_layers=4)         # doctest: +SKIP
>>> trainable_lines(model)                       # doctest: +SKIP
"""

import re
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from hone.errors import HoneError

# The names under which configs count their blocks; those of a decoder come first.
LAYER_COUNTS = ("num_decoder_layers", "decoder_layers", "num_hidden_layers", "n_layer", "n_layers", "num_layers")


@dataclass(frozen=True)
class Trainable:
    """How much of a model trains; tied tensors count once."""

    n_trainable: int
    n_parameters: int

    @property
    def share(self) -> float:
        return self.n_trainable / self.n_parameters


@dataclass(frozen=True)
class Group:
    """Tensors that belong together, such as consecutive blocks of which the same tensors train.

    share: of all parameters. note: other names of the same tensors, where tensors are tied.
    """

    name: str
    n_tensors: int
    n_parameters: int
    share: float
    trains: bool
    note: str = ""


def count_trainable(model: nn.Module) -> Trainable:
    parameters = list(model.parameters())  # yields a tied tensor once
    return Trainable(sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters))


# ---- finding the blocks --------------------------------------------------------------------------------------------


def blocks(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """Name and list of the transformer blocks; of an encoder-decoder, those of its decoder.

    Raises:
        HoneError: none, or more than one, fits; the candidates are named.
    """
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    # not those inside another: a block's own lists (T5's sub-layers, experts) are not stacks
    lists = {name: m for name, m in lists.items() if not any(name.startswith(f"{other}.") for other in lists)}
    text = model.config.get_text_config(decoder=True)
    counts = {n for key in LAYER_COUNTS if isinstance(n := getattr(text, key, None), int) and n > 0}
    fitting = {name: module for name, module in lists.items() if "." in name and len(module) in counts}
    if model.config.is_encoder_decoder:
        fitting = {name: module for name, module in fitting.items() if "decoder" in name.split(".")}
    if len(fitting) != 1:
        found = ", ".join(f"{name} ({len(module)})" for name, module in lists.items()) or "none"
        wanted = " or ".join(map(str, sorted(counts))) or "unknown number of"
        raise HoneError(
            f"cannot tell which modules are the {wanted} transformer blocks of {type(model).__name__}",
            fix=f"module lists found: {found}; use method: full or lora for this architecture",
        )
    return next(iter(fitting.items()))


def final_norms(model: PreTrainedModel, stack: str) -> dict[str, nn.Module]:
    """The norms that follow the blocks named `stack`: those next to it, but not one of the embeddings (BLOOM, BART)."""
    parent = stack.rpartition(".")[0]
    return {
        f"{parent}.{name}": module
        for name, module in model.get_submodule(parent).named_children()
        if "norm" in type(module).__name__.lower() and "emb" not in name
    }


# ---- freezing ------------------------------------------------------------------------------------------------------


def freeze(
    model: PreTrainedModel,
    num_unfrozen_layers: int,
    *,
    unfreeze_head: bool = False,
    unfreeze_embeddings: bool = False,
) -> None:
    """Freeze all but the top blocks and the final norm; head and embeddings by choice.

    The embeddings are those of tokens and, where a table next to the blocks holds them, of positions. Where head and
    embeddings share one tensor, unfreezing either trains both: they are the same weights (`groups` says so).

    Raises:
        HoneError: more layers asked for than there are, or nothing would be left to train.
    """
    name, layers = blocks(model)
    if not 0 <= num_unfrozen_layers <= len(layers):
        raise HoneError(
            f"num_unfrozen_layers is {num_unfrozen_layers}, but {type(model).__name__} has {len(layers)} blocks "
            f"({name})",
            fix=f"set num_unfrozen_layers to {len(layers)} or less (method: full trains everything)",
        )
    model.requires_grad_(False)
    chosen: list[nn.Module] = [*layers[len(layers) - num_unfrozen_layers :], *final_norms(model, name).values()]
    if unfreeze_embeddings:
        tables = (m for m in model.get_submodule(name.rpartition(".")[0]).children() if isinstance(m, nn.Embedding))
        chosen += [model.get_input_embeddings(), *tables]
    head = model.get_output_embeddings()
    if unfreeze_head and head is not None:
        chosen.append(head)
    for module in chosen:
        module.requires_grad_(True)
    # A task's own head (a classifier's) has no output embeddings; whoever adds it lets it train.
    if head is not None and not any(p.requires_grad for p in model.parameters()):
        raise HoneError(
            f"nothing is left to train: {type(model).__name__} has no final norm, and num_unfrozen_layers is 0",
            fix="set num_unfrozen_layers to 1 or more, or unfreeze_head: true",
        )


# ---- saying what trains --------------------------------------------------------------------------------------------


def groups(model: nn.Module) -> list[Group]:
    """The parameters of a model in groups, the trained ones first, each side in the order of the network.

    Consecutive blocks whose training state is the same make one group: `transformer.h.4-5`. The matrices of an adapter
    are grouped by the layers they are added to. A tied tensor counts once, under its first name.
    """
    total = sum(p.numel() for p in model.parameters())
    other_names = _tied_names(model)
    found: dict[tuple[bool, str], list[tuple[int | None, int]]] = {}  # -> (block, parameters) of each tensor
    for name, parameter in model.named_parameters():
        label, block = _label(name)
        found.setdefault((parameter.requires_grad, label), []).append((block, parameter.numel()))
    rows = []
    for (trains, label), tensors in sorted(found.items(), key=lambda item: not item[0][0]):
        numbers = sorted({block for block, _ in tensors if block is not None})
        n = sum(size for _, size in tensors)
        shown = label.replace("*", _ranges(numbers)) if numbers else label
        rows.append(Group(shown, len(tensors), n, n / total, trains, other_names.get(label, "")))
    return rows


def _label(name: str) -> tuple[str, int | None]:
    """What group a parameter belongs to, and in which block it is.

    >>> _label("transformer.h.3.attn.c_attn.weight")
    ('transformer.h.*', 3)
    >>> _label("base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight")
    ('adapters of model.layers.*.self_attn.q_proj', 0)
    >>> _label("lm_head.modules_to_save.default.weight")
    ('trained copy of lm_head', None)
    """
    name = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
    adapter = re.match(r"(.+)\.lora_[A-Za-z_]+\.", name)
    copied = re.match(r"(.+)\.modules_to_save\.", name)
    name = re.sub(r"\.original_module\.", ".", name)
    block = re.match(r"(.+?\.\D[^.]*)\.(\d+)\.", name)
    number = int(block[2]) if block else None
    if adapter:
        return "adapters of " + re.sub(r"\.\d+\.", ".*.", adapter[1], count=1), number
    if copied:
        return f"trained copy of {copied[1]}", None
    return (f"{block[1]}.*", number) if block else (name.rpartition(".")[0] or name, None)


def _tied_names(model: nn.Module) -> dict[str, str]:
    """Label of a tensor's first name -> a note of its other names."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(_label(name)[0])
    tied = {first: dict.fromkeys(rest) for first, *rest in names.values() if rest}
    return {first: f"also {', '.join(rest)}: one tensor" for first, rest in tied.items()}


def _ranges(numbers: list[int]) -> str:
    """
    >>> _ranges([0, 1, 2, 5])
    '0-2,5'
    """
    parts: list[list[int]] = []
    for n in numbers:
        if parts and n == parts[-1][-1] + 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    return ",".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def trainable_lines(model: nn.Module) -> list[str]:
    """A table of what trains and what is frozen, a line each."""
    rows = groups(model)
    width = max(len(group.name) for group in rows)
    lines = [f"{'':6}  {'':{width}}  tensors  {'parameters':>15}    share"]
    side = None
    for group in rows:
        mark = "" if group.trains == side else "trains" if group.trains else "frozen"
        side = group.trains
        line = f"{mark:6}  {group.name:{width}}  {group.n_tensors:7}  {group.n_parameters:15,}  {group.share:7.3%}"
        lines.append(line + (f"  ({group.note})" if group.note else ""))
    return lines
