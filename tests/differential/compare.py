"""Compares Valet's verdicts with Chromium's and, if available, Pillow's, in the given folder; exits 1 at a fault.

A fault is a file that Chromium decodes whole and Valet rejects, a size that is not Chromium's (Pillow's for HEIC), and a file of
the corpus that Valet accepts and that neither Chromium nor Pillow reads. Mutants that neither reads are only counted, because the
headers, which Valet inspects, do not show damaged pixels. With --all, files that are only counted are listed too.
"""

import json
import sys
from pathlib import Path

folder = Path(sys.argv[1])


def read(name):
    """Returns the rows of a file by the name of their image; none without the file."""
    path = folder / name
    rows = [json.loads(line) for line in open(path)] if path.exists() else []
    return {row["file"]: row for row in rows}


def size(row):
    return (row.get("width"), row.get("height"))


# Files and mutants whose verdict differs from Chromium's, with the reason.
DECIDED = {
    "clap.heic": "the crop is the standard's",
    "image/heic: another size": "libheif 1.15 and macOS show the picture; Pillow's libheif rejects a file whose ispe differs",
    "image/heic: crop": "Pillow crops by libheif, which clips an invalid crop",
    "image/avif: crop": "the standard's crop; Chromium crops at the origin alone",
    "image/avif: minimized, without its brand": "the standard requires the brand; Chromium 148 shows the image, Chromium 156 does not",
    "image/jpeg: hierarchical progression before the frame": "Firefox shows it",
    "image/jpeg: reserved marker": "Firefox shows it",
    "image/jpeg: 17 MiB of segments before the frame": "Valet fetches less than that",
}
verdicts, chromium, pillow = read("verdicts.jsonl"), read("chromium.jsonl"), read("pillow.jsonl")
unread = {"shown": False, "whole": False}
faults, unconfirmed, compared, decided = [], [], 0, 0
for file, valet in verdicts.items():
    name = valet["name"]
    is_mutant = name.startswith("mutant ")
    source = name.split(" of ", 1)[1] if is_mutant else name
    if source.startswith(tuple(DECIDED)):
        decided += 1
        continue
    browser, library = chromium.get(file, unread), pillow.get(file, unread)
    about = f"{file} {name}: {valet.get('refusal') or valet['format']} {size(valet)}; Chromium {size(browser)}, Pillow {size(library)}"
    reference = browser if browser["shown"] else library if valet.get("format") == "Heif" else unread
    compared += reference["shown"]
    if "refusal" in valet:
        if browser["whole"] and valet["refusal"] != "too_many_pixels":
            faults.append("refused: " + about)
        elif browser["shown"] or library["shown"]:
            unconfirmed.append("refused: " + about)
    elif reference["shown"]:
        if size(valet) != size(reference):
            (faults if browser["whole"] or not is_mutant else unconfirmed).append("size: " + about)
    elif not library["shown"]:
        # Without Pillow no reader here supports HEIC.
        (unconfirmed if is_mutant or not pillow else faults).append("accepted: " + about)
print(f"{len(verdicts)} files: {compared} compared, {decided} left out by decision, {len(unconfirmed)} where only Valet has this verdict, {len(faults)} faults")
print(*faults, *(unconfirmed if "--all" in sys.argv else []), sep="\n")
sys.exit(bool(faults))
