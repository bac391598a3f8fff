package courier

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/claudemesh/claudemesh/internal/mailbox"
)

// FuzzEvent: what a hook is given makes nothing panic; an event that is taken
// names a session, and what it has told once is no news again.
func FuzzEvent(f *testing.F) {
	for _, s := range []string{
		``, `{}`, `null`, `[]`, `{"hook_event_name":"Stop","session_id":"s"}`,
		`{"hook_event_name":"UserPromptSubmit","session_id":"s","prompt_id":"p","prompt":"` + taskNotice + `","transcript_path":"/no/such"}`,
		`{"hook_event_name":"SessionStart","session_id":"s","source":"clear"}`,
		`{"hook_event_name":"Notification","session_id":"s","notification_type":"idle_prompt"}`,
		`{"hook_event_name":"SessionEnd","session_id":"s","agent_id":"a","stop_hook_active":true}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := ReadEvent(bytes.NewReader(data))
		if err != nil {
			return
		}
		if e.Session == "" {
			t.Fatal("an event of no session")
		}
		e.Transcript = filepath.Join("no", "such", "file") // the fuzzer reads no files
		a := &mailbox.Agent{Shown: []mailbox.Shown{{Holder: "x", Turn: "t"}, {Session: "s"}}}
		e.note(a, 1_000)
		if e.Name != SessionEnd && a.Session != e.Session || e.note(a, 1_001) {
			t.Fatalf("%q is noted as %+v", data, a)
		}
		for i := range a.Shown {
			e.proves(&a.Shown[i], 1_001)
		}
	})
}

// FuzzTranscript: a conversation is searched line by line, and a line that does
// not parse hides no other.
func FuzzTranscript(f *testing.F) {
	const answer = `{"type":"assistant","timestamp":"2026-01-01T00:00:00Z"}`
	f.Add([]byte(answer))
	f.Add([]byte(`{"type":"user","timestamp":"2026-01-01T00:00:00Z","message":"[Request interrupted by user]"}`))
	f.Add([]byte(`{"type":"user","timestamp":"x"}` + "\n\n{\n\x00"))
	path := filepath.Join(f.TempDir(), "t.jsonl")
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, text := range []string{string(data), string(data) + "\n" + answer + "\n", answer + "\n" + string(data)} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := answered(path, 0); !got && strings.Contains(text, answer) && len(text) <= maxTranscript {
				t.Fatalf("no answer in %q", text)
			}
			noticed(path, 0)
		}
	})
}

// FuzzRegistry: whatever the agent's own file holds, only its word idle counts.
func FuzzRegistry(f *testing.F) {
	f.Add([]byte(`{"status":"idle","statusUpdatedAt":1700000000000}`))
	f.Add([]byte(`{"status":"busy","statusUpdatedAt":"x"}`))
	f.Add([]byte(`{"status":"busy","statusUpdatedAt":7}`))
	f.Add([]byte(`{"status":["idle"]}{`))
	home := f.TempDir()
	if err := os.Mkdir(filepath.Join(home, "sessions"), 0o700); err != nil {
		f.Fatal(err)
	}
	transcript := filepath.Join(home, "projects", "p", "s.jsonl")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(filepath.Join(home, "sessions", "7.json"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		status, at := saysOf(transcript, 7)
		if since := idleSince(transcript, 7); since != 0 && (status != Idle || since != at) {
			t.Fatalf("%q: idle since %d", data, since)
		}
	})
}
