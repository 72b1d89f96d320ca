"""The lists of what is installed agree with each other and with the code."""

import ast
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bookkit import __main__, pins
from bookkit.book import BookError

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
STATED = {
    canonicalize_name(Requirement(line).name): Requirement(line)
    for line in [*PROJECT["dependencies"], *EXTRAS["book"], *EXTRAS["test"]]
}
PINNED = {
    canonicalize_name(r.name): pins._version(r)
    for r in pins.read(ROOT / "requirements.txt")
}


def test_what_is_pinned_is_stated_and_what_is_stated_is_pinned():
    assert set(PINNED) == set(STATED)


@pytest.mark.parametrize("name", sorted(PINNED))
def test_the_pin_is_in_the_stated_range(name):
    assert STATED[name].specifier.contains(PINNED[name], prereleases=True)


def imports(folder: str) -> set[str]:
    """The third-party packages that a folder's modules import, canonical."""
    distributions = metadata.packages_distributions()
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            else:
                continue
            for name in names:
                owners = distributions.get(name.split(".")[0], [])
                found |= {canonicalize_name(o) for o in owners[:1]}
    return found - {"litformer"}


def test_the_package_imports_only_what_it_states():
    core = {
        canonicalize_name(Requirement(line).name)
        for line in PROJECT["dependencies"]
    }
    assert imports("src/litformer") <= core
    assert "torch" in imports("src/litformer")


# what a package on the list always brings, and hands to us
BROUGHT = {"docutils", "pygments", "sqlalchemy", "sphinx-external-toc"}


@pytest.mark.parametrize("folder", ["src/bookkit", "book/_ext", "tests"])
def test_the_tools_import_only_what_is_pinned(folder):
    assert imports(folder) - BROUGHT <= set(PINNED)


def test_a_learner_needs_only_the_core():
    """`check` works where nothing of the book's own machinery is."""
    core = {
        canonicalize_name(Requirement(line).name)
        for line in PROJECT["dependencies"]
    }
    blocked = []
    for module, owners in metadata.packages_distributions().items():
        names = {canonicalize_name(o) for o in owners}
        if names & (set(PINNED) - core):
            blocked.append(module)
    assert "jupytext" in blocked
    code = (
        f"import sys\nfor name in {blocked!r}: sys.modules[name] = None\n"
        "from bookkit.check import check\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT / "src",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_constraints_are_what_was_tested(monkeypatch, capsys):
    """If this fails, run `python -m bookkit pins` and commit the file."""
    monkeypatch.setenv("BOOK_ROOT", str(ROOT))
    code = __main__.main(["pins", "--check"])
    assert code == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    "name",
    ["requirements.txt", "constraints.txt", "requirements-weights.txt"],
)
def test_no_list_names_a_host(name):
    path = ROOT / name
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = [x for x in text.splitlines() if not x.lstrip().startswith("#")]
    assert not [x for x in lines if "://" in x or "index-url" in x]


def test_pins_are_written_and_compared(tiny_book, capsys):
    tiny_book.write("requirements.txt", "pytest==9\n# x\n-c constraints.txt\n")
    assert __main__.main(["pins"]) == 0
    text = tiny_book.read("constraints.txt")
    assert f"pluggy=={metadata.version('pluggy')}\n" in text
    assert "pytest==" not in text
    assert __main__.main(["pins", "--check"]) == 0
    path = tiny_book.root / "constraints.txt"
    path.write_text(text.replace("pluggy==", "pluggy==0."))
    assert __main__.main(["pins", "--check"]) == 1
    assert "pluggy: 0." in capsys.readouterr().out


@pytest.fixture
def installed(monkeypatch):
    """Packages with these versions and needs, and no others."""

    def put(**packages: tuple[str, list[str]]):
        def distribution(name):
            version, requires = packages[name]
            return SimpleNamespace(version=version, requires=requires)

        monkeypatch.setattr(pins.metadata, "distribution", distribution)

    return put


def test_what_is_needed_in_turn_is_found(installed):
    installed(
        a=("1", ["b>=2", 'c; extra == "more"', 'd; python_version < "3"']),
        b=("2.5", ["a", "e[fast]"]),
        c=("3", []),
        e=("4", ['f; extra == "fast"']),
        f=("5", []),
    )
    plain = pins.indirect([Requirement("a==1")])
    assert plain == {"b": "2.5", "e": "4", "f": "5"}
    more = pins.indirect([Requirement("a[more]==1")])
    assert more == {**plain, "c": "3"}


def test_how_a_wheel_was_built_is_no_version(installed):
    installed(einops=("1", ["torch"]), torch=("2.13.0+cpu", []))
    assert pins.indirect([Requirement("einops==1")]) == {"torch": "2.13.0"}


@pytest.mark.parametrize("line", ["torch>=2", "torch", "torch==2.*"])
def test_a_package_without_a_pin_is_refused(tiny_book, line):
    tiny_book.write("requirements.txt", f"{line}\n")
    with pytest.raises(BookError, match=r"not pinned\. Write torch==VERSION"):
        pins.direct(tiny_book.root)


def test_a_package_that_is_not_here_is_named():
    with pytest.raises(BookError, match="nothing-of-this is not installed"):
        pins.indirect([Requirement("nothing-of-this==1")])
