// Package rpcerror makes errors with the details that the contract promises.
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

// New makes an error of a code, a reason and a message.
func New(code codes.Code, reason, format string, args ...any) error {
	return withDetails(code, fmt.Sprintf(format, args...), &errdetails.ErrorInfo{Reason: reason, Domain: Domain})
}

// About makes an error that names the resource which it is about.
func About(code codes.Code, reason, resource, format string, args ...any) error {
	return withDetails(code, fmt.Sprintf(format, args...), &errdetails.ErrorInfo{
		Reason: reason, Domain: Domain, Metadata: map[string]string{"resource": resource},
	})
}

// BadField makes an INVALID_ARGUMENT that names the request's field.
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
		// Only details that cannot be serialised get here; the code and message still hold.
		slog.Error("cannot attach error details", "error", err)
		return plain.Err()
	}
	return detailed.Err()
}
