"""How a command ends: done, interrupted, or with one sentence about what the user can mend."""

import sys
import warnings
from collections.abc import Callable

from app.faults import explain, one_sentence, show_warning

KEPT = "what was made is kept, and the same command goes on from there"


def exit_code(work: Callable[[], None], kept: str = KEPT) -> int:
    """Do the work. 0: done; 2: something that the user can mend, said in one sentence; 130: interrupted.

    A fault of the program is raised as it is, for its traceback is wanted. kept: what an interruption leaves, where
    the KeyboardInterrupt itself says nothing.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            work()
    except KeyboardInterrupt as stop:
        print(f"interrupted: {str(stop) or kept}", file=sys.stderr)
        return 130
    except Exception as error:
        # A package that is not installed is the user's to mend as well.
        sentence = one_sentence(str(error)) if isinstance(error, ImportError) else explain(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        return 2
    return 0
