/** Amounts as Kubernetes and the template style write them: `500m` of a CPU, `512Mi` of memory. */
import { invalid } from "./errors.js";

const MIB = 2 ** 20;
const UNITS: ReadonlyMap<string, number> = new Map([
  ["", 1],
  ["k", 1e3],
  ["M", 1e6],
  ["G", 1e9],
  ["T", 1e12],
  ["Ki", 2 ** 10],
  ["Mi", 2 ** 20],
  ["Gi", 2 ** 30],
  ["Ti", 2 ** 40],
]);
const AMOUNT = /^([0-9]+(?:\.[0-9]+)?)([a-zA-Z]*)$/;

/** CPUs of `2`, `"0.5"` or `"500m"`. */
export function cpus(value: string | number | undefined): number | undefined {
  if (typeof value !== "string") return value;
  const [, number, unit] = AMOUNT.exec(value) ?? [];
  if (number === undefined || (unit !== "" && unit !== "m")) {
    throw invalid("cpu", `${JSON.stringify(value)} is no number of CPUs; write 2, "0.5" or "500m"`);
  }
  return Number(number) / (unit === "m" ? 1000 : 1);
}

/** MiB of a number of bytes such as `"512Mi"` or `"2G"`. */
export function mebibytes(field: string, value: string | number | undefined): number | undefined {
  if (value === undefined) return undefined;
  const [, number, unit] = AMOUNT.exec(String(value)) ?? [];
  const factor = unit === undefined ? undefined : UNITS.get(unit);
  if (factor === undefined) throw invalid(field, `${JSON.stringify(value)} is no amount of bytes; write "512Mi" or "2Gi"`);
  const amount = (Number(number) * factor) / MIB;
  if (!Number.isInteger(amount)) {
    throw invalid(field, `${JSON.stringify(value)} is no whole number of MiB; write "512Mi" or "2Gi"`);
  }
  return amount;
}
