"""How a command ends: done, interrupted, or with one sentence about what the user can mend. It uses no room."""

import sys
import warnings
from collections.abc import Callable

CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}  # a terminal would obey them
LONGEST = 2000  # characters of a sentence; what is cut out of the middle is something that the user handed over
KEPT = "what was made is kept, and the same command goes on from there"

MEMORY_RAN_OUT = (  # the fractions are those of weights.memory
    "memory ran out; --checkpoint-activations leaves an eighth of what the prior's gradient keeps, "
    "--sequential-guidance half of the U-Net's activations to three fifths, --frames-per-chunk 1 a quarter of the "
    "decoder's, --offload the U-Net alone on the GPU while it works; smaller --frames, --height and --width need less "
    "of all"
)


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


def explain(error: BaseException) -> str | None:
    """One sentence for what the user can mend; None for a fault of the program, whose traceback is wanted."""
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return one_sentence(reason if error.filename is None else f"{error.filename}: {reason}")
    if isinstance(error, ValueError | FloatingPointError):
        return one_sentence(str(error))
    return MEMORY_RAN_OUT if is_out_of_memory(error) else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU's or the machine's memory ran out."""
    import torch  # takes seconds; a slip on the command line is answered before

    return isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or "t allocate memory" in str(error)


def one_sentence(text: str) -> str:
    """Text as it may stand on a terminal, whatever names and words of the user's it repeats: on one line, and short."""
    text = " ".join(line.strip() for line in text.splitlines() if line.strip()).translate(CONTROL)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


def show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """In place of `warnings.showwarning`: one line, above a progress bar if there is one."""
    from tqdm import tqdm

    tqdm.write(f"warning: {one_sentence(str(message))}", file=sys.stderr)
