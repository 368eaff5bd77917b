/** The calls of SandboxService that the client and the handle of a sandbox share. */
import { type CallOptions as ConnectOptions, type Client, createClient, type Transport } from "@connectrpc/connect";
import { SandboxService } from "../gen/sandpool/v1/sandbox_service_pb.js";
import type * as options from "../options.js";
import type { Command, RunOptions } from "../sandbox-options.js";
import type { CommandResult } from "../sandbox-types.js";
import type { SandboxInfo } from "../types.js";
import type { Caller } from "./caller.js";
import { toCommandResult, toSandboxInfo } from "./convert.js";
import { COMMAND_MARGIN_MS, COMMAND_TIMEOUT_MS } from "./defaults.js";
import { CommandTimeoutError, ResourceTimeoutError } from "./errors.js";
import { limited } from "./limits.js";
import { type PagedList, paged } from "./pages.js";
import * as requests from "./requests.js";

/** The longest time limit of a command that is one request. */
const LONGEST_COMMAND_MS = 86_400_000;

/** The calls of SandboxService. */
export class SandboxCalls {
  readonly #caller: Caller;
  readonly #service: Client<typeof SandboxService>;

  constructor(caller: Caller, transport: Transport) {
    this.#caller = caller;
    this.#service = createClient(SandboxService, transport);
  }

  async create(sandbox: options.CreateOptions): Promise<SandboxInfo> {
    const request = requests.createSandboxRequest(sandbox, requests.requestId(sandbox));
    const invoke = (to: ConnectOptions) => this.#service.createSandbox(request, to);
    const response = await this.#caller.safe(invoke, sandbox, requests.creationTimeoutMs(sandbox));
    return toSandboxInfo(response.sandbox);
  }

  async createBatch(count: number, sandbox: options.BatchOptions): Promise<SandboxInfo[]> {
    const request = requests.batchCreateSandboxesRequest(count, sandbox);
    const invoke = (to: ConnectOptions) => this.#service.batchCreateSandboxes(request, to);
    const response = await this.#caller.safe(invoke, sandbox, requests.creationTimeoutMs(sandbox));
    return response.sandboxes.map(toSandboxInfo);
  }

  async get(sandboxId: string, call?: options.CallOptions): Promise<SandboxInfo> {
    const response = await this.#caller.safe((to) => this.#service.getSandbox({ sandboxId }, to), call);
    return toSandboxInfo(response.sandbox);
  }

  list<T>(filter: options.ListSandboxesOptions, convert: (info: SandboxInfo) => T): PagedList<T> {
    const request = requests.listSandboxesRequest(filter);
    const read = async (page: object) => {
      const response = await this.#caller.safe((to) => this.#service.listSandboxes({ ...request, ...page }, to), filter);
      return { items: response.sandboxes, next: response.nextPageToken };
    };
    return paged(filter.pageSize, read, (message) => convert(toSandboxInfo(message)));
  }

  async update(sandboxId: string, changes: options.UpdateSandboxOptions): Promise<SandboxInfo> {
    const request = requests.updateSandboxRequest(sandboxId, changes);
    const response = await this.#caller.safe((to) => this.#service.updateSandbox(request, to), changes);
    return toSandboxInfo(response.sandbox);
  }

  async delete(sandboxId: string, call?: options.MutationOptions): Promise<SandboxInfo> {
    const request = { sandboxId, requestId: requests.requestId(call) };
    const response = await this.#caller.safe((to) => this.#service.deleteSandbox(request, to), call);
    return toSandboxInfo(response.sandbox);
  }

  async *watch(sandboxId: string, watch: options.WatchOptions): AsyncGenerator<SandboxInfo, void, undefined> {
    const invoke = (to: ConnectOptions) => this.#service.watchSandbox({ sandboxId }, to);
    const open = (signal: AbortSignal | undefined) => {
      return this.#caller.resumed(() => this.#caller.stream(invoke, { signal, timeoutMs: undefined }), signal);
    };
    const events = limited(`the watch on sandbox ${sandboxId}`, watch, open);
    for await (const { sandbox } of events) yield toSandboxInfo(sandbox);
  }

  /** Runs a command with one request, which is repeated only when it was never sent. */
  async runCommand(sandboxId: string, command: Command, run: RunOptions): Promise<CommandResult> {
    const { timeoutMs: given = COMMAND_TIMEOUT_MS } = run;
    const timeoutMs = given ?? LONGEST_COMMAND_MS;
    const request = requests.runCommandRequest(sandboxId, command, { ...run, timeoutMs });
    const { requestTimeoutMs = given === null ? null : timeoutMs + COMMAND_MARGIN_MS } = run;
    const bounds = { timeoutMs: requestTimeoutMs ?? undefined, signal: run.signal };
    try {
      const response = await this.#caller.unary((to) => this.#service.runCommand(request, to), "unsent", bounds);
      return toCommandResult(response);
    } catch (error) {
      throw error instanceof ResourceTimeoutError ? commandTimeout(error, timeoutMs) : error;
    }
  }
}

/** Returns the error for a command whose exit was not reported in time. */
export function commandTimeout(error: ResourceTimeoutError, timeoutMs: number): CommandTimeoutError {
  const { code, reason, resourceType, resourceName, cause } = error;
  const details = { reason: reason ?? undefined, resourceType: resourceType ?? undefined };
  return new CommandTimeoutError(`the exit of the command was not reported in time: ${error.message}`, {
    ...details,
    code: code ?? undefined,
    resourceName: resourceName ?? undefined,
    cause,
    timeoutMs,
  });
}
