"""The structure of the documentation: code blocks, links, and references to tests."""

import re
from pathlib import Path

import pytest

from tests.support.doc_code import EXECUTED, OTHER, ROOT, Block, Program, blocks, pages, programs

LINK = re.compile(r"(?<!`)!?\[[^\]]*\]\(([^)\s]+)\)")
DOCS = ROOT / "docs"
DEMANDS = ROOT / "tests" / "user-demands.md"
BASES = (ROOT / "service" / "sandpool_server", ROOT)
"""The directories that paths in the architecture page start from."""


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of the headings, as GitHub builds them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages(), ids=name)
def test_every_code_block_has_a_known_language(page: Path):
    assert not [(block.line, block.language) for block in blocks(page) if block.language not in {*EXECUTED, *OTHER}]


@pytest.mark.parametrize("page", [*pages(), DEMANDS, ROOT / "tests" / "conformance" / "README.md"], ids=name)
def test_every_link_leads_to_a_file_and_a_heading(page: Path):
    for link in LINK.findall(prose(page)):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_index_lists_every_page():
    index = DOCS / "index.md"
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in LINK.findall(index.read_text())}
    assert not {page for page in DOCS.rglob("*.md") if page != index} - linked


def test_the_readme_and_the_tutorial_have_code_in_each_language():
    for page in (ROOT / "README.md", DOCS / "tutorial" / "first-sandbox.md"):
        languages = {program.language for program in programs() if program.page == page}
        assert languages == {"python", "ts", "sh"}, page


def test_the_table_of_user_demands_names_existing_tests():
    file, checked = "", 0
    for quoted in re.findall(r"`([^`]+)`", DEMANDS.read_text()):
        path, separator, test = quoted.partition("::")
        file = path or file
        if not file.startswith("tests/") or not (separator or path.endswith(".py")):
            continue
        text = (ROOT / file).read_text()
        assert not test or re.search(rf"def {test}\(", text), quoted
        checked += 1
    assert checked > 40


def test_the_architecture_page_names_existing_files():
    section = (DOCS / "explanation" / "architecture.md").read_text().partition("## Behaviour and files")[2]
    rows = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("| ")]
    paths = {
        path
        for row in rows
        for path in re.findall(r"`([\w./*{},-]+)`", row.rpartition(" | ")[2])
        if "." in path or "/" in path
    }
    assert len(paths) > 40
    for path in paths:
        for pattern in expanded(path):
            assert any(any(base.glob(pattern)) for base in BASES), pattern


def expanded(path: str) -> list[str]:
    """The path with each alternative of its braces."""
    braces = re.search(r"\{([^}]*)\}", path)
    if braces is None:
        return [path.rstrip("/")]
    return [path.replace(braces[0], choice).rstrip("/") for choice in braces[1].split(",")]


def test_a_program_keeps_the_line_numbers_of_its_page(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(
        "# Title\n\n```python\na = 1\n```\n\n<!-- not run: needs a network -->\n```python\nb\n```\n\n"
        "```python\nprint(a)\n```\n\n```text output\n…1\n```\n"
    )
    first, skipped, last = blocks(page)
    assert (first.line, skipped.not_run, last.line, last.expected) == (4, "needs a network", 13, "…1")
    program = Program(page, "python", (first, last))
    assert program.source.splitlines()[3] == "a = 1"
    assert program.source.splitlines()[12] == "print(a)"


def test_expected_output_is_found_in_order():
    block = Block("python", 1, ("",), expected="one\nt…o")
    program = Program(ROOT / "README.md", "python", (block,))
    assert program.missing("zero\none\nand two\n") is None
    assert program.missing("two\none\n") == "line 1: the output does not contain 't…o'"
