"""Which shard an image belongs to; where a run makes the image itself, also which archive."""

import hashlib


def shard_of(image_id: str, count: int) -> int:
    """The number of the shard that an image belongs to: ``sha256(image_id) mod count``.

    It depends on nothing else, so a growing data set changes only the shards of its new images.
    """
    return int.from_bytes(hashlib.sha256(image_id.encode()).digest()) % count
