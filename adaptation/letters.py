"""What any text must be before a tokenizer, or a file in UTF-8, is asked to take it."""

import reprlib

MAX_TEXT = 50_000  # characters of a prompt, of which a few dozen words are read


def check_letters(what: str, text: str) -> None:
    """Refuse what no tokenizer and no file in UTF-8 can take, or only in a long time."""
    if len(text) > MAX_TEXT:
        raise ValueError(f"{what} has {len(text)} characters, more than the {MAX_TEXT} that are allowed")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"{what} holds half a character, a lone surrogate, in {reprlib.repr(text)}; write it in UTF-8")
