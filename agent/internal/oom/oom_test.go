package oom

import (
	"os"
	"path/filepath"
	"testing"
)

func TestKillsReturnsTheCurrentValueOfTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "memory.events")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n")
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	counter := &Counter{file: file}
	if kills, ok := counter.Kills(); kills != 2 || !ok {
		t.Errorf("%d, %v; want 2", kills, ok)
	}
	write("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
	if kills, ok := counter.Kills(); kills != 5 || !ok {
		t.Errorf("%d, %v; want 5", kills, ok)
	}
	write("oom_kill_disable 0\n")
	if kills, ok := counter.Kills(); ok {
		t.Errorf("got %d for a file without the counter, want unknown", kills)
	}
}

func TestKillsReturnsFalseForUnknownCounter(t *testing.T) {
	if kills, ok := (&Counter{}).Kills(); kills != 0 || ok {
		t.Errorf("%d, %v; want unknown", kills, ok)
	}
}
