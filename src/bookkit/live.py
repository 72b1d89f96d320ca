"""What a person sees while the chapters run."""

import sys
import threading
import time
from dataclasses import dataclass, field


@dataclass
class Lane:
    """A chapter on its way: what is expected, and how far it is."""

    name: str
    parts: int  # tests: each cell, and what stands before and after them
    expected: list[float]  # wall seconds of each part in an earlier run
    guess: float  # wall seconds of the whole, if there was none
    started: float | None = None
    latest: float = 0.0  # when the last part was done
    done: int = 0  # parts
    ended: bool = False

    def start(self) -> None:
        """The first part begins."""
        if self.started is None:
            self.started = self.latest = time.monotonic()

    def step(self) -> None:
        """A part is done."""
        self.start()
        self.done += 1
        self.latest = time.monotonic()

    def left(self, now: float) -> float:
        """Wall seconds that it still needs, as far as can be known.

        A machine that is slower today than in the earlier run is believed to
        stay so.
        """
        if self.ended:
            return 0.0
        spent = 0.0 if self.started is None else now - self.started
        if len(self.expected) != self.parts:  # never run, or changed
            rest = self.guess - spent
            if self.done:
                here = (self.latest - self.started) / self.done
                rest = max(rest, here * (self.parts - self.done))
            return max(rest, 0.0)
        before = sum(self.expected[: self.done])
        pace = 1.0
        if before > 2:  # seconds; less is noise
            pace = max(1.0, (self.latest - self.started) / before)
        current, *later = self.expected[self.done :] or [0.0]
        running = now - self.latest if self.started else 0.0
        return max(current * pace - running, 0.0) + sum(later) * pace


@dataclass
class Live:
    """Lines for what is finished, and one moving line for what is not.

    On a terminal the moving line is redrawn each second; elsewhere (a log) a
    line is written every `pause` seconds, so that a long run never looks
    dead.
    """

    lanes: dict[str, Lane]
    workers: int
    stream: object = field(default_factory=lambda: sys.stdout)
    pause: float = 15.0

    def __enter__(self) -> "Live":
        self.moving = self.stream.isatty()
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.width = 0
        self.thread = threading.Thread(target=self._tick, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.over.set()
        self.thread.join()
        with self.lock:
            self._erase()

    def line(self, text: str) -> None:
        """Write a line that stays."""
        with self.lock:
            self._erase()
            print(text, file=self.stream, flush=True)

    def start(self, name: str) -> None:
        """A chapter has begun."""
        self.lanes[name].start()

    def eta(self) -> float:
        """Wall seconds until all is done, as far as can be known."""
        now = time.monotonic()
        left = [lane.left(now) for lane in self.lanes.values()]
        return max(sum(left) / self.workers, max(left, default=0.0))

    def status(self) -> str:
        """The moving line."""
        now = time.monotonic()
        running = [
            f"{lane.name} {lane.done}/{lane.parts} {now - lane.started:.0f} s"
            for lane in self.lanes.values()
            if lane.started is not None and not lane.ended
        ]
        ended = sum(lane.ended for lane in self.lanes.values())
        between = "ending" if ended == len(self.lanes) else "starting"
        parts = running or [between]
        parts.append(f"{ended} of {len(self.lanes)} done")
        parts.append(f"about {duration(self.eta())} left")
        return "  " + " | ".join(parts)

    def _tick(self) -> None:
        while not self.over.wait(1.0 if self.moving else self.pause):
            with self.lock:
                text = self.status()
                if not self.moving:
                    print(text, file=self.stream, flush=True)
                    continue
                self._erase()
                print(text[:79], end="", file=self.stream, flush=True)
                self.width = min(len(text), 79)

    def _erase(self) -> None:
        if self.width:
            blank = " " * self.width
            print(f"\r{blank}\r", end="", file=self.stream, flush=True)
            self.width = 0


def duration(seconds: float) -> str:
    """`40 s`, `3 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"
