"""Any image file -> RGB: converts grey, palette, 16-bit and CMYK, puts alpha on white, applies the EXIF orientation.

Files are not trusted (a user's folder, an upload): formats, bytes and pixels are limited before decoding.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from pddm_lab.errors import DataError

PIXEL_CAP = 80_000_000
"""Largest number of pixels: more than any photo in the data sets, and few enough for the memory of a small machine."""
UPLOAD_BYTES = 18_000_000
"""Largest upload, in bytes: encoded as base64 it fits into the 25 MB that the dashboard's server accepts at once."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Accepted formats; none of them starts another program, as EPS would."""
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})

_ORIENTATION = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def open_image(path: Path | str) -> Image.Image:
    """An image file as a loaded RGB image, upright, alpha on white.

    Raises:
        DataError: the file is missing, is not an image, is damaged, or has more than `PIXEL_CAP` pixels.
    """
    return _to_rgb(_decode(Path(path), f"{path}"))


def verify(source: bytes | Path | str, *, max_bytes: int = UPLOAD_BYTES) -> Image.Image:
    """An uploaded picture as RGB; an error is one sentence for the person who uploaded it.

    Args:
        source: the file's bytes, or its path.
        max_bytes: size limit.

    Raises:
        DataError: too many bytes or pixels, not an image, or damaged.
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
    return _to_rgb(_decode(source, name))


def why_unreadable(path: Path | str) -> str:
    """Why a file cannot be decoded; "" if it can.

    JPEGs are decoded at an eighth of their size: that reads all bytes in a third of the time.
    """
    try:
        _decode(Path(path), "the file", draft=True)
    except DataError as error:
        return str(error)
    return ""


def _decode(source: bytes | Path, name: str, draft: bool = False) -> Image.Image:
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            if image.width * image.height > PIXEL_CAP:
                raise DataError(_too_large(name, f"{image.width} x {image.height} pixels"))
            if draft:
                image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
            image.load()
            return image
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{name} is missing.") from error
    except Image.DecompressionBombError as error:
        raise DataError(_too_large(name, "far too many pixels")) from error
    except Image.UnidentifiedImageError as error:
        raise DataError(f"{name} is not a picture the lab can read. Expected {', '.join(FORMATS)}.") from error
    except Exception as error:  # decoders raise nearly anything on damaged bytes (SyntaxError, struct.error, ...)
        raise DataError(f"{name} is damaged or incomplete ({error}).") from error


def _too_large(name: str, what: str) -> str:
    return f"{name} has {what}. Expected at most {PIXEL_CAP // 1_000_000} million pixels: choose a smaller picture."


def _to_rgb(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block does not affect the pixels
        orientation = 1
    if image.mode[0] in "IF" and image.mode != "La":  # 16- and 32-bit grey: PIL would clip at 255
        image = _scale_to_byte(image)
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(rgba, mask=rgba.getchannel("A"))
    image = image.convert("RGB")
    return image.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else image


def _scale_to_byte(image: Image.Image) -> Image.Image:
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    if image.mode == "F":  # floats have no standard range: scale from minimum to maximum
        low, high = float(values.min()), float(values.max())
        values = (values - low) * (255 / (high - low) if high > low else 0)
    elif image.mode.startswith("I;16") or values.max() > 255:
        values = values / 257  # 65535 / 255
    return Image.fromarray(values.clip(0, 255).round().astype(np.uint8))
