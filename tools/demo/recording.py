"""Run a Python session against a server and render it as SVG: the picture in README.md.

Every output in the picture is real. Write the picture again after a change of the session or of the client:

    python3 -m tools.dev run -- .venv/bin/python -m tools.demo.recording --address HOST:PORT
"""

from __future__ import annotations

import argparse
import code
import contextlib
import io
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "assets" / "session.svg"

SESSION = (
    "from sandpool import SandboxClient",
    "client = SandboxClient()",
    "",
    'pool = client.create_pool(image="python:3.11-slim", warm_containers=3)',
    "client.wait_for_pool(pool.pool_id).status.warm",
    "",
    "sandbox = client.create(pool_id=pool.pool_id)",
    'print(f"{sandbox.start_type} start in {sandbox.info.start_duration * 1000:.1f} ms")',
    "",
    """print(sandbox.run("python3 -c 'print(6 * 7)'").stdout)""",
    'sandbox.run(["sleep", "60"], timeout=0.5).timed_out',
    'sandbox.files.write("/srv/data.csv", "a,b\\n1,2\\n").size',
    "print([info.path for info in sandbox.files.glob('/srv/*')])",
    "",
    "sandbox.delete()",
    "client.delete_pool(pool.pool_id)",
)
"""Statements of the session; an empty string is an empty line."""

PROMPT = ">>> "
LINE_HEIGHT, CHARACTER_WIDTH, FONT_SIZE = 20, 8.4, 14
LEFT, TOP, RIGHT, BOTTOM = 20, 58, 20, 18
BACKGROUND, BAR, TEXT, DIM, GREEN = "#1d2129", "#2a303b", "#e6e6e6", "#8a93a3", "#8ccf8f"


@dataclass(frozen=True)
class Line:
    """One line of the terminal."""

    text: str
    is_input: bool = False


def record(statements: tuple[str, ...]) -> list[Line]:
    """Execute the statements like the interactive interpreter, and return the lines of the terminal.

    Raises SystemExit if a statement fails.
    """
    console = code.InteractiveConsole({"__name__": "__console__"})
    lines: list[Line] = []
    for statement in statements:
        lines.append(Line(statement, is_input=True))
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            console.push(statement)
        if errors.getvalue():
            sys.exit(f"{statement!r} failed:\n{errors.getvalue()}")
        lines += [Line(text) for text in output.getvalue().splitlines() if text]
    return lines


def render(lines: list[Line], title: str) -> str:
    """Return the lines as an SVG picture of a terminal."""
    longest = max(len(line.text) + (len(PROMPT) if line.is_input else 0) for line in lines)
    width = round(LEFT + longest * CHARACTER_WIDTH + RIGHT)
    height = TOP + (len(lines) - 1) * LINE_HEIGHT + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f"<title>{escape(title)}</title>",
        "<style>text { font-family: ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; "
        f"font-size: {FONT_SIZE}px; fill: {TEXT}; white-space: pre; }} "
        f".prompt, .title {{ fill: {DIM}; }} .title {{ text-anchor: middle; }} .input {{ fill: {GREEN}; }}</style>",
        f'<rect width="{width}" height="{height}" rx="8" fill="{BACKGROUND}"/>',
        f'<path d="M0 32V8a8 8 0 0 1 8-8h{width - 16}a8 8 0 0 1 8 8v24z" fill="{BAR}"/>',
        f'<text class="title" x="{width / 2:g}" y="21">{escape(title)}</text>',
    ]
    for number, line in enumerate(lines):
        y = TOP + number * LINE_HEIGHT
        if line.is_input:
            parts.append(_text(PROMPT, "prompt", LEFT, y))
        if line.text:
            x = LEFT + (len(PROMPT) * CHARACTER_WIDTH if line.is_input else 0)
            parts.append(_text(line.text, "input" if line.is_input else "output", x, y))
    return "\n".join([*parts, "</svg>", ""])


def _text(text: str, kind: str, x: float, y: int) -> str:
    # textLength makes the columns independent of the font of the reader.
    length = len(text) * CHARACTER_WIDTH
    return f'<text class="{kind}" x="{x:g}" y="{y}" textLength="{length:g}" xml:space="preserve">{escape(text)}</text>'


def main() -> None:
    """Record the session and write the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--address", default=os.environ.get("SANDPOOL_ADDRESS", "127.0.0.1:50051"), help="the server")
    parser.add_argument("--output", type=Path, default=PICTURE, help="the file to write")
    options = parser.parse_args()
    os.environ["SANDPOOL_ADDRESS"] = options.address
    options.output.write_text(render(record(SESSION), "python3"), encoding="utf-8")
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
