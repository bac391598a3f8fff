package claudecode

import "testing"

func TestQuote(t *testing.T) {
	t.Parallel()
	got := Quote(AddCommand([]string{"/opt/my tools/claudemesh", "--config-dir", "it's", "mcp"}))
	want := `claude mcp add claudemesh --scope user -- '/opt/my tools/claudemesh' --config-dir 'it'\''s' mcp`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestRegistered(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"claudemesh:\n  Scope: User config\n  Status: ✓ Connected\n  Type: stdio\n  Command: claudemesh\n  Args: mcp\n  Environment:\n": "claudemesh mcp",
		"": "",
		"  Command: /usr/local/bin/claudemesh\n  Args: --config-dir /x mcp\n": "/usr/local/bin/claudemesh --config-dir /x mcp",
	} {
		if got := registered(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
