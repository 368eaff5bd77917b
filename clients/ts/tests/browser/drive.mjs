/**
 * Opens a page in Chromium whose script runs a program with the client's build for browsers, and prints the result of
 * the program as JSON: node drive.mjs CHROMIUM WEB-PORT-URL PAGE-PORT PROGRAM
 */
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { chromium } from "playwright-core";

const [executablePath, address, port, program] = process.argv.slice(2);
const client = await readFile(new URL("../../dist/browser/index.js", import.meta.url));
const page = `<!doctype html><script type="module">
import * as sandpool from "/sandpool.js";
const run = new (Object.getPrototypeOf(async () => {}).constructor)("sandpool", "address", ${JSON.stringify(program)});
window.result = run(sandpool, ${JSON.stringify(address)}).catch((error) => ({ error: String(error), reason: error.reason }));
</script>`;
const server = createServer((request, response) => {
  const isScript = request.url === "/sandpool.js";
  response.setHeader("Content-Type", isScript ? "text/javascript" : "text/html");
  response.end(isScript ? client : page);
});
await new Promise((resolve) => server.listen(Number(port), "127.0.0.1", resolve));
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
try {
  const opened = await browser.newPage();
  opened.on("pageerror", (error) => console.error(error));
  await opened.goto(`http://127.0.0.1:${port}/`);
  await opened.waitForFunction(() => window.result !== undefined);
  console.log(JSON.stringify(await opened.evaluate(() => window.result)));
} finally {
  await browser.close();
  server.close();
}
