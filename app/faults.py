"""What is said when a run cannot begin or go on: one sentence, and how to resume it."""

import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}  # a terminal would obey them
LONGEST = 2000  # characters of a sentence; what is cut out of the middle is something that the user handed over

MEMORY_RAN_OUT = (  # the fractions are those of weights.memory
    "memory ran out; --checkpoint-activations leaves a sixth of what the prior's gradient keeps, --sequential-guidance "
    "half of the U-Net's activations, --frames-per-chunk 1 a quarter of the decoder's, --offload the U-Net alone on "
    "the GPU while it works; smaller --frames, --height and --width need less of all"
)


def one_sentence(text: str) -> str:
    """Text as it may stand on a terminal, whatever names and words of the user's it repeats: on one line, and short."""
    text = " ".join(line.strip() for line in text.splitlines() if line.strip()).translate(CONTROL)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


def explain(error: BaseException) -> str | None:
    """One sentence for what the user can mend; None for a fault of the program, whose traceback is wanted."""
    sentence = _explain(error)
    return None if sentence is None else one_sentence(sentence)


def _explain(error: BaseException) -> str | None:
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return reason if error.filename is None else f"{error.filename}: {reason}"
    if isinstance(error, ValueError):
        return str(error)
    import torch  # takes seconds; a slip on the command line is answered before

    from sampling.sampler import NonFinite

    if isinstance(error, NonFinite):
        return str(error)
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or "t allocate memory" in str(error):
        return MEMORY_RAN_OUT
    return None


@contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Whatever stops a run in `folder` ends in a message with the command that goes on.

    Where going on would end in the same place, nothing is left behind: numbers that are not finite, and what is
    refused before the first step.
    """
    from app.unfinished import STATE
    from sampling.sampler import NonFinite

    how = f"to go on: python train_free.py --resume {shlex.quote(str(folder))}"
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"finished runs are kept; {how}") from None
    except Exception as error:
        sentence = explain(error)
        if sentence is None:
            print(how, file=sys.stderr)  # above the traceback
            raise
        refused = isinstance(error, ValueError) and not (folder / STATE).exists()
        if refused or isinstance(error, NonFinite):
            shutil.rmtree(folder, ignore_errors=True)
            raise
        also = ", with any of these but another size" if sentence == MEMORY_RAN_OUT else ""
        raise ValueError(f"{sentence}; {how}{also}") from error


def show_warning(message: Warning | str, *_: object) -> None:
    """In place of `warnings.showwarning`: one line, above a progress bar if there is one."""
    from tqdm import tqdm

    tqdm.write(f"warning: {one_sentence(str(message))}", file=sys.stderr)
