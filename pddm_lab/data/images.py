"""Any image file -> RGB: converts grey, palette, 16-bit and CMYK, puts alpha on white, applies the EXIF orientation.

Files are not trusted (a user's folder, an upload): formats, bytes, pixels and memory are limited before decoding.
"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image, features

from pddm_lab.errors import DataError

PIXEL_CAP = 80_000_000
"""Largest number of pixels: more than any photo in the data sets, and few enough for the memory of a small machine."""
KEPT_PIXELS = 25_000_000
"""A picture with more pixels is read at half its width and height, wherever it comes from."""
UPLOAD_BYTES = 18_000_000
"""Largest upload, in bytes: encoded as base64 it fits into the 25 MB that the dashboard's server accepts at once."""
UPLOAD_MEMORY = 270_000_000
"""Most bytes that an upload may need while it is decoded (`_memory`)."""
_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jfif", ".jpe"), "PNG": (".png",), "WEBP": (".webp",), "GIF": (".gif",),
    "BMP": (".bmp",), "TIFF": (".tif", ".tiff"), "PPM": (".ppm", ".pgm"),
}  # fmt: skip
if features.check("avif"):
    _SUFFIXES["AVIF"] = (".avif",)
with contextlib.suppress(ImportError):  # the extra "heic"
    from pillow_heif import register_heif_opener

    register_heif_opener()
    _SUFFIXES["HEIF"] = (".heic", ".heif")
FORMATS = tuple(_SUFFIXES)
"""Accepted formats; none of them starts another program, as EPS would."""
SUFFIXES = frozenset(suffix for of_format in _SUFFIXES.values() for suffix in of_format)

_TILE = 256
_DECODER_BYTES = {"TIFF": 8, "WEBP": 12, "AVIF": 12, "HEIF": 7}
"""Bytes per pixel that a decoder holds beside the picture itself, as measured; the others need less than the result."""
_ORIENTATION = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
warnings.simplefilter("error", Image.DecompressionBombWarning)


def open_image(path: Path | str, shorter: int = 0) -> Image.Image:
    """An image file as a loaded RGB image, upright, alpha on white.

    Args:
        path: of the file.
        shorter: pixels that the shorter side needs: a JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that has
            as many, in a fraction of the time; 0: at its whole size.

    Raises:
        DataError: the file is missing, is not an image, is damaged, or has more than `PIXEL_CAP` pixels.
    """
    return _decode(Path(path), f"{path}", shorter)


def verify(source: bytes | Path | str, *, max_bytes: int = UPLOAD_BYTES, shorter: int = 0) -> Image.Image:
    """An uploaded picture as RGB; an error is one sentence for the person who uploaded it.

    Args:
        source: the file's bytes, or its path.
        max_bytes: size limit.
        shorter: as for `open_image`.

    Raises:
        DataError: too many bytes or pixels, more than `UPLOAD_MEMORY`, not an image, or damaged.
    """
    if isinstance(source, bytes):
        size, name = len(source), "The uploaded file"
    else:
        source = Path(source)
        size, name = (source.stat().st_size if source.is_file() else 0), source.name
    if size > max_bytes:
        raise DataError(
            f"{name} has {size / 1e6:.0f} MB. Expected at most {max_bytes / 1e6:.0f} MB: choose a smaller picture."
        )
    return _decode(source, name, shorter, UPLOAD_MEMORY)


def why_unreadable(path: Path | str) -> str:
    """Why a file cannot be decoded; "" if it can.

    JPEGs are decoded at an eighth of their size: that reads all bytes in a third of the time.
    """
    try:
        _decode(Path(path), "the file", shorter=1)
    except DataError as error:
        return str(error)
    return ""


def _decode(source: bytes | Path, name: str, shorter: int = 0, most_memory: float = math.inf) -> Image.Image:
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            pixels = image.width * image.height
            if pixels > PIXEL_CAP:
                raise DataError(_too_large(name, f"{image.width} x {image.height} pixels", PIXEL_CAP))
            if (memory := _memory(image)) > most_memory:
                shape = f"{image.width} x {image.height} pixels of {image.format}"
                raise DataError(_too_large(name, shape, int(pixels * most_memory / memory)))
            shrink = min(image.size) // shorter if shorter else 1
            if (shrink := max(shrink, 2 if pixels > KEPT_PIXELS else 1)) > 1:  # a JPEG, while it is decoded
                image.draft(None, (max(1, image.width // shrink), max(1, image.height // shrink)))
            image.load()
            rgb, turn = _to_rgb(image), _TRANSPOSE.get(_orientation(image))
        del image  # to turn the result needs its memory
        return rgb if turn is None else rgb.transpose(turn)
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{name} needs more memory than is free: close other programs or make it smaller.") from error
    except FileNotFoundError as error:
        raise DataError(f"{name} is missing.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(_too_large(name, "far too many pixels", PIXEL_CAP)) from error
    except Image.UnidentifiedImageError as error:
        raise DataError(f"{name} is not a picture the lab can read. Expected {', '.join(FORMATS)}.") from error
    except Exception as error:  # decoders raise nearly anything on damaged bytes (SyntaxError, struct.error, ...)
        raise DataError(f"{name} is damaged or incomplete ({error}).") from error


def _too_large(name: str, what: str, most: int) -> str:
    return f"{name} has {what}. Expected at most {most / 1e6:.0f} million pixels: choose a smaller picture."


def _memory(image: Image.Image) -> float:
    """Bytes that decoding needs at most: the picture in Pillow's memory, and what its decoder holds beside it."""
    pixels = image.width * image.height
    result = 4 if pixels <= KEPT_PIXELS else 1
    if layers := getattr(image, "layer", None):  # a JPEG in several passes is held as coefficients of 16 bits
        widest, highest = (max(layer[axis] for layer in layers) for axis in (1, 2))
        return pixels * (sum(2 * layer[1] * layer[2] for layer in layers) / (widest * highest) + result)
    each = 1 if image.mode in ("1", "L", "P") else 2 if image.mode.startswith("I;16") else 4
    kind = "AVIF" if image.info.get("bit_depth", 8) > 8 else image.format or ""  # a HEIC of 10 bits needs as much
    return pixels * (each + _DECODER_BYTES.get(kind, result))


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block does not affect the pixels
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """A loaded picture as RGB, at half its size if it is large; converted in tiles, which need little memory."""
    step = 2 if image.width * image.height > KEPT_PIXELS else 1
    ends = _ends(image)
    rgb = Image.new("RGB", (-(-image.width // step), -(-image.height // step)))
    for box in _tiles(image, _TILE * step):
        tile = _tile_to_rgb(image.crop(box), ends)
        rgb.paste(tile.reduce(step) if step > 1 else tile, (box[0] // step, box[1] // step))
    return rgb


def _tiles(image: Image.Image, side: int) -> Iterator[tuple[int, int, int, int]]:
    for top, left in product(range(0, image.height, side), range(0, image.width, side)):
        yield left, top, min(left + side, image.width), min(top + side, image.height)


def _tile_to_rgb(tile: Image.Image, ends: tuple[float, float] | None) -> Image.Image:
    if ends:  # PIL would clip at 255
        low, high = ends
        values: np.ndarray = np.asarray(tile, dtype=np.float64 if tile.mode == "F" else np.float32)
        if tile.mode == "F":
            values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
        values = (values - low) * (255 / (high - low) if high > low else 0)
        return Image.fromarray(values.clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if tile.mode == "La":  # alpha is multiplied in
        tile = tile.convert("LA")
    if tile.has_transparency_data:
        tile = tile.convert("RGBA")
        alpha = tile.getchannel("A")
        if alpha.getextrema() != (255, 255):  # many pictures have alpha and don't use it
            on_white = Image.new("RGB", tile.size, "white")
            on_white.paste(tile, mask=alpha)
            return on_white
    return tile.convert("RGB")


def _ends(image: Image.Image) -> tuple[float, float] | None:
    """The values that become black and white, of a grey picture with more than 8 bits; None for all others."""
    if image.mode == "F":  # floats have no standard range: from the lowest to the highest finite value
        tiles = (np.asarray(image.crop(box)) for box in _tiles(image, _TILE))
        ranges = [(part.min(), part.max()) for tile in tiles if (part := tile[np.isfinite(tile)]).size]
        return (float(min(low for low, _ in ranges)), float(max(high for _, high in ranges))) if ranges else (0, 0)
    if image.mode == "I":
        return 0, 65535 if image.getextrema()[1] > 255 else 255  # type: ignore[operator]
    return (0, 65535) if image.mode.startswith("I;16") else None
