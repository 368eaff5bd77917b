#!/usr/bin/env node
/** Checks the vocabulary of texts and names; see README.md in this directory. */

import { readFileSync, statSync } from "node:fs";
import { extname, relative, resolve } from "node:path";
import { parseArgs } from "node:util";

import { TextlintKernel } from "@textlint/kernel";
import markdown from "@textlint/textlint-plugin-markdown";

import { filesBelow, nameOf, readable, REPOSITORY, rootOf } from "./files.mjs";
import * as names from "./names.mjs";
import { message, vocabulary } from "./rule.mjs";
import { load } from "./settings.mjs";
import source from "./source.mjs";

const USAGE = `usage: lint.mjs [--summary] [FILE | DIRECTORY]...

Check the vocabulary of FILE, of the files in DIRECTORY, or of all files of this clone.

options:
  --summary   print the number of findings for each term and each file instead of the findings
  -h, --help  print this text`;

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { summary: { type: "boolean" }, help: { type: "boolean", short: "h" } },
  });
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  const settings = load();
  const findings = [];
  for (const path of select(positionals, settings)) findings.push(...(await check(path, settings)));
  if (values.summary) summarize(findings);
  else for (const { path, line, column, text } of findings) console.log(`${shown(path)}:${line}:${column}: ${text}`);
  // Only a run over all files can show that an exception matches nothing.
  const unused = positionals.length === 0 ? settings.allowed.filter((entry) => !entry.used) : [];
  for (const { file, term, text } of unused) {
    console.log(
      `tools/prose/files.toml: the exception for "${term}" in ${file} matches no finding with "${text}"; remove it`,
    );
  }
  if (findings.length > 0) console.error(`${findings.length} findings; tools/prose/README.md explains them`);
  return findings.length + unused.length > 0 ? 1 : 0;
}

/** Lists the files to check as absolute paths. */
function select(given, { excluded }) {
  const paths = [];
  for (const path of (given.length > 0 ? given : [REPOSITORY]).map((one) => resolve(one))) {
    if (statSync(path).isDirectory())
      paths.push(...filesBelow(path).filter((file) => readable(nameOf(file), excluded)));
    else if (readable(nameOf(path), excluded)) paths.push(path);
    else console.error(`${shown(path)}: not checked: excluded in tools/prose/files.toml, or of an unknown kind`);
  }
  return paths;
}

/** Returns the findings of one file in the order of their lines, without the exceptions of files.toml. */
async function check(path, settings) {
  const text = readFileSync(path, "utf8");
  const name = nameOf(path);
  const lines = text.split("\n");
  const findings = [...(await inProse(name, text, settings)), ...inNames(name, text, settings)];
  const allowed = ({ term, line }) => {
    const entry = settings.allowed.find(
      (one) =>
        one.file === name && one.term === term && (lines[line - 1].includes(one.text) || name.includes(one.text)),
    );
    if (entry !== undefined) entry.used = true;
    return entry !== undefined;
  };
  return findings
    .filter((finding) => !allowed(finding))
    .map((finding) => ({ ...finding, path }))
    .sort((one, other) => one.line - other.line || one.column - other.column);
}

const kernel = new TextlintKernel();

async function inProse(name, text, { terms }) {
  const { messages } = await kernel.lintText(text, {
    filePath: name,
    ext: extname(name),
    plugins: [
      { pluginId: "markdown", plugin: markdown.default },
      { pluginId: "source", plugin: source },
    ],
    rules: [{ ruleId: "vocabulary", rule: vocabulary, options: { terms } }],
  });
  return messages.map(({ line, column, message: found }) => ({
    line,
    column,
    text: found,
    term: /\(([^)]*)\)$/.exec(found)[1],
  }));
}

function inNames(name, text, { identifiers }) {
  return names.declared(name, text).flatMap((declared) => {
    const line = text.slice(0, declared.at).split("\n").length;
    const column = declared.at - text.lastIndexOf("\n", declared.at - 1);
    return names.find(declared, identifiers).map((match) => {
      return { line, column, text: `identifier ${declared.name}: ${message(match)}`, term: match.term.name };
    });
  });
}

function summarize(findings) {
  for (const key of [({ term }) => term, ({ path }) => shown(path)]) {
    const counts = new Map();
    for (const finding of findings) counts.set(key(finding), (counts.get(key(finding)) ?? 0) + 1);
    const sorted = [...counts].sort((one, other) => other[1] - one[1]);
    for (const [name, count] of sorted) console.log(`${String(count).padStart(6)}  ${name}`);
    console.log("");
  }
}

/** Returns a path as people read it: relative to this clone, or as it is in another. */
function shown(path) {
  return rootOf(path) === REPOSITORY ? relative(REPOSITORY, path) : path;
}

process.exitCode = await main();
