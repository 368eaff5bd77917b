/** Converts the options of a process to the messages of the contract. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { OutputOverflow, type StartProcessRequestSchema } from "../gen/sandpool/v1/process_service_pb.js";
import type { Command, HealthCheck, StartOptions } from "../sandbox-options.js";
import { commandFields, integer, reject, text, textMap } from "./arguments.js";
import { fromOutputOverflow, fromRestartPolicy } from "./enums.js";
import { duration } from "./time.js";

/** The request that starts a process. */
export type StartRequest = MessageInitShape<typeof StartProcessRequestSchema> & { readonly processId: string };

/** Returns the request that starts a process. */
export function startRequest(sandboxId: string, command: Command, options: StartOptions): StartRequest {
  const { name, restartPolicy, healthCheck, outputOverflow } = options;
  if (name === undefined) reject("only a service, a process with a name, has them", { restartPolicy, healthCheck });
  return {
    sandboxId,
    processId: options.processId ?? crypto.randomUUID(),
    ...commandFields(command),
    env: textMap("env", options.env),
    workingDir: options.cwd ?? "",
    user: options.user ?? "",
    stdin: options.stdin ?? false,
    terminal: options.terminal,
    timeout: duration("timeoutMs", options.timeoutMs ?? undefined),
    idleTimeout: duration("idleTimeoutMs", options.idleTimeoutMs ?? undefined),
    killOnDisconnect: options.killOnDisconnect ?? false,
    retention: duration("retentionMs", options.retentionMs),
    outputBufferBytes: integer("outputBufferBytes", options.outputBufferBytes),
    outputOverflow:
      outputOverflow === undefined ? OutputOverflow.UNSPECIFIED : fromOutputOverflow("outputOverflow", outputOverflow),
    service:
      name === undefined
        ? undefined
        : {
            name: text("name", name),
            restartPolicy: fromRestartPolicy("restartPolicy", restartPolicy ?? "never"),
            healthCheck: toHealthCheck(healthCheck),
          },
  };
}

function toHealthCheck(check: HealthCheck | undefined) {
  if (check === undefined) return undefined;
  const port = integer("healthCheck.port", check.port);
  const { path } = check;
  return {
    check: path === undefined ? { case: "tcp" as const, value: { port } } : { case: "http" as const, value: { port, path } },
    interval: duration("healthCheck.intervalMs", check.intervalMs),
    timeout: duration("healthCheck.timeoutMs", check.timeoutMs),
    failureThreshold: integer("healthCheck.failureThreshold", check.failureThreshold),
  };
}
