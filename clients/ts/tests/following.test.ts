/** Commands survive broken connections: no output is lost and no command is started twice. */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { expect, test } from "vitest";
import { OutputStream, ProcessEventSchema, ProcessState } from "../src/gen/sandpool/v1/process_pb.js";
import type { ProcessService, StartProcessRequest } from "../src/gen/sandpool/v1/process_service_pb.js";
import { ExitReason } from "../src/gen/sandpool/v1/sandbox_pb.js";
import { type OutputChunk, type Sandbox, SandboxClient, SandboxConnectionError } from "../src/index.js";
import { deferred, sandbox, TestServer } from "./server.js";

type Event = MessageInitShape<typeof ProcessEventSchema>;
type Script = readonly (Event | "break")[];

const PROCESS = { processId: "p", pid: 7, state: ProcessState.RUNNING };
const STARTED: Event = { event: { case: "process", value: PROCESS } };
const exited = (exitCode = 0): Event => ({
  event: { case: "exited", value: { status: { case: "exitCode", value: exitCode }, reason: ExitReason.EXITED } },
});
const printed = (offset: number, text: string | Uint8Array, stream = OutputStream.STDOUT): Event => {
  const data = typeof text === "string" ? new TextEncoder().encode(text) : text;
  return { event: { case: "output", value: { stream, offset: BigInt(offset), data } } };
};

/** Plays one script for each connection, and notes the requests. */
class Processes {
  readonly starts: StartProcessRequest[] = [];
  readonly attaches: [number, number][] = [];
  readonly kills: string[] = [];
  readonly inputs: [string, number, boolean][] = [];
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
      getProcess: () => ({ process: PROCESS }),
      writeProcessInput: ({ input }) => {
        this.inputs.push([new TextDecoder().decode(input?.data), Number(input?.offset ?? -1), input?.close ?? false]);
        return {};
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

test("one request starts the command and streams its output and its exit", async () => {
  const processes = new Processes([STARTED, printed(0, "out\n"), printed(0, "err\n", OutputStream.STDERR), exited(3)], []);
  await inSandbox(processes, async (box) => {
    const result = await box.run("make", { timeoutMs: 5_000, env: { A: "1" }, cwd: "/srv", user: "nobody" });
    const stdoutBytes = new TextEncoder().encode("out\n");
    const streams = { stdout: "out\n", stderr: "err\n", stdoutBytes };
    expect(result).toMatchObject({ ...streams, exitCode: 3, reason: "exited", success: false, stdoutDroppedBytes: 0 });
    const request = { command: "make", env: { A: "1" }, workingDir: "/srv", user: "nobody", stdin: false };
    expect(processes.starts).toMatchObject([{ ...request, timeout: { seconds: 5n }, idleTimeout: { seconds: 300n } }]);
    expect(processes.attaches).toEqual([]);
  });
});

test("a command has 60 s by default and no limit with null", async () => {
  const processes = new Processes([STARTED, exited()], [STARTED, exited()], []);
  await inSandbox(processes, async (box) => {
    await box.run("make");
    await box.run("make", { timeoutMs: null });
    expect(processes.starts.map(({ timeout }) => timeout?.seconds)).toEqual([60n, undefined]);
  });
});

test("the output continues at the byte where the connection broke, also within a character", async () => {
  const text = new TextEncoder().encode("a\u00e4b");
  const processes = new Processes(
    [STARTED, printed(0, text.subarray(0, 2)), "break"],
    ["break"],
    [STARTED, printed(2, text.subarray(2)), exited()],
    [],
  );
  await inSandbox(processes, async (box) => {
    const heard: string[] = [];
    const { stdout } = await box.run("make", { onStdout: (piece) => heard.push(piece) });
    expect([stdout, heard.join("")]).toEqual(["a\u00e4b", "a\u00e4b"]);
    expect(processes.starts.length).toBe(1);
    expect(processes.attaches).toEqual([[2, 0], [2, 0]]);
  });
});

test("a command that did not start is started again with the same identifier", async () => {
  const processes = new Processes(["break"], [STARTED, exited()], []);
  await inSandbox(processes, async (box) => {
    expect((await box.run("make")).success).toBe(true);
    expect(new Set(processes.starts.map(({ processId }) => processId)).size).toBe(1);
    expect(processes.starts.length).toBe(2);
  });
});

test("a transport that cannot stream requests starts the command and attaches to it", async () => {
  const processes = new Processes([STARTED, printed(0, "out"), exited()], []);
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

test("the input of a command is written and closed while the command is followed", async () => {
  const processes = new Processes([STARTED, printed(0, "out"), exited()], []);
  await inSandbox(processes, async (box) => {
    expect((await box.run("cat", { stdin: "in" })).stdout).toBe("out");
    expect(processes.starts).toMatchObject([{ stdin: true }]);
    expect(processes.inputs).toEqual([["in", 0, false], ["", -1, true]]);
  });
});

test("output that ends before the exit is continued; without retries it is an error", async () => {
  const processes = new Processes([STARTED, printed(0, "a")], [STARTED, printed(1, "b"), exited()], []);
  await inSandbox(processes, async (box) => expect((await box.run("make")).stdout).toBe("ab"));
  const never = new Processes([STARTED], [], []);
  const impatient = (address: string) => new SandboxClient({ address, retry: { maxAttempts: 1 } });
  await inSandbox(never, (box) => expect(box.run("make")).rejects.toThrow(SandboxConnectionError), impatient);
});

test("repeated output is skipped, and missing output is counted", async () => {
  const gap: Event = { event: { case: "gap", value: { stream: OutputStream.STDOUT, startOffset: 6n, endOffset: 10n } } };
  const script = [STARTED, printed(0, "abcd"), printed(2, "cdef"), gap, printed(10, "g"), printed(15, "h"), exited()];
  await inSandbox(new Processes(script, []), async (box) => {
    const chunks: OutputChunk[] = [];
    const process = await box.processes.start("make");
    for await (const chunk of process) chunks.push(chunk);
    expect(chunks.map(({ offset, droppedBytes }) => [offset, droppedBytes])).toEqual([[0, 0], [4, 0], [10, 4], [15, 4]]);
    expect(chunks[1]).toMatchObject({ data: "ef", dataBytes: new TextEncoder().encode("ef") });
    const result = await process.wait();
    expect([result.stdout, result.stdoutDroppedBytes, process.stdoutOffset]).toEqual(["abcdefgh", 8, 16]);
  });
});

test("a loop continues where an earlier one was left, and a detached handle ends it", async () => {
  const processes = new Processes([STARTED, printed(0, "a"), printed(1, "b")], [STARTED, printed(1, "b")]);
  await inSandbox(processes, async (box) => {
    const process = await box.processes.start("make");
    for await (const { data } of process) {
      expect(data).toBe("a");
      break;
    }
    for await (const { data } of process) {
      expect(data).toBe("b");
      process.detach();
    }
    expect(processes.attaches).toEqual([[0, 0], [1, 0]]);
    await expect(process.wait()).rejects.toMatchObject({ name: "ClientClosedError" });
  });
});

test("output that is not text is returned as bytes too", async () => {
  const bytes = new Uint8Array([104, 255, 105]);
  await inSandbox(new Processes([STARTED, printed(0, bytes), exited()], []), async (box) => {
    const { stdout, stdoutBytes } = await box.run("make");
    expect([stdout, stdoutBytes]).toEqual(["h\ufffdi", bytes]);
  });
});

test("an abandoned command is killed", async () => {
  const given = new Processes([STARTED, printed(0, "a")]);
  await inSandbox(given, async (box) => {
    const abort = new AbortController();
    const running = box.run("make", { signal: abort.signal });
    await given.asked.promise;
    abort.abort(new Error("enough"));
    await expect(running).rejects.toThrow("enough");
    expect(given.kills).toEqual([given.starts[0]?.processId]);
  });
  const failing = new Processes([STARTED, printed(0, "a")]);
  await inSandbox(failing, async (box) => {
    const onStdout = () => {
      throw new Error("no paper");
    };
    await expect(box.run("make", { onStdout })).rejects.toThrow("no paper");
    expect(failing.kills).toEqual([failing.starts[0]?.processId]);
  });
});

test("the options that need a stream are rejected without one", async () => {
  await inSandbox(new Processes([]), async (box) => {
    for (const options of [{ stdin: "x" }, { onStdout: () => undefined }]) {
      await expect(box.run("make", { ...options, resumable: false })).rejects.toThrow(TypeError);
    }
    await expect(box.processes.start("make", { restartPolicy: "always" })).rejects.toThrow("restartPolicy");
  });
});
