import { bytes, integer } from "./core/arguments.js";
import { joined } from "./core/bytes.js";
import { toProcessInfo } from "./core/convert-io.js";
import { fromProcessState } from "./core/enums.js";
import { Output, RESULT_BYTES } from "./core/output.js";
import { type PagedList, paged } from "./core/pages.js";
import { startRequest } from "./core/process-requests.js";
import type { SandboxAccess } from "./core/sandbox-io.js";
import type { CallOptions } from "./options.js";
import { ignoreClosedStdin, inputParts, Process, startProcess } from "./process.js";
import type { AttachOptions, Command, ListProcessesOptions, SignalOptions, StartOptions } from "./sandbox-options.js";
import type { OutputChunk, ProcessInfo, ProcessOutput } from "./sandbox-types.js";

/**
 * The processes of a sandbox that outlive the call that started them, and its services. `processId` accepts the
 * identifier of a process or the name of a service.
 */
export class Processes {
  readonly #access: SandboxAccess;

  /** @internal */
  constructor(access: SandboxAccess) {
    this.#access = access;
  }

  /**
   * Starts a process and returns its handle when the process runs. With `name` it is a service. A string is a shell
   * command; an array is a program with its arguments. If a process with the same `processId` exists and was started by
   * an equal request, nothing is started.
   */
  async start(command: Command, options: StartOptions = {}): Promise<Process> {
    return startProcess(this.#access, startRequest(this.#access.sandboxId, command, options), options);
  }

  /** Returns a handle of an existing process, which continues at the given offsets of its output. */
  async attach(processId: string, options: AttachOptions = {}): Promise<Process> {
    return this.#attach(processId, options, RESULT_BYTES);
  }

  /** Returns a process. */
  async get(processId: string, call?: CallOptions): Promise<ProcessInfo> {
    const { io } = this.#access;
    return toProcessInfo((await io.safe((to) => io.processes.getProcess(this.#ref(processId), to), call)).process);
  }

  /** Lists the processes, oldest first, including exited ones within their retention time. */
  list(options: ListProcessesOptions = {}): PagedList<ProcessInfo> {
    const states = (options.states ?? []).map((state) => fromProcessState("states", state));
    const read = async (page: object) => {
      const { io, sandboxId } = this.#access;
      const request = { sandboxId, states, ...page };
      const response = await io.safe((to) => io.processes.listProcesses(request, to), options);
      return { items: response.processes, next: response.nextPageToken };
    };
    return paged(options.pageSize, read, toProcessInfo);
  }

  /** Kills a process with all its descendants. Returns when they have exited. A killed service is not restarted. */
  async kill(processId: string, call?: CallOptions): Promise<void> {
    const { io } = this.#access;
    await io.safe((to) => io.processes.killProcess(this.#ref(processId), to), call);
  }

  /** Sends a signal by its number, with `tree` also to all descendants. It is never sent twice. */
  async signal(processId: string, signal: number, options: SignalOptions = {}): Promise<void> {
    const { io } = this.#access;
    const request = { ...this.#ref(processId), signal: integer("signal", signal), tree: options.tree ?? false };
    await io.once((to) => io.processes.signalProcess(request, to), options);
  }

  /** Kills the current run of a service and starts the next one. It is never sent twice. */
  async restart(processId: string, call?: CallOptions): Promise<ProcessInfo> {
    const { io } = this.#access;
    return toProcessInfo((await io.once((to) => io.processes.restartProcess(this.#ref(processId), to), call)).process);
  }

  /**
   * Writes to the standard input of a process. Returns when it has accepted all bytes. When the connection breaks, the
   * write is not repeated; `writeStdin` of a {@link Process} repeats it.
   */
  async writeStdin(processId: string, data: string | Uint8Array, call?: CallOptions): Promise<void> {
    for (const part of inputParts(data)) await this.#write(processId, { data: part }, call);
  }

  /** Closes the standard input of a process. A second call has no effect. */
  async closeStdin(processId: string, call?: CallOptions): Promise<void> {
    await this.#write(processId, { close: true }, call).catch(ignoreClosedStdin);
  }

  /** Returns the buffered output of a process. It does not wait for more. */
  async output(processId: string, call?: CallOptions): Promise<ProcessOutput> {
    const info = await this.get(processId, call);
    const { stdout, stderr } = info;
    const { io, sandboxId } = this.#access;
    const output = new Output(stdout.startOffset, stderr.startOffset, 0);
    const process = new Process(io, sandboxId, info, output, { signal: call?.signal });
    const complete = () => output.stdoutOffset >= stdout.endOffset && output.stderrOffset >= stderr.endOffset;
    const parts = { stdout: [] as Uint8Array[], stderr: [] as Uint8Array[] };
    if (!complete()) {
      for await (const { stream, dataBytes } of process) {
        parts[stream].push(dataBytes);
        if (complete()) break;
      }
    }
    const [out, err] = [joined(parts.stdout), joined(parts.stderr)];
    return {
      stdout: new TextDecoder("utf-8", { ignoreBOM: true }).decode(out),
      stderr: new TextDecoder("utf-8", { ignoreBOM: true }).decode(err),
      stdoutBytes: out,
      stderrBytes: err,
      stdoutOffset: output.stdoutOffset,
      stderrOffset: output.stderrOffset,
      stdoutDroppedBytes: output.stdoutOffset - out.length,
      stderrDroppedBytes: output.stderrOffset - err.length,
    };
  }

  /**
   * Yields the output of a process from the given offsets on, until it exits. When the connection breaks, it continues at
   * the last byte received. Leaving the loop does not end the process.
   */
  async *follow(processId: string, options: AttachOptions = {}): AsyncGenerator<OutputChunk, void, undefined> {
    yield* await this.#attach(processId, options, 0, options.signal);
  }

  async #attach(processId: string, options: AttachOptions, most: number, signal?: AbortSignal): Promise<Process> {
    const { io, sandboxId } = this.#access;
    const { stdoutOffset = 0, stderrOffset = 0 } = options;
    bytes("stdoutOffset", stdoutOffset);
    bytes("stderrOffset", stderrOffset);
    const info = await this.get(processId, options);
    return new Process(io, sandboxId, info, new Output(stdoutOffset, stderrOffset, most), { signal });
  }

  async #write(
    processId: string,
    input: { readonly data?: Uint8Array; readonly close?: boolean },
    call: CallOptions | undefined,
  ): Promise<void> {
    const { io } = this.#access;
    await io.once((to) => io.processes.writeProcessInput({ ...this.#ref(processId), input }, to), call);
  }

  #ref(processId: string): { sandboxId: string; processId: string } {
    return { sandboxId: this.#access.sandboxId, processId };
  }
}
