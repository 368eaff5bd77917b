/**
 * The messages of `google/rpc/error_details.proto` that an error's details hold.
 *
 * No package on the public npm registry brings them for protobuf-es, and they are part of no contract of ours. So the
 * few that we read are described here; numbers and types are those of googleapis.
 */
import { create, createFileRegistry, type DescMessage, type Message } from "@bufbuild/protobuf";
import type { GenMessage } from "@bufbuild/protobuf/codegenv2";
import {
  type Duration,
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
  FileDescriptorProtoSchema,
  file_google_protobuf_duration,
} from "@bufbuild/protobuf/wkt";

/** Why it failed, for programs. */
export type ErrorInfo = Message<"google.rpc.ErrorInfo"> & {
  reason: string;
  domain: string;
  metadata: Record<string, string>;
};

/** How long to wait before another attempt. */
export type RetryInfo = Message<"google.rpc.RetryInfo"> & { retryDelay?: Duration };

/** Which fields of the request are wrong. */
export type BadRequest = Message<"google.rpc.BadRequest"> & {
  fieldViolations: (Message<"google.rpc.BadRequest.FieldViolation"> & { field: string; description: string })[];
};

/** Which resource the error is about. */
export type ResourceInfo = Message<"google.rpc.ResourceInfo"> & {
  resourceType: string;
  resourceName: string;
  owner: string;
  description: string;
};

/** Which limit is reached. */
export type QuotaFailure = Message<"google.rpc.QuotaFailure"> & {
  violations: (Message<"google.rpc.QuotaFailure.Violation"> & { subject: string; description: string })[];
};

const text = (name: string, number: number) => ({ name, number, type: Type.STRING, label: Label.OPTIONAL });
const message = (name: string, number: number, typeName: string, label = Label.OPTIONAL) => ({
  name,
  number,
  label,
  type: Type.MESSAGE,
  typeName,
});

const FILE = create(FileDescriptorProtoSchema, {
  name: "google/rpc/error_details.proto",
  package: "google.rpc",
  syntax: "proto3",
  dependency: ["google/protobuf/duration.proto"],
  messageType: [
    {
      name: "ErrorInfo",
      field: [
        text("reason", 1),
        text("domain", 2),
        message("metadata", 3, ".google.rpc.ErrorInfo.MetadataEntry", Label.REPEATED),
      ],
      nestedType: [{ name: "MetadataEntry", field: [text("key", 1), text("value", 2)], options: { mapEntry: true } }],
    },
    { name: "RetryInfo", field: [message("retry_delay", 1, ".google.protobuf.Duration")] },
    {
      name: "BadRequest",
      field: [message("field_violations", 1, ".google.rpc.BadRequest.FieldViolation", Label.REPEATED)],
      nestedType: [{ name: "FieldViolation", field: [text("field", 1), text("description", 2)] }],
    },
    {
      name: "ResourceInfo",
      field: [text("resource_type", 1), text("resource_name", 2), text("owner", 3), text("description", 4)],
    },
    {
      name: "QuotaFailure",
      field: [message("violations", 1, ".google.rpc.QuotaFailure.Violation", Label.REPEATED)],
      nestedType: [{ name: "Violation", field: [text("subject", 1), text("description", 2)] }],
    },
  ],
});

const registry = createFileRegistry(FILE, (name) =>
  name === file_google_protobuf_duration.proto.name ? file_google_protobuf_duration : undefined,
);

function schema<T extends Message>(name: T["$typeName"]): GenMessage<T> {
  const found: DescMessage | undefined = registry.getMessage(name);
  if (found === undefined) throw new Error(`${name} is not described in this module`);
  return found as GenMessage<T>;
}

export const ErrorInfoSchema = schema<ErrorInfo>("google.rpc.ErrorInfo");
export const RetryInfoSchema = schema<RetryInfo>("google.rpc.RetryInfo");
export const BadRequestSchema = schema<BadRequest>("google.rpc.BadRequest");
export const ResourceInfoSchema = schema<ResourceInfo>("google.rpc.ResourceInfo");
export const QuotaFailureSchema = schema<QuotaFailure>("google.rpc.QuotaFailure");
