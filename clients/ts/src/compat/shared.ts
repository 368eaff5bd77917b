/** Parts that the modules for other products share. Durations are seconds, as in these products. */
import type {
  CommandResult,
  OutputListeners,
  Process as CoreProcess,
  Sandbox as CoreSandbox,
  StartOptions,
  TerminalSize,
} from "../index.js";
import { SandpoolError } from "../index.js";

/** The default time limit of a command, in seconds. */
const COMMAND_SECS = 60;
/** The default time for which a command may run without an attached client, in seconds. */
const IDLE_SECS = 300;
/** The time limit of the kill when a run is abandoned. */
const KILL_TIMEOUT_MS = 5_000;

/** The options of a command. */
export interface CommandOptions extends OutputListeners {
  /** The time limit in seconds. Default: 60. */
  readonly timeout?: number | undefined;
  /** Environment variables that override those of the sandbox. */
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** The working directory. */
  readonly cwd?: string | undefined;
  /** Another name of `cwd`. */
  readonly workingDir?: string | undefined;
  /** The user. */
  readonly user?: string | undefined;
  /** The arguments: the command is the program then. */
  readonly args?: readonly string[] | undefined;
  /** The shell of a command line. Default: /bin/bash, or /bin/sh. */
  readonly shell?: string | undefined;
  /** How long the command may run without an attached client, in seconds. Default: 300. */
  readonly idleTimeout?: number | undefined;
  /** Whether the command is killed as soon as no client is attached. Default: false. */
  readonly killOnDisconnect?: boolean | undefined;
  /** How long the output is retained after the exit, in seconds. Default: 600. */
  readonly ttlSeconds?: number | undefined;
  /** Whether standard input accepts data. Default: only with `wait: false`. */
  readonly stdin?: boolean | undefined;
  /** Whether to run the command on a terminal, of 24 rows and 80 columns or of this size. Default: false. */
  readonly pty?: boolean | TerminalSize | undefined;
  /** The identifier of the command. Default: a generated value. */
  readonly commandId?: string | undefined;
  /** Kills the command when it is aborted; the call then rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** Returns milliseconds for seconds. */
export function ms(seconds: number): number;
export function ms(seconds: number | undefined): number | undefined;
export function ms(seconds: number | undefined): number | undefined {
  return seconds === undefined ? undefined : seconds * 1000;
}

/** Returns the value of an option that has two names; throws a TypeError when both are given. */
export function either<T>(name: string, value: T | undefined, other: string, alias: T | undefined): T | undefined {
  if (value !== undefined && alias !== undefined) throw new TypeError(`${name} and ${other} have the same meaning`);
  return value ?? alias;
}

/** Returns a command of the core: a shell command, or a program with its arguments. */
export function commandOf(
  command: string | readonly string[],
  { args, shell }: { readonly args?: readonly string[] | undefined; readonly shell?: string | undefined },
): string | readonly string[] {
  if (typeof command !== "string") {
    if (args !== undefined) throw new TypeError("args not allowed: add them to the array of the command");
    return command;
  }
  if (args !== undefined) {
    if (shell !== undefined) throw new TypeError("shell not allowed: a program with args needs none");
    return [command, ...args];
  }
  return shell === undefined ? command : [shell, "-c", command];
}

/** Starts a command. */
export function startCommand(
  sandbox: CoreSandbox,
  command: string | readonly string[],
  options: CommandOptions,
  wait: boolean,
): Promise<CoreProcess> {
  const { pty = false } = options;
  const terminal = pty === true ? { rows: 24, cols: 80 } : pty === false ? undefined : pty;
  const start: StartOptions = {
    processId: options.commandId,
    env: options.env,
    cwd: either("cwd", options.cwd, "workingDir", options.workingDir),
    user: options.user,
    stdin: options.stdin ?? !wait,
    terminal,
    timeoutMs: ms(options.timeout ?? COMMAND_SECS),
    idleTimeoutMs: ms(options.idleTimeout ?? IDLE_SECS),
    killOnDisconnect: options.killOnDisconnect,
    retentionMs: ms(options.ttlSeconds),
    signal: options.signal,
  };
  return sandbox.processes.start(commandOf(command, options), start);
}

/** Runs a command and returns its result. It is killed when the call is aborted or a listener throws. */
export async function runCommand(
  sandbox: CoreSandbox,
  command: string | readonly string[],
  options: CommandOptions,
): Promise<CommandResult> {
  const { signal } = options;
  const process = await startCommand(sandbox, command, options, true);
  const aborted = new Promise<never>((_resolve, reject) => {
    if (signal?.aborted) reject(signal.reason);
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
  aborted.catch(() => undefined);
  try {
    return await Promise.race([process.wait(options), aborted]);
  } catch (error) {
    process.detach();
    if (!(error instanceof SandpoolError)) await process.kill({ requestTimeoutMs: KILL_TIMEOUT_MS }).catch(() => undefined);
    throw error;
  }
}
