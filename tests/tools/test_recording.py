"""The terminal recording of README.md."""

from xml.etree import ElementTree

import pytest

from tools.demo.recording import PICTURE, SESSION, Line, record, render


def test_records_the_output_of_each_statement():
    lines = record(("value = 6 * 7", "value", "", "print('a\\n\\nb')"))
    assert lines == [
        Line("value = 6 * 7", is_input=True),
        Line("value", is_input=True),
        Line("42"),
        Line("", is_input=True),
        Line("print('a\\n\\nb')", is_input=True),
        Line("a"),
        Line("b"),
    ]


def test_a_failing_statement_ends_the_recording():
    with pytest.raises(SystemExit, match="ZeroDivisionError"):
        record(("1 / 0",))


def test_renders_well_formed_xml():
    picture = render([Line('print("<&>")', is_input=True), Line("<&>")], "python3 & co")
    root = ElementTree.fromstring(picture)
    assert [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")] == [
        "python3 & co",
        ">>> ",
        'print("<&>")',
        "<&>",
    ]


def test_the_picture_shows_the_current_session():
    texts = ElementTree.parse(PICTURE).getroot().iter("{http://www.w3.org/2000/svg}text")
    assert [text.text for text in texts if text.get("class") == "input"] == [line for line in SESSION if line]
