package processes

const firstRingBytes = 4 << 10

// ring keeps the last bytes of a stream, at most limit of them. Offsets count all bytes since its begin. It grows as it
// is needed. Its owner guards it.
type ring struct {
	limit int
	// bytes holds the byte of offset o at o modulo its length.
	bytes []byte
	begin int64
	end   int64
}

// append adds data and lets the oldest bytes go that have no place any more.
func (r *ring) append(data []byte) {
	if skipped := len(data) - r.limit; skipped > 0 {
		data = data[skipped:]
		r.end += int64(skipped)
		r.begin = r.end
	}
	r.reserve(int(r.end-r.begin) + len(data))
	for len(data) > 0 {
		n := copy(r.bytes[r.end%int64(len(r.bytes)):], data)
		data = data[n:]
		r.end += int64(n)
	}
	r.begin = max(r.begin, r.end-int64(len(r.bytes)))
}

// read copies bytes from an offset on into p, which lie between begin and end, and says how many.
func (r *ring) read(offset int64, p []byte) int {
	wanted := min(int64(len(p)), r.end-offset)
	var done int64
	for done < wanted {
		at := (offset + done) % int64(len(r.bytes))
		done += int64(copy(p[done:wanted], r.bytes[at:]))
	}
	return int(wanted)
}

// forget lets all bytes go.
func (r *ring) forget() {
	r.begin, r.bytes = r.end, nil
}

// reserve makes room for so many bytes in all, as far as the limit allows.
func (r *ring) reserve(wanted int) {
	if wanted <= len(r.bytes) || len(r.bytes) == r.limit {
		return
	}
	size := max(len(r.bytes), firstRingBytes)
	for size < wanted {
		size *= 2
	}
	grown := make([]byte, min(size, r.limit))
	for offset := r.begin; offset < r.end; {
		from := r.bytes[offset%int64(len(r.bytes)):]
		from = from[:min(int64(len(from)), r.end-offset)]
		n := copy(grown[offset%int64(len(grown)):], from)
		offset += int64(n)
	}
	r.bytes = grown
}
