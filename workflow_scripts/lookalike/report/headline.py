"""The answer in a sentence or two, and the facts that it rests on. Never a winner by the larger number alone."""

from lookalike.report import words
from lookalike.report.evidence import BEST_BY, Evidence, Run

NO_WINNER = "cannot tell"


def best(runs: list[Run]) -> Run | None:
    """The run with the highest accuracy, the first of equal ones; None where nothing is measured."""
    measured = [run for run in runs if run.estimate(BEST_BY).value is not None]
    return max(measured, key=lambda run: run.estimate(BEST_BY).value or 0.0, default=None)


def sentence(evidence: Evidence) -> str:
    """What came out: the best model, how good it is, and which of the others may be as good."""
    top = best(evidence.runs)
    if top is None:
        return (
            f"None of the {words.count(evidence.queries.num_rows, 'query', 'queries')} has a known match, so accuracy "
            "cannot be measured. The pictures below show what each model finds."
            if evidence.queries.num_rows
            else "There are no queries, so there is nothing to compare."
        )
    estimate = top.estimate(BEST_BY)
    decimals = 0 if estimate.n < 1000 else 1
    said = (
        f"{_name(evidence, top)} found the right picture first for {words.percent(estimate.value, decimals)} of "
        f"{words.count(estimate.n, 'query', 'queries')}"
    )
    rivals = [run for run in evidence.runs if run.index == top.index and run is not top]
    if not rivals:
        return f"{said} (95{words.SPACE}% interval {words.interval(estimate, decimals)})."
    equal: list[str] = []
    beaten: list[str] = []
    unknown: list[str] = []
    for run in rivals:
        verdict = evidence.verdict(BEST_BY, top, run)
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


def facts(evidence: Evidence) -> list[tuple[str, str]]:
    """The numbers under the sentence, each with what it counts."""
    matched = len(evidence.matched)
    queries = evidence.queries.num_rows
    return [
        (words.number(evidence.references), "reference" if evidence.references == 1 else "references"),
        (words.number(queries), "query" if queries == 1 else "queries"),
        (words.number(matched), "with a match"),
        (words.number(queries - matched), "without a match"),
        (words.number(len(evidence.counts)), "model" if len(evidence.counts) == 1 else "models"),
        (words.number(len({one.image_id for one in evidence.rejected})), "pictures rejected"),
    ]
