"""The synthetic world the tiny checkpoint learns: a coloured subject, or two, moving over one of five backgrounds.

A `Scene` is everything that can be said about a video; `render` turns it into pixels, `caption` into words, `boxes`
into the subject's box a frame. All randomness comes from the generator handed in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

FRAMES, HEIGHT, WIDTH = 8, 96, 128
SIZES = HEIGHT / 5, HEIGHT / 2  # of a subject's side, in pixels
GROWS = 0.35  # share of the moving subjects whose size changes on the way

COLORS = {  # of subjects, RGB in [0, 1]
    "red": (0.86, 0.12, 0.12),
    "orange": (1.00, 0.50, 0.05),
    "yellow": (1.00, 0.92, 0.10),
    "white": (0.98, 0.98, 0.98),
    "pink": (1.00, 0.35, 0.75),
    "purple": (0.48, 0.10, 0.70),
}
BACKGROUNDS = {  # top and bottom colour of the vertical shading, and the colour of the patches on it
    "sky": ((0.35, 0.62, 0.92), (0.58, 0.78, 0.95), (0.16, 0.40, 0.82)),
    "grass": ((0.30, 0.55, 0.22), (0.18, 0.42, 0.12), (0.07, 0.22, 0.05)),
    "sand": ((0.76, 0.66, 0.48), (0.66, 0.55, 0.38), (0.48, 0.37, 0.22)),
    "ocean": ((0.05, 0.36, 0.45), (0.02, 0.24, 0.34), (0.12, 0.55, 0.62)),
    "night": ((0.03, 0.03, 0.10), (0.07, 0.08, 0.20), (0.20, 0.22, 0.46)),
}
PATCHES = 0.75  # the most that a patch covers of the shading
WAVES = (20, 44)  # lengths in pixels of the plane waves whose sum says where patches lie
SHAPES = ("ball", "box", "cross", "triangle", "diamond", "ring")
VERBS = {  # by kind of motion
    "still": ("resting", "standing still"),
    "slow": ("drifting", "moving slowly"),
    "fast": ("flying", "racing"),
    "bouncing": ("bouncing", "jumping"),
    "zigzag": ("flying", "racing"),
    "any": ("moving", "gliding"),
}
PATTERNS = (
    "{a} {subject} {verb} over the {background}",
    "{a} {subject} {verb} over the {background}",
    "{a} {subject} is {verb} across the {background}",
    "one {subject} {verb} in front of the {background}",
    "the {background}, with {a} {subject} {verb}",
)


@dataclass(frozen=True)
class Scene:
    """One video. `centers` (F, 2) are x, y in pixels, `size` (F,) is the subject's side in pixels.

    `other` is a second subject: of it only colour, shape, centres and size count.
    """

    color: str
    shape: str
    background: str
    motion: str
    centers: np.ndarray
    size: np.ndarray
    texture_seed: int
    wording: tuple[int, int]  # which pattern, which verb
    other: Scene | None = None

    @property
    def subject(self) -> str:
        return f"{self.color} {self.shape}"

    @property
    def caption(self) -> str:
        """The scene in words, such as "a red ball moving over the grass"."""
        pattern, verb = self.wording
        verbs = VERBS[self.motion] + (VERBS["any"] if self.motion != "still" else ())
        words = PATTERNS[pattern]
        subject = self.subject
        if self.other is not None:
            words = words.replace(" is ", " are ")
            verbs = VERBS["any"]
            subject += f" and {article(self.other.color)} {self.other.subject}"
        return words.format(
            a=article(self.color), subject=subject, verb=verbs[verb % len(verbs)], background=self.background
        )

    @property
    def boxes(self) -> np.ndarray:
        """(F, 4) relative x1 y1 x2 y2 of the subject's extent, clipped to the frame."""
        half = self.size / 2  # (F,)
        x, y = self.centers.T
        edges = np.stack([(x - half) / WIDTH, (y - half) / HEIGHT, (x + half) / WIDTH, (y + half) / HEIGHT], axis=-1)
        return edges.clip(0, 1)


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def held_out(color: str, shape: str, background: str) -> bool:
    """Whether training never sees this combination: 20 of the 180, every colour, shape and background among them."""
    places = (list(COLORS).index(color), SHAPES.index(shape), list(BACKGROUNDS).index(background))
    return (places[0] + 2 * places[1] + 3 * places[2]) % 9 == 0


def sample_scene(rng: np.random.Generator, frames: int = FRAMES, held: bool = False) -> Scene:
    """One random scene, every choice uniform: of the combinations held out from training, or of the others."""
    scene = _any_scene(rng, frames)
    while held_out(scene.color, scene.shape, scene.background) != held:
        scene = _any_scene(rng, frames)
    return scene


def sample_pair(rng: np.random.Generator, frames: int = FRAMES) -> Scene:
    """One random scene with two subjects of one size that differ in colour and shape and never touch."""
    while True:
        scene, other = sample_scene(rng, frames), sample_scene(rng, frames)
        half = scene.size[:, None] / 2
        other = replace(other, size=scene.size, centers=other.centers.clip(half, np.array([WIDTH, HEIGHT]) - half))
        apart = (np.abs(scene.centers - other.centers).max(axis=1) >= scene.size).all()
        differ = scene.color != other.color and scene.shape != other.shape
        known = not held_out(other.color, other.shape, scene.background)
        if apart and differ and known and scene.size.max() <= HEIGHT / 3:
            return replace(scene, other=other)


def _any_scene(rng: np.random.Generator, frames: int) -> Scene:
    motion = rng.choice(["still", "slow", "fast", "bouncing", "zigzag"], p=[0.15, 0.25, 0.25, 0.15, 0.2])
    way = travelled(rng, str(motion), frames)
    first = last = rng.uniform(*SIZES)
    if motion != "still" and rng.random() < GROWS:
        last = rng.uniform(*SIZES)
    size = first + (last - first) * way
    return Scene(
        color=str(rng.choice(list(COLORS))),
        shape=str(rng.choice(SHAPES)),
        background=str(rng.choice(list(BACKGROUNDS))),
        motion=str(motion),
        centers=sample_path(rng, str(motion), size, way),
        size=size,
        texture_seed=int(rng.integers(2**31)),
        wording=(int(rng.integers(len(PATTERNS))), int(rng.integers(4))),
    )


def travelled(rng: np.random.Generator, motion: str, frames: int) -> np.ndarray:
    """How far along its way the subject is in each frame, from 0 to 1 (F,): steadily, or there and back (zigzag)."""
    if motion != "zigzag":
        return np.linspace(0, 1, frames)
    turns = int(rng.integers(2, 7))  # keyframes, at each of which the subject is at one end of its way
    return np.interp(np.arange(frames), np.linspace(0, frames - 1, turns), np.arange(turns) % 2)


def sample_path(rng: np.random.Generator, motion: str, size: np.ndarray, way: np.ndarray) -> np.ndarray:
    """Centres (F, 2) that keep the subject inside the frame: straight, curved, or reflected at the walls."""
    low = np.stack([size / 2, size / 2], axis=-1)  # (F, 2)
    high = np.array([WIDTH, HEIGHT]) - low
    start = rng.uniform(low[0], high[0])
    if motion == "still":
        return np.repeat(start[None], len(way), axis=0)
    time = way[:, None]
    if motion == "bouncing":
        angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(8, 16)  # pixels a frame
        free = start + time * (len(way) - 1) * speed * np.array([np.cos(angle), np.sin(angle)])
        span = high - low
        folded = np.mod(free - low, 2 * span)
        return low + np.minimum(folded, 2 * span - folded)
    far = way.argmax()
    end = rng.uniform(low[far], high[far])
    if motion == "slow":
        end = start + (end - start) * rng.uniform(0.2, 0.5)
    bend = (start + end) / 2 + rng.choice([0.0, 1.0]) * rng.uniform(-0.5, 0.5, 2) * (high - low).min(axis=0)
    path = (1 - time) ** 2 * start + 2 * time * (1 - time) * bend + time**2 * end  # quadratic Bezier
    return path.clip(low, high)


def render(scene: Scene) -> np.ndarray:
    """Pixels of a scene: uint8 (F, HEIGHT, WIDTH, 3)."""
    rng = np.random.default_rng(scene.texture_seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32) + 0.5
    background = _background(scene.background, len(scene.centers), x, y, rng)
    frames = background
    for subject in (scene,) if scene.other is None else (scene, scene.other):
        light = rng.uniform(0.85, 1.0), rng.uniform(0.06, 0.14)  # brightness and strength, from the upper left
        color = np.array(COLORS[subject.color], np.float32)
        for i, (cx, cy) in enumerate(subject.centers.astype(np.float32)):
            half = np.float32(subject.size[i] / 2)
            u, v = (x - cx) / half, (y - cy) / half
            cover = (0.5 - distance(subject.shape, u, v) * half).clip(0, 1)[..., None]
            shade = (light[0] - light[1] * (u + v) / 2).clip(0.7, 1.1)[..., None]
            frames[i] = frames[i] * (1 - cover) + color * shade * cover
    return (frames.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _background(name: str, frames: int, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(F, H, W, 3): vertical shading with patches, which stay, and a light texture; only the ocean's waves move."""
    top, bottom, patches = (np.array(c, np.float32) for c in BACKGROUNDS[name])
    fall = (y / HEIGHT)[..., None]
    base = (top * (1 - fall) + bottom * fall) * np.float32(rng.uniform(0.92, 1.08))
    phase, slant = rng.uniform(0, 2 * np.pi), rng.uniform(-0.3, 0.3)
    texture = np.zeros((frames, HEIGHT, WIDTH), np.float32)
    for i in range(frames):
        if name == "sky":
            texture[i] = 0.04 * np.sin(x / 23 + phase) * np.sin(y / 17 + 2 * phase)
        elif name == "grass":
            texture[i] = 0.03 * np.sin(x / 2.5 + slant * y + phase) * np.sin(y / 9 + phase)
        elif name == "sand":
            texture[i] = 0.03 * np.sin(y / 4 + slant * x / 4 + phase)
        elif name == "ocean":
            texture[i] = 0.035 * np.sin(y / 3.5 + 1.5 * np.sin(x / 20 + phase) + 0.6 * i)
        else:
            texture[i] = 0.02 * np.sin(x / 31 + phase)
    cover = _patches(x, y, rng)[..., None]
    return (base * (1 - cover) + patches * cover)[None] + texture[..., None]


def _patches(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How much of each pixel a patch covers (H, W).

    They are about as large as a subject: a box that moves over a bare background must not look the same everywhere, or
    the temporal prior would find nothing more consistent than a box without its subject.
    """
    height = np.zeros_like(x)
    for _ in range(4):
        angle, length, phase = rng.uniform(0, 2 * np.pi), rng.uniform(*WAVES), rng.uniform(0, 2 * np.pi)
        height += np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / length + phase)
    return (PATCHES / (1 + np.exp(-4 * height))).astype(np.float32)


def distance(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Distance to the shape's edge, negative inside, in units of half the subject's side (exact or a close bound)."""
    if shape == "ball":
        return np.hypot(u, v) - 1
    if shape == "ring":
        return np.abs(np.hypot(u, v) - 0.74) - 0.26
    if shape == "box":
        return np.maximum(np.abs(u), np.abs(v)) - 1
    if shape == "diamond":
        return (np.abs(u) + np.abs(v) - 1) / np.sqrt(np.float32(2))
    if shape == "cross":
        a, b = np.abs(u), np.abs(v)
        return np.minimum(np.maximum(a - 1, b - 0.34), np.maximum(a - 0.34, b - 1))
    if shape == "triangle":  # apex up
        return np.maximum((2 * np.abs(u) - v - 1) / np.sqrt(np.float32(5)), v - 1)
    raise ValueError(f"no shape is called {shape!r}; there are {', '.join(SHAPES)}")
