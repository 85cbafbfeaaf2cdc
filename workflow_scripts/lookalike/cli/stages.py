"""What Snakemake prints, as one line a stage: what is done, how many jobs, and how long the rest takes."""

import re
from dataclasses import dataclass, field

from lookalike.plan.cost import duration

STAGES = {
    "sample": "list images",
    "make_images": "make altered copies",
    "shard": "split into shards",
    "fetch_weights": "fetch weights",
    "export": "export networks",
    "find_near_duplicates": "find near-duplicates",
    "embed": "embed images",
    "index": "build indexes",
    "search": "search",
    "audit": "check wrong answers",
    "measure": "measure",
    "project": "draw maps",
    "compare": "compare models",
    "find_duplicates": "find duplicate files",
    "report": "write the report",
}
WIDTH = max(map(len, STAGES.values()))
COUNT = re.compile(r"^(\S+) +(\d+)$")  # in the table of job stats
ENDED = re.compile(r"^Finished jobid: \d+ \(Rule: (\S+)\)")
PROGRESS = re.compile(r"^([^\s:]+)( [^:]*)?: \S+ ([\d,]+) of ([\d,]+) \S+, [\d.]+/s, ")
SHORTEST = 2.0  # seconds after which the rest is estimated


@dataclass
class Stage:
    """A stage's jobs. ``running``: job -> the part of its images that is done."""

    total: int
    started: float = 0.0
    has_begun: bool = False
    done: int = 0
    running: dict[str, float] = field(default_factory=dict)

    @property
    def part(self) -> float:
        """The part of the work that is done, from 0 to 1."""
        unfinished = sorted(self.running.values(), reverse=True)[self.done :]
        return min(1.0, (self.done + sum(unfinished)) / self.total)


class Stages:
    """Follows a run of Snakemake by its output."""

    def __init__(self) -> None:
        self.stages: dict[str, Stage] = {}
        self.current = ""
        self.last_event = 0.0

    def read(self, line: str, now: float) -> str | None:
        """Take in a line of output, printed at ``now`` in seconds. Returns the line of a stage that has just ended."""
        if count := COUNT.match(line):
            if (rule := _rule(count[1])) in STAGES:
                self.stages.setdefault(rule, Stage(0)).total += int(count[2])
        elif ended := ENDED.match(line):
            stage = self.stages.get(rule := _rule(ended[1]))
            if stage:
                self._begin(rule, stage, self.last_event or now)
                stage.done += 1
                self.last_event = now
                if stage.done == stage.total:
                    return self._line(rule, f"done in {duration(now - stage.started)}")
        elif (progress := PROGRESS.match(line)) and (stage := self.stages.get(rule := _rule(progress[1]))):
            self._begin(rule, stage, now)
            done, total = (int(progress[number].replace(",", "")) for number in (3, 4))
            stage.running[progress[2] or ""] = done / max(total, 1)
        return None

    def _begin(self, rule: str, stage: Stage, now: float) -> None:
        if not stage.has_begun:
            stage.started, stage.has_begun = now, True
        self.current = rule

    def status(self, now: float) -> str:
        """The line of the stage that is running."""
        stage = self.stages.get(self.current)
        if not stage or stage.done >= stage.total:
            waiting = next((rule for rule, stage in self.stages.items() if stage.done < stage.total), "")
            return self._line(waiting, "...") if waiting else "..."
        spent, part = now - stage.started, stage.part
        left = f", about {duration(spent * (1 - part) / part)} left" if part and spent > SHORTEST else ""
        return self._line(self.current, f"{part:.0%}{left}")

    def _line(self, rule: str, state: str) -> str:
        jobs = self.stages[rule].total
        return f"{STAGES[rule]:{WIDTH}}  {jobs:>3} job{'s' if jobs > 1 else ' '}  {state}"


def _rule(name: str) -> str:
    """The rule of a job's name; rules of one data set each end with its name."""
    return next((rule for rule in ("make_images", "shard") if name.startswith(f"{rule}_")), name)
