// Runs one case of tests/conformance with the TypeScript client. Its argument is a file with the case and what is given;
// it ends with 0 when everything was as expected, else it says what was not and ends with 1.
import { readFileSync } from "node:fs";
import * as sandpool from "sandpool";

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
type Named = Record<string, unknown>;

interface Step {
  call?: string;
  read?: string;
  on?: string;
  with?: Record<string, Json>;
  items?: "all" | number;
  callbacks?: string[];
  save?: string;
  expect?: Json;
  expect_callbacks?: Record<string, Json>;
  error?: Record<string, Json>;
  within?: number;
}

const KEYS = new Set("call on read with items callbacks save expect expect_callbacks error within".split(" "));

/** Which arguments of a call stand by themselves, in this order; the others are fields of the object after them. */
const POSITIONAL: Record<string, string[]> = {
  claim: ["pool_id"],
  close_stdin: ["process"],
  connect_port: ["port"],
  connect_pty: ["session_id"],
  copy: ["source", "destination"],
  create_batch: ["count"],
  create_sandbox: ["template_name"],
  create_secret: ["name", "value"],
  create_template: ["name"],
  delete_file: ["path"],
  delete_pool: ["pool_id"],
  delete_secret: ["name"],
  delete_template: ["name"],
  drain_pool: ["pool_id"],
  exists: ["path"],
  follow_output: ["process"],
  get_output: ["process"],
  get_pool: ["pool_id"],
  get_process: ["process"],
  get_sandbox: ["sandbox_id"],
  get_sandbox_status: ["sandbox_id"],
  get_stdout: ["process"],
  get_template: ["name"],
  glob: ["pattern"],
  kill_process: ["process"],
  list: ["path"],
  list_directory: ["path"],
  mkdir: ["path"],
  move: ["source", "destination"],
  read: ["path"],
  reconnect: ["command_id"],
  remove: ["path"],
  restart_process: ["process"],
  resume_pool: ["pool_id"],
  run: ["command"],
  send: ["data"],
  send_input: ["data"],
  send_signal: ["process", "signal"],
  start_process: ["command"],
  stat: ["path"],
  tunnel: ["remote_port"],
  update_pool: ["pool_id"],
  update_secret: ["name", "value"],
  update_template: ["template_name"],
  wait_for_pool: ["pool_id"],
  watch: ["path"],
  write: ["path", "content"],
  write_stdin: ["process", "data"],
};

class Unexpected extends Error {}

function check(holds: boolean, what: () => string): asserts holds {
  if (!holds) throw new Unexpected(what());
}

const camel = (name: string): string => name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());

function shown(value: unknown): string {
  return JSON.stringify(value, (_, one: unknown) =>
    typeof one === "bigint" ? String(one) : one instanceof Uint8Array ? [...one.subarray(0, 100)] : one,
  );
}

function isObject(value: unknown): value is Named {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array);
}

/** A field by its name in the data; of a map whose keys are a user's, by the key itself. */
function field(found: unknown, name: string): unknown {
  if (typeof found !== "object" || found === null) return undefined;
  return camel(name) in found ? (found as Named)[camel(name)] : (found as Named)[name];
}

function equal(found: unknown, expected: unknown): boolean {
  if (expected instanceof Uint8Array) {
    return found instanceof Uint8Array && Buffer.compare(found, expected) === 0;
  }
  return found === expected || (expected === null && found === undefined);
}

class Run {
  readonly #client: sandpool.SandboxClient;
  readonly #saved: Named;

  constructor(client: sandpool.SandboxClient, given: Named) {
    this.#client = client;
    this.#saved = { ...given };
  }

  async steps(steps: readonly Step[]): Promise<void> {
    for (const [at, step] of steps.entries()) {
      try {
        check(Object.keys(step).every((key) => KEYS.has(key)), () => "it has a key that is unknown");
        await this.#step(step);
      } catch (error) {
        throw new Error(`step ${at + 1} ${JSON.stringify(step)}: ${String(error)}`, { cause: error });
      }
    }
  }

  async #step(step: Step): Promise<void> {
    const end = performance.now() + (step.within ?? 0) * 1000;
    for (;;) {
      try {
        return await this.#once(step);
      } catch (error) {
        const mayPass = error instanceof Unexpected || error instanceof sandpool.SandpoolError;
        if (!mayPass || performance.now() > end) throw error;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  }

  async #once(step: Step): Promise<void> {
    const heard: Record<string, string> = {};
    let answer: unknown;
    try {
      answer = await this.#answer(step, heard);
    } catch (error) {
      if (step.error === undefined || !(error instanceof sandpool.SandpoolError)) throw error;
      this.#checkError(error, step.error);
      return;
    }
    check(step.error === undefined, () => `no error, but ${shown(answer)}`);
    if (step.save !== undefined) this.#saved[step.save] = answer;
    if (step.expect !== undefined) this.#check(answer, step.expect, "answer");
    for (const [name, expected] of Object.entries(step.expect_callbacks ?? {})) this.#check(heard[name], expected, name);
  }

  async #answer(step: Step, heard: Record<string, string>): Promise<unknown> {
    const target = (step.on === undefined ? this.#client : this.#value(step.on)) as Named;
    if (step.read !== undefined) return await target[camel(step.read)];
    const call = step.call ?? "";
    const method = target[camel(call)];
    check(typeof method === "function", () => `there is no ${camel(call)}`);
    const answer: unknown = await (method as (...words: unknown[]) => unknown).apply(target, this.#words(call, step, heard));
    return step.items === undefined ? answer : await items(answer as AsyncIterable<unknown>, step.items);
  }

  #words(call: string, step: Step, heard: Record<string, string>): unknown[] {
    const given = new Map(Object.entries(step.with ?? {}));
    const words: unknown[] = [];
    for (const name of POSITIONAL[call] ?? []) {
      if (given.has(name)) words.push(this.#value(given.get(name) as Json));
      given.delete(name);
    }
    const rest: Named = {};
    for (const [name, value] of given) rest[camel(name)] = this.#value(value);
    for (const name of step.callbacks ?? []) {
      heard[name] = "";
      rest[camel(name)] = (text: string) => (heard[name] += text);
    }
    return Object.keys(rest).length > 0 ? [...words, rest] : words;
  }

  /** An argument or an expectation with its references resolved. */
  #value(value: Json): unknown {
    if (typeof value === "string") {
      const whole = /^\$([a-z_][a-z0-9_.]*)$/.exec(value)?.[1];
      if (whole !== undefined) return this.#savedValue(whole);
      return value.replace(/\$\{([a-z_][a-z0-9_.]*)\}/g, (_, path: string) => String(this.#savedValue(path)));
    }
    if (Array.isArray(value)) return value.map((one) => this.#value(one));
    if (!isObject(value)) return value;
    if ("$bytes" in value) return new TextEncoder().encode(String(this.#value(value["$bytes"] as Json)));
    if ("$base64" in value) return new Uint8Array(Buffer.from(value["$base64"] as string, "base64"));
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, this.#value(one as Json)]));
  }

  #savedValue(path: string): unknown {
    const [name = "", ...fields] = path.split(".");
    check(name in this.#saved, () => `nothing was saved as ${name}`);
    return fields.reduce(field, this.#saved[name]);
  }

  #check(found: unknown, expected: Json, where: string): void {
    if (Array.isArray(expected)) {
      check(Array.isArray(found) && found.length === expected.length, () => `${where} is ${shown(found)}`);
      expected.forEach((one, at) => this.#check((found as unknown[])[at], one, `${where}[${at}]`));
      return;
    }
    if (isObject(expected) && !("$bytes" in expected) && !("$base64" in expected)) {
      for (const [key, value] of Object.entries(expected) as [string, Json][]) {
        if (key.startsWith("$")) this.#checkRule(found, key, value, where);
        else this.#check(field(found, key), value, `${where}.${key}`);
      }
      return;
    }
    const value = this.#value(expected);
    check(equal(found, value), () => `${where} is ${shown(found)}, not ${shown(value)}`);
  }

  #checkRule(found: unknown, rule: string, value: Json, where: string): void {
    const is = () => `${where} is ${shown(found)}`;
    switch (rule) {
      case "$matches":
        check(typeof found === "string" && new RegExp(String(this.#value(value))).test(found), is);
        return;
      case "$contains":
        if (typeof found === "string") check(found.includes(String(this.#value(value))), is);
        else check((found as unknown[]).some((one) => this.#holds(one, value)), is);
        return;
      case "$length":
        check((found as { length: number }).length === value, is);
        return;
      case "$at_least":
        check(typeof found === "number" && found >= (value as number), is);
        return;
      case "$not":
        check(!this.#holds(found, value), is);
        return;
      case "$present":
        check((found !== null && found !== undefined) === value, is);
        return;
      case "$empty":
        check((found === null || found === undefined || found === "") === value, is);
        return;
      case "$joined": {
        const { field: name, is: whole } = value as { field: string; is: Json };
        this.#check((found as unknown[]).map((one) => String(field(one, name))).join(""), whole, `${where}, joined`);
        return;
      }
      default:
        throw new Error(`unknown rule ${rule}`);
    }
  }

  #holds(found: unknown, expected: Json): boolean {
    try {
      this.#check(found, expected, "");
      return true;
    } catch (error) {
      if (error instanceof Unexpected) return false;
      throw error;
    }
  }

  #checkError(error: sandpool.SandpoolError, wanted: Record<string, Json>): void {
    const kind = (sandpool as unknown as Record<string, new () => Error>)[String(wanted["type"])];
    if (kind === undefined) throw new Error(`there is no ${String(wanted["type"])}`);
    check(error instanceof kind, () => `${error.name}, not ${String(wanted["type"])}: ${error.message}`);
    for (const [name, value] of Object.entries(wanted)) {
      if (name === "message") this.#checkRule(error.message, "$matches", value, "the message");
      else if (name !== "type") this.#check(field(error, name), value, name);
    }
  }
}

async function items(answer: AsyncIterable<unknown>, wanted: "all" | number): Promise<unknown[]> {
  const found: unknown[] = [];
  for await (const one of answer) {
    found.push(one);
    if (found.length === wanted) break;
  }
  return found;
}

const { steps, given } = JSON.parse(readFileSync(process.argv[2] ?? "", "utf8")) as { steps: Step[]; given: Named };
const client = new sandpool.SandboxClient();
try {
  await new Run(client, given).steps(steps);
} finally {
  client.close();
}
console.log(JSON.stringify({ done: true }));
