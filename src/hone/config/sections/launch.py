"""The section `launch`: how many processes train together, and on which machines.

Names and meanings are those of torchrun. None of them decides what is learned: a run may go on with others.
"""

from typing import Literal

from hone.config.fields import Section, key


class LaunchSection(Section):
    """The processes of a training."""

    @property
    def asks_for_several(self) -> bool:
        """Whether there is more to start than this process."""
        return (self.nproc_per_node or 1) > 1 or str(self.nnodes) != "1"

    @property
    def processes(self) -> int:
        """How many there will be, on all machines; the most, where that is not fixed."""
        return (self.nproc_per_node or 1) * int(str(self.nnodes).rpartition(":")[2])

    @property
    def cuts(self) -> bool:
        """Whether weights will be cut among the processes."""
        return self.sharding == "fsdp2" and self.processes > 1

    nproc_per_node: int | None = key(
        None,
        what="How many processes train together on this machine; null: one, or those that torchrun has started.",
        why="A process computes on one GPU; several share the micro-batches of each step.",
        how="`hone train` starts them as torchrun would. A step then has per_device_train_batch_size x "
        "gradient_accumulation_steps x processes examples, as everywhere; to train as one process does with "
        "gradient_accumulation_steps 8, take 2 of them with 4 each. The result does not depend on how many share a "
        "step, and a run may go on with another number: the step stays as it was when it began.",
        benefit="Nearly as many times faster as there are GPUs, once a step takes longer than the sum of its "
        "gradients takes to travel.",
        tradeoff="Each process holds the model, its gradients and the optimizer's state (see sharding). On a CPU the "
        "threads of one process use all cores already: little is gained within one machine.",
        cpu="null",
        gpu="the number of GPUs",
        maps_to=None,
        ge=1,
    )
    nnodes: int | str = key(
        1,
        what="How many machines train together, each started with the same command; or from how many to how many: 1:4.",
        why="One machine has room for so many GPUs only.",
        how="Each needs rdzv_endpoint, nproc_per_node, the same config, and the run folder and the data under the same "
        "paths (a shared file system).",
        benefit="More GPUs than one machine has.",
        tradeoff="Gradients travel by the network in every step: with a slow one, more accumulation is the only way to "
        "gain. 1:4, with max_restarts, goes on with fewer machines where some fail, and with more where some come: "
        "half a minute is waited for them each time.",
        cpu="1",
        gpu="1",
        maps_to=None,
    )
    node_rank: int | None = key(
        None,
        what="The number of this machine, from 0, where rdzv_backend is static; null otherwise.",
        why="Without a meeting point that gives numbers, each machine must be told its own.",
        how="0 is the machine of rdzv_endpoint, and the one that holds the run folder and speaks.",
        benefit="Works where a scheduler knows the number of each machine already.",
        tradeoff="The same number twice: both wait for ever for the other. null with static is refused.",
        cpu="null",
        gpu="null",
        maps_to=None,
        ge=0,
    )
    rdzv_backend: Literal["c10d", "static"] = key(
        "c10d",
        what="How several machines find each other.",
        why="They start at different times and must agree on an order.",
        how="c10d: they meet at rdzv_endpoint, and are numbered as they come. static: node_rank says the order.",
        benefit="c10d starts again with whoever is left after a failure (max_restarts).",
        tradeoff="static: no other machine may take a place. c10d: needs an endpoint that all reach.",
        cpu="c10d",
        gpu="c10d",
        maps_to=None,
    )
    rdzv_endpoint: str | None = key(
        None,
        what="Where several machines meet: HOST:PORT of one of them; null on a single machine.",
        why="Somebody must be there first.",
        how="A name or address that all reach, and a free port that no firewall closes.",
        benefit="Nothing else must be configured between them.",
        tradeoff="If that machine is gone, so is the meeting point, and nothing restarts.",
        cpu="null",
        gpu="null",
        maps_to=None,
    )
    rdzv_id: str = key(
        "hone",
        what="The name of the group at the meeting point.",
        why="Two trainings may meet at the same endpoint.",
        how="The same on all machines of one training.",
        benefit="Trainings that do not mix.",
        tradeoff="The same name for two at once: they become one group.",
        cpu="hone",
        gpu="hone",
        maps_to=None,
    )
    sharding: Literal["none", "fsdp2"] = key(
        "none",
        what="Whether each process holds all of the model (none), or a part of every weight (fsdp2).",
        why="Weights, gradients and the optimizer's state may be too large for one GPU.",
        how="PyTorch's fully_shard, block by block: a block's weights are put together for its pass. The result is "
        "the same. The first process keeps a whole copy in the machine's memory, which it measures and saves. No "
        "effect in one process.",
        benefit="Of 16 bytes a weight in full training each of four processes holds 4 in its GPU.",
        tradeoff="fsdp2: weights travel in every pass, so it is slower where none fits; fused head and frozen cache "
        "step aside. none: the whole model has to fit into each GPU.",
        cpu="none",
        gpu="none; fsdp2 where a GPU is too small",
        maps_to=None,
    )
    max_restarts: int = key(
        0,
        what="How often all processes are started again after one of them was killed.",
        why="In a long training on many GPUs one of them fails sooner or later.",
        how="The group goes on from the newest checkpoint, which leads to the same weights as no failure at all. A "
        "mistake in config or data is said once and ends it.",
        benefit="A night is not lost.",
        tradeoff="Too high: a fault that returns at each start is tried again so often. 0: the command has to be given "
        "again by hand. With save_strategy: no, each start begins at the first step.",
        cpu="0",
        gpu="0; 3 for days",
        maps_to=None,
        ge=0,
    )
