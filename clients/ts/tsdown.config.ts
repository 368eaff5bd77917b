import { defineConfig } from "tsdown";

const common = { format: "esm", platform: "node", target: "node20", fixedExtension: false, hash: false } as const;

export default defineConfig([
  { ...common, entry: { index: "src/index.ts" }, outDir: "dist", dts: true },
  // The examples use the built package by its name, as a program of somebody else would.
  {
    ...common,
    entry: { template_pool: "examples/template_pool.ts" },
    outDir: "dist/examples",
    dts: false,
    deps: { neverBundle: ["sandpool"] },
  },
]);
