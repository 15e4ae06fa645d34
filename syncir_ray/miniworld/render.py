"""Scene -> pixels. Where an object stands in its quarter, its turn, its shade, the light, the texture and the
noise are random, so that no two renderings of a scene are near each other pixel by pixel."""

import colorsys
import math

import numpy as np
from PIL import Image, ImageDraw

from syncir_ray.miniworld.scene import Object, Scene

SIDE = 96  # pixels of an image's side
FINE = 2  # drawn so many times larger, then averaged: smooth edges
RADIUS = {"small": 9.5, "large": 17.5}  # pixels
# hue in degrees, saturation, value
PAINT = {
    "red": (358, 0.92, 0.88), "orange": (27, 0.95, 0.97), "yellow": (55, 0.92, 0.98), "green": (128, 0.85, 0.62),
    "blue": (222, 0.88, 0.85), "purple": (280, 0.75, 0.62), "pink": (328, 0.45, 0.98), "white": (0, 0.0, 0.99),
}  # fmt: skip
GROUND = {
    "grass": (96, 0.45, 0.52), "sand": (40, 0.38, 0.82), "water": (196, 0.50, 0.66), "snow": (205, 0.07, 0.86),
    "brick": (14, 0.48, 0.55), "asphalt": (220, 0.06, 0.36),
}  # fmt: skip
OUTLINE = (24, 22, 30)


def render(scene: Scene, seed: int) -> np.ndarray:
    """(SIDE, SIDE, 3) uint8. The same scene and seed give the same bytes; another seed, other nuisance."""
    random = np.random.default_rng([seed, 0x5CE2E])
    canvas = Image.fromarray(_ground(scene.background, random)).resize(
        (SIDE * FINE,) * 2, Image.Resampling.BILINEAR
    )
    draw = ImageDraw.Draw(canvas)
    for place in scene.places:
        thing = scene.at[place]
        assert thing is not None
        _object(draw, thing, place, random)
    pixels = np.asarray(canvas.reduce(FINE), np.float32)
    # light: brighter on one side, of any direction, and brighter or darker as a whole
    angle, strength = random.uniform(0, 2 * math.pi), random.uniform(0, 0.22)
    ramp = np.linspace(-1, 1, SIDE, dtype=np.float32)
    light = 1 + strength * (math.cos(angle) * ramp[None, :] + math.sin(angle) * ramp[:, None]) / math.sqrt(2)
    tint = random.uniform(0.95, 1.05, 3) * random.uniform(0.85, 1.12)
    noise = random.normal(0, random.uniform(2, 9), pixels.shape)
    return np.clip(pixels * light[..., None] * tint + noise, 0, 255).round().astype(np.uint8)


def _ground(name: str, random: np.random.Generator) -> np.ndarray:
    """(SIDE, SIDE, 3) uint8: a colour with a texture of its own."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    phase, scale = random.uniform(0, 2 * math.pi, 2), random.uniform(0.85, 1.2)
    if name == "grass":
        texture = 0.5 * np.repeat(random.normal(0, 1, (SIDE // 6, SIDE)), 6, axis=0)
    elif name == "sand":
        texture = random.normal(0, 0.55, (SIDE, SIDE))
    elif name == "water":
        texture = 0.9 * np.sin(scale * y / 2.6 + 1.5 * np.sin(x / 11 + phase[0]) + phase[1])
    elif name == "snow":
        texture = 0.7 * np.sin(x / 17 * scale + phase[0]) * np.sin(y / 19 * scale + phase[1])
    elif name == "brick":
        row = (y + 3 * phase[0]) // 10
        seam = ((y + 3 * phase[0]) % 10 < 1.6) | ((x + 10 * (row % 2) + 3 * phase[1]) % 20 < 1.6)
        texture = np.where(seam, 1.6, -0.3) + random.normal(0, 0.25, (SIDE, SIDE))
    else:
        texture = np.where(random.random((SIDE, SIDE)) < 0.06, 2.2, 0.0) + random.normal(0, 0.3, (SIDE, SIDE))
    colour = _shade(GROUND[name], random, 4, 0.05)
    return np.clip(colour * (1 + 0.16 * texture[..., None]), 0, 255).astype(np.uint8)


def _shade(
    paint: tuple[float, float, float], random: np.random.Generator, turn: float, change: float
) -> np.ndarray:
    """RGB, 0 to 255, of a colour near `paint`."""
    hue, saturation, value = paint
    hue = (hue + random.uniform(-turn, turn)) / 360 % 1
    near = np.clip([saturation, value] * (1 + random.uniform(-change, change, 2)), 0, 1)
    return 255 * np.array(colorsys.hsv_to_rgb(hue, *near))


def _object(draw: ImageDraw.ImageDraw, thing: Object, place: int, random: np.random.Generator) -> None:
    radius = RADIUS[thing.size] * random.uniform(0.9, 1.1) * FINE
    quarter = SIDE * FINE / 2
    room = max(0.0, quarter / 2 - radius - FINE)
    middle = quarter * (np.array([place % 2, place // 2]) + 0.5) + random.uniform(-1, 1, 2) * room
    fill = tuple(int(v) for v in _shade(PAINT[thing.colour], random, 5, 0.06))
    for points in _outlines(thing.shape, radius, random.uniform(-0.22, 0.22)):
        draw.polygon([tuple(point) for point in points + middle], fill=fill, outline=OUTLINE, width=FINE)
    if thing.shape == "ring":
        # what is seen through it: the ground beside it, flat
        hole = _outlines("circle", 0.5 * radius, 0.0)[0] + middle
        x, y = (int(np.clip(v, 0, SIDE * FINE - 1)) for v in middle + np.array([0, radius + 2 * FINE]))
        seen = draw._image.getpixel((x, y))
        draw.polygon([tuple(point) for point in hole], fill=seen, outline=OUTLINE, width=FINE)


def _outlines(shape: str, radius: float, turn: float) -> list[np.ndarray]:
    """The polygons of a shape around (0, 0), in canvas pixels: arrays (n, 2)."""
    if shape in ("circle", "ring"):
        corners = _corners(40, radius, turn)
    elif shape == "square":
        corners = _corners(4, 1.12 * radius, turn + math.pi / 4)
    elif shape == "triangle":
        corners = _corners(3, 1.15 * radius, turn - math.pi / 2) + np.array([0, 0.12 * radius])
    elif shape == "star":
        corners = _corners(10, 1.15 * radius, turn - math.pi / 2)
        corners[1::2] *= 0.42
    else:
        arm, reach = 0.32 * radius, radius
        cross = [(arm, arm), (reach, arm), (reach, -arm), (arm, -arm)]
        corners = np.array(cross)
        quarter = np.array([[0, -1], [1, 0]])
        parts = [corners]
        for _ in range(3):
            parts.append(parts[-1] @ quarter)
        corners = np.concatenate(parts) @ _turned(turn)
    return [corners]


def _corners(count: int, radius: float, turn: float) -> np.ndarray:
    angles = turn + 2 * math.pi * np.arange(count) / count
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _turned(angle: float) -> np.ndarray:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, sin], [-sin, cos]])
