/** Reads vocabulary.toml and files.toml. */

import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { parse } from "smol-toml";

import * as names from "./names.mjs";
import * as rule from "./rule.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));

/** Returns the compiled terms, the excluded files and the exceptions. Throws an error for an entry without a reason. */
export function load() {
  const { term, identifier, count } = read("vocabulary.toml");
  const { exclude = [], allow = [] } = read("files.toml");
  for (const entry of [...exclude, ...allow]) {
    if (!entry.reason) throw new Error(`files.toml: this entry has no reason: ${JSON.stringify(entry)}; add one`);
  }
  return {
    terms: term.map(rule.compile),
    identifiers: identifier.map(names.compile),
    counts: count.map(({ name, pattern }) => ({ name, expression: new RegExp(pattern, "gi") })),
    excluded: exclude.map(({ files }) => new RegExp(`^(?:${files})`)),
    allowed: allow.map((entry) => ({ ...entry, used: false })),
  };
}

function read(name) {
  return parse(readFileSync(join(HERE, name), "utf8"));
}
