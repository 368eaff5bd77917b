"""A progress bar for terminals and notebooks, drawn by tqdm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sandpool._core.progress import BYTES, Step

if TYPE_CHECKING:
    from tqdm import tqdm

Show = Callable[[str, Step], None]
"""Shows a label and a progress."""


@contextmanager
def bar(shown: bool) -> Iterator[Show]:
    """Return a function that shows a label and a progress. If `shown` is False, the function does nothing.

    Raises:
        ModuleNotFoundError: tqdm is not installed.
    """
    if not shown:
        yield lambda _text, _step: None
        return
    drawn = _new_bar()
    try:
        yield lambda text, step: _show(drawn, text, step)
    finally:
        drawn.close()


def _new_bar() -> tqdm[object]:
    try:
        from tqdm.auto import tqdm
    except ImportError as absent:
        raise ModuleNotFoundError(
            "progress=True requires tqdm, which is not installed; run: pip install 'sandpool[progress]'", name="tqdm"
        ) from absent

    class Bar(tqdm):  # type: ignore[type-arg]
        monitor_interval = 0  # Start no monitor thread, which a fork would lose.

    return Bar(dynamic_ncols=True, leave=True)


def _show(drawn: tqdm[object], text: str, step: Step) -> None:
    label = "".join(letter if letter.isprintable() else " " for letter in text)
    changed = (drawn.total, drawn.unit) != (step.total, step.unit) or drawn.desc != f"{label}: "
    if (drawn.total, drawn.unit) != (step.total, step.unit):
        drawn.unit, drawn.unit_scale, drawn.unit_divisor = step.unit, step.unit == BYTES, 1024
        drawn.reset(step.total)
    drawn.set_description(label, refresh=False)
    drawn.update(step.done - drawn.n)
    if changed:
        drawn.refresh()
