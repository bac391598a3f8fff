package courier

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"time"
)

// maxTranscript is how much of a transcript's end is read, in bytes.
const maxTranscript = 1 << 20

// interrupted is what the agent puts into a conversation that it keeps when a
// turn is broken off.
var interrupted = []byte("[Request interrupted by user")

// answered reports whether a conversation went on after a time (Unix ms): the
// model has answered, or the turn was broken off and stays. What cannot be read
// says nothing, and what was shown then is shown again.
func answered(path string, at int64) bool {
	return since(path, at, func(kind string, line []byte) bool {
		return kind == "assistant" || kind == "user" && bytes.Contains(line, interrupted)
	})
}

// noticed reports whether what a waiter printed after a time has entered a conversation.
func noticed(path string, at int64) bool {
	return since(path, at, func(kind string, line []byte) bool {
		return kind == "user" && bytes.Contains(line, []byte(taskNotice))
	})
}

// since reports whether a conversation has a line after a time (Unix ms) that is
// as is says of its kind and text.
func since(path string, at int64, is func(kind string, line []byte) bool) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	data, err := io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-maxTranscript), maxTranscript))
	if err != nil {
		return false
	}
	for line := range bytes.Lines(data) {
		var entry struct {
			Type      string    `json:"type"`
			Time      time.Time `json:"timestamp"`
			Sidechain bool      `json:"isSidechain"` // a subagent's
		}
		if json.Unmarshal(line, &entry) == nil && !entry.Sidechain && entry.Time.UnixMilli() >= at && is(entry.Type, line) {
			return true
		}
	}
	return false
}
