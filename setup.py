"""Builds the package. The workflow is at the top level of this repository, and in the wheel in lookalike/workflow/."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
WORKFLOW = (
    *("Snakefile", "config.yaml", "rules/*.smk", "rules/captions/*.rst", "workflow_scripts/*.py"),
    *("profiles/*/*.yaml", "envs/*.yaml", "docs/*.md"),
)


class BuildWithWorkflow(build_py):
    """Copies the workflow beside the library; an editable installation finds it in the repository."""

    def run(self) -> None:
        """Build from scratch: what an earlier build left would get into the wheel."""
        if self.editable_mode:
            super().run()
            return
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        for name in self.workflow_files():
            target = Path(self.build_lib, "lookalike/workflow", name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)

    def get_source_files(self) -> list[str]:
        """What a source distribution contains, too."""
        return [*super().get_source_files(), *self.workflow_files()]

    @staticmethod
    def workflow_files() -> list[str]:
        """Paths below the root of the repository, without what editors leave."""
        paths = [path.relative_to(ROOT) for pattern in WORKFLOW for path in sorted(ROOT.glob(pattern))]
        return [str(path) for path in paths if not path.name.startswith((".", "#"))]


setup(cmdclass={"build_py": BuildWithWorkflow})
