/** Quantities as the template style writes them: `500m` of a CPU, `512Mi` of memory. */
import { ValidationError } from "../index.js";

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
const QUANTITY = /^([0-9]+(?:\.[0-9]+)?)([a-zA-Z]*)$/;

function invalid(field: string, description: string): ValidationError {
  const fieldViolations = [{ field, description }];
  return new ValidationError(`${field}: ${description}`, {
    code: "INVALID_ARGUMENT",
    reason: "INVALID_FIELD",
    fieldViolations,
  });
}

/** Returns the number of CPUs of `2`, `"0.5"` or `"500m"`. */
export function cpus(value: string | number | undefined): number | undefined {
  if (typeof value !== "string") return value;
  const [, number, unit] = QUANTITY.exec(value) ?? [];
  if (number === undefined || (unit !== "" && unit !== "m")) {
    throw invalid("cpu", `${JSON.stringify(value)} is not a number of CPUs; use 2, "0.5" or "500m"`);
  }
  return Number(number) / (unit === "m" ? 1000 : 1);
}

/** Returns the MiB of a number of bytes such as `"512Mi"` or `"2Gi"`. */
export function mebibytes(field: string, value: string | number | undefined): number | undefined {
  if (value === undefined) return undefined;
  const [, number, unit] = QUANTITY.exec(String(value)) ?? [];
  const factor = unit === undefined ? undefined : UNITS.get(unit);
  if (factor === undefined) throw invalid(field, `${JSON.stringify(value)} is not a number of bytes; use "512Mi" or "2Gi"`);
  const amount = (Number(number) * factor) / MIB;
  if (!Number.isInteger(amount)) {
    throw invalid(field, `${JSON.stringify(value)} is not a whole number of MiB; use "512Mi" or "2Gi"`);
  }
  return amount;
}
