package files

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// contentField is the number of the field `data` in requests with content.
const contentField = 2

// part is one message of a stream with content. The content stays in the buffers in which it arrived until it is
// written to the disk. Decoding it into a message would copy it, 64 KiB or more for each message, and garbage
// collection would take more time than everything else.
type part struct {
	// message is the decoded message if it is not a message with content only. The caller sets it to an empty message.
	message proto.Message
	// isContent is set for a message with content only.
	isContent bool
	buffers   mem.BufferSlice
	// headBytes is the number of bytes in buffers before the content.
	headBytes int
}

// decode is called by the codec with the encoded message.
func (p *part) decode(data mem.BufferSlice) error {
	p.free()
	if p.headBytes = contentHead(data); p.headBytes > 0 {
		data.Ref()
		p.buffers, p.isContent = data, true
		return nil
	}
	buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	return proto.Unmarshal(buffer.ReadOnlyData(), p.message)
}

// contentHead returns the size of the head of a message that has content only, or 0 for other messages.
func contentHead(data mem.BufferSlice) int {
	var head [16]byte
	start := head[:data.CopyTo(head[:])]
	number, kind, n := protowire.ConsumeTag(start)
	if n < 0 || number != contentField || kind != protowire.BytesType {
		return 0
	}
	length, m := protowire.ConsumeVarint(start[n:])
	if m < 0 || length != uint64(data.Len()-n-m) {
		return 0
	}
	return n + m
}

// pieces yields the content in order. The slices must not be used after the iteration.
func (p *part) pieces(yield func([]byte) bool) {
	headBytes := p.headBytes
	for _, buffer := range p.buffers {
		piece := buffer.ReadOnlyData()
		skipped := min(headBytes, len(piece))
		headBytes -= skipped
		if piece = piece[skipped:]; len(piece) > 0 && !yield(piece) {
			return
		}
	}
}

// size returns the number of bytes of content.
func (p *part) size() int64 { return int64(p.buffers.Len() - p.headBytes) }

// free releases the buffers. It must also be called after the last message.
func (p *part) free() {
	p.buffers.Free()
	p.buffers, p.isContent, p.headBytes = nil, false, 0
}

// codec is gRPC's codec for protobuf with support for part.
type codec struct {
	encoding.CodecV2
}

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, message any) error {
	if p, ok := message.(*part); ok {
		return p.decode(data)
	}
	return c.CodecV2.Unmarshal(data, message)
}

// ServerOption returns the option that a gRPC server requires to serve a Service.
func ServerOption() grpc.ServerOption {
	return grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(protocodec.Name)})
}
