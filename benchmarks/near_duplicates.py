"""How complete and how precise the search for near-duplicates is, on copies made of photographs that packages carry.

The photographs of scikit-image and scikit-learn are cut into tiles that do not overlap; neighboring tiles of grass,
bricks or a page of text look much alike and are different images. Of each tile one copy of every kind is made. A pair
is right if both images were made from one tile. Screenshots and crops show other pixels too: they count as right where
they are found, and completeness says how often.

    python benchmarks/near_duplicates.py --side 160
    python benchmarks/near_duplicates.py --simulated 150000   # time and memory: noise with the spectrum of photographs
"""

import argparse
import io
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow_scripts"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

from lookalike.io import in_work
from lookalike.sample import photo_tiles
from lookalike.sample.near_duplicates.groups import same_images, stars
from lookalike.sample.near_duplicates.signatures import SIDE, Bytes, joined, sign, thumbnail
from phone_folder import compressed, screenshot

Make = Callable[[Image.Image], Image.Image]


def resized(image: Image.Image, share: float) -> Image.Image:
    """The image with its sides multiplied by ``share``."""
    return image.resize((round(image.width * share), round(image.height * share)), Image.Resampling.LANCZOS)


def cropped(image: Image.Image, share: float) -> Image.Image:
    """The image without ``share`` of its width and height, half of it on each side."""
    x, y = image.width * share / 2, image.height * share / 2
    return image.crop((round(x), round(y), round(image.width - x), round(image.height - y)))


def captioned(image: Image.Image) -> Image.Image:
    """The image with a line of text over its lower edge."""
    copy = image.copy()
    text = ImageDraw.Draw(copy)
    text.text((image.width * 0.08, image.height * 0.85), "Happy birthday!", fill="white", font_size=image.height // 10)
    return copy


def heic(image: Image.Image) -> Image.Image | None:
    """The image as a phone saves it; None without pillow-heif."""
    try:
        import pillow_heif
    except ImportError:
        return None
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, quality=60)
    return pillow_heif.open_heif(file).to_pillow().convert("RGB")


KINDS: dict[str, Make] = {
    "JPEG, quality 30": lambda image: compressed(image, 30),
    "JPEG, quality 60, half the size": lambda image: compressed(resized(image, 0.5), 60),
    "resized to a quarter": lambda image: resized(image, 0.25),
    "WebP, quality 50": lambda image: compressed(image, 50, "WEBP"),
    "AVIF, quality 50": lambda image: compressed(image, 50, "AVIF"),
    "HEIC, quality 60": lambda image: heic(image) or image,
    "turned by 90° (lost EXIF)": lambda image: compressed(image.transpose(Image.Transpose.ROTATE_90), 80),
    "turned by 180°": lambda image: compressed(image.transpose(Image.Transpose.ROTATE_180), 80),
    "mirrored": lambda image: compressed(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 80),
    "caption": captioned,
    "2 % crop": lambda image: compressed(cropped(image, 0.02), 85),
    "5 % crop": lambda image: compressed(cropped(image, 0.05), 85),
    "10 % crop": lambda image: compressed(cropped(image, 0.10), 85),
    "screenshot": lambda image: screenshot(image, np.random.default_rng(image.width)),
}


COPIED = 20  # one of so many simulated images is a copy
AT_ONCE = 1 << 10  # as the stage signs them


def noise(count: int, random: np.random.Generator) -> Bytes:
    """(count, SIDE, SIDE, 3) uint8: thumbnails whose amplitudes fall with the frequency; the last are copies."""
    waves = 16
    basis = np.cos(np.pi / SIDE * np.arange(waves)[:, None] * (np.arange(SIDE) + 0.5)).astype(np.float32)
    frequency = np.hypot(*np.meshgrid(np.arange(waves), np.arange(waves))).astype(np.float32)
    frequency[0, 0] = np.inf  # the mean is set below
    small = np.empty((count, SIDE, SIDE, 3), np.uint8)
    for band, contrast in enumerate((45, 12, 12)):
        weights = random.standard_normal((count, waves, waves), np.float32) / frequency
        values = basis.T @ weights @ basis
        values *= contrast / values.std(axis=(1, 2), keepdims=True)
        small[..., band] = np.clip(128 + values, 0, 255)
    copied = count // COPIED
    shaken = small[:copied] + random.integers(-3, 4, small[:copied].shape)
    small[count - copied :] = np.clip(shaken, 0, 255)
    return small


def simulated(count: int) -> None:
    """Print the time and memory of grouping many images; decoding is not part of it."""
    random = np.random.default_rng(0)
    started = time.perf_counter()
    parts, made = [], 0.0
    for start in range(0, count, AT_ONCE):
        begun = time.perf_counter()
        small = noise(min(AT_ONCE, count - start), random)
        made += time.perf_counter() - begun
        parts.append(sign(small))
    signatures = joined(parts)
    signed = time.perf_counter()
    found = same_images(signatures)
    searched = time.perf_counter()
    stars(found.pairs, count)
    print(
        f"{count:,} images, {len(signatures.image):,} orientations: signatures {signed - started - made:.0f} s, search "
        f"{searched - signed:.0f} s, groups {time.perf_counter() - searched:.1f} s; {len(found.pairs):,} pairs of "
        f"{count // COPIED:,} copies; {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB"
    )


def copied_tiles(side: int) -> None:
    """Make the copies of tiles, search, and print the table."""
    tiles = [
        tile
        for carrier in photo_tiles.CARRIERS
        for name in carrier.photographs
        for _, _, tile in photo_tiles._tiles(
            photo_tiles._read(carrier, photo_tiles._folder(carrier), name, in_work.Guard()), side
        )
        if np.asarray(tile.convert("L")).std() >= photo_tiles.FLAT
    ]
    started = time.perf_counter()
    versions = {"original": tiles} | {name: [make(tile) for tile in tiles] for name, make in KINDS.items()}
    made = time.perf_counter()
    signatures = joined([sign(np.stack([thumbnail(image) for image in images])) for images in versions.values()])
    signed = time.perf_counter()
    pairs = same_images(signatures).pairs
    searched = time.perf_counter()
    right = pairs[:, 0] % len(tiles) == pairs[:, 1] % len(tiles)
    group = stars(pairs, len(signatures.grey))
    in_group = np.flatnonzero(group >= 0)
    stray = int((in_group % len(tiles) != group[in_group] % len(tiles)).sum())

    table = Table("copy", "found", title=f"{len(tiles):,} tiles of {side} px, {len(signatures.grey):,} images")
    found = pairs[right & (pairs[:, 0] < len(tiles))][:, 1] // len(tiles)
    for number, name in enumerate(versions):
        if number and not (name.startswith("HEIC") and heic(tiles[0]) is None):
            table.add_row(name, f"{(found == number).mean() * len(found) / len(tiles):.1%}")
    console = Console()
    console.print(table)
    console.print(
        f"precision of pairs: {right.mean():.2%} ({right.sum():,} of {len(pairs):,}); of {len(in_group):,} images in "
        f"groups, {stray} are in one of another tile. Flat: {signatures.flat.sum()}. Orientations looked up per image: "
        f"{len(signatures.image) / len(signatures.grey):.2f}. "
        f"Seconds: copies {made - started:.1f}, signatures {signed - made:.1f}, search {searched - signed:.1f}"
    )
    for one, other in pairs[~right][:12]:
        console.print(f"  wrong: {one} {other}")


def main() -> None:
    """Measure what was chosen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=160, help="side of a tile in pixels")
    parser.add_argument("--simulated", type=int, default=0, help="number of simulated images, instead of tiles")
    options = parser.parse_args()
    if options.simulated:
        simulated(options.simulated)
    else:
        copied_tiles(options.side)


if __name__ == "__main__":
    main()
