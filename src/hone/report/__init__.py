"""The report of a run: report.html and report.md, made of the files of its folder and of nothing else."""
