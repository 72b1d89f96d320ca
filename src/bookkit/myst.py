"""Blocks of MyST Markdown: which lines are a directive's, and which are text.

Enough of the grammar to take a chapter's prose apart and to name the line of
every part; the site itself is built by the real parser.
"""

import re
from dataclasses import dataclass, field

_FENCE = re.compile(
    r"^(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,}|:{3,})(?P<info>.*)$"
)
_NAME = re.compile(r"^\{(?P<name>[^\s{}]+)\}[ \t]*(?P<arg>.*)$")
_OPTION = re.compile(r"^:(?P<key>[\w-]+):(?:[ \t]+(?P<value>.*))?$")


@dataclass
class Text:
    """Lines that are no directive: paragraphs, lists, maths, plain code."""

    text: str
    line: int  # 1-based, of the first line


@dataclass
class Directive:
    """A fenced `{name} argument`, its options and its content."""

    name: str
    argument: str
    options: dict[str, str] = field(repr=False)
    body: str = field(repr=False)
    line: int  # of the opening fence
    body_line: int  # of the first line of `body`
    indent: str = field(default="", repr=False)


class Unclosed(ValueError):
    """A fence that never ends; `line` says where it begins."""

    def __init__(self, line: int, fence: str) -> None:
        super().__init__(f"the fence {fence} is never closed")
        self.line = line


def blocks(text: str, line: int = 1) -> list[Text | Directive]:
    """`text`, whose first line is number `line`, taken apart at one level.

    The body of a directive is taken apart by calling this again on it.
    """
    lines = text.split("\n")
    found: list[Text | Directive] = []
    pending: list[str] = []

    def flush(at: int) -> None:
        if any(p.strip() for p in pending):
            found.append(Text("\n".join(pending), line + at - len(pending)))
        pending.clear()

    i = 0
    while i < len(lines):
        match = _FENCE.match(lines[i])
        # "```a``` b" is a code span, not a fence
        if not match or (match["fence"][0] == "`" and "`" in match["info"]):
            pending.append(lines[i])
            i += 1
            continue
        end = _closing(lines, i, match)
        named = _NAME.match(match["info"].strip())
        if not named and match["fence"][0] == ":":  # a stray closing fence
            pending.append(lines[i])
            i += 1
            continue
        if end is None:
            raise Unclosed(line + i, match["fence"])
        if named:
            flush(i)
            inner = [
                x.removeprefix(match["indent"]) for x in lines[i + 1 : end]
            ]
            options, skip = _options(inner)
            found.append(
                Directive(
                    name=named["name"],
                    argument=named["arg"].strip(),
                    options=options,
                    body="\n".join(inner[skip:]),
                    line=line + i,
                    body_line=line + i + 1 + skip,
                    indent=match["indent"],
                )
            )
        else:  # plain code: directives in it are only shown
            pending.extend(lines[i : end + 1])
        i = end + 1
    flush(len(lines))
    return found


def _closing(lines: list[str], start: int, opening: re.Match) -> int | None:
    """The line that closes a fence: the same character, at least as many."""
    fence = opening["fence"]
    close = re.compile(rf"^[ \t]*{re.escape(fence[0])}{{{len(fence)},}}[ \t]*$")
    for i in range(start + 1, len(lines)):
        if close.match(lines[i]):
            return i
    return None


def _options(body: list[str]) -> tuple[dict[str, str], int]:
    """`:key: value` lines on top, and how many lines to skip with them."""
    options: dict[str, str] = {}
    key = ""
    i = 0
    while i < len(body):
        if match := _OPTION.match(body[i]):
            key = match["key"]
            options[key] = (match["value"] or "").strip()
        elif key and re.match(r"^:?[ \t]{2,}\S", body[i]):  # a folded value
            more = body[i].removeprefix(":").strip()
            options[key] = f"{options[key]} {more}".strip("|> ")
        else:
            break
        i += 1
    if options and i < len(body) and not body[i].strip():
        i += 1
    return options, i
