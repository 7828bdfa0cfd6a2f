"""Trajectory files: any bytes, any JSON, and good files spoilt a little."""

import random
from typing import Any

from attempt import Case
from values import any_json, any_text, spoil_bytes, spoil_value, to_json, words

FRAMES = 8  # of the tiny checkpoint's videos


def make(rng: random.Random) -> Case:
    arguments = ["--boxes", "path.json"]
    if rng.random() < 0.4:
        arguments += ["--resample"]
    if rng.random() < 0.1:
        arguments += [f"--frames={rng.choice([1, 2, FRAMES, 10_000])}"]
    if rng.random() < 0.1:
        arguments += [f"--prompt={rng.choice([any_text(rng), 'a red ball and a white cross'])}"]
    if rng.random() < 0.1:
        arguments += [f"--subject={rng.choice([any_text(rng), 'red ball'])}"]
    return Case(arguments, {"path.json": content(rng)})


def content(rng: random.Random) -> bytes:
    draw = rng.randrange(10)
    if draw == 0:
        return rng.randbytes(rng.choice([0, 1, 10, 1000]))
    if draw == 1:
        return to_json(any_json(rng))
    if draw == 2:
        return rng.choice([b"[", b'{"a":', b'[{"prompt":']) * rng.choice([10, 1000, 100_000])
    right = document(rng)
    if draw < 5:
        return to_json(right)
    if draw < 8:
        return to_json(spoil_value(rng, right))
    return spoil_bytes(rng, to_json(right))


def document(rng: random.Random) -> dict[str, Any]:
    """A good file, but for a text or a number here and there that is not."""
    names = rng.sample(["red ball", "white cross", "blue star", "ball", "the sky"], rng.choice([1, 1, 1, 2, 3]))
    prompt = " and ".join(names) if rng.random() < 0.8 else any_text(rng)
    if rng.random() < 0.1:
        names[0] = rng.choice([any_text(rng), prompt, words(rng)])
    if rng.random() < 0.02:
        names = [f"ball {i}" for i in range(rng.choice([64, 65]))]
    entries = [{"subject": name, **track(rng)} for name in names]
    return {"prompt": prompt, **entries[0]} if len(entries) == 1 else {"prompt": prompt, "subjects": entries}


def track(rng: random.Random) -> dict[str, Any]:
    if rng.random() < 0.5:
        frames = FRAMES if rng.random() < 0.8 else rng.choice([1, 2, 9, 500])
        return {"boxes": [box(rng) for _ in range(frames)]}
    last = 7 if rng.random() < 0.9 else rng.choice([1, 9999, 10_000, 10**9])
    return {"keyframes": {"0": box(rng), str(rng.randint(1, 6)): box(rng), str(last): box(rng)}}


def box(rng: random.Random) -> list[float] | None:
    if rng.random() < 0.05:
        return None
    x1, y1 = rng.uniform(0, 0.9), rng.uniform(0, 0.9)
    return [x1, y1, rng.uniform(x1 + 0.01, 1), rng.uniform(y1 + 0.01, 1)]
