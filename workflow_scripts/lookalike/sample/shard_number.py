"""Which shard an image belongs to: also that of the archive, where a run makes the image itself."""

import hashlib


def shard_of(image_id: str, count: int) -> int:
    """The number of the shard that an image belongs to: ``sha256(image_id) mod count``.

    It depends on nothing else, so a growing data set changes only the shards of its new pictures.
    """
    return int.from_bytes(hashlib.sha256(image_id.encode()).digest()) % count
