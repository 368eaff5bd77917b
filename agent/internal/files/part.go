package files

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// contentField is the number of the field `data` in the requests that carry content.
const contentField = 2

// part is one message of a stream that carries content. Content stays in the buffers in which it arrived, until it is
// written to the disk: to make a message of it would take as much memory again, 64 KiB or more for each, and the collector
// would take more time than all the rest.
type part struct {
	// message is what arrived if it was not content alone; the caller gives an empty one.
	message proto.Message
	// isContent says which of the two it was.
	isContent bool
	buffers   mem.BufferSlice
	// lead is how many bytes of the buffers come before the content.
	lead int
}

// take is called by the codec with what arrived.
func (p *part) take(data mem.BufferSlice) error {
	p.free()
	if p.lead = contentLead(data); p.lead > 0 {
		data.Ref()
		p.buffers, p.isContent = data, true
		return nil
	}
	buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	return proto.Unmarshal(buffer.ReadOnlyData(), p.message)
}

// contentLead is how long the head of a message is that has content and nothing else; 0 for any other.
func contentLead(data mem.BufferSlice) int {
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

// pieces gives the content in order. It is not to be kept.
func (p *part) pieces(yield func([]byte) bool) {
	lead := p.lead
	for _, buffer := range p.buffers {
		piece := buffer.ReadOnlyData()
		skipped := min(lead, len(piece))
		lead -= skipped
		if piece = piece[skipped:]; len(piece) > 0 && !yield(piece) {
			return
		}
	}
}

// size is how many bytes of content there are.
func (p *part) size() int64 { return int64(p.buffers.Len() - p.lead) }

// free gives the buffers back. To be called after the last message, too.
func (p *part) free() {
	p.buffers.Free()
	p.buffers, p.isContent, p.lead = nil, false, 0
}

// codec is that of gRPC for protobuf, but for parts.
type codec struct {
	encoding.CodecV2
}

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, message any) error {
	if p, ok := message.(*part); ok {
		return p.take(data)
	}
	return c.CodecV2.Unmarshal(data, message)
}

// ServerOption is what a gRPC server needs to serve a Service.
func ServerOption() grpc.ServerOption {
	return grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(protocodec.Name)})
}
