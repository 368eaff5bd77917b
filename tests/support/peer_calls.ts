// The calls that the migration guides mark as the same, in the style of the other products. At the end it prints the used
// names of langsmith: names, and options as `name(option)`.
import { deepStrictEqual as equal, ok } from "node:assert";
import { CommandHandle, ResourceNotFoundError, Sandbox, SandboxClient } from "sandpool/compat/langsmith";
import * as tensorlake from "sandpool/compat/tensorlake";

const used = new Set<string>();

function noteOptions(name: string, options: unknown): void {
  if (typeof options !== "object" || options === null || ArrayBuffer.isView(options)) return;
  for (const option of Object.keys(options)) used.add(`${name}(${option})`);
}

/** Returns a proxy of an object that notes the used names, also of its results. */
function noted<T extends object>(thing: T): T {
  return new Proxy(thing, {
    get(target, name) {
      const found: unknown = Reflect.get(target, name, target);
      used.add(name === Symbol.asyncIterator ? "iteration" : String(name));
      if (typeof found !== "function") return notedResult(found);
      return (...given: unknown[]) => {
        for (const options of given) noteOptions(String(name), options);
        return notedResult(found.apply(target, given));
      };
    },
  });
}

function notedResult(found: unknown): unknown {
  if (found instanceof Promise) return found.then(notedResult);
  return found instanceof Sandbox || found instanceof CommandHandle ? noted(found) : found;
}

function clientOf(options: ConstructorParameters<typeof SandboxClient>[0]): SandboxClient {
  used.add("SandboxClient");
  noteOptions("SandboxClient", options);
  return noted(new SandboxClient(options));
}

const address = process.env["SANDPOOL_ADDRESS"]!;
const image = "busybox:latest";
const client = clientOf({ apiEndpoint: address, apiKey: "key", timeoutMs: 60_000, maxRetries: 3 });

async function pools(): Promise<void> {
  const template = await client.createTemplate("python-sandbox", { image, cpu: "500m", memory: "64Mi", storage: "64Mi" });
  equal([template.cpus, template.memoryMb, template.ephemeralDiskMb], [0.5, 64, 64]);
  equal((await client.updateTemplate("python-sandbox", { newName: "sandbox" })).name, "sandbox");
  equal((await client.listTemplates()).map(({ name }) => name), [(await client.getTemplate("sandbox")).name]);
  const pool = await client.createPool("python-pool", { templateName: "sandbox", replicas: 1 });
  equal([pool.templateName, pool.replicas], ["sandbox", 1]);
  equal((await client.updatePool("python-pool", { newName: "pool", replicas: 2 })).replicas, 2);
  equal((await client.listPools()).map(({ name }) => name), [(await client.getPool("pool")).name]);
}

async function sandboxes(): Promise<void> {
  const one = await client.createSandbox("sandbox", { name: "one", timeout: 60 });
  equal((await client.updateSandbox("one", "two")).name, "two");
  equal(await client.getSandboxStatus("two"), "running");
  equal((await client.waitForSandbox("two", { timeout: 30, pollInterval: 0.5 })).sandboxId, one.sandboxId);
  ok((await client.listSandboxes()).some(({ name }) => name === "two"));
  await inSandbox(await client.getSandbox("two"));
  const other = await client.createSandbox("sandbox");
  await client.deleteSandbox(other.name);
  ok((await client.getSandboxStatus(other.sandboxId)).startsWith("terminat"));
}

async function inSandbox(sandbox: Sandbox): Promise<void> {
  const heard: string[] = [];
  const listeners = { onStdout: (text: string) => heard.push(text), onStderr: (text: string) => heard.push(text) };
  const where = { timeout: 10, env: { A: "b" }, cwd: "/tmp", shell: "/bin/sh" };
  const { stdout, stderr, exitCode } = await sandbox.run("echo $A in $PWD; echo e >&2", { ...where, ...listeners });
  equal([stdout, stderr, exitCode, heard.toSorted()], ["b in /tmp\n", "e\n", 0, ["b in /tmp\n", "e\n"]]);

  const kept = { idleTimeout: 60, killOnDisconnect: false, ttlSeconds: 60, pty: false };
  const handle = await sandbox.run("echo begin; exec cat", { wait: false, ...kept });
  ok(handle.commandId !== "" && handle.pid! > 0);
  const chunks = handle[Symbol.asyncIterator]();
  const { stream, data, offset } = (await chunks.next()).value!;
  noteOptions("OutputChunk", { stream, data, offset });
  used.add("OutputChunk").add("CommandHandle");
  equal([stream, data, offset], ["stdout", "begin\n", 0]);
  await handle.sendInput("more\n");
  const again = await handle.reconnect();
  equal((await again[Symbol.asyncIterator]().next()).value!.data, "more\n");
  await handle.kill();
  equal((await again.result).reason, "killed");

  await sandbox.write("/in/a", "text");
  await sandbox.write("/in/b", new Uint8Array([1, 2]));
  equal(new TextDecoder().decode(await sandbox.read("/in/a")), "text");
  equal([...(await sandbox.read("/in/b"))], [1, 2]);
  await sandbox.delete();
}

async function deletions(): Promise<void> {
  await client.deletePool("pool");
  await client.deleteTemplate("sandbox");
  const missing: unknown = await client.getTemplate("sandbox").catch((error: unknown) => error);
  ok(missing instanceof ResourceNotFoundError);
}

/** The names of the tensorlake module. */
async function poolIdStyle(): Promise<void> {
  using client = tensorlake.SandboxClient.forLocalhost({ apiUrl: address });
  const limits = { cpus: 0.5, memoryMb: 64, diskMb: 64, timeoutSecs: 600 };
  const pool = await client.createPool({ image, ...limits, maxContainers: 3, warmContainers: 1 });
  equal((await client.listPools()).map(({ poolId }) => poolId), [(await client.getPool(pool.poolId)).poolId]);
  const claimed = await client.claim(pool.poolId);
  equal((await client.updatePool(pool.poolId, { warmContainers: 0 })).warmContainers, 0);
  await client.delete(claimed.sandboxId);
  await client.deletePool(pool.poolId);

  await using box = await client.createAndConnect({ image, ...limits, name: "one" });
  equal([(await client.get("one")).sandboxId, box.status], [box.sandboxId, "running"]);
  ok((await client.list()).some(({ name }) => name === "one"));
  equal((await client.updateSandbox("one", { name: "two" })).name, "two");
  await box.update({ name: "three" });
  equal([box.name, box.info.memoryMb, (await client.connect("three")).sandboxId], ["three", 64, box.sandboxId]);

  const run = { args: ["-c", 'echo "$A in $PWD"'], env: { A: "b" }, workingDir: "/tmp", timeout: 5, user: "nobody" };
  equal((await box.run("sh", run)).stdout, "b in /tmp\n");
  const cat = await box.startProcess("cat", { stdinMode: "pipe" });
  await box.writeStdin(cat.processId, "hello\n");
  await box.closeStdin(cat.processId);
  const printed: string[] = [];
  for await (const { data } of box.followStdout(cat.processId)) printed.push(data);
  equal([printed.join(""), (await box.getStdout(cat.processId)).stdout], ["hello\n", "hello\n"]);
  equal([(await box.getOutput(cat.processId)).stdout, (await box.getStderr(cat.processId)).stderr], ["hello\n", ""]);
  const service = await box.startProcess("echo up; exec sleep 1000", { name: "web", restart: "always" });
  ok((await box.restartProcess("web")).pid !== service.pid);
  await box.sendSignal("web", 15);
  await box.killProcess("web");
  equal((await box.getProcess("web")).state, "exited");
  ok((await box.listProcesses()).some(({ name }) => name === "web"));
  ok((await box.getLogs({ processIds: ["web"], tail: 1 })).entries[0]?.text === "up");

  await box.writeFile("/in/a", "text");
  equal(new TextDecoder().decode(await box.readFile("/in/a")), "text");
  equal((await box.listDirectory("/in")).entries.map(({ name }) => name), ["a"]);
  await box.deleteFile("/in/a");
  const pty = await box.createPty({ command: "cat" });
  const seen = await box.connectPty(pty.sessionId);
  await seen.sendInput("hello\n");
  for await (const data of seen) if (new TextDecoder().decode(data).includes("hello")) break;
  await pty.kill();
  equal(await pty.wait(), 128 + 9);
  await using tunnel = await box.createTunnel(7000, { localPort: 0, connectTimeout: 5 });
  equal(tunnel.remotePort, 7000);
  const [exposed] = await client.exposePorts(box.sandboxId, [8000]);
  equal((await client.getPortAccess(box.sandboxId)).map(({ url }) => url), [exposed!.url]);
  await client.unexposePorts(box.sandboxId, [8000]);
  await box.terminate();
}

await pools();
await sandboxes();
await deletions();
client.close();
await poolIdStyle();
console.log(JSON.stringify([...used]));
