import type { SandboxClient } from "./client.js";
import { CommandHandle, type StartRequest } from "./command.js";
import { ResourceNotFoundError, SandpoolError } from "./core/errors.js";
import { type Inside, toProcess } from "./core/inside.js";
import { InsideMethods } from "./inside-methods.js";
import type { RunOptions, StartOptions, StreamOptions } from "./inside-options.js";
import type { CommandResult } from "./inside-types.js";
import type { CallOptions, MutationOptions, UpdateSandboxOptions } from "./options.js";
import { startRequest } from "./processes.js";
import { TERMINAL } from "./pty.js";
import type { SandboxInfo } from "./types.js";

/** Limits of a command where none are given, in seconds. */
const COMMAND_SECS = 60;
const IDLE_SECS = 300;
/** How long giving up a command may take, in milliseconds. */
const KILL_MS = 5_000;

/** The plain properties of a sandbox, as the server answered them last; see {@link Sandbox.refresh}. */
export interface Sandbox extends SandboxInfo {}

/**
 * A sandbox: what is known of it, as plain properties, and what can be done with it.
 *
 * The properties are those of the answer that made this object and do not change by themselves.
 *
 * @example
 * ```ts
 * await using sandbox = await client.create({ poolId });
 * const { stdout } = await sandbox.run("python3 --version");
 * ```
 */
export class Sandbox extends InsideMethods {
  readonly #client: SandboxClient;
  readonly #inside: Inside;

  /** @internal Sandboxes come from a {@link SandboxClient}. */
  constructor(info: SandboxInfo, client: SandboxClient, inside: Inside) {
    super(inside, info.sandboxId);
    Object.assign(this, info);
    this.#client = client;
    this.#inside = inside;
  }

  /**
   * Runs a command and resolves when it has ended. A string goes to the shell of the container; an array is the program
   * and its arguments and needs no shell. A command that fails or runs out of time resolves too: see `success` and
   * `reason`.
   *
   * It does not hang on the connection: where that breaks, or the server starts anew, the client takes it up at the byte
   * where it was. It is started once, however often that happens. With `onStdout` or `onStderr` the output comes while
   * the command runs; with `wait: false` it resolves to a {@link CommandHandle} at once.
   *
   * @throws {@link SandboxNotReadyError} when the sandbox has ended, {@link SandboxConnectionError} when nothing answers
   * for long, {@link ResourceTimeoutError} when its end is not told more than a minute after its own `timeout`.
   */
  run(command: string | readonly string[], options: StartOptions): Promise<CommandHandle>;
  run(
    command: string | readonly string[],
    options?: RunOptions & StreamOptions & { readonly wait?: true },
  ): Promise<CommandResult>;
  async run(
    command: string | readonly string[],
    options: RunOptions & StreamOptions & { readonly wait?: boolean } = {},
  ): Promise<CommandHandle | CommandResult> {
    const { signal } = options;
    const request = this.#request(command, options);
    if (options.wait === false) return this.#start(request, signal);
    const limitMs = (options.timeout ?? COMMAND_SECS) * 1000;
    const about = { sandboxId: this.sandboxId, commandId: request.processId, pid: null };
    const handle = this.#inside.duplex
      ? new CommandHandle(this.#inside, about, {}, signal, { request, limitMs })
      : await this.#start(request, signal, limitMs);
    try {
      return await handle.wait(options);
    } catch (error) {
      // Nobody waits for it any more: its caller gave it up, or a listener failed.
      if (!(error instanceof SandpoolError)) await handle.kill({ timeoutMs: KILL_MS }).catch(ignoreOurs);
      throw error;
    }
  }

  /**
   * Runs a short command in one call of one answer, which takes a little less than {@link Sandbox.run}. It hangs on the
   * connection: where that breaks the command is killed, and it is never sent again. At most 1 MiB of each stream comes
   * back.
   *
   * @throws {@link SandboxConnectionError} when the server does not answer; the command may have run.
   */
  runOnce(command: string | readonly string[], options: RunOptions = {}): Promise<CommandResult> {
    return this.#client.runOnce(this.sandboxId, command, options);
  }

  #request(command: string | readonly string[], options: RunOptions & StreamOptions & { readonly wait?: boolean }) {
    const { pty = false } = options;
    return startRequest(this.sandboxId, command, {
      processId: options.commandId,
      args: options.args,
      shell: options.shell,
      env: options.env,
      cwd: options.cwd,
      workingDir: options.workingDir,
      user: options.user,
      stdin: options.stdin ?? options.wait === false,
      terminal: pty === true ? TERMINAL : pty === false ? undefined : pty,
      timeout: options.timeout ?? COMMAND_SECS,
      idleTimeout: options.idleTimeout ?? IDLE_SECS,
      ttlSeconds: options.ttlSeconds,
      killOnDisconnect: options.killOnDisconnect,
    });
  }

  async #start(request: StartRequest, signal: AbortSignal | undefined, limitMs?: number): Promise<CommandHandle> {
    const { process } = await this.#inside.safe((to) => this.#inside.processes.startProcess(request, to), { signal });
    const { processId, pid } = toProcess(process);
    const about = { sandboxId: this.sandboxId, commandId: processId, pid };
    const awaited = limitMs === undefined ? undefined : { request: null, limitMs };
    return new CommandHandle(this.#inside, about, {}, signal, awaited);
  }

  /** A handle of a command that was started before, from the given offsets of its output on. */
  reconnect(
    commandId: string,
    from: { readonly stdoutOffset?: number; readonly stderrOffset?: number } = {},
  ): Promise<CommandHandle> {
    return this.processes.attach(commandId, from);
  }

  /** Reads the sandbox anew. */
  refresh(call: CallOptions = {}): Promise<Sandbox> {
    return this.#client.getSandbox(this.sandboxId, call);
  }

  /** Changes name, labels or lifetime, and resolves to the sandbox after the change. */
  update(changes: UpdateSandboxOptions, call: MutationOptions = {}): Promise<Sandbox> {
    return this.#client.updateSandbox(this.sandboxId, changes, call);
  }

  /** See {@link SandboxClient.watchSandbox}. */
  watch(call: Pick<CallOptions, "signal"> = {}): AsyncIterable<Sandbox> {
    return this.#client.watchSandbox(this.sandboxId, call);
  }

  /** Ends the sandbox; its container is removed and never used again. It is no error when it has ended already. */
  async delete(call: MutationOptions = {}): Promise<void> {
    await this.#client.deleteSandbox(this.sandboxId, call);
  }

  /** The same as {@link Sandbox.delete}. */
  async terminate(call: MutationOptions = {}): Promise<void> {
    await this.delete(call);
  }

  /** Ends the sandbox at the end of an `await using` block. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.delete();
    } catch (error) {
      if (!(error instanceof ResourceNotFoundError)) throw error; // it ended so long ago that the server forgot it
    }
  }
}

/** What is thrown while something is given up does not matter, unless it is a fault of this package. */
function ignoreOurs(error: unknown): void {
  if (!(error instanceof SandpoolError)) throw error;
}
