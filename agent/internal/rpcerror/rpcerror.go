// Package rpcerror creates errors with the details that the contract defines.
package rpcerror

import (
	"fmt"
	"log/slog"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
)

// Domain is the domain of all reasons, as in the public contract.
const Domain = "sandpool"

// New returns an error with a code, a reason and a message.
func New(code codes.Code, reason, format string, args ...any) error {
	return withDetails(code, fmt.Sprintf(format, args...), &errdetails.ErrorInfo{Reason: reason, Domain: Domain})
}

// About returns an error that names the resource it is about.
func About(code codes.Code, reason, resource, format string, args ...any) error {
	return withDetails(code, fmt.Sprintf(format, args...), &errdetails.ErrorInfo{
		Reason: reason, Domain: Domain, Metadata: map[string]string{"resource": resource},
	})
}

// BadField returns an INVALID_ARGUMENT that names the invalid field of the request.
func BadField(reason, field, format string, args ...any) error {
	description := fmt.Sprintf(format, args...)
	return withDetails(codes.InvalidArgument, field+": "+description,
		&errdetails.ErrorInfo{Reason: reason, Domain: Domain},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: field, Description: description, Reason: reason},
		}})
}

func withDetails(code codes.Code, message string, details ...protoadapt.MessageV1) error {
	plain := status.New(code, message)
	detailed, err := plain.WithDetails(details...)
	if err != nil {
		// This happens only if the details cannot be serialized. Code and message are still valid.
		slog.Error("attaching error details failed", "error", err)
		return plain.Err()
	}
	return detailed.Err()
}
