/** Checks arguments before a request is sent. */
import type { Command } from "../sandbox-options.js";
import { invalid } from "./errors.js";

const INT32_MAX = 2 ** 31 - 1;

/** Half a character outside of the basic plane, which the encoding would replace silently. */
const LONE_SURROGATE = /\p{Surrogate}/u;

/** Throws a TypeError that names the given arguments, if there are any. */
export function reject(why: string, values: Readonly<Record<string, unknown>>): void {
  const wrong = Object.keys(values).filter((name) => values[name] !== undefined && values[name] !== null);
  if (wrong.length > 0) throw new TypeError(`${wrong.join(" and ")} not allowed: ${why}`);
}

/** Returns the name of the one argument that is given; throws a TypeError for none or several. */
export function exactlyOne<K extends string>(values: Readonly<Record<K, unknown>>): K {
  const names = Object.keys(values) as K[];
  const given = names.filter((name) => values[name] !== undefined && values[name] !== null);
  const [first, ...others] = given;
  if (first !== undefined && others.length === 0) return first;
  const found = given.length === 0 ? "none of them" : given.join(" and ");
  throw new TypeError(`set exactly one of ${names.join(", ")}, not ${found}`);
}

/** Returns text to send. The error does not contain it, because it may be secret. */
export function text(field: string, value: string): string {
  if (typeof value !== "string") throw new TypeError(`${field} must be a string, not ${typeName(value)}`);
  if (LONE_SURROGATE.test(value)) throw invalid(field, "contains a lone surrogate, which is not valid text");
  return value;
}

/** Returns a map of text to send. Errors contain keys but no values. */
export function textMap(
  field: string,
  values: Readonly<Record<string, string>> | null | undefined,
): Record<string, string> {
  const checked = Object.entries(values ?? {}).map(([key, value]) => [
    text(`a key of ${field}`, key),
    text(`${field}[${JSON.stringify(key)}]`, value),
  ]);
  return Object.fromEntries(checked) as Record<string, string>;
}

/** Returns a list of text to send. Throws a TypeError for one string, which would count as its characters. */
export function textList(field: string, values: readonly string[] | null | undefined): string[] {
  if (typeof values === "string") throw new TypeError(`${field} must be an array of strings, not one string`);
  return [...(values ?? [])].map((value, at) => text(`${field}[${at}]`, value));
}

/** Returns a whole number to send; the server checks its range. */
export function integer(field: string, value: number): number;
export function integer(field: string, value: number | null | undefined): number | undefined;
export function integer(field: string, value: number | null | undefined): number | undefined {
  if (value === undefined || value === null) return undefined;
  if (Number.isInteger(value) && Math.abs(value) <= INT32_MAX) return value;
  throw invalid(field, `must be a whole number of at most 32 bits, not ${String(value)}`);
}

/** Returns an offset or a length in bytes to send. */
export function bytes(field: string, value: number): bigint;
export function bytes(field: string, value: number | undefined): bigint | undefined;
export function bytes(field: string, value: number | undefined): bigint | undefined {
  if (value === undefined) return undefined;
  if (Number.isSafeInteger(value)) return BigInt(value);
  throw invalid(field, `must be a whole number of bytes, not ${String(value)}`);
}

/** Returns the fields of a command in the contract: a shell command, or a program and its arguments. */
export function commandFields(command: Command): { command: string } | { argv: string[] } {
  return typeof command === "string" ? { command: text("command", command) } : { argv: textList("command", command) };
}

function typeName(value: unknown): string {
  return value === null ? "null" : typeof value;
}
