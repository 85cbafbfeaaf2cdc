"""A made phone folder: four shots of every scene, re-saved copies of some, screenshots of others.

Shots of one scene overlap, but differ in frame, zoom, angle and light, and things move between them; scenes share a
few coarse layouts. So a grey thumbnail confuses scenes, and a network confuses shots of one. Every query is an altered
copy of one shot, and only that shot is its true match: the other shots, and a re-saved copy, are what makes such a
folder hard to judge.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

SHOTS = 4
CANVAS = (1000, 780)  # of a scene
SHOT = (400, 300)  # of a shot; width, height
LAYOUTS = 5  # that scenes share
MOVING = 3  # things in a shot that others of its scene do not have

Pen = ImageDraw.ImageDraw


@dataclass(frozen=True)
class PhoneFolder:
    """The folders and tables of a data set of the kind `folder`, and what its images are.

    scenes: image id -> scene, of all references and queries
    same: groups of references that are one image: a shot with its re-saved copy
    """

    root: Path
    queries: Path
    truth: Path
    about: Path
    scenes: dict[str, str]
    same: list[set[str]]

    def entry(self) -> dict[str, str]:
        """Its entry under `datasets:`, without the column of scenes."""
        return {"kind": "folder", "root": str(self.root), "queries": str(self.queries), "truth": str(self.truth)}


def make(folder: Path, scenes: int = 20, seed: int = 0) -> PhoneFolder:
    """Write a phone folder: of each scene SHOTS references, a copy of one or a screenshot of one, and two queries."""
    root, queries = folder / "photos", folder / "queries"
    of: dict[str, str] = {}
    same: list[set[str]] = []
    pairs: list[tuple[str, str]] = []
    for number in range(scenes):
        scene = f"scene{number:03d}"
        draw = np.random.default_rng([seed, number])
        canvas = scene_canvas(draw)
        shots = {f"{scene}-{shot}.jpg": take_shot(canvas, draw) for shot in range(SHOTS)}
        extra = f"{scene}-resaved.jpg" if number % 2 else f"{scene}-screen.png"
        first = shots[f"{scene}-0.jpg"]
        files = {**shots, extra: resave(first) if number % 2 else screenshot(first, draw)}
        if number % 2:
            same.append({f"{scene}-0.jpg", extra})
        altered_shots = {f"q-{scene}-{shot}.jpg": altered(shots[f"{scene}-{shot}.jpg"], draw) for shot in (0, 2)}
        for image_id, image in files.items():
            _save(image, root / image_id)
        for image_id, image in altered_shots.items():
            _save(image, queries / image_id)
            pairs.append((image_id, image_id.removeprefix("q-")))
        of |= dict.fromkeys([*files, *altered_shots], scene)
    truth = _table(folder / "truth.csv", ("query_id", "reference_id"), pairs)
    about = _table(folder / "about.csv", ("image_id", "scene"), list(of.items()))
    return PhoneFolder(root, queries, truth, about, of, same)


def scene_canvas(draw: np.random.Generator) -> Image.Image:
    """A scene: one of a few LAYOUTS, as many photographs share (bright above, dark below), and things of its own."""
    width, height = CANVAS
    across, down = np.linspace(0, 1, width)[None, :], np.linspace(0, 1, height)[:, None]
    layout = np.random.default_rng([99, int(draw.integers(LAYOUTS))])
    horizon, slope, vignette = layout.uniform(0.3, 0.65), layout.uniform(-1, 1), layout.uniform(0, 2)
    light = np.where(down < horizon, 1.0, -0.6) + (down - horizon) * slope
    light = light - vignette * ((across - 0.5) ** 2 + (down - 0.5) ** 2)
    pixels = 60 * light[..., None] * layout.uniform(0.6, 1, 3)
    for cells, amount in ((4, 45), (12, 27), (70, 14), (300, 14)):
        noise = draw.integers(0, 256, (cells * 3 // 4 + 1, cells, 3)).astype(np.uint8)
        layer = np.asarray(Image.fromarray(noise).resize(CANVAS, Image.Resampling.BICUBIC), float)
        pixels += amount * (layer / 255 - 0.5)
    canvas = Image.fromarray(np.clip(pixels + draw.uniform(100, 150, 3), 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(canvas)
    palette, shapes = _palette(draw), draw.choice(len(SHAPES), 3, replace=False)
    for _ in range(60):
        place = (float(draw.uniform(0, width)), float(draw.uniform(0, height)))
        size = float(draw.gamma(2.5, 14)) + 8
        SHAPES[int(draw.choice(shapes))](pen, draw, place, size, palette)
    return canvas


Color = tuple[int, int, int]
Place = tuple[float, float]


def _palette(draw: np.random.Generator) -> list[Color]:
    return [(int(red), int(green), int(blue)) for red, green, blue in draw.integers(0, 256, (4, 3))]


def _one_of(draw: np.random.Generator, palette: list[Color]) -> Color:
    return palette[int(draw.integers(len(palette)))]


def _box(place: Place, wide: float, high: float) -> tuple[float, float, float, float]:
    return (place[0] - wide, place[1] - high, place[0] + wide, place[1] + high)


def _ellipse(pen: Pen, draw: np.random.Generator, place: Place, size: float, palette: list[Color]) -> None:
    pen.ellipse(_box(place, size, size * 0.7), fill=_one_of(draw, palette))


def _block(pen: Pen, draw: np.random.Generator, place: Place, size: float, palette: list[Color]) -> None:
    pen.rectangle(_box(place, size, size * 0.8), fill=_one_of(draw, palette))


def _polygon(pen: Pen, draw: np.random.Generator, place: Place, size: float, palette: list[Color]) -> None:
    turns = np.linspace(0, 2 * np.pi, int(draw.integers(4, 9)))[:-1]
    corners = [
        (
            place[0] + size * np.cos(turn) * draw.uniform(0.4, 1.3),
            place[1] + size * np.sin(turn) * draw.uniform(0.4, 1.3),
        )
        for turn in turns
    ]
    pen.polygon(corners, fill=_one_of(draw, palette))


def _stripes(pen: Pen, draw: np.random.Generator, place: Place, size: float, palette: list[Color]) -> None:
    color = _one_of(draw, palette)
    for stripe in range(-2, 3):
        pen.rectangle(_box((place[0] + stripe * size * 0.4, place[1]), size * 0.1, size), fill=color)


def _dots(pen: Pen, draw: np.random.Generator, place: Place, size: float, palette: list[Color]) -> None:
    color = _one_of(draw, palette)
    for across in (-1, 0, 1):
        for down in (-1, 0, 1):
            middle = (place[0] + across * size * 0.6, place[1] + down * size * 0.6)
            pen.ellipse(_box(middle, size * 0.2, size * 0.2), fill=color)


def _letters(pen: Pen, draw: np.random.Generator, place: Place, size: float, palette: list[Color]) -> None:
    word = "".join(chr(int(code)) for code in draw.integers(65, 91, 5))
    pen.text((place[0] - size, place[1] - size / 2), word, fill=_one_of(draw, palette), font_size=max(12, size))


def _rings(pen: Pen, draw: np.random.Generator, place: Place, size: float, palette: list[Color]) -> None:
    for share in (1, 0.75, 0.5, 0.25):
        pen.ellipse(_box(place, size * share, size * share), fill=_one_of(draw, palette))


SHAPES = (_ellipse, _block, _polygon, _stripes, _dots, _letters, _rings)


def take_shot(canvas: Image.Image, draw: np.random.Generator, shift: float = 0.5) -> Image.Image:
    """One shot of a scene: its own frame, zoom, angle, perspective and light, and things that moved meanwhile.

    ``shift`` is how far frames of one scene may be apart, as a share of the free space around them.
    """
    (width, height), (wide, high) = canvas.size, SHOT
    canvas = canvas.copy()
    for _ in range(MOVING):
        place = (float(draw.uniform(0.2, 0.8) * width), float(draw.uniform(0.2, 0.8) * height))
        thing = SHAPES[int(draw.integers(len(SHAPES)))]
        thing(ImageDraw.Draw(canvas), draw, place, float(draw.uniform(35, 75)), _palette(draw))
    zoom = float(draw.uniform(1.0, 1.6))
    free = np.array([width - wide * zoom - 80, height - high * zoom - 80]) / 2
    x, y = 40 + free + free * draw.uniform(-shift, shift, 2)
    turn = np.deg2rad(draw.uniform(-7, 7))
    middle = np.array([x + wide * zoom / 2, y + high * zoom / 2])
    corners = np.array([(-wide, -high), (-wide, high), (wide, high), (wide, -high)]) / 2 * zoom
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    quad = middle + corners @ rotation.T + draw.uniform(-14, 14, (4, 2))
    shot = canvas.transform(SHOT, Image.Transform.QUAD, tuple(quad.ravel()), Image.Resampling.BICUBIC)
    pixels = np.asarray(shot, float) / 255
    pixels = pixels ** draw.uniform(0.7, 1.4) * draw.uniform(0.85, 1.12) * draw.uniform(0.94, 1.06, 3)
    pixels += draw.normal(0, 0.01, pixels.shape)
    return Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8))


def resave(image: Image.Image, quality: int = 55) -> Image.Image:
    """As a messenger passes it on: smaller, and compressed again."""
    return compressed(image.resize((image.width * 3 // 4, image.height * 3 // 4), Image.Resampling.LANCZOS), quality)


def compressed(image: Image.Image, quality: int, format: str = "JPEG") -> Image.Image:
    """An image as it comes out of a compressed file."""
    file = io.BytesIO()
    image.save(file, format, quality=quality)
    return Image.open(file).convert("RGB")


def screenshot(image: Image.Image, draw: np.random.Generator) -> Image.Image:
    """The image on the screen of a phone, upright between a status bar and buttons."""
    width, height = 300, 560
    dark = bool(draw.random() < 0.5)
    screen = Image.new("RGB", (width, height), (16, 16, 18) if dark else (245, 245, 247))
    shown = image.resize((width, width * image.height // image.width), Image.Resampling.LANCZOS)
    screen.paste(shown, (0, (height - shown.height) // 2))
    pen = ImageDraw.Draw(screen)
    ink = (230, 230, 230) if dark else (30, 30, 30)
    pen.text((14, 6), f"{draw.integers(0, 24):02d}:{draw.integers(0, 60):02d}", fill=ink, font_size=14)
    pen.rectangle((width - 40, 9, width - 16, 19), outline=ink)
    for button in range(4):
        pen.ellipse((30 + 70 * button, height - 44, 52 + 70 * button, height - 22), outline=ink, width=2)
    return screen


def altered(image: Image.Image, draw: np.random.Generator) -> Image.Image:
    """A query: a shot cropped, in other light, somewhat blurred, and compressed again."""
    share = float(draw.uniform(0.6, 0.9))
    wide, high = int(image.width * share), int(image.height * share)
    x, y = int(draw.integers(0, image.width - wide)), int(draw.integers(0, image.height - high))
    crop = image.crop((x, y, x + wide, y + high))
    crop = ImageEnhance.Brightness(crop).enhance(float(draw.uniform(0.7, 1.3)))
    crop = ImageEnhance.Color(crop).enhance(float(draw.uniform(0.5, 1.4)))
    crop = crop.filter(ImageFilter.GaussianBlur(float(draw.uniform(0, 0.8))))
    return compressed(crop, int(draw.integers(45, 80)))


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=90)


def _table(path: Path, header: tuple[str, str], rows: list[tuple[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path
