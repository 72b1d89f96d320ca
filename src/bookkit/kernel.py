"""A Jupyter kernel for one chapter: nbval's, with its lessons learned.

nbval waits for a dead kernel until the time limit, throws the kernel's stderr
away, starts whichever `python3` the user has registered, and runs cells
without history, so that a trailing `;` hides nothing and every traceback
says `In[1]`. This one does none of it.
"""

import contextlib
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from queue import Empty

import psutil
from jupyter_client.manager import KernelManager
from nbval.kernel import (
    CURRENT_ENV_KERNEL_NAME,
    NbvalKernelspecManager,
    RunningKernel,
)

# What ipykernel writes when all is well.
_NOISE = ("Kernel is running over TCP", "0.00s - ")


class KernelDied(Exception):
    """The kernel's process ended; the message says how, and its last words."""


def environment(root: Path) -> dict[str, str]:
    """The variables of a kernel: the same floats and figures everywhere."""
    source = str(root / "src")
    path = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([source, path] if path else [source]),
        "OMP_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "BOOKKIT_STRICT": "1",
        # the line that a segmentation fault came from
        "PYTHONFAULTHANDLER": "1",
    }


class BookKernel(RunningKernel):
    """A kernel of this very Python, in the folder of the chapters."""

    def __init__(
        self, root: Path, cwd: Path, *, name: str | None, startup_timeout: float
    ) -> None:
        # Its connection file, IPython profile and last words live and die
        # with it: nothing of the user's configuration changes an output.
        self.folder = tempfile.TemporaryDirectory(prefix="bookkit-kernel-")
        self.log = Path(self.folder.name) / "kernel.log"
        self.km = KernelManager(
            kernel_name=name or CURRENT_ENV_KERNEL_NAME,
            kernel_spec_manager=NbvalKernelspecManager(),
            connection_file=str(Path(self.folder.name) / "connection.json"),
        )
        self.kc = self.km.client()
        try:
            with self.log.open("w") as log:
                self.km.start_kernel(
                    cwd=str(cwd),
                    env={
                        **environment(root),
                        "IPYTHONDIR": str(Path(self.folder.name) / "ipython"),
                    },
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    extra_arguments=["--HistoryManager.hist_file=:memory:"],
                )
            self.kc = self.km.client()
            self.kc.start_channels()
            self.kc.wait_for_ready(timeout=startup_timeout)
            self._ensure_iopub_up()
            info = self.kc.kernel_info(reply=True, timeout=startup_timeout)
            self.language_info = info["content"]["language_info"]
        except RuntimeError as error:
            words = self.last_words()
            self.stop()
            raise KernelDied(f"the kernel did not start: {error}{words}") from (
                error
            )
        except BaseException:
            self.stop()
            raise

    def execute_cell_input(self, cell_input, allow_stdin=None) -> str:
        """Send a cell; as a notebook does, with history."""
        return self.kc.execute(
            cell_input,
            store_history=True,
            allow_stdin=allow_stdin,
            stop_on_error=False,
        )

    def get_message(self, stream, timeout=None):
        """The next message, or a clear error as soon as the kernel is dead."""
        left = float("inf") if timeout is None else timeout
        while True:
            slice_ = min(left, 0.5)
            alive = self.is_alive()
            try:
                return super().get_message(stream, timeout=slice_)
            except Empty:
                left -= slice_
                if not alive:
                    raise KernelDied(self.obituary()) from None
                if left <= 0:
                    raise

    def cpu_seconds(self) -> float:
        """CPU seconds of the kernel and of all its children so far.

        (On macOS a child that has ended is not counted: the system forgets.)
        """
        try:
            kernel = psutil.Process(self.km.provisioner.pid)
            total = sum(kernel.cpu_times()[:4])  # user, system, of children
            for child in kernel.children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    total += sum(child.cpu_times()[:4])
        except psutil.NoSuchProcess:
            raise KernelDied(self.obituary()) from None
        return total

    def obituary(self) -> str:
        """How the kernel's process ended, and what it said last."""
        code = self.km.provisioner.process.poll()
        if code is None:
            how = "the kernel stopped answering"
        elif code < 0:
            how = f"the kernel was killed by {signal.Signals(-code).name}"
            if -code == signal.SIGKILL:
                how += " (out of memory?)"
        else:
            how = f"the kernel ended with exit code {code}"
        return how + self.last_words()

    def last_words(self, count: int = 20) -> str:
        """The end of what the kernel's process wrote to stderr."""
        text = self.log.read_text("utf-8", "replace")
        lines = [
            line
            for line in text.splitlines()
            if line.strip() and not any(noise in line for noise in _NOISE)
        ]
        if not lines:
            return ""
        return "\nIts stderr:\n" + "\n".join(
            f"    {line}" for line in lines[-count:]
        )

    def stop(self) -> None:
        """End the process at once, and forget its files."""
        self.kc.stop_channels()
        if self.km.has_kernel:
            self.km.shutdown_kernel(now=True)
        self.km.cleanup_resources()
        del self.km
        self.folder.cleanup()
