"""`python -m pyg_avig`, also installed as `pyg-avig`."""

import sys


def main() -> int:
    """Run the command line; the exit status."""
    try:
        from pyg_avig.train import cli
    except ModuleNotFoundError as error:
        print(
            f"pyg-avig: the command line needs {error.name}; "
            "install it with: pip install 'pyg_avig[train]'",
            file=sys.stderr,
        )
        return 2
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
