"""Makes images of every kind of pixels that the formats have, in the given folder, for a comparison of previews with Chromium.

With --large, images of up to 42 megapixels too.
"""

import io
import struct
import sys
import zlib
from pathlib import Path

from PIL import Image, ImageChops

FOLDER = Path(sys.argv[1])


def photo(width=240, height=160, mode="RGB"):
    """Returns an image of soft shapes with some detail, in all colours."""
    base = [
        Image.linear_gradient("L").resize((width, height)),
        Image.radial_gradient("L").resize((width, height)),
        Image.linear_gradient("L").rotate(90).resize((width, height)),
    ]
    detail = Image.effect_mandelbrot((width, height), (-2, -1.2, 0.8, 1.2), 60)
    return Image.merge("RGB", [Image.blend(channel, detail, 0.2) for channel in base]).convert(mode)


def with_alpha(image):
    """Returns the image with a radial gradient as its alpha."""
    image = image.convert("RGBA")
    image.putalpha(Image.radial_gradient("L").resize(image.size))
    return image


def keep(name, data):
    """Writes a file."""
    (FOLDER / name).write_bytes(data)


def encoded(image, kind, **options):
    """Returns the bytes of the image in Pillow's format `kind`."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def save(name, image, **options):
    """Writes the image in the format of the name's extension."""
    kind = {"jpg": "JPEG", "png": "PNG", "gif": "GIF", "webp": "WEBP"}[name.rsplit(".", 1)[1]]
    keep(name, encoded(image, kind, **options))


def fixed(*numbers):
    """Returns numbers as s15Fixed16Number, ICC's fixed-point form."""
    return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)


def profile(space, tags, padding=0):
    """Returns an ICC profile (version 2.4) with these tags; `padding` bytes lengthen its text."""
    name = b"a profile for tests\0"
    tags = [
        (b"desc", b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + bytes(79)),
        (b"cprt", b"text\0\0\0\0CC0" + b" " * padding + b"\0"),
        (b"wtpt", b"XYZ \0\0\0\0" + fixed(0.9642, 1, 0.8249)),
        *tags,
    ]
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for tag, content in tags:
        table += tag + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    head = struct.pack(">I4sI4s4s4s12x4s4s4x4s4s8x4x", 0, b"none", 0x02400000, kind, space, b"XYZ ", b"acsp", b"none", b"none", b"none")
    head = head[:68] + fixed(0.9642, 1, 0.8249)
    whole = head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + body
    return struct.pack(">I", len(whole)) + whole[4:]


def gamma(value):
    """Returns a curve of one exponent."""
    return b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(value * 256), 0)


def rgb_profile(primaries, curve, padding=0):
    """Returns a profile of RGB with these primaries (XYZ) and one curve for all channels."""
    columns = [(tag, b"XYZ \0\0\0\0" + fixed(*xyz)) for tag, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries)]
    return profile(b"RGB ", columns + [(tag, curve) for tag in (b"rTRC", b"gTRC", b"bTRC")], padding)


# Primaries of Display P3, Adobe RGB (1998) and ProPhoto RGB, as XYZ in the profile connection space.
P3 = [(0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407)]
ADOBE = [(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)]
PROPHOTO = [(0.79767, 0.28804, 0), (0.13519, 0.71188, 0), (0.03134, 0.00009, 0.82491)]
# The curve of sRGB (parametric, type 3), and a curve with the exponent 1.8 as a table of 256 values.
SRGB_CURVE = b"para\0\0\0\0" + struct.pack(">HH", 3, 0) + fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
TABLE_CURVE = b"curv\0\0\0\0" + struct.pack(">I", 256) + b"".join(struct.pack(">H", round((at / 255) ** 1.8 * 65535)) for at in range(256))
PROFILES = {
    "p3": rgb_profile(P3, SRGB_CURVE),
    "p3-large": rgb_profile(P3, SRGB_CURVE, 5000),
    "adobe": rgb_profile(ADOBE, gamma(2.2)),
    "adobe-large": rgb_profile(ADOBE, gamma(2.2), 5000),
    "prophoto": rgb_profile(PROPHOTO, TABLE_CURVE),
    "prophoto-large": rgb_profile(PROPHOTO, TABLE_CURVE, 5000),
    # Red and green are exchanged, so that a picture without the profile differs clearly.
    "exchanged": rgb_profile([P3[1], P3[0], P3[2]], SRGB_CURVE),
    "exchanged-large": rgb_profile([P3[1], P3[0], P3[2]], SRGB_CURVE, 5000),
    "broken": b"\0\0\0\x84none" + bytes(124),
    "broken-large": rgb_profile(P3, SRGB_CURVE, 5000)[:300],
}
GREY_PROFILE = profile(b"GRAY", [(b"kTRC", gamma(1.2))])


def segments(jpeg):
    """Returns the segments of a JPEG before its first scan, and the rest."""
    at, parts = 2, []
    while True:
        end = at + 2 + struct.unpack(">H", jpeg[at + 2 : at + 4])[0]
        if jpeg[at + 1] == 0xDA:
            return parts, jpeg[at:]
        parts.append(jpeg[at:end])
        at = end


def without(jpeg, *markers):
    """Returns the JPEG without the segments of these markers."""
    parts, rest = segments(jpeg)
    return b"\xFF\xD8" + b"".join(part for part in parts if part[1] not in markers) + rest


def ycck(image, **options):
    """Returns a JPEG of CMYK whose inks are stored as luma and chroma, inverted by Adobe's convention."""
    cmyk = image.convert("CMYK").split()
    inverted = [ImageChops.invert(channel) for channel in cmyk]
    stored = Image.merge("RGB", inverted[:3]).convert("YCbCr").split() + (inverted[3],)
    # Pillow inverts what it stores.
    jpeg = encoded(Image.merge("CMYK", [ImageChops.invert(channel) for channel in stored]), "JPEG", quality=92, **options)
    at = jpeg.index(b"Adobe")
    return jpeg[: at + 11] + b"\x02" + jpeg[at + 12 :]


def real_cmyk(image):
    """Returns the image in CMYK with a key, which Pillow's conversion leaves at zero."""
    cyan, magenta, yellow, _ = image.convert("CMYK").split()
    key = ImageChops.darker(ImageChops.darker(cyan, magenta), yellow)
    return Image.merge("CMYK", [ImageChops.subtract(ink, key) for ink in (cyan, magenta, yellow)] + [key])


def jpegs():
    image = photo()
    # The transposition of the stored pixels that each Exif orientation, 1 to 8, undoes (values of Image.Transpose).
    turns = [None, 0, 3, 1, 5, 2, 6, 4]
    for number, turn in enumerate(turns, 1):
        exif = Image.Exif()
        exif[0x0112] = number  # Orientation
        stored = image if turn is None else image.transpose(Image.Transpose(turn))
        save(f"orientation-{number}.jpg", stored, quality=92, exif=exif)
        save(f"orientation-{number}.png", stored, exif=exif)
        save(f"orientation-{number}.webp", stored, quality=92, exif=exif)
    for subsampling in (0, 1, 2):
        for progressive in (False, True):
            kind = "progressive" if progressive else "baseline"
            save(f"{kind}-{subsampling}.jpg", image, quality=90, subsampling=subsampling, progressive=progressive)
            save(f"{kind}-odd-{subsampling}.jpg", photo(301, 203), quality=90, subsampling=subsampling, progressive=progressive)
    for width, height in [(1, 1), (17, 1), (1, 33), (7, 9), (640, 5), (900, 7)]:
        save(f"{width}x{height}.jpg", photo(width, height), quality=90)
    save("low-quality.jpg", image, quality=30)
    save("restarts.jpg", image, quality=90, restart_marker_blocks=3)
    save("restarts-progressive.jpg", image, quality=90, restart_marker_rows=1, progressive=True)
    save("optimized.jpg", image, quality=90, optimize=True)
    save("grey.jpg", image.convert("L"), quality=90)
    save("grey-progressive.jpg", image.convert("L"), quality=90, progressive=True)
    save("grey-profile.jpg", image.convert("L"), quality=90, icc_profile=GREY_PROFILE)
    save("grey-with-rgb-profile.jpg", image.convert("L"), quality=90, icc_profile=PROFILES["exchanged"])
    save("rgb-with-grey-profile.jpg", image, quality=90, icc_profile=GREY_PROFILE)
    save("cmyk.jpg", image.convert("CMYK"), quality=92)
    save("cmyk-with-key.jpg", real_cmyk(image), quality=92)
    save("cmyk-progressive.jpg", real_cmyk(image), quality=92, progressive=True)
    save("cmyk-with-rgb-profile.jpg", real_cmyk(image), quality=92, icc_profile=PROFILES["exchanged"])
    keep("cmyk-without-adobe.jpg", without(encoded(real_cmyk(image), "JPEG", quality=92), 0xEE))
    keep("ycck.jpg", ycck(image))
    keep("ycck-progressive.jpg", ycck(image, progressive=True))
    rgb = encoded(image, "JPEG", quality=92, keep_rgb=True)
    keep("stored-as-rgb.jpg", rgb)
    keep("stored-as-rgb-without-adobe.jpg", without(rgb, 0xEE))
    keep("without-jfif.jpg", without(encoded(image, "JPEG", quality=90), 0xE0))
    for name, icc in PROFILES.items():
        save(f"profile-{name}.jpg", image, quality=92, icc_profile=icc)
        save(f"profile-{name}.png", image, icc_profile=icc)
        save(f"profile-{name}.webp", image, quality=92, icc_profile=icc)


def chunk(kind, content):
    """Returns a chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(image, colour_type, depth, interlaced=0, extra=b""):
    """Returns a PNG of the image with any depth: Pillow writes only some of the depths of a colour type."""
    pixels, (width, height) = image.load(), image.size
    channels = len(image.getbands())

    def packed(samples):
        if depth == 16:
            return b"".join(struct.pack(">H", sample * 257) for sample in samples)
        if depth == 8:
            return bytes(samples)
        bits = "".join(format(sample >> (8 - depth) if colour_type == 0 else sample, f"0{depth}b") for sample in samples)
        bits += "0" * (-len(bits) % 8)
        return bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))

    # Start and step of each pass; seven passes if interlaced (Adam7).
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = b""
    for x0, y0, dx, dy in passes:
        for y in range(y0, height, dy):
            row = [pixels[x, y] for x in range(x0, width, dx)]
            if row:
                rows += b"\0" + packed(row if channels == 1 else [sample for pixel in row for sample in pixel])
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


# White point and primaries (P3) of a cHRM chunk, times 100,000.
CHRM = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)


def pngs():
    image = photo(121, 83)
    save("rgb.png", image)
    save("rgba.png", with_alpha(image))
    save("grey.png", image.convert("L"))
    save("grey-alpha.png", with_alpha(image).convert("LA"))
    save("palette.png", image.quantize(64))
    save("palette-transparent.png", image.quantize(64), transparency=bytes(range(0, 256, 4)))
    save("one-bit.png", image.convert("1"))
    save("grey-profile.png", image.convert("L"), icc_profile=GREY_PROFILE)
    save("grey-with-rgb-profile.png", image.convert("L"), icc_profile=PROFILES["exchanged"])
    for interlaced in (0, 1):
        kind = "interlaced-" if interlaced else ""
        for depth in (1, 2, 4, 8, 16):
            keep(f"{kind}grey-{depth}.png", png(image.convert("L"), 0, depth, interlaced))
        palette = image.quantize(4)
        colours = chunk(b"PLTE", bytes(palette.getpalette()[:12]))
        for depth in (2, 4, 8):
            keep(f"{kind}palette-{depth}.png", png(palette, 3, depth, interlaced, colours))
        keep(f"{kind}palette-2-transparent.png", png(palette, 3, 2, interlaced, colours + chunk(b"tRNS", b"\0\x80\xff")))
        for depth in (8, 16):
            keep(f"{kind}rgb-{depth}.png", png(image, 2, depth, interlaced))
            keep(f"{kind}rgba-{depth}.png", png(with_alpha(image), 6, depth, interlaced))
            keep(f"{kind}grey-alpha-{depth}.png", png(with_alpha(image).convert("LA"), 4, depth, interlaced))
    keep("grey-transparent.png", png(image.convert("L"), 0, 4, 0, chunk(b"tRNS", b"\0\x07")))
    gama = chunk(b"gAMA", struct.pack(">I", 100000))
    keep("gamma.png", png(image, 2, 8, 0, gama))
    keep("gamma-of-srgb.png", png(image, 2, 8, 0, chunk(b"gAMA", struct.pack(">I", 45455))))
    keep("primaries-alone.png", png(image, 2, 8, 0, chunk(b"cHRM", CHRM)))
    keep("gamma-of-grey.png", png(image.convert("L"), 0, 8, 0, gama))
    keep("cicp-unknown.png", png(image, 2, 8, 0, chunk(b"cICP", b"\x02\x02\0\x01") + gama))
    keep("cicp-pq.png", png(image, 2, 16, 0, chunk(b"cICP", b"\x09\x10\0\x01")))
    keep("cicp-hlg.png", png(image, 2, 16, 0, chunk(b"cICP", b"\x09\x12\0\x01")))
    keep("gamma-and-primaries.png", png(image, 2, 8, 0, gama + chunk(b"cHRM", CHRM)))
    keep("primaries-of-p3.png", png(image, 2, 8, 0, chunk(b"gAMA", struct.pack(">I", 45455)) + chunk(b"cHRM", CHRM)))
    keep("srgb-chunk.png", png(image, 2, 8, 0, gama + chunk(b"cHRM", CHRM) + chunk(b"sRGB", b"\0")))
    keep("cicp-of-p3.png", png(image, 2, 8, 0, chunk(b"cICP", b"\x0c\x0d\0\x01")))
    keep("cicp-of-srgb.png", png(image, 2, 8, 0, chunk(b"cICP", b"\x01\x0d\0\x01") + gama))
    keep("cicp-linear.png", png(image, 2, 16, 0, chunk(b"cICP", b"\x01\x08\0\x01")))
    icc = chunk(b"iCCP", b"p\0\0" + zlib.compress(PROFILES["exchanged"]))
    keep("cicp-before-profile.png", png(image, 2, 8, 0, chunk(b"cICP", b"\x01\x0d\0\x01") + icc))


def animations():
    image, other = photo(120, 80), Image.new("RGB", (120, 80), (255, 0, 0))
    more = {"save_all": True, "append_images": [other], "duration": 1000}
    for name in ("animated.gif", "animated.png", "animated-lossless.webp"):
        save(name, image.quantize(128) if name.endswith("gif") else image, **more, **({"lossless": True} if name.endswith("webp") else {}))
    save("animated-lossy.webp", image, quality=90, **more)
    save("animated-alpha.webp", with_alpha(image), quality=90, **more)
    save("animated-default-image.png", other, save_all=True, append_images=[image, other], default_image=True, duration=1000)
    # The first frame covers a part of the canvas.
    part = Image.new("RGBA", (120, 80))
    part.paste(with_alpha(image).resize((40, 30)), (20, 10))
    save("animated-part.webp", part, lossless=True, **more)
    save("animated-part.png", part, **more)


def gifs():
    image = photo(121, 83)
    save("plain.gif", image.quantize(128), interlace=0)
    save("interlaced.gif", image.quantize(128), interlace=1)
    save("transparent.gif", image.quantize(16), transparency=3)
    save("two-colours.gif", image.convert("1"))
    save("grey.gif", image.convert("L"))
    plain = encoded(image.quantize(128), "GIF", interlace=0)
    at = plain.index(b"\x2c")
    # A screen larger than its frame, which is moved; and a smaller one.
    for name, screen, corner in (("moved", (150, 120), (20, 10)), ("beyond", (100, 50), (0, 0)), ("half-out", (130, 90), (30, 20))):
        frame = struct.pack("<HH", *corner)
        keep(f"{name}.gif", plain[:6] + struct.pack("<HH", *screen) + plain[10 : at + 1] + frame + plain[at + 5 :])


def webps():
    image = photo(241, 163)
    save("lossy.webp", image, quality=85)
    save("lossy-low.webp", image, quality=20)
    save("lossless.webp", image, lossless=True)
    save("lossy-alpha.webp", with_alpha(image), quality=85)
    save("lossless-alpha.webp", with_alpha(image), lossless=True, exact=True)
    save("lossless-palette.webp", image.quantize(12).convert("RGB"), lossless=True)
    save("lossy-alpha-low.webp", with_alpha(image), quality=40, alpha_quality=20)
    for width, height in [(1, 1), (3, 50), (50, 3)]:
        save(f"{width}x{height}.webp", photo(width, height), quality=85)
        save(f"lossless-{width}x{height}.webp", photo(width, height), lossless=True)


def reduced():
    """Writes images that are larger than their pictures."""
    save("reduced.jpg", photo(2400, 1600), quality=88)
    save("reduced-progressive.jpg", photo(1999, 1333), quality=88, progressive=True)
    save("reduced.png", photo(1999, 1333))
    save("reduced-alpha.webp", with_alpha(photo(1301, 977)), quality=85)
    save("reduced.gif", photo(1301, 977).quantize(128))


def large():
    """Writes images of up to 42 megapixels."""
    save("large.jpg", photo(4032, 3024), quality=88)
    save("quarter.jpg", photo(7001, 6003), quality=88)
    save("quarter-444.jpg", photo(7001, 6003), quality=88, subsampling=0)
    save("quarter-grey.jpg", photo(7001, 6003).convert("L"), quality=88)
    save("quarter-cmyk.jpg", real_cmyk(photo(7001, 6003)), quality=88)
    save("by-rows.png", photo(7001, 3003))
    save("wide.png", photo(9000, 500))
    save("large-alpha.png", with_alpha(photo(6500, 3400)))
    save("large.webp", photo(5001, 4003), quality=85)
    save("large.gif", photo(4000, 3000).quantize(128))


jpegs()
pngs()
animations()
gifs()
webps()
reduced()
if "--large" in sys.argv:
    large()
