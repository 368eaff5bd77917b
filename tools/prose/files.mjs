/** Which files the checks read. */

import { execFileSync } from "node:child_process";
import { existsSync, lstatSync } from "node:fs";
import { dirname, extname, join, relative, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";

import { EXTENSIONS } from "./source.mjs";

/** The clone that this script belongs to. */
export const REPOSITORY = resolve(dirname(fileURLToPath(import.meta.url)), "../..");

/** Returns the root of the clone that contains `path`, or the directory of `path` when no clone contains it. */
export function rootOf(path) {
  for (let directory = dirname(path); ; directory = dirname(directory)) {
    if (existsSync(join(directory, ".git"))) return directory;
    if (directory === dirname(directory)) return dirname(path);
  }
}

/** Returns the name of a file in its clone, as git writes it. */
export function nameOf(path) {
  return relative(rootOf(path), path).split(sep).join("/");
}

/** Returns whether the checks read files of this name. */
export function readable(name, excluded) {
  const extension = extname(name);
  return (extension === ".md" || EXTENSIONS.includes(extension)) && !excluded.some((pattern) => pattern.test(name));
}

/** Lists the files below a directory that git tracks, and new ones that git does not ignore, as absolute paths. */
export function filesBelow(directory) {
  const argv = ["-C", directory, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"];
  const names = execFileSync("git", argv, { encoding: "utf8", maxBuffer: 64 << 20 }).split("\0");
  // A file that git tracks may be deleted in the work tree.
  return names
    .map((name) => join(directory, name))
    .filter((path) => lstatSync(path, { throwIfNoEntry: false })?.isFile());
}
