import { readdirSync } from "node:fs";
import { expect, test } from "vitest";
import * as stubs from "../src/stubs.js";

const directory = new URL("../src/gen/sandpool/v1/", import.meta.url);

test("the stubs export every file of the contract, apart from the validation rules", async () => {
  const files = readdirSync(directory).filter((file) => file !== "rules_pb.ts");
  expect(files.length).toBeGreaterThan(10);
  for (const file of files) {
    const generated = (await import(new URL(file, directory).href)) as Record<string, unknown>;
    for (const [name, value] of Object.entries(generated)) expect(stubs).toHaveProperty(name, value);
  }
});
