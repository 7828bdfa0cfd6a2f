"""How a command ends: an exit code, at most one sentence, and a traceback for faults of the program alone."""

import errno
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ending import LONGEST, MEMORY_RAN_OUT, exit_code, explain, one_sentence, show_warning


def failing(error):
    def work():
        raise error

    return work


def test_done_is_0(capsys):
    assert exit_code(lambda: warnings.warn("so few", stacklevel=1)) == 0
    assert capsys.readouterr().err == "warning: so few\n"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("no such\nrow"), "no such row"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/a"), "runs/a: No space left on device"),
        (ImportError("finding subjects needs scipy"), "finding subjects needs scipy"),
        (FloatingPointError("latents are not finite"), "latents are not finite"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), MEMORY_RAN_OUT),
    ],
)
def test_what_the_user_can_mend_is_2_and_one_sentence(capsys, error, sentence):
    assert exit_code(failing(error)) == 2
    assert capsys.readouterr().err == f"error: {sentence}\n"


def test_an_interruption_is_130(capsys):
    assert exit_code(failing(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "interrupted: what was made is kept, and the same command goes on from there\n"


def test_a_fault_of_the_program_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        exit_code(lambda: 1 / 0)


# ---- Sentences, whatever the user's own words in them are ------------------------------------------------------------


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
