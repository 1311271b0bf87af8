"""`python -m pyg_avig`, also installed as `pyg-avig`."""

import os
import sys
import warnings


def main() -> int:
    """Run the command line; the exit status."""
    # Said by one dependency of another, to nobody who could do anything about it.
    warnings.filterwarnings("ignore", message=r".isinstance\(treespec, LeafSpec\).")
    try:
        from pyg_avig.train import cli
    except ModuleNotFoundError as error:
        print(
            f"pyg-avig: the command line needs {error.name}; "
            "install it with: pip install 'pyg_avig[train]'",
            file=sys.stderr,
        )
        return 2
    try:
        return cli.main()
    except BrokenPipeError:  # Whoever reads our output has had enough, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
