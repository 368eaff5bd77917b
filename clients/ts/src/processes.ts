import { CommandHandle, inputParts } from "./command.js";
import { joined } from "./core/bytes.js";
import { commandWords, oneOf, workingDir } from "./core/commands.js";
import { type Inside, toProcess, toProcessState, toRestartPolicy } from "./core/inside.js";
import { allPages, PAGE_SIZE } from "./core/pages.js";
import { texts } from "./core/requests.js";
import { OutputOverflow } from "./gen/sandpool/v1/process_service_pb.js";
import type { HealthCheck, OutputOffsets, ProcessOptions } from "./inside-options.js";
import type { OutputChunk, Process, ProcessOutput, ProcessState } from "./inside-types.js";
import type { CallOptions } from "./options.js";

const OVERFLOWS = {
  wait_attached: OutputOverflow.WAIT_ATTACHED,
  drop_oldest: OutputOverflow.DROP_OLDEST,
  wait: OutputOverflow.WAIT,
} as const;

/** The processes of one sandbox that outlive the call that started them, and its services. */
export class Processes {
  readonly #inside: Inside;
  readonly #sandboxId: string;

  /** @internal */
  constructor(inside: Inside, sandboxId: string) {
    this.#inside = inside;
    this.#sandboxId = sandboxId;
  }

  /**
   * Starts a process, or a service where it has a `name`. A string goes to the shell of the container; an array is the
   * program and its arguments. With the `processId` of one that is there already nothing is started.
   */
  async start(command: string | readonly string[], process: ProcessOptions = {}, call?: CallOptions): Promise<Process> {
    const request = startRequest(this.#sandboxId, command, process);
    return toProcess((await this.#inside.safe((to) => this.#inside.processes.startProcess(request, to), call)).process);
  }

  /** Reads a process by its identifier, or a service by its name. */
  async get(process: string, call?: CallOptions): Promise<Process> {
    const request = this.#ref(process);
    return toProcess((await this.#inside.safe((to) => this.#inside.processes.getProcess(request, to), call)).process);
  }

  /** All processes, oldest first, those that ended a while ago included; with `states` only those. */
  async list(which: { readonly states?: readonly ProcessState[] } = {}, call?: CallOptions): Promise<Process[]> {
    const states = (which.states ?? []).map(toProcessState);
    const pages = allPages(async (pageToken) => {
      const request = { sandboxId: this.#sandboxId, states, pageToken, pageSize: PAGE_SIZE };
      const answer = await this.#inside.safe((to) => this.#inside.processes.listProcesses(request, to), call);
      return { items: answer.processes, next: answer.nextPageToken };
    });
    return (await pages).map(toProcess);
  }

  /** A process's output from the given offsets on, and its end. */
  async attach(
    process: string,
    from: OutputOffsets & { readonly signal?: AbortSignal } = {},
  ): Promise<CommandHandle> {
    const found = await this.get(process, { signal: from.signal });
    const about = { sandboxId: this.#sandboxId, commandId: found.processId, pid: found.pid };
    return new CommandHandle(this.#inside, about, from, from.signal);
  }

  /**
   * What a process printed from the given offsets on and prints from now on, until its end. It goes on over broken
   * connections, as a {@link CommandHandle} does.
   */
  async *follow(
    process: string,
    from: OutputOffsets & { readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<OutputChunk, void, undefined> {
    yield* await this.attach(process, from);
  }

  /** What is kept of what a process printed so far. Does not wait for more. */
  async output(process: string): Promise<ProcessOutput> {
    const { processId, pid, stdout, stderr } = await this.get(process);
    const about = { sandboxId: this.#sandboxId, commandId: processId, pid };
    const handle = new CommandHandle(this.#inside, about, { stdoutOffset: stdout.begin, stderrOffset: stderr.begin });
    const parts = { stdout: [] as Uint8Array[], stderr: [] as Uint8Array[] };
    const all = () => handle.offsets.stdoutOffset >= stdout.end && handle.offsets.stderrOffset >= stderr.end;
    if (!all()) {
      for await (const { stream, bytes } of handle) {
        parts[stream].push(bytes);
        if (all()) break;
      }
    }
    const [out, err] = [joined(parts.stdout), joined(parts.stderr)];
    const { stdoutOffset, stderrOffset } = handle.offsets;
    return {
      stdout: new TextDecoder().decode(out),
      stderr: new TextDecoder().decode(err),
      stdoutBytes: out,
      stderrBytes: err,
      stdoutOffset,
      stderrOffset,
      lostBytes: stdoutOffset - out.length + stderrOffset - err.length,
    };
  }

  /**
   * Writes to a process's standard input; resolves when it has taken all. It is not repeated when the connection breaks:
   * {@link CommandHandle.sendInput} is.
   */
  async write(process: string, data: string | Uint8Array): Promise<void> {
    for (const part of inputParts(data)) await this.#write(process, { data: part });
  }

  /** Says that a process's standard input ends here. */
  closeInput(process: string): Promise<void> {
    return this.#write(process, { close: true });
  }

  /** Sends a signal, such as 15, to a process, or with `tree` to all that it started too. It is never sent twice. */
  async signal(process: string, signal: number, options: { readonly tree?: boolean } = {}): Promise<void> {
    const request = { ...this.#ref(process), signal, tree: options.tree ?? false };
    await this.#inside.once((to) => this.#inside.processes.signalProcess(request, to));
  }

  /** Kills a process and all that it started; resolves to it, ended. */
  async kill(process: string, call?: CallOptions): Promise<Process> {
    const request = this.#ref(process);
    return toProcess((await this.#inside.safe((to) => this.#inside.processes.killProcess(request, to), call)).process);
  }

  /** Ends a service's present run and starts the next. */
  async restart(service: string, call?: CallOptions): Promise<Process> {
    const request = this.#ref(service);
    return toProcess((await this.#inside.once((to) => this.#inside.processes.restartProcess(request, to), call)).process);
  }

  async #write(process: string, input: { data?: Uint8Array; close?: boolean }): Promise<void> {
    const request = { ...this.#ref(process), input };
    await this.#inside.once((to) => this.#inside.processes.writeProcessInput(request, to));
  }

  #ref(process: string): { sandboxId: string; processId: string } {
    return { sandboxId: this.#sandboxId, processId: process };
  }
}

/** The request that starts a process. */
export function startRequest(sandboxId: string, command: string | readonly string[], process: ProcessOptions) {
  const { name } = process;
  return {
    sandboxId: sandboxId,
    processId: process.processId ?? crypto.randomUUID(),
    ...commandWords(command, process),
    env: texts("env", process.env),
    workingDir: workingDir(process),
    user: process.user ?? "",
    stdin: oneOf("stdin", process.stdin, "stdinMode", pipes(process.stdinMode)) ?? false,
    terminal: process.terminal,
    timeoutSecs: process.timeout,
    idleTimeoutSecs: process.idleTimeout,
    ttlSecs: process.ttlSeconds,
    killOnDisconnect: process.killOnDisconnect ?? false,
    outputBufferBytes: process.outputBufferBytes,
    ...(process.outputOverflow === undefined ? {} : { outputOverflow: OVERFLOWS[process.outputOverflow] }),
    service:
      name === undefined
        ? undefined
        : {
            name,
            restartPolicy: toRestartPolicy(process.restart ?? "never"),
            healthCheck: healthCheck(process.healthCheck),
          },
  };
}

function pipes(mode: ProcessOptions["stdinMode"]): boolean | undefined {
  return mode === undefined ? undefined : mode === "pipe";
}

function healthCheck(check: HealthCheck | undefined) {
  if (check === undefined) return undefined;
  const { port, path, intervalSecs, timeoutSecs, retries } = check;
  return {
    check: path === undefined ? { case: "tcp" as const, value: { port } } : { case: "http" as const, value: { port, path } },
    intervalSecs,
    timeoutSecs,
    retries,
  };
}
