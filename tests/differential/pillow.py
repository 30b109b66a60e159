"""Opens the files of verdicts.jsonl, in the given folder, with Pillow and libheif: writes pillow.jsonl."""

import json
import sys
import warnings
from pathlib import Path

import pillow_heif
from PIL import Image, ImageOps

warnings.simplefilter("ignore")
pillow_heif.register_heif_opener()
Image.MAX_IMAGE_PIXELS = 1 << 28
folder = Path(sys.argv[1])

with open(folder / "pillow.jsonl", "w") as out:
    for line in open(folder / "verdicts.jsonl"):
        file = json.loads(line)["file"]
        found = {"file": file, "width": 0, "height": 0, "shown": False}
        try:
            with Image.open(folder / file, formats=["JPEG", "PNG", "GIF", "WEBP", "AVIF", "HEIF"]) as image:
                found |= dict(zip(("width", "height"), ImageOps.exif_transpose(image).size), shown=True)
        # Pillow raises exceptions of any type for damaged files.
        except Exception:
            pass
        out.write(json.dumps(found) + "\n")
