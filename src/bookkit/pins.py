"""`bookkit pins`: pin what the pinned packages bring along.

`requirements.txt` names the packages that the book uses, each with the version
that was tested. What those need in turn is written to `constraints.txt`, from
the environment in which the tests passed, so that an installation of next year
is the one that was tested. No index and no host is named.
"""

import argparse
import re
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bookkit.book import BookError, find_root
from bookkit.files import write_atomically

HEAD = """\
# Versions of what the packages of requirements.txt bring along, as tested.
# Written by `python -m bookkit pins`; a package of another platform that is
# not listed is not constrained.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bookkit pins`."""
    parser.add_argument(
        "--check", action="store_true", help="write nothing; say what differs"
    )


def main(args: argparse.Namespace) -> int:
    """Write `constraints.txt`, or compare it with this environment."""
    root = find_root()
    found = indirect(direct(root))
    path = root / "constraints.txt"
    if not args.check:
        lines = [f"{name}=={version}\n" for name, version in found.items()]
        write_atomically(path, HEAD + "".join(lines))
        print(f"wrote {len(lines)} versions to constraints.txt")
        return 0
    written = {r.name: _version(r) for r in read(path)}
    wrong = [
        f"{name}: {written.get(name, 'nothing')} is written, {version} is here"
        for name, version in found.items()
        if written.get(name) != version
    ]
    print("\n".join([*wrong, f"pins: {len(wrong)} of {len(found)} differ."]))
    return 1 if wrong else 0


def direct(root: Path) -> list[Requirement]:
    """The packages that `requirements.txt` names.

    Raises:
        BookError: one without an exact version.
    """
    found = read(root / "requirements.txt")
    for requirement in found:
        if not _version(requirement):
            raise BookError(
                f"requirements.txt: {requirement} is not pinned. Write "
                f"{requirement.name}==VERSION."
            )
    return found


def read(path: Path) -> list[Requirement]:
    """The requirements in a file; comments and options are left out."""
    lines = path.read_text(encoding="utf-8").splitlines()
    lines = [re.sub(r"(^|\s)#.*", "", line).strip() for line in lines]
    return [Requirement(x) for x in lines if x and not x.startswith("-")]


def indirect(wanted: list[Requirement]) -> dict[str, str]:
    """What the wanted packages need in turn: name -> version installed.

    Raises:
        BookError: a wanted package is not installed.
    """
    named = {canonicalize_name(r.name) for r in wanted}
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    stack = [(r.name, extra) for r in wanted for extra in ("", *r.extras)]
    while stack:
        name, extra = stack.pop()
        key = canonicalize_name(name)
        if (key, extra) in seen:
            continue
        seen.add((key, extra))
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            raise BookError(
                f"{name} is not installed here. Run `make env` and call "
                "`.venv/bin/python -m bookkit pins`."
            ) from None
        if key not in named:
            # "+cpu" says how a wheel was built, not which version it is
            found[key] = distribution.version.partition("+")[0]
        for line in distribution.requires or ():
            need = Requirement(line)
            if not need.marker or need.marker.evaluate({"extra": extra}):
                stack += [(need.name, e) for e in ("", *need.extras)]
    return dict(sorted(found.items()))


def _version(requirement: Requirement) -> str:
    exact = [s.version for s in requirement.specifier if s.operator == "=="]
    return exact[0] if len(exact) == 1 and "*" not in exact[0] else ""
