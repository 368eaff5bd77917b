// Runs one case of tests/conformance with the TypeScript client. Its argument is a JSON file: the case, the given values,
// and the address of the server. It exits with 0 when everything is as expected; otherwise it prints the difference.
import { readFileSync } from "node:fs";
import * as sandpool from "sandpool";

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
type Fields = Record<string, unknown>;

interface Step {
  call?: string;
  read?: string;
  leave?: string;
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

interface Input {
  steps: Step[];
  given: Fields;
  client?: Record<string, Json>;
  address?: string;
}

const KEYS = new Set("call on read leave with items callbacks save expect expect_callbacks error within".split(" "));

/** The arguments that stand alone, in order, by class and method; the others are fields of the options object. */
const POSITIONAL: Record<string, string> = {
  "Files.copy": "source destination",
  "Files.download": "path local_path",
  "Files.download_directory": "path local_path",
  "Files.exists": "path",
  "Files.glob": "pattern",
  "Files.list": "path",
  "Files.mkdir": "path",
  "Files.move": "source destination",
  "Files.read": "path",
  "Files.read_text": "path",
  "Files.remove": "path",
  "Files.stat": "path",
  "Files.stream": "path",
  "Files.upload": "local_path path",
  "Files.upload_directory": "local_path path",
  "Files.watch": "path",
  "Files.write": "path content",
  "PortConnection.send": "data",
  "Ports.connect": "port",
  "Ports.expose": "port",
  "Ports.tunnel": "remote_port",
  "Ports.unexpose": "port",
  "Process.resize": "rows cols",
  "Process.signal": "signal",
  "Process.write_stdin": "data",
  "Processes.attach": "process_id",
  "Processes.close_stdin": "process_id",
  "Processes.follow": "process_id",
  "Processes.get": "process_id",
  "Processes.kill": "process_id",
  "Processes.output": "process_id",
  "Processes.restart": "process_id",
  "Processes.signal": "process_id signal",
  "Processes.start": "command",
  "Processes.write_stdin": "process_id data",
  "Sandbox.run": "command",
  "SandboxClient.create_batch": "count",
  "SandboxClient.create_pool": "name",
  "SandboxClient.create_secret": "name value",
  "SandboxClient.create_template": "name",
  "SandboxClient.delete_pool": "pool_id",
  "SandboxClient.delete_sandbox": "sandbox_id",
  "SandboxClient.delete_secret": "name",
  "SandboxClient.delete_template": "template_name",
  "SandboxClient.get_pool": "pool_id",
  "SandboxClient.get_sandbox": "sandbox_id",
  "SandboxClient.get_secret": "name",
  "SandboxClient.get_template": "template_name",
  "SandboxClient.update_pool": "pool_id",
  "SandboxClient.update_sandbox": "sandbox_id",
  "SandboxClient.update_secret": "name value",
  "SandboxClient.update_template": "template_name",
  "SandboxClient.wait_for_pool": "pool_id",
  "SandboxClient.watch_pools": "pool_ids",
  "SandboxClient.watch_sandbox": "sandbox_id",
  "Terminal.resize": "rows cols",
  "Terminal.write": "data",
  "Terminals.attach": "process_id",
  "Terminals.create": "command",
};

/** The names of durations, which the data has in seconds and the client in milliseconds. */
const DURATIONS = new Set(
  (
    "timeout request_timeout queue_timeout connect_timeout idle_timeout retention interval image_refresh_interval " +
    "warm_ttl timeout_secs duration start_duration cpu_time retry_after initial_delay max_delay keep_alive_interval " +
    "command_timeout command_margin create_timeout resume_timeout"
  ).split(" "),
);
/** Maps whose keys are chosen by users. */
const USER_MAPS = new Set(["env", "metadata"]);

class Unexpected extends Error {}

function check(holds: boolean, message: () => string): asserts holds {
  if (!holds) throw new Unexpected(message());
}

const camel = (name: string): string => name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());

/** The client's name of an argument, a field or an attribute. */
function ownName(name: string): string {
  if (!DURATIONS.has(name)) return camel(name);
  return name === "timeout_secs" ? "timeoutMs" : `${camel(name)}Ms`;
}

function shown(value: unknown): string {
  return JSON.stringify(value, (_, one: unknown) =>
    typeof one === "bigint" ? String(one) : one instanceof Uint8Array ? [...one.subarray(0, 100)] : one,
  );
}

function isObject(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array);
}

/** Returns whether an object has a field, by its name in the data. */
function has(found: unknown, name: string): boolean {
  return typeof found === "object" && found !== null && (ownName(name) in found || name in found);
}

/** Returns a field by its name in the data, durations in seconds; a field that the client does not have is an error. */
function field(found: unknown, name: string): unknown {
  check(typeof found === "object" && found !== null, () => `${shown(found)} has no ${name}`);
  const own = ownName(name);
  if (!(own in found)) {
    check(name in found, () => `there is no ${own} in ${shown(found)}`);
    return (found as Fields)[name]; // a key that a user chose
  }
  const value = (found as Fields)[own];
  check(value !== undefined, () => `${own} is undefined in ${shown(found)}`);
  return DURATIONS.has(name) && typeof value === "number" ? value / 1000 : value;
}

/** Converts an argument: names to those of the client, seconds to milliseconds. */
function argument(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(argument);
  if (!isObject(value) || Object.getPrototypeOf(value) !== Object.prototype) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, one]) => {
      if (DURATIONS.has(name) && typeof one === "number") return [ownName(name), one * 1000];
      return [ownName(name), USER_MAPS.has(name) ? one : argument(one)];
    }),
  );
}

function equal(found: unknown, expected: unknown): boolean {
  if (expected instanceof Uint8Array) return found instanceof Uint8Array && Buffer.compare(found, expected) === 0;
  if (typeof found === "number" && typeof expected === "number") return Math.abs(found - expected) < 1e-9;
  return found === expected;
}

/** Returns the text of a value that a callback received. */
function heardText(value: unknown): string {
  if (typeof value === "string") return value;
  return value instanceof Uint8Array ? new TextDecoder().decode(value) : "*";
}

class Run {
  readonly #client: sandpool.SandboxClient;
  readonly #saved: Fields;

  constructor(client: sandpool.SandboxClient, given: Fields) {
    this.#client = client;
    this.#saved = { ...given };
  }

  async steps(steps: readonly Step[]): Promise<void> {
    for (const [at, step] of steps.entries()) {
      try {
        check(Object.keys(step).every((key) => KEYS.has(key)), () => "it has an unknown key");
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
    let result: unknown;
    try {
      result = await this.#result(step, heard);
    } catch (error) {
      const known = error instanceof sandpool.SandpoolError || error instanceof TypeError;
      if (step.error === undefined || !known) throw error;
      this.#checkError(error, step.error);
      return;
    }
    check(step.error === undefined, () => `no error, but ${shown(result)}`);
    if (step.save !== undefined) this.#saved[step.save] = result;
    if (step.expect !== undefined) this.#check(result, step.expect, "result");
    for (const [name, expected] of Object.entries(step.expect_callbacks ?? {})) this.#check(heard[name], expected, name);
  }

  async #result(step: Step, heard: Record<string, string>): Promise<unknown> {
    if (step.leave !== undefined) {
      const scoped = this.#value(step.leave) as AsyncDisposable;
      return scoped[Symbol.asyncDispose]();
    }
    let target: unknown = step.on === undefined ? this.#client : this.#value(step.on);
    if (step.read !== undefined) return await field(target, step.read);
    if (step.call === undefined) return await items(target as AsyncIterable<unknown>, step.items ?? "all");
    const path = step.call.split(".");
    const name = path.pop()!;
    for (const part of path) target = field(target, part);
    const method = (target as Fields)[camel(name)];
    check(typeof method === "function", () => `there is no ${camel(name)}`);
    const kind = (target as object).constructor.name;
    const result: unknown = await (method as (...given: unknown[]) => unknown).apply(
      target,
      this.#arguments(POSITIONAL[`${kind}.${name}`] ?? "", step, heard),
    );
    return step.items === undefined ? result : await items(result as AsyncIterable<unknown>, step.items);
  }

  #arguments(positional: string, step: Step, heard: Record<string, string>): unknown[] {
    const given = new Map(Object.entries(step.with ?? {}));
    const found: unknown[] = [];
    for (const name of positional.split(" ")) {
      if (given.has(name)) found.push(this.#value(given.get(name)!));
      given.delete(name);
    }
    const options = argument(this.#value(Object.fromEntries(given))) as Fields;
    for (const name of step.callbacks ?? []) {
      heard[name] = "";
      options[camel(name)] = (value: unknown) => (heard[name] += heardText(value));
    }
    return Object.keys(options).length > 0 ? [...found, options] : found;
  }

  /** Returns an argument or an expectation with its references resolved. */
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
    check(name in this.#saved, () => `nothing is saved as ${name}`);
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
        else if (isObject(value) && value["$present"] === false && !has(found, key)) continue;
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
        check(typeof found === "number" && found >= Number(this.#value(value)), is);
        return;
      case "$at_most":
        check(typeof found === "number" && found <= Number(this.#value(value)), is);
        return;
      case "$not":
        check(!this.#holds(found, value), is);
        return;
      case "$present":
        check((found !== null) === value, is);
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

  #checkError(error: Error, expected: Record<string, Json>): void {
    const type = String(expected["type"]);
    const kind = type === "TypeError" ? TypeError : (sandpool as unknown as Record<string, new () => Error>)[type];
    if (kind === undefined) throw new Error(`there is no class ${type}`);
    check(error instanceof kind, () => `${error.name}, not ${type}: ${error.message}`);
    for (const [name, value] of Object.entries(expected)) {
      if (name === "message") this.#checkRule(error.message, "$matches", value, "the message");
      else if (name !== "type") this.#check(field(error, name), value, name);
    }
  }
}

async function items(list: AsyncIterable<unknown>, count: "all" | number): Promise<unknown[]> {
  const found: unknown[] = [];
  for await (const item of list) {
    found.push(item);
    if (found.length === count) break;
  }
  return found;
}

/** The client's own constants, by the names that the data has for them. */
async function defaults(): Promise<Fields> {
  const path = "./node_modules/sandpool/dist/core/defaults.js";
  const constants = (await import(path)) as Record<string, number>;
  return {
    requestTimeoutMs: constants["REQUEST_TIMEOUT_MS"],
    commandTimeoutMs: constants["COMMAND_TIMEOUT_MS"],
    commandMarginMs: constants["COMMAND_MARGIN_MS"],
    resumeTimeoutMs: constants["RESUME_TIMEOUT_MS"],
    createTimeoutMs: constants["CREATE_TIMEOUT_MS"],
  };
}

const input = JSON.parse(readFileSync(process.argv[2] ?? "", "utf8")) as Input;
const options = argument(input.client ?? {}) as sandpool.SandboxClientOptions;
const client = new sandpool.SandboxClient({ address: input.address, ...options });
try {
  await new Run(client, { ...input.given, defaults: await defaults() }).steps(input.steps);
} finally {
  client.close();
}
console.log(JSON.stringify({ done: true }));
