package processes

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestRingRetainsTheLastBytes compares a ring with the complete stream, over random appends of all sizes.
func TestRingRetainsTheLastBytes(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		r := ring{limit: 1 + random.IntN(20_000)}
		var whole []byte
		for range 50 {
			data := make([]byte, random.IntN(2*r.limit+1))
			for i := range data {
				data[i] = byte(random.Uint32())
			}
			r.append(data)
			whole = append(whole, data...)
			if r.end != int64(len(whole)) {
				t.Fatalf("end is %d, want %d", r.end, len(whole))
			}
			if retained := r.end - r.start; retained > int64(r.limit) || retained < min(int64(r.limit), r.end) {
				t.Fatalf("%d of %d bytes are retained, the limit is %d", retained, r.end, r.limit)
			}
			at := r.start + random.Int64N(r.end-r.start+1)
			got := make([]byte, random.IntN(r.limit+1))
			n := r.read(at, got)
			if want := whole[at:min(at+int64(len(got)), r.end)]; !bytes.Equal(got[:n], want) {
				t.Fatalf("%d bytes from offset %d differ", n, at)
			}
		}
	}
}

func TestClearedRingContinuesAtItsOffset(t *testing.T) {
	r := ring{limit: 10}
	r.append([]byte("hello"))
	r.clear()
	r.append([]byte("you"))
	got := make([]byte, 10)
	if n := r.read(5, got); string(got[:n]) != "you" || r.start != 5 || r.end != 8 {
		t.Fatalf("got %q, from %d to %d", got[:n], r.start, r.end)
	}
}
