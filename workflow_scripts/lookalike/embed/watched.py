"""An encoder that shows every image that it prepares to somebody else, so that nobody has to decode it again."""

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from lookalike.embed import encoders


class Watched:
    """Computes as ``encoder`` does. ``see`` is called with each decoded image, from the thread that read its file."""

    take = None  # every image is decoded, so that it can be shown

    def __init__(self, encoder: encoders.Encoder, see: Callable[[Image.Image], None]) -> None:
        self._encoder, self._see = encoder, see

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def prepare(self, image: Image.Image) -> NDArray[Any]:
        """Convert one RGB image to an array."""
        self._see(image)
        return self._encoder.prepare(image)
