"""`python -m pyg_avig`, also installed as `pyg-avig`."""

import os
import sys
import warnings
from contextlib import suppress


def main() -> int:
    """Run the command line; the exit status."""
    _be_quiet()
    with suppress(FileNotFoundError):  # It may have been removed.
        if os.getcwd() not in sys.path:  # `python -m` has it: data sets of one's own are found.
            sys.path.append(os.getcwd())
    from pyg_avig.commands import front

    try:
        return front.main(sys.argv[1:])
    except BrokenPipeError:  # Whoever reads our output has had enough, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:  # Before a training listens, which takes seconds to import.
        return 130


def _be_quiet() -> None:
    """Keep what dependencies say to each other off the screen, unless Python was told to show it.

    Warnings of this library are shown, and of others what is no deprecation.
    """
    if sys.warnoptions:
        return
    for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
        # By the module that is warned of.
        dependencies = r"(?!pyg_avig\b|__main__\b)"
        warnings.filterwarnings("ignore", category=category, module=dependencies)
    for message in _SAID_TO_NOBODY:
        warnings.filterwarnings("ignore", message=message)


_SAID_TO_NOBODY = (
    r".isinstance\(treespec, LeafSpec\).",  # torch, of Lightning.
    # Lightning, of what is right for small data and machines.
    r"The '.*dataloader' does not have many workers",
    r"The number of training batches",
    r"The dirpath has changed",  # Of checkpoints that are tested from a run of its own.
    "Sparse CS[CR] tensor support is in beta state",
    "Sparse invariant checks are implicitly disabled",
)


if __name__ == "__main__":
    sys.exit(main())
