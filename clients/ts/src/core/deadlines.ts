/** How long calls may take whose work has a limit of its own. */
import type { RunOptions } from "../inside-options.js";
import type { CreateOptions } from "../options.js";

/** The least that the creation of a sandbox gets beside waits that it asks for: it may start a container. */
const START_MS = 120_000;
/** How long the server lets a caller wait in line by default, in seconds. */
const WAIT_SECS = 30;
/** The server's defaults for a readiness command, in seconds and in tries. */
const READINESS = { intervalSecs: 0.5, timeoutSecs: 5, retries: 20 } as const;
/** A command's own limit in seconds where none is given; the server's default. */
const COMMAND_SECS = 60;
/** What a call may take over its command's limit: the way, and the killing of what runs, in milliseconds. */
const COMMAND_GRACE_MS = 30_000;

/** The least that a creation gets in milliseconds: its start, its wait in line and its readiness command's tries. */
export function creationMs(sandbox: CreateOptions): number {
  const waitSecs = sandbox.whenEmpty === "wait" ? (sandbox.waitSecs ?? WAIT_SECS) : 0;
  return START_MS + (waitSecs + readinessSecs(sandbox)) * 1000;
}

function readinessSecs(sandbox: CreateOptions): number {
  if (sandbox.readinessCommand === undefined) return 0;
  const intervalSecs = sandbox.readinessIntervalSecs ?? READINESS.intervalSecs;
  const timeoutSecs = sandbox.readinessTimeoutSecs ?? READINESS.timeoutSecs;
  return (sandbox.readinessRetries ?? READINESS.retries) * (intervalSecs + timeoutSecs);
}

/** What a call that runs a command gets in milliseconds. */
export function commandMs(run: RunOptions): number {
  return (run.timeout ?? COMMAND_SECS) * 1000 + COMMAND_GRACE_MS;
}
