"""The JSON form of a trajectory: bytes to plain values and back. What a box may be is `trajectory.py`'s to judge.

The one place of this room where a file is read: `Trajectory.load` is part of what a caller may rely on.

One subject, with a box for every frame, or with keyframes in between which boxes move linearly:

    {"prompt": "a red ball moving over the grass", "subject": "red ball", "boxes": [[0.1, 0.4, 0.4, 0.8], ...]}
    {"prompt": "a red ball moving over the grass", "subject": "red ball", "keyframes": {"0": [...], "7": [...]}}

Several subjects:

    {"prompt": "a cat and a dog", "subjects": [{"subject": "cat", "keyframes": ...}, {"subject": "dog", "boxes": ...}]}

A box is x1 y1 x2 y2 relative to the frame, from 0 to 1; null in its place = the subject is absent in that frame, or
from that keyframe until the next one.
"""

import json
import re
import reprlib
from collections import Counter
from pathlib import Path
from typing import NoReturn

from adaptation.letters import check_letters

# Far above any real video, and low enough that no file can ask for much memory.
MAX_BYTES = 4 * 2**20
MAX_FRAMES = 10_000
MAX_SUBJECTS = 64

# One subject's path: a list with a box for each frame, or {frame: box}. The boxes themselves are not checked here.
Track = list[object] | dict[int, object]


def read_bytes(path: str | Path) -> bytes:
    """The file's content; a file that cannot be read or is absurdly large is a ValueError."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"the trajectory file cannot be read ({error.strerror})") from None
    if len(content) > MAX_BYTES:
        raise ValueError(f"the file is larger than {MAX_BYTES // 2**20} MiB; a trajectory needs a line for each frame")
    return content


def parse(content: bytes) -> tuple[str, list[str], list[Track]]:
    """Prompt, subjects and tracks from a file's bytes, whatever they are; a fault is a ValueError of one sentence."""
    document = _parse_json(content)
    if not isinstance(document, dict):
        raise ValueError(
            f"a trajectory is a JSON object with a prompt, subject and boxes, not {reprlib.repr(document)}"
        )
    if "subjects" not in document:
        _check_keys(document, ("prompt", "subject", "boxes", "keyframes"), "the file")
        entries = [document]
    else:
        _check_keys(document, ("prompt", "subjects"), "a file with 'subjects'")
        entries = document["subjects"]
        if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_SUBJECTS:
            raise ValueError(f"'subjects' is a list of 1 to {MAX_SUBJECTS} subjects, not {reprlib.repr(entries)}")
        for k, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise ValueError(
                    f"entry {k} of 'subjects' is an object with subject and boxes, not {reprlib.repr(entry)}"
                )
            _check_keys(entry, ("subject", "boxes", "keyframes"), f"entry {k} of 'subjects'")
    prompt = _text(document, "prompt")
    subjects = [_text(entry, "subject") for entry in entries]
    tracks = [_track(entry, subject) for entry, subject in zip(entries, subjects, strict=True)]
    return prompt, subjects, tracks


def dump(prompt: str, subjects: list[str], tracks: list[list[list[float] | None]]) -> bytes:
    """The file's bytes, a line for each box."""
    entries = []
    for subject, track in zip(subjects, tracks, strict=True):
        rows = ",\n    ".join(json.dumps(box) for box in track)
        entries.append(f'"subject": {_quote(subject)},\n  "boxes": [\n    {rows}\n  ]')
    several = '"subjects": [\n  {' + "},\n  {".join(entries) + "}\n  ]"
    body = entries[0] if len(entries) == 1 else several
    return f'{{\n  "prompt": {_quote(prompt)},\n  {body}\n}}\n'.encode("utf-8", "backslashreplace")


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _parse_json(content: bytes) -> object:
    """JSON without its traps: no NaN or Infinity, no key twice, every number a float."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"the file is not UTF-8 text (byte {error.start})") from None
    try:
        return json.loads(text, parse_int=float, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        raise ValueError(f"the file is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise ValueError("the file nests its lists or objects too deeply for a trajectory") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"the file holds {name}, which is not a number of JSON; null marks an absent subject")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if repeated := [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]:
        raise ValueError(f"the key {reprlib.repr(repeated[0])} stands more than once in one object")
    return dict(pairs)


def _check_keys(members: dict[str, object], known: tuple[str, ...], where: str) -> None:
    unknown = [key for key in members if key not in known]
    if unknown:
        raise ValueError(f"{where} has the unknown key {reprlib.repr(unknown[0])}; known are {', '.join(known)}")


def _text(members: dict[str, object], key: str) -> str:
    """A text that says something."""
    value = members.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key!r} is a text of at least one word, not {reprlib.repr(value)}")
    check_letters(repr(key), value)
    return value


def _track(entry: dict[str, object], subject: str) -> Track:
    """`boxes` as a list, or `keyframes` with frame numbers for keys."""
    where = f"subject {reprlib.repr(subject)}"
    if ("boxes" in entry) == ("keyframes" in entry):
        raise ValueError(f"{where} needs either 'boxes', one for each frame, or 'keyframes'")
    if "boxes" in entry:
        boxes = entry["boxes"]
        if not isinstance(boxes, list) or not 1 <= len(boxes) <= MAX_FRAMES:
            raise ValueError(f"{where}: 'boxes' is a list of 1 to {MAX_FRAMES} boxes, not {reprlib.repr(boxes)}")
        return boxes
    keyframes = entry["keyframes"]
    if not isinstance(keyframes, dict) or not keyframes:
        raise ValueError(f"{where}: 'keyframes' is an object of frame numbers and boxes, not {reprlib.repr(keyframes)}")
    for key in keyframes:
        if not re.fullmatch("0|[1-9][0-9]{0,8}", key) or int(key) >= MAX_FRAMES:
            raise ValueError(f"{where}: keyframe {reprlib.repr(key)} is not a frame number from 0 to {MAX_FRAMES - 1}")
    return {int(key): box for key, box in keyframes.items()}
