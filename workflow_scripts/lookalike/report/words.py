"""Numbers, lists and operations as people write them."""

from collections.abc import Sequence

from lookalike.io.formats.records import Estimate

SPACE = "\u00a0"  # keeps a number and its unit on one line
UNKNOWN = "–"

# What was done to a copy, as a participle; {} is how much. A flip has no degrees.
OPERATIONS = {
    "crop": "{} cropped",
    "blur": "{} blurred",
    "jpeg": "{} compressed (JPEG)",
    "rotate": "{} rotated",
    "color": "colors {} changed",
    "brightness": "brightness {} changed",
    "text": "{} covered with text",
    "shapes": "{} covered with shapes",
    "flip": "mirrored",
    "pad": "{} padded",
    "paste": "{} shrunk and pasted onto another picture",
    "grey": "made grey",
}
STRENGTHS = {"light": "lightly", "medium": "moderately", "heavy": "heavily"}
OPERATION_NAMES = {
    "jpeg": "JPEG",
    "color": "Colors",
    "text": "Text on top",
    "shapes": "Shapes on top",
    "rotate": "Rotation",
    "pad": "Padding",
    "paste": "Pasted elsewhere",
    "grey": "Greyscale",
    "chain": "Several in a row",
}

METRIC_NAMES = {
    "mrr": "MRR",
    "map": "mAP",
    "uap": "µAP",
    "recall_at_p90": "Recall at P90",
    "category_ndcg_at_5": "Category nDCG@5",
}
NORMALISED = "_sn"
METRIC_MEANINGS = {
    "accuracy_at_1": "the share of queries with a match whose match came first. This is the number to look at where "
    "a system acts on the first hit.",
    "accuracy_at_3": "the share of queries with a match whose match was among the first three. This is the number to "
    "look at where a person glances at a few hits.",
    "recall_at_k": "the share of a query's matches that were among the first {k}, averaged over the queries. What is "
    "not among them, no later step can find.",
    "caption_agreement_at_k": "how far the captions of the first {k} neighbors use the query's words, rare words "
    "counting more: 1 would be the same words. Look at where it stands between chance and the captions themselves.",
    "category_overlap_at_k": "of the kinds of objects that are in the query or in its neighbor, the share that is in "
    "both, averaged over the first {k} neighbors.",
    "category_ndcg_at_k": "the same overlap, where earlier neighbors count more, as a share of what the best order of "
    "all references would earn.",
    "mrr": "the mean of one over the rank of the match: 1 where it always came first, a half where always second, and "
    "0 where it was not among the neighbors that were kept.",
    "map": "the mean average precision: how far all matches of a query stand in front of everything else.",
    "uap": "the micro average precision: all queries’ pairs in one list by falling score, and the precision at each "
    "true match, averaged. It asks for one score threshold that fits every query, and for low scores where there is no "
    "match. The list is that of the DISC21 challenge: the best pairs over all queries, ten times as many as queries.",
    "uap_k": "the same with the first {k} pairs of every query instead, as many articles have it. It is easier, so "
    "compare it only with numbers that were made this way.",
    "recall_at_p90": "the share of all true matches that one score threshold accepts while nine of ten accepted pairs "
    "are right. For a system that acts by itself.",
    "normalised": "{metric} after score normalisation: the mean similarity to the query’s nearest training "
    "pictures is taken off its scores, so that pictures that resemble everything do not score high.",
}


def percent(value: float | None, decimals: int = 1) -> str:
    """``0.653`` as ``65.3 %``; never rounded to 0 or 100 % unless it is."""
    if value is None:
        return UNKNOWN
    while decimals < 4 and 0 < abs(value) < 1 and round(abs(value) * 100, decimals) in (0, 100):
        decimals += 1
    return f"{value * 100:.{decimals}f}{SPACE}%".replace("-", "−")


def interval(estimate: Estimate, decimals: int = 1) -> str:
    """The interval as ``57.4–72.5 %``."""
    if estimate.low is None or estimate.high is None:
        return UNKNOWN
    return f"{estimate.low * 100:.{decimals}f}–{estimate.high * 100:.{decimals}f}{SPACE}%"


def points(value: float | None) -> str:
    """A difference of two shares, in percentage points with its sign; a true minus, not a hyphen."""
    if value is None:
        return UNKNOWN
    written = f"{value * 100:+.1f}".replace("-", "−")
    return "0.0" if written[1:] == "0.0" else written


def probability(p: float) -> str:
    """A p-value as it is written: ``p = 0.012``, ``p < 0.001``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def number(value: float) -> str:
    """A count with thousands apart; small fractions keep two digits."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def count(amount: int, noun: str, plural: str = "") -> str:
    """``1 query``, ``150 queries``."""
    return f"{number(amount)}{SPACE}{noun if amount == 1 else plural or noun + 's'}"


def size(in_bytes: float) -> str:
    """Bytes in the unit that keeps the number short."""
    for unit in ("bytes", "kB", "MB"):
        if in_bytes < 1000:
            return f"{in_bytes:.3g}{SPACE}{unit}"
        in_bytes /= 1000
    return f"{in_bytes:,.3g}{SPACE}GB"


def listing(items: Sequence[str], most: int = 4) -> str:
    """``A, B and C``; beyond ``most``, ``A, B, C and 9 others``."""
    items = list(items)
    if len(items) > most:
        items = [*items[: most - 1], f"{len(items) - most + 1} others"]
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def metric(name: str) -> str:
    """``accuracy_at_1`` as ``Accuracy@1``, ``uap_k10_sn`` as ``µAP, 10 a query, normalised``."""
    if name.endswith(NORMALISED):
        return f"{metric(name.removesuffix(NORMALISED))}, normalised"
    if name.startswith("uap_k"):
        return f"µAP, {name.removeprefix('uap_k')} a query"
    kind, _, at = name.rpartition("_at_")
    if name in METRIC_NAMES or not kind:
        return METRIC_NAMES.get(name, name.replace("_", " "))
    return f"{kind.replace('_', ' ').capitalize()}@{at}"


def meaning(name: str) -> str:
    """A sentence on what a metric says, or nothing where it has none yet."""
    if name.endswith(NORMALISED):
        return METRIC_MEANINGS["normalised"].format(metric=metric(name.removesuffix(NORMALISED)))
    if name.startswith("uap_k"):
        return METRIC_MEANINGS["uap_k"].format(k=name.removeprefix("uap_k"))
    kind, _, at = name.rpartition("_at_")
    return METRIC_MEANINGS.get(name) or METRIC_MEANINGS.get(f"{kind}_at_k", "").format(k=at)


def breakdown(column: str) -> str:
    """The heading of a breakdown."""
    known = {"operations": "operation", "size": "size (longer side)", "labels": "label"}
    return f"By {known.get(column, column.removeprefix('by_').replace('_', ' '))}"


def evidence_name(name: str) -> str:
    """The head of a column on what a model follows."""
    return "Like the color histogram" if name == "color_overlap" else operation(name)


def measure(name: str) -> str:
    """What a sentence of an article is tested by."""
    if name == "color_overlap":
        return "neighbors that the color histogram finds too"
    return f"change of accuracy: {operation(name).lower()}" if name in OPERATIONS else metric(name)


def operation(name: str) -> str:
    """The name of one kind of operation, as a row of a figure bears it."""
    return OPERATION_NAMES.get(name, name.replace("_", " ").capitalize())


def operations(written: str | None) -> str:
    """``crop:light + jpeg:heavy`` as ``lightly cropped, then heavily compressed (JPEG)``."""
    return ", then ".join(_operation(step) for step in written.split(" + ")) if written else ""


def _operation(step: str) -> str:
    name, _, strength = step.partition(":")
    adverb = STRENGTHS.get(strength, strength)
    return " ".join(OPERATIONS[name].format(adverb).split()) if name in OPERATIONS else step


def operation_kind(written: str | None) -> str:
    """The row of the breakdown that a query belongs to: its operation, or ``chain`` where there are several."""
    if not written:
        return ""
    return "chain" if " + " in written else written.partition(":")[0]
