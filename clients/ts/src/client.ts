import { type Client, createClient } from "@connectrpc/connect";
import { Caller } from "./core/caller.js";
import { toPool, toSecret, toTemplate } from "./core/convert.js";
import { REQUEST_TIMEOUT_MS } from "./core/defaults.js";
import { withMethodNames } from "./core/errors.js";
import { limited } from "./core/limits.js";
import { type PagedList, paged } from "./core/pages.js";
import * as requests from "./core/requests.js";
import { completed } from "./core/retry.js";
import { SandboxCalls } from "./core/sandbox-calls.js";
import { SandboxIo } from "./core/sandbox-io.js";
import { PoolService } from "./gen/sandpool/v1/pool_service_pb.js";
import { SecretService } from "./gen/sandpool/v1/secret_service_pb.js";
import { TemplateService } from "./gen/sandpool/v1/template_service_pb.js";
import type * as options from "./options.js";
import { connect, DEFAULT_ADDRESS, environment } from "./platform/node.js";
import { allPoolEvents, poolEvents, readyPool } from "./pool-watch.js";
import { Sandbox } from "./sandbox.js";
import type { Pool, PoolEvent, SandboxInfo, Secret, Template } from "./types.js";
import { VERSION } from "./version.js";

/** The options of a pool without any; the missing image is reported as such. */
const NO_OPTIONS = {} as options.CreatePoolOptions;

/**
 * The client of one sandpool server.
 *
 * Methods accept the identifier or the name of a pool, a template or a sandbox. The client repeats a call when the
 * server does not respond and a repetition is safe. Every method rejects with a {@link SandpoolError}, or with a
 * `TypeError` for a wrong combination of arguments.
 *
 * @example
 * ```ts
 * const client = new SandboxClient();
 * await client.createPool("python", { image: "python:3.11-slim", warmContainers: 3 });
 * await client.waitForPool("python");
 * await using sandbox = await client.create({ poolId: "python" });
 * console.log((await sandbox.run("python3 --version")).stdout);
 * ```
 */
export class SandboxClient {
  readonly #caller: Caller;
  readonly #pools: Client<typeof PoolService>;
  readonly #templates: Client<typeof TemplateService>;
  readonly #secrets: Client<typeof SecretService>;
  readonly #sandboxes: SandboxCalls;
  readonly #io: SandboxIo;

  /** The address of the server, or `transport` for a transport that was given without an address. */
  readonly address: string;

  /**
   * Creates a client. It connects with its first call.
   *
   * @throws TypeError when the address is not valid, RangeError when a limit is not valid.
   */
  constructor(settings: options.SandboxClientOptions = {}) {
    const { transport } = settings;
    const address = settings.address ?? environment("SANDPOOL_ADDRESS") ?? DEFAULT_ADDRESS;
    this.address = transport === undefined ? address : (settings.address ?? "transport");
    const connection =
      transport === undefined
        ? connect(address)
        : { transport, duplex: false, target: this.address, close: () => undefined };
    const apiKey = settings.apiKey ?? environment("SANDPOOL_API_KEY");
    const headers = {
      "User-Agent": `sandpool-ts/${VERSION}`,
      ...(apiKey ? { Authorization: `Bearer ${apiKey}` } : {}),
    };
    const { requestTimeoutMs = REQUEST_TIMEOUT_MS } = settings;
    this.#caller = new Caller(connection, headers, requestTimeoutMs, completed(settings.retry));
    const named = withMethodNames(connection.transport);
    this.#pools = createClient(PoolService, named);
    this.#templates = createClient(TemplateService, named);
    this.#secrets = createClient(SecretService, named);
    this.#sandboxes = new SandboxCalls(this.#caller, named);
    this.#io = new SandboxIo(this.#caller, named);
  }

  /**
   * Closes the connection. Calls in progress and later calls reject with {@link ClientClosedError}. Sandboxes keep
   * running. A transport that was passed to the constructor is not closed.
   */
  close(): void {
    this.#caller.close();
  }

  /** Closes the client at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close();
  }

  // Pools.

  /**
   * Creates a pool and starts to fill it. The call does not wait until the pool is full; see
   * {@link SandboxClient.waitForPool}.
   *
   * @throws {@link ResourceAlreadyExistsError} when the name is in use, {@link ResourceNotFoundError} when the template or
   * a secret does not exist.
   */
  createPool(name: string, pool: options.CreatePoolOptions): Promise<Pool>;
  /** Creates a pool; the name is optional. */
  createPool(pool: options.CreatePoolOptions & options.Named): Promise<Pool>;
  async createPool(
    first: string | (options.CreatePoolOptions & options.Named),
    second?: options.CreatePoolOptions,
  ): Promise<Pool> {
    const pool: options.CreatePoolOptions & options.Named = typeof first === "string" ? (second ?? NO_OPTIONS) : first;
    const name = typeof first === "string" ? first : first.name;
    const request = requests.createPoolRequest(name, pool);
    const response = await this.#caller.safe((to) => this.#pools.createPool(request, to), pool);
    return toPool(response.pool);
  }

  /** Returns a pool with its current status. */
  async getPool(poolId: string, call?: options.CallOptions): Promise<Pool> {
    const response = await this.#caller.safe((to) => this.#pools.getPool({ poolId }, to), call);
    return toPool(response.pool);
  }

  /** Lists all pools, oldest first. */
  listPools(list: options.ListOptions = {}): PagedList<Pool> {
    const read = async (page: object) => {
      const response = await this.#caller.safe((to) => this.#pools.listPools(page, to), list);
      return { items: response.pools, next: response.nextPageToken };
    };
    return paged(list.pageSize, read, toPool);
  }

  /**
   * Updates a pool. Warm containers of an earlier specification are replaced; active sandboxes keep the specification
   * that they started with.
   *
   * @throws TypeError when there is nothing to update, {@link ConflictError} when `etag` is not current.
   */
  async updatePool(poolId: string, changes: options.UpdatePoolOptions): Promise<Pool> {
    const request = requests.updatePoolRequest(poolId, changes);
    const response = await this.#caller.safe((to) => this.#pools.updatePool(request, to), changes);
    return toPool(response.pool);
  }

  /**
   * Deletes a pool and its unclaimed containers; with `force`, its active sandboxes too.
   *
   * @throws {@link PoolInUseError} while sandboxes of the pool are active, without `force`.
   */
  async deletePool(poolId: string, call: options.DeletePoolOptions = {}): Promise<void> {
    const { etag = "", force = false } = call;
    const request = { poolId, etag, force, requestId: requests.requestId(call) };
    await this.#caller.safe((to) => this.#pools.deletePool(request, to), call);
  }

  /**
   * Yields the current state of the pools and then each change; without `poolIds` of all pools, including new ones.
   * Changes in quick succession may be merged into one event. To end the watch, leave the loop.
   *
   * When the connection breaks, the watch is resumed: it yields the current state again, and an event for each pool that
   * was deleted in the meantime. A watch on named pools ends when all of them are deleted.
   */
  watchPools(
    poolIds: readonly string[] = [],
    watch: options.WatchOptions = {},
  ): AsyncGenerator<PoolEvent, void, undefined> {
    const name = poolIds.length === 0 ? "the watch on pools" : `the watch on pools ${poolIds.join(", ")}`;
    return limited(name, watch, (signal) =>
      poolIds.length === 0
        ? allPoolEvents(this.#caller, this.#pools, signal)
        : poolEvents(this.#caller, this.#pools, poolIds, signal),
    );
  }

  /**
   * Waits until a pool has its warm containers, and returns it.
   *
   * @throws {@link PoolNotFoundError} when the pool does not exist or is deleted, {@link PoolPausedError} when it is
   * paused or drained, {@link ResourceTimeoutError} after `timeoutMs`, with the pool's last failure in the message.
   */
  waitForPool(poolId: string, wait: options.WaitForPoolOptions = {}): Promise<Pool> {
    return readyPool(poolId, (signal) => poolEvents(this.#caller, this.#pools, [poolId], signal), wait);
  }

  // Templates.

  /**
   * Creates a template.
   *
   * @throws {@link ResourceAlreadyExistsError} when the name is in use.
   */
  async createTemplate(name: string, template: options.CreateTemplateOptions): Promise<Template> {
    const request = requests.createTemplateRequest(name, template);
    const response = await this.#caller.safe((to) => this.#templates.createTemplate(request, to), template);
    return toTemplate(response.template);
  }

  /** Returns a template. */
  async getTemplate(templateName: string, call?: options.CallOptions): Promise<Template> {
    const response = await this.#caller.safe((to) => this.#templates.getTemplate({ templateName }, to), call);
    return toTemplate(response.template);
  }

  /** Lists all templates, oldest first. */
  listTemplates(list: options.ListOptions = {}): PagedList<Template> {
    const read = async (page: object) => {
      const response = await this.#caller.safe((to) => this.#templates.listTemplates(page, to), list);
      return { items: response.templates, next: response.nextPageToken };
    };
    return paged(list.pageSize, read, toTemplate);
  }

  /** Updates a template and every pool that uses it. */
  async updateTemplate(templateName: string, changes: options.UpdateTemplateOptions): Promise<Template> {
    const request = requests.updateTemplateRequest(templateName, changes);
    const response = await this.#caller.safe((to) => this.#templates.updateTemplate(request, to), changes);
    return toTemplate(response.template);
  }

  /**
   * Deletes a template.
   *
   * @throws {@link TemplateInUseError} while pools use it.
   */
  async deleteTemplate(templateName: string, call: options.DeleteOptions = {}): Promise<void> {
    const request = { templateName, etag: call.etag ?? "", requestId: requests.requestId(call) };
    await this.#caller.safe((to) => this.#templates.deleteTemplate(request, to), call);
  }

  // Secrets.

  /** Creates a secret. `name` is also the name of the environment variable in the sandboxes that receive it. */
  async createSecret(name: string, value: string, call?: options.MutationOptions): Promise<Secret> {
    const request = requests.secretRequest(name, value, call);
    const response = await this.#caller.safe((to) => this.#secrets.createSecret(request, to), call);
    return toSecret(response.secret);
  }

  /** Returns a secret without its value. */
  async getSecret(name: string, call?: options.CallOptions): Promise<Secret> {
    const response = await this.#caller.safe((to) => this.#secrets.getSecret({ name }, to), call);
    return toSecret(response.secret);
  }

  /** Lists all secrets by name, without their values. */
  listSecrets(list: options.ListOptions = {}): PagedList<Secret> {
    const read = async (page: object) => {
      const response = await this.#caller.safe((to) => this.#secrets.listSecrets(page, to), list);
      return { items: response.secrets, next: response.nextPageToken };
    };
    return paged(list.pageSize, read, toSecret);
  }

  /** Updates the value of a secret. Sandboxes that are claimed later receive the new value. */
  async updateSecret(name: string, value: string, call?: options.MutationOptions): Promise<Secret> {
    const request = requests.secretRequest(name, value, call);
    const response = await this.#caller.safe((to) => this.#secrets.updateSecret(request, to), call);
    return toSecret(response.secret);
  }

  /**
   * Deletes a secret; with `force`, also while pools or templates reference it.
   *
   * @throws {@link SecretInUseError} while pools or templates reference it, without `force`.
   */
  async deleteSecret(name: string, call: options.DeleteSecretOptions = {}): Promise<void> {
    const request = { name, force: call.force ?? false, requestId: requests.requestId(call) };
    await this.#caller.safe((to) => this.#secrets.deleteSecret(request, to), call);
  }

  // Sandboxes.

  /**
   * Creates a sandbox from a pool, from a template or from an image, and returns it when it runs commands.
   *
   * @throws {@link QuotaExceededError} when the pool is at its `maxContainers`, {@link PoolEmptyError} with
   * `whenEmpty: "fail"`, {@link ResourceTimeoutError} after `queueTimeoutMs`, {@link PoolPausedError},
   * {@link ResourceCreationError} when the container cannot be started.
   */
  async create(sandbox: options.CreateOptions): Promise<Sandbox> {
    return this.#sandbox(await this.#sandboxes.create(sandbox), true);
  }

  /** Creates `count` identical sandboxes, 1 to 1,000, all or none. Errors: those of {@link SandboxClient.create}. */
  async createBatch(count: number, sandbox: options.BatchOptions): Promise<Sandbox[]> {
    const created = await this.#sandboxes.createBatch(count, sandbox);
    return created.map((info) => this.#sandbox(info, true));
  }

  /** Returns a sandbox, including one that terminated within the retention time. */
  async getSandbox(sandboxId: string, call?: options.CallOptions): Promise<Sandbox> {
    return this.#sandbox(await this.#sandboxes.get(sandboxId, call), false);
  }

  /** Lists the sandboxes that match the filters, oldest first; by default those that are not terminated. */
  listSandboxes(filter: options.ListSandboxesOptions = {}): PagedList<Sandbox> {
    return this.#sandboxes.list(filter, (info) => this.#sandbox(info, false));
  }

  /** Updates the name, the metadata or the lifetime of a sandbox. */
  async updateSandbox(sandboxId: string, changes: options.UpdateSandboxOptions): Promise<Sandbox> {
    return this.#sandbox(await this.#sandboxes.update(sandboxId, changes), false);
  }

  /** Terminates a sandbox. Its container is removed and never reused. A second call has no effect. */
  async deleteSandbox(sandboxId: string, call?: options.MutationOptions): Promise<void> {
    await this.#sandboxes.delete(sandboxId, call);
  }

  /**
   * Yields the current state of a sandbox and then each change, until it is terminated. When the connection breaks, the
   * watch is resumed. To end the watch, leave the loop.
   */
  watchSandbox(sandboxId: string, watch: options.WatchOptions = {}): AsyncGenerator<SandboxInfo, void, undefined> {
    return this.#sandboxes.watch(sandboxId, watch);
  }

  #sandbox(info: SandboxInfo, created: boolean): Sandbox {
    return new Sandbox(info, this.#sandboxes, this.#io, created);
  }
}
