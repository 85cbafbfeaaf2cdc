"""The operations on images: one function each, from an image and the drawn numbers to the altered image.

All of them take and return 8-bit RGB images of any size from 1 x 1 pixel, and are pure: every drawn number comes from
the step (``copy_recipes.draw_step``). Lengths are shares of the image's sides, so that a strength means the same for
small and large images.
"""

import colorsys
import io
import math
from collections.abc import Callable

from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from lookalike.sample import everyday_operations as everyday
from lookalike.sample.copy_recipes import Step
from lookalike.sample.drawing import SMALLEST_LETTERS, as_jpeg, fitting, font, rgb, scaled_down

AREA_OF_BOX = {"rectangle": 1.0, "ellipse": math.pi / 4, "triangle": 0.5}  # share of the bounding box that is covered


def apply(image: Image.Image, steps: list[Step], max_side: int, background: Image.Image | None) -> Image.Image:
    """Apply the steps of a recipe; an image that grows beyond ``max_side`` pixels on a side is scaled down at once.

    ``background`` is the image that ``paste`` pastes into and that ``collage`` puts beside; None for plain colors.
    """
    image = scaled_down(image, max_side)
    for step in steps:
        if step["operation"] in _WITH_BACKGROUND:
            image = _WITH_BACKGROUND[step["operation"]](image, step, background)
        else:
            image = _OPERATIONS[step["operation"]](image, step)
        image = scaled_down(image, max_side)
    return image


def _crop(image: Image.Image, step: Step) -> Image.Image:
    side = math.sqrt(step["kept"])
    width, height = max(1, round(image.width * side)), max(1, round(image.height * side))
    left, top = round(step["x"] * (image.width - width)), round(step["y"] * (image.height - height))
    return image.crop((left, top, left + width, top + height))


def _blur(image: Image.Image, step: Step) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(step["radius"] * min(image.size)))


def _jpeg(image: Image.Image, step: Step) -> Image.Image:
    return Image.open(io.BytesIO(as_jpeg(image, step["quality"], full_color=False))).convert("RGB")


def _rotate(image: Image.Image, step: Step) -> Image.Image:
    degrees = -step["degrees"] if step["clockwise"] else step["degrees"]
    return image.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=rgb(step["color"]))


def _color(image: Image.Image, step: Step) -> Image.Image:
    red, green, blue = colorsys.hsv_to_rgb(step["hue"] / 360, 1.0, 1.0)
    tint = Image.new("RGB", image.size, (round(red * 255), round(green * 255), round(blue * 255)))
    return Image.blend(ImageEnhance.Color(image).enhance(step["saturation"]), tint, step["tint"])


def _brightness(image: Image.Image, step: Step) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1 / step["factor"] if step["darker"] else step["factor"])


def _text(image: Image.Image, step: Step) -> Image.Image:
    size = max(SMALLEST_LETTERS, round(step["height"] * min(image.size)))
    letters = font(size)
    outline = max(1, size // 12)
    lines = [fitting(words, letters, image.width - 2 * outline) for words in step["words"]]
    width = max(letters.getlength(line) for line in lines) + 2 * outline
    line_height = round(1.25 * size) + outline
    left = outline + step["x"] * max(0, image.width - width)
    top = outline + step["y"] * max(0, image.height - line_height * len(lines) - outline)
    # an outline of the opposite brightness: the text is visible on any image
    dark = sum(step["color"]) < 3 * 128
    image = image.copy()
    canvas = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        canvas.text(
            (round(left), round(top) + number * line_height),
            line,
            fill=rgb(step["color"]),
            font=letters,
            stroke_width=outline,
            stroke_fill=(255, 255, 255) if dark else (0, 0, 0),
        )
    return image


def _shapes(image: Image.Image, step: Step) -> Image.Image:
    image = image.copy()
    canvas = ImageDraw.Draw(image)
    for shape in step["shapes"]:
        side = math.sqrt(step["covers"] / step["count"] / AREA_OF_BOX[shape["shape"]])
        width, height = max(1, round(image.width * side)), max(1, round(image.height * side))
        left, top = round(shape["x"] * (image.width - width)), round(shape["y"] * (image.height - height))
        right, bottom = left + width - 1, top + height - 1
        color = rgb(shape["color"])
        match shape["shape"]:
            case "rectangle":
                canvas.rectangle((left, top, right, bottom), fill=color)
            case "ellipse":
                canvas.ellipse((left, top, right, bottom), fill=color)
            case "triangle":
                canvas.polygon([(left, bottom), (right, bottom), ((left + right) // 2, top)], fill=color)
    return image


def _flip(image: Image.Image, step: Step) -> Image.Image:
    return ImageOps.mirror(image)


def _grey(image: Image.Image, step: Step) -> Image.Image:
    return ImageOps.grayscale(image).convert("RGB")


def _pad(image: Image.Image, step: Step) -> Image.Image:
    return ImageOps.expand(image, max(1, round(step["border"] * max(image.size))), fill=rgb(step["color"]))


def _paste(image: Image.Image, step: Step, background: Image.Image | None) -> Image.Image:
    side = 1 / math.sqrt(step["covers"])
    size = (max(image.width + 1, round(image.width * side)), max(image.height + 1, round(image.height * side)))
    canvas = ImageOps.fit(background, size) if background else Image.new("RGB", size, rgb(step["color"]))
    left, top = round(step["x"] * (size[0] - image.width)), round(step["y"] * (size[1] - image.height))
    canvas.paste(image, (left, top))
    return canvas


_OPERATIONS: dict[str, Callable[[Image.Image, Step], Image.Image]] = {
    "crop": _crop,
    "blur": _blur,
    "jpeg": _jpeg,
    "rotate": _rotate,
    "color": _color,
    "brightness": _brightness,
    "text": _text,
    "shapes": _shapes,
    "flip": _flip,
    "pad": _pad,
    "grey": _grey,
    "sticker": everyday.sticker,
    "screenshot": everyday.screenshot,
    "perspective": everyday.perspective,
    "noise": everyday.noise,
    "pixelate": everyday.pixelate,
    "webp": everyday.webp,
    "avif": everyday.avif,
    "meme": everyday.meme,
}
_WITH_BACKGROUND: dict[str, Callable[[Image.Image, Step, Image.Image | None], Image.Image]] = {
    "paste": _paste,
    "collage": everyday.collage,
}
