"""Operations that people apply on phones: stickers, screenshots, memes, collages, and other image formats.

As those of ``copy_operations``: pure functions of an 8-bit RGB image of any size and a drawn step. Nothing is loaded:
stickers are drawn from circles and polygons.
"""

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps, features

from lookalike.job.errors import LookalikeError
from lookalike.sample.copy_recipes import Step
from lookalike.sample.drawing import SMALLEST_LETTERS, fitting, font, rgb

YELLOW, RED, DARK, WHITE = (255, 204, 51), (221, 46, 68), (51, 42, 30), (255, 255, 255)
BEZEL = (12, 12, 14)  # of a screen that is photographed
BYTES = 4  # random bytes added up for a pixel's noise: nearly a normal distribution
SPREAD = math.sqrt(BYTES * (256**2 - 1) / 12)  # its standard deviation


def sticker(image: Image.Image, step: Step) -> Image.Image:
    """Emoji and other stickers drawn onto the image."""
    image = image.copy()
    canvas = ImageDraw.Draw(image)
    side = max(3, round(step["size"] * min(image.size)))
    for drawn in step["stickers"]:
        left, top = round(drawn["x"] * (image.width - side)), round(drawn["y"] * (image.height - side))
        _STICKERS[drawn["sticker"]](canvas, left, top, side)
    return image


def _smile(canvas: ImageDraw.ImageDraw, left: int, top: int, side: int) -> None:
    _face(canvas, left, top, side)
    mouth = (left + 0.22 * side, top + 0.25 * side, left + 0.78 * side, top + 0.8 * side)
    canvas.arc(mouth, 20, 160, fill=DARK, width=max(1, side // 14))


def _laugh(canvas: ImageDraw.ImageDraw, left: int, top: int, side: int) -> None:
    _face(canvas, left, top, side)
    canvas.chord((left + 0.22 * side, top + 0.3 * side, left + 0.78 * side, top + 0.86 * side), 0, 180, fill=DARK)


def _face(canvas: ImageDraw.ImageDraw, left: int, top: int, side: int) -> None:
    canvas.ellipse((left, top, left + side - 1, top + side - 1), fill=YELLOW)
    for x in (0.28, 0.58):
        canvas.ellipse((left + x * side, top + 0.28 * side, left + (x + 0.13) * side, top + 0.46 * side), fill=DARK)


def _heart(canvas: ImageDraw.ImageDraw, left: int, top: int, side: int) -> None:
    for x in (0, 0.48):
        canvas.ellipse((left + x * side, top, left + (x + 0.52) * side, top + 0.56 * side), fill=RED)
    corners = [(0.03, 0.36), (0.97, 0.36), (0.5, 1)]
    canvas.polygon([(left + x * side, top + y * side) for x, y in corners], fill=RED)


def _star(canvas: ImageDraw.ImageDraw, left: int, top: int, side: int) -> None:
    middle = side / 2
    points = [
        (left + middle + radius * math.sin(angle), top + middle - radius * math.cos(angle))
        for corner in range(10)
        for angle, radius in [(math.pi * corner / 5, middle if corner % 2 == 0 else middle * 0.45)]
    ]
    canvas.polygon(points, fill=YELLOW, outline=DARK)


def _bubble(canvas: ImageDraw.ImageDraw, left: int, top: int, side: int) -> None:
    canvas.ellipse((left, top, left + side - 1, top + 0.75 * side), fill=WHITE, outline=DARK)
    canvas.polygon([(left + x * side, top + y * side) for x, y in ((0.2, 0.66), (0.45, 0.7), (0.15, 1))], fill=WHITE)
    for x in (0.25, 0.46, 0.67):
        canvas.ellipse((left + x * side, top + 0.33 * side, left + (x + 0.09) * side, top + 0.42 * side), fill=DARK)


_STICKERS: dict[str, Callable[[ImageDraw.ImageDraw, int, int, int], None]] = {
    "smile": _smile,
    "laugh": _laugh,
    "heart": _heart,
    "star": _star,
    "bubble": _bubble,
}


def screenshot(image: Image.Image, step: Step) -> Image.Image:
    """The image in the middle of a phone's screen: status bar, a caption below, and the bar at the bottom."""
    height = max(image.height + 3, round(image.height / step["covers"]))
    back, front = ((18, 18, 20), (235, 235, 240)) if step["dark"] else (WHITE, (20, 20, 24))
    screen = Image.new("RGB", (image.width, height), back)
    top = round(step["y"] * (height - image.height))
    screen.paste(image, (0, top))
    canvas = ImageDraw.Draw(screen)
    bar = max(1, round(0.05 * max(screen.size)))
    canvas.rectangle((0, 0, screen.width, bar), fill=back)  # the system draws its bars over everything
    letters = font(max(SMALLEST_LETTERS, round(0.6 * bar)))
    canvas.text((bar // 2, bar // 6), f"{step['hour']}:{step['minute']:02d}", fill=front, font=letters)
    right = screen.width - bar
    canvas.rectangle((right - bar // 2, bar // 3, right + bar // 3, bar - bar // 3), outline=front)  # battery
    level = right - bar // 2 + round(step["battery"] * (bar // 2 + bar // 3))
    canvas.rectangle((right - bar // 2, bar // 3, level, bar - bar // 3), fill=front)
    for strength in range(1, 5):  # reception
        x = right - 2 * bar + strength * bar // 4
        canvas.rectangle((x, bar - bar // 4 - strength * bar // 8, x + bar // 8, bar - bar // 4), fill=front)
    words = fitting(step["words"], letters, max(1, image.width - bar))
    canvas.text((bar // 2, top + image.height + bar // 4), words, fill=front, font=letters)
    canvas.rectangle((screen.width * 0.35, height - bar // 3, screen.width * 0.65, height - bar // 5), fill=front)
    return screen


def perspective(image: Image.Image, step: Step) -> Image.Image:
    """A photograph of the image on a screen: seen at an angle, with the screen's rows of pixels as faint lines."""
    pixels = np.asarray(image).astype(np.float32)
    pixels[::3] *= 1 - step["lines"]
    screen = Image.fromarray(np.round(pixels).astype(np.uint8))
    width, height = image.size
    corners = [(0, 0), (width, 0), (width, height), (0, height)]
    moved = [
        (
            x + (1 if x == 0 else -1) * inward[0] * step["tilt"] * width,
            y + (1 if y == 0 else -1) * inward[1] * step["tilt"] * height,
        )
        for (x, y), inward in zip(corners, step["corners"], strict=True)
    ]
    coefficients = _homography(moved, corners)
    return screen.transform(
        image.size, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BICUBIC, fillcolor=BEZEL
    )


def _homography(output: list[tuple[float, float]], source: list[tuple[int, int]]) -> list[float]:
    """The eight coefficients that map each corner of the output to that of the source, as ``Image.transform`` takes."""
    rows, values = [], list[float]()
    for (x, y), (u, v) in zip(output, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    solved: list[float] = np.linalg.solve(np.array(rows, np.float64), np.array(values, np.float64)).tolist()
    return solved


def noise(image: Image.Image, step: Step) -> Image.Image:
    """Noise as of a photograph in the dark, another value for each pixel and color."""
    pixels = np.asarray(image).astype(np.float32)
    # bits of a generator, whose sequence NumPy guarantees, unlike that of normal numbers
    raw = np.random.PCG64(step["seed"]).random_raw(-(-pixels.size * BYTES // 8)).astype("<u8").view(np.uint8)
    sums = raw[: pixels.size * BYTES].reshape(-1, BYTES).sum(axis=1, dtype=np.int64) - BYTES * 255 / 2
    noisy = pixels + (sums * (step["spread"] / SPREAD)).reshape(pixels.shape)
    return Image.fromarray(np.clip(np.round(noisy), 0, 255).astype(np.uint8))


def pixelate(image: Image.Image, step: Step) -> Image.Image:
    """Squares of one color each."""
    cell = max(2, round(step["cell"] * min(image.size)))
    small = (max(1, image.width // cell), max(1, image.height // cell))
    return image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.NEAREST)


def collage(image: Image.Image, step: Step, background: Image.Image | None) -> Image.Image:
    """The image as one of several in a grid; the others are parts of ``background``, or of plain colors."""
    columns = math.ceil(math.sqrt(step["tiles"]))
    rows = math.ceil(step["tiles"] / columns)
    gap = max(1, round(0.02 * max(image.size)))
    size = (columns * (image.width + gap) + gap, rows * (image.height + gap) + gap)
    canvas = Image.new("RGB", size, WHITE)
    own = int(step["place"] * step["tiles"])
    for number in range(step["tiles"]):
        row, column = divmod(number, columns)
        place = (gap + column * (image.width + gap), gap + row * (image.height + gap))
        canvas.paste(image if number == own else _neighbor(image.size, step["others"][number], background), place)
    return canvas


def _neighbor(size: tuple[int, int], drawn: dict[str, Any], background: Image.Image | None) -> Image.Image:
    if background is None:
        return Image.new("RGB", size, rgb(drawn["color"]))
    width, height = max(1, background.width // 2), max(1, background.height // 2)
    left, top = round(drawn["x"] * (background.width - width)), round(drawn["y"] * (background.height - height))
    return ImageOps.fit(background.crop((left, top, left + width, top + height)), size)


def webp(image: Image.Image, step: Step) -> Image.Image:
    """Saved as WebP."""
    return _saved(image, "WEBP", quality=step["quality"], method=4)


def avif(image: Image.Image, step: Step) -> Image.Image:
    """Saved as AVIF. Raises LookalikeError where this installation of Pillow cannot."""
    if not features.check("avif"):
        raise LookalikeError(
            "operations: this installation of Pillow cannot write AVIF. Install Pillow from PyPI, or remove avif."
        )
    return _saved(image, "AVIF", quality=step["quality"], speed=8, max_threads=1)


def _saved(image: Image.Image, kind: str, **settings: Any) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **settings)
    return Image.open(buffer).convert("RGB")


def meme(image: Image.Image, step: Step) -> Image.Image:
    """A border with large letters above the image, and often one below."""
    border = max(SMALLEST_LETTERS, round(step["border"] * image.height))
    back, front = ((0, 0, 0), WHITE) if step["dark"] else (WHITE, (0, 0, 0))
    canvas = Image.new("RGB", (image.width, image.height + border * len(step["words"])), back)
    canvas.paste(image, (0, border))
    draw = ImageDraw.Draw(canvas)
    letters = font(max(SMALLEST_LETTERS, round(0.6 * border)))
    for line, words in enumerate(step["words"]):
        text = fitting([word.upper() for word in words], letters, image.width)
        left = max(0, round((image.width - letters.getlength(text)) / 2))
        draw.text((left, line * (border + image.height) + border // 8), text, fill=front, font=letters)
    return canvas
