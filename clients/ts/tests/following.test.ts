/** Commands that are followed to their end: over broken connections, without loss, and never started twice. */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { expect, test } from "vitest";
import { OutputStream, ProcessEventSchema, ProcessState } from "../src/gen/sandpool/v1/process_pb.js";
import type { ProcessService, StartProcessRequest } from "../src/gen/sandpool/v1/process_service_pb.js";
import { CommandEndReason } from "../src/gen/sandpool/v1/sandbox_pb.js";
import { type Sandbox, SandboxClient, SandboxConnectionError } from "../src/index.js";
import { deferred, sandbox, TestServer } from "./server.js";

type Event = MessageInitShape<typeof ProcessEventSchema>;
type Script = readonly (Event | "break")[];

const PROCESS = { processId: "p", pid: 7, state: ProcessState.RUNNING };
const STARTED: Event = { event: { case: "process", value: PROCESS } };
const ended = (exitCode = 0): Event => ({
  event: { case: "ended", value: { exit: { case: "exitCode", value: exitCode }, reason: CommandEndReason.EXITED } },
});
const printed = (offset: number, text: string | Uint8Array, stream = OutputStream.STDOUT): Event => {
  const data = typeof text === "string" ? new TextEncoder().encode(text) : text;
  return { event: { case: "output", value: { stream, offset: BigInt(offset), data } } };
};

/** Answers one connection after the other by its script, and keeps what it was asked. */
class Processes {
  readonly starts: StartProcessRequest[] = [];
  readonly attaches: [number, number][] = [];
  readonly kills: string[] = [];
  readonly asked = deferred();
  readonly #scripts: Script[];

  constructor(...scripts: Script[]) {
    this.#scripts = scripts;
  }

  get service(): Partial<ServiceImpl<typeof ProcessService>> {
    const play = (signal: AbortSignal) => this.#play(signal);
    return {
      connectProcess: (requests, { signal }) => this.#connect(requests, signal),
      startProcess: (request) => {
        this.starts.push(request);
        return { process: PROCESS };
      },
      attachProcess: ({ stdoutOffset, stderrOffset }, { signal }) => {
        this.attaches.push([Number(stdoutOffset), Number(stderrOffset)]);
        return play(signal);
      },
      killProcess: ({ processId }) => {
        this.kills.push(processId);
        return { process: PROCESS };
      },
    };
  }

  async *#connect(requests: AsyncIterable<{ message: { case?: string | undefined; value?: unknown } }>, signal: AbortSignal) {
    for await (const { message } of requests) if (message.case === "start") this.starts.push(message.value as StartProcessRequest);
    yield* this.#play(signal);
  }

  async *#play(signal: AbortSignal) {
    for (const event of this.#scripts.shift() ?? []) {
      if (event === "break") throw new ConnectError("gone", Code.Unavailable);
      yield { event: create(ProcessEventSchema, event) };
    }
    this.asked.resolve();
    if (this.#scripts.length === 0) await new Promise((resolve) => signal.addEventListener("abort", resolve));
  }
}

async function inSandbox(
  processes: Processes,
  use: (box: Sandbox) => Promise<void>,
  make = (address: string) => new SandboxClient({ address }),
): Promise<void> {
  const sandboxes = { getSandbox: () => ({ sandbox: sandbox() }) };
  await using server = await TestServer.start({ sandboxes, processes: processes.service });
  using client = make(server.address);
  await use(await client.getSandbox("s"));
}

test("one call starts it and brings its end", async () => {
  const processes = new Processes([STARTED, printed(0, "out\n"), printed(0, "err\n", OutputStream.STDERR), ended(3)], []);
  await inSandbox(processes, async (box) => {
    const result = await box.run("make", { timeout: 5, env: { A: "1" }, cwd: "/srv", user: "nobody", commandId: "c-1" });
    const streams = { stdout: "out\n", stderr: "err\n", stdoutBytes: null, stderrBytes: null };
    expect(result).toMatchObject({ ...streams, exitCode: 3, reason: "exited", success: false, stdoutDroppedBytes: 0 });
    const request = { command: "make", env: { A: "1" }, workingDir: "/srv", user: "nobody", processId: "c-1" };
    expect(processes.starts).toMatchObject([{ ...request, timeoutSecs: 5, stdin: false }]);
    expect(processes.attaches).toEqual([]);
  });
});

test("it is taken up at the byte where it broke, also in the middle of a character", async () => {
  const half = new TextEncoder().encode("a\u00e4b");
  const processes = new Processes(
    [STARTED, printed(0, half.subarray(0, 2)), "break"],
    ["break"],
    [STARTED, printed(2, half.subarray(2)), ended()],
    [],
  );
  await inSandbox(processes, async (box) => {
    const heard: string[] = [];
    const { stdout } = await box.run("make", { onStdout: (text) => heard.push(text) });
    expect([stdout, heard.join("")]).toEqual(["a\u00e4b", "a\u00e4b"]);
    expect(processes.starts.length).toBe(1);
    expect(processes.attaches).toEqual([[2, 0], [2, 0]]);
  });
});

test("where nothing came of it, it is started again under the same identifier", async () => {
  const processes = new Processes(["break"], [STARTED, ended()], []);
  await inSandbox(processes, async (box) => {
    expect((await box.run("make")).success).toBe(true);
    expect(new Set(processes.starts.map(({ processId }) => processId)).size).toBe(1);
    expect(processes.starts.length).toBe(2);
  });
});

test("over a transport that cannot stream requests it is started and attached to", async () => {
  const processes = new Processes([STARTED, printed(0, "out"), ended()], []);
  const injected = (address: string) =>
    new SandboxClient({ transport: createGrpcTransport({ baseUrl: `http://${address}` }) });
  await inSandbox(
    processes,
    async (box) => {
      expect((await box.run("make")).stdout).toBe("out");
      expect([processes.starts.length, processes.attaches]).toEqual([1, [[0, 0]]]);
    },
    injected,
  );
});

test("output that ends before the command has is taken up; one that never goes on is an error", async () => {
  const processes = new Processes([STARTED, printed(0, "a")], [STARTED, printed(1, "b"), ended()], []);
  await inSandbox(processes, async (box) => expect((await box.run("make")).stdout).toBe("ab"));
  const never = new Processes([STARTED], [], [], [], [], [], []);
  const impatient = (address: string) => new SandboxClient({ address, maxRetries: 0 });
  await inSandbox(never, (box) => expect(box.run("make")).rejects.toThrow(SandboxConnectionError), impatient);
});

test("what comes twice is left out, and what is missing is counted", async () => {
  const gap: Event = { event: { case: "gap", value: { stream: OutputStream.STDOUT, begin: 6n, end: 10n } } };
  const script = [STARTED, printed(0, "abcd"), printed(2, "cdef"), gap, printed(10, "g"), printed(15, "h"), ended()];
  await inSandbox(new Processes(script, []), async (box) => {
    const offsets: number[] = [];
    const handle = await box.run("make", { wait: false });
    for await (const { offset } of handle) offsets.push(offset);
    const result = await handle.result;
    expect([result.stdout, result.stdoutDroppedBytes, offsets]).toEqual(["abcdefgh", 8, [0, 4, 10, 15]]);
  });
});

test("output that is no text comes as it was", async () => {
  const bytes = new Uint8Array([104, 255, 105]);
  await inSandbox(new Processes([STARTED, printed(0, bytes), ended()], []), async (box) => {
    const { stdout, stdoutBytes } = await box.run("make");
    expect([stdout, stdoutBytes]).toEqual(["h\ufffdi", bytes]);
  });
});

test("a command that nobody waits for any more is killed", async () => {
  const given = new Processes([STARTED, printed(0, "a")]);
  await inSandbox(given, async (box) => {
    const abort = new AbortController();
    const running = box.run("make", { signal: abort.signal, commandId: "c-1" });
    await given.asked.promise;
    abort.abort(new Error("enough"));
    await expect(running).rejects.toThrow("enough");
    expect(given.kills).toEqual(["c-1"]);
  });
  const failing = new Processes([STARTED, printed(0, "a")]);
  await inSandbox(failing, async (box) => {
    const onStdout = () => {
      throw new Error("no paper");
    };
    await expect(box.run("make", { onStdout, commandId: "c-2" })).rejects.toThrow("no paper");
    expect(failing.kills).toEqual(["c-2"]);
  });
});
