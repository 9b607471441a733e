"""The section `method`: which of the model's weights are trained, and how many."""

from typing import Annotated, Literal

from pydantic import Field

from hone.config.fields import Section, key

TASKS = ("causal", "classification", "seq2seq")  # of each there is a module in hone.tasks


class MethodSection(Section):
    """Full training, the top blocks only, or low-rank adapters."""

    task: str = key(
        "causal",
        what="What the model learns: the next token (causal), the class of a text (classification), or a text from "
        "another one (seq2seq).",
        why="The task decides the head of the model, the shape of the rows and the loss.",
        how="causal: any rows, a decoder. classification: rows of text + label, a new head on a decoder or an encoder. "
        "seq2seq: source + target (or prompt + completion, instruction + output), an encoder-decoder such as T5.",
        benefit="One engine: precision, LoRA, resuming and the before-and-after comparison work alike for each.",
        tradeoff="A causal model gives text, not class probabilities. A classifier knows only its classes. seq2seq "
        "needs an encoder-decoder, of which there are fewer.",
        cpu="causal",
        gpu="causal",
        maps_to="peft.LoraConfig.task_type",
        known=TASKS,
    )
    class_weights: Literal["none", "balanced"] = key(
        "none",
        what="With classification: whether rows of rare classes count more in the training loss.",
        why="Where one class has 95 % of the rows, always answering it is 95 % accurate and useless.",
        how="balanced multiplies the loss of each row by rows / (classes x rows of its class), so every class weighs "
        "the same. Measured losses and metrics are never weighted.",
        benefit="Higher balanced accuracy and macro F1 on uneven classes.",
        tradeoff="balanced: probabilities of rare classes come out too high, and accuracy may fall. none: rare classes "
        "may never be answered; look at the confusion matrix.",
        cpu="none; balanced from 10:1 on",
        gpu="none; balanced from 10:1 on",
        maps_to=None,
    )
    method: Literal["full", "freeze", "lora"] = key(
        "full",
        what="Which weights are trained: all (full), the top blocks (freeze), or added low-rank matrices (lora).",
        why="Training all weights costs about 16 bytes each: weight, gradient and two optimizer values.",
        how="freeze skips the backward pass below the trained blocks; lora keeps the base fixed and saves an adapter.",
        benefit="freeze is the fastest a step, lora saves the most memory and disk, full learns the most.",
        tradeoff="full on few rows: validation loss rises after the first epoch and general skills fade. freeze or "
        "lora with too little to train, or at a rate meant for full: training loss stays near the base's. Each wants "
        "its own learning_rate; on hone-base lora takes 10 times that of full (docs/choosing.md).",
        cpu="full up to 124M, freeze for 355M, lora above",
        gpu="lora from 1B on, full below or with much data",
        maps_to=None,
    )
    num_unfrozen_layers: int = key(
        2,
        what="With freeze: how many blocks are trained, counted from the top; the final norm is trained with them.",
        why="The lower blocks hold general language, the upper ones turn it into the answer.",
        how="Blocks below get no gradient and no optimizer values, so each frozen block saves time and memory. "
        "In an encoder-decoder the trained blocks are the decoder's; its encoder stays frozen.",
        benefit="4 of 24 blocks of gpt2-medium cost about half the time of full training.",
        tradeoff="Too many: slower, and few rows are memorized. Too few (0 or 1): the loss falls for some "
        "steps, then stays flat above what full training reaches.",
        cpu="2 of 6 (distilgpt2), 4 of 24 (gpt2-medium)",
        gpu="a quarter to a half of the blocks",
        maps_to=None,
        ge=0,
    )
    unfreeze_head: bool = key(
        False,
        what="With freeze: whether the output layer (vocabulary scores) is trained too.",
        why="New words or symbols need new output scores.",
        how="In GPT-2 and many small models the head is the same matrix as the input embeddings, so both are trained.",
        benefit="Faster learning of a vocabulary that the base rarely used.",
        tradeoff="true: adds vocabulary x width trained weights (38.6M for gpt2), and rare tokens are easily spoiled. "
        "false: a strange vocabulary keeps a high loss.",
        cpu="false",
        gpu="false; true for a new domain with much data",
        maps_to=None,
    )
    unfreeze_embeddings: bool = key(
        False,
        what="With freeze: whether the input embeddings (tokens and positions) are trained too.",
        why="Only tokens that the base hardly saw have embeddings worth changing.",
        how="The gradient then has to run down through every frozen block, as in full training. Encoder-decoders share "
        "one token table between both sides; of the positions, those of the decoder are trained.",
        benefit="Useful after adding tokens to the tokenizer.",
        tradeoff="true: the time that freezing saved in the backward pass is lost. false: added tokens stay random.",
        cpu="false",
        gpu="false",
        maps_to=None,
    )
    lora_r: int = key(
        16,
        what="With lora: the rank, the inner width of each pair of added matrices.",
        why="It is the capacity of the adapter: a layer of size in x out gets r x (in + out) trained weights.",
        how="Each chosen layer computes W x + (alpha / r) B A x; B starts at zero, so training starts at the base.",
        benefit="A few million trained weights, and an adapter of megabytes instead of gigabytes.",
        tradeoff="It depends on task and data, not on the machine. Too high: memory and overfitting without a lower "
        "validation loss. Too low: training loss stops above that of a higher rank.",
        cpu="8 for a style or a form in some hundred rows, 16 to start with, 32 to 64 for a skill in thousands of rows",
        gpu="8 for a style or a form in some hundred rows, 16 to start with, 32 to 64 for a skill in thousands of rows",
        maps_to="peft.LoraConfig.r",
        ge=1,
    )
    lora_alpha: int = key(
        32,
        what="With lora: the scale of the adapter; its output is multiplied by alpha / r.",
        why="It sets how strongly the adapter acts, in the same way as the learning rate does.",
        how="Keep alpha at one or two times r, and tune the learning rate.",
        benefit="The adapter acts as strongly at any rank. The best learning rate still moves: at a fixed ratio four "
        "times the rank takes about a third of it (measured in docs/choosing.md).",
        tradeoff="Too high: jumping loss, as with a too high learning rate. Too low: tuned and base hardly differ.",
        cpu="2 x lora_r",
        gpu="1 to 2 x lora_r",
        maps_to="peft.LoraConfig.lora_alpha",
        ge=1,
    )
    lora_dropout: float = key(
        0.0,
        what="With lora: the share of the adapter's inputs set to zero at random in training.",
        why="Few rows and many epochs invite memorization.",
        how="Active in training only; evaluation and generation never drop anything.",
        benefit="A smaller gap between training and validation loss on small data.",
        tradeoff="Too high: slower learning and a higher training loss. Too low: validation loss rises while training "
        "loss falls.",
        cpu="0.0; 0.05 to 0.1 below a thousand rows",
        gpu="0.0 to 0.05",
        maps_to="peft.LoraConfig.lora_dropout",
        ge=0,
        lt=1,
    )
    lora_target_modules: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = key(
        "all-linear",
        what="With lora: which layers get an adapter: all-linear, or a list of layer names.",
        why="Adapters on the attention alone are cheaper; adapters on every linear layer learn more at the same rank.",
        how="Names as printed by the model: q_proj, v_proj (Qwen2, Llama), c_attn, c_proj, c_fc (GPT-2). "
        "all-linear leaves out the head.",
        benefit="all-linear needs no knowledge of the architecture and comes closest to full training.",
        tradeoff="Too many: more memory and time a step. Too few: a loss plateau that a higher rank does not lower. A "
        "name the model does not have is an error at the start.",
        cpu="[q_proj, v_proj] or [c_attn]",
        gpu="all-linear",
        maps_to="peft.LoraConfig.target_modules",
    )
    lora_layers_to_transform: Annotated[list[int], Field(min_length=1)] | None = key(
        None,
        what="With lora: which blocks get an adapter, counted from 0 at the input; null takes all.",
        why="Upper blocks change what is said, lower ones how text is read.",
        how="[8, 9, 10, 11] adapts the last four blocks of gpt2; the backward pass then ends at block 8. An "
        "encoder-decoder counts in both its stacks.",
        benefit="Fewer trained weights, and less time and memory a step.",
        tradeoff="Few upper blocks: fast, but the loss stops above that of all blocks. Only lower blocks: the whole "
        "backward pass is paid for little.",
        cpu="null; the upper half when time is short",
        gpu="null",
        maps_to="peft.LoraConfig.layers_to_transform",
    )
    lora_modules_to_save: list[str] = key(
        [],
        what="With lora: modules that train whole, next to the adapters, and are saved with them.",
        why="New tokens need new embeddings and output scores, which no low-rank matrix can give.",
        how="Names as printed by the model, e.g. [embed_tokens, lm_head]. Each is copied: where head and embeddings "
        "were one tensor, the copies part, and `hone export` keeps both.",
        benefit="A vocabulary of your own with an adapter of moderate size.",
        tradeoff="Each costs its full size in weight, gradient and optimizer, and trains in the model's dtype. A name "
        "the model does not have is an error at the start.",
        cpu="[]",
        gpu="[]; [embed_tokens, lm_head] after adding tokens",
        maps_to="peft.LoraConfig.modules_to_save",
    )
    use_rslora: bool = key(
        False,
        what="With lora: scale the adapter by alpha / sqrt(r) instead of alpha / r.",
        why="With alpha / r a high rank is damped so much that it hardly learns more than a low one.",
        how="At r 64 and alpha 128 the factor is 16 instead of 2: lower alpha or the learning rate when switching.",
        benefit="Ranks of 64 and above show their capacity.",
        tradeoff="true with an unchanged alpha: an unstable loss in the first steps. false: no gain from high ranks.",
        cpu="false",
        gpu="true from lora_r 64 on",
        maps_to="peft.LoraConfig.use_rslora",
    )
