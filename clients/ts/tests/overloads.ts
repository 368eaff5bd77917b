/**
 * The calls that the types allow and reject. `tsc` checks this file: a line under `@ts-expect-error` that compiles is an error. It
 * is never run.
 */
import {
  type CommandResult,
  type DirectoryUpload,
  type ExposedPort,
  type FileEvent,
  type FileInfo,
  type OutputChunk,
  type PagedList,
  type Pool,
  type PoolEvent,
  type PoolState,
  type Process,
  type ProcessHealth,
  type ProcessInfo,
  type Sandbox,
  SandboxClient,
  type SandboxInfo,
  type Secret,
  type StartType,
  type Terminal,
  type WhenEmpty,
} from "sandpool";

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const isTrue = <T extends true>(value?: T): T | undefined => value;

export async function pools(client: SandboxClient, count: number | undefined): Promise<void> {
  const pool = await client.createPool("python-pool", { templateName: "python-sandbox", size: 5 });
  isTrue<Equal<typeof pool, Pool>>();
  isTrue<Equal<PoolState, "ready" | "filling" | "degraded" | "paused" | "drained" | "unknown">>();
  isTrue<Equal<(typeof pool)["createTime"], Date>>();
  isTrue<Equal<(typeof pool)["warmContainers"], number | null>>();
  await client.createPool({ templateName: "python-sandbox", name: "python-pool" });
  await client.createPool({ image: "python:3.11-slim", warmContainers: 3, cpus: 0.5, memoryMb: 256 });
  await client.createPool("named", { image: "python:3.11-slim", warmContainers: 3, signal: AbortSignal.timeout(1), requestId: "r" });
  await client.createPool({ image: "python:3.11-slim", warmContainers: count, requestTimeoutMs: null });
  // @ts-expect-error neither image nor template
  await client.createPool({ warmContainers: 3 });
  // @ts-expect-error both
  await client.createPool({ image: "python:3.11-slim", templateName: "python-sandbox" });
  // @ts-expect-error the specification is that of the template
  await client.createPool("python-pool", { templateName: "python-sandbox", size: 5, memoryMb: 256 });
  // @ts-expect-error one size under two names
  await client.createPool("python-pool", { templateName: "python-sandbox", size: 5, warmContainers: 5 });
  // @ts-expect-error only a pool with a template has a size
  await client.createPool({ image: "python:3.11-slim", size: 5 });
  // @ts-expect-error the name is given already
  await client.createPool("python-pool", { name: "other", image: "python:3.11-slim" });
  // @ts-expect-error a misspelled option
  await client.createPool({ image: "python:3.11-slim", warm_containers: 3 });
  const limits = { imageRefreshIntervalMs: 60_000, warmTtlMs: 3_600_000, drained: true } as const;
  await client.createPool("python-pool", { templateName: "python-sandbox", size: 5, ...limits });
  const readinessProbe = { command: ["true"], intervalMs: 100 };
  await client.createPool({ image: "python:3.11-slim", env: { A: "1" }, readinessProbe, pullPolicy: "always", ...limits });
  // @ts-expect-error the environment is that of the template
  await client.createPool({ templateName: "python-sandbox", env: { A: "1" } });
  // @ts-expect-error the readiness probe is that of the template
  await client.createPool({ templateName: "python-sandbox", readinessProbe });
  // @ts-expect-error the pull policy is that of the template
  await client.createPool({ templateName: "python-sandbox", pullPolicy: "always" });
  // @ts-expect-error a probe has a command
  await client.createPool({ image: "python:3.11-slim", readinessProbe: { intervalMs: 100 } });
  // @ts-expect-error an unknown policy
  await client.createPool({ image: "python:3.11-slim", pullPolicy: "sometimes" });
  // @ts-expect-error only responses have it
  await client.createPool({ image: "python:3.11-slim", pullPolicy: "unknown" });
  // @ts-expect-error variables are strings
  await client.createPool({ image: "python:3.11-slim", env: { A: 1 } });
  await client.updatePool("python-pool", { env: null, readinessProbe: null, pullPolicy: null, imageRefreshIntervalMs: null });
  await client.deletePool("python-pool", { force: true });
  // @ts-expect-error templates have no force
  await client.deleteTemplate("python-sandbox", { force: true });
  await client.updatePool("python-pool", { warmContainers: 2, maxContainers: null, name: null });
  // @ts-expect-error a pool always has an image
  await client.updatePool("python-pool", { image: null });
  // @ts-expect-error models are read-only
  pool.warmContainers = 3;
  isTrue<Equal<ReturnType<typeof client.listPools>, PagedList<Pool>>>();
  for await (const event of client.watchPools()) isTrue<Equal<typeof event, PoolEvent>>();
  for await (const event of client.watchPools(["p"], { timeoutMs: 1_000 })) isTrue<Equal<typeof event, PoolEvent>>();
}

export async function secrets(client: SandboxClient): Promise<void> {
  const secret = await client.createSecret("A", "value");
  isTrue<Equal<typeof secret, Secret>>();
  isTrue<Equal<ReturnType<typeof client.listSecrets>, PagedList<Secret>>>();
  await client.deleteSecret("A", { force: true });
  // @ts-expect-error a secret has a value
  await client.createSecret("A");
  // @ts-expect-error a value is a string
  await client.updateSecret("A", new Uint8Array([1]));
  // @ts-expect-error no call returns the value
  void secret.value;
}

export async function claims(client: SandboxClient, whenEmpty: WhenEmpty): Promise<void> {
  await client.create({ poolId: "p", env: { A: "1" }, whenEmpty });
  await client.create({ poolId: "p", whenEmpty: "wait", queueTimeoutMs: 5_000 });
  await client.create({ templateName: "t", whenEmpty: "fail" });
  await client.create({ image: "i", env: { A: "1" }, readinessProbe: { command: ["true"], failureThreshold: 3 } });
  // @ts-expect-error a sandbox from an image always has a cold start
  await client.create({ image: "i", whenEmpty: "wait" });
  // @ts-expect-error the call does not wait
  await client.create({ poolId: "p", queueTimeoutMs: 5 });
  // @ts-expect-error the call does not wait
  await client.create({ templateName: "t", whenEmpty: "fail", queueTimeoutMs: 5 });
  // @ts-expect-error an unknown value
  await client.create({ poolId: "p", whenEmpty: "queue" });
  // @ts-expect-error the readiness probe is that of the pool
  await client.create({ poolId: "p", readinessProbe: { command: ["true"] } });
  const batch = await client.createBatch(2, { poolId: "p", whenEmpty: "wait", metadata: { a: "b" } });
  isTrue<Equal<typeof batch, Sandbox[]>>();
  // @ts-expect-error the sandboxes of a batch are identical
  await client.createBatch(2, { poolId: "p", name: "n" });
}

export async function sandboxes(client: SandboxClient): Promise<void> {
  await using sandbox = await client.create({ poolId: "p" });
  isTrue<Equal<typeof sandbox, Sandbox>>();
  isTrue<Equal<(typeof sandbox)["startType"], StartType | null>>();
  isTrue<Equal<Awaited<ReturnType<typeof sandbox.refresh>>, SandboxInfo>>();
  isTrue<Equal<Awaited<ReturnType<typeof sandbox.update>>, SandboxInfo>>();
  isTrue<Equal<ReturnType<typeof client.listSandboxes>, PagedList<Sandbox>>>();
  await client.create({ templateName: "t", name: "n", timeoutMs: null });
  await client.create({ image: "i", memoryMb: 64 });
  // @ts-expect-error no source
  await client.create({ name: "n" });
  // @ts-expect-error two sources
  await client.create({ poolId: "p", image: "i" });
  // @ts-expect-error the specification is that of the pool
  await client.create({ poolId: "p", memoryMb: 64 });
  // @ts-expect-error an unknown state
  client.listSandboxes({ states: ["gone"] });
  await client.updateSandbox("s", { name: "new-name", metadata: null });
  const result = await sandbox.run(["echo", "hello"], { timeoutMs: 1_000, env: { A: "1" } });
  isTrue<Equal<typeof result, CommandResult>>();
  isTrue<Equal<(typeof result)["exitCode"], number | null>>();
  // @ts-expect-error arguments are strings
  await sandbox.run(["sleep", 1]);
  // @ts-expect-error properties are read-only
  sandbox.state = "running";
}

export async function commands(sandbox: Sandbox): Promise<void> {
  const onStdout = (text: string): void => void text;
  await sandbox.run("make", { onStdout, stdin: "in", timeoutMs: null });
  await sandbox.run("make", { resumable: false, cwd: "/srv", user: "nobody" });
  const process = await sandbox.processes.start(["make", "all"], { cwd: "/srv", idleTimeoutMs: 5_000 });
  isTrue<Equal<typeof process, Process>>();
  for await (const chunk of process) isTrue<Equal<typeof chunk, OutputChunk>>();
  isTrue<Equal<Awaited<ReturnType<typeof process.wait>>, CommandResult>>();
  await sandbox.processes.attach(process.processId, { stdoutOffset: process.stdoutOffset });
  // @ts-expect-error a terminal has rows and columns
  await sandbox.processes.start("make", { terminal: { rows: 9 } });
  // @ts-expect-error durations are milliseconds
  await sandbox.run("make", { timeout: 5 });
  // @ts-expect-error listeners receive text
  await sandbox.run("make", { onStdout: (bytes: Uint8Array) => bytes.length });
}

export async function processes(sandbox: Sandbox): Promise<void> {
  const healthCheck = { port: 80, path: "/", intervalMs: 1_000, timeoutMs: 1_000, failureThreshold: 3 };
  await sandbox.processes.start("server", { name: "web", restartPolicy: "on_failure", healthCheck });
  const service = await sandbox.processes.get("web");
  isTrue<Equal<typeof service, ProcessInfo>>();
  isTrue<Equal<(typeof service)["health"], ProcessHealth | null>>();
  await sandbox.processes.start(["cat"], { stdin: true, outputOverflow: "drop_oldest", outputBufferBytes: 1 << 16 });
  // @ts-expect-error a health check has a port
  await sandbox.processes.start("server", { name: "web", healthCheck: { path: "/" } });
  // @ts-expect-error an unknown policy
  await sandbox.processes.start("server", { name: "web", restartPolicy: "sometimes" });
  // @ts-expect-error an unknown value
  await sandbox.processes.start("cat", { outputOverflow: "block" });
  // @ts-expect-error an unknown state
  sandbox.processes.list({ states: ["ended"] });
  await using terminal = await sandbox.terminals.create({ rows: 30, cols: 100, onData: (data) => data.length });
  isTrue<Equal<typeof terminal, Terminal>>();
  isTrue<Equal<Awaited<ReturnType<typeof terminal.wait>>, number>>();
  await sandbox.terminals.create("top", { env: { TERM: "dumb" } });
  isTrue<Equal<ReturnType<typeof sandbox.ports.list>, PagedList<ExposedPort>>>();
}

export async function files({ files }: Sandbox, parts: AsyncIterable<Uint8Array>): Promise<void> {
  const onProgress = (done: number, total: number): number => done / total;
  isTrue<Equal<Awaited<ReturnType<typeof files.write>>, FileInfo>>();
  await files.write("/a", parts, { mode: 0o600, owner: "nobody", writeMode: "append" });
  isTrue<Equal<Awaited<ReturnType<typeof files.read>>, Uint8Array>>();
  await files.read("/a", { offset: 1, length: 2, onProgress });
  await files.upload("a", "/a", { mode: 0o600, owner: "nobody", onProgress });
  await files.download("/a", "a", { onProgress, signal: AbortSignal.timeout(1) });
  for await (const event of await files.watch("/a")) isTrue<Equal<typeof event, FileEvent>>();
  isTrue<Equal<Awaited<ReturnType<typeof files.uploadDirectory>>, DirectoryUpload>>();
  isTrue<Equal<Awaited<ReturnType<typeof files.downloadDirectory>>, number>>();
  await files.uploadArchive(parts, "/a", { owner: "nobody" });
  // @ts-expect-error content in parts has no known size
  await files.write("/a", parts, { onProgress });
  // @ts-expect-error a received file has no owner
  await files.download("/a", "a", { owner: "nobody" });
  // @ts-expect-error numbers are not content
  await files.write("/a", 1);
  // @ts-expect-error an unknown mode
  await files.write("/a", "x", { writeMode: "prepend" });
}
