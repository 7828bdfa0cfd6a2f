"""How a command ends: an exit code, at most one sentence, and a traceback for faults of the program alone."""

import errno
import warnings

import pytest
import torch

from app.ending import exit_code
from app.faults import MEMORY_RAN_OUT


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
