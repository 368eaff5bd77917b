#!/usr/bin/env node
/** Prints how many hand-written files contain each counted term, and how often, for commits or the work tree. */

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";

import { filesBelow, nameOf, REPOSITORY } from "./files.mjs";
import { load } from "./settings.mjs";

const USAGE = `usage: counts.mjs [COMMIT]...

Print the files and hits of each [[count]] of vocabulary.toml, for each COMMIT or for the work tree.

options:
  -h, --help  print this text`;

function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { help: { type: "boolean", short: "h" } },
  });
  if (values.help) {
    console.log(USAGE);
    return;
  }
  const { counts, excluded } = load();
  const titles = positionals.length > 0 ? positionals : ["work tree"];
  const columns = titles.map((title) =>
    positionals.length > 0 ? textsOf(title, excluded) : textsOfWorkTree(excluded),
  );
  const width = Math.max(...counts.map(({ name }) => name.length));
  const row = (name, cells) =>
    console.log([name.padEnd(width), ...cells.map((cell) => cell.padStart(16))].join("  ").trimEnd());
  row("files / hits", titles);
  for (const { name, expression } of counts)
    row(
      name,
      columns.map((texts) => count(texts, expression)),
    );
  row(
    "all files",
    columns.map((texts) => String(texts.length)),
  );
}

function count(texts, expression) {
  const hits = texts.map((text) => [...text.matchAll(expression)].length);
  return `${hits.filter((number) => number > 0).length} / ${hits.reduce((sum, number) => sum + number, 0)}`;
}

function textsOfWorkTree(excluded) {
  return filesBelow(REPOSITORY)
    .filter((path) => handWritten(nameOf(path), excluded))
    .map((path) => readFileSync(path, "utf8"));
}

/** Reads all files of a commit with one process of git. */
function textsOf(commit, excluded) {
  const options = { cwd: REPOSITORY, maxBuffer: 512 << 20 };
  const names = execFileSync("git", ["ls-tree", "-r", "-z", "--name-only", commit], options).toString().split("\0");
  const chosen = names.filter((name) => name !== "" && handWritten(name, excluded));
  const input = chosen.map((name) => `${commit}:${name}\n`).join("");
  const output = execFileSync("git", ["cat-file", "--batch"], { ...options, input });
  const texts = [];
  for (let at = 0; at < output.length;) {
    const end = output.indexOf("\n", at);
    const size = Number(output.toString("utf8", at, end).split(" ").at(-1));
    texts.push(output.toString("utf8", end + 1, end + 1 + size));
    at = end + 1 + size + 1;
  }
  return texts;
}

function handWritten(name, excluded) {
  return !/(^|\/)(package-lock\.json|go\.sum|py\.typed)$/.test(name) && !excluded.some((pattern) => pattern.test(name));
}

main();
