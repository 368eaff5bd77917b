/** Finds the names that source files declare, and the terms of the vocabulary in them. Local variables do not count. */

import { extname } from "node:path";

import { go, python, typescript } from "./parsers.mjs";

const READERS = {
  ".go": fromGo,
  ".mjs": fromTypeScript,
  ".proto": fromProto,
  ".py": fromPython,
  ".pyi": fromPython,
  ".ts": fromTypeScript,
};

/**
 * A declared name: `kind` is module, class or other, `at` its offset in the file.
 *
 * @typedef {{kind: "module" | "class" | "other", name: string, at: number}} Name
 */

/** Returns the names that a file declares, those of its path included. */
export function declared(path, text) {
  const modules = path.split("/").map((part) => ({ kind: "module", name: part.replace(/\..*$/, ""), at: 0 }));
  return [...modules, ...(READERS[extname(path)]?.(text) ?? [])];
}

/** Compiles an entry `[[identifier]]` of the vocabulary. */
export function compile(entry) {
  return { ...entry, expression: new RegExp(`(?<=^|_)(?:${entry.pattern})(?=_|$)`) };
}

/** Returns the terms in a name, each with the text that matches it. */
export function find({ kind, name }, terms) {
  const parts = split(name);
  return terms
    .filter(({ kinds }) => kinds === undefined || kinds.includes(kind))
    .map((term) => ({ term, text: term.expression.exec(parts)?.[0] }))
    .filter(({ text }) => text !== undefined);
}

/** Converts a name to snake_case. */
export function split(name) {
  return name
    .replace(/([a-z0-9])([A-Z])/g, "$1_$2")
    .replace(/([A-Z]+)([A-Z][a-z])/g, "$1_$2")
    .replaceAll("-", "_")
    .toLowerCase();
}

function fromPython(text) {
  const names = [];
  const add = (node, kind = "other") => names.push({ kind, name: text.slice(node.from, node.to), at: node.from });
  let functions = 0;
  const isBody = (node) => node.name === "Body" && node.node.parent?.name === "FunctionDefinition";
  python.parse(text).iterate({
    enter(node) {
      if (isBody(node)) functions += 1;
      if (node.name === "ClassDefinition") add(node.node.getChild("VariableName"), "class");
      if (node.name === "FunctionDefinition" && functions === 0) add(node.node.getChild("VariableName"));
      if (node.name === "ParamList" && node.node.parent.name === "FunctionDefinition" && functions === 0)
        parameters(node.node, add);
      if (node.name === "AssignStatement") targets(node.node, text, functions > 0, add);
      if (node.name === "String") {
        const option = /^["'](--[a-z][a-z-]*)["']$/.exec(text.slice(node.from, node.to));
        if (option !== null) names.push({ kind: "other", name: option[1].slice(2), at: node.from });
      }
    },
    leave(node) {
      if (isBody(node)) functions -= 1;
    },
  });
  return names;
}

function parameters(list, add) {
  for (let node = list.firstChild; node; node = node.nextSibling) {
    if (node.name === "VariableName" && node.prevSibling?.name !== "AssignOp") add(node);
  }
}

/** Adds the names left of the last `=`, in a function only the attributes of `self`, and the name of a table. */
function targets(statement, text, local, add) {
  const parts = [];
  for (let node = statement.firstChild; node; node = node.nextSibling) parts.push(node);
  const last = parts.findLastIndex((node) => node.name === "AssignOp");
  for (const node of last === -1 ? parts : parts.slice(0, last)) {
    if (node.name === "VariableName" && !local) {
      add(node);
      if (text.slice(node.from, node.to) === "__tablename__")
        add({ from: parts[last + 1].from + 1, to: parts[last + 1].to - 1 });
    }
    if (node.name === "MemberExpression" && node.lastChild.name === "PropertyName") {
      if (text.slice(node.firstChild.from, node.firstChild.to) === "self") add(node.lastChild);
    }
  }
}

function fromTypeScript(text) {
  const kinds = {
    VariableDefinition: "other",
    PropertyDefinition: "other",
    PrivatePropertyDefinition: "other",
    TypeDefinition: "class",
  };
  return definitions(typescript, text, (node) => {
    if (node.name === "PropertyName" && node.node.parent?.name === "EnumBody") return "other";
    if (node.name === "VariableDefinition" && node.node.parent?.name === "ClassDeclaration") return "class";
    return kinds[node.name];
  });
}

function fromGo(text) {
  const owners = { FieldDecl: "other", MethodElem: "other", MethodDecl: "other" };
  return definitions(go, text, (node) => {
    if (node.name === "DefName") return node.node.parent?.name === "TypeSpec" ? "class" : "other";
    return node.name === "FieldName" ? owners[node.node.parent?.name] : undefined;
  });
}

/** Collects the nodes that `kindOf` accepts, without the bodies of functions. */
function definitions(parser, text, kindOf) {
  const names = [];
  parser.parse(text).iterate({
    enter(node) {
      if (node.name === "Block") return false;
      const kind = kindOf(node);
      if (kind !== undefined)
        names.push({ kind, name: text.slice(node.from, node.to).replace(/^#/, ""), at: node.from });
      return true;
    },
  });
  return names;
}

function fromProto(text) {
  // Comments and strings become blank, so that only declarations are left.
  const code = text.replace(/\/\/[^\n]*|"(?:\\.|[^"\\\n])*"/g, (found) => " ".repeat(found.length));
  const types = /\b(message|enum|service|rpc|oneof)\s+(\w+)/dg;
  const fields = /(?<=[>\w]\s+|[{;\]]\s*)(\w+)\s*=\s*-?\d+\s*[;[]/dg;
  const names = [];
  for (const match of code.matchAll(types)) {
    names.push({
      kind: match[1] === "message" || match[1] === "enum" || match[1] === "service" ? "class" : "other",
      name: match[2],
      at: match.indices[2][0],
    });
  }
  for (const match of code.matchAll(fields)) names.push({ kind: "other", name: match[1], at: match.indices[1][0] });
  return names;
}
