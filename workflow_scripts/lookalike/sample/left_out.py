"""Files in a data set's folders that are not among its images: counted by reason, never skipped silently."""

import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

from lookalike.io.archives import COMPRESSED, Member

EXAMPLES = 3
MOST_EXTENSIONS = 40  # that are counted each; names such as `scan.0001` must not make a reason of every file

# Files and folders that a program keeps beside the images, in lower case, and what they are. What a folder holds would
# be found as copies of the images themselves: smaller ones, deleted ones, or older ones.
SERVICE = {
    "@eadir": "thumbnails that a Synology NAS keeps",
    "#recycle": "the recycle bin of a Synology NAS",
    "#snapshot": "snapshots that a Synology NAS keeps",
    "@recycle": "the recycle bin of a QNAP NAS",
    "@recently-snapshot": "snapshots that a QNAP NAS keeps",
    "@transcode": "smaller versions that a QNAP NAS keeps",
    "~snapshot": "snapshots that a NetApp server keeps",
    "network trash folder": "the trash of a macOS server",
    "temporary items": "temporary files of a macOS server",
    "__macosx": "metadata that macOS puts into zip archives",
    "$recycle.bin": "the recycle bin of Windows",
    "recycler": "the recycle bin of Windows",
    "recycled": "the recycle bin of Windows",
    "system volume information": "a folder of Windows itself",
    "thumbs.db": "thumbnails that Windows keeps",
    "ehthumbs.db": "thumbnails that Windows keeps",
    "desktop.ini": "settings of a folder that Windows keeps",
    "lost+found": "what a check of the disk recovered",
    "thumbnails": "thumbnails, as galleries and photo managers keep them",
    "thumbs": "thumbnails, as galleries and photo managers keep them",
    "thmbnl": "thumbnails that a camera keeps of its videos",
    "files_trashbin": "the trash of Nextcloud",
    "files_versions": "older versions that Nextcloud keeps",
}
BEGINNINGS = {"appdata_": "previews that Nextcloud keeps"}
ENDINGS = {".lrdata": "previews that Lightroom keeps"}
LIBRARIES = (".photoslibrary", ".photolibrary", ".migratedphotolibrary", ".aplibrary")  # of Photos, iPhoto, Aperture
ORIGINALS = ("originals", "masters")  # in such a library; everything else there is derived from them
RAW = (".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".srw")


class LeftOut:
    """Counts and a few examples, by reason."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.examples: dict[str, list[str]] = {}
        self._extensions: set[str] = set()

    def add(self, reason: str, example: str, count: int = 1) -> None:
        """Count one, or more at once."""
        self.counts[reason] = self.counts.get(reason, 0) + count
        if len(examples := self.examples.setdefault(reason, [])) < EXAMPLES:
            examples.append(example)

    def add_extension(self, path: str) -> None:
        """Count a file whose extension is that of no image."""
        if COMPRESSED.fullmatch(path):
            self.add("compressed tar archives, which cannot be read in place (decompress them to use them)", path)
            return
        extension = PurePosixPath(path).suffix.lower()
        usual = re.fullmatch(r"\.[a-z0-9_+-]{1,10}", extension)
        if usual and (extension in self._extensions or len(self._extensions) < MOST_EXTENSIONS):
            self._extensions.add(extension)
            raw = ", which are camera raw (convert them to JPEG to have them)" if extension in RAW else ""
            self.add(f"{extension} files{raw}", path)
        else:
            self.add("files with other extensions" if extension else "files without an extension", path)

    def lines(self) -> list[str]:
        """One line each: ``.txt files: 4, such as a.txt, b.txt, c.txt``, all where there are three."""
        lines = []
        for reason, count in self.counts.items():
            some = "such as " if count > len(self.examples[reason]) else ""
            lines.append(f"{reason}: {count:,}, {some}{', '.join(self.examples[reason])}")
        return lines

    def rows(self, folder: str) -> list[dict[str, Any]]:
        """The same as plain data, for a footer; ``folder`` says where."""
        return [
            {"folder": folder, "reason": reason, "count": count, "examples": self.examples[reason]}
            for reason, count in self.counts.items()
        ]


def why(name: str, parent: str = "") -> str:
    """Why a file or folder of this name, in a folder of the name ``parent``, is none of the images; "" where it may be.

    A folder's reason applies to everything in it.
    """
    lower = name.lower()
    if name.startswith("._"):
        return "metadata that macOS keeps of other files (._*)"
    if name.startswith("."):
        return "hidden files and folders"
    kept = SERVICE.get(lower)
    kept = kept or next((what for ending, what in ENDINGS.items() if lower.endswith(ending)), None)
    kept = kept or next((what for beginning, what in BEGINNINGS.items() if lower.startswith(beginning)), None)
    if not kept and parent.lower().endswith(LIBRARIES) and lower not in ORIGINALS:
        kept = "what a photo library of Apple makes of its originals"
    return f"{kept} ({name})" if kept else ""


def why_path(path: str) -> tuple[str, str]:
    """Of a path in an archive, the first folder or file that is left out, and why; else two empty strings."""
    parent, at = "", 0
    for name in path.split("/"):
        at += len(name) + 1
        if reason := why(name, parent):
            return path[: at - 1], reason
        parent = name
    return "", ""


def kept(archive: str, members: Iterable[Member], odd: LeftOut) -> Iterator[Member]:
    """The members of an archive that may be images; the others are counted in ``odd``, and a folder of them once."""
    last, skipped = "", ("", "")
    counted: set[str] = set()
    for member in members:
        folder, _, name = member.name.rpartition("/")
        if folder != last:
            last, skipped = folder, why_path(folder)
        top, reason = skipped
        if reason:
            place = f"{archive}!{top}/"
        else:
            place = f"{archive}!{member.name}"
            reason = why(name) or ("links, devices and sparse files in archives" if member.special else "")
        if not reason:
            yield member
        elif place not in counted:
            counted.add(place)
            odd.add(reason, place)
