"""ICC profiles, built from their definitions: none of another program is copied."""

import struct

import numpy as np

D50 = (0.9642, 1.0, 0.8249)
# Red, green and blue as XYZ, adapted to D50, and the exponent of the tone curve.
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
GAMMA = 2.2


def display_p3() -> bytes:
    """Display P3, with the tone curve of sRGB."""
    return rgb(DISPLAY_P3, SRGB_CURVE)


def adobe_rgb() -> bytes:
    """Adobe RGB (1998)."""
    return rgb(ADOBE_RGB, _power(2.19921875))


def srgb() -> bytes:
    """sRGB by another name, as cameras and programs write it."""
    return rgb(SRGB, SRGB_CURVE)


def rgb(primaries: tuple[tuple[float, float, float], ...], curve: bytes) -> bytes:
    """A profile of three primaries and a tone curve."""
    tags = {
        b"wtpt": _xyz(D50),
        **{name: _xyz(one) for name, one in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)},
    }
    return _profile(b"RGB ", b"XYZ ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


def grey(gamma: float) -> bytes:
    """A profile for images in grey."""
    return _profile(b"GRAY", b"XYZ ", {b"wtpt": _xyz(D50), b"kTRC": _power(gamma)})


def cmyk() -> bytes:
    """A press whose inks multiply: each takes away 80 % of one of red, green and blue, and black 95 % of all."""
    nodes = np.stack(np.meshgrid(*[[0.0, 1.0]] * 4, indexing="ij"), -1).reshape(-1, 4)
    linear = (1 - 0.8 * nodes[:, :3]) * (1 - 0.95 * nodes[:, 3:])
    lab = _lab(linear @ np.array(SRGB))
    table = np.clip(np.stack([lab[:, 0] * 2.55, lab[:, 1] + 128, lab[:, 2] + 128], 1), 0, 255).round().astype(np.uint8)
    identity = bytes(range(256))
    unit = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + unit + identity * 4 + table.tobytes() + identity * 3
    return _profile(b"CMYK", b"Lab ", {b"wtpt": _xyz(D50), b"A2B0": lut, b"A2B1": lut}, kind=b"prtr")


def _lab(xyz: np.ndarray) -> np.ndarray:
    ratio = xyz / np.array(D50)
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(_fixed(value) for value in values)


def _power(gamma: float) -> bytes:
    return b"para" + bytes(4) + struct.pack(">HH", 0, 0) + _fixed(gamma)


SRGB_CURVE = (
    b"para"
    + bytes(4)
    + struct.pack(">HH", 3, 0)
    + b"".join(map(_fixed, (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)))
)


def _profile(space: bytes, connection: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr") -> bytes:
    table, data, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(data), len(content))
        data += content.ljust(-(-len(content) // 4) * 4, b"\0")
    head = struct.pack(
        ">I4sI4s4s4s12s4s", start + len(data), b"test", 0x04300000, kind, space, connection, bytes(12), b"acsp"
    )
    head = head.ljust(68, b"\0") + b"".join(_fixed(value) for value in D50)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data
