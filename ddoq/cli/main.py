"""The `ddoq` command calls a function by name: its options are the parameters, their help that function's docstring.

Exit status: 0 done; 1 an error, said in one line on stderr (--traceback or DDOQ_TRACEBACK=1 shows where); 2 wrong
usage; 130 Ctrl-C.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence

from ddoq._version import __version__
from ddoq.cli.commands import COMMANDS
from ddoq.machine.extras import EXTRAS

USAGE = f"""\
ddoq {__version__}: a large labelled image data set becomes a small weighted one

usage: ddoq COMMAND [OPTIONS]        (ddoq COMMAND --help explains every option)

  distill DATA OUT     make the small weighted data set, in the run folder OUT; run again, it resumes
  fit DATA OUT         train a codec and a diffusion model on the images, for distill --diffusion OUT; it resumes too
  teacher DATA OUT     train a network on all images, for soft labels: train --teacher OUT
  label RUN OUT        store a teacher's soft labels of every view, for train --labels OUT; it resumes too
  train RUN            train one student on a distilled set, under a protocol, and give its accuracy on a test set
  evaluate RUN ...     table of accuracies: distilled sets and random subsets, weights on and off, several seeds
  weigh FOLDER         W2 of a run to its data; with --data, the best weights for any folder of distilled images
  report RUN           an HTML page of a run: images, weights, distances, a map, accuracies, how to make it again
  info                 version, instruction set, threads
  demo                 all of it on scikit-learn's digits, in under 3 minutes

  --help, --version
  --traceback          show where an error came from (or set DDOQ_TRACEBACK=1)

DATA is a folder with one folder of images per class, or FILE.npz with the arrays images (n, h, w[, channels]; uint8,
or floats in [0, 1]) and labels (n,); x_train and y_train (for a test set x_test and y_test) are read too.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: this process's own) and return the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    traceback = "--traceback" in arguments or os.environ.get("DDOQ_TRACEBACK", "0") not in ("", "0")
    arguments = [argument for argument in arguments if argument != "--traceback"]
    try:
        return _dispatch(arguments)
    except KeyboardInterrupt as interrupt:
        print(f"ddoq: interrupted{_how_to_resume(arguments, interrupt)}", file=sys.stderr)
        return 130
    except Exception as error:
        line = _explain(error)
        if traceback or line is None:
            raise
        print(f"ddoq: error: {line}", file=sys.stderr)
        return 1


def _how_to_resume(arguments: list[str], interrupt: KeyboardInterrupt) -> str:
    if not arguments or arguments[0] in ("report", "info"):
        return ""
    if arguments[0] == "train" and not {"--log", "--checkpoint"} & {text.partition("=")[0] for text in arguments}:
        return "; only with --log or --checkpoint would the same command go on from here"
    if arguments[0] in ("train", "teacher"):
        return f"; {interrupt}: the same command goes on from here" if interrupt.args else ""
    return "; the same command goes on from here"


def _dispatch(arguments: list[str]) -> int:
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if command == "--version":
        print(f"ddoq {__version__}")
        return 0
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        print(f"ddoq: {command!r} is not a command{hint}\n\n{USAGE}", file=sys.stderr, end="")
        return 2
    COMMANDS[command](rest)
    return 0


def _explain(error: Exception) -> str | None:
    """Return an error as one message for a user; None for what can only be a bug."""
    from ddoq.storage.files import RunError

    if isinstance(error, ModuleNotFoundError):
        module = (error.name or "").split(".")[0]
        if module in EXTRAS:
            return f"{module} is not installed: pip install 'ddoq[{EXTRAS[module]}]'"
        return str(error) if "ddoq[" in str(error) else None
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.strerror}: {error.filename}"
    if isinstance(error, ValueError | TypeError | RunError | OSError | MemoryError):
        return str(error) or ("out of memory" if isinstance(error, MemoryError) else type(error).__name__)
    return None
