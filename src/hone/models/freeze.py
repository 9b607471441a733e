"""Which parameters train: all of them, or the top blocks of a frozen network.

>>> freeze(model, num_unfrozen_layers=4)         # doctest: +SKIP
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hone.errors import HoneError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Trainable:
    """How much of a model trains; tied tensors count once."""

    n_trainable: int
    n_parameters: int

    @property
    def share(self) -> float:
        return self.n_trainable / self.n_parameters


def count_trainable(model: "nn.Module") -> Trainable:
    parameters = list(model.parameters())  # yields a tied tensor once
    return Trainable(sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters))


def blocks(model: "PreTrainedModel") -> tuple[str, "nn.ModuleList"]:
    """Name and list of a decoder's transformer blocks: the one ModuleList as long as the config's layer count.

    Raises:
        HoneError: none, or more than one, fits; the candidates are named.
    """
    from torch import nn

    n_layers = getattr(model.config, "num_hidden_layers", None)
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    fitting = {name: module for name, module in lists.items() if len(module) == n_layers and "." in name}
    if len(fitting) != 1:
        found = ", ".join(f"{name} ({len(module)})" for name, module in lists.items()) or "none"
        raise HoneError(
            f"cannot tell which modules are the {n_layers} transformer blocks of {type(model).__name__}",
            fix=f"module lists found: {found}; use method: full or lora for this architecture",
        )
    return next(iter(fitting.items()))


def freeze(
    model: "PreTrainedModel",
    num_unfrozen_layers: int,
    *,
    unfreeze_head: bool = False,
    unfreeze_embeddings: bool = False,
) -> None:
    """Freeze all but the top blocks and the final norm; head and embeddings by choice.

    Where head and embeddings share one tensor, unfreezing either trains both: they are the same weights.

    Raises:
        HoneError: more layers asked for than there are.
    """
    name, layers = blocks(model)
    if not 0 <= num_unfrozen_layers <= len(layers):
        raise HoneError(
            f"num_unfrozen_layers is {num_unfrozen_layers}, but {type(model).__name__} has {len(layers)} blocks",
            fix=f"set num_unfrozen_layers to {len(layers)} or less (method: full trains everything)",
        )
    model.requires_grad_(False)
    for layer in layers[len(layers) - num_unfrozen_layers :]:
        layer.requires_grad_(True)
    # The final norm stands beside the blocks; a norm of the embeddings (BLOOM's) stands there too and stays frozen.
    for child, module in model.get_submodule(name.rpartition(".")[0]).named_children():
        if "norm" in type(module).__name__.lower() and "emb" not in child:
            module.requires_grad_(True)
    embeddings = model.get_input_embeddings()
    if unfreeze_embeddings:
        embeddings.requires_grad_(True)
    head = model.get_output_embeddings()
    if unfreeze_head and head is not None:
        head.requires_grad_(True)
