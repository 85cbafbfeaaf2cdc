"""The operations that may be applied to an image, their strengths, and the seeded draws that choose them.

A recipe is plain data, drawn before any image is read: the same seed, source and settings give the same recipe.
``docs/copies.md`` shows ``RANGES`` to readers; a test compares that page with it.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from lookalike.config.datasets import OPERATIONS, Operation, Strength

STRENGTHS: tuple[Strength, ...] = ("light", "medium", "heavy")

T = TypeVar("T")
Span = tuple[float, float]


@dataclass(frozen=True)
class Range:
    """A number that sets how strongly an operation is applied, and the range it is drawn from for each strength."""

    name: str
    meaning: str
    light: Span
    medium: Span
    heavy: Span

    def at(self, strength: Strength) -> Span:
        """The lowest and highest value for a strength."""
        return {"light": self.light, "medium": self.medium, "heavy": self.heavy}[strength]


# Whole numbers are drawn where both ends are whole numbers (int), both ends included.
RANGES: dict[Operation, tuple[Range, ...]] = {
    "crop": (Range("kept", "share of the area that is kept", (0.7, 0.9), (0.45, 0.7), (0.2, 0.45)),),
    "blur": (Range("radius", "as a share of the shorter side", (0.008, 0.015), (0.015, 0.03), (0.03, 0.06)),),
    "jpeg": (Range("quality", "JPEG quality", (35, 55), (15, 34), (5, 14)),),
    "rotate": (Range("degrees", "turned by, either way", (2.0, 8.0), (8.0, 25.0), (25.0, 90.0)),),
    "color": (
        Range("tint", "share of one color mixed into the whole image", (0.05, 0.12), (0.12, 0.25), (0.25, 0.45)),
        Range("saturation", "share of the colorfulness that is left", (0.7, 0.9), (0.4, 0.7), (0.0, 0.4)),
    ),
    "brightness": (Range("factor", "times brighter, or times darker", (1.15, 1.35), (1.35, 1.7), (1.7, 2.5)),),
    "text": (
        Range("height", "letters, as a share of the shorter side", (0.06, 0.1), (0.1, 0.16), (0.16, 0.25)),
        Range("lines", "lines of text", (1, 1), (1, 2), (2, 4)),
    ),
    "shapes": (
        Range("count", "shapes drawn onto the image", (1, 2), (3, 4), (5, 8)),
        Range("covers", "share of the area under all of them", (0.03, 0.08), (0.08, 0.2), (0.2, 0.4)),
    ),
    "flip": (),
    "pad": (Range("border", "on every side, as a share of the longer side", (0.03, 0.08), (0.08, 0.2), (0.2, 0.4)),),
    "paste": (Range("covers", "share of the other image that is covered", (0.5, 0.7), (0.3, 0.5), (0.12, 0.3)),),
    "grey": (),
    "sticker": (
        Range("count", "emoji and other stickers", (1, 2), (3, 4), (5, 8)),
        Range("size", "each, as a share of the shorter side", (0.1, 0.16), (0.16, 0.24), (0.24, 0.35)),
    ),
    "screenshot": (Range("covers", "share of the screen that the image takes", (0.7, 0.85), (0.5, 0.7), (0.3, 0.5)),),
    "perspective": (
        Range("tilt", "corners moved inwards, as a share of the side, at most", (0.05, 0.1), (0.1, 0.2), (0.2, 0.35)),
        Range("lines", "brightness lost in the lines of the screen", (0.02, 0.06), (0.06, 0.12), (0.12, 0.2)),
    ),
    "noise": (Range("spread", "standard deviation, of 255", (6.0, 12.0), (12.0, 25.0), (25.0, 50.0)),),
    "pixelate": (Range("cell", "squares, as a share of the shorter side", (0.01, 0.02), (0.02, 0.04), (0.04, 0.08)),),
    "collage": (Range("tiles", "images in the grid, with this one", (2, 2), (3, 4), (5, 6)),),
    "webp": (Range("quality", "WebP quality", (35, 55), (15, 34), (3, 14)),),
    "avif": (Range("quality", "AVIF quality", (35, 50), (20, 34), (5, 19)),),
    "meme": (Range("border", "each border, as a share of the height", (0.12, 0.18), (0.18, 0.26), (0.26, 0.4)),),
}

STICKERS = ("smile", "laugh", "heart", "star", "bubble")
SHAPES = ("rectangle", "ellipse", "triangle")
WORDS = (
    *("look", "at", "this", "wow", "best", "day", "ever", "summer", "sale", "today", "only", "weekend", "is", "here"),
    *("happy", "birthday", "hello", "from", "the", "sea", "new", "in", "town", "follow", "me", "coffee", "first"),
    *("good", "morning", "sunday", "mood", "almost", "home", "for", "you", "LOL", "SOLD", "BREAKING", "NEWS"),
)
WORDS_PER_LINE = 4  # as many of them as fit are drawn
WORDS_OF_A_CAPTION = 6

Step = dict[str, Any]  # "operation", "strength" (where there is one), and every number that was drawn


class Draw:
    """Seeded draws that use only ``random.random``, whose sequence Python guarantees."""

    def __init__(self, *seed: object) -> None:
        self._random = random.Random(int(digest(*seed), 16))

    def share(self) -> float:
        """A number from 0 up to 1."""
        return self.between((0.0, 1.0))

    def between(self, span: Span) -> float:
        """A number from the range: a whole one where both ends are int, else rounded to four decimals."""
        low, high = span
        if isinstance(low, int) and isinstance(high, int):
            return low + int(self._random.random() * (high - low + 1))
        return round(low + (high - low) * self._random.random(), 4)

    def one_of(self, items: Sequence[T]) -> T:
        """One of the items, each as likely as any other."""
        return items[int(self._random.random() * len(items))]

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self._random.random() < probability

    def color(self) -> list[int]:
        """Black, white, or any color, as red, green and blue from 0 to 255."""
        anything = [int(self.between((0, 255))) for _ in range(3)]
        return self.one_of([[0, 0, 0], [255, 255, 255], anything])


def digest(*parts: object) -> str:
    """SHA-256 of the parts, in hexadecimal."""
    return hashlib.sha256(":".join(str(part) for part in parts).encode()).hexdigest()


def draw_steps(draw: Draw, operations: Sequence[Operation], strengths: Sequence[Strength], chains: float) -> list[Step]:
    """Draw one operation, or, with probability ``chains``, two or three different ones in a row."""
    # in the order of the catalogue: how a configuration lists them changes nothing
    remaining = [operation for operation in OPERATIONS if operation in operations]
    allowed = [strength for strength in STRENGTHS if strength in strengths]
    length = draw.one_of((2, 3)) if draw.chance(chains) else 1
    steps = []
    for _ in range(min(length, len(remaining))):
        operation = draw.one_of(remaining)
        remaining.remove(operation)
        steps.append(draw_step(draw, operation, draw.one_of(allowed)))
    return steps


def draw_step(draw: Draw, operation: Operation, strength: Strength) -> Step:
    """Draw the numbers of one operation: those of ``RANGES``, and those without a strength, such as positions."""
    ranges = RANGES[operation]
    step: Step = {"operation": operation}
    if ranges:  # a flip and a grey image have no strength
        step["strength"] = strength
    step |= {span.name: draw.between(span.at(strength)) for span in ranges}
    match operation:
        case "crop":
            step |= {"x": draw.share(), "y": draw.share()}
        case "rotate":
            step |= {"clockwise": draw.chance(0.5), "color": draw.color()}
        case "color":
            step |= {"hue": int(draw.between((0, 359)))}
        case "brightness":
            step |= {"darker": draw.chance(0.5)}
        case "text":
            words = [[draw.one_of(WORDS) for _ in range(WORDS_PER_LINE)] for _ in range(step["lines"])]
            step |= {"words": words, "color": draw.color(), "x": draw.share(), "y": draw.share()}
        case "shapes":
            step["shapes"] = [
                {"shape": draw.one_of(SHAPES), "color": draw.color(), "x": draw.share(), "y": draw.share()}
                for _ in range(step["count"])
            ]
        case "pad":
            step |= {"color": draw.color()}
        case "paste":
            step |= {"color": draw.color(), "x": draw.share(), "y": draw.share()}
        case _:
            step |= _draw_everyday(draw, step)
    return step


def _draw_everyday(draw: Draw, step: Step) -> Step:
    """What ``draw_step`` adds for the operations of ``everyday_operations``."""
    match step["operation"]:
        case "sticker":
            stickers = range(step["count"])
            return {
                "stickers": [{"sticker": draw.one_of(STICKERS), "x": draw.share(), "y": draw.share()} for _ in stickers]
            }
        case "screenshot":
            words = [draw.one_of(WORDS) for _ in range(WORDS_OF_A_CAPTION)]
            time = {"hour": int(draw.between((0, 23))), "minute": int(draw.between((0, 59)))}
            return {"words": words, **time, "battery": draw.share(), "dark": draw.chance(0.5), "y": draw.share()}
        case "perspective":
            return {"corners": [[draw.share(), draw.share()] for _ in range(4)]}
        case "noise":
            return {"seed": int(draw.between((0, 2**31 - 1)))}
        case "collage":
            tiles = range(step["tiles"])
            others = [{"color": draw.color(), "x": draw.share(), "y": draw.share()} for _ in tiles]
            return {"place": draw.share(), "others": others}
        case "meme":
            lines = range(2 if draw.chance(0.5) else 1)
            words_by_line = [[draw.one_of(WORDS) for _ in range(WORDS_PER_LINE)] for _ in lines]
            return {"dark": draw.chance(0.5), "words": words_by_line}
    return {}


def describe(steps: Sequence[Step]) -> str:
    """``crop:medium`` or ``crop:light + flip``: the value of the column ``operations``."""
    return " + ".join(
        f"{step['operation']}:{step['strength']}" if "strength" in step else step["operation"] for step in steps
    )
