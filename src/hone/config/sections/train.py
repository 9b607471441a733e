"""The section `train`: the optimizer, its schedule, the batch, precision, and when to log, measure and save.

Names and meanings are those of transformers.TrainingArguments, except max_train_seconds, early_stopping_patience and
the keys of `speed.py`.
"""

from typing import Annotated, Literal

from pydantic import Field

from hone.config.fields import Number, key
from hone.config.sections.speed import SpeedKeys

# the schedules that need no arguments of their own
Schedule = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
]
# the optimizers that need no arguments of their own; muon is ours, those from adamw_8bit on need bitsandbytes
Optimizer = Literal[
    "adamw_torch_fused",
    "adamw_torch",
    "muon",
    "adafactor",
    "sgd",
    "adagrad",
    "rmsprop",
    "adamw_8bit",
    "paged_adamw_8bit",
    "paged_adamw_32bit",
    "lion_8bit",
    "lion_32bit",
]
_ARGUMENTS = "transformers.TrainingArguments."


class TrainSection(SpeedKeys):
    """The training loop."""

    learning_rate: float = key(
        5e-5,
        what="The size of an optimizer step at the top of the schedule.",
        why="It is the setting that most often decides between learning, standing still and forgetting.",
        how="AdamW moves each weight by about this much a step. Small models take higher rates: the bundled hone-base "
        "wants 1e-3 full, 3e-3 freeze, 1e-2 lora. When you change it, try factors of 2 to 3.",
        benefit="A good value lowers the validation loss from the first epoch on and keeps the base's skills.",
        tradeoff="Too high: the loss jumps, rises or becomes nan; text turns repetitive. Too low: the loss falls "
        "slowly and evenly, and the last epoch still improves. On 60 rows 5e-5 gives hone-base a third of what its "
        "best rate gains, and 2e-4 with lora a sixth (measured in docs/choosing.md).",
        cpu="5e-5 full, 1e-4 to 2e-4 with lora, 5e-4 from scratch; for a base as small as hone-base its own, see How",
        gpu="1e-5 to 5e-5 full, 1e-4 to 2e-4 with lora, 3e-4 to 6e-4 from scratch; for hone-base its own, see How",
        maps_to=_ARGUMENTS + "learning_rate",
        gt=0,
    )
    lr_scheduler_type: Schedule = key(
        "linear",
        what="The course of the learning rate over the run, after the warm-up.",
        why="Large steps find the region, small ones settle in it.",
        how="linear falls straight to 0, cosine stays high longer and then falls to 0, constant never falls.",
        benefit="A falling rate ends with a lower and steadier validation loss.",
        tradeoff="constant: the loss keeps trembling at the end. linear or cosine with too many epochs planned: a run "
        "that is stopped early ends at a high rate.",
        cpu="linear",
        gpu="cosine",
        maps_to=_ARGUMENTS + "lr_scheduler_type",
    )
    warmup_steps: Number = key(
        0,
        what="How many optimizer steps the learning rate rises from 0 to its top; below 1 a share of all steps.",
        why="AdamW's averages are empty at first, and the first full steps would go in nearly random directions.",
        how="0.05 is a twentieth of the run, 100 is a hundred steps.",
        benefit="No jump of the loss at the start; a higher learning rate becomes possible.",
        tradeoff="Too high: much of a short run is spent at small rates. Too low: a peak in the loss in the first "
        "steps, mostly from scratch.",
        cpu="0 to 0.1",
        gpu="0.03 to 0.1; 1000 steps from scratch",
        maps_to=_ARGUMENTS + "warmup_steps",
        ge=0,
    )
    weight_decay: float = key(
        0.0,
        what="How strongly weights are pulled towards zero, as a share of the learning rate at each step.",
        why="Large weights often mean that rows are memorized.",
        how="AdamW's decoupled form; biases and norms are left out.",
        benefit="Better validation loss in long training; little effect in a few epochs of fine-tuning.",
        tradeoff="Too high (above 0.3): training loss stays high. Too low: in long runs weights grow and overfit.",
        cpu="0.0 to 0.01",
        gpu="0.01; 0.1 from scratch",
        maps_to=_ARGUMENTS + "weight_decay",
        ge=0,
    )
    dropout: float | None = key(
        None,
        what="The share of activations set to zero at random in training, in the model's own layers; null decides.",
        why="It was made for many passes over much data; a few epochs of fine-tuning gain little by it.",
        how="null: none in fine-tuning of a causal model on the CPU, which is logged; else as the model comes. A "
        "number goes to every dropout that the architecture has. What is saved keeps the model's own; lora_dropout "
        "is apart.",
        benefit="Without it a CPU attends several times faster, frozen blocks run once, and losses are less noisy.",
        tradeoff="Off: small data is memorized sooner, so watch the validation loss, and try 0.1 where it turns "
        "up. On: slower on a CPU.",
        cpu="null; 0.1 for many epochs over few rows",
        gpu="null",
        ge=0,
        lt=1,
    )
    adam_beta1: float = key(
        0.9,
        what="Adam's memory of past gradients: the share kept at each step.",
        why="Averaging over about 1 / (1 - beta1) steps smooths the noise of small batches.",
        how="0.9 averages over about ten steps.",
        benefit="A steady direction.",
        tradeoff="Too high (0.99): reacts late, overshoots. Too low (0.5): follows the noise of every batch.",
        cpu="0.9",
        gpu="0.9",
        maps_to=_ARGUMENTS + "adam_beta1",
        ge=0,
        lt=1,
    )
    adam_beta2: float = key(
        0.999,
        what="Adam's memory of squared gradients, which scales the step of each weight.",
        why="Weights with large gradients get smaller steps, and the reverse.",
        how="0.999 averages over about a thousand steps, 0.95 over twenty.",
        benefit="Even steps in all layers.",
        tradeoff="Too high in short or unstable runs: old sizes rule, loss spikes last long. Too low (0.9): jumpy "
        "steps.",
        cpu="0.999",
        gpu="0.999; 0.95 from scratch with large batches",
        maps_to=_ARGUMENTS + "adam_beta2",
        ge=0,
        lt=1,
    )
    adam_epsilon: float = key(
        1e-8,
        what="A small number added to Adam's denominator.",
        why="It prevents division by nearly zero for weights that get hardly any gradient.",
        how="A weight moves by learning_rate x mean gradient / (its usual size + this number): where gradients are "
        "well above it, it changes nothing. Papers that train in 16 bits often write 1e-6.",
        benefit="Stable steps for rare tokens.",
        tradeoff="Too high (1e-3): Adam turns into plain gradient descent, slow. Too low: large steps on weights with "
        "tiny gradients.",
        cpu="1e-8",
        gpu="1e-8",
        maps_to=_ARGUMENTS + "adam_epsilon",
        gt=0,
    )
    optim: Optimizer = key(
        "adamw_torch_fused",
        what="Which optimizer turns gradients into steps.",
        why="It decides the extra memory of a trained weight: AdamW keeps two numbers for each, sgd none.",
        how="The fused form updates all weights in few passes over memory. muon: hidden matrices by Muon, all else by "
        "AdamW, with the same learning_rate. Names with 8bit, paged or lion need the package bitsandbytes.",
        benefit="AdamW is the one that every recipe and learning rate in this reference is meant for.",
        tradeoff="muon: faster from scratch, but worse for weights that AdamW trained; a step costs more. adafactor: "
        "least memory, usually slower learning. sgd: needs a learning rate about 100 times higher, and still learns "
        "worse on transformers. 8bit: a quarter of AdamW's memory, GPU only.",
        cpu="adamw_torch_fused; muon from scratch",
        gpu="adamw_torch_fused; muon from scratch; adamw_8bit when memory is short",
        maps_to=_ARGUMENTS + "optim",
    )
    max_grad_norm: float = key(
        1.0,
        what="The largest length of the gradient; longer ones are shortened to it. 0 switches this off.",
        why="One strange batch must not undo hundreds of good steps.",
        how="The norm over all trained weights, once before each optimizer step; grad_norm in metrics.jsonl shows it.",
        benefit="Spikes in the loss stay small.",
        tradeoff="Too high: no protection, loss spikes. Too low (0.01): every step is shortened; with AdamW that "
        "changes little at first and hides trouble.",
        cpu="1.0",
        gpu="1.0; 0.3 for unstable runs",
        maps_to=_ARGUMENTS + "max_grad_norm",
        ge=0,
    )
    num_train_epochs: float = key(
        3.0,
        what="How often the training rows are gone through; fractions are allowed.",
        why="Each pass learns more of the rows, first what they have in common, then each one's own words.",
        how="max_steps, when positive, replaces it; the learning rate schedule spans exactly the planned steps.",
        benefit="Enough passes to learn the form and style of the answers.",
        tradeoff="Too many: training loss falls and validation loss rises, samples recite rows. Too few: validation "
        "loss is still falling at the end.",
        cpu="1 to 3; 4 or 5 for some hundred rows on a small base",
        gpu="1 to 3; 1 from scratch on much text",
        maps_to=_ARGUMENTS + "num_train_epochs",
        gt=0,
    )
    max_steps: int = key(
        -1,
        what="Stop after so many optimizer steps; -1 follows num_train_epochs.",
        why="A fixed number of steps makes runs on different data or machines comparable.",
        how="One step is per_device_train_batch_size x gradient_accumulation_steps examples on one device.",
        benefit="max_steps=10 is a whole run in a minute, to see that everything works.",
        tradeoff="Too high: many epochs unnoticed. Too low: stops in the middle of the first one.",
        cpu="-1; 10 to try out",
        gpu="-1, or 1,000 to 100,000 from scratch",
        maps_to=_ARGUMENTS + "max_steps",
        ge=-1,
    )
    max_train_seconds: float | None = key(
        None,
        what="Stop training cleanly after so many seconds, then save and measure; null sets no limit.",
        why="A laptop lid, a free notebook or a batch queue ends at a fixed time.",
        how="Checked after every optimizer step; loading, evaluating and saving come on top.",
        benefit="A finished, measured model instead of a killed process.",
        tradeoff="Too low: stops while the learning rate is still high, so the loss is worse than a shorter plan's. "
        "Better plan fewer epochs than rely on it.",
        cpu="null; 600 in a lesson",
        gpu="null; a few minutes below the queue's limit",
        maps_to=None,
        gt=0,
    )
    per_device_train_batch_size: int = key(
        8,
        what="How many examples a device computes at once in training.",
        why="It decides the memory of a step, and how well the processor is used.",
        how="The examples of a step are this times gradient_accumulation_steps (times devices).",
        benefit="Larger matrices run closer to the machine's peak speed.",
        tradeoff="Too high: out of memory. Too low: slow; quality does not suffer when accumulation makes up for it.",
        cpu="2 to 8",
        gpu="4 to 64",
        maps_to=_ARGUMENTS + "per_device_train_batch_size",
        ge=1,
    )
    gradient_accumulation_steps: int = key(
        1,
        what="How many micro-batches are summed before one optimizer step.",
        why="A large effective batch fits into little memory.",
        how="The loss is divided once by all supervised tokens of the step: 8 x 1 and 1 x 8 give the same step.",
        benefit="Smoother gradients at the memory of one micro-batch.",
        tradeoff="Too high: few steps an epoch, slow learning for the same time. Too low: noisy loss with a batch "
        "of 1 or 2.",
        cpu="1 to 8",
        gpu="1 to 32; effective batch of 16 to 128, 256 from scratch",
        maps_to=_ARGUMENTS + "gradient_accumulation_steps",
        ge=1,
    )
    gradient_checkpointing: bool = key(
        False,
        what="Whether activations are computed again in the backward pass instead of being kept.",
        why="For long rows activations take more memory than the weights.",
        how="Only each block's input is kept; the block runs a second time when its gradient is needed.",
        benefit="Often a half to a quarter of the activation memory, with the same numbers.",
        tradeoff="true: about a third more time a step. false: out of memory on large models or long rows.",
        cpu="false",
        gpu="true for 1B and more at long rows",
        maps_to=_ARGUMENTS + "gradient_checkpointing",
    )
    seed: int = key(
        42,
        what="Seed of the order of rows, of dropout, and of new weights (lora, from scratch).",
        why="Repeating a run, and telling seed variance from progress, both need control over chance.",
        how="The batch of each step follows from seed, epoch and step alone.",
        benefit="The same seed, machine and versions give the same losses.",
        tradeoff="One seed can be lucky: the spread over 3 to 5 seeds is often as large as the effect of a setting.",
        cpu="42; 3 to 5 different ones for a claim",
        gpu="42; 3 to 5 different ones for a claim",
        maps_to=_ARGUMENTS + "seed",
        ge=0,
        le=2**32 - 1,
    )
    bf16: bool | None = key(
        None,
        what="Whether matrix products run in bfloat16 while the weights stay in dtype (mixed precision).",
        why="Half the bytes and special units: the products are 2 to 8 times faster where the hardware knows bfloat16.",
        how="autocast around the model; the soft-max of the loss stays float32. null measures a small product once "
        "(0.1 s) and takes true where bfloat16 is at least a quarter faster, dtype is float32 and fp16 is off. "
        "Hardware support: NVIDIA from Ampere on, CPUs with AVX512-BF16 or AMX.",
        benefit="The range of float32, so that no loss scaling is needed.",
        tradeoff="true without hardware support: slower than float32. Rounding to 8 bits shifts the loss in the third "
        "digit.",
        cpu="null",
        gpu="null",
        maps_to=_ARGUMENTS + "bf16",
    )
    fp16: bool = key(
        False,
        what="Whether matrix products run in float16 with loss scaling (mixed precision).",
        why="GPUs before Ampere (T4, V100) have fast float16 and no bfloat16.",
        how="The loss is multiplied by a large factor, which is lowered when gradients overflow.",
        benefit="Two to four times faster on those GPUs.",
        tradeoff="true: skipped steps at the start, nan on models trained in bfloat16 (values above 65,504). Refused "
        "without CUDA.",
        cpu="false",
        gpu="true on T4 and V100, else false with bf16: true",
        maps_to=_ARGUMENTS + "fp16",
    )
    tf32: bool | None = key(
        None,
        what="Whether float32 products on an NVIDIA GPU are rounded to TensorFloat-32; null leaves PyTorch's choice.",
        why="Float32 products do not use the tensor cores otherwise.",
        how="19 bits instead of 32 inside the product, sums in float32; Ampere and newer only.",
        benefit="Several times faster float32 training without changing dtype.",
        tradeoff="true on older GPUs or on a CPU is an error at the start. Numbers differ in the fourth digit.",
        cpu="null",
        gpu="true when neither bf16 nor fp16 is set",
        maps_to=_ARGUMENTS + "tf32",
    )
    use_cpu: bool = key(
        False,
        what="Train on the CPU even when an accelerator is there.",
        why="To compare numbers, to find a bug, or because the GPU is busy.",
        how="false takes CUDA, then MPS, then the CPU.",
        benefit="Clear error messages and a run that works everywhere.",
        tradeoff="true: 10 to 100 times slower than a GPU.",
        cpu="false (nothing else is there)",
        gpu="false",
        maps_to=_ARGUMENTS + "use_cpu",
    )
    torch_compile: bool = key(
        False,
        what="Whether torch.compile translates the model to fused kernels.",
        why="Small operations between the matrix products cost memory traffic.",
        how="Compiles at the first steps; a new shape can compile again, and flat batches change shape at every step.",
        benefit="10 to 40 per cent faster steps in long runs with fixed shapes (batching: windows or packed).",
        tradeoff="true: minutes before the first step, recompilations with changing lengths, needs a C++ compiler on "
        "CPUs.",
        cpu="false",
        gpu="true for long runs with windows or packed",
        maps_to=_ARGUMENTS + "torch_compile",
    )
    dataloader_num_workers: int = key(
        0,
        what="How many extra processes prepare batches; 0 prepares them in the training process.",
        why="A GPU must not wait for the data.",
        how="Tokens are prepared and memory-mapped beforehand, so a batch takes well below a millisecond to build.",
        benefit="Only where building a batch takes as long as computing it.",
        tradeoff="Too many: memory, start-up time, and on a CPU cores taken from the training. 0: a fast GPU may wait.",
        cpu="0",
        gpu="0 to 4",
        maps_to=_ARGUMENTS + "dataloader_num_workers",
        ge=0,
    )
    logging_strategy: Literal["steps", "epoch"] = key(
        "steps",
        what="Whether metrics are written every logging_steps or once an epoch.",
        why="A curve needs points; a long run does not need all of them.",
        how="Each line of metrics.jsonl has loss, learning rate, gradient norm, tokens and speed since the last one.",
        benefit="steps shows within a minute whether the loss falls.",
        tradeoff="epoch: trouble is seen late. steps with logging_steps 1: a large file and small waits.",
        cpu="steps",
        gpu="steps",
        maps_to=_ARGUMENTS + "logging_strategy",
    )
    logging_steps: Number = key(
        10,
        what="Write metrics every so many optimizer steps; below 1 a share of all steps.",
        why="The loss of single steps is noisy; a line is the mean since the last one.",
        how="With logging_strategy: steps.",
        benefit="A readable curve of 50 to 500 points.",
        tradeoff="Too high: no curve in a short run. Too low: noise.",
        cpu="1 to 10",
        gpu="10 to 100",
        maps_to=_ARGUMENTS + "logging_steps",
        gt=0,
    )
    eval_strategy: Literal["no", "steps", "epoch"] = key(
        "epoch",
        what="When the validation loss is measured during training: never, every eval_steps, or after each epoch.",
        why="The training loss alone cannot show the point where learning turns into memorizing.",
        how="epoch: one point after each pass over the rows, for a few short epochs; the points mean the same whatever "
        "the batch. steps: one every eval_steps, where an epoch takes hours or is the only one (from scratch), and the "
        "turn would come between. Base and tuned are measured before and after in any case.",
        benefit="A validation curve, and the best checkpoint instead of the last.",
        tradeoff="Too often: more time measuring than training. no: overfitting stays unseen until the end.",
        cpu="epoch",
        gpu="epoch; steps from scratch",
        maps_to=_ARGUMENTS + "eval_strategy",
    )
    eval_steps: Annotated[Number, Field(gt=0)] | None = key(
        None,
        what="With eval_strategy steps: measure every so many optimizer steps; below 1 a share of all steps.",
        why="Long epochs need measurements within.",
        how="null takes logging_steps.",
        benefit="The turning point of the validation loss is found more exactly.",
        tradeoff="Too high: the best point is missed. Too low: evaluation dominates the run.",
        cpu="0.25 (four times a run)",
        gpu="100 to 5000",
        maps_to=_ARGUMENTS + "eval_steps",
    )
    save_strategy: Literal["no", "steps", "epoch", "best"] = key(
        "epoch",
        what="When a checkpoint is written: never, every save_steps, after each epoch, or at each new best.",
        why="A run that is killed goes on from its last checkpoint.",
        how="A checkpoint holds weights, optimizer and position; the final model is saved in any case.",
        benefit="At most one interval of work is lost.",
        tradeoff="Too often: minutes of writing and much disk. no: a crash costs the whole run.",
        cpu="epoch",
        gpu="steps for runs of hours",
        maps_to=_ARGUMENTS + "save_strategy",
    )
    save_steps: Number = key(
        500,
        what="With save_strategy steps: save every so many optimizer steps; below 1 a share of all steps.",
        why="Choose what you can bear to lose: steps per minute times minutes.",
        how="With load_best_model_at_end it must be a multiple of eval_steps.",
        benefit="Bounded loss after a crash.",
        tradeoff="Too high: much work lost. Too low: the disk is busy and full.",
        cpu="every 10 to 30 minutes' worth of steps",
        gpu="500 to 5000",
        maps_to=_ARGUMENTS + "save_steps",
        gt=0,
    )
    save_total_limit: int | None = key(
        2,
        what="How many checkpoints are kept, oldest deleted first; null keeps all.",
        why="A checkpoint of full training takes about 12 bytes a weight: 1.5 GB for gpt2.",
        how="The best one is kept besides when load_best_model_at_end is set.",
        benefit="The disk does not fill up overnight.",
        tradeoff="Too high or null: full disk. 1: no older state to go back to.",
        cpu="2",
        gpu="2 to 5",
        maps_to=_ARGUMENTS + "save_total_limit",
        ge=1,
    )
    load_best_model_at_end: bool = key(
        False,
        what="Whether the checkpoint with the lowest validation loss becomes the final model, instead of the last.",
        why="With several epochs the last one is often past the best.",
        how="Needs eval_strategy and save_strategy to match (or save_strategy: best).",
        benefit="Too many epochs cost time, not quality.",
        tradeoff="true: checkpoints must be written at every evaluation, and the best of many looks slightly better "
        "than it is. false: an overtrained model may be saved.",
        cpu="true from 3 epochs on",
        gpu="true",
        maps_to=_ARGUMENTS + "load_best_model_at_end",
    )
    early_stopping_patience: int | None = key(
        None,
        what="Stop when the validation loss has not improved for so many evaluations; null never stops early.",
        why="Once the validation loss rises, more steps only memorize.",
        how="Needs eval_strategy steps or epoch; set load_best_model_at_end to return to the best point.",
        benefit="A generous number of epochs without the waste.",
        tradeoff="Too high: no effect. Too low (1): noise of one evaluation stops a run that was still learning.",
        cpu="2",
        gpu="3",
        maps_to="transformers.EarlyStoppingCallback.early_stopping_patience",
        ge=1,
    )
    resume_from_checkpoint: str = key(
        "auto",
        what="Where to go on after an interruption: auto, never, or the folder of a checkpoint.",
        why="The same command should finish a run that was killed.",
        how="auto takes the newest complete checkpoint in output_dir and starts fresh when there is none.",
        benefit="The resumed run continues with the next batch, as if it had not stopped.",
        tradeoff="never: work is repeated. A folder of another model or data: an error, or a run that is neither.",
        cpu="auto",
        gpu="auto",
        maps_to="transformers.Trainer.train.resume_from_checkpoint",
    )
    report_to: str | list[str] = key(
        "none",
        what="Trackers that also get the metrics: none, tensorboard, trackio, wandb, mlflow, or a list of them.",
        why="Teams compare runs in one place.",
        how="The tracker's package must be installed; metrics.jsonl is always written.",
        benefit="Live curves on another machine.",
        tradeoff="wandb and similar send metrics and settings to a server; none keeps everything in output_dir.",
        cpu="none",
        gpu="none, or your team's tracker",
        maps_to=_ARGUMENTS + "report_to",
    )
    run_name: str | None = key(
        None,
        what="The name of the run in trackers; null takes the name of output_dir.",
        why="Trackers list runs by name.",
        how="Handed to each tracker in report_to; without one it stands in the resolved config alone, and `hone runs` "
        "lists folders.",
        benefit="Runs that can be told apart.",
        tradeoff="One name for several runs: their curves share a label. A name for each value tried: long, but clear.",
        cpu="null",
        gpu="model-data-method, e.g. qwen2-alpaca-lora64",
        maps_to=_ARGUMENTS + "run_name",
    )
