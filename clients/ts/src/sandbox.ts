import type { SandboxClient } from "./client.js";
import { ResourceNotFoundError } from "./core/errors.js";
import type { CallOptions, MutationOptions, RunOptions, UpdateSandboxOptions } from "./options.js";
import type { CommandResult, SandboxInfo } from "./types.js";

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
export class Sandbox {
  readonly #client: SandboxClient;

  /** @internal Sandboxes come from a {@link SandboxClient}. */
  constructor(info: SandboxInfo, client: SandboxClient) {
    Object.assign(this, info);
    this.#client = client;
  }

  /**
   * Runs a command and resolves when it has ended. A string goes to the shell of the container; an array is the program
   * and its arguments and needs no shell. A command that fails or runs out of time resolves too: see `success` and
   * `reason`. It is never run twice.
   *
   * @throws {@link SandboxNotReadyError} when the sandbox has ended.
   */
  run(command: string | readonly string[], options: RunOptions = {}): Promise<CommandResult> {
    return this.#client.run(this.sandboxId, command, options);
  }

  /** Reads the sandbox anew. */
  refresh(call: CallOptions = {}): Promise<Sandbox> {
    return this.#client.getSandbox(this.sandboxId, call);
  }

  /** Changes name, labels or lifetime, and resolves to the sandbox after the change. */
  update(changes: UpdateSandboxOptions, call: MutationOptions = {}): Promise<Sandbox> {
    return this.#client.updateSandbox(this.sandboxId, changes, call);
  }

  /** The sandbox as it is now and after each change; ends when the sandbox has. Leaving the loop ends the watch. */
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
