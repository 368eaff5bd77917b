/** Times and durations of the contract as `Date` and milliseconds. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Duration, type DurationSchema, type Timestamp, timestampDate } from "@bufbuild/protobuf/wkt";
import { invalid } from "./errors.js";

/** The longest delay of a timer in Node and in browsers. */
export const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** Returns a duration in milliseconds, including fractions; null when it is absent. */
export function milliseconds(duration: Duration | undefined): number | null {
  return duration === undefined ? null : Number(duration.seconds) * 1000 + duration.nanos / 1e6;
}

/** Returns a time as a Date, which holds whole milliseconds; null when it is absent. */
export function date(time: Timestamp | undefined): Date | null {
  return time === undefined ? null : timestampDate(time);
}

/** Returns a time that the contract always contains; the epoch when a server omits it. */
export function timeOf(time: Timestamp | undefined): Date {
  return date(time) ?? new Date(0);
}

/** Returns a duration to send; `field` names it in the error for a value that is not a finite number. */
export function duration(
  field: string,
  ms: number | undefined,
): MessageInitShape<typeof DurationSchema> | undefined {
  if (ms === undefined) return undefined;
  if (!Number.isFinite(ms) || Math.abs(ms) > Number.MAX_SAFE_INTEGER) {
    throw invalid(field, `must be a finite number of milliseconds, not ${String(ms)}`);
  }
  const seconds = Math.trunc(ms / 1000);
  return { seconds: BigInt(seconds), nanos: Math.round((ms - seconds * 1000) * 1e6) };
}

/** Returns a duration where null means no limit, which the contract writes as 0. */
export function durationOrNone(field: string, ms: number | null | undefined) {
  return duration(field, ms === null ? 0 : ms);
}
