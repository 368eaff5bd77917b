/** How commands are said. */
import type { CommandOptions } from "../inside-options.js";
import { invalid } from "./errors.js";

/** The line for the shell, or the program with its arguments, as the contract has them. */
export function commandWords(
  command: string | readonly string[],
  { args, shell }: CommandOptions = {},
): { command: string } | { argv: string[] } {
  if (typeof command !== "string") {
    if (args !== undefined) throw invalid("args", "go with a command that is one string; add them to the array instead");
    return { argv: [...command] };
  }
  if (args !== undefined) {
    if (shell !== undefined) throw invalid("shell", "is not needed by a program with args; leave it out");
    return { argv: [command, ...args] };
  }
  return shell === undefined ? { command } : { argv: [shell, "-c", command] };
}

/** A working directory under one of its names; empty for the image's. */
export function workingDir(given: {
  readonly cwd?: string | undefined;
  readonly workingDir?: string | undefined;
}): string {
  return oneOf("cwd", given.cwd, "workingDir", given.workingDir) ?? "";
}

/** The value of an option that has two names. */
export function oneOf<T>(name: string, value: T | undefined, other: string, same: T | undefined): T | undefined {
  if (value !== undefined && same !== undefined) throw invalid(other, `means the same as ${name}; give one of them`);
  return value ?? same;
}
