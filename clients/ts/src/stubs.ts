/**
 * The generated messages and services of the contract, for callers of the gRPC API: `sandpool/gen`.
 *
 * @packageDocumentation
 */
export * from "./gen/sandpool/v1/container_pb.js";
export * from "./gen/sandpool/v1/file_pb.js";
export * from "./gen/sandpool/v1/file_service_pb.js";
export * from "./gen/sandpool/v1/monitor_pb.js";
export * from "./gen/sandpool/v1/monitor_service_pb.js";
export * from "./gen/sandpool/v1/pool_pb.js";
export * from "./gen/sandpool/v1/pool_service_pb.js";
export * from "./gen/sandpool/v1/port_pb.js";
export * from "./gen/sandpool/v1/port_service_pb.js";
export * from "./gen/sandpool/v1/process_pb.js";
export * from "./gen/sandpool/v1/process_service_pb.js";
export * from "./gen/sandpool/v1/sandbox_pb.js";
export * from "./gen/sandpool/v1/sandbox_service_pb.js";
export * from "./gen/sandpool/v1/secret_pb.js";
export * from "./gen/sandpool/v1/secret_service_pb.js";
export * from "./gen/sandpool/v1/template_pb.js";
export * from "./gen/sandpool/v1/template_service_pb.js";
