"""Random texts and JSON, and ways to spoil what was right. Everything is drawn from a `random.Random`."""

import copy
import json
import random
from typing import Any

WORDS = [
    "a",
    "the",
    "red",
    "white",
    "blue",
    "green",
    "ball",
    "cross",
    "star",
    "moving",
    "over",
    "grass",
    "ocean",
    "sky",
]
OTHER_SCRIPTS = ["红色的球", "красный мяч", "كرة حمراء", "λευκός", "ﷺ", "İı", "ΐ", "Ǆ", "e\u0301", "\U0010ffff"]
OTHER_SCRIPTS += ["\U0001f469\u200d\U0001f467", "\u202e", "\ufeff"]  # joined pictures, right to left, byte order mark
MARKUP = ["<|endoftext|>", "<|startoftext|>", "</w>", "!", "{}", "%s %(x)s", "\\", "'", '"', "</script>", "\x1b[31m"]
SURROGATES = ["\ud800", "\udcff", "\udc80x", "ball\udfff"]
NUMBERS = [0, -1, 1, 2, 0.5, -0.0, 1e-320, 1e308, 1e999, -1e999, float("nan"), 2**31, 2**63, -(2**63), 10**40, 3.0]


def words(rng: random.Random, most: int = 8) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, most)))


def any_text(rng: random.Random) -> str:
    """Empty, long, of control characters, of other scripts, of half characters, or quite ordinary."""
    draw = rng.randrange(10)
    if draw == 0:
        return rng.choice(["", " ", "\n", "\t \r\n", "\u3000"])
    if draw == 1:
        return words(rng, rng.choice([50, 500, 5000]))
    if draw == 2:
        return rng.choice(["x", "é", "红", "ab", "?!"]) * rng.choice([100, 3000, 30_000])
    if draw == 3:
        return "".join(chr(rng.randrange(1, 0xA0)) for _ in range(rng.randint(1, 60)))
    if draw == 4:
        return "".join(chr(rng.randrange(1, 0x11_0000)) for _ in range(rng.randint(1, 60)))
    if draw in (5, 6):
        pieces = [rng.choice([*OTHER_SCRIPTS, *MARKUP, *WORDS]) for _ in range(rng.randint(1, 12))]
        return rng.choice([" ", "", "\n"]).join(pieces)
    if draw == 7 and rng.random() < 0.5:
        return f"{words(rng, 3)} {rng.choice(SURROGATES)}"
    return words(rng)


def any_json(rng: random.Random, depth: int = 0) -> Any:
    draw = rng.randrange(7 if depth < 3 else 5)
    if draw == 0:
        return rng.choice([None, True, False])
    if draw in (1, 2):
        return rng.choice(NUMBERS) if rng.random() < 0.5 else rng.randint(-10, 100)
    if draw in (3, 4):
        return any_text(rng) if rng.random() < 0.3 else rng.choice(["", "0", "epsilon", "float16", "../x", "nan"])
    if draw == 5:
        return [any_json(rng, depth + 1) for _ in range(rng.randint(0, 4))]
    names = ["a", "", "0", "prompt", "weight_map"]
    return {rng.choice(names): any_json(rng, depth + 1) for _ in range(rng.randint(0, 3))}


def to_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def spoil_value(rng: random.Random, value: Any) -> Any:
    """A copy in which something, at any depth, is another value, gone, or there twice."""
    value = copy.deepcopy(value)
    places = list(_places(value))
    if not places:
        return any_json(rng)
    holder, key = rng.choice(places)
    draw = rng.randrange(8)
    if draw == 0:
        del holder[key]
    elif draw == 1 and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    elif draw == 1:
        holder[rng.choice(["extra", "_x", "return_dict", str(key).upper(), str(key) + "s"])] = holder[key]
    elif draw == 2:
        holder[key] = [holder[key]]
    elif draw in (3, 4) and isinstance(holder[key], int | float):
        holder[key] = rng.choice([-holder[key], holder[key] + 1, holder[key] * 2, holder[key] / 2, 10**6 * holder[key]])
    else:
        holder[key] = any_json(rng)
    return value


def _places(value: Any) -> list[tuple[Any, Any]]:
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in [(value, key), *_places(value[key])]]


def spoil_bytes(rng: random.Random, content: bytes, within: int | None = None) -> bytes:
    """Cut off, flipped, taken out, doubled or put in, at any place, or within the first bytes."""
    place = rng.randrange(min(len(content), within or len(content)) + 1)
    length = rng.choice([1, 1, 2, 8, 100])
    before, piece, after = content[:place], content[place : place + length], content[place + length :]
    flipped = bytes([piece[0] ^ 1 << rng.randrange(8)]) + piece[1:] if piece else b""
    other = rng.randbytes(length)
    return before + rng.choice([b"", after, piece * 2 + after, other + piece + after, other + after, flipped + after])
