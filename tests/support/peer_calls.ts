// Each call of the other product that docs/peer-apis.md calls the same, written as its users write it. In the end it
// prints what was used: the names, and the options as `name(option)`.
import { deepStrictEqual as equal, ok } from "node:assert";
import { CommandHandle, ResourceNotFoundError, Sandbox, SandboxClient } from "sandpool";

const used = new Set<string>();

function noteOptions(name: string, options: unknown): void {
  if (typeof options !== "object" || options === null || ArrayBuffer.isView(options)) return;
  for (const option of Object.keys(options)) used.add(`${name}(${option})`);
}

/** Stands for an object and notes what is used of it, and so of what that answers. */
function noted<T extends object>(thing: T): T {
  return new Proxy(thing, {
    get(target, name) {
      const found: unknown = Reflect.get(target, name, target);
      used.add(name === Symbol.asyncIterator ? "iteration" : String(name));
      if (typeof found !== "function") return answered(found);
      return (...given: unknown[]) => {
        for (const options of given) noteOptions(String(name), options);
        return answered(found.apply(target, given));
      };
    },
  });
}

function answered(found: unknown): unknown {
  if (found instanceof Promise) return found.then(answered);
  return found instanceof Sandbox || found instanceof CommandHandle ? noted(found) : found;
}

function clientOf(options: ConstructorParameters<typeof SandboxClient>[0]): SandboxClient {
  used.add("SandboxClient");
  noteOptions("SandboxClient", options);
  return noted(new SandboxClient(options));
}

const apiEndpoint = process.env["SANDPOOL_ADDRESS"]!;
const client = clientOf({ apiEndpoint, apiKey: "key", timeoutMs: 60_000, maxRetries: 3 });

async function pools(): Promise<void> {
  const image = "busybox:latest";
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
  await inside(await client.getSandbox("two"));
  const other = await client.createSandbox("sandbox");
  await client.deleteSandbox(other.sandboxId);
  ok((await client.getSandboxStatus(other.sandboxId)).startsWith("terminat"));
}

async function inside(sandbox: Sandbox): Promise<void> {
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
  const again = handle.reconnect();
  equal((await again[Symbol.asyncIterator]().next()).value!.data, "more\n");
  await handle.kill();
  equal((await again.result).reason, "killed");

  await sandbox.write("/in/a", "text");
  await sandbox.write("/in/b", new Uint8Array([1, 2]));
  equal(new TextDecoder().decode(await sandbox.read("/in/a")), "text");
  equal([...(await sandbox.read("/in/b"))], [1, 2]);
  await sandbox.delete();
}

async function ends(): Promise<void> {
  await client.deletePool("pool");
  await client.deleteTemplate("sandbox");
  const missing: unknown = await client.getTemplate("sandbox").catch((error: unknown) => error);
  ok(missing instanceof ResourceNotFoundError);
}

await pools();
await sandboxes();
await ends();
client.close();
console.log(JSON.stringify([...used]));
