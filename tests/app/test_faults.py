"""What goes to a terminal is one sentence, whatever the user's own words in it are."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.faults import LONGEST, explain, one_sentence, show_warning


def test_lines_are_joined_and_control_characters_spelt():
    # \x1b[31m would colour the rest of the terminal; a line separator is a space like any other
    assert one_sentence("model\nx: \x1b[31mred\x1b[0m\u2028\t 红 \x85ball") == r"model x: \x1b[31mred\x1b[0m 红 ball"


def test_a_name_with_two_spaces_can_be_copied():
    assert one_sentence("go on:\n --resume 'a  b.unfinished'") == "go on: --resume 'a  b.unfinished'"


def test_a_long_one_keeps_its_beginning_and_its_end():
    told = one_sentence("the subject " + "x" * 10_000 + " is not in the prompt")
    assert len(told) == LONGEST + len(" ... ")
    assert told.startswith("the subject xxx") and told.endswith("xxx is not in the prompt") and " ... " in told


@given(st.text())
def test_any_text_is_one_line(text):
    told = one_sentence(text)
    assert len(told.splitlines()) <= 1 and one_sentence(told) == told


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("unrecognized arguments: a\nb"), "unrecognized arguments: a b"),
        (OSError(errno.ENOENT, "No such file", "new\nline"), "new line: No such file"),
        (KeyError("a bug\n"), None),
    ],
)
def test_a_fault_is_explained_on_one_line(error, sentence):
    assert explain(error) == sentence


def test_a_warning_is_one_line(capsys):
    show_warning(UserWarning("these words are lost: \x1b[2J\nred"))
    assert capsys.readouterr().err == "warning: these words are lost: \\x1b[2J red\n"
