/** The default time limits of the client, in milliseconds. */

/** The time limit of a request, with its retries. */
export const REQUEST_TIMEOUT_MS = 30_000;
/** The time limit of a command. The server has the same default. */
export const COMMAND_TIMEOUT_MS = 60_000;
/** The time after a command's limit in which its result must arrive, when no connection breaks. */
export const COMMAND_MARGIN_MS = 10_000;
/** The time for which a broken stream is resumed while nothing arrives. */
export const RESUME_TIMEOUT_MS = 60_000;
/** The least time limit of a request that may start a container; waits that the request asks for are added. */
export const CREATE_TIMEOUT_MS = 120_000;
/** The time limit in the wait queue. The server has the same default. */
export const QUEUE_TIMEOUT_MS = 30_000;
/** The time limit of `waitForPool`. */
export const POOL_WAIT_TIMEOUT_MS = 300_000;
/** The time for which a command that is run to its end may run without an attached client. */
export const COMMAND_IDLE_TIMEOUT_MS = 300_000;
/** The server's defaults for a readiness probe. */
export const READINESS = { intervalMs: 500, timeoutMs: 5_000, failureThreshold: 20 } as const;
