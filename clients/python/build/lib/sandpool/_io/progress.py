"""A bar that shows how far something is: one line, written anew, which terminals and notebooks show alike."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

_WIDTH = 24
_LINE = 100

Show = Callable[[str, "float | None"], None]
"""Shows a text, and a share from 0 to 1, or None where it is not known."""


@contextmanager
def bar(shown: bool, out: TextIO | None = None) -> Iterator[Show]:
    """Gives what shows a text and a share from 0 to 1; where `shown` is false that does nothing."""
    if not shown:
        yield lambda _text, _share: None
        return
    target = out or sys.stderr
    last = ""

    def show(text: str, share: float | None) -> None:
        nonlocal last
        line = render(text, share)
        if line != last:
            last = line
            target.write(f"\r{line:<{_LINE}}")
            target.flush()

    try:
        yield show
    finally:
        if last:
            target.write("\n")
            target.flush()


def render(text: str, share: float | None) -> str:
    """The line: the bar, per cent, and the text, cut to one line."""
    if share is None:
        head = f"[{'·' * _WIDTH}]      "
    else:
        full = round(share * _WIDTH)
        head = f"[{'█' * full}{' ' * (_WIDTH - full)}] {share:4.0%} "
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return (head + plain)[:_LINE]
