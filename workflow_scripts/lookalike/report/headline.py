"""The answer in one sentence, and the counts behind it. Only a test declares a winner, not the larger number."""

from dataclasses import dataclass

from lookalike.report import words
from lookalike.report.evidence import BEST_BY, Evidence, Run

FEW_GROUPS = 10  # as in ``metrics.rates``, which the report must not depend on; a test compares them
DECIDABLE = 6  # groups: if five of five favor one model, the sign test still gives p = 2 / 2**5 = 0.06


def best(runs: list[Run], by: str = BEST_BY) -> Run | None:
    """The run with the highest value of a metric, the first at ties; None if none was measured."""
    measured = [run for run in runs if run.estimate(by).value is not None]
    return max(measured, key=lambda run: run.estimate(by).value or 0.0, default=None)


def sentence(evidence: Evidence) -> str:
    """The result in one sentence: the top model, its value, and how the other models compare with it."""
    by = evidence.best_by
    top = best(evidence.runs, by)
    if top is None and evidence.matched:
        return "With so few references, every ranking scores the same, so accuracy cannot be measured. Add references."
    if top is None:
        return (
            f"None of the {words.count(evidence.queries.num_rows, 'query', 'queries')} has a known match, so accuracy "
            "cannot be measured. The examples below show what each model finds."
            if evidence.queries.num_rows
            else "There are no queries, so models cannot be compared."
        )
    estimate = top.estimate(by)
    decimals = 0 if estimate.n < 1000 else 1
    if by == BEST_BY:
        result = (
            f"{_name(evidence, top)} ranks a true match first for {words.percent(estimate.value, decimals)} of "
            f"{words.count(estimate.n, 'query', 'queries')}"
        )
    else:
        result = (
            f"{_name(evidence, top)} finds the neighbors that agree best with their queries: {words.metric(by)} is "
            f"{words.percent(estimate.value, decimals)} over {words.count(estimate.n, 'query', 'queries')}"
        )
    rivals = [run for run in evidence.runs if run.index == top.index and run is not top]
    if not rivals:
        return f"{result} (95{words.SPACE}% interval {words.interval(estimate, decimals)})."
    similar: list[str] = []
    worse: list[str] = []
    unknown: list[str] = []
    for run in rivals:
        comparison = evidence.verdict(by, top, run)
        labels = unknown if comparison is None else worse if comparison.verdict == "better" else similar
        labels.append(run.label)
    parts = []
    if similar:
        parts.append(f"{_are(similar)} not significantly different")
    if worse and not similar:
        others = "the other model" if len(worse) == 1 else f"all {len(worse)} other models"
        parts.append(f"it is significantly better than {others}")
    elif worse:
        parts.append(f"{_are(worse)} significantly worse")
    if unknown:
        parts.append(f"{_are(unknown)} not compared with it")
    return f"{result}; {', and '.join(parts) if len(parts) < 3 else '; '.join(parts)}."


def _are(labels: list[str]) -> str:
    return f"{words.listing(labels)} {'is' if len(labels) == 1 else 'are'}"


def _name(evidence: Evidence, run: Run) -> str:
    return run.label if len(evidence.indexes) == 1 else f"{run.label} (index {run.index})"


@dataclass(frozen=True)
class Fact:
    """A count in the header, its name, and a tooltip if the name needs an explanation."""

    value: str
    name: str
    explanation: str = ""


def facts(evidence: Evidence) -> list[Fact]:
    """The counts below the headline: sampled = searched + rejected, queries = with + without a match."""
    matched = len(evidence.matched)
    queries = evidence.queries.num_rows
    counts = list(evidence.counts.values())
    rejected_queries = sorted({count.rejected_queries for count in counts})
    rejected = len({image.image_id for image in evidence.rejected})
    shared = "are of one class" if evidence.labelled else "share a source image or photograph"
    return [
        _references(evidence),
        Fact(
            words.number(queries),
            ("query" if queries == 1 else "queries")
            + (f", {_range(rejected_queries)} of them rejected" if rejected_queries[-1] else ""),
        ),
        Fact(words.number(matched), "with a match"),
        Fact(words.number(queries - matched), "without a match"),
        Fact(
            words.number(evidence.groups),
            "independent group" if evidence.groups == 1 else "independent groups",
            f"Queries with a match that {shared} form one group. They tend to succeed or fail "
            "together, so intervals and tests count each group once.",
        ),
        Fact(words.number(len(counts)), "model" if len(counts) == 1 else "models"),
        Fact(words.number(rejected), "image rejected" if rejected == 1 else "images rejected"),
    ]


def _references(evidence: Evidence) -> Fact:
    sampled = evidence.references
    searched = sorted({count.references - count.rejected_references for count in evidence.counts.values()})
    if searched == [sampled]:
        return Fact(words.number(sampled), "reference" if sampled == 1 else "references")
    return Fact(
        _range(searched),
        f"references searched, of {words.number(sampled)}",
        "Rejected references are not searched." + (" Their number depends on the model." if len(searched) > 1 else ""),
    )


def _range(numbers: list[int]) -> str:
    """``25``, or ``25–27`` if models differ."""
    return "–".join(words.number(number) for number in dict.fromkeys((numbers[0], numbers[-1])))


def grouped(evidence: Evidence) -> str:
    """A note if there are fewer independent observations than queries; else an empty string."""
    if evidence.groups == len(evidence.matched):
        return ""
    source = "of the same class" if evidence.labelled else "from the same source image or photograph"
    return (
        f"Queries {source} form one independent group: they tend to succeed or fail together, so intervals and tests "
        "count each group once."
    )


def few(evidence: Evidence) -> str:
    """A warning if there are too few independent groups for firm conclusions; else an empty string."""
    groups, matched = evidence.groups, len(evidence.matched)
    if not 0 < groups < FEW_GROUPS:
        return ""
    queries = words.count(matched, "query", "queries")
    if groups == matched:
        warning = f"Only {queries} with a match: another sample could give quite different results."
    else:
        copies = "operations" in evidence.queries.column_names
        sources = ("image",) if copies else ("class", "classes") if evidence.labelled else ("independent group",)
        source = words.count(groups, *sources)
        warning = (
            f"These {queries} {'were made' if copies else 'come'} from only {source}. Queries from one source tend to "
            f"succeed or fail together, so they amount to {words.count(groups, 'observation')}."
        )
    warning += " The intervals are therefore wide."
    if groups < DECIDABLE and len(evidence.counts) > 1:
        warning += f" With fewer than {DECIDABLE}, no test can reach significance."
    if evidence.labelled:
        return f"{warning} Add classes, not more images of the same ones."
    return f"{warning} Add images{', not more copies of the same ones' if groups < matched else ''}."
