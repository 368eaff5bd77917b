package processes

const firstRingBytes = 4 << 10

// ring retains the last bytes of a stream, at most limit. Offsets count all bytes since the start of the stream. Its
// memory grows on demand. The owner must synchronize access.
type ring struct {
	limit int
	// bytes contains the byte with offset o at index o modulo its length.
	bytes []byte
	start int64
	end   int64
}

// append appends data and drops the oldest bytes that no longer fit.
func (r *ring) append(data []byte) {
	if skipped := len(data) - r.limit; skipped > 0 {
		data = data[skipped:]
		r.end += int64(skipped)
		r.start = r.end
	}
	r.reserve(int(r.end-r.start) + len(data))
	for len(data) > 0 {
		n := copy(r.bytes[r.end%int64(len(r.bytes)):], data)
		data = data[n:]
		r.end += int64(n)
	}
	r.start = max(r.start, r.end-int64(len(r.bytes)))
}

// read copies bytes from an offset between start and end into p, and returns how many.
func (r *ring) read(offset int64, p []byte) int {
	count := min(int64(len(p)), r.end-offset)
	var done int64
	for done < count {
		at := (offset + done) % int64(len(r.bytes))
		done += int64(copy(p[done:count], r.bytes[at:]))
	}
	return int(count)
}

// clear drops all bytes.
func (r *ring) clear() {
	r.start, r.bytes = r.end, nil
}

// reserve grows the memory to the given number of bytes, at most to limit.
func (r *ring) reserve(needed int) {
	if needed <= len(r.bytes) || len(r.bytes) == r.limit {
		return
	}
	size := max(len(r.bytes), firstRingBytes)
	for size < needed {
		size *= 2
	}
	grown := make([]byte, min(size, r.limit))
	for offset := r.start; offset < r.end; {
		from := r.bytes[offset%int64(len(r.bytes)):]
		from = from[:min(int64(len(from)), r.end-offset)]
		n := copy(grown[offset%int64(len(grown)):], from)
		offset += int64(n)
	}
	r.bytes = grown
}
