/** Times of the contract in the units of JavaScript. */
import { type Duration, type Timestamp, timestampDate } from "@bufbuild/protobuf/wkt";

/** A duration in milliseconds with their fraction, which protobuf-es would round away; null where there is none. */
export function milliseconds(duration: Duration | undefined): number | null {
  return duration === undefined ? null : Number(duration.seconds) * 1000 + duration.nanos / 1e6;
}

/** A point in time, of which a Date holds whole milliseconds; null where there is none. */
export function date(time: Timestamp | undefined): Date | null {
  return time === undefined ? null : timestampDate(time);
}
