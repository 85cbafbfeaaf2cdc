"""What Snakemake costs before the first job: every call of it pays for the Snakefile, also `--list` and `--unlock`."""

import re
from pathlib import Path

from workflow.conftest import MINE, Tree

TIMED = """
import sys, time
started = time.process_time()
include: "Snakefile"
print(f"loaded in {time.process_time() - started:.2f} s of CPU", file=sys.stderr)
"""


def test_the_snakefile_loads_in_under_0_7_seconds_of_cpu(tmp_path: Path) -> None:
    tree = Tree.new(tmp_path / "tree", MINE)
    (tree.folder / "timed.smk").write_text(TIMED)
    seconds = []
    while len(seconds) < 5 and min(seconds, default=1) >= 0.7:  # what else the machine does can only slow it down
        output = tree.run(options=("-s", "timed.smk", "--list")).output
        seconds += [float(said) for said in re.findall(r"^loaded in (\S+) s of CPU", output, re.MULTILINE)]
    assert min(seconds) < 0.7
