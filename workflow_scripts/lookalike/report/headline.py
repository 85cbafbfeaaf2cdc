"""The answer to each need in a sentence, and the counts behind it. Only a test declares a winner, not a larger number.

The sentences are made from ``comparisons.json``'s ``answers`` alone. Where the best model to look at results with is
not the best to act alone, the first sentence names both; what another metric contradicts is reported with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lookalike.io.formats.answers import Answer, Rival
from lookalike.report import words
from lookalike.report.evidence import ACTS, LOOKS, Evidence, Run

FEW_GROUPS = 10  # below, the report warns at the top
DECIDABLE = 6  # as ``rates.FEWEST``, which the report must not depend on; a test compares them

COPIES_COUNT = "copies of the query count"
UNVERIFIED = {  # what is said of a threshold that is not safe
    "too few queries": "unverified: too few queries",
    "does not hold": "on other queries, that precision does not hold",
}


@dataclass(frozen=True)
class Statement:
    """What the page says for one need: a first sentence, and the sentences that qualify it."""

    first: str
    more: str = ""


def question(evidence: Evidence) -> str:
    """The title of the page: that of the experiment, or the question that its data answer."""
    if evidence.title:
        return evidence.title
    (name, *others) = (evidence.label(model) for model in evidence.counts)
    if not evidence.matched:
        return f"What does {'each model' if others else name} find?"
    found = "images of the same class" if evidence.labelled else "the right images"
    return f"Which model finds {found}?" if others else f"How often does {name} find {found}?"


def best(runs: list[Run], by: str) -> Run | None:
    """The run with the highest value of a metric, the first at ties; None if none was measured."""
    measured = [run for run in runs if run.estimate(by).value is not None]
    return max(measured, key=lambda run: run.estimate(by).value or 0.0, default=None)


def looks(evidence: Evidence) -> Statement:
    """For someone who looks at the results: the model that ranks true matches first."""
    answer, acts = evidence.answers[LOOKS], evidence.answers.get(ACTS)
    if not answer.best:
        return Statement(_nothing(evidence))
    first = _ranks(evidence, answer)
    if acts and acts.best and acts.estimate.value and _differ(answer, acts):
        found = f"{_found(evidence, acts)}{_beside(evidence, acts, answer, 'more')}"
        first += f"; to act alone, {_name(evidence, acts)} finds {found}"
    return Statement(f"{first}.", _compared(evidence, answer))


def acts_alone(evidence: Evidence) -> Statement | None:
    """For a system without a person: the model that finds most with 90 % precision. None if that was not measured."""
    answer, looking = evidence.answers.get(ACTS), evidence.answers[LOOKS]
    if answer is None or not answer.best:
        return None
    if not answer.estimate.value:
        several = bool(answer.rivals)
        return Statement(
            f"{'No model reaches' if several else f'{_name(evidence, answer)} does not reach'} a precision of "
            f"90{words.SPACE}% at any score, so {'none can act alone' if several else 'it cannot act alone'}.",
            _contradicted(evidence, answer),
        )
    first = f"To act alone, {_name(evidence, answer)} finds {_found(evidence, answer)}"
    if not answer.rivals:
        first += f" (95{words.SPACE}% interval {words.interval(answer.estimate, _decimals(answer.estimate.n))})"
    if looking.best and _differ(looking, answer):
        ranks = _ranks(evidence, looking)
        first += f"; for someone who looks at the results, {ranks}{_beside(evidence, looking, answer, 'better')}"
    return Statement(f"{first}.", _compared(evidence, answer))


def _nothing(evidence: Evidence) -> str:
    if evidence.matched:
        return "With so few references, every ranking scores the same, so accuracy cannot be measured. Add references."
    if not evidence.queries.num_rows:
        return "There are no queries, so models cannot be compared."
    return (
        f"None of the {words.count(evidence.queries.num_rows, 'query', 'queries')} has a known match, so accuracy "
        "cannot be measured. The explorer shows what each model finds."
    )


def _differ(a: Answer, b: Answer) -> bool:
    return (a.best[0], a.index) != (b.best[0], b.index)


def _ranks(evidence: Evidence, answer: Answer) -> str:
    """What the model that leads where someone looks does."""
    estimate, name = answer.estimate, _name(evidence, answer)
    decimals = _decimals(estimate.n)
    share, queries = words.percent(estimate.value, decimals), words.count(estimate.n, "query", "queries")
    if answer.metric in evidence.runs[0].metrics.baselines:
        metric = words.metric(answer.metric)
        result = f"{name} has {'the highest' if answer.rivals else 'a'} {metric}: {share} over {queries}"
    else:
        result = f"{name} ranks a true match first for {share} of {queries}"
    if strictly := _strictly(evidence, answer):
        result += f" ({strictly})"
    if not answer.rivals:
        result = f"{result} (95{words.SPACE}% interval {words.interval(estimate, decimals)})"
    return result


def _found(evidence: Evidence, answer: Answer) -> str:
    share = words.percent(answer.estimate.value, _decimals(answer.estimate.n))
    precision = f"of the matches with 90{words.SPACE}% precision"
    counted = "" if answer.strict or not evidence.labelled or not evidence.answers[LOOKS].strict else COPIES_COUNT
    remarks = [remark for remark in (UNVERIFIED.get(answer.threshold), _strictly(evidence, answer), counted) if remark]
    return f"{share} {precision}" + (f" ({'; '.join(remarks)})" if remarks else "")


def _strictly(evidence: Evidence, answer: Answer) -> str:
    if answer.strict is None:
        return ""
    value = words.percent(answer.strict.value, _decimals(answer.estimate.n))
    if evidence.labelled:
        return f"{value} if copies of the query count"
    return f"{value} if another image of the same scene is a miss"


def _beside(evidence: Evidence, answer: Answer, other: Answer, than: str) -> str:
    """Whether the model that leads for one need is significantly ahead of the one that leads for the other."""
    rival = _rival(answer, other)
    if rival is None or rival.verdict not in ("better", "cannot tell"):
        return ""
    sure = "significantly" if rival.verdict == "better" else "not significantly"
    return f", {sure} {than} than {evidence.label(rival.model)}"


def _rival(answer: Answer, other: Answer) -> Rival | None:
    if answer.index != other.index:
        return None
    return next((rival for rival in answer.rivals if rival.model == other.best[0]), None)


def _decimals(n: int) -> int:
    return 0 if n < 1000 else 1


def _compared(evidence: Evidence, answer: Answer) -> str:
    """How the others compare with the model that leads, by the metric of the need and by its other metrics."""
    name = _name(evidence, answer)
    by_verdict: dict[str, list[str]] = {}
    for rival in answer.rivals:
        by_verdict.setdefault(rival.verdict, []).append(evidence.label(rival.model))
    similar, worse = by_verdict.get("cannot tell", []), by_verdict.get("better", [])
    few, unknown = by_verdict.get("too few groups", []), by_verdict.get("not compared", [])
    sentences = []
    if similar:
        sentences.append(f"{_are(similar)} not significantly different from {name}{_needed(answer)}.")
    if worse and len(worse) == len(answer.rivals):
        amount = {1: "the other model", 2: "both other models"}
        others = amount.get(len(worse), f"all {len(worse)} other models")
        sentences.append(f"{name} is significantly better than {others}.")
    elif worse:
        sentences.append(f"{_are(worse)} significantly worse than {name}.")
    if few:
        groups = words.count(evidence.groups, "independent group")
        sentences.append(f"{groups} cannot tell whether {name} is better than {words.listing(few, 99)}.")
    if unknown:
        sentences.append(f"{_are(unknown)} not compared with {name}.")
    if contradicted := _contradicted(evidence, answer):
        sentences.append(contradicted)
    return " ".join(sentences)


def _needed(answer: Answer) -> str:
    """How many queries would tell, over the models that cannot be told apart."""
    needed = sorted(
        rival.queries_needed for rival in answer.rivals if rival.verdict == "cannot tell" and rival.queries_needed
    )
    if not needed:
        return ""
    amounts = list(dict.fromkeys(words.about(amount) for amount in (needed[0], needed[-1])))
    return f" (about {' to '.join(amounts)} queries would tell)"


def _contradicted(evidence: Evidence, answer: Answer) -> str:
    """What other metrics of the same need say significantly, and the deciding one does not."""
    said: dict[tuple[str, str], list[str]] = {}
    for found in answer.contradictions:
        direction = "better" if (found.difference.value or 0.0) > 0 else "worse"
        said.setdefault((found.metric, direction), []).append(evidence.label(found.model))
    name = _name(evidence, answer) if answer.best else ""
    for (metric, direction), labels in list(said.items()):
        if said.get((metric + words.SCENE, direction)) == labels:  # what is said without scenes need not be said twice
            del said[metric, direction]
    parts = [
        f"by {words.metric(metric, labelled=evidence.labelled)}, {_are(labels)} significantly {direction} than {name}"
        for (metric, direction), labels in said.items()
    ]
    return f"Yet {' and '.join(parts)}." if parts else ""


def _are(labels: Sequence[str]) -> str:
    return f"{words.listing(labels, 99)} {'is' if len(labels) == 1 else 'are'}"


def _name(evidence: Evidence, answer: Answer) -> str:
    label = evidence.label(answer.best[0])
    return label if len(evidence.indexes) == 1 else f"{label} (index {answer.index})"


@dataclass(frozen=True)
class Fact:
    """A count in the head and its name."""

    value: str
    name: str


def facts(evidence: Evidence) -> list[Fact]:
    """The counts below the headline: sampled = searched + rejected, queries = with + without a match."""
    matched = len(evidence.matched)
    queries = evidence.queries.num_rows
    counts = list(evidence.counts.values())
    rejected_queries = sorted({count.rejected_queries for count in counts})
    rejected = len({image.image_id for image in evidence.rejected})
    return [
        _references(evidence),
        Fact(
            words.number(queries),
            ("query" if queries == 1 else "queries")
            + (f", {_range(rejected_queries)} of them rejected" if rejected_queries[-1] else ""),
        ),
        Fact(words.number(matched), "with a match" if matched else "with a known match"),
        *(
            [
                Fact(words.number(queries - matched), "without a match"),
                Fact(
                    words.number(evidence.groups), "independent group" if evidence.groups == 1 else "independent groups"
                ),
            ]
            if matched
            else []
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
