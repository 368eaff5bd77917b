/**
 * A textlint plugin that finds the prose of source files: comments, docstrings and messages.
 *
 * Each comment block, docstring and string becomes a `Paragraph`. Its `Str` children are prose; its `Code` children are
 * names, code spans and interpolations, which no rule reads. All positions are those of the file.
 */

import { go, python, typescript } from "./parsers.mjs";

/** The readers by file extension. Files without an extension are scripts, a Makefile and similar ones. */
const READERS = {
  ".go": fromGo,
  ".in": fromConfiguration,
  ".json": fromJson,
  ".mjs": fromTypeScript,
  ".proto": fromProto,
  ".py": fromPython,
  ".pyi": fromPython,
  ".sh": fromConfiguration,
  ".toml": fromConfiguration,
  ".ts": fromTypeScript,
  ".yaml": fromConfiguration,
  ".yml": fromConfiguration,
  "": (text) => (/^#!.*python/.test(text) ? fromPython(text) : fromConfiguration(text)),
};

/** The extensions that this plugin reads. */
export const EXTENSIONS = Object.keys(READERS);

/** Strings in tests are input and expectations, not messages. */
const TEST = /(^|\/)tests?\/|_test\.go$/;

/** Two words in a row make a string a message. */
const MESSAGE = /[A-Za-z]{2,}[,;:]? +[A-Za-z]{2,}/;

/** Names, code spans and addresses in comments, docstrings and strings. */
const CODE = [
  /(?:```|~~~)[\s\S]*?(?:```|~~~)/g, // fenced blocks
  /``[^`]+``|`[^`\n]*(?:\n[^`\n]*)?`/g, // code spans, of one line or two
  /\{@\w+[^}]*\}/g, // {@link Name}
  /@(?:param|typeParam|template)\s+[\w.]+/g,
  /\w+:\/\/\S+/g,
  /(?<![\w.])[A-Za-z_]\w*(?:[._]\w+)+(?:\(\))?/g, // dotted and snake_case names
  /\b[a-z]+[A-Z]\w*|\b[A-Z][a-z0-9]+[A-Z]\w*/g, // camelCase and PascalCase names
  /(?<![\w-])--?[a-z][\w-]*/g, // options
  /(?<![\w.])[~.]{0,2}\/[\w./*{}<>-]+|[\w.-]+\/[\w./-]*\.\w+/g, // paths
  /%[-+ #0-9.]*[a-zA-Z]\b/g, // printf verbs
];

class SourceProcessor {
  availableExtensions() {
    return EXTENSIONS;
  }

  processor(extension) {
    const read = READERS[extension];
    return {
      preProcess: (text, path) => document(text, blocks(read(text), text, TEST.test(path ?? ""))),
      postProcess: (messages, filePath) => ({ messages, filePath: filePath ?? "" }),
    };
  }
}

export default { Processor: SourceProcessor };

/**
 * A piece of prose: `kind` is comment, doc or string; `parts` are the ranges of the file that hold its text, and `holes`
 * the ranges in them that are code.
 *
 * @typedef {{kind: "comment" | "doc" | "string", parts: [number, number][], holes: [number, number][]}} Piece
 */

function fromPython(text) {
  return walk(python, text, (node) => {
    if (node.name === "Comment") return comment(text, node, /^#+!?[:]?/);
    if (node.name !== "String" && node.name !== "FormatString") return undefined;
    const outer = node.node.parent;
    const kind = outer?.name === "ExpressionStatement" ? "doc" : "string";
    const piece = quoted(text, node, /^[a-zA-Z]{0,2}("""|'''|"|')/, kind, ["FormatReplacement"]);
    if (kind === "doc") sections(text, piece);
    return piece;
  });
}

function fromTypeScript(text) {
  return walk(typescript, text, (node) => {
    if (node.name === "LineComment") return comment(text, node, /^\/\/+/);
    if (node.name === "BlockComment") return comment(text, node, /^[ \t]*(?:\/\*+|\*+\/|\*+)?/);
    if (node.name === "String" || node.name === "TemplateString")
      return quoted(text, node, /^["'`]/, "string", ["Interpolation"]);
    return undefined;
  });
}

function fromGo(text) {
  return walk(go, text, (node) => {
    if (node.name === "LineComment") return comment(text, node, /^\/\/(?:go:.*|[ ]?\t.*|[ ]{4,}.*)?/);
    if (node.name === "BlockComment") return comment(text, node, /^[ \t]*(?:\/\*+|\*+\/)?/);
    if (node.name === "String") return quoted(text, node, /^["`]/, "string", []);
    return undefined;
  });
}

function fromProto(text) {
  return scan(text, /\/\/+[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'/g, (found, from) => {
    const node = { from, to: from + found.length };
    if (found.startsWith("//")) return comment(text, node, /^\/\/+/);
    // The only strings for people are the messages of rules.
    return /message:\s*$/.test(text.slice(Math.max(0, from - 20), from))
      ? quoted(text, node, /^["']/, "string", [])
      : undefined;
  });
}

function fromConfiguration(text) {
  return scan(text, /(?<![^\s])#[^\n]*|"(?:\\.|[^"\\\n])*"|'[^'\n]*'/g, (found, from) => {
    const node = { from, to: from + found.length };
    return found.startsWith("#") ? comment(text, node, /^#+!?/) : quoted(text, node, /^["']/, "string", []);
  });
}

function fromJson(text) {
  return scan(text, /(?<="(?:about|description)":\s*)"(?:\\.|[^"\\\n])*"/g, (found, from) =>
    quoted(text, { from, to: from + found.length }, /^"/, "doc", []),
  );
}

/** Collects the pieces that `take` makes of the nodes of a syntax tree. */
function walk(parser, text, take) {
  const pieces = [];
  parser.parse(text).iterate({
    enter(node) {
      const piece = take(node);
      if (piece !== undefined) pieces.push(piece);
    },
  });
  return pieces;
}

/** Collects the pieces that `take` makes of the matches of a pattern. */
function scan(text, pattern, take) {
  return [...text.matchAll(pattern)].map((match) => take(match[0], match.index)).filter((piece) => piece !== undefined);
}

/** A comment: the lines of the node without the marker at the start of each. */
function comment(text, node, marker) {
  const parts = [];
  let at = node.from;
  for (const line of text.slice(node.from, node.to).split("\n")) {
    const start = at + (marker.exec(line)?.[0].length ?? 0);
    const end = at + line.replace(/\*+\/$/, "").length;
    if (start < end) parts.push([start, end]);
    at += line.length + 1;
  }
  return { kind: "comment", from: node.from, to: node.to, parts, holes: [] };
}

/** A string literal without its quotes; escapes and children named in `code` are holes. */
function quoted(text, node, opening, kind, code) {
  const source = text.slice(node.from, node.to);
  const open = opening.exec(source)?.[0] ?? "";
  const close = open.replace(/^[a-zA-Z]+/, "");
  const start = node.from + open.length;
  const end = Math.max(start, node.to - (source.endsWith(close) ? close.length : 0));
  const holes = [];
  for (const match of text.slice(start, end).matchAll(/\\[\s\S]/g))
    holes.push([start + match.index, start + match.index + 2]);
  if (code.length > 0) {
    for (let child = node.node.firstChild; child; child = child.nextSibling)
      if (code.includes(child.name)) holes.push([child.from, child.to]);
  }
  return { kind, from: node.from, to: node.to, parts: [[start, end]], holes };
}

/** In a docstring the name of an argument before its description, and interactive examples, are code. */
function sections(text, piece) {
  const [[start, end]] = piece.parts;
  for (const match of text
    .slice(start, end)
    .matchAll(/^[ \t]+\*{0,2}[\w.]+(?: \([^)\n]*\))?(?=: )|^[ \t]*(?:>>>|\.\.\.) .*/gm)) {
    piece.holes.push([start + match.index, start + match.index + match[0].length]);
  }
}

/** Joins comments on neighbouring lines and adjacent strings, and drops strings that are no messages. */
function blocks(pieces, text, test) {
  const joined = [];
  for (const piece of pieces) {
    const last = joined.at(-1);
    const between = last === undefined ? "x" : text.slice(last.to, piece.from);
    const near =
      last?.kind === piece.kind &&
      (piece.kind === "comment" ? /^\n?[ \t]*$/.test(between) : piece.kind === "string" && /^\s*$/.test(between));
    if (near) {
      last.parts.push(...piece.parts);
      last.holes.push(...piece.holes);
      last.to = piece.to;
    } else {
      joined.push({ ...piece });
    }
  }
  return joined.filter((piece) => piece.kind !== "string" || (!test && isMessage(text, piece)));
}

function isMessage(text, piece) {
  return MESSAGE.test(piece.parts.map(([from, to]) => text.slice(from, to)).join(""));
}

/** The tree that textlint's rules walk. */
function document(text, found) {
  const lines = lineStarts(text);
  const children = found.map((piece) => paragraph(text, piece, lines)).filter((node) => node.children.length > 0);
  return { type: "Document", ...place(text, 0, text.length, lines), children };
}

function paragraph(text, piece, lines) {
  const from = piece.parts[0]?.[0] ?? piece.from;
  const to = piece.parts.at(-1)?.[1] ?? piece.from;
  const holes = codeRanges(text, piece, from);
  const children = [];
  const add = (type, start, end) => {
    if (start < end) children.push({ type, value: text.slice(start, end), ...place(text, start, end, lines) });
  };
  for (const [start, end] of piece.parts) {
    let at = start;
    for (const [holeFrom, holeTo] of holes) {
      if (holeTo <= at || holeFrom >= end) continue;
      add("Str", at, holeFrom);
      add("Code", Math.max(at, holeFrom), Math.min(end, holeTo));
      at = Math.max(at, holeTo);
    }
    add("Str", at, end);
  }
  return { type: "Paragraph", ...place(text, from, Math.max(from, to), lines), children };
}

/** The ranges of a piece that are code, in order and without overlaps. */
function codeRanges(text, piece, from) {
  // The text of the parts at the positions of the file, so that a code span may cross the marker of a comment.
  const characters = Array(Math.max(0, (piece.parts.at(-1)?.[1] ?? from) - from)).fill(" ");
  for (const [start, end] of piece.parts) {
    if (start > from && text.slice(0, start).lastIndexOf("\n") >= from) characters[start - from - 1] = "\n";
    for (let at = start; at < end; at += 1) characters[at - from] = text[at];
  }
  const blank = (start, end) => characters.fill("\uFFFC", start - from, end - from);
  for (const [start, end] of piece.holes) blank(start, end);
  const ranges = [...piece.holes];
  for (const pattern of CODE) {
    for (const match of characters.join("").matchAll(pattern)) {
      const start = from + match.index;
      ranges.push([start, start + match[0].length]);
      blank(start, start + match[0].length);
    }
  }
  return ranges.sort((one, other) => one[0] - other[0] || one[1] - other[1]);
}

function place(text, from, to, lines) {
  return {
    raw: text.slice(from, to),
    range: [from, to],
    loc: { start: position(from, lines), end: position(to, lines) },
  };
}

function lineStarts(text) {
  const starts = [0];
  for (let at = text.indexOf("\n"); at !== -1; at = text.indexOf("\n", at + 1)) starts.push(at + 1);
  return starts;
}

function position(offset, lines) {
  let low = 0;
  let high = lines.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (lines[middle] <= offset) low = middle;
    else high = middle - 1;
  }
  return { line: low + 1, column: offset - lines[low] };
}
