"""A picture is read as a viewer shows it, or is one clear error with its name; it is never blank."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from sftrl_jax.pictures import read

CORNERS = np.full((20, 30, 3), 200, np.uint8)   # a red corner above on the left, a blue one below on the right
CORNERS[:8, :8], CORNERS[-8:, -8:] = (255, 0, 0), (0, 0, 255)
PICTURE = Image.fromarray(CORNERS)


def encoded(image, form, **options):
  stream = io.BytesIO()
  image.save(stream, form, **options)
  return stream.getvalue()


def chunk(kind, body):
  return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of(width, height, depth, colour, rows, *more):
  header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
  return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_a_file_and_its_bytes_are_one_picture(tmp_path):
  (tmp_path / "a.png").write_bytes(read.png(CORNERS))
  assert (read.read(tmp_path / "a.png") == CORNERS).all() and (read.read(str(tmp_path / "a.png")) == CORNERS).all()
  assert (read.read(read.png(CORNERS)) == CORNERS).all() and read.read(read.png(CORNERS)).dtype == np.uint8


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_are_exact(form):
  assert (read.read(encoded(PICTURE, form)) == CORNERS).all()


@pytest.mark.parametrize("form, options", [("JPEG", {"quality": 95}), ("WEBP", {"quality": 95}), ("GIF", {})])
def test_lossy_formats_are_near(form, options):
  near = read.read(encoded(PICTURE, form, **options)).astype(int)
  assert np.abs(near - CORNERS).mean() < 4


@pytest.mark.parametrize("orientation, turned", [
    (1, lambda x: x), (2, lambda x: x[:, ::-1]), (3, lambda x: x[::-1, ::-1]), (6, lambda x: np.rot90(x, -1)),
    (8, lambda x: np.rot90(x))])
def test_exif_turns_the_picture(orientation, turned):
  exif = Image.Exif()
  exif[0x0112] = orientation
  shown = turned(CORNERS).astype(int)
  for form in ("PNG", "JPEG"):
    image = read.read(encoded(PICTURE, form, exif=exif))
    assert image.shape == shown.shape and np.abs(image[:4, :4] - shown[:4, :4]).max() < 30


def test_transparent_parts_lie_over_white():
  alpha = np.zeros((20, 30), np.uint8)
  alpha[:, 15:] = 255
  rgba = Image.fromarray(np.dstack([CORNERS, alpha]))
  for image in (read.read(encoded(rgba, "PNG")), read.read(encoded(rgba.convert("LA"), "PNG"))):
    assert (image[:, :15] == 255).all() and (image[0, 20] == 200).all()
  half = Image.new("LA", (2, 2), (100, 128))
  assert abs(int(read.read(encoded(half, "PNG"))[0, 0, 0]) - 177) <= 1
  palette = Image.new("P", (2, 1))
  palette.putpalette([255, 0, 0, 0, 255, 0])
  palette.putdata([0, 1])
  assert read.read(encoded(palette, "PNG", transparency=0)).tolist() == [[[255, 255, 255], [0, 255, 0]]]
  assert read.read(encoded(palette, "PNG")).tolist() == [[[255, 0, 0], [0, 255, 0]]]


def test_grey_one_bit_and_cmyk_become_rgb():
  assert (read.read(encoded(Image.new("L", (3, 2), 77), "PNG")) == 77).all()
  assert (read.read(encoded(Image.new("1", (3, 2), 1), "PNG")) == 255).all()
  cmyk = read.read(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)).astype(int)
  assert np.abs(cmyk - (255, 0, 0)).max() < 12


def test_sixteen_bits_are_scaled_and_not_cut():
  values = np.array([[0, 257, 25700, 65535]], np.uint16)
  grey = read.read(encoded(Image.fromarray(values), "PNG"))
  assert grey[0, :, 0].tolist() == [0, 1, 100, 255] and grey.shape == (1, 4, 3)
  assert (read.read(encoded(Image.fromarray(values), "TIFF")) == grey).all()
  clear = png_of(2, 1, 16, 0, b"\0" + struct.pack(">HH", 257, 25700), chunk(b"tRNS", struct.pack(">H", 257)))
  assert read.read(clear)[0, :, 0].tolist() == [255, 100]
  colour = png_of(1, 1, 16, 2, b"\0" + struct.pack(">HHH", 65535, 25700, 0))
  assert read.read(colour).tolist() == [[[255, 100, 0]]]


def test_the_smallest_picture_and_the_first_frame():
  assert read.read(read.png(np.full((1, 1, 3), 9, np.uint8))).tolist() == [[[9, 9, 9]]]
  frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
  assert (read.read(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])) == (255, 0, 0)).all()


@pytest.mark.parametrize("form", read.FORMATS)
def test_a_cut_off_or_damaged_file_is_an_error_and_never_blank(form):
  noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
  whole = encoded(noise, form)
  for content in (whole[: len(whole) // 2], whole[:40], b"", b"hello", whole[:4]):
    with pytest.raises(ValueError, match=r"row 7 .*save it again"):
      read.read(content, "row 7")


def test_what_is_too_large_is_an_error_before_it_is_decoded():
  side = png_of(30_000, 1, 8, 0, b"")
  with pytest.raises(ValueError, match="a.png has 30000 x 1 pixels"):
    read.read(side, "a.png")
  for width, height in ((16_000, 16_000), (9_000, 9_000), (60_000, 60_000)):   # no byte of them is there
    with pytest.raises(ValueError, match="bomb.* pixels"):
      read.read(png_of(width, height, 8, 2, b""), "bomb")


@pytest.mark.parametrize("content, message", [
    (encoded(Image.new("F", (2, 2), 0.5), "TIFF"), "floating-point"),
    (encoded(Image.new("I", (2, 2), 70_000), "TIFF"), "beyond 16 bits"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "save it again")])
def test_what_no_scale_or_decoder_is_known_of_is_an_error(content, message):
  with pytest.raises(ValueError, match=message):
    read.read(content)


def test_a_path_that_is_no_file_is_named(tmp_path):
  for path in (tmp_path / "none.png", tmp_path, "a\0b", "http://example.com/a.png"):
    with pytest.raises(ValueError, match=r"cannot be read"):
      read.read(path)


def test_resizing_keeps_colours_and_shapes():
  assert read.resize(CORNERS, 20, 30) is CORNERS
  small = read.resize(CORNERS, 10, 15)
  assert small.shape == (10, 15, 3) and tuple(small[1, 1]) == (255, 0, 0) and small.dtype == np.uint8
