"""Images in the zip and tar archives of a folder, such as WebDataset's shards, and the captions beside them there."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from lookalike.io import archives
from lookalike.io.archives import ArchiveError, Member
from lookalike.io.extensions import EXTENSIONS
from lookalike.job.errors import LookalikeError
from lookalike.sample import left_out
from lookalike.sample.left_out import LeftOut

CAPTIONS = (".txt", ".json")  # the first that an image has beside it is its caption
KEYS = ("caption", "captions", "text")  # of such a JSON file
LONGEST = 1 << 20  # bytes of a caption's file


@dataclass
class Inside:
    """What is known of images in archives, by id: the path (``some.tar!member``) of each, captions of some."""

    paths: dict[str, str] = field(default_factory=dict)
    captions: dict[str, list[str]] = field(default_factory=dict)


def images_of(archive: str, name: str, where: str, inside: Inside, odd: LeftOut) -> Iterator[tuple[str, int]]:
    """Yield id (``some.tar/member``) and size of an archive's images; fill ``inside``, and count the rest in ``odd``.

    ``name`` is the archive's path in its folder; an archive without images counts as one file. Raises LookalikeError
    for an archive that cannot be read: nobody could say how many images are missing.
    """
    try:
        members = archives.members(archive)
    except ArchiveError as error:
        raise LookalikeError(f"{where}: the archive '{archive}' {error}, or move it out of the folder.") from None
    if not any(member.name.lower().endswith(EXTENSIONS) for member in members):
        odd.add("archives that hold no images", name)
        return
    images, others = dict[str, Member](), dict[str, Member]()
    for member in left_out.kept(name, _each_once(name, members, odd), odd):
        (images if member.name.lower().endswith(EXTENSIONS) else others)[member.name] = member
    used = set[str]()
    for member_name, member in images.items():
        image_id = f"{name}/{member_name}"
        inside.paths[image_id] = f"{name}!{member_name}"
        if beside := _beside(member_name, others):
            used.add(beside)
            try:
                inside.captions[image_id] = _captions(archive, others[beside])
            except (ArchiveError, ValueError, RecursionError):
                odd.add("files beside images in archives that hold no caption", f"{name}!{beside}")
        yield image_id, member.bytes
    for member_name in [one for one in others if one not in used]:
        odd.add_extension(f"{name}!{member_name}")


def _each_once(name: str, members: list[Member], odd: LeftOut) -> Iterator[Member]:
    """The members that can be told apart by name, and whose names make a path inside the archive."""
    counts = Counter(member.name for member in members)
    for member in members:
        path = PurePosixPath(member.name)
        if counts[member.name] > 1:
            odd.add("members of archives with the same name as another one there", f"{name}!{member.name}")
        elif path.is_absolute() or ".." in path.parts:
            odd.add("members of archives whose names lead out of it", f"{name}!{member.name}")
        else:
            yield member


def _beside(image: str, others: dict[str, Member]) -> str:
    """The file with an image's caption, as WebDataset pairs them: the same name up to the first dot, or the last."""
    folder, slash, base = image.rpartition("/")
    for stem in dict.fromkeys((base.rpartition(".")[0], base.partition(".")[0])):
        for ending in CAPTIONS:
            if (path := f"{folder}{slash}{stem}{ending}") in others:
                return path
    return ""


def _captions(archive: str, member: Member) -> list[str]:
    """Raises ValueError, among others, for a file that holds none."""
    if member.bytes > LONGEST:
        raise ValueError("too long for a caption")
    text = archives.read(archive, member.name).decode("utf-8-sig")
    found: object = text
    if member.name.endswith(".json"):
        content = json.loads(text)
        found = next((content[key] for key in KEYS if key in content), None) if isinstance(content, dict) else None
    texts = [one.strip() for one in (found if isinstance(found, list) else [found]) if isinstance(one, str)]
    if not any(texts):
        raise ValueError("no caption")
    return [one for one in texts if one]
