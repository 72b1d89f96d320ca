"""A chapter as nbval's kind of file: its cells are tests that share a kernel.

Apart from `bookkit.nbval_plugin`, so that a pytest session which collects no
chapter imports no notebook library.
"""

from __future__ import annotations

import ast
import difflib
import json
import re
import time
import warnings
from collections import defaultdict

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbval.plugin import IPyNbCell, IPyNbFile, NbCellError

from bookkit import cache
from bookkit.book import Book, BookError, Cell, Chapter, find_root
from bookkit.files import write_atomically
from bookkit.kernel import BookKernel, KernelDied

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_CELL_FRAME = re.compile(r"Cell In\[(\d+)\], line (\d+)")
_MODULE_FRAME = re.compile(r"\S*src/(litformer/\w+)\.py:(\d+)")


class ChapterFailure(Exception):
    """One clear message: where, which cell, what is wrong, how to mend it."""


class ChapterFile(IPyNbFile):
    """A chapter: its cells share one kernel, and one verdict."""

    def collect(self):
        """The source, each code cell, and the chapter as a whole."""
        self.chapter = Chapter(self.path, find_root(self.path.parent))
        try:
            cells = [c for c in self.chapter.cells if c.is_code]
            self.chapter.budget  # noqa: B018  a wrong one is told first
        except BookError as error:
            raise self.CollectError(str(error)) from None
        self.nb = self.chapter.notebook
        self.failed: str | None = None  # where the first failure was
        self.costs: list[tuple[float, float]] = []  # (CPU, wall) by cell
        self.counted: dict[int, ChapterCell] = {}  # by execution count
        self.started = time.perf_counter()
        self.inputs: dict[str, str] = {}
        self.cells = [
            ChapterCell.from_parent(
                self,
                name=f"cell {number}, line {cell.line}",
                cell_num=number,
                cell=cell.node,
                options=defaultdict(
                    bool, check_exception="raises-exception" in cell.tags
                ),
                book_cell=cell,
            )
            for number, cell in enumerate(cells, 1)
        ]
        self.checked = [c for c in self.cells if "check-output" in c.book.tags]
        yield SourceItem.from_parent(self, name="source")
        yield from self.cells
        yield WholeItem.from_parent(self, name="whole chapter")

    def setup(self) -> None:
        """Note what the chapter depends on, before anything is imported."""
        self.started = time.perf_counter()
        self.inputs = cache.inputs(self.chapter)
        self.setup_sanitize_files()

    def get_sanitize_files(self) -> list:
        """The file named on the command line, or that of the book."""
        ours = cache.sanitize_path(self.chapter.root)
        return super().get_sanitize_files() or [ours] * ours.exists()

    def live_kernel(self) -> BookKernel:
        """The kernel, started when the first cell needs it."""
        option = self.config.option
        if self.kernel is None:
            self.kernel = BookKernel(
                self.chapter.root,
                self.path.parent,
                name=option.nbval_kernel_name,
                startup_timeout=option.nbval_kernel_startup_timeout,
            )
        return self.kernel

    def get_kernel_message(self, timeout=None, stream="iopub"):
        """A message of the kernel; soon, once a cell was interrupted."""
        if self.timed_out:  # it may ignore the interruption: do not wait long
            timeout = 3
        return super().get_kernel_message(timeout, stream)

    def teardown(self) -> None:
        """End the kernel, dead or alive."""
        if self.kernel is not None and hasattr(self.kernel, "km"):
            self.kernel.stop()

    # ------------------------------------------------------ the references

    def read_references(self) -> list[dict]:
        """What `check-output` cells must print: their sources and outputs."""
        path = cache.reference_path(self.chapter)
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return [
                {"source": r["source"], "outputs": r["outputs"]} for r in found
            ]
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError) as error:
            raise BookError(
                f"tests/reference/{path.name}: not a file of references "
                f"({error}). {self.how_to_update}"
            ) from error

    @property
    def how_to_update(self) -> str:
        """The command that rewrites the references of this chapter."""
        return (
            "Look at what the cell prints; if it is right, run `python -m "
            f"bookkit run {self.chapter.name} --update-reference`."
        )

    def match_references(self) -> None:
        """Give each `check-output` cell its reference, none left over."""
        left = self.read_references()
        rel = f"tests/reference/{self.chapter.name}.json"
        for item in self.checked:
            source = item.book.source.splitlines()
            for reference in left:
                if reference["source"] == source:
                    item.reference = reference["outputs"]
                    left.remove(reference)
                    break
            else:
                raise item.failure(
                    item.book.where(),
                    "tagged check-output, but its source is not the one in "
                    f"{rel}: the cell is new or has changed",
                    self.how_to_update,
                )
        if left:
            first = (left[0]["source"] or [""])[0]
            raise ChapterFailure(
                f"{self.chapter.rel}: {rel} holds the output of a cell that "
                f"the chapter no longer has (it began `{first}`). "
                + self.how_to_update
            )

    def write_references(self) -> None:
        """Rewrite the reference file from this run; none if none is needed."""
        path = cache.reference_path(self.chapter)
        if not self.checked:
            path.unlink(missing_ok=True)
            return
        found = [
            {
                "source": item.book.source.splitlines(),
                "outputs": comparable(item.cell.outputs),
            }
            for item in self.checked
        ]
        text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
        if not path.exists() or path.read_text("utf-8") != text:
            write_atomically(path, text)

    # ----------------------------------------------------------- the verdict

    def finish(self) -> dict:
        """Hold the chapter to its budget, and write what the site reads."""
        try:
            cpu = self.kernel.cpu_seconds() if self.kernel else 0.0
        except KernelDied as error:
            raise ChapterFailure(f"{self.chapter.rel}: {error}") from None
        if cpu > self.chapter.budget:
            raise ChapterFailure(self.over_budget(cpu))
        if self.config.option.update_reference:
            self.write_references()
            # the rest of the inputs stays as it was when the run began
            now, name = cache.inputs(self.chapter), self.chapter.name
            for rel in (f"{name}.json", "sanitize.cfg"):
                rel = f"tests/reference/{rel}"
                self.inputs.pop(rel, None)
                if rel in now:
                    self.inputs[rel] = now[rel]
        dearest = [(item.book.where(), cost) for cost, item in self.dear()[:1]]
        record = {
            "key": cache.key(self.inputs),
            "inputs": self.inputs,
            "budget": self.chapter.budget,
            "cpu_seconds": round(cpu, 2),
            "wall_seconds": round(time.perf_counter() - self.started, 2),
            "dearest": list(*dearest),
            "cell_wall_seconds": [round(wall, 3) for _, wall in self.costs],
        }
        path = cache.executed_path(self.chapter)
        write_atomically(path, nbformat.writes(self.executed(record)) + "\n")
        return record

    def executed(self, record: dict) -> nbformat.NotebookNode:
        """The notebook as a Jupyter front end would have saved it."""
        for number, item in enumerate(self.cells, 1):
            item.cell.execution_count = number
            for output in item.cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = number
        for number, cell in enumerate(self.nb.cells):
            cell.id = f"cell-{number}"  # jupytext draws them at random
        if self.kernel:  # nbclient sets it, nbval does not
            self.nb.metadata.language_info = self.kernel.language_info
        self.nb.metadata.bookkit = record
        nbformat.validate(self.nb)
        return self.nb

    def dear(self) -> list[tuple[float, ChapterCell]]:
        """The cells with their CPU seconds, dearest first."""
        costs = [round(cpu, 2) for cpu, _ in self.costs]
        pairs = zip(costs, self.cells, strict=True)
        return sorted(pairs, key=lambda pair: -pair[0])

    def over_budget(self, cpu: float) -> str:
        """What to say, with the cells that cost most."""
        chapter = self.chapter
        lines = "".join(
            f"\n    {item.book.where()}: cell {item.cell_num}, {cost:.1f} s"
            for cost, item in self.dear()[:3]
        )
        return (
            f"{chapter.rel}: the chapter took {cpu:.1f} CPU seconds; its "
            f"budget is {chapter.budget:g} (front matter `budget`). Its "
            f"dearest cells:{lines}\n"
            "Make them cheaper; raise the budget only if every reader should "
            "wait that long."
        )


class _OneMessage:
    """What our items share: a skip after a failure, and a plain message."""

    def setup(self):
        if self.parent.failed:
            pytest.skip(f"not run: {self.parent.failed} failed")

    def repr_failure(self, excinfo, style=None):
        if isinstance(excinfo.value, ChapterFailure | BookError):
            return str(excinfo.value)
        return pytest.Item.repr_failure(self, excinfo, "short")

    def reportinfo(self):
        return self.path, None, f"{self.parent.chapter.rel}: {self.name}"


class SourceItem(_OneMessage, pytest.Item):
    """Mistakes that are found without running anything."""

    def runtest(self):
        """Compile each cell; match each `check-output` with its reference."""
        self.parent.failed = f"{self.parent.chapter.rel} (source)"
        for item in self.parent.cells:
            if "raises-exception" not in item.book.tags:
                item.compile()
        if not self.config.option.update_reference:
            self.parent.match_references()
        self.parent.failed = None


class WholeItem(_OneMessage, pytest.Item):
    """The budget, and the executed notebook."""

    def runtest(self):
        """Judge the chapter, if every cell has run."""
        missing = len(self.parent.cells) - len(self.parent.costs)
        if missing:  # chosen by -k, or by the id of one test
            pytest.skip(f"{missing} cells were not run")
        record = self.parent.finish()
        self.user_properties += record.items()


class ChapterCell(_OneMessage, IPyNbCell):
    """A code cell, which knows its place in the chapter."""

    def __init__(self, *, book_cell: Cell, **options):
        super().__init__(**options)
        self.book = book_cell
        self.reference: list[dict] | None = None
        self.output_timeout = 20  # nbval's 5 s fail on a machine under load

    def runtest(self):
        """Run the cell, and compare what is to be compared."""
        file = self.parent
        file.failed = f"{self.book.where()} (cell {self.cell_num})"
        wall, cpu = time.perf_counter(), 0.0
        try:
            kernel = file.live_kernel()
            cpu = kernel.cpu_seconds()
            if not self.cell.source.isspace() and self.cell.source:
                # IPython counts the cells that hold something
                file.counted[len(file.counted) + 1] = self
            super().runtest()
            if not kernel.is_alive():
                raise KernelDied(kernel.obituary())
        except KernelDied as error:
            raise self.failure(self.book.where(), str(error)) from None
        except NbCellError as error:
            raise self.explain(error) from None
        if file.timed_out:  # the interruption passed for the exception
            raise self.too_slow(self.book.where())
        raised = any(o.output_type == "error" for o in self.test_outputs)
        if self.options["check_exception"] and not raised:
            raise self.failure(
                self.book.where(),
                "tagged raises-exception, but nothing was raised",
                "Drop the tag, or let the cell fail as the text says.",
            )
        if self.reference is not None:
            self.compare()
        self.cell.outputs = self.test_outputs
        file.costs.append(
            (kernel.cpu_seconds() - cpu, time.perf_counter() - wall)
        )
        file.failed = None

    def compare(self) -> None:
        """Hold the outputs against the reference, after nbval's sanitizing."""
        got, wanted = comparable(self.test_outputs), self.reference
        if self.compare_outputs(_joined(got), _joined(wanted)):
            return
        lines = difflib.unified_diff(
            self._lines(wanted),
            self._lines(got),
            f"tests/reference/{self.parent.chapter.name}.json",
            "this run",
            lineterm="",
        )
        difference = "".join(f"\n    {line}" for line in lines)
        raise self.failure(
            self.book.where(),
            f"the output has changed:{difference}",
            self.parent.how_to_update,
        )

    def _lines(self, outputs: list[dict]) -> list[str]:
        """Outputs as lines of text, sanitized, for a difference."""
        lines = []
        for output in outputs:
            lines.append(f"[{output.get('name') or output['output_type']}]")
            for key in ("ename", "evalue", "text"):
                lines += self.sanitize("".join(output.get(key, ""))).split("\n")
            plain = output.get("data", {}).get("text/plain", "")
            lines += self.sanitize("".join(plain)).split("\n")
        return [line for line in lines if line]

    def compile(self) -> None:
        """Refuse a syntax error before the first cell is run."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                python = TransformerManager().transform_cell(self.book.source)
                compile(
                    python,
                    self.parent.chapter.rel,
                    "exec",
                    ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
                )
        except SyntaxError as error:
            where = self.book.where(error.lineno or 1)
            raise self.failure(
                where, f"{type(error).__name__}: {error.msg}"
            ) from None

    # ---------------------------------------------------------- in words

    def failure(self, where: str, what: str, advice="") -> ChapterFailure:
        """One message: place, cell, error, the line itself, and what to do."""
        number = int(where.rpartition(":")[2])
        text = self.parent.chapter.text.splitlines()[number - 1]
        head, *rest = what.split("\n")
        return ChapterFailure(
            "\n".join(
                [
                    f"{where}: cell {self.cell_num} of "
                    f"{len(self.parent.cells)}: {head}",
                    f"  > {number} | {text}",
                    *rest,
                    *filter(None, [advice]),
                    f"Edit {where}.",
                ]
            )
        )

    def too_slow(self, where: str) -> ChapterFailure:
        """The failure of a cell that ran past the time limit."""
        limit = self.config.option.nbval_cell_timeout
        return self.failure(
            where,
            f"still running after {limit:g} seconds (the time limit of a "
            "cell, --timeout)",
        )

    def explain(self, error: NbCellError) -> ChapterFailure:
        """A failure in terms of the chapter: its lines, not the kernel's."""
        trace = _ANSI.sub("", error.inner_traceback or "")
        where = self.book.where()
        for count, line in _CELL_FRAME.findall(trace):
            if item := self.parent.counted.get(int(count)):
                where = item.book.where(int(line))  # the innermost stays
        if self.parent.timed_out:
            return self.too_slow(where)
        raised = [o for o in self.test_outputs if o.output_type == "error"]
        if not raised:
            return self.failure(where, str(error))
        what = f"{raised[0].ename}: {raised[0].evalue}"
        advice = ""
        if frames := _MODULE_FRAME.findall(trace):
            module, line = frames[-1]
            advice = self._origin(module, int(line))
        shown = _CELL_FRAME.sub(self._place, trace).strip("\n")
        return self.failure(where, f"{what}\n\n{shown}\n", advice)

    def _place(self, frame: re.Match) -> str:
        item = self.parent.counted.get(int(frame[1]))
        if item is None:
            return frame[0]
        return f"{item.book.where(int(frame[2]))} (cell {item.cell_num})"

    def _origin(self, module: str, line: int) -> str:
        """Where the failing line of a module is written."""
        from bookkit.modules import collect

        place = f"src/{module}.py:{line}"
        try:
            made = collect(Book(self.parent.chapter.root))
            written = made[module.replace("/", ".")].locate(line)
        except (BookError, KeyError):
            return f"It was raised in {place}."
        return f"It was raised in {place}, which is written at {written}."


def comparable(outputs: list) -> list[dict]:
    """The part of outputs that is held against a reference.

    Text only: what was printed, the plain form of a value, the name and the
    message of an error. Pictures and HTML differ between versions of
    libraries in ways that no reader sees.
    """
    kept = []
    for output in outputs:
        entry = {"output_type": output["output_type"]}
        for key in ("name", "ename", "evalue"):
            if key in output:
                entry[key] = output[key]
        if "text" in output:
            entry["text"] = output["text"].splitlines(keepends=True)
        if "data" in output:
            plain = output["data"].get("text/plain", "")
            entry["data"] = {"text/plain": plain.splitlines(keepends=True)}
        kept.append(entry)
    return kept


def _joined(outputs: list[dict]) -> list:
    """The comparable part as nbval wants it: text in one piece."""
    joined = []
    for output in outputs:
        output = dict(output)
        if "text" in output:
            output["text"] = "".join(output["text"])
        if "data" in output:
            plain = "".join(output["data"]["text/plain"])
            output["data"] = {"text/plain": plain}
        joined.append(nbformat.from_dict(output))
    return joined
