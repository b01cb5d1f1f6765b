"""Every kind of image file becomes upright RGB; what cannot be decoded becomes one sentence."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pddm_lab.data import images
from pddm_lab.data.images import open_image, verify, why_unreadable
from pddm_lab.errors import DataError

RAMP = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)


def _pixels(path: Path) -> np.ndarray:
    image = open_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def test_grey_stays_grey(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    assert (_pixels(tmp_path / "a.png") == RAMP[..., None]).all()


def test_one_bit(tmp_path: Path) -> None:
    Image.fromarray(RAMP > 99).save(tmp_path / "a.png")
    assert (_pixels(tmp_path / "a.png") == 255 * (RAMP > 99)[..., None]).all()


def test_palette(tmp_path: Path) -> None:
    colours = Image.new("RGB", (4, 2), (200, 10, 30))
    colours.putpixel((0, 0), (0, 0, 255))
    colours.quantize(4).save(tmp_path / "a.gif")
    assert (_pixels(tmp_path / "a.gif") == np.asarray(colours)).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_lies_on_white(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (3, 1))
    for x, alpha in enumerate((0, 128, 255)):
        image.putpixel((x, 0), (0,) * (len(mode) - 1) + (alpha,))
    image.save(tmp_path / "a.png")
    assert _pixels(tmp_path / "a.png")[0, :, 0].tolist() == [255, 127, 0]


def test_transparent_palette_entry_and_colour_lie_on_white(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "p.png", transparency=0)
    assert _pixels(tmp_path / "p.png")[0].tolist() == [[255, 255, 255], [9, 8, 7]]
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "c.png", transparency=(1, 2, 3))
    assert _pixels(tmp_path / "c.png")[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(tmp_path / f"a.{suffix}")
    assert (_pixels(tmp_path / f"a.{suffix}") == RAMP[..., None]).all()


def test_wide_integers_and_floats(tmp_path: Path) -> None:
    Image.fromarray(RAMP.astype(np.int32) * 257).save(tmp_path / "i.tif")
    assert (_pixels(tmp_path / "i.tif") == RAMP[..., None]).all()
    Image.fromarray(RAMP.astype(np.float32) / 1000 - 3).save(tmp_path / "f.tif")
    assert np.abs(_pixels(tmp_path / "f.tif")[..., 0] - RAMP * (255 / 252)).max() <= 1
    Image.fromarray(np.full((2, 2), np.nan, dtype=np.float32)).save(tmp_path / "n.tif")
    assert (_pixels(tmp_path / "n.tif") == 0).all()


def test_cmyk(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    red, green, blue = _pixels(tmp_path / "a.jpg")[4, 4].astype(int)
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((3, 2, 3), dtype=np.uint8)
    upright[0] = 250
    upright[1, 0] = 120
    turned = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
        6: np.rot90(upright), 7: np.rot90(upright, 2).transpose(1, 0, 2), 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(turned)).save(tmp_path / "a.png", exif=exif)
    assert (_pixels(tmp_path / "a.png") == upright).all()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_does_not_lose_the_picture(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xffgarbage")
    assert _pixels(tmp_path / "a.jpg").shape == (4, 4, 3)


def _photo(path: Path) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path.read_bytes()


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    whole = _photo(path)
    assert why_unreadable(path) == ""
    path.write_bytes(whole[: len(whole) // 2])
    assert "damaged or incomplete" in why_unreadable(path)
    with pytest.raises(DataError, match=r"a\.\w+ is damaged or incomplete"):
        open_image(path)


def test_missing_empty_and_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "folder.png").mkdir()
    assert why_unreadable(tmp_path / "none.png") == "the file is missing."
    assert "not a picture the lab can read" in why_unreadable(tmp_path / "empty.png")
    assert "not a picture the lab can read" in why_unreadable(tmp_path / "text.png")
    assert why_unreadable(tmp_path / "folder.png")


def _bomb(side: int, colour: int = 0) -> bytes:
    """A small PNG whose header claims side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [9_001, 9_500, 60_000])
def test_bombs_are_refused_before_decoding(side: int) -> None:
    with pytest.raises(DataError, match="at most 80 million pixels"):
        verify(_bomb(side))


def test_an_upload_is_bounded_by_its_memory() -> None:
    with pytest.raises(DataError, match=r"7500 x 7500 pixels of PNG\. Expected at most 54 million pixels"):
        verify(_bomb(7500, colour=6))
    with pytest.raises(DataError, match="damaged or incomplete"):
        verify(_bomb(7500, colour=0))


def test_formats_that_start_programs_are_not_tried() -> None:
    with pytest.raises(DataError, match="not a picture the lab can read"):
        verify(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n")


def test_verify_takes_bytes_and_paths(tmp_path: Path) -> None:
    whole = _photo(tmp_path / "photo.png")
    assert np.array_equal(np.asarray(verify(whole)), np.asarray(verify(tmp_path / "photo.png")))
    with pytest.raises(
        DataError, match=r"^The uploaded file has 0 MB\. Expected at most 0 MB: choose a smaller picture\.$"
    ):
        verify(whole, max_bytes=10)
    with pytest.raises(DataError, match=r"^photo.png has"):
        verify(tmp_path / "photo.png", max_bytes=10)
    with pytest.raises(DataError, match=r"none\.png is missing"):
        verify(tmp_path / "none.png")
    with pytest.raises(DataError, match="The uploaded file is damaged or incomplete"):
        verify(whole[:3000])


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    assert verify(stream.getvalue()).getpixel((0, 0)) == (255, 0, 0)


def test_suffixes_fit_the_formats() -> None:
    readable = {s for s, name in Image.registered_extensions().items() if name in images.FORMATS}
    assert readable >= images.SUFFIXES


def test_floats_are_scaled_over_their_finite_values(tmp_path: Path) -> None:
    values = np.array([[1, 2, 3], [np.nan, np.inf, -np.inf]], dtype=np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert _pixels(tmp_path / "a.tif")[..., 0].tolist() == [[0, 128, 255], [0, 255, 0]]


MODES = ("1", "L", "P", "PA", "LA", "La", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "F",
         "I;16", "I;16B", "I;16L", "I;16N")  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_that_pillow_decodes_becomes_rgb(mode: str) -> None:
    image = images._to_rgb(Image.new(mode, (300, 2)))
    assert (image.mode, image.size) == ("RGB", (300, 2))


def test_a_mode_is_refused_by_the_check_if_it_cannot_be_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _photo(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "convert", lambda *_: int("no conversion"))
    assert "no conversion" in why_unreadable(tmp_path / "a.png")
    with pytest.raises(DataError, match="no conversion"):
        open_image(tmp_path / "a.png")


def test_premultiplied_alpha_lies_on_white() -> None:
    grey = Image.merge("LA", [Image.new("L", (1, 1), 0), Image.new("L", (1, 1), 128)]).convert("La")
    assert images._to_rgb(grey).getpixel((0, 0)) == (127, 127, 127)


@pytest.mark.parametrize("name", ["a.jfif", "a.jpe", "a.avif", "a.heic"])
def test_further_formats_are_read(tmp_path: Path, name: str) -> None:
    if Path(name).suffix not in images.SUFFIXES:
        pytest.skip(f"this machine's Pillow reads no {name}")
    Image.new("RGB", (64, 48), "red").save(tmp_path / name, "JPEG" if ".j" in name else None)
    assert why_unreadable(tmp_path / name) == ""
    assert _pixels(tmp_path / name).shape == (48, 64, 3)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_a_large_picture_is_halved_tile_by_tile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (75, 99, 4), dtype=np.uint8)
    bands = {"RGB": noise[..., :3], "RGBA": noise, "L": noise[..., 0]}
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.png"
    Image.fromarray(bands[mode]).save(path, exif=exif)
    whole = open_image(path).transpose(Image.Transpose.ROTATE_90)
    monkeypatch.setattr(images, "KEPT_PIXELS", 75 * 99 - 1)
    monkeypatch.setattr(images, "_TILE", 16)
    halved = whole.reduce(2).transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(_pixels(path), np.asarray(halved))


def test_a_large_jpeg_is_decoded_at_half_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _photo(tmp_path / "a.jpg")
    monkeypatch.setattr(images, "KEPT_PIXELS", 64 * 64 - 1)
    assert open_image(tmp_path / "a.jpg").size == (32, 32)


def test_too_little_memory_names_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_self: Image.Image) -> None:
        raise MemoryError

    _photo(tmp_path / "a.png")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(DataError, match=r"a\.png needs more memory than is free"):
        open_image(tmp_path / "a.png")


PEAK = """
import sys
from pddm_lab.data.images import verify
from pddm_lab.errors import DataError
kilobytes = lambda key: next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))
before = kilobytes("VmRSS")
try:
    verify(open(sys.argv[1], "rb").read())
    print("read", (kilobytes("VmHWM") - before) / 1000)
except DataError as error:
    print(error)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
@pytest.mark.parametrize(
    ("mode", "side", "save"),
    [
        ("I;16", 8900, {"format": "PNG"}),
        ("RGB", 4100, {"format": "WEBP"}),
    ],
)
def test_no_accepted_upload_needs_more_than_300_mb(tmp_path: Path, mode: str, side: int, save: dict) -> None:
    """The largest that are accepted, to within a few per cent."""
    Image.new(mode, (side, side)).save(tmp_path / "a", **save)
    done = subprocess.run([sys.executable, "-c", PEAK, tmp_path / "a"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("read") and float(done.stdout.split()[1]) <= 300, done.stdout
