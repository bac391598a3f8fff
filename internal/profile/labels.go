package profile

import (
	"path/filepath"
	"strconv"
	"strings"

	"github.com/claudemesh/claudemesh/internal/wire"
)

const maxLabel = 32

// baseLabel makes a label of a directory's name: "My App" gives "my-app".
func baseLabel(dir string) string {
	var b strings.Builder
	gap := false
	for _, r := range strings.ToLower(filepath.Base(dir)) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '.', r == '_', r == '-':
			if gap {
				b.WriteByte('-')
			}
			gap = false
			b.WriteRune(r)
		default:
			gap = true
		}
	}
	label := strings.TrimLeft(b.String(), "._-")
	if len(label) > maxLabel {
		label = strings.TrimRight(label[:maxLabel], "-")
	}
	if label == "" {
		return "session"
	}
	return label
}

// numbered appends -n to a label, which is shortened to make room.
func numbered(label string, n int) string {
	suffix := "-" + strconv.Itoa(n)
	return label[:min(len(label), maxLabel-len(suffix))] + suffix
}

// freeLabel returns the label of a seat with the first number that nobody has:
// sessions of ~/work/api and ~/play/api are api and api-2.
func freeLabel(base string, seat int, taken map[string]bool) string {
	label := base
	if seat > 1 {
		label = numbered(base, seat)
	}
	for n := max(seat, 1) + 1; taken[label]; n++ {
		label = numbered(base, n)
	}
	return label
}

// labels returns the labels of a mesh's seats but the one of path. The file of
// another seat that cannot be read is its session's trouble, not ours.
func (p *Profile) labels(mesh wire.ID, path string) (map[string]bool, error) {
	paths, err := p.seatPaths(mesh, "")
	if err != nil {
		return nil, err
	}
	taken := make(map[string]bool)
	for _, other := range paths {
		if other == path {
			continue
		}
		if f, err := readSeat(other); err == nil {
			taken[f.Label] = true
		}
	}
	return taken, nil
}
