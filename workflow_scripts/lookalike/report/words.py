"""Numbers, lists, metrics and operations formatted for readers."""

import math
from collections.abc import Sequence

from lookalike.io.formats.records import Estimate

SPACE = "\u00a0"  # no-break: keeps a number and its unit on one line
UNKNOWN = "–"

# Operations as participles; {} is the adverb of strength. A flip has no strength.
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
    "paste": "{} shrunk and pasted onto another image",
    "grey": "converted to greyscale",
    "sticker": "{} covered with stickers",
    "screenshot": "screenshot, the image {} shrunk",
    "perspective": "photographed from a screen, {} tilted",
    "noise": "{} noisy",
    "pixelate": "{} pixelated",
    "collage": "in a collage",
    "webp": "{} compressed (WebP)",
    "avif": "{} compressed (AVIF)",
    "meme": "text in {} wide borders",
}
STRENGTHS = {"light": "lightly", "medium": "moderately", "heavy": "heavily"}
OPERATION_NAMES = {
    "jpeg": "JPEG",
    "color": "Colors",
    "text": "Text overlay",
    "shapes": "Shape overlay",
    "rotate": "Rotation",
    "pad": "Padding",
    "paste": "Pasted onto another image",
    "grey": "Greyscale",
    "sticker": "Stickers",
    "webp": "WebP",
    "avif": "AVIF",
    "meme": "Meme border",
    "perspective": "Photo of a screen",
    "chain": "Chain of operations",
}

# Outcome of a query over all models: sign and name. With one model the second name is used.
OUTCOMES = {
    "disagree": ("≠", "Models disagree", "Models disagree"),
    "right": ("✓", "All right", "Right"),
    "wrong": ("✗", "All wrong", "Wrong"),
    "none": ("∅", "No match", "No match"),
    "showcase": ("◦", "Showcase image", "Showcase image"),
}

# The published comparisons whose claims are tested (``records.Claim.article``).
SOURCES = {"A": "Five models on Flickr30k", "B": "CLIP and DINOv2 on DISC21"}

METRIC_NAMES = {
    "mrr": "MRR",
    "map": "mAP",
    "uap": "µAP",
    "recall_at_p90": "Recall at P90",
    "map_at_r": "mAP@R",
    "r_precision": "R-precision",
    "category_ndcg_at_5": "Category nDCG@5",
}
NORMALISED, SCENE = "_sn", "_scene"  # endings of metrics
METRIC_MEANINGS = {
    "accuracy_at_1": "the share of queries with a match whose first neighbor is a true match. Use it for systems that "
    "act on the first hit.",
    "accuracy_at_3": "the share of queries with a match that have a true match among the first three neighbors. Use it "
    "where a person looks at a few hits.",
    "accuracy_at_10": "the share of queries with a match that have a true match among the first ten neighbors, as "
    "recall at 10 is defined for labelled collections.",
    "r_precision": "the share of right images among a query’s first R neighbors, where R is the number of other images "
    "of its class.",
    "map_at_r": "the precision at each right image among the first R neighbors, added up and divided by R. It is 1 "
    "only if a query’s whole class ranks before all other images.",
    "recall_at_k": "the share of a query’s true matches among its first {k} neighbors, averaged over queries. A later "
    "re-ranking step cannot recover the rest.",
    "caption_agreement_at_k": "the cosine similarity of TF-IDF vectors of the captions, averaged over the first {k} "
    "neighbors. Interpret it relative to chance and the text ceiling.",
    "category_overlap_at_k": "the Jaccard overlap of the object categories of query and neighbor, averaged over the "
    "first {k} neighbors.",
    "category_ndcg_at_k": "the same overlap with earlier neighbors weighted more, relative to the best possible order "
    "of all references.",
    "mrr": "the mean reciprocal rank of the first true match: 1 if it always ranks first, 0.5 if always second; 0 for "
    "queries whose neighbors contain no match.",
    "map": "mean average precision: how consistently all true matches of a query rank before other references.",
    "uap": "micro average precision: the predictions of all queries sorted by score, and the precision at each true "
    "match, averaged. It rewards scores that are comparable across queries and low where there is no match. As in the "
    "DISC21 challenge, the list holds the best pairs over all queries, ten times as many as queries.",
    "uap_k": "the same with the first {k} predictions of every query, as in many publications. It is usually easier, "
    "so compare it only with numbers computed the same way.",
    "recall_at_p90": "the share of all true matches accepted by a single score threshold at 90 % precision. Use it for "
    "automatic systems.",
    "scene": "{metric} where files of the same image count as one answer, and wrong neighbors that show the scene of "
    "the true match, or the image of the query itself, are taken out of the ranking.",
    "copies": "{metric} where files of the same image count as one answer, and copies of the query itself are taken "
    "out of the ranking.",
    "normalised": "{metric} after score normalisation: the mean similarity to the query’s nearest training images is "
    "subtracted from its scores, which lowers the scores of queries that resemble everything.",
}


def outcomes(*, one_model: bool, known: bool) -> dict[str, tuple[str, str]]:
    """Sign and name of each outcome; ``known``: whether the data set says what the right answers are."""
    named = {name: (sign, single if one_model else several) for name, (sign, several, single) in OUTCOMES.items()}
    return named if known else named | {"none": ("∅", "No known answer")}


def percent(value: float | None, decimals: int = 1) -> str:
    """``0.653`` as ``65.3 %``; rounded to 0 or 100 % only if it is exactly that."""
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
    """A difference of two shares in percentage points, with its sign (a true minus, not a hyphen)."""
    if value is None:
        return UNKNOWN
    written = f"{value * 100:+.1f}".replace("-", "−")
    return "0.0" if written[1:] == "0.0" else written


def probability(p: float) -> str:
    """A p-value: ``p = 0.012``, ``p < 0.001``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def number(value: float) -> str:
    """A count with thousands separators; small non-integers have three significant digits."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def about(amount: int) -> str:
    """A rough count, rounded up to two significant digits: ``1,300`` for 1,234."""
    step = 10 ** max(0, len(str(amount)) - 2)
    return f"{-(-amount // step) * step:,}"


def score(value: float | None, decimals: int = 4) -> str:
    """A score threshold, rounded down: rounded up, it could exclude the pair that it comes from."""
    if value is None:
        return UNKNOWN
    return f"{math.floor(round(value * 10**decimals, 6)) / 10**decimals:.{decimals}f}".replace("-", "−")


def count(amount: int, noun: str, plural: str = "") -> str:
    """``1 query``, ``150 queries``."""
    return f"{number(amount)}{SPACE}{noun if amount == 1 else plural or noun + 's'}"


def size(in_bytes: float) -> str:
    """Bytes in a suitable unit: ``12.3 kB``."""
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


def metric(name: str, *, labelled: bool = False) -> str:
    """``accuracy_at_1`` as ``Accuracy@1``, ``uap_k10_sn`` as ``µAP, 10 per query, normalised``.

    labelled: whether the data set is a labelled collection, where what ``_scene`` metrics ignore are copies
    """
    if name.endswith(NORMALISED):
        return f"{metric(name.removesuffix(NORMALISED))}, normalised"
    if name.endswith(SCENE):
        return f"{metric(name.removesuffix(SCENE))}, {'copies' if labelled else 'scenes'} ignored"
    if name.startswith("uap_k"):
        return f"µAP, {name.removeprefix('uap_k')} per query"
    kind, _, at = name.rpartition("_at_")
    if name in METRIC_NAMES or not kind:
        return METRIC_NAMES.get(name, name.replace("_", " "))
    return f"{kind.replace('_', ' ').capitalize()}@{at}"


def meaning(name: str, *, labelled: bool = False) -> str:
    """The definition of a metric, or an empty string; ``labelled`` as for ``metric``."""
    if name.endswith(NORMALISED):
        return METRIC_MEANINGS["normalised"].format(metric=metric(name.removesuffix(NORMALISED)))
    if name.endswith(SCENE):
        return METRIC_MEANINGS["copies" if labelled else "scene"].format(metric=metric(name.removesuffix(SCENE)))
    if name.startswith("uap_k"):
        return METRIC_MEANINGS["uap_k"].format(k=name.removeprefix("uap_k"))
    kind, _, at = name.rpartition("_at_")
    return METRIC_MEANINGS.get(name) or METRIC_MEANINGS.get(f"{kind}_at_k", "").format(k=at)


def breakdown(column: str) -> str:
    """The heading of a breakdown."""
    names = {"operations": "operation", "size": "size (longer side)", "labels": "label"}
    return f"By {names.get(column, column.removeprefix('by_').replace('_', ' '))}"


def evidence_name(name: str) -> str:
    """The column heading for one kind of evidence on what a model relies on."""
    return "Overlap with color histogram" if name == "color_overlap" else operation(name)


def measure(name: str) -> str:
    """The measure that tests a published claim."""
    if name == "color_overlap":
        return "overlap with the color histogram’s neighbors"
    return f"change in accuracy: {operation(name).lower()}" if name in OPERATIONS else metric(name)


def operation(name: str) -> str:
    """The name of an operation, as a row label."""
    return OPERATION_NAMES.get(name, name.replace("_", " ").capitalize())


def operations(steps: str | None) -> str:
    """``crop:light + jpeg:heavy`` as ``lightly cropped, then heavily compressed (JPEG)``."""
    return ", then ".join(_operation(step) for step in steps.split(" + ")) if steps else ""


def _operation(step: str) -> str:
    name, _, strength = step.partition(":")
    adverb = STRENGTHS.get(strength, strength)
    return " ".join(OPERATIONS[name].format(adverb).split()) if name in OPERATIONS else step


def operation_kind(steps: str | None) -> str:
    """The row of the breakdown that a query belongs to: its operation, or ``chain`` if there are several."""
    if not steps:
        return ""
    return "chain" if " + " in steps else steps.partition(":")[0]
