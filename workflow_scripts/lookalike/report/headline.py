"""The answer in a sentence or two, and the facts that it rests on. Never a winner by the larger number alone."""

from dataclasses import dataclass

from lookalike.report import words
from lookalike.report.evidence import BEST_BY, Evidence, Run

FEW_GROUPS = 10  # as in ``statistics``, which the report must not depend on; a test compares them
DECIDABLE = 6  # groups: five that all favor one model still have p = 2 / 2**5 = 0.06


def best(runs: list[Run], by: str = BEST_BY) -> Run | None:
    """The run with the highest accuracy, the first of equal ones; None where nothing is measured."""
    measured = [run for run in runs if run.estimate(by).value is not None]
    return max(measured, key=lambda run: run.estimate(by).value or 0.0, default=None)


def sentence(evidence: Evidence) -> str:
    """What came out: the best model, how good it is, and which of the others may be as good."""
    by = evidence.best_by
    top = best(evidence.runs, by)
    if top is None and evidence.matched:
        return "With so few references any order of them is right, so accuracy cannot be measured. Add references."
    if top is None:
        return (
            f"None of the {words.count(evidence.queries.num_rows, 'query', 'queries')} has a known match, so accuracy "
            "cannot be measured. The pictures below show what each model finds."
            if evidence.queries.num_rows
            else "There are no queries, so there is nothing to compare."
        )
    estimate = top.estimate(by)
    decimals = 0 if estimate.n < 1000 else 1
    if by == BEST_BY:
        said = (
            f"{_name(evidence, top)} found the right picture first for {words.percent(estimate.value, decimals)} of "
            f"{words.count(estimate.n, 'query', 'queries')}"
        )
    else:
        said = (
            f"{_name(evidence, top)} finds the pictures that agree most with what is written of "
            f"{words.count(estimate.n, 'query', 'queries')}: {words.metric(by)} is "
            f"{words.percent(estimate.value, decimals)}"
        )
    rivals = [run for run in evidence.runs if run.index == top.index and run is not top]
    if not rivals:
        return f"{said} (95{words.SPACE}% interval {words.interval(estimate, decimals)})."
    equal: list[str] = []
    beaten: list[str] = []
    unknown: list[str] = []
    for run in rivals:
        verdict = evidence.verdict(by, top, run)
        pile = unknown if verdict is None else beaten if verdict.verdict == "better" else equal
        pile.append(run.label)
    parts = []
    if equal:
        parts.append(f"{words.listing(equal)} cannot be told apart from it")
    if beaten and not equal:
        parts.append("it beats the other model" if len(beaten) == 1 else f"it beats all {len(beaten)} other models")
        parts[-1] += ", by more than chance explains"
    elif beaten:
        parts.append(f"{words.listing(beaten)} {'is' if len(beaten) == 1 else 'are'} behind")
    if unknown:
        parts.append(f"{words.listing(unknown)} {'was' if len(unknown) == 1 else 'were'} not compared with it")
    return f"{said}; {', and '.join(parts) if len(parts) < 3 else '; '.join(parts)}."


def _name(evidence: Evidence, run: Run) -> str:
    return run.label if len(evidence.indexes) == 1 else f"{run.label} (index {run.index})"


@dataclass(frozen=True)
class Fact:
    """A number of the page's head, what it counts, and what that means where the name does not say it."""

    value: str
    name: str
    explanation: str = ""


def facts(evidence: Evidence) -> list[Fact]:
    """The numbers under the sentence: sampled = searched + rejected, queries = with a match + without one."""
    matched = len(evidence.matched)
    queries = evidence.queries.num_rows
    counts = list(evidence.counts.values())
    lost = sorted({one.rejected_queries for one in counts})
    rejected = len({one.image_id for one in evidence.rejected})
    return [
        _references(evidence),
        Fact(
            words.number(queries),
            ("query" if queries == 1 else "queries") + (f", {_range(lost)} of them rejected" if lost[-1] else ""),
        ),
        Fact(words.number(matched), "with a match"),
        Fact(words.number(queries - matched), "without a match"),
        Fact(
            words.number(evidence.groups),
            "independent group" if evidence.groups == 1 else "independent groups",
            "The pictures or photographs that the queries with a match come from. What comes from one of them is found "
            "or missed together, so intervals and tests count it once.",
        ),
        Fact(words.number(len(counts)), "model" if len(counts) == 1 else "models"),
        Fact(words.number(rejected), "picture rejected" if rejected == 1 else "pictures rejected"),
    ]


def _references(evidence: Evidence) -> Fact:
    sampled = evidence.references
    searched = sorted({one.references - one.rejected_references for one in evidence.counts.values()})
    if searched == [sampled]:
        return Fact(words.number(sampled), "reference" if sampled == 1 else "references")
    return Fact(
        _range(searched),
        f"references searched, of {words.number(sampled)}",
        "A rejected reference is not searched." + (" How many are depends on the model." if len(searched) > 1 else ""),
    )


def _range(numbers: list[int]) -> str:
    """``25``, or ``25–27`` where models differ."""
    return "–".join(words.number(number) for number in dict.fromkeys((numbers[0], numbers[-1])))


def grouped(evidence: Evidence) -> str:
    """Why the queries are fewer observations than they seem, where they are; else nothing."""
    if evidence.groups == len(evidence.matched):
        return ""
    return (
        "Queries that come from the same picture or photograph are one independent group: they are found or missed "
        "together, so intervals and tests count them as one."
    )


def few(evidence: Evidence) -> str:
    """A warning where the queries come from so few groups that hardly anything can be known; else nothing."""
    groups, matched = evidence.groups, len(evidence.matched)
    if not 0 < groups < FEW_GROUPS:
        return ""
    queries = words.count(matched, "query", "queries")
    if groups == matched:
        are = "is" if matched == 1 else "are"
        said = f"There {are} only {queries} with a match: others could be found quite differently."
    else:
        copies = "operations" in evidence.queries.column_names
        source = words.count(groups, "picture" if copies else "independent group")
        said = (
            f"These {queries} {'were made' if copies else 'come'} from only {source}: what comes from one "
            f"is found or missed together, so this is no more than {words.count(groups, 'observation')}."
        )
    said += " The intervals are wide for that reason."
    if groups < DECIDABLE and len(evidence.counts) > 1:
        said += f" With fewer than {DECIDABLE}, no test can tell models apart."
    return f"{said} Add pictures{', not copies of the same ones' if groups < matched else ''}."
