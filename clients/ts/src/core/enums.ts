/** The enums of the contract and their lower-case texts in the models. */
import { PullPolicy } from "../gen/sandpool/v1/container_pb.js";
import { FileChange, FileType } from "../gen/sandpool/v1/file_pb.js";
import { WriteMode } from "../gen/sandpool/v1/file_service_pb.js";
import { DiskEnforcement, PoolErrorReason, PoolState } from "../gen/sandpool/v1/pool_pb.js";
import { WatchEventType } from "../gen/sandpool/v1/pool_service_pb.js";
import { OutputStream, ProcessHealth, ProcessState, RestartPolicy } from "../gen/sandpool/v1/process_pb.js";
import { OutputOverflow } from "../gen/sandpool/v1/process_service_pb.js";
import { ExitReason, SandboxState, StartType, TerminationReason } from "../gen/sandpool/v1/sandbox_pb.js";
import { WhenEmpty } from "../gen/sandpool/v1/sandbox_service_pb.js";
import type { WhenEmpty as WhenEmptyText } from "../options.js";
import type * as io from "../sandbox-types.js";
import type * as types from "../types.js";
import { invalid } from "./errors.js";

/** The texts of an enum, apart from those for values that this version of the package does not know. */
type Texts<T extends string> = Readonly<Record<Exclude<T, "unknown">, number>>;

const POOL_STATES: Texts<types.PoolState> = {
  ready: PoolState.READY,
  filling: PoolState.FILLING,
  degraded: PoolState.DEGRADED,
  paused: PoolState.PAUSED,
  drained: PoolState.DRAINED,
};

const PULL_POLICIES: Texts<types.PullPolicy> = {
  missing: PullPolicy.MISSING,
  always: PullPolicy.ALWAYS,
  never: PullPolicy.NEVER,
};

const DISK_ENFORCEMENTS: Texts<types.DiskEnforcement> = {
  engine: DiskEnforcement.ENGINE,
  best_effort: DiskEnforcement.BEST_EFFORT,
};

const POOL_ERROR_REASONS: Texts<types.PoolErrorReason> = {
  image_not_found: PoolErrorReason.IMAGE_NOT_FOUND,
  pull_failed: PoolErrorReason.PULL_FAILED,
  start_failed: PoolErrorReason.START_FAILED,
  readiness_timeout: PoolErrorReason.READINESS_TIMEOUT,
  engine_unreachable: PoolErrorReason.ENGINE_UNREACHABLE,
  disk_full: PoolErrorReason.DISK_FULL,
  limit_unsupported: PoolErrorReason.LIMIT_UNSUPPORTED,
};

const POOL_EVENT_TYPES: Texts<types.PoolEventType> = {
  current: WatchEventType.CURRENT,
  changed: WatchEventType.CHANGED,
  deleted: WatchEventType.DELETED,
};

const SANDBOX_STATES: Texts<types.SandboxState> = {
  starting: SandboxState.STARTING,
  running: SandboxState.RUNNING,
  terminating: SandboxState.TERMINATING,
  terminated: SandboxState.TERMINATED,
};

const START_TYPES: Texts<types.StartType> = { warm: StartType.WARM, cold: StartType.COLD };

const TERMINATION_REASONS: Texts<types.TerminationReason> = {
  deleted: TerminationReason.DELETED,
  timed_out: TerminationReason.TIMED_OUT,
  exited: TerminationReason.EXITED,
  oom_killed: TerminationReason.OOM_KILLED,
  disk_exceeded: TerminationReason.DISK_EXCEEDED,
  lost: TerminationReason.LOST,
  failed: TerminationReason.FAILED,
};

const EXIT_REASONS: Texts<io.ExitReason> = {
  exited: ExitReason.EXITED,
  signaled: ExitReason.SIGNALED,
  oom_killed: ExitReason.OOM_KILLED,
  timed_out: ExitReason.TIMED_OUT,
  killed: ExitReason.KILLED,
  idle_timed_out: ExitReason.IDLE_TIMED_OUT,
  disconnected: ExitReason.DISCONNECTED,
  shut_down: ExitReason.SHUT_DOWN,
};

const PROCESS_STATES: Texts<io.ProcessState> = {
  running: ProcessState.RUNNING,
  backing_off: ProcessState.BACKING_OFF,
  exited: ProcessState.EXITED,
};

const PROCESS_HEALTH: Texts<io.ProcessHealth> = {
  starting: ProcessHealth.STARTING,
  healthy: ProcessHealth.HEALTHY,
  unhealthy: ProcessHealth.UNHEALTHY,
};

const RESTART_POLICIES: Texts<io.RestartPolicy> = {
  never: RestartPolicy.NEVER,
  on_failure: RestartPolicy.ON_FAILURE,
  always: RestartPolicy.ALWAYS,
};

const FILE_TYPES: Texts<io.FileType> = {
  file: FileType.FILE,
  directory: FileType.DIRECTORY,
  symlink: FileType.SYMLINK,
  other: FileType.OTHER,
};

const FILE_CHANGES: Texts<io.FileChange> = {
  created: FileChange.CREATED,
  modified: FileChange.MODIFIED,
  removed: FileChange.REMOVED,
  attributes: FileChange.ATTRIBUTES,
  overflow: FileChange.OVERFLOW,
};

const WHEN_EMPTY: Texts<WhenEmptyText> = {
  start_cold: WhenEmpty.START_COLD,
  wait: WhenEmpty.WAIT,
  fail: WhenEmpty.FAIL,
};

const OUTPUT_OVERFLOWS: Texts<io.OutputOverflow> = {
  wait_attached: OutputOverflow.WAIT_ATTACHED,
  drop_oldest: OutputOverflow.DROP_OLDEST,
  wait: OutputOverflow.WAIT,
};

const WRITE_MODES: Texts<io.WriteMode> = {
  replace: WriteMode.REPLACE,
  create: WriteMode.CREATE,
  append: WriteMode.APPEND,
};

/** Returns a function from a number of the contract to its text; a newer server may send a number without one. */
function reader<T extends string>(texts: Texts<T>): (value: number) => T | "unknown" {
  const names = new Map<number, T>(Object.entries<number>(texts).map(([text, value]) => [value, text as T]));
  return (value) => names.get(value) ?? "unknown";
}

/** Returns a function like {@link reader} where the unspecified value means null. */
function optionalReader<T extends string>(texts: Texts<T>): (value: number) => T | "unknown" | null {
  const read = reader<T>(texts);
  return (value) => (value === 0 ? null : read(value));
}

/** Returns a function from a text to its number of the contract; it throws for a text that has none. */
function writer<N extends number, T extends string>(texts: Texts<T>): (field: string, text: T) => N {
  return (field, text) => {
    if (Object.hasOwn(texts, text)) return texts[text as Exclude<T, "unknown">] as N;
    throw invalid(field, `must be one of ${Object.keys(texts).join(", ")}, not ${JSON.stringify(text)}`);
  };
}

export const toPoolState = reader<types.PoolState>(POOL_STATES);
export const toPullPolicy = reader<types.PullPolicy>(PULL_POLICIES);
export const toDiskEnforcement = optionalReader<types.DiskEnforcement>(DISK_ENFORCEMENTS);
export const toPoolErrorReason = reader<types.PoolErrorReason>(POOL_ERROR_REASONS);
export const toPoolEventType = reader<types.PoolEventType>(POOL_EVENT_TYPES);
export const toSandboxState = reader<types.SandboxState>(SANDBOX_STATES);
export const toStartType = optionalReader<types.StartType>(START_TYPES);
export const toTerminationReason = optionalReader<types.TerminationReason>(TERMINATION_REASONS);
export const toExitReason = reader<io.ExitReason>(EXIT_REASONS);
export const toProcessState = reader<io.ProcessState>(PROCESS_STATES);
export const toProcessHealth = optionalReader<io.ProcessHealth>(PROCESS_HEALTH);
export const toRestartPolicy = optionalReader<io.RestartPolicy>(RESTART_POLICIES);
export const toFileType = reader<io.FileType>(FILE_TYPES);
export const toFileChange = reader<io.FileChange>(FILE_CHANGES);

export const fromPullPolicy = writer<PullPolicy, types.PullPolicy>(PULL_POLICIES);
export const fromSandboxState = writer<SandboxState, types.SandboxState>(SANDBOX_STATES);
export const fromProcessState = writer<ProcessState, io.ProcessState>(PROCESS_STATES);
export const fromRestartPolicy = writer<RestartPolicy, io.RestartPolicy>(RESTART_POLICIES);
export const fromWhenEmpty = writer<WhenEmpty, WhenEmptyText>(WHEN_EMPTY);
export const fromOutputOverflow = writer<OutputOverflow, io.OutputOverflow>(OUTPUT_OVERFLOWS);
export const fromWriteMode = writer<WriteMode, io.WriteMode>(WRITE_MODES);

/** Returns the text of an output stream. */
export function toOutputStream(stream: OutputStream): io.OutputStream {
  return stream === OutputStream.STDERR ? "stderr" : "stdout";
}
