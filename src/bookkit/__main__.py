"""The command line: `python -m bookkit COMMAND`."""

import argparse
import errno
import importlib
import os
import sys

from bookkit.book import BookError

# command -> (module, one line of help). Each module has
# `add_arguments(parser)` and `main(args) -> int`.
COMMANDS = {
    "export": ("bookkit.export", "write src/litformer from the chapters"),
    "lint": ("bookkit.lint", "lint the package and the chapters' cells"),
    "run": ("bookkit.run", "execute the chapters that changed, as tests"),
    "site": ("bookkit.site", "build the site from what the run saw"),
    "test": ("bookkit.steps", "prove everything, step by step"),
    "study": ("bookkit.study", "write the learner's notebooks"),
    "progress": ("bookkit.progress", "show which exercises are solved"),
    "diagrams": ("bookkit.diagrams", "draw the mermaid diagrams as SVG"),
    "pins": ("bookkit.pins", "pin what the pinned packages bring along"),
    "web": ("bookkit.web", "install the declared third-party web files"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; what a person must mend becomes one message."""
    parser = argparse.ArgumentParser(
        prog="bookkit", description="Makes The Literate Transformer."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    argv = sys.argv[1:] if argv is None else argv
    for name, (module, text) in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text)
        if argv[:1] == [name]:  # import only the command that was asked for
            importlib.import_module(module).add_arguments(sub)
    args = parser.parse_args(argv)
    try:
        module = importlib.import_module(COMMANDS[args.command][0])
        return module.main(args) or 0
    except BookError as error:
        print(f"bookkit {args.command}: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # one that no command knows better about
        print(f"bookkit {args.command}: {_said(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nbookkit {args.command}: interrupted.", file=sys.stderr)
        return 130


def _said(error: OSError) -> str:
    path = error.filename2 or error.filename  # of a copy, where it goes to
    where = f"{path}: " if path else ""
    text = f"{where}{error.strerror or error}."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        text += " Free some space and run the command again."
    trace = error.__traceback__
    while trace.tb_next:  # a mistake of ours is found all the same
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    place = f"{os.path.basename(code.co_filename)}:{trace.tb_lineno}"
    return f"{text} (in {place})"


if __name__ == "__main__":
    sys.exit(main())
