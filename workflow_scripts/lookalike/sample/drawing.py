"""What several operations on images share: colors, letters, sizes, and saving as another format."""

import io

from PIL import Image, ImageFont

Color = tuple[int, int, int]

SMALLEST_LETTERS = 6  # pixels; smaller ones cannot be read


def rgb(color: list[int]) -> Color:
    """A drawn color as Pillow takes it."""
    red, green, blue = color
    return red, green, blue


def scaled_down(image: Image.Image, max_side: int) -> Image.Image:
    """The image, with its longer side no longer than ``max_side`` pixels."""
    if max(image.size) <= max_side:
        return image
    scale = max_side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def as_jpeg(image: Image.Image, quality: int, *, full_color: bool) -> bytes:
    """The image as a JPEG file; ``full_color`` stores the color of every pixel (4:4:4), not of one in four."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality, subsampling=0 if full_color else 2)
    return buffer.getvalue()


def font(size: int) -> ImageFont.FreeTypeFont:
    """Aileron, which Pillow ships, so that a copy never depends on the fonts of a machine."""
    loaded = ImageFont.load_default(size=size)
    assert isinstance(loaded, ImageFont.FreeTypeFont)
    return loaded


def fitting(words: list[str], letters: ImageFont.FreeTypeFont, width: int) -> str:
    """As many words as fit into the width, and at least one."""
    line = words[0]
    for word in words[1:]:
        if letters.getlength(f"{line} {word}") > width:
            break
        line += f" {word}"
    return line
