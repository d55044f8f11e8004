"""Images of moths on a dark sheet, and a detector that finds them.

The images are drawn, so what is in them is known exactly; the detector reads pixels only.
"""

import random
from pathlib import Path

from PIL import Image, ImageDraw

CELL, COLUMNS, ROWS = 24, 6, 4
SHEET = (12, 14, 20)
SPECIES = {"brown": (170, 110, 60), "white": (235, 235, 225), "green": (90, 190, 110)}
MOST = 9


def draw(path: Path, seed: int) -> dict[str, int]:
    """Draws one image; returns how many moths of each species are in it."""
    dice = random.Random(seed)
    image = Image.new("RGB", (CELL * COLUMNS, CELL * ROWS), SHEET)
    pen = ImageDraw.Draw(image)
    tally = dict.fromkeys(SPECIES, 0)
    # One to a cell, so that no two touch.
    for cell in dice.sample(range(COLUMNS * ROWS), dice.randint(0, MOST)):
        species = dice.choice(list(SPECIES))
        x, y = CELL * (cell % COLUMNS) + CELL // 2, CELL * (cell // COLUMNS) + CELL // 2
        across, along = dice.randint(4, 10), dice.randint(3, 8)
        pen.ellipse((x - across, y - along, x + across, y + along), fill=SPECIES[species])
        tally[species] += 1
    image.save(path)
    return tally


def detect(path: str) -> list[dict]:
    """Finds the moths in an image: a box and a species for each."""
    with Image.open(path) as image:
        pixels = image.convert("RGB")
    bright = pixels.convert("L").point(lambda value: 255 if value > 40 else 0)
    width, _ = bright.size
    left = {at for at, value in enumerate(bright.tobytes()) if value}
    found = []
    while left:
        found.append(_one(pixels, width, left))
    return found


def _one(pixels: Image.Image, width: int, left: set[int]) -> dict:
    """Takes the connected pixels of one moth out of those that are left."""
    edge = [left.pop()]
    members = list(edge)
    while edge:
        at = edge.pop()
        for neighbour in (at - 1, at + 1, at - width, at + width):
            if neighbour in left:
                left.remove(neighbour)
                edge.append(neighbour)
                members.append(neighbour)
    points = [(at % width, at // width) for at in members]
    xs, ys = zip(*points)
    colours = [pixels.getpixel(point) for point in points]
    mean = tuple(sum(channel) / len(colours) for channel in zip(*colours))
    distance = {name: sum((a - b) ** 2 for a, b in zip(mean, colour)) for name, colour in SPECIES.items()}
    species = min(distance, key=distance.get)
    return {
        "bbox": {"x1": min(xs), "y1": min(ys), "x2": max(xs) + 1, "y2": max(ys) + 1},
        "classifications": [{"classification": species, "scores": [round(distance[name], 3) for name in SPECIES]}],
    }
