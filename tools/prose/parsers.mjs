/** The parsers of the languages that have one; they accept incomplete code too. */

import { parser as javascript } from "@lezer/javascript";

export { parser as go } from "@lezer/go";
export { parser as python } from "@lezer/python";
export const typescript = javascript.configure({ dialect: "ts" });
