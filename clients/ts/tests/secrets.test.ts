/** The values of secrets are sent and never returned: not in responses, not in errors. */
import { inspect } from "node:util";
import { Code, ConnectError } from "@connectrpc/connect";
import { expect, test } from "vitest";
import type {
  CreateSecretRequest,
  DeleteSecretRequest,
  UpdateSecretRequest,
} from "../src/gen/sandpool/v1/secret_service_pb.js";
import { SandboxClient, ServerError, ValidationError } from "../src/index.js";
import { CREATED, sandbox, secret, withServer } from "./server.js";

const VALUE = "hush-\u2603-0123456789";
/** Ends in half a character: a string in JavaScript that is not valid text. */
const HALF = `${VALUE}\ud800`;

test("all five calls", async () => {
  const seen: (CreateSecretRequest | UpdateSecretRequest)[] = [];
  const deleted: DeleteSecretRequest[] = [];
  const keep = (request: CreateSecretRequest | UpdateSecretRequest) => {
    seen.push(request);
    return { secret: secret(request.name) };
  };
  const listSecrets = ({ pageToken }: { pageToken: string }) =>
    pageToken === "" ? { secrets: [secret("A")], nextPageToken: "2" } : { secrets: [secret("B")] };
  const deleteSecret = (request: DeleteSecretRequest) => {
    deleted.push(request);
    return {};
  };
  const getSecret = ({ name }: { name: string }) => ({ secret: secret(name) });
  const secrets = { createSecret: keep, updateSecret: keep, getSecret, listSecrets, deleteSecret };
  await withServer({ secrets }, async (client) => {
    const made = await client.createSecret("TOKEN", VALUE);
    expect(made).toStrictEqual({ name: "TOKEN", createTime: CREATED, updateTime: CREATED });
    expect(await client.getSecret("TOKEN")).toStrictEqual(made);
    expect((await client.updateSecret("TOKEN", "other", { requestId: "mine" })).name).toBe("TOKEN");
    expect((await client.listSecrets().toArray()).map(({ name }) => name)).toEqual(["A", "B"]);
    await client.deleteSecret("TOKEN");
    await client.deleteSecret("TOKEN", { force: true });
    expect(inspect(made, { depth: null }) + inspect(client, { depth: null, showHidden: true })).not.toContain("hush");
  });
  expect(seen.map(({ name, value }) => [name, value])).toEqual([["TOKEN", VALUE], ["TOKEN", "other"]]);
  expect(seen[0]?.requestId).not.toBe("");
  expect(seen[1]?.requestId).toBe("mine");
  expect(deleted.map(({ name, force }) => [name, force])).toEqual([["TOKEN", false], ["TOKEN", true]]);
});

test("errors and their causes contain neither secrets nor environments", async () => {
  const fail = () => {
    throw new ConnectError("broken", Code.Internal);
  };
  const services = { secrets: { createSecret: fail }, sandboxes: { createSandbox: fail }, pools: { updatePool: fail } };
  await withServer(services, async (client) => {
    const calls = [
      client.createSecret("TOKEN", VALUE),
      client.create({ poolId: "p", env: { TOKEN: VALUE } }),
      client.updatePool("p", { env: { TOKEN: VALUE } }),
    ];
    for (const result of await Promise.allSettled(calls)) {
      if (result.status === "fulfilled") throw new Error("it did not fail");
      expect(result.reason).toBeInstanceOf(ServerError);
      expect(inspect(result.reason, { depth: null, showHidden: true })).not.toContain("hush");
    }
  });
});

test.each([
  ["half a character", HALF, ValidationError],
  ["bytes", new TextEncoder().encode(VALUE), TypeError],
  ["null", null, TypeError],
])("rejects %s without showing it", async (_name, given, kind) => {
  const value = given as string;
  await withServer({ sandboxes: { getSandbox: () => ({ sandbox: sandbox() }) } }, async (client) => {
    const box = await client.getSandbox("s");
    const calls = [
      () => client.createSecret("TOKEN", value),
      () => client.updateSecret("TOKEN", value),
      () => client.create({ poolId: "p", env: { TOKEN: value } }),
      () => client.updatePool("p", { env: { TOKEN: value } }),
      () => client.createTemplate("t", { image: "i", env: { TOKEN: value } }),
      () => box.run("true", { env: { TOKEN: value } }),
      () => box.run("true", { env: { TOKEN: value }, resumable: false }),
    ];
    for (const call of calls) {
      const error: unknown = await call().catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(kind);
      expect(String(error)).toMatch(/value\b|env\["TOKEN"\]/);
      expect(inspect(error, { depth: null, showHidden: true })).not.toContain("hush");
    }
  });
});

test("a client that is not connected shows no key", () => {
  expect(inspect(new SandboxClient({ apiKey: VALUE }), { depth: null, showHidden: true })).not.toContain("hush");
});
