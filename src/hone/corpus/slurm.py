"""A corpus on a Slurm cluster: datatrove submits a job array for each stage, each waiting for the one before.

What the jobs do is `run_task`, as everywhere: a task that is done already is found to be so, by its bytes.

>>> submit(work, stages_of(work), say=print)                                        # doctest: +SKIP
"""

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from datatrove.executor.slurm import SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep

from hone.corpus.blocks import quiet
from hone.corpus.stages import Stage, run_task
from hone.corpus.work import Work, finished
from hone.errors import HoneError


class StageStep(PipelineStep):
    """A stage as a datatrove pipeline of one step."""

    type, name = "hone corpus", "stage"

    def __init__(self, folder: Path, stage: str) -> None:
        super().__init__()
        self.folder, self.stage = str(folder), stage

    def run(self, data: object = None, rank: int = 0, world_size: int = 1) -> None:
        run_task(Path(self.folder), self.stage, rank)


def is_finished(work: Work, stages: Sequence[Stage]) -> bool:
    """Whether each task of each stage has a result; whether it is whole is for `run_task` to find."""
    return all(finished(work.result(stage.name, rank)) for stage in stages for rank in range(stage.n_tasks))


def submit(work: Work, stages: Sequence[Stage], say: Callable[[str], None]) -> None:
    """Submit all stages.

    Raises:
        HoneError: there is no Slurm here, or it refuses a job.
    """
    if shutil.which("sbatch") is None:
        fix = "run the command where `sbatch` is, or set executor=local"
        raise HoneError("no Slurm here: there is no sbatch", where="executor", fix=fix)
    quiet()
    output = work.settings.output
    before: SlurmPipelineExecutor | None = None
    for stage in stages:
        logs = work.folder / "slurm" / stage.name
        before = SlurmPipelineExecutor(
            pipeline=[StageStep(work.folder, stage.name)],
            tasks=stage.n_tasks,
            time=output.slurm_time,
            partition=str(output.slurm_partition),
            mem_per_cpu_gb=output.slurm_mem_gb,
            workers=output.workers or -1,
            job_name=f"hone-{stage.name}",
            qos=None,
            env_command=output.slurm_setup,
            logging_dir=str(logs),
            slurm_logs_folder=str(logs / "output"),
            skip_completed=False,  # datatrove's marks are empty files; run_task looks at the bytes
            depends=before,
        )
    try:
        assert before is not None
        before.run()
    except (OSError, subprocess.SubprocessError) as error:
        raise HoneError(f"sbatch: {error}", where="executor", fix="see `sinfo`, and slurm_partition") from error
    say(f"submitted {len(stages)} job arrays; give the same command again when the last one has ended: it seals")
