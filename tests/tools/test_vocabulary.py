"""The check of the vocabulary in `tools/prose`."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.dev.paths import REPO

PROSE = REPO / "tools" / "prose"
VOCABULARY = tomllib.loads((PROSE / "vocabulary.toml").read_text())
FINDING = re.compile(r"(?P<path>.*):(?P<line>\d+):(?P<column>\d+): (?P<text>.*) \((?P<term>[^()]*)\)")

Finding = tuple[str, int, int, str]
"""The path, line, column and term of a finding."""


def run(script: Path, *argv: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["node", script, *argv], capture_output=True, text=True, check=False, timeout=60, cwd=cwd)


def lint(clone: Path, files: dict[str, str]) -> list[Finding]:
    """Write files into an empty clone and return the findings in them."""
    (clone / ".git").mkdir(exist_ok=True)
    for name, text in files.items():
        path = clone / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    done = run(PROSE / "lint.mjs", *files, cwd=clone)
    found = [match for line in done.stdout.splitlines() if (match := FINDING.fullmatch(line))]
    assert len(found) == len(done.stdout.splitlines()), done.stdout
    assert done.returncode == (1 if found else 0), done.stderr
    return [
        (Path(match["path"]).relative_to(clone).as_posix(), int(match["line"]), int(match["column"]), match["term"])
        for match in found
    ]


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Finding]]:
    """The findings in all example files, by path; one run of the check reads them all."""
    found: dict[str, list[Finding]] = {}
    texts = {name: text for name, (text, _, _) in (PLANTED | DECLARED).items()} | NO_PROSE | USED
    assert len(texts) == sum(map(len, (PLANTED, NO_PROSE, DECLARED, USED)))
    for finding in lint(tmp_path_factory.mktemp("clone"), texts):
        found.setdefault(finding[0], []).append(finding)
    return found


class TestVocabulary:
    """The patterns of the terms match their bad examples and do not match their good ones."""

    def test_finds_every_bad_text(self, tmp_path: Path) -> None:
        files = {f"{at}.md": (text, term["name"]) for at, (term, text) in enumerate(_examples("term", "bad"))}
        found = {
            (path, term)
            for path, _, _, term in lint(tmp_path, {path: f"{text}\n" for path, (text, _) in files.items()})
        }
        missed = [expected for path, expected in files.items() if (path, expected[1]) not in found]
        assert not missed

    def test_accepts_every_good_text(self, tmp_path: Path) -> None:
        files = {f"{at}.md": (text, term["name"]) for at, (term, text) in enumerate(_examples("term", "good"))}
        found = lint(tmp_path, {path: f"{text}\n" for path, (text, _) in files.items()})
        assert [files[path] for path, _, _, term in found if term == files[path][1]] == []

    def test_finds_every_bad_name(self, tmp_path: Path) -> None:
        files = {
            f"{at}/code.py": (name, term["name"]) for at, (term, name) in enumerate(_examples("identifier", "bad"))
        }
        modules = {path: f"{path.split('/')[0]}/{name}" for path, (name, _) in files.items() if name.endswith(".py")}
        texts = {
            modules.get(path, path): "" if path in modules else f"class {name}: ..."
            for path, (name, _) in files.items()
        }
        found = {(path, term) for path, _, _, term in lint(tmp_path, texts)}
        missed = [expected for path, expected in files.items() if (modules.get(path, path), expected[1]) not in found]
        assert not missed

    def test_accepts_every_good_name(self, tmp_path: Path) -> None:
        files = {f"{at}.py": (name, term["name"]) for at, (term, name) in enumerate(_examples("identifier", "good"))}
        found = lint(tmp_path, {path: f"class {name}: ..." for path, (name, _) in files.items()})
        assert [files[path] for path, _, _, term in found if term == files[path][1]] == []

    @pytest.mark.parametrize("kind", ["term", "identifier"])
    def test_every_term_has_a_bad_example_and_a_replacement(self, kind: str) -> None:
        for term in VOCABULARY[kind]:
            assert term.get("bad"), term["name"]
            assert ("use" in term) != ("advice" in term), term["name"]

    @pytest.mark.parametrize("kind", ["term", "identifier", "count"])
    def test_names_of_terms_are_unique(self, kind: str) -> None:
        names = [term["name"] for term in VOCABULARY[kind]]
        assert len(names) == len(set(names))


PLANTED = {
    "paragraph.md": ("# Title\n\nIt starts\n**anew** each time.\n", 4, 3),
    "heading.md": ("# Starting anew\n", 1, 12),
    "table.md": ("| a | b |\n|---|---|\n| 1 | starts anew |\n", 3, 14),
    "list.md": ("- one\n- starts anew\n", 2, 10),
    "link.md": ("See [how it starts anew](https://example.com/).\n", 1, 20),
    "module.py": ('"""Start anew."""\n', 1, 10),
    "docstring.py": ('def f() -> None:\n    """Start.\n\n    Args:\n        x: Start anew.\n    """\n', 5, 18),
    "variable.py": ('X = 1\n"""Start anew."""\n', 2, 10),
    "comment.py": ("x = 1  # start anew\n", 1, 16),
    "error.py": ('raise ValueError("cannot start anew")\n', 1, 32),
    "interpolated.py": ('raise ValueError(f"{name!r} cannot start anew")\n', 1, 42),
    "adjacent.py": ('f("the server cannot start "\n  "anew; wait")\n', 2, 4),
    "help.py": ('parser.add_argument("--again", help="start anew")\n', 1, 44),
    "comment.proto": ('syntax = "proto3";\n// Starts\n// anew.\nmessage M {}\n', 3, 4),
    "rule.proto": ('option (cel) = {\n  message: "cannot start anew"\n};\n', 2, 26),
    "comment.go": ("package p\n\n// F starts anew.\nfunc F() {}\n", 3, 13),
    "block.go": ("package p\n\n/*\nF starts anew.\n*/\nfunc F() {}\n", 4, 10),
    "error.go": ('package p\n\nvar err = errors.New("cannot start anew")\n', 3, 36),
    "comment.ts": ("const a = 1; // start anew\n", 1, 23),
    "tsdoc.ts": ("/**\n * Starts anew.\n */\nexport const a = 1;\n", 2, 11),
    "error.ts": ('throw new Error("cannot start anew");\n', 1, 31),
    "template.ts": ("throw new Error(`${name} cannot start anew`);\n", 1, 39),
    "settings.toml": ("a = 1 # start anew\n", 1, 15),
    "flow.yaml": ("# Start anew.\na: 1\n", 1, 9),
    "Makefile": ("help:\n\t@echo 'start the server anew'\n", 2, 26),
    "tool": ('#!/usr/bin/env python3\n"""Start.\n\nStart anew.\n"""\n', 4, 7),
    "case.json": ('{"about": "starts anew", "command": "echo start anew"}\n', 1, 19),
}


@pytest.mark.parametrize("name", PLANTED)
def test_finds_a_term_in_each_kind_of_text(findings: dict[str, list[Finding]], name: str) -> None:
    _, line, column = PLANTED[name]
    assert findings[name] == [(name, line, column, "anew")]


NO_PROSE = {
    "code.md": "Use `anew` or ``start anew``.\n\n```\nstart anew\n```\n\n    start anew\n\n<!-- anew -->\n",
    "names.md": 'See https://example.com/anew, "anew", start_anew, anew.py, --anew and [it](anew.md).\n',
    "code.py": '"""See `anew` and ``start anew``.\n\n>>> start("anew now")\n"""\n',
    "arguments.py": 'def f(x: int) -> None:\n    """Start.\n\n    Args:\n        anew: A value.\n    """\n',
    "value.py": 'start("anew")\nstart(f"{x} {start(anew)}")\nstart("a\\nanew")\n',
    "span.py": "# A code span `of two\n# lines anew` ends.\n",
    "example.go": "package p\n\n// F starts:\n//\n//\tstart anew\nfunc F() {}\n",
    "verb.go": 'package p\n\n//go:generate start anew now\nimport "anew"\n',
    "link.ts": "/** See {@link anew}, {@link start anew} and `anew`.\n *\n * @param anew - A value.\n */\n",
    "regular.ts": "const pattern = /start anew/;\n",
    "option.proto": 'option go_package = "start anew";\n',
    "tests/strings.py": 'start("the server starts anew")\n',
    "strings_test.go": 'package p\n\nvar x = "the server starts anew"\n',
}


@pytest.mark.parametrize("name", NO_PROSE)
def test_does_not_read_code_as_prose(findings: dict[str, list[Finding]], name: str) -> None:
    assert name not in findings


DECLARED = {
    "function.py": ("def relay(): ...\n", 1, 5),
    "argument.py": ("def f(a, *, relay=1): ...\n", 1, 13),
    "class.py": ("class PoolRelay: ...\n", 1, 7),
    "field.py": ("class A:\n    relay_id: int\n", 2, 5),
    "attribute.py": ("class A:\n    def f(self):\n        self._relay = 1\n", 3, 14),
    "constant.py": ("RELAY = 1\n", 1, 1),
    "table.py": ('class A:\n    __tablename__ = "relay"\n', 2, 22),
    "option.py": ('add("--relay-port")\n', 1, 5),
    "relay.py": ("", 1, 1),
    "package/relay/code.py": ("", 1, 1),
    "message.proto": ("message RelayRequest {}\n", 1, 9),
    "field.proto": ("message M {\n  optional string relay = 1;\n}\n", 2, 19),
    "value.proto": ("enum E {\n  STATE_RELAY = 0;\n}\n", 2, 3),
    "method.proto": ("service S {\n  rpc Relay(M) returns (M);\n}\n", 2, 7),
    "type.go": ("package p\n\ntype Relay struct{}\n", 3, 6),
    "field.go": ("package p\n\ntype T struct{ relay int }\n", 3, 16),
    "function.go": ("package p\n\nfunc relayAll() {}\n", 3, 6),
    "method.go": ("package p\n\nfunc (t T) Relay() {}\n", 3, 12),
    "class.ts": ("export class Relay {}\n", 1, 14),
    "field.ts": ("class A {\n  readonly #relay = 1;\n}\n", 2, 12),
    "option.ts": ("interface A {\n  relayPort?: number;\n}\n", 2, 3),
    "argument.ts": ("function f(relay: number) {}\n", 1, 12),
}


@pytest.mark.parametrize("name", DECLARED)
def test_finds_a_term_in_each_kind_of_name(findings: dict[str, list[Finding]], name: str) -> None:
    _, line, column = DECLARED[name]
    assert findings[name] == [(name, line, column, "relay")]


USED = {
    "local.py": "def f():\n    relay = other.relay\n    return g(relay=relay)\n",
    "local.go": "package p\n\nfunc f() {\n\trelay := other.Relay()\n\tg(relay)\n}\n",
    "local.ts": "function f() {\n  const relay = other.relay();\n  g(relay);\n}\n",
    "imported.py": "from other import relay\n",
}


@pytest.mark.parametrize("name", USED)
def test_accepts_local_and_foreign_names(findings: dict[str, list[Finding]], name: str) -> None:
    assert name not in findings


def test_reads_the_names_that_python_declares() -> None:
    """The parser of the check finds the same names in the server as the parser of Python."""
    paths = [path for path in sorted((REPO / "service").rglob("*.py")) if "versions" not in path.parts]
    script = (
        "const { declared } = await import(process.argv[1]); const { readFileSync } = await import('node:fs');"
        "const names = process.argv.slice(2).map((path) => declared(path, readFileSync(path, 'utf8')));"
        "const own = names.map((all) => all.filter(({ kind }) => kind !== 'module').map(({ name }) => name));"
        "console.log(JSON.stringify(own));"
    )
    argv = ["node", "--input-type=module", "--eval", script, PROSE / "names.mjs", *paths]
    found = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout)
    for path, names in zip(paths, found, strict=True):
        assert sorted(names) == sorted(_declared(ast.parse(path.read_text()))), path


def test_names_the_replacements(tmp_path: Path) -> None:
    (tmp_path / "text.md").write_text("It starts anew and answers.\n")
    done = run(PROSE / "lint.mjs", "text.md", cwd=tmp_path)
    assert [line.split(": ", 1)[1] for line in done.stdout.splitlines()] == [
        'use "again" instead of "anew" (anew)',
        'use "response", "return" or "respond" instead of "answers" (answer)',
    ]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with the check, one document and no exceptions."""
    prose = tmp_path / "tools" / "prose"
    shutil.copytree(PROSE, prose, ignore=shutil.ignore_patterns("node_modules"))
    (prose / "node_modules").symlink_to(PROSE / "node_modules")
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True, env=os.environ | {"GIT_CONFIG_GLOBAL": os.devnull})
    (tmp_path / ".gitignore").write_text("node_modules\nignored.md\n")
    (tmp_path / "text.md").write_text("It starts anew.\n")
    return tmp_path


def _lint_clone(clone: Path, files: str) -> tuple[int, list[str], str]:
    (clone / "tools" / "prose" / "files.toml").write_text(
        f"[[exclude]]\nfiles = 'tools/'\nreason = 'the check'\n{files}"
    )
    done = run(clone / "tools" / "prose" / "lint.mjs", cwd=clone / "tools")
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_reads_all_files_of_the_clone_that_git_does_not_ignore(clone: Path) -> None:
    (clone / "ignored.md").write_text("It starts anew.\n")
    (clone / "excluded.md").write_text("It starts anew.\n")
    code, lines, _ = _lint_clone(clone, "[[exclude]]\nfiles = 'excluded'\nreason = 'generated'\n")
    assert (code, lines) == (1, ['text.md:1:11: use "again" instead of "anew" (anew)'])


ALLOWED = "[[allow]]\nfile = 'text.md'\nterm = 'anew'\ntext = '{}'\n"


def test_an_exception_allows_a_finding(clone: Path) -> None:
    assert _lint_clone(clone, ALLOWED.format("starts anew") + "reason = 'a quote'\n") == (0, [], "")


def test_an_exception_without_a_reason_is_an_error(clone: Path) -> None:
    code, _, error = _lint_clone(clone, ALLOWED.format("starts anew"))
    assert code != 0
    assert "has no reason" in error


def test_an_exception_that_matches_nothing_is_an_error(clone: Path) -> None:
    (clone / "text.md").write_text("It starts again.\n")
    code, lines, _ = _lint_clone(clone, ALLOWED.format("starts anew") + "reason = 'a quote'\n")
    assert code == 1
    assert lines == [
        'tools/prose/files.toml: the exception for "anew" in text.md matches no finding with "starts anew"; remove it'
    ]


def test_counts_terms_in_commits_and_in_the_work_tree(clone: Path) -> None:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    for argv in (["add", "text.md"], [*identity, "commit", "--quiet", "--message", "Add a text"]):
        subprocess.run(["git", "-C", clone, *argv], check=True, env=os.environ | {"GIT_CONFIG_GLOBAL": os.devnull})
    (clone / "text.md").write_text("Anew, anew.\n")
    counts = clone / "tools" / "prose" / "counts.mjs"
    for argv, expected in ((["HEAD"], ["1", "/", "1"]), ([], ["1", "/", "2"])):
        done = run(counts, *argv, cwd=clone)
        assert done.returncode == 0, done.stderr
        assert ["anew", *expected] in [line.split() for line in done.stdout.splitlines()]


def _examples(kind: str, quality: str) -> Iterator[tuple[dict[str, str], str]]:
    for term in VOCABULARY[kind]:
        for text in term.get(quality, []):
            yield term, text


def _declared(module: ast.Module) -> Iterator[str]:
    """The names that a module declares outside of functions, the attributes of `self`, tables and options."""

    def visit(node: ast.AST, local: bool) -> Iterator[str]:
        match node:
            case ast.ClassDef():
                yield node.name
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                if not local:
                    yield node.name
                    every = node.args
                    arguments = [*every.posonlyargs, *every.args, every.vararg, *every.kwonlyargs, every.kwarg]
                    yield from (argument.arg for argument in arguments if argument is not None)
            case ast.Assign():
                yield from (name for target in node.targets for name in targets(target, local))
                if "__tablename__" in [name for target in node.targets for name in targets(target, local)]:
                    assert isinstance(node.value, ast.Constant)
                    yield str(node.value.value)
            case ast.AnnAssign():
                yield from targets(node.target, local)
            case ast.Constant(value=str() as text) if re.fullmatch(r"--[a-z][a-z-]*", text):
                yield text[2:]
        inner = local or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for field, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from visit(child, inner if field == "body" else local)

    def targets(node: ast.expr, local: bool) -> Iterator[str]:
        match node:
            case ast.Name() if not local:
                yield node.id
            case ast.Attribute(value=ast.Name(id="self")):
                yield node.attr
            case ast.Tuple():
                for element in node.elts:
                    yield from targets(element, local)

    yield from visit(module, False)
