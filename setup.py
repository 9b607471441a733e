"""Packs docs/concepts.md, which `hone explain` reads, into the wheel; everything else stands in pyproject.toml."""

from setuptools import setup
from setuptools.command.build_py import build_py


class WithConcepts(build_py):
    """A checkout has the page in docs/, so an editable install needs no copy."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            self.copy_file("docs/concepts.md", f"{self.build_lib}/hone/concepts.md")


setup(cmdclass={"build_py": WithConcepts})
