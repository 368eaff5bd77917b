/**
 * A textlint rule: reports the terms of a vocabulary in prose.
 *
 * The rule reads paragraphs, headings and table cells as a whole, so that it finds a phrase that a line break or an
 * emphasis splits. Code spans never match.
 */

const HOLE = "\uFFFC";

/** Text that may not touch a term, because it belongs to a name, a path, an option or a hyphenated compound. */
const BEFORE = String.raw`(?<![\w${HOLE}$@/\\]|[\w-]-|\w\.)`;
const AFTER = String.raw`(?![\w${HOLE}(=/\\]|\.\w|-\w)`;

/** Addresses, and a single word in quotes: a name or a value. */
const NOT_PROSE = /\w+:\/\/\S+|(["'])[\w.:/-]+\1/g;

/** Compiles a term of the vocabulary. `unless` are patterns of text around a match that make it right. */
export function compile(term) {
  return {
    ...term,
    expression: new RegExp(`${BEFORE}(?:${[term.pattern].flat().map(spaced).join("|")})${AFTER}`, "gid"),
    exceptions: (term.unless ?? []).map((pattern) => new RegExp(`(?<!\\w)(?:${spaced(pattern)})(?!\\w)`, "gi")),
  };
}

/** Lets a space of a pattern match a line break too. */
function spaced(pattern) {
  return pattern.replaceAll(" ", "\\s+");
}

/** Finds the terms in a text, in order; of overlapping matches the longest. */
export function find(text, terms) {
  const found = [];
  for (const term of terms) {
    for (const match of text.matchAll(term.expression)) {
      const [from, to] = match.indices[0];
      const right = term.exceptions.some((exception) =>
        [...text.matchAll(exception)].some((other) => other.index <= from && to <= other.index + other[0].length),
      );
      if (!right) found.push({ term, from, to, text: match[0].replace(/\s+/g, " ") });
    }
  }
  found.sort((one, other) => one.from - other.from || other.to - one.to);
  return found.filter((match, at) => !found.slice(0, at).some((before) => before.to > match.from));
}

/** Returns the message of a match, with its replacements. */
export function message(match) {
  const { use, advice, name } = match.term;
  return `${use === undefined ? advice : `use ${list(use)}`} instead of "${match.text}" (${name})`;
}

function list(values) {
  const quoted = values.map((value) => `"${value}"`);
  return [...quoted.slice(0, -2), quoted.slice(-2).join(" or ")].join(", ");
}

/** The rule; its option `terms` holds compiled terms. */
export function vocabulary(context, { terms }) {
  const { Syntax, RuleError, report, locator } = context;
  const check = (node) => {
    for (const match of find(prose(node), terms)) {
      report(node, new RuleError(message(match), { padding: locator.range([match.from, match.to]) }));
    }
  };
  return { [Syntax.Paragraph]: check, [Syntax.Header]: check, [Syntax.TableCell]: check };
}

/** The prose of a node at the positions of its source; markup is blank and code is one hole. */
function prose(node) {
  const start = node.range[0];
  const characters = Array(node.range[1] - start).fill(" ");
  const visit = (child) => {
    if (child.type === "Str") {
      // The marker of a quote that goes over several lines is in the source of its text.
      const raw = child.raw.replace(/\n[ \t>]*/g, (marker) => " ".repeat(marker.length));
      for (let at = 0; at < raw.length; at += 1) characters[child.range[0] - start + at] = raw[at];
    } else if (child.children !== undefined) {
      child.children.forEach(visit);
    } else if (child.type !== "Break") {
      characters.fill(HOLE, child.range[0] - start, child.range[1] - start);
    }
  };
  node.children.forEach(visit);
  return characters.join("").replace(NOT_PROSE, (found) => HOLE.repeat(found.length));
}
